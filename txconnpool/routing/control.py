# -*- test-case-name: tests.memcache.test_servers -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What programs see and change of a pool, whether it has one server, several equal ones, or several that share the keys.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, Generic

from txconnpool.errors import ServerUnavailable
from txconnpool.metrics import Counters, Histogram, PoolStats
from txconnpool.net.addresses import endpointOf
from txconnpool.pool.checks import checkClients
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.records import Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.pool.leases import C
from txconnpool.routing.clientcluster import ClientCluster
from txconnpool.routing.maps import Shard
from txconnpool.routing.options import serverOf
from txconnpool.routing.shards import ShardedPool


class ClientShards(ShardedPool):
    """
    The pools of several servers for a program. A connection is opened when there is work for it.
    """

    leastConnections = 0

    def _poolOf(self, address: Any) -> Any:
        for pool in self.pools:
            if pool.servers[0].address is address:
                return pool
        return super()._poolOf(address if isinstance(address, str) else endpointOf(address, self.reactor)[0])

    def addServer(self, address: Any) -> None:
        """
        Add a server. It gets its part of the keys of the others.

        @param address: see L{Servers.__init__<txconnpool.routing.options.Servers.__init__>}.

        @raise ValueError: the address is invalid, or not possible with the distribution.
        """
        server = serverOf(address)
        self._changeServers([*self._shards, Shard(server.endpoint, server.spec())])

    def removeServer(self, address: Any) -> None:
        """
        Remove a server for good. Its keys go to the others.

        @raise ValueError: there is no such server, or no other one.
        """
        gone = self.pools.index(self._poolOf(address))
        self._changeServers([shard for index, shard in enumerate(self._shards) if index != gone])

    def _changeServers(self, shards: list[Shard]) -> None:
        self.change(shards, self._distribution, self.limits, self._ejection)

    def markDown(self, address: Any, cause: BaseException) -> None:
        """
        Do not dial a server for a while, as after a failed dial. Its connections stay.
        """
        self._poolOf(address).markDown(address, cause)


class PoolControls(Generic[C]):
    """
    Shows the state of a pool, and changes it.

    Methods that concern a server take its address as it was given to the pool, or its name. They raise C{ValueError} if
    there is no such server.
    """

    # A BasePool, the ClientShards of several, or a ClientCluster.
    _control: Any

    # Whether each request may be sent to any server.
    _equal: bool

    # -- What there is

    @property
    def servers(self) -> list[Server]:
        """
        All servers, those that are down or drained included.
        """
        servers: list[Server] = self._control.servers
        return servers

    @property
    def former(self) -> list[Server]:
        """
        The servers that were removed, with their counters.
        """
        former: list[Server] = self._control.former
        return former

    @property
    def connections(self) -> list[C]:
        """
        The clients of all established connections.
        """
        connections: list[C] = self._control.connections
        return connections

    @property
    def records(self) -> list[Record]:
        """
        The records of all connections and dials in progress.
        """
        records: list[Record] = self._control.records
        return records

    @property
    def stats(self) -> PoolStats:
        """
        The gauges and counters of this moment.
        """
        stats: PoolStats = self._control.stats
        return stats

    @property
    def counters(self) -> Counters:
        """
        The counters of all events.
        """
        counters: Counters = self._control.counters
        return counters

    @property
    def limits(self) -> Limits:
        """
        The limits in force.
        """
        limits: Limits = self._control.limits
        return limits

    @property
    def replicas(self) -> Collection[str] | None:
        """
        The names of the servers that are replicas; C{None}: the servers have no such roles.
        """
        replicas: Collection[str] | None = self._control.replicas
        return replicas

    @property
    def paused(self) -> bool:
        """
        Whether all requests wait.
        """
        return bool(self._control.paused)

    @property
    def waiting(self) -> int:
        """
        The number of waiters.
        """
        return int(self._control.waiting)

    @property
    def waits(self) -> Histogram:
        """
        The times that waiters have waited before they were served.
        """
        waits: Histogram = self._control.waits
        return waits

    @property
    def longestWait(self) -> float:
        """
        How long the first waiter has waited, in seconds; 0 if there is none.
        """
        return float(self._control.longestWait)

    # -- Changes

    def addServer(self, address: Any) -> None:
        """
        Add a server. If the servers share the keys, it gets its part of them.

        @raise ValueError: C{address} is invalid, or the pool was made for one server and the servers are not equal.
        """
        if not (self._equal or isinstance(self._control, ClientShards | ClientCluster)):
            raise ValueError(f"{self._control.name} was made for one server that has all keys; it cannot get another")
        self._control.addServer(address)

    def removeServer(self, address: Any) -> None:
        """
        Remove a server for good. Its connections are closed when they carry nothing.
        """
        self._control.removeServer(address)

    def markDown(self, address: Any, cause: BaseException) -> None:
        """
        Do not dial a server for a while, as after a failed dial. Its connections stay.
        """
        self._control.markDown(address, cause)

    def removeServerFromRotation(self, serverAddress: Any) -> None:
        """
        Do not dial a server for a while: the name of L{markDown} in txconnpool 0.1.2.
        """
        self.markDown(serverAddress, ServerUnavailable("taken out of rotation"))

    def setLimits(self, limits: Limits) -> None:
        """
        Apply other limits, to existing connections and waiters too.
        """
        self._control.setLimits(limits)

    def resize(self, minClients: int, maxClients: int) -> None:
        """
        Apply other limits on the number of connections. Surplus connections are closed when they carry nothing.
        """
        checkClients(minClients, maxClients)
        self.setLimits(replace(self.limits, minimum=minClients, maximum=maxClients))

    def suggestMaxClients(self, maxClients: int) -> None:
        """
        Apply another limit on the number of connections, as L{resize} does.
        """
        self.resize(min(self.limits.minimum, maxClients), maxClients)

    def setConnectTimeout(self, timeout: float | None) -> None:
        """
        Apply another C{connectTimeout}. Dials in progress keep theirs.
        """
        self._control.setConnectTimeout(timeout)

    def pause(self) -> None:
        """
        Let all requests wait from now on, without limit. Requests in flight continue.
        """
        self._control.pause()

    def resume(self) -> None:
        """
        End a pause.
        """
        self._control.resume()

    def drain(self, address: Any, abort: bool = False) -> None:
        """
        Take a server out of service until it is restored: it is given no new requests, its connections are closed when
        they carry nothing, and it is not dialed.

        @param abort: whether to close its connections at once, with requests in flight.
        """
        self._control.drain(address, abort)

    def restore(self, address: Any) -> None:
        """
        Put a drained server back into service. If it is down, it is dialed without delay.
        """
        self._control.restore(address)

    # -- Tests

    def selfCheck(self) -> None:
        """
        Check all invariants that hold between events. For tests.

        @raise AssertionError: one is broken. The text names it.
        """
        self._control.selfCheck()
