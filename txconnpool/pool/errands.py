# -*- test-case-name: tests.pool.test_engine -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Operations of the pool itself on connections that serve no caller at the time: checks and resets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from txconnpool.net.reasons import describe
from txconnpool.pool.decisions.records import Record


class Errands:
    """
    The checks and resets in progress, at most one for each connection.
    """

    def __init__(self, reactor: Any, timeout: float | None) -> None:
        """
        @param timeout: seconds after which an operation is cancelled and fails; C{None}: no limit.
        """
        self._reactor = reactor
        self.timeout = timeout
        self._pending: dict[Record, Deferred[Any]] = {}

    @property
    def records(self) -> set[Record]:
        """
        The records of the connections with an operation in progress.
        """
        return set(self._pending)

    def __contains__(self, record: Record) -> bool:
        return record in self._pending

    def run(self, record: Record, f: Callable[[Any], Any], done: Callable[[Record, str], None]) -> None:
        """
        Call C{f} with the protocol instance of C{record}.

        @param f: may return a Deferred or an awaitable. The result C{False} is a failure.
        @param done: called with C{record} and the reason of the failure, or an empty text.
        """
        pending = maybeDeferred(f, record.connection)
        self._pending[record] = pending
        if self.timeout is not None:
            pending.addTimeout(self.timeout, self._reactor)

        def ended(result: Any) -> None:
            self._pending.pop(record, None)
            if isinstance(result, Failure):
                done(record, describe(result.value))
            else:
                done(record, "it returned False" if result is False else "")

        pending.addBoth(ended)

    def cancel(self, record: Record) -> None:
        """
        Cancel the operation on the connection of C{record}, if there is one.
        """
        pending = self._pending.get(record)
        if pending is not None:
            pending.cancel()
