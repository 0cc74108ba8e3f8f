# -*- test-case-name: tests.proxy.test_dumping -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Connections that are made for one request of one client, besides those of the pool.

A server may be busy with such a request for a long time, and a client may read its reply slowly. On a connection of the
pool both would hold up other clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList

from txconnpool.errors import ServerUnavailable
from txconnpool.pool.decisions.health import NO_SERVERS

#: The maximum number of these connections at the same time, for all clients of a pool in a process.
SEPARATE_MAX: Final = 4


class SeparateConnections:
    """
    Pools of one connection, each for one request to one server.
    """

    def __init__(self, creators: Callable[[], Iterable[Callable[[], Any]]]) -> None:
        """
        @param creators: returns a function for each server, in their order, that creates a pool for it.
        """
        self._creators = creators
        self._open: set[Any] = set()

    def pools(self) -> Iterator[Any]:
        """
        @return: a pool for each server, one after another. Each must be given to L{end} before the next is taken.

        @raise ServerUnavailable: there is no server, or there are too many of these connections already.
        """
        found = False
        for create in self._creators():
            found = True
            if len(self._open) >= SEPARATE_MAX:
                raise ServerUnavailable(f"{SEPARATE_MAX} dumps of keys are under way")
            pool = create()
            self._open.add(pool)
            yield pool
        if not found:
            raise ServerUnavailable(NO_SERVERS)

    def end(self, pool: Any) -> None:
        """
        Close the connection of a pool.
        """
        pool.abort().addCallback(lambda _: self._open.discard(pool))

    def close(self) -> Deferred[Any]:
        """
        Close all connections.

        @return: fires when none is left.
        """
        return DeferredList([pool.abort() for pool in list(self._open)])
