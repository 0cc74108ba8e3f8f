# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.decisions.administration}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.pool.world import World
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.reasons import EXPIRED
from txconnpool.pool.decisions.records import OPEN, RETIRING
from txconnpool.pool.decisions.servers import Server


class ChangeTests(SynchronousTestCase):
    """
    Tests for other limits, and for replacing all connections.
    """

    def test_smaller(self) -> None:
        """
        Connections above a smaller maximum are closed: idle ones at once, busy ones when they carry nothing.
        """
        world = World(maximum=4)
        records = world.established(4)
        waiters = [world.ask() for _ in range(3)]
        world.do(world.admin.setLimits(Limits(maximum=2, idleTimeout=0, maxLifetime=0), world.now))
        self.assertEqual([record.load for record in world.closes], [0])
        self.assertEqual(sorted(world.phases), [OPEN, OPEN, RETIRING, RETIRING])
        for waiter in waiters:
            world.end(waiter)
        self.assertEqual(len(world.closes), 2)
        for record in list(world.closes):
            self.assertIn(record, records)
            world.lose(record)
        self.assertEqual((world.phases, world.dials), ([OPEN, OPEN], []))

    def test_smallerThanDialed(self) -> None:
        """
        When dials in progress above a smaller maximum succeed, their connections are closed.
        """
        world = World(3, maximum=6)
        world.established(3)
        for _ in range(6):
            world.ask()
        self.assertEqual(len(world.dials), 3)
        world.do(world.admin.setLimits(Limits(maximum=3, idleTimeout=0, maxLifetime=0), world.now))
        while world.dials:
            world.accept()
        for record in list(world.closes):
            world.lose(record)
        self.assertEqual((world.phases, world.dials), ([OPEN] * 3, []))

    def test_larger(self) -> None:
        """
        With a larger maximum, connections are dialed for waiters.
        """
        world = World(maximum=1)
        world.established()
        world.ask()
        waiter = world.ask()
        self.assertEqual(world.dials, [])
        world.do(world.admin.setLimits(Limits(maximum=2), world.now))
        world.accept()
        self.assertIsNotNone(waiter.record)

    def test_depth(self) -> None:
        """
        Another depth applies to existing connections, and to held ones when they are opened again.
        """
        world = World(maximum=2)
        first, second = world.established(2)
        world.state.connections.hold(second)
        world.do(world.admin.setLimits(Limits(maximum=2, depth=5), world.now))
        world.state.connections.unhold(second, world.now)
        self.assertEqual([first.depth, second.depth], [5, 5])

    def test_removedWhileDialed(self) -> None:
        """
        A dial to a server that was removed does not count as one that will serve a waiter, or as one of the minimum.
        """
        for minimum in (0, 1):
            world = World(minimum=minimum, maximum=2).start()
            waiter = None if minimum else world.ask()
            (old,) = world.dials
            world.do(world.admin.addServer(Server("other", None), world.now))
            world.do(world.admin.removeServer(old.server, world.now))
            self.assertEqual([dial.server.name for dial in world.dials], ["server0", "other"])
            world.accept(world.dials[1])
            world.refuse(old)
            self.assertEqual(world.phases, [OPEN])
            self.assertTrue(waiter is None or waiter.record)

    def test_expire(self) -> None:
        """
        All connections are replaced one after another, including those whose dials are in progress.
        """
        world = World(minimum=2, maximum=2).start()
        first = world.accept()
        (dial,) = world.dials
        world.do(world.admin.expire(world.now))
        self.assertEqual(world.closes, [])
        world.accept(dial)
        self.assertEqual(world.closes, [dial])
        world.lose(dial)
        while not world.closes:
            world.accept()
        self.assertEqual(world.closes, [first])
        world.lose(first)
        while world.dials:
            world.accept()
        self.assertEqual((world.phases, world.state.counters.closed), ([OPEN, OPEN], 2))
        self.assertEqual((dial.reason, first.reason), (EXPIRED, EXPIRED))

    def test_expireUnreachable(self) -> None:
        """
        A server that accepts no new connections is used through those that it has.
        """
        world = World(maximum=1)
        (record,) = world.established()
        world.do(world.admin.expire(world.now))
        world.refuse()
        asked = world.ask()
        self.assertIs(asked.record, record)
        self.assertEqual(world.closes, [])
