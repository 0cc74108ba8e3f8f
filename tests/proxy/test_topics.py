# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.topics}: clients of Redis that share what servers send about channels.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.pipes import Pipe
from tests.redisstage import ShardedRedisStage, SingleRedisStage, requests
from tests.stage import assertTidy
from txconnpool.proxy.flow import SessionLimits


def confirmed(channel: str, count: int, kind: str = "subscribe", mark: str = "*") -> bytes:
    """
    @return: the confirmation of a subscription, or of its end.
    """
    text = f"{mark}3\r\n${len(kind)}\r\n{kind}\r\n${len(channel)}\r\n{channel}\r\n:{count}\r\n"
    return text.encode()


def message(channel: str, text: str, mark: str = "*") -> bytes:
    """
    @return: a message.
    """
    return f"{mark}3\r\n$7\r\nmessage\r\n${len(channel)}\r\n{channel}\r\n${len(text)}\r\n{text}\r\n".encode()


class SubscriberCase(SynchronousTestCase):
    """
    Base class of tests with one server.

    @ivar stage: the stage.
    """

    limits = SessionLimits()

    def setUp(self) -> None:
        """
        Make a stage.
        """
        self.stage: Any = self.makeStage()
        self.addCleanup(self.assertTidy)

    def makeStage(self) -> Any:
        """
        @return: a stage with one server.
        """
        stage = SingleRedisStage(sessionLimits=self.limits)
        stage.pool.setLimits(stage.pool.limits, 3)
        return stage

    @property
    def pools(self) -> list[Any]:
        """
        The pools of all connections.
        """
        return [each for pool in self.stage.pool.pools for each in getattr(pool, "pools", (pool,))]

    def assertTidy(self) -> None:
        """
        Assert that nothing is left when all clients have gone.
        """
        for client in self.stage.clients:
            client.lose()
        self.stage.serve()
        self.assertEqual(self.counts, (0, 0, 0))
        for pool in self.pools:
            assertTidy(self, pool)

    @property
    def counts(self) -> tuple[int, ...]:
        """
        The numbers of subscribers, of channels, and of connections for them.
        """
        return tuple(self.stage.sessions.subscribers.counts.values())[:3]

    def ask(self, client: Pipe, *texts: str) -> bytes:
        """
        @return: what the client receives.
        """
        reply: bytes = self.stage.ask(client, requests(*texts))
        return reply

    def asked(self, number: int = 0) -> list[bytes]:
        """
        @return: what a server was asked for channels since the last call.
        """
        found = self.stage.asked(self.stage.servers[number])
        return [each for each in found if b"SUBSCRIBE" in each]

    def publish(self, channel: str, text: str) -> bytes:
        """
        @return: the reply to a client that publishes a message.
        """
        client = self.stage.client()
        reply = self.ask(client, f"PUBLISH {channel} {text}")
        client.lose()
        return reply


class SharingTests(SubscriberCase):
    """
    Tests for many clients of one connection.
    """

    def test_one(self) -> None:
        """
        All subscribers of a channel are one to the server, which gets one SUBSCRIBE, and one UNSUBSCRIBE at the end.
        """
        clients = [self.stage.client() for _ in range(5)]
        for client in clients:
            self.assertEqual(self.ask(client, "SUBSCRIBE news"), confirmed("news", 1))
        self.assertEqual((self.asked(), self.counts), ([b"SUBSCRIBE news"], (5, 1, 1)))
        self.assertEqual(self.publish("news", "hi"), b":1\r\n")
        self.assertEqual([client.take() for client in clients], [message("news", "hi")] * 5)
        for client in clients:
            self.assertEqual(self.ask(client, "UNSUBSCRIBE news"), confirmed("news", 0, "unsubscribe"))
            self.assertEqual(self.ask(client, "GET k"), b"$-1\r\n")
        self.assertEqual((self.asked(), self.counts), ([b"UNSUBSCRIBE news"], (0, 0, 0)))
        self.assertEqual(self.publish("news", "hi"), b":0\r\n")
        self.assertEqual(b"".join(client.take() for client in clients), b"")

    def test_together(self) -> None:
        """
        Clients that come while the server has not confirmed wait for the same confirmation.
        """
        one, two = self.stage.client(), self.stage.client()
        one.send(requests("SUBSCRIBE a b", "PING"))
        two.send(requests("SUBSCRIBE b", "PING"))
        self.stage.turns()
        self.assertEqual((one.take(), two.take()), (b"", b""))
        self.stage.serve()
        pong = b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
        self.assertEqual(one.take(), confirmed("a", 1) + confirmed("b", 2) + pong)
        self.assertEqual(two.take(), confirmed("b", 1) + pong)
        self.assertEqual(self.asked(), [b"SUBSCRIBE a b"])

    def test_order(self) -> None:
        """
        A confirmation comes after the replies to earlier requests, and before those to later ones and all messages.
        """
        other, client = self.stage.client(), self.stage.client()
        self.ask(other, "SUBSCRIBE c")
        self.ask(client, "HELLO 3")
        client.send(requests("SET k 1", "SUBSCRIBE c", "GET k", "SUBSCRIBE d", "GET k"))
        self.stage.serve()
        self.publish("c", "x")
        value = b"$1\r\n1\r\n"
        expected = [b"+OK\r\n", confirmed("c", 1, mark=">"), value, confirmed("d", 2, mark=">"), value]
        self.assertEqual(client.take(), b"".join([*expected, message("c", "x", ">")]))

    def test_versions(self) -> None:
        """
        Each version of the protocol has a connection of its own, whose frames are passed on as they are.
        """
        two, three = self.stage.client(), self.stage.client()
        self.ask(three, "HELLO 3", "SELECT 4")
        self.ask(two, "SUBSCRIBE c")
        self.assertEqual(self.ask(three, "SUBSCRIBE c"), confirmed("c", 1, mark=">"))
        self.assertEqual((self.counts, self.publish("c", "x")), ((2, 2, 2), b":2\r\n"))
        self.assertEqual((two.take(), three.take()), (message("c", "x"), message("c", "x", ">")))
        self.assertEqual(self.ask(three, "SELECT 5", "SET k 1"), b"+OK\r\n+OK\r\n")
        self.publish("c", "y")
        self.assertEqual((two.take(), three.take()), (message("c", "y"), message("c", "y", ">")))

    def test_twice(self) -> None:
        """
        A client gets one message of a channel that it has subscribed to twice, and one more of a pattern.
        """
        client = self.stage.client()
        self.assertEqual(self.ask(client, "SUBSCRIBE c c"), confirmed("c", 1) * 2)
        self.assertEqual(self.ask(client, "SUBSCRIBE c", "PSUBSCRIBE c*")[: len(confirmed("c", 1))], confirmed("c", 1))
        self.publish("c", "x")
        pattern = b"*4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$1\r\nc\r\n$1\r\nx\r\n"
        self.assertEqual(client.take(), message("c", "x") + pattern)
        self.assertEqual(self.asked(), [b"SUBSCRIBE c", b"PSUBSCRIBE c*"])

    def test_reset(self) -> None:
        """
        After C{RESET} or C{QUIT} a client gets no messages, and others still do.
        """
        clients = [self.stage.client() for _ in range(3)]
        for client in clients:
            self.ask(client, "SUBSCRIBE c")
        self.assertEqual(self.ask(clients[0], "RESET", "GET k"), b"+RESET\r\n$-1\r\n")
        self.assertEqual(self.ask(clients[1], "QUIT"), b"+OK\r\n")
        self.publish("c", "x")
        self.assertEqual([client.take() for client in clients], [b"", b"", message("c", "x")])
        self.assertEqual((clients[1].connected, self.counts), (False, (1, 1, 1)))

    def test_leaves(self) -> None:
        """
        The connection of a client that leaves in the middle of a subscription is not used for others.
        """
        client = self.stage.client()
        client.send(requests("SUBSCRIBE c"))
        self.stage.turns()
        client.lose()
        self.stage.serve()
        self.assertEqual(self.counts, (0, 0, 0))
        other = self.stage.client()
        self.assertEqual(self.ask(other, "MULTI", "GET k", "EXEC"), b"+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n")


class IdleTests(SubscriberCase):
    """
    Tests for C{client-idle-timeout}.
    """

    limits = SessionLimits(idleTimeout=8.0)

    def test_waits(self) -> None:
        """
        A subscriber need not send anything. When it is none any more, it is like other clients.
        """
        client, other = self.stage.client(), self.stage.client()
        self.ask(client, "SUBSCRIBE news")
        for _ in range(40):
            self.stage.clock.advance(1)
        self.assertEqual((client.connected, other.connected, self.publish("news", "hi")), (True, False, b":1\r\n"))
        self.assertEqual(client.take(), message("news", "hi"))
        self.ask(client, "UNSUBSCRIBE news")
        for _ in range(12):
            self.stage.clock.advance(1)
        self.assertFalse(client.connected)


class PreparationTests(SubscriberCase):
    """
    Tests for connections that are made ones of a flavour before a client uses them alone.
    """

    def test_refused(self) -> None:
        """
        If the server refuses the database of a client, none of its requests is executed: it would be in another one.
        """
        self.stage.servers[0].databases = 4
        client = self.stage.client()
        for sent in (("MULTI", "SET k v", "EXEC"), ("BLPOP k 0",), ("WATCH k", "SET k v")):
            client = self.stage.client()
            self.assertEqual(self.ask(client, "SELECT 9"), b"+OK\r\n")
            self.stage.asked(self.stage.servers[0])
            self.assertNotIn(b"QUEUED", self.ask(client, *sent))
            self.assertFalse(client.connected)
            self.assertEqual(self.stage.asked(self.stage.servers[0]), [b"SELECT 9"])
        self.assertEqual(self.stage.servers[0].data.get(b"0", {}), {})

    def test_lost(self) -> None:
        """
        A subscription fails if the connection is lost before it can be used.
        """
        client = self.stage.client()
        self.ask(client, "HELLO 3")
        client.send(requests("SUBSCRIBE news"))
        self.stage.turns()
        server = self.stage.servers[0]
        while not any(b"HELLO 3" in line.asked for line in server.open):
            for line in server.open:
                line.look()
                if b"HELLO 3" not in line.asked:
                    line.deliver()
            self.stage.turns()
        (line,) = (line for line in server.open if b"HELLO 3" in line.asked)
        self.assertNotIn(b"SUBSCRIBE news", line.asked)
        line.owed = b""
        line.lose()
        self.stage.serve()
        self.assertEqual(client.take()[:5], b"-ERR ")
        self.stage.clock.advance(2)
        self.stage.serve()
        self.assertIn(b"subscribe", self.ask(client, "SUBSCRIBE news"))

    def test_halfClosed(self) -> None:
        """
        What a client has sent before it closes its side is executed, also while the connection is being prepared.
        """
        client = self.stage.client()
        client.send(requests("SELECT 3", "MULTI", "SET k v", "EXEC"))
        self.stage.turns()
        client.end()
        self.stage.serve()
        self.assertEqual(client.take(), b"+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n")
        self.assertFalse(client.connected)

    def test_gone(self) -> None:
        """
        A client may leave meanwhile. The connection is closed.
        """
        client = self.stage.client()
        client.send(requests("SELECT 3", "MULTI"))
        self.stage.turns()
        client.lose()
        self.stage.serve()
        other = self.stage.client()
        self.assertEqual(self.ask(other, "MULTI", "EXEC"), b"+OK\r\n*0\r\n")


class FailureTests(SubscriberCase):
    """
    Tests for what fails.
    """

    limits = SessionLimits(unreadSoft=1 << 12, unreadHard=1 << 14)

    def test_refused(self) -> None:
        """
        A client gets the server's error for a channel that it may not have, and no other client is affected.
        """
        self.stage.servers[0].hidden = {b"secret"}
        one, two = self.stage.client(), self.stage.client()
        one.send(requests("SUBSCRIBE open secret", "GET k"))
        two.send(requests("SUBSCRIBE open"))
        self.stage.serve()
        self.assertEqual((one.take(), two.take()), (b"-NOPERM no channels\r\n$-1\r\n", confirmed("open", 1)))
        self.assertEqual(self.counts, (1, 1, 1))
        self.publish("open", "x")
        self.assertEqual((one.take(), two.take()), (b"", message("open", "x")))

    def test_lost(self) -> None:
        """
        When the connection is lost, subscribers are closed, because messages may be missing. One that only waited for a
        confirmation gets an error.
        """
        clients = [self.stage.client() for _ in range(3)]
        for client in clients[:2]:
            self.ask(client, "SUBSCRIBE c")
        self.stage.clock.advance(2)  # so that the connection is not taken for one that was bad from the beginning
        clients[1].send(requests("SUBSCRIBE d"))
        clients[2].send(requests("SUBSCRIBE d", "GET k"))
        self.stage.turns()
        (line,) = (each for each in self.stage.servers[0].open if any(b"SUBSCRIBE" in one for one in each.asked))
        line.lose()
        self.stage.serve()
        lost = b"-ERR upstream connection lost (server0)\r\n"
        self.assertEqual([client.take() for client in clients], [b"", lost, lost + b"$-1\r\n"])
        self.assertEqual([client.connected for client in clients], [False, False, True])
        self.assertEqual(self.counts, (0, 0, 0))
        self.assertEqual(self.ask(clients[2], "SUBSCRIBE c"), confirmed("c", 1))

    def test_slow(self) -> None:
        """
        A client that does not read is closed and counted; others get all messages.
        """
        slow, client = self.stage.client(), self.stage.client()
        for each in (slow, client):
            self.ask(each, "SUBSCRIBE c")
        slow.reads = False
        text = "x" * 5000
        for _ in range(40):
            self.publish("c", text)
            self.assertEqual(client.take(), message("c", text))
        self.assertEqual((slow.connected, self.stage.sessions.subscribers.dropped), (False, 1))
        self.assertEqual(self.counts, (1, 1, 1))

    def test_noConnection(self) -> None:
        """
        A client that gets no connection in time gets an error, and may go on.
        """
        self.stage.pool.setLimits(self.stage.pool.limits, 1)
        holder, client = self.stage.client(), self.stage.client()
        self.ask(holder, "MULTI")
        client.send(requests("SUBSCRIBE c", "GET k"))
        self.stage.serve()
        self.stage.clock.advance(2)
        self.stage.serve()
        reply = client.take()
        self.assertEqual((reply[:5], reply[-5:]), (b"-ERR ", b"$-1\r\n"))
        self.assertEqual(self.counts, (0, 0, 0))
        client.send(requests("SUBSCRIBE c"))
        self.ask(holder, "EXEC")
        self.assertEqual(client.take(), confirmed("c", 1))

    def test_forgotten(self) -> None:
        """
        A client that leaves while it waits for a connection does not get one.
        """
        self.stage.pool.setLimits(self.stage.pool.limits, 1)
        holder, client = self.stage.client(), self.stage.client()
        self.ask(holder, "MULTI")
        client.send(requests("SUBSCRIBE c"))
        self.stage.serve()
        client.lose()
        self.ask(holder, "EXEC")
        self.assertEqual((self.asked(), self.counts), ([], (0, 0, 0)))

    def test_old(self) -> None:
        """
        A connection that the pool is to close gets no new subscribers; those that it has stay.
        """
        one, two = self.stage.client(), self.stage.client()
        self.ask(one, "SUBSCRIBE c")
        self.stage.pool.leases.expire()
        self.assertEqual(self.ask(two, "SUBSCRIBE c"), confirmed("c", 1))
        self.assertEqual((self.counts, self.publish("c", "x")), ((2, 2, 2), b":2\r\n"))
        self.assertEqual((one.take(), two.take()), (message("c", "x"),) * 2)
        self.ask(one, "UNSUBSCRIBE")
        self.assertEqual(self.counts, (1, 1, 1))


class SeveralServersCase(SubscriberCase):
    """
    Base class of tests with three servers that share the channels.
    """

    def makeStage(self) -> Any:
        """
        @return: the stage.
        """
        return ShardedRedisStage(maxPinned=1)


class SeveralServersTests(SeveralServersCase):
    """
    Tests for channels on several servers.
    """

    def test_channels(self) -> None:
        """
        Each channel is subscribed on its server, patterns and the events of keys on all.
        """
        client = self.stage.client()
        expected = b"".join(confirmed(f"c{number}", number + 1) for number in range(4))
        self.assertEqual(self.ask(client, "SUBSCRIBE c0 c1 c2 c3"), expected)
        self.assertEqual([self.asked(number) for number in range(3)],
                         [[b"SUBSCRIBE c0 c3"], [b"SUBSCRIBE c1"], [b"SUBSCRIBE c2"]])  # fmt: skip
        self.ask(client, "PSUBSCRIBE c*", "SUBSCRIBE __keyevent@0__:del")
        for number in range(3):
            self.assertEqual(self.asked(number), [b"PSUBSCRIBE c*", b"SUBSCRIBE __keyevent@0__:del"])
        for number in range(4):
            self.assertEqual(self.publish(f"c{number}", "x"), b":1\r\n")
            self.assertEqual(client.take().count(b"message"), 2)
        self.assertEqual(self.counts, (1, 10, 3))
        reply = self.ask(client, "PUNSUBSCRIBE", "UNSUBSCRIBE c1 c2")
        self.assertEqual(reply[-len(confirmed("c2", 3, "unsubscribe")) :], confirmed("c2", 3, "unsubscribe"))
        ends = [[], [b"UNSUBSCRIBE c1"], [b"UNSUBSCRIBE c2"]]
        self.assertEqual([self.asked(number) for number in range(3)], [[b"PUNSUBSCRIBE c*", *end] for end in ends])

    def test_partFails(self) -> None:
        """
        If one server refuses, the whole request fails, and the others get an UNSUBSCRIBE for their parts.
        """
        self.stage.servers[1].hidden = {b"c1"}
        client = self.stage.client()
        self.assertEqual(self.ask(client, "SUBSCRIBE c0 c1 c2", "GET k0"), b"-NOPERM no channels\r\n$-1\r\n")
        self.assertEqual((self.counts, self.publish("c0", "x"), client.take()), ((0, 0, 0), b":0\r\n", b""))

    def test_down(self) -> None:
        """
        A server that is down fails the requests for its channels only.
        """
        self.stage.pool.pools[1].drain(self.stage.servers[1])
        client = self.stage.client()
        self.assertEqual(self.ask(client, "SUBSCRIBE c0"), confirmed("c0", 1))
        self.assertEqual(self.ask(client, "SUBSCRIBE c1")[:5], b"-ERR ")
        self.assertEqual(self.ask(client, "SUBSCRIBE c2"), confirmed("c2", 2))

    def test_moved(self) -> None:
        """
        When channels have got another server, or one more has their messages, their subscribers are closed.
        """
        self.stage.pool.remapped = self.stage.sessions.subscribers.check
        clients = [self.stage.client() for _ in range(4)]
        texts = "SUBSCRIBE c0", "SUBSCRIBE c2", "SUBSCRIBE c1 c2", "PSUBSCRIBE *"
        for client, text in zip(clients, texts, strict=True):
            self.ask(client, text)
        self.stage.change([0, 1])
        self.stage.serve()
        self.assertEqual([client.connected for client in clients], [True, False, False, False])
        self.assertEqual(self.counts, (1, 1, 1))
        self.assertEqual(self.ask(clients[0], "PSUBSCRIBE *")[-4:], b":2\r\n")

    def test_ejected(self) -> None:
        """
        An ejected server has no subscribers. When others get its channels, or it gets them back, the subscribers of
        these channels and of patterns are closed.
        """
        self.stage.pool.remapped = self.stage.sessions.subscribers.check
        for step in (self.stage.pool.eject, self.stage.pool.restore):
            clients = [self.stage.client() for _ in range(3)]
            for client, text in zip(clients, ("SUBSCRIBE c0", "SUBSCRIBE c1", "PSUBSCRIBE *"), strict=True):
                self.ask(client, text)
            step(self.stage.servers[1])
            self.stage.serve()
            self.assertEqual([client.connected for client in clients], [True, False, False])
            clients[0].lose()
            self.stage.serve()
            for number in range(3):
                self.asked(number)
            self.ask(self.stage.client(), "PSUBSCRIBE x*")
            isEjected = step == self.stage.pool.eject
            asked = [self.asked(number) for number in range(3)]
            self.assertEqual([len(each) for each in asked], [1, 0 if isEjected else 1, 1])

    def test_movedMeanwhile(self) -> None:
        """
        A channel that has got another server before its own one has confirmed is not subscribed.
        """
        client = self.stage.client()
        self.ask(client, "SUBSCRIBE c1", "UNSUBSCRIBE c1")
        client.send(requests("SUBSCRIBE c0 c1", "GET k0"))
        self.stage.turns()
        self.stage.pool.eject(self.stage.servers[1])
        self.stage.serve()
        self.assertEqual(client.take(), b"-ERR other servers have their topics now\r\n$-1\r\n")
        self.assertEqual(self.counts, (0, 0, 0))


class InterjectionTests(SubscriberCase):
    """
    Tests for messages that come while other replies are due.

    @cvar channel: a channel.
    @cvar key: a key.
    """

    channel = "c"
    key = "k"

    def setUp(self) -> None:
        """
        Let a client in RESP3 subscribe.
        """
        super().setUp()
        self.client = self.stage.client()
        self.ask(self.client, "HELLO 3", f"SUBSCRIBE {self.channel}", f"SET {self.key} " + "v" * 40000)

    def test_between(self) -> None:
        """
        A message is written before a reply that is due, but not in the middle of one. Messages keep their order.
        """
        self.client.send(requests(f"GET {self.key}"))
        self.stage.turns()
        for each in self.stage.lines:
            each.look()
        (line,) = (each for each in self.stage.lines if each.owed)
        self.deliver("1")
        self.assertEqual(self.client.take(), message(self.channel, "1", ">"))
        line.deliver(20000)
        self.stage.turns()
        self.deliver("2")
        self.deliver("3")
        begun = self.client.take()
        self.assertEqual(begun[:8], b"$40000\r\n")
        line.deliver()
        self.stage.turns()
        rest = message(self.channel, "2", ">") + message(self.channel, "3", ">")
        self.assertEqual(begun + self.client.take(), b"$40000\r\n" + b"v" * 40000 + b"\r\n" + rest)

    def deliver(self, text: str) -> None:
        """
        Let the server send a message, and nothing else.
        """
        for line in self.stage.lines:
            owed, line.owed = line.owed, b""
            if line.sendMessage(self.channel.encode(), text.encode()):
                line.deliver()
            line.owed = owed
        self.stage.turns()


class SeveralInterjectionTests(SeveralServersCase, InterjectionTests):
    """
    The same if the channel and the key are on several servers.
    """

    channel = "c0"
    key = "k1"
