# -*- test-case-name: tests.real.test_order -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests of the proxy in front of twemproxy with several servers, which does not send the values of one request in the
order of the keys if some are missing.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.real import load
from tests.real.servers import Address, Memcached, Nutcracker, Proxy, ask, missing

#: Shares of requests with many pipelined gets, and many keys that hold nothing.
KINDS = {"get": 60, "gets": 5, "many": 15, "set": 10, "quiet": 2, "delete": 8}


class OrderTests(SynchronousTestCase):
    """
    Tests with three memcacheds behind twemproxy, behind the proxy.
    """

    skip = missing("memcached", "nutcracker")

    def setUp(self) -> None:
        """
        Start the servers.
        """
        servers = [Memcached("-t", "1") for _ in range(3)]
        for server in servers:
            self.addCleanup(server.start().stop)
        # Its default hash sends keys that differ only at the end to the same server.
        self.nutcracker = Nutcracker(upstream=[server.address for server in servers], settings=["hash: md5"]).start()
        self.addCleanup(self.nutcracker.stop)

    def proxy(self, upstream: Address) -> Proxy:
        """
        Start a proxy.
        """
        proxy = Proxy("--pool-size", "2", upstream=[upstream]).start()
        self.addCleanup(proxy.stop)
        return proxy

    def disordered(self, address: Address) -> list[bytes]:
        """
        @return: keys, of which the first one is missing, and for which the server does not return the values in order.
        """
        for number in range(100):
            keys = [b"%d:%d" % (number, key) for key in range(10)]
            for key in keys[1:]:
                self.assertEqual(ask(address, b"set %b 0 0 %d\r\n%b\r\n" % (key, len(key), key)), b"STORED\r\n")
            reply = ask(address, b"get %b\r\n" % b" ".join(keys), b"END\r\n")
            found = re.findall(rb"VALUE (\S+)", reply)
            self.assertEqual(sorted(found), keys[1:])
            if found != keys[1:]:
                return keys
        raise AssertionError("twemproxy keeps the order")

    def assertNoViolations(self, proxy: Proxy) -> None:
        """
        Assert that no connection was closed because of unexpected bytes.
        """
        self.assertIn(b"STAT protocol_errors 0\r\n", ask(proxy.address, b"stats proxy\r\n", b"END\r\n"))

    def test_replies(self) -> None:
        """
        The values of a multi-get are passed on in the order of the server. The replies to pipelined gets are in the
        order of the requests.
        """
        keys = self.disordered(self.nutcracker.address)
        proxy = self.proxy(self.nutcracker.address)
        several = b"get %b\r\n" % b" ".join(keys)
        self.assertEqual(ask(proxy.address, several, b"END\r\n"), ask(self.nutcracker.address, several, b"END\r\n"))
        gets = b"".join(b"get %b\r\n" % key for key in keys)
        # The first requests of a client are not merged, as its window is small.
        requests = b"version\r\n" + gets * 3 + b"delete nothing\r\n"
        replies = b"END\r\n" + b"".join(b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(key), key) for key in keys[1:])
        reply = ask(proxy.address, requests, b"NOT_FOUND\r\n")
        self.assertEqual(reply.partition(b"\r\n")[2], replies * 3 + b"NOT_FOUND\r\n")
        self.assertNoViolations(proxy)

    def check(self, proxy: Proxy, **settings: object) -> None:
        """
        Run a load of pipelined gets and multi-gets, of which many are misses, and check all replies.
        """
        self.disordered(proxy.address)
        report = load.run(
            proxy.address, seconds=600.0, requests=100, anyOrder=True, kinds=KINDS, depth=32, keys=16, **settings
        )
        self.assertEqual(report["wrong"], [])
        self.assertEqual(report["errors"], {})
        for what in ("wrongs", "stuck", "lost", "halved", "closed", "refused", "ignored"):
            self.assertEqual(report[what], 0, what)
        self.assertEqual(report["connected"], report["clients"])
        self.assertGreater(report["missed"], 100)
        self.assertNoViolations(proxy)

    def test_clients(self) -> None:
        """
        Many clients get no error and no wrong reply.
        """
        self.check(self.proxy(self.nutcracker.address), clients=100)

    def test_large(self) -> None:
        """
        Large values, whose replies arrive in many pieces, do not either.
        """
        self.check(self.proxy(self.nutcracker.address), clients=20, sizes=(50, 20000, 100000))

    def test_twoProxies(self) -> None:
        """
        Two proxies in a row do the same.
        """
        self.check(self.proxy(self.proxy(self.nutcracker.address).address), clients=50)
