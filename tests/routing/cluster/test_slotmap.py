# -*- test-case-name: tests.routing.cluster.test_slotmap -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.cluster.slotmap}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from txconnpool.routing.cluster.slotmap import SlotMap, locate, located
from txconnpool.wire.topology import SLOTS, Node, Shard

A, B, C, D = (Node("10.0.0.1", port) for port in (1, 2, 3, 4))


class SlotMapTests(SynchronousTestCase):
    """
    Tests for L{SlotMap}.
    """

    def test_owners(self) -> None:
        """
        Each slot has the primary that the cluster reports, or none.
        """
        slotMap = SlotMap([Shard(((8192, 16383),), B), Shard(((0, 99), (200, 8191)), A, (C,)), Shard((), D)])
        self.assertEqual(slotMap.primaries, [A, B])
        self.assertEqual(slotMap.replicas, [(C,), ()])
        self.assertEqual(
            [slotMap.owner(slot) for slot in (0, 99, 100, 200, 8191, 8192, 16383)], [A, A, None, A, A, B, B]
        )
        self.assertEqual(set(slotMap.nodes), {A, B, C, D})
        self.assertEqual(slotMap.covered, SLOTS - 100)
        self.assertEqual(slotMap.ranges(), {A: [(0, 99), (200, 8191)], B: [(8192, 16383)]})

    def test_empty(self) -> None:
        """
        An empty map has no nodes.
        """
        self.assertEqual((SlotMap().covered, SlotMap().ranges(), SlotMap().owner(7)), (0, {}, None))

    def test_order(self) -> None:
        """
        A shard keeps its place if its replica becomes its primary.
        """
        before = SlotMap([Shard(((0, 5),), A, (B,)), Shard(((6, 9),), C)])
        after = SlotMap([Shard(((6, 9),), C), Shard(((0, 5),), B, (A,))])
        self.assertEqual((before.primaries, after.primaries), ([A, C], [B, C]))

    @covers("R34")
    def test_move(self) -> None:
        """
        A slot moves to a node that the cluster has reported: a primary, a replica, or a node without slots.
        """
        slotMap = SlotMap([Shard(((0, 9),), A, (B,)), Shard(((10, 16383),), C), Shard((), D)])
        for slot, node in ((1, C), (2, B), (3, D)):
            self.assertTrue(slotMap.move(slot, node))
            self.assertEqual(slotMap.owner(slot), node)
        self.assertEqual(slotMap.owner(4), A)
        self.assertEqual(slotMap.primaries, [A, C, B, D])

    def test_unknown(self) -> None:
        """
        No slot moves to a node that the cluster has not reported.
        """
        slotMap = SlotMap([Shard(((0, 16383),), A)])
        self.assertFalse(slotMap.move(1, Node("10.9.9.9", 22)))
        self.assertEqual(slotMap.owner(1), A)


class LocateTests(SynchronousTestCase):
    """
    Tests for L{locate} and L{located}.
    """

    def test_sameHost(self) -> None:
        """
        A node without a host has that of the node that was asked.
        """
        self.assertEqual(locate(Node("", 7), "asked.example", {}), Node("asked.example", 7))

    @covers("R33")
    def test_addresses(self) -> None:
        """
        The configured addresses replace those that the cluster reports.
        """
        shards = [Shard(((0, 5),), A, (B, Node("", 9)))]
        addresses = {B: C, Node("asked", 9): D}
        self.assertEqual(located(shards, "asked", addresses), [Shard(((0, 5),), A, (C, D))])
