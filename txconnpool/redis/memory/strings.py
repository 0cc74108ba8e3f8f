# -*- test-case-name: tests.redis.memory.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands of an embedded Redis for strings.
"""

from __future__ import annotations

from decimal import Decimal
from math import isinf
from typing import Any, Final

from txconnpool.redis.memory.data import (
    OK,
    SYNTAX,
    Database,
    ReplyError,
    command,
    floating,
    integer,
    options,
)

_EXPIRY: Final = "EX PX EXAT PXAT"
_INT64: Final = range(-(1 << 63), 1 << 63)


def when(db: Database, name: str, unit: str, word: bytes) -> int:
    """
    @param name: the command, for the error.
    @param unit: C{EX}, C{PX}, C{EXAT} or C{PXAT}.

    @return: when a key expires, in milliseconds.
    """
    number = integer(word)
    end = number * (1000 if unit[0] == "E" else 1) + (0 if unit.endswith("AT") else db.data.now())
    if number <= 0 or end not in _INT64:
        raise ReplyError(f"ERR invalid expire time in '{name}' command")
    return end


def _expiry(db: Database, name: str, given: dict[str, Any], *others: str) -> int | None:
    """
    @param others: options that exclude an expiry time.
    """
    units = [each for each in _EXPIRY.split() if each in given]
    if len(units) + sum(each in given for each in others) > 1:
        raise ReplyError(SYNTAX)
    return when(db, name, units[0], given[units[0]]) if units else None


@command("get")
def _get(db: Database, key: bytes) -> Any:
    return db.find(key, bytes)


@command("set")
def _set(db: Database, key: bytes, value: bytes, *words: bytes) -> Any:
    given = options(words, "NX XX GET KEEPTTL", _EXPIRY)
    if "NX" in given and "XX" in given:
        raise ReplyError(SYNTAX)
    end = _expiry(db, "set", given, "KEEPTTL")
    before = db.find(key, bytes) if "GET" in given else db.look(key)
    if (before is None) if "XX" in given else (before is not None and "NX" in given):
        return before if "GET" in given else None
    db.put(key, value, "KEEPTTL" in given)
    if end is not None:
        db.ends[key] = end
    return before if "GET" in given else OK


@command("setnx")
def _setnx(db: Database, key: bytes, value: bytes) -> Any:
    return int(_set(db, key, value, b"NX") is OK)


@command("setex")
def _setex(db: Database, key: bytes, time: bytes, value: bytes) -> Any:
    end = when(db, "setex", "EX", time)
    db.put(key, value)
    db.ends[key] = end
    return OK


@command("psetex")
def _psetex(db: Database, key: bytes, time: bytes, value: bytes) -> Any:
    end = when(db, "psetex", "PX", time)
    db.put(key, value)
    db.ends[key] = end
    return OK


@command("getset")
def _getset(db: Database, key: bytes, value: bytes) -> Any:
    before = db.find(key, bytes)
    db.put(key, value)
    return before


@command("getdel")
def _getdel(db: Database, key: bytes) -> Any:
    before = db.find(key, bytes)
    db.delete(key)
    return before


@command("getex")
def _getex(db: Database, key: bytes, *words: bytes) -> Any:
    given = options(words, "PERSIST", _EXPIRY)
    value = db.find(key, bytes)
    end = _expiry(db, "getex", given, "PERSIST")
    if value is not None and "PERSIST" in given and db.ends.pop(key, None) is not None:
        db.changed(key)
    elif value is not None and end is not None:
        db.ends[key] = end
        db.changed(key)
    return value


@command("mget")
def _mget(db: Database, *keys: bytes) -> Any:
    values = [db.look(key) for key in keys]
    return [value if type(value) is bytes else None for value in values]


@command("mset")
def _mset(db: Database, *words: bytes) -> Any:
    if len(words) % 2:
        raise ReplyError("ERR wrong number of arguments for 'mset' command")
    for key, value in zip(words[::2], words[1::2], strict=True):
        db.put(key, value)
    return OK


@command("msetnx")
def _msetnx(db: Database, *words: bytes) -> Any:
    if len(words) % 2:
        raise ReplyError("ERR wrong number of arguments for 'msetnx' command")
    if any(db.look(key) is not None for key in words[::2]):
        return 0
    _mset(db, *words)
    return 1


@command("append")
def _append(db: Database, key: bytes, value: bytes) -> Any:
    whole = (db.find(key, bytes) or b"") + value
    db.put(key, whole, True)
    return len(whole)


@command("strlen")
def _strlen(db: Database, key: bytes) -> Any:
    return len(db.find(key, bytes) or b"")


def span(size: int, start: int, end: int) -> slice:
    """
    @param start: the first position; a negative one counts from the end.
    @param end: the last position, likewise.

    @return: the elements from the first to the last position of a sequence of C{size} elements.
    """
    first = max(0, start + size) if start < 0 else start
    return slice(first, max(first, (end + size if end < 0 else end) + 1))


@command("getrange")
def _getrange(db: Database, key: bytes, start: bytes, end: bytes) -> Any:
    first, last = integer(start), integer(end)
    value = db.find(key, bytes) or b""
    if 0 > first > last:
        return b""
    size = len(value)
    return value[span(size, first, max(last, -size) if last < 0 else last)]


@command("setrange")
def _setrange(db: Database, key: bytes, offset: bytes, part: bytes) -> Any:
    at = integer(offset)
    if at < 0:
        raise ReplyError("ERR offset is out of range")
    value = db.find(key, bytes) or b""
    if not part:
        return len(value)
    if at + len(part) > 1 << 29:
        raise ReplyError("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
    value = value.ljust(at, b"\0")
    db.put(key, value[:at] + part + value[at + len(part) :], True)
    return len(db.items[key])


def _add(db: Database, key: bytes, amount: int) -> int:
    value = db.find(key, bytes)
    total = (0 if value is None else integer(value)) + amount
    if total not in _INT64:
        raise ReplyError("ERR increment or decrement would overflow")
    db.put(key, b"%d" % total, True)
    return total


@command("incr")
def _incr(db: Database, key: bytes) -> Any:
    return _add(db, key, 1)


@command("decr")
def _decr(db: Database, key: bytes) -> Any:
    return _add(db, key, -1)


@command("incrby")
def _incrby(db: Database, key: bytes, amount: bytes) -> Any:
    return _add(db, key, integer(amount))


@command("decrby")
def _decrby(db: Database, key: bytes, amount: bytes) -> Any:
    number = integer(amount)
    if number == _INT64.start:
        raise ReplyError("ERR decrement would overflow")
    return _add(db, key, -number)


def sumOf(value: bytes, amount: bytes, error: str) -> bytes:
    """
    Add numbers that may have fractions.

    @param error: if C{value} is no number.

    @return: the decimal text of the sum.
    """
    before = floating(value, error)
    if isinf(floating(amount)) or isinf(before):
        raise ReplyError("ERR increment would produce NaN or Infinity")
    total = Decimal(value.decode()) + Decimal(amount.decode())
    text = f"{total:.17f}".rstrip("0").rstrip(".")
    return b"0" if text == "-0" else text.encode()


@command("incrbyfloat")
def _incrbyfloat(db: Database, key: bytes, amount: bytes) -> Any:
    value = db.find(key, bytes)
    total = sumOf(b"0" if value is None else value, amount, "ERR value is not a valid float")
    db.put(key, total, True)
    return total


def _bitPosition(offset: bytes) -> int:
    at = integer(offset, "ERR bit offset is not an integer or out of range")
    if not 0 <= at < 1 << 32:
        raise ReplyError("ERR bit offset is not an integer or out of range")
    return at


@command("getbit")
def _getbit(db: Database, key: bytes, offset: bytes) -> Any:
    at, value = _bitPosition(offset), db.find(key, bytes) or b""
    return value[at >> 3] >> (7 - at % 8) & 1 if at >> 3 < len(value) else 0


@command("setbit")
def _setbit(db: Database, key: bytes, offset: bytes, bit: bytes) -> Any:
    at = _bitPosition(offset)
    if bit not in (b"0", b"1"):
        raise ReplyError("ERR bit is not an integer or out of range")
    before = _getbit(db, key, offset)
    value = bytearray((db.find(key, bytes) or b"").ljust((at >> 3) + 1, b"\0"))
    mask = 128 >> at % 8
    value[at >> 3] = value[at >> 3] | mask if bit == b"1" else value[at >> 3] & ~mask
    db.put(key, bytes(value), True)
    return before


@command("bitcount")
def _bitcount(db: Database, key: bytes, *words: bytes) -> Any:
    if len(words) not in (0, 2, 3):
        raise ReplyError(SYNTAX)
    value = db.find(key, bytes)
    if value is None:
        return 0
    text = "".join(f"{byte:08b}" for byte in value)
    if words:
        first, last = integer(words[0]), integer(words[1])
        unit = words[2].upper() if len(words) == 3 else b"BYTE"
        if unit not in (b"BIT", b"BYTE"):
            raise ReplyError(SYNTAX)
        width = 8 if unit == b"BYTE" else 1
        size = len(text) // width
        if 0 > first > last:
            return 0
        part = span(size, first, max(last, -size) if last < 0 else last)
        text = text[part.start * width : part.stop * width]
    return text.count("1")
