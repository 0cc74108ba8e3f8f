# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the replies to clients that ask for statistics.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.clients import SessionTestCase
from tests.pipes import Pipe
from tests.stage import Stage
from txconnpool.proxy.statistics import FRESH, Shared

ITEMS = b"STAT items:1:number 3\r\nEND\r\n"


class StatisticsTestCase(SessionTestCase):
    """
    Base class of tests with servers that are asked for statistics.
    """

    def reply(self, stage: Stage, request: bytes, *replies: bytes) -> None:
        """
        Expect a request on one connection to each server, and reply.
        """
        stage.turns()
        lines = [line for line in stage.lines if line.connected]
        self.assertEqual([line.take() for line in lines], [request] * len(replies))
        for line, reply in zip(lines, replies, strict=True):
            line.send(reply)
        stage.turns()

    def client(self, stage: Stage, request: bytes) -> Pipe:
        """
        @return: a new client that has sent a request.
        """
        client = stage.client()
        client.send(request)
        return client


class ServersTests(StatisticsTestCase):
    """
    Tests for the statistics of the servers.
    """

    def test_general(self) -> None:
        """
        C{stats} has the totals of the servers, and the proxy's own statistics with C{proxy_} before their names.
        """
        stage = self.stage(2)
        client = self.client(stage, b"stats\r\n")
        self.reply(stage, b"stats\r\n", b"STAT curr_items 3\r\nEND\r\n", b"STAT curr_items 40\r\nEND\r\n")
        self.assertEqual(client.take(), b"STAT curr_items 43\r\nSTAT proxy_answer 42\r\nEND\r\n")

    def test_group(self) -> None:
        """
        The groups of one server are unchanged, those of several are blocks.
        """
        stage = self.stage()
        client = self.client(stage, b"stats items\r\n")
        self.reply(stage, b"stats items\r\n", ITEMS)
        self.assertEqual(client.take(), ITEMS)
        stage = self.stage(2)
        client = self.client(stage, b"stats items\r\n")
        self.reply(stage, b"stats items\r\n", ITEMS, ITEMS)
        self.assertEqual(client.take().count(b":items:items:1:number 3\r\n"), 2)

    def test_shared(self) -> None:
        """
        Many clients cost the servers one question in a second.
        """
        stage = self.stage()
        clients = [self.client(stage, b"stats items\r\n") for _ in range(20)]
        self.reply(stage, b"stats items\r\n", ITEMS)
        clients.append(self.client(stage, b"stats items\r\n"))
        stage.clock.advance(FRESH / 2)
        clients.append(self.client(stage, b"stats items\r\n"))
        stage.turns()
        self.assertEqual(stage.line.take(), b"")
        self.assertEqual({client.take() for client in clients}, {ITEMS})
        stage.clock.advance(FRESH / 2)
        self.client(stage, b"stats items\r\n")
        stage.turns()
        self.assertEqual(stage.line.take(), b"stats items\r\n")

    def test_separate(self) -> None:
        """
        Different groups are different questions, and C{stats upstream} is the same as C{stats}.
        """
        stage = self.stage()
        for request in (b"stats\r\n", b"stats slabs\r\n"):
            self.client(stage, request)
            self.reply(stage, request, b"END\r\n")
        for request in (b"stats upstream\r\n", b"stats upstream slabs\r\n"):
            client = self.client(stage, request)
            stage.turns()
            self.assertEqual((stage.line.take(), client.take()), (b"", b"END\r\n"))

    def test_changing(self) -> None:
        """
        A request that changes the servers is sent each time.
        """
        stage = self.stage()
        for request, reply in ((b"stats reset\r\n", b"RESET\r\n"), (b"stats detail on\r\n", b"OK\r\n")):
            for _ in range(2):
                client = self.client(stage, request)
                self.reply(stage, request, reply)
                self.assertEqual(client.take(), reply)

    def test_afterChange(self) -> None:
        """
        Statistics that were asked for after a change show it: no reply of before is shared, nor one to a question that
        was asked before. The other processes may know only replies of before, so they are not asked for a while.
        """
        stage = self.stage()
        others: list[tuple[bytes, ...]] = []

        def ask(words: tuple[bytes, ...]) -> Deferred[Any]:
            others.append(words)
            return stage.sessions.replies.askHere(words)

        stage.sessions.replies.askServers = ask
        self.client(stage, b"stats items\r\n")
        self.reply(stage, b"stats items\r\n", ITEMS)
        early = self.client(stage, b"stats slabs\r\n")
        stage.turns()
        self.client(stage, b"stats reset\r\n")
        stage.turns()
        self.assertEqual(stage.line.take(), b"stats slabs\r\nstats reset\r\n")
        stage.line.send(b"STAT old 1\r\nEND\r\nRESET\r\n")
        stage.turns()
        self.assertEqual(early.take(), b"STAT old 1\r\nEND\r\n")
        for request in (b"stats items\r\n", b"stats slabs\r\n", b"stats\r\n"):
            client = self.client(stage, request)
            self.reply(stage, request, b"END\r\n")
            self.assertNotIn(b"old", client.take())
        self.assertEqual(others, [(b"items",), (b"slabs",)])
        stage.clock.advance(FRESH)
        self.client(stage, b"stats items\r\n")
        self.reply(stage, b"stats items\r\n", ITEMS)
        self.assertEqual(others[2:], [(b"items",)])

    def test_down(self) -> None:
        """
        A server that is down is missing in the totals. It is an error only if all are down.
        """
        stage = self.stage(2)
        stage.servers[0].mode = "refuse"
        stage.lines[0].lose()
        stage.turns()
        client = self.client(stage, b"stats\r\n")
        self.reply(stage, b"stats\r\n", b"STAT curr_items 3\r\nEND\r\n")
        self.assertEqual(client.take(), b"STAT curr_items 3\r\nSTAT proxy_answer 42\r\nEND\r\n")
        client = self.client(stage, b"stats items\r\n")
        self.reply(stage, b"stats items\r\n", ITEMS)
        self.assertRegex(client.take(), rb"STAT server:1:items:error SERVER_ERROR upstream unavailable: [^\r]*\r\n")
        stage.servers[1].mode = "refuse"
        stage.lines[1].lose()
        stage.turns()
        stage.clock.advance(FRESH)
        self.assertRegex(
            stage.ask(stage.client(), b"stats\r\n"), rb"\ASERVER_ERROR upstream unavailable: [^\r]* \(server0\)\r\n\Z"
        )

    def test_frozen(self) -> None:
        """
        A server that does not answer costs one timeout, which all clients share.
        """
        stage = self.stage(2, requestTimeout=2.0)
        clients = [self.client(stage, b"stats\r\n") for _ in range(10)]
        stage.turns()
        self.assertEqual([line.take() for line in stage.lines], [b"stats\r\n"] * 2)
        stage.lines[1].send(b"STAT curr_items 3\r\nEND\r\n")
        stage.clock.advance(1.9)
        clients += [self.client(stage, b"stats\r\n") for _ in range(10)]
        stage.clock.advance(0.2)
        stage.turns()
        self.assertEqual(
            {client.take() for client in clients}, {b"STAT curr_items 3\r\nSTAT proxy_answer 42\r\nEND\r\n"}
        )
        late = self.client(stage, b"stats\r\n")
        stage.turns()
        self.assertTrue(late.take().startswith(b"STAT curr_items 3\r\n"))

    def test_connects(self) -> None:
        """
        If the only server has no connection, one is made.
        """
        stage = self.stage(minimum=0, maximum=1)
        self.assertEqual(stage.lines, [])
        client = self.client(stage, b"stats items\r\n")
        self.reply(stage, b"stats items\r\n", ITEMS)
        self.assertEqual(client.take(), ITEMS)

    def test_asked(self) -> None:
        """
        If another process asks the servers, nothing is sent from here, and the age of the replies counts.
        """
        stage = self.stage()
        asked = []

        def ask(words: tuple[bytes, ...]) -> Deferred[Any]:
            asked.append(words)
            return succeed(([("server0", b"STAT curr_items 3\r\nEND\r\n")], FRESH / 2))

        stage.sessions.replies.askServers = ask
        for _ in range(2):
            reply = stage.ask(stage.client(), b"stats\r\n")
            self.assertEqual(reply, b"STAT curr_items 3\r\nSTAT proxy_answer 42\r\nEND\r\n")
        stage.clock.advance(FRESH / 2)
        stage.ask(stage.client(), b"stats\r\n")
        self.assertEqual(asked, [(), ()])
        self.assertEqual(stage.line.asked, [])

    def test_gone(self) -> None:
        """
        A client that leaves while the servers are asked does not matter to others.
        """
        stage = self.stage()
        gone, stays = (self.client(stage, b"stats items\r\n") for _ in range(2))
        stage.turns()
        gone.lose()
        self.reply(stage, b"stats items\r\n", ITEMS)
        self.assertEqual(stays.take(), ITEMS)


class SharedTests(SynchronousTestCase):
    """
    Tests for L{Shared}.
    """

    def setUp(self) -> None:
        """
        Make a clock, and a function with results of the test.
        """
        self.clock = Clock()
        self.shared = Shared(self.clock.seconds)
        self.results: list[Deferred[tuple[Any, float]]] = []

    def ask(self) -> Deferred[tuple[Any, float]]:
        """
        @return: a result that the test provides.
        """
        self.results.append(Deferred())
        return self.results[-1]

    def test_kept(self) -> None:
        """
        A result is kept until it is too old, counted from its age.
        """
        got = self.shared.get("key", self.ask)
        self.results[0].callback(("one", FRESH / 4))
        self.assertEqual(self.successResultOf(got), ("one", FRESH / 4))
        self.clock.advance(FRESH / 2)
        self.assertEqual(self.successResultOf(self.shared.get("key", self.ask)), ("one", FRESH * 0.75))
        self.clock.advance(FRESH / 4)
        self.assertNoResult(self.shared.get("key", self.ask))
        self.assertEqual(len(self.results), 2)

    def test_failed(self) -> None:
        """
        A failure concerns those who waited, and is not kept.
        """
        waiting = [self.shared.get("key", self.ask) for _ in range(2)]
        self.results[0].errback(ZeroDivisionError())
        for each in waiting:
            self.failureResultOf(each, ZeroDivisionError)
        self.assertNoResult(self.shared.get("key", self.ask))
        self.assertEqual(len(self.results), 2)

    def test_raises(self) -> None:
        """
        An exception is a failure.
        """
        self.failureResultOf(self.shared.get("key", lambda: 1 / 0), ZeroDivisionError)  # type: ignore[arg-type,return-value]

    def test_bounded(self) -> None:
        """
        Old results are dropped, and so are results from the future after the clock was set back.
        """
        for number in range(10):
            self.shared.get(number, lambda: succeed((0, 0.0)))
            self.clock.advance(FRESH)
        self.assertEqual(len(self.shared._results), 1)
        later = Shared(iter([5.0, 5.0, 0.0, 0.0]).__next__)
        for _ in range(2):
            later.get("key", partial(succeed, (re, 0.0)))
        self.assertEqual(list(later._results.values()), [(0.0, re)])
