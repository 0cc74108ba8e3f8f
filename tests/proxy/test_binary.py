# -*- test-case-name: tests.proxy.test_binary -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for clients of the proxy that use memcached's binary protocol, with one and with several servers. The servers
execute the translated requests.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

from twisted.internet.address import IPv4Address

from tests import memcached
from tests.pipes import Pipe
from tests.proxy.test_sharding import ShardedTestCase
from tests.stage import ShardedStage, Stage
from tests.wire.memcache.binary.cases import (
    CASES,
    DELETE,
    FLUSH,
    GAT,
    GET,
    GETK,
    GETKQ,
    GETQ,
    INCR,
    NOOP,
    QUIT,
    SASL_AUTH,
    SASL_LIST,
    SET,
    SETQ,
    STAT,
    STRANGE,
    VERSION,
    Case,
)  # fmt: skip
from tests.wire.memcache.binary.packets import counter, normal, number, reply, request, split, stored
from tests.wire.memcache.binary.test_commands import ITEM_MAX, store
from txconnpool.memcache.execution import Executor
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.logins import DELAY_MAX
from txconnpool.wire import BROADCAST, MORE, STATISTICS
from txconnpool.wire.memcache.requestreader import RequestReader

NOW = 1_700_000_000.0
FAILED = b"Auth failure."


class BinaryTestCase(ShardedTestCase):
    """
    Base class of these tests. All servers share one store, so that a wrong server is not noticed by the replies.
    """

    def setUp(self) -> None:
        """
        Let the servers execute requests.
        """
        self.empty()
        self.patch(memcached, "answer", self.execute)

    def empty(self) -> None:
        """
        Empty the servers.
        """
        self.executor = Executor(store())

    def execute(self, data: bytes) -> tuple[bytes, int]:
        """
        Execute the first request, see L{tests.memcached.answer}.
        """
        what, end, _, payload = RequestReader(1 << 21).read(data, 0, 1)
        if what is MORE:
            return b"", 0
        if what is STATISTICS:
            return self.executor.statistics(payload[1], NOW), end
        assert what is BROADCAST or payload is None, data
        return self.executor.execute(data[:end], NOW), end

    def converse(self, stage: Stage, pieces: list[bytes]) -> tuple[bytes, bool]:
        """
        Send pieces on a new connection.

        @return: the replies, and whether the connection was closed.
        """
        client = stage.client()
        answer = b""
        for piece in pieces:
            if client.connected:
                client.send(piece)
                stage.serve()
                answer += client.take()
        closed = not client.connected
        client.lose()
        stage.turns()
        return answer, closed

    def stages(self, **options: Any) -> tuple[Stage, ShardedStage]:
        """
        @return: a stage with one server, and one with several by key.
        """
        limits = SessionLimits(**options)
        return (
            self.stage(maxItemSize=ITEM_MAX, sessionLimits=limits, unites=True),
            self.sharded(maxItemSize=ITEM_MAX, sessionLimits=limits, unites=True, merges=True),
        )


class TableTests(BinaryTestCase):
    """
    Tests with the table of requests and replies.
    """

    def check(self, stage: Stage, case: Case, pieces: list[bytes]) -> None:
        """
        Compare the replies to a case with the table.
        """
        self.empty()
        answer, closed = self.converse(stage, pieces)
        self.assertEqual((normal(answer), closed), (normal(case.expected), case.closes), str(case)[:1000])

    def test_whole(self) -> None:
        """
        A client gets the replies of the table.
        """
        for stage in self.stages():
            for case in CASES:
                self.check(stage, case, [case.sent])

    def test_pieces(self) -> None:
        """
        The same if the requests arrive in pieces.
        """
        rng = random.Random(1)
        for stage in self.stages():
            for case in CASES:
                places = sorted(rng.sample(range(len(case.sent)), 4))
                cuts = [0, *places, len(case.sent)]
                self.check(stage, case, [case.sent[a:b] for a, b in pairwise(cuts)])

    def test_small(self) -> None:
        """
        The same with a window of one request, and with a small backlog.
        """
        for stage in self.stages(maxInFlight=1, backlog=100):
            for case in CASES:
                self.check(stage, case, [case.sent])


class OrderTests(BinaryTestCase):
    """
    Tests for the order of replies.
    """

    def anyRequest(self, rng: random.Random, label: int) -> tuple[bytes, bytes]:
        """
        @return: a request, and its reply. The keys are never changed.
        """
        opaque = number(label)
        key = rng.choice((b"present%d", b"large%d", b"missing%d", b"\r present %d")) % rng.randrange(6)
        value = self.held.get(key)
        opcode = rng.choice((GET, GETK, GETQ, GETKQ, GETKQ, GETKQ, NOOP, DELETE, GAT))
        if opcode == NOOP:
            return request(NOOP, opaque=opaque), reply(NOOP, opaque=opaque)
        if opcode == DELETE:
            return request(DELETE, b"none", opaque=opaque), reply(DELETE, 1, b"Not found", opaque=opaque)
        extras = number(0) if opcode == GAT else b""
        named = key if opcode in (GETK, GETKQ) else b""
        answer = b""
        if value is not None:
            answer = reply(opcode, 0, value, named, number(0), opaque, 1)
        elif opcode not in (GETQ, GETKQ):
            answer = reply(opcode, 1, b"" if named else b"Not found", named, opaque=opaque)
        return request(opcode, key, extras, opaque=opaque), answer

    def test_random(self) -> None:
        """
        Whatever a client sends at once, and whichever server replies first, the replies are in the order of the
        requests.
        """
        self.held = {
            key % each: (b"END\r\n" + key) * size
            for key, size in ((b"present%d", 3), (b"large%d", 3000), (b"\r present %d", 9))
            for each in range(6)
        }
        for seed in range(40):
            rng = random.Random(seed)
            for stage in self.stages():
                client = stage.client()
                client.send(b"".join(request(SETQ, key, stored(), value) for key, value in self.held.items()))
                stage.serve()
                self.assertEqual(client.take(), b"")
                exchanges = [self.anyRequest(rng, label) for label in range(rng.randrange(1, 60))]
                client.send(b"".join(sent for sent, _ in exchanges))
                self.deliverAny(stage, rng)
                stage.serve()
                self.assertEqual(normal(client.take()), normal(b"".join(answer for _, answer in exchanges)), seed)

    def test_together(self) -> None:
        """
        Quiet gets and the no-operation after them are one request for each server.
        """
        gets = b"".join(request(GETKQ, b"k%d" % each) for each in range(9)) + request(NOOP)
        one, several = self.stages()
        self.assertEqual(self.converse(one, [gets]), (reply(NOOP), False))
        self.assertEqual([len(line.asked) for line in one.lines], [1])
        self.assertEqual(self.converse(several, [gets]), (reply(NOOP), False))
        self.assertEqual([line.asked for line in several.lines],
                         [[b"gets k%d k%d k%d\r\n" % (each, each + 3, each + 6)] for each in range(3)])  # fmt: skip

    def test_text(self) -> None:
        """
        Clients of both protocols share the connections and the values.
        """
        (stage, *_) = self.stages()
        text = stage.client()
        self.assertEqual(self.converse(stage, [request(SET, b"k", stored(5), b"v")])[1], False)
        self.assertEqual(stage.ask(text, b"get k\r\nset j 7 0 1\r\nw\r\n"), b"VALUE k 5 1\r\nv\r\nEND\r\nSTORED\r\n")
        answer, _ = self.converse(stage, [request(GET, b"j")])
        self.assertEqual(normal(answer), normal(reply(GET, 0, b"w", b"", number(7), cas=1)))
        self.assertEqual(len(stage.lines), 1)

    def test_base64(self) -> None:
        """
        A key that is sent in base64 belongs to the server of the key itself.
        """
        (_, stage) = self.stages()
        for each in range(3):
            self.converse(stage, [request(SETQ, b"a %d" % each, stored(), b"v") + request(GETQ, b"a %d" % each)])
            self.assertEqual(len(stage.lines[each].asked), 2)


class TogetherTests(BinaryTestCase):
    """
    Tests for several clients that each send a request in the same turn of the reactor.
    """

    def test_apart(self) -> None:
        """
        Each request of a binary client is sent alone, because its reply has another form. The gets of clients of the
        text protocol become one request.
        """
        for stage in self.stages():
            binary, text = [stage.client() for _ in range(2)], [stage.client() for _ in range(2)]
            self.converse(stage, [request(SET, b"a", stored(5), b"v")])
            for client in binary:
                client.send(request(GET, b"a"))
            for client in text:
                client.send(b"gets a\r\n")
            stage.serve()
            asked = [each for line in stage.lines for each in line.asked if each.startswith(b"get")]
            self.assertEqual(sorted(asked), [b"gets a\r\n", b"gets a\r\n", b"gets a a\r\n"])
            for client in binary:
                packets, rest = split(client.take())
                self.assertEqual(([each.opcode for each in packets], rest), ([GET], b""))
            for client in text:
                self.assertTrue(client.take().startswith(b"VALUE a "))


class ServersTests(BinaryTestCase):
    """
    Tests for requests that concern every server, and for statistics.
    """

    def test_flush(self) -> None:
        """
        Every server is flushed, and one of them that fails is an error.
        """
        (_, stage) = self.stages()
        self.assertEqual(self.converse(stage, [request(FLUSH)]), (reply(FLUSH), False))
        self.assertEqual([line.asked for line in stage.lines], [[b"flush_all\r\n"]] * 3)
        client = stage.client()
        client.send(request(FLUSH))
        stage.turns()
        stage.lines[1].lose()
        stage.serve()
        lost = b"upstream connection lost (server1)"
        self.assertEqual(client.take(), reply(FLUSH, 0x84, lost))

    def test_statistics(self) -> None:
        """
        The statistics of the servers and of the proxy are packets, and so are errors.
        """
        for stage in self.stages():
            answer, _ = self.converse(stage, [request(STAT)])
            found, rest = split(answer)
            self.assertEqual((rest, found[-1]), (b"", split(reply(STAT))[0][0]))
            items = {each.key: each.value for each in found}
            self.assertEqual((items[b"version"], items[b"proxy_answer"]), (b"1.6.18-txconnpool", b"42"))
            answer, _ = self.converse(stage, [request(STAT, b"proxy nonsense") + request(NOOP)])
            self.assertEqual(answer, reply(STAT, 0x84, b"no such statistics: nonsense") + reply(NOOP))

    def test_version(self) -> None:
        """
        The version is that of a server.
        """
        for stage in self.stages():
            answer, _ = self.converse(stage, [request(VERSION)])
            self.assertEqual(answer, reply(VERSION, 0, b"1.6.18-txconnpool"))


class FailureTests(BinaryTestCase):
    """
    Tests for connections that are lost.
    """

    def test_lost(self) -> None:
        """
        Reads are sent once more. Everything else that was in flight has an error, quiet requests too, with its opaque.
        """
        for stage in self.stages():
            client = stage.client()
            client.send(request(NOOP))  # a new session may have only few requests in flight
            sent = [request(SETQ, b"k", stored(), b"v", number(1)), request(GETKQ, b"none", opaque=number(2)),
                    request(INCR, b"k", counter(1), opaque=number(3))]  # fmt: skip
            client.send(b"".join(sent))
            stage.turns()
            self.assertEqual(client.take(), reply(NOOP))
            for line in stage.lines:
                line.lose()
            stage.serve()
            lost = b"upstream connection lost (server0)"
            self.assertEqual(
                client.take(),
                reply(SETQ, 0x84, lost, opaque=number(1)) + reply(INCR, 0x84, lost, opaque=number(3)),
            )

    def test_down(self) -> None:
        """
        If no server can be reached, each of several quiet gets has an error.
        """
        for stage in self.stages(partialError=True):
            for server in stage.servers:
                server.mode = "refuse"
                for line in server.lines:
                    line.lose()
            stage.turns()
            stage.clock.advance(2)
            sent = [request(GETQ, b"a0", opaque=number(1)), request(GETQ, b"b0", opaque=number(2)), request(NOOP)]
            answer, _ = self.converse(stage, [b"".join(sent)])
            error = b"upstream unavailable: connection refused (server0)"
            self.assertEqual(
                answer,
                reply(GETQ, 0x84, error, opaque=number(1)) + reply(GETQ, 0x84, error, opaque=number(2)) + reply(NOOP),
            )

    def test_cut(self) -> None:
        """
        A client that has received a part of a value is closed.
        """
        for stage in self.stages():
            self.converse(stage, [request(SETQ, b"k", stored(), bytes(1000))])
            client = stage.client()
            client.send(request(GET, b"k"))
            line = next(line for line in stage.lines if line.connected)
            line.deliver(100)
            self.assertEqual(client.take()[:2], b"\x81\x00")
            line.lose()
            stage.turns()
            self.assertFalse(client.connected)

    def test_serverError(self) -> None:
        """
        An error of one of several servers becomes packets.
        """
        (_, stage) = self.stages(partialError=True)
        self.patch(memcached, "answer", lambda data: (b"SERVER_ERROR x\r\n", len(data)) if data else (b"", 0))
        answer, _ = self.converse(stage, [request(GETQ, b"a0") + request(GETKQ, b"a1") + request(NOOP)])
        self.assertEqual(answer, reply(GETQ, 0x84, b"x") + reply(GETKQ, 0x84, b"x") + reply(NOOP))


class LoginTests(BinaryTestCase):
    """
    Tests for clients that must log in.
    """

    def client(self, stage: Stage) -> Pipe:
        """
        Connect a client.
        """
        client = Pipe(stage.clock).connect(stage.sessions.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1)))
        stage.clients.append(client)
        stage.turns()
        return client

    def test_login(self) -> None:
        """
        A client logs in with SASL, in any pieces, and may send requests at once after it.
        """
        login = request(SASL_LIST) + request(SASL_AUTH, b"PLAIN", b"", b"\0joe\0secret")
        data = login + request(SETQ, STRANGE, stored(), b"v") + request(GETK, STRANGE) + request(QUIT)
        expected = (
            reply(SASL_LIST, 0, b"PLAIN")
            + reply(SASL_AUTH, 0, b"Authenticated")
            + reply(GETK, 0, b"v", STRANGE, number(0), cas=1)
            + reply(QUIT)
        )
        for stage in self.stages():
            stage.sessions.gate.accepted = ((b"joe", b"secret"),)
            for place in range(len(data)):
                client = self.client(stage)
                client.send(data[:place])
                stage.turns()
                client.send(data[place:])
                stage.serve()
                self.assertEqual((normal(client.take()), client.connected), (normal(expected), False), place)

    def test_failed(self) -> None:
        """
        A wrong password is an error. After three of them the client is closed.
        """
        (stage, *_) = self.stages()
        stage.sessions.gate.accepted = ((b"joe", b"secret"),)
        client = self.client(stage)
        client.send(request(SASL_AUTH, b"PLAIN", b"", b"\0joe\0wrong") * 5)
        stage.clock.pump([DELAY_MAX] * 5)
        self.assertEqual((client.take(), client.connected), (reply(SASL_AUTH, 0x20, FAILED) * 3, False))
        self.assertEqual((stage.sessions.gate.attempts, stage.sessions.gate.failures), (3, 3))

    def test_none(self) -> None:
        """
        A client that sends other requests is closed.
        """
        (stage, *_) = self.stages()
        stage.sessions.gate.accepted = ((b"joe", b"secret"),)
        client = self.client(stage)
        client.send(request(GET, b"k") + request(NOOP))
        stage.turns()
        self.assertEqual((client.take(), client.connected), (reply(GET, 0x20, FAILED), False))

    def test_late(self) -> None:
        """
        The time limit for a login is the same.
        """
        (stage, *_) = self.stages(loginTimeout=5.0)
        stage.sessions.gate.accepted = ((b"joe", b"secret"),)
        client = self.client(stage)
        client.send(b"\x80")
        stage.clock.advance(5.1)
        stage.turns()
        self.assertFalse(client.connected)
