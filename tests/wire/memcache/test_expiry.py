# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.memcache.expiry}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.wire.memcache.expiry import expiring
from txconnpool.wire.memcache.requestreader import RequestReader


class ExpiringTests(SynchronousTestCase):
    """
    Tests for L{expiring}, with a limit of 60 seconds.
    """

    def assertExpiring(self, *pairs: tuple[bytes, bytes]) -> None:
        """
        Assert that requests become others, and that these are valid.
        """
        for request, expected in pairs:
            self.assertEqual(expiring(request, 60), expected)
            _, end, count, _ = RequestReader(1 << 20).read(expected, 0, 1)
            self.assertEqual((end, count), (len(expected), 1), expected)

    def test_stores(self) -> None:
        """
        A value without an expiry time, with a later one, or with a date is kept for the limit only. A shorter time and
        one in the past stay.
        """
        for word in (b"set", b"add", b"replace", b"append", b"prepend"):
            self.assertExpiring(*(
                (word + b" k 5 %b 1\r\nx\r\n" % old, word + b" k 5 %b 1\r\nx\r\n" % new)
                for old, new in ((b"0", b"60"), (b"61", b"60"), (b"1999999999", b"60"), (b"60", b"60"), (b"1", b"1"),
                                 (b"-1", b"-1"))
            ))  # fmt: skip
        self.assertExpiring((b"cas k 0 0 1 7\r\n0\r\n", b"cas k 0 60 1 7\r\n0\r\n"))

    def test_touches(self) -> None:
        """
        The same with requests that set the expiry time of a value.
        """
        self.assertExpiring(
            (b"touch k 0\r\n", b"touch k 60\r\n"),
            (b"gat 100 a b\r\n", b"gat 60 a b\r\n"),
            (b"gats 10 a\r\n", b"gats 10 a\r\n"),
        )

    def test_meta(self) -> None:
        """
        The same with meta commands. A C{ms} without an expiry time gets one.
        """
        self.assertExpiring(
            (b"ms k 2\r\nxx\r\n", b"ms k 2 T60\r\nxx\r\n"),
            (b"ms k 2 T0 q\r\nxx\r\n", b"ms k 2 T60 q\r\nxx\r\n"),
            (b"ms k 2 T5 c\r\nxx\r\n", b"ms k 2 T5 c\r\nxx\r\n"),
            (b"mg k v N100 T9\r\n", b"mg k v N60 T9\r\n"),
            (b"ma k N0 J5\r\n", b"ma k N60 J5\r\n"),
            (b"mg k v\r\n", b"mg k v\r\n"),
            (b"mg k OT0 v\r\n", b"mg k OT0 v\r\n"),
        )

    def test_numbers(self) -> None:
        """
        An expiry time is the number that memcached reads: C{4294967295} is in the past.
        """
        self.assertExpiring(
            (b"touch k 4294967295\r\n", b"touch k 4294967295\r\n"),
            (b"touch k 4294967296\r\n", b"touch k 60\r\n"),
            (b"touch k 4294967301\r\n", b"touch k 4294967301\r\n"),
            (b"touch k +9999999999\r\n", b"touch k 60\r\n"),
            (b"touch k \t+61\tx\r\n", b"touch k 60\r\n"),
            (b"touch k +0\r\r\n", b"touch k 60\r\r\n"),
            (b"gat -0 a b\r\n", b"gat 60 a b\r\n"),
            (b"set k 5 4294967295 1\r\nx\r\n", b"set k 5 4294967295 1\r\nx\r\n"),
            (b"mg k v N+100 T\t99 R+9\r\n", b"mg k v N60 T60 R+9\r\n"),
            (b"mg k T4294967295 v\r\n", b"mg k T4294967295 v\r\n"),
            (b"ma k T+0\r\r\n", b"ma k T60\r\n"),
        )

    def test_others(self) -> None:
        """
        Other requests are not changed.
        """
        self.assertExpiring(*((each, each) for each in (
            b"get k\r\n", b"delete k\r\n", b"incr k 100\r\n", b"md k\r\n", b"version\r\n", b"mn\r\n"
        )))  # fmt: skip
