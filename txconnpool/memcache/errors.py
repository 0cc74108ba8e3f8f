# -*- test-case-name: tests.memcache.test_errors -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The exceptions of L{txconnpool.memcache.pool.MemCachePool}, apart from those of L{txconnpool.errors}. They are those of
L{twisted.protocols.memcache} too, so that programs that catch these go on working.
"""

from __future__ import annotations

from twisted.protocols import memcache

from txconnpool.errors import PoolError


class ServerError(PoolError, memcache.ServerError):
    """
    The server could not execute the command, for example because it has no memory for the value.
    """


class ClientError(PoolError, memcache.ClientError):
    """
    The server refused the command, for example to increment a value that is no number.
    """


class InvalidArgument(ClientError, ValueError):
    """
    A key, value or number that memcached would refuse or misinterpret. Nothing was sent.
    """


class UnreadableValue(PoolError, ValueError):
    """
    The serializer or the compressor cannot restore a value, for example because another program has stored it.

    C{__cause__} is the exception of the hook.
    """
