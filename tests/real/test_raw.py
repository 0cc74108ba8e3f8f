# Copyright txconnpool contributors. See LICENSE.
"""
Tests for C{protocol = raw} with real servers of several protocols.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import socketserver
import ssl
import tempfile
import threading
import urllib.request
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Certificate, missingTLS, quoted
from tests.real.servers import PATIENCE, Proxy, Redis, connect, everything, exchange, freePort, missing, until

#: A large message, more than all buffers on its way.
LARGE = bytes(range(256)) * (1 << 16)


LINE = b"x" * 65534 + b"\r\n"


class Greeter(socketserver.StreamRequestHandler):
    """
    Speaks first, then repeats each line; C{eof} counts the bytes until the client has sent all, C{reset} resets.
    """

    def handle(self) -> None:
        """
        Serve one client.
        """
        self.wfile.write(b"220 hello\r\n")
        for line in self.rfile:
            if line == b"eof\r\n":
                self.wfile.write(b"%d\r\n" % len(self.rfile.read()))
            elif line == b"quit\r\n":
                self.wfile.write(b"bye\r\n")
                return
            elif line == b"reset\r\n":
                linger = b"\1\0\0\0\0\0\0\0"
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.rfile.close()
                self.wfile.close()
                self.connection.close()
                return
            else:
                self.wfile.write(line)


class GreeterServer(socketserver.ThreadingTCPServer):
    """
    The server of L{Greeter}.

    @ivar clients: the number of connections so far.
    """

    daemon_threads = True
    clients = 0

    def process_request(self, request: Any, address: Any) -> None:
        """
        Count a connection.
        """
        self.clients += 1
        super().process_request(request, address)

    def handle_error(self, request: Any, address: Any) -> None:
        """
        Print nothing: tests reset connections.
        """

    def shutdown_request(self, request: Any) -> None:
        """
        Close the connection, unless its handler has done so.
        """
        if request.fileno() >= 0:
            super().shutdown_request(request)


def metrics(port: int) -> str:
    """
    @return: the statistics of a proxy.
    """
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as page:
        text: str = page.read().decode()
    return text


def sending(client: socket.socket, count: int) -> threading.Thread:
    """
    Send lines of 64 KiB in a thread.
    """
    sender = threading.Thread(target=client.sendall, args=(LINE * count,))
    sender.start()
    return sender


class RawCase(SynchronousTestCase):
    """
    Base class of tests with a proxy.
    """

    def proxy(self, address: Any, *options: str) -> Proxy:
        """
        @return: a proxy for the server at an address.
        """
        proxy = Proxy("--protocol", "raw", "--wait-timeout", "30", *options, upstream=[address]).start()
        self.addCleanup(proxy.stop)
        return proxy

    def serve(self, server: Any) -> Any:
        """
        @return: the address of a server that runs in a thread.
        """
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server.server_address[:2]

    def connect(self, proxy: Proxy) -> socket.socket:
        """
        @return: a client.
        """
        client = connect(proxy.address, 30.0)
        self.addCleanup(client.close)
        return client

    def assertEcho(self, client: socket.socket, sender: threading.Thread, count: int) -> None:
        """
        Assert that a client gets the greeting and all lines of L{sending}.
        """
        left = len(b"220 hello\r\n") + count * len(LINE)
        while left > 0:
            data = client.recv(1 << 20)
            self.assertTrue(data)
            left -= len(data)
        sender.join()
        self.assertEqual(left, 0)


class GreeterTests(RawCase):
    """
    Tests with a server that speaks first.
    """

    def setUp(self) -> None:
        """
        Start the server.
        """
        self.server = GreeterServer(("127.0.0.1", 0), Greeter)
        self.address = self.serve(self.server)

    def test_greeting(self) -> None:
        """
        Each client gets a greeting of its own, and the end that the server makes.
        """
        proxy = self.proxy(self.address)
        for _ in range(5):
            client = self.connect(proxy)
            self.assertEqual(exchange(client, b"", b"\r\n"), b"220 hello\r\n")
            self.assertEqual(exchange(client, b"a\r\n", b"\r\n"), b"a\r\n")
            client.sendall(b"quit\r\n")
            self.assertEqual(everything(client), b"bye\r\n")
            client.close()

    def test_lazyClient(self) -> None:
        """
        A client that does not notice the end of the server does not keep others waiting.
        """
        proxy = self.proxy(self.address, "--pool-size", "1")
        lazy = self.connect(proxy)
        lazy.sendall(b"quit\r\n")
        until(lambda: self.server.clients, what="a client of the server")
        self.assertEqual(exchange(self.connect(proxy), b"", b"\r\n"), b"220 hello\r\n")
        self.assertEqual(everything(lazy), b"220 hello\r\nbye\r\n")

    def test_halfClose(self) -> None:
        """
        A client that sends all and closes its side gets the answer to all of it.
        """
        client = self.connect(self.proxy(self.address))
        client.sendall(b"eof\r\n" + LARGE)
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(everything(client), b"220 hello\r\n%d\r\n" % len(LARGE))

    def test_queue(self) -> None:
        """
        More clients than C{pool-size} wait for one another, at most C{max-waiting}. One more is closed, and the log
        says why.
        """
        port = freePort()
        options = ("--pool-size", "1", "--max-waiting", "1", "--stats", f"tcp:{port}:interface=127.0.0.1")
        proxy = self.proxy(self.address, "--lease-at", "first-byte", *options)
        first = self.connect(proxy)
        self.assertEqual(exchange(first, b"a\r\n", b"a\r\n"), b"220 hello\r\na\r\n")
        second = self.connect(proxy)
        second.sendall(b"b\r\n")
        waiting = re.compile(r'connpool_waiting\{pool="default"\} 1')
        until(lambda: waiting.search(metrics(port)), what="the second one to wait")
        third = self.connect(proxy)
        third.sendall(b"c\r\n")
        with self.assertRaises(ConnectionResetError):
            third.recv(1)
        until(lambda: "1 clients closed, they got no connection: " in proxy.log, what="a line in the log")
        first.close()
        self.assertEqual(exchange(second, b"", b"b\r\n"), b"220 hello\r\nb\r\n")
        self.assertEqual(self.server.clients, 2)

    def test_reset(self) -> None:
        """
        A reset of the server reaches the client as one.
        """
        client = self.connect(self.proxy(self.address))
        client.sendall(b"reset\r\n")
        with self.assertRaises(ConnectionResetError):
            while client.recv(100):
                pass

    def test_slowClient(self) -> None:
        """
        A client that does not read holds up its own session only, and gets all bytes when it reads.
        """
        port = freePort()
        proxy = self.proxy(self.address, "--session-unread-hard", "2m", "--stats", f"tcp:{port}:interface=127.0.0.1")
        slow, quick = self.connect(proxy), self.connect(proxy)
        sender = sending(slow, 200)
        paused = re.compile(r'connpool_session_pauses_total\{pool="default",reason="unread"\} [1-9]')
        until(lambda: paused.search(metrics(port)), what="a pause of the session")
        self.assertEqual(exchange(quick, b"a\r\n", b"a\r\n"), b"220 hello\r\na\r\n")
        self.assertEcho(slow, sender, 200)

    def test_idle(self) -> None:
        """
        A session in which nothing happens is closed.
        """
        client = self.connect(self.proxy(self.address, "--client-idle-timeout", "1"))
        self.assertEqual(exchange(client, b"", b"\r\n"), b"220 hello\r\n")
        with self.assertRaises(ConnectionResetError):
            client.recv(1)


class TLSTests(RawCase):
    """
    Tests with TLS on both sides.
    """

    skip = missingTLS

    def setUp(self) -> None:
        """
        Start a server with TLS, and a proxy before it.
        """
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        host = Certificate(Path(directory.name), "127.0.0.1")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(host.certificate, host.key)
        self.server = GreeterServer(("127.0.0.1", 0), Greeter)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        port = self.serve(self.server)[1]
        trust = Path(directory.name) / "trust"
        trust.mkdir()
        (trust / "host.pem").write_bytes(host.certificate.read_bytes())
        self.port = freePort()
        listen = f"ssl:{self.port}:interface=127.0.0.1:privateKey={quoted(host.key)}:certKey={quoted(host.certificate)}"
        upstream = f"tls:127.0.0.1:{port}:trustRoots={quoted(trust)}"
        self.running = self.proxy(upstream, "--listen", listen, "--pool-size", "2")
        self.context = ssl._create_unverified_context()

    def secure(self) -> ssl.SSLSocket:
        """
        @return: a client with TLS.
        """
        client = self.context.wrap_socket(connect(("127.0.0.1", self.port), 30.0))
        self.addCleanup(client.close)
        return client

    def test_relayed(self) -> None:
        """
        Bytes pass in both directions. The end of one side is the end of the other, and frees the connection.
        """
        for _ in range(3):
            client = self.secure()
            self.assertEqual(exchange(client, b"a\r\n", b"a\r\n"), b"220 hello\r\na\r\n")
            client.close()
        for _ in range(3):
            client = self.secure()
            client.sendall(b"quit\r\n")
            self.assertEqual(everything(client), b"220 hello\r\nbye\r\n")
        self.assertNotIn("Traceback", self.running.log)

    def test_large(self) -> None:
        """
        Much passes in both directions. One thread sends and receives, because two threads must not use one C{SSLSocket}
        at the same time.
        """
        client = self.secure()
        client.setblocking(False)
        unsent = memoryview(LINE * 50)
        left = len(b"220 hello\r\n") + len(unsent)
        while left > 0:
            if unsent:
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    unsent = unsent[client.send(unsent) :]
            try:
                data = client.recv(1 << 20)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.assertTrue(any(select.select([client], [client] if unsent else [], [], PATIENCE)))
                continue
            self.assertTrue(data)
            left -= len(data)
        self.assertEqual(left, 0)

    def test_halfClose(self) -> None:
        """
        A plain client that closes its side gets the answer of a server with TLS.
        """
        client = self.connect(self.running)
        self.assertEqual(exchange(client, b"a\r\n", b"a\r\n"), b"220 hello\r\na\r\n")
        client.sendall(b"eof\r\n123")
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(everything(client), b"3\r\n")


class WatchedTests(RawCase):
    """
    Tests for what operators see, with several processes.
    """

    def test_statistics(self) -> None:
        """
        Sessions, leases and bytes are counted, those of all processes together.
        """
        server = GreeterServer(("127.0.0.1", 0), Greeter)
        port = freePort()
        proxy = self.proxy(
            self.serve(server),
            "--workers",
            "2",
            "--pool-size",
            "8",
            "--lease-at",
            "first-byte",
            "--stats",
            f"tcp:{port}:interface=127.0.0.1",
        )
        clients = [self.connect(proxy) for _ in range(4)]
        for client in clients:
            self.assertEqual(exchange(client, b"a\r\n", b"a\r\n"), b"220 hello\r\na\r\n")
        for client in clients[:3]:
            client.close()

        server_ = f'{{pool="default",server="tcp:127.0.0.1:{server.server_address[1]}"'
        for line in (
            f'requests_total{server_},command="session"}} 3',
            'connpool_sessions{pool="default"} 1',
            'connpool_client_received_bytes_total{pool="default"} 12',
        ):
            until(lambda line=line: line in metrics(port), what=line)  # type: ignore[misc]
        self.assertEqual(server.clients, 4)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as page:
            self.assertEqual(page.status, 200)


class HTTPTests(RawCase):
    """
    Tests with an HTTP server.
    """

    def test_download(self) -> None:
        """
        A large file arrives whole.
        """
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "file").write_bytes(LARGE)

        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

        address = self.serve(HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory))))
        host, port = tuple(self.proxy(address, "--lease-at", "first-byte").address)
        for _ in range(3):
            with urllib.request.urlopen(f"http://{host}:{port}/file", timeout=PATIENCE) as response:
                self.assertTrue(response.read() == LARGE)


class RedisTests(RawCase):
    """
    Tests with a Redis server, as one whose protocol the proxy does not know.
    """

    skip = missing("redis-server")

    def setUp(self) -> None:
        """
        Start the server.
        """
        self.server = Redis().start()
        self.addCleanup(self.server.stop)

    def test_state(self) -> None:
        """
        The state of a connection is that of its client, and ends with it.
        """
        proxy = self.proxy(self.server.address)
        first = self.connect(proxy)
        self.assertEqual(exchange(first, b"CLIENT SETNAME a\r\n", b"\r\n"), b"+OK\r\n")
        second = self.connect(proxy)
        self.assertEqual(exchange(second, b"CLIENT GETNAME\r\n", b"\r\n"), b"$-1\r\n")
        first.close()
        for _ in range(5):
            with connect(proxy.address, 30.0) as client:
                self.assertEqual(exchange(client, b"CLIENT GETNAME\r\n", b"\r\n"), b"$-1\r\n")

    def test_reused(self) -> None:
        """
        With C{reset = none} the next client gets the connection as it is.
        """
        proxy = self.proxy(self.server.address, "--reset", "none", "--lease-at", "first-byte", "--pool-size", "1")
        ids = set()
        for _ in range(3):
            with connect(proxy.address, 30.0) as client:
                ids.add(exchange(client, b"CLIENT ID\r\n", b"\r\n"))
        self.assertEqual(len(ids), 1)

    def test_down(self) -> None:
        """
        While the server is down, clients are closed. When it is back, they are served.
        """
        proxy = self.proxy(self.server.address)
        with connect(proxy.address, 30.0) as client:
            self.assertEqual(exchange(client, b"PING\r\n", b"\r\n"), b"+PONG\r\n")
        self.server.kill()

        def refused() -> bool:
            try:
                with connect(proxy.address, 30.0) as client:
                    return client.recv(1) == b""
            except ConnectionResetError:
                return True

        self.assertTrue(refused())
        self.server.restart()

        def served() -> bool:
            try:
                with connect(proxy.address, 30.0) as client:
                    return exchange(client, b"PING\r\n", b"\r\n") == b"+PONG\r\n"
            except (ConnectionError, AssertionError):
                return False

        until(served, what="a client that is served")
