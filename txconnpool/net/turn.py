# -*- test-case-name: tests.net.test_turn -*-
# Copyright txconnpool contributors. See LICENSE.
"""
One epoll for many sockets, which are read and written together in a turn of the reactor.

All L{DirectTransport<txconnpool.net.transport.DirectTransport>}s of a reactor are in one epoll, which the reactor sees
as one more reader. When that is readable, a L{Turn} reads from all sockets that are ready, calls the protocols
directly, and only then sends, once for each transport, what they have written. The kernel is asked to report when a
socket is writable only after it has not taken all bytes.

The other way round, a L{TurnReactor<txconnpool.net.reactor.TurnReactor>} lets the turn wait for all events, and its own
poll is one more socket for the turn.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from socket import socket
from typing import Any, Protocol

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.net.sockets import IN, Events
from txconnpool.net.sockets import chosenReceive as receive

#: The largest number of bytes read from one socket before the others are read. As much is allocated for a read. From
#: 128 KiB on the C library would ask the kernel for the pages each time.
READ_SIZE = 124 << 10

#: The number of bytes read from all sockets before the protocols are called. The last read may exceed it.
READ_MAX = 1 << 20

#: The largest number of events taken from the kernel at once.
BATCH = 256

#: How often a turn looks for more events before the rest of the application continues.
ROUNDS = 4

#: The bit of an epoll mask for sockets that can be written; 0 where there is no epoll.
OUT: int = getattr(select, "EPOLLOUT", 0)

#: The reason why a connection is closed after an error of its socket.
LOST = Failure(ConnectionLost("Connection lost"))

#: The turn of each reactor that has transports in it.
turns: dict[object, Turn] = {}


def turnOf(reactor: Any) -> Turn:
    """
    @return: the turn of a reactor, a new one if it has none.
    """
    turn = turns.get(reactor)
    if turn is None:
        turn = turns[reactor] = Turn(reactor)
    return turn


def atEndOfTurn(reactor: Any, call: Callable[[], object]) -> bool:
    """
    Call a function at the end of the current turn of a reactor, before what was written is sent: once for all bytes
    that were received in this turn.

    @param call: the function. It raises no exception.

    @return: whether it will be called; it is not if the reactor has no L{Turn}.
    """
    turn = turns.get(reactor)
    if turn is not None:
        turn.atEnd(call)
    return turn is not None


def moreInTurn(reactor: Any) -> Turn | None:
    """
    @return: the turn of a reactor, if it has received bytes for other protocols that these will get before it ends.
    """
    turn = turns.get(reactor)
    return turn if turn is not None and turn.arrived else None


class Member(Protocol):
    """
    A transport as its turn sees it, see L{DirectTransport<txconnpool.net.transport.DirectTransport>}.
    """

    fd: int
    socket: socket
    queued: bool
    wanted: int
    watched: int

    @property
    def readable(self) -> bool:
        """
        Whether received bytes are still passed on.
        """

    @property
    def received(self) -> Any:
        """
        Called with the received bytes.
        """

    def canSend(self) -> None:
        """
        The socket can be written again.
        """

    def settle(self) -> None:
        """
        Send what was written, and update what the socket is watched for.
        """

    def ended(self) -> None:
        """
        The peer sends nothing more.
        """

    def close(self, reason: Failure) -> None:
        """
        Close the connection now.
        """

    def failed(self) -> None:
        """
        The protocol raised the current exception.
        """


@implementer(IReadDescriptor)
class Turn:
    """
    All direct transports of one reactor, and what happens to them in one turn of that reactor.

    It is a reader of the reactor, and has an epoll, only while it has transports.

    @ivar arrived: bytes that were read, with their transports; empty bytes if the peer has closed its side.
    @ivar _transports: the transports by the numbers of their sockets.
    @ivar _events: events that were taken from the kernel, and the index of the first that was not looked at yet.
    @ivar _queue: the transports to settle.
    @ivar _calls: the functions that are called before the transports are settled.
    @ivar _running: whether the queue will be emptied before this turn ends.
    @ivar _later: the delayed call that empties it otherwise.
    @ivar _others: the number of the poll of the reactor's other descriptors if the reactor calls L{take}, else -1.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._fd = self._epoll.fileno()
        self._transports: dict[int, Member] = {}
        self._events: tuple[Events, int] | None = None
        self.arrived: deque[tuple[Member, bytes]] = deque()
        self._queue: list[Member] = []
        self._calls: list[Callable[[], object]] = []
        self._running = False
        self._later: IDelayedCall | None = None
        self._others = -1

    def add(self, transport: Member) -> None:
        """
        Add a transport.
        """
        self._transports[transport.fd] = transport
        self.watch(transport)
        # Each time, because all readers of a reactor may have been removed, as trial does between tests.
        self._reactor.addReader(self)

    def remove(self, transport: Member) -> None:
        """
        Remove a transport.
        """
        del self._transports[transport.fd]
        if transport.watched:
            self._epoll.unregister(transport.fd)
        self._finish()

    def watch(self, transport: Member) -> None:
        """
        Have the kernel report the events that a transport waits for.
        """
        if not transport.watched:
            self._epoll.register(transport.fd, transport.wanted)
        elif transport.wanted:
            self._epoll.modify(transport.fd, transport.wanted)
        else:
            self._epoll.unregister(transport.fd)
        transport.watched = transport.wanted

    def queue(self, transport: Member) -> None:
        """
        Settle a transport at the end of this turn, or as soon as the reactor can if no turn is running.
        """
        transport.queued = True
        self._queue.append(transport)
        if not self._running:
            self._finish()

    def atEnd(self, call: Callable[[], object]) -> None:
        """
        Call a function before the transports are settled the next time.
        """
        self._calls.append(call)
        if not self._running:
            self._finish()

    # Calls of a reactor that lets the turn wait for all events

    def lead(self, others: select.epoll) -> None:
        """
        From now on the reactor calls L{take} in each of its turns, before it waits.

        @param others: the poll of the reactor's other descriptors.
        """
        if self._others < 0:
            self._others = others.fileno()
            self._epoll.register(others, IN)

    def follow(self) -> None:
        """
        From now on the reactor does not call L{take}.
        """
        if self._others >= 0:
            self._epoll.unregister(self._others)
            self._others = -1
            if self._transports or self._calls:
                self._finish()

    def take(self, timeout: float | None) -> bool:
        """
        Settle the transports that were queued since the last time, or wait for events if there are none. Then read from
        the sockets that are ready, call the protocols, and settle the transports.

        @param timeout: how long to wait, in seconds; C{None}: until there is an event.

        @return: whether other descriptors of the reactor have events.
        """
        outermost = not self._running
        self._running = True
        try:
            if self._queue or self._calls:
                self._settle()
                timeout = 0  # a protocol may have made a delayed call or stopped the reactor
            others = self._receive(timeout)
            self._deliver()
            self._settle()
        finally:
            if outermost:
                self._running = False
                self._finish()
        return others

    # IReadDescriptor

    def fileno(self) -> int:
        """
        @return: the number of the epoll, also after it was closed: a reactor compares it.
        """
        return self._fd

    def logPrefix(self) -> str:
        """
        @return: the name of this reader in the log.
        """
        return "txconnpool"

    def doRead(self) -> None:
        """
        Read from all sockets that are ready, call the protocols, settle the transports, and repeat this a few times.
        Each step is done for all transports before the next step, so that its code stays in the processor's cache.
        """
        outermost = not self._running
        self._running = True
        try:
            for _ in range(ROUNDS):
                self._receive(0)
                if not (self.arrived or self._queue or self._calls):
                    break
                self._deliver()
                self._settle()
        finally:
            if outermost:
                self._running = False
                self._finish()

    def _receive(self, timeout: float | None) -> bool:
        """
        Read from the sockets that are ready, and find those that can be written to.

        @return: whether other descriptors of the reactor have events.
        """
        others = False
        events, self._events = self._events or (self._epoll.poll(timeout, BATCH), 0), None
        arrived, unusual, start = receive(*events, self._transports, READ_SIZE, READ_MAX)
        if start:
            # The rest comes first next time. The kernel would report these first as long as they have more bytes.
            self._events = events[0], start
        self.arrived.extend(arrived)
        for fd, event, error in unusual:
            transport = self._transports.get(fd)
            if transport is not None:
                self._look(transport, event, error)
            elif fd == self._others:  # else an event before this one has closed it
                others = True
        return others

    def _look(self, transport: Member, event: int, error: int) -> None:
        """
        Handle an event of a socket that has an error or can be written to.
        """
        if error:
            transport.close(LOST)
        elif transport.wanted & IN and event != OUT:  # recv also finds errors
            try:
                self.arrived.append((transport, transport.socket.recv(READ_SIZE)))
            except BlockingIOError:
                pass
            except OSError:
                transport.close(LOST)
        if event != IN:
            transport.canSend()

    def _deliver(self) -> None:
        """
        Call the protocols with the bytes that were read. A connection may have been closed since, by the protocol of
        another one. If it was paused, its protocol still gets the bytes.
        """
        arrived = self.arrived
        while arrived:
            transport, data = arrived.popleft()
            if transport.readable:
                received = transport.received
                try:
                    if data:
                        received(data)
                    else:
                        transport.ended()
                except BaseException:
                    transport.failed()

    def connectionLost(self, reason: Failure) -> None:
        """
        Close all connections, because the reactor ends.
        """
        for transport in list(self._transports.values()):
            transport.close(reason)

    def _settle(self) -> None:
        """
        Call the functions that L{atEnd} was given, then settle each transport in the queue. Transports that are queued
        meanwhile are settled the next time, so that this ends.
        """
        if self._calls:
            calls, self._calls = self._calls, []
            for call in calls:
                call()
        queue = self._queue
        self._queue = []
        for transport in queue:
            try:
                transport.settle()
            except BaseException:
                transport.failed()

    def _takeTurn(self) -> None:
        """
        Settle transports that were queued while no turn was running.
        """
        self._later = None
        self.doRead()

    def _finish(self) -> None:
        """
        At the end of a turn, see to it that the queue will be emptied; or leave the reactor, if no transports are left.
        """
        if self._running:
            return
        if not (self._transports or self._calls):
            del turns[self._reactor]
            self._reactor.removeReader(self)
            self._epoll.close()
            if self._later is not None:
                self._later.cancel()
        elif (self._queue or self._calls) and self._later is None and self._others < 0:
            self._later = self._reactor.callLater(0, self._takeTurn)

    def __repr__(self) -> str:
        return f"<Turn of {list(self._transports.values())!r}>"
