# -*- test-case-name: tests.proxy.test_logins -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The logins of clients, and the delays after failed ones.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from twisted.logger import Logger

from txconnpool.net.loglimit import LogLimit
from txconnpool.wire import Login

_log = Logger("txconnpool.proxy")

#: The number of failed logins of an address that cost no time.
FREE = 3

#: The delay of the next login in seconds: the first, which doubles with each further failure, and the longest.
DELAY, DELAY_MAX = 0.1, 2.0

#: Seconds after the last failed login of an address until its failures are forgotten.
FORGET = 60.0

#: The number of addresses whose failures are remembered.
ADDRESSES = 10000

#: Failed logins are logged at most once in so many seconds.
PERIOD = 10.0


class LoginGate:
    """
    Checks the users and passwords of the clients of a pool.

    @ivar accepted: the valid users and passwords; C{None}: clients need not log in.
    @ivar attempts: the number of attempts.
    @ivar failures: the number of failed attempts.
    """

    def __init__(self) -> None:
        self.accepted: tuple[Login, ...] | None = None
        self.attempts = 0
        self.failures = 0

    def check(self, login: Login | None) -> bool:
        """
        Check and count an attempt.

        @param login: the user and password; C{None} if they could not be read.

        @return: whether they are valid.
        """
        self.attempts += 1
        known = False
        if login is not None:
            # Compare with all of them, each in constant time, so that the duration reveals nothing about them.
            for user, password in self.accepted or ():
                known |= compare_digest(login[0], user) & compare_digest(login[1], password)
        self.failures += not known
        return known


class Penalties:
    """
    The addresses from which logins have failed: each further login waits longer, whether it is valid or not.
    """

    def __init__(self, pool: str, seconds: Callable[[], float]) -> None:
        """
        @param pool: the name of the pool, for the log.
        @param seconds: returns the time.
        """
        self._pool = pool
        self._seconds = seconds
        self._failures: dict[str | None, tuple[int, float]] = {}  # the latest last
        self._log = LogLimit(seconds, PERIOD)

    def delay(self, host: str | None, undecided: int = 0) -> float:
        """
        @param host: the address of a client.
        @param undecided: the number of other logins of the address of which it is not known yet whether they fail.

        @return: the seconds that its next login has to wait.
        """
        failures, last = self._failures.get(host, (0, 0.0))
        if self._seconds() - last >= FORGET:
            failures = 0
        failures += undecided
        if failures < FREE:
            return 0.0
        return min(DELAY_MAX, DELAY * 2.0 ** min(failures - FREE, 16))

    def add(self, host: str | None) -> None:
        """
        Count a failed login, and log it if none was logged in the last L{PERIOD}.
        """
        now = self._seconds()
        failures, last = self._failures.pop(host, (0, 0.0))
        self._failures[host] = (failures + 1 if now - last < FORGET else 1, now)
        if len(self._failures) > ADDRESSES:
            del self._failures[next(iter(self._failures))]
        if count := self._log.add():
            _log.warn("{pool}: {count} failed logins, the last from {address}",
                      pool=self._pool, count=count, address=host or "unix")  # fmt: skip
