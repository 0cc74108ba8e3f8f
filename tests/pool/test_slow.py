# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.slow}, and for the events that the proxy passes to it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.stage import Stage
from txconnpool.pool.slow import LINES, NOTED, Noted, SlowLog
from txconnpool.wire.memcache.dialect import Memcache


class SlowTests(SynchronousTestCase):
    """
    Tests for slow requests in the whole data path.
    """

    def setUp(self) -> None:
        """
        Record the log.
        """
        logs = capturedLogs()
        self.logs = logs.__enter__()
        self.addCleanup(logs.__exit__, None, None, None)
        self.seen = 0

    def stage(self, servers: int = 1, threshold: float = 0.5, keys: bool = True, **limits: Any) -> Stage:
        """
        @return: a stage whose pool logs slow requests.
        """
        stage = Stage(servers, start=False, **limits)
        self.slow = SlowLog("pool", stage.dialect, stage.clock.seconds)
        self.slow.limit(threshold, keys)
        stage.pool._factory.slow = stage.sessions.slow = self.slow
        stage.pool.start()
        stage.turns()
        stage.clock.advance(1)
        return stage

    def late(self, stage: Stage, seconds: float = 0.75) -> None:
        """
        Let the server reply after some time.
        """
        stage.turns()
        stage.clock.advance(seconds)
        stage.serve()

    def logged(self) -> list[str]:
        """
        @return: the lines that were logged since the last call.
        """
        lines = [formatEvent(event) for event in self.logs if event["log_namespace"].startswith("txconnpool.slow")]
        lines, self.seen = lines[self.seen :], len(lines)
        return lines

    def test_read(self) -> None:
        """
        A slow read is logged with its command, key, server and time.
        """
        stage = self.stage()
        stage.client().send(b"get some:key\r\n")
        self.late(stage)
        self.assertEqual(self.logged(), ["pool: slow: get some:key: 0.750 s at server0"])
        self.assertEqual(self.slow.count, 1)

    def test_write(self) -> None:
        """
        A slow write is logged too. Its key is kept for the log, and the write is not sent again.
        """
        stage = self.stage(2)
        client = stage.client()
        client.send(b"set some:key 0 0 3\r\nabc\r\n")
        self.late(stage)
        self.assertEqual(client.take(), b"STORED\r\n")
        (line,) = self.logged()
        self.assertRegex(line, r"\Apool: slow: set some:key: 0.750 s at server[01]\Z")
        client.send(b"set a 0 0 1\r\nx\r\n")
        stage.turns()
        for each in stage.lines:
            each.lose()
        stage.serve()
        self.assertRegex(client.take(), rb"\ASERVER_ERROR upstream connection lost \(server[01]\)\r\n\Z")

    def test_quick(self) -> None:
        """
        Requests below the threshold are not logged.
        """
        stage = self.stage()
        stage.client().send(b"get a\r\n")
        self.late(stage, 0.5)
        self.assertEqual((self.logged(), self.slow.count), ([], 0))

    def test_run(self) -> None:
        """
        Gets that were merged into one request are one line.
        """
        stage = self.stage()
        stage.client().send(b"get a\r\nget b\r\n")
        self.late(stage)
        self.assertEqual(self.logged(), ["pool: slow: get a b: 0.750 s at server0"])
        self.assertEqual(self.slow.count, 2)

    def test_late(self) -> None:
        """
        A request that times out is logged too.
        """
        stage = self.stage()
        stage.client().send(b"get a\r\nget b\r\n")
        stage.client().send(b"get c\r\n")
        stage.clock.advance(2)
        stage.turns()
        self.assertEqual(self.logged(), ["pool: slow: get a b: 2.000 s at server0"])

    def test_wait(self) -> None:
        """
        A request that has waited long for a connection is logged when it is sent. If its reply is slow too, that line
        has the time that it waited.
        """
        stage = self.stage(depth=1, requestTimeout=5.0, waitTimeout=5.0)
        first, second = stage.client(), stage.client()
        first.send(b"get a\r\n")
        second.send(b"set b 0 0 1\r\nx\r\n")
        stage.turns()
        stage.clock.advance(0.75)
        stage.line.deliver()
        stage.turns()
        self.assertEqual(
            self.logged(),
            ["pool: slow: get a: 0.750 s at server0", "pool: slow: set b: a wait of 0.750 s for a connection"],
        )
        stage.clock.advance(1)
        stage.serve()
        self.assertEqual(
            self.logged(), ["pool: slow: set b: 1.000 s at server0, after a wait of 0.750 s for a connection"]
        )
        second.send(b"get c\r\n")
        self.late(stage, 1)
        self.assertEqual(self.logged(), ["pool: slow: get c: 1.000 s at server0"])

    def test_waitGoesOn(self) -> None:
        """
        The time of a wait is logged correctly even if the request is sent some time after the wait.
        """

        def seconds(clock: Clock) -> float:
            clock.rightNow += 1e-6
            return clock.rightNow

        self.patch(Clock, "seconds", seconds)
        stage = self.stage(depth=1, requestTimeout=5.0, waitTimeout=5.0)
        first, second = stage.client(), stage.client()
        first.send(b"get a\r\n")
        second.send(b"get b\r\n")
        stage.turns()
        stage.clock.advance(0.75)
        stage.line.deliver()
        self.late(stage, 1)
        second.send(b"get c\r\n")
        self.late(stage, 1)
        _, _, late, later = self.logged()
        self.assertRegex(late, r"get b: 1.\d+ s at server0, after a wait of 0.75\d s for a connection\Z")
        self.assertRegex(later, r"get c: 1.\d+ s at server0\Z")

    def test_waitAgain(self) -> None:
        """
        This also holds for a read that waits to be sent a second time.
        """
        stage = self.stage(waitTimeout=5.0)
        stage.client().send(b"get a\r\n")
        stage.turns()
        stage.servers[0].greets = False
        stage.line.lose()
        stage.turns()
        stage.clock.advance(0.75)
        stage.line.take()
        stage.line.send(b"VERSION 1\r\n")
        stage.turns()
        handshake = "pool: slow: version: 0.750 s at server0"
        self.assertEqual(self.logged(), [handshake, "pool: slow: get a: a wait of 0.750 s for a connection"])

    def test_hiddenKeys(self) -> None:
        """
        Keys can be left out of the log.
        """
        stage = self.stage(keys=False)
        for request in (b"get secret\r\n", b"set secret 0 0 1\r\nx\r\n"):
            stage.client().send(request)
            self.late(stage)
        self.assertEqual(self.logged(), ["pool: slow: get: 0.750 s at server0", "pool: slow: set: 0.750 s at server0"])

    def test_off(self) -> None:
        """
        If slow requests are not logged, nothing of a write is kept.
        """
        stage = self.stage(threshold=0.0)
        self.assertFalse(self.slow.wanted)
        stage.client().send(b"set a 0 0 1\r\nx\r\n")
        (record,) = stage.pool.state.records
        self.assertIsNone(record.connection._inFlight[0][4])

    def test_changed(self) -> None:
        """
        The threshold can be changed, also for existing connections.
        """
        stage = self.stage(threshold=0.0)
        self.slow.limit(0.1, True)
        for connection in stage.pool.connections:
            connection.retime()
        stage.client().send(b"delete a\r\n")
        self.late(stage, 0.2)
        self.assertEqual(self.logged(), ["pool: slow: delete a: 0.200 s at server0"])


class SlowLogTests(SynchronousTestCase):
    """
    Tests for L{SlowLog} alone.
    """

    def setUp(self) -> None:
        """
        Create a log.
        """
        self.now = 1000.0
        self.slow = SlowLog("pool", Memcache(), lambda: self.now)
        self.slow.limit(0.5, True)

    def logged(self, *requests: Any) -> list[str]:
        """
        Log requests as slow.

        @return: the lines that were logged.
        """
        with capturedLogs() as logs:
            for request in requests:
                self.slow.answered("server", request, 1, 1.0, 0.0)
        return [formatEvent(event) for event in logs]

    def test_rate(self) -> None:
        """
        The number of lines per time is limited. The number of further requests is logged later.
        """
        self.assertEqual(len(self.logged(*[b"get a\r\n"] * 100)), LINES)
        self.now += 9.9
        self.assertEqual(self.logged(b"get a\r\n"), [])
        self.now += 0.2
        self.assertEqual(
            self.logged(b"get b\r\n"),
            [f"pool: {101 - LINES} more slow requests", "pool: slow: get b: 1.000 s at server"],
        )
        self.now += 11
        self.assertEqual(len(self.logged(b"get c\r\n")), 1)
        self.assertEqual(self.slow.count, 103)

    def test_clockPutBack(self) -> None:
        """
        A clock that is set back does not stop the log.
        """
        self.logged(*[b"get a\r\n"] * 20)
        self.now -= 500
        self.assertEqual(len(self.logged(b"get a\r\n")), 2)

    def test_keys(self) -> None:
        """
        All keys of a read are logged, up to a maximum length. Whatever the keys contain, the line remains one line.
        """
        self.assertEqual(self.logged(b"get a b  c\r\n")[0], "pool: slow: get a b c: 1.000 s at server")
        self.assertEqual(self.logged(b"gat 100 a b\r\n")[0], "pool: slow: gat a b: 1.000 s at server")
        self.assertEqual(self.logged(b"mg a v t\r\n")[0], "pool: slow: mg a: 1.000 s at server")
        self.assertEqual(
            self.logged(b"get \x1b[2J\r\x07\xff\r\n")[0], r"pool: slow: get \x1b[2J \x07\xff: 1.000 s at server"
        )
        (line,) = self.logged(b"get " + b" ".join([b"k" * 100] * 20) + b"\r\n")
        self.assertLess(len(line), 300)

    def test_unknown(self) -> None:
        """
        If the request was not kept, the line has only its time.
        """
        self.assertEqual(self.logged(None, b""), ["pool: slow: a request: 1.000 s at server"] * 2)

    def test_noted(self) -> None:
        """
        L{Noted} keeps the beginning of a request, and is false.
        """
        noted = Noted(b"set key 0 0 1000000\r\n" + b"x" * 1000000)
        self.assertFalse(noted)
        self.assertEqual(len(noted.data), NOTED)
        self.assertEqual(self.logged(noted), ["pool: slow: set key: 1.000 s at server"])
