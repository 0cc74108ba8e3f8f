# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.discovery.records}.
"""

from __future__ import annotations

from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from tests.net.discovery.resolvers import addresses, record
from txconnpool.net.discovery.records import follow


class FollowTests(SynchronousTestCase):
    """
    Tests for L{follow}.
    """

    def test_records(self) -> None:
        """
        The records of the name and the type are found, with the shortest TTL. Spelling does not matter.
        """
        answers = [
            *addresses("Cache.Example", "10.0.0.1", ttl=30),
            *addresses("cache.example.", "10.0.0.2", "::1", ttl=20),
            *addresses("other.example", "10.0.0.3", ttl=5),
            record("cache.example", dns.Record_A("10.0.0.4"), 1, dns.CH),
        ]
        found = follow(b"cache.example", dns.A, answers)
        self.assertEqual([payload.dottedQuad() for payload in found.payloads], ["10.0.0.1", "10.0.0.2"])
        self.assertEqual((found.name, found.ttl), (b"cache.example", 20))

    def test_aliases(self) -> None:
        """
        A chain of CNAME records is followed, in any order, and its TTLs count.
        """
        answers = [
            *addresses("c", "10.0.0.1", ttl=30),
            record("b", dns.Record_CNAME("c"), 7),
            record("a", dns.Record_CNAME("b"), 20),
        ]
        found = follow(b"a", dns.A, answers)
        self.assertEqual((found.name, len(found.payloads), found.ttl), (b"c", 1, 7))

    def test_elsewhere(self) -> None:
        """
        Without records at the end of the chain, its last name is found.
        """
        found = follow(b"a", dns.A, [record("a", dns.Record_CNAME("b"), 20)])
        self.assertEqual((found.name, found.payloads, found.ttl), (b"b", (), 20))

    def test_circle(self) -> None:
        """
        A circle of CNAME records ends.
        """
        answers = [record("a", dns.Record_CNAME("b")), record("b", dns.Record_CNAME("a"))]
        self.assertEqual(follow(b"a", dns.A, answers).payloads, ())

    def test_none(self) -> None:
        """
        An empty answer has no TTL.
        """
        found = follow(b"a", dns.A, [])
        self.assertEqual((found.name, found.payloads, found.ttl), (b"a", (), float("inf")))

    def test_invalidTTL(self) -> None:
        """
        A TTL with the most significant bit set is 0.
        """
        self.assertEqual(follow(b"a", dns.A, addresses("a", "10.0.0.1", ttl=1 << 31)).ttl, 0)
