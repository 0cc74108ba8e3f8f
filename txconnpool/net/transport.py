# -*- test-case-name: tests.net.test_transport -*-
# Copyright txconnpool contributors. See LICENSE.

"""
How bytes move between the sockets and the protocols.

A Twisted transport pays, for each event, for a log context around it and, for each write, for two C{epoll_ctl} and one
more turn of the reactor. Beside a parser of a few microseconds that is most of the cost of a request. L{adopt} takes
a socket over from its Twisted transport: all sockets taken over live in an epoll of our own, which the reactor
sees as one more reader. One turn of it reads from everything that is ready, calls the protocols directly, and only then
sends, once for each transport, what was written meanwhile; the kernel is asked about writing only where it did not
take everything.

What is on the way of every request calls no attribute that is no method (C{self._write(data)}) but a local name for it:
CPython looks for a method each time, and is not sped up by finding none.

Protocols notice nothing: the transport they get behaves as Twisted's does, and they get Twisted's own wherever a
socket cannot be taken over (TLS, tests in memory, wrapping protocols, other platforms and reactors).
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Iterable, Iterator
from errno import EAGAIN, ENOBUFS
from socket import SHUT_WR, socket
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IPushProducer,
    IReactorFDSet,
    IReadDescriptor,
    ISystemHandle,
    ITCPTransport,
    ITransport,
    IUNIXTransport,
)
from twisted.logger import Logger
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from zope.interface import implementer

DIRECT = hasattr(select, "epoll")
"""
Whether L{adopt} takes sockets over at all; where it is false every protocol keeps the transport it has.
"""

HIGH_WATER = 1 << 16
"""
A push producer is paused while more bytes than this are unsent. Twisted's own number.
"""

READ_SIZE = 124 << 10
"""
The most bytes read from one socket before the others have had their turn. Python allocates as much for each read and
gives back what was not needed; from 128 KiB on the C library would ask the kernel for the pages, each time.
"""

READ_MAX = 1 << 20
"""
How many bytes are read, from however many sockets, before something is done with them; one read may exceed it.
"""

BATCH = 256
"""
The most events taken from the kernel at once.
"""

ROUNDS = 4
"""
How often a turn looks for more events before the rest of the application gets its own.
"""

JOIN_MAX = 1 << 16
"""
Up to so many bytes it costs less to copy several pieces into one than to let the kernel gather them.
"""

PIECE_MIN = 1 << 12
"""
So it does with any number of bytes when the pieces, on average, are smaller than this.
"""

PIECES_MAX = 1024
"""
The most pieces that the kernel gathers at once (its IOV_MAX).
"""

_IN: int = getattr(select, "EPOLLIN", 0)
_OUT: int = getattr(select, "EPOLLOUT", 0)

_PLAIN = (tcp.Server, tcp.Client, unix.Server, unix.Client)
"""
The classes whose way to read and write is known here. Exactly these: a subclass may do either in its own way.
"""

_DONE = Failure(ConnectionDone("Connection done"))
_LOST = Failure(ConnectionLost("Connection lost"))

_log = Logger("txconnpool.net")

_turns: dict[object, Turn] = {}


def adopt(protocol: IProtocol, reactor: object, direct: bool = True) -> ITransport:
    """
    Take over the socket of a protocol's transport where that is possible.

    To be called from C{connectionMade}, before anything is written, as C{self.transport = adopt(self, reactor)}. From
    then on C{protocol.dataReceived}, as it is bound now, is called without the wrappers that an endpoint may have put
    around the protocol; C{connectionLost} still passes through them. The transport that was there before should not be
    used any more: if it is closed the connection is closed, but what is unsent is lost.

    What a L{DirectTransport} cannot do is to start TLS and to pass file descriptors.

    @param protocol: the protocol, connected to its transport.
    @param reactor: the reactor of that transport.
    @param direct: whether to take over at all; false leaves everything to Twisted, for comparison and in need.

    @return: a L{DirectTransport}, or the transport that the protocol has if that is not one of Twisted's plain TCP or
        UNIX stream transports on a reactor that watches descriptors, or has already something to write.
    """
    transport = cast(Any, protocol).transport
    if (
        not (direct and DIRECT and IReactorFDSet.providedBy(reactor))
        or type(transport) not in _PLAIN
        or transport.TLS
        or transport in reactor.getWriters()
    ):
        return cast(ITransport, transport)
    turn = _turns.get(reactor)
    if turn is None:
        turn = _turns[reactor] = Turn(reactor)
    return DirectTransport(protocol, transport, turn)


def tune(transport: Any) -> None:
    """
    Where a connection is one of TCP: have what is written leave at once, and notice a peer that has vanished.
    """
    # Twisted's UNIX transports say that they are of TCP too, and with older ones this would fail.
    if ITCPTransport.providedBy(transport) and not IUNIXTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)


def peerOf(transport: ITransport) -> str:
    """
    Where the other side is, as people write it.
    """
    peer: Any = transport.getPeer()
    host = getattr(peer, "host", None)
    if host is None:
        return "unix"
    return f"[{host}]:{peer.port}" if ":" in host else f"{host}:{peer.port}"


def closeAfterFlush(transport: Any) -> None:
    """
    Close a connection when what was written is sent, whatever the other side does.

    C{loseConnection} does that, but over TLS it waits for a producer to end, and then for the other side to say goodbye
    too, which it only hears as long as it reads.

    @param transport: what L{adopt} gave.
    """
    under = getattr(transport, "transport", None)
    if under is not None:
        transport.unregisterProducer()
    transport.loseConnection()
    if under is not None:
        under.loseConnection()


_Forwarding: Any = proxyForInterface(ITCPTransport, "_under")
"""
An L{ITCPTransport} that leaves everything to the transport under it.
"""


@implementer(IConsumer, IPushProducer, ISystemHandle)
class DirectTransport(_Forwarding):
    """
    A transport that reads and writes the socket of a Twisted transport itself.

    It stands between that transport, to which it is the protocol, and the protocol, to which it is the transport. All
    that is not moving bytes stays with the Twisted transport: addresses, options, the registered producer, closing.

    What is asked of it is only noted, and done by L{settle}, which the turn calls once for each transport that
    L{Turn.queue} was told of.

    @ivar connected: whether the connection is still there and was not aborted.
    @ivar disconnecting: whether L{loseConnection} was called.
    @ivar unsent: the number of bytes written but not yet taken by the kernel.
    @ivar queued: whether L{settle} will be called.
    @ivar wanted: the events, as an epoll mask, that this transport waits for.
    @ivar watched: the events that the kernel was told to wait for.
    @ivar readable: whether what comes is for the protocol: neither side has closed the connection.
    @ivar socket: the socket.
    @ivar received: takes what was read.
    """

    __slots__ = (
        "_draining",
        "_halfClosing",
        "_outer",
        "_pending",
        "_turn",
        "_under",
        "_writable",
        "connected",
        "disconnecting",
        "fd",
        "queued",
        "readable",
        "received",
        "socket",
        "unsent",
        "wanted",
        "watched",
    )

    def __init__(self, protocol: IProtocol, under: Any, turn: Turn) -> None:
        self._under = under
        self._turn = turn
        self.socket: socket = under.getHandle()
        self._outer = under.protocol
        self._pending: list[bytes | memoryview] = []
        self.queued = False
        self.readable = True
        self._writable = True
        self._draining = False
        self._halfClosing = False
        self.connected = True
        self.disconnecting = False
        self.unsent = 0
        self.fd = self.socket.fileno()
        self.received = protocol.dataReceived
        self.wanted = _IN
        self.watched = 0
        under.stopReading()
        under.protocol = self
        turn.add(self)

    # ITransport, IConsumer

    def write(self, data: bytes) -> None:
        """
        Send bytes at the end of this turn. They are dropped if the connection is gone.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"Data must be bytes, not {type(data).__name__}")
        if self._writable:
            pending = self._pending
            # The first may be what is left of a piece; small ones would take many times their bytes in memory.
            if len(pending) > 1 and self.wanted & _OUT and len(pending[-1]) < PIECE_MIN:
                pending[-1] += data  # type: ignore[operator]  # it is no memoryview
            else:
                pending.append(data)
            self.unsent += len(data)
            if not self.queued:
                self._turn.queue(self)
            if self.unsent > HIGH_WATER:
                self._crowded()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """
        Send several pieces of bytes, as L{write} does.
        """
        for piece in data:
            self.write(piece)

    def loseConnection(self) -> None:
        """
        Stop reading, send what is unsent, then close.
        """
        if self.connected:
            self.disconnecting = self._draining = True
            self.readable = False
            self.wanted &= ~_IN
            self._touch()

    def loseWriteConnection(self) -> None:
        """
        Send what is unsent, then tell the peer that nothing will follow. Reading goes on.
        """
        if self._writable:
            self._halfClosing = self._draining = True
            self._touch()

    def abortConnection(self) -> None:
        """
        Drop what is unsent and reset the connection. The protocol is told in the next turn of the reactor.
        """
        self._leave()
        self._under.abortConnection()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """
        Have a producer paused while more than L{HIGH_WATER} bytes are unsent, or, where it is not streaming, asked for
        more whenever all is sent.
        """
        self._under.producerPaused = False
        self._under.registerProducer(producer, streaming)
        if not self._under.streamingProducer:
            self._draining = True

    def unregisterProducer(self) -> None:
        """
        Forget the producer.
        """
        self._under.unregisterProducer()
        self._touch()

    # IPushProducer

    def pauseProducing(self) -> None:
        """
        Stop reading.
        """
        self.wanted &= ~_IN
        self._touch()

    def resumeProducing(self) -> None:
        """
        Read again, unless the peer has ended or the connection is being closed.
        """
        if self.readable:
            self.wanted |= _IN
            self._touch()

    def stopProducing(self) -> None:
        """
        Close, as L{loseConnection} does.
        """
        self.loseConnection()

    # What stays with the Twisted transport

    def getHandle(self) -> socket:
        """
        @return: the socket.
        """
        return cast(socket, self._under.getHandle())

    def __repr__(self) -> str:
        return f"<DirectTransport of {self._under!r}>"

    # What the Twisted transport calls, whose protocol this is

    def dataReceived(self, data: bytes) -> None:
        """
        Pass on what the Twisted transport read, which it does only if somebody starts it again.
        """
        self.received(data)

    def connectionLost(self, reason: Failure) -> None:
        """
        Leave the turn, and pass the word on. Whoever closes the Twisted transport, this is called, and once.
        """
        self.watched = 0  # closing the socket took it out of the epoll
        self._leave()
        outer = self._outer
        del self._outer, self.received  # and with them the cycle of protocol and transport
        outer.connectionLost(reason)

    # What the turn calls

    def settle(self) -> None:
        """
        Do what was asked for since the last time: send, do what waited for that, tell the kernel what to wait for.
        """
        self.queued = False
        if self.unsent and not self.wanted & _OUT:
            try:
                self._push()
            except OSError:
                self.close(_LOST)
        if self._draining and not self.unsent:
            self._drained()
        if self.wanted != self.watched:
            self._turn.watch(self)

    def canSend(self) -> None:
        """
        Note that the kernel takes bytes again, or has an error to tell to who tries.
        """
        self.wanted &= ~_OUT
        self._touch()

    def ended(self) -> None:
        """
        The peer will send nothing more: close, unless the protocol can do with half a connection.
        """
        protocol = IHalfCloseableProtocol(self._outer, None)
        if protocol is None:
            self.close(_DONE)
        else:
            self.readable = False
            self.pauseProducing()
            protocol.readConnectionLost()

    def close(self, reason: Failure) -> None:
        """
        Close now.
        """
        self._leave()
        try:
            self._under.connectionLost(reason)
        except BaseException:
            _log.failure("while closing {transport!r}", transport=self)

    def failed(self) -> None:
        """
        Close after an exception that the protocol let out, as a reactor does.
        """
        failure = Failure()
        _log.failure("{transport!r} is closed for an exception", failure, transport=self)
        self.close(failure)

    # Inner parts

    def _touch(self) -> None:
        """
        See to it that L{settle} is called.
        """
        if self.connected and not self.queued:
            self._turn.queue(self)

    def _leave(self) -> None:
        """
        Leave the turn and forget all plans. From here on nothing is read, and all that is asked for is ignored.
        """
        if self.connected:
            self._turn.remove(self)
            self.connected = self.readable = self._writable = self._draining = False
            self.wanted = self.watched = self.unsent = 0
            self._pending.clear()

    def _push(self) -> None:
        """
        Let the kernel take what it will.

        @raise OSError: if the connection is broken.
        """
        pending = self._pending
        try:
            if len(pending) == 1:
                sent = self.socket.send(pending[0])
            elif self.unsent <= JOIN_MAX or (len(pending[0]) < JOIN_MAX and self.unsent < len(pending) * PIECE_MIN):
                pending[:] = [b"".join(pending)]
                sent = self.socket.send(pending[0])
            else:
                sent = self.socket.sendmsg(pending[:PIECES_MAX])
        except OSError as error:
            if error.errno not in (EAGAIN, ENOBUFS):
                raise
            sent = 0
        if sent == self.unsent:
            self.unsent = 0
            pending.clear()
            return
        self.unsent -= sent
        self.wanted |= _OUT
        whole = 0
        for piece in pending:
            if sent < len(piece):
                break
            sent -= len(piece)
            whole += 1
        del pending[:whole]
        pending[0] = memoryview(pending[0])[sent:]

    def _crowded(self) -> None:
        """
        Pause the push producer, if there is one, until all is sent; but only for bytes that the kernel does not take.
        """
        under = self._under
        if under.producer is None or not under.streamingProducer or under.producerPaused:
            return
        try:
            self._push()
        except OSError:
            pass  # settle() gets the error again, and may close where a protocol does not expect it here
        if self.unsent > HIGH_WATER:
            under.producerPaused = self._draining = True
            under.producer.pauseProducing()

    def _drained(self) -> None:
        """
        All is sent: do what waited for that. A producer that has more to say goes first.
        """
        under = self._under
        if under.producer is not None and (under.producerPaused or not under.streamingProducer):
            under.producerPaused = False
            self._draining = self.disconnecting or self._halfClosing or not under.streamingProducer
            under.producer.resumeProducing()
        elif self.disconnecting:
            self.close(_DONE)
        elif self._halfClosing:
            self._halfClosing = self._writable = False
            try:
                self.socket.shutdown(SHUT_WR)
            except OSError:
                pass  # the peer is gone already; reading will tell
            protocol = IHalfCloseableProtocol(self._outer, None)
            if protocol is not None:
                protocol.writeConnectionLost()


@implementer(IReadDescriptor)
class Turn:
    """
    All transports of one reactor that were taken over, and what happens to them in one turn of that reactor.

    It is in the reactor, and has its epoll, only while it has transports.

    @ivar _transports: the transports by the numbers of their sockets.
    @ivar _events: what the kernel said last, as far as it has not been looked at.
    @ivar _came: what was read, and where; no bytes where the peer has ended.
    @ivar _queue: the transports to be settled.
    @ivar _running: whether the queue will be looked at before this turn ends.
    @ivar _later: the call that looks at it otherwise.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._fd = self._epoll.fileno()
        self._transports: dict[int, DirectTransport] = {}
        self._events: Iterator[tuple[int, int]] | None = None
        self._came: deque[tuple[DirectTransport, bytes]] = deque()
        self._queue: list[DirectTransport] = []
        self._running = False
        self._later: IDelayedCall | None = None

    def add(self, transport: DirectTransport) -> None:
        """
        Take part in everything from now on.
        """
        self._transports[transport.fd] = transport
        self.watch(transport)
        # Each time, because whoever empties a reactor (trial between tests) does not tell us.
        self._reactor.addReader(self)

    def remove(self, transport: DirectTransport) -> None:
        """
        Take no part in anything any more.
        """
        del self._transports[transport.fd]
        if transport.watched:
            self._epoll.unregister(transport.fd)
        self._rest()

    def watch(self, transport: DirectTransport) -> None:
        """
        Tell the kernel what a transport waits for.
        """
        if not transport.watched:
            self._epoll.register(transport.fd, transport.wanted)
        elif transport.wanted:
            self._epoll.modify(transport.fd, transport.wanted)
        else:
            self._epoll.unregister(transport.fd)
        transport.watched = transport.wanted

    def queue(self, transport: DirectTransport) -> None:
        """
        Settle a transport at the end of this turn, or as soon as the reactor can if this is not our turn.
        """
        transport.queued = True
        self._queue.append(transport)
        if not self._running:
            self._rest()

    # IReadDescriptor

    def fileno(self) -> int:
        """
        @return: the number of the epoll, also after it is closed, for a reactor to see that it is still the same.
        """
        return self._fd

    def logPrefix(self) -> str:
        """
        @return: what stands before log lines of the protocols.
        """
        return "txconnpool"

    def doRead(self) -> None:
        """
        Read what there is, pass it on, settle what comes of it, and look again a few times. Each is done for all
        transports before the next, so that the processor finds the code of each in its cache.
        """
        outermost = not self._running
        self._running = True
        try:
            for _ in range(ROUNDS):
                self._receive()
                if not (self._came or self._queue):
                    break
                self._deliver()
                self._settle()
        finally:
            if outermost:
                self._running = False
                self._rest()

    def _receive(self) -> None:
        """
        Read from the sockets that are ready, and note which ones may be written to.
        """
        transports = self._transports
        came = self._came
        size = 0
        events = self._events or iter(self._epoll.poll(0, BATCH))
        self._events = None
        for fd, event in events:
            try:
                transport = transports[fd]
            except KeyError:
                continue  # closed because of an event before this one
            # Errors too are for recv to tell. It also sees when a number belongs to another socket by now.
            if transport.wanted & _IN and event != _OUT:
                try:
                    data = transport.socket.recv(READ_SIZE)
                except BlockingIOError:
                    pass
                except OSError:
                    transport.close(_LOST)
                else:
                    came.append((transport, data))
                    size += len(data)
            if event != _IN:
                transport.canSend()
            if size > READ_MAX:
                # The others come first next time. The kernel would name the same ones first as long as these have more.
                self._events = events
                break

    def _deliver(self) -> None:
        """
        Pass on what was read. A neighbour may have closed the connection since, or paused it, which is too late.
        """
        came = self._came
        while came:
            transport, data = came.popleft()
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
        The reactor ends: so do all connections.
        """
        for transport in list(self._transports.values()):
            transport.close(reason)

    def _settle(self) -> None:
        """
        Settle each transport in the queue. What comes into the queue meanwhile has to wait, lest we never end.
        """
        queue = self._queue
        self._queue = []
        for transport in queue:
            try:
                transport.settle()
            except BaseException:
                transport.failed()

    def _takeTurn(self) -> None:
        """
        Do what was asked for outside of a turn, in one of our own.
        """
        self._later = None
        self.doRead()

    def _rest(self) -> None:
        """
        Leave nothing undone and nothing behind when the turn is over.
        """
        if self._running:
            return
        if not self._transports:
            del _turns[self._reactor]
            self._reactor.removeReader(self)
            self._epoll.close()
            if self._later is not None:
                self._later.cancel()
        elif self._queue and self._later is None:
            self._later = self._reactor.callLater(0, self._takeTurn)

    def __repr__(self) -> str:
        return f"<Turn of {list(self._transports.values())!r}>"
