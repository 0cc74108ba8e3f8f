# -*- test-case-name: tests.routing.distribution.test_rendezvous -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Rendezvous hashing: every server gets a score for a key, and the server with the highest one gets the key. Its cost
grows with the number of servers.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import unpack_from

from txconnpool.routing.distribution.locators import INDEX_BITS, Shares
from txconnpool.routing.distribution.servers import Member
from txconnpool.routing.hashing import murmur3Final

_MASK = 0xFFFFFFFF


def _mixed(words: Iterable[int]) -> list[int]:
    """
    What MurmurHash3 does with each word before it goes into the state.
    """
    mixed = []
    for word in words:
        word = word * 0xCC9E2D51 & _MASK
        mixed.append((word << 15 | word >> 17) * 0x1B873593 & _MASK)
    return mixed


def _state(value: int, mixed: Iterable[int]) -> int:
    for word in mixed:
        value ^= word
        value = (value << 13 | value >> 19) * 5 + 0xE6546B64 & _MASK
    return value


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
        self._indexes = [member.index for member in ordered]
        # The state after the complete words of "label-" is the same for all keys. Servers for which the same incomplete
        # word is left read the same words of a key.
        groups: dict[bytes, list[tuple[int, int, int]]] = {}
        for rank, member in enumerate(ordered):
            text = characters(member.label) + b"-"
            complete = len(text) // 4
            value = _state(0, _mixed(unpack_from(f"<{complete}I", text)))
            groups.setdefault(text[4 * complete :], []).append((rank, value, len(text)))
        self._groups = list(groups.items())

    def locate(self, key: bytes) -> int:
        """
        @return: the index of the server of a key.
        """
        key = characters(key)
        best = 0
        for rest, states in self._groups:
            text = rest + key
            complete = len(text) // 4
            words = _mixed(unpack_from(f"<{complete}I", text))
            (last,) = _mixed((int.from_bytes(text[4 * complete :], "little"),))
            for rank, value, size in states:
                score = murmur3Final(_state(value, words) ^ last ^ size + len(key))
                best = max(best, score << INDEX_BITS | rank)
        return self._indexes[best & (1 << INDEX_BITS) - 1]

    def shares(self) -> Shares:
        """
        @return: equal shares.
        """
        return dict.fromkeys(self._indexes, 1 / len(self._indexes))
