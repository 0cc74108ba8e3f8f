# -*- test-case-name: tests.routing.test_hashing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The hash functions with which clients and proxies of memcached find the server of a key.

All take bytes, and return an unsigned number of 32 bits. The values are those that twemproxy 0.5.0, libmemcached 1.1.4
and the other systems compute on x86-64, deviations from the original functions included.

Several of them read bytes as the C type C{char}, which is signed on x86-64: a byte of 0x80 or more is extended with
ones. Keys of ASCII characters are not affected.

Those that are slow in Python have counterparts in C, see L{txconnpool.native}.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Callable, Iterable
from hashlib import md5 as _md5
from struct import unpack_from
from zlib import crc32 as _crc32

from txconnpool.native import choose

#: A hash function: bytes to an unsigned number.
HashFunction = Callable[[bytes], int]

_MASK = 0xFFFFFFFF

#: Bytes as signed characters that are extended to 32 bits.
_SIGNED = tuple(byte if byte < 0x80 else byte | 0xFFFFFF00 for byte in range(256))

#: How many bytes the FNV hashes read before they cut their number to 32 bits. In all their steps no bit moves to a
#: lower one, so it may be cut late; but the time of a step grows with the number.
_RUN = 24


def _signed(data: bytes) -> Iterable[int]:
    return data if data.isascii() else map(_SIGNED.__getitem__, data)


def oneAtATime(data: bytes) -> int:
    """
    Jenkins's one-at-a-time hash over signed characters: C{default} of libmemcached, C{one_at_a_time} of twemproxy.

    See U{http://burtleburtle.net/bob/hash/doobs.html}.
    """
    value = 0
    for byte in _signed(data):
        value = (value + byte) * 1025 & _MASK  # value += byte; value += value << 10
        value ^= value >> 6
    value = value * 9 & _MASK
    return (value ^ value >> 11) * 0x8001 & _MASK


def md5(data: bytes) -> int:
    """
    The first four bytes of the MD5 digest, little endian, as in libketama.
    """
    return int.from_bytes(_md5(data, usedforsecurity=False).digest()[:4], "little")


def crc16(data: bytes) -> int:
    """
    C{crc16} of twemproxy (C{src/hashkit/nc_crc16.c}): the CRC-16 of XMODEM in a variable of 32 bits that is never cut
    to 16. So its upper half has what was shifted out of the lower one: the high byte of the CRC without the last byte,
    and above it the high byte of the CRC without the last two.
    """
    if len(data) < 2:
        return crc_hqx(data, 0)
    before, last = crc_hqx(data[:-2], 0), crc_hqx(data[:-1], 0)
    return before >> 8 << 24 | last >> 8 << 16 | crc_hqx(data[-1:], last)


def crc32(data: bytes) -> int:
    """
    Bits 16 to 30 of the CRC-32: C{crc} of libmemcached, C{crc32} of twemproxy, and the hash of python-memcached,
    Cache::Memcached and others. Only 15 bits.
    """
    return _crc32(data) >> 16 & 0x7FFF


def crc32a(data: bytes) -> int:
    """
    The CRC-32 of zlib: C{crc32a} of twemproxy, and the hash of gomemcache and dalli.
    """
    return _crc32(data)


def _fnv1(data: bytes, value: int, prime: int) -> int:
    for start in range(0, len(data), _RUN):
        for byte in _signed(data[start : start + _RUN]):
            value = value * prime ^ byte
        value &= _MASK
    return value


def _fnv1a(data: bytes, value: int, prime: int) -> int:
    for start in range(0, len(data), _RUN):
        for byte in _signed(data[start : start + _RUN]):
            value = (value ^ byte) * prime
        value &= _MASK
    return value


def fnv1x32(data: bytes) -> int:
    """
    FNV-1 of 32 bits over signed characters: C{fnv1_32}.

    See U{http://www.isthe.com/chongo/tech/comp/fnv/}.
    """
    return _fnv1(data, 0x811C9DC5, 0x01000193)


def fnv1ax32(data: bytes) -> int:
    """
    FNV-1a of 32 bits over signed characters: C{fnv1a_32}.
    """
    return _fnv1a(data, 0x811C9DC5, 0x01000193)


def fnv1x64(data: bytes) -> int:
    """
    The low half of FNV-1 of 64 bits over signed characters: C{fnv1_64}.
    """
    return _fnv1(data, 0x84222325, 0x1B3)


def fnv1ax64(data: bytes) -> int:
    """
    FNV-1a in 32 bits with the low halves of the constants for 64 bits, over signed characters: C{fnv1a_64}.
    """
    return _fnv1a(data, 0x84222325, 0x1B3)


def hsieh(data: bytes) -> int:
    """
    C{hsieh} of twemproxy (C{src/hashkit/nc_hsieh.c}): Hsieh's SuperFastHash, but with 0 as the first value instead of
    the length.

    See U{http://www.azillionmonkeys.com/qed/hash.html}.
    """
    value = 0
    blocks, rest = divmod(len(data), 4)
    halves = unpack_from(f"<{2 * blocks}H", data)
    for low, high in zip(halves[::2], halves[1::2], strict=True):
        value = value + low & _MASK
        value = (value << 16 ^ high << 11 ^ value) & _MASK
        value = value + (value >> 11) & _MASK
    tail = data[4 * blocks :]
    if rest == 3:
        value = value + (tail[0] | tail[1] << 8) & _MASK
        value ^= value << 16 & _MASK
        value ^= _SIGNED[tail[2]] << 18 & _MASK
        value += value >> 11
    elif rest == 2:
        value = value + (tail[0] | tail[1] << 8) & _MASK
        value ^= value << 11 & _MASK
        value += value >> 17
    elif rest == 1:
        value = value + tail[0] & _MASK
        value ^= value << 10 & _MASK
        value += value >> 1
    value &= _MASK
    value ^= value << 3 & _MASK
    value = value + (value >> 5) & _MASK
    value ^= value << 4 & _MASK
    value = value + (value >> 17) & _MASK
    value ^= value << 25 & _MASK
    return value + (value >> 6) & _MASK


def murmur(data: bytes) -> int:
    """
    MurmurHash2 with the seed 0xdeadbeef times the length: C{murmur} of libmemcached and twemproxy.

    See U{https://github.com/aappleby/smhasher}.
    """
    size = len(data)
    value = 0xDEADBEEF * size & _MASK ^ size
    blocks = size // 4
    for word in unpack_from(f"<{blocks}I", data):
        word = word * 0x5BD1E995 & _MASK
        value = value * 0x5BD1E995 & _MASK ^ (word ^ word >> 24) * 0x5BD1E995 & _MASK
    if size % 4:
        value = (value ^ int.from_bytes(data[4 * blocks :], "little")) * 0x5BD1E995 & _MASK
    value = (value ^ value >> 13) * 0x5BD1E995 & _MASK
    return value ^ value >> 15


def murmur3Seeded(data: bytes, seed: int) -> int:
    """
    MurmurHash3 (x86, 32 bits).

    See U{https://github.com/aappleby/smhasher}.
    """
    value = seed & _MASK
    blocks = len(data) // 4
    for word in unpack_from(f"<{blocks}I", data):
        word = word * 0xCC9E2D51 & _MASK
        value ^= (word << 15 | word >> 17) * 0x1B873593 & _MASK
        value = (value << 13 | value >> 19) * 5 + 0xE6546B64 & _MASK
    if len(data) % 4:
        word = int.from_bytes(data[4 * blocks :], "little") * 0xCC9E2D51 & _MASK
        value ^= (word << 15 | word >> 17) * 0x1B873593 & _MASK
    value ^= len(data)
    value = (value ^ value >> 16) * 0x85EBCA6B & _MASK
    value = (value ^ value >> 13) * 0xC2B2AE35 & _MASK
    return value ^ value >> 16


def murmur3(data: bytes) -> int:
    """
    MurmurHash3 (x86, 32 bits) with the seed 0xdeadbeef times the length: C{murmur3} of libmemcached.
    """
    return murmur3Seeded(data, 0xDEADBEEF * len(data))


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> 32 - bits) & _MASK


def jenkins(data: bytes) -> int:
    """
    Jenkins's C{lookup3} (C{hashlittle}) with the initial value 13: C{jenkins} of libmemcached and twemproxy.

    See U{http://burtleburtle.net/bob/c/lookup3.c}.
    """
    a = b = c = 0xDEADBEEF + len(data) + 13 & _MASK
    if not data:
        return c
    # All blocks of 12 bytes but the last are mixed. The last is filled up with zeros.
    words: tuple[int, ...] = unpack_from(f"<{-(-len(data) // 12) * 3}I", data + bytes(-len(data) % 12))
    for at in range(0, len(words) - 3, 3):
        a, b, c = a + words[at], b + words[at + 1], c + words[at + 2]
        a = a - c & _MASK ^ _rotated(c & _MASK, 4)
        c = c + b & _MASK
        b = b - a & _MASK ^ _rotated(a, 6)
        a = a + c & _MASK
        c = c - b & _MASK ^ _rotated(b, 8)
        b = b + a & _MASK
        a = a - c & _MASK ^ _rotated(c, 16)
        c = c + b & _MASK
        b = b - a & _MASK ^ _rotated(a, 19)
        a = a + c & _MASK
        c = c - b & _MASK ^ _rotated(b, 4)
        b = b + a & _MASK
    a, b, c = a + words[-3] & _MASK, b + words[-2] & _MASK, c + words[-1] & _MASK
    c = (c ^ b) - _rotated(b, 14) & _MASK
    a = (a ^ c) - _rotated(c, 11) & _MASK
    b = (b ^ a) - _rotated(a, 25) & _MASK
    c = (c ^ b) - _rotated(b, 16) & _MASK
    a = (a ^ c) - _rotated(c, 4) & _MASK
    b = (b ^ a) - _rotated(a, 14) & _MASK
    return (c ^ b) - _rotated(b, 24) & _MASK


def javaHash(data: bytes) -> int:
    """
    C{String.hashCode()} of Java over UTF-16, as an unsigned number: the default of spymemcached, xmemcached and the
    client of ElastiCache. memjs has it too.

    Bytes that are no UTF-8 count as the replacement character.
    """
    units: Iterable[int] = data
    if not data.isascii():
        encoded = data.decode("utf-8", "replace").encode("utf-16-le")
        units = unpack_from(f"<{len(encoded) // 2}H", encoded)
    value = 0
    for unit in units:
        value = value * 31 + unit & _MASK
    return value


#: The hash functions by the names of the setting C{hash}.
HASHES: dict[str, HashFunction] = {
    "one_at_a_time": choose(oneAtATime),
    "md5": choose(md5),
    "crc16": crc16,
    "crc32": crc32,
    "crc32a": crc32a,
    "fnv1_64": choose(fnv1x64),
    "fnv1a_64": choose(fnv1ax64),
    "fnv1_32": choose(fnv1x32),
    "fnv1a_32": choose(fnv1ax32),
    "hsieh": choose(hsieh),
    "murmur": choose(murmur),
    "jenkins": choose(jenkins),
    "murmur3": choose(murmur3),
}

#: Other names of hash functions: those of libmemcached.
ALIASES = {"default": "one_at_a_time", "crc": "crc32"}

#: The names of the hash functions that twemproxy has.
TWEMPROXY_HASHES = tuple(name for name in HASHES if name != "murmur3")

#: The names of the hash functions that libmemcached has.
LIBMEMCACHED_HASHES = tuple(name for name in HASHES if name not in ("crc16", "crc32a", "hsieh"))

#: L{murmur3Seeded}, in C with the extension.
chosenMurmur3Seeded = choose(murmur3Seeded)
