# -*- test-case-name: tests.proxy.test_sessions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
All sessions of a pool: which clients are accepted, the statistics that they get, and the end of sessions.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.errors import PoolError
from txconnpool.metrics import ClientCounters, tally
from txconnpool.net.loglimit import LogLimit
from txconnpool.net.transport import networkOf
from txconnpool.net.turn import atEndOfTurn, moreInTurn
from txconnpool.pool.slow import SlowLog
from txconnpool.proxy.admission import Admission, PendingClient
from txconnpool.proxy.broadcast import broadcast
from txconnpool.proxy.clustering import ClusterSession, ReplicatedSession
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.idle import IdleClients
from txconnpool.proxy.logins import LoginGate
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.merging import Merging
from txconnpool.proxy.passing import PassedLogins
from txconnpool.proxy.placing import PlacedSession
from txconnpool.proxy.relay import RelaySession
from txconnpool.proxy.separate import SeparateConnections
from txconnpool.proxy.session import Session
from txconnpool.proxy.sharding import ShardedSession
from txconnpool.proxy.statistics import StatisticsReplies
from txconnpool.proxy.strangers import Strangers
from txconnpool.proxy.topics import Subscribers
from txconnpool.proxy.uniting import Uniting
from txconnpool.routing.clusterrouters import ClusterRouter, ReplicatedRouter

_log = Logger("txconnpool.proxy")

#: The number of file descriptors that are reserved for connections to servers and for other uses of the process.
SPARE = 32

#: Seconds after which the log says again that replies lack keys of failed servers, or that clients are refused.
PERIOD = 60.0

#: Seconds until the connection of a refused client is aborted, if the client has not closed it.
FAREWELL = 2.0

#: The most refused clients whose connections may be open: they need file descriptors, and no other limit counts them.
FAREWELLS = 16


def _fileLimit() -> float:
    try:
        import resource
    except ImportError:  # a system without this limit
        return inf
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return inf if soft == resource.RLIM_INFINITY else soft


def scarce() -> bool:
    """
    @return: whether the process can open only a few more files. The system always uses the lowest free descriptor, so
        the number of the next one shows this.
    """
    try:
        number = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return True
    os.close(number)
    return number >= _fileLimit() - SPARE


class _Refused(Protocol):
    """
    Refuses a client: writes the reason, and closes the connection.
    """

    transport: Any

    def __init__(self, sessions: SessionFactory) -> None:
        self._sessions = sessions

    def connectionMade(self) -> None:
        sessions = self._sessions
        self.transport.write(sessions.dialect.tooManyClients)
        self.transport.loseConnection()
        # A TLS client may never take part in closing the connection.
        self._tooLate = sessions.reactor.callLater(FAREWELL, self.transport.abortConnection)
        leaving = sessions.leaving
        leaving[self] = None
        if len(leaving) > FAREWELLS:
            oldest = next(iter(leaving))
            del leaving[oldest]
            oldest.transport.abortConnection()

    def admitted(self, reply: bytes, data: bytes, reader: Any) -> None:
        """
        Drop the reply to a login: the client got the reason instead.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._sessions.leaving.pop(self, None)
        if self._tooLate.active():
            self._tooLate.cancel()


class SessionFactory(Factory):
    """
    Creates the sessions of a pool.

    @ivar limits: the limits in force.
    @ivar sessions: the sessions of connected clients, with the time at which each began; they are L{RelaySession}s if
        the protocol is not known.
    @ivar buffered: the bytes held for clients; shared by all pools of a process.
    @ivar accepted: the number of sessions so far.
    @ivar refused: the number of clients that were refused because there were too many.
    @ivar counters: the traffic with the clients.
    @ivar slow: logs slow requests, or C{None}.
    @ivar full: whether the next client is refused regardless of the limits here, because the parent process counts the
        clients of all workers.
    @ivar counted: if not C{None}, called whenever the number of sessions may have changed.
    @ivar gate: the logins of the clients.
    @ivar admission: the clients that have no session yet.
    @ivar passing: the logins of clients that the servers check.
    @ivar idle: closes clients that are idle for too long.
    @ivar strangers: the clients that speak another protocol.
    @ivar subscribers: the clients that want what servers send without being asked.
    @ivar hosts: the number of clients from each address, with and without a session, see
        L{networkOf<txconnpool.net.transport.networkOf>}.
    @ivar replies: the replies to requests for statistics. C{statistics} makes one.
    @ivar merging: the requests of clients that are sent together, if there are several servers by key.
    @ivar uniting: the requests of clients that a server gets as one.
    @ivar leaving: the refused clients whose connections are still open, the oldest first.
    """

    noisy = False

    #: The L{FlavourUses<txconnpool.routing.uses.FlavourUses>} if connections have a state.
    flavours: Any = None
    #: Makes connections besides those of the pool.
    separate: SeparateConnections
    #: Makes such a connection as good as new, see L{Handshake.reset<txconnpool.pool.handshake.Handshake.reset>}.
    reset: Any = None

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
        @param name: the name of the pool, for logs.
        @param router: the L{IRouter<txconnpool.interfaces.IRouter>}. Its pools have
            L{Connection<txconnpool.pool.connection.Connection>}s.
        @param dialect: the L{IDialect<txconnpool.wire.IDialect>}.
        @param report: called with the arguments of a client's request for statistics. Returns names and values, or a
            Deferred that fires with them, or raises L{NoStatistics}.
        @param numbers: yields the numbers of the sessions; shared by all pools of a process.
        """
        self.name = name
        self.router = router
        self.dialect = dialect
        self.limits = limits
        self.reactor = reactor
        self.report = report
        self.replies = StatisticsReplies(self)
        self.statistics = self.replies.reply
        self.sessions: dict[Session, float] = {}
        self.buffered = buffered
        self.numbers = numbers or itertools.count(1)
        self.accepted = 0
        self.refused = 0
        self.counters = ClientCounters()
        self.slow: SlowLog | None = None
        self.full = False
        self.counted: Callable[[], object] | None = None
        self.gate = LoginGate()
        self.admission = Admission(self)
        self.passing = PassedLogins(self)
        self.idle = IdleClients(self)
        self.strangers = Strangers(name, reactor.seconds)
        self.subscribers = Subscribers(self)
        self.hosts: dict[str, int] = {}
        self._partialLog = LogLimit(reactor.seconds, PERIOD)
        self._refusedLog = LogLimit(reactor.seconds, PERIOD)
        self._unservedLog = LogLimit(reactor.seconds, PERIOD)
        self.leaving: dict[_Refused, None] = {}
        self._short = False  # whether the log says that file descriptors are scarce
        self._shortSince = -inf  # when it has said that last
        self._empty: list[Deferred[None]] = []
        self.merging = Merging(partial(atEndOfTurn, reactor))
        self.uniting = Uniting(partial(moreInTurn, reactor), reactor.seconds)
        self._moving: set[Session] = set()  # the sessions that still use an earlier router
        self._rerouted: list[Deferred[None]] = []

    @property
    def alone(self) -> bool:
        """
        Whether there is at most one server.
        """
        return sum(len(pool.servers) for pool in self.router.pools) <= 1

    def buildProtocol(self, addr: IAddress | None, secure: bool = False) -> Protocol | None:
        """
        @param secure: whether the client has to complete a TLS handshake.

        @return: the protocol of a new client: a session, or a protocol that refuses the client, or one that waits for
            the handshake and the login. C{None} closes the connection at once: many may be accepted in one turn of the
            reactor, and there are no file descriptors for them.
        """
        if self._isShort():
            self.refused += 1
            self.admission.evict()
            return None
        host = networkOf(getattr(addr, "host", None))
        most = self.limits.maxPerAddress
        if self.full:
            return self._refuse(f"max-clients = {self.limits.maxClients}")
        if most > 0 and host is not None and self.hosts.get(host, 0) >= most:
            return self._refuse(f"max-clients-per-address = {most}, {host}")
        if secure or self.gate.accepted is not None:
            protocol: Protocol = PendingClient(self.admission, host, secure)
        else:
            protocol = self.admit(host)
        if host is not None and not isinstance(protocol, _Refused):
            self.hosts[host] = self.hosts.get(host, 0) + 1
        return protocol

    def _isShort(self) -> bool:
        """
        @return: whether the process can open only a few more files. This is logged, but not each time if it changes
            with every client.
        """
        short, now = scarce(), self.reactor.seconds()
        if short is not self._short and not (short and 0 <= now - self._shortSince < PERIOD):
            self._short = short
            if short:
                self._shortSince = now
            _log.warn("{pool}: {what}", pool=self.name, what=(
                "clients are refused: the process may open no more files" if short else "clients are accepted again"
            ))  # fmt: skip
        return short

    def admit(self, host: str | None = None) -> Protocol:
        """
        @param host: the address to pass to L{left} when the session ends, or C{None}.

        @return: a new session, or a protocol that refuses the client because there are too many.
        """
        if len(self.sessions) >= self.limits.maxClients:
            return self._refuse(f"max-clients = {self.limits.maxClients}")
        self.accepted += 1
        if self.dialect.opaque:
            return RelaySession(self, host)
        return self.kind(self, host)

    @property
    def kind(self) -> type[Session]:
        """
        The class of the sessions that use the router.
        """
        if not self.router.keyed:
            return Session
        if isinstance(self.router, ReplicatedRouter):
            return ReplicatedSession
        if isinstance(self.router, ClusterRouter):
            return ClusterSession
        return ShardedSession if self.flavours is None else PlacedSession

    def _refuse(self, limit: str) -> _Refused:
        """
        @param limit: the setting that allows no more clients, for the log.

        @return: a protocol that refuses a client.
        """
        self.refused += 1
        if count := self._refusedLog.add():
            _log.warn("{pool}: too many clients, {count} refused: {limit}", pool=self.name, count=count, limit=limit)
        return _Refused(self)

    def countReply(self, reply: bytes) -> None:
        """
        Count a reply of the proxy itself if it is an error.
        """
        if self.dialect.isError(reply):
            self.counters.refused += 1

    def unserved(self, error: PoolError) -> None:
        """
        Count a client that is closed because it got no connection, and its protocol has no error to say so. A line of
        the log says it at first, and again at most once in L{PERIOD}.
        """
        tally(self.counters.errors, error.kind)
        if count := self._unservedLog.add():
            _log.warn("{pool}: {count} clients closed, they got no connection: {why}", pool=self.name,
                      count=count, why=str(error))  # fmt: skip

    def left(self, host: str | None) -> None:
        """
        A client has left.
        """
        if host is not None:
            self.hosts[host] -= 1
            if not self.hosts[host]:
                del self.hosts[host]

    def limit(self, limits: SessionLimits) -> None:
        """
        Apply other limits, also to existing sessions. Sessions beyond C{maxClients} are not closed.
        """
        self.limits = limits
        self.admission.limit(limits.loginTimeout)
        for session in list(self.sessions):
            session.limit(limits)
        self.idle.restart()

    def reroute(self, router: Any, flavours: Any = None) -> Deferred[None]:
        """
        Use another router for clients from now on. A session goes on with it when what it has sent is answered; one
        that has a flavour ends then, so that its client connects again; so do clients without a session.

        @return: fires when no session uses the old router.
        """
        stateful = self.flavours is not None
        ending = self.sessions if stateful else ()
        self.router = router
        self.flavours = flavours
        if stateful:
            self.admission.close()  # clients may have to log in otherwise now
        if ending:
            _log.warn("{pool}: {count} clients are closed: they need other connections now", pool=self.name,
                      count=len(ending))  # fmt: skip
        rerouted: Deferred[None] = Deferred()
        self._rerouted.append(rerouted)
        self._moving.update(self.sessions)
        for session in list(self.sessions):
            session.reroute()
        self._checkMoving()
        return rerouted

    def moved(self, session: Session) -> None:
        """
        A session uses the present router, or has ended.
        """
        self._moving.discard(session)
        self._checkMoving()

    def _checkMoving(self) -> None:
        if self._rerouted and not self._moving:
            waiting, self._rerouted = self._rerouted, []
            for rerouted in waiting:
                rerouted.callback(None)

    # -- Requests to every server

    def broadcast(self, command: Any, request: bytes) -> Deferred[bytes]:
        """
        Send one request to every server, and make one reply of theirs.

        @return: fires with the bytes for the client.
        """
        return broadcast(self.router, self.dialect, command, request)

    def countPartial(self, command: Any) -> bool:
        """
        Count a request for several keys, some of whose servers have failed. A line of the log says so at first, and
        again at most once in L{PERIOD}.

        @return: whether the client gets an error. If not, the keys of these servers are missing in the reply.
        """
        self.counters.partial += 1
        isError = self.limits.partialError or not command.partial or not self.router.pools
        if self._partialLog.add():
            _log.warn(
                "{pool}: a server has failed, and {command} for several keys gets {what}",
                pool=self.name,
                command=command.name,
                what="an error" if isError else "misses for its keys",
            )
        return isError

    # -- The end

    def drain(self) -> Deferred[None]:
        """
        End every session: requests that were read are answered, and no more are read.

        @return: fires when no session is left.
        """
        for session in list(self.sessions):
            session.end()
        self.admission.close()
        if not (self.sessions or self.admission.clients):
            return succeed(None)
        empty: Deferred[None] = Deferred()
        self._empty.append(empty)
        return empty

    def abort(self) -> None:
        """
        Close every session at once, and every client that has none yet.
        """
        self.admission.close()
        for session in list(self.sessions):
            session.drop()

    def opened(self, session: Session) -> None:
        """
        Handle the begin of a session.
        """
        self.sessions[session] = self.reactor.seconds()
        self.idle.schedule()

    def closed(self, session: Session) -> None:
        """
        Handle the end of a session.
        """
        self.sessions.pop(session, None)
        self.subscribers.left(session)
        self.passing.left(session)
        self.moved(session)
        self.idle.forget(session)
        self.left(session.host)
        self.changed()

    def changed(self) -> None:
        """
        A session has begun or ended, or a client has left before it had one.
        """
        if self.counted is not None:
            self.counted()
        if not self.sessions:
            self.idle.restart()
        if not (self.sessions or self.admission.clients):
            waiting, self._empty = self._empty, []
            for empty in waiting:
                empty.callback(None)
