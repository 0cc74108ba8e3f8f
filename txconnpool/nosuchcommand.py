# -*- test-case-name: tests.memcache.test_errors -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The exception L{NoSuchCommand} of L{txconnpool.errors}. It is one of Twisted's exceptions too, and parsers, which use
L{txconnpool.errors}, do not load Twisted.
"""

from __future__ import annotations

from twisted.protocols import memcache

from txconnpool.errors import PoolError


class NoSuchCommand(PoolError, memcache.NoSuchCommand):
    """
    The client or the server has no such command, or the command must not be called through the pool. This is a mistake
    in the calling program.

    It is a L{twisted.protocols.memcache.NoSuchCommand} too, so that programs that catch that one go on working.
    """
