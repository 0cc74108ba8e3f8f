# -*- test-case-name: tests.routing.test_clusters -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The pools of the nodes of a cluster, which report which of them has which keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import PoolError, ServerUnavailable
from txconnpool.interfaces import IPoolControl
from txconnpool.net.reasons import describe
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.servers import Server
from txconnpool.routing.cluster.nodes import NodeView, viewNodes
from txconnpool.routing.cluster.refreshing import Refreshing
from txconnpool.routing.cluster.slotmap import SlotMap, locate, located
from txconnpool.routing.maps import KeyShare
from txconnpool.routing.nodes import NodePools
from txconnpool.wire.topology import SLOTS, Node, Redirect, Shard

_log = Logger("txconnpool.routing")

#: The errors for a key whose slot no node has.
UNKNOWN = "upstream unavailable: no node of the cluster has reported yet where the keys are"
UNCOVERED = "upstream unavailable: no node of the cluster has the slot of the key"

#: The error for a key that only replicas may read.
UNREADABLE = "upstream unavailable: no replica with the slot of the key is up"


class NoSlots(ValueError):
    """
    A node that reports no slots, for example because it was removed from its cluster.
    """


@implementer(IPoolControl)
class ClusterPool(NodePools):
    """
    The pools of the nodes of a cluster. Operators see them as one pool.

    @ivar map: the nodes and their slots, as far as they are known.
    @ivar refreshing: decides when the cluster is asked for its map.
    @ivar redirects: how many redirects there were: to the node of a slot, to one that gets a slot, and to none, because
        the slot cannot be served now.
    @ivar moved: how many slots have got another node because of redirects.
    """

    def __init__(
        self,
        name: str,
        reactor: Any,
        newPool: Callable[..., Any],
        ask: Callable[[Node], Deferred[Sequence[Shard]]],
        seeds: Iterable[Node],
        limits: Limits,
        addresses: Mapping[Node, Node],
        maxPinned: int,
        readFrom: str = "primary",
        refreshing: Callable[[Iterable[Node]], Refreshing] = Refreshing,
        lookAgain: Callable[[], object] = bool,
        probe: Any = None,
    ) -> None:
        """
        @param newPool: see L{NodePools.__init__}, as for C{maxPinned}.
        @param ask: asks a node for the shards of the cluster.
        @param seeds: the nodes that are asked first.
        @param addresses: the addresses at which nodes are reached, if they are not those that the cluster reports.
        @param readFrom: see L{NodePools}.
        @param refreshing: makes a L{Refreshing} from the seeds.
        @param lookAgain: called when neither a node nor a seed answers, because other seeds may be found.
        @param probe: see L{NodePools.__init__}.
        """
        super().__init__(name, reactor, newPool, limits, maxPinned, readFrom, probe)
        self._ask = ask
        self._lookAgain = lookAgain
        self._addresses = addresses
        self.refreshing = refreshing(seeds)
        self.map = SlotMap()
        self.redirects = {"moved": 0, "ask": 0, "later": 0}
        self.moved = 0
        self._asking: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None

    @property
    def cluster(self) -> ClusterPool:
        """
        This pool.
        """
        return self

    # -- The choice of a pool

    @property
    def unserved(self) -> PoolError:
        """
        The error for a key whose slot no node has.
        """
        return ServerUnavailable(UNCOVERED if self.primaries else UNKNOWN)

    @property
    def unreadable(self) -> ServerUnavailable:
        """
        The error for a key that only replicas may read.
        """
        return ServerUnavailable(UNREADABLE)

    def redirected(self, redirect: Redirect, slot: int, server: Server) -> Any:
        """
        A node says that another one has a slot. This is believed only of nodes that the cluster has reported.

        @param slot: the slot of the keys of the request.
        @param server: the server of the node that says so.

        @return: the pool of the other node; C{None}: the cluster is asked, and what it says counts.

        @raise ServerUnavailable: the redirect is for another slot.
        """
        assert redirect.node is not None
        self.redirects["ask" if redirect.once else "moved"] += 1
        if slot != redirect.slot:
            raise ServerUnavailable(
                f"upstream error: {server.name} redirects a request for slot {slot} as one for slot {redirect.slot}"
            )
        node = locate(redirect.node, self._hostOf(server), self._addresses)
        if not redirect.once or node not in self.map.nodes:
            self.wrong()
        if node not in self.map.nodes:
            return None
        if node not in self._byNode:
            self._usePools([*self._byNode, node])
        pool = self._byNode[node]
        if not redirect.once and self.slots[slot] is not pool:
            self.map.move(slot, node)
            self._usePrimaries(self.map.primaries)
            self.slots[slot] = pool
            self.readers[slot] = (pool,)  # until the cluster has reported its replicas
            self.version += 1
            self.moved += 1
        return pool

    def _hostOf(self, server: Server) -> str:
        return next((node.host for node, pool in self._byNode.items() if server.name == pool.servers[0].name), "")

    def postponed(self) -> None:
        """
        A node says that it cannot serve a slot now.
        """
        self.redirects["later"] += 1
        super().postponed()

    # -- The map

    def wrong(self) -> None:
        """
        Something shows that the map is wrong, so that the cluster is asked soon.
        """
        self.refreshing.wrong(self.reactor.seconds())
        self._schedule()

    def _healthChanged(self, server: Server) -> None:
        """
        A dial to a node has succeeded or failed.
        """
        if server.failures:
            self.wrong()

    def _schedule(self) -> None:
        due, timer = self.refreshing.due, self._timer
        if timer is not None and timer.active():
            if due == timer.getTime():
                return
            timer.cancel()
        self._timer = None
        if due < inf:
            self._timer = self.reactor.callLater(max(0.0, due - self.reactor.seconds()), self._refresh)

    def _refresh(self) -> None:
        self._timer = None
        # Nodes that are down are asked only if nobody else answers, as the seeds are.
        known = [node for node in self.map.nodes if node not in self._byNode or not self._byNode[node].down]
        self._question(self.refreshing.ask(self.reactor.seconds(), known))

    def _question(self, node: Node) -> None:
        self._asking = asking = self._ask(node).addCallback(self._learn, node)
        asking.addCallbacks(self._answered, self._failed, errbackArgs=(node,))

    def _learn(self, shards: Sequence[Shard], node: Node) -> None:
        slotMap = SlotMap(located(shards, node.host, self._addresses))
        if not slotMap.primaries:
            raise NoSlots("it knows no node with slots")
        self._useMap(slotMap)

    def _answered(self, _: None) -> None:
        self._asking = None
        if self.refreshing.failures:
            _log.info("{pool}: the cluster reports again where the keys are", pool=self.name)
        isWrong = self.map.covered < SLOTS or any(pool.down for pool in self.primaries)
        self.refreshing.answered(self.reactor.seconds(), isWrong)
        self._schedule()
        self._tried()

    def _failed(self, failure: Failure, node: Node) -> None:
        self._asking = None
        if not self._running:
            return
        if not self.refreshing.failures:
            _log.warn("{pool}: {host}:{port} does not report where the keys of the cluster are: {why}", pool=self.name,
                      host=node.host, port=node.port, why=describe(failure.value))  # fmt: skip
        following = self.refreshing.failed(self.reactor.seconds())
        if following is not None:
            self._question(following)
            return
        self._lookAgain()
        self._schedule()
        self._tried()

    def _useMap(self, slotMap: SlotMap) -> None:
        """
        Use another map.
        """
        replicas = {node for each in slotMap.replicas for node in each}
        self.map = slotMap
        # A node without slots, to which some are being moved, keeps the pool that it has.
        others = [node for node in self._byNode if node in slotMap.nodes and node not in replicas]
        self._use(slotMap.primaries, slotMap.replicas, slotMap.slots, others)

    # -- Which node has which keys

    def eject(self, address: Any) -> None:
        """
        @raise ValueError: always.
        """
        raise ValueError("the cluster decides which node has which keys; the command CLUSTER FAILOVER changes that")

    def keyShares(self) -> list[KeyShare]:
        """
        @return: a share for each of C{servers}.
        """
        counts = Counter(self.slots)
        return [KeyShare(None, "node", counts[pool] / SLOTS) for pool in self.pools]

    def nodes(self) -> dict[str, NodeView]:
        """
        @return: what is known of each node of the cluster, by the name of its server, or by host and port if it has no
            pool.
        """
        names = {node: pool.servers[0].name for node, pool in self._byNode.items()}
        return {names.get(view.node, f"{view.node.host}:{view.node.port}"): view for view in viewNodes(self.map)}

    @property
    def replicas(self) -> Collection[str]:  # type: ignore[override]  # it is constant in other groups
        """
        The names of the servers that are replicas.
        """
        return [name for name, view in self.nodes().items() if view.role == "replica"]

    # -- Changes

    def change(
        self, limits: Limits, seeds: Iterable[Node], addresses: Mapping[Node, Node], maxPinned: int, readFrom: str
    ) -> None:
        """
        Put other settings in force.
        """
        self.limits = limits
        self._maxPinned = maxPinned
        self.refreshing.use(seeds, self.reactor.seconds())
        self._schedule()
        if addresses != self._addresses:
            self._addresses = addresses
            self.wrong()
        self._usePools(self._byNode)
        if readFrom != self.readFrom:
            self.readFrom = readFrom
            self._useMap(self.map)

    # -- Life cycle

    def start(self) -> None:
        """
        Begin to connect.
        """
        super().start()
        self.refreshing.start(self.reactor.seconds())
        self._schedule()

    def known(self, timeout: float) -> Deferred[None]:
        """
        @return: fires when all seeds were asked once, or one has reported where the keys are, or C{timeout} is over.
        """
        isKnown = self.refreshing.count or self.refreshing.failures
        return succeed(None) if isKnown else self._unknown.add(timeout)

    def _end(self) -> Deferred[Any] | None:
        """
        Ask no more.

        @return: the question that is being cancelled, or C{None}.
        """
        super()._end()
        self.refreshing.stop()
        self._schedule()
        self._tried()
        asking = self._asking
        if asking is not None:
            asking.cancel()
        return self._asking
