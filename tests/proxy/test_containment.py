# Copyright txconnpool contributors. See LICENSE.
"""
Tests for unexpected exceptions of the proxy when it processes replies: the clients concerned are closed and never wait.
All other clients on the same connections get their replies.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import fail

from tests.clients import get
from tests.memcached import answer
from tests.proxy.test_sharding import ShardedTestCase
from tests.proxy.test_topics import SubscriberCase, confirmed, message
from tests.redisstage import SingleRedisStage, requests
from tests.stage import Stage, assertTidy
from txconnpool.proxy.compound import SplitReply
from txconnpool.proxy.ordering import OrderedReplies
from txconnpool.proxy.parts import Part
from txconnpool.proxy.pinning import LentConnection
from txconnpool.proxy.replies import ForwardedReplies
from txconnpool.proxy.scatter import ScatteredReply
from txconnpool.wire.memcache.classic import PART_KEYS
from txconnpool.wire.topics import Hub

#: The methods of a sink, and whether they are called because the connection was lost.
METHODS = (("replied", False), ("requestsLost", True), ("afterLoss", True))


class ClientTests(ShardedTestCase):
    """
    Tests for all kinds of replies of one client.
    """

    def single(self, **settings: Any) -> Stage:
        """
        @return: a stage with one server.
        """
        stage = Stage(**settings)
        self.addCleanup(assertTidy, self, stage.pool)
        return stage

    def breaks(self, kind: Any, name: str, session: Any) -> None:
        """
        Let a method of the replies of one client raise an exception, once.
        """
        method = kind.__dict__[name]

        def broken(sink: Any, *arguments: Any) -> Any:
            if getattr(sink, "session", sink) is session:
                self.patch(kind, name, method)
                raise ZeroDivisionError(name)
            return method(sink, *arguments)

        self.patch(kind, name, broken)

    def assertContained(self, stage: Any, kind: Any, name: str, request: bytes, loses: bool = False) -> None:
        """
        Let the replies of one of three clients with requests in flight fail.
        """
        clients = [stage.client() for _ in range(3)]
        stage.clock.advance(2)  # so that a lost connection is not one that was lost as soon as it was made
        self.breaks(kind, name, clients[1].protocol)
        for client in clients:
            client.send(request)
        stage.turns()
        if loses:
            for line in stage.lines:
                line.lose()
        stage.serve()
        logged = self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual((len(logged), [client.connected for client in clients]), (1, [True, False, True]), name)
        self.assertEqual(clients[1].take(), b"")
        for client in (clients[0], clients[2]):
            self.assertEqual(client.take(), answer(request)[0], name)
            self.assertEqual(stage.ask(client, b"get a0\r\n"), get(b"a0"))

    def test_session(self) -> None:
        """
        The session itself is the sink.
        """
        for name, loses in METHODS:
            self.assertContained(self.single(), OrderedReplies, name, b"get a1\r\n", loses)

    def test_queue(self) -> None:
        """
        The entry of a queue is the sink: the first reply is one of the proxy.
        """
        for name, loses in METHODS:
            stage = self.single()
            client, other = stage.client(), stage.client()
            stage.clock.advance(2)
            self.breaks(ForwardedReplies, name, client.protocol)
            client.send(b"get a1\r\nnonsense\r\nget a2\r\n")
            other.send(b"get a1\r\n")
            stage.turns()
            if loses:
                stage.line.lose()
            stage.serve()
            self.assertEqual((client.connected, other.take()), (False, get(b"a1")), name)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1, name)

    def test_split(self) -> None:
        """
        The reply to a request that is sent as several is the sink.
        """
        request = b"get %b\r\n" % b" ".join(b"a%d" % number for number in range(2 * PART_KEYS))
        for name, loses in METHODS:
            self.assertContained(self.single(), SplitReply, name, request, loses)

    def test_parts(self) -> None:
        """
        The part of a request for the keys of several servers is the sink, alone or after it was sent together with
        those of others.
        """
        for merges in (False, True):
            for name, loses in METHODS:
                if loses or not merges:
                    self.assertContained(self.sharded(merges=merges), Part, name, b"get a0 a1\r\n", loses)
            for name, loses in (("answered", False), ("lost", True)):
                if loses or not merges:
                    self.assertContained(self.sharded(merges=merges), ScatteredReply, name, b"get a0 a1\r\n", loses)

    def test_later(self) -> None:
        """
        A reply that a function provides, such as that of all servers, may fail in any way.
        """
        for request, name in ((b"stats\r\n", "statistics"), (b"flush_all\r\n", "broadcast")):
            stage = self.sharded()
            self.patch(stage.sessions, name, lambda *_: fail(ZeroDivisionError("later")))
            client, other = stage.client(), stage.client()
            client.send(b"get a1\r\n" + request + b"get a2\r\n")
            other.send(b"get a1\r\n")
            stage.serve()
            self.assertEqual((client.take(), client.connected), (get(b"a1"), False), name)
            self.assertEqual((other.take(), other.connected), (get(b"a1"), True), name)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1, name)

    def test_granted(self) -> None:
        """
        A client that fails when it gets the connection for which it has waited is closed. The next one gets it.
        """
        stage = self.single(maximum=1, depth=1)
        clients = [stage.client() for _ in range(3)]
        for client in clients:
            client.send(b"get a1\r\n")
        clients[1].protocol.proceed = lambda *_: 1 // 0
        stage.serve()
        self.assertEqual([client.take() for client in clients], [get(b"a1"), b"", get(b"a1")])
        self.assertEqual([client.connected for client in clients], [True, False, True])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_pinned(self) -> None:
        """
        So is a client whose own connection fails in the proxy.
        """
        stage = SingleRedisStage()
        stage.pool.setLimits(stage.pool.limits, 3)
        client, other = stage.client(), stage.client()
        self.patch(LentConnection, "stepped", lambda *_: 1 // 0)
        client.send(requests("SELECT 1", "WATCH a", "GET a"))
        other.send(requests("SET a 1"))
        stage.serve()
        self.assertEqual((client.take(), client.connected), (b"+OK\r\n", False))
        self.assertEqual(other.take(), b"+OK\r\n")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class TopicTests(SubscriberCase):
    """
    Tests for what servers send without being asked.
    """

    def test_write(self) -> None:
        """
        A subscriber that cannot be written to is closed. The others get the message.
        """
        clients = [self.stage.client() for _ in range(3)]
        for client in clients:
            self.assertEqual(self.ask(client, "SUBSCRIBE news"), confirmed("news", 1))
        clients[1].protocol.interject = lambda *_: 1 // 0
        self.publish("news", "hi")
        self.assertEqual([client.take() for client in clients], [message("news", "hi"), b"", message("news", "hi")])
        self.assertEqual([client.connected for client in clients], [True, False, True])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_source(self) -> None:
        """
        If the reply to a subscription, or a message, fails in the proxy, the clients that wait for it are closed or get
        an error, and others go on.
        """
        for name in ("replied", "clientsOf"):
            client, other = self.stage.client(), self.stage.client()
            self.ask(client, "SUBSCRIBE old")
            patch = self.patch(Hub, name, lambda *_: 1 // 0)
            client.send(requests("SUBSCRIBE news"))
            other.send(requests("GET a"))
            self.stage.serve()
            if name == "clientsOf":
                self.publish("old", "hi")
            patch.restore()
            self.stage.serve()
            self.assertEqual((client.connected, other.take()), (False, b"$-1\r\n"), name)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1, name)
