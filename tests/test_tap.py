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
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from twisted import copyright
from twisted.application.service import Application, IService, IServiceCollection
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import FileLogObserver, ILogObserver
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txconnpool import __version__
from txconnpool.config.settings import OPTIONS, PoolSettings, Settings
from txconnpool.operate import reactor as reactorModule
from txconnpool.operate.command import CannotStart, CommandService
from txconnpool.operate.console.service import ConsoleService
from txconnpool.operate.service import ProxyService
from txconnpool.operate.workers.supervisor import SupervisorService
from txconnpool.tap import Options, makeService


class OptionsTests(SynchronousTestCase):
    """
    Tests for L{Options}.
    """

    def settings(self, *arguments: str) -> Settings:
        """
        @return: the settings of a command line.
        """
        options = Options()
        options.parseOptions(arguments)
        settings: Settings = options["settings"]
        return settings

    def ends(self, *arguments: str) -> tuple[object, str]:
        """
        Parse a command line that ends the process.

        @return: the code of L{SystemExit} (a text is printed as an error, with exit code 1), and the output.
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

    def test_against(self) -> None:
        """
        The check compares with another ini file. Options of the command line hold for both.
        """
        old, new = Path(self.mktemp()), Path(self.mktemp())
        old.write_text("[connpool]\nupstream = tcp:a:1\npool-size = 7\n", "utf-8")
        new.write_text("[connpool]\nupstream = tcp:b:1\n", "utf-8")
        arguments = ("-c", str(new), "--against", str(old), "-s", "9")
        code, output = self.ends("--check-config", *arguments)
        self.assertEqual(code, 0)
        self.assertEqual(
            output.splitlines(),
            [
                "pool default: upstream + tcp:b:1",
                "pool default: upstream - tcp:a:1",
                "pool default: 100.0% of the keys get another server",
                "configuration ok",
            ],
        )
        self.assertEqual(self.ends(*arguments)[0], "command line: --against is for --check-config only")
        old.write_text("[connpool]\nupstream = a\n", "utf-8")
        self.assertIn(f"{old}:2: [connpool] upstream = 'a'", str(self.ends("--check-config", *arguments)[0]))

    def test_configAbsolute(self) -> None:
        """
        The path of the ini file is made absolute, because twistd may change its directory before the file is read
        again.
        """
        path = Path(self.mktemp())
        path.write_text("[connpool]\n", "utf-8")
        options = Options()
        options.parseOptions(["-c", str(path)])
        self.assertEqual(options["config"], str(path.absolute()))

    def test_wrong(self) -> None:
        """
        Each wrong setting is one line, and nothing else is printed.
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
        An ini file that cannot be read is one line.
        """
        self.assertEqual(
            self.ends("-c", "/nonexistent/x.ini"), ("/nonexistent/x.ini: cannot be read: No such file or directory", "")
        )

    def test_unknown(self) -> None:
        """
        An unknown option is one line with the nearest option, without the whole help.
        """
        self.assertEqual(
            self.ends("--pol-size", "4"),
            ("command line: option --pol-size not recognized; did you mean --pool-size?", ""),
        )
        for unknown in ("xyzzy", "max-idle-timeout", "timeout", "max-connections"):
            self.assertEqual(
                self.ends(f"--{unknown}"),
                (f"command line: option --{unknown} not recognized; --help lists the options", ""),
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
        C{--check-config} prints that the configuration is right and ends with exit code 0, or prints what is wrong.
        """
        self.assertEqual(self.ends("--check-config", "-s", "9"), (0, "configuration ok\n"))
        self.assertEqual(
            self.ends("--check-config", "-s", "x"),
            ("command line: pool-size = 'x': expected a whole number from 1 to 65535", ""),
        )

    def test_checkSystemd(self) -> None:
        """
        C{--check-config} does not look for the sockets of systemd, which passes them only to the process that it
        starts. Without it, they must exist.
        """
        listen = ("--listen", "systemd:domain=INET:name=clients")
        self.assertEqual(self.ends("--check-config", *listen), (0, "configuration ok\n"))
        self.assertIn("systemd gave this process no such socket", str(self.ends(*listen)[0]))

    def test_otherDirectory(self) -> None:
        """
        Settings that are read again have the same paths if the working directory is another one meanwhile.
        """
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(directory)
        Path("x.ini").write_text("[connpool]\nlisten = unix:x.sock\n", "ascii")
        options = Options()
        options.parseOptions(["--config", "x.ini", "--admin", "unix:y.sock"])
        os.chdir("/")
        self.assertEqual(options.reload(), options["settings"])
        self.assertIn(f"{directory}/y.sock", options["settings"].admin.replace("\\", ""))

    def test_ownNumber(self) -> None:
        """
        A pid file with the number of this process is from an earlier one. Any other file is left to twistd, and so is
        each one during a check.
        """
        path = Path(self.mktemp()).absolute()
        for text, arguments, left in (
            (f"{os.getpid()}", ["--check-config"], True),
            (f"{os.getpid()}\n", [], False),
            (f"{os.getpid()}", [], False),
            (f"{os.getppid()}", [], True),
            ("\u00fc", [], True),
            ("", [], True),
        ):
            path.write_text(text, "utf-8")
            twistd = ServerOptions()
            with redirect_stdout(StringIO()):
                try:
                    twistd.parseOptions(["-n", f"--pidfile={path}", "connpool", *arguments])
                except SystemExit:
                    pass
            self.assertEqual(path.exists(), left, repr(text))
        for none in ("", "/nonexistent/x"):
            ServerOptions().parseOptions(["-n", f"--pidfile={none}", "connpool"])

    def test_checkDistribution(self) -> None:
        """
        C{--check-config} prints what the distribution of a pool stands for.
        """
        self.assertEqual(
            self.ends("--check-config", "-u", "tcp:a:1", "-u", "tcp:b:1", "--distribution", "round-robin"),
            (
                0,
                "pool 'default': the distribution of 2 servers is round-robin: equal servers, any of them gets any "
                "request\nconfiguration ok\n",
            ),
        )

    def test_warnings(self) -> None:
        """
        C{--check-config} prints warnings on the standard error output; the configuration is right nevertheless.
        """
        errors = StringIO()
        with redirect_stderr(errors):
            self.assertEqual(
                self.ends("--check-config", "--deny-commands", "get gets gat gats mg"), (0, "configuration ok\n")
            )
        self.assertEqual(
            errors.getvalue(),
            "warning: pool 'default': deny-commands: gat gats get gets mg are denied, but clients can read with me; "
            "@read denies that for all commands\n"
            "warning: pool 'default': deny-commands: gat gats are denied, but clients can write with add append cas "
            "decr incr ma ms prepend replace set touch; @write denies that for all commands\n",
        )

    def test_version(self) -> None:
        """
        C{--version} prints the versions of txconnpool and Twisted.
        """
        self.assertEqual(
            self.ends("--version"), (0, f"txconnpool version: {__version__}\nTwisted version: {copyright.version}\n")
        )

    def test_logFormat(self) -> None:
        """
        A format that the command cannot log in is one line. Without a command nothing is chosen.
        """
        twistd = ServerOptions()
        error = self.assertRaises(SystemExit, twistd.parseOptions, ["--syslog", "connpool", "--log-format=json"])
        self.assertEqual(error.code, "log-format = 'json': is for files and the standard output, not for --syslog")
        options = Options()
        options.parseOptions(["--log-format", "json"])
        self.assertIsNone(options["observer"])

    def test_help(self) -> None:
        """
        C{--help} shows each option under its heading, with its default, in lines of at most 80 characters.
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
        twistd accepts the command of the systemd unit, which runs in the foreground and without a pid file.
        """
        conf = Path(__file__).resolve().parents[1] / "conf"
        (command,) = re.findall("^ExecStart=(.*)$", (conf / "connpool.service").read_text("utf-8"), re.M)
        program, *arguments = command.replace("/etc/connpool/connpool.ini", str(conf / "connpool.ini")).split()
        twistd = ServerOptions()
        twistd.parseOptions(arguments)
        self.assertEqual((Path(program).name, twistd["nodaemon"], twistd["pidfile"]), ("twistd", True, ""))
        self.assertEqual(twistd.subOptions["settings"], Settings())

    def test_helpWidth(self) -> None:
        """
        The help is as wide as the terminal, and readable in a narrow one.
        """
        options = Options()
        self.assertGreater(max(map(len, options.getUsage(120).splitlines())), 100)
        self.assertLess(max(map(len, options.getUsage(10).splitlines())), 80)


class MakeServiceTests(SynchronousTestCase):
    """
    Tests for L{makeService}.
    """

    def make(self, *arguments: str) -> tuple[CommandService, MemoryReactorClock]:
        """
        Make the service of a command line.
        """
        options = Options()
        options.parseOptions(arguments)
        reactor = MemoryReactorClock()
        return makeService(options, reactor), reactor

    def test_makeService(self) -> None:
        """
        It makes the service of the settings, and opens no port, connection or timer.
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
        It makes the clock of the global reactor independent of the system's time.
        """
        from twisted.internet import reactor

        steadied: list[object] = []
        self.patch(reactorModule, "steady", steadied.append)
        options = Options()
        options.parseOptions([])
        makeService(options)
        self.assertEqual(steadied, [reactor])

    def test_listens(self) -> None:
        """
        The service listens on the addresses of the settings when it starts.
        """
        reactor = MemoryReactorClock()
        options = Options()
        options.parseOptions(["-l", "tcp:12345:interface=127.0.0.1"])
        service = makeService(options, reactor)
        service.privilegedStartService()
        self.assertEqual([port for port, *_ in reactor.tcpServers], [12345])

    def test_logFormat(self) -> None:
        """
        For JSON the application gets a log observer, for text it does not.
        """
        for form, kind in (("json", FileLogObserver), ("text", type(None))):
            twistd = ServerOptions()
            twistd.parseOptions(["--nodaemon", "connpool", "--log-format", form])
            application = Application("test")
            makeService(twistd.subOptions, MemoryReactorClock()).setServiceParent(application)
            self.assertIsInstance(application.getComponent(ILogObserver, None), kind)

    def test_workers(self) -> None:
        """
        With several workers the command runs the parent of the workers.
        """
        service, _ = self.make("--workers", "2")
        self.assertEqual([type(part) for part in service], [SupervisorService])

    def test_admin(self) -> None:
        """
        The console starts first and stops last, also with several workers.
        """
        for workers, kind in (("1", ProxyService), ("2", SupervisorService)):
            service, _ = self.make("--admin", "unix:/tmp/x", "--workers", workers)
            self.assertEqual([type(part) for part in service], [ConsoleService, kind])

    def test_events(self) -> None:
        """
        The console and the status page have the same events.
        """
        service, _ = self.make("--admin", "unix:/tmp/x", "--stats", "tcp:1")
        console, proxy = service
        self.assertIs(console.events, proxy.statistics.events)

    def enter(self, service: CommandService, reactor: MemoryReactorClock, *lines: str) -> list[str]:
        """
        Type lines at the console.

        @return: the replies.
        """
        (admin, *_) = service
        admin.privilegedStartService()
        servers: list[Any] = [*reactor.tcpServers, *reactor.unixServers]
        console = servers[0][1].buildProtocol(None)
        self.addCleanup(console.connectionLost)
        transport = StringTransport()
        console.makeConnection(transport)
        console.dataReceived("".join(f"{line}\n" for line in lines).encode())
        reactor.advance(0)  # one line is carried out in a turn
        replies: list[str] = transport.value().decode().splitlines()
        return replies

    def test_console(self) -> None:
        """
        The commands of the console work on the proxy.
        """
        service, reactor = self.make("--admin", "unix:/tmp/x", "--pool-size", "7")
        text = "\n".join(self.enter(service, reactor, "show pools", "pause", "reload"))
        for words in ("default  running", "OK pool default paused", "ERROR the proxy is not running"):
            self.assertIn(words, text)

    def test_password(self) -> None:
        """
        The console's password is that of the file.
        """
        path = self.mktemp()
        Path(path).write_text("sesame\n", "ascii")
        service, reactor = self.make("--admin", "tcp:1", "--admin-password-file", path)
        lines = self.enter(service, reactor, "pause", "auth sesame", "pause")
        self.assertEqual(lines[:2], ["ERROR expected auth PASSWORD first", "OK welcome; `help` lists the commands"])
        self.assertIn("OK pool default paused", lines[2])

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

    def test_files(self) -> None:
        """
        When a file that the settings name has vanished before the start, that is one line, and nothing listens.
        """
        users = Path(self.mktemp())
        users.write_text("joe:secret\n", "ascii")
        for workers in ("1", "2"):
            reactor = MemoryReactorClock()
            options = Options()
            users.write_text("joe:secret\n", "ascii")
            options.parseOptions(["--listen-auth", f"file:{users}", "--workers", workers])
            service = makeService(options, reactor)
            users.unlink()
            for start in (service.privilegedStartService, service.startService):
                self.patch(sys, "excepthook", sys.excepthook)
                error = self.assertRaises(CannotStart, start)
                path = users.absolute()
                self.assertEqual(
                    str(error),
                    f"pool 'default': listenAuth = 'file:{path}': {path} cannot be read: No such file or directory",
                )
                self.assertEqual(reactor.tcpServers, [])

    def test_adminCannotListen(self) -> None:
        """
        When the console cannot listen, the line names its option.
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
