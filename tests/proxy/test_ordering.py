# -*- test-case-name: tests.proxy.test_ordering -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.ordering}: the order of replies, also when connections are lost.
"""

from __future__ import annotations

from tests.bugs import covers
from tests.clients import FIRST_WINDOW, LOST, REFUSED, SessionTestCase, get, gets, keys, put
from tests.memcached import answer
from tests.pipes import HIGH_WATER
from tests.stage import Stage, assertTidy
from txconnpool.proxy import ordering
from txconnpool.proxy.flow import SessionLimits


class OrderTests(SessionTestCase):
    """
    Tests for replies in the order of the requests.
    """

    def test_local(self) -> None:
        """
        A reply of the proxy itself waits for the replies to all requests before it.
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

    def test_shared(self) -> None:
        """
        Clients that share a connection each get their own replies.
        """
        stage = self.stage()
        clients = [stage.client() for _ in range(20)]
        for number, client in enumerate(clients):
            client.send(gets(keys(5, 100 * number)) + b"x\r\n" + put(b"k", number) + b"mg miss%d q\r\n" % number)
        self.assertEqual(len(stage.lines), 1)
        stage.serve()
        for number, client in enumerate(clients):
            self.assertEqual(client.take(), get(*keys(5, 100 * number)) + b"ERROR\r\nSTORED\r\n")

    def test_broadcastFromReply(self) -> None:
        """
        A broadcast may be sent while the connection that it needs delivers its last reply.
        """
        stage = self.stage(2)
        client = stage.client()
        self.assertEqual(stage.ask(client, b"get a\r\nflush_all\r\nget b\r\n"), get(b"a") + b"OK\r\n" + get(b"b"))
        assertTidy(self, stage.pool)


class WindowTests(SessionTestCase):
    """
    Tests for the number of requests that a session may have in flight.
    """

    def test_opens(self) -> None:
        """
        A session may have few requests in flight at first, more when it reads its replies, and never more than the
        maximum.
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

    def test_window(self) -> None:
        """
        A session that leaves much unread may have fewer requests in flight, so that not all the values it requests
        arrive at once.
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
        A session that requests large values has few requests in flight although it reads. When values are small again,
        it may have more.
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

    def test_largeRepliesInQueue(self) -> None:
        """
        It makes no difference whether replies are held back, or are parts of one reply.
        """
        self.patch(ordering, "BATCH", 50000)
        for requests in (
            b"get a\r\nx\r\n" + gets([b"large%d" % number for number in range(20)]),
            b"get" + (b" large" * 3 + b" miss" * 47) * 3 + b"\r\n",
        ):
            stage = self.stage()
            client = stage.client()
            stage.ask(client, requests)
            self.assertLess(client.protocol._window, FIRST_WINDOW)


class LossTests(SessionTestCase):
    """
    Tests for connections that are lost with requests in flight.
    """

    def lose(self, stage: Stage) -> None:
        """
        Lose the connection, and let another one be made.
        """
        stage.line.lose()
        stage.turns()

    def test_read(self) -> None:
        """
        Reads are sent again on another connection and get one reply each.
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
        Writes are not sent again, because they may have been executed.
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
        The order holds after a loss: replies to reads, errors of writes, replies of the proxy itself, and replies to
        later requests.
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
        A read whose connection was lost twice gets an error.
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
        The order holds if the second loss concerns only those of the merged gets for which the second connection had
        capacity.
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

    def test_retryChecked(self) -> None:
        """
        The reply to a request that was sent again is compared with its key too.
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
        Of merged gets, those without a reply are sent again.
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
        A client that has received a part of a value is closed, because no error can follow. Others get their replies.
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
        It gets all bytes that have arrived before it is closed.
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
        It is closed at once if it does not read.
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
        Requests that are sent again wait for a connection with capacity like all others.
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
        If there is no other connection, the requests get errors in their places.
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
        A server that closes a new connection counts as down for a while, so a read is not sent again and again.
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
        A connection that delivers invalid bytes is closed. Reads are sent again, other requests get an error that does
        not contain these bytes.
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
        Nothing is sent on a connection that was closed for invalid bytes, even before C{connectionLost} is called.
        """
        stage = self.stage()
        client, other = stage.client(), stage.client()
        client.send(b"get a\r\n")
        stage.line.send(b"junk\r\n")
        other.send(put(b"k", 1))
        stage.serve()
        self.assertEqual((client.take(), other.take()), (get(b"a"), b"STORED\r\n"))

    def test_refusedUnread(self) -> None:
        """
        Requests of a client that does not read get errors too if they cannot be sent again.
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

    def test_tooManyErrors(self) -> None:
        """
        If the errors of lost requests exceed a bound, the client is closed. Other clients get their replies.
        """
        for limits, bound in ((SessionLimits(), 60), (SessionLimits(unreadSoft=10, unreadHard=60), 1 << 20)):
            stage = self.stage(sessionLimits=limits, maxUnread=bound)
            client, other = stage.client(), stage.client()
            client.send(b"get a\r\nx\r\n" + put(b"k", 1) * 10)
            other.send(put(b"k", 1) + b"get b\r\n")
            self.lose(stage)
            stage.serve()
            self.assertEqual((client.aborted, other.take()), (True, LOST + get(b"b")))
            self.assertEqual((stage.unread.dropped, stage.unread.total), (1, 0))


class TimeoutTests(SessionTestCase):
    """
    Tests for servers that do not reply.
    """

    @covers("2", "17")
    def test_frozen(self) -> None:
        """
        Requests to a server that does not reply get an error after the request timeout and are not sent again.
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

    def test_closesAtACommand(self) -> None:
        """
        A client whose requests make a server close its connections does not harm the others for long: from the second
        time on its requests are answered by the proxy.
        """
        stage = self.stage(maximum=2, minimum=2)
        poison, *others = (stage.client() for _ in range(20))
        lost = 0
        for number in range(20):
            poison.take()
            poison.send(b"gat 0 k\r\n")
            for other in others:
                other.send(put(b"k", 1))
            stage.turns()
            for line in stage.lines:
                if line.connected and b"gat" in line.received:
                    line.lose()
            stage.serve()
            for other in others:
                lost += other.take() != b"STORED\r\n"
            stage.clock.advance(0.3)
            stage.turns()
            if number > 1:
                self.assertTrue(poison.take().startswith(b"ERROR gat is not supported: server0 closes"))
        self.assertLessEqual(lost, 2 * len(others))
        self.assertEqual((stage.pool.counters.lost, stage.pool.counters.outages), (2, 0))

    def test_forgotten(self) -> None:
        """
        A read is sent once more if it gets no reply on a connection that had been idle: a firewall may have forgotten
        it. A write gets the error.
        """
        stage = self.stage(requestTimeout=0.5)
        client, other = stage.client(), stage.client()
        stage.clock.advance(60)
        client.send(b"get a\r\nmg b v\r\n")
        other.send(put(b"k", 1) + b"get c\r\n")
        stage.line.look()
        stage.clock.advance(0.5)
        stage.turns()
        stage.serve()
        error = b"SERVER_ERROR upstream timed out: no answer within 0.5 s (server0)\r\n"
        self.assertEqual(client.take(), get(b"a") + answer(b"mg b v\r\n")[0])
        self.assertEqual(other.take(), error + get(b"c"))
        self.assertEqual(stage.pool.counters.retries, 3)

    def test_frozenAfterIdle(self) -> None:
        """
        If the server does not reply to the second attempt either, the read gets the error.
        """
        stage = self.stage(requestTimeout=0.5)
        client = stage.client()
        stage.clock.advance(60)
        client.send(b"get a\r\n")
        for _ in range(2):
            stage.clock.advance(0.5)
            stage.turns()
        self.assertEqual(client.take(), b"SERVER_ERROR upstream timed out: no answer within 0.5 s (server0)\r\n")

    @covers("14")
    def test_frozenInAValue(self) -> None:
        """
        A client that has received a part of a value is closed after the timeout. Others get an error.
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
        If one of two servers stops replying, only the requests in flight there time out. Later requests go to the other
        server until the first one replies again.
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
