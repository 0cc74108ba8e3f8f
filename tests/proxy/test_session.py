# -*- test-case-name: tests.proxy.test_session -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.session}: clients in, answers out, over a pool and servers in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import ITCPTransport
from twisted.logger import capturedLogs
from zope.interface import directlyProvides

from tests import memcached
from tests.bugs import covers
from tests.clients import (
    BAD_LINE,
    FIRST_WINDOW,
    LOST,
    REFUSED,
    STATISTICS,
    TOO_LARGE,
    SessionTestCase,
    get,
    gets,
    keys,
    put,
)
from tests.memcached import Line, answer, value
from tests.pipes import HIGH_WATER, Pipe
from tests.stage import Stage, assertTidy
from txconnpool.proxy import ordering
from txconnpool.proxy.flow import SessionLimits
from txconnpool.wire.memcache.dialect import Memcache

BACKLOG = SessionLimits().backlog

#: Requests of all kinds, each with its answer, from a server that stores what L{answer} says.
EXCHANGES: list[tuple[bytes, bytes]] = [
    (b"get a\r\n", get(b"a")),
    (b"nonsense\r\n", b"ERROR\r\n"),
    (put(b"a", 10), b"STORED\r\n"),
    (put(b"a", 10, b" noreply"), b""),
    (b"get a b missc\r\n", answer(b"get a b missc\r\n")[0]),
    (b"get missa\r\nget missb\r\nget c\r\n", get(b"missa", b"missb", b"c")),
    (b"mg a v q\r\n", answer(b"mg a v\r\n")[0]),
    (b"mg missa v q\r\n", b""),
    (b"md a q\r\n", b""),
    (b"md missa q\r\n", b"NF\r\n"),
    (b"ms a 3 q\r\nend\r\n", b""),
    (b"mn\r\n", b"MN\r\n"),
    (b"incr a x\r\n", b"CLIENT_ERROR invalid numeric delta argument\r\n"),
    (b"incr a 1\r\n", answer(b"incr a 1\r\n")[0]),
    (b"set %s 0 0 3\r\nabc\r\n" % (b"k" * 251), BAD_LINE),
    (b"cas a 0 0 3 7\r\nget\r\n", b"STORED\r\n"),
    (put(b"big", 3000), TOO_LARGE),
    (put(b"big", 3000, b" noreply"), b""),
    (b"stats\r\n", STATISTICS),
    (b"delete a noreply\r\n", b""),
    (b"delete missa\r\n", b"NOT_FOUND\r\n"),
    (b"flush_all\r\n", b"OK\r\n"),
    (b"flush_all noreply\r\n", b""),
    (b"verbosity 1\r\n", b"OK\r\n"),
    (b"version\r\n", b"VERSION 1.6.18\r\n"),
    (b"gets a\r\n", answer(b"gets a\r\n")[0]),
]


class OrderTests(SessionTestCase):
    """
    Tests for answers in the order of the requests.
    """

    @covers("16")
    def test_each(self) -> None:
        """
        Every kind of request gets its answer.
        """
        for servers in (1, 3):
            stage = self.stage(servers, maxItemSize=2048)
            client = stage.client()
            for request, reply in EXCHANGES:
                self.assertEqual(stage.ask(client, request), reply, request)

    @covers("5")
    def test_pipelined(self) -> None:
        """
        Requests of all kinds in one packet are answered in their order.
        """
        requests = b"".join(request for request, _ in EXCHANGES) * 3
        for servers in (1, 3):
            stage = self.stage(servers, maxItemSize=2048)
            self.assertEqual(stage.ask(stage.client(), requests), b"".join(reply for _, reply in EXCHANGES) * 3)

    @covers("5", "11")
    def test_pieces(self) -> None:
        """
        They are when they come in pieces, too, and when the servers answer in pieces.
        """
        requests = b"".join(request for request, _ in EXCHANGES)
        expected = b"".join(reply for _, reply in EXCHANGES)
        for size in (1, 2, 7, 61, 1000):
            stage = self.stage(2, maxItemSize=2048)
            client = stage.client()
            for start in range(0, len(requests), size):
                client.send(requests[start : start + size])
                stage.turns(2)
                for line in stage.lines:
                    line.deliver(size)
            stage.serve()
            self.assertEqual(client.take(), expected, size)

    def test_local(self) -> None:
        """
        What is answered here waits for all that was asked before.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\nnonsense\r\nget b\r\nincr a x\r\nincr a y\r\n")
        self.assertEqual(client.take(), b"")
        stage.line.look()
        stage.line.deliver(len(get(b"a")) - 1)
        self.assertNotIn(b"ERROR", client.received)
        stage.line.deliver(1)
        self.assertEqual(client.take(), get(b"a") + b"ERROR\r\n")
        stage.serve()
        self.assertEqual(client.take(), get(b"b") + b"CLIENT_ERROR invalid numeric delta argument\r\n" * 2)

    def test_nobodyElse(self) -> None:
        """
        Clients who share a connection each get their own answers.
        """
        stage = self.stage()
        clients = [stage.client() for _ in range(20)]
        for number, client in enumerate(clients):
            client.send(gets(keys(5, 100 * number)) + b"x\r\n" + put(b"k", number) + b"mg miss%d q\r\n" % number)
        self.assertEqual(len(stage.lines), 1)
        stage.serve()
        for number, client in enumerate(clients):
            self.assertEqual(client.take(), get(*keys(5, 100 * number)) + b"ERROR\r\nSTORED\r\n")

    def test_sameConnection(self) -> None:
        """
        What a client pipelines goes over one connection, so that it reads what it wrote before.
        """
        stage = self.stage(maximum=3, minimum=3)
        client = stage.client()
        client.send(put(b"k", 1) + b"get k\r\n")
        client.send(b"delete k\r\n")
        for line in stage.lines:
            line.look()
        self.assertEqual(sorted(len(line.asked) for line in stage.lines), [0, 0, 3])

    def test_statistics(self) -> None:
        """
        Our own numbers are told when all before them is answered, and what is asked behind them comes behind them.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\nstats\r\nget b\r\n")
        self.assertEqual(client.take(), b"")
        stage.line.deliver(len(get(b"a")))
        self.assertEqual(client.take(), get(b"a"))
        stage.turns()
        self.assertEqual(client.take(), STATISTICS)
        stage.serve()
        self.assertEqual(client.take(), get(b"b"))
        self.assertEqual(stage.ask(client, b"stats items 7\r\n"), b"SERVER_ERROR no such statistics: items 7\r\n")

    @covers("18")
    def test_longRun(self) -> None:
        """
        More requests in one packet than may be in flight are answered all.
        """
        stage = self.stage()
        names = keys(1000)
        self.assertEqual(stage.ask(stage.client(), gets(names)), get(*names))

    @covers("15")
    def test_tooLarge(self) -> None:
        """
        A value that is too large is not kept while it comes, and answered when all of it has come.
        """
        stage = self.stage(maxItemSize=2048)
        client = stage.client()
        client.send(b"get a\r\nset big 0 0 10000000\r\n")
        for _ in range(999):
            client.send(b"x" * 10000)
            self.assertEqual(client.protocol._size, 0)
        self.assertEqual(stage.ask(client, b"x" * 9999), get(b"a"))
        self.assertEqual(stage.ask(client, b"x\r\nget b\r\n"), TOO_LARGE + get(b"b"))


class CloseTests(SessionTestCase):
    """
    Tests for requests that close the session.
    """

    def test_quit(self) -> None:
        """
        What was asked before C{quit} is answered, what comes after it is not even asked.
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
        Without anything in flight it is closed at once.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"quit\r\n")
        self.assertTrue(client.closing)
        stage.turns()
        self.assertEqual((client.take(), client.connected), (b"", False))

    def test_lastWords(self) -> None:
        """
        The last words come behind what is owed.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\n\x80\x01more")
        stage.serve()
        words = b"CLIENT_ERROR the binary protocol is not supported, use the text protocol\r\n"
        self.assertEqual((client.take(), client.connected), (get(b"a") + words, False))

    def test_lateData(self) -> None:
        """
        What a transport still delivers, as TLS does with what it has decrypted, is not dealt with.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\nquit\r\n")
        client.protocol.dataReceived(b"delete a\r\n")
        stage.serve()
        self.assertEqual((client.take(), stage.line.asked), (get(b"a"), [b"get a\r\n"]))

    def test_halfClosed(self) -> None:
        """
        A client that has said all it will say is answered, then closed.
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
        It is when its request still waits for a connection, too.
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
        One that is owed nothing is closed at once.
        """
        stage = self.stage()
        client = stage.client()
        client.end()
        stage.turns()
        self.assertFalse(client.connected)

    def test_notReading(self) -> None:
        """
        A session that is to be closed waits until the client has read what it is owed.
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


class RoomTests(SessionTestCase):
    """
    Tests for requests that have to wait for room on a connection.
    """

    @covers("8")
    def test_capacity(self) -> None:
        """
        Clients that ask for much more than there is room for are all answered, and no connection ever carries more than
        it may.
        """
        stage = self.stage(maximum=3, minimum=3, depth=2)
        clients = [stage.client() for _ in range(10)]
        for number, client in enumerate(clients):
            client.send(gets(keys(20, 100 * number)))
        for _ in range(10 * 20):
            for line in stage.lines:
                line.look()
                self.assertLessEqual(line.owed.count(b"END\r\n\r\nEND") + len(line.asked), 10 * 20)
                self.assertLessEqual(line.protocol.record.load, 2)
                line.deliver(100)
                assertTidy(self, stage.pool, quiet=False)
            stage.turns(2)
        stage.serve()
        for number, client in enumerate(clients):
            self.assertEqual(client.take(), get(*keys(20, 100 * number)))

    def test_inTurn(self) -> None:
        """
        Who waits longest is served first, and who has much to ask lets the others have their turn.
        """
        stage = self.stage(depth=1)
        greedy, second, third = (stage.client() for _ in range(3))
        greedy.send(gets(keys(3)))
        second.send(b"get second\r\n")
        third.send(b"get third\r\n")
        stage.serve()
        asked = [b"get key0\r\n", b"get second\r\n", b"get third\r\n", b"get key1\r\n", b"get key2\r\n"]
        self.assertEqual(stage.line.asked, asked)

    def test_othersWait(self) -> None:
        """
        A session whose turn it is sends, however many others still wait.
        """
        stage = self.stage(depth=1)
        clients = [stage.client() for _ in range(5)]
        for client in clients:
            client.send(b"get a\r\nget b\r\n")
        stage.serve()
        self.assertEqual([client.take() for client in clients], [get(b"a", b"b")] * 5)

    def test_inVain(self) -> None:
        """
        Who has waited too long gets an error line for each request, in their places; then things are as before.
        """
        stage = self.stage(depth=1, waitTimeout=0.5)
        other, client = stage.client(), stage.client()
        other.send(b"get a\r\n")
        client.send(b"get b\r\nget c\r\nx\r\n" + put(b"k", 1, b" noreply") + b"mg a q\r\nget d")
        stage.clock.advance(0.4)
        self.assertEqual(client.take(), b"")
        stage.clock.advance(0.1)
        numbers = b"1 of 1 connections busy, 0 idle, 0 dialing, 1 waiting"
        line = b"SERVER_ERROR timed out waiting for a connection (%s)\r\n" % numbers
        self.assertEqual(client.take(), line * 2 + b"ERROR\r\n" + line)
        stage.serve()
        self.assertEqual(stage.ask(client, b"\r\n"), get(b"d"))

    def test_inVainAltogether(self) -> None:
        """
        Requests that are not sent as they came are refused with the others: nobody waits a second time for them.
        """
        stage = self.stage(depth=1, waitTimeout=0.5, maxItemSize=100)
        other, client = stage.client(), stage.client()
        other.send(b"get a\r\n")
        client.send(put(b"big", 200) + b"get b\r\nget " + b" ".join(keys(60)) + b"\r\n")
        stage.clock.advance(0.5)
        told = client.take().splitlines(True)
        self.assertEqual((told[0], len(told)), (TOO_LARGE, 3))
        self.assertEqual(told[1], told[2])
        self.assertEqual(stage.pool.waiters.count, 0)
        stage.serve()

    def test_tooManyWaiting(self) -> None:
        """
        One request more than may wait is refused, and only that.
        """
        stage = self.stage(depth=1, maxWaiting=1)
        clients = [stage.client() for _ in range(3)]
        for client in clients:
            client.send(b"get a\r\n")
        line = b"SERVER_ERROR too many waiting requests\r\n"
        self.assertEqual([client.take() for client in clients], [b"", b"", line])
        stage.serve()
        self.assertEqual([client.take() for client in clients], [get(b"a"), get(b"a"), b""])
        self.assertEqual(stage.ask(clients[2], b"get b\r\n"), get(b"b"))

    @covers("20")
    def test_down(self) -> None:
        """
        While no server can be reached requests are refused at once, one line each; when one is back they are answered.
        """
        stage = self.stage(start=False)
        (server,) = stage.servers
        server.mode = "refuse"
        client = stage.client()
        requests = gets(keys(3)) + put(b"k", 1, b" noreply") + b"x\r\n"
        self.assertEqual(stage.ask(client, requests), REFUSED * 3 + b"ERROR\r\n")
        self.assertEqual(stage.ask(client, b"flush_all\r\nflush_all noreply\r\n"), REFUSED)
        server.mode = "accept"
        stage.clock.advance(0.2)
        stage.turns()
        self.assertEqual(stage.ask(client, b"get a\r\n"), get(b"a"))

    def test_firstDial(self) -> None:
        """
        Before the first connection is there, requests wait for it.
        """
        stage = self.stage(start=False)
        client = stage.client()
        client.send(b"get a\r\nflush_all noreply\r\nget b\r\n")
        self.assertEqual(stage.pool.waiters.count, 1)
        stage.serve()
        self.assertEqual(client.take(), get(b"a", b"b"))
        self.assertEqual(stage.line.asked, [b"get a\r\n", b"flush_all\r\n", b"get b\r\n"])

    def test_window(self) -> None:
        """
        A session may have few requests in flight at first, more when it reads what it asked for, and never more than
        is agreed.
        """
        stage = self.stage(sessionLimits=SessionLimits(maxInFlight=40))
        client = stage.client()
        client.send(gets(keys(500)))
        most = []
        while stage.line.protocol.record.load:
            most.append(stage.line.protocol.record.load)
            stage.line.deliver()
        self.assertEqual(most[:4], [FIRST_WINDOW, 32, 40, 40])
        self.assertEqual(max(most), 40)
        self.assertEqual(client.take(), get(*keys(500)))

    def test_together(self) -> None:
        """
        Two who ask in one turn share a connection, for which no other is dialed while there is an idle one.
        """

        class Telling(Line):
            queued = False

            def write(self, data: bytes) -> None:
                """
                There is something to send.
                """
                self.queued = True
                super().write(data)

            def look(self) -> None:
                """
                It was sent.
                """
                self.queued = False
                super().look()

        self.patch(memcached.Upstream, "kind", Telling)
        stage = self.stage(maximum=8, minimum=1)
        clients = [stage.client(), stage.client()]
        for _ in range(10):
            for client in clients:
                client.send(b"get a\r\n")
            self.assertEqual(sorted(record.load for record in stage.pool.state.records)[-1], 2)
            stage.serve()
            self.assertEqual([client.take() for client in clients], [get(b"a")] * 2)
        self.assertEqual(len(stage.pool.state.records), 2)

    @covers("27")
    def test_serverRemoved(self) -> None:
        """
        Without any server every request has its answer, too.
        """
        stage = self.stage()
        client = stage.client()
        stage.pool.removeServer("server0")
        stage.turns()
        line = b"SERVER_ERROR the pool has no servers\r\n"
        self.assertEqual(stage.ask(client, b"get a\r\nflush_all\r\nversion\r\nx\r\n"), line * 3 + b"ERROR\r\n")

    def test_poolClosed(self) -> None:
        """
        Requests that wait when the pool closes, and those that come later, are answered.
        """
        stage = self.stage(depth=1)
        clients = [stage.client() for _ in range(3)]
        clients[0].send(b"get a\r\n")
        clients[1].send(b"get b\r\n")
        done = stage.pool.close()
        clients[2].send(b"get c\r\n")
        self.assertEqual(clients[1].take(), b"SERVER_ERROR the pool was closed\r\n")
        self.assertEqual(clients[2].take(), b"SERVER_ERROR the pool is closed\r\n")
        stage.serve()
        self.assertEqual(clients[0].take(), get(b"a"))
        self.successResultOf(done)


class PressureTests(SessionTestCase):
    """
    Tests for clients that do not read, and servers that do not.
    """

    @covers("26")
    def test_soft(self) -> None:
        """
        A client that does not read its answers is not read from, and goes on where it stopped when it reads.
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
        A client that leaves too much unread is closed, which is counted and logged once. Others notice nothing.
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
        self.assertIn("20000 may be", event["log_format"].format(**event))

    @covers("26")
    def test_keptInSmallPieces(self) -> None:
        """
        A request that comes in small pieces takes no more memory than its bytes do.
        """
        stage = self.stage()
        client = stage.client()
        request = put(b"a", 20000)
        client.send(request[:-1], 2)
        self.assertLess(len(client.protocol._kept), 10)
        client.send(request[-1:])
        stage.serve()
        self.assertEqual(stage.line.asked, [request])

    def test_ownWords(self) -> None:
        """
        What is answered here counts as unread like what the servers say: a client that sends nonsense and does not read
        is not read from.
        """
        for request in (b"x\r\n", b"stats x\r\n"):
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

    def test_window(self) -> None:
        """
        A client that leaves much unread may have fewer requests in flight, so that the values it asked for do not all
        come here at once.
        """
        stage = self.stage(sessionLimits=SessionLimits(unreadSoft=1000))
        client = stage.client()
        client.reads = False
        names = [b"large%d" % number for number in range(100)]
        client.send(gets(names))
        asked = []
        for _ in range(5):
            stage.serve()
            asked.append(b"".join(stage.line.asked).count(b" "))
            client.read()
        self.assertEqual(asked[0], FIRST_WINDOW)
        # Each time there is room for 4 values in the transport.
        self.assertLess(asked[-1], FIRST_WINDOW + 4 * 8)
        while client.unread or client.protocol._size:
            client.read()
            stage.serve()
        self.assertEqual(client.take(), get(*names))

    def test_largeReplies(self) -> None:
        """
        A client that asks for large values has few requests in flight, though it reads; when they are small again it
        may have more.
        """
        stage = self.stage()
        self.patch(ordering, "BATCH", 50000)
        client = stage.client()
        names = [b"large%d" % number for number in range(40)]
        client.send(gets(names))
        asked = []
        while stage.line.deliver():
            asked.append(stage.line.asked[:])
            stage.line.asked.clear()
            stage.turns()
        self.assertEqual([line.count(b" ") for (line,) in asked], [FIRST_WINDOW, 8, 4, 2, 4, 2, 4])
        small = [b"miss%d" % number for number in range(100)]
        client.send(gets(small))
        stage.serve()
        self.assertEqual(client.take(), get(*names, *small))
        self.assertGreater(client.protocol._window, FIRST_WINDOW)

    @covers("18")
    def test_backlog(self) -> None:
        """
        A client whose requests cannot go on is read only so far; later it is read again.
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
        A value is read whole though it is larger than what is kept of requests that cannot go on.
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
        A line that comes in small pieces is found when its end has come.
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
        Nothing more is sent to a server that does not read, until it reads; who has nothing in flight takes another
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
        A server may answer a request of which it has read only the beginning: the answers to what stands behind that
        are not those of others.
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


class LossTests(SessionTestCase):
    """
    Tests for connections that are lost with requests in flight.
    """

    def lose(self, stage: Stage) -> None:
        """
        Lose the connection, and let another be made.
        """
        stage.line.lose()
        stage.turns()

    def test_read(self) -> None:
        """
        Reads are asked again over another connection, and answered once.
        """
        stage = self.stage()
        client = stage.client()
        client.send(gets(keys(5)) + b"mg a v\r\nmn\r\n")
        stage.line.look()
        self.lose(stage)
        stage.serve()
        self.assertEqual(client.take(), get(*keys(5)) + answer(b"mg a v\r\n")[0] + b"MN\r\n")
        self.assertEqual(stage.pool.counters.retries, 7)

    def test_write(self) -> None:
        """
        What is not a read is not sent again: it may have been executed.
        """
        stage = self.stage()
        client = stage.client()
        client.send(put(b"k", 1) + b"incr a 1\r\ntouch a 0\r\nmg a v t T30\r\n" + put(b"k", 1, b" noreply"))
        self.lose(stage)
        stage.serve()
        self.assertEqual((client.take(), stage.line.asked), (LOST * 4, []))

    @covers("5")
    def test_order(self) -> None:
        """
        The order holds over a loss: reads, errors of writes, what is answered here, and what was asked later.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\n" + put(b"k", 1) + b"get b\r\nx\r\nget c\r\n")
        self.lose(stage)
        client.send(b"get d\r\ny\r\n")
        stage.serve()
        self.assertEqual(client.take(), get(b"a") + LOST + get(b"b") + b"ERROR\r\n" + get(b"c", b"d") + b"ERROR\r\n")

    def test_twice(self) -> None:
        """
        A read that met two lost connections is given up.
        """
        stage = self.stage()
        client = stage.client()
        client.send(gets(keys(3)))
        self.lose(stage)
        stage.clock.advance(1)
        self.lose(stage)
        stage.serve()
        self.assertEqual(client.take(), LOST * 3)

    def test_twicePartly(self) -> None:
        """
        The order holds when a second loss meets the part of a run that had room on the second connection.
        """
        stage = self.stage(depth=4)
        client, other = stage.client(), stage.client()
        client.send(gets(keys(4)))
        other.send(b"get other\r\n")
        self.lose(stage)
        stage.clock.advance(1)
        stage.line.look()
        self.assertEqual(stage.line.asked, [b"get other\r\n", b"get key0 key1 key2\r\n"])
        self.lose(stage)
        stage.serve()
        self.assertEqual((client.take(), other.take()), (LOST * 3 + get(b"key3"), get(b"other")))

    def test_againChecked(self) -> None:
        """
        What is asked again is answered with the value of its key, like what is asked for the first time.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\n")
        self.lose(stage)
        stage.line.look()
        stage.line.owed = get(b"b")
        stage.serve()
        self.assertEqual(client.take(), b"SERVER_ERROR upstream protocol error (server0)\r\n")

    def test_partly(self) -> None:
        """
        Of a run that was partly answered the rest is asked again.
        """
        stage = self.stage()
        client = stage.client()
        client.send(gets(keys(5)))
        stage.line.deliver(len(get(*keys(2))) - 2 * len(b"END\r\n") + 7)
        self.lose(stage)
        stage.serve()
        self.assertEqual(client.take(), get(*keys(5)))
        self.assertEqual(stage.line.asked, [b"get key2 key3 key4\r\n"])

    @covers("14")
    def test_value(self) -> None:
        """
        A client that has part of a value is closed: there is no other way to tell it. The others are answered.
        """
        stage = self.stage()
        client, other = stage.client(), stage.client()
        client.send(b"get zzzz\r\nget a\r\n")
        other.send(b"get b\r\n" + put(b"k", 1))
        stage.line.deliver(100)
        self.lose(stage)
        stage.serve()
        self.assertEqual((client.connected, len(client.take())), (False, 100))
        self.assertEqual(other.take(), get(b"b") + LOST)

    def test_valueBehindAnswers(self) -> None:
        """
        It gets what was answered before, and all that there is of the value, before it is closed.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\nget zzzz\r\nget b\r\n")
        client.reads = False
        stage.line.deliver(len(get(b"a")) - len(b"END\r\n") + 100)
        self.lose(stage)
        stage.serve()
        self.assertTrue(client.closing)
        client.read()
        stage.turns()
        self.assertEqual((client.connected, client.take()), (False, get(b"a") + get(b"zzzz")[:100]))

    def test_valueUnread(self) -> None:
        """
        It is not waited for when it does not read.
        """
        stage = self.stage()
        client = stage.client()
        client.reads = False
        client.send(b"get large1\r\nget large2\r\nget large3\r\nget large4\r\n")
        stage.line.deliver(HIGH_WATER + 1000)
        self.lose(stage)
        stage.turns()
        self.assertEqual((client.connected, client.aborted), (False, True))

    def test_capacity(self) -> None:
        """
        What is to be asked again waits for room like everything else.
        """
        stage = self.stage(maximum=3, minimum=3, depth=4)
        clients = [stage.client() for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(gets(keys(7, 100 * number)))
        stage.lines[0].look()
        stage.lines[0].lose()
        stage.lines[1].lose()
        stage.turns()
        assertTidy(self, stage.pool, quiet=False)
        stage.serve()
        for number, client in enumerate(clients):
            self.assertEqual(client.take(), get(*keys(7, 100 * number)))

    def test_refused(self) -> None:
        """
        When there is no other connection they are refused, in their places.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\nget b\r\nx\r\nget c\r\n")
        stage.servers[0].mode = "refuse"
        self.lose(stage)
        stage.serve()
        self.assertEqual(client.take(), REFUSED * 2 + b"ERROR\r\n" + REFUSED)

    def test_flapping(self) -> None:
        """
        A server that hangs up on a new connection is down for the time being: no read runs in circles.
        """
        stage = Stage()
        client = stage.client()
        client.send(b"get a\r\n")
        stage.line.lose()
        self.assertEqual(client.take(), b"SERVER_ERROR upstream unavailable: connection lost (server0)\r\n")
        stage.turns()
        self.assertEqual(stage.servers[0].dials, 1)

    @covers("16")
    def test_wrong(self) -> None:
        """
        A connection that says what it does not owe answers nobody: reads are asked elsewhere, the rest gets a line that
        does not tell what was said.
        """
        stage = self.stage()
        client, other = stage.client(), stage.client()
        client.send(b"get a\r\n")
        other.send(put(b"k", 1) + b"get b\r\n")
        stage.line.send(b"VALUE secret\r\n")
        stage.turns()
        stage.serve()
        self.assertEqual(client.take(), get(b"a"))
        self.assertEqual(other.take(), b"SERVER_ERROR upstream protocol error (server0)\r\n" + get(b"b"))

    def test_closedNotEnded(self) -> None:
        """
        Nothing is sent on a connection that was closed for what it said, even before its end is known.
        """
        stage = self.stage()
        client, other = stage.client(), stage.client()
        client.send(b"get a\r\n")
        stage.line.send(b"junk\r\n")
        other.send(put(b"k", 1))
        stage.serve()
        self.assertEqual((client.take(), other.take()), (get(b"a"), b"STORED\r\n"))

    @covers("2", "17")
    def test_frozen(self) -> None:
        """
        Requests to a server that does not answer cost their timeout, and are not asked again.
        """
        stage = self.stage(requestTimeout=0.5)
        client, other = stage.client(), stage.client()
        client.send(b"get a\r\nx\r\n" + put(b"k", 1, b" noreply") + b"mg a q\r\n")
        stage.clock.advance(0.3)
        other.send(b"get b\r\n")
        stage.clock.advance(0.2)
        stage.turns()
        line = b"SERVER_ERROR upstream timed out: no answer within 0.5 s (server0)\r\n"
        self.assertEqual((client.take(), other.take()), (line + b"ERROR\r\n" + line, line))
        self.assertEqual(stage.ask(client, b"get c\r\n"), get(b"c"))

    @covers("14")
    def test_frozenInAValue(self) -> None:
        """
        A client that has part of a value when its time is over is closed; the others have their line of error.
        """
        stage = self.stage(requestTimeout=0.5)
        client, other = stage.client(), stage.client()
        client.send(b"get zzzz\r\nget a\r\n")
        other.send(b"get b\r\n")
        stage.line.deliver(100)
        stage.clock.advance(0.5)
        stage.turns()
        self.assertEqual((client.connected, client.take()), (False, get(b"zzzz")[:100]))
        line = b"SERVER_ERROR upstream timed out: no answer within 0.5 s (server0)\r\n"
        self.assertEqual((other.connected, other.take()), (True, line))

    @covers("17")
    def test_frozenOne(self) -> None:
        """
        Of two servers one answers nothing any more, though it can be reached: that costs its share of the requests
        their time once. What is asked after that goes to the other one, until it answers again.
        """
        stage = self.stage(2, requestTimeout=0.5)
        frozen, well = stage.servers
        frozen.greets = False
        clients = [stage.client() for _ in range(10)]
        for client in clients:
            client.send(b"get a\r\n")
        stage.turns()
        well.open[0].deliver()
        answered = [client for client in clients if client.take() == get(b"a")]
        self.assertEqual(len(answered), 5)
        stage.clock.advance(0.5)
        stage.turns()
        line = b"SERVER_ERROR upstream timed out: no answer within 0.5 s (server0)\r\n"
        for client in clients:
            self.assertEqual(client.take(), b"" if client in answered else line)
        for _ in range(20):
            for client in clients:
                client.send(b"get b\r\n")
            stage.turns()
            well.open[0].deliver()
            self.assertEqual([client.take() for client in clients], [get(b"b")] * 10)
            stage.clock.advance(0.5)
        self.assertLess(frozen.dials, 15)
        for each in frozen.open:
            each.lose()
        frozen.greets = True
        stage.clock.advance(1.5)
        stage.turns()
        for client in clients:
            client.send(b"get c\r\n")
        stage.serve()
        self.assertEqual([client.take() for client in clients], [get(b"c")] * 10)
        self.assertEqual(frozen.open[0].asked, [b"get c\r\n"] * 5)

    def test_tooLargeReplaces(self) -> None:
        """
        What a value was to replace is gone although the value itself is too large, and the reply to that is not shown.
        """
        stage = self.stage(maxItemSize=2048)
        client = stage.client()
        client.send(b"get a\r\nset big 0 0 5000\r\n" + b"x" * 5000 + b"\r\nget b\r\n")
        self.assertEqual(stage.line.take(), b"get a\r\ndelete big\r\nget b\r\n")
        stage.line.send(get(b"a") + b"DELETED\r\n" + get(b"b"))
        self.assertEqual(client.take(), get(b"a") + TOO_LARGE + get(b"b"))

    def test_tooLargeWhenDown(self) -> None:
        """
        A value that is too large is answered when there is no server, too.
        """
        stage = self.stage(maxItemSize=2048)
        client = stage.client()
        stage.servers[0].mode = "refuse"
        stage.line.lose()
        stage.turns()
        client.send(b"set big 0 0 5000\r\n" + b"x" * 5000 + b"\r\n")
        self.assertEqual(client.take(), TOO_LARGE)

    def test_swallowing(self) -> None:
        """
        A value that is being swallowed while reads are asked again is answered behind them.
        """
        stage = self.stage(maxItemSize=2048)
        client = stage.client()
        client.send(b"get a\r\nset big 0 0 5000\r\n" + b"x" * 4000)
        stage.line.lose()
        client.send(b"x" * 1000 + b"\r\n")
        self.assertEqual(client.take(), b"")
        stage.serve()
        self.assertEqual(client.take(), get(b"a") + TOO_LARGE)

    def test_swallowingRefused(self) -> None:
        """
        The same when they are refused.
        """
        stage = self.stage(maxItemSize=2048)
        client = stage.client()
        client.send(b"get a\r\nset big 0 0 5000\r\n" + b"x" * 4000)
        stage.servers[0].mode = "refuse"
        stage.line.lose()
        client.send(b"x" * 1000 + b"\r\nx\r\n")
        stage.serve()
        self.assertEqual(client.take(), REFUSED + TOO_LARGE + b"ERROR\r\n")

    def test_refusedUnread(self) -> None:
        """
        A client that does not read is refused what was to be asked again like any other.
        """
        stage = self.stage(sessionLimits=SessionLimits(unreadSoft=100))
        client = stage.client()
        client.send(gets(keys(10)) + b"x\r\n" + put(b"k", 1))
        client.reads = False
        client.write(b" " * (HIGH_WATER + 1))
        stage.servers[0].mode = "refuse"
        self.lose(stage)
        self.assertFalse(client.reading)
        client.read()
        stage.turns()
        self.assertEqual(client.take().strip(b" "), REFUSED * 10 + b"ERROR\r\n" + LOST)


class VanishTests(SessionTestCase):
    """
    Tests for clients that are gone before they are answered.
    """

    def assertUnharmed(self, stage: Stage, other: Pipe) -> None:
        """
        Assert that another client is served, and that the books are right.
        """
        stage.serve()
        other.take()
        self.assertEqual(stage.ask(other, b"get other\r\n"), get(b"other"))
        assertTidy(self, stage.pool)

    @covers("4")
    def test_stages(self) -> None:
        """
        Whatever a client was in the middle of, its end harms nobody.
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

    def test_waiting(self) -> None:
        """
        One that waits gives up its place.
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

    def test_again(self) -> None:
        """
        What was to be asked again is not, for a client that is gone.
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
        A client that is gone is not told of a connection that is lost.
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
        What a client has left unread counts no more when it is gone.
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
        A client may go in the middle of a value that is too large.
        """
        stage = self.stage(maxItemSize=2048)
        client, other = stage.client(), stage.client()
        client.send(b"set big 0 0 5000\r\nxxx")
        client.lose()
        self.assertUnharmed(stage, other)


class GateTests(SessionTestCase):
    """
    Tests for clients who have to log in.
    """

    LOGIN = b"set x 0 0 10\r\njoe secret\r\n"
    UNAUTHENTICATED = b"CLIENT_ERROR unauthenticated\r\n"

    def gated(self) -> Stage:
        """
        Make a stage whose clients have to log in.
        """
        stage = self.stage(start=False)
        stage.sessions.gate.accepted = ((b"joe", b"secret"),)
        stage.pool.start()
        stage.turns()
        return stage

    def test_refused(self) -> None:
        """
        Before the login no request is done, whatever it is, and nothing reaches a server.
        """
        stage = self.gated()
        for request, _ in EXCHANGES:
            told = stage.ask(stage.client(), request)
            self.assertIn(told, (self.UNAUTHENTICATED, b"CLIENT_ERROR bad authentication token format\r\n"), request)
        self.assertEqual(stage.line.asked, [])

    @covers("30")
    def test_admitted(self) -> None:
        """
        After the login everything is as ever, also for what came together with it, in any pieces.
        """
        requests = b"".join(request for request, _ in EXCHANGES)
        replies = b"".join(reply for _, reply in EXCHANGES)
        for piece in (0, 1, 7, 20):
            stage = self.gated()
            stage.dialect = stage.sessions.dialect = Memcache(2048)
            client = stage.client()
            client.send(self.LOGIN + requests, piece)
            stage.serve()
            self.assertEqual(client.take(), b"STORED\r\n" + replies)

    def test_eachItself(self) -> None:
        """
        One client's login is for itself only.
        """
        stage = self.gated()
        client, other = stage.client(), stage.client()
        self.assertEqual(stage.ask(client, self.LOGIN), b"STORED\r\n")
        self.assertEqual(stage.ask(other, b"get a\r\n"), self.UNAUTHENTICATED)
        self.assertEqual(stage.ask(client, b"get a\r\n"), get(b"a"))

    def test_again(self) -> None:
        """
        Who is refused may try again, and who is let in may store what looks like a login.
        """
        stage = self.gated()
        client = stage.client()
        wrong = b"set x 0 0 9\r\njoe wrong\r\n"
        self.assertEqual(stage.ask(client, wrong), b"CLIENT_ERROR authentication failure\r\n")
        self.assertEqual(stage.ask(client, self.LOGIN), b"STORED\r\n")
        self.assertEqual(stage.ask(client, wrong), b"STORED\r\n")
        self.assertEqual(stage.line.asked, [wrong])

    def test_closed(self) -> None:
        """
        Who sends more than a login can be is closed.
        """
        stage = self.gated()
        client = stage.client()
        client.send(b"a" * 6000, 1000)
        stage.turns()
        self.assertEqual((client.connected, client.take()), (False, b""))

    def test_drained(self) -> None:
        """
        A client that never logged in does not hold up the end.
        """
        stage = self.gated()
        client = stage.client()
        client.send(self.LOGIN[:20])
        drained = stage.sessions.drain()
        stage.turns()
        self.successResultOf(drained)
        self.assertFalse(client.connected)


class BooksTests(SessionTestCase):
    """
    Tests for the accounts that sessions, connections and the pool keep together.
    """

    def test_start(self) -> None:
        """
        A connection whose handshake is done is idle once: given away, it is idle no more.
        """
        stage = self.stage(minimum=2, maximum=2)
        assertTidy(self, stage.pool)
        first, second = stage.client(), stage.client()
        first.send(b"get a\r\n")
        second.send(b"get b\r\n")
        for line in stage.lines:
            line.look()
        self.assertEqual([len(line.asked) for line in stage.lines], [1, 1])
        assertTidy(self, stage.pool, quiet=False)
        stage.serve()
        assertTidy(self, stage.pool)

    def test_everywhereFromAReply(self) -> None:
        """
        What goes to every server may be sent while the last reply of the only connection to one is being delivered.
        """
        stage = self.stage(2)
        client = stage.client()
        self.assertEqual(stage.ask(client, b"get a\r\nflush_all\r\nget b\r\n"), get(b"a") + b"OK\r\n" + get(b"b"))
        assertTidy(self, stage.pool)

    @covers("18")
    def test_grantedInVain(self) -> None:
        """
        A connection that is given to a session which cannot use it, because its client stopped reading meanwhile, goes
        to the next one.
        """
        stage = self.stage(depth=1, sessionLimits=SessionLimits(unreadSoft=1000))
        other, client, third = (stage.client() for _ in range(3))
        client.reads = False
        self.assertEqual(stage.ask(other, b"get a\r\n"), get(b"a"))
        other.send(b"get a\r\n")
        client.send(b"get b\r\n")
        third.send(b"get c\r\n")
        client.write(b" " * (HIGH_WATER + 1))
        client.protocol.replied(b" " * 1001, 0)
        stage.serve()
        self.assertEqual(third.take(), get(b"c"))
        assertTidy(self, stage.pool)
        client.read()
        stage.serve()
        client.read()
        self.assertEqual(client.take().strip(b" "), get(b"b"))

    def test_retired(self) -> None:
        """
        A connection that is to be replaced answers what it carries; what is asked meanwhile goes over the new one.
        """
        stage = self.stage()
        client, other = stage.client(), stage.client()
        old = stage.line
        client.send(b"get a\r\n")
        stage.pool.expire()
        client.send(b"get b\r\n")
        other.send(b"get c\r\n")
        stage.turns()
        self.assertEqual(len(stage.lines), 1)
        stage.serve()
        self.assertEqual((client.take(), other.take()), (get(b"a", b"b"), get(b"c")))
        self.assertEqual((old.connected, old.asked), (False, [b"get a\r\n"]))

    @covers("22")
    def test_options(self) -> None:
        """
        On TCP, answers leave at once and a vanished client is noticed.
        """
        stage = self.stage()
        options: list[tuple[str, bool]] = []
        pipe: Any = Pipe(stage.clock)
        pipe.setTcpNoDelay = lambda on: options.append(("no delay", on))
        pipe.setTcpKeepAlive = lambda on: options.append(("keep alive", on))
        directlyProvides(pipe, ITCPTransport)
        pipe.connect(stage.sessions.buildProtocol(None))
        self.assertEqual(options, [("no delay", True), ("keep alive", True)])

    def test_values(self) -> None:
        """
        The values of these tests are what they should be: each its own, and full of what looks like the protocol.
        """
        self.assertEqual(len({value(name) for name in keys(50)}), 50)
        self.assertIn(b"\r\nEND\r\nVALUE zzzz 0 3\r\n", value(b"zzzz"))
