# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.config.warnings}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.config.warnings import warningsOf


class WarningsTests(SynchronousTestCase):
    """
    Tests for L{warningsOf}.
    """

    def test_none(self) -> None:
        """
        The defaults need no warning, nor do words that leave nothing open.
        """
        pool = PoolSettings(denyCommands=("flush_all", "verbosity", "stats", "version", "@write", "set"))
        self.assertEqual(warningsOf(Settings()), [])
        self.assertEqual(warningsOf(Settings(pools=(pool,))), [])
        pool = PoolSettings(allowCommands=("@read", "set"), denyCommands=("set",))
        self.assertEqual(warningsOf(Settings(pools=(pool,))), [])

    def test_commands(self) -> None:
        """
        Commands that are denied by name leave others open: a line for each pool and effect, which names them.
        """
        pool = PoolSettings(name="a", denyCommands=("set", "delete", "flush_all"))
        self.assertEqual(
            warningsOf(Settings(pools=(pool,))),
            [
                "pool 'a': deny-commands: set is denied, but clients can write with add append cas decr gat gats incr "
                "ma mg ms prepend replace touch; @write denies that for all commands",
                "pool 'a': deny-commands: delete is denied, but clients can delete with add append cas gat gats ma md "
                "mg ms prepend replace touch; @delete denies that for all commands",
            ],
        )
