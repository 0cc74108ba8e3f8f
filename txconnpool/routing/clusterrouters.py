# -*- test-case-name: tests.routing.test_clusters -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The choice among the nodes of a cluster, by the slot of a key.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import methodcaller
from typing import Any

from txconnpool.errors import ServerUnavailable
from txconnpool.pool.decisions.servers import Server
from txconnpool.routing.clusters import ClusterPool
from txconnpool.routing.flavours import FlavouredRouter, FlavouredShards
from txconnpool.wire.topology import Redirect

#: The error for a key that only replicas may read.
UNREADABLE = "upstream unavailable: no replica with the slot of the key is up"


class ClusterRouter(FlavouredRouter):
    """
    The choice by slot among the connections of one kind: those of one flavour, or those that clients have for
    themselves.
    """

    def __init__(
        self, cluster: ClusterPool, pick: Callable[[Any], Any], pickReader: Callable[[Any], Any] | None = None
    ) -> None:
        """
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
        return self._slotOf[key]

    def divide(self, keys: Iterable[bytes]) -> list[tuple[Any, list[bytes]]]:
        """
        Divide keys by slot, which is all that a node accepts in one request.

        @return: for each slot, grouped by node, the pool with its keys in order; C{None} if no node has the slot.
        """
        shares: dict[int, list[bytes]] = {}
        for key in keys:
            shares.setdefault(self._slotOf[key], []).append(key)
        byPool: dict[Any, list[list[bytes]]] = {}
        for slot, share in shares.items():
            byPool.setdefault(self._slots[slot], []).append(share)
        return [(pool and self._pick(pool), share) for pool, its in byPool.items() for share in its]

    def together(self, keys: Iterable[bytes]) -> bool:
        """
        @return: whether all keys have one slot.
        """
        return len({self._slotOf[key] for key in keys}) <= 1

    def redirected(self, redirect: Redirect, key: bytes, server: Server) -> Any:
        """
        A node says that another one has the slot of a key, see L{ClusterPool.redirected}.

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
            pool = self._pick(node) if node is primary else self._pickReader(node)  # type: ignore[misc]
            if not pool.down:
                return pool
        if primary in nodes and primary is not None:
            return self._pick(primary)  # its error says why it cannot be reached
        raise ServerUnavailable(UNREADABLE) if primary is not None else self.cluster.unserved

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
        @return: the pool of another node that is up, or of the same one if no other may read the key.

        @raise ServerUnavailable: there is none.
        """
        return super().choose(key) if self.nodes(key) else self._all.choose(key)

    def nodes(self, key: bytes) -> Sequence[Any]:
        """
        @return: the pools of the nodes.
        """
        nodes = [node for node in super().nodes(key) if node.servers[0].name != self._avoided]
        return nodes if self.cluster.readFrom != "prefer-replica" else nodes[::-1]  # the primary is the last one


class ClusterRouters(FlavouredShards):
    """
    The routers of a cluster whose connections have a state.
    """

    def __init__(self, cluster: ClusterPool, base: Hashable, reading: Callable[[Any], Hashable]) -> None:
        """
        @param base: the flavour of new clients.
        @param reading: called with a flavour. Returns that of connections to replicas.
        """
        self._reading = reading
        super().__init__(cluster, base)

    def _router(self, pick: Callable[[Any], Any], flavour: Hashable = None) -> ClusterRouter:
        # Clients read on connections for themselves from primaries only.
        pickReader = None if flavour is None else methodcaller("of", self._reading(flavour))
        return ClusterRouter(self._shards, pick, pickReader)
