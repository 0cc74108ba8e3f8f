# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.dialects}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.wire import Command
from txconnpool.wire.dialects import DIALECTS


class DialectsTests(SynchronousTestCase):
    """
    Tests for L{DIALECTS}.
    """

    def test_make(self) -> None:
        """
        Each name makes a dialect.
        """
        for dialect in DIALECTS.values():
            made = dialect.make(1 << 20, frozenset(), None)
            self.assertEqual([command.index for command in made.commands], list(range(len(made.commands))))
            for command in made.commands:
                self.assertIsInstance(command, Command)

    def test_commands(self) -> None:
        """
        Each dialect knows its commands. Those that are never forwarded are not among them.
        """
        for name, command, refused in (("memcache", b"get", b"watch"), ("redis", b"zadd", b"shutdown")):
            self.assertIn(command, DIALECTS[name].ordinary)
            self.assertIn(refused, DIALECTS[name].refused)
            self.assertFalse(DIALECTS[name].ordinary.keys() & DIALECTS[name].refused)
            self.assertEqual(DIALECTS[name].ordinary.keys(), DIALECTS[name].possible.keys())
