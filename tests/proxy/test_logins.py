# -*- test-case-name: tests.proxy.test_logins -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.logins}: clients that have to log in.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.clients import EXCHANGES, SessionTestCase, get
from tests.stage import Stage
from txconnpool.proxy import logins
from txconnpool.proxy.logins import LoginGate
from txconnpool.wire.memcache.dialect import Memcache


class LoginTests(SessionTestCase):
    """
    Tests for sessions of clients that have to log in.
    """

    LOGIN = b"set x 0 0 10\r\njoe secret\r\n"
    UNAUTHENTICATED = b"CLIENT_ERROR unauthenticated\r\n"

    def gated(self) -> Stage:
        """
        @return: a stage with one user.
        """
        stage = self.stage(start=False)
        stage.sessions.gate.accepted = ((b"joe", b"secret"),)
        stage.pool.start()
        stage.turns()
        return stage

    def test_refused(self) -> None:
        """
        Before the login every request gets an error, and nothing is sent to a server.
        """
        for request, _ in EXCHANGES:
            stage = self.gated()
            reply = stage.ask(stage.client(), request)
            self.assertIn(reply, (self.UNAUTHENTICATED, b"CLIENT_ERROR bad authentication token format\r\n"), request)
            self.assertEqual(stage.line.asked, [])

    @covers("30")
    def test_admitted(self) -> None:
        """
        After the login requests are served, also those in the same packet, in any pieces.
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
        A login is valid for one connection of one client.
        """
        stage = self.gated()
        client, other = stage.client(), stage.client()
        self.assertEqual(stage.ask(client, self.LOGIN), b"STORED\r\n")
        self.assertEqual(stage.ask(other, b"get a\r\n"), self.UNAUTHENTICATED)
        self.assertEqual(stage.ask(client, b"get a\r\n"), get(b"a"))

    def test_again(self) -> None:
        """
        A client that was refused may try again. After a login, a set that looks like a login is an ordinary set.
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
        A client that sends more than a login can be is closed.
        """
        stage = self.gated()
        client = stage.client()
        client.send(b"a" * 6000, 1000)
        stage.turns()
        self.assertEqual((client.connected, client.take()), (False, b""))

    def test_drained(self) -> None:
        """
        A client that has not logged in does not delay the end.
        """
        stage = self.gated()
        client = stage.client()
        client.send(self.LOGIN[:20])
        drained = stage.sessions.drain()
        stage.turns()
        self.successResultOf(drained)
        self.assertFalse(client.connected)


class LoginGateTests(SynchronousTestCase):
    """
    Tests for L{LoginGate}.
    """

    def test_constantTime(self) -> None:
        """
        The user and the password are compared with those of all users, in constant time, whichever of them match.
        """
        compared: list[tuple[bytes, bytes]] = []

        def compare(one: bytes, other: bytes) -> bool:
            compared.append((one, other))
            return one == other

        self.patch(logins, "compare_digest", compare)
        gate = LoginGate()
        gate.accepted = ((b"ann", b"pw2"), (b"joe", b"secret"), (b"col", b"a:b"))
        for login, known in (((b"joe", b"secret"), True), ((b"joe", b"pw2"), False), ((b"eve", b"secret"), False)):
            compared.clear()
            self.assertIs(gate.check(login), known)
            user, password = login
            expected = [pair for name, word in gate.accepted for pair in ((user, name), (password, word))]
            self.assertEqual(compared, expected)

    def test_counted(self) -> None:
        """
        A login that could not be read, or that nobody has, is a failed attempt.
        """
        gate = LoginGate()
        self.assertFalse(gate.check((b"joe", b"secret")))
        gate.accepted = ((b"joe", b"secret"),)
        self.assertFalse(gate.check(None))
        self.assertTrue(gate.check((b"joe", b"secret")))
        self.assertEqual((gate.attempts, gate.failures), (3, 2))
