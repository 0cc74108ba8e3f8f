# -*- test-case-name: tests.redis.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands for sorted sets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from txconnpool.redis.arguments import Argument, Key, listOf, mappingOf
from txconnpool.redis.base import BaseCommands, V, flat, keysOf, number, scanned, scored
from txconnpool.redis.keys import scanWords


class SortedSetCommands(BaseCommands[V]):
    """
    Commands for sorted sets.
    """

    def zadd(
        self,
        name: Key,
        mapping: Mapping[Any, float],
        nx: bool = False,
        xx: bool = False,
        ch: bool = False,
        gt: bool = False,
        lt: bool = False,
        incr: bool = False,
    ) -> Deferred[Any]:
        """
        Add members with their scores.

        @param mapping: the scores by member.
        @param nx: only members that do not exist.
        @param xx: only members that exist.
        @param ch: whether to count those whose score was changed too.
        @param gt: only if the score becomes greater.
        @param lt: only if it becomes less.
        @param incr: whether to add to the score of one member.

        @return: fires with the number of members that were added; with C{incr}, with the score, or C{None} if the
            other options prevented it.
        """
        given = (("NX", nx), ("XX", xx), ("GT", gt), ("LT", lt), ("CH", ch), ("INCR", incr))
        words = [word for word, wanted in given if wanted]
        scores = flat((score, each) for each, score in mappingOf("mapping", mapping).items())
        return self._do("zadd", number if incr else None, name, *words, *scores)

    def zrem(self, name: Key, *values: Argument) -> Deferred[int]:
        """
        Remove members.

        @return: fires with the number of those that were removed.
        """
        return self._do("zrem", None, name, *values)

    def zscore(self, name: Key, value: Argument) -> Deferred[float | None]:
        """
        @return: fires with the score of a member; C{None} if there is none.
        """
        return self._do("zscore", number, name, value)

    def zmscore(self, key: Key, members: Iterable[Argument]) -> Deferred[list[float | None]]:
        """
        @return: fires with the scores of members, in their order.
        """
        return self._do("zmscore", _numbers, key, *listOf("members", members))

    def zincrby(self, name: Key, amount: float, value: Argument) -> Deferred[float]:
        """
        Add to the score of a member.

        @return: fires with the sum.
        """
        return self._do("zincrby", number, name, amount, value)

    def zcard(self, name: Key) -> Deferred[int]:
        """
        @return: fires with the number of members.
        """
        return self._do("zcard", None, name)

    def zcount(self, name: Key, min: float | str, max: float | str) -> Deferred[int]:
        """
        @return: fires with the number of members with scores from C{min} to C{max}.
        """
        return self._do("zcount", None, name, min, max)

    def zrank(self, name: Key, value: Argument) -> Deferred[int | None]:
        """
        @return: fires with the position of a member, from the least score on.
        """
        return self._do("zrank", None, name, value)

    def zrevrank(self, name: Key, value: Argument) -> Deferred[int | None]:
        """
        @return: fires with the position of a member, from the greatest score on.
        """
        return self._do("zrevrank", None, name, value)

    def zrange(
        self,
        name: Key,
        start: Argument,
        end: Argument,
        desc: bool = False,
        withscores: bool = False,
        byscore: bool = False,
        bylex: bool = False,
        offset: int | None = None,
        num: int | None = None,
    ) -> Deferred[list[Any]]:
        """
        Read members in the order of their scores.

        @param start: the first position; the first score or member with C{byscore} and C{bylex}.
        @param end: the last one, which is included.
        @param desc: whether to begin with the greatest score. C{start} is then the greatest one.
        @param offset: how many members to skip, with C{num}, the number of members to read.

        @return: fires with members; with C{withscores}, with pairs of member and score.
        """
        given = (("BYSCORE", byscore), ("BYLEX", bylex), ("REV", desc))
        words: list[Any] = [word for word, wanted in given if wanted]
        if offset is not None or num is not None:
            words += ["LIMIT", offset or 0, -1 if num is None else num]
        if withscores:
            words.append("WITHSCORES")
        return self._do("zrange", scored if withscores else None, name, start, end, *words)

    def zrevrange(self, name: Key, start: int, end: int, withscores: bool = False) -> Deferred[list[Any]]:
        """
        As L{zrange}, beginning with the greatest score.
        """
        words = ["WITHSCORES"] if withscores else []
        return self._do("zrevrange", scored if withscores else None, name, start, end, *words)

    def zrangebyscore(
        self,
        name: Key,
        min: float | str,
        max: float | str,
        start: int | None = None,
        num: int | None = None,
        withscores: bool = False,
    ) -> Deferred[list[Any]]:
        """
        Read the members with scores from C{min} to C{max}, see L{zrange}.

        @param start: how many members to skip, with C{num}, the number of members to read.
        """
        words: list[Any] = ["WITHSCORES"] if withscores else []
        if start is not None or num is not None:
            words += ["LIMIT", start or 0, -1 if num is None else num]
        return self._do("zrangebyscore", scored if withscores else None, name, min, max, *words)

    def zrevrangebyscore(
        self,
        name: Key,
        max: float | str,
        min: float | str,
        start: int | None = None,
        num: int | None = None,
        withscores: bool = False,
    ) -> Deferred[list[Any]]:
        """
        As L{zrangebyscore}, beginning with the greatest score.
        """
        words: list[Any] = ["WITHSCORES"] if withscores else []
        if start is not None or num is not None:
            words += ["LIMIT", start or 0, -1 if num is None else num]
        return self._do("zrevrangebyscore", scored if withscores else None, name, max, min, *words)

    def zpopmin(self, name: Key, count: int = 1) -> Deferred[list[tuple[V, float]]]:
        """
        Remove the members with the least scores.

        @return: fires with them and their scores.
        """
        return self._do("zpopmin", scored, name, count)

    def zpopmax(self, name: Key, count: int = 1) -> Deferred[list[tuple[V, float]]]:
        """
        Remove the members with the greatest scores.

        @return: fires with them and their scores.
        """
        return self._do("zpopmax", scored, name, count)

    def bzpopmin(self, keys: Key | Iterable[Key], timeout: float = 0) -> Deferred[tuple[V, V, float] | None]:
        """
        Remove the member with the least score of the first of some sets that is not empty, or wait for one, see
        L{blpop<txconnpool.redis.lists.ListCommands.blpop>}.

        @return: fires with the key, the member and its score; C{None} after the timeout.
        """
        return self._do("bzpopmin", _popped, *keysOf(keys), timeout).addCallback(self._bareFirst)

    def bzpopmax(self, keys: Key | Iterable[Key], timeout: float = 0) -> Deferred[tuple[V, V, float] | None]:
        """
        Remove the member with the greatest score of the first of some sets that is not empty, or wait for one, see
        L{blpop<txconnpool.redis.lists.ListCommands.blpop>}.

        @return: fires with the key, the member and its score; C{None} after the timeout.
        """
        return self._do("bzpopmax", _popped, *keysOf(keys), timeout).addCallback(self._bareFirst)

    def zremrangebyrank(self, name: Key, min: int, max: int) -> Deferred[int]:
        """
        Remove the members at positions from C{min} to C{max}.

        @return: fires with their number.
        """
        return self._do("zremrangebyrank", None, name, min, max)

    def zremrangebyscore(self, name: Key, min: float | str, max: float | str) -> Deferred[int]:
        """
        Remove the members with scores from C{min} to C{max}.

        @return: fires with their number.
        """
        return self._do("zremrangebyscore", None, name, min, max)

    def zscan(
        self, name: Key, cursor: int = 0, match: Key | None = None, count: int | None = None
    ) -> Deferred[tuple[int, list[tuple[V, float]]]]:
        """
        Read some elements at a time, see L{scan<txconnpool.redis.keys.KeyCommands.scan>}.

        @return: fires with the next cursor, which is 0 at the end, and with elements.
        """
        return self._do("zscan", _found, name, cursor, *scanWords(match, count))

    async def zscan_iter(
        self, name: Key, match: Key | None = None, count: int | None = None
    ) -> AsyncIterator[tuple[V, float]]:
        """
        Iterate over the elements of a key. An element may be found twice.
        """
        at = 0
        while True:
            at, found = await self.zscan(name, at, match, count)
            for each in found:
                yield each
            if not at:
                return


def _numbers(value: Any) -> list[float | None]:
    return list(map(number, value))


def _popped(value: Any) -> Any:
    return None if value is None else (value[0], value[1], float(value[2]))


def _found(value: Any) -> tuple[int, Any]:
    at, items = scanned(value)
    return at, scored(items)
