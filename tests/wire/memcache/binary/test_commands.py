# -*- test-case-name: tests.wire.memcache.binary.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the replies to binary requests: the table of cases with an embedded memcached, and the replies of servers that
are errors or come in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.memcache.binary.cases import (
    APPEND,
    CASES,
    DELETE,
    FLUSH,
    FLUSHQ,
    GET,
    GETK,
    GETKQ,
    GETQ,
    INCR,
    NOOP,
    SET,
    SETQ,
    STAT,
    STRANGE,
    TOUCH,
    VERSION,
    Case,
)  # fmt: skip
from tests.wire.memcache.binary.packets import counter, long, normal, number, reply, request, split, stored
from txconnpool.errors import WireError
from txconnpool.memcache.memory import MemcachedFactory, Store
from txconnpool.metrics import Traffic
from txconnpool.wire import BROADCAST
from txconnpool.wire.memcache.binary.requests import BinaryReader
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.memcache.replyreader import ReplyReader
from txconnpool.wire.memcache.requestreader import RequestReader

#: memcached's limit is for the whole item.
ITEM_MAX = (1 << 20) - 300


def store() -> Store:
    """
    @return: a store with the limit of the table.
    """
    made = Store()
    made.itemMax = ITEM_MAX
    return made


def converse(pieces: Sequence[bytes]) -> tuple[bytes, bool]:
    """
    Send pieces to an embedded memcached.

    @return: its replies, and whether it closes the connection.
    """
    clock = Clock()
    clock.advance(1_700_000_000)
    protocol = MemcachedFactory(clock, store()).buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    for piece in pieces:
        if not transport.disconnecting:
            protocol.dataReceived(piece)
    return transport.value(), transport.disconnecting


def pieces(data: bytes) -> list[list[bytes]]:
    """
    @return: C{data} in two pieces in every way, and byte by byte; only some of them if it is long.
    """
    step = 1 + len(data) // 100
    cuts = range(1, len(data), step)
    whole = [[data[:place], data[place:]] for place in cuts]
    return [*whole, [data[place : place + step] for place in range(0, len(data), step)]]


class TableTests(SynchronousTestCase):
    """
    Tests with the table, which C{tests/real/test_binary.py} compares with a real memcached.
    """

    def check(self, case: Case, parts: Sequence[bytes]) -> None:
        """
        Compare the replies to a case with the table.
        """
        answer, closes = converse(parts)
        # What memcached closes has no reply for what comes after it.
        self.assertEqual((normal(answer), closes), (normal(case.expected), case.closes), str(case)[:1000])

    def test_whole(self) -> None:
        """
        An embedded memcached replies as in the table.
        """
        for case in CASES:
            self.check(case, [case.sent])

    def test_pieces(self) -> None:
        """
        However the requests are cut, the replies are the same.
        """
        for case in CASES:
            if len(case.sent) < 300:
                for parts in pieces(case.sent):
                    self.check(case, parts)

    @settings(deadline=None, max_examples=40)
    @given(st.sampled_from([case for case in CASES if len(case.sent) >= 300]), st.lists(st.integers(1, 1 << 20)))
    def test_large(self, case: Case, cuts: list[int]) -> None:
        """
        The same for long requests.
        """
        places = sorted({cut for cut in cuts if cut < len(case.sent)})
        parts = [case.sent[start:end] for start, end in zip([0, *places], [*places, len(case.sent)], strict=True)]
        self.check(case, parts)


class ServerTests(SynchronousTestCase):
    """
    Tests with given replies of a server.
    """

    def replies(self, data: bytes, parts: Sequence[bytes]) -> bytes:
        """
        @param data: one request, or several that are sent as one.
        @param parts: the server's reply.

        @return: the bytes for the client.
        """
        what, end, _, payload = BinaryReader(RequestReader()).read(data, 0, 1)
        self.assertEqual(end, len(data))
        if what is BROADCAST:
            what, payload = payload
        return self.read(what, payload, parts)

    def read(self, what: object, sent: bytes, parts: Sequence[bytes]) -> bytes:
        """
        Read a reply as a connection does.
        """
        reader, traffic = ReplyReader(), Traffic(len(Memcache.commands))
        kept = sent if what.keepsRequest else None  # type: ignore[attr-defined]
        tail = answer = b""
        finished = 0
        for part in parts:
            self.assertFalse(finished, "bytes after the reply")
            tail += part
            end, finished, given = reader.read(tail, 0, what, 1, kept, traffic)  # type: ignore[arg-type]
            if end:
                self.assertIsNotNone(given)
            answer += given or b""
            tail = tail[end:]
            self.assertEqual(reader.left, 1 - finished)
        self.assertEqual((tail, finished), (b"", 1))
        return answer

    def check(self, data: bytes, server: bytes, expected: bytes) -> None:
        """
        Compare the reply for a client, with the reply of the server in any pieces.
        """
        self.assertEqual(self.replies(data, [server]), expected)
        for parts in pieces(server):
            self.assertEqual(self.replies(data, parts), expected, parts)

    def test_pieces(self) -> None:
        """
        The reply of a server may arrive in any pieces.
        """
        hit = number(5)
        self.check(request(GET, b"k"), b"VALUE k 5 3 9\r\nabc\r\nEND\r\n", reply(GET, 0, b"abc", b"", hit, cas=9))
        self.check(request(GETK, b"k"), b"END\r\n", reply(GETK, 1, b"", b"k"))
        self.check(request(GETQ, b"k"), b"END\r\n", b"")
        self.check(request(GET, b" "), b"VA 3 c9 f5\r\nabc\r\n", reply(GET, 0, b"abc", b"", hit, cas=9))
        self.check(request(GET, b" "), b"VA 3 c9 f5 W\r\nabc\r\n", reply(GET, 0, b"abc", b"", hit, cas=9))
        self.check(request(GET, b" "), b"EN\r\n", reply(GET, 1, b"Not found"))
        self.check(request(TOUCH, b"k", number(1)), b"HD c9 f5\r\n", reply(TOUCH, 0, b"", b"", hit, cas=9))
        self.check(request(SET, b"k", stored(), b"v"), b"HD c9\r\n", reply(SET, cas=9))
        self.check(request(SETQ, b"k", stored(), b"v"), b"HD c9\r\n", b"")
        self.check(request(INCR, b"k", counter(1)), b"VA 3 c9\r\n12 \r\n", reply(INCR, 0, long(12), cas=9))
        self.check(request(DELETE, b"k"), b"HD\r\n", reply(DELETE))
        self.check(request(VERSION), b"VERSION 1.6.18\r\n", reply(VERSION, 0, b"1.6.18"))
        self.check(request(FLUSH), b"OK\r\n", reply(FLUSH))
        self.check(
            request(GETQ, b"a", opaque=b"0001") + request(GETKQ, b"b", opaque=b"0002") + request(NOOP),
            b"VALUE a 5 3 9\r\nabc\r\nVALUE b 5 0 8\r\n\r\nEND\r\n",
            reply(GETQ, 0, b"abc", b"", hit, b"0001", 9) + reply(GETKQ, 0, b"", b"b", hit, b"0002", 8) + reply(NOOP),
        )

    def test_errors(self) -> None:
        """
        The errors of a server have statuses. A quiet request has a reply if it fails.
        """
        for line, status, text in (
            (b"SERVER_ERROR object too large for cache\r\n", 3, b"Too large."),
            (b"SERVER_ERROR out of memory storing object\r\n", 0x82, b"out of memory storing object"),
            (b"SERVER_ERROR backend failure\r\n", 0x84, b"backend failure"),
        ):
            self.check(request(SET, b"k", stored(), b"v"), line, reply(SET, status, text))
            self.check(request(SETQ, b"k", stored(), b"v"), line, reply(SETQ, status, text))
            self.check(request(GETQ, b"k"), line, reply(GETQ, status, text))
        self.check(request(INCR, b"k", counter(1)), b"ERROR\r\n", reply(INCR, 0x81, b"Unknown command"))
        self.check(request(DELETE, b"k"), b"CLIENT_ERROR bad format\r\n", reply(DELETE, 4, b"bad format"))
        self.check(
            request(FLUSHQ), b"CLIENT_ERROR flush_all not allowed\r\n", reply(FLUSHQ, 4, b"flush_all not allowed")
        )

    def test_severalErrors(self) -> None:
        """
        If gets that were sent together fail, each has an error, and the no-operation after them its reply.
        """
        self.check(
            request(GETQ, b"a", opaque=b"0001") + request(GETKQ, b"b", opaque=b"0002") + request(NOOP),
            b"SERVER_ERROR x\r\n",
            reply(GETQ, 0x84, b"x", opaque=b"0001") + reply(GETKQ, 0x84, b"x", opaque=b"0002") + reply(NOOP),
        )

    def test_wrong(self) -> None:
        """
        Bytes that are no reply to the request are not translated.
        """
        for data, server in (
            (request(GET, b"k"), b"VALUE j 0 1 1\r\nx\r\nEND\r\n"),
            (request(GET, b"k"), b"VALUE k 0 1\r\nx\r\nEND\r\n"),
            (request(GET, b"k"), b"STORED\r\n"),
            (request(SET, b"k", stored(), b"v"), b"ERROR\r\n"),
            (request(INCR, b"k", counter(1)), b"VA 5000 c1\r\n1"),
        ):
            with self.assertRaises(WireError):
                self.replies(data, [server])

    def test_unexpected(self) -> None:
        """
        A server that leaves out what was requested, such as the cas, gets an error and no exception.
        """
        for data, server in (
            (request(SET, b"k", stored(), b"v"), b"HD\r\n"),
            (request(TOUCH, b"k", number(1)), b"HD\r\n"),
            (request(INCR, b"k", counter(1)), b"VA 1 c1\r\nx\r\n"),
            (request(GET, b" "), b"VA 1\r\nx\r\n"),
        ):
            (packet,), rest = split(self.replies(data, [server]))
            self.assertEqual((packet.status, rest), (0x84, b""), data)

    def test_visible(self) -> None:
        """
        An error of the proxy becomes a packet in the same way.
        """
        for data in (request(GETQ, b"k"), request(SETQ, b"k", stored(), b"v"), request(APPEND, STRANGE, b"", b"v")):
            what, *_ = BinaryReader(RequestReader()).read(data, 0, 1)
            opcode = data[1]
            line = b"SERVER_ERROR upstream lost\r\n"
            self.assertEqual(what.visible(line), reply(opcode, 0x84, b"upstream lost"))  # type: ignore[union-attr]

    def test_join(self) -> None:
        """
        Of the replies of several servers the client gets the first error, else the first one. Those of servers are
        translated already, an error of the proxy is not.
        """
        for opcode, done in ((FLUSH, reply(FLUSH)), (FLUSHQ, b"")):
            _, _, _, (command, _) = BinaryReader(RequestReader()).read(request(opcode), 0, 1)
            error = reply(opcode, 0x84, b"x")
            self.assertEqual(command.join([done, done]), done)
            self.assertEqual(command.join([done, b"SERVER_ERROR x\r\n"]), error)
            self.assertEqual(command.join([done, error, done]), error)

    def test_statistics(self) -> None:
        """
        Each statistic is a packet, and an empty one is the last.
        """
        _, _, _, (command, _) = BinaryReader(RequestReader()).read(request(STAT), 0, 1)
        items = (b"pid", b"7"), (b"version", b"a b"), (b"none", b"")
        text = b"".join(b"STAT %b %b\r\n" % item for item in items)
        packets = b"".join(reply(STAT, 0, value, name) for name, value in items)
        self.assertEqual(command.visible(text + b"END\r\n"), packets + reply(STAT))
        self.assertEqual(command.visible(b"RESET\r\n"), reply(STAT))
        self.assertEqual(command.visible(b"ERROR\r\n"), reply(STAT, 1, b"Not found"))
        self.assertEqual(command.visible(b"SERVER_ERROR x\r\n"), reply(STAT, 0x84, b"x"))
