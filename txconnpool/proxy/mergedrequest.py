# -*- test-case-name: tests.proxy.test_merging -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A request that a server gets for clients whose requests are sent together.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IResendingSink


@implementer(IResendingSink)
class MergedRequest:
    """
    A request of a L{Merge<txconnpool.proxy.merging.Merge>}, and the sink of its reply. If anything unusual happens, the
    merge is taken apart: then another sink takes the place of this one.

    @ivar merge: the merge.
    @ivar pool: the pool of the server; C{None}: there is none.
    @ivar request: the request.
    @ivar connection: the connection on which it is sent.
    """

    joins = False

    __slots__ = ("_sink", "connection", "merge", "pool", "request")

    def __init__(self, merge: Any, pool: Any, request: bytes) -> None:
        self.merge = merge
        self.pool = pool
        self.request = request
        self.connection: Any = None
        self._sink: Any = None  # what gets the reply in place of this object

    def send(self, connections: dict[Any, Any], command: Any) -> None:
        """
        Send the request.

        @param connections: the connection of each pool.
        """
        self.connection = connection = connections[self.pool]
        connection.send(self, command, 1, self.request)

    def replied(self, data: Any, done: int) -> None:
        """
        Take bytes of the reply.
        """
        raise NotImplementedError

    @property
    def _apart(self) -> Any:
        """
        What gets the reply in place of this object.
        """
        if self._sink is None:
            self.merge.takeApart()
        return self._sink

    def replace(self, sink: Any) -> None:
        """
        Let something else get the reply.
        """
        self._sink = sink
        self.connection.reassign(self, sink)

    def declined(self, connection: Any, sent: Any, reply: bytes) -> bool:
        """
        Let it be sent once more.
        """
        return bool(self._apart.declined(connection, sent, reply))

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        The connection was lost.
        """
        self._apart.requestsLost(requests, begun, error)

    def afterLoss(self, error: PoolError) -> None:
        """
        Let the sessions go on.
        """
        self._apart.afterLoss(error)

    def abort(self, error: PoolError) -> None:
        """
        Close the clients, because of an unexpected exception.
        """
        (self.merge if self._sink is None else self._sink).abort(error)
