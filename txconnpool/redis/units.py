# -*- test-case-name: tests.redis.test_pipeline -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Requests that are sent on one connection, one directly after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import ConnectionLostInFlight, PoolError
from txconnpool.interfaces import IReplySink, IWaiter
from txconnpool.pool.calls import SingleRequest
from txconnpool.pool.connection import Connection, InFlight
from txconnpool.pool.decisions.records import GONE, Record
from txconnpool.wire.redis.commands import RedisCommand


class LeasedRequest(SingleRequest):
    """
    A request on a leased connection. It is never sent again: it may depend on the state of the connection.
    """

    __slots__ = ()

    def granted(self, record: Record) -> None:
        """
        Send the request, on the connection of the caller.
        """
        if record.phase is GONE:
            self.fail(ConnectionLostInFlight("the leased connection was lost", sent=False))
        else:
            record.connection.send(self, self.command, 1, self._data, True)

    def afterLoss(self, error: PoolError) -> None:
        """
        Fail: the connection was lost.
        """
        self.fail(error)


def askLeased(
    connection: Connection, command: RedisCommand, data: bytes, meaning: Callable[[bytes], Any]
) -> Deferred[Any]:
    """
    Send a request on a leased connection.

    @return: fires with the meaning of the reply. If it is cancelled, the reply is still to come.
    """
    request = LeasedRequest(None, command, data, meaning)
    request.granted(connection.record)
    return request.result


def discard(pool: Any, connection: Connection) -> None:
    """
    End a lease and close its connection at once, also if it has a request in flight: a server that blocks it must not
    execute it later.
    """
    if connection.record.phase is not GONE:
        connection.abort()
    pool.release(connection, discard=True)


class Step:
    """
    One request of a L{Unit}.

    @ivar result: fires with the meaning of the reply.
    """

    __slots__ = ("command", "data", "meaning", "result")

    def __init__(self, command: RedisCommand, data: bytes, meaning: Callable[[bytes], Any]) -> None:
        self.command = command
        self.data = data
        self.meaning = meaning
        self.result: Deferred[Any] = Deferred()

    def answer(self, reply: bytes) -> None:
        """
        Fire C{result} with the meaning of a reply.
        """
        if self.result.called:
            return
        try:
            meaning = self.meaning(reply)
        except Exception:
            self.result.errback(Failure())
        else:
            self.result.callback(meaning)


@implementer(IWaiter, IReplySink)
class Unit:
    """
    Requests that are sent on one connection, with nothing between them. They are never sent again.

    @ivar ticket: the ticket of the pool while they wait for a connection, or C{None}.
    """

    __slots__ = ("_parts", "_pool", "_steps", "ticket")

    def __init__(self, pool: Any, steps: list[Step]) -> None:
        """
        @param pool: a L{CallingPool<txconnpool.pool.calls.CallingPool>}.
        """
        self._pool = pool
        self._steps = deque(steps)
        self._parts: list[bytes] = []
        self.ticket: Any = None

    def send(self) -> None:
        """
        Send the requests, at once or when there is a connection with capacity.
        """
        self._pool.send(self)

    def granted(self, record: Record) -> None:
        """
        Send the requests.
        """
        for step in list(self._steps):
            record.connection.send(self, step.command, 1, step.data, False)

    def refused(self, error: PoolError) -> None:
        """
        Fail, because there is no connection.
        """
        self.fail(error)

    def replied(self, data: bytes, done: int) -> None:
        """
        Pass a complete reply to the oldest request.
        """
        if self._parts or not done:
            self._parts.append(data)
            if not done:
                return
            data, self._parts = b"".join(self._parts), []
        self._steps.popleft().answer(data)

    def requestsLost(self, requests: list[InFlight], begun: bool, error: PoolError) -> None:
        """
        Drop what has arrived of a reply.
        """
        self._parts = []

    def afterLoss(self, error: PoolError) -> None:
        """
        Fail: the connection was lost.
        """
        self.fail(error)

    def fail(self, error: Exception) -> None:
        """
        Fail all requests that have no reply.
        """
        while self._steps:
            step = self._steps.popleft()
            if not step.result.called:
                step.result.errback(error)
