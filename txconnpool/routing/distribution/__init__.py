# Copyright txconnpool contributors. See LICENSE.
"""
Distributions: which server a key belongs to, exactly as memcached's clients and proxies find it. There is no I/O here.

L{Distribution} checks the servers and builds a L{KeyMap}, which finds the index of the server of a key.
"""

from txconnpool.routing.distribution.distributions import HASH_NAMES, NAMES, ROUND_ROBIN, Distribution
from txconnpool.routing.distribution.keymap import CACHED_KEYS, KeyMap, emptyMap, movedShare
from txconnpool.routing.distribution.locators import NOBODY
from txconnpool.routing.distribution.servers import ServerSpec

__all__ = [
    "CACHED_KEYS",
    "HASH_NAMES",
    "NAMES",
    "NOBODY",
    "ROUND_ROBIN",
    "Distribution",
    "KeyMap",
    "ServerSpec",
    "emptyMap",
    "movedShare",
]
