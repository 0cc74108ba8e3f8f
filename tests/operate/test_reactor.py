# -*- test-case-name: tests.operate.test_reactor -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.reactor}.
"""

from __future__ import annotations

import select
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

#: Prints the class of the reactor.
_PROGRAM = """
import sys
from txconnpool.operate.reactor import processReactor
if sys.argv[1:2] == ["before"]:
    from twisted.internet.selectreactor import install
    install()
    del sys.argv[1]
print(type(processReactor(*sys.argv[1:])).__name__)
"""


class ProcessReactorTests(SynchronousTestCase):
    """
    Tests for L{processReactor<txconnpool.operate.reactor.processReactor>}, each in a process of its own.
    """

    def reactor(self, *arguments: str) -> str:
        """
        @return: the name of the reactor's class.
        """
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    def test_ours(self) -> None:
        """
        Where there is epoll, our reactor is installed.
        """
        self.assertEqual(self.reactor(), "TurnReactor")

    if not hasattr(select, "epoll"):
        test_ours.skip = "no epoll"  # type: ignore[attr-defined]

    def test_installed(self) -> None:
        """
        A reactor that is installed already is kept.
        """
        self.assertEqual(self.reactor("before"), "SelectReactor")

    def test_chosen(self) -> None:
        """
        A worker has the reactor of its parent.
        """
        self.assertEqual(self.reactor("twisted.internet.selectreactor"), "SelectReactor")

    def test_unknown(self) -> None:
        """
        A module that cannot install a reactor leaves the choice to Twisted.
        """
        for module in ("txconnpool.none", "txconnpool.errors"):
            self.assertIn(self.reactor(module), ("EPollReactor", "PollReactor", "SelectReactor"))
