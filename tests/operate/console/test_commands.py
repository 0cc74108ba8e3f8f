# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.console.commands}.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from twisted.internet.defer import fail, succeed
from twisted.logger import LogLevel, capturedLogs

from tests.operate.consoles import A, ConsoleTestCase
from txconnpool.config.changes import CannotChange
from txconnpool.config.settings import OPTIONS, ConfigError, Fault, Settings
from txconnpool.operate.console import commands
from txconnpool.operate.console.commands import COMMAND_NAMES
from txconnpool.operate.operations import OperationError
from txconnpool.operate.workers.channel import ChannelError


class Fixed(datetime):
    """
    A clock of a place two hours to the east.
    """

    def astimezone(self, tz: Any = None) -> Any:
        """
        Be there.
        """
        return super().astimezone(tz or timezone(timedelta(hours=2)))


class CommandTests(ConsoleTestCase):
    """
    Tests for what can be typed.
    """

    def test_help(self) -> None:
        """
        C{help} lists every command, how it is written and what it does.
        """
        *lines, last = self.say("help").splitlines()
        self.assertEqual([re.split("[ ]", line)[0] for line in lines], list(COMMAND_NAMES))
        self.assertEqual(last, f"OK {len(COMMAND_NAMES)} commands")
        for words in ("resize POOL MIN MAX  ", "shutdown [drain|now]  ", "show pools|servers|sessions"):
            self.assertIn(words, "\n".join(lines))
        self.assertEqual([line for line in lines if not re.fullmatch(r"\S.*\S  +[a-z].*[a-z]", line)], [])

    def test_table(self) -> None:
        """
        What is shown is a table in aligned columns, numbers to the right.
        """
        rows = [{"pool": "a", "sessions": 5, "state": "up"}, {"pool": "longer", "sessions": 12345, "state": ""}]
        self.running.answers["rows"] = rows
        self.assertEqual(
            self.say("show pools").splitlines(),
            [
                "pool    sessions  state",
                "a              5  up",
                "longer     12345",
                "OK 2 pools",
            ],
        )

    def test_show(self) -> None:
        """
        Each table is asked for by its name; of sessions not too many, unless more are wanted.
        """
        self.running.answers["rows"] = []
        terminal = self.open()
        for line, told in (
            ("show pools", "OK 0 pools\n"),
            ("show servers", "OK 0 servers\n"),
            ("SHOW sessions", "OK 0 sessions\n"),
            ("show sessions 7", "OK 0 sessions\n"),
        ):
            self.assertEqual(terminal.say(line), told)
        self.assertEqual(
            self.running.orders,
            [("rows", "pools", 50), ("rows", "servers", 50), ("rows", "sessions", 50), ("rows", "sessions", 7)],
        )
        self.running.answers["rows"] = [{"session": "1"}]
        self.assertIn("OK 1 server\n", terminal.say("show servers"))
        self.assertIn("OK 1 sessions; there may be more: `show sessions 1000`\n", terminal.say("show sessions 1"))

    def test_settings(self) -> None:
        """
        All settings are shown as the ini has them, with their defaults, and whether a reload changes them. What they
        are is asked nobody else.
        """
        self.running.settings = Settings(pools=(replace(A, listen=("tcp:1", "tcp:2"), maxItemSize=2 << 20),))
        *lines, last = self.say("show settings").splitlines()
        self.assertEqual(last, f"OK {len(OPTIONS)} settings")
        for words in (
            ("pool", "key", "value", "default", "changes"),
            ("workers", "1", "1", "at a restart"),
            ("a", "listen", "tcp:1 tcp:2", "tcp:11212:interface=127.0.0.1", "live"),
            ("a", "max-item-size", "2m", "1m", "live"),
        ):
            self.assertTrue(any(re.fullmatch(" *" + "  +".join(words), line) for line in lines), words)
        self.assertEqual(self.running.orders, [])

    def test_events(self) -> None:
        """
        What has happened lately is shown, with the time here, each in one line.
        """
        self.patch(commands, "datetime", Fixed)
        for text in ("one", "two\n  lines"):
            self.events(
                {"log_namespace": "txconnpool.a", "log_level": LogLevel.warn, "log_time": 5, "log_format": text}
            )
        self.assertEqual(
            self.say("show events").splitlines(),
            [
                "time                       level  event",
                "1970-01-01T02:00:05+02:00  warn   one",
                "1970-01-01T02:00:05+02:00  warn   two lines",
                "OK 2 events",
            ],
        )

    def test_orders(self) -> None:
        """
        Orders are passed on, and what was done is told.
        """
        terminal = self.open()
        for line, order in (
            ("pause", ("pause", None)),
            ("pause a", ("pause", "a")),
            ("resume", ("resume", None)),
            ("  resume   a  \r", ("resume", "a")),
            ("drain tcp:h:1", ("drain", "tcp:h:1", False)),
            ("drain tcp:h:1 now", ("drain", "tcp:h:1", True)),
            ("restore tcp:h:1", ("restore", "tcp:h:1")),
            ("kill 1.2", ("kill", "1.2")),
        ):
            self.assertEqual(terminal.say(line), "OK done\n")
            self.assertEqual(self.running.orders.pop(), order)

    def test_severalLines(self) -> None:
        """
        When several processes tell different things, all of it is told, and the last line is the one that ends it.
        """
        self.running.answers["pause"] = "worker 1: done\nworker 2: also"
        self.assertEqual(self.say("pause"), "worker 1: done\nOK worker 2: also\n")

    def test_logged(self) -> None:
        """
        What changes something is in the log; what only looks is not.
        """
        self.running.answers["rows"] = []
        with capturedLogs() as logs:
            self.say("help", "show pools", "drain s\x1b[2J", "quit")
        self.assertEqual([event["line"] for event in logs], ["drain s\x1b[2J"])
        self.assertIn("{line!r}", logs[0]["log_format"])

    def test_resize(self) -> None:
        """
        The bounds of a pool are changed, and each change is told.
        """
        self.assertEqual(self.say("resize a 2 9"), "one\ntwo\nOK 2 changed\n")
        self.assertEqual(self.running.settings.pools, (replace(A, minPoolSize=2, poolSize=9),))

    def test_cannotResize(self) -> None:
        """
        Bounds that cannot be are told, and nothing has changed.
        """
        for line, told in (
            ("resize a 9 2", "ERROR pool 'a': min-pool-size 9 is more than pool-size 2"),
            ("resize z 1 2", "ERROR no pool 'z'; there are: a"),
            ("resize a x 2", "ERROR MIN is 'x'; expected a whole number up to 65535"),
            ("resize a 1 -2", "ERROR MAX is '-2'; expected a whole number up to 65535"),
            ("resize a 1 65536", "ERROR MAX is '65536'; expected a whole number up to 65535"),
        ):
            self.assertEqual(self.say(line), f"{told}\n")
        self.assertEqual(self.running.settings.pools, (A,))

    def test_reload(self) -> None:
        """
        Each thing that a reload has changed is told.
        """
        self.running.reloaded = succeed(["pool a: pool-size 4 -> 8"])
        self.assertEqual(self.say("reload"), "pool a: pool-size 4 -> 8\nOK reloaded, 1 changed\n")

    def test_notReloaded(self) -> None:
        """
        Each thing that is wrong is told in a line.
        """
        terminal = self.open()
        self.running.reloaded = fail(CannotChange("cannot listen"))
        self.assertEqual(terminal.say("reload"), "ERROR cannot listen\n")
        self.running.reloaded = fail(ConfigError([Fault("x.ini:1: one"), Fault("x.ini:2: two")]))
        self.assertEqual(terminal.say("reload"), "x.ini:1: one\nx.ini:2: two\nERROR 2 problems\n")

    def test_shutdown(self) -> None:
        """
        The process is stopped, in peace or at once.
        """
        terminal = self.open()
        for line, told, order in (
            ("shutdown", "OK stopping\n", ("shutdown", False)),
            ("shutdown drain", "OK stopping\n", ("shutdown", False)),
            ("shutdown now", "OK stopping at once\n", ("shutdown", True)),
        ):
            self.assertEqual(terminal.say(line), told)
            self.assertEqual(self.running.orders.pop(), order)

    def test_quit(self) -> None:
        """
        C{quit} closes the console, and what was typed behind it is not done.
        """
        terminal = self.open()
        self.assertEqual(terminal.say("quit", "pause"), "OK bye\n")
        self.assertTrue(terminal.disconnecting)
        self.assertEqual(self.running.orders, [])

    def test_wrong(self) -> None:
        """
        What cannot be understood is told with what would be right.
        """
        terminal = self.open()
        for line, told in (
            ("puase", "no command 'puase'; did you mean pause?"),
            ("xyzzy", "no command 'xyzzy'; `help` lists them"),
            ("run", "no command 'run'; `help` lists them"),
            ("__init__", "no command '__init__'; `help` lists them"),
            ("show", "expected show pools|servers|sessions [MOST]|settings|events"),
            ("show poools", "expected show pools|servers|sessions [MOST]|settings|events"),
            ("show sessions many", "MOST is 'many'; expected a whole number up to 1000"),
            ("pause a b", "expected pause [POOL]"),
            ("drain", "expected drain SERVER [now]"),
            ("drain tcp:h:1 later", "expected drain SERVER [now]"),
            ("eject tcp:h:1", "no command 'eject'; it is `drain SERVER now` now"),
            ("resize a 1", "expected resize POOL MIN MAX"),
            ("shutdown later", "expected shutdown [drain|now]"),
            ("auth x", "no password is needed here"),
        ):
            self.assertEqual(terminal.say(line), f"ERROR {told}\n")
        self.assertEqual(self.running.orders, [])

    def test_cannot(self) -> None:
        """
        What cannot be done is told.
        """
        for error in (OperationError("no pool"), ChannelError("gone")):
            self.running.answers["pause"] = error
            self.assertEqual(self.say("pause"), f"ERROR {error}\n")

    def test_defect(self) -> None:
        """
        An exception that nobody expected is logged, and the console goes on.
        """
        self.running.answers["pause"] = ZeroDivisionError("oops")
        self.assertEqual(
            self.say("pause", "resume"), "ERROR internal error, ZeroDivisionError; the log has the traceback\nOK done\n"
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
