# -*- test-case-name: tests.routing.distribution.test_rendezvous -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Rendezvous hashing: every server gets a score for a key, and the server with the highest one gets the key. Its cost
grows with the number of servers.
"""

from __future__ import annotations

from collections.abc import Iterable

from txconnpool.routing.distribution.locators import Shares
from txconnpool.routing.distribution.servers import Member
from txconnpool.routing.hashing import chosenMurmur3Seeded as murmur3Seeded


def characters(data: bytes) -> bytes:
    """
    What pymemcache hashes of a C{str}: the low 8 bits of its characters.

    pymemcache hashes the C{repr} of a key in C{bytes}, so such keys are not supported. Bytes that are no UTF-8 cannot
    have come from a C{str}; they are hashed as they are.
    """
    if data.isascii():
        return data
    try:
        return bytes(ord(character) & 0xFF for character in data.decode("utf-8"))
    except UnicodeDecodeError:
        return data


class Pymemcache:
    """
    The rendezvous hash of pymemcache: MurmurHash3 of C{label-key} with the seed 0. If two servers have the same score,
    the one with the greater label gets the key.

    @ivar chances: see L{Contest<txconnpool.routing.distribution.locators.Contest>}.
    """

    def __init__(self, members: Iterable[Member]) -> None:
        """
        @param members: at least one server.
        """
        ordered = sorted(members, key=lambda member: member.label)
        self.chances = {member.label: (member.index, 1.0) for member in ordered}
        self._servers = [(member.index, characters(member.label) + b"-") for member in ordered]

    def locate(self, key: bytes) -> int:
        """
        @return: the index of the server of a key.
        """
        key = characters(key)
        best, found = -1, self._servers[0][0]
        for index, label in self._servers:
            score = murmur3Seeded(label + key, 0)
            if score >= best:
                best, found = score, index
        return found

    def shares(self) -> Shares:
        """
        @return: equal shares.
        """
        return dict.fromkeys((index for index, _ in self._servers), 1 / len(self._servers))
