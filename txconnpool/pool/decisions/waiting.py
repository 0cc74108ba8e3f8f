# -*- test-case-name: tests.pool.test_waiting -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Those who wait for a connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from txconnpool.metrics import Counters, Histogram
from txconnpool.pool.decisions.records import Record


class Ticket:
    """
    A place in the queue. A waiter that is served or gives up leaves its ticket behind, C{None} in its stead.

    @ivar since: when it was taken.
    @ivar start: when its time began: then, or later by as much as L{Waiters.extendDeadlines} says.
    @ivar exclusive: whether the waiter wants a connection that carries nothing else.
    """

    __slots__ = ("exclusive", "since", "start", "waiter")

    def __init__(self, waiter: Any, now: float, exclusive: bool) -> None:
        self.waiter = waiter
        self.since = self.start = now
        self.exclusive = exclusive


class Waiters:
    """
    A queue: first come, first served, and each waits only for so long.

    @ivar count: how many there are.
    @ivar timeout: seconds each of them waits; C{None}: for ever.
    @ivar waits: how long those waited who got a connection.
    """

    __slots__ = ("_counters", "_pick", "_queue", "_serving", "count", "timeout", "waits")

    def __init__(self, timeout: float | None, pick: Callable[[bool], Record | None], counters: Counters) -> None:
        """
        @param pick: finds a connection for somebody who needs it alone, or not. Whoever is granted it puts load on it.
        @param counters: where to count what becomes of them.
        """
        self.timeout = timeout
        self._pick = pick
        self.count = 0
        self.waits = Histogram()
        self._counters = counters
        self._queue: deque[Ticket] = deque()
        self._serving = False

    @property
    def since(self) -> float | None:
        """
        Since when the first one waits, or C{None}.
        """
        return next((ticket.since for ticket in self._queue if ticket.waiter is not None), None)

    @property
    def due(self) -> float:
        """
        When L{late} is to be called next. It may be too early if somebody has given up.
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
        Let C{waiter}, an L{txconnpool.interfaces.IWaiter}, wait.

        @param exclusive: whether the connection must carry nothing else.
        """
        ticket = Ticket(waiter, now, exclusive)
        self._queue.append(ticket)
        self.count += 1
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """
        The waiter gives up, if it still waits.
        """
        if ticket.waiter is not None:
            ticket.waiter = None
            self.count -= 1
            self._counters.cancelled += 1
            self._trim()

    def _trim(self) -> None:
        """
        Drop what dead tickets stand at the head, and all of them when they are the most, so that waiters who come and
        give up while nothing else moves do not fill the memory.
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
        Hand connections to those who wait, as long as there are some. A waiter that gives its one back at once is
        served by the loop, not by recursion.
        """
        if self._serving:
            return
        self._serving = True
        queue, pick, counters = self._queue, self._pick, self._counters
        try:
            while queue:  # looked up anew each time: a waiter may join or leave while another is served
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
                self.waits.observe(waited if waited > 0.0 else 0.0)  # the clock may have been put back
                waiter.granted(record)
        finally:
            self._serving = False

    def late(self, now: float) -> list[Any]:
        """
        Take out those who have waited for too long.

        @return: who they are.
        """
        tickets = []
        while self._queue and self.due <= now:
            tickets.append(self._queue.popleft())
        waiters = self._release(tickets)
        self._counters.timedOut += len(waiters)
        return waiters

    def dismiss(self) -> list[Any]:
        """
        Take out all.

        @return: who they are.
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
        Let the time from C{since} to C{now} not count as waiting.
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
