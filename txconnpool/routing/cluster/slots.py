# -*- test-case-name: tests.routing.cluster.test_slots -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The slot of a key in a cluster of Redis or Valkey.
"""

from __future__ import annotations

from binascii import crc_hqx

from txconnpool.routing.distribution.keymap import KeyCache
from txconnpool.wire.topology import SLOTS


def slotOf(key: bytes) -> int:
    """
    @return: the slot of a key: CRC16 (XMODEM) of what is between the first C{{} and the first C{}} after it, if that is
        not empty, or of the whole key (C{keyHashSlot} of Redis).
    """
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


def slotCache(limit: int) -> KeyCache:
    """
    @param limit: the highest number of keys in it.

    @return: the slots of the last keys: C{cache[key]}.
    """
    return KeyCache(slotOf, limit)
