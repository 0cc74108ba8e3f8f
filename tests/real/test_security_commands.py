# Copyright txconnpool contributors. See LICENSE.
"""
Clients that try what C{allow-commands} and C{deny-commands} forbid, with a real memcached behind the proxy, and servers
whose replies would put values and passwords into the log.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.real.servers import HOST, PATIENCE, Memcached, Proxy, ask, freePort, missing, until
from tests.wire.memcache.test_effects import TABLE

#: The value of the key C{a} before each attempt. It is a number, so that it can be incremented.
VALUE: Final = b"VALUE a 0 1\r\n7\r\nEND\r\n"

#: Silent requests have no reply, so an error marks the end of what was attempted.
MARK: Final = b"xyzzy\r\n"


class CommandTests(SynchronousTestCase):
    """
    Tests for restricted clients. Each request is tried, and memcached is asked afterwards.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start memcached.
        """
        self.memcached = Memcached().start()
        self.addCleanup(self.memcached.stop)

    def proxy(self, *options: str) -> Proxy:
        """
        Start a proxy in front of memcached.
        """
        proxy = Proxy(*options, upstream=[self.memcached.address]).start()
        self.addCleanup(proxy.stop)
        return proxy

    def attempt(self, proxy: Proxy, request: bytes) -> tuple[bytes, bytes]:
        """
        Store the key C{a}, and send a request through the proxy.

        @return: the reply, and memcached's reply to C{get a} afterwards.
        """
        self.assertEqual(
            ask(self.memcached.address, b"flush_all\r\nset a 0 0 1\r\n7\r\n", b"STORED\r\n"), b"OK\r\nSTORED\r\n"
        )
        reply = ask(proxy.address, request + MARK, b"ERROR\r\n")
        return reply.removesuffix(b"ERROR\r\n"), ask(self.memcached.address, b"get a\r\n", b"END\r\n")

    def test_deleted(self) -> None:
        """
        With C{@delete} denied, no request removes the value.
        """
        proxy = self.proxy("--deny-commands", "@delete")
        for request, letters in TABLE:
            if "d" in letters:
                _, value = self.attempt(proxy, request + b"\r\n")
                self.assertEqual(value, VALUE, request)

    def test_largeValue(self) -> None:
        """
        With C{@delete} denied, a value that is too large does not remove the old one.
        """
        proxy = self.proxy("--deny-commands", "@delete", "--max-item-size", "1k")
        for head in (b"set a 0 0 2000\r\n", b"ms a 2000\r\n"):
            reply, value = self.attempt(proxy, head + bytes(2000) + b"\r\n")
            self.assertEqual((reply, value), (b"SERVER_ERROR object too large for cache\r\n", VALUE))

    def test_readOnly(self) -> None:
        """
        If only C{@read} is allowed, no request changes anything: memcached counts no command but reads.
        """
        for options in (
            ("--allow-commands", "@read"),
            ("--deny-commands", "@write @delete @admin"),
            ("--allow-commands", "get gets mg me"),
        ):
            proxy = self.proxy(*options)
            for request, letters in TABLE:
                if set(letters) - {"r"}:
                    reply, value = self.attempt(proxy, request + b"\r\n")
                    refused = b"" if b"noreply" in request else b"CLIENT_ERROR %b not allowed\r\n" % request.split()[0]
                    self.assertEqual((reply, value), (refused, VALUE), request)
            # The pipeline is refused as its single requests are. The key k is never stored.
            pipeline = b"mg k N30 v\r\nget a\r\nget k\r\nms k 1 q\r\nx\r\nset k 0 0 1 noreply\r\nx\r\nget k\r\n"
            reply, _ = self.attempt(proxy, pipeline)
            self.assertEqual(
                reply,
                b"CLIENT_ERROR mg not allowed\r\n" + VALUE + b"END\r\nCLIENT_ERROR ms not allowed\r\nEND\r\n",
            )
            proxy.stop()

    def test_writeOnly(self) -> None:
        """
        With C{@read} denied, no request returns the value.
        """
        proxy = self.proxy("--deny-commands", "@read")
        for request, letters in TABLE:
            if "r" in letters:
                reply, _ = self.attempt(proxy, request + b"\r\n")
                self.assertEqual(reply, b"CLIENT_ERROR %b not allowed\r\n" % request.split()[0])
        self.assertEqual(self.attempt(proxy, b"set a 0 0 1\r\n8\r\n")[0], b"STORED\r\n")

    def test_embedded(self) -> None:
        """
        The restrictions are the same in front of the embedded server.
        """
        proxy = Proxy("--allow-commands", "@read set", upstream=["memory:"]).start()
        self.addCleanup(proxy.stop)
        self.assertEqual(
            ask(
                proxy.address,
                b"set a 0 0 1\r\n7\r\nmg a T-1\r\nmd a\r\ngat -1 a\r\nset a 0 -1 1\r\n8\r\nget a\r\n",
                b"END\r\n",
            ),
            b"STORED\r\nCLIENT_ERROR mg not allowed\r\nCLIENT_ERROR md not allowed\r\nCLIENT_ERROR gat not allowed\r\n"
            b"CLIENT_ERROR set not allowed\r\n" + VALUE,
        )

    def test_warning(self) -> None:
        """
        The log has a warning if a denied command leaves others open.
        """
        proxy = self.proxy("--deny-commands", "delete", "--workers", "2")
        warning = "pool 'default': deny-commands: delete is denied, but clients can delete with add append"
        self.assertEqual(proxy.log.count(warning), 1)
        self.assertEqual(self.attempt(proxy, b"mg a T-1\r\n"), (b"HD\r\n", b"END\r\n"))


class LogTests(SynchronousTestCase):
    """
    Tests for what is shown after servers have violated the protocol: in the log, on the status page and over HTTP.

    @cvar forged: what a server sends to forge a line of the log, or to write on a terminal.
    """

    forged = b"{log_level}\x1b[2J\n2026-01-01T00:00:00+0000 [txconnpool.pool#info] forged\r\n"

    def serve(self, answer: Callable[[bytes], bytes]) -> str:
        """
        Start a server that answers each packet.

        @return: its endpoint.
        """
        listener = socket.create_server((HOST, 0))

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=converse, args=(client,), daemon=True).start()

        def converse(client: socket.socket) -> None:
            with client:
                try:
                    while data := client.recv(65536):
                        client.sendall(answer(data))
                except OSError:  # the proxy has closed the connection
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(listener.close)
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)
        return f"tcp:{HOST}:{listener.getsockname()[1]}"

    def shown(self, answer: Callable[[bytes], bytes], *options: str, expected: str, request: bytes) -> str:
        """
        Start a proxy in front of a server, send a request, and stop the proxy when its log has some text.

        @return: the log, the events of the status page, all statistics, and the reply.
        """
        port = freePort()
        proxy = Proxy(*options, "--stats", f"tcp:{port}:interface={HOST}", upstream=[self.serve(answer)]).start()
        self.addCleanup(proxy.stop)
        reply = ask(proxy.address, request)
        until(lambda: expected in proxy.log, what="the text in the log")
        connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
        self.addCleanup(connection.close)
        connection.request("GET", "/stats.json")
        page = json.loads(connection.getresponse().read())
        self.assertIn(expected, json.dumps(page["events"]))
        proxy.stop()
        return proxy.log + json.dumps(page, ensure_ascii=False) + reply.decode("latin-1")

    def assertSecret(self, shown: str) -> None:
        """
        Assert that no bytes of requests or replies are shown.
        """
        for word in ("secret", "joe", "forged", "log_level}", "\x1b", "x1b"):
            self.assertNotIn(word, shown)

    def test_values(self) -> None:
        """
        Keys and values are not shown, whatever a server sends in place of a reply.
        """
        for sent in (b"", self.forged, b"VALUE secretkey 0 6\r\nsecretEND\r\n", b"secret" * 1000):

            def answer(data: bytes, sent: bytes = sent) -> bytes:
                return b"VERSION 1.6.18\r\n" if data == b"version\r\n" else sent or data

            workers = "2" if sent is self.forged else "1"
            for request in (b"set secretkey 0 0 6\r\nsecret\r\n", b"mg secretkey v\r\n"):
                shown = self.shown(
                    answer, "--log-keys", "no", "--slow-request", "1ms", "--workers", workers,
                    expected="requests in flight: expected ", request=request,
                )  # fmt: skip
                self.assertSecret(shown)

    def test_logins(self) -> None:
        """
        The login to a server is not shown, also if the server repeats it.
        """
        path = Path(self.mktemp()).absolute()
        path.write_text("joe:secret\n", "ascii")
        path.chmod(0o600)
        for prefix, expected in (
            (b"", "expected a reply to auth, received "),
            (b"CLIENT_ERROR ", "login failed: received "),
            (b"SERVER_ERROR \x1b[2J{log_level} ", "login failed: received "),
        ):

            def answer(data: bytes, prefix: bytes = prefix) -> bytes:
                if data == b"version\r\n":
                    return b"CLIENT_ERROR unauthenticated\r\n"
                return prefix + data.replace(b"\r\n", b" ").strip() + b"\r\n" if prefix else data

            shown = self.shown(
                answer, "--upstream-auth", f"file:{path}", expected=expected, request=b"get a\r\n"
            )  # fmt: skip
            self.assertSecret(shown.replace("unauthenticated", ""))

    @staticmethod
    def _hasSlow(proxy: Proxy) -> bool:
        return "slow: set" in proxy.log

    def test_slow(self) -> None:
        """
        With C{log-keys = no} slow requests are logged without keys; with C{yes}, keys are escaped, and values are not
        there.
        """
        for keys in ("no", "yes"):
            memcached = Memcached().start()
            self.addCleanup(memcached.stop)
            options = ("--log-keys", keys, "--slow-request", "1ms", "--request-timeout", "1")
            proxy = Proxy(*options, upstream=[memcached.address]).start()
            self.addCleanup(proxy.stop)
            self.assertEqual(ask(proxy.address, b"get a\r\n"), b"END\r\n")
            memcached.freeze()
            self.addCleanup(memcached.thaw)
            ask(proxy.address, b"set key\x1b[2J{log_level} 0 0 6\r\nsecret\r\n")
            until(partial(self._hasSlow, proxy), what="the slow request in the log")
            memcached.thaw()
            proxy.stop()
            self.assertEqual(r"set key\x1b[2J{log_level}: " in proxy.log, keys == "yes")
            self.assertEqual("key" in proxy.log, keys == "yes")
            for word in ("secret", "\x1b"):
                self.assertNotIn(word, proxy.log)
