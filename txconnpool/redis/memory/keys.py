# -*- test-case-name: tests.redis.memory.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands of an embedded Redis for keys of any type, and for the server.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Any
from zlib import crc32

from txconnpool.redis.memory.data import (
    OK,
    SYNTAX,
    Database,
    ReplyError,
    SortedSet,
    Status,
    command,
    integer,
    options,
    pattern,
)

_TYPES: dict[type, bytes] = {bytes: b"string", list: b"list", dict: b"hash", set: b"set", SortedSet: b"zset"}


@command("del")
@command("unlink")
def _del(db: Database, *keys: bytes) -> Any:
    return sum(db.look(key) is not None and db.delete(key) for key in keys)


@command("exists")
@command("touch")
def _exists(db: Database, *keys: bytes) -> Any:
    return sum(db.look(key) is not None for key in keys)


@command("type")
def _type(db: Database, key: bytes) -> Any:
    value = db.look(key)
    return Status(b"none" if value is None else _TYPES[type(value)])


def _expire(db: Database, name: str, key: bytes, time: bytes, *words: bytes) -> int:
    unit, base = 1 if name[0] == "p" else 1000, 0 if name.endswith("at") else db.data.now()
    end = integer(time) * unit + base
    given = options(words, "NX XX GT LT")
    if "NX" in given and len(given) > 1:
        raise ReplyError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if "GT" in given and "LT" in given:
        raise ReplyError("ERR GT and LT options at the same time are not compatible")
    if db.look(key) is None:
        return 0
    before = db.ends.get(key)
    if (
        ("NX" in given and before is not None)
        or ("XX" in given and before is None)
        or ("GT" in given and (before is None or end <= before))
        or ("LT" in given and before is not None and end >= before)
    ):
        return 0
    if end <= db.data.now():
        db.delete(key)
    else:
        db.ends[key] = end
        db.changed(key)
    return 1


@command("expire")
def _expireSeconds(db: Database, key: bytes, time: bytes, *words: bytes) -> Any:
    return _expire(db, "expire", key, time, *words)


@command("pexpire")
def _pexpire(db: Database, key: bytes, time: bytes, *words: bytes) -> Any:
    return _expire(db, "pexpire", key, time, *words)


@command("expireat")
def _expireat(db: Database, key: bytes, time: bytes, *words: bytes) -> Any:
    return _expire(db, "expireat", key, time, *words)


@command("pexpireat")
def _pexpireat(db: Database, key: bytes, time: bytes, *words: bytes) -> Any:
    return _expire(db, "pexpireat", key, time, *words)


@command("persist")
def _persist(db: Database, key: bytes) -> Any:
    if db.look(key) is None or db.ends.pop(key, None) is None:
        return 0
    db.changed(key)
    return 1


@command("pttl")
def _pttl(db: Database, key: bytes) -> Any:
    if db.look(key) is None:
        return -2
    end = db.ends.get(key)
    return -1 if end is None else end - db.data.now()


@command("ttl")
def _ttl(db: Database, key: bytes) -> Any:
    left = _pttl(db, key)
    return left if left < 0 else (left + 500) // 1000


@command("pexpiretime")
def _pexpiretime(db: Database, key: bytes) -> Any:
    return -2 if db.look(key) is None else db.ends.get(key, -1)


@command("expiretime")
def _expiretime(db: Database, key: bytes) -> Any:
    end = _pexpiretime(db, key)
    return end if end < 0 else (end + 500) // 1000


def _move(db: Database, source: bytes, target: bytes, value: Any) -> None:
    end = db.ends.get(source)
    db.delete(source)
    db.put(target, value)
    if end is not None:
        db.ends[target] = end


@command("rename")
def _rename(db: Database, source: bytes, target: bytes) -> Any:
    value = db.look(source)
    if value is None:
        raise ReplyError("ERR no such key")
    _move(db, source, target, value)
    return OK


@command("renamenx")
def _renamenx(db: Database, source: bytes, target: bytes) -> Any:
    value = db.look(source)
    if value is None:
        raise ReplyError("ERR no such key")
    if db.look(target) is not None:
        return 0
    _move(db, source, target, value)
    return 1


@command("copy")
def _copy(db: Database, source: bytes, target: bytes, *words: bytes) -> Any:
    given = options(words, "REPLACE")
    if source == target:
        raise ReplyError("ERR source and destination objects are the same")
    value = db.look(source)
    if value is None or (db.look(target) is not None and "REPLACE" not in given):
        return 0
    end = db.ends.get(source)
    db.put(target, copy(value))
    if end is not None:
        db.ends[target] = end
    return 1


@command("keys")
def _keys(db: Database, glob: bytes) -> Any:
    matches = pattern(glob).fullmatch
    return [key for key in db.live() if matches(key)]


def _place(key: bytes) -> int:
    """
    @return: the place of a key in a scan. It does not depend on other keys, so that none is missed when some are
        deleted meanwhile.
    """
    return crc32(key) + 1


@command("scan")
def _scan(db: Database, cursor: bytes, *words: bytes) -> Any:
    start = integer(cursor, "ERR invalid cursor")
    given = options(words, values="MATCH COUNT TYPE")
    count = integer(given.get("COUNT", b"10"))
    if count < 1:
        raise ReplyError(SYNTAX)
    keys = sorted((_place(key), key) for key in db.live() if _place(key) >= start)
    rest = keys[count:]
    while rest and rest[0][0] == keys[count - 1][0]:  # a place that several keys share
        count += 1
        del rest[0]
    matches = pattern(given.get("MATCH", b"*")).fullmatch
    kind = given.get("TYPE", b"").lower()
    found = [key for _, key in keys[:count] if matches(key) and kind in (b"", _type(db, key))]
    return [b"%d" % (rest[0][0] if rest else 0), found]


def scanned(names: Iterable[Any], cursor: bytes, words: tuple[bytes, ...]) -> list[Any]:
    """
    @return: the names of the elements of a value that match the options of a scan. They are found at once, as in small
        values of a real server.
    """
    integer(cursor, "ERR invalid cursor")
    given = options(words, values="MATCH COUNT")
    if integer(given.get("COUNT", b"10")) < 1:
        raise ReplyError(SYNTAX)
    matches = pattern(given.get("MATCH", b"*")).fullmatch
    return [each for each in names if matches(each)]


def scannedPairs(items: dict[bytes, Any] | None, cursor: bytes, words: tuple[bytes, ...]) -> Any:
    """
    @return: the reply to a scan of names with values.
    """
    found = scanned(items or (), cursor, words)
    return [b"0", [each for name in found for each in (name, (items or {})[name])]]


@command("randomkey")
def _randomkey(db: Database) -> Any:
    keys = db.live()
    return db.data.random.choice(keys) if keys else None


@command("dbsize")
def _dbsize(db: Database) -> Any:
    return len(db.live())


@command("flushdb")
def _flushdb(db: Database, *words: bytes) -> Any:
    if len(words) > 1 or (words and words[0].upper() not in (b"SYNC", b"ASYNC")):
        raise ReplyError(SYNTAX)
    for key in list(db.items):
        db.delete(key)
    return OK


@command("flushall")
def _flushall(db: Database, *words: bytes) -> Any:
    for each in list(db.data.databases.values()):
        _flushdb(each, *words)
    return OK


@command("echo")
def _echo(db: Database, text: bytes) -> Any:
    return text


@command("time")
def _time(db: Database) -> Any:
    seconds, parts = divmod(round(db.data.seconds() * 1000000), 1000000)
    return [b"%d" % seconds, b"%d" % parts]


@command("info")
def _info(db: Database, *sections: bytes) -> Any:
    lines = [f"db{number}:keys={len(each.live())},expires={len(each.ends)},avg_ttl=0"
             for number, each in sorted(db.data.databases.items()) if each.live()]  # fmt: skip
    head = ["# Server", "redis_version:7.0.15", "redis_mode:standalone", "", "# Replication", "role:master", ""]
    return "\r\n".join([*head, "# Keyspace", *lines, ""]).encode()


@command("publish")
def _publish(db: Database, channel: bytes, message: bytes) -> Any:
    return sum(each.publish(channel, message) for each in list(db.data.connections))
