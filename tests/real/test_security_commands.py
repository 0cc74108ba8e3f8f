# Copyright txconnpool contributors. See LICENSE.
"""
Clients that try what C{allow-commands} and C{deny-commands} forbid, with a real memcached behind the proxy.
"""

from __future__ import annotations

from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.real.servers import Memcached, Proxy, ask, missing
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
