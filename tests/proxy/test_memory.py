# -*- test-case-name: tests.proxy.test_memory -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.memory}: the bytes held for all clients, and their bound.
"""

from __future__ import annotations

from typing import Any

from tests.bugs import covers
from tests.clients import SessionTestCase, get, put
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


class HeldBackTests(SessionTestCase):
    """
    Tests for replies to merged gets that wait for a value that may still come.
    """

    def begin(self, **settings: Any) -> None:
        """
        Let a client send merged gets, and the server begin its reply with the values of C{b} and C{c}.
        """
        self.scene = self.stage(**settings)
        self.client = self.scene.client()
        self.client.send(b"get missing\r\nget b\r\nget a\r\nget c\r\n")
        line = self.scene.line
        line.look()
        self.assertEqual(line.asked, [b"get missing b a c\r\n"])
        self.values = get(b"b")[:-5] + get(b"c")[:-5]
        line.owed = self.values + get(b"a")
        line.deliver(len(self.values))

    def test_counted(self) -> None:
        """
        They are counted like other replies that wait, until the client gets them.
        """
        self.begin()
        self.assertEqual(self.client.take(), b"")
        self.assertEqual((self.scene.unread.total, self.client.protocol.held), (len(self.values),) * 2)
        self.scene.serve()
        self.assertEqual(self.client.take(), get(b"missing", b"b", b"a", b"c"))
        self.assertEqual((self.scene.unread.total, self.client.protocol.unread), (0, 0))

    def test_queued(self) -> None:
        """
        This is so too if there are replies of the proxy before them.
        """
        stage = self.stage()
        client = stage.client()
        client.send(b"get k\r\nx\r\nget missing\r\nget b\r\n")
        line = stage.line
        line.look()
        first, line.owed = get(b"k"), get(b"k", b"b")
        line.deliver(len(first + get(b"b")) - 5)
        self.assertEqual(client.take(), first + b"ERROR\r\n")
        self.assertEqual(stage.unread.total, len(get(b"b")) - 5)
        stage.serve()
        self.assertEqual(client.take(), get(b"missing", b"b"))
        self.assertEqual(stage.unread.total, 0)

    def test_ofOneClient(self) -> None:
        """
        If they exceed the limit of their client, it is closed, and the bytes are dropped. Another client's replies on
        the same connection arrive.
        """
        self.begin(sessionLimits=SessionLimits(unreadHard=100))
        other = self.scene.client()
        other.send(b"get k\r\n")
        self.assertTrue(self.client.aborted)
        self.assertEqual((self.scene.unread.total, self.scene.unread.dropped), (0, 1))
        self.assertEqual(self.scene.line.protocol.connection._reader.held, 0)
        self.scene.serve()
        self.assertEqual(other.take(), get(b"k"))

    def test_ofAll(self) -> None:
        """
        If the bytes of all clients exceed the bound, the client with the most is closed.
        """
        self.begin(maxUnread=100)
        self.assertTrue(self.client.aborted)
        self.scene.serve()
        self.assertEqual((self.scene.unread.total, self.scene.unread.dropped), (0, 1))

    def test_gone(self) -> None:
        """
        If the client leaves, what is held for it is dropped when more would be held.
        """
        self.begin()
        self.client.lose()
        self.scene.turns()
        self.assertEqual(self.scene.unread.total, 0)
        self.scene.line.deliver(20)
        self.assertEqual(self.scene.line.protocol.connection._reader.held, 0)
        self.scene.serve()
        self.assertEqual(self.scene.line.asked, [b"get missing b a c\r\n"])
        self.assertFalse(self.scene.line.aborted)

    def test_lost(self) -> None:
        """
        If the connection is lost, they are no longer counted, and the gets are sent again.
        """
        self.begin(maximum=2)
        self.scene.line.lose()
        self.assertEqual(self.scene.unread.total, 0)
        self.scene.turns(20)
        self.scene.clock.advance(1)
        self.scene.serve()
        self.assertEqual(self.client.take(), get(b"missing", b"b", b"a", b"c"))
        self.assertEqual(self.scene.unread.total, 0)

    def test_paused(self) -> None:
        """
        Reading from a client that was paused because of them goes on when it gets them.
        """
        self.begin(sessionLimits=SessionLimits(unreadSoft=100))
        self.client.protocol.proceed()
        self.assertFalse(self.client.reading)
        self.scene.serve()
        self.assertTrue(self.client.reading)
        self.assertEqual(self.client.take(), get(b"missing", b"b", b"a", b"c"))
