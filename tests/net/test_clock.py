# -*- test-case-name: tests.net.test_clock -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.clock}.
"""

from __future__ import annotations

import time

from twisted.internet.base import ReactorBase
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.net.clock import steady


class Reactor(ReactorBase):
    """
    A reactor of Twisted that never runs.

    @ivar system: the time of the system's clock.
    """

    system = 1e9

    def seconds(self) -> float:
        """
        @return: the time of the system's clock.
        """
        return self.system

    def installWaker(self) -> None:
        """
        Do nothing: this reactor needs no waker.
        """


class SteadyTests(SynchronousTestCase):
    """
    Tests for L{steady}.
    """

    def test_steps(self) -> None:
        """
        If the system's clock is set back or forward, timers fire at their times, including those that were created
        before.
        """
        passed = 1000.0
        self.patch(time, "monotonic", lambda: passed)
        reactor = Reactor()
        called: list[str] = []
        reactor.callLater(2, called.append, "before")
        steady(reactor)
        self.assertEqual(reactor.seconds(), reactor.system)
        reactor.callLater(1, called.append, "back")
        reactor.system -= 3600
        passed += 1.5
        reactor.runUntilCurrent()
        self.assertEqual(called, ["back"])
        reactor.callLater(1, called.append, "forward")
        reactor.system += 7200
        reactor.runUntilCurrent()
        self.assertEqual(called, ["back"])
        passed += 1
        reactor.runUntilCurrent()
        self.assertEqual(called, ["back", "before", "forward"])

    def test_other(self) -> None:
        """
        An object that is not a reactor of Twisted is not changed.
        """
        clock = MemoryReactorClock()
        steady(clock)
        clock.advance(5)
        self.assertEqual(clock.seconds(), 5)
