# -*- test-case-name: tests.wire.memcache.test_integers -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The numbers in requests, read as memcached reads them.

memcached calls C{strtol} or C{strtoul} for 64 bits and keeps the lowest 32 (C{util.c}, C{safe_strtol},
C{safe_strtoul}, C{safe_strtoull}, the same from 1.4 to 1.6.44). So a number may have a sign, leading zeros, white space
before it, and anything after it that begins with white space (tabs and the like: a space separates words). The expiry
time C{4294967295} is -1, and C{2147483648}, a date in January 2038, is negative too, so the item expires at once. Where
no negative number is valid, those are that C{strtoul} turns into a number below 2 ** 63.

1.6.45 reads most numbers more strictly: only digits, where it makes sense a minus sign, and nothing that overflows.

A number with a NUL is rejected: some versions end the line there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

#: A function that reads a word, and returns the number, or C{None} if memcached rejects the word.
Integer: TypeAlias = Callable[[bytes], int | None]

_INTEGER: Final = re.compile(rb"[\t-\r]*([+-]?)(?=[0-9])0*([0-9]{0,20})(?:[\t-\r][^\0]*)?").fullmatch

#: Matches the numbers that all versions read in the same way, if they are in range.
_PLAIN: Final = re.compile(rb"-?[0-9]{1,10}").fullmatch


def _integer(word: bytes) -> int | None:
    """
    @return: the number without bounds, or C{None} if it is none, or has more than 20 digits.
    """
    match = _INTEGER(word)
    return None if match is None else int(match[1] + b"0" + match[2])


def signed32(word: bytes) -> int | None:
    """
    Read an expiry time, a delay or a length.

    @return: the number, from -2 ** 31 to 2 ** 31 - 1, or C{None} if memcached rejects the word.
    """
    value = _integer(word)
    if value is None or not -(1 << 63) <= value < 1 << 63:
        return None
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def unsigned64(word: bytes) -> int | None:
    """
    Read a cas unique, a delta or an initial value.

    @return: the number, from 0 to 2 ** 64 - 1, or C{None} if memcached rejects the word.
    """
    value = _integer(word)
    if value is None or abs(value) >= 1 << 64:
        return None
    value %= 1 << 64
    return None if value >= 1 << 63 and b"-" in word else value


def unsigned32(word: bytes) -> int | None:
    """
    Read the flags of an item or a verbosity.

    @return: the number, from 0 to 2 ** 32 - 1, or C{None} if memcached rejects the word.
    """
    value = unsigned64(word)
    return None if value is None else value % (1 << 32)


def known(integer: Integer, word: bytes) -> int:
    """
    Read a number of a request that was checked.

    @raise ValueError: the word is no such number.
    """
    value = integer(word)
    if value is None:
        raise ValueError(f"not a number that memcached reads: {word!r}")
    return value


def plain(word: bytes, value: int) -> bytes:
    """
    Write a number so that every version reads it in the same way. In a request with a data block it must not be left to
    the server whether the number is valid: some versions do not discard the data block of an invalid line.

    @param value: the number that memcached reads in C{word}.

    @return: the word, or other digits of the same number.
    """
    if _PLAIN(word) and int(word) == value and (value or word[:1] != b"-"):
        return word
    return b"%d" % value
