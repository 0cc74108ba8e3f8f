# -*- test-case-name: tests.operate.console.test_protocol -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The line protocol of the console.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.config.changes import CannotChange
from txconnpool.config.settings import ConfigError
from txconnpool.net.transport import peerOf
from txconnpool.operate.console.commands import Answer, Commands, Target
from txconnpool.operate.operations import OperationError
from txconnpool.operate.workers.channel import ChannelError

_log = Logger("txconnpool.console")

#: The most bytes of a line.
LINE_MAX = 4096

#: Seconds without a line after which a console is closed.
IDLE = 600.0

#: The most consoles that are open at the same time.
CONSOLES = 8

#: The passwords that can be tried on one connection, and the seconds that each wrong one costs.
TRIES, PENALTY = 3, 1.0


@implementer(IHalfCloseableProtocol, IPushProducer)
class Console(Protocol, TimeoutMixin):
    """
    The connection of a person, or a script, that types commands. One command is carried out at a time.
    """

    transport: Any

    def __init__(self, factory: ConsoleFactory) -> None:
        self.factory: ConsoleFactory = factory
        self._loggedIn = factory.password is None
        self._tries = 0
        self._data = b""
        self._busy = False  # a command is being carried out
        self._full = False  # the peer does not read the replies
        self._reading = True
        self._atEnd = False  # the peer has closed its side

    def callLater(self, period: float, f: Callable[[], None]) -> Any:
        """
        Call a function later. L{TimeoutMixin} uses this.
        """
        return self.factory.reactor.callLater(period, f)

    def connectionMade(self) -> None:
        """
        Accept commands, unless there are too many consoles.
        """
        self.factory.consoles.add(self)
        self.transport.registerProducer(self, True)
        self.setTimeout(IDLE)
        if len(self.factory.consoles) > CONSOLES:
            self.end(f"ERROR too many consoles; the limit is {CONSOLES}")

    def dataReceived(self, data: bytes) -> None:
        """
        Take bytes that were typed.
        """
        self._data += data
        self.resetTimeout()
        self._runLines()

    def _runLines(self) -> None:
        """
        Carry out complete lines, one at a time. While a command runs, and while the peer does not read, nothing is
        read.
        """
        if self not in self.factory.consoles:
            return
        while not (self._busy or self._full or self.transport.disconnecting):
            line, end, rest = self._data.partition(b"\n")
            if len(line) > LINE_MAX:
                self.end(f"ERROR the line is longer than {LINE_MAX} bytes")
            elif end:
                self._data = rest
                self._runLine(line.decode("utf-8", "replace"))
            else:
                if self._atEnd:
                    self.end()
                break
        reading = not (self._busy or self._full)
        if reading is not self._reading and not self.transport.disconnecting:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _runLine(self, line: str) -> None:
        words = line.split()
        if not words:
            return
        name = words[0].lower()
        self._busy = True
        self.setTimeout(None)
        if name == "auth":
            running = Deferred.fromCoroutine(self._logIn(line.strip()[4:].strip()))
        elif not self._loggedIn and name != "quit":
            running = fail(OperationError("expected auth PASSWORD first"))
        else:
            if name not in ("help", "show", "quit"):
                _log.info("console: {line!r}", line=line.strip())
            running = Deferred.fromCoroutine(self.factory.commands.run(words))
        running.addCallbacks(self._succeeded, self._failed)
        running.addErrback(lambda failure: _log.failure("a console failed", failure))
        running.addBoth(self._ended, name)
        if self._busy:
            running.addCallback(lambda _: self._runLines())

    async def _logIn(self, password: str) -> Answer:
        expected = self.factory.password
        if expected is None:
            raise OperationError("no password is needed here")
        if hmac.compare_digest(password.encode(), expected):
            self._loggedIn = True
            return Answer("welcome; `help` lists the commands", [])
        self._tries += 1
        _log.warn("console: wrong password from {client}", client=peerOf(self.transport))
        await deferLater(self.factory.reactor, PENALTY)
        raise OperationError("wrong password")

    def _succeeded(self, answer: Answer) -> None:
        self._write([*answer.lines, f"OK {answer.text}"])

    def _failed(self, failure: Failure) -> None:
        if failure.check(OperationError, ChannelError, CannotChange, ConfigError):
            lines = failure.getErrorMessage().split("\n")
            if len(lines) > 1:
                lines.append(f"{len(lines)} problems")
            self._write([*lines[:-1], f"ERROR {lines[-1]}"])
        else:
            _log.failure("a command failed", failure)
            self._write([f"ERROR internal error, {type(failure.value).__name__}; the log has the traceback"])

    def _ended(self, _: object, name: str) -> None:
        """
        The command C{name} has been carried out, or has failed.
        """
        self._busy = False
        if self in self.factory.consoles:
            self.setTimeout(IDLE)
            if name == "quit" or self._tries >= TRIES:
                self.end()

    def _write(self, lines: list[str]) -> None:
        if self in self.factory.consoles:
            self.transport.write("".join(f"{line}\n" for line in lines).encode())

    def end(self, *lines: str) -> None:
        """
        Write lines, and close the connection after them.
        """
        self._write(list(lines))
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def timeoutConnection(self) -> None:
        """
        Close the connection because nothing was typed, or the replies were not read, for L{IDLE} seconds.
        """
        if self._full:
            self.transport.abortConnection()
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
        Forget the console. A command that is being carried out goes on.
        """
        self.setTimeout(None)
        self.factory.consoles.discard(self)


class ConsoleFactory(Factory):
    """
    The factory of the consoles.

    @ivar commands: the commands.
    @ivar reactor: the reactor.
    @ivar password: the password that must be given first, or C{None}.
    @ivar consoles: the consoles that are connected.
    """

    noisy = False

    def __init__(self, target: Target, reactor: Any, password: bytes | None = None) -> None:
        self.commands = Commands(target)
        self.reactor = reactor
        self.password = password
        self.consoles: set[Console] = set()

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
