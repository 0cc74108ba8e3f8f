# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.operations}.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.operate.harness import A, B, ProxyHarness
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
        self.harness = ProxyHarness(A, C).start()
        self.operations = Operations(self.harness.service)

    def rows(self, what: str, most: int = 100) -> list[Row]:
        """
        @return: a table, after a way through JSON.
        """
        rows: list[Row] = json.loads(json.dumps(self.operations.perform("rows", what, most)))
        return rows

    def row(self, what: str, **wanted: str) -> Row:
        """
        @return: the only row that has some values.
        """
        (row,) = [row for row in self.rows(what) if wanted.items() <= row.items()]
        return row

    def refused(self, *order: Any) -> str:
        """
        @return: the error of an operation.
        """
        return str(self.assertRaises(OperationError, self.operations.perform, *order))

    def waiting(self, description: str) -> Pipe:
        """
        @return: a client that has sent a request.
        """
        client = self.harness.client(description)
        client.send(b"get a\r\n")
        self.harness.turns()
        return client

    def test_pools(self) -> None:
        """
        The table of pools has a row for each: its state, its numbers and its bounds.
        """
        self.operations.perform("pause", "c")
        self.waiting("tcp:4")
        self.harness.client("tcp:1")
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
        The table of servers has a row for each server of each pool: its state and its numbers.
        """
        self.harness.ask(self.harness.client("tcp:1"), b"get a\r\nget b\r\n")
        expected = {"pool": "a", "server": "memory:", "weight": "-", "label": "-", "keys": "-", "state": "up",
                    "connections": 1, "in-flight": 0, "dials": 1, "failed-dials": 0}  # fmt: skip
        row = self.row("servers", pool="a")
        self.assertEqual(row.pop("requests"), 2)  # the handshake is not counted
        self.assertEqual(row, expected)
        self.assertEqual([row["pool"] for row in self.rows("servers")], ["a", "c", "c"])

    def test_serverDown(self) -> None:
        """
        The state of a server that is down has the reason.
        """
        harness = ProxyHarness(replace(A, upstream=("tcp:127.0.0.1:9",)))
        proxy = harness.proxy("a")
        (server,) = proxy.pool.servers
        proxy.pool.markDown(server.name, ConnectionRefusedError("refused"))
        (row,) = Operations(harness.service).perform("rows", "servers", 9)
        self.assertEqual(row["state"], "down: refused")
        (row,) = Operations(harness.service).perform("rows", "pools", 9)
        self.assertEqual(row["servers"], "1 down")

    def test_sessions(self) -> None:
        """
        The table of sessions has a row for each: its number, address, state and numbers. The busiest come first, up to
        the number that is asked for.
        """
        self.harness.client("tcp:1")
        self.operations.perform("pause", None)
        self.waiting("tcp:4")
        reluctant = self.harness.client("tcp:1")
        (session,) = [each for each in self.harness.proxy("a").sessions.sessions if each.number == 3]
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
        A session with requests in flight is busy.
        """
        self.harness.client("tcp:1").send(b"get a\r\nget b\r\n")
        row = self.row("sessions", pool="a")
        self.assertEqual((row["state"], row["in-flight"]), ("busy", 2))

    def test_pause(self) -> None:
        """
        One pool or all of them are paused and resumed. The result is logged.
        """
        first, second = self.harness.client("tcp:1"), self.harness.client("tcp:4")
        with capturedLogs() as logs:
            done = self.operations.perform("pause", None)
        self.assertEqual(done, "pools a, c paused: requests wait until `resume`")
        self.assertEqual([event["done"] for event in logs], [done])
        self.assertEqual([self.harness.ask(each, b"get a\r\n") for each in (first, second)], [b"", b""])
        self.assertEqual(self.operations.perform("resume", "c"), "pool c resumed")
        self.harness.turns()
        self.assertEqual([first.take(), second.take()], [b"", b"END\r\n"])
        self.assertEqual(self.operations.perform("resume", None), "pools a, c resumed")
        self.harness.turns()
        self.assertEqual(first.take(), b"END\r\n")

    def test_reconnect(self) -> None:
        """
        All connections of a pool are replaced when they carry nothing. Requests in flight are answered.
        """
        client = self.harness.client("tcp:4")
        before = {name: self.harness.proxy(name).pool.connections for name in "ac"}
        client.send(b"get a\r\n")
        with capturedLogs() as logs:
            done = self.successResultOf(self.operations.perform("reconnect", "c"))
        self.assertEqual(done, "pool c: connections are replaced, each when its successor is there")
        self.assertEqual([event["done"] for event in logs if "done" in event], [done])
        self.harness.turns()
        self.assertEqual(client.take(), b"END\r\n")
        after = {name: self.harness.proxy(name).pool.connections for name in "ac"}
        self.assertEqual((after["a"], len(after["c"])), (before["a"], 2))
        self.assertEqual(set(after["c"]) & set(before["c"]), set())
        self.assertIn("pools a, c: ", self.successResultOf(self.operations.perform("reconnect", None)))

    def test_noPool(self) -> None:
        """
        The error for an unknown pool names the pools there are.
        """
        for order in ("pause", "resume", "reconnect"):
            self.assertEqual(self.refused(order, "z"), "no pool 'z'; there are: a, c")

    def test_drain(self) -> None:
        """
        A server is drained and restored in all pools that have it.
        """
        self.assertEqual(
            self.operations.perform("drain", "memory:", False),
            "memory: drained in pools a, c: it gets no requests until `restore memory:`",
        )
        self.harness.turns()
        self.assertEqual([row["state"] for row in self.rows("servers")], ["drained", "drained", "up"])
        self.assertEqual([row["connections"] for row in self.rows("servers")][:2], [0, 0])
        self.assertEqual(self.operations.perform("restore", "memory:"), "memory: restored in pools a, c")
        self.harness.turns()
        self.assertEqual([row["state"] for row in self.rows("servers")], ["up", "up", "up"])

    def sharded(self, **values: Any) -> None:
        """
        Use a pool that distributes keys among three servers.
        """
        upstream = ("memory:name=x weight=2", "memory:name=y label=why", "memory:name=z")
        self.harness = ProxyHarness(replace(A, upstream=upstream, **values), C).start()
        self.operations = Operations(self.harness.service)

    def keys(self) -> dict[str, str]:
        """
        @return: the share of the keys of each server of the first pool.
        """
        return {row["server"]: row["keys"] for row in self.rows("servers") if row["pool"] == "a"}

    def test_keys(self) -> None:
        """
        The table of servers has the weight, the label and the share of the keys of each.
        """
        self.sharded()
        rows = [row for row in self.rows("servers") if row["pool"] == "a"]
        self.assertEqual(
            [(row["weight"], row["label"]) for row in rows],
            [("2", "memory:name=x"), ("-", "why"), ("-", "memory:name=z")],
        )
        shares = [float(row["keys"].rstrip("%")) for row in rows]
        self.assertApproximates(sum(shares), 100, 0.2)
        self.assertApproximates(shares[0], 50, 10)

    def test_eject(self) -> None:
        """
        Other servers get the keys of a server that is ejected, until it is restored. Its connections stay.
        """
        self.sharded()
        before = self.keys()
        client = self.harness.client("tcp:1")
        for number in range(20):
            self.assertEqual(self.harness.ask(client, b"set k%d 0 0 1\r\nx\r\n" % number), b"STORED\r\n")
        with capturedLogs() as logs:
            done = self.operations.perform("eject", "memory:name=y")
        self.assertEqual(
            done, "memory:name=y ejected in pool a: other servers have its keys until `restore memory:name=y`"
        )
        self.assertRegex(
            formatEvent(logs[0]), r"^a: memory:name=y is ejected: 2\d% of the keys have another server now"
        )
        row = self.row("servers", server="memory:name=y")
        self.assertEqual((row["state"], row["keys"], row["connections"]), ("ejected", "0.0%", 1))
        asked = row["requests"]
        for number in range(20):
            self.assertNotIn(b"ERROR", self.harness.ask(client, b"get k%d\r\n" % number))
        self.assertEqual(self.row("servers", server="memory:name=y")["requests"], asked)
        self.operations.perform("drain", "memory:name=y", False)
        self.assertEqual(self.row("servers", server="memory:name=y")["state"], "ejected, drained")
        self.assertEqual(self.operations.perform("restore", "memory:name=y"), "memory:name=y restored in pool a")
        self.harness.turns()
        self.assertEqual(self.row("servers", server="memory:name=y")["state"], "up")
        self.assertEqual(self.keys(), before)
        for number in range(20):
            self.assertIn(b"VALUE", self.harness.ask(client, b"get k%d\r\n" % number))

    def test_ejectedStay(self) -> None:
        """
        A server stays ejected when settings change, until it is removed.
        """
        self.sharded(onFailure="rehash")
        self.operations.perform("eject", "memory:name=y")
        settings = self.harness.proxy("a").settings
        self.successResultOf(self.harness.change(replace(settings, upstream=(*settings.upstream, "memory:"))))
        self.assertEqual(self.keys()["memory:name=y"], "0.0%")
        without = replace(settings, upstream=settings.upstream[:1] + settings.upstream[2:])
        self.successResultOf(self.harness.change(without))
        self.successResultOf(self.harness.change(settings))
        self.assertNotIn("0.0%", self.keys().values())

    def test_cannotEject(self) -> None:
        """
        A server is not ejected where no other one would get its keys. The error says why.
        """
        for values, server, error in (
            ({}, "memory:", "pool c: keys are not distributed among its servers; `drain` takes one out of service"),
            ({"distribution": "gomemcache"}, "memory:name=y",
             "pool a: with the distribution gomemcache, no server gets the keys of another"),
        ):  # fmt: skip
            self.sharded(**values)
            self.assertEqual(self.refused("eject", server), error)
        self.sharded()
        self.operations.perform("eject", "memory:name=x")
        self.operations.perform("eject", "memory:name=y")
        self.assertEqual(self.refused("eject", "memory:name=z"), "pool a: no other server is left for its keys")

    def test_drainNow(self) -> None:
        """
        The connections of a server that is drained at once are closed with their requests in flight.
        """
        client = self.harness.client("tcp:1")
        client.send(b"set a 0 0 1\r\nx\r\n")
        self.assertEqual(self.row("servers", pool="a")["in-flight"], 1)
        self.assertEqual(
            self.operations.perform("drain", "memory:", True),
            "memory: drained in pools a, c, its connections closed: it gets no requests until `restore memory:`",
        )
        self.harness.turns()
        self.assertIn(b"SERVER_ERROR", client.take())
        self.assertEqual(self.row("servers", pool="a")["connections"], 0)

    def test_noServer(self) -> None:
        """
        The error for an unknown server names each server once.
        """
        for order in (
            ("drain", "tcp:z:1", False),
            ("drain", "tcp:z:1", True),
            ("restore", "tcp:z:1"),
            ("eject", "tcp:z:1"),
        ):
            self.assertEqual(self.refused(*order), "no server 'tcp:z:1'; there are: memory:, memory:size=1m")

    def test_kill(self) -> None:
        """
        A session is closed by its number.
        """
        clients = [self.harness.client("tcp:1"), self.harness.client("tcp:4")]
        self.assertEqual(self.operations.perform("kill", "2"), "session 2 of pool c closed")
        self.assertEqual([client.aborted for client in clients], [False, True])

    def test_noSession(self) -> None:
        """
        An unknown session is an error.
        """
        for number in ("9", "x", ""):
            self.assertEqual(self.refused("kill", number), f"no session {number!r}; `show sessions` lists them")


class MergeTests(SynchronousTestCase):
    """
    Tests for L{mergeRows} and L{mergeTexts}.
    """

    def test_numbers(self) -> None:
        """
        Numbers are added, equal texts stay, and texts that differ are given for each worker.
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
        The numbers of sessions get the numbers of their workers, and the busiest come first.
        """
        idle = {"session": "1", "unread": 0, "state": "idle", "in-flight": 0}
        parts = {1: [idle], 2: [{**idle, "session": "7", "in-flight": 3}, {**idle, "session": "8", "unread": 1}]}
        rows = mergeRows("sessions", parts, 2)
        self.assertEqual([row["session"] for row in rows], ["2.8", "2.7"])

    def test_mergeTexts(self) -> None:
        """
        Equal texts become one.
        """
        self.assertEqual(mergeTexts({1: "yes", 2: "yes"}, ", "), "yes")
        self.assertEqual(mergeTexts({1: "yes", 3: "no"}, ", "), "worker 1: yes, worker 3: no")


class ResizedTests(SynchronousTestCase):
    """
    Tests for L{resized}.
    """

    def test_resized(self) -> None:
        """
        One pool gets other bounds, nothing else changes.
        """
        new = resized(Settings(pools=(A, B)), "b", 2, 9)
        self.assertEqual(new.pools, (A, replace(B, minPoolSize=2, poolSize=9)))

    def test_wrong(self) -> None:
        """
        An unknown pool and wrong bounds are errors.
        """
        settings = Settings(pools=(A, B))
        self.assertEqual(
            str(self.assertRaises(OperationError, resized, settings, "z", 1, 2)), "no pool 'z'; there are: a, b"
        )
        self.assertRaises(ConfigError, resized, settings, "a", 3, 2)
