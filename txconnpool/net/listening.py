# -*- test-case-name: tests.net.test_listening -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Listening on Twisted's server endpoint strings, with what operators need beyond them: clients that must have a
certificate, certificates that are read again while the port stays open, and UNIX sockets that a crash has left behind.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import struct
from collections.abc import Callable
from errno import EADDRINUSE
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.net.reactorproxy import OpenPort, ReactorProxy
from txconnpool.net.syntax import ARGUMENT, checkServer
from txconnpool.net.tls import argument, authorities, explained, usesTLS

T = TypeVar("T")

#: The length of the system's queue of clients that are not accepted yet, for endpoint strings without a backlog.
BACKLOG = 1024


def checkServerFiles(description: str) -> None:
    """
    Read the keys and certificates that a server endpoint string names, and look for its socket of systemd, if it names
    any.

    @raise CannotUse: they cannot be read, do not match, or do not exist.
    """
    Listener(ReactorProxy(), description).checkFiles()


def withoutEndpointArgument(description: str) -> str:
    """
    @return: the server endpoint string without the argument C{endpoint=} of L{Listener}.
    """
    return re.sub(ARGUMENT % "endpoint", "", description) if usesTLS(description) else description


def raiseIfFailed(deferred: Deferred[T]) -> Deferred[T]:
    """
    Raise the exception of a Deferred that has failed already, as that of C{listen} has if a socket cannot be opened.

    @return: the Deferred, if it has not failed.
    """
    failures: list[Failure] = []
    if deferred.called:
        deferred.addErrback(failures.append)
    for failure in failures:
        failure.raiseException()
    return deferred


def withBacklog(description: str) -> str:
    """
    Add a backlog of L{BACKLOG} to a server endpoint string that has none.

    Twisted's default is 50. When more clients connect at once, the kernel drops their first packet, and they try again
    after one second, then after three.

    @param description: a server endpoint string.
    """
    if re.match("(tcp6?|ssl|unix):", description) and not re.search(r":backlog=\d", description):
        description += f":backlog={BACKLOG}"
    return description


def describeListenError(error: BaseException) -> str | None:
    """
    @return: the address that cannot be listened on, and why, in one line; C{None} if C{error} is about something else.
    """
    if not isinstance(error, CannotListenError):
        return None
    where = error.port if error.interface is None else f"{error.interface or '*'}:{error.port}"
    reason = error.socketError
    place, words = os.fsdecode(where), getattr(reason, "strerror", None) or str(reason)
    process = _processAt(place) if getattr(reason, "errno", None) == EADDRINUSE else None
    return f"{place}: process {process} listens there" if process else f"{place}: {words}"


@implementer(IStreamServerEndpoint)
class Listener:
    """
    A server endpoint whose keys and certificates can be read again while it listens.

    Its C{ssl:} strings take two more arguments than Twisted's: C{caCertsDir=}, a directory of C{.pem} files with
    authorities, one of which must have signed the certificate of each client; and C{endpoint=}, another endpoint string
    to listen on instead of the port, such as a socket of systemd.
    """

    def __init__(self, reactor: Any, description: str) -> None:
        """
        @param reactor: the reactor of the port, or a L{ReactorProxy<txconnpool.net.reactorproxy.ReactorProxy>}.
        @param description: a server endpoint string.

        @raise ValueError: the string is wrong; Twisted raises C{TypeError} and others too.
        """
        checkServer(description)
        self._reactor = reactor
        self._description = description
        self._factory: Any = Factory()
        self._replaceable: _ReplaceableFactory | None = None
        self._inner = argument(description, "endpoint") if usesTLS(description) else ""

    def checkFiles(self) -> None:
        """
        Read the keys and certificates, and look for the socket of systemd, without listening.

        @raise CannotUse: they cannot be read, do not match, or do not exist.
        """
        if self.read() is None or self._inner:
            plain = self._inner or self._description
            with explained(plain):
                serverFromString(self._reactor, plain)

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Read the keys and certificates, and listen.

        @return: fires with the port; fails with L{CannotUse<txconnpool.net.tls.CannotUse>} too.
        """
        self._factory = protocolFactory
        return maybeDeferred(self._listen)

    def _listen(self) -> Deferred[IListeningPort]:
        if self._inner:
            self._replaceable = _ReplaceableFactory(self.read())
            return Listener(self._reactor, self._inner).listen(self._replaceable)
        self.checkFiles()
        listening: Deferred[IListeningPort] = self._endpoint(self._reactor, self._open).listen(self._factory)
        return listening

    def _open(self, factory: Any, openPort: OpenPort) -> Any:
        """
        Open the port. If the endpoint has wrapped our factory, for TLS, the port gets one that can be replaced.
        """
        if factory is not self._factory:
            factory = self._replaceable = _ReplaceableFactory(factory)
        return openPort(factory)

    def _endpoint(self, reactor: Any, intercept: Callable[[Any, OpenPort], Any]) -> IStreamServerEndpoint:
        plain = self._description
        if usesTLS(plain):
            plain = re.sub(ARGUMENT % "(?:caCertsDir|endpoint)", "", plain)
        clientAuthorities = authorities(self._description, "caCertsDir")
        endpoint: IStreamServerEndpoint = serverFromString(
            _Ports(reactor, self._reactor, intercept, clientAuthorities), plain
        )
        return endpoint

    def read(self) -> Any:
        """
        Read the keys and certificates again.

        @return: an argument for L{use}; C{None} if the endpoint string is not one for TLS.

        @raise CannotUse: they cannot be read, or do not match.
        """
        if not usesTLS(self._description):
            return None
        factories: list[Any] = []
        with explained(self._description):
            raiseIfFailed(self._endpoint(None, lambda factory, _: factories.append(factory)).listen(self._factory))
        return factories[0]

    def use(self, fresh: Any) -> None:
        """
        Use other keys and certificates for connections from now on. The port and all connections stay open.

        @param fresh: the result of L{read}.
        """
        if self._replaceable is not None:
            self._replaceable.factory = fresh


class _ReplaceableFactory(Factory):
    """
    The factory of a port, which passes each connection to another factory.

    @ivar factory: the other factory. It may be replaced while the port is open.
    """

    noisy = False

    def __init__(self, factory: Any) -> None:
        self.factory = factory
        self._first = factory

    def doStart(self) -> None:
        """
        The port opens.
        """
        self._first.doStart()

    def doStop(self) -> None:
        """
        The port closes. All factories that were used wrap the same protocol factory. The first one stops it, because
        the first one has started it.
        """
        self._first.doStop()

    def logPrefix(self) -> str:
        """
        @return: the name of the port in the log.
        """
        prefix: str = self.factory.logPrefix()
        return prefix

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]  # Factory's is narrower
        """
        @return: the protocol of a new connection.
        """
        protocol: IProtocol | None = self.factory.buildProtocol(addr)
        return protocol


class _Ports(ReactorProxy):
    """
    Opens the ports of a L{Listener}.
    """

    def __init__(
        self, reactor: Any, clock: Any, intercept: Callable[[Any, OpenPort], Any], clientAuthorities: list[Any]
    ) -> None:
        """
        @param clock: the reactor of the connections.
        @param clientAuthorities: the certificates of authorities, one of which must have signed the certificate of each
            client. If there are none, clients need no certificate.
        """
        super().__init__(reactor, intercept)
        self._clock = clock
        self._authorities = clientAuthorities

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Open a TCP port for TLS.
        """
        from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER

        from txconnpool.net.records import BoundedTLSFactory

        context = contextFactory.getContext()  # reads the files; fails if the key and the certificate do not match
        if self._authorities:
            store = context.get_cert_store()
            for each in self._authorities:
                store.add_cert(each)
            context.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT)
        return self.listenTCP(port, BoundedTLSFactory(contextFactory, factory, self._clock), *args, **kwargs)

    def listenUNIX(self, address: str, factory: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Open a UNIX socket, where a process that has crashed may have left one behind.

        Twisted's lock file beside the socket is not used: it is a link to the number of a process, and in a directory
        that others can write to, anybody could keep us from listening with a link to a process that exists.
        """
        kwargs["wantPID"] = False
        _removeStaleSocket(os.fsencode(address))
        return super().listenUNIX(address, factory, *args, **kwargs)


def _removeStaleSocket(path: bytes) -> None:
    """
    Remove the UNIX socket of a process that has crashed: nothing listens there.
    """
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            _connect(path).close()
    except ConnectionRefusedError:
        os.unlink(path)
    except OSError:
        pass  # a process accepts there, or listening will fail with the reason


def _processAt(path: str) -> int | None:
    """
    @return: the process that listens on a UNIX socket, or C{None} if the system does not say that.
    """
    try:
        with _connect(os.fsencode(path)) as client:
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except (OSError, AttributeError):  # not listening any more; not Linux
        return None
    process: int = _CREDENTIALS.unpack(credentials)[0]
    return process


def _connect(path: bytes) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    try:
        client.connect(path)
    except BaseException:
        client.close()
        raise
    return client


#: The process, user and group at the other end of a UNIX socket: C{struct ucred} of Linux.
_CREDENTIALS = struct.Struct("3i")
