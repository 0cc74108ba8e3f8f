# -*- test-case-name: tests.proxy.test_relay -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Clients whose protocol is not known. Each leases a connection until it ends, and bytes are passed on in both directions
as they come.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IWaiter
from txconnpool.net.transport import closeAfterFlush, endWriting, wasClosed
from txconnpool.pool.decisions.reasons import ENDED, LEFT_IN_USE
from txconnpool.proxy.flow import ClientConnection, SessionLimits
from txconnpool.proxy.relayed import RelayConnection


@implementer(IWaiter)
class RelaySession(ClientConnection):
    """
    The session of one client, with a connection of its own from its begin, or from its first byte, to its end.

    @ivar number: identifies the session on the console and in statistics.
    @ivar host: the address with which C{factory} counts the client, or C{None}.
    @ivar ticket: the ticket of the pool while the client waits for a connection, or C{None}.
    @ivar listens: whether the client need not send anything: this is not known.
    """

    ticket: Any = None
    listens = False
    _connection: RelayConnection | None = None
    _pool: Any = None
    _clientDone = False  # the client has closed its side
    _serverDone = False  # the server has closed its side

    def __init__(self, factory: Any, host: str | None = None) -> None:
        """
        @param factory: the L{SessionFactory<txconnpool.proxy.sessions.SessionFactory>}.
        @param host: see L{host}.
        """
        super().__init__(factory)
        self.host = host
        self.number = next(factory.numbers)
        self._kept: list[bytes] = []  # bytes of the client that came before it had a connection
        self._size = 0

    # -- What statistics and the console show

    @property
    def waiting(self) -> bool:
        """
        Whether the client waits for a connection.
        """
        return self.ticket is not None

    @property
    def inFlight(self) -> int:
        """
        1 while the client has a connection, else 0.
        """
        return int(self._connection is not None)

    @property
    def busy(self) -> bool:
        """
        Whether the client waits for a connection, or bytes wait for one side to read.
        """
        return self.waiting or self._full or (self._connection is not None and self._connection.full)

    # -- The lease

    def connectionMade(self) -> None:
        """
        Lease a connection at once, unless the client has to speak first.
        """
        super().connectionMade()
        if not self._limits.leaseAtFirstByte:
            self._lease()

    def _lease(self) -> None:
        try:
            self._pool = pool = self.factory.router.anyOf()
            record = pool.take(self, True)
        except PoolError as error:
            self.refused(error)
        else:
            if record is not None:
                self.granted(record)

    def granted(self, record: Any) -> None:
        """
        The client has a connection: send what it has sent so far.
        """
        self.ticket = None
        self._connection = connection = record.connection
        connection.lend(self)
        if self._kept and self._connection is connection:
            data, self._kept, self._size = b"".join(self._kept), [], 0
            if self.kept:
                self.factory.buffered.free(self)
            connection.send(data)
        if self._clientDone and self._connection is connection:
            endWriting(connection.transport)
        self.proceed()

    def refused(self, error: PoolError) -> None:
        """
        Close the client, because there is no connection. Its protocol has no error that could be sent.
        """
        self.ticket = None
        self.factory.unserved(error)
        self.drop()

    def _release(self, close: bool = True) -> None:
        """
        End the lease.

        @param close: whether the connection is closed when all is sent; if not, other clients use it.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.unlend()
            if close:
                self._pool.retire(connection.record, ENDED)
            self._pool.leaseEnded(connection.record, 0)

    @property
    def _isReusable(self) -> bool:
        """
        Whether another client may use the connection: the settings allow it, and nothing is under way.
        """
        connection = self._connection
        idle = connection is not None and not (connection.isDue or connection.full or self._full or self._serverDone)
        return self._limits.reuse and idle

    # -- Bytes

    def dataReceived(self, data: bytes) -> None:
        """
        Pass on bytes of the client, or keep them until there is a connection.
        """
        self._counters.received += len(data)
        if self._connection is not None:
            self._connection.send(data)
            return
        if self.gone or self._ending:
            return
        self._kept.append(data)
        self._size += len(data)
        if self._size > self._limits.backlog:
            self.factory.buffered.keep(self, self._size)
        if self.ticket is None and not self.gone:
            self._lease()
        self.proceed()

    def relayed(self, data: bytes) -> None:
        """
        Pass on bytes of the server.
        """
        self.factory.idle.forget(self)
        self.put(data)

    def proceed(self, refusal: PoolError | None = None) -> None:
        """
        Read of the client, unless the server does not read, or much is kept until there is a connection.
        """
        if self.gone:
            return
        connection = self._connection
        reading = self._size < self._limits.backlog if connection is None else not connection.full
        if reading is not self._reading:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self._counters.pauses["backlog"] += 1
                self.transport.pauseProducing()

    def slowDown(self) -> None:
        """
        Do nothing: the server is not read while the client does not read.
        """

    def pauseProducing(self) -> None:
        """
        Read no more of the server, because the client does not read.
        """
        super().pauseProducing()
        if self._connection is not None:
            self._counters.pauses["unread"] += 1
            self._connection.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """
        Read of the server again.
        """
        super().resumeProducing()
        if self._connection is not None:
            self._connection.transport.resumeProducing()

    # -- The end

    def readConnectionLost(self) -> None:
        """
        The client sends nothing more. The server is notified, and may still answer.
        """
        self._clientDone = True
        connection = self._connection
        if connection is None:
            if not self._kept:
                self._finish()
        elif self._isReusable:
            self._release(close=False)
            self._finish()
        elif self._serverDone:
            self.serverGone()
        else:
            endWriting(connection.transport)

    def serverEnded(self) -> None:
        """
        The server sends nothing more. The client is notified, and may still send.
        """
        self._serverDone = True
        if self._clientDone:
            self.serverGone()
        else:
            endWriting(self.transport)

    def serverGone(self) -> None:
        """
        Neither side needs the other any more.
        """
        self._release()
        self._finish()

    def serverLost(self, clean: bool) -> None:
        """
        The connection was lost. It does not belong to the pool any more.

        @param clean: whether the server has closed it; if not, the client is reset too.
        """
        self._connection = None
        if clean:
            self._finish()
        else:
            self.drop()

    def _finish(self) -> None:
        """
        Close the client when it has read all.
        """
        self._ending = True
        if self.ticket is not None:
            self._pool.forget(self.ticket)
            self.ticket = None
        self.transport.unregisterProducer()
        closeAfterFlush(self.transport)

    def end(self) -> None:
        """
        Let the client go on until it ends by itself. One that has no connection is closed.
        """
        self._ending = True
        if self._connection is None and not self.gone:
            self._finish()

    def expire(self) -> None:
        """
        Close the client, because nothing came from either side for too long.
        """
        self.drop()

    def limit(self, limits: SessionLimits) -> None:
        """
        Apply other limits. A client that has no connection yet may need one now.
        """
        super().limit(limits)
        if not (limits.leaseAtFirstByte or self.gone or self._ending or self._connection or self.ticket):
            self._lease()

    def forget(self) -> None:
        """
        Stop waiting for a connection, and reset the one that the client has.
        """
        if self.ticket is not None:
            self._pool.forget(self.ticket)
            self.ticket = None
        self._kept = []
        self._size = 0
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.retire(connection.record, LEFT_IN_USE)
            connection.unlend()
            connection.abort()
        super().forget()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Forget the client. A connection is closed as the client has closed its own.
        """
        if not self.gone and wasClosed(self.transport, reason):
            self._release(close=not self._isReusable)
        super().connectionLost(reason)
