# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.discovery.exchanges}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.net.discovery.udpserver import PATIENCE, UDPServer, read
from txconnpool.net.discovery.exchanges import overTCP, overUDP


def decode(data: bytes) -> bytes | None:
    """
    Decode a reply that ends with a period. An exclamation mark is an error.
    """
    if b"!" in data:
        raise ValueError("wrong reply")
    return data if data.endswith(b".") else None


class UDPTests(SynchronousTestCase):
    """
    Tests for L{overUDP}.
    """

    def setUp(self) -> None:
        """
        Send a request to a server.
        """
        self.reactor = MemoryReactorClock()
        self.server = UDPServer()
        self.addCleanup(self.server.close)
        self.exchange = overUDP(self.reactor, self.server.address, b"request", decode)
        [self.reader] = self.reactor.readers

    def test_reply(self) -> None:
        """
        The first reply that can be decoded is the result, and the socket is closed.
        """
        verifyObject(IReadDescriptor, self.reader)
        self.assertEqual(self.server.receive(), b"request")
        self.server.send(self.reactor, b"late answer to another")
        read(self.reactor)  # there is nothing to read
        self.assertNoResult(self.exchange)
        self.server.send(self.reactor, b"reply.")
        self.assertEqual(self.successResultOf(self.exchange), b"reply.")
        self.assertEqual((self.reactor.readers, self.reader.fileno()), (set(), -1))

    def test_wrong(self) -> None:
        """
        A wrong reply is a failure, and the socket is closed.
        """
        self.server.receive()
        self.server.send(self.reactor, b"!")
        self.failureResultOf(self.exchange, ValueError)
        self.assertEqual((self.reactor.readers, self.reader.fileno()), (set(), -1))

    def test_stranger(self) -> None:
        """
        Datagrams from others are not received.
        """
        stranger = UDPServer()
        self.addCleanup(stranger.close)
        self.server.receive()
        stranger._socket.sendto(b"forged.", self.server._client)
        read(self.reactor)
        self.assertNoResult(self.exchange)
        self.exchange.addErrback(lambda failure: None).cancel()

    def test_refused(self) -> None:
        """
        A server that does not listen is a failure.
        """
        self.exchange.addErrback(lambda failure: None).cancel()
        self.server.close()
        exchange = overUDP(self.reactor, self.server.address, b"request", decode)
        read(self.reactor, PATIENCE)
        self.failureResultOf(exchange, ConnectionRefusedError)
        self.assertEqual(self.reactor.readers, set())

    def test_unreachable(self) -> None:
        """
        An error of the socket is a failure.
        """
        self.exchange.addErrback(lambda failure: None).cancel()
        self.failureResultOf(overUDP(self.reactor, ("255.255.255.255", 53), b"request", decode), OSError)
        self.assertEqual(self.reactor.readers, set())

    def test_cancel(self) -> None:
        """
        Cancelling closes the socket at once.
        """
        self.exchange.cancel()
        self.failureResultOf(self.exchange, CancelledError)
        self.assertEqual((self.reactor.readers, self.reader.fileno()), (set(), -1))

    def test_reactorStops(self) -> None:
        """
        The exchange fails when the reactor ends it. Again does nothing.
        """
        for _ in range(2):
            self.reader.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(self.exchange, ConnectionLost)
        self.assertEqual(self.reader.fileno(), -1)


class TCPTests(SynchronousTestCase):
    """
    Tests for L{overTCP}.
    """

    def setUp(self) -> None:
        """
        Begin an exchange.
        """
        self.reactor = MemoryReactorClock()
        self.exchange: Deferred[Any] = overTCP(TCP4ClientEndpoint(self.reactor, "h", 1), b"request", decode, 10)
        self.transport = StringTransport()
        self.aborted = 0

    def connect(self) -> Any:
        """
        Establish the connection.
        """
        protocol: Any = self.reactor.tcpClients[0][2].buildProtocol(None)
        self.patch(self.transport, "abortConnection", self.abort)
        protocol.makeConnection(self.transport)
        self.assertEqual(self.transport.value(), b"request")
        return protocol

    def abort(self) -> None:
        self.aborted += 1

    def test_reply(self) -> None:
        """
        The reply may come in pieces. Then the connection is closed.
        """
        protocol = self.connect()
        for piece in (b"a", b"b"):
            protocol.dataReceived(piece)
            self.assertNoResult(self.exchange)
        protocol.dataReceived(b".")
        self.assertEqual((self.successResultOf(self.exchange), self.aborted), (b"ab.", 1))
        protocol.dataReceived(b"more")
        protocol.connectionLost(Failure(ConnectionLost()))

    def test_wrong(self) -> None:
        """
        A wrong reply is a failure, as one that is too long.
        """
        for data, text in ((b"!", "wrong reply"), (b"x" * 11, "a reply of more than 10 bytes")):
            self.setUp()
            self.connect().dataReceived(data)
            self.assertEqual(str(self.failureResultOf(self.exchange, ValueError).value), text)
            self.assertEqual(self.aborted, 1)

    def test_lost(self) -> None:
        """
        The end of the connection is a failure.
        """
        self.connect().connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(self.exchange, ConnectionLost)

    def test_cancel(self) -> None:
        """
        Cancelling ends the dial or the connection.
        """
        self.exchange.cancel()
        self.failureResultOf(self.exchange, CancelledError)
        self.setUp()
        self.connect()
        self.exchange.cancel()
        self.failureResultOf(self.exchange, CancelledError)
        self.assertEqual(self.aborted, 1)
