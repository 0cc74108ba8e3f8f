# -*- test-case-name: tests.real.test_sharding -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{MemCachePool} and the proxy in front of several memcacheds that share the keys.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import DeferredList
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.real.servers import PATIENT, Memcached, Proxy, ask, connect, exchange, missing
from txconnpool.errors import PoolError
from txconnpool.memcache import MemCachePool

KEYS = [f"user:{number}" for number in range(300)]


class SeveralServersTests(TestCase):
    """
    A pool and a proxy that have the same three servers.
    """

    timeout = 120
    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start the servers.
        """
        self.servers = [Memcached().start() for _ in range(3)]
        for server in self.servers:
            self.addCleanup(server.stop)

    def makePool(self, words: list[str], **options: Any) -> MemCachePool:
        """
        @return: a pool of the servers, which is closed at the end of the test.
        """
        lines = [f"{server.endpoint} {word}" for server, word in zip(self.servers, words, strict=True)]
        pool = MemCachePool(lines, **{**PATIENT, **options})
        self.addCleanup(pool.close)
        return pool

    def startProxy(self, words: list[str], *options: str) -> Proxy:
        """
        @return: a proxy in front of the servers.
        """
        lines = [f"{server.endpoint} {word}" for server, word in zip(self.servers, words, strict=True)]
        proxy = Proxy(*options, upstream=lines).start()
        self.addCleanup(proxy.stop)
        return proxy

    def ownersOf(self, key: str) -> list[int]:
        """
        @return: the indexes of the servers that have a key.
        """
        request = b"get %b\r\n" % key.encode()
        return [
            index for index, each in enumerate(self.servers) if ask(each.address, request, b"END\r\n") != b"END\r\n"
        ]

    async def test_sameServers(self) -> None:
        """
        The pool and the proxy have each key on the same server: what one has stored, the other one finds there.
        """
        words = ["label=a", "label=b weight=2", "label=c"]
        for distribution in ("ketama", "twemproxy-modula", "libmemcached-weighted", "mcrouter"):
            if distribution == "mcrouter":
                words = ["label=a", "label=b", "label=c"]
            pool = self.makePool(words, distribution=distribution)
            proxy = self.startProxy(words, "--distribution", distribution)
            proxied = MemCachePool(proxy.endpoint, **PATIENT)
            self.addCleanup(proxied.close)
            for writer, reader, value in ((pool, proxied, b"1"), (proxied, pool, b"2")):
                await pool.flushAll()
                for key in KEYS:
                    self.assertTrue(await writer.set(key, value))
                expected = dict.fromkeys(KEYS, (0, value))
                self.assertEqual(await reader.getMultiple(KEYS), expected)
                self.assertEqual({key: await reader.get(key) for key in KEYS}, expected)
                # Not the servers' own numbers: these count items that were flushed until memcached has removed them.
                request = b"get %b\r\n" % " ".join(KEYS).encode()
                replies = [ask(server.address, request, b"END\r\n") for server in self.servers]
                counts = [reply.count(b"VALUE ") for reply in replies]
                self.assertEqual(sum(counts), len(KEYS), f"{distribution}: a key is on several servers")
                self.assertGreater(min(counts), 20)
            await proxied.close()
            await pool.close()

    async def test_oneKilled(self) -> None:
        """
        When a server is killed, only its keys fail. With C{onFailure="rehash"} the others have them after a while.
        """
        pool = self.makePool([""] * 3, whenDown=1)
        rehashing = self.makePool([""] * 3, whenDown=1, onFailure="rehash", minLiveServers=1)
        for key in KEYS:
            await pool.set(key, key.encode())
        owners = {key: self.ownersOf(key) for key in KEYS[:60]}
        self.assertEqual({len(owner) for owner in owners.values()}, {1})
        await rehashing.ready()
        self.servers[1].kill()
        found = await pool.getMultiple(list(owners))
        for key, owner in owners.items():
            self.assertEqual(found[key], (0, None) if owner == [1] else (0, key.encode()))
            try:
                value = await pool.get(key)
            except PoolError:
                self.assertEqual(owner, [1])
            else:
                self.assertEqual((value, owner == [1]), ((0, key.encode()), False))
        self.assertEqual(pool.stats.partial, 1)
        while not all(good for good, _ in await DeferredList([rehashing.set(key, b"new") for key in KEYS],
                                                             consumeErrors=True)):  # fmt: skip
            await deferLater(reactor, 0.01)
        self.assertEqual(set((await rehashing.getMultiple(KEYS)).values()), {(0, b"new")})


class LargeValuesTests(SynchronousTestCase):
    """
    A client requests more bytes at once than are held for it.
    """

    skip = missing("memcached")

    def test_served(self) -> None:
        """
        It gets all values if it reads them, also when it has several such requests in flight.
        """
        keys = [b"key:%d" % number for number in range(60)]
        value = b"v" * 100000
        with Memcached() as one, Memcached() as other, Memcached() as third:
            upstream = [one.address, other.address, third.address]
            limits = ("--max-item-size", "128k", "--session-unread-hard", "1m")
            with Proxy(*limits, upstream=upstream) as proxy, connect(proxy.address) as client:
                for key in keys:
                    stored = exchange(client, b"set %b 0 0 %d\r\n%b\r\n" % (key, len(value), value), b"\r\n")
                    self.assertEqual(stored, b"STORED\r\n")
                for _ in range(20):  # so many small replies that all keys may be requested at once
                    client.sendall(b"get none:1\r\n" * 20)
                    exchange(client, b"mn\r\n", b"MN\r\n")
                hits = b"".join(b"VALUE %b 0 %d\r\n%b\r\n" % (key, len(value), value) for key in keys)
                request = b"get %b\r\n" % b" ".join(keys)
                reply = exchange(client, request * 3 + b"mn\r\n", b"MN\r\n")
                self.assertTrue(reply == (hits + b"END\r\n") * 3 + b"MN\r\n", (len(reply), len(hits)))
