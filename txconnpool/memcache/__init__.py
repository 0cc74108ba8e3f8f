# Copyright txconnpool contributors. See LICENSE.
"""
A memcached client on a pool of connections, and C{memory:}, a memcached embedded in the process. Programs import the
names in this package, not those in its modules.
"""

from __future__ import annotations

from twisted.protocols.memcache import ClientError, ServerError

from txconnpool.memcache.errors import InvalidArgument, NoSuchCommand
from txconnpool.memcache.pool import MemCachePool, probe
from txconnpool.routing.servers import Server

__all__ = ["ClientError", "InvalidArgument", "MemCachePool", "NoSuchCommand", "Server", "ServerError", "probe"]
