# -*- test-case-name: tests.net.test_deadlines -*-
# Copyright txconnpool contributors. See LICENSE.
"""
One timer for many deadlines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall


class Deadlines:
    """
    Members that must each end within the same time after they were added. One timer, for the oldest member, serves all.

    @ivar since: the members, in the order in which they were added, and the times of that.
    @ivar timeout: the seconds after which a member is late; C{None}: never. L{retime} changes it.
    """

    def __init__(self, reactor: Any, timeout: float | None, late: Callable[[Any], None]) -> None:
        """
        @param reactor: the clock.
        @param timeout: the seconds after which a member is late; C{None}: never.
        @param late: called with each member that is late, after it was removed.
        """
        self.since: dict[Any, float] = {}
        self._reactor = reactor
        self._seconds = reactor.seconds
        self.timeout = timeout
        self._late = late
        self._timer: IDelayedCall | None = None

    def add(self, member: Any) -> float:
        """
        Add a member, whose time starts now.

        @return: the current time.
        """
        seconds = self._seconds  # a local name: self._seconds() would first look for a method in the class
        now: float = seconds()
        self.since[member] = now
        if self._timer is None and self.timeout is not None:
            self._timer = self._reactor.callLater(self.timeout, self._check, self.timeout)
        return now

    def discard(self, member: Any) -> None:
        """
        Remove a member that has ended. It is no error if it is not there.
        """
        self.since.pop(member, None)

    def retime(self, timeout: float | None) -> None:
        """
        Change the timeout of all members. Their times still count from when they were added.
        """
        self.stop()
        self.timeout = timeout
        if timeout is not None:
            self._check(timeout)

    def stop(self) -> None:
        """
        Cancel the timer. The next L{add} starts it again.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self, timeout: float) -> None:
        """
        Remove the members that are late and call C{late} for each, and set the timer for the next one, if there is one.
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
            if self.since.pop(member, None) is not None:  # late() of another member may have removed it
                self._late(member)


#: A member that would be late within this many seconds is late now. The sum of a time and a timeout may be rounded
#: down, and a timer for the tiny remaining time might not advance the clock at all.
_TICK = 1e-6
