# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.command}.
"""

from __future__ import annotations

import atexit
import errno
import signal
import sys
from collections.abc import Callable
from io import StringIO
from typing import Any
from unittest import mock
from unittest.mock import Mock

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.changes import CannotChange
from txconnpool.config.settings import ConfigError, Fault, Settings
from txconnpool.operate import command
from txconnpool.operate.command import CannotStart, CommandService


class Failing(Service):
    """
    A service whose start fails.
    """

    statistics: Any = None

    def __init__(self, error: Exception) -> None:
        self.error = error

    def startService(self) -> None:
        raise self.error


class Reactor(MemoryReactorClock):
    """
    A reactor without threads.
    """

    def callFromThread(self, f: Callable[[], object]) -> None:
        self.callLater(0, f)


def commandService(part: Service, load: Callable[[], Settings] = Settings) -> CommandService:
    """
    @return: a service of the command with one part.
    """
    service = CommandService(part, load, Reactor())
    part.setServiceParent(service)
    return service


class FailingPrivileged(Failing):
    """
    A service that cannot listen before the process gives up its rights.
    """

    def privilegedStartService(self) -> None:
        raise self.error


class CommandServiceTests(SynchronousTestCase):
    """
    Tests for the start of L{CommandService}.
    """

    def fails(self, failing: Service, start: str) -> str:
        """
        Start a service whose start fails.

        @return: the line that is logged and printed.
        """
        stderr = StringIO()
        self.patch(sys, "excepthook", sys.excepthook)
        self.patch(sys, "__stderr__", stderr)
        service = commandService(failing)
        with capturedLogs() as logs:
            error = self.assertRaises(CannotStart, getattr(service, start))
        sys.excepthook(CannotStart, error, None)
        self.assertEqual([event["text"] for event in logs], [str(error)])
        self.assertEqual(stderr.getvalue(), f"{error}\n")
        return str(error)

    def test_statistics(self) -> None:
        """
        The line names the option of the address that is taken: that of statistics or that of clients.
        """
        error = CannotListenError("127.0.0.1", 11213, OSError(errno.EADDRINUSE, "Address already in use"))
        failing = Failing(error)
        failing.statistics = Mock(port=None)
        expected = "cannot listen on 127.0.0.1:11213: Address already in use; choose another endpoint with "
        self.assertEqual(self.fails(failing, "startService"), f"{expected}--stats")
        failing.statistics = Mock(port=object())
        self.assertEqual(self.fails(failing, "startService"), f"{expected}--listen")

    def test_port(self) -> None:
        """
        A port that is taken is one line in the log and on the standard error output, under C{twistd} and C{twist}.
        """
        error = CannotListenError("127.0.0.1", 11212, OSError(errno.EADDRINUSE, "Address already in use"))
        expected = "cannot listen on 127.0.0.1:11212: Address already in use; choose another endpoint with --listen"
        self.assertEqual(self.fails(FailingPrivileged(error), "privilegedStartService"), expected)
        self.assertEqual(self.fails(Failing(error), "startService"), expected)

    def test_unix(self) -> None:
        """
        The line has the path of a UNIX socket that cannot be made.
        """
        for error, expected in (
            (CannotListenError(None, b"/run/x", OSError(errno.ENOENT, "No such file or directory")), "/run/x: No such"),
            (CannotListenError(None, b"/run/x", "not now"), "/run/x: not now;"),
        ):
            self.assertIn(f"cannot listen on {expected}", self.fails(Failing(error), "startService"))

    def test_everyInterface(self) -> None:
        """
        The line has a star for a port on all interfaces.
        """
        error = CannotListenError("", 11212, OSError(errno.EADDRINUSE, "Address already in use"))
        self.assertIn("cannot listen on *:11212: ", self.fails(Failing(error), "startService"))

    def test_otherErrors(self) -> None:
        """
        An unexpected exception keeps its traceback.
        """
        hook = sys.excepthook
        for error in (ZeroDivisionError(), OSError(errno.EMFILE, "Too many open files")):
            service = commandService(Failing(error))
            self.assertIs(self.assertRaises(type(error), service.startService), error)
        self.assertIs(sys.excepthook, hook)


class Part(Service):
    """
    A part of the command that stops when a test says so.

    @ivar stopping: the result of C{stopService}.
    @ivar changed: the result of C{change}.
    @ivar calls: the calls so far.
    """

    def __init__(self) -> None:
        self.stopping: Deferred[None] = Deferred()
        self.calls: list[str] = []
        self.changed: Deferred[list[str]] = Deferred()
        self.served: Deferred[None] = succeed(None)

    def serving(self) -> Deferred[None]:
        return self.served

    def stopService(self) -> Deferred[None]:
        self.calls.append("stop")
        return self.stopping

    def abort(self) -> None:
        self.calls.append("abort")

    def change(self, make: Callable[[Settings], Settings]) -> Deferred[list[str]]:
        self.calls.append("change")
        try:
            make(Settings())
        except ConfigError:
            return fail()
        return self.changed


class NotifierTests(SynchronousTestCase):
    """
    Tests for the notifications of L{CommandService} to systemd.
    """

    def test_order(self) -> None:
        """
        The process is ready when all parts have started, and after each reload, whether it succeeds or not. It is
        stopping before its parts stop.
        """
        notified: list[str] = []

        class Notifier:
            def __init__(self, status: Callable[[], str], reactor: Any) -> None:
                self.status = status

            def __getattr__(self, name: str) -> Callable[[], None]:
                return lambda: notified.append(f"{name} {self.status()}")

        part: Any = Part()
        part.status = lambda: "running" if part.running else "idle"
        self.patch(command, "Notifier", Notifier)
        self.patch(signal, "signal", lambda number, handler: signal.SIG_DFL)
        service = commandService(part)
        service.startService()
        reloading = service.reload()
        notified.append("now")
        part.changed.callback([])
        self.successResultOf(reloading)
        part.changed = fail(CannotChange("no"))
        self.failureResultOf(service.reload(), CannotChange)
        service.stopService()
        self.assertEqual(part.calls[-1], "stop")
        calls = ["startService", "reloading", "now", "ready", "reloading", "ready", "stopService"]
        self.assertEqual(notified, [each if each == "now" else f"{each} running" for each in calls])

    def test_notServing(self) -> None:
        """
        The process is not ready before clients can be served.
        """
        notifiers: list[Mock] = []

        def notifier(status: object, reactor: object) -> Mock:
            notifiers.append(Mock())
            return notifiers[0]

        self.patch(command, "Notifier", notifier)
        self.patch(signal, "signal", lambda number, handler: signal.SIG_DFL)
        part = Part()
        part.served = Deferred()
        service = commandService(part)
        service.startService()
        notifiers[0].startService.assert_not_called()
        part.served.callback(None)
        notifiers[0].startService.assert_called_once_with()

    def test_cannotServe(self) -> None:
        """
        If no client can be served, the process ends with exit code 1.
        """
        self.patch(signal, "signal", lambda number, handler: signal.SIG_DFL)
        register = Mock()
        self.patch(atexit, "register", register)
        part = Part()
        part.served = fail(ValueError("no worker can start"))
        service = commandService(part)
        stop = Mock()
        self.patch(service.reactor, "stop", stop)
        service.startService()
        stop.assert_called_once_with()
        (end,) = register.call_args[0]
        with mock.patch("os._exit") as exited:
            end()
        exited.assert_called_once_with(1)


class SignalTests(SynchronousTestCase):
    """
    Tests for signals, reload and stop of L{CommandService}.
    """

    def setUp(self) -> None:
        """
        Start a service with one part. Signal handlers are only recorded.
        """
        self.handlers: dict[int, Any] = {signal.SIGHUP: "hup", signal.SIGTERM: "term", signal.SIGINT: None}
        self.patch(signal, "signal", self.take)
        self.part = Part()
        self.wrong: ConfigError | None = None
        self.service = commandService(self.part, self.load)
        self.reactor = self.service.reactor
        self.service.startService()

    def take(self, number: int, handler: Any) -> Any:
        """
        Stand in for L{signal.signal}.
        """
        before, self.handlers[number] = self.handlers[number], handler
        return before

    def load(self) -> Settings:
        if self.wrong is not None:
            raise self.wrong
        return Settings()

    def send(self, number: signal.Signals) -> list[str]:
        """
        Send a signal.

        @return: the events that are logged.
        """
        with capturedLogs() as logs:
            self.handlers[number](number, None)
            self.reactor.advance(0)
        return [formatEvent(event) for event in logs]

    def test_early(self) -> None:
        """
        A SIGHUP that comes as soon as the process listens reads the settings again too.
        """
        self.handlers[signal.SIGHUP] = None
        part = Part()
        service = commandService(part, self.load)
        with mock.patch.object(part, "privilegedStartService", lambda: self.handlers[signal.SIGHUP](1, None)):
            service.privilegedStartService()
        self.assertEqual(part.calls, [])
        service.reactor.advance(0)
        self.assertEqual(part.calls, ["change"])

    def test_hangUp(self) -> None:
        """
        SIGHUP reads the settings again and puts them in force.
        """
        self.assertEqual(self.send(signal.SIGHUP), [])
        self.assertEqual(self.part.calls, ["change"])
        with capturedLogs() as logs:
            self.part.changed.callback(["pool-size 4 -> 8", "workers 1 -> 2: needs a restart"])
        self.assertEqual([formatEvent(event) for event in logs], ["reloaded, 1 changed, 1 needs a restart"])

    def test_wrongSettings(self) -> None:
        """
        Each mistake in the settings is a line in the log.
        """
        self.wrong = ConfigError([Fault("x.ini:1: one"), Fault("x.ini:2: two")])
        self.assertEqual(self.send(signal.SIGHUP), ["not reloaded: x.ini:1: one", "not reloaded: x.ini:2: two"])

    def test_cannotChange(self) -> None:
        """
        The reason why settings cannot be put in force is logged.
        """
        self.part.changed = fail(CannotChange("cannot listen"))
        self.assertEqual(self.send(signal.SIGHUP), ["not reloaded: cannot listen"])

    def test_defect(self) -> None:
        """
        An unexpected exception is logged with its traceback.
        """
        self.part.changed = fail(ZeroDivisionError())
        self.send(signal.SIGHUP)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_reload(self) -> None:
        """
        The caller of C{reload} gets the result.
        """
        reloading = self.service.reload()
        self.part.changed.callback(["one"])
        self.assertEqual(self.successResultOf(reloading), ["one"])
        self.part.changed = fail(CannotChange("no"))
        self.failureResultOf(self.service.reload(), CannotChange)

    def test_secondSignal(self) -> None:
        """
        A second signal ends a stop at once. After the stop the signal handlers are the former ones.
        """
        stopped = self.service.stopService()
        self.assertEqual(self.part.calls, ["stop"])
        for number in (signal.SIGTERM, signal.SIGINT):
            self.assertEqual(self.send(number), ["a second signal: ending at once"])
        self.assertEqual(self.part.calls, ["stop", "abort", "abort"])
        self.part.stopping.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.handlers, {signal.SIGHUP: "hup", signal.SIGTERM: "term", signal.SIGINT: signal.SIG_DFL})

    def test_shutdown(self) -> None:
        """
        C{shutdown} stops the reactor once. With C{now} it ends the stop that is in progress.
        """
        stops: list[None] = []
        self.patch(self.reactor, "stop", lambda: stops.append(None))
        self.service.shutdown(False)
        self.service.stopService()
        self.assertEqual((stops, self.part.calls), ([None], ["stop"]))
        self.service.shutdown(False)
        self.service.shutdown(True)
        self.assertEqual((stops, self.part.calls), ([None], ["stop", "abort"]))
        self.part.stopping.callback(None)

    def test_shutdownNow(self) -> None:
        """
        C{shutdown} with C{now} stops the reactor, and the stop waits for nothing.
        """
        self.patch(self.reactor, "stop", lambda: None)
        self.service.shutdown(True)
        self.assertEqual(self.part.calls, [])
        self.service.stopService()
        self.assertEqual(self.part.calls, ["stop", "abort"])
        self.part.stopping.callback(None)

    def test_order(self) -> None:
        """
        Parts stop one after another, the last one first, also if one of them fails.
        """
        last = Part()
        last.setServiceParent(self.service)
        stopped = self.service.stopService()
        self.assertEqual((self.part.calls, last.calls), ([], ["stop"]))
        last.stopping.errback(ZeroDivisionError())
        self.assertEqual(self.part.calls, ["stop"])
        self.part.stopping.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
