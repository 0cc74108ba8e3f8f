# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.memcache.errors} and L{txconnpool.nosuchcommand}.
"""

from __future__ import annotations

from twisted.protocols import memcache as twisted
from twisted.trial.unittest import SynchronousTestCase

import txconnpool
from txconnpool import errors, memcache, nosuchcommand, pool


class ErrorTests(SynchronousTestCase):
    """
    Tests for the classes of the exceptions.
    """

    def test_bases(self) -> None:
        """
        Each exception is a L{errors.PoolError}, and the one of Twisted with the same name.
        """
        for name in ("NoSuchCommand", "ServerError", "ClientError"):
            kind = getattr(memcache, name)
            self.assertTrue(issubclass(kind, errors.PoolError), name)
            self.assertTrue(issubclass(kind, getattr(twisted, name)), name)
            self.assertEqual(str(kind("text")), "text")
        self.assertTrue(issubclass(memcache.InvalidArgument, memcache.ClientError))
        self.assertTrue(issubclass(memcache.InvalidArgument, ValueError))

    def test_one(self) -> None:
        """
        There is one C{NoSuchCommand}.
        """
        for module in (txconnpool, errors, memcache, pool):
            self.assertIs(module.NoSuchCommand, nosuchcommand.NoSuchCommand)
        self.assertIn("NoSuchCommand", dir(errors))
        self.assertRaises(AttributeError, getattr, errors, "NoSuchError")
