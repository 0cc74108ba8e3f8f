# -*- test-case-name: tests.pool.test_observer -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A base class for observers of a pool.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

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

    def _ignore(self, *args: Any, **kwargs: Any) -> None:
        pass

    dialing = dialFailed = connected = disconnected = refused = answered = lent = returned = leaked = _ignore
