# -*- test-case-name: tests.routing.test_asking -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Asks a server something on a connection of its own, which no other request can delay.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IWaiter
from txconnpool.pool.engine import PoolEngine

_Result = TypeVar("_Result")


@implementer(IWaiter)
class _Waiter:
    """
    Waits for a connection.
    """

    ticket: Any = None

    def __init__(self) -> None:
        self.connection: Deferred[Any] = Deferred()

    def granted(self, record: Any) -> None:
        self.connection.callback(record.connection)

    def refused(self, error: PoolError) -> None:
        self.connection.errback(error)

    def abort(self, error: PoolError) -> None:
        if not self.connection.called:
            self.connection.errback(error)


async def ask(pool: PoolEngine, exchanges: Generator[tuple[Any, bytes], bytes, _Result]) -> _Result:
    """
    Ask a server, and close the connection.

    @param pool: a new pool for one connection. It has no connections afterwards.
    @param exchanges: yields commands and requests, is sent their replies, and returns the result.

    @raise PoolError: there is no connection, or it was lost. What C{exchanges} raises is passed on.
    """
    waiter = _Waiter()
    try:
        record = pool.take(waiter)
        connection = record.connection if record is not None else await waiter.connection
        command, request = next(exchanges)
        while True:
            command, request = exchanges.send(await connection.ask(command, request))
    except StopIteration as stop:
        result: _Result = stop.value
        return result
    finally:
        await pool.abort()
