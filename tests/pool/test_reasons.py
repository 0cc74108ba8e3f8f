# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.decisions.reasons}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.metrics import REASONS, Reason
from txconnpool.pool.decisions import reasons


class ReasonTests(SynchronousTestCase):
    """
    Tests for L{Reason}.
    """

    def test_words(self) -> None:
        """
        Each reason has a text for logs, and a word of its own for statistics. All of them are counted separately.
        """
        found = [each for each in vars(reasons).values() if isinstance(each, Reason)]
        words = [each.word for each in found]
        self.assertEqual(len(set(words)), len(words))
        self.assertLess(len(words), REASONS)
        for word in words:
            self.assertRegex(word, r"^[a-z]+(_[a-z]+)*$")

    def test_text(self) -> None:
        """
        A reason is its text.
        """
        reason = Reason("rain", "it rains")
        self.assertEqual((reason, f"{reason}", reason.word), ("it rains", "it rains", "rain"))
