# -*- test-case-name: tests.net.test_deadlines -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Many things that are to end in time, and one timer for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall


class Deadlines:
    """
    What is to end within one and the same time each, so that one timer, for the oldest, serves all.

    @ivar since: the members and when each was added, in that order.
    @ivar timeout: seconds from a member's adding until it is late; C{None}: no member ever is. See L{retime}.
    """

    def __init__(self, reactor: Any, timeout: float | None, late: Callable[[Any], None]) -> None:
        """
        @param timeout: seconds from a member's adding until it is late; C{None}: no member ever is.
        @param late: called with a member that is late, which is a member no more.
        """
        self.since: dict[Any, float] = {}
        self._reactor = reactor
        self._seconds = reactor.seconds
        self.timeout = timeout
        self._late = late
        self._timer: IDelayedCall | None = None

    def add(self, member: Any) -> float:
        """
        Let the time of C{member} begin.

        @return: now.
        """
        seconds = self._seconds  # by itself: as a method it would be looked for in the class
        now: float = seconds()
        self.since[member] = now
        if self._timer is None and self.timeout is not None:
            self._timer = self._reactor.callLater(self.timeout, self._check, self.timeout)
        return now

    def discard(self, member: Any) -> None:
        """
        C{member} has ended, if it was one.
        """
        self.since.pop(member, None)

    def retime(self, timeout: float | None) -> None:
        """
        Give all members another time, counted from their adding.
        """
        self.stop()
        self.timeout = timeout
        if timeout is not None:
            self._check(timeout)

    def stop(self) -> None:
        """
        Leave no timer behind. The next L{add} starts it again.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self, timeout: float) -> None:
        """
        Tell of those that are late, and come back for the next. Without members the timer rests.
        """
        self._timer = None
        now = self._seconds()
        late = []
        for member, since in self.since.items():
            left = since + timeout - now
            if left > _TICK:
                self._timer = self._reactor.callLater(left, self._check, timeout)
                break
            late.append(member)
        for member in late:
            if self.since.pop(member, None) is not None:  # it is not there if it ended by what became of another
                self._late(member)


#: Seconds that do not matter. The sum of a time and a span may be rounded down, and a timer for the rest of it may not
#: move the clock at all.
_TICK = 1e-6
