# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.listener}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.proxy.listener import withBacklog


class BacklogTests(SynchronousTestCase):
    """
    Tests for L{withBacklog}.
    """

    def test_backlog(self) -> None:
        """
        Listeners have a long queue, unless they say otherwise, or cannot.
        """
        for description, expected in (
            ("tcp:1", "tcp:1:backlog=1024"),
            ("unix:/x:mode=600", "unix:/x:mode=600:backlog=1024"),
            ("tcp:1:backlog=5", "tcp:1:backlog=5"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
        ):
            self.assertEqual(withBacklog(description), expected)
