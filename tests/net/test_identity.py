# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.identity}.
"""

from __future__ import annotations

from typing import Any, cast
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.test.iosim import FakeTransport, connect
from zope.interface import implementer

from tests.certificates import Certificate, quoted
from tests.net.tlscase import TLSTestCase
from txconnpool.net.endpoints import clientEndpoint
from txconnpool.net.identity import _PendingConnection
from txconnpool.net.reasons import describe

SECRET = b"set auth 0 0 13\r\nuser password\r\n"


class Quiet(Factory):
    """
    A factory that does not log.
    """

    noisy = False


class Greeter(Protocol):
    """
    A client that sends a password as soon as it is connected.
    """

    def connectionMade(self) -> None:
        """
        Send the password.
        """
        assert self.transport is not None
        self.transport.write(SECRET)


class Receiver(Protocol):
    """
    A server that collects what it receives.
    """

    def __init__(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        """
        Collect bytes.
        """
        self.received += data


class IdentityTests(TLSTestCase):
    """
    Tests for L{connectVerified<txconnpool.net.identity.connectVerified>} as endpoint strings of all kinds use it.
    """

    def setUp(self) -> None:
        """
        Trust an authority.
        """
        super().setUp()
        self.trusted = self.made("trusted")
        (self.trusted / "authority.pem").write_bytes(self.authority.certificate.read_bytes())
        self.reactor = MemoryReactorClock()
        # TLS delays small writes to the next turn of the real reactor otherwise.
        clock = mock.patch("twisted.protocols.tls._get_default_clock", lambda: self.reactor)
        clock.start()
        self.addCleanup(clock.stop)

    def dial(self, host: str, inner: str, certificate: Certificate) -> tuple[Deferred[Any], Receiver, Any]:
        """
        Connect to a server that has a certificate, and let both sides exchange all that they have.

        @param host: the host of the endpoint string.
        @param inner: the address of its argument C{endpoint=}.
        """
        from OpenSSL.crypto import FILETYPE_PEM, load_certificate, load_privatekey
        from twisted.internet.ssl import CertificateOptions
        from twisted.protocols.tls import TLSMemoryBIOFactory

        trusted, inner = quoted(self.trusted), inner.replace(":", r"\:")
        endpoint = clientEndpoint(self.reactor, f"tls:{host}:1:trustRoots={trusted}:endpoint={inner}")
        connecting = endpoint.connect(Quiet.forProtocol(Greeter))
        dials: Any = self.reactor.tcpClients or self.reactor.unixClients
        (dialed,) = (each[2 if self.reactor.tcpClients else 1] for each in dials)
        options = CertificateOptions(
            load_privatekey(FILETYPE_PEM, certificate.key.read_bytes()),
            load_certificate(FILETYPE_PEM, certificate.certificate.read_bytes()),
        )
        receiver = Receiver()
        serving = Quiet()
        serving.buildProtocol = lambda addr: receiver  # type: ignore[method-assign]
        server = TLSMemoryBIOFactory(options, False, serving).buildProtocol(None)
        dialed.doStart()
        client = dialed.buildProtocol(None)
        ends = FakeTransport(server, isServer=True), FakeTransport(client, isServer=False)
        pump = connect(server, ends[0], client, ends[1], greet=False)
        for _ in range(10):
            pump.pump()
            self.reactor.advance(0)
        return connecting, receiver, client

    def refused(self, host: str, inner: str, certificate: Certificate) -> str:
        """
        Assert that a server is refused, and that it receives nothing.

        @return: the reason.
        """
        connecting, receiver, client = self.dial(host, inner, certificate)
        failure = self.failureResultOf(connecting)
        self.assertEqual(receiver.received, b"")
        self.assertTrue(client.transport.disconnecting or client.transport.disconnected)
        self.flushLoggedErrors()  # of Twisted, about the certificate
        return describe(failure.value)

    def test_right(self) -> None:
        """
        A server whose certificate is for the host gets the bytes of the client.
        """
        for host in "host", "127.0.0.1", r"\:\:1":
            name = host.replace("\\", "")
            certificate = Certificate(self.directory, name, self.authority)
            for inner in "tcp:10.0.0.1:11211", "unix:/run/cache":
                self.reactor = MemoryReactorClock()
                connecting, receiver, _ = self.dial(host, inner, certificate)
                self.assertIsInstance(self.successResultOf(connecting), Greeter, host)
                self.assertEqual(receiver.received, SECRET)

    def test_wrongHost(self) -> None:
        """
        A server whose certificate is for another host is refused.
        """
        for host in "other", "host.example", "127.0.0.1":
            for inner in "tcp:10.0.0.1:11211", "unix:/run/cache":
                self.reactor = MemoryReactorClock()
                self.assertEqual(self.refused(host, inner, self.host), "TLS: the certificate is for another host")

    def test_noName(self) -> None:
        """
        A server whose certificate has no C{subjectAltName} is refused, also if its common name is that of the host.
        """
        for host in "host", "127.0.0.1":
            nameless = Certificate(self.directory, host, self.authority, named=False)
            for inner in "tcp:10.0.0.1:11211", "unix:/run/cache":
                self.reactor = MemoryReactorClock()
                text = "TLS: the certificate is for no host: it has no subjectAltName"
                self.assertEqual(self.refused(host, inner, nameless), text)

    def test_otherAuthority(self) -> None:
        """
        A server whose certificate is from an unknown authority is refused.
        """
        other = Certificate(self.directory, "other", authority=True)
        text = self.refused("host", "tcp:10.0.0.1:11211", Certificate(self.directory, "host", other))
        self.assertIn("certificate verify failed", text)

    def start(self) -> tuple[Deferred[Any], Any]:
        """
        Connect to a server that does not answer in the handshake.

        @return: what the endpoint returns, and the transport of the connection.
        """
        trusted = quoted(self.trusted)
        inner = r"tcp\:10.0.0.1\:1"
        endpoint = clientEndpoint(self.reactor, f"tls:host:1:trustRoots={trusted}:endpoint={inner}")
        connecting = endpoint.connect(Quiet.forProtocol(Greeter))
        client = cast(Any, self.reactor.tcpClients[0][2]).buildProtocol(None)
        transport = FakeTransport(client, isServer=False)
        client.makeConnection(transport)
        return connecting, transport

    def test_lost(self) -> None:
        """
        A connection that is lost during the handshake is a failed connection.
        """
        connecting, transport = self.start()
        transport.reportDisconnect()
        self.failureResultOf(connecting)

    def test_cancelled(self) -> None:
        """
        A connection that is cancelled during the handshake is closed.
        """
        connecting, transport = self.start()
        connecting.cancel()
        self.assertTrue(transport.disconnecting or transport.disconnected or transport.aborting)
        self.failureResultOf(connecting, CancelledError, ConnectionLost)

    def test_cancelledBefore(self) -> None:
        """
        A connection can be cancelled before it exists.
        """
        trusted = quoted(self.trusted)
        endpoint = clientEndpoint(self.reactor, f"tls:host:1:trustRoots={trusted}:endpoint=tcp\\:10.0.0.1\\:1")
        connecting = endpoint.connect(Quiet.forProtocol(Greeter))
        connecting.cancel()
        self.failureResultOf(connecting)

    def test_notWanted(self) -> None:
        """
        A connection for which the factory has no protocol any more is closed, and is a failed one.
        """
        self.patch(Quiet, "buildProtocol", lambda self, addr: None)
        certificate = Certificate(self.directory, "host", self.authority)
        self.assertEqual(self.refused("host", "tcp:10.0.0.1:11211", certificate), "connection lost")

    def test_handshakeListener(self) -> None:
        """
        A protocol that wants to know when the handshake is complete is notified after it is connected.
        """
        happened: list[str] = []

        @implementer(IHandshakeListener)
        class Listener(Protocol):
            """
            Records what happens.
            """

            def connectionMade(self) -> None:
                happened.append("made")

            def handshakeCompleted(self) -> None:
                happened.append("completed")

        self.patch(Quiet, "buildProtocol", lambda self, addr: Listener())
        connecting, _, _ = self.dial("host", "tcp:10.0.0.1:11211", Certificate(self.directory, "host", self.authority))
        self.assertIsInstance(self.successResultOf(connecting), Listener)
        self.assertEqual(happened, ["made", "completed"])

    def test_factory(self) -> None:
        """
        The factory is started when the endpoint dials, and stopped when the connection has ended.
        """
        happened: list[str] = []
        self.patch(Quiet, "startFactory", lambda self: happened.append("start"))
        self.patch(Quiet, "stopFactory", lambda self: happened.append("stop"))
        factory = _PendingConnection("host", Quiet())
        factory.doStart()
        factory.doStop()
        self.assertEqual(happened, ["start", "stop"])
