# -*- test-case-name: tests.pool.test_library -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Those who use the connections of a L{txconnpool.pool.library.Pool}: a request for the time of its reply, a lease for as
long as its owner likes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import iscoroutine
from traceback import StackSummary, walk_stack
from types import TracebackType
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import NoSuchCommand, PoolError
from txconnpool.interfaces import IWaiter
from txconnpool.net.deadlines import Deadlines
from txconnpool.pool.records import Record

C = TypeVar("C")


@implementer(IWaiter)
class Request:
    """
    A method to be called on a connection, and who waits for its result. It is the canceller of its own answer: as very
    many may wait, each is made of as little as possible.

    @ivar answer: fires with the result; C{None} when it has fired or nobody waits any more.
    @ivar record: the L{Record} of the connection, once the method was called.
    """

    __slots__ = ("_args", "_kwargs", "_method", "_pool", "_since", "answer", "record", "ticket")

    def __init__(self, pool: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> None:
        self._pool = pool
        self._method = method
        self._args = args
        self._kwargs = kwargs
        self.answer: Deferred[Any] | None = Deferred(self)
        self.record: Any = None
        self.ticket: Any = None

    def granted(self, record: Record) -> None:
        """
        Call the method.
        """
        self.record = record
        record.load += record.weight
        self._since = self._pool._sent.add(self)
        method = getattr(record.connection, self._method, None)
        try:
            if not callable(method):
                raise NoSuchCommand(f"{type(record.connection).__name__} has no method {self._method!r}")
            result = method(*self._args, **self._kwargs) if self._kwargs else method(*self._args)
        except Exception:
            result = Failure()
        if isinstance(result, Deferred):
            result.addBoth(self._replied)
        elif iscoroutine(result):
            Deferred.fromCoroutine(result).addBoth(self._replied)
        else:
            self._replied(result)

    def refused(self, error: PoolError) -> None:
        """
        It was not sent.
        """
        self._end(Failure(error))

    def fail(self, error: PoolError) -> None:
        """
        It was sent, and there will be no reply. Its connection is at its end, so the load stays where it is.
        """
        failure = Failure(error)
        self._leave(failure)
        self._end(failure)

    def _replied(self, result: Any) -> None:
        """
        The connection is free first: whoever waits is sent before the caller of this request has its say.
        """
        record = self.record
        self._leave(result)
        record.load -= record.weight
        self._pool.hasCapacity(record)
        self._end(result)

    def _leave(self, result: Any) -> None:
        """
        It is in flight no more.
        """
        pool = self._pool
        pool._sent.discard(self)
        if self.answer is None:
            pool._graces.discard(self)
        elif pool.observer is not None:
            pool._tell("answered", self._method, pool._seconds() - self._since, result)

    def _end(self, result: Any) -> None:
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.callback(result)

    def __call__(self, answer: Deferred[Any]) -> None:
        """
        Nobody waits any more.
        """
        self.answer = None
        if self.record is None:
            self._pool.forget(self.ticket)
        else:
            self._pool._abandoned(self)


@implementer(IWaiter)
class Lease:
    """
    Somebody who wants a connection of his own.

    @ivar client: fires with it; C{None} when it has fired or is not wanted any more.
    """

    __slots__ = ("_pool", "_where", "client", "ticket")

    def __init__(self, pool: Any, where: StackSummary | None) -> None:
        self._pool = pool
        self._where = where
        self.client: Deferred[Any] | None = Deferred(self._cancel)
        self.ticket: Any = None

    def granted(self, record: Record) -> None:
        """
        Here it is.
        """
        client, self.client = self.client, None
        assert client is not None, "who wants none leaves the queue"
        record.load = record.lent = record.depth  # there is no room for others
        if self._pool._watched:
            self._pool._lent(record.connection, self._where)
        client.callback(record.connection)

    def refused(self, error: PoolError) -> None:
        """
        There is none.
        """
        client, self.client = self.client, None
        if client is not None:
            client.errback(error)

    def _cancel(self, client: Deferred[Any]) -> None:
        self.client = None
        self._pool.forget(self.ticket)


class Lending(Generic[C]):
    """
    C{async with pool.connection() as client}: a lease that ends with the block. A connection that the block leaves by
    an exception is closed: nobody knows what is still to come from it.
    """

    __slots__ = ("_client", "_pool")

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def __aenter__(self) -> C:
        self._client: C = await self._pool.acquire()
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.release(self._client, discard=kind is not None)


class LeakWatch:
    """
    Notices leases that last for too long.
    """

    def __init__(self, reactor: Any, threshold: float, leaked: Callable[[int, float, str], None]) -> None:
        """
        @param threshold: seconds.
        @param leaked: called with the key of a lease that has lasted so long, the threshold, and where it was taken.
        """
        self._threshold = threshold
        self.deadlines = Deadlines(reactor, threshold, self._late)
        self._places: dict[int, StackSummary | None] = {}
        self._leaked = leaked

    def lent(self, key: int, where: StackSummary | None) -> None:
        """
        A lease begins.
        """
        self._places[key] = where
        self.deadlines.add(key)

    def returned(self, key: int) -> None:
        """
        It ends.
        """
        del self._places[key]
        self.deadlines.discard(key)

    def _late(self, key: int) -> None:
        where = self._places[key]
        self._leaked(key, self._threshold, "".join(where.format()) if where else "")


def whereabouts() -> StackSummary:
    """
    Note, at little cost, what the program does that calls this package.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("txconnpool."):
        frame = frame.f_back
    stack = StackSummary.extract(walk_stack(frame), limit=10, lookup_lines=False)
    stack.reverse()
    return stack
