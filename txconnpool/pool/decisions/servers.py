# -*- test-case-name: tests.pool.test_records -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A server of a pool.
"""

from __future__ import annotations

from typing import Any

from txconnpool.errors import LoginRefused
from txconnpool.metrics import Traffic


class Server:
    """
    One upstream address: whether it is reachable, and how many connections it has.

    @ivar onDemand: whether it is dialed for the next request although its last dial has failed, see L{refusesLogin}.
    @ivar name: the name in logs and statistics: an endpoint string or the like.
    @ivar address: the endpoint to dial. The decisions of the pool do not look at it.
    @ivar count: the number of its connections, dials in progress included.
    @ivar dialing: the number of dials in progress, see L{Limits<txconnpool.pool.decisions.limits.Limits>}.
    @ivar drained: whether an operator took it out of service until it is restored.
    @ivar failures: the number of failed dials in a row.
    @ivar full: whether it accepted no more connections when it was last dialed.
    @ivar retryAt: the time before which it is not dialed.
    @ivar cause: the exception of the last failed dial, or C{None}.
    @ivar reason: a short text for C{cause}.
    @ivar since: the time at which it last went up or down.
    @ivar wasUp: whether it was up at that time.
    @ivar traffic: counters of its requests and connections.
    """

    __slots__ = (
        "address", "cause", "count", "dialing", "drained", "failures", "full", "name", "onDemand", "reason", "retryAt",
        "since", "traffic", "wasUp",
    )  # fmt: skip

    def __init__(self, name: str, address: Any, traffic: Traffic | None = None) -> None:
        self.traffic = traffic or Traffic(0)
        self.name = name
        self.address = address
        self.count = 0
        self.dialing = 0
        self.drained = False
        self.failures = 0
        self.onDemand = False
        self.full = False
        self.retryAt = 0.0
        self.cause: BaseException | None = None
        self.reason = ""
        self.since = 0.0
        self.wasUp = True

    @property
    def up(self) -> bool:
        """
        Whether it is thought to be reachable: it has a connection, or its last dial did not fail.
        """
        return not self.failures or self.count > self.dialing

    @property
    def refusesLogin(self) -> bool:
        """
        Whether its last dial failed because of the login of clients. This is not logged, and no outage: others can use
        it. It is dialed again only if such a client needs it.
        """
        return isinstance(self.cause, LoginRefused)

    @property
    def state(self) -> str:
        """
        C{"up"}, C{"down"} or C{"drained"}.
        """
        return "drained" if self.drained else "up" if self.up else "down"

    def __repr__(self) -> str:
        failed = f", {self.failures} failed dials" if self.state == "down" else ""
        return f"<Server {self.name}: {self.state}{failed}, {self.count} connections>"


def keepFormer(former: list[Server], server: Server) -> None:
    """
    Add a server that was removed to others. Their number is bounded: servers without connections become one, which has
    the sums of their counters.
    """
    done = [each for each in former if not each.count]
    for each in done[1:]:
        done[0].traffic.add(each.traffic)
        former.remove(each)
    former.append(server)
