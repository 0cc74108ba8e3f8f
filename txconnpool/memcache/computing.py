# -*- test-case-name: tests.memcache.test_computing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Values that are computed if memcached does not have them, by one caller while the others wait.

Within a process, calls for the same key share one computation. Among processes memcached decides, with the flags of its
meta commands (C{protocol.txt}, "Meta Get"): C{mg} with C{N} creates an empty item if there is none, and gives the flag
C{W} (win) to the first client. Others get the empty item with C{Z}, and ask again until it has a value. The empty item
expires, so that another client wins if the first one does not come back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.errors import NoSuchCommand, PoolClosed, PoolError
from txconnpool.memcache.errors import UnreadableValue
from txconnpool.memcache.results import Found, V, metaDone, metaFound
from txconnpool.memcache.values import Codec
from txconnpool.wire.memcache.replies import MD, MG, MS

_log = Logger("txconnpool.pool")

#: How long a client waits before it asks again for a value that another one computes: the first time, and at most. In
#: seconds.
FIRST: Final = 0.02
LONGEST: Final = 0.5


class Recipe(Generic[V]):
    """
    How a value is got.

    @ivar compute: computes the value, may return a Deferred or an awaitable.
    @ivar expireTime: the expiry time of a value that was computed.
    @ivar computeTime: seconds that others wait for a client that computes.
    @ivar refreshBefore: seconds before its expiry from which a value is computed anew.
    """

    __slots__ = ("compute", "computeTime", "expireTime", "refreshBefore")

    def __init__(self, compute: Callable[[], Any], expireTime: int, computeTime: int, refreshBefore: int) -> None:
        self.compute = compute
        self.expireTime = expireTime
        self.computeTime = computeTime
        self.refreshBefore = refreshBefore

    def request(self, name: bytes) -> bytes:
        """
        @return: the request for a key.
        """
        refresh = b" R%d" % self.refreshBefore if self.refreshBefore else b""
        return b"mg %b v f c N%d%b\r\n" % (name, self.computeTime, refresh)


class Computation(Generic[V]):
    """
    One key that is looked up, and computed if necessary, for all callers of a process.
    """

    def __init__(self, computations: Computations[V], name: bytes, recipe: Recipe[V]) -> None:
        self._all = computations
        self._name = name
        self._recipe = recipe
        self._callers: list[Deferred[V]] = []
        self._sleeping: tuple[Deferred[None], IDelayedCall] | None = None
        self._task: Deferred[V] | None = None
        self._asking = False  # whether the server is asked; if it makes this client the winner, that must not be lost

    def join(self) -> Deferred[V]:
        """
        @return: fires with the value. If all callers cancel theirs, the computation is cancelled.
        """
        caller: Deferred[V] = Deferred(self._cancelled)
        self._callers.append(caller)
        return caller

    def start(self) -> None:
        """
        Begin.
        """
        task = self._task = Deferred.fromCoroutine(self._run())
        task.addBoth(self._done)

    def close(self) -> None:
        """
        The pool is closed: do not ask again.
        """
        if self._sleeping is not None:
            self._sleeping[1].cancel()
            self._sleeping[0].errback(PoolClosed("the pool is closed"))

    def _cancelled(self, caller: Deferred[V]) -> None:
        if caller not in self._callers:  # the callers are about to get the value
            return
        self._callers.remove(caller)
        if not self._callers:
            self._all.forget(self._name)
            if self._task is not None and not self._asking:
                self._task.cancel()

    def _done(self, result: Any) -> None:
        if self._callers:
            self._all.forget(self._name)
        callers, self._callers = self._callers, []
        for caller in callers:
            if not caller.called:  # otherwise a callback of another one has cancelled it
                caller.callback(result)

    async def _run(self) -> V:
        delay = FIRST
        while True:
            try:
                found = await self._ask()
            except (PoolClosed, CancelledError):
                raise
            except NoSuchCommand:
                return await self._withoutMeta()
            except PoolError as error:
                _log.debug("a value is computed, because the cache failed: {error}", error=error)
                return await self._compute()
            if found.won or (found.data and self._isUnreadable(found)):
                return await self._winner(found)
            if found.data or not found.pending:
                value: V = self._all.codec.decode((found.flags, found.data))[-1]
                return value
            await self._sleep(delay)
            delay = min(2 * delay, LONGEST)

    async def _ask(self) -> Found:
        self._asking = True
        request = self._recipe.request(self._name)
        try:
            found: Found = await self._all.perform(MG[True, True], self._name, request, metaFound)
        finally:
            self._asking = False
        if not self._callers:
            if found.won and not found.data:
                self._release(found)
            raise CancelledError()
        return found

    def _isUnreadable(self, found: Found) -> bool:
        try:
            self._all.codec.decode((found.flags, found.data))
        except UnreadableValue:
            return True
        return False

    async def _winner(self, found: Found) -> V:
        """
        Compute the value, and store it unless the key has changed meanwhile. If that fails, an old value is used, or
        others may compute it.
        """
        old = found.data and not self._isUnreadable(found)
        try:
            value = await self._compute()
            data, flags = self._all.codec.encode(value, 0)
        except Exception as error:
            if old and not isinstance(error, CancelledError):
                _log.failure("a value could not be computed anew, the old one is used")
                value = self._all.codec.decode((found.flags, found.data))[-1]
                return value
            if not old:
                self._release(found)
            raise
        head = b"ms %b %d T%d F%d C%d\r\n" % (self._name, len(data), self._recipe.expireTime, flags, found.cas)
        try:
            await self._all.perform(MS, self._name, head + data + b"\r\n", metaDone)
        except PoolError as error:
            _log.debug("a computed value was not stored: {error}", error=error)
        return value

    def _release(self, found: Found) -> None:
        """
        Let another client compute the value: delete the empty item, unless it was replaced.
        """
        request = b"md %b C%d\r\n" % (self._name, found.cas)
        self._all.perform(MD, self._name, request, metaDone).addErrback(self._notStored)

    async def _withoutMeta(self) -> V:
        """
        A server older than memcached 1.6: the callers of this process share one computation.
        """
        try:
            _, value = await self._all.get(self._name)
        except UnreadableValue:
            value = None
        if value is not None:
            return value
        computed = await self._compute()
        data, flags = self._all.codec.encode(computed, 0)
        self._all.store(self._name, data, flags, self._recipe.expireTime).addErrback(self._notStored)
        return computed

    async def _compute(self) -> V:
        if not self._callers:  # they were cancelled while the server was asked
            raise CancelledError()
        value: V = await maybeDeferred(self._recipe.compute)
        return value

    def _notStored(self, failure: Failure) -> None:
        failure.trap(PoolError)
        _log.debug("a computed value was not stored: {error}", error=failure.value)

    async def _sleep(self, seconds: float) -> None:
        slept: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._all.reactor.callLater(seconds, slept.callback, None)
        self._sleeping = slept, call
        try:
            await slept
        finally:
            self._sleeping = None


class Computations(Generic[V]):
    """
    The computations of a pool in progress, at most one for each key.
    """

    def __init__(
        self,
        reactor: Any,
        codec: Codec[V],
        perform: Callable[..., Deferred[Any]],
        get: Callable[[bytes], Deferred[tuple[int, V | None]]],
        store: Callable[[bytes, bytes, int, int], Deferred[Any]],
    ) -> None:
        """
        @param perform: sends a request; takes the command, the key, the request, and a function that interprets the
            reply.
        @param get: gets flags and value of a key that was encoded.
        @param store: stores the bytes of a value; takes the encoded key, the bytes, flags, and expiry time.
        """
        self.reactor = reactor
        self.codec = codec
        self.perform = perform
        self.get = get
        self.store = store
        self._running: dict[bytes, Computation[V]] = {}

    def find(self, name: bytes, recipe: Recipe[V]) -> Deferred[V]:
        """
        Get a value, or compute it.
        """
        running = self._running.get(name)
        if running is not None:
            return running.join()
        computation = self._running[name] = Computation(self, name, recipe)
        found = computation.join()
        computation.start()
        return found

    def forget(self, name: bytes) -> None:
        """
        The computation of a key has ended.
        """
        self._running.pop(name, None)

    def close(self) -> None:
        """
        The pool is closed.
        """
        for computation in list(self._running.values()):
            computation.close()
