# -*- test-case-name: tests.memcache.test_memory -*-
# Copyright txconnpool contributors. See LICENSE.
"""
C{memory:}: a small memcached inside the process, as a client endpoint.

It needs no server, no socket and no clean-up, so it suits a first try of the proxy and the tests of a program that
uses memcached::

    clientFromString(reactor, "memory:size=64m").connect(factory)
    MemoryEndpoint(Clock(), Store()).connect(factory)     # a test's own clock, and a store to look into

All of memcached's text protocol is there (L{txconnpool.memcache.store}). It has no timers of its own: what is expired
goes when it is next asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    NoProtocol,
)
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IProducer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.memcache.store import STORE_MIN, Commands, Store
from txconnpool.net.transport import HIGH_WATER
from txconnpool.wire import ANSWER, CLOSE, EVERYWHERE, INSTEAD, MORE, PARTS, STATISTICS
from txconnpool.wire.memcache.dialect import Memcache

_log = Logger("txconnpool.memory")

__all__ = ["MemoryAddress", "MemoryEndpoint", "MemoryParser", "Store"]

_SIZE = re.compile(r"([0-9]{1,15})([kmg]?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@implementer(IPushProducer)
class _Server(Protocol):
    """
    The memcached end of one connection.

    It is its transport's producer: while the client does not read its replies, no more requests are executed.
    """

    transport: _Transport

    def __init__(self, reactor: IReactorTime, store: Store) -> None:
        self._reactor = reactor
        self._store = store
        self._commands = Commands(store)
        self._dialect = Memcache(maxItemSize=store.itemMax)
        self._data = b""
        self._swallow = 0  # how many bytes of a refused request are still to come
        self._refusal = b""  # and its answer, given when they have come
        self._paused = False

    def connectionMade(self) -> None:
        self._store.connections += 1
        self._store.counters["total_connections"] += 1
        self.transport.registerProducer(self, True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._store.connections -= 1

    def dataReceived(self, data: bytes) -> None:
        if self._swallow:
            taken = min(self._swallow, len(data))
            self._swallow -= taken
            if self._swallow:
                return
            self.transport.write(self._refusal)
            data = data[taken:]
        self._data += data
        self._serve()

    def pauseProducing(self) -> None:
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        self.transport.resumeProducing()
        self._serve()

    def stopProducing(self) -> None:
        self._data = b""

    def _serve(self) -> None:
        data, pos, write = self._data, 0, self.transport.write
        while pos < len(data) and not self._paused:
            what, end, _, payload = self._dialect.requests(data, pos, 1)
            if what is MORE:
                break
            if what is CLOSE:
                write(payload)
                self.transport.loseConnection()
                end = len(data)
            elif what is STATISTICS:
                write(self._commands.statistics(payload, self._reactor.seconds()))
            elif what is ANSWER or what is INSTEAD:
                if what is INSTEAD:
                    _, request, payload = payload
                    self._commands.execute(request, self._reactor.seconds())
                if end > len(data):
                    self._swallow, self._refusal = end - len(data), payload
                else:
                    write(payload)
            else:
                if what is PARTS:
                    what, payload = payload[0], None  # here it is answered whole
                command, request, quiet = payload if what is EVERYWHERE else (what, payload or data[pos:end], False)
                reply = self._commands.execute(request, self._reactor.seconds())
                if not quiet and not (command.hidden and command.hidden(reply, 0)):
                    write(reply)
            pos = end
        self._data = data[pos:]


@implementer(IAddress)
@dataclass(frozen=True)
class MemoryAddress:
    """
    The address of both ends of a connection inside the process.

    @ivar name: the name of the store, if it has one.
    """

    name: str = ""


@implementer(ITransport, IConsumer, IPushProducer)
class _Transport:
    """
    One end of a connection inside the process, with the manners of a TCP transport of Twisted.

    What is written arrives at the other end in the next turn of the reactor, in one piece, if that end is not paused;
    nothing is called from within a call. There is one C{DelayedCall} at most, and none without work for it.

    @ivar connected: until C{connectionLost} is called; C{closed} is called after that.
    @ivar disconnecting: nothing is received any more; the connection closes when all that was written is delivered.
    """

    _peer: _Transport
    _protocol: IProtocol

    def __init__(self, reactor: IReactorTime, address: MemoryAddress, closed: Callable[[], object]) -> None:
        self.connected = True
        self.disconnecting = False
        self._reactor = reactor
        self._address = address
        self._closed = closed
        self._aborted = False
        self._reading = True
        self._written: list[bytes] = []
        self._waiting = 0
        self._turn: IDelayedCall | None = None
        self._producer: Any = None
        self._streaming = False
        self._producerPaused = False

    def getHost(self) -> MemoryAddress:
        return self._address

    def getPeer(self) -> MemoryAddress:
        return self._address

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"Data must be bytes, not {type(data).__name__}")
        if not self.connected or not data:
            return
        self._written.append(bytes(data))
        self._waiting += len(data)
        if self._waiting > HIGH_WATER and self._streaming and not self._producerPaused:
            self._producerPaused = True
            self._producer.pauseProducing()
        self._schedule()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._schedule()

    def abortConnection(self) -> None:
        """
        Close in the next turn; what is not delivered by then never will be.
        """
        self._aborted = self.disconnecting = True
        self._written.clear()
        self._schedule()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError(f"Cannot register producer {producer}: {self._producer} was never unregistered.")
        if not self.connected:
            producer.stopProducing()
            return
        self._producer, self._streaming, self._producerPaused = producer, streaming, False
        if not streaming:
            self._producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self._producer, self._streaming = None, False

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        self._reading = True
        self._peer._schedule()

    def stopProducing(self) -> None:
        self.loseConnection()

    def _schedule(self) -> None:
        """
        Have one turn of the reactor, if there is something to do in it.
        """
        due = (self._peer._reading or self._peer.disconnecting) if self._written else self.disconnecting
        if due and self.connected and self._turn is None:
            self._turn = self._reactor.callLater(0, self._takeTurn)

    def _takeTurn(self) -> None:
        self._turn = None
        peer = self._peer
        if self._written and (peer._reading or peer.disconnecting):
            data = b"".join(self._written)
            self._written.clear()
            self._waiting = 0
            if not peer.disconnecting and not peer._call(peer._protocol.dataReceived, data):
                peer.abortConnection()
        if self.disconnecting:
            if not self._written:
                self._close()
        elif self._producer is not None and not self._written and (self._producerPaused or not self._streaming):
            self._producerPaused = False
            self._call(self._producer.resumeProducing)

    def _call(self, function: Callable[..., object], *args: object) -> bool:
        """
        @return: whether no exception came out of it. One is logged: it must not keep the other end from its events.
        """
        try:
            function(*args)
        except Exception:
            _log.failure("unhandled error in {function}", function=function)
            return False
        return True

    def _close(self) -> None:
        for end in (self, self._peer):
            end.connected = False
            if end._turn is not None:
                end._turn.cancel()
        for end in (self, self._peer):
            if end._producer is not None:
                end._call(end._producer.stopProducing)
            error = ConnectionAborted if end._aborted else ConnectionLost if end._peer._aborted else ConnectionDone
            end._call(end._protocol.connectionLost, Failure(error()))
            end._call(end._closed)


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    Connects to an embedded memcached.

    @ivar store: what all its connections share, to look into and to share with others.
    """

    def __init__(self, reactor: IReactorTime, store: Store | None = None, name: str = "") -> None:
        self.store = Store() if store is None else store
        self._reactor = reactor
        self._address = MemoryAddress(name)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect in the reactor's next turn.

        @return: fires with the protocol; may be cancelled.
        """

        def cancel(connected: Deferred[IProtocol]) -> None:
            if call.active():
                call.cancel()
                protocolFactory.doStop()
            connected.errback(ConnectingCancelledError(self._address))

        connected: Deferred[IProtocol] = Deferred(cancel)
        protocolFactory.doStart()
        call = self._reactor.callLater(0, self.establish, protocolFactory, connected)
        return connected

    def serve(self) -> Protocol:
        """
        @return: who answers at the far end of a new connection.
        """
        return _Server(self._reactor, self.store)

    def establish(self, factory: IProtocolFactory, connected: Deferred[IProtocol]) -> None:
        """
        Make the connection that L{connect} was asked for.
        """
        try:
            protocol = factory.buildProtocol(self._address)
            if protocol is None:
                raise NoProtocol()
        except Exception:
            factory.doStop()
            connected.errback()
            return
        server = self.serve()
        near = _Transport(self._reactor, self._address, factory.doStop)
        far = _Transport(self._reactor, self._address, lambda: None)
        near._peer, near._protocol = far, protocol
        far._peer, far._protocol = near, server
        server.makeConnection(far)
        protocol.makeConnection(near)
        if connected.called:
            near.abortConnection()  # the protocol has had it cancelled
        else:
            connected.callback(protocol)


# The stores with a name, by reactor: a process has one of these, but each of its tests may have a clock for one.
_named: WeakKeyDictionary[object, dict[str, Store]] = WeakKeyDictionary()


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class MemoryParser:
    """
    Makes C{memory:} known to L{twisted.internet.endpoints.clientFromString}.

    C{memory:size=64m} has a store of its own of that many bytes, C{memory:name=NAME} shares one with all endpoints of
    the same name.
    """

    prefix = "memory"

    def parseStreamClient(self, reactor: Any, *args: Any, **options: Any) -> MemoryEndpoint:
        """
        @param args: nothing; what follows C{memory:} has names.
        @param options: C{size}: a number of bytes, or of C{k}, C{m} or C{g} of them. C{name}.
        @raise ValueError: an option is unknown, or its value is wrong.
        """
        for unknown in (*filter(None, args), *sorted(options.keys() - {"size", "name"})):
            raise ValueError(f"memory: unknown option {unknown!r}; size and name are known")
        size, name = options.get("size", "64m"), options.get("name")
        match = _SIZE.fullmatch(size)
        number = int(match[1]) * _UNITS[match[2].lower()] if match else 0
        if number < STORE_MIN:
            raise ValueError(f"memory: size {size!r} is wrong; right are 1k (the least), 64m, 1g and the like")
        if name is None:
            return MemoryEndpoint(reactor, Store(number))
        if not name:
            raise ValueError("memory: name is empty; leave it out for a store that is not shared")
        store = _named.setdefault(reactor, {}).setdefault(name, Store(number))
        if "size" in options and store.size != number:
            raise ValueError(f"memory: size {size!r} is wrong; the store {name!r} has {store.size} bytes already")
        return MemoryEndpoint(reactor, store, name)
