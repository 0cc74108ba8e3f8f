# -*- test-case-name: tests.test_report -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.report}.
"""

from __future__ import annotations

import os
import re

from twisted.trial.unittest import SynchronousTestCase

from tests.support import Stage
from txconnpool import __version__
from txconnpool.report import summary
from txconnpool.session import SessionLimits


def told(stage: Stage) -> dict[str, object]:
    """
    @return: what is told a minute and a bit after the start.
    """
    return dict(summary(stage.pool, stage.sessions, 100.0, 160.9))


class SummaryTests(SynchronousTestCase):
    """
    Tests for L{summary}.
    """

    def test_lines(self) -> None:
        """
        Each number has a name of its own without spaces and a value on one line, as programs that read memcached's
        statistics expect.
        """
        stage = Stage(2)
        items = list(summary(stage.pool, stage.sessions, 100.0, 160.9))
        self.assertEqual(len({name for name, _ in items}), len(items))
        text = stage.wire.statistics(items).decode("ascii")
        self.assertRegex(text, r"\A(?:STAT [a-z_]+ [!-~][ -~]*\r\n)+END\r\n\Z")
        self.assertEqual(text.count("\r\n"), len(items) + 1)

    def test_process(self) -> None:
        """
        It tells which process and version this is, and for how long it runs.
        """
        numbers = told(Stage())
        names = ("pid", "uptime", "time", "version", "pool")
        self.assertEqual(
            [numbers[name] for name in names], [os.getpid(), 60, 160, f"txconnpool-{__version__}", "pool"]
        )

    def test_quiet(self) -> None:
        """
        Before anybody has come nothing has been counted but what the connections began with.
        """
        numbers = told(Stage())
        counted = [name for name, value in numbers.items() if name.startswith("cmd_") and value]
        self.assertEqual(counted, ["cmd_version"])
        for name in ("curr_connections", "total_connections", "unread_bytes", "waiting", "request_retries"):
            self.assertEqual(numbers[name], 0, name)
        self.assertEqual([numbers[f"upstream_{name}"] for name in ("servers", "servers_up", "connections")], [1, 1, 1])

    def test_clients(self) -> None:
        """
        Clients are counted: those who are there, who have been, and who were turned away.
        """
        stage = Stage(sessionLimits=SessionLimits(maxClients=2))
        first, _, _ = (stage.client() for _ in range(3))
        first.lose()
        numbers = told(stage)
        names = ("curr_connections", "total_connections", "rejected_connections", "max_connections")
        self.assertEqual([numbers[name] for name in names], [1, 2, 1, 2])

    def test_requests(self) -> None:
        """
        Requests are counted by their command, each of a run for itself, over all servers, and bytes in both directions.
        """
        stage = Stage(2)
        before = told(stage)
        requests = b"get a\r\nget missb\r\nset k 0 0 1\r\nx\r\nmg a v\r\nnonsense\r\n"
        for _ in range(2):
            stage.ask(stage.client(), requests)
        stage.ask(stage.client(), b"flush_all\r\n")
        numbers = told(stage)
        counts = {name: numbers[f"cmd_{name}"] for name in ("get", "set", "mg", "flush_all", "delete")}
        self.assertEqual(counts, {"get": 4, "set": 2, "mg": 2, "flush_all": 2, "delete": 0})
        sent = numbers["bytes_written"], before["bytes_written"]
        assert isinstance(sent[0], int) and isinstance(sent[1], int)
        self.assertEqual(sent[0] - sent[1], 2 * len(requests[:-10]) + 2 * len(b"flush_all\r\n"))

    def test_state(self) -> None:
        """
        It tells what is going on now, and what has happened to connections and requests.
        """
        stage = Stage(depth=1)
        stage.clock.advance(2)
        clients = [stage.client() for _ in range(3)]
        for client in clients:
            client.send(b"get a\r\n")
        numbers = told(stage)
        names = ["upstream_in_flight", "upstream_idle", "waiting"]
        self.assertEqual([numbers[name] for name in names], [1, 0, 2])
        stage.line.lose()
        stage.serve()
        clients[0].send(b"get a\r\n")
        stage.clock.advance(2)
        stage.turns()
        stage.clock.advance(2)
        clients[0].send(b"get a\r\n")
        stage.line.send(b"junk\r\n")
        stage.turns()
        stage.serve()
        numbers = told(stage)
        names = ["upstream_dials", "upstream_lost", "request_retries", "request_timeouts", "upstream_violations"]
        self.assertEqual([numbers[name] for name in names], [4, 3, 2, 1, 1])
        self.assertTrue(re.fullmatch(r"\d+\.\d{6}", str(numbers["wait_seconds"])))

    def test_down(self) -> None:
        """
        A server that is down is not counted among those that are up, nor is what is refused meanwhile forgotten.
        """
        stage = Stage(2, start=False)
        stage.servers[0].mode = stage.servers[1].mode = "refuse"
        stage.pool.start()
        stage.turns()
        stage.ask(stage.client(), b"get a\r\nget b\r\n")
        numbers = told(stage)
        names = ("upstream_servers", "upstream_servers_up", "upstream_ejections", "upstream_dial_failures")
        self.assertEqual([numbers[name] for name in names], [2, 0, 2, 2])
        self.assertEqual(numbers["unavailable"], 1)
