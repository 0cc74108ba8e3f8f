# -*- test-case-name: tests.proxy.test_logins -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Whether clients have to log in, and with which users and passwords.
"""

from __future__ import annotations

from hmac import compare_digest

from txconnpool.wire import Login


class LoginGate:
    """
    The logins of the clients of a pool.

    @ivar accepted: the users and passwords that are accepted; C{None}: clients need not log in.
    @ivar attempts: how many attempts there have been.
    @ivar failures: how many of them failed.
    """

    def __init__(self) -> None:
        self.accepted: tuple[Login, ...] | None = None
        self.attempts = 0
        self.failures = 0

    def check(self, login: Login | None) -> bool:
        """
        Count an attempt.

        @param login: the user and password; C{None} if they could not be read.

        @return: whether the client is let in.
        """
        self.attempts += 1
        known = False
        if login is not None:
            # All are compared, each in constant time, so that the duration does not tell which of them is near.
            for user, password in self.accepted or ():
                known |= compare_digest(login[0], user) & compare_digest(login[1], password)
        self.failures += not known
        return known
