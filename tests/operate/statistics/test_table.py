# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.statistics.table}, and for the numbers it reads.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import replace
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.operate.snapshots import counters, pool, snapshotOf
from tests.stage import ShardedStage, Stage
from txconnpool import __version__
from txconnpool.operate.statistics.prometheus import exposition, metricName
from txconnpool.operate.statistics.snapshot import takeSnapshot
from txconnpool.operate.statistics.sources import STATES, ProcessSource
from txconnpool.operate.statistics.table import CLUSTER, POOL, PROCESS, SERVER, SUBSCRIPTIONS
from txconnpool.proxy.flow import SessionLimits
from txconnpool.wire.memcache.replies import GET


class TableTests(SynchronousTestCase):
    """
    Tests for the entries of the table.
    """

    def test_names(self) -> None:
        """
        A name consists of words with underscores, is unique in its scope, and is not used for other data in the JSON.
        """
        other = {"name", "state", "reason", "servers", "history", "pools", "pid", "version", "time", "events"}
        other.add("implementation")
        for scope in (PROCESS, POOL, SERVER):
            names = [each.name for each in scope.statistics]
            self.assertEqual(len(set(names)), len(names))
            self.assertEqual(other.intersection(names), set())
            for name in names:
                self.assertRegex(name, r"\A[a-z]+(_[a-z]+)*\Z")

    def test_exposedNames(self) -> None:
        """
        The names for Prometheus are unique, and those of counters end in C{_total}.
        """
        names = [metricName(scope, each) for scope in (PROCESS, POOL, SERVER) for each in scope.statistics]
        self.assertEqual(len(set(names)), len(names))
        for scope in (PROCESS, POOL, SERVER):
            for each in scope.statistics:
                self.assertEqual(metricName(scope, each).endswith("_total"), each.kind == "counter")

    def test_units(self) -> None:
        """
        Names of histograms end in the unit of seconds, as Prometheus recommends.
        """
        for scope in (PROCESS, POOL, SERVER):
            for each in scope.statistics:
                self.assertIn(each.kind, ("counter", "gauge", "histogram"))
                if each.kind == "histogram":
                    self.assertTrue(each.name.endswith("_seconds"))

    def test_meanings(self) -> None:
        """
        A meaning is one line that needs no escaping.
        """
        for scope in (PROCESS, POOL, SERVER):
            for each in scope.statistics:
                self.assertRegex(each.meaning, r"\A[ -\[\]-~]{5,}\Z")


REQUESTS = {
    "get": b"get a\r\nget missb\r\n" * 5,
    "set": b"set a 0 0 1\r\nx\r\n",
    "several": b"get a missb c\r\n",
}


class ReadTests(SynchronousTestCase):
    """
    Tests for the numbers that the entries read.
    """

    def assertCounted(self, stage: Stage, **expected: Any) -> None:
        """
        Assert that a pool has some numbers; of parts by a label, those that are not 0.
        """
        numbers = pool(stage)
        found = {name: numbers[name] for name in expected}
        for name, value in found.items():
            if isinstance(value, dict):
                found[name] = {part: number for part, number in value.items() if number}
        self.assertEqual(found, expected)

    def test_process(self) -> None:
        """
        A snapshot has the process's id, version and uptime, and its use of processor and memory.
        """
        numbers = snapshotOf(Stage())
        self.assertEqual((numbers["pid"], numbers["version"]), (os.getpid(), __version__))
        self.assertApproximates(numbers["time"], time.time(), 60)
        self.assertApproximates(numbers["uptime_seconds"], 60, 5)
        self.assertGreater(numbers["cpu_seconds"], 0)
        self.assertGreater(numbers["resident_bytes"], 1 << 20)
        self.assertEqual((numbers["held_bytes"], numbers["held_max_bytes"]), (0, 1 << 28))
        self.assertEqual((numbers["sessions_dropped"], numbers["loop_lag_seconds"]), (0, 0.25))

    def test_noLag(self) -> None:
        """
        A number that is not known is left out.
        """
        self.assertNotIn("loop_lag_seconds", takeSnapshot(ProcessSource(0.0, Stage().unread), []))

    def test_quiet(self) -> None:
        """
        Before a client connects, only the handshakes have been counted.
        """
        stage = Stage(2)
        counted = {name for name, value in counters(snapshotOf(stage)).items() if value}
        of = {name.partition(" ")[2] for name in counted if name.startswith("pool ")}
        self.assertEqual(
            {re.sub("^server[01] ", "", name) for name in of},
            {"slow_requests", "requests version", "dials", "sent_bytes", "received_bytes", "latency_seconds 0"},
        )

    def test_json(self) -> None:
        """
        JSON can carry a snapshot without loss.
        """
        stage = Stage(2)
        stage.ask(stage.client(), b"get a\r\n")
        whole = snapshotOf(stage)
        self.assertEqual(exposition(json.loads(json.dumps(whole))), exposition(whole))

    @covers("25")
    def test_clients(self) -> None:
        """
        Clients that are connected, were accepted, and were refused are counted.
        """
        stage = Stage(sessionLimits=SessionLimits(maxClients=2))
        first, _, _ = (stage.client() for _ in range(3))
        first.lose()
        self.assertCounted(stage, sessions=1, sessions_accepted=2, sessions_refused=1, sessions_max=2)

    def test_pauses(self) -> None:
        """
        Each time that reading from a client is suspended is counted, by the reason. The end of reading before a session
        is closed does not count.
        """
        stage = Stage(depth=1, sessionLimits=SessionLimits(unreadSoft=1000))
        client, other, third = (stage.client() for _ in range(3))
        self.assertCounted(stage, session_pauses={})
        for _ in range(2):
            client.send(b"get a\r\n")
            other.send(b"get %s\r\n" % (b"b" * 240) * 300)
            other.send(b"get b\r\n")
            stage.serve()
            other.take()
        self.assertCounted(stage, session_pauses={"backlog": 2})
        third.reads = False
        third.send(b"get largea largeb largec larged largee largef\r\n")
        stage.serve()
        self.assertFalse(third.reading)
        self.assertCounted(stage, session_pauses={"unread": 1, "backlog": 2})
        client.send(b"get a\r\nquit\r\n")
        stage.serve()
        self.assertCounted(stage, session_pauses={"unread": 1, "backlog": 2})

    def test_commands(self) -> None:
        """
        Requests are counted by command over all servers, each request of a merged one for itself. Requests that the
        proxy refused are counted apart.
        """
        stage = Stage(2)
        for _ in range(2):
            stage.ask(stage.client(), b"get a\r\nget missb\r\nset k 0 0 1\r\nx\r\nmg a v\r\nnonsense\r\nget\r\n")
        stage.ask(stage.client(), b"flush_all\r\nset k 0 0 1 noreply\r\nx\r\n")
        self.assertCounted(
            stage, requests={"get": 4, "set": 3, "mg": 2, "flush_all": 2, "version": 2}, requests_refused=4,
            client_requests=2 * 6 + 2,
        )  # fmt: skip

    def test_unanswered(self) -> None:
        """
        A request is counted when its reply is complete, not before.
        """
        stage = Stage()
        stage.client().send(b"get a\r\n")
        self.assertCounted(stage, requests={"version": 1}, in_flight=1)
        stage.serve()
        self.assertCounted(stage, requests={"version": 1, "get": 1}, in_flight=0)

    def hits(self, request: bytes, piece: int = 0) -> tuple[int, int]:
        """
        @param piece: the number of bytes of the reply that come at a time; 0: all.
        @return: the number of keys that were found, and of those that were not.
        """
        stage = Stage()
        client = stage.client()
        client.send(request)
        stage.turns()
        while stage.lines[0].deliver(piece or None):
            stage.turns()
        numbers = pool(stage)
        return numbers["hits"], numbers["misses"]

    def test_hits(self) -> None:
        """
        Each key of a read is a hit or a miss, for every command and however the reply arrives.
        """
        for request, expected in (
            (b"get a\r\n", (1, 0)),
            (b"get missa\r\n", (0, 1)),
            (b"get a b c\r\n", (3, 0)),
            (b"get missa b missc\r\n", (1, 2)),
            (b"gets missa missb\r\n", (0, 2)),
            (b"get a\r\nget missb\r\nget c\r\nget missd\r\nget e\r\n", (3, 2)),
            (b"mg a v\r\nmg missa v\r\nmg a\r\nmg missa\r\nmg missa q\r\nmg a v q\r\nmn\r\n", (3, 3)),
            (b"set a 0 0 1\r\nx\r\ndelete a\r\ntouch missa 1\r\nincr missa 1\r\n", (0, 0)),
        ):
            for piece in (0, 1, 7):
                self.assertEqual(self.hits(request, piece), expected, (request, piece))

    def test_spelling(self) -> None:
        """
        Neither the time of C{gat} nor the empty word between two spaces counts as a key.
        """
        for request in (b"gat 100 a b c\r\n", b"get a  b c \r\n", b"gets  a b  c\n"):
            touches = request.startswith(b"gat")
            stage = Stage()
            stage.client().send(request)
            stage.turns()
            stage.line.take()
            unique = b" 7" if request.startswith(b"gets") else b""
            stage.line.send(b"VALUE a 0 1%s\r\nx\r\nVALUE c 0 1%s\r\nx\r\nEND\r\n" % (unique, unique))
            self.assertCounted(stage, operations={"touch" if touches else "get": 3})
            self.assertCounted(stage, hits=0 if touches else 2, misses=0 if touches else 1)

    def test_operations(self) -> None:
        """
        Operations are counted as memcached's C{cmd_get}, C{cmd_set} and so on count them: by key, and all commands that
        store together.
        """
        for request, expected in (
            (b"get a\r\nget missa b\r\ngets a b c\r\nmg a v\r\nmg missa\r\n", {"get": 8}),
            (b"get a\r\nget b\r\nget missc\r\n", {"get": 3}),
            (b"set k 0 0 1\r\nx\r\ncas k 0 0 1 1\r\nx\r\nms k 1\r\nx\r\nset k 0 0 1 noreply\r\nx\r\n", {"set": 4}),
            (b"touch a 1\r\ntouch missa 1\r\ngat 1 a\r\ngat 1 missa\r\ngat 1 a missb c\r\n", {"touch": 7}),
            (b"flush_all\r\n", {"flush": 1}),
            (b"delete a\r\nincr a 1\r\nmd a\r\nmn\r\n", {}),

        ):  # fmt: skip
            stage = Stage()
            stage.ask(stage.client(), request)
            self.assertCounted(stage, operations=expected)

    def test_hitsOfErrors(self) -> None:
        """
        A read that is answered with an error counts no hits and no misses.
        """
        stage = Stage()
        for request in (b"get a\r\n", b"get a b c\r\n", b"mg a v\r\n"):
            stage.client().send(request)
            stage.turns()
            stage.line.take()
            stage.line.send(b"SERVER_ERROR out of memory\r\n")
        self.assertCounted(stage, hits=0, misses=0, failed_requests={"get": 2, "mg": 1}, operations={})

    def test_hitsOfRetries(self) -> None:
        """
        A read that is sent a second time is counted once.
        """
        stage = Stage(2)
        stage.clock.advance(2)
        client = stage.client()
        client.send(b"get a missb\r\n")
        (line,) = [line for line in stage.lines if line.received]
        line.lose()
        stage.serve()
        self.assertCounted(stage, hits=1, misses=1, retries=1, requests={"get": 1, "version": 3})

    def test_bytes(self) -> None:
        """
        Bytes are counted in both directions, for clients and servers.
        """
        stage = Stage()
        before = pool(stage)
        request = b"set a 0 0 1 noreply\r\nx\r\nget a\r\nnonsense\r\n"
        client = stage.client()
        client.send(request)
        stage.serve()
        after = pool(stage)
        sent = b"set a 0 0 1\r\nx\r\nget a\r\n"
        answer = client.take()
        for name, expected in (
            ("client_received_bytes", len(request)),
            ("client_sent_bytes", len(answer)),
            ("sent_bytes", len(sent)),
            ("received_bytes", len(b"STORED\r\n") + len(answer) - len(b"ERROR\r\n")),
        ):
            self.assertEqual(after[name] - before[name], expected, name)

    def test_unavailable(self) -> None:
        """
        Requests that fail because no server can be reached are counted by this reason, including those with C{noreply}.
        """
        stage = Stage(2, start=False)
        stage.servers[0].mode = stage.servers[1].mode = "refuse"
        stage.pool.start()
        stage.turns()
        stage.ask(stage.client(), b"get a\r\nget b\r\nset a 0 0 1 noreply\r\nx\r\n")
        self.assertCounted(
            stage,
            request_errors={"unavailable": 3},
            waits_failed={"unavailable": 1},
            dial_failures={"connection_refused": 2},
            outages=2,
            servers_up=0,
        )

    def test_waiting(self) -> None:
        """
        Waiters are counted, with the time of the first one, and by the outcome.
        """
        stage = Stage(depth=1, maxWaiting=3, requestTimeout=5)
        clients = [stage.client() for _ in range(5)]
        for client in clients:
            client.send(b"get a\r\n")
        stage.clock.advance(0.25)
        self.assertCounted(
            stage, waiting=3, waiting_max=3, longest_wait_seconds=0.25, request_errors={"too_many_waiting": 1}
        )
        clients[1].lose()
        stage.line.deliver()
        stage.turns()
        stage.clock.advance(2)
        self.assertCounted(
            stage,
            waiting=0,
            longest_wait_seconds=0.0,
            waits_failed={"rejected": 1, "cancelled": 1, "timeout": 1},
            request_errors={"too_many_waiting": 1, "wait_timeout": 1},
        )
        waits = pool(stage)["wait_seconds"]
        self.assertEqual((sum(waits["counts"]), waits["sum"]), (1, 0.25))

    def test_late(self) -> None:
        """
        A reply that is late counts as a request error, a timeout, and a lost connection.
        """
        stage = Stage()
        stage.client().send(b"set a 0 0 1\r\nx\r\n")
        stage.clock.advance(2)
        stage.turns()
        self.assertCounted(
            stage,
            request_errors={"request_timeout": 1},
            request_timeouts=1,
            connections_lost={"aborted": 1},
        )

    def test_violation(self) -> None:
        """
        Bytes that are no reply count as a protocol error; the reads in flight are not counted.
        """
        stage = Stage()
        stage.clock.advance(2)
        stage.client().send(b"set a 0 0 1\r\nx\r\n")
        stage.line.send(b"END\r\n")
        stage.turns()
        self.assertCounted(
            stage, request_errors={"protocol": 1}, protocol_errors=1, connections_lost={"aborted": 1}, misses=0
        )

    def test_lost(self) -> None:
        """
        Lost connections are counted by reason.
        """
        stage = Stage(2)
        stage.clock.advance(2)
        stage.client().send(b"set a 0 0 1\r\nx\r\n")
        stage.lines[0].lose(ConnectionDone())
        stage.lines[1].lose()
        stage.turns()
        self.assertCounted(
            stage, connections_lost={"closed_by_server": 1, "connection_lost": 1}, request_errors={"lost": 1}
        )

    def test_closed(self) -> None:
        """
        Connections that the pool closes are counted by reason.
        """
        stage = Stage(2)
        stage.pool.expire()
        stage.turns()
        self.assertCounted(stage, connections_closed={"expired": 2}, connections_lost={})

    def test_dialTimeout(self) -> None:
        """
        A dial that takes longer than the timeout counts as failed.
        """
        stage = Stage(start=False)
        stage.servers[0].mode = "hang"
        stage.pool.start()
        stage.turns()
        self.assertCounted(stage, connections={"dialing": 1})
        stage.clock.advance(1)
        self.assertCounted(stage, dial_failures={"timeout": 1}, dials=1)

    @covers("25")
    def test_states(self) -> None:
        """
        Connections are counted by state.
        """
        stage = Stage(3, maximum=6)
        stage.client().send(b"get a\r\n")
        held = next(record for record in stage.pool.state.records if not record.load)
        stage.pool.hold(held)
        self.assertCounted(stage, connections={"idle": 1, "busy": 1, "held": 1}, connections_max=6)
        for server in stage.pool.servers:
            stage.pool.drain(server.name)
        states = pool(stage)["connections"]
        self.assertEqual((set(states), states["retiring"]), (set(STATES), 3))

    def test_latency(self) -> None:
        """
        Latencies are counted, as 0 when the clock was set back.
        """
        stage = Stage()
        stage.client().send(b"get a\r\nget b\r\n")
        stage.turns()
        stage.clock.advance(0.03)
        stage.serve()
        latency = pool(stage)["latency_seconds"]
        self.assertEqual((latency["counts"][latency["bounds"].index(0.05)], latency["sum"]), (2, 0.06))
        stage.client().send(b"get c\r\n")
        stage.turns()
        stage.clock.rightNow -= 100
        stage.line.deliver()
        self.assertEqual(pool(stage)["latency_seconds"]["sum"], 0.06)

    def test_removed(self) -> None:
        """
        The counters of removed servers stay in the sums of the pool, and their number of entries is bounded.
        """
        stage = Stage(2)
        for _ in range(4):
            stage.ask(stage.client(), b"get a\r\n")
        for number in range(5):
            before = counters(snapshotOf(stage))
            stage.pool.addServer(stage.servers[0])
            stage.pool.removeServer(f"server{number % 2}") if number < 2 else stage.pool.removeServer(stage.servers[0])
            stage.turns()
            after = counters(snapshotOf(stage))
            for name in ("pool requests get", "pool sent_bytes", "pool dials", "pool latency_seconds 0"):
                self.assertGreaterEqual(after[name], before[name])
        self.assertEqual(pool(stage)["requests"]["get"], 4)
        self.assertLessEqual(len(stage.pool.former), 2)

    def test_shards(self) -> None:
        """
        A pool whose servers each have a part of the keys has the same statistics, and keeps the counters of servers
        that were removed.
        """
        stage = ShardedStage(3)
        stage.ask(stage.client(), b"get a0\r\nget a1\r\nget a2\r\n")
        before = pool(stage)
        self.assertEqual([each["requests"]["get"] for each in before["servers"]], [1, 1, 1])
        stage.remove(2)
        after = pool(stage)
        self.assertEqual([each["name"] for each in after["servers"]], ["server0", "server1"])
        self.assertEqual((before["requests"]["get"], after["requests"]["get"]), (3, 3))

    def test_ejected(self) -> None:
        """
        A drained server and an ejected one are shown, and ejections are counted, those by hand too.
        """
        stage = ShardedStage(3)
        stage.pool.drain("server0")
        for _ in range(2):
            stage.pool.eject("server1")
            servers = pool(stage)["servers"]
            stage.pool.restore("server1")
        self.assertEqual([each["drained"] for each in servers], [1, 0, 0])
        self.assertEqual([each["ejected"] for each in servers], [0, 1, 0])
        of = pool(stage)
        self.assertEqual([each["ejections"] for each in of["servers"]], [0, 2, 0])
        self.assertEqual((of["ejections"], [each["ejected"] for each in of["servers"]]), (2, [0, 0, 0]))

    def test_servers(self) -> None:
        """
        Each server has its own numbers, its state, the time since it changed, and the reason.
        """
        stage = Stage(2)
        stage.clock.advance(5)
        stage.servers[0].mode = "refuse"
        stage.lines[0].lose()
        stage.turns()
        stage.ask(stage.client(), b"get a\r\n")
        stage.clock.advance(3)
        first, second = pool(stage)["servers"]
        self.assertEqual((first["name"], first["state"], first["up"]), ("server0", "down", 0))
        self.assertEqual((first["reason"], second["reason"]), ("connection refused", ""))
        self.assertGreater(first["failed_dials"], 0)
        self.assertApproximates(first["since_seconds"], 3, 0.1)
        self.assertEqual((second["name"], second["state"], second["up"]), ("server1", "up", 1))
        self.assertEqual(second["since_seconds"], 0)
        self.assertEqual((first["requests"]["get"], second["requests"]["get"]), (0, 1))

    def test_poolState(self) -> None:
        """
        A pool is ready if one of its servers is up, unless it is paused or draining.
        """
        stage = Stage(2)
        self.assertEqual(pool(stage)["state"], "ready")
        stage.pool.drain("server0")
        self.assertEqual([each["state"] for each in pool(stage)["servers"]], ["drained", "up"])
        self.assertEqual(pool(stage)["state"], "ready")
        stage.pool.drain("server1")
        self.assertEqual(pool(stage)["state"], "down")
        stage.pool.pause()
        self.assertEqual(pool(stage)["state"], "paused")
        self.assertEqual(snapshotOf(stage, running=False)["pools"][0]["state"], "draining")

    @covers("25")
    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.sampled_from(("get", "set", "several", "junk", "lose", "deliver", "piece", "wait", "expire",
                                     "refuse", "accept", "leave", "back")), max_size=30))  # fmt: skip
    def test_monotonic(self, events: list[str]) -> None:
        """
        No counter ever decreases, which Prometheus would take for a restart.
        """
        stage = Stage(2, depth=2, maxWaiting=3, waitTimeout=1.0)
        before = counters(snapshotOf(stage))
        for event in events:
            lines = [line for line in stage.lines if line.connected]
            if event in ("get", "set", "several"):
                stage.client().send(REQUESTS[event])
            elif event == "junk" and lines:
                lines[0].send(b"END\r\nEND\r\nSTORED\r\n")
            elif event == "lose" and lines:
                lines[-1].lose()
            elif event in ("deliver", "piece"):
                for line in lines:
                    line.deliver(11 if event == "piece" else None)
            elif event == "wait":
                stage.clock.advance(0.7)
            elif event == "back":
                stage.clock.rightNow = max(0.0, stage.clock.rightNow - 0.3)
            elif event == "expire":
                stage.pool.expire()
            elif event in ("refuse", "accept"):
                stage.servers[0].mode = event
            elif event == "leave" and stage.clients:
                stage.clients.pop().lose()
            stage.turns()
            after = counters(snapshotOf(stage))
            gone = {name: (value, after.get(name)) for name, value in before.items() if after.get(name, -1) < value}
            self.assertEqual(gone, {}, event)
            before = after

    @covers("25")
    def test_everyCounter(self) -> None:
        """
        Every counter counts something.
        """
        stage = Stage(depth=1, maxWaiting=1, maxUnread=1 << 18, sessionLimits=SessionLimits(maxClients=4))
        one, two, three, _, tooMany = (stage.client() for _ in range(5))
        self.assertIn(b"ERROR", tooMany.received)
        stage.ask(one, b"get missing\r\nnonsense\r\n")
        one.send(b"get a\r\n")
        for _ in range(2):
            two.send(b"get %s\r\n" % (b"b" * 240) * 300)
        three.send(b"get c\r\n")
        stage.clock.advance(0.5)
        stage.serve()
        one.send(b"get d\r\n")
        stage.line.look()
        stage.line.owed = b"SERVER_ERROR out of memory\r\n"
        stage.serve()
        for fault in (lambda: stage.line.lose(), lambda: stage.line.send(b"junk\r\n"), lambda: stage.clock.advance(2)):
            stage.clock.advance(2)  # so that the connection is not taken for one that was bad from the beginning
            one.send(b"get e\r\n")
            fault()
            stage.turns()
        stage.clock.advance(2)
        stage.servers[0].mode = "refuse"
        stage.line.lose()
        stage.turns()
        stage.servers[0].mode = "accept"
        stage.clock.advance(2)
        stage.turns()
        stage.pool.expire()
        stage.turns()
        three.reads = False
        three.send(b"get %s\r\n" % b" ".join(b"large%d" % number for number in range(40)))
        stage.serve()
        stage.sessions.router.standIn = mock.Mock(count=1)
        stage.sessions.countPartial(GET)
        stage.pool.servers[0].traffic.ejections += 1  # this pool has one server, whose keys no other can get
        stage.sessions.gate.accepted = ()
        stage.client().send(b"set x 0 0 9\r\njoe wrong\r\n")
        stage.client().send(b"\x16\x03\x01")
        stage.clock.advance(10)
        stage.sessions.limit(replace(stage.sessions.limits, idleTimeout=1.0))
        for _ in range(5):
            stage.clock.advance(0.25)
        whole = snapshotOf(stage)
        (of,) = whole["pools"]
        for scope, numbers in ((PROCESS, whole), (POOL, of), (SERVER, of["servers"][0])):
            for each in scope.statistics:
                if each.kind != "gauge" and each not in (*CLUSTER, *SUBSCRIPTIONS):
                    number = numbers[each.name]
                    if each.kind == "histogram":
                        number = dict(enumerate(number["counts"]))
                    self.assertTrue(any(number.values()) if isinstance(number, dict) else number, each.name)
