# -*- test-case-name: tests.memcache.test_pool -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A memcached client on a pool of connections::

    pool = MemCachePool(("127.0.0.1", 11211))
    await pool.set("greeting", b"hello", expireTime=60)
    flags, value = await pool.get("greeting")

Names and results are those of L{twisted.protocols.memcache.MemCacheProtocol}. Beneath them, connections are shared:
what is called in one turn of the reactor is written together, and concurrent C{get}s travel as one request for many
keys. Calls that do not wait for each other are therefore not in order: wait for the answer of a call on which the next
one builds.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.protocols.memcache import ClientError, ServerError

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.memcache.errors import NoSuchCommand
from txconnpool.memcache.requests import (
    Gathering,
    Key,
    Part,
    Request,
    Retrieval,
    SingleRequest,
    Together,
    Value,
    counted,
    outcome,
    statistics,
    version,
)
from txconnpool.metrics import PoolStats
from txconnpool.pool.base import BasePool
from txconnpool.pool.connection import Connection, ConnectionFactory
from txconnpool.wire import Command
from txconnpool.wire.memcache import replies
from txconnpool.wire.memcache.classic import INT32, UINT32, UINT64, checkKey
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.memcache.replies import GAT, GATS, GET, GETS

__all__ = ["ClientError", "InvalidArgument", "MemCachePool", "NoSuchCommand", "ServerError", "probe"]

_FLUSH_ALL: Final = b"flush_all\r\n"


class InvalidArgument(ClientError, ValueError):
    """
    A key, value or number that memcached would refuse or misunderstand. Nothing was sent.
    """


# -- Arguments


def _key(key: Key) -> bytes:
    try:
        name = key.encode() if isinstance(key, str) else key
        if not isinstance(name, bytes):
            raise ValueError(f"a key is str or bytes, not {type(name).__name__}")
        return checkKey(name)
    except ValueError as reason:
        raise InvalidArgument(str(reason)) from reason


def _number(name: str, value: int, bounds: tuple[int, int]) -> int:
    low, high = bounds
    if not isinstance(value, int) or not low <= value <= high:
        raise InvalidArgument(f"{name} is a whole number from {low} to {high}, not {value!r}")
    return value


# -- The client


def probe(connection: Connection) -> Deferred[bytes]:
    """
    See whether a memcached is at the other end, by asking for its version: what L{MemCachePool} does with each new
    connection, and may do as its C{check}.
    """
    return connection.ask(*Memcache.probe)


class Statistics(PoolStats):
    """
    The numbers of a pool at one moment, C{pool.stats}. C{pool.stats()} is the C{stats} of
    L{MemCacheProtocol<twisted.protocols.memcache.MemCacheProtocol>}: it asks a server for its own.
    """

    _pool: MemCachePool

    @classmethod
    def of(cls, pool: MemCachePool, now: PoolStats) -> Statistics:
        """
        Make the numbers callable.
        """
        stats = cls(**vars(now))
        object.__setattr__(stats, "_pool", pool)  # beside the fields, which are frozen, compared and shown
        return stats

    def __call__(self, arg: Key | None = None) -> Deferred[dict[bytes, bytes]]:
        return self._pool.serverStats(arg)


class MemCachePool(BasePool[Connection]):
    """
    A memcached client: one server, or several that are equal (copies of one another, or proxies to the same servers),
    each of which may be asked for any key.

    What is wrong with an argument is told before anything is sent (L{InvalidArgument}, which is a L{ClientError} and a
    C{ValueError}); what the server says is a L{ServerError}, L{ClientError} or L{NoSuchCommand}; that there was no
    answer is a L{PoolError<txconnpool.errors.PoolError>}. All of them come by the C{Deferred}. It may be cancelled at
    any time: what was not sent yet never is, and the reply to what was is dropped.

    Reads (C{get}, C{getMultiple}, C{gets}, C{version}, C{stats}) whose connection is lost are tried once more.
    """

    def __init__(
        self,
        serverAddresses: Any,
        maxClients: int = 5,
        reactor: Any = None,
        forceShutdown: bool = False,
        *,
        waitTimeout: float | None = 5.0,
        connectTimeout: float | None = 5.0,
        requestTimeout: float = 5.0,
        pipelineDepth: int = 100,
        batchSize: int = 64,
        maxItemSize: int = 1 << 20,
        configure: Callable[[Connection], object] | None = probe,
        allowedCommands: Container[str] | None = None,
        **options: Any,
    ) -> None:
        """
        @param serverAddresses: an address or a list of addresses, see L{txconnpool.pool.dialing.endpointOf}.
        @param maxClients: most connections. One is enough for most programs: more are dialed only while those that
            there are have requests in flight.
        @param waitTimeout: seconds that a request waits for a connection; C{None}: no limit.
        @param connectTimeout: seconds until a connection must be ready; C{None}: no limit.
        @param requestTimeout: seconds that the server may take to answer. A late reply closes its connection, with all
            that is in flight on it.
        @param pipelineDepth: most requests in flight on one connection.
        @param batchSize: most keys in one request. 1 sends every C{get} by itself.
        @param maxItemSize: bytes of a value, at most: what memcached's option C{-I} says.
        @param configure: called with each new connection before it is used; L{probe} if not given.
        @param allowedCommands: the names that L{performRequest} accepts; C{None}: those of all commands.
        @param options: see L{BasePool.__init__<txconnpool.pool.base.BasePool.__init__>}. A borrowed client is a
            L{Connection}. C{observer} is not notified of single replies.
        """
        if reactor is None:
            from twisted.internet import reactor
        dialect = Memcache()
        super().__init__(
            serverAddresses,
            maxClients,
            reactor,
            forceShutdown,
            ConnectionFactory(dialect, reactor, requestTimeout),
            commands=len(dialect.commands),
            waitTimeout=waitTimeout,
            connectTimeout=connectTimeout,
            pipelineDepth=pipelineDepth,
            configure=configure,
            **options,
        )
        self._allowed = allowedCommands
        self._batchSize = batchSize
        self._maxItemSize = maxItemSize
        self._open: dict[Command, Retrieval] = {}  # what this turn of the reactor has brought so far
        self._flushing: IDelayedCall | None = None

    def close(self, timeout: float | None = 5.0) -> Deferred[None]:
        """
        Take no more requests, let those that were sent end, and close all connections.

        @param timeout: seconds until what is still in flight is given up; C{None}: no limit.

        @return: fires when no connection, dial or timer is left.
        """
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()
        return super().close(timeout)

    def performRequest(self, method: str, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """
        Call one of the commands by its name.

        @return: fires with its result, or fails with L{NoSuchCommand}.
        """
        # Of this class: those of a subclass may be made of performRequest, as they were in 0.1.2.
        command = _COMMANDS.get(method)
        if command is None or (self._allowed is not None and method not in self._allowed):
            return fail(NoSuchCommand(f"{method!r} is no command"))
        return maybeDeferred(command, self, *args, **kwargs)

    # -- Sending

    def send(self, request: Request) -> None:
        """
        Send a request on a connection that has room, now or later.
        """
        if self._checks:
            self._state.doubt(self._seconds())
        try:
            record = self.take(request)
        except PoolError as error:
            request.fail(error)
        else:
            if record is not None:
                request.granted(record)

    def _command(self, command: Command, data: bytes, meaning: Callable[[bytes], Any] = outcome) -> Deferred[Any]:
        request = SingleRequest(self, command, data, meaning)
        self.send(request)
        return request.result

    def _retrieval(self, command: Command) -> Retrieval:
        """
        The request that goes out at the end of this turn of the reactor.
        """
        retrieval = self._open.get(command)
        if retrieval is None:
            if self._wasClosed:
                raise PoolClosed("the pool is closed")
            retrieval = self._open[command] = Retrieval(self, command, command.name.encode())
            if self._flushing is None:
                self._flushing = self.reactor.callLater(0, self._flush)
        return retrieval

    def _join(self, retrieval: Retrieval, key: bytes, caller: Any) -> None:
        other = retrieval.callers.setdefault(key, caller)
        if other is not caller:
            if isinstance(other, Together):
                other.callers.append(caller)
            else:
                retrieval.callers[key] = Together(other, caller)
        elif len(retrieval.callers) >= self._batchSize:
            self.send(self._open.pop(retrieval.command))

    def _flush(self) -> None:
        self._flushing = None
        retrievals = self._open
        self._open = {}
        for retrieval in retrievals.values():
            self.send(retrieval)

    # -- Reading

    def get(self, key: Key, withIdentifier: bool = False) -> Deferred[Value]:
        """
        Get the value of a key.

        @param withIdentifier: whether to get the identifier for L{checkAndSet} too.

        @return: fires with C{(flags, value)} or C{(flags, identifier, value)}; C{(0, None)} or C{(0, b"", None)} if
            there is no such key.
        """
        try:
            name = _key(key)
            retrieval = self._retrieval(GETS if withIdentifier else GET)
        except (InvalidArgument, PoolClosed) as error:
            return fail(error)
        caller: Deferred[Value] = Deferred(retrieval.cancelled)
        self._join(retrieval, name, caller)
        return caller

    def gets(self, key: Key) -> Deferred[Value]:
        """
        Get the value of a key and its identifier: L{get} with C{withIdentifier}.
        """
        return MemCachePool.get(self, key, True)

    def getMultiple(self, keys: Iterable[Key], withIdentifier: bool = False) -> Deferred[dict[Key, Value]]:
        """
        Get the values of several keys.

        @return: fires with a dictionary of what L{get} gives for each of them, by the keys as they were given.
        """
        command = GETS if withIdentifier else GET
        try:
            names = {key: _key(key) for key in keys}
            whole = Gathering(names)
            for key, name in names.items():
                if whole.result.called:  # the pool takes no more
                    break
                retrieval = self._retrieval(command)
                whole.retrievals.add(retrieval)
                self._join(retrieval, name, Part(whole, key))
        except (InvalidArgument, PoolClosed) as error:
            return fail(error)
        if not names:
            whole.result.callback({})
        return whole.result

    def getAndTouch(self, key: Key, expireTime: int, withIdentifier: bool = False) -> Deferred[Value]:
        """
        Get the value of a key, and let it expire at another time.

        @param expireTime: see L{set}.

        @return: as L{get}.
        """
        try:
            name = _key(key)
            seconds = _number("expireTime", expireTime, INT32)
        except InvalidArgument as error:
            return fail(error)
        command = GATS if withIdentifier else GAT
        retrieval = Retrieval(self, command, b"%b %d" % (command.name.encode(), seconds))
        caller: Deferred[Value] = Deferred(retrieval.cancelled)
        retrieval.callers[name] = caller
        self.send(retrieval)
        return caller

    # -- Writing

    def set(self, key: Key, val: bytes, flags: int = 0, expireTime: int = 0) -> Deferred[bool]:
        """
        Store a value.

        @param flags: a number from 0 to C{2 ** 32 - 1} that is kept with it.
        @param expireTime: seconds until it is forgotten, at most 30 days; more are a time since 1970; 0: never; less
            than 0: at once.

        @return: fires with C{True}.
        """
        return self._store(replies.SET, key, val, flags, expireTime)

    def add(self, key: Key, val: bytes, flags: int = 0, expireTime: int = 0) -> Deferred[bool]:
        """
        Store a value if there is none.

        @return: fires with whether it was stored.
        """
        return self._store(replies.ADD, key, val, flags, expireTime)

    def replace(self, key: Key, val: bytes, flags: int = 0, expireTime: int = 0) -> Deferred[bool]:
        """
        Store a value if there is one.

        @return: fires with whether it was stored.
        """
        return self._store(replies.REPLACE, key, val, flags, expireTime)

    def append(self, key: Key, val: bytes) -> Deferred[bool]:
        """
        Add to the end of a value.

        @return: fires with whether there was one.
        """
        return self._store(replies.APPEND, key, val, 0, 0)

    def prepend(self, key: Key, val: bytes) -> Deferred[bool]:
        """
        Add to the beginning of a value.

        @return: fires with whether there was one.
        """
        return self._store(replies.PREPEND, key, val, 0, 0)

    def checkAndSet(self, key: Key, val: bytes, cas: bytes, flags: int = 0, expireTime: int = 0) -> Deferred[bool]:
        """
        Store a value if nobody has changed it since it was read.

        @param cas: the identifier that came with it, see L{get}.

        @return: fires with whether it was stored.
        """
        if not isinstance(cas, bytes) or not cas.isdigit() or int(cas) > UINT64[1]:
            return fail(InvalidArgument(f"an identifier is what get(key, withIdentifier=True) gave, not {cas!r}"))
        return self._store(replies.CAS, key, val, flags, expireTime, b" " + cas)

    def _store(
        self, command: Command, key: Key, val: bytes, flags: int, expireTime: int, cas: bytes = b""
    ) -> Deferred[bool]:
        try:
            name = _key(key)
            _number("flags", flags, UINT32)
            _number("expireTime", expireTime, INT32)
            if not isinstance(val, bytes):
                raise InvalidArgument(f"a value is bytes, not {type(val).__name__}")
            if len(val) > self._maxItemSize:
                raise InvalidArgument(f"a value of {len(val)} bytes; at most {self._maxItemSize} (maxItemSize) may be")
        except InvalidArgument as error:
            return fail(error)
        parts = (command.name.encode(), name, flags, expireTime, len(val), cas, val)
        return self._command(command, b"%b %b %d %d %d%b\r\n%b\r\n" % parts)

    def increment(self, key: Key, val: int = 1) -> Deferred[int]:
        """
        Add to a value that is a number.

        @return: fires with the new value, modulo C{2 ** 64}; C{False} if there is no such key.
        """
        return self._count(replies.INCR, key, val)

    def decrement(self, key: Key, val: int = 1) -> Deferred[int]:
        """
        Take away from a value that is a number.

        @return: fires with the new value, at least 0; C{False} if there is no such key.
        """
        return self._count(replies.DECR, key, val)

    def _count(self, command: Command, key: Key, val: int) -> Deferred[int]:
        try:
            data = b"%b %b %d\r\n" % (command.name.encode(), _key(key), _number("val", val, UINT64))
        except InvalidArgument as error:
            return fail(error)
        return self._command(command, data, counted)

    def touch(self, key: Key, expireTime: int) -> Deferred[bool]:
        """
        Let a value expire at another time.

        @param expireTime: see L{set}.

        @return: fires with whether there is one.
        """
        try:
            data = b"touch %b %d\r\n" % (_key(key), _number("expireTime", expireTime, INT32))
        except InvalidArgument as error:
            return fail(error)
        return self._command(replies.TOUCH, data)

    def delete(self, key: Key) -> Deferred[bool]:
        """
        Delete a value.

        @return: fires with whether there was one.
        """
        try:
            data = b"delete %b\r\n" % _key(key)
        except InvalidArgument as error:
            return fail(error)
        return self._command(replies.DELETE, data)

    # -- The servers

    def flushAll(self) -> Deferred[bool]:
        """
        Delete all values, on every server. Nothing is deleted if one of them cannot be reached.

        @return: fires with C{True}.
        """
        if len(self.servers) == 1:
            return self._command(replies.FLUSH_ALL, _FLUSH_ALL)
        return self.ready(len(self.servers), self._state.limits.waitTimeout).addCallback(self._flushEach)

    def _flushEach(self, _: object) -> Deferred[bool]:
        records = self.each()
        commands = [SingleRequest(self, replies.FLUSH_ALL, _FLUSH_ALL, outcome) for _ in records]
        for command, record in zip(commands, records, strict=True):
            command.granted(record)
        done = gatherResults([command.result for command in commands], consumeErrors=True)
        return done.addCallbacks(all, lambda failure: failure.value.subFailure)

    def version(self) -> Deferred[bytes]:
        """
        Ask for the version of the server, of one if there are several.

        @return: fires with it.
        """
        return self._command(replies.VERSION, b"version\r\n", version)

    @property
    def stats(self) -> Statistics:
        """
        The numbers of the pool, as every pool has them. Called, they ask for those of a server.
        """
        return Statistics.of(self, super().stats)

    def serverStats(self, arg: Key | None = None) -> Deferred[dict[bytes, bytes]]:
        """
        Ask the server for its statistics, one if there are several.

        @param arg: which, in the words of the server: C{"items"} and the like.

        @return: fires with the values by their names.
        """
        try:
            words = [b"stats", *([_key(word) for word in arg.split()] if arg else [])]
        except InvalidArgument as error:
            return fail(error)
        return self._command(replies.STATS, b" ".join(words) + b"\r\n", statistics)


#: What may be asked for by name.
_COMMANDS: Final[dict[str, Callable[..., Deferred[Any]]]] = {
    name: getattr(MemCachePool, name)
    for name in (
        *("get", "gets", "getMultiple", "getAndTouch", "set", "add", "replace", "append", "prepend", "checkAndSet"),
        *("increment", "decrement", "touch", "delete", "flushAll", "version"),
    )
} | {"stats": MemCachePool.serverStats}
