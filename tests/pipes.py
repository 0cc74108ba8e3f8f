# -*- test-case-name: tests.proxy.test_session -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Connections in memory whose far end the test holds: it decides when bytes arrive and in which pieces, when the far end
reads, and when the connection is lost. Nothing here has a socket or a clock of its own.
"""

from __future__ import annotations

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
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

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


class Recorder(Protocol):
    """
    A protocol that keeps what it receives.

    @ivar data: the bytes received since L{taken} was called.
    @ivar lost: why the connection was lost, or C{None}.
    """

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert self.lost is None
        self.lost = reason

    def taken(self) -> bytes:
        """
        @return: the bytes received since the last call.
        """
        data, self.data = self.data, b""
        return data


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
