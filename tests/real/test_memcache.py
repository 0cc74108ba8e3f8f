# -*- test-case-name: tests.real.test_memcache -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{MemCachePool} with a real memcached and the real reactor.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint, clientFromString, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.protocols.memcache import ClientError, MemCacheProtocol, NoSuchCommand, ServerError
from twisted.protocols.wire import Echo
from twisted.trial.unittest import TestCase

from tests.real.servers import HOST, PATIENT, Memcached, Nutcracker, Proxy, Server, freePort, missing
from txconnpool.errors import ConnectionLostInFlight, PoolClosed, PoolError, PoolTimeout, ServerUnavailable
from txconnpool.memcache.pool import MemCachePool


def pause(seconds: float) -> Deferred[None]:
    """
    Let the reactor run for some time.
    """
    return deferLater(reactor, seconds, lambda: None)


class RealTests(TestCase):
    """
    Base class of tests with a memcached and a pool.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start memcached.
        """
        self.memcached = Memcached().start()
        self.addCleanup(self.memcached.stop)
        self.pool = self.makePool(self.memcached)

    def makePool(self, *servers: Server, **settings: Any) -> MemCachePool:
        """
        Create a pool of some servers, which is closed at the end of the test.
        """
        pool = MemCachePool([server.endpoint for server in servers], **{**PATIENT, **settings})
        self.addCleanup(pool.close)
        return pool


class CommandTests(RealTests):
    """
    Tests for commands.
    """

    async def test_asMemCacheProtocol(self) -> None:
        """
        Every command of C{MemCacheProtocol} has the same result.
        """
        calls: list[tuple[Any, ...]] = [
            *(("set", b"a", b"1"), ("set", b"a", b"2", 7, 100), ("add", b"a", b"3"), ("add", b"b", b"3", 1, 100)),
            *(("replace", b"b", b"4"), ("replace", b"c", b"4"), ("append", b"b", b"5"), ("append", b"c", b"5")),
            *(("prepend", b"b", b"6"), ("prepend", b"c", b"6"), ("get", b"a"), ("get", b"c"), ("get", b"c", True)),
            *(("getMultiple", [b"a", b"b", b"c"]), ("checkAndSet", b"a", b"8", b"0"), ("increment", b"a")),
            *(("increment", b"a", 20), ("increment", b"c"), ("decrement", b"a", 200), ("decrement", b"c")),
            *(("delete", b"a"), ("delete", b"a"), ("version",), ("flushAll",), ("get", b"b")),
        ]
        endpoint = clientFromString(reactor, self.memcached.endpoint)
        other = Memcached().start()
        self.addCleanup(other.stop)
        endpoint = clientFromString(reactor, other.endpoint)
        protocol = await connectProtocol(endpoint, MemCacheProtocol())
        for name, *arguments in calls:
            theirs = await getattr(protocol, name)(*arguments)
            self.assertEqual((name, arguments, await getattr(self.pool, name)(*arguments)), (name, arguments, theirs))
        protocol.transport.loseConnection()

    async def test_identifiers(self) -> None:
        """
        C{checkAndSet} stores a value if the item has not changed since its identifier was read.
        """
        pool = self.pool
        await pool.set("k", b"1")
        _, cas, _ = await pool.get("k", withIdentifier=True)
        self.assertEqual((await pool.getMultiple(["k"], True))["k"], (0, cas, b"1"))
        self.assertTrue(await pool.checkAndSet("k", b"2", cas))
        self.assertFalse(await pool.checkAndSet("k", b"3", cas))
        self.assertEqual(await pool.get("k"), (0, b"2"))
        self.assertNotEqual((await pool.gets("k"))[1], cas)

    async def test_touch(self) -> None:
        """
        The expiration time of a value can be changed, alone or together with a read.
        """
        pool = self.pool
        await pool.set("k", b"v", 5)
        self.assertEqual(await pool.getAndTouch("k", 100), (5, b"v"))
        self.assertEqual(len(await pool.getAndTouch("k", 100, True)), 3)
        self.assertEqual(await pool.getAndTouch("x", 100), (0, None))
        self.assertEqual((await pool.touch("k", 100), await pool.touch("x", 100)), (True, False))
        self.assertTrue(await pool.touch("k", -1))
        self.assertEqual(await pool.get("k"), (0, None))

    async def test_stats(self) -> None:
        """
        All kinds of statistics are returned as dictionaries.
        """
        await self.pool.set("k", b"v")
        self.assertEqual((await self.pool.serverStats())[b"curr_items"], b"1")
        self.assertIn(b"items:1:number", await self.pool.serverStats("items"))
        self.assertEqual((await self.pool.serverStats("settings"))[b"maxconns"], b"1024")
        self.assertEqual(await self.pool.serverStats("reset"), {})
        self.assertEqual(await self.pool.serverStats("detail on"), {})
        await self.pool.get("a:b")
        self.assertEqual(await self.pool.serverStats("detail dump"), {b"a": b"get 1 hit 0 set 0 del 0"})

    async def test_sizes(self) -> None:
        """
        Values of all sizes are returned unchanged. A value that is too large for the server is an error of the server,
        and the connection remains usable.
        """
        pool = self.makePool(self.memcached, maxClients=1, maxItemSize=1 << 22)
        for size in (0, 1, 1000, 1 << 16, (1 << 20) - 200):
            value = bytes(range(256)) * (size // 256) + b"\n" * (size % 256)
            self.assertTrue(await pool.set("k", value))
            self.assertEqual(await pool.get("k"), (0, value))
        error = await self.assertFailure(pool.set("k", b"x" * (1 << 21)), ServerError)
        self.assertEqual(str(error), "object too large for cache")
        self.assertEqual(await pool.get("k"), (0, None))
        self.assertEqual((pool.stats.dials, pool.stats.lost), (1, 0))

    async def test_errors(self) -> None:
        """
        An error of the server fails its request, and the connection remains usable.
        """
        pool = self.makePool(self.memcached, maxClients=1)
        await pool.set("k", b"text")
        error = await self.assertFailure(pool.increment("k"), ClientError)
        self.assertEqual(str(error), "cannot increment or decrement non-numeric value")
        await self.assertFailure(pool.serverStats("cachedump"), ClientError)
        self.assertEqual(await pool.get("k"), (0, b"text"))
        self.assertEqual(pool.stats.dials, 1)

    async def test_noSuchCommand(self) -> None:
        """
        A command that the server does not know fails with C{NoSuchCommand}.
        """
        old = Memcached("-F").start()
        self.addCleanup(old.stop)
        pool = self.makePool(old)
        await pool.set("k", b"v")
        await self.assertFailure(pool.flushAll(), ClientError, NoSuchCommand)
        self.assertEqual(await pool.get("k"), (0, b"v"))

    async def test_manyCallers(self) -> None:
        """
        A thousand concurrent callers each get the value of their key.
        """

        async def work(number: int) -> None:
            key = f"key{number}"
            self.assertEqual(await self.pool.get(key), (0, None))
            self.assertTrue(await self.pool.set(key, b"%d" % number, number))
            self.assertEqual(await self.pool.get(key), (number, b"%d" % number))
            self.assertEqual(await self.pool.increment(key, 7), number + 7)
            value = (await self.pool.getMultiple([key, "x"]))[key][1]
            assert value is not None
            self.assertEqual(value.strip(), b"%d" % (number + 7))
            self.assertTrue(await self.pool.delete(key))

        await gatherResults([Deferred.fromCoroutine(work(number)) for number in range(1000)])
        stats = self.pool.stats
        self.assertEqual((stats.inFlight, stats.waiting, stats.lost), (0, 0, 0))
        self.assertLessEqual(stats.dials, 5)

    async def test_together(self) -> None:
        """
        Concurrent gets of one reactor turn are one request for the server.
        """
        await self.pool.version()
        await gatherResults([self.pool.get(f"key{number}") for number in range(50)])
        stats = self.memcached.stats()
        self.assertEqual((stats["cmd_get"], stats["get_misses"]), ("50", "50"))
        self.assertEqual(self.pool.servers[0].traffic.requests[:1], [1])


class AddressTests(RealTests):
    """
    Tests for the addresses of servers.
    """

    async def test_address(self) -> None:
        """
        The pool of the README of 0.1.2 works, with all kinds of addresses.
        """
        address = self.memcached.address
        assert isinstance(address, tuple)
        host, port = address
        for server in (IPv4Address("TCP", host, port), (host, port), f"tcp:{host}:{port}", [(host, port)]):
            pool = MemCachePool(server, maxClients=20)
            self.addCleanup(pool.close)
            self.assertEqual(await pool.set("some", b"value"), True)
            self.assertEqual(await pool.get("some"), (0, b"value"))

    async def test_unix(self) -> None:
        """
        The address may be a UNIX socket.
        """
        server = Memcached(address="socket").start()
        self.addCleanup(server.stop)
        pool = self.makePool(server)
        self.assertEqual(await pool.set("k", b"v" * 100_000), True)
        self.assertEqual(await pool.get("k"), (0, b"v" * 100_000))

    async def test_several(self) -> None:
        """
        With several equal servers, C{flushAll} is sent to each.
        """
        other = Memcached().start()
        self.addCleanup(other.stop)
        pool = self.makePool(self.memcached, other, distribution="round-robin")
        for server in (self.memcached, other):
            alone = self.makePool(server)
            await alone.set("k", b"v")
        self.assertIs(await pool.flushAll(), True)
        for server in (self.memcached, other):
            self.assertEqual(server.stats()["cmd_flush"], "1")

    async def test_proxy(self) -> None:
        """
        A pool works through the proxy.
        """
        proxy = Proxy(upstream=[self.memcached.address]).start()
        self.addCleanup(proxy.stop)
        pool = self.makePool(proxy)
        await gatherResults([pool.set(f"key{number}", b"%d" % number) for number in range(200)])
        answers = await gatherResults([pool.get(f"key{number}") for number in range(200)])
        self.assertEqual(answers, [(0, b"%d" % number) for number in range(200)])
        self.assertIs(await pool.flushAll(), True)

    async def test_nutcracker(self) -> None:
        """
        A pool works through twemproxy, which returns the values of one request in another order.
        """
        if reason := missing("nutcracker"):
            self.skipTest(reason)
        other = Memcached().start()
        self.addCleanup(other.stop)
        proxy = Nutcracker(upstream=[self.memcached.address, other.address], settings=["hash: md5"]).start()
        self.addCleanup(proxy.stop)
        pool = self.makePool(proxy)
        await gatherResults([pool.set(f"key{number}", b"%d" % number) for number in range(200)])
        answers = await gatherResults([pool.get(f"key{number}") for number in range(200)])
        self.assertEqual(answers, [(0, b"%d" % number) for number in range(200)])
        self.assertGreater(int(other.stats()["curr_items"]), 0)


class FailureTests(RealTests):
    """
    Tests for servers that fail.
    """

    async def test_restart(self) -> None:
        """
        A pool works again after a restart of its server, without any action of the program.
        """
        await self.pool.set("k", b"v")
        self.memcached.kill()
        await pause(0.1)
        await self.assertFailure(self.pool.set("k", b"v"), PoolError)
        self.memcached.restart()
        await self.pool.ready(1)
        self.assertEqual(await self.pool.get("k"), (0, None))

    async def test_killed(self) -> None:
        """
        Requests in flight end soon if the server dies: writes fail immediately, reads wait for another connection
        first.
        """
        pool = self.makePool(self.memcached, whenDown=1)
        await pool.version()
        self.memcached.freeze()
        answers: list[Deferred[Any]] = [pool.get("k"), pool.set("k", b"v"), pool.getMultiple(["a", "b"])]
        await pause(0.05)
        self.memcached.kill()
        await self.assertFailure(answers[0], ServerUnavailable, ConnectionLostInFlight)
        await self.assertFailure(answers[1], ConnectionLostInFlight)
        await self.assertFailure(answers[2], ServerUnavailable, ConnectionLostInFlight)

    async def test_frozen(self) -> None:
        """
        Requests to a suspended server fail after their timeout, and succeed when it answers again.
        """
        pool = self.makePool(self.memcached, requestTimeout=1.0, connectTimeout=1.0, waitTimeout=1.0)
        await pool.set("k", b"v")
        self.memcached.freeze()
        late: Deferred[Any] = self.assertFailure(pool.get("k"), PoolTimeout)
        self.assertEqual((await late).phase, "request")
        await self.assertFailure(pool.set("k", b"w"), PoolTimeout, ServerUnavailable)
        self.memcached.thaw()
        await pool.ready(1)
        self.assertEqual((await pool.get("k"))[0], 0)

    async def test_cancelled(self) -> None:
        """
        The reply to a cancelled request is discarded.
        """
        pool = self.makePool(self.memcached, maxClients=1)
        await gatherResults([pool.set(f"key{number}", b"%d" % number) for number in range(100)])
        self.memcached.freeze()
        gets = [pool.get(f"key{number}") for number in range(100)]
        counts = [pool.increment(f"key{number}") for number in range(100)]
        await pause(0.05)
        for number in range(0, 100, 2):
            for answer in (gets[number], counts[number]):
                answer.addErrback(lambda failure: None)
                answer.cancel()
        self.memcached.thaw()
        after = [pool.get(f"key{number}") for number in range(100)]
        for number in range(1, 100, 2):
            self.assertIn((await gets[number])[1], (b"%d" % number, b"%d" % (number + 1)))
            self.assertEqual(await counts[number], number + 1)
        self.assertEqual(await gatherResults(after), [(0, b"%d" % (number + 1)) for number in range(100)])

    async def test_nobodyThere(self) -> None:
        """
        If there is no server, the first request fails with the reason.
        """
        self.memcached.stop()
        pool = self.makePool(self.memcached, whenDown=1)
        error = await self.assertFailure(pool.get("k"), ServerUnavailable)
        self.assertIn("connection refused", str(error))
        self.assertIn(self.memcached.endpoint, str(error))

    async def test_notMemcached(self) -> None:
        """
        A server that does not answer like memcached, or not at all, is unavailable.
        """
        for protocol in (Echo, Protocol):
            number = freePort()
            port = await TCP4ServerEndpoint(reactor, number, interface=HOST).listen(Factory.forProtocol(protocol))
            self.addCleanup(port.stopListening)
            pool = MemCachePool((HOST, number), whenDown=1, connectTimeout=0.2)
            self.addCleanup(pool.close)
            await self.assertFailure(pool.get("k"), ServerUnavailable)

    async def test_close(self) -> None:
        """
        A closed pool completes earlier requests, and no socket remains.
        """
        async with self.makePool(self.memcached) as pool:
            await pool.version()
            answers: list[Deferred[Any]] = [pool.get("k"), pool.set("l", b"v")]
        self.assertEqual(await gatherResults(answers), [(0, None), True])
        await self.assertFailure(pool.get("k"), PoolClosed)
        self.assertEqual(pool.stats.connections, 0)
