# -*- test-case-name: tests.pool.test_records -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Servers, and the connections to them, as the decisions of a pool see them: plain records.
"""

from __future__ import annotations

from math import inf
from typing import Any

from txconnpool.metrics import Traffic

# The phases of a connection.
DIALING = "dialing"  # not established yet; counts against the bound
OPEN = "open"  # may be picked
HELD = "held"  # established, but takes no new requests: its server does not read, or the pool is paused
DOUBTFUL = "doubtful"  # idle for so long that it is checked before it is used
CHECKING = "checking"  # being checked
RETIRING = "retiring"  # takes no new requests and is closed when it has none left
GONE = "gone"


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


class Record:
    """
    One connection, as the decisions see it.

    @ivar server: whose connection it is.
    @ivar connection: the protocol instance, once established.
    @ivar load: requests in flight; a lease counts as C{depth}.
    @ivar depth: most requests in flight; 0 when it takes no new ones.
    @ivar idle: whether it is among those that are taken first.
    @ivar held: whether its server does not read.
    @ivar freeSince: when C{load} last became 0.
    @ivar checkedAt: when it was last checked.
    @ivar doomed: whether it is to be closed as soon as it is established.
    @ivar reason: why the pool closes it, if it does.
    @ivar weight: what a request of L{txconnpool.pool.library.Pool} puts on C{load}: 1, or 0 if the client keeps it
        itself.
    @ivar until: up to which load it is given more of what comes together.
    @ivar lent: how much of C{load} is a lease.
    """

    __slots__ = (
        "born", "checkedAt", "connection", "depth", "doomed", "expires", "freeSince", "held", "idle", "lent", "load",
        "phase", "prior", "reason", "server", "until", "weight",
    )  # fmt: skip

    def __init__(self, server: Server, depth: int) -> None:
        self.server = server
        self.connection: Any = None
        self.phase = DIALING
        self.load = 0
        self.depth = depth
        self.born = 0.0
        self.expires = inf
        self.idle = False
        self.held = False
        self.freeSince = 0.0
        self.checkedAt = 0.0
        self.prior = 0
        self.doomed = False
        self.reason = ""
        self.weight = 1
        self.lent = 0
        self.until = 0

    @property
    def seenAt(self) -> float:
        """
        When an idle connection last showed that it lives.
        """
        return max(self.freeSince, self.checkedAt)

    def __repr__(self) -> str:
        return f"<Record {self.phase}, {self.load} of {self.depth} in flight, to {self.server.name}>"
