# -*- test-case-name: tests.pool.test_state -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The decisions of a pool, apart from their doing.

L{PoolState} is told what happened (a dial succeeded, a connection was lost, time has passed) and answers with what to
do: L{Dial}, L{Check}, L{Close}, L{Refuse}. It owns no socket, timer or Deferred and takes C{now} as an argument, so
that every race is a plain test. The two calls of the data path, L{PoolState.pick} and L{PoolState.hasCapacity}, answer
directly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from random import uniform
from typing import Any

from txconnpool.errors import PoolClosed, PoolError, PoolFull, PoolTimeout, ServerUnavailable
from txconnpool.metrics import Counters, PoolStats
from txconnpool.pool.limits import Limits
from txconnpool.pool.records import CHECKING, DIALING, DOUBTFUL, GONE, HELD, OPEN, RETIRING, Record, Server
from txconnpool.pool.waiting import Ticket, Waiters

#: A connection lost within this many seconds counts as a failed dial, so that a server that accepts and then hangs up
#: is dialed with back-off, not in a hot loop.
FLAP = 1.0

#: Most requests that are put on one connection because they came together, while others may have less to do.
TOGETHER = 32


@dataclass(frozen=True, slots=True)
class Dial:
    """
    Begin to connect C{record} to its server.
    """

    record: Record


@dataclass(frozen=True, slots=True)
class Check:
    """
    Find out whether the connection of C{record} lives, then say L{PoolState.checked} or L{PoolState.discard}.
    """

    record: Record


@dataclass(frozen=True, slots=True)
class Close:
    """
    Close the connection of C{record}, for C{record.reason}; it carries nothing.
    """

    record: Record


@dataclass(frozen=True, slots=True)
class Refuse:
    """
    Tell C{waiter} that it will get no connection.
    """

    waiter: Any
    error: PoolError


Action = Dial | Check | Close | Refuse


class PoolState:
    """
    The connections, waiters and servers of one pool, and every decision about them.

    The servers are equal: any of them can answer any request. Each may have an equal share of the connections (rounded
    up), so that the share of one that is down stays free for the dials that find it up again.

    @ivar limits: the bounds in force.
    @ivar servers: in rotation or down, not removed.
    @ivar former: those that were removed.
    @ivar waiters: who waits for a connection.
    @ivar idle: the connections that carry nothing, in the order in which they were last seen alive.
    @ivar wanted: how many connections somebody wants to see established, whether there is work for them or not.
    @ivar canGrow: whether L{grow} could do something about more demand; the data path asks before it calls it.
    @ivar pausedAt: since when all requests wait, or C{None}.
    """

    def __init__(self, limits: Limits, vary: Callable[[float, float], float] = uniform) -> None:
        self.limits = limits
        self.counters = Counters()
        self.waiters = Waiters(limits.waitTimeout, self.pick, self.counters)
        self.servers: list[Server] = []
        self.former: list[Server] = []
        self.wanted = 0
        self.canGrow = False
        self.running = False
        self.pausedAt: float | None = None
        self._vary = vary
        self._records: dict[Record, None] = {}
        self._open: list[Record] = []
        self.idle: deque[Record] = deque()
        self._doubtful: deque[Record] = deque()
        self._dialing = 0
        self._checking = 0
        self._last: Record | None = None  # that was picked, if more may follow
        self._turn = 0
        self._ageAt = inf
        self._lifo = limits.reuse == "lifo"

    # -- What there is

    @property
    def records(self) -> list[Record]:
        """
        All connections and dials in progress.
        """
        return list(self._records)

    @property
    def connected(self) -> int:
        """
        How many connections are established.
        """
        return len(self._records) - self._dialing

    @property
    def down(self) -> bool:
        """
        Whether requests are refused because no server can be reached.
        """
        enough = self.limits.whenDown
        return (
            enough is not None
            and self.pausedAt is None
            and len(self._records) == self._dialing
            and all(server.drained or server.failures >= enough for server in self.servers)
        )

    def stats(self) -> PoolStats:
        """
        A snapshot.
        """
        counters = self.counters
        established = [record for record in self._records if record.phase is not DIALING]
        idle = sum(1 for record in established if not record.load)
        return PoolStats(
            maximum=self.limits.maximum,
            connections=len(established),
            idle=idle,
            busy=len(established) - idle,
            dialing=self._dialing,
            inFlight=sum(record.load for record in established),
            waiting=self.waiters.count,
            waited=sum(self.waiters.waits.counts),
            waitTime=self.waiters.waits.total,
            **{name: getattr(counters, name) for name in counters.__slots__},
        )

    # -- The data path

    def pick(self, exclusive: bool = False) -> Record | None:
        """
        Choose a connection that has room. The caller puts load on it at once.

        Requests that come together travel together, which costs less than to spread them: a connection that has yet to
        send what it was just given is given more, up to L{TOGETHER} requests.

        @param exclusive: whether it must carry nothing else.
        """
        last = self._last
        if last is not None and 0 < last.load < last.until and last.connection.sending and not exclusive:
            return last
        idle = self.idle
        if idle:
            record = idle.pop() if self._lifo else idle.popleft()
            record.idle = False
        elif exclusive or (best := self._leastLoaded()) is None:
            return None
        else:
            record = best
        if not (exclusive or record.weight):
            record.until = min(record.load + TOGETHER, record.depth)
            self._last = record
        return record

    def _leastLoaded(self) -> Record | None:
        best = None
        least = self.limits.depth
        if least > 1:  # else none but an idle one will do
            for record in self._open:
                if record.load < least:
                    best = record
                    least = record.load
        return best

    def each(self) -> list[Record]:
        """
        Choose a connection of every server. The caller puts load on them at once.

        @raise ServerUnavailable: a server has none.
        """
        chosen: dict[Server, Record] = {}
        for record in sorted(self._open, key=lambda record: record.load, reverse=True):
            chosen[record.server] = record
        for server in self.servers:
            if server not in chosen:
                raise ServerUnavailable(f"upstream unavailable: {self._lack(server)} ({server.name})")
        for record in chosen.values():
            self.engage(record)
        return list(chosen.values())

    def _lack(self, server: Server) -> str:
        """
        @return: why no connection of a server can be had.
        """
        if server.drained:
            return "drained"
        return "the pool is paused" if self.pausedAt is not None else server.reason or "no connection"

    def hasCapacity(self, record: Record, now: float) -> Sequence[Action]:
        """
        C{record} carries nothing any more. To say so twice does no harm.
        """
        if record.phase is OPEN:
            record.freeSince = now
            if not record.idle:
                record.idle = True
                self.idle.append(record)
        elif record.phase is RETIRING:
            return [Close(record)]
        return ()

    # -- Waiters

    def enqueue(self, waiter: Any, now: float, exclusive: bool = False) -> Ticket:
        """
        Let C{waiter} wait for a connection.

        @raise PoolClosed: the pool is closing.
        @raise PoolFull: too many are waiting.
        @raise ServerUnavailable: no server can be reached.
        """
        if not self.running:
            raise PoolClosed("the pool is closed")
        if not self._open and self.down:  # the former is quickly told, and mostly enough
            self.counters.unavailable += 1
            raise self._unavailable(self.stats())
        most = self.limits.maxWaiting
        if most is not None and self.waiters.count >= most:
            self.counters.rejected += 1
            raise PoolFull("too many waiting requests", self.stats())
        return self.waiters.join(waiter, now, exclusive)

    def _expire(self, now: float) -> list[Action]:
        """
        Refuse those who have waited too long.
        """
        stats = self.stats()
        return [Refuse(waiter, self._timedOut(stats)) for waiter in self.waiters.late(now)]

    def _refuseAll(self, error: Callable[[PoolStats], PoolError]) -> list[Action]:
        stats = self.stats()
        return [Refuse(waiter, error(stats)) for waiter in self.waiters.dismiss()]

    def _giveUp(self) -> list[Action]:
        """
        Refuse all waiters if no server can be reached.
        """
        if not self.down:
            return []
        self.counters.unavailable += self.waiters.count
        return self._refuseAll(self._unavailable)

    def _timedOut(self, stats: PoolStats) -> PoolTimeout:
        """
        Say whether the pool was exhausted or a server is down.
        """
        failed = self.lastFailed
        if self.connected or failed is None:
            return PoolTimeout(f"timed out waiting for a connection ({stats})", "wait", stats)
        text = f"timed out waiting for a connection ({failed.name}: {failed.reason})"
        error = PoolTimeout(text, "wait", stats)
        error.__cause__ = failed.cause
        return error

    def _unavailable(self, stats: PoolStats) -> ServerUnavailable:
        failed = self.lastFailed
        if failed is None:
            names = ", ".join(server.name for server in self.servers)
            return ServerUnavailable(
                f"upstream unavailable: drained ({names})" if names else "the pool has no servers", stats
            )
        error = ServerUnavailable(f"upstream unavailable: {failed.reason} ({failed.name})", stats)
        error.__cause__ = failed.cause
        return error

    @property
    def lastFailed(self) -> Server | None:
        """
        The server that went down last, if one is.
        """
        failed = [server for server in self.servers if server.failures and not server.drained]
        return max(failed, key=lambda each: each.since, default=None)

    # -- Life cycle and servers

    def start(self, now: float) -> list[Action]:
        """
        Begin to work.
        """
        self.running = True
        return self.grow(now)

    def stop(self) -> list[Action]:
        """
        Take no more requests; close every connection as soon as it carries nothing. Dials in progress are to be given
        up by whoever carries this out.
        """
        self.running = False
        self.canGrow = False
        self.wanted = 0
        actions = self._refuseAll(lambda stats: PoolClosed("the pool was closed"))
        return actions + self.retire(self._records, "the pool was closed")

    def addServer(self, server: Server, now: float) -> list[Action]:
        """
        Take a server into rotation.
        """
        self.servers.append(server)
        return self._rebalance(now)

    def removeServer(self, server: Server, now: float) -> list[Action]:
        """
        Take a server out for good: its connections end when they carry nothing.
        """
        self.servers.remove(server)
        self._retireServer(server)
        actions = self.retire([record for record in self._records if record.server is server], "the server was removed")
        return actions + self._giveUp() + self.grow(now)

    def _retireServer(self, server: Server) -> None:
        """
        Keep what a removed server has counted: for itself as long as it has connections, then with all that have none.
        """
        done = [each for each in self.former if not each.count]
        for each in done[1:]:
            done[0].traffic.add(each.traffic)
            self.former.remove(each)
        self.former.append(server)

    def eject(self, server: Server, cause: BaseException, reason: str, now: float) -> list[Action]:
        """
        It is known from elsewhere that C{server} cannot be reached: do not dial it for a while.
        """
        return self._failed(server, server.failures + 1, cause, reason, now)

    def drain(self, server: Server, now: float) -> list[Action]:
        """
        Take a server out until it is restored: its connections end when they carry nothing, and it is not dialed.
        """
        server.drained = True
        actions = self.retire([record for record in self._records if record.server is server], "the server was drained")
        return actions + self._giveUp() + self.grow(now)

    def restore(self, server: Server, now: float) -> list[Action]:
        """
        Take a drained server into rotation again; dial one that is down without delay.
        """
        server.drained = False
        server.retryAt = now
        return self._rebalance(now)

    def pause(self, now: float) -> None:
        """
        Let all requests wait, for as long as it takes. What is in flight ends.
        """
        if self.pausedAt is None:
            self.pausedAt = now
            for record in self._open.copy():
                self._shut(record, HELD)

    def resume(self, now: float) -> list[Action]:
        """
        Let requests go on. They may wait as long as they might have when they, or the pause, began.
        """
        since, self.pausedAt = self.pausedAt, None
        if since is None:
            return []
        self.waiters.extendDeadlines(since, now)
        for record in self._records:
            if record.phase is HELD:
                self._reopen(record, now)
        return self._giveUp() + self.grow(now)

    def resize(self, limits: Limits, now: float) -> list[Action]:
        """
        Put other bounds and times in force, for the connections and waiters that there are too. What is above the
        bounds is closed when it carries nothing.
        """
        old, self.limits = self.limits, limits
        self._lifo = limits.reuse == "lifo"
        for record in self._open:
            record.depth, record.until = limits.depth, 0
        self.waiters.timeout = limits.waitTimeout
        if limits.maxLifetime != old.maxLifetime:
            for record in self._records:
                if record.phase is not DIALING:
                    self._setLifetime(record)
        self._ageAt = now
        return self._rebalance(now)

    def _rebalance(self, now: float) -> list[Action]:
        """
        Retire the connections above the bounds: of servers that have more than their share, then of those that have
        the most, the least loaded first. Whoever has fewer is dialed in their stead.
        """
        standing: dict[Server, list[Record]] = {}
        for record in sorted(self._records, key=lambda record: (record.phase is DIALING, -record.load)):
            if record.phase is not RETIRING and not record.doomed:
                standing.setdefault(record.server, []).append(record)
        share = self._share()
        surplus = [record for records in standing.values() for record in records[share:]]
        left = [records[:share] for records in standing.values()]
        for _ in range(sum(map(len, left)) - self.limits.maximum):
            surplus.append(max(left, key=len).pop())
        return self.retire(surplus, "the pool was made smaller, or has more servers") + self.grow(now)

    def _share(self) -> int:
        """
        @return: how many connections each server may have.
        """
        return -(-self.limits.maximum // max(1, sum(1 for server in self.servers if not server.drained)))

    def expire(self, now: float) -> list[Action]:
        """
        Replace every connection there is now: each is closed when it carries nothing.
        """
        return self.retire(self._records, "expired") + self.grow(now)

    # -- Connections

    def grow(self, now: float, demand: int = 0) -> list[Action]:
        """
        Decide which dials to begin, and which connections to check so that no dial is needed.

        @param demand: how many connections more than there are would find work at once.
        """
        if not self.running:
            return []
        actions: list[Action] = []
        demand = max(demand, self.waiters.count - self._dialing - self._checking - len(self.idle))
        if self.pausedAt is not None:
            demand = 0
        while demand > 0 and self._doubtful:
            demand -= 1
            actions.append(self._check(self._doubtful[-1]))
        minimum = max(self.limits.minimum, self.wanted)
        while (server := self._next(now)) is not None:
            probe = server.failures and not server.count
            if not (probe or demand > 0 or len(self._records) < minimum):
                break
            demand -= 1
            actions.append(self._dial(server))
        self.canGrow = server is not None or bool(self._doubtful)
        return actions

    def _next(self, now: float) -> Server | None:
        """
        The server to dial next: the one with the fewest connections, in rotation among equals. This is the one place
        that chooses among servers.
        """
        count = len(self.servers)
        if not count or len(self._records) >= self.limits.maximum:
            return None
        share = self._share()
        best = None
        for offset in range(count):
            server = self.servers[(self._turn + offset) % count]
            ready = not (server.dialing or server.drained) and server.retryAt <= now
            if ready and server.count < share and (best is None or server.count < best.count):
                best = server
        return best

    def _dial(self, server: Server) -> Dial:
        self._turn = self.servers.index(server) + 1
        record = Record(server, self.limits.depth)
        record.prior = server.failures
        self._records[record] = None
        self._dialing += 1
        server.count += 1
        server.dialing = True
        self.counters.dials += 1
        return Dial(record)

    def dialed(self, record: Record, client: Any, now: float) -> list[Action]:
        """
        The dial of C{record} succeeded, its handshake included.
        """
        server = record.server
        self._dialing -= 1
        server.dialing = False
        if server.failures:
            server.failures = 0
            server.since = now
        record.connection = client
        record.born = record.freeSince = now
        self._setLifetime(record)
        self._admit(record, now)
        actions = self.discard(record, record.reason) if record.doomed else []
        return actions + self.grow(now)

    def _setLifetime(self, record: Record) -> None:
        lifetime = self.limits.maxLifetime
        jitter = self.limits.lifetimeJitter
        record.expires = record.born + lifetime * self._vary(1 - jitter, 1) if lifetime else inf

    def _admit(self, record: Record, now: float) -> None:
        """
        C{record} may be picked, unless there is a reason to hold it.
        """
        if record.held or self.pausedAt is not None:
            record.phase = HELD
            record.depth = 0
            return
        record.phase = OPEN
        record.depth = self.limits.depth
        self._open.append(record)
        if not record.load:
            record.idle = True
            self.idle.append(record)
        for span in (self.limits.idleTimeout, self.limits.keepAlive):
            if span:
                self._ageAt = min(self._ageAt, now + span)
        self._ageAt = min(self._ageAt, record.expires)

    def dialFailed(self, record: Record, cause: BaseException, reason: str, now: float) -> list[Action]:
        """
        The dial of C{record} failed or was given up. Waiters are refused if this was the last hope.
        """
        server = record.server
        self._dialing -= 1
        server.dialing = False
        self._forget(record)
        if not self.running:
            return []
        self.counters.dialFailures += 1
        return self._failed(server, server.failures + 1, cause, reason, now)

    def lost(self, record: Record, cause: BaseException | None, reason: str, now: float) -> list[Action]:
        """
        The connection of C{record} has ended, by whosever wish.
        """
        wished = record.phase is RETIRING
        self._forget(record)
        if wished:
            self.counters.closed += 1
        else:
            self.counters.lost += 1
            if now - record.born < FLAP:
                return self._failed(record.server, record.prior + 1, cause, reason, now)
        return self._giveUp() + self.grow(now)

    def _failed(
        self, server: Server, failures: int, cause: BaseException | None, reason: str, now: float
    ) -> list[Action]:
        if not server.failures:
            server.since = now
            self.counters.ejections += 1
            server.traffic.ejections += 1
        server.failures = failures
        server.cause = cause
        server.reason = reason
        server.retryAt = now + self.limits.backoff.delay(failures, self._vary)
        return self._giveUp() + self.grow(now)

    def _forget(self, record: Record) -> None:
        self._shut(record, GONE)
        del self._records[record]
        if self._last is record:
            self._last = None
        record.server.count -= 1

    def _shut(self, record: Record, phase: str) -> None:
        """
        C{record} may be picked no more.
        """
        if record.phase is OPEN:
            self._open.remove(record)
            self.engage(record)
        elif record.phase is DOUBTFUL:
            self._doubtful.remove(record)
        elif record.phase is CHECKING:
            self._checking -= 1
        record.depth = record.until = 0
        record.phase = phase

    def engage(self, record: Record) -> None:
        """
        C{record} is idle no more. It may carry nothing and yet not be idle: while whoever was given it has yet to put
        load on it, and while the last reply is being delivered.
        """
        if record.idle:
            record.idle = False
            self.idle.remove(record)

    def hold(self, record: Record) -> None:
        """
        The server does not read what C{record} sends: give it nothing more.
        """
        record.held = True
        if record.phase is OPEN:
            self._shut(record, HELD)

    def unhold(self, record: Record, now: float) -> None:
        """
        The server reads again.
        """
        record.held = False
        if record.phase is HELD:
            self._reopen(record, now)

    def _reopen(self, record: Record, now: float) -> None:
        record.freeSince = now
        self._admit(record, now)

    def doubt(self, now: float) -> None:
        """
        Set aside the idle connections that have shown no sign of life for so long that they are checked before use.
        Unless this is called before each L{pick}, none are.
        """
        limit = now - (self.limits.checkIfIdleFor or 0.0)
        while self.idle and self.idle[0].seenAt <= limit:
            record = self.idle[0]
            self._shut(record, DOUBTFUL)
            self._doubtful.append(record)
            self.canGrow = True

    def _check(self, record: Record) -> Check:
        self._shut(record, CHECKING)
        self._checking += 1
        return Check(record)

    def checked(self, record: Record, now: float) -> None:
        """
        C{record} lives.
        """
        if record.phase is CHECKING:
            self._checking -= 1
            record.checkedAt = now
            self._admit(record, now)

    def retire(self, records: Iterable[Record], reason: str) -> list[Action]:
        """
        Close connections as soon as they carry nothing.
        """
        return [action for record in list(records) for action in self.discard(record, reason)]

    def discard(self, record: Record, reason: str) -> list[Action]:
        """
        Close one connection as soon as it carries nothing.
        """
        if record.phase in (RETIRING, GONE):
            return []
        record.reason = reason
        if record.phase is DIALING:
            record.doomed = True
            return []
        self._shut(record, RETIRING)
        return [] if record.load else [Close(record)]

    # -- Time

    def tick(self, now: float) -> list[Action]:
        """
        Do what time demands: refuse who waited too long, retire what is idle or old, check and dial.
        """
        actions: list[Action] = []
        if self.waiters.due <= now and self.pausedAt is None:
            actions += self._expire(now)
        if self._ageAt <= now:
            actions += self._age(now)
        return actions + self.grow(now)

    def _age(self, now: float) -> list[Action]:
        """
        Retire what is too old or idle for too long, check what is to be kept alive, and see when to look again.
        """
        limits = self.limits
        actions = self.retire([record for record in self._records if record.expires <= now], "too old")
        times = [record.expires for record in self._records if record.phase is not RETIRING]
        if limits.idleTimeout:
            free = sorted([*self.idle, *self._doubtful], key=lambda record: record.freeSince)
            spare = len(self._open) + len(self._doubtful) + self._checking - limits.minimum
            stale = [record for record in free if record.freeSince + limits.idleTimeout <= now][: max(0, spare)]
            actions += self.retire(stale, "idle for too long")
            if spare > len(stale):
                times.append(min((record.freeSince for record in free[len(stale) :]), default=now) + limits.idleTimeout)
        if limits.keepAlive:
            for record in [*self.idle, *self._doubtful]:
                if record.seenAt + limits.keepAlive <= now:
                    actions.append(self._check(record))
            seen = [record.seenAt for record in [*self.idle, *self._doubtful]]
            times.append(min(seen, default=now) + limits.keepAlive)
        self._ageAt = min(times, default=inf)
        return actions

    def due(self, now: float) -> float | None:
        """
        When L{tick} is to be called next, or C{None}.
        """
        if not self.running:
            return None
        times = [server.retryAt for server in self.servers if server.retryAt > now and not server.drained]
        times.append(self._ageAt if self.pausedAt is not None else min(self._ageAt, self.waiters.due))
        due = min(times)
        return None if due == inf else due

    def __repr__(self) -> str:
        return f"<PoolState {self.connected} connections, {self.waiters.count} waiting>"
