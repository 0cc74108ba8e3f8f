# -*- test-case-name: tests.test_metrics -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Metrics as plain numbers: monotonic counters, gauges, and histograms with fixed buckets.

This module uses neither a clock nor the network. The data path increments the numbers in place
(C{counters.acquired += 1}); statistics read a snapshot of them.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import inf, nextafter
from operator import add
from typing import Self

#: Upper bounds of the latency buckets, in seconds. From 50 microseconds (a local memcached behind an idle proxy) to the
#: largest timeouts in use; one more bucket holds the larger values.
LATENCY_BOUNDS = (
    0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip

#: The greatest number below 0.
BELOW_ZERO = nextafter(0.0, -1.0)


class Histogram:
    """
    The number of values in each of a fixed set of buckets. Counts only grow, so that several readers can each compute
    differences between two snapshots.

    @ivar bounds: the upper bounds, ascending. A value equal to a bound belongs to that bucket (as with Prometheus'
        C{le}).
    @ivar counts: the number of values in each bucket. The last one holds the values above all bounds, so there is one
        more bucket than there are bounds.
    @ivar total: the sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def bucket(self, value: float) -> tuple[int, float, float]:
        """
        Find the bucket of a value.

        @param value: not negative.

        @return: the index of the bucket, and its lower (exclusive) and upper (inclusive) bound.
        """
        bounds = self.bounds
        at = bisect_left(bounds, value)
        return at, bounds[at - 1] if at else BELOW_ZERO, bounds[at] if at < len(bounds) else inf

    def observe(self, value: float, times: int = 1) -> None:
        """
        Count C{value}.

        @param times: the number of events that had this value.
        """
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def add(self, other: Histogram) -> None:
        """
        Add the counts of another histogram with the same bounds.
        """
        self.counts[:] = map(add, self.counts, other.counts)
        self.total += other.total


class Counters:
    """
    The counters of a pool since it was created. All of them only grow.

    @ivar acquired: requests and leases that got a connection with capacity, at once or after waiting.
    @ivar timedOut: waiters that failed because the wait timeout expired.
    @ivar cancelled: waiters that were cancelled.
    @ivar rejected: requests refused because the queue of waiters was full.
    @ivar unavailable: requests refused because no server could be reached.
    @ivar dials: dials started.
    @ivar dialFailures: dials that failed, including those whose handshake failed.
    @ivar lost: established connections that ended although the pool did not close them.
    @ivar closed: established connections that the pool closed (idle, too old, pool resized, timed out).
    @ivar outages: how often a server went down.
    @ivar requestTimeouts: connections closed because a reply was late.
    @ivar violations: connections closed because received bytes did not match the requests in flight.
    @ivar retries: requests sent once more: reads whose connection was lost, and those that a server declined.
    @ivar partial: reads of several keys, some of whose servers have failed. Counted by pools for programs.
    """

    __slots__ = (
        "acquired",
        "cancelled",
        "closed",
        "dialFailures",
        "dials",
        "lost",
        "outages",
        "partial",
        "rejected",
        "requestTimeouts",
        "retries",
        "timedOut",
        "unavailable",
        "violations",
    )  # fmt: skip

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    acquired: int
    cancelled: int
    closed: int
    dialFailures: int
    dials: int
    outages: int
    lost: int
    partial: int
    rejected: int
    requestTimeouts: int
    retries: int
    timedOut: int
    unavailable: int
    violations: int


@dataclass(frozen=True)
class PoolStats:
    """
    A snapshot of a pool: its gauges, and its counters as L{Counters} describes them::

        stats = pool.stats
        print(stats.busy, "of", stats.maximum, "connections are busy,", stats.waiting, "requests wait")

    @ivar maximum: the maximum number of connections.
    @ivar connections: established connections.
    @ivar idle: established connections without a request or lease.
    @ivar busy: established connections with requests in flight or a lease.
    @ivar dialing: dials in progress.
    @ivar inFlight: requests in flight (a lease counts as many as the connection can carry).
    @ivar waiting: requests and leases that wait for a connection with capacity.
    @ivar waited: how many of C{acquired} had to wait.
    @ivar waitTime: the total time that these waited, in seconds.
    """

    maximum: int
    connections: int
    idle: int
    busy: int
    dialing: int
    inFlight: int
    waiting: int
    acquired: int
    waited: int
    waitTime: float
    timedOut: int
    cancelled: int
    rejected: int
    unavailable: int
    dials: int
    dialFailures: int
    lost: int
    closed: int
    outages: int
    requestTimeouts: int
    violations: int
    retries: int
    partial: int

    def __str__(self) -> str:
        return (
            f"{self.busy} of {self.maximum} connections busy, {self.idle} idle, {self.dialing} dialing, "
            f"{self.waiting} waiting"
        )


#: The maximum number of reasons counted separately; further ones are counted as "other". About a dozen are in use.
REASONS = 32


def tally(reasons: dict[str, int], reason: str, times: int = 1) -> None:
    """
    Count an event by its reason.

    @param reasons: the count of each reason so far; changed in place. It never has more than L{REASONS} entries and
        C{"other"}.
    @param times: the number of events to add.
    """
    if reason not in reasons and len(reasons) >= REASONS:
        reason = "other"
    reasons[reason] = reasons.get(reason, 0) + times


class Reason(str):
    """
    A reason: the text for logs.

    @ivar word: the same in one word of small letters and underscores, for the label C{reason} of statistics. There are
        only a few.
    """

    __slots__ = ("word",)
    word: str

    def __new__(cls, word: str, text: str) -> Reason:
        """
        @param word: see L{word}.
        @param text: the text.
        """
        self = super().__new__(cls, text)
        self.word = word
        return self


class Lookups:
    """
    Counters of the keys of lookups, besides one for each request.

    @ivar missed: replies to requests that hold no value.
    @ivar moreKeys: keys beyond the first one in requests for several keys.
    @ivar moreMissed: how many of C{moreKeys} were not found.
    @ivar more: values in replies that are still incomplete.
    @ivar failed: requests that the server answered with an error, by the index of their
        L{Command<txconnpool.wire.Command>}. Others count in the same list.
    """

    __slots__ = ("failed", "missed", "more", "moreKeys", "moreMissed")

    def __init__(self, failed: list[int]) -> None:
        self.failed = failed
        self.missed = 0
        self.moreKeys = 0
        self.moreMissed = 0
        self.more = 0

    def add(self, other: Self) -> None:
        """
        Add the counters of another server, except those that may be shared or do not only grow: C{failed} and C{more}.
        """
        self.missed += other.missed
        self.moreKeys += other.moreKeys
        self.moreMissed += other.moreMissed


class Traffic(Lookups):
    """
    The counters of one server: requests and replies, and the fate of connections. All of them only grow, except
    C{more}. Those of L{Lookups} are for reads.

    @ivar requests: answered requests, by the index of their L{Command<txconnpool.wire.Command>}.
    @ivar touches: the counters of keys that were read and touched. They have the same list C{failed}.
    @ivar sent: bytes of requests.
    @ivar received: bytes of replies.
    @ivar latency: the time from sending a request to the end of its reply, in seconds. Requests that were merged into
        one all have the latency of the last.
    @ivar dials: dials started.
    @ivar dialFailures: failed dials, by reason.
    @ivar lost: established connections that ended although the pool did not close them, by reason.
    @ivar closed: established connections that the pool closed, by reason.
    @ivar ejections: how often its keys were given to other servers.
    @ivar outages: how often the server went down.
    @ivar timeouts: connections closed because a reply was late.
    @ivar violations: connections closed because received bytes did not match the requests in flight.
    """

    __slots__ = (
        "closed",
        "dialFailures",
        "dials",
        "ejections",
        "latency",
        "lost",
        "outages",
        "received",
        "requests",
        "sent",
        "timeouts",
        "touches",
        "violations",
    )  # fmt: skip

    def __init__(self, commands: int) -> None:
        super().__init__([0] * commands)
        self.requests = [0] * commands
        self.touches = Lookups(self.failed)
        self.sent = 0
        self.received = 0
        self.latency = Histogram()
        self.dials = 0
        self.dialFailures: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        self.closed: dict[str, int] = {}
        self.ejections = 0
        self.outages = 0
        self.timeouts = 0
        self.violations = 0

    def add(self, other: Self) -> None:
        """
        Add the counters of another server, such as one that was removed from the pool.
        """
        super().add(other)
        self.failed[:] = map(add, self.failed, other.failed)
        for name in self.__slots__:
            mine, its = getattr(self, name), getattr(other, name)
            if isinstance(mine, int):
                setattr(self, name, mine + its)
            elif isinstance(mine, list):
                mine[:] = map(add, mine, its)
            elif isinstance(mine, dict):
                for reason, times in its.items():
                    tally(mine, reason, times)
            else:
                mine.add(its)


class ClientCounters:
    """
    The counters of a pool's clients. All of them only grow.

    @ivar requests: requests that were forwarded or answered, each of several that were sent as one for itself.
    @ivar received: bytes of requests.
    @ivar sent: bytes of replies.
    @ivar refused: requests that the proxy answered with an error without asking a server: invalid ones, those that are
        not allowed, and logins that failed.
    @ivar errors: requests that the proxy answered with an error because no server answered them, by reason.
    @ivar partial: requests for several keys that got a reply or an error although some of the servers have failed.
    @ivar pauses: how often reading from a client was paused, by reason: C{"unread"} (the client does not read its
        replies) or C{"backlog"} (the client sends more than can be forwarded).
    """

    __slots__ = ("errors", "partial", "pauses", "received", "refused", "requests", "sent")

    def __init__(self) -> None:
        self.requests = 0
        self.received = 0
        self.sent = 0
        self.refused = 0
        self.partial = 0
        self.errors: dict[str, int] = {}
        self.pauses = {"unread": 0, "backlog": 0}
