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
    Base of all test cases.
    """

    def results(self, answers: Sequence[Deferred[Any]]) -> list[Any]:
        """
        Get the results of calls, each of which must have one.
        """
        return [self.successResultOf(answer) for answer in answers]


class EmbeddedTestCase(MemCacheTestCase):
    """
    A pool whose server is an embedded memcached.
    """

    settings: dict[str, Any] = {}

    def setUp(self) -> None:
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
        Make one connection and discard the requests recorded on it.
        """
        self.pool.result(self.pool.version())
        self.connection.received = b""

    def store(self, **values: bytes) -> None:
        """
        Store values and discard the requests recorded on the connection.
        """
        for key, value in values.items():
            self.pool.result(self.pool.set(key, value))
        self.connection.received = b""


class ScriptedTestCase(MemCacheTestCase):
    """
    A pool whose server sends only what the test sends.
    """

    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.server = FakeServer(self.clock, Factory.forProtocol(Protocol))
        self.pool = MemCachePool(self.server, 1, self.clock, configure=None, **self.settings)
        self.addCleanup(finish, self.pool)

    def flush(self) -> None:
        """
        Run all events that are due without time passing.
        """
        self.clock.advance(0)

    def reply(self, data: bytes) -> None:
        """
        Send bytes from the server on the only connection.
        """
        self.flush()
        (connection,) = self.server.connections
        connection.send(data)
        self.flush()

    def lose(self) -> None:
        """
        Lose all connections after they have lived long enough for it not to count as a failed dial.
        """
        self.flush()
        self.clock.advance(FLAP)
        self.server.reset()
        self.flush()

    def received(self) -> bytes:
        """
        @return: the bytes received by the server on the only connection since the last call.
        """
        self.flush()
        (connection,) = self.server.connections
        received, connection.received = connection.received, b""
        return received
