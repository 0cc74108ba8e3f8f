# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.statistics.snapshot}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.operate.snapshots import counters, pool, snapshotOf
from tests.redisstage import ShardedRedisStage, requests
from tests.stage import Stage
from txconnpool.operate.statistics.history import History
from txconnpool.operate.statistics.snapshot import countersOf, mergeSnapshots


class RedisTests(SynchronousTestCase):
    """
    Tests for the numbers of a pool of Redis.
    """

    def test_hits(self) -> None:
        """
        Hits and misses are those of requests; one with several keys is a miss if it lacks one of them.
        """
        stage = ShardedRedisStage(1)
        stage.ask(stage.client(), requests("SET a0 x", "GET a0", "GET b0", "MGET a0 c0", "GET a0"))
        found = pool(stage)
        self.assertEqual((found["hits"], found["misses"], found["operations"]), (2, 2, {"get": 4}))


class ServerlessTests(SynchronousTestCase):
    """
    Tests for a pool that has no servers yet, because they have to be looked up, or those of a cluster to be asked for.
    """

    def test_zeros(self) -> None:
        """
        It has all numbers of a pool, of which those of its servers are zero, and the history begins with it.
        """
        none, some = Stage(0, maximum=1, minimum=0), Stage()
        self.assertEqual(set(pool(none)), set(pool(some)))
        found = pool(none)
        self.assertEqual((sum(found["requests"].values()), found["hits"], found["dials"]), (0, 0, 0))
        history = History()
        for stage in (none, some):
            history.add(snapshotOf(stage))
        self.assertEqual(len(history.of("pool")["requests"]), 1)


class MergeTests(SynchronousTestCase):
    """
    Tests for L{mergeSnapshots} and L{countersOf}.
    """

    def pair(self) -> tuple[Stage, Stage]:
        """
        @return: two pools with different counters.
        """
        one, other = Stage(2), Stage(2)
        one.ask(one.client(), b"get a\r\nget missb\r\n")
        other.ask(other.client(), b"get a\r\nset a 0 0 1\r\nx\r\n")
        return one, other

    def test_sums(self) -> None:
        """
        Counters, histograms and most gauges of the process, the pool and each server are added. Bounds that every
        process has in full and ages are not.
        """
        one, other = self.pair()
        together = mergeSnapshots(snapshotOf(one), snapshotOf(other))
        (whole,) = together["pools"]
        self.assertEqual((whole["requests"]["get"], whole["requests"]["set"]), (3, 1))
        self.assertEqual((whole["hits"], whole["misses"], whole["sessions"]), (2, 1, 2))
        self.assertEqual((whole["sessions_max"], whole["connections_max"]), (10000, 4))
        self.assertEqual(sum(whole["latency_seconds"]["counts"]), 4 + 4)
        self.assertEqual([each["name"] for each in whole["servers"]], ["server0", "server1"])
        self.assertEqual(sum(each["requests"]["get"] for each in whole["servers"]), 3)
        self.assertApproximates(together["uptime_seconds"], 60, 5)
        self.assertEqual(together["held_max_bytes"], 1 << 29)
        self.assertEqual(set(together), set(snapshotOf(one)))

    def test_states(self) -> None:
        """
        A server is up if it is up in one process, and a pool is ready if it is in one.
        """
        one, other = self.pair()
        one.servers[0].mode = one.servers[1].mode = "refuse"
        one.clock.advance(2)
        for line in one.lines:
            line.lose()
        one.turns()
        for pairs in ((one, other), (other, one)):
            (whole,) = mergeSnapshots(*map(snapshotOf, pairs))["pools"]
            self.assertEqual((whole["state"], [each["state"] for each in whole["servers"]]), ("ready", ["up", "up"]))
            first = whole["servers"][0]
            self.assertEqual((whole["servers_up"], first["up"], first["reason"]), (2, 1, ""))

    def test_neverDialed(self) -> None:
        """
        A process without a connection to a server does not know whether it is up: the other one does.
        """
        one, other = Stage(2), Stage(2, minimum=0)
        one.clock.advance(2)
        for server in one.servers:
            server.mode = "refuse"
        for line in one.lines:
            line.lose()
        one.turns()
        self.assertEqual(pool(one)["state"], "down")
        self.assertEqual((pool(other)["state"], other.lines), ("ready", []))
        for pairs in ((one, other), (other, one)):
            (whole,) = mergeSnapshots(*map(snapshotOf, pairs))["pools"]
            self.assertEqual((whole["state"], whole["servers_up"]), ("down", 0))
            for each in whole["servers"]:
                self.assertEqual((each["state"], each["up"], each["reason"]), ("down", 0, "connection refused"))

    def test_unequal(self) -> None:
        """
        A pool or server that only one process has, as while settings change, is kept.
        """
        one, other = self.pair()
        other.pool.name = "other"
        self.assertEqual(
            [each["name"] for each in mergeSnapshots(snapshotOf(one), snapshotOf(other))["pools"]], ["pool", "other"]
        )
        other.pool.name = "pool"
        other.pool.removeServer("server1")
        other.turns()
        for pairs in ((one, other), (other, one)):
            (whole,) = mergeSnapshots(*map(snapshotOf, pairs))["pools"]
            self.assertEqual(sorted(each["name"] for each in whole["servers"]), ["server0", "server1"])

    def test_past(self) -> None:
        """
        The counters of a process that has ended are added, its gauges are not.
        """
        one, other = self.pair()
        live, ended = snapshotOf(one), snapshotOf(other)
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
        The counters of a process that has ended do not bring back pools and servers that were removed.
        """
        one, other = self.pair()
        ended = countersOf(snapshotOf(other))
        one.pool.removeServer("server1")
        one.turns()
        (whole,) = mergeSnapshots(snapshotOf(one), ended)["pools"]
        self.assertEqual([each["name"] for each in whole["servers"]], ["server0"])
        one.pool.name = "renamed"
        self.assertEqual([each["name"] for each in mergeSnapshots(snapshotOf(one), ended)["pools"]], ["renamed"])
