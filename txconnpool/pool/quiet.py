# -*- test-case-name: tests.pool.test_quiet -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Clients that are not free yet when a request has its result, or when a lease ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.interfaces import IQuiet
from txconnpool.metrics import Reason
from txconnpool.net.deadlines import Deadlines
from txconnpool.net.reasons import describe
from txconnpool.pool.decisions.reasons import NOT_FREE
from txconnpool.pool.decisions.records import GONE, Record

_log = Logger("txconnpool.pool")


class Wait:
    """
    A client that is not free yet.

    @ivar record: the record of its connection.
    @ivar load: the part of the load of the record that remains until it is free.
    """

    __slots__ = ("done", "load", "quiet", "record")

    def __init__(self, record: Record, load: int, quiet: Deferred[Any], done: Callable[[Record, int], None]) -> None:
        self.record = record
        self.load = load
        self.quiet = quiet
        self.done = done


class Quieting:
    """
    The clients of a pool that are not free yet, see L{IQuiet}.
    """

    def __init__(
        self,
        reactor: Any,
        timeout: float | None,
        retire: Callable[[Record, Reason], None],
        abort: Callable[[Record], None],
    ) -> None:
        """
        @param timeout: seconds that a client has until it is free; C{None}: no limit.
        @param retire: called with a record and a reason, if its client does not become free.
        @param abort: called with the record of a client that is late, after C{retire}.
        """
        self._waits = Deadlines(reactor, timeout, self._late)
        self._retire = retire
        self._abort = abort

    def waits(self, record: Record, load: int, done: Callable[[Record, int], None]) -> bool:
        """
        Ask the client of a record whether it is free.

        @param load: the load that it no longer carries when it is free.
        @param done: called with C{record} and C{load} when it is free, or when its connection is to be closed.

        @return: whether it is not free yet. C{done} is not called otherwise.
        """
        client = record.connection
        if record.phase is GONE or not IQuiet.providedBy(client):
            return False
        try:
            quiet = client.whenQuiet()
            if quiet is None:
                return False
            quiet = ensureDeferred(quiet)
        except Exception:
            _log.failure("whenQuiet of {client} failed", client=client)
            self._retire(record, NOT_FREE)
            return False
        wait = Wait(record, load, quiet, done)
        self._waits.add(wait)
        quiet.addCallbacks(self._quiet, self._failed, (wait,), errbackArgs=(wait,))
        return True

    def load(self, record: Record) -> int:
        """
        @return: the part of the load of a record that is a client that is not free yet.
        """
        return sum(wait.load for wait in self._waits.since if wait.record is record)

    def lost(self, record: Record) -> None:
        """
        The connection of a record has ended.
        """
        for wait in [each for each in self._waits.since if each.record is record]:
            self._waits.discard(wait)
            wait.quiet.cancel()

    def stop(self) -> None:
        """
        Stop the timer.
        """
        self._waits.stop()

    def _quiet(self, result: object, wait: Wait) -> None:
        if wait in self._waits.since:
            self._waits.discard(wait)
            wait.done(wait.record, wait.load)

    def _failed(self, failure: Failure, wait: Wait) -> None:
        if wait in self._waits.since:
            self._waits.discard(wait)
            self._retire(wait.record, Reason(NOT_FREE.word, f"{NOT_FREE}: {describe(failure.value)}"))
            wait.done(wait.record, wait.load)

    def _late(self, wait: Wait) -> None:
        wait.quiet.cancel()  # has no other effect, because the wait was removed
        self._retire(wait.record, Reason(NOT_FREE.word, "the client did not become free in time"))
        wait.done(wait.record, wait.load)
        self._abort(wait.record)
