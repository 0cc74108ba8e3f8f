# -*- test-case-name: tests.operate.http.test_server -*-
# Copyright txconnpool contributors. See LICENSE.
"""
An HTTP server that answers one request on each connection.

Everybody who reaches the port may send anything, so each connection costs a bounded amount of memory, time and work: it
is read until the end of the first request's headers, and never after that; unsent bytes are bounded by writing only as
the peer reads; and there is a limit for its whole life. If there are too many connections, one is closed and not the
new one refused, so that slow peers cannot lock out a health check.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.net.transport import closeAfterFlush, peerOf
from txconnpool.operate.http.messages import HEAD_MAX, OtherHost, Refused, Request, Response, failure, readRequest
from txconnpool.operate.listening import OperatorConnection, OperatorFactory, Tally, oldestOfBusiest

_log = Logger("txconnpool.http")

#: Seconds that a connection may exist: from its acceptance, with TLS, until the peer has taken the response.
LIFETIME: Final = 30.0

#: The most connections: there are few people and few scrapers.
CONNECTIONS: Final = 50

#: The most bytes of a response that are given to the transport at once.
PIECE: Final = 1 << 16

#: The most characters of a foreign host in the log.
HOST_SHOWN: Final = 100


@implementer(IHalfCloseableProtocol, IPushProducer)
class HTTPConnection(OperatorConnection):
    """
    A connection, on which one request is answered.
    """

    def __init__(self, factory: HTTPFactory) -> None:
        super().__init__(factory)
        self.factory: HTTPFactory = factory
        self._received = bytearray()
        self._complete = False  # the request has been read
        self._response: Deferred[Response] | None = None
        self._body = b""
        self._written = 0
        self._paused = False

    def connectionMade(self) -> None:
        """
        Wait for a request.
        """
        super().connectionMade()
        self.setTimer(LIFETIME, self.abort)
        self.factory.bound()

    def dataReceived(self, data: bytes) -> None:
        """
        Take bytes until the end of the headers, and drop all that follow.
        """
        if self._complete or self.ended:
            return
        received = self._received
        since = max(0, len(received) - 3)
        received += data
        if not since:
            while received[:2] == b"\r\n":  # RFC 9112, 2.2: empty lines before a request are ignored
                del received[:2]
        end = received.find(b"\r\n\r\n", since)
        if 0 <= end <= HEAD_MAX:
            self._answer(bytes(received[:end]))
        elif len(received) > HEAD_MAX:
            self._refuse(failure(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"expected {HEAD_MAX} bytes at most"))

    def _answer(self, head: bytes) -> None:
        try:
            request = readRequest(head, self.factory.names)
        except Refused as error:
            if isinstance(error, OtherHost):
                self.factory.otherHosts.add(f"{error.host[:HOST_SHOWN]!r} from {peerOf(self.transport)}")
            self._refuse(error.response, head.startswith(b"HEAD "))
            return
        self._stopReading()
        self._response = self.factory.respond(request)
        self._response.addCallback(self._write, request.method == "HEAD").addErrback(self._failed)

    def _refuse(self, response: Response, onlyHead: bool = False) -> None:
        self._stopReading()
        self._write(response, onlyHead)

    def _stopReading(self) -> None:
        self._complete = True
        self._received.clear()
        self.transport.pauseProducing()

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("no response", failure)
            self.abort()

    def _write(self, response: Response, onlyHead: bool) -> None:
        if self.ended:
            return
        if not onlyHead:
            self._body = response.body
        self.transport.registerProducer(self, True)
        self.transport.write(response.head())
        self.resumeProducing()

    def resumeProducing(self) -> None:
        """
        Write until the transport is full. After the last byte, close the connection.
        """
        self._paused = False
        while not (self._paused or self.ended):
            if self._written >= len(self._body):
                # The timer stays: the peer may not read what is left.
                self.ended = True
                self.transport.unregisterProducer()
                closeAfterFlush(self.transport)
            else:
                piece = self._body[self._written : self._written + PIECE]
                self._written += PIECE
                self.transport.write(piece)

    def pauseProducing(self) -> None:
        """
        Write nothing more until the peer has read.
        """
        self._paused = True

    def stopProducing(self) -> None:
        """
        Do nothing: C{connectionLost} follows.
        """

    def readConnectionLost(self) -> None:
        """
        The peer has closed its side: it sends no request any more, but may still read the response.
        """
        if not self._complete:
            self.abort()

    def writeConnectionLost(self) -> None:
        """
        Do nothing: this side is never closed alone.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Forget the connection and its response.
        """
        super().connectionLost(reason)
        if self._response is not None:
            self._response.cancel()


class HTTPFactory(OperatorFactory):
    """
    The factory of the connections.

    @ivar respond: makes the response to a request; returns a Deferred that can be cancelled.
    @ivar names: the names of this host in lower case.
    @ivar otherHosts: logs requests for other hosts.
    """

    def __init__(
        self, respond: Callable[[Request], Deferred[Response]], reactor: Any, names: Collection[str] = ()
    ) -> None:
        super().__init__(reactor)
        self.respond = respond
        self.names = frozenset(name.lower() for name in names)
        self.otherHosts = Tally(reactor, _logOtherHosts)

    def logPrefix(self) -> str:
        """
        @return: the name of the listener, for Twisted's log.
        """
        return "statistics"

    def buildProtocol(self, addr: IAddress | None) -> HTTPConnection:  # type: ignore[override]  # Factory's is a TypeVar
        """
        @return: a connection.
        """
        return HTTPConnection(self)

    def bound(self) -> None:
        """
        Close a connection if there are more than L{CONNECTIONS}.
        """
        # Those that have written their response are counted too, because the peer may not take it.
        present = [each for each in self.connections if not each.aborted]
        if len(present) > CONNECTIONS:
            oldestOfBusiest(present).abort()


def _logOtherHosts(count: int, last: str) -> None:
    _log.warn(
        "refused {requests} for other hosts, the last one for {last}; stats-hosts has the names of this host",
        requests="1 request" if count == 1 else f"{count} requests",
        count=count,
        last=last,
    )
