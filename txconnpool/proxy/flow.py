# -*- test-case-name: tests.proxy.test_flow -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The connection of one client, and its back-pressure: the bytes that the client has not read, and when reading from it is
paused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.net.transport import DirectTransport, adopt, closeAfterFlush, tune


@dataclass(frozen=True)
class SessionLimits:
    """
    The limits of the sessions of a pool.

    @ivar maxClients: the maximum number of sessions.
    @ivar maxPerAddress: the maximum number of clients from one address; 0: no limit.
    @ivar loginTimeout: the seconds in which a client has to complete its TLS handshake and its login.
    @ivar statsAddresses: whether clients may see the addresses of other clients in statistics.
    @ivar partialError: whether a request for several keys gets an error if the server of some of them has failed. If
        not, these keys are missing in the reply.
    @ivar maxInFlight: the maximum number of requests in flight of one session.
    @ivar backlog: the number of bytes of requests that are kept while a session cannot forward them (because it waits
        for a connection, or has too many requests in flight). Above it, reading from the client is paused. A single
        read may exceed it.
    @ivar unreadSoft: the number of unread bytes of replies above which reading from the client is paused.
    @ivar unreadHard: the number of unread bytes of replies above which the client is closed.
    @ivar idleTimeout: the seconds after which a client that sends nothing is closed; 0: never.
    @ivar leaseAtFirstByte: whether a client of an unknown protocol leases a connection only when it has sent something.
    @ivar reuse: whether the connection of such a client may serve another one after it.
    @ivar keyDumps: whether clients may get the keys of all values.
    """

    maxClients: int = 10000
    maxPerAddress: int = 0
    loginTimeout: float = 10.0
    statsAddresses: bool = False
    partialError: bool = False
    maxInFlight: int = 256
    backlog: int = 1 << 16
    unreadSoft: int = 1 << 18
    unreadHard: int = 1 << 26
    idleTimeout: float = 0.0
    leaseAtFirstByte: bool = False
    reuse: bool = False
    keyDumps: bool = True


@implementer(IPushProducer, IHalfCloseableProtocol)
class ClientConnection(Protocol):
    """
    The connection of a client, without its requests.

    @ivar gone: whether the client is gone or is being closed.
    @ivar unread: the number of bytes of replies that the client has not read: those written since the transport's
        buffer is full, and those that are held back.
    @ivar held: the number of bytes of replies that wait for an earlier reply.
    @ivar kept: the number of bytes of requests that could not be forwarded yet, if they count for
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
        self._full = False  # the transport's buffer is full
        self._reading = True
        self._ending = False  # no more requests are read; the client is closed when all replies are written
        self.unread = 0
        self.kept = 0

    def connectionMade(self) -> None:
        """
        Take over the socket, and register as a producer, which is paused while the client does not read.
        """
        transport: Any = self.transport
        tune(transport)
        self.transport = transport = adopt(self, self.factory.reactor)
        self._write = transport.write
        transport.registerProducer(self, True)
        self.factory.opened(self)

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
        Count the bytes of a reply that waits for an earlier one.
        """
        if self.gone:
            return
        self.held += size
        self.factory.buffered.add(self, size)
        if self.unread > self._limits.unreadHard:
            self._dropUnread()

    def release(self, size: int) -> None:
        """
        Stop counting held bytes, because they are written or dropped.
        """
        if not self.gone:
            self.factory.buffered.release(self, size)

    def _pile(self, size: int) -> None:
        """
        Count C{size} more bytes as unread, and apply the limits.
        """
        self.factory.buffered.add(self, size)
        if self.unread > self._limits.unreadHard:
            self._dropUnread()
        elif self.unread > self._limits.unreadSoft:
            self.slowDown()
            self.proceed()

    def _dropUnread(self) -> None:
        """
        Close the client, because it leaves more bytes unread than the limit.
        """
        self.factory.buffered.drop(self, f"the limit is {self._limits.unreadHard}")

    def isCrowded(self, first: bool) -> bool:
        """
        @param first: whether all earlier replies are written. Bytes that are held back then wait for the caller, and
            are not counted.

        @return: whether the client leaves so many bytes unread that nothing more is requested for it.
        """
        return self.isCrowdedBy(-self.held if first else 0)

    def isCrowdedBy(self, size: int) -> bool:
        """
        @return: whether nothing more would be requested for the client if so many more of its bytes were held.
        """
        return self.unread + size > self._limits.unreadSoft

    @property
    def isFull(self) -> bool:
        """
        Whether the client has not read all that was written.
        """
        return self._full

    @property
    def ending(self) -> bool:
        """
        Whether no more requests are read, and the client is closed when all replies are written.
        """
        return self._ending

    # -- Methods of subclasses

    @property
    def blocksInVain(self) -> bool:
        """
        Whether a server waits for something on behalf of a client that has closed its side.
        """
        raise NotImplementedError

    def slowDown(self) -> None:
        """
        Called when the client has too many unread bytes. Reduces the number of requests in flight.
        """
        raise NotImplementedError

    def proceed(self, refusal: PoolError | None = None) -> None:
        """
        Called when the state has changed. Continues with the bytes of requests that were kept.
        """
        raise NotImplementedError

    def forget(self) -> None:
        """
        Called once, when the client is gone or is being closed. Drops all requests and replies.
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
        Close the client if everything is done, and pause or resume reading from it.

        @param finished: whether all requests that were read are answered.
        @param backlogged: whether the maximum number of bytes of requests is kept.
        """
        crowded = self.unread > self._limits.unreadSoft
        if self._ending:
            if finished and not crowded:
                self.transport.unregisterProducer()
                closeAfterFlush(self.transport)
            elif self.blocksInVain:
                self.drop()
                return
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
        Count further bytes as unread, because the transport's buffer is full.
        """
        self._full = True

    def resumeProducing(self) -> None:
        """
        Continue, because the client has read all written bytes.
        """
        self._full = False
        self.factory.buffered.clear(self)
        self.proceed()

    def stopProducing(self) -> None:
        """
        Do nothing: C{connectionLost} follows.
        """

    def limit(self, limits: SessionLimits) -> None:
        """
        Apply other limits.
        """
        self._limits = limits
        if self.unread > limits.unreadHard:
            self._dropUnread()
        else:
            self.proceed()

    # -- The end

    def end(self) -> None:
        """
        Stop reading, answer the requests that were read, then close the client.
        """
        self._ending = True
        # Transports still deliver bytes that they have read, or that TLS has decrypted already.
        self.dataReceived = _drop  # type: ignore[method-assign]
        if isinstance(self.transport, DirectTransport):
            self.transport.received = _drop
        self.proceed()

    def expire(self) -> None:
        """
        Close the client, because it was idle for too long.
        """
        self.end()

    def readConnectionLost(self) -> None:
        """
        Handle a half-close: the client sends nothing more, but still reads.
        """
        self.end()

    def writeConnectionLost(self) -> None:
        """
        Not called: this side never closes only one direction. L{IHalfCloseableProtocol} requires the method.
        """

    def breakOff(self) -> None:
        """
        Close the client in the middle of a reply. If it reads, it gets the bytes that were written before.
        """
        if self._full:
            self.drop()
        else:
            self.transport.unregisterProducer()
            closeAfterFlush(self.transport)
            self.forget()

    def abort(self, error: PoolError) -> None:
        """
        Close the client, because of an unexpected exception: it is not certain that its next reply would be right.
        """
        if not self.gone:
            self.breakOff()

    def drop(self) -> None:
        """
        Close the client at once, without its outstanding replies.
        """
        self.transport.abortConnection()
        self.forget()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Forget the client. The replies to its requests in flight are dropped when they arrive.
        """
        self.forget()
        self.factory.closed(self)


def _drop(data: bytes) -> None:
    """
    Replaces methods that take bytes, when these are not needed any more.
    """
