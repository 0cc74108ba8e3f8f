# -*- test-case-name: tests.proxy.test_session -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.session}: requests of clients, over a pool and servers in memory.
"""

from __future__ import annotations

from tests import memcached
from tests.bugs import covers
from tests.clients import (
    EXCHANGES,
    REFUSED,
    STATISTICS,
    TOO_LARGE,
    SessionTestCase,
    get,
    gets,
    keys,
    put,
)
from tests.memcached import Line, value
from tests.pipes import HIGH_WATER, Pipe
from tests.stage import assertTidy
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.session import ANSWERS


class RequestsTests(SessionTestCase):
    """
    Tests for requests of all kinds.
    """

    @covers("16")
    def test_each(self) -> None:
        """
        Every kind of request gets its reply.
        """
        for servers in (1, 3):
            stage = self.stage(servers, maxItemSize=2048)
            client = stage.client()
            for request, reply in EXCHANGES:
                self.assertEqual(stage.ask(client, request), reply, request)

    @covers("5")
    def test_pipelined(self) -> None:
        """
        Requests of all kinds that arrive in one packet get their replies in their order.
        """
        requests = b"".join(request for request, _ in EXCHANGES) * 3
        for servers in (1, 3):
            stage = self.stage(servers, maxItemSize=2048)
            self.assertEqual(stage.ask(stage.client(), requests), b"".join(reply for _, reply in EXCHANGES) * 3)

    @covers("5", "11")
    def test_pieces(self) -> None:
        """
        The same when requests and replies arrive in pieces.
        """
        requests = b"".join(request for request, _ in EXCHANGES)
        expected = b"".join(reply for _, reply in EXCHANGES)
        for size in (1, 2, 7, 61, 1000):
            stage = self.stage(2, maxItemSize=2048)
            client = stage.client()
            for start in range(0, len(requests), size):
                client.send(requests[start : start + size])
                stage.turns(2)
                for line in stage.lines:
                    line.deliver(size)
            stage.serve()
            self.assertEqual(client.take(), expected, size)

    def test_sameConnection(self) -> None:
        """
        Pipelined requests of a client are sent on one connection, so that a get returns what a set before it has
        stored.
        """
        stage = self.stage(maximum=3, minimum=3)
        client = stage.client()
        client.send(put(b"k", 1) + b"get k\r\n")
        client.send(b"delete k\r\n")
        for line in stage.lines:
            line.look()
        self.assertEqual(sorted(len(line.asked) for line in stage.lines), [0, 0, 3])

    def test_statistics(self) -> None:
        """
        The reply to C{stats} is written behind the replies to all requests before it, and before those behind it.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\nstats proxy\r\nget b\r\n")
        self.assertEqual(client.take(), b"")
        stage.line.deliver(len(get(b"a")))
        self.assertEqual(client.take(), get(b"a"))
        stage.turns()
        self.assertEqual(client.take(), STATISTICS)
        stage.serve()
        self.assertEqual(client.take(), get(b"b"))
        self.assertEqual(stage.ask(client, b"stats proxy items 7\r\n"), b"SERVER_ERROR no such statistics: items 7\r\n")

    @covers("18")
    def test_longRun(self) -> None:
        """
        All requests of a packet with more than the allowed number in flight get their replies.
        """
        stage = self.stage()
        names = keys(1000)
        self.assertEqual(stage.ask(stage.client(), gets(names)), get(*names))

    def test_values(self) -> None:
        """
        Each key of these tests has a different value, which contains bytes that look like the protocol.
        """
        self.assertEqual(len({value(name) for name in keys(50)}), 50)
        self.assertIn(b"\r\nEND\r\nVALUE zzzz 0 3\r\n", value(b"zzzz"))


class TooLargeTests(SessionTestCase):
    """
    Tests for values that are too large. They are not kept while they arrive.
    """

    @covers("15")
    def test_tooLarge(self) -> None:
        """
        The bytes of the value are dropped as they arrive. The error is written when all have arrived.
        """
        stage = self.stage(maxItemSize=2048)
        client = stage.client()
        client.send(b"get a\r\nset big 0 0 10000000\r\n")
        for _ in range(999):
            client.send(b"x" * 10000)
            self.assertEqual(client.protocol._size, 0)
        self.assertEqual(stage.ask(client, b"x" * 9999), get(b"a"))
        self.assertEqual(stage.ask(client, b"x\r\nget b\r\n"), TOO_LARGE + get(b"b"))

    def test_tooLargeReplaces(self) -> None:
        """
        The old value of the key is deleted. The client gets the error and not the reply to the delete.
        """
        stage = self.stage(maxItemSize=2048)
        client = stage.client()
        client.send(b"get a\r\nset big 0 0 5000\r\n" + b"x" * 5000 + b"\r\nget b\r\n")
        self.assertEqual(stage.line.take(), b"get a\r\ndelete big\r\nget b\r\n")
        stage.line.send(get(b"a") + b"DELETED\r\n" + get(b"b"))
        self.assertEqual(client.take(), get(b"a") + TOO_LARGE + get(b"b"))

    def test_tooLargeAtOnce(self) -> None:
        """
        The old value is deleted when the line has arrived, though the client may never send all of the new one.
        """
        stage = self.stage(maxItemSize=2048)
        client = stage.client()
        client.send(b"set big 0 0 5000\r\n" + b"x" * 100)
        self.assertEqual(stage.line.take(), b"delete big\r\n")
        stage.line.send(b"DELETED\r\n")
        self.assertEqual(client.take(), b"")
        client.send(b"x" * 4900 + b"\r\n")
        self.assertEqual(client.take(), TOO_LARGE)

    def test_tooLargeWhenDown(self) -> None:
        """
        The client gets the same error when no server can be reached.
        """
        stage = self.stage(maxItemSize=2048)
        client = stage.client()
        stage.servers[0].mode = "refuse"
        stage.line.lose()
        stage.turns()
        client.send(b"set big 0 0 5000\r\n" + b"x" * 5000 + b"\r\n")
        self.assertEqual(client.take(), TOO_LARGE)

    def test_swallowing(self) -> None:
        """
        The error stands behind the replies to gets that are sent again while the value arrives.
        """
        stage = self.stage(maxItemSize=2048)
        client = stage.client()
        client.send(b"get a\r\nset big 0 0 5000\r\n" + b"x" * 4000)
        stage.line.lose()
        client.send(b"x" * 1000 + b"\r\n")
        self.assertEqual(client.take(), b"")
        stage.serve()
        self.assertEqual(client.take(), get(b"a") + TOO_LARGE)

    def test_swallowingRefused(self) -> None:
        """
        The error stands behind the errors of gets that cannot be sent again.
        """
        stage = self.stage(maxItemSize=2048)
        client = stage.client()
        client.send(b"get a\r\nset big 0 0 5000\r\n" + b"x" * 4000)
        stage.servers[0].mode = "refuse"
        stage.line.lose()
        client.send(b"x" * 1000 + b"\r\nx\r\n")
        stage.serve()
        self.assertEqual(client.take(), REFUSED + TOO_LARGE + b"ERROR\r\n")


class FairnessTests(SessionTestCase):
    """
    Tests for very many requests, in one packet, that are answered or refused by the proxy.
    """

    def flooded(self, client: Pipe, request: bytes, reply: bytes) -> None:
        """
        Send a request a thousand times, and assert that only a few of the replies come in each turn of the reactor.
        """
        client.send(request * 1000)
        received, clock = client.take(), client.clock
        self.assertLessEqual(len(received), ANSWERS * len(reply))
        while len(received) < 1000 * len(reply):
            # One by one: Clock.advance also makes the calls that are scheduled meanwhile.
            call = clock.calls.pop(0)
            self.assertEqual(call.getTime(), clock.seconds())
            call.func(*call.args, **call.kw)
            more = client.take()
            self.assertLessEqual(len(more), ANSWERS * len(reply))
            received += more
        self.assertEqual(received, reply * 1000)

    def test_invalid(self) -> None:
        """
        Other clients are served between the errors for invalid requests.
        """
        stage = self.stage()
        client = stage.client()
        self.flooded(client, b"\n", b"ERROR\r\n")
        client.send(b"\n" * 1000)
        self.assertLess(len(client.take()), 1000 * len(b"ERROR\r\n"))
        self.assertEqual(stage.ask(stage.client(), b"get a\r\n"), get(b"a"))

    def test_down(self) -> None:
        """
        The same with the errors for requests while no server can be reached.
        """
        for servers in (1, 2):
            stage = self.stage(servers, start=False)
            for server in stage.servers:
                server.mode = "refuse"
            stage.ask(stage.client(), b"get a\r\n")
            error = stage.ask(stage.client(), b"get a\r\n")
            self.assertIn(b"SERVER_ERROR", error)
            many = b"get" + b" a" * 60 + b"\r\n"
            for request in (b"mn\r\n", b"flush_all\r\n", b"get a b\r\n", many):
                self.flooded(stage.client(), request, error)

    def test_waited(self) -> None:
        """
        Requests that have waited in vain are all refused then, and none waits again; later ones are served.
        """
        stage = self.stage(depth=1, waitTimeout=0.5)
        other, client = stage.client(), stage.client()
        other.send(b"get a\r\n")
        client.send(b"mn\r\n" * 200)
        stage.clock.advance(0.5)
        client.send(b"get b\r\n")
        received = client.take()
        self.assertEqual((len(set(received.splitlines())), received.count(b"\n")), (1, 200))
        stage.serve()
        self.assertEqual(client.take(), get(b"b"))

    def test_gone(self) -> None:
        """
        A client may leave meanwhile.
        """
        stage = self.stage()
        for end in ("lose", "quit"):
            client = stage.client()
            client.send(b"\n" * 1000)
            if end == "lose":
                client.lose()
            else:
                client.protocol.readConnectionLost()
            stage.serve()
            self.assertFalse(client.connected)


class CapacityTests(SessionTestCase):
    """
    Tests for requests that wait for a connection with capacity.
    """

    @covers("8")
    def test_capacity(self) -> None:
        """
        All clients get their replies although they send many more requests than the connections can carry. No
        connection ever carries more than its depth.
        """
        stage = self.stage(maximum=3, minimum=3, depth=2)
        clients = [stage.client() for _ in range(10)]
        for number, client in enumerate(clients):
            client.send(gets(keys(20, 100 * number)))
        for _ in range(10 * 20):
            for line in stage.lines:
                line.look()
                self.assertLessEqual(line.owed.count(b"END\r\n\r\nEND") + len(line.asked), 10 * 20)
                self.assertLessEqual(line.protocol.record.load, 2)
                line.deliver(100)
                assertTidy(self, stage.pool, quiet=False)
            stage.turns(2)
        stage.serve()
        for number, client in enumerate(clients):
            self.assertEqual(client.take(), get(*keys(20, 100 * number)))

    def test_inTurn(self) -> None:
        """
        The session that waits longest is served first. A session with many requests waits again after each connection.
        """
        stage = self.stage(depth=1)
        greedy, second, third = (stage.client() for _ in range(3))
        greedy.send(gets(keys(3)))
        second.send(b"get second\r\n")
        third.send(b"get third\r\n")
        stage.serve()
        asked = [b"get key0\r\n", b"get second\r\n", b"get third\r\n", b"get key1\r\n", b"get key2\r\n"]
        self.assertEqual(stage.line.asked, asked)

    def test_othersWait(self) -> None:
        """
        A session that got a connection sends although others still wait.
        """
        stage = self.stage(depth=1)
        clients = [stage.client() for _ in range(5)]
        for client in clients:
            client.send(b"get a\r\nget b\r\n")
        stage.serve()
        self.assertEqual([client.take() for client in clients], [get(b"a", b"b")] * 5)

    def test_inVain(self) -> None:
        """
        Each request of a session that has waited too long gets an error in its place. Later requests are served.
        """
        stage = self.stage(depth=1, waitTimeout=0.5)
        other, client = stage.client(), stage.client()
        other.send(b"get a\r\n")
        client.send(b"get b\r\nget c\r\nx\r\n" + put(b"k", 1, b" noreply") + b"mg a q\r\nget d")
        stage.clock.advance(0.4)
        self.assertEqual(client.take(), b"")
        stage.clock.advance(0.1)
        numbers = b"1 of 1 connections busy, 0 idle, 0 dialing, 1 waiting"
        line = b"SERVER_ERROR timed out waiting for a connection (%s)\r\n" % numbers
        self.assertEqual(client.take(), line * 2 + b"ERROR\r\n" + line)
        stage.serve()
        self.assertEqual(stage.ask(client, b"\r\n"), get(b"d"))

    def test_inVainAltogether(self) -> None:
        """
        Requests that are not forwarded as they came are refused with the others and do not wait a second time.
        """
        stage = self.stage(depth=1, waitTimeout=0.5, maxItemSize=100)
        other, client = stage.client(), stage.client()
        other.send(b"get a\r\n")
        client.send(put(b"big", 200) + b"get b\r\nget " + b" ".join(keys(60)) + b"\r\n")
        stage.clock.advance(0.5)
        received = client.take().splitlines(True)
        self.assertEqual((received[0], len(received)), (TOO_LARGE, 3))
        self.assertEqual(received[1], received[2])
        self.assertEqual(stage.pool.waiters.count, 0)
        stage.serve()

    def test_tooManyWaiting(self) -> None:
        """
        A session that would be one waiter too many is refused. The waiters are served.
        """
        stage = self.stage(depth=1, maxWaiting=1)
        clients = [stage.client() for _ in range(3)]
        for client in clients:
            client.send(b"get a\r\n")
        line = b"SERVER_ERROR too many waiting requests\r\n"
        self.assertEqual([client.take() for client in clients], [b"", b"", line])
        stage.serve()
        self.assertEqual([client.take() for client in clients], [get(b"a"), get(b"a"), b""])
        self.assertEqual(stage.ask(clients[2], b"get b\r\n"), get(b"b"))

    @covers("20")
    def test_down(self) -> None:
        """
        While no server can be reached each request gets an error at once. When a server is up again, requests are
        served.
        """
        stage = self.stage(start=False)
        (server,) = stage.servers
        server.mode = "refuse"
        client = stage.client()
        requests = gets(keys(3)) + put(b"k", 1, b" noreply") + b"x\r\n"
        self.assertEqual(stage.ask(client, requests), REFUSED * 3 + b"ERROR\r\n")
        self.assertEqual(stage.ask(client, b"flush_all\r\nflush_all noreply\r\n"), REFUSED)
        server.mode = "accept"
        stage.clock.advance(0.2)
        stage.turns()
        self.assertEqual(stage.ask(client, b"get a\r\n"), get(b"a"))

    def test_firstDial(self) -> None:
        """
        Requests wait for the first connection.
        """
        stage = self.stage(start=False)
        client = stage.client()
        client.send(b"get a\r\nflush_all noreply\r\nget b\r\n")
        self.assertEqual(stage.pool.waiters.count, 1)
        stage.serve()
        self.assertEqual(client.take(), get(b"a", b"b"))
        self.assertEqual(stage.line.asked, [b"get a\r\n", b"flush_all\r\n", b"get b\r\n"])

    def test_together(self) -> None:
        """
        Two clients whose requests arrive in one turn share a connection. No other is dialed while there is an idle one.
        """

        class Telling(Line):
            queued = False

            def write(self, data: bytes) -> None:
                """
                There is something to send.
                """
                self.queued = True
                super().write(data)

            def look(self) -> None:
                """
                It was sent.
                """
                self.queued = False
                super().look()

        self.patch(memcached.Upstream, "kind", Telling)
        stage = self.stage(maximum=8, minimum=1)
        clients = [stage.client(), stage.client()]
        for _ in range(10):
            for client in clients:
                client.send(b"get a\r\n")
            self.assertEqual(sorted(record.load for record in stage.pool.state.records)[-1], 2)
            stage.serve()
            self.assertEqual([client.take() for client in clients], [get(b"a")] * 2)
        self.assertEqual(len(stage.pool.state.records), 2)

    @covers("27")
    def test_serverRemoved(self) -> None:
        """
        Without any server every request gets an error.
        """
        stage = self.stage()
        client = stage.client()
        stage.pool.removeServer("server0")
        stage.turns()
        line = b"SERVER_ERROR the pool has no servers\r\n"
        self.assertEqual(stage.ask(client, b"get a\r\nflush_all\r\nversion\r\nx\r\n"), line * 3 + b"ERROR\r\n")

    def test_poolClosed(self) -> None:
        """
        Requests that wait when the pool closes, and requests that arrive later, get errors.
        """
        stage = self.stage(depth=1)
        clients = [stage.client() for _ in range(3)]
        clients[0].send(b"get a\r\n")
        clients[1].send(b"get b\r\n")
        done = stage.pool.close()
        clients[2].send(b"get c\r\n")
        self.assertEqual(clients[1].take(), b"SERVER_ERROR the pool was closed\r\n")
        self.assertEqual(clients[2].take(), b"SERVER_ERROR the pool is closed\r\n")
        stage.serve()
        self.assertEqual(clients[0].take(), get(b"a"))
        self.successResultOf(done)

    def test_start(self) -> None:
        """
        A connection is offered once when its handshake is done, so two sessions do not get the same idle connection.
        """
        stage = self.stage(minimum=2, maximum=2)
        assertTidy(self, stage.pool)
        first, second = stage.client(), stage.client()
        first.send(b"get a\r\n")
        second.send(b"get b\r\n")
        for line in stage.lines:
            line.look()
        self.assertEqual([len(line.asked) for line in stage.lines], [1, 1])
        assertTidy(self, stage.pool, quiet=False)
        stage.serve()
        assertTidy(self, stage.pool)

    @covers("18")
    def test_grantedInVain(self) -> None:
        """
        A connection that is granted to a session which cannot use it, because its client stopped reading meanwhile,
        goes to the next waiter.
        """
        stage = self.stage(depth=1, sessionLimits=SessionLimits(unreadSoft=1000))
        other, client, third = (stage.client() for _ in range(3))
        client.reads = False
        self.assertEqual(stage.ask(other, b"get a\r\n"), get(b"a"))
        other.send(b"get a\r\n")
        client.send(b"get b\r\n")
        third.send(b"get c\r\n")
        client.write(b" " * (HIGH_WATER + 1))
        client.protocol.replied(b" " * 1001, 0)
        stage.serve()
        self.assertEqual(third.take(), get(b"c"))
        assertTidy(self, stage.pool)
        client.read()
        stage.serve()
        client.read()
        self.assertEqual(client.take().strip(b" "), get(b"b"))

    def test_retired(self) -> None:
        """
        A connection that is retired still delivers the replies to its requests in flight. Later requests are sent on
        another connection.
        """
        stage = self.stage()
        client, other = stage.client(), stage.client()
        old = stage.line
        client.send(b"get a\r\n")
        stage.pool.expire()
        stage.turns()
        client.send(b"get b\r\n")
        other.send(b"get c\r\n")
        stage.turns()
        self.assertEqual(len(stage.lines), 2)
        stage.serve()
        self.assertEqual((client.take(), other.take()), (get(b"a", b"b"), get(b"c")))
        self.assertEqual((old.connected, old.asked), (False, [b"get a\r\n"]))
