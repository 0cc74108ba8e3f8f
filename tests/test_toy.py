# Copyright txconnpool contributors. See LICENSE.
"""
Tests that a second protocol works with the proxy, the pool and the library, although none of their modules knows it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.pipes import Pipe
from tests.toy import ADD, GET, Toy, ToyServerFactory, netstring
from txconnpool.errors import ConnectionLostInFlight, PoolTimeout
from txconnpool.pool import Pool
from txconnpool.pool.connection import ConnectionFactory
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.engine import PoolEngine
from txconnpool.pool.handshake import Handshake
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.sessions import SessionFactory
from txconnpool.routing.single import SinglePool
from txconnpool.testing import FakeServer, finish
from txconnpool.wire import IDialect


class ToyCase(SynchronousTestCase):
    """
    Base class of tests with a pool and sessions that use the toy protocol, and a server in memory.
    """

    servers = 1
    maximum = 2

    def setUp(self) -> None:
        """
        Start the pool.
        """
        self.reactor: Any = MemoryReactorClock()
        self.factories = [ToyServerFactory() for _ in range(self.servers)]
        self.upstream = [FakeServer(self.reactor, factory) for factory in self.factories]
        dialect: IDialect = Toy()
        limits = Limits(
            maximum=self.maximum, minimum=self.servers, depth=16, waitTimeout=1.0, whenDown=1, idleTimeout=0.0,
            maxLifetime=0.0,
        )  # fmt: skip
        self.pool = PoolEngine(
            self.upstream, ConnectionFactory(dialect, self.reactor, 2.0), limits, self.reactor,
            handshake=Handshake("pool", dialect), connectTimeout=1.0,
        )  # fmt: skip
        self.sessions = SessionFactory(
            "pool", SinglePool(self.pool), dialect, SessionLimits(), BufferedBytes(), self.reactor, lambda words: []
        )
        self.pool.start()
        self.turns()
        self.reactor.advance(2)  # a connection that is lost in its first second counts as a failed dial
        self.addCleanup(finish, self.pool)
        self.addCleanup(self.turns)
        self.addCleanup(self.sessions.abort)

    def turns(self, count: int = 10) -> None:
        """
        Run all events that are due now.
        """
        for _ in range(count):
            self.reactor.advance(0)

    def client(self) -> Pipe:
        """
        @return: a new client.
        """
        return Pipe(self.reactor).connect(self.sessions.buildProtocol(None))

    def ask(self, client: Pipe, *payloads: bytes) -> bytes:
        """
        Send requests of a client in one packet.

        @return: the replies.
        """
        client.send(b"".join(map(netstring, payloads)))
        self.turns()
        return client.take()

    @property
    def executed(self) -> list[bytes]:
        """
        The requests that the first server has executed, without the handshakes.
        """
        return [request for request in self.factories[0].executed if request != b"get alive"]


class ProxyTests(ToyCase):
    """
    Tests for the proxy.
    """

    def test_order(self) -> None:
        """
        Replies are written in the order of the requests, also those of the proxy itself.
        """
        replies = b"".join(map(netstring, (b"3", b"-unknown command", b"5", b"5")))
        self.assertEqual(self.ask(self.client(), b"add a 3", b"nonsense", b"add a 2", b"get a"), replies)

    def test_pieces(self) -> None:
        """
        Requests and replies may arrive in any pieces.
        """
        client = self.client()
        client.send(netstring(b"add a 3") + netstring(b"nonsense") + netstring(b"get a"), 1)
        self.turns()
        self.assertEqual(client.take(), b"1:3,16:-unknown command,1:3,")

    def test_broken(self) -> None:
        """
        A client that sends invalid bytes gets an error and is closed.
        """
        client = self.client()
        self.assertEqual(self.ask(client, b"add a 1") + self.ask(client), b"1:1,")
        client.send(b"GET / HTTP/1.1\r\n")
        self.turns()
        self.assertEqual((client.take(), client.connected), (b"16:-not a netstring,", False))

    def test_brokenServer(self) -> None:
        """
        If a server sends invalid bytes, its connection is closed, and a C{get} is sent again.
        """
        client = self.client()
        self.upstream[0].hold()
        client.send(netstring(b"get a") + netstring(b"add a 1"))
        self.turns()
        (connection,) = self.upstream[0].connections
        connection.send(b"HTTP/1.1 400\r\n")
        self.upstream[0].release()
        self.turns()
        self.assertIn(b"protocol error", client.take().split(b",")[1])

    def test_retried(self) -> None:
        """
        A C{get} whose connection was lost is sent once more, an C{add} is not.
        """
        client = self.client()
        self.upstream[0].hold()
        client.send(netstring(b"get a") + netstring(b"add a 1"))
        self.turns()
        self.upstream[0].reset()
        self.turns()
        self.upstream[0].release()
        self.turns()
        first, second = client.take().split(b",")[:2]
        self.assertEqual(first, b"1:1")  # the server had executed both
        self.assertIn(b"connection lost", second)
        self.assertEqual(self.pool.counters.retries, 1)

    def test_counted(self) -> None:
        """
        Requests are counted by their command.
        """
        self.ask(self.client(), b"add a 1", b"get a", b"get a")
        requests = self.pool.servers[0].traffic.requests
        self.assertEqual((requests[ADD.index], requests[GET.index]), (1, 2))  # the handshake, a get, is not counted


class BroadcastTests(ToyCase):
    """
    Tests for requests that are sent to every server.
    """

    servers = 2

    def test_everyServer(self) -> None:
        """
        Every server executes the request after earlier requests of the client and before later ones, and the client
        gets one reply.
        """
        client = self.client()
        self.assertEqual(self.ask(client, b"add a 1", b"reset", b"get a"), b"1:1,2:ok,1:0,")
        for factory in self.factories:
            self.assertIn(b"reset", factory.executed)


class PinningTests(ToyCase):
    """
    Tests for clients with a connection of their own.
    """

    def locked(self) -> list[bool]:
        """
        @return: for each connection whether it is locked.
        """
        return [each.locked for each in self.factories[0].connections]

    @covers("R26")
    def test_own(self) -> None:
        """
        From C{lock} to C{unlock} no other client uses the connection. After that all clients use it.
        """
        client, other = self.client(), self.client()
        self.assertEqual(self.ask(client, b"add a 1", b"lock", b"add a 1"), b"1:1,2:ok,1:2,")
        self.assertEqual(self.locked().count(True), 1)
        self.assertEqual(self.ask(other, b"add a 1"), b"1:3,")
        self.assertEqual(sorted(self.locked()), [False, True])
        self.assertEqual(self.ask(client, b"add a 1", b"unlock", b"get a"), b"1:4,2:ok,1:4,")
        self.assertEqual(self.locked(), [False, False])
        self.assertEqual(self.pool.stats.inFlight, 0)
        self.pool.selfCheck()

    def test_again(self) -> None:
        """
        A client may lock several times, also in one packet.
        """
        requests = [b"lock", b"add a 1", b"unlock"] * 20
        self.assertEqual(self.ask(self.client(), *requests), b"".join(b"2:ok,1:%d,2:ok," % n for n in range(1, 10))
                         + b"".join(b"2:ok,2:%d,2:ok," % n for n in range(10, 21)))  # fmt: skip
        self.assertEqual(self.executed, requests)
        self.assertEqual(self.locked(), [False])

    def test_waits(self) -> None:
        """
        If all connections are locked, a client waits for one.
        """
        first, second, third = (self.client() for _ in range(3))
        self.ask(first, b"lock")
        self.ask(second, b"lock")
        self.assertEqual(self.ask(third, b"lock", b"add a 1"), b"")
        self.assertEqual(self.ask(first, b"unlock"), b"2:ok,")
        self.assertEqual(third.take(), b"2:ok,1:1,")

    @covers("R24")
    def test_waitsInVain(self) -> None:
        """
        If the wait times out, the request gets an error, and the client can go on.
        """
        first, second, third = (self.client() for _ in range(3))
        self.ask(first, b"lock")
        self.ask(second, b"lock")
        self.ask(third, b"lock", b"nonsense")
        self.reactor.advance(1)
        self.turns()
        error, own = third.take().split(b",")[0], b"16:-unknown command,"
        self.assertIn(b"timed out waiting for a connection", error)
        self.ask(first, b"unlock")
        self.assertEqual(self.ask(third, b"nonsense", b"add a 1"), own + b"1:1,")

    def test_vanished(self) -> None:
        """
        When a client with a lock disconnects, its connection is closed, so that no other client gets it.
        """
        client, other = self.client(), self.client()
        self.ask(client, b"lock", b"add a 1")
        client.lose()
        self.turns()
        self.assertEqual(self.ask(other, b"add a 1"), b"1:2,")
        self.assertEqual([locked for locked in self.locked() if locked], [])
        self.pool.selfCheck()

    def test_vanishedInFlight(self) -> None:
        """
        The same if requests are in flight.
        """
        client, other = self.client(), self.client()
        self.ask(client, b"lock")
        self.upstream[0].hold()
        client.send(netstring(b"add a 1"))
        self.turns()
        client.lose()
        self.upstream[0].release()
        self.turns()
        self.assertEqual(self.ask(other, b"add a 1"), b"1:2,")
        self.assertEqual([locked for locked in self.locked() if locked], [])

    def test_lost(self) -> None:
        """
        If the connection is lost, its state is lost too: all requests fail, including reads, and the client is closed.
        """
        for requests, errors in (((), 0), ((b"get a", b"add a 1"), 2)):
            client = self.client()
            self.ask(client, b"lock")
            self.upstream[0].hold()
            client.send(b"".join(map(netstring, requests)))
            self.turns()
            self.upstream[0].reset()
            self.turns()
            self.upstream[0].release()
            self.turns()
            self.assertEqual((client.take().count(b"connection lost"), client.connected), (errors, False))
            self.assertEqual(self.pool.counters.retries, 0)
            self.reactor.advance(2)
            self.turns()

    def test_lastNeed(self) -> None:
        """
        A client that watches and locks keeps its connection until both have ended, in either order.
        """
        client, other = self.client(), self.client()
        self.ask(client, b"watch a", b"lock", b"unlock")
        self.ask(other, b"add a 1", b"add a 1")
        self.assertEqual(client.take(), b"4:!a 1,4:!a 2,")
        self.ask(client, b"lock", b"unwatch")
        self.assertEqual(self.locked().count(True), 1)
        self.ask(other, b"add a 1")
        self.assertEqual(client.take(), b"")
        self.ask(client, b"unlock")
        self.assertEqual(self.locked().count(True), 0)

    def test_pushed(self) -> None:
        """
        Frames that the server sends without a request are forwarded to the client that has the connection, between its
        replies.
        """
        client, other = self.client(), self.client()
        self.assertEqual(self.ask(client, b"watch a"), b"2:ok,")
        self.assertEqual(self.ask(other, b"add a 7"), b"1:7,")
        self.assertEqual(client.take(), b"4:!a 7,")
        self.assertEqual(self.ask(client, b"add a 1", b"get b"), b"1:8,4:!a 8,1:0,")
        self.assertEqual(self.ask(client, b"unwatch"), b"2:ok,")
        self.assertEqual(self.ask(other, b"add a 1") + client.take(), b"1:9,")

    def test_pushedInPieces(self) -> None:
        """
        Such frames may arrive in pieces.
        """
        client, other = self.client(), self.client()
        self.ask(client, b"watch a")
        (connection,) = self.upstream[0].connections
        for piece in (b"4", b":!a", b" 1,1:7", b","):
            connection.send(piece[:4])
        self.turns()
        self.assertEqual(client.take(), b"4:!a 1,")
        self.assertEqual(other.take(), b"")

    def test_pushedToNobody(self) -> None:
        """
        On a shared connection such frames are dropped.
        """
        client = self.client()
        (connection,) = self.upstream[0].connections
        connection.send(netstring(b"!a 1"))
        self.assertEqual(self.ask(client, b"add a 1"), b"1:1,")

    def test_end(self) -> None:
        """
        A client that half-closes its connection gets all replies, and its connection to the server is closed.
        """
        client = self.client()
        client.send(netstring(b"lock") + netstring(b"add a 1"))
        client.end()
        self.turns()
        self.assertEqual((client.take(), client.connected), (b"2:ok,1:1,", False))
        self.turns()
        self.assertEqual([locked for locked in self.locked() if locked], [])


class LibraryTests(SynchronousTestCase):
    """
    Tests for programs that use the pool.
    """

    def setUp(self) -> None:
        """
        Create a pool of pipelined connections.
        """
        self.reactor: Any = MemoryReactorClock()
        self.server = FakeServer(self.reactor, ToyServerFactory())
        dialect = Toy()
        self.pool: Pool[Any] = Pool(
            self.server, 1, self.reactor, clientFactory=ConnectionFactory(dialect, self.reactor, 2.0),
            configure=Handshake("pool", dialect), pipelineDepth=10, waitTimeout=1.0, backoff=None,
        )  # fmt: skip
        self.addCleanup(finish, self.pool)

    def test_requests(self) -> None:
        """
        Requests are pipelined on one connection.
        """
        answers = [self.pool.performRequest("ask", ADD, netstring(b"add a 1")) for _ in range(5)]
        for _ in range(5):
            self.reactor.advance(0)
        self.assertEqual([self.successResultOf(answer) for answer in answers], [b"1:%d," % n for n in range(1, 6)])
        self.assertEqual(len(self.server.connections), 1)

    def test_failures(self) -> None:
        """
        A lost connection, and a server that does not answer, result in errors of the pool.
        """
        self.server.hold()
        lost = self.pool.performRequest("ask", ADD, netstring(b"add a 1"))
        for _ in range(5):
            self.reactor.advance(0)
        self.server.release()
        for _ in range(5):
            self.reactor.advance(0)
        self.successResultOf(lost)
        self.server.hold()
        lost = self.pool.performRequest("ask", ADD, netstring(b"add a 1"))
        self.reactor.advance(0)
        self.server.reset()
        self.reactor.advance(0)
        self.failureResultOf(lost, ConnectionLostInFlight)
        self.reactor.advance(1)
        late = self.pool.performRequest("ask", ADD, netstring(b"add a 1"))
        self.reactor.pump([0.1] * 30)
        self.failureResultOf(late, PoolTimeout)
        self.server.release()
