# -*- test-case-name: tests.routing.test_hashing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.hashing}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.routing.vectordata import read
from txconnpool.routing.hashing import (
    ALIASES,
    HASHES,
    LIBMEMCACHED_HASHES,
    TWEMPROXY_HASHES,
    crc16,
    crc32,
    crc32a,
    fnv1ax32,
    fnv1ax64,
    fnv1x32,
    fnv1x64,
    javaHash,
    murmur3Seeded,
)

MASK = 0xFFFFFFFF


class HashTests(SynchronousTestCase):
    """
    Tests for the hash functions.
    """

    def test_vectors(self) -> None:
        """
        All functions return what the running systems compute, for ASCII and other keys.
        """
        data = read("hashes")
        vectors = dict(data["hashes"])
        # The characters of a text, not its bytes: the rendezvous hash of pymemcache has its own test.
        del vectors["pymemcache_murmur3_32(str)"]
        functions = {**HASHES, "java_String_hashCode": javaHash}
        self.assertEqual(set(vectors), set(functions))
        for name, values in vectors.items():
            self.assertEqual([functions[name](key.encode()) for key in data["keys"]], values, name)

    def test_examples(self) -> None:
        """
        The values of one short text.
        """
        self.assertEqual(
            {name: function(b"foo") for name, function in HASHES.items()},
            {
                "one_at_a_time": 596015325,
                "md5": 3675831724,
                "crc16": 205303702,
                "crc32": 3187,
                "crc32a": 2356372769,
                "fnv1_32": 1083137555,
                "fnv1a_32": 2851307223,
                "fnv1_64": 1805727027,
                "fnv1a_64": 4275688823,
                "hsieh": 1993659431,
                "murmur": 3303027599,
                "murmur3": 2784297138,
                "jenkins": 2583187353,
            },
        )

    def test_empty(self) -> None:
        """
        Nothing has a value too: a key of which nothing is hashed.
        """
        self.assertEqual(
            {name: function(b"") for name, function in HASHES.items()},
            {
                "one_at_a_time": 0,
                "md5": 0xD98C1DD4,
                "crc16": 0,
                "crc32": 0,
                "crc32a": 0,
                "fnv1_32": 0x811C9DC5,
                "fnv1a_32": 0x811C9DC5,
                "fnv1_64": 0x84222325,
                "fnv1a_64": 0x84222325,
                "hsieh": 0,
                "murmur": 0,
                "murmur3": 0,
                "jenkins": 0xDEADBEEF + 13,
            },
        )

    @given(st.binary(max_size=300))
    def test_range(self, data: bytes) -> None:
        """
        All values have 32 bits, those of C{crc32} 15.
        """
        for name, function in {**HASHES, "java": javaHash}.items():
            self.assertLessEqual(0, function(data), name)
            self.assertLessEqual(function(data), MASK, name)
        self.assertEqual(crc32(data), crc32a(data) >> 16 & 0x7FFF)

    @given(st.binary(max_size=300))
    def test_stepByStep(self, data: bytes) -> None:
        """
        Hashes that are cut late or computed from tables are equal to those computed step by step.
        """
        signed = [byte - 256 if byte > 127 else byte for byte in data]
        for function, value, prime, bits in (
            (fnv1x32, 0x811C9DC5, 0x1000193, 32),
            (fnv1x64, 0xCBF29CE484222325, 0x100000001B3, 64),
        ):
            for byte in signed:
                value = (value * prime ^ byte) % (1 << bits)
            self.assertEqual(function(data), value & MASK)
        for function, value, prime in ((fnv1ax32, 0x811C9DC5, 0x1000193), (fnv1ax64, 0x84222325, 0x1B3)):
            for byte in signed:
                value = (value ^ byte) * prime & MASK
            self.assertEqual(function(data), value)
        value = 0
        for byte in data:
            entry = (value >> 8 ^ byte) % 256 << 8
            for _ in range(8):
                entry = entry << 1 ^ (0x11021 if entry & 0x8000 else 0)
            value = (value << 8 ^ entry) & MASK
        self.assertEqual(crc16(data), value)

    def test_murmur3(self) -> None:
        """
        The values of MurmurHash3's own tests.
        """
        self.assertEqual(murmur3Seeded(b"", 0), 0)
        self.assertEqual(murmur3Seeded(b"", 1), 0x514E28B7)
        self.assertEqual(murmur3Seeded(b"test", 0), 0xBA6BD213)
        self.assertEqual(murmur3Seeded(b"Hello, world!", 0x9747B28C), 0x24884CBA)

    def test_java(self) -> None:
        """
        Java hashes UTF-16: some characters count twice. Bytes that are no UTF-8 have a hash too.
        """
        self.assertEqual(javaHash("😀".encode()), 0xD83D * 31 + 0xDE00)
        self.assertEqual(javaHash(b"\xff"), 0xFFFD)

    def test_names(self) -> None:
        """
        twemproxy has 12 of the functions, libmemcached 10; aliases are names of functions too.
        """
        self.assertEqual((len(HASHES), len(TWEMPROXY_HASHES), len(LIBMEMCACHED_HASHES)), (13, 12, 10))
        self.assertLessEqual(set(ALIASES.values()), set(LIBMEMCACHED_HASHES))
