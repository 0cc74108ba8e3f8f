# -*- test-case-name: tests.redis.test_cluster -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The pools of the nodes of a cluster, for programs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twisted.internet.defer import Deferred

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.net.discovery import checkDiscovery
from txconnpool.pool.checks import checkType
from txconnpool.pool.decisions.limits import Limits
from txconnpool.routing.asking import ask
from txconnpool.routing.clientnodes import ClientNodes, same
from txconnpool.routing.cluster.line import ClusterLine, isCluster, readCluster
from txconnpool.routing.clusterrouters import ClusterRouter
from txconnpool.routing.clusters import ClusterPool
from txconnpool.routing.lookups import Lookups
from txconnpool.wire.topology import Node, Shard

#: Which nodes of a cluster get requests that read.
ReadFrom = Literal["primary", "prefer-replica", "replica", "nearest"]
_READ_FROM = ("primary", "prefer-replica", "replica", "nearest")


@dataclass(frozen=True)
class ClusterServers:
    """
    The servers of a pool that are the nodes of a cluster.

    @ivar line: the seeds, and how all nodes are reached.
    @ivar readFrom: see L{ClusterPool.__init__}.
    @ivar patience: see L{ClusterPool}.
    @ivar question: called with whether connections have TLS. Returns what asks a node for the cluster, as
        L{IDialect.topology<txconnpool.wire.IDialect>} does.
    @ivar probe: see L{IDialect.probe<txconnpool.wire.IDialect>}.
    """

    line: ClusterLine
    readFrom: ReadFrom
    patience: float
    question: Callable[[bool], Generator[Any, bytes, Sequence[Shard]]]
    probe: tuple[Any, bytes]

    #: The nodes are not equal.
    equal = False

    @property
    def addresses(self) -> list[str]:
        """
        The endpoint strings of the seeds, or that of any node if these are still to be found.
        """
        return self.line.endpoints or [self.line.endpoint(Node("localhost", 6379))]


def clusterOf(addresses: Any) -> ClusterLine | None:
    """
    @return: the cluster that the addresses of a pool stand for, or C{None}.

    @raise ValueError: the line is wrong, or there are other addresses.
    """
    lines = list(addresses) if isinstance(addresses, list | tuple) else [addresses]
    if not any(isinstance(each, str) and isCluster(each) for each in lines):
        return None
    if len(lines) > 1:
        raise ValueError("cluster:HOST:PORT,HOST:PORT stands for all servers of a pool; it cannot have others")
    line = readCluster(lines[0])
    if line.source:
        checkDiscovery(line.source)
    return line


def checkReadFrom(readFrom: Any, hasReplicas: bool) -> None:
    """
    @raise ValueError: C{readFrom} is none of its values, or there is neither a cluster nor a group with sentinels.
    """
    checkType("readFrom", readFrom, str, "a text")
    if readFrom not in _READ_FROM:
        raise ValueError(f"readFrom must be 'primary', 'prefer-replica', 'replica' or 'nearest', not {readFrom!r}")
    if readFrom != "primary" and not hasReplicas:
        raise ValueError(
            f"readFrom={readFrom!r} is for clusters and sentinels: the address must be cluster:HOST:PORT,HOST:PORT or "
            "sentinel:NAME@HOST:PORT,HOST:PORT"
        )


class ClientCluster(ClientNodes, ClusterPool):
    """
    The pools of the nodes of a cluster for a program.

    @ivar lookups: looks up the seeds; C{None}: they are in the line of the cluster.
    """

    def __init__(self, pool: Any, make: Callable[..., Any], servers: ClusterServers) -> None:
        """
        @param pool: a pool that C{make} has made for the seeds. It has the options, and is not used.
        @param make: makes the pool of a node, see L{MakePool<txconnpool.routing.library.MakePool>}.
        """
        self._prepare(make, pool.reactor)
        self._servers = servers
        line = servers.line
        super().__init__(
            pool.name, pool.reactor, self._node, self._askNode, line.seeds, pool.limits, line.addresses, 0,
            servers.readFrom, probe=servers.probe,
        )  # fmt: skip
        self.patience = servers.patience
        if line.source:
            self.lookups = Lookups(line.source, pool.reactor, self._found, self._looked)
            self._lookAgain = self.lookups.hurry
        # A program has no states of connections: with readFrom all of them may read from replicas.
        self.router = ClusterRouter(self, same, same)

    def _node(self, node: Node, limits: Limits, maxPinned: int, **sharing: Any) -> Any:
        return self._make([self._servers.line.endpoint(node)], limits=limits, **sharing)

    def _askNode(self, node: Node) -> Deferred[Sequence[Shard]]:
        """
        Ask a node for the cluster, on a connection of its own.
        """
        line = self._servers.line
        pool = self._make(
            [line.endpoint(node)], limits=Limits(maximum=1, waitTimeout=self.limits.waitTimeout, whenDown=1),
            observer=None,
        )  # fmt: skip
        return Deferred.fromCoroutine(ask(pool, self._servers.question(line.secure)))

    # -- The seeds

    def _found(self, servers: Iterable[Any]) -> None:
        """
        Use the seeds that were looked up.
        """
        line = self._servers.line.found(each.endpoint for each in servers)
        self.refreshing.use(line.seeds, self.reactor.seconds())
        self._schedule()

    def _looked(self) -> None:
        """
        The first lookup has ended. If it has found seeds, these are being asked.
        """
        if not self.refreshing.seeds:
            self._tried()

    @property
    def _hasTried(self) -> bool:
        asked = self.refreshing.count or self.refreshing.failures
        return bool(asked or (self.lookups is not None and self.lookups.count and not self.refreshing.seeds))

    @property
    def unserved(self) -> PoolError:
        """
        The error for a key whose slot no node has.
        """
        error = super().unserved
        if self.lookups is None or self.refreshing.seeds or isinstance(error, PoolClosed):
            return error
        return self.lookups.unavailable("it names no node")

    # -- Servers

    def addServer(self, address: Any) -> None:
        """
        @raise ValueError: always.
        """
        raise ValueError("the nodes of a cluster are those that it reports; CLUSTER MEET adds another")

    def removeServer(self, address: Any) -> None:
        """
        @raise ValueError: always.
        """
        raise ValueError("the nodes of a cluster are those that it reports; CLUSTER FORGET removes one")
