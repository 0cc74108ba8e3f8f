# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.decisions.health}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.pool.world import REFUSED, World
from txconnpool.errors import ServerUnavailable


class FailureTests(SynchronousTestCase):
    """
    Tests for dials that fail and connections that are lost.
    """

    @covers("24")
    def test_backsOff(self) -> None:
        """
        The time between failed dials grows to its most, and is short again after a success.
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
        A server that accepts and hangs up at once is dialed as slowly as one that refuses.
        """
        world = World(minimum=1).start()
        for _ in range(10):
            world.advance(2)
            world.lose(world.accept())
            self.assertEqual(world.dials, [])
        world.advance(10)
        self.assertEqual(world.state.counters.dials, 11)

    @covers("22")
    def test_livedForAWhile(self) -> None:
        """
        The loss of a connection that has lasted is no reason to wait with the next dial.
        """
        world = World(minimum=1)
        (record,) = world.established()
        world.advance(1.5)
        world.lose(record)
        self.assertEqual(len(world.dials), 1)
        self.assertEqual(world.state.counters.outages, 0)

    def test_failFast(self) -> None:
        """
        After so many failed dials without a connection left, those who wait are refused with the reason, and newcomers
        at once, until a dial succeeds.
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
        While there is a connection, those who wait go on waiting, however many dials fail.
        """
        world = World(whenDown=1)
        world.established()
        world.ask()
        waiter = world.ask()
        for _ in range(5):
            world.refuse()
            world.advance(1.5)
        self.assertIsNone(waiter.error)

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
        A clock that is put back or forward breaks nothing that time does not concern.
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
        self.assertEqual(world.closes, [record])
        world.lose(record)
        world.accept()
        self.assertIsNotNone(world.ask().record)
