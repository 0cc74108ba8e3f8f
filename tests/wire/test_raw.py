# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.raw}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.wire.dialects import DIALECTS


class RawTests(SynchronousTestCase):
    """
    Tests for the dialect of protocols that are not known.
    """

    def test_opaque(self) -> None:
        """
        It is made as all dialects are, has one command for the statistics, and refuses clients without a word.
        """
        raw = DIALECTS["raw"].make(1 << 20, frozenset(), None)
        raw.limit(1, frozenset(), None)
        raw.keep(["server"])
        self.assertEqual([(each.name, each.index) for each in raw.commands], [("session", 0)])
        self.assertEqual((raw.opaque, raw.stateful, raw.tooManyClients), (True, False, b""))
        self.assertEqual([name for name, each in DIALECTS.items() if each.opaque], ["raw"])
