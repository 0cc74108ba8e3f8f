# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.decisions.health}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.pool.world import REFUSED, World
from txconnpool.errors import ServerUnavailable
from txconnpool.pool.decisions.reasons import SURPLUS


class FailureTests(SynchronousTestCase):
    """
    Tests for failed dials and lost connections.
    """

    @covers("24")
    def test_backsOff(self) -> None:
        """
        The delay between failed dials grows up to its maximum. After a success it is short again.
        """
        world = World().start()
        world.ask()

        def pause() -> float:
            world.refuse()
            due = world.state.due(world.now)
            assert due is not None
            pause = due - world.now
            world.advance(pause)
            return round(pause, 6)

        self.assertEqual([pause() for _ in range(6)], [0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
        record = world.accept()
        world.advance(5)
        world.lose(record)
        world.ask()
        self.assertEqual(pause(), 0.1)

    @covers("24")
    def test_noHotLoop(self) -> None:
        """
        A server that accepts connections and closes them at once is dialed with back-off, as one that refuses.
        """
        world = World(minimum=1).start()
        for _ in range(10):
            world.advance(2)
            world.lose(world.accept())
            self.assertEqual(world.dials, [])
        world.advance(10)
        self.assertEqual(world.state.counters.dials, 11)

    @covers("22", "R22")
    def test_livedForAWhile(self) -> None:
        """
        The loss of a connection that has lasted for a while does not delay the next dial.
        """
        world = World(minimum=1)
        (record,) = world.established()
        world.advance(1.5)
        world.lose(record)
        self.assertEqual(len(world.dials), 1)
        self.assertEqual(world.state.counters.outages, 0)

    def test_servedAtOnce(self) -> None:
        """
        A connection on which requests were answered was a good one, even if it is lost within its first second.
        """
        world = World(minimum=1)
        (record,) = world.established()
        world.do(world.state.lost(record, REFUSED, "connection lost", world.now, served=True))
        self.assertEqual((len(world.dials), world.state.counters.outages), (1, 0))

    def test_failFast(self) -> None:
        """
        When no connection is left and C{whenDown} dials in a row have failed, waiters are refused with the reason, and
        later callers at once, until a dial succeeds.
        """
        world = World(whenDown=2).start()
        waiter = world.ask()
        world.refuse()
        self.assertIsNone(waiter.error)
        world.advance(1)
        world.refuse()
        newcomer = world.ask()
        for refused in (waiter, newcomer):
            self.assertIsInstance(refused.error, ServerUnavailable)
            self.assertEqual(str(refused.error), "upstream unavailable: connection refused (server0)")
            assert isinstance(refused.error, ServerUnavailable)
            self.assertIs(refused.error.__cause__, REFUSED)
            self.assertEqual(refused.error.stats.dialFailures, 2)
        self.assertEqual(world.state.counters.unavailable, 2)
        world.advance(1)
        world.accept()
        self.assertIsNotNone(world.ask().record)

    def test_connectionLeft(self) -> None:
        """
        While there is a connection, waiters keep waiting, however many dials fail.
        """
        world = World(whenDown=1)
        world.established()
        world.ask()
        waiter = world.ask()
        for _ in range(5):
            world.refuse()
            world.advance(1.5)
        self.assertIsNone(waiter.error)

    def test_servesButRefuses(self) -> None:
        """
        A server that serves a connection and accepts no others is up. When the connection is lost, it is down.
        """
        world = World(minimum=2, maximum=2)
        world.start()
        record = world.accept()
        (server,) = world.state.servers
        for _ in range(3):
            world.refuse()
            world.advance(1.5)
        self.assertEqual((server.state, server.traffic.outages, server.since), ("up", 0, 0.0))
        world.lose(record)
        self.assertEqual((server.state, server.traffic.outages, server.since), ("down", 1, world.now))
        world.refuse()
        self.assertEqual(server.traffic.outages, 1)
        world.advance(1.5)
        world.accept()
        self.assertEqual((server.state, server.since), ("up", world.now))

    def test_closedByPool(self) -> None:
        """
        When the pool closes the last connection of a server, failed dials before that do not count: the server is
        dialed before requests are refused.
        """
        world = World(maximum=2, whenDown=1, idleTimeout=10)
        (record,) = world.established()
        world.advance(9.95)
        busy = world.ask()
        waiter = world.ask()
        world.refuse()
        world.end(busy)
        world.end(waiter)
        world.do(world.state.connections.retire([record], SURPLUS))
        self.assertEqual(world.closes, [record])
        world.lose(record)
        self.assertEqual(world.state.servers[0].state, "up")
        newcomer = world.ask()
        self.assertEqual((newcomer.error, len(world.dials)), (None, 1))
        world.refuse()
        self.assertIsInstance(newcomer.error, ServerUnavailable)

    def test_closedForSilence(self) -> None:
        """
        Failed dials count if the pool has closed the last connection because the server does not answer.
        """
        world = World(maximum=3, whenDown=1)
        silent, other = world.established(2)
        first, second, third = world.ask(), world.ask(), world.ask()
        world.refuse()
        world.end(first)
        world.end(second)
        world.advance(1)
        world.do(world.state.suspect(silent, world.now, world.now))
        self.assertEqual((third.error, world.state.servers[0].failures), (None, 1))
        world.lose(other)
        world.lose(silent)
        self.assertEqual(world.state.servers[0].state, "down")

    def test_allServersDown(self) -> None:
        """
        Requests are refused when all servers are down, not when one is.
        """
        world = World(2, whenDown=1).start()
        waiter = world.ask()
        world.refuse()
        self.assertIsNone(waiter.error)
        world.refuse()
        self.assertIsInstance(waiter.error, ServerUnavailable)

    def test_clockJumps(self) -> None:
        """
        A clock that is set back or forward breaks nothing but the times that it concerns.
        """
        world = World(minimum=1, idleTimeout=60, maxLifetime=600)
        (record,) = world.established()
        first, second = world.ask(), world.ask()
        world.now -= 3600
        world.end(first)
        self.assertIs(second.record, record)
        self.assertGreaterEqual(world.state.stats().waitTime, 0)
        world.end(second)
        world.now += 10 * 3600
        world.advance(0)
        while world.dials:
            world.accept()
        world.advance(0)
        self.assertIn(record, world.closes)
        world.lose(record)
        self.assertIsNotNone(world.ask().record)
