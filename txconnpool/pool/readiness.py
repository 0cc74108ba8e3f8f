# -*- test-case-name: tests.pool.test_base -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Callers that wait until a pool has a number of established connections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txconnpool.errors import PoolError, PoolTimeout
from txconnpool.pool.decisions.state import PoolState


class Readiness:
    """
    The callers of L{txconnpool.pool.base.BasePool.ready} that wait.
    """

    def __init__(self, state: PoolState, reactor: Any, grow: Callable[[], None]) -> None:
        """
        @param grow: called when C{state.wanted} has changed.
        """
        self._state = state
        self._reactor = reactor
        self._grow = grow
        self._counts: dict[Deferred[None], int] = {}

    def wait(self, count: int, timeout: float | None) -> Deferred[None]:
        """
        Wait for C{count} established connections, and have them dialed.

        @return: a Deferred that fires when they are established. It fails with L{PoolTimeout} after C{timeout} seconds,
            if that is not C{None}.
        """
        ready: Deferred[None] = Deferred(self._cancelled)
        self._counts[ready] = count
        if timeout is not None:
            ready.addTimeout(timeout, self._reactor, self._timedOut)
        self.update()
        return ready

    def established(self) -> None:
        """
        A connection was established.
        """
        for ready, count in list(self._counts.items()):
            if self._state.connections.connected >= count and ready in self._counts:
                del self._counts[ready]
                ready.callback(None)
        self.update()

    def fail(self, error: Callable[[], PoolError]) -> None:
        """
        Fail all callers.
        """
        counts, self._counts = self._counts, {}
        for ready in counts:
            ready.errback(error())

    def update(self) -> None:
        """
        Have as many connections dialed as the callers wait for.
        """
        self._state.wanted = max(self._counts.values(), default=0)
        self._grow()

    def _cancelled(self, ready: Deferred[None]) -> None:
        del self._counts[ready]
        self.update()

    def _timedOut(self, result: object, timeout: float) -> Failure:
        stats = self._state.stats()
        failed = self._state.health.lastFailed
        reason = f"{failed.reason} ({failed.name})" if failed else str(stats)
        error = PoolTimeout(f"not ready within {timeout:g} s: {reason}", "connect", stats)
        error.__cause__ = failed.cause if failed else None
        return Failure(error)
