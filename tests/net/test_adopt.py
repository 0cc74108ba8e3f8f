# -*- test-case-name: tests.net.test_adopt -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the functions of L{txconnpool.net.transport}.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    ISystemHandle,
    ITCPTransport,
    ITransport,
    IUNIXTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Server
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface import directlyProvides

from tests.net.sockets import Sockets
from txconnpool.net import transport as transportModule
from txconnpool.net.transport import adopt, closeAfterFlush, endsOf, peerOf, tune


class AdoptTests(Sockets):
    """
    Tests for transports that L{adopt} does not take over.
    """

    def assertKept(self, transport: Any, reactor: object = None, direct: bool = True) -> None:
        """
        Assert that a protocol keeps its transport.
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
        Remove everything but the waker from the reactor. The transports are closed after this.
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
        If the reactor does not watch descriptors, the transport is kept.
        """
        self.assertKept(self.server(), Clock())

    def test_unwanted(self) -> None:
        """
        If taking over is disabled, for one call or globally, the transport is kept.
        """
        transport = self.server()
        self.assertKept(transport, direct=False)
        self.patch(transportModule, "DIRECT", False)
        self.assertKept(transport)

    def test_encrypted(self) -> None:
        """
        A transport with TLS is kept.
        """
        transport = self.server()
        transport.TLS = True
        self.assertKept(transport)

    def test_otherClasses(self) -> None:
        """
        A transport of another class is kept, because it may read and write in its own way.
        """

        class Counting(Server):
            pass

        self.assertKept(self.server(Counting))

    def test_alreadyWritten(self) -> None:
        """
        A transport with unsent bytes is kept.
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
        The options of a TCP transport are set, those of others are not, not even if a UNIX transport claims to provide
        C{ITCPTransport}.
        """
        for interfaces, tuned in (((ITCPTransport,), 2), ((ITCPTransport, IUNIXTransport), 0), ((ITransport,), 0)):
            calls: list[bool] = []
            transport: Any = StringTransport()
            transport.setTcpNoDelay = transport.setTcpKeepAlive = calls.append
            directlyProvides(transport, *interfaces)
            tune(transport)
            self.assertEqual(calls, [True] * tuned)

    def test_keepAlive(self) -> None:
        """
        An idle TCP connection is probed after a minute, also below TLS, and closed after another without an answer.
        """
        if not hasattr(socket, "TCP_KEEPIDLE"):
            raise SkipTest("the platform has no such option")
        for wrapped in False, True:
            connection = socket.socket()
            self.addCleanup(connection.close)
            transport: Any = StringTransport()
            transport.getHandle = lambda connection=connection: connection
            transport.setTcpNoDelay = lambda enabled: None
            transport.setTcpKeepAlive = partial(connection.setsockopt, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            directlyProvides(transport, ITCPTransport, ISystemHandle)
            if wrapped:
                wrapper = ProtocolWrapper(WrappingFactory(Factory.forProtocol(Protocol)), Protocol())
                wrapper.makeConnection(transport)
                transport = wrapper
            tune(transport)
            self.assertTrue(connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            idle, interval, probes = (
                connection.getsockopt(socket.IPPROTO_TCP, name)
                for name in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            self.assertEqual((idle, interval * probes), (60, 60))


class PeerTests(SynchronousTestCase):
    """
    Tests for L{peerOf} and L{endsOf}.
    """

    def test_written(self) -> None:
        """
        An address has the form of a URL's host and port. A UNIX socket has no address.
        """
        for address, written in (
            (IPv4Address("TCP", "127.0.0.1", 7), "127.0.0.1:7"),
            (IPv6Address("TCP", "::1", 7), "[::1]:7"),
            (UNIXAddress(None), "unix"),
        ):
            self.assertEqual(peerOf(StringTransport(peerAddress=address)), written)

    def test_ends(self) -> None:
        """
        Both addresses have this form. Those of a UNIX socket are its path, as in Redis.
        """
        for here, peer, written in (
            (IPv4Address("TCP", "1.2.3.4", 6), IPv6Address("TCP", "::1", 7), ("[::1]:7", "1.2.3.4:6")),
            (UNIXAddress(b"/run/a"), UNIXAddress(None), ("/run/a:0", "/run/a:0")),
            (UNIXAddress(None), UNIXAddress(None), (":0", ":0")),
        ):
            self.assertEqual(endsOf(StringTransport(hostAddress=here, peerAddress=peer)), written)


class CloseAfterFlushTests(SynchronousTestCase):
    """
    Tests for L{closeAfterFlush}.
    """

    def test_plain(self) -> None:
        """
        A plain transport is closed by C{loseConnection}, and nothing else is called.
        """
        transport = StringTransport()
        closeAfterFlush(transport)
        self.assertTrue(transport.disconnecting)

    def test_wrapping(self) -> None:
        """
        For a transport on top of another one, as with TLS, the producer is unregistered, and the underlying transport
        is closed after the last bytes.
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
