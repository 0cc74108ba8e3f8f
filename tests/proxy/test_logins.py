# -*- test-case-name: tests.proxy.test_logins -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.logins}: clients that have to log in.
"""

from __future__ import annotations

from tests.bugs import covers
from tests.clients import EXCHANGES, SessionTestCase, get
from tests.stage import Stage
from txconnpool.wire.memcache.dialect import Memcache


class LoginTests(SessionTestCase):
    """
    Tests for sessions of clients that have to log in.
    """

    LOGIN = b"set x 0 0 10\r\njoe secret\r\n"
    UNAUTHENTICATED = b"CLIENT_ERROR unauthenticated\r\n"

    def gated(self) -> Stage:
        """
        Make a stage whose clients have to log in.
        """
        stage = self.stage(start=False)
        stage.sessions.gate.accepted = ((b"joe", b"secret"),)
        stage.pool.start()
        stage.turns()
        return stage

    def test_refused(self) -> None:
        """
        Before the login no request is done, whatever it is, and nothing reaches a server.
        """
        stage = self.gated()
        for request, _ in EXCHANGES:
            told = stage.ask(stage.client(), request)
            self.assertIn(told, (self.UNAUTHENTICATED, b"CLIENT_ERROR bad authentication token format\r\n"), request)
        self.assertEqual(stage.line.asked, [])

    @covers("30")
    def test_admitted(self) -> None:
        """
        After the login everything is as ever, also for what came together with it, in any pieces.
        """
        requests = b"".join(request for request, _ in EXCHANGES)
        replies = b"".join(reply for _, reply in EXCHANGES)
        for piece in (0, 1, 7, 20):
            stage = self.gated()
            stage.dialect = stage.sessions.dialect = Memcache(2048)
            client = stage.client()
            client.send(self.LOGIN + requests, piece)
            stage.serve()
            self.assertEqual(client.take(), b"STORED\r\n" + replies)

    def test_eachItself(self) -> None:
        """
        One client's login is for itself only.
        """
        stage = self.gated()
        client, other = stage.client(), stage.client()
        self.assertEqual(stage.ask(client, self.LOGIN), b"STORED\r\n")
        self.assertEqual(stage.ask(other, b"get a\r\n"), self.UNAUTHENTICATED)
        self.assertEqual(stage.ask(client, b"get a\r\n"), get(b"a"))

    def test_again(self) -> None:
        """
        Who is refused may try again, and who is let in may store what looks like a login.
        """
        stage = self.gated()
        client = stage.client()
        wrong = b"set x 0 0 9\r\njoe wrong\r\n"
        self.assertEqual(stage.ask(client, wrong), b"CLIENT_ERROR authentication failure\r\n")
        self.assertEqual(stage.ask(client, self.LOGIN), b"STORED\r\n")
        self.assertEqual(stage.ask(client, wrong), b"STORED\r\n")
        self.assertEqual(stage.line.asked, [wrong])

    def test_closed(self) -> None:
        """
        Who sends more than a login can be is closed.
        """
        stage = self.gated()
        client = stage.client()
        client.send(b"a" * 6000, 1000)
        stage.turns()
        self.assertEqual((client.connected, client.take()), (False, b""))

    def test_drained(self) -> None:
        """
        A client that never logged in does not hold up the end.
        """
        stage = self.gated()
        client = stage.client()
        client.send(self.LOGIN[:20])
        drained = stage.sessions.drain()
        stage.turns()
        self.successResultOf(drained)
        self.assertFalse(client.connected)
