# -*- test-case-name: tests.net.test_adopt -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the functions of L{txconnpool.net.transport}.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    ITCPTransport,
    ITransport,
    IUNIXTransport,
)
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Server
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from tests.net.sockets import Sockets
from txconnpool.net import transport as transportModule
from txconnpool.net.transport import adopt, closeAfterFlush, peerOf, tune


class AdoptTests(Sockets):
    """
    What is not taken over.
    """

    def assertKept(self, transport: Any, reactor: object = None, direct: bool = True) -> None:
        """
        A protocol keeps the transport it has.
        """
        protocol = Protocol()
        protocol.transport = transport
        self.assertIs(adopt(protocol, reactor or self.reactor, direct), transport)

    def server(self, kind: Any = Server) -> Any:
        """
        @return: a transport that could be taken over.
        """
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        transport = kind(ours, Protocol(), ("", 0), None, 0, self.reactor)
        self.addCleanup(transport.connectionLost, Failure(ConnectionDone()))
        return transport

    def leaveNothing(self) -> None:
        """
        The transports close after this; only the waker is left to do here.
        """
        for waker in self.wakers:
            self.reactor.removeReader(waker)
            waker.connectionLost(None)

    def test_inMemory(self) -> None:
        """
        A transport without a socket is kept.
        """
        self.assertKept(StringTransport())

    def test_otherReactors(self) -> None:
        """
        Where the reactor watches no descriptors the transport is kept.
        """
        self.assertKept(self.server(), Clock())

    def test_unwanted(self) -> None:
        """
        Where nobody wants it the transport is kept: in one call, or everywhere.
        """
        transport = self.server()
        self.assertKept(transport, direct=False)
        self.patch(transportModule, "DIRECT", False)
        self.assertKept(transport)

    def test_encrypted(self) -> None:
        """
        A transport that encrypts is kept.
        """
        transport = self.server()
        transport.TLS = True
        self.assertKept(transport)

    def test_otherClasses(self) -> None:
        """
        A transport of a class that is not known is kept, as it may read and write in its own way.
        """

        class Counting(Server):
            pass

        self.assertKept(self.server(Counting))

    def test_alreadyWritten(self) -> None:
        """
        A transport that has bytes to send already is kept.
        """
        transport = self.server()
        transport.write(b"x")
        self.assertKept(transport)


class TuneTests(SynchronousTestCase):
    """
    Tests for L{tune}.
    """

    def test_tuned(self) -> None:
        """
        A transport of TCP is tuned, others are not: not even one of UNIX that says it is of TCP.
        """
        for interfaces, tuned in (((ITCPTransport,), 2), ((ITCPTransport, IUNIXTransport), 0), ((ITransport,), 0)):
            calls: list[bool] = []
            transport: Any = StringTransport()
            transport.setTcpNoDelay = transport.setTcpKeepAlive = calls.append
            directlyProvides(transport, *interfaces)
            tune(transport)
            self.assertEqual(calls, [True] * tuned)


class PeerTests(SynchronousTestCase):
    """
    Tests for L{peerOf}.
    """

    def test_written(self) -> None:
        """
        An address is written as in a URL; who comes by a UNIX socket has none.
        """
        for address, written in (
            (IPv4Address("TCP", "127.0.0.1", 7), "127.0.0.1:7"),
            (IPv6Address("TCP", "::1", 7), "[::1]:7"),
            (UNIXAddress(None), "unix"),
        ):
            self.assertEqual(peerOf(StringTransport(peerAddress=address)), written)


class PartTests(SynchronousTestCase):
    """
    Tests for L{part}.
    """

    def test_plain(self) -> None:
        """
        A transport without another one under it is asked to close, and no more.
        """
        transport = StringTransport()
        closeAfterFlush(transport)
        self.assertTrue(transport.disconnecting)

    def test_wrapping(self) -> None:
        """
        Of a transport that stands on another one, as TLS does, the producer is forgotten, and the one under it closes
        too, after it had its last words.
        """
        calls = []

        class Wrapping:
            transport = StringTransport()

            def unregisterProducer(self) -> None:
                calls.append("unregistered")

            def loseConnection(self) -> None:
                calls.append("closed")
                self.transport.write(b"goodbye")

        wrapping = Wrapping()
        closeAfterFlush(wrapping)
        self.assertEqual(calls, ["unregistered", "closed"])
        self.assertEqual((wrapping.transport.value(), wrapping.transport.disconnecting), (b"goodbye", True))
