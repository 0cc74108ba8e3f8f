# -*- test-case-name: tests.proxy.test_compound -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.compound}: requests for many keys, over sessions, a pool and servers in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.memcached import answer
from tests.pipes import HIGH_WATER, Pipe
from tests.stage import Stage, assertClosed, assertTidy
from txconnpool.proxy.compound import AHEAD
from txconnpool.proxy.flow import SessionLimits
from txconnpool.wire.memcache.classic import PART_KEYS

LOST = b"SERVER_ERROR upstream connection lost (server0)\r\n"


def many(count: int, first: int = 0, word: bytes = b"get") -> bytes:
    """
    @return: a request for C{count} keys, some of which do not exist.
    """
    names = [b"miss%d" % number if number % 7 == 3 else b"key%d" % number for number in range(first, first + count)]
    return b"%s %s\r\n" % (word, b" ".join(names))


def reply(request: bytes) -> bytes:
    """
    @return: the reply of a server to one request.
    """
    return answer(request)[0]


class SplitTests(SynchronousTestCase):
    """
    A client requests more keys than a server is asked for in one request.
    """

    def stage(self, **settings: Any) -> Stage:
        """
        @return: a stage. It is closed at the end of the test.
        """
        stage = Stage(**settings)
        stage.clock.advance(2)  # so that a lost connection is not one that was lost as soon as it was made
        self.addCleanup(assertClosed, self, stage)
        self.addCleanup(stage.sessions.abort)
        self.addCleanup(assertTidy, self, stage.pool, False)
        return stage

    def replied(self, client: Pipe, request: bytes) -> None:
        """
        Assert that a client has received the reply to C{request}.
        """
        self.assertEqual(client.take(), reply(request))

    def test_whole(self) -> None:
        """
        The client gets the reply to its one request. The parts after the first are sent when that is answered.
        """
        for word in (b"get", b"gets"):
            stage = self.stage()
            client = stage.client()
            request = many(2 * PART_KEYS + 20, word=word)
            client.send(request, 100)
            for asked in (1, 3):
                stage.line.look()
                self.assertEqual(len(stage.line.asked), asked)
                stage.line.deliver()
            parts = many(PART_KEYS, 0, word), many(PART_KEYS, PART_KEYS, word), many(20, 2 * PART_KEYS, word)
            self.assertEqual(stage.line.asked, list(parts))
            self.replied(client, request)

    def test_ahead(self) -> None:
        """
        While the replies are small, more and more parts are in flight at the same time, so that very many keys do not
        take a round trip for each part.
        """
        stage = self.stage()
        client = stage.client()
        client.send(many(1000))
        rounds: list[int] = []
        while sum(rounds) < 20:
            before = len(stage.line.asked)
            stage.line.look()
            rounds.append(len(stage.line.asked) - before)
            stage.line.deliver()
            stage.turns()
        stage.serve()
        self.assertEqual(rounds, [1, 4, 15])
        self.assertEqual(client.take(), reply(many(1000)))

    def test_largeOneByOne(self) -> None:
        """
        While the replies are large, one part is in flight at a time.
        """
        stage = self.stage()
        client = stage.client()
        client.send(many(4 * PART_KEYS))
        for number in range(4):
            stage.line.look()
            self.assertEqual(len(stage.line.asked), number + 1)
            key = b"key%d" % (number * PART_KEYS)
            stage.line.owed = b"VALUE %b 0 900000\r\n%b\r\nEND\r\n" % (key, b"x" * 900000)
            self.assertTrue(stage.line.deliver())
            stage.turns()
            client.take()
        stage.serve()
        self.assertTrue(client.connected)

    def test_limit(self) -> None:
        """
        A request for as many keys as one part may have is not split.
        """
        stage = self.stage()
        client = stage.client()
        self.assertEqual(stage.ask(client, many(PART_KEYS)), reply(many(PART_KEYS)))
        self.assertEqual(stage.line.asked, [many(PART_KEYS)])

    @covers("12")
    def test_misses(self) -> None:
        """
        If no key exists, the reply is a miss.
        """
        stage = self.stage()
        request = b"get" + b" miss" * 120 + b"\r\n"
        self.assertEqual(stage.ask(stage.client(), request), b"END\r\n")

    @covers("29")
    def test_order(self) -> None:
        """
        The reply has its place among the replies to the other requests of the client.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get a\r\nx\r\n" + many(120) + b"get b\r\n" + many(60) + b"y\r\n")
        stage.serve()
        expected = reply(b"get a\r\n") + b"ERROR\r\n" + reply(many(120)) + reply(b"get b\r\n")
        self.assertEqual(client.take(), expected + reply(many(60)) + b"ERROR\r\n")

    def test_others(self) -> None:
        """
        Other clients are served between the parts.
        """
        stage = self.stage(depth=1)
        client, other = stage.client(), stage.client()
        client.send(many(3 * PART_KEYS))
        other.send(b"get a\r\n")
        stage.serve()
        self.assertEqual(stage.line.asked[1], b"get a\r\n")
        self.replied(client, many(3 * PART_KEYS))
        self.replied(other, b"get a\r\n")

    def test_crowded(self) -> None:
        """
        No part is sent while the client does not read. When it reads, it gets all values.
        """
        stage = self.stage(sessionLimits=SessionLimits(unreadSoft=1000))
        client = stage.client()
        client.reads = False
        request = b"get " + b" ".join(b"zzzz%d" % number for number in range(2000)) + b"\r\n"
        client.send(request)
        stage.serve()
        asked = len(stage.line.asked)
        self.assertLess(asked, 2 * AHEAD)
        self.assertLess(client.unread, HIGH_WATER + 1000 + 60 * PART_KEYS * 16)
        stage.serve()
        self.assertEqual(len(stage.line.asked), asked)
        while client.unread:
            client.read()
            stage.serve()
        self.replied(client, request)

    @covers("18")
    def test_crowdedByHeld(self) -> None:
        """
        Replies of the proxy that wait behind the request do not delay a part that is sent again.
        """
        stage = self.stage(sessionLimits=SessionLimits(unreadSoft=1000))
        client = stage.client()
        request = b"get" + b" miss" * PART_KEYS + b" key\r\n"
        client.send(request + b"incr a x\r\n" * 60)
        stage.line.deliver()
        stage.line.look()
        self.assertGreater(client.protocol.held, 1000)
        stage.line.lose()
        stage.turns()
        stage.serve()
        self.assertEqual(client.take(), reply(request) + b"CLIENT_ERROR invalid numeric delta argument\r\n" * 60)

    def test_vanished(self) -> None:
        """
        No part is sent for a client that is gone, whether one is in flight or the session waits.
        """
        stage = self.stage(depth=1)
        client, other, third = (stage.client() for _ in range(3))
        client.send(many(120))
        third.send(many(120))
        client.lose()
        third.lose()
        self.assertEqual(stage.pool.waiters.count, 0)
        stage.serve()
        self.assertEqual(stage.line.asked, [many(PART_KEYS)])
        self.assertEqual(stage.ask(other, b"get a\r\n"), reply(b"get a\r\n"))

    def test_tooMuch(self) -> None:
        """
        No part is sent for a client that was closed because the reply to one part was too large for it.
        """
        stage = self.stage(sessionLimits=SessionLimits(unreadSoft=1000, unreadHard=20000))
        client = stage.client()
        client.reads = False
        client.send(many(120))
        stage.line.look()
        stage.line.owed = b"VALUE key0 0 99999\r\n%s\r\nEND\r\n" % (b"x" * 99999)
        stage.serve()
        self.assertEqual((client.aborted, len(stage.line.asked)), (True, 1))

    def test_error(self) -> None:
        """
        An error of the server is the whole reply if no value was found before it. The next request gets its own reply.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get" + b" miss" * 60 + b" key" * 60 + b"\r\nget a\r\n")
        stage.line.look()
        stage.line.deliver()
        stage.line.look()
        last = reply(b"get" + b" key" * 20 + b"\r\n")
        stage.line.owed = b"SERVER_ERROR out of memory\r\n" + last + reply(b"get a\r\n")
        stage.serve()
        self.assertEqual(client.take(), b"SERVER_ERROR out of memory\r\n" + reply(b"get a\r\n"))
        self.assertEqual(len(stage.line.asked), 4)

    def test_errorLikeAnEnding(self) -> None:
        """
        The same for an error whose text ends as a reply does.
        """
        stage = self.stage()
        client = stage.client()
        client.send(many(120))
        stage.line.look()
        stage.line.owed = b"SERVER_ERROR NO END\r\n"
        stage.serve()
        self.assertEqual((client.take(), len(stage.line.asked)), (b"SERVER_ERROR NO END\r\n", 1))

    @covers("5b")
    def test_errorLater(self) -> None:
        """
        Behind a part of the reply there is no place for an error, so the client is closed, also in the last part.
        """
        for parts in (1, 2):
            stage = self.stage()
            client = stage.client()
            client.send(many(2 * PART_KEYS + 20))
            stage.line.deliver()
            begun = reply(many(parts * PART_KEYS)).removesuffix(b"END\r\n")
            stage.line.look()
            good = [reply(many(PART_KEYS, PART_KEYS)), reply(many(20, 2 * PART_KEYS))]
            good[parts - 1] = b"SERVER_ERROR out of memory\r\n"
            stage.line.owed = b"".join(good)
            stage.serve()
            self.assertEqual((client.take(), client.connected), (begun, False))

    def test_lost(self) -> None:
        """
        A part whose connection was lost is sent once more, and the others follow.
        """
        stage = self.stage()
        client = stage.client()
        client.send(many(3 * PART_KEYS))
        stage.line.deliver()
        stage.line.look()
        stage.line.lose()
        stage.turns()
        stage.serve()
        self.replied(client, many(3 * PART_KEYS))
        self.assertEqual(stage.line.asked, [many(PART_KEYS, PART_KEYS), many(PART_KEYS, 2 * PART_KEYS)])
        self.assertEqual(stage.pool.counters.retries, 2)

    def test_lostTwice(self) -> None:
        """
        If the second connection is lost too, the client gets one error, or is closed if it has received a part of the
        reply.
        """
        for begun in (False, True):
            stage = self.stage()
            client = stage.client()
            client.send(many(3 * PART_KEYS))
            if begun:
                stage.line.deliver()
            for _ in range(2):
                stage.line.look()
                stage.line.lose()
                stage.turns()
                stage.clock.advance(1.5)
            if begun:
                self.assertEqual((client.take(), client.connected), (reply(many(PART_KEYS))[:-5], False))
            else:
                self.assertEqual(client.take(), LOST)
                self.assertEqual(stage.ask(client, b"get a\r\n"), reply(b"get a\r\n"))

    def test_lostInAValue(self) -> None:
        """
        A client that has received a part of a value is closed.
        """
        stage = self.stage()
        client = stage.client()
        client.send(many(120))
        stage.line.deliver(100)
        stage.line.lose()
        stage.turns()
        self.assertEqual((len(client.take()), client.connected), (100, False))

    @covers("18", "27")
    def test_unavailable(self) -> None:
        """
        Without a server each request gets one error, whether that is known at once or later.
        """
        stage = self.stage(start=False)
        stage.servers[0].mode = "refuse"
        client = stage.client()
        refused = b"SERVER_ERROR upstream unavailable: connection refused (server0)\r\n"
        for _ in range(2):
            client.send(many(120) + b"x\r\n" + many(120))
            stage.turns()
            self.assertEqual(client.take(), refused + b"ERROR\r\n" + refused)
        client.send(many(120) + b"x\r\n" + many(120))
        client.end()
        stage.turns()
        self.assertEqual((client.take(), client.connected), (refused + b"ERROR\r\n" + refused, False))

    @covers("18")
    def test_unavailableLater(self) -> None:
        """
        If there is no server for a later part, or for one whose connection was lost, the client gets an error at once,
        or is closed if it has received a part of the reply.
        """
        for begun in (False, True):
            stage = self.stage()
            stage.line.lose()
            stage.turns()
            client = stage.client()
            client.send(many(120))
            if begun:
                stage.line.deliver()
                stage.servers[0].mode = "refuse"
            stage.line.lose()  # before the first reply, so that the server counts as down
            stage.turns()
            if begun:
                self.assertEqual((client.take(), client.connected), (reply(many(PART_KEYS))[:-5], False))
            else:
                self.assertEqual(client.take(), b"SERVER_ERROR upstream unavailable: connection lost (server0)\r\n")

    @covers("26")
    def test_counted(self) -> None:
        """
        The bytes of parts that are not sent are counted as held for the client, until they are answered or the client
        is gone.
        """
        stage = self.stage()
        client, other = stage.client(), stage.client()
        request = b"get" + b" miss" * 20000 + b"\r\n"
        for each in (client, other):
            each.send(request, 10000)
        self.assertGreater(stage.unread.total, 2 * 100000)
        other.lose()
        stage.line.deliver()
        self.assertEqual(stage.unread.total, client.protocol.kept)
        self.assertGreater(stage.unread.total, 100000)
        client.send(b"get " + b"k" * 70000)
        self.assertGreater(stage.unread.total, 170000)
        stage.serve()
        self.assertEqual((client.take(), client.connected), (b"END\r\n", True))
        self.assertLess(stage.unread.total, 80000)
        last = stage.client()
        last.send(request, 10000)
        self.assertGreater(last.protocol.kept, 100000)
        stage.serve()
        self.assertEqual((last.take(), last.protocol.kept), (b"END\r\n", 0))

    def test_ended(self) -> None:
        """
        A client that half-closes its connection gets the whole reply, and a drain waits for that.
        """
        stage = self.stage()
        client, other = stage.client(), stage.client()
        client.send(many(3 * PART_KEYS))
        client.end()
        other.send(many(2 * PART_KEYS))
        done = stage.sessions.drain()
        self.assertNoResult(done)
        stage.serve()
        self.replied(client, many(3 * PART_KEYS))
        self.replied(other, many(2 * PART_KEYS))
        self.successResultOf(done)

    def test_timeout(self) -> None:
        """
        A part that timed out is not sent again.
        """
        stage = self.stage()
        client = stage.client()
        client.send(many(120))
        stage.line.look()
        stage.clock.advance(2)
        stage.turns()
        stage.serve()
        self.assertEqual(client.take(), b"SERVER_ERROR upstream timed out: no answer within 2 s (server0)\r\n")
        self.assertEqual(stage.pool.counters.retries, 0)
