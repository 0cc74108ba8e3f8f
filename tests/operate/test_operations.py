# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.operations}.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.operate.test_service import A, B, Street
from tests.pipes import Pipe
from txconnpool.config.settings import ConfigError, Settings
from txconnpool.operate.operations import OperationError, Operations, Row, mergeRows, mergeTexts, resized

C = replace(B, name="c", upstream=("memory:", "memory:size=1m"), distribution="round-robin", listen=("tcp:4",))


class OperationsTests(SynchronousTestCase):
    """
    Tests for L{Operations}.
    """

    def setUp(self) -> None:
        """
        Start a proxy.
        """
        self.street = Street(A, C).start()
        self.operations = Operations(self.street.service)

    def rows(self, what: str, most: int = 100) -> list[Row]:
        """
        @return: a table, as JSON carries it.
        """
        rows: list[Row] = json.loads(json.dumps(self.operations.perform("rows", what, most)))
        return rows

    def row(self, what: str, **wanted: str) -> Row:
        """
        @return: the only row that is wanted.
        """
        (row,) = [row for row in self.rows(what) if wanted.items() <= row.items()]
        return row

    def refused(self, *order: Any) -> str:
        """
        @return: why something cannot be done.
        """
        return str(self.assertRaises(OperationError, self.operations.perform, *order))

    def waiting(self, description: str) -> Pipe:
        """
        @return: a client who has asked for something.
        """
        client = self.street.client(description)
        client.send(b"get a\r\n")
        self.street.turns()
        return client

    def test_pools(self) -> None:
        """
        Of each pool there is a row: what it does, has, and may have.
        """
        self.operations.perform("pause", "c")
        self.waiting("tcp:4")
        self.street.client("tcp:1")
        expected = [
            {"pool": "a", "state": "running", "sessions": 1, "waiting": 0, "in-flight": 0, "connections": 1,
             "pool-size": 4, "dialing": 0, "servers": "1 up"},
            {"pool": "c", "state": "paused", "sessions": 1, "waiting": 1, "in-flight": 0, "connections": 2,
             "pool-size": 4, "dialing": 0, "servers": "2 up"},
        ]  # fmt: skip
        self.assertEqual(self.rows("pools"), expected)
        self.operations.perform("drain", "memory:size=1m", False)
        self.assertEqual(self.row("pools", pool="c")["servers"], "1 up, 1 drained")

    def test_servers(self) -> None:
        """
        Of each server of each pool there is a row: its state, what it has in flight, and how it has fared.
        """
        self.street.ask(self.street.client("tcp:1"), b"get a\r\nget b\r\n")
        expected = {"pool": "a", "server": "memory:", "state": "up", "connections": 1, "in-flight": 0, "dials": 1,
                    "failed-dials": 0}  # fmt: skip
        row = self.row("servers", pool="a")
        self.assertEqual(row.pop("requests"), 3)  # the first one was the handshake
        self.assertEqual(row, expected)
        self.assertEqual([row["pool"] for row in self.rows("servers")], ["a", "c", "c"])

    def test_serverDown(self) -> None:
        """
        Of a server that is down the reason is told.
        """
        street = Street(replace(A, upstream=("tcp:127.0.0.1:1",)))
        proxy = street.proxy("a")
        (server,) = proxy.pool.servers
        proxy.pool.markDown(server.name, ConnectionRefusedError("refused"))
        (row,) = Operations(street.service).perform("rows", "servers", 9)
        self.assertEqual(row["state"], "down: refused")
        (row,) = Operations(street.service).perform("rows", "pools", 9)
        self.assertEqual(row["servers"], "1 down")

    def test_sessions(self) -> None:
        """
        Of each session there is a row: its number, where it is, what it does and leaves unread; those with most to do
        come first, and no more than are wanted.
        """
        self.street.client("tcp:1")
        self.operations.perform("pause", None)
        self.waiting("tcp:4")
        reluctant = self.street.client("tcp:1")
        (session,) = [each for each in self.street.proxy("a").sessions.sessions if each.number == 3]
        reluctant.reads = False
        session.pauseProducing()
        session.replied(bytes(5000), 0)
        expected = [
            {"session": "3", "pool": "a", "client": "192.0.2.1:4321", "state": "idle", "in-flight": 0, "unread": 5000},
            {"session": "2", "pool": "c", "client": "192.0.2.1:4321", "state": "waiting", "in-flight": 0, "unread": 0},
            {"session": "1", "pool": "a", "client": "192.0.2.1:4321", "state": "idle", "in-flight": 0, "unread": 0},
        ]
        self.assertEqual(self.rows("sessions"), expected)
        self.assertEqual(self.rows("sessions", 1), expected[:1])

    def test_busySession(self) -> None:
        """
        A session that has something in flight is busy.
        """
        self.street.client("tcp:1").send(b"get a\r\nget b\r\n")
        row = self.row("sessions", pool="a")
        self.assertEqual((row["state"], row["in-flight"]), ("busy", 2))

    def test_pause(self) -> None:
        """
        One pool is paused, or all, and resumed; what was done is said and logged.
        """
        first, second = self.street.client("tcp:1"), self.street.client("tcp:4")
        with capturedLogs() as logs:
            done = self.operations.perform("pause", None)
        self.assertEqual(done, "pools a, c paused: requests wait until `resume`")
        self.assertEqual([event["done"] for event in logs], [done])
        self.assertEqual([self.street.ask(each, b"get a\r\n") for each in (first, second)], [b"", b""])
        self.assertEqual(self.operations.perform("resume", "c"), "pool c resumed")
        self.street.turns()
        self.assertEqual([first.take(), second.take()], [b"", b"END\r\n"])
        self.assertEqual(self.operations.perform("resume", None), "pools a, c resumed")
        self.street.turns()
        self.assertEqual(first.take(), b"END\r\n")

    def test_noPool(self) -> None:
        """
        A pool that is not there is an error that names those that are.
        """
        for order in ("pause", "resume"):
            self.assertEqual(self.refused(order, "z"), "no pool 'z'; there are: a, c")

    def test_drain(self) -> None:
        """
        A server is taken out of all pools that have it, and put back.
        """
        self.assertEqual(
            self.operations.perform("drain", "memory:", False),
            "memory: drained in pools a, c: it gets no requests until `restore memory:`",
        )
        self.street.turns()
        self.assertEqual([row["state"] for row in self.rows("servers")], ["drained", "drained", "up"])
        self.assertEqual([row["connections"] for row in self.rows("servers")][:2], [0, 0])
        self.assertEqual(self.operations.perform("restore", "memory:"), "memory: restored in pools a, c")
        self.street.turns()
        self.assertEqual([row["state"] for row in self.rows("servers")], ["up", "up", "up"])

    def test_drainNow(self) -> None:
        """
        The connections of a server that is drained at once are closed with their requests in flight.
        """
        client = self.street.client("tcp:1")
        client.send(b"set a 0 0 1\r\nx\r\n")
        self.assertEqual(self.row("servers", pool="a")["in-flight"], 1)
        self.assertEqual(
            self.operations.perform("drain", "memory:", True),
            "memory: drained in pools a, c, its connections closed: it gets no requests until `restore memory:`",
        )
        self.street.turns()
        self.assertIn(b"SERVER_ERROR", client.take())
        self.assertEqual(self.row("servers", pool="a")["connections"], 0)

    def test_noServer(self) -> None:
        """
        A server that is not there is an error that names those that are, each once.
        """
        for order in (("drain", "tcp:z:1", False), ("drain", "tcp:z:1", True), ("restore", "tcp:z:1")):
            self.assertEqual(self.refused(*order), "no server 'tcp:z:1'; there are: memory:, memory:size=1m")

    def test_kill(self) -> None:
        """
        A session is closed by its number.
        """
        clients = [self.street.client("tcp:1"), self.street.client("tcp:4")]
        self.assertEqual(self.operations.perform("kill", "2"), "session 2 of pool c closed")
        self.assertEqual([client.aborted for client in clients], [False, True])

    def test_noSession(self) -> None:
        """
        A session that is not there is an error.
        """
        for number in ("9", "x", ""):
            self.assertEqual(self.refused("kill", number), f"no session {number!r}; `show sessions` lists them")


class MergeTests(SynchronousTestCase):
    """
    Tests for what becomes of the tables of several processes.
    """

    def test_numbers(self) -> None:
        """
        Numbers add up and texts that are equal stay; texts that differ are told of each process.
        """
        row = {"pool": "a", "server": "s", "state": "up", "connections": 2}
        other = {**row, "server": "t", "connections": 5}
        parts = {1: [row, other], 2: [{**row, "state": "down: refused", "connections": 1}]}
        self.assertEqual(
            mergeRows("servers", parts, 9),
            [
                {"pool": "a", "server": "s", "state": "worker 1: up worker 2: down: refused", "connections": 3},
                other,
            ],
        )

    def test_sessions(self) -> None:
        """
        Sessions get the numbers of their processes, and those with most to do come first.
        """
        idle = {"session": "1", "unread": 0, "state": "idle", "in-flight": 0}
        parts = {1: [idle], 2: [{**idle, "session": "7", "in-flight": 3}, {**idle, "session": "8", "unread": 1}]}
        rows = mergeRows("sessions", parts, 2)
        self.assertEqual([row["session"] for row in rows], ["2.8", "2.7"])

    def test_mergeTexts(self) -> None:
        """
        What all say is told once.
        """
        self.assertEqual(mergeTexts({1: "yes", 2: "yes"}, ", "), "yes")
        self.assertEqual(mergeTexts({1: "yes", 3: "no"}, ", "), "worker 1: yes, worker 3: no")


class ResizedTests(SynchronousTestCase):
    """
    Tests for L{resized}.
    """

    def test_resized(self) -> None:
        """
        One pool has other bounds; the rest is as it was.
        """
        new = resized(Settings(pools=(A, B)), "b", 2, 9)
        self.assertEqual(new.pools, (A, replace(B, minPoolSize=2, poolSize=9)))

    def test_wrong(self) -> None:
        """
        A pool that is not there, and bounds that cannot be, are errors.
        """
        settings = Settings(pools=(A, B))
        self.assertEqual(
            str(self.assertRaises(OperationError, resized, settings, "z", 1, 2)), "no pool 'z'; there are: a, b"
        )
        self.assertRaises(ConfigError, resized, settings, "a", 3, 2)
