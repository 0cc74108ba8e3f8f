# -*- test-case-name: tests.proxy.test_passing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.passing}: users and passwords of clients of Redis that the servers check.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.pipes import Pipe
from tests.proxy.test_placing import RedisStage
from tests.redisstage import SingleRedisStage, requests
from tests.stage import assertTidy
from txconnpool.proxy.passing import REMEMBERED, TRUST
from txconnpool.routing.flavours import FLAVOURS_MAX

WRONG = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
ANN, BEN = b"$3\r\nann\r\n", b"$3\r\nben\r\n"
DEFAULT = b"$7\r\ndefault\r\n"


class PassingTests(SynchronousTestCase):
    """
    Tests with one server.
    """

    def setUp(self) -> None:
        """
        Make a stage whose servers know two users.
        """
        self.stage = stage = self.makeStage()
        stage.dialect.passLogins(True)
        for server in stage.servers:
            server.logins = {(b"ann", b"x"), (b"ben", b"y")}
        self.asked()
        self.addCleanup(self.assertTidy)

    def makeStage(self) -> Any:
        """
        @return: the stage.
        """
        stage = SingleRedisStage()
        stage.pool.setLimits(stage.pool.limits, 3)
        return stage

    def assertTidy(self) -> None:
        """
        Assert that nothing is left in flight.
        """
        for client in self.stage.clients:
            client.lose()
        self.stage.serve()
        for pool in self.pools:
            assertTidy(self, pool)

    @property
    def pools(self) -> list[Any]:
        """
        The pools of all connections.
        """
        return [each for pool in self.stage.pool.pools for each in getattr(pool, "pools", (pool,))]

    def asked(self) -> list[bytes]:
        """
        @return: the logins that the servers got since the last call.
        """
        found = [each for server in self.stage.servers for each in self.stage.asked(server)]
        return [each for each in found if each.startswith(b"AUTH")]

    def ask(self, client: Pipe, *texts: str) -> bytes:
        """
        @return: the replies to requests.
        """
        reply: bytes = self.stage.ask(client, requests(*texts))
        return reply

    def client(self, user: str, password: str) -> Pipe:
        """
        @return: a client that has logged in.
        """
        client: Pipe = self.stage.client()
        self.assertEqual(self.ask(client, f"AUTH {user} {password}"), b"+OK\r\n")
        return client

    def test_users(self) -> None:
        """
        Each client uses connections of its user. One that has not logged in is that of the server's default user.
        """
        ann, ben, other = self.client("ann", "x"), self.client("ben", "y"), self.stage.client()
        for client, expected in ((ann, ANN), (ben, BEN), (other, DEFAULT), (ann, ANN)):
            self.assertEqual(self.ask(client, "GET user"), expected)
        self.assertIn(b"user=ann", self.ask(ann, "CLIENT INFO"))
        self.assertEqual(self.ask(ann, "RESET", "GET user"), b"+RESET\r\n" + DEFAULT)

    def test_shared(self) -> None:
        """
        Clients of one user share connections. The server is not asked again for some seconds.
        """
        clients = [self.client("ann", "x") for _ in range(5)]
        self.assertEqual([self.ask(each, "GET user") for each in clients], [ANN] * 5)
        self.assertEqual(len(self.asked()), 2)  # one question, and one connection
        self.stage.clock.advance(TRUST)
        self.client("ann", "x")
        self.assertEqual(self.asked(), [b"AUTH ann x"])

    def test_together(self) -> None:
        """
        Clients that log in at the same time lead to one question.
        """
        clients = [self.stage.client() for _ in range(5)]
        for client in clients:
            client.send(requests("AUTH ann x"))
        self.stage.serve()
        self.assertEqual([client.take() for client in clients], [b"+OK\r\n"] * 5)
        self.assertEqual(self.asked(), [b"AUTH ann x"])

    def test_remembered(self) -> None:
        """
        The logins that are remembered are bounded.
        """
        passing = self.stage.sessions.passing
        for number in range(REMEMBERED + 5):
            passing._trust(b"%d" % number)
        self.assertEqual(len(passing._accepted), REMEMBERED)

    def test_refused(self) -> None:
        """
        The client gets the server's error, and stays what it was. The login is counted, and later ones wait.
        """
        client = self.client("ann", "x")
        for _ in range(3):
            self.assertEqual(self.ask(client, "AUTH ann no"), WRONG)
        self.assertEqual(self.ask(client, "GET user"), ANN)
        gate = self.stage.sessions.gate
        self.assertEqual((gate.attempts, gate.failures), (4, 3))
        self.asked()
        self.assertEqual(self.ask(client, "AUTH ben y", "GET user"), b"")
        self.stage.clock.advance(0.1)
        self.stage.serve()
        self.assertEqual(client.take(), b"+OK\r\n" + BEN)

    def test_closed(self) -> None:
        """
        No delay is left when the pool is closed. A client that has left meanwhile is not asked for.
        """
        client = self.stage.client()
        for _ in range(3):
            self.ask(client, "AUTH ann no")
        self.asked()
        for _ in range(2):
            client = self.stage.client()
            client.send(requests("AUTH ben y"))
            client.lose()
        self.stage.clock.advance(0.1)
        self.stage.serve()
        self.assertEqual(self.asked(), [])
        calls = set(self.stage.clock.getDelayedCalls())
        client = self.stage.client()
        client.send(requests("AUTH ben y"))
        client.lose()
        self.assertEqual(len(set(self.stage.clock.getDelayedCalls()) - calls), 1)
        self.stage.sessions.passing.close()
        self.assertEqual(set(self.stage.clock.getDelayedCalls()) - calls, set())

    def test_changed(self) -> None:
        """
        A password that the server accepts no longer is rejected, though connections that have logged in with it exist.
        """
        self.client("ann", "x")
        for server in self.stage.servers:
            server.logins = {(b"ann", b"z")}
        self.stage.clock.advance(TRUST)
        self.assertEqual(self.ask(self.stage.client(), "AUTH ann x"), WRONG)
        self.assertEqual(self.ask(self.client("ann", "z"), "GET user"), ANN)

    def test_order(self) -> None:
        """
        Requests before a login are executed before it, and those after it as the new user.
        """
        client = self.stage.client()
        sent = ("GET user", "AUTH ann x", "GET user", "SELECT 1", "AUTH ben no", "GET user", "AUTH ben y", "GET user")
        expected = DEFAULT + b"+OK\r\n" + ANN + b"+OK\r\n" + WRONG + ANN + b"+OK\r\n" + BEN
        self.assertEqual(self.ask(client, *sent), expected)
        self.assertIn(b"db=1", self.ask(client, "CLIENT INFO"))

    def test_hello(self) -> None:
        """
        C{HELLO} logs in and changes the version of the protocol. If the login fails it changes nothing.
        """
        client = self.stage.client()
        self.assertEqual(self.ask(client, "HELLO 3 AUTH ann no SETNAME bob", "CLIENT GETNAME"), WRONG + b"$-1\r\n")
        self.assertEqual(self.ask(client, "HELLO 3 AUTH ann x SETNAME bob")[:4], b"%7\r\n")
        self.assertEqual(self.ask(client, "CLIENT GETNAME", "GET user"), b"$3\r\nbob\r\n" + ANN)
        self.assertEqual(self.ask(client, "HELLO 2")[:5], b"*14\r\n")
        self.assertEqual(self.ask(client, "GET user"), ANN)

    def test_silent(self) -> None:
        """
        A client that wants no reply gets none.
        """
        client = self.stage.client()
        self.assertEqual(self.ask(client, "CLIENT REPLY SKIP", "AUTH ann x", "GET user"), ANN)

    def test_pinned(self) -> None:
        """
        A connection that a client has for itself is that of its user, and is not afterwards. The user cannot change
        meanwhile.
        """
        ann = self.client("ann", "x")
        self.assertIn(ANN, self.ask(ann, "MULTI", "GET user", "EXEC"))
        self.assertEqual(self.ask(ann, "WATCH k"), b"+OK\r\n")
        self.assertIn(b"watched keys", self.ask(ann, "AUTH ben y"))
        self.assertIn(b"watched keys", self.ask(ann, "HELLO 3 AUTH ben y"))
        self.assertEqual(self.ask(ann, "UNWATCH", "GET user"), b"+OK\r\n" + ANN)
        other = self.stage.client()
        self.assertIn(DEFAULT, self.ask(other, "MULTI", "GET user", "EXEC"))

    def test_subscribed(self) -> None:
        """
        A subscriber listens as its user, on a connection apart from those of others.
        """
        ann, ben = self.client("ann", "x"), self.client("ben", "y")
        for client in (ann, ben, ann):
            self.assertIn(b"subscribe", self.ask(client, "SUBSCRIBE news"))
        self.assertIn(b"can't execute 'auth'", self.ask(ann, "AUTH ben y").lower())
        subscribing = [line for line in self.stage.lines if line._channels]
        self.assertEqual(sorted(line._user for line in subscribing), [b"ann", b"ben"])

    def test_many(self) -> None:
        """
        There are only so many flavours. The error says so.
        """
        logins = [(f"user{number}", "x") for number in range(FLAVOURS_MAX)]
        for server in self.stage.servers:
            server.logins = {(user.encode(), b"x") for user, _ in logins}
        clients = [self.client(*login) for login in logins[1:]]
        self.assertEqual(len(clients), FLAVOURS_MAX - 1)
        client = self.stage.client()
        self.assertIn(b"-ERR clients use 32 users", self.ask(client, "AUTH user0 x"))
        self.assertIn(b"user=default", self.ask(client, "CLIENT INFO"))

    def test_gone(self) -> None:
        """
        A client may leave before the server replies.
        """
        client = self.stage.client()
        client.send(requests("AUTH ann x"))
        self.stage.turns()
        client.lose()
        self.stage.serve()
        self.client("ann", "x")

    def test_lost(self) -> None:
        """
        If the connection is lost, the client gets an error. It may log in again.
        """
        self.client("ben", "y")  # so that there is a connection to ask on
        client = self.stage.client()
        client.send(requests("AUTH ann x"))
        self.stage.turns()
        lines = [line for line in self.stage.lines if line.connected]
        for line in lines:
            line.look()
        (asked,) = (line for line in lines if b"AUTH ann x" in line.asked)
        asked.owed = b""
        asked.lose()
        self.stage.serve()
        self.assertEqual(client.take()[:5], b"-ERR ")
        self.assertEqual(self.ask(client, "AUTH ann x", "GET user"), b"+OK\r\n" + ANN)

    def test_unavailable(self) -> None:
        """
        If there is no connection, the client gets an error.
        """
        client = self.stage.client()
        for server in self.stage.servers:
            server.mode = "refuse"
            for line in server.lines:
                line.lose()
        self.stage.serve()
        client.send(requests("AUTH ann x"))
        for _ in range(4):
            self.stage.clock.advance(1)
            self.stage.serve()
        self.assertEqual(client.take()[:5], b"-ERR ")


class SeveralServersTests(PassingTests):
    """
    The same with several servers by key.
    """

    def makeStage(self) -> Any:
        """
        @return: the stage.
        """
        return RedisStage(maxPinned=2)
