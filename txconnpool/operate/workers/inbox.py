# -*- test-case-name: tests.operate.workers.test_worker -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The clients of a worker, which the parent process sends as sockets.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable
from errno import ENOTCONN
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.net.listening import Listener, withoutEndpointArgument
from txconnpool.net.reactorproxy import ReactorProxy
from txconnpool.operate.service import ProxyService
from txconnpool.proxy.listener import ClientListener

_log = Logger("txconnpool.workers")

#: The most clients that are taken in one turn of the reactor.
BATCH = 64

#: Seconds in which closed clients are counted before the parent is notified.
COLLECT = 0.01


class SentPort:
    """
    The port of an address that the parent listens on: it accepts nothing.

    @ivar factory: makes the protocols of the clients that have connected there.
    """

    def __init__(self, factory: Any) -> None:
        self.factory = factory

    def stopListening(self) -> Deferred[None]:
        """
        Do nothing.

        @return: has fired.
        """
        return succeed(None)

    def stopReading(self) -> None:
        """
        Do nothing: the parent sends no clients before this process is ready.
        """

    def startReading(self) -> None:
        """
        Do nothing.
        """


@implementer(IReadDescriptor)
class Inbox:
    """
    Receives clients from the parent.

    @ivar service: the proxy that serves them, once it has started.
    """

    def __init__(
        self, reactor: Any, clients: socket.socket, received: int, closed: Callable[[dict[str, int]], object]
    ) -> None:
        """
        @param clients: the socket from which clients are received.
        @param received: a descriptor to which a byte is written for each of them, before anything is read from it:
            until then the parent sends the client to another worker if this one ends.
        @param closed: called soon after clients have been closed, with the number of closed clients of each pool.
        """
        clients.setblocking(False)
        self.service: ProxyService | None = None
        self._reactor = reactor
        self._clients = clients
        self._receipts = received
        self._notifyClosed = closed
        self._received: Counter[str] = Counter()
        self._notifying: IDelayedCall | None = None

    def fileno(self) -> int:
        """
        @return: the descriptor to watch.
        """
        return self._clients.fileno()

    def logPrefix(self) -> str:
        """
        @return: a name for Twisted's log.
        """
        return "clients"

    def listen(self, description: str, listener: ClientListener) -> Deferred[IListeningPort]:
        """
        Register a listener for the clients that have connected to an address. This is the L{ProxyService}'s way to
        listen.

        @return: has fired with a L{SentPort}, or failed.
        """
        if description.startswith(("systemd:", "unix:")):
            port: Deferred[Any] = succeed(SentPort(listener))  # the socket is the parent's
        else:
            # No port is opened. The endpoint only makes the factory that a port would have, for instance one for TLS.
            proxy = ReactorProxy(self._reactor, lambda factory, _: SentPort(factory))
            listener.endpoint = Listener(proxy, withoutEndpointArgument(description))
            port = listener.endpoint.listen(listener)
        return port

    def doRead(self) -> None:
        """
        Receive the clients that have been sent, up to L{BATCH} of them.
        """
        for _ in range(BATCH):
            if not self.receive():
                return

    def empty(self) -> None:
        """
        Receive all clients that have been sent.
        """
        while self.receive():
            pass

    def receive(self) -> bool:
        """
        Receive one client.

        @return: whether there was one.
        """
        try:
            label, descriptors, _, _ = socket.recv_fds(self._clients, 1 << 16, 1)
        except BlockingIOError:
            return False
        if not label:
            self._reactor.removeReader(self)
            return False
        # This does not block: the pipe has room for more clients than the parent can have sent.
        os.write(self._receipts, b"1")
        if not descriptors:
            _log.error("a client is lost: this process has no descriptor for it")
        accepted, (pool, description) = label[:1] == b"+", label[1:].decode().split("\0")
        self._received[pool] += accepted
        for descriptor in descriptors:
            with socket.socket(fileno=descriptor) as client:
                self._adopt(pool, description, client, accepted)
        self.countClosed()
        return True

    def _adopt(self, pool: str, description: str, client: socket.socket, accepted: bool) -> None:
        assert self.service is not None
        proxy = next((proxy for proxy in self.service.proxies if proxy.name == pool), None)
        listener = proxy.listeners.get(description) if proxy is not None else None
        if listener is None:
            return
        client.setblocking(False)
        port: Any = listener.port
        listener.sessions.counted = self.countClosed
        listener.sessions.full = not accepted
        try:
            client.getpeername()
            # Twisted works on a copy of the descriptor.
            self._reactor.adoptStreamConnection(client.fileno(), client.family, port.factory)
        except Exception as error:
            # Any exception: the reactor would stop reading from this inbox, and the next clients would be lost.
            if getattr(error, "errno", None) != ENOTCONN:  # the client has just closed the connection
                _log.failure("a client is lost")
        finally:
            listener.sessions.full = False

    def countClosed(self) -> None:
        """
        Count the clients that have no session, in a moment: they have been closed, or have not logged in yet.
        """
        if self._notifying is None:
            self._notifying = self._reactor.callLater(COLLECT, self._notify)

    def _notify(self) -> None:
        self._notifying = None
        assert self.service is not None
        connected = {proxy.name: len(proxy.sessions.sessions) for proxy in self.service.proxies}
        self._notifyClosed({pool: count - connected.get(pool, 0) for pool, count in self._received.items()})

    def connectionLost(self, reason: Failure) -> None:
        """
        Do nothing: the reactor has ended.
        """
