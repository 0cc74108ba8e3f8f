# -*- test-case-name: tests.pool.test_library -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Leases: exclusive use of a connection of a L{txconnpool.pool.base.BasePool} for a time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from traceback import StackSummary, walk_stack
from types import TracebackType
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IWaiter
from txconnpool.net.deadlines import Deadlines
from txconnpool.pool.decisions.records import Record

C = TypeVar("C")


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
