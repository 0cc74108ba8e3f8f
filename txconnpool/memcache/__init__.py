# Copyright txconnpool contributors. See LICENSE.
"""
A memcached client on a pool of connections, and C{memory:}, a memcached inside the process.
"""

from __future__ import annotations

from txconnpool.memcache.pool import ClientError, InvalidArgument, MemCachePool, NoSuchCommand, ServerError, probe

__all__ = ["ClientError", "InvalidArgument", "MemCachePool", "NoSuchCommand", "ServerError", "probe"]
