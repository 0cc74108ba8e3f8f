# -*- test-case-name: tests.proxy -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Connections and servers in memory for tests. The test holds the far end: it decides when bytes arrive and in which
pieces, when the far end reads, and when the connection is lost.
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

#: A producer is paused while there are more unread bytes than this.
HIGH_WATER = 1 << 16


P = TypeVar("P", bound="Pipe")


@implementer(ITransport, IConsumer, IPushProducer)
class Pipe:
    """
    A connection. Its near end is the transport of a protocol, its far end is controlled by the test.

    As with a socket, C{connectionLost} is called in a later turn of the reactor than the call that causes it, bytes
    that arrive while the protocol is paused are kept, and a producer is paused while the far end has much to read.
    Unlike with a socket, bytes arrive in both directions within the call that sends them.

    @ivar reads: whether the far end reads bytes as soon as they arrive.
    @ivar reading: whether the protocol is not paused.
    @ivar connected: whether C{connectionLost} has not been called yet.
    @ivar closing: whether the protocol has closed or aborted the connection.
    @ivar aborted: whether the protocol has aborted the connection.
    @ivar halfClosed: whether the protocol has closed its direction.
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
        self.halfClosed = False
        self._received = bytearray()
        self._unread = bytearray()
        self._held = b""
        self._ended = False

    @property
    def received(self) -> bytes:
        """
        The bytes that the far end has read since the last L{take}.
        """
        return bytes(self._received)

    @property
    def unread(self) -> int:
        """
        The number of bytes that the far end has not read.
        """
        return len(self._unread)

    @property
    def unsent(self) -> int:
        """
        The same, as transports call it.
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
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        """
        Close when the far end has read everything and, as TLS does, when no producer is registered.
        """
        if self.connected and not self.closing:
            self.closing = True
            self.reading = False
            self._close()

    def loseWriteConnection(self) -> None:
        """
        Close this direction. The far end still sends.
        """
        assert self.connected and not self.closing
        self.halfClosed = True

    def _close(self) -> None:
        if self.closing and not self.aborted and not self.unread and self.producer is None:
            self.clock.callLater(0, self.lose, ConnectionDone())

    def abortConnection(self) -> None:
        if self.connected and not self.aborted:
            self.closing = self.aborted = True
            self.reading = False
            self._unread.clear()
            self.clock.callLater(0, self.lose, ConnectionAborted())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None and streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None
        self.paused = False
        self._close()

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        """
        Deliver the bytes that were kept, in a later turn.
        """
        if self.connected and not self.closing:
            self.reading = True
            self.clock.callLater(0, self.send, b"")

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 4321)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.2", 11212)

    # -- The far end

    def send(self, data: bytes, piece: int = 0) -> None:
        """
        Let bytes arrive at the protocol.

        @param piece: the length of the pieces in which they arrive; 0: all at once.
        """
        if piece:
            for start in range(0, len(data), piece):
                self.send(data[start : start + piece])
            return
        self._held += data
        if self.reading and self._held and self.connected:
            data, self._held = self._held, b""
            self.protocol.dataReceived(data)
        self._end()

    def read(self, size: int | None = None) -> int:
        """
        Read at the far end.

        @param size: the maximum number of bytes; C{None}: all.

        @return: the number of bytes read.
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
        @return: the bytes that the far end has read since the last call.
        """
        data = bytes(self._received)
        self._received.clear()
        return data

    def end(self) -> None:
        """
        Half-close the connection: the far end sends nothing more, and goes on reading. The protocol is notified when
        it has received all bytes.
        """
        self._ended = True
        self._end()

    def _end(self) -> None:
        if self._ended and self.reading and not self._held and self.connected and not self.closing:
            self._ended = False
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.readConnectionLost()
            else:
                self.lose(ConnectionDone())

    def lose(self, reason: Exception | None = None) -> None:
        """
        Lose the connection now.
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
    A push producer that records the calls of its consumer.

    @ivar onResume: called by L{resumeProducing}.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.onResume: Callable[[], object] = list

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        self.onResume()

    def stopProducing(self) -> None:
        self.calls.append("stop")


@implementer(IStreamClientEndpoint)
class Endpoint(Generic[P]):
    """
    A server in memory, as an endpoint. It connects within the call of L{connect}.

    @cvar kind: the class of its connections.
    @ivar mode: what happens to a dial: C{"accept"}, C{"refuse"}, C{"hang"}, or C{"raise"} for an exception of
        C{connect}.
    @ivar dials: the number of dials.
    @ivar hanging: the dials in progress.
    @ivar lines: all connections so far.
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
        The open connections.
        """
        return [line for line in self.lines if line.connected]

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
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
        Let the oldest hanging dial succeed.
        """
        factory, dial = self.hanging.pop(0)
        dial.callback(self._connected(factory))

    def refuse(self) -> None:
        """
        Let the oldest hanging dial fail.
        """
        _, dial = self.hanging.pop(0)
        dial.errback(ConnectionRefusedError())
