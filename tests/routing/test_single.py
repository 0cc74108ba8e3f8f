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
from txconnpool.wire.memcache.replies import GET, SEVERAL


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
        request = b"get a b c\r\n"
        self.assertEqual(router.divide(SEVERAL[GET], [request], 9), ([[0, 0, 0]], [(pool, request, 3)]))
        self.assertEqual(
            router.divide(SEVERAL[GET], [request], 2),
            ([[0, 0, 1]], [(pool, b"get a b\r\n", 2), (pool, b"get c\r\n", 1)]),
        )
        self.assertEqual(router.pools, (pool,))
