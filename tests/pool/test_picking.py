# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.decisions.picking}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from tests.pool.world import World
from txconnpool.pool.decisions.picking import TOGETHER
from txconnpool.pool.decisions.records import GONE, HELD, RETIRING


class PickTests(SynchronousTestCase):
    """
    Tests for which connection is taken.
    """

    def reused(self, reuse: str) -> list[int]:
        """
        Use three connections four times, one after the other, after they were given back in their order.
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
        By default the one that became free last is taken, so that the others may age.
        """
        self.assertEqual(self.reused("lifo"), [2, 2, 2, 2])

    def test_even(self) -> None:
        """
        With the other two ways all are used in turn.
        """
        for reuse in ("fifo", "least-loaded"):
            self.assertEqual(self.reused(reuse), [0, 1, 2, 0])

    def test_leastLoaded(self) -> None:
        """
        When none is idle the least loaded one with room is taken, and none when all are full.
        """
        world = World(maximum=2, depth=2)
        first, second = world.established(2)
        taken = [world.ask().record for _ in range(3)]
        self.assertEqual(sorted([first.load, second.load]), [1, 2])
        taken.append(world.ask().record)
        self.assertEqual([taken.count(first), taken.count(second)], [2, 2])
        self.assertIsNone(world.state.pick())

    def test_together(self) -> None:
        """
        A connection that has yet to send what it was given is given more, within bounds, though others are idle. What
        comes later goes elsewhere.
        """
        world = World(maximum=2, depth=100)
        first, second = world.established(2)
        chosen = world.ask().record
        assert chosen is not None
        other = second if chosen is first else first
        chosen.connection.sending = True
        self.assertEqual({world.ask().record for _ in range(TOGETHER - 1)}, {chosen})
        self.assertIs(world.ask().record, other)
        other.connection.sending = True
        self.assertIs(world.ask().record, other)
        other.connection.sending = False
        other.load += TOGETHER
        self.assertIs(world.ask().record, chosen)

    def test_togetherInVain(self) -> None:
        """
        That is not for somebody who wants a connection alone, nor where there is no room, nor for one that is idle
        again, or gone.
        """
        world = World(maximum=2, depth=2)
        first, second = world.established(2)
        request = world.ask()
        chosen = request.record
        assert chosen is not None
        other = second if chosen is first else first
        chosen.connection.sending = True
        lease = world.ask(True)
        self.assertIs(lease.record, other)
        world.end(lease)
        self.assertEqual([world.ask().record for _ in range(2)], [chosen, other])
        chosen.load = 0
        world.do(world.state.hasCapacity(chosen, world.now))
        self.assertIs(world.ask().record, chosen)
        other.load = 0
        world.do(world.admin.setLimits(replace(world.state.limits, depth=1), world.now))
        self.assertIs(world.state.pick(), None)
        world.do(world.state.hasCapacity(other, world.now))
        world.lose(chosen)
        self.assertIs(world.ask().record, other)

    def test_exclusive(self) -> None:
        """
        A connection for one alone is an idle one, and has room for nobody else.
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

    def test_easedTwice(self) -> None:
        """
        To say twice that a connection carries nothing does not make it two.
        """
        world = World()
        (record,) = world.established()
        world.do(world.state.hasCapacity(record, world.now))
        self.assertIs(world.ask().record, record)
        self.assertIsNone(world.state.pick())


class HoldTests(SynchronousTestCase):
    """
    Tests for connections whose server does not read.
    """

    def test_hold(self) -> None:
        """
        A connection that is held back gets nothing more, and serves who waits when it is not any more.
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
        One that carries nothing when it is not held any more is idle, and ages as others do.
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
        Once a connection is lost or to be closed, it is not to be had by being held no more.
        """
        world = World()
        first, second = world.established(2)
        for record in (first, second):
            world.state.connections.hold(record)
        world.lose(first)
        world.do(world.state.connections.discard(second, "enough"))
        for record in (first, second):
            world.state.connections.unhold(record, world.now)
        self.assertEqual((first.phase, second.phase, world.state.pick()), (GONE, RETIRING, None))
