# -*- test-case-name: tests.redis.test_sentinel -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The servers of a pool for programs that are looked up as long as the pool is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from txconnpool.errors import ServerUnavailable
from txconnpool.net.discovery import Discovery


class Lookups:
    """
    Looks up servers from the first use of a pool to its end.

    @cvar makeSource: makes a L{Discovery} from a line. Tests replace it.

    @ivar count: how many first lookups have ended.
    @ivar source: the L{Discovery}.
    """

    makeSource: Callable[..., Any] = Discovery

    def __init__(
        self, line: str, reactor: Any, found: Callable[[Iterable[Any]], object], tried: Callable[[], object]
    ) -> None:
        """
        @param line: the source of servers, such as C{sentinel:NAME@HOST:PORT,HOST:PORT}.
        @param found: called with all servers when they are others than before.
        @param tried: called when the first lookup has ended.

        @raise ValueError: the line is wrong.
        """
        self.line = line
        self.source = type(self).makeSource(line, reactor)
        self.count = 0
        self._problem = ""
        self._found = found
        self._tried = tried

    def start(self) -> None:
        """
        Look up from now on.
        """
        self.source.start(self._found)
        self.source.lookUp().addCallbacks(lambda _: self._ended(""), self._failed)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):  # otherwise the pool is closed
            self._ended(failure.getErrorMessage())

    def _ended(self, problem: str) -> None:
        self.count += 1
        self._problem = problem
        self._tried()

    def hurry(self) -> None:
        """
        The servers may be others now: look them up soon.
        """
        self.source.hurry()

    def unavailable(self, none: str) -> ServerUnavailable:
        """
        @param none: what a lookup that has found none says.

        @return: the error for requests while no servers are known.
        """
        return ServerUnavailable(f"upstream unavailable: {self._problem or f'{self.line}: {none}'}")

    def stop(self) -> None:
        """
        Look up no more. No socket and no timer is left.
        """
        self.source.stop()
