# -*- test-case-name: tests.pool.test_dialing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
From a server's address to a client that is ready, or a failure that says why not.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from txconnpool.errors import LoginFailed, PoolTimeout, WireError
from txconnpool.interfaces import IPipelined
from txconnpool.net.endpoints import clientEndpoint, nameOf
from txconnpool.net.tls import tlsProblem

_log = Logger("txconnpool.pool")


def endpointOf(address: Any, reactor: Any) -> tuple[str, IStreamClientEndpoint]:
    """
    What to connect to, and its name for people.

    @param address: an L{IPv4Address}, L{IPv6Address}, L{UNIXAddress}, C{(host, port)}, an endpoint, or its description.

    @raise ValueError: it is none of these.
    """
    if isinstance(address, str):
        try:
            return nameOf(address), clientEndpoint(reactor, address)
        except TypeError as reason:
            raise ValueError(f"{address}: {reason}") from reason
    if IStreamClientEndpoint.providedBy(address):
        return _describeEndpoint(address), address
    if isinstance(address, IPv4Address):
        return f"tcp:{address.host}:{address.port}", TCP4ClientEndpoint(reactor, address.host, address.port)
    if isinstance(address, IPv6Address):
        return f"tcp6:[{address.host}]:{address.port}", TCP6ClientEndpoint(reactor, address.host, address.port)
    if isinstance(address, UNIXAddress) and address.name is not None:
        path = os.fsdecode(address.name)
        return f"unix:{path}", UNIXClientEndpoint(reactor, path)
    if isinstance(address, tuple) and len(address) == 2 and isinstance(address[1], int):
        host, port = address
        return f"tcp:{host}:{port}", HostnameEndpoint(reactor, host, port)
    raise ValueError(
        f"not a server: {address!r}; expected an IPv4Address, IPv6Address, UNIXAddress, (host, port), an endpoint or "
        "an endpoint string"
    )


def _describeEndpoint(endpoint: Any) -> str:
    """
    A name for an endpoint of any class: there is nothing public to read but C{repr}.
    """
    text = repr(endpoint)
    return type(endpoint).__name__ if " object at 0x" in text else text


def describe(reason: BaseException | None) -> str:
    """
    Say in a few words why there is no connection.
    """
    if reason is None:
        return "connection lost"
    if isinstance(reason, error.ConnectError) and reason.osError is not None:
        number = reason.osError
        return (os.strerror(number) if isinstance(number, int) else str(number)).lower()
    if isinstance(reason, error.ConnectionRefusedError):
        return "connection refused"
    if isinstance(reason, error.ConnectionDone):
        return "connection closed by the server"
    if isinstance(reason, error.ConnectionLost):
        return "connection lost"
    return tlsProblem(reason) or str(reason) or type(reason).__name__


def kindOf(reason: BaseException | None) -> str:
    """
    Say the same in a word or two of a small number of them, for statistics.
    """
    if isinstance(reason, error.ConnectError) and isinstance(reason.osError, int):
        return os.strerror(reason.osError).lower()
    for kinds, word in _KINDS:
        if isinstance(reason, kinds):
            return word
    return "other" if reason is None or tlsProblem(reason) is None else "tls"


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((PoolTimeout, error.TimeoutError), "timeout"),
    (error.ConnectionRefusedError, "connection refused"),
    (error.DNSLookupError, "no such host"),
    (error.ConnectionDone, "closed by the server"),
    (error.ConnectionAborted, "aborted"),
    ((error.ConnectionLost, type(None)), "connection lost"),
    (LoginFailed, "login failed"),
    (WireError, "protocol error"),
)


class Link:
    """
    Stands between a transport and a client of any class, to learn of the connection's end before the client does.
    """

    def __init__(self, client: Any, ended: Callable[[Failure], None]) -> None:
        self.client = client
        self._ended = ended
        # The bound method itself: no call more for each read than without us.
        self.dataReceived = client.dataReceived
        also = (IHalfCloseableProtocol, IHandshakeListener, IFileDescriptorReceiver)
        directlyProvides(self, IProtocol, *(each for each in also if each.providedBy(client)))

    def makeConnection(self, transport: ITransport) -> None:
        """
        Pass it on.
        """
        self.transport = transport
        self.client.makeConnection(transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Tell the pool, which tells the client.
        """
        self._ended(reason)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)


class Line(Protocol):
    """
    Whom an L{Attempt} tells what became of it. C{clientReady} or C{dialFailed} is called once, and C{clientEnded} once
    after C{clientReady}.
    """

    def clientMade(self, record: Any, client: Any) -> None:
        """
        There is a client; its connection is about to be made.
        """

    def clientReady(self, record: Any, client: Any) -> None:
        """
        The client is connected and its handshake done.
        """

    def dialFailed(self, record: Any, reason: BaseException) -> None:
        """
        There will be no client.
        """

    def clientEnded(self, record: Any, client: Any, reason: Failure) -> None:
        """
        The connection is gone. C{client.connectionLost} is still to be called.
        """


@implementer(IProtocolFactory)
class Attempt:
    """
    One connection to a server: its dial, its handshake, and the news of its end.

    @ivar client: the protocol instance, as soon as there is one.
    @ivar isReady: whether it was ready.
    """

    def __init__(
        self,
        record: Any,
        line: Line,
        newFactory: Callable[[Any], Any],
        reactor: Any,
        timeout: float | None,
        handshake: Callable[[Any], Any] | None,
        announces: bool,
    ) -> None:
        """
        @param record: given back with each piece of news; its server's address is an endpoint.
        @param line: whom to tell.
        @param newFactory: called with C{record}, gives the factory that makes the client.
        @param timeout: seconds until the client must be ready; C{None}: no limit.
        @param handshake: called with the client when it is connected; may return a Deferred or an awaitable.
        @param announces: whether the client says itself, by L{announced}, that it is connected.
        """
        self._record = record
        self._line = line
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
        self.client: Any = None
        self.isReady = False

    def start(self) -> None:
        """
        Connect soon. Not now: an endpoint may have its answer at once, and whoever asked for a connection is still
        asking.
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
        pending.addErrback(lambda failure: _log.failure("a dial could not be ended", failure))

    def doStart(self) -> None:
        """
        The endpoint begins to use this factory.
        """
        self._factory.doStart()

    def doStop(self) -> None:
        """
        The endpoint has no more use for this factory.
        """
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress) -> Link | None:  # type: ignore[override]  # Link provides what is asked
        """
        @return: the client, so wrapped that its end is noticed; C{None} if it is not wanted any more.
        """
        client = None if self._over else self._factory.buildProtocol(addr)
        if client is None:
            return None
        self.client = client
        self._line.clientMade(self._record, client)
        return Link(client, self._lost)

    def announced(self) -> None:
        """
        The client says that it is connected.
        """
        self._passed(_ANNOUNCED)

    def _passed(self, what: str) -> None:
        if what in self._awaited:
            self._awaited.discard(what)
            if not self._awaited and not self._over:
                if self._handshake is None:
                    self._done(None)
                else:
                    self._wait(maybeDeferred(self._handshake, self.client), self._done)

    def _done(self, result: Any) -> None:
        if not self._over:  # a handshake may end well although it was cancelled
            self._over = self.isReady = True
            self._stopTimer()
            self._line.clientReady(self._record, self.client)

    def _failed(self, failure: Failure) -> None:
        self.fail((self._cause or failure).value or error.ConnectionLost())

    def _late(self) -> None:
        self._timer = None
        missing = next((what for what in (_CONNECTED, _ANNOUNCED) if what in self._awaited), _HANDSHAKE)
        self.fail(PoolTimeout(f"connect timed out: {missing} within {self._timeout:g} s", "connect"))

    def fail(self, reason: BaseException) -> None:
        """
        Give up, unless the client is ready already.
        """
        if self._over:
            return
        self._over = True
        self._stopTimer()
        if self._pending is not None:
            self._pending.cancel()
        if getattr(self.client, "transport", None) is not None:
            self.abort()
        self._line.dialFailed(self._record, reason)

    def _stopTimer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _lost(self, reason: Failure) -> None:
        if self.isReady:
            self._line.clientEnded(self._record, self.client, reason)
        else:
            if not reason.check(error.ConnectionAborted):
                self._cause = reason  # which says more than what a handshake makes of it
            try:
                self.client.connectionLost(reason)
            finally:
                self._failed(reason)

    def close(self) -> None:
        """
        Close the connection when what was written is sent.
        """
        client = self.client
        (client if IPipelined.providedBy(client) else client.transport).loseConnection()

    def abort(self) -> None:
        """
        Close the connection at once.
        """
        self.client.transport.abortConnection()


# What a client that is not ready in time was waited for.
_CONNECTED = "no connection"
_ANNOUNCED = "the client called neither clientFree nor its factory's deferred"
_HANDSHAKE = "the client was not configured"
