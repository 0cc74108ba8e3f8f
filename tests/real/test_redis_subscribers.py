# Copyright txconnpool contributors. See LICENSE.
"""
Tests for subscribers of a real Redis that share a connection.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.real.resp import Client, Push, ReplyError
from tests.real.servers import Address, Proxy, Redis, missing, shared, until

#: How many clients subscribe to one channel.
MANY = 200

_CHANNELS = ("a", "b", "c1", "c2")
_PATTERNS = ("c*", "?", "*")


@contextmanager
def _servers() -> Iterator[tuple[Redis, Proxy]]:
    with Redis() as server:
        options = ("--protocol", "redis", "--max-pinned", "4", "--session-unread-soft", "64k",
                   "--session-unread-hard", "2m", "--max-clients", "1000")  # fmt: skip
        with Proxy(*options, upstream=[server.address]) as proxy:
            yield server, proxy


class SubscriberCase(SynchronousTestCase):
    """
    Base class of tests with a server and a proxy.
    """

    skip = missing("redis-server")

    def setUp(self) -> None:
        """
        Wait until no client of an earlier test is left.
        """
        self.server, self.proxy = shared(self, _servers)
        self.direct = self.client(self.server.address)
        until(lambda: self.connections() == 0, what="the end of earlier subscribers")

    def client(self, address: Address | None = None, version: int = 2) -> Client:
        """
        @return: a client of the proxy, or of another address.
        """
        client = Client(address or self.proxy.address, 30.0)
        self.addCleanup(client.close)
        if version != 2:
            client.ask("HELLO", version)
        return client

    def subscriber(self, *channels: str, version: int = 2) -> Client:
        """
        @return: a client with subscriptions.
        """
        client = self.client(version=version)
        client.send("SUBSCRIBE", *channels)
        for number, channel in enumerate(channels, 1):
            self.assertEqual(client.read(), [b"subscribe", channel.encode(), number])
        return client

    def connections(self) -> int:
        """
        @return: how many connections of the server have subscriptions.
        """
        found: int = self.direct.ask("CLIENT", "LIST", "TYPE", "pubsub").count(b"id=")
        return found

    def assertClosed(self, client: Client) -> None:
        """
        Assert that a client is closed.
        """
        self.assertRaises((EOFError, ConnectionError), client.read)


class SharingTests(SubscriberCase):
    """
    Tests for many clients and their messages.
    """

    def test_many(self) -> None:
        """
        Many subscribers are one to the server. All get all messages, in order. The connection is given back.
        """
        clients = [self.subscriber("news") for _ in range(MANY)]
        self.assertEqual((self.direct.ask("PUBSUB", "NUMSUB", "news"), self.connections()), ([b"news", 1], 1))
        publisher = self.client()
        for number in range(5):
            self.assertEqual(publisher.ask("PUBLISH", "news", number), 1)
        for client in clients:
            self.assertEqual([client.read() for _ in range(5)], [[b"message", b"news", b"%d" % n] for n in range(5)])
        for client in clients:
            self.assertEqual(client.ask("UNSUBSCRIBE", "news"), [b"unsubscribe", b"news", 0])
        self.assertEqual((self.direct.ask("PUBSUB", "NUMSUB", "news"), self.connections()), ([b"news", 0], 0))
        self.assertEqual(clients[0].ask("SET", "k", 1), b"OK")

    def test_versions(self) -> None:
        """
        Each version of the protocol has a connection. In RESP3, other commands of subscribers share those of all.
        """
        two = [self.subscriber("news") for _ in range(3)]
        three = [self.subscriber("news", version=3) for _ in range(20)]
        self.assertEqual(self.connections(), 2)
        for number, client in enumerate(three):
            client.send("SELECT", number % 3)
            client.send("SET", "k", number)
            client.send("INCR", "k")
            self.assertEqual([client.read() for _ in range(3)], [b"OK", b"OK", number + 1])
        self.assertEqual(self.client().ask("PUBLISH", "news", "x"), 2)
        for client in (*two, *three):
            message = client.read()
            self.assertEqual((message, isinstance(message, Push)), ([b"message", b"news", b"x"], client in three))
        self.assertIn("only (P|S)SUBSCRIBE", str(self.assertRaises(ReplyError, two[0].ask, "GET", "k")))

    def test_killed(self) -> None:
        """
        When the connection is lost, all its subscribers are closed, and no other client. They may subscribe again.
        """
        clients = [self.subscriber("news") for _ in range(5)]
        other = self.subscriber("news", version=3)
        name = next(
            line for line in self.direct.ask("CLIENT", "LIST", "TYPE", "pubsub").split(b"\n") if b"resp=2" in line
        )
        self.assertEqual(self.direct.ask("CLIENT", "KILL", "ID", name.split(b"id=")[1].split(b" ")[0]), 1)
        for client in clients:
            self.assertClosed(client)
        again = self.subscriber("news")
        self.assertEqual(self.client().ask("PUBLISH", "news", "x"), 2)
        for client in (again, other):
            self.assertEqual(client.read(), [b"message", b"news", b"x"])

    def test_sharded(self) -> None:
        """
        Messages of sharded channels come on the same connection, also when the last other subscription has ended.
        """
        sharded, client, publisher = self.client(), self.subscriber("news"), self.client()
        self.assertEqual(sharded.ask("SSUBSCRIBE", "news"), [b"ssubscribe", b"news", 1])
        client.ask("UNSUBSCRIBE")
        self.assertEqual((self.connections(), publisher.ask("SPUBLISH", "news", "x")), (1, 1))
        self.assertEqual(sharded.read(), [b"smessage", b"news", b"x"])
        self.assertEqual(publisher.ask("PUBLISH", "news", "x"), 0)

    def test_forbidden(self) -> None:
        """
        Only the client that may not have a channel gets an error, also if others wait for the same confirmation.
        """
        self.direct.ask("ACL", "SETUSER", "default", "resetchannels", "&open*")
        self.addCleanup(self.direct.ask, "ACL", "SETUSER", "default", "allchannels")
        clients = [self.client(version=3) for _ in range(10)]
        for number, client in enumerate(clients):
            client.send("SUBSCRIBE", "open", *["secret"] * (number % 2))
            client.send("PING")
        for number, client in enumerate(clients):
            if number % 2:
                self.assertIn("NOPERM", str(self.assertRaises(ReplyError, client.read)))
            else:
                self.assertEqual(client.read(), [b"subscribe", b"open", 1])
            self.assertEqual(client.read(), b"PONG")
        self.assertEqual(self.client().ask("PUBLISH", "open", "x"), 1)
        for client in clients[::2]:
            self.assertEqual(client.read(), [b"message", b"open", b"x"])
        for client in clients[1::2]:
            self.assertEqual(client.ask("PING"), b"PONG")

    def test_slow(self) -> None:
        """
        A client that does not read is closed. Others get all messages meanwhile.
        """
        slow, client, publisher = self.subscriber("news"), self.subscriber("news"), self.client()
        text = b"x" * (1 << 18)

        def isClosed() -> bool:
            publisher.ask("PUBLISH", "news", text)
            self.assertEqual(client.read(), [b"message", b"news", text])
            return "bytes unread" in self.proxy.log

        until(isClosed, what="the end of a slow client")
        with self.assertRaises((EOFError, ConnectionError)):
            while True:
                self.assertEqual(slow.read(), [b"message", b"news", text])
        self.assertEqual((publisher.ask("PUBLISH", "news", "end"), client.read()[2]), (1, b"end"))


class DifferentialTests(SubscriberCase):
    """
    The same steps of a subscriber and a publisher have the same replies and messages with the server and the proxy.
    """

    def test_steps(self) -> None:
        """
        Channels and patterns come and go, in both versions of the protocol.
        """
        seed = int(os.environ.get("TXCONNPOOL_FUZZ_SEED") or random.randrange(1 << 32))
        for version in (2, 3):
            for number in range(15):
                chance = random.Random(seed + number)
                steps = [self.step(chance, version) for _ in range(25)]
                until(lambda: self.connections() == 0)
                its = self.replies(self.server.address, version, steps)
                until(lambda: self.connections() == 0)
                self.assertEqual(
                    self.replies(self.proxy.address, version, steps), its, f"seed {seed + number}: {steps}"
                )

    def step(self, chance: random.Random, version: int) -> tuple[str, ...]:
        """
        @return: the words of a request.
        """
        kind = chance.randrange(10)
        channels = [chance.choice(_CHANNELS) for _ in range(chance.randint(1, 3))]
        patterns = [chance.choice(_PATTERNS) for _ in range(chance.randint(1, 2))]
        if kind < 4:
            return "PUBLISH", channels[0], str(chance.randrange(1000))
        if kind == 4:
            return ("GET", "k") if chance.random() < 0.5 else ("PING",)
        return (
            ("SUBSCRIBE", *channels),
            ("UNSUBSCRIBE", *channels),
            ("PSUBSCRIBE", *patterns),
            ("PUNSUBSCRIBE", *patterns),
            ("SSUBSCRIBE", channels[0]) if chance.random() < 0.5 else ("RESET",),
        )[kind - 5]

    def replies(self, address: Address, version: int, steps: list[tuple[str, ...]]) -> list[Any]:
        """
        Do all steps: another client publishes.

        @return: the replies and messages.
        """
        found: list[Any] = []
        with Client(address, 30.0) as client, Client(address, 30.0) as publisher:
            if version == 3:
                client.ask("HELLO", 3)
            for words in steps:
                if words[0] == "PUBLISH":
                    count = publisher.ask(*words)
                    found += [count, *[client.read() for _ in range(count)]]
                    continue
                client.send(*words)
                for _ in range(len(words) - 1 if words[0].endswith("SUBSCRIBE") else 1):
                    reply = self.reply(client)
                    found.append((reply, type(reply)))
                if words == ("RESET",) and version == 3:
                    client.ask("HELLO", 3)
        return found

    def reply(self, client: Client) -> Any:
        """
        @return: a reply; an error as its text.
        """
        try:
            return client.read()
        except ReplyError as error:
            return str(error)
