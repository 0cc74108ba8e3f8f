# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.relay}: clients of an unknown protocol.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.pipes import HIGH_WATER, Endpoint, Pipe
from txconnpool.config.settings import PoolSettings
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.engine import PoolEngine
from txconnpool.pool.slow import SlowLog
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.limits import poolLimits, sessionLimits
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.relayed import EARLY_MAX, LINGER, RelayFactory
from txconnpool.proxy.sessions import SessionFactory
from txconnpool.proxy.upstream import Upstream
from txconnpool.routing.single import SinglePool
from txconnpool.wire.raw import Raw


class Backend(Endpoint[Pipe]):
    """
    A server whose connections the test holds.
    """

    kind = Pipe


class RelayCase(SynchronousTestCase):
    """
    Base class of tests with a server, and a pool of at most two connections.

    @ivar server: the server.
    """

    reuse = False
    firstByte = False
    servers = 1

    def setUp(self) -> None:
        """
        Start the pool.
        """
        self.clock = Clock()
        self.backends = [Backend(self.clock, f"server{number}") for number in range(self.servers)]
        self.server = self.backends[0]
        limits = Limits(
            maximum=2, depth=1, maxWaiting=2, waitTimeout=1.0, idleTimeout=0.0, maxLifetime=0.0, whenDown=1,
            reuse="fifo" if self.servers > 1 else "lifo", dials=2,
        )  # fmt: skip
        self.pool = PoolEngine(self.backends, RelayFactory(self.clock), limits, self.clock, connectTimeout=1.0)
        self.unread = BufferedBytes(1 << 28)
        self.sessions = SessionFactory(
            "pool",
            SinglePool(self.pool),
            Raw(),
            SessionLimits(reuse=self.reuse, leaseAtFirstByte=self.firstByte, backlog=1000),
            self.unread,
            self.clock,
            lambda words: [],
        )
        self.logged: list[str] = []
        log = cast(ILogObserver, self._log)
        globalLogPublisher.addObserver(log)
        self.addCleanup(globalLogPublisher.removeObserver, log)
        self.pool.start()
        self.turns()

    def _log(self, event: Any) -> None:
        if "why" in event:
            self.logged.append(event["log_format"].format(**event))

    def tearDown(self) -> None:
        """
        Close all, and assert that nothing is left.
        """
        self.pool.selfCheck()
        self.sessions.abort()
        self.turns()
        self.assertEqual((len(self.sessions.sessions), self.unread.total), (0, 0))
        done = self.pool.close()
        self.turns()
        self.successResultOf(done)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def turns(self) -> None:
        """
        Run what is due.
        """
        for _ in range(10):
            self.clock.advance(0)

    def client(self, data: bytes = b"") -> Pipe:
        """
        @return: a new client that has sent C{data}.
        """
        client = Pipe(self.clock).connect(self.sessions.buildProtocol(None))
        if data:
            client.send(data)
        self.turns()
        return client

    def both(self, data: bytes = b"") -> tuple[Pipe, Pipe]:
        """
        @return: a new client that has sent C{data}, and the server's end of its connection.
        """
        client = self.client(data)
        line = self.server.open[-1]
        self.assertEqual(line.take(), data)
        return client, line

    @property
    def leases(self) -> tuple[int, int]:
        """
        The number of leases, and of clients that wait for one.
        """
        self.pool.selfCheck()
        return self.pool.stats.inFlight, self.pool.waiting


class RelayTests(RelayCase):
    """
    Tests for sessions of which each has a connection of its own.
    """

    def test_bytes(self) -> None:
        """
        Bytes pass in both directions as they come. The connection is closed with its client.
        """
        client, line = self.both(b"\0\xffhello")
        line.send(b"\r\n\0")
        client.send(b"more")
        self.assertEqual((client.take(), line.take(), self.leases), (b"\r\n\0", b"more", (1, 0)))
        counters, traffic = self.sessions.counters, self.pool.servers[0].traffic
        self.assertEqual((counters.received, counters.sent, traffic.sent, traffic.received), (11, 3, 11, 3))
        client.lose(ConnectionDone())
        self.turns()
        self.assertEqual((line.connected, line.aborted, self.leases), (False, False, (0, 0)))
        self.assertEqual((traffic.requests, traffic.closed, traffic.lost), ([1], {"ended": 1}, {}))

    def test_serverFirst(self) -> None:
        """
        A client that says nothing has a connection at once, because the server may speak first.
        """
        client, line = self.both()
        line.send(b"220 hello\r\n")
        self.assertEqual(client.take(), b"220 hello\r\n")

    def test_early(self) -> None:
        """
        What a server sends before a client has its connection is kept for it, up to a bound.
        """
        self.server.mode = "hang"
        gone = self.client(b"lost")
        gone.lose()
        self.server.accept()
        self.turns()
        (line,) = self.server.open
        line.send(b"x" * EARLY_MAX)
        self.assertFalse(line.reading)
        line.send(b"rest")
        client = self.client()
        self.assertEqual(client.take(), b"x" * EARLY_MAX + b"rest")
        self.assertEqual(self.server.dials, 1)

    def test_endedEarly(self) -> None:
        """
        No client gets a connection whose server has closed it already.
        """
        self.server.mode = "hang"
        self.client().lose()
        self.server.accept()
        self.turns()
        (line,) = self.server.open
        line.send(b"full")
        line.end()
        self.server.mode = "accept"
        client = self.client(b"a")
        self.assertEqual((client.take(), self.server.open[-1].take(), line.connected), (b"", b"a", False))

    def test_afterTheEnd(self) -> None:
        """
        What a client sends while it is being closed leases no other connection.
        """
        client, line = self.both(b"a")
        client.reads = False
        line.send(b"answer")
        line.lose(ConnectionDone())
        client.protocol.dataReceived(b"b")
        self.turns()
        self.assertEqual((self.leases, self.server.dials), ((0, 0), 1))
        client.read()
        self.turns()
        self.assertEqual((client.take(), client.connected, client.aborted), (b"answer", False, False))

    def test_drainedServer(self) -> None:
        """
        A server that is taken out of service keeps its sessions, and gets no others; with C{abort} it keeps none.
        """
        client, line = self.both(b"a")
        self.pool.drain("server0")
        client.send(b"b")
        self.assertEqual(line.take(), b"b")
        self.pool.drain("server0", abort=True)
        self.turns()
        self.assertEqual((line.aborted, client.aborted), (True, True))

    def test_smallerPool(self) -> None:
        """
        Sessions beyond a smaller bound stay until they end. Their connections are not used again.
        """
        clients = [self.both(data) for data in (b"a", b"b")]
        self.pool.setLimits(replace(self.pool.limits, maximum=1))
        waits = self.client(b"c")
        for client, line in clients:
            self.assertTrue(line.connected)
            client.lose(ConnectionDone())
            self.turns()
            self.assertFalse(line.connected)
        self.assertEqual((self.server.open[-1].take(), self.leases, waits.connected), (b"c", (1, 0), True))

    def test_own(self) -> None:
        """
        No client gets a connection that another one had.
        """
        for data in (b"a", b"b", b"c"):
            client, line = self.both(data)
            client.end()
            self.turns()
            line.end()
            self.turns()
            self.assertEqual((client.connected, line.connected, client.aborted), (False, False, False))
        self.assertEqual(self.server.dials, 3)

    def test_queue(self) -> None:
        """
        More clients than connections wait, and what they send is kept. The first one gets the first connection.
        """
        lines = [self.both(data) for data in (b"a", b"b")]
        third, fourth = self.client(b"c"), self.client(b"d")
        self.assertEqual((self.leases, self.server.dials), ((2, 2), 2))
        lines[0][0].lose(ConnectionDone())
        self.turns()
        self.assertEqual((self.server.open[-1].take(), self.leases), (b"c", (2, 1)))
        lines[1][0].lose()
        self.turns()
        self.assertEqual((lines[1][1].aborted, self.server.open[-1].take(), self.leases), (True, b"d", (2, 0)))
        self.assertEqual((third.connected, fourth.connected), (True, True))

    def test_dials(self) -> None:
        """
        A dial that takes long does not hold up the next client.
        """
        self.server.mode = "hang"
        self.client(b"a")
        self.server.mode = "accept"
        self.client(b"b")
        self.assertEqual((self.server.open[0].take(), self.server.dials), (b"a", 2))

    def test_timeout(self) -> None:
        """
        A client that waits for too long is closed, and the log says it once. So is one that is too many.
        """
        self.both(b"a")
        self.both(b"b")
        waits = [self.client(b"c") for _ in range(2)]
        over = self.client(b"d")
        self.assertEqual((over.aborted, over.connected), (True, False))
        self.clock.advance(1.1)
        self.turns()
        self.assertEqual([each.connected for each in waits], [False, False])
        self.assertEqual(self.sessions.counters.errors, {"too_many_waiting": 1, "wait_timeout": 2})
        self.assertEqual(len(self.logged), 1)
        self.assertIn("pool: 1 clients closed, they got no connection: too many wait", self.logged[0])

    def test_down(self) -> None:
        """
        If no server can be reached, clients are closed at once.
        """
        self.server.mode = "refuse"
        first = self.client(b"a")
        self.turns()
        second = self.client(b"b")
        self.assertEqual((first.aborted, second.aborted), (True, True))
        self.assertEqual(self.sessions.counters.errors, {"unavailable": 2})

    def test_backlog(self) -> None:
        """
        A client that waits is read up to a bound.
        """
        self.server.mode = "hang"
        client = self.client(b"x" * 900)
        self.assertTrue(client.reading)
        client.send(b"y" * 200)
        client.send(b"z")
        self.assertEqual((client.reading, self.unread.total), (False, 1100))
        self.server.accept()
        self.turns()
        self.assertEqual(self.server.open[0].take(), b"x" * 900 + b"y" * 200 + b"z")
        self.assertEqual((client.reading, self.unread.total), (True, 0))

    def test_slowServer(self) -> None:
        """
        A client is not read while the server does not read.
        """
        client, line = self.both(b"a")
        line.reads = False
        client.send(b"x" * (HIGH_WATER + 1))
        client.send(b"y")
        self.assertEqual((client.reading, line.unread), (False, HIGH_WATER + 1))
        line.send(b"answer")
        self.assertEqual(client.take(), b"answer")
        line.read()
        self.turns()
        line.read()
        self.assertEqual(line.take(), b"x" * (HIGH_WATER + 1) + b"y")

    def test_slowClient(self) -> None:
        """
        A server is not read while the client does not read.
        """
        client, line = self.both(b"a")
        client.reads = False
        line.send(b"x" * (HIGH_WATER + 1))
        line.send(b"y")
        self.assertEqual((line.reading, client.unread), (False, HIGH_WATER + 1))
        client.send(b"b")
        self.assertEqual(line.take(), b"b")
        client.read()
        self.turns()
        client.read()
        self.assertEqual(client.take(), b"x" * (HIGH_WATER + 1) + b"y")

    def test_halfCloseOfClient(self) -> None:
        """
        A client that has sent all still gets the answer. The server's end ends the session.
        """
        client, line = self.both(b"question")
        client.end()
        self.assertEqual((line.halfClosed, line.closing), (True, False))
        line.send(b"answer")
        line.end()
        self.turns()
        self.assertEqual((client.take(), client.connected, client.aborted), (b"answer", False, False))
        self.assertEqual((line.connected, line.aborted, self.leases), (False, False, (0, 0)))

    def test_halfCloseOfServer(self) -> None:
        """
        A server that has sent all still gets what the client sends.
        """
        client, line = self.both()
        line.send(b"bye")
        line.end()
        self.turns()
        self.assertEqual((client.take(), client.halfClosed, client.closing), (b"bye", True, False))
        client.send(b"last")
        client.end()
        self.turns()
        self.assertEqual((line.take(), client.connected, line.connected, self.leases), (b"last", False, False, (0, 0)))

    def test_linger(self) -> None:
        """
        A server that has closed its side has most often closed both. Its connection is given up when the client has
        sent nothing for a moment, so that other clients get one.
        """
        client, line = self.both()
        line.end()
        self.turns()
        for _ in range(3):
            self.clock.advance(LINGER * 0.7)
            client.send(b"more")
        self.turns()
        self.assertEqual((line.take(), line.connected, client.connected), (b"more" * 3, True, True))
        self.clock.advance(LINGER)
        self.turns()
        self.assertEqual((line.connected, client.connected, client.aborted, self.leases), (False, False, False, (0, 0)))

    def test_halfCloseInQueue(self) -> None:
        """
        A client that has sent all while it waited is served too. One that has sent nothing is closed.
        """
        self.server.mode = "hang"
        asks, silent = self.client(b"question"), self.client()
        asks.end()
        silent.end()
        self.turns()
        self.assertEqual((asks.connected, silent.connected, self.leases), (True, False, (0, 1)))
        self.server.accept()
        self.turns()
        (line,) = self.server.open
        self.assertEqual((line.take(), line.halfClosed), (b"question", True))

    def test_resets(self) -> None:
        """
        If one side is reset, so is the other. The loss of the server's side is one of the server.
        """
        client, line = self.both(b"a")
        client.lose()
        self.turns()
        self.assertEqual((line.aborted, line.connected, self.leases), (True, False, (0, 0)))
        client, line = self.both(b"b")
        line.send(b"half")
        line.lose()
        self.turns()
        self.assertEqual((client.aborted, client.connected, self.leases), (True, False, (0, 0)))
        traffic = self.pool.servers[0].traffic
        self.assertEqual((sum(traffic.lost.values()), traffic.closed), (1, {"left_in_use": 1}))

    def test_idle(self) -> None:
        """
        A session is closed when nothing came from either side for the time. Bytes of the server count too.
        """
        self.sessions.limit(replace(self.sessions.limits, idleTimeout=8.0))
        silent, _ = self.both(b"a")
        listens, line = self.both(b"b")
        for _ in range(12):
            self.clock.advance(1)
            line.send(b"tick")
        self.assertEqual((silent.connected, listens.connected, self.leases), (False, True, (1, 0)))
        self.assertEqual(self.sessions.idle.closed, 1)
        for _ in range(12):
            self.clock.advance(1)
        self.assertEqual((listens.connected, self.leases), (False, (0, 0)))

    def test_drain(self) -> None:
        """
        At a stop, clients that wait are closed. Those that have a connection go on until they end.
        """
        first, line = self.both(b"a")
        self.both(b"b")
        waits = self.client(b"c")
        drained = self.sessions.drain()
        self.turns()
        self.assertEqual((first.connected, waits.connected), (True, False))
        first.send(b"more")
        self.assertEqual(line.take(), b"more")
        self.assertNoResult(drained)
        self.sessions.abort()
        self.turns()
        self.successResultOf(drained)

    def test_manyClients(self) -> None:
        """
        A client that is too many is closed without a word.
        """
        self.sessions.limit(replace(self.sessions.limits, maxClients=1))
        self.both(b"a")
        refused = self.client(b"b")
        self.assertEqual((refused.received, refused.connected, self.sessions.refused), (b"", False, 1))


class ChaosTests(RelayCase):
    """
    Random events in any order.
    """

    def test_events(self) -> None:
        """
        A server receives the bytes of one client only, in their order, and the other way round; both get nothing else.
        The pool is in order after each event, and not one connection is left in the end.
        """
        for seed in range(150):
            self.run_(Random(seed))

    def run_(self, random: Random) -> None:
        clients: list[tuple[Pipe, bytearray]] = []
        spoken: dict[Pipe, bytearray] = {}
        self.sessions.limit(replace(self.sessions.limits, reuse=False, leaseAtFirstByte=random.random() < 0.5))
        first = len(self.server.lines)
        for step in range(60):
            lines = [line for line in self.server.lines[first:] if line.connected]
            open_ = [each for each in clients if each[0].connected]
            event = random.randrange(9)
            if event == 0 or not open_:
                clients.append((self.client(), bytearray()))
            elif event <= 2:
                client, sent = random.choice(open_)
                # Each byte says whose it is.
                data = bytes([clients.index((client, sent)) + 1]) * random.choice((1, 100, 70000))
                sent += data
                client.send(data)
            elif event <= 4 and lines:
                line = random.choice(lines)
                data = b"%d:%d," % (self.server.lines.index(line), step) * random.choice((1, 9000))
                spoken.setdefault(line, bytearray()).extend(data)
                line.send(data)
            elif event == 5:
                pipe = random.choice([*lines, *(each[0] for each in open_)])
                pipe.reads = not pipe.reads
                pipe.read()
            elif event == 6:
                random.choice([*lines, *(each[0] for each in open_)]).end()
            elif event == 7 and random.random() < 0.5:
                random.choice([*lines, *(each[0] for each in open_)]).lose()
            else:
                self.clock.advance(random.choice((0.0, 0.3, 1.1)))
            self.turns()
            self.pool.selfCheck()
        for line in self.server.lines[first:]:
            line.read()
            owner = set(line.received)
            self.assertLessEqual(len(owner), 1)
            for number in owner:
                self.assertTrue(bytes(clients[number - 1][1]).startswith(line.received))
        for client, _ in clients:
            client.read()
            if client.received:
                self.assertTrue(any(bytes(each).startswith(client.received) for each in spoken.values()))
        self.sessions.abort()
        self.turns()
        self.clock.advance(2)
        self.turns()
        self.assertEqual((self.leases, len(self.sessions.sessions), self.unread.total), ((0, 0), 0, 0))


class ManyTests(RelayCase):
    """
    Random clients of connections that are used in turn.
    """

    reuse = True

    def test_turns(self) -> None:
        """
        With C{reset = none} each client that asks and waits gets its own answer, whatever others do in between.
        """
        random = Random(7)
        leaving: list[Pipe] = []
        for number in range(300):
            client = self.client()
            if random.random() < 0.3:
                leaving.append(client)
            question = b"%d?" % number
            client.send(question)
            while self.leases[1]:
                self.clock.advance(0.1)
                leaving.pop(0).lose(random.choice((None, ConnectionDone())))
                self.turns()
            (line,) = (each for each in self.server.open if question in each.received)
            self.assertTrue(line.take().endswith(question))
            if client in leaving:
                continue
            line.send(question)
            self.assertEqual(client.take(), question)
            random.choice((Pipe.end, lambda pipe: pipe.lose(ConnectionDone()), Pipe.lose))(client)
            self.turns()
            if len(leaving) > 1:
                leaving.pop().lose()
                self.turns()
        self.assertLess(self.server.dials, 300)
        self.assertEqual(self.pool.counters.violations, 0)


class FirstByteTests(RelayCase):
    """
    Tests for C{lease-at = first-byte}.
    """

    firstByte = True

    def test_first(self) -> None:
        """
        A client gets a connection when it has sent something.
        """
        client = self.client()
        self.assertEqual((self.server.dials, self.leases), (0, (0, 0)))
        client.send(b"a")
        self.turns()
        self.assertEqual((self.server.open[0].take(), self.leases), (b"a", (1, 0)))

    def test_never(self) -> None:
        """
        A client that sends nothing and ends costs no connection.
        """
        client = self.client()
        client.end()
        self.turns()
        self.assertEqual((client.connected, self.server.dials), (False, 0))

    def test_reload(self) -> None:
        """
        With C{lease-at = connect} from now on, silent clients get connections too.
        """
        self.client()
        self.sessions.limit(replace(self.sessions.limits, leaseAtFirstByte=False))
        self.turns()
        self.assertEqual(self.leases, (1, 0))


class ReuseTests(RelayCase):
    """
    Tests for C{reset = none}.
    """

    reuse = True

    def test_reused(self) -> None:
        """
        The connection of a client whose server has answered serves the next one, however the client ends.
        """
        for end in (Pipe.end, lambda pipe: pipe.lose(ConnectionDone())):
            client, line = self.both(b"ask")
            line.send(b"answer")
            self.assertEqual(client.take(), b"answer")
            end(client)
            self.turns()
            self.assertEqual(
                (client.connected, line.connected, line.halfClosed, self.leases), (False, True, False, (0, 0))
            )
        self.assertEqual(self.server.dials, 1)

    def test_due(self) -> None:
        """
        A connection on which an answer may come is closed, and so is one that was reset in the middle of an answer.
        """
        client, line = self.both(b"ask")
        client.lose(ConnectionDone())
        self.turns()
        self.assertFalse(line.connected)
        client, line = self.both(b"ask")
        line.send(b"answer")
        client.lose()
        self.turns()
        self.assertFalse(line.connected)

    def test_late(self) -> None:
        """
        A connection on which bytes come that belong to nobody is closed, and no client gets them.
        """
        client, line = self.both(b"ask")
        line.send(b"answer")
        client.end()
        self.turns()
        line.send(b"another")
        self.turns()
        self.assertEqual((line.connected, self.pool.counters.violations), (False, 1))
        self.assertEqual(self.client(b"ask").take(), b"")


class ServersTests(RelayCase):
    """
    Tests for several servers.
    """

    servers = 2

    def test_inTurn(self) -> None:
        """
        The clients are spread over the servers.
        """
        self.client(b"a")
        self.client(b"b")
        self.assertEqual([backend.dials for backend in self.backends], [1, 1])


class LimitsTests(SynchronousTestCase):
    """
    Tests for the limits that C{protocol = raw} has.
    """

    def test_pool(self) -> None:
        """
        A connection for one client only is made for it and never replaced; one that many use in turn is kept as others.
        """
        single = poolLimits(PoolSettings(protocol="raw", minPoolSize=2, maxLifetime=60))
        self.assertEqual((single.minimum, single.maxLifetime, single.depth, single.dials), (0, 0.0, 1, 16))
        shared = poolLimits(PoolSettings(protocol="raw", minPoolSize=2, maxLifetime=60, reset="none"))
        self.assertEqual((shared.minimum, shared.maxLifetime, shared.depth, shared.dials), (2, 60, 1, 16))
        self.assertEqual(poolLimits(PoolSettings()).dials, 1)

    def test_sessions(self) -> None:
        """
        The settings say when a connection is leased, and whether another client may use it.
        """
        for settings, expected in (
            (PoolSettings(protocol="raw"), (False, False)),
            (PoolSettings(protocol="raw", leaseAt="first-byte", reset="none"), (True, True)),
        ):
            limits = sessionLimits(settings)
            self.assertEqual((limits.leaseAtFirstByte, limits.reuse), expected)

    def test_servers(self) -> None:
        """
        The pool of these settings is one of relayed connections, for several servers too.
        """
        clock = Clock()
        settings = PoolSettings(protocol="raw", upstream=("tcp:a:1", "tcp:b:1"), distribution="round-robin")
        upstream = Upstream(settings, Raw(), clock, SlowLog("pool", Raw(), clock.seconds))
        self.assertEqual([server.name for server in upstream.pool.servers], ["tcp:a:1", "tcp:b:1"])
        upstream.adjust(replace(settings, upstream=("tcp:b:1", "tcp:c:1"), poolSize=9))
        self.assertEqual([server.name for server in upstream.pool.servers], ["tcp:b:1", "tcp:c:1"])
        self.assertEqual((upstream.pool.limits.maximum, upstream.pool.limits.minimum), (9, 0))
