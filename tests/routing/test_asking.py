# -*- test-case-name: tests.routing.test_asking -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.asking}.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.redisserver import RedisServer
from txconnpool.errors import ServerUnavailable
from txconnpool.pool.connection import ConnectionFactory
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.engine import PoolEngine
from txconnpool.routing.asking import ask
from txconnpool.wire.redis.commands import BY_NAME
from txconnpool.wire.redis.dialect import Redis
from txconnpool.wire.redis.framing import encode


class AskTests(SynchronousTestCase):
    """
    Tests for L{ask}.
    """

    def setUp(self) -> None:
        """
        Make a server, and ask it.
        """
        self.clock = Clock()
        self.server = RedisServer(self.clock)
        self.addCleanup(lambda: self.assertEqual((self.clock.getDelayedCalls(), self.server.open), ([], [])))

    def ask(self, failing: bool = False) -> Deferred[bytes]:
        """
        @return: fires with two replies.
        """

        def exchanges() -> Generator[tuple[Any, bytes], bytes, bytes]:
            first = yield BY_NAME["ping"], encode([b"PING"])
            if failing:
                raise ValueError(first)
            return first + (yield BY_NAME["dbsize"], encode([b"DBSIZE"]))

        limits = Limits(maximum=1, waitTimeout=2.0, whenDown=1)
        factory = ConnectionFactory(Redis(), self.clock, 2.0)
        pool = PoolEngine([self.server], factory, limits, self.clock, connectTimeout=1.0)
        return Deferred.fromCoroutine(ask(pool, exchanges()))

    def turns(self) -> None:
        """
        Let the server reply.
        """
        for _ in range(10):
            self.clock.advance(0)
            for line in self.server.open:
                line.deliver()

    def test_answers(self) -> None:
        """
        The result is that of the requests, and the connection is closed.
        """
        asked = self.ask()
        self.turns()
        self.assertEqual(self.successResultOf(asked), b"+PONG\r\n:0\r\n")

    def test_raises(self) -> None:
        """
        An error of the exchange is passed on, and the connection is closed.
        """
        asked = self.ask(failing=True)
        self.turns()
        self.failureResultOf(asked, ValueError)

    def test_refused(self) -> None:
        """
        A server that cannot be reached is an error.
        """
        self.server.mode = "refuse"
        asked = self.ask()
        self.turns()
        self.failureResultOf(asked, ServerUnavailable)

    def test_cancelled(self) -> None:
        """
        Nothing is left if it is cancelled, before there is a connection or a reply.
        """
        self.server.mode = "hang"
        asked = self.ask()
        self.turns()
        asked.cancel()
        self.turns()
        self.failureResultOf(asked, CancelledError)
        self.server.mode = "accept"
        asked = self.ask()
        self.clock.advance(0)
        asked.cancel()
        self.turns()
        self.failureResultOf(asked, CancelledError)
