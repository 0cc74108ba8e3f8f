# -*- test-case-name: tests.proxy.test_passing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.passing}: users and passwords of clients of Redis that the servers check.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.pipes import Pipe
from tests.redisstage import ShardedRedisStage, SingleRedisStage, requests
from tests.stage import assertTidy
from txconnpool.proxy.admission import TRIES, WAITING
from txconnpool.proxy.logins import DELAY_MAX, FREE
from txconnpool.proxy.passing import CONCURRENT, REMEMBERED, TRUST
from txconnpool.routing.uses import FLAVOURS_MAX, IDLE

WRONG = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
ANN, BEN = b"$3\r\nann\r\n", b"$3\r\nben\r\n"
DEFAULT = b"$7\r\ndefault\r\n"
NOAUTH = b"-NOAUTH Authentication required.\r\n"
CLOSING = b"-ERR Protocol error: unauthenticated bulk length\r\n"
DESCRIPTION = b"*1\r\n*6\r\n$5\r\nx.get\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n"


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
        self.assertNotIn(b"7", passing._accepted)
        self.stage.clock.advance(TRUST)
        self.assertFalse(passing._isTrusted(b"%d" % REMEMBERED))
        self.assertEqual(passing._accepted, {})

    def test_refused(self) -> None:
        """
        The client gets the server's error, and stays what it was. It is closed after some failures. Logins are counted,
        and those of its address wait then.
        """
        client = self.client("ann", "x")
        for _ in range(TRIES - 1):
            self.assertEqual(self.ask(client, "AUTH ann no", "GET user"), WRONG + ANN)
        self.assertEqual(self.ask(client, "AUTH ann no", "GET user"), WRONG)
        self.assertFalse(client.connected)
        gate = self.stage.sessions.gate
        self.assertEqual((gate.attempts, gate.failures), (4, 3))
        self.asked()
        client = self.stage.client()
        self.assertEqual(self.ask(client, "AUTH ben y", "GET user"), b"")
        self.assertEqual(self.asked(), [])
        self.stage.clock.advance(0.1)
        self.stage.serve()
        self.assertEqual(client.take(), b"+OK\r\n" + BEN)

    def test_delays(self) -> None:
        """
        No delay is left when its client is gone, or when the pool is closed. A client that has left is not asked for.
        """
        client = self.stage.client()
        for _ in range(TRIES):
            self.ask(client, "AUTH ann no")
        self.asked()
        calls = set(self.stage.clock.getDelayedCalls())
        client = self.stage.client()
        client.send(requests("AUTH ben y"))
        self.assertEqual(len(set(self.stage.clock.getDelayedCalls()) - calls), 1)
        client.lose()
        self.assertEqual(set(self.stage.clock.getDelayedCalls()) - calls, set())
        client = self.stage.client()
        client.send(requests("AUTH ben y"))
        self.stage.sessions.passing.close()
        self.assertEqual(set(self.stage.clock.getDelayedCalls()) - calls, set())
        self.assertEqual((client.take()[:5], self.asked()), (b"-ERR ", []))
        passing = self.stage.sessions.passing
        self.assertEqual((passing._undecided, passing._waiting, sum(passing._failures.values())), ({}, {}, 0))

    def test_guessing(self) -> None:
        """
        Of many clients that guess at the same time, only some get an answer at once. Others wait, and of these too many
        are closed.
        """
        clients = [self.stage.client() for _ in range(100)]
        for number, client in enumerate(clients):
            client.send(requests(f"AUTH ann {number}"))
        self.stage.serve()
        tried = len(self.asked())
        self.assertEqual(tried, CONCURRENT + FREE)
        later = [self.stage.client() for _ in range(50)]
        for number, client in enumerate(later):
            client.send(requests(f"AUTH ann a{number}"))
        self.stage.serve()
        self.assertEqual(sum(client.connected for client in later), WAITING)
        self.assertEqual(self.asked(), [])
        self.stage.clock.advance(DELAY_MAX)
        self.stage.serve()
        self.assertEqual(len(self.asked()), 100 - tried + WAITING)

    def test_changed(self) -> None:
        """
        A password that the server accepts no longer is rejected, though connections that have logged in with it exist.
        """
        self.client("ann", "x")
        self.change({(b"ann", b"z")})
        self.stage.clock.advance(TRUST)
        self.assertEqual(self.ask(self.stage.client(), "AUTH ann x"), WRONG)
        self.assertEqual(self.ask(self.client("ann", "z"), "GET user"), ANN)

    def change(self, logins: set[tuple[bytes, ...]]) -> None:
        """
        Let the servers have other users and passwords.
        """
        for server in self.stage.servers:
            server.logins = logins

    def executed(self) -> list[bytes]:
        """
        @return: what the servers got since the last call, without logins and the like.
        """
        found = [each for server in self.stage.servers for each in self.stage.asked(server)]
        return [each for each in found if each.split()[0] not in (b"AUTH", b"HELLO", b"SELECT")]

    def test_outdated(self) -> None:
        """
        If the server refuses a new connection of a user, its clients get what the server says, and none of their
        requests is executed. The server is not called down. When it accepts the login again, they are served.
        """
        ann = self.client("ann", "x")
        self.change({(b"ben", b"y")})
        self.executed()
        with capturedLogs() as events:
            for _ in range(3):
                self.assertEqual(self.ask(ann, "GET user", "SET k v"), WRONG * 2)
        self.assertEqual([each for each in events if each["log_level"] >= LogLevel.info], [])
        self.assertEqual(self.executed(), [])
        self.assertEqual(self.ask(self.client("ben", "y"), "GET user"), BEN)
        self.assertEqual({server.state for server in self.stage.pool.servers}, {"up"})
        self.assertEqual([server.traffic.outages for server in self.stage.pool.servers], [0] * len(self.stage.servers))
        self.assertEqual(sum(sum(each.traffic.dialFailures.values()) for each in self.stage.pool.servers), 0)
        self.assertEqual(set(self.stage.sessions.counters.errors), {"login_refused"})
        self.stage.clock.advance(60)
        self.asked()
        self.stage.clock.advance(60)
        self.stage.serve()
        self.assertEqual(self.asked(), [])  # no client needs it
        self.assertEqual(self.ask(ann, "GET user"), WRONG)
        self.assertEqual(self.asked(), [b"AUTH ann x"])
        self.change({(b"ann", b"x")})
        self.stage.clock.advance(60)
        self.stage.serve()
        self.assertEqual(self.ask(ann, "GET user"), ANN)

    def test_replaced(self) -> None:
        """
        Connections that are too old are closed if the server refuses the login of new ones. It is not asked again
        before a client needs one.
        """
        ann, ben = self.client("ann", "x"), self.client("ben", "y")
        for client, expected in ((ann, ANN), (ben, BEN)):
            self.assertEqual(self.ask(client, "GET user"), expected)
        self.change({(b"ben", b"y")})
        self.stage.pool.expire()
        self.stage.serve()
        for _ in range(10):
            self.stage.clock.advance(1)
            self.stage.serve()
        self.asked()
        self.stage.clock.advance(60)
        self.stage.serve()
        self.assertEqual(self.asked(), [])
        self.assertFalse(any(line.connected for line in self.stage.lines if line._user == b"ann"))
        self.assertEqual(self.ask(ann, "GET user"), WRONG)
        self.assertEqual(self.ask(ben, "GET user"), BEN)

    def test_outdatedAlone(self) -> None:
        """
        The same for a connection of a client's own: the client gets what the server says, and is closed.
        """
        for sent in (("MULTI", "SET k v", "EXEC"), ("BLPOP k 0",), ("WATCH k", "SET k v"), ("SUBSCRIBE news",)):
            self.change({(b"ann", b"x")})
            self.stage.clock.advance(60)
            ann = self.client("ann", "x")
            self.change(set())
            self.executed()
            self.assertEqual(self.ask(ann, *sent).removeprefix(b"+OK\r\n"), WRONG)
            self.assertEqual(ann.connected, sent == ("SUBSCRIBE news",))
            self.assertIn(self.executed(), ([], [b"MULTI"]))
        self.assertEqual(self.ask(ann, "GET user"), WRONG)

    def guard(self) -> None:
        """
        Let the servers do nothing for clients that have not logged in.
        """
        for server in self.stage.servers:
            server.guarded = True
            for line in list(server.open):
                line.lose()
        self.stage.clock.advance(60)
        self.stage.serve()

    def test_guarded(self) -> None:
        """
        A client that has not logged in gets what the server says, whatever its database and version.
        """
        self.guard()
        client = self.stage.client()
        for sent in ("GET k", "SELECT 3", "GET k", "HELLO 3", "GET k"):
            reply = self.ask(client, sent)
            if sent == "GET k":
                self.assertEqual(reply, NOAUTH)
        client = self.stage.client()
        self.executed()
        self.assertEqual(self.ask(client, "BLPOP k 0", "WATCH k", "MULTI", "SUBSCRIBE k"), NOAUTH * 4)
        self.assertEqual(self.executed(), [])
        self.assertEqual(self.ask(client, "AUTH ann x", "GET user"), b"+OK\r\n" + ANN)
        self.assertEqual({server.state for server in self.stage.pool.servers}, {"up"})

    def test_guardedLarge(self) -> None:
        """
        A client that has not logged in cannot make the server close connections with large requests.
        """
        self.guard()
        large = "x" * 20000
        self.assertEqual(self.ask(self.stage.client(), f"AUTH ann {large}"), CLOSING)
        self.executed()
        client = self.stage.client()
        self.assertEqual(self.ask(client, f"SET k {large}"), CLOSING)
        self.assertEqual(self.executed(), [])
        self.assertFalse(client.connected)
        ann = self.client("ann", "x")
        self.assertEqual(self.ask(ann, f"SET k {large}", f"AUTH ben {large}", "GET user"), b"+OK\r\n" + WRONG + ANN)

    def test_learned(self) -> None:
        """
        Servers are asked about commands as the user of the client. That one user may not ask does not matter for
        others.
        """
        for server in self.stage.servers:
            server.descriptions[b"x.get"] = DESCRIPTION
            server.data[b"0"] = {b"k1": b"v"}
        self.guard()
        self.assertEqual(self.ask(self.stage.client(), "X.GET k1", "X.GET k1"), NOAUTH * 2)
        self.assertEqual(self.ask(self.client("ann", "x"), "X.GET k1"), b"$1\r\nv\r\n")

    def test_info(self) -> None:
        """
        C{INFO} is that of the user of the client.
        """
        self.guard()
        self.assertEqual(self.ask(self.stage.client(), "INFO", "INFO proxy"), NOAUTH * 2)
        for version in (2, 3):
            ann = self.client("ann", "x")
            self.ask(ann, f"HELLO {version}")
            reply = self.ask(ann, "INFO")
            self.assertEqual((b"redis_version" in reply, b"# Proxy" in reply), (True, True))

    def test_clients(self) -> None:
        """
        Clients see, and may close, those with the same login only.
        """
        ann, also, ben, other = self.client("ann", "x"), self.client("ann", "x"), self.client("ben", "y"), None
        other = self.stage.client()
        self.stage.client()
        for client, seen in ((ann, [b"ann"] * 2), (ben, [b"ben"]), (other, [b"default"])):
            listed = self.ask(client, "CLIENT LIST")
            self.assertEqual(
                [line.partition(b" user=")[2].split()[0] for line in listed.split(b"\n")[1:-1] if line.strip()], seen
            )
        self.assertEqual(self.ask(other, "CLIENT KILL TYPE normal"), b":0\r\n")
        self.assertEqual(self.ask(ben, "CLIENT KILL USER ann"), b":0\r\n")
        self.assertEqual(self.ask(ann, "CLIENT KILL USER ann"), b":1\r\n")
        self.assertEqual([client.connected for client in (ann, also, ben, other)], [True, False, True, True])

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
        A user has only so many flavours. The error says so. Others are not concerned.
        """
        for server in self.stage.servers:
            server.logins = {(b"ann", b"x"), (b"ann", b"z"), (b"ben", b"y")}
        clients = []
        for database in range(16):
            for version in (2, 3):
                clients.append(self.client("ann", "x"))
                self.ask(clients[-1], f"HELLO {version}", f"SELECT {database}")
        self.assertEqual(len(clients), FLAVOURS_MAX)
        client = self.stage.client()
        self.assertIn(b"-ERR clients use 32 databases", self.ask(client, "AUTH ann z"))
        self.assertIn(b"user=default", self.ask(client, "CLIENT INFO"))
        self.assertEqual(self.ask(self.client("ben", "y"), "SELECT 3", "GET user"), b"+OK\r\n" + BEN)
        self.assertEqual(self.ask(client, "SELECT 3", "GET user"), b"+OK\r\n" + DEFAULT)
        clients[7].lose()
        self.assertEqual(self.ask(client, "AUTH ann z", "GET user"), b"+OK\r\n" + ANN)

    def test_end(self) -> None:
        """
        The connections of a user end some time after its last client.
        """
        open_ = sum(line.connected for line in self.stage.lines)
        client = self.client("ann", "x")
        self.ask(client, "GET user")
        client.lose()
        for _ in range(2):
            self.assertTrue(any(line._user == b"ann" for line in self.stage.lines if line.connected))
            self.stage.clock.advance(IDLE / 2)
            self.stage.serve()
        self.assertFalse(any(line._user == b"ann" for line in self.stage.lines if line.connected))
        self.assertLessEqual(sum(line.connected for line in self.stage.lines), open_ + 1)
        self.assertEqual(self.ask(self.client("ann", "x"), "GET user"), ANN)

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

    def test_pending(self) -> None:
        """
        Clients that have to log in to the proxy are closed when the servers check logins from then on.
        """
        sessions = self.stage.sessions
        sessions.gate.accepted = ((b"joe", b"x"),)
        client = self.stage.client()
        self.assertEqual(self.ask(client, "GET user"), NOAUTH)
        sessions.gate.accepted = None
        sessions.reroute(sessions.router, sessions.flavours)
        self.stage.turns()
        self.assertFalse(client.connected)
        self.assertEqual(self.ask(self.client("ann", "x"), "GET user"), ANN)

    def test_halfClosed(self) -> None:
        """
        A client that has to log in, and closes its side before, is closed.
        """
        self.stage.sessions.gate.accepted = ((b"joe", b"x"),)
        for sent in (b"", requests("GET user")):
            client = self.stage.client()
            client.send(sent)
            client.protocol.readConnectionLost()
            self.stage.turns()
            self.assertEqual((client.take(), client.connected), (NOAUTH if sent else b"", False))
        self.stage.sessions.gate.accepted = None
        client = self.stage.client()
        client.send(requests("AUTH ann x", "GET user"))
        client.protocol.readConnectionLost()
        self.stage.serve()
        self.assertEqual((client.take(), client.connected), (b"+OK\r\n" + ANN, False))

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
        return ShardedRedisStage(maxPinned=2)
