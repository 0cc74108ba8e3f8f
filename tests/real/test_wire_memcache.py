# -*- test-case-name: tests.real.test_wire_memcache -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The table of exchanges against a real memcached: what a client reads through the dialect is what it would read from the
server itself.
"""

from __future__ import annotations

import socket

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.real.servers import Memcached, ask, connect, missing
from tests.wire.memcache.test_exchanges import EXCHANGES, OURS, Exchange, Relay
from txconnpool.wire.memcache.dialect import Memcache

VERSION = "1.6.18"

#: The state the table is written for.
PREPARE = b"flush_all\r\nset a 5 0 3\r\nabc\r\nset n 0 0 2\r\n10\r\n"

#: Ends an exchange, as nothing in the table does: all that was asked before is answered before it.
FENCE = b"mg fence k\r\n"
FENCED = b"EN kfence\r\n"


class MemcachedTests(SynchronousTestCase):
    """
    Two servers in the same state: one is asked directly, the other through the dialect.
    """

    skip = missing("memcached")

    def setUp(self) -> None:
        """
        Start both, of the version the table is about.
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
        @return: the answer of the server without anything between, and whether it closed the connection.
        """
        answer = ask(self.direct.address, request + FENCE, FENCED)
        if answer.endswith(FENCED):
            return answer.removesuffix(FENCED), False
        return answer, True

    def askThrough(self, request: bytes) -> tuple[bytes, bool]:
        """
        @return: the answer of the server with the dialect between, and whether it would close the connection.
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
        @return: the two answers to a row.
        """
        for server in (self.direct, self.behind):
            ask(server.address, PREPARE + FENCE, FENCED)
        return self.askDirectly(row.client), self.askThrough(row.client)

    def test_same(self) -> None:
        """
        Both answer the same, and what they answer is in the table.
        """
        for row in EXCHANGES:
            if not row.differs:
                directly, through = self.compare(row)
                self.assertEqual(directly, through, row)
                self.assertEqual(through, (row.server if row.answer is None else row.answer, row.closes), row)

    def test_different(self) -> None:
        """
        Where the table says that they differ, they do: a row that has no reason has to lose it.
        """
        for row in EXCHANGES:
            if row.differs not in ("", OURS):
                directly, through = self.compare(row)
                self.assertNotEqual(directly, through, row)
