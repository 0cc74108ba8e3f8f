# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.memcache.arguments}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols.memcache import ClientError

from tests.bugs import covers
from tests.memcache.cases import EmbeddedTestCase
from txconnpool.memcache import InvalidArgument
from txconnpool.testing import MemoryPool, finish


class ArgumentTests(EmbeddedTestCase):
    """
    Invalid arguments are reported before anything is sent.
    """

    def assertInvalid(self, call: Callable[..., Deferred[Any]], *arguments: Any, tells: str, **more: Any) -> None:
        """
        Assert that a call fails at once, sends nothing, and that the error is one that users of MemCacheProtocol
        expect.
        """
        error = self.failureResultOf(call(*arguments, **more), InvalidArgument).value
        self.assertIsInstance(error, ClientError)
        self.assertIsInstance(error, ValueError)
        self.assertIn(tells, str(error))
        self.pool.flush()
        self.assertEqual(self.pool.server.dials, 0)

    def test_keys(self) -> None:
        """
        Every command refuses an invalid key.
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

    def test_lists(self) -> None:
        """
        A text is no list of keys, and a list no mapping.
        """
        pool: Any = self.pool
        for call in (pool.getMultiple, pool.deleteMultiple):
            for wrong in ("abc", b"abc", 5):
                self.assertInvalid(call, wrong, tells=f"keys must be a list of keys, not {wrong!r}")
        self.assertInvalid(pool.setMultiple, "abc", tells="values must be a mapping of keys to values, not 'abc'")

    def test_longestKey(self) -> None:
        """
        A key may have 250 bytes of any value except spaces and control characters.
        """
        key = b"!~\x80\xff" + b"k" * 246
        self.assertEqual(self.pool.result(self.pool.set(key, b"v")), True)
        self.assertEqual(self.pool.result(self.pool.get(key)), (0, b"v"))

    def test_values(self) -> None:
        """
        A value must be bytes, and not longer than the server accepts.
        """
        for call in (self.pool.set, self.pool.add, self.pool.replace, self.pool.append, self.pool.prepend):
            self.assertInvalid(call, "k", "text", tells="a value is bytes, not str")
            self.assertInvalid(call, "k", 5, tells="a value is bytes, not int")
            self.assertInvalid(call, "k", b"x" * ((1 << 20) + 1), tells="1048577 bytes; at most 1048576 (maxItemSize)")

    def test_maxItemSize(self) -> None:
        """
        The maximum length of a value is a setting.
        """
        pool = MemoryPool(maxItemSize=10)
        self.addCleanup(finish, pool)
        self.assertEqual(pool.result(pool.set("k", b"x" * 10)), True)
        self.failureResultOf(pool.set("k", b"x" * 11), InvalidArgument)

    @covers("7")
    def test_numbers(self) -> None:
        """
        Numbers must be integers in the range that memcached accepts.
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
        An identifier must be the digits of a number of 64 bits, as bytes.
        """
        for cas in (b"", b"x", b"-1", b"1 2", 1, "1", None, b"18446744073709551616"):
            self.assertInvalid(self.pool.checkAndSet, "k", b"", cas, tells=f"not {cas!r}")
        answer = self.pool.checkAndSet("k", b"", b"18446744073709551615")
        self.assertIs(self.pool.result(answer), False)

    def test_kindsOfStats(self) -> None:
        """
        The name of a group of statistics must not contain control characters.
        """
        self.assertInvalid(self.pool.serverStats, b"a\0", tells="")
        self.assertInvalid(self.pool.serverStats, "items \x01", tells="")
