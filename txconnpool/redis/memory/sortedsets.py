# -*- test-case-name: tests.redis.memory.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands of an embedded Redis for sorted sets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from math import isnan
from typing import Any

from txconnpool.redis.memory.data import (
    NO_ARRAY,
    NOTHING,
    SYNTAX,
    Database,
    Pairs,
    ReplyError,
    SortedSet,
    command,
    decimal,
    floating,
    integer,
    natural,
)
from txconnpool.redis.memory.hashes import choices
from txconnpool.redis.memory.keys import scanned
from txconnpool.redis.memory.lists import multiPop, waited
from txconnpool.redis.memory.strings import span

#: A range of scores or members: whether a pair of score and member is in it.
Within = Callable[[tuple[float, bytes]], bool]


def _find(db: Database, key: bytes) -> SortedSet:
    found: SortedSet | None = db.find(key, SortedSet)
    return SortedSet() if found is None else found


@command("zadd")
def _zadd(db: Database, key: bytes, *words: bytes) -> Any:
    at = 0
    given = set()
    while at < len(words) and words[at].upper() in (b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"):
        given.add(words[at].upper())
        at += 1
    rest = words[at:]
    if not rest or len(rest) % 2:
        raise ReplyError(SYNTAX)
    if {b"NX", b"XX"} <= given:
        raise ReplyError("ERR XX and NX options at the same time are not compatible")
    if len(given & {b"NX", b"GT", b"LT"}) > 1:
        raise ReplyError("ERR GT, LT, and/or NX options at the same time are not compatible")
    if b"INCR" in given and len(rest) > 2:
        raise ReplyError("ERR INCR option supports a single increment-element pair")
    scores = [floating(word) for word in rest[::2]]
    return _put(db, key, given, list(zip(scores, rest[1::2], strict=True)))


def _put(db: Database, key: bytes, given: set[bytes], pairs: list[tuple[float, bytes]]) -> Any:
    scores = _find(db, key)
    added = changed = 0
    result: float | None = None
    for amount, member in pairs:
        before = scores.get(member)
        score = amount + (before or 0) if b"INCR" in given else amount
        if isnan(score):
            raise ReplyError("ERR resulting score is not a number (NaN)")
        if before is None:
            if b"XX" in given:
                continue
            added += 1
        elif b"NX" in given or (b"GT" in given and score <= before) or (b"LT" in given and score >= before):
            continue
        else:
            changed += score != before
        scores[member] = result = score
    if added or changed:
        db.items[key] = scores
        db.changed(key)
    if b"INCR" in given:
        return result
    return added + changed if b"CH" in given else added


@command("zincrby")
def _zincrby(db: Database, key: bytes, amount: bytes, member: bytes) -> Any:
    return _put(db, key, {b"INCR"}, [(floating(amount), member)])


@command("zrem")
def _zrem(db: Database, key: bytes, *members: bytes) -> Any:
    return _remove(db, key, [(0.0, member) for member in members])


def _remove(db: Database, key: bytes, pairs: list[tuple[float, bytes]]) -> int:
    scores = _find(db, key)
    count = sum(scores.pop(member, None) is not None for _, member in pairs)
    if count:
        db.changed(key)
    return count


@command("zscore")
def _zscore(db: Database, key: bytes, member: bytes) -> Any:
    return _find(db, key).get(member)


@command("zmscore")
def _zmscore(db: Database, key: bytes, *members: bytes) -> Any:
    scores = _find(db, key)
    return [scores.get(member) for member in members]


@command("zcard")
def _zcard(db: Database, key: bytes) -> Any:
    return len(_find(db, key))


def _rank(db: Database, key: bytes, member: bytes, backwards: bool) -> Any:
    scores = _find(db, key)
    if member not in scores:
        return None
    place = scores.ordered().index((scores[member], member))
    return len(scores) - 1 - place if backwards else place


@command("zrank")
def _zrank(db: Database, key: bytes, member: bytes) -> Any:
    return _rank(db, key, member, False)


@command("zrevrank")
def _zrevrank(db: Database, key: bytes, member: bytes) -> Any:
    return _rank(db, key, member, True)


# -- Ranges


def _byScore(low: bytes, high: bytes) -> Within:
    error = "ERR min or max is not a float"
    least, most = floating(low.removeprefix(b"("), error), floating(high.removeprefix(b"("), error)
    openLow, openHigh = low[:1] == b"(", high[:1] == b"("

    def within(pair: tuple[float, bytes]) -> bool:
        score = pair[0]
        return (least < score or (score == least and not openLow)) and (
            score < most or (score == most and not openHigh)
        )

    return within


def _byMember(low: bytes, high: bytes) -> Within:
    if any(each not in (b"-", b"+") and each[:1] not in (b"(", b"[") for each in (low, high)):
        raise ReplyError("ERR min or max not valid string range item")

    def within(pair: tuple[float, bytes]) -> bool:
        member = pair[1]
        above = low == b"-" or (low != b"+" and (member > low[1:] or (member == low[1:] and low[:1] == b"[")))
        below = high == b"+" or (high != b"-" and (member < high[1:] or (member == high[1:] and high[:1] == b"[")))
        return above and below

    return within


def _inRange(db: Database, key: bytes, within: Within) -> list[tuple[float, bytes]]:
    return [pair for pair in _find(db, key).ordered() if within(pair)]


def _shown(pairs: list[tuple[float, bytes]], withScores: bool) -> Any:
    return Pairs([member, score] for score, member in pairs) if withScores else [member for _, member in pairs]


def _range(db: Database, key: bytes, start: bytes, end: bytes, words: tuple[bytes, ...], fixed: str = "") -> Any:
    """
    @param fixed: the options that the name of the command stands for.
    """
    given: dict[str, Any] = dict.fromkeys(fixed.split(), True)
    allowed = ("WITHSCORES", "LIMIT") if fixed else ("WITHSCORES", "LIMIT", "BYSCORE", "BYLEX", "REV")
    rest = list(words)
    while rest:
        name = rest.pop(0).upper().decode("latin-1")
        if name not in allowed or (name == "LIMIT" and len(rest) < 2):
            raise ReplyError(SYNTAX)
        given[name] = (integer(rest.pop(0)), integer(rest.pop(0))) if name == "LIMIT" else True
    byIndex = "BYSCORE" not in given and "BYLEX" not in given
    if "LIMIT" in given and byIndex:
        raise ReplyError("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX")
    if "WITHSCORES" in given and "BYLEX" in given:
        raise ReplyError("ERR syntax error, WITHSCORES not supported in combination with BYLEX")
    backwards = "REV" in given
    if byIndex:
        first, last = integer(start), integer(end)
        pairs = _find(db, key).ordered()[:: -1 if backwards else 1]
        return _shown(pairs[span(len(pairs), first, last)], "WITHSCORES" in given)
    low, high = (end, start) if backwards else (start, end)
    within = _byScore(low, high) if "BYSCORE" in given else _byMember(low, high)
    pairs = _inRange(db, key, within)[:: -1 if backwards else 1]
    offset, count = given.get("LIMIT", (0, -1))
    pairs = [] if offset < 0 else pairs[offset:]
    return _shown(pairs if count < 0 else pairs[:count], "WITHSCORES" in given)


@command("zrange")
def _zrange(db: Database, key: bytes, start: bytes, end: bytes, *words: bytes) -> Any:
    return _range(db, key, start, end, words)


@command("zrevrange")
def _zrevrange(db: Database, key: bytes, start: bytes, end: bytes, *words: bytes) -> Any:
    return _range(db, key, start, end, words, "REV")


@command("zrangebyscore")
def _zrangebyscore(db: Database, key: bytes, low: bytes, high: bytes, *words: bytes) -> Any:
    return _range(db, key, low, high, words, "BYSCORE")


@command("zrevrangebyscore")
def _zrevrangebyscore(db: Database, key: bytes, high: bytes, low: bytes, *words: bytes) -> Any:
    return _range(db, key, high, low, words, "BYSCORE REV")


@command("zrangebylex")
def _zrangebylex(db: Database, key: bytes, low: bytes, high: bytes, *words: bytes) -> Any:
    return _range(db, key, low, high, words, "BYLEX")


@command("zrevrangebylex")
def _zrevrangebylex(db: Database, key: bytes, high: bytes, low: bytes, *words: bytes) -> Any:
    return _range(db, key, high, low, words, "BYLEX REV")


@command("zcount")
def _zcount(db: Database, key: bytes, low: bytes, high: bytes) -> Any:
    return len(_inRange(db, key, _byScore(low, high)))


@command("zlexcount")
def _zlexcount(db: Database, key: bytes, low: bytes, high: bytes) -> Any:
    return len(_inRange(db, key, _byMember(low, high)))


@command("zremrangebyrank")
def _zremrangebyrank(db: Database, key: bytes, start: bytes, end: bytes) -> Any:
    first, last = integer(start), integer(end)
    pairs = _find(db, key).ordered()
    return _remove(db, key, pairs[span(len(pairs), first, last)])


@command("zremrangebyscore")
def _zremrangebyscore(db: Database, key: bytes, low: bytes, high: bytes) -> Any:
    return _remove(db, key, _inRange(db, key, _byScore(low, high)))


@command("zremrangebylex")
def _zremrangebylex(db: Database, key: bytes, low: bytes, high: bytes) -> Any:
    return _remove(db, key, _inRange(db, key, _byMember(low, high)))


# -- Removing and waiting


def _pop(db: Database, key: bytes, least: bool, count: int) -> list[tuple[float, bytes]]:
    pairs = _find(db, key).ordered()[:: 1 if least else -1][:count]
    _remove(db, key, pairs)
    return pairs


def _popSome(db: Database, key: bytes, words: tuple[bytes, ...], least: bool) -> Any:
    if len(words) > 1:
        raise ReplyError(SYNTAX)
    pairs = _pop(db, key, least, natural(words[0]) if words else 1)
    return _shown(pairs, True) if words else [each for score, member in pairs for each in (member, score)]


@command("zpopmin")
def _zpopmin(db: Database, key: bytes, *words: bytes) -> Any:
    return _popSome(db, key, words, True)


@command("zpopmax")
def _zpopmax(db: Database, key: bytes, *words: bytes) -> Any:
    return _popSome(db, key, words, False)


def _popFirst(db: Database, keys: tuple[bytes, ...], least: bool) -> Any:
    for key in keys:
        for score, member in _pop(db, key, least, 1):
            return [key, member, score]
    return NOTHING


@command("bzpopmin")
def _bzpopmin(db: Database, *words: bytes) -> Any:
    return waited(partial(_popFirst, db, words[:-1], True), words[-1], NO_ARRAY)


@command("bzpopmax")
def _bzpopmax(db: Database, *words: bytes) -> Any:
    return waited(partial(_popFirst, db, words[:-1], False), words[-1], NO_ARRAY)


def _popMany(db: Database, keys: tuple[bytes, ...], least: bool, count: int) -> Any:
    for key in keys:
        pairs = _pop(db, key, least, count)
        if pairs:
            return [key, [[member, score] for score, member in pairs]]
    return NOTHING


multiPop("zmpop", "MIN MAX", _popMany)


@command("zrandmember")
def _zrandmember(db: Database, key: bytes, *words: bytes) -> Any:
    scores = _find(db, key)
    members = [member for _, member in scores.ordered()]
    if not words:
        return db.data.random.choice(members) if members else None
    if len(words) > 2 or (words[1:] and words[1].upper() != b"WITHSCORES"):
        raise ReplyError(SYNTAX)
    chosen = choices(db, members, integer(words[0]))
    return Pairs([member, scores[member]] for member in chosen) if words[1:] else chosen


@command("zscan")
def _zscan(db: Database, key: bytes, cursor: bytes, *words: bytes) -> Any:
    scores = _find(db, key)
    found = scanned([member for _, member in scores.ordered()], cursor, words)
    return [b"0", [each for member in found for each in (member, decimal(scores[member]))]]


# -- Combining


def _numbered(db: Database, name: str, words: tuple[bytes, ...]) -> tuple[list[dict[bytes, float]], list[bytes]]:
    """
    @param name: the command, for the error.
    @param words: the number of keys, the keys, and what follows.

    @return: the scores of the members of each key, which may be a set, and what follows.
    """
    count = integer(words[0])
    if count < 1:
        raise ReplyError(f"ERR at least 1 input key is needed for '{name}' command")
    if count > len(words) - 1:
        raise ReplyError(SYNTAX)
    found = []
    for key in words[1 : 1 + count]:
        value = db.look(key)
        found.append(dict.fromkeys(value, 1.0) if type(value) is set else dict(_find(db, key)))
    return found, list(words[1 + count :])


def _difference(scores: list[dict[bytes, float]]) -> SortedSet:
    first, *others = scores
    return SortedSet({member: score for member, score in first.items() if not any(member in each for each in others)})


def _number(score: float) -> float:
    """
    @return: a score; 0 if it is no number, as in C{zunionInterAggregate}.
    """
    return 0.0 if isnan(score) else score


def _sum(first: float, second: float) -> float:
    return _number(first + second)


def _combined(scores: list[dict[bytes, float]], rest: list[bytes], union: bool) -> tuple[SortedSet, bool]:
    """
    @return: the union or intersection, and whether C{WITHSCORES} is among the options.
    """
    weights, how, withScores = [1.0] * len(scores), b"SUM", False
    while rest:
        name = rest.pop(0).upper()
        if name == b"WEIGHTS" and len(rest) >= len(scores):
            weights = [floating(rest.pop(0), "ERR weight value is not a float") for _ in scores]
        elif name == b"AGGREGATE" and rest and rest[0].upper() in (b"SUM", b"MIN", b"MAX"):
            how = rest.pop(0).upper()
        elif name == b"WITHSCORES":
            withScores = True
        else:
            raise ReplyError(SYNTAX)
    join: Any = {b"SUM": _sum, b"MIN": min, b"MAX": max}[how]
    found: dict[bytes, list[float]] = {}
    for each, weight in zip(scores, weights, strict=True):
        for member, score in each.items():
            found.setdefault(member, []).append(_number(score * weight))
    most = len(scores)
    return SortedSet({m: reduce(join, each) for m, each in found.items() if union or len(each) == most}), withScores


@command("zunion")
def _zunion(db: Database, *words: bytes) -> Any:
    scores, withScores = _combined(*_numbered(db, "zunion", words), True)
    return _shown(scores.ordered(), withScores)


@command("zinter")
def _zinter(db: Database, *words: bytes) -> Any:
    scores, withScores = _combined(*_numbered(db, "zinter", words), False)
    return _shown(scores.ordered(), withScores)


@command("zdiff")
def _zdiff(db: Database, *words: bytes) -> Any:
    scores, rest = _numbered(db, "zdiff", words)
    if rest and [each.upper() for each in rest] != [b"WITHSCORES"]:
        raise ReplyError(SYNTAX)
    return _shown(_difference(scores).ordered(), bool(rest))


@command("zunionstore")
def _zunionstore(db: Database, target: bytes, *words: bytes) -> Any:
    return db.store(target, _combined(*_numbered(db, "zunionstore", words), True)[0])


@command("zinterstore")
def _zinterstore(db: Database, target: bytes, *words: bytes) -> Any:
    return db.store(target, _combined(*_numbered(db, "zinterstore", words), False)[0])


@command("zdiffstore")
def _zdiffstore(db: Database, target: bytes, *words: bytes) -> Any:
    return db.store(target, _difference(_numbered(db, "zdiffstore", words)[0]))


@command("zrangestore")
def _zrangestore(db: Database, target: bytes, source: bytes, start: bytes, end: bytes, *words: bytes) -> Any:
    members = _range(db, source, start, end, words)
    scores = _find(db, source)
    return db.store(target, SortedSet((member, scores[member]) for member in members))
