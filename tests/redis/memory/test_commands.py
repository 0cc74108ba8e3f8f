# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the commands of an embedded Redis, on keys of each type.
"""

from __future__ import annotations

from typing import Any

from tests.redis.memory.cases import MemoryCase
from tests.redis.memory.requests import REQUESTS


class CommandTests(MemoryCase):
    """
    Tests with the requests of one client.
    """

    def check(self, group: str) -> None:
        """
        Assert that requests have the replies of the table, and the same in RESP2 as far as that has their types.
        """
        for version in (2, 3):
            self.ask("flushall")
            self.ask(f"hello {version}")
            for text, expected in REQUESTS[group]:
                found = self.ask(text)
                self.assertEqual(found, expected if version == 3 else self.older(expected, found), text)

    def older(self, value: Any, found: Any) -> Any:
        """
        @return: what C{value} is in RESP2. Its numbers with fractions are text, and its pairs are flat.
        """
        if isinstance(value, float):
            return b"%.17g" % value
        if isinstance(value, dict):
            return [self.older(each, found) for pair in value.items() for each in pair]
        if isinstance(value, set):
            return [each for each in found if each in value]
        if isinstance(value, list):
            isFlat = isinstance(found, list) and len(found) != len(value)
            items = [each for pair in value for each in pair] if isFlat else value
            nested = found if isinstance(found, list) and len(found) == len(items) else [None] * len(items)
            return [self.older(each, its) for each, its in zip(items, nested, strict=True)]
        return value

    def test_strings(self) -> None:
        """
        Strings, numbers and bits.
        """
        self.check("strings")

    def test_keys(self) -> None:
        """
        Keys of all types, and when they expire.
        """
        self.check("keys")

    def test_hashes(self) -> None:
        """
        Hashes.
        """
        self.check("hashes")

    def test_lists(self) -> None:
        """
        Lists.
        """
        self.check("lists")

    def test_sets(self) -> None:
        """
        Sets.
        """
        self.check("sets")

    def test_sortedSets(self) -> None:
        """
        Sorted sets.
        """
        self.check("sortedsets")

    def test_expiry(self) -> None:
        """
        A key is gone when its time has passed on the clock, and not before.
        """
        self.ask("set a 1 EX 5")
        self.ask("set b 1 PX 5500")
        self.ask("set c 1")
        self.ask("expire c 5")
        self.clock.advance(4.5)
        self.assertEqual(self.ask("mget a b c"), [b"1", b"1", b"1"])
        self.assertEqual([self.ask("pttl a"), self.ask("ttl b"), self.ask("ttl c")], [500, 1, 1])
        self.clock.advance(0.5)
        self.assertEqual(self.ask("mget a b c"), [None, b"1", None])
        self.assertEqual([self.ask("ttl a"), self.ask("dbsize")], [-2, 1])
        self.ask("set b 2 KEEPTTL")
        self.clock.advance(0.5)
        self.assertIsNone(self.ask("get b"))

    def test_scan(self) -> None:
        """
        A scan finds each key that is there all the time, also if others are deleted meanwhile.
        """
        for number in range(100):
            self.ask(f"set k{number} 1")
        cursor, found = "0", set()
        while True:
            at, keys = self.ask(f"scan {cursor} COUNT 7")
            found.update(keys)
            for number in range(1, 100, 2):
                self.ask(f"del k{number}")
            cursor = at.decode()
            if cursor == "0":
                break
        self.assertLessEqual({b"k%d" % number for number in range(0, 100, 2)}, found)

    def test_server(self) -> None:
        """
        The server says its version, its keys, and the time of the clock.
        """
        self.clock.advance(5.25)
        self.ask("set a 1 EX 5")
        self.assertIn(b"\r\ndb0:keys=1,expires=1,", self.ask("info"))
        self.assertEqual(self.ask("time"), [b"1700000005", b"250000"])
