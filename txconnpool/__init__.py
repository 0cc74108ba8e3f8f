# -*- test-case-name: tests.test_faces -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A connection pool for Twisted, and a pooling proxy built on it. All public names can be imported from here::

    from txconnpool import MemCachePool, PoolError

The public modules are L{txconnpool.pool}, L{txconnpool.memcache}, L{txconnpool.redis}, L{txconnpool.service},
L{txconnpool.config}, L{txconnpool.errors} and L{txconnpool.testing}, with the names in their C{__all__}. All other
modules are private, and may change in any version.

Importing this package does nothing. Each name is imported from its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from txconnpool import config, errors, memcache, pool, redis, service, testing
    from txconnpool.config import ConfigError, PoolSettings, Settings
    from txconnpool.errors import (
        ClientNotOwned,
        ConnectionLostInFlight,
        LoginFailed,
        NoSuchCommand,
        PoolClosed,
        PoolError,
        PoolFull,
        PoolTimeout,
        ServerUnavailable,
    )
    from txconnpool.interfaces import IPoolObserver, IQuiet
    from txconnpool.memcache import ClientError, InvalidArgument, MemCachePool, Server, ServerError
    from txconnpool.metrics import PoolStats
    from txconnpool.pool import Backoff, Pool, PooledClientFactory, PoolObserver
    from txconnpool.redis import RedisPool, ResponseError
    from txconnpool.service import PoolService, ProxyService

__version__ = "1.0.0.dev0"

#: The public names, by their modules.
_NAMES = {
    "config": ("ConfigError", "PoolSettings", "Settings"),
    "errors": (
        "ClientNotOwned", "ConnectionLostInFlight", "LoginFailed", "NoSuchCommand", "PoolClosed", "PoolError",
        "PoolFull", "PoolTimeout", "ServerUnavailable",
    ),
    "interfaces": ("IPoolObserver", "IQuiet"),
    "memcache": ("ClientError", "InvalidArgument", "MemCachePool", "Server", "ServerError"),
    "metrics": ("PoolStats",),
    "pool": ("Backoff", "Pool", "PoolObserver", "PooledClientFactory"),
    "redis": ("RedisPool", "ResponseError"),
    "service": ("PoolService", "ProxyService"),
}  # fmt: skip

#: The public modules that have such names, or more.
_MODULES = ("config", "errors", "memcache", "pool", "redis", "service", "testing")

__all__ = [
    "Backoff", "ClientError", "ClientNotOwned", "ConfigError", "ConnectionLostInFlight", "IPoolObserver", "IQuiet",
    "InvalidArgument", "LoginFailed", "MemCachePool", "NoSuchCommand", "Pool", "PoolClosed", "PoolError", "PoolFull",
    "PoolObserver", "PoolService", "PoolSettings", "PoolStats", "PoolTimeout", "PooledClientFactory", "ProxyService",
    "RedisPool", "ResponseError", "Server", "ServerError", "ServerUnavailable", "Settings", "config", "errors",
    "memcache", "pool", "redis", "service", "testing",
]  # fmt: skip


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        for module, names in _NAMES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return [*__all__, "__doc__", "__version__"]
