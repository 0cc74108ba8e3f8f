# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.sharding} and L{txconnpool.proxy.scatter}: clients whose keys are on several servers.
"""

from __future__ import annotations

import random
import re
from typing import Any
from unittest import mock

from tests.clients import LOST, SessionTestCase, get, put
from tests.memcached import answer, value
from tests.pipes import Pipe
from tests.stage import ShardedStage, Stage, assertTidy
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.session import ANSWERS
from txconnpool.routing.maps import Ejection
from txconnpool.routing.standin import StandIn

#: The number of servers.
SERVERS = 3


def anyRequest(rng: random.Random, letter: bytes = b"") -> tuple[bytes, bytes]:
    """
    @param letter: a part of all keys.

    @return: a request for keys of any servers, and the reply of any server.
    """
    word = rng.choice((b"a", b"miss", b"large" if rng.random() < 0.1 else b"b"))
    key = b"%b%b%d" % (word, letter, rng.randrange(12))
    kind = rng.randrange(12)
    if kind < 5:
        request = b"get %b\r\n" % key
    elif kind < 7:
        words = [rng.choice((b"a", b"miss")) for _ in range(rng.randint(2, 8))]
        keys = [b"%b%b%d" % (word, letter, rng.randrange(12)) for word in words]
        request = b"%b %b\r\n" % (rng.choice((b"get", b"gets")), b" ".join(keys))
    elif kind == 7:
        request = put(key, rng.randrange(30))
    elif kind == 8:
        request = b"mg %b v\r\n" % key
    elif kind == 9:
        request = rng.choice((b"delete %b\r\n", b"incr %b 1\r\n", b"touch %b 10\r\n")) % key
    elif kind == 10:
        return rng.choice(((b"nonsense\r\n", b"ERROR\r\n"), (b"version\r\n", b"VERSION 1.6.18\r\n")))
    else:
        request = put(key, 5, b" noreply")
        return request, b""
    return request, answer(request)[0]


class ShardedTestCase(SessionTestCase):
    """
    Base class of these tests.
    """

    def sharded(self, **options: Any) -> ShardedStage:
        """
        @return: a stage.
        """
        stage = ShardedStage(SERVERS, **options)
        for pool in stage.pool.pools:
            self.addCleanup(assertTidy, self, pool)
        stage.clock.advance(2)  # so that a lost connection is not taken for one that was bad from the beginning
        return stage

    def widen(self, stage: ShardedStage, client: Pipe) -> None:
        """
        Let a client send requests until it may have many in flight.
        """
        for _ in range(8):
            stage.ask(client, b"get a\r\n")

    def deliverAny(self, stage: Stage, rng: random.Random) -> None:
        """
        Let the servers reply in a random order, until nothing is left.
        """
        busy = True
        while busy:
            stage.turns()
            lines = stage.lines
            rng.shuffle(lines)
            some = lines[: rng.randint(1, len(lines))]
            busy = sum(line.deliver(rng.choice((1, 7, 100, 10000))) for line in some) > 0
            busy = busy or sum(line.deliver() for line in lines) > 0

    def assertReplies(self, data: bytes, exchanges: list[tuple[bytes, bytes]], seed: int) -> None:
        """
        Assert that bytes are the replies to requests, each of which may be an error; values of a request for several
        keys may be missing.
        """
        for request, reply in exchanges:
            error = re.match(rb"(SERVER_ERROR|ERROR \S+ is not supported:) [^\r\n]*\r\n", data)
            if not reply:
                continue
            if error is not None:
                data = data[error.end() :]
            elif data.startswith(reply):
                data = data[len(reply) :]
            else:
                words = request.split()
                self.assertIn(words[0], (b"get", b"gets"), (seed, request, data[:200]))
                unique = b" 7" if words[0] == b"gets" else b""
                for key in words[1:]:
                    block = b"VALUE %b 0 %d%b\r\n%b\r\n" % (key, len(value(key)), unique, value(key))
                    data = data.removeprefix(block)
                self.assertEqual(data[:5], b"END\r\n", (seed, request))
                data = data[5:]
        self.assertEqual(data, b"", seed)


class DirectTests(ShardedTestCase):
    """
    Tests for clients that wait for each reply.
    """

    def test_servers(self) -> None:
        """
        Each request goes to the server of its key only, and needs no queue.
        """
        stage = self.sharded()
        client = stage.client()
        (session,) = stage.sessions.sessions
        for number in range(6):
            for request in (b"get a%d\r\n" % number, put(b"a%d" % number, 3), b"mg a%d v\r\n" % number):
                self.assertEqual(stage.ask(client, request), answer(request)[0])
                self.assertIsNone(session._queue)
                self.assertEqual(stage.servers[number % SERVERS].lines[0].asked[-1], request)
        self.assertEqual([len(line.asked) for line in stage.lines], [6] * SERVERS)

    def test_base64(self) -> None:
        """
        A key in base64 is decoded to find its server.
        """
        stage = self.sharded()
        stage.ask(stage.client(), b"md YTE= b\r\n")  # a1
        self.assertEqual(stage.lines[1].asked[-1], b"md YTE= b\r\n")


class PipelineTests(ShardedTestCase):
    """
    Tests for pipelines.
    """

    def test_order(self) -> None:
        """
        Replies have the order of the requests, whichever server replies first.
        """
        stage = self.sharded(sessionLimits=SessionLimits(maxInFlight=100))
        client = stage.client()
        self.widen(stage, client)
        requests = [put(b"a0", 1), b"gets a1\r\n", b"mg a2 v\r\n", b"gets a0\r\n", b"delete a1\r\n"]
        client.take()
        client.send(b"".join(requests))
        stage.turns()
        for line in reversed(stage.lines):
            self.assertEqual(client.take(), b"")
            line.deliver()
            stage.turns()
        self.assertEqual(client.take(), b"".join(answer(request)[0] for request in requests))

    def test_merged(self) -> None:
        """
        Consecutive gets are sent as one get for each server.
        """
        stage = self.sharded()
        client = stage.client()
        self.widen(stage, client)
        keys = [b"a%d" % number for number in range(9)] + [b"miss1"]
        requests = b"".join(b"get %b\r\n" % key for key in keys)
        self.assertEqual(stage.ask(client, requests), get(*keys))
        self.assertEqual([line.asked[-1] for line in stage.lines],
                         [b"get a0 a3 a6\r\n", b"get a1 a4 a7 miss1\r\n", b"get a2 a5 a8\r\n"])  # fmt: skip

    def test_random(self) -> None:
        """
        Clients that send any requests in any pieces get the replies in order, whatever the order of the servers.
        """
        for seed in range(60):
            rng = random.Random(seed)
            limits = SessionLimits(
                maxInFlight=rng.choice((1, 3, 200)), backlog=rng.choice((100, 65536)),
                unreadSoft=rng.choice((1000, 1 << 18)),
            )  # fmt: skip
            stage = self.sharded(sessionLimits=limits, depth=rng.choice((1, 2, 128)))
            clients = [stage.client() for _ in range(3)]
            expected = [b""] * len(clients)
            for _ in range(rng.randint(1, 12)):
                at = rng.randrange(len(clients))
                exchanges = [anyRequest(rng) for _ in range(rng.choice((1, 2, 20)))]
                expected[at] += b"".join(reply for _, reply in exchanges)
                clients[at].send(b"".join(request for request, _ in exchanges), rng.choice((0, 0, 5, 50)))
                if rng.random() < 0.5:
                    stage.turns()
                    rng.choice(stage.lines).deliver(rng.choice((1, 50, 5000)))
            self.deliverAny(stage, rng)
            self.assertEqual([client.take() for client in clients], expected, seed)


class ScatterTests(ShardedTestCase):
    """
    Tests for requests for several keys.
    """

    def test_joined(self) -> None:
        """
        The values are in the order of the keys, and keys without a value are left out.
        """
        stage = self.sharded()
        request = b"gets a5 a0 miss1 a4 a0 a2\r\n"
        self.assertEqual(stage.ask(stage.client(), request), answer(request)[0])
        self.assertEqual([line.asked[-1] for line in stage.lines],
                         [b"gets a0 a0\r\n", b"gets miss1 a4\r\n", b"gets a5 a2\r\n"])  # fmt: skip

    def test_many(self) -> None:
        """
        A request for very many keys is sent in parts, and gets one reply.
        """
        stage = self.sharded()
        request = b"get %b\r\n" % b" ".join(b"a%d" % number for number in range(333))
        self.assertEqual(stage.ask(stage.client(), request + b"get b\r\n"), answer(request)[0] + get(b"b"))
        self.assertTrue(all(asked.count(b" ") <= 50 for line in stage.lines for asked in line.asked))

    def test_serverFailed(self) -> None:
        """
        If a server is down, its keys are misses, and the log says so once. That is no error for the client.
        """
        stage = self.sharded()
        stage.servers[1].mode = "refuse"
        stage.lines[1].lose()
        stage.turns()
        request = b"get a0 a1 a2 a4\r\n"
        for _ in range(2):
            self.assertEqual(stage.ask(stage.client(), request), answer(b"get a0 a2\r\n")[0])
        self.assertEqual((stage.sessions.counters.partial, stage.sessions.counters.errors), (2, {}))

    def test_serverFailedError(self) -> None:
        """
        Or the client gets an error, if the settings say so.
        """
        stage = self.sharded(sessionLimits=SessionLimits(partialError=True))
        for server in stage.servers[1:]:
            server.mode = "refuse"
            server.lines[0].lose()
        stage.turns()
        client = stage.client()
        reply = stage.ask(client, b"get a0 a1 a2\r\nget a3\r\n")
        self.assertEqual(reply, b"SERVER_ERROR upstream unavailable: connection refused (server1)\r\n" + get(b"a3"))
        self.assertEqual(stage.sessions.counters.errors, {"unavailable": 1})
        stage.ask(client, b"get a1\r\nget a2\r\nget a4\r\n")
        self.assertEqual(stage.sessions.counters.errors, {"unavailable": 4})

    def test_error(self) -> None:
        """
        An error that a server replies is the same as a failed server.
        """
        stage = self.sharded()
        client = stage.client()
        client.send(b"get a0 a1\r\n")
        stage.turns()
        stage.lines[0].look()
        stage.lines[0].owed = b"SERVER_ERROR out of memory\r\n"
        stage.serve()
        self.assertEqual(client.take(), answer(b"get a1\r\n")[0])

    def test_retried(self) -> None:
        """
        If the connection of one part is lost, this part is sent once more.
        """
        stage = self.sharded()
        client = stage.client()
        client.send(b"get a0 a1 a2\r\n")
        stage.turns()
        stage.lines[0].deliver()
        stage.lines[1].lose()
        stage.serve()
        stage.clock.advance(2)
        stage.serve()
        self.assertEqual(client.take(), answer(b"get a0 a1 a2\r\n")[0])
        self.assertEqual(stage.pool.counters.retries, 1)


class FailureTests(ShardedTestCase):
    """
    Tests for servers that fail.
    """

    def test_onlyItsOwn(self) -> None:
        """
        A server that is down fails its own keys, at once. Requests for others, before and behind, are answered.
        """
        stage = self.sharded()
        client = stage.client()
        self.widen(stage, client)
        stage.servers[1].mode = "refuse"
        stage.lines[1].lose()
        stage.turns()
        keys = [b"a%d" % number for number in range(6)]
        error = b"SERVER_ERROR upstream unavailable: connection refused (server1)\r\n"
        for each in (b"get %b\r\n", b"mg %b v\r\n"):
            replies = [error if key in (b"a1", b"a4") else answer(each % key)[0] for key in keys]
            self.assertEqual(stage.ask(client, b"".join(each % key for key in keys)), b"".join(replies))

    def test_closesAtACommand(self) -> None:
        """
        A server that closes its connections at a command takes it from no client if another server replies to it.
        """
        stage = self.sharded()
        client = stage.client()
        self.assertEqual(stage.ask(client, b"gat 0 a1\r\n"), answer(b"gat 0 a1\r\n")[0])
        for _ in range(4):
            client.send(b"gat 0 a0\r\n")
            stage.turns()
            for line in stage.servers[0].lines:
                if line.connected:
                    line.lose()
            stage.turns()
            self.assertEqual(client.take(), LOST)
            stage.clock.advance(1)
            stage.turns()
        self.assertEqual(stage.ask(client, b"gat 0 a1\r\n"), answer(b"gat 0 a1\r\n")[0])

    def test_lostTogether(self) -> None:
        """
        When a connection is lost, requests for its server are sent on another one only when all that were lost have
        their place in the order.
        """
        stage = self.sharded(maximum=6, minimum=6, sessionLimits=SessionLimits(maxInFlight=2))
        client, other = stage.client(), stage.client()
        client.send(b"get a1 a4\r\n" + put(b"a1", 3) + b"mg a4 v\r\n")
        stage.turns()
        stage.clock.advance(1)
        other.send(b"mg a1 v\r\n")  # so that the server has another connection with requests in flight
        stage.turns()
        stage.clock.advance(1)  # the request timeout of the first
        stage.serve()
        miss, error, reply = client.take().split(b"\r\n", 2)
        self.assertEqual(miss, b"END")
        self.assertTrue(error.startswith(b"SERVER_ERROR upstream timed out"), error)
        self.assertEqual(reply, answer(b"mg a4 v\r\n")[0])

    def test_inTurns(self) -> None:
        """
        Of very many requests that are refused, only some are so in one turn of the reactor.
        """
        stage = self.sharded()
        client = stage.client()
        for server in stage.servers:
            server.mode = "refuse"
        for line in stage.lines:
            line.lose()
        stage.turns()
        for request in (b"mg a1\r\n", b"get a0 a1\r\n", b"flush_all\r\n"):
            client.send(request * 1000)
            first = client.take()
            self.assertLessEqual(first.count(b"\n"), ANSWERS)
            stage.turns()
            received = first + client.take()
            self.assertEqual((received.count(b"\n"), len(set(received.splitlines()))), (1000, 1))

    def test_random(self) -> None:
        """
        Whatever fails while any requests are in flight, each request gets its own reply or an error, in order, and
        nothing is left.
        """
        for seed in range(60):
            rng = random.Random(seed)
            stage = self.sharded(depth=rng.choice((1, 3, 128)), ejection=Ejection(rng.random() < 0.5, 1))
            clients = [stage.client() for _ in range(3)]
            expected: list[list[tuple[bytes, bytes]]] = [[] for _ in clients]
            for _ in range(rng.randint(3, 15)):
                at = rng.randrange(len(clients))
                exchanges = [anyRequest(rng) for _ in range(rng.choice((1, 2, 20)))]
                expected[at] += exchanges
                clients[at].send(b"".join(request for request, _ in exchanges))
                action = rng.randrange(6)
                lines = [line for line in stage.lines if line.connected]
                if action == 0 and lines:
                    rng.choice(lines).lose()
                elif action == 1:
                    rng.choice(stage.servers).mode = rng.choice(("refuse", "accept", "accept"))
                elif action == 2:
                    stage.clock.advance(rng.choice((0.1, 1.0, 3.0)))
                elif lines:
                    rng.choice(lines).deliver(rng.choice((1, 50, 5000)))
                stage.turns()
                stage.pool.selfCheck()
            for server in stage.servers:
                server.mode = "accept"
            for _ in range(8):
                self.deliverAny(stage, rng)
                stage.clock.advance(1)
            for client, exchanges in zip(clients, expected, strict=True):
                if client.connected:
                    self.assertReplies(client.take(), exchanges, seed)
            stage.pool.selfCheck()
            self.assertEqual([session.inFlight for session in stage.sessions.sessions if session.inFlight], [])

    def test_onlyTheWaiting(self) -> None:
        """
        When a client has waited too long for a connection to one server, its request for another server, which is sent
        again meanwhile, does not fail.
        """
        stage = self.sharded(depth=1)
        busy, client = stage.client(), stage.client()
        busy.send(b"mg a1 v\r\n")
        stage.turns()
        client.send(b"mg a0 v\r\nmg a4 v\r\n")
        stage.turns()
        self.assertEqual(stage.pool.waiting, 1)
        stage.lines[0].lose()
        stage.turns()
        for _ in range(2):
            stage.clock.advance(1)
            for line in stage.servers[0].lines:
                line.deliver()
            stage.turns()
        reply, error = client.take().split(b"SERVER_ERROR ")
        self.assertEqual(reply, answer(b"mg a0 v\r\n")[0])
        self.assertTrue(error.startswith(b"timed out waiting"), error)
        stage.serve()

    def test_ejectedWhileWaiting(self) -> None:
        """
        A part of a request that has waited in vain for a server, which was ejected meanwhile, goes to the server that
        has its keys now.
        """
        for standsIn in False, True:
            stage = self.sharded(depth=1)
            if standsIn:
                stage.pool.standIn = StandIn(mock.Mock(router=self.sharded().pool), 60)
            busy, client = stage.client(), stage.client()
            busy.send(b"mg a1 v\r\n")
            stage.turns()
            client.send(b"get a0 a1\r\n")
            stage.turns()
            stage.lines[0].deliver()
            self.assertEqual(stage.pool.waiting, 1)
            stage.pool.eject("server1")
            stage.clock.advance(1)
            for each in 0, 2:
                stage.lines[each].deliver()
            self.assertEqual(client.take(), answer(b"get a0 a1\r\n")[0])
            self.assertEqual(stage.lines[2].asked, [b"get a1\r\n"])
            stage.serve()


class RemovalTests(ShardedTestCase):
    """
    Tests for servers that are removed while clients are connected.
    """

    def test_waiting(self) -> None:
        """
        Requests that wait for a connection to a server that is removed are sent to those that get its keys. Requests in
        flight are answered.
        """
        stage = self.sharded(depth=1)
        busy, *clients = (stage.client() for _ in range(4))
        busy.send(b"get a2\r\n")
        stage.turns()
        requests = (put(b"a5", 3), b"get a1 a5 a2 missa8\r\n", b"get a0\r\nget a8\r\n" + put(b"a2", 3) + b"get a1\r\n")
        for client, request in zip(clients, requests, strict=True):
            client.send(request)
        stage.turns()
        self.assertGreater(stage.pool.waiting, 1)
        stage.remove(2)
        stage.serve()
        self.assertEqual(busy.take(), get(b"a2"))
        replies = [client.take() for client in clients]
        self.assertEqual(replies[0], b"STORED\r\n")
        self.assertEqual(replies[1], answer(requests[1])[0])
        self.assertEqual(replies[2], get(b"a0") + get(b"a8") + b"STORED\r\n" + get(b"a1"))
        self.assertEqual(stage.pool.waiting, 0)


class StandInTests(ShardedTestCase):
    """
    Tests for servers that stand in for those that are down.
    """

    def pair(self, **options: Any) -> tuple[ShardedStage, ShardedStage]:
        """
        @return: a stage, and another one that stands in for it.
        """
        stage, other = self.sharded(**options), self.sharded()
        stage.pool.standIn = StandIn(mock.Mock(router=other.pool), 60)
        return stage, other

    def both(self, stage: ShardedStage, other: ShardedStage, client: Pipe, request: bytes) -> bytes:
        """
        Send a request of a client of the first stage and let the servers of both reply.
        """
        client.take()
        client.send(request)
        for _ in range(4):
            stage.serve()
            other.serve()
        return client.take()

    def down(self, stage: ShardedStage) -> None:
        """
        Take down the server with number 1.
        """
        stage.servers[1].mode = "refuse"
        stage.lines[1].lose()
        stage.turns()

    def test_reads(self) -> None:
        """
        Requests for a server that is down are sent to the server of the key in the other pool, single ones and parts of
        others. Those for other servers are not.
        """
        stage, other = self.pair()
        client = stage.client()
        self.widen(stage, client)
        self.down(stage)
        for request in (
            b"get a0\r\n",
            b"get a1\r\n",
            b"get a0 a1 a2 a4\r\n",
            b"get a0\r\nget a1\r\nget a4\r\n",
            b"delete a1\r\nmg a2 v\r\n",
        ):
            expected = b""
            left = request
            while left:
                reply, size = answer(left)
                expected += reply
                left = left[size:]
            self.assertEqual(self.both(stage, other, client, request), expected, request)
        asked = [line.asked for line in other.lines]
        self.assertEqual((asked[0], asked[2]), ([], []))
        self.assertEqual(asked[1], [b"get a1\r\n", b"get a1 a4\r\n", b"get a1 a4\r\n", b"delete a1\r\n"])
        self.assertEqual(stage.pool.standIn.count, 4)

    def test_stores(self) -> None:
        """
        What is stored there expires soon.
        """
        stage, other = self.pair()
        client = stage.client()
        self.down(stage)
        self.assertEqual(self.both(stage, other, client, b"set a1 0 0 1\r\nx\r\n"), b"STORED\r\n")
        self.assertEqual(other.lines[1].asked, [b"set a1 0 60 1\r\nx\r\n"])
        self.assertEqual(self.both(stage, other, client, b"set a0 0 0 1\r\nx\r\n"), b"STORED\r\n")
        self.assertEqual(stage.lines[0].asked, [b"set a0 0 0 1\r\nx\r\n"])
        request = b"gat 100 a0 a1\r\n"
        self.assertEqual(self.both(stage, other, client, request), answer(request)[0])
        self.assertEqual(other.lines[1].asked[1:], [b"gat 60 a1\r\n"])

    def test_whileWaiting(self) -> None:
        """
        Requests that wait for a connection when the server goes down are sent there too.
        """
        stage, other = self.pair(depth=1)
        busy, client, third = (stage.client() for _ in range(3))
        busy.send(b"get a1\r\n")
        stage.turns()
        client.send(b"get a4\r\n")
        third.send(b"get a0 a1\r\n")
        stage.turns()
        self.assertEqual(stage.pool.waiting, 2)
        self.down(stage)
        for _ in range(4):
            stage.serve()
            other.serve()
        self.assertEqual((client.take(), third.take()), (get(b"a4"), answer(b"get a0 a1\r\n")[0]))

    def test_back(self) -> None:
        """
        When the server is back it gets the requests again.
        """
        stage, other = self.pair()
        client = stage.client()
        self.down(stage)
        self.both(stage, other, client, b"get a1\r\n")
        stage.servers[1].mode = "accept"
        stage.clock.advance(5)
        stage.turns()
        self.assertEqual(self.both(stage, other, client, b"get a1\r\n"), get(b"a1"))
        self.assertEqual(len(other.lines[1].asked), 1)

    def test_bothDown(self) -> None:
        """
        If its server is down there too, a request fails.
        """
        stage, other = self.pair()
        client = stage.client()
        self.down(stage)
        self.down(other)
        replies = self.both(stage, other, client, b"mg a1 v\r\nget a0 a1\r\n")
        self.assertRegex(replies, rb"^SERVER_ERROR upstream unavailable: [^\r]+\r\nVALUE a0 ")
