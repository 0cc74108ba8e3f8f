# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.memcache.errors}.
"""

from __future__ import annotations

from twisted.protocols import memcache
from twisted.trial.unittest import SynchronousTestCase

from txconnpool import errors
from txconnpool.memcache import NoSuchCommand


class NoSuchCommandTests(SynchronousTestCase):
    """
    Tests for L{NoSuchCommand}.
    """

    def test_caughtAsEither(self) -> None:
        """
        The exception is caught as the one of this package and as the one of Twisted.
        """
        for kind in (errors.NoSuchCommand, memcache.NoSuchCommand, errors.PoolError):
            self.assertTrue(issubclass(NoSuchCommand, kind))
        self.assertEqual(str(NoSuchCommand("text")), "text")
