# Copyright txconnpool contributors. See LICENSE.
"""
Attacks on the ports for clients, on the connections to servers, and on the processes. Attacks on the commands, on the
statistics and on the console are in the modules beside this one.
"""

from __future__ import annotations

import re
import socket
import ssl
import tempfile
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Certificate, missingTLS, quoted
from tests.real.attacks import ATTACKERS, Attacker, SecurityTestCase
from tests.real.servers import HOST, PATIENCE, Address, Proxy, ask, connect, exchange, freePort, serverEndpoint, until
from tests.wire.memcache.test_auth import LOGIN, WRONG

#: The largest number of logins per second that a single address can try while its earlier ones fail.
GUESSES = 60

MAX_CLIENTS = 50
LOGIN_TIMEOUT = 3.0


class Safe(Proxy):
    """
    A proxy that imports nothing from its current directory, as an installed C{twistd} does.
    """

    def command(self) -> list[str]:
        """
        Add the option C{-P} of Python.
        """
        python, *rest = super().command()
        return [python, "-P", *rest]


class TwoPools(Safe):
    """
    A proxy with an open pool, for an innocent client, and one for which clients have to log in, also over TLS.
    """

    def __init__(self, host: Certificate | None) -> None:
        super().__init__()
        self.closed: Address = (HOST, freePort())
        self.secure: Address = (HOST, freePort())
        self._host = host

    def command(self) -> list[str]:
        """
        Write the ini file, and name no other address.
        """
        users = self.directory / "users"
        users.write_text("joe:secret\n")
        users.chmod(0o600)
        tls = ""
        if self._host is not None:
            tls = (
                f"[pool:secure]\nupstream = memory:\nmax-clients = {MAX_CLIENTS}\nlogin-timeout = {LOGIN_TIMEOUT}\n"
                f"listen = ssl:{self.secure[1]}:interface={HOST}:privateKey={self._host.key}"
                f":certKey={self._host.certificate}\n"
            )
        ini = self.directory / "connpool.ini"
        ini.write_text(
            f"[pool:open]\nupstream = memory:\nlisten = {serverEndpoint(self.address)}\nmax-clients-per-address = 30\n"
            f"[pool:closed]\nupstream = memory:\nlisten = {serverEndpoint(self.closed)}\nlisten-auth = file:{users}\n"
            f"max-clients = {MAX_CLIENTS}\nlogin-timeout = {LOGIN_TIMEOUT}\n{tls}"
        )
        return [self.python, "-P", *super(Proxy, self).command()[1:], "--config", str(ini)]


class ClientsTests(SecurityTestCase):
    """
    Tests for clients that do not log in, or guess passwords.
    """

    proxy: TwoPools

    def newProxy(self) -> TwoPools:
        """
        @return: a proxy with certificates.
        """
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.host = None if missingTLS else Certificate(Path(directory.name), HOST)
        return TwoPools(self.host)

    def loggedIn(self, request: bytes = b"get a\r\n", end: bytes = b"END\r\n") -> bytes:
        """
        Log in from an address from which nobody attacks.

        @return: the reply to a request after the login.
        """
        assert isinstance(self.proxy.closed, tuple)
        with socket.create_connection(self.proxy.closed, PATIENCE, ("127.0.0.9", 0)) as client:
            return exchange(client, LOGIN + request, end)

    def test_guesses(self) -> None:
        """
        Attackers guess passwords as fast as they can, several in each packet. They are slowed down, and the log has few
        lines about it. A client with another address logs in at once.
        """
        attackers = [Attacker(self.proxy.closed, WRONG * 50, WRONG * 50, reads=True) for _ in range(ATTACKERS)]
        began = time.monotonic()
        self.attack(*attackers, meanwhile=self.loggedIn)
        attempts = int(self.loggedIn(b"stats proxy\r\n").split(b"STAT auth_errors ")[1].split(b"\r\n")[0])
        lines = self.proxy.log.count("failed logins")
        elapsed = time.monotonic() - began
        self.assertLess(attempts, GUESSES * elapsed)
        self.assertLessEqual(lines, 1 + elapsed / 10)
        self.assertIn("failed logins, the last from 127.0.0.1", self.proxy.log)

    def test_silent(self) -> None:
        """
        Many more connections than C{max-clients} that do nothing keep nobody out, and are closed soon.
        """
        idle = self.descriptors()
        for _ in range(3 * MAX_CLIENTS):
            self.addCleanup(connect(self.proxy.closed).close)
        self.assertEqual(self.loggedIn(), b"STORED\r\nEND\r\n")
        self.attack(*(Attacker(self.proxy.closed) for _ in range(ATTACKERS)), meanwhile=self.loggedIn)
        until(lambda: self.descriptors() <= idle + 2 * ATTACKERS, what="the end of the connections")

    def test_noHandshake(self) -> None:
        """
        The same with connections that do not begin a TLS handshake, or stop in the middle of it.
        """
        if self.host is None:
            self.skipTest(str(missingTLS))
        idle = self.descriptors()
        for number in range(3 * MAX_CLIENTS):
            attacker = connect(self.proxy.secure)
            self.addCleanup(attacker.close)
            if number % 2:
                attacker.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        context = ssl.create_default_context(cafile=str(self.host.certificate))
        for _ in range(3):
            with context.wrap_socket(connect(self.proxy.secure), server_hostname=HOST) as client:
                self.assertEqual(exchange(client, b"get a\r\n", b"END\r\n"), b"END\r\n")
        self.attack(*(Attacker(self.proxy.secure, b"\x16\x03\x01") for _ in range(ATTACKERS)))
        until(lambda: self.descriptors() <= idle + 2 * ATTACKERS, what="the end of the connections")
        self.assertNotIn("Traceback", self.proxy.log)

    def test_flood(self) -> None:
        """
        Attackers send requests without logging in, and read nothing.
        """
        self.attack(*(Attacker(self.proxy.closed, b"", b"get a\r\n" * 9000) for _ in range(ATTACKERS)))
        self.assertEqual(self.loggedIn(), b"STORED\r\nEND\r\n")

    def test_perAddress(self) -> None:
        """
        One address cannot take all places for clients.
        """
        taken = [connect(self.proxy.address) for _ in range(40)]
        for each in taken:
            self.addCleanup(each.close)
        replies = [exchange(each, b"get a\r\n", b"\r\n") for each in taken[-5:]]
        self.assertEqual(replies, [b"ERROR Too many open connections\r\n"] * 5)
        assert isinstance(self.proxy.address, tuple)
        with socket.create_connection(self.proxy.address, PATIENCE, ("127.0.0.9", 0)) as client:
            self.assertEqual(exchange(client, b"get zzz\r\n", b"END\r\n"), b"END\r\n")

    def test_log(self) -> None:
        """
        Nothing that a client sends gets into the log: no line of its own, no control character, no placeholder.
        """
        evil = b"{log_source} \x1b[2J\x07 FORGED\rFORGED"
        for address in self.proxy.address, self.proxy.closed:
            for data in (b"get " + evil + b"\r\n", b"set x 0 0 %d\r\n%s\r\n" % (len(evil), evil), evil + b"\n"):
                ask(address, data)
        self.loggedIn(b"get %s\r\n" % evil, b"\r\n")
        self.proxy.stop()
        self.assertNotIn("FORGED", self.proxy.log)
        self.assertNotRegex(self.proxy.log, "[\x00-\x09\x0b-\x1f\x7f]")
        self.assertNotIn("Traceback", self.proxy.log)

    def test_others(self) -> None:
        """
        A client does not learn the addresses of others.
        """
        with connect(self.proxy.address) as other:
            exchange(other, b"get a\r\n", b"END\r\n")
            address = f"{HOST}:{other.getsockname()[1]}".encode()
            for request in (
                b"stats",
                b"stats sessions",
                b"stats servers",
                b"stats settings",
                b"stats conns",
                b"stats proxy",
                b"stats proxy sessions",
            ):
                self.assertNotIn(address, ask(self.proxy.address, request + b"\r\n", end=b"\r\n"), request)


class Impostor(threading.Thread):
    """
    A server with TLS that is not the one that the proxy wants.

    @ivar received: what it has received after handshakes.
    @ivar connections: the number of connections.
    """

    def __init__(self, listener: socket.socket, certificate: Certificate) -> None:
        super().__init__(daemon=True)
        self._listener = listener
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.certificate, certificate.key)
        self.received = b""
        self.connections = 0

    def run(self) -> None:
        """
        Accept connections until the listener is closed.
        """
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            plain.settimeout(PATIENCE)
            try:
                with self._context.wrap_socket(plain, server_side=True) as client:
                    self.received += client.recv(1000)
            except OSError:
                plain.close()


class ServerIdentityTests(SynchronousTestCase):
    """
    Tests for servers with TLS whose certificate is not for their host.
    """

    skip = missingTLS

    def test_passwordNotSent(self) -> None:
        """
        Such a server gets no password, nor anything else, whatever the kind of the endpoint string is.
        """
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            authority = Certificate(directory, "authority", authority=True)
            trusted = directory / "trusted"
            trusted.mkdir()
            (trusted / "authority.pem").write_bytes(authority.certificate.read_bytes())
            users = directory / "users"
            users.write_text("joe:secret\n")
            users.chmod(0o600)
            nameless = Certificate(directory, HOST, authority, named=False)
            other = Certificate(directory, "other.example", authority)
            for certificate, words in (
                (nameless, "for no host: it has no subjectAltName"),
                (other, "for another host"),
            ):
                for host, unix in ((HOST, False), ("localhost", False), (HOST, True)):
                    with self.subTest(words=words, host=host, unix=unix):
                        self._refused(directory, certificate, host, unix, trusted, users, words)

    def _refused(
        self, directory: Path, certificate: Certificate, host: str, unix: bool, trusted: Path, users: Path, words: str
    ) -> None:
        path = directory / f"s{len(list(directory.iterdir()))}"
        listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        listener.bind(str(path) if unix else (HOST, 0))
        listener.listen()
        server = Impostor(listener, certificate)
        server.start()
        inner = f"unix\\:{quoted(path)}" if unix else f"tcp\\:{HOST}\\:{listener.getsockname()[1]}"
        upstream = f"tls:{host}:1:trustRoots={quoted(trusted)}:endpoint={inner}"
        proxy = Proxy("--upstream-auth", f"file:{users}", upstream=[upstream])
        try:
            proxy.start()
            reply = ask(proxy.address, b"get a\r\n")
            self.assertRegex(reply.decode(), f"^SERVER_ERROR upstream unavailable: TLS: the certificate is {words}")
            until(lambda: server.connections > 1, what="another attempt of the proxy")
            self.assertEqual(server.received, b"")
        finally:
            proxy.stop()
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            server.join(PATIENCE)


class ProcessTests(SynchronousTestCase):
    """
    Tests for the processes of the proxy.
    """

    def test_currentDirectory(self) -> None:
        """
        Workers import no modules from the current directory.
        """
        proxy = Safe("--workers", "2", upstream=[(HOST, freePort())])
        self.addCleanup(proxy.stop)
        marker = proxy.directory / "executed"
        for name in "json", "socket", "txconnpool", "twisted":
            (proxy.directory / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()\nraise SystemExit\n")
        proxy.start()
        self.assertRegex(ask(proxy.address, b"get a\r\n").decode(), re.compile("^SERVER_ERROR upstream"))
        self.assertFalse(marker.exists())
