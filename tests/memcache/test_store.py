# -*- test-case-name: tests.memcache.test_store -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.memcache.store} and L{txconnpool.memcache.execution}. C{tests/real/test_embedded.py} compares the
replies with those of memcached.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.memcache.execution import Executor
from txconnpool.memcache.store import ITEM_MAX, ITEM_OVERHEAD, RELATIVE_MAX, STORE_MIN, Item, Store


class Server(Executor):
    """
    An executor on a new store, with a clock to set.
    """

    def __init__(self, size: int = 1 << 20) -> None:
        super().__init__(Store(size))
        self.time = 0.0

    def ask(self, line: bytes, value: bytes | None = None) -> bytes:
        return self.execute(line + b"\r\n" + (b"" if value is None else value + b"\r\n"), self.time)

    def has(self, key: bytes) -> bool:
        """
        Look for an item without using it.
        """
        return self.ask(b"me " + key) != b"EN\r\n"

    def counters(self) -> dict[str, str]:
        """
        Get the statistics.
        """
        lines = self.statistics((), self.time).decode("ascii").split("\r\n")[:-2]
        return dict(line.split(" ")[1:] for line in lines)


class TimeTests(SynchronousTestCase):
    """
    Expiry times.
    """

    def setUp(self) -> None:
        self.server = Server()
        self.server.time = 10.0

    def test_relative(self) -> None:
        """
        An item expires exactly so many seconds after it was stored, with fractions.
        """
        self.server.time = 10.5
        self.server.ask(b"set k 0 2 1", b"a")
        self.server.time = 12.4
        self.assertTrue(self.server.has(b"k"))
        self.server.time = 12.5
        self.assertFalse(self.server.has(b"k"))

    def test_never(self) -> None:
        """
        An item with the expiry time 0 never expires.
        """
        self.server.ask(b"set k 0 0 1", b"a")
        self.server.time = 1e12
        self.assertTrue(self.server.has(b"k"))

    def test_negative(self) -> None:
        """
        An item with a negative expiry time expires at once.
        """
        self.assertEqual(self.server.ask(b"set k 0 -1 1", b"a"), b"STORED\r\n")
        self.assertFalse(self.server.has(b"k"))

    def test_date(self) -> None:
        """
        A number above thirty days is a UNIX time.
        """
        self.server.time = 1e9
        self.server.ask(b"set days 0 %d 1" % RELATIVE_MAX, b"a")
        self.server.ask(b"set past 0 %d 1" % (RELATIVE_MAX + 1), b"a")
        self.server.ask(b"set date 0 1000000005 1", b"a")
        self.assertEqual([self.server.has(key) for key in (b"days", b"past", b"date")], [True, False, True])
        self.server.time += 5
        self.assertEqual([self.server.has(key) for key in (b"days", b"past", b"date")], [True, False, False])

    def test_touched(self) -> None:
        """
        C{touch}, C{gat}, C{mg}, C{ma} and C{md} set a new expiry time.
        """
        for request in (b"touch k 5", b"gat 5 k", b"mg k T5", b"ma k T5", b"md k I T5"):
            self.server.ask(b"set k 0 1 1", b"1")
            self.server.ask(request)
            self.server.time += 4.9
            self.assertTrue(self.server.has(b"k"), request)
            self.server.time += 0.1
            self.assertFalse(self.server.has(b"k"), request)

    def test_made(self) -> None:
        """
        An item created by C{mg} or C{ma} on a miss has the expiry time of C{N}.
        """
        for request in (b"mg k N5", b"ma k N5"):
            self.assertTrue(self.server.ask(request).startswith(b"HD"))
            self.server.time += 4.9
            self.assertTrue(self.server.has(b"k"), request)
            self.server.time += 0.1
            self.assertFalse(self.server.has(b"k"), request)

    def test_remaining(self) -> None:
        """
        C{t} returns the remaining seconds, rounded up, and C{l} the whole seconds since the item was used.
        """
        self.server.ask(b"set k 0 100 1", b"a")
        self.server.time += 9.5
        self.assertEqual(self.server.ask(b"mg k t l"), b"HD t91 l9\r\n")
        self.assertEqual(self.server.ask(b"mg k t l"), b"HD t91 l0\r\n")

    def test_recache(self) -> None:
        """
        Only the first client is asked to store an item anew when less time is left than C{R}.
        """
        self.server.ask(b"set k 0 100 1", b"a")
        self.server.time += 70
        self.assertEqual(self.server.ask(b"mg k R30"), b"HD\r\n")
        self.server.time += 1
        self.assertEqual(self.server.ask(b"mg k R30"), b"HD W\r\n")
        self.assertEqual(self.server.ask(b"mg k R30"), b"HD Z\r\n")

    def test_flushLater(self) -> None:
        """
        A delayed flush deletes all items stored before it is due, and none stored after.
        """
        self.server.ask(b"set old 0 0 1", b"a")
        self.server.ask(b"flush_all 5")
        self.server.time += 4
        self.server.ask(b"set new 0 0 1", b"a")
        self.assertEqual([self.server.has(b"old"), self.server.has(b"new")], [True, True])
        self.server.time += 1
        self.assertEqual(self.server.counters()["curr_items"], "0")
        self.server.ask(b"set newest 0 0 1", b"a")
        self.assertEqual(
            [self.server.has(key) for key in (b"old", b"new", b"newest")],
            [False, False, True],
        )

    def test_flushAgain(self) -> None:
        """
        The last delayed flush replaces an earlier one.
        """
        self.server.ask(b"flush_all 5")
        self.server.ask(b"flush_all 9")
        self.server.ask(b"set k 0 0 1", b"a")
        self.server.time += 5
        self.assertTrue(self.server.has(b"k"))
        self.server.ask(b"flush_all")
        self.assertEqual(len(self.server.store), 0)
        self.server.ask(b"set k 0 0 1", b"a")
        self.server.time += 4
        self.assertTrue(self.server.has(b"k"))


class RoomTests(SynchronousTestCase):
    """
    Eviction.
    """

    def setUp(self) -> None:
        """
        Fill a server that has room for three items with keys of 1 byte and values of 100 bytes.
        """
        self.server = Server(3 * (101 + ITEM_OVERHEAD))
        for key in (b"a", b"b", b"c"):
            self.server.ask(b"set %s 0 0 100" % key, b"x" * 100)

    def kept(self) -> bytes:
        """
        @return: the keys of the items in the store.
        """
        return b"".join(key for key in (b"a", b"b", b"c", b"d") if self.server.has(key))

    def test_oldest(self) -> None:
        """
        The least recently used item is evicted.
        """
        self.assertEqual(self.kept(), b"abc")
        self.server.ask(b"set d 0 0 100", b"x" * 100)
        self.assertEqual(self.kept(), b"bcd")
        self.assertEqual(self.server.counters()["evictions"], "1")

    def test_used(self) -> None:
        """
        All commands that use an item keep it; C{me}, and C{mg} with C{u}, do not count as use.
        """
        for request in (b"get a", b"gat 0 a", b"touch a 0", b"mg a", b"append a 0 0 0", b"add a 0 0 0"):
            self.setUp()
            self.server.ask(request, b"" if b"0 0 0" in request else None)
            self.server.ask(b"set d 0 0 100", b"x" * 100)
            self.assertEqual(self.kept(), b"acd", request)
        for request in (b"me a", b"mg a u"):
            self.setUp()
            self.server.ask(request)
            self.server.ask(b"set d 0 0 100", b"x" * 100)
            self.assertEqual(self.kept(), b"bcd", request)

    def test_counted(self) -> None:
        """
        Incrementing an item keeps it.
        """
        self.server.ask(b"set a 0 0 100", b"1".ljust(100))
        self.server.ask(b"get b")
        self.server.ask(b"get c")
        self.server.ask(b"incr a 1")
        self.server.ask(b"set d 0 0 100", b"x" * 100)
        self.assertEqual(self.kept(), b"acd")

    def test_asManyAsNeeded(self) -> None:
        """
        A large item evicts several small ones.
        """
        self.server.ask(b"set d 0 0 102", b"x" * 102)
        self.assertEqual(self.kept(), b"cd")

    def test_replaced(self) -> None:
        """
        A value that replaces another needs only the difference in size.
        """
        self.server.ask(b"set a 0 0 100", b"y" * 100)
        self.assertEqual(self.kept(), b"abc")

    def test_grown(self) -> None:
        """
        Appending may evict items; the item itself is evicted last.
        """
        self.server.ask(b"append a 0 0 1", b"x")
        self.assertEqual(self.kept(), b"ac")

    def test_smallest(self) -> None:
        """
        An item with the longest key and the maximum value fits into the smallest store.
        """
        server = Server(STORE_MIN)
        key, size = b"k" * 250, server.store.itemMax
        self.assertEqual(server.ask(b"set %s 0 0 %d" % (key, size), b"x" * size), b"STORED\r\n")
        self.assertTrue(server.has(key))
        self.assertGreater(size, 20)  # any number fits

    def test_largest(self) -> None:
        """
        The maximum length of a value is memcached's, also for values made by appending.
        """
        server = Server(1 << 30)
        self.assertEqual(server.store.itemMax, ITEM_MAX)
        server.ask(b"set k 0 0 1", b"a")
        self.assertEqual(server.ask(b"append k 0 0 %d" % ITEM_MAX, b"x" * ITEM_MAX), b"NOT_STORED\r\n")
        self.assertEqual(server.ask(b"prepend k 0 0 %d" % (ITEM_MAX - 1), b"x" * (ITEM_MAX - 1)), b"STORED\r\n")


KEYS = st.sampled_from((b"a", b"bb", b"ccc", b"dddd"))
NUMBERS = st.integers(0, 300)
REQUESTS = st.one_of(
    st.tuples(
        st.sampled_from((b"set %s 0 %d", b"append %s 0 %d", b"add %s 0 %d")), KEYS, st.sampled_from((0, 3)), NUMBERS
    ),
    st.tuples(st.sampled_from((b"delete %s", b"mg %s N5", b"ma %s N5 D999", b"get %s", b"md %s I")), KEYS),
    st.sampled_from(((b"flush_all",), (b"flush_all 2",))),
)


class AccountTests(SynchronousTestCase):
    """
    The size of a store, and its statistics.
    """

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 2), REQUESTS), max_size=60))
    def test_balance(self, requests: list[tuple[int, tuple[object, ...]]]) -> None:
        """
        After any sequence of requests, the bytes in use are those of the stored items, and not more than the size of
        the store.
        """
        server = Server(STORE_MIN)
        for seconds, (verb, *words) in requests:
            assert isinstance(verb, bytes)
            server.time += seconds
            if len(words) == 3:
                key, exptime, length = words
                assert isinstance(length, int)
                server.ask(b"%s %d" % (verb % (key, exptime), length), b"7" * length)
            else:
                server.ask(verb % tuple(words))
            sizes = [server.ask(b"me " + key).rpartition(b"size=")[2] for key in (b"a", b"bb", b"ccc", b"dddd")]
            self.assertEqual(server.store.used, sum(int(size) for size in sizes if size != b"EN\r\n"))
            self.assertLessEqual(server.store.used, server.store.size)

    def test_statistics(self) -> None:
        """
        The statistics count requests and items.
        """
        server = Server()
        server.time = 1234.5
        server.store.connections = 2
        server.ask(b"set k 0 0 5", b"value")
        server.ask(b"get k absent")
        server.ask(b"incr absent 1")
        server.ask(b"set gone 0 -1 0", b"")
        server.ask(b"get gone")
        server.ask(b"flush_all 100")
        server.ask(b"me k")
        counters = server.counters()
        expected = {
            "time": "1234",
            "curr_connections": "2",
            "cmd_get": "3",
            "cmd_set": "2",
            "cmd_flush": "1",
            "cmd_meta": "1",
            "get_hits": "1",
            "get_misses": "2",
            "get_expired": "1",
            "incr_misses": "1",
            "decr_misses": "0",
            "curr_items": "1",
            "total_items": "2",
            "bytes": str(1 + 5 + ITEM_OVERHEAD),
            "limit_maxbytes": str(1 << 20),
            "evictions": "0",
        }
        self.assertEqual({name: counters[name] for name in expected}, expected)

    def test_reset(self) -> None:
        """
        C{stats reset} sets counters to 0, but not gauges.
        """
        server = Server()
        server.ask(b"set k 0 0 5", b"value")
        self.assertEqual(server.statistics((b"reset",), 0), b"RESET\r\n")
        counters = server.counters()
        self.assertEqual([counters["cmd_set"], counters["curr_items"]], ["0", "1"])

    def test_groups(self) -> None:
        """
        Groups of statistics are unknown.
        """
        self.assertEqual(Server().statistics((b"items",), 0), b"END\r\n")
        self.assertEqual(Server().statistics((b"what",), 0), b"ERROR\r\n")

    def test_length(self) -> None:
        """
        The length of a store is the number of its items.
        """
        store = Store()
        self.assertEqual(len(store), 0)
        store.link(b"k", Item(b"v"))
        self.assertEqual(len(store), 1)


class MetaTests(SynchronousTestCase):
    """
    Meta commands where they differ from memcached 1.6.18.
    """

    def setUp(self) -> None:
        self.server = Server()

    def test_later(self) -> None:
        """
        Flags of later versions are refused, with the error of a server that does not know them.
        """
        for request, value in ((b"mg k E5", None), (b"ms k 1 E5", b"a")):
            self.assertEqual(self.server.ask(request, value), b"CLIENT_ERROR invalid flag\r\n")
        for request in (b"md k x", b"ma k E5"):
            self.assertEqual(self.server.ask(request), b"CLIENT_ERROR invalid or duplicate flag\r\n")

    def test_binary(self) -> None:
        """
        A key that came in base64 is returned in base64, whatever command changed its item.
        """
        for request, value in ((b"ms YQA= 1 b MA", b"9"), (b"ma YQA= b", None), (b"mg YQA= b v", None)):
            self.server.ask(b"ms YQA= 1 b", b"9")
            self.server.ask(request, value)
            self.assertTrue(self.server.ask(b"mg YQA= b k").startswith(b"HD kYQA= b"), request)
        for request in (b"mg YWE= b N0", b"ma YWE= b N0"):
            self.server.ask(b"flush_all")
            self.server.ask(request)
            self.assertTrue(self.server.ask(b"mg aa k").startswith(b"HD kYWE= b"), request)

    def test_debug(self) -> None:
        """
        C{me} returns the remaining seconds, and -1 for an item that never expires.
        """
        self.server.ask(b"set k 0 60 3", b"abc")
        self.assertEqual(
            self.server.ask(b"me k"), b"ME k exp=60 la=0 cas=1 fetch=no cls=1 size=%d\r\n" % (ITEM_OVERHEAD + 4)
        )
        self.server.ask(b"gat 0 k")
        self.assertIn(b" exp=-1 la=0 cas=1 fetch=yes ", self.server.ask(b"me k"))


class DumpTests(SynchronousTestCase):
    """
    Tests for dumps of keys: all items are of class 1.
    """

    def setUp(self) -> None:
        """
        Store four items: one without an expiry time, one that will expire, one that has expired, one with a base64 key.
        """
        self.server = Server()
        self.server.time = 100.0
        self.server.ask(b"set a 0 0 1", b"x")
        self.server.ask(b"set %b 0 50 2" % b"\xc3\xa9=", b"xy")
        self.server.ask(b"set gone 0 1 1", b"x")
        self.server.ask(b"ms YSBi 1 b", b"x")
        self.server.time = 102.0
        self.server.ask(b"get a")

    def test_metadump(self) -> None:
        """
        The items are in the order of their use, with encoded keys.
        """
        size = ITEM_OVERHEAD
        reply = (
            b"key=a exp=-1 la=102 cas=1 fetch=yes cls=1 size=%d\n"
            b"key=a%%20b exp=-1 la=100 cas=4 fetch=no cls=1 size=%d\n"
            b"key=%%C3%%A9%%3D exp=150 la=100 cas=2 fetch=no cls=1 size=%d\nEND\r\n"
        ) % (size + 2, size + 4, size + 5)
        for which in (b"all", b"hash", b"1", b"2,1"):
            self.assertEqual(self.server.ask(b"lru_crawler metadump " + which), reply)
        self.assertEqual(self.server.ask(b"lru_crawler metadump 2"), b"END\r\n")
        for which in (b"0", b"64", b"x", b"1,", b"-1"):
            self.assertEqual(self.server.ask(b"lru_crawler metadump " + which), b"BADCLASS invalid class id\r\n")
        self.assertEqual(self.server.ask(b"lru_crawler mgdump all"), b"ERROR\r\n")

    def test_cachedump(self) -> None:
        """
        As in memcached, items with a key in base64 are left out, and 0 is no limit.
        """
        first, second = b"ITEM a [1 b; 0 s]\r\n", b"ITEM \xc3\xa9= [2 b; 150 s]\r\n"
        for words, reply in (
            (b"1 0", first + second + b"END\r\n"),
            (b"1 1", first + b"END\r\n"),
            (b"2 0", b"END\r\n"),
            (b"64 0", b"CLIENT_ERROR Illegal slab id\r\n"),
            (b"x 0", b"CLIENT_ERROR bad command line format\r\n"),
            (b"1 x", b"CLIENT_ERROR bad command line format\r\n"),
            (b"1", b"CLIENT_ERROR bad command line\r\n"),
        ):
            self.assertEqual(self.server.ask(b"stats cachedump " + words), reply)
