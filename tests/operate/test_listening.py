# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.listening}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.operate.listening import (
    LOG_PERIOD,
    OperatorConnection,
    OperatorFactory,
    Tally,
    oldestOfBusiest,
)


class OldestOfBusiestTests(SynchronousTestCase):
    """
    Tests for L{oldestOfBusiest}.
    """

    def test_oldestOfBusiest(self) -> None:
        """
        The oldest connection of the network with the most is chosen.
        """
        connections = []
        for network in "abcbcc":
            connection = OperatorConnection(OperatorFactory(Clock()))
            connection.network = network
            connections.append(connection)
        self.assertIs(oldestOfBusiest(connections), connections[2])
        self.assertIs(oldestOfBusiest(connections[:3]), connections[0])


class TallyTests(SynchronousTestCase):
    """
    Tests for L{Tally}.
    """

    def test_periods(self) -> None:
        """
        There is a line at once, then one in each period in which something has happened.
        """
        clock = Clock()
        lines: list[tuple[int, str]] = []
        tally = Tally(clock, lambda *line: lines.append(line))
        for what in "abc":
            tally.add(what)
        self.assertEqual(lines, [(1, "a")])
        clock.advance(LOG_PERIOD)
        self.assertEqual(lines.pop(), (2, "c"))
        clock.advance(LOG_PERIOD)
        self.assertEqual((lines, clock.getDelayedCalls()), ([(1, "a")], []))
        tally.add("d")
        self.assertEqual(lines.pop(), (1, "d"))

    def test_stop(self) -> None:
        """
        A stop logs the rest and leaves no timer.
        """
        clock = Clock()
        lines: list[tuple[int, str]] = []
        tally = Tally(clock, lambda *line: lines.append(line))
        tally.stop()
        tally.add("a")
        tally.stop()
        tally.add("b")
        tally.add("c")
        tally.stop()
        self.assertEqual((lines, clock.getDelayedCalls()), ([(1, "a"), (1, "b"), (1, "c")], []))
