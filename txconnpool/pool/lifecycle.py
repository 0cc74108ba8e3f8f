# -*- test-case-name: tests.pool.test_engine -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The life cycle of a pool: starting, closing with a deadline, and starting again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

# The phases of a pool.
NEW = "new"  # not started yet; starts itself when it is first used
RUNNING = "running"
CLOSING = "closing"  # accepts no requests, and waits for connections to end
CLOSED = "closed"  # has no connection, dial or timer


class LifeCycle:
    """
    The phase of a pool and its transitions.

    @ivar phase: one of the constants of this module.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        begin: Callable[[], None],
        end: Callable[[], None],
        isOver: Callable[[], bool],
        finished: Callable[[], None],
        start: Callable[[], None],
        abort: Callable[[], None],
    ) -> None:
        """
        @param begin: begins to work.
        @param end: accepts no more requests, and closes the connections.
        @param isOver: whether no connection or dial is left.
        @param finished: removes what is left when no connection is.
        @param start: starts the pool again. The pool calls L{start} in turn.
        @param abort: closes all connections at once. Called when they have not ended in time.
        """
        self.phase = NEW
        self._reactor = reactor
        self._begin = begin
        self._end = end
        self._isOver = isOver
        self._finished = finished
        self._start = start
        self._abort = abort
        self._restart = False
        self._waiting: list[Deferred[None]] = []  # one for each call of close
        self._deadline: IDelayedCall | None = None

    @property
    def ended(self) -> bool:
        """
        Whether the pool was closed and has not started again.
        """
        return self.phase in (CLOSING, CLOSED)

    def start(self) -> None:
        """
        Start the pool, or let it start again when it is closed.
        """
        self._restart = self.phase is CLOSING
        if not self._restart:
            self.phase = RUNNING
            self._begin()

    def close(self, timeout: float | None) -> Deferred[None]:
        """
        Close the pool.

        @param timeout: seconds until connections are closed at once; C{None}: no limit.

        @return: a Deferred that fires when no connection, dial or timer is left.
        """
        self.phase = CLOSING
        self._restart = False
        closed: Deferred[None] = Deferred()
        self._waiting.append(closed)
        self._end()
        if timeout is not None and not self._isOver() and self._deadline is None:
            self._deadline = self._reactor.callLater(timeout, self._late)
        self.check()
        return closed

    def _late(self) -> None:
        self._deadline = None
        self._abort()

    def check(self) -> None:
        """
        A connection or dial has ended. If a closing pool has none any more, it is closed.
        """
        if self.phase is not CLOSING or not self._isOver():
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.phase = CLOSED
        self._finished()
        waiting, self._waiting = self._waiting, []
        for closed in waiting:
            closed.callback(None)
        if self._restart and self.phase is CLOSED:
            self._start()

    def selfCheck(self) -> None:
        """
        Check that there is no timer without a reason. For tests.

        @raise AssertionError: there is one.
        """
        closing = self.phase is CLOSING
        assert closing or self._deadline is None, f"a deadline for closing, but the pool is {self.phase}"
        assert closing or not self._waiting, f"callers wait for the end, but the pool is {self.phase}"
