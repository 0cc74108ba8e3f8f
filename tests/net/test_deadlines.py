# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.deadlines}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.net.deadlines import Deadlines


class DeadlinesTests(SynchronousTestCase):
    """
    Tests for L{Deadlines}.
    """

    def setUp(self) -> None:
        """
        Create deadlines of three seconds.
        """
        self.clock = Clock()
        self.late: list[str] = []
        self.deadlines = Deadlines(self.clock, 3.0, self.late.append)

    def test_late(self) -> None:
        """
        C{late} is called once for a member, after its time and not before.
        """
        self.assertEqual(self.deadlines.add("a"), 0.0)
        self.clock.advance(2.9)
        self.assertEqual(self.late, [])
        self.clock.advance(0.2)
        self.clock.advance(10)
        self.assertEqual((self.late, self.deadlines.since), (["a"], {}))

    def test_inTime(self) -> None:
        """
        A member that was discarded is never late. It may be discarded again.
        """
        self.deadlines.add("a")
        self.deadlines.add("b")
        for _ in range(2):
            self.deadlines.discard("a")
        self.clock.advance(3)
        self.assertEqual(self.late, ["b"])

    def test_oneTimer(self) -> None:
        """
        A thousand members have one timer. There is none after they have ended.
        """
        for number in range(1000):
            self.deadlines.add(str(number))
            self.clock.advance(0.001)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for number in range(1000):
            self.deadlines.discard(str(number))
        self.clock.advance(3)
        self.assertEqual((self.late, self.clock.getDelayedCalls()), ([], []))

    def test_eachInItsTime(self) -> None:
        """
        The timer is set for the oldest member that is left.
        """
        for name in "abc":
            self.deadlines.add(name)
            self.clock.advance(0.5)
        self.deadlines.discard("a")
        self.clock.advance(1.9)
        self.assertEqual(self.late, [])
        self.clock.advance(0.2)
        self.assertEqual(self.late, ["b"])
        self.clock.advance(0.5)
        self.assertEqual(self.late, ["b", "c"])

    def test_rounding(self) -> None:
        """
        The timer also ends if times are rounded in additions.
        """
        for start in range(200):
            self.clock.rightNow = start * 0.1
            self.deadlines.add("a")
            self.clock.advance(3.0)
            self.assertEqual(self.late.pop(), "a")

    def test_endedByAnother(self) -> None:
        """
        C{late} for one member may discard another one that is late too.
        """

        def late(member: str) -> None:
            self.late.append(member)
            deadlines.discard("b")
            deadlines.add("c")

        deadlines = Deadlines(self.clock, 3.0, late)
        deadlines.add("a")
        deadlines.add("b")
        self.clock.advance(3)
        self.assertEqual((self.late, list(deadlines.since)), (["a"], ["c"]))
        deadlines.stop()

    def test_never(self) -> None:
        """
        Without a timeout no member is late, and there is no timer.
        """
        deadlines = Deadlines(self.clock, None, self.late.append)
        deadlines.add("a")
        self.assertEqual((self.clock.getDelayedCalls(), list(deadlines.since)), ([], ["a"]))

    def test_stop(self) -> None:
        """
        Deadlines can be stopped, also twice, and start again with the next member.
        """
        self.deadlines.add("a")
        self.deadlines.stop()
        self.deadlines.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.deadlines.add("b")
        self.clock.advance(3)
        self.assertEqual(self.late, ["a", "b"])

    def test_retime(self) -> None:
        """
        A new timeout applies at once, also to existing members.
        """
        self.deadlines.add("a")
        self.clock.advance(1)
        self.deadlines.retime(1.5)
        self.clock.advance(0.4)
        self.assertEqual(self.late, [])
        self.clock.advance(0.2)
        self.assertEqual(self.late, ["a"])
        self.deadlines.add("b")
        self.deadlines.retime(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_retimeEarlier(self) -> None:
        """
        Another time holds for the members there are, counted from when they were added. C{None}: none is late.
        """
        clock = Clock()
        late: list[str] = []
        deadlines = Deadlines(clock, 10.0, late.append)
        deadlines.add("a")
        clock.advance(3)
        deadlines.add("b")
        deadlines.retime(4.0)
        clock.advance(1)
        self.assertEqual(late, ["a"])
        deadlines.retime(None)
        clock.advance(100)
        self.assertEqual((late, clock.getDelayedCalls()), (["a"], []))
        deadlines.retime(4.0)
        self.assertEqual(late, ["a", "b"])
