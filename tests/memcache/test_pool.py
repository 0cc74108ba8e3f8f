# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.memcache.pool}, against the embedded memcached and against servers that say what a test wants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.memcache import ClientError, MemCacheProtocol, ServerError
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from txconnpool import errors
from txconnpool.errors import ConnectionLostInFlight, PoolClosed, PoolError, PoolTimeout, ServerUnavailable
from txconnpool.memcache.memory import MemoryEndpoint
from txconnpool.memcache.pool import InvalidArgument, MemCachePool, NoSuchCommand, probe
from txconnpool.pool.state import FLAP
from txconnpool.testing import FakeConnection, FakeServer, MemoryPool, finish
from txconnpool.wire.memcache.replies import GET

HELLO = b"version\r\n"


class Case(SynchronousTestCase):
    """
    What is common to all tests.
    """

    def results(self, answers: Sequence[Deferred[Any]]) -> list[Any]:
        """
        The results of calls, each of which has one.
        """
        return [self.successResultOf(answer) for answer in answers]


class MemCachePoolTests(Case):
    """
    What is common to the tests of a pool with an embedded memcached.
    """

    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        """
        Make a pool.
        """
        self.pool = MemoryPool(**self.settings)
        self.addCleanup(finish, self.pool)

    @property
    def connection(self) -> FakeConnection:
        """
        The only connection.
        """
        (connection,) = self.pool.server.connections
        return connection

    def connect(self) -> None:
        """
        Have one connection, and forget what was said on it.
        """
        self.pool.result(self.pool.version())
        self.connection.received = b""

    def store(self, **values: bytes) -> None:
        """
        Store values, and forget what was said.
        """
        for key, value in values.items():
            self.pool.result(self.pool.set(key, value))
        self.connection.received = b""


class CommandTests(MemCachePoolTests):
    """
    What each command sends and answers.
    """

    def assertSends(self, data: bytes, answer: Deferred[Any], result: object) -> None:
        """
        A call sends these bytes, and has this result.
        """
        self.assertEqual(self.pool.result(answer), result)
        self.assertEqual(self.connection.received, data)
        self.connection.received = b""

    def setUp(self) -> None:
        """
        Have a connection and two values.
        """
        super().setUp()
        self.connect()
        self.store(k=b"v", n=b"41")

    def test_get(self) -> None:
        """
        C{get} gives flags and value.
        """
        self.pool.result(self.pool.set(b"f", b"\r\nEND\r\n", 7))
        self.connection.received = b""
        self.assertSends(b"get f\r\n", self.pool.get(b"f"), (7, b"\r\nEND\r\n"))
        self.assertSends(b"get k\r\n", self.pool.get("k"), (0, b"v"))

    def test_getMiss(self) -> None:
        """
        What there is not has no flags and the value C{None}.
        """
        self.assertSends(b"get x\r\n", self.pool.get("x"), (0, None))
        self.assertSends(b"gets x\r\n", self.pool.get("x", True), (0, b"", None))

    def test_getWithIdentifier(self) -> None:
        """
        C{get} gives the identifier too if that is wanted, as bytes.
        """
        self.assertSends(b"gets k\r\n", self.pool.get("k", withIdentifier=True), (0, b"1", b"v"))
        self.assertSends(b"gets n\r\n", self.pool.gets("n"), (0, b"2", b"41"))

    def test_text(self) -> None:
        """
        A key may be text: its UTF-8 is sent.
        """
        self.assertSends("set schlüssel 0 0 1\r\n1\r\n".encode(), self.pool.set("schlüssel", b"1"), True)
        self.assertSends("get schlüssel\r\n".encode(), self.pool.get("schlüssel"), (0, b"1"))

    def test_getMultiple(self) -> None:
        """
        C{getMultiple} gives what C{get} gives, by the keys in the order and of the types in which they were given.
        """
        answer = self.pool.result(self.pool.getMultiple(["n", b"x", b"k", "k", "n"]))
        self.assertEqual(
            list(answer.items()), [("n", (0, b"41")), (b"x", (0, None)), (b"k", (0, b"v")), ("k", (0, b"v"))]
        )
        self.assertEqual(self.connection.received, b"get n x k\r\n")

    def test_getMultipleWithIdentifier(self) -> None:
        """
        C{getMultiple} gives the identifiers too if that is wanted.
        """
        answer = self.pool.getMultiple(["k", "x"], True)
        self.assertSends(b"gets k x\r\n", answer, {"k": (0, b"1", b"v"), "x": (0, b"", None)})

    def test_getMultipleOfNone(self) -> None:
        """
        No keys have no values, and nobody is asked.
        """
        self.assertEqual(self.successResultOf(self.pool.getMultiple([])), {})
        self.pool.flush()
        self.assertEqual(self.connection.received, b"")

    def test_getMultipleOfMany(self) -> None:
        """
        More keys than fit in one request are asked for in several.
        """
        names = [f"key{number}" for number in range(150)]
        self.store(key3=b"3", key149=b"149")
        answer = self.pool.result(self.pool.getMultiple(iter(names)))
        self.assertEqual(list(answer), names)
        self.assertEqual((answer["key3"], answer["key149"], answer["key0"]), ((0, b"3"), (0, b"149"), (0, None)))
        received = b"".join(connection.received for connection in self.pool.server.connections)
        counts = sorted(line.count(b" ") for line in received.splitlines() if line.startswith(b"get "))
        self.assertEqual(counts, [22, 64, 64])

    def test_getAndTouch(self) -> None:
        """
        C{getAndTouch} gives the value and lets it expire at another time.
        """
        self.assertSends(b"gat 10 k\r\n", self.pool.getAndTouch("k", 10), (0, b"v"))
        self.assertSends(b"gats 20 k\r\n", self.pool.getAndTouch("k", 20, True), (0, b"1", b"v"))
        self.assertSends(b"gats 20 x\r\n", self.pool.getAndTouch("x", 20, True), (0, b"", None))
        self.pool.clock.advance(19)
        self.assertEqual(self.pool.result(self.pool.get("k")), (0, b"v"))
        self.pool.clock.advance(1)
        self.assertEqual(self.pool.result(self.pool.get("k")), (0, None))

    def test_set(self) -> None:
        """
        C{set} stores, whether there was a value or not, with flags and an expiry time.
        """
        self.assertSends(b"set k 3 60 2\r\nvv\r\n", self.pool.set("k", b"vv", 3, 60), True)
        self.assertSends(b"set e 4294967295 -1 0\r\n\r\n", self.pool.set("e", b"", (1 << 32) - 1, -1), True)

    def test_add(self) -> None:
        """
        C{add} stores what there was not.
        """
        self.assertSends(b"add k 0 0 1\r\n1\r\n", self.pool.add("k", b"1"), False)
        self.assertSends(b"add a 1 2 1\r\n1\r\n", self.pool.add("a", b"1", flags=1, expireTime=2), True)

    def test_replace(self) -> None:
        """
        C{replace} stores what there was.
        """
        self.assertSends(b"replace k 1 2 1\r\n1\r\n", self.pool.replace("k", b"1", flags=1, expireTime=2), True)
        self.assertSends(b"replace r 0 0 1\r\n1\r\n", self.pool.replace("r", b"1"), False)

    def test_appendAndPrepend(self) -> None:
        """
        C{append} and C{prepend} add to what there was.
        """
        self.assertSends(b"append k 0 0 1\r\n>\r\n", self.pool.append("k", b">"), True)
        self.assertSends(b"prepend k 0 0 1\r\n<\r\n", self.pool.prepend("k", b"<"), True)
        self.assertSends(b"get k\r\n", self.pool.get("k"), (0, b"<v>"))
        self.assertSends(b"append x 0 0 1\r\n>\r\n", self.pool.append("x", b">"), False)
        self.assertSends(b"prepend x 0 0 1\r\n<\r\n", self.pool.prepend("x", b"<"), False)

    def test_checkAndSet(self) -> None:
        """
        C{checkAndSet} stores what nobody has changed since.
        """
        self.assertSends(b"cas k 1 2 1 1\r\nw\r\n", self.pool.checkAndSet("k", b"w", b"1", 1, 2), True)
        self.assertSends(b"cas k 0 0 1 1\r\nw\r\n", self.pool.checkAndSet("k", b"w", b"1"), False)
        self.assertSends(b"cas x 0 0 1 1\r\nw\r\n", self.pool.checkAndSet("x", b"w", b"1"), False)

    def test_incrementAndDecrement(self) -> None:
        """
        C{increment} and C{decrement} give the new number, or C{False}.
        """
        self.assertSends(b"incr n 1\r\n", self.pool.increment("n"), 42)
        self.assertSends(b"incr n 58\r\n", self.pool.increment("n", 58), 100)
        self.assertSends(b"decr n 1\r\n", self.pool.decrement("n"), 99)
        self.assertSends(b"decr n 90\r\n", self.pool.decrement("n", 90), 9)
        self.assertIs(self.pool.result(self.pool.increment("x")), False)
        self.assertIs(self.pool.result(self.pool.decrement("x")), False)
        zero = self.pool.result(self.pool.decrement("n", 10))
        self.assertEqual((zero, type(zero)), (0, int))

    def test_touch(self) -> None:
        """
        C{touch} lets a value expire at another time.
        """
        self.assertSends(b"touch k 5\r\n", self.pool.touch("k", 5), True)
        self.assertSends(b"touch x 5\r\n", self.pool.touch("x", 5), False)
        self.pool.clock.advance(5)
        self.assertSends(b"get k\r\n", self.pool.get("k"), (0, None))

    def test_delete(self) -> None:
        """
        C{delete} says whether there was something.
        """
        self.assertSends(b"delete k\r\n", self.pool.delete("k"), True)
        self.assertSends(b"delete k\r\n", self.pool.delete("k"), False)

    def test_flushAll(self) -> None:
        """
        C{flushAll} deletes everything.
        """
        self.assertSends(b"flush_all\r\n", self.pool.flushAll(), True)
        self.assertEqual(self.pool.result(self.pool.getMultiple(["k", "n"])), {"k": (0, None), "n": (0, None)})

    def test_version(self) -> None:
        """
        C{version} gives what the server says, as bytes.
        """
        self.assertSends(b"version\r\n", self.pool.version(), b"1.6.18-txconnpool")

    def test_stats(self) -> None:
        """
        C{stats}, called, gives the numbers of the server; not called, those of the pool.
        """
        answer = self.pool.result(self.pool.stats())
        self.assertEqual((answer[b"curr_items"], answer[b"version"]), (b"2", b"1.6.18-txconnpool"))
        self.assertEqual(self.connection.received, b"stats\r\n")
        self.assertEqual((self.pool.stats.connections, self.pool.stats.inFlight), (1, 0))
        self.assertEqual(self.pool.stats, self.pool.stats)
        self.assertNotIn("_pool", repr(self.pool.stats))

    def test_statsOfAKind(self) -> None:
        """
        C{stats} may be asked for in the words of the server, and the server may answer in one word.
        """
        self.assertSends(b"stats reset\r\n", self.pool.stats("reset"), {})
        answer = self.pool.serverStats(b"detail on")
        self.pool.flush()
        self.assertEqual(self.connection.received, b"stats detail on\r\n")
        answer.addErrback(lambda failure: failure.trap(ClientError, ServerError, NoSuchCommand))

    def test_asMemCacheProtocol(self) -> None:
        """
        Every command of MemCacheProtocol has the same result from us, for hits and misses.
        """
        calls: list[tuple[Any, ...]] = [
            ("set", b"a", b"1"),
            ("set", b"a", b"2", 7, 100),
            ("add", b"a", b"3"),
            ("add", b"b", b"3", 1, 1),
            ("replace", b"b", b"4"),
            ("replace", b"c", b"4"),
            ("append", b"b", b"5"),
            ("append", b"c", b"5"),
            ("prepend", b"b", b"6"),
            ("prepend", b"c", b"6"),
            ("get", b"a"),
            ("get", b"c"),
            ("get", b"a", True),
            ("get", b"c", True),
            ("getMultiple", [b"a", b"b", b"c"]),
            ("getMultiple", [b"a", b"b", b"c"], True),
            ("checkAndSet", b"a", b"8", b"2"),
            ("checkAndSet", b"a", b"9", b"2"),
            ("checkAndSet", b"c", b"9", b"2", 1, 2),
            ("increment", b"a"),
            ("increment", b"a", 20),
            ("increment", b"c"),
            ("decrement", b"a"),
            ("decrement", b"a", 200),
            ("decrement", b"c"),
            ("delete", b"a"),
            ("delete", b"a"),
            ("version",),
            ("flushAll",),
            ("get", b"b"),
        ]
        pool = MemoryPool()
        self.addCleanup(finish, pool)
        clock = MemoryReactorClock()
        connecting = connectProtocol(MemoryEndpoint(clock), MemCacheProtocol())
        clock.advance(0)
        protocol = self.successResultOf(connecting)
        for name, *arguments in calls:
            theirs = getattr(protocol, name)(*arguments)
            clock.advance(0)
            ours = pool.result(getattr(pool, name)(*arguments))
            self.assertEqual((name, arguments, ours), (name, arguments, self.successResultOf(theirs)))
        theirs = protocol.stats()
        clock.advance(0)
        self.assertEqual(pool.result(pool.stats()).keys(), self.successResultOf(theirs).keys())
        protocol.transport.loseConnection()
        clock.advance(0)


class ArgumentTests(MemCachePoolTests):
    """
    What is wrong with an argument is told before anything is sent.
    """

    def assertInvalid(self, call: Callable[..., Deferred[Any]], *arguments: Any, tells: str, **more: Any) -> None:
        """
        A call fails at once, with an error that users of MemCacheProtocol expect, and says why.
        """
        error = self.failureResultOf(call(*arguments, **more), InvalidArgument).value
        self.assertIsInstance(error, ClientError)
        self.assertIsInstance(error, ValueError)
        self.assertIn(tells, str(error))
        self.pool.flush()
        self.assertEqual(self.pool.server.dials, 0)

    def test_keys(self) -> None:
        """
        Every command refuses what cannot be a key.
        """
        pool = self.pool
        calls: list[Callable[[Any], Deferred[Any]]] = [
            pool.get,
            pool.gets,
            lambda key: pool.getMultiple(["k", key]),
            lambda key: pool.getAndTouch(key, 1),
            lambda key: pool.set(key, b""),
            lambda key: pool.add(key, b""),
            lambda key: pool.replace(key, b""),
            lambda key: pool.append(key, b""),
            lambda key: pool.prepend(key, b""),
            lambda key: pool.checkAndSet(key, b"", b"1"),
            pool.increment,
            pool.decrement,
            lambda key: pool.touch(key, 1),
            pool.delete,
        ]
        for call in calls:
            for key in (b"", "", b"a b", b"a\r\nb", b"a\0", "a\x7f", b"k" * 251, "ü" * 126, "\ud800"):
                self.assertInvalid(call, key, tells="")
            self.assertInvalid(call, 5, tells="a key is str or bytes, not int")
            self.assertInvalid(call, None, tells="a key is str or bytes, not NoneType")
        self.assertInvalid(pool.get, "a b", tells="b'a b'")

    def test_longestKey(self) -> None:
        """
        A key may have 250 bytes, any but spaces and control characters.
        """
        key = b"!~\x80\xff" + b"k" * 246
        self.assertEqual(self.pool.result(self.pool.set(key, b"v")), True)
        self.assertEqual(self.pool.result(self.pool.get(key)), (0, b"v"))

    def test_values(self) -> None:
        """
        A value is bytes, and no more of them than the server takes.
        """
        for call in (self.pool.set, self.pool.add, self.pool.replace, self.pool.append, self.pool.prepend):
            self.assertInvalid(call, "k", "text", tells="a value is bytes, not str")
            self.assertInvalid(call, "k", 5, tells="a value is bytes, not int")
            self.assertInvalid(call, "k", b"x" * ((1 << 20) + 1), tells="1048577 bytes; at most 1048576 (maxItemSize)")

    def test_maxItemSize(self) -> None:
        """
        How large a value may be is a setting, to be that of the server.
        """
        pool = MemoryPool(maxItemSize=10)
        self.addCleanup(finish, pool)
        self.assertEqual(pool.result(pool.set("k", b"x" * 10)), True)
        self.failureResultOf(pool.set("k", b"x" * 11), InvalidArgument)

    @covers("7")
    def test_numbers(self) -> None:
        """
        Numbers are whole, and in the range that memcached knows.
        """
        pool = self.pool
        for flags in (-1, 1 << 32, "1", 1.0, None):
            self.assertInvalid(pool.set, "k", b"", flags, tells="flags is a whole number from 0 to 4294967295")
        for seconds in (-(1 << 31) - 1, 1 << 31, "1", 0.5):
            self.assertInvalid(pool.set, "k", b"", expireTime=seconds, tells="expireTime is a whole number from -21474")
            self.assertInvalid(pool.touch, "k", seconds, tells=repr(seconds))
            self.assertInvalid(pool.getAndTouch, "k", seconds, tells="expireTime")
        for count in (-1, 1 << 64, b"1"):
            self.assertInvalid(pool.increment, "k", count, tells="val is a whole number from 0 to 18446744073709551615")
            self.assertInvalid(pool.decrement, "k", count, tells="val")

    def test_identifiers(self) -> None:
        """
        An identifier is bytes of digits, of a number that memcached knows.
        """
        for cas in (b"", b"x", b"-1", b"1 2", 1, "1", None, b"18446744073709551616"):
            self.assertInvalid(self.pool.checkAndSet, "k", b"", cas, tells=f"not {cas!r}")
        answer = self.pool.checkAndSet("k", b"", b"18446744073709551615")
        self.assertIs(self.pool.result(answer), False)

    def test_kindsOfStats(self) -> None:
        """
        What kind of statistics is wanted is one line.
        """
        self.assertInvalid(self.pool.stats, b"a\0", tells="")
        self.assertInvalid(self.pool.stats, "items \x01", tells="")


class TogetherTests(MemCachePoolTests):
    """
    What is called in one turn of the reactor travels together.
    """

    def setUp(self) -> None:
        """
        Have a connection and some values.
        """
        super().setUp()
        self.connect()
        self.store(a=b"1", b=b"2", c=b"3")

    def test_oneRequest(self) -> None:
        """
        Gets of one turn are one request, and each has its own answer.
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
        A key that several want is asked for once, and each of them is told.
        """
        answers: list[Deferred[Any]] = [self.pool.get(key) for key in ("a", b"a", "b", "a")]
        answers.append(self.pool.getMultiple([b"a", "b"]))
        self.pool.flush()
        self.assertEqual(self.connection.received, b"get a b\r\n")
        one, two = (0, b"1"), (0, b"2")
        self.assertEqual(self.results(answers), [one, one, two, one, {b"a": one, "b": two}])

    def test_sameKeyForMany(self) -> None:
        """
        However many want the same key, each of them is told.
        """
        answers = [self.pool.get("a") for _ in range(5000)]
        answers[7].addErrback(lambda failure: failure.trap(CancelledError))
        answers[7].cancel()
        self.pool.flush()
        self.assertEqual(self.connection.received, b"get a\r\n")
        self.assertEqual(self.results(answers).count((0, b"1")), 4999)

    def test_identifiers(self) -> None:
        """
        Those who want identifiers travel together, without those who do not.
        """
        answers = [self.pool.get("a"), self.pool.gets("a"), self.pool.get("b"), self.pool.gets("b")]
        self.pool.flush()
        received = b"".join(connection.received for connection in self.pool.server.connections)
        self.assertIn(b"get a b\r\n", received)
        self.assertIn(b"gets a b\r\n", received)
        self.assertEqual(self.results(answers), [(0, b"1"), (0, b"1", b"1"), (0, b"2"), (0, b"2", b"2")])

    def test_full(self) -> None:
        """
        A request with as many keys as it may have goes at once, and the next get begins another one.
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
        All that is sent on a connection in one turn arrives in one piece.
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
        server.connections[0].say(b"STORED\r\nDELETED\r\n5\r\n")
        reactor.advance(0)
        self.assertEqual(self.results(answers), [True, True, 5])
        finish(pool)

    def test_fromACallback(self) -> None:
        """
        A get from the callback of a get is a request of the next turn.
        """
        answers = [self.pool.get(key).addCallback(lambda _: self.pool.get("c")) for key in ("a", "b")]
        self.pool.flush()
        self.assertEqual(self.connection.received, b"get a b\r\nget c\r\n")
        self.assertEqual(self.results(answers), [(0, b"3"), (0, b"3")])

    def test_noTimers(self) -> None:
        """
        A hundred requests take no more timers than one, neither to be sent nor in flight.
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


class ScriptTests(Case):
    """
    What is common to the tests with a server that says what the test wants.
    """

    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        """
        Make a pool and its server.
        """
        self.clock = MemoryReactorClock()
        self.server = FakeServer(self.clock, Factory.forProtocol(Protocol))
        self.pool = MemCachePool(self.server, 1, self.clock, configure=None, **self.settings)
        self.addCleanup(finish, self.pool)

    def flush(self) -> None:
        """
        Let everything happen that can happen without time passing.
        """
        self.clock.advance(0)

    def say(self, data: bytes) -> None:
        """
        Have the server say something on the only connection.
        """
        self.flush()
        (connection,) = self.server.connections
        connection.say(data)
        self.flush()

    def lose(self) -> None:
        """
        Lose all connections, which have lived for a while.
        """
        self.flush()
        self.clock.advance(FLAP)
        self.server.reset()
        self.flush()

    def hear(self) -> bytes:
        """
        What has come to the server on the only connection since the last time.
        """
        self.flush()
        (connection,) = self.server.connections
        received, connection.received = connection.received, b""
        return received


class ErrorTests(ScriptTests):
    """
    What the server refuses.
    """

    def test_errors(self) -> None:
        """
        The errors of the server are those of MemCacheProtocol, with the server's words.
        """
        calls: list[Callable[[], Deferred[Any]]] = [
            lambda: self.pool.get("k"),
            lambda: self.pool.gets("k"),
            lambda: self.pool.getMultiple("k"),
            lambda: self.pool.getAndTouch("k", 1),
            lambda: self.pool.increment("k"),
            lambda: self.pool.touch("k", 1),
            lambda: self.pool.delete("k"),
            self.pool.flushAll,
            self.pool.version,
            self.pool.stats,
        ]
        for call in calls:
            for line, kind, text in (
                (b"SERVER_ERROR out of memory\r\n", ServerError, "out of memory"),
                (b"CLIENT_ERROR bad \xff\r\n", ClientError, "bad \\xff"),
                (b"ERROR\r\n", NoSuchCommand, "the server does not know the command"),
            ):
                answer = call()
                self.say(line)
                self.assertEqual(str(self.failureResultOf(answer, kind).value), text)
        self.assertEqual(len(self.server.connections), 1)

    def test_storage(self) -> None:
        """
        That a value cannot be stored is an error of the server too.
        """
        for call in (self.pool.set, self.pool.add, self.pool.replace, self.pool.append, self.pool.prepend):
            answer = call("k", b"v")
            self.say(b"SERVER_ERROR object too large for cache\r\n")
            error = self.failureResultOf(answer, ServerError).value
            self.assertEqual(str(error), "object too large for cache")

    def test_allOfARequest(self) -> None:
        """
        An error is told to all whose keys were in the request.
        """
        answers = [self.pool.get("a"), self.pool.get("b"), self.pool.get("a"), self.pool.getMultiple("cd")]
        self.say(b"SERVER_ERROR out of memory\r\n")
        for answer in answers:
            self.failureResultOf(answer, ServerError)

    def test_notTheKey(self) -> None:
        """
        A server that gives the value of a key that was not asked for is hung up on: nobody gets that value.
        """
        answers = [self.pool.get("a"), self.pool.get("b")]
        self.flush()
        later = self.pool.delete("c")
        self.say(b"VALUE a 0 1\r\n1\r\nVALUE c 0 1\r\n3\r\nEND\r\n")
        self.assertEqual(self.successResultOf(answers[0]), (0, b"1"))
        self.failureResultOf(answers[1], ConnectionLostInFlight)
        self.failureResultOf(later, ConnectionLostInFlight)
        self.assertEqual((self.server.connections, self.pool.counters.violations), ([], 1))

    def test_notAReply(self) -> None:
        """
        A server that says what is no reply is hung up on.
        """
        answer = self.pool.set("a", b"1")
        self.say(b"DELETED\r\n")
        self.failureResultOf(answer, ConnectionLostInFlight)
        self.assertEqual((self.server.connections, self.pool.counters.violations), ([], 1))

    def test_handshake(self) -> None:
        """
        Without other wishes a connection is used when the server has told its version; one that has no room for us
        is not.
        """
        pool = MemCachePool(self.server, 1, self.clock, whenDown=1)
        answer = pool.get("k")
        self.assertEqual(self.hear(), HELLO)
        self.say(b"VERSION 1.6.18\r\n")
        self.assertEqual(self.hear(), b"get k\r\n")
        self.say(b"END\r\n")
        self.assertEqual(self.successResultOf(answer), (0, None))
        finish(pool)
        answer = pool.get("k")
        self.failureResultOf(answer, PoolClosed)
        pool = MemCachePool(self.server, 1, self.clock, whenDown=1)
        answer = pool.get("k")
        self.say(b"ERROR Too many open connections\r\n")
        self.failureResultOf(answer, ServerUnavailable)
        finish(pool)

    def test_pieces(self) -> None:
        """
        A reply may come in pieces of any size.
        """
        value = b"\r\nEND\r\nVALUE a 0 1\r\n"
        reply = b"VALUE a 1 1\r\nx\r\nVALUE b 2 %d\r\n%b\r\nEND\r\n" % (len(value), value)
        for size in (1, 2, 3, 10, 50):
            answer = self.pool.getMultiple("abc")
            for start in range(0, len(reply), size):
                self.assertNoResult(answer)
                self.say(reply[start : start + size])
            self.assertEqual(self.successResultOf(answer), {"a": (1, b"x"), "b": (2, value), "c": (0, None)})
            answers = self.pool.stats()
            for byte in b"STAT a 1 2\r\nSTAT b \r\nSTAT c\r\nEND\r\n":
                self.say(b"%c" % byte)
            self.assertEqual(self.successResultOf(answers), {b"a": b"1 2", b"b": b"", b"c": b""})


class CancelTests(ScriptTests):
    """
    A call may be cancelled at any time. What was not sent never is, and nobody gets another's reply.
    """

    def cancel(self, answer: Deferred[Any]) -> None:
        """
        Cancel a call.
        """
        answer.cancel()
        self.failureResultOf(answer, CancelledError)

    def test_getOfThisTurn(self) -> None:
        """
        A key is not asked for if nobody wants it any more when the turn ends.
        """
        kept, dropped = self.pool.get("a"), self.pool.get("b")
        both = [self.pool.get("c"), self.pool.get("c")]
        whole = self.pool.getMultiple("cde")
        self.cancel(dropped)
        self.cancel(both[0])
        self.cancel(whole)
        self.assertEqual(self.hear(), b"get a c\r\n")
        self.say(b"VALUE c 0 1\r\n3\r\nEND\r\n")
        self.assertEqual((self.successResultOf(kept), self.successResultOf(both[1])), ((0, None), (0, b"3")))

    def test_allOfThisTurn(self) -> None:
        """
        Nothing is asked if nobody wants anything any more, and the connection is as good as before.
        """
        self.pool.version()
        self.say(b"VERSION 1\r\n")
        self.hear()
        self.cancel(self.pool.get("a"))
        self.assertEqual(self.hear(), b"")
        self.assertEqual((self.pool.stats.idle, self.pool.stats.inFlight), (1, 0))
        answer = self.pool.get("b")
        self.assertEqual(self.hear(), b"get b\r\n")
        self.say(b"END\r\n")
        self.assertEqual(self.successResultOf(answer), (0, None))

    def test_idleAfterNothing(self) -> None:
        """
        A connection on which nothing was asked in the end ages like any other that nobody uses.
        """
        self.pool.version()
        self.say(b"VERSION 1\r\n")
        self.cancel(self.pool.get("a"))
        self.flush()
        self.clock.advance(600)
        self.flush()
        self.assertEqual(self.server.connections, [])

    def test_waiting(self) -> None:
        """
        A call that waits for a connection and is cancelled waits no more.
        """
        self.server.hang()
        answers: list[Deferred[Any]] = [self.pool.get("a"), self.pool.set("a", b"1"), self.pool.getMultiple("bc")]
        answers.append(self.pool.gets("d"))
        self.flush()
        self.assertEqual(self.pool.stats.waiting, 3)
        for left, answer in zip((3, 2, 1, 0), answers, strict=True):
            self.cancel(answer)
            self.assertEqual(self.pool.stats.waiting, left)
        self.server.accept()
        self.assertEqual(self.hear(), b"")

    @covers("4")
    def test_inFlight(self) -> None:
        """
        The reply to a call that was cancelled in flight is dropped; the next one gets its own.
        """
        calls: list[tuple[Callable[[], Deferred[Any]], bytes]] = [
            (lambda: self.pool.get("a"), b"VALUE a 0 1\r\n1\r\nEND\r\n"),
            (lambda: self.pool.getMultiple("ab"), b"VALUE a 0 1\r\n1\r\nEND\r\n"),
            (lambda: self.pool.get("a"), b"END\r\n"),
            (lambda: self.pool.get("a"), b"SERVER_ERROR\r\n"),
            (lambda: self.pool.increment("a"), b"2\r\n"),
            (lambda: self.pool.increment("a"), b"CLIENT_ERROR\r\n"),
            (self.pool.stats, b"STAT a 1\r\nEND\r\n"),
        ]
        for call, reply in calls:
            answer = call()
            self.flush()
            self.cancel(answer)
            after = self.pool.get("a")
            self.say(reply + b"VALUE a 0 1\r\n9\r\nEND\r\n")
            self.assertEqual(self.successResultOf(after), (0, b"9"))

    def test_lost(self) -> None:
        """
        What was cancelled in flight is not sent again when its connection is lost.
        """
        kept, dropped, whole = self.pool.get("a"), self.pool.get("b"), self.pool.getMultiple("cd")
        command = self.pool.version()
        self.flush()
        self.assertIn(b"get a b c d\r\n", self.hear())
        for answer in (dropped, whole, command):
            self.cancel(answer)
        self.lose()
        self.assertEqual(self.hear(), b"get a\r\n")
        self.say(b"END\r\n")
        self.assertEqual(self.successResultOf(kept), (0, None))

    @covers("6")
    def test_fromACallback(self) -> None:
        """
        The callback of one call may cancel another of the same request.
        """
        answers = [self.pool.get(key) for key in "abc"]
        failed: list[Any] = []
        answers[2].addErrback(lambda failure: failed.append(failure.value))
        answers[0].addCallback(lambda _: answers[2].cancel())
        self.say(b"VALUE a 0 1\r\n1\r\nVALUE c 0 1\r\n3\r\nEND\r\n")
        self.assertEqual(self.successResultOf(answers[1]), (0, None))
        self.assertEqual([type(each) for each in failed], [CancelledError])


class LossTests(ScriptTests):
    """
    What happens to calls when connections are lost, late or not to be had.
    """

    settings = {"whenDown": 1}

    def test_reads(self) -> None:
        """
        Reads are tried once more, on a new connection.
        """
        answers: list[Deferred[Any]] = [self.pool.getMultiple("ab"), self.pool.version(), self.pool.stats()]
        self.assertEqual(self.hear(), b"version\r\nstats\r\nget a b\r\n")
        self.server.connections[0].say(b"VERSION 1\r\nSTAT a 1\r\n")
        self.flush()
        self.lose()
        self.assertEqual(self.hear(), b"stats\r\nget a b\r\n")
        self.say(b"STAT b 1\r\nEND\r\nVALUE b 0 1\r\n2\r\nEND\r\n")
        self.assertEqual(self.results(answers), [{"a": (0, None), "b": (0, b"2")}, b"1", {b"b": b"1"}])
        self.assertEqual(self.pool.counters.retries, 2)

    @covers("14")
    def test_inTheMiddle(self) -> None:
        """
        What came of a reply that was cut is forgotten: all of it is asked for again.
        """
        answers = [self.pool.get("a"), self.pool.get("b")]
        self.say(b"VALUE a 0 1\r\n1\r\nVALUE b 0 9\r\n123")
        self.lose()
        self.assertEqual(self.hear(), b"get a b\r\n")
        self.say(b"VALUE b 0 1\r\n2\r\nEND\r\n")
        self.assertEqual(self.results(answers), [(0, None), (0, b"2")])

    def test_twice(self) -> None:
        """
        A read whose second connection is lost too fails.
        """
        answers = [self.pool.get("a"), self.pool.get("b"), self.pool.getMultiple("abc")]
        for _ in range(2):
            self.assertEqual(self.hear(), b"get a b c\r\n")
            self.lose()
        for answer in answers:
            self.failureResultOf(answer, ConnectionLostInFlight)

    def test_writes(self) -> None:
        """
        What changes something is never sent twice.
        """
        pool = self.pool
        calls: list[Callable[[], Deferred[Any]]] = [
            *(lambda call=call: call("k", b"1") for call in (pool.set, pool.add, pool.replace)),
            *(lambda call=call: call("k", b"1") for call in (pool.append, pool.prepend)),
            lambda: pool.checkAndSet("k", b"1", b"1"),
            *(lambda call=call: call("k") for call in (pool.increment, pool.decrement, pool.delete)),
            *(lambda call=call: call("k", 1) for call in (pool.touch, pool.getAndTouch)),
            pool.flushAll,
        ]
        for call in calls:
            answer = call()
            self.assertNotEqual(self.hear(), b"")
            self.lose()
            error = self.failureResultOf(answer, ConnectionLostInFlight).value
            self.assertTrue(error.sent)
            self.clock.advance(10)
        self.assertEqual(self.pool.counters.retries, 0)

    @covers("2")
    def test_late(self) -> None:
        """
        A reply that is late closes its connection and fails all that waits for it; nothing is sent again.
        """
        answers: list[Deferred[Any]] = [self.pool.get("a"), self.pool.delete("a")]
        self.flush()
        self.clock.advance(4.9)
        self.assertEqual([answer.called for answer in answers], [False, False])
        self.clock.advance(0.1)
        self.flush()
        for answer in answers:
            self.assertEqual(self.failureResultOf(answer, PoolTimeout).value.phase, "request")
        self.assertEqual((self.pool.counters.requestTimeouts, self.pool.counters.retries), (1, 0))
        self.assertEqual(self.server.connections, [])

    def test_refused(self) -> None:
        """
        When no server can be reached, all who wait are told so, and why.
        """
        self.server.refuse()
        answers: list[Deferred[Any]] = [self.pool.get("a"), self.pool.get("b"), self.pool.getMultiple("cd")]
        answers += [self.pool.set("a", b"1"), self.pool.flushAll()]
        self.flush()
        for answer in answers:
            error = self.failureResultOf(answer, ServerUnavailable).value
            self.assertIn("connection refused", str(error))
        self.failureResultOf(self.pool.delete("a"), ServerUnavailable)
        answer = self.pool.get("a")
        self.flush()
        self.failureResultOf(answer, ServerUnavailable)

    def test_noConnection(self) -> None:
        """
        Who waits too long for a connection is told so.
        """
        pool = MemCachePool(self.server, 1, self.clock, connectTimeout=None, waitTimeout=2.0)
        self.server.hang()
        answers: list[Deferred[Any]] = [pool.get("a"), pool.set("a", b"1")]
        self.flush()
        self.clock.advance(2)
        for answer in answers:
            self.assertEqual(self.failureResultOf(answer, PoolTimeout).value.phase, "wait")
        finish(pool)

    def test_tooMany(self) -> None:
        """
        No more requests wait than may; with all the keys of a turn in one request.
        """
        pool = MemCachePool(self.server, 1, self.clock, maxWaiting=1, batchSize=3)
        self.server.hang()
        whole = pool.getMultiple("abcdefghi")
        self.failureResultOf(whole, errors.PoolFull)
        self.assertEqual(pool.stats.waiting, 0)
        answers = [pool.get(key) for key in "abc"]
        self.assertEqual(pool.stats.waiting, 1)
        self.failureResultOf(pool.delete("a"), errors.PoolFull)
        done = pool.close()
        for answer in answers:
            self.failureResultOf(answer, PoolClosed)
        self.flush()
        self.successResultOf(done)

    def test_depth(self) -> None:
        """
        No more requests are in flight on a connection than may be; the others follow as replies come.
        """
        pool = MemCachePool(self.server, 1, self.clock, configure=None, pipelineDepth=2)
        answers = [pool.delete(key) for key in "abcde"]
        self.assertEqual(self.hear(), b"delete a\r\ndelete b\r\n")
        self.say(b"DELETED\r\n")
        self.assertEqual(self.hear(), b"delete c\r\n")
        self.say(b"DELETED\r\nNOT_FOUND\r\n")
        self.say(b"DELETED\r\nDELETED\r\n")
        self.assertEqual(self.results(answers), [True, True, False, True, True])
        finish(pool)


class CheckTests(MemCachePoolTests):
    """
    A connection that nobody used for a while may be checked before it is.
    """

    settings = {"check": probe, "checkIfIdleFor": 10.0, "maxClients": 1}

    def test_idle(self) -> None:
        """
        It is asked for its version first.
        """
        self.connect()
        self.assertEqual(self.pool.result(self.pool.get("a")), (0, None))
        self.assertEqual(self.connection.received, b"get a\r\n")
        self.pool.clock.advance(10)
        self.assertIs(self.pool.result(self.pool.delete("a")), False)
        self.assertEqual(self.connection.received, b"get a\r\n" + HELLO + b"delete a\r\n")

    def test_dead(self) -> None:
        """
        One that does not answer carries nothing, so even what may not be sent twice survives it.
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


class LifeTests(MemCachePoolTests):
    """
    How a pool begins and ends.
    """

    def test_nothing(self) -> None:
        """
        Making a pool does nothing.
        """
        self.pool.flush()
        self.assertEqual((self.pool.server.dials, self.pool.clock.getDelayedCalls()), (0, []))

    def test_closeInTheSameTurn(self) -> None:
        """
        What was called before the pool was closed is answered if there is a connection.
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
        What was called before the pool was closed fails if there is no connection yet.
        """
        answers: list[Deferred[Any]] = [self.pool.get("a"), self.pool.set("a", b"1"), self.pool.getMultiple("ab")]
        closed = self.pool.close()
        for answer in answers:
            self.failureResultOf(answer, PoolClosed)
        self.pool.flush()
        self.successResultOf(closed)

    def test_closed(self) -> None:
        """
        A closed pool answers nothing, and leaves nothing behind in saying so.
        """
        self.connect()
        self.pool.result(self.pool.close())
        answers: list[Deferred[Any]] = [self.pool.get("a"), self.pool.set("a", b"1"), self.pool.getMultiple("ab")]
        answers += [self.pool.version(), self.pool.flushAll(), self.pool.getAndTouch("a", 1)]
        for answer in answers:
            self.failureResultOf(answer, PoolClosed)
        self.assertEqual(self.pool.clock.getDelayedCalls(), [])

    def test_closeFromACallback(self) -> None:
        """
        A pool may be closed from the callback of one of its calls; the others of that request are answered.
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
        An aborted pool fails what is in flight, reads too.
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
        A connection may be borrowed: what others call meanwhile goes by another one.
        """

        async def use() -> list[Any]:
            async with self.pool.connection() as mine:
                other = self.pool.set("a", b"1")
                answer = await mine.ask(b"get a\r\n", GET)
                return [answer, await other, len(self.pool.server.connections)]

        self.assertEqual(self.pool.result(use()), [b"END\r\n", True, 2])
        self.assertEqual(self.pool.stats.busy, 0)

    @covers("8")
    def test_manyCalls(self) -> None:
        """
        Ten thousand calls at once are answered, each with its own.
        """
        puts = [self.pool.set(f"k{number}", b"%d" % number) for number in range(5000)]
        self.pool.result(gatherResults(puts))
        gets = [self.pool.get(f"k{number}") for number in range(5000)]
        answers = self.pool.result(gatherResults(gets))
        self.assertEqual(answers, [(0, b"%d" % number) for number in range(5000)])
        self.assertEqual((self.pool.stats.inFlight, self.pool.stats.waiting), (0, 0))


class PerformRequestTests(MemCachePoolTests):
    """
    C{performRequest}, which is how users of 0.1.2 ask for what that had no method for.
    """

    def test_byName(self) -> None:
        """
        Every command may be asked for by its name.
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
        Nothing else may.
        """
        for name in ("close", "_flush", "take", "nonsense", "serverStats", "dataReceived", "__init__"):
            self.failureResultOf(self.pool.performRequest(name), NoSuchCommand)

    def test_arguments(self) -> None:
        """
        Wrong arguments are an error like any other.
        """
        self.failureResultOf(self.pool.performRequest("get"), TypeError)
        self.failureResultOf(self.pool.performRequest("get", b"a b"), InvalidArgument)

    def test_allowed(self) -> None:
        """
        A pool may be told which commands may be asked for.
        """
        pool = MemoryPool(allowedCommands=["get"])
        self.addCleanup(finish, pool)
        self.failureResultOf(pool.performRequest("set", "a", b""), NoSuchCommand)
        self.assertEqual(pool.result(pool.performRequest("get", "a")), (0, None))

    def test_subclass(self) -> None:
        """
        A subclass may say what it did with 0.1.2.
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


class SeveralServersTests(Case):
    """
    A pool with more than one server.
    """

    def setUp(self) -> None:
        """
        Make one with two.
        """
        self.clock = MemoryReactorClock()
        self.servers = [FakeServer(self.clock), FakeServer(self.clock)]
        self.pool = MemCachePool(self.servers, 4, self.clock, minClients=2, reuse="fifo")
        self.addCleanup(finish, self.pool)
        self.pool.start()
        self.clock.advance(0)

    def test_rotation(self) -> None:
        """
        They are asked in turn.
        """
        for _ in range(4):
            self.pool.delete("k")
            self.clock.advance(0)
        for server in self.servers:
            self.assertEqual(sum(each.received.count(b"delete k\r\n") for each in server.connections), 2)

    def test_flushAll(self) -> None:
        """
        C{flushAll} is for all of them.
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
        C{flushAll} connects to all of them if it must.
        """
        pool = MemCachePool(self.servers, 2, self.clock)
        answer = pool.flushAll()
        self.clock.advance(0)
        self.assertIs(self.successResultOf(answer), True)
        pool.close()
        self.clock.advance(0)

    def test_flushAllWithoutOne(self) -> None:
        """
        C{flushAll} does nothing if one of them is down, and says which.
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
        C{flushAll} does nothing if there are enough connections, but none to one of them.
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
        C{flushAll} fails as the first of them failed.
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


class EveryoneTests(SynchronousTestCase):
    """
    Whatever happens, everyone gets what is his, once.
    """

    @given(STEPS, st.integers(1, 3), st.sampled_from([1, 2, 64]))
    @settings(deadline=None, max_examples=200)
    def test_everyone(self, steps: list[tuple[Any, ...]], connections: int, batchSize: int) -> None:
        """
        However calls are mixed with cancellations, losses, pieces and delays: each call ends once, in the value of its
        own key, in an error of ours, or cancelled.
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
