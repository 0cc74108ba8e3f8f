# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.memcache.batching}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock

from tests.memcache.cases import HELLO, EmbeddedTestCase
from txconnpool.memcache import MemCachePool
from txconnpool.testing import FakeServer, MemoryPool, finish


class BatchTests(EmbeddedTestCase):
    """
    Gets of one turn of the reactor are sent as one request.
    """

    def setUp(self) -> None:
        super().setUp()
        self.connect()
        self.store(a=b"1", b=b"2", c=b"3")

    def test_oneRequest(self) -> None:
        """
        Gets of one turn are one request, and each has its own result.
        """
        answers = [self.pool.get(key) for key in ("a", "x", "b", b"c")]
        self.assertEqual(self.connection.received, b"")
        self.pool.flush()
        self.assertEqual(self.connection.received, b"get a x b c\r\n")
        self.assertEqual(self.results(answers), [(0, b"1"), (0, None), (0, b"2"), (0, b"3")])

    def test_turns(self) -> None:
        """
        Gets of two turns are two requests.
        """
        self.pool.result(self.pool.get("a"))
        self.pool.result(self.pool.get("b"))
        self.assertEqual(self.connection.received, b"get a\r\nget b\r\n")

    def test_sameKey(self) -> None:
        """
        A key that several callers get is sent once, and each of them receives the value.
        """
        answers: list[Deferred[Any]] = [self.pool.get(key) for key in ("a", b"a", "b", "a")]
        answers.append(self.pool.getMultiple([b"a", "b"]))
        self.pool.flush()
        self.assertEqual(self.connection.received, b"get a b\r\n")
        one, two = (0, b"1"), (0, b"2")
        self.assertEqual(self.results(answers), [one, one, two, one, {b"a": one, "b": two}])

    def test_sameKeyForMany(self) -> None:
        """
        Thousands of callers can get the same key in one turn.
        """
        answers = [self.pool.get("a") for _ in range(5000)]
        answers[7].addErrback(lambda failure: failure.trap(CancelledError))
        answers[7].cancel()
        self.pool.flush()
        self.assertEqual(self.connection.received, b"get a\r\n")
        self.assertEqual(self.results(answers).count((0, b"1")), 4999)

    def test_identifiers(self) -> None:
        """
        Gets with identifiers are one request, and those without another one.
        """
        answers: list[Deferred[Any]] = [
            self.pool.get("a"), self.pool.gets("a"), self.pool.get("b"), self.pool.gets("b"),
        ]  # fmt: skip
        self.pool.flush()
        received = b"".join(connection.received for connection in self.pool.server.connections)
        self.assertIn(b"get a b\r\n", received)
        self.assertIn(b"gets a b\r\n", received)
        self.assertEqual(self.results(answers), [(0, b"1"), (0, b"1", b"1"), (0, b"2"), (0, b"2", b"2")])

    def test_full(self) -> None:
        """
        A request that has the maximum number of keys is sent at once, and the next get begins another one.
        """
        pool = MemoryPool(batchSize=2, maxClients=1)
        self.addCleanup(finish, pool)
        pool.result(pool.version())
        gets = gatherResults([pool.get(key) for key in "abcde"])
        pool.result(gets)
        self.assertEqual(pool.server.connections[0].received, HELLO + HELLO + b"get a b\r\nget c d\r\nget e\r\n")

    def test_alone(self) -> None:
        """
        With a batch size of 1 every get is a request of its own, sent at once.
        """
        pool = MemoryPool(batchSize=1, maxClients=1)
        self.addCleanup(finish, pool)
        pool.result(pool.version())
        answers: list[Deferred[Any]] = [pool.get("a"), pool.set("a", b"1"), pool.get("a")]
        pool.flush()
        self.assertEqual(self.results(answers), [(0, None), True, (0, b"1")])
        self.assertTrue(pool.server.connections[0].received.endswith(b"get a\r\nset a 0 0 1\r\n1\r\nget a\r\n"))

    def test_oneWrite(self) -> None:
        """
        All requests sent on a connection in one turn arrive in one piece.
        """
        pieces: list[bytes] = []

        class Pieces(Protocol):
            def dataReceived(self, data: bytes) -> None:
                pieces.append(data)

        reactor = MemoryReactorClock()
        server = FakeServer(reactor, Factory.forProtocol(Pieces))
        pool = MemCachePool(server, 1, reactor, configure=None)
        answers: list[Deferred[Any]] = [pool.set("a", b"1"), pool.delete("b"), pool.increment("c")]
        reactor.advance(0)
        self.assertEqual(pieces, [b"set a 0 0 1\r\n1\r\ndelete b\r\nincr c 1\r\n"])
        server.connections[0].send(b"STORED\r\nDELETED\r\n5\r\n")
        reactor.advance(0)
        self.assertEqual(self.results(answers), [True, True, 5])
        finish(pool)

    def test_fromACallback(self) -> None:
        """
        Gets from the callbacks of one request are one request of the next turn.
        """
        answers = [self.pool.get(key).addCallback(lambda _: self.pool.get("c")) for key in ("a", "b")]
        self.pool.flush()
        self.assertEqual(self.connection.received, b"get a b\r\nget c\r\n")
        self.assertEqual(self.results(answers), [(0, b"3"), (0, b"3")])

    def test_noTimers(self) -> None:
        """
        A hundred requests need no more timers than one, neither before they are sent nor in flight.
        """
        self.pool.suggestMaxClients(1)
        self.pool.server.hold()
        counts = []
        answers: list[Deferred[Any]] = []
        for many in (1, 100):
            answers += [self.pool.get("a" * size) for size in range(1, many + 1)]
            answers += [self.pool.set("a", b"1") for _ in range(many)]
            counts.append(len(self.pool.clock.getDelayedCalls()))
            self.pool.flush()
            counts.append(len(self.pool.clock.getDelayedCalls()))
        self.assertEqual(counts[:2], counts[2:])
        self.pool.server.release()
        self.pool.result(gatherResults(answers))
