# -*- test-case-name: tests.pool.test_slow -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Requests that took long, one line each in the log, so that somebody can ask why.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Final

from twisted.logger import Logger

_log = Logger("txconnpool.slow")

#: Lines that are logged within C{WINDOW} seconds, at most: a server that stalls makes every request slow.
LINES: Final = 10
WINDOW: Final = 10.0

#: Bytes that are kept of a request which is not kept for anything else: a command and a key fit.
NOTED: Final = 300

#: Characters of a key, or of several, that are logged.
_KEYS_MAX: Final = 250


class Noted:
    """
    The beginning of a request that must not be sent again. It stands where others keep a request that may, and is
    false, as is C{None} there.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data[:NOTED]

    def __bool__(self) -> bool:
        return False


class SlowLog:
    """
    The slow requests of a pool.

    @ivar count: how many there have been.
    @ivar threshold: seconds; infinite when none is looked for.
    """

    def __init__(self, pool: str, dialect: Any, seconds: Callable[[], float]) -> None:
        """
        @param pool: its name.
        @param dialect: the L{IDialect<txconnpool.wire.IDialect>}.
        @param seconds: the clock.
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
        Look for requests that take longer from now on.

        @param threshold: seconds; 0 for none.
        @param keys: whether keys are logged.
        """
        self.threshold = threshold or inf
        self._keys = keys

    @property
    def wanted(self) -> bool:
        """
        Whether slow requests are looked for.
        """
        return self.threshold < inf

    def answered(self, server: str, request: Any, count: int, took: float, waited: float) -> None:
        """
        An answer came late, or not at all.

        @param request: what was sent, or a L{Noted}, or C{None}.
        @param count: how many requests were sent as one run.
        @param took: seconds since.
        @param waited: seconds before that, for a connection.
        """
        self.count += count
        what = self._what(request.data if isinstance(request, Noted) else request)
        before = f", after a wait of {waited:.3f} s for a connection" if waited else ""
        self._say(f"{what}: {took:.3f} s at {server}{before}")

    def waited(self, request: bytes, waited: float) -> None:
        """
        A request had to wait long before it was sent.

        @param request: bytes of a client that begin with it.
        """
        self.count += 1
        self._say(f"{self._what(request)}: a wait of {waited:.3f} s for a connection")

    def _what(self, request: bytes | None) -> str:
        if not request:
            return "a request"
        command, keys = self._dialect.describe(request)
        if not self._keys or not keys:
            return str(command)
        # A key may be any bytes: none of them may look like another line of the log.
        text = " ".join(repr(key)[2:-1] for key in keys)
        return f"{command} {text if len(text) <= _KEYS_MAX else text[:_KEYS_MAX] + '...'}"

    def _say(self, what: str) -> None:
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
            # Keys of clients, and perhaps many lines: not for the status page, see txconnpool.operate.events.
            _log.info("{pool}: slow: {what}", pool=self._pool, what=what, confidential=True)
