# -*- test-case-name: tests.pool.test_dialing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
One connection to a server, from its dial to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import error
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from txconnpool.errors import PoolTimeout
from txconnpool.interfaces import IPipelined

_log = Logger("txconnpool.pool")


class ConnectionWrapper:
    """
    Stands between a transport and a protocol instance of any class, to be notified of the end of the connection before
    the instance is.
    """

    def __init__(self, connection: Any, ended: Callable[[Failure], None]) -> None:
        """
        @param connection: the protocol instance.
        @param ended: called with the reason instead of C{connection.connectionLost}, which it has to call.
        """
        self.connection = connection
        self._ended = ended
        # The bound method itself, so that a read costs no additional call.
        self.dataReceived = connection.dataReceived
        optional = (IHalfCloseableProtocol, IHandshakeListener, IFileDescriptorReceiver)
        directlyProvides(self, IProtocol, *(each for each in optional if each.providedBy(connection)))

    def makeConnection(self, transport: ITransport) -> None:
        """
        Connect the protocol instance.
        """
        self.transport = transport
        self.connection.makeConnection(transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Report the end of the connection.
        """
        self._ended(reason)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


class AttemptListener(Protocol):
    """
    Is notified of the events of an L{Attempt}. Either C{connectionReady} or C{dialFailed} is called, once.
    C{connectionEnded} is called once after C{connectionReady}.
    """

    def connectionMade(self, record: Any, connection: Any) -> None:
        """
        The protocol instance exists. It is about to be connected.
        """

    def connectionReady(self, record: Any, connection: Any) -> None:
        """
        The connection is established and its handshake is complete.
        """

    def dialFailed(self, record: Any, reason: BaseException) -> None:
        """
        The dial or the handshake failed, or was cancelled.
        """

    def connectionEnded(self, record: Any, connection: Any, reason: Failure) -> None:
        """
        The connection has ended. The listener has to call C{connection.connectionLost}.
        """


@implementer(IProtocolFactory)
class Attempt:
    """
    One connection to a server: its dial, its handshake, and the notification of its end.

    @ivar connection: the protocol instance, as soon as it exists.
    @ivar isReady: whether the dial succeeded, including the handshake.
    """

    def __init__(
        self,
        record: Any,
        listener: AttemptListener,
        newFactory: Callable[[Any], Any],
        reactor: Any,
        timeout: float | None,
        handshake: Callable[[Any], Any] | None,
        announces: bool,
    ) -> None:
        """
        @param record: the record of the connection, the first argument of all notifications. The address of its server
            is an endpoint.
        @param listener: is notified of events.
        @param newFactory: called with C{record}; returns the factory of the protocol instance.
        @param timeout: seconds from the start of the dial until the connection must be ready; C{None}: no limit.
        @param handshake: called with the protocol instance when it is connected; may return a Deferred or an awaitable.
        @param announces: whether the protocol instance reports by L{announced} that it is connected.
        """
        self._record = record
        self._listener = listener
        self._newFactory = newFactory
        self._factory: Any = None
        self._reactor = reactor
        self._timeout = timeout
        self._handshake = handshake
        self._awaited = {_CONNECTED, _ANNOUNCED} if announces else {_CONNECTED}
        self._timer: IDelayedCall | None = None
        self._pending: Deferred[Any] | None = None
        self._over = False
        self._cause: Failure | None = None
        self.connection: Any = None
        self.isReady = False

    # -- The dial

    def start(self) -> None:
        """
        Connect in the next reactor turn. Not now: an endpoint may have a result at once, while the caller that needs
        the connection is still waiting for this method to return.
        """
        self._timer = self._reactor.callLater(0, self._connect)

    def _connect(self) -> None:
        self._timer = None
        if self._timeout is not None:
            self._timer = self._reactor.callLater(self._timeout, self._late)
        self._wait(maybeDeferred(self._dial), lambda _: self._passed(_CONNECTED))

    def _dial(self) -> Deferred[Any]:
        self._factory = self._newFactory(self._record)
        connected: Deferred[Any] = self._record.server.address.connect(self)
        return connected

    def _wait(self, pending: Deferred[Any], then: Callable[[Any], None]) -> None:
        self._pending = pending
        pending.addCallbacks(then, self._failed)
        pending.addErrback(lambda failure: _log.failure("unexpected error at the end of a dial", failure))

    def doStart(self) -> None:
        """
        The endpoint begins to use this factory.
        """
        self._factory.doStart()

    def doStop(self) -> None:
        """
        The endpoint does not use this factory any more.
        """
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress) -> ConnectionWrapper | None:  # type: ignore[override]  # it is an IProtocol
        """
        @return: the wrapped protocol instance, or C{None} if the dial was cancelled.
        """
        connection = None if self._over else self._factory.buildProtocol(addr)
        if connection is None:
            return None
        self.connection = connection
        self._listener.connectionMade(self._record, connection)
        return ConnectionWrapper(connection, self._lost)

    def announced(self) -> None:
        """
        The protocol instance reports that it is connected.
        """
        self._passed(_ANNOUNCED)

    def _passed(self, step: str) -> None:
        if step in self._awaited:
            self._awaited.discard(step)
            if not self._awaited and not self._over:
                if self._handshake is None:
                    self._done(None)
                else:
                    self._wait(maybeDeferred(self._handshake, self.connection), self._done)

    def _done(self, result: Any) -> None:
        if not self._over:  # a handshake may succeed although it was cancelled
            self._over = self.isReady = True
            self._stopTimer()
            self._listener.connectionReady(self._record, self.connection)

    def _failed(self, failure: Failure) -> None:
        self.fail((self._cause or failure).value or error.ConnectionLost())

    def _late(self) -> None:
        self._timer = None
        missing = next((step for step in (_CONNECTED, _ANNOUNCED) if step in self._awaited), _HANDSHAKE)
        self.fail(PoolTimeout(f"connect timed out: {missing} within {self._timeout:g} s", "connect"))

    def fail(self, reason: BaseException) -> None:
        """
        Cancel the dial and its handshake. Nothing happens if the connection is ready, or the dial has failed.
        """
        if self._over:
            return
        self._over = True
        self._stopTimer()
        if self._pending is not None:
            self._pending.cancel()
        if getattr(self.connection, "transport", None) is not None:
            self.abort()
        self._listener.dialFailed(self._record, reason)

    def _stopTimer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- The end

    def _lost(self, reason: Failure) -> None:
        if self.isReady:
            self._listener.connectionEnded(self._record, self.connection, reason)
        else:
            if not reason.check(error.ConnectionAborted):
                self._cause = reason  # more precise than the error that the handshake makes of it
            try:
                self.connection.connectionLost(reason)
            finally:
                self._failed(reason)

    def close(self) -> None:
        """
        Close the connection when all pending writes are sent.
        """
        connection = self.connection
        (connection if IPipelined.providedBy(connection) else connection.transport).loseConnection()

    def abort(self) -> None:
        """
        Close the connection at once.
        """
        self.connection.transport.abortConnection()


# The step that was missing when a dial timed out, as the error text has it.
_CONNECTED = "no connection"
_ANNOUNCED = "the client called neither clientFree nor its factory's deferred"
_HANDSHAKE = "connected, but no answer to the handshake"
