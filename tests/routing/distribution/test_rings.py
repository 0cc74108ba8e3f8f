# -*- test-case-name: tests.routing.distribution.test_rings -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.distribution.rings}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.routing.distribution.locators import INDEX_BITS
from txconnpool.routing.distribution.rings import (
    dalliPoints,
    equalPoints,
    hashedPoints,
    md5Points,
    weightedCounts,
    weightedPoints,
)
from txconnpool.routing.distribution.servers import Member
from txconnpool.routing.hashing import md5


def members(*weights: float) -> list[Member]:
    """
    @return: servers with these weights.
    """
    return [
        Member(index, b"127.0.1.%d:%d" % (index + 1, 11301 + index), weight) for index, weight in enumerate(weights)
    ]


class RingTests(SynchronousTestCase):
    """
    Tests for the points of rings.
    """

    def test_rounding(self) -> None:
        """
        The numbers of points are computed with single precision. Some numbers of equal servers therefore get fewer.
        """
        few = [
            *(25, 47, 50, 55, 61, 71, 94, 100, 107, 109, 110, 115, 122, 142, 159, 163, 188, 193, 200),
        ]
        self.assertEqual(
            [count for count in range(1, 201) if set(weightedCounts(members(*[1] * count))) != {40}],
            few,
        )
        self.assertEqual(weightedCounts(members(*[1] * 25)), [39] * 25)
        self.assertEqual(weightedCounts(members(*[7] * 24)), [40] * 24)

    def test_weights(self) -> None:
        """
        Points by weight; a very small one gets none.
        """
        self.assertEqual([4 * count for count in weightedCounts(members(10, 3, 1, 10, 1))], [320, 92, 28, 320, 28])
        self.assertEqual([4 * count for count in weightedCounts(members(1, 1, 2, 3, 10))], [44, 44, 92, 140, 468])
        self.assertEqual(weightedCounts(members(1, 1000)), [0, 79])

    def test_ketama(self) -> None:
        """
        Each digest gives four points.
        """
        first = md5Points(members(1)[:1], [1])
        self.assertEqual(
            [point >> INDEX_BITS for point in md5Points([Member(0, b"127.0.1.1:11301", 1)], [1])],
            [4089791008, 1673349004, 2745175891, 1190425156],
        )
        self.assertEqual(len(first), 4)
        ring = sorted(weightedPoints(members(1, 1, 1)))
        self.assertEqual(
            [(point >> INDEX_BITS, point & 3) for point in ring[:4]],
            [(1181909, 1), (2852852, 2), (12271183, 0), (38464302, 2)],
        )
        self.assertEqual(len(ring), 480)

    def test_equal(self) -> None:
        """
        Equal servers have 160 points each, whatever their number.
        """
        self.assertEqual(len(equalPoints(members(*[1] * 25))), 4000)
        self.assertEqual(sorted(equalPoints(members(1, 1, 1))), sorted(weightedPoints(members(1, 1, 1))))

    def test_hashed(self) -> None:
        """
        A point is the hash of a label and a number.
        """
        points = hashedPoints(members(1, 1), md5)
        self.assertEqual(len(points), 200)
        self.assertEqual(points[101], md5(b"127.0.1.2:11302-1") << INDEX_BITS | 1)

    def test_dalli(self) -> None:
        """
        The numbers of dalli are computed with integers.
        """
        points = dalliPoints(members(1, 1, 1))
        self.assertEqual(len(points), 480)
        self.assertEqual(len(dalliPoints(members(10, 3, 1, 10, 1))), 320 + 96 + 32 + 320 + 32)
