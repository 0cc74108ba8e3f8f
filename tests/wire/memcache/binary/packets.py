# Copyright txconnpool contributors. See LICENSE.
"""
Packets of memcached's binary protocol for tests, made and read independently of L{txconnpool.wire.memcache.binary}.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

OPAQUE = b"\x00\xffab"


def header(
    magic: int, opcode: int, key: int, extras: int, status: int, body: int, opaque: bytes = OPAQUE, cas: int = 0
) -> bytes:
    """
    @return: 24 bytes.
    """
    return struct.pack("!BBHBBHI4sQ", magic, opcode, key, extras, 0, status, body, opaque, cas)


def request(
    opcode: int, key: bytes = b"", extras: bytes = b"", value: bytes = b"", opaque: bytes = OPAQUE, cas: int = 0
) -> bytes:
    """
    @return: a request.
    """
    body = extras + key + value
    return header(0x80, opcode, len(key), len(extras), 0, len(body), opaque, cas) + body


def reply(
    opcode: int, status: int = 0, value: bytes = b"", key: bytes = b"", extras: bytes = b"", opaque: bytes = OPAQUE,
    cas: int = 0,
) -> bytes:  # fmt: skip
    """
    @return: a reply.
    """
    body = extras + key + value
    return header(0x81, opcode, len(key), len(extras), status, len(body), opaque, cas) + body


def stored(flags: int = 0, expiry: int = 0) -> bytes:
    """
    @return: the extras of a set.
    """
    return struct.pack("!II", flags, expiry)


def number(value: int) -> bytes:
    """
    @return: extras with one number of four bytes: flags, or an expiry time.
    """
    return struct.pack("!I", value)


def counter(delta: int, initial: int = 0, expiry: int = 0xFFFFFFFF) -> bytes:
    """
    @return: the extras of an increment. By default it does not create an item.
    """
    return struct.pack("!QQI", delta, initial, expiry)


def long(value: int) -> bytes:
    """
    @return: the value of a reply to an increment.
    """
    return struct.pack("!Q", value)


class Packet(NamedTuple):
    """
    A packet of either side.
    """

    magic: int
    opcode: int
    status: int
    extras: bytes
    key: bytes
    value: bytes
    opaque: bytes
    cas: int


def split(data: bytes) -> tuple[list[Packet], bytes]:
    """
    @return: the packets in C{data}, and the bytes after them.
    """
    found = []
    while len(data) >= 24:
        magic, opcode, key, extras, _, status, body, opaque, cas = struct.unpack_from("!BBHBBHI4sQ", data)
        if len(data) < 24 + body:
            break
        rest = data[24 : 24 + body]
        found.append(
            Packet(magic, opcode, status, rest[:extras], rest[extras : extras + key], rest[extras + key :], opaque, cas)
        )
        data = data[24 + body :]
    return found, data


def normal(data: bytes) -> list[Packet | bytes]:
    """
    @return: the packets in C{data}, and the bytes after them. Each cas that is not 0 is 1.
    """
    found, rest = split(data)
    return [*(each._replace(cas=min(each.cas, 1)) for each in found), rest]
