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
from txconnpool.pool.connection import ConnectionFactory
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.engine import PoolEngine
from txconnpool.routing.flavours import FlavouredPool
from txconnpool.testing import FakeServer, finish

LIMITS = Limits(maximum=3, minimum=1, depth=4, waitTimeout=1.0, whenDown=1, idleTimeout=0.0, maxLifetime=0.0)


class Question:
    """
    Takes a connection.
    """

    ticket: Any = None

    def granted(self, record: Any) -> None:
        """
        Use the connection.
        """
        record.load += 1


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

    def test_counters(self) -> None:
        """
        All flavours of a server count together, and their connections are those of one pool.
        """
        (server,) = self.pool.of("other").servers
        self.assertIs(server.traffic, self.pool.servers[0].traffic)
        self.pool.of("other").take(Question())
        self.assertEqual((self.pool.waiting, self.pool.stats.waiting), (1, 1))
        self.turns()
        stats = self.pool.stats
        self.assertEqual((stats.connections, stats.inFlight, stats.acquired, len(self.pool.records)), (2, 1, 1, 2))
        for record in self.pool.of("other").records:
            record.load = 0

    def test_end(self) -> None:
        """
        The connections of a flavour that ends are closed when they carry nothing any more. Until then they are
        connections of the pool. The flavour can be used again at once.
        """
        other = self.pool.of("other")
        other.take(Question())
        self.turns()
        (connection,) = other.connections
        server = connection.record.server
        self.pool.end("other")
        self.pool.end("unknown")
        self.turns()
        stats = self.pool.stats
        self.assertEqual((stats.connections, stats.inFlight, len(self.pool.records)), (2, 1, 2))
        self.assertEqual((connection in self.pool.connections, len(self.pool.queues)), (True, 2))
        again = self.pool.of("other")
        self.assertIsNot(again, other)
        again.take(Question())
        self.turns()
        self.assertEqual((len(again.connections), self.pool.stats.connections), (1, 3))
        connection.record.load = 0
        other.hasCapacity(connection.record)
        self.turns()
        self.assertNotIn(connection, self.pool.connections)
        self.assertEqual((self.pool.stats.connections, server.count, self.pool.former), (2, 0, []))
        self.assertEqual(self.pool.servers[0].traffic.dials, 3)
        self.pool.selfCheck()
        for record in again.records:
            record.load = 0

    def test_closed(self) -> None:
        """
        A pool is closed when the connections of flavours that have ended are, and ends these too.
        """
        other = self.pool.of("other")
        other.take(Question())
        self.turns()
        self.pool.end("other")
        closed = self.pool.close()
        self.turns()
        self.assertNoResult(closed)
        self.pool.abort()
        self.turns()
        self.successResultOf(closed)

    def test_changes(self) -> None:
        """
        What is changed or done by operators does not concern a flavour that has ended.
        """
        other = self.pool.of("other")
        self.pool.pause()
        self.pool.end("other")
        self.turns()
        self.pool.setLimits(replace(LIMITS, maximum=7), 9)
        self.pool.resume()
        self.pool.drain(self.pool.servers[0].name)
        self.assertEqual((other.limits.maximum, other.servers[0].drained), (3, False))
        self.assertEqual(self.pool.of("other").limits.maximum, 7)

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
