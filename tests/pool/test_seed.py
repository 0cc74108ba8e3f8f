# Copyright txconnpool contributors. See LICENSE.
"""
Tests that programs for txconnpool 0.1.2 work with L{txconnpool.pool.library}, and that the defects of 0.1.2 are gone.

The numbers of the defects, B1 to B36, are those of a list that was made of 0.1.2 before it was replaced.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.memcache import ClientError, MemCacheProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.pools import Far
from txconnpool.errors import (
    ConnectionLostInFlight,
    NoSuchCommand,
    PoolClosed,
    PoolFull,
    PoolTimeout,
    ServerUnavailable,
)
from txconnpool.pool import Pool, PooledClientFactory

# -- A program for 0.1.2, as its README had it


class PooledMemCacheProtocol(MemCacheProtocol):
    """
    A client that announces itself in both ways.
    """

    factory: Any = None

    def connectionMade(self) -> None:
        MemCacheProtocol.connectionMade(self)
        self.factory.connectionPool.clientFree(self)
        if self.factory.deferred is not None:
            self.factory.deferred.callback(self)
            self.factory.deferred = None


class MemCacheClientFactory(PooledClientFactory):
    """
    The factory of the program.
    """

    protocol = PooledMemCacheProtocol


class MemCachePool(Pool[Any]):
    """
    The pool of the program.
    """

    clientFactory = MemCacheClientFactory

    def get(self, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """
        Get a value.
        """
        return self.performRequest("get", *args, **kwargs)


ADDRESS = IPv4Address("TCP", "127.0.0.1", 11211)
OTHER = IPv4Address("TCP", "127.0.0.2", 11211)


class SeedCase(SynchronousTestCase):
    """
    A test case with a reactor in memory. Tests end the dials.

    @ivar dials: the host and the factory of each dial.
    @ivar lines: the server's ends of all connections.
    """

    def setUp(self) -> None:
        """
        Make a reactor.
        """
        self.reactor = MemoryReactorClock()
        self.lines: list[Far] = []
        self.ended = 0

    def pool(self, addresses: Any = ADDRESS, maxClients: int = 1, **options: Any) -> MemCachePool:
        """
        @return: a pool, which is closed at the end of the test.
        """
        pool = MemCachePool(addresses, maxClients, self.reactor, **options)
        self.addCleanup(self.close, pool)
        return pool

    def close(self, pool: MemCachePool) -> None:
        """
        Close a pool, and assert that no timer is left.
        """
        done = pool.abort()
        self.turns()
        self.successResultOf(done)
        for line in self.lines:
            self.client(line).setTimeout(None)  # it leaves a timer behind when its connection is lost
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def turns(self) -> None:
        """
        Run the calls that are due without advancing the time.
        """
        for _ in range(10):
            self.reactor.advance(0)

    @property
    def dials(self) -> list[tuple[str, Any]]:
        """
        The host and the factory of each dial.
        """
        return [(str(host), factory) for host, _, factory, *_ in self.reactor.tcpClients]

    def accept(self) -> Far:
        """
        Let the next dial succeed.

        @return: the server's end of the connection.
        """
        self.turns()
        protocol = self.dials[self.ended][1].buildProtocol(ADDRESS)
        self.ended += 1
        client = protocol._wrappedProtocol.connection
        client.callLater = self.reactor.callLater
        line = Far(self.reactor)
        line.connect(protocol)
        self.lines.append(line)
        return line

    def refuse(self) -> None:
        """
        Let the next dial fail.
        """
        self.turns()
        _, factory = self.dials[self.ended]
        self.ended += 1
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))

    def client(self, line: Far) -> Any:
        """
        @return: the client of a connection.
        """
        return line.protocol._wrappedProtocol.connection

    def answer(self, line: Far, *values: bytes) -> None:
        """
        Reply to C{get} requests.
        """
        for value in values:
            key = self.client(line)._current[0].key
            line.send(b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(value), value))

    def quiet(self, *answers: Deferred[Any]) -> None:
        """
        Ignore the errors of requests.
        """
        for answer in answers:
            answer.addErrback(lambda failure: None)


class ProgramTests(SeedCase):
    """
    Tests for the program.
    """

    def test_works(self) -> None:
        """
        Requests have results, with C{maxClients} connections at most.
        """
        pool = self.pool(maxClients=2)
        answers = [pool.get(key) for key in (b"a", b"b", b"c")]
        first = self.accept()
        second = self.accept()
        self.assertEqual((first.received, second.received), (b"get a\r\n", b"get b\r\n"))
        self.answer(second, b"B", b"C")
        self.answer(first, b"A")
        self.assertEqual([self.successResultOf(each) for each in answers], [(0, b"A"), (0, b"B"), (0, b"C")])
        self.assertEqual(len(self.dials), 2)

    def test_made(self) -> None:
        """
        Constructing the pool as the program does, without a reactor, has no effect.
        """
        from twisted.internet import reactor

        before = reactor.getDelayedCalls()
        pool = MemCachePool(ADDRESS, maxClients=20)
        self.assertIs(pool.reactor, reactor)
        self.assertEqual(reactor.getDelayedCalls(), before)

    def test_clientFreeOnly(self) -> None:
        """
        A client that announces itself only by C{clientFree} is used.
        """

        class Free(PooledMemCacheProtocol):
            def connectionMade(self) -> None:
                self.factory.connectionPool.clientFree(self)

        self.assertUsed(Free)

    def test_deferredOnly(self) -> None:
        """
        A client that announces itself only by C{factory.deferred} is used.
        """

        class Told(PooledMemCacheProtocol):
            def connectionMade(self) -> None:
                self.factory.deferred.callback(self)

        self.assertUsed(Told)

    def assertUsed(self, client: Any) -> None:
        """
        Assert that clients of a class are used.
        """

        class Made(PooledClientFactory):
            protocol = client

        pool = self.pool(clientFactory=Made)
        answer = pool.get(b"k")
        self.answer(self.accept(), b"v")
        self.assertEqual(self.successResultOf(answer), (0, b"v"))

    def test_names(self) -> None:
        """
        All public names exist, and may be called at any time.
        """
        pool = self.pool(maxClients=3)
        pool.suggestMaxClients(2)
        for f in (pool.clientFree, pool.clientBusy, pool.clientGone):
            f(object())
        pool.removeServerFromRotation(ADDRESS)
        factory = MemCacheClientFactory()
        self.assertIsInstance(factory.deferred, Deferred)
        self.assertIsNone(factory.connectionPool)

    def test_factoryWithoutInit(self) -> None:
        """
        A factory whose C{__init__} does not call that of its base class has a C{deferred} all the same.
        """

        class Bare(MemCacheClientFactory):
            def __init__(self) -> None:
                pass

        pool = self.pool(clientFactory=Bare)
        answer = pool.get(b"k")
        self.answer(self.accept(), b"v")
        self.assertEqual(self.successResultOf(answer), (0, b"v"))


class DefectTests(SeedCase):
    """
    Tests for the defects of 0.1.2.
    """

    def test_B1(self) -> None:
        """
        A request that fails releases its client. A pool of one client works after a failure.
        """
        pool = self.pool()
        failing = pool.get(b"x" * 300)
        following = pool.get(b"k")
        line = self.accept()
        self.failureResultOf(failing, ClientError)
        self.answer(line, b"v")
        self.successResultOf(following)

    def test_B2(self) -> None:
        """
        So does a request whose command the client does not have.
        """
        pool = self.pool()
        unknown = pool.performRequest("nosuch")
        following = pool.get(b"k")
        line = self.accept()
        self.failureResultOf(unknown, NoSuchCommand)
        self.answer(line, b"v")
        self.successResultOf(following)

    def test_B3(self) -> None:
        """
        A client that announces itself twice gets one request, the oldest.
        """
        pool = self.pool()
        first, second = pool.get(b"first"), pool.get(b"second")
        line = self.accept()
        self.assertEqual(line.received, b"get first\r\n")
        self.answer(line, b"1")
        self.assertEqual(line.received, b"get first\r\nget second\r\n")
        self.answer(line, b"2")
        self.assertEqual([self.successResultOf(each) for each in (first, second)], [(0, b"1"), (0, b"2")])

    def test_B3b(self) -> None:
        """
        A client is free when its own request has a reply, not when another request has.
        """
        pool = self.pool(maxClients=2)
        answers = [pool.get(key) for key in (b"a", b"b", b"c", b"d")]
        first, second = self.accept(), self.accept()
        self.answer(first, b"A")
        self.assertEqual((first.received, second.received), (b"get a\r\nget c\r\n", b"get b\r\n"))
        self.quiet(*answers)

    def test_B4(self) -> None:
        """
        When the server refuses connections, requests fail within seconds.
        """
        pool = self.pool()
        answer = pool.get(b"k")
        for _ in range(3):
            self.assertNoResult(answer)
            self.refuse()
            self.reactor.advance(1)
        self.failureResultOf(answer, ServerUnavailable)

    def test_B5(self) -> None:
        """
        When a dial fails, the request is served by the next server.
        """
        pool = self.pool([ADDRESS, OTHER])
        answer = pool.get(b"k")
        self.refuse()
        self.answer(self.accept(), b"v")
        self.assertEqual(([host for host, _ in self.dials], self.successResultOf(answer)),
                         (["127.0.0.1", "127.0.0.2"], (0, b"v")))  # fmt: skip

    def test_B6(self) -> None:
        """
        A successful dial resets the back-off, however often connections were lost.
        """
        pool = self.pool()
        for outage in range(20):
            answer = pool.get(b"k")
            self.turns()
            self.assertEqual(len(self.dials), outage + 1)
            line = self.accept()
            self.answer(line, b"v")
            self.successResultOf(answer)
            self.reactor.advance(2)
            line.lose()

    def test_B7(self) -> None:
        """
        When an idle connection was lost, the next request gets a new one. It does not wait for the lost one.
        """
        pool = self.pool()
        answer = pool.get(b"k")
        line = self.accept()
        self.answer(line, b"v")
        self.successResultOf(answer)
        self.reactor.advance(2)
        line.lose()
        self.assertEqual((pool.stats.busy, pool.stats.connections), (0, 0))
        answer = pool.get(b"k")
        self.answer(self.accept(), b"w")
        self.assertEqual(self.successResultOf(answer), (0, b"w"))

    def test_B8(self) -> None:
        """
        After outages the maximum number of connections still holds.
        """
        pool = self.pool(maxClients=2)
        for _ in range(4):
            self.quiet(*(pool.get(b"k") for _ in range(5)))
            self.accept()
            self.accept()
            self.assertEqual(sum(line.connected for line in self.lines), 2)
            for line in self.lines:
                line.lose()
            self.quiet(pool.get(b"k"))
            self.reactor.advance(1)
            self.refuse()
            self.reactor.advance(1)
            self.accept()
            self.accept()
            self.turns()
            self.assertEqual((pool.stats.connections, pool.stats.dialing, len(self.dials)), (2, 0, self.ended))
            for line in self.lines:
                line.lose()
            self.reactor.advance(2)

    def test_B9(self) -> None:
        """
        A request that is cancelled before it was sent is never sent.
        """
        pool = self.pool()
        answers = [pool.get(key) for key in (b"a", b"b", b"c")]
        line = self.accept()
        answers[1].cancel()
        self.failureResultOf(answers[1], CancelledError)
        self.answer(line, b"A", b"C")
        self.assertEqual(line.received, b"get a\r\nget c\r\n")

    def test_B10(self) -> None:
        """
        When the request that caused a dial is cancelled, its connection serves other requests.
        """
        pool = self.pool()
        cancelled = pool.get(b"a")
        self.turns()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        answer = pool.get(b"b")
        self.answer(self.accept(), b"B")
        self.assertEqual((self.successResultOf(answer), len(self.dials)), ((0, b"B"), 1))

    def test_B11(self) -> None:
        """
        Cancelling a request that was sent has effect at once, and the client is free when the reply has arrived.
        """
        pool = self.pool()
        cancelled, answer = pool.get(b"a"), pool.get(b"b")
        line = self.accept()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.answer(line, b"A", b"B")
        self.assertEqual(self.successResultOf(answer), (0, b"B"))

    def test_B12(self) -> None:
        """
        Thousands of waiting requests with immediate results are served without recursion.
        """

        class Quick(PooledMemCacheProtocol):
            def get(self, key: bytes, withIdentifier: bool = False) -> Any:
                return key

        class QuickFactory(PooledClientFactory):
            protocol = Quick

        pool = self.pool(clientFactory=QuickFactory)
        answers = [pool.get(b"%d" % number) for number in range(3000)]
        self.accept()
        self.assertEqual([self.successResultOf(each) for each in answers], [b"%d" % number for number in range(3000)])

    def stop(self) -> list[Any]:
        """
        Stop the reactor.

        @return: the results of the shutdown triggers.
        """
        return [f(*args, **kwargs) for f, args, kwargs in self.reactor.triggers["before"]["shutdown"]]

    def test_B13(self) -> None:
        """
        When the reactor stops with a request in flight, the request ends or is given up after a time, and the pool is
        closed.
        """
        pool = self.pool()
        answer = pool.get(b"k")
        line = self.accept()
        (closed,) = self.stop()
        self.answer(line, b"v")
        self.turns()
        self.successResultOf(answer)
        self.successResultOf(closed)

    def test_B14(self) -> None:
        """
        Reports of clients of a closed pool have no effect.
        """
        pool = self.pool()
        answer = pool.get(b"k")
        line = self.accept()
        self.answer(line, b"v")
        self.successResultOf(answer)
        pool.close()
        for _ in range(2):
            pool.clientFree(self.client(line))
        self.turns()
        pool.clientFree(self.client(line))

    def test_B15(self) -> None:
        """
        A closed pool does not dial.
        """
        pool = self.pool()
        pool.close()
        self.failureResultOf(pool.get(b"k"), PoolClosed)
        self.turns()
        self.assertEqual(self.dials, [])

    def test_B16(self) -> None:
        """
        A client whose connection was lost is not used any more, whatever it reports.
        """
        pool = self.pool()
        answer = pool.get(b"a")
        line = self.accept()
        line.lose()
        self.quiet(answer)
        pool.clientFree(self.client(line))
        self.assertEqual((pool.stats.idle, pool.acquireNow()), (0, None))

    def test_B17(self) -> None:
        """
        A larger C{maxClients} serves waiting requests. A smaller one closes surplus connections.
        """
        pool = self.pool()
        answers = [pool.get(key) for key in (b"a", b"b")]
        first = self.accept()
        pool.suggestMaxClients(2)
        second = self.accept()
        self.assertEqual(second.received, b"get b\r\n")
        self.answer(first, b"A")
        self.answer(second, b"B")
        pool.suggestMaxClients(1)
        self.turns()
        self.assertEqual([line.connected for line in (first, second)].count(True), 1)
        self.quiet(*answers)

    def test_B18(self) -> None:
        """
        When all servers are down, all are dialed in turn.
        """
        pool = self.pool([ADDRESS, OTHER], whenDown=None)
        self.quiet(pool.get(b"k"))
        for _ in range(6):
            self.refuse()
            self.reactor.advance(1.5)
        hosts = [host for host, _ in self.dials]
        self.assertGreaterEqual(min(hosts.count("127.0.0.1"), hosts.count("127.0.0.2")), 3)

    def test_B19(self) -> None:
        """
        A pool without servers is an error at construction. C{serverAddresses} may be a tuple.
        """
        self.assertRaises(ValueError, MemCachePool, [], 1, self.reactor)
        self.assertEqual(len(self.pool((ADDRESS, OTHER)).servers), 2)

    def test_B20(self) -> None:
        """
        A failed dial to a UNIX socket is repeated.
        """
        pool = self.pool(UNIXAddress("/run/memcached.sock"), whenDown=None)
        self.quiet(pool.get(b"k"))
        self.turns()
        self.reactor.unixClients[0][1].clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.reactor.advance(1)
        self.turns()
        self.assertEqual(len(self.reactor.unixClients), 2)

    def test_B21(self) -> None:
        """
        A dial that raises an exception counts as failed. The caller gets no exception, and no request is forgotten.
        """
        pool = self.pool()

        def connectTCP(*args: Any, **kwargs: Any) -> Any:
            raise OSError("too many open files")

        self.patch(self.reactor, "connectTCP", connectTCP)
        answers = [pool.get(b"k") for _ in range(3)]
        for _ in range(10):
            self.reactor.advance(0.5)
        for answer in answers:
            self.failureResultOf(answer, ServerUnavailable)
        self.assertLessEqual(pool.stats.dialing, 1)

    def test_B22(self) -> None:
        """
        All times are those of the given reactor.
        """
        from twisted.internet import reactor

        pool = self.pool()
        before = len(reactor.getDelayedCalls())
        answer = pool.get(b"k")
        self.refuse()
        self.assertEqual(len(reactor.getDelayedCalls()), before)
        self.reactor.advance(1)
        self.accept()
        self.quiet(answer)

    def test_B23(self) -> None:
        """
        Internal methods are no commands.
        """
        pool = self.pool()
        for name in ("connectionLost", "_x", "__class__", "dataReceived", "makeConnection"):
            self.failureResultOf(pool.performRequest(name), NoSuchCommand)
        self.assertEqual(self.dials, [])

    def test_B24(self) -> None:
        """
        Connections that end while the pool closes do not disturb it.
        """
        pool = self.pool(maxClients=5, minClients=5)
        pool.start()
        for _ in range(5):
            line = self.accept()
            self.patch(line, "loseConnection", line.lose)
        self.turns()
        done = pool.close()
        self.successResultOf(done)
        self.assertEqual([line.connected for line in self.lines], [False] * 5)

    def test_B25(self) -> None:
        """
        At most C{maxWaiting} requests wait.
        """
        pool = self.pool(maxWaiting=10)
        answers = [pool.get(b"k") for _ in range(20)]
        for answer in answers[10:]:
            self.failureResultOf(answer, PoolFull)
        self.quiet(*answers)

    def test_B26(self) -> None:
        """
        Waiting, connecting and requests have timeouts.
        """
        pool = self.pool(waitTimeout=4.0, connectTimeout=1.0, requestTimeout=2.0, whenDown=None)
        answer = pool.get(b"k")
        self.turns()
        self.reactor.advance(1.1)
        self.assertEqual(pool.stats.dialFailures, 1)
        self.reactor.advance(3)
        self.assertEqual(self.failureResultOf(answer, PoolTimeout).value.phase, "wait")
        answer = pool.get(b"k")
        self.ended = len(self.dials) - 1
        self.accept()
        self.reactor.advance(2)
        self.assertEqual(self.failureResultOf(answer, PoolTimeout).value.phase, "request")

    def test_B27(self) -> None:
        """
        When the pool closes, waiting requests fail. They are not sent on a connection that is being closed.
        """
        pool = self.pool()
        answers = [pool.get(b"a"), pool.get(b"b")]
        line = self.accept()
        pool.close()
        self.failureResultOf(answers[1], PoolClosed)
        self.answer(line, b"A")
        self.turns()
        self.assertEqual(line.received, b"get a\r\n")

    def test_B28(self) -> None:
        """
        With C{forceShutdown}, requests in flight fail at once.
        """
        pool = self.pool(forceShutdown=True)
        answers = [pool.get(b"a"), pool.get(b"b")]
        self.accept()
        (closed,) = self.stop()
        self.turns()
        self.successResultOf(closed)
        for answer in answers:
            self.failureResultOf(answer)

    def test_B29(self) -> None:
        """
        A dial in progress is cancelled when the pool closes.
        """
        pool = self.pool()
        answer = pool.get(b"a")
        self.turns()
        self.successResultOf(pool.close())
        self.failureResultOf(answer, PoolClosed)
        (connector,) = self.reactor.connectors
        self.assertTrue(connector.stoppedConnecting)

    def test_B30(self) -> None:
        """
        A client that reports that it is free although it is not gets no second request.
        """
        pool = self.pool()
        answers = [pool.get(b"a"), pool.get(b"b")]
        line = self.accept()
        pool.clientFree(self.client(line))
        self.assertEqual(line.received, b"get a\r\n")
        self.answer(line, b"A", b"B")
        self.assertEqual([self.successResultOf(each) for each in answers], [(0, b"A"), (0, b"B")])

    def test_B31(self) -> None:
        """
        When a client does not fail its requests after its connection was lost, the pool fails them.
        """

        class Careless(PooledMemCacheProtocol):
            def connectionLost(self, reason: Any = None) -> None:
                self.setTimeout(None)

        class CarelessFactory(PooledClientFactory):
            protocol = Careless

        pool = self.pool(clientFactory=CarelessFactory)
        answer = pool.get(b"a")
        self.accept().lose()
        self.failureResultOf(answer, ConnectionLostInFlight)

    def test_B32(self) -> None:
        """
        The client that became free last is used, so that the others can be closed when they are idle for long.
        """
        pool = self.pool(maxClients=2, idleTimeout=10.0)
        answers = [pool.get(b"a"), pool.get(b"b")]
        first, second = self.accept(), self.accept()
        self.answer(first, b"A")
        self.answer(second, b"B")
        for _ in range(12):
            answers.append(pool.get(b"c"))
            self.assertTrue(second.take().endswith(b"get c\r\n"))
            self.answer(second, b"C")
            self.reactor.advance(1)
        self.assertEqual((first.connected, second.connected), (False, True))

    def test_B33(self) -> None:
        """
        Reading the numbers of a pool has no effect.
        """
        pool = self.pool([ADDRESS, OTHER], maxClients=2)
        self.quiet(pool.get(b"a"), pool.get(b"b"))
        for _ in range(5):
            self.assertIn("0 of 2 connections busy", repr(pool))
            self.assertEqual((pool.stats.waiting, len(pool.servers)), (2, 2))
        self.turns()
        self.assertEqual([host for host, _ in self.dials], ["127.0.0.1", "127.0.0.2"])

    def test_B34(self) -> None:
        """
        The reactor keeps no reference to a pool that was not started, or is closed.
        """
        pool = MemCachePool(ADDRESS, 1, self.reactor)
        pool.close()
        ref = weakref.ref(pool)
        del pool
        gc.collect()
        self.assertIsNone(ref())
        self.assertEqual(self.reactor.triggers, {})

    def test_B35(self) -> None:
        """
        A server that keeps failing is dialed with growing delays, also if it accepts connections and closes them. When
        it is back, that is found without a request.
        """
        pool = self.pool(whenDown=1)
        self.quiet(pool.get(b"k"))
        for _ in range(5):
            self.quiet(pool.get(b"k"))
            self.accept().lose()
            self.reactor.advance(1.5)
        self.refuse()
        self.failureResultOf(pool.get(b"k"), ServerUnavailable)
        times: list[float] = []
        while len(times) < 3:
            before = len(self.dials)
            self.reactor.advance(0.1)
            self.turns()
            if len(self.dials) > before:
                times.append(self.reactor.seconds())
                self.refuse()
        self.assertGreaterEqual(times[2] - times[1], 0.7)
        self.reactor.advance(1.5)
        line = self.accept()
        answer = pool.get(b"k")
        self.answer(line, b"v")
        self.successResultOf(answer)

    def test_B36(self) -> None:
        """
        Twenty requests with invalid keys fail with twenty errors, and the pool keeps working.
        """
        pool = self.pool(maxClients=2)
        mistakes = [pool.get("a word") for _ in range(20)]
        answer = pool.get(b"k")
        line = self.accept()
        for mistake in mistakes:
            self.failureResultOf(mistake, ClientError)
        self.answer(line, b"v")
        self.successResultOf(answer)
