# -*- test-case-name: tests.operate.console.test_protocol -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The line protocol of the console.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool import __version__
from txconnpool.config.changes import CannotChange
from txconnpool.config.settings import ConfigError
from txconnpool.net.transport import closeAfterFlush, peerOf
from txconnpool.operate.console.commands import Answer, Commands, Target
from txconnpool.operate.console.passwords import PasswordChecks
from txconnpool.operate.listening import OperatorConnection, OperatorFactory, Tally, oldestOfBusiest
from txconnpool.operate.operations import OperationError
from txconnpool.operate.workers.channel import ChannelError

T = TypeVar("T")

_log = Logger("txconnpool.console")

#: The most bytes of a line.
LINE_MAX: Final = 4096

#: Seconds without a line after which a console is closed.
IDLE: Final = 600.0

#: Seconds to log in, from the acceptance of the connection, with TLS.
LOGIN: Final = 10.0

#: Seconds that a console, when it is closed, has to read the last lines.
LINGER: Final = 3.0

#: The most consoles that are logged in, or need no password, and the most that are not logged in yet. The second number
#: times the interval of password checks is less than L{LOGIN}, so that each has its turn.
CONSOLES: Final = 8
STRANGERS: Final = 32

#: The mistakes that a console may make before it has logged in, and the seconds that each wrong password costs.
TRIES: Final = 3
PENALTY: Final = 1.0

#: The commands that close the console.
_ENDS: Final = ("quit", "exit")

#: The commands that change nothing, and are not logged.
_UNLOGGED: Final = ("help", "show", *_ENDS)

#: The commands that have lines of their own in the log about what they do; the command is logged before them. Other
#: commands are logged when it is known whether they were refused.
_LOGGED_BEFORE: Final = ("reload", "reconnect", "shutdown")

#: The exceptions of commands that cannot be carried out.
REFUSALS: Final = (OperationError, ChannelError, CannotChange, ConfigError)

#: The most characters of a reason in the log.
_REASON_MAX: Final = 120

#: The beginning of a request in HTTP, which a web page can make a browser send to any port, or of a TLS handshake.
_FOREIGN: Final = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI) |\x16\x03")

#: The end of the first line of a request in HTTP, whatever its method.
_FOREIGN_END: Final = re.compile(rb"HTTP/[0-9](\.[0-9])?\Z")


@implementer(IHalfCloseableProtocol, IPushProducer)
class Console(OperatorConnection):
    """
    The connection of a person, or a script, that types commands. One command is carried out at a time, and at most one
    line in a turn of the reactor: a single read may have thousands of lines, and the proxy's clients wait meanwhile.

    @ivar loggedIn: whether it may use all commands.
    @ivar busy: whether a command is being carried out.
    @ivar active: when it was opened, or a command has ended, the last time.
    """

    def __init__(self, factory: ConsoleFactory) -> None:
        super().__init__(factory)
        self.factory: ConsoleFactory = factory
        self.loggedIn = factory.checks is None
        self.busy = False
        self.active = factory.reactor.seconds()
        self._tries = 0
        self._data = b""
        self._waiting: Deferred[Any] | None = None  # what a login waits for
        self._turn: IDelayedCall | None = None  # the turn of the reactor in which the next line is carried out
        self._full = False  # the peer does not read the replies
        self._reading = True
        self._atEnd = False  # the peer has closed its side

    def connectionMade(self) -> None:
        """
        Accept commands, or a password first.
        """
        super().connectionMade()
        self.transport.registerProducer(self, True)
        if self.loggedIn:
            self._write([f"txconnpool {__version__}: `help` lists the commands, `exit` closes the console"])
            self._idle()
        else:
            self.setTimer(LOGIN, self._late)
        self.factory.bound(self)

    def _idle(self) -> None:
        self.active = self.factory.reactor.seconds()
        self.setTimer(IDLE, self._expire)

    def dataReceived(self, data: bytes) -> None:
        """
        Take bytes that were typed. They are dropped when the console is being closed.
        """
        if self.ended:
            return
        self._data += data
        if self.loggedIn and not self.busy:
            self.setTimer(IDLE, self._expire)
        self._runLines()

    def _runLines(self) -> None:
        """
        Carry out the next line, if it is complete. While a command runs, while there are more lines than one, and while
        the peer does not read, nothing is read.
        """
        if not (self._blocked() or self.ended):
            self._runNext()
        reading = not self._blocked()
        if reading is not self._reading and not self.ended:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _blocked(self) -> bool:
        return self.busy or self._full or self._turn is not None

    def _runNext(self) -> None:
        # Empty lines are dropped all at once: each one by itself would copy all that follow.
        self._data = self._data.lstrip()
        line, end, rest = self._data.partition(b"\n")
        if _FOREIGN.match(line) or (end and _FOREIGN_END.search(line.rstrip())):
            self.abort()
        elif len(line) > LINE_MAX:
            self.end(f"ERROR the line is longer than {LINE_MAX} bytes")
        elif end:
            self._data = rest
            self._runLine(line.decode("utf-8", "replace"))
            if (self._data or self._atEnd) and not self.ended:
                self._turn = self.factory.reactor.callLater(0, self._taken)
        elif self._atEnd:
            self.end()

    def _taken(self) -> None:
        self._turn = None
        self._runLines()

    def _runLine(self, line: str) -> None:
        words = line.split()
        if self.loggedIn and not words:
            return
        name = words[0].lower() if words else ""
        self.busy = True
        if self.loggedIn:
            self.setTimer(None)
        if name == "auth":
            running = Deferred.fromCoroutine(self._logIn(line.strip()[4:].strip()))
        elif not self.loggedIn and name not in _ENDS:
            self._tries += 1
            running = fail(OperationError("expected auth PASSWORD first"))
        else:
            running = Deferred.fromCoroutine(self._run(words, line.strip()))
        running.addCallbacks(self._succeeded, self._failed)
        running.addErrback(lambda failure: _log.failure("a console failed", failure))
        running.addBoth(self._done, name)
        if self.busy:
            running.addCallback(lambda _: self._runLines())

    async def _run(self, words: list[str], line: str) -> Answer:
        self.factory.commands.check(words)  # what is mistyped is no event
        name = words[0].lower()
        if name in _UNLOGGED:
            return await self.factory.commands.run(words)
        if name in _LOGGED_BEFORE:
            _log.info("console: {line!r}", line=line)
        try:
            answer = await self.factory.commands.run(words)
        except REFUSALS as error:
            _log.info("console: {line!r} refused: {why}", line=line, why=_shortened(str(error)))
            raise
        if name not in _LOGGED_BEFORE:
            _log.info("console: {line!r}", line=line)
        return answer

    async def _logIn(self, password: str) -> Answer:
        checks = self.factory.checks
        if checks is None:
            raise OperationError("no password is needed here")
        if await self._wait(checks.check(password.encode())):
            if not self.loggedIn:
                self.loggedIn = True
                self.setTimer(None)
                self.factory.bound(self)
            return Answer("welcome; `help` lists the commands", [])
        self._tries += 1
        self.factory.wrongPasswords.add(peerOf(self.transport))
        await self._wait(deferLater(self.factory.reactor, PENALTY))
        raise OperationError("wrong password")

    def _wait(self, event: Deferred[T]) -> Deferred[T]:
        """
        Cancel an event if the console ends before it.
        """
        self._waiting = event
        return event

    def _succeeded(self, answer: Answer) -> None:
        self._write([*answer.lines, f"OK {answer.text}"])

    def _failed(self, failure: Failure) -> None:
        if failure.check(*REFUSALS):
            lines = failure.getErrorMessage().split("\n")
            if len(lines) > 1:
                lines.append(f"{len(lines)} problems")
            self._write([*lines[:-1], f"ERROR {lines[-1]}"])
        elif not (self.ended and failure.check(CancelledError)):
            _log.failure("a command failed", failure)
            self._write([f"ERROR internal error, {type(failure.value).__name__}; the log has the traceback"])

    def _done(self, _: object, name: str) -> None:
        """
        The command C{name} has been carried out, or has failed.
        """
        self.busy = False
        self._waiting = None
        if not self.ended:
            if self.loggedIn:
                self._idle()
            if name in _ENDS or self._tries >= TRIES:
                self.end()

    def _write(self, lines: list[str]) -> None:
        if not self.ended:
            self.transport.write("".join(f"{_printable(line)}\n" for line in lines).encode())

    def end(self, *lines: str) -> None:
        """
        Write lines, and close the connection after them. If the peer does not read them, it is aborted after L{LINGER}
        seconds.
        """
        if self.ended:
            return
        self._write(list(lines))
        self.ended = True
        self._leave()
        self.transport.unregisterProducer()
        closeAfterFlush(self.transport)
        self.setTimer(LINGER, self.abort)

    close = end

    def abort(self) -> None:
        """
        Close the connection at once.
        """
        super().abort()
        self._leave()

    def _leave(self) -> None:
        """
        Drop what was typed, and end a login.
        """
        self._data = b""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._waiting is not None:
            self._waiting.cancel()

    def giveWay(self) -> None:
        """
        Close the console because another one needs its place.
        """
        if self._full:
            self.abort()
        else:
            self.end(f"ERROR closed for another console; the limit is {CONSOLES}, and this one was idle longest")

    def _late(self) -> None:
        self.end(f"ERROR expected auth PASSWORD within {LOGIN:g} seconds")

    def _expire(self) -> None:
        """
        Close the console because nothing was typed, or the replies were not read, for L{IDLE} seconds.
        """
        if self._full:
            self.abort()
        else:
            self.end(f"ERROR nothing was typed for {IDLE:g} seconds")

    def pauseProducing(self) -> None:
        """
        Carry out nothing more, because the peer does not read the replies.
        """
        self._full = True

    def resumeProducing(self) -> None:
        """
        Go on, because the peer has read the replies.
        """
        self._full = False
        self._runLines()

    def stopProducing(self) -> None:
        """
        Do nothing: C{connectionLost} follows.
        """

    def readConnectionLost(self) -> None:
        """
        The peer has closed its side: carry out the lines that have come, then close the connection.
        """
        self._atEnd = True
        self._runLines()

    def writeConnectionLost(self) -> None:
        """
        Do nothing: this side is never closed alone.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Forget the console. A command that is being carried out goes on, a login ends.
        """
        super().connectionLost(reason)
        self._leave()


class ConsoleFactory(OperatorFactory):
    """
    The factory of the consoles.

    @ivar commands: the commands.
    @ivar checks: checks the password that must be given first; C{None}: there is none.
    @ivar wrongPasswords: logs wrong passwords.
    """

    def __init__(self, target: Target, reactor: Any, password: bytes | None = None) -> None:
        super().__init__(reactor)
        self.commands = Commands(target)
        self.checks: PasswordChecks | None = None
        self.wrongPasswords = Tally(reactor, _logWrongPasswords)
        if password is not None:
            self.demand(password)

    def demand(self, password: bytes) -> None:
        """
        Demand a password of each new console.
        """
        self.checks = PasswordChecks(self.reactor, password)

    def logPrefix(self) -> str:
        """
        @return: the name of the listener, for Twisted's log.
        """
        return "console"

    def buildProtocol(self, addr: IAddress | None) -> Console:  # type: ignore[override]  # Factory's is a TypeVar
        """
        @return: a console.
        """
        return Console(self)

    def bound(self, console: Console) -> None:
        """
        Close another console if there are too many of the kind of this one.

        Those that have not logged in are counted by themselves, so that they cannot lock out an operator. An operator
        who opens one too many is not refused either, but the one that was idle longest is closed: it is forgotten or
        its program hangs, and without this nobody could look for the reason. A place kept in reserve would be taken by
        the next one of them.
        """
        present = [
            each
            for each in self.connections
            if isinstance(each, Console) and not each.ended and each.loggedIn is console.loggedIn
        ]
        if not console.loggedIn and len(present) > STRANGERS:
            oldestOfBusiest(present).abort()
        elif console.loggedIn and len(present) > CONSOLES:
            present.remove(console)
            min(present, key=lambda each: (each.busy, each.active)).giveWay()


def _printable(line: str) -> str:
    """
    Escape characters that control a terminal. Logged events and errors of servers may contain what others have sent.
    """
    if line.isprintable():
        return line
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)


def _shortened(reason: str) -> str:
    """
    @return: the first line of a reason, cut if it is long, with the number of the other lines.
    """
    first, *more = reason.split("\n")
    if len(first) > _REASON_MAX:
        first = f"{first[: _REASON_MAX - 3]}..."
    return f"{first} (and {len(more)} more)" if more else first


def _logWrongPasswords(count: int, last: str) -> None:
    passwords = "1 wrong password" if count == 1 else f"{count} wrong passwords"
    _log.warn("console: {passwords}, the last one from {client}", passwords=passwords, count=count, client=last)
