# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.listening}.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.systemd import ListenFDs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.certificates import quoted
from tests.net.tlscase import Named, TLSTestCase
from txconnpool.net.listening import Listener, describeListenError, withBacklog, withoutEndpointArgument
from txconnpool.net.tls import CannotUse


class ListenerTests(SynchronousTestCase):
    """
    Tests for L{Listener} without TLS.
    """

    def test_plain(self) -> None:
        """
        Without certificates, the given factory listens itself, at the address in the string.
        """
        reactor, factory = MemoryReactorClock(), Named()
        for description in ("tcp:1234:interface=127.0.0.1:backlog=77", "unix:/run/x:mode=600"):
            listener = Listener(reactor, description)
            verifyObject(IStreamServerEndpoint, listener)
            self.successResultOf(listener.listen(factory))
            self.assertIsNone(listener.read())
        self.assertEqual(reactor.tcpServers, [(1234, factory, 77, "127.0.0.1")])
        self.assertEqual([(server[0], server[1], server[3]) for server in reactor.unixServers],
                         [("/run/x", factory, 0o600)])  # fmt: skip

    def test_adopted(self) -> None:
        """
        A socket that systemd has opened can be used.
        """
        adopted: list[Any] = []

        class Reactor(MemoryReactorClock):
            def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> str:
                adopted.append((addressFamily, factory))
                return "port"

        reactor, factory = Reactor(), Named()
        with socket.socket() as server:
            given = ListenFDs([os.dup(server.fileno())])
            with mock.patch("twisted.plugins.twisted_core.systemdEndpointParser._sddaemon", given):
                port = self.successResultOf(Listener(reactor, "systemd:domain=INET:index=0").listen(factory))
        self.assertEqual((port, adopted), ("port", [(socket.AF_INET, factory)]))

    def test_adoptedFile(self) -> None:
        """
        The file of a UNIX socket that systemd has opened remains when the port stops, because systemd still listens on
        it.
        """
        from twisted.internet import reactor

        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = str(Path(directory.name) / "socket")
        factory = Named()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()
            given = ListenFDs([os.dup(server.fileno())])
            with mock.patch("twisted.plugins.twisted_core.systemdEndpointParser._sddaemon", given):
                port: Any = self.successResultOf(Listener(reactor, "systemd:domain=UNIX:index=0").listen(factory))
            number = port.fileno()
            self.assertEqual((os.fsdecode(port.getHost().name), factory.numPorts), (path, 1))
            port.stopListening()
            self.assertEqual(factory.numPorts, 0)
            self.assertRaises(OSError, os.fstat, number)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)

    def test_notAdopted(self) -> None:
        """
        The error for a missing socket of systemd has advice.
        """
        for where in ("index=0", "name=x"):
            listener = Listener(MemoryReactorClock(), f"systemd:domain=INET:{where}")
            failure = self.failureResultOf(listener.listen(Named()), CannotUse)
            self.assertEqual(str(failure.value), "systemd gave this process no such socket; see connpool.socket")

    def test_wrong(self) -> None:
        """
        The errors of Twisted for invalid strings are not replaced.
        """
        for description in ("smtp:x", "tcp:x", "tcp", "unix:/x:mode=abc"):
            error = self.assertRaises((ValueError, TypeError), Listener, MemoryReactorClock(), description)
            self.assertNotIsInstance(error, CannotUse)


class CrashTests(SynchronousTestCase):
    """
    Tests for UNIX sockets that a process has left behind in a crash.
    """

    def setUp(self) -> None:
        """
        Choose a path that is short enough for a socket.
        """
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "socket"

    def left(self) -> list[str]:
        """
        Listen.

        @return: the files that existed before and still exist.
        """
        reactor = MemoryReactorClock()
        self.successResultOf(Listener(reactor, f"unix:{self.path}").listen(Named()))
        ((_, _, _, _, wantPID),) = reactor.unixServers
        self.assertFalse(wantPID)
        return [self.path.name] if self.path.exists() or self.path.is_symlink() else []

    def bind(self, listen: bool = False) -> None:
        """
        Create the socket as that of a process that has crashed, or of one that listens.
        """
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        server.bind(str(self.path))
        if listen:
            server.listen()
        else:
            server.close()

    def test_crashed(self) -> None:
        """
        A socket on which no process listens is removed.
        """
        self.bind()
        self.assertEqual(self.left(), [])

    def test_alive(self) -> None:
        """
        A socket on which a process listens is kept.
        """
        self.bind(listen=True)
        self.assertEqual(self.left(), ["socket"])

    def test_process(self) -> None:
        """
        The error about a socket on which a process listens names the process.
        """
        self.bind(listen=True)
        taken = OSError(errno.EADDRINUSE, "Address already in use")
        for error, words in (
            (CannotListenError(None, str(self.path), taken), f"process {os.getpid()} listens there"),
            (CannotListenError(None, f"{self.path}2", taken), "Address already in use"),
        ):
            self.assertEqual(describeListenError(error), f"{error.port}: {words}")

    def test_noLock(self) -> None:
        """
        A lock beside the socket, which anybody may have made, does not prevent listening. No lock is made.
        """
        lock = Path(f"{self.path}.lock")
        lock.symlink_to("1")
        self.assertEqual(self.left(), [])
        self.assertTrue(lock.is_symlink())

    def test_noSocket(self) -> None:
        """
        A file that is not a socket is kept, and so is a link, wherever it leads.
        """
        self.path.write_text("precious", "ascii")
        self.assertEqual(self.left(), ["socket"])
        self.path.rename(f"{self.path}2")
        self.bind()
        self.path.rename(f"{self.path}3")
        self.path.symlink_to(f"{self.path}3")
        self.assertEqual(self.left(), ["socket"])


class TLSListenerTests(TLSTestCase):
    """
    Tests for L{Listener} with TLS.
    """

    def listen(self, description: str) -> tuple[Listener, Any]:
        """
        @return: a listener, and the factory that listens.
        """
        reactor = MemoryReactorClock()
        self.factory = Named()
        listener = Listener(reactor, description)
        self.successResultOf(listener.listen(self.factory))
        ((port, factory, backlog, interface),) = reactor.tcpServers
        self.assertEqual((port, backlog, interface), (1234, 77, "127.0.0.1"))
        return listener, factory

    def test_exchanged(self) -> None:
        """
        New certificates are used for new connections, and the port stays open.
        """
        address = IPv4Address("TCP", "127.0.0.1", 1)
        listener, door = self.listen(self.server("backlog=77"))
        first = door.buildProtocol(address)
        self.assertIsInstance(first.wrappedProtocol, Protocol)
        self.assertEqual(door.logPrefix(), "named (TLS)")
        door.doStart()
        fresh = listener.read()
        self.assertIs(door.buildProtocol(address).factory, first.factory)
        listener.use(fresh)
        second = door.buildProtocol(address)
        self.assertIsNot(second.factory, first.factory)
        self.assertIs(second.wrappedProtocol.factory, self.factory)
        self.assertEqual(self.factory.numPorts, 1)
        door.doStop()
        self.assertEqual(self.factory.numPorts, 0)

    def test_under(self) -> None:
        """
        With the argument C{endpoint}, the listener uses TLS on that endpoint.
        """
        reactor = MemoryReactorClock()
        listener = Listener(reactor, self.server(r"endpoint=unix\:/run/x\:mode=600"))
        self.successResultOf(listener.listen(Named()))
        ((address, door, _, mode, _),) = reactor.unixServers
        self.assertEqual((address, mode, reactor.tcpServers), ("/run/x", 0o600, []))
        first = door.buildProtocol(None).factory
        self.assertEqual(door.logPrefix(), "named (TLS)")
        listener.use(listener.read())
        self.assertIsNot(door.buildProtocol(None).factory, first)

    def test_wrongUnder(self) -> None:
        """
        Errors of the argument C{endpoint} are reported.
        """
        wrong = self.server(r"endpoint=systemd\:domain=INET\:index=0")
        failure = self.failureResultOf(Listener(MemoryReactorClock(), wrong).listen(Named()), CannotUse)
        self.assertEqual(str(failure.value), "systemd gave this process no such socket; see connpool.socket")
        self.assertEqual(withoutEndpointArgument(wrong), self.server())
        self.assertEqual(withoutEndpointArgument("tcp:endpoint=x"), "tcp:endpoint=x")
        self.assertRaises(ValueError, Listener, MemoryReactorClock(), self.server("endpoint=smtp"))

    def test_notListening(self) -> None:
        """
        C{use} has no effect before the listener listens.
        """
        listener = Listener(MemoryReactorClock(), self.server())
        listener.use(listener.read())

    def test_unreadable(self) -> None:
        """
        Certificates that cannot be read change nothing.
        """
        listener, door = self.listen(self.server("backlog=77"))
        first = door.buildProtocol(None).factory
        self.host.key.unlink()
        self.assertRaises(CannotUse, listener.read)
        self.assertIs(door.buildProtocol(None).factory, first)

    def test_clientCertificates(self) -> None:
        """
        With a directory of authorities, clients must have a certificate.
        """
        from OpenSSL import SSL

        trusted = self.made("trusted")
        (trusted / "authority.PEM").write_bytes(self.authority.certificate.read_bytes() * 2)
        (trusted / "README").write_text("no certificate", "ascii")
        required = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        for arguments, mode in (([f"caCertsDir={quoted(trusted)}"], required), ([], SSL.VERIFY_NONE)):
            _, door = self.listen(self.server("backlog=77", *arguments))
            protocol = door.buildProtocol(None)
            protocol.makeConnection(StringTransport())
            self.assertEqual(protocol.getHandle().get_context().get_verify_mode(), mode)


class HelperTests(SynchronousTestCase):
    """
    Tests for L{withBacklog} and L{describeListenError}.
    """

    def test_backlog(self) -> None:
        """
        Listeners get a long queue, unless the string has a backlog, or its type has no such argument.
        """
        for description, expected in (
            ("tcp:1", "tcp:1:backlog=1024"),
            ("unix:/x:mode=600", "unix:/x:mode=600:backlog=1024"),
            ("tcp:1:backlog=5", "tcp:1:backlog=5"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
        ):
            self.assertEqual(withBacklog(description), expected)

    def test_otherProblems(self) -> None:
        """
        C{describeListenError} returns C{None} for other exceptions.
        """
        for error in (ZeroDivisionError(), OSError(24, "Too many open files")):
            self.assertIsNone(describeListenError(error))
