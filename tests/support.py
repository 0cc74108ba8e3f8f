# -*- test-case-name: tests.proxy.test_session -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The data path of the proxy in memory: clients, sessions, pool, connections and a memcached that can be led astray.

Nothing here has a socket or a time of its own. Each connection is a L{Pipe} whose far end the test holds: it decides
when bytes arrive, in which pieces, when the other side reads, and when the connection is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, execute, fail
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError, NoProtocol
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txconnpool.pool.connection import Connection, ConnectionFactory
from txconnpool.pool.engine import PoolEngine
from txconnpool.pool.limits import Limits
from txconnpool.pool.records import OPEN, Record
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.session import SessionLimits
from txconnpool.proxy.sessions import NoStatistics, SessionFactory
from txconnpool.wire.memcache.dialect import Memcache

#: As many unsent bytes pause a producer.
HIGH_WATER = 1 << 16


P = TypeVar("P", bound="Pipe")


@implementer(ITransport, IConsumer, IPushProducer)
class Pipe:
    """
    A connection. Its near end is the transport of a protocol, its far end is for the test.

    As with sockets, C{connectionLost} is called in a later turn than whatever brought it about, bytes that come while
    the protocol does not read are kept for it, and a producer is paused while there is much that the far end has not
    read.

    @ivar reads: whether the far end reads what comes as soon as it comes.
    @ivar reading: whether the protocol wants to be given bytes.
    @ivar connected: whether C{connectionLost} has not been called.
    @ivar closing: whether the protocol has closed the connection, in whichever way.
    @ivar aborted: whether it has by force.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.protocol: Any = None
        self.producer: Any = None
        self.paused = False
        self.reads = True
        self.reading = True
        self.connected = True
        self.closing = False
        self.aborted = False
        self._received = bytearray()
        self._unread = bytearray()
        self._held = b""

    @property
    def received(self) -> bytes:
        """
        What the far end has read since the last L{take}.
        """
        return bytes(self._received)

    @property
    def unread(self) -> int:
        """
        How many bytes it has not read.
        """
        return len(self._unread)

    def connect(self, protocol: Any) -> Pipe:
        """
        Become the transport of C{protocol}.
        """
        self.protocol = protocol
        protocol.makeConnection(self)
        return self

    # -- The near end

    def write(self, data: bytes) -> None:
        """
        Carry bytes to the far end.
        """
        assert isinstance(data, bytes)
        if not self.connected or self.aborted:
            return
        if self.reads:
            self._received += data
            return
        self._unread += data
        if len(self._unread) > HIGH_WATER and self.producer is not None and not self.paused:
            self.paused = True
            self.producer.pauseProducing()

    def writeSequence(self, pieces: Any) -> None:
        """
        Carry pieces of bytes.
        """
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        """
        Close when the far end has read everything, and, as TLS does, when there is no producer that might have more.
        """
        if self.connected and not self.closing:
            self.closing = True
            self.reading = False
            self._close()

    def _close(self) -> None:
        if self.closing and not self.aborted and not self.unread and self.producer is None:
            self.clock.callLater(0, self.lose, ConnectionDone())

    def abortConnection(self) -> None:
        """
        Close at once.
        """
        if self.connected and not self.aborted:
            self.closing = self.aborted = True
            self.reading = False
            self._unread.clear()
            self.clock.callLater(0, self.lose, ConnectionAborted())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Note whom to pause.
        """
        assert self.producer is None and streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        """
        Pause nobody.
        """
        self.producer = None
        self.paused = False
        self._close()

    def pauseProducing(self) -> None:
        """
        Keep what comes.
        """
        self.reading = False

    def resumeProducing(self) -> None:
        """
        Give the protocol what was kept, in a later turn.
        """
        if self.connected and not self.closing:
            self.reading = True
            self.clock.callLater(0, self.send, b"")

    def stopProducing(self) -> None:
        """
        Close.
        """
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        """
        @return: some address.
        """
        return IPv4Address("TCP", "192.0.2.1", 4321)

    def getHost(self) -> IPv4Address:
        """
        @return: another one.
        """
        return IPv4Address("TCP", "192.0.2.2", 11212)

    # -- The far end

    def send(self, data: bytes, piece: int = 0) -> None:
        """
        Have bytes arrive.

        @param piece: in pieces of this size.
        """
        if piece:
            for start in range(0, len(data), piece):
                self.send(data[start : start + piece])
            return
        self._held += data
        if self.reading and self._held and self.connected:
            data, self._held = self._held, b""
            self.protocol.dataReceived(data)

    def read(self, size: int | None = None) -> int:
        """
        Read what is there, or so many bytes of it.

        @return: how many there were.
        """
        data = self._unread[:size]
        del self._unread[:size]
        self._received += data
        if not self._unread and self.connected:
            if self.paused:
                self.paused = False
                self.producer.resumeProducing()
            self._close()
        return len(data)

    def take(self) -> bytes:
        """
        @return: what was received since the last time.
        """
        data = bytes(self._received)
        self._received.clear()
        return data

    def end(self) -> None:
        """
        The far end will send nothing more, and goes on reading.
        """
        if self.connected and not self.closing:
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.readConnectionLost()
            else:
                self.lose(ConnectionDone())

    def lose(self, reason: Exception | None = None) -> None:
        """
        The connection is lost.
        """
        if self.connected:
            self.connected = self.reading = False
            self.protocol.connectionLost(Failure(reason or ConnectionLost()))


@implementer(IPushProducer)
class Pusher:
    """
    A push producer that notes what it is told.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.onResume: Callable[[], object] = list

    def pauseProducing(self) -> None:
        """
        Note it.
        """
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        """
        Note it.
        """
        self.calls.append("resume")
        self.onResume()

    def stopProducing(self) -> None:
        """
        Note it.
        """
        self.calls.append("stop")


def value(key: bytes) -> bytes:
    """
    What L{Line} has stored under a key, which no other key has. It is full of what only looks like the protocol.
    """
    noise = b"%s\r\nEND\r\nVALUE %s 0 3\r\n" % (key, key)
    size = 20000 if key.startswith(b"large") else len(key)
    if not key.startswith((b"large", b"short")):
        size += sum(key) * 7 % 1000
    return (noise * (1 + size // len(noise)))[:size]


_REQUEST = re.compile(
    rb"(?P<word>get|gets|version|flush_all|verbosity|delete|incr|touch|mg|mn|md)(?: (?P<words>[^\r\n]*))?\r\n"
    rb"|(?P<store>set|add|append|cas|ms) (?P<key>\S+) (?:[0-9]+ -?[0-9]+ )?(?P<size>[0-9]+)(?: [^\r\n]*)?\r\n"
)


def answer(data: bytes) -> tuple[bytes, int]:
    """
    @param data: what was sent to a server.

    @return: what memcached says to the first request in it, and how long the request is; C{(b"", 0)} while it is not
        complete.
    """
    match = _REQUEST.match(data)
    if match is None:
        assert b"\n" not in data, data[:80]
        return b"", 0
    end = match.end()
    if match["store"]:
        end += int(match["size"]) + 2
        assert data[end - 2 : end] in (b"\r\n", b"\r", b""), data[:80]
        return (b"HD\r\n" if match["store"] == b"ms" else b"STORED\r\n", end) if end <= len(data) else (b"", 0)
    return _answer(match["word"], (match["words"] or b"").split(b" ")), end


def _answer(word: bytes, words: list[bytes]) -> bytes:
    if word in (b"get", b"gets"):
        unique = b" 7" if word == b"gets" else b""
        hits = [(key, value(key)) for key in words if not key.startswith(b"miss")]
        lines = [b"VALUE %s 0 %d%s\r\n%s\r\n" % (key, len(data), unique, data) for key, data in hits]
        return b"".join(lines) + b"END\r\n"
    if word == b"mg":
        if words[0].startswith(b"miss"):
            return b"EN\r\n"
        return b"VA %d\r\n%s\r\n" % (len(value(words[0])), value(words[0])) if b"v" in words else b"HD\r\n"
    found = not words[0].startswith(b"miss")
    return {
        b"version": b"VERSION 1.6.18\r\n",
        b"flush_all": b"OK\r\n",
        b"verbosity": b"OK\r\n",
        b"mn": b"MN\r\n",
        b"delete": b"DELETED\r\n" if found else b"NOT_FOUND\r\n",
        b"touch": b"TOUCHED\r\n" if found else b"NOT_FOUND\r\n",
        b"md": b"HD\r\n" if found else b"NF\r\n",
        b"incr": b"%d\r\n" % sum(words[0]) if found else b"NOT_FOUND\r\n",
    }[word]


class Line(Pipe):
    """
    A connection to a server, seen from the server.

    @ivar asked: what was asked, one request each, the handshake not among them.
    @ivar owed: the answers that have not been delivered.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.asked: list[bytes] = []
        self.owed = b""
        self._unparsed = b""

    def look(self) -> None:
        """
        Work out the answers to what has come.
        """
        self._unparsed += self.take()
        while self._unparsed:
            reply, size = answer(self._unparsed)
            if not size:
                return
            self.asked.append(self._unparsed[:size])
            self._unparsed = self._unparsed[size:]
            self.owed += reply

    def deliver(self, size: int | None = None) -> bool:
        """
        Have answers arrive, or so many bytes of them.

        @return: whether there was anything to deliver.
        """
        self.look()
        if not (self.owed and self.connected and self.reading):
            return False
        data = self.owed[:size]
        self.owed = self.owed[len(data) :]
        self.send(data)
        return True


@implementer(IStreamClientEndpoint)
class Endpoint(Generic[P]):
    """
    A server in memory, as an endpoint.

    @cvar kind: what its connections are.
    @ivar mode: what becomes of a dial: C{"accept"}, C{"refuse"}, C{"hang"} for neither, C{"raise"} for a mistake.
    @ivar dials: how many there have been.
    @ivar hanging: those that are in progress.
    @ivar lines: all connections there have been.
    """

    kind: Callable[[Clock], P]

    def __init__(self, clock: Clock, name: str = "server") -> None:
        self.clock = clock
        self.name = name
        self.mode = "accept"
        self.dials = 0
        self.hanging: list[tuple[Any, Deferred[Any]]] = []
        self.cancelled = 0
        self.lines: list[P] = []

    def __repr__(self) -> str:
        return self.name

    @property
    def open(self) -> list[P]:
        """
        The connections there are.
        """
        return [line for line in self.lines if line.connected]

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """
        Connect, or do not.
        """
        self.dials += 1
        if self.mode == "accept":
            return execute(self._connected, protocolFactory)
        if self.mode == "refuse":
            return fail(ConnectionRefusedError())
        if self.mode == "raise":
            raise RuntimeError("out of descriptors")
        dial: Deferred[Any] = Deferred(self._cancelled)
        self.hanging.append((protocolFactory, dial))
        return dial

    def _cancelled(self, dial: Deferred[Any]) -> None:
        self.hanging = [each for each in self.hanging if each[1] is not dial]
        self.cancelled += 1

    def _connected(self, factory: Any) -> Any:
        line = self.kind(self.clock)
        protocol = factory.buildProtocol(line.getPeer())
        if protocol is None:
            raise NoProtocol
        self.lines.append(line)
        line.connect(protocol)
        return protocol

    def accept(self) -> None:
        """
        A dial that hangs succeeds.
        """
        factory, dial = self.hanging.pop(0)
        dial.callback(self._connected(factory))

    def refuse(self) -> None:
        """
        A dial that hangs fails.
        """
        _, dial = self.hanging.pop(0)
        dial.errback(ConnectionRefusedError())


class Upstream(Endpoint[Line]):
    """
    A memcached.

    @ivar greets: whether the handshake is answered.
    """

    kind = Line
    greets = True

    def _connected(self, factory: Any) -> Any:
        protocol = super()._connected(factory)
        if self.greets:
            # As on a real network the greeting comes when the dial is done.
            self.clock.callLater(0, self._greet, self.lines[-1])
        return protocol

    def _greet(self, line: Line) -> None:
        assert line.take() == b"version\r\n"
        if line.connected:
            line.send(b"VERSION 1.6.18\r\n")


class Stage:
    """
    A pool with its sessions and servers. The pool is started and has as many connections as are kept open.

    @ivar servers: the servers.
    @ivar line: the first connection that was made.
    """

    def __init__(
        self,
        servers: int = 1,
        *,
        sessionLimits: SessionLimits | None = None,
        maxItemSize: int = 1 << 20,
        maxUnread: int = 1 << 28,
        requestTimeout: float = 2.0,
        start: bool = True,
        **limits: Any,
    ) -> None:
        """
        @param limits: those of the pool, see L{Limits}, where they are not to be those of the proxy.
        """
        self.clock = clock = Clock()
        self.servers = [Upstream(clock, f"server{number}") for number in range(servers)]
        self.dialect = Memcache(maxItemSize)
        # Ageing is off: with it a pool always has a timer.
        defaults = {
            "maximum": servers, "minimum": servers, "depth": 128, "maxWaiting": 10000, "waitTimeout": 1.0,
            "idleTimeout": 0.0, "maxLifetime": 0.0, "whenDown": 1,
        }  # fmt: skip
        self.pool = PoolEngine(
            self.servers,
            ConnectionFactory(self.dialect, clock, requestTimeout),
            Limits(**{**defaults, **limits}),
            clock,
            connectTimeout=1.0,
            handshake=self._handshake,
            commands=len(self.dialect.commands),
        )
        self.unread = BufferedBytes(maxUnread)
        self.clients: list[Pipe] = []
        self.sessions = SessionFactory(
            self.pool, self.dialect, sessionLimits or SessionLimits(), self.unread, clock, self._report
        )
        if start:
            self.pool.start()
            self.turns()

    def _handshake(self, connection: Connection) -> Deferred[bytes]:
        return connection.ask(*self.dialect.probe)

    def _report(self, words: tuple[bytes, ...]) -> list[tuple[str, object]]:
        if words:
            raise NoStatistics("no such statistics: " + b" ".join(words).decode())
        return [("answer", 42)]

    @property
    def lines(self) -> list[Line]:
        """
        All connections there have been.
        """
        return [line for server in self.servers for line in server.lines]

    @property
    def line(self) -> Line:
        """
        The only connection to the only server.
        """
        (line,) = (line for line in self.lines if line.connected)
        return line

    def client(self) -> Pipe:
        """
        A new client of the proxy.
        """
        client = Pipe(self.clock).connect(self.sessions.buildProtocol(None))
        self.clients.append(client)
        return client

    def turns(self, count: int = 10) -> None:
        """
        Let happen what happens without anything coming from outside.
        """
        for _ in range(count):
            self.clock.advance(0)

    def serve(self) -> None:
        """
        Let the servers answer everything, and what comes of that, until all is quiet.
        """
        self.turns()
        while sum(line.deliver() for line in self.lines):
            self.turns()

    def ask(self, client: Pipe, request: bytes) -> bytes:
        """
        @return: what a client gets for a request when the servers answer.
        """
        client.take()
        client.send(request)
        self.serve()
        return client.take()


def owed(record: Record) -> int:
    """
    Count what is in flight on a connection.
    """
    connection: Connection = record.connection
    counts = [count for _, command, count, _, _ in connection._inFlight if command is not None]
    return sum(counts) - (counts[0] - connection._owed if connection._owed else 0)


def assertTidy(case: SynchronousTestCase, pool: PoolEngine, quiet: bool = True) -> None:
    """
    Assert that the books of a pool agree with its connections: each carries what is in flight on it and no more, and
    those that carry nothing are among the idle ones, once.

    @param quiet: whether nothing is in flight, too.
    """
    state = pool._state
    for record in state.records:
        if record.connection is None:
            continue
        case.assertEqual(record.load, owed(record), record)
        if record.phase is OPEN:
            case.assertEqual(state.idle.count(record), 0 if record.load else 1, record)
        if quiet:
            case.assertEqual((record.load, len(record.connection._inFlight)), (0, 0), record)
    case.assertEqual([record for record in state.idle if record.phase is not OPEN], [])
    if quiet:
        case.assertEqual(state.waiters.count, 0)


def assertClosed(case: SynchronousTestCase, stage: Stage, close: Callable[[], Deferred[None]] | None = None) -> None:
    """
    Assert that a pool closes without leaving a connection or a timer behind.
    """
    done = (close or stage.pool.close)()
    stage.turns()
    case.successResultOf(done)
    case.assertEqual([line for line in stage.lines if line.connected], [])
    case.assertEqual(stage.clock.getDelayedCalls(), [])
