# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.memcache.pool}.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.memcache.cases import HELLO, EmbeddedTestCase, MemCacheTestCase
from txconnpool.errors import ConnectionLostInFlight, PoolClosed, PoolError, ServerUnavailable
from txconnpool.memcache import InvalidArgument, MemCachePool, NoSuchCommand, probe
from txconnpool.testing import FakeServer, MemoryPool, finish
from txconnpool.wire.memcache.replies import GET


class CheckTests(EmbeddedTestCase):
    """
    The option C{check}.
    """

    settings = {"check": probe, "checkIfIdleFor": 10.0, "maxClients": 1}

    def test_idle(self) -> None:
        """
        A connection that was unused for a while is asked for the version before it is used.
        """
        self.connect()
        self.assertEqual(self.pool.result(self.pool.get("a")), (0, None))
        self.assertEqual(self.connection.received, b"get a\r\n")
        self.pool.clock.advance(10)
        self.assertIs(self.pool.result(self.pool.delete("a")), False)
        self.assertEqual(self.connection.received, b"get a\r\n" + HELLO + b"delete a\r\n")

    def test_dead(self) -> None:
        """
        A connection that does not answer the check carries no request, so not even a write is lost with it.
        """
        self.connect()
        self.pool.server.hold()
        self.pool.clock.advance(10)
        answer = self.pool.set("a", b"1")
        self.pool.flush()
        self.assertEqual(self.connection.received, HELLO)
        self.pool.server.holding = False
        self.pool.server.reset()
        self.pool.flush()
        self.pool.clock.advance(1)
        self.assertIs(self.successResultOf(answer), True)


class KeepAliveTests(EmbeddedTestCase):
    """
    The option C{keepAlive}, without a C{check}.
    """

    settings = {"keepAlive": 10.0, "maxClients": 1}

    def test_probes(self) -> None:
        """
        An idle connection is asked for the version at this interval. It is not checked before it is used.
        """
        self.connect()
        self.pool.clock.advance(10)
        self.pool.flush()
        self.assertEqual(self.connection.received, HELLO)
        self.pool.clock.advance(9)
        self.assertIs(self.pool.result(self.pool.delete("a")), False)
        self.assertEqual(self.connection.received, HELLO + b"delete a\r\n")


class LifeTests(EmbeddedTestCase):
    """
    How a pool starts and closes.
    """

    def test_nothing(self) -> None:
        """
        Constructing a pool does no I/O and starts no timer.
        """
        self.pool.flush()
        self.assertEqual((self.pool.server.dials, self.pool.clock.getDelayedCalls()), (0, []))

    def test_closeInTheSameTurn(self) -> None:
        """
        Calls before C{close} are answered if there is a connection.
        """
        self.connect()
        get, put = self.pool.get("a"), self.pool.set("a", b"1")
        closed = self.pool.close()
        self.assertNotIn("_flush", repr(self.pool.clock.getDelayedCalls()))
        self.pool.flush()
        self.assertEqual((self.successResultOf(put), type(self.successResultOf(get))), (True, tuple))
        self.successResultOf(closed)

    def test_closeBeforeConnected(self) -> None:
        """
        Calls before C{close} fail if there is no connection yet.
        """
        answers: list[Deferred[Any]] = [self.pool.get("a"), self.pool.set("a", b"1"), self.pool.getMultiple([*"ab"])]
        closed = self.pool.close()
        for answer in answers:
            self.failureResultOf(answer, PoolClosed)
        self.pool.flush()
        self.successResultOf(closed)

    def test_closed(self) -> None:
        """
        All calls of a closed pool fail, and start no timer.
        """
        self.connect()
        self.pool.result(self.pool.close())
        answers: list[Deferred[Any]] = [self.pool.get("a"), self.pool.set("a", b"1"), self.pool.getMultiple([*"ab"])]
        answers += [self.pool.version(), self.pool.flushAll(), self.pool.getAndTouch("a", 1)]
        for answer in answers:
            self.failureResultOf(answer, PoolClosed)
        self.assertEqual(self.pool.clock.getDelayedCalls(), [])

    def test_closeFromACallback(self) -> None:
        """
        A pool may be closed from the callback of a call; the other calls of that request are answered.
        """
        self.connect()
        first = self.pool.get("a").addCallback(lambda _: self.pool.close())
        others = [self.pool.get("b"), self.pool.get("c").addCallback(lambda _: self.pool.get("d"))]
        self.pool.flush()
        self.successResultOf(first)
        self.assertEqual(self.successResultOf(others[0]), (0, None))
        self.failureResultOf(others[1], PoolClosed)

    def test_abort(self) -> None:
        """
        C{abort} fails all requests in flight, also reads.
        """
        self.connect()
        self.pool.server.hold()
        answers: list[Deferred[Any]] = [self.pool.get("a"), self.pool.set("a", b"1")]
        self.pool.flush()
        aborted = self.pool.abort()
        self.pool.flush()
        self.successResultOf(aborted)
        for answer in answers:
            self.failureResultOf(answer, PoolError)

    def test_borrow(self) -> None:
        """
        A connection may be borrowed; meanwhile other calls use another one.
        """

        async def use() -> list[Any]:
            async with self.pool.connection() as mine:
                other = self.pool.set("a", b"1")
                answer = await mine.ask(GET, b"get a\r\n")
                return [answer, await other, len(self.pool.server.connections)]

        self.assertEqual(self.pool.result(use()), [b"END\r\n", True, 2])
        self.assertEqual(self.pool.stats.busy, 0)

    @covers("8")
    def test_manyCalls(self) -> None:
        """
        Ten thousand concurrent calls are answered, each with its own result.
        """
        puts = [self.pool.set(f"k{number}", b"%d" % number) for number in range(5000)]
        self.pool.result(gatherResults(puts))
        gets = [self.pool.get(f"k{number}") for number in range(5000)]
        answers = self.pool.result(gatherResults(gets))
        self.assertEqual(answers, [(0, b"%d" % number) for number in range(5000)])
        self.assertEqual((self.pool.stats.inFlight, self.pool.stats.waiting), (0, 0))


class PerformRequestTests(EmbeddedTestCase):
    """
    C{performRequest}, by which users of 0.1.2 call commands.
    """

    def test_byName(self) -> None:
        """
        Every command can be called by its name.
        """
        perform = self.pool.performRequest
        self.assertEqual(self.pool.result(perform("set", "n", b"1", flags=5)), True)
        self.assertEqual(self.pool.result(perform("get", "n")), (5, b"1"))
        self.assertEqual(self.pool.result(perform("increment", "n", 4)), 5)
        self.assertEqual(self.pool.result(perform("getMultiple", ["n"])), {"n": (5, b"5")})
        self.assertEqual(self.pool.result(perform("stats"))[b"curr_items"], b"1")
        for name, arguments in (
            ("gets", ["n"]),
            ("getAndTouch", ["n", 0]),
            ("add", ["n", b""]),
            ("replace", ["n", b""]),
            ("append", ["n", b""]),
            ("prepend", ["n", b""]),
            ("checkAndSet", ["n", b"", b"1"]),
            ("touch", ["n", 0]),
            ("delete", ["n"]),
            ("decrement", ["n"]),
            ("flushAll", []),
            ("version", []),
        ):
            self.pool.result(perform(name, *arguments))

    def test_noCommand(self) -> None:
        """
        Other methods cannot be called.
        """
        for name in ("close", "_flush", "take", "nonsense", "dataReceived", "__init__"):
            self.failureResultOf(self.pool.performRequest(name), NoSuchCommand)

    def test_arguments(self) -> None:
        """
        Invalid arguments fail the result.
        """
        self.failureResultOf(self.pool.performRequest("get"), TypeError)
        self.failureResultOf(self.pool.performRequest("get", b"a b"), InvalidArgument)

    def test_allowed(self) -> None:
        """
        C{allowedCommands} limits the commands.
        """
        pool = MemoryPool(allowedCommands=["get"])
        self.addCleanup(finish, pool)
        self.failureResultOf(pool.performRequest("set", "a", b""), NoSuchCommand)
        self.assertEqual(pool.result(pool.performRequest("get", "a")), (0, None))

    def test_subclass(self) -> None:
        """
        A subclass may implement its methods by C{performRequest}, as with 0.1.2.
        """

        class Counting(MemoryPool):
            def get(self, *args: Any, **kwargs: Any) -> Deferred[Any]:
                return self.performRequest("get", *args, **kwargs).addCallback(lambda answer: answer[-1])

            def increment(self, *args: Any, **kwargs: Any) -> Deferred[Any]:
                return self.performRequest("increment", *args, **kwargs)

        pool = Counting()
        self.addCleanup(finish, pool)
        pool.result(pool.set("n", b"1"))
        self.assertEqual(pool.result(pool.increment("n")), 2)
        self.assertEqual(pool.result(pool.get("n")), b"2")
        self.assertEqual(pool.result(pool.gets("n"))[2], b"2")


class EqualServersTests(MemCacheTestCase):
    """
    A pool with two equal servers.
    """

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.servers = [FakeServer(self.clock), FakeServer(self.clock)]
        self.pool = MemCachePool(self.servers, 4, self.clock, minClients=2, reuse="fifo", distribution="round-robin")
        self.addCleanup(finish, self.pool)
        self.pool.start()
        self.clock.advance(0)

    def test_rotation(self) -> None:
        """
        Requests are distributed among the servers.
        """
        for _ in range(4):
            self.pool.delete("k")
            self.clock.advance(0)
        for server in self.servers:
            self.assertEqual(sum(each.received.count(b"delete k\r\n") for each in server.connections), 2)

    def test_flushAll(self) -> None:
        """
        C{flushAll} is sent to all servers.
        """
        for server in self.servers:
            pool = MemCachePool(server, 1, self.clock)
            pool.set("k", b"v")
            self.clock.advance(0)
            pool.close()
            self.clock.advance(0)
            self.assertIsNotNone(server.store.peek(b"k"))
        answer = self.pool.flushAll()
        self.clock.advance(0)
        self.assertIs(self.successResultOf(answer), True)
        self.assertEqual([server.store.peek(b"k") for server in self.servers], [None, None])

    def test_flushAllAtFirst(self) -> None:
        """
        C{flushAll} connects to all servers first.
        """
        pool = MemCachePool(self.servers, 2, self.clock, distribution="round-robin")
        answer = pool.flushAll()
        self.clock.advance(0)
        self.assertIs(self.successResultOf(answer), True)
        pool.close()
        self.clock.advance(0)

    def test_flushAllWithoutOne(self) -> None:
        """
        C{flushAll} deletes nothing if a server is down; the error names the server.
        """
        self.servers[1].refuse()
        self.servers[1].close()
        self.clock.advance(0)
        answer = self.pool.flushAll()
        self.clock.advance(5)
        error = self.failureResultOf(answer, PoolError).value
        self.assertIn("FakeServer", str(error))
        self.assertNotIn(b"flush_all", self.servers[0].connections[0].received)

    def test_flushAllWithoutAll(self) -> None:
        """
        C{flushAll} deletes nothing if there are enough connections, but none to one of the servers.
        """
        self.servers[1].refuse()
        self.servers[1].close()
        self.clock.advance(0)
        answers = [self.pool.delete("k") for _ in range(200)]
        self.clock.advance(0)
        self.results(answers)
        self.assertEqual(self.pool.stats.connections, 2)
        self.assertIn("FakeServer", str(self.failureResultOf(self.pool.flushAll(), ServerUnavailable).value))

    def test_flushAllLost(self) -> None:
        """
        C{flushAll} fails with the first failure of a server.
        """
        self.servers[0].hold()
        answer = self.pool.flushAll()
        self.clock.advance(0)
        self.servers[0].reset()
        self.clock.advance(0)
        self.failureResultOf(answer, ConnectionLostInFlight)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("get"), st.sampled_from("abcdef"), st.booleans()),
        st.tuples(st.just("getMultiple"), st.lists(st.sampled_from("abcdef"), min_size=1), st.booleans()),
        st.tuples(st.just("add"), st.sampled_from("abcdef")),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("release"), st.integers(0, 100)),
        st.tuples(st.just("reset"), st.integers(0, 3)),
        st.tuples(st.just("close"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["flush", "hold", "free", "refuse", "accept"])),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 3.0, 10.0])),
    ),
    max_size=60,
)


class SequenceTests(SynchronousTestCase):
    """
    Random sequences of events.
    """

    @given(STEPS, st.integers(1, 3), st.sampled_from([1, 2, 64]))
    @settings(deadline=None, max_examples=200)
    def test_anySequence(self, steps: list[tuple[Any, ...]], connections: int, batchSize: int) -> None:
        """
        In any sequence of calls, cancellations, lost connections, partial replies and delays, each call ends once: with
        the value of its own key, with an error of the pool, or cancelled.
        """
        pool = MemoryPool(maxClients=connections, batchSize=batchSize, pipelineDepth=4)
        server = pool.server
        for key in "abcdef":
            pool.result(pool.set(key, key.encode() * 3))
        calls: list[Deferred[Any]] = []
        ends: list[list[Any]] = []

        def check(result: Any, keys: list[str] | None, unique: bool) -> None:
            if keys is None:
                self.assertIs(result, False)
                return
            for key, value in result.items():
                self.assertEqual(
                    (key in keys, value[0], value[-1], len(value)), (True, 0, key.encode() * 3, 2 + unique)
                )
            self.assertEqual(set(result), set(keys))

        def byKey(value: Any, key: str) -> dict[str, Any]:
            return {key: value}

        def begin(answer: Deferred[Any], keys: list[str] | None, unique: bool = False) -> None:
            mine: list[Any] = []
            calls.append(answer)
            ends.append(mine)
            answer.addCallback(check, keys, unique)
            answer.addErrback(lambda failure: failure.trap(PoolError, CancelledError) and None)
            answer.addBoth(mine.append)

        for name, *arguments in steps:
            if name == "get":
                key, unique = arguments
                begin(pool.get(key, unique).addCallback(byKey, key), [key], unique)
            elif name == "getMultiple":
                begin(pool.getMultiple(*arguments), *arguments)
            elif name == "add":
                begin(pool.add(arguments[0], b"wrong"), None)
            elif name == "cancel" and calls:
                calls[arguments[0] % len(calls)].cancel()
            elif name in ("release", "reset", "close") and server.connections:
                connection = server.connections[arguments[0] % len(server.connections)]
                connection.release(arguments[0]) if name == "release" else getattr(connection, name)()
            elif name == "free":
                server.release()
            elif name in ("hold", "refuse", "accept"):
                getattr(server, name)()
            pool.clock.advance(arguments[0] if name == "wait" else 0) if name in ("flush", "wait") else None
        server.accept()
        server.release()
        pool.clock.pump([0.1] * 100)
        self.assertEqual(ends, [[None]] * len(calls))
        finish(pool)
