# -*- test-case-name: tests.routing.distribution.test_keymap -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The map of keys to servers, with a bounded cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from txconnpool.routing.distribution.keys import Cut
from txconnpool.routing.distribution.locators import NOBODY, Constant, Contest, Locator, Search, Searching
from txconnpool.routing.distribution.servers import ServerSpec

#: The number of keys in the cache of a map. With keys of 250 bytes it takes about 6 MB, with keys of 30 bytes 2 MB.
CACHED_KEYS = 16384

#: How many keys are tried to find a share of keys.
SAMPLE = 2000

#: The same for maps that compare all servers for each key.
FEW = 100


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

    @ivar search: how the extension finds the index of any key.
    """

    __slots__ = ("_limit", "_locate", "search")

    def __init__(self, locate: Callable[[bytes], int], limit: int, search: Search | None = None) -> None:
        """
        @param locate: finds the index of a key.
        @param limit: the highest number of keys.
        """
        self._locate = locate
        self._limit = limit
        self.search = search

    def __missing__(self, key: bytes) -> int:
        if len(key) > KEY_MAX:
            return self._locate(key)
        if len(self) >= self._limit:
            self.clear()
        index = self[key] = self._locate(key)
        return index


class KeyMap:
    """
    Maps keys to servers. Except for its cache it never changes: another set of servers is another map.

    C{map.cached[key]} is the fast way to find the index of the server of a key.

    @ivar servers: all servers, those that are down included.
    @ivar down: the indexes of the servers that get no keys because they are down.
    @ivar cached: the indexes of the last keys; those of other keys are looked up.
    @ivar locate: finds the index of a key without the cache.
    @ivar contest: the locator if it compares all servers for each key, else C{None}.
    @ivar distribution: what the map was made by, to compare it with that of others.
    """

    __slots__ = ("_shares", "cached", "contest", "distribution", "down", "locate", "servers")

    def __init__(
        self,
        servers: Sequence[ServerSpec],
        down: frozenset[int],
        locator: Locator,
        cut: Cut | None = None,
        limit: int = CACHED_KEYS,
        distribution: object = None,
    ) -> None:
        """
        @param servers: all servers.
        @param down: the indexes of the servers that are down.
        @param locator: finds the index for what is hashed of a key.
        @param cut: finds what is hashed of a key, or C{None} if the whole key is.
        @param limit: the highest number of keys in the cache.
        @param distribution: see L{distribution}.
        """
        self.servers = tuple(servers)
        self.down = down
        find = locator.locate
        self.locate: Callable[[bytes], int] = find if cut is None else lambda key: find(cut(key))
        search = locator.search() if cut is None and isinstance(locator, Searching) else None
        self.cached = KeyCache(self.locate, limit, search)
        self.contest = locator if isinstance(locator, Contest) else None
        self.distribution = distribution
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


def movedShare(old: KeyMap, new: KeyMap, count: int | None = None) -> float:
    """
    Find which share of the keys another map sends to another server. A server is the same if its address is the same,
    or for servers without an address its label.

    @param count: how many keys are tried if the share is not known from the servers alone; C{None}: L{SAMPLE}, or
        L{FEW} if a map compares all servers for each key.
    @return: the share, from 0 to 1.
    """
    # The last element is that of the index of nobody, -1.
    before, after = ([server.address or server.label for server in each.servers] + [None] for each in (old, new))
    if old.contest is not None and new.contest is not None and old.distribution == new.distribution:
        share = _movedByLabel(old.contest, new.contest, before, after)
        if share is not None:
            return share
    if count is None:
        count = SAMPLE if old.contest is new.contest is None else FEW
    keys = sampleKeys(count)
    return sum(before[old.locate(key)] != after[new.locate(key)] for key in keys) / len(keys)


def _movedByLabel(
    old: Contest, new: Contest, before: Sequence[str | None], after: Sequence[str | None]
) -> float | None:
    """
    Find the share of keys from the chances of the servers: a key stays if the winner among all servers, old and new, is
    in both maps.

    @param before: the name of each server of the old map, by its index.
    @param after: the same for the new map.

    @return: the share; C{None} if a server has another label or another weight in the new map.
    """
    was, now = old.chances, new.chances
    if any(now[label][1] != was[label][1] for label in was.keys() & now.keys()):
        return None
    labels = {before[index]: label for label, (index, _) in was.items()}
    if any(labels.get(after[index], label) != label for label, (index, _) in now.items()):
        return None
    total = sum(chance for _, chance in {**was, **now}.values())
    stay = (label for label in was.keys() & now.keys() if before[was[label][0]] == after[now[label][0]])
    return 1 - sum(now[label][1] for label in stay) / total if total else None
