# -*- test-case-name: tests.routing.cluster.test_slots -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.cluster.slots}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from txconnpool.routing.cluster.slots import slotCache
from txconnpool.wire.topology import slotOf


class SlotTests(SynchronousTestCase):
    """
    Tests for the slots of keys. The numbers are those that a Redis 7.0 says with CLUSTER KEYSLOT.
    """

    @covers("R38")
    def test_slots(self) -> None:
        """
        The whole key counts, or what is between the first braces if that is not empty.
        """
        for key, slot in (
            (b"123456789", 0x31C3),
            (b"foo", 12182),
            (b"{foo}bar", 12182),
            (b"bar{foo}{x}", 12182),
            (b"a{}b", 13694),
            (b"{}a", 10875),
            (b"a{b", 13340),
            (b"{a}{b}", 15495),
            (b"{{a}}", 10276),
            (b"b", 3300),
            (b"", 0),
        ):
            self.assertEqual(slotOf(key), slot, key)

    def test_cache(self) -> None:
        """
        The cache is bounded, and right.
        """
        cache = slotCache(10)
        for number in range(100):
            key = b"key:%d" % (number % 17)
            self.assertEqual(cache[key], slotOf(key))
            self.assertLessEqual(len(cache), 10)
