# -*- test-case-name: tests.operate.test_service -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The addresses on which a pool accepts clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory, Protocol

from txconnpool.net.listening import Listener, withBacklog
from txconnpool.net.tls import usesTLS
from txconnpool.proxy.sessions import SessionFactory


class ClientListener(Factory):
    """
    The server factory of one listening address: it makes a session for each client that connects there.

    @ivar sessions: the factory of the sessions. A reload may give the address to another pool by replacing it; clients
        that are connected keep their sessions.
    @ivar endpoint: the endpoint, if its certificates can be read again.
    @ivar port: the listening port, once it is open.
    """

    noisy = False
    endpoint: Listener | None = None
    port: IListeningPort

    def __init__(self, sessions: SessionFactory, description: str) -> None:
        """
        @param description: the endpoint string of the address.
        """
        self.sessions = sessions
        self._secure = usesTLS(description)

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """
        @return: the protocol of a new client, or C{None} to close its connection.
        """
        return self.sessions.buildProtocol(addr, self._secure)

    def hold(self) -> None:
        """
        Accept no clients until L{release}: they wait in the system's queue.
        """
        port: Any = self.port
        port.stopReading()

    def release(self) -> None:
        """
        Accept clients again.
        """
        port: Any = self.port
        port.startReading()

    def logPrefix(self) -> str:
        """
        @return: the name of the pool, for Twisted's log.
        """
        return f"pool {self.sessions.name}"


#: Opens a listening port for a L{ClientListener}, given the endpoint string of the address.
Listen = Callable[[str, ClientListener], Deferred[IListeningPort]]


def listenOn(reactor: Any) -> Listen:
    """
    @return: a function that opens listening ports on a reactor.
    """

    def listen(description: str, listener: ClientListener) -> Deferred[IListeningPort]:
        listener.endpoint = Listener(reactor, withBacklog(description))
        return listener.endpoint.listen(listener)

    return listen
