# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.events}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.operate.events import EVENTS, Events
from txconnpool.pool.slow import LINES, WINDOW, SlowLog
from txconnpool.wire.memcache.dialect import Memcache


class EventTests(SynchronousTestCase):
    """
    Tests for L{Events}.
    """

    def kept(
        self, namespace: str | None, level: LogLevel | None = LogLevel.info, text: str = "text", **fields: Any
    ) -> list[Any]:
        """
        @return: the events that are kept of one that is logged.
        """
        events = Events()
        events({"log_namespace": namespace, "log_level": level, "log_time": 12.34567, "log_format": text, **fields})
        return list(events.recent)

    def test_ours(self) -> None:
        """
        Events of txconnpool are kept, with their times and levels.
        """
        self.assertEqual(
            self.kept("txconnpool.core.PoolEngine", LogLevel.warn, "{{a}}"),
            [{"time": 12.346, "level": "warn", "text": "{a}"}],
        )

    def test_others(self) -> None:
        """
        Events of other packages, and those below level info, are not kept.
        """
        for namespace in ("twisted.web", "txconnpoolish.core", None):
            self.assertEqual(self.kept(namespace), [])
        self.assertEqual(self.kept("txconnpool.core.PoolEngine", LogLevel.debug), [])
        self.assertEqual(self.kept("txconnpool.core.PoolEngine", None), [])

    def test_confidential(self) -> None:
        """
        An event that is marked as confidential is not kept, whatever its namespace.
        """
        self.assertEqual(self.kept("txconnpool.core.PoolEngine", confidential=True), [])

    def test_slowRequests(self) -> None:
        """
        Slow requests, which name keys of clients, are logged and not kept.
        """
        events = Events()
        events.begin()
        self.addCleanup(events.end)
        clock = Clock()
        slow = SlowLog("pages", Memcache(), clock.seconds)
        slow.limit(0.1, True)
        with capturedLogs() as logged:
            for _ in range(LINES + 1):
                slow.answered("tcp:a", b"get secret\r\n", 1, 0.5, 0.0)
            slow.waited(b"get secret\r\n", 0.5)
            clock.advance(WINDOW)
            slow.answered("tcp:a", b"get secret\r\n", 1, 0.5, 0.0)
        self.assertIn("secret", "".join(formatEvent(event) for event in logged))
        self.assertEqual(list(events.recent), [])

    def test_bounds(self) -> None:
        """
        The number of events and the length of each are bounded.
        """
        self.assertLess(len(self.kept("txconnpool.a", text="x" * 10000)[0]["text"]), 1000)
        events = Events()
        for number in range(EVENTS + 50):
            events({"log_namespace": "txconnpool.a", "log_level": LogLevel.info, "log_time": number, "log_format": "x"})
        self.assertEqual((len(events.recent), events.recent[-1]["time"]), (EVENTS, EVENTS + 49))

    def test_users(self) -> None:
        """
        Events are kept once, from the first C{begin} to the last C{end}.
        """
        log = Logger(namespace="txconnpool.test")
        events = Events()
        for what in (events.begin, events.begin, events.end, events.end):
            log.info("before {what}", what=what.__name__)
            what()
        log.info("after")
        self.assertEqual([event["text"] for event in events.recent], ["before begin", "before end", "before end"])
