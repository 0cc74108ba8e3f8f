# -*- test-case-name: tests.routing.distribution.test_locators -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.distribution.locators}.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.routing.distribution.locators import (
    INDEX_BITS,
    NOBODY,
    BackwardRing,
    Constant,
    Retries,
    Ring,
    Slots,
)
from txconnpool.routing.distribution.servers import Member

END = 1 << 32


def points(*pairs: tuple[int, int]) -> list[int]:
    """
    @param pairs: values and indexes.
    """
    return [value << INDEX_BITS | index for value, index in pairs]


def number(key: bytes) -> int:
    """
    A hash whose values can be chosen.
    """
    return int(key)


class LocatorTests(SynchronousTestCase):
    """
    Tests for the ways to find servers.
    """

    def test_ring(self) -> None:
        """
        A value on a point belongs to it, one after the last point to the first one. Of equal points, the one with the
        lower index counts.
        """
        ring = Ring(points((100, 5), (200, 7), (200, 6)), number)
        for value, index in ((0, 5), (100, 5), (101, 6), (200, 6), (201, 5), (END - 1, 5)):
            self.assertEqual((ring.owner(value), ring.locate(b"%d" % value)), (index, index), value)
        self.assertEqual(ring.shares(), {5: (END - 100) / END, 6: 100 / END})

    def test_fewBits(self) -> None:
        """
        The shares are those of the possible hash values.
        """
        ring = Ring(points((63, 1), (300, 2), (400, 1)), number, bits=8)
        self.assertEqual(ring.shares(), {1: 0.25, 2: 0.75})
        self.assertEqual(Ring(points((255, 1), (0, 2)), number, bits=8).shares(), {1: 255 / 256, 2: 1 / 256})

    def test_backwardRing(self) -> None:
        """
        A value on a point belongs to it, one before the first point to the last one.
        """
        ring = BackwardRing(points((100, 5), (200, 6)), number)
        for value, index in ((0, 6), (99, 6), (100, 5), (199, 5), (200, 6), (END - 1, 6)):
            self.assertEqual((ring.owner(value), ring.locate(b"%d" % value)), (index, index), value)
        self.assertEqual(ring.shares(), {5: 100 / END, 6: (END - 100) / END})

    def test_slots(self) -> None:
        """
        A server has as many slots as its weight, one after the other.
        """
        slots = Slots([Member(4, b"", 2), Member(2, b"", 1)], number)
        self.assertEqual([slots.locate(b"%d" % value) for value in range(7)], [4, 4, 2, 4, 4, 2, 4])
        self.assertEqual([slots.owner(value) for value in range(4)], [4, 4, 2, 4])
        self.assertEqual(slots.shares(), {4: 2 / 3, 2: 1 / 3})

    def test_search(self) -> None:
        """
        Rings and slots say how they are searched. Numbers of more than 32 bits are not.
        """
        ordered = points((100, 5), (200, 6), (200, 7))
        for locator in (
            Ring(ordered, number),
            BackwardRing(ordered, number),
            Slots([Member(4, b"", 2), Member(2, b"", 1)], number),
        ):
            search = locator.search()
            assert search is not None
            values, owners = memoryview(search.points).cast("I"), memoryview(search.owners).cast("i")
            self.assertEqual(len(owners), len(values) + 1)
            find = bisect_right if search.after else bisect_left
            for value in (0, 1, 2, 3, 99, 100, 101, 199, 200, 201, END - 1):
                place = search.hash(b"%d" % value) % (search.modulus or END)
                self.assertEqual(owners[find(values, place)], locator.locate(b"%d" % value), value)
        self.assertIsNone(Ring(points((END, 1)), number, bits=64).search())

    def test_constant(self) -> None:
        """
        One server gets everything, or nobody does.
        """
        self.assertEqual((Constant(3).locate(b"a"), Constant(3).shares()), (3, {3: 1.0}))
        self.assertEqual((Constant(NOBODY).locate(b"a"), Constant(NOBODY).shares()), (NOBODY, {}))

    def test_retries(self) -> None:
        """
        The first live server gets the key; if all tries fail, nobody does.
        """
        slots = Slots([Member(index, b"", 1) for index in range(4)], number)
        retries = Retries(slots, lambda key: iter((number(key), number(key) + 1)), frozenset({1, 2}))
        self.assertEqual([retries.locate(b"%d" % value) for value in range(4)], [0, NOBODY, 3, 3])
        self.assertIsNone(retries.shares())
