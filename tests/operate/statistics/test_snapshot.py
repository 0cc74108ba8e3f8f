# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.statistics.snapshot}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.operate.snapshots import counters, told
from tests.stage import Stage
from txconnpool.operate.statistics.snapshot import countersOf, mergeSnapshots


class MergeTests(SynchronousTestCase):
    """
    Tests for L{mergeSnapshots}: several processes that are one proxy.
    """

    def pair(self) -> tuple[Stage, Stage]:
        """
        @return: two with different pasts.
        """
        one, other = Stage(2), Stage(2)
        one.ask(one.client(), b"get a\r\nget missb\r\n")
        other.ask(other.client(), b"get a\r\nset a 0 0 1\r\nx\r\n")
        return one, other

    def test_sums(self) -> None:
        """
        Counters, histograms and what there is add up, of the pool and of each server; bounds that each process has
        whole and ages do not.
        """
        one, other = self.pair()
        together = mergeSnapshots(told(one), told(other))
        (whole,) = together["pools"]
        self.assertEqual((whole["requests"]["get"], whole["requests"]["set"]), (3, 1))
        self.assertEqual((whole["hits"], whole["misses"], whole["sessions"]), (2, 1, 2))
        self.assertEqual((whole["sessions_max"], whole["connections_max"]), (10000, 4))
        self.assertEqual(sum(whole["latency_seconds"]["counts"]), 4 + 4)
        self.assertEqual([each["name"] for each in whole["servers"]], ["server0", "server1"])
        self.assertEqual(sum(each["requests"]["get"] for each in whole["servers"]), 3)
        self.assertApproximates(together["uptime_seconds"], 60, 5)
        self.assertEqual(together["held_max_bytes"], 1 << 29)
        self.assertEqual(set(together), set(told(one)))

    def test_states(self) -> None:
        """
        A server is up if one process thinks so, and a pool is ready if one is.
        """
        one, other = self.pair()
        one.servers[0].mode = one.servers[1].mode = "refuse"
        one.clock.advance(2)
        for line in one.lines:
            line.lose()
        one.turns()
        for pairs in ((one, other), (other, one)):
            (whole,) = mergeSnapshots(*map(told, pairs))["pools"]
            self.assertEqual((whole["state"], [each["state"] for each in whole["servers"]]), ("ready", ["up", "up"]))
            first = whole["servers"][0]
            self.assertEqual((whole["servers_up"], first["up"], first["reason"]), (2, 1, ""))

    def test_unequal(self) -> None:
        """
        A pool or server that only one process has, as while settings change, is told of too.
        """
        one, other = self.pair()
        other.pool.name = "other"
        self.assertEqual([each["name"] for each in mergeSnapshots(told(one), told(other))["pools"]], ["pool", "other"])
        other.pool.name = "pool"
        other.pool.removeServer("server1")
        other.turns()
        for pairs in ((one, other), (other, one)):
            (whole,) = mergeSnapshots(*map(told, pairs))["pools"]
            self.assertEqual(sorted(each["name"] for each in whole["servers"]), ["server0", "server1"])

    def test_past(self) -> None:
        """
        Of a process that has ended, what it has counted stays, and what there was of it does not.
        """
        one, other = self.pair()
        live, ended = told(one), told(other)
        together = mergeSnapshots(live, countersOf(ended))
        (whole,), (own,) = together["pools"], live["pools"]
        self.assertEqual((whole["requests"]["get"], whole["sessions_accepted"]), (3, 2))
        for name in ("sessions", "state", "connections", "connections_max", "sessions_max", "in_flight"):
            self.assertEqual(whole[name], own[name], name)
        self.assertEqual(together["resident_bytes"], live["resident_bytes"])
        self.assertEqual([each["state"] for each in whole["servers"]], ["up", "up"])
        self.assertEqual(sum(each["requests"]["get"] for each in whole["servers"]), 3)
        for name, value in counters(live).items():
            self.assertGreaterEqual(counters(together)[name], value)

    def test_pastOfRemoved(self) -> None:
        """
        The past does not bring a pool or server back that is there no more.
        """
        one, other = self.pair()
        ended = countersOf(told(other))
        one.pool.removeServer("server1")
        one.turns()
        (whole,) = mergeSnapshots(told(one), ended)["pools"]
        self.assertEqual([each["name"] for each in whole["servers"]], ["server0"])
        one.pool.name = "renamed"
        self.assertEqual([each["name"] for each in mergeSnapshots(told(one), ended)["pools"]], ["renamed"])
