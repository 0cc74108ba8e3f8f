# -*- test-case-name: tests.operate.test_service -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The servers of one pool of the proxy: its connections, and the router that chooses among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any
from weakref import WeakSet

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from txconnpool.config.changes import serversChanged
from txconnpool.config.settings import ConfigError, PoolSettings
from txconnpool.net.discovery import REPLICA
from txconnpool.net.endpoints import TLSClientEndpoint
from txconnpool.net.tls import usesTLS
from txconnpool.pool.connection import Connection, ConnectionFactory
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.servers import Server
from txconnpool.pool.engine import PoolEngine
from txconnpool.pool.handshake import Handshake
from txconnpool.pool.slow import SlowLog
from txconnpool.proxy.finding import Finder
from txconnpool.proxy.limits import ejection, poolLimits
from txconnpool.proxy.relayed import RelayFactory
from txconnpool.proxy.separate import SeparateConnections
from txconnpool.routing.asking import ask
from txconnpool.routing.cluster.line import ClusterLine
from txconnpool.routing.clusterrouters import ClusterRouters, ReplicatedRouter
from txconnpool.routing.clusters import ClusterPool
from txconnpool.routing.flavours import FlavouredPool, FlavouredShards
from txconnpool.routing.maps import Shard
from txconnpool.routing.replicas import ReplicatedPool
from txconnpool.routing.shards import ShardedPool
from txconnpool.routing.single import SinglePool
from txconnpool.routing.standin import StandIn
from txconnpool.wire.topology import Node
from txconnpool.wire.topology import Shard as Topology

_log = Logger("txconnpool.routing")

#: The seconds for which a server may be silent that sends its keys: it may find many that have expired.
PATIENCE = 60.0


class Upstream:
    """
    The servers of a pool: interchangeable ones in a L{PoolEngine}, or a L{ShardedPool} if each has a part of the keys.

    @ivar settings: the settings in force, with the servers that were found.
    @ivar finder: finds the servers that are looked up.
    @ivar handshake: the first requests on new connections; it has the login.
    @ivar pool: the pool, an L{IPoolControl<txconnpool.interfaces.IPoolControl>}.
    @ivar router: the L{IRouter<txconnpool.interfaces.IRouter>} for sessions.
    @ivar separate: makes connections for single requests, besides those of the pool.
    @ivar flavours: if connections have a state: C{of(flavour)} returns the pool or the router of a flavour, and
        C{leases} is that of the connections that clients have for themselves.
    @ivar remapped: called when keys may have got another server, if it is not C{None}.
    """

    pool: Any
    router: Any
    flavours: Any = None
    remapped: Callable[[], object] | None = None

    def __init__(self, settings: PoolSettings, dialect: Any, reactor: Any, slow: SlowLog) -> None:
        """
        @param dialect: the L{IDialect<txconnpool.wire.IDialect>}.
        @param slow: logs slow requests.
        """
        self.settings = settings
        self.handshake = Handshake(settings.name, dialect)
        self._dialect = dialect
        self._reactor = reactor
        self._slow = slow
        self._factories: WeakSet[ConnectionFactory] = WeakSet()
        self._reading: WeakSet[ConnectionFactory] = WeakSet()  # those of connections to replicas
        self._endpoints: dict[str, Any] = {}
        self._replaced: set[Any] = set()
        self.separate = SeparateConnections(self._separate)
        self.finder = Finder(reactor, self._found)
        self.finder.use(settings)
        self._make()

    def _make(self) -> None:
        settings = self.settings
        distribution, cluster = settings.distributionByKey, settings.cluster
        limits = poolLimits(settings)
        self._useRoles()
        if self._dialect.stateful:
            self._dialect.cluster(cluster is not None)
            self._dialect.begin(settings.database)
        if cluster is not None:
            self.pool = ClusterPool(
                settings.name, self._reactor, self._node, self._askNode, cluster.seeds, limits, cluster.addresses,
                settings.maxPinned, settings.readFrom, lookAgain=self.finder.hurry, probe=self._dialect.probe,
            )  # fmt: skip
            self.pool.patience = settings.requestTimeout
            self.pool.remapped = self._remapped
            self.flavours = ClusterRouters(self.pool, self._dialect.base, self._dialect.reading)
            self.router = self.flavours.base
        elif settings.readsReplicas:
            self.pool = ReplicatedPool(
                settings.name, self._reactor, self._replica, limits, settings.maxPinned, settings.readFrom,
                self._lookAgain, self._dialect.probe,
            )  # fmt: skip
            self.pool.remapped = self._remapped
            self._follow()
            self.flavours = ClusterRouters(self.pool, self._dialect.base, lambda flavour: flavour, ReplicatedRouter)
            self.router = self.flavours.base
        elif distribution is None:
            if self._dialect.stateful:
                self.pool = self.flavours = self._flavoured(
                    lambda: [server.endpoint for server in self.settings.servers], limits, settings.maxPinned
                )
                self.router = SinglePool(self.pool.base)
            else:
                self.pool = self._engine([server.endpoint for server in settings.servers], limits)
                self.router = SinglePool(self.pool)
        else:
            self.pool = self.router = ShardedPool(
                settings.name, self._reactor, self._shard, _shards(settings), distribution, limits, ejection(settings)
            )
            self.pool.remapped = self._remapped
            if self._dialect.stateful:
                self.flavours = FlavouredShards(self.pool, self._dialect.base)
                self.router = self.flavours.base

    def _shard(self, address: str, limits: Limits, **options: Any) -> Any:
        """
        @return: the pool of one of several servers by key.
        """
        if self._dialect.stateful:
            return self._flavoured(lambda: [address], limits, self._pinnedOfShard, **options)
        return self._addressed(self._engine([address], limits, **options))

    @property
    def _pinnedOfShard(self) -> int:
        """
        The share of each server in the connections that clients have for themselves.
        """
        return max(1, self.settings.maxPinned // max(1, len(self.settings.servers)))

    def _remapped(self) -> None:
        if self.remapped is not None:
            self.remapped()

    # -- A master and its replicas

    def _useRoles(self) -> None:
        """
        Let new connections be those to a master, if there are sentinels, unless these name the server as a replica.
        """
        self.handshake.primary = self.settings.hasSentinels
        isGroup = self.settings.readsReplicas
        self.handshake.replicas = frozenset(
            server.name for server in self.settings.servers if isGroup and server.label == REPLICA
        )

    def _follow(self) -> None:
        """
        Use the servers that sentinels name.
        """
        replicas = [server.endpoint for server in self.settings.servers if server.label == REPLICA]
        master = next((server.endpoint for server in self.settings.servers if server.label != REPLICA), None)
        self.pool.follow(master, replicas)

    def _replica(self, endpoint: str, limits: Limits, maxPinned: int, **options: Any) -> FlavouredPool:
        """
        @return: the pool of a master or of a replica.
        """
        return self._flavoured(lambda: [endpoint], limits, maxPinned, **options)

    # -- A cluster

    def _node(self, node: Node, limits: Limits, maxPinned: int, **options: Any) -> FlavouredPool:
        """
        @return: the pool of a node.
        """
        endpoint = self._clusterLine.endpoint(node)
        return self._flavoured(lambda: [endpoint], limits, maxPinned, **options)

    def _askNode(self, node: Node) -> Deferred[Sequence[Topology]]:
        """
        Ask a node for the cluster, on a connection of its own.
        """
        line = self._clusterLine
        pool = self._engine([line.endpoint(node)], self._single)
        return Deferred.fromCoroutine(ask(pool, self._dialect.topology(line.secure)))

    @property
    def _single(self) -> Limits:
        """
        The limits of a pool of one connection, for one request.
        """
        return Limits(maximum=1, waitTimeout=2 * self.settings.connectTimeout, whenDown=1)

    @property
    def _clusterLine(self) -> ClusterLine:
        line = self.settings.cluster
        assert line is not None
        return line

    # -- The pools

    def _flavoured(
        self, servers: Callable[[], Sequence[str]], limits: Limits, maxPinned: int, **options: Any
    ) -> FlavouredPool:
        """
        @param servers: returns the addresses of the servers of this moment, which are equal.

        @return: the pools of the servers, one for each flavour of connections.
        """

        def newPool(flavour: Any, limits: Limits, **options: Any) -> PoolEngine:
            handshake = self.handshake if flavour is None else self.handshake.flavoured(flavour)
            inCluster = flavour is not None and self.settings.cluster is not None
            reading = inCluster and flavour == self._dialect.reading(flavour)
            return self._addressed(self._engine(servers(), limits, reading, handshake=handshake, **options))

        return FlavouredPool(
            self.settings.name, self._reactor, newPool, limits, self._dialect.base, maxPinned, **options
        )

    def _addressed(self, pool: PoolEngine) -> PoolEngine:
        for server in pool.servers:
            server.address = self._endpoints.get(server.name, server.address)
        return pool

    def _engine(self, servers: Sequence[str], limits: Limits, reading: bool = False, **options: Any) -> PoolEngine:
        """
        @param reading: whether the connections are for replicas.
        """
        settings = self.settings
        if self._dialect.opaque:
            return PoolEngine(
                servers, RelayFactory(self._reactor), limits, self._reactor, name=settings.name,
                connectTimeout=settings.connectTimeout, **options,
            )  # fmt: skip
        options.setdefault("handshake", self.handshake)
        factory = ConnectionFactory(
            self._dialect, self._reactor, settings.requestTimeout, self._slow, settings.replyTimeout or inf
        )
        factory.everyServer = lambda: self.pool.servers
        self._factories.add(factory)
        if reading:
            self._reading.add(factory)
            factory.requestTimeout = self._requestTimeout(factory)
        return PoolEngine(
            servers, factory, limits, self._reactor, name=settings.name, connectTimeout=settings.connectTimeout,
            check=self._probe, lookAgain=self._lookAgain, **options,
        )  # fmt: skip

    def _requestTimeout(self, factory: ConnectionFactory) -> float:
        """
        @return: the seconds for which a server may be silent. A replica of a cluster has half of them, if the primary
            then gets the request: a client waits for both.
        """
        timeout = self.settings.requestTimeout
        return timeout / 2 if factory in self._reading and self.settings.readFrom != "replica" else timeout

    def _separate(self) -> list[Callable[[], PoolEngine]]:
        """
        @return: for each server that is not drained, a function that creates a pool of one connection to it.
        """
        return [partial(self._connect, server) for server in self.pool.servers if not server.drained]

    def _connect(self, server: Server) -> PoolEngine:
        """
        @return: a pool of one connection to a server. It counts as traffic of the server.
        """
        factory = ConnectionFactory(self._dialect, self._reactor, max(PATIENCE, self.settings.requestTimeout))
        factory.everyServer = lambda: self.pool.servers
        pool = PoolEngine(
            [server.address], factory, self._single, self._reactor, name=self.settings.name,
            connectTimeout=self.settings.connectTimeout, handshake=self.handshake,
        )  # fmt: skip
        pool.servers[0].name, pool.servers[0].traffic = server.name, server.traffic
        return pool

    def _lookAgain(self) -> None:
        """
        Look for the master, if there are sentinels: another server may have become it. Other sources need not be asked.
        """
        if self.settings.hasSentinels:
            self.finder.hurry()

    def _probe(self, connection: Connection) -> Deferred[bytes]:
        return connection.probe(*self._dialect.probe)

    # -- Changes

    def readCertificates(self, settings: PoolSettings) -> dict[str, Any]:
        """
        Read the keys and certificates for the servers of some settings.

        @return: the endpoints that use them, by the names of the servers, for L{useCertificates}.

        @raise ValueError: they cannot be read.
        """
        endpoints = {
            each.name: TLSClientEndpoint(self._reactor, each.endpoint)
            for each in settings.servers
            if usesTLS(each.endpoint)
        }
        for endpoint in endpoints.values():
            endpoint.read()
        return endpoints

    def useCertificates(self, endpoints: dict[str, Any]) -> None:
        """
        Use the result of L{readCertificates} for the connections that are made from now on.
        """
        self._endpoints = endpoints
        if self._dialect.stateful:
            for pool in self._flavouredPools:
                pool.useAddresses(endpoints)
            return
        for server in self.pool.servers:
            server.address = endpoints.get(server.name, server.address)

    @property
    def _flavouredPools(self) -> Sequence[FlavouredPool]:
        """
        The pools of connections with a state: one for all equal servers, or one for each of several by key.
        """
        return (self.pool,) if isinstance(self.pool, FlavouredPool) else self.pool.pools

    def adjust(self, settings: PoolSettings) -> bool:
        """
        Put other settings in force, also for existing connections.

        @return: whether there is another pool and another router now, because keys are distributed and were not before,
            or the other way round. Call L{closeReplaced} when no client uses the old ones any more.
        """
        self.finder.use(settings)
        try:
            settings = self.finder.apply(settings)
        except ConfigError as error:
            self._logUnusable(error)
            settings = replace(settings, found=self.settings.found)
        return self._adjust(settings)

    def _found(self) -> None:
        """
        Other servers were found: do what a reload does with other servers.
        """
        old = self.settings
        try:
            settings = self.finder.apply(old)
        except ConfigError as error:
            self._logUnusable(error)
            return
        lines = list(serversChanged(old, settings))
        self._adjust(settings)
        for line in lines:
            _log.info("pool {pool}: {line}", pool=settings.name, line=line)

    def _logUnusable(self, error: ConfigError) -> None:
        for fault in error.faults:
            _log.error("{pool}: the servers that were found cannot be used: {why}", pool=self.settings.name,
                       why=fault.text)  # fmt: skip

    def _adjust(self, settings: PoolSettings) -> bool:
        old, self.settings = self.settings, settings
        self._useRoles()
        for factory in self._factories:
            factory.requestTimeout = self._requestTimeout(factory)
            factory.replyTimeout = settings.replyTimeout or inf
        distribution, cluster = settings.distributionByKey, settings.cluster
        other = (distribution is None) is not (old.distributionByKey is None) or _isOther(old.cluster, cluster)
        other = other or old.readsReplicas is not settings.readsReplicas
        if other:
            self._replace()
        elif cluster is not None:
            self.pool.change(
                poolLimits(settings), cluster.seeds, cluster.addresses, settings.maxPinned, settings.readFrom
            )
            self.pool.patience = settings.requestTimeout
        elif settings.readsReplicas:
            self.pool.change(poolLimits(settings), settings.maxPinned, settings.readFrom)
            self._follow()
        elif distribution is None:
            self._change(old)
        else:
            self.pool.change(_shards(settings), distribution, poolLimits(settings), ejection(settings))
            if self._dialect.stateful:
                for pool in self._flavouredPools:
                    pool.setLimits(pool.limits, self._pinnedOfShard)
        self._dialect.keep(server.name for server in self.pool.servers)
        self.pool.setConnectTimeout(settings.connectTimeout)
        for connection in self.pool.connections:
            connection.retime()
        return other

    def _replace(self) -> None:
        replaced, paused = self.pool, self.pool.paused
        self._make()
        self.useCertificates(self._endpoints)
        self.pool.start()
        self._replaced.add(replaced)
        if paused:
            self.pool.pause()
            # Nobody can end the pause of the old pool any more, so its waiters are refused.
            self._closeReplaced(replaced)

    def closeReplaced(self) -> None:
        """
        Close the pools that L{adjust} has replaced, because no client uses them any more.
        """
        for pool in list(self._replaced):
            self._closeReplaced(pool)

    def _closeReplaced(self, pool: Any) -> None:
        pool.close().addCallback(lambda _: self._replaced.discard(pool))

    def _change(self, old: PoolSettings) -> None:
        before, after = ([server.endpoint for server in each.servers] for each in (old, self.settings))
        if isinstance(self.pool, FlavouredPool):
            self.pool.setLimits(poolLimits(self.settings), self.settings.maxPinned)
        else:
            self.pool.setLimits(poolLimits(self.settings))
        for endpoint in after:
            if endpoint not in before:
                self.pool.addServer(endpoint)
        for endpoint in before:
            if endpoint not in after:
                self.pool.removeServer(endpoint)

    def reconnect(self) -> Deferred[list[str]]:
        """
        Look up the servers again, then replace all connections one after another, each when its successor is
        established. The names of servers are looked up for each new connection.

        @return: fires when the connections are being replaced, with a line for each source of servers that could not be
            looked up.
        """

        def replaceAll(problems: list[str]) -> list[str]:
            self.pool.expire()
            return problems

        return self.finder.lookUp().addCallback(replaceAll)

    # -- Which server has which keys

    def eject(self, server: str) -> None:
        """
        Give the keys of a server to others, see L{ShardedPool.eject}.

        @raise ValueError: this is not possible.
        """
        if not self.router.keyed:
            raise ValueError("keys are not distributed among its servers; `drain` takes one out of service")
        self.pool.eject(server)

    @property
    def ejected(self) -> frozenset[str]:
        """
        The names of the servers whose keys others have at the moment.
        """
        names: frozenset[str] = self.pool.ejected if self.router.keyed else frozenset()
        return names

    def keyShares(self) -> dict[str, tuple[str, str, str]]:
        """
        @return: for the name of each server, if keys are distributed: weight, label and share of the keys, as texts.
            The label of a server that sentinels name is its role.
        """
        if self.settings.hasSentinels:
            return {
                server.name: ("-", REPLICA if server.name in self.handshake.replicas else "master", "-")
                for server in self.pool.servers
            }
        if not self.router.keyed:
            return {}
        return {
            server.name: ("-" if of.weight is None else f"{of.weight:g}", of.label, f"{of.share:.1%}")
            for server, of in zip(self.pool.servers, self.pool.keyShares(), strict=True)
        }

    def standIn(self, other: Upstream | None) -> None:
        """
        Let the servers of another pool get the keys of servers that are down.

        @param other: the other pool, or C{None}.
        """
        if self.router.keyed:
            self._dialect.standIn(other is not None)
            old = self.router.standIn
            self.router.standIn = new = None if other is None else StandIn(other, self.settings.failoverExpire)
            if new is not None and old is not None:
                new.count = old.count

    # -- The start and the end

    def start(self) -> Deferred[None]:
        """
        Connect to the servers, and look up those that are to be found.

        @return: fires when the first lookups have ended, or C{connect-timeout} is over.
        """
        self.pool.start()
        timeout = self.settings.connectTimeout
        found = self.finder.start(timeout)
        if self.settings.cluster is None:
            return found
        return DeferredList([found, self.pool.known(timeout)]).addCallback(lambda _: None)

    def close(self, timeout: float) -> Deferred[None]:
        """
        Close all connections.

        @param timeout: seconds until those with requests in flight are closed too.

        @return: fires when no connection, dial or timer is left.
        """
        closing = [pool.close(timeout) for pool in (self.pool, *self._replaced)]
        return DeferredList([*closing, self.separate.close()]).addCallback(lambda _: None)

    def abort(self) -> None:
        """
        Close all connections at once.
        """
        for pool in (self.pool, *self._replaced):
            pool.abort()


def _isOther(old: ClusterLine | None, new: ClusterLine | None) -> bool:
    """
    @return: whether other connections are needed.
    """
    if old is None or new is None:
        return old is not new
    return old.tls != new.tls


def _shards(settings: PoolSettings) -> list[Shard]:
    return [Shard(server.endpoint, server.spec()) for server in settings.servers]
