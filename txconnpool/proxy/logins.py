# -*- test-case-name: tests.proxy.test_logins -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The logins of clients.
"""

from __future__ import annotations

from hmac import compare_digest

from txconnpool.wire import Login


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
