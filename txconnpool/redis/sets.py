# -*- test-case-name: tests.redis.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands for sets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from twisted.internet.defer import Deferred

from txconnpool.redis.arguments import Argument, Key
from txconnpool.redis.base import BaseCommands, V, booleans, keysOf, scanned
from txconnpool.redis.keys import scanWords


class SetCommands(BaseCommands[V]):
    """
    Commands for sets.
    """

    def sadd(self, name: Key, *values: Argument) -> Deferred[int]:
        """
        Add members to a set.

        @return: fires with the number of those that were added.
        """
        return self._do("sadd", None, name, *values)

    def srem(self, name: Key, *values: Argument) -> Deferred[int]:
        """
        Remove members of a set.

        @return: fires with the number of those that were removed.
        """
        return self._do("srem", None, name, *values)

    def smembers(self, name: Key) -> Deferred[set[V]]:
        """
        @return: fires with all members.
        """
        return self._do("smembers", set, name)

    def scard(self, name: Key) -> Deferred[int]:
        """
        @return: fires with the number of members.
        """
        return self._do("scard", None, name)

    def sismember(self, name: Key, value: Argument) -> Deferred[bool]:
        """
        @return: fires with whether a value is a member.
        """
        return self._do("sismember", bool, name, value)

    def smismember(self, name: Key, values: Key | Iterable[Key], *args: Key) -> Deferred[list[bool]]:
        """
        @return: fires with whether values are members, in their order.
        """
        return self._do("smismember", booleans, name, *keysOf(values, args))

    def smove(self, src: Key, dst: Key, value: Argument) -> Deferred[bool]:
        """
        Move a member to another set.

        @return: fires with whether it was a member.
        """
        return self._do("smove", bool, src, dst, value)

    def spop(self, name: Key, count: int | None = None) -> Deferred[Any]:
        """
        Remove random members.

        @return: fires with one; C{None} if the set is empty. With C{count}, with a set of up to so many.
        """
        return self._do("spop", _members, name, *([] if count is None else [count]))

    def srandmember(self, name: Key, number: int | None = None) -> Deferred[Any]:
        """
        Choose random members.

        @return: fires with one; C{None} if the set is empty. With C{number}, with a list of up to so many.
        """
        return self._do("srandmember", None, name, *([] if number is None else [number]))

    def sunion(self, keys: Key | Iterable[Key], *args: Key) -> Deferred[set[V]]:
        """
        @return: fires with the union of sets.
        """
        return self._do("sunion", set, *keysOf(keys, args))

    def sinter(self, keys: Key | Iterable[Key], *args: Key) -> Deferred[set[V]]:
        """
        @return: fires with the intersection of sets.
        """
        return self._do("sinter", set, *keysOf(keys, args))

    def sdiff(self, keys: Key | Iterable[Key], *args: Key) -> Deferred[set[V]]:
        """
        @return: fires with the difference of sets.
        """
        return self._do("sdiff", set, *keysOf(keys, args))

    def sintercard(self, numkeys: int, keys: Iterable[Key], limit: int = 0) -> Deferred[int]:
        """
        @param numkeys: the number of keys.
        @param limit: count up to this number; 0: all.

        @return: fires with the number of members of the intersection of sets.
        """
        return self._do("sintercard", None, numkeys, *keys, "LIMIT", limit)

    def sunionstore(self, dest: Key, keys: Key | Iterable[Key], *args: Key) -> Deferred[int]:
        """
        Store the union of sets.

        @return: fires with the number of its members.
        """
        return self._do("sunionstore", None, dest, *keysOf(keys, args))

    def sinterstore(self, dest: Key, keys: Key | Iterable[Key], *args: Key) -> Deferred[int]:
        """
        Store the intersection of sets.

        @return: fires with the number of its members.
        """
        return self._do("sinterstore", None, dest, *keysOf(keys, args))

    def sdiffstore(self, dest: Key, keys: Key | Iterable[Key], *args: Key) -> Deferred[int]:
        """
        Store the difference of sets.

        @return: fires with the number of its members.
        """
        return self._do("sdiffstore", None, dest, *keysOf(keys, args))

    def sscan(
        self, name: Key, cursor: int = 0, match: Key | None = None, count: int | None = None
    ) -> Deferred[tuple[int, list[V]]]:
        """
        Read some elements at a time, see L{scan<txconnpool.redis.keys.KeyCommands.scan>}.

        @return: fires with the next cursor, which is 0 at the end, and with elements.
        """
        return self._do("sscan", scanned, name, cursor, *scanWords(match, count))

    async def sscan_iter(self, name: Key, match: Key | None = None, count: int | None = None) -> AsyncIterator[V]:
        """
        Iterate over the elements of a key. An element may be found twice.
        """
        at = 0
        while True:
            at, found = await self.sscan(name, at, match, count)
            for each in found:
                yield each
            if not at:
                return


def _members(value: Any) -> Any:
    return set(value) if isinstance(value, list) else value
