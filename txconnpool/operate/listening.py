# -*- test-case-name: tests.operate.test_listening -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Services for operators, which listen on one address, and their connections.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from txconnpool.net.listening import raiseIfFailed
from txconnpool.net.transport import networkOf
from txconnpool.operate.events import Events

#: Seconds between two lines of the log about one thing that anybody can cause at any rate.
LOG_PERIOD: Final = 60.0


class ListeningService(Service):
    """
    Listens while it runs, and collects recent events meanwhile.

    @ivar port: the listening port while it is open, or C{None}.
    @ivar events: the recent events of the log.
    """

    port: IListeningPort | None = None

    def __init__(self, events: Events) -> None:
        self.events = events

    def open(self) -> Deferred[IListeningPort]:
        """
        Open the listening port.

        @return: fires with the port.
        """
        raise NotImplementedError

    def privilegedStartService(self) -> None:
        """
        Listen.

        @raise CannotListenError: the address is taken, or is not one of this machine.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """
        Listen, unless L{privilegedStartService} has done that, and begin to collect events.
        """
        super().startService()
        self._listen()
        self.events.begin()

    def _listen(self) -> None:
        if self.port is None:
            raiseIfFailed(self.open()).addCallback(self._opened)

    def _opened(self, port: IListeningPort) -> None:
        self.port = port

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, and stop collecting events.

        @return: fires when the port is closed.
        """
        if self.running:
            self.events.end()
        super().stopService()
        port: Any
        port, self.port = self.port, None
        return maybeDeferred(port.stopListening) if port is not None else succeed(None)


class OperatorConnection(Protocol):
    """
    A connection to a L{ListeningService}. It has one timer, which ends with it.

    @ivar network: where it comes from, see L{networkOf}; an empty string for a UNIX socket.
    @ivar ended: whether nothing is read or written any more: it is being closed, or is lost.
    @ivar aborted: whether it is closed without waiting for the peer. It is lost in the next turn of the reactor.
    """

    transport: Any
    network = ""
    ended = False
    aborted = False

    def __init__(self, factory: OperatorFactory) -> None:
        self.operatorFactory = factory
        self._timer: IDelayedCall | None = None

    def setTimer(self, seconds: float | None, call: Callable[[], object] | None = None) -> None:
        """
        Call a function later, instead of the one that was to be called.

        @param seconds: C{None}: call none.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = self.operatorFactory.reactor.callLater(seconds, self._expired, call)

    def _expired(self, call: Callable[[], object]) -> None:
        self._timer = None
        call()

    def connectionMade(self) -> None:
        """
        Count the connection.
        """
        self.network = networkOf(getattr(self.transport.getPeer(), "host", None)) or ""
        self.operatorFactory.connections[self] = None

    def abort(self) -> None:
        """
        Drop unsent bytes, and close the connection without waiting for the peer.
        """
        self.ended = self.aborted = True
        self.transport.abortConnection()

    def close(self) -> None:
        """
        Close the connection within a bounded time. This one aborts it.
        """
        self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Forget the connection.
        """
        self.ended = True
        self.setTimer(None)
        self.operatorFactory.lost(self)


class OperatorFactory(Factory):
    """
    The factory of a L{ListeningService}.

    It never refuses a connection by returning no protocol: over TLS, Twisted would log a traceback and keep the socket.

    @ivar connections: the connections that are not lost yet, the oldest first.
    @ivar reactor: the reactor.
    """

    noisy = False

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.connections: dict[OperatorConnection, None] = {}
        self._empty: list[Deferred[None]] = []

    def lost(self, connection: OperatorConnection) -> None:
        """
        Forget a connection.
        """
        del self.connections[connection]
        if not self.connections:
            waiting, self._empty = self._empty, []
            for empty in waiting:
                empty.callback(None)

    def close(self) -> Deferred[None]:
        """
        Close all connections.

        @return: fires when there are none.
        """
        for connection in list(self.connections):
            connection.close()
        if not self.connections:
            return succeed(None)
        empty: Deferred[None] = Deferred()
        self._empty.append(empty)
        return empty


Connection = TypeVar("Connection", bound=OperatorConnection)


def oldestOfBusiest(connections: Iterable[Connection]) -> Connection:
    """
    Choose the connection that is closed when there are too many: the oldest one of the network that has the most. So
    somebody who opens many connections loses his own.

    @param connections: some connections, the oldest first.
    """
    candidates = list(connections)
    counts = Counter(each.network for each in candidates)
    most = max(counts.values())
    return next(each for each in candidates if counts[each.network] == most)


class Tally:
    """
    Counts something that anybody can cause at any rate, and logs it at most once in L{LOG_PERIOD} seconds: when it
    happens first, then each time with the number since the last line.
    """

    def __init__(self, reactor: Any, log: Callable[[int, str], object]) -> None:
        """
        @param log: called with how often it has happened, and a description of the last time.
        """
        self._reactor = reactor
        self._log = log
        self._count = 0
        self._last = ""
        self._timer: IDelayedCall | None = None

    def add(self, what: str) -> None:
        """
        Count it.

        @param what: the description of this time, such as an address.
        """
        self._count += 1
        self._last = what
        if self._timer is None:
            self._flush()

    def _flush(self) -> None:
        self._timer = None
        if self._count:
            count, self._count = self._count, 0
            self._timer = self._reactor.callLater(LOG_PERIOD, self._flush)
            self._log(count, self._last)

    def stop(self) -> None:
        """
        Log what is not logged yet, and leave no timer.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
