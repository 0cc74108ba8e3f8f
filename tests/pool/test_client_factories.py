# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the client factories of L{txconnpool.pool.library.RequestPool}, and for what clients report.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.protocol import Factory, Protocol

from tests.pools import Client, PoolCase
from txconnpool.errors import (
    ClientNotOwned,
)
from txconnpool.pool import Pool, PooledClientFactory
from txconnpool.pool.library import RequestPool


class ClientFactoryTests(PoolCase):
    """
    Tests for C{clientFactory}, and for the methods that clients call.
    """

    def test_none(self) -> None:
        """
        Without a factory, or with an object that is none, a pool cannot be made.
        """
        for wrong in (None, Client, Protocol, PooledClientFactory(), object()):
            text = str(self.assertRaises(TypeError, self.pool, clientFactory=wrong))
            self.assertIn(repr(wrong), text)

    def test_attribute(self) -> None:
        """
        A subclass may set the attribute C{clientFactory}.
        """

        class EchoPool(Pool[Client]):
            clientFactory = Factory.forProtocol(Client)

        pool = EchoPool(self.server, reactor=self.reactor)
        self.addCleanup(self.finish, pool)
        answer = pool.performRequest("add", 1)
        self.reactor.turns()
        self.assertEqual((self.successResultOf(answer), pool.name), (1, "EchoPool"))

    def test_announcing(self) -> None:
        """
        A client of a L{PooledClientFactory} is used when it has announced itself, by either way or both.
        """
        for each in (("free",), ("deferred",), ("free", "deferred"), ("deferred", "free")):

            class Announcing(Client):
                ways: tuple[str, ...] = each
                factory: Any

                def connectionMade(self) -> None:
                    for way in self.ways:
                        if way == "free":
                            self.factory.connectionPool.clientFree(self)
                        else:
                            self.factory.deferred.callback(self)

            class AnnouncingFactory(PooledClientFactory):
                protocol = Announcing

            pool = self.pool(clientFactory=AnnouncingFactory, maxClients=1)
            answers = [pool.performRequest("ask", word) for word in "ab"]
            self.reactor.turns()
            (line,) = self.server.open
            self.assertEqual(line.asked, ["a"])
            line.answer("A", "B")
            self.assertEqual([self.successResultOf(answer) for answer in answers], ["A", "B"])
            self.finish(pool)

    def silent(self, **options: Any) -> RequestPool[Any]:
        """
        @return: a pool whose clients do not announce themselves.
        """

        class SilentFactory(PooledClientFactory):
            protocol = Client

        return self.pool(clientFactory=SilentFactory, maxClients=1, **options)

    def test_neverAnnounced(self) -> None:
        """
        A client that never announces itself fails the dial, and the error says why.
        """
        pool = self.silent(connectTimeout=3.0, whenDown=1)
        asked = pool.performRequest("ask", "x")
        self.reactor.turns()
        self.assertNoResult(asked)
        self.reactor.advance(3)
        self.assertIn("the client called neither clientFree nor its factory's deferred", str(self.error(asked)))

    def test_deferredFails(self) -> None:
        """
        A client may report by C{factory.deferred} that it will never be ready.
        """
        pool = self.silent(whenDown=1)
        asked = pool.performRequest("ask", "x")
        self.reactor.turns()
        self.server.open[0].protocol.connection.factory.deferred.errback(LookupError("no such user"))
        self.assertIn("no such user", str(self.error(asked)))
        self.reactor.advance(1)
        factory = self.server.open[0].protocol.connection.factory
        pool.close()
        factory.deferred.errback(LookupError("too late"))

    def test_configured(self) -> None:
        """
        A new client is configured before it is used.
        """

        async def login(client: Client) -> None:
            if await client.ask("login") != "welcome":
                raise LookupError("no such user")

        pool = self.pool(configure=login, maxClients=1, whenDown=1)
        asked = pool.performRequest("ask", "x")
        self.reactor.turns()
        self.server.open[0].answer("go away")
        self.assertIn("no such user", str(self.error(asked)))
        self.reactor.advance(1)
        self.server.open[0].answer("welcome")
        self.ask(pool)
        self.assertEqual(self.server.open[0].asked, ["login", "x"])

    def test_spurious(self) -> None:
        """
        Whatever clients report, and however often, no connection is given to two callers (scenario 28).
        """
        pool = self.silent()
        asked = pool.performRequest("ask", "a")
        waiting = pool.performRequest("ask", "b")
        self.reactor.turns()
        (line,) = self.server.open
        client = line.protocol.connection
        for _ in range(3):
            pool.clientFree(client)
            pool.clientFree(object())
            pool.clientBusy(object())
            pool.clientBusy(client)
            pool.clientGone(object())
        self.assertEqual(line.asked, ["a"])
        line.answer("A", "B")
        self.assertEqual([self.successResultOf(each) for each in (asked, waiting)], ["A", "B"])
        lent = self.successResultOf(pool.acquire())
        for f in (pool.clientFree, pool.clientBusy, pool.clientFree):
            f(lent)
        self.assertIsNone(pool.acquireNow())
        pool.release(lent)
        line.lose()
        for f in (pool.clientFree, pool.clientBusy, pool.clientGone, pool.clientGone):
            f(client)
        self.assertEqual(pool.state.records, [])
        pool.selfCheck()

    def test_busy(self) -> None:
        """
        An idle client that reports that it is busy is not used until it reports that it is free.
        """
        pool = self.pool(maxClients=1)
        lent = pool.acquire()
        self.reactor.turns()
        client = self.successResultOf(lent)
        pool.release(client)
        for _ in range(2):
            pool.clientBusy(client)
        waiting = pool.performRequest("add", 1)
        self.assertNoResult(waiting)
        self.assertRaises(ClientNotOwned, pool.release, client)
        pool.clientFree(client)
        self.assertEqual(self.successResultOf(waiting), 1)
        pool.clientBusy(client)
        self.server.open[0].lose()
        self.assertEqual(pool.state.records, [])
        pool.selfCheck()

    def test_failed(self) -> None:
        """
        When a client reports that it could not connect, its server is not dialed for a while, and the client is not
        used any more.
        """
        other = self.another("other")
        pool = self.pool(self.server, other)
        acquired = pool.acquire()
        self.reactor.turns()
        client = self.successResultOf(acquired)
        connector = SimpleNamespace(getDestination=lambda: self.server)
        pool.clientFailed(None, connector)
        self.assertEqual([server.failures for server in pool.servers], [1, 0])
        pool.clientFailed(client, connector)
        pool.release(client)
        self.reactor.turns()
        self.assertEqual(self.server.open, [])
        self.ask(pool)
        self.reactor.turns()
        self.assertEqual((self.server.dials, other.dials), (1, 1))
        self.assertRaises(ValueError, pool.removeServerFromRotation, ("elsewhere", 1))

    def test_gone(self) -> None:
        """
        A client that was reported as gone gets no more requests. It is closed when its request has a reply.
        """
        pool = self.pool(maxClients=1)
        asked, waiting = pool.performRequest("ask", "a"), pool.performRequest("ask", "b")
        self.reactor.turns()
        pool.clientGone(self.server.open[0].protocol.connection)
        self.server.open[0].answer("A")
        self.reactor.turns()
        self.assertEqual([line.asked for line in self.server.lines], [["a"], ["b"]])
        self.server.open[0].answer("B")
        self.assertEqual([self.successResultOf(each) for each in (asked, waiting)], ["A", "B"])
