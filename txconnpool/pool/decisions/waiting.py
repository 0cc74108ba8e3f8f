# -*- test-case-name: tests.pool.test_waiting -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The queue of waiters: callers that wait for a connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from txconnpool.pool.decisions.records import Record
from txconnpool.pool.decisions.shared import Shared


class Ticket:
    """
    A place in the queue. It stays in the queue for a while when its waiter was served or gave up.

    @ivar waiter: the waiter; C{None} when it was served or gave up.
    @ivar since: the time at which the waiter joined.
    @ivar start: the time from which its deadline is counted: C{since}, or later after L{Waiters.extendDeadlines}.
    @ivar exclusive: whether the waiter wants a connection that carries nothing else.
    """

    __slots__ = ("exclusive", "since", "start", "waiter")

    def __init__(self, waiter: Any, now: float, exclusive: bool) -> None:
        self.waiter = waiter
        self.since = self.start = now
        self.exclusive = exclusive


class Waiters:
    """
    A queue with deadlines: waiters are served in the order in which they joined.

    @ivar count: the number of waiters.
    @ivar timeout: seconds that each waits; C{None}: no limit.
    @ivar waits: the times that waiters have waited before they were served.
    @ivar failed: called with a waiter that has raised the current exception when it was served, and with the record of
        its connection.
    """

    __slots__ = ("_counters", "_pick", "_queue", "_serving", "count", "failed", "timeout", "waits")

    def __init__(self, timeout: float | None, pick: Callable[[bool], Record | None], shared: Shared) -> None:
        """
        @param pick: returns a connection that has capacity, or C{None}. Its argument is whether the connection must
            carry nothing else.
        @param shared: counts the waiters by their results.
        """
        self.timeout = timeout
        self._pick = pick
        self.count = 0
        self.waits = shared.waits
        self._counters = shared.counters
        self._queue: deque[Ticket] = deque()
        self._serving = False
        self.failed: Callable[[Any, Record], object] = _raise

    @property
    def since(self) -> float | None:
        """
        The time since which the first waiter waits, or C{None}.
        """
        return next((ticket.since for ticket in self._queue if ticket.waiter is not None), None)

    @property
    def due(self) -> float:
        """
        The time at which L{late} is to be called next. It may be too early if a waiter has given up.
        """
        return inf if self.timeout is None or not self._queue else self._queue[0].start + self.timeout

    @property
    def exclusive(self) -> bool:
        """
        Whether the first waiter wants a connection that carries nothing else.
        """
        return next((ticket.exclusive for ticket in self._queue if ticket.waiter is not None), False)

    def join(self, waiter: Any, now: float, exclusive: bool = False) -> Ticket:
        """
        Append a waiter, an L{txconnpool.interfaces.IWaiter}.

        @param exclusive: whether its connection must carry nothing else.
        """
        ticket = Ticket(waiter, now, exclusive)
        self._queue.append(ticket)
        self.count += 1
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """
        A waiter gives up. Nothing happens if it does not wait any more.
        """
        if ticket.waiter is not None:
            ticket.waiter = None
            self.count -= 1
            self._counters.cancelled += 1
            self._trim()

    def _trim(self) -> None:
        """
        Remove tickets without a waiter: those at the head, and all when they are in the majority, so that waiters that
        come and give up while nothing else happens do not fill the memory.
        """
        queue = self._queue
        while queue and queue[0].waiter is None:
            queue.popleft()
        if len(queue) > 64 and len(queue) > 2 * self.count:
            alive = [ticket for ticket in queue if ticket.waiter is not None]
            queue.clear()
            queue.extend(alive)

    def serve(self, now: float) -> None:
        """
        Grant connections to waiters, as long as connections have capacity. If a waiter releases its connection at
        once, that is handled by the loop, not by recursion.
        """
        if self._serving:
            return
        self._serving = True
        queue, pick, counters = self._queue, self._pick, self._counters
        try:
            while queue:  # evaluated each time: waiters may join or leave while another is served
                ticket = queue[0]
                waiter = ticket.waiter
                if waiter is None:
                    queue.popleft()
                    continue
                record = pick(ticket.exclusive)
                if record is None:
                    return
                queue.popleft()
                ticket.waiter = None
                self.count -= 1
                counters.acquired += 1
                waited = now - ticket.since
                self.waits.observe(waited if waited > 0.0 else 0.0)  # the clock may have been set back
                try:
                    waiter.granted(record)
                except Exception:
                    self.failed(waiter, record)
        finally:
            self._serving = False

    def late(self, now: float) -> list[Any]:
        """
        Remove the waiters whose time is over.

        @return: these waiters.
        """
        tickets = []
        while self._queue and self.due <= now:
            tickets.append(self._queue.popleft())
        waiters = self._release(tickets)
        self._trim()  # the next ones may have given up
        self._counters.timedOut += len(waiters)
        return waiters

    def dismiss(self) -> list[Any]:
        """
        Remove all waiters.

        @return: these waiters.
        """
        waiters = self._release(self._queue)
        self._queue.clear()
        return waiters

    def _release(self, tickets: Iterable[Ticket]) -> list[Any]:
        waiters = []
        for ticket in tickets:
            if ticket.waiter is not None:
                waiters.append(ticket.waiter)
                ticket.waiter = None
        self.count -= len(waiters)
        return waiters

    def extendDeadlines(self, since: float, now: float) -> None:
        """
        Do not count the time from C{since} to C{now} as waiting.
        """
        for ticket in self._queue:
            ticket.start += now - max(since, ticket.since)

    def selfCheck(self) -> None:
        """
        Check that the queue agrees with the number of waiters. For tests.

        @raise AssertionError: it does not. The text names the broken invariant.
        """
        waiting = sum(1 for ticket in self._queue if ticket.waiter is not None)
        assert waiting == self.count, f"{self.count} are counted as waiting, not {waiting}"
        assert self.count or not self._queue, f"{len(self._queue)} tickets without waiters"


def _raise(waiter: Any, record: Record) -> None:
    """
    Raise the current exception again: the default of C{Waiters.failed}.
    """
    raise  # noqa: PLE0704  # it is called while an exception is handled
