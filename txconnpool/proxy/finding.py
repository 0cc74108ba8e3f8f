# -*- test-case-name: tests.proxy.test_finding -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The servers of a pool that are looked up: they are found, and change, while the proxy runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.config.credentials import readLogins
from txconnpool.config.settings import ConfigError, PoolSettings
from txconnpool.net.discovery import REPLICA, Discovery
from txconnpool.routing.servers import Server
from txconnpool.wire import Login

_log = Logger("txconnpool.routing")


class Finder:
    """
    The sources of the servers of one pool: the lines of C{upstream} such as C{dns:memcached.internal:11211}.

    @ivar makeSource: makes a L{Discovery} from a line. Tests replace it.
    @ivar login: the user and password for the sources of new settings, if they want one.
    """

    makeSource: Callable[..., Any] = Discovery
    login: Login | None = None

    def __init__(self, reactor: Any, changed: Callable[[], object]) -> None:
        """
        @param changed: called when other servers than before are found.
        """
        self._reactor = reactor
        self._changed = changed
        self._sources: dict[str, Any] = {}
        self._prepared: dict[str, Any] = {}
        self._running = False

    def apply(self, settings: PoolSettings) -> PoolSettings:
        """
        Add the servers that are known to settings.

        Weights that come from a source are left out if the distribution cannot have them.

        @raise ConfigError: the servers contradict the settings.
        """
        sources = {**self._sources, **self._prepared}
        servers = {
            line: [
                Server(each.endpoint, each.weight, each.label)
                for each in sources[line].servers
                if settings.readsReplicas or not (settings.hasSentinels and each.label == REPLICA)
            ]
            for line in settings.sources
        }
        if not servers:
            return settings
        try:
            return replace(settings, found=_lines(servers))
        except ConfigError:
            plain = _lines({line: _withoutWeights(line, found) for line, found in servers.items()})
            if plain == _lines(servers):
                raise
            return replace(settings, found=plain)

    def prepare(self, settings: PoolSettings) -> Deferred[None]:
        """
        Look up the sources of settings that are not in use yet, so that their servers are known when L{use} is called.

        @return: fires when they are known; fails with L{DiscoveryFailed<txconnpool.net.discovery.DiscoveryFailed>} if
            one cannot be looked up, and with L{ConfigError} if the servers contradict the settings.
        """
        try:
            login = sentinelLogin(settings)
        except ValueError:
            return fail()
        self._prepared = {line: self._make(line, settings) for line in settings.sources if line not in self._sources}
        for source in self._prepared.values():
            source.login = login
        looking = [source.lookUp() for source in self._prepared.values()]
        found = gatherResults(looking, consumeErrors=True).addCallback(lambda _: self.apply(settings))
        return found.addCallbacks(lambda _: None, self._notFound)

    def _notFound(self, failure: Failure) -> Failure:
        """
        @return: the failure inside that of C{gatherResults}.
        """
        prepared, self._prepared = self._prepared, {}
        for source in prepared.values():
            source.stop()
        inner: Failure = getattr(failure.value, "subFailure", failure)
        return inner

    def use(self, settings: PoolSettings) -> None:
        """
        Use the sources of settings from now on, and no others.
        """
        old, self._sources = self._sources, {}
        for line in settings.sources:
            known = old.pop(line, None)
            source = known or self._prepared.pop(line, None) or self._make(line, settings)
            source.interval = settings.discoverInterval
            source.replicas = settings.readsReplicas
            self._sources[line] = source
            if self._running and known is None:
                source.start(self._notify)
        for source in old.values():
            source.stop()
        self._prepared.clear()

    def _make(self, line: str, settings: PoolSettings) -> Any:
        source = self.makeSource(line, self._reactor, interval=settings.discoverInterval)
        source.login = self.login
        source.replicas = settings.readsReplicas
        return source

    def _notify(self, servers: object) -> None:
        self._changed()

    def start(self, timeout: float) -> Deferred[None]:
        """
        Look up the servers from now on.

        @param timeout: how many seconds to wait for the first answers.

        @return: fires when each source has answered or failed, or the time is over.
        """
        self._running = True
        for source in self._sources.values():
            source.start(self._notify)
        unknown = [source.lookUp() for source in self._sources.values() if not source.servers]
        if not unknown:
            return succeed(None)
        # Only these Deferreds time out, the lookups go on.
        looking = [each.addTimeout(timeout, self._reactor).addErrback(_isLogged) for each in unknown]
        return gatherResults(looking).addCallback(lambda _: None)

    def logIn(self, login: Login | None) -> None:
        """
        @param login: the user and password for the sources that want one, from the next lookup on.
        """
        self.login = login
        for source in self._sources.values():
            source.login = login

    def hurry(self) -> None:
        """
        The servers may be others now: look them up soon.
        """
        for source in self._sources.values():
            source.hurry()

    def lookUp(self) -> Deferred[list[str]]:
        """
        Look up all servers again.

        @return: fires with a line for each source that could not be looked up.
        """
        looking = [source.lookUp().addCallbacks(lambda _: "", _textOf) for source in self._sources.values()]
        return gatherResults(looking).addCallback(lambda texts: [text for text in texts if text])

    def stop(self) -> None:
        """
        Stop looking up. The servers stay known. No timer and no socket is left.
        """
        self._running = False
        for source in (*self._sources.values(), *self._prepared.values()):
            source.stop()


def sentinelLogin(settings: PoolSettings) -> Login | None:
    """
    Read the user and password for the sentinels of a pool.

    @raise ValueError: they cannot be read.
    """
    return None if settings.sentinelAuth is None else readLogins(settings.sentinelAuth)[0]


def _lines(servers: dict[str, list[Server]]) -> tuple[tuple[str, str], ...]:
    return tuple((line, str(server)) for line, found in servers.items() for server in found)


def _withoutWeights(line: str, servers: list[Server]) -> list[Server]:
    """
    @return: the servers without weights that come from their source, and not from its line.
    """
    return servers if "weight=" in line else [replace(each, weight=None) for each in servers]


def _isLogged(failure: Failure) -> None:
    """
    Ignore the failure of a lookup, which the L{Discovery} has logged.
    """


def _textOf(failure: Failure) -> str:
    return failure.getErrorMessage()
