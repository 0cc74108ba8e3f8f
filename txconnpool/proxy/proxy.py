# -*- test-case-name: tests.operate.test_service -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The proxy of one pool: its listening addresses, its sessions, and the pool of connections behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.config.credentials import readLogins
from txconnpool.config.settings import PoolSettings
from txconnpool.net.listening import raiseIfFailed
from txconnpool.pool.slow import SlowLog
from txconnpool.proxy.finding import sentinelLogin
from txconnpool.proxy.limits import dialectLimits, sessionLimits
from txconnpool.proxy.listener import ClientListener, Listen
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.sessions import SessionFactory
from txconnpool.proxy.upstream import Upstream

_log = Logger("txconnpool.proxy")


class PoolProxy(Service):
    """
    The proxy of one pool, as a service: it listens, and forwards the requests of its sessions to the pool.

    @ivar settings: the settings in force.
    @ivar upstream: the servers, and the connections to them.
    @ivar sessions: the factory of the sessions.
    @ivar drainTimeout: seconds that a stop waits for requests in flight.
    @ivar listeners: the open listening addresses, by their endpoint strings.
    @ivar searching: while the first lookups of servers are under way, fires when they have ended. Clients wait in the
        system's queues until then.
    """

    def __init__(
        self,
        settings: PoolSettings,
        dialect: Any,
        buffered: BufferedBytes,
        numbers: Iterator[int],
        drainTimeout: float,
        reactor: Any,
        listen: Listen,
        statistics: Callable[[PoolProxy, tuple[bytes, ...]], Any],
    ) -> None:
        """
        @param dialect: the L{IDialect<txconnpool.wire.IDialect>}, made with L{dialectLimits}.
        @param buffered: the bytes held for all clients of the process.
        @param numbers: yields a number for each new session.
        @param drainTimeout: seconds that a stop waits for requests in flight.
        @param listen: opens the listening ports.
        @param statistics: called with this proxy and the arguments of a client's C{stats} request, see
            L{SessionFactory}.
        """
        self.settings = settings
        self._dialect = dialect
        self._slow = SlowLog(settings.name, dialect, reactor.seconds)
        self.upstream = Upstream(settings, dialect, reactor, self._slow)
        limits = sessionLimits(settings)
        self.sessions = SessionFactory(
            settings.name, self.upstream.router, dialect, limits, buffered, reactor, partial(statistics, self), numbers
        )
        self.sessions.separate = self.upstream.separate
        if dialect.stateful:
            dialect.announce(settings.announced)
            self.sessions.flavours = self.upstream.flavours
            self.sessions.reset = self.upstream.handshake.reset
            self.upstream.remapped = self.sessions.subscribers.check
        self.listeners: dict[str, ClientListener] = {}
        self.searching: Deferred[None] | None = None
        self._reactor = reactor
        self._listen = listen
        self.drainTimeout = drainTimeout
        self._deadline = 0.0
        self._limitSlow()
        self.setName(settings.name)

    @property
    def pool(self) -> Any:
        """
        The pool of connections to the servers, an L{IPoolControl<txconnpool.interfaces.IPoolControl>}.
        """
        return self.upstream.pool

    @property
    def slowRequests(self) -> int:
        """
        How many requests took longer than the setting C{slow-request}.
        """
        return self._slow.count

    def readFiles(self, settings: PoolSettings) -> Callable[[], None]:
        """
        Read the users, passwords, keys and certificates that settings name.

        @return: a function that puts what was read in force, for the clients that connect and the connections that are
            made from then on. It cannot fail.

        @raise ValueError: something cannot be read.
        """
        ours = readLogins(settings.upstreamAuth)[0] if settings.upstreamAuth is not None else None
        sentinels = sentinelLogin(settings)
        theirs = readLogins(settings.listenAuth) if settings.listenAuth is not None else None
        listeners = [each for description, each in self.listeners.items() if description in settings.listen]
        certificates = [(each.endpoint, each.endpoint.read()) for each in listeners if each.endpoint is not None]
        servers = self.upstream.readCertificates(settings)

        def use() -> None:
            self.upstream.handshake.login = ours
            self.upstream.finder.logIn(sentinels)
            self.upstream.useCertificates(servers)
            self.sessions.gate.accepted = theirs
            for endpoint, fresh in certificates:
                endpoint.use(fresh)

        return use

    def privilegedStartService(self) -> None:
        """
        Listen, while the process still has the rights for it.

        @raise CannotListenError: an address is taken, or is not one of this machine.
        """
        super().privilegedStartService()
        self._openAll()

    def _openAll(self) -> None:
        for description in self.settings.listen:
            if description not in self.listeners:
                raiseIfFailed(self.open(description)).addErrback(self._notListening)

    def _notListening(self, failure: Failure) -> None:
        _log.failure("{pool}: cannot listen", failure, pool=self.name)

    def open(self, description: str) -> Deferred[ClientListener]:
        """
        Listen on one more address.

        @param description: a server endpoint string.

        @return: fires with the new member of L{listeners}; fails as the endpoint does.
        """
        listener = ClientListener(self.sessions, description)

        def opened(port: IListeningPort) -> ClientListener:
            listener.port = port
            self.listeners[description] = listener
            if self.searching is not None:
                listener.hold()
            return listener

        return self._listen(description, listener).addCallback(opened)

    def shut(self, description: str) -> Deferred[None]:
        """
        Close a listening address. Its sessions stay.
        """
        port: Any = self.listeners.pop(description).port
        return maybeDeferred(port.stopListening)

    def startService(self) -> None:
        """
        Connect to the servers, and listen unless L{privilegedStartService} has done that.
        """
        super().startService()
        self._openAll()
        self._search()
        _log.info(
            "{pool}: {listen} -> {upstream}, at most {size} connections, {depth} requests on each",
            pool=self.name, listen=", ".join(self.settings.listen), upstream=", ".join(self.settings.upstream),
            size=self.settings.poolSize, depth=self.settings.pipelineDepth,
        )  # fmt: skip

    def _search(self) -> None:
        """
        Connect to the servers. Those that are looked up should be known before the first clients come.
        """
        searching = self.upstream.start()
        if not searching.called:
            self.searching = searching
            for listener in self.listeners.values():
                listener.hold()
            searching.addCallback(self._searched)

    def _searched(self, _: None) -> None:
        self.searching = None
        for listener in self.listeners.values():
            listener.release()

    def prepare(self, settings: PoolSettings) -> Deferred[None]:
        """
        Look up the servers that some settings have and the present ones have not.

        @return: fires when they are known; fails with
            L{DiscoveryFailed<txconnpool.net.discovery.DiscoveryFailed>}, or with a C{ValueError} if they contradict
            the settings.
        """
        return self.upstream.finder.prepare(settings)

    def adjust(self, settings: PoolSettings, drainTimeout: float) -> None:
        """
        Put other settings in force, also for existing sessions and connections. Listening addresses are not changed.
        """
        self.drainTimeout = drainTimeout
        old, self.settings = self.settings, settings
        if settings == old:
            return
        self._limitSlow()
        if self.upstream.adjust(settings):
            rerouted = self.sessions.reroute(self.upstream.router, self.upstream.flavours)
            rerouted.addCallback(lambda _: self.upstream.closeReplaced())
        self._dialect.limit(*dialectLimits(settings))
        if self._dialect.stateful:
            self._dialect.announce(settings.announced)
        self.sessions.limit(sessionLimits(settings))

    def _limitSlow(self) -> None:
        self._slow.limit(self.settings.slowRequest, self.settings.logKeys == "yes")
        self.sessions.slow = self._slow if self._slow.wanted else None

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, answer the requests that were read, close the sessions, then the connections.

        @return: fires when no socket and no timer is left.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._deadline = self._reactor.seconds() + self.drainTimeout
        self.upstream.finder.stop()
        await DeferredList([self.shut(description) for description in list(self.listeners)])
        if self.sessions.sessions:
            await deferLater(self._reactor, 0)  # read what clients have sent by now
        drained = self.sessions.drain()
        timer = self._reactor.callLater(max(0.0, self._deadline - self._reactor.seconds()), self._abortSessions)
        await drained
        self.sessions.passing.close()
        if timer.active():
            timer.cancel()
        await self.upstream.close(max(0.0, self._deadline - self._reactor.seconds()))

    def _abortSessions(self) -> None:
        _log.warn("{pool}: closing {count} sessions that did not end in time", pool=self.name,
                  count=len(self.sessions.sessions))  # fmt: skip
        self.sessions.abort()

    def abort(self) -> None:
        """
        End a stop at once: close all sessions and connections that L{stopService} waits for.
        """
        self._deadline = self._reactor.seconds()
        self.sessions.abort()
        self.upstream.abort()
