# -*- test-case-name: tests.routing.distribution.test_mcrouter -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The hashes of mcrouter: C{Ch3} and C{WeightedCh3}, for which a server is identified by its position in the list, and
C{Rendezvous} (C{furc_hash} in C{mcrouter/lib/fbi/hash.c}, C{mcrouter/lib/*HashFunc.cpp}).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from txconnpool.native import choose
from txconnpool.routing.distribution.locators import Shares
from txconnpool.routing.distribution.servers import Member
from txconnpool.routing.distribution.wide import chosenMurmur64 as murmur64
from txconnpool.routing.distribution.wide import spooky

#: The seed of the bits of a key, and of the names of servers in the rendezvous hash.
SEED = 4193360111

#: How often mcrouter tries again before it takes what it has.
_TRIES = 32

#: How far the bits of a choice are apart.
_SHIFT = 23

_WEIGHT_SEED = 0xFACE2014

_RENDEZVOUS_SEED = 2718281828
_MULTIPLIER = 0x9DDFEA08EB382D69
_MASK = 0xFFFFFFFFFFFFFFFF

#: The bits of a score that count with weights.
_FRACTION = (1 << 53) - 1


def furc(key: bytes, count: int) -> int:
    """
    Choose a number below C{count}. If C{count} grows by 1, a key keeps its number or gets the new one.
    """
    if count <= 1:
        return 0
    block = bits = murmur64(key, SEED)
    size = 64
    depth = (count - 1).bit_length()
    # All bits that a round can read.
    at = depth
    for _ in range(_TRIES):
        end = at + depth * _SHIFT + 1
        while size < end:
            block = murmur64(block.to_bytes(8, "little"), SEED)
            bits |= block << size
            size += 64
        while not bits >> at & 1:
            depth -= 1
            if depth == 0:
                return 0
            at = depth
        at += _SHIFT
        number = 1
        for _ in range(depth - 1):
            number = number << 1 | bits >> at & 1
            at += _SHIFT
        if number < count:
            return number
    return 0


_furc = choose(furc)


class Ch3:
    """
    C{Ch3}, the default of mcrouter.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        """
        @param members: all servers, in their order.
        """
        self._indexes = [member.index for member in members]

    def locate(self, key: bytes) -> int:
        """
        @return: the index of the server of a key.
        """
        return self._indexes[_furc(key, len(self._indexes))]

    def shares(self) -> Shares:
        """
        @return: equal shares.
        """
        return dict.fromkeys(self._indexes, 1 / len(self._indexes))


class Rendezvous:
    """
    C{Rendezvous} and C{WeightedRendezvous}: the server with the highest score gets the key. A server is identified by
    its label.

    @ivar chances: see L{Contest<txconnpool.routing.distribution.locators.Contest>}.
    """

    def __init__(self, members: Sequence[Member], weighted: bool) -> None:
        """
        @param members: at least one server, with weights from 0 to 1.
        @param weighted: whether the weights count.
        """
        self._servers = [(member.index, murmur64(member.label, SEED), member.weight) for member in members]
        self.chances = {member.label: (member.index, member.weight if weighted else 1.0) for member in members}
        self._weighted = weighted

    def locate(self, key: bytes) -> int:
        """
        @return: the index of the server of a key.
        """
        value = murmur64(key, _RENDEZVOUS_SEED)
        best, found = -1.0, self._servers[0][0]
        for index, name, weight in self._servers:
            # Hash128to64() of CityHash.
            score = (value ^ name) * _MULTIPLIER & _MASK
            score = (name ^ score ^ score >> 47) * _MULTIPLIER & _MASK
            score = (score ^ score >> 47) * _MULTIPLIER & _MASK
            number = float(score)
            if self._weighted:
                part = (score & _FRACTION) / (_FRACTION + 1)
                number = weight / -math.log(part) if part else 0.0
            if number > best:
                best, found = number, index
        return found

    def shares(self) -> Shares:
        """
        @return: shares by weight, or equal ones.
        """
        weights = {index: weight if self._weighted else 1 for index, _, weight in self._servers}
        total = sum(weights.values())
        return {index: weight / total for index, weight in weights.items()} if total else {self._servers[0][0]: 1.0}


class WeightedCh3:
    """
    C{WeightedCh3}: a server of weight 0.5 refuses every second key, for which C{Ch3} then makes another choice.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        """
        @param members: all servers, in their order, with weights from 0 to 1.
        """
        self._indexes = [member.index for member in members]
        self._limits = [int(member.weight * 0xFFFFFFFF) for member in members]

    def locate(self, key: bytes) -> int:
        """
        @return: the index of the server of a key.
        """
        salted = key
        for salt in range(_TRIES):
            position = _furc(salted, len(self._indexes))
            if spooky(salted, _WEIGHT_SEED) < self._limits[position]:
                break
            # mcrouter appends the decimal number with its last digit first.
            salted = key + (b"%d" % salt)[::-1]
        return self._indexes[position]

    def shares(self) -> Shares | None:
        """
        @return: C{None}. They are found by trying: if weights are small, not all keys find a server that accepts them.
        """
        return None
