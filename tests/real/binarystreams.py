# -*- test-case-name: tests.real.test_fuzz -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Random streams of binary requests for the differential fuzzer, from a seed.

They avoid the few requests for which memcached and the proxy intentionally differ (see C{conf/README.rst}): long keys
that servers accept in base64 only, unknown opcodes with a key or extras, C{verbosity}, and values close to the largest
size.
"""

from __future__ import annotations

import random
import re
import struct
from typing import Final

from tests.wire.memcache.binary import cases
from tests.wire.memcache.binary.packets import header, request, stored

#: A cas in a request: its last byte is added to the last cas of the servers before the stream, see L{withCas}.
_CAS: Final = 0xCA5CA5CA5CA5CA00
_PLACEHOLDER: Final = re.compile(rb"\xca\x5c\xa5\xca\x5c\xa5\xca(.)", re.DOTALL)

_KEYS: Final = (b"k", b"n", b"m", b"z", b"k" * 250, b"a key", b"\0\xff", b"get k\r\n", b"\x7f", b" " * 180)
_VALUES: Final = (b"", b"v", b"10", b"9", b"18446744073709551615", b"END\r\n", b"\x80\x00", b"x" * 3000, bytes(90000))
_EXPIRIES: Final = (0, 0, 0, 100, 2592000, 2592001, (1 << 31) - 1, 1 << 31, 0xFFFFFFFF)
_NUMBERS: Final = (0, 1, 5, 1 << 32, (1 << 63) + 1, (1 << 64) - 1)

_STORES: Final = (
    cases.SET, cases.SET, cases.SETQ, cases.ADD, cases.ADDQ, cases.REPLACE, cases.REPLACEQ, cases.APPEND, cases.APPENDQ,
    cases.PREPEND, cases.PREPENDQ,
)  # fmt: skip
_WITHOUT_EXTRAS: Final = (cases.APPEND, cases.APPENDQ, cases.PREPEND, cases.PREPENDQ)
_GETS: Final = (cases.GET, cases.GETK, cases.GETQ, cases.GETKQ, cases.GETKQ, cases.GETKQ)
_TOUCHES: Final = (cases.TOUCH, cases.GAT, cases.GATQ, cases.GATK, cases.GATKQ)
_COUNTS: Final = (cases.INCR, cases.INCRQ, cases.DECR, cases.DECRQ)
_UNKNOWN: Final = (0x1F, 0x25, 0x30, 0x50, 0xFF, cases.SASL_LIST)


def withCas(stream: bytes, base: int) -> bytes:
    """
    @return: the stream with real cas numbers in place of the placeholders.
    """
    return _PLACEHOLDER.sub(lambda match: struct.pack("!Q", base + match[1][0]), stream)


class BinaryAuthor:
    """
    Generates a stream.
    """

    def __init__(self, seed: object) -> None:
        self._chance = random.Random(f"binary {seed}")

    def stream(self) -> list[bytes]:
        """
        @return: the requests. Only the last one may be invalid or incomplete: what comes after it is not read.
        """
        chance = self._chance
        made = [self._valid() for _ in range(chance.choice((1, 3, 10, 40)))]
        if chance.random() < 0.5:
            made.append(request(cases.NOOP, opaque=chance.randbytes(4)))
        if chance.random() < 0.3:
            made.append(self._broken())
        return made

    def _valid(self) -> bytes:
        chance = self._chance
        makers = (self._store, self._store, self._get, self._get, self._get, self._touch, self._count, self._other)
        return chance.choice(makers)()

    def _opaque(self) -> bytes:
        return self._chance.randbytes(4)

    def _cas(self) -> int:
        chance = self._chance
        return _CAS + chance.randrange(1, 12) if chance.random() < 0.3 else 0

    def _store(self) -> bytes:
        chance = self._chance
        opcode = chance.choice(_STORES)
        extras = b""
        if opcode not in _WITHOUT_EXTRAS:
            extras = stored(chance.choice((0, 5, 0xFFFFFFFF)), chance.choice(_EXPIRIES))
        value = chance.choice(_VALUES) if chance.random() < 0.97 else bytes(chance.choice((1000000, 1100000)))
        # With a value that is too large and a cas, memcached deletes the old value for a set only.
        return request(opcode, chance.choice(_KEYS), extras, value, self._opaque(), self._cas())

    def _get(self) -> bytes:
        chance = self._chance
        if chance.random() < 0.2:
            gets = [request(cases.GETKQ, key, opaque=self._opaque()) for key in chance.choices(_KEYS, k=8)]
            return b"".join(gets) + request(cases.NOOP, opaque=self._opaque())
        return request(chance.choice(_GETS), chance.choice(_KEYS), opaque=self._opaque())

    def _touch(self) -> bytes:
        chance = self._chance
        expiry = struct.pack("!I", chance.choice(_EXPIRIES))
        return request(chance.choice(_TOUCHES), chance.choice(_KEYS), expiry, b"", self._opaque())

    def _count(self) -> bytes:
        chance = self._chance
        extras = struct.pack("!QQI", chance.choice(_NUMBERS), chance.choice(_NUMBERS), chance.choice(_EXPIRIES))
        return request(chance.choice(_COUNTS), chance.choice(_KEYS), extras, b"", self._opaque(), self._cas())

    def _other(self) -> bytes:
        chance = self._chance
        opaque = self._opaque()
        which = chance.randrange(8)
        if which == 0:
            return request(chance.choice(_UNKNOWN), opaque=opaque)
        if which == 1:
            return request(cases.STAT, chance.choice((b"nonsense", b"reset")), opaque=opaque)
        if which == 2:
            extras = chance.choice((b"", struct.pack("!I", 0), struct.pack("!I", 100000)))
            return request(chance.choice((cases.FLUSH, cases.FLUSHQ)), b"", extras, opaque=opaque)
        if which == 3:
            return request(cases.VERSION, opaque=opaque)
        if which == 4:
            return request(cases.NOOP, opaque=opaque)
        opcode = chance.choice((cases.DELETE, cases.DELETEQ))
        return request(opcode, chance.choice(_KEYS), opaque=opaque, cas=self._cas())

    def _broken(self) -> bytes:
        """
        @return: a request that is invalid, incomplete or ends the connection.
        """
        chance = self._chance
        which = chance.randrange(5)
        if which == 0:
            return request(*chance.choice(cases.LENGTHS))
        if which == 1:
            return request(chance.choice((cases.QUIT, cases.QUITQ)), opaque=self._opaque())
        if which == 2:  # incomplete
            whole = self._store()
            return whole[: chance.randrange(1, len(whole))]
        if which == 3:  # lengths that contradict each other
            size = chance.randrange(1, 40)
            return header(0x80, chance.choice((*_STORES, *_GETS, *_COUNTS)), size + 1, 0, 0, size) + bytes(size + 1)
        return chance.randbytes(1).replace(b"\x80", b"\0") + chance.randbytes(23)  # another magic
