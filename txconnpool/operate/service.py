# -*- test-case-name: tests.operate.test_service -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The pool and the proxy as services: they live as long as the application that they are part of.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.config.changes import CannotChange, Changeable
from txconnpool.config.credentials import Greeting, tokens
from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.net.endpoints import Listener, clientEndpoint, nameOf, raised, usesTLS
from txconnpool.operate.statistics import Process, Proxied, general, inForce, perServer, perSession, snapshot
from txconnpool.pool.connection import ConnectionFactory
from txconnpool.pool.engine import PoolEngine
from txconnpool.pool.limits import Limits
from txconnpool.pool.slow import SlowLog
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.session import SessionLimits
from txconnpool.proxy.sessions import NoStatistics, SessionFactory
from txconnpool.wire.memcache.dialect import Memcache

_log = Logger("txconnpool.proxy")

__all__ = ["PoolService", "ProxyService"]

#: Clients that may wait to be accepted, where a listening address does not say.
BACKLOG = 1024


class PoolService(Service):
    """
    A pool that connects when the application starts and closes when it stops.

    @ivar pool: the pool.
    """

    def __init__(self, pool: PoolEngine, drainTimeout: float = 5.0) -> None:
        """
        @param pool: a L{txconnpool.pool.library.Pool}, or a subclass.
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


def dialectLimits(settings: PoolSettings) -> tuple[int, frozenset[bytes], frozenset[bytes] | None]:
    """
    What a proxy lets through, as L{Memcache} takes it.
    """
    denied, allowed = settings.denyCommands, settings.allowCommands
    return (
        settings.maxItemSize,
        frozenset(word.encode() for word in denied),
        None if allowed is None else frozenset(word.encode() for word in allowed),
    )


def poolLimits(settings: PoolSettings) -> Limits:
    """
    The bounds of a proxy's pool.
    """
    servers = settings.upstream
    return Limits(
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


def sessionLimits(settings: PoolSettings) -> SessionLimits:
    """
    The bounds of a proxy's sessions.
    """
    return SessionLimits(
        maxClients=settings.maxClients,
        maxInFlight=settings.maxInFlight,
        backlog=settings.sessionBacklog,
        unreadSoft=settings.sessionUnreadSoft,
        unreadHard=settings.sessionUnreadHard,
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


def listenProblem(error: BaseException) -> str | None:
    """
    @return: where it was tried to listen and what went wrong, or C{None} if it was something else.
    """
    if isinstance(error, CannotListenError):
        where = error.port if error.interface is None else f"{error.interface or '*'}:{error.port}"
        reason = error.socketError
    elif isinstance(error, OSError):
        # The lock beside a UNIX socket: Twisted lets its errors through as they are.
        where, reason = error.filename2, error
    else:
        return None
    if not where:
        return None
    place, words = os.fsdecode(where), getattr(reason, "strerror", None) or str(reason)
    if words == "Cannot acquire lock" and os.path.islink(f"{place}.lock"):
        words = f"process {os.readlink(f'{place}.lock')} listens there, says {place}.lock"
    return f"{place}: {words}"


class Door(Factory):
    """
    Where clients come in, and whose they become.

    @ivar sessions: makes them sessions. It may be exchanged, for the clients that come later.
    @ivar listener: the endpoint, if its certificates may be read again.
    @ivar port: what listens, once something does.
    """

    noisy = False
    listener: Listener | None = None
    port: IListeningPort

    def __init__(self, sessions: SessionFactory) -> None:
        self.sessions = sessions

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """
        Let a client in.
        """
        return self.sessions.buildProtocol(addr)

    def logPrefix(self) -> str:
        """
        @return: who listens, for Twisted's log.
        """
        return f"pool {self.sessions.pool.name}"


#: Makes a door listen, given the endpoint's description.
Listen = Callable[[str, Door], Deferred[IListeningPort]]


class Proxy(Service):
    """
    One pool with its listeners and sessions.

    @ivar settings: those in force.
    @ivar pool: the pool.
    @ivar sessions: the factory of the sessions.
    @ivar doors: where it listens, by the endpoint's description.
    """

    def __init__(
        self,
        settings: PoolSettings,
        unread: BufferedBytes,
        numbers: Iterator[int],
        drainTimeout: float,
        reactor: Any,
        listen: Listen,
        report: Callable[[Proxy, tuple[bytes, ...]], Any],
    ) -> None:
        """
        @param report: gives the numbers that clients ask for, see L{SessionFactory}.
        @param unread: what all clients of the process have not read.
        @param numbers: numbers for the sessions.
        """
        self.settings = settings
        self._dialect = dialect = Memcache(*dialectLimits(settings))
        self._greeting = Greeting(settings.name, dialect.probe)
        self._slow = SlowLog(settings.name, dialect, reactor.seconds)
        self._connections = ConnectionFactory(dialect, reactor, settings.requestTimeout, self._slow)
        self.pool = PoolEngine(
            settings.upstream,
            self._connections,
            poolLimits(settings),
            reactor,
            name=settings.name,
            connectTimeout=settings.connectTimeout,
            handshake=self._greeting,
            commands=len(dialect.commands),
        )
        limits = sessionLimits(settings)
        self.sessions = SessionFactory(self.pool, dialect, limits, unread, reactor, partial(report, self), numbers)
        self.doors: dict[str, Door] = {}
        self._reactor = reactor
        self._listenOn = listen
        self._drainTimeout = drainTimeout
        self._deadline = 0.0
        self._lookForSlow()
        self.setName(settings.name)
        self.reread(settings)()

    def reread(self, settings: PoolSettings) -> Callable[[], None]:
        """
        Read users, passwords, keys and certificates: at first, and again when they may have changed.

        @return: puts what was read in force, for clients that come, and for connections that are made, from then on.

        @raise ValueError: something cannot be read.
        """
        ours = tokens(settings.upstreamAuth)[0] if settings.upstreamAuth is not None else None
        theirs = tokens(settings.listenAuth) if settings.listenAuth is not None else None
        doors = [door for description, door in self.doors.items() if description in settings.listen]
        certificates = [(door.listener, door.listener.read()) for door in doors if door.listener is not None]
        named = {nameOf(description): description for description in settings.upstream if usesTLS(description)}
        servers = [server for server in self.pool.servers if server.name in named]
        addresses = [(server, clientEndpoint(self._reactor, named[server.name])) for server in servers]

        def use() -> None:
            self._greeting.token = ours
            self.sessions.gate.tokens = theirs
            for listener, fresh in certificates:
                listener.use(fresh)
            for server, address in addresses:
                server.address = address

        return use

    def privilegedStartService(self) -> None:
        """
        Listen, so that the rights to do so may be given up afterwards.

        @raise CannotListenError: an address is taken or not ours.
        """
        super().privilegedStartService()
        self._listen()

    def _listen(self) -> None:
        for description in self.settings.listen:
            if description not in self.doors:
                raised(self.open(description)).addErrback(self._notListening)

    def _notListening(self, failure: Failure) -> None:
        _log.failure("{pool}: cannot listen", failure, pool=self.name)

    def open(self, description: str) -> Deferred[Door]:
        """
        Listen at one more address.

        @param description: a server endpoint string.

        @return: fires with what is then among L{doors}; fails as the endpoint does.
        """
        door = Door(self.sessions)

        def opened(port: IListeningPort) -> Door:
            door.port = port
            self.doors[description] = door
            return door

        return self._listenOn(description, door).addCallback(opened)

    def shut(self, description: str) -> Deferred[None]:
        """
        Listen there no more. Who came in stays.
        """
        port: Any = self.doors.pop(description).port
        return maybeDeferred(port.stopListening)

    def startService(self) -> None:
        """
        Connect to the servers, and listen if that has not been done.
        """
        super().startService()
        self._listen()
        self.pool.start()
        _log.info(
            "{pool}: {listen} -> {upstream}, at most {size} connections, {depth} requests on each",
            pool=self.name, listen=", ".join(self.settings.listen), upstream=", ".join(self.settings.upstream),
            size=self.settings.poolSize, depth=self.settings.pipelineDepth,
        )  # fmt: skip

    def adjust(self, settings: PoolSettings, drainTimeout: float) -> None:
        """
        Put other settings in force, for the sessions and connections that there are, too. Listeners are not touched.
        """
        self._drainTimeout = drainTimeout
        old, self.settings = self.settings, settings
        if settings == old:
            return
        pool = self.pool
        pool.limit(poolLimits(settings))
        pool.setConnectTimeout(settings.connectTimeout)
        for server in settings.upstream:
            if server not in old.upstream:
                pool.addServer(server)
        for server in old.upstream:
            if server not in settings.upstream:
                pool.removeServer(server)
        self._connections.requestTimeout = settings.requestTimeout
        self._lookForSlow()
        for connection in pool.clients:
            connection.retime()
        self._dialect.limit(*dialectLimits(settings))
        self.sessions.limit(sessionLimits(settings))

    def stopService(self) -> Deferred[None]:
        """
        Listen no more, answer what was read, close the sessions, then the connections.

        @return: fires when no socket or timer is left.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._deadline = self._reactor.seconds() + self._drainTimeout
        await DeferredList([self.shut(description) for description in list(self.doors)])
        if self.sessions.sessions:
            await deferLater(self._reactor, 0)  # what clients have sent by now is read
        drained = self.sessions.drain()
        timer = self._reactor.callLater(max(0.0, self._deadline - self._reactor.seconds()), self._tooLate)
        await drained
        if timer.active():
            timer.cancel()
        await self.pool.close(max(0.0, self._deadline - self._reactor.seconds()))

    def _tooLate(self) -> None:
        _log.warn("{pool}: closing {count} sessions that did not end in time", pool=self.name,
                  count=len(self.sessions.sessions))  # fmt: skip
        self.sessions.abort()

    def abort(self) -> None:
        """
        End at once what L{stopService} waits for.
        """
        self._deadline = self._reactor.seconds()
        self.sessions.abort()
        self.pool.abort()

    def _lookForSlow(self) -> None:
        self._slow.limit(self.settings.slowRequest, self.settings.logKeys == "yes")
        self.sessions.slow = self._slow if self._slow.wanted else None

    @property
    def view(self) -> Proxied:
        """
        What its numbers are read from.
        """
        return Proxied(self.pool, self.sessions, bool(self.running), self._slow.count)


def serve(description: str | None, source: Callable[[], Any], reactor: Any) -> Any:
    """
    Make what serves statistics.

    @param description: where, a server endpoint string; C{None}: nowhere.
    @param source: gives a snapshot, now or later.

    @return: a L{txconnpool.operate.http.StatisticsService}, or C{None}.
    """
    if description is None:
        return None
    # It brings the web server of Twisted with it, which nobody else needs.
    from txconnpool.operate.http import StatisticsService

    return StatisticsService(description, source, reactor)


class ProxyService(MultiService, Changeable):
    """
    The proxy: every pool of the settings, with its listeners.

    @ivar proxies: one for each pool, in the order of the settings.
    @ivar statistics: serves them, a L{txconnpool.operate.http.StatisticsService}, or C{None}.
    @ivar whole: gives a snapshot of all processes that are one proxy, now or later.
    """

    def __init__(self, settings: Settings, reactor: Any = None, listen: Listen | None = None) -> None:
        """
        @param settings: the whole of it.
        @param reactor: where to run; the global reactor if not given.
        @param listen: listens in the stead of the endpoints of the settings, if given.
        """
        MultiService.__init__(self)
        Changeable.__init__(self, settings)
        if reactor is None:
            from twisted.internet import reactor
        self.whole: Callable[[], Any] = self.snapshot
        self.statistics = serve(settings.stats, self.snapshot, reactor)
        self._started = time.time()
        self._reactor = reactor
        self._listenOn = listen or self._listenAt
        self._unread = BufferedBytes(settings.maxUnreadBytes)
        self._numbers = itertools.count(1)
        self._removed: dict[Proxy, Deferred[None]] = {}
        self.proxies = [self._make(pool, settings) for pool in settings.pools]
        for proxy in self.proxies:
            proxy.setServiceParent(self)

    def _make(self, pool: PoolSettings, settings: Settings) -> Proxy:
        return Proxy(
            pool, self._unread, self._numbers, settings.drainTimeout, self._reactor, self._listenOn, self._report
        )

    def privilegedStartService(self) -> None:
        """
        Listen, for statistics first: they are there until all else has ended.
        """
        if self.statistics is not None:
            self.statistics.privilegedStartService()
        super().privilegedStartService()

    def startService(self) -> None:
        """
        Start, and listen if that has not been done.
        """
        self._started = time.time()
        if self.statistics is not None:
            self.statistics.startService()
        super().startService()

    # -- What is told

    def snapshot(self) -> dict[str, Any]:
        """
        Read all numbers of this process.
        """
        lag = None if self.statistics is None else self.statistics.lag
        return snapshot(Process(self._started, self._unread, lag), [proxy.view for proxy in self.proxies])

    def _report(self, proxy: Proxy, words: tuple[bytes, ...]) -> Any:
        """
        Answer C{stats} to a client of a pool.
        """
        name = proxy.settings.name
        if not words:
            return maybeDeferred(self.whole).addCallback(general, name)
        if words == (b"servers",):
            return maybeDeferred(self.whole).addCallback(perServer, name)
        if words == (b"sessions",):
            return perSession(proxy.sessions.sessions)
        if words == (b"settings",):
            return inForce(proxy.settings, self.settings)
        if words == (b"reset",):
            raise NoStatistics("counters are never reset here: take differences")
        raise NoStatistics

    def _listenAt(self, description: str, door: Door) -> Deferred[IListeningPort]:
        door.listener = Listener(self._reactor, withBacklog(description))
        return door.listener.listen(door)

    async def _apply(self, new: Settings) -> None:
        """
        Put settings in force: first what may fail, listening; then the rest, which cannot.
        """
        wanted = {pool.name: pool for pool in new.pools}
        old = {proxy.name: proxy for proxy in self.proxies}
        chosen = {name: old.get(name) or self._make(pool, new) for name, pool in wanted.items()}
        spare = {
            description: proxy
            for proxy in self.proxies
            for description in proxy.doors
            if proxy.name not in wanted or description not in wanted[proxy.name].listen
        }
        moves: list[tuple[str, Proxy, Proxy]] = []
        opened: list[tuple[Proxy, str]] = []
        fresh: list[Callable[[], None]] = []
        try:
            for name, pool in wanted.items():
                for description in pool.listen:
                    if description in chosen[name].doors:
                        continue
                    if description in spare:
                        moves.append((description, spare.pop(description), chosen[name]))
                    else:
                        await chosen[name].open(description)
                        opened.append((chosen[name], description))
                fresh.append(chosen[name].reread(pool))
            if not self.running:
                raise CannotChange("the proxy is stopping")
        except Exception as error:
            await gatherResults([proxy.shut(description) for proxy, description in opened])
            problem = listenProblem(error)
            if problem is not None:
                raise CannotChange(f"cannot listen on {problem}") from None
            if isinstance(error, ValueError):  # something that the settings name cannot be read
                raise CannotChange(str(error)) from None
            raise
        for use in fresh:
            use()
        for description, giver, taker in moves:
            door = taker.doors[description] = giver.doors.pop(description)
            door.sessions = taker.sessions
        await self._replace(chosen, new, [proxy.shut(description) for description, proxy in spare.items()])

    async def _replace(self, chosen: dict[str, Proxy], new: Settings, closing: list[Deferred[None]]) -> None:
        """
        Put settings in force, all listeners being as they are to be.

        @param chosen: the proxies that there are to be.
        @param closing: what to wait for.
        """
        self._unread.limit = new.maxUnreadBytes
        self._unread.enforce()
        before, self.proxies = self.proxies, list(chosen.values())
        for pool in new.pools:
            chosen[pool.name].adjust(pool, new.drainTimeout)
        for proxy in before:
            if proxy not in self.proxies:
                # It answers what it has read. Nobody waits for that, but a stop.
                leaving = self._removed[proxy] = maybeDeferred(proxy.disownServiceParent)
                leaving.addBoth(self._gone, proxy)
        for proxy in self.proxies:
            if proxy.parent is None:
                proxy.setServiceParent(self)
        await gatherResults(closing)

    def _gone(self, result: object, proxy: Proxy) -> None:
        del self._removed[proxy]
        if isinstance(result, Failure):
            _log.failure("{pool}: could not end", result, pool=proxy.name)

    def status(self) -> str:
        """
        @return: how things are, in one line.
        """
        clients = sum(len(proxy.sessions.sessions) for proxy in self.proxies)
        connections = sum(proxy.pool.stats.connections for proxy in self.proxies)
        servers = [server for proxy in self.proxies for server in proxy.pool.servers]
        up = sum(server.up for server in servers)
        return f"clients: {clients}, connections: {connections}, servers up: {up} of {len(servers)}"

    def stopService(self) -> Deferred[None]:
        """
        Let each pool end what it has, those too that are on their way out.

        @return: fires when no socket or timer is left.
        """
        removed: list[Deferred[Any]] = [_after(leaving) for leaving in self._removed.values()]
        stopping: Deferred[Any] = gatherResults([super().stopService(), *removed])
        if self.statistics is not None:
            stopping.addBoth(lambda result: self.statistics.stopService().addCallback(lambda _: result))
        return stopping.addCallback(lambda _: None)

    def abort(self) -> None:
        """
        End at once what L{stopService} waits for.
        """
        for proxy in [*self.proxies, *self._removed]:
            proxy.abort()


def _after(event: Deferred[Any]) -> Deferred[None]:
    """
    @return: fires when C{event} has, and leaves its result alone.
    """
    after: Deferred[None] = Deferred()

    def fired(result: Any) -> Any:
        after.callback(None)
        return result

    event.addBoth(fired)
    return after
