# -*- test-case-name: tests.pool.test_observer -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A base class for observers of a pool.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IPoolObserver


@implementer(IPoolObserver)
class PoolObserver:
    """
    An observer that ignores all events. Subclass it and override the methods for the events of interest;
    L{IPoolObserver} describes all of them::

        class Failures(PoolObserver):
            def dialFailed(self, server, reason):
                print(server, "failed:", reason)

        pool = MemCachePool("tcp:127.0.0.1:11211", observer=Failures())
    """

    def dialing(self, server: str) -> None:
        """
        A dial begins.
        """

    def dialFailed(self, server: str, reason: BaseException) -> None:
        """
        A dial failed, or the configuration of a client.
        """

    def connected(self, server: str, client: Any) -> None:
        """
        A connection is established and configured.
        """

    def disconnected(self, server: str, client: Any, reason: str) -> None:
        """
        A connection that was established has ended.
        """

    def refused(self, error: PoolError) -> None:
        """
        A request or lease that waited for a connection fails.
        """

    def answered(self, method: str, seconds: float, result: Any) -> None:
        """
        A request that was sent has a result.
        """

    def lent(self, client: Any) -> None:
        """
        A lease begins.
        """

    def returned(self, client: Any) -> None:
        """
        A lease has ended.
        """

    def leaked(self, client: Any, seconds: float, where: str) -> None:
        """
        A lease has lasted for C{leakThreshold}.
        """
