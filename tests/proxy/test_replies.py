# -*- test-case-name: tests.proxy.test_replies -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.replies}: the queue of replies, alone and in a session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.clients import LOST, STATISTICS, TOO_LARGE, SessionTestCase, get, gets, keys, put
from tests.pipes import HIGH_WATER
from txconnpool.errors import ConnectionLostInFlight, PoolError, PoolFull
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.replies import Entry, ForwardedReplies, LaterReply, QueuedRequest, ReplyQueue, RetriedRequest
from txconnpool.wire.memcache.replies import GET


class FakeSession:
    """
    A stand-in for a session that records its calls.

    @ivar written: the bytes written to the client.
    @ivar held: the bytes that are held back.
    @ivar batch: the bytes of replies of servers.
    @ivar calls: other calls.
    @ivar onWrite: called after each write.
    """

    def __init__(self) -> None:
        self.written = b""
        self.held = self.batch = 0
        self.calls: list[Any] = []
        self.onWrite: Callable[[], object] = list

    def put(self, data: bytes) -> None:
        self.written += data
        self.onWrite()

    def hold(self, size: int) -> None:
        self.held += size

    def release(self, size: int) -> None:
        self.held -= size

    def answered(self, done: int) -> None:
        self.calls.append(done)

    def settle(self, done: int) -> None:
        self.calls.append(f"{done} settled")

    def lost(self, *args: Any) -> None:
        self.calls.append(args)

    def breakOff(self) -> None:
        self.calls.append("breakOff")

    def retried(self, count: int) -> None:
        self.calls.append(f"{count} retried")

    def refusal(self, command: Any, count: int, error: PoolError) -> bytes:
        return b"<%b>" % str(error).encode() * count


class QueueTestCase(SynchronousTestCase):
    """
    Base class of tests with a queue of a L{FakeSession}.
    """

    def setUp(self) -> None:
        """
        Make a queue with one reply ahead of it.
        """
        self.session = FakeSession()
        self.queue = ReplyQueue(self.session, 1)

    def entry(self, data: bytes = b"", left: int = 0) -> ForwardedReplies:
        """
        @return: an entry that holds C{data}.
        """
        entry = ForwardedReplies(self.session, left)
        entry.take(data)
        return entry

    def start(self) -> bool:
        """
        Let the reply ahead of the queue be complete.
        """
        self.queue.ahead = 0
        return self.queue.advance()


class ReplyQueueTests(QueueTestCase):
    """
    Tests for L{ReplyQueue}.
    """

    def test_order(self) -> None:
        """
        Entries are written in their order, whatever the order in which their replies arrive. Each waits for those ahead
        of it.
        """
        first, second, third = entries = [ForwardedReplies(self.session, 1) for _ in range(3)]
        for entry in entries:
            self.queue.append(entry)
        third.replied(b"c", 1)
        first.replied(b"a", 1)
        self.assertFalse(self.queue.advance())
        self.assertEqual((self.session.written, self.session.held), (b"", 2))
        self.assertFalse(self.start())
        self.assertEqual((self.session.written, self.session.held), (b"a", 1))
        second.replied(b"b", 1)
        self.assertEqual((self.session.written, self.session.held), (b"ab", 1))
        self.assertTrue(self.queue.advance())
        self.assertEqual((self.session.written, self.session.held), (b"abc", 0))

    def test_through(self) -> None:
        """
        The first entry writes at once what arrives of a reply.
        """
        entry = self.entry(left=1)
        self.queue.append(entry)
        self.start()
        for piece in (b"a", b"b"):
            entry.replied(piece, 0)
        self.assertEqual((self.session.written, self.session.held, self.session.batch), (b"ab", 0, 2))
        self.assertEqual(self.session.calls, [])

    def test_last(self) -> None:
        """
        There always is a last entry for further replies, behind all others. An entry that was not used stays the last.
        """
        last = self.queue.last
        self.assertEqual(len(self.queue), 1)
        self.queue.append(self.entry(b"first "))
        self.assertIs(self.queue.last, last)
        last.take(b"second ")
        self.queue.append(self.entry(b"a"))
        self.assertIsNot(self.queue.last, last)
        self.queue.last.take(b" last")
        extended = self.queue.extend()
        self.assertIs(extended, self.queue.last)
        extended.take(b".")
        self.assertEqual(len(self.queue), 5)
        self.assertTrue(self.start())
        self.assertEqual(self.session.written, b"first second a last.")

    def test_lastWrites(self) -> None:
        """
        If the last entry writes its replies already, entries are added after it.
        """
        last = self.queue.last
        last.left = 1
        self.start()
        last.left = 0
        self.queue.append(self.entry(b"a"))
        self.assertIsNot(self.queue.last, last)
        self.queue.last.take(b" last")
        last.take(b"first ")
        self.assertTrue(self.start())
        self.assertEqual(self.session.written, b"first a last")

    def test_insert(self) -> None:
        """
        Entries are inserted behind another one, or at the beginning. The last entry stays.
        """
        entry = self.entry(b"a")
        self.queue.append(entry)
        last = self.queue.last
        last.take(b"z")
        self.queue.insert(entry, [self.entry(b"b"), self.entry(b"c")])
        self.queue.insert(None, [self.entry(b"1"), self.entry(b"2")])
        self.assertIs(self.queue.last, last)
        self.start()
        self.assertEqual(self.session.written, b"12abcz")

    def test_insertBehindLast(self) -> None:
        """
        When entries are inserted behind the last one, there is a new last one behind them.
        """
        last = self.queue.last
        self.queue.insert(last, [self.entry(b"b")])
        self.assertIsNot(self.queue.last, last)
        self.queue.last.take(b"c")
        last.take(b"a")
        self.assertTrue(self.start())
        self.assertEqual(self.session.written, b"abc")

    def test_unsent(self) -> None:
        """
        Later requests wait for entries with requests to send, and for barriers.
        """
        later = [LaterReply(self.session, Deferred, barrier) for barrier in (True, False)]
        request = QueuedRequest(self.session, GET, 1, b"get a\r\n")
        for entry in (self.entry(left=1), *later, request):
            self.queue.append(entry)
        self.assertEqual(self.queue.unsent, [later[0], request])
        request.next(1)
        self.assertEqual(self.queue.unsent, [later[0]])

    def test_writesDuringWrite(self) -> None:
        """
        An entry is written to its end before the next one begins, also if writing leads to more replies and to another
        call of C{advance}.
        """
        entry = self.entry(b"1")
        entry.take(b"2")
        other = QueuedRequest(self.session, GET, 1, b"get a\r\n")
        self.queue.append(entry)
        self.queue.append(other)

        def write() -> None:
            self.session.onWrite = list
            entry.take(b"3")
            other.refuse(PoolFull("full"))
            self.assertFalse(self.queue.advance())

        self.session.onWrite = write
        self.assertTrue(self.start())
        self.assertEqual((self.session.written, self.session.held), (b"123<full>", 0))

    def test_closedDuringWrite(self) -> None:
        """
        When the client is closed while an entry is written, nothing more is written.
        """
        for left in (0, 1):
            self.setUp()
            entry = self.entry(b"1", left)
            entry.take(b"2")
            self.queue.append(entry)
            self.queue.append(self.entry(b"3"))
            self.session.onWrite = self.queue.discard
            self.start()
            self.assertEqual((self.session.written, len(self.queue)), (b"1", 0))

    def test_discard(self) -> None:
        """
        Discarded entries hold nothing, and take no more replies into account.
        """
        entries = [
            self.entry(b"a"),
            QueuedRequest(self.session, GET, 1, b"get a\r\n"),
            LaterReply(self.session, Deferred, True),
        ]
        for entry in entries:
            self.queue.append(entry)
        self.queue.discard()
        self.assertEqual([entry.unsent for entry in entries], [False] * 3)
        self.assertEqual((len(self.queue), self.queue.unsent), (0, []))
        held = self.session.held
        for entry in entries:
            entry.take(b"b")
        self.assertEqual(self.session.held, held)


class EntryTests(QueueTestCase):
    """
    Tests for the kinds of entries.
    """

    def test_plain(self) -> None:
        """
        An entry of no special kind has nothing to send.
        """
        entry = Entry(self.session)
        entry.take(b"")
        self.assertEqual((entry.left, entry.size, entry.unsent, self.session.held), (0, 0, False, 0))

    def test_forwarded(self) -> None:
        """
        The session is notified of complete replies and of lost requests.
        """
        entry = self.entry(left=4)
        entry.replied(b"a", 0)
        entry.replied(b"b", 2)
        error = ConnectionLostInFlight("lost")
        requests = [(entry, GET, 1, 0.0, b"get a\r\n")] * 2
        entry.requestsLost(requests, False, error)
        self.assertEqual((entry.left, self.session.calls), (0, [2, (entry, requests, False, error)]))

    def test_queuedRequest(self) -> None:
        """
        A request is sent as far as the connection accepts it.
        """
        entry = QueuedRequest(self.session, GET, 3, b"get a b c\r\n")
        self.assertEqual((entry.left, entry.size, entry.ready), (3, 11, True))
        self.assertEqual(entry.next(2), (GET, 2, b"get a b\r\n"))
        self.assertEqual((entry.left, entry.size, entry.unsent), (3, 7, True))
        self.assertEqual(entry.next(2), (GET, 1, b"get c\r\n"))
        self.assertEqual((entry.left, entry.size, entry.unsent), (3, 0, False))
        self.assertEqual(self.session.calls, [])

    def test_queuedRequestRefused(self) -> None:
        """
        Requests that are not sent get the error, behind the replies to those that are.
        """
        entry = QueuedRequest(self.session, GET, 3, b"get a b c\r\n")
        entry.next(1)
        entry.refuse(PoolFull("full"))
        self.assertEqual((entry.left, entry.unsent), (1, False))

    def test_retried(self) -> None:
        """
        Requests that are sent again are counted. If their connection is lost too, they get the error.
        """
        entry = RetriedRequest(self.session, GET, 3, b"get a b c\r\n")
        self.queue.append(entry)
        self.start()
        entry.next(2)
        entry.replied(b"a", 1)
        entry.requestsLost([(entry, GET, 1, 0.0, b"get b\r\n")], False, ConnectionLostInFlight("lost"))
        self.assertEqual((self.session.written, entry.left, entry.unsent), (b"a<lost>", 1, True))
        self.assertEqual(self.session.calls, ["2 retried", 1, "1 settled"])

    def test_retriedBegun(self) -> None:
        """
        If part of the reply has been passed on, the client is closed.
        """
        entry = RetriedRequest(self.session, GET, 1, b"get a\r\n")
        entry.next(1)
        entry.requestsLost([(entry, GET, 1, 0.0, b"get a\r\n")], True, ConnectionLostInFlight("lost"))
        self.assertEqual(self.session.calls, ["1 retried", "1 settled", "breakOff"])

    def test_later(self) -> None:
        """
        A later reply is asked for when all replies ahead of it are written. The session is notified if it does not come
        at once.
        """
        replies: list[Deferred[bytes]] = []

        def ask() -> Deferred[bytes]:
            replies.append(Deferred())
            return replies[-1]

        self.queue.append(LaterReply(self.session, ask, False))
        self.queue.append(LaterReply(self.session, lambda: succeed(b"b"), False))
        self.queue.advance()
        self.assertEqual(replies, [])
        self.assertFalse(self.start())
        replies[0].callback(b"a")
        self.assertEqual((self.session.written, self.session.calls), (b"a", [0]))
        self.assertTrue(self.queue.advance())
        self.assertEqual((self.session.written, self.session.calls), (b"ab", [0]))

    def test_laterTooLate(self) -> None:
        """
        A reply for a client that is gone is dropped.
        """
        reply: Deferred[bytes] = Deferred()
        self.queue.append(LaterReply(self.session, lambda: reply, True))
        self.start()
        self.queue.discard()
        reply.callback(b"a")
        self.assertEqual((self.session.written, self.session.calls), (b"", []))

    def test_laterRefused(self) -> None:
        """
        A later reply does not depend on the connections of the session.
        """
        entry = LaterReply(self.session, Deferred, True)
        entry.refuse(PoolFull("full"))
        self.assertEqual((entry.left, entry.unsent, entry.ready), (1, True, False))


class OwnRepliesTests(SessionTestCase):
    """
    Tests for replies of the proxy itself, between those of a server.
    """

    @covers("5")
    def test_order(self) -> None:
        """
        They are written when all requests before are answered, and do not depend on other clients.
        """
        stage = self.stage()
        one, two = stage.client(), stage.client()
        one.send(b"get a\r\n")
        two.send(b"get b\r\nx\r\nincr b x\r\n")
        one.send(b"get c\r\n")
        stage.line.deliver(len(get(b"a")))
        self.assertEqual((one.take(), two.take()), (get(b"a"), b""))
        stage.line.deliver(len(get(b"b")))
        own = b"ERROR\r\nCLIENT_ERROR invalid numeric delta argument\r\n"
        self.assertEqual((one.take(), two.take()), (b"", get(b"b") + own))
        stage.serve()
        self.assertEqual((one.take(), two.take()), (get(b"c"), b""))

    def test_middleOfRun(self) -> None:
        """
        They wait for the last byte of the last reply to merged gets.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get missa\r\nget k\r\nx\r\n")
        stage.line.look()
        self.assertEqual(stage.line.asked, [b"get missa k\r\n"])
        stage.line.deliver(len(get(b"k")) - 1)
        self.assertNotIn(b"ERROR", client.received)
        stage.line.deliver(1)
        self.assertEqual(client.take(), get(b"missa", b"k") + b"ERROR\r\n")

    def test_noLoad(self) -> None:
        """
        They add no load to a connection, and no request timeout applies to them.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\nx\r\n")
        self.assertEqual(stage.line.protocol.record.load, 1)
        stage.serve()
        stage.clock.advance(10)
        self.assertFalse(stage.line.aborted)
        self.assertEqual(client.take(), get(b"a") + b"ERROR\r\n")

    def test_withinReply(self) -> None:
        """
        A reply that comes while a reply of a server arrives is written behind the rest of that.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\n")
        stage.line.deliver(15)
        client.send(b"x\r\n")
        stage.serve()
        self.assertEqual(client.take(), get(b"a") + b"ERROR\r\n")

    def test_lost(self) -> None:
        """
        They keep their places when a connection is lost, whether the requests around them are sent again or fail.
        """
        for requests, expected in (
            (b"get a\r\nx\r\nget b\r\ny\r\n", get(b"a") + b"ERROR\r\n" + get(b"b") + b"ERROR\r\n"),
            (put(b"a", 1) + b"x\r\n" + put(b"b", 1) + b"y\r\n", (LOST + b"ERROR\r\n") * 2),
        ):
            stage = self.stage()
            client = stage.client()
            client.send(requests)
            stage.line.lose()
            self.assertNotIn(b"VALUE", client.received)
            stage.turns()
            stage.serve()
            self.assertEqual(client.take(), expected)

    def test_queueDropped(self) -> None:
        """
        When all replies are written there is no queue any more.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\nx\r\n")
        self.assertIsNotNone(client.protocol._queue)
        stage.serve()
        self.assertIsNone(client.protocol._queue)
        self.assertEqual(stage.ask(client, b"get b\r\n"), get(b"b"))
        self.assertEqual(client.protocol.held, 0)

    def test_refusedWhileWriting(self) -> None:
        """
        The order holds if a request is refused while replies ahead of it are written to a client that does not read.
        """
        stage = self.stage(depth=1, maxWaiting=1, maxItemSize=2048, sessionLimits=SessionLimits(unreadSoft=20))
        client, other = stage.client(), stage.client()
        client.send(b"get a\r\nx\r\nx\r\nset big 0 0 5000\r\n")
        client.send(b"x" * 5000 + b"\r\n")
        other.send(b"get b\r\n")
        client.reads = False
        client.write(b" " * (HIGH_WATER + 1))
        stage.serve()
        client.read()
        self.assertEqual(client.take().strip(b" "), get(b"a") + b"ERROR\r\nERROR\r\n" + TOO_LARGE)
        self.assertEqual(other.take(), get(b"b"))


class HeldTests(SessionTestCase):
    """
    Tests for replies that are held back, because an earlier one has not come.
    """

    def test_counted(self) -> None:
        """
        The bytes are counted as long as they are held back.
        """
        stage = self.stage()
        later: Deferred[list[tuple[str, int]]] = Deferred()
        stage.sessions.report = lambda words: later
        client = stage.client()
        names = keys(10)
        client.send(b"stats proxy\r\n" + gets(names))
        stage.serve()
        self.assertEqual(client.take(), b"")
        size = len(get(*names))
        session = client.protocol
        self.assertEqual((session.held, session.unread, stage.unread.total), (size, size, size))
        later.callback([("answer", 42)])
        self.assertEqual(client.take(), STATISTICS + get(*names))
        self.assertEqual((session.held, session.unread, stage.unread.total), (0, 0, 0))

    def test_bounded(self) -> None:
        """
        While many bytes are held back, no further requests are sent. When they are written, the rest is answered.
        """
        stage = self.stage(sessionLimits=SessionLimits(unreadSoft=10000))
        later: Deferred[list[tuple[str, int]]] = Deferred()
        stage.sessions.report = lambda words: later
        client = stage.client()
        names = [b"large%d" % number for number in range(100)]
        client.send(b"stats proxy\r\n" + gets(names))
        stage.serve()
        self.assertLess(client.protocol.held, 10000 + 16 * 21000)
        self.assertEqual((client.reading, len(client.take())), (False, 0))
        later.callback([("answer", 42)])
        stage.serve()
        self.assertEqual(client.take(), STATISTICS + get(*names))
        self.assertTrue(client.reading)

    def test_tooMany(self) -> None:
        """
        A client for which too many bytes are held back is closed. Others are not affected.
        """
        stage = self.stage(sessionLimits=SessionLimits(unreadSoft=10000, unreadHard=50000))
        stage.sessions.report = lambda words: Deferred()
        client, other = stage.client(), stage.client()
        client.send(b"stats proxy\r\n" + gets([b"large%d" % number for number in range(10)]))
        other.send(b"get a\r\n")
        stage.serve()
        self.assertEqual((client.aborted, client.take(), other.take()), (True, b"", get(b"a")))
        self.assertEqual((stage.unread.dropped, stage.unread.total), (1, 0))

    def test_vanished(self) -> None:
        """
        Bytes that are held back for a client that is gone are not counted.
        """
        stage = self.stage()
        stage.sessions.report = lambda words: Deferred()
        client = stage.client()
        client.send(b"stats proxy\r\nget a\r\nget b\r\n")
        stage.line.deliver(len(get(b"a")))
        self.assertGreater(stage.unread.total, 0)
        client.lose()
        self.assertEqual(stage.unread.total, 0)
        stage.serve()
        self.assertEqual(stage.unread.total, 0)
