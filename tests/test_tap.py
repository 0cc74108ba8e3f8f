# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.tap}.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from twisted import copyright
from twisted.application.service import IService, IServiceCollection, Service
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txconnpool import __version__
from txconnpool.config import OPTIONS, PoolSettings, Settings
from txconnpool.service import ProxyService
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
        path.write_text("", "utf-8")
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

    def __init__(self, error: Exception) -> None:
        self.error = error

    def startService(self) -> None:
        """
        Fail.
        """
        raise self.error


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

    def fails(self, failing: Service, start: str) -> str:
        """
        Start a service that fails.

        @return: what a person is told.
        """
        told = StringIO()
        self.patch(sys, "excepthook", sys.excepthook)
        self.patch(sys, "__stderr__", told)
        service = CommandService()
        failing.setServiceParent(service)
        with capturedLogs() as logs:
            error = self.assertRaises(CannotStart, getattr(service, start))
        sys.excepthook(CannotStart, error, None)
        self.assertEqual([event["text"] for event in logs], [str(error)])
        self.assertEqual(told.getvalue(), f"{error}\n")
        return str(error)

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
            service = CommandService()
            Failing(error).setServiceParent(service)
            self.assertIs(self.assertRaises(type(error), service.startService), error)
        self.assertIs(sys.excepthook, hook)
