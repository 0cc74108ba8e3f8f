# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.decisions.balance}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.pool.world import REFUSED, World
from txconnpool.errors import ServerUnavailable
from txconnpool.pool.decisions.records import OPEN, RETIRING
from txconnpool.pool.decisions.servers import Server


class ServersTests(SynchronousTestCase):
    """
    Tests for the distribution of connections among several servers.
    """

    def test_turns(self) -> None:
        """
        The server with the fewest connections is dialed next, in turn among equals. Different servers are dialed at the
        same time.
        """
        world = World(3, maximum=6, minimum=6).start()
        self.assertEqual([record.server.name for record in world.dials], ["server0", "server1", "server2"])
        world.accept(world.dials[1])
        self.assertEqual([record.server.name for record in world.dials], ["server0", "server2", "server1"])

    def test_severalDials(self) -> None:
        """
        With C{dials}, a server is dialed for several waiters at a time. After a failed dial, one at a time, until one
        succeeds.
        """
        world = World(1, maximum=9, dials=3).start()
        waiters = [world.ask() for _ in range(5)]
        self.assertEqual(len(world.dials), 3)
        world.accept()
        self.assertEqual((len(world.dials), len([each for each in waiters if each.record])), (3, 1))
        for _ in range(3):
            world.refuse()
        world.advance(2)
        self.assertEqual(len(world.dials), 1)
        world.accept()
        self.assertEqual(len(world.dials), 3)

    def test_failedThenAnother(self) -> None:
        """
        The dial that follows a failed one is to another server.
        """
        world = World(2, maximum=2).start()
        waiter = world.ask()
        self.assertEqual(world.dials[0].server.name, "server0")
        world.refuse()
        self.assertEqual([record.server.name for record in world.dials], ["server1"])
        world.accept()
        assert waiter.record is not None
        self.assertEqual(waiter.record.server.name, "server1")

    def test_share(self) -> None:
        """
        Other servers do not use the share of a server that is down, so that it is found when it is up again.
        """
        world = World(2, maximum=4, minimum=4).start()
        down = world.dials[0]
        world.refuse(down)
        for _ in range(2):
            world.accept()
        self.assertEqual((world.dials, world.state.connections.connected), ([], 2))
        world.advance(1)
        self.assertEqual([record.server for record in world.dials], [down.server])

    @covers("20")
    def test_probe(self) -> None:
        """
        A server that is down and has no connection is dialed periodically without any request, until a dial succeeds.
        """
        world = World(2).start()
        world.ask()
        world.refuse()
        world.accept()
        for _ in range(5):
            world.advance(1.5)
            self.assertEqual([record.server.name for record in world.dials], ["server0"])
            world.refuse()
        world.advance(1.5)
        record = world.accept()
        world.advance(5)
        world.lose(record)
        world.advance(60)
        self.assertEqual(world.dials, [])

    def test_add(self) -> None:
        """
        A server that is added is dialed for waiters.
        """
        world = World(1, maximum=2).start()
        world.ask()
        world.do(world.admin.addServer(Server("new", None), world.now))
        world.refuse()
        self.assertEqual([record.server.name for record in world.dials], ["new"])

    def test_remove(self) -> None:
        """
        When a server is removed, its connections are closed as soon as they carry nothing. Those of other servers stay.
        """
        world = World(2, maximum=4)
        records = world.established(4)
        gone = world.state.servers[0]
        waiters = [world.ask() for _ in range(4)]
        world.do(world.admin.removeServer(gone, world.now))
        self.assertEqual(
            [record.phase for record in records], [RETIRING if record.server is gone else OPEN for record in records]
        )
        self.assertEqual(world.closes, [])
        for waiter in waiters:
            world.end(waiter)
        self.assertEqual([record.server for record in world.closes], [gone, gone])

    def test_removeWhileDialing(self) -> None:
        """
        When a dial to a server that was removed meanwhile succeeds, the connection is closed. Those of other servers
        stay.
        """
        world = World(2, maximum=4)
        world.established(2)
        gone, stays = world.state.servers
        world.state.wanted = 4
        world.do(world.state.grow(world.now))
        (dial,) = (record for record in world.dials if record.server is gone)
        world.do(world.admin.removeServer(gone, world.now))
        world.accept(dial)
        self.assertEqual(dial.phase, RETIRING)
        self.assertIn(OPEN, [record.phase for record in world.state.records if record.server is stays])

    def test_removeLast(self) -> None:
        """
        A pool without servers refuses waiters and later callers at once.
        """
        world = World(whenDown=1).start()
        early = world.ask()
        world.do(world.admin.removeServer(world.state.servers[0], world.now))
        late = world.ask()
        for waiter in (early, late):
            self.assertIsInstance(waiter.error, ServerUnavailable)
            self.assertEqual(str(waiter.error), "the pool has no servers")

    def test_markDown(self) -> None:
        """
        A server that was marked down is not dialed for a while.
        """
        world = World(2).start()
        world.do(world.admin.markDown(world.state.servers[0], REFUSED, "known", world.now))
        world.ask()
        self.assertEqual([record.server.name for record in world.dials], ["server1"])

    def test_each(self) -> None:
        """
        C{each} returns the least loaded connection of every server, or raises an error if a server has none.
        """
        world = World(2, maximum=4, depth=4)
        records = world.established(4)
        busy = world.ask().record
        chosen = world.state.each()
        self.assertEqual({record.server for record in chosen}, set(world.state.servers))
        self.assertNotIn(busy, chosen)
        self.assertNotIn(world.ask(True).record, [*chosen, busy])  # they are not idle any more
        for record in records:
            if record.server is world.state.servers[0]:
                world.lose(record)
        self.assertRaises(ServerUnavailable, world.state.each)
