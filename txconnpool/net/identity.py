# -*- test-case-name: tests.net.test_identity -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The identity of servers with TLS.

Twisted checks during the handshake that the certificate of a server is for the expected host. But Twisted 26.10 accepts
a certificate if this check ends with an unexpected exception, as it does for one without a C{subjectAltName}
(C{_verifyCB} in C{twisted.internet._sslverify}). So the check is repeated here, after the handshake and before the
protocol of the connection exists. Whatever goes wrong in it ends the connection, before a byte was sent.

C{service_identity} is imported only where it is used: TLS is an extra of the package.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer


def connectVerified(endpoint: IStreamClientEndpoint, host: str, factory: IProtocolFactory) -> Deferred[IProtocol]:
    """
    Connect to a server with TLS, and check its identity.

    @param endpoint: an endpoint with TLS, which trusts certain authorities.
    @param host: the name or the IP address for which the certificate of the server must be.
    @param factory: its C{buildProtocol} is called when the identity is known.

    @return: fires with the protocol of C{factory}; fails also if the certificate is not for C{host}.
    """
    pending = _PendingConnection(host, factory)
    connecting: Deferred[Any] = endpoint.connect(pending)
    pending.follow(connecting)
    return pending.result


def checkIdentity(connection: Any, host: str) -> None:
    """
    Check for which host the certificate of a peer is.

    @param connection: an C{OpenSSL.SSL.Connection} after its handshake.
    @param host: the expected name or IP address.

    @raise Exception: the certificate is for another host, or for none, or there is none.
    """
    from service_identity.pyopenssl import verify_hostname, verify_ip_address

    if isIPAddress(host) or isIPv6Address(host):
        verify_ip_address(connection, host)
    else:
        verify_hostname(connection, host if host.isascii() else host.encode("idna").decode())


@implementer(IProtocolFactory)
class _PendingConnection:
    """
    A connection of which the identity of the server is not known yet: the factory that an endpoint gets in place of
    another one.

    @ivar result: fires with the protocol of the other factory, which exists from then on.
    """

    def __init__(self, host: str, factory: Any) -> None:
        self._host = host
        self._factory = factory
        self._connecting: Deferred[Any] | None = None
        self._handshake: _Handshake | None = None
        self.result: Deferred[IProtocol] = Deferred(self._cancel)

    def follow(self, connecting: Deferred[Any]) -> None:
        """
        Wait for the connection.
        """
        self._connecting = connecting
        connecting.addErrback(self.failed)

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

    def buildProtocol(self, addr: IAddress) -> Protocol:
        """
        @return: a protocol that waits for the end of the handshake.
        """
        self._handshake = _Handshake(self, addr)
        return self._handshake

    def shaken(self, transport: Any, addr: IAddress) -> None:
        """
        The handshake is complete: replace its protocol by that of the connection, if the server is the right one.

        @param transport: the C{TLSMemoryBIOProtocol}.
        """
        try:
            checkIdentity(transport.getHandle(), self._host)
        except Exception:
            transport.abortConnection()
            self.failed(Failure())
            return
        protocol = self._factory.buildProtocol(addr)
        if protocol is None:
            transport.abortConnection()
            self.failed(Failure(ConnectionLost("the connection is not wanted any more")))
            return
        transport.wrappedProtocol = protocol
        protocol.makeConnection(transport)
        if IHandshakeListener.providedBy(protocol):
            protocol.handshakeCompleted()
        self.result.callback(protocol)

    def failed(self, failure: Failure) -> None:
        """
        There is no connection. Only the first reason counts.
        """
        if not self.result.called:
            self.result.errback(failure)

    def _cancel(self, result: Deferred[IProtocol]) -> None:
        if self._handshake is not None:
            self._handshake.transport.abortConnection()
        elif self._connecting is not None:
            self._connecting.cancel()


@implementer(IHandshakeListener)
class _Handshake(Protocol):
    """
    The protocol of a connection during the handshake. It sends nothing.
    """

    transport: Any

    def __init__(self, pending: _PendingConnection, addr: IAddress) -> None:
        self._pending = pending
        self._addr = addr

    def handshakeCompleted(self) -> None:
        self._pending.shaken(self.transport, self._addr)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._pending.failed(reason)
