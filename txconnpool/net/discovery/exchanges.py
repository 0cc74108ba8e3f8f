# -*- test-case-name: tests.net.discovery.test_exchanges -*-
# Copyright txconnpool contributors. See LICENSE.
"""
One request and its reply, by UDP or TCP. Cancelling the Deferred of an exchange closes its socket at once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IReadDescriptor, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

#: Decodes a reply. Returns C{None} for bytes that are not the reply, or not the whole reply.
Decoder = Callable[[bytes], Any]

#: The longest datagram.
_DATAGRAM = 1 << 16


def overUDP(reactor: Any, server: tuple[str, int], request: bytes, decode: Decoder) -> Deferred[Any]:
    """
    Send a datagram, and wait for the reply.

    A C{socket.socket} and not C{reactor.listenUDP}, which writes two log lines for each port and closes it only
    in the next reactor turn. The kernel chooses a random port, accepts only what comes from the server, and reports a
    server that does not listen.

    @param server: the IP address and port.
    @param decode: called with each datagram received.

    @return: fires with the first result of C{decode} that is not C{None}; fails with its exception, or C{OSError}.
    """
    exchange = _Datagrams(reactor, decode)
    try:
        exchange.open(server, request)
    except OSError:
        exchange.close()
        return fail()
    return exchange.result


@implementer(IReadDescriptor)
class _Datagrams:
    """
    The exchange of L{overUDP}.

    @ivar result: fires with the reply.
    """

    def __init__(self, reactor: Any, decode: Decoder) -> None:
        self._reactor = reactor
        self._decode = decode
        self._socket: socket.socket | None = None
        self.result: Deferred[Any] = Deferred(lambda result: self.close())

    def open(self, server: tuple[str, int], request: bytes) -> None:
        self._socket = socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(server)
        self._socket.send(request)
        self._reactor.addReader(self)

    def close(self) -> None:
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "DNS"

    def doRead(self) -> None:
        assert self._socket is not None
        try:
            reply = self._decode(self._socket.recv(_DATAGRAM))
        except BlockingIOError:
            return
        except Exception:
            self.close()
            self.result.errback()
            return
        if reply is not None:
            self.close()
            self.result.callback(reply)

    def connectionLost(self, reason: Failure) -> None:
        # The reactor itself ends this exchange: it stops, or the socket is broken.
        self.close()
        if not self.result.called:
            self.result.errback(reason)


def overTCP(endpoint: IStreamClientEndpoint, request: bytes, decode: Decoder, limit: int) -> Deferred[Any]:
    """
    Connect, send a request, wait for the reply, and close the connection.

    @param decode: called with all bytes received so far, each time when there are more.
    @param limit: the most bytes of a reply.

    @return: fires with the first result of C{decode} that is not C{None}; fails with its exception, or that of the
        connection.
    """
    return Deferred.fromCoroutine(_overTCP(endpoint, _Stream(request, decode, limit)))


async def _overTCP(endpoint: IStreamClientEndpoint, stream: _Stream) -> Any:
    try:
        await endpoint.connect(_OneProtocol(stream))
    except ConnectingCancelledError:
        raise CancelledError() from None  # as at any other moment
    try:
        return await stream.result
    finally:
        stream.transport.abortConnection()


class _OneProtocol(Factory):
    """
    A factory of one protocol instance, which writes no log lines.
    """

    noisy = False

    def __init__(self, protocol: _Stream) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> _Stream:
        return self._protocol


class _Stream(Protocol):
    """
    The connection of L{overTCP}.

    @ivar result: fires with the reply.
    """

    transport: Any

    def __init__(self, request: bytes, decode: Decoder, limit: int) -> None:
        self._request = request
        self._decode = decode
        self._limit = limit
        self._received = b""
        self.result: Deferred[Any] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if self.result.called:
            return
        self._received += data
        try:
            reply = self._decode(self._received)
            if reply is None and len(self._received) > self._limit:
                raise ValueError(f"a reply of more than {self._limit} bytes")
        except Exception:
            self.result.errback()
            return
        if reply is not None:
            self.result.callback(reply)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.result.called:
            self.result.errback(reason)
