# -*- test-case-name: tests.pool.test_state -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The decisions of a pool, apart from their doing.

L{PoolState} is told what happened (a dial succeeded, a connection was lost, time has passed) and answers with what to
do: L{Dial}, L{Check}, L{Close}, L{Refuse}. It owns no socket, timer or Deferred and takes C{now} as an argument, so
that every race is a plain test. The two calls of the data path, L{PoolState.pick} and L{PoolState.eased}, answer
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
from txconnpool.pool.records import CHECKING, DIALING, DOUBTFUL, GONE, HELD, OPEN, RETIRING, Server, Slot
from txconnpool.pool.waiting import Ticket, Waiters

#: A connection lost within this many seconds counts as a failed dial, so that a server that accepts and then hangs up
#: is dialed with back-off, not in a hot loop.
FLAP = 1.0

#: Most requests that are put on one connection because they came together, while others may have less to do.
TOGETHER = 32


@dataclass(frozen=True, slots=True)
class Dial:
    """
    Begin to connect C{slot} to its server.
    """

    slot: Slot


@dataclass(frozen=True, slots=True)
class Check:
    """
    Find out whether the connection of C{slot} lives, then say L{PoolState.checked} or L{PoolState.discard}.
    """

    slot: Slot


@dataclass(frozen=True, slots=True)
class Close:
    """
    Close the connection of C{slot}, for C{slot.reason}; it carries nothing.
    """

    slot: Slot


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
        self._slots: dict[Slot, None] = {}
        self._open: list[Slot] = []
        self.idle: deque[Slot] = deque()
        self._doubtful: deque[Slot] = deque()
        self._dialing = 0
        self._checking = 0
        self._last: Slot | None = None  # that was picked, if more may follow
        self._turn = 0
        self._ageAt = inf
        self._lifo = limits.reuse == "lifo"

    # -- What there is

    @property
    def slots(self) -> list[Slot]:
        """
        All connections and dials in progress.
        """
        return list(self._slots)

    @property
    def connected(self) -> int:
        """
        How many connections are established.
        """
        return len(self._slots) - self._dialing

    @property
    def down(self) -> bool:
        """
        Whether requests are refused because no server can be reached.
        """
        enough = self.limits.whenDown
        return (
            enough is not None
            and self.pausedAt is None
            and len(self._slots) == self._dialing
            and all(server.drained or server.failures >= enough for server in self.servers)
        )

    def stats(self) -> PoolStats:
        """
        A snapshot.
        """
        counters = self.counters
        established = [slot for slot in self._slots if slot.phase is not DIALING]
        idle = sum(1 for slot in established if not slot.load)
        return PoolStats(
            maximum=self.limits.maximum,
            connections=len(established),
            idle=idle,
            busy=len(established) - idle,
            dialing=self._dialing,
            inFlight=sum(slot.load for slot in established),
            waiting=self.waiters.count,
            waited=sum(self.waiters.waits.counts),
            waitTime=self.waiters.waits.total,
            **{name: getattr(counters, name) for name in counters.__slots__},
        )

    # -- The data path

    def pick(self, exclusive: bool = False) -> Slot | None:
        """
        Choose a connection that has room. The caller puts load on it at once.

        Requests that come together travel together, which costs less than to spread them: a connection that has yet to
        send what it was just given is given more, up to L{TOGETHER} requests.

        @param exclusive: whether it must carry nothing else.
        """
        last = self._last
        if last is not None and 0 < last.load < last.until and last.client.sending and not exclusive:
            return last
        idle = self.idle
        if idle:
            slot = idle.pop() if self._lifo else idle.popleft()
            slot.idle = False
        elif exclusive or (best := self._leastLoaded()) is None:
            return None
        else:
            slot = best
        if not (exclusive or slot.weight):
            slot.until = min(slot.load + TOGETHER, slot.depth)
            self._last = slot
        return slot

    def _leastLoaded(self) -> Slot | None:
        best = None
        least = self.limits.depth
        if least > 1:  # else none but an idle one will do
            for slot in self._open:
                if slot.load < least:
                    best = slot
                    least = slot.load
        return best

    def each(self) -> list[Slot]:
        """
        Choose a connection of every server. The caller puts load on them at once.

        @raise ServerUnavailable: a server has none.
        """
        chosen: dict[Server, Slot] = {}
        for slot in sorted(self._open, key=lambda slot: slot.load, reverse=True):
            chosen[slot.server] = slot
        for server in self.servers:
            if server not in chosen:
                raise ServerUnavailable(f"upstream unavailable: {self._lack(server)} ({server.name})")
        for slot in chosen.values():
            self.engage(slot)
        return list(chosen.values())

    def _lack(self, server: Server) -> str:
        """
        @return: why no connection of a server can be had.
        """
        if server.drained:
            return "drained"
        return "the pool is paused" if self.pausedAt is not None else server.reason or "no connection"

    def eased(self, slot: Slot, now: float) -> Sequence[Action]:
        """
        C{slot} carries nothing any more. To say so twice does no harm.
        """
        if slot.phase is OPEN:
            slot.freeSince = now
            if not slot.idle:
                slot.idle = True
                self.idle.append(slot)
        elif slot.phase is RETIRING:
            return [Close(slot)]
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
            return PoolTimeout(f"timed out waiting for a connection ({stats})", "acquire", stats)
        text = f"timed out waiting for a connection ({failed.name}: {failed.reason})"
        error = PoolTimeout(text, "acquire", stats)
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
        return actions + self.retire(self._slots, "the pool was closed")

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
        actions = self.retire([slot for slot in self._slots if slot.server is server], "the server was removed")
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
        actions = self.retire([slot for slot in self._slots if slot.server is server], "the server was drained")
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
            for slot in self._open.copy():
                self._shut(slot, HELD)

    def resume(self, now: float) -> list[Action]:
        """
        Let requests go on. They may wait as long as they might have when they, or the pause, began.
        """
        since, self.pausedAt = self.pausedAt, None
        if since is None:
            return []
        self.waiters.excuse(since, now)
        for slot in self._slots:
            if slot.phase is HELD:
                self._reopen(slot, now)
        return self._giveUp() + self.grow(now)

    def resize(self, limits: Limits, now: float) -> list[Action]:
        """
        Put other bounds and times in force, for the connections and waiters that there are too. What is above the
        bounds is closed when it carries nothing.
        """
        old, self.limits = self.limits, limits
        self._lifo = limits.reuse == "lifo"
        for slot in self._open:
            slot.depth, slot.until = limits.depth, 0
        self.waiters.patience = limits.waitTimeout
        if limits.maxLifetime != old.maxLifetime:
            for slot in self._slots:
                if slot.phase is not DIALING:
                    self._setLifetime(slot)
        self._ageAt = now
        return self._rebalance(now)

    def _rebalance(self, now: float) -> list[Action]:
        """
        Retire the connections above the bounds: of servers that have more than their share, then of those that have
        the most, the least loaded first. Whoever has fewer is dialed in their stead.
        """
        standing: dict[Server, list[Slot]] = {}
        for slot in sorted(self._slots, key=lambda slot: (slot.phase is DIALING, -slot.load)):
            if slot.phase is not RETIRING and not slot.doomed:
                standing.setdefault(slot.server, []).append(slot)
        share = self._share()
        surplus = [slot for slots in standing.values() for slot in slots[share:]]
        left = [slots[:share] for slots in standing.values()]
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
        return self.retire(self._slots, "expired") + self.grow(now)

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
            if not (probe or demand > 0 or len(self._slots) < minimum):
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
        if not count or len(self._slots) >= self.limits.maximum:
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
        slot = Slot(server, self.limits.depth)
        slot.prior = server.failures
        self._slots[slot] = None
        self._dialing += 1
        server.count += 1
        server.dialing = True
        self.counters.dials += 1
        return Dial(slot)

    def dialed(self, slot: Slot, client: Any, now: float) -> list[Action]:
        """
        The dial of C{slot} succeeded, its handshake included.
        """
        server = slot.server
        self._dialing -= 1
        server.dialing = False
        if server.failures:
            server.failures = 0
            server.since = now
        slot.client = client
        slot.born = slot.freeSince = now
        self._setLifetime(slot)
        self._admit(slot, now)
        actions = self.discard(slot, slot.reason) if slot.doomed else []
        return actions + self.grow(now)

    def _setLifetime(self, slot: Slot) -> None:
        lifetime = self.limits.maxLifetime
        jitter = self.limits.lifetimeJitter
        slot.expires = slot.born + lifetime * self._vary(1 - jitter, 1) if lifetime else inf

    def _admit(self, slot: Slot, now: float) -> None:
        """
        C{slot} may be picked, unless there is a reason to hold it.
        """
        if slot.held or self.pausedAt is not None:
            slot.phase = HELD
            slot.depth = 0
            return
        slot.phase = OPEN
        slot.depth = self.limits.depth
        self._open.append(slot)
        if not slot.load:
            slot.idle = True
            self.idle.append(slot)
        for span in (self.limits.idleTimeout, self.limits.keepAlive):
            if span:
                self._ageAt = min(self._ageAt, now + span)
        self._ageAt = min(self._ageAt, slot.expires)

    def dialFailed(self, slot: Slot, cause: BaseException, reason: str, now: float) -> list[Action]:
        """
        The dial of C{slot} failed or was given up. Waiters are refused if this was the last hope.
        """
        server = slot.server
        self._dialing -= 1
        server.dialing = False
        self._forget(slot)
        if not self.running:
            return []
        self.counters.dialFailures += 1
        return self._failed(server, server.failures + 1, cause, reason, now)

    def lost(self, slot: Slot, cause: BaseException | None, reason: str, now: float) -> list[Action]:
        """
        The connection of C{slot} has ended, by whosever wish.
        """
        wished = slot.phase is RETIRING
        self._forget(slot)
        if wished:
            self.counters.closed += 1
        else:
            self.counters.lost += 1
            if now - slot.born < FLAP:
                return self._failed(slot.server, slot.prior + 1, cause, reason, now)
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

    def _forget(self, slot: Slot) -> None:
        self._shut(slot, GONE)
        del self._slots[slot]
        if self._last is slot:
            self._last = None
        slot.server.count -= 1

    def _shut(self, slot: Slot, phase: str) -> None:
        """
        C{slot} may be picked no more.
        """
        if slot.phase is OPEN:
            self._open.remove(slot)
            self.engage(slot)
        elif slot.phase is DOUBTFUL:
            self._doubtful.remove(slot)
        elif slot.phase is CHECKING:
            self._checking -= 1
        slot.depth = slot.until = 0
        slot.phase = phase

    def engage(self, slot: Slot) -> None:
        """
        C{slot} is idle no more. It may carry nothing and yet not be idle: while whoever was given it has yet to put
        load on it, and while the last reply is being delivered.
        """
        if slot.idle:
            slot.idle = False
            self.idle.remove(slot)

    def hold(self, slot: Slot) -> None:
        """
        The server does not read what C{slot} sends: give it nothing more.
        """
        slot.held = True
        if slot.phase is OPEN:
            self._shut(slot, HELD)

    def unhold(self, slot: Slot, now: float) -> None:
        """
        The server reads again.
        """
        slot.held = False
        if slot.phase is HELD:
            self._reopen(slot, now)

    def _reopen(self, slot: Slot, now: float) -> None:
        slot.freeSince = now
        self._admit(slot, now)

    def doubt(self, now: float) -> None:
        """
        Set aside the idle connections that have shown no sign of life for so long that they are checked before use.
        Unless this is called before each L{pick}, none are.
        """
        limit = now - (self.limits.checkIfIdleFor or 0.0)
        while self.idle and self.idle[0].seenAt <= limit:
            slot = self.idle[0]
            self._shut(slot, DOUBTFUL)
            self._doubtful.append(slot)
            self.canGrow = True

    def _check(self, slot: Slot) -> Check:
        self._shut(slot, CHECKING)
        self._checking += 1
        return Check(slot)

    def checked(self, slot: Slot, now: float) -> None:
        """
        C{slot} lives.
        """
        if slot.phase is CHECKING:
            self._checking -= 1
            slot.checkedAt = now
            self._admit(slot, now)

    def retire(self, slots: Iterable[Slot], reason: str) -> list[Action]:
        """
        Close connections as soon as they carry nothing.
        """
        return [action for slot in list(slots) for action in self.discard(slot, reason)]

    def discard(self, slot: Slot, reason: str) -> list[Action]:
        """
        Close one connection as soon as it carries nothing.
        """
        if slot.phase in (RETIRING, GONE):
            return []
        slot.reason = reason
        if slot.phase is DIALING:
            slot.doomed = True
            return []
        self._shut(slot, RETIRING)
        return [] if slot.load else [Close(slot)]

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
        actions = self.retire([slot for slot in self._slots if slot.expires <= now], "too old")
        times = [slot.expires for slot in self._slots if slot.phase is not RETIRING]
        if limits.idleTimeout:
            free = sorted([*self.idle, *self._doubtful], key=lambda slot: slot.freeSince)
            spare = len(self._open) + len(self._doubtful) + self._checking - limits.minimum
            stale = [slot for slot in free if slot.freeSince + limits.idleTimeout <= now][: max(0, spare)]
            actions += self.retire(stale, "idle for too long")
            if spare > len(stale):
                times.append(min((slot.freeSince for slot in free[len(stale) :]), default=now) + limits.idleTimeout)
        if limits.keepAlive:
            for slot in [*self.idle, *self._doubtful]:
                if slot.seenAt + limits.keepAlive <= now:
                    actions.append(self._check(slot))
            seen = [slot.seenAt for slot in [*self.idle, *self._doubtful]]
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
