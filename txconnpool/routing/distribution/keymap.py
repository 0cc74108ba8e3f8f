# -*- test-case-name: tests.routing.distribution.test_keymap -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The map of keys to servers, with a bounded cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from txconnpool import native
from txconnpool.routing.distribution.keys import Cut
from txconnpool.routing.distribution.locators import NOBODY, Constant, Locator
from txconnpool.routing.distribution.servers import ServerSpec

#: The number of keys in the cache of a map. With keys of 250 bytes it takes about 6 MB, with keys of 30 bytes 2 MB.
CACHED_KEYS = 16384

#: How many keys are tried to find a share of keys.
SAMPLE = 2000


def sampleKeys(count: int = SAMPLE) -> list[bytes]:
    """
    @return: always the same keys, as applications have them.
    """
    return [b"%b:%d" % ((b"user", b"session", b"page", b"item")[number % 4], number * 7919) for number in range(count)]


#: The longest key that is kept: the longest of memcached. Those of Redis may have megabytes.
KEY_MAX: Final = 250


class KeyCache(dict[bytes, int]):
    """
    The indexes of the servers of the last keys. Another key is looked up and added. A full cache is cleared.
    """

    __slots__ = ("_limit", "_locate")

    def __init__(self, locate: Callable[[bytes], int], limit: int) -> None:
        """
        @param locate: finds the index of a key.
        @param limit: the highest number of keys.
        """
        self._locate = locate
        self._limit = limit

    def __missing__(self, key: bytes) -> int:
        if len(key) > KEY_MAX:
            return self._locate(key)
        if len(self) >= self._limit:
            self.clear()
        index = self[key] = self._locate(key)
        return index


def divideKeys(keys: list[bytes], cached: dict[bytes, int]) -> dict[int, list[bytes]]:
    """
    Divide keys among servers.

    @param cached: has the index of each key, or finds it.

    @return: the keys of each index, in their order.
    """
    shares: dict[int, list[bytes]] = {}
    for key in keys:
        index = cached[key]
        if index in shares:
            shares[index].append(key)
        else:
            shares[index] = [key]
    return shares


#: L{divideKeys}, or its equal in the extension.
chosenDivide: Final = native.choose(divideKeys)


class KeyMap:
    """
    Maps keys to servers. Except for its cache it never changes: another set of servers is another map.

    C{map.cached[key]} is the fast way to find the index of the server of a key.

    @ivar servers: all servers, those that are down included.
    @ivar down: the indexes of the servers that get no keys because they are down.
    @ivar cached: the indexes of the last keys; those of other keys are looked up.
    @ivar locate: finds the index of a key without the cache.
    """

    __slots__ = ("_shares", "cached", "down", "locate", "servers")

    def __init__(
        self,
        servers: Sequence[ServerSpec],
        down: frozenset[int],
        locator: Locator,
        cut: Cut | None = None,
        limit: int = CACHED_KEYS,
    ) -> None:
        """
        @param servers: all servers.
        @param down: the indexes of the servers that are down.
        @param locator: finds the index for what is hashed of a key.
        @param cut: finds what is hashed of a key, or C{None} if the whole key is.
        @param limit: the highest number of keys in the cache.
        """
        self.servers = tuple(servers)
        self.down = down
        find = locator.locate
        self.locate: Callable[[bytes], int] = find if cut is None else lambda key: find(cut(key))
        self.cached = KeyCache(self.locate, limit)
        self._shares = locator.shares

    def shares(self) -> list[float]:
        """
        Find how the keys spread.

        @return: for each server its share of the keys, of all possible ones or of a sample. The sum is 1, or less if
            some keys have no server.
        """
        shares = self._shares()
        if shares is None:
            keys = sampleKeys()
            shares = {index: count / len(keys) for index, count in Counter(map(self.locate, keys)).items()}
        return [shares.get(index, 0.0) for index in range(len(self.servers))]


def emptyMap() -> KeyMap:
    """
    @return: the map while there are no servers.
    """
    return KeyMap((), frozenset(), Constant(NOBODY))


def movedShare(old: KeyMap, new: KeyMap, count: int = SAMPLE) -> float:
    """
    Find which share of the keys another map sends to another server. A server is the same if its address is the same,
    or for servers without an address its label.

    @param count: how many keys are tried. Most maps take 5 ms for 2000 keys, those of pymemcache with 100 servers 400.
    @return: the share, from 0 to 1.
    """
    # The last element is that of the index of nobody, -1.
    before, after = ([server.address or server.label for server in each.servers] + [None] for each in (old, new))
    keys = sampleKeys(count)
    return sum(before[old.locate(key)] != after[new.locate(key)] for key in keys) / len(keys)
