# -*- test-case-name: tests.routing.test_flavours -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The pools of a protocol whose connections have a state: one for each flavour of connections, and one for the connections
that clients have for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from zope.interface import implementer

from txconnpool.errors import PoolFull
from txconnpool.interfaces import IPoolControl
from txconnpool.metrics import Counters, PoolStats
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.shared import Shared

#: The greatest number of flavours of a pool: 16 databases with two versions of the protocol.
FLAVOURS_MAX = 32

_GAUGES = ("connections", "idle", "busy", "dialing", "inFlight", "waiting")


@implementer(IPoolControl)
class FlavouredPool:
    """
    The pool of each flavour, made when it is first used, and the pool for connections of a client's own. Operators see
    them as one pool.

    @ivar base: the pool of the flavour that new clients have.
    @ivar leases: the pool of the connections that clients have for themselves.
    """

    def __init__(self, flavour: Hashable, make: Callable[..., Any], limits: Limits, maxPinned: int) -> None:
        """
        @param flavour: the flavour of new clients.
        @param make: called with a flavour, limits, and the keyword C{shared}. Returns a pool.
        @param maxPinned: the greatest number of connections that clients have for themselves.
        """
        self._shared = Shared()
        self._make = make
        self._limits = limits
        self._maxPinned = maxPinned
        self._started = self._paused = False
        self.base = make(flavour, limits, shared=self._shared)
        self.leases = make(flavour, self._leaseLimits(), shared=self._shared)
        self._pools: dict[Hashable, Any] = {flavour: self.base}
        self._count(self.leases)

    def of(self, flavour: Hashable) -> Any:
        """
        @return: the pool of a flavour.

        @raise PoolFull: there are too many flavours.
        """
        pool = self._pools.get(flavour)
        if pool is None:
            if len(self._pools) >= FLAVOURS_MAX:
                raise PoolFull(f"clients use {FLAVOURS_MAX} databases and versions of the protocol already")
            pool = self._make(flavour, replace(self._limits, minimum=0), shared=self._shared)
            self._count(pool)
            for server in self.base.servers:
                if server.drained:
                    pool.drain(server.name)
            if self._started:
                pool.start()
            if self._paused:
                pool.pause()
            self._pools[flavour] = pool
        return pool

    def _leaseLimits(self) -> Limits:
        return replace(self._limits, maximum=self._maxPinned, minimum=0)

    def _count(self, pool: Any) -> None:
        """
        Let the servers of a pool have the counters of those of the base.
        """
        traffic = {server.name: server.traffic for server in self.base.servers}
        for server in pool.servers:
            server.traffic = traffic[server.name]

    @property
    def _all(self) -> list[Any]:
        return [*self._pools.values(), self.leases]

    # -- What there is

    @property
    def name(self) -> str:
        """
        The name of the pool.
        """
        name: str = self.base.name
        return name

    @property
    def servers(self) -> list[Any]:
        """
        The servers, as the pool of new clients sees them.
        """
        servers: list[Any] = self.base.servers
        return servers

    @property
    def former(self) -> list[Any]:
        """
        The servers that were removed, with their counters.
        """
        former: list[Any] = self.base.former
        return former

    @property
    def records(self) -> list[Any]:
        """
        The records of all connections and dials.
        """
        return [record for pool in self._all for record in pool.records]

    @property
    def connections(self) -> list[Any]:
        """
        All established connections.
        """
        return [connection for pool in self._all for connection in pool.connections]

    @property
    def counters(self) -> Any:
        """
        The counters of all events.
        """
        return self._shared.counters

    @property
    def limits(self) -> Limits:
        """
        The limits of the pool of one flavour.
        """
        return self._limits

    @property
    def paused(self) -> bool:
        """
        Whether all requests wait.
        """
        return self._paused

    @property
    def down(self) -> bool:
        """
        Whether requests of new clients are refused because no server can be reached.
        """
        down: bool = self.base.down
        return down

    @property
    def waiting(self) -> int:
        """
        The number of waiters.
        """
        return self._shared.waiting

    @property
    def waits(self) -> Any:
        """
        The times that waiters have waited.
        """
        return self._shared.waits

    @property
    def longestWait(self) -> float:
        """
        How long the first waiter has waited, in seconds.
        """
        longest: float = max(pool.longestWait for pool in self._all)
        return longest

    @property
    def stats(self) -> PoolStats:
        """
        Gauges and counters of this moment.
        """
        each: list[PoolStats] = [pool.stats for pool in self._all]
        return PoolStats(
            maximum=self._limits.maximum,
            waited=sum(self.waits.counts),
            waitTime=self.waits.total,
            **{name: sum(getattr(stats, name) for stats in each) for name in _GAUGES},
            **{name: getattr(self.counters, name) for name in Counters.__slots__},
        )

    # -- Changes

    def _each(self, method: str, *arguments: Any) -> None:
        for pool in self._all:
            getattr(pool, method)(*arguments)

    def setLimits(self, limits: Limits, maxPinned: int | None = None) -> None:
        """
        Apply other limits.
        """
        self._limits = limits
        if maxPinned is not None:
            self._maxPinned = maxPinned
        for pool in self._pools.values():
            pool.setLimits(limits if pool is self.base else replace(limits, minimum=0))
        self.leases.setLimits(self._leaseLimits())

    def setConnectTimeout(self, timeout: float | None) -> None:
        """
        Apply another timeout for connecting.
        """
        self._each("setConnectTimeout", timeout)

    def addServer(self, address: Any) -> None:
        """
        Add a server.
        """
        self._each("addServer", address)
        for pool in self._all:
            self._count(pool)

    def removeServer(self, address: Any) -> None:
        """
        Remove a server for good.
        """
        self._each("removeServer", address)

    def useAddresses(self, addresses: dict[str, Any]) -> None:
        """
        @param addresses: what is dialed from now on, by the names of servers.
        """
        for pool in self._all:
            for server in pool.servers:
                server.address = addresses.get(server.name, server.address)

    def drain(self, address: Any, abort: bool = False) -> None:
        """
        Take a server out of service until it is restored.
        """
        self._each("drain", address, abort)

    def restore(self, address: Any) -> None:
        """
        Put a drained server back into service.
        """
        self._each("restore", address)

    def expire(self) -> None:
        """
        Replace all existing connections.
        """
        self._each("expire")

    def pause(self) -> None:
        """
        Let all requests wait from now on.
        """
        self._paused = True
        self._each("pause")

    def resume(self) -> None:
        """
        End a pause.
        """
        self._paused = False
        self._each("resume")

    # -- Life cycle

    def start(self) -> None:
        """
        Begin to connect.
        """
        self._started = True
        self._each("start")

    def close(self, timeout: float | None = None) -> Deferred[None]:
        """
        Close all pools.

        @return: fires when no connection, dial or timer is left.
        """
        self._started = False
        return DeferredList([pool.close(timeout) for pool in self._all]).addCallback(lambda _: None)

    def abort(self) -> None:
        """
        Close all connections at once.
        """
        self._each("abort")

    def selfCheck(self) -> None:
        """
        Check all invariants that hold between events. For tests.
        """
        self._each("selfCheck")
