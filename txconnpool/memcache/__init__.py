# Copyright txconnpool contributors. See LICENSE.
"""
A memcached client on a pool of connections, and C{memory:}, a memcached embedded in the process. Programs import the
names in this package, not those in its modules.
"""

from __future__ import annotations

from txconnpool.errors import NoSuchCommand
from txconnpool.memcache.errors import ClientError, InvalidArgument, ServerError, UnreadableValue
from txconnpool.memcache.pool import MemCachePool, probe
from txconnpool.memcache.values import Compressor, JSONSerializer, Serializer, ZlibCompressor
from txconnpool.routing.servers import Server

__all__ = [
    "ClientError",
    "Compressor",
    "InvalidArgument",
    "JSONSerializer",
    "MemCachePool",
    "NoSuchCommand",
    "Serializer",
    "Server",
    "ServerError",
    "UnreadableValue",
    "ZlibCompressor",
    "probe",
]


def __dir__() -> list[str]:
    return __all__
