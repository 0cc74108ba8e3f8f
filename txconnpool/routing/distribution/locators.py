# -*- test-case-name: tests.routing.distribution.test_locators -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Data structures that find the server of a key: rings of points, lists of slots, and retries on them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol, runtime_checkable

from txconnpool.routing.distribution.servers import Member
from txconnpool.routing.hashing import HashFunction

#: The index for a key for which no server is found.
NOBODY = -1

#: The lowest bits of a point are the index of its server, so that points sort by value, then by index.
INDEX_BITS = 20
_INDEX_MASK = (1 << INDEX_BITS) - 1

#: The shares of the servers that have any, by their indexes.
Shares = dict[int, float]


class Locator(Protocol):
    """
    Finds the servers of keys.
    """

    def locate(self, key: bytes) -> int:
        """
        @param key: what of a key is hashed.
        @return: the index of its server, or L{NOBODY}.
        """

    def shares(self) -> Shares | None:
        """
        @return: the share of all keys that each server gets, or C{None} if it can be found by trying only.
        """


@runtime_checkable
class Contest(Protocol):
    """
    A L{Locator} that compares all servers for each key: a key stays where it is unless its server is removed, or
    another one with a better score is added. Its cost grows with the number of servers.

    @ivar chances: for each label the index of its server, and how often it wins in relation to others.
    """

    chances: dict[bytes, tuple[int, float]]


class HashedLocator(Locator, Protocol):
    """
    Finds the servers of keys by their hash values.
    """

    def owner(self, value: int) -> int:
        """
        @return: the index of the server of a hash value.
        """


class Search(NamedTuple):
    """
    How a locator finds the index of the server of a key by its hash, for the extension. That knows most hash functions;
    with another one it does not search.

    The index is the one of C{owners} at the position where C{hash(key)}, modulo C{modulus} unless that is 0, belongs
    among the sorted C{points}: before equal ones, or C{after} them.

    @ivar points: numbers of 32 bits without a sign, in the order of bytes of the machine.
    @ivar owners: numbers of 32 bits with a sign, one more than there are points.
    """

    hash: HashFunction
    modulus: int
    after: bool
    points: bytes
    owners: bytes


def _packed(
    hashFunction: HashFunction, points: Sequence[int], owners: Sequence[int], after: bool, modulus: int = 0
) -> Search | None:
    """
    @return: a search; C{None} if a point has more than 32 bits.
    """
    if points and points[-1] >> 32:
        return None
    return Search(hashFunction, modulus, after, array("I", points).tobytes(), array("i", owners).tobytes())


@runtime_checkable
class Searching(Protocol):
    """
    A L{Locator} that searches for the hash of a key.
    """

    def search(self) -> Search | None:
        """
        @return: how.
        """


class Constant:
    """
    One server for all keys, or none.
    """

    def __init__(self, index: int) -> None:
        """
        @param index: the index of the server, or L{NOBODY}.
        """
        self._index = index

    def locate(self, key: bytes) -> int:
        """
        @return: the one index.
        """
        return self._index

    def shares(self) -> Shares:
        """
        @return: everything for the one server.
        """
        return {} if self._index == NOBODY else {self._index: 1.0}


class Ring:
    """
    A ring of points. A hash value belongs to the server of the first point that is not less than the value; after the
    last point the first one follows.
    """

    def __init__(self, points: Iterable[int], hashFunction: HashFunction, bits: int = 32) -> None:
        """
        @param points: at least one point, in any order: C{value << INDEX_BITS | index}.
        @param hashFunction: the hash of keys.
        @param bits: the number of bits of this hash.
        """
        ordered = sorted(points)
        self._values = [point >> INDEX_BITS for point in ordered]
        self._owners = [point & _INDEX_MASK for point in ordered]
        # The position after the last point is found for greater values.
        self._owners.append(self._owners[0])
        self._hash = hashFunction
        self._range = 1 << bits

    def owner(self, value: int) -> int:
        """
        @return: the index of the server of a hash value.
        """
        return self._owners[bisect_left(self._values, value)]

    def locate(self, key: bytes) -> int:
        """
        @return: the index of the server of a key.
        """
        return self._owners[bisect_left(self._values, self._hash(key))]

    def search(self) -> Search | None:
        """
        @return: how the ring is searched.
        """
        return _packed(self._hash, self._values, self._owners, False)

    def shares(self) -> Shares:
        """
        @return: the shares of all possible hash values.
        """
        shares: Shares = {}
        before = 0
        for value, owner in zip([*self._values, self._range - 1], self._owners, strict=True):
            end = min(value + 1, self._range)
            if end > before:
                shares[owner] = shares.get(owner, 0.0) + (end - before) / self._range
                before = end
        return shares


class BackwardRing:
    """
    A ring in which a hash value belongs to the server of the last point that is not greater than the value; before the
    first point the last one follows.
    """

    def __init__(self, points: Iterable[int], hashFunction: HashFunction) -> None:
        """
        @param points: at least one point of 32 bits, in any order: C{value << INDEX_BITS | index}.
        @param hashFunction: the hash of keys.
        """
        ordered = sorted(points)
        self._values = [point >> INDEX_BITS for point in ordered]
        # First the owner of values less than the first point.
        self._owners = [point & _INDEX_MASK for point in (ordered[-1], *ordered)]
        self._hash = hashFunction

    def owner(self, value: int) -> int:
        """
        @return: the index of the server of a hash value.
        """
        return self._owners[bisect_right(self._values, value)]

    def locate(self, key: bytes) -> int:
        """
        @return: the index of the server of a key.
        """
        return self._owners[bisect_right(self._values, self._hash(key))]

    def search(self) -> Search | None:
        """
        @return: how the ring is searched.
        """
        return _packed(self._hash, self._values, self._owners, True)

    def shares(self) -> Shares:
        """
        @return: the shares of all possible hash values.
        """
        shares: Shares = {}
        ends = [*self._values, 1 << 32]
        for begin, end, owner in zip([0, *self._values], ends, self._owners, strict=True):
            shares[owner] = shares.get(owner, 0.0) + (end - begin) / (1 << 32)
        return shares


class Slots:
    """
    A list of slots, as many for each server as its weight. A hash value belongs to the slot that is left over when it
    is divided by their number.
    """

    def __init__(self, members: Iterable[Member], hashFunction: HashFunction) -> None:
        """
        @param members: at least one server, in the order of the slots.
        @param hashFunction: the hash of keys.
        """
        members = list(members)
        self._owners = [member.index for member in members]
        self._ends = list(accumulate(int(member.weight) for member in members))
        self._hash = hashFunction

    def owner(self, value: int) -> int:
        """
        @return: the index of the server of a hash value.
        """
        return self._owners[bisect_right(self._ends, value % self._ends[-1])]

    def locate(self, key: bytes) -> int:
        """
        @return: the index of the server of a key.
        """
        return self._owners[bisect_right(self._ends, self._hash(key) % self._ends[-1])]

    def search(self) -> Search | None:
        """
        @return: how the slots are searched.
        """
        return _packed(self._hash, self._ends, [*self._owners, NOBODY], True, self._ends[-1])

    def shares(self) -> Shares:
        """
        @return: the shares of all slots.
        """
        shares: Shares = {}
        for owner, begin, end in zip(self._owners, [0, *self._ends], self._ends, strict=False):
            shares[owner] = shares.get(owner, 0.0) + (end - begin) / self._ends[-1]
        return shares


class Retries:
    """
    Servers that are down keep their place. A key of theirs is hashed again, until a live one is found.
    """

    def __init__(self, locator: HashedLocator, tries: Callable[[bytes], Iterator[int]], down: frozenset[int]) -> None:
        """
        @param locator: the map of all servers.
        @param tries: all hash values of a key, in the order in which they are tried.
        @param down: the indexes of the servers that are down.
        """
        self._owner = locator.owner
        self._tries = tries
        self._down = down

    def locate(self, key: bytes) -> int:
        """
        @return: the index of the first live server, or L{NOBODY}.
        """
        for value in self._tries(key):
            index = self._owner(value)
            if index not in self._down:
                return index
        return NOBODY

    def shares(self) -> Shares | None:
        """
        @return: C{None}, because they are found by trying.
        """
        return None
