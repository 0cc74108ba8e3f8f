# Copyright txconnpool contributors. See LICENSE.
"""
Tests for clients of a real Redis whose users the server checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.trial.unittest import SynchronousTestCase

from tests.real.resp import Client, ReplyError
from tests.real.servers import Address, Proxy, Redis, missing, shared, until


@contextmanager
def _servers() -> Iterator[tuple[Redis, Proxy]]:
    with Redis() as server, Proxy("--protocol", "redis", "--auth", "pass", upstream=[server.address]) as proxy:
        yield server, proxy


class PassingTests(SynchronousTestCase):
    """
    Tests with two users, each of which has keys and channels of its own.
    """

    skip = missing("redis-server")

    def setUp(self) -> None:
        """
        Make the users. The default user may do nothing but C{PING}.
        """
        self.server, self.proxy = shared(self, _servers)
        self.operator = self.client(self.server.address)
        for name in ("ann", "ben"):
            self.operator.ask("ACL", "SETUSER", name, "reset", "on", f">{name}-1", f"~{name}:*", f"&{name}:*", "+@all")
        self.operator.ask("ACL", "SETUSER", "root", "on", "nopass", "~*", "&*", "+@all")
        self.operator.ask("AUTH", "root", "any")
        self.operator.ask("ACL", "SETUSER", "default", "-@all", "+ping", "+auth", "+hello")
        self.addCleanup(self.operator.ask, "ACL", "SETUSER", "default", "+@all")

    def client(self, address: Address | None = None) -> Client:
        """
        @return: a client of the proxy, or of another address.
        """
        client = Client(address or self.proxy.address, 30.0)
        self.addCleanup(client.close)
        return client

    def user(self, name: str, version: int = 2) -> Client:
        """
        @return: a client that has logged in.
        """
        client = self.client()
        if version == 2:
            self.assertEqual(client.ask("AUTH", name, f"{name}-1"), b"OK")
        else:
            client.ask("HELLO", version, "AUTH", name, f"{name}-1")
        return client

    def assertRefused(self, client: Client, *words: str) -> None:
        """
        Assert that the server refuses a request because of the user.
        """
        self.assertIn("NOPERM", str(self.assertRaises(ReplyError, client.ask, *words)))

    def test_rights(self) -> None:
        """
        Each client has the rights of its user, in both versions of the protocol, in transactions and subscriptions.
        """
        for version in (2, 3):
            ann, ben = self.user("ann", version), self.user("ben", version)
            for client, own, other in ((ann, "ann:1", "ben:1"), (ben, "ben:1", "ann:1")):
                self.assertEqual(client.ask("SET", own, "x"), b"OK")
                self.assertRefused(client, "GET", other)
                self.assertEqual(client.ask("MULTI"), b"OK")
                self.assertEqual(client.ask("GET", own), b"QUEUED")
                self.assertEqual(client.ask("EXEC"), [b"x"])
                self.assertRefused(client, "SUBSCRIBE", other)
            self.assertEqual(ann.ask("RESET"), b"RESET")
            self.assertRefused(ann, "GET", "ann:1")

    def test_logins(self) -> None:
        """
        A client may log in again as another user, and with C{RESET} it is the default user again.
        """
        client = self.user("ann")
        self.assertEqual(client.ask("SET", "ann:3", "x"), b"OK")
        self.assertEqual(client.ask("AUTH", "ben", "ben-1"), b"OK")
        self.assertRefused(client, "GET", "ann:3")
        self.assertEqual(client.ask("SET", "ben:3", "x"), b"OK")
        client.ask("HELLO", "3", "AUTH", "ann", "ann-1")
        self.assertEqual(client.ask("GET", "ann:3"), b"x")
        self.assertEqual(client.ask("RESET"), b"RESET")
        self.assertRefused(client, "GET", "ann:3")

    def test_channels(self) -> None:
        """
        Subscribers and publishers may use the channels of their users only.
        """
        ann, also = self.user("ann"), self.user("ann")
        for client in (ann, also):
            self.assertEqual(client.ask("SUBSCRIBE", "ann:news"), [b"subscribe", b"ann:news", 1])
        self.assertRefused(self.user("ben"), "SUBSCRIBE", "ann:news")
        self.assertRefused(self.user("ben"), "PUBLISH", "ann:news", "x")
        self.user("ann").ask("PUBLISH", "ann:news", "x")
        for client in (ann, also):
            self.assertEqual(client.read(), [b"message", b"ann:news", b"x"])

    def test_changed(self) -> None:
        """
        When the password has changed, or the user is gone, nothing is executed for its clients on new connections.
        They get what the server says.
        """
        requests = (("MULTI",), ("BLPOP", "cid:q", "1"), ("SUBSCRIBE", "cid:news"), ("SET", "cid:1", "y"))
        self.operator.ask("RPUSH", "cid:q", "job")
        for number, words in enumerate((*requests, *requests)):
            name = f"cid{number}"
            self.operator.ask("ACL", "SETUSER", name, "reset", "on", f">{name}-1", "~cid:*", "&cid:*", "+@all")
            client = self.user(name)
            if number < len(requests):
                self.operator.ask("ACL", "SETUSER", name, "resetpass", f">{name}-2")
            else:
                self.operator.ask("ACL", "DELUSER", name)
            self.assertIn("WRONGPASS", str(client.result(*words)), words)
            self.assertEqual(self.operator.ask("LRANGE", "cid:q", "0", "-1"), [b"job"])
            self.assertIsNone(self.operator.ask("GET", "cid:1"))
        self.assertEqual(self.user("ann").ask("SET", "ann:4", "x"), b"OK")

    def test_passwords(self) -> None:
        """
        Passwords appear neither in the log nor in what clients and the server tell about clients.
        """
        ann = self.user("ann")
        self.assertIn("WRONGPASS", str(ann.result("AUTH", "ann", "secret-7")))
        self.assertEqual(ann.ask("SET", "ann:5", "x"), b"OK")
        known = ann.ask("CLIENT", "LIST") + ann.ask("INFO", "proxy") + self.operator.ask("CLIENT", "LIST")
        for text in (known.decode(), self.proxy.log):
            self.assertNotIn("ann-1", text)
            self.assertNotIn("secret-7", text)

    def test_refused(self) -> None:
        """
        A wrong password gets the server's error. A client that has not logged in has the rights of the default user.
        """
        client = self.client()
        self.assertEqual(client.ask("PING"), b"PONG")
        self.assertRefused(client, "GET", "ann:1")
        error = self.assertRaises(ReplyError, client.ask, "AUTH", "ann", "wrong")
        self.assertIn("WRONGPASS", str(error))
        self.assertRefused(client, "GET", "ann:1")

    def test_required(self) -> None:
        """
        A server that asks for a login can be used, and says so itself to clients that have not logged in.
        """
        with Redis("--requirepass", "secret") as server:
            with Proxy("--protocol", "redis", "--auth", "pass", upstream=[server.address]) as proxy:
                client = self.client(proxy.address)
                self.assertIn("NOAUTH", str(self.assertRaises(ReplyError, client.ask, "GET", "k")))
                self.assertEqual(client.ask("AUTH", "secret"), b"OK")
                self.assertEqual(client.ask("SET", "k", "x"), b"OK")

    def test_shared(self) -> None:
        """
        The clients of one user share connections.
        """
        clients = [self.user("ann") for _ in range(20)]
        for client in clients:
            self.assertEqual(client.ask("SET", "ann:2", "x"), b"OK")

        def connections() -> int:
            found: int = self.operator.ask("CLIENT", "LIST").count(b"user=ann")
            return found

        until(lambda: 1 <= connections() <= 4, what="the connections of the user")


class SeveralServersTests(SynchronousTestCase):
    """
    Tests with servers that share the keys.
    """

    skip = missing("redis-server")

    def test_users(self) -> None:
        """
        A client has the rights of its user at each server.
        """
        options = ("--protocol", "redis", "--auth", "pass", "--distribution", "twemproxy")
        with Redis() as one, Redis() as other:
            for server in (one, other):
                with Client(server.address, 30.0) as operator:
                    operator.ask("ACL", "SETUSER", "ann", "on", ">ann-1", "~ann:*", "+@all")
            with Proxy(*options, upstream=[one.address, other.address]) as proxy, Client(proxy.address, 30.0) as client:
                self.assertEqual(client.ask("AUTH", "ann", "ann-1"), b"OK")
                keys = [f"ann:{number}" for number in range(20)]
                self.assertEqual(client.ask("MSET", *(word for key in keys for word in (key, "x"))), b"OK")
                self.assertEqual(client.ask("MGET", *keys), [b"x"] * 20)
                self.assertIn("NOPERM", str(client.result("MGET", "ben:1", "ben:2")))
                self.assertEqual(client.ask("DBSIZE"), 20)
