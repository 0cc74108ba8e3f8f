# -*- test-case-name: tests.pool.test_state -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What several pools have in common that share the requests of one pool for users.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txconnpool.metrics import Counters, Histogram

if TYPE_CHECKING:
    from txconnpool.pool.decisions.waiting import Waiters


class Shared:
    """
    The counters of several pools, and the waiters that count for their common maximum. Each pool has its own, unless it
    is one of several.

    @ivar counters: the counters of all events.
    @ivar waits: the times that waiters have waited before they were served.
    @ivar queues: the queues of waiters of all pools.
    """

    __slots__ = ("counters", "queues", "waits")

    def __init__(self) -> None:
        self.counters = Counters()
        self.waits = Histogram()
        self.queues: list[Waiters] = []

    @property
    def waiting(self) -> int:
        """
        The number of waiters of all pools.
        """
        return sum(queue.count for queue in self.queues)
