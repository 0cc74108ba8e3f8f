# -*- test-case-name: tests.test_tap -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The command C{twistd connpool}, also C{twist connpool}: its options, and the service they make.

Here is where what went wrong meets a person: it is told in one line each on the standard error output, without a
traceback, and the process ends with exit code 1.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import ILogObserver, Logger
from twisted.python import usage
from twisted.python.failure import Failure

from txconnpool import __version__
from txconnpool.config.changes import CannotChange
from txconnpool.config.ini import load
from txconnpool.config.kinds import Option, SecretFile, nearest
from txconnpool.config.settings import OPTIONS, ConfigError, Settings
from txconnpool.net.clock import steady
from txconnpool.operate.console import AdminService, Target
from txconnpool.operate.events import Events
from txconnpool.operate.logs import choose
from txconnpool.operate.operations import Controls
from txconnpool.operate.service import ProxyService, listenProblem
from txconnpool.operate.systemd import Notifier
from txconnpool.operate.workers.supervisor import Workers

_log = Logger("txconnpool.command")

T = TypeVar("T")


class Options(usage.Options):
    """
    The options of the command: those of L{OPTIONS}, and a few of its own.

    Instead of L{usage.UsageError}, after which Twisted prints the whole help and last what is wrong, it raises
    C{SystemExit} with what is wrong.

    @ivar given: the texts of each option of L{OPTIONS} that was used, by name.
    """

    compData = usage.Completions(
        optActions={"config": usage.CompleteFiles("*.ini")},
        multiUse=[each.name for each in OPTIONS if each.many],
    )

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, list[str]] = {}
        self["config"] = None
        self["check-config"] = False
        self["observer"] = None

    def opt_config(self, path: str) -> None:
        """
        the ini file; options of the command line win over it
        """
        # Read again on reload, when twistd has changed its directory.
        self["config"] = os.path.abspath(path)

    def opt_check_config(self) -> None:
        """
        read and check everything, say `configuration ok` or what is wrong, and exit
        """
        self["check-config"] = True

    def opt_version(self) -> None:
        """
        print the versions of txconnpool and Twisted, and exit
        """
        print("txconnpool version:", __version__)
        super().opt_version()

    def opt_help(self) -> None:
        """
        print this help, and exit
        """
        super().opt_help()

    opt_c = opt_config

    def parseArgs(self, *args: str) -> None:
        """
        Take no arguments.
        """
        if args:
            raise usage.UsageError(f"{args[0]!r}: expected options only")

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse the command line.

        @raise SystemExit: something is wrong.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"command line: {error}{self._hint(str(error))}") from None

    def _hint(self, error: str) -> str:
        """
        @return: what to do about an error of the parser.
        """
        unknown = re.fullmatch(r"option --(\S+) not recognized", error)
        known = [each.rstrip("=") for each in self.longOpt]
        near = nearest(unknown[1], known) if unknown else None
        return f"; did you mean --{near}?" if near else "; --help lists the options"

    def postOptions(self) -> None:
        """
        Make the settings, C{self["settings"]}.

        @raise SystemExit: something is wrong, or C{--check-config} is answered.
        """
        try:
            self["settings"] = load(self["config"], self.given)
        except ConfigError as error:
            raise SystemExit(str(error)) from None
        form = self["settings"].logFormat
        if form is not None and self.parent is not None:
            try:
                self["observer"] = choose(self.parent, form)
            except ValueError as error:
                raise SystemExit(f"log-format = {form!r}: {error}") from None
        if self["check-config"]:
            print("configuration ok")
            raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """
        Write the help, grouped as L{OPTIONS} is.
        """
        groups: dict[str, list[tuple[str, str]]] = {}
        for each in OPTIONS:
            flag, default = _flag(each.short, f"{each.name}={each.kind.metavar}"), each.show(each.default) or "none"
            groups.setdefault(each.group, []).append((flag, f"{each.doc} [{default}]"))
        for short, name, value in (
            ("c", "config", "=FILE"),
            ("", "check-config", ""),
            ("", "version", ""),
            ("", "help", ""),
        ):
            groups.setdefault("Configuration", []).append((_flag(short, name + value), self.docs[name].strip()))
        columns = width or int(os.environ.get("COLUMNS", "80"))
        lines: list[str] = []
        for group, entries in groups.items():
            lines += ["", f"{group}:"]
            for flag, doc in entries:
                lines += _columns(flag, doc, columns)
        return "\n".join([*lines, "", *textwrap.wrap(_ABOUT, columns), ""])


_ABOUT = (
    "Each option but those under Configuration is a key of the ini file too. Sizes take k, m and g. Times are seconds, "
    "or take ms, s, m and h. An option that belongs to a pool is for all pools of the file."
)


def _flag(short: str, long: str) -> str:
    """
    Write the names of an option.
    """
    return f"  -{short}, --{long}" if short else f"      --{long}"


def _columns(flag: str, doc: str, width: int) -> Iterator[str]:
    """
    Write an option beside its explanation.
    """
    indent = 34
    lines = textwrap.wrap(doc, max(width - indent, 20), break_on_hyphens=False)
    yield f"{flag:<{indent - 1}} {lines[0]}"
    yield from (" " * indent + line for line in lines[1:])


def _taker(option: Option) -> Callable[[Options, str], None]:
    """
    Make the method that takes an option of the table.
    """

    def take(self: Options, text: str) -> None:
        texts = self.given.setdefault(option.name, [])
        if not option.many:
            texts.clear()
        texts.append(text)

    take.__doc__ = option.doc
    return take


# usage.Options finds options by the names of methods.
for _each in OPTIONS:
    _take = _taker(_each)
    setattr(Options, "opt_" + _each.name.replace("-", "_"), _take)
    if _each.short:
        setattr(Options, "opt_" + _each.short, _take)


class CannotStart(Exception):
    """
    The command cannot start. Its text is what a person is told.
    """


class Signals:
    """
    What is done about signals, until that is taken back.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._before: dict[signal.Signals, Any] = {}

    def take(self, number: signal.Signals, do: Callable[[], object]) -> None:
        """
        Have C{do} called in the reactor's own time, whenever a signal comes.
        """
        before = signal.signal(number, lambda number, frame: self._reactor.callFromThread(do))
        self._before.setdefault(number, before)

    def leave(self) -> None:
        """
        Leave all signals to whom they were left before.
        """
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before.clear()


class CommandService(MultiService):
    """
    The service of the command, for a process of its own: when a part of it cannot listen, the process ends with one
    line; SIGHUP reads the settings again; a stop takes as long as it takes, and a second signal ends it at once.

    Who embeds L{ProxyService} gets exceptions, and methods to call.
    """

    def __init__(
        self,
        proxy: Any,
        load: Callable[[], Settings],
        reactor: Any,
        observer: Callable[[], ILogObserver] | None = None,
    ) -> None:
        """
        @param proxy: the L{ProxyService} or L{Workers}; not made a part of this service here.
        @param load: reads the settings again.
        @param observer: makes what is to be logged with, if that is not what C{twistd} does by itself.
        """
        super().__init__()
        self._observer = observer
        self._notifier = Notifier(lambda: str(proxy.status()), reactor)
        self._proxy = proxy
        self._load = load
        self._reactor = reactor
        self._signals = Signals(reactor)
        self._stopping = False
        self._hurry = False

    def setServiceParent(self, parent: Any) -> None:
        """
        Become part of the application, and have it log as it was told to.
        """
        if self._observer is not None:
            parent.setComponent(ILogObserver, self._observer())
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """
        Start listening, under C{twistd}.
        """
        self._orEnd(super().privilegedStartService)

    def startService(self) -> None:
        """
        Start; also start listening, under C{twist}.
        """
        self._orEnd(super().startService)
        self._signals.take(signal.SIGHUP, self._hangUp)
        self._notifier.startService()

    def _orEnd(self, start: Callable[[], None]) -> None:
        """
        Start, or end the process.

        @raise CannotStart: to get out by way of twistd's own cleaning up. The line is told by C{sys.excepthook} or,
            when twistd has become a daemon, by its parent process, to which twistd sends the exception.
        """
        try:
            start()
        except (CannotListenError, OSError) as error:
            problem = listenProblem(error)
            if problem is None:
                raise
            text = f"cannot listen on {problem}; choose another endpoint with --{self._failed()}"
            _log.error("{text}", text=text)
            sys.excepthook = _tell
            raise CannotStart(text) from None

    def _failed(self) -> str:
        """
        @return: the option that says where nobody can listen.
        """
        statistics = self._proxy.statistics
        if not all(each.listening for each in self if isinstance(each, AdminService)):
            return "admin"
        return "stats" if statistics is not None and statistics.port is None else "listen"

    # -- Reload

    def reload(self) -> Deferred[list[str]]:
        """
        Read the settings again, and put all of them in force, or none.

        @return: fires with a line for each change; fails with L{ConfigError} or L{CannotChange}.
        """
        self._notifier.reloading()
        changed: Deferred[list[str]] = self._proxy.change(lambda old: self._load())
        return changed.addCallbacks(self._reloaded, self._notReloaded).addBoth(self._readyAgain)

    def _readyAgain(self, result: T) -> T:
        self._notifier.ready()
        return result

    def _reloaded(self, lines: list[str]) -> list[str]:
        _log.info("reloaded, {count} changed", count=len(lines))
        return lines

    def _notReloaded(self, failure: Failure) -> Failure:
        if failure.check(ConfigError, CannotChange):
            for line in failure.getErrorMessage().split("\n"):
                _log.error("not reloaded: {line}", line=line)
        return failure

    def _hangUp(self) -> None:
        self.reload().addErrback(self._toldAlready)

    def _toldAlready(self, failure: Failure) -> None:
        if not failure.check(ConfigError, CannotChange):
            _log.failure("not reloaded", failure)

    # -- The end

    def shutdown(self, now: bool) -> None:
        """
        Stop the process.

        @param now: whether to wait for nothing.
        """
        self._hurry = self._hurry or now
        if not self._stopping:
            self._reactor.stop()
        elif now:
            self._proxy.abort()

    def stopService(self) -> Deferred[None]:
        """
        Stop the parts one after another, the last one first: who administers the proxy may do so until it has ended.
        """
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        self._notifier.stopService()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._signals.take(number, self._again)
        for part in reversed(list(self)):
            stopped = maybeDeferred(part.stopService)
            if self._hurry:
                self._proxy.abort()
            try:
                await stopped
            except Exception:
                _log.failure("{part} did not stop as it should", part=part)
        self._signals.leave()
        self._stopping = self._hurry = False

    def _again(self) -> None:
        _log.warn("a second signal: ending at once")
        self.shutdown(True)


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
    """
    Print an exception as one line where twistd's log does not swallow it; for C{sys.excepthook}.
    """
    print(error, file=sys.__stderr__)


def makeService(options: Options, reactor: Any = None) -> CommandService:
    """
    Make the service; nothing starts.
    """
    if reactor is None:
        from twisted.internet import reactor

        steady(reactor)
    settings = options["settings"]
    proxy: Any = (Workers if settings.workers > 1 else ProxyService)(settings, reactor)
    service = CommandService(proxy, lambda: load(options["config"], options.given), reactor, options["observer"])
    if settings.admin is not None:
        do = proxy.do if settings.workers > 1 else Controls(proxy).do
        path = settings.adminPasswordFile
        password = None if path is None else SecretFile.read(path)
        events = Events() if proxy.statistics is None else proxy.statistics.events
        target = Target(proxy, do, service.reload, service.shutdown, events)
        AdminService(settings.admin, target, reactor, password).setServiceParent(service)
    proxy.setServiceParent(service)
    return service
