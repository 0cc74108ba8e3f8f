# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.wire.memcache.integers}. C{tests.real.test_fuzz} compares whole requests with
memcached.
"""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from tests.wire.memcache.safestrto import safeStrtol, safeStrtoul, safeStrtoull
from txconnpool.wire.memcache.integers import known, plain, signed32, unsigned32, unsigned64

#: Words, and what they are as a signed number of 32 bits, an unsigned one of 32, and one of 64.
TABLE: tuple[tuple[bytes, int | None, int | None, int | None], ...] = (
    (b"0", 0, 0, 0),
    (b"-0", 0, 0, 0),
    (b"+5", 5, 5, 5),
    (b"0005", 5, 5, 5),
    (b"\t\v\f\r5", 5, 5, 5),
    (b"5\tx", 5, 5, 5),
    (b"5\r", 5, 5, 5),
    (b"-1", -1, None, None),
    (b"2147483647", 2147483647, 2147483647, 2147483647),
    (b"2147483648", -2147483648, 2147483648, 2147483648),
    (b"4294967295", -1, 4294967295, 4294967295),
    (b"4294967296", 0, 0, 4294967296),
    (b"9999999999", 1410065407, 1410065407, 9999999999),
    (b"9223372036854775807", -1, 4294967295, 9223372036854775807),
    (b"9223372036854775808", None, 0, 9223372036854775808),
    (b"-9223372036854775808", 0, None, None),
    (b"-9223372036854775809", None, 4294967295, 9223372036854775807),
    (b"18446744073709551615", None, 4294967295, 18446744073709551615),
    (b"18446744073709551616", None, None, None),
    (b"-18446744073709551615", None, 1, 1),
    (b"-18446744073709551616", None, None, None),
    (b"0" * 5000 + b"7", 7, 7, 7),
    (b"9" * 5000, None, None, None),
    *(
        (word, None, None, None)
        for word in (b"", b"x", b"-", b"+", b"+-5", b"- 5", b"5x", b"0x5", b"1e3", b"1.5", b"\t")
    ),
)


class IntegerTests(SynchronousTestCase):
    """
    Tests for the functions that read numbers.
    """

    def test_table(self) -> None:
        """
        Signs, leading zeros, white space and overflow have the meaning that they have for memcached.
        """
        for word, *expected in TABLE:
            self.assertEqual([signed32(word), unsigned32(word), unsigned64(word)], expected, word[:30])

    def test_library(self) -> None:
        """
        Any word is read as the functions of the C library read it.
        """
        chance = random.Random(1)
        pieces = [
            b"0",
            b"1",
            b"9",
            b"-",
            b"+",
            b"\t",
            b"\r",
            b"x",
            b"4294967296",
            b"9223372036854775807",
            b"1844674407370955",
        ]
        words = [b"".join(chance.choices(pieces, k=chance.randint(0, 6))) for _ in range(5000)]
        for word in (*words, *(row[0] for row in TABLE)):
            self.assertEqual(signed32(word), safeStrtol(word), word)
            self.assertEqual(unsigned32(word), safeStrtoul(word), word)
            self.assertEqual(unsigned64(word), safeStrtoull(word), word)

    def test_zero(self) -> None:
        """
        A number with a NUL is rejected: some versions of memcached end the line there.
        """
        for word in (b"5\0", b"\x005", b"5\t\0x"):
            for integer in (signed32, unsigned32, unsigned64):
                self.assertIsNone(integer(word), word)

    def test_plain(self) -> None:
        """
        A number that all versions read in the same way is kept; others are written with other digits.
        """
        for word in (b"0", b"007", b"-1", b"-01", b"2147483647"):
            self.assertIs(plain(word, int(word)), word)
        for word, value, written in (
            (b"+5", 5, b"5"), (b"-0", 0, b"0"), (b"5\tx", 5, b"5"), (b"4294967295", -1, b"-1"), (b"0" * 11, 0, b"0"),
            (b"18446744073709551615", 2**64 - 1, b"18446744073709551615"),
        ):  # fmt: skip
            self.assertEqual(plain(word, value), written)

    def test_known(self) -> None:
        """
        A word that is no number is an error where it must have been checked.
        """
        self.assertEqual(known(signed32, b"+5"), 5)
        self.assertRaises(ValueError, known, signed32, b"x")
