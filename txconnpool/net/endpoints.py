# -*- test-case-name: tests.net.test_endpoints -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The endpoints of servers, from Twisted's endpoint strings.
"""

from __future__ import annotations

import re
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from txconnpool.net.identity import connectVerified
from txconnpool.net.named import byName, nameIn
from txconnpool.net.reactorproxy import ReactorProxy
from txconnpool.net.suggestions import suggestClient
from txconnpool.net.syntax import ARGUMENT, DIRECTORIES, FILES, checkClient, hostOf
from txconnpool.net.tls import authorities, explained, usesTLS


def nameOf(description: str) -> str:
    """
    @return: the name of an endpoint: its string without the arguments that are not part of its address, such as the
        paths of certificates.
    """
    return re.sub(ARGUMENT % f"(?:timeout|bindAddress|backlog|{FILES}|{DIRECTORIES})", "", description)


def clientEndpoint(reactor: Any, description: str) -> IStreamClientEndpoint:
    """
    Make the endpoint of a server. No file is read: an endpoint with TLS is a L{TLSClientEndpoint}.

    @raise ValueError: the string is wrong, and if it is clear what was meant, what to write; Twisted raises
        C{TypeError} and others too.
    """
    if usesTLS(description):
        return TLSClientEndpoint(reactor, description)
    try:
        checkClient(description)
    except ValueError as error:
        right = suggestClient(description)
        if right is None:
            raise
        raise ValueError(f"{error}; {right}") from None
    return _fromString(reactor, description)


#: What only the proxy, or only one class of pools, accepts in place of a client endpoint string.
_ELSEWHERE: Final = {
    **dict.fromkeys(
        ("dns", "srv", "elasticache"), "is a source of servers, which only the proxy has: give the pool the servers"
    ),
    **dict.fromkeys(("cluster", "sentinel"), "is for Redis: only RedisPool and the proxy have it"),
}


def checkAddress(description: str, port: int | None = None) -> None:
    """
    Check a client endpoint string that a program has given to a pool, for errors that say what to write instead. Other
    errors are left to L{clientEndpoint}.

    @param port: the port that servers of the protocol usually have.

    @raise ValueError: the string is wrong.
    """
    kind = description.partition(":")[0].lower()
    if kind in _ELSEWHERE and ":" in description:
        raise ValueError(f"{kind}: {_ELSEWHERE[kind]}")
    try:
        checkClient(description)
    except ValueError as error:
        right = suggestClient(description, port)
        if right is not None:
            raise ValueError(f"{error}; {right}") from None
    except TypeError:
        pass


def _fromString(reactor: Any, description: str) -> IStreamClientEndpoint:
    return byName(reactor, nameIn(description), lambda each: clientFromString(each, description))


def checkClientFiles(description: str) -> None:
    """
    Read the keys and certificates that a client endpoint string names, if it names any.

    @raise CannotUse: they cannot be read, or do not match.
    """
    if usesTLS(description):
        TLSClientEndpoint(ReactorProxy(), description).read()


@implementer(IStreamClientEndpoint)
class TLSClientEndpoint:
    """
    The endpoint of a server with TLS. Its keys and certificates are read by L{read}, or else when it first connects.
    """

    def __init__(self, reactor: Any, description: str) -> None:
        """
        @param reactor: the reactor of the connections.
        @param description: a client endpoint string for which L{usesTLS<txconnpool.net.tls.usesTLS>} is true.

        @raise ValueError: the string is wrong; Twisted raises C{TypeError} and others too.
        """
        checkClient(description)
        self._host = hostOf(description)
        self._reactor = reactor
        self._description = description
        self._endpoint: IStreamClientEndpoint | None = None

    def read(self) -> IStreamClientEndpoint:
        """
        Read the keys and certificates, and use them for connections from now on.

        @return: Twisted's endpoint with these keys and certificates.

        @raise CannotUse: they cannot be read, or do not match.
        """
        with explained(self._description):
            for name in ("trustRoots", "caCertsDir"):
                authorities(self._description, name)
            self._endpoint = _fromString(self._reactor, self._description)
            return self._endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect to the server. Its certificate must be for the host of the endpoint string.

        @return: fires with the protocol after the handshake; fails with L{CannotUse<txconnpool.net.tls.CannotUse>} too.
        """
        try:
            endpoint = self.read() if self._endpoint is None else self._endpoint
        except Exception:
            return fail()
        return connectVerified(endpoint, self._host, protocolFactory)
