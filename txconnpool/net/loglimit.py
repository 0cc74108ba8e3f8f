# -*- test-case-name: tests.net.test_loglimit -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A limit for lines of the log about what clients or servers can cause at any rate.
"""

from __future__ import annotations

from collections.abc import Callable


class LogLimit:
    """
    Counts something, and decides when it is logged: when it happens first, and later at most once in a period. It has
    no timer.
    """

    def __init__(self, seconds: Callable[[], float], period: float) -> None:
        """
        @param seconds: returns the time, in seconds.
        @param period: the seconds between two lines.
        """
        self._seconds = seconds
        self._period = period
        self._count = 0
        self._logged: float | None = None

    def add(self) -> int:
        """
        Count it.

        @return: how often it has happened since the last line, if it is to be logged now; otherwise 0.
        """
        self._count += 1
        now = self._seconds()
        # The clock of an application may be set back.
        if self._logged is not None and 0 <= now - self._logged < self._period:
            return 0
        count, self._count, self._logged = self._count, 0, now
        return count
