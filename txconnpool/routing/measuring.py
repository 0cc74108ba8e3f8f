# -*- test-case-name: tests.routing.test_measuring -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Measures how near the nodes of a cluster are: the time from a request to its reply, on the connections that requests
have too. Nodes that get no other requests are measured too, so that one of them is found when it is nearer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IReplySink, IWaiter
from txconnpool.routing.cluster.nearness import Nearness

#: The seconds between two measurements of a node. The first ones follow sooner, so that the nearest node is soon known.
PERIOD = 3.0
FIRST = 0.25

#: Each delay is that number of times as long or as short, chosen at random, so that many proxies do not ask, and do not
#: choose another node, at the same moment.
SPREAD = 0.75, 1.25


@implementer(IWaiter, IReplySink)
class _Ping:
    """
    A request that is measured.
    """

    joins = False

    def __init__(self, measuring: Measuring, pool: Any) -> None:
        self.ticket: Any = None
        self._measuring = measuring
        self._pool = pool
        self._connections = measuring.connections(pool)
        self.since = measuring.reactor.seconds()

    def send(self) -> None:
        """
        Send it on a connection with capacity, at once or when there is one.
        """
        try:
            record = self._connections.take(self)
        except PoolError:
            self._measuring.ended(self._pool)  # the pool logs why, and its node gets no requests
        else:
            if record is not None:
                self.granted(record)

    def granted(self, record: Any) -> None:
        self.ticket = None
        self.since = self._measuring.reactor.seconds()
        command, request = self._measuring.probe
        record.connection.send(self, command, 1, request)

    def refused(self, error: PoolError) -> None:
        self.ticket = None
        self._measuring.ended(self._pool)

    def forget(self) -> None:
        """
        Wait for no connection any more.
        """
        if self.ticket is not None:
            self._connections.forget(self.ticket)
            self.ticket = None

    def replied(self, data: bytes, done: int) -> None:
        if done:
            self._measuring.ended(self._pool, self._measuring.reactor.seconds() - self.since)

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        pass

    def afterLoss(self, error: PoolError) -> None:
        self._measuring.ended(self._pool)

    def abort(self, error: PoolError) -> None:
        self._measuring.ended(self._pool)


class Measuring:
    """
    Measures pools again and again, each of which has one node.

    @ivar reactor: the clock.
    @ivar probe: the command and the bytes of a request to which every node replies at once.
    @ivar connections: returns the connections of a pool, an L{IConnections<txconnpool.interfaces.IConnections>}.
    """

    def __init__(
        self,
        reactor: Any,
        probe: tuple[Any, bytes],
        connections: Callable[[Any], Any],
        changed: Callable[[], object],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """
        @param changed: called when other nodes are near now.
        @param uniform: C{random.uniform} or a stand-in.
        """
        self.reactor = reactor
        self.probe = probe
        self.connections = connections
        self._changed = changed
        self._uniform = uniform
        self._nearness: Nearness[Any] = Nearness()
        self._groups: list[list[Any]] = []
        self._near: list[list[Any]] = []
        self._pings: dict[Any, _Ping] = {}
        self._timer: IDelayedCall | None = None
        self._delay = FIRST

    def use(self, groups: Iterable[Sequence[Any]]) -> list[list[tuple[Any, ...]]]:
        """
        Measure these pools from now on, until L{stop}.

        @param groups: the pools of the nodes that have the same keys, for each shard.

        @return: for each shard, the orders in which its nodes may be asked, see L{Nearness.turns}.
        """
        self._groups = [list(group) for group in groups]
        pools = [pool for group in self._groups for pool in group]
        self._nearness.keep(pools)
        for pool in [each for each in self._pings if each not in pools]:
            self._pings.pop(pool).forget()
        if self._timer is None and pools:
            self._delay = FIRST
            self._schedule()
        turns = [self._nearness.turns(group) for group in self._groups]
        self._near = list(map(self._nearness.near, self._groups))
        return turns

    def stop(self) -> None:
        """
        Measure nothing any more.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for ping in self._pings.values():
            ping.forget()
        self._pings.clear()

    def _schedule(self) -> None:
        self._timer = self.reactor.callLater(self._delay * self._uniform(*SPREAD), self._measure)
        self._delay = min(2 * self._delay, PERIOD)

    def _measure(self) -> None:
        self._schedule()
        now = self.reactor.seconds()
        for group in self._groups:
            for pool in group if len(group) > 1 else ():
                ping = self._pings.get(pool)
                if ping is None:
                    ping = self._pings[pool] = _Ping(self, pool)
                    ping.send()
                else:
                    self._nearness.note(pool, now - ping.since)  # the reply takes as long as that at least
        if list(map(self._nearness.near, self._groups)) != self._near:
            self._changed()

    def ended(self, pool: Any, seconds: float | None = None) -> None:
        """
        @param seconds: the time from a request to its reply; C{None}: there is no reply.
        """
        if self._pings.pop(pool, None) is not None and seconds is not None:
            self._nearness.note(pool, seconds)
