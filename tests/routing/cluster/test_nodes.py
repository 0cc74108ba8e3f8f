# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.cluster.nodes}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.routing.cluster.nodes import NodeView, viewNodes
from txconnpool.routing.cluster.slotmap import SlotMap
from txconnpool.wire.topology import Node, Shard

A, B, C, D, E = (Node(host, 1) for host in "abcde")

MAP = (Shard(((0, 99), (200, 16383)), A, (C,)), Shard(((100, 199),), B, (D,)), Shard((), E))


class NodeViewTests(SynchronousTestCase):
    """
    Tests for L{viewNodes}.
    """

    def test_roles(self) -> None:
        """
        Each node has a role, and primaries have slots.
        """
        views = viewNodes(SlotMap(MAP))
        self.assertEqual(
            {view.node: (view.role, view.primary, view.ranges) for view in views},
            {
                A: ("primary", None, ((0, 99), (200, 16383))),
                B: ("primary", None, ((100, 199),)),
                C: ("replica", A, ()),
                D: ("replica", B, ()),
                E: ("no slots", None, ()),
            },
        )
        self.assertEqual({view.node: view.slots for view in views if view.slots}, {A: 16284, B: 100})

    def test_moved(self) -> None:
        """
        A replica that a redirect has named is a primary.
        """
        slotMap = SlotMap(MAP)
        slotMap.move(100, D)
        self.assertIn(NodeView(D, "primary", None, ((100, 100),)), viewNodes(slotMap))
        self.assertIn(NodeView(B, "primary", None, ((101, 199),)), viewNodes(slotMap))

    def test_unknown(self) -> None:
        """
        Before the cluster has reported its map, there are no nodes.
        """
        self.assertEqual(viewNodes(SlotMap()), [])
