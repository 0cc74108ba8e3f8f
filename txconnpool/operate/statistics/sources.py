# -*- test-case-name: tests.operate.statistics.test_table -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The sources from which statistics are read: a process, a pool, a server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from txconnpool.pool.decisions.records import CHECKING, DIALING, RETIRING, Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.sessions import SessionFactory
from txconnpool.wire import Command

#: States of a connection.
STATES: Final = ("dialing", "idle", "busy", "held", "checking", "retiring")


#: So many commands all have a number in statistics. Redis has hundreds, of which most are never used.
FEW = 64


@dataclass(frozen=True)
class ProcessSource:
    """
    The source of the statistics of a process.

    @ivar started: when the process started, in seconds since the epoch.
    @ivar buffered: the bytes held for its clients.
    @ivar lag: how late its last regular timer was, in seconds; C{None} if it has no such timer.
    @ivar workers: the number of its worker processes in each state; C{None} if it has none.
    """

    started: float
    buffered: BufferedBytes
    lag: float | None = None
    workers: dict[str, int] | None = None


@dataclass(frozen=True)
class PoolSource:
    """
    The source of the statistics of a pool.

    @ivar pool: the pool of connections, an L{IPoolControl<txconnpool.interfaces.IPoolControl>}.
    @ivar sessions: the factory of its sessions.
    @ivar running: whether it accepts new clients.
    @ivar slow: the number of slow requests.
    """

    pool: Any
    sessions: SessionFactory
    running: bool
    slow: int = 0

    @property
    def mapAge(self) -> float | None:
        """
        Seconds since the cluster has reported where the keys are; C{None} if it never did, or if there is none.
        """
        cluster = self.pool.cluster
        if cluster is None or not cluster.refreshing.count:
            return None
        age: float = cluster.reactor.seconds() - cluster.refreshing.since
        return age

    @property
    def state(self) -> str:
        """
        C{"ready"}, or why it is not: C{"draining"}, C{"paused"} or C{"down"}.
        """
        if not self.running:
            return "draining"
        if self.pool.paused:
            return "paused"
        return "ready" if any(server.state == "up" for server in self.pool.servers) else "down"


class ServerSource:
    """
    The source of the statistics of a server in a pool.

    @ivar server: the server.
    @ivar traffic: its counters.
    @ivar records: the records of its connections.
    @ivar ejected: whether other servers have its keys.
    @ivar node: the L{NodeView<txconnpool.routing.cluster.nodes.NodeView>}, if it is the node of a cluster.
    @ivar replica: whether it is a replica; C{None}: the servers of its pool have no roles.
    """

    def __init__(
        self,
        server: Server,
        records: list[Record],
        commands: tuple[Command, ...],
        now: float,
        ejected: frozenset[str] = frozenset(),
        node: Any = None,
        replica: bool | None = None,
    ) -> None:
        """
        @param records: the records of all connections of the pool.
        @param commands: the commands of the dialect.
        @param now: the pool's time, in seconds.
        @param ejected: the names of all servers of the pool whose keys others have.
        """
        self.server = server
        self.traffic = server.traffic
        self.ejected = server.name in ejected
        self.node = node
        self.replica = replica
        self.records = [record for record in records if record.server.traffic is server.traffic]
        self._commands = commands
        self._now = now

    def byCommand(self, counts: list[int]) -> dict[str, int]:
        """
        @param counts: counts by the index of a command.

        @return: counts by the name of a command. If a protocol has more than L{FEW} commands, those that were never
            used are left out.
        """
        few = len(self._commands) <= FEW
        return {command.name: counts[command.index] for command in self._commands if few or counts[command.index]}

    @property
    def states(self) -> dict[str, int]:
        """
        The number of connections in each of L{STATES}.
        """
        states = dict.fromkeys(STATES, 0)
        for record in self.records:
            states[_stateOf(record)] += 1
        return states

    @property
    def operations(self) -> dict[str, int]:
        """
        Answered requests by the group of their command; of those that read or touch, keys.
        """
        traffic, counts = self.traffic, dict[str, int]()
        for command in self._commands:
            if command.group:
                count = traffic.requests[command.index]
                if command.isLookup:
                    count -= traffic.failed[command.index]
                counts[command.group] = counts.get(command.group, 0) + count
        for group, lookups in (("get", traffic), ("touch", traffic.touches)):
            if group in counts:
                counts[group] += lookups.moreKeys
        return counts

    @property
    def misses(self) -> int:
        """
        The number of keys that were read and not found.
        """
        return self.traffic.missed + self.traffic.moreMissed

    @property
    def hits(self) -> int:
        """
        The number of keys that were read and found.
        """
        return self.operations.get("get", 0) - self.misses

    @property
    def since(self) -> float:
        """
        Seconds since the server went up or down; 0 if it never did.
        """
        return max(0.0, self._now - self.server.since) if self.server.since else 0.0


def _stateOf(record: Record) -> str:
    if record.phase in (DIALING, CHECKING, RETIRING):
        return record.phase
    if record.held:
        return "held"
    return "busy" if record.load else "idle"
