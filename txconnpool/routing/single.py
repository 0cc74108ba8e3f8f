# -*- test-case-name: tests.routing.test_single -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The trivial router: one pool gets every request.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from txconnpool.interfaces import IRouter
from txconnpool.routing.maps import Divided


class _Only:
    """
    Has the index 0 for each key.
    """

    def __getitem__(self, key: bytes) -> int:
        return 0


ONLY = _Only()


@implementer(IRouter)
class SinglePool:
    """
    Routes every request to one pool. Its servers are interchangeable.

    @ivar pools: the pool.
    """

    keyed = False
    standIn = None

    def __init__(self, pool: Any) -> None:
        """
        @param pool: an L{IConnections<txconnpool.interfaces.IConnections>}.
        """
        self.pools = (pool,)

    def choose(self, key: bytes) -> Any:
        """
        @return: the pool, whatever the key is.
        """
        return self.pools[0]

    def divide(self, command: Any, requests: list[bytes], most: int) -> Divided:
        """
        @return: the shares of the pool, with all keys.
        """
        orders, shares = command.shares(requests, ONLY, most)
        return orders, [(self.pools[index], share, count) for index, share, count in shares]

    def anyOf(self) -> Any:
        """
        @return: the pool.
        """
        return self.pools[0]
