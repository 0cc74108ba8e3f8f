# Copyright txconnpool contributors. See LICENSE.
"""
A connection pool for Twisted, and a pooling proxy built on it.

The public names live in their modules: L{txconnpool.routing.requests.Pool}, L{txconnpool.memcache.pool.MemCachePool},
L{txconnpool.pool.service.PoolService} and L{txconnpool.operate.service.ProxyService}. Importing this package does
nothing.
"""

__version__ = "1.0.0.dev0"
