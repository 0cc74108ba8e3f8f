# -*- test-case-name: tests.proxy.test_memory -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.memory}: the bytes held for all clients, and their bound.
"""

from __future__ import annotations

from tests.bugs import covers
from tests.clients import SessionTestCase, put
from tests.pipes import HIGH_WATER
from txconnpool.proxy import memory
from txconnpool.proxy.flow import SessionLimits


class BufferedBytesTests(SessionTestCase):
    """
    Tests for the bytes that are held for all clients together.
    """

    def test_all(self) -> None:
        """
        When the total exceeds the bound, the client with the most unread bytes is closed.
        """
        stage = self.stage(maxUnread=150000)
        slow, slower, reader = (stage.client() for _ in range(3))
        slow.reads = slower.reads = False
        for size, client in ((80000, slow), (90000, slower), (100000, reader)):
            client.send(b"get a\r\n")
            stage.line.look()
            stage.line.owed = b"VALUE a 0 %d\r\n%s\r\nEND\r\n" % (size, b"x" * size)
            stage.serve()
        self.assertEqual([client.aborted for client in (slow, slower, reader)], [False, True, False])
        self.assertEqual(stage.unread.dropped, 1)

    def test_allThatIsKept(self) -> None:
        """
        Incomplete values are counted too, until they are complete. When the total exceeds the bound, the client with
        the most bytes is closed.
        """
        stage = self.stage(maxUnread=1 << 20)
        clients = [stage.client() for _ in range(5)]
        for client, size in zip(clients, (300000, 400000, 200000, 150000), strict=False):
            client.send(put(b"a", 500000)[:size], 10000)
        self.assertEqual([client.aborted for client in clients], [False, True, False, False, False])
        self.assertEqual(stage.unread.dropped, 1)
        clients[0].send(put(b"a", 500000)[300000:], 10000)
        stage.serve()
        self.assertEqual((clients[0].take(), clients[0].aborted), (b"STORED\r\n", False))
        clients[4].send(put(b"a", 500000)[:400000], 10000)
        self.assertEqual([client.aborted for client in clients[2:]], [False, False, False])
        for client in clients:
            client.lose()
        stage.turns()
        self.assertEqual(stage.unread.total, 0)

    def test_completeThatIsKept(self) -> None:
        """
        A complete value that is not forwarded, because its client does not read, is counted too.
        """
        stage = self.stage(sessionLimits=SessionLimits(unreadSoft=500))
        client = stage.client()
        client.reads = False
        client.write(b" " * (HIGH_WATER + 1))
        value = put(b"k", 500000)
        client.send(b"get zzzz\r\nget zzzz\r\n" + value[:100000])
        stage.serve()
        client.send(value[100000:])
        self.assertFalse(client.reading)
        client.reading = True  # the transport had read this before
        client.send(b"")
        self.assertEqual(client.protocol.kept, len(value))
        self.assertEqual(stage.unread.total, client.protocol.unread + len(value))
        client.read()
        stage.serve()
        self.assertEqual((client.protocol.kept, stage.unread.total), (0, 0))
        self.assertEqual(stage.line.asked[-1], value)

    @covers("26")
    def test_memoryGivenBack(self) -> None:
        """
        When many bytes were held and few are left, free memory is returned to the system.
        """
        given: list[int] = []
        stage = self.stage()
        self.patch(memory, "giveBack", lambda: given.append(stage.unread.total))
        self.patch(memory, "MUCH", 1000000)
        clients = [stage.client() for _ in range(20)]
        for client in clients:
            client.send(put(b"a", 200000)[:100000], 50000)
        self.assertEqual(given, [])
        for client in clients:
            client.lose()
        stage.turns()
        self.assertEqual(given, [100000])
