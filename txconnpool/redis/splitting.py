# -*- test-case-name: tests.redis.test_splitting -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Commands that concern several servers: one request for each server, and one result of their replies.

They are not executed at one moment, as they are on one server. C{MSETNX} and all others whose meaning depends on that
are not split.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from txconnpool.redis.errors import InvalidArgument
from txconnpool.wire.redis.commands import RedisCommand
from txconnpool.wire.redis.framing import encode

#: The commands that are split, with the number of words for each key.
WIDTHS: Final = {"mget": 1, "mset": 2, "del": 1, "unlink": 1, "exists": 1, "touch": 1}


def _first(values: list[Any]) -> Any:
    return values[0]


def _all(values: list[Any]) -> Any:
    return [each for value in values for each in value]


def _least(values: list[Any]) -> Any:
    return [min(each) for each in zip(*values, strict=True)]


def _any(values: list[Any]) -> Any:
    return random.choice([value for value in values if value is not None] or [None])


#: The commands that are sent to all servers, with the function that makes one value of those of their replies.
EVERYWHERE: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "dbsize": sum,
    "keys": _all,
    "pubsub|channels": _all,
    "pubsub|numpat": sum,
    "randomkey": _any,
    "script|exists": _least,
    **dict.fromkeys(("ping", "flushdb", "flushall", "script|load", "script|flush"), _first),
    **dict.fromkeys(("function|load", "function|delete", "function|flush", "function|restore"), _first),
}


def serverOfCursor(cursor: bytes, count: int) -> tuple[int, bytes]:
    """
    @param cursor: 0, or the result of L{nextCursor}.
    @param count: the number of servers.

    @return: the number of the server to scan next, and the cursor for it.

    @raise InvalidArgument: it is no cursor.
    """
    if not cursor.isdigit():
        raise InvalidArgument(f"invalid cursor: {cursor.decode('ascii', 'replace')}")
    at, number = divmod(int(cursor), count)
    return number, b"%d" % at


def nextCursor(cursor: Any, number: int, count: int) -> int:
    """
    @param cursor: the cursor that the server with a number has returned; 0: it has been scanned.

    @return: the next cursor of a scan of all servers; 0: all have been scanned.
    """
    at = int(cursor)
    if at:
        return at * count + number
    return (number + 1) % count


def isDivisible(command: RedisCommand, words: list[bytes]) -> bool:
    """
    @return: whether a request can be divided. An C{MSET} whose last value is missing is not: the server rejects it as a
        whole.
    """
    return command.name in WIDTHS and (len(words) - 1) % WIDTHS[command.name] == 0


def divide(command: RedisCommand, words: list[bytes], poolOf: Callable[[bytes], Any]) -> dict[Any, list[int]]:
    """
    @return: the positions of the keys of a request, by the pools of their servers.

    @raise PoolError: a key has no server at the moment.
    """
    found: dict[Any, list[int]] = {}
    for at in range(1, len(words), WIDTHS[command.name]):
        found.setdefault(poolOf(words[at]), []).append(at)
    return found


def wordsFor(command: RedisCommand, words: list[bytes], places: list[int]) -> list[bytes]:
    """
    @return: the words of the request for the keys at some positions.
    """
    width = WIDTHS[command.name]
    return [words[0], *(word for at in places for word in words[at : at + width])]


def requestFor(command: RedisCommand, words: list[bytes], places: list[int]) -> bytes:
    """
    @return: the request for the keys at some positions.
    """
    return encode(wordsFor(command, words, places))


def join(command: RedisCommand, places: list[list[int]], values: list[Any]) -> Any:
    """
    @param places: the positions of the keys of each request.
    @param values: the values of their replies.

    @return: the value of one reply to all.
    """
    if command.name == "mset":
        return values[0]
    if command.name != "mget":
        return sum(values)
    found = {at: value for its, each in zip(places, values, strict=True) for at, value in zip(its, each, strict=True)}
    return [found[at] for at in sorted(found)]
