# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the statistics and the table of the nodes of a cluster.
"""

from __future__ import annotations

from typing import Any

from tests.proxy.test_clustering import ClusterCase
from txconnpool.operate.operations import slotRows
from txconnpool.operate.statistics.snapshot import mergeSnapshots, takeSnapshot
from txconnpool.operate.statistics.sources import PoolSource, ProcessSource
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.routing.cluster.nodes import RANGES
from txconnpool.wire.topology import SLOTS, slotOf


def snapshotOf(stage: Any) -> dict[str, Any]:
    """
    @return: the statistics of a process with the pool of a stage.
    """
    source = PoolSource(stage.pool, stage.sessions, True)
    return takeSnapshot(ProcessSource(0.0, BufferedBytes(1 << 20)), [source])


class ClusterStatisticsTests(ClusterCase):
    """
    Tests with a cluster of three nodes.
    """

    def snapshot(self) -> dict[str, Any]:
        """
        @return: the statistics of the process.
        """
        return snapshotOf(self.stage)

    def test_map(self) -> None:
        """
        The pool knows all slots, and how old its map is; each node knows its own.
        """
        self.stage.clock.advance(3)
        (pool,) = self.snapshot()["pools"]
        self.assertEqual((pool["slots_covered"], pool["slots_moved"], pool["map_refreshes"]), (SLOTS, 0, 1))
        self.assertEqual((pool["map_failures"], pool["map_age_seconds"] >= 3), (0, True))
        self.assertEqual(pool["redirects"], {"moved": 0, "ask": 0, "later": 0})
        self.assertEqual(sum(server["slots"] for server in pool["servers"]), SLOTS)
        self.assertEqual([server["replica"] for server in pool["servers"]], [0, 0, 0])

    def test_merged(self) -> None:
        """
        Workers have the same map: its slots are not added.
        """
        (pool,) = mergeSnapshots(self.snapshot(), self.snapshot())["pools"]
        self.assertEqual((pool["slots_covered"], pool["map_refreshes"]), (SLOTS, 2))
        self.assertEqual(sum(server["slots"] for server in pool["servers"]), SLOTS)

    def test_redirects(self) -> None:
        """
        A redirect is counted, and moves a slot.
        """
        self.cluster.move(b"k")
        self.ask("GET k")
        (pool,) = self.snapshot()["pools"]
        self.assertEqual((pool["redirects"]["moved"], pool["slots_moved"]), (1, 1))

    def test_rows(self) -> None:
        """
        The table has a row for each node, with the first ranges of its slots.
        """
        rows = list(slotRows("a", self.stage.pool))
        self.assertEqual({(row["pool"], row["role"], row["of"]) for row in rows}, {("a", "primary", "-")})
        self.assertEqual(sum(int(row["slots"]) for row in rows), SLOTS)
        before = {row["node"]: row["ranges"] for row in rows}
        slot = slotOf(b"k")
        self.cluster.move(b"k")
        self.ask("GET k")
        after = {row["node"]: row["ranges"] for row in slotRows("a", self.stage.pool)}
        changed = [after[node] for node in after if after[node] != before[node]]
        self.assertEqual(len(changed), 2)
        self.assertTrue(any(str(slot) in ranges.split() for ranges in changed), changed)
        self.assertLessEqual(max(len(ranges.split()) for ranges in after.values()), RANGES)


class ShardTests(ClusterCase):
    """
    Tests for the replicas of a cluster.
    """

    readFrom = "prefer-replica"

    def test_shards(self) -> None:
        """
        A primary has its slots and the number of its replicas, and a replica has its primary.
        """
        (pool,) = snapshotOf(self.stage)["pools"]
        servers = {server["name"]: server for server in pool["servers"]}
        self.assertEqual(
            [(servers[f"node{each}"]["ranges"], servers[f"node{each}"]["replicas"]) for each in range(3)],
            [("0-5461", 1), ("5462-10922", 1), ("10923-16383", 1)],
        )
        self.assertEqual([servers[f"node{each}"]["primary"] for each in range(3, 6)], ["node0", "node1", "node2"])
