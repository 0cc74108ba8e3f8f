# -*- test-case-name: tests.routing.distribution.test_xxh3 -*-
# Copyright txconnpool contributors. See LICENSE.
"""
XXH3 with 64 bits and the seed 0, the hash of the proxy in memcached.

See U{https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md}.
"""

from __future__ import annotations

from struct import unpack_from

from txconnpool.native import choose

_MASK = 0xFFFFFFFFFFFFFFFF

_P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
_P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)

_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248e"
    "e03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d"
    "8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc"
    "8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


#: The words of the secret that begin at each of its bytes.
_WORDS = [int.from_bytes(_SECRET[at : at + 8], "little") for at in range(len(_SECRET) - 7)]


def _folded(a: int, b: int) -> int:
    product = a * b
    return product & _MASK ^ product >> 64


def _end64(value: int) -> int:
    value = (value ^ value >> 33) * _P64[1] & _MASK
    value = (value ^ value >> 29) * _P64[2] & _MASK
    return value ^ value >> 32


def _end3(value: int) -> int:
    value = (value ^ value >> 37) * 0x165667919E3779F9 & _MASK
    return value ^ value >> 32


def xxh3(data: bytes) -> int:
    """
    @return: the hash as an unsigned number of 64 bits.
    """
    size = len(data)
    if size <= 16:
        return _upTo16(data)
    if size <= 240:
        return _upTo240(data)
    return _long(data)


def _upTo16(data: bytes) -> int:
    size = len(data)
    if size > 8:
        low = _WORDS[24] ^ _WORDS[32] ^ int.from_bytes(data[:8], "little")
        high = _WORDS[40] ^ _WORDS[48] ^ int.from_bytes(data[-8:], "little")
        return _end3(size + int.from_bytes(low.to_bytes(8, "little")) + high + _folded(low, high) & _MASK)
    if size > 3:
        first, last = int.from_bytes(data[:4], "little"), int.from_bytes(data[-4:], "little")
        value = _WORDS[8] ^ _WORDS[16] ^ last + (first << 32)
        value ^= (value << 49 | value >> 15) & _MASK ^ (value << 24 | value >> 40) & _MASK
        value = value * 0x9FB21C651E98DF25 & _MASK
        value = (value ^ (value >> 35) + size) * 0x9FB21C651E98DF25 & _MASK
        return value ^ value >> 28
    if size:
        combined = data[0] << 16 | data[size >> 1] << 24 | data[-1] | size << 8
        return _end64(combined ^ _WORDS[0] & 0xFFFFFFFF ^ _WORDS[4] & 0xFFFFFFFF)
    return _end64(_WORDS[56] ^ _WORDS[64])


def _mixed(data: bytes, at: int, secret: int) -> int:
    low, high = unpack_from("<2Q", data, at)
    return _folded(low ^ _WORDS[secret], high ^ _WORDS[secret + 8])


def _upTo240(data: bytes) -> int:
    size = len(data)
    value = size * _P64[0]
    if size <= 128:
        for pair in range((size - 1) // 32 + 1):
            value += _mixed(data, 16 * pair, 32 * pair) + _mixed(data, size - 16 * (pair + 1), 32 * pair + 16)
        return _end3(value & _MASK)
    value += sum(_mixed(data, 16 * part, 16 * part) for part in range(8))
    value = _end3(value & _MASK)
    value += sum(_mixed(data, 16 * part, 16 * (part - 8) + 3) for part in range(8, size // 16))
    return _end3(value + _mixed(data, size - 16, 136 - 17) & _MASK)


def _accumulate(sums: list[int], data: bytes, at: int, secret: int) -> None:
    """
    Add a stripe of 64 bytes.
    """
    for lane, (word, part) in enumerate(
        zip(unpack_from("<8Q", data, at), unpack_from("<8Q", _SECRET, secret), strict=True)
    ):
        mixed = word ^ part
        sums[lane ^ 1] = sums[lane ^ 1] + word & _MASK
        sums[lane] = sums[lane] + (mixed & 0xFFFFFFFF) * (mixed >> 32) & _MASK


def _long(data: bytes) -> int:
    size = len(data)
    sums = [_P32[2], _P64[0], _P64[1], _P64[2], _P64[3], _P32[1], _P64[4], _P32[0]]
    # A block has 16 stripes. Each stripe but the first of a block begins 8 bytes later in the secret.
    for stripe in range((size - 1) // 64):
        _accumulate(sums, data, 64 * stripe, 8 * (stripe % 16))
        if stripe % 16 == 15:
            parts = unpack_from("<8Q", _SECRET, 128)
            sums = [(value ^ value >> 47 ^ part) * _P32[0] & _MASK for value, part in zip(sums, parts, strict=True)]
    _accumulate(sums, data, size - 64, 128 - 7)
    value = size * _P64[0]
    for pair in range(4):
        secret = 11 + 16 * pair
        value += _folded(sums[2 * pair] ^ _WORDS[secret], sums[2 * pair + 1] ^ _WORDS[secret + 8])
    return _end3(value & _MASK)


#: L{xxh3}, in C with the extension.
chosenXxh3 = choose(xxh3)
