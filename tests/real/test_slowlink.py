# -*- test-case-name: tests.real.test_slowlink -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for large values that come over a slow link to memcached.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from twisted.trial.unittest import SynchronousTestCase

from tests.real.relay import FREEZE, Relay, trickle
from tests.real.servers import Address, Memcached, Proxy, ask, connect, exchange, missing

#: Each connection carries at most two megabytes in a second.
SLOW = trickle(0.008, 1 << 14)

SIZE = 2 << 20

CLIENTS = 5

#: The request timeout of the proxy, in seconds: much less than the large values take, but longer than the pauses of a
#: busy machine.
TIMEOUT = 1.5


def fetch(address: Address, key: bytes) -> bytes:
    """
    @return: the reply to a get. It may come slowly, but not in silence.
    """
    return ask(address, b"get %s\r\n" % key, b"\r\nEND\r\n")


class SlowLinkTests(SynchronousTestCase):
    """
    Tests with memcached, a relay, and a proxy.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start them, and store a large value and a small one.
        """
        self.memcached = Memcached("-I", "4m").start()
        self.addCleanup(self.memcached.stop)
        self.relay = Relay(self.memcached.address).start()
        self.addCleanup(self.relay.stop)
        options = ("--max-item-size=4m", "--pool-size=2", f"--request-timeout={TIMEOUT}")
        self.proxy = Proxy(*options, upstream=[self.relay.address]).start()
        self.addCleanup(self.proxy.stop)
        self.large = b"VALUE large 0 %d\r\n%s\r\nEND\r\n" % (SIZE, b"x" * SIZE)
        self.small = b"VALUE small 0 3\r\nyes\r\nEND\r\n"
        for reply in (self.large, self.small):
            request = b"set %s\r\n" % reply.removeprefix(b"VALUE ").removesuffix(b"\r\nEND\r\n").replace(
                b" 0 ", b" 0 0 "
            )
            self.assertEqual(ask(self.memcached.address, request), b"STORED\r\n")

    def test_allServed(self) -> None:
        """
        Clients that fetch large values at once are all served, and so are the small requests behind them on the shared
        connections. It is no different from memcached without the proxy.
        """
        self.relay.set(SLOW)
        for address in (self.relay.address, self.proxy.address):
            begin = time.monotonic()
            with ThreadPoolExecutor(2 * CLIENTS) as threads:
                large = [threads.submit(fetch, address, b"large") for _ in range(CLIENTS)]
                time.sleep(0.2)
                small = [threads.submit(fetch, address, b"small") for _ in range(CLIENTS)]
            self.assertEqual([each.result() == self.large for each in large], [True] * CLIENTS)
            self.assertEqual([each.result() for each in small], [self.small] * CLIENTS)
        self.assertGreater(time.monotonic() - begin, TIMEOUT, "this was no slow link for the proxy")
        self.assertNotIn("closing a connection", self.proxy.log)

    def test_silence(self) -> None:
        """
        If the link falls silent in the middle of a value, its client is closed soon, and a request behind it gets an
        error.
        """
        self.relay.set(trickle(0.05, 1 << 14))
        with connect(self.proxy.address) as client:
            client.sendall(b"get large\r\n")
            client.recv(1)
            time.sleep(1.5 * TIMEOUT)
            self.relay.set(FREEZE)
            rest = exchange(client, b"", b"END\r\n")
        self.assertTrue((1 << 16) < len(rest) < SIZE)
        self.assertIn(f"no answer within {TIMEOUT:g} s", self.proxy.log)
