# -*- test-case-name: tests.routing.cluster.test_nodes -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What is known of each node of a cluster, for operators.
"""

from __future__ import annotations

from typing import NamedTuple

from txconnpool.routing.cluster.slotmap import SlotMap
from txconnpool.wire.topology import Node

#: The number of ranges of slots that are shown of a node.
RANGES = 8


class NodeView(NamedTuple):
    """
    One node.

    @ivar role: C{"primary"}, C{"replica"}, or C{"no slots"}.
    @ivar primary: the primary of a replica, or C{None}.
    @ivar ranges: the first and the last slot of each range that it has.
    """

    node: Node
    role: str
    primary: Node | None
    ranges: tuple[tuple[int, int], ...]

    @property
    def slots(self) -> int:
        """
        The number of its slots.
        """
        return sum(last + 1 - first for first, last in self.ranges)

    @property
    def rangesText(self) -> str:
        """
        Its first ranges, and how many others there are; empty if it has no slots.
        """
        texts = [str(first) if first == last else f"{first}-{last}" for first, last in self.ranges[:RANGES]]
        more = [f"and {len(self.ranges) - RANGES} more"] if len(self.ranges) > RANGES else []
        return " ".join([*texts, *more])


def viewNodes(slotMap: SlotMap) -> list[NodeView]:
    """
    @return: all nodes of a map, in the order in which the cluster reports them.
    """
    ranges = slotMap.ranges()
    primaries = {
        replica: primary
        for primary, replicas in zip(slotMap.primaries, slotMap.replicas, strict=True)
        for replica in replicas
    }
    views = []
    for node in slotMap.nodes:
        if node in ranges:
            # A replica that has got a slot by a redirect is a primary already.
            views.append(NodeView(node, "primary", None, tuple(ranges[node])))
        else:
            primary = primaries.get(node)
            views.append(NodeView(node, "no slots" if primary is None else "replica", primary, ()))
    return views
