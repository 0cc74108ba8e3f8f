# -*- test-case-name: tests.routing.test_waits -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Callers that wait for something, each for a limited time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred


class Waits:
    """
    The Deferreds of callers that wait. Those that are fired or cancelled are dropped, with their timers.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting: set[Deferred[None]] = set()

    def __iter__(self) -> Iterator[Deferred[None]]:
        return iter(list(self._waiting))

    def add(self, seconds: float | None) -> Deferred[None]:
        """
        @return: fires after so many seconds, unless it is fired before; C{None}: not by itself. It may be cancelled.
        """
        waiting: Deferred[None] = Deferred()
        self._waiting.add(waiting)
        call = None if seconds is None else self._reactor.callLater(seconds, waiting.callback, None)

        def ended(result: Any) -> Any:
            self._waiting.discard(waiting)
            if call is not None and call.active():
                call.cancel()
            return result

        return waiting.addBoth(ended)

    def fail(self, error: Exception) -> None:
        """
        Fail all of them.
        """
        for waiting in self:
            waiting.errback(error)
