# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.loglimit}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.net.loglimit import LogLimit


class LogLimitTests(SynchronousTestCase):
    """
    Tests for L{LogLimit}.
    """

    def test_limit(self) -> None:
        """
        The first event is logged, and later one in each period, with the number since the last line.
        """
        clock = Clock()
        limit = LogLimit(clock.seconds, 10.0)
        counts = []
        for _ in range(25):
            counts.append(limit.add())
            clock.advance(1.0)
        self.assertEqual([(n, count) for n, count in enumerate(counts) if count], [(0, 1), (10, 10), (20, 10)])
        clock.advance(100.0)
        self.assertEqual(limit.add(), 5)

    def test_clockSetBack(self) -> None:
        """
        A clock that is set back does not suppress lines.
        """
        times = [100.0, 101.0, 5.0, 6.0]
        limit = LogLimit(lambda: times.pop(0), 10.0)
        self.assertEqual([limit.add() for _ in range(4)], [1, 0, 2, 0])
