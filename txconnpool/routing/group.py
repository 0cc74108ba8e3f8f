# -*- test-case-name: tests.routing.test_shards -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Several pools that operators see as one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from txconnpool.metrics import Counters, PoolStats
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.servers import Server, keepFormer
from txconnpool.pool.decisions.shared import Shared


class PoolGroup:
    """
    Several pools with common limits: the maximum of connections is divided among them, each has at least one, and their
    waiters count together.

    @ivar name: the name in logs.
    @ivar reactor: the reactor of all connections.
    @ivar pools: the pools, one for each address.
    @ivar limits: the limits of all pools together.
    @ivar former: the servers that were removed, with their counters.
    @ivar ended: called when the pools are being closed, if it is not C{None}.
    """

    ended: Callable[[], object] | None = None

    #: The number of connections to each server that are kept open in any case.
    leastConnections = 1
    #: See L{IPoolControl<txconnpool.interfaces.IPoolControl>}.
    cluster: Any = None
    replicas: Collection[str] | None = None

    def __init__(self, name: str, reactor: Any, limits: Limits, shared: Shared | None = None) -> None:
        """
        @param shared: what this group shares with other pools, if it is one of another group.
        """
        self.name = name
        self.reactor = reactor
        self.limits = limits
        self.former: list[Server] = []
        self.pools: tuple[Any, ...] = ()
        self._shared = shared or Shared()
        self._paused = False
        self._running = False
        self._leaving: dict[Any, Deferred[None]] = {}

    # -- What there is

    @property
    def _present(self) -> tuple[Any, ...]:
        """
        The pools whose connections are those of operators.
        """
        return self.pools

    @property
    def running(self) -> bool:
        """
        Whether the pools are started and not being closed.
        """
        return self._running

    @property
    def servers(self) -> list[Server]:
        """
        All servers.
        """
        return [server for pool in self.pools for server in pool.servers]

    @property
    def connections(self) -> list[Any]:
        """
        All established connections.
        """
        return [connection for pool in self._present for connection in pool.connections]

    @property
    def records(self) -> list[Any]:
        """
        The records of all connections and dials in progress.
        """
        return [record for pool in self._present for record in pool.records]

    @property
    def counters(self) -> Any:
        """
        The counters of all events.
        """
        return self._shared.counters

    @property
    def waits(self) -> Any:
        """
        The times that waiters have waited.
        """
        return self._shared.waits

    @property
    def waiting(self) -> int:
        """
        The number of waiters.
        """
        return self._shared.waiting

    @property
    def longestWait(self) -> float:
        """
        How long the first waiter has waited, in seconds; 0 if there is none.
        """
        longest: float = max((pool.longestWait for pool in self.pools), default=0.0)
        return longest

    @property
    def paused(self) -> bool:
        """
        Whether all requests wait.
        """
        return self._paused

    @property
    def stats(self) -> PoolStats:
        """
        The gauges and counters of this moment. Counters are those of all pools already.
        """
        each: list[PoolStats] = [pool.stats for pool in self._present]
        return PoolStats(
            maximum=self.limits.maximum,
            waited=sum(self.waits.counts),
            waitTime=self.waits.total,
            **{name: sum(getattr(stats, name) for stats in each) for name in _GAUGES},
            **{name: getattr(self.counters, name) for name in Counters.__slots__},
        )

    # -- Changes

    def _join(self, pool: Any) -> None:
        if self._paused:
            pool.pause()
        if self._running:
            pool.start()

    def _remove(self, pool: Any) -> None:
        for server in pool.servers:
            keepFormer(self.former, server)
        self._leave(pool)

    def _leave(self, pool: Any) -> None:
        """
        Close a pool that is none of this group any more.
        """
        for queue in pool.queues:
            self._shared.queues.remove(queue)
        ending = self._leaving[pool] = pool.close()
        ending.addCallback(lambda _: self._leaving.pop(pool))

    def setConnectTimeout(self, timeout: float | None) -> None:
        """
        Apply another timeout for connecting.
        """
        for pool in self.pools:
            pool.setConnectTimeout(timeout)

    def pause(self) -> None:
        """
        Let all requests wait from now on, without limit.
        """
        self._paused = True
        for pool in self.pools:
            pool.pause()

    def resume(self) -> None:
        """
        End a pause.
        """
        self._paused = False
        for pool in self.pools:
            pool.resume()

    def _poolOf(self, address: Any) -> Any:
        for pool in self.pools:
            if any(address in (server.name, server.address) for server in pool.servers):
                return pool
        names = ", ".join(server.name for server in self.servers)
        raise ValueError(f"no server {address!r}; there are: {names}")

    def drain(self, address: Any, abort: bool = False) -> None:
        """
        Take a server out of service, until it is restored.

        @raise ValueError: there is no such server.
        """
        self._poolOf(address).drain(address, abort)

    def _divided(self, count: int) -> Iterator[Limits]:
        """
        @return: the limits of each of C{count} pools.
        """
        limits = self.limits
        for index in range(count):
            maximum = max(1, limits.maximum // count + (index < limits.maximum % count))
            minimum = min(
                maximum, max(self.leastConnections, limits.minimum // count + (index < limits.minimum % count))
            )
            yield replace(limits, maximum=maximum, minimum=minimum)

    def expire(self) -> None:
        """
        Replace all existing connections one after another. Each stays in use until its successor is established, and
        is closed when it carries nothing.
        """
        for pool in self.pools:
            pool.expire()

    # -- Life cycle

    def start(self) -> None:
        """
        Begin to connect.
        """
        self._running = True
        for pool in self.pools:
            pool.start()

    def close(self, timeout: float | None = None) -> Deferred[None]:
        """
        Close all pools.

        @return: fires when no connection, dial or timer is left.
        """
        self._stop()
        closing = [pool.close(timeout) for pool in self.pools]
        closing += [pool.close(timeout) for pool in list(self._leaving)]
        return DeferredList(closing).addCallback(lambda _: None)

    def abort(self) -> None:
        """
        Close all connections at once.
        """
        self._stop()
        for pool in [*self.pools, *self._leaving]:
            pool.abort()

    def _stop(self) -> None:
        self._running = False
        if self.ended is not None:
            self.ended()

    def selfCheck(self) -> None:
        """
        Check all invariants that hold between events. For tests.

        @raise AssertionError: one is broken. The text names it.
        """
        for pool in self.pools:
            pool.selfCheck()


#: The fields of L{PoolStats} that are sums over the pools. The others are counted together.
_GAUGES = ("connections", "idle", "busy", "dialing", "inFlight", "waiting")
