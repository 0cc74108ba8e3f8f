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
