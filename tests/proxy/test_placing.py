# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.placing}: clients of Redis whose keys are on several servers.
"""

from __future__ import annotations

import gc
import random

from twisted.trial.unittest import SynchronousTestCase

from tests.pipes import Pipe
from tests.redisstage import ShardedRedisStage, requests
from tests.stage import assertTidy
from txconnpool.errors import PoolFull

CROSS_SLOT = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"


class PlacedCase(SynchronousTestCase):
    """
    Base class of these tests.

    @ivar stage: the stage.
    @ivar client: a client.
    """

    def setUp(self) -> None:
        """
        Make a stage.
        """
        self.stage = ShardedRedisStage(merges=True)
        self.addCleanup(self.assertTidy)
        self.client = self.stage.client()

    def assertTidy(self) -> None:
        """
        Assert that the connections of all kinds carry nothing.
        """
        for pool in self.stage.pool.pools:
            for each in (pool.base, pool.leases, pool.of((2, 2)), pool.of((2, 3))):
                assertTidy(self, each)

    def ask(self, *texts: str, client: Pipe | None = None) -> bytes:
        """
        @return: the replies.
        """
        return self.stage.ask(client or self.client, requests(*texts))


class KeyTests(PlacedCase):
    """
    Tests for requests with keys.
    """

    def test_single(self) -> None:
        """
        Each key is on one server, and a client that waits for each reply needs no queue.
        """
        for number in range(6):
            self.assertEqual(self.ask(f"SET k{number} v{number}"), b"+OK\r\n")
        for number in range(3):
            expected = [b"SET k%d v%d" % (each, each) for each in (number, number + 3)]
            self.assertEqual(self.stage.asked(self.stage.servers[number]), expected)

    def test_divided(self) -> None:
        """
        Requests for keys on several servers are divided, those for one server are not.
        """
        self.assertEqual(self.ask("MSET k0 a k1 b k3 c"), b"+OK\r\n")
        self.assertEqual(self.stage.asked(self.stage.servers[0]), [b"MSET k0 a k3 c"])
        self.assertEqual(self.ask("MGET k1 k0 k2 k3"), b"*4\r\n$1\r\nb\r\n$1\r\na\r\n$-1\r\n$1\r\nc\r\n")
        self.assertEqual(self.ask("DEL k0 k1 k2"), b":2\r\n")
        self.stage.asked(self.stage.servers[0])
        self.assertEqual(self.ask("MGET k3 k0"), b"*2\r\n$1\r\nc\r\n$-1\r\n")
        self.assertEqual(self.stage.asked(self.stage.servers[0]), [b"MGET k3 k0"])

    def test_garbage(self) -> None:
        """
        Divided requests, and those that need not be, leave no reference cycles.
        """
        self.addCleanup(gc.enable)
        for text in ("MGET k0 k3", "MGET k0 k1", "DEL k0 k3"):
            self.ask(text)
            gc.collect()
            gc.disable()
            self.ask(text)
            self.assertEqual(gc.collect(), 0, text)

    def begun(self, *texts: str) -> list[Pipe]:
        """
        Let clients send a request each in one turn of the reactor.
        """
        self.ask("MSET k0 a k1 b k2 c")
        for server in self.stage.servers:
            self.stage.asked(server)
        clients = [self.stage.client() for _ in texts]
        for client, text in zip(clients, texts, strict=True):
            client.send(requests(text))
        return clients

    def test_together(self) -> None:
        """
        Parts of several clients for one server are sent as one request. Each client gets its values.
        """
        clients = self.begun("MGET k1 k4 k0", "mget k2 k1 k3", "MGET k0 k1")
        self.stage.serve()
        expected = [b"*3\r\n$1\r\nb\r\n$-1\r\n$1\r\na\r\n", b"*3\r\n$1\r\nc\r\n$1\r\nb\r\n$-1\r\n",
                    b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"]  # fmt: skip
        self.assertEqual([client.take() for client in clients], expected)
        asked = [self.stage.asked(server) for server in self.stage.servers]
        self.assertEqual(asked, [[b"MGET k0 k3 k0"], [b"MGET k1 k4 k1 k1"], [b"MGET k2"]])
        self.assertEqual([server.traffic.missed for server in self.stage.pool.servers], [1, 1, 0])

    def test_togetherFails(self) -> None:
        """
        After an error they are sent apart, because it may be about one of them. If the server has declined them, and no
        other one can execute them, that is the reply to each.
        """
        clients = self.begun("MGET k1 k0", "MGET k1 k2")
        self.stage.servers[1].failing = {b"MGET"}
        self.stage.serve()
        self.assertEqual(self.stage.asked(self.stage.servers[1]), [b"MGET k1 k1", b"MGET k1", b"MGET k1"])
        self.assertEqual([client.take() for client in clients], [b"-OOM no memory\r\n"] * 2)
        self.stage.servers[1].failing.clear()
        clients = self.begun("MGET k1 k0", "MGET k1 k2")
        self.stage.servers[1].declining = 1
        self.stage.serve()
        self.assertEqual([client.take() for client in clients], [self.stage.servers[1].declination] * 2)

    def test_togetherLost(self) -> None:
        """
        If a connection is lost, the clients go on as if they had sent their requests alone: with the values that are
        there, and with the replies that other servers have still to send.
        """
        for isEarly in (False, True):
            clients = self.begun("MGET k1 k0 k2", "MGET k1 k2")
            self.stage.turns()
            if isEarly:
                self.stage.servers[2].open[0].deliver()
            self.stage.servers[0].open[0].lose()
            self.stage.turns()
            self.stage.serve()
            expected = [b"*3\r\n$1\r\nb\r\n$1\r\na\r\n$1\r\nc\r\n", b"*2\r\n$1\r\nb\r\n$1\r\nc\r\n"]
            self.assertEqual([client.take() for client in clients], expected)
            for server in self.stage.servers:
                self.stage.asked(server)

    def test_togetherFailsBefore(self) -> None:
        """
        Nothing is sent again if the server may have executed a later request of the client: it gets the error.
        """
        server = self.stage.servers[1]
        refused = b"-READONLY You can't write against a read only replica.\r\n"
        for failing, declining, reply in ((b"MGET", 0, b"-OOM no memory\r\n"), (b"", 1, refused)):
            clients = self.begun("GET k0", "GET k0")
            for _ in range(3):
                self.ask("GET k2", client=clients[1])  # until it may have more requests in flight
            self.stage.asked(server)
            clients[0].send(requests("MGET k1 k0"))
            clients[1].send(requests("MGET k1 k2"))
            self.stage.turns()
            clients[1].send(requests("SET k1 x"))
            for client in clients:
                client.take()
            server.failing, server.declining, server.declination = {failing}, declining, refused
            self.stage.servers[0].open[0].lose()  # so the clients go on as if they had sent their requests alone
            clients[1].send(requests("GET k2"))
            self.stage.serve()
            server.failing.clear()
            asked = self.stage.asked(server)
            self.assertEqual(asked, [b"MGET k1 k1", b"SET k1 x", b"MGET k1"])
            self.assertEqual(clients[1].take(), reply + b"+OK\r\n$1\r\nc\r\n")
            clients[0].take()
            self.stage.clock.advance(5)
            self.stage.serve()

    def test_togetherTooFew(self) -> None:
        """
        A reply with another number of values closes its connection, so that nobody gets a value of another client. The
        parts are sent again.
        """
        clients = self.begun("MGET k1 k0", "MGET k4 k2")
        self.stage.turns()
        (line,) = self.stage.servers[1].open
        line.owed = b"*1\r\n$1\r\nb\r\n"
        self.stage.serve()
        expected = [b"*2\r\n$1\r\nb\r\n$1\r\na\r\n", b"*2\r\n$-1\r\n$1\r\nc\r\n"]
        self.assertEqual([client.take() for client in clients], expected)
        self.assertFalse(line.connected)

    def test_gone(self) -> None:
        """
        If a client goes while a part of a reply has come in part, the rest is dropped. The connection is used further.
        """
        self.ask("SET k0 " + "x" * 50000)
        self.client.send(requests("MGET k0 k1"))
        self.stage.turns()
        (line,) = self.stage.servers[0].open
        line.deliver(20000)
        self.client.lose()
        line.deliver(20000)
        self.stage.serve()
        self.assertEqual(self.ask("MGET k1 k3", client=self.stage.client()), b"*2\r\n$-1\r\n$-1\r\n")
        self.assertTrue(line.connected)

    def test_partFails(self) -> None:
        """
        If one part fails, the reply is its error: no value is taken for missing.
        """
        self.stage.servers[1].failing = {b"MGET", b"MSET"}
        for text in ("MGET k0 k1", "MSET k0 a k1 b"):
            self.assertEqual(self.ask(text), b"-OOM no memory\r\n")
        self.assertEqual(self.ask("MGET k0 k2"), b"*2\r\n$1\r\na\r\n$-1\r\n")

    def test_lost(self) -> None:
        """
        A lost connection fails requests that write to its server. Those that read are sent again.
        """
        self.ask("MSET k0 a k1 b")
        for text, reply in (("MGET k1 k2", b"*2\r\n$1\r\nb\r\n"), ("DEL k0 k1", b"-ERR ")):
            self.stage.clock.advance(2)  # so that the connection is not taken for one that was bad from the beginning
            self.client.send(requests(text))
            self.stage.turns()
            for line in self.stage.servers[1].open:
                line.lose()
            self.stage.serve()
            self.assertEqual(self.client.take()[: len(reply)], reply)

    def test_declined(self) -> None:
        """
        What a server has declined, and no other one can execute, is the reply to this request only.
        """
        declined = b"-LOADING Redis is loading the dataset in memory\r\n"
        self.ask("MSET k0 a k1 b k2 c")
        for text, reply in (("GET k1", declined), ("SET k1 b", declined), ("MGET k1 k0", declined)):
            self.stage.servers[1].declining = 1
            expected = b"$1\r\na\r\n" + reply + b"$1\r\nc\r\n$1\r\na\r\n"
            self.assertEqual(self.ask("GET k0", text, "GET k2", "GET k0"), expected)
            self.stage.clock.advance(5)
            self.stage.serve()
            self.assertEqual(self.ask("GET k1"), b"$1\r\nb\r\n")

    def test_declinedPart(self) -> None:
        """
        A part that a server has not executed is sent to the server that is found in its place, once. If it is declined
        again, the client gets that reply.
        """
        server = self.stage.servers[1]
        server.declination = b"-READONLY You can't write against a read only replica.\r\n"
        for declining, text, reply in (
            (1, "MSET k0 a k1 b k2 c", b"+OK\r\n"),
            (1, "MGET k1 k0", b"*2\r\n$1\r\nb\r\n$1\r\na\r\n"),
            (2, "DEL k0 k1", server.declination),
            (0, "MGET k1 k2", b"*2\r\n$1\r\nb\r\n$1\r\nc\r\n"),
        ):
            server.declining = declining
            self.stage.asked(server)
            self.assertEqual(self.ask(text, "GET k2"), reply + b"$1\r\nc\r\n", text)
            self.stage.clock.advance(5)
            self.stage.serve()
            asked = [each for each in self.stage.asked(server) if each[:4] == text[:4].encode()]
            self.assertEqual(len(asked), 2 if declining else 1, text)

    def test_declinedBefore(self) -> None:
        """
        A part is not sent again if the server may have executed a later request of the client.
        """
        for _ in range(3):
            self.ask("GET k2")  # until it may have more requests in flight
        server = self.stage.servers[1]
        server.declining = 1
        server.declination = b"-READONLY You can't write against a read only replica.\r\n"
        self.assertEqual(self.ask("MSET k0 a k1 b", "SET k1 c", "GET k1"), server.declination + b"+OK\r\n$1\r\nc\r\n")

    def test_silent(self) -> None:
        """
        A client that has turned replies off gets none to divided requests either.
        """
        texts = "CLIENT REPLY OFF", "MSET k0 a k1 b", "DBSIZE", "SCAN 0", "RENAME k0 k1", "CLIENT REPLY ON", "GET k1"
        self.assertEqual(self.ask(*texts), b"+OK\r\n$1\r\nb\r\n")

    def test_random(self) -> None:
        """
        Replies are in the order of the requests, in whatever order the servers reply.
        """
        for seed in range(30):
            rng = random.Random(seed)
            values: dict[str, str] = {}
            sent, expected = b"", b""
            for number in range(40):
                key, other = (f"{seed}k{rng.randrange(6)}" for _ in range(2))
                kind = rng.randrange(4)
                if kind == 0:
                    sent, expected = sent + requests(f"SET {key} {number}"), expected + b"+OK\r\n"
                    values[key] = str(number)
                elif kind == 1:
                    sent += requests(f"MGET {key} {other}")
                    expected += b"*2\r\n" + _bulk(values.get(key)) + _bulk(values.get(other))
                elif kind == 2:
                    sent, expected = sent + requests(f"GET {key}"), expected + _bulk(values.get(key))
                else:
                    sent += requests("MULTI", f"SET {key} t", f"GET {key}", "EXEC")
                    expected += b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$1\r\nt\r\n"
                    values[key] = "t"
            client, got = self.stage.client(), b""
            while sent:
                size = rng.choice((5, 100, 1000))
                client.send(sent[:size])
                sent = sent[size:]
                for line in rng.sample(self.stage.lines, len(self.stage.lines)):
                    line.deliver(rng.choice((3, 50, 1000)))
                self.stage.turns()
            self.stage.serve()
            got += client.take()
            self.assertEqual(got, expected, seed)


def _bulk(value: str | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value.encode())


class SpreadTests(PlacedCase):
    """
    Tests for requests that every server gets.
    """

    def test_everywhere(self) -> None:
        """
        All servers get the request, on connections of the client's database, even if there is none yet.
        """
        self.ask("MSET k0 a k1 b k2 c k3 d")
        self.assertEqual(self.ask("DBSIZE", "SELECT 2", "DBSIZE", "SET k1 x", "DBSIZE"),
                         b":4\r\n+OK\r\n:0\r\n+OK\r\n:1\r\n")  # fmt: skip

    def test_error(self) -> None:
        """
        The error of one server is the reply.
        """
        self.stage.servers[2].failing = {b"DBSIZE"}
        self.assertEqual(self.ask("DBSIZE", "GET k1"), b"-OOM no memory\r\n$-1\r\n")

    def test_scan(self) -> None:
        """
        C{SCAN} goes from one server to the next.
        """
        self.ask("MSET k0 a k1 b")
        self.assertEqual(self.ask("SCAN 0"), b"*2\r\n$1\r\n1\r\n*1\r\n$2\r\nk0\r\n")
        self.assertEqual(self.ask("SCAN 1"), b"*2\r\n$1\r\n2\r\n*1\r\n$2\r\nk1\r\n")
        self.assertEqual(self.ask("SCAN 2"), b"*2\r\n$1\r\n0\r\n*0\r\n")
        self.assertEqual(self.ask("SCAN 3"), b"-ERR invalid cursor\r\n")


class PinTests(PlacedCase):
    """
    Tests for clients with a connection of their own.
    """

    def test_transaction(self) -> None:
        """
        A transaction is sent to the server of its first key, after what was sent before it.
        """
        replies = self.ask("SET k1 a", "SET k2 b", "MULTI", "GET k1", "EXEC", "GET k2")
        self.assertEqual(replies, b"+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n$1\r\na\r\n$1\r\nb\r\n")
        self.assertEqual(self.stage.asked(self.stage.servers[1]), [b"SET k1 a", b"MULTI", b"GET k1", b"EXEC"])
        self.assertEqual(self.ask("MULTI", "SET k1 c", "GET k2", "EXEC")[13:13 + len(CROSS_SLOT) + 1],
                         b"\n" + CROSS_SLOT)  # fmt: skip
        self.assertEqual(self.ask("GET k1"), b"$1\r\na\r\n")

    def test_database(self) -> None:
        """
        A connection of the client's own has the client's database.
        """
        self.assertEqual(self.ask("SELECT 3", "SET k1 a", "MULTI", "GET k1", "EXEC")[-7:], b"$1\r\na\r\n")
        self.assertEqual(self.ask("GET k1"), b"$1\r\na\r\n")

    def test_behind(self) -> None:
        """
        Divided requests and those for every server wait for the end of a blocking one.
        """
        replies = self.ask("BLPOP k1 1", "MGET k0 k1", "DBSIZE", "SET k1 a", "GET k1")
        self.assertEqual(replies, b"*-1\r\n*2\r\n$-1\r\n$-1\r\n:0\r\n+OK\r\n$1\r\na\r\n")

    def test_waiting(self) -> None:
        """
        A client waits for a connection of its own. If it gets none in time, its transaction fails.
        """
        other = self.stage.client()
        self.ask("MULTI", "GET k1", client=other)
        self.client.send(requests("MULTI", "GET k1", "EXEC", "GET k1"))
        self.stage.serve()
        self.assertEqual(self.client.take(), b"+OK\r\n")
        self.assertEqual(self.ask("EXEC", client=other), b"*1\r\n$-1\r\n")
        self.assertEqual(self.client.take(), b"+QUEUED\r\n*1\r\n$-1\r\n$-1\r\n")
        self.ask("MULTI", "GET k1", client=other)
        self.client.send(requests("MULTI", "GET k1", "EXEC", "GET k1"))
        self.stage.serve()
        self.stage.clock.advance(1.5)
        self.stage.serve()
        replies = self.client.take().split(b"\r\n")
        self.assertEqual(replies[1][:5], b"-ERR ")
        self.assertEqual(replies[2:], [b"-EXECABORT Transaction discarded because of previous errors.", b"$-1", b""])
        self.ask("EXEC", client=other)

    def test_down(self) -> None:
        """
        If the server of the first key is down, the transaction fails at once.
        """
        server = self.stage.servers[1]
        server.mode = "refuse"
        for line in server.open:
            line.lose()
        self.stage.clock.advance(0.1)
        self.stage.serve()
        replies = self.ask("MULTI", "SET k1 a", "EXEC", "MULTI", "SET k2 a", "EXEC").split(b"\r\n")
        self.assertEqual(replies[1][:5], b"-ERR ")
        self.assertEqual(replies[2][:10], b"-EXECABORT")
        self.assertEqual(replies[3:], [b"+OK", b"+QUEUED", b"*1", b"+OK", b""])

    def test_multiFails(self) -> None:
        """
        If the server rejects C{MULTI}, no command of the transaction is executed outside of one: the client is closed.
        """
        self.stage.servers[1].failing = {b"MULTI"}
        self.ask("MULTI", "GET k1")
        self.assertFalse(self.client.connected)

    def test_gone(self) -> None:
        """
        The connection of a client that is gone in a transaction is closed.
        """
        self.ask("MULTI", "GET k1")
        before = len(self.stage.servers[1].open)
        self.client.lose()
        self.stage.serve()
        self.assertEqual(len(self.stage.servers[1].open), before - 1)


class ChangeTests(PlacedCase):
    """
    Tests for other servers and limits.
    """

    def test_removed(self) -> None:
        """
        The keys of a removed server belong to others, in all databases, and its connections of all kinds are closed.
        """
        stage = self.stage
        self.ask("SELECT 2", "SET k2 a", "MULTI", "GET k2", "EXEC")
        gone = stage.servers[2]
        self.assertEqual(len(gone.open), 3)
        stage.change([0, 1])
        stage.serve()
        self.assertEqual(gone.open, [])
        self.assertEqual(self.ask("GET k2", "DBSIZE", "MULTI", "SET k2 b", "EXEC")[:9], b"$-1\r\n:0\r\n")
        self.assertEqual(stage.servers[0].data[b"2"], {b"k2": b"b"})

    def test_added(self) -> None:
        """
        A server that was added has connections of every kind.
        """
        stage = self.stage
        stage.change([0, 1])
        self.ask("SELECT 2", "SET k2 a")
        stage.change([0, 1, 2])
        stage.serve()
        self.assertEqual(self.ask("GET k2", "SET k2 b", "MULTI", "GET k2", "EXEC")[-7:], b"$1\r\nb\r\n")
        self.assertEqual(stage.servers[2].data[b"2"], {b"k2": b"b"})

    def test_inTransaction(self) -> None:
        """
        A transaction ends on the server where it has begun, although that was removed. Its keys are those of another
        server now.
        """
        self.ask("SET k2 a", "MULTI", "GET k2")
        self.stage.change([0, 1])
        self.assertEqual(self.ask("EXEC"), b"*1\r\n$1\r\na\r\n")
        self.stage.serve()
        self.assertEqual(self.stage.servers[2].open, [])

    def test_rerouted(self) -> None:
        """
        Clients end when servers do not share the keys any more. What was read is answered.
        """
        self.ask("MULTI", "SET k1 a")
        self.stage.sessions.reroute(self.stage.flavours.base, None)
        self.stage.serve()
        self.assertFalse(self.client.connected)

    def test_flavours(self) -> None:
        """
        The number of flavours is limited. A client that gets none keeps its own.
        """
        for database in range(16):
            for version in (2, 3):
                self.stage.flavours.use((version, database), (version, database))
        self.assertRaises(PoolFull, self.stage.flavours.use, "other", (4, 0))
        self.assertEqual(self.ask("SELECT 15", "SET k1 a", "GET k1"), b"+OK\r\n+OK\r\n$1\r\na\r\n")
