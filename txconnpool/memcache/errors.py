# -*- test-case-name: tests.memcache.test_errors -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The exceptions of L{txconnpool.memcache.pool.MemCachePool}, apart from those of L{txconnpool.errors} and
L{twisted.protocols.memcache}.
"""

from __future__ import annotations

from twisted.protocols import memcache

from txconnpool import errors


class InvalidArgument(memcache.ClientError, ValueError):
    """
    A key, value or number that memcached would refuse or misinterpret. Nothing was sent.
    """


class NoSuchCommand(errors.NoSuchCommand, memcache.NoSuchCommand):
    """
    The server does not know the command, or the pool has no command of this name.

    It is both L{txconnpool.errors.NoSuchCommand} and L{twisted.protocols.memcache.NoSuchCommand}, so that code that
    catches either of them works.
    """
