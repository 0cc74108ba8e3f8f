# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.uniting}: reads of several clients that a server gets as one request.
"""

from __future__ import annotations

import gc
import random
import re
import weakref
from typing import Any

from tests.clients import SessionTestCase, get, put
from tests.memcached import Line, QueuedLine, answer
from tests.pipes import Pipe
from tests.proxy.test_sharding import ShardedTestCase, anyRequest
from tests.stage import ShardedStage, Stage
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.uniting import APART, FEW, LARGE, LONG, WHOLE
from txconnpool.wire.memcache.replies import GET, GETS, SEVERAL

ERROR = b"SERVER_ERROR out of memory\r\n"

#: The number of random stories.
STORIES = 60


class OddLine(Line):
    """
    A connection to a server with other replies.
    """

    def look(self) -> None:
        """
        Replace the replies.
        """
        before, asked = self.owed, len(self.asked)
        super().look()
        self.owed = b"".join([before, *map(self.reply, self.asked[asked:])])

    def reply(self, request: bytes) -> bytes:
        """
        @return: the reply to a request.
        """
        raise NotImplementedError


class FailingLine(OddLine):
    """
    A connection to a server that answers requests for several keys with an error.
    """

    def reply(self, request: bytes) -> bytes:
        """
        @return: the reply to a request.
        """
        return ERROR if request.count(b" ") > 1 else answer(request)[0]


class UnorderedLine(OddLine):
    """
    A connection to a server that sends the values of a reply in the reverse order of the keys.
    """

    def reply(self, request: bytes) -> bytes:
        """
        @return: the reply to a request.
        """
        name, *words = request.split()
        return answer(b" ".join([name, *reversed(words)]) + b"\r\n")[0]


class UnitingTestCase(SessionTestCase):
    """
    Base class of these tests.
    """

    def setUp(self) -> None:
        """
        Let reads of several keys be united without the extension too.
        """
        for command in (GET, GETS):
            self.patch(SEVERAL[command], "unites", True)

    def uniting(self, *requests: bytes, **settings: Any) -> tuple[Stage, list[Pipe]]:
        """
        Let clients send a request each in one turn of the reactor.
        """
        stage = self.stage(unites=True, **settings)
        stage.sessions.uniting.most = 1000
        clients = [stage.client() for _ in requests]
        for client, request in zip(clients, requests, strict=True):
            client.send(request)
        return stage, clients

    def asked(self, stage: Stage) -> list[bytes]:
        """
        @return: what the servers were asked.
        """
        stage.turns()
        for line in stage.lines:
            line.look()
        return [request for line in stage.lines for request in line.asked]


class UnitedTests(UnitingTestCase):
    """
    Tests for what servers are asked and clients get.
    """

    def test_together(self) -> None:
        """
        The server gets one request, and each client the reply to its own. Each request counts.
        """
        for word in (b"get", b"gets"):
            requests = [b"%b %b\r\n" % (word, keys) for keys in (b"a", b"missb", b"c a missd", b"a", b"e f")]
            stage, clients = self.uniting(*requests)
            self.assertEqual(self.asked(stage), [b"%b a missb c a missd a e f\r\n" % word])
            (record,) = stage.pool.state.records
            self.assertEqual(record.load, 1)
            stage.serve()
            self.assertEqual([client.take() for client in clients], [answer(request)[0] for request in requests])
            traffic = stage.pool.servers[0].traffic
            index = (GET if word == b"get" else GETS).index
            self.assertEqual((traffic.requests[index], traffic.moreKeys), (5, 3))
            self.assertEqual(traffic.missed + traffic.moreMissed, 2)
            handshakes = 1
            counted = sum(traffic.latency.counts), stage.pool.counters.acquired
            self.assertEqual(counted, (5 + handshakes, 5))

    def test_spaces(self) -> None:
        """
        The number of spaces between the words of a request does not matter for the others.
        """
        requests = [b"get  x \r\n", b"get miss11\r\n", b"get   y  z\r\n", b"get 11\r\n", b"get b \r\n"]
        for kind in (Line, UnorderedLine):
            for piece in (None, 7):
                stage, clients = self.uniting(*requests, line=kind)
                stage.turns()
                while stage.line.deliver(piece):
                    pass
                self.assertEqual([client.take() for client in clients], [answer(each)[0] for each in requests])

    def test_few(self) -> None:
        """
        At first only a few requests become one, and more when the replies are small.
        """
        keys = [b"short%d" % number for number in range(8 * FEW)]
        stage, clients = self.uniting(*[b"get %b\r\n" % key for key in keys[:FEW]])
        stage.sessions.uniting.most = FEW
        clients += [stage.client() for _ in keys[FEW:]]
        stage.serve()
        asked = stage.line.asked
        for count in (FEW, 2 * FEW, 4 * FEW):
            self.assertEqual(asked[-1].count(b" "), count)
            for client, key in zip(clients, keys, strict=True):
                client.send(b"get %b\r\n" % key)
            stage.serve()
        for client in clients:
            client.take()
        stage.sessions.uniting.adapt(WHOLE, 8 * FEW)
        self.assertEqual(stage.sessions.uniting.most, 4 * FEW)

    def test_alone(self) -> None:
        """
        One read is sent as it is, and so is one of another kind, any other request, one of a client with another one in
        flight, and one that comes with others.
        """
        for requests in (
            [b"get a\r\n"],
            [b"get a\r\n", b"gets b\r\n", b"mg e v\r\n", put(b"a", 3), b"delete f\r\n", b"gat 9 a\r\n"],
        ):
            stage, clients = self.uniting(*requests)
            self.assertEqual(sorted(self.asked(stage)), sorted(requests))
            stage.serve()
            for client, request in zip(clients, requests, strict=True):
                self.assertEqual(client.take(), answer(request)[0])
        stage, clients = self.uniting(b"get a\r\n", b"get b\r\nversion\r\n")
        self.assertEqual(sorted(self.asked(stage)), [b"get a\r\n", b"get b\r\n", b"version\r\n"])

    def test_interjected(self) -> None:
        """
        A frame that no request asked for is written between replies, not within one.
        """
        for requests, expected in (
            ((b"get a\r\n",), get(b"a") + b"PUSH\r\n"),
            ((b"get a\r\n", b"get b\r\n"), b"PUSH\r\n" + get(b"a")),
        ):
            stage, clients = self.uniting(*requests)
            stage.turns()
            stage.line.deliver(1)
            clients[0].protocol.interject(b"PUSH\r\n")
            while stage.line.deliver(1):
                stage.turns()
            self.assertEqual(clients[0].take(), expected)

    def test_many(self) -> None:
        """
        Requests become one as long as they have at most L{LONG} bytes. A longer one is sent alone.
        """
        keys = [b"key%0200d" % number for number in range(LONG // 200 + 3)]
        requests = [b"get %b\r\n" % key for key in keys]
        most = LONG // len(requests[0])
        stage, clients = self.uniting(*requests)
        self.assertEqual(self.asked(stage), [b"get %b\r\n" % b" ".join(its) for its in (keys[:most], keys[most:])])
        stage.serve()
        self.assertEqual([client.take() for client in clients], [get(key) for key in keys])
        long = b"get %b\r\n" % b" ".join(keys)
        stage, _ = self.uniting(b"get a\r\n", long, b"get b\r\n")
        self.assertEqual(sorted(self.asked(stage)), sorted([long, b"get a b\r\n"]))

    def test_more(self) -> None:
        """
        What a client sends after its read is sent when it has the reply.
        """
        for turns in (0, 1):
            stage, (one, other) = self.uniting(b"get a\r\n", b"get b\r\n")
            stage.turns(turns)
            one.send(put(b"a", 5) + b"get c\r\n")
            other.send(b"version\r\n")
            self.assertEqual(self.asked(stage), [b"get a b\r\n"])
            stage.serve()
            self.assertEqual(stage.line.asked[1:], [put(b"a", 5), b"get c\r\n", b"version\r\n"])
            self.assertEqual(one.take(), get(b"a") + b"STORED\r\n" + get(b"c"))
            self.assertEqual(other.take(), get(b"b") + b"VERSION 1.6.18\r\n")

    def test_pieces(self) -> None:
        """
        A reply that comes in pieces is passed on when it is complete, whatever the order of the values is.
        """
        requests = [b"get %b\r\n" % keys for keys in (b"a b", b"missb", b"large", b"c missd a", b"missd", b"e")]
        for kind in (Line, UnorderedLine):
            for piece in (None, 1, 7, 50, 1000, 15000):
                stage, clients = self.uniting(*requests, line=kind)
                stage.turns()
                while stage.line.deliver(piece):
                    held = sum(session.held for session in stage.sessions.sessions)
                    self.assertEqual(held, stage.unread.total)
                self.assertEqual([client.take() for client in clients], [answer(each)[0] for each in requests])
                self.assertEqual(stage.unread.total, 0)

    def test_error(self) -> None:
        """
        After an error in place of the reply, each request is sent again, alone: perhaps the error concerns only one.
        """
        for piece in (1, 10, 100):
            stage, clients = self.uniting(b"get a\r\n", b"get b c\r\n", b"get d\r\n", line=FailingLine)
            stage.turns()
            while stage.line.deliver(piece):
                stage.turns()
            self.assertEqual([client.take() for client in clients], [get(b"a"), ERROR, get(b"d")])

    def test_large(self) -> None:
        """
        After a reply with large values, requests are sent alone for a while.
        """
        requests = b"get large1\r\n", b"get large2\r\n"
        self.assertGreater(len(get(b"large1")), LARGE)
        stage, clients = self.uniting(*requests)
        for turn in range(APART // 2 + 2):
            if turn:
                for client, request in zip(clients, (b"get a\r\n", b"get b\r\n"), strict=True):
                    client.send(request)
            stage.serve()
        asked = stage.line.asked
        self.assertEqual(asked[:3], [b"get large1 large2\r\n", b"get a\r\n", b"get b\r\n"])
        self.assertEqual(asked[-3:], [b"get a\r\n", b"get b\r\n", b"get a b\r\n"])

    def test_veryLarge(self) -> None:
        """
        If the reply is too large to be kept, each request is sent again, alone.
        """
        keys = [b"large%d" % number for number in range(WHOLE // 20000 + 2)]
        requests = [b"get %b\r\n" % key for key in keys]
        for piece in (None, 5000):
            stage, clients = self.uniting(*requests)
            stage.turns()
            while stage.line.deliver(piece):
                stage.turns()
                self.assertLess(stage.unread.total, WHOLE + 5000)
            self.assertEqual([client.take() for client in clients], [get(key) for key in keys])
            if piece is not None:
                self.assertEqual(stage.line.asked[1:], requests)
                self.assertEqual(stage.pool.counters.retries, 0)

    def test_noCapacity(self) -> None:
        """
        If no connection has capacity, the requests wait like any others.
        """
        stage = self.stage(unites=True, depth=1)
        first = stage.client()
        first.send(put(b"a", 3))
        clients = [stage.client() for _ in range(2)]
        for client in clients:
            client.send(b"get a\r\n")
        self.assertEqual(self.asked(stage), [put(b"a", 3)])
        self.assertEqual(stage.pool.waiters.count, 2)
        stage.serve()
        self.assertEqual([client.take() for client in clients], [get(b"a"), get(b"a")])

    def test_pipelining(self) -> None:
        """
        If the read of a client was sent alone, its next requests are sent without waiting for the reply.
        """
        stage, (client,) = self.uniting(b"get a\r\n")
        stage.turns()
        client.send(put(b"a", 3))
        self.assertEqual(self.asked(stage), [b"get a\r\n", put(b"a", 3)])

    def test_crowded(self) -> None:
        """
        Bytes that are kept do not stop a client from being read, nor close it: if they would, each request is sent
        again, alone.
        """
        limits = SessionLimits(unreadSoft=3000, unreadHard=5000)
        requests = [b"get large\r\n", b"get a\r\n", b"get b\r\n"]
        stage, clients = self.uniting(*requests, sessionLimits=limits)
        stage.turns()
        while stage.line.deliver(700):
            stage.turns()
        self.assertEqual([client.take() for client in clients[1:]], [get(b"a"), get(b"b")])
        for client in clients[1:]:
            client.send(b"get c\r\n")
        stage.serve()
        self.assertEqual([client.take() for client in clients[1:]], [get(b"c")] * 2)

    def test_limitsChange(self) -> None:
        """
        Clients are read again if the limits were lowered while bytes were kept.
        """
        stage, clients = self.uniting(b"get a\r\n", b"get large\r\n")
        stage.turns()
        stage.line.deliver(10000)
        stage.sessions.limit(SessionLimits(unreadSoft=1000))
        self.assertEqual([client.reading for client in clients], [False, False])
        stage.serve()
        self.assertEqual([client.take() for client in clients], [get(b"a"), get(b"large")])
        self.assertEqual([client.reading for client in clients], [True, True])

    def test_references(self) -> None:
        """
        A client that is gone is not kept by one that was served together with it.
        """
        stage, clients = self.uniting(b"get a\r\n", b"get b\r\n")
        session = weakref.ref(next(iter(stage.sessions.sessions)))
        stage.serve()
        clients[1].send(b"get c\r\n")
        stage.turns()
        clients.pop(0).lose()
        stage.clients.pop(0)
        stage.line.take()
        gc.collect()
        self.assertIsNone(session())


class ShardedTests(ShardedTestCase):
    """
    Tests for clients of several servers.
    """

    def test_lanes(self) -> None:
        """
        When a client has the reply of one server, it may send this server more, although it waits for another one.
        """
        stage = self.sharded(unites=True)
        one, other = stage.client(), stage.client()
        one.send(b"get a0\r\n")
        other.send(b"get b0\r\n")
        stage.turns()
        one.send(b"get a1\r\n")
        stage.turns()
        asked = [server.lines[0] for server in stage.servers]
        asked[0].deliver()
        self.assertEqual(asked[0].asked, [b"get a0 b0\r\n"])
        one.send(put(b"a0", 3))
        stage.turns()
        asked[0].look()
        self.assertEqual(asked[0].asked[1:], [put(b"a0", 3)])
        stage.serve()
        self.assertEqual(one.take(), get(b"a0") + get(b"a1") + b"STORED\r\n")

    def test_alone(self) -> None:
        """
        After its read was sent alone, a client sends requests to two servers. Each server gets only the requests for
        its own keys.
        """
        stage = self.sharded(unites=True)
        client = stage.client()
        self.widen(stage, client)
        client.take()
        client.send(b"get a0\r\n")
        client.send(b"get a1\r\n")
        stage.turns()
        client.send(put(b"b1", 3) + put(b"b0", 3))
        stage.turns()
        self.assertServers(stage)
        stage.serve()
        self.assertEqual(client.take(), get(b"a0") + get(b"a1") + b"STORED\r\n" * 2)

    def test_again(self) -> None:
        """
        A read that is sent again goes to the server of its key, whatever its client waits for besides.
        """
        for fails in (False, True):
            stage = self.sharded(unites=True, line=FailingLine if fails else Line)
            one, other = stage.client(), stage.client()
            for client in (one, other):
                self.widen(stage, client)
                client.take()
            one.send(b"get a0\r\n")
            other.send(b"get b0\r\n")
            stage.turns()
            one.send(b"get a1\r\n")
            stage.turns()
            if not fails:
                stage.servers[0].lines[0].lose()
            stage.serve()
            self.assertEqual([one.take(), other.take()], [get(b"a0") + get(b"a1"), get(b"b0")])
            self.assertServers(stage)

    def test_stories(self) -> None:
        """
        In random stories each server gets the requests for its keys only, and each client its replies.
        """
        for seed in range(STORIES):
            rng = random.Random(seed)
            stage = self.sharded(unites=True, merges=rng.random() < 0.5, depth=rng.choice((1, 2, 128)))
            clients = [stage.client() for _ in range(6)]
            expected: list[list[tuple[bytes, bytes]]] = [[] for _ in clients]
            for _ in range(30):
                for client, exchanges in zip(clients, expected, strict=True):
                    for _ in range(rng.choice((0, 1, 1, 3))):
                        exchanges.append(anyRequest(rng))
                        client.send(exchanges[-1][0])
                if rng.random() < 0.7:
                    stage.turns(1)
                for line in stage.lines:
                    line.deliver(rng.choice((1, 50, 5000, None)))
            self.deliverAny(stage, rng)
            for client, exchanges in zip(clients, expected, strict=True):
                self.assertEqual(client.take(), b"".join(reply for _, reply in exchanges), seed)
            self.assertServers(stage)

    def assertServers(self, stage: ShardedStage) -> None:
        """
        Assert that each server was asked for its own keys only.
        """
        for number, server in enumerate(stage.servers):
            for line in server.lines:
                line.look()
                for request in line.asked:
                    words = re.findall(rb"(?:a|b|miss|large)[0-9]+", request.partition(b"\r\n")[0])
                    self.assertEqual({int(re.sub(rb"[a-z]+", b"", word)) % 3 for word in words} - {number}, set())


class FailureTests(UnitingTestCase):
    """
    Tests for what happens when a connection or a client is lost.
    """

    def test_lost(self) -> None:
        """
        If the connection is lost, each client's request is sent again, alone.
        """
        stage, clients = self.uniting(b"get a\r\n", b"get b\r\n", servers=2)
        self.assertEqual(self.asked(stage), [b"get a b\r\n"])
        next(line for line in stage.lines if line.asked).lose()
        self.assertEqual(sorted(self.asked(stage)), [b"get a\r\n", b"get a b\r\n", b"get b\r\n"])
        stage.serve()
        self.assertEqual([client.take() for client in clients], [get(b"a"), get(b"b")])

    def test_lostBefore(self) -> None:
        """
        The same holds if it is lost before the request is sent.
        """
        stage, clients = self.uniting(b"get a\r\n", b"get b\r\n", b"get c\r\n", servers=2)
        (record,) = [each for each in stage.pool.state.records if each.load]
        record.connection.transport.lose()
        stage.serve()
        self.assertEqual([client.take() for client in clients], [get(b"a"), get(b"b"), get(b"c")])

    def test_begun(self) -> None:
        """
        The same holds if a part of the reply has come: no client has got any of it.
        """
        keys = [b"a", b"b", b"c"]
        stage, clients = self.uniting(*[b"get %b\r\n" % key for key in keys], servers=2)
        stage.turns()
        line = next(line for line in stage.lines if line.take())
        line.send(get(b"a")[: -len(b"END\r\n")] + get(b"b")[:20])
        line.lose()
        stage.serve()
        self.assertEqual([client.take() for client in clients], [get(key) for key in keys])
        self.assertEqual(stage.unread.total, 0)

    def test_late(self) -> None:
        """
        If the reply does not come in time, each client gets the error.
        """
        stage, clients = self.uniting(b"get a\r\n", b"get b\r\n")
        self.asked(stage)
        stage.clock.pump([2.1, 0.0, 0.0])
        error = b"SERVER_ERROR upstream timed out: no answer within 2 s (server0)\r\n"
        self.assertEqual([client.take() for client in clients], [error, error])

    def test_order(self) -> None:
        """
        If a client has sent more meanwhile, that is sent after its read, also when this is sent again.
        """
        stage, (one, other) = self.uniting(b"get a\r\n", b"get b\r\n", servers=2)
        stage.turns()
        one.send(put(b"a", 3))
        next(line for line in stage.lines if line.take()).lose()
        asked = self.asked(stage)
        self.assertLess(asked.index(b"get a\r\n"), asked.index(put(b"a", 3)))
        stage.serve()
        self.assertEqual([one.take(), other.take()], [get(b"a") + b"STORED\r\n", get(b"b")])

    def test_gone(self) -> None:
        """
        Clients that leave disturb nobody.
        """
        for turns in (0, 1):
            for piece in (None, 3):
                for kind in (Line, UnorderedLine):
                    keys = [b"missa", b"b", b"large", b"d"]
                    stage, clients = self.uniting(*[b"get %b\r\n" % key for key in keys], line=kind)
                    stage.turns(turns)
                    clients[0].lose()
                    clients[2].lose()
                    stage.turns()
                    while stage.line.deliver(piece):
                        pass
                    self.assertEqual([client.take() for client in clients[1::2]], [get(b"b"), get(b"d")])

    def test_allGone(self) -> None:
        """
        If all clients have left, nothing is counted for them.
        """
        stage, clients = self.uniting(b"get a\r\n", b"get missb\r\n", b"get large\r\n")
        stage.turns()
        stage.line.deliver(100)
        for client in clients:
            client.lose()
        stage.line.deliver(100)
        self.assertEqual(stage.unread.total, 0)
        stage.serve()

    def test_exception(self) -> None:
        """
        An unexpected exception of one session closes its client only.
        """
        for piece in (None, 5):
            stage, clients = self.uniting(b"get a\r\n", b"get b\r\n", b"get c\r\n")
            stage.turns()
            session = list(stage.sessions.sessions)[1]
            session._write = None
            while stage.line.deliver(piece):
                pass
            stage.turns()
            self.assertEqual([client.connected for client in clients], [True, False, True])
            self.assertEqual([client.take() for client in clients], [get(b"a"), b"", get(b"c")])
            self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)


class RandomTests(ShardedTestCase):
    """
    Tests with random stories.
    """

    def test_stories(self) -> None:
        """
        Each request gets its own reply or an error, in the order of the requests, and nothing is left.
        """
        for seed in range(STORIES):
            rng = random.Random(seed)
            stage = self.stage(
                rng.choice((1, 2, 4)),
                sessionLimits=SessionLimits(
                    maxInFlight=rng.choice((1, 3, 200)), unreadSoft=rng.choice((1000, 1 << 18)),
                ),
                depth=rng.choice((1, 2, 5, 128)),
                line=rng.choice((Line, QueuedLine)),
                unites=True,
            )  # fmt: skip
            clients = [stage.client() for _ in range(8)]
            expected: list[list[tuple[bytes, bytes]]] = [[] for _ in clients]
            for _ in range(rng.randint(5, 40)):
                for client, exchanges in zip(clients, expected, strict=True):
                    if client.connected and rng.random() < 0.5:
                        exchange = anyRequest(rng)
                        if rng.random() < 0.6:
                            key = b"%b%d" % (rng.choice((b"a", b"a", b"b", b"miss", b"large")), rng.randrange(99))
                            exchange = b"get %b\r\n" % key, get(key)
                        exchanges.append(exchange)
                        client.send(exchange[0])
                lines = [line for line in stage.lines if line.connected]
                if lines and rng.random() < 0.1:
                    rng.choice(lines).lose()
                for line in lines:
                    line.deliver(rng.choice((1, 50, 5000, None)))
                if rng.random() < 0.05:
                    rng.choice(clients).lose()
                stage.clock.advance(rng.choice((0, 0, 0, 0.1)))
                stage.pool.selfCheck()
            for _ in range(4):
                self.deliverAny(stage, rng)
                stage.clock.advance(1)
            for client, exchanges in zip(clients, expected, strict=True):
                if client.connected:
                    self.assertReplies(client.take(), exchanges, seed)
            self.assertEqual([session.inFlight for session in stage.sessions.sessions if session.inFlight], [])
