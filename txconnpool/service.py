# -*- test-case-name: tests.test_service -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The pool and the proxy as services: they live as long as the application that they are part of.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from txconnpool.config import PoolSettings, Settings
from txconnpool.connection import ConnectionFactory
from txconnpool.core import Core
from txconnpool.login import Greeting, tokens
from txconnpool.report import summary
from txconnpool.session import SessionFactory, SessionLimits, Unread
from txconnpool.state import Limits
from txconnpool.wire.auth import Gate
from txconnpool.wire.memcache import Memcache

__all__ = ["PoolService", "ProxyService"]

#: Clients that may wait to be accepted, where a listening address does not say.
BACKLOG = 1024


class PoolService(Service):
    """
    A pool that connects when the application starts and closes when it stops.

    @ivar pool: the pool.
    """

    def __init__(self, pool: Core, drainTimeout: float = 5.0) -> None:
        """
        @param pool: a L{txconnpool.pool.Pool}, or a subclass.
        @param drainTimeout: seconds that a stop waits for requests in flight.
        """
        self.pool = pool
        self._drainTimeout = drainTimeout
        self.setName(pool.name)

    def startService(self) -> None:
        """
        Dial as many connections as are kept open.
        """
        super().startService()
        self.pool.start()

    def stopService(self) -> Deferred[None]:
        """
        Let what is in flight end, then close everything.

        @return: fires when no connection, dial or timer is left.
        """
        super().stopService()
        return self.pool.close(self._drainTimeout)


def makeWire(settings: PoolSettings) -> Memcache:
    """
    The protocol of a proxy, less what is not allowed.
    """
    denied, allowed = settings.denyCommands, settings.allowCommands
    return Memcache(
        settings.maxItemSize,
        frozenset(word.encode() for word in denied),
        None if allowed is None else frozenset(word.encode() for word in allowed),
    )


def makePool(settings: PoolSettings, wire: Memcache, greeting: Greeting, reactor: Any) -> Core:
    """
    The pool of a proxy.

    @param greeting: what is said first on each connection.
    """
    servers = settings.upstream
    limits = Limits(
        maximum=settings.poolSize,
        # Requests go round all servers that are up, so each has a connection.
        minimum=min(settings.poolSize, max(settings.minPoolSize, len(servers) if len(servers) > 1 else 0)),
        depth=settings.pipelineDepth,
        maxWaiting=settings.maxWaiting,
        waitTimeout=settings.waitTimeout,
        idleTimeout=settings.idleTimeout,
        maxLifetime=settings.maxLifetime,
        reuse="lifo" if len(servers) == 1 else "fifo",
        whenDown=1,
    )

    return Core(
        servers,
        ConnectionFactory(wire, reactor, settings.requestTimeout),
        limits,
        reactor,
        name=settings.name,
        connectTimeout=settings.connectTimeout,
        handshake=greeting,
        forms=len(wire.forms),
    )


def withBacklog(description: str) -> str:
    """
    Let a whole crowd of clients connect at once: Twisted's own number is 50, and who comes while so many wait to be
    accepted is let in by the kernel only after a second, or three.

    @param description: a server endpoint string; one that has a backlog keeps it.
    """
    if re.match("(tcp6?|ssl|unix):", description) and not re.search(r":backlog=\d", description):
        description += f":backlog={BACKLOG}"
    return description


class Proxy(Service):
    """
    One pool with its listeners and sessions.

    @ivar pool: the pool.
    @ivar sessions: the factory of the sessions.
    @ivar ports: what is listening.
    """

    _log = Logger()

    def __init__(self, settings: PoolSettings, unread: Unread, drainTimeout: float, reactor: Any, sockets: Any) -> None:
        wire = makeWire(settings)
        self.settings = settings
        self._greeting = Greeting(settings.name, wire.probe)
        self.pool = makePool(settings, wire, self._greeting, reactor)
        limits = SessionLimits(
            maxClients=settings.maxClients,
            maxInFlight=settings.maxInFlight,
            unreadSoft=settings.sessionUnreadSoft,
            unreadHard=settings.sessionUnreadHard,
        )
        self.sessions = SessionFactory(self.pool, wire, limits, unread, reactor, self._report)
        self.ports: list[IListeningPort] = []
        self._reactor = reactor
        self._sockets = sockets
        self._drainTimeout = drainTimeout
        self._started = time.time()
        self.setName(settings.name)
        self.renew()

    def renew(self) -> None:
        """
        Read the users and passwords: at first, and again when they may have changed. They are for those who come from
        now on.

        @raise ValueError: they cannot be read. Nothing has changed then.
        """
        settings = self.settings
        ours = tokens(settings.upstreamAuth)[0] if settings.upstreamAuth is not None else None
        theirs = tokens(settings.listenAuth) if settings.listenAuth is not None else None
        self._greeting.token = ours
        if theirs is None:
            self.sessions.gate = None
        elif self.sessions.gate is None:
            self.sessions.gate = Gate(theirs)
        else:
            self.sessions.gate.tokens = theirs

    def privilegedStartService(self) -> None:
        """
        Listen, so that the rights to do so may be given up afterwards.

        @raise CannotListenError: an address is taken or not ours.
        """
        super().privilegedStartService()
        self._listen()

    def _listen(self) -> None:
        for description in self.settings.listen:
            endpoint = serverFromString(self._sockets, withBacklog(description))
            # A failure is raised at once where it is known at once, as it is for sockets.
            listening = endpoint.listen(self.sessions)
            failures: list[Any] = []
            listening.addCallbacks(self.ports.append, failures.append)
            if failures:
                failures[0].raiseException()

    def startService(self) -> None:
        """
        Connect to the servers, and listen if that has not been done.
        """
        super().startService()
        self._started = time.time()
        if not self.ports:
            self._listen()
        self.pool.start()
        self._log.info(
            "{name}: {listen} -> {upstream}, at most {size} connections, {depth} requests on each",
            name=self.name, listen=", ".join(self.settings.listen), upstream=", ".join(self.settings.upstream),
            size=self.settings.poolSize, depth=self.settings.pipelineDepth,
        )  # fmt: skip

    def stopService(self) -> Deferred[None]:
        """
        Listen no more, answer what was read, close the sessions, then the connections.

        @return: fires when no socket or timer is left.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        deadline = self._reactor.seconds() + self._drainTimeout
        ports, self.ports = self.ports, []
        await DeferredList([maybeDeferred(port.stopListening) for port in ports])
        drained = self.sessions.drain()
        timer = self._reactor.callLater(self._drainTimeout, self._tooLate)
        await drained
        if timer.active():
            timer.cancel()
        await self.pool.close(max(0.0, deadline - self._reactor.seconds()))

    def _tooLate(self) -> None:
        self._log.warn("{name}: closing {count} sessions that did not end in time", name=self.name,
                       count=len(self.sessions.sessions))  # fmt: skip
        self.sessions.abort()

    def _report(self, words: tuple[bytes, ...]) -> Iterable[tuple[str, object]] | None:
        if words:
            return None
        return summary(self.pool, self.sessions, self._started, time.time())


class ProxyService(MultiService):
    """
    The proxy: every pool of the settings, with its listeners.

    @ivar proxies: one for each pool, in the order of the settings.
    """

    def __init__(self, settings: Settings, reactor: Any = None, sockets: Any = None) -> None:
        """
        @param settings: the whole of it.
        @param reactor: where to run; the global reactor if not given.
        @param sockets: what listens, a reactor too; that of all else if not given.
        """
        super().__init__()
        if reactor is None:
            from twisted.internet import reactor
        self.settings = settings
        unread = Unread(settings.maxUnreadBytes)
        self.proxies = [
            Proxy(pool, unread, settings.drainTimeout, reactor, sockets or reactor) for pool in settings.pools
        ]
        for proxy in self.proxies:
            proxy.setServiceParent(self)
