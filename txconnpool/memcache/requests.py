# -*- test-case-name: tests.memcache.test_requests -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The requests of a memcached client for several keys: each passes the values of its reply to the callers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, Self, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from txconnpool.errors import ConnectionLostInFlight, PoolClosed, WireError
from txconnpool.memcache.errors import UnreadableValue
from txconnpool.memcache.results import AnyValue, Key, refusal
from txconnpool.pool.calls import Request
from txconnpool.wire import Command
from txconnpool.wire.memcache.replies import GATS, GETS, values

K = TypeVar("K")
T = TypeVar("T")

_MISS: Final = (0, None)
_MISS_WITH_IDENTIFIER: Final = (0, b"", None)


def missOf(command: Command) -> AnyValue:
    """
    @return: the result for a key that does not exist.
    """
    return _MISS_WITH_IDENTIFIER if command in (GETS, GATS) else _MISS


class Retrieval(Request):
    """
    A request for the values of several keys, each with a caller of its own.

    @ivar callers: the caller of each key: a C{Deferred}, or an object with the same C{called}, C{callback} and
        C{errback}.
    """

    __slots__ = ("_thinned", "_word", "callers")

    def __init__(self, pool: Any, command: Command, word: bytes) -> None:
        super().__init__(pool, command)
        self._word = word
        self._thinned = False
        self.callers: dict[bytes, Any] = {}

    def cancelled(self, caller: Deferred[Any]) -> None:
        """
        A caller was cancelled.
        """
        caller.errback(CancelledError())
        self.thin()

    def thin(self) -> None:
        """
        Remove the keys of callers that were cancelled, before the request is sent. If all were cancelled, stop waiting.
        """
        self._thinned = True
        if all(caller.called for caller in self.callers.values()):
            self.forget()

    def encode(self) -> bytes:
        """
        @return: a request for the keys whose callers were not cancelled.
        """
        if self._thinned:
            self.callers = {key: caller for key, caller in self.callers.items() if not caller.called}
            self._thinned = False
            if not self.callers:
                return b""
        return b"%b %b\r\n" % (self._word, b" ".join(self.callers))

    def answer(self, reply: bytes) -> None:
        """
        Pass each value of a reply to its caller.
        """
        if not reply.startswith((b"VALUE ", b"END")):
            self.fail(refusal(reply))
            return
        callers = self.callers
        for key, flags, value, cas in values(reply):
            caller = callers.get(key)
            if caller is None:
                self.fail(ConnectionLostInFlight("upstream protocol error: another key's value"))
                raise WireError("the value of a key that was not requested")
            if not caller.called:
                caller.callback((flags, value) if cas is None else (flags, b"%d" % cas, value))
            del callers[key]  # not before, so that it fails if the call raises an exception
        miss = missOf(self.command)
        for caller in callers.values():
            if not caller.called:
                caller.callback(miss)

    def fail(self, error: Exception) -> None:
        """
        Pass an error to all callers that were not cancelled.
        """
        for caller in self.callers.values():
            if not caller.called:
                caller.errback(error)


class Together:
    """
    Several callers of the same key, in place of one.
    """

    __slots__ = ("callers",)

    def __init__(self, *callers: Any) -> None:
        self.callers = list(callers)

    @property
    def called(self) -> bool:
        """
        Whether all of them have a result or were cancelled.
        """
        callers = self.callers
        while callers and callers[-1].called:  # so that repeated reads of this property skip these callers
            callers.pop()
        return not callers

    def callback(self, value: AnyValue) -> None:
        """
        Pass a value to all callers that were not cancelled.
        """
        for caller in self.callers:
            if not caller.called:
                caller.callback(value)

    def errback(self, error: Exception) -> None:
        """
        Pass an error to all callers that were not cancelled.
        """
        for caller in self.callers:
            if not caller.called:
                caller.errback(error)


class Gathering:
    """
    A caller of several keys.

    @ivar result: fires with the values by key.
    @ivar retrievals: the requests that contain the keys.
    @ivar arrivals: is passed each value when it arrives, or C{None}.
    """

    __slots__ = ("_decode", "_failed", "_left", "_partial", "_values", "arrivals", "result", "retrievals")

    def __init__(
        self,
        keys: Iterable[Any],
        partial: Callable[[Exception], bool] | None = None,
        decode: Callable[[AnyValue], AnyValue] | None = None,
    ) -> None:
        """
        @param partial: called with the first error of a server, if the keys have several. It returns whether the keys
            of servers that have failed are missing in the result, which otherwise fails.
        @param decode: makes the result of a value, if it is not the value itself.
        """
        self.result: Values[Any, Any] = Values(self)
        self.arrivals: Arrivals[Any, Any] | None = None
        self._decode = decode
        self.retrievals: set[Retrieval] = set()
        self._values: dict[Key, Any] = dict.fromkeys(keys)
        self._left = len(self._values)
        self._partial = partial
        self._failed = False

    def came(self, key: Key, value: AnyValue) -> None:
        """
        Record a value, and fire C{result} after the last one.
        """
        if self._decode is not None:
            try:
                value = self._decode(value)
            except UnreadableValue as error:
                self.fail(error)
                return
        self._values[key] = value
        if self.arrivals is not None:
            self.arrivals.came(key, value)
        self._left -= 1
        if not self._left:
            self.result.callback(self._values)

    def lost(self, key: Key, miss: AnyValue, error: Exception) -> None:
        """
        The server of a key has failed.

        @param miss: the result for a key that does not exist.
        """
        partial = self._partial
        if partial is None or isinstance(error, PoolClosed) or not (self._failed or partial(error)):
            self.fail(error)
        else:
            self._failed = True
            self.came(key, miss)

    def fail(self, error: Exception) -> None:
        """
        Fail C{result}. The other values are not needed any more.
        """
        self.result.errback(error)
        for retrieval in self.retrievals:
            retrieval.thin()

    def arrived(self) -> list[tuple[Any, AnyValue]]:
        """
        @return: the keys and values that have arrived so far.
        """
        return [item for item in self._values.items() if item[1] is not None]

    def cancelled(self, result: Deferred[Any]) -> None:
        """
        The caller has cancelled C{result}.
        """
        self.fail(CancelledError())


class Values(Deferred[dict[K, T]]):
    """
    The result of C{getMultiple}: a Deferred that fires with a dictionary, and an asynchronous iterable of its items in
    the order in which they arrive::

        values = await pool.getMultiple(keys)

        async for key, (flags, value) in pool.getMultiple(keys):
            ...
    """

    def __init__(self, whole: Gathering) -> None:
        super().__init__(whole.cancelled)
        self._whole = whole

    def __aiter__(self) -> Arrivals[K, T]:
        """
        Iterate over the items as they arrive. The iteration takes the place of the callbacks: do not add any.
        """
        return Arrivals(self._whole)


class Arrivals(Generic[K, T]):
    """
    Iterates over the items of a L{Values}.
    """

    def __init__(self, whole: Gathering) -> None:
        self._items: deque[tuple[K, T]] = deque()
        self._items.extend(whole.arrived())  # type: ignore[arg-type]  # a Gathering knows no types of values
        self._failure: Failure | None = None
        self._ended = False
        self._wake: Deferred[None] | None = None
        whole.arrivals = self
        whole.result.addBoth(self._end)

    def came(self, key: K, value: T) -> None:
        """
        A value has arrived.
        """
        self._items.append((key, value))
        self._notify()

    def _end(self, result: object) -> None:
        self._ended = True
        self._failure = result if isinstance(result, Failure) else None
        self._notify()

    def _notify(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[K, T]:
        while not self._items:
            if self._failure is not None:
                self._failure.raiseException()
            if self._ended:
                raise StopAsyncIteration
            self._wake = Deferred()
            await self._wake
        return self._items.popleft()


class Part:
    """
    The caller of one key of a L{Gathering}.
    """

    __slots__ = ("_key", "_miss", "_whole")

    def __init__(self, whole: Gathering, key: Key, miss: AnyValue = _MISS) -> None:
        self._whole = whole
        self._key = key
        self._miss = miss

    @property
    def called(self) -> bool:
        """
        Whether the L{Gathering} has a result or was cancelled.
        """
        return bool(self._whole.result.called)

    def callback(self, value: AnyValue) -> None:
        """
        Pass the value to the L{Gathering}.
        """
        self._whole.came(self._key, value)

    def errback(self, error: Exception) -> None:
        """
        Pass an error to the L{Gathering}.
        """
        self._whole.lost(self._key, self._miss, error)
