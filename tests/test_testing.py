# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.testing}.
"""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any
from unittest import TestResult

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectingCancelledError, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txconnpool import testing
from txconnpool.errors import PoolClosed, PoolTimeout, ServerUnavailable
from txconnpool.pool import Pool
from txconnpool.redis import RedisPool
from txconnpool.testing import FakeRedis, FakeServer, MemoryPool, MemoryRedisPool, SteppingClock, finish


class Client(Protocol):
    """
    Records its events.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append(reason.type)


class Greeter(LineReceiver):
    """
    A server that answers each line with a greeting.
    """

    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        self.sendLine(b"hello " + line)


class GreetingClient(LineReceiver):
    """
    A client of L{Greeter}.
    """

    delimiter = b"\n"
    greeting: Deferred[bytes]

    def greet(self, name: bytes) -> Deferred[bytes]:
        self.greeting = Deferred()
        self.sendLine(name)
        return self.greeting

    def lineReceived(self, line: bytes) -> None:
        self.greeting.callback(line)


class FakeServerTests(SynchronousTestCase):
    """
    Tests for L{FakeServer} and L{FakeConnection}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = FakeServer(self.clock, Factory.forProtocol(Greeter))

    def dial(self) -> Deferred[Any]:
        return self.server.connect(Factory.forProtocol(Client))

    def connect(self) -> Client:
        dialed = self.dial()
        self.clock.advance(0)
        client: Client = self.successResultOf(dialed)
        return client

    def exchange(self, client: Client, data: bytes) -> list[Any]:
        """
        Send bytes from a client.

        @return: the events of the client since the last call.
        """
        assert client.transport is not None
        client.transport.write(data)
        return self.happened(client)

    def happened(self, client: Client) -> list[Any]:
        """
        @return: the events of a client since the last call.
        """
        self.clock.advance(0)
        events, client.events = client.events, []
        return events

    def test_interface(self) -> None:
        """
        A server is an endpoint.
        """
        self.assertTrue(verifyObject(IStreamClientEndpoint, self.server))

    def test_answers(self) -> None:
        """
        The protocol of the server answers on each connection, and the bytes that it receives are recorded.
        """
        one, two = self.connect(), self.connect()
        self.assertEqual(self.exchange(one, b"one\ntw"), [b"hello one\n"])
        self.assertEqual(self.exchange(two, b"two\n"), [b"hello two\n"])
        self.assertEqual([each.received for each in self.server.connections], [b"one\ntw", b"two\n"])
        self.assertEqual(self.server.dials, 2)

    def test_memcached(self) -> None:
        """
        Without a factory the server is a memcached, and the test can inspect its store.
        """
        self.server = FakeServer(self.clock)
        client = self.connect()
        self.assertEqual(self.exchange(client, b"set k 0 0 1\r\nv\r\n"), [b"STORED\r\n"])
        item = self.server.store.peek(b"k")
        assert item is not None
        self.assertEqual(item.value, b"v")

    def test_silent(self) -> None:
        """
        With Twisted's C{Protocol} the server sends only what the test sends.
        """
        self.server = FakeServer(self.clock, Factory.forProtocol(Protocol))
        client = self.connect()
        self.assertEqual(self.exchange(client, b"one\n"), [])
        self.server.connections[0].send(b"two")
        self.assertEqual(self.happened(client), [b"two"])

    def test_refuse(self) -> None:
        """
        A server that refuses fails each dial with the given reason; its connections stay open.
        """
        client = self.connect()
        self.server.refuse()
        dialed = self.dial()
        self.assertNoResult(dialed)
        self.clock.advance(0)
        self.failureResultOf(dialed, ConnectionRefusedError)
        factory = Factory.forProtocol(Client)
        refused = self.server.connect(factory)
        self.assertEqual(factory.numPorts, 1)
        self.clock.advance(0)
        self.failureResultOf(refused)
        self.assertEqual(factory.numPorts, 0)
        self.server.refuse(OSError("no route"))
        dialed = self.dial()
        self.clock.advance(0)
        self.assertEqual(str(self.failureResultOf(dialed, OSError).value), "no route")
        self.assertEqual(self.exchange(client, b"me\n"), [b"hello me\n"])
        self.server.accept()
        self.connect()

    def test_hang(self) -> None:
        """
        A dial hangs until the server accepts or refuses, or until it is cancelled.
        """
        self.server.hang()
        dials = [self.dial(), self.dial()]
        self.clock.advance(1000)
        for dialed in dials:
            self.assertNoResult(dialed)
        dials[0].cancel()
        self.failureResultOf(dials[0], ConnectingCancelledError)
        self.server.accept()
        self.clock.advance(0)
        self.assertIsInstance(self.successResultOf(dials[1]), Client)
        self.assertEqual(len(self.server.connections), 1)
        self.server.hang()
        dials = [self.dial(), self.dial()]
        self.clock.advance(0)
        dials[0].cancel()
        self.server.refuse()
        self.failureResultOf(dials[0], ConnectingCancelledError)
        self.failureResultOf(dials[1], ConnectionRefusedError)

    def test_hold(self) -> None:
        """
        Bytes that were held back arrive when they are released, also in part.
        """
        client = self.connect()
        self.server.hold()
        other = self.connect()
        self.assertEqual(self.exchange(client, b"one\ntwo\n"), [])
        self.assertEqual(self.exchange(other, b"three\n"), [])
        self.server.release(7)
        self.assertEqual(self.happened(client), [b"hello o"])
        self.assertEqual(self.happened(other), [b"hello t"])
        self.assertEqual(self.exchange(client, b"four\n"), [])
        late = self.connect()
        self.assertEqual(self.exchange(late, b"me\n"), [])
        self.server.connections[0].release()
        self.assertEqual(self.happened(client), [b"ne\nhello two\nhello four\n"])
        self.assertEqual(self.exchange(client, b"five\n"), [b"hello five\n"])
        self.assertEqual(self.exchange(other, b""), [])
        self.server.release()
        self.assertEqual(self.happened(other), [b"hree\n"])
        self.assertEqual(self.exchange(self.connect(), b"six\n"), [b"hello six\n"])

    def test_holdTwice(self) -> None:
        """
        A second C{hold} loses nothing.
        """
        client = self.connect()
        self.server.hold()
        self.assertEqual(self.exchange(client, b"one\n"), [])
        self.server.hold()
        self.server.release()
        self.assertEqual(self.happened(client), [b"hello one\n"])

    def test_send(self) -> None:
        """
        Bytes sent by the test arrive before those held back.
        """
        client = self.connect()
        self.server.hold()
        self.exchange(client, b"one\n")
        self.server.connections[0].send(b"nonsense\n")
        self.assertEqual(self.happened(client), [b"nonsense\n"])

    def test_close(self) -> None:
        """
        Closing the connections delivers the bytes that were sent before.
        """
        clients = [self.connect(), self.connect()]
        self.server.connections[0].send(b"bye")
        self.server.close()
        self.assertEqual([self.happened(client) for client in clients], [[b"bye", ConnectionDone], [ConnectionDone]])
        self.assertEqual(self.server.connections, [])

    def test_reset(self) -> None:
        """
        Resetting the connections loses the bytes that were sent before.
        """
        clients = [self.connect(), self.connect()]
        self.server.connections[0].send(b"bye")
        self.server.reset()
        self.assertEqual([self.happened(client) for client in clients], [[ConnectionLost], [ConnectionLost]])
        self.assertEqual(self.server.connections, [])

    def test_one(self) -> None:
        """
        Each connection can be closed by itself.
        """
        clients = [self.connect(), self.connect(), self.connect()]
        self.server.connections[2].reset()
        self.server.connections[0].close()
        self.assertEqual([self.happened(client) for client in clients], [[ConnectionDone], [], [ConnectionLost]])
        self.assertEqual(len(self.server.connections), 1)

    def test_clientCloses(self) -> None:
        """
        A connection that the client closes is removed from the list.
        """
        client = self.connect()
        assert client.transport is not None
        client.transport.loseConnection()
        self.assertEqual(self.happened(client), [ConnectionDone])
        self.assertEqual(self.server.connections, [])

    def test_serverCloses(self) -> None:
        """
        The server's protocol can write several pieces and close the connection.
        """

        class Leaver(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.writeSequence([b"good", b"bye"])
                self.transport.loseConnection()

        self.server = FakeServer(self.clock, Factory.forProtocol(Leaver))
        client = self.connect()
        self.assertEqual(self.exchange(client, b"?"), [b"goodbye", ConnectionDone])

    def test_noProtocol(self) -> None:
        """
        A factory that builds no protocol is an error in the test.
        """

        class Nothing(Factory):
            def buildProtocol(self, addr: Any) -> None:
                return None

        self.server = FakeServer(self.clock, Nothing())
        self.dial()
        self.assertRaises(AssertionError, self.clock.advance, 0)


class MemoryPoolTests(SynchronousTestCase):
    """
    Tests for L{MemoryPool} and L{finish}.
    """

    def test_result(self) -> None:
        """
        C{result} returns the result of a call or of a coroutine without time passing.
        """

        async def twice(pool: MemoryPool) -> list[Any]:
            await pool.set("k", b"v")
            return [await pool.get("k"), await pool.get("k")]

        pool = MemoryPool()
        self.assertEqual(pool.result(twice(pool)), [(0, b"v")] * 2)
        self.assertEqual(pool.result(pool.get("x")), (0, None))
        self.assertEqual(pool.clock.seconds(), 0)
        finish(pool)

    def test_failure(self) -> None:
        """
        C{result} raises the exception of a failed call.
        """
        pool = MemoryPool()
        pool.server.refuse()
        self.assertRaises(ServerUnavailable, pool.result, pool.get("k"))
        pool.server.accept()
        pool.clock.advance(1)
        self.assertEqual(pool.result(pool.get("k")), (0, None))
        pool.server.stop()
        pool.flush()
        self.assertEqual(pool.server.connections, [])
        self.assertRaises(ServerUnavailable, pool.result, pool.get("k"))
        finish(pool)

    def test_late(self) -> None:
        """
        A request to a server that hangs or is frozen times out when so much time has passed, also if it was made in the
        same turn of the reactor.
        """
        for connected in (False, True):
            for fault in ("hang", "freeze"):
                pool = MemoryPool(requestTimeout=5, waitTimeout=5)
                if connected:
                    pool.result(pool.version())
                getattr(pool.server, fault)()
                answer = pool.get("k")
                if connected and fault == "hang":
                    self.assertEqual(pool.result(answer), (0, None))
                else:
                    pool.clock.advance(4.9)
                    self.assertNoResult(answer)
                    pool.clock.advance(0.1)
                    self.failureResultOf(answer, PoolTimeout)
                pool.server.accept()
                pool.server.release()
                finish(pool)

    def test_clock(self) -> None:
        """
        Time passes from event to event, and what follows from an event is due in its turn.
        """
        clock = SteppingClock()
        times: list[float] = []

        def again(delay: float) -> None:
            times.append(clock.seconds())
            if len(times) < 5:
                clock.callLater(delay, again, delay)

        clock.callLater(0, again, 1.5)
        clock.advance(4)
        self.assertEqual((times, clock.seconds()), ([0, 1.5, 3], 4))
        clock.advance(0.5)
        self.assertEqual((times, clock.seconds()), ([0, 1.5, 3, 4.5], 4.5))
        clock.callLater(0, again, 0)
        clock.advance(0)
        self.assertEqual(times[-1], 4.5)
        for call in clock.getDelayedCalls():
            call.cancel()
        clock.advance(1)
        self.assertEqual(clock.seconds(), 5.5)

    def test_noResult(self) -> None:
        """
        If there is no result yet, C{result} fails the test with a description of the pool.
        """
        pool = MemoryPool()
        pool.server.hold()
        error = self.assertRaises(AssertionError, pool.result, pool.get("k"))
        self.assertIn("MemoryPool", str(error))
        pool.server.release()
        pool.flush()
        finish(pool)

    def test_settings(self) -> None:
        """
        The pool accepts the settings of any pool, and the test makes time pass.
        """
        pool = MemoryPool(requestTimeout=3.0)
        pool.result(pool.version())
        pool.server.hold()
        answer = pool.get("k")
        pool.flush()
        pool.clock.advance(2.9)
        self.assertNoResult(answer)
        pool.clock.advance(0.1)
        self.failureResultOf(answer, PoolTimeout)
        finish(pool)

    def test_unused(self) -> None:
        """
        A pool that was not used leaves nothing, and may be finished twice.
        """
        pool = MemoryPool()
        finish(pool)
        finish(pool)

    def test_inFlight(self) -> None:
        """
        Requests in flight at the end fail the test, and are aborted.
        """
        pool = MemoryPool()
        pool.result(pool.version())
        pool.server.hold()
        answer = pool.set("k", b"v")
        pool.flush()
        error = self.assertRaises(AssertionError, finish, pool)
        self.assertIn("requests or leases are left: <MemoryPool", str(error))
        self.failureResultOf(answer)
        self.assertEqual(pool.clock.getDelayedCalls(), [])

    def test_waiting(self) -> None:
        """
        L{finish} fails for a request that waits for a connection too.
        """
        for sends in (True, False):
            pool = MemoryPool()
            pool.server.freeze()
            answer = pool.get("key")
            if sends:
                pool.flush()
            error = self.assertRaises(AssertionError, finish, pool)
            self.assertIn("requests or leases are left", str(error))
            self.failureResultOf(answer, PoolClosed)

    def test_sharedClock(self) -> None:
        """
        Several pools may share a clock. L{finish} closes them together, and fails if one of them has something left.
        """
        clock = SteppingClock()
        cache, store = MemoryPool(reactor=clock), MemoryRedisPool(reactor=clock)
        clock.result(store.set("key", "value"))

        async def copy() -> Any:
            await cache.set("key", await store.get("key") or b"")
            return await cache.get("key")

        for each in (clock, cache, store):
            self.assertEqual(each.result(copy()), (0, b"value"))
        finish(cache, store)
        cache, store = MemoryPool(reactor=clock), MemoryRedisPool(reactor=clock)
        cache.result(cache.version())
        store.server.freeze()
        answer = store.get("key")
        error = self.assertRaises(AssertionError, finish, cache, store)
        self.assertIn("MemoryRedisPool", str(error))
        self.assertNotIn("MemoryPool ", str(error))
        self.failureResultOf(answer, PoolClosed)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_clockResult(self) -> None:
        """
        L{SteppingClock.result} raises the error of a call, and fails if there is no result.
        """
        clock = SteppingClock()
        self.assertRaises(ZeroDivisionError, clock.result, fail(ZeroDivisionError()))
        self.assertIn("no result", str(self.assertRaises(AssertionError, clock.result, Deferred())))

    def test_borrowed(self) -> None:
        """
        A lease at the end fails the test.
        """
        pool = MemoryPool()
        pool.result(pool.acquire())
        error = self.assertRaises(AssertionError, finish, pool)
        self.assertIn("1 of 5 connections busy", str(error))

    def test_timers(self) -> None:
        """
        A timer of the program at the end fails the test.
        """
        pool = MemoryPool()
        call = pool.clock.callLater(1, lambda: None)
        error = self.assertRaises(AssertionError, finish, pool)
        self.assertIn("timers are left", str(error))
        call.cancel()
        finish(pool)

    def test_anyPool(self) -> None:
        """
        Any pool on a clock can be finished.
        """
        reactor = MemoryReactorClock()
        server = FakeServer(reactor, Factory.forProtocol(Greeter))
        pool: Pool[GreetingClient] = Pool(server, reactor=reactor, clientFactory=Factory.forProtocol(GreetingClient))
        answer = pool.performRequest("greet", b"world")
        reactor.advance(0)
        self.assertEqual(self.successResultOf(answer), b"hello world")
        finish(pool)
        self.assertEqual(server.connections, [])


class LossTests(SynchronousTestCase):
    """
    Tests for the loss of the only connection of a L{MemoryPool} or a L{MemoryRedisPool}, without time passing.
    """

    def test_dialedAgain(self) -> None:
        """
        After the server has replied to a request and closed the connection, the next request dials it again.
        """
        for end in ("reset", "close"):
            for pool in (MemoryPool(), MemoryRedisPool()):
                ask: Any = pool.version if isinstance(pool, MemoryPool) else pool.ping
                before = pool.result(ask())
                getattr(pool.server, end)()
                pool.flush()
                self.assertEqual(pool.result(ask()), before)
                self.assertEqual(pool.server.dials, 2)
                finish(pool)

    def test_coroutine(self) -> None:
        """
        A coroutine begins when the pool has noticed what the test has done to the server, so that a write, which is not
        sent twice, is not lost.
        """

        async def store(pool: MemoryRedisPool[bytes]) -> int:
            return await pool.rpush("k", "v")

        pool: MemoryRedisPool[bytes] = MemoryRedisPool()
        for number in (1, 2):
            self.assertEqual(pool.result(store(pool)), number)
            pool.server.reset()
        finish(pool)

    def test_neverServed(self) -> None:
        """
        A connection that is lost before the first reply to a request counts as a refused one, although the server took
        part in the handshake.
        """
        for pool in (MemoryPool(minClients=1), MemoryRedisPool(minClients=1)):
            pool.start()
            pool.flush()
            pool.server.reset()
            pool.flush()
            asked: Any = pool.version() if isinstance(pool, MemoryPool) else pool.ping()
            self.assertRaises(ServerUnavailable, pool.result, asked)
            self.assertEqual(pool.server.dials, 1)
            finish(pool)


class ItemsTests(SynchronousTestCase):
    """
    Tests for L{FakeServer.items} and L{FakeRedis.items}.
    """

    def test_memcached(self) -> None:
        """
        They are the values by key, until they expire.
        """
        pool = MemoryPool()
        pool.result(pool.set("k", b"v", expireTime=60))
        pool.result(pool.set("n", b"1"))
        self.assertEqual(pool.server.items, {b"k": b"v", b"n": b"1"})
        pool.clock.advance(60)
        self.assertEqual(pool.server.items, {b"n": b"1"})
        finish(pool)

    def test_redis(self) -> None:
        """
        The same with values of all types.
        """
        pool: MemoryRedisPool[bytes] = MemoryRedisPool()
        pool.result(pool.set("k", "v", ex=60))
        pool.result(pool.rpush("l", "a", "b"))
        self.assertEqual(pool.server.items, {b"k": b"v", b"l": [b"a", b"b"]})
        pool.clock.advance(60)
        self.assertEqual(pool.server.items, {b"l": [b"a", b"b"]})
        finish(pool)


class DocumentationTests(SynchronousTestCase):
    """
    The examples in the documentation work.
    """

    def blocks(self) -> list[str]:
        """
        @return: the examples in the module's docstring.
        """
        found = re.findall(r"::\n\n((?:    .*\n|\n)+)", testing.__doc__ or "")
        return [dedent(block) for block in found]

    def test_testCase(self) -> None:
        """
        The test case for a program that uses memcached passes.
        """
        names: dict[str, Any] = {}
        exec(self.blocks()[0], names)
        result = TestResult()
        cases = [names["VisitedTests"](name) for name in ("test_again", "test_lost")]
        for case in cases:
            case.run(result)
        self.assertEqual((result.testsRun, result.failures, result.errors), (2, [], []))

    def test_otherProtocols(self) -> None:
        """
        A pool of clients of another protocol works as shown.
        """

        class TextClient(GreetingClient):
            def greet(self, name: str) -> Deferred[bytes]:  # type: ignore[override]
                return super().greet(name.encode())

        names: dict[str, Any] = {
            "SteppingClock": SteppingClock,
            "FakeServer": FakeServer,
            "Factory": Factory,
            "Pool": Pool,
            "GreetingServer": Greeter,
            "GreetingClient": TextClient,
        }
        exec(self.blocks()[1], names)
        self.assertEqual(names["greeting"], b"hello world")
        finish(names["pool"])


class MemoryRedisPoolTests(SynchronousTestCase):
    """
    Tests for L{MemoryRedisPool} and L{FakeRedis}.
    """

    def setUp(self) -> None:
        self.pool = MemoryRedisPool()
        self.addCleanup(finish, self.pool)

    def test_expiry(self) -> None:
        """
        Time passes on the clock of the test, for the server too.
        """
        self.pool.result(self.pool.set("k", "v", ex=60))
        self.pool.clock.advance(59)
        self.assertEqual(self.pool.result(self.pool.get("k")), b"v")
        self.pool.clock.advance(1)
        self.assertIsNone(self.pool.result(self.pool.get("k")))

    def test_faults(self) -> None:
        """
        The server refuses, hangs and stops as any L{FakeServer} does.
        """
        self.pool.server.hang()
        answer = self.pool.get("k")
        self.pool.clock.advance(5)
        self.failureResultOf(answer, PoolTimeout)
        self.pool.server.refuse()
        self.pool.flush()
        self.assertRaises(ServerUnavailable, self.pool.result, self.pool.get("k"))
        self.pool.server.accept()
        self.pool.clock.advance(2)
        self.assertTrue(self.pool.result(self.pool.ping()))
        self.pool.server.stop()
        self.assertRaises(ServerUnavailable, self.pool.result, self.pool.get("k"))

    def test_login(self) -> None:
        """
        A server with a password refuses a pool without one.
        """
        self.pool.server.data.passwords["default"] = "secret"
        self.assertRaises(ServerUnavailable, self.pool.result, self.pool.get("k"))
        pool = MemoryRedisPool(login="secret", decode="utf-8", protocol=2, database=3)
        pool.server.data.passwords["default"] = "secret"
        pool.result(pool.set("k", "v"))
        self.assertEqual(pool.result(pool.get("k")), "v")
        self.assertEqual(pool.server.data.databases[3].items, {b"k": b"v"})
        finish(pool)

    def test_shared(self) -> None:
        """
        Several pools may have one server: a lock of one is not that of the other.
        """
        clock = SteppingClock()
        server = FakeRedis(clock)
        one, two = (RedisPool(server, reactor=clock) for _ in range(2))

        async def both() -> bool:
            async with one.lock("l"):
                return await two.lock("l", blocking_timeout=0).acquire()

        answer = Deferred.fromCoroutine(both())
        clock.advance(0)
        self.assertFalse(self.successResultOf(answer))
        two.close()
        finish(one)
