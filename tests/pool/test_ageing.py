# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.decisions.ageing}, and for checks of idle connections.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.pool.world import World
from txconnpool.pool.decisions.actions import Dial
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.reasons import CHECK_FAILED
from txconnpool.pool.decisions.records import CHECKING, DOUBTFUL, GONE, Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.pool.decisions.state import PoolState


class CheckTests(SynchronousTestCase):
    """
    Tests for checks of connections.
    """

    def doubtful(self, count: int = 1, **limits: Any) -> tuple[World, list[Record]]:
        """
        @return: a world with connections that were idle for so long that they must be checked.
        """
        world = World(checkIfIdleFor=1.0, **limits)
        records = world.established(count)
        world.advance(2)
        world.state.doubt(world.now)
        return world, records

    def test_fresh(self) -> None:
        """
        A connection that was used a moment ago is used without a check.
        """
        world = World(checkIfIdleFor=1.0)
        world.established()
        world.advance(0.9)
        world.state.doubt(world.now)
        self.assertIsNotNone(world.ask().record)
        self.assertEqual(world.checks, [])

    def test_lives(self) -> None:
        """
        A connection that was idle for long is checked first, and used when the check succeeds.
        """
        world, (record,) = self.doubtful()
        waiter = world.ask()
        self.assertEqual((waiter.record, world.checks, world.dials), (None, [record], []))
        world.state.connections.checked(record, world.now)
        world.do([])
        self.assertIs(waiter.record, record)

    def test_dead(self) -> None:
        """
        When the check fails, the connection is closed, and the next one is checked or another one is dialed.
        """
        world, records = self.doubtful(2)
        waiter = world.ask()
        for count in (1, 2):
            record = world.checks[-1]
            world.do(world.state.connections.discard(record, CHECK_FAILED) + world.state.grow(world.now))
            self.assertEqual(len(world.closes), count)
        self.assertEqual(set(world.checks), set(records))
        world.accept()
        self.assertIsNotNone(waiter.record)

    def test_oneEach(self) -> None:
        """
        One connection is checked for each request, not all. No dial begins meanwhile.
        """
        world, _ = self.doubtful(3)
        first = world.ask()
        self.assertEqual(len(world.checks), 1)
        second = world.ask()
        self.assertEqual((len(world.checks), world.dials), (2, []))
        for record in world.checks:
            world.state.connections.checked(record, world.now)
        world.do([])
        self.assertTrue(first.record and second.record)
        self.assertEqual(world.state.stats().idle, 1)

    def test_lost(self) -> None:
        """
        A connection that is lost while it is checked, or before, is gone.
        """
        world, (first, second) = self.doubtful(2)
        world.ask()
        (checked,) = world.checks
        (doubted,) = {first, second} - {checked}
        self.assertEqual((checked.phase, doubted.phase), (CHECKING, DOUBTFUL))
        world.lose(checked)
        world.state.connections.checked(checked, world.now)
        self.assertEqual(world.checks[-1], doubted)
        world.lose(doubted)
        self.assertEqual((checked.phase, doubted.phase), (GONE, GONE))
        self.assertEqual(len(world.dials), 1)

    def test_idle(self) -> None:
        """
        A check does not count as use: connections that were idle for C{idleTimeout} are closed although they are to be
        checked, down to the minimum.
        """
        world, _ = self.doubtful(3, minimum=1, idleTimeout=10)
        world.advance(9)
        self.assertEqual(len(world.closes), 2)

    def test_keepAlive(self) -> None:
        """
        An idle connection is checked at the interval C{keepAlive}. Until then a request uses another connection if
        there is one.
        """
        world = World(keepAlive=10)
        (record,) = world.established()
        for _ in range(3):
            world.advance(9)
            self.assertEqual(world.checks, [])
            world.advance(1)
            self.assertEqual(world.checks, [record])
            world.checks.clear()
            world.state.connections.checked(record, world.now)

    def test_keepAliveBusy(self) -> None:
        """
        A connection that is in use, or was used meanwhile, is not checked.
        """
        world = World(keepAlive=10)
        world.established()
        waiter = world.ask()
        world.advance(25)
        world.end(waiter)
        world.advance(9)
        self.assertEqual(world.checks, [])
        world.advance(11)
        self.assertEqual(len(world.checks), 1)

    def test_keptAliveAges(self) -> None:
        """
        A connection that was checked for C{keepAlive} is closed all the same when it was idle for C{idleTimeout}.
        """
        world = World(keepAlive=10, idleTimeout=35)
        (record,) = world.established()
        for _ in range(3):
            world.advance(10)
            world.state.connections.checked(world.checks.pop(), world.now)
        world.advance(5)
        self.assertEqual(world.closes, [record])


class AgeTests(SynchronousTestCase):
    """
    Tests for connections that were idle for too long or are too old.
    """

    def test_idle(self) -> None:
        """
        Connections that were idle for C{idleTimeout} are closed, those that were idle for longest first, down to the
        minimum.
        """
        world = World(maximum=3, minimum=1, idleTimeout=10)
        records = world.established(3)
        last = world.ask()
        world.advance(8)
        world.end(last)
        world.advance(3)
        self.assertEqual(set(world.closes), set(records) - {last.record})
        world.advance(100)
        self.assertEqual(len(world.closes), 2)

    def test_idleLater(self) -> None:
        """
        A connection that was busy when others were closed is closed when it was idle for C{idleTimeout} itself.
        """
        world = World(maximum=2, idleTimeout=10)
        world.established(2)
        waiter = world.ask()
        world.advance(12)
        self.assertEqual(len(world.closes), 1)
        world.end(waiter)
        world.advance(25)
        self.assertEqual(len(world.closes), 2)

    def test_old(self) -> None:
        """
        An old connection is replaced, but not while it is in use.
        """
        world = World(maximum=2, minimum=2, maxLifetime=100)
        world.established(2)
        waiter = world.ask()
        world.advance(101)
        self.assertEqual((world.closes, len(world.dials)), ([], 1))
        world.accept()
        (closed,) = world.closes
        self.assertIsNot(closed, waiter.record)
        world.lose(closed)
        world.accept()
        world.advance(90)
        self.assertEqual(world.closes, [])
        world.end(waiter)
        self.assertEqual(world.closes, [waiter.record])

    def test_successorFirst(self) -> None:
        """
        A connection that is too old is used until its successor is established, however long that takes.
        """
        world = World(maximum=1, whenDown=1, maxLifetime=100)
        (record,) = world.established()
        world.advance(101)
        for _ in range(5):
            world.refuse()
            waiter = world.ask()
            self.assertIs(waiter.record, record)
            world.end(waiter)
            world.advance(1.5)
        self.assertEqual((world.closes, world.state.servers[0].state), ([], "up"))
        successor = world.accept()
        self.assertEqual((world.closes, record.reason), ([record], "too old"))
        self.assertIs(world.ask().record, successor)

    def test_oneAtATime(self) -> None:
        """
        There is at most one connection more than the maximum while old ones are replaced.
        """
        world = World(servers=2, maximum=4, minimum=4, maxLifetime=100)
        old = world.established(4)
        world.advance(101)
        for count in range(4):
            self.assertEqual((len(world.dials), len(world.closes)), (1, 0))
            self.assertEqual(len(world.state.records), 5)
            world.state.selfCheck(world.now)
            world.accept()
            self.assertEqual(len(world.closes), 1, count)
            world.lose(world.closes[0])
        self.assertEqual((world.dials, len(world.state.records)), ([], 4))
        self.assertFalse(set(old) & set(world.state.records))
        self.assertEqual([server.count for server in world.state.servers], [2, 2])

    def test_lostBeforeItsSuccessor(self) -> None:
        """
        If a connection ends while its successor is dialed, the pool does not exceed its maximum afterwards.
        """
        world = World(maximum=1, minimum=1, maxLifetime=100)
        (record,) = world.established()
        world.advance(101)
        world.lose(record)
        world.accept()
        self.assertEqual((len(world.state.records), world.closes), (1, []))

    def test_smallerMeanwhile(self) -> None:
        """
        If the pool is made smaller while a successor is dialed, it does not exceed its new maximum afterwards.
        """
        world = World(maximum=2, minimum=2, maxLifetime=100)
        world.established(2)
        world.advance(101)
        limits = Limits(maximum=1, minimum=1, idleTimeout=0, maxLifetime=100)
        world.do(world.admin.setLimits(limits, world.now))
        while world.dials:
            world.accept()
        for record in list(world.closes):
            world.lose(record)
        world.state.selfCheck(world.now)
        self.assertEqual(len(world.state.records), 1)

    def test_spread(self) -> None:
        """
        Connections that were made at the same time do not expire at the same time.
        """
        state = PoolState(Limits(maximum=100, minimum=100, idleTimeout=0, maxLifetime=3600))
        state.servers += [Server("server", None)]
        (dial,) = state.start(0)
        for _ in range(100):
            assert isinstance(dial, Dial)
            (dial, *_) = [*state.dialed(dial.record, None, 0), None]
        ends = sorted(record.expires for record in state.records)
        self.assertGreaterEqual(ends[0], 3600 * 0.95)
        self.assertLessEqual(ends[-1], 3600)
        crowd = max(sum(1 for end in ends if start <= end < start + 1) for start in ends)
        self.assertLess(crowd, 20)

    def test_both(self) -> None:
        """
        With all kinds of ageing at once, the next time at which something is due is always in the future.
        """
        world = World(maximum=3, minimum=1, idleTimeout=7, maxLifetime=11, keepAlive=3, checkIfIdleFor=1)
        world.established(3)
        for step in range(60):
            world.state.doubt(world.now)
            waiter = world.ask()
            world.advance(0.7 * (step % 7))
            for record in list(world.checks):
                world.checks.remove(record)
                world.state.connections.checked(record, world.now)
            world.do([])
            while world.dials:
                world.accept()
            if waiter.record is not None:
                world.end(waiter)
            for record in list(world.closes):
                world.lose(record)
            self.assertLessEqual(len(world.state.records), 4)
        self.assertGreater(world.state.counters.closed, 5)
