# -*- test-case-name: tests.proxy.test_sessions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
All sessions of a pool: which clients are accepted, what statistics they get, and how they end.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.errors import PoolError
from txconnpool.metrics import ClientCounters
from txconnpool.pool.slow import SlowLog
from txconnpool.proxy.broadcast import askAll, broadcast
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.logins import LoginGate
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.session import Session

_log = Logger("txconnpool.proxy")

#: File descriptors that are left for connections to servers, and for whatever else the process opens.
SPARE = 32

#: Seconds that a refused client has to read why.
FAREWELL = 2.0


class NoStatistics(LookupError):
    """
    There are no such statistics. Its text is the error that the client gets; without one, the reply of the dialect to
    unknown statistics.
    """


def _fileLimit() -> float:
    try:
        import resource
    except ImportError:  # where there is no such limit
        return inf
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return inf if soft == resource.RLIM_INFINITY else soft


def scarce() -> bool:
    """
    @return: whether the process can open only a few more files. The system always gives the lowest free descriptor, so
        the next one tells.
    """
    try:
        number = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return True
    os.close(number)
    return number >= _fileLimit() - SPARE


class _Refused(Protocol):
    """
    Refuses a client: writes the reason and closes.
    """

    transport: Any

    def __init__(self, words: bytes, reactor: Any) -> None:
        self._words = words
        self._reactor = reactor

    def connectionMade(self) -> None:
        self.transport.write(self._words)
        self.transport.loseConnection()
        # A client of TLS may never take part in closing, and is counted nowhere.
        self._tooLate = self._reactor.callLater(FAREWELL, self.transport.abortConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._tooLate.active():
            self._tooLate.cancel()


class SessionFactory(Factory):
    """
    Makes the sessions of a pool.

    @ivar limits: the bounds in force.
    @ivar sessions: those that are connected.
    @ivar buffered: the bytes that are held for clients; shared by all pools of a process.
    @ivar accepted: how many sessions there have been.
    @ivar refused: how many clients were refused because there were too many.
    @ivar counters: the traffic with the clients.
    @ivar slow: logs requests that take long, or C{None}.
    @ivar full: whether the next client is refused whatever the bounds here, because the parent process counts clients
        of all workers.
    @ivar ended: called whenever a session has ended, if given.
    @ivar gate: the logins of the clients.
    """

    noisy = False

    def __init__(
        self,
        name: str,
        router: Any,
        dialect: Any,
        limits: SessionLimits,
        buffered: BufferedBytes,
        reactor: Any,
        report: Callable[[tuple[bytes, ...]], Any],
        numbers: Iterator[int] | None = None,
    ) -> None:
        """
        @param name: for logs.
        @param router: the L{IRouter<txconnpool.interfaces.IRouter>}. Its pools have
            L{Connection<txconnpool.pool.connection.Connection>}s.
        @param dialect: the L{IDialect<txconnpool.wire.IDialect>}.
        @param report: called with the words that a client asked for statistics with; returns names and values, now or
            later, or raises L{NoStatistics}.
        @param numbers: yields the numbers of the sessions; shared by all pools of a process.
        """
        self.name = name
        self.router = router
        self.dialect = dialect
        self.limits = limits
        self.reactor = reactor
        self.report = report
        self.sessions: set[Session] = set()
        self.buffered = buffered
        self.numbers = numbers or itertools.count(1)
        self.accepted = 0
        self.refused = 0
        self.counters = ClientCounters()
        self.slow: SlowLog | None = None
        self.full = False
        self.ended: Callable[[], object] | None = None
        self.gate = LoginGate()
        self._short = False  # of file descriptors
        self._empty: list[Deferred[None]] = []

    @property
    def alone(self) -> bool:
        """
        Whether there is one server, or none.
        """
        return sum(len(pool.servers) for pool in self.router.pools) <= 1

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """
        @return: a new session, or a protocol that refuses the client.
        """
        short = scarce()
        if short is not self._short:
            self._short = short
            _log.warn("{pool}: {what}", pool=self.name, what=(
                "clients are refused: the process may open no more files" if short else "clients are welcome again"
            ))  # fmt: skip
        if short or self.full or len(self.sessions) >= self.limits.maxClients:
            self.refused += 1
            return _Refused(self.dialect.tooManyClients, self.reactor)
        self.accepted += 1
        return Session(self)

    def newReader(self) -> Any:
        """
        @return: the reader of the requests of a new client, see L{IRequestReader<txconnpool.wire.IRequestReader>}.
        """
        gate, dialect = self.gate, self.dialect
        return dialect.requestReader() if gate.accepted is None else dialect.loginReader(gate.check)

    def limit(self, limits: SessionLimits) -> None:
        """
        Apply other bounds, to the sessions that there are too. Sessions beyond C{maxClients} stay.
        """
        self.limits = limits
        for session in list(self.sessions):
            session.limit(limits)

    # -- What clients ask of more than one connection

    def broadcast(self, command: Any, request: bytes) -> Deferred[bytes]:
        """
        Send one request to every server, for one reply.

        @return: fires with what the client sees of it.
        """
        return broadcast(self.router, self.dialect, command, request)

    def statistics(self, words: tuple[bytes, ...]) -> Deferred[bytes]:
        """
        Look statistics up. Not at once: a client that asks for them many times takes one turn of the reactor for each.

        @param words: which of our own statistics a client asked for; after C{upstream}, those of the servers.

        @return: fires with the reply.
        """
        lookUp = self._servers if words[:1] == (b"upstream",) else self._own
        reply: Deferred[Any] = deferLater(self.reactor, 0, lookUp, words)
        return reply.addErrback(self._noStatistics)

    def _own(self, words: tuple[bytes, ...]) -> Deferred[bytes]:
        items: Deferred[Any] = maybeDeferred(self.report, words)
        return items.addCallback(self.dialect.statistics)

    def _servers(self, words: tuple[bytes, ...]) -> Deferred[bytes]:
        asked = self.dialect.serverStatistics(words[1:])
        if asked is None:
            raise NoStatistics("these statistics of a server are not for its clients")
        return askAll(self.router, self.dialect, *asked).addCallback(self.dialect.joinStatistics)

    def _noStatistics(self, failure: Failure) -> bytes:
        text = str(failure.value)
        if not failure.check(NoStatistics, PoolError):
            _log.failure("no statistics", failure)
            text = "no statistics at the moment: the log tells why"
        reply: bytes = self.dialect.error("other", text) if text else self.dialect.unknownStatistics()
        return reply

    # -- The end

    def drain(self) -> Deferred[None]:
        """
        Let every session end: requests that were read are answered, nothing more is read.

        @return: fires when no session is left.
        """
        for session in list(self.sessions):
            session.end()
        if not self.sessions:
            return succeed(None)
        empty: Deferred[None] = Deferred()
        self._empty.append(empty)
        return empty

    def abort(self) -> None:
        """
        Close every session now.
        """
        for session in list(self.sessions):
            session.drop()

    def closed(self, session: Session) -> None:
        """
        A session has ended.
        """
        self.sessions.discard(session)
        if self.ended is not None:
            self.ended()
        if not self.sessions:
            waiting, self._empty = self._empty, []
            for empty in waiting:
                empty.callback(None)
