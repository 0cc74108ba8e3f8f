# -*- test-case-name: tests.real.test_wire_memcache -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the table of exchanges with a real memcached: the dialect gives a client the same bytes as the server.
"""

from __future__ import annotations

import socket

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.real.servers import Memcached, ask, connect, missing
from tests.wire.memcache.test_exchanges import EXCHANGES, OURS, Exchange, Relay
from txconnpool.wire.memcache.dialect import Memcache

VERSION = "1.6.18"

#: Requests that create the state that the table assumes.
PREPARE = b"flush_all\r\nset a 5 0 3\r\nabc\r\nset n 0 0 2\r\n10\r\n"

#: A request that ends an exchange: no row of the table has it, and its reply comes after all other replies.
FENCE = b"mg fence k\r\n"
FENCED = b"EN kfence\r\n"


class MemcachedTests(SynchronousTestCase):
    """
    Tests with two servers in the same state: one is asked directly, the other through the dialect.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start both servers, if they have the version that the table is about.
        """
        self.direct = Memcached().start()
        self.addCleanup(self.direct.stop)
        self.behind = Memcached().start()
        self.addCleanup(self.behind.stop)
        version = self.direct.stats()["version"]
        if version != VERSION:
            raise SkipTest(f"the table is about memcached {VERSION}, this is {version}")

    def askDirectly(self, request: bytes) -> tuple[bytes, bool]:
        """
        @return: the reply of the server, and whether it closed the connection.
        """
        answer = ask(self.direct.address, request + FENCE, FENCED)
        if answer.endswith(FENCED):
            return answer.removesuffix(FENCED), False
        return answer, True

    def askThrough(self, request: bytes) -> tuple[bytes, bool]:
        """
        @return: the reply of the server through the dialect, and whether the dialect would close the connection.
        """
        relay = Relay(Memcache())
        with connect(self.behind.address) as server:
            server.sendall(relay.fromClient(request))
            answer = relay.fromServer(b"")
            while relay.owed:
                answer += relay.fromServer(self.received(server))
            return answer, relay.closed

    def received(self, server: socket.socket) -> bytes:
        """
        @return: the next bytes of the server, at least one.
        """
        data = server.recv(1 << 16)
        self.assertTrue(data, "the server closed the connection")
        return data

    def compare(self, row: Exchange) -> tuple[tuple[bytes, bool], tuple[bytes, bool]]:
        """
        @return: the replies of both to a row of the table.
        """
        for server in (self.direct, self.behind):
            ask(server.address, PREPARE + FENCE, FENCED)
        return self.askDirectly(row.client), self.askThrough(row.client)

    def test_same(self) -> None:
        """
        Both give the same reply, which is the one in the table.
        """
        for row in EXCHANGES:
            if not row.differs:
                directly, through = self.compare(row)
                self.assertEqual(directly, through, row)
                self.assertEqual(through, (row.server if row.answer is None else row.answer, row.closes), row)

    def test_different(self) -> None:
        """
        Where the table has a reason for a difference, the replies differ. If they do not, the reason must be removed
        from the table.
        """
        for row in EXCHANGES:
            if row.differs not in ("", OURS):
                directly, through = self.compare(row)
                self.assertNotEqual(directly, through, row)
