# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.redis.replyreader}.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from txconnpool.errors import WireError
from txconnpool.metrics import Traffic
from txconnpool.wire import Decline, Declined
from txconnpool.wire.joining import listOf
from txconnpool.wire.redis.commands import BY_NAME, COMMANDS
from txconnpool.wire.redis.elements import matchSimple
from txconnpool.wire.redis.framing import encode
from txconnpool.wire.redis.replyreader import STREAM, ReplyReader
from txconnpool.wire.redis.several import DIVIDED
from txconnpool.wire.redis.topology import ClusterReplyReader

GET = BY_NAME["get"]
SUBSCRIBE = BY_NAME["subscribe"]


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


LEAVES = st.one_of(
    st.binary(max_size=20).map(_bulk),
    st.sampled_from([b"+OK\r\n", b":12\r\n", b"-ERR x\r\n", b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n",
                     b"(123\r\n", b"=7\r\ntxt:abc\r\n", b"!3\r\nERR\r\n", b"*0\r\n", b"%0\r\n"]),
)  # fmt: skip


def _nested(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    items = st.lists(inner, max_size=4)
    pairs = st.lists(st.tuples(inner, inner), max_size=3)
    return st.one_of(
        items.map(lambda its: b"*%d\r\n%b" % (len(its), b"".join(its))),
        items.map(lambda its: b"~%d\r\n%b" % (len(its), b"".join(its))),
        pairs.map(lambda its: b"%%%d\r\n%b" % (len(its), b"".join(map(b"".join, its)))),
        st.tuples(pairs, inner).map(lambda of: b"|%d\r\n%b%b" % (len(of[0]), b"".join(map(b"".join, of[0])), of[1])),
        st.tuples(items, inner).map(lambda of: b"*1\r\n>%d\r\n%b%b" % (len(of[0]), b"".join(of[0]), of[1])),
    )


REPLIES = st.recursive(LEAVES, _nested, max_leaves=12)


class ReplyReaderTests(SynchronousTestCase):
    """
    Tests for L{ReplyReader}.
    """

    def setUp(self) -> None:
        """
        Make a reader.
        """
        self.reader = ReplyReader()
        self.traffic = Traffic(len(COMMANDS))
        self.passed: list[bytes] = []

    def feed(self, data: bytes, command: Any = GET, request: bytes = b"") -> int:
        """
        Read as a connection does.

        @return: how many replies are complete.
        """
        self.tail = getattr(self, "tail", b"") + data
        pos = complete = 0
        while pos < len(self.tail):
            if not self.reader.left:
                end = self.reader.push(self.tail, pos, command, None)
                if end < 0:
                    break
                if end:
                    self.passed.append(b"PUSH " + self.tail[pos:end])
                    pos = end
                    continue
            end, done, reply = self.reader.read(self.tail, pos, command, 1, request, self.traffic)
            complete += done
            if end > pos or done:
                self.passed.append(self.tail[pos:end] if reply is None else reply)
            pos = end
            if self.reader.left:
                break
        self.tail = self.tail[pos:]
        return complete

    @given(st.lists(REPLIES, min_size=1, max_size=3), st.integers(1, 40))
    def test_pieces(self, replies: list[bytes], size: int) -> None:
        """
        The end of any reply is found, however deep it is nested and however it is split.
        """
        self.setUp()
        self.tail = b""
        data = b"".join(replies)
        complete = sum(self.feed(data[at : at + size]) for at in range(0, len(data), size))
        self.assertEqual((complete, b"".join(self.passed), self.tail), (len(replies), data, b""))
        self.assertEqual(self.passed, replies)  # short ones are passed on as a whole

    def test_deep(self) -> None:
        """
        There is no limit to the depth.
        """
        self.assertEqual(self.feed(b"*1\r\n" * 200000 + b":1\r\n"), 1)

    def test_large(self) -> None:
        """
        Large strings are passed on as they arrive, and their line ends are checked.
        """
        self.assertEqual(self.feed(b"*2\r\n$100000\r\n" + bytes(STREAM)), 0)
        self.assertEqual((len(self.passed), self.reader.begun, self.reader.left), (1, True, 1))
        self.assertEqual(self.feed(bytes(100000 - STREAM) + b"\r"), 0)
        self.assertEqual(self.feed(b"\n"), 0)
        self.assertEqual(self.feed(b":1\r\n+next\r\n"), 2)
        self.assertEqual((self.reader.begun, self.reader.left), (False, 0))
        self.assertEqual(self.feed(b"$100000\r\n" + bytes(60000)), 0)
        self.assertEqual(self.feed(bytes(40000) + b"\r\n+next\r\n"), 2)
        for ending in (b"xx", b"\rx", b"x\n"):
            for pieces in ([ending], [ending[:1], ending[1:]]):
                self.setUp()
                self.tail = b""
                self.feed(b"$100000\r\n" + bytes(100000))
                with self.assertRaises(WireError):
                    for piece in pieces:
                        self.feed(piece)

    def test_violations(self) -> None:
        """
        Bytes that are no reply are found at once.
        """
        for data in (b"hello", b"$x\r\n", b"*1\n", b"$01\r\n", b"*-2\r\n", b"$3\r\nabcd\r\n", b"#x\r\n", b"_1\r\n",
                     b"%-1x\r\n", b"+a\nb", b"*2\r\n:1\r\nx", b"*99999999999\r\n"):  # fmt: skip
            self.setUp()
            self.tail = b""
            self.assertRaises(WireError, self.feed, data)

    def test_counts(self) -> None:
        """
        Errors, and values that were not found, are counted.
        """
        self.feed(b"-ERR x\r\n$-1\r\n_\r\n$1\r\na\r\n")
        self.assertEqual((self.traffic.failed[GET.index], self.traffic.missed), (1, 2))

    def test_gathered(self) -> None:
        """
        Of a part of C{MGET}, the elements are passed on when all of them are there. A large one is passed on in pieces,
        an error as it is.
        """
        command, key = DIVIDED["mget", False], encode([b"MGET", b"a", b"b"])
        reply = b"*2\r\n$1\r\nx\r\n$-1\r\n"
        for end in range(1, len(reply)):
            self.assertEqual(self.reader.read(reply[:end], 0, command, 1, key, self.traffic), (0, 0, None))
            self.assertEqual(self.reader.left, 1)
            end, done, found = self.reader.read(reply + b"+OK", 0, command, 1, key, self.traffic)
            self.assertEqual((end, done, self.reader.left), (len(reply), 1, 0))
            self.assertEqual(listOf(found), [b"$1\r\nx\r\n", b"$-1\r\n"])
        self.assertEqual(self.traffic.missed, len(reply) - 1)
        self.assertEqual(self.reader.read(b"-ERR x\r\n", 0, command, 1, key, self.traffic), (8, 1, None))
        self.assertRaises(WireError, self.reader.read, b"*1\r\n$1\r\nx\r\n", 0, command, 1, key, self.traffic)
        large = b"*2\r\n" + _bulk(bytes(STREAM))
        self.assertEqual(self.reader.read(large, 0, command, 1, key, self.traffic), (len(large), 0, None))
        self.assertEqual(self.reader.read(b"$-1\r\n", 0, command, 1, key, self.traffic), (5, 1, None))

    def test_silent(self) -> None:
        """
        The replies to a client that has turned them off are dropped, large ones too.
        """
        self.assertEqual(self.feed(b"$100000\r\n" + bytes(50000), GET.silenced), 0)
        self.assertFalse(self.reader.begun)
        self.assertEqual(self.feed(bytes(50000) + b"\r\n+a\r\n", GET.silenced), 2)
        self.assertEqual(b"".join(self.passed), b"")
        self.assertEqual(GET.silenced.visible(b"-ERR x\r\n"), b"")

    def test_subscriptions(self) -> None:
        """
        A request for several channels has a frame for each. Messages are no replies.
        """
        for mark in b"*>":
            self.setUp()
            self.tail = b""
            one, two = (b"%c3\r\n$9\r\nsubscribe\r\n$1\r\n%c\r\n:%d\r\n" % (mark, 96 + n, n) for n in (1, 2))
            message = b"%c3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n" % mark
            request = encode([b"subscribe", b"a", b"b"])
            data = one + two + message
            for at in range(len(data)):
                done = self.feed(data[at : at + 1], SUBSCRIBE, request)
                self.assertEqual(done, 1 if at == len(one + two) - 1 else 0)
            self.assertEqual(self.passed, [one + two, b"PUSH " + message])

    def test_sharded(self) -> None:
        """
        Subscriptions to sharded channels are counted separately: their messages come when all others have ended.
        """
        for name in ("ssubscribe", "subscribe", "unsubscribe"):
            count = 0 if name == "unsubscribe" else 1
            confirmation = b"*3\r\n$%d\r\n%b\r\n$1\r\na\r\n:%d\r\n" % (len(name), name.encode(), count)
            self.assertEqual(self.feed(confirmation, BY_NAME[name], encode([name.encode(), b"a"])), 1)
        message = b"*3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$2\r\nhi\r\n"
        self.feed(message, None)
        self.assertEqual(self.passed[-1], b"PUSH " + message)

    @covers("R8")
    def test_noMessages(self) -> None:
        """
        For a client that is no subscriber, an array is a reply, whatever it holds.
        """
        message = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n"
        self.assertEqual(self.feed(message, BY_NAME["lrange"]), 1)

    def test_subscriptionRefused(self) -> None:
        """
        An error is the whole reply to a request for channels.
        """
        self.assertEqual(self.feed(b"-NOPERM x\r\n", SUBSCRIBE, encode([b"subscribe", b"a", b"b"])), 1)

    def test_matchSimple(self) -> None:
        """
        The fast path matches what is complete, and nothing that has to be counted.
        """
        for data, end in ((b"+OK\r\n", 5), (b":1\r\n", 4), (b"$2\r\nab\r\n", 8), (b"$2\r\nab\r", 0),
                          (b"$2\r\nabx\n", 0), (b"$-1\r\n", 0), (b"-ERR\r\n", 0), (b"*0\r\n", 4),
                          (b"*2\r\n*1\r\n:1\r\n$1\r\na\r\n:1\r\n", 19), (b"*1\r\n$-1\r\n", 0), (b"*-1\r\n", 0),
                          (b"*2\r\n:1\r\n", 0), (b"%0\r\n", 0), (b">0\r\n", 0), (b"", 0),
                          (b"+OK\r", 0)):  # fmt: skip
            self.assertEqual(matchSimple(data, 0, None, None), end, data)

    @given(st.binary(max_size=40), st.integers(0, 40))
    def test_anything(self, data: bytes, place: int) -> None:
        """
        Any bytes are read, or refused.
        """
        self.setUp()
        self.tail = b""
        try:
            self.feed(data[:place])
            self.feed(data[place:])
        except WireError:
            pass


class EndedTests(SynchronousTestCase):
    """
    Tests for subscriptions that a node of a cluster ends.
    """

    def test_ended(self) -> None:
        """
        The frame is a reply only to a request that ends a subscription.
        """
        for mark in (b"*", b">"):
            reader, traffic = ReplyReader(), Traffic(len(COMMANDS))
            begun = mark + b"3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n"
            subscribe, unsubscribe = BY_NAME["ssubscribe"], BY_NAME["sunsubscribe"]
            self.assertEqual(reader.push(begun, 0, subscribe, None), 0)
            request = b"*2\r\n$10\r\nSSUBSCRIBE\r\n$1\r\na\r\n"
            self.assertEqual(reader.read(begun, 0, subscribe, 1, request, traffic)[:2], (len(begun), 1))
            ended = mark + b"3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n"
            for command in (None, subscribe, BY_NAME["ping"]):
                self.assertEqual(reader.push(ended, 0, command, None), len(ended))
            request = b"*2\r\n$12\r\nSUNSUBSCRIBE\r\n$1\r\n%c\r\n"
            self.assertEqual(reader.push(ended, 0, unsubscribe, request % b"a"), 0)
            self.assertEqual(reader.push(ended, 0, unsubscribe, request % b"b"), len(ended))
            for command in (None, unsubscribe):
                found = {reader.push(ended[:size], 0, command, request % b"b") for size in range(4, len(ended))}
                self.assertEqual(found, {-1})

    @covers("R46")
    def test_met(self) -> None:
        """
        The error to a request that has met such a frame is no reply to the C{PING} behind it.
        """
        reader = ClusterReplyReader()
        ping = BY_NAME["ping"]
        for word in (b"MOVED 1 a:1", b"CLUSTERDOWN the cluster is down"):
            error = b"-%b\r\n" % word
            self.assertEqual(reader.push(error, 0, ping, None), len(error))
            self.assertEqual({reader.push(error[:size], 0, ping, None) for size in range(1, len(error))}, {-1})
            for command in (None, BY_NAME["get"], BY_NAME["ssubscribe"]):
                self.assertEqual(reader.push(error, 0, command, None), 0)
        for error in (
            b"-LOADING x\r\n",
            b"-ERR x\r\n",
            b"-NOAUTH Authentication required.\r\n",
            b"-MOVED " + b"x" * 2000,
        ):
            self.assertEqual(reader.push(error, 0, ping, None), 0)


class DeclinedTests(SynchronousTestCase):
    """
    Tests for replies that say that the server has not executed a request.
    """

    def read(self, name: str, data: bytes) -> tuple[int, int, bytes | None]:
        """
        Read a reply from the third byte on.
        """
        traffic = Traffic(len(COMMANDS))
        try:
            return ReplyReader().read(b"+\r" + data, 2, BY_NAME[name], 1, None, traffic)
        finally:
            self.assertEqual(sum(traffic.failed), int(data.endswith(b"\n")))

    def test_declined(self) -> None:
        """
        The reader reports what the server says, and where the reply ends.
        """
        for word, why in (
            (b"LOADING", Decline.NOT_READY),
            (b"MASTERDOWN", Decline.NOT_READY),
            (b"READONLY", Decline.READ_ONLY),
        ):
            data = b"-%b some text\r\n" % word
            for name in ("get", "set", "ping", "script|load"):
                error = self.assertRaises(Declined, self.read, name, data)
                self.assertEqual((error.end, error.why), (2 + len(data), why))
                self.assertEqual(self.read(name, data[:-1]), (2, 0, None))

    def test_others(self) -> None:
        """
        Other errors are replies, as is what a script makes.
        """
        for data in (b"-ERR LOADING x\r\n", b"-LOADINGS x\r\n", b"-loading x\r\n"):
            self.assertEqual(self.read("get", data), (2 + len(data), 1, None))
        data = b"-LOADING x\r\n"
        for name in ("eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"):
            self.assertEqual(self.read(name, data), (2 + len(data), 1, None))

    def test_silent(self) -> None:
        """
        A client that gets no replies gets no errors.
        """
        data = b"-LOADING x\r\n"
        traffic = Traffic(len(COMMANDS))
        self.assertEqual(ReplyReader().read(data, 0, BY_NAME["set"].silenced, 1, None, traffic), (len(data), 1, b""))
