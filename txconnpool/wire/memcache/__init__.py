# Copyright txconnpool contributors. See LICENSE.
"""
The dialect of memcached's text protocol, classic and meta commands.
"""

from __future__ import annotations

from txconnpool.wire.memcache.dialect import Memcache

__all__ = ["Memcache"]
