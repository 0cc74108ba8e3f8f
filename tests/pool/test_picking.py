# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.decisions.picking}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from tests.pool.world import World
from txconnpool.pool.decisions.picking import TOGETHER
from txconnpool.pool.decisions.reasons import SURPLUS
from txconnpool.pool.decisions.records import GONE, HELD, RETIRING


class PickTests(SynchronousTestCase):
    """
    Tests for the choice of a connection.
    """

    def reused(self, reuse: str) -> list[int]:
        """
        @return: the connections that four requests pick, one after the other, from three idle ones.
        """
        world = World(reuse=reuse)
        records = world.established(3)
        waiters = {waiter.record: waiter for waiter in [world.ask() for _ in range(3)]}
        for record in records:
            world.end(waiters[record])
        used = []
        for _ in range(4):
            waiter = world.ask()
            assert waiter.record is not None
            used.append(records.index(waiter.record))
            world.end(waiter)
        return used

    def test_lifo(self) -> None:
        """
        By default the connection that became idle last is picked, so that the others can age.
        """
        self.assertEqual(self.reused("lifo"), [2, 2, 2, 2])

    def test_even(self) -> None:
        """
        The other two values of C{reuse} use all connections in turn.
        """
        for reuse in ("fifo", "least-loaded"):
            self.assertEqual(self.reused(reuse), [0, 1, 2, 0])

    def test_leastLoaded(self) -> None:
        """
        If no connection is idle, the least loaded one that has capacity is picked; none if all are full.
        """
        world = World(maximum=2, depth=2)
        first, second = world.established(2)
        taken = [world.ask().record for _ in range(3)]
        self.assertEqual(sorted([first.load, second.load]), [1, 2])
        taken.append(world.ask().record)
        self.assertEqual([taken.count(first), taken.count(second)], [2, 2])
        self.assertIsNone(world.state.connections.pick())

    def test_together(self) -> None:
        """
        A connection that has not yet written its last request is picked again, up to L{TOGETHER} requests, although
        others are idle. Later requests go to other connections.
        """
        world = World(maximum=2, depth=100)
        first, second = world.established(2)
        chosen = world.ask().record
        assert chosen is not None
        other = second if chosen is first else first
        chosen.connection.outlet.queued = True
        self.assertEqual({world.ask().record for _ in range(TOGETHER - 1)}, {chosen})
        self.assertIs(world.ask().record, other)
        other.connection.outlet.queued = True
        self.assertIs(world.ask().record, other)
        other.connection.outlet.queued = False
        other.load += TOGETHER
        self.assertIs(world.ask().record, chosen)

    def test_togetherInVain(self) -> None:
        """
        It is not picked again for an exclusive request, nor when it is full, idle again, or gone.
        """
        world = World(maximum=2, depth=2)
        first, second = world.established(2)
        request = world.ask()
        chosen = request.record
        assert chosen is not None
        other = second if chosen is first else first
        chosen.connection.outlet.queued = True
        lease = world.ask(True)
        self.assertIs(lease.record, other)
        world.end(lease)
        self.assertEqual([world.ask().record for _ in range(2)], [chosen, other])
        chosen.load = 0
        world.do(world.state.connections.hasCapacity(chosen, world.now))
        self.assertIs(world.ask().record, chosen)
        other.load = 0
        world.do(world.admin.setLimits(replace(world.state.limits, depth=1), world.now))
        self.assertIs(world.state.connections.pick(), None)
        world.do(world.state.connections.hasCapacity(other, world.now))
        world.lose(chosen)
        self.assertIs(world.ask().record, other)

    def test_exclusive(self) -> None:
        """
        An exclusive request gets an idle connection, which then has no capacity for others.
        """
        world = World(maximum=1, depth=4)
        world.established()
        request = world.ask()
        lease = world.ask(True)
        self.assertIsNone(lease.record)
        world.end(request)
        self.assertIsNotNone(lease.record)
        self.assertIsNone(world.ask().record)
        self.assertEqual(world.state.stats().inFlight, 4)

    def test_hasCapacityTwice(self) -> None:
        """
        Reporting twice that a connection carries nothing does not make it two idle connections.
        """
        world = World()
        (record,) = world.established()
        world.do(world.state.connections.hasCapacity(record, world.now))
        self.assertIs(world.ask().record, record)
        self.assertIsNone(world.state.connections.pick())


class HoldTests(SynchronousTestCase):
    """
    Tests for connections whose server does not read.
    """

    def test_hold(self) -> None:
        """
        A connection that is held gets no requests. When it is not held any more, it serves a waiter.
        """
        world = World(maximum=1, depth=4)
        (record,) = world.established()
        first = world.ask()
        world.state.connections.hold(record)
        waiter = world.ask()
        self.assertEqual((waiter.record, record.phase), (None, HELD))
        world.end(first)
        self.assertIsNone(waiter.record)
        world.state.connections.unhold(record, world.now)
        world.do([])
        self.assertIs(waiter.record, record)

    def test_idleAgain(self) -> None:
        """
        A connection that carries nothing when it is not held any more is idle, and ages as others do.
        """
        world = World(idleTimeout=10)
        (record,) = world.established()
        waiter = world.ask()
        world.state.connections.hold(record)
        world.end(waiter)
        world.advance(60)
        world.state.connections.unhold(record, world.now)
        world.advance(9)
        self.assertEqual(world.closes, [])
        world.advance(2)
        self.assertEqual(world.closes, [record])

    def test_lostOrRetired(self) -> None:
        """
        A connection that was lost or retired while it was held is not picked when it is not held any more.
        """
        world = World()
        first, second = world.established(2)
        for record in (first, second):
            world.state.connections.hold(record)
        world.lose(first)
        world.do(world.state.connections.discard(second, SURPLUS))
        for record in (first, second):
            world.state.connections.unhold(record, world.now)
        self.assertEqual((first.phase, second.phase, world.state.connections.pick()), (GONE, RETIRING, None))
