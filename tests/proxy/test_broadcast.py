# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.broadcast}: what servers are asked before the request of a client can be forwarded.
"""

from __future__ import annotations

from tests.proxy.test_placing import PlacedCase
from tests.redisserver import bulk
from tests.redisstage import requests
from tests.wire.redis.test_learning import entry


class LearnTests(PlacedCase):
    """
    Tests for commands that the table of the dialect lacks.
    """

    def setUp(self) -> None:
        """
        Let the servers have one.
        """
        super().setUp()
        for server in self.stage.servers:
            server.descriptions[b"x.get"] = entry("x.get", 2, "readonly")

    def asked(self) -> list[bytes]:
        """
        @return: what the servers were asked since the last call.
        """
        return [each for server in self.stage.servers for each in self.stage.asked(server)]

    def test_order(self) -> None:
        """
        A request is sent to the server of its key, in its place in the order, when one server was asked for its
        command.
        """
        self.client.send(requests("SET a0 0", "SET a1 1", "X.GET a1", "SET a1 2", "X.GET a1", "GET a0"))
        self.stage.serve()
        self.assertEqual(self.client.take(), b"+OK\r\n" * 2 + bulk(b"1") + b"+OK\r\n" + bulk(b"2") + bulk(b"0"))
        self.assertEqual(self.asked().count(b"COMMAND INFO x.get"), 1)
        self.assertEqual(self.ask("X.GET a2", client=self.stage.client()), bulk(None))
        self.assertEqual(self.asked(), [b"X.GET a2"])

    def test_unknown(self) -> None:
        """
        If the server does not know the command, the client gets an error, and the next request its reply.
        """
        error = b"-ERR unknown command 'Y', with args beginning with: 'a0' \r\n"
        self.assertEqual(self.ask("Y a0", "GET a0", "Y a0"), error + bulk(None) + error)
        self.assertEqual(sorted(self.asked()), [b"COMMAND INFO y", b"GET a0"])

    def test_transaction(self) -> None:
        """
        A command in a transaction is sent on the client's own connection.
        """
        replies = self.ask("MULTI", "SET a1 1", "X.GET a1", "EXEC")
        self.assertEqual(replies, b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n" + bulk(b"1"))

    def test_noServer(self) -> None:
        """
        If no server can be asked, the client gets this error.
        """
        self.stage.change([])
        error = b"-ERR the pool has no servers\r\n"
        self.assertEqual(self.ask("X.GET a1", "GET a0"), error * 2)

    def test_gone(self) -> None:
        """
        A client may leave before the server has replied.
        """
        self.client.send(requests("X.GET a1"))
        self.stage.turns()
        self.client.lose()
        self.stage.serve()
        self.assertEqual(self.ask("X.GET a1", client=self.stage.client()), bulk(None))
        self.assertEqual(sorted(self.asked()), [b"COMMAND INFO x.get", b"X.GET a1"])
