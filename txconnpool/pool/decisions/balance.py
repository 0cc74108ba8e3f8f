# -*- test-case-name: tests.pool.test_balance -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The distribution of a pool's connections among its servers.
"""

from __future__ import annotations

from collections.abc import Iterable

from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.records import DIALING, RETIRING, Record
from txconnpool.pool.decisions.servers import Server, keepFormer


class Balance:
    """
    The servers of a pool. They are equal: any of them can serve any request.

    Each may have an equal share of the connections, rounded up. The share of a server that is down is not given to
    others, so that dials can find out when it is up again.

    @ivar limits: the limits in force.
    @ivar servers: all servers that were not removed, those that are down or drained included.
    @ivar former: servers that were removed.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.servers: list[Server] = []
        self.former: list[Server] = []
        self._turn = 0  # the index after the server that was dialed last

    @property
    def share(self) -> int:
        """
        The number of connections that each server may have.
        """
        return -(-self.limits.maximum // max(1, sum(1 for server in self.servers if not server.drained)))

    def next(self, connections: int, now: float) -> Server | None:
        """
        Choose the server to dial next: the one with the fewest connections, in turn among equals. The
        successor of a connection that is too old is dialed apart from this.

        @param connections: the number of connections that the pool has, dials in progress included.
        """
        count = len(self.servers)
        if not count or connections >= self.limits.maximum:
            return None
        share = self.share
        best = None
        for offset in range(count):
            server = self.servers[(self._turn + offset) % count]
            if self.accepts(server, now) and server.count < share and (best is None or server.count < best.count):
                best = server
        return best

    def accepts(self, server: Server, now: float) -> bool:
        """
        @return: whether C{server} may be dialed now. There are C{limits.dials} to it at a time. After one that failed
            there is a delay, and then one at a time.
        """
        dials = 1 if server.failures else self.limits.dials
        return server.dialing < dials and not server.drained and server.retryAt <= now

    def dialed(self, server: Server) -> None:
        """
        A dial to C{server} begins, so another one is the next.
        """
        self._turn = self.servers.index(server) + 1

    def surplus(self, records: Iterable[Record]) -> list[Record]:
        """
        Choose the connections to close after the limits or the servers have changed: those of servers that have more
        than their share, then those of the servers that have the most, the least loaded connections first.
        """
        standing: dict[Server, list[Record]] = {}
        for record in sorted(records, key=lambda record: (record.phase is DIALING, -record.load)):
            if record.phase is not RETIRING and not record.doomed and record.replaces is None:
                standing.setdefault(record.server, []).append(record)
        share = self.share
        surplus = [record for mine in standing.values() for record in mine[share:]]
        left = [mine[:share] for mine in standing.values()]
        for _ in range(sum(map(len, left)) - self.limits.maximum):
            surplus.append(max(left, key=len).pop())
        return surplus

    def remove(self, server: Server) -> None:
        """
        Remove a server for good. Its counters are kept.
        """
        self.servers.remove(server)
        keepFormer(self.former, server)

    def selfCheck(self, records: Iterable[Record]) -> None:
        """
        Check that the servers agree with the records. For tests.

        @raise AssertionError: they do not. The text names the broken invariant.
        """
        phases: dict[Server, list[str]] = {server: [] for server in self.servers}
        for record in records:
            phases.setdefault(record.server, []).append(record.phase)
        for server, mine in phases.items():
            assert server.count == len(mine), f"{server} has {mine}"
            assert mine.count(DIALING) == server.dialing, f"dialing is {server.dialing}: {server} has {mine}"
        staying = [
            record
            for record in records
            if record.phase is not RETIRING and not record.doomed and record.replaces is None
        ]
        assert len(staying) <= self.limits.maximum, f"more than {self.limits.maximum} connections: {staying}"
