# -*- test-case-name: tests.operate.test_console -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The console: the proxy is administered in lines that a person types, with C{nc} for instance.

An answer is some lines of text, if any, and one that begins with C{OK} or C{ERROR}.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from typing import Protocol as Shape

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IListeningPort, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.config.changes import CannotChange
from txconnpool.config.kinds import Option, nearest
from txconnpool.config.settings import POOL_OPTIONS, PROCESS_OPTIONS, ConfigError, Settings
from txconnpool.net.endpoints import Listener, raised
from txconnpool.net.transport import peerOf
from txconnpool.operate.events import Events
from txconnpool.operate.operations import KEYS, ControlError, Row, resized
from txconnpool.operate.workers.channel import ChannelError

_log = Logger("txconnpool.console")

#: Bytes of a line, at most.
LINE_MAX = 4096

#: Seconds without a line after which a console is closed.
IDLE = 600.0

#: Consoles at the same time, at most.
CONSOLES = 8

#: Passwords that may be tried on one connection, and the seconds that each wrong one costs.
TRIES, PENALTY = 3, 1.0

#: Sessions that are shown, unless more are asked for, and at most.
SESSIONS, SESSIONS_MAX = 50, 1000


class Running(Shape):
    """
    What is administered: a proxy, in one process or in several.
    """

    settings: Settings

    def change(self, make: Callable[[Settings], Settings]) -> Deferred[list[str]]:
        """
        See L{txconnpool.config.changes.Changeable.change}.
        """


@dataclass(frozen=True)
class Target:
    """
    What the commands of a console work on.

    @ivar running: whose settings they see and change.
    @ivar do: uses one of the controls, see L{txconnpool.operate.operations.Controls.do}; may give a Deferred.
    @ivar reload: reads the settings again and puts them in force; gives what has changed, in a line each.
    @ivar shutdown: begins to stop the process; called with whether it is to be at once.
    @ivar events: what has happened lately.
    """

    running: Running
    do: Callable[..., Any]
    reload: Callable[[], Deferred[list[str]]]
    shutdown: Callable[[bool], None]
    events: Events


@dataclass(frozen=True)
class Answer:
    """
    What a command has to say.

    @ivar text: what it did, for the last line.
    @ivar lines: all before that.
    """

    text: str
    lines: list[str]


class Commands:
    """
    What can be typed. The first line of a method's docstring is the usage, the others are the help.
    """

    def __init__(self, target: Target) -> None:
        self._target = target

    async def run(self, words: list[str]) -> Answer:
        """
        Carry out a command.

        @param words: its name and its arguments.

        @raise ControlError: it cannot be done.
        """
        name = words[0].lower()
        command = COMMAND_NAMES.get(name)
        if command is None:
            near = nearest(name, COMMAND_NAMES)
            raise ControlError(f"no command {name!r}; " + (f"did you mean {near}?" if near else "`help` lists them"))
        low, high = _arguments(name)
        if not low <= len(words) - 1 <= high:
            raise ControlError(f"expected {USAGE[name][0]}")
        return await command(self, *words[1:])

    async def help(self) -> Answer:
        """
        help
        this list
        """
        width = max(len(usage) for usage, _ in USAGE.values())
        return Answer(f"{len(USAGE)} commands", [f"{usage:<{width}}  {text}" for usage, text in USAGE.values()])

    async def show(self, what: str, most: str = str(SESSIONS)) -> Answer:
        """
        show pools|servers|sessions [MOST]|settings|events
        what there is, and what has happened lately; of sessions, those with most to do
        """
        if what == "settings":
            rows = list(_settings(self._target.running.settings))
        elif what == "events":
            rows = list(_events(self._target.events))
        elif what in KEYS:
            number = _whole(most, "MOST", SESSIONS_MAX)
            rows = await _result(self._target.do("rows", what, number))
            if what == "sessions" and len(rows) == number:
                return Answer(f"{number} sessions; there may be more: `show sessions {SESSIONS_MAX}`", _table(rows))
        else:
            raise ControlError(f"expected {USAGE['show'][0]}")
        return Answer(f"{len(rows)} {what if len(rows) != 1 else what[:-1]}", _table(rows))

    async def pause(self, pool: str | None = None) -> Answer:
        """
        pause [POOL]
        let requests wait, without their time running; what is in flight ends
        """
        return await self._do("pause", pool)

    async def resume(self, pool: str | None = None) -> Answer:
        """
        resume [POOL]
        let requests go on
        """
        return await self._do("resume", pool)

    async def drain(self, server: str) -> Answer:
        """
        drain SERVER
        ask a server nothing more; its connections end when they carry nothing
        """
        return await self._do("drain", server)

    async def eject(self, server: str) -> Answer:
        """
        eject SERVER
        the same, and end its connections at once
        """
        return await self._do("eject", server)

    async def restore(self, server: str) -> Answer:
        """
        restore SERVER
        ask a server again; dial one that is down without delay
        """
        return await self._do("restore", server)

    async def kill(self, session: str) -> Answer:
        """
        kill SESSION
        close a client
        """
        return await self._do("kill", session)

    async def _do(self, name: str, *args: Any) -> Answer:
        *lines, text = (await _result(self._target.do(name, *args))).split("\n")
        return Answer(text, lines)

    async def resize(self, pool: str, low: str, high: str) -> Answer:
        """
        resize POOL MIN MAX
        other bounds on the connections of a pool, until the next reload
        """
        least, most = _whole(low, "MIN", 65535), _whole(high, "MAX", 65535)
        lines = await self._target.running.change(lambda settings: resized(settings, pool, least, most))
        return Answer(f"{len(lines)} changed", lines)

    async def reload(self) -> Answer:
        """
        reload
        read the ini file again, and put all of it in force or nothing
        """
        lines = await self._target.reload()
        return Answer(f"reloaded, {len(lines)} changed", lines)

    async def shutdown(self, how: str = "drain") -> Answer:
        """
        shutdown [drain|now]
        stop: answer what was read, then end; or end at once
        """
        if how not in ("drain", "now"):
            raise ControlError(f"expected {USAGE['shutdown'][0]}")
        self._target.shutdown(how == "now")
        return Answer("stopping" if how == "drain" else "stopping at once", [])

    async def quit(self) -> Answer:
        """
        quit
        close this console
        """
        return Answer("bye", [])


COMMAND_NAMES: dict[str, Callable[..., Awaitable[Answer]]] = {
    name: value for name, value in vars(Commands).items() if not name.startswith("_") and name != "run"
}


def _usage(name: str) -> tuple[str, str]:
    """
    @return: how a command is written, and what it does.
    """
    usage, text = (line.strip() for line in (COMMAND_NAMES[name].__doc__ or "").strip().split("\n"))
    return usage, text


USAGE = {name: _usage(name) for name in COMMAND_NAMES}


def _arguments(name: str) -> tuple[int, int]:
    """
    @return: how many arguments a command takes, at least and at most.
    """
    words = re.findall(r"\[?\S+\]?", USAGE[name][0])[1:]
    return sum(1 for word in words if not word.startswith("[")), len(words)


async def _result(value: Any) -> Any:
    return await value if isinstance(value, Deferred) else value


def _whole(text: str, name: str, most: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) > most:
        raise ControlError(f"{name} is {text!r}; expected a whole number up to {most}")
    return int(text)


def _settings(settings: Settings) -> Iterator[Row]:
    """
    Make a table of all settings.
    """

    def row(pool: str, each: Option, value: Any) -> Row:
        return {
            "pool": pool,
            "key": each.name,
            "value": each.show(value).replace("\n", " "),
            "default": each.show(each.default).replace("\n", " "),
            "changes": "at a restart" if each.fixed else "live",
        }

    for each in PROCESS_OPTIONS:
        yield row("", each, getattr(settings, each.attribute))
    for pool in settings.pools:
        for each in POOL_OPTIONS:
            yield row(pool.name, each, getattr(pool, each.attribute))


def _events(events: Events) -> Iterator[Row]:
    """
    Make a table of what has happened, the latest last.
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
    Write a table in aligned columns, numbers to the right.
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


@implementer(IHalfCloseableProtocol, IPushProducer)
class Console(Protocol, TimeoutMixin):
    """
    A person, or a script.
    """

    transport: Any

    def __init__(self, factory: ConsoleFactory) -> None:
        self.factory: ConsoleFactory = factory
        self._known = factory.password is None
        self._tries = 0
        self._data = b""
        self._busy = False  # a command is being carried out
        self._full = False  # the answers are not read
        self._reading = True
        self._ending = False  # nothing more will come

    def callLater(self, period: float, f: Callable[[], None]) -> Any:
        """
        For L{TimeoutMixin}.
        """
        return self.factory.reactor.callLater(period, f)

    def connectionMade(self) -> None:
        """
        Listen, if there are not too many who do.
        """
        self.factory.consoles.add(self)
        self.transport.registerProducer(self, True)
        self.setTimeout(IDLE)
        if len(self.factory.consoles) > CONSOLES:
            self.end(f"ERROR too many consoles; there may be {CONSOLES}")

    def dataReceived(self, data: bytes) -> None:
        """
        Something is typed.
        """
        self._data += data
        self.resetTimeout()
        self._work()

    def _work(self) -> None:
        """
        Carry out what was typed, one line at a time.
        """
        if self not in self.factory.consoles:
            return
        while not (self._busy or self._full or self.transport.disconnecting):
            line, end, rest = self._data.partition(b"\n")
            if len(line) > LINE_MAX:
                self.end(f"ERROR the line is longer than {LINE_MAX} bytes")
            elif end:
                self._data = rest
                self._line(line.decode("utf-8", "replace"))
            else:
                if self._ending:
                    self.end()
                break
        reading = not (self._busy or self._full)
        if reading is not self._reading and not self.transport.disconnecting:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _line(self, line: str) -> None:
        words = line.split()
        if not words:
            return
        name = words[0].lower()
        self._busy = True
        self.setTimeout(None)
        if name == "auth":
            running = Deferred.fromCoroutine(self._auth(line.strip()[4:].strip()))
        elif not self._known and name != "quit":
            running = fail(ControlError("expected auth PASSWORD first"))
        else:
            if name not in ("help", "show", "quit"):
                _log.info("console: {line!r}", line=line.strip())
            running = Deferred.fromCoroutine(self.factory.commands.run(words))
        running.addCallbacks(self._done, self._failed)
        running.addErrback(lambda failure: _log.failure("a console failed", failure))
        running.addBoth(self._ended, name)
        if self._busy:
            running.addCallback(lambda _: self._work())

    async def _auth(self, password: str) -> Answer:
        expected = self.factory.password
        if expected is None:
            raise ControlError("no password is needed here")
        if hmac.compare_digest(password.encode(), expected):
            self._known = True
            return Answer("welcome; `help` lists the commands", [])
        self._tries += 1
        _log.warn("console: wrong password from {client}", client=peerOf(self.transport))
        await deferLater(self.factory.reactor, PENALTY)
        raise ControlError("wrong password")

    def _done(self, answer: Answer) -> None:
        self._say([*answer.lines, f"OK {answer.text}"])

    def _failed(self, failure: Failure) -> None:
        if failure.check(ControlError, ChannelError, CannotChange, ConfigError):
            lines = failure.getErrorMessage().split("\n")
            if len(lines) > 1:
                lines.append(f"{len(lines)} problems")
            self._say([*lines[:-1], f"ERROR {lines[-1]}"])
        else:
            _log.failure("a command failed", failure)
            self._say([f"ERROR {type(failure.value).__name__}: that is a defect; the log tells more"])

    def _ended(self, _: object, name: str) -> None:
        """
        A command was carried out.
        """
        self._busy = False
        if self in self.factory.consoles:
            self.setTimeout(IDLE)
            if name == "quit" or self._tries >= TRIES:
                self.end()

    def _say(self, lines: list[str]) -> None:
        if self in self.factory.consoles:
            self.transport.write("".join(f"{line}\n" for line in lines).encode())

    def end(self, *words: str) -> None:
        """
        Say something and close.
        """
        self._say(list(words))
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def timeoutConnection(self) -> None:
        """
        Nobody types, or reads.
        """
        if self._full:
            self.transport.abortConnection()
        else:
            self.end(f"ERROR nothing was typed for {IDLE:g} seconds")

    def pauseProducing(self) -> None:
        """
        The answers are not read: carry out nothing more.
        """
        self._full = True

    def resumeProducing(self) -> None:
        """
        They are.
        """
        self._full = False
        self._work()

    def stopProducing(self) -> None:
        """
        The connection ends; C{connectionLost} does what there is to do.
        """

    def readConnectionLost(self) -> None:
        """
        Nothing more will be typed: end when all is answered.
        """
        self._ending = True
        self._work()

    def writeConnectionLost(self) -> None:
        """
        Never asked for; L{IHalfCloseableProtocol} wants it.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The person is gone. What is being carried out goes on.
        """
        self.setTimeout(None)
        self.factory.consoles.discard(self)


class ConsoleFactory(Factory):
    """
    Makes consoles.

    @ivar consoles: those that are connected.
    """

    noisy = False

    def __init__(self, target: Target, reactor: Any, password: bytes | None = None) -> None:
        """
        @param password: what must be said first, or C{None}.
        """
        self.commands = Commands(target)
        self.reactor = reactor
        self.password = password
        self.consoles: set[Console] = set()

    def logPrefix(self) -> str:
        """
        @return: who listens, for Twisted's log.
        """
        return "console"

    def buildProtocol(self, addr: IAddress | None) -> Console:  # type: ignore[override]  # Factory's is a TypeVar
        """
        @return: a console.
        """
        return Console(self)


class AdminService(Service):
    """
    Listens for consoles.
    """

    def __init__(self, endpoint: str, target: Target, reactor: Any, password: bytes | None = None) -> None:
        """
        @param endpoint: a server endpoint string.
        """
        self._endpoint = private(endpoint)
        self._reactor = reactor
        self._factory = ConsoleFactory(target, reactor, password)
        self._events = target.events
        self._port: Any = None

    def privilegedStartService(self) -> None:
        """
        Listen.

        @raise CannotListenError: the address is taken or not ours.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """
        Listen, if that has not been done.
        """
        super().startService()
        self._listen()
        self._events.begin()

    def _listen(self) -> None:
        if self._port is None:
            raised(Listener(self._reactor, self._endpoint).listen(self._factory)).addCallback(self._opened)

    def _opened(self, port: IListeningPort) -> None:
        self._port = port

    @property
    def listening(self) -> bool:
        """
        Whether it does.
        """
        return self._port is not None

    def stopService(self) -> Deferred[None]:
        """
        Listen no more, and close the consoles.
        """
        if self.running:
            self._events.end()
        super().stopService()
        port, self._port = self._port, None
        for console in list(self._factory.consoles):
            console.end()
        return maybeDeferred(port.stopListening) if port is not None else succeed(None)


def private(endpoint: str) -> str:
    """
    Let only ourselves open the file of a UNIX socket: Twisted lets everybody, where the description does not say.
    """
    if endpoint.startswith("unix:") and not re.search(":mode=[0-7]", endpoint):
        endpoint += ":mode=600"
    return endpoint
