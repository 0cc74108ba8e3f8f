# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the texts of L{txconnpool.operate.workers.process}. L{tests.operate.workers.test_supervisor} tests the rest.
"""

from __future__ import annotations

import signal

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.operate.workers.process import endOf


class EndTests(SynchronousTestCase):
    """
    Tests for L{endOf}.
    """

    def test_ends(self) -> None:
        """
        A signal is named, an exit code is given as a number, and no text ends with a full stop.
        """
        for error, text in (
            (ProcessTerminated(None, signal.SIGKILL), "signal 9 (SIGKILL)"),
            (ProcessTerminated(None, signal.SIGRTMIN + 1), f"signal {signal.SIGRTMIN + 1}"),
            (ProcessTerminated(1), "exit code 1"),
            (ProcessDone(0), "exit code 0"),
            (ProcessTerminated(), "A process has ended with a probable error condition: process ended"),
            (ValueError("other."), "other"),
        ):
            self.assertEqual(endOf(Failure(error)), text)
