# -*- test-case-name: tests.test_tap -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The command C{twistd connpool}, also C{twist connpool}: its options, and the service that they make.

Each mistake in the options is one line on the standard error output, without a traceback. Then the process ends with
exit code 1.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.python import usage

from txconnpool import __version__
from txconnpool.config.changes import comparison
from txconnpool.config.ini import load
from txconnpool.config.kinds import nearest
from txconnpool.config.notes import notesOf, spreadOf
from txconnpool.config.options import Option
from txconnpool.config.settings import OPTIONS, ConfigError, Settings
from txconnpool.config.warnings import warningsOf
from txconnpool.operate.command import CommandService
from txconnpool.operate.console.commands import Target
from txconnpool.operate.console.service import ConsoleService
from txconnpool.operate.events import Events
from txconnpool.operate.logs import chooseObserver
from txconnpool.operate.operations import Operations
from txconnpool.operate.reactor import processReactor
from txconnpool.operate.service import ProxyService
from txconnpool.operate.workers.supervisor import SupervisorService


class Options(usage.Options):
    """
    The options of the command: the settings of L{OPTIONS}, and a few more.

    A mistake raises C{SystemExit} with its description. After L{usage.UsageError} Twisted would print the whole help
    first.

    @ivar given: the values of each option of L{OPTIONS} that was used, as text, by the option's name.
    """

    compData = usage.Completions(
        optActions={"config": usage.CompleteFiles("*.ini"), "against": usage.CompleteFiles("*.ini")},
        multiUse=[each.name for each in OPTIONS if each.many],
    )

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, list[str]] = {}
        # twistd may change its directory before a reload reads the settings again.
        self._directory = os.getcwd()
        self["config"] = None
        self["check-config"] = False
        self["against"] = None
        self["observer"] = None

    def opt_config(self, path: str) -> None:
        """
        the ini file; options of the command line win over it
        """
        self["config"] = os.path.abspath(path)

    def opt_check_config(self) -> None:
        """
        read and check everything, print `configuration ok` or what is wrong, and exit
        """
        self["check-config"] = True

    def opt_against(self, path: str) -> None:
        """
        with --check-config: an ini file to compare with; prints what a reload would change, and which share of the keys
        would get another server
        """
        self["against"] = path

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

        @raise SystemExit: there is a mistake.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"command line: {error}{self._hint(str(error))}") from None

    def _hint(self, error: str) -> str:
        """
        @return: advice for an error of the parser.
        """
        unknown = re.fullmatch(r"option --(\S+) not recognized", error)
        known = [each.rstrip("=") for each in self.longOpt]
        near = nearest(unknown[1], known) if unknown else None
        return f"; did you mean --{near}?" if near else "; --help lists the options"

    def postOptions(self) -> None:
        """
        Make the settings, C{self["settings"]}.

        @raise SystemExit: there is a mistake, or C{--check-config} found none.
        """
        if self["against"] is not None and not self["check-config"]:
            raise SystemExit("command line: --against is for --check-config only")
        self["settings"] = self._load(self["config"])
        form = self["settings"].logFormat
        if self.parent is not None:
            try:
                self["observer"] = chooseObserver(self.parent, form)
            except ValueError as error:
                raise SystemExit(f"log-format = {form!r}: {error}") from None
        if self["check-config"]:
            for line in warningsOf(self["settings"]):
                print(f"warning: {line}", file=sys.stderr)
            for line in (*notesOf(self["settings"]), *spreadOf(self["settings"])):
                print(line)
            if self["against"] is not None:
                for line in comparison(self._load(self["against"]), self["settings"]):
                    print(line)
            print("configuration ok")
            raise SystemExit(0)
        if self.parent is not None:
            _removeOwnNumber(self.parent.get("pidfile"))

    def reload(self) -> Settings:
        """
        Read the settings again.

        @raise ConfigError: there are faults.
        """
        return load(self["config"], self.given, self._directory)

    def _load(self, path: str | None) -> Settings:
        """
        @param path: an ini file, or C{None}.

        @raise SystemExit: there is a mistake.
        """
        try:
            return load(path, self.given, self._directory, sockets=not self["check-config"])
        except ConfigError as error:
            raise SystemExit(str(error)) from None

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
            ("", "against", "=FILE"),
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


def _removeOwnNumber(path: str | None) -> None:
    """
    Remove a pid file with the number of this process. It is from an earlier process, which was killed and had the same
    number, as the first process of a container always has: twistd would take it for another one that runs.

    @param path: the path of the pid file, or an empty one or C{None}.
    """
    if not path:
        return
    try:
        with open(path, encoding="ascii") as file:
            number = file.read(32).strip()
        if number == str(os.getpid()):
            os.unlink(path)
    except (OSError, ValueError):
        return  # there is none, or twistd itself says what is wrong with it


def _flag(short: str, long: str) -> str:
    return f"  -{short}, --{long}" if short else f"      --{long}"


def _columns(flag: str, doc: str, width: int) -> Iterator[str]:
    indent = 34
    lines = textwrap.wrap(doc, max(width - indent, 20), break_on_hyphens=False)
    yield f"{flag:<{indent - 1}} {lines[0]}"
    yield from (" " * indent + line for line in lines[1:])


def _taker(option: Option) -> Callable[[Options, str], None]:
    """
    Make the method that takes an option of L{OPTIONS}.
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


def makeService(options: Options, reactor: Any = None) -> CommandService:
    """
    Make the service of the command. This does not start it.

    @param options: parsed options.
    @param reactor: L{processReactor} if not given.
    """
    if reactor is None:
        reactor = processReactor()
    settings = options["settings"]
    proxy: Any
    if settings.workers > 1:
        proxy = SupervisorService(settings, reactor)
    else:
        proxy = ProxyService(settings, reactor, command=True)
    service = CommandService(proxy, options.reload, reactor, options["observer"])
    if settings.admin is not None:
        perform = proxy.perform if settings.workers > 1 else Operations(proxy).perform
        events = Events() if proxy.statistics is None else proxy.statistics.events
        target = Target(proxy, perform, service.reload, service.shutdown, events)
        ConsoleService(settings.admin, target, reactor, settings.adminPasswordFile).setServiceParent(service)
    proxy.setServiceParent(service)
    return service
