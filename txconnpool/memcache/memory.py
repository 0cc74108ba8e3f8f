# -*- test-case-name: tests.memcache.test_memory -*-
# Copyright txconnpool contributors. See LICENSE.
"""
C{memory:}: a memcached embedded in the process, as a client endpoint.

It needs no server process, no socket and no clean-up. It is meant for a first try of the proxy, and for tests of
programs that use memcached::

    clientFromString(reactor, "memory:size=64m").connect(factory)
    MemoryEndpoint(Clock(), Store()).connect(factory)     # with a clock and a store that the test controls

It implements all of memcached's text protocol (L{txconnpool.memcache.execution}). It has no timers: an expired item is
removed when a request looks for it.
"""

from __future__ import annotations

import re
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import (
    IAddress,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpointStringParserWithReactor,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.memcache.execution import Executor
from txconnpool.memcache.store import STORE_MIN, Store
from txconnpool.net.inprocess import InProcessEndpoint
from txconnpool.wire import ANSWER, BROADCAST, CLOSE, DUMP, MORE, REPLACE, SPLIT, STATISTICS, SWITCH, Command
from txconnpool.wire.memcache.dialect import Memcache

__all__ = ["MemcachedFactory", "MemoryEndpoint", "MemoryParser", "Store"]

_SIZE = re.compile(r"([0-9]{1,15})([kmg]?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@implementer(IPushProducer)
class _Server(Protocol):
    """
    The server's end of one connection to an embedded memcached.

    It is the producer of its transport: while the client does not read its replies, no more requests are executed.

    @ivar buffered: the bytes received and not executed yet.
    """

    transport: Any

    def __init__(self, reactor: IReactorTime, store: Store) -> None:
        self._reactor = reactor
        self._store = store
        self._executor = Executor(store)
        self._read = Memcache(maxItemSize=store.itemMax).requestReader().read
        self.buffered = b""
        self._swallow = 0  # bytes of a refused request that are still to be received and dropped
        self._refusal = b""  # the reply to that request, written when all of it has been received
        self._paused = False

    def connectionMade(self) -> None:
        self._store.started = min(self._store.started, self._reactor.seconds())
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
        self.buffered += data
        self._serve()

    def pauseProducing(self) -> None:
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        self.transport.resumeProducing()
        self._serve()

    def stopProducing(self) -> None:
        self.buffered = b""

    def _serve(self) -> None:
        data, pos, write = self.buffered, 0, self.transport.write
        while pos < len(data) and not self._paused:
            what, end, _, payload = self._read(data, pos, 1)
            if what is MORE:
                break
            if what is SWITCH:
                self._read = payload.read
            elif what is CLOSE:
                write(payload)
                self.transport.loseConnection()
                end = len(data)
            elif what is STATISTICS:
                what, words = payload
                write(what.visible(self._executor.statistics(words, self._reactor.seconds())))
            elif what is ANSWER or what is REPLACE:
                if what is REPLACE:
                    _, request, payload = payload
                    self._executor.execute(request, self._reactor.seconds())
                if end > len(data):
                    self._swallow, self._refusal = end - len(data), payload
                else:
                    write(payload)
            elif what is DUMP:
                write(self._executor.execute(payload[1], self._reactor.seconds()))
            else:
                if what is BROADCAST:
                    what, payload = payload
                elif what is SPLIT:
                    what, payload = payload[0], None  # the store answers all keys at once
                assert isinstance(what, Command), what
                write(what.visible(self._executor.execute(payload or data[pos:end], self._reactor.seconds())))
            pos = end
        self.buffered = data[pos:]


class MemcachedFactory(Factory):
    """
    Builds the server's protocols of an embedded memcached.
    """

    noisy = False

    def __init__(self, reactor: IReactorTime, store: Store) -> None:
        """
        @param reactor: the clock by which items expire.
        @param store: the items that all connections share.
        """
        self._reactor = reactor
        self._store = store

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """
        @return: the server's end of a new connection.
        """
        return _Server(self._reactor, self._store)


class MemoryEndpoint(InProcessEndpoint):
    """
    Connects to an embedded memcached.

    @ivar store: the items that all its connections share. Tests may inspect it, and other endpoints may share it.
    """

    def __init__(self, reactor: IReactorTime, store: Store | None = None, name: str = "") -> None:
        """
        @param store: a new one of 64 MB if not given.
        @param name: the name in the address of its connections.
        """
        self.store = Store() if store is None else store
        super().__init__(reactor, MemcachedFactory(reactor, self.store), name)


# The named stores, by reactor. A process has one reactor, but each of its tests may use a clock in its place.
_named: WeakKeyDictionary[object, dict[str, Store]] = WeakKeyDictionary()


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class MemoryParser:
    """
    Parses C{memory:} strings for L{twisted.internet.endpoints.clientFromString}.

    C{memory:size=64m} makes a new store of 64 MB. C{memory:name=NAME} shares one store among all endpoints with the
    same name.
    """

    prefix = "memory"

    def parseStreamClient(self, reactor: Any, *args: Any, **options: Any) -> MemoryEndpoint:
        """
        Make an endpoint from the parts of a C{memory:} string.

        @param args: must be empty: all options have names.
        @param options: C{size}, the size of the store in bytes, with the unit C{k}, C{m} or C{g} if larger; and
            C{name}, the name of a shared store.

        @raise ValueError: an option is unknown, or its value is invalid.
        """
        for unknown in (*filter(None, args), *sorted(options.keys() - {"size", "name"})):
            raise ValueError(f"memory: unknown option {unknown!r}; the options are size and name")
        size, name = options.get("size", "64m"), options.get("name")
        match = _SIZE.fullmatch(size)
        number = int(match[1]) * _UNITS[match[2].lower()] if match else 0
        if number < STORE_MIN:
            raise ValueError(f"memory: invalid size {size!r}; valid are 1k (the minimum), 64m, 1g and so on")
        if name is None:
            return MemoryEndpoint(reactor, Store(number))
        if not name:
            raise ValueError("memory: name is empty; leave it out for a store that is not shared")
        store = _named.setdefault(reactor, {}).setdefault(name, Store(number))
        if "size" in options and store.size != number:
            raise ValueError(f"memory: invalid size {size!r}; the store {name!r} has {store.size} bytes already")
        return MemoryEndpoint(reactor, store, name)
