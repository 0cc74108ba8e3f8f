# -*- test-case-name: tests.operate.console.test_passwords -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The checks of the passwords of all consoles.
"""

from __future__ import annotations

import hmac
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

#: The least number of seconds between two checks.
INTERVAL: Final = 0.2


class PasswordChecks:
    """
    Checks passwords one after another, at most one in L{INTERVAL} seconds.

    This bounds how fast somebody can guess who uses many connections and many addresses. Each connection can wait for
    one check only, and their number is bounded, so everybody has a turn within a known time.
    """

    def __init__(self, reactor: Any, password: bytes) -> None:
        """
        @param password: the right one.
        """
        self._reactor = reactor
        self._password = password
        self._waiting: dict[Deferred[bool], bytes] = {}
        self._next = 0.0
        self._timer: IDelayedCall | None = None

    def check(self, password: bytes) -> Deferred[bool]:
        """
        Check a password when it is its turn.

        @return: fires with whether it is right. It may be cancelled.
        """
        asked: Deferred[bool] = Deferred(self._forget)
        self._waiting[asked] = password
        if self._timer is None:
            self._schedule()
        return asked

    def _schedule(self) -> None:
        now = self._reactor.seconds()
        # The reactor of an application may have a clock that can be set back.
        wait = min(self._next - now, INTERVAL)
        if wait > 0:
            self._timer = self._reactor.callLater(wait, self._due)
        else:
            self._due()

    def _due(self) -> None:
        self._timer = None
        self._next = self._reactor.seconds() + INTERVAL
        asked = next(iter(self._waiting))
        password = self._waiting.pop(asked)
        if self._waiting:
            self._schedule()
        asked.callback(hmac.compare_digest(password, self._password))

    def _forget(self, asked: Deferred[bool]) -> None:
        del self._waiting[asked]
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None
