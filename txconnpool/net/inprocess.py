# -*- test-case-name: tests.net.test_inprocess -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Connections between a client and a server in one process, without sockets.

The server is a protocol factory, the client connects by an endpoint::

    endpoint = InProcessEndpoint(reactor, Factory.forProtocol(Echo))
    connected = endpoint.connect(clientFactory)

Both ends see transports that behave as Twisted's TCP transports do. All events come from C{reactor.callLater(0, ...)},
so on a L{Clock<twisted.internet.task.Clock>} they are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    NoProtocol,
)
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IProducer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.net.transport import HIGH_WATER

__all__ = ["InProcessAddress", "InProcessEndpoint"]

_log = Logger("txconnpool.net")


@implementer(IAddress)
@dataclass(frozen=True)
class InProcessAddress:
    """
    The address of both ends of an in-process connection.

    @ivar name: the name of the server; may be empty.
    """

    name: str = ""


@implementer(ITransport, IConsumer, IPushProducer)
class _Transport:
    """
    One end of an in-process connection.

    Written bytes arrive at the other end in the next turn of the reactor, in one piece, unless that end is paused.
    A protocol is never called from within its own call to the transport. At most one C{DelayedCall} is pending, and
    none when there is nothing to do.

    @ivar connected: whether C{connectionLost} has not been called yet.
    @ivar disconnecting: whether this end is closing: it receives nothing more, and the connection closes when all that
        it has written is delivered.
    """

    _peer: _Transport

    def __init__(
        self, reactor: IReactorTime, address: InProcessAddress, protocol: IProtocol, closed: Callable[[], object]
    ) -> None:
        """
        @param closed: called after the C{connectionLost} of C{protocol}.
        """
        self.connected = True
        self.disconnecting = False
        self._reactor = reactor
        self._address = address
        self._protocol = protocol
        self._closed = closed
        self._aborted = False
        self._reading = True
        self._written: list[bytes] = []
        self._unsent = 0
        self._turn: IDelayedCall | None = None
        self._producer: Any = None
        self._streaming = False
        self._producerPaused = False

    def getHost(self) -> InProcessAddress:
        return self._address

    def getPeer(self) -> InProcessAddress:
        return self._address

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"Data must be bytes, not {type(data).__name__}")
        if not self.connected or self._aborted or not data:
            return
        self._written.append(bytes(data))
        self._unsent += len(data)
        if self._unsent > HIGH_WATER and self._streaming and not self._producerPaused:
            self._producerPaused = True
            self._producer.pauseProducing()
        self._schedule()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._schedule()

    def abortConnection(self) -> None:
        self._aborted = self.disconnecting = True
        self._written.clear()
        self._schedule()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError(f"Cannot register producer {producer}: {self._producer} was never unregistered.")
        if not self.connected:
            producer.stopProducing()
            return
        self._producer, self._streaming, self._producerPaused = producer, streaming, False
        if not streaming:
            self._producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self._producer, self._streaming = None, False

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        self._reading = True
        self._peer._schedule()

    def stopProducing(self) -> None:
        self.loseConnection()

    def _schedule(self) -> None:
        due = (self._peer._reading or self._peer.disconnecting) if self._written else self.disconnecting
        if due and self.connected and self._turn is None:
            self._turn = self._reactor.callLater(0, self._takeTurn)

    def _takeTurn(self) -> None:
        self._turn = None
        peer = self._peer
        if self._written and (peer._reading or peer.disconnecting):
            data = b"".join(self._written)
            self._written.clear()
            self._unsent = 0
            if not peer.disconnecting and not peer._call(peer._protocol.dataReceived, data):
                peer.abortConnection()
        if self.disconnecting:
            if not self._written:
                self._close()
        elif self._producer is not None and not self._written and (self._producerPaused or not self._streaming):
            self._producerPaused = False
            self._call(self._producer.resumeProducing)

    def _call(self, function: Callable[..., object], *args: object) -> bool:
        """
        Call into the application, and log an exception: the other end must get its events in spite of it.

        @return: whether there was none.
        """
        try:
            function(*args)
        except Exception:
            _log.failure("unhandled error in {function}", function=function)
            return False
        return True

    def _close(self) -> None:
        for end in (self, self._peer):
            end.connected = False
            if end._turn is not None:
                end._turn.cancel()
        for end in (self, self._peer):
            if end._producer is not None:
                end._call(end._producer.stopProducing)
            error = ConnectionAborted if end._aborted else ConnectionLost if end._peer._aborted else ConnectionDone
            end._call(end._protocol.connectionLost, Failure(error()))
            end._call(end._closed)


@implementer(IStreamClientEndpoint)
class InProcessEndpoint:
    """
    Connects to a server in the same process.
    """

    def __init__(self, reactor: IReactorTime, server: IProtocolFactory, name: str = "") -> None:
        """
        @param server: builds the protocol of the server's end of each connection.
        @param name: the name in the address of both ends.
        """
        self._reactor = reactor
        self._server = server
        self._address = InProcessAddress(name)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect in the next turn of the reactor.

        @return: fires with the protocol, or fails with C{NoProtocol} if the factory builds none, or with the exception
            that the factory raises. It may be cancelled.
        """

        def cancel(connected: Deferred[IProtocol]) -> None:
            if call.active():
                call.cancel()
                protocolFactory.doStop()
            connected.errback(ConnectingCancelledError(self._address))

        connected: Deferred[IProtocol] = Deferred(cancel)
        protocolFactory.doStart()
        call = self._reactor.callLater(0, self.establish, protocolFactory, connected)
        return connected

    def serve(self) -> IProtocol:
        """
        Build the protocol of the server's end of a new connection.

        @raise AssertionError: the server's factory builds none.
        """
        protocol = self._server.buildProtocol(self._address)
        assert protocol is not None, "the factory of the server has no protocol for a connection"
        return protocol

    def establish(self, factory: IProtocolFactory, connected: Deferred[IProtocol]) -> None:
        """
        Make the connection that L{connect} was called for. Subclasses may delay or refuse it.

        @param factory: builds the protocol of the client; is stopped after the connection.
        @param connected: the result of L{connect}.
        """
        try:
            protocol = factory.buildProtocol(self._address)
            if protocol is None:
                raise NoProtocol()
        except Exception:
            factory.doStop()
            connected.errback()
            return
        server = self.serve()
        near = _Transport(self._reactor, self._address, protocol, factory.doStop)
        far = _Transport(self._reactor, self._address, server, lambda: None)
        near._peer, far._peer = far, near
        server.makeConnection(far)
        protocol.makeConnection(near)
        if connected.called:
            near.abortConnection()  # the protocol cancelled the connection from its connectionMade
        else:
            connected.callback(protocol)
