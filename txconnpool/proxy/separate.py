# -*- test-case-name: tests.proxy.test_dumping -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Connections that are made for one request of one client, besides those of the pool.

A server may be busy with such a request for a long time, and a client may read its reply slowly. On a connection of the
pool both would hold up other clients.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList

from txconnpool.errors import ServerUnavailable
from txconnpool.pool.decisions.health import NO_SERVERS

#: The maximum number of such requests at the same time, for all clients of a pool in a process. While a dump of keys is
#: not read, memcached 1.6 stops one of its threads for each further dump, and with it other clients.
SEPARATE_MAX: Final = 1


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
        self._requests = 0

    def pools(self) -> Generator[Any, None, None]:
        """
        @return: a pool for each server, one after another. Each must be given to L{end} before the next is taken. Close
            the generator when the request has ended.

        @raise ServerUnavailable: there is no server, or there are too many such requests already.
        """
        creators = list(self._creators())
        if not creators:
            raise ServerUnavailable(NO_SERVERS)
        if self._requests >= SEPARATE_MAX:
            raise ServerUnavailable("another dump of keys is under way")
        self._requests += 1
        try:
            for create in creators:
                pool = create()
                self._open.add(pool)
                yield pool
        finally:
            self._requests -= 1

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
