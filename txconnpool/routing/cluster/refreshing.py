# -*- test-case-name: tests.routing.cluster.test_refreshing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Decides when a cluster is asked for its map again, and which of its nodes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from math import inf

from txconnpool.wire.topology import Node

#: The least number of seconds between two questions, whatever happens.
LEAST = 1.0

#: The number of seconds until the cluster is asked again although nothing has happened.
PERIOD = 30.0

#: The longest time after an event until the cluster is asked, chosen at random, so that many proxies do not ask the
#: same node at the same moment.
SPREAD = 0.05


class Refreshing:
    """
    Events to a decision: ask a node now, or at a later time. One node is asked at a time. The times are arguments.

    The cluster is asked at the start; soon after an event that shows that the map is wrong, such as a redirect or a
    lost node, but at most once in C{least} seconds; and once in a while.

    @ivar asked: the node that is being asked, or C{None}.
    @ivar due: when a node is to be asked; infinite: not at all, because one is being asked or nothing was started.
    @ivar count: how often the map was received.
    @ivar failures: how often no node has reported it, in a row.
    @ivar since: when it was received last.
    """

    def __init__(
        self,
        seeds: Iterable[Node],
        least: float = LEAST,
        period: float = PERIOD,
        uniform: Callable[[float, float], float] = random.uniform,
        shuffle: Callable[[list[Node]], object] = random.shuffle,
    ) -> None:
        """
        @param seeds: the nodes that are asked before any other is known, and if none of those answers. There may be
            none at first.
        @param uniform: C{random.uniform} or a stand-in; C{shuffle} alike.
        """
        self.seeds = tuple(seeds)
        self.asked: Node | None = None
        self.due = inf
        self.count = 0
        self.failures = 0
        self.since = -inf
        self._least = least
        self._period = period
        self._uniform = uniform
        self._shuffle = shuffle
        self._candidates: list[Node] = []  # those of this round that were not asked yet
        self._last = -inf  # when a round has ended
        self._started = False
        self._wanted = False  # whether something has happened since the node was asked

    def start(self, now: float) -> None:
        """
        Ask from now on, or as soon as there are seeds.
        """
        self._started = True
        if self.seeds:
            self.due = now

    def use(self, seeds: Iterable[Node], now: float) -> None:
        """
        Use other seeds. The first ones are asked now.
        """
        isFirst = not self.seeds
        self.seeds = tuple(seeds) or self.seeds
        if isFirst and self._started:
            self.start(now)

    def stop(self) -> None:
        """
        Ask no more.
        """
        self._started = False
        self.asked = None
        self.due = inf
        self._candidates = []

    def wrong(self, now: float) -> None:
        """
        Something shows that the map is wrong: a redirect, or a node that is lost.
        """
        if self.asked is not None:
            self._wanted = True
        elif self.due < inf:
            self.due = min(self.due, max(now, self._last + self._least) + self._uniform(0.0, SPREAD))

    def ask(self, now: float, known: Sequence[Node]) -> Node:
        """
        The time C{due} has come.

        @param known: the nodes of the map.

        @return: the node to ask.
        """
        candidates = list(known)
        self._shuffle(candidates)
        candidates += [seed for seed in self.seeds if seed not in candidates]
        self._candidates = candidates
        self._wanted = False
        self.due = inf
        return self._next()

    def _next(self) -> Node:
        self.asked = node = self._candidates.pop(0)
        return node

    def answered(self, now: float, wrong: bool) -> None:
        """
        The node has reported the map.

        @param wrong: whether something shows that the new map is wrong already.
        """
        self.count += 1
        self.failures = 0
        self.since = now
        self._end(now, wrong)

    def failed(self, now: float) -> Node | None:
        """
        The node has not reported the map.

        @return: the next node to ask; C{None}: there is no other, and all are asked again later.
        """
        if self._candidates:
            return self._next()
        self.failures += 1
        self._end(now, True)
        return None

    def _end(self, now: float, wrong: bool) -> None:
        self.asked = None
        self._last = now
        self._candidates = []
        if wrong or self._wanted:
            self.due = now + self._least * self._uniform(1.0, 1.5)
        else:
            self.due = now + self._period * self._uniform(0.75, 1.25)
