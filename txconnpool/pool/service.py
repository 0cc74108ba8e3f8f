# -*- test-case-name: tests.pool.test_service -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A pool as a service of an application.
"""

from __future__ import annotations

from typing import Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from txconnpool.interfaces import IPoolControl
from txconnpool.pool.checks import checkSeconds


class StartsAndCloses(Protocol):
    """
    What the service needs of a pool. It is a part of L{IPoolControl}, for type checkers that do not know interfaces.
    """

    @property
    def name(self) -> str:
        """
        The name of the pool.
        """

    def start(self) -> None:
        """
        Begin to connect.
        """

    def close(self, timeout: float | None = None) -> Deferred[None]:
        """
        Close all connections.
        """


class PoolService(Service):
    """
    A service that starts a pool when the application starts, and closes it when the application stops::

        pool = MemCachePool("tcp:127.0.0.1:11211")
        application = Application("shop")
        PoolService(pool).setServiceParent(application)

    @ivar pool: the pool.
    """

    def __init__(self, pool: StartsAndCloses, drainTimeout: float | None = 5.0) -> None:
        """
        @param pool: a L{Pool<txconnpool.Pool>}, L{MemCachePool<txconnpool.memcache.pool.MemCachePool>} or
            L{RedisPool<txconnpool.RedisPool>}.
        @param drainTimeout: seconds that a stop waits for requests in flight; C{None}: no limit.

        @raise TypeError: C{pool} is no pool, or C{drainTimeout} no number.
        @raise ValueError: C{drainTimeout} is negative.
        """
        if not IPoolControl.providedBy(pool):
            raise TypeError(
                f"pool must be a pool, such as Pool(...), MemCachePool(...) or RedisPool(...), not {pool!r}"
            )
        checkSeconds("drainTimeout", drainTimeout)
        self.pool = pool
        self._drainTimeout = drainTimeout
        self.setName(pool.name)

    def startService(self) -> None:
        """
        Start the pool, which dials the connections that are kept open.
        """
        super().startService()
        self.pool.start()

    def stopService(self) -> Deferred[None]:
        """
        Let requests in flight end, then close all connections.

        @return: a Deferred that fires when no connection, dial or timer is left.
        """
        super().stopService()
        closed: Deferred[None] = self.pool.close(self._drainTimeout)
        return closed
