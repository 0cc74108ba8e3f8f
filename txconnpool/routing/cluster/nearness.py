# -*- test-case-name: tests.routing.cluster.test_nearness -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Decides which of the nodes with the same keys are near: those with the shortest reply times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from math import inf
from statistics import median
from typing import Generic, TypeVar

#: The number of round trips of each node that count. Their median does, so that a single slow one changes nothing.
ROUNDS = 5

#: A node is near if its round trip takes at most so many times as long as the shortest one, and so many seconds more.
ENTER = 1.5, 0.0002

#: One that is near stays so up to this limit, so that nodes at the border do not change all the time.
LEAVE = 2.0, 0.0005

T = TypeVar("T", bound=Hashable)


class Nearness(Generic[T]):
    """
    The round trips to nodes, and the order that follows from them.
    """

    def __init__(self) -> None:
        self._times: dict[T, deque[float]] = {}
        self._near: set[T] = set()

    def note(self, node: T, seconds: float) -> None:
        """
        @param seconds: the time from a request to its reply.
        """
        self._times.setdefault(node, deque(maxlen=ROUNDS)).append(seconds)

    def keep(self, nodes: Iterable[T]) -> None:
        """
        Forget all other nodes.
        """
        kept = set(nodes)
        self._times = {node: times for node, times in self._times.items() if node in kept}
        self._near &= kept

    def seconds(self, node: T) -> float:
        """
        @return: the usual round trip of a node; infinite if none is known.
        """
        times = self._times.get(node)
        return median(times) if times else inf

    def near(self, nodes: Sequence[T]) -> list[T]:
        """
        @param nodes: the nodes that have the same keys.

        @return: those that are near, in the same order; all if nothing is known.
        """
        best = min(map(self.seconds, nodes), default=inf)
        if best == inf:
            return list(nodes)
        enter, leave = (best * factor + more for factor, more in (ENTER, LEAVE))
        near = [node for node in nodes if self.seconds(node) <= (leave if node in self._near else enter)]
        self._near.difference_update(nodes)
        self._near.update(near)
        return near

    def turns(self, nodes: Sequence[T]) -> list[tuple[T, ...]]:
        """
        @return: the orders in which the nodes may be asked: the near ones in turn, then the others, the nearest first.
        """
        near = self.near(nodes)
        others = sorted((node for node in nodes if node not in near), key=self.seconds)
        return [(*near[at:], *near[:at], *others) for at in range(len(near))]
