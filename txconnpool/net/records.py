# -*- test-case-name: tests.net.test_records -*-
# Copyright txconnpool contributors. See LICENSE.
"""
TLS connections that take only a few records in each turn of the reactor, and few messages of the protocol itself.

A record may be very small: one read of 64 kB has 2,900 of them. Each costs as much as a large one. A C{KeyUpdate} of
TLS 1.3, which a peer may send at any time, costs far more: new keys are derived, and an answer is sent. Those of one
read would hold up all other connections for 150 ms, and those of twenty connections for seconds.

This module imports C{OpenSSL}. It is imported only where it is used: TLS is an extra of the package.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL.SSL import SSL_CB_LOOP, Connection, Context
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

#: The number of records that a connection takes in one turn of the reactor.
RECORDS: Final = 32

#: The most steps of OpenSSL's state machine on one connection. A handshake has about 20, a C{KeyUpdate} two. A peer
#: that is not out to do harm sends one in 16 million records.
STEPS_MAX: Final = 1000

#: The length of the head of a record, whose last two bytes are the length of the rest (RFC 8446, 5.1).
_HEAD: Final = 5


class RecordEnds:
    """
    Finds the ends of TLS records in a stream of bytes.
    """

    def __init__(self) -> None:
        self._head = b""  # the beginning of the head of the next record
        self._left = 0  # bytes of the current record that have not come

    def find(self, data: bytes, pos: int, count: int) -> int:
        """
        Go on in the stream.

        @param data: bytes of the stream, from C{pos} the next ones.
        @param count: the number of records.

        @return: the position after that many records, or after all bytes.
        """
        size = len(data)
        while count and pos < size:
            if not self._left:
                start, pos = pos, min(size, pos + _HEAD - len(self._head))
                self._head += data[start:pos]
                if len(self._head) < _HEAD:
                    break
                self._left = int.from_bytes(self._head[3:], "big")
                self._head = b""
            step = min(self._left, size - pos)
            self._left -= step
            pos += step
            if not self._left:
                count -= 1
        return pos


class BoundedTLS(BufferingTLSTransport):
    """
    A TLS connection. While it has bytes that it has not taken, it reads no others.

    @ivar steps: the number of steps of OpenSSL's state machine.
    """

    factory: BoundedTLSFactory
    transport: Any
    steps = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ends = RecordEnds()
        self._kept = b""
        self._next: IDelayedCall | None = None  # takes the bytes that are kept
        self._paused = False  # whether the protocol has paused this connection

    def makeConnection(self, transport: Any) -> None:
        """
        Begin the handshake.
        """
        super().makeConnection(transport)
        if self._tlsConnection is not None:  # the protocol has not refused the connection
            self._tlsConnection.set_app_data(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Take the first records of what has arrived, and keep the rest until the next turn of the reactor.
        """
        if self._next is not None:
            self._kept += data
            return
        end = self._ends.find(data, 0, RECORDS)
        super().dataReceived(data if end == len(data) else data[:end])
        if self.steps > STEPS_MAX:
            self.abortConnection()
        elif end < len(data) and self.connected:
            self._kept = data[end:]
            self.transport.pauseProducing()
            self._next = self.factory.reactor.callLater(0, self._goOn)

    def _goOn(self) -> None:
        self._next = None
        data, self._kept = self._kept, b""
        self.dataReceived(data)
        if self._next is None and self.connected and not self._paused:
            self.transport.resumeProducing()

    def pauseProducing(self) -> None:
        """
        Stop reading.
        """
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """
        Read again, when the bytes that are kept have been taken.
        """
        self._paused = False
        if self._next is None:
            self.transport.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Drop the bytes that are kept.
        """
        if self._next is not None:
            self._next.cancel()
            self._next = None
        super().connectionLost(reason)


class BoundedTLSFactory(TLSMemoryBIOFactory):
    """
    The factory of L{BoundedTLS} connections, for servers.

    @ivar reactor: the reactor.
    """

    protocol = BoundedTLS

    def __init__(self, contextFactory: Any, wrappedFactory: Any, reactor: Any) -> None:
        """
        @param contextFactory: the same as for C{TLSMemoryBIOFactory}. It has one context for all connections.
        @param wrappedFactory: the factory of the protocols.
        @param reactor: the reactor; C{None} if there will be no connection.
        """
        # Without a clock, Twisted would import a reactor, and so install its default one, when files are only checked.
        clock = Clock() if reactor is None else reactor
        super().__init__(contextFactory, False, wrappedFactory, clock)
        self.reactor = reactor
        context: Context = contextFactory.getContext()
        context.set_info_callback(_stepped)

    def buildProtocol(self, addr: Any) -> Any:
        """
        @return: a connection; C{None} if the wrapped factory makes no protocol for it. Twisted's factory would then
            raise an exception, and its port would keep the file descriptor.
        """
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)


def _stepped(connection: Connection, where: int, _: int) -> None:
    """
    Count a step of OpenSSL's state machine after the handshake has begun.
    """
    if where & SSL_CB_LOOP:
        tls = connection.get_app_data()
        if tls is not None:
            tls.steps += 1
