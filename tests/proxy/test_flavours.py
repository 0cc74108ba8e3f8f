# -*- test-case-name: tests.proxy.test_flavours -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the use of L{txconnpool.routing.uses} by sessions: connections in the state of their clients end with these.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.pipes import Pipe
from tests.proxy.test_clustering import ClusterStage
from tests.redisstage import ShardedRedisStage, SingleRedisStage, requests
from tests.stage import assertClosed
from txconnpool.routing.uses import FLAVOURS_MAX, IDLE

FULL = b"-ERR clients use 32 databases and versions of the protocol already\r\n"


class UsesCase(SynchronousTestCase):
    """
    Base class of tests with one server, or with those of another stage.
    """

    def setUp(self) -> None:
        """
        Make a stage.
        """
        self.stage = self.makeStage()
        self.addCleanup(self.assertClosed)

    def makeStage(self) -> Any:
        """
        @return: the stage.
        """
        return SingleRedisStage()

    def assertClosed(self) -> None:
        """
        Assert that nothing is left after the end.
        """
        for client in self.stage.clients:
            client.lose()
        assertClosed(self, self.stage)

    def client(self, *texts: str) -> Pipe:
        """
        @return: a client whose requests are answered.
        """
        client: Pipe = self.stage.client()
        self.ask(client, *texts)
        return client

    def ask(self, client: Pipe, *texts: str) -> bytes:
        """
        @return: the replies to requests.
        """
        reply: bytes = self.stage.ask(client, requests(*texts))
        return reply

    def wait(self, seconds: float) -> None:
        """
        Let time pass.
        """
        self.stage.clock.advance(seconds)
        self.stage.serve()

    @property
    def open(self) -> int:
        """
        The number of connections to the servers.
        """
        return sum(line.connected for line in self.stage.lines)

    def fill(self) -> None:
        """
        Let other clients use so many states that there is room for one more.
        """
        for number in range(FLAVOURS_MAX - 2):
            self.stage.flavours.use(number, ("other", number))


class EndTests(UsesCase):
    """
    Tests with one server.
    """

    def test_end(self) -> None:
        """
        The connections of a state stay for a time after its last client, for clients that come again.
        """
        before = self.open
        clients = [self.client("HELLO 3", "SET k1 a", "GET k1") for _ in range(2)]
        used = self.open
        self.assertGreater(used, before)
        clients[0].lose()
        self.wait(2 * IDLE)
        clients[1].lose()
        self.wait(IDLE - 1.0)
        self.client("HELLO 3", "GET k1").lose()
        self.assertEqual(self.open, used)
        self.wait(IDLE)
        self.assertEqual((self.open, self.stage.pool.stats.connections), (before, before))
        self.assertIn(b"$1\r\na\r\n", self.ask(self.client(), "HELLO 3", "GET k1", "SET k1 b"))
        self.assertEqual(self.open, used)

    def test_changed(self) -> None:
        """
        A client that changes its state uses the connections of the earlier one no more.
        """
        client = self.client("HELLO 3", "SET k1 a")
        used = self.open
        self.ask(client, "HELLO 2")
        self.wait(IDLE)
        self.assertLess(self.open, used)
        self.assertEqual(self.ask(client, "GET k1"), b"$1\r\na\r\n")

    def test_leased(self) -> None:
        """
        A client with a connection of its own uses those of its state all the same.
        """
        client = self.client("HELLO 3", "SET k1 a", "GET k1", "WATCH k1")
        used = self.open
        self.wait(2 * IDLE)
        self.assertEqual(self.ask(client, "MULTI", "GET k1", "EXEC", "GET k1")[-7:], b"$1\r\na\r\n")
        self.assertEqual(self.open, used)

    def test_inFlight(self) -> None:
        """
        A request of a client that is gone is executed to its end, although its state is needed no more.
        """
        client = self.client("HELLO 3", "SET k1 b", "GET k1")
        before = self.open
        client.send(requests("SET k1 a"))
        self.stage.turns()
        client.lose()
        self.fill()
        self.stage.flavours.use("one more", ("other", "one more"))
        self.stage.turns()
        stats = self.stage.pool.stats
        self.assertEqual((stats.inFlight, stats.connections), (1, self.open))
        self.stage.serve()
        self.assertLess(self.open, before)
        self.assertEqual(self.ask(self.client(), "GET k1"), b"$1\r\na\r\n")

    def test_replaced(self) -> None:
        """
        When a reload replaces the pool, its clients end, and nothing is left of their states when it is closed.
        """
        clients = [self.client("HELLO 3", "SET k1 a"), self.client("HELLO 3")]
        clients[1].lose()
        self.stage.sessions.reroute(self.stage.sessions.router, self.stage.flavours)
        self.stage.serve()
        self.assertFalse(clients[0].connected)

    def test_room(self) -> None:
        """
        Clients that are gone take no state from those that come.
        """
        self.fill()
        self.stage.flavours.use("one more", ("other", "one more"))
        client = self.client()
        self.assertEqual(self.ask(client, "HELLO 3"), FULL)
        self.stage.flavours.leave(7)
        self.assertNotIn(FULL, self.ask(client, "HELLO 3"))
        client.lose()
        self.assertNotIn(FULL, self.ask(self.client(), "HELLO 3"))


class DatabaseTests(UsesCase):
    """
    Tests with one server and databases.
    """

    def test_full(self) -> None:
        """
        A client is closed if there are no connections with the state that its own one had. None of its requests is
        executed in another database.
        """
        self.fill()
        self.stage.flavours.use("one more", ("other", "one more"))
        client = self.client("WATCH k", "SELECT 3")
        replies = self.ask(client, "UNWATCH", "SET k lost")
        self.assertEqual((replies, client.connected), (b"+OK\r\n", False))
        self.assertEqual(self.ask(self.client(), "GET k"), b"$-1\r\n")
        self.assertEqual(sum(self.stage.sessions.counters.errors.values()), 1)
        self.flushLoggedErrors()

    def test_databases(self) -> None:
        """
        Each database that clients use has connections.
        """
        one, two = self.client("SELECT 1", "SET k one"), self.client("SELECT 2", "SET k two")
        two.lose()
        self.wait(IDLE)
        self.assertEqual(self.ask(one, "GET k"), b"$3\r\none\r\n")
        self.assertEqual(self.ask(self.client("SELECT 2"), "GET k"), b"$3\r\ntwo\r\n")


class ShardedEndTests(EndTests):
    """
    Tests with servers that share the keys.
    """

    def makeStage(self) -> Any:
        """
        @return: the stage.
        """
        return ShardedRedisStage(3, 3)

    def test_servers(self) -> None:
        """
        A server that comes and one that leaves do not change which states are in use.
        """
        client = self.client("HELLO 3", *(f"SET k{number} a" for number in range(3)))
        self.stage.change([0, 1])
        client.lose()
        self.stage.change([0, 1, 2])
        self.wait(IDLE)
        other = self.client("HELLO 3")
        self.assertEqual(self.ask(other, *(f"GET k{number}" for number in range(3))), b"$1\r\na\r\n" * 3)


class ClusterEndTests(EndTests):
    """
    Tests with a cluster, of which replicas read.
    """

    def makeStage(self) -> Any:
        """
        @return: the stage.
        """
        return ClusterStage(readFrom="prefer-replica")
