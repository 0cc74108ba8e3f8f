# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.decisions.records}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.pool.decisions.records import DIALING, OPEN, Record
from txconnpool.pool.decisions.servers import Server


class ServerTests(SynchronousTestCase):
    """
    Tests for L{Server}.
    """

    def test_up(self) -> None:
        """
        A server is up while it has a connection, whatever the result of the last dial. A dial in progress is not a
        connection.
        """
        server = Server("server0", None)
        self.assertTrue(server.up)
        server.count = server.failures = 1
        self.assertTrue(server.up)
        self.assertEqual(repr(server), "<Server server0: up, 1 connections>")
        server.dialing = 1
        self.assertFalse(server.up)
        self.assertEqual(repr(server), "<Server server0: down, 1 failed dials, 1 connections>")
        server.drained = True
        self.assertEqual(repr(server), "<Server server0: drained, 1 connections>")


class RecordTests(SynchronousTestCase):
    """
    Tests for L{Record}.
    """

    def test_seen(self) -> None:
        """
        C{seenAt} is the later one of the last release and the last check.
        """
        record = Record(Server("server0", None), 4)
        record.freeSince, record.checkedAt = 2.0, 1.0
        self.assertEqual(record.seenAt, 2.0)
        record.checkedAt = 3.0
        self.assertEqual(record.seenAt, 3.0)

    def test_phase(self) -> None:
        """
        A record is dialing at first. Its C{repr} shows phase, load and server.
        """
        record = Record(Server("server0", None), 4)
        self.assertEqual((record.phase, record.connection), (DIALING, None))
        record.phase, record.load = OPEN, 3
        self.assertEqual(repr(record), "<Record open, 3 of 4 in flight, to server0>")
