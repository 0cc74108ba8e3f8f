# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.shares}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.wire.shares import divideEach


class DivideTests(SynchronousTestCase):
    """
    Tests for L{divideEach}.
    """

    def test_order(self) -> None:
        """
        Each server gets the keys of all requests in their order, also repeated ones, and each key has the number of its
        share.
        """
        indexes = {b"a": 7, b"b": 2, b"c": 7}
        self.assertEqual(
            divideEach([[b"a", b"b", b"c"], [], [b"a"]], indexes, 9),
            ([[0, 1, 0], [], [0]], [(7, [b"a", b"c", b"a"]), (2, [b"b"])]),
        )
        self.assertEqual(divideEach([], indexes, 9), ([], []))

    def test_most(self) -> None:
        """
        A server gets several shares if it has more keys than one may have.
        """
        indexes = dict.fromkeys((b"a", b"b", b"c"), 1)
        self.assertEqual(divideEach([[b"a", b"b", b"c"]], indexes, 2), ([[0, 0, 1]], [(1, [b"a", b"b"]), (1, [b"c"])]))

    def test_unknown(self) -> None:
        """
        An exception of the indexes is passed on.
        """
        self.assertRaises(KeyError, divideEach, [[b"a"]], {}, 9)
