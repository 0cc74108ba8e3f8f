# Copyright txconnpool contributors. See LICENSE.
"""
Servers that do not know all commands, and servers that accept no more connections.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.real.relay import Relay, edit
from tests.real.servers import Memcached, Proxy, ask, connect, missing, until


class OldTests(SynchronousTestCase):
    """
    Tests for a memcached before 1.6.
    """

    skip = missing("memcached")

    def test_meta(self) -> None:
        """
        Meta commands are answered by the proxy. The value of C{ms} is not executed as a command.
        """
        server = Memcached().start()
        self.addCleanup(server.stop)
        relay = Relay(server.address).start()
        self.addCleanup(relay.stop)
        relay.set(edit(lambda data: re.sub(rb"VERSION [0-9.]+", b"VERSION 1.5.22", data)))
        proxy = Proxy(upstream=[relay.address]).start()
        self.addCleanup(proxy.stop)
        self.assertEqual(ask(proxy.address, b"set k 0 0 1\r\nx\r\n"), b"STORED\r\n")
        for request in (b"mg k v\r\n", b"ms k 9\r\nflush_all\r\n", b"mn\r\n"):
            error = b"ERROR %b needs memcached 1.6 or newer, %b is 1.5.22\r\n"
            self.assertEqual(ask(proxy.address, request), error % (request[:2], relay.endpoint.encode()))
        self.assertEqual(ask(proxy.address, b"get k\r\n"), b"VALUE k 0 1\r\nx\r\nEND\r\n")


class FullTests(SynchronousTestCase):
    """
    Tests for a memcached that has as many connections as C{-c} allows.
    """

    skip = missing("memcached")

    def test_replaced(self) -> None:
        """
        Connections that are too old are used until the server accepts others. The log says why, once.
        """
        server = Memcached("-c", "30", "-t", "1").start()
        self.addCleanup(server.stop)
        proxy = Proxy("--max-lifetime=1", upstream=[server.address]).start()
        self.addCleanup(proxy.stop)
        self.assertEqual(ask(proxy.address, b"set k 0 0 1\r\nx\r\n"), b"STORED\r\n")
        others = [connect(server.address) for _ in range(40)]
        for each in others:
            self.addCleanup(each.close)
        until(lambda: int(self.statistic(proxy, b"dial_failures_too_many_connections")) > 2, what="failed dials")
        self.assertEqual(ask(proxy.address, b"get k\r\n"), b"VALUE k 0 1\r\nx\r\nEND\r\n")
        self.assertEqual(self.statistic(proxy, b"outages"), b"0")
        self.assertEqual(proxy.log.count("too many connections"), 1)

    def statistic(self, proxy: Proxy, name: bytes) -> bytes:
        """
        @return: a number of the proxy; 0 if it has none.
        """
        match = re.search(rb"STAT %b (\d+)\r\n" % name, ask(proxy.address, b"stats proxy\r\n", b"END\r\n"))
        return b"0" if match is None else match[1]
