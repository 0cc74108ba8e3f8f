# -*- test-case-name: tests.test_sessions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.sessions}: who may come, what is asked of every server, how all end.
"""

from __future__ import annotations

import os
import resource

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from tests.clients import LOST, STATISTICS, SessionTestCase, get, put
from tests.support import Pipe
from txconnpool import sessions
from txconnpool.session import SessionLimits
from txconnpool.sessions import FAREWELL


class RoomTests(SessionTestCase):
    """
    Tests for the bound on clients, and on files.
    """

    def test_tooMany(self) -> None:
        """
        One client more than may be is told so and closed; when another has left there is room again.
        """
        stage = self.stage(sessionLimits=SessionLimits(maxClients=2))
        first, _ = stage.client(), stage.client()
        third = stage.client()
        stage.turns()
        self.assertEqual((third.take(), third.connected), (b"ERROR Too many open connections\r\n", False))
        self.assertEqual((stage.sessions.accepted, stage.sessions.refused), (2, 1))
        first.lose()
        self.assertEqual(stage.ask(stage.client(), b"get a\r\n"), get(b"a"))
        self.assertEqual((stage.sessions.accepted, stage.sessions.refused), (3, 1))

    def test_fewFiles(self) -> None:
        """
        While the process has few files left to open clients are refused, which is logged once; those that are in stay.
        """
        stage = self.stage()
        old = stage.client()
        left = [100]
        self.patch(sessions, "SPARE", 50)
        number = os.open(os.devnull, os.O_RDONLY)
        os.close(number)
        self.patch(sessions, "_fileLimit", lambda: number + left[0])
        with capturedLogs() as events:
            for _ in range(3):
                self.assertEqual(stage.ask(stage.client(), b"get a\r\n"), get(b"a"))
            left[0] = 20
            for _ in range(3):
                client = stage.client()
                stage.turns()
                self.assertEqual((client.take(), client.connected), (b"ERROR Too many open connections\r\n", False))
            self.assertEqual(stage.ask(old, b"get a\r\n"), get(b"a"))
            left[0] = 100
            self.assertEqual(stage.ask(stage.client(), b"get a\r\n"), get(b"a"))
        told = [event["what"] for event in events if event["log_namespace"].startswith("txconnpool")]
        self.assertEqual(
            told, ["clients are refused: the process may open no more files", "clients are welcome again"]
        )
        self.assertEqual((stage.sessions.accepted, stage.sessions.refused), (5, 3))

    def test_noFiles(self) -> None:
        """
        If no file can be opened at all, that is few.
        """

        def refuse(path: str, flags: int) -> int:
            raise OSError

        self.assertFalse(sessions.scarce())
        self.patch(os, "open", refuse)
        self.assertTrue(sessions.scarce())

    def test_noLimit(self) -> None:
        """
        Where there is no limit, files are never few.
        """
        self.patch(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.assertFalse(sessions.scarce())

    def test_tooManyAndSlow(self) -> None:
        """
        One client more than may be that does not take the news is not waited for.
        """
        stage = self.stage(sessionLimits=SessionLimits(maxClients=0))
        client = Pipe(stage.clock)
        client.reads = False
        client.connect(stage.sessions.buildProtocol(None))
        stage.clock.advance(FAREWELL - 0.1)
        self.assertEqual((client.connected, client.aborted), (True, False))
        stage.clock.advance(0.2)
        self.assertEqual((client.connected, client.aborted), (False, True))


class EverywhereTests(SessionTestCase):
    """
    Tests for requests to all servers.
    """

    def test_all(self) -> None:
        """
        Every server is asked, the client has one answer.
        """
        stage = self.stage(3)
        client = stage.client()
        self.assertEqual(stage.ask(client, b"flush_all 10\r\n"), b"OK\r\n")
        self.assertEqual([line.asked for line in stage.lines], [[b"flush_all 10\r\n"]] * 3)

    def test_order(self) -> None:
        """
        It waits for what was asked before it, and what comes behind it waits for all servers.
        """
        stage = self.stage(2)
        client = stage.client()
        client.send(b"get a\r\nflush_all\r\nget b\r\nx\r\n")
        asked = [line for line in stage.lines if line.received]
        self.assertEqual(len(asked), 1)
        asked[0].deliver()
        self.assertEqual(client.take(), get(b"a"))
        stage.lines[0].deliver()
        self.assertEqual(client.take(), b"")
        stage.lines[1].deliver()
        self.assertEqual(client.take(), b"OK\r\n")
        stage.serve()
        self.assertEqual(client.take(), get(b"b") + b"ERROR\r\n")

    def test_noreply(self) -> None:
        """
        Who wants no answer gets none, in failure too.
        """
        stage = self.stage(2)
        client = stage.client()
        self.assertEqual(stage.ask(client, b"flush_all noreply\r\nmn\r\n"), b"MN\r\n")
        self.assertEqual([line.asked[0] for line in stage.lines], [b"flush_all\r\n"] * 2)
        stage.servers[0].mode = "refuse"
        stage.servers[0].open[0].lose()
        self.assertEqual(stage.ask(client, b"flush_all noreply\r\nmn\r\n"), b"MN\r\n")

    def test_error(self) -> None:
        """
        One server's error is everybody's.
        """
        stage = self.stage(2)
        client = stage.client()
        client.send(b"flush_all\r\n")
        stage.lines[0].look()
        stage.lines[0].owed = b"CLIENT_ERROR flush_all not allowed\r\n"
        stage.serve()
        self.assertEqual(client.take(), b"CLIENT_ERROR flush_all not allowed\r\n")

    def test_down(self) -> None:
        """
        When one server is down, the client is told which.
        """
        stage = self.stage(2)
        stage.servers[1].mode = "refuse"
        stage.servers[1].open[0].lose()
        stage.turns()
        client = stage.client()
        line = b"SERVER_ERROR upstream unavailable: connection refused (server1)\r\n"
        self.assertEqual(stage.ask(client, b"flush_all\r\nget a\r\n"), line + get(b"a"))

    def test_lost(self) -> None:
        """
        A connection that is lost on the way is an error; the session goes on.
        """
        stage = self.stage(2)
        client = stage.client()
        client.send(b"flush_all\r\nget a\r\n")
        stage.lines[1].lose()
        stage.serve()
        self.assertEqual(client.take(), LOST.replace(b"0", b"1") + get(b"a"))

    def test_vanished(self) -> None:
        """
        A client that is gone when the servers answer does no harm.
        """
        stage = self.stage(2)
        client = stage.client()
        client.send(b"flush_all\r\nget a\r\n")
        client.lose()
        stage.serve()
        self.assertEqual([line.asked for line in stage.lines], [[b"flush_all\r\n"]] * 2)

    def test_fullConnection(self) -> None:
        """
        Connections that carry as much as they may still take it.
        """
        stage = self.stage(2, depth=1)
        clients = [stage.client() for _ in range(3)]
        for client in clients:
            client.send(b"get a\r\n")
        other = stage.client()
        other.send(b"flush_all\r\n")
        stage.serve()
        self.assertEqual(other.take(), b"OK\r\n")
        self.assertEqual([client.take() for client in clients], [get(b"a")] * 3)


class DrainTests(SessionTestCase):
    """
    Tests for the end of all sessions.
    """

    def test_none(self) -> None:
        """
        Without sessions there is nothing to wait for.
        """
        self.assertIsNone(self.successResultOf(self.stage().sessions.drain()))

    def test_drain(self) -> None:
        """
        What was read is answered, then sessions are closed; those that are owed nothing at once.
        """
        stage = self.stage(depth=1)
        busy, waiting, idle, half = (stage.client() for _ in range(4))
        busy.send(b"get a\r\nget b\r\n")
        waiting.send(b"get c\r\nget d")
        half.send(put(b"k", 100)[:-20])
        done = [stage.sessions.drain(), stage.sessions.drain()]
        stage.turns()
        self.assertEqual([client.connected for client in (busy, waiting, idle, half)], [True, True, False, False])
        busy.send(b"get e\r\n")
        for each in done:
            self.assertNoResult(each)
        stage.serve()
        self.assertEqual((busy.take(), waiting.take()), (get(b"a", b"b"), get(b"c")))
        for each in done:
            self.assertIsNone(self.successResultOf(each))

    def test_statistics(self) -> None:
        """
        What is asked of us, or of all servers, is answered before the end, too.
        """
        stage = self.stage(2)
        client = stage.client()
        client.send(b"get a\r\nstats\r\nflush_all\r\n")
        done = stage.sessions.drain()
        stage.serve()
        self.assertEqual(client.take(), get(b"a") + STATISTICS + b"OK\r\n")
        self.successResultOf(done)

    def test_abort(self) -> None:
        """
        Sessions that do not end in time are closed by force.
        """
        stage = self.stage()
        busy, slow = stage.client(), stage.client()
        slow.reads = False
        slow.send(b"get a\r\n")
        stage.serve()
        busy.send(b"get a\r\n")
        done: Deferred[None] = stage.sessions.drain()
        stage.turns()
        self.assertEqual(len(stage.sessions.sessions), 2)
        stage.sessions.abort()
        self.assertNoResult(done)
        stage.turns()
        self.successResultOf(done)
        self.assertTrue(busy.aborted and slow.aborted)
