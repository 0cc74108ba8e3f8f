# -*- test-case-name: tests.net.test_reactorproxy -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A wrapper around a reactor that intercepts the opening of listening ports by server endpoints.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorPluggableNameResolver
from zope.interface import directlyProvides

from txconnpool.net.unixports import AdoptedPort, BoundPort, isSystemReactor

#: Opens a listening port for a protocol factory.
OpenPort = Callable[[Any], Any]


def _open(factory: Any, openPort: OpenPort) -> Any:
    return openPort(factory)


class ReactorProxy:
    """
    Passed to server endpoints in place of a reactor, it intercepts the calls that open listening ports. Every kind of
    server endpoint ends in one of these calls.

    Without a reactor, it can be used to create endpoints of any kind, in order to check that this does not fail.
    """

    nameResolver = None

    def __init__(self, reactor: Any = None, intercept: Callable[[Any, OpenPort], Any] = _open) -> None:
        """
        @param reactor: the reactor; C{None} if no method is called but those that C{intercept} replaces.
        @param intercept: called for each port with its protocol factory and a function that opens the port for a given
            factory. Returns the port.
        """
        self._reactor = reactor
        self._intercept = intercept
        # Client endpoints for tls: warn about a reactor without a name resolver when they are created.
        directlyProvides(self, IReactorPluggableNameResolver)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Open a TCP port. For the parameters, see C{IReactorTCP}.
        """
        return self._intercept(factory, lambda factory: self._reactor.listenTCP(port, factory, *args, **kwargs))

    def listenUNIX(self, address: str, factory: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Open a UNIX socket. For the parameters, see C{IReactorUNIX}.
        """

        def openPort(factory: Any) -> Any:
            if not isSystemReactor(self._reactor):
                return self._reactor.listenUNIX(address, factory, *args, **kwargs)
            port = BoundPort(self._reactor, address, factory, *args, **kwargs)
            port.startListening()
            return port

        return self._intercept(factory, openPort)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """
        Use a socket that another process has opened. For the parameters, see C{IReactorSocket}.
        """

        def openPort(factory: Any) -> Any:
            if addressFamily != socket.AF_UNIX or not isSystemReactor(self._reactor):
                return self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory)
            port = AdoptedPort(self._reactor, fileDescriptor, factory)
            port.startListening()
            return port

        return self._intercept(factory, openPort)
