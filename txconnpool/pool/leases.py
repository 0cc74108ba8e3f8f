# -*- test-case-name: tests.pool.test_leases -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Leases: exclusive use of a connection for a time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from traceback import StackSummary, walk_stack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IWaiter
from txconnpool.net.deadlines import Deadlines
from txconnpool.pool.decisions.records import Record

# The class of a pool's clients. Where it is not known, as with most factories of Twisted, it is Any.
if TYPE_CHECKING:
    from typing_extensions import TypeVar

    C = TypeVar("C", default=Any)
else:
    from typing import TypeVar

    C = TypeVar("C")


@implementer(IWaiter)
class Lease:
    """
    A caller of L{acquire<txconnpool.pool.leasing.LeasingPool.acquire>} that waits for a connection.

    @ivar client: a Deferred that fires with the protocol instance; C{None} when it has fired or was cancelled.
    """

    __slots__ = ("_lend", "_pool", "_where", "client", "ticket")

    def __init__(
        self, pool: Any, lend: Callable[[Record, StackSummary | None], Any], where: StackSummary | None
    ) -> None:
        """
        @param lend: lends a connection that carries nothing and returns its protocol instance.
        @param where: the stack of the caller, if it is wanted.
        """
        self._pool = pool
        self._lend = lend
        self._where = where
        self.client: Deferred[Any] | None = Deferred(self._cancel)
        self.ticket: Any = None

    def granted(self, record: Record) -> None:
        """
        A connection carries nothing.
        """
        client = self.client
        assert client is not None, "a cancelled lease leaves the queue"
        lent = self._lend(record, self._where)
        self.client = None
        client.callback(lent)

    def refused(self, error: PoolError) -> None:
        """
        There will be no connection.
        """
        client, self.client = self.client, None
        if client is not None:
            client.errback(error)

    def abort(self, error: PoolError) -> None:
        """
        Fail, because of an unexpected exception.
        """
        self.refused(error)

    def _cancel(self, client: Deferred[Any]) -> None:
        self.client = None
        self._pool.forget(self.ticket)


class Lending(Generic[C]):
    """
    The result of C{pool.connection()} in C{async with pool.connection() as client}: a lease that ends with the block.
    If the block raises, the connection is closed, because replies may still be on their way.
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
    Reports leases that last too long.
    """

    def __init__(self, reactor: Any, threshold: float, leaked: Callable[[int, float, str], None]) -> None:
        """
        @param threshold: seconds.
        @param leaked: called with the key of a lease that has lasted for C{threshold}, with C{threshold}, and with the
            stack of the caller as in a traceback.
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
        A lease ends.
        """
        del self._places[key]
        self.deadlines.discard(key)

    def _late(self, key: int) -> None:
        where = self._places[key]
        self._leaked(key, self._threshold, "".join(where.format()) if where else "")


def callerStack() -> StackSummary:
    """
    @return: the stack of the program, without the frames of this package on top of it. Source lines are not read yet,
        so that this costs little.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("txconnpool."):
        frame = frame.f_back
    stack = StackSummary.extract(walk_stack(frame), limit=10, lookup_lines=False)
    stack.reverse()
    return stack
