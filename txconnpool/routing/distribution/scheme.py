# -*- test-case-name: tests.routing.distribution.test_vectors -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What all distributions have: how their map is built, and what they allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from functools import partial

from txconnpool.routing.distribution.locators import HashedLocator, Locator, Retries, Ring, Slots
from txconnpool.routing.distribution.rings import PointsFunction, weightedPoints
from txconnpool.routing.distribution.servers import LabelRule, Members
from txconnpool.routing.hashing import HASHES


class Weights(Enum):
    """
    What a distribution does with weights; the value is for messages.
    """

    INTEGERS = "weights must be integers from 1"
    SMALL_INTEGERS = "weights must be integers from 1 to 100"
    FRACTIONS = "weights must be numbers from 0 to 1"
    IGNORED = "weights are ignored"
    REFUSED = "all weights must be 1"


class WhenDown(Enum):
    """
    What happens to the keys of a server that is down, if they are distributed again; the value is for messages.
    """

    RECOMPUTED = "the map is recomputed as if the server were not configured"
    RETRIED = "its keys are hashed again until a live server is found"
    KEPT = "its keys stay with it and fail"


#: A function that builds a map from the servers and the name of the hash.
Builder = Callable[[Members, str], Locator]


@dataclass(frozen=True)
class Scheme:
    """
    One distribution.

    @ivar description: the map; C{%(hash)s} stands for the name of the hash.
    @ivar build: builds the map. It uses all servers, and in C{Members.down} there are only servers for which it has
        to find other ones.
    @ivar hash: the name of the default hash, or an empty string if the hash cannot be chosen.
    @ivar hashes: the names of the hashes that may be chosen.
    @ivar label: the rule of default labels, or C{None} if a server is identified by its position.
    @ivar ring: whether the map is a ring of points.
    @ivar weights: what happens to weights.
    @ivar weight: the weight of a server that has none of its own, if others have.
    @ivar whenDown: what happens to the keys of a server that is down.
    @ivar stop: the text at which a key ends for hashing.
    @ivar routes: whether a routing prefix is left out of keys.
    @ivar emptyTags: whether nothing is hashed of a key that has an empty hash tag, instead of the whole key.
    """

    description: str
    build: Builder
    _: KW_ONLY
    hash: str = ""
    hashes: tuple[str, ...] = ()
    label: LabelRule | None = None
    ring: bool = False
    weights: Weights = Weights.INTEGERS
    weight: float = 1
    whenDown: WhenDown = WhenDown.RECOMPUTED
    stop: bytes = b""
    routes: bool = False
    emptyTags: bool = False


#: The description of ketama with weights.
KETAMA = "a ring of 160 points per server of average weight from the MD5 of LABEL-0, LABEL-1 ...; keys by %(hash)s"


def ringOf(points: PointsFunction, members: Members, name: str) -> Locator:
    """
    Build a ring of the live servers.

    @param points: makes the points.
    """
    return Ring(points(members.live), HASHES[name], 15 if name == "crc32" else 32)


#: Builds the ring of ketama with weights.
ketama = partial(ringOf, weightedPoints)


def slotsOf(members: Members, name: str) -> Locator:
    """
    Build a map in which the hash of a key modulo the sum of the weights is a position in the list of live servers.
    """
    return Slots(members.live, HASHES[name])


def retrying(locator: HashedLocator, tries: Callable[[bytes], Iterator[int]], members: Members) -> Locator:
    """
    Let the keys of servers that are down be tried again.

    @param locator: the map of all servers.
    @param tries: all hash values of a key, in the order in which they are tried.
    """
    return Retries(locator, tries, members.down) if members.down else locator
