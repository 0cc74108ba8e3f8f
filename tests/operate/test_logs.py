# -*- test-case-name: tests.operate.test_logs -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.logs}.
"""

from __future__ import annotations

import ast
import json
import re
import signal
import sys
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.logger import (
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    capturedLogs,
    formatEvent,
    textFileLogObserver,
)
from twisted.python import log
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import txconnpool
from tests.documents import MANUAL, chapter
from txconnpool.operate.logs import MovedLogFile, asJSON, chooseObserver, jsonObserver, relay


class JSONTests(SynchronousTestCase):
    """
    Tests for L{asJSON} and L{jsonObserver}.
    """

    def line(self, event: LogEvent) -> dict[str, Any]:
        """
        @return: the object in the line of an event.
        """
        text = asJSON(event)
        self.assertEqual((text.count("\n"), text[-1]), (1, "\n"))
        found: dict[str, Any] = json.loads(text)
        return found

    def event(self, **fields: Any) -> LogEvent:
        """
        @return: an event like that of a log call.
        """
        events: list[LogEvent] = []
        observer: Any = events.append
        Logger("some.place", observer=observer).warn("{name} is {state}", **fields)
        return {**events[0], "log_time": 1700000000.1239}

    def test_line(self) -> None:
        """
        A line has the time, the level, the namespace, the text, and the event's fields.
        """
        self.assertEqual(
            self.line(self.event(name="pages", state="down", count=3, share=0.5, up=False, why=None)),
            {
                "time": "2023-11-14T22:13:20.123+00:00",
                "level": "warn",
                "namespace": "some.place",
                "text": "pages is down",
                "name": "pages",
                "state": "down",
                "count": 3,
                "share": 0.5,
                "up": False,
                "why": None,
            },
        )

    def test_fields(self) -> None:
        """
        Fields that are exceptions become their texts. Fields of other types are left out; the text has them.
        """
        line = self.line(self.event(name=ValueError("wrong"), state=["x"]))
        self.assertEqual((line["text"], line["name"]), ("wrong is ['x']", "wrong"))
        self.assertNotIn("state", line)

    def test_reserved(self) -> None:
        """
        A field does not replace a key that each line has.
        """
        event = {**self.event(name="a", state="b", text="other", time=7), "level": "x", "namespace": "y"}
        line = self.line(event)
        self.assertEqual((line["text"], line["level"], line["namespace"]), ("a is b", "warn", "some.place"))
        self.assertTrue(line["time"].startswith("2023-"))

    def test_lines(self) -> None:
        """
        An event is one line, whatever its text contains.
        """
        line = self.line(self.event(name="one\ntwo\r\u2028\x00\ud800", state="ok"))
        self.assertEqual(line["name"], "one\ntwo\r\u2028\x00\ud800")

    def test_failure(self) -> None:
        """
        A failure has its traceback.
        """
        try:
            raise ZeroDivisionError("too small")
        except ZeroDivisionError:
            failure = Failure()
        line = self.line({"log_failure": failure, "log_format": "it failed", "log_level": LogLevel.critical})
        self.assertEqual((line["text"], line["level"]), ("it failed", "critical"))
        self.assertIn("ZeroDivisionError: too small", line["traceback"])

    def test_legacy(self) -> None:
        """
        An event of Twisted's old log has a text and no fields of that log.
        """
        publisher = LogPublisher()
        events: list[LogEvent] = []
        observer: Any = events.append
        publisher.addObserver(observer)
        log.LogPublisher(observerPublisher=publisher, publishPublisher=publisher).msg("pool a starting on 7", other=1)
        line = self.line(events[0])
        self.assertEqual(line.pop("time")[:4].isdigit(), True)
        self.assertEqual(line, {"level": "info", "namespace": "log_legacy", "text": "pool a starting on 7"})

    def test_bare(self) -> None:
        """
        An event without any field is a line too.
        """
        self.assertEqual(self.line({})["level"], "info")

    def test_observer(self) -> None:
        """
        Each event is written and flushed.
        """
        file = StringIO()
        observer = jsonObserver(file)
        for number in range(2):
            observer(self.event(name=number, state="x"))
        self.assertEqual([json.loads(line)["name"] for line in file.getvalue().splitlines()], [0, 1])


class RelayTests(SynchronousTestCase):
    """
    Tests for L{relay}.
    """

    def relayed(self, line: bytes) -> LogEvent:
        """
        @return: the event that a line becomes.
        """
        with capturedLogs() as events:
            relay(Logger("ours"), 3, line)
        (event,) = events
        return event

    def test_event(self) -> None:
        """
        An event keeps its level, namespace and fields, and gets the number of the worker.
        """
        sent = {"log_level": LogLevel.error, "log_namespace": "some.place", "log_format": "{pool} {format}"}
        event = self.relayed(asJSON({**sent, "pool": "pages", "format": "is {odd}", "worker": 9, "text": "x"}).encode())
        self.assertEqual((event["log_level"], event["log_namespace"]), (LogLevel.error, "some.place"))
        self.assertEqual(formatEvent(event), "worker 3: pages is {odd}")
        self.assertEqual((event["pool"], event["worker"]), ("pages", 3))

    def test_traceback(self) -> None:
        """
        An event keeps its traceback.
        """
        failure = Failure(ZeroDivisionError("too small"))
        sent = {"log_failure": failure, "log_format": "it failed", "log_level": LogLevel.critical, "log_namespace": "x"}
        event = self.relayed(asJSON(sent).encode())
        self.assertRegex(formatEvent(event), "(?s)^worker 3: it failed\n.*ZeroDivisionError: too small")
        self.assertEqual(event["log_level"], LogLevel.critical)

    def test_otherLines(self) -> None:
        """
        A line that is not an event becomes a warning with its text.
        """
        for line in (b"Fatal Python error: {x}", b"{}", b"[1]", b"7", b"\xff", b'{"level": "loud", "text": "x"}', b""):
            event = self.relayed(line)
            self.assertEqual((event["log_level"], event["log_namespace"]), (LogLevel.warn, "ours"))
            self.assertEqual(formatEvent(event), f"worker 3: {line.decode(errors='replace')}")

    def test_controlCharacters(self) -> None:
        """
        Control characters in such a line are escaped.
        """
        self.assertEqual(formatEvent(self.relayed(b"\x1b[2Jno\r\tor\xc2\x9b{x}")), r"worker 3: \x1b[2Jno\r\tor\x9b{x}")


class ChooseTests(SynchronousTestCase):
    """
    Tests for L{chooseObserver}.
    """

    def setUp(self) -> None:
        """
        Restore the handler of SIGUSR1 after the test.
        """
        before = signal.getsignal(signal.SIGUSR1)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)

    def twistd(self, **options: Any) -> dict[str, Any]:
        """
        @return: the options of twistd.
        """
        return {"logfile": None, "nodaemon": False, "syslog": False, "logger": None, **options}

    def written(self, **options: Any) -> None:
        """
        Log one event with the observer that C{twistd} would use.
        """
        make = chooseObserver(self.twistd(**options), "json")
        assert make is not None
        make()({"log_format": "hello"})

    def test_twist(self) -> None:
        """
        The observer factory of C{twist} is set.
        """
        for form, factory in (("text", textFileLogObserver), ("json", jsonObserver)):
            command: dict[str, Any] = {"fileLogObserverFactory": None}
            self.assertIsNone(chooseObserver(command, form))
            self.assertIs(command["fileLogObserverFactory"], factory)
            self.assertIsNone(chooseObserver(command, None))
            self.assertIs(command["fileLogObserverFactory"], factory)

    def test_text(self) -> None:
        """
        C{twistd} writes text to the standard output and to syslog by itself; C{--logger} is not replaced.
        """
        for form in ("text", None):
            self.assertIsNone(chooseObserver(self.twistd(nodaemon=True), form))
            self.assertIsNone(chooseObserver(self.twistd(logfile="-"), form))
            self.assertIsNone(chooseObserver(self.twistd(syslog=True), form))
            self.assertIsNone(chooseObserver(self.twistd(logger="some.logger"), form))
        self.assertIsNone(chooseObserver(self.twistd(logger="some.logger"), "json"))

    def test_moved(self) -> None:
        """
        A file that was moved or deleted stays as it is, and a new file begins. One that was not moved is renamed, as
        with Twisted's own log.
        """
        path = Path(self.mktemp()).absolute()
        old = path.with_name(f"{path.name}.old")
        file = MovedLogFile.fromFullPath(str(path))
        self.addCleanup(file.close)
        file.write("one\n")
        path.rename(old)
        file.rotate()
        file.write("two\n")
        path.unlink()
        file.rotate()
        file.write("three\n")
        file.rotate()
        file.write("four\n")
        self.assertEqual(old.read_text("ascii"), "one\n")
        self.assertEqual(path.with_name(f"{path.name}.1").read_text("ascii"), "three\n")
        self.assertEqual(path.read_text("ascii"), "four\n")

    def test_standardOutput(self) -> None:
        """
        In the foreground JSON goes to the standard output, unless a file is named.
        """
        for options in ({}, {"logfile": "-"}):
            output = StringIO()
            self.patch(sys, "stdout", output)
            self.written(nodaemon=True, **options)
            self.assertEqual(json.loads(output.getvalue())["text"], "hello")
        self.assertIs(signal.getsignal(signal.SIGUSR1), signal.SIG_DFL)

    def test_file(self) -> None:
        """
        Otherwise JSON goes to the file that is named. SIGUSR1 opens a new one, unless the signal has a handler.
        """
        path = Path(self.mktemp()).absolute()
        self.written(logfile=str(path), nodaemon=True)
        self.assertEqual(json.loads(path.read_text("ascii"))["text"], "hello")
        rotate = signal.getsignal(signal.SIGUSR1)
        self.assertTrue(callable(rotate))
        self.written(logfile=str(path))
        self.assertIs(signal.getsignal(signal.SIGUSR1), rotate)

    def test_impossible(self) -> None:
        """
        A combination of options that cannot work is an error.
        """
        for options, expected in (
            ({"syslog": True}, "is for files and the standard output, not for --syslog"),
            ({"logfile": "-"}, "a daemon cannot log to the standard output"),
        ):
            error = self.assertRaises(ValueError, chooseObserver, self.twistd(**options), "json")
            self.assertEqual(str(error), expected)


class NamespaceTests(SynchronousTestCase):
    """
    Tests for the namespaces of the loggers.
    """

    def loggers(self) -> dict[str, list[ast.expr]]:
        """
        @return: the arguments of all calls of C{Logger} in the package, by the place of the call.
        """
        root = Path(txconnpool.__file__).parent
        found: dict[str, list[ast.expr]] = {}
        for path in root.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Logger":
                    found[f"{path.relative_to(root)}:{node.lineno}"] = node.args
        return found

    def test_documented(self) -> None:
        """
        Each logger has one of the namespaces that the manual lists, and each of these is used. L{relay} repeats the
        namespaces of a worker's events.
        """
        _, _, table = chapter(MANUAL, "Logs").partition("\nnamespace ")
        documented = set(re.findall(r"^``(txconnpool\.\w+)`` +\w", table, re.MULTILINE))
        used = set()
        for place, args in self.loggers().items():
            if not place.startswith("operate/logs.py:"):
                (namespace,) = args
                self.assertIsInstance(namespace, ast.Constant, place)
                used.add(ast.literal_eval(namespace))
        self.assertEqual(used, documented)
