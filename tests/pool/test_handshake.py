# -*- test-case-name: tests.pool.test_handshake -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.handshake}, with the handshake of memcached.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from txconnpool.errors import LoginFailed, ServerUnavailable, TooManyConnections
from txconnpool.pool.handshake import Handshake
from txconnpool.wire import Login
from txconnpool.wire.memcache.auth import loginRequest
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.redis.dialect import Redis


class Server:
    """
    A connection to a server with prepared replies.
    """

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []
        self.record: Any = SimpleNamespace(server=SimpleNamespace(name="server0"))

    def probe(self, command: Any, request: bytes) -> Deferred[bytes]:
        """
        Return the next reply.
        """
        self.asked.append(request)
        return succeed(self.answers.pop(0))


class HandshakeTests(SynchronousTestCase):
    """
    Tests for L{Handshake}.
    """

    def greet(self, login: Login | None, server: Server) -> Deferred[None]:
        """
        Run a handshake.
        """
        self.handshake = Handshake("pages", Memcache(), login)
        return Deferred.fromCoroutine(self.handshake(server))

    def test_open(self) -> None:
        """
        A server that requires no password only gets the request that tests whether it is alive.
        """
        for answer in (b"VERSION 1.6.18\r\n", b"ERROR\r\n"):
            server = Server(answer)
            self.successResultOf(self.greet(None, server))
            self.assertEqual(server.asked, [b"version\r\n"])

    @covers("30")
    def test_login(self) -> None:
        """
        A server that requires a password gets it.
        """
        server = Server(b"CLIENT_ERROR unauthenticated\r\n", b"STORED\r\n", b"VERSION 1.6.18\r\n")
        self.successResultOf(self.greet((b"joe", b"secret"), server))
        self.assertEqual(server.asked, [b"version\r\n", loginRequest((b"joe", b"secret"))[1], b"version\r\n"])

    def test_tooMany(self) -> None:
        """
        A server with as many connections as it accepts says so in its first reply.
        """
        server = Server(b"ERROR Too many open connections\r\n")
        failure = self.failureResultOf(self.greet(None, server), TooManyConnections)
        self.assertEqual(str(failure.value), "too many connections")

    def test_notSent(self) -> None:
        """
        A server that requires no password does not get it. This is logged once.
        """
        server = Server(b"VERSION 1.6.18\r\n", b"VERSION 1.6.18\r\n")
        with capturedLogs() as logs:
            self.successResultOf(self.greet((b"joe", b"secret"), server))
            self.successResultOf(Deferred.fromCoroutine(self.handshake(server)))
        self.assertEqual(server.asked, [b"version\r\n"] * 2)
        self.assertEqual([(each["log_level"].name, each["pool"], each["server"]) for each in logs],
                         [("warn", "pages", "server0")])  # fmt: skip

    def test_wrongPassword(self) -> None:
        """
        A wrong password is a failure, with the server's text if it is one of memcached's, and without the password.
        """
        for answer, told in (
            (b"CLIENT_ERROR authentication failure\r\n", "authentication failure"),
            (b"CLIENT_ERROR bad authentication token format\r\n", "bad authentication token format"),
            (b"SERVER_ERROR joe wrong\r\n", "login failed: received 24 bytes that begin with SERVER_ERROR"),
            (b"CLIENT_ERROR joe wrong\r\n", "login failed: received 24 bytes that begin with CLIENT_ERROR"),
        ):
            server = Server(b"CLIENT_ERROR unauthenticated\r\n", answer)
            failure = self.failureResultOf(self.greet((b"joe", b"wrong"), server), LoginFailed)
            self.assertEqual(str(failure.value), told)

    def test_noPassword(self) -> None:
        """
        If a server requires a password and none is set, the error names the setting.
        """
        server = Server(b"CLIENT_ERROR unauthenticated\r\n")
        failure = self.failureResultOf(self.greet(None, server), LoginFailed)
        self.assertEqual(
            str(failure.value), "authentication failure: the server asks for a password, and upstream-auth is not set"
        )

    def test_primary(self) -> None:
        """
        Where only a master is used, a server that says that it is a replica is not.
        """
        greeting = (b"+PONG\r\n", b"$-1\r\n")
        for role, isMaster in (
            (b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n", True),
            (b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n$9\r\nconnected\r\n:0\r\n", False),
            (b"-LOADING Redis is loading the dataset in memory\r\n", False),
        ):
            handshake, server = Handshake("pages", Redis()), Server(*greeting, role, *greeting)
            handshake.primary = True
            greeted = Deferred.fromCoroutine(handshake(server))
            if isMaster:
                self.successResultOf(greeted)
            else:
                self.failureResultOf(greeted, ServerUnavailable)
            self.assertIn(b"ROLE", server.asked[-1])
