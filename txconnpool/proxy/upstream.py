# -*- test-case-name: tests.operate.test_service -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The servers of one pool of the proxy: its connections, and the router that chooses among them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from txconnpool.config.changes import serversChanged
from txconnpool.config.settings import ConfigError, PoolSettings
from txconnpool.net.discovery import REPLICA
from txconnpool.pool.slow import SlowLog
from txconnpool.proxy.engines import EngineMaker
from txconnpool.proxy.finding import Finder
from txconnpool.proxy.layouts import layoutOf
from txconnpool.proxy.separate import SeparateConnections
from txconnpool.routing.standin import StandIn

_log = Logger("txconnpool.routing")


class Upstream:
    """
    The servers of a pool, and the connections to them in a L{Layout<txconnpool.proxy.layouts.Layout>}.

    @ivar settings: the settings in force, with the servers that were found.
    @ivar finder: finds the servers that are looked up.
    @ivar handshake: the first requests on new connections; it has the login.
    @ivar pool: the pool, an L{IPoolControl<txconnpool.interfaces.IPoolControl>}.
    @ivar router: the L{IRouter<txconnpool.interfaces.IRouter>} for sessions.
    @ivar separate: makes connections for single requests, besides those of the pool.
    @ivar flavours: the L{FlavourUses<txconnpool.routing.uses.FlavourUses>} if connections have a state.
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
        self._dialect = dialect
        self._engines = EngineMaker(settings, dialect, reactor, slow, lambda: self.pool.servers, self._lookAgain)
        self.handshake = self._engines.handshake
        self._replaced: set[Any] = set()
        self.separate = SeparateConnections(self._engines.separate)
        self.finder = Finder(reactor, self._found)
        self.finder.use(settings)
        self._make()

    def _make(self) -> None:
        settings = self.settings
        if self._dialect.stateful:
            self._dialect.cluster(settings.cluster is not None)
            self._dialect.begin(settings.database)
            self._dialect.passLogins(settings.auth == "pass")
        kind, _ = layoutOf(settings)
        self._layout = layout = kind(self._engines, self._remapped, self.finder.hurry)
        self.pool, self.router, self.flavours = layout.pool, layout.router, layout.flavours

    def _remapped(self) -> None:
        if self.remapped is not None:
            self.remapped()

    def _lookAgain(self) -> None:
        """
        Look for the master, if there are sentinels: another server may have become it. Other sources need not be asked.
        """
        if self.settings.hasSentinels:
            self.finder.hurry()

    # -- Changes

    def readCertificates(self, settings: PoolSettings) -> dict[str, Any]:
        """
        Read the keys and certificates for the servers, see L{EngineMaker.readCertificates}.
        """
        return self._engines.readCertificates(settings)

    def useCertificates(self, endpoints: dict[str, Any]) -> None:
        """
        Use the result of L{readCertificates} for the connections that are made from now on.
        """
        self._engines.useCertificates(endpoints, self._layout.servers)

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
        self._engines.adjust(settings)
        other = layoutOf(settings) != layoutOf(old)
        if other:
            self._replace()
        else:
            self._layout.change(old)
        self._dialect.keep(server.name for server in self.pool.servers)
        self.pool.setConnectTimeout(settings.connectTimeout)
        for connection in self.pool.connections:
            connection.retime()
        return other

    def _replace(self) -> None:
        replaced, paused = self.pool, self.pool.paused
        self._make()
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
        known = self._layout.known(timeout)
        return found if known is None else DeferredList([found, known]).addCallback(lambda _: None)

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
