# -*- test-case-name: tests.net.discovery.test_discovery -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Look up servers, again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IResolver
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.net.discovery.descriptions import Discovered, parse
from txconnpool.net.discovery.results import Answer, DiscoveryFailed, explain
from txconnpool.net.discovery.sources import makeSource

_log = Logger("txconnpool.net")

#: Seconds between two lookups, unless the TTL of an answer is shorter.
INTERVAL = 30.0

#: Seconds between two lookups if the TTL of an answer is shorter than this, and after the first failure.
SHORTEST = 1.0

#: The seconds that a lookup may take.
TIME_LIMIT = 10.0


class Discovery:
    """
    The servers that a server line such as C{dns:memcached.internal:11211} stands for.

    Constructing it does no I/O. A lookup that fails changes nothing: the servers stay as they are. The log has one line
    when lookups begin to fail, and one when they work again.

    @ivar description: the server line.
    @ivar servers: the servers of the last lookup that succeeded; none before the first one.
    @ivar interval: the seconds between two lookups, unless the TTL of an answer is shorter. If it is set, it holds from
        the next lookup on.
    """

    def __init__(
        self,
        description: str,
        reactor: Any,
        resolver: IResolver | None = None,
        interval: float = INTERVAL,
        timeLimit: float = TIME_LIMIT,
    ) -> None:
        """
        @param description: the server line, see L{parse}.
        @param reactor: the reactor of sockets and timers.
        @param resolver: looks up names for C{dns:} and C{srv:}. By default the DNS servers of C{/etc/resolv.conf} are
            asked, or those that the line names.
        @param interval: the seconds between two lookups, unless the TTL of an answer is shorter.
        @param timeLimit: the seconds after which a lookup fails.

        @raise ValueError: the line is wrong.
        """
        self.description = description
        self.servers: tuple[Discovered, ...] = ()
        self._reactor = reactor
        self.interval = interval
        self._source = makeSource(parse(description), reactor, resolver, timeLimit)
        self._running: Deferred[Answer] | None = None
        self._waiting: list[Deferred[tuple[Discovered, ...]]] = []
        self._changed: Callable[[tuple[Discovered, ...]], object] | None = None
        self._timer: IDelayedCall | None = None
        self._delay = min(interval, SHORTEST)
        self._lookedAt = 0.0  # when the last lookup began
        self._failures = 0

    def lookUp(self) -> Deferred[tuple[Discovered, ...]]:
        """
        Look up the servers now, or wait for the lookup that is under way.

        @return: fires with the servers, at least one, sorted and each only once; fails with L{DiscoveryFailed}.
            Cancelling it ends the lookup if nobody else waits for it.
        """
        waiting: Deferred[tuple[Discovered, ...]] = Deferred(self._forget)
        self._waiting.append(waiting)
        if self._running is None:
            self._lookedAt = self._reactor.seconds()
            self._running = running = self._source.lookUp()
            running.addBoth(self._ended, running)
        return waiting

    def start(self, changed: Callable[[tuple[Discovered, ...]], object]) -> None:
        """
        Look up the servers from now on: now if none are known, otherwise when the last lookup is too old.

        @param changed: called with all servers when they are others than before. The first servers are such a change.
        """
        self._changed = changed
        self._source.watch(self.hurry)
        if not self.servers:
            self._poll()
        elif self._running is None:
            self._schedule()

    def stop(self) -> None:
        """
        Stop looking up, also in the middle of a lookup: the Deferreds of L{lookUp} fail with C{CancelledError}. No
        timer and no socket is left.
        """
        self._changed = None
        self._source.unwatch()
        self._unschedule()
        for waiting in list(self._waiting):
            waiting.cancel()

    def hurry(self) -> None:
        """
        The servers may be others now: look them up now, but not more often than every L{SHORTEST} seconds.
        """
        if self._changed is not None and self._running is None:
            self._delay = min(self._delay, max(0.0, self._lookedAt + SHORTEST - self._reactor.seconds()))
            self._schedule()

    @property
    def login(self) -> tuple[bytes, bytes] | None:
        """
        The user and password for the source; only sentinels have one.
        """
        return self._source.login

    @login.setter
    def login(self, login: tuple[bytes, bytes] | None) -> None:
        self._source.login = login

    @property
    def replicas(self) -> bool:
        """
        Whether the replicas of the server are found, too; only sentinels know them. If it is set, they are looked up
        soon.
        """
        return self._source.replicas

    @replicas.setter
    def replicas(self, replicas: bool) -> None:
        if replicas != self._source.replicas:
            self._source.replicas = replicas
            self.hurry()

    def _poll(self) -> None:
        self._timer = None
        self.lookUp().addErrback(_logged)

    def _schedule(self) -> None:
        """
        Look up again after the delay, if started.
        """
        self._unschedule()
        if self._changed is not None:
            self._timer = self._reactor.callLater(self._delay, self._poll)

    def _unschedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _forget(self, waiting: Deferred[tuple[Discovered, ...]]) -> None:
        """
        Somebody does not wait any more.
        """
        self._waiting.remove(waiting)
        if not self._waiting:
            running, self._running = self._running, None
            if running is not None:
                running.cancel()

    def _ended(self, result: Answer | Failure, running: Deferred[Answer]) -> None:
        """
        A lookup has ended.
        """
        if running is not self._running:
            return  # it was cancelled
        self._running = None
        waiting, self._waiting = self._waiting, []
        if isinstance(result, Failure):
            failure = self._failed(result)
            for each in waiting:
                each.errback(failure)
            return
        self._succeeded(result)
        for each in waiting:
            each.callback(result.servers)

    def _failed(self, reason: Failure) -> DiscoveryFailed:
        text = explain(reason.value)
        if not self._failures:
            _log.warn("{source}: looking up servers failed: {reason}; the {count} servers known so far stay",
                      source=self.description, reason=text, count=len(self.servers))  # fmt: skip
        self._delay = min(self.interval, SHORTEST * 2 ** min(self._failures, 16))
        self._failures += 1
        self._schedule()
        failure = DiscoveryFailed(f"{self.description}: {text}")
        failure.__cause__ = reason.value
        return failure

    def _succeeded(self, answer: Answer) -> None:
        if self._failures:
            self._failures = 0
            _log.info("{source}: looking up servers works again", source=self.description)
        self._delay = min(self.interval, max(answer.ttl, SHORTEST))
        self._schedule()
        changed = answer.servers != self.servers
        self.servers = answer.servers
        if changed and self._changed is not None:
            try:
                self._changed(answer.servers)
            except Exception:
                _log.failure("{source}: the change of servers failed", source=self.description)


def _logged(failure: Failure) -> None:
    """
    Ignore the failure of a lookup: L{Discovery} has written it to the log, or it was cancelled.
    """
