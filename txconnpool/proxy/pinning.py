# -*- test-case-name: tests.proxy.test_pinning -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A connection for one client alone, whose requests depend on the state of the connection.
"""

from __future__ import annotations

from typing import Any

from txconnpool.errors import PoolError
from txconnpool.pool.decisions.reasons import LEFT_IN_USE


class Pin:
    """
    The lease of a connection by a session. It lasts from a request that needs it until the request reader reports that
    no state is left and all requests are answered. The connection then returns to the pool. If the client leaves before
    that, the connection is closed.
    """

    __slots__ = ("_pool", "_reader", "_record", "_session")

    def __init__(self, session: Any, pool: Any, record: Any, reader: Any) -> None:
        """
        @param session: the session.
        @param pool: the pool.
        @param record: the record of an idle connection.
        @param reader: the request reader of the session.
        """
        self._session = session
        self._pool = pool
        self._record = record
        self._reader = reader
        record.lent = record.depth
        record.load += record.lent
        record.connection.lease = self
        reader.pinned = True

    @property
    def connection(self) -> Any:
        """
        The L{Connection<txconnpool.pool.connection.Connection>}.
        """
        return self._record.connection

    @property
    def needed(self) -> bool:
        """
        Whether requests of the client still need the connection.
        """
        return bool(self._reader.pinned)

    @property
    def held(self) -> bool:
        """
        Whether the server does not read.
        """
        return bool(self._record.held)

    def forwarded(self, command: Any) -> None:
        """
        A request was sent on the connection.
        """
        self._reader.forwarded(command)

    def pushed(self, data: bytes) -> None:
        """
        Write a frame that the server sent without a request.
        """
        self._session.pushed(data)

    def connectionLost(self, error: PoolError) -> None:
        """
        Handle the loss of the connection, before its requests are answered with the error.
        """
        if self.needed:
            self._reader.pinned = False
            self._session.pinLost(error)

    def release(self) -> None:
        """
        Return the connection, which is idle, to the pool.
        """
        self._unload()
        self._pool.hasCapacity(self._record)

    def abandon(self) -> None:
        """
        Close the connection, because its state belongs to a client that is gone.
        """
        self._pool.retire(self._record, LEFT_IN_USE)
        connection = self._record.connection
        self._unload()
        connection.abort()

    def _unload(self) -> None:
        self._record.connection.lease = None
        self._record.load -= self._record.lent
        self._record.lent = 0
