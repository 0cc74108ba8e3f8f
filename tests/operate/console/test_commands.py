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
from twisted.logger import LogLevel, capturedLogs, formatEvent

from tests.operate.consoles import A, ConsoleTestCase
from txconnpool.config.changes import CannotChange
from txconnpool.config.settings import OPTIONS, ConfigError, Fault, Settings
from txconnpool.operate.console import commands
from txconnpool.operate.console.commands import COMMAND_NAMES
from txconnpool.operate.operations import OperationError
from txconnpool.operate.workers.channel import ChannelError


class Fixed(datetime):
    """
    A datetime in a time zone two hours to the east.
    """

    def astimezone(self, tz: Any = None) -> Any:
        return super().astimezone(tz or timezone(timedelta(hours=2)))


class CommandTests(ConsoleTestCase):
    """
    Tests for L{Commands}, typed at a console.
    """

    def test_help(self) -> None:
        """
        C{help} lists the usage and the help of each command.
        """
        *lines, last = self.enter("help").splitlines()
        self.assertEqual([re.split("[ ]", line)[0] for line in lines], list(COMMAND_NAMES))
        self.assertEqual(last, f"OK {len(COMMAND_NAMES)} commands")
        for words in ("resize POOL MIN MAX  ", "shutdown [drain|now]  ", "show pools|servers|slots|sessions"):
            self.assertIn(words, "\n".join(lines))
        self.assertEqual([line for line in lines if not re.fullmatch(r"\S.*\S  +[a-z].*[a-z]", line)], [])

    def test_table(self) -> None:
        """
        Tables have aligned columns, numbers to the right.
        """
        rows = [{"pool": "a", "sessions": 5, "state": "up"}, {"pool": "longer", "sessions": 12345, "state": ""}]
        self.running.answers["rows"] = rows
        self.assertEqual(
            self.enter("show pools").splitlines(),
            [
                "pool    sessions  state",
                "a              5  up",
                "longer     12345",
                "OK 2 pools",
            ],
        )

    def test_show(self) -> None:
        """
        C{show} asks for a table by its name. Of sessions it asks for 50 unless a number is given, and the reply says
        that there may be more.
        """
        self.running.answers["rows"] = []
        terminal = self.open()
        for line, reply in (
            ("show pools", "OK 0 pools\n"),
            ("show servers", "OK 0 servers\n"),
            ("SHOW sessions", "OK 0 sessions\n"),
            ("show sessions 7", "OK 0 sessions\n"),
        ):
            self.assertEqual(terminal.enter(line), reply)
        self.assertEqual(
            self.running.orders,
            [("rows", "pools", 50), ("rows", "servers", 50), ("rows", "sessions", 50), ("rows", "sessions", 7)],
        )
        self.running.answers["rows"] = [{"session": "1"}]
        self.assertIn("OK 1 server\n", terminal.enter("show servers"))
        self.assertIn("OK 1 sessions; there may be more: `show sessions 1000`\n", terminal.enter("show sessions 1"))

    def test_settings(self) -> None:
        """
        C{show settings} lists all settings as in an ini file, with their defaults and whether a reload changes them. It
        performs no operation.
        """
        self.running.settings = Settings(pools=(replace(A, listen=("tcp:1", "tcp:2"), maxItemSize=2 << 20),))
        *lines, last = self.enter("show settings").splitlines()
        self.assertEqual(last, f"OK {len(OPTIONS)} settings")
        for words in (
            ("pool", "key", "value", "default", "changes"),
            ("workers", "1", "1", "at a restart"),
            ("a", "listen", "tcp:1 tcp:2", "tcp:11212:interface=127.0.0.1", "live"),
            ("a", "max-item-size", "2m", "1m", "live"),
            ("a", "protocol", "memcache", "memcache", "at a restart"),
            ("a", "database", "0", "0", "at a restart"),
        ):
            self.assertTrue(any(re.fullmatch(" *" + "  +".join(words), line) for line in lines), words)
        changed = self.enter("show settings changed").splitlines()
        self.assertEqual([line.split()[1] for line in changed], ["key", "listen", "max-item-size", "2"])
        self.assertEqual(self.running.orders, [])

    def test_events(self) -> None:
        """
        C{show events} lists the recent events in local time, one on each line.
        """
        self.patch(commands, "datetime", Fixed)
        for text in ("one", "two\n  lines"):
            self.events(
                {"log_namespace": "txconnpool.a", "log_level": LogLevel.warn, "log_time": 5, "log_format": text}
            )
        self.assertEqual(
            self.enter("show events").splitlines(),
            [
                "time                       level  event",
                "1970-01-01T02:00:05+02:00  warn   one",
                "1970-01-01T02:00:05+02:00  warn   two lines",
                "OK 2 events",
            ],
        )

    def test_orders(self) -> None:
        """
        Commands perform operations with their arguments, and reply with the result.
        """
        terminal = self.open()
        for line, order in (
            ("pause", ("pause", None)),
            ("pause a", ("pause", "a")),
            ("resume", ("resume", None)),
            ("  resume   a  \r", ("resume", "a")),
            ("drain tcp:h:1", ("drain", "tcp:h:1", False)),
            ("drain tcp:h:1 now", ("drain", "tcp:h:1", True)),
            ("eject tcp:h:1", ("eject", "tcp:h:1")),
            ("reconnect", ("reconnect", None)),
            ("reconnect a", ("reconnect", "a")),
            ("restore tcp:h:1", ("restore", "tcp:h:1")),
            ("kill 1.2", ("kill", "1.2")),
        ):
            self.assertEqual(terminal.enter(line), "OK done\n")
            self.assertEqual(self.running.orders.pop(), order)

    def test_labels(self) -> None:
        """
        A server can be given by its label, if no other one has this label.
        """
        self.running.answers["rows"] = [
            {"server": name, "label": label}
            for name, label in (
                ("s:1", "one"),
                ("s:2", "two"),
                ("s:1", "one"),
                ("s:3", "two"),
                ("s:4", "-"),
                ("two", "s:1"),
            )
        ]
        terminal = self.open()
        for line, order in (
            ("drain one now", ("drain", "s:1", True)),
            ("eject one", ("eject", "s:1")),
            ("restore one", ("restore", "s:1")),
            ("drain s:1", ("drain", "s:1", False)),
            ("drain two", ("drain", "two", False)),
            ("drain -", ("drain", "-", False)),
            ("drain three", ("drain", "three", False)),
        ):
            self.assertEqual(terminal.enter(line), "OK done\n")
            self.assertEqual(self.running.orders.pop(), order)
        self.running.answers["rows"].pop()
        error = "ERROR 2 servers have the label 'two'; expected one of s:2, s:3\n"
        self.assertEqual(terminal.enter("restore two"), error)

    def test_severalLines(self) -> None:
        """
        If the results of workers differ, each is on a line; the last line begins with C{OK}.
        """
        self.running.answers["pause"] = "worker 1: done\nworker 2: also"
        self.assertEqual(self.enter("pause"), "worker 1: done\nOK worker 2: also\n")

    def test_logged(self) -> None:
        """
        Commands that change something are logged, other commands are not.
        """
        self.running.answers["rows"] = []
        with capturedLogs() as logs:
            self.enter("help", "show pools", "drain s\x1b[2J", "quit")
        self.assertEqual([event["line"] for event in logs], ["drain s\x1b[2J"])
        self.assertIn("{line!r}", logs[0]["log_format"])

    def test_refused(self) -> None:
        """
        Refused commands are logged as such, with the beginning of the reason. A mistyped command is not logged.
        """
        self.running.reloaded = fail(ConfigError([Fault("x.ini:1: one"), Fault("x.ini:2: two")]))
        reason = f"no server 'x'; there are: {'tcp:h:1, ' * 100}"
        self.running.answers["drain"] = OperationError(reason)
        with capturedLogs() as logs:
            self.enter("drain x", "resize z 1 2", "reload", "drian x", "pause")
        self.assertEqual(
            [formatEvent(event) for event in logs],
            [
                f"console: 'drain x' refused: {reason[:117]}...",
                "console: 'resize z 1 2' refused: no pool 'z'; there are: a",
                "console: 'reload'",
                "console: 'reload' refused: x.ini:1: one (and 1 more)",
                "console: 'pause'",
            ],
        )

    def test_resize(self) -> None:
        """
        C{resize} changes the bounds of a pool, and replies with each change.
        """
        self.assertEqual(self.enter("resize a 2 9"), "one\ntwo\nOK 2 changed\n")
        self.assertEqual(self.running.settings.pools, (replace(A, minPoolSize=2, poolSize=9),))

    def test_cannotResize(self) -> None:
        """
        C{resize} with wrong arguments replies with an error and changes nothing.
        """
        for line, reply in (
            ("resize a 9 2", "ERROR pool 'a': min-pool-size 9 is more than pool-size 2"),
            ("resize z 1 2", "ERROR no pool 'z'; there are: a"),
            ("resize a x 2", "ERROR MIN is 'x'; expected a whole number up to 65535"),
            ("resize a 1 -2", "ERROR MAX is '-2'; expected a whole number up to 65535"),
            ("resize a 1 65536", "ERROR MAX is '65536'; expected a whole number up to 65535"),
        ):
            self.assertEqual(self.enter(line), f"{reply}\n")
        self.assertEqual(self.running.settings.pools, (A,))

    def test_reload(self) -> None:
        """
        C{reload} replies with each change.
        """
        self.running.reloaded = succeed(["pool a: pool-size 4 -> 8"])
        self.assertEqual(self.enter("reload"), "pool a: pool-size 4 -> 8\nOK reloaded, 1 changed\n")
        self.running.reloaded = succeed(["stats tcp:1 -> tcp:2: needs a restart"])
        self.assertEqual(self.enter("reload").splitlines()[-1], "OK reloaded, 0 changed, 1 needs a restart")

    def test_notReloaded(self) -> None:
        """
        A reload that fails replies with each reason on a line.
        """
        terminal = self.open()
        self.running.reloaded = fail(CannotChange("cannot listen"))
        self.assertEqual(terminal.enter("reload"), "ERROR cannot listen\n")
        self.running.reloaded = fail(ConfigError([Fault("x.ini:1: one"), Fault("x.ini:2: two")]))
        self.assertEqual(terminal.enter("reload"), "x.ini:1: one\nx.ini:2: two\nERROR 2 problems\n")

    def test_shutdown(self) -> None:
        """
        C{shutdown} stops the process, without waiting for requests in flight if so asked.
        """
        terminal = self.open()
        for line, reply, order in (
            ("shutdown", "OK stopping\n", ("shutdown", False)),
            ("shutdown drain", "OK stopping\n", ("shutdown", False)),
            ("shutdown now", "OK stopping at once\n", ("shutdown", True)),
        ):
            self.assertEqual(terminal.enter(line), reply)
            self.assertEqual(self.running.orders.pop(), order)

    def test_quit(self) -> None:
        """
        C{quit} closes the console. Commands after it are not carried out.
        """
        terminal = self.open()
        self.assertEqual(terminal.enter("quit", "pause"), "OK bye\n")
        self.assertTrue(terminal.disconnecting)
        self.assertEqual(self.running.orders, [])

    def test_wrong(self) -> None:
        """
        A command that is not valid gets an error with what would be right.
        """
        terminal = self.open()
        for line, reply in (
            ("puase", "no command 'puase'; did you mean pause?"),
            ("xyzzy", "no command 'xyzzy'; `help` lists them"),
            ("run", "no command 'run'; `help` lists them"),
            ("__init__", "no command '__init__'; `help` lists them"),
            ("show", "expected show pools|servers|slots|sessions [MOST]|settings [changed]|events"),
            ("show poools", "expected show pools|servers|slots|sessions [MOST]|settings [changed]|events"),
            ("show settings many", "expected show pools|servers|slots|sessions [MOST]|settings [changed]|events"),
            ("show sessions many", "MOST is 'many'; expected a whole number up to 1000"),
            ("pause a b", "expected pause [POOL]"),
            ("drain", "expected drain SERVER [now]"),
            ("drain tcp:h:1 later", "expected drain SERVER [now]"),
            ("eject", "expected eject SERVER"),
            ("resize a 1", "expected resize POOL MIN MAX"),
            ("shutdown later", "expected shutdown [drain|now]"),
            ("auth x", "no password is needed here"),
        ):
            self.assertEqual(terminal.enter(line), f"ERROR {reply}\n")
        self.assertEqual(self.running.orders, [])

    def test_cannot(self) -> None:
        """
        An operation that fails gets its error as the reply.
        """
        for error in (OperationError("no pool"), ChannelError("gone")):
            self.running.answers["pause"] = error
            self.assertEqual(self.enter("pause"), f"ERROR {error}\n")

    def test_defect(self) -> None:
        """
        An unexpected exception is logged, and the console goes on.
        """
        self.running.answers["pause"] = ZeroDivisionError("oops")
        self.assertEqual(
            self.enter("pause", "resume"),
            "ERROR internal error, ZeroDivisionError; the log has the traceback\nOK done\n",
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
