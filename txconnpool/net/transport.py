# -*- test-case-name: tests.net.test_transport -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A transport that costs less per request than Twisted's own, and small functions for transports of any kind.

A Twisted transport pays, for each event, for a log context around it and, for each write, for two C{epoll_ctl} and one
more turn of the reactor. Beside a parser of a few microseconds that is most of the cost of a request. L{adopt} takes
a socket over from its Twisted transport. From then on L{Turn<txconnpool.net.turn.Turn>} reads it together with all
others that were taken over, and sends what was written once for each transport and turn of the reactor.

Code that runs for every request does not call a callable attribute as C{self._write(data)}, but by a local name:
CPython looks for a method of that name each time, and caches nothing when it finds none.

Protocols see no difference: the transport behaves as Twisted's does, and it is Twisted's own wherever a socket cannot
be taken over (TLS, tests in memory, wrapping protocols, other platforms and reactors).
"""

from __future__ import annotations

import ipaddress
import socket as socketModule
from collections.abc import Callable, Iterable
from errno import EAGAIN, EINTR, ENOBUFS
from socket import IPPROTO_TCP, SHUT_WR, socket
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IPushProducer,
    IReactorFDSet,
    ISystemHandle,
    ITCPTransport,
    ITransport,
    IUNIXTransport,
)
from twisted.logger import Logger
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.net.sockets import HAS_EPOLL, IN
from txconnpool.net.sockets import chosenSend as send
from txconnpool.net.turn import LOST, OUT, Turn, turnOf

#: Whether L{adopt} takes sockets over at all. If it is false, every protocol keeps the transport it has.
DIRECT = HAS_EPOLL

#: A push producer is paused while more bytes than this are unsent. It is Twisted's own number.
HIGH_WATER = 1 << 16

#: Up to this number of bytes it costs less to join several pieces than to let the kernel gather them.
JOIN_MAX = 1 << 16

#: It also costs less to join any number of bytes if the average piece is smaller than this.
PIECE_MIN = 1 << 12

#: The largest number of pieces that the kernel gathers at once, its C{IOV_MAX}.
PIECES_MAX = 1024

#: An idle TCP connection is probed after this time, in seconds. Firewalls and balancers forget connections that are
#: idle for some minutes.
KEEP_ALIVE_IDLE = 60

#: A probe without an answer is sent again after this time, in seconds.
KEEP_ALIVE_INTERVAL = 10

#: The connection is closed after this number of probes without an answer.
KEEP_ALIVE_PROBES = 6

#: The socket options for these, as far as the platform has them. macOS has the first under another name.
_KEEP_ALIVE = [
    (getattr(socketModule, name), value)
    for name, value in (
        ("TCP_KEEPIDLE", KEEP_ALIVE_IDLE),
        ("TCP_KEEPALIVE", KEEP_ALIVE_IDLE),
        ("TCP_KEEPINTVL", KEEP_ALIVE_INTERVAL),
        ("TCP_KEEPCNT", KEEP_ALIVE_PROBES),
    )
    if hasattr(socketModule, name)
]

#: The classes of Twisted whose sockets are taken over. Subclasses are not: they may read and write in their own way.
_PLAIN = (tcp.Server, tcp.Client, unix.Server, unix.Client)

#: The errors of a socket that takes no bytes now.
_BUSY = (EAGAIN, ENOBUFS, EINTR)

_DONE = Failure(ConnectionDone("Connection done"))

_log = Logger("txconnpool.net")


def adopt(protocol: IProtocol, reactor: object, direct: bool = True) -> ITransport:
    """
    Take over the socket of a protocol's transport, if that is possible.

    Call it in C{connectionMade}, before anything is written, as C{self.transport = adopt(self, reactor)}. From then on
    received bytes go to C{protocol.dataReceived}, as it is bound now, without the wrappers that an endpoint may have
    put around the protocol. C{connectionLost} still passes through the wrappers. The previous transport must not be
    used any more: closing it closes the connection, but drops unsent bytes.

    A L{DirectTransport} cannot start TLS or pass file descriptors.

    @param protocol: the protocol, connected to its transport.
    @param reactor: the reactor of that transport.
    @param direct: C{False}: do not take the socket over, for comparisons.

    @return: a L{DirectTransport}; or the protocol's own transport, if that has unsent bytes, or is not one of Twisted's
        plain TCP or UNIX stream transports on a reactor that watches descriptors.
    """
    transport = cast(Any, protocol).transport
    if (
        not (direct and DIRECT and IReactorFDSet.providedBy(reactor))
        or type(transport) not in _PLAIN
        or transport.TLS
        or transport in reactor.getWriters()
    ):
        return cast(ITransport, transport)
    return DirectTransport(protocol, transport, turnOf(reactor))


def redirect(transport: Any, protocol: Any, received: Callable[[bytes], None] | None) -> None:
    """
    Give the bytes that a connection receives to another function from now on.

    @param transport: the result of L{adopt}.
    @param protocol: the protocol of the connection.
    @param received: the function; C{None}: C{protocol.dataReceived} as its class defines it.
    """
    if isinstance(transport, DirectTransport):
        if cast(Any, transport).connected:
            cast(Any, transport).received = received or protocol.dataReceived
    elif received is not None:
        protocol.dataReceived = received
    else:
        vars(protocol).pop("dataReceived", None)


def tune(transport: Any) -> None:
    """
    Set the options of a TCP connection: send without delay (C{TCP_NODELAY}), and detect a peer that has vanished
    (C{SO_KEEPALIVE}). Other connections have no such options.

    Where the platform allows it, an idle connection is probed each L{KEEP_ALIVE_IDLE} seconds, so that a firewall or
    balancer between does not forget it; the system's own time is often two hours.
    """
    # Twisted's UNIX transports claim to provide ITCPTransport too. With older versions the calls would fail.
    if ITCPTransport.providedBy(transport) and not IUNIXTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        bare: Any = transport
        while (under := getattr(bare, "transport", None)) is not None:  # TLS, and wrappers, are above the socket
            bare = under
        if ISystemHandle.providedBy(bare):
            handle: Any = bare.getHandle()
            for name, value in _KEEP_ALIVE:
                handle.setsockopt(IPPROTO_TCP, name, value)


class _Unqueued:
    """
    Stands for a transport of Twisted, which does not report whether it will send.
    """

    queued = False

    @staticmethod
    def announce() -> None:
        """
        Do nothing, see L{DirectTransport.announce}.
        """


def outletOf(transport: ITransport) -> Any:
    """
    @param transport: the result of L{adopt}.

    @return: an object with the attribute C{queued}. It is true if the transport will send bytes at the end of this turn
        of the reactor, because they were written or L{announced<DirectTransport.announce>}. For a transport of another
        kind it is always false.
    """
    return transport if hasattr(transport, "queued") else _Unqueued


def peerOf(transport: ITransport) -> str:
    """
    @return: the address of the peer for people: C{host:port}, C{[host]:port} for IPv6, or C{unix}.
    """
    return _textOf(transport.getPeer()) or "unix"


def endsOf(transport: ITransport) -> tuple[str, str]:
    """
    @return: the address of the peer, and the one that it has connected to: C{host:port}, C{[host]:port} for IPv6, or
        twice C{path:0} for a UNIX socket.
    """
    here: Any = transport.getHost()
    text = _textOf(here)
    if text is None:
        name = getattr(here, "name", None) or b""
        text = (name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")) + ":0"
    return _textOf(transport.getPeer()) or text, text


def _textOf(address: Any) -> str | None:
    host = getattr(address, "host", None)
    if host is None:
        return None
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


def placeOf(transport: ITransport) -> tuple[str, int] | None:
    """
    @return: the IP address and the port that the peer has connected to; C{None} for a UNIX socket.
    """
    here: Any = transport.getHost()
    host = getattr(here, "host", None)
    if host is None:
        return None
    # A socket for both versions of IP shows addresses of IPv4 in this form, with which few clients can connect.
    return host.removeprefix("::ffff:") if "." in host else host, here.port


def networkOf(host: str | None) -> str | None:
    """
    @param host: the IP address of a peer; C{None} for a UNIX socket.

    @return: the address by which the peer is counted: of an IPv6 address only the first 64 bits, because one host has
        all the rest.
    """
    if host is None or ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(address.ipv4_mapped or address.exploded[:19])


def closeAfterFlush(transport: Any) -> None:
    """
    Flush pending writes, then close without waiting for the peer.

    C{loseConnection} does that for plain connections. Over TLS it waits until a producer has ended, and then until the
    peer has closed its side too, which is only noticed while the connection is read.

    @param transport: the result of L{adopt}.
    """
    under = getattr(transport, "transport", None)
    if under is not None:
        transport.unregisterProducer()
    transport.loseConnection()
    if under is not None:
        under.loseConnection()


def endWriting(transport: Any) -> None:
    """
    Flush pending writes, then close this direction. What the peer still sends is received.

    Over TLS this sends C{close_notify}. Most peers then send the rest, and close the connection. A connection to a
    server inside the process is closed.

    @param transport: the result of L{adopt}.
    """
    # Wrappers pass on the call, which would close the direction below TLS. Connections inside a process have none.
    if getattr(transport, "transport", None) is not None or not hasattr(transport, "loseWriteConnection"):
        transport.unregisterProducer()
        transport.loseConnection()
    else:
        transport.loseWriteConnection()


def wasClosed(transport: Any, reason: Failure) -> bool:
    """
    @param transport: the result of L{adopt}.
    @param reason: why its connection was lost.

    @return: whether the peer has closed it; if not, it was reset. Over TLS many peers close without C{close_notify},
        which Twisted reports as it reports a reset, so all losses count as closed there.
    """
    return reason.check(ConnectionDone) is not None or getattr(transport, "transport", None) is not None


#: The base class of an C{ITCPTransport} that forwards all calls to another one.
_Forwarding: Any = proxyForInterface(ITCPTransport, "_under")


@implementer(IConsumer, IPushProducer, ISystemHandle)
class DirectTransport(_Forwarding):
    """
    A transport that reads and writes the socket of a Twisted transport itself.

    It is between the two: the Twisted transport has it as its protocol, and the protocol has it as its transport.
    Everything but moving bytes stays with the Twisted transport: addresses, options, the registered producer, closing.

    Calls of its methods only change its state. L{settle} carries them out: the turn calls that once for each transport
    that was given to L{Turn.queue<txconnpool.net.turn.Turn.queue>}.

    @ivar connected: whether the connection exists and was not aborted.
    @ivar disconnecting: whether L{loseConnection} was called.
    @ivar unsent: the number of bytes that were written and not yet taken by the kernel.
    @ivar queued: whether the turn will call L{settle}.
    @ivar wanted: the events that this transport waits for, as an epoll mask.
    @ivar watched: the events that the kernel reports for it.
    @ivar readable: whether bytes that arrive are for the protocol: neither side has closed the connection.
    @ivar socket: the socket.
    @ivar fd: the number of the socket.
    @ivar received: the method of the protocol that takes received bytes.
    """

    __slots__ = (
        "_draining",
        "_flowing",
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
        self._writable = self._flowing = True
        self._draining = False
        self._halfClosing = False
        self.connected = True
        self.disconnecting = False
        self.unsent = 0
        self.fd = self.socket.fileno()
        self.received = protocol.dataReceived
        self.wanted = IN
        self.watched = 0
        under.stopReading()
        under.protocol = self
        turn.add(self)

    @property
    def pieces(self) -> int:
        """
        How many pieces the unsent bytes are in.
        """
        return len(self._pending)

    # ITransport, IConsumer

    def write(self, data: bytes) -> None:
        """
        Send bytes at the end of this turn. They are dropped if the connection is lost.
        """
        if not (self._flowing and isinstance(data, bytes)):
            self._writeLater(data)
            return
        self._pending.append(data)
        self.unsent = unsent = self.unsent + len(data)
        if not self.queued:
            self._turn.queue(self)
        if unsent > HIGH_WATER:
            self._pauseProducer()

    def announce(self) -> None:
        """
        Bytes will be written before the end of this turn.
        """
        self._enqueue()

    def _writeLater(self, data: bytes) -> None:
        """
        Write when the kernel has not taken all earlier bytes, or nothing can be written any more.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"Data must be bytes, not {type(data).__name__}")
        if self._writable:
            pending = self._pending
            # The first piece may be a memoryview, the rest of a larger one. Many small pieces would take a multiple of
            # their bytes in memory.
            if len(pending) > 1 and len(pending[-1]) < PIECE_MIN:
                pending[-1] += data  # type: ignore[operator]  # only the first piece can be a memoryview
            else:
                pending.append(data)
            self.unsent += len(data)
            if self.unsent > HIGH_WATER:
                self._pauseProducer()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """
        Send several pieces as L{write} does.
        """
        for piece in data:
            self.write(piece)

    def loseConnection(self) -> None:
        """
        Stop reading, send the unsent bytes, then close.
        """
        if self.connected:
            self.disconnecting = self._draining = True
            self.readable = False
            self.wanted &= ~IN
            self._enqueue()

    def loseWriteConnection(self) -> None:
        """
        Send the unsent bytes, then close this direction. Reading goes on.
        """
        if self._writable:
            self._halfClosing = self._draining = True
            self._enqueue()

    def abortConnection(self) -> None:
        """
        Drop the unsent bytes and reset the connection. C{connectionLost} is called in the next turn of the reactor.
        """
        self._detach()
        self._under.abortConnection()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """
        Register a producer. One that is streaming is paused while more than L{HIGH_WATER} bytes are unsent; any other
        is resumed whenever all bytes are sent.
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
        self._enqueue()

    # IPushProducer

    def pauseProducing(self) -> None:
        """
        Stop reading.
        """
        self.wanted &= ~IN
        self._enqueue()

    def resumeProducing(self) -> None:
        """
        Read again, unless the peer has closed its side or this side is closing.
        """
        if self.readable:
            self.wanted |= IN
            self._enqueue()

    def stopProducing(self) -> None:
        """
        Close, as L{loseConnection} does.
        """
        self.loseConnection()

    # Other calls that the Twisted transport answers

    def getHandle(self) -> socket:
        """
        @return: the socket.
        """
        return cast(socket, self._under.getHandle())

    def __repr__(self) -> str:
        return f"<DirectTransport of {self._under!r}>"

    # Calls of the Twisted transport to its protocol

    def dataReceived(self, data: bytes) -> None:
        """
        Pass on bytes that the Twisted transport has read, which it does only if something has resumed it.
        """
        self.received(data)

    def connectionLost(self, reason: Failure) -> None:
        """
        Leave the turn, and notify the protocol. This is called once, whatever closes the Twisted transport.
        """
        self.watched = 0  # closing the socket has removed it from the epoll
        self._detach()
        outer = self._outer
        del self._outer, self.received  # breaks the reference cycle of protocol and transport
        outer.connectionLost(reason)

    # Calls of the turn

    def settle(self) -> None:
        """
        Carry out the calls since the last time: send, do what waits for that, set the events that the kernel reports.
        """
        self.queued = False
        unsent = self.unsent
        if unsent and not self.wanted & OUT:
            sent = send(self.fd, self._pending) if unsent <= JOIN_MAX else self._sendMany()
            if sent == unsent:
                self.unsent = 0
                self._pending.clear()
            elif sent >= 0 or -sent in _BUSY:
                self._keepUnsent(max(sent, 0))
            else:
                self.close(LOST)
        if self._draining and not self.unsent:
            self._drained()
        if self.wanted != self.watched:
            self._turn.watch(self)

    def canSend(self) -> None:
        """
        Send again in this turn: the kernel takes bytes, or has an error that sending will return.
        """
        self.wanted &= ~OUT
        self._flowing = self._writable
        self._enqueue()

    def ended(self) -> None:
        """
        The peer has closed its side: close the connection, unless the protocol is an C{IHalfCloseableProtocol}.
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
        Close the connection now.
        """
        self._detach()
        try:
            self._under.connectionLost(reason)
        except BaseException:
            _log.failure("while closing {transport!r}", transport=self)

    def failed(self) -> None:
        """
        Log the current exception, which the protocol has raised, and close the connection, as a reactor does.
        """
        failure = Failure()
        _log.failure("{transport!r} is closed for an exception", failure, transport=self)
        self.close(failure)

    def _enqueue(self) -> None:
        if self.connected and not self.queued:
            self._turn.queue(self)

    def _detach(self) -> None:
        """
        Leave the turn. From here on nothing is read, and all calls are ignored.
        """
        if self.connected:
            self._turn.remove(self)
            self.connected = self.readable = self._writable = self._flowing = self._draining = False
            self.wanted = self.watched = self.unsent = 0
            self._pending.clear()

    def _sendMany(self) -> int:
        """
        Write more than L{JOIN_MAX} bytes, as far as the kernel takes them.

        @return: the number of bytes that were taken, or the negative C{errno}.
        """
        pending = self._pending
        if len(pending[0]) < JOIN_MAX and self.unsent < len(pending) * PIECE_MIN:
            pending[:] = [b"".join(pending)]
        if len(pending) == 1:
            return send(self.fd, pending)
        try:
            return self.socket.sendmsg(pending[:PIECES_MAX])
        except OSError as error:
            return -(error.errno or EAGAIN)

    def _keepUnsent(self, sent: int) -> None:
        """
        Keep the bytes that the kernel has not taken, until it reports that there is room.
        """
        pending = self._pending
        if self.unsent <= JOIN_MAX:
            pending[:] = [b"".join(pending)]
        self.unsent -= sent
        self.wanted |= OUT
        self._flowing = False
        sentPieces = 0
        for piece in pending:
            if sent < len(piece):
                break
            sent -= len(piece)
            sentPieces += 1
        del pending[:sentPieces]
        pending[0] = memoryview(pending[0])[sent:]

    def _pauseProducer(self) -> None:
        """
        Pause the push producer, if there is one, until all bytes are sent, unless the kernel takes them now.
        """
        under = self._under
        if under.producer is None or not under.streamingProducer or under.producerPaused:
            return
        sent = self._sendMany()
        if sent == self.unsent:
            self.unsent = 0
            self._pending.clear()
        elif sent > 0:  # settle() gets an error again. Here, during a write, the protocol does not expect to be closed.
            self._keepUnsent(sent)
        if self.unsent > HIGH_WATER:
            under.producerPaused = self._draining = True
            under.producer.pauseProducing()

    def _drained(self) -> None:
        """
        All bytes are sent: do what waits for that. A producer that has more to write comes first.
        """
        under = self._under
        if under.producer is not None and (under.producerPaused or not under.streamingProducer):
            under.producerPaused = False
            self._draining = self.disconnecting or self._halfClosing or not under.streamingProducer
            under.producer.resumeProducing()
        elif self.disconnecting:
            self.close(_DONE)
        elif self._halfClosing:
            self._halfClosing = self._writable = self._flowing = False
            try:
                self.socket.shutdown(SHUT_WR)
            except OSError:
                pass  # the peer has closed the connection already, which reading will find
            protocol = IHalfCloseableProtocol(self._outer, None)
            if protocol is not None:
                protocol.writeConnectionLost()
