# Copyright txconnpool contributors. See LICENSE.
"""
Tests for sessions that go on with another router: keys are distributed among several servers from now on, or no longer.
"""

from __future__ import annotations

import random

from twisted.internet.defer import Deferred

from tests.clients import SessionTestCase, get
from tests.memcached import answer
from tests.pipes import Pipe
from tests.proxy.test_sharding import anyRequest
from tests.stage import ShardedStage, Stage, assertTidy
from txconnpool.proxy.session import Session
from txconnpool.proxy.sharding import ShardedSession
from txconnpool.routing.single import SinglePool


class ReroutingTests(SessionTestCase):
    """
    Tests for L{SessionFactory.reroute<txconnpool.proxy.sessions.SessionFactory.reroute>}.
    """

    def setUp(self) -> None:
        """
        Create a pool with one server and clients, and one with several servers.
        """
        self.one = self.stage()
        self.several = ShardedStage(3)
        self.stages: dict[bool, Stage] = {False: self.one, True: self.several}
        self.addCleanup(self.tidy)

    def tidy(self) -> None:
        """
        Assert that nothing is left in the second pool.
        """
        for pool in self.several.pool.pools:
            assertTidy(self, pool)

    def serve(self) -> None:
        """
        Let all servers reply.
        """
        for _ in range(3):
            for stage in self.stages.values():
                stage.serve()

    def reroute(self, keyed: bool = True) -> Deferred[None]:
        """
        Let the clients use one of the pools.
        """
        return self.one.sessions.reroute(self.several.pool if keyed else SinglePool(self.one.pool))

    def session(self) -> Session:
        """
        @return: the session of the only client.
        """
        (session,) = self.one.sessions.sessions
        return session

    def ask(self, client: Pipe, request: bytes) -> bytes:
        """
        @return: the reply to a request.
        """
        client.send(request)
        self.serve()
        return client.take()

    def test_idle(self) -> None:
        """
        A client that waits for nothing uses the other router at once, for single keys and for several.
        """
        client = self.one.client()
        self.assertEqual(self.ask(client, b"get a1\r\n"), get(b"a1"))
        self.successResultOf(self.reroute())
        self.assertIs(type(self.session()), ShardedSession)
        self.assertEqual(self.ask(client, b"get a1\r\nget a2\r\n"), get(b"a1", b"a2"))
        self.assertEqual(self.ask(client, b"get a0 a1 a2\r\n"), answer(b"get a0 a1 a2\r\n")[0])
        self.assertEqual([line.asked for line in self.one.lines], [[b"get a1\r\n"]])
        self.successResultOf(self.reroute(False))
        self.assertIs(type(self.session()), Session)
        self.assertEqual(self.ask(client, b"get a0 a1\r\n"), answer(b"get a0 a1\r\n")[0])
        self.assertEqual(self.one.lines[0].asked[1:], [b"get a0 a1\r\n"])

    def test_busy(self) -> None:
        """
        Requests in flight are answered first. Requests that come meanwhile are kept, and are sent to other servers.
        """
        client = self.one.client()
        client.send(b"get a0\r\nget b")
        rerouted = self.reroute()
        self.assertNoResult(rerouted)
        client.send(b"1\r\nget c2\r\nget d")
        self.several.serve()
        self.assertEqual(client.take(), b"")
        self.serve()
        self.assertEqual(client.take(), get(b"a0", b"b1", b"c2"))
        self.successResultOf(rerouted)
        self.assertEqual(self.ask(client, b"0\r\n"), get(b"d0"))
        self.assertEqual([line.asked for line in self.one.lines], [[b"get a0\r\n"]])

    def test_waiting(self) -> None:
        """
        A client that waits for a connection waits for one of the other servers from now on.
        """
        self.one.pool.pause()
        client = self.one.client()
        client.send(b"get a1\r\n")
        self.successResultOf(self.reroute())
        self.assertEqual(self.one.pool.waiters.count, 0)
        self.serve()
        self.assertEqual(client.take(), get(b"a1"))
        self.one.pool.resume()

    def test_twice(self) -> None:
        """
        If the router changes again meanwhile, the last one is used.
        """
        client = self.one.client()
        client.send(b"get a0\r\n")
        first, second = self.reroute(), self.reroute(False)
        client.send(b"get a1\r\n")
        self.serve()
        self.assertEqual(client.take(), get(b"a0", b"a1"))
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual([line.asked for line in self.several.lines if line.asked], [])

    def test_halfClosed(self) -> None:
        """
        A client that sends nothing more gets all replies.
        """
        client = self.one.client()
        client.send(b"get a0\r\n")
        rerouted = self.reroute()
        client.send(b"get a1\r\n")
        client.protocol.readConnectionLost()
        self.serve()
        self.assertEqual(client.take(), get(b"a0", b"a1"))
        self.assertFalse(client.connected)
        self.successResultOf(rerouted)

    def test_gone(self) -> None:
        """
        Clients that leave are not waited for.
        """
        client, other = self.one.client(), self.one.client()
        for each in (client, other):
            each.send(b"get a0\r\n")
        rerouted = self.reroute()
        client.lose()
        self.assertNoResult(rerouted)
        other.lose()
        self.successResultOf(rerouted)
        self.serve()

    def test_dropping(self) -> None:
        """
        A request that is too large is dropped to its end.
        """
        client = self.one.client()
        client.send(b"get a0\r\nset b0 0 0 2000000\r\nxx")
        self.reroute()
        client.send(b"x" * 1999998)
        self.serve()
        self.assertEqual(client.take(), get(b"a0"))
        client.send(b"\r\nget a1\r\n")
        self.serve()
        self.assertEqual(client.take(), b"SERVER_ERROR object too large for cache\r\n" + get(b"a1"))

    def test_random(self) -> None:
        """
        Whatever clients send while the router changes, each gets the replies to its requests in order.
        """
        for seed in range(40):
            rng = random.Random(seed)
            clients = [(self.one.client(), bytearray()) for _ in range(3)]
            received = {client: b"" for client, _ in clients}
            keyed = False
            for _ in range(60):
                kind = rng.randrange(10)
                client, expected = rng.choice(clients)
                if kind < 6:
                    request, reply = anyRequest(rng)
                    expected += reply
                    client.send(request)
                elif kind < 8:
                    stage = rng.choice(list(self.stages.values()))
                    stage.turns()
                    for line in stage.lines:
                        line.deliver()
                else:
                    keyed = not keyed
                    self.reroute(keyed)
            self.serve()
            for client, expected in clients:
                received[client] += client.take()
                self.assertEqual(received[client], bytes(expected), f"seed {seed}")
                self.assertTrue(client.connected)
                client.lose()
