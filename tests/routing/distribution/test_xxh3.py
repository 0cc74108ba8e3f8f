# -*- test-case-name: tests.routing.distribution.test_xxh3 -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.distribution.xxh3}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.routing.distribution.xxh3 import xxh3


class Xxh3Tests(SynchronousTestCase):
    """
    Tests for L{xxh3}.
    """

    def test_values(self) -> None:
        """
        The values of the reference implementation, on both sides of each length at which the algorithm changes.
        """
        text = bytes(range(256)) * 5
        for size, value in (
            (0, 0x2D06800538D394C2),
            (1, 0xC44BDFF4074EECDB),
            (3, 0x5F4299FC161C9CBB),
            (4, 0x60DAB036A58211F2),
            (8, 0x3A1C2D7C85AF88F8),
            (9, 0xE9612598145BB9DC),
            (16, 0x8355E3A6F61770DB),
            (17, 0x9EF341A99DE37328),
            (128, 0x85C6174C7FF4C46B),
            (129, 0xEC7642B431BA3E5A),
            (240, 0x375A384D957FE865),
            (241, 0x02E8CD95421C6D02),
            (1024, 0xA870F92984398D22),
            (1025, 0x78C86E91EE939852),
            (1280, 0x4844B009E164352E),
        ):
            self.assertEqual(xxh3(text[:size]), value, size)
