# -*- test-case-name: tests.redis.test_streams -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands for sorted sets that concern several of them, or remove members of the first that is not empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail

from txconnpool.redis.arguments import Argument, Key
from txconnpool.redis.base import BaseCommands, V, keysOf, scored
from txconnpool.redis.errors import InvalidArgument

#: Keys, or keys with the factors of their scores.
Weighted = Iterable[Key] | Mapping[Any, float]


class CombiningCommands(BaseCommands[V]):
    """
    Commands for several sorted sets. Those with C{withscores} result in pairs of member and score.
    """

    def zunion(self, keys: Weighted, aggregate: str | None = None, withscores: bool = False) -> Deferred[list[Any]]:
        """
        @param keys: sets or sorted sets; a mapping has the factor of the scores of each.
        @param aggregate: the score of a member of several: C{"SUM"} (the default), C{"MIN"} or C{"MAX"}.

        @return: fires with the members of all, in the order of their scores.
        """
        words = [*_weighted(keys, aggregate), *_scores(withscores)]
        return self._do("zunion", scored if withscores else None, *words)

    def zinter(self, keys: Weighted, aggregate: str | None = None, withscores: bool = False) -> Deferred[list[Any]]:
        """
        @return: fires with the members that all have, see L{zunion}.
        """
        words = [*_weighted(keys, aggregate), *_scores(withscores)]
        return self._do("zinter", scored if withscores else None, *words)

    def zdiff(self, keys: Iterable[Key], withscores: bool = False) -> Deferred[list[Any]]:
        """
        @return: fires with the members that only the first has.
        """
        return self._do("zdiff", scored if withscores else None, *_numbered(keys), *_scores(withscores))

    def zunionstore(self, dest: Key, keys: Weighted, aggregate: str | None = None) -> Deferred[int]:
        """
        Store what L{zunion} finds.

        @return: fires with the number of members.
        """
        return self._do("zunionstore", None, dest, *_weighted(keys, aggregate))

    def zinterstore(self, dest: Key, keys: Weighted, aggregate: str | None = None) -> Deferred[int]:
        """
        Store what L{zinter} finds.

        @return: fires with the number of members.
        """
        return self._do("zinterstore", None, dest, *_weighted(keys, aggregate))

    def zdiffstore(self, dest: Key, keys: Iterable[Key]) -> Deferred[int]:
        """
        Store what L{zdiff} finds.

        @return: fires with the number of members.
        """
        return self._do("zdiffstore", None, dest, *_numbered(keys))

    def zintercard(self, numkeys: int, keys: Iterable[Key], limit: int = 0) -> Deferred[int]:
        """
        @param numkeys: the number of keys.
        @param limit: count up to this number; 0: all.

        @return: fires with the number of members that all have.
        """
        return self._do("zintercard", None, numkeys, *keys, "LIMIT", limit)

    def zmpop(
        self, num_keys: int, keys: Iterable[Key], min: bool = False, max: bool = False, count: int = 1
    ) -> Deferred[tuple[V, list[tuple[V, float]]] | None]:
        """
        Remove members of the first sorted set that is not empty.

        @param num_keys: the number of keys.
        @param min: whether to remove those with the least scores.
        @param max: whether to remove those with the greatest ones.

        @return: fires with the key, and the members with their scores; C{None} if all are empty.
        """
        if min == max:
            return fail(InvalidArgument("zmpop needs either min or max"))
        words = [num_keys, *keys, "MIN" if min else "MAX", "COUNT", count]
        return self._do("zmpop", _popped, *words).addCallback(self._bareFirst)

    def bzmpop(
        self, timeout: float, numkeys: int, keys: Iterable[Key], min: bool = False, max: bool = False, count: int = 1
    ) -> Deferred[tuple[V, list[tuple[V, float]]] | None]:
        """
        As L{zmpop}, but wait if all are empty, see L{blpop<txconnpool.redis.lists.ListCommands.blpop>}.
        """
        if min == max:
            return fail(InvalidArgument("bzmpop needs either min or max"))
        words = [timeout, numkeys, *keys, "MIN" if min else "MAX", "COUNT", count]
        return self._do("bzmpop", _popped, *words).addCallback(self._bareFirst)

    def zrangestore(
        self,
        dest: Key,
        name: Key,
        start: Argument,
        end: Argument,
        byscore: bool = False,
        bylex: bool = False,
        desc: bool = False,
        offset: int | None = None,
        num: int | None = None,
    ) -> Deferred[int]:
        """
        Store what L{zrange<txconnpool.redis.sortedsets.SortedSetCommands.zrange>} finds.

        @return: fires with the number of members.
        """
        given = (("BYSCORE", byscore), ("BYLEX", bylex), ("REV", desc))
        words: list[Any] = [word for word, wanted in given if wanted]
        if offset is not None or num is not None:
            words += ["LIMIT", offset or 0, -1 if num is None else num]
        return self._do("zrangestore", None, dest, name, start, end, *words)

    def zrandmember(self, key: Key, count: int | None = None, withscores: bool = False) -> Deferred[Any]:
        """
        Choose random members.

        @param count: how many different ones; negative: how many that may be the same.

        @return: fires with one; C{None} if the set is empty. With C{count}, with a list.
        """
        if withscores and count is None:
            return fail(InvalidArgument("withscores needs a count"))
        words = [*([] if count is None else [count]), *_scores(withscores)]
        return self._do("zrandmember", scored if withscores else None, key, *words)

    # -- Members with one score, in the order of their bytes

    def zrangebylex(
        self, name: Key, min: Argument, max: Argument, start: int | None = None, num: int | None = None
    ) -> Deferred[list[V]]:
        """
        @param min: the first member, after C{"["} or, if it is not meant itself, C{"("}; C{"-"}: no limit.
        @param max: the last member, likewise; C{"+"}: no limit.
        @param start: how many members to skip, with C{num}, the number of members to read.

        @return: fires with the members between them.
        """
        return self._do("zrangebylex", None, name, min, max, *_limited(start, num))

    def zrevrangebylex(
        self, name: Key, max: Argument, min: Argument, start: int | None = None, num: int | None = None
    ) -> Deferred[list[V]]:
        """
        As L{zrangebylex}, the last member first.
        """
        return self._do("zrevrangebylex", None, name, max, min, *_limited(start, num))

    def zlexcount(self, name: Key, min: Argument, max: Argument) -> Deferred[int]:
        """
        @return: fires with the number of members between two, see L{zrangebylex}.
        """
        return self._do("zlexcount", None, name, min, max)

    def zremrangebylex(self, name: Key, min: Argument, max: Argument) -> Deferred[int]:
        """
        Remove the members between two, see L{zrangebylex}.

        @return: fires with their number.
        """
        return self._do("zremrangebylex", None, name, min, max)


def _scores(wanted: bool) -> list[str]:
    return ["WITHSCORES"] if wanted else []


def _numbered(keys: Iterable[Key]) -> list[Any]:
    names = keysOf(keys)
    return [len(names), *names]


def _weighted(keys: Weighted, aggregate: str | None) -> list[Any]:
    words = _numbered(keys)
    if isinstance(keys, Mapping):
        words += ["WEIGHTS", *keys.values()]
    return [*words, *(["AGGREGATE", aggregate] if aggregate else [])]


def _limited(start: int | None, num: int | None) -> list[Any]:
    return [] if start is None and num is None else ["LIMIT", start or 0, -1 if num is None else num]


def _popped(value: Any) -> Any:
    return None if value is None else (value[0], scored(value[1]))
