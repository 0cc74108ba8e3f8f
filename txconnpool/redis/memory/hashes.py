# -*- test-case-name: tests.redis.memory.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands of an embedded Redis for hashes.
"""

from __future__ import annotations

from math import isinf
from typing import Any, Final

from txconnpool.redis.memory.data import OK, SYNTAX, Database, Pairs, ReplyError, command, floating, integer
from txconnpool.redis.memory.keys import scannedPairs
from txconnpool.redis.memory.strings import sumOf

_INT64: Final = range(-(1 << 63), 1 << 63)


def _set(db: Database, name: str, key: bytes, words: tuple[bytes, ...]) -> int:
    if len(words) % 2:
        raise ReplyError(f"ERR wrong number of arguments for '{name}' command")
    fields = db.make(key, dict)
    before = len(fields)
    fields.update(zip(words[::2], words[1::2], strict=True))
    db.changed(key)
    return len(fields) - before


@command("hset")
def _hset(db: Database, key: bytes, *words: bytes) -> Any:
    return _set(db, "hset", key, words)


@command("hmset")
def _hmset(db: Database, key: bytes, *words: bytes) -> Any:
    _set(db, "hmset", key, words)
    return OK


@command("hsetnx")
def _hsetnx(db: Database, key: bytes, field: bytes, value: bytes) -> Any:
    return 0 if field in (db.find(key, dict) or ()) else _hset(db, key, field, value)


@command("hget")
def _hget(db: Database, key: bytes, field: bytes) -> Any:
    return (db.find(key, dict) or {}).get(field)


@command("hmget")
def _hmget(db: Database, key: bytes, *fields: bytes) -> Any:
    found = db.find(key, dict) or {}
    return [found.get(field) for field in fields]


@command("hgetall")
def _hgetall(db: Database, key: bytes) -> Any:
    return db.find(key, dict) or {}


@command("hdel")
def _hdel(db: Database, key: bytes, *fields: bytes) -> Any:
    found = db.find(key, dict)
    if found is None:
        return 0
    count = sum(found.pop(field, None) is not None for field in fields)
    if count:
        db.changed(key)
    return count


@command("hexists")
def _hexists(db: Database, key: bytes, field: bytes) -> Any:
    return int(field in (db.find(key, dict) or ()))


@command("hlen")
def _hlen(db: Database, key: bytes) -> Any:
    return len(db.find(key, dict) or ())


@command("hkeys")
def _hkeys(db: Database, key: bytes) -> Any:
    return list(db.find(key, dict) or ())


@command("hvals")
def _hvals(db: Database, key: bytes) -> Any:
    return list((db.find(key, dict) or {}).values())


@command("hstrlen")
def _hstrlen(db: Database, key: bytes, field: bytes) -> Any:
    return len((db.find(key, dict) or {}).get(field, b""))


@command("hincrby")
def _hincrby(db: Database, key: bytes, field: bytes, amount: bytes) -> Any:
    number = integer(amount)
    before = (db.find(key, dict) or {}).get(field, b"0")
    total = integer(before, "ERR hash value is not an integer") + number
    if total not in _INT64:
        raise ReplyError("ERR increment or decrement would overflow")
    _hset(db, key, field, b"%d" % total)
    return total


@command("hincrbyfloat")
def _hincrbyfloat(db: Database, key: bytes, field: bytes, amount: bytes) -> Any:
    if isinf(floating(amount)):
        raise ReplyError("ERR value is NaN or Infinity")
    before = (db.find(key, dict) or {}).get(field, b"0")
    total = sumOf(before, amount, "ERR hash value is not a float")
    _hset(db, key, field, total)
    return total


@command("hrandfield")
def _hrandfield(db: Database, key: bytes, *words: bytes) -> Any:
    fields = db.find(key, dict) or {}
    if not words:
        return db.data.random.choice(list(fields)) if fields else None
    if len(words) > 2 or (words[1:] and words[1].upper() != b"WITHVALUES"):
        raise ReplyError(SYNTAX)
    chosen = choices(db, list(fields), integer(words[0]))
    return Pairs([field, fields[field]] for field in chosen) if words[1:] else chosen


def choices(db: Database, names: list[bytes], count: int) -> list[bytes]:
    """
    @param count: how many different names are wanted; negative: how many that may be the same.

    @return: random names.
    """
    if not names:
        return []
    if count < 0:
        return db.data.random.choices(names, k=-count)
    return db.data.random.sample(names, min(count, len(names)))


@command("hscan")
def _hscan(db: Database, key: bytes, cursor: bytes, *words: bytes) -> Any:
    return scannedPairs(db.find(key, dict), cursor, words)
