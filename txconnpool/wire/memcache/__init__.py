# Copyright txconnpool contributors. See LICENSE.
"""
memcached's text protocols.
"""

from __future__ import annotations

from txconnpool.wire.memcache.dialect import Memcache

__all__ = ["Memcache"]
