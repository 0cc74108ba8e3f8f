# -*- test-case-name: tests.test_state -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The decisions of a pool, apart from their doing.

L{PoolState} is told what happened (a dial succeeded, a connection was lost, time has passed) and answers with what to
do: L{Dial}, L{Close}, L{Refuse}. It owns no socket, timer or Deferred and takes C{now} as an argument, so that every
race is a plain test. The two calls of the data path, L{PoolState.pick} and L{PoolState.eased}, answer directly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from random import uniform
from typing import Any, Literal

from txconnpool.errors import PoolClosed, PoolError, PoolFull, PoolTimeout, ServerUnavailable
from txconnpool.metrics import Counters, PoolStats, Traffic

Reuse = Literal["lifo", "fifo", "least-loaded"]

# The phases of a connection.
DIALING = "dialing"  # not established yet; counts against the bound
OPEN = "open"  # may be picked
HELD = "held"  # established, but takes no new requests: its server does not read
RETIRING = "retiring"  # takes no new requests and is closed when it has none left
GONE = "gone"

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
    @ivar maxWaiting: most waiters; C{None}: no bound.
    @ivar waitTimeout: seconds a waiter waits; C{None}: for ever.
    @ivar idleTimeout: seconds without work after which a connection above C{minimum} is closed; 0: never.
    @ivar maxLifetime: seconds after which a connection is replaced; 0: never.
    @ivar lifetimeJitter: each lifetime is shortened by up to this share, so that connections do not end in one second.
    @ivar reuse: which idle connection is taken: C{"lifo"} lets the others age, C{"fifo"} and C{"least-loaded"} use all
        evenly. When none is idle, the least loaded one with room is taken in all three.
    @ivar whenDown: after how many failed dials in a row, with no connection left, waiters are refused at once; C{None}:
        they wait.
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

    def __post_init__(self) -> None:
        if self.maximum < 1:
            raise ValueError(f"a pool needs at least 1 connection, not {self.maximum}")
        if not 0 <= self.minimum <= self.maximum:
            raise ValueError(f"at least {self.minimum} connections do not fit between 0 and the most, {self.maximum}")
        if self.depth < 1:
            raise ValueError(f"a connection takes at least 1 request at a time, not {self.depth}")
        if self.reuse not in ("lifo", "fifo", "least-loaded"):
            raise ValueError(f"reuse is 'lifo', 'fifo' or 'least-loaded', not {self.reuse!r}")


class Server:
    """
    One upstream address, as the decisions see it.

    @ivar name: for people: an endpoint string or the like.
    @ivar address: whatever the shell dials; not looked at here.
    @ivar count: its connections, the dial in progress included.
    @ivar dialing: whether a dial is in progress; there is one at a time.
    @ivar failures: failed dials in a row.
    @ivar retryAt: no dial before this time.
    @ivar cause: the exception of the last failed dial.
    @ivar reason: the same in a few words.
    @ivar since: when it last went up or down.
    @ivar traffic: what went to it and came from it, counted by its connections.
    """

    __slots__ = (
        "address", "cause", "count", "dialing", "failures", "name", "reason", "removed", "retryAt", "since", "traffic",
    )  # fmt: skip

    def __init__(self, name: str, address: Any, traffic: Traffic | None = None) -> None:
        self.traffic = traffic or Traffic(0)
        self.name = name
        self.address = address
        self.count = 0
        self.dialing = False
        self.failures = 0
        self.retryAt = 0.0
        self.cause: BaseException | None = None
        self.reason = ""
        self.since = 0.0
        self.removed = False

    def __repr__(self) -> str:
        health = f"down, {self.failures} failed dials" if self.failures else "up"
        return f"<Server {self.name}: {health}, {self.count} connections>"


class Slot:
    """
    One connection, as the decisions see it.

    @ivar server: whose connection it is.
    @ivar client: the protocol instance, once established.
    @ivar load: requests in flight; a lease counts as C{depth}.
    @ivar depth: most requests in flight; 0 when it takes no new ones.
    @ivar idle: whether it is among those that are taken first.
    @ivar freeSince: when C{load} last became 0.
    @ivar weight: what a request of L{txconnpool.pool.Pool} puts on C{load}: 1, or 0 if the client keeps it itself.
    """

    __slots__ = (
        "born", "client", "depth", "expires", "freeSince", "idle", "load", "phase", "prior", "server", "weight",
    )  # fmt: skip

    def __init__(self, server: Server, depth: int) -> None:
        self.server = server
        self.client: Any = None
        self.phase = DIALING
        self.load = 0
        self.depth = depth
        self.born = 0.0
        self.expires = float("inf")
        self.idle = False
        self.freeSince = 0.0
        self.prior = 0
        self.weight = 1

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
class Close:
    """
    Close the connection of C{slot}; it carries nothing.
    """

    slot: Slot
    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """
    Tell C{waiter} that it will get no connection.
    """

    waiter: Any
    error: PoolError


Action = Dial | Close | Refuse


class PoolState:
    """
    The connections, waiters and servers of one pool, and every decision about them.

    The servers are equal: any of them can answer any request. Each may have an equal share of the connections (rounded
    up), so that the share of one that is down stays free for the dials that find it up again.

    @ivar limits: the bounds in force.
    @ivar servers: in rotation or down, not removed.
    @ivar waiting: how many waiters there are.
    @ivar canGrow: whether a dial could begin now; the data path asks before it says that it would like one.
    """

    def __init__(self, limits: Limits, vary: Callable[[float, float], float] = uniform) -> None:
        self.limits = limits
        self.counters = Counters()
        self.servers: list[Server] = []
        self.waiting = 0
        self.canGrow = False
        self.running = False
        self._vary = vary
        self._slots: dict[Slot, None] = {}
        self._open: list[Slot] = []
        self._idle: deque[Slot] = deque()
        self._queue: deque[Ticket] = deque()
        self._dialing = 0
        self._turn = 0
        self._ageAt = float("inf")
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
            and len(self._slots) == self._dialing
            and all(server.failures >= enough for server in self.servers)
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
                raise ServerUnavailable(f"upstream unavailable: {server.reason or 'no connection'} ({server.name})")
        for slot in chosen.values():
            self._engage(slot)
        return list(chosen.values())

    def eased(self, slot: Slot, now: float) -> list[Action]:
        """
        C{slot} carries nothing any more. To say so twice does no harm.
        """
        slot.freeSince = now
        if slot.phase is OPEN:
            if not slot.idle:
                slot.idle = True
                self._idle.append(slot)
        elif slot.phase is RETIRING:
            return [Close(slot, "retired")]
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
            self.counters.waitTime += now - ticket.since
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
            raise self._unavailable()
        most = self.limits.maxWaiting
        if most is not None and self.waiting >= most:
            self.counters.rejected += 1
            raise PoolFull("too many waiting requests", self.stats())
        patience = self.limits.waitTimeout
        ticket = Ticket(waiter, now, float("inf") if patience is None else now + patience, exclusive)
        self._queue.append(ticket)
        self.waiting += 1
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """
        The waiter gives up; it will get no connection.
        """
        if ticket.waiter is not None:
            ticket.waiter = None
            self.waiting -= 1
            self.counters.cancelled += 1
            self._trim()

    def expired(self, ticket: Ticket) -> list[Action]:
        """
        The waiter's own time ran out.
        """
        waiter = ticket.waiter
        if waiter is None:
            return []
        stats = self.stats()
        ticket.waiter = None
        self.waiting -= 1
        self.counters.timedOut += 1
        self._trim()
        return [Refuse(waiter, PoolTimeout(f"timed out waiting for a connection ({stats})", "acquire", stats))]

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

    def _refuseAll(self, error: Callable[[], PoolError]) -> list[Action]:
        waiters = [ticket.waiter for ticket in self._queue if ticket.waiter is not None]
        for ticket in self._queue:
            ticket.waiter = None
        self._queue.clear()
        self.waiting = 0
        return [Refuse(waiter, error()) for waiter in waiters]

    def _unavailable(self) -> ServerUnavailable:
        if not self.servers:
            return ServerUnavailable("the pool has no servers", self.stats())
        last = max(self.servers, key=lambda server: server.since)
        error = ServerUnavailable(f"upstream unavailable: {last.reason} ({last.name})", self.stats())
        error.__cause__ = last.cause
        return error

    # -- Life cycle and servers

    def start(self, now: float) -> list[Action]:
        """
        Begin to work.
        """
        self.running = True
        return self.grow(now)

    def stop(self) -> list[Action]:
        """
        Take no more requests; close every connection as soon as it carries nothing.
        """
        self.running = False
        self.canGrow = False
        actions = self._refuseAll(lambda: PoolClosed("the pool was closed"))
        return actions + self.retire(lambda slot: True, "the pool closes")

    def addServer(self, server: Server, now: float) -> list[Action]:
        """
        Take a server into rotation.
        """
        self.servers.append(server)
        return self.grow(now)

    def removeServer(self, server: Server, now: float) -> list[Action]:
        """
        Take a server out for good: its connections end when they carry nothing.
        """
        self.servers.remove(server)
        server.removed = True
        actions = self.retire(lambda slot: slot.server is server, "the server was removed")
        if self.down:
            actions += self._refuseAll(self._unavailable)
        return actions + self.grow(now)

    def resize(self, limits: Limits, now: float) -> list[Action]:
        """
        Put other bounds in force. What is above them is closed when it carries nothing.
        """
        self.limits = limits
        self._lifo = limits.reuse == "lifo"
        for slot in self._slots:
            if slot.phase in (DIALING, OPEN):
                slot.depth = limits.depth
        self._ageAt = now
        standing = [slot for slot in self._slots if slot.phase is not RETIRING]
        standing.sort(key=lambda slot: slot.load)
        surplus = set(standing[: max(0, len(standing) - limits.maximum)])
        return self.retire(surplus.__contains__, "the pool was made smaller") + self.grow(now)

    def expire(self, now: float) -> list[Action]:
        """
        Replace every connection there is now: each is closed when it carries nothing.
        """
        return self.retire(lambda slot: True, "expired") + self.grow(now)

    # -- Connections

    def grow(self, now: float, demand: int = 0) -> list[Action]:
        """
        Decide which dials to begin.

        @param demand: how many connections more than the minimum would find work at once.
        """
        actions: list[Action] = []
        demand = max(demand, self.waiting - self._dialing)
        while self.running and len(self._slots) < self.limits.maximum:
            server = self._next(now)
            probe = server is not None and server.failures and not server.count
            if server is None or not (probe or demand > 0 or len(self._slots) < self.limits.minimum):
                break
            demand -= 1
            actions.append(self._dial(server))
        self.canGrow = self.running and len(self._slots) < self.limits.maximum and self._next(now) is not None
        return actions

    def _next(self, now: float) -> Server | None:
        """
        The server to dial next: the one with the fewest connections, in rotation among equals. This is the one place
        that chooses among servers.
        """
        count = len(self.servers)
        if not count:
            return None
        share = -(-self.limits.maximum // count)
        best = None
        for offset in range(count):
            server = self.servers[(self._turn + offset) % count]
            free = not server.dialing and server.retryAt <= now and server.count < share
            if free and (best is None or server.count < best.count):
                best = server
        return best

    def _dial(self, server: Server) -> Action:
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
        slot.phase = OPEN
        slot.born = now
        lifetime = self.limits.maxLifetime
        if lifetime:
            slot.expires = now + lifetime * self._vary(1 - self.limits.lifetimeJitter, 1)
        self._open.append(slot)
        self._ageAt = min(self._ageAt, slot.expires, now + (self.limits.idleTimeout or float("inf")))
        if not self.running or server.removed:
            return self.discard(slot, "the pool closes")
        return self.eased(slot, now) + self.grow(now)

    def dialFailed(self, slot: Slot, cause: BaseException, reason: str, now: float) -> list[Action]:
        """
        The dial of C{slot} failed or was given up. Waiters are refused if this was the last hope.
        """
        self._dialing -= 1
        slot.server.dialing = False
        self._forget(slot)
        self.counters.dialFailures += 1
        return self._failed(slot.server, slot.server.failures + 1, cause, reason, now)

    def lost(self, slot: Slot, cause: BaseException, reason: str, now: float) -> list[Action]:
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
        return self.grow(now)

    def eject(self, server: Server, now: float) -> list[Action]:
        """
        Somebody knows that C{server} cannot be reached.
        """
        cause = ConnectionError("taken out of rotation")
        return self._failed(server, server.failures + 1, cause, str(cause), now)

    def _failed(self, server: Server, failures: int, cause: BaseException, reason: str, now: float) -> list[Action]:
        if not server.failures:
            server.since = now
            self.counters.ejections += 1
        server.failures = failures
        server.cause = cause
        server.reason = reason
        server.retryAt = now + self.limits.backoff.delay(failures, self._vary)
        actions: list[Action] = []
        if self.down and self.waiting:
            self.counters.unavailable += self.waiting
            actions = self._refuseAll(self._unavailable)
        return actions + self.grow(now)

    def _forget(self, slot: Slot) -> None:
        self._shut(slot)
        slot.phase = GONE
        del self._slots[slot]
        slot.server.count -= 1

    def _shut(self, slot: Slot) -> None:
        """
        C{slot} may be picked no more.
        """
        if slot.phase is OPEN:
            self._open.remove(slot)
            self._engage(slot)
            slot.depth = 0

    def _engage(self, slot: Slot) -> None:
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
        if slot.phase is OPEN:
            self._shut(slot)
            slot.phase = HELD

    def unhold(self, slot: Slot, now: float) -> None:
        """
        The server reads again.
        """
        if slot.phase is HELD:
            slot.phase = OPEN
            slot.depth = self.limits.depth
            self._open.append(slot)
            self._ageAt = min(self._ageAt, slot.expires)
            if not slot.load:
                self.eased(slot, now)

    def retire(self, which: Callable[[Slot], bool], reason: str) -> list[Action]:
        """
        Close the connections for which C{which} is true as soon as they carry nothing.
        """
        return [action for slot in list(self._slots) if which(slot) for action in self.discard(slot, reason)]

    def discard(self, slot: Slot, reason: str) -> list[Action]:
        """
        Close one connection as soon as it carries nothing.
        """
        if slot.phase not in (OPEN, HELD):
            return []
        self._shut(slot)
        slot.phase = RETIRING
        return [] if slot.load else [Close(slot, reason)]

    # -- Time

    def tick(self, now: float) -> list[Action]:
        """
        Do what time demands: refuse who waited too long, retire what is idle or old, dial again.
        """
        actions: list[Action] = []
        while self._queue and self._queue[0].deadline <= now:
            actions += self.expired(self._queue.popleft())
        if self._ageAt <= now:
            actions += self._age(now)
        return actions + self.grow(now)

    def _age(self, now: float) -> list[Action]:
        limits = self.limits
        actions = self.retire(lambda slot: slot.expires <= now, "too old")
        if limits.idleTimeout:
            spare = len(self._open) - limits.minimum
            stale = [slot for slot in self._idle if slot.freeSince + limits.idleTimeout <= now]
            stale.sort(key=lambda slot: slot.freeSince)
            actions += self.retire(set(stale[: max(0, spare)]).__contains__, "idle")
        self._ageAt = min((slot.expires for slot in self._open), default=float("inf"))
        if limits.idleTimeout and len(self._open) > limits.minimum:
            free = [slot.freeSince for slot in self._idle]
            self._ageAt = min(self._ageAt, min(free, default=now) + limits.idleTimeout)
        return actions

    def due(self, now: float) -> float | None:
        """
        When L{tick} is to be called next, or C{None}.
        """
        due = self._ageAt
        if self._queue:
            due = min(due, self._queue[0].deadline)
        if self.running:
            due = min([due] + [server.retryAt for server in self.servers if server.retryAt > now])
        return None if due == float("inf") else due

    def __repr__(self) -> str:
        stats = asdict(self.stats())
        return f"<PoolState {stats['connections']} connections, {stats['waiting']} waiting>"
