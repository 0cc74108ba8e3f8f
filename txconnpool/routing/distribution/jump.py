# -*- test-case-name: tests.routing.distribution.test_jump -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Jump hash, the default of the proxy in memcached.
"""

from __future__ import annotations

from collections.abc import Sequence

from txconnpool.routing.distribution.locators import Shares
from txconnpool.routing.distribution.servers import Member
from txconnpool.routing.distribution.xxh3 import chosenXxh3 as xxh3


class Jump:
    """
    Jump hash. A server is identified by its position in the list.

    See U{https://arxiv.org/abs/1406.2294}.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        """
        @param members: at least one server, in their order.
        """
        self._indexes = [member.index for member in members]

    def locate(self, key: bytes) -> int:
        """
        @return: the index of the server of a key.
        """
        value, count = xxh3(key), len(self._indexes)
        position, following = 0, 0
        while following < count:
            position = following
            value = value * 2862933555777941757 + 1 & 0xFFFFFFFFFFFFFFFF
            following = int((position + 1) * ((1 << 31) / ((value >> 33) + 1)))
        return self._indexes[position]

    def shares(self) -> Shares:
        """
        @return: equal shares.
        """
        return dict.fromkeys(self._indexes, 1 / len(self._indexes))
