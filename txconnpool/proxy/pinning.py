# -*- test-case-name: tests.proxy.test_pinning -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A connection of its own for a client whose requests leave a state on the connection.
"""

from __future__ import annotations

from typing import Any


class Pin:
    """
    The lease of a connection by a session, from a request that needs it until the reader of the session says that the
    state is gone and all requests are answered. The connection is then given back to the pool; it is closed if the
    client leaves before.
    """

    __slots__ = ("_pool", "_reader", "_record", "_session")

    def __init__(self, session: Any, pool: Any, record: Any, reader: Any) -> None:
        """
        @param record: a connection that carries nothing.
        @param reader: the reader of the requests of the session.
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

    def forwarded(self, command: Any) -> None:
        """
        A request was sent on the connection.
        """
        self._reader.forwarded(command)

    def pushed(self, data: bytes) -> None:
        """
        The server sent a frame that no request asked for.
        """
        self._session.put(data)

    def connectionLost(self) -> None:
        """
        The connection is gone, and its requests have been answered with the error.
        """
        self._reader.pinned = False
        self._record.lent = 0
        self._session.pinLost()

    def release(self) -> None:
        """
        Give the connection back to the pool: it carries nothing any more.
        """
        self._unload()
        self._pool.hasCapacity(self._record)

    def abandon(self) -> None:
        """
        Close the connection, because the state on it belongs to a client that is gone.
        """
        self._pool.retire(self._record, "its client left it in use")
        connection = self._record.connection
        self._unload()
        connection.abort()

    def _unload(self) -> None:
        self._record.connection.lease = None
        self._record.load -= self._record.lent
        self._record.lent = 0
