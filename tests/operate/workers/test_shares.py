# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.workers.shares}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.operate.workers.shares import shares

A = PoolSettings(name="a", listen=("tcp:1",), maxClients=3)


class SharesTests(SynchronousTestCase):
    """
    Tests for L{shares}.
    """

    def test_shares(self) -> None:
        """
        The shares of divided bounds add up to those of the settings. The maximum of clients and the console are not
        divided.
        """
        pool = replace(A, poolSize=7, minPoolSize=5, maxWaiting=11)
        settings = Settings(pools=(pool,), workers=3, maxUnreadBytes=90 << 20, admin="unix:/x")
        parts = list(shares(settings, 3))
        for name, whole in (("poolSize", 7), ("minPoolSize", 5), ("maxWaiting", 11)):
            self.assertEqual(sum(getattr(part.pools[0], name) for part in parts), whole, name)
        self.assertEqual([part.maxUnreadBytes for part in parts], [30 << 20] * 3)
        self.assertEqual([(part.workers, part.admin, part.pools[0].maxClients) for part in parts], [(1, None, 3)] * 3)
