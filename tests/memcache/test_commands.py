# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.memcache.commands}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.memcache import ClientError, MemCacheProtocol, ServerError

from tests.memcache.cases import EmbeddedTestCase
from txconnpool.memcache import NoSuchCommand
from txconnpool.memcache.memory import MemoryEndpoint
from txconnpool.testing import MemoryPool, finish


class CommandTests(EmbeddedTestCase):
    """
    The request and the result of each command.
    """

    def assertSends(self, data: bytes, answer: Deferred[Any], result: object) -> None:
        """
        Assert that a call sends these bytes and has this result.
        """
        self.assertEqual(self.pool.result(answer), result)
        self.assertEqual(self.connection.received, data)
        self.connection.received = b""

    def setUp(self) -> None:
        super().setUp()
        self.connect()
        self.store(k=b"v", n=b"41")

    def test_get(self) -> None:
        """
        C{get} returns flags and value.
        """
        self.pool.result(self.pool.set(b"f", b"\r\nEND\r\n", 7))
        self.connection.received = b""
        self.assertSends(b"get f\r\n", self.pool.get(b"f"), (7, b"\r\nEND\r\n"))
        self.assertSends(b"get k\r\n", self.pool.get("k"), (0, b"v"))

    def test_getMiss(self) -> None:
        """
        A key that does not exist has the flags 0 and the value C{None}.
        """
        self.assertSends(b"get x\r\n", self.pool.get("x"), (0, None))
        self.assertSends(b"gets x\r\n", self.pool.get("x", True), (0, b"", None))

    def test_getWithIdentifier(self) -> None:
        """
        C{get} also returns the identifier if it is requested, as bytes.
        """
        self.assertSends(b"gets k\r\n", self.pool.get("k", withIdentifier=True), (0, b"1", b"v"))
        self.assertSends(b"gets n\r\n", self.pool.gets("n"), (0, b"2", b"41"))

    def test_text(self) -> None:
        """
        A key may be text; it is sent as UTF-8.
        """
        self.assertSends("set schlüssel 0 0 1\r\n1\r\n".encode(), self.pool.set("schlüssel", b"1"), True)
        self.assertSends("get schlüssel\r\n".encode(), self.pool.get("schlüssel"), (0, b"1"))

    def test_getMultiple(self) -> None:
        """
        C{getMultiple} returns the results of C{get}. Its keys have the order and the types of the arguments.
        """
        keys: list[str | bytes] = ["n", b"x", b"k", "k", "n"]
        answer = self.pool.result(self.pool.getMultiple(keys))
        self.assertEqual(
            list(answer.items()), [("n", (0, b"41")), (b"x", (0, None)), (b"k", (0, b"v")), ("k", (0, b"v"))]
        )
        self.assertEqual(self.connection.received, b"get n x k\r\n")

    def test_getMultipleWithIdentifier(self) -> None:
        """
        C{getMultiple} also returns the identifiers if they are requested.
        """
        answer = self.pool.getMultiple(["k", "x"], True)
        self.assertSends(b"gets k x\r\n", answer, {"k": (0, b"1", b"v"), "x": (0, b"", None)})

    def test_getMultipleOfNone(self) -> None:
        """
        The result for no keys is empty, and nothing is sent.
        """
        self.assertEqual(self.successResultOf(self.pool.getMultiple([])), {})
        self.pool.flush()
        self.assertEqual(self.connection.received, b"")

    def test_getMultipleOfMany(self) -> None:
        """
        More keys than fit in one request are sent in several.
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
        C{getAndTouch} returns the value and sets its expiry time.
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
        C{set} stores a value with flags and an expiry time, whether the key exists or not.
        """
        self.assertSends(b"set k 3 60 2\r\nvv\r\n", self.pool.set("k", b"vv", 3, 60), True)
        self.assertSends(b"set e 4294967295 -1 0\r\n\r\n", self.pool.set("e", b"", (1 << 32) - 1, -1), True)

    def test_add(self) -> None:
        """
        C{add} stores a value only if the key does not exist.
        """
        self.assertSends(b"add k 0 0 1\r\n1\r\n", self.pool.add("k", b"1"), False)
        self.assertSends(b"add a 1 2 1\r\n1\r\n", self.pool.add("a", b"1", flags=1, expireTime=2), True)

    def test_replace(self) -> None:
        """
        C{replace} stores a value only if the key exists.
        """
        self.assertSends(b"replace k 1 2 1\r\n1\r\n", self.pool.replace("k", b"1", flags=1, expireTime=2), True)
        self.assertSends(b"replace r 0 0 1\r\n1\r\n", self.pool.replace("r", b"1"), False)

    def test_appendAndPrepend(self) -> None:
        """
        C{append} and C{prepend} add to an existing value.
        """
        self.assertSends(b"append k 0 0 1\r\n>\r\n", self.pool.append("k", b">"), True)
        self.assertSends(b"prepend k 0 0 1\r\n<\r\n", self.pool.prepend("k", b"<"), True)
        self.assertSends(b"get k\r\n", self.pool.get("k"), (0, b"<v>"))
        self.assertSends(b"append x 0 0 1\r\n>\r\n", self.pool.append("x", b">"), False)
        self.assertSends(b"prepend x 0 0 1\r\n<\r\n", self.pool.prepend("x", b"<"), False)

    def test_checkAndSet(self) -> None:
        """
        C{checkAndSet} stores a value only if it was not changed since it was read.
        """
        self.assertSends(b"cas k 1 2 1 1\r\nw\r\n", self.pool.checkAndSet("k", b"w", b"1", 1, 2), True)
        self.assertSends(b"cas k 0 0 1 1\r\nw\r\n", self.pool.checkAndSet("k", b"w", b"1"), False)
        self.assertSends(b"cas x 0 0 1 1\r\nw\r\n", self.pool.checkAndSet("x", b"w", b"1"), False)

    def test_incrementAndDecrement(self) -> None:
        """
        C{increment} and C{decrement} return the new number, or C{False} if the key does not exist.
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
        C{touch} sets the expiry time of a key.
        """
        self.assertSends(b"touch k 5\r\n", self.pool.touch("k", 5), True)
        self.assertSends(b"touch x 5\r\n", self.pool.touch("x", 5), False)
        self.pool.clock.advance(5)
        self.assertSends(b"get k\r\n", self.pool.get("k"), (0, None))

    def test_delete(self) -> None:
        """
        C{delete} returns whether the key existed.
        """
        self.assertSends(b"delete k\r\n", self.pool.delete("k"), True)
        self.assertSends(b"delete k\r\n", self.pool.delete("k"), False)

    def test_flushAll(self) -> None:
        """
        C{flushAll} deletes all keys.
        """
        self.assertSends(b"flush_all\r\n", self.pool.flushAll(), True)
        self.assertEqual(self.pool.result(self.pool.getMultiple(["k", "n"])), {"k": (0, None), "n": (0, None)})

    def test_version(self) -> None:
        """
        C{version} returns the version of the server, as bytes.
        """
        self.assertSends(b"version\r\n", self.pool.version(), b"1.6.18-txconnpool")

    def test_stats(self) -> None:
        """
        C{stats()} returns the statistics of the server, the attribute C{stats} has those of the pool.
        """
        answer = self.pool.result(self.pool.serverStats())
        self.assertEqual((answer[b"curr_items"], answer[b"version"]), (b"2", b"1.6.18-txconnpool"))
        self.assertEqual(self.connection.received, b"stats\r\n")
        self.assertEqual((self.pool.stats.connections, self.pool.stats.inFlight), (1, 0))
        self.assertEqual(self.pool.stats, self.pool.stats)

    def test_statsOfAKind(self) -> None:
        """
        C{stats} accepts a group of statistics, and a reply of one line.
        """
        self.assertSends(b"stats reset\r\n", self.pool.serverStats("reset"), {})
        answer = self.pool.serverStats(b"detail on")
        self.pool.flush()
        self.assertEqual(self.connection.received, b"stats detail on\r\n")
        answer.addErrback(lambda failure: failure.trap(ClientError, ServerError, NoSuchCommand))

    def test_asMemCacheProtocol(self) -> None:
        """
        Every command of MemCacheProtocol has the same result here, for hits and misses.
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
        self.assertEqual(pool.result(pool.serverStats()).keys(), self.successResultOf(theirs).keys())
        protocol.transport.loseConnection()
        clock.advance(0)
