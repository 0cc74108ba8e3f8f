# -*- test-case-name: tests.redis.memory.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands of an embedded Redis for sets. Members are in the order of their bytes, so that tests are repeatable.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from txconnpool.redis.memory.data import (
    SYNTAX,
    Database,
    Members,
    ReplyError,
    command,
    integer,
    natural,
    options,
)
from txconnpool.redis.memory.hashes import choices
from txconnpool.redis.memory.keys import scanned


@command("sadd")
def _sadd(db: Database, key: bytes, *values: bytes) -> Any:
    members = db.make(key, set)
    before = len(members)
    members.update(values)
    if len(members) > before:
        db.changed(key)
    return len(members) - before


@command("srem")
def _srem(db: Database, key: bytes, *values: bytes) -> Any:
    members = db.find(key, set)
    if members is None:
        return 0
    before = len(members)
    members.difference_update(values)
    left = len(members)
    if left < before:
        db.changed(key)
    return before - left


@command("smembers")
def _smembers(db: Database, key: bytes) -> Any:
    return Members(sorted(db.find(key, set) or ()))


@command("scard")
def _scard(db: Database, key: bytes) -> Any:
    return len(db.find(key, set) or ())


@command("sismember")
def _sismember(db: Database, key: bytes, value: bytes) -> Any:
    return int(value in (db.find(key, set) or ()))


@command("smismember")
def _smismember(db: Database, key: bytes, *values: bytes) -> Any:
    members = db.find(key, set) or ()
    return [int(value in members) for value in values]


@command("smove")
def _smove(db: Database, source: bytes, target: bytes, value: bytes) -> Any:
    members = db.find(source, set)
    if members is None:
        return 0
    db.find(target, set)
    if value not in members:
        return 0
    if source != target:
        _srem(db, source, value)
        _sadd(db, target, value)
    return 1


@command("spop")
def _spop(db: Database, key: bytes, *words: bytes) -> Any:
    if len(words) > 1:
        raise ReplyError(SYNTAX)
    count = natural(words[0]) if words else 1
    chosen = choices(db, sorted(db.find(key, set) or ()), count)
    if chosen:
        _srem(db, key, *chosen)
    return Members(chosen) if words else chosen[0] if chosen else None


@command("srandmember")
def _srandmember(db: Database, key: bytes, *words: bytes) -> Any:
    if len(words) > 1:
        raise ReplyError(SYNTAX)
    chosen = choices(db, sorted(db.find(key, set) or ()), integer(words[0]) if words else 1)
    return chosen if words else chosen[0] if chosen else None


def _combined(db: Database, how: Callable[[set[bytes], set[bytes]], set[bytes]], keys: tuple[bytes, ...]) -> set[bytes]:
    return reduce(how, [set(db.find(key, set) or ()) for key in keys])


@command("sunion")
def _sunion(db: Database, *keys: bytes) -> Any:
    return Members(sorted(_combined(db, set.union, keys)))


@command("sinter")
def _sinter(db: Database, *keys: bytes) -> Any:
    return Members(sorted(_combined(db, set.intersection, keys)))


@command("sdiff")
def _sdiff(db: Database, *keys: bytes) -> Any:
    return Members(sorted(_combined(db, set.difference, keys)))


@command("sunionstore")
def _sunionstore(db: Database, target: bytes, *keys: bytes) -> Any:
    return db.store(target, _combined(db, set.union, keys))


@command("sinterstore")
def _sinterstore(db: Database, target: bytes, *keys: bytes) -> Any:
    return db.store(target, _combined(db, set.intersection, keys))


@command("sdiffstore")
def _sdiffstore(db: Database, target: bytes, *keys: bytes) -> Any:
    return db.store(target, _combined(db, set.difference, keys))


@command("sintercard")
def _sintercard(db: Database, *words: bytes) -> Any:
    count = integer(words[0], "ERR numkeys should be greater than 0")
    if count < 1:
        raise ReplyError("ERR numkeys should be greater than 0")
    if count > len(words) - 1:
        raise ReplyError("ERR Number of keys can't be greater than number of args")
    given = options(words[1 + count :], values="LIMIT")
    most = natural(given.get("LIMIT", b"0"), "ERR LIMIT can't be negative")
    size = len(_combined(db, set.intersection, words[1 : 1 + count]))
    return min(size, most) if most else size


@command("sscan")
def _sscan(db: Database, key: bytes, cursor: bytes, *words: bytes) -> Any:
    return [b"0", scanned(sorted(db.find(key, set) or ()), cursor, words)]
