# -*- test-case-name: tests.routing.distribution.test_jump -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.distribution.jump}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.routing.distribution.jump import Jump
from txconnpool.routing.distribution.servers import Member


def jump(count: int) -> Jump:
    """
    @return: the map of a number of servers, whose indexes are 10 and more.
    """
    return Jump([Member(10 + number, b"", 1) for number in range(count)])


class JumpTests(SynchronousTestCase):
    """
    Tests for L{Jump}.
    """

    @given(st.binary(max_size=250), st.integers(1, 300))
    def test_growth(self, key: bytes, count: int) -> None:
        """
        When a server is appended, a key stays where it is or moves to the new server.
        """
        index = jump(count).locate(key)
        self.assertTrue(10 <= index < 10 + count)
        self.assertIn(jump(count + 1).locate(key), (index, 10 + count))

    def test_shares(self) -> None:
        """
        All servers have equal shares.
        """
        self.assertEqual(jump(2).shares(), {10: 0.5, 11: 0.5})
