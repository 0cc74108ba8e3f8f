# -*- test-case-name: tests.wire.memcache.test_runs -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.memcache.runs} and L{txconnpool.wire.memcache.reordering}: one reply of
a server is split into the replies to several requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise, permutations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.errors import WireError
from txconnpool.metrics import Traffic
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.memcache.matching import REPLY_LINE_MAX
from txconnpool.wire.memcache.replies import GET
from txconnpool.wire.memcache.replyreader import ReplyReader
from txconnpool.wire.memcache.requestreader import RequestReader

END = b"END\r\n"
ERROR = b"SERVER_ERROR out of memory\r\n"

#: Contents of values, including those that look like the end of the value or like the next one.
BODIES = [
    *(b"", b"x", b"y", b"long" * 50),
    *(END, b"\r\n", b"\r\nEND\r\n", b"\r\nVALUE b 0 1\r\n", b"VALUE a 0 1\r\nx\r\nEND\r\n"),
]

#: Keys, each with its value or C{None}.
Found = Sequence[tuple[bytes, bytes | None]]


def valueOf(key: bytes, body: bytes, flags: int = 0) -> bytes:
    """
    @return: the line and the body of a value, as memcached sends them.
    """
    return b"VALUE %b %d %d\r\n%b\r\n" % (key, flags, len(body), body)


def reply(found: Found) -> bytes:
    """
    @return: memcached's reply to one request for all keys.
    """
    return b"".join(valueOf(key, body) for key, body in found if body is not None) + END


def owed(found: Found) -> bytes:
    """
    @return: memcached's replies to one request for each key.
    """
    return b"".join((b"" if body is None else valueOf(key, body)) + END for key, body in found)


class Reader:
    """
    Reads replies as a L{txconnpool.pool.connection.Connection} does.

    @ivar passed: the bytes for the client.
    @ivar count: the number of replies that are due.
    @ivar left: the bytes after the last reply.
    """

    def __init__(self, *keys: bytes) -> None:
        wire = Memcache()
        gets = b"".join(b"get %b\r\n" % key for key in keys)
        command, _, self.count, request = RequestReader().read(gets, 0, len(keys))
        assert command is GET and GET.keysOf is not None and self.count == len(keys) > 1
        self.request = request
        self.traffic = Traffic(len(wire.commands))
        self.passed = self.left = b""
        self.reader = ReplyReader()
        self._all = self.count

    def feed(self, pieces: Iterable[bytes]) -> None:
        """
        Read pieces of bytes.
        """
        for piece in pieces:
            data = self.left + piece
            pos, done, passed = self.reader.read(data, 0, GET, self._all, self.request, self.traffic)
            assert passed is not None
            self.passed += passed
            self.count -= done
            self.left = data[pos:]
            assert self.count == self.reader.left
            if not self.count:
                return


class RunTests(SynchronousTestCase):
    """
    Tests for merged gets.
    """

    def check(self, found: Found, pieces: Iterable[bytes]) -> Reader:
        """
        Read the reply in pieces.
        """
        reader = Reader(*(key for key, _ in found))
        reader.feed(pieces)
        self.assertEqual((reader.passed, reader.count), (owed(found), 0))
        self.assertEqual(reader.traffic.missed, sum(body is None for _, body in found))
        return reader

    def test_request(self) -> None:
        """
        A run is sent as one request.
        """
        self.assertEqual(Reader(b"a", b"bb", b"c").request, b"get a bb c\r\n")

    def test_cut(self) -> None:
        """
        Each value is followed by C{END}, and each key without a value has an C{END}, wherever the bytes are split.
        Bytes after the reply are left.
        """
        for bodies in (
            *([b"x"] * 4, [b""] * 4, [None] * 4, [END] * 4, [b"x", b"y", b"zz", b"zzz"]),
            *([None, b"x", None, b"x"], [b"x", None, None, None], [b"\r\nEND\r\n", b"x", b"\r\n", None]),
        ):
            found = list(zip((b"a", b"b", b"c", b"ddd"), bodies, strict=True))
            data = reply(found)
            for cut in range(len(data) + 1):
                self.check(found, [data[:cut], data[cut:]])
            self.check(found, [data[place : place + 1] for place in range(len(data))])
            self.assertEqual(self.check(found, [data + END]).left, END)

    @given(
        st.dictionaries(
            st.integers(0, 1000).map(b"%d".__mod__), st.sampled_from([None, *BODIES]), min_size=2, max_size=50
        ),
        st.data(),
    )
    def test_any(self, holds: dict[bytes, bytes | None], data: st.DataObject) -> None:
        """
        The same for random keys, values, pieces and orders of the values.
        """
        found = list(holds.items())
        says = reply(data.draw(st.one_of(st.just(found), st.permutations(found))))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(says)), max_size=10)))
        self.check(found, [says[start:end] for start, end in zip([0, *cuts], [*cuts, len(says)], strict=True)])

    @given(
        st.lists(st.sampled_from([b"a", b"b", b"c", b"dd", b"ee"]), max_size=7),
        st.lists(st.integers(0, 150), max_size=5),
    )
    def test_protected(self, sent: list[bytes], cuts: list[int]) -> None:
        """
        For any sequence of values there are either complete and correct replies in the order of the requests, or an
        error after the first ones of them.
        """
        asked = (b"a", b"b", b"c", b"dd")
        says = reply([(key, b"of " + key) for key in sent])
        reader = Reader(*asked)
        ends = sorted({min(cut, len(says)) for cut in cuts} | {0, len(says)})
        expected = owed([(key, b"of " + key if key in sent else None) for key in asked])
        try:
            reader.feed(says[start:end] for start, end in pairwise(ends))
        except WireError:
            self.assertTrue(len(set(sent)) < len(sent) or not set(sent) <= set(asked))
            self.assertTrue(expected.startswith(reader.passed), reader.passed)
        else:
            self.assertTrue(len(set(sent)) == len(sent) and set(sent) <= set(asked))
            self.assertEqual((reader.passed, reader.count), (expected, 0))

    def test_soon(self) -> None:
        """
        A value is passed on as it arrives, and its C{END} when the value is complete. The C{END} of the last key is
        passed on when the server has sent it.
        """
        reader = Reader(b"a", b"b", b"c", b"d")
        self.assertPassed(
            reader,
            (b"VALUE a 0 5\r\nab", b"VALUE a 0 5\r\nab", 4),
            (b"cde", b"cde", 4),
            (b"\r", b"", 4),
            (b"\n", b"\r\n" + END, 3),
            (valueOf(b"b", b"x") + b"VALUE", valueOf(b"b", b"x") + END, 2),
            (b" c 0 1\r\nx\r\n", valueOf(b"c", b"x") + END, 1),
            (b"EN", b"", 1),
            (b"D\r\n", END, 0),
        )

    def test_skipped(self) -> None:
        """
        After a key without a value, replies are held back, because the value may still come. Only what belongs to
        earlier keys is passed on. When the server's reply is complete, the others are, in the order of their keys.
        """
        reader = Reader(b"a", b"b", b"c", b"d", b"e")
        a, b, c, e = (valueOf(key, b"value") for key in (b"a", b"b", b"c", b"e"))
        self.assertPassed(
            reader,
            (a + c[:14], a + END, 4),
            (c[14:-1], b"", 4),
            (c[-1:] + e[:3], b"", 4),
            (e[3:], b"", 4),
            (b + b"EN", b"", 4),
            (b"D\r\n", b + END + c + END + END + e + END, 0),
        )
        self.assertEqual(reader.traffic.missed, 1)

    def test_held(self) -> None:
        """
        The reader counts the bytes that are held back. They are no part of a reply that was begun.
        """
        reader = Reader(b"a", b"b", b"c")
        for piece, held, begun in (
            *((b"VALUE b 0 3\r\n", 13, False), (b"xy", 15, False), (b"z\r", 16, False), (b"\n", 18, False)),
            *((b"VALUE a 0 1\r", 18, False), (b"\nx\r\n", 34, False), (b"END\r", 34, False), (b"\n", 0, False)),
        ):
            reader.feed([piece])
            self.assertEqual((reader.reader.held, reader.reader.begun), (held, begun), piece)

    def test_discard(self) -> None:
        """
        If held bytes are dropped, the rest of the reply is found and checked all the same.
        """
        a, b, d = (valueOf(key, b"value") for key in (b"a", b"b", b"d"))
        data = b + a[:16] + a[16:] + d[:9] + d[9:] + END
        for cut in range(1, len(data)):
            reader = Reader(b"a", b"b", b"c", b"d")
            reader.feed([data[:cut]])
            reader.reader.discard()
            self.assertEqual(reader.reader.held, 0)
            reader.feed([data[cut:] + END])
            self.assertEqual((reader.count, reader.left, reader.traffic.missed), (0, END, 1))
            if cut > len(b):
                for wrong in (b, valueOf(b"z", b"value")):
                    reader = Reader(b"a", b"b", b"c", b"d")
                    reader.feed([data[:cut]])
                    reader.reader.discard()
                    whole = next(end for end in (len(b), len(a + b), len(data) - 5, len(data)) if end >= cut)
                    if whole < len(data):
                        self.assertRaises(WireError, reader.feed, [data[cut:whole] + wrong])

    def assertPassed(self, reader: Reader, *steps: tuple[bytes, bytes, int]) -> None:
        """
        Feed pieces, and compare the bytes that are passed on after each, and the number of replies that are then due.
        """
        for piece, expected, count in steps:
            before = reader.passed
            reader.feed([piece])
            self.assertEqual((reader.passed[len(before) :], reader.count), (expected, count), piece)

    def test_anyOrder(self) -> None:
        """
        The values may come in any order, some of them or all, wherever the bytes are split. The replies are in the
        order of the keys.
        """
        for bodies in (
            [b"x", b"y", b"\r\n", b"END\r\n"],
            [b"x"] * 4,
            [None, b"x", b"", b"zzz"],
            [b"", None, None, b"x"],
        ):
            found = list(zip((b"a", b"b", b"c", b"ddd"), bodies, strict=True))
            for order in permutations(found):
                data = reply(order)
                for cut in range(len(data) + 1):
                    self.check(found, [data[:cut], data[cut:]])
                self.check(found, [data[place : place + 1] for place in range(len(data))])
                self.assertEqual(self.check(found, [data + END]).left, END)

    def test_error(self) -> None:
        """
        An error is the reply to each request, and is counted for each.
        """
        for error in (ERROR, b"ERROR\r\n"):
            for cut in range(len(error)):
                reader = Reader(b"a", b"b", b"c")
                reader.feed([error[:cut], error[cut:] + END])
                self.assertEqual((reader.passed, reader.count, reader.left), (error * 3, 0, END))
                self.assertEqual((reader.traffic.failed[GET.index], reader.traffic.missed), (3, 0))

    def test_wrongUncounted(self) -> None:
        """
        Values that arrive together with invalid bytes are not counted, because their requests are sent again.
        """
        reader = Reader(b"a", b"b", b"c")
        self.assertRaises(WireError, reader.feed, [valueOf(b"b", b"x") + valueOf(b"b", b"x")])
        self.assertEqual((reader.passed, reader.traffic.missed), (b"", 0))

    def test_wrong(self) -> None:
        """
        Bytes that cannot be a reply are an error, wherever they are split, and no bytes that belong to another client
        are passed on.
        """
        value, long = valueOf(b"a", b"x"), b"VALUE b" + b" " * REPLY_LINE_MAX
        wrong = [
            b"STORED\r\n",
            valueOf(b"z", b"secret"),
            valueOf(b"b", b"x") + valueOf(b"z", b"secret"),
            valueOf(b"b", b"x") + valueOf(b"b", b"secret"),
            valueOf(b"b", b"x") + value + valueOf(b"a", b"secret"),
            valueOf(b"b", b"x") + value + valueOf(b"b", b"secret"),
            valueOf(b"b", b"x") + ERROR,
            valueOf(b"b", b"x") + b"VALUE a 0 1\r\nx\r\nSTORED\r\n",
            valueOf(b"b", b"x") + b"VALUE a 0 1\r\nxx\r\n",
            valueOf(b"b", b"x") + b"VALUE a 0 1\r\nx\r\r\n",
            valueOf(b"b", b"x") + long,
            value + ERROR,
            value + valueOf(b"a", b"secret"),
            value + valueOf(b"b", b"x") + valueOf(b"b", b"secret"),
            value + b"VALUE b 0 1\r\nx\r\nSTORED\r\n",
            b"VALUE a 0 1\r\nxx\r\n",
            b"VALUE a 0 3\r\nx\r\nEND\r\n",
            b"VALUE a 0 1\r\nx\r\r\n",
            b"VALUE a 0 12345678901\r\n",
            long,
            value + long,
        ]
        for data in wrong:
            for cut in {0, 1, len(data) // 2, len(data) - 1, *range(min(len(data), 100))}:
                reader = Reader(b"a", b"b")
                with self.assertRaises(WireError, msg=f"{data!r} cut at {cut}"):
                    reader.feed([data[:cut], data[cut:], END])
                self.assertNotIn(b"secret", reader.passed)
