# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.dumping} and L{txconnpool.proxy.separate}: dumps of keys, over sessions, a pool and servers
in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.memcached import Line
from tests.pipes import HIGH_WATER
from tests.stage import ShardedStage, Stage, assertClosed, assertTidy
from txconnpool.proxy.dumping import LOOKS, STALLED
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.separate import SEPARATE_MAX

ALL = b"lru_crawler metadump all\r\n"
CACHED = b"stats cachedump 1 0\r\n"


def lines(first: int, count: int = 3) -> bytes:
    """
    @return: the lines of some keys.
    """
    return b"".join(
        b"key=k%d exp=-1 la=1 cas=1 fetch=no cls=1 size=64\n" % number for number in range(first, first + count)
    )


class DumpTests(SynchronousTestCase):
    """
    A client asks for the keys of all servers.
    """

    def stage(self, kind: type[Stage] = Stage, **settings: Any) -> Stage:
        """
        @return: a stage. It is closed at the end of the test.
        """
        stage = kind(**settings)
        self.addCleanup(assertClosed, self, stage)
        self.addCleanup(stage.turns)
        self.addCleanup(stage.sessions.abort)
        for pool in stage.sessions.router.pools:
            self.addCleanup(assertTidy, self, pool, False)
        return stage

    def separate(self, stage: Stage, number: int = 0) -> Line:
        """
        @return: the latest connection to a server.
        """
        stage.turns()
        line = stage.servers[number].lines[-1]
        line.look()
        return line

    def dumping(self) -> tuple[Stage, Any, Line, int]:
        """
        Let a client ask for all keys and read nothing, until the server is not read any more.

        @return: the stage, the client, the connection to the server, and how many lines the server has sent.
        """
        stage = self.stage()
        client = stage.client()
        client.send(ALL)
        line = self.separate(stage)
        client.reads = False
        sent = 0
        while line.reading:
            line.send(lines(sent, 100))
            sent += 100
            self.assertLess(client.unread, 2 * HIGH_WATER)
        return stage, client, line, sent

    def test_one(self) -> None:
        """
        The reply of one server is passed on as it comes, on a connection of its own, which is closed then. Later
        requests of the client wait for it, those of others do not.
        """
        stage = self.stage()
        client, other = stage.client(), stage.client()
        for request, some, end in (
            (ALL, lines(0), b"END\r\n"),
            (b"lru_crawler mgdump all\r\n", b"mg k0\r\nmg YQ== b\r\n", b"EN\r\n"),
            (CACHED, b"ITEM k [3 b; 0 s]\r\n" * 2, b"END\r\n"),
        ):
            client.send(b"mn\r\n" + request + b"mn\r\n")
            stage.serve()
            line = self.separate(stage)
            self.assertEqual((line.asked, client.take()), ([request], b"MN\r\n"))
            self.assertEqual(stage.ask(other, b"mn\r\n"), b"MN\r\n")
            line.send(some[:-3])
            self.assertTrue(some.startswith(client.received))
            self.assertTrue(client.received)
            line.send(some[-3:] + end)
            stage.turns()
            self.assertFalse(line.connected)
            stage.serve()
            self.assertEqual(client.take(), some + end + b"MN\r\n")
            self.assertEqual(len(stage.line.asked), 3)
            stage.line.asked.clear()

    def test_split(self) -> None:
        """
        The bytes of the server may be split anywhere.
        """
        stage = self.stage()
        for request, reply in ((ALL, lines(0) + b"END\r\n"), (CACHED, b"ITEM k [3 b; 0 s]\r\n" * 2 + b"END\r\n")):
            for at in range(1, len(reply)):
                client = stage.client()
                client.send(request)
                line = self.separate(stage)
                line.send(reply[:at])
                line.send(reply[at:])
                stage.turns()
                self.assertEqual(client.take(), reply)

    def test_errors(self) -> None:
        """
        An error of a server that has sent nothing else is the reply.
        """
        stage = self.stage()
        client = stage.client()
        for error in (
            b"BUSY currently processing crawler request\r\n",
            b"BADCLASS invalid class id\r\n",
            b"NOTSTARTED no items to crawl\r\n",
            b"ERROR metadump not allowed\r\n",
            b"ERROR\r\n",
            b"CLIENT_ERROR lru crawler disabled\r\n",
        ):
            client.send(ALL)
            self.separate(stage).send(error)
            stage.turns()
            self.assertEqual(client.take(), error)
        self.assertEqual(stage.ask(client, b"mn\r\n"), b"MN\r\n")

    def test_several(self) -> None:
        """
        The lines of several servers become one reply, in the order of the servers, with one end.
        """
        for kind in (Stage, ShardedStage):
            stage = self.stage(kind, servers=3)
            client = stage.client()
            client.send(ALL)
            for number in range(3):
                line = self.separate(stage, number)
                self.assertEqual(line.asked, [ALL])
                line.send((lines(10 * number) if number != 1 else b"") + b"END\r\n")
                stage.turns()
                self.assertFalse(line.connected)
            self.assertEqual(client.take(), lines(0) + lines(20) + b"END\r\n")

    def test_fails(self) -> None:
        """
        A server that fails gives an error. After lines of others the client is closed, because it waits for an end.
        """
        for number in (0, 2):
            stage = self.stage(servers=3)
            client = stage.client()
            stage.servers[number].mode = "refuse"
            client.send(ALL)
            for before in range(number):
                self.separate(stage, before).send(lines(before) + b"END\r\n")
            stage.turns()
            error = b"SERVER_ERROR upstream unavailable: connection refused (server%d)\r\n" % number
            self.assertEqual(client.take(), b"".join(map(lines, range(number))) + error)
            self.assertEqual(client.closing, number > 0)

    def test_lost(self) -> None:
        """
        The client gets an error if the connection is lost, or if the server sends another reply or none in time.
        """
        foreign = b"VALUE a 0 1\r\nx\r\nEND\r\n"
        for sent, seen, error in (
            (None, lines(0), b"SERVER_ERROR upstream connection lost (server0)\r\n"),
            (foreign, lines(0), b"SERVER_ERROR upstream protocol error (server0)\r\n"),
        ):
            stage = self.stage()
            client = stage.client()
            client.send(ALL)
            line = self.separate(stage)
            line.send(lines(0))
            if sent is None:
                line.lose()
            else:
                line.send(sent)
            stage.turns()
            self.assertEqual(client.take(), seen[:-1] + error)
            self.assertTrue(client.closing)
        stage = self.stage()
        client = stage.client()
        client.send(ALL + b"mn\r\n")
        self.separate(stage)
        stage.clock.pump([30.0, 30.1, 0, 0, 0])
        stage.serve()
        self.assertEqual(client.take(), b"SERVER_ERROR upstream timed out: no answer within 60 s (server0)\r\nMN\r\n")

    def test_unread(self) -> None:
        """
        While the client does not read, the server is not read. Then the client gets everything.
        """
        stage, client, line, sent = self.dumping()
        stage.clock.advance(STALLED - 1)
        client.reads = True
        client.read()
        self.assertTrue(line.reading)
        line.send(b"END\r\n")
        stage.turns()
        self.assertEqual(client.take(), lines(0, sent) + b"END\r\n")

    def test_stalled(self) -> None:
        """
        A client that reads nothing is closed after a time, and so is its connection.
        """
        stage, client, line, _ = self.dumping()
        stage.clock.pump([STALLED / LOOKS] * LOOKS)
        stage.turns()
        self.assertTrue(client.aborted)
        self.assertFalse(line.connected)
        self.assertEqual(stage.unread.total, 0)

    def test_slow(self) -> None:
        """
        A client that reads slowly is served, however long it takes: its server is not late meanwhile. One that stops
        reading is closed.
        """
        for stops in (False, True):
            stage, client, line, sent = self.dumping()
            while client.unread > 1000:
                stage.clock.pump([STALLED / 2, STALLED / 2 - 1])
                client.read(1000)
                self.assertTrue(client.connected and line.connected and not line.reading)
            self.assertGreater(stage.clock.seconds(), 60 * STALLED)
            if stops:
                stage.clock.pump([STALLED / LOOKS] * (LOOKS + 1))
                stage.turns()
                self.assertEqual((client.aborted, line.connected), (True, False))
                continue
            client.reads = True
            client.read()
            self.assertTrue(line.reading)
            line.send(b"END\r\n")
            stage.turns()
            self.assertEqual(client.take(), lines(0, sent) + b"END\r\n")

    def test_silent(self) -> None:
        """
        When the client has read everything, the server may be late again.
        """
        stage, client, line, _ = self.dumping()
        stage.clock.advance(STALLED - 1)
        client.reads = True
        client.read()
        stage.clock.pump([59.0, 0, 0])
        self.assertTrue(line.connected)
        stage.clock.pump([1.0, 0, 0, 0])
        stage.turns()
        self.assertEqual((client.connected, line.connected), (False, False))

    def test_gone(self) -> None:
        """
        If the client leaves, nothing is left, whether or not there is a connection.
        """
        for connects in (True, False):
            stage = self.stage()
            client = stage.client()
            stage.servers[0].mode = "connect" if connects else "hang"
            client.send(ALL)
            stage.turns()
            client.lose()
            stage.turns()
            self.assertEqual(len([line for line in stage.lines if line.connected]), 1)

    def test_most(self) -> None:
        """
        Only one client gets a dump at a time.
        """
        stage = self.stage()
        clients = [stage.client() for _ in range(SEPARATE_MAX + 1)]
        for client in clients:
            client.send(ALL)
            stage.turns()
        self.assertEqual(clients[-1].take(), b"SERVER_ERROR another dump of keys is under way\r\n")
        stage.lines[-1].send(b"END\r\n")
        stage.turns()
        clients[-1].send(ALL)
        self.separate(stage).send(b"END\r\n")
        stage.turns()
        self.assertEqual(clients[-1].take(), b"END\r\n")

    def test_mostOfSeveral(self) -> None:
        """
        With several servers as many clients get their dumps, although each needs one connection after another.
        """
        stage = self.stage(ShardedStage)
        clients = [stage.client() for _ in range(SEPARATE_MAX + 1)]
        for client in clients:
            client.send(ALL)
        for server in stage.servers:
            stage.turns()
            for line in server.lines[-SEPARATE_MAX:]:
                line.send(lines(0) + b"END\r\n")
        stage.turns()
        *served, refused = (client.take() for client in clients)
        self.assertEqual(served, [lines(0) * 3 + b"END\r\n"] * SEPARATE_MAX)
        self.assertIn(b"under way", refused)
        for client in clients[:-1]:
            client.send(ALL)
            stage.turns()
            self.assertEqual(client.take(), b"")  # it has begun

    def test_none(self) -> None:
        """
        Without servers there is an error.
        """
        stage = self.stage()
        stage.servers.clear()
        client = stage.client()
        client.send(ALL)
        self.assertEqual(client.take(), b"SERVER_ERROR the pool has no servers\r\n")

    def test_refused(self) -> None:
        """
        C{key-dumps = no}: clients get memcached's errors. One that waits for C{END} is closed.
        """
        stage = self.stage(sessionLimits=SessionLimits(keyDumps=False))
        client = stage.client()
        self.assertEqual(stage.ask(client, CACHED + b"mn\r\n"), b"CLIENT_ERROR stats cachedump not allowed\r\nMN\r\n")
        self.assertEqual(stage.ask(client, ALL + b"mn\r\n"), b"ERROR metadump not allowed\r\n")
        self.assertTrue(client.closing)
        self.assertEqual(len(stage.lines), 1)
