# -*- test-case-name: tests.proxy.test_sessions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.sessions}: which clients are accepted, statistics, broadcasts, and the end of all sessions.
"""

from __future__ import annotations

import os
import resource
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs, formatEvent

from tests.bugs import covers
from tests.clients import LOST, STATISTICS, SessionTestCase, get, put
from tests.pipes import Pipe
from tests.proxy.test_sharding import ShardedTestCase
from tests.redisstage import SingleRedisStage, requests
from tests.wire.memcache.binary import packets
from tests.wire.memcache.binary.cases import NOOP, QUIT, VERSION
from txconnpool.proxy import sessions
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.sessions import FAREWELL, FAREWELLS
from txconnpool.routing.uses import FLAVOURS_MAX


class RefusalTests(SessionTestCase):
    """
    Tests for the number of requests to which the proxy itself replies with an error.
    """

    def assertRefused(self, stage: Any, *exchanges: tuple[bytes, int]) -> None:
        """
        Assert how much the number rises with each request of one client.
        """
        client, counters = stage.client(), stage.sessions.counters
        for sent, expected in exchanges:
            before = counters.refused
            stage.ask(client, sent)
            self.assertEqual(counters.refused - before, expected, sent)

    def test_memcached(self) -> None:
        """
        Invalid requests count, also those that end the connection. Those with another reply do not.
        """
        stage = self.stage(start=False)
        stage.sessions.gate.accepted = ((b"joe", b"secret"),)
        stage.pool.start()
        stage.turns()
        login = b"set x 0 0 10\r\njoe secret\r\n"
        self.assertRefused(
            stage, (b"get a\r\n", 1), (login, 0), (b"get a\r\n", 0), (b"nonsense\r\n", 1), (b"verbosity 1\r\n", 0),
            (b"set a 0 0 2000000\r\n", 1), (b"a" * 2_000_000, 0),
        )  # fmt: skip
        stage.sessions.gate.accepted = None
        self.assertRefused(stage, (b"get " + b"a" * 3000 + b"\r\n", 1), (b"version\r\n", 0), (b"quit\r\n", 0))

    def test_binary(self) -> None:
        """
        Packets of the binary protocol count if their reply has an error.
        """
        exchanges = [
            (packets.request(opcode), expected) for opcode, expected in ((NOOP, 0), (0x99, 1), (VERSION, 0), (QUIT, 0))
        ]
        self.assertRefused(self.stage(), *exchanges)

    def test_redis(self) -> None:
        """
        Requests that need no server do not count, nor does a login.
        """
        stage = SingleRedisStage()
        stage.sessions.gate.accepted = ((b"default", b"x"),)
        texts = (
            ("PING", 1), ("AUTH default x", 0), ("PING", 0), ("SELECT 1", 0), ("HELLO 3", 0), ("CLIENT SETNAME x", 0),
            ("SET a b", 0), ("NOSUCH", 1), ("SELECT x", 1), ("AUTH default y", 1), ("QUIT", 0),
        )  # fmt: skip
        self.assertRefused(stage, *[(requests(text), expected) for text, expected in texts])

    def test_noFlavour(self) -> None:
        """
        A request to change the state of the client counts if clients use as many states as are possible.
        """
        stage = SingleRedisStage()
        for number in range(FLAVOURS_MAX - 1):  # one is that of new clients
            stage.flavours.use(number, ("other", number))
        self.assertRefused(stage, (requests("HELLO 3"), 1), (requests("PING"), 0))


class RequestsTests(ShardedTestCase):
    """
    Tests for the number of requests of clients.
    """

    def test_each(self) -> None:
        """
        Each request counts once, whatever becomes of it: with one server and with several, of one client or several in
        one turn, in any pieces.
        """
        keys = b" ".join(b"a%d" % number for number in range(300))
        texts = [
            b"get a\r\n", b"get a1\r\nget a2\r\nget a3\r\n", b"get a1 a2 a3\r\n", b"get %b\r\n" % keys, b"\r\n",
            b"nonsense\r\n", put(b"a", 3), b"set a 0 0 1 noreply\r\nx\r\n", b"flush_all\r\n", b"stats proxy\r\n",
            b"mg a v\r\nmg b v q\r\nmn\r\n", packets.request(NOOP), b"version\r\nquit\r\n",
        ]  # fmt: skip
        numbers = [1, 3, 1, 1, 1, 1, 1, 1, 1, 1, 3, 1, 2]
        for servers in (1, 3):
            for together in (False, True):
                for piece in (0, 7):
                    stage: Any = self.sharded if servers > 1 else self.stage
                    stage = stage(merges=together, unites=together)
                    for text, number in zip(texts, numbers, strict=True):
                        before = stage.sessions.counters.requests
                        for client in [stage.client() for _ in range(4)]:
                            client.send(text, piece)
                        stage.serve()
                        self.assertEqual(stage.sessions.counters.requests - before, 4 * number, (text[:20], servers))

    def test_refused(self) -> None:
        """
        Requests without a connection count once too.
        """
        stage = self.stage()
        stage.servers[0].mode = "refuse"
        stage.line.lose()
        stage.turns()
        for _ in range(3):
            stage.client().send(b"get a\r\nget b\r\n")
        stage.serve()
        self.assertEqual(stage.sessions.counters.requests, 6)

    def test_redis(self) -> None:
        """
        So do requests of a client with a connection of its own, and those that change its state.
        """
        stage = SingleRedisStage()
        client = stage.client()
        for number, text in enumerate(("SELECT 1", "MULTI", "SET a b", "EXEC", "PING", "CLIENT SETNAME x", "QUIT"), 1):
            stage.ask(client, requests(text))
            self.assertEqual(stage.sessions.counters.requests, number, text)


class AcceptanceTests(SessionTestCase):
    """
    Tests for the bound on clients, and on files.
    """

    def test_tooMany(self) -> None:
        """
        A client beyond the maximum gets an error and is closed. When another client has left, a new one is accepted.
        """
        stage = self.stage(sessionLimits=SessionLimits(maxClients=2))
        first, _ = stage.client(), stage.client()
        third = stage.client()
        stage.turns()
        self.assertEqual((third.take(), third.connected), (b"ERROR Too many open connections\r\n", False))
        self.assertEqual((stage.sessions.accepted, stage.sessions.refused), (2, 1))
        first.lose()
        self.assertEqual(stage.ask(stage.client(), b"get a\r\n"), get(b"a"))
        self.assertEqual((stage.sessions.accepted, stage.sessions.refused), (3, 1))

    def test_tooManyLogged(self) -> None:
        """
        The log says that clients are refused, and which setting is the reason: at first, and then once in a period.
        """
        stage = self.stage(sessionLimits=SessionLimits(maxClients=1))
        with capturedLogs() as logs:
            stage.client()
            for _ in range(5):
                stage.client()
            stage.clock.advance(sessions.PERIOD)
            stage.client()
        texts = [formatEvent(event) for event in logs if "too many clients" in event["log_format"]]
        self.assertEqual(
            texts,
            [
                "pool: too many clients, 1 refused: max-clients = 1",
                "pool: too many clients, 5 refused: max-clients = 1",
            ],
        )

    @covers("21")
    def test_fewFiles(self) -> None:
        """
        While the process can open only a few more files, clients are refused, which is logged once. Clients that are
        connected stay.
        """
        stage = self.stage()
        old = stage.client()
        left = [100]
        self.patch(sessions, "SPARE", 50)
        number = os.open(os.devnull, os.O_RDONLY)
        os.close(number)
        self.patch(sessions, "_fileLimit", lambda: number + left[0])
        with capturedLogs() as events:
            for _ in range(3):
                self.assertEqual(stage.ask(stage.client(), b"get a\r\n"), get(b"a"))
            left[0] = 20
            for _ in range(3):
                self.assertIsNone(stage.sessions.buildProtocol(None))
            self.assertEqual(stage.ask(old, b"get a\r\n"), get(b"a"))
            left[0] = 100
            self.assertEqual(stage.ask(stage.client(), b"get a\r\n"), get(b"a"))
        what = [event["what"] for event in events if event["log_namespace"].startswith("txconnpool")]
        refused = "clients are refused: the process may open no more files"
        self.assertEqual(what, [refused, "clients are accepted again"])
        self.assertEqual((stage.sessions.accepted, stage.sessions.refused), (5, 3))
        with capturedLogs() as events:
            for number in range(9):
                left[0] = 20 + number % 2 * 80
                stage.sessions.buildProtocol(None)
                stage.clock.advance(sessions.PERIOD / 5)
        what = [event["what"] for event in events if "what" in event]
        self.assertEqual(what, [refused, "clients are accepted again"])

    @covers("21")
    def test_noFiles(self) -> None:
        """
        Clients are also refused if no file can be opened at all.
        """

        def refuse(path: str, flags: int) -> int:
            raise OSError

        self.assertFalse(sessions.scarce())
        self.patch(os, "open", refuse)
        self.assertTrue(sessions.scarce())

    def test_noLimit(self) -> None:
        """
        If the system has no limit, clients are never refused for it.
        """
        self.patch(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.assertFalse(sessions.scarce())

    def test_tooManyAndSlow(self) -> None:
        """
        A refused client that does not read the error is closed after some time.
        """
        stage = self.stage(sessionLimits=SessionLimits(maxClients=0))
        client = Pipe(stage.clock)
        client.reads = False
        client.connect(stage.sessions.buildProtocol(None))
        stage.clock.advance(FAREWELL - 0.1)
        self.assertEqual((client.connected, client.aborted), (True, False))
        stage.clock.advance(0.2)
        self.assertEqual((client.connected, client.aborted), (False, True))

    def test_tooManyAtOnce(self) -> None:
        """
        Only a few refused clients may take their time.
        """
        stage = self.stage(sessionLimits=SessionLimits(maxClients=0))
        clients = []
        for _ in range(FAREWELLS + 3):
            client = Pipe(stage.clock)
            client.reads = False
            clients.append(client.connect(stage.sessions.buildProtocol(None)))
        self.assertEqual([client.aborted for client in clients], [True] * 3 + [False] * FAREWELLS)
        self.assertEqual(len(stage.sessions.leaving), FAREWELLS)
        stage.clock.advance(FAREWELL)
        stage.turns()
        self.assertEqual(len(stage.sessions.leaving), 0)


class BroadcastTests(SessionTestCase):
    """
    Tests for requests to all servers.
    """

    def test_all(self) -> None:
        """
        Every server gets the request, and the client gets one reply.
        """
        stage = self.stage(3)
        client = stage.client()
        self.assertEqual(stage.ask(client, b"flush_all 10\r\n"), b"OK\r\n")
        self.assertEqual([line.asked for line in stage.lines], [[b"flush_all 10\r\n"]] * 3)

    @covers("29")
    def test_order(self) -> None:
        """
        The request is sent when all requests before it are answered. Those behind it are sent when all servers have
        replied.
        """
        stage = self.stage(2)
        client = stage.client()
        client.send(b"get a\r\nflush_all\r\nget b\r\nx\r\n")
        asked = [line for line in stage.lines if line.received]
        self.assertEqual(len(asked), 1)
        asked[0].deliver()
        self.assertEqual(client.take(), get(b"a"))
        stage.lines[0].deliver()
        self.assertEqual(client.take(), b"")
        stage.lines[1].deliver()
        self.assertEqual(client.take(), b"OK\r\n")
        stage.serve()
        self.assertEqual(client.take(), get(b"b") + b"ERROR\r\n")

    def test_noreply(self) -> None:
        """
        A client that asked for silence gets neither replies nor errors.
        """
        stage = self.stage(2)
        client = stage.client()
        self.assertEqual(stage.ask(client, b"flush_all noreply\r\nmn\r\n"), b"MN\r\n")
        self.assertEqual([line.asked[0] for line in stage.lines], [b"flush_all\r\n"] * 2)
        stage.servers[0].mode = "refuse"
        stage.servers[0].open[0].lose()
        self.assertEqual(stage.ask(client, b"flush_all noreply\r\nmn\r\n"), b"MN\r\n")

    def test_error(self) -> None:
        """
        If one server replies with an error, the client gets this error.
        """
        stage = self.stage(2)
        client = stage.client()
        client.send(b"flush_all\r\n")
        stage.lines[0].look()
        stage.lines[0].owed = b"CLIENT_ERROR flush_all not allowed\r\n"
        stage.serve()
        self.assertEqual(client.take(), b"CLIENT_ERROR flush_all not allowed\r\n")

    @covers("27")
    def test_down(self) -> None:
        """
        If one server is down, the client gets an error with its name.
        """
        stage = self.stage(2)
        stage.servers[1].mode = "refuse"
        stage.servers[1].open[0].lose()
        stage.turns()
        client = stage.client()
        line = b"SERVER_ERROR upstream unavailable: connection refused (server1)\r\n"
        self.assertEqual(stage.ask(client, b"flush_all\r\nget a\r\n"), line + get(b"a"))

    def test_lost(self) -> None:
        """
        If a connection is lost, the client gets an error. The session continues.
        """
        stage = self.stage(2)
        client = stage.client()
        client.send(b"flush_all\r\nget a\r\n")
        stage.lines[1].lose()
        stage.serve()
        self.assertEqual(client.take(), LOST.replace(b"0", b"1") + get(b"a"))

    def test_vanished(self) -> None:
        """
        A client may disconnect before the servers reply.
        """
        stage = self.stage(2)
        client = stage.client()
        client.send(b"flush_all\r\nget a\r\n")
        client.lose()
        stage.serve()
        self.assertEqual([line.asked for line in stage.lines], [[b"flush_all\r\n"]] * 2)

    def test_fullConnection(self) -> None:
        """
        The request is also sent on connections that carry as much as their depth allows.
        """
        stage = self.stage(2, depth=1)
        clients = [stage.client() for _ in range(3)]
        for client in clients:
            client.send(b"get a\r\n")
        other = stage.client()
        other.send(b"flush_all\r\n")
        stage.serve()
        self.assertEqual(other.take(), b"OK\r\n")
        self.assertEqual([client.take() for client in clients], [get(b"a")] * 3)


class StatisticsTests(SessionTestCase):
    """
    Tests for statistics of the proxy and of servers that a client requests.
    """

    def test_inTurn(self) -> None:
        """
        A client that requests statistics many times gets one reply in each turn of the reactor.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"stats proxy\r\n" * 20 + b"get a\r\n")
        self.assertEqual(client.take(), b"")
        for _ in range(20):
            turn: Any
            (turn,) = (call for call in stage.clock.getDelayedCalls() if call.getTime() == stage.clock.seconds())
            function, arguments = turn.func, turn.args
            turn.cancel()
            function(*arguments)  # the clock would do what comes of it as well
            self.assertEqual(client.take(), STATISTICS)
        stage.serve()
        self.assertEqual(client.take(), get(b"a"))

    def test_nobody(self) -> None:
        """
        A client may disconnect before it gets statistics.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"stats proxy\r\n")
        client.lose()
        stage.turns()
        self.assertEqual((client.take(), stage.clock.getDelayedCalls()), (b"", []))

    def test_none(self) -> None:
        """
        If statistics fail, the client gets an error, and the log has the reason.
        """
        stage = self.stage()
        stage.sessions.report = lambda words: fail(ZeroDivisionError("oops"))
        answer = stage.ask(stage.client(), b"stats proxy\r\nversion\r\n")
        self.assertTrue(answer.startswith(b"SERVER_ERROR no statistics at the moment"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_later(self) -> None:
        """
        Statistics may be available later. Replies to later requests wait for them.
        """
        stage = self.stage()
        later: Deferred[list[tuple[str, int]]] = Deferred()
        stage.sessions.report = lambda words: later
        client = stage.client()
        self.assertEqual(stage.ask(client, b"stats proxy\r\nget a\r\n"), b"")
        later.callback([("a", 1)])
        stage.serve()
        self.assertEqual(client.take(), b"STAT a 1\r\nEND\r\n" + get(b"a"))

    def test_server(self) -> None:
        """
        C{stats upstream} asks the server with the words behind it and returns its reply unchanged.
        """
        stage = self.stage()
        client = stage.client()
        answer = b"STAT items:1:number 3\r\nEND\r\n"
        client.send(b"stats upstream items\r\n")
        stage.turns()
        self.assertEqual(stage.line.take(), b"stats items\r\n")
        stage.line.send(answer)
        self.assertEqual(client.take(), answer)

    def test_servers(self) -> None:
        """
        With several servers, names begin with the number of the server.
        """
        stage = self.stage(2)
        client = stage.client()
        client.send(b"stats upstream\r\n")
        stage.turns()
        for number, line in enumerate(stage.lines):
            self.assertEqual(line.take(), b"stats\r\n")
            line.send(b"STAT pid %d\r\nEND\r\n" % number)
        self.assertEqual(client.take(), b"STAT 1:pid 0\r\nSTAT 2:pid 1\r\nEND\r\n")

    def test_lost(self) -> None:
        """
        A server whose connection is lost has an error in its place.
        """
        stage = self.stage(2)
        client = stage.client()
        client.send(b"stats upstream\r\n")
        stage.turns()
        for line in stage.lines:
            self.assertEqual(line.take(), b"stats\r\n")
        stage.lines[0].send(b"STAT pid 0\r\nEND\r\n")
        stage.lines[1].lose()
        stage.turns()
        self.assertEqual(
            client.take(),
            b"STAT 1:pid 0\r\nSTAT 2:error SERVER_ERROR upstream connection lost (server1)\r\nEND\r\n",
        )

    def test_refused(self) -> None:
        """
        Statistics that are unknown, or show addresses of others, are refused in memcached's words. A server that is
        down gives an error.
        """
        stage = self.stage()
        client = stage.client()
        for words, reply in (
            (b"detail", b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"),
            (b"conns", b"CLIENT_ERROR stats conns needs stats-addresses = yes\r\n"),
            (b"what", b"ERROR\r\n"),
        ):
            for first in (b"", b"upstream "):
                self.assertEqual(stage.ask(client, b"stats %s%s\r\n" % (first, words)), reply)
        self.assertEqual(stage.line.asked, [])
        stage.servers[0].mode = "refuse"
        stage.line.lose()
        stage.turns()
        for request in (b"stats\r\n", b"stats items\r\n", b"stats upstream\r\n", b"stats reset\r\n"):
            self.assertRegex(stage.ask(client, request), rb"\ASERVER_ERROR upstream unavailable: .*\r\n\Z")


class DrainTests(SessionTestCase):
    """
    Tests for the end of all sessions.
    """

    def test_none(self) -> None:
        """
        Without sessions C{drain} ends at once.
        """
        self.assertIsNone(self.successResultOf(self.stage().sessions.drain()))

    def test_drain(self) -> None:
        """
        Sessions are closed when the requests that were read are answered, idle ones at once.
        """
        stage = self.stage(depth=1)
        busy, waiting, idle, half = (stage.client() for _ in range(4))
        busy.send(b"get a\r\nget b\r\n")
        waiting.send(b"get c\r\nget d")
        half.send(put(b"k", 100)[:-20])
        done = [stage.sessions.drain(), stage.sessions.drain()]
        stage.turns()
        self.assertEqual([client.connected for client in (busy, waiting, idle, half)], [True, True, False, False])
        busy.send(b"get e\r\n")
        for each in done:
            self.assertNoResult(each)
        stage.serve()
        self.assertEqual((busy.take(), waiting.take()), (get(b"a", b"b"), get(b"c")))
        for each in done:
            self.assertIsNone(self.successResultOf(each))

    def test_statistics(self) -> None:
        """
        Statistics and broadcasts are answered before the end too.
        """
        stage = self.stage(2)
        client = stage.client()
        client.send(b"get a\r\nstats proxy\r\nflush_all\r\n")
        done = stage.sessions.drain()
        stage.serve()
        self.assertEqual(client.take(), get(b"a") + STATISTICS + b"OK\r\n")
        self.successResultOf(done)

    def test_abort(self) -> None:
        """
        C{abort} closes the sessions that have not ended.
        """
        stage = self.stage()
        busy, slow = stage.client(), stage.client()
        slow.reads = False
        slow.send(b"get a\r\n")
        stage.serve()
        busy.send(b"get a\r\n")
        done: Deferred[None] = stage.sessions.drain()
        stage.turns()
        self.assertEqual(len(stage.sessions.sessions), 2)
        stage.sessions.abort()
        self.assertNoResult(done)
        stage.turns()
        self.successResultOf(done)
        self.assertTrue(busy.aborted and slow.aborted)


class FrozenTests(SessionTestCase):
    """
    Tests for a server that accepts connections and requests, and replies to nothing.
    """

    def test_oneTimeout(self) -> None:
        """
        A client waits for one request timeout, not for one of each idle connection. After that it waits at most for one
        new connection, and then no more.
        """
        stage = self.stage(maximum=4, minimum=4, requestTimeout=2.0, depth=1)
        self.assertEqual(len(stage.lines), 4)
        stage.servers[0].greets = False
        client = stage.client()
        waited = []
        for _ in range(4):
            start = stage.clock.seconds()
            client.take()
            client.send(b"get a\r\n")
            while not client.received:
                stage.clock.advance(0.1)
                stage.turns()
            waited.append(round(stage.clock.seconds() - start, 1))
        self.assertLessEqual(waited[0], 2.2)
        self.assertLessEqual(waited[1], 1.2)
        self.assertLessEqual(waited[2:], [0.2, 0.2])
        stage.servers[0].greets = True
        stage.clock.advance(5)
        self.assertEqual(stage.ask(client, b"get a\r\n"), get(b"a"))

    def test_alive(self) -> None:
        """
        Connections that have received replies meanwhile are used further.
        """
        stage = self.stage(maximum=2, minimum=2, requestTimeout=2.0, depth=1)
        stuck, other = stage.client(), stage.client()
        stuck.send(b"get a\r\n")
        stage.turns()
        first = next(line for line in stage.lines if line.unread or line.received)
        second = next(line for line in stage.lines if line is not first)
        stage.clock.advance(1)
        other.send(b"get b\r\n")
        stage.turns()
        second.deliver()
        stage.clock.advance(1.1)
        stage.turns()
        self.assertEqual((first.connected, second.connected), (False, True))
