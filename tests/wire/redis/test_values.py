# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.redis.values}.
"""

from __future__ import annotations

from math import inf, isnan
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.errors import WireError
from txconnpool.wire.redis.replyreader import scan
from txconnpool.wire.redis.values import ReplyParser


def encoded(value: Any) -> bytes:
    """
    @return: the reply in RESP3 with a value.
    """
    if value is None:
        return b"_\r\n"
    if isinstance(value, bool):
        return b"#t\r\n" if value else b"#f\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, float):
        return b",%b\r\n" % repr(value).encode()
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, dict):
        return b"%%%d\r\n" % len(value) + b"".join(encoded(each) for item in value.items() for each in item)
    return b"*%d\r\n" % len(value) + b"".join(map(encoded, value))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary(max_size=20),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.binary(max_size=5), values, max_size=4),
    max_leaves=20,
)


class ParserTests(SynchronousTestCase):
    """
    Tests for L{ReplyParser}.
    """

    def setUp(self) -> None:
        self.parse = ReplyParser(lambda text: ("error", text)).parse

    def test_types(self) -> None:
        """
        Each type of RESP2 and RESP3 has its value.
        """
        for data, value in (
            (b"+OK\r\n", b"OK"),
            (b"-ERR no\r\n", ("error", "ERR no")),
            (b"!5\r\nERR x\r\n", ("error", "ERR x")),
            (b":-5\r\n", -5),
            (b"(123456789012345678901234567890\r\n", 123456789012345678901234567890),
            (b"$0\r\n\r\n", b""),
            (b"$4\r\n\r\n\r\n\r\n", b"\r\n\r\n"),
            (b"$-1\r\n", None),
            (b"*-1\r\n", None),
            (b"_\r\n", None),
            (b"#t\r\n", True),
            (b"#f\r\n", False),
            (b",1.5\r\n", 1.5),
            (b",-inf\r\n", -inf),
            (b"=7\r\ntxt:abc\r\n", b"abc"),
            (b"*0\r\n", []),
            (b"*3\r\n:1\r\n$-1\r\n*1\r\n+a\r\n", [1, None, [b"a"]]),
            (b"%2\r\n+a\r\n:1\r\n*1\r\n+b\r\n~1\r\n:2\r\n", {b"a": 1, (b"b",): {2}}),
            (b"~2\r\n%1\r\n:1\r\n*0\r\n~1\r\n:3\r\n", {((1, ()),), frozenset({3})}),
            (b"*2\r\n-WRONGTYPE x\r\n:1\r\n", [("error", "WRONGTYPE x"), 1]),
        ):
            self.assertEqual(self.parse(data), value, data)
        self.assertTrue(isnan(self.parse(b",nan\r\n")))

    @given(VALUES)
    def test_anything(self, value: Any) -> None:
        """
        Any value is read as it was written, and its end is where the reader of replies finds it.
        """
        data = encoded(value)
        self.assertEqual(ReplyParser(str).parse(data), value)
        self.assertEqual(scan(data + b":1\r\n", 0, 1, 0)[:3], (len(data), 0, 0))

    @given(st.binary(max_size=30) | st.text("*$%~:+-_\r\n0123", max_size=30).map(str.encode))
    def test_anyBytes(self, data: bytes) -> None:
        """
        Any bytes are a value or a L{WireError}.
        """
        try:
            ReplyParser(str).parse(data)
        except WireError:
            pass

    def test_besides(self) -> None:
        """
        Attributes and pushes are no part of the value.
        """
        push = b">2\r\n+invalidate\r\n*1\r\n+k\r\n"
        self.assertEqual(self.parse(b"|1\r\n+ttl\r\n:5\r\n*2\r\n:1\r\n" + push + b":2\r\n"), [1, 2])
        self.assertEqual(self.parse(b"*1\r\n|1\r\n+ttl\r\n:5\r\n:1\r\n"), [1])

    def test_deep(self) -> None:
        """
        The depth of a reply has no limit.
        """
        value = self.parse(b"*1\r\n" * 20000 + b":1\r\n")
        while isinstance(value, list):
            (value,) = value
        self.assertEqual(value, 1)

    def test_decode(self) -> None:
        """
        With an encoding, strings are text. Other bytes can be encoded again.
        """
        parse = ReplyParser(str, "utf-8").parse
        self.assertEqual(parse("*2\r\n$2\r\n\u00e9\r\n+OK\r\n".encode()), ["\u00e9", "OK"])
        self.assertEqual(parse(b"$1\r\n\xff\r\n").encode("utf-8", "surrogateescape"), b"\xff")

    def test_invalid(self) -> None:
        """
        Bytes that are not exactly one reply raise L{WireError}.
        """
        for data in (b"", b"+OK", b"?x\r\n", b":x\r\n", b"#x\r\n", b"*2\r\n:1\r\n", b":1\r\n:2\r\n"):
            self.assertRaises(WireError, self.parse, data)
