# -*- test-case-name: tests.routing.cluster.test_slotmap -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Which node of a cluster has which slots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from txconnpool.wire.topology import SLOTS, Node, Shard


class SlotMap:
    """
    The nodes of a cluster, and the slots that each has. A report of the cluster replaces all of it; a redirect moves
    one slot.

    @ivar slots: the number of the primary of each slot in C{primaries}; -1: none has it.
    @ivar primaries: the primaries that have slots.
    @ivar replicas: the replicas of each of C{primaries}.
    @ivar nodes: all nodes that the cluster has reported, those without slots too.
    """

    __slots__ = ("nodes", "primaries", "replicas", "slots")

    def __init__(self, shards: Iterable[Shard] = ()) -> None:
        """
        @param shards: what the cluster reports. A slot that two of them have is that of the last one.
        """
        slots = [-1] * SLOTS
        primaries: list[Node] = []
        replicas: list[tuple[Node, ...]] = []
        nodes: dict[Node, None] = {}
        # A shard keeps its place if another node becomes its primary.
        for shard in sorted(shards, key=lambda shard: min(shard.slots, default=(SLOTS, SLOTS))):
            nodes.update(dict.fromkeys((shard.primary, *shard.replicas)))
            if not shard.slots:
                continue
            for first, last in shard.slots:
                slots[first : last + 1] = [len(primaries)] * (last + 1 - first)
            primaries.append(shard.primary)
            replicas.append(shard.replicas)
        self.slots = slots
        self.primaries = primaries
        self.replicas = replicas
        self.nodes = nodes

    @property
    def covered(self) -> int:
        """
        The number of slots that a node has.
        """
        return SLOTS - self.slots.count(-1)

    def move(self, slot: int, node: Node) -> bool:
        """
        Give a slot to another node, which may be a replica until now.

        @return: whether this is possible: only a node that the cluster has reported gets a slot.
        """
        if node not in self.nodes:
            return False
        if node not in self.primaries:
            self.primaries.append(node)
            self.replicas.append(())
        self.slots[slot] = self.primaries.index(node)
        return True

    def owner(self, slot: int) -> Node | None:
        """
        @return: the primary of a slot, or C{None}.
        """
        index = self.slots[slot]
        return self.primaries[index] if index >= 0 else None

    def ranges(self) -> dict[Node, list[tuple[int, int]]]:
        """
        @return: the first and the last slot of each range of slots of each primary.
        """
        found: dict[Node, list[tuple[int, int]]] = {node: [] for node in self.primaries}
        start = 0
        for slot in range(1, SLOTS + 1):
            if slot == SLOTS or self.slots[slot] != self.slots[start]:
                if self.slots[start] >= 0:
                    found[self.primaries[self.slots[start]]].append((start, slot - 1))
                start = slot
        return found


def locate(node: Node, host: str, addresses: Mapping[Node, Node]) -> Node:
    """
    @param node: a node, as the cluster reports it.
    @param host: the host of the node that reported it, which stands for an empty one.
    @param addresses: the addresses at which nodes are reached, if they are not those that the cluster reports.

    @return: the node with the address at which it is reached.
    """
    node = node if node.host else Node(host, node.port)
    return addresses.get(node, node)


def located(shards: Iterable[Shard], host: str, addresses: Mapping[Node, Node]) -> list[Shard]:
    """
    @param host: see L{locate}, also for C{addresses}.

    @return: the shards with the addresses at which their nodes are reached.
    """

    def at(node: Node) -> Node:
        return locate(node, host, addresses)

    return [Shard(shard.slots, at(shard.primary), tuple(map(at, shard.replicas))) for shard in shards]
