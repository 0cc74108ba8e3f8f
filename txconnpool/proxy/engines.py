# -*- test-case-name: tests.proxy.test_upstream -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Creates the pools of connections to the servers of one pool of the proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf
from typing import Any
from weakref import WeakSet

from twisted.internet.defer import Deferred

from txconnpool.config.settings import PoolSettings
from txconnpool.net.discovery import REPLICA
from txconnpool.net.endpoints import TLSClientEndpoint
from txconnpool.net.tls import usesTLS
from txconnpool.pool.connection import Connection, ConnectionFactory
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.servers import Server
from txconnpool.pool.engine import PoolEngine
from txconnpool.pool.handshake import Handshake
from txconnpool.pool.slow import SlowLog
from txconnpool.proxy.relayed import RelayFactory
from txconnpool.routing.asking import ask
from txconnpool.routing.flavours import FlavouredPool

#: The seconds for which a server may be silent that sends its keys: it may find many that have expired.
PATIENCE = 60.0


class EngineMaker:
    """
    Creates the L{PoolEngine}s of one pool of the proxy, and keeps the settings of their connections.

    @ivar settings: the settings in force.
    @ivar dialect: the L{IDialect<txconnpool.wire.IDialect>}.
    @ivar handshake: the first requests on new connections; it has the login.
    """

    def __init__(
        self,
        settings: PoolSettings,
        dialect: Any,
        reactor: Any,
        slow: SlowLog,
        servers: Callable[[], Sequence[Server]],
        lookAgain: Callable[[], object],
    ) -> None:
        """
        @param slow: logs slow requests.
        @param servers: returns all servers of the pool of the proxy.
        @param lookAgain: called when another server may have become the master.
        """
        self.dialect = dialect
        self.reactor = reactor
        self.handshake = Handshake(settings.name, dialect)
        self._slow = slow
        self._servers = servers
        self._lookAgain = lookAgain
        self._factories: WeakSet[ConnectionFactory] = WeakSet()
        self._reading: WeakSet[ConnectionFactory] = WeakSet()  # those of connections to replicas of a cluster
        self._endpoints: dict[str, Any] = {}  # those with certificates, by the names of the servers
        self.adjust(settings)

    def adjust(self, settings: PoolSettings) -> None:
        """
        Put other settings in force, also for existing connections.
        """
        self.settings = settings
        self._useRoles()
        for factory in self._factories:
            factory.requestTimeout = self._requestTimeout(factory)
            factory.replyTimeout = settings.replyTimeout or inf

    def _useRoles(self) -> None:
        """
        Let new connections be those to a master, if there are sentinels, unless these name the server as a replica.
        """
        settings = self.settings
        self.handshake.primary = settings.hasSentinels
        self.handshake.replicas = frozenset(
            server.name for server in settings.servers if settings.readsReplicas and server.label == REPLICA
        )

    def _requestTimeout(self, factory: ConnectionFactory) -> float:
        """
        @return: the seconds for which a server may be silent. A replica of a cluster has half of them, if the primary
            then gets the request: a client waits for both.
        """
        timeout = self.settings.requestTimeout
        return timeout / 2 if factory in self._reading and self.settings.readFrom != "replica" else timeout

    # -- Pools

    def engine(self, servers: Sequence[str], limits: Limits, reading: bool = False, **options: Any) -> PoolEngine:
        """
        @param servers: the addresses of servers, which are equal.
        @param reading: whether the connections are for replicas of a cluster.
        @param options: further arguments of the pool.

        @return: a pool of connections to them.
        """
        if self.dialect.opaque:
            pool = self._pool(servers, RelayFactory(self.reactor), limits, **options)
        else:
            factory = self._factory(self.settings.requestTimeout, self._slow, self.settings.replyTimeout or inf)
            self._factories.add(factory)
            if reading:
                self._reading.add(factory)
                factory.requestTimeout = self._requestTimeout(factory)
            options.setdefault("handshake", self.handshake)
            pool = self._pool(servers, factory, limits, check=self._probe, lookAgain=self._lookAgain, **options)
        self._useEndpoints(pool.servers)
        return pool

    def flavoured(
        self, servers: Callable[[], Sequence[str]], limits: Limits, maxPinned: int, **options: Any
    ) -> FlavouredPool:
        """
        @param servers: returns the addresses of the servers of this moment, which are equal.
        @param maxPinned: the maximum number of connections that clients have for themselves.
        @param options: further arguments of the pool.

        @return: the pools of the servers, one for each flavour of connections.
        """

        def newPool(flavour: Any, limits: Limits, **options: Any) -> PoolEngine:
            handshake = self.handshake if flavour is None else self.handshake.flavoured(flavour)
            inCluster = flavour is not None and self.settings.cluster is not None
            reading = inCluster and flavour == self.dialect.reading(flavour)
            return self.engine(servers(), limits, reading, handshake=handshake, **options)

        return FlavouredPool(self.settings.name, self.reactor, newPool, limits, self.dialect.base, maxPinned, **options)

    def _factory(self, *arguments: Any) -> ConnectionFactory:
        factory = ConnectionFactory(self.dialect, self.reactor, *arguments)
        factory.everyServer = self._servers
        return factory

    def _pool(self, servers: Sequence[str], factory: Any, limits: Limits, **options: Any) -> PoolEngine:
        settings = self.settings
        return PoolEngine(
            servers, factory, limits, self.reactor, name=settings.name, connectTimeout=settings.connectTimeout,
            **options,
        )  # fmt: skip

    def _probe(self, connection: Connection) -> Deferred[bytes]:
        return connection.probe(*self.dialect.probe)

    # -- Pools of one connection

    @property
    def _single(self) -> Limits:
        return Limits(maximum=1, waitTimeout=2 * self.settings.connectTimeout, whenDown=1)

    def ask(self, address: str, exchanges: Any) -> Deferred[Any]:
        """
        Ask a server something on a connection of its own.

        @param exchanges: see L{ask<txconnpool.routing.asking.ask>}.
        """
        return Deferred.fromCoroutine(ask(self.engine([address], self._single), exchanges))

    def separate(self) -> list[Callable[[], PoolEngine]]:
        """
        @return: for each server that is not drained, a function that creates a pool of one connection to it.
        """
        return [partial(self._connect, server) for server in self._servers() if not server.drained]

    def _connect(self, server: Server) -> PoolEngine:
        """
        @return: a pool of one connection to a server. It counts as traffic of the server.
        """
        factory = self._factory(max(PATIENCE, self.settings.requestTimeout))
        pool = self._pool([server.address], factory, self._single, handshake=self.handshake)
        pool.servers[0].name, pool.servers[0].traffic = server.name, server.traffic
        return pool

    # -- Certificates

    def readCertificates(self, settings: PoolSettings) -> dict[str, Any]:
        """
        Read the keys and certificates for the servers of some settings.

        @return: the endpoints that use them, by the names of the servers, for L{useCertificates}.

        @raise ValueError: they cannot be read.
        """
        endpoints = {
            each.name: TLSClientEndpoint(self.reactor, each.endpoint)
            for each in settings.servers
            if usesTLS(each.endpoint)
        }
        for endpoint in endpoints.values():
            endpoint.read()
        return endpoints

    def useCertificates(self, endpoints: dict[str, Any], servers: Iterable[Server]) -> None:
        """
        Use the result of L{readCertificates} for the connections that are made from now on.

        @param servers: the servers of all pools that exist.
        """
        self._endpoints = endpoints
        self._useEndpoints(servers)

    def _useEndpoints(self, servers: Iterable[Server]) -> None:
        for server in servers:
            server.address = self._endpoints.get(server.name, server.address)
