# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.flavours}.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.toy import Toy, ToyServerFactory
from txconnpool.errors import PoolFull
from txconnpool.pool.connection import ConnectionFactory
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.engine import PoolEngine
from txconnpool.routing.flavours import FLAVOURS_MAX, FlavouredPool
from txconnpool.testing import FakeServer, finish

LIMITS = Limits(maximum=3, minimum=1, depth=4, waitTimeout=1.0, whenDown=1, idleTimeout=0.0, maxLifetime=0.0)


class FlavouredPoolTests(SynchronousTestCase):
    """
    Tests for L{FlavouredPool}.
    """

    def setUp(self) -> None:
        """
        Start a pool.
        """
        self.reactor: Any = MemoryReactorClock()
        self.server = FakeServer(self.reactor, ToyServerFactory())
        self.made: list[Any] = []
        self.pool = FlavouredPool("pool", self.reactor, self.make, LIMITS, "plain", 5)
        self.pool.start()
        self.turns()
        self.addCleanup(finish, self.pool.base)
        self.addCleanup(self.pool.close)
        self.addCleanup(self.turns)

    def make(self, flavour: Any, limits: Limits, **options: Any) -> PoolEngine:
        """
        Make the pool of a flavour.
        """
        self.made.append(flavour)
        return PoolEngine([self.server], ConnectionFactory(Toy(), self.reactor, 2.0), limits, self.reactor, **options)

    def turns(self) -> None:
        """
        Run all events that are due now.
        """
        for _ in range(10):
            self.reactor.advance(0)

    def test_made(self) -> None:
        """
        The pool of a flavour is made and started when it is first used. Only that of new clients keeps connections.
        """
        self.assertEqual((self.made, len(self.pool.connections)), (["plain", None], 1))
        other = self.pool.of("other")
        self.assertIs(self.pool.of("other"), other)
        self.assertIs(self.pool.of("plain"), self.pool.base)
        self.assertEqual((self.made[2:], other.limits.minimum, other.limits.maximum), (["other"], 0, 3))
        self.assertEqual(self.pool.leases.limits, replace(LIMITS, maximum=5, minimum=0))

    def test_bound(self) -> None:
        """
        The number of flavours is limited.
        """
        for number in range(FLAVOURS_MAX - 1):
            self.pool.of(number)
        self.assertRaises(PoolFull, self.pool.of, "one more")

    def test_counters(self) -> None:
        """
        All flavours of a server count together, and their connections are those of one pool.
        """
        (server,) = self.pool.of("other").servers
        self.assertIs(server.traffic, self.pool.servers[0].traffic)

        class Waiter:
            ticket: Any = None

            def granted(self, record: Any) -> None:
                """
                Use the connection.
                """
                record.load += 1

        self.pool.of("other").take(Waiter())
        self.assertEqual((self.pool.waiting, self.pool.stats.waiting), (1, 1))
        self.turns()
        stats = self.pool.stats
        self.assertEqual((stats.connections, stats.inFlight, stats.acquired, len(self.pool.records)), (2, 1, 1, 2))
        for record in self.pool.of("other").records:
            record.load = 0

    def test_operators(self) -> None:
        """
        What operators do concerns all flavours, also those that are made later.
        """
        self.pool.of("a")
        self.pool.drain(self.pool.servers[0].name)
        self.pool.pause()
        for flavour in ("plain", "a", "b"):
            pool = self.pool.of(flavour)
            self.assertEqual((pool.servers[0].state, pool.paused), ("drained", True))
        self.pool.resume()
        self.pool.restore(self.pool.servers[0].name)
        self.pool.setLimits(replace(LIMITS, maximum=7), 9)
        self.assertEqual({self.pool.of(each).limits.maximum for each in ("plain", "a", "b")}, {7})
        self.assertEqual((self.pool.leases.limits.maximum, self.pool.limits.maximum), (9, 7))
        self.pool.selfCheck()
