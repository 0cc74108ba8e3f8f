# -*- test-case-name: tests.test_state -*-
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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from random import uniform
from typing import Any, Literal

from txconnpool.errors import PoolClosed, PoolError, PoolFull, PoolTimeout, ServerUnavailable
from txconnpool.metrics import Counters, Histogram, PoolStats, Traffic

Reuse = Literal["lifo", "fifo", "least-loaded"]

# The phases of a connection.
DIALING = "dialing"  # not established yet; counts against the bound
OPEN = "open"  # may be picked
HELD = "held"  # established, but takes no new requests: its server does not read, or the pool is paused
DOUBTFUL = "doubtful"  # idle for so long that it is checked before it is used
CHECKING = "checking"  # being checked
RETIRING = "retiring"  # takes no new requests and is closed when it has none left
GONE = "gone"

_NEVER = float("inf")

#: A connection lost within this many seconds counts as a failed dial, so that a server that accepts and then hangs up
#: is dialed with back-off, not in a hot loop.
FLAP = 1.0


@dataclass(frozen=True)
class Backoff:
    """
    How long to wait after the n-th failed dial in a row: C{initial * factor ** (n - 1)}, at most C{maximum} seconds,
    each varied by plus or minus C{jitter} so that many processes do not dial a returning server in step.
    """

    initial: float = 0.1
    factor: float = 2.0
    maximum: float = 1.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not (self.initial > 0 and self.factor >= 1 and self.maximum > 0 and 0 <= self.jitter < 1):
            raise ValueError(f"dials would not back off: {self}")

    def delay(self, failures: int, vary: Callable[[float, float], float]) -> float:
        """
        @param failures: failed dials in a row, at least 1.
        @param vary: C{random.uniform} or a stand-in.
        @return: seconds.
        """
        # The exponent is bounded so that years of failures do not overflow a float.
        delay = min(self.maximum, self.initial * self.factor ** min(failures - 1, 64))
        return delay * vary(1 - self.jitter, 1 + self.jitter)


@dataclass(frozen=True)
class Limits:
    """
    The bounds and times of a pool.

    @ivar maximum: most connections, dials in progress included.
    @ivar minimum: connections kept open.
    @ivar depth: most requests in flight on one connection; 1 for protocols that do not pipeline.
    @ivar maxWaiting: most waiters, those for whom a dial is in progress included; C{None}: no bound.
    @ivar waitTimeout: seconds a waiter waits; C{None}: for ever.
    @ivar idleTimeout: seconds without work after which a connection above C{minimum} is closed; 0: never.
    @ivar maxLifetime: seconds after which a connection is replaced; 0: never.
    @ivar lifetimeJitter: each lifetime is shortened by up to this share, so that connections do not end in one second.
    @ivar reuse: which idle connection is taken: C{"lifo"} lets the others age, C{"fifo"} and C{"least-loaded"} use all
        evenly. When none is idle, the least loaded one with room is taken in all three.
    @ivar whenDown: after how many failed dials in a row, with no connection left, waiters are refused at once; C{None}:
        they wait.
    @ivar checkIfIdleFor: seconds without a sign of life after which a connection is checked before it is used;
        C{None}: never.
    @ivar keepAlive: seconds without a sign of life after which an idle connection is checked; 0: never.
    """

    maximum: int = 5
    minimum: int = 0
    depth: int = 1
    maxWaiting: int | None = None
    waitTimeout: float | None = 30.0
    idleTimeout: float = 600.0
    maxLifetime: float = 3600.0
    lifetimeJitter: float = 0.05
    reuse: Reuse = "lifo"
    whenDown: int | None = 3
    backoff: Backoff = field(default_factory=Backoff)
    checkIfIdleFor: float | None = None
    keepAlive: float = 0.0

    def __post_init__(self) -> None:
        if self.maximum < 1:
            raise ValueError(f"a pool needs at least 1 connection, not {self.maximum}")
        if not 0 <= self.minimum <= self.maximum:
            raise ValueError(f"at least {self.minimum} connections do not fit between 0 and the most, {self.maximum}")
        if self.depth < 1:
            raise ValueError(f"a connection takes at least 1 request at a time, not {self.depth}")
        if self.maxWaiting is not None and self.maxWaiting < 1:
            raise ValueError(f"at least 1 request may wait, for the first connection, not {self.maxWaiting}")
        if self.whenDown is not None and self.whenDown < 1:
            raise ValueError(f"a server is down after at least 1 failed dial, not {self.whenDown}")
        for name in ("waitTimeout", "idleTimeout", "maxLifetime", "checkIfIdleFor", "keepAlive"):
            time = getattr(self, name)
            if time is not None and not time >= 0:
                raise ValueError(f"{name} is a number of seconds from 0, not {time}")
        if not 0 <= self.lifetimeJitter < 1:
            raise ValueError(f"lifetimes are shortened by a share from 0 to less than 1, not {self.lifetimeJitter}")
        if self.reuse not in ("lifo", "fifo", "least-loaded"):
            raise ValueError(f"reuse is 'lifo', 'fifo' or 'least-loaded', not {self.reuse!r}")


class Server:
    """
    One upstream address, as the decisions see it.

    @ivar name: for people: an endpoint string or the like.
    @ivar address: whatever the shell dials; not looked at here.
    @ivar count: its connections, the dial in progress included.
    @ivar dialing: whether a dial is in progress; there is one at a time.
    @ivar drained: whether it is out of rotation until it is restored.
    @ivar failures: failed dials in a row.
    @ivar retryAt: no dial before this time.
    @ivar cause: the exception of the last failed dial.
    @ivar reason: the same in a few words.
    @ivar since: when it last went up or down.
    @ivar traffic: what went to it and came from it, counted by its connections.
    """

    __slots__ = (
        "address", "cause", "count", "dialing", "drained", "failures", "name", "reason", "retryAt", "since", "traffic",
    )  # fmt: skip

    def __init__(self, name: str, address: Any, traffic: Traffic | None = None) -> None:
        self.traffic = traffic or Traffic(0)
        self.name = name
        self.address = address
        self.count = 0
        self.dialing = False
        self.drained = False
        self.failures = 0
        self.retryAt = 0.0
        self.cause: BaseException | None = None
        self.reason = ""
        self.since = 0.0

    @property
    def up(self) -> bool:
        """
        Whether it is thought to answer: it has a connection, or the last dial did not fail.
        """
        return not self.failures or self.count > self.dialing

    @property
    def state(self) -> str:
        """
        C{up}, C{down} or C{drained}.
        """
        return "drained" if self.drained else "up" if self.up else "down"

    def __repr__(self) -> str:
        failed = f", {self.failures} failed dials" if self.state == "down" else ""
        return f"<Server {self.name}: {self.state}{failed}, {self.count} connections>"


class Slot:
    """
    One connection, as the decisions see it.

    @ivar server: whose connection it is.
    @ivar client: the protocol instance, once established.
    @ivar load: requests in flight; a lease counts as C{depth}.
    @ivar depth: most requests in flight; 0 when it takes no new ones.
    @ivar idle: whether it is among those that are taken first.
    @ivar held: whether its server does not read.
    @ivar freeSince: when C{load} last became 0.
    @ivar checkedAt: when it was last checked.
    @ivar doomed: whether it is to be closed as soon as it is established.
    @ivar reason: why the pool closes it, if it does.
    @ivar weight: what a request of L{txconnpool.pool.Pool} puts on C{load}: 1, or 0 if the client keeps it itself.
    @ivar lent: how much of C{load} is a lease.
    """

    __slots__ = (
        "born", "checkedAt", "client", "depth", "doomed", "expires", "freeSince", "held", "idle", "lent", "load",
        "phase", "prior", "reason", "server", "weight",
    )  # fmt: skip

    def __init__(self, server: Server, depth: int) -> None:
        self.server = server
        self.client: Any = None
        self.phase = DIALING
        self.load = 0
        self.depth = depth
        self.born = 0.0
        self.expires = _NEVER
        self.idle = False
        self.held = False
        self.freeSince = 0.0
        self.checkedAt = 0.0
        self.prior = 0
        self.doomed = False
        self.reason = ""
        self.weight = 1
        self.lent = 0

    @property
    def seenAt(self) -> float:
        """
        When an idle connection last showed that it lives.
        """
        return max(self.freeSince, self.checkedAt)

    def __repr__(self) -> str:
        return f"<Slot {self.phase}, {self.load} of {self.depth} in flight, to {self.server.name}>"


class Ticket:
    """
    A place in the queue of waiters. A waiter that gives up leaves its ticket behind, C{None} in its stead.
    """

    __slots__ = ("deadline", "exclusive", "since", "waiter")

    def __init__(self, waiter: Any, since: float, deadline: float, exclusive: bool) -> None:
        self.waiter = waiter
        self.since = since
        self.deadline = deadline
        self.exclusive = exclusive


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
    @ivar waiting: how many waiters there are.
    @ivar waits: how long waiters waited that got a connection.
    @ivar wanted: how many connections somebody wants to see established, whether there is work for them or not.
    @ivar canGrow: whether L{grow} could do something about more demand; the data path asks before it calls it.
    @ivar pausedAt: since when all requests wait, or C{None}.
    """

    def __init__(self, limits: Limits, vary: Callable[[float, float], float] = uniform) -> None:
        self.limits = limits
        self.counters = Counters()
        self.waits = Histogram()
        self.servers: list[Server] = []
        self.former: list[Server] = []
        self.waiting = 0
        self.wanted = 0
        self.canGrow = False
        self.running = False
        self.pausedAt: float | None = None
        self._vary = vary
        self._slots: dict[Slot, None] = {}
        self._open: list[Slot] = []
        self._idle: deque[Slot] = deque()  # ordered by Slot.seenAt
        self._doubtful: deque[Slot] = deque()
        self._queue: deque[Ticket] = deque()
        self._dialing = 0
        self._checking = 0
        self._turn = 0
        self._ageAt = _NEVER
        self._lifo = limits.reuse == "lifo"

    # -- What there is

    @property
    def slots(self) -> list[Slot]:
        """
        All connections and dials in progress.
        """
        return list(self._slots)

    @property
    def waitingSince(self) -> float | None:
        """
        Since when the first of the waiters waits, or C{None}.
        """
        return next((ticket.since for ticket in self._queue if ticket.waiter is not None), None)

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
            waiting=self.waiting,
            **{name: getattr(counters, name) for name in counters.__slots__},
        )

    # -- The data path

    def pick(self, exclusive: bool = False) -> Slot | None:
        """
        Choose a connection that has room. The caller puts load on it at once.

        @param exclusive: whether it must carry nothing else.
        """
        idle = self._idle
        if idle:
            slot = idle.pop() if self._lifo else idle.popleft()
            slot.idle = False
            return slot
        if exclusive:
            return None
        best = None
        least = self.limits.depth
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

    def eased(self, slot: Slot, now: float) -> list[Action]:
        """
        C{slot} carries nothing any more. To say so twice does no harm.
        """
        if slot.phase is OPEN:
            slot.freeSince = now
            if not slot.idle:
                slot.idle = True
                self._idle.append(slot)
        elif slot.phase is RETIRING:
            return [Close(slot)]
        return []

    def grants(self, now: float) -> Iterator[tuple[Any, Slot]]:
        """
        Hand connections with room to the waiters, first come first served. The consumer puts load on each slot before
        it asks for the next.
        """
        while self._queue:  # looked up anew each time: a waiter may join or leave while another is served
            ticket = self._queue[0]
            if ticket.waiter is None:
                self._queue.popleft()
                continue
            slot = self.pick(ticket.exclusive)
            if slot is None:
                return
            self._queue.popleft()
            waiter = ticket.waiter
            ticket.waiter = None
            self.waiting -= 1
            self.counters.acquired += 1
            self.counters.waited += 1
            waited = max(0.0, now - ticket.since)  # the clock may have been put back
            self.counters.waitTime += waited
            self.waits.observe(waited)
            yield waiter, slot

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
        if self.down:
            self.counters.unavailable += 1
            raise self._unavailable(self.stats())
        most = self.limits.maxWaiting
        if most is not None and self.waiting >= most:
            self.counters.rejected += 1
            raise PoolFull("too many waiting requests", self.stats())
        ticket = Ticket(waiter, now, self._deadline(now), exclusive)
        self._queue.append(ticket)
        self.waiting += 1
        return ticket

    def _deadline(self, since: float) -> float:
        patience = self.limits.waitTimeout
        return _NEVER if patience is None else since + patience

    def cancel(self, ticket: Ticket) -> None:
        """
        The waiter gives up; it will get no connection.
        """
        if self._leave(ticket) is not None:
            self.counters.cancelled += 1
            self._trim()

    def _leave(self, ticket: Ticket) -> Any:
        """
        @return: the waiter whose place is given up, if it was taken.
        """
        waiter, ticket.waiter = ticket.waiter, None
        if waiter is not None:
            self.waiting -= 1
        return waiter

    def _trim(self) -> None:
        """
        Drop what dead tickets stand at the head, and all of them when they are the most, so that waiters who come and
        give up while nothing else moves do not fill the memory.
        """
        queue = self._queue
        while queue and queue[0].waiter is None:
            queue.popleft()
        if len(queue) > 64 and len(queue) > 2 * self.waiting:
            self._queue = deque(ticket for ticket in queue if ticket.waiter is not None)

    def _expire(self, now: float) -> list[Action]:
        """
        Refuse those who have waited too long.
        """
        late = []
        stats = self.stats()
        while self._queue and self._queue[0].deadline <= now:
            waiter = self._leave(self._queue.popleft())
            if waiter is not None:
                late.append(waiter)
        self.counters.timedOut += len(late)
        return [Refuse(waiter, self._timedOut(stats)) for waiter in late]

    def _refuseAll(self, error: Callable[[PoolStats], PoolError]) -> list[Action]:
        stats = self.stats()
        waiters = [waiter for waiter in map(self._leave, self._queue) if waiter is not None]
        self._queue.clear()
        return [Refuse(waiter, error(stats)) for waiter in waiters]

    def _giveUp(self) -> list[Action]:
        """
        Refuse all waiters if no server can be reached.
        """
        if not self.down:
            return []
        self.counters.unavailable += self.waiting
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
        for ticket in self._queue:
            ticket.deadline += now - max(since, ticket.since)
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
            slot.depth = limits.depth
        if limits.waitTimeout != old.waitTimeout:
            for ticket in self._queue:
                ticket.deadline = self._deadline(ticket.since)
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
        demand = max(demand, self.waiting - self._dialing - self._checking - len(self._idle))
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
        slot.expires = slot.born + lifetime * self._vary(1 - jitter, 1) if lifetime else _NEVER

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
            self._idle.append(slot)
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
        slot.depth = 0
        slot.phase = phase

    def engage(self, slot: Slot) -> None:
        """
        C{slot} is idle no more. It may carry nothing and yet not be idle: while whoever was given it has yet to put
        load on it, and while the last reply is being delivered.
        """
        if slot.idle:
            slot.idle = False
            self._idle.remove(slot)

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
        while self._idle and self._idle[0].seenAt <= limit:
            slot = self._idle[0]
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
        if self._queue and self._queue[0].deadline <= now and self.pausedAt is None:
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
            free = sorted([*self._idle, *self._doubtful], key=lambda slot: slot.freeSince)
            spare = len(self._open) + len(self._doubtful) + self._checking - limits.minimum
            stale = [slot for slot in free if slot.freeSince + limits.idleTimeout <= now][: max(0, spare)]
            actions += self.retire(stale, "idle for too long")
            if spare > len(stale):
                times.append(min((slot.freeSince for slot in free[len(stale) :]), default=now) + limits.idleTimeout)
        if limits.keepAlive:
            for slot in [*self._idle, *self._doubtful]:
                if slot.seenAt + limits.keepAlive <= now:
                    actions.append(self._check(slot))
            seen = [slot.seenAt for slot in [*self._idle, *self._doubtful]]
            times.append(min(seen, default=now) + limits.keepAlive)
        self._ageAt = min(times, default=_NEVER)
        return actions

    def due(self, now: float) -> float | None:
        """
        When L{tick} is to be called next, or C{None}.
        """
        if not self.running:
            return None
        times = [server.retryAt for server in self.servers if server.retryAt > now and not server.drained]
        if self._queue and self.pausedAt is None:
            times.append(self._queue[0].deadline)
        due = min(self._ageAt, *times) if times else self._ageAt
        return None if due == _NEVER else due

    def __repr__(self) -> str:
        return f"<PoolState {self.connected} connections, {self.waiting} waiting>"
