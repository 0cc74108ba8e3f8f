# -*- test-case-name: tests.memcache.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands of memcached, with the names and results of L{twisted.protocols.memcache.MemCacheProtocol}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Literal, TypeVar, overload

from twisted.internet.defer import Deferred, fail

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.memcache.arguments import checkIdentifier, checkKeys, checkNumber, checkValue, encodeKey
from txconnpool.memcache.errors import InvalidArgument
from txconnpool.memcache.requests import Gathering, Part, Retrieval, Values, missOf
from txconnpool.memcache.results import (
    AnyValue,
    Identified,
    Key,
    V,
    Value,
    counted,
    metaCounted,
    outcome,
    statistics,
    version,
)
from txconnpool.memcache.values import Codec
from txconnpool.pool.calls import SingleRequest
from txconnpool.wire import Command
from txconnpool.wire.memcache import replies
from txconnpool.wire.memcache.classic import INT32, UINT32, UINT64, deletion
from txconnpool.wire.memcache.replies import GAT, GATS, GET, GETS

#: The type of keys.
K = TypeVar("K", bound=Key)


#: The commands whose values are not serialized, because they change a part of the stored bytes.
_RAW = frozenset((replies.APPEND, replies.PREPEND))


class MemCacheCommands(Generic[V]):
    """
    The commands of a memcached client. A subclass sends the requests.

    An invalid argument fails the C{Deferred} with an L{InvalidArgument}, and nothing is sent.
    """

    #: The connections of the client, or C{None} if it has several pools of them.
    _only: Any

    #: Makes the bytes of values.
    _codec: Codec[V]

    #: The text before all keys.
    _namespace: bytes

    #: The expiry time of values that are stored without one.
    _expireTime: int

    def _poolOf(self, key: bytes) -> Any:
        """
        @return: the connections to the server of a key.

        @raise PoolError: there is no server for the key at the moment.
        """
        raise NotImplementedError

    def _anyPool(self) -> Any:
        """
        @return: the connections for a request without a key.
        """
        raise NotImplementedError

    def _countPartial(self, error: Exception) -> bool:
        """
        Count a call for several keys, some of whose servers have failed.

        @return: whether the call results in misses for their keys. If not, it fails.
        """
        raise NotImplementedError

    def _perform(
        self, command: Command, name: bytes, data: bytes, meaning: Callable[[bytes], Any] = outcome
    ) -> Deferred[Any]:
        try:
            pool = self._only or self._poolOf(name)
        except PoolError as error:
            return fail(error)
        request = SingleRequest(pool, command, data, meaning)
        pool.send(request)
        return request.result

    def _ask(self, command: Command, data: bytes, meaning: Callable[[bytes], Any]) -> Deferred[Any]:
        pool = self._only or self._anyPool()
        request = SingleRequest(pool, command, data, meaning)
        pool.send(request)
        return request.result

    # -- Reading

    @overload
    def get(self, key: Key, withIdentifier: Literal[False] = False) -> Deferred[Value[V]]: ...

    @overload
    def get(self, key: Key, withIdentifier: Literal[True]) -> Deferred[Identified[V]]: ...

    @overload
    def get(self, key: Key, withIdentifier: bool = False) -> Deferred[Value[V] | Identified[V]]: ...

    def get(self, key: Key, withIdentifier: bool = False) -> Deferred[Any]:
        """
        Get the value of a key.

        @param withIdentifier: whether to get the identifier for L{checkAndSet} too.

        @return: fires with C{(flags, value)}, or with C{(flags, identifier, value)}. Without such a key, the result is
            C{(0, None)} or C{(0, b"", None)}.
        """
        try:
            name = encodeKey(key, self._namespace)
            batches = (self._only or self._poolOf(name)).batches
            retrieval = batches.open(GETS if withIdentifier else GET)
        except (InvalidArgument, PoolError) as error:
            return fail(error)
        caller: Deferred[Any] = Deferred(retrieval.cancelled)
        batches.add(retrieval, name, caller)
        return caller if self._codec.plain else caller.addCallback(self._codec.decode)

    def _getNamed(self, name: bytes) -> Deferred[Value[V]]:
        """
        Get the value of a key that was encoded.
        """
        retrieval = Retrieval(self._only or self._poolOf(name), GET, b"get")
        caller: Deferred[Any] = Deferred(retrieval.cancelled)
        retrieval.callers[name] = caller
        (self._only or self._poolOf(name)).send(retrieval)
        return caller.addCallback(self._codec.decode)

    def _storeNamed(self, name: bytes, data: bytes, flags: int, seconds: int) -> Deferred[bool]:
        """
        Store the bytes of a value for a key that was encoded.
        """
        head = b"set %b %d %d %d\r\n" % (name, flags, seconds, len(data))
        return self._perform(replies.SET, name, head + data + b"\r\n")

    def gets(self, key: Key) -> Deferred[Identified[V]]:
        """
        Get the value of a key and its identifier: L{get} with C{withIdentifier}.
        """
        return MemCacheCommands.get(self, key, True)

    @overload
    def getMultiple(self, keys: Iterable[K], withIdentifier: Literal[False] = False) -> Values[K, Value[V]]: ...

    @overload
    def getMultiple(self, keys: Iterable[K], withIdentifier: Literal[True]) -> Values[K, Identified[V]]: ...

    @overload
    def getMultiple(self, keys: Iterable[K], withIdentifier: bool = False) -> Values[K, AnyValue]: ...

    def getMultiple(self, keys: Iterable[K], withIdentifier: bool = False) -> Values[K, Any]:
        """
        Get the values of several keys.

        @param withIdentifier: whether to get the identifiers for L{checkAndSet} too.

        @return: fires with a dictionary. Its keys are C{keys} in the same order and with the same types, its values are
            the results of L{get}. If the keys have several servers, those of a server that has failed are missing, or
            the call fails (C{partialGets}). It is also an asynchronous iterable of the items as they arrive, see
            L{Values}.
        """
        command = GETS if withIdentifier else GET
        only = self._only
        decode = None if self._codec.plain else self._codec.decode
        whole = Gathering((), None, decode)
        try:
            namespace = self._namespace
            names = {key: encodeKey(key, namespace) for key in checkKeys(keys)}
            if only is None:
                whole = Gathering(names, self._countPartial, decode)
                self._gather(command, names, whole)
            else:
                whole = Gathering(names, None, decode)
                batches = only.batches
                for key, name in names.items():
                    if whole.result.called:  # a request that was full could not be sent
                        break
                    retrieval = batches.open(command)
                    whole.retrievals.add(retrieval)
                    batches.add(retrieval, name, Part(whole, key))
        except (InvalidArgument, PoolClosed) as error:
            if not whole.result.called:
                whole.fail(error)
            return whole.result
        if not names:
            whole.result.callback({})
        return whole.result

    def _gather(self, command: Command, names: Mapping[K, bytes], whole: Gathering) -> None:
        """
        Get each key from its server.

        @raise PoolClosed: the pool is closed.
        """
        miss = missOf(command)
        for key, name in names.items():
            if whole.result.called:
                break
            part = Part(whole, key, miss)
            try:
                batches = self._poolOf(name).batches
            except PoolError as error:
                part.errback(error)
                continue
            retrieval = batches.open(command)
            whole.retrievals.add(retrieval)
            batches.add(retrieval, name, part)

    @overload
    def getAndTouch(self, key: Key, expireTime: int, withIdentifier: Literal[False] = False) -> Deferred[Value[V]]: ...

    @overload
    def getAndTouch(self, key: Key, expireTime: int, withIdentifier: Literal[True]) -> Deferred[Identified[V]]: ...

    @overload
    def getAndTouch(
        self, key: Key, expireTime: int, withIdentifier: bool = False
    ) -> Deferred[Value[V] | Identified[V]]: ...

    def getAndTouch(self, key: Key, expireTime: int, withIdentifier: bool = False) -> Deferred[Any]:
        """
        Get the value of a key and set a new expiry time for it.

        @param expireTime: see L{set}.

        @return: as L{get}.
        """
        try:
            name = encodeKey(key, self._namespace)
            seconds = checkNumber("expireTime", expireTime, INT32)
            pool = self._only or self._poolOf(name)
        except (InvalidArgument, PoolError) as error:
            return fail(error)
        command = GATS if withIdentifier else GAT
        retrieval = Retrieval(pool, command, b"%b %d" % (command.name.encode(), seconds))
        caller: Deferred[Any] = Deferred(retrieval.cancelled)
        retrieval.callers[name] = caller
        pool.send(retrieval)
        return caller if self._codec.plain else caller.addCallback(self._codec.decode)

    # -- Writing

    def set(self, key: Key, val: V, flags: int = 0, expireTime: int | None = None) -> Deferred[bool]:
        """
        Store a value.

        @param flags: a number from 0 to C{2 ** 32 - 1} that is stored with the value.
        @param expireTime: seconds until the value expires, at most 30 days; a larger number is a UNIX time. 0: never;
            a negative number: at once. If not given, it is the C{expireTime} of the pool.

        @return: fires with C{True}.
        """
        return self._store(replies.SET, key, val, flags, expireTime)

    def add(self, key: Key, val: V, flags: int = 0, expireTime: int | None = None) -> Deferred[bool]:
        """
        Store a value if the key has none. The parameters are those of L{set}.

        @return: fires with whether the value was stored.
        """
        return self._store(replies.ADD, key, val, flags, expireTime)

    def replace(self, key: Key, val: V, flags: int = 0, expireTime: int | None = None) -> Deferred[bool]:
        """
        Store a value if the key has one. The parameters are those of L{set}.

        @return: fires with whether the value was stored.
        """
        return self._store(replies.REPLACE, key, val, flags, expireTime)

    def append(self, key: Key, val: bytes) -> Deferred[bool]:
        """
        Append bytes to the value of a key. They are not serialized or compressed.

        @return: fires with whether there was a value.
        """
        return self._store(replies.APPEND, key, val, 0, 0)

    def prepend(self, key: Key, val: bytes) -> Deferred[bool]:
        """
        Prepend bytes to the value of a key. They are not serialized or compressed.

        @return: fires with whether there was a value.
        """
        return self._store(replies.PREPEND, key, val, 0, 0)

    def checkAndSet(
        self, key: Key, val: V, cas: bytes, flags: int = 0, expireTime: int | None = None
    ) -> Deferred[bool]:
        """
        Store a value if it was not changed since it was read. The other parameters are those of L{set}.

        @param cas: the identifier from that read, see L{get}.

        @return: fires with whether the value was stored.
        """
        try:
            checkIdentifier(cas)
        except InvalidArgument as error:
            return fail(error)
        return self._store(replies.CAS, key, val, flags, expireTime, b" " + cas)

    def _store(
        self, command: Command, key: Key, val: Any, flags: int, expireTime: int | None, cas: bytes = b""
    ) -> Deferred[bool]:
        try:
            name = encodeKey(key, self._namespace)
            checkNumber("flags", flags, UINT32)
            seconds = self._expireTime if expireTime is None else checkNumber("expireTime", expireTime, INT32)
            if command in _RAW:
                checkValue(val, self._codec.maximum)
            else:
                val, flags = self._codec.encode(val, flags)
        except InvalidArgument as error:
            return fail(error)
        parts = (command.name.encode(), name, flags, seconds, len(val), cas, val)
        return self._perform(command, name, b"%b %b %d %d %d%b\r\n%b\r\n" % parts)

    def increment(
        self, key: Key, val: int = 1, initial: int | None = None, expireTime: int | None = None
    ) -> Deferred[int]:
        """
        Add to a value that is a number.

        @param val: from 0 to C{2 ** 64 - 1}.
        @param initial: the number that is stored if there is no such key; none is stored if not given. Needs memcached
            1.6.
        @param expireTime: the expiry time of this number, see L{set}.

        @return: fires with the new value, modulo C{2 ** 64}; with C{False} if there is no such key.
        """
        return self._count(replies.INCR, key, val, initial, expireTime)

    def decrement(
        self, key: Key, val: int = 1, initial: int | None = None, expireTime: int | None = None
    ) -> Deferred[int]:
        """
        Subtract from a value that is a number. The other parameters are those of L{increment}.

        @param val: from 0 to C{2 ** 64 - 1}.

        @return: fires with the new value, at least 0; with C{False} if there is no such key.
        """
        return self._count(replies.DECR, key, val, initial, expireTime)

    def _count(
        self, command: Command, key: Key, val: int, initial: int | None, expireTime: int | None
    ) -> Deferred[int]:
        try:
            if initial is not None:
                return self._countFrom(command, key, val, initial, expireTime)
            name = encodeKey(key, self._namespace)
            data = b"%b %b %d\r\n" % (command.name.encode(), name, checkNumber("val", val, UINT64))
        except InvalidArgument as error:
            return fail(error)
        return self._perform(command, name, data, counted)

    def _countFrom(self, command: Command, key: Key, val: int, initial: int, expireTime: int | None) -> Deferred[int]:
        """
        @raise InvalidArgument: an argument is invalid.
        """
        name = encodeKey(key, self._namespace)
        checkNumber("val", val, UINT64)
        checkNumber("initial", initial, UINT64)
        seconds = self._expireTime if expireTime is None else checkNumber("expireTime", expireTime, INT32)
        mode = b"I" if command is replies.INCR else b"D"
        data = b"ma %b v M%b D%d J%d N%d\r\n" % (name, mode, val, initial, seconds)
        return self._perform(replies.MA[True], name, data, metaCounted)

    def touch(self, key: Key, expireTime: int) -> Deferred[bool]:
        """
        Set a new expiry time for a key.

        @param expireTime: see L{set}.

        @return: fires with whether there is such a key.
        """
        try:
            name = encodeKey(key, self._namespace)
            data = b"touch %b %d\r\n" % (name, checkNumber("expireTime", expireTime, INT32))
        except InvalidArgument as error:
            return fail(error)
        return self._perform(replies.TOUCH, name, data)

    def delete(self, key: Key) -> Deferred[bool]:
        """
        Delete a key.

        @return: fires with whether there was one.
        """
        try:
            name = encodeKey(key, self._namespace)
        except InvalidArgument as error:
            return fail(error)
        return self._perform(replies.DELETE, name, deletion(name))

    # -- The server

    def version(self) -> Deferred[bytes]:
        """
        Ask a server for its version. With several servers, it is any one of them.

        @return: fires with the version.
        """
        return self._ask(replies.VERSION, b"version\r\n", version)

    def serverStats(self, arg: Key | None = None) -> Deferred[dict[bytes, bytes]]:
        """
        Ask a server for its statistics. With several servers, it is any one of them.

        @param arg: the group of statistics, such as C{"items"}; the general ones if not given.

        @return: fires with the values by their names.
        """
        try:
            request = statisticsRequest(arg)
        except InvalidArgument as error:
            return fail(error)
        return self._ask(replies.STATS, request, statistics)


def statisticsRequest(arg: Key | None) -> bytes:
    """
    @param arg: see L{MemCacheCommands.serverStats}.

    @return: the request for a server's statistics.

    @raise InvalidArgument: a word of C{arg} is invalid.
    """
    words = [b"stats", *([encodeKey(word) for word in arg.split()] if arg else [])]
    return b" ".join(words) + b"\r\n"
