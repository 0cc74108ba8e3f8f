# -*- test-case-name: tests.redis.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands for hashes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail

from txconnpool.redis.arguments import Argument, Key, mappingOf
from txconnpool.redis.base import BaseCommands, V, flat, keysOf, mapping, number, okay, pairs, scanned
from txconnpool.redis.errors import InvalidArgument
from txconnpool.redis.keys import scanWords


class HashCommands(BaseCommands[V]):
    """
    Commands for hashes.
    """

    def hget(self, name: Key, key: Key) -> Deferred[V | None]:
        """
        @return: fires with the value of a field; C{None} if there is none.
        """
        return self._do("hget", None, name, key)

    def hset(
        self,
        name: Key,
        key: Key | None = None,
        value: Argument | None = None,
        mapping: Mapping[Any, Argument] | None = None,
    ) -> Deferred[int]:
        """
        Set one field, or several by C{mapping}.

        @return: fires with the number of fields that did not exist.
        """
        words = [] if key is None else [key, value]
        return self._do("hset", None, name, *words, *flat(mappingOf("mapping", mapping or {}).items()))

    def hsetnx(self, name: Key, key: Key, value: Argument) -> Deferred[bool]:
        """
        Set a field, unless there is one.

        @return: fires with whether it was set.
        """
        return self._do("hsetnx", bool, name, key, value)

    def hmget(self, name: Key, keys: Key | Iterable[Key], *args: Key) -> Deferred[list[V | None]]:
        """
        @return: fires with the values of fields, in their order.
        """
        return self._do("hmget", None, name, *keysOf(keys, args))

    def hgetall(self, name: Key) -> Deferred[dict[V, V]]:
        """
        @return: fires with all fields and their values.
        """
        return self._do("hgetall", mapping, name)

    def hdel(self, name: Key, *keys: Key) -> Deferred[int]:
        """
        Delete fields.

        @return: fires with the number of those that existed.
        """
        return self._do("hdel", None, name, *keys)

    def hexists(self, name: Key, key: Key) -> Deferred[bool]:
        """
        @return: fires with whether a field exists.
        """
        return self._do("hexists", bool, name, key)

    def hlen(self, name: Key) -> Deferred[int]:
        """
        @return: fires with the number of fields.
        """
        return self._do("hlen", None, name)

    def hkeys(self, name: Key) -> Deferred[list[V]]:
        """
        @return: fires with the names of all fields.
        """
        return self._do("hkeys", None, name)

    def hvals(self, name: Key) -> Deferred[list[V]]:
        """
        @return: fires with the values of all fields.
        """
        return self._do("hvals", None, name)

    def hstrlen(self, name: Key, key: Key) -> Deferred[int]:
        """
        @return: fires with the length of the value of a field.
        """
        return self._do("hstrlen", None, name, key)

    def hincrby(self, name: Key, key: Key, amount: int = 1) -> Deferred[int]:
        """
        Add to the number in a field.

        @return: fires with the sum.
        """
        return self._do("hincrby", None, name, key, amount)

    def hincrbyfloat(self, name: Key, key: Key, amount: float = 1.0) -> Deferred[float]:
        """
        Add to the number in a field, which may have a fraction.

        @return: fires with the sum.
        """
        return self._do("hincrbyfloat", number, name, key, amount)

    def hmset(self, name: Key, mapping: Mapping[Any, Argument]) -> Deferred[bool]:
        """
        Set several fields, see L{hset}.

        @return: fires with C{True}.
        """
        return self._do("hmset", okay, name, *flat(mappingOf("mapping", mapping).items()))

    def hrandfield(self, key: Key, count: int | None = None, withvalues: bool = False) -> Deferred[Any]:
        """
        Choose random fields.

        @param count: how many different ones; negative: how many that may be the same.

        @return: fires with one; C{None} if there is none. With C{count}, with a list; with C{withvalues} too, with a
            list of pairs of field and value.
        """
        if withvalues and count is None:
            return fail(InvalidArgument("withvalues needs a count"))
        words = [*([] if count is None else [count]), *(["WITHVALUES"] if withvalues else [])]
        return self._do("hrandfield", pairs if withvalues else None, key, *words)

    def hscan(
        self, name: Key, cursor: int = 0, match: Key | None = None, count: int | None = None
    ) -> Deferred[tuple[int, dict[V, V]]]:
        """
        Read some elements at a time, see L{scan<txconnpool.redis.keys.KeyCommands.scan>}.

        @return: fires with the next cursor, which is 0 at the end, and with elements.
        """
        return self._do("hscan", _found, name, cursor, *scanWords(match, count))

    async def hscan_iter(
        self, name: Key, match: Key | None = None, count: int | None = None
    ) -> AsyncIterator[tuple[V, V]]:
        """
        Iterate over the elements of a key. An element may be found twice.
        """
        at = 0
        while True:
            at, found = await self.hscan(name, at, match, count)
            for each in found.items():
                yield each
            if not at:
                return


def _found(value: Any) -> tuple[int, Any]:
    at, items = scanned(value)
    return at, mapping(items)
