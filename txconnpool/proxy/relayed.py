# -*- test-case-name: tests.proxy.test_relay -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Connections to servers whose protocol is not known. All bytes of one belong to the client that leases it.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.interfaces import IPipelined
from txconnpool.metrics import Traffic
from txconnpool.net.deadlines import Deadlines
from txconnpool.net.transport import adopt, closeAfterFlush, outletOf, tune, wasClosed
from txconnpool.wire.raw import SESSION

_log = Logger("txconnpool.proxy")

#: The most bytes that are read of a server before a client has leased its connection: servers may speak first.
EARLY_MAX: Final = 1 << 16

#: When a server has closed its side, its client has this many seconds to close too or to send something. Most servers
#: have closed both sides then, which cannot be seen, and other clients wait for a connection.
LINGER: Final = 1.0


@implementer(IPipelined, IPushProducer, IHalfCloseableProtocol)
class RelayConnection(Protocol):
    """
    A connection to a server whose bytes belong to the client that leases it.

    @ivar record: the pool's record of this connection.
    @ivar served: whether the server has sent anything.
    @ivar full: whether the server does not read, so that no more is to be sent.
    @ivar isDue: whether bytes were sent after the last that were received: the server may be about to answer.
    """

    record: Any
    transport: Any
    outlet: Any
    served = full = isDue = False

    def __init__(self, factory: RelayFactory) -> None:
        self.factory = factory
        self._session: Any = None
        self._used = False
        self._early = b""
        self._atEnd = False  # the server has closed its side

    def connectionMade(self) -> None:
        """
        Take over the socket, and register as a producer, which is paused while the server does not read.
        """
        transport: Any = self.transport
        tune(transport)
        self.transport = transport = adopt(self, self.factory.reactor)
        self.outlet = outletOf(transport)
        self._traffic: Traffic = self.record.server.traffic
        transport.registerProducer(self, True)

    def established(self) -> None:
        """
        Do nothing: there is no handshake, and a server that has sent a greeting counts as one that serves.
        """

    # -- The lease

    def lend(self, session: Any) -> None:
        """
        Begin a lease. The session gets what the server has sent before.

        @param session: the L{RelaySession<txconnpool.proxy.relay.RelaySession>}.
        """
        record = self.record
        record.lent = record.depth
        record.load += record.lent
        self._session = session
        self._used = True
        self._since = self.factory.reactor.seconds()
        if self._early:
            data, self._early = self._early, b""
            self.transport.resumeProducing()
            session.relayed(data)

    def unlend(self) -> None:
        """
        End the lease, and count it.
        """
        record, traffic = self.record, self._traffic
        record.load -= record.lent
        record.lent = 0
        self._session = None
        self.factory.lingering.discard(self)
        if not self.factory.lingering.since:
            self.factory.lingering.stop()
        traffic.requests[SESSION.index] += 1
        traffic.latency.observe(max(0.0, self.factory.reactor.seconds() - self._since))

    def send(self, data: bytes) -> None:
        """
        Send bytes of the client.
        """
        self._traffic.sent += len(data)
        self.isDue = True
        self.transport.write(data)
        if self._atEnd:
            self._linger()

    # -- The server

    def dataReceived(self, data: bytes) -> None:
        """
        Pass on bytes of the server. Those that come before a lease are kept; after one, the connection is closed.
        """
        self._traffic.received += len(data)
        self.served = True
        self.isDue = False
        if self._session is not None:
            self._session.relayed(data)
        elif self._used:
            self._violated()
        else:
            self._early += data
            if len(self._early) >= EARLY_MAX:
                self.transport.pauseProducing()

    def _violated(self) -> None:
        """
        Close the connection: a client has given it back, and the server still had something to say.
        """
        pool, record = self.factory.connectionPool, self.record
        pool.counters.violations += 1
        record.server.traffic.violations += 1
        _log.warn("{pool}: closing a connection to {server}: bytes came after its client had left",
                  pool=pool.name, server=record.server.name)  # fmt: skip
        self.abort()

    def readConnectionLost(self) -> None:
        """
        The server sends nothing more, but still reads.
        """
        self._atEnd = True
        if self._session is not None:
            self._linger()
            self._session.serverEnded()
        else:
            self.factory.connectionPool.hold(self.record)
            self.loseConnection()

    def _linger(self) -> None:
        lingering = self.factory.lingering
        lingering.discard(self)
        lingering.add(self)

    def lingered(self) -> None:
        """
        Nothing came from the client for L{LINGER} seconds after the end of the server.
        """
        self._session.serverGone()

    def writeConnectionLost(self) -> None:
        """
        Do nothing: the other direction goes on.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Close the client in the same way.
        """
        session = self._session
        if session is not None:
            self.unlend()
            session.serverLost(wasClosed(self.transport, reason))

    # -- Back-pressure, and the end

    def pauseProducing(self) -> None:
        """
        Read no more of the client, because the server does not read.
        """
        self.full = True
        if self._session is not None:
            self._session.proceed()

    def resumeProducing(self) -> None:
        """
        Read the client again.
        """
        self.full = False
        if self._session is not None:
            self._session.proceed()

    def stopProducing(self) -> None:
        """
        Do nothing: C{connectionLost} follows.
        """

    def retime(self) -> None:
        """
        Do nothing: no reply is awaited here.
        """

    def abort(self) -> None:
        """
        Reset the connection.
        """
        self.factory.connectionPool.hold(self.record)
        self.transport.abortConnection()

    def loseConnection(self) -> None:
        """
        Flush pending writes, then close.
        """
        self.transport.unregisterProducer()
        closeAfterFlush(self.transport)


class RelayFactory(Factory):
    """
    Makes the connections of a pool whose protocol is not known.

    @ivar connectionPool: set by the pool.
    @ivar lingering: the leased connections whose servers have closed their side.
    """

    noisy = False
    connectionPool: Any = None
    commands = (SESSION,)

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.lingering = Deadlines(reactor, LINGER, RelayConnection.lingered)

    def buildProtocol(self, addr: Any) -> RelayConnection:
        """
        @return: a new connection.
        """
        return RelayConnection(self)
