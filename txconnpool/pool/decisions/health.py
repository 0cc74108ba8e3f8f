# -*- test-case-name: tests.pool.test_health -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Which servers of a pool are up or down, when those that are down are dialed again, and the errors for requests
meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from txconnpool.errors import LoginRefused, PoolError, PoolTimeout, ServerUnavailable
from txconnpool.metrics import Counters, PoolStats
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.records import Record
from txconnpool.pool.decisions.servers import Server

#: A connection that is lost within this number of seconds counts as a failed dial. So a server that accepts connections
#: and closes them is dialed with back-off, not in a busy loop.
FLAP = 1.0

#: The error for requests while a pool has no servers.
NO_SERVERS = "the pool has no servers"


class Health:
    """
    The reachability of the servers of a pool.

    @ivar limits: the limits in force.
    """

    def __init__(
        self, servers: list[Server], limits: Limits, counters: Counters, vary: Callable[[float, float], float]
    ) -> None:
        """
        @param servers: the list of servers, which others change.
        @param vary: C{random.uniform} or a stand-in.
        """
        self.limits = limits
        self._servers = servers
        self._counters = counters
        self._vary = vary

    @property
    def allDown(self) -> bool:
        """
        Whether no server can be reached by a dial, so that waiting for one is in vain.
        """
        enough = self.limits.whenDown
        return enough is not None and all(
            server.drained or (server.failures >= enough and not server.onDemand) for server in self._servers
        )

    @property
    def lastFailed(self) -> Server | None:
        """
        The server that went down last, if any is down.
        """
        failed = [server for server in self._servers if server.failures and not server.drained]
        return max(failed, key=lambda each: each.since, default=None)

    def succeeded(self, server: Server, now: float) -> None:
        """
        A dial to C{server} succeeded.
        """
        server.failures = 0
        self.observe(server, now)

    def failed(self, server: Server, failures: int, cause: BaseException | None, reason: str, now: float) -> None:
        """
        A dial to C{server} failed, or the like. It is dialed again after a delay.

        @param failures: the number of failures in a row, this one included.
        """
        server.failures = failures
        server.onDemand = False
        server.cause = cause
        server.reason = reason
        server.retryAt = now + self.limits.backoff.delay(failures, self._vary)
        self.observe(server, now)

    def released(self, server: Server, now: float) -> None:
        """
        The pool has closed a connection. If it was the last one of C{server}, failed dials before that do not count any
        more: the server may have served this connection well. So it is dialed before it is called down.
        """
        if server.count <= server.dialing:
            server.failures = 0
            server.retryAt = min(server.retryAt, now)

    def observe(self, server: Server, now: float) -> None:
        """
        Note when C{server} goes up or down. While it serves a connection it is up, even if it accepts no others.
        """
        if server.up is server.wasUp:
            return
        server.wasUp = server.up
        server.since = now
        if not server.up and not server.refusesLogin:
            self._counters.outages += 1
            server.traffic.outages += 1

    def flapped(self, record: Record, now: float) -> bool:
        """
        @return: whether C{record}, whose connection was lost, existed for so short a time that its dial counts as
            failed.
        """
        return now - record.born < FLAP

    # -- Errors

    def unavailable(self, stats: PoolStats) -> PoolError:
        """
        @return: the error for a request that no server can serve.
        """
        failed = self.lastFailed
        if failed is not None and failed.refusesLogin:
            return LoginRefused(str(failed.cause))
        if failed is None:
            names = ", ".join(server.name for server in self._servers)
            return ServerUnavailable(f"upstream unavailable: drained ({names})" if names else NO_SERVERS, stats)
        error = ServerUnavailable(f"upstream unavailable: {failed.reason} ({failed.name})", stats)
        error.__cause__ = failed.cause
        return error

    def timedOut(self, stats: PoolStats) -> PoolError:
        """
        @return: the error for a waiter whose time is over. It names the cause: all connections are busy, or a server
            is down.
        """
        failed = self.lastFailed
        if stats.connections or failed is None:
            return PoolTimeout(f"timed out waiting for a connection ({stats})", "wait", stats)
        if failed.refusesLogin:
            return LoginRefused(str(failed.cause))
        text = f"timed out waiting for a connection ({failed.name}: {failed.reason})"
        error = PoolTimeout(text, "wait", stats)
        error.__cause__ = failed.cause
        return error

    def missing(self, server: Server, paused: bool) -> ServerUnavailable:
        """
        @return: the error for a request to all servers, of which C{server} has no connection to use.
        """
        if server.drained:
            why = "drained"
        else:
            why = "the pool is paused" if paused else server.reason or "no connection"
        return ServerUnavailable(f"upstream unavailable: {why} ({server.name})")
