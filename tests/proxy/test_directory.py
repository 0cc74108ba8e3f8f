# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.directory}.
"""

from __future__ import annotations

from tests.pipes import Pipe
from tests.proxy.test_placing import PlacedCase
from tests.redisserver import bulk
from tests.redisstage import requests


class DirectoryTests(PlacedCase):
    """
    Tests for clients that ask about the clients of their pool.
    """

    def ids(self, client: Pipe | None = None) -> list[bytes]:
        """
        @return: the numbers of the clients that C{CLIENT LIST} has.
        """
        return [line.split(b" ")[0] for line in self.ask("CLIENT LIST", client=client).splitlines()[1:] if line]

    def test_clients(self) -> None:
        """
        A client sees those of its pool, with what they are doing and how long they have been there.
        """
        other = self.stage.client()
        self.ask("MULTI", "GET a0", client=other)
        self.stage.clock.advance(3.5)
        third = self.stage.client()
        lines = self.ask("CLIENT LIST").splitlines()[1:]
        self.assertEqual([line.split(b" ")[0] for line in lines[:3]], [b"id=1", b"id=2", b"id=3"])
        self.assertIn(b" age=3 idle=0 flags=x db=0 sub=0 psub=0 ssub=0 multi=1 ", lines[1])
        self.assertIn(b" age=0 idle=0 flags=N ", lines[2])
        third.abortConnection()
        self.stage.turns()
        self.assertEqual(self.ids(), [b"id=1", b"id=2"])
        self.ask("DISCARD", client=other)

    def test_order(self) -> None:
        """
        The reply has its place in the order, and what follows is executed after it.
        """
        self.client.send(requests("SET a0 1", "CLIENT INFO", "GET a0", "CLIENT KILL 1.1.1.1:1", "GET a1"))
        self.stage.serve()
        replies = self.client.take()
        self.assertRegex(replies, rb"^\+OK\r\n\$\d+\r\nid=1 [^\n]+\n\r\n\$1\r\n1\r\n-ERR No such client\r\n\$-1\r\n$")

    def test_kill(self) -> None:
        """
        Another client is closed at once, and the connection that it had for itself is not used again.
        """
        other = self.stage.client()
        self.ask("MULTI", "GET a0", client=other)
        connections = len(self.stage.lines)
        self.assertEqual(self.ask("CLIENT KILL ID 2"), b":1\r\n")
        self.assertFalse(other.connected)
        self.assertEqual(self.ids(), [b"id=1"])
        self.assertEqual(sum(line.connected for line in self.stage.lines), connections - 1)

    def test_suicide(self) -> None:
        """
        A client that closes itself gets the reply, and nothing that it has sent after that is executed.
        """
        self.client.send(requests("SET a0 1", "CLIENT KILL ID 1 SKIPME no", "SET a0 2"))
        self.stage.serve()
        self.assertEqual((self.client.take(), self.client.connected), (b"+OK\r\n:1\r\n", False))
        self.assertEqual(self.stage.asked(self.stage.servers[0]), [b"SET a0 1"])

    def test_report(self) -> None:
        """
        The section of the proxy follows those of one server, or is the reply alone. If no server replies, its error is
        the reply.
        """
        own = b"# Proxy\r\nproxy_mode:keys\r\nproxy_answer:42\r\n"
        self.assertEqual(self.ask("INFO"), bulk(b"redis_version:7.0.15\r\n\r\n" + own))
        self.assertEqual(self.ask("INFO proxy"), bulk(own))
        self.stage.change([])
        self.assertEqual(self.ask("INFO"), b"-ERR the pool has no servers\r\n")
        self.assertEqual(self.ask("INFO proxy"), bulk(own))

    def test_gone(self) -> None:
        """
        Nothing is done for a client that has left before its turn.
        """
        other = self.stage.client()
        other.send(requests("CLIENT KILL ID 1"))
        other.lose()
        self.stage.serve()
        self.assertTrue(self.client.connected)
