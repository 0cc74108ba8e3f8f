# -*- test-case-name: tests.routing.test_clusters -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The choice among the nodes of a cluster, by the slot of a key.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import methodcaller
from typing import Any

from txconnpool.pool.decisions.servers import Server
from txconnpool.routing.flavours import FlavouredRouter, FlavouredShards
from txconnpool.routing.maps import Divided
from txconnpool.routing.nodes import NodePools
from txconnpool.wire.topology import Redirect


class ClusterRouter(FlavouredRouter):
    """
    The choice by slot among the connections of one kind: those of one flavour, or those that clients have for
    themselves.

    @cvar divides: whether several nodes have the keys.
    """

    divides = True
    passesOn = True

    def __init__(
        self, cluster: Any, pick: Callable[[Any], Any], pickReader: Callable[[Any], Any] | None = None
    ) -> None:
        """
        @param cluster: a L{ClusterPool<txconnpool.routing.clusters.ClusterPool>}, or another L{NodePools}.
        @param pick: called with the pool of a node, a L{FlavouredPool<txconnpool.routing.flavours.FlavouredPool>}.
            Returns its pool of the connections.
        @param pickReader: the same for a replica; C{None}: no replica gets requests on these connections.
        """
        super().__init__(cluster, pick)
        self.cluster = cluster
        self._pickReader = pickReader
        self._reader: ClusterReader | None = None
        self._slots = cluster.slots
        self._slotOf = cluster.slotOf

    @property
    def pools(self) -> tuple[Any, ...]:
        """
        The pool of each primary.
        """
        return tuple(map(self._pick, self.cluster.primaries))

    @property
    def serving(self) -> tuple[Any, ...]:
        """
        The pool of each primary.
        """
        return self.pools

    def choose(self, key: bytes) -> Any:
        """
        @return: the pool of a key.

        @raise ServerUnavailable: no node has its slot.
        """
        pool = self._slots[self._slotOf[key]]
        if pool is None:
            raise self.cluster.unserved
        return self._pick(pool)

    @property
    def reads(self) -> ClusterReader | None:
        """
        The router for requests that read; C{None}: this one.
        """
        if self.cluster.readFrom == "primary":
            return None
        if self._reader is None:
            assert self._pickReader is not None
            self._reader = ClusterReader(self.cluster, self._pick, self._pickReader)
        return self._reader

    def slotOf(self, key: bytes) -> int:
        """
        @return: the slot of a key.
        """
        slot: int = self._slotOf[key]
        return slot

    def divide(self, command: Any, requests: list[bytes], most: int) -> Divided:
        """
        Divide requests by slot, which is all that a node accepts in one request. The shares are grouped by node.
        """
        orders, shares = command.shares(requests, self._slotOf, most)
        byPool: dict[Any, list[int]] = {}
        for number, (slot, _, _) in enumerate(shares):
            byPool.setdefault(self._slots[slot], []).append(number)
        grouped = [number for its in byPool.values() for number in its]
        place = {number: at for at, number in enumerate(grouped)}
        found = [(pool and self._pick(pool), *shares[number][1:]) for pool, its in byPool.items() for number in its]
        return [[place[number] for number in order] for order in orders], found

    def shareOf(self, key: bytes) -> int:
        """
        @return: the same number for keys that one request may have: that of their slot.
        """
        return self.slotOf(key)

    def together(self, keys: Iterable[bytes]) -> bool:
        """
        @return: whether one request may have all keys.
        """
        shares = map(self.shareOf, keys)
        first = next(shares, None)
        return all(share == first for share in shares)

    def redirected(self, redirect: Redirect, key: bytes, server: Server) -> Any:
        """
        A node says that another one has the slot of a key, see
        L{ClusterPool.redirected<txconnpool.routing.clusters.ClusterPool.redirected>}.

        @return: the pool of the other node, or C{None}.

        @raise ServerUnavailable: the redirect is for another slot.
        """
        pool = self.cluster.redirected(redirect, self._slotOf[key], server)
        return pool and self._pick(pool)


class ClusterReader(ClusterRouter):
    """
    The choice by slot for requests that read, which replicas may get.
    """

    def nodes(self, key: bytes) -> Sequence[Any]:
        """
        @return: the pools of the nodes that may read a key, the best first.
        """
        nodes: Sequence[Any] = self.cluster.readers[self._slotOf[key]]
        return nodes

    def choose(self, key: bytes) -> Any:
        """
        @return: the pool of the first node that is up, of those that may read the key.

        @raise ServerUnavailable: there is none.
        """
        primary, nodes = self._slots[self._slotOf[key]], self.nodes(key)
        for node in nodes:
            pool = self._poolOf(node, key)
            if not pool.down:
                return pool
        if primary in nodes and primary is not None:
            return self._pick(primary)  # its error says why it cannot be reached
        raise self.cluster.unreadable if primary is not None else self.cluster.unserved

    def _poolOf(self, node: Any, key: bytes) -> Any:
        """
        @return: of the pool of a node, that of the connections that read a key.
        """
        isPrimary = node is self._slots[self._slotOf[key]]
        return self._pick(node) if isPrimary else self._pickReader(node)  # type: ignore[misc]

    def without(self, name: str) -> ClusterReader:
        """
        @param name: the name of a server that has failed.

        @return: the choice among the other nodes.
        """
        return _OtherReader(self, self._pick, self._pickReader, name)


class _OtherReader(ClusterReader):
    """
    The choice among the nodes that may read a key, without one that has failed.
    """

    def __init__(self, reader: ClusterReader, pick: Any, pickReader: Any, avoided: str) -> None:
        super().__init__(reader.cluster, pick, pickReader)
        self._all = reader
        self._avoided = avoided

    def choose(self, key: bytes) -> Any:
        """
        @return: the pool of another node that is up, or else of any that may read the key.

        @raise ServerUnavailable: there is none.
        """
        pools = (self._poolOf(node, key) for node in self.nodes(key))
        return next((pool for pool in pools if not pool.down), None) or self._all.choose(key)

    def nodes(self, key: bytes) -> Sequence[Any]:
        """
        @return: the pools of the nodes.
        """
        nodes = [node for node in super().nodes(key) if node.servers[0].name != self._avoided]
        return nodes if self.cluster.readFrom != "prefer-replica" else nodes[::-1]  # the primary is the last one


class ReplicatedRouter(ClusterRouter):
    """
    The choice between a master, which has all keys, and its replicas. Slots only divide the reads among these.
    """

    divides = False

    def shareOf(self, key: bytes) -> int:
        """
        @return: the same number for all keys.
        """
        return 0


class ClusterRouters(FlavouredShards):
    """
    The routers of the nodes of a cluster, or of a master and its replicas, whose connections have a state.
    """

    def __init__(
        self,
        cluster: NodePools,
        base: Hashable,
        reading: Callable[[Any], Hashable],
        kind: type[ClusterRouter] = ClusterRouter,
    ) -> None:
        """
        @param base: the flavour of new clients.
        @param reading: called with a flavour. Returns that of connections to replicas.
        @param kind: the class of the routers.
        """
        self._reading = reading
        self._kind = kind
        super().__init__(cluster, base)

    def _router(self, pick: Callable[[Any], Any], flavour: Hashable = None) -> ClusterRouter:
        # Clients read on connections for themselves from primaries only.
        pickReader = None if flavour is None else methodcaller("of", self._reading(flavour))
        return self._kind(self._shards, pick, pickReader)

    def _close(self, flavour: Hashable) -> None:
        super()._close(flavour)
        for pool in self._shards.pools:
            pool.end(self._reading(flavour))
