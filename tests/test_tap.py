# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.tap}.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from twisted import copyright
from twisted.application.service import Application, IService, IServiceCollection, Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import FileLogObserver, ILogObserver, capturedLogs, formatEvent
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txconnpool import __version__, tap
from txconnpool.config.changes import CannotChange
from txconnpool.config.settings import OPTIONS, ConfigError, Fault, PoolSettings, Settings
from txconnpool.operate.console import AdminService
from txconnpool.operate.service import ProxyService
from txconnpool.operate.workers.supervisor import Workers
from txconnpool.tap import CannotStart, CommandService, Options, makeService


class OptionsTests(SynchronousTestCase):
    """
    Tests for L{Options}.
    """

    def settings(self, *arguments: str) -> Settings:
        """
        @return: what a command line sets.
        """
        options = Options()
        options.parseOptions(arguments)
        settings: Settings = options["settings"]
        return settings

    def ends(self, *arguments: str) -> tuple[object, str]:
        """
        Parse a command line that ends the process.

        @return: what L{SystemExit} carries (a text is printed as an error, and the exit code is 1), and the output.
        """
        output = StringIO()
        with redirect_stdout(output):
            error = self.assertRaises(SystemExit, Options().parseOptions, arguments)
        return error.code, output.getvalue()

    def test_nothing(self) -> None:
        """
        Without options, the settings are the defaults.
        """
        self.assertEqual(self.settings(), Settings())

    def test_everyOption(self) -> None:
        """
        Each setting is an option, which takes the default as the help shows it, also in its short form.
        """
        for each in OPTIONS:
            if each.default is not None:
                text = each.show(each.default)
                self.assertEqual(self.settings(f"--{each.name}={text}"), Settings(), each.name)
                if each.short:
                    self.assertEqual(self.settings(f"-{each.short}", text), Settings(), each.name)

    def test_repeated(self) -> None:
        """
        Servers and listeners may be repeated; of other options the last one counts.
        """
        arguments = [
            "-u",
            "tcp:a:1",
            "--upstream",
            "tcp:b:1",
            "--distribution=round-robin",
            "-l",
            "tcp:1",
            "-l",
            "tcp:2",
        ]
        pool = self.settings(*arguments, "-s", "5", "-s", "6").pools[0]
        self.assertEqual((pool.upstream, pool.listen), (("tcp:a:1", "tcp:b:1"), ("tcp:1", "tcp:2")))
        self.assertEqual(pool.poolSize, 6)

    def test_config(self) -> None:
        """
        The ini file is read, and options win over it.
        """
        path = Path(self.mktemp())
        path.write_text("[connpool]\npool-size = 7\npipeline-depth = 9\n", "utf-8")
        self.assertEqual(
            self.settings("--config", str(path), "--pool-size", "8").pools, (PoolSettings(poolSize=8, pipelineDepth=9),)
        )

    def test_configAbsolute(self) -> None:
        """
        The path of the ini file is kept absolute, since twistd may change its directory before it is read again.
        """
        path = Path(self.mktemp())
        path.write_text("[connpool]\n", "utf-8")
        options = Options()
        options.parseOptions(["-c", str(path)])
        self.assertEqual(options["config"], str(path.absolute()))

    def test_wrong(self) -> None:
        """
        All wrong settings are told in one line each, and nothing else.
        """
        self.assertEqual(
            self.ends("--pool-size", "0", "--drain-timeout", "soon"),
            (
                "command line: pool-size = '0': expected a whole number from 1 to 65535\n"
                "command line: drain-timeout = 'soon': expected seconds from 0.001 to 86400, such as 2, 0.5, 500ms, 5m "
                "or 1h, or 0 for not waiting",
                "",
            ),
        )

    def test_unreadable(self) -> None:
        """
        An ini file that cannot be read is told in one line.
        """
        self.assertEqual(
            self.ends("-c", "/nonexistent/x.ini"), ("/nonexistent/x.ini: cannot be read: No such file or directory", "")
        )

    def test_unknown(self) -> None:
        """
        An unknown option is told in one line with the nearest one, without the whole help.
        """
        self.assertEqual(
            self.ends("--pol-size", "4"),
            ("command line: option --pol-size not recognized; did you mean --pool-size?", ""),
        )
        self.assertEqual(
            self.ends("--xyzzy"), ("command line: option --xyzzy not recognized; --help lists the options", "")
        )

    def test_arguments(self) -> None:
        """
        Arguments that are no options are refused.
        """
        self.assertEqual(
            self.ends("start"), ("command line: 'start': expected options only; --help lists the options", "")
        )

    def test_checkConfig(self) -> None:
        """
        C{--check-config} says that all is well and ends with exit code 0, or says what is wrong.
        """
        self.assertEqual(self.ends("--check-config", "-s", "9"), (0, "configuration ok\n"))
        self.assertEqual(
            self.ends("--check-config", "-s", "x"),
            ("command line: pool-size = 'x': expected a whole number from 1 to 65535", ""),
        )

    def test_version(self) -> None:
        """
        C{--version} tells our version and Twisted's.
        """
        self.assertEqual(
            self.ends("--version"), (0, f"txconnpool version: {__version__}\nTwisted version: {copyright.version}\n")
        )

    def test_logFormat(self) -> None:
        """
        A log that cannot be written as it is wanted is told in one line; without a command around nothing is chosen.
        """
        twistd = ServerOptions()
        error = self.assertRaises(SystemExit, twistd.parseOptions, ["--syslog", "connpool", "--log-format=json"])
        self.assertEqual(error.code, "log-format = 'json': is for files and the standard output, not for --syslog")
        options = Options()
        options.parseOptions(["--log-format", "json"])
        self.assertIsNone(options["observer"])

    def test_help(self) -> None:
        """
        C{--help} shows each option under its heading, with its default, in lines that fit a terminal.
        """
        self.patch(sys, "argv", ["twistd", "connpool"])
        self.patch(os, "environ", {})
        code, output = self.ends("--help")
        self.assertEqual(code, 0)
        for each in OPTIONS:
            self.assertIn(f"--{each.name}={each.kind.metavar} ", output)
            self.assertIn(f"\n{each.group}:\n", output)
        for words in ("-s, --pool-size=N ", " [4]\n", "[64m]\n", "--check-config", "--version", "-c, --config=FILE"):
            self.assertIn(words, output)
        self.assertEqual([line for line in output.splitlines() if len(line) > 80], [])

    def test_unit(self) -> None:
        """
        The command of the systemd unit is one that twistd takes, in the foreground and without a pid file.
        """
        conf = Path(__file__).resolve().parents[1] / "conf"
        (command,) = re.findall("^ExecStart=(.*)$", (conf / "connpool.service").read_text("utf-8"), re.M)
        program, *arguments = command.replace("/etc/connpool.ini", str(conf / "connpool.ini")).split()
        twistd = ServerOptions()
        twistd.parseOptions(arguments)
        self.assertEqual((Path(program).name, twistd["nodaemon"], twistd["pidfile"]), ("twistd", True, ""))
        self.assertEqual(twistd.subOptions["settings"], Settings())

    def test_helpWidth(self) -> None:
        """
        The help is as wide as the terminal, and readable in a tiny one.
        """
        options = Options()
        self.assertGreater(max(map(len, options.getUsage(120).splitlines())), 100)
        self.assertLess(max(map(len, options.getUsage(10).splitlines())), 80)


class Failing(Service):
    """
    A service that does not start.
    """

    statistics: Any = None

    def __init__(self, error: Exception) -> None:
        self.error = error

    def startService(self) -> None:
        """
        Fail.
        """
        raise self.error


class Reactor(MemoryReactorClock):
    """
    A reactor with one thread.
    """

    def callFromThread(self, f: Callable[[], object]) -> None:
        """
        Call C{f} in a later turn.
        """
        self.callLater(0, f)


def command(part: Service, load: Callable[[], Settings] = Settings) -> CommandService:
    """
    Make the service of the command, of one part.
    """
    service = CommandService(part, load, Reactor())
    part.setServiceParent(service)
    return service


class FailingPrivileged(Failing):
    """
    A service that cannot listen before rights are given up.
    """

    def privilegedStartService(self) -> None:
        """
        Fail.
        """
        raise self.error


class CommandServiceTests(SynchronousTestCase):
    """
    Tests for L{CommandService} and L{makeService}.
    """

    def test_makeService(self) -> None:
        """
        The service is made of the settings; nothing is connected, opened or scheduled.
        """
        reactor = MemoryReactorClock()
        options = Options()
        options.parseOptions(["-s", "9"])
        service = makeService(options, reactor)
        verifyObject(IService, service)
        verifyObject(IServiceCollection, service)
        (proxy,) = service
        self.assertIsInstance(proxy, ProxyService)
        self.assertEqual((reactor.tcpServers, reactor.tcpClients, reactor.getDelayedCalls()), ([], [], []))

    def test_clock(self) -> None:
        """
        The reactor of the process counts on when the system's clock is set.
        """
        from twisted.internet import reactor

        steadied: list[object] = []
        self.patch(tap, "steady", steadied.append)
        options = Options()
        options.parseOptions([])
        makeService(options)
        self.assertEqual(steadied, [reactor])

    def test_listens(self) -> None:
        """
        What the settings name is listened on as soon as the service starts.
        """
        reactor = MemoryReactorClock()
        options = Options()
        options.parseOptions(["-l", "tcp:12345:interface=127.0.0.1"])
        service = makeService(options, reactor)
        service.privilegedStartService()
        self.assertEqual([port for port, *_ in reactor.tcpServers], [12345])

    def test_logFormat(self) -> None:
        """
        Where the log is to be JSON the application logs with that, and with nothing of ours where it is to be text.
        """
        for form, kind in (("json", FileLogObserver), ("text", type(None))):
            twistd = ServerOptions()
            twistd.parseOptions(["--nodaemon", "connpool", "--log-format", form])
            application = Application("test")
            makeService(twistd.subOptions, MemoryReactorClock()).setServiceParent(application)
            self.assertIsInstance(application.getComponent(ILogObserver, None), kind)

    def fails(self, failing: Service, start: str) -> str:
        """
        Start a service that fails.

        @return: what a person is told.
        """
        told = StringIO()
        self.patch(sys, "excepthook", sys.excepthook)
        self.patch(sys, "__stderr__", told)
        service = command(failing)
        with capturedLogs() as logs:
            error = self.assertRaises(CannotStart, getattr(service, start))
        sys.excepthook(CannotStart, error, None)
        self.assertEqual([event["text"] for event in logs], [str(error)])
        self.assertEqual(told.getvalue(), f"{error}\n")
        return str(error)

    def test_statistics(self) -> None:
        """
        It is told whether the taken address is that of the clients or that of the statistics.
        """
        error = CannotListenError("127.0.0.1", 11213, OSError(errno.EADDRINUSE, "Address already in use"))
        failing = Failing(error)
        failing.statistics = Mock(port=None)
        told = "cannot listen on 127.0.0.1:11213: Address already in use; choose another endpoint with "
        self.assertEqual(self.fails(failing, "startService"), f"{told}--stats")
        failing.statistics = Mock(port=object())
        self.assertEqual(self.fails(failing, "startService"), f"{told}--listen")

    def test_port(self) -> None:
        """
        A port that is taken is told in one line, in the log and where it is seen, whichever way the service is started.
        """
        error = CannotListenError("127.0.0.1", 11212, OSError(errno.EADDRINUSE, "Address already in use"))
        told = "cannot listen on 127.0.0.1:11212: Address already in use; choose another endpoint with --listen"
        self.assertEqual(self.fails(FailingPrivileged(error), "privilegedStartService"), told)
        self.assertEqual(self.fails(Failing(error), "startService"), told)

    def test_unix(self) -> None:
        """
        The path of a UNIX socket that cannot be made is told.
        """
        for error, told in (
            (CannotListenError(None, b"/run/x", OSError(errno.ENOENT, "No such file or directory")), "/run/x: No such"),
            (CannotListenError(None, b"/run/x", "Cannot acquire lock"), "/run/x: Cannot acquire lock;"),
            (
                FileNotFoundError(errno.ENOENT, "No such file or directory", "1", None, b"/run/x.lock"),
                "/run/x.lock: No",
            ),
        ):
            self.assertIn(f"cannot listen on {told}", self.fails(Failing(error), "startService"))

    def test_everyInterface(self) -> None:
        """
        A port that is taken on all interfaces is told with a star for them.
        """
        error = CannotListenError("", 11212, OSError(errno.EADDRINUSE, "Address already in use"))
        self.assertIn("cannot listen on *:11212: ", self.fails(Failing(error), "startService"))

    def test_otherErrors(self) -> None:
        """
        A defect is not told as if it were a mistake of the person: it keeps its traceback.
        """
        hook = sys.excepthook
        for error in (ZeroDivisionError(), OSError(errno.EMFILE, "Too many open files")):
            service = command(Failing(error))
            self.assertIs(self.assertRaises(type(error), service.startService), error)
        self.assertIs(sys.excepthook, hook)

    def test_admin(self) -> None:
        """
        A console that cannot be is told with the option that says where it is.
        """
        reactor = MemoryReactorClock()
        options = Options()
        options.parseOptions(["--admin", "unix:/nonexistent/admin"])

        def listenUNIX(*args: object, **kwargs: object) -> None:
            raise CannotListenError(None, b"/nonexistent/admin", OSError(errno.ENOENT, "No such file or directory"))

        self.patch(reactor, "listenUNIX", listenUNIX)
        self.patch(sys, "excepthook", sys.excepthook)
        error = self.assertRaises(CannotStart, makeService(options, reactor).privilegedStartService)
        self.assertEqual(
            str(error),
            "cannot listen on /nonexistent/admin: No such file or directory; choose another endpoint with --admin",
        )


class Part(Service):
    """
    A part of the command, which takes its time to stop.

    @ivar stopping: fires when it has.
    @ivar calls: what it was called for.
    """

    def __init__(self) -> None:
        self.stopping: Deferred[None] = Deferred()
        self.calls: list[str] = []
        self.changed: Deferred[list[str]] = Deferred()

    def stopService(self) -> Deferred[None]:
        """
        Take time.
        """
        self.calls.append("stop")
        return self.stopping

    def abort(self) -> None:
        """
        Be in a hurry.
        """
        self.calls.append("abort")

    def change(self, make: Callable[[Settings], Settings]) -> Deferred[list[str]]:
        """
        Have other settings.
        """
        self.calls.append("change")
        try:
            make(Settings())
        except ConfigError:
            return fail()
        return self.changed


class NotifierTests(SynchronousTestCase):
    """
    Tests for what systemd is told by L{CommandService}.
    """

    def test_order(self) -> None:
        """
        It is ready when all parts have started, reloads until that is done, well or not, and stops before its parts do.
        """
        told: list[str] = []

        class Notifier:
            def __init__(self, status: Callable[[], str], reactor: Any) -> None:
                self.status = status

            def __getattr__(self, name: str) -> Callable[[], None]:
                return lambda: told.append(f"{name} {self.status()}")

        part: Any = Part()
        part.status = lambda: "running" if part.running else "idle"
        self.patch(tap, "Notifier", Notifier)
        self.patch(signal, "signal", lambda number, handler: signal.SIG_DFL)
        service = command(part)
        service.startService()
        reloading = service.reload()
        told.append("now")
        part.changed.callback([])
        self.successResultOf(reloading)
        part.changed = fail(CannotChange("no"))
        self.failureResultOf(service.reload(), CannotChange)
        service.stopService()
        self.assertEqual(part.calls[-1], "stop")
        calls = ["startService", "reloading", "now", "ready", "reloading", "ready", "stopService"]
        self.assertEqual(told, [each if each == "now" else f"{each} running" for each in calls])


class SignalTests(SynchronousTestCase):
    """
    Tests for signals, reload and stopping of L{CommandService}.
    """

    def setUp(self) -> None:
        """
        Start a service of one part. Signals are only written down.
        """
        self.handlers: dict[int, Any] = {signal.SIGHUP: "hup", signal.SIGTERM: "term", signal.SIGINT: None}
        self.patch(signal, "signal", self.take)
        self.part = Part()
        self.wrong: ConfigError | None = None
        self.service = command(self.part, self.load)
        self.reactor = self.service._reactor
        self.service.startService()

    def take(self, number: int, handler: Any) -> Any:
        """
        As L{signal.signal}.
        """
        before, self.handlers[number] = self.handlers[number], handler
        return before

    def load(self) -> Settings:
        """
        Read the settings again.
        """
        if self.wrong is not None:
            raise self.wrong
        return Settings()

    def send(self, number: signal.Signals) -> list[str]:
        """
        Send a signal.

        @return: what is logged.
        """
        with capturedLogs() as logs:
            self.handlers[number](number, None)
            self.reactor.advance(0)
        return [formatEvent(event) for event in logs]

    def test_hangUp(self) -> None:
        """
        SIGHUP reads the settings again and puts them in force.
        """
        self.assertEqual(self.send(signal.SIGHUP), [])
        self.assertEqual(self.part.calls, ["change"])
        with capturedLogs() as logs:
            self.part.changed.callback(["pool-size 4 -> 8"])
        self.assertEqual([formatEvent(event) for event in logs], ["reloaded, 1 changed"])

    def test_wrongSettings(self) -> None:
        """
        Everything that is wrong is logged, in one line each.
        """
        self.wrong = ConfigError([Fault("x.ini:1: one"), Fault("x.ini:2: two")])
        self.assertEqual(self.send(signal.SIGHUP), ["not reloaded: x.ini:1: one", "not reloaded: x.ini:2: two"])

    def test_cannotChange(self) -> None:
        """
        So is what could not be put in force.
        """
        self.part.changed = fail(CannotChange("cannot listen"))
        self.assertEqual(self.send(signal.SIGHUP), ["not reloaded: cannot listen"])

    def test_defect(self) -> None:
        """
        An exception that nobody expected is logged with its traceback.
        """
        self.part.changed = fail(ZeroDivisionError())
        self.send(signal.SIGHUP)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_reload(self) -> None:
        """
        Who asks for a reload is told of it.
        """
        reloading = self.service.reload()
        self.part.changed.callback(["one"])
        self.assertEqual(self.successResultOf(reloading), ["one"])
        self.part.changed = fail(CannotChange("no"))
        self.failureResultOf(self.service.reload(), CannotChange)

    def test_again(self) -> None:
        """
        A second signal during a stop ends it at once; when it has stopped the signals are whose they were before.
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
        To shut down is to stop the reactor, once; in a hurry, what stops is not waited for.
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
        To shut down at once is to be in a hurry from the beginning.
        """
        self.patch(self.reactor, "stop", lambda: None)
        self.service.shutdown(True)
        self.assertEqual(self.part.calls, [])
        self.service.stopService()
        self.assertEqual(self.part.calls, ["stop", "abort"])
        self.part.stopping.callback(None)

    def test_order(self) -> None:
        """
        Parts stop one after another, the last one first, also when one of them fails.
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


class MakeServiceTests(SynchronousTestCase):
    """
    Tests for what L{makeService} makes of the settings.
    """

    def make(self, *arguments: str) -> tuple[CommandService, MemoryReactorClock]:
        """
        Make the service of a command line.
        """
        options = Options()
        options.parseOptions(arguments)
        reactor = MemoryReactorClock()
        return makeService(options, reactor), reactor

    def test_workers(self) -> None:
        """
        With several workers it is these that the command runs.
        """
        service, _ = self.make("--workers", "2")
        self.assertEqual([type(part) for part in service], [Workers])

    def test_admin(self) -> None:
        """
        The console is there before all else, and to the end; for several workers too.
        """
        for workers, kind in (("1", ProxyService), ("2", Workers)):
            service, _ = self.make("--admin", "unix:/tmp/x", "--workers", workers)
            self.assertEqual([type(part) for part in service], [AdminService, kind])

    def test_events(self) -> None:
        """
        The console and the page show the same events.
        """
        service, _ = self.make("--admin", "unix:/tmp/x", "--stats", "tcp:1")
        console, proxy = service
        self.assertIs(console._events, proxy.statistics.events)

    def say(self, service: CommandService, reactor: MemoryReactorClock, *lines: str) -> list[str]:
        """
        Type lines at a console.

        @return: what is answered.
        """
        (admin, *_) = service
        admin.privilegedStartService()
        servers: list[Any] = [*reactor.tcpServers, *reactor.unixServers]
        console = servers[0][1].buildProtocol(None)
        self.addCleanup(console.connectionLost)
        transport = StringTransport()
        console.makeConnection(transport)
        console.dataReceived("".join(f"{line}\n" for line in lines).encode())
        told: list[str] = transport.value().decode().splitlines()
        return told

    def test_console(self) -> None:
        """
        The console works on the proxy.
        """
        service, reactor = self.make("--admin", "unix:/tmp/x", "--pool-size", "7")
        told = "\n".join(self.say(service, reactor, "show pools", "pause", "reload"))
        for words in ("default  running", "OK pool default paused", "ERROR the proxy is not running"):
            self.assertIn(words, told)

    def test_password(self) -> None:
        """
        The password is the one of the file.
        """
        path = self.mktemp()
        Path(path).write_text("sesame\n", "ascii")
        service, reactor = self.make("--admin", "tcp:1", "--admin-password-file", path)
        told = self.say(service, reactor, "pause", "auth sesame", "pause")
        self.assertEqual(told[:2], ["ERROR expected auth PASSWORD first", "OK welcome; `help` lists the commands"])
        self.assertIn("OK pool default paused", told[2])

    def test_reload(self) -> None:
        """
        A reload reads the ini file again, and options of the command line still win over it.
        """
        path = Path(self.mktemp())
        path.write_text("[connpool]\npool-size = 5\npipeline-depth = 6\n", "utf-8")
        service, _ = self.make("--config", str(path), "--pool-size", "7", "--listen", "tcp:1")
        self.patch(signal, "signal", lambda number, handler: signal.SIG_DFL)
        service.startService()
        path.write_text("[connpool]\npool-size = 8\npipeline-depth = 9\n", "utf-8")
        self.assertEqual(self.successResultOf(service.reload()), ["pool default: pipeline-depth 6 -> 9"])
        service.stopService()
