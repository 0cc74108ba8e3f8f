# -*- test-case-name: tests.test_metrics -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Plain numbers: counters that only grow, gauges, and histograms with fixed buckets.

Nothing here knows time or the network. The data path adds to these numbers itself (C{counters.acquired += 1}); whoever
reports them takes a snapshot.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import inf
from operator import add

#: Upper bounds of the latency buckets, in seconds. From 50 microseconds (a local memcached behind an idle proxy) to the
#: largest timeouts that operators set; the last bucket takes the rest.
LATENCY_BOUNDS = (
    0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip


class Histogram:
    """
    How often a value fell into which bucket. Monotonic: two readers can take differences without disturbing each other.

    @ivar bounds: the upper bounds, ascending; a value equal to a bound belongs to it (as in Prometheus' C{le}).
    @ivar counts: how many fell into each bucket; one more than there are bounds.
    @ivar total: the sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def bucket(self, value: float) -> tuple[int, float, float]:
        """
        @param value: from 0 on.

        @return: the bucket of C{value}, and the bounds of it: values above the first, up to the second.
        """
        bounds = self.bounds
        at = bisect_left(bounds, value)
        return at, bounds[at - 1] if at else 0.0, bounds[at] if at < len(bounds) else inf

    def observe(self, value: float, times: int = 1) -> None:
        """
        Count C{value}.

        @param times: how many events had this value.
        """
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def add(self, other: Histogram) -> None:
        """
        Add what another one with the same bounds has counted.
        """
        self.counts[:] = map(add, self.counts, other.counts)
        self.total += other.total


class Counters:
    """
    What has happened in a pool since it was made. Every number only grows.

    @ivar acquired: times a connection with room was found or handed over.
    @ivar timedOut: waiters whose time ran out.
    @ivar cancelled: waiters who gave up.
    @ivar rejected: requests refused because too many were waiting.
    @ivar unavailable: requests refused because no server could be reached.
    @ivar dials: dials begun.
    @ivar dialFailures: dials that failed, handshake included.
    @ivar lost: established connections that ended without the pool's wish.
    @ivar closed: established connections that the pool closed (idle, old, resized, expired).
    @ivar ejections: times a server left rotation.
    @ivar requestTimeouts: connections closed because a reply was late.
    @ivar violations: connections closed because their bytes did not fit what was owed.
    @ivar retries: reads sent a second time because their connection was lost.
    """

    __slots__ = (
        "acquired", "cancelled", "closed", "dialFailures", "dials", "ejections", "lost", "rejected", "requestTimeouts",
        "retries", "timedOut", "unavailable", "violations",
    )  # fmt: skip

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    acquired: int
    cancelled: int
    closed: int
    dialFailures: int
    dials: int
    ejections: int
    lost: int
    rejected: int
    requestTimeouts: int
    retries: int
    timedOut: int
    unavailable: int
    violations: int


@dataclass(frozen=True)
class PoolStats:
    """
    A pool at one moment: its gauges, and its counters as L{Counters} describes them.

    @ivar maximum: the bound on connections.
    @ivar connections: established connections.
    @ivar idle: how many of these carry nothing.
    @ivar busy: how many of these carry requests or are lent.
    @ivar dialing: dials in progress.
    @ivar inFlight: requests in flight (a lease counts as a full connection).
    @ivar waiting: requests for which no connection has room yet.
    @ivar waited: how many of those who acquired a connection had to wait.
    @ivar waitTime: seconds waited in all, by those.
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
    ejections: int
    requestTimeouts: int
    violations: int
    retries: int

    def __str__(self) -> str:
        return (
            f"{self.busy} of {self.maximum} connections busy, {self.idle} idle, {self.dialing} dialing, "
            f"{self.waiting} waiting"
        )


#: Reasons that are counted apart, at most; the rest are "other". There are a dozen.
REASONS = 32


def tally(reasons: dict[str, int], reason: str, times: int = 1) -> None:
    """
    Count something by its reason.
    """
    if reason not in reasons and len(reasons) >= REASONS:
        reason = "other"
    reasons[reason] = reasons.get(reason, 0) + times


class Traffic:
    """
    What went to one server and came from it, and what became of the connections to it. Every number only grows.

    @ivar requests: how many requests were answered, by the index of their command.
    @ivar failed: how many of these were answered with an error, by the same.
    @ivar missed: replies to reads that hold no value.
    @ivar moreKeys: keys beyond the first, of reads of several keys. Where the request is not kept, as for C{gat},
        these are the ones that were found.
    @ivar moreMissed: how many of these were not found.
    @ivar more: values of replies that are not complete yet, for a moment.
    @ivar sent: bytes of requests.
    @ivar received: bytes of replies.
    @ivar latency: from the sending of a request to the end of its reply, in seconds. Requests that were sent as one run
        share the time of the last.
    @ivar dials: dials begun.
    @ivar dialFailures: dials that failed, by the reason.
    @ivar lost: established connections that ended without the pool's wish, by the reason.
    @ivar closed: established connections that the pool closed, by the reason.
    @ivar ejections: how often it went down.
    @ivar timeouts: connections closed because a reply was late.
    @ivar violations: connections closed because their bytes did not fit what was owed.
    """

    __slots__ = (
        "closed", "dialFailures", "dials", "ejections", "failed", "latency", "lost", "missed", "more", "moreKeys",
        "moreMissed", "received", "requests", "sent", "timeouts", "violations",
    )  # fmt: skip

    def __init__(self, commands: int) -> None:
        self.requests = [0] * commands
        self.failed = [0] * commands
        self.missed = 0
        self.moreKeys = 0
        self.moreMissed = 0
        self.more = 0
        self.sent = 0
        self.received = 0
        self.latency = Histogram()
        self.dials = 0
        self.dialFailures: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        self.closed: dict[str, int] = {}
        self.ejections = 0
        self.timeouts = 0
        self.violations = 0

    def add(self, other: Traffic) -> None:
        """
        Add what another server has done, once it does nothing any more.
        """
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
    What came from the clients of a pool and went to them. Every number only grows.

    @ivar received: bytes of requests.
    @ivar sent: bytes of replies.
    @ivar answered: requests answered here because no server would have taken them, or none may be asked.
    @ivar errors: requests that were answered an error because there was no answer of a server, by the reason.
    @ivar pauses: times that a client was not read from for a while, by the reason: C{"unread"} or C{"backlog"}.
    """

    __slots__ = ("answered", "errors", "pauses", "received", "sent")

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0
        self.answered = 0
        self.errors: dict[str, int] = {}
        self.pauses = {"unread": 0, "backlog": 0}
