# -*- test-case-name: tests.test_pool -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Those who use the connections of a L{txconnpool.pool.Pool}: a request for the time of its reply, a lease for as long as
its owner likes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import iscoroutine
from traceback import StackSummary, walk_stack
from types import TracebackType
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import NoSuchCommand, PoolError
from txconnpool.interfaces import IWaiter
from txconnpool.state import Slot

C = TypeVar("C")


class Deadlines:
    """
    What is to end within one and the same time each, so that one timer, at the head, serves all.

    @ivar since: the members and when each was added, in that order.
    """

    def __init__(self, reactor: Any, timeout: float | None, late: Callable[[Any], None]) -> None:
        """
        @param timeout: seconds from a member's adding until it is late; C{None}: no member ever is.
        @param late: called with a member that is late, which is a member no more.
        """
        self.since: dict[Any, float] = {}
        self._reactor = reactor
        self._seconds = reactor.seconds
        self._timeout = timeout
        self._late = late
        self._timer: IDelayedCall | None = None

    def add(self, member: Any) -> None:
        """
        Let the time of C{member} begin.
        """
        self.since[member] = self._seconds()
        if self._timer is None and self._timeout is not None:
            self._timer = self._reactor.callLater(self._timeout, self._check, self._timeout)

    def discard(self, member: Any) -> None:
        """
        C{member} has ended.
        """
        self.since.pop(member, None)

    def stop(self) -> None:
        """
        Leave no timer behind. The next L{add} starts it again.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self, timeout: float) -> None:
        self._timer = None
        now = self._seconds()
        late = []
        for member, since in self.since.items():
            left = since + timeout - now
            if left > 0:
                self._timer = self._reactor.callLater(left, self._check, timeout)
                break
            late.append(member)
        for member in late:
            if self.since.pop(member, None) is not None:  # it is not if it ended by what became of another
                self._late(member)


@implementer(IWaiter)
class Request:
    """
    A method to be called on a connection, and who waits for its result.

    @ivar answer: fires with the result; C{None} when it has fired or nobody waits any more.
    @ivar slot: the L{Slot} where it is in flight.
    """

    __slots__ = ("_args", "_kwargs", "_pool", "answer", "method", "slot", "ticket")

    def __init__(self, pool: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._pool = pool
        self.method = method
        self._args = args
        self._kwargs = kwargs
        self.answer: Deferred[Any] | None = Deferred(self._cancel)
        self.slot: Any = None
        self.ticket: Any = None

    def granted(self, slot: Slot) -> None:
        """
        Call the method.
        """
        self.slot = slot
        slot.load += slot.weight
        self._pool.inFlight.add(self)
        try:
            result = getattr(slot.client, self.method, _noSuchCommand)(*self._args, **self._kwargs)
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
        It was never sent.
        """
        self._answer(Failure(error))

    def fail(self, error: PoolError) -> None:
        """
        It was sent, and is not worth waiting for any more. Its connection stays loaded until the reply or the end.
        """
        self._pool.inFlight.discard(self)
        self._answer(Failure(error))

    def _replied(self, result: Any) -> None:
        pool, slot = self._pool, self.slot
        pool.inFlight.discard(self)
        slot.load -= slot.weight
        pool.eased(slot)
        self._answer(result)

    def _answer(self, result: Any) -> None:
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.callback(result)

    def _cancel(self, answer: Deferred[Any]) -> None:
        self.answer = None
        if self.slot is None:
            self._pool.forget(self.ticket)
        else:
            self._pool.abandoned(self)


def _noSuchCommand(*args: Any, **kwargs: Any) -> None:
    raise NoSuchCommand("the client has no such method")


@implementer(IWaiter)
class Lease:
    """
    Somebody who wants a connection of his own.

    @ivar client: fires with it; C{None} when it has fired or is not wanted any more.
    """

    __slots__ = ("_pool", "client", "ticket")

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.client: Deferred[Any] | None = Deferred(self._cancel)
        self.ticket: Any = None

    def granted(self, slot: Slot) -> None:
        """
        Here it is.
        """
        client, self.client = self.client, None
        if client is not None:
            client.callback(self._pool.lend(slot))

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


def whereabouts(deep: int = 10) -> StackSummary:
    """
    Note, at little cost, where the program is outside of this package.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(__package__):
        frame = frame.f_back
    return StackSummary.extract(walk_stack(frame), limit=deep, lookup_lines=False)
