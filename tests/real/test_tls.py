# Copyright txconnpool contributors. See LICENSE.
"""
Tests for TLS on both sides of the proxy. The client uses Python's TLS, the server memcached's. The behaviour of a
session with TLS is compared with that of a session without.
"""

from __future__ import annotations

import random
import signal
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Certificate, missingTLS, quoted
from tests.real.load import run
from tests.real.servers import HOST, PATIENCE, Memcached, Proxy, ask, connect, exchange, freePort, missing, until, which


def missingMemcachedTLS() -> str | None:
    """
    @return: the reason to skip a test that needs a memcached with TLS, or C{None}.
    """
    path = which("memcached")
    if path is None:
        return missing("memcached")
    usage = subprocess.run([path, "-h"], capture_output=True, text=True, check=False).stdout
    return None if "--enable-ssl" in usage else "this memcached was built without TLS"


class TLSTestCase(SynchronousTestCase):
    """
    Base class of these tests.
    """

    skip = missingTLS

    def setUp(self) -> None:
        """
        Create an authority and a certificate for this host, in a directory that any user may read.
        """
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.directory.chmod(0o755)
        self.authority = Certificate(self.directory, "authority", authority=True)
        self.host = self.certificate(HOST)
        self.trusted = self.trust("trusted", self.authority)

    def certificate(self, name: str, signer: Certificate | None = None) -> Certificate:
        """
        @return: a new certificate.
        """
        return Certificate(self.directory, name, signer or self.authority)

    def trust(self, name: str, *authorities: Certificate) -> Path:
        """
        Create a directory of authorities.
        """
        directory = self.directory / name
        directory.mkdir()
        for each in authorities:
            (directory / each.certificate.name).write_bytes(each.certificate.read_bytes())
        return directory

    def proxy(
        self, *options: str, host: Certificate | None = None, arguments: str = "", upstream: str = "memory:"
    ) -> Proxy:
        """
        Start a proxy that listens with and without TLS.
        """
        host = host or self.host
        self.port = freePort()
        files = f"privateKey={quoted(host.key)}:certKey={quoted(host.certificate)}"
        listen = f"ssl:{self.port}:interface={HOST}:{files}{arguments}"
        proxy = Proxy("--listen", listen, *options, upstream=[upstream])
        self.addCleanup(proxy.stop)
        return proxy.start()

    def client(self, own: Certificate | None = None, authority: Certificate | None = None) -> ssl.SSLSocket:
        """
        Connect with TLS.

        @param own: the client's certificate.
        """
        context = ssl.create_default_context(cafile=str((authority or self.authority).certificate))
        if own is not None:
            context.load_cert_chain(own.certificate, own.key)
        plain = connect((HOST, self.port))
        try:
            client = context.wrap_socket(plain, server_hostname=HOST)
        except BaseException:
            plain.close()
            raise
        self.addCleanup(client.close)
        return client

    def read(self, client: socket.socket, size: int) -> bytes:
        """
        Read so many bytes, or until the end of the connection.
        """
        data = bytearray()
        while len(data) < size:
            more = client.recv(min(size - len(data), 1 << 16))
            if not more:
                break
            data += more
        return bytes(data)

    def ask(self, client: socket.socket, request: bytes, end: bytes = b"END\r\n") -> bytes:
        """
        Send a request, and read until the end of the reply.
        """
        return exchange(client, request, end)

    def serial(self, client: ssl.SSLSocket) -> int:
        """
        @return: the serial number of the certificate that a client received.
        """
        certificate = client.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)

    def sessions(self, proxy: Proxy) -> int:
        """
        @return: the number of the proxy's clients, without the one that reads this number.
        """
        found = (
            ask(proxy.address, b"stats proxy\r\n", end=b"END\r\n").split(b"STAT curr_connections ")[1].split(b"\r\n")[0]
        )
        return int(found) - 1


class ListenTests(TLSTestCase):
    """
    Tests for listening with TLS.
    """

    def test_serves(self) -> None:
        """
        One pool serves clients with and without TLS, each on its port.
        """
        proxy = self.proxy()
        self.assertEqual(self.ask(self.client(), b"set a 0 0 1\r\nx\r\n", b"STORED\r\n"), b"STORED\r\n")
        self.assertEqual(ask(proxy.address, b"get a\r\n", b"END\r\n"), b"VALUE a 0 1\r\nx\r\nEND\r\n")

    def test_chain(self) -> None:
        """
        Intermediate certificates are sent to clients if they are configured.
        """
        between = Certificate(self.directory, "between", self.authority, authority=True)
        host = self.certificate("127.0.0.1", between)
        self.proxy(host=host)
        self.assertRaises(ssl.SSLCertVerificationError, self.client)
        self.proxy(host=host, arguments=f":extraCertChain={quoted(between.certificate)}")
        self.assertEqual(self.ask(self.client(), b"get a\r\n"), b"END\r\n")

    def test_clientCertificates(self) -> None:
        """
        If client certificates are required, a client with one of the right authority is served, and no other client.
        """
        other = Certificate(self.directory, "other", authority=True)
        proxy = self.proxy(arguments=f":caCertsDir={quoted(self.trusted)}")
        self.assertEqual(self.ask(self.client(self.certificate("client")), b"get a\r\n"), b"END\r\n")
        for own in (None, other, self.certificate("client2", other)):
            # With TLS 1.3 the client gets the error when it reads.
            self.assertRaises(
                (ssl.SSLError, ConnectionResetError), lambda own=own: self.ask(self.client(own), b"get a\r\n")
            )
        until(lambda: self.sessions(proxy) <= 1, what="the end of who was not let in")
        self.assertNotIn("Traceback", proxy.log)

    def test_workers(self) -> None:
        """
        Workers, which get their clients from the parent, use TLS with them.
        """
        if reason := missing("memcached"):
            self.skipTest(reason)
        with Memcached() as memcached:
            proxy = self.proxy("--workers", "2", "--pool-size", "2", upstream=memcached.endpoint)
            clients = [self.client() for _ in range(4)]
            for client in clients:
                try:
                    reply = self.ask(client, b"incr a 1\r\nadd a 0 0 1\r\n0\r\n", b"STORED\r\n")
                except ConnectionResetError:
                    self.fail(proxy.log)
                self.assertEqual(reply.count(b"\r\n"), 2)

    def test_renewed(self) -> None:
        """
        SIGHUP reads certificates again: new clients get the new one, and connected clients are not affected. A
        certificate that cannot be read changes nothing, and is reported.
        """
        for options, upstream in (((), "memory:"), (("--workers", "2", "--pool-size", "2"), f"tcp:{HOST}:9")):
            host = self.certificate(HOST)
            proxy = self.proxy(*options, upstream=upstream, host=host)
            client = self.client()
            first = self.serial(client)
            self.assertEqual(first, host.serial)
            host = self.certificate(HOST)
            self.assertEqual(self.serial(self.client()), first)
            proxy.signal(signal.SIGHUP)
            until(lambda: self.serial(self.client()) == host.serial, what="the new certificate")  # noqa: B023
            self.assertEqual(self.ask(client, b"verbosity\r\n", b"\r\n"), b"ERROR\r\n")
            host.certificate.write_text("broken", "ascii")
            proxy.signal(signal.SIGHUP)
            until(lambda: "not reloaded: " in proxy.log, what="a line about it")  # noqa: B023
            self.assertEqual(self.serial(self.client()), host.serial)
            self.assertEqual(self.ask(client, b"verbosity\r\n", b"\r\n"), b"ERROR\r\n")
            self.assertNotIn("Traceback", proxy.log)

    def test_notTLS(self) -> None:
        """
        A client that does not use TLS is closed, and no other client is affected.
        """
        proxy = self.proxy()
        self.assertNotIn(b"END", ask((HOST, self.port), b"get a\r\n"))
        until(lambda: self.sessions(proxy) == 0, what="the end of it")
        self.assertEqual(self.ask(self.client(), b"get a\r\n"), b"END\r\n")
        self.assertNotIn("Traceback", proxy.log)

    def test_tooMany(self) -> None:
        """
        One client above C{max-clients} gets the error over TLS too. One that does not even start a handshake is closed
        soon.
        """
        proxy = self.proxy("--max-clients", "1", "--login-timeout", "1")
        # The connection that checked whether the proxy accepts may still be open.
        until(lambda: self.ask(self.client(), b"get a\r\n", b"\r\n") == b"END\r\n", what="room for one")
        self.assertEqual(self.client().recv(100), b"ERROR Too many open connections\r\n")
        with connect((HOST, self.port)) as silent:
            self.assertEqual(self.end(silent), b"")
        self.assertTrue(proxy.running())

    def end(self, client: socket.socket) -> bytes:
        """
        @return: the bytes that are received before the peer closes the connection.
        """
        try:
            return client.recv(100)
        except ConnectionResetError:
            return b""


class ParityTests(TLSTestCase):
    """
    Tests that compare sessions with and without TLS.
    """

    def both(self, proxy: Proxy) -> tuple[socket.socket, socket.socket]:
        """
        @return: a client with TLS, and one without.
        """
        plain = connect(proxy.address)
        self.addCleanup(plain.close)
        return self.client(), plain

    def test_pieces(self) -> None:
        """
        The replies are the same, and in order, however the requests are cut into pieces.
        """
        chance = random.Random(9)
        proxy = self.proxy()
        requests = b"".join(
            b"set k%d 0 0 %d\r\n%s\r\nget k%d k1\r\nmg k%d v q\r\nnonsense\r\nset k%d 0 0 1 noreply\r\ny\r\n"
            % (number, size, b"v" * size, number, number + 1, number)
            for number, size in enumerate(chance.choice((0, 1, 100, 5000)) for _ in range(60))
        )
        replies = []
        for client in self.both(proxy):
            self.ask(client, b"flush_all\r\n", b"OK\r\n")
            sent = 0
            while sent < len(requests):
                piece = requests[sent : sent + chance.choice((1, 10, 1000, 70000))]
                client.sendall(piece)
                sent += len(piece)
            replies.append(self.ask(client, b"mn\r\n", b"MN\r\n"))
        self.assertEqual(replies[0], replies[1])
        self.assertEqual(replies[0].count(b"ERROR\r\n"), 60)

    def test_large(self) -> None:
        """
        Many large values at once arrive unchanged.
        """
        value = random.Random(1).randbytes(1 << 20)
        client, _ = self.both(self.proxy("--max-item-size", "2m"))
        client.sendall(b"set big 0 0 %d\r\n%s\r\n" % (len(value), value))
        self.assertEqual(client.recv(100), b"STORED\r\n")
        reply = b"VALUE big 0 %d\r\n%s\r\nEND\r\n" % (len(value), value)
        client.sendall(b"get big\r\n" * 30)
        for _ in range(30):
            self.assertTrue(self.read(client, len(reply)) == reply)

    def test_unread(self) -> None:
        """
        For a client that requests much and does not read, a few values are buffered, and no other client is affected.
        When the client reads at last, it gets everything.
        """
        value = b"x" * (1 << 20)
        proxy = self.proxy()
        self.ask(self.client(), b"set big 0 0 %d\r\n%s\r\n" % (len(value), value), b"STORED\r\n")
        reply = b"VALUE big 0 %d\r\n%s\r\nEND\r\n" % (len(value), value)
        for client in self.both(proxy):
            client.sendall(b"get big\r\n" * 150)
            other = self.client()
            for _ in range(50):
                self.assertEqual(self.ask(other, b"get a\r\n"), b"END\r\n")
            unread = ask(proxy.address, b"stats proxy\r\n", b"END\r\n").split(b"STAT held_bytes ")[1].split(b"\r\n")[0]
            self.assertLess(int(unread), 32 << 20)
            for _ in range(150):
                self.assertTrue(self.read(client, len(reply)) == reply)

    def test_ends(self) -> None:
        """
        A session ends when the client sends C{quit}, closes its side, or resets the connection, and nothing of it
        remains.
        """
        proxy = self.proxy()
        client = self.client()
        self.assertEqual(self.ask(client, b"get a\r\nquit\r\nget b\r\n", b"nothing"), b"END\r\n")
        until(lambda: self.sessions(proxy) == 0, what="the end after quit, while the client is still there")
        client = self.client()
        self.ask(client, b"get a\r\n")
        client.unwrap().close()
        until(lambda: self.sessions(proxy) == 0, what="the end after goodbye")
        for linger in (b"\0" * 8, b"\1\0\0\0\0\0\0\0"):
            client = self.client()
            self.ask(client, b"get a\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.close()
            until(lambda: self.sessions(proxy) == 0, what="the end of who is gone")
        self.assertNotIn("Traceback", proxy.log)

    def test_stop(self) -> None:
        """
        Idle clients do not delay a stop, and clients with requests get their replies.
        """
        with socket.create_server((HOST, 0)) as server:
            host, port = server.getsockname()
            proxy = self.proxy(
                "--pool-size", "1", "--drain-timeout", f"{2 * PATIENCE:g}", upstream=f"tcp:{host}:{port}"
            )
            idle, asking = self.client(), self.client()
            server.settimeout(PATIENCE)
            line, _ = server.accept()
            self.addCleanup(line.close)
            line.settimeout(PATIENCE)
            self.assertEqual(line.recv(100), b"version\r\n")
            line.sendall(b"VERSION 1\r\n")
            asking.sendall(b"get a\r\nget b\r\n")
            self.assertEqual(self.read(line, 9), b"get a b\r\n")
            proxy.signal(signal.SIGTERM)
            self.assertEqual(idle.recv(100), b"")
            line.sendall(b"VALUE b 0 1\r\nx\r\nEND\r\n")
            self.assertEqual(self.ask(asking, b"", b"nothing"), b"END\r\nVALUE b 0 1\r\nx\r\nEND\r\n")
            proxy.wait()


class UpstreamTests(TLSTestCase):
    """
    Tests for servers with TLS.
    """

    def memcached(self, host: Certificate, *settings: str) -> Memcached:
        """
        Start a memcached with TLS.
        """
        if reason := missingMemcachedTLS():
            self.skipTest(reason)
        host.key.chmod(0o644)  # memcached runs as another user
        files = f"ssl_chain_cert={host.certificate},ssl_key={host.key}"
        server = Memcached("-Z", "-o", ",".join([files, *settings])).start()
        self.addCleanup(server.stop)
        return server

    def before(self, server: Memcached, *arguments: str) -> Proxy:
        """
        Start a proxy in front of a server.
        """
        assert isinstance(server.address, tuple)
        upstream = ":".join([f"tls:{HOST}:{server.address[1]}", *arguments])
        proxy = Proxy(upstream=[upstream]).start()
        self.addCleanup(proxy.stop)
        return proxy

    def test_serves(self) -> None:
        """
        The proxy connects to memcached with TLS, and stops without delay.
        """
        proxy = self.before(self.memcached(self.host), f"trustRoots={quoted(self.trusted)}")
        self.assertEqual(ask(proxy.address, b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")
        proxy.stop()
        self.assertNotIn("did not end in time", proxy.log)

    def test_clientCertificate(self) -> None:
        """
        A memcached that requires a client certificate gets that of the proxy.
        """
        server = self.memcached(self.host, "ssl_verify_mode=2", f"ssl_ca_cert={self.authority.certificate}")
        own = self.certificate("own")
        files = (f"certificate={quoted(own.certificate)}", f"privateKey={quoted(own.key)}")
        proxy = self.before(server, f"trustRoots={quoted(self.trusted)}", *files)
        self.assertEqual(ask(proxy.address, b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")
        proxy = self.before(server, f"trustRoots={quoted(self.trusted)}")
        self.assertIn(b"SERVER_ERROR upstream unavailable: ", ask(proxy.address, b"get a\r\n"))

    def test_reasons(self) -> None:
        """
        A server that is not trusted, has another name, or does not use TLS is down, with that reason.
        """
        trusted = f"trustRoots={quoted(self.trusted)}"
        other = f"trustRoots={quoted(self.trust('other', Certificate(self.directory, 'another', authority=True)))}"
        first = self.memcached(self.host)
        plain = Memcached().start()
        self.addCleanup(plain.stop)
        for server, trust, reason in (
            (first, other, "TLS: certificate verify failed"),
            (
                self.memcached(self.certificate("elsewhere.example")),
                trusted,
                "TLS: the certificate is for another host",
            ),
            (plain, trusted, "TLS: "),
        ):
            proxy = self.before(server, trust)
            assert isinstance(server.address, tuple)
            name = f"tls:{HOST}:{server.address[1]}"
            answer = ask(proxy.address, b"get a\r\n").decode()
            self.assertTrue(answer.startswith(f"SERVER_ERROR upstream unavailable: {reason}"), answer)
            self.assertTrue(answer.endswith(f" ({name})\r\n"), answer)
            self.assertIn(f"default: {name} is down: {reason}", proxy.log)

    def test_load(self) -> None:
        """
        A load over TLS, from proxy to proxy, gets no wrong reply.
        """
        self.proxy("--pool-size", "2")
        upstream = f"tls:{HOST}:{self.port}:trustRoots={quoted(self.trusted)}"
        first = Proxy("--pool-size", "8", upstream=[upstream]).start()
        self.addCleanup(first.stop)
        report = run(first.address, clients=100, seconds=600.0, requests=20, sizes=(10, 1000, 8000, 200000))
        self.assertEqual((report["wrong"], report["stuck"], report["errors"], report["closed"]), ([], 0, {}, 0))
