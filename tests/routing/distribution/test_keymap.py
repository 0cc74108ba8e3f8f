# -*- test-case-name: tests.routing.distribution.test_keymap -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.distribution.keymap}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.routing.distribution import Distribution, ServerSpec, movedShare
from txconnpool.routing.distribution.keymap import FEW, SAMPLE, KeyCache, KeyMap, sampleKeys
from txconnpool.routing.distribution.locators import Constant


def servers(count: int) -> list[ServerSpec]:
    """
    @return: servers with different addresses.
    """
    return [ServerSpec(f"10.0.0.{number}", 11211) for number in range(count)]


class CacheTests(SynchronousTestCase):
    """
    Tests for the cache of a map.
    """

    def test_bound(self) -> None:
        """
        The cache never has more keys than its limit.
        """
        asked = []

        def locate(key: bytes) -> int:
            asked.append(key)
            return len(key)

        cache = KeyCache(locate, 3)
        for key in (b"a", b"bb", b"a", b"ccc", b"bb"):
            self.assertEqual(cache[key], len(key))
        self.assertEqual((asked, len(cache)), ([b"a", b"bb", b"ccc"], 3))
        self.assertEqual((cache[b"dddd"], list(cache)), (4, [b"dddd"]))

    def test_bytes(self) -> None:
        """
        The cache of a map gives what the map gives.
        """
        keyMap = Distribution("twemproxy", hashTag=b"{}").build(servers(5), cachedKeys=10)
        keys = sampleKeys(100)
        self.assertEqual([keyMap.cached[key] for key in keys], [keyMap.locate(key) for key in keys])
        self.assertLessEqual(len(keyMap.cached), 10)
        self.assertEqual(keyMap.cached[b"{a}b"], keyMap.cached[b"{a}c"])


class KeyMapTests(SynchronousTestCase):
    """
    Tests for L{KeyMap} and L{movedShare}.
    """

    def test_sample(self) -> None:
        """
        The sample has different keys and is always the same.
        """
        self.assertEqual(len(set(sampleKeys())), 2000)
        self.assertEqual(sampleKeys(3), [b"user:0", b"session:7919", b"page:15838"])

    def test_shares(self) -> None:
        """
        Shares that are computed agree with those of the sample.
        """
        for name in ("ketama", "libmemcached-consistent", "dalli", "gomemcache", "pymemcache", "mcrouter"):
            keyMap = Distribution(name).build(servers(4))
            found = [keyMap.locate(key) for key in sampleKeys(4000)]
            for index, share in enumerate(keyMap.shares()):
                self.assertLess(abs(found.count(index) / len(found) - share), 0.04, name)
            self.assertAlmostEqual(sum(keyMap.shares()), 1)

    def test_sampledShares(self) -> None:
        """
        Shares that cannot be computed are found by trying. Those of servers without keys are 0.
        """
        shares = Distribution("dalli").build(servers(4), down=(1,)).shares()
        self.assertEqual(shares[1], 0)
        self.assertAlmostEqual(sum(shares), 1)

    def test_nobody(self) -> None:
        """
        A map may have no server for any key.
        """
        keyMap = KeyMap(servers(2), frozenset({0, 1}), Constant(-1))
        self.assertEqual((keyMap.cached[b"a"], keyMap.shares()), (-1, [0, 0]))

    def test_moved(self) -> None:
        """
        The share of the keys that change their server, not their position in the list.
        """
        consistent, positional = Distribution("ketama"), Distribution("gomemcache")
        four, five = servers(4), servers(5)
        before = consistent.build(four)
        self.assertEqual(movedShare(before, before), 0)
        self.assertEqual(movedShare(before, consistent.build(four[::-1])), 0)
        self.assertLess(abs(movedShare(before, consistent.build(five)) - 0.2), 0.05)
        self.assertLess(abs(movedShare(positional.build(four), positional.build(five)) - 0.8), 0.05)
        self.assertAlmostEqual(movedShare(positional.build(four), positional.build(four[::-1]), 500), 1)

    def test_movedContest(self) -> None:
        """
        If all servers are compared for each key, the share is computed, not tried. It is that of a sample.
        """
        many = servers(30)
        for name in ("pymemcache", "mcrouter-rendezvous"):
            distribution = Distribution(name)
            before = distribution.build(many)
            for after in (
                distribution.build(many[::-1]),
                distribution.build(many[:27]),
                distribution.build(many[3:] + servers(34)[-4:]),
                distribution.build(many, down=(1, 5, 6)),
                distribution.build([ServerSpec("other", 11211, label="10.0.0.0"), *many[1:]]),
            ):
                self.assertAlmostEqual(movedShare(before, after), self.tried(before, after), 1)
            self.assertAlmostEqual(movedShare(before, distribution.build(many[:27])), 0.1)

    def test_movedFew(self) -> None:
        """
        If servers have other labels or weights, or other parts of keys are hashed, few keys are tried.
        """
        many = servers(10)
        relabelled = [*many[:9], ServerSpec(many[9].host, many[9].port, label="x")]
        weighted = [*many[:9], ServerSpec(many[9].host, many[9].port, weight=0.25)]
        for name, other in (("pymemcache", relabelled), ("mcrouter-rendezvous", weighted)):
            before = Distribution(name).build(many)
            for after in (Distribution(name).build(other), Distribution("ketama").build(many)):
                self.assertLess(abs(movedShare(before, after) - self.tried(before, after)), 0.2)
            after = Distribution(name, hashTag=b"::").build(many)
            self.assertEqual(movedShare(before, after), self.tried(before, after, FEW))

    def tried(self, before: KeyMap, after: KeyMap, count: int = SAMPLE) -> float:
        """
        @return: the share of some keys that move.
        """
        servers = [[each.address for each in one.servers] for one in (before, after)]
        keys = sampleKeys(count)
        return sum(servers[0][before.locate(key)] != servers[1][after.locate(key)] for key in keys) / len(keys)

    def test_movedToNobody(self) -> None:
        """
        Keys without a server have moved. Servers without addresses are known by their labels.
        """
        labelled = [ServerSpec(label="a"), ServerSpec(label="b")]
        distribution = Distribution("ketama")
        before = distribution.build(labelled)
        self.assertEqual(movedShare(before, distribution.build(labelled, down=(0, 1))), 1)
        self.assertEqual(movedShare(before, distribution.build(labelled[::-1])), 0)
