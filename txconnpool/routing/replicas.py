# -*- test-case-name: tests.proxy.test_replicas -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The pools of a master and of its replicas, which may read. Somebody else, such as sentinels, says which servers they
are. The master has all keys, so that it gets all requests that do not only read keys.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from zope.interface import implementer

from txconnpool.errors import PoolError, ServerUnavailable
from txconnpool.interfaces import IPoolControl
from txconnpool.pool.decisions.limits import Limits
from txconnpool.routing.nodes import NodePools
from txconnpool.wire.topology import SLOTS

#: The errors for requests for which there is no server.
NO_MASTER = "upstream unavailable: no master has been found yet"
NO_REPLICA = "upstream unavailable: no replica of the master is up"


@implementer(IPoolControl)
class ReplicatedPool(NodePools):
    """
    The pools of a master and of its replicas. Operators see them as one pool. The addresses of the servers are the
    nodes.
    """

    def __init__(
        self,
        name: str,
        reactor: Any,
        newPool: Callable[..., Any],
        limits: Limits,
        maxPinned: int,
        readFrom: str,
        lookAgain: Callable[[], object],
        probe: Any = None,
    ) -> None:
        """
        @param newPool: see L{NodePools.__init__}, as for C{maxPinned}.
        @param readFrom: see L{NodePools}.
        @param lookAgain: called when the servers may be others now.
        @param probe: see L{NodePools.__init__}.
        """
        super().__init__(name, reactor, newPool, limits, maxPinned, readFrom, probe)
        self._lookAgain = lookAgain
        self._servers: tuple[str | None, tuple[str, ...]] = (None, ())

    @property
    def unserved(self) -> PoolError:
        """
        The error for requests while no master is known.
        """
        return ServerUnavailable(NO_MASTER)

    @property
    def unreadable(self) -> PoolError:
        """
        The error for requests that only replicas may get.
        """
        return ServerUnavailable(NO_REPLICA)

    @property
    def replicas(self) -> Collection[str]:  # type: ignore[override]  # it is constant in other groups
        """
        The names of the servers that are replicas.
        """
        return [pool.servers[0].name for pool in self.pools if pool not in self.primaries]

    def wrong(self) -> None:
        """
        Look for the servers.
        """
        self._lookAgain()

    def follow(self, master: str | None, replicas: Sequence[str]) -> None:
        """
        Use these servers from now on. A server that had another role keeps its connections.

        @param master: the address of the master, or C{None}.
        @param replicas: those of its replicas.
        """
        servers = (master, tuple(replicas))
        if servers != self._servers:
            self._servers = servers
            self._arrange()

    def _arrange(self) -> None:
        master, replicas = self._servers
        if master is None:
            self._use([], [], [-1] * SLOTS)
        else:
            self._use([master], [replicas], [0] * SLOTS)

    def change(self, limits: Limits, maxPinned: int, readFrom: str) -> None:
        """
        Put other settings in force.
        """
        self._maxPinned = maxPinned
        self.setLimits(limits)
        if readFrom != self.readFrom:
            self.readFrom = readFrom
            self._arrange()

    def eject(self, address: Any) -> None:
        """
        @raise ValueError: always.
        """
        raise ValueError("the master has all keys; the command SENTINEL FAILOVER makes a replica the master")
