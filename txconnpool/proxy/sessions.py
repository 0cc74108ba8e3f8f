# -*- test-case-name: tests.proxy.test_sessions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
All clients of a pool: who may come, what is asked of every server for one of them, and how they end.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.errors import PoolError
from txconnpool.metrics import ClientCounters
from txconnpool.pool.slow import SlowLog
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.session import Session, SessionLimits

_log = Logger("txconnpool.proxy")

#: Files that clients leave to connections to servers, and to whatever else the process may open.
SPARE = 32

#: Seconds that a client has to take the news that there are too many.
FAREWELL = 2.0


class NoStatistics(LookupError):
    """
    There are no such statistics. Its text is what the client is told; without one, what a server would say.
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
    Whether the process can open only a few more files. The system gives the lowest free number, so the next one tells.
    """
    try:
        number = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return True
    os.close(number)
    return number >= _fileLimit() - SPARE


class _Refused(Protocol):
    """
    One client too many.
    """

    transport: Any

    def __init__(self, words: bytes, reactor: Any) -> None:
        self._words = words
        self._reactor = reactor

    def connectionMade(self) -> None:
        """
        Say so, and close. TLS needs the client for that, who is not waited for very long: nobody counts it.
        """
        self.transport.write(self._words)
        self.transport.loseConnection()
        self._tooLate = self._reactor.callLater(FAREWELL, self.transport.abortConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        It is gone.
        """
        if self._tooLate.active():
            self._tooLate.cancel()


class SessionFactory(Factory):
    """
    Makes the sessions of a pool.

    @ivar limits: the bounds in force.
    @ivar sessions: those that are connected.
    @ivar unread: what they have not read; shared by all pools of a process.
    @ivar accepted: how many there have been.
    @ivar refused: how many came when no more might.
    @ivar counters: what came from them and went to them.
    @ivar slow: who is told what takes long, or C{None}.
    @ivar full: whether the next one is refused whatever the bounds here, because somebody counts elsewhere too.
    @ivar ended: called whenever a session has ended, if given.
    @ivar gate: what reads the requests of a client until it has logged in, if it must.
    """

    noisy = False

    def __init__(
        self,
        pool: Any,
        dialect: Any,
        limits: SessionLimits,
        unread: BufferedBytes,
        reactor: Any,
        report: Callable[[tuple[bytes, ...]], Any],
        numbers: Iterator[int] | None = None,
    ) -> None:
        """
        @param pool: the L{txconnpool.pool.library.Pool} of L{Connection}s.
        @param dialect: the L{txconnpool.interfaces.IDialect}.
        @param report: gives the numbers that a client may ask for, by the words it asked with, now or later: names and
            values; C{None} if there are none of that name.
        @param numbers: gives each session its number; shared by all pools of a process.
        """
        self.pool = pool
        self.dialect = dialect
        self.limits = limits
        self.reactor = reactor
        self.report = report
        self.sessions: set[Session] = set()
        self.unread = unread
        self.numbers = numbers or itertools.count(1)
        self.accepted = 0
        self.refused = 0
        self.counters = ClientCounters()
        self.slow: SlowLog | None = None
        self.full = False
        self.ended: Callable[[], object] | None = None
        self.gate: Any = dialect.gate()
        self._short = False  # of files
        self._empty: list[Deferred[None]] = []

    @property
    def alone(self) -> bool:
        """
        Whether the pool has one server, if any.
        """
        return len(self.pool.servers) <= 1

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """
        @return: a new session, or who says that there are too many.
        """
        short = scarce()
        if short is not self._short:
            self._short = short
            _log.warn("{pool}: {what}", pool=self.pool.name, what=(
                "clients are refused: the process may open no more files" if short else "clients are welcome again"
            ))  # fmt: skip
        if short or self.full or len(self.sessions) >= self.limits.maxClients:
            self.refused += 1
            return _Refused(self.dialect.tooManyClients, self.reactor)
        self.accepted += 1
        return Session(self)

    def limit(self, limits: SessionLimits) -> None:
        """
        Put other bounds in force, for the sessions that there are too. Those beyond C{maxClients} stay.
        """
        self.limits = limits
        for session in list(self.sessions):
            session.limit(limits)

    def everywhere(self, command: Any, data: bytes, quiet: bool) -> bytes | Deferred[bytes]:
        """
        Send one request to every server, for one reply.

        @param command: the command of the replies.
        @param quiet: whether the client wants to see none.

        @return: the reply, now or later.
        """

        def merge(replies: list[bytes]) -> bytes:
            reply: bytes = b"" if quiet else self.dialect.merge(replies)
            return reply

        try:
            return self._askAll(data, command).addCallback(merge)
        except PoolError as error:
            return merge([self.dialect.error(str(error))])

    def _askAll(self, data: bytes, command: Any) -> Deferred[list[bytes]]:
        """
        Ask every server the same.

        @return: fires with their replies, with an error instead of one that did not come.

        @raise PoolError: a server has no connection.
        """

        def replies(results: list[tuple[bool, Any]]) -> list[bytes]:
            return [result if done else self.dialect.error(str(result.value)) for done, result in results]

        asked = [record.connection.ask(data, command) for record in self.pool.each()]
        return DeferredList(asked, consumeErrors=True).addCallback(replies)

    def statistics(self, words: tuple[bytes, ...]) -> Deferred[bytes]:
        """
        Look numbers up. Not at once: a client that asks for them many times takes one turn of the reactor for each.

        @param words: which of our own numbers a client asked for; after C{upstream}, those of the servers.

        @return: fires with the reply.
        """
        look = self._theirs if words[:1] == (b"upstream",) else self._ours
        told: Deferred[Any] = deferLater(self.reactor, 0, look, words)
        return told.addErrback(self._noStatistics)

    def _ours(self, words: tuple[bytes, ...]) -> Any:
        looked: Deferred[Any] = maybeDeferred(self.report, words)
        return looked.addCallback(self.dialect.statistics)

    def _theirs(self, words: tuple[bytes, ...]) -> Any:
        asked = self.dialect.statisticsOfServer(words[1:])
        if asked is None:
            raise NoStatistics("these statistics of a server are not for its clients")
        return self._askAll(*asked).addCallback(self.dialect.together)

    def _noStatistics(self, failure: Failure) -> bytes:
        text = str(failure.value)
        if not failure.check(NoStatistics, PoolError):
            _log.failure("no statistics", failure)
            text = "no statistics at the moment: the log tells why"
        reply: bytes = self.dialect.error(text) if text else self.dialect.noStatistics
        return reply

    # -- The end

    def drain(self) -> Deferred[None]:
        """
        Let every session end: what was read is answered, nothing more is read.

        @return: fires when none is left.
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
