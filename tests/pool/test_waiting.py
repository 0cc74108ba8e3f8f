# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.decisions.waiting}.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from math import inf
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from txconnpool.pool.decisions.records import Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.pool.decisions.shared import Shared
from txconnpool.pool.decisions.waiting import Ticket, Waiters


class Waiter:
    """
    A waiter.

    @ivar record: the record of the connection that it was granted.
    """

    def __init__(self, then: Callable[[], Any] = lambda: None) -> None:
        self.record: Record | None = None
        self.then = then

    def granted(self, record: Record) -> None:
        assert self.record is None
        self.record = record
        self.then()


class WaitersTests(SynchronousTestCase):
    """
    Tests for L{Waiters}.
    """

    def setUp(self) -> None:
        """
        Make a queue in which each waiter waits for five seconds.
        """
        shared = Shared()
        self.counters = shared.counters
        self.waiters = Waiters(5.0, self.pick, shared)
        self.free: list[Record] = []
        self.asked: list[bool] = []

    def pick(self, exclusive: bool) -> Record | None:
        """
        @return: a record that has capacity, if there is one. An exclusive waiter gets none that is shared.
        """
        self.asked.append(exclusive)
        return self.free.pop() if self.free and not exclusive else None

    def serve(self, room: int, now: float = 0.0) -> None:
        """
        Serve waiters with a number of connections.
        """
        self.free = [Record(Server("server", None), 1) for _ in range(room)]
        self.waiters.serve(now)

    def test_order(self) -> None:
        """
        Waiters are served in the order in which they joined.
        """
        everyone = [Waiter() for _ in range(4)]
        for each in everyone:
            self.waiters.join(each, 0.0)
        self.assertEqual(self.waiters.count, 4)
        self.serve(1)
        self.serve(2)
        self.assertEqual([each.record is None for each in everyone], [False, False, False, True])
        self.assertEqual(self.waiters.count, 1)
        self.serve(2)
        self.assertEqual((self.waiters.count, len(self.free)), (0, 1))

    def test_exclusive(self) -> None:
        """
        An exclusive waiter is not overtaken.
        """
        alone, shared = Waiter(), Waiter()
        ticket = self.waiters.join(alone, 0.0, True)
        self.waiters.join(shared, 0.0)
        self.serve(1)
        self.assertEqual((alone.record, shared.record, self.asked), (None, None, [True]))
        self.waiters.leave(ticket)
        self.serve(1)
        self.assertEqual((alone.record, shared.record is None), (None, False))

    def test_meanwhile(self) -> None:
        """
        When waiters join or leave while another one is served, the same loop serves those that wait then.
        """
        depth: list[int] = []

        def busy() -> None:
            depth.append(1)
            assert len(depth) == 1, "served by recursion"
            self.waiters.leave(gone)
            self.waiters.join(late, 0.0)
            self.waiters.serve(0.0)
            depth.pop()

        first, second, late = Waiter(busy), Waiter(), Waiter()
        self.waiters.join(first, 0.0)
        gone = self.waiters.join(second, 0.0)
        self.serve(3)
        self.assertEqual((second.record, late.record is None, self.waiters.count), (None, False, 0))

    def test_error(self) -> None:
        """
        When a waiter that is served raises an exception, the others are served by the next call.
        """
        first, second = Waiter(lambda: 1 // 0), Waiter()
        self.waiters.join(first, 0.0)
        self.waiters.join(second, 0.0)
        self.assertRaises(ZeroDivisionError, self.serve, 2)
        self.serve(1)
        self.assertEqual((second.record is None, self.waiters.count), (False, 0))

    def test_leave(self) -> None:
        """
        A waiter that gave up is not served. Giving up twice, or after having been served, has no effect.
        """
        first, second, third = Waiter(), Waiter(), Waiter()
        tickets = [self.waiters.join(each, 0.0) for each in (first, second, third)]
        for _ in range(2):
            self.waiters.leave(tickets[1])
        self.assertEqual((self.waiters.count, self.counters.cancelled), (2, 1))
        self.serve(2)
        self.assertEqual((second.record, third.record is None), (None, False))
        self.waiters.leave(tickets[2])
        self.assertEqual((self.waiters.count, self.counters.cancelled), (0, 1))

    @covers("26")
    def test_leaveManyTimes(self) -> None:
        """
        Waiters that join and give up leave nothing behind, even while the first one keeps waiting.
        """
        first, last = Waiter(), Waiter()
        self.waiters.join(first, 0.0)
        for _ in range(1000):
            self.waiters.leave(self.waiters.join(Waiter(), 0.0))
        gc.collect()
        tickets = [each for each in gc.get_objects() if isinstance(each, Ticket)]
        self.assertLess(len(tickets), 100)
        self.waiters.selfCheck()
        self.waiters.join(last, 0.0)
        self.serve(2)
        self.assertNotIn(None, (first.record, last.record))

    def test_late(self) -> None:
        """
        A waiter whose time is over is removed, and giving up has no effect any more.
        """
        first, second, third = Waiter(), Waiter(), Waiter()
        ticket = self.waiters.join(first, 1.0)
        self.waiters.join(second, 2.0)
        self.waiters.join(third, 3.0)
        self.assertEqual((self.waiters.due, self.waiters.late(5.9)), (6.0, []))
        self.assertEqual(self.waiters.late(7.0), [first, second])
        self.waiters.leave(ticket)
        self.assertEqual((self.waiters.count, self.waiters.due), (1, 8.0))
        self.assertEqual((self.counters.timedOut, self.counters.cancelled), (2, 0))

    def test_lateBeforeLeft(self) -> None:
        """
        If those behind the waiters that are late have given up, nothing is left of them.
        """
        first = Waiter()
        self.waiters.join(first, 1.0)
        self.waiters.leave(self.waiters.join(Waiter(), 2.0))
        self.assertEqual(self.waiters.late(6.0), [first])
        self.waiters.selfCheck()
        self.assertEqual(self.waiters.due, inf)

    def test_lateLeft(self) -> None:
        """
        A waiter that gave up does not time out.
        """
        early = self.waiters.join(Waiter(), 0.0)
        second = self.waiters.join(Waiter(), 1.0)
        last = Waiter()
        self.waiters.join(last, 2.0)
        self.waiters.leave(second)
        self.assertEqual(self.waiters.due, 5.0)
        self.waiters.leave(early)
        self.assertEqual(self.waiters.due, 7.0)
        self.assertEqual((self.waiters.late(7.0), self.counters.timedOut), ([last], 1))

    def test_forEver(self) -> None:
        """
        Without a timeout waiters wait without limit. A timeout that is set later counts from the time at which they
        joined.
        """
        self.waiters.timeout = None
        waiter = Waiter()
        self.waiters.join(waiter, 0.0)
        self.assertEqual((self.waiters.due, self.waiters.late(1e9)), (inf, []))
        self.waiters.timeout = 3.0
        self.assertEqual((self.waiters.due, self.waiters.late(3.0)), (3.0, [waiter]))
        self.assertEqual(self.waiters.due, inf)

    def test_extendDeadlines(self) -> None:
        """
        The time that does not count as waiting extends the deadline of each waiter, by as much of it as the waiter
        waited.
        """
        first, second = Waiter(), Waiter()
        self.waiters.join(first, 0.0)
        self.waiters.join(second, 4.0)
        self.waiters.extendDeadlines(3.0, 13.0)
        self.assertEqual(self.waiters.since, 0.0)
        self.assertEqual((self.waiters.due, self.waiters.late(15.0)), (15.0, [first]))
        self.assertEqual((self.waiters.due, self.waiters.late(18.0)), (18.0, [second]))

    def test_dismiss(self) -> None:
        """
        All waiters are removed at once. Those that join meanwhile are not.
        """
        everyone = [Waiter() for _ in range(3)]
        tickets = [self.waiters.join(each, 0.0) for each in everyone]
        self.waiters.leave(tickets[1])
        self.assertEqual(self.waiters.dismiss(), [everyone[0], everyone[2]])
        self.waiters.leave(tickets[0])
        self.assertEqual((self.waiters.count, self.waiters.since, self.counters.cancelled), (0, None, 1))

    def test_counted(self) -> None:
        """
        Served waiters and their times are counted. If the clock was set back, the time is zero.
        """
        for now in (0.0, 1.0, 9.0):
            self.waiters.join(Waiter(), now)
        self.assertEqual(self.waiters.since, 0.0)
        self.serve(3, 4.0)
        waits = self.waiters.waits
        self.assertEqual((self.counters.acquired, sum(waits.counts), waits.total), (3, 3, 7.0))
