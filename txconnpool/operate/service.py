# -*- test-case-name: tests.operate.test_service -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The pool and the proxy as services: they live as long as the application that they are part of.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.config.changes import Address, CannotChange, Plan
from txconnpool.config.files import checkFiles
from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.operate.reload import Changeable
from txconnpool.operate.statistics.reply import general, perServer, perSession, settingsInForce
from txconnpool.operate.statistics.snapshot import Snapshot, takeSnapshot
from txconnpool.operate.statistics.table import PoolSource, ProcessSource
from txconnpool.pool.engine import PoolEngine
from txconnpool.proxy.listener import Listen, listenOn
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.proxy import PoolProxy, dialectLimits
from txconnpool.proxy.sessions import NoStatistics
from txconnpool.wire.dialects import DIALECTS

_log = Logger("txconnpool.proxy")

__all__ = ["PoolService", "ProxyService"]


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


def cannotChange(error: Exception) -> Exception:
    """
    @param error: was raised while listeners were opened and files were read for a change.

    @return: the L{CannotChange} for it, or the error itself if it is a defect.
    """
    problem = listenProblem(error)
    if problem is not None:
        return CannotChange(f"cannot listen on {problem}")
    # A C{ValueError} is a file that cannot be read.
    return CannotChange(str(error)) if isinstance(error, ValueError) else error


def statisticsService(description: str | None, source: Callable[[], Any], reactor: Any) -> Any:
    """
    Make the service that serves statistics over HTTP.

    @param description: the address to listen on, a server endpoint string; C{None}: no service.
    @param source: returns a snapshot, or a Deferred that fires with one.

    @return: a L{txconnpool.operate.http.StatisticsService}, or C{None}.
    """
    if description is None:
        return None
    # This imports Twisted's web server, which takes time and memory.
    from txconnpool.operate.http import StatisticsService

    return StatisticsService(description, source, reactor)


class ProxyService(MultiService, Changeable):
    """
    The proxy: every pool of the settings, with its listeners.

    @ivar proxies: one for each pool, in the order of the settings.
    @ivar statistics: serves them, a L{txconnpool.operate.http.StatisticsService}, or C{None}.
    @ivar fullSnapshot: gives a snapshot of all processes that are one proxy, now or later.
    """

    def __init__(self, settings: Settings, reactor: Any = None, listen: Listen | None = None) -> None:
        """
        @param settings: the whole of it.
        @param reactor: where to run; the global reactor if not given.
        @param listen: listens in the stead of the endpoints of the settings, if given. The files that the settings
            name are not checked then before it is called.
        """
        MultiService.__init__(self)
        Changeable.__init__(self, settings)
        if reactor is None:
            from twisted.internet import reactor
        self.fullSnapshot: Callable[[], Any] = self.snapshot
        self.statistics = statisticsService(settings.stats, self.snapshot, reactor)
        self._started = time.time()
        self._reactor = reactor
        self._listen = listen or listenOn(reactor)
        self._checksFiles = listen is None
        self._filesRead = False
        self._unread = BufferedBytes(settings.maxUnreadBytes)
        self._numbers = itertools.count(1)
        self._removed: dict[PoolProxy, Deferred[None]] = {}
        self.proxies = [self._make(pool, settings) for pool in settings.pools]
        for proxy in self.proxies:
            proxy.setServiceParent(self)

    def _make(self, pool: PoolSettings, settings: Settings) -> PoolProxy:
        return PoolProxy(
            pool,
            DIALECTS[pool.protocol].make(*dialectLimits(pool)),
            self._unread,
            self._numbers,
            settings.drainTimeout,
            self._reactor,
            self._listen,
            self._answerStatistics,
        )

    def privilegedStartService(self) -> None:
        """
        Read the files that the settings name, and listen. The listener of statistics is opened first, because it is
        closed last.

        @raise ConfigError: a file cannot be read, or is of no use.
        @raise CannotListenError: an address is taken, or is not one of this machine.
        """
        self._readFiles()
        if self.statistics is not None:
            self.statistics.privilegedStartService()
        super().privilegedStartService()

    def startService(self) -> None:
        """
        Start, and do what L{privilegedStartService} does unless it has been called.
        """
        self._readFiles()
        self._started = time.time()
        if self.statistics is not None:
            self.statistics.startService()
        super().startService()

    def _readFiles(self) -> None:
        if self._filesRead:
            return
        if self._checksFiles:
            checkFiles(self.settings)
        for use in [proxy.readFiles(proxy.settings) for proxy in self.proxies]:
            use()
        self.rememberFiles()
        self._filesRead = True

    # -- What is told

    def snapshot(self) -> Snapshot:
        """
        Read all numbers of this process.
        """
        lag = None if self.statistics is None else self.statistics.lag
        return takeSnapshot(ProcessSource(self._started, self._unread, lag), map(_source, self.proxies))

    def _answerStatistics(self, proxy: PoolProxy, words: tuple[bytes, ...]) -> Any:
        """
        Answer C{stats} to a client of a pool.
        """
        name = proxy.settings.name
        if not words:
            return maybeDeferred(self.fullSnapshot).addCallback(general, name)
        if words == (b"servers",):
            return maybeDeferred(self.fullSnapshot).addCallback(perServer, name)
        if words == (b"sessions",):
            return perSession(proxy.sessions.sessions)
        if words == (b"settings",):
            return settingsInForce(proxy.settings, self.settings)
        if words == (b"reset",):
            raise NoStatistics("counters are never reset here: take differences")
        raise NoStatistics

    def _listening(self) -> list[Address]:
        return [(proxy.settings.name, description) for proxy in self.proxies for description in proxy.listeners]

    async def _apply(self, change: Plan) -> None:
        """
        Put settings in force: first what may fail, opening listeners and reading files; then the rest, which cannot.
        """
        new = change.settings
        old = {proxy.name: proxy for proxy in self.proxies}
        chosen = {pool.name: old.get(pool.name) or self._make(pool, new) for pool in new.pools}
        opened: list[tuple[PoolProxy, str]] = []
        try:
            for name, description in change.opened:
                await chosen[name].open(description)
                opened.append((chosen[name], description))
            fresh = [chosen[pool.name].readFiles(pool) for pool in new.pools]
            if not self.running:
                raise CannotChange("the proxy is stopping")
        except Exception as error:
            await gatherResults([proxy.shut(description) for proxy, description in opened])
            raise cannotChange(error) from None
        for use in fresh:
            use()
        for description, giver, taker in change.moved:
            listener = chosen[taker].listeners[description] = old[giver].listeners.pop(description)
            listener.sessions = chosen[taker].sessions
        closing = [old[name].shut(description) for name, description in change.closed]
        self._adjust(list(chosen.values()), new)
        for name in change.removed:
            # It answers what it has read. Only a stop waits for that.
            leaving = self._removed[old[name]] = maybeDeferred(old[name].disownServiceParent)
            leaving.addBoth(self._gone, old[name])
        for proxy in self.proxies:
            if proxy.parent is None:
                proxy.setServiceParent(self)
        await gatherResults(closing)

    def _adjust(self, proxies: list[PoolProxy], new: Settings) -> None:
        self.proxies = proxies
        self._unread.limit = new.maxUnreadBytes
        self._unread.enforce()
        for proxy, pool in zip(proxies, new.pools, strict=True):
            proxy.adjust(pool, new.drainTimeout)

    def _gone(self, result: object, proxy: PoolProxy) -> None:
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
        self._filesRead = False
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


def _source(proxy: PoolProxy) -> PoolSource:
    return PoolSource(proxy.pool, proxy.sessions, bool(proxy.running), proxy.slowRequests)


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
