# -*- test-case-name: tests.routing.distribution.test_mcrouter -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.distribution.mcrouter} and L{txconnpool.routing.distribution.wide}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.routing.distribution.mcrouter import Ch3, Rendezvous, WeightedCh3, furc
from txconnpool.routing.distribution.servers import Member
from txconnpool.routing.distribution.wide import murmur64, spooky


def members(*weights: float) -> list[Member]:
    """
    @return: servers with these weights.
    """
    return [Member(index, b"", weight) for index, weight in enumerate(weights)]


class FurcTests(SynchronousTestCase):
    """
    Tests for the hash functions of mcrouter.
    """

    def test_example(self) -> None:
        """
        The example of mcrouter's own test; one server needs no choice.
        """
        self.assertEqual(furc(b"sample", 100), 97)
        self.assertEqual((furc(b"sample", 1), furc(b"sample", 0)), (0, 0))

    @given(st.binary(max_size=250), st.integers(1, 2000))
    def test_growth(self, key: bytes, count: int) -> None:
        """
        When a server is appended, a key stays where it is or moves to the new server.
        """
        number = furc(key, count)
        self.assertTrue(0 <= number < count)
        self.assertIn(furc(key, count + 1), (number, count))

    def test_indexes(self) -> None:
        """
        The result is the index of the server at the chosen position.
        """
        ring = Ch3([Member(7, b"", 1), Member(9, b"", 1)])
        self.assertEqual({ring.locate(b"%d" % number) for number in range(100)}, {7, 9})
        self.assertEqual(ring.shares(), {7: 0.5, 9: 0.5})

    def test_weights(self) -> None:
        """
        A server of weight 0 gets no keys. If all have it, the last choice counts. Keys of weight 1 stay.
        """
        weighted = WeightedCh3(members(1, 0, 1))
        found = [weighted.locate(b"%d" % number) for number in range(300)]
        self.assertEqual(set(found), {0, 2})
        same = [furc(b"%d" % number, 3) for number in range(300)]
        self.assertTrue(all(new == old for new, old in zip(found, same, strict=True) if old != 1))
        self.assertIn(WeightedCh3(members(0, 0)).locate(b"a"), (0, 1))
        self.assertIsNone(weighted.shares())


class RendezvousTests(SynchronousTestCase):
    """
    Tests for L{Rendezvous}.
    """

    def test_weights(self) -> None:
        """
        A server of weight 0 gets no keys, unless all have it.
        """
        servers = [Member(5, b"a", 0), Member(6, b"b", 1), Member(7, b"c", 0.5)]
        weighted = Rendezvous(servers, weighted=True)
        self.assertEqual({weighted.locate(b"%d" % number) for number in range(100)}, {6, 7})
        self.assertEqual(weighted.shares(), {5: 0, 6: 2 / 3, 7: 1 / 3})
        nothing = Rendezvous([Member(5, b"a", 0), Member(6, b"b", 0)], weighted=True)
        self.assertEqual((nothing.locate(b"a"), nothing.shares()), (5, {5: 1.0}))
        self.assertEqual(Rendezvous(servers, weighted=False).shares(), {5: 1 / 3, 6: 1 / 3, 7: 1 / 3})


class WideTests(SynchronousTestCase):
    """
    Tests for the hash functions of 64 bits.
    """

    @given(st.binary(max_size=400), st.integers(0, 0xFFFFFFFF))
    def test_range(self, data: bytes, seed: int) -> None:
        """
        Any length has a value.
        """
        self.assertLess(murmur64(data, seed), 1 << 64)
        self.assertLess(spooky(data, seed), 1 << 32)
