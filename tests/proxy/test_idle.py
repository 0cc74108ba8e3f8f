# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.idle}: clients that send nothing.
"""

from __future__ import annotations

from dataclasses import replace

from tests.clients import SessionTestCase, get
from tests.pipes import Pipe
from tests.stage import Stage, assertClosed
from txconnpool.proxy.flow import SessionLimits


class IdleTests(SessionTestCase):
    """
    Tests for C{client-idle-timeout}.
    """

    def idle(self, timeout: float = 8.0) -> Stage:
        """
        @return: a stage whose clients have a time limit.
        """
        return self.stage(sessionLimits=SessionLimits(idleTimeout=timeout), requestTimeout=100.0)

    def pass_(self, stage: Stage, seconds: int) -> None:
        """
        Let time pass.
        """
        for _ in range(seconds):
            stage.clock.advance(1)

    def isOpen(self, *clients: Pipe) -> list[bool]:
        """
        @return: whether each client is connected.
        """
        return [client.connected for client in clients]

    def test_closed(self) -> None:
        """
        A client that has sent nothing for the time, or only a part of a request, is closed. Others are not.
        """
        stage = self.idle()
        never, once, part, busy = (stage.client() for _ in range(4))
        stage.ask(once, b"get a\r\n")
        part.send(b"get ")
        for _ in range(7):
            self.pass_(stage, 1)
            self.assertEqual(stage.ask(busy, b"get a\r\n"), get(b"a"))
        self.assertEqual(self.isOpen(never, once, part, busy), [True] * 4)
        for _ in range(4):
            self.pass_(stage, 1)
            self.assertEqual(stage.ask(busy, b"get a\r\n"), get(b"a"))
        self.assertEqual(self.isOpen(never, once, part, busy), [False, False, False, True])
        self.assertEqual(stage.sessions.idle.closed, 3)
        self.assertEqual(part.take(), b"")

    def test_waits(self) -> None:
        """
        A client that waits for a reply, or has not read all, is not idle. The time counts from then.
        """
        stage = self.idle()
        waits, reads = stage.client(), stage.client()
        reads.reads = False
        reads.send(b"get b\r\n")
        stage.line.look()
        large = b"VALUE b 0 900000\r\n%s\r\nEND\r\n" % (b"x" * 900000)
        stage.line.owed = large
        stage.serve()
        waits.send(b"get a\r\n")
        self.pass_(stage, 20)
        stage.serve()
        self.assertEqual(self.isOpen(waits, reads), [True, True])
        self.pass_(stage, 20)
        self.assertEqual(self.isOpen(waits, reads), [False, True])
        while reads.unread:
            reads.read()
            stage.serve()
        self.assertEqual(reads.take(), large)
        self.pass_(stage, 12)
        self.assertFalse(reads.connected)

    def test_changed(self) -> None:
        """
        The time can be changed, also for existing clients. 0 is no limit.
        """
        stage = self.idle(0.0)
        client = stage.client()
        self.pass_(stage, 100)
        self.assertTrue(client.connected)
        stage.sessions.limit(replace(stage.sessions.limits, idleTimeout=8.0))
        self.pass_(stage, 7)
        stage.sessions.limit(replace(stage.sessions.limits, idleTimeout=0.0))
        self.pass_(stage, 100)
        self.assertEqual(stage.ask(client, b"get a\r\n"), get(b"a"))
        stage.sessions.limit(replace(stage.sessions.limits, idleTimeout=1.0))
        self.pass_(stage, 3)
        self.assertFalse(client.connected)

    def test_end(self) -> None:
        """
        A client that is being closed for another reason stays closed to requests. No timer is left.
        """
        stage = self.idle()
        client = stage.client()
        self.pass_(stage, 4)
        client.send(b"get a\r\n")
        self.pass_(stage, 4)
        stage.sessions.drain()
        client.send(b"get b\r\n")
        stage.serve()
        self.assertEqual((client.take(), client.connected), (get(b"a"), False))
        assertClosed(self, stage)
