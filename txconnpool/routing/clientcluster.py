# -*- test-case-name: tests.redis.test_cluster -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The pools of the nodes of a cluster, for programs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twisted.internet.defer import Deferred

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.pool.checks import checkType
from txconnpool.pool.decisions.limits import Limits
from txconnpool.routing.asking import ask
from txconnpool.routing.cluster.line import FORM, ClusterLine, isCluster, readCluster
from txconnpool.routing.clusterrouters import ClusterRouter
from txconnpool.routing.clusters import ClusterPool
from txconnpool.routing.waits import Waits
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

    #: The nodes are not equal, and no distribution is ours.
    equal = False
    distribution = None

    @property
    def addresses(self) -> list[str]:
        """
        The endpoint strings of the seeds.
        """
        return self.line.endpoints


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
        raise ValueError(f"{lines[0].split()[0]} is for the proxy, which looks up nodes; expected {FORM}")
    return line


def checkReadFrom(readFrom: Any, cluster: bool) -> None:
    """
    @raise ValueError: C{readFrom} is none of its values, or is used without a cluster.
    """
    checkType("readFrom", readFrom, str, "a text")
    if readFrom not in _READ_FROM:
        raise ValueError(f"readFrom must be 'primary', 'prefer-replica', 'replica' or 'nearest', not {readFrom!r}")
    if readFrom != "primary" and not cluster:
        raise ValueError(f"readFrom={readFrom!r} is for clusters: the address must be cluster:HOST:PORT,HOST:PORT")


def _same(pool: Any) -> Any:
    return pool


class ClientCluster(ClusterPool):
    """
    The pools of the nodes of a cluster for a program. A connection is opened when there is work for it, and one may be
    leased.

    @ivar router: the choice by slot.
    """

    leastConnections = 0

    def __init__(self, pool: Any, make: Callable[..., Any], servers: ClusterServers) -> None:
        """
        @param pool: a pool that C{make} has made for the seeds. It has the options, and is not used.
        @param make: makes the pool of a node, see L{MakePool<txconnpool.routing.library.MakePool>}.
        """
        self._make = make
        self._servers = servers
        self._waits = Waits(pool.reactor)  # for some time
        self._unknown = Waits(pool.reactor)  # for the map
        self._trigger: Any = None
        self._used = False
        line = servers.line
        super().__init__(
            pool.name, pool.reactor, self._node, self._askNode, line.seeds, pool.limits, line.addresses, 0,
            servers.readFrom, probe=servers.probe,
        )  # fmt: skip
        self.patience = servers.patience
        # A program has no states of connections: with readFrom all of them may read from replicas.
        self.router = ClusterRouter(self, _same, _same)

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

    def _connectionsOf(self, pool: Any) -> Any:
        return pool

    def _limit(self, pool: Any, limits: Limits, maxPinned: int) -> None:
        if limits != pool.limits:
            pool.setLimits(limits)

    @property
    def unserved(self) -> PoolError:  # type: ignore[override]  # that of the proxy is never used when it is closed
        """
        The error for a key whose slot no node has.
        """
        return PoolClosed("the pool was closed") if self._used and not self._running else super().unserved

    # -- Servers

    def _poolOf(self, address: Any) -> Any:
        name = address if isinstance(address, str) else ":".join(map(str, address))
        return super()._poolOf(name)

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

    def markDown(self, address: Any, cause: BaseException) -> None:
        """
        Do not dial a node for a while, as after a failed dial. Its connections stay.
        """
        self._poolOf(address).markDown(address, cause)

    @property
    def everyPool(self) -> tuple[Any, ...]:
        """
        The pools of all nodes, and of those that have left while their connections are leased.
        """
        return (*self.pools, *self._leaving)

    def leaves(self, pool: Any) -> bool:
        """
        @return: whether a pool is closed because its node has left, while others stay.
        """
        return self._running and pool not in self.pools

    # -- Time

    @property
    def isKnown(self) -> bool:
        """
        Whether requests need not wait: the cluster was asked, and they may find out themselves what it has reported.
        """
        return self._used and bool(self.refreshing.count or self.refreshing.failures or not self._running)

    def whenKnown(self) -> Deferred[None]:
        """
        Start, if nothing was started yet, and wait for the map.

        @return: fires when the cluster has reported where the keys are, or no seed has, or C{waitTimeout} is over;
            fails with L{PoolClosed} if the pool is closed. It may be cancelled.
        """
        if not self._used:
            self.start()
        return self._unknown.add(self.limits.waitTimeout)

    def wait(self, seconds: float) -> Deferred[None]:
        """
        @return: fires after some seconds; fails with L{PoolClosed} if the pool is closed before. It may be cancelled.
        """
        return self._waits.add(seconds)

    def _tried(self) -> None:
        super()._tried()
        for waiting in self._unknown:
            waiting.callback(None)

    # -- Life cycle

    def start(self) -> None:
        """
        Begin to connect, and close when the reactor stops.
        """
        self._used = True
        if not self._running:
            if self._trigger is None:
                self._trigger = self.reactor.addSystemEventTrigger("before", "shutdown", self._shutDown)
            super().start()

    def _shutDown(self) -> Deferred[None]:
        self._trigger = None
        return self.close(5.0)

    def _end(self) -> Deferred[Any] | None:
        if not self._used:
            self._used = True
            return None
        asking = super()._end()
        for waits in (self._unknown, self._waits):
            waits.fail(PoolClosed("the pool was closed"))
        if self._trigger is not None:
            self.reactor.removeSystemEventTrigger(self._trigger)
            self._trigger = None
        return asking
