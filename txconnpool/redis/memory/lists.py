# -*- test-case-name: tests.redis.memory.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands of an embedded Redis for lists, also those that wait for an element.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from txconnpool.redis.memory.data import (
    NO_ARRAY,
    NOTHING,
    OK,
    SYNTAX,
    Database,
    ReplyError,
    Wait,
    command,
    floating,
    integer,
    natural,
)
from txconnpool.redis.memory.strings import span


def _push(db: Database, key: bytes, values: tuple[bytes, ...], left: bool) -> int:
    items = db.make(key, list)
    for value in values:
        items.insert(0 if left else len(items), value)
    db.changed(key)
    return len(items)


def _pop(db: Database, key: bytes, left: bool) -> Any:
    """
    @return: the element that was removed; C{None} if there is none.
    """
    items = db.find(key, list)
    if items is None:
        return None
    value = items.pop(0 if left else -1)
    db.changed(key)
    return value


@command("lpush")
def _lpush(db: Database, key: bytes, *values: bytes) -> Any:
    return _push(db, key, values, True)


@command("rpush")
def _rpush(db: Database, key: bytes, *values: bytes) -> Any:
    return _push(db, key, values, False)


@command("lpushx")
def _lpushx(db: Database, key: bytes, *values: bytes) -> Any:
    return 0 if db.find(key, list) is None else _push(db, key, values, True)


@command("rpushx")
def _rpushx(db: Database, key: bytes, *values: bytes) -> Any:
    return 0 if db.find(key, list) is None else _push(db, key, values, False)


def _popSome(db: Database, name: str, key: bytes, words: tuple[bytes, ...], left: bool) -> Any:
    if len(words) > 1:
        raise ReplyError(f"ERR wrong number of arguments for '{name}' command")
    count = natural(words[0]) if words else None
    if count is None:
        return _pop(db, key, left)
    items = db.find(key, list)
    if items is None:
        return NO_ARRAY
    return [_pop(db, key, left) for _ in range(min(count, len(items)))]


@command("lpop")
def _lpop(db: Database, key: bytes, *words: bytes) -> Any:
    return _popSome(db, "lpop", key, words, True)


@command("rpop")
def _rpop(db: Database, key: bytes, *words: bytes) -> Any:
    return _popSome(db, "rpop", key, words, False)


@command("llen")
def _llen(db: Database, key: bytes) -> Any:
    return len(db.find(key, list) or ())


@command("lrange")
def _lrange(db: Database, key: bytes, start: bytes, end: bytes) -> Any:
    first, last = integer(start), integer(end)
    items = db.find(key, list) or []
    return items[span(len(items), first, last)]


@command("lindex")
def _lindex(db: Database, key: bytes, index: bytes) -> Any:
    items = db.find(key, list)
    if items is None:
        return None
    at = integer(index)
    return items[at] if -len(items) <= at < len(items) else None


@command("lset")
def _lset(db: Database, key: bytes, index: bytes, value: bytes) -> Any:
    items = db.find(key, list)
    if items is None:
        raise ReplyError("ERR no such key")
    at = integer(index)
    if not -len(items) <= at < len(items):
        raise ReplyError("ERR index out of range")
    items[at] = value
    db.changed(key)
    return OK


@command("lrem")
def _lrem(db: Database, key: bytes, count: bytes, value: bytes) -> Any:
    most = integer(count)
    items = db.find(key, list) or []
    places = [at for at, item in enumerate(items) if item == value]
    chosen = places[-most:][::-1] if most > 0 else places[most:][::-1]
    chosen = places[:most][::-1] if most > 0 else chosen
    for at in chosen:
        del items[at]
    if chosen:
        db.changed(key)
    return len(chosen)


@command("ltrim")
def _ltrim(db: Database, key: bytes, start: bytes, end: bytes) -> Any:
    first, last = integer(start), integer(end)
    items = db.find(key, list)
    if items is not None:
        items[:] = items[span(len(items), first, last)]
        db.changed(key)
    return OK


@command("linsert")
def _linsert(db: Database, key: bytes, where: bytes, pivot: bytes, value: bytes) -> Any:
    if where.upper() not in (b"BEFORE", b"AFTER"):
        raise ReplyError(SYNTAX)
    items = db.find(key, list)
    if items is None:
        return 0
    if pivot not in items:
        return -1
    items.insert(items.index(pivot) + (where.upper() == b"AFTER"), value)
    db.changed(key)
    return len(items)


@command("lpos")
def _lpos(db: Database, key: bytes, value: bytes, *words: bytes) -> Any:
    given = dict(zip(words[::2], words[1::2], strict=False))
    given = {name.upper(): word for name, word in given.items()}
    if len(words) % 2 or set(given) - {b"RANK", b"COUNT", b"MAXLEN"}:
        raise ReplyError(SYNTAX)
    rank = integer(given.get(b"RANK", b"1"))
    if not rank:
        raise ReplyError(
            "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to "
            "start from the end of the list"
        )
    count = natural(given[b"COUNT"], "ERR COUNT can't be negative") if b"COUNT" in given else None
    most = natural(given.get(b"MAXLEN", b"0"), "ERR MAXLEN can't be negative")
    items = db.find(key, list) or []
    places = list(range(len(items)))
    places = places[::-1] if rank < 0 else places
    found = [at for at in places[: most or len(places)] if items[at] == value][abs(rank) - 1 :]
    if count is None:
        return found[0] if found else None
    return found[: count or len(found)]


def _end(word: bytes) -> bool:
    """
    @return: whether an end of a list is its head.
    """
    if word.upper() not in (b"LEFT", b"RIGHT"):
        raise ReplyError(SYNTAX)
    return word.upper() == b"LEFT"


def _transfer(db: Database, source: bytes, target: bytes, fromHead: bool, toHead: bool) -> Any:
    if db.find(source, list) is None:
        return None
    db.find(target, list)
    value = _pop(db, source, fromHead)
    _push(db, target, (value,), toHead)
    return value


@command("lmove")
def _lmove(db: Database, source: bytes, target: bytes, fromEnd: bytes, toEnd: bytes) -> Any:
    return _transfer(db, source, target, _end(fromEnd), _end(toEnd))


@command("rpoplpush")
def _rpoplpush(db: Database, source: bytes, target: bytes) -> Any:
    return _transfer(db, source, target, False, True)


# -- Waiting


def waited(attempt: Callable[[], Any], timeout: bytes, nothing: Any) -> Any:
    """
    @param attempt: see L{Wait.attempt<txconnpool.redis.memory.data.Wait>}.
    @param nothing: the reply after the timeout.

    @return: its result, or a L{Wait}.
    """
    seconds = floating(timeout, "ERR timeout is not a float or out of range")
    if seconds < 0:
        raise ReplyError("ERR timeout is negative")
    value = attempt()
    return Wait(attempt, seconds, nothing) if value is NOTHING else value


def _popFirst(db: Database, keys: tuple[bytes, ...], left: bool) -> Any:
    for key in keys:
        value = _pop(db, key, left)
        if value is not None:
            return [key, value]
    return NOTHING


@command("blpop")
def _blpop(db: Database, *words: bytes) -> Any:
    return waited(partial(_popFirst, db, words[:-1], True), words[-1], NO_ARRAY)


@command("brpop")
def _brpop(db: Database, *words: bytes) -> Any:
    return waited(partial(_popFirst, db, words[:-1], False), words[-1], NO_ARRAY)


def _moved(db: Database, source: bytes, target: bytes, fromHead: bool, toHead: bool) -> Any:
    value = _transfer(db, source, target, fromHead, toHead)
    return NOTHING if value is None else value


@command("blmove")
def _blmove(db: Database, source: bytes, target: bytes, fromEnd: bytes, toEnd: bytes, timeout: bytes) -> Any:
    return waited(partial(_moved, db, source, target, _end(fromEnd), _end(toEnd)), timeout, None)


@command("brpoplpush")
def _brpoplpush(db: Database, source: bytes, target: bytes, timeout: bytes) -> Any:
    return waited(partial(_moved, db, source, target, False, True), timeout, None)


def popKeys(words: tuple[bytes, ...], ends: str) -> tuple[tuple[bytes, ...], bool, int]:
    """
    @param words: the arguments of a command such as C{LMPOP}, from the number of its keys on.
    @param ends: the words for the two ends of a value.

    @return: the keys, whether the first end is meant, and how many elements to remove.
    """
    count = integer(words[0], "ERR numkeys should be greater than 0")
    if count < 1:
        raise ReplyError("ERR numkeys should be greater than 0")
    keys, rest = words[1 : 1 + count], words[1 + count :]
    first, second = ends.split()
    end = rest[0].upper().decode("latin-1") if rest else ""
    if end not in (first, second) or len(rest) not in (1, 3) or (len(rest) == 3 and rest[1].upper() != b"COUNT"):
        raise ReplyError(SYNTAX)
    number = integer(rest[2], "ERR count should be greater than 0") if len(rest) == 3 else 1
    if number < 1:
        raise ReplyError("ERR count should be greater than 0")
    return keys, end == first, number


def _popMany(db: Database, keys: tuple[bytes, ...], left: bool, count: int) -> Any:
    for key in keys:
        items = db.find(key, list)
        if items is not None:
            return [key, [_pop(db, key, left) for _ in range(min(count, len(items)))]]
    return NOTHING


def multiPop(name: str, ends: str, popMany: Callable[..., Any]) -> None:
    """
    Define a command that pops from the first key that has elements, and the one that waits for them.

    @param name: its name; that of the other has a C{b} before it.
    @param ends: the words for the two ends.
    @param popMany: called with the database, the keys, whether the first end is meant, and how many to pop; returns
        C{NOTHING} if no key has elements.
    """

    @command(name)
    def _once(db: Database, *words: bytes) -> Any:
        found = popMany(db, *popKeys(words, ends))
        return NO_ARRAY if found is NOTHING else found

    @command(f"b{name}")
    def _wait(db: Database, timeout: bytes, *words: bytes) -> Any:
        return waited(partial(popMany, db, *popKeys(words, ends)), timeout, NO_ARRAY)


multiPop("lmpop", "LEFT RIGHT", _popMany)
