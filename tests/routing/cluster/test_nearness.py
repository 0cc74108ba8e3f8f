# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.cluster.nearness}.
"""

from __future__ import annotations

from math import inf

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.routing.cluster.nearness import ROUNDS, Nearness


class NearnessTests(SynchronousTestCase):
    """
    Tests for L{Nearness}.
    """

    def setUp(self) -> None:
        """
        Nothing is known.
        """
        self.nearness: Nearness[str] = Nearness()

    def note(self, node: str, *times: float) -> None:
        """
        Note round trips.
        """
        for seconds in times:
            self.nearness.note(node, seconds)

    def test_unknown(self) -> None:
        """
        All nodes are near until one was measured.
        """
        self.assertEqual(self.nearness.near("abc"), ["a", "b", "c"])
        self.assertEqual(self.nearness.turns("ab"), [("a", "b"), ("b", "a")])
        self.assertEqual(self.nearness.near(""), [])
        self.assertEqual(self.nearness.seconds("a"), inf)
        self.note("b", 0.01)
        self.assertEqual(self.nearness.turns("abc"), [("b", "a", "c")])

    def test_order(self) -> None:
        """
        Nodes that are about as near take turns; the others follow, the nearest first.
        """
        for node, seconds in zip("abcd", (0.012, 0.5, 0.010, 0.1), strict=True):
            self.note(node, seconds)
        self.assertEqual(self.nearness.turns("abcd"), [("a", "c", "d", "b"), ("c", "a", "d", "b")])

    def test_single(self) -> None:
        """
        One slow round trip among others changes nothing, and old ones do not count.
        """
        self.note("a", 0.01, 0.01, 5.0)
        self.note("b", 0.02)
        self.assertEqual(self.nearness.near("ab"), ["a"])
        self.note("a", *[0.5] * ROUNDS)
        self.assertEqual((self.nearness.seconds("a"), self.nearness.near("ab")), (0.5, ["b"]))

    def test_border(self) -> None:
        """
        A node that is near stays so for longer than it takes to become near.
        """
        self.note("a", 0.010)
        self.note("b", 0.018)
        self.assertEqual(self.nearness.near("ab"), ["a"])
        self.note("b", 0.010, 0.010)
        self.assertEqual(self.nearness.near("ab"), ["a", "b"])
        self.note("b", *[0.018] * ROUNDS)
        self.assertEqual(self.nearness.near("ab"), ["a", "b"])
        self.note("b", *[0.022] * ROUNDS)
        self.assertEqual(self.nearness.near("ab"), ["a"])

    def test_keep(self) -> None:
        """
        What is known of nodes that have left is forgotten.
        """
        self.note("a", 0.01)
        self.note("b", 0.01)
        self.nearness.near("ab")
        self.nearness.keep("b")
        self.assertEqual((self.nearness.seconds("a"), self.nearness.near("ab")), (inf, ["b"]))
