# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.memcache.values}, and for the namespace and the default expiry time of a pool.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.memcache.cases import EmbeddedTestCase
from txconnpool.memcache import InvalidArgument, JSONSerializer, UnreadableValue, ZlibCompressor
from txconnpool.memcache.store import Item
from txconnpool.testing import MemoryPool, finish

LONG = b"long " * 1000


class JSONTests(SynchronousTestCase):
    """
    Tests for L{JSONSerializer}.
    """

    def test_values(self) -> None:
        """
        Bytes are stored as they are, all else as JSON with a flag. The other flags stay.
        """
        serializer = JSONSerializer()
        self.assertEqual(serializer.serialize(b"x", 9), (b"x", 8))
        for value in ("ü", {"a": [1, None]}, 5, None):
            data, flags = serializer.serialize(value, 8)
            self.assertEqual((flags, serializer.deserialize(data, flags)), (9, value))
        self.assertEqual(JSONSerializer(16).serialize(1, 0), (b"1", 16))


class ZlibTests(SynchronousTestCase):
    """
    Tests for L{ZlibCompressor}.
    """

    def test_values(self) -> None:
        """
        Long values are compressed if they become shorter.
        """
        compressor = ZlibCompressor(least=100)
        for value, marked in ((LONG, 2), (b"x" * 99, 0), (bytes(range(200)), 0)):
            data, flags = compressor.compress(value, 8)
            self.assertEqual((flags, compressor.decompress(data, flags)), (8 | marked, value))

    def test_wrong(self) -> None:
        """
        What is not compressed completely, and what would be too long, is refused.
        """
        compressor = ZlibCompressor(most=len(LONG) - 1)
        data, flags = compressor.compress(LONG, 0)
        for wrong in (data, b"nonsense", ZlibCompressor().compress(LONG[:-1], 0)[0][:-5]):
            self.assertRaises(ValueError, compressor.decompress, wrong, flags)

    def test_parameters(self) -> None:
        """
        The parameters are checked.
        """
        self.assertRaises(ValueError, ZlibCompressor, -1)
        self.assertRaises(ValueError, ZlibCompressor, flag=1 << 32)
        self.assertRaises(TypeError, JSONSerializer, "1")


class Broken:
    """
    A serializer that fails.
    """

    def serialize(self, value: Any, flags: int) -> tuple[bytes, int]:
        raise LookupError("no")

    def deserialize(self, data: bytes, flags: int) -> Any:
        raise LookupError("no")


class PoolTests(SynchronousTestCase):
    """
    Tests for a pool with hooks, a namespace and an expiry time.
    """

    def pool(self, **options: Any) -> Any:
        pool = MemoryPool(**options)
        self.addCleanup(finish, pool)
        return pool

    def test_hooks(self) -> None:
        """
        Every way to store and to get a value uses the hooks, and the flags of the caller are kept.
        """
        pool = self.pool(serializer=JSONSerializer(), compressor=ZlibCompressor(), maxItemSize=2000)
        value: Any = {"text": LONG.decode()}
        for store in (pool.set, pool.replace):
            self.assertTrue(pool.result(store("k", value, 8)))
        self.assertEqual(pool.result(pool.get("k")), (11, value))
        _, cas, found = pool.result(pool.gets("k"))
        self.assertEqual(found, value)
        self.assertTrue(pool.result(pool.checkAndSet("k", [1], cas)))
        self.assertEqual(pool.result(pool.getAndTouch("k", 0)), (1, [1]))
        self.assertEqual(pool.result(pool.getMultiple(["k", "x"])), {"k": (1, [1]), "x": (0, None)})
        self.assertTrue(pool.result(pool.set("n", b"1")))
        self.assertEqual(pool.result(pool.increment("n")), 2)
        self.assertTrue(pool.result(pool.append("n", b"0")))
        self.assertEqual(pool.result(pool.get("n")), (0, b"20"))

    def test_errors(self) -> None:
        """
        A hook that fails fails the call.
        """
        pool = self.pool(serializer=Broken())
        self.failureResultOf(pool.set("k", 1), InvalidArgument)
        pool.server.store.link(b"k", Item(b"v"))
        self.assertRaises(UnreadableValue, pool.result, pool.get("k"))
        self.assertRaises(UnreadableValue, pool.result, pool.getMultiple(["k", "x"]))
        self.assertEqual(pool.result(pool.get("x")), (0, None))

    def test_namespace(self) -> None:
        """
        The namespace is put before all keys, and results have the keys of the caller.
        """
        pool = self.pool(namespace="shop:")
        pool.result(pool.set("k", b"v"))
        self.assertEqual(pool.result(pool.getMultiple(["k", b"k"])), {"k": (0, b"v"), b"k": (0, b"v")})
        self.assertEqual(pool.result(pool.get("k")), (0, b"v"))
        self.assertIsNotNone(pool.server.store.peek(b"shop:k"))
        self.assertTrue(pool.result(pool.touch("k", 5)))
        self.assertTrue(pool.result(pool.delete("k")))
        for key in ("", "k" * 246, b"a b"):
            self.failureResultOf(pool.get(key), InvalidArgument)
        for wrong in ("a b", 5, "n" * 251):
            self.assertRaises((TypeError, ValueError), MemoryPool, namespace=wrong)

    def test_expireTime(self) -> None:
        """
        Values that are stored without an expiry time have that of the pool.
        """
        pool = self.pool(expireTime=60)
        pool.result(pool.set("a", b""))
        pool.result(pool.set("b", b"", expireTime=0))
        pool.clock.advance(61)
        self.assertEqual(pool.result(pool.getMultiple([*"ab"])), {"a": (0, None), "b": (0, b"")})
        self.assertRaises(TypeError, MemoryPool, expireTime=1.5)

    def test_login(self) -> None:
        """
        A login is a user and a password that memcached can read.
        """
        wrong: Any
        for wrong in ("a:b", ("a",), ("a", 5), ("a", "b", "c")):
            self.assertRaises(TypeError, MemoryPool, login=wrong)
        for wrong in (("", "b"), ("a", "b c"), ("a", "b\n")):
            self.assertRaises(ValueError, MemoryPool, login=wrong)


class IterationTests(EmbeddedTestCase):
    """
    Tests for C{async for} over C{getMultiple}.
    """

    settings = {"batchSize": 2}

    def collect(self, keys: Any) -> tuple[list[Any], Deferred[None]]:
        """
        @return: the items so far, and the end of the iteration.
        """
        items: list[Any] = []

        async def iterate() -> None:
            async for key, (flags, value) in self.pool.getMultiple(keys):
                items.append((key, flags, value))

        return items, Deferred.fromCoroutine(iterate())

    def test_items(self) -> None:
        """
        The items are those of the dictionary.
        """
        self.store(a=b"1", c=b"3")
        items, done = self.collect([*"abcde"])
        self.pool.result(done)
        self.assertEqual(len(items), 5)
        values = {key: (flags, value) for key, flags, value in items}
        self.assertEqual(values, self.pool.result(self.pool.getMultiple([*"abcde"])))
        self.assertEqual(values["c"], (0, b"3"))
        items, done = self.collect([])
        self.pool.result(done)
        self.assertEqual(items, [])

    def test_early(self) -> None:
        """
        Items are there before the last one has arrived.
        """
        self.connect()
        items, done = self.collect([*"abcd"])
        self.pool.server.hold()
        self.pool.flush()
        self.assertEqual(items, [])
        self.pool.server.release(5)
        self.pool.flush()
        self.assertEqual(sorted(items), [("a", 0, None), ("b", 0, None)])
        self.assertNoResult(done)
        self.pool.server.release()
        self.pool.flush()
        self.successResultOf(done)
        self.assertEqual(len(items), 4)

    def test_fails(self) -> None:
        """
        An error of the call is raised after the items that came before.
        """
        self.connect()
        items, done = self.collect([*"abcd"])
        self.pool.server.hold()
        self.pool.flush()
        self.pool.server.release(5)
        self.pool.flush()
        self.pool.clock.advance(5)
        self.failureResultOf(done)
        self.assertEqual(len(items), 2)
        _, done = self.collect(["a b"])
        self.failureResultOf(done, InvalidArgument)

    def test_late(self) -> None:
        """
        The iteration may begin when some, or all, items are there.
        """
        values = self.pool.getMultiple([*"abc"])
        self.pool.flush()
        self.assertTrue(values.called)

        async def iterate() -> list[Any]:
            return [item async for item in values]

        self.assertEqual(len(self.pool.result(iterate())), 3)
