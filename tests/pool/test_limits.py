# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.decisions.limits}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.pool.decisions.limits import Backoff, Limits


class BackoffTests(SynchronousTestCase):
    """
    Tests for L{Backoff}.
    """

    def test_delay(self) -> None:
        """
        Delays grow by C{factor} up to C{maximum}, even after a thousand failures.
        """
        backoff = Backoff(0.1, 2.0, 1.0, 0.0)
        delays = [backoff.delay(failures, max) for failures in (1, 2, 3, 4, 5, 1_000_000)]
        self.assertEqual(delays, [0.1, 0.2, 0.4, 0.8, 1.0, 1.0])

    def test_jitter(self) -> None:
        """
        Each delay is varied in both directions.
        """
        backoff = Backoff(1.0, 2.0, 8.0, 0.25)
        self.assertEqual([backoff.delay(4, pick) for pick in (min, max)], [6.0, 10.0])

    def test_wrong(self) -> None:
        """
        Values with which the delays would not grow are an error.
        """
        for wrong in ({"initial": 0}, {"factor": 0.5}, {"maximum": 0}, {"jitter": 1}, {"jitter": -0.1}):
            self.assertRaises(ValueError, Backoff, **wrong)


class LimitsTests(SynchronousTestCase):
    """
    Tests for L{Limits}.
    """

    def test_wrong(self) -> None:
        """
        Invalid limits are an error that shows the value.
        """
        for wrong, shown in (
            ({"maximum": 0}, "0"),
            ({"minimum": -1}, "-1"),
            ({"minimum": 6}, "6"),
            ({"depth": 0}, "0"),
            ({"maxWaiting": 0}, "0"),
            ({"whenDown": 0}, "0"),
            ({"reuse": "random"}, "'random'"),
            ({"waitTimeout": -0.5}, "waitTimeout must be a number of seconds from 0, not -0.5"),
            ({"idleTimeout": -1}, "idleTimeout"),
            ({"maxLifetime": float("nan")}, "maxLifetime"),
            ({"checkIfIdleFor": -1}, "checkIfIdleFor"),
            ({"keepAlive": -1}, "keepAlive"),
            ({"lifetimeJitter": 1.0}, "1.0"),
        ):
            self.assertIn(shown, str(self.assertRaises(ValueError, Limits, **wrong)))
