# -*- test-case-name: tests.routing.cluster.test_slots -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The slots of keys in a cluster of Redis or Valkey.
"""

from __future__ import annotations

from txconnpool.routing.distribution.keymap import KeyCache
from txconnpool.wire.topology import slotOf


def slotCache(limit: int) -> KeyCache:
    """
    @param limit: the highest number of keys in it.

    @return: the slots of the last keys: C{cache[key]}.
    """
    return KeyCache(slotOf, limit)
