# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.decisions.state}.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.pool.world import REFUSED, Waiter, World
from txconnpool.errors import PoolClosed, PoolFull, PoolTimeout
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.reasons import SURPLUS
from txconnpool.pool.decisions.records import CHECKING, OPEN, RETIRING, Record


class GrowTests(SynchronousTestCase):
    """
    Tests for when dials begin.
    """

    def test_notStarted(self) -> None:
        """
        A pool that is not started begins no dial and has nothing due.
        """
        world = World(minimum=2, idleTimeout=5, maxLifetime=5)
        self.assertIsInstance(world.ask().error, PoolClosed)
        world.do(world.admin.setLimits(Limits(minimum=3), world.now))
        self.assertEqual((world.dials, world.state.due(world.now)), ([], None))

    def test_minimum(self) -> None:
        """
        The minimum number of connections is dialed without any request, one connection after the other.
        """
        world = World(minimum=2).start()
        self.assertEqual(len(world.dials), 1)
        world.accept()
        self.assertEqual(len(world.dials), 1)
        world.accept()
        self.assertEqual((world.dials, world.phases), ([], [OPEN, OPEN]))

    @covers("24")
    def test_demand(self) -> None:
        """
        Each waiter causes a dial, up to the maximum number of connections. A server is dialed once at a time.
        """
        world = World(maximum=3).start()
        waiters = [world.ask() for _ in range(5)]
        dials = []
        while world.dials:
            dials.append(len(world.dials))
            world.accept()
        self.assertEqual(dials, [1, 1, 1])
        self.assertEqual([waiter.record is None for waiter in waiters], [False, False, False, True, True])

    def test_noMoreThanNeeded(self) -> None:
        """
        When a successful dial serves the only waiter, no further dial begins.
        """
        world = World().start()
        waiter = world.ask()
        record = world.accept()
        self.assertIs(waiter.record, record)
        self.assertEqual(world.dials, [])

    def test_servedMeanwhile(self) -> None:
        """
        A waiter is served by the first connection with capacity. A dial that was begun for it continues, and its
        connection becomes idle.
        """
        world = World()
        (record,) = world.established()
        first, second = world.ask(), world.ask()
        self.assertEqual(len(world.dials), 1)
        world.end(first)
        self.assertIs(second.record, record)
        world.accept()
        self.assertEqual((world.dials, world.state.stats().idle), ([], 1))

    @covers("24")
    def test_shared(self) -> None:
        """
        With pipelining, another connection is dialed when no connection is idle any more.
        """
        world = World(depth=8)
        (record,) = world.established()
        world.ask()
        self.assertEqual(world.dials, [])
        self.assertIs(world.ask().record, record)
        self.assertEqual(len(world.dials), 1)

    def test_lost(self) -> None:
        """
        An idle connection that is lost is replaced only if fewer connections than the minimum are left.
        """
        world = World(minimum=1)
        first, second = world.established(2)
        world.advance(5)
        world.lose(first)
        self.assertEqual(world.dials, [])
        world.lose(second)
        self.assertEqual(len(world.dials), 1)

    def test_wanted(self) -> None:
        """
        Connections are dialed for callers that wait for their number, without any request.
        """
        world = World().start()
        world.state.wanted = 2
        world.do(world.state.grow(world.now))
        world.accept()
        world.accept()
        self.assertEqual((world.state.connections.connected, world.dials), (2, []))

    @covers("19")
    def test_retiringCount(self) -> None:
        """
        A retiring connection counts against the maximum until it has ended.
        """
        world = World(maximum=1)
        (record,) = world.established()
        first = world.ask()
        world.do(world.state.connections.retire([record], SURPLUS))
        world.ask()
        self.assertEqual((world.dials, world.phases), ([], [RETIRING]))
        world.end(first)
        self.assertEqual(world.closes, [record])
        self.assertEqual(world.dials, [])
        world.lose(record)
        self.assertEqual(len(world.dials), 1)


class WaitTests(SynchronousTestCase):
    """
    Tests for waiters.
    """

    def test_order(self) -> None:
        """
        Waiters are served in the order in which they came, and before later callers.
        """
        world = World(maximum=1)
        world.established()
        waiters = [world.ask() for _ in range(4)]
        for waiter, following in pairwise(waiters):
            self.assertIsNone(following.record)
            world.end(waiter)
            self.assertIsNotNone(following.record)
            self.assertIsNone(world.ask().record)

    def test_exhausted(self) -> None:
        """
        When a waiter times out and all connections are busy, the error says so.
        """
        world = World(maximum=1, waitTimeout=2.0)
        world.established()
        world.ask()
        waiter = world.ask()
        world.advance(1.9)
        self.assertIsNone(waiter.error)
        world.advance(0.2)
        assert isinstance(waiter.error, PoolTimeout)
        self.assertEqual(waiter.error.phase, "wait")
        self.assertEqual(waiter.error.stats.waiting, 1)
        self.assertIsNone(waiter.error.__cause__)
        expected = "timed out waiting for a connection (1 of 1 connections busy, 0 idle, 0 dialing, 1 waiting)"
        self.assertEqual(str(waiter.error), expected)
        self.assertEqual(world.state.counters.timedOut, 1)

    def test_serverDown(self) -> None:
        """
        When a waiter times out and a server is down, the error names the server, and its cause is the error of the
        dial.
        """
        world = World(waitTimeout=0.05).start()
        waiter = world.ask()
        world.refuse()
        world.advance(0.06)
        self.assertEqual(str(waiter.error), "timed out waiting for a connection (server0: connection refused)")
        assert waiter.error is not None
        self.assertIs(waiter.error.__cause__, REFUSED)

    def test_forEver(self) -> None:
        """
        Without a C{waitTimeout}, waiters wait without limit.
        """
        world = World(maximum=1, waitTimeout=None)
        world.established()
        world.ask()
        waiter = world.ask()
        self.assertIsNone(world.state.due(world.now))
        world.advance(1e9)
        self.assertIsNone(waiter.error)

    def test_full(self) -> None:
        """
        When C{maxWaiting} waiters wait, the next caller is refused.
        """
        world = World(maximum=1, maxWaiting=2)
        world.established()
        waiters = [world.ask() for _ in range(4)]
        self.assertEqual([type(waiter.error) for waiter in waiters], [type(None)] * 3 + [PoolFull])
        self.assertEqual(world.state.counters.rejected, 1)
        self.assertEqual(world.state.waiters.count, 2)


class EndTests(SynchronousTestCase):
    """
    Tests for stopping, and starting again.
    """

    def test_stop(self) -> None:
        """
        When a pool stops, waiters are refused, connections are closed as soon as they carry nothing, and callers are
        refused.
        """
        world = World(maximum=2, idleTimeout=9, maxLifetime=9)
        records = world.established(2)
        busy = world.ask(), world.ask()
        world.end(busy[0])
        waiters = world.ask(), world.ask()
        world.do(world.state.stop())
        self.assertIsNone(waiters[0].error)  # it was served
        self.assertEqual((type(waiters[1].error), str(waiters[1].error)), (PoolClosed, "the pool was closed"))
        self.assertIsInstance(world.ask().error, PoolClosed)
        world.end(waiters[0])
        world.end(busy[1])
        self.assertEqual(set(world.closes), set(records))
        self.assertIsNone(world.state.due(world.now))

    def test_dialsGivenUp(self) -> None:
        """
        A dial that is cancelled because the pool stops does not mark the server as down, and causes no other dial.
        """
        world = World(2, minimum=2, maximum=2).start()
        world.do(world.state.stop())
        world.refuse()
        world.refuse()
        self.assertEqual((world.dials, world.state.records), ([], []))
        self.assertTrue(all(server.up for server in world.state.servers))
        self.assertEqual(world.state.counters.dialFailures, 0)

    def test_again(self) -> None:
        """
        A stopped pool can be started again.
        """
        world = World(minimum=1)
        (record,) = world.established()
        world.do(world.state.stop())
        world.lose(record)
        world.start()
        world.accept()
        self.assertIsNotNone(world.ask().record)


class SelfCheckTests(SynchronousTestCase):
    """
    Tests for L{PoolState.selfCheck}.
    """

    def assertBroken(self, text: str, breakIt: Callable[[World, Record], object]) -> None:
        """
        Assert that C{selfCheck} passes at first, and fails with a text after a change.
        """
        world = World(depth=2)
        (record,) = world.established()
        world.state.selfCheck(world.now)
        breakIt(world, record)
        self.assertIn(text, str(self.assertRaises(AssertionError, world.state.selfCheck, world.now)))

    def test_broken(self) -> None:
        """
        The error names the broken invariant.
        """

        def setLoad(world: World, record: Record) -> None:
            record.load = 1

        def setCount(world: World, record: Record) -> None:
            record.server.count = 2

        def setPhase(world: World, record: Record) -> None:
            record.phase = CHECKING

        def forgetDial(world: World, record: Record) -> None:
            world.state.connections.add(record.server)
            world.state.connections.dialing = 0

        def wait(world: World, record: Record) -> None:
            world.state.enqueue(Waiter(), world.now)

        for text, breakIt in (
            ("are listed as idle", setLoad),
            ("has ['open']", setCount),
            ("counted as checking", setPhase),
            ("counted as dialing", forgetDial),
            ("waiters, but idle connections", wait),
        ):
            self.assertBroken(text, breakIt)
