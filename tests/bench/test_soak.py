# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{tests.bench.soak}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.bench.soak import COLUMNS, TOLERANCE, growth, soak
from tests.real.servers import missing


class GrowthTests(SynchronousTestCase):
    """
    Tests for the verdict about samples.
    """

    def test_growth(self) -> None:
        """
        What grows after the beginning is found; what is only larger than at the beginning is not.
        """
        samples = [{**dict.fromkeys(COLUMNS, 100.0), "memory": 60e6 + number * 1e6} for number in range(60)]
        for sample in samples[:10]:
            sample["objects"] = 10.0
        grown = growth(samples)
        self.assertEqual({name for name in COLUMNS if grown[name] > 1 + TOLERANCE}, {"memory"})


class SoakTests(SynchronousTestCase):
    """
    Tests for the load.
    """

    skip = missing("memcached")

    def test_short(self) -> None:
        """
        A short load has correct replies, and samples with all numbers.
        """
        shown: list[Any] = []
        directory = Path(self.mktemp())
        directory.mkdir()
        samples, result = soak(3.0, 1.0, 5, directory.resolve(), lambda *each: shown.append(each))
        self.assertEqual((result["wrongs"], result["stuck"]), (0, 0))
        self.assertGreater(result["ok"], 0)
        self.assertEqual([sample for _, sample in shown], samples)
        for sample in samples:
            self.assertEqual(set(sample), set(COLUMNS))
            self.assertGreater(min(sample["memory"], sample["descriptors"], sample["timers"], sample["objects"]), 0)
