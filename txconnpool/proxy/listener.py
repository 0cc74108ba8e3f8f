# -*- test-case-name: tests.proxy.test_listener -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The addresses on which a pool accepts clients.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory, Protocol

from txconnpool.net.listening import Listener
from txconnpool.proxy.sessions import SessionFactory

#: The length of the system's queue of clients that are not accepted yet, where an endpoint string does not say.
BACKLOG = 1024


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

    def __init__(self, sessions: SessionFactory) -> None:
        self.sessions = sessions

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """
        @return: the session of a new client, or a protocol that refuses the client.
        """
        return self.sessions.buildProtocol(addr)

    def logPrefix(self) -> str:
        """
        @return: the name of the pool, for Twisted's log.
        """
        return f"pool {self.sessions.pool.name}"


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
