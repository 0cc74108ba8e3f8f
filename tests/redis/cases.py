# Copyright txconnpool contributors. See LICENSE.
"""
Test cases with a client of a Redis in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.pool.decisions.health import FLAP
from txconnpool.redis import RedisPool
from txconnpool.testing import FakeRedis, SteppingClock, finish


class RedisTestCase(SynchronousTestCase):
    """
    A pool whose server is a Redis in memory.
    """

    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        self.clock = SteppingClock()
        self.server = FakeRedis(self.clock)
        self.data = self.server.data
        self.pools: list[RedisPool[Any]] = []
        self.pool: RedisPool[bytes] = self.makePool(**self.settings)
        self.addCleanup(self.finish)

    def finish(self) -> None:
        """
        Close all pools.
        """
        for pool in self.pools[1:]:
            pool.close()
        finish(self.pool)

    def makePool(self, **settings: Any) -> RedisPool[Any]:
        pool: RedisPool[Any] = RedisPool(self.server, reactor=self.clock, **settings)
        self.pools.append(pool)
        return pool

    def flush(self) -> None:
        """
        Run all events that are due.
        """
        self.clock.advance(0)

    def lose(self) -> None:
        """
        Lose all connections after they have lived long enough for it not to count as a failed dial.
        """
        self.clock.advance(FLAP)
        self.server.reset()
        self.flush()
