# -*- test-case-name: tests.pool.test_state -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The decisions of a pool, as plain Python without I/O.

L{PoolState} is notified of events (a dial succeeded, a connection was lost, time has passed) and answers each with a
list of actions (L{txconnpool.pool.decisions.actions}). It owns no socket, timer or Deferred, and takes the time as an
argument, so that every race can be tested with plain numbers. The two calls of the data path, L{Records.pick} and
L{Records.hasCapacity}, decide directly.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import uniform
from typing import Any

from txconnpool.errors import LoginRefused, PoolClosed, PoolError, PoolFull, ServerUnavailable
from txconnpool.metrics import Counters, PoolStats
from txconnpool.pool.decisions.actions import Action, Dial, Refuse
from txconnpool.pool.decisions.ageing import Ageing
from txconnpool.pool.decisions.balance import Balance
from txconnpool.pool.decisions.health import Health
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.picking import Records
from txconnpool.pool.decisions.reasons import CLIENT_GONE, CLOSED, NOT_READY, SILENT, SURPLUS
from txconnpool.pool.decisions.records import DIALING, HELD, RETIRING, Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.pool.decisions.shared import Shared
from txconnpool.pool.decisions.waiting import Ticket, Waiters


class PoolState:
    """
    The connections, waiters and servers of one pool, and every decision about them.

    @ivar limits: the limits in force.
    @ivar shared: what this pool shares with others.
    @ivar counters: counters of all events.
    @ivar connections: the records of all connections.
    @ivar ageing: the lifetimes of connections.
    @ivar balance: the distribution of connections among servers.
    @ivar health: the reachability of servers.
    @ivar servers: L{Balance.servers}.
    @ivar waiters: the queue of waiters.
    @ivar idle: L{Records.idle}.
    @ivar wanted: the number of connections to establish even if there are no requests for them.
    @ivar canGrow: whether L{grow} could act on more demand. The data path calls it only then.
    @ivar running: whether the pool is started and not stopped.
    @ivar whyClosed: the error for requests while it is not running.
    """

    def __init__(
        self, limits: Limits, vary: Callable[[float, float], float] = uniform, shared: Shared | None = None
    ) -> None:
        """
        @param vary: returns a random number between its arguments.
        @param shared: what this pool shares with others, or C{None}.
        """
        self.limits = limits
        self.shared = shared = shared or Shared()
        self.counters = shared.counters
        self.connections = records = Records(limits)
        self.ageing = Ageing(records, limits, vary)
        self.balance = Balance(limits)
        self.health = Health(self.balance.servers, limits, self.counters, vary)
        self.servers = self.balance.servers
        self.idle = records.idle
        self.waiters = Waiters(limits.waitTimeout, records.pick, shared)
        shared.queues.append(self.waiters)
        self.wanted = 0
        self.canGrow = False
        self.running = False
        self.whyClosed = "the pool is closed"

    # -- What there is

    @property
    def records(self) -> list[Record]:
        """
        The records of all connections and dials in progress.
        """
        return list(self.connections.all)

    @property
    def paused(self) -> bool:
        """
        Whether all requests wait, see L{txconnpool.pool.decisions.administration.Administration.pause}.
        """
        return self.connections.pausedAt is not None

    @property
    def down(self) -> bool:
        """
        Whether requests are refused because no server can be reached.
        """
        return not self.paused and not self.connections.connected and self.health.allDown

    def stats(self) -> PoolStats:
        """
        @return: the numbers of this moment.
        """
        established = [record for record in self.connections.all if record.phase is not DIALING]
        idle = sum(1 for record in established if not record.load)
        return PoolStats(
            maximum=self.limits.maximum,
            connections=len(established),
            idle=idle,
            busy=len(established) - idle,
            dialing=self.connections.dialing,
            inFlight=sum(record.load for record in established),
            waiting=self.waiters.count,
            waited=sum(self.waiters.waits.counts),
            waitTime=self.waiters.waits.total,
            **{name: getattr(self.counters, name) for name in Counters.__slots__},
        )

    def each(self) -> list[Record]:
        """
        Choose a connection of every server. The caller must add load to them at once.

        @raise ServerUnavailable: a server has none.
        """
        found = self._choose()
        for record in found.values():
            if isinstance(record, ServerUnavailable):
                raise record
        return self._engage(found)

    def eachServer(self) -> list[tuple[Server, Record | ServerUnavailable]]:
        """
        Choose a connection of every server that has one. The caller must add load to them at once.

        @return: all servers, each with a connection, or with the reason why it has none.
        """
        found = self._choose()
        self._engage(found)
        return list(found.items())

    def _choose(self) -> dict[Server, Record | ServerUnavailable]:
        chosen = self.connections.leastLoadedByServer()
        return {server: chosen.get(server) or self.health.missing(server, self.paused) for server in self.servers}

    def _engage(self, found: dict[Server, Record | ServerUnavailable]) -> list[Record]:
        records = [record for record in found.values() if isinstance(record, Record)]
        for record in records:
            self.connections.engage(record)
        return records

    # -- Waiters

    def enqueue(self, waiter: Any, now: float, exclusive: bool = False) -> Ticket:
        """
        Let C{waiter} wait for a connection.

        @raise PoolClosed: the pool is closing.
        @raise PoolFull: too many are waiting.
        @raise ServerUnavailable: no server can be reached.
        """
        if not self.running:
            raise PoolClosed(self.whyClosed)
        if not self.connections.open and self.down:  # the first condition is cheap, and mostly enough
            self.counters.unavailable += 1
            raise self.health.unavailable(self.stats())
        most = self.limits.maxWaiting
        if most is not None and self.shared.waiting >= most:
            self.counters.rejected += 1
            raise PoolFull("too many waiting requests", self.stats())
        return self.waiters.join(waiter, now, exclusive)

    def _refuseAll(self, error: Callable[[PoolStats], PoolError]) -> list[Action]:
        stats = self.stats()
        return [Refuse(waiter, error(stats)) for waiter in self.waiters.dismiss()]

    def refuseIfDown(self) -> list[Action]:
        """
        Refuse all waiters if no server can be reached.
        """
        if not self.down:
            return []
        self.counters.unavailable += self.waiters.count
        return self._refuseAll(self.health.unavailable)

    # -- Life cycle

    def setLimits(self, limits: Limits, now: float) -> None:
        """
        Apply other limits. Connections above them stay: it is L{Administration.setLimits
        <txconnpool.pool.decisions.administration.Administration.setLimits>} that closes them.
        """
        self.limits = self.balance.limits = self.health.limits = limits
        self.connections.setLimits(limits)
        self.ageing.setLimits(limits, now)
        self.waiters.timeout = limits.waitTimeout

    def start(self, now: float) -> list[Action]:
        """
        Begin to work.
        """
        self.running = True
        return self.grow(now)

    def stop(self) -> list[Action]:
        """
        Accept no more requests, refuse the waiters, and close each connection as soon as it carries nothing. The caller
        must end the dials in progress.
        """
        self.running = False
        self.canGrow = False
        self.wanted = 0
        actions = self._refuseAll(lambda stats: PoolClosed("the pool was closed"))
        return actions + self.connections.retire(self.connections.all, CLOSED)

    def abandon(self, why: str) -> None:
        """
        Forget all connections and waiters without any action, for good.

        @param why: the error for requests from now on.
        """
        self.running = self.canGrow = False
        self.whyClosed = why
        self.wanted = 0
        self.waiters.dismiss()
        for record in self.records:
            self.connections.forget(record)

    # -- Connections

    def grow(self, now: float, demand: int = 0) -> list[Action]:
        """
        Decide which dials to begin, and which connections to check so that no dial is needed.

        @param demand: the number of additional connections that would have work at once.
        """
        if not self.running:
            return []
        records = self.connections
        actions: list[Action] = []
        coming = records.dialing - records.doomed + records.checking
        demand = max(demand, self.waiters.count - coming - len(self.idle))
        if self.paused:
            demand = 0
        while demand > 0 and records.doubtful:
            demand -= 1
            actions.append(records.check(records.doubtful[-1]))
        minimum = max(self.limits.minimum, self.wanted)
        while (server := self.balance.next(len(records.all), now)) is not None:
            probe = server.failures and not server.count and not server.refusesLogin
            if not (probe or demand > 0 or len(records.all) - records.doomed < minimum):
                server.onDemand = server.refusesLogin
                break
            demand -= 1
            self.balance.dialed(server)
            actions.append(Dial(self._begin(server)))
        self.canGrow = server is not None or bool(records.doubtful)
        if self.ageing.overdue:
            actions += self._replaceOverdue(now)
        return actions

    def _replaceOverdue(self, now: float) -> list[Action]:
        """
        Dial the successor of a connection that is too old: of one at a time, because the pool may have one connection
        more than its maximum meanwhile.
        """
        records = self.connections
        if any(record.replaces is not None for record in records.all) or len(records.all) > self.limits.maximum:
            return []
        for old in self.ageing.nextOverdue():
            if self.balance.accepts(old.server, now):
                record = self._begin(old.server)
                record.replaces = old
                return [Dial(record)]
        return []

    def _begin(self, server: Server) -> Record:
        self.counters.dials += 1
        return self.connections.add(server)

    def dialed(self, record: Record, connection: Any, now: float) -> list[Action]:
        """
        The dial of C{record} succeeded, including its handshake. C{connection} is the protocol instance.
        """
        self.connections.dialEnded(record)
        self.health.succeeded(record.server, now)
        record.connection = connection
        self.ageing.established(record, now)
        self.connections.admit(record, now)
        actions = self._succeed(record)
        if record.doomed:
            actions += self.connections.discard(record, record.reason)
        return actions + self.grow(now)

    def _succeed(self, record: Record) -> list[Action]:
        """
        Retire the connection that C{record} replaces, if there is one.
        """
        old, record.replaces = record.replaces, None
        if old is None or record.doomed:
            return []
        actions = self.connections.discard(old, old.reason)
        # The old one may have ended already, and then another one has been dialed in its place.
        return actions + self.connections.retire(self.balance.surplus(self.records), SURPLUS)

    def dialFailed(self, record: Record, cause: BaseException, reason: str, now: float) -> list[Action]:
        """
        The dial of C{record} failed or was cancelled. If no server can be reached, the waiters are refused. The
        connection that it was to replace stays, unless the server refuses the login of its clients now.
        """
        self.connections.dialEnded(record)
        self.connections.forget(record)
        if not self.running:
            return []
        self.counters.dialFailures += 1
        server, old = record.server, record.replaces
        actions: list[Action] = []
        if old is not None and isinstance(cause, LoginRefused):
            actions += self.connections.discard(old, old.reason)
        return actions + self.failed(server, server.failures + 1, cause, reason, now)

    def lost(
        self, record: Record, cause: BaseException | None, reason: str, now: float, served: bool = False
    ) -> list[Action]:
        """
        The connection of C{record} has ended, whether the pool closed it or not.

        @param served: whether the server has replied to requests on it.
        """
        closedByPool = record.phase is RETIRING
        server = record.server
        self.connections.forget(record)
        if closedByPool and record.reason not in (SILENT, NOT_READY, CLIENT_GONE):
            self.health.released(server, now)
        self.health.observe(server, now)
        if closedByPool:
            self.counters.closed += 1
        else:
            self.counters.lost += 1
            if not served and self.health.flapped(record, now):
                return self.failed(server, record.prior + 1, cause, reason, now)
        return self.refuseIfDown() + self.grow(now)

    def failed(
        self, server: Server, failures: int, cause: BaseException | None, reason: str, now: float
    ) -> list[Action]:
        """
        C{server} cannot be reached, for the given number of times in a row.
        """
        self.health.failed(server, failures, cause, reason, now)
        return self.refuseIfDown() + self.grow(now)

    def suspect(self, record: Record, since: float, now: float) -> list[Action]:
        """
        The server of C{record} has not replied to a request that was sent at C{since}: retire its other connections
        that are not known to have been alive later, and carry nothing.
        """
        connections = self.connections
        silent = [
            each
            for each in connections.all
            if each.server is record.server and each is not record and each.connection is not None
            and not each.load and max(each.seenAt, each.born) <= since
        ]  # fmt: skip
        return connections.retire(silent, SILENT) + self.grow(now)

    def doubt(self, now: float) -> None:
        """
        Set connections aside that have been idle for so long that they must be checked before they are picked.
        """
        limit = now - (self.limits.checkIfIdleFor or 0.0)
        idle = self.idle
        while idle and idle[0].seenAt <= limit:
            self.connections.doubt(idle[0])
            self.canGrow = True

    # -- Time

    def tick(self, now: float) -> list[Action]:
        """
        Do all that is due: refuse waiters, retire, check and dial connections.
        """
        actions: list[Action] = []
        if self.waiters.due <= now and not self.paused:
            stats = self.stats()
            actions += [Refuse(waiter, self.health.timedOut(stats)) for waiter in self.waiters.late(now)]
        if self.connections.ageAt <= now:
            actions += self.ageing.age(now)
        return actions + self.grow(now)

    def due(self, now: float) -> float | None:
        """
        @return: the time at which L{tick} is to be called next, or C{None}.
        """
        if not self.running:
            return None
        times = [server.retryAt for server in self.servers if server.retryAt > now and not server.drained]
        times.append(self.connections.ageAt if self.paused else min(self.connections.ageAt, self.waiters.due))
        due = min(times)
        return None if due == inf else due

    def selfCheck(self, now: float) -> None:
        """
        Check all invariants that hold between events. For tests.

        @raise AssertionError: one is broken. The text names it.
        """
        records, waiting = self.connections, self.waiters.count
        records.selfCheck()
        self.balance.selfCheck(records.all)
        self.waiters.selfCheck()
        assert self.running or not waiting, "waiters in a pool that is not running"
        if not waiting or self.paused:
            return
        assert not self.idle, f"waiters, but idle connections: {self.idle}"
        if not self.waiters.exclusive:
            full = all(record.load >= record.depth for record in records.open)
            assert full, f"waiters, but capacity: {records.open}"
        coming = records.dialing - records.doomed + records.checking
        if coming < waiting:
            assert not records.doubtful, f"{waiting} waiters, but connections not checked: {records.doubtful}"
            server = self.balance.next(len(records.all), now)
            assert server is None, f"{waiting} waiters, {coming} dials and checks, but not dialed: {server}"
        retries = (server.retryAt > now and not server.drained for server in self.servers)
        busy = (record.load or record.phase in (HELD, RETIRING) for record in records.all)
        ending = records.doomed  # then another server may be dialed
        assert coming or ending or any(retries) or any(busy), "waiters, but nothing that would serve them"
        assert self.limits.waitTimeout is None or self.due(now) is not None, "waiters, but no deadline"

    def __repr__(self) -> str:
        return f"<PoolState {self.connections.connected} connections, {self.waiters.count} waiting>"
