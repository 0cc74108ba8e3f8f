# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.merging}: requests of several clients that are sent together.
"""

from __future__ import annotations

import gc
from typing import Any
from unittest import mock

from tests.bench.instructions import binary
from tests.clients import get, put
from tests.memcached import answer
from tests.pipes import Pipe
from tests.proxy.test_scatter import ScatterCase
from tests.stage import ShardedStage
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.merging import APART, LARGE, LONG, TOGETHER
from txconnpool.wire.memcache.classic import PART_KEYS


class MergingTests(ScatterCase):
    """
    Tests for what servers are asked and clients get.
    """

    def asked(self, stage: ShardedStage, number: int) -> list[bytes]:
        """
        @return: what a server was asked.
        """
        stage.turns()
        lines = stage.servers[number].lines
        for line in lines:
            line.look()
        return [request for line in lines for request in line.asked]

    def begun(self, *requests: bytes, **options: Any) -> tuple[ShardedStage, list[Pipe]]:
        """
        Let clients send a request each in one turn of the reactor.
        """
        stage = self.sharded(merges=True, **options)
        clients = [stage.client() for _ in requests]
        for client, request in zip(clients, requests, strict=True):
            client.send(request)
        return stage, clients

    def test_together(self) -> None:
        """
        A server gets one request for the keys of all of them, equal ones too. Each client gets its values.
        """
        for word in (b"get", b"gets"):
            requests = [b"%b %b\r\n" % (word, keys) for keys in (b"a0 miss1 a1", b"a1 a0", b"a4 a2 miss0")]
            stage, clients = self.begun(*requests)
            self.assertEqual(self.asked(stage, 0), [b"%b a0 a0 miss0\r\n" % word])
            self.assertEqual(self.asked(stage, 1), [b"%b miss1 a1 a1 a4\r\n" % word])
            stage.serve()
            self.assertEqual([client.take() for client in clients], [answer(request)[0] for request in requests])
            traffic = [server.traffic for server in stage.pool.servers]
            self.assertEqual(sum(each.missed + each.moreMissed for each in traffic), 2)
            sizes = [len(b"version\r\n") + len(self.asked(stage, number)[0]) for number in range(3)]
            self.assertEqual([each.sent for each in traffic], sizes)

    def test_pipelines(self) -> None:
        """
        So are those of merged single requests, each of which has a reply.
        """
        requests = [b"get a0\r\nget miss1\r\nget a3\r\n", b"get a1\r\nget a0\r\n", b"get a4\r\nget a6\r\n"]
        stage = self.sharded(merges=True)
        clients = [stage.client() for _ in requests]
        for client in clients:
            self.widen(stage, client)
        for server in stage.servers:
            server.lines[0].asked.clear()
        for client, request in zip(clients, requests, strict=True):
            client.take()
            client.send(request)
        self.assertEqual(self.asked(stage, 0), [b"get a0 a3 a0 a6\r\n"])
        stage.serve()
        expected = [get(b"a0") + b"END\r\n" + get(b"a3"), get(b"a1") + get(b"a0"), get(b"a4") + get(b"a6")]
        self.assertEqual([client.take() for client in clients], expected)

    def test_missing(self) -> None:
        """
        A part without values is answered even if too much is held for its client, and so are the parts after it. The
        same holds if none of the received bytes of its reply were counted.
        """
        for first, *requests in (
            (0, b"get miss1 miss2\r\n", b"get a1 a2\r\n"),
            (1, b"get a1 a2\r\n", b"get a1 a2 a5 a8 a11 a14\r\n"),
        ):
            stage, (one, other) = self.begun(*requests, sessionLimits=SessionLimits(unreadHard=100000))
            session = next(iter(stage.sessions.sessions))
            stage.turns()
            line = self.line(stage, 2)
            line.deliver(1)
            session.hold(80000)
            line.deliver(first)
            line.deliver()
            session.release(80000)
            stage.serve()
            self.assertEqual([one.take(), other.take()], [answer(request)[0] for request in requests])
            self.assertNothingHeld(stage)

    def wide(self, count: int, **options: Any) -> tuple[ShardedStage, list[Pipe]]:
        """
        @return: a stage with clients that may have many requests in flight.
        """
        stage = self.sharded(merges=True, **options)
        clients = [stage.client() for _ in range(count)]
        for client in clients:
            self.widen(stage, client)
            client.take()
        for line in stage.lines:
            line.asked.clear()
        return stage, clients

    def test_spaces(self) -> None:
        """
        Spaces at the end of a request are no keys, also if the requests go on as if they had been sent alone.
        """
        requests = [b"get a0 a1 \r\n", b"get  a2  a0  \r\n"]
        stage, clients = self.begun(*requests)
        stage.turns()
        self.line(stage, 0).lose()
        stage.serve()
        self.assertEqual([client.take() for client in clients], [answer(request)[0] for request in requests])

    def test_apart(self) -> None:
        """
        Apart are sent: a second read of a client after others, other commands, very long requests, and what comes in
        another turn.
        """
        stage, (one, other) = self.wide(2)
        long = b"get %b\r\n" % b" ".join(b"a%d%0200d" % (number % 3, number) for number in range(LONG // 200 + 1))
        for first, second, expected in (
            ((one, b"get a0 a1\r\n"), (one, b"get a3 a4\r\n"), [b"get a0\r\n"]),
            ((one, b"get a0 a1\r\n"), (other, b"gets a3 a4\r\n"), [b"get a0\r\n", b"gets a3\r\n"]),
            ((one, b"gat 9 a0 a1\r\n"), (other, b"gat 9 a3 a4\r\n"), [b"gat 9 a0\r\n", b"gat 9 a3\r\n"]),
            ((one, b"mg a0 v\r\n"), (other, b"get a3 a4\r\n"), [b"mg a0 v\r\n", b"get a3\r\n"]),
            ((one, long), (other, b"get a3 a4\r\n"), None),
        ):
            for line in stage.lines:
                line.asked.clear()
            first[0].send(first[1])
            second[0].send(second[1])
            asked = self.asked(stage, 0)
            if expected is None:
                self.assertEqual((len(asked), asked[-1]), (2, b"get a3\r\n"))
            else:
                self.assertEqual(asked, expected)
            stage.serve()
            for client in (one, other):
                sent = b"".join(request for sender, request in (first, second) if sender is client)
                self.assertEqual(client.take(), self.answers(sent))
        one.send(b"get a0 a1\r\n")
        self.asked(stage, 0)
        other.send(b"get a3 a1\r\n")
        self.assertEqual(self.asked(stage, 0)[-2:], [b"get a0\r\n", b"get a3\r\n"])
        stage.serve()

    def answers(self, sent: bytes) -> bytes:
        """
        @return: the replies to requests.
        """
        found = b""
        while sent:
            reply, size = answer(sent)
            found, sent = found + reply, sent[size:]
        return found

    def test_mixed(self) -> None:
        """
        Of pipelines with other requests too, those of all clients that come before these are sent as one, then these,
        then those that come after them. Each client gets its replies in their order.
        """
        stage, clients = self.wide(3)
        requests = [
            b"get a0\r\nget a1\r\n" + put(b"a3", 9) + b"get a3\r\nget a4\r\n",
            put(b"a0", 5) + b"get a0\r\n" + b"delete a1\r\nget a2 a5\r\n",
            b"get a6\r\nmg a9 v\r\ngets a0 a1\r\nget a12\r\n",
        ]
        for client, request in zip(clients, requests, strict=True):
            client.send(request)
        self.assertEqual(
            self.asked(stage, 0),
            [b"get a0 a6\r\n", put(b"a3", 9), put(b"a0", 5), b"mg a9 v\r\n", b"get a3 a0\r\n", b"gets a0\r\n",
             b"get a12\r\n"],
        )  # fmt: skip
        for number in (2, 1, 0):
            for line in stage.servers[number].lines:
                line.deliver(30)
        stage.serve()
        self.assertEqual([client.take() for client in clients], [self.answers(request) for request in requests])
        self.assertNothingHeld(stage)

    def test_progress(self) -> None:
        """
        A client gets a reply when it has all replies before it, even if other servers have not replied. Requests that
        it sends meanwhile are forwarded after the last of these replies.
        """
        stage, (client,) = self.wide(1)
        client.send(b"get a0\r\n" + put(b"a1", 5) + b"get a2\r\n")
        self.asked(stage, 0)
        self.line(stage, 2).deliver()
        self.assertEqual(client.take(), b"")
        self.line(stage, 0).deliver()
        self.assertEqual(client.take(), get(b"a0"))
        client.send(b"get a3\r\n")
        self.assertEqual(self.asked(stage, 0), [b"get a0\r\n"])
        self.line(stage, 1).deliver()
        self.assertEqual(client.take(), b"STORED\r\n" + get(b"a2"))
        stage.serve()
        self.assertEqual(client.take(), get(b"a3"))

    def test_manyKeys(self) -> None:
        """
        A request that comes as two, because it has very many keys, is sent at once too.
        """
        stage, clients = self.wide(2)
        request = b"get %b\r\n" % b" ".join(b"a%d" % number for number in range(2 * PART_KEYS))
        for client in clients:
            client.send(request)
        self.assertEqual(len(self.asked(stage, 0)), 1)
        stage.serve()
        self.assertEqual([client.take() for client in clients], [answer(request)[0]] * 2)

    def test_tooMany(self) -> None:
        """
        After a certain number of bytes another request begins.
        """
        stage, clients = self.wide(TOGETHER // 1000 + 3)
        key = b"x" * 240
        for client in clients:
            client.send(b"get %b0 %b0 %b0 %b0\r\n" % (key, key, key, key))
        self.assertEqual(len(self.asked(stage, 0)), 2)
        stage.serve()
        self.assertEqual({len(client.take()) > 0 for client in clients}, {True})

    def test_large(self) -> None:
        """
        After very large replies, clients send their requests alone for a while.
        """
        stage, clients = self.wide(2)
        for client in clients:
            client.send(b"get large0 large3 large6 large9 large12 a1\r\n")
        self.assertEqual(len(self.asked(stage, 0)), 1)
        line = self.line(stage, 0)
        while line.deliver(LARGE // 4):
            stage.turns()
        stage.serve()
        expected = answer(b"get large0 large3 large6 large9 large12 a1\r\n")[0]
        self.assertEqual([client.take() for client in clients], [expected] * 2)
        for number in range(APART // 2 + 1):
            line.asked.clear()
            for client in clients:
                client.send(b"get a0 a1\r\n")
            self.assertEqual(len(self.asked(stage, 0)), 2 if number < APART // 2 else 1)
            stage.serve()
        self.assertNothingHeld(stage)

    def test_noConnection(self) -> None:
        """
        Requests for which there are not enough connections wait as if they had been sent alone. So are those for
        servers that are down.
        """
        for depth in (1, 128):
            stage, clients = self.wide(3, depth=depth, maximum=3)
            if depth > 1:
                self.down(stage)
            for client in clients:
                client.send(put(b"a0", 5) + put(b"a3", 5) + b"get a0 a1 a2\r\n")
            stage.serve()
            found = [b"STORED\r\nSTORED\r\n" + answer(b"get a0 a1 a2\r\n" if depth == 1 else b"get a0 a2\r\n")[0]]
            self.assertEqual([client.take() for client in clients], found * 3)
            self.assertNothingHeld(stage)

    def test_gone(self) -> None:
        """
        A client that goes before its request is sent, or before the reply, changes nothing for the others.
        """
        for early in (True, False):
            stage, clients = self.begun(b"get a0 a1\r\n", b"get a3 a4\r\n")
            if not early:
                self.asked(stage, 0)
            clients[0].lose()
            stage.serve()
            self.assertEqual(clients[1].take(), answer(b"get a3 a4\r\n")[0])
            self.assertNothingHeld(stage)

    def test_unexpected(self) -> None:
        """
        An unexpected exception of one client concerns only that one; one of the division concerns all of them.
        """
        stage, clients = self.begun(b"get a0 a1\r\n", b"get a3 a4\r\n", b"get a6 a7\r\n")
        self.patch(clients[1].protocol, "answerMerged", mock.Mock(side_effect=ZeroDivisionError))
        stage.serve()
        expected = [answer(b"get a0 a1\r\n")[0], b"", answer(b"get a6 a7\r\n")[0]]
        self.assertEqual([client.take() for client in clients], expected)
        self.assertEqual([client.connected for client in clients], [True, False, True])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        clients = [stage.client(), stage.client()]
        self.patch(stage.pool, "divide", mock.Mock(side_effect=ZeroDivisionError))
        for client in clients:
            client.send(b"get a0 a1\r\n")
        stage.serve()
        self.assertEqual([client.connected for client in clients], [False, False])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_order(self) -> None:
        """
        The values may come in another order. Equal keys have the same value.
        """
        stage, clients = self.begun(b"get a0 a3 a1\r\n", b"get a6 a0 a1\r\n")
        self.asked(stage, 0)
        line = stage.servers[0].lines[0]
        values = [get(key).removesuffix(b"END\r\n") for key in (b"a6", b"a0", b"a0", b"a3")]
        line.owed = b"".join(values) + b"END\r\n"
        stage.serve()
        self.assertEqual([client.take() for client in clients],
                         [answer(b"get a0 a3 a1\r\n")[0], answer(b"get a6 a0 a1\r\n")[0]])  # fmt: skip

    def test_error(self) -> None:
        """
        After an error, each part is sent again in a request of its own. Only the client whose request fails again gets
        an error.
        """
        for partialError in (False, True):
            requests = [b"get a0 a1\r\n", b"get a3 a4\r\n", b"get a6 a7\r\n"]
            stage, clients = self.begun(*requests, sessionLimits=SessionLimits(partialError=partialError))
            line = stage.servers[0].lines[0]
            self.asked(stage, 0)
            error = b"SERVER_ERROR out of memory\r\n"
            line.owed = error
            line.deliver()
            stage.turns()
            line.look()
            self.assertEqual(line.asked[1:], [b"get a0\r\n", b"get a3\r\n", b"get a6\r\n"])
            line.owed = get(b"a0") + error + get(b"a6")
            stage.serve()
            expected = [answer(request)[0] for request in requests]
            expected[1] = error if partialError else get(b"a4")
            self.assertEqual([client.take() for client in clients], expected)
            self.assertNothingHeld(stage)

    def test_lost(self) -> None:
        """
        If the connection is lost, each part is sent once more, or fails.
        """
        for times in (1, 2):
            stage, clients = self.begun(b"get a0 large1\r\n", b"get large0 a1\r\n", maximum=6, minimum=3)
            for size in (10000, 0)[:times]:
                for line in stage.servers[0].open:
                    line.deliver(size)
                    stage.turns()
                    line.lose()
                stage.turns()
            stage.serve()
            stage.clock.advance(1)
            stage.serve()
            for client, kept, lost in ((clients[0], b"large1", b"a0"), (clients[1], b"a1", b"large0")):
                both = [lost, kept] if times == 1 else [kept]
                self.assertEqual(client.take(), answer(b"get %b\r\n" % b" ".join(both))[0])
            self.assertNothingHeld(stage)

    def test_lostUnsent(self) -> None:
        """
        So it is if the connection is lost before anything was sent. A part that comes after that is sent elsewhere.
        """
        stage, clients = self.begun(b"get a0 a1\r\n", b"get a3 a4\r\n", maximum=6, minimum=3)
        stage.servers[0].lines[0].lose()
        clients.append(stage.client())
        clients[-1].send(b"get a6 a7\r\n")
        stage.serve()
        expected = [answer(request)[0] for request in (b"get a0 a1\r\n", b"get a3 a4\r\n", b"get a6 a7\r\n")]
        self.assertEqual([client.take() for client in clients], expected)
        self.assertNothingHeld(stage)

    def test_pieces(self) -> None:
        """
        Of a large reply that comes in pieces, each client that is not gone counts the average.
        """
        for gone in (False, True):
            stage, clients = self.begun(b"get large0 a1\r\n", b"get a3 large6 large9 a1\r\n")
            self.asked(stage, 0)
            line = stage.servers[0].lines[0]
            for _ in range(5):
                line.deliver(8000)
            held = sorted(session.held for session in stage.sessions.sessions)
            self.assertEqual(held, [20000, 20000])
            if gone:
                clients.pop(0).lose()
                self.assertEqual(stage.unread.total, 20000)
                line.deliver(4000)
                self.assertEqual(stage.unread.total, 24000)
            stage.serve()
            self.assertEqual(clients[-1].take(), answer(b"get a3 large6 large9 a1\r\n")[0])
            self.assertNothingHeld(stage)

    def test_allGone(self) -> None:
        """
        If all clients go, nothing is kept.
        """
        stage, clients = self.begun(b"get large0 a1\r\n", b"get a3 large6 large9 a1\r\n")
        self.asked(stage, 0)
        line = stage.servers[0].lines[0]
        line.deliver(8000)
        for client in clients:
            client.lose()
        line.deliver(8000)
        self.assertEqual(stage.unread.total, 0)
        stage.serve()
        self.assertEqual(stage.ask(stage.client(), b"get a0 a1\r\n"), answer(b"get a0 a1\r\n")[0])
        self.assertNothingHeld(stage)

    def test_interjected(self) -> None:
        """
        A frame for a client that waits behind held values is written after its replies, also if requests are taken
        apart meanwhile.
        """
        stage, (client,) = self.wide(1)
        client.send(b"get a0 a1\r\n")
        stage.turns()
        (session,) = stage.sessions.sessions
        session.hold(10)  # as values that wait do
        session.interject(b"PUSH\r\n")
        session.release(10)
        self.line(stage, 1).lose()
        stage.turns(20)
        stage.clock.advance(1)
        stage.serve()
        self.assertEqual(client.take(), answer(b"get a0 a1\r\n")[0] + b"PUSH\r\n")
        self.assertEqual(session.inFlight, 0)

    def test_errorBefore(self) -> None:
        """
        A read that got an error together with those of others is not sent again after a later read of the same client
        on the same server.
        """
        stage, (one, other) = self.wide(2)
        one.send(b"get a0\r\ngets a0\r\n")
        other.send(b"get a3\r\ngets a3\r\n")
        stage.turns()
        line = self.line(stage, 0)
        line.look()
        error = b"SERVER_ERROR out of memory\r\n"
        line.send(error)
        stage.turns()
        line.look()
        self.assertEqual(line.asked, [b"get a0 a3\r\n", b"gets a0 a3\r\n"])
        line.owed = answer(b"gets a0 a3\r\n")[0]
        stage.serve()
        self.assertEqual(one.take(), error + answer(b"gets a0\r\n")[0])
        self.assertEqual(other.take(), error + answer(b"gets a3\r\n")[0])

    def test_garbage(self) -> None:
        """
        Requests leave no reference cycles, also if they are sent alone or taken apart.
        """
        self.addCleanup(gc.enable)
        for kind in ("together", "apart", "taken"):
            stage, clients = self.wide(2, maximum=3)
            for _ in range(2):
                gc.collect()
                gc.disable()
                for client in clients:
                    client.send(b"get a0 a1\r\nget a3\r\n" + put(b"a2", 5))
                if kind == "apart":
                    stage.pool.pools[1].pick = lambda: None
                stage.turns()
                vars(stage.pool.pools[1]).pop("pick", None)
                if kind == "taken":
                    self.line(stage, 1).look()
                    self.line(stage, 1).owed = b"SERVER_ERROR out of memory\r\n"
                stage.serve()
                for client in clients:
                    self.assertIn(b"STORED\r\n", client.take(), kind)
                found = gc.collect()
            self.assertEqual(found, 0, kind)

    def test_goneLarge(self) -> None:
        """
        Large values for clients that are all gone are not kept.
        """
        stage, clients = self.begun(b"get large0 a1\r\n", b"get a3 large6 a1\r\n")
        self.asked(stage, 0)
        for client in clients:
            client.lose()
        line = self.line(stage, 0)
        line.deliver(8000)
        pool = stage.pool.pools[0]
        (sink, *_) = next(iter(line.protocol._inFlight))
        self.assertEqual((type(sink).__name__, stage.unread.total), ("PartGroup", 0))
        stage.serve()
        self.assertEqual(pool.servers[0].traffic.violations, 0)
        self.assertNothingHeld(stage)

    def test_binary(self) -> None:
        """
        Requests of the binary protocol are sent alone, because their replies are translated.
        """
        stage, (client,) = self.wide(1)
        client = stage.client()
        for _ in range(4):
            client.send(binary(0, b"a0") + binary(0, b"a1"))
            stage.serve()
            reply = client.take()
        self.assertEqual(reply[:2], b"\x81\x00")
        self.assertEqual(reply.count(b"VALUE a0 0 "), 0)
