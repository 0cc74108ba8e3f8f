# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.statistics.prometheus}.
"""

from __future__ import annotations

import platform
import re

import twisted
from twisted.trial.unittest import SynchronousTestCase

from tests.operate.snapshots import snapshotOf
from tests.stage import Stage
from txconnpool import __version__
from txconnpool.native import IMPLEMENTATION
from txconnpool.operate.reactor import reactorName
from txconnpool.operate.statistics.prometheus import exposition


class PrometheusTests(SynchronousTestCase):
    """
    Tests for L{exposition}. C{tests.real.test_stats} has its output parsed by Prometheus' client library.
    """

    def samples(self, stage: Stage) -> dict[str, float]:
        """
        @return: the values, by their names and labels.
        """
        lines = [line for line in exposition(snapshotOf(stage)).splitlines() if not line.startswith("#")]
        samples = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
        self.assertEqual(len(samples), len(lines))
        return samples

    def test_format(self) -> None:
        """
        Every line is a comment or a sample.
        """
        stage = Stage(2)
        stage.ask(stage.client(), b"get a\r\n")
        text = exposition(snapshotOf(stage))
        line = r'(# (HELP|TYPE) connpool_\w+ .*|connpool_\w+(\{(\w+="([^"\\\n]|\\.)*",?)*\})? [-+.e0-9]+)\n'
        self.assertEqual(re.sub(line, "", text), "")

    def test_help(self) -> None:
        """
        The meaning and the kind of each statistic come once, before its samples.
        """
        lines = exposition(snapshotOf(Stage(2))).splitlines()
        kinds = [line.split(" ")[2:4] for line in lines if line.startswith("# TYPE")]
        self.assertEqual(len({name for name, _ in kinds}), len(kinds))
        self.assertIn(["connpool_latency_seconds", "histogram"], kinds)
        self.assertIn(["connpool_server_up", "gauge"], kinds)
        current = ""
        for line in lines:
            if line.startswith("#"):
                current = line.split(" ")[2]
            else:
                self.assertTrue(line.startswith(current))

    def test_labels(self) -> None:
        """
        Pools, servers and parts have labels.
        """
        stage = Stage(2)
        for _ in range(3):
            stage.ask(stage.client(), b"get a\r\n")
        samples = self.samples(stage)
        self.assertEqual(samples['connpool_requests_total{pool="pool",command="get"}'], 3)
        labels = [f'{{pool="pool",server="server{number}",command="get"}}' for number in (0, 1)]
        self.assertEqual(sum(samples["connpool_server_requests_total" + each] for each in labels), 3)
        self.assertEqual(
            samples[
                f'connpool_build_info{{version="{__version__}",python="{platform.python_version()}",'
                f'twisted="{twisted.__version__}",implementation="{IMPLEMENTATION}",reactor="{reactorName()}"}}'
            ],
            1,
        )

    def test_escaped(self) -> None:
        """
        Characters of names that are special in the format are escaped.
        """
        stage = Stage()
        stage.pool.servers[0].name = 'unix:C:\\new "one"\nline'
        self.assertIn(r'server="unix:C:\\new \"one\"\nline"', exposition(snapshotOf(stage)))

    def test_histogram(self) -> None:
        """
        Buckets of a histogram are cumulative; the last one counts all values.
        """
        stage = Stage()
        stage.clock.advance(1)
        for delay in (0.0, 0.0, 0.03, 0.03, 1.5):
            stage.client().send(b"get a\r\n")
            stage.turns()
            stage.clock.advance(delay)
            stage.serve()
        samples = self.samples(stage)
        buckets = [value for name, value in samples.items() if name.startswith("connpool_latency_seconds_bucket")]
        self.assertEqual(buckets, sorted(buckets))
        for bound, count in (("5e-05", 3), ("0.02", 3), ("0.05", 5), ("1.0", 5), ("2.0", 6), ("+Inf", 6)):
            self.assertEqual(samples[f'connpool_latency_seconds_bucket{{pool="pool",le="{bound}"}}'], count, bound)
        self.assertEqual(samples['connpool_latency_seconds_count{pool="pool"}'], 6)
        self.assertAlmostEqual(samples['connpool_latency_seconds_sum{pool="pool"}'], 1.56)
