# -*- test-case-name: tests.operate.test_service -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The proxy as a service of an application.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, Final

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool import __version__
from txconnpool.config.changes import Address, CannotChange, Plan
from txconnpool.config.settings import PROCESS_OPTIONS, ConfigError, Fault, PoolSettings, Settings
from txconnpool.native import DESCRIPTION
from txconnpool.operate.reload import Changeable, cannotChange
from txconnpool.operate.statistics.reply import general, perServer, perSession, settingsInForce, summary
from txconnpool.operate.statistics.snapshot import Snapshot, takeSnapshot
from txconnpool.operate.statistics.sources import PoolSource, ProcessSource
from txconnpool.proxy.limits import dialectLimits
from txconnpool.proxy.listener import Listen, listenOn
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.proxy import PoolProxy
from txconnpool.proxy.statistics import NoStatistics, Replies
from txconnpool.wire.dialects import DIALECTS

_log = Logger("txconnpool.proxy")


def statisticsService(settings: Settings, source: Callable[[], Any], reactor: Any) -> Any:
    """
    Make the service that serves statistics over HTTP.

    @param settings: C{stats} is the address to listen on, a server endpoint string; C{None}: no service.
    @param source: returns a snapshot, or a Deferred that fires with one.

    @return: a L{txconnpool.operate.http.service.StatisticsService}, or C{None}.
    """
    if settings.stats is None:
        return None
    # A process without statistics does not need these modules.
    from txconnpool.operate.http.service import StatisticsService

    return StatisticsService(settings.stats, source, reactor, settings.statsHosts)


#: The settings that the command carries out, not the proxy, and how an application does it.
_OF_COMMAND: Final = {
    "workers": "an application runs in one process; start several of it, or the command",
    "admin": "the console is opened by the command",
    "adminPasswordFile": "the console is opened by the command",
    "logFormat": "the log belongs to the application: `twistd --logger`, or globalLogBeginner of twisted.logger",
}


def refuseOptionsOfCommand(settings: Settings) -> None:
    """
    Refuse settings that have an effect with the command C{twistd connpool} only.

    @raise ConfigError: there is one.
    """
    faults = []
    for each in PROCESS_OPTIONS:
        value = getattr(settings, each.attribute)
        if each.attribute in _OF_COMMAND and value != each.default:
            text = (
                f"{each.attribute} = {value!r}: is a setting of the command `twistd connpool`, not of a ProxyService: "
            )
            faults.append(Fault(text + _OF_COMMAND[each.attribute], (each.attribute,)))
    if faults:
        raise ConfigError(faults)


class ProxyService(MultiService, Changeable):
    """
    The proxy: all pools of the settings, each with its listeners::

        settings = Settings(pools=(PoolSettings(upstream=("tcp:127.0.0.1:11211",)),))
        application = Application("proxy")
        ProxyService(settings).setServiceParent(application)

    @ivar proxies: a proxy for each pool, in the order of the settings.
    @ivar statistics: a L{txconnpool.operate.http.service.StatisticsService} that serves their statistics, or C{None}.
    @ivar buffered: the bytes held for all clients.
    @ivar fullSnapshot: returns a snapshot for the replies to C{stats}, or a Deferred that fires with one. With several
        processes it is a snapshot of all of them.
    @ivar askServers: called with the name of a pool and the arguments of C{stats}; returns a Deferred that fires with
        the replies of the servers and their age, see L{StatisticsReplies}. With several processes it asks on behalf of
        all of them.
    """

    def __init__(
        self, settings: Settings, reactor: Any = None, listen: Listen | None = None, *, command: bool = False
    ) -> None:
        """
        @param settings: all settings.
        @param reactor: the global reactor if not given.
        @param listen: opens the listening ports for clients. With it, the files that the settings name are not checked
            before they are used. If not given, the endpoints of the settings listen on the reactor.
        @param command: whether this is the process of the command C{twistd connpool}, which does what the settings
            C{workers}, C{admin}, C{adminPasswordFile} and C{logFormat} say.

        @raise ConfigError: one of these settings is used without that.
        @raise TypeError: C{settings} are no L{Settings}.
        """
        if not isinstance(settings, Settings):
            given = type(settings).__name__
            raise TypeError(f"settings must be a Settings, such as Settings(pools=(PoolSettings(),)), not a {given}")
        if not command:
            refuseOptionsOfCommand(settings)
        MultiService.__init__(self)
        Changeable.__init__(self, settings)
        if reactor is None:
            from twisted.internet import reactor
        self.fullSnapshot: Callable[[], Any] = self.snapshot
        self.askServers: Callable[[str, tuple[bytes, ...]], Deferred[tuple[Replies, float]]] = self.askHere
        self.statistics = statisticsService(settings, self.snapshot, reactor)
        self._started = time.time()
        self._reactor = reactor
        self._listen = listen or listenOn(reactor)
        self._checksFiles = listen is None
        self.buffered = BufferedBytes(settings.maxUnreadBytes)
        self._numbers = itertools.count(1)
        self._removed: dict[PoolProxy, Deferred[None]] = {}
        self.proxies = [self._proxyOf(pool, settings) for pool in settings.pools]
        self._link()
        for proxy in self.proxies:
            proxy.setServiceParent(self)

    def _proxyOf(self, pool: PoolSettings, settings: Settings) -> PoolProxy:
        proxy = PoolProxy(
            pool,
            DIALECTS[pool.protocol].make(*dialectLimits(pool)),
            self.buffered,
            self._numbers,
            settings.drainTimeout,
            self._reactor,
            self._listen,
            self._answerStatistics,
        )
        proxy.sessions.replies.askServers = lambda words: self.askServers(proxy.settings.name, words)
        return proxy

    # -- Start

    def privilegedStartService(self) -> None:
        """
        Read the files that the settings name, and listen. The listener of statistics is opened first, because it is
        closed last.

        @raise ConfigError: a file cannot be read, or is of no use.
        @raise CannotListenError: an address is taken, or is not one of this machine.
        """
        self.readFiles()
        if self.statistics is not None:
            self.statistics.privilegedStartService()
        super().privilegedStartService()

    def startService(self) -> None:
        """
        Start, and do what L{privilegedStartService} does unless it has been called.
        """
        self.readFiles()
        self._started = time.time()
        _log.info("txconnpool {version}, {implementation}", version=__version__, implementation=DESCRIPTION)
        if self.statistics is not None:
            self.statistics.startService()
        super().startService()

    def serving(self) -> Deferred[None]:
        """
        @return: has fired: the listeners are open when the service has started.
        """
        return succeed(None)

    def searched(self) -> Deferred[None]:
        """
        @return: fires when the first lookups of servers have ended.
        """
        searching = [_after(proxy.searching) for proxy in self.proxies if proxy.searching is not None]
        return gatherResults(searching).addCallback(lambda _: None)

    def _useFiles(self) -> None:
        if self._checksFiles:
            super()._useFiles()
        for use in [proxy.readFiles(proxy.settings) for proxy in self.proxies]:
            use()

    # -- Statistics

    def snapshot(self) -> Snapshot:
        """
        @return: the statistics of this process.
        """
        lag = None if self.statistics is None else self.statistics.lag
        return takeSnapshot(ProcessSource(self._started, self.buffered, lag), map(_source, self.proxies))

    def _answerStatistics(self, proxy: PoolProxy, words: tuple[bytes, ...]) -> Any:
        """
        Answer a client's C{stats proxy}.

        @param proxy: the proxy of the client's pool.
        @param words: the further arguments of the request.

        @return: the items of the reply, or a Deferred that fires with them.

        @raise NoStatistics: there are no such statistics.
        """
        name = proxy.settings.name
        if not words:
            return maybeDeferred(self.fullSnapshot).addCallback(general, name)
        if words == (b"summary",):
            return maybeDeferred(self.fullSnapshot).addCallback(summary, name)
        if words == (b"servers",):
            return maybeDeferred(self.fullSnapshot).addCallback(perServer, name)
        if words == (b"sessions",):
            if proxy.settings.statsAddresses == "no":
                raise NoStatistics("stats proxy sessions needs stats-addresses = yes")
            return perSession(proxy.sessions.sessions)
        if words == (b"settings",):
            return settingsInForce(proxy.settings, self.settings)
        raise NoStatistics

    def askHere(self, pool: str, words: tuple[bytes, ...]) -> Deferred[tuple[Replies, float]]:
        """
        Ask the servers of a pool for their statistics, on the connections of this process.

        @param words: the arguments of C{stats}, as L{StatisticsReplies.askHere} takes them.

        @return: fires with the replies and their age.

        @raise NoStatistics: there is no such pool.
        """
        for proxy in self.proxies:
            if proxy.settings.name == pool:
                return proxy.sessions.replies.askHere(words)
        raise NoStatistics(f"pool {pool} is being removed")

    def status(self) -> str:
        """
        @return: the state of the proxy, in one line.
        """
        clients = sum(len(proxy.sessions.sessions) for proxy in self.proxies)
        connections = sum(proxy.pool.stats.connections for proxy in self.proxies)
        servers = [server for proxy in self.proxies for server in proxy.pool.servers]
        up = sum(server.up for server in servers)
        return f"clients: {clients}, connections: {connections}, servers up: {up} of {len(servers)}"

    # -- Reload

    def _listening(self) -> list[Address]:
        return [(proxy.settings.name, description) for proxy in self.proxies for description in proxy.listeners]

    async def _apply(self, plan: Plan) -> None:
        """
        Put settings in force: first what can fail, opening listeners and reading files; then the rest, which cannot.
        """
        new = plan.settings
        old = {proxy.name: proxy for proxy in self.proxies}
        chosen = {pool.name: old.get(pool.name) or self._proxyOf(pool, new) for pool in new.pools}
        opened: list[tuple[PoolProxy, str]] = []
        try:
            for name, description in plan.opened:
                await chosen[name].open(description)
                opened.append((chosen[name], description))
            for pool in new.pools:
                await chosen[pool.name].prepare(pool)
            fresh = [chosen[pool.name].readFiles(pool) for pool in new.pools]
            if not self.running:
                raise CannotChange("the proxy is stopping")
        except Exception as error:
            await gatherResults([proxy.shut(description) for proxy, description in opened])
            raise cannotChange(error) from None
        for use in fresh:
            use()
        for description, giver, taker in plan.moved:
            listener = chosen[taker].listeners[description] = old[giver].listeners.pop(description)
            listener.sessions = chosen[taker].sessions
            if old[giver].searching is not None:
                listener.release()
        closing = [old[name].shut(description) for name, description in plan.closed]
        self._adjust(list(chosen.values()), new)
        for name in plan.removed:
            # It answers the requests that it has read. Only a stop waits for that.
            ending = self._removed[old[name]] = maybeDeferred(old[name].disownServiceParent)
            ending.addBoth(self._ended, old[name])
        for proxy in self.proxies:
            if proxy.parent is None:
                proxy.setServiceParent(self)
        await gatherResults(closing)

    def _adjust(self, proxies: list[PoolProxy], new: Settings) -> None:
        self.proxies = proxies
        self.buffered.limit = new.maxUnreadBytes
        self.buffered.enforce()
        for proxy, pool in zip(proxies, new.pools, strict=True):
            proxy.adjust(pool, new.drainTimeout)
        self._link()

    def _link(self) -> None:
        """
        Let each pool know the pool that stands in for it, if there is one.
        """
        upstreams = {proxy.settings.name: proxy.upstream for proxy in self.proxies}
        for proxy in self.proxies:
            settings = proxy.settings
            proxy.upstream.standIn(upstreams.get(settings.failover or "") if settings.onFailure == "failover" else None)

    def _ended(self, result: object, proxy: PoolProxy) -> None:
        del self._removed[proxy]
        if isinstance(result, Failure):
            _log.failure("{pool}: could not end", result, pool=proxy.name)

    # -- Stop

    def stopService(self) -> Deferred[None]:
        """
        Stop all pools, including removed ones that still have requests in flight; then the statistics.

        @return: fires when no socket and no timer is left.
        """
        self._filesRead = False
        if self.statistics is not None:
            self.statistics.announceStop()
        removed: list[Deferred[Any]] = [_after(ending) for ending in self._removed.values()]
        stopping: Deferred[Any] = gatherResults([super().stopService(), *removed])
        if self.statistics is not None:
            stopping.addBoth(lambda result: self.statistics.stopService().addCallback(lambda _: result))
        return stopping.addCallback(lambda _: None)

    def abort(self) -> None:
        """
        End a stop at once: close all sessions and connections that L{stopService} waits for.
        """
        for proxy in [*self.proxies, *self._removed]:
            proxy.abort()


def _source(proxy: PoolProxy) -> PoolSource:
    return PoolSource(proxy.pool, proxy.sessions, bool(proxy.running), proxy.slowRequests)


def _after(event: Deferred[Any]) -> Deferred[None]:
    """
    @return: fires when C{event} has fired, and leaves its result to others.
    """
    after: Deferred[None] = Deferred()

    def fired(result: Any) -> Any:
        after.callback(None)
        return result

    event.addBoth(fired)
    return after
