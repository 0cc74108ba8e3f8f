# -*- test-case-name: tests.routing.test_single -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.single}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.stage import Stage
from txconnpool.interfaces import IConnections, IRouter
from txconnpool.routing.single import SinglePool


class SinglePoolTests(SynchronousTestCase):
    """
    Tests for L{SinglePool}.
    """

    def test_choose(self) -> None:
        """
        The one pool gets every key.
        """
        pool = Stage(start=False).pool
        router = SinglePool(pool)
        verifyObject(IRouter, router)
        verifyObject(IConnections, pool)
        self.assertEqual([router.choose(key) for key in (b"a", b"b", b"")], [pool] * 3)
        self.assertIs(router.anyOf(), pool)
        self.assertEqual(router.divide([b"a", b"b", b"c"], 9), ([0, 0, 0], [(pool, [b"a", b"b", b"c"])]))
        self.assertEqual(router.divide([b"a", b"b", b"c"], 2), ([0, 0, 1], [(pool, [b"a", b"b"]), (pool, [b"c"])]))
        self.assertEqual(router.pools, (pool,))
