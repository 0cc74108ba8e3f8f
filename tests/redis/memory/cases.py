# Copyright txconnpool contributors. See LICENSE.
"""
A client of the Redis in memory that sends requests as text.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.redis.memory.data import Data
from txconnpool.redis.memory.server import RedisConnection, RedisFactory
from txconnpool.wire.redis.framing import encode
from txconnpool.wire.redis.replyreader import scan
from txconnpool.wire.redis.values import ReplyParser


class MemoryClient:
    """
    A client.

    @ivar connection: the server's end of its connection.
    """

    def __init__(self, data: Data, clock: Clock) -> None:
        self.connection: RedisConnection = RedisFactory(data, clock).buildProtocol(None)
        self.transport = StringTransport()
        self.connection.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.connection.dataReceived(data)

    def received(self) -> list[Any]:
        """
        @return: the values of all that has arrived; errors are C{str}, and pushes tuples.
        """
        data, pos, found = self.transport.value(), 0, []
        self.transport.clear()
        while pos < len(data):
            isPush = data[pos : pos + 1] == b">"
            data = data[:pos] + b"*" + data[pos + 1 :] if isPush else data
            end, *_ = scan(data, pos, 1, 0)
            value = ReplyParser(str).parse(data[pos:end])
            found.append(tuple(value) if isPush else value)
            pos = end
        return found

    def ask(self, text: str) -> Any:
        """
        @return: the value of the reply to a request; a list of several values, or none, if there is not one reply.
        """
        self.send(encode(text.encode().split()))
        values = self.received()
        return values[0] if len(values) == 1 else values


class MemoryCase(SynchronousTestCase):
    """
    Base class of tests with clients.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1700000000)  # expiry times may be seconds since 1970
        self.data = Data(self.clock.seconds)
        self.client = self.connect()
        self.ask = self.client.ask

    def connect(self) -> MemoryClient:
        """
        @return: a client.
        """
        return MemoryClient(self.data, self.clock)
