# -*- test-case-name: tests.pool.test_slow -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The log of slow requests: one line for each request that took longer than a threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Final

from twisted.logger import Logger

_log = Logger("txconnpool.slow")

#: The maximum number of lines that are logged within C{WINDOW} seconds: a server that stalls makes every request slow.
LINES: Final = 10
WINDOW: Final = 10.0

#: The number of bytes of a request that L{Noted} keeps: enough for a command and a key.
NOTED: Final = 300

#: The maximum number of characters of keys in a line.
_KEYS_MAX: Final = 250


class Noted:
    """
    The beginning of a request that must not be sent again, for the log. It takes the place of a request that is kept to
    be sent again, and is false, so that it is not.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data[:NOTED]

    def __bool__(self) -> bool:
        return False


class SlowLog:
    """
    Logs the slow requests of a pool, at most L{LINES} in L{WINDOW} seconds.

    @ivar count: the number of slow requests so far.
    @ivar threshold: requests that take more seconds are slow; infinite if none is logged.
    """

    def __init__(self, pool: str, dialect: Any, seconds: Callable[[], float]) -> None:
        """
        @param pool: the name of the pool.
        @param dialect: the dialect, which describes requests.
        @param seconds: returns the current time.
        """
        self.count = 0
        self.threshold = inf
        self._pool = pool
        self._dialect = dialect
        self._seconds = seconds
        self._keys = True
        self._since = -inf
        self._lines = 0
        self._hidden = 0

    def limit(self, threshold: float, keys: bool) -> None:
        """
        Set the threshold.

        @param threshold: in seconds; 0 to log no requests.
        @param keys: whether to log the keys of requests.
        """
        self.threshold = threshold or inf
        self._keys = keys

    @property
    def wanted(self) -> bool:
        """
        Whether slow requests are logged.
        """
        return self.threshold < inf

    def answered(self, server: str, request: Any, count: int, took: float, waited: float) -> None:
        """
        Log a request whose reply came late, or did not come.

        @param server: the name of the server.
        @param request: the request, or a L{Noted}, or C{None} if it was not kept.
        @param count: how many requests were merged into this one.
        @param took: the seconds since the request was sent.
        @param waited: the seconds that it waited for a connection before that.
        """
        self.count += count
        what = self._what(request.data if isinstance(request, Noted) else request)
        before = f", after a wait of {waited:.3f} s for a connection" if waited else ""
        self._write(f"{what}: {took:.3f} s at {server}{before}")

    def waited(self, request: bytes, waited: float) -> None:
        """
        Log a request that waited long for a connection.

        @param request: bytes that begin with the request.
        """
        self.count += 1
        self._write(f"{self._what(request)}: a wait of {waited:.3f} s for a connection")

    def _what(self, request: bytes | None) -> str:
        if not request:
            return "a request"
        command, keys = self._dialect.describe(request)
        if not self._keys or not keys:
            return str(command)
        # A key may contain any bytes. They are escaped, so that a key cannot look like another line of the log.
        text = " ".join(repr(key)[2:-1] for key in keys)
        return f"{command} {text if len(text) <= _KEYS_MAX else text[:_KEYS_MAX] + '...'}"

    def _write(self, what: str) -> None:
        now = self._seconds()
        if not 0 <= now - self._since < WINDOW:
            if self._hidden:
                _log.info("{pool}: {count} more slow requests", pool=self._pool, count=self._hidden,
                          confidential=True)  # fmt: skip
            self._since, self._lines, self._hidden = now, 0, 0
        self._lines += 1
        if self._lines > LINES:
            self._hidden += 1
        else:
            # The lines have keys of clients, and may be many. So the status page does not show them, see
            # txconnpool.operate.events.
            _log.info("{pool}: slow: {what}", pool=self._pool, what=what, confidential=True)
