# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.console.passwords}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.operate.console.passwords import INTERVAL, PasswordChecks


class PasswordChecksTests(SynchronousTestCase):
    """
    Tests for L{PasswordChecks}.
    """

    def setUp(self) -> None:
        """
        Make checks of a password.
        """
        self.clock = Clock()
        self.checks = PasswordChecks(self.clock, b"right")

    def test_order(self) -> None:
        """
        The first password is checked at once, each other one L{INTERVAL} seconds after the one before it.
        """
        asked = [self.checks.check(password) for password in (b"right", b"wrong", b"right")]
        self.assertTrue(self.successResultOf(asked[0]))
        self.clock.advance(INTERVAL / 2)
        self.assertNoResult(asked[1])
        self.clock.advance(INTERVAL / 2)
        self.assertFalse(self.successResultOf(asked[1]))
        self.assertNoResult(asked[2])
        self.clock.advance(INTERVAL)
        self.assertTrue(self.successResultOf(asked[2]))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(INTERVAL)
        self.assertTrue(self.successResultOf(self.checks.check(b"right")))

    def test_soon(self) -> None:
        """
        A password that follows alone has to wait too.
        """
        self.successResultOf(self.checks.check(b"a"))
        asked = self.checks.check(b"b")
        self.assertNoResult(asked)
        self.clock.advance(INTERVAL)
        self.successResultOf(asked)

    def test_cancelled(self) -> None:
        """
        A check that is cancelled takes no time of others, and leaves no timer.
        """
        self.successResultOf(self.checks.check(b"a"))
        cancelled, asked = self.checks.check(b"b"), self.checks.check(b"c")
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.clock.advance(INTERVAL)
        self.successResultOf(asked)
        cancelled = self.checks.check(b"d")
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_setBack(self) -> None:
        """
        A clock that is set back makes nobody wait longer.
        """
        self.clock.advance(1000.0)
        self.successResultOf(self.checks.check(b"a"))
        self.clock.rightNow = 1.0
        asked = self.checks.check(b"b")
        self.clock.advance(INTERVAL)
        self.successResultOf(asked)
