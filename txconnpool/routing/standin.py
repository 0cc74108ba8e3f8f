# -*- test-case-name: tests.proxy.test_sharding -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Servers that stand in for others that are down.
"""

from __future__ import annotations

from typing import Any


class StandIn:
    """
    The pools of another pool of the proxy, which get the requests for servers that are down. What is stored there is
    kept for a short time only: when a server is back, changes that were made meanwhile are not known to it.

    @ivar count: the number of requests that went there.
    """

    def __init__(self, upstream: Any, seconds: float) -> None:
        """
        @param upstream: an object whose attribute C{router} is the L{IRouter} of the other pool.
        @param seconds: the longest time that a value is kept there.
        """
        self._upstream = upstream
        self._seconds = max(1, int(seconds))
        self.count = 0

    def take(self, command: Any, request: bytes) -> bytes:
        """
        Count a request that is about to be sent there.

        @return: the request, with an expiry time that is not later than the limit.
        """
        self.count += 1
        expiring: bytes = command.expiring(request, self._seconds)
        return expiring

    def choose(self, key: bytes) -> Any:
        """
        @return: the pool of a key.

        @raise ServerUnavailable: there is none.
        """
        return self._upstream.router.choose(key)

    def divide(self, command: Any, request: bytes, most: int) -> tuple[list[int], list[tuple[Any, bytes, int]]]:
        """
        Divide a request among the pools.

        @return: the number of the share of each key, and the shares, see
            L{IRouter.divide<txconnpool.interfaces.IRouter.divide>}.
        """
        (order,), shares = self._upstream.router.divide(command, [request], most)
        return order, shares
