# -*- test-case-name: tests.redis.test_replicas -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The pools of a master and of its replicas, as sentinels name them, for programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.net.discovery import REPLICA, endpointsOf
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.handshake import Handshake
from txconnpool.routing.clientcluster import ReadFrom
from txconnpool.routing.clientnodes import ClientNodes, same
from txconnpool.routing.clusterrouters import ReplicatedRouter
from txconnpool.routing.following import NO_MASTER
from txconnpool.routing.lookups import Lookups
from txconnpool.routing.replicas import ReplicatedPool

_log = Logger("txconnpool.routing")


@dataclass(frozen=True)
class ReplicatedServers:
    """
    The servers of a pool that are a master and its replicas.

    @ivar line: the line C{sentinel:NAME@HOST:PORT,HOST:PORT}.
    @ivar readFrom: see L{NodePools<txconnpool.routing.nodes.NodePools>}, as for C{patience}.
    @ivar login: the user and password for the sentinels, or C{None}.
    @ivar handshake: that of the connections. It gets to know which servers are replicas.
    @ivar probe: see L{IDialect.probe<txconnpool.wire.IDialect>}.
    """

    line: str
    readFrom: ReadFrom
    patience: float
    login: tuple[bytes, bytes] | None
    handshake: Handshake
    probe: tuple[Any, bytes]

    #: The servers are not equal.
    equal = False

    @property
    def addresses(self) -> list[str]:
        """
        The endpoint strings of the sentinels, as long as no server is known.
        """
        return endpointsOf(self.line)


class ClientReplicas(ClientNodes, ReplicatedPool):
    """
    The pools of a master and of its replicas for a program.

    @ivar lookups: looks them up.
    """

    lookups: Lookups

    def __init__(self, pool: Any, make: Callable[..., Any], servers: ReplicatedServers) -> None:
        """
        @param pool: a pool that C{make} has made. It has the options, and is not used.
        @param make: makes the pool of a server, see L{MakePool<txconnpool.routing.library.MakePool>}.
        """
        self._prepare(make, pool.reactor)
        self._handshake = servers.handshake
        self.lookups = Lookups(servers.line, pool.reactor, self._found, self._tried)
        self.lookups.source.login = servers.login
        self.lookups.source.replicas = True
        super().__init__(
            pool.name, pool.reactor, self._node, pool.limits, 0, servers.readFrom, self.lookups.hurry, servers.probe
        )
        self.patience = servers.patience
        self.router = ReplicatedRouter(self, same, same)

    def _node(self, endpoint: str, limits: Limits, maxPinned: int, **sharing: Any) -> Any:
        return self._make([endpoint], limits=limits, lookAgain=self.wrong, **sharing)

    def _found(self, servers: Iterable[Any]) -> None:
        """
        The sentinels name other servers.
        """
        known = list(servers)
        replicas = [each.endpoint for each in known if each.label == REPLICA]
        master = next(each.endpoint for each in known if each.label != REPLICA)
        self._handshake.replicas = frozenset(map(str, replicas))
        self.follow(master, replicas)
        _log.info("{pool}: the master is {master}, and replicas that can be read are: {replicas}", pool=self.name,
                  master=master, replicas=", ".join(map(str, replicas)) or "none")  # fmt: skip

    @property
    def unserved(self) -> PoolError:
        """
        The error for requests while no master is known.
        """
        error = super().unserved
        return error if isinstance(error, PoolClosed) else self.lookups.unavailable(NO_MASTER)

    @property
    def _hasTried(self) -> bool:
        return bool(self.primaries or self.lookups.count)

    # -- Servers

    def addServer(self, address: Any) -> None:
        """
        @raise ValueError: always.
        """
        raise ValueError("the servers are those that the sentinels name")

    removeServer = addServer
