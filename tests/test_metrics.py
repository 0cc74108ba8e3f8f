# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.metrics}.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from itertools import pairwise
from math import inf

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.metrics import BELOW_ZERO, LATENCY_BOUNDS, REASONS, Counters, Histogram, PoolStats, Traffic, tally
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.state import PoolState


class HistogramTests(SynchronousTestCase):
    """
    Tests for L{Histogram}.
    """

    def test_buckets(self) -> None:
        """
        A value belongs to the bucket of the first bound that is not below it. Values above all bounds belong to the
        last bucket.
        """
        histogram = Histogram((1.0, 2.0))
        for value in (0.0, 1.0, 1.5, 2.0, 2.1, 99.0):
            histogram.observe(value)
        self.assertEqual((histogram.counts, histogram.total), ([2, 2, 2], 105.6))

    def test_bucket(self) -> None:
        """
        C{bucket} returns the index of a value's bucket and its lower and upper bound.
        """
        histogram = Histogram((1.0, 2.0))
        first = (0, BELOW_ZERO, 1.0)
        for value, found in ((0.0, first), (1.0, first), (1.5, (1, 1.0, 2.0)), (9.0, (2, 2.0, inf))):
            self.assertEqual(histogram.bucket(value), found)
            self.assertTrue(found[1] < value <= found[2])
        self.assertFalse(first[1] < -1e-300)

    def test_times(self) -> None:
        """
        Several events with the same value can be counted at once.
        """
        histogram = Histogram()
        histogram.observe(0.5, 3)
        self.assertEqual((sum(histogram.counts), histogram.total), (3, 1.5))

    def test_bounds(self) -> None:
        """
        Each default bound is larger than the one before it, by a factor of less than three.
        """
        for below, above in pairwise(LATENCY_BOUNDS):
            self.assertTrue(1 < above / below < 3)


class StatsTests(SynchronousTestCase):
    """
    Tests for L{PoolStats}.
    """

    def test_whole(self) -> None:
        """
        A snapshot has every counter, is immutable, and does not follow later changes of the pool.
        """
        state = PoolState(Limits(maximum=4))
        stats = state.stats()
        self.assertEqual(set(Counters.__slots__) - {field.name for field in fields(PoolStats)}, set())
        state.counters.acquired += 1
        self.assertEqual((stats.acquired, state.stats().acquired), (0, 1))
        self.assertRaises(FrozenInstanceError, setattr, stats, "acquired", 2)

    def test_text(self) -> None:
        """
        C{str} of a snapshot shows connections and waiters in one line.
        """
        text = "0 of 4 connections busy, 0 idle, 0 dialing, 0 waiting"
        self.assertEqual(str(PoolState(Limits(maximum=4)).stats()), text)


class TallyTests(SynchronousTestCase):
    """
    Tests for L{tally}.
    """

    def test_counts(self) -> None:
        """
        Each reason has its own count.
        """
        reasons: dict[str, int] = {}
        for reason in ("a", "b", "a"):
            tally(reasons, reason)
        tally(reasons, "b", 5)
        self.assertEqual(reasons, {"a": 2, "b": 6})

    def test_bounded(self) -> None:
        """
        The number of reasons counted separately is bounded; no event is lost.
        """
        reasons: dict[str, int] = {}
        for number in range(1000):
            tally(reasons, str(number))
        tally(reasons, "0")
        self.assertLessEqual(len(reasons), REASONS + 1)
        self.assertEqual((reasons["0"], sum(reasons.values())), (2, 1001))


class TrafficTests(SynchronousTestCase):
    """
    Tests for L{Traffic}.
    """

    def test_commands(self) -> None:
        """
        Each command has its own counts.
        """
        traffic = Traffic(3)
        self.assertEqual((traffic.requests, traffic.failed), ([0, 0, 0], [0, 0, 0]))
        traffic.requests[1] += 1
        self.assertEqual(traffic.failed, [0, 0, 0])

    def test_add(self) -> None:
        """
        The counters of one server can be added to those of another.
        """
        one, other = Traffic(2), Traffic(2)
        one.requests, other.requests = [1, 2], [10, 20]
        one.sent, other.sent = 3, 30
        one.lost, other.lost = {"a": 1, "b": 2}, {"b": 20, "c": 30}
        one.missed, other.missed, one.failed[1], other.failed[1] = 4, 40, 5, 50
        one.touches.missed, other.touches.missed = 6, 60
        one.latency.observe(0.01)
        other.latency.observe(0.01, 2)
        one.add(other)
        self.assertEqual((one.requests, one.sent, one.lost), ([11, 22], 33, {"a": 1, "b": 22, "c": 30}))
        self.assertEqual((one.missed, one.failed, one.touches.missed), (44, [0, 55], 66))
        self.assertEqual((sum(one.latency.counts), round(one.latency.total, 6)), (3, 0.03))
