# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.requests}.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import Factory

from tests.pools import Client, PoolCase
from txconnpool.errors import ClientNotOwned, PoolClosed, ServerUnavailable
from txconnpool.pool import Pool, PooledClientFactory
from txconnpool.routing.distribution import Distribution, ServerSpec
from txconnpool.routing.servers import Server

LABELS = ("a", "b", "c")
KEYS = [b"key:%d" % number for number in range(20)]


class Announcing(Client):
    """
    A client that reports that it is connected.
    """

    factory: Any

    def connectionMade(self) -> None:
        self.factory.connectionPool.clientFree(self)


class AnnouncingFactory(PooledClientFactory):
    """
    The factory of these clients.
    """

    protocol = Announcing


class PoolTests(PoolCase):
    """
    Tests for L{Pool}.
    """

    def setUp(self) -> None:
        """
        Make two more servers.
        """
        super().setUp()
        self.another("second")
        self.another("third")

    def keyed(self, **options: Any) -> Pool[Any]:
        """
        @return: a pool of three servers that share the keys.
        """
        options.setdefault("clientFactory", Factory.forProtocol(Client))
        servers = [Server(server, label=label) for server, label in zip(self.servers, LABELS, strict=True)]
        pool: Pool[Any] = Pool(servers, reactor=self.reactor, distribution="ketama", **options)
        self.addCleanup(self.finish, pool)
        return pool

    def ownerOf(self, key: bytes) -> int:
        """
        @return: the index of the server of a key.
        """
        return Distribution("ketama").build([ServerSpec(label=label) for label in LABELS]).locate(key)

    def test_equal(self) -> None:
        """
        Without a distribution the servers are equal: requests need no key, and one is allowed.
        """
        pool: Pool[Any] = Pool(self.servers, reactor=self.reactor, clientFactory=Factory.forProtocol(Client))
        self.addCleanup(self.finish, pool)
        answers = [pool.performRequest("add", 1, 2, start=3), pool.forKey("k").performRequest("add", 4)]
        self.reactor.turns()
        self.assertEqual([self.successResultOf(answer) for answer in answers], [6, 4])

    def test_forKey(self) -> None:
        """
        A request goes to the server of its key.
        """
        pool = self.keyed(pipelineDepth=100, maxClients=3)
        expected: list[list[str]] = [[], [], []]
        answers = []
        for key in KEYS:
            expected[self.ownerOf(key)].append(key.decode())
            answers.append(pool.forKey(key).performRequest("ask", key.decode()))
        self.reactor.turns()
        self.assertEqual([[word for line in server.open for word in line.asked] for server in self.servers], expected)
        for server in self.servers:
            for line in server.open:
                line.answer(*line.asked)
        self.reactor.turns()
        self.assertEqual([self.successResultOf(answer) for answer in answers], [key.decode() for key in KEYS])
        self.assertEqual((pool.stats.connections, pool.stats.inFlight), (3, 0))

    def test_ownParameters(self) -> None:
        """
        No parameter of ours collides with the keywords that are passed on to the client's method, or to the function
        of the caller.
        """

        def everything(*args: Any, **kwargs: Any) -> dict[str, Any]:
            return kwargs

        class Anything(Client):
            """
            A client whose method takes any keywords.
            """

            def ask(self, **kwargs: Any) -> Any:  # type: ignore[override]
                return kwargs

        keywords = dict.fromkeys(
            ("method", "f", "client", "self", "key", "pool", "args", "kwargs", "func", "name", "callable"), 1
        )
        asked = {name: 1 for name in keywords if name != "self"}
        pools: list[Pool[Any]] = [
            Pool(self.servers, reactor=self.reactor, clientFactory=Factory.forProtocol(Anything)),
            self.keyed(clientFactory=Factory.forProtocol(Anything)),
        ]
        self.addCleanup(self.finish, pools[0])
        for face in (pools[0], pools[1].forKey("k")):
            results: list[Any] = [face.performRequest("ask", **asked), face.withConnection(everything, **keywords)]
            self.reactor.turns()
            self.assertEqual([self.successResultOf(each) for each in results], [asked, keywords])

    def test_leases(self) -> None:
        """
        A lease for a key has a client of its server, and is ended by the pool.
        """
        pool = self.keyed()

        async def use(key: bytes) -> tuple[int, int]:
            async with pool.forKey(key).connection() as client:
                return pool.stats.busy, next(i for i, each in enumerate(pool._pools) if each.isMine(client))

        for key in KEYS[:5]:
            used = pool.forKey(key).withConnection(lambda client: client.add(1, 2))
            self.reactor.turns()
            self.assertEqual(self.successResultOf(used), 3)
            done = ensureDeferred(use(key))
            self.reactor.turns()
            self.assertEqual(self.successResultOf(done), (1, self.ownerOf(key)))
        client = self.successResultOf(pool.forKey(KEYS[0]).acquire())
        pool.release(client)
        self.assertRaises(ClientNotOwned, pool.release, client)

    def test_withoutKey(self) -> None:
        """
        Requests and leases without a key are a mistake if the servers share the keys.
        """
        pool = self.keyed()
        for call in (pool.acquire, pool.acquireNow, pool.connection):
            self.assertIn("use forKey(key)", str(self.assertRaises(TypeError, call)))
        self.assertRaises(TypeError, pool.performRequest, "ask", "x")
        self.assertRaises(TypeError, pool.withConnection, len)

    def test_announcing(self) -> None:
        """
        Clients that announce themselves do it to the pool.
        """
        pool = self.keyed(clientFactory=AnnouncingFactory)
        answer = pool.forKey(KEYS[0]).performRequest("add", 1)
        self.reactor.turns()
        self.assertEqual(self.successResultOf(answer), 1)
        (client,) = pool.connections
        self.assertIs(client.factory.connectionPool, pool)
        pool.clientBusy(client)
        self.assertEqual(pool.stats.busy, 1)
        pool.clientFree(client)
        self.assertEqual(pool.stats.busy, 0)
        pool.clientGone(client)
        self.reactor.turns()
        self.assertEqual(pool.connections, [])

    def test_closed(self) -> None:
        """
        A closed pool accepts nothing.
        """
        pool = self.keyed()
        pool.close()
        self.reactor.turns()
        results = [pool.forKey(KEYS[0]).performRequest("ask", "x"), pool.forKey(KEYS[0]).acquire()]
        self.assertEqual(self.errors(*results), [PoolClosed] * 2)

    def test_nobody(self) -> None:
        """
        Some clients try a few servers for a key, and then none: if those are down, requests and leases fail at once.
        """
        for number in range(7):
            self.another(f"more{number}")
        pool: Pool[Any] = Pool(
            self.servers, reactor=self.reactor, distribution="python-memcached", onFailure="rehash", ejectAfter=1,
            minLiveServers=1, whenDown=1, maxClients=10, clientFactory=Factory.forProtocol(Client),
        )  # fmt: skip
        self.addCleanup(self.finish, pool)
        for server in self.servers[1:]:
            server.mode = "refuse"
        for number in range(200):
            pool.forKey(f"key{number}").performRequest("add", 1).addErrback(lambda failure: None)
            self.reactor.turns(2)
        failed: list[bytes] = []
        for number in range(200):
            try:
                pool._poolOf(b"key%d" % number)
            except ServerUnavailable:
                failed.append(b"key%d" % number)
        self.assertTrue(failed)
        face = pool.forKey(failed[0])
        self.assertEqual(self.errors(face.performRequest("ask", "x"), face.acquire()), [ServerUnavailable] * 2)

    def test_block(self) -> None:
        """
        C{async with} starts the pool and closes it, also with one server; C{ready} waits for its connections.
        """
        for pool in (self.keyed(), Pool(self.server, reactor=self.reactor, clientFactory=Factory.forProtocol(Client))):

            async def use(pool: Pool[Any]) -> int:
                async with pool:
                    await pool.ready(len(pool.servers))
                    return int(pool.stats.connections)

            used = ensureDeferred(use(pool))
            self.reactor.turns()
            self.assertEqual(self.successResultOf(used), len(pool.servers))
            self.assertEqual(pool.stats.connections, 0)
            self.failureResultOf(pool.forKey(b"k").acquire(), PoolClosed)

    def test_clientFailed(self) -> None:
        """
        When a client reports that it could not connect, its server is not dialed for a while, and the client is not
        used any more.
        """
        pool: Pool[Any] = Pool(self.server, reactor=self.reactor, clientFactory=Factory.forProtocol(Client))
        self.addCleanup(self.finish, pool)
        answer = pool.performRequest("add", 1)
        self.reactor.turns()
        self.assertEqual(self.successResultOf(answer), 1)
        (client,) = pool.connections
        pool.clientFailed(client, SimpleNamespace(getDestination=lambda: self.server))
        self.reactor.turns()
        self.assertEqual(pool.connections, [])
        self.assertEqual([server.failures for server in pool.servers], [1])

    def test_wrong(self) -> None:
        """
        Wrong options are errors of the constructor.
        """
        self.assertRaises(TypeError, Pool, self.servers, reactor=self.reactor)
        error = self.assertRaises(TypeError, Pool, self.servers, reactor=self.reactor, maxWait=1,
                                  clientFactory=Factory.forProtocol(Client))  # fmt: skip
        self.assertIn("Pool has no parameter 'maxWait'", str(error))
        error = self.assertRaises(ValueError, Pool, ["tcp:a:1", "tcp:b:1"], reactor=self.reactor, hash="md5",
                                  clientFactory=Factory.forProtocol(Client))  # fmt: skip
        self.assertIn("round-robin hashes no keys", str(error))
