# -*- test-case-name: tests.proxy.test_flow -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.flow}: back-pressure, and the end of the connection of a client.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.interfaces import ITCPTransport
from twisted.logger import capturedLogs
from zope.interface import directlyProvides

from tests.bugs import covers
from tests.clients import FIRST_WINDOW, TOO_LARGE, SessionTestCase, get, gets, keys, put
from tests.memcached import answer
from tests.pipes import HIGH_WATER, Pipe
from tests.stage import Stage, assertTidy
from txconnpool.proxy.flow import SessionLimits

BACKLOG = SessionLimits().backlog


class PressureTests(SessionTestCase):
    """
    Tests for clients and servers that do not read.
    """

    @covers("26")
    def test_soft(self) -> None:
        """
        A client that does not read its replies is not read from. When it reads, it gets all of them.
        """
        stage = self.stage(sessionLimits=SessionLimits(unreadSoft=10000))
        client = stage.client()
        client.reads = False
        names = [b"zzzz%d" % number for number in range(3000)]
        client.send(gets(names))
        stage.serve()
        self.assertFalse(client.reading)
        self.assertLess(client.unread, HIGH_WATER + 10000 + FIRST_WINDOW * 16 * 1000)
        self.assertGreater(stage.unread.total, 10000)
        while client.unread:
            client.read()
            stage.serve()
        self.assertEqual(client.take(), get(*names))
        self.assertEqual((stage.unread.total, client.reading), (0, True))

    def test_hard(self) -> None:
        """
        A client with too many unread bytes is closed. This is counted and logged once. Other clients are not affected.
        """
        stage = self.stage(sessionLimits=SessionLimits(unreadSoft=1000, unreadHard=20000))
        client, other = stage.client(), stage.client()
        client.reads = False
        names = [b"zzzz%d" % number for number in range(FIRST_WINDOW)]
        with capturedLogs() as events:
            for _ in range(10):
                client.send(gets(names))
            other.send(b"get a\r\n")
            stage.line.look()
            small = get(names[0]).removesuffix(b"END\r\n")
            large = b"VALUE zzzz0 0 90000\r\n%s\r\n" % (b"x" * 90000)
            stage.line.owed = stage.line.owed.replace(small, large, 1)
            stage.serve()
        self.assertTrue(client.aborted)
        self.assertEqual((other.take(), other.connected, client.connected), (get(b"a"), True, False))
        self.assertEqual((stage.unread.dropped, stage.unread.total), (1, 0))
        (event,) = (event for event in events if event["log_namespace"].startswith("txconnpool"))
        self.assertIn("the limit is 20000", event["log_format"].format(**event))

    @covers("26")
    def test_keptInSmallPieces(self) -> None:
        """
        A request that arrives in small pieces takes no more memory than its bytes.
        """
        stage = self.stage()
        client = stage.client()
        request = put(b"a", 20000)
        client.send(request[:-1], 2)
        self.assertLess(len(client.protocol._kept), 10)
        client.send(request[-1:])
        stage.serve()
        self.assertEqual(stage.line.asked, [request])

    def test_ownReplies(self) -> None:
        """
        Replies of the proxy itself count as unread like those of servers.
        """
        for request in (b"x\r\n", b"stats proxy x\r\n"):
            stage = self.stage(sessionLimits=SessionLimits(unreadSoft=10000))
            client = stage.client()
            client.reads = False
            count = 1000 if request == b"x\r\n" else 50
            for _ in range(100):
                client.send(request * count)
            stage.turns(5000)
            self.assertFalse(client.reading)
            self.assertLess(client.unread, HIGH_WATER + 11000)
            sent = 0
            while client.unread:
                sent += client.read()
                stage.turns()
            self.assertEqual(sent, len(client.received))
            self.assertEqual(client.received.count(b"\r\n"), 100 * count)

    @covers("18")
    def test_heldReplies(self) -> None:
        """
        Replies that are held back count as unread. The client is read from again when they are written.
        """
        stage = self.stage(sessionLimits=SessionLimits(unreadSoft=10))
        client = stage.client()
        client.send(b"get a\r\nx\r\nx\r\n", piece=11)
        self.assertFalse(client.reading)
        stage.serve()
        self.assertTrue(client.reading)
        self.assertEqual(stage.ask(client, b"get b\r\n"), get(b"b"))

    @covers("18")
    def test_backlog(self) -> None:
        """
        A client whose requests cannot be sent is read from up to a limit, and again later.
        """
        stage = self.stage(depth=1, waitTimeout=10.0)
        other, client = stage.client(), stage.client()
        other.send(b"get a\r\n")
        names = keys(20000)
        requests = gets(names)
        self.assertGreater(len(requests), 3 * BACKLOG)
        for start in range(0, len(requests), 1000):
            client.send(requests[start : start + 1000])
        self.assertFalse(client.reading)
        self.assertLess(client.protocol._size, BACKLOG + 1000)
        stage.serve()
        self.assertEqual(client.take(), get(*names))
        self.assertTrue(client.reading)

    def test_largeValue(self) -> None:
        """
        A value that is larger than this limit is read to its end.
        """
        stage = self.stage(depth=1)
        other, client = stage.client(), stage.client()
        other.send(b"get a\r\n")
        data = put(b"k", 5 * BACKLOG)
        for start in range(0, len(data), 4000):
            client.send(data[start : start + 4000])
        stage.serve()
        stage.serve()
        self.assertEqual((client.take(), stage.line.asked[-1]), (b"STORED\r\n", data))

    @covers("15")
    def test_longLine(self) -> None:
        """
        A line that arrives in small pieces is complete when its end has arrived.
        """
        stage = self.stage()
        client = stage.client()
        names = keys(5000)
        line = b"get %s\r\n" % b" ".join(names)
        client.send(line, piece=100)
        stage.serve()
        self.assertEqual(client.take(), answer(line)[0])

    @covers("13")
    def test_serverDoesNotRead(self) -> None:
        """
        No more requests are sent to a server that does not read. A session with nothing in flight takes another
        connection.
        """
        stage = self.stage(maximum=2, minimum=2)
        client, other = stage.client(), stage.client()
        full = stage.pool.state.connections.pick()
        assert full is not None
        stage.pool.hasCapacity(full)
        line = full.connection.transport
        line.reads = False
        client.send(put(b"k", HIGH_WATER) + b"get a\r\nget b\r\n")
        self.assertEqual(line.unread, len(put(b"k", HIGH_WATER)))
        self.assertEqual(stage.ask(other, b"get c\r\n"), get(b"c"))
        line.reads = True
        line.read()
        stage.serve()
        self.assertEqual(client.take(), b"STORED\r\n" + get(b"a", b"b"))

    @covers("3")
    def test_answeredUnread(self) -> None:
        """
        A server may reply before it has read the whole request. Later replies still reach their own clients.
        """
        stage = self.stage()
        client, other = stage.client(), stage.client()
        line = stage.line
        line.reads = False
        client.send(put(b"k", 30000) + b"get a\r\n")
        other.send(b"get b\r\n")
        line.read(100)
        self.assertNotEqual(line.unread, 0)
        line.send(TOO_LARGE)
        self.assertEqual((client.take(), other.take()), (TOO_LARGE, b""))
        line.read()
        line.look()
        line.owed = line.owed.removeprefix(b"STORED\r\n")
        stage.serve()
        self.assertEqual((client.take(), other.take()), (get(b"a"), get(b"b")))


class CloseTests(SessionTestCase):
    """
    Tests for sessions that are closed.
    """

    def test_quit(self) -> None:
        """
        Requests before C{quit} get their replies. Those behind it are not sent.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\nquit\r\nget b\r\n")
        self.assertFalse(client.closing)
        stage.serve()
        self.assertEqual(client.take(), get(b"a"))
        self.assertFalse(client.connected)
        self.assertEqual(stage.line.asked, [b"get a\r\n"])

    def test_alone(self) -> None:
        """
        The session is closed at once if nothing is in flight.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"quit\r\n")
        self.assertTrue(client.closing)
        stage.turns()
        self.assertEqual((client.take(), client.connected), (b"", False))

    def test_lastError(self) -> None:
        """
        An error that closes the session is written behind the replies before it.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\nget %b\r\n" % (b" " * (1 << 15)))
        stage.serve()
        error = b"CLIENT_ERROR line too long\r\n"
        self.assertEqual((client.take(), client.connected), (get(b"a") + error, False))

    def test_lateData(self) -> None:
        """
        Bytes that the transport still delivers, as TLS does with bytes that are decrypted already, are ignored.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\nquit\r\n")
        client.protocol.dataReceived(b"delete a\r\n")
        stage.serve()
        self.assertEqual((client.take(), stage.line.asked), (get(b"a"), [b"get a\r\n"]))

    def test_halfClosed(self) -> None:
        """
        A client that half-closes its connection gets its replies. Then it is closed.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\nget b")
        client.end()
        self.assertFalse(client.closing)
        stage.serve()
        self.assertEqual((client.take(), client.connected), (get(b"a"), False))

    def test_halfClosedWaiting(self) -> None:
        """
        The same if its request waits for a connection.
        """
        stage = self.stage(depth=1)
        other, client = stage.client(), stage.client()
        other.send(b"get a\r\n")
        client.send(b"get b\r\nx\r\n")
        client.end()
        stage.serve()
        self.assertEqual((client.take(), client.connected), (get(b"b") + b"ERROR\r\n", False))

    @covers("22")
    def test_halfClosedIdle(self) -> None:
        """
        It is closed at once if no request is in flight.
        """
        stage = self.stage()
        client = stage.client()
        client.end()
        stage.turns()
        self.assertFalse(client.connected)

    def test_notReading(self) -> None:
        """
        A session is closed when its client has read all replies.
        """
        stage = self.stage()
        client = stage.client()
        client.reads = False
        names = [b"large%d" % number for number in range(10)]
        client.send(gets(names) + b"quit\r\n")
        stage.serve()
        client.read(client.unread - 1)
        stage.turns()
        self.assertTrue(client.connected)
        client.read()
        stage.turns()
        self.assertFalse(client.connected)
        self.assertEqual(client.take(), get(*names))

    @covers("22")
    def test_options(self) -> None:
        """
        On TCP, small replies are sent without delay, and a vanished client is detected.
        """
        stage = self.stage()
        options: list[tuple[str, bool]] = []
        pipe: Any = Pipe(stage.clock)
        pipe.setTcpNoDelay = lambda on: options.append(("no delay", on))
        pipe.setTcpKeepAlive = lambda on: options.append(("keep alive", on))
        directlyProvides(pipe, ITCPTransport)
        pipe.connect(stage.sessions.buildProtocol(None))
        self.assertEqual(options, [("no delay", True), ("keep alive", True)])


class VanishTests(SessionTestCase):
    """
    Tests for clients that disconnect before their requests are answered.
    """

    def assertUnharmed(self, stage: Stage, other: Pipe) -> None:
        """
        Assert that another client is served, and that the invariants of the pool hold.
        """
        stage.serve()
        other.take()
        self.assertEqual(stage.ask(other, b"get other\r\n"), get(b"other"))
        assertTidy(self, stage.pool)

    @covers("4")
    def test_stages(self) -> None:
        """
        It does not matter what had been sent or delivered.
        """
        deliveries = [0, 1, len(get(b"zzzz")) - 1, len(get(b"zzzz")), len(get(b"zzzz")) + 3]
        for request in (b"get b\r\n", b"x\r\n" + put(b"k", 9), b"set k 0 0 5000\r\nxx"):
            for size in deliveries:
                stage = self.stage(maxItemSize=2048)
                client, other = stage.client(), stage.client()
                client.send(b"get zzzz\r\n" + request)
                other.send(b"get mine\r\n")
                if size:
                    stage.line.deliver(size)
                client.lose()
                stage.serve()
                self.assertEqual(other.take(), get(b"mine"))
                self.assertEqual(stage.ask(other, b"get more\r\n"), get(b"more"))
                self.assertNotIn(client.protocol, stage.sessions.sessions)

    def test_freed(self) -> None:
        """
        The session of a client that is gone is freed at once, without the garbage collector: the memory of many clients
        that leave together would be in use until it runs.
        """
        self.addCleanup(gc.enable)
        gc.disable()
        for requests in (b"", b"get a\r\n", b"get a\r\nnonsense\r\nget b\r\n", b"get" + b" a" * 200 + b"\r\n"):
            stage = self.stage()
            client = stage.client()
            client.send(requests)
            stage.serve()
            session = weakref.ref(client.protocol)
            client.lose()
            stage.turns()
            client.protocol = client.producer = None
            self.assertIsNone(session(), requests)

    def test_waiting(self) -> None:
        """
        A session that waits leaves the queue.
        """
        stage = self.stage(depth=1)
        other, client, third = (stage.client() for _ in range(3))
        other.send(b"get a\r\n")
        client.send(b"get b\r\n")
        third.send(b"get c\r\n")
        client.lose()
        self.assertEqual((stage.pool.waiters.count, stage.pool.counters.cancelled), (1, 1))
        stage.serve()
        self.assertEqual((third.take(), stage.line.asked), (get(b"c"), [b"get a\r\n", b"get c\r\n"]))

    def test_retry(self) -> None:
        """
        Requests of a client that is gone are not sent again.
        """
        stage = self.stage()
        client, other = stage.client(), stage.client()
        client.send(gets(keys(3)))
        stage.line.lose()
        self.assertEqual(stage.pool.waiters.count, 1)
        client.lose()
        self.assertEqual(stage.pool.waiters.count, 0)
        self.assertUnharmed(stage, other)
        self.assertEqual(stage.line.asked, [b"get other\r\n"])

    def test_lostTogether(self) -> None:
        """
        The loss of the connection is of no concern to a client that is gone.
        """
        stage = self.stage()
        client, other = stage.client(), stage.client()
        client.send(gets(keys(3)))
        client.lose()
        stage.line.lose()
        self.assertEqual(stage.pool.waiters.count, 0)
        stage.turns()
        self.assertUnharmed(stage, other)

    def test_unread(self) -> None:
        """
        Unread bytes of a client that is gone are not counted.
        """
        stage = self.stage()
        client = stage.client()
        client.reads = False
        client.send(gets([b"zzzz%d" % number for number in range(200)]))
        stage.serve()
        self.assertGreater(stage.unread.total, 0)
        client.lose()
        self.assertEqual(stage.unread.total, 0)

    def test_swallowing(self) -> None:
        """
        A client may disconnect within a value that is too large.
        """
        stage = self.stage(maxItemSize=2048)
        client, other = stage.client(), stage.client()
        client.send(b"set big 0 0 5000\r\nxxx")
        client.lose()
        self.assertUnharmed(stage, other)
