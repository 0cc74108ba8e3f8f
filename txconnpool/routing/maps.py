# -*- test-case-name: tests.routing.test_shards -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The servers of a pool as they are configured, and the maps of keys to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from txconnpool.routing.distribution import Distribution, KeyMap, ServerSpec, emptyMap

#: For each request a list with the number of the share of each key; and the shares, each with its pool, the request for
#: its keys, and their number.
Divided: TypeAlias = tuple[list[list[int]], list[tuple[Any, bytes, int]]]

#: The number of maps that are kept for sets of servers that were down.
MAPS = 16


@dataclass(frozen=True)
class Shard:
    """
    One server as it is configured.

    @ivar address: the address, see L{endpointOf<txconnpool.net.addresses.endpointOf>}.
    @ivar spec: what the distribution knows of it.
    """

    address: Any
    spec: ServerSpec


@dataclass(frozen=True)
class Ejection:
    """
    What happens to the keys of a server that is down.

    @ivar rehash: whether its keys go to other servers, as the distribution has it. If not, their requests fail.
    @ivar after: the number of failures in a row after which they do.
    @ivar minLive: the number of servers that keep their keys in any case.
    """

    rehash: bool = False
    after: int = 2
    minLive: int = 1


@dataclass(frozen=True)
class KeyShare:
    """
    What a server has to do with the keys.

    @ivar weight: its weight, or C{None} for the default of the distribution.
    @ivar label: the text that stands for it.
    @ivar share: the share of the keys that it has at the moment, from 0 to 1.
    """

    weight: float | None
    label: str
    share: float


class Maps:
    """
    The maps of keys to servers of one list of servers: one for each set of servers that are down.
    """

    def __init__(self, distribution: Distribution, shards: Sequence[Shard]) -> None:
        """
        @raise ValueError: the servers are not possible with this distribution.
        """
        self._distribution = distribution
        self._specs = [shard.spec for shard in shards]
        self._maps: dict[frozenset[int], KeyMap] = {}
        if not shards:
            self._maps[frozenset()] = emptyMap()
        self.whole = self.without(frozenset())

    def isFor(self, distribution: Distribution, shards: Sequence[Shard]) -> bool:
        """
        @return: whether these are the maps of such servers.
        """
        return distribution == self._distribution and [shard.spec for shard in shards] == self._specs

    def without(self, down: frozenset[int]) -> KeyMap:
        """
        @param down: the indexes of servers.

        @return: the map that gives no keys to these servers. It is built once.
        """
        found = self._maps.pop(down, None) or self._distribution.build(self._specs, down)
        if len(self._maps) >= MAPS:
            del self._maps[next(iter(self._maps))]
        self._maps[down] = found
        return found
