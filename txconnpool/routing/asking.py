# -*- test-case-name: tests.routing.test_asking -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Takes connections for coroutines, and asks a server something on a connection of its own, which no other request can
delay.
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
        self.record: Deferred[Any] = Deferred()

    def granted(self, record: Any) -> None:
        self.record.callback(record)

    def refused(self, error: PoolError) -> None:
        self.record.errback(error)

    def abort(self, error: PoolError) -> None:
        if not self.record.called:
            self.record.errback(error)


async def take(pool: Any, exclusive: bool = False) -> Any:
    """
    Take a connection of a pool, or wait for one.

    @param exclusive: whether it must carry nothing else.

    @return: its record. The caller must add load to it at once.

    @raise PoolError: there is no connection.
    """
    waiter = _Waiter()
    record = pool.take(waiter, exclusive)
    return await waiter.record if record is None else record


async def ask(pool: PoolEngine, exchanges: Generator[tuple[Any, bytes], bytes, _Result]) -> _Result:
    """
    Ask a server, and close the connection.

    @param pool: a new pool for one connection. It has no connections afterwards.
    @param exchanges: yields commands and requests, is sent their replies, and returns the result.

    @raise PoolError: there is no connection, or it was lost. What C{exchanges} raises is passed on.
    """
    try:
        connection = (await take(pool)).connection
        command, request = next(exchanges)
        while True:
            command, request = exchanges.send(await connection.ask(command, request))
    except StopIteration as stop:
        result: _Result = stop.value
        return result
    finally:
        await pool.abort()
