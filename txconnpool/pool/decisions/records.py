# -*- test-case-name: tests.pool.test_records -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The record that a pool keeps of each of its connections.
"""

from __future__ import annotations

from math import inf
from typing import Any

from txconnpool.metrics import Reason
from txconnpool.pool.decisions.reasons import NONE
from txconnpool.pool.decisions.servers import Server

# The phases of a connection.
DIALING = "dialing"  # not established yet; counts against the limit on connections
OPEN = "open"  # may be picked for a request
HELD = "held"  # established, but given no new requests: its server does not read, or the pool is paused
DOUBTFUL = "doubtful"  # idle for so long that it is checked before it is used
CHECKING = "checking"  # a check is in progress
RETIRING = "retiring"  # given no new requests, and closed when it carries none
GONE = "gone"  # closed


class Record:
    """
    One connection, as the decisions of the pool see it.

    @ivar server: the server of the connection.
    @ivar connection: the protocol instance, once established.
    @ivar phase: one of the constants of this module.
    @ivar load: requests in flight; a lease counts as C{depth}.
    @ivar depth: the maximum number of requests in flight; 0 when it is given no new ones.
    @ivar idle: whether it is among the idle connections, which are picked first.
    @ivar held: whether its server does not read.
    @ivar born: the time at which it was established.
    @ivar expires: the time at which it is too old.
    @ivar prior: the number of failed dials in a row before this one.
    @ivar replaces: the record of the connection that is closed when this one is established, or C{None}.
    @ivar freeSince: the time at which C{load} last became 0.
    @ivar checkedAt: the time of the last successful check.
    @ivar doomed: whether it is to be closed as soon as it is established.
    @ivar reason: why the pool closes it.
    @ivar weight: what a request of L{txconnpool.pool.library.RequestPool} adds to C{load}: 1, or 0 if the connection
        keeps C{load} itself.
    @ivar until: the load up to which it is picked again for requests that come together, see
        L{txconnpool.pool.decisions.picking.Records.pick}.
    @ivar lent: how much of C{load} is a lease.
    @ivar served: whether a call of a L{RequestPool<txconnpool.pool.library.RequestPool>} has had a result on this
        connection.
    """

    __slots__ = (
        "born", "checkedAt", "connection", "depth", "doomed", "expires", "freeSince", "held", "idle", "lent", "load",
        "phase", "prior", "reason", "replaces", "served", "server", "until", "weight",
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
        self.reason: Reason = NONE
        self.replaces: Record | None = None
        self.weight = 1
        self.lent = 0
        self.until = 0
        self.served = False

    @property
    def seenAt(self) -> float:
        """
        The time at which an idle connection last was known to be alive.
        """
        return max(self.freeSince, self.checkedAt)

    def __repr__(self) -> str:
        return f"<Record {self.phase}, {self.load} of {self.depth} in flight, to {self.server.name}>"
