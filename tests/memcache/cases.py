# Copyright txconnpool contributors. See LICENSE.
"""
Test cases with a memcached client on a server in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.memcache import MemCachePool
from txconnpool.pool.decisions.health import FLAP
from txconnpool.testing import FakeConnection, FakeServer, MemoryPool, finish

HELLO = b"version\r\n"


class MemCacheTestCase(SynchronousTestCase):
    """
    What is common to all tests.
    """

    def results(self, answers: Sequence[Deferred[Any]]) -> list[Any]:
        """
        The results of calls, each of which has one.
        """
        return [self.successResultOf(answer) for answer in answers]


class EmbeddedTestCase(MemCacheTestCase):
    """
    What is common to the tests of a pool with an embedded memcached.
    """

    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        """
        Make a pool.
        """
        self.pool = MemoryPool(**self.settings)
        self.addCleanup(finish, self.pool)

    @property
    def connection(self) -> FakeConnection:
        """
        The only connection.
        """
        (connection,) = self.pool.server.connections
        return connection

    def connect(self) -> None:
        """
        Have one connection, and forget what was said on it.
        """
        self.pool.result(self.pool.version())
        self.connection.received = b""

    def store(self, **values: bytes) -> None:
        """
        Store values, and forget what was said.
        """
        for key, value in values.items():
            self.pool.result(self.pool.set(key, value))
        self.connection.received = b""


class ScriptedTestCase(MemCacheTestCase):
    """
    What is common to the tests with a server that says what the test wants.
    """

    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        """
        Make a pool and its server.
        """
        self.clock = MemoryReactorClock()
        self.server = FakeServer(self.clock, Factory.forProtocol(Protocol))
        self.pool = MemCachePool(self.server, 1, self.clock, configure=None, **self.settings)
        self.addCleanup(finish, self.pool)

    def flush(self) -> None:
        """
        Let everything happen that can happen without time passing.
        """
        self.clock.advance(0)

    def reply(self, data: bytes) -> None:
        """
        Have the server say something on the only connection.
        """
        self.flush()
        (connection,) = self.server.connections
        connection.send(data)
        self.flush()

    def lose(self) -> None:
        """
        Lose all connections, which have lived for a while.
        """
        self.flush()
        self.clock.advance(FLAP)
        self.server.reset()
        self.flush()

    def received(self) -> bytes:
        """
        What has come to the server on the only connection since the last time.
        """
        self.flush()
        (connection,) = self.server.connections
        received, connection.received = connection.received, b""
        return received
