# -*- test-case-name: tests.wire.memcache.binary.test_requests -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for binary requests: how they are found, checked, and translated to text requests.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.memcache.binary.cases import (
    ADD,
    APPEND,
    CASES,
    DECR,
    DELETE,
    FLUSH,
    FLUSHQ,
    GAT,
    GATKQ,
    GET,
    GETKQ,
    GETQ,
    INCR,
    NOOP,
    PREPENDQ,
    REPLACE,
    SET,
    SETQ,
    STAT,
    STRANGE,
    TOUCH,
    VERBOSITY,
    VERSION,
)  # fmt: skip
from tests.wire.memcache.binary.packets import counter, header, number, reply, request, stored
from txconnpool.wire import ANSWER, BROADCAST, CLOSE, MORE, STATISTICS, Command, LocalAction
from txconnpool.wire import REPLACE as REPLACED
from txconnpool.wire.memcache.binary.requests import BinaryReader
from txconnpool.wire.memcache.requestreader import RequestReader

LIMIT = 1000


def reader(denied: bytes = b"", allowed: bytes | None = None) -> BinaryReader:
    """
    @return: a reader with limits.
    """
    words = None if allowed is None else frozenset(allowed.split())
    return BinaryReader(RequestReader(LIMIT, frozenset(denied.split()), words), lambda: 1_700_000_000.0)


def text(*requests: bytes) -> list[bytes]:
    """
    @return: the text requests for binary ones, each of which must be forwarded.
    """
    data = b"".join(requests)
    pos, found = 0, []
    while pos < len(data):
        what, end, count, payload = reader().read(data, pos, 1)
        assert isinstance(what, Command) and count == 1, what
        assert RequestReader(LIMIT).read(payload, 0, 1)[1] == len(payload), payload
        found.append(payload)
        pos = end
    return found


class TranslationTests(SynchronousTestCase):
    """
    Tests for the text requests.
    """

    def check(self, *pairs: tuple[bytes, bytes]) -> None:
        """
        Compare the text requests for binary ones. The key of the request is known.
        """
        for binary, expected in pairs:
            self.assertEqual(text(binary), [expected])
            what, *_ = reader().read(binary, 0, 1)
            assert isinstance(what, Command)
            if b"k" in expected.split():
                self.assertEqual(what.key(binary, 0), b"k")

    def test_retrievals(self) -> None:
        """
        Gets are sent as classic commands, which return the cas and leave the winner of a stale item alone.
        """
        self.check(
            (request(GET, b"k"), b"gets k\r\n"),
            (request(GETKQ, b"k"), b"gets k\r\n"),
            (request(GAT, b"k", number(60)), b"gats 60 k\r\n"),
            (request(GATKQ, b"k", number(1 << 31)), b"gats 0 k\r\n"),
            (request(TOUCH, b"k", number(60)), b"mg k T60 c f\r\n"),
        )

    def test_common(self) -> None:
        """
        The most common request is read quickly if no request can be refused, with the same result.
        """
        for data in (
            request(GET, b"k"),
            request(GET, b"k" * 250),
            request(GET, STRANGE),
            request(GET, b"k" * 251),
            request(GET),
            request(GET, b"k", b"x"),
            request(GET, b"k", b"", b"v"),
            request(GET, b"k")[:-1],
        ):
            quick, thorough = reader().read(data, 0, 1), reader(b"verbosity").read(data, 0, 1)
            self.assertEqual(quick[1:], thorough[1:])
            if isinstance(quick[0], Command) and isinstance(thorough[0], Command):
                self.assertIs(type(quick[0]), type(thorough[0]))
                self.assertEqual(quick[0].visible(b"END\r\n"), thorough[0].visible(b"END\r\n"))
            else:
                self.assertIs(quick[0], thorough[0])

    def test_changes(self) -> None:
        """
        Changes are sent as meta commands, which return the cas. What has its ordinary value is left out.
        """
        self.check(
            (request(SET, b"k", stored(), b"v"), b"ms k 1 c\r\nv\r\n"),
            (request(SETQ, b"k", stored(7, 60), b"v"), b"ms k 1 F7 T60 c\r\nv\r\n"),
            (request(SET, b"k", stored(0, 0xFFFFFFFF), b""), b"ms k 0 c\r\n\r\n"),
            (request(ADD, b"k", stored(), b"v"), b"ms k 1 ME c\r\nv\r\n"),
            (request(REPLACE, b"k", stored(), b"v"), b"ms k 1 MR c\r\nv\r\n"),
            (request(APPEND, b"k", b"", b"v", cas=9), b"ms k 1 MA C9 c\r\nv\r\n"),
            (request(PREPENDQ, b"k", b"", b"v"), b"ms k 1 MP c\r\nv\r\n"),
            (request(ADD, b"k", stored(), b"v", cas=9), b"ms k 1 C9 c\r\nv\r\n"),
            (request(DELETE, b"k"), b"md k\r\n"),
            (request(DELETE, b"k", cas=9), b"md k C9\r\n"),
            (request(INCR, b"k", counter(5)), b"ma k D5 c v\r\n"),
            (request(DECR, b"k", counter(5, 8, 60), cas=9), b"ma k D5 MD N60 J8 C9 c v\r\n"),
        )

    def test_strangeKeys(self) -> None:
        """
        A key that a text request cannot carry is sent in base64. A router gets the key itself.
        """
        word = b"YSBrZXkNCmdldCAAIGs="
        for binary, expected in (
            (request(GET, STRANGE), b"mg %b b c f v\r\n"),
            (request(GETKQ, STRANGE), b"mg %b b c f v\r\n"),
            (request(GAT, STRANGE, number(9)), b"mg %b b T9 c f v\r\n"),
            (request(TOUCH, STRANGE, number(9)), b"mg %b b T9 c f\r\n"),
            (request(SET, STRANGE, stored(), b"v"), b"ms %b 1 b c\r\nv\r\n"),
            (request(DELETE, STRANGE), b"md %b b\r\n"),
            (request(INCR, STRANGE, counter(5)), b"ma %b b D5 c v\r\n"),
        ):
            self.assertEqual(text(binary), [expected % word])
            what, *_ = reader().read(binary, 0, 1)
            assert isinstance(what, Command)
            self.assertEqual(what.key(binary, 0), STRANGE)

    def test_severalGets(self) -> None:
        """
        Quiet gets are sent together, and a no-operation after them is answered with them. At most fifty are, and each
        key once.
        """
        gets = [request(GETKQ, b"k%d" % each) for each in range(60)]
        noop = request(NOOP)
        line = [b"gets " + b" ".join(b"k%d" % each for each in range(*ends)) + b"\r\n" for ends in ((0, 50), (50, 60))]
        self.assertEqual(text(*gets), line)
        self.assertEqual(text(*gets, noop), line)
        self.assertEqual(text(gets[0], request(GETQ, b"k0"), gets[1], noop), [b"gets k0\r\n", b"gets k0 k1\r\n"])
        self.assertEqual(text(gets[0], noop), [b"gets k0\r\n"])
        self.assertEqual(text(gets[0], gets[1], request(GET, b"k2")), [b"gets k0 k1\r\n", b"gets k2\r\n"])
        self.assertEqual(text(gets[0], gets[1], request(GETQ, b" ")), [b"gets k0 k1\r\n", b"mg IA== b c f v\r\n"])
        incomplete = gets[0] + gets[1][:-1]
        self.assertEqual(reader().read(incomplete, 0, 1)[1], len(gets[0]))

    def test_others(self) -> None:
        """
        Requests for every server, for statistics, and those that are answered here.
        """
        read = reader().read
        self.assertEqual(text(request(VERSION)), [b"version\r\n"])
        for binary, line in (
            (request(FLUSH), b"flush_all\r\n"),
            (request(FLUSHQ, b"", number(60)), b"flush_all 60\r\n"),
            (request(FLUSH, b"", number(0xFFFFFFFF)), b"flush_all 2147483647\r\n"),
            (request(VERBOSITY, b"", number(2)), b"verbosity 2\r\n"),
        ):
            what, end, count, (_, sent) = read(binary, 0, 1)
            self.assertEqual((what, end, count, sent), (BROADCAST, len(binary), 0, line))
        what, end, _, (_, words) = read(request(STAT, b"upstream items"), 0, 1)
        self.assertEqual((what, end, words), (STATISTICS, 38, (b"upstream", b"items")))
        self.assertEqual(read(request(NOOP), 0, 1), (ANSWER, 24, 0, reply(NOOP)))

    def test_tooLarge(self) -> None:
        """
        A value that is too large is refused as soon as its length is known. A set deletes the old value.
        """
        for opcode, line in ((SET, b"md k\r\n"), (SETQ, b"md k\r\n")):
            data = request(opcode, b"k", stored(), bytes(LIMIT + 1))
            what, end, _, payload = reader().read(data[:40], 0, 1)
            self.assertEqual((what, end, payload[1:]), (REPLACED, len(data), (line, reply(opcode, 3, b"Too large."))))
        data = request(APPEND, b"k", b"", bytes(LIMIT + 1))
        self.assertEqual(reader().read(data[:40], 0, 1), (ANSWER, len(data), 0, reply(APPEND, 3, b"Too large.")))


class PermissionTests(SynchronousTestCase):
    """
    Tests for C{allow-commands} and C{deny-commands}, which are the same for binary and for text requests.
    """

    def refused(self, data: bytes, **limits: Any) -> bytes | None:
        """
        @return: the name of the command that is refused; C{None} if the request is accepted.
        """
        what, end, count, payload = reader(**limits).read(data, 0, 1)
        if what is not ANSWER or payload[6:8] != b"\0\x83":
            return None
        assert (end, count) == (len(data), 0)
        name: bytes = payload[24:].removesuffix(b" not allowed")
        return name

    def test_effects(self) -> None:
        """
        Each request has the effects of the text command that does the same. An expiry time in the past is a deletion.
        """
        past, future = 2592001, 1_800_000_000
        table: list[tuple[bytes, bytes, bytes]] = [
            (request(GET, b"k"), b"get", b"r"),
            (request(GETKQ, b"k"), b"get", b"r"),
            (request(GETQ, b"k") + request(GETQ, b"j"), b"get", b"r"),
            (request(GAT, b"k", number(60)), b"gat", b"rw"),
            (request(GAT, b"k", number(past)), b"gat", b"rwd"),
            (request(TOUCH, b"k", number(future)), b"touch", b"w"),
            (request(TOUCH, b"k", number(past)), b"touch", b"wd"),
            (request(SET, b"k", stored(), b"v"), b"set", b"w"),
            (request(SETQ, b"k", stored(0, past), b"v"), b"set", b"wd"),
            (request(ADD, b"k", stored(), b"v", cas=1), b"cas", b"w"),
            (request(PREPENDQ, b"k", b"", b"v"), b"prepend", b"w"),
            (request(INCR, b"k", counter(1)), b"incr", b"w"),
            (request(DECR, b"k", counter(1, 1, past)), b"decr", b"wd"),
            (request(DELETE, b"k"), b"delete", b"d"),
            (request(FLUSHQ), b"flush_all", b"da"),
            (request(VERBOSITY, b"", number(1)), b"verbosity", b"a"),
            (request(STAT), b"stats", b"a"),
            (request(VERSION), b"version", b""),
            (request(NOOP), b"mn", b""),
        ]
        words = {b"r": b"@read", b"w": b"@write", b"d": b"@delete", b"a": b"@admin"}
        for data, name, effects in table:
            self.assertIsNone(self.refused(data), data)
            single = data if name != b"get" else data[:25]
            self.assertEqual(self.refused(single, denied=name), name)
            for letter, word in words.items():
                self.assertEqual(self.refused(single, denied=word), name if letter in effects else None, (data, word))
            self.assertIsNone(self.refused(data, allowed=b" ".join(words[bytes([each])] for each in effects)), data)
            if effects:
                self.assertEqual(self.refused(single, allowed=b""), name)

    def test_severalGets(self) -> None:
        """
        Quiet gets that are refused are refused one by one; a no-operation that is refused is not answered with gets.
        """
        data = request(GETQ, b"a", opaque=b"0001") + request(GETQ, b"b", opaque=b"0002")
        self.assertEqual(reader(b"@read").read(data, 0, 1)[1], 25)
        data = request(GETQ, b"a") + request(NOOP)
        self.assertEqual(reader(b"mn").read(data, 0, 1)[1], 25)

    def test_tooLarge(self) -> None:
        """
        A value that is too large deletes nothing for a client that may not delete.
        """
        data = request(SET, b"k", stored(), bytes(LIMIT + 1))
        self.assertIs(reader(b"@delete").read(data, 0, 1)[0], ANSWER)
        self.assertEqual(self.refused(data, denied=b"set"), b"set")


class BytesTests(SynchronousTestCase):
    """
    Tests for any bytes.
    """

    def test_incomplete(self) -> None:
        """
        The beginning of a request waits for as many bytes as are certainly needed.
        """
        read = reader().read
        data = request(SET, b"key", stored(), b"value")
        for size in range(1, len(data)):
            need = 24 if size < 24 else 35 if size < 35 else 40
            self.assertEqual(read(data[:size], 0, 1), (MORE, 0, 0, need))
            self.assertEqual(read(b"\x80" + data[:size], 1, 1), (MORE, 1, 0, need))

    def test_refusal(self) -> None:
        """
        If the servers cannot execute the translated requests, a client gets the reason, and is closed.
        """
        binary = reader()
        binary.refusal = b"why"
        self.assertEqual(binary.read(request(GETQ, b"k"), 0, 1), (CLOSE, 25, 0, reply(GETQ, 0x83, b"why")))

    @settings(deadline=None, max_examples=400)
    @given(
        st.lists(
            st.sampled_from([case.sent for case in CASES if len(case.sent) < 3000])
            | st.binary(max_size=60)
            | st.builds(
                header, st.sampled_from((0x80, 0x80, 0x80, 0)), st.integers(0, 255), st.integers(0, 300),
                st.integers(0, 30), st.just(0), st.integers(0, 400),
            ),
            max_size=6,
        ),
    )  # fmt: skip
    def test_any(self, parts: list[bytes]) -> None:
        """
        Any bytes are found to be requests until the client is closed, or more are needed. What is forwarded is one
        complete text request, which the check of text requests accepts.
        """
        data = b"".join(parts)
        binary, plain = reader(), RequestReader(LIMIT)
        pos = 0
        while pos < len(data):
            what, end, _, payload = binary.read(data, pos, 1)
            if what is MORE:
                self.assertGreater(payload, len(data) - pos)
                self.assertLessEqual(payload, 24 + (1 << 16) + 300)
                break
            if what is CLOSE:
                break
            self.assertGreater(end, pos)
            if what is BROADCAST:
                what, payload = payload
            elif what is REPLACED:
                what, payload, _ = payload
            if isinstance(what, LocalAction):
                self.assertIn(what, (ANSWER, STATISTICS))
            else:
                accepted, stop, _, _ = plain.read(payload, 0, 1)
                if accepted is not BROADCAST:
                    self.assertIsInstance(accepted, Command, payload)
                self.assertEqual(stop, len(payload))
            pos = end
