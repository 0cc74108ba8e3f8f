# -*- test-case-name: tests.proxy.test_upstream -*-
# Copyright txconnpool contributors. See LICENSE.
"""
How the servers of one pool of the proxy share its work: equal servers, one for each part of the keys, a master with
replicas, or a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from txconnpool.config.settings import PoolSettings
from txconnpool.net.discovery import REPLICA
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.servers import Server
from txconnpool.proxy.engines import EngineMaker
from txconnpool.proxy.limits import ejection, poolLimits
from txconnpool.routing.cluster.line import ClusterLine
from txconnpool.routing.clusterrouters import ClusterRouters, ReplicatedRouter
from txconnpool.routing.clusters import ClusterPool
from txconnpool.routing.flavours import FlavouredPool, FlavouredShards, SingleFlavours
from txconnpool.routing.maps import Shard
from txconnpool.routing.replicas import ReplicatedPool
from txconnpool.routing.shards import ShardedPool
from txconnpool.routing.single import SinglePool
from txconnpool.wire.topology import Node
from txconnpool.wire.topology import Shard as Topology


class Layout:
    """
    The pools of connections to some servers, and the router that chooses among them.

    @ivar pool: the pool, an L{IPoolControl<txconnpool.interfaces.IPoolControl>}.
    @ivar router: the L{IRouter<txconnpool.interfaces.IRouter>} for sessions.
    @ivar flavours: the L{FlavourUses<txconnpool.routing.uses.FlavourUses>} if connections have a state.
    """

    pool: Any
    router: Any
    flavours: Any = None

    def __init__(self, engines: EngineMaker, remapped: Callable[[], object], lookAgain: Callable[[], object]) -> None:
        """
        @param remapped: called when keys may have got another server.
        @param lookAgain: called when other servers may be found than before.
        """
        self._engines = engines
        self._remapped = remapped
        self._lookAgain = lookAgain
        self._make(engines.settings, poolLimits(engines.settings))

    def _make(self, settings: PoolSettings, limits: Limits) -> None:
        raise NotImplementedError

    def change(self, old: PoolSettings) -> None:
        """
        Put the settings of the L{EngineMaker} in force.

        @param old: those before.
        """
        self._change(self._engines.settings, poolLimits(self._engines.settings), old)

    def _change(self, settings: PoolSettings, limits: Limits, old: PoolSettings) -> None:
        raise NotImplementedError

    @property
    def servers(self) -> Iterable[Server]:
        """
        The servers of all pools. If connections have a state, each server is in the pool of each flavour.
        """
        if self.flavours is None:
            servers: Iterable[Server] = self.pool.servers
            return servers
        return [server for pool in self._flavoured() for engine in pool.pools for server in engine.servers]

    def _flavoured(self) -> Sequence[FlavouredPool]:
        """
        @return: all pools of connections with a state.
        """
        pools: Sequence[FlavouredPool] = self.pool.pools
        return pools

    def known(self, timeout: float) -> Deferred[Any] | None:
        """
        @param timeout: the seconds after which it fires in any case.

        @return: fires when the servers are known; C{None}: they are.
        """
        return None


class EqualServers(Layout):
    """
    Each server can serve each request.
    """

    def _make(self, settings: PoolSettings, limits: Limits) -> None:
        if self._engines.dialect.stateful:
            self.pool = self._engines.flavoured(self._addresses, limits, settings.maxPinned)
            self.flavours = SingleFlavours(self.pool, self._engines.dialect.base, self._engines.dialect.owner)
            self.router = SinglePool(self.pool.base)
        else:
            self.pool = self._engines.engine(self._addresses(), limits)
            self.router = SinglePool(self.pool)

    def _addresses(self) -> Sequence[str]:
        return [server.endpoint for server in self._engines.settings.servers]

    def _flavoured(self) -> Sequence[FlavouredPool]:
        return (self.pool,)

    def _change(self, settings: PoolSettings, limits: Limits, old: PoolSettings) -> None:
        if self.flavours is not None:
            self.pool.setLimits(limits, settings.maxPinned)
        else:
            self.pool.setLimits(limits)
        before, after = [server.endpoint for server in old.servers], self._addresses()
        for endpoint in after:
            if endpoint not in before:
                self.pool.addServer(endpoint)
        for endpoint in before:
            if endpoint not in after:
                self.pool.removeServer(endpoint)


class ServersByKey(Layout):
    """
    Each server has a part of the keys.
    """

    def _make(self, settings: PoolSettings, limits: Limits) -> None:
        distribution = settings.distributionByKey
        assert distribution is not None
        self.pool = self.router = ShardedPool(
            settings.name, self._engines.reactor, self._shard, _shards(settings), distribution, limits,
            ejection(settings),
        )  # fmt: skip
        self.pool.remapped = self._remapped
        if self._engines.dialect.stateful:
            self.flavours = FlavouredShards(self.pool, self._engines.dialect.base, self._engines.dialect.owner)
            self.router = self.flavours.base

    def _shard(self, address: str, limits: Limits, **options: Any) -> Any:
        """
        @return: the pool of one server.
        """
        if self._engines.dialect.stateful:
            return self._engines.flavoured(lambda: [address], limits, self._maxPinned, **options)
        return self._engines.engine([address], limits, **options)

    @property
    def _maxPinned(self) -> int:
        """
        The share of each server in the connections that clients have for themselves.
        """
        settings = self._engines.settings
        return max(1, settings.maxPinned // max(1, len(settings.servers)))

    def _change(self, settings: PoolSettings, limits: Limits, old: PoolSettings) -> None:
        self.pool.change(_shards(settings), settings.distributionByKey, limits, ejection(settings))
        if self.flavours is not None:
            for pool in self._flavoured():
                pool.setLimits(pool.limits, self._maxPinned)


class MasterAndReplicas(Layout):
    """
    Sentinels name a master, which gets writes, and replicas, which may get reads.
    """

    def _make(self, settings: PoolSettings, limits: Limits) -> None:
        dialect = self._engines.dialect
        self.pool = ReplicatedPool(
            settings.name, self._engines.reactor, self._member, limits, settings.maxPinned, settings.readFrom,
            self._lookAgain, dialect.probe,
        )  # fmt: skip
        self.pool.remapped = self._remapped
        self._follow(settings)
        self.flavours = ClusterRouters(self.pool, dialect.base, lambda flavour: flavour, ReplicatedRouter)
        self.router = self.flavours.base

    def _member(self, endpoint: str, limits: Limits, maxPinned: int, **options: Any) -> FlavouredPool:
        """
        @return: the pool of the master or of a replica.
        """
        return self._engines.flavoured(lambda: [endpoint], limits, maxPinned, **options)

    def _follow(self, settings: PoolSettings) -> None:
        """
        Use the servers that the sentinels name.
        """
        replicas = [server.endpoint for server in settings.servers if server.label == REPLICA]
        master = next((server.endpoint for server in settings.servers if server.label != REPLICA), None)
        self.pool.follow(master, replicas)

    def _change(self, settings: PoolSettings, limits: Limits, old: PoolSettings) -> None:
        self.pool.change(limits, settings.maxPinned, settings.readFrom)
        self._follow(settings)


class Cluster(Layout):
    """
    The servers themselves say which of them has which keys.
    """

    def _make(self, settings: PoolSettings, limits: Limits) -> None:
        dialect, line = self._engines.dialect, self._line
        self.pool = ClusterPool(
            settings.name, self._engines.reactor, self._node, self._ask, line.seeds, limits, line.addresses,
            settings.maxPinned, settings.readFrom, lookAgain=self._lookAgain, probe=dialect.probe,
        )  # fmt: skip
        self.pool.patience = settings.requestTimeout
        self.pool.remapped = self._remapped
        self.flavours = ClusterRouters(self.pool, dialect.base, dialect.reading)
        self.router = self.flavours.base

    @property
    def _line(self) -> ClusterLine:
        line = self._engines.settings.cluster
        assert line is not None
        return line

    def _node(self, node: Node, limits: Limits, maxPinned: int, **options: Any) -> FlavouredPool:
        """
        @return: the pool of a node.
        """
        endpoint = self._line.endpoint(node)
        return self._engines.flavoured(lambda: [endpoint], limits, maxPinned, **options)

    def _ask(self, node: Node) -> Deferred[Sequence[Topology]]:
        """
        Ask a node for the cluster, on a connection of its own.
        """
        line = self._line
        return self._engines.ask(line.endpoint(node), self._engines.dialect.topology(line.secure))

    def _change(self, settings: PoolSettings, limits: Limits, old: PoolSettings) -> None:
        line = self._line
        self.pool.change(limits, line.seeds, line.addresses, settings.maxPinned, settings.readFrom)
        self.pool.patience = settings.requestTimeout

    def known(self, timeout: float) -> Deferred[Any]:
        """
        @return: fires when a node has said which of them has which keys, or the time is over.
        """
        known: Deferred[Any] = self.pool.known(timeout)
        return known


def layoutOf(settings: PoolSettings) -> tuple[type[Layout], object]:
    """
    @return: the class for the servers of these settings, and what else a reload cannot change: whether a cluster has
        TLS, or else who checks the logins of clients. If either is another, other connections are needed.
    """
    if settings.cluster is not None:
        return Cluster, settings.cluster.tls
    if settings.readsReplicas:
        return MasterAndReplicas, None
    return (EqualServers if settings.distributionByKey is None else ServersByKey), settings.auth


def _shards(settings: PoolSettings) -> list[Shard]:
    return [Shard(server.endpoint, server.spec()) for server in settings.servers]
