# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.memcache.keys}: the keys of requests, and the values in replies to a part of the keys.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.errors import WireError
from txconnpool.metrics import Traffic
from txconnpool.wire import Command, LocalAction
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.memcache.keys import collectReply, keyOf, layoutOf, requestFor
from txconnpool.wire.memcache.matching import MemcacheCommand
from txconnpool.wire.memcache.replies import GAT, GATS, GET, GETS, SEVERAL
from txconnpool.wire.memcache.replyreader import ReplyReader
from txconnpool.wire.memcache.requestreader import RequestReader

END = b"END\r\n"

#: Requests with a key, as words before and after it.
KEYED = [
    *((word, b"") for word in (b"get", b"gets", b"gat 10", b"gats -1", b"delete", b"mg", b"md", b"ma", b"me")),
    *((word, b"0 0 3\r\nabc") for word in (b"set", b"add", b"replace", b"append", b"prepend")),
    *((b"cas", b"0 0 3 7\r\nabc"), (b"incr", b"1"), (b"decr", b"1"), (b"touch", b"10"), (b"ms", b"3\r\nabc")),
    *(
        (b"mg", b"v q k Ob"),
        (b"ms", b"3 F3 T5 Ob\r\nabc"),
        (b"delete", b"noreply"),
        (b"get", b"other"),
        (b"gat 1", b"b"),
    ),
]

#: Requests without a key.
KEYLESS = [b"version\r\n", b"mn\r\n", b"flush_all\r\n", b"flush_all 10\r\n", b"verbosity 1\r\n", b"stats items\r\n"]

#: Bodies of values, including those that look like the end of the value or like the next one.
BODIES = [b"", b"x", b"y", b"long" * 20, END, b"\r\n", b"\r\nEND\r\n", b"\r\nVALUE b 0 1\r\n", b"VALUE a 0 1\r\nx\r\n"]

#: The retrievals of several keys.
RETRIEVALS = [(b"get", SEVERAL[GET]), (b"gets", SEVERAL[GETS]), (b"gat 5", SEVERAL[GAT]), (b"gats 5", SEVERAL[GATS])]

keys = st.binary(min_size=1, max_size=30).map(lambda key: bytes(each for each in key if each not in b" \n\0"))


def valueOf(key: bytes, body: bytes, flags: int = 0, unique: bytes = b"") -> bytes:
    """
    @return: the line and the body of a value, as memcached sends them.
    """
    return b"VALUE %b %d %d%b\r\n%b\r\n" % (key, flags, len(body), unique, body)


class KeyTests(SynchronousTestCase):
    """
    Tests for L{keyOf}.
    """

    def check(self, request: bytes, key: bytes | None) -> None:
        """
        Assert that a request is accepted, and has this key, wherever it begins.
        """
        what, end, count, _ = RequestReader().read(request, 0, 1)
        self.assertIsInstance(what, (Command, LocalAction))
        if key is not None:
            self.assertIsInstance(what, Command, str(request))
            self.assertEqual((end, count), (len(request), 1), request)
        self.assertEqual(keyOf(request, 0), key, request)
        before = b"get before\r\nmg YQ== b\r\n"
        self.assertEqual(keyOf(before + request + b"get after b\r\n", len(before)), key, request)

    def test_commands(self) -> None:
        """
        All commands that have a key.
        """
        for word, rest in KEYED:
            self.check(word + b" k:1 " + rest + b"\r\n" if rest else word + b" k:1\r\n", b"k:1")
        named = {word.split()[0].decode() for word, _ in KEYED}
        self.assertEqual(
            {command.name for command in Memcache().commands} - named,
            {"version", "mn", "flush_all", "verbosity", "stats", "auth", "lru_crawler", "cache_memlimit"},
        )

    def test_keyless(self) -> None:
        """
        All commands that have none.
        """
        for request in KEYLESS:
            self.check(request, None)

    @given(
        st.sampled_from(KEYED), keys.filter(bool), st.lists(st.integers(1, 3), min_size=4, max_size=4), st.booleans()
    )
    def test_spaces(self, request: tuple[bytes, bytes], key: bytes, spaces: list[int], bare: bool) -> None:
        """
        Spaces between the words, before and after them, and other line ends are no part of a key. It may contain CR.
        """
        word, rest = request
        if key.endswith(b"\r") and not rest:
            key += b"k"
        before, between, beyond, after = (b" " * count for count in spaces)
        line, _, block = rest.partition(b"\r\n")
        data = (before if spaces[0] > 1 else b"") + word.replace(b" ", between) + between + key
        if line:
            data += beyond + line.replace(b" ", beyond)
        if not data.endswith(b"noreply"):
            data += after if spaces[3] > 1 else b""
        data += (b"\n" if bare else b"\r\n") + (block + b"\r\n" if block else b"")
        self.check(data, key)

    @given(
        st.sampled_from([b"mg", b"ms", b"md", b"ma", b"me"]), keys.filter(bool), st.sampled_from([b"", b"v ", b"k q "])
    )
    def test_base64(self, word: bytes, key: bytes, flags: bytes) -> None:
        """
        A key in base64 is that which memcached looks up.
        """
        coded = base64.b64encode(key)
        size = b"1 " if word == b"ms" else b""
        flags = flags.replace(b"v ", b"") if word in (b"ms", b"md") else b"" if word == b"me" else flags
        self.check(b"%b %b %b%bb\r\n" % (word, coded, size, flags) + (b"X\r\n" if size else b""), key)

    def test_flags(self) -> None:
        """
        memcached looks at the first letter of a flag, except for C{me}, which knows this flag only, and only as the
        first one. In other places a C{b} is none.
        """
        for request, key in (
            (b"mg YTE= v bxx\r\n", b"a1"),
            (b"mg YTE= v b\n", b"a1"),
            (b"mg  YTE=   b   v\r\n", b"a1"),
            (b"md YTE= b1 q\r\n", b"a1"),
            (b"me YTE= b\r\n", b"a1"),
            (b"me YTE= bx\r\n", b"YTE="),
            (b"me YTE= k b\r\n", b"YTE="),
            (b"mg YTE= Ob v\r\n", b"YTE="),
            (b"mg b v\r\n", b"b"),
            (b"ms b 1\r\nb\r\n", b"b"),
            (b"mg YTE=\r\nmg a b\r\n"[:9], b"YTE="),
            (b"get YTE= b\r\n", b"YTE="),
        ):
            self.check(request, key)

    def test_notBase64(self) -> None:
        """
        A key that is no base64 has any server: each replies with an error.
        """
        self.assertEqual(keyOf(b"mg YTE v b\r\n", 0), b"YTE")


class GatheringTests(SynchronousTestCase):
    """
    Tests for parts of requests, whose values are put in the order of other keys.
    """

    def test_requestFor(self) -> None:
        """
        A part is the same request for other keys.
        """
        for request, expected, layout in (
            (b"get a b c\r\n", b"get x y\r\n", (4, False)),
            (b"  gets   a  b\r\n", b"gets x y\r\n", (5, True)),
            (b"gat 10 a b\r\n", b"gat 10 x y\r\n", (7, False)),
            (b"gats -1 a\r\n", b"gats -1 x y\r\n", (8, True)),
        ):
            self.assertEqual(requestFor(request, [b"x", b"y"]), expected)
            self.assertEqual(layoutOf(expected), layout)

    def read(
        self, command: MemcacheCommand, request: bytes, pieces: Sequence[bytes]
    ) -> tuple[str, dict[bytes, bytes], list[int]]:
        """
        Read a reply as a connection does, in pieces.

        @return: whether it is complete, refused, an error, or incomplete; what it has for each key; and the counters.
        """
        reader, traffic = ReplyReader(), Traffic(len(Memcache().commands))
        passed, left, complete = b"", b"", False
        values: list[bytes] | None = None
        for piece in pieces:
            self.assertFalse(complete)
            data = left + piece
            if not reader.left and command.matchWhole and (end := command.matchWhole(data, 0, request, traffic)):
                passed, left, complete = data[:end], data[end:], True
                continue
            try:
                end, done, reply = reader.read(data, 0, command, 1, request, traffic)
            except WireError:
                return "refused", {}, []
            if isinstance(reply, list):
                values = reply
            else:
                passed += data[:end] if reply is None else reply
            left = data[end:]
            complete = done > 0
        if not complete or left:
            return "incomplete", {}, []
        keys = command.keys(request)
        if values is None and (values := command.values(keys, passed)) is None:
            return "error", {}, []
        found = {key: value for key, value in zip(keys, values, strict=True) if value}
        return "complete", found, [traffic.missed, traffic.moreKeys, traffic.moreMissed, traffic.more]

    def compare(self, command: MemcacheCommand, request: bytes, reply: bytes) -> dict[bytes, bytes] | None:
        """
        Assert that all is the same if the values are found when the reply is read, and if they are not: what is
        accepted, what is found, and what is counted.

        @return: what is found; C{None} if the reply is not complete.
        """
        expected = self.read(command, request, [reply])
        self.assertEqual(self.read(command.part, request, [reply]), expected, (request, reply))
        return expected[1] if expected[0] == "complete" else None

    @settings(max_examples=40, deadline=None)
    @given(
        st.sampled_from(RETRIEVALS),
        st.lists(st.sampled_from([b"a", b"b", b"c", b"key:1", b"key:2", b"\r", b"x\ry"]), min_size=1, max_size=8),
        st.randoms(use_true_random=False),
    )
    def test_random(self, retrieval: tuple[bytes, MemcacheCommand], wanted: list[bytes], rng: random.Random) -> None:
        """
        Any reply, with misses, in any order, with keys that are requested several times, is collected, also if it is
        cut anywhere.
        """
        word, command = retrieval
        unique = b" 77" if word.startswith((b"gets", b"gats")) else b""
        request = requestFor(word + b" first second\r\n", wanted)
        bodies = {key: rng.choice(BODIES) for key in wanted}
        hits = [key for key in wanted if bodies[key] != b"y"]
        if rng.random() < 0.5:
            rng.shuffle(hits)
        flags = rng.choice((0, 0, 7, 4294967295))
        reply = b"".join(valueOf(key, bodies[key], flags, unique) for key in hits) + END
        expected = {key: valueOf(key, bodies[key], flags, unique) for key in hits}
        self.assertEqual(self.compare(command, request, reply), expected)
        whole = self.read(command, request, [reply])
        for at in range(1, len(reply)):
            self.assertEqual(self.read(command.part, request, [reply[:at], reply[at:]])[1], expected)
            self.assertEqual(self.read(command, request, [reply[:at], reply[at:]]), whole)
        pieces = [reply[at : at + 1] for at in range(len(reply))]
        self.assertEqual(self.read(command.part, request, pieces)[1], expected)

    @given(
        st.sampled_from(RETRIEVALS),
        st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=4),
        st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=5),
        st.sampled_from([b"", b" 7"]),
        st.sampled_from(
            [
                END,
                END,
                END,
                b"",
                b"\r\n",
                b"EN",
                b"END\r\nEND\r\n",
                b"SERVER_ERROR out of memory\r\n",
                b"VALUE a 0 1\r\nxENDNN",
            ]
        ),
    )
    def test_anything(
        self,
        retrieval: tuple[bytes, MemcacheCommand],
        wanted: list[bytes],
        sent: list[bytes],
        unique: bytes,
        end: bytes,
    ) -> None:
        """
        What is refused otherwise is refused: values that were not requested or come too often, and whatever is no
        reply.
        """
        word, command = retrieval
        request = requestFor(word + b" first second\r\n", wanted)
        reply = b"".join(valueOf(key, b"x", 0, unique) for key in sent) + end
        found = self.compare(command, request, reply)
        same = bool(unique) is word.startswith((b"gets", b"gats"))
        possible = (same or not sent) and all(sent.count(key) <= wanted.count(key) for key in sent)
        self.assertEqual(found is not None, possible and end == END)

    def test_foreign(self) -> None:
        """
        A value of another key is refused, at any place, also if its line looks like the others.
        """
        request = requestFor(b"get x\r\n", [b"a", b"b", b"c"])
        for at in range(4):
            sent = [b"a", b"b", b"c"]
            sent.insert(at, b"d")
            for some in (sent, sent[:3], sent[1:]):
                if b"d" in some:
                    reply = b"".join(valueOf(key, b"x") for key in some) + END
                    self.assertIsNone(self.compare(SEVERAL[GET], request, reply))

    def test_unique(self) -> None:
        """
        A cas unique is refused if it was not requested, and required if it was.
        """
        for word, command in RETRIEVALS:
            request = requestFor(word + b" x y\r\n", [b"a", b"b", b"c"])
            expected = b" 7" if word.startswith((b"gets", b"gats")) else b""
            for at in range(3):
                uniques = [expected] * 3
                reply = b"".join(valueOf(key, b"x", 0, uniques.pop()) for key in (b"a", b"b", b"c")) + END
                self.assertEqual(len(self.compare(command, request, reply) or ()), 3)
                uniques = [expected] * 3
                uniques[at] = b"" if expected else b" 7"
                reply = b"".join(valueOf(key, b"x", 0, uniques.pop()) for key in (b"a", b"b", b"c")) + END
                self.assertIsNone(self.compare(command, request, reply))

    def test_error(self) -> None:
        """
        An error of the server is no values.
        """
        found: dict[bytes, bytes] = {}
        self.assertFalse(collectReply(b"SERVER_ERROR out of memory\r\n", found))
        self.assertEqual(found, {})

    def test_values(self) -> None:
        """
        Each key has its value, empty if it has none.
        """
        value = valueOf(b"a", b"x")
        self.assertEqual(SEVERAL[GET].values([b"a", b"b", b"a"], value + END), [value, b"", value])
        self.assertEqual(SEVERAL[GET].values([b"a"], END), [b""])
        self.assertIsNone(SEVERAL[GET].values([b"a"], b"SERVER_ERROR out of memory\r\n"))

    def test_counted(self) -> None:
        """
        Hits and misses are counted alike, whether the reply comes in one piece or in two.
        """
        request = requestFor(b"get x\r\n", [b"a", b"b", b"c"])
        for keys, counted in ((b"abc", [0, 2, 0, 0]), (b"ac", [0, 2, 1, 0]), (b"b", [0, 2, 2, 0]), (b"", [1, 2, 2, 0])):
            reply = b"".join(valueOf(b"%c" % key, b"x") for key in keys) + END
            for pieces in ([reply], [reply[:3], reply[3:]]):
                for command in (SEVERAL[GET], SEVERAL[GET].part):
                    self.assertEqual(self.read(command, request, pieces)[2], counted, (keys, pieces, command))

    def test_afterOthers(self) -> None:
        """
        The reply is found between others.
        """
        request = requestFor(b"get x\r\n", [b"a", b"b"])
        traffic = Traffic(len(Memcache().commands))
        values = [valueOf(b"a", b"END\r\n"), valueOf(b"b", b"")]
        reply = b"STORED\r\n%b%b" % (b"".join(values), END)
        found = ReplyReader().read(reply + END, 8, SEVERAL[GET].part, 1, request, traffic)
        self.assertEqual(found, (len(reply), 1, values))
        self.assertEqual((traffic.missed, traffic.moreKeys, traffic.moreMissed), (0, 1, 0))
