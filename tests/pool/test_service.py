# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.service}.
"""

from __future__ import annotations

from twisted.application.service import IService
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.stage import Stage
from txconnpool.pool.service import PoolService


class PoolServiceTests(SynchronousTestCase):
    """
    Tests for L{PoolService}.
    """

    def test_life(self) -> None:
        """
        The pool connects when the service starts, and closes when it stops.
        """
        stage = Stage(start=False)
        service = PoolService(stage.pool)
        verifyObject(IService, service)
        self.assertEqual(stage.lines, [])
        service.startService()
        stage.turns()
        self.assertTrue(stage.line.connected)
        stopped = service.stopService()
        stage.turns()
        self.successResultOf(stopped)
        self.assertFalse(stage.lines[0].connected)
