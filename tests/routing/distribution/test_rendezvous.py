# -*- test-case-name: tests.routing.distribution.test_rendezvous -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.distribution.rendezvous}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.routing.vectordata import read
from txconnpool.routing.distribution import rendezvous
from txconnpool.routing.distribution.rendezvous import Pymemcache, characters
from txconnpool.routing.distribution.servers import Member
from txconnpool.routing.hashing import murmur3Seeded


class PymemcacheTests(SynchronousTestCase):
    """
    Tests for L{Pymemcache}.
    """

    def test_characters(self) -> None:
        """
        The hash of pymemcache reads the low 8 bits of characters. Bytes that are no UTF-8 are read as they are.
        """
        data = read("hashes")
        self.assertEqual(
            [murmur3Seeded(characters(key.encode()), 0) for key in data["keys"]],
            data["hashes"]["pymemcache_murmur3_32(str)"],
        )
        self.assertEqual(characters("é日".encode()), b"\xe9\xe5")
        self.assertEqual(characters(b"a\xff\xe9"), b"a\xff\xe9")

    @given(st.lists(st.text(max_size=12), min_size=1, max_size=8, unique=True), st.binary(max_size=40))
    def test_definition(self, labels: list[str], key: bytes) -> None:
        """
        The server with the highest hash of its label and the key gets the key.
        """
        members = [Member(index, label.encode(), 1) for index, label in enumerate(labels)]
        _, _, best = max(
            (murmur3Seeded(characters(member.label) + b"-" + characters(key), 0), member.label, member.index)
            for member in members
        )
        self.assertEqual(Pymemcache(members).locate(key), best)

    def test_equalScores(self) -> None:
        """
        If scores are equal, the greater label counts.
        """
        self.patch(rendezvous, "murmur3Seeded", lambda data, seed: 7)
        members = [Member(3, b"b", 1), Member(1, b"longer", 1), Member(2, b"a", 1)]
        self.assertEqual(Pymemcache(members).locate(b"key"), 1)
        self.assertEqual(Pymemcache(members).shares(), {1: 1 / 3, 2: 1 / 3, 3: 1 / 3})
