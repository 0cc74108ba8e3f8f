# -*- test-case-name: tests.routing.distribution.test_mcrouter -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Hash functions of 64 bits, from which mcrouter takes its choices.
"""

from __future__ import annotations

from struct import unpack_from

from txconnpool.native import choose

_MASK = 0xFFFFFFFFFFFFFFFF


def murmur64(data: bytes, seed: int) -> int:
    """
    MurmurHash64A.

    See U{https://github.com/aappleby/smhasher}.
    """
    value = (seed ^ len(data) * 0xC6A4A7935BD1E995) & _MASK
    blocks = len(data) // 8
    for word in unpack_from(f"<{blocks}Q", data):
        word = word * 0xC6A4A7935BD1E995 & _MASK
        value = (value ^ (word ^ word >> 47) * 0xC6A4A7935BD1E995) * 0xC6A4A7935BD1E995 & _MASK
    if len(data) % 8:
        value = (value ^ int.from_bytes(data[8 * blocks :], "little")) * 0xC6A4A7935BD1E995 & _MASK
    value = (value ^ value >> 47) * 0xC6A4A7935BD1E995 & _MASK
    return value ^ value >> 47


#: L{murmur64}, in C with the extension.
chosenMurmur64 = choose(murmur64)

_SPOOKY = 0xDEADBEEFDEADBEEF

#: Texts of this many bytes and more are mixed with twelve variables instead of four.
_SPOOKY_LONG = 192

_SHORT_MIX = (50, 52, 30, 41, 54, 48, 38, 37, 62, 34, 5, 36)
_SHORT_END = (15, 52, 26, 51, 28, 9, 47, 54, 32, 25, 63)
_LONG_MIX = (11, 32, 43, 31, 17, 28, 39, 57, 55, 54, 22, 46)
_LONG_END = (44, 15, 34, 21, 38, 33, 10, 13, 38, 53, 42, 54)


def spooky(data: bytes, seed: int) -> int:
    """
    The 32 bits of SpookyHash V2.

    See U{http://burtleburtle.net/bob/hash/spooky.html}.
    """
    value = _spookyShort(data, seed) if len(data) < _SPOOKY_LONG else _spookyLong(data, seed)
    return value & 0xFFFFFFFF


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> 64 - bits) & _MASK


def _spookyShort(data: bytes, seed: int) -> int:
    h = [seed, seed, _SPOOKY, _SPOOKY]
    # Blocks of 32 bytes, then possibly one of 16.
    blocks = len(data) // 16
    words = unpack_from(f"<{2 * blocks}Q", data)
    for at in range(0, len(words), 4):
        h[2] = h[2] + words[at] & _MASK
        h[3] = h[3] + words[at + 1] & _MASK
        for step, bits in enumerate(_SHORT_MIX):
            a, b, c = (2 + step) % 4, (3 + step) % 4, step % 4
            h[a] = _rotated(h[a], bits) + h[b] & _MASK
            h[c] ^= h[a]
        if at + 2 < len(words):
            h[0] = h[0] + words[at + 2] & _MASK
            h[1] = h[1] + words[at + 3] & _MASK
    tail = data[16 * blocks :]
    h[3] = h[3] + (len(data) << 56) & _MASK
    h[2] = h[2] + (int.from_bytes(tail[:8], "little") if tail else _SPOOKY) & _MASK
    h[3] = h[3] + (int.from_bytes(tail[8:], "little") if tail else _SPOOKY) & _MASK
    for step, bits in enumerate(_SHORT_END):
        a, b = (3 + step) % 4, (2 + step) % 4
        h[a] ^= h[b]
        h[b] = _rotated(h[b], bits)
        h[a] = h[a] + h[b] & _MASK
    return h[0]


def _spookyLong(data: bytes, seed: int) -> int:
    h = [seed, seed, _SPOOKY] * 4
    complete = len(data) // 96 * 96
    words = unpack_from(f"<{complete // 8}Q", data)
    for at in range(0, len(words), 12):
        for i, bits in enumerate(_LONG_MIX):
            h[i] = h[i] + words[at + i] & _MASK
            h[(i + 2) % 12] ^= h[(i + 10) % 12]
            h[(i + 11) % 12] ^= h[i]
            h[i] = _rotated(h[i], bits)
            h[(i + 11) % 12] = h[(i + 11) % 12] + h[(i + 1) % 12] & _MASK
    rest = data[complete:]
    last = rest + bytes(95 - len(rest)) + bytes((len(rest),))
    h = [value + word & _MASK for value, word in zip(h, unpack_from("<12Q", last), strict=True)]
    for _ in range(3):
        for i, bits in enumerate(_LONG_END):
            a, b, c = (i + 11) % 12, (i + 1) % 12, (i + 2) % 12
            h[a] = h[a] + h[b] & _MASK
            h[c] ^= h[a]
            h[b] = _rotated(h[b], bits)
    return h[0]
