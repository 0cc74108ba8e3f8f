# Copyright txconnpool contributors. See LICENSE.
"""
A table of binary requests and memcached's replies, from the description of the protocol (C{protocol_binary.h} and
C{proto_bin.c} of memcached 1.6). C{tests/real/test_binary.py} compares it with a real memcached.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.wire.memcache.binary.packets import counter, header, long, number, reply, request, stored

# The opcodes are written as numbers here, as in the description: they are part of what is tested.
GET, SET, ADD, REPLACE, DELETE, INCR, DECR, QUIT, FLUSH, GETQ, NOOP, VERSION, GETK, GETKQ = range(14)
APPEND, PREPEND, STAT, SETQ, ADDQ, REPLACEQ, DELETEQ, INCRQ, DECRQ, QUITQ, FLUSHQ, APPENDQ, PREPENDQ = range(14, 27)
VERBOSITY, TOUCH, GAT, GATQ = range(0x1B, 0x1F)
SASL_LIST, SASL_AUTH, SASL_STEP, GATK, GATKQ = range(0x20, 0x25)

MISSING = b"Not found"
EXISTS = b"Data exists for key."
TOO_LARGE = b"Too large."
INVALID = b"Invalid arguments"
NOT_STORED = b"Not stored."
NOT_NUMERIC = b"Non-numeric server-side value for incr or decr"
UNKNOWN = b"Unknown command"

#: The largest value in the table: memcached's limit of 1 MiB is for the whole item.
BIG = bytes(range(256)) * 4000

#: A value that is too large: the proxy refuses it itself.
HUGE = bytes((1 << 20) + 1)

#: A cas that no item has.
OTHER_CAS = 1 << 63

#: A key that a text request cannot carry.
STRANGE = b"a key\r\nget \0 k"


class Case(NamedTuple):
    """
    A row of the table. Servers are empty before it.

    @ivar sent: the requests.
    @ivar expected: the replies. A cas is 1 for any that is not 0.
    @ivar closes: whether the connection is closed after them.
    @ivar reason: why memcached itself replies otherwise; C{""}: it replies so too.
    """

    sent: bytes
    expected: bytes
    closes: bool = False
    reason: str = ""


def _hit(opcode: int, value: bytes, flags: int = 0, key: bytes = b"", opaque: bytes = b"\x00\xffab") -> bytes:
    return reply(opcode, 0, value, key, number(flags), opaque, 1)


def _set(key: bytes, value: bytes, flags: int = 0) -> bytes:
    return request(SETQ, key, stored(flags), value)


_NOOP = request(NOOP)
_DONE = reply(NOOP)
_K = _set(b"k", b"value", 5)
_N = _set(b"n", b"10")

RETRIEVALS = [
    Case(_K + request(GET, b"k"), _hit(GET, b"value", 5)),
    Case(_K + request(GETK, b"k"), _hit(GETK, b"value", 5, b"k")),
    Case(_K + request(GETQ, b"k") + _NOOP, _hit(GETQ, b"value", 5) + _DONE),
    Case(_K + request(GETKQ, b"k") + _NOOP, _hit(GETKQ, b"value", 5, b"k") + _DONE),
    Case(_K + request(GETKQ, b"k"), _hit(GETKQ, b"value", 5, b"k")),
    Case(request(GET, b"m"), reply(GET, 1, MISSING)),
    Case(request(GETK, b"m"), reply(GETK, 1, b"", b"m")),
    Case(request(GETQ, b"m") + request(GETKQ, b"m") + _NOOP, _DONE),
    Case(request(GETQ, b"m"), b""),
    Case(_set(b"k", b"") + request(GET, b"k"), _hit(GET, b"")),
    Case(_set(b"k", b"END\r\n\r\nEND\r\n") + request(GET, b"k"), _hit(GET, b"END\r\n\r\nEND\r\n")),
    Case(_set(b"k", BIG) + request(GETK, b"k"), _hit(GETK, BIG, 0, b"k")),
    Case(_set(b"k" * 250, b"v") + request(GETK, b"k" * 250), _hit(GETK, b"v", 0, b"k" * 250)),
    Case(_set(b"k", b"v", 0xFFFFFFFF) + request(GET, b"k"), _hit(GET, b"v", 0xFFFFFFFF)),
    Case(
        b"".join(_set(b"k%d" % each, b"v%d" % each) for each in range(0, 120, 2))
        + b"".join(request(GETKQ, b"k%d" % each, opaque=number(each)) for each in range(120))
        + _NOOP,
        b"".join(_hit(GETKQ, b"v%d" % each, 0, b"k%d" % each, number(each)) for each in range(0, 120, 2)) + _DONE,
    ),
    # The same key twice, and a quiet get of another opcode.
    Case(
        _K + request(GETQ, b"k", opaque=b"0001") + request(GETKQ, b"k", opaque=b"0002") + _NOOP,
        _hit(GETQ, b"value", 5, b"", b"0001") + _hit(GETKQ, b"value", 5, b"k", b"0002") + _DONE,
    ),
    Case(
        _K + _N + request(GETQ, b"k") + request(GETQ, b"m") + request(GET, b"n"),
        _hit(GETQ, b"value", 5) + _hit(GET, b"10"),
    ),
    Case(_K + request(GAT, b"k", number(100)), _hit(GAT, b"value", 5)),
    Case(_K + request(GATK, b"k", number(0)), _hit(GATK, b"value", 5, b"k")),
    Case(_K + request(GATQ, b"k", number(9)) + _NOOP, _hit(GATQ, b"value", 5) + _DONE),
    Case(_K + request(GATKQ, b"k", number(9)) + _NOOP, _hit(GATKQ, b"value", 5, b"k") + _DONE),
    Case(request(GAT, b"m", number(9)), reply(GAT, 1, MISSING)),
    Case(request(GATK, b"m", number(9)), reply(GATK, 1, b"", b"m")),
    Case(request(GATQ, b"m", number(9)) + request(GATKQ, b"m", number(9)) + _NOOP, _DONE),
    Case(_K + request(TOUCH, b"k", number(9)), reply(TOUCH, 0, b"", b"", number(5), cas=1)),
    Case(request(TOUCH, b"m", number(9)), reply(TOUCH, 1, MISSING)),
    # Beyond 30 days an expiry time is a date: this one is in 1970.
    Case(_K + request(TOUCH, b"k", number(2592001)) + request(GET, b"k"),
         reply(TOUCH, 0, b"", b"", number(5), cas=1) + reply(GET, 1, MISSING)),
    Case(_K + request(GAT, b"k", number(0xFFFFFFFF)) + request(GET, b"k"),
         _hit(GAT, b"value", 5) + _hit(GET, b"value", 5)),
]  # fmt: skip

CHANGES = [
    Case(request(SET, b"k", stored(5), b"value"), reply(SET, cas=1)),
    Case(request(SETQ, b"k", stored(5), b"value") + _NOOP, _DONE),
    Case(request(ADD, b"k", stored(5), b"v") + request(GET, b"k"), reply(ADD, cas=1) + _hit(GET, b"v", 5)),
    Case(_K + request(ADD, b"k", stored(), b"v"), reply(ADD, 2, EXISTS)),
    Case(_K + request(ADDQ, b"k", stored(), b"v") + request(ADDQ, b"m", stored(), b"v") + _NOOP,
         reply(ADDQ, 2, EXISTS) + _DONE),
    Case(_K + request(REPLACE, b"k", stored(6), b"v") + request(GET, b"k"), reply(REPLACE, cas=1) + _hit(GET, b"v", 6)),
    Case(request(REPLACE, b"m", stored(), b"v"), reply(REPLACE, 1, MISSING)),
    Case(request(REPLACEQ, b"m", stored(), b"v") + _NOOP, reply(REPLACEQ, 1, MISSING) + _DONE),
    Case(_K + request(APPEND, b"k", b"", b"++") + request(GET, b"k"), reply(APPEND, cas=1) + _hit(GET, b"value++", 5)),
    Case(_K + request(PREPEND, b"k", b"", b"--") + request(GET, b"k"),
         reply(PREPEND, cas=1) + _hit(GET, b"--value", 5)),
    Case(_K + request(APPENDQ, b"k", b"", b"+") + request(PREPENDQ, b"k", b"", b"-") + request(GET, b"k"),
         _hit(GET, b"-value+", 5)),
    Case(request(APPEND, b"m", b"", b"++"), reply(APPEND, 5, NOT_STORED)),
    Case(request(PREPENDQ, b"m", b"", b"++") + _NOOP, reply(PREPENDQ, 5, NOT_STORED) + _DONE),
    # With a cas, each of them is a compare and swap.
    Case(_K + request(SET, b"k", stored(), b"v", cas=OTHER_CAS), reply(SET, 2, EXISTS)),
    Case(_K + request(ADD, b"k", stored(), b"v", cas=OTHER_CAS), reply(ADD, 2, EXISTS)),
    Case(_K + request(REPLACEQ, b"k", stored(), b"v", cas=OTHER_CAS), reply(REPLACEQ, 2, EXISTS)),
    Case(request(SET, b"m", stored(), b"v", cas=OTHER_CAS), reply(SET, 1, MISSING)),
    Case(request(ADDQ, b"m", stored(), b"v", cas=OTHER_CAS), reply(ADDQ, 1, MISSING)),
    Case(_K + request(APPEND, b"k", b"", b"v", cas=OTHER_CAS), reply(APPEND, 2, EXISTS)),
    Case(_K + request(DELETE, b"k", cas=OTHER_CAS) + request(DELETE, b"k"), reply(DELETE, 2, EXISTS) + reply(DELETE)),
    Case(_N + request(INCR, b"n", counter(1), cas=OTHER_CAS), reply(INCR, 2, EXISTS)),
    Case(request(DELETE, b"m"), reply(DELETE, 1, MISSING)),
    Case(_K + request(DELETEQ, b"k") + request(DELETEQ, b"k") + _NOOP, reply(DELETEQ, 1, MISSING) + _DONE),
    Case(_K + request(SET, b"k", stored(0, 2592001), b"v") + request(GET, b"k"),
         reply(SET, cas=1) + reply(GET, 1, MISSING)),
    Case(request(SET, b"k", stored(0, 0xFFFFFFFF), b"v") + request(GET, b"k"), reply(SET, cas=1) + _hit(GET, b"v")),
    Case(_K + request(SET, b"k", stored(), HUGE) + request(GET, b"k"),
         reply(SET, 3, TOO_LARGE) + reply(GET, 1, MISSING)),
    Case(_K + request(SETQ, b"k", stored(), HUGE) + request(GETQ, b"k") + _NOOP, reply(SETQ, 3, TOO_LARGE) + _DONE),
    Case(_K + request(REPLACE, b"k", stored(), HUGE) + request(GET, b"k"),
         reply(REPLACE, 3, TOO_LARGE) + _hit(GET, b"value", 5)),
    Case(_K + request(APPENDQ, b"k", b"", HUGE) + request(GET, b"k"),
         reply(APPENDQ, 3, TOO_LARGE) + _hit(GET, b"value", 5)),
    Case(_K + request(FLUSH) + request(GET, b"k"), reply(FLUSH) + reply(GET, 1, MISSING)),
    Case(_K + request(FLUSHQ) + request(GETQ, b"k") + _NOOP, _DONE),
    Case(_K + request(FLUSH, b"", number(100)) + request(GET, b"k"), reply(FLUSH) + _hit(GET, b"value", 5)),
    Case(request(FLUSHQ, b"", number(0)) + _NOOP, _DONE),
]  # fmt: skip

COUNTERS = [
    Case(_N + request(INCR, b"n", counter(5)), reply(INCR, 0, long(15), cas=1)),
    Case(_N + request(DECR, b"n", counter(3)) + request(GET, b"n"), reply(DECR, 0, long(7), cas=1) + _hit(GET, b"7 ")),
    Case(_N + request(DECR, b"n", counter(30)), reply(DECR, 0, long(0), cas=1)),
    Case(_N + request(INCRQ, b"n", counter(5)) + request(DECRQ, b"n", counter(1)) + request(GET, b"n"),
         _hit(GET, b"14")),
    Case(request(INCR, b"m", counter(1, 7, 0)) + request(GET, b"m"), reply(INCR, 0, long(7), cas=1) + _hit(GET, b"7")),
    Case(request(DECR, b"m", counter(1, (1 << 64) - 1, 100)), reply(DECR, 0, long((1 << 64) - 1), cas=1)),
    Case(request(INCRQ, b"m", counter(1, 7, 0)) + request(GET, b"m"), _hit(GET, b"7")),
    Case(request(INCR, b"m", counter(1, 7)) + request(GET, b"m"), reply(INCR, 1, MISSING) + reply(GET, 1, MISSING)),
    Case(request(DECRQ, b"m", counter(1)) + _NOOP, reply(DECRQ, 1, MISSING) + _DONE),
    Case(_K + request(INCR, b"k", counter(1)), reply(INCR, 6, NOT_NUMERIC)),
    Case(_K + request(DECRQ, b"k", counter(1)) + _NOOP, reply(DECRQ, 6, NOT_NUMERIC) + _DONE),
    Case(_set(b"n", b"18446744073709551615") + request(INCR, b"n", counter(2)), reply(INCR, 0, long(1), cas=1)),
]  # fmt: skip

#: Keys that text requests cannot carry.
KEYS = [
    Case(_set(STRANGE, b"v", 3) + request(GETK, STRANGE), _hit(GETK, b"v", 3, STRANGE)),
    Case(_set(STRANGE, BIG) + request(GET, STRANGE), _hit(GET, BIG)),
    Case(request(GETK, STRANGE), reply(GETK, 1, b"", STRANGE)),
    Case(
        _set(STRANGE, b"v") + _K + request(GETKQ, b"k") + request(GETKQ, STRANGE) + request(GETQ, b" ") + _NOOP,
        _hit(GETKQ, b"value", 5, b"k") + _hit(GETKQ, b"v", 0, STRANGE) + _DONE,
    ),
    Case(_set(STRANGE, b"v") + request(GATK, STRANGE, number(9)), _hit(GATK, b"v", 0, STRANGE)),
    Case(_set(STRANGE, b"v") + request(TOUCH, STRANGE, number(9)), reply(TOUCH, 0, b"", b"", number(0), cas=1)),
    Case(request(ADD, STRANGE, stored(), b"v") + request(APPEND, STRANGE, b"", b"+"),
         reply(ADD, cas=1) + reply(APPEND, cas=1)),
    Case(request(INCR, STRANGE, counter(1, 5, 0)), reply(INCR, 0, long(5), cas=1)),
    Case(_set(STRANGE, b"v") + request(DELETE, STRANGE) + request(GET, STRANGE),
         reply(DELETE) + reply(GET, 1, MISSING)),
    Case(_set(b" " * 186, b"v") + request(GET, b" " * 186), _hit(GET, b"v")),
    Case(_set(STRANGE, b"v") + request(SET, STRANGE, stored(), HUGE) + request(GET, STRANGE),
         reply(SET, 3, TOO_LARGE) + reply(GET, 1, MISSING)),
    Case(
        request(SET, b" " * 187, stored(), b"v") + request(GET, b" " * 187) + _NOOP,
        reply(SET, 4, b"Key too long: more than 186 bytes, with bytes that servers accept in base64 only")
        + reply(GET, 4, b"Key too long: more than 186 bytes, with bytes that servers accept in base64 only")
        + _DONE,
        reason="a key in base64 may have 250 characters",
    ),
]  # fmt: skip

OTHERS = [
    Case(_NOOP, _DONE),
    Case(request(QUIT) + _NOOP, reply(QUIT), True),
    Case(_K + request(GET, b"k") + request(QUIT), _hit(GET, b"value", 5) + reply(QUIT), True),
    Case(request(QUITQ) + _NOOP, b"", True),
    Case(request(STAT, b"nonsense") + _NOOP, reply(STAT, 1, MISSING) + _DONE),
    Case(request(0x30) + _NOOP, reply(0x30, 0x81, UNKNOWN) + _DONE),
    Case(request(0xFF, b"", b"", b"body") + _NOOP, reply(0xFF, 0x81, UNKNOWN) + _DONE),
    Case(
        request(0x30, b"key", b"extras", b"body") + _NOOP,
        reply(0x30, 0x81, UNKNOWN) + _DONE,
        reason="memcached discards the key and the extras twice",
    ),
    Case(
        request(VERBOSITY, b"", number(1)) + _NOOP,
        reply(VERBOSITY) + _DONE,
        reason="memcached describes this request and does not know it",
    ),
    Case(request(SASL_LIST) + _NOOP, reply(SASL_LIST, 0x81, UNKNOWN) + _DONE),
    Case(request(SASL_AUTH, b"PLAIN", b"", b"\0u\0p") + _NOOP, reply(SASL_AUTH, 0x81, UNKNOWN) + _DONE),
    Case(request(SASL_STEP, b"PLAIN", b"", b"\0u\0p") + _NOOP, reply(SASL_STEP, 0x81, UNKNOWN) + _DONE),
]

#: The arguments of L{request} for requests with wrong lengths.
LENGTHS: list[tuple[Any, ...]] = [
    (GET,), (GET, b"k", b"x"), (GET, b"k", b"", b"v"), (GET, b"k" * 251), (GETKQ,), (GETQ, b"k", b"", b"v"),
    (SET, b"", stored(), b"v"), (SET, b"k", b"", b"v"), (SETQ, b"k", number(1), b"v"), (ADD, b"k"),
    (APPEND, b"", b"", b"v"), (APPEND, b"k", stored(), b"v"), (DELETE,), (DELETE, b"k", number(0)),
    (DELETEQ, b"k", b"", b"v"), (INCR, b"k"), (INCR, b"", counter(1)), (DECRQ, b"k", counter(1), b"v"),
    (FLUSH, b"k"), (FLUSH, b"", b"x"), (FLUSHQ, b"", b"", b"v"), (NOOP, b"k"), (NOOP, b"", number(1)),
    (VERSION, b"k"), (QUIT, b"k"), (QUITQ, b"", b"", b"v"), (STAT, b"", number(0)), (GAT, b"k"),
    (GAT, b"", number(1)), (TOUCH, b"k", stored()), (GATKQ, b"k", b"x"), (SASL_LIST, b"k"), (SASL_AUTH,),
    (SASL_STEP, b"", b"", b"x"), (SASL_AUTH, b"PLAIN", number(1), b"x"),
]  # fmt: skip

LATER = "1.6.18 has no limit for the length of a packet"

#: Requests after which the connection is closed.
BROKEN = [
    Case(_NOOP + header(0x81, NOOP, 0, 0, 0, 0), _DONE, True),
    Case(_NOOP + b"get k\r\n" + b" " * 24, _DONE, True),
    *(Case(request(*parts), reply(parts[0], 4, INVALID), True) for parts in LENGTHS),
    Case(header(0x80, GET, 5, 0, 0, 4) + b"short", reply(GET, 0x81, UNKNOWN), True),
    Case(header(0x80, SET, 1, 8, 0, 8) + stored() + b"k", reply(SET, 0x81, UNKNOWN), True),
    *(
        Case(header(0x80, opcode, 1, 8, 0, size) + stored() + b"k", reply(opcode, 4, INVALID), True, LATER)
        for opcode, size in ((SET, (1 << 30) + 1), (0xEE, 0xFFFFFFFF))
    ),
]  # fmt: skip

CASES = [*RETRIEVALS, *CHANGES, *COUNTERS, *KEYS, *OTHERS, *BROKEN]
