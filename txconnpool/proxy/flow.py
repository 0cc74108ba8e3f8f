# -*- test-case-name: tests.proxy.test_flow -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The connection of one client and its back-pressure: what is written to it, what it has not read, and when its requests
are not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.net.transport import adopt, closeAfterFlush, tune


@dataclass(frozen=True)
class SessionLimits:
    """
    The bounds of the sessions of a pool.

    @ivar maxClients: most sessions.
    @ivar maxInFlight: most requests in flight of one session.
    @ivar backlog: bytes of requests kept, above which a session that may not send now (it waits, or has as much in
        flight as it may) is not read from. One read may bring more.
    @ivar unreadSoft: bytes of replies that a client has not read, above which its requests are not read either.
    @ivar unreadHard: bytes of replies that a client has not read, above which it is closed.
    """

    maxClients: int = 10000
    maxInFlight: int = 256
    backlog: int = 1 << 16
    unreadSoft: int = 1 << 18
    unreadHard: int = 1 << 26


@implementer(IPushProducer, IHalfCloseableProtocol)
class ClientConnection(Protocol):
    """
    The connection of a downstream client, without its requests.

    @ivar gone: whether the client is gone or given up.
    @ivar unread: bytes of replies that the client has not read: those written since the transport was full, and those
        that are held.
    @ivar held: bytes of replies that wait for an earlier reply.
    @ivar kept: bytes of requests that were read and not dealt with, as far as they count for
        L{BufferedBytes<txconnpool.proxy.memory.BufferedBytes>}.
    """

    transport: Any
    gone = False
    held = 0

    def __init__(self, factory: Any) -> None:
        """
        @param factory: the L{SessionFactory<txconnpool.proxy.sessions.SessionFactory>}.
        """
        self.factory: Any = factory
        self._limits: SessionLimits = factory.limits
        self._counters = factory.counters
        self._full = False  # the transport has all it can take
        self._reading = True
        self._ending = False  # nothing more is read: to be closed when all replies are written
        self.unread = 0
        self.kept = 0

    def connectionMade(self) -> None:
        """
        Take the socket over, and register to be paused while the client does not read.
        """
        transport: Any = self.transport
        tune(transport)
        self.transport = transport = adopt(self, self.factory.reactor)
        self._write = transport.write
        transport.registerProducer(self, True)
        self.factory.sessions.add(self)

    # -- Replies

    def put(self, data: bytes) -> None:
        """
        Write bytes of replies.
        """
        self._counters.sent += len(data)
        self._write(data)
        if self._full:
            self._pile(len(data))

    def hold(self, size: int) -> None:
        """
        Count bytes of a reply that waits for an earlier one.
        """
        self.held += size
        self.factory.buffered.add(self, size)
        if self.unread > self._limits.unreadHard:
            self.factory.buffered.drop(self, f"{self._limits.unreadHard} may be")

    def release(self, size: int) -> None:
        """
        Count held bytes no longer: they are written next, or dropped.
        """
        if not self.gone:
            self.factory.buffered.release(self, size)

    def _pile(self, size: int) -> None:
        """
        Count C{size} more bytes as unread, and apply the bounds.
        """
        buffered = self.factory.buffered
        buffered.add(self, size)
        if self.unread > self._limits.unreadHard:
            buffered.drop(self, f"{self._limits.unreadHard} may be")
        elif self.unread > self._limits.unreadSoft:
            self.slowDown()
            self.proceed()

    @property
    def crowded(self) -> bool:
        """
        Whether the client leaves so much unread that it is asked for nothing more.
        """
        return self.unread > self._limits.unreadSoft

    # -- What a session does

    def slowDown(self) -> None:
        """
        Called when the client has too much unread: have fewer requests in flight.
        """
        raise NotImplementedError

    def proceed(self, refusal: PoolError | None = None) -> None:
        """
        Called when something has changed: go on with what was kept.

        @param refusal: why the pool refuses the requests that have waited for a connection, if it does.
        """
        raise NotImplementedError

    def forget(self) -> None:
        """
        Called once, when the client is gone or given up: drop all requests and replies.
        """
        self.gone = True
        self._full = False
        self._write = _drop
        self.held = 0
        self.factory.buffered.clear(self)
        self.factory.buffered.free(self)

    # -- Reading

    def regulate(self, finished: bool, backlogged: bool) -> None:
        """
        Close if all is done, and read from the client or stop reading.

        @param finished: whether all requests that were read are answered.
        @param backlogged: whether enough bytes of requests are kept.
        """
        crowded = self.unread > self._limits.unreadSoft
        if self._ending and finished and not crowded:
            self.transport.unregisterProducer()
            closeAfterFlush(self.transport)
        reading = not (self._ending or crowded or backlogged)
        if reading is not self._reading:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                if not self._ending:
                    self._counters.pauses["unread" if crowded else "backlog"] += 1
                self.transport.pauseProducing()

    def pauseProducing(self) -> None:
        """
        The transport is full: count what is written from now on as unread.
        """
        self._full = True

    def resumeProducing(self) -> None:
        """
        The client has read everything that was written.
        """
        self._full = False
        self.factory.buffered.clear(self)
        self.proceed()

    def stopProducing(self) -> None:
        """
        The connection ends; C{connectionLost} follows.
        """

    def limit(self, limits: SessionLimits) -> None:
        """
        Apply other bounds from now on.
        """
        self._limits = limits
        if self.unread > limits.unreadHard:
            self.factory.buffered.drop(self, f"{limits.unreadHard} may be")
        else:
            self.proceed()

    # -- The end

    def end(self) -> None:
        """
        Read nothing more, answer what was read, then close.
        """
        self._ending = True
        # TLS goes on to deliver what it has decrypted already.
        self.dataReceived = _drop  # type: ignore[method-assign]
        self.proceed()

    def readConnectionLost(self) -> None:
        """
        The client sends nothing more, but still reads.
        """
        self.end()

    def writeConnectionLost(self) -> None:
        """
        Never called, because this side never closes one direction; L{IHalfCloseableProtocol} demands it.
        """

    def breakOff(self) -> None:
        """
        Close in the middle of a reply. A client that reads gets what was written before.
        """
        if self._full:
            self.drop()
        else:
            self.transport.unregisterProducer()
            closeAfterFlush(self.transport)
            self.forget()

    def drop(self) -> None:
        """
        Close at once, whatever the client is owed.
        """
        self.transport.abortConnection()
        self.forget()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The client is gone. The replies to its requests in flight are dropped when they come.
        """
        self.forget()
        self.factory.closed(self)


def _drop(data: bytes) -> None:
    """
    Stand in for a method that takes bytes, once these are not wanted any more.
    """
