# -*- test-case-name: tests.wire.memcache.test_runs -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.memcache.runs}: one reply of a server, made into those that a client is owed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.errors import WireError
from txconnpool.metrics import Traffic
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.memcache.matching import REPLY_LINE_MAX
from txconnpool.wire.memcache.replies import GET
from txconnpool.wire.memcache.runs import matchRun

END = b"END\r\n"
ERROR = b"SERVER_ERROR out of memory\r\n"

#: What may be in a value, the worst included: what looks like the end of it, or like the next one.
BODIES = [
    *(b"", b"x", b"y", b"long" * 50),
    *(END, b"\r\n", b"\r\nEND\r\n", b"\r\nVALUE b 0 1\r\n", b"VALUE a 0 1\r\nx\r\nEND\r\n"),
]

#: Keys, each with what it holds, if anything.
Found = Sequence[tuple[bytes, bytes | None]]


def told(key: bytes, body: bytes, flags: int = 0) -> bytes:
    """
    @return: how memcached tells a value.
    """
    return b"VALUE %b %d %d\r\n%b\r\n" % (key, flags, len(body), body)


def reply(found: Found) -> bytes:
    """
    @return: what memcached says to a request for all.
    """
    return b"".join(told(key, body) for key, body in found if body is not None) + END


def owed(found: Found) -> bytes:
    """
    @return: what it says to a request for each.
    """
    return b"".join((b"" if body is None else told(key, body)) + END for key, body in found)


class Reader:
    """
    Reads replies as a L{txconnpool.pool.connection.Connection} does.

    @ivar told: what the client was given.
    @ivar count: replies that it is still owed.
    @ivar left: bytes behind the last of them.
    """

    def __init__(self, *keys: bytes) -> None:
        wire = Memcache()
        gets = b"".join(b"get %b\r\n" % key for key in keys)
        command, _, self.count, request = wire.requestReader().read(gets, 0, len(keys))
        assert command is GET and GET.keysOf is not None and self.count == len(keys) > 1
        self.request = request
        self.traffic = Traffic(len(wire.commands))
        self.told = self.left = b""
        self._all = self.count
        self._asked = GET.keysOf(request)
        self._due = -1

    def feed(self, pieces: Iterable[bytes]) -> None:
        """
        Read bytes that came.
        """
        for piece in pieces:
            data = self.left + piece
            pos, self.count, self._due, told = matchRun(
                data, 0, GET, self.count, self._due, self._asked, self.traffic, self.count == self._all
            )
            self.told += told
            self.left = data[pos:]
            if not self.count:
                return


class RunTests(SynchronousTestCase):
    """
    Tests for L{matchRun}.
    """

    def check(self, found: Found, pieces: Iterable[bytes]) -> Reader:
        """
        Read the reply in pieces.
        """
        reader = Reader(*(key for key, _ in found))
        reader.feed(pieces)
        self.assertEqual((reader.told, reader.count), (owed(found), 0))
        self.assertEqual(reader.traffic.missed, sum(body is None for _, body in found))
        return reader

    def test_request(self) -> None:
        """
        What is sent is one request.
        """
        self.assertEqual(Reader(b"a", b"bb", b"c").request, b"get a bb c\r\n")

    def test_cut(self) -> None:
        """
        Each value has its end behind it, and each key without one an end, wherever the bytes are torn apart. What
        follows is left.
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
        So it is whatever is asked for and found.
        """
        found = list(holds.items())
        says = reply(found)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(says)), max_size=10)))
        self.check(found, [says[start:end] for start, end in zip([0, *cuts], [*cuts, len(says)], strict=True)])

    def test_soon(self) -> None:
        """
        A value is passed on as it comes, and with its end as soon as it is whole, but for that of the last key, which
        the server has yet to say. What was missed is known when something behind it comes.
        """
        reader = Reader(b"a", b"b", b"c", b"d")
        for piece, tells, count in (
            (b"VALUE b 0 5\r\nab", END + b"VALUE b 0 5\r\nab", 3),
            (b"cde", b"cde", 3),
            (b"\r", b"", 3),
            (b"\n", b"\r\n" + END, 2),
            (b"VALUE d 0 1\r\nx\r\n", END + b"VALUE d 0 1\r\nx", 1),
            (b"EN", b"", 1),
            (b"D\r\n", b"\r\n" + END, 0),
        ):
            before = reader.told
            reader.feed([piece])
            self.assertEqual((reader.told[len(before) :], reader.count), (tells, count), piece)

    def test_error(self) -> None:
        """
        An error answers each request, and is counted for each.
        """
        for error in (ERROR, b"ERROR\r\n"):
            for cut in range(len(error)):
                reader = Reader(b"a", b"b", b"c")
                reader.feed([error[:cut], error[cut:] + END])
                self.assertEqual((reader.told, reader.count, reader.left), (error * 3, 0, END))
                self.assertEqual((reader.traffic.failed[GET.index], reader.traffic.missed), (3, 0))

    def test_wrongUncounted(self) -> None:
        """
        What comes together with something wrong does not count: it will be asked again.
        """
        reader = Reader(b"a", b"b", b"c")
        self.assertRaises(WireError, reader.feed, [told(b"b", b"x") + told(b"a", b"x")])
        self.assertEqual((reader.told, reader.traffic.missed), (b"", 0))

    def test_wrong(self) -> None:
        """
        What a server cannot say to what was asked is refused, wherever the bytes are torn apart, and nothing of it is
        passed on that is somebody else's.
        """
        value, long = told(b"a", b"x"), b"VALUE b" + b" " * REPLY_LINE_MAX
        wrong = [
            b"STORED\r\n",
            told(b"z", b"secret"),
            told(b"b", b"x") + told(b"a", b"secret"),
            value + ERROR,
            value + told(b"a", b"secret"),
            value + told(b"b", b"x") + told(b"b", b"secret"),
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
                self.assertNotIn(b"secret", reader.told)
