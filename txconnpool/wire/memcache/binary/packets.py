# -*- test-case-name: tests.wire.memcache.binary -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The numbers of memcached's binary protocol, and the packets of its replies (C{protocol_binary.h}).

A packet is a header of 24 bytes, extras, a key and a value::

    magic, opcode, length of the key (2), length of the extras, data type, status (2),
    length of all after the header (4), opaque (4), cas (8)

A reply has the opcode and the opaque of its request. In a request the two bytes of the status have no meaning here.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

#: The first byte of a request, and of a reply.
REQUEST: Final = 0x80
RESPONSE: Final = 0x81

#: The length of a header.
HEADER: Final = 24

# Opcodes. Those of quiet requests have a Q at the end.
GET, SET, ADD, REPLACE, DELETE, INCR, DECR, QUIT, FLUSH, GETQ, NOOP, VERSION, GETK, GETKQ, APPEND, PREPEND, STAT = (
    range(17)
)
SETQ, ADDQ, REPLACEQ, DELETEQ, INCRQ, DECRQ, QUITQ, FLUSHQ, APPENDQ, PREPENDQ, VERBOSITY, TOUCH, GAT, GATQ = range(
    0x11, 0x1F
)
SASL_LIST, SASL_AUTH, SASL_STEP, GATK, GATKQ = range(0x20, 0x25)

# Statuses. memcached itself has no use for the last ones, which protocol_binary.h reserves.
SUCCESS: Final = 0x00
NOT_FOUND: Final = 0x01
EXISTS: Final = 0x02
TOO_LARGE: Final = 0x03
INVALID: Final = 0x04
NOT_STORED: Final = 0x05
NOT_NUMERIC: Final = 0x06
AUTH_ERROR: Final = 0x20
UNKNOWN_COMMAND: Final = 0x81
NO_MEMORY: Final = 0x82
NOT_SUPPORTED: Final = 0x83
INTERNAL_ERROR: Final = 0x84

#: memcached's text for each status (C{proto_bin.c}, C{write_bin_error}).
TEXTS: Final = {
    NOT_FOUND: b"Not found",
    EXISTS: b"Data exists for key.",
    TOO_LARGE: b"Too large.",
    INVALID: b"Invalid arguments",
    NOT_STORED: b"Not stored.",
    NOT_NUMERIC: b"Non-numeric server-side value for incr or decr",
    AUTH_ERROR: b"Auth failure.",
    UNKNOWN_COMMAND: b"Unknown command",
}

#: The opcode, the length of the key, of the extras and of the body, the opaque and the cas of a request, after its
#: magic.
readHeader: Final = Struct("!BHBxxxI4sQ").unpack_from

_header: Final = Struct("!BBHBBHI4sQ").pack
_withFlags: Final = Struct("!BBHBBHI4sQI").pack
_withNumber: Final = Struct("!BBHBBHI4sQQ").pack


def packet(opcode: int, opaque: bytes, value: bytes = b"", key: bytes = b"", cas: int = 0) -> bytes:
    """
    @return: a successful reply without extras.
    """
    size = len(key) + len(value)
    return _header(RESPONSE, opcode, len(key), 0, 0, SUCCESS, size, opaque, cas) + key + value


def failure(opcode: int, opaque: bytes, status: int, text: bytes | None = None) -> bytes:
    """
    @param text: the text of the error; C{None}: memcached's text for the status.

    @return: a reply that is an error.
    """
    if text is None:
        text = TEXTS[status]
    return _header(RESPONSE, opcode, 0, 0, 0, status, len(text), opaque, 0) + text


def missing(opcode: int, opaque: bytes, key: bytes) -> bytes:
    """
    @return: the reply to a retrieval that returns the key of an item, if there is none.
    """
    return _header(RESPONSE, opcode, len(key), 0, 0, NOT_FOUND, len(key), opaque, 0) + key


def found(opcode: int, opaque: bytes, flags: int, key: bytes, length: int, cas: int) -> bytes:
    """
    @param key: the key, if the reply has it, else C{b""}.
    @param length: the length of the value.

    @return: the reply to a retrieval, up to the value, which follows it.
    """
    size = 4 + len(key) + length
    return _withFlags(RESPONSE, opcode, len(key), 4, 0, SUCCESS, size, opaque, cas, flags) + key


def counted(opcode: int, opaque: bytes, number: int, cas: int) -> bytes:
    """
    @return: the reply to an increment or a decrement.
    """
    return _withNumber(RESPONSE, opcode, 0, 0, 0, SUCCESS, 8, opaque, cas, number)
