# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.console}.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, ILoggingContext
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import Logger, LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.bugs import covers
from txconnpool.config.changes import CannotChange
from txconnpool.config.settings import OPTIONS, ConfigError, Fault, PoolSettings, Settings
from txconnpool.operate import console as admin
from txconnpool.operate.console import (
    COMMAND_NAMES,
    CONSOLES,
    IDLE,
    LINE_MAX,
    PENALTY,
    AdminService,
    ConsoleFactory,
    Target,
    private,
)
from txconnpool.operate.events import Events
from txconnpool.operate.operations import ControlError
from txconnpool.operate.workers.channel import ChannelError

A = PoolSettings(name="a")


class Running:
    """
    What is administered.

    @ivar orders: what was to be done.
    @ivar answers: what that gives: a value, a Deferred, or an exception that is raised.
    @ivar reloaded: what a reload gives.
    """

    def __init__(self) -> None:
        self.settings = Settings(pools=(A,))
        self.orders: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {}
        self.reloaded: Deferred[list[str]] = succeed([])

    def change(self, make: Any) -> Deferred[list[str]]:
        """
        Change the settings.
        """
        try:
            self.settings = make(self.settings)
        except Exception:
            return fail()
        return succeed(["one", "two"])

    def do(self, *order: Any) -> Any:
        """
        Do something.
        """
        self.orders.append(order)
        answer = self.answers.get(order[0], "done")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def shutdown(self, now: bool) -> None:
        """
        Stop.
        """
        self.orders.append(("shutdown", now))

    def reload(self) -> Deferred[list[str]]:
        """
        Read the settings again.
        """
        return self.reloaded


class Fixed(datetime):
    """
    A clock of a place two hours to the east.
    """

    def astimezone(self, tz: Any = None) -> Any:
        """
        Be there.
        """
        return super().astimezone(tz or timezone(timedelta(hours=2)))


class Terminal(StringTransport):
    """
    The transport of a console, and who sits there.
    """

    def __init__(self, console: Any) -> None:
        super().__init__()
        self.console = console
        self.closed = False
        console.makeConnection(self)

    def say(self, *lines: str) -> str:
        """
        Type lines.

        @return: what is answered at once.
        """
        self.clear()
        self.console.dataReceived("".join(f"{line}\n" for line in lines).encode())
        return self.turn()

    def turn(self) -> str:
        """
        Let happen what happens by itself.

        @return: what is answered.
        """
        for _ in range(10):
            self.console.factory.reactor.advance(0)
        told: str = self.value().decode()
        return told

    def hangUp(self) -> None:
        """
        Be gone.
        """
        self.closed = True
        self.console.connectionLost(Failure(ConnectionDone()))


class ConsoleTestCase(SynchronousTestCase):
    """
    What the tests of the console share.
    """

    password: bytes | None = None

    def setUp(self) -> None:
        """
        Have something to administer.
        """
        self.reactor = MemoryReactorClock()
        self.running = Running()
        self.events = Events()
        target = Target(self.running, self.running.do, self.running.reload, self.running.shutdown, self.events)
        self.factory = ConsoleFactory(target, self.reactor, self.password)
        self.terminals: list[Terminal] = []
        self.addCleanup(self._leave)

    def _leave(self) -> None:
        for terminal in self.terminals:
            if not terminal.closed:
                terminal.hangUp()
        self.assertEqual((self.reactor.getDelayedCalls(), self.factory.consoles), ([], set()))

    def open(self) -> Terminal:
        """
        Open a console.
        """
        self.terminals.append(Terminal(self.factory.buildProtocol(None)))
        return self.terminals[-1]

    def say(self, *lines: str) -> str:
        """
        Type lines at a new console.

        @return: what is answered.
        """
        return self.open().say(*lines)


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
        self.patch(admin, "datetime", Fixed)
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
            ("drain tcp:h:1", ("drain", "tcp:h:1")),
            ("eject tcp:h:1", ("eject", "tcp:h:1")),
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
            ("drain", "expected drain SERVER"),
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
        for error in (ControlError("no pool"), ChannelError("gone")):
            self.running.answers["pause"] = error
            self.assertEqual(self.say("pause"), f"ERROR {error}\n")

    def test_defect(self) -> None:
        """
        An exception that nobody expected is logged, and the console goes on.
        """
        self.running.answers["pause"] = ZeroDivisionError("oops")
        self.assertEqual(
            self.say("pause", "resume"), "ERROR ZeroDivisionError: that is a defect; the log tells more\nOK done\n"
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ConsoleTests(ConsoleTestCase):
    """
    Tests for the console itself.
    """

    def test_interface(self) -> None:
        """
        The console hears when nothing more will be typed.
        """
        verifyObject(IHalfCloseableProtocol, self.open().console)

    def test_pieces(self) -> None:
        """
        It does not matter in which pieces lines arrive; empty ones say nothing.
        """
        terminal = self.open()
        for byte in b"\n  \npause a\r\nresume":
            terminal.console.dataReceived(bytes([byte]))
        self.assertEqual(terminal.turn(), "OK done\n")
        self.assertEqual(self.running.orders, [("pause", "a")])

    def test_oneAfterAnother(self) -> None:
        """
        A command begins when the one before it has ended, and meanwhile nothing is read.
        """
        waiting: Deferred[str] = Deferred()
        self.running.answers["pause"] = waiting
        terminal = self.open()
        self.assertEqual(terminal.say("pause", "resume"), "")
        self.assertEqual((self.running.orders, terminal.producerState), ([("pause", None)], "paused"))
        waiting.callback("at last")
        self.assertEqual(terminal.turn(), "OK at last\nOK done\n")
        self.assertEqual(terminal.producerState, "producing")

    def test_notUTF8(self) -> None:
        """
        What is no text is an error like any other.
        """
        terminal = self.open()
        terminal.console.dataReceived(b"\xff\n")
        self.assertIn("ERROR no command '\ufffd'", terminal.turn())

    def test_longLine(self) -> None:
        """
        A line that is too long is an error, and the end.
        """
        terminal = self.open()
        terminal.console.dataReceived(b"x" * LINE_MAX)
        self.assertFalse(terminal.disconnecting)
        terminal.console.dataReceived(b"x")
        self.assertEqual(terminal.turn(), f"ERROR the line is longer than {LINE_MAX} bytes\n")
        self.assertTrue(terminal.disconnecting)

    def test_idle(self) -> None:
        """
        A console at which nobody types is closed. Each line, and the end of each command, begins a new time.
        """
        waiting: Deferred[str] = Deferred()
        self.running.answers["pause"] = waiting
        terminal = self.open()
        self.reactor.advance(IDLE - 1)
        terminal.say("pause")
        self.reactor.advance(10 * IDLE)
        self.assertFalse(terminal.disconnecting)
        waiting.callback("done")
        self.reactor.advance(IDLE - 1)
        self.assertFalse(terminal.disconnecting)
        terminal.clear()
        self.reactor.advance(1)
        self.assertEqual(terminal.turn(), f"ERROR nothing was typed for {IDLE:g} seconds\n")
        self.assertTrue(terminal.disconnecting)

    def test_notReading(self) -> None:
        """
        While answers are not read nothing more is done; if that lasts, the connection is closed by force.
        """
        terminal = self.open()
        terminal.console.pauseProducing()
        self.assertEqual(terminal.say("pause"), "")
        self.assertEqual((self.running.orders, terminal.producerState), ([], "paused"))
        terminal.console.resumeProducing()
        self.assertEqual(terminal.turn(), "OK done\n")
        terminal.console.pauseProducing()
        self.reactor.advance(IDLE)
        self.assertTrue(terminal.disconnected)

    def test_halfClosed(self) -> None:
        """
        When nothing more will be typed, what was typed is done; then the console is closed.
        """
        waiting: Deferred[str] = Deferred()
        self.running.answers["pause"] = waiting
        terminal = self.open()
        terminal.console.dataReceived(b"pause\nresume\nunfinished")
        terminal.console.readConnectionLost()
        terminal.console.writeConnectionLost()
        self.assertFalse(terminal.disconnecting)
        waiting.callback("done")
        self.assertEqual(terminal.turn(), "OK done\nOK done\n")
        self.assertTrue(terminal.disconnecting)

    def test_gone(self) -> None:
        """
        When the person is gone, what was begun is done, and nothing else.
        """
        waiting: Deferred[str] = Deferred()
        self.running.answers["pause"] = waiting
        terminal = self.open()
        terminal.say("pause", "resume")
        terminal.console.stopProducing()
        terminal.hangUp()
        waiting.callback("done")
        self.assertEqual((terminal.turn(), self.running.orders), ("", [("pause", None)]))

    def test_tooMany(self) -> None:
        """
        One console more than there may be is told so and closed.
        """
        for _ in range(CONSOLES):
            self.open()
        terminal = self.open()
        self.assertEqual(terminal.turn(), f"ERROR too many consoles; there may be {CONSOLES}\n")
        self.assertTrue(terminal.disconnecting)
        terminal.hangUp()
        self.terminals[0].hangUp()
        self.assertEqual(self.say("pause"), "OK done\n")


class PasswordTests(ConsoleTestCase):
    """
    Tests for a console that asks for a password.
    """

    password = b"open sesame"

    @covers("28")
    def test_stranger(self) -> None:
        """
        Without the password nothing is told or done.
        """
        self.assertEqual(self.say("pause", "help", "quit"), "ERROR expected auth PASSWORD first\n" * 2 + "OK bye\n")
        self.assertEqual(self.running.orders, [])

    def test_right(self) -> None:
        """
        With it everything may be done. It is not in the log.
        """
        with capturedLogs() as logs:
            told = self.say("auth open sesame", "pause")
        self.assertEqual(told, "OK welcome; `help` lists the commands\nOK done\n")
        self.assertNotIn("sesame", str(logs))

    @covers("28")
    def test_wrong(self) -> None:
        """
        A wrong one costs time; after a few the console is closed. They are not in the log, but where they came from.
        """
        terminal = self.open()
        for number in range(admin.TRIES):
            with capturedLogs() as logs:
                self.assertEqual(terminal.say("auth open" + " sesame" * number * 2, "pause"), "")
            self.assertNotIn("open", str([event for event in logs if "peer" in event]))
            self.assertEqual(len(logs), 1)
            self.reactor.advance(PENALTY)
            self.assertIn("ERROR wrong password\n", terminal.turn())
        self.assertTrue(terminal.disconnecting)
        self.assertEqual(self.running.orders, [])

    def test_constantTime(self) -> None:
        """
        How long the comparison takes does not depend on how much of a password is right.
        """
        compared: list[tuple[bytes, bytes]] = []

        def compare(*both: Any) -> bool:
            compared.append(both)
            return False

        self.patch(hmac, "compare_digest", compare)
        terminal = self.open()
        terminal.say("auth x")
        self.reactor.advance(PENALTY)
        terminal.turn()
        self.assertEqual(compared, [(b"x", self.password)])

    def test_goneMeanwhile(self) -> None:
        """
        Who has typed a wrong password may be gone before that is told.
        """
        terminal = self.open()
        terminal.say("auth x")
        terminal.hangUp()
        self.reactor.advance(PENALTY)
        self.assertEqual(terminal.turn(), "")


class AdminServiceTests(SynchronousTestCase):
    """
    Tests for L{AdminService}.
    """

    def service(self, endpoint: str) -> tuple[AdminService, MemoryReactorClock]:
        """
        Make one.
        """
        reactor = MemoryReactorClock()
        running = Running()
        target = Target(running, running.do, running.reload, running.shutdown, Events())
        return AdminService(endpoint, target, reactor), reactor

    @covers("28")
    def test_private(self) -> None:
        """
        A UNIX socket is nobody else's, unless its mode is given.
        """
        for endpoint, expected in (
            ("unix:/x", "unix:/x:mode=600"),
            ("unix:/x:mode=660", "unix:/x:mode=660"),
            ("unix:/x:lockfile=0", "unix:/x:lockfile=0:mode=600"),
            ("tcp:1", "tcp:1"),
        ):
            self.assertEqual(private(endpoint), expected)

    def test_life(self) -> None:
        """
        It listens when it starts, once; when it stops the port and the consoles are closed.
        """
        service, reactor = self.service("unix:/tmp/admin")
        verifyObject(IService, service)
        self.assertFalse(service.listening)
        service.privilegedStartService()
        service.startService()
        self.assertTrue(service.listening)
        Logger(namespace="txconnpool.test").info("heard")
        ((address, factory, _, mode, _),) = reactor.unixServers
        self.assertEqual((address, mode, ILoggingContext(factory).logPrefix()), ("/tmp/admin", 0o600, "console"))
        terminal = Terminal(factory.buildProtocol(None))
        self.successResultOf(service.stopService())
        Logger(namespace="txconnpool.test").info("not heard")
        self.assertEqual([event["text"] for event in service._events.recent], ["heard"])
        self.assertTrue(terminal.disconnecting)
        self.assertFalse(service.listening)
        terminal.hangUp()
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_notStarted(self) -> None:
        """
        One that has not started stops.
        """
        service, _ = self.service("unix:/tmp/admin")
        self.successResultOf(service.stopService())

    def test_cannotListen(self) -> None:
        """
        That an address is taken is raised where it starts.
        """
        service, reactor = self.service("tcp:1")

        def listenTCP(*args: Any, **kwargs: Any) -> Any:
            raise CannotListenError("", 1, OSError("taken"))

        self.patch(reactor, "listenTCP", listenTCP)
        self.assertRaises(CannotListenError, service.privilegedStartService)
