# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.waits}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.errors import PoolClosed
from txconnpool.routing.waits import Waits


class WaitsTests(SynchronousTestCase):
    """
    Tests for callers that wait.
    """

    def setUp(self) -> None:
        """
        Nobody waits.
        """
        self.clock = Clock()
        self.waits = Waits(self.clock)

    def test_time(self) -> None:
        """
        A caller waits for its time at most; one without a time waits until it is fired.
        """
        first, second = self.waits.add(2.0), self.waits.add(None)
        self.clock.advance(2.0)
        self.assertIsNone(self.successResultOf(first))
        self.assertNoResult(second)
        self.assertEqual(list(self.waits), [second])
        second.callback(None)
        self.assertEqual(list(self.waits), [])

    def test_fired(self) -> None:
        """
        The timer of a caller ends with its wait, also if the caller gives up.
        """
        first, second = self.waits.add(2.0), self.waits.add(3.0)
        first.callback(None)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual((list(self.waits), self.clock.getDelayedCalls()), ([], []))

    def test_fail(self) -> None:
        """
        All callers may fail at once.
        """
        waiting = [self.waits.add(1.0), self.waits.add(None)]
        self.waits.fail(PoolClosed("closed"))
        for each in waiting:
            self.failureResultOf(each, PoolClosed)
        self.assertEqual((list(self.waits), self.clock.getDelayedCalls()), ([], []))
