# -*- test-case-name: tests.operate.console.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands of the console.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from inspect import signature
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from txconnpool.config.changes import KEPT, summary
from txconnpool.config.kinds import nearest
from txconnpool.config.options import Option
from txconnpool.config.settings import POOL_OPTIONS, PROCESS_OPTIONS, Settings
from txconnpool.operate.events import Events
from txconnpool.operate.operations import NO_LABEL, TABLES, OperationError, Row, resized

#: The number of sessions that C{show sessions} shows by default, and the most that it can be asked for.
SESSIONS, SESSIONS_MAX = 50, 1000


class RunningProxy(Protocol):
    """
    A proxy with settings that can change, in one process or several.
    """

    settings: Settings

    def change(self, make: Callable[[Settings], Settings]) -> Deferred[list[str]]:
        """
        See L{txconnpool.operate.reload.Changeable.change}.
        """


@dataclass(frozen=True)
class Target:
    """
    The objects that the commands of a console work on.

    @ivar proxy: the proxy with the settings that commands show and change.
    @ivar perform: performs an operation, see L{txconnpool.operate.operations.Operations.perform}; may return a
        Deferred.
    @ivar reload: reads the settings again and puts them in force; returns a Deferred of a line for each change.
    @ivar shutdown: begins to stop the process; called with whether not to wait for requests in flight.
    @ivar events: the recent events.
    """

    proxy: RunningProxy
    perform: Callable[..., Any]
    reload: Callable[[], Deferred[list[str]]]
    shutdown: Callable[[bool], None]
    events: Events


@dataclass(frozen=True)
class Answer:
    """
    The result of a command.

    @ivar text: a description of the result, for the last line.
    @ivar lines: the lines before it.
    """

    text: str
    lines: list[str]


class Commands:
    """
    The commands, each a method. The first line of its docstring is the usage, the second one the help.
    """

    def __init__(self, target: Target) -> None:
        self._target = target

    def check(self, words: list[str]) -> Callable[..., Awaitable[Answer]]:
        """
        Find a command.

        @param words: the name of the command and its arguments.

        @return: its method.

        @raise OperationError: there is no such command, or it takes other arguments.
        """
        name = words[0].lower()
        command = COMMAND_NAMES.get(name)
        if command is None:
            near = nearest(name, COMMAND_NAMES)
            raise OperationError(f"no command {name!r}; " + (f"did you mean {near}?" if near else "`help` lists them"))
        low, high = _arguments(name)
        if not low <= len(words) - 1 <= high:
            raise OperationError(f"expected {USAGE[name][0]}")
        return command

    async def run(self, words: list[str]) -> Answer:
        """
        Carry out a command.

        @param words: the name of the command and its arguments.

        @raise OperationError: it cannot be done.
        """
        return await self.check(words)(self, *words[1:])

    async def help(self) -> Answer:
        """
        help
        list the commands
        """
        width = max(len(usage) for usage, _ in USAGE.values())
        return Answer(f"{len(USAGE)} commands", [f"{usage:<{width}}  {text}" for usage, text in USAGE.values()])

    async def show(self, what: str, which: str | None = None) -> Answer:
        """
        show pools|servers|slots|sessions [MOST]|settings [changed]|events
        show a table; slots are those of a cluster; MOST is for sessions, the busiest first; changed is for settings
        """
        if what == "settings" and which in (None, "changed"):
            rows = list(_settingRows(self._target.proxy.settings))
            if which is not None:
                rows = [row for row in rows if row["value"] != row["default"]]
        elif what == "events":
            rows = list(_eventRows(self._target.events))
        elif what in TABLES:
            number = SESSIONS if which is None else _number(which, "MOST", SESSIONS_MAX)
            rows = await _result(self._target.perform("rows", what, number))
            if what == "sessions" and len(rows) == number:
                return Answer(f"{number} sessions; there may be more: `show sessions {SESSIONS_MAX}`", _table(rows))
        else:
            raise OperationError(f"expected {USAGE['show'][0]}")
        return Answer(f"{len(rows)} {what if len(rows) != 1 else what[:-1]}", _table(rows))

    async def pause(self, pool: str | None = None) -> Answer:
        """
        pause [POOL]
        let requests wait, and stop their wait-timeout; requests in flight are answered
        """
        return await self._perform("pause", pool)

    async def resume(self, pool: str | None = None) -> Answer:
        """
        resume [POOL]
        end a pause
        """
        return await self._perform("resume", pool)

    async def reconnect(self, pool: str | None = None) -> Answer:
        """
        reconnect [POOL]
        look up servers and names again, and replace all connections, each when its successor is there
        """
        return await self._perform("reconnect", pool)

    async def drain(self, server: str, now: str | None = None) -> Answer:
        """
        drain SERVER [now]
        send a server, by name or label, no more requests; close its connections when they are idle, or at once
        """
        if now not in (None, "now"):
            raise OperationError(f"expected {USAGE['drain'][0]}")
        return await self._perform("drain", await self._serverOf(server), now is not None)

    async def eject(self, server: str) -> Answer:
        """
        eject SERVER
        give the keys of a server, by name or label, to others, as the distribution does it for one that is down
        """
        return await self._perform("eject", await self._serverOf(server))

    async def restore(self, server: str) -> Answer:
        """
        restore SERVER
        end drain and eject of a server, by name or label; dial one that is down without delay
        """
        return await self._perform("restore", await self._serverOf(server))

    async def kill(self, session: str) -> Answer:
        """
        kill SESSION
        close the connection of a client
        """
        return await self._perform("kill", session)

    async def _serverOf(self, text: str) -> str:
        """
        Find a server by its label.

        @param text: the name of a server, or a label as in C{show servers}.

        @return: the name of the server with this label, or C{text} if there is none.

        @raise OperationError: several servers have the label.
        """
        rows = await _result(self._target.perform("rows", "servers", 0))
        if any(row["server"] == text for row in rows):
            return text
        names = list(dict.fromkeys(row["server"] for row in rows if row["label"] == text != NO_LABEL))
        if len(names) > 1:
            raise OperationError(f"{len(names)} servers have the label {text!r}; expected one of {', '.join(names)}")
        return names[0] if names else text

    async def _perform(self, name: str, *args: Any) -> Answer:
        *lines, text = (await _result(self._target.perform(name, *args))).split("\n")
        return Answer(text, lines)

    async def resize(self, pool: str, low: str, high: str) -> Answer:
        """
        resize POOL MIN MAX
        set min-pool-size and pool-size of a pool, until the next reload
        """
        least, most = _number(low, "MIN", 65535), _number(high, "MAX", 65535)
        lines = await self._target.proxy.change(lambda settings: resized(settings, pool, least, most))
        return Answer(summary(lines), lines)

    async def reload(self) -> Answer:
        """
        reload
        read the ini file again, and put all of it in force, or nothing
        """
        lines = await self._target.reload()
        return Answer(f"reloaded, {summary(lines)}", lines)

    async def shutdown(self, how: str = "drain") -> Answer:
        """
        shutdown [drain|now]
        stop: answer the requests that were read, then end; or end at once
        """
        if how not in ("drain", "now"):
            raise OperationError(f"expected {USAGE['shutdown'][0]}")
        self._target.shutdown(how == "now")
        return Answer("stopping" if how == "drain" else "stopping at once", [])

    async def quit(self) -> Answer:
        """
        quit
        close this console
        """
        return Answer("bye", [])

    async def exit(self) -> Answer:
        """
        exit
        the same as quit
        """
        return await self.quit()


COMMAND_NAMES: dict[str, Callable[..., Awaitable[Answer]]] = {
    name: value for name, value in vars(Commands).items() if not name.startswith("_") and name not in ("check", "run")
}


def _usage(name: str) -> tuple[str, str]:
    """
    @return: the usage of a command, and its help.
    """
    usage, text = (line.strip() for line in (COMMAND_NAMES[name].__doc__ or "").strip().split("\n"))
    return usage, text


USAGE = {name: _usage(name) for name in COMMAND_NAMES}


def _arguments(name: str) -> tuple[int, int]:
    """
    @return: the least and the largest number of arguments of a command.
    """
    _self, *parameters = signature(COMMAND_NAMES[name]).parameters.values()
    return sum(each.default is each.empty for each in parameters), len(parameters)


async def _result(value: Any) -> Any:
    return await value if isinstance(value, Deferred) else value


def _number(text: str, name: str, most: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) > most:
        raise OperationError(f"{name} is {text!r}; expected a whole number up to {most}")
    return int(text)


def _settingRows(settings: Settings) -> Iterator[Row]:
    def row(pool: str, each: Option, value: Any) -> Row:
        return {
            "pool": pool,
            "key": each.name,
            "value": each.show(value).replace("\n", " "),
            "default": each.show(each.default).replace("\n", " "),
            "changes": "at a restart" if each.fixed or each.attribute in KEPT else "live",
        }

    for each in PROCESS_OPTIONS:
        yield row("", each, getattr(settings, each.attribute))
    for pool in settings.pools:
        for each in POOL_OPTIONS:
            yield row(pool.name, each, getattr(pool, each.attribute))


def _eventRows(events: Events) -> Iterator[Row]:
    """
    Make a table of the recent events, the latest last.
    """
    for event in events.recent:
        when = datetime.fromtimestamp(event["time"], UTC).astimezone()
        yield {
            "time": when.isoformat(timespec="seconds"),
            "level": event["level"],
            "event": " ".join(event["text"].split()),
        }


def _table(rows: list[Row]) -> list[str]:
    """
    Align the columns of a table, numbers to the right.
    """
    if not rows:
        return []
    columns = {name: [name, *(str(row[name]) for row in rows)] for name in rows[0]}
    padded = []
    for name, texts in columns.items():
        width = max(map(len, texts))
        right = isinstance(rows[0][name], int)
        padded.append([text.rjust(width) if right else text.ljust(width) for text in texts])
    return ["  ".join(line).rstrip() for line in zip(*padded, strict=True)]
