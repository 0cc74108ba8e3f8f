# -*- test-case-name: tests.routing.test_clusters -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The pools of primaries and of their replicas, which may read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from txconnpool.errors import PoolError
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.servers import Server
from txconnpool.routing.cluster.slots import slotCache
from txconnpool.routing.distribution.keymap import CACHED_KEYS
from txconnpool.routing.group import PoolGroup
from txconnpool.routing.measuring import Measuring
from txconnpool.routing.waits import Waits
from txconnpool.wire.topology import SLOTS


class NodePools(PoolGroup):
    """
    The pools of the nodes that have the keys. Each slot of keys belongs to one primary, and its replicas may read it.

    @ivar slots: the pool of the node that has each slot, or C{None}. The list itself never changes.
    @ivar readers: the pools of the nodes that may read the keys of each slot, the best first, unless only primaries
        read. The list itself never changes.
    @ivar readFrom: which nodes get requests that read: C{"primary"}; C{"prefer-replica"}: replicas, or the primary if
        none is up; C{"replica"}: only replicas; C{"nearest"}: those with the shortest reply times, see L{Measuring}.
    @ivar slotOf: the slots of keys.
    @ivar version: another number whenever a slot has another pool.
    @ivar primaries: the pools of the nodes that have slots, in the order of their first slots.
    @ivar remapped: called when there are other primaries, if it is not C{None}.
    @ivar patience: how many seconds after a node has first declined it a request may still be sent again.
    """

    remapped: Callable[[], object] | None = None

    def __init__(
        self,
        name: str,
        reactor: Any,
        newPool: Callable[..., Any],
        limits: Limits,
        maxPinned: int,
        readFrom: str,
        probe: Any = None,
    ) -> None:
        """
        @param newPool: called with a node, its limits, its share of C{maxPinned}, and the keywords C{shared} and
            C{healthChanged}, see L{txconnpool.pool.executor.Executor}. Returns its pool, a
            L{FlavouredPool<txconnpool.routing.flavours.FlavouredPool>}.
        @param maxPinned: the greatest number of connections that clients have for themselves. Each node gets a share,
            at least one.
        @param probe: the command and the bytes of a request that measures how near a node is.
        """
        super().__init__(name, reactor, limits)
        self._newPool = newPool
        self._maxPinned = maxPinned
        self.slots: list[Any] = [None] * SLOTS
        self.readers: list[tuple[Any, ...]] = [()] * SLOTS
        self.readFrom = readFrom
        self._measuring = Measuring(reactor, probe, self._connectionsOf, self._useReaders)
        self._replicas: Sequence[Sequence[Hashable]] = ()  # those of each primary
        self._owners: Sequence[int] = ()  # the number of the primary of each slot
        self.slotOf = slotCache(CACHED_KEYS)
        self.version = 0
        self.primaries: tuple[Any, ...] = ()
        self.patience = 0.0
        self._byNode: dict[Any, Any] = {}
        self._unknown = Waits(reactor)  # for the nodes

    # -- The choice of a pool

    @property
    def unserved(self) -> PoolError:
        """
        The error for a key whose slot no node has.
        """
        raise NotImplementedError

    @property
    def unreadable(self) -> PoolError:
        """
        The error for a key that only replicas may read, if none of these is up.
        """
        raise NotImplementedError

    def anyOf(self) -> Any:
        """
        @return: the pool of a primary that is up, or of the first one if all are down.

        @raise ServerUnavailable: none is known.
        """
        if not self.primaries:
            raise self.unserved
        return next((pool for pool in self.primaries if pool.servers[0].state == "up"), self.primaries[0])

    def wrong(self) -> None:
        """
        Something shows that the nodes may be others now, so that they are asked for soon.
        """
        raise NotImplementedError

    def postponed(self) -> None:
        """
        A node says that it cannot serve a slot now.
        """
        self.wrong()

    # -- The nodes

    def _use(
        self,
        primaries: Sequence[Hashable],
        replicas: Sequence[Sequence[Hashable]],
        owners: Sequence[int],
        others: Iterable[Hashable] = (),
    ) -> None:
        """
        Use these nodes from now on. The arguments may be changed later.

        @param replicas: the replicas of each primary.
        @param owners: the number of the primary of each slot; -1: none has it.
        @param others: further nodes that have a pool.
        """
        before, reads = set(self.primaries), self.readFrom != "primary"
        leaving = self._usePools(
            [*primaries, *others, *(dict.fromkeys(node for each in replicas for node in each) if reads else ())]
        )
        self._usePrimaries(primaries)
        slots = [None if index < 0 else self.primaries[index] for index in owners]
        if slots != self.slots:
            self.slots[:] = slots
            self.version += 1
        self._replicas, self._owners = replicas, owners
        self._useReaders()
        # Last, because clients that wait for one of them look at once which pool has their key now.
        for pool in leaving:
            self._remove(pool)
        if self.remapped is not None and set(self.primaries) != before:
            self.remapped()

    def _connectionsOf(self, pool: Any) -> Any:
        """
        @return: the connections of the pool of a node that measure how near it is.
        """
        return pool.base

    def _useReaders(self) -> None:
        """
        Let the slots of a primary be read from its replicas in turn. All reads of a key are from the same one, so that
        a client does not see an older value than before. Of nodes that are near, the primary has its turn too.
        """
        if self.readFrom != "nearest":
            self._measuring.stop()
        if self.readFrom == "primary":
            return
        turns: list[list[tuple[Any, ...]]] = []
        for primary, nodes in zip(self.primaries, self._replicas, strict=True):
            pools = [self._byNode[node] for node in nodes]
            last = () if self.readFrom == "replica" else (primary,)
            turns.append([(*pools[at:], *pools[:at], *last) for at in range(len(pools))] or [last])
        if self.readFrom == "nearest":
            turns = self._measuring.use([first for first, *_ in turns])
        self.readers[:] = [
            () if index < 0 else turns[index][slot % len(turns[index])] for slot, index in enumerate(self._owners)
        ]

    def _usePools(self, nodes: Iterable[Hashable]) -> list[Any]:
        """
        Have a pool for each of some nodes, and for no others.

        @return: the pools of other nodes, which are still to be removed.
        """
        old = self._byNode
        wanted = list(dict.fromkeys(nodes))
        self._byNode = {}
        pinned = max(1, self._maxPinned // max(1, len(wanted)))
        for node, own in zip(wanted, self._divided(len(wanted)), strict=True):
            pool = old.get(node)
            if pool is None:
                pool = self._newPool(node, own, pinned, shared=self._shared, healthChanged=self._healthChanged)
                self._join(pool)
            else:
                self._limit(pool, own, pinned)
            self._byNode[node] = pool
        self.pools = tuple(self._byNode.values())
        return [pool for node, pool in old.items() if node not in self._byNode]

    def _limit(self, pool: Any, limits: Limits, maxPinned: int) -> None:
        """
        Apply the limits of this moment to the pool of a node.
        """
        if (limits, maxPinned) != (pool.limits, pool.leases.limits.maximum):
            pool.setLimits(limits, maxPinned)

    def _usePrimaries(self, nodes: Iterable[Hashable]) -> None:
        self.primaries = tuple(self._byNode[node] for node in nodes)

    def _healthChanged(self, server: Server) -> None:
        """
        A dial to a node has succeeded or failed.
        """

    # -- Changes

    def setLimits(self, limits: Limits) -> None:
        """
        Apply other limits, to existing connections and waiters too.
        """
        self.limits = limits
        self._usePools(self._byNode)

    def restore(self, address: Any) -> None:
        """
        Put a drained server back into service.

        @raise ValueError: there is no such server.
        """
        self._poolOf(address).restore(address)

    @property
    def ejected(self) -> frozenset[str]:
        """
        The names of the servers whose keys others have: none, because nodes decide that themselves.
        """
        return frozenset()

    # -- Life cycle

    def close(self, timeout: float | None = None) -> Deferred[None]:
        """
        Close all pools.

        @return: fires when no connection, dial or timer is left.
        """
        asking = self._end()
        closed = super().close(timeout)
        return closed if asking is None else DeferredList([closed, asking]).addCallback(lambda _: None)

    def abort(self) -> None:
        """
        Close all connections at once.
        """
        self._end()
        super().abort()

    def _end(self) -> Deferred[Any] | None:
        """
        Ask for the nodes no more.

        @return: the question that is being cancelled, or C{None}.
        """
        self._stop()
        self._measuring.stop()
        return None

    def _tried(self) -> None:
        """
        An attempt to find the nodes has ended.
        """
        for waiting in self._unknown:
            waiting.callback(None)
