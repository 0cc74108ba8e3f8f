# -*- test-case-name: tests.test_testing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
For the tests of programs that use a pool: servers and time that do as the test says, no sockets, no sleeping.

L{MemoryPool} is a memcached client with a memcached of its own inside the process::

    from twisted.internet.defer import Deferred
    from twisted.trial.unittest import SynchronousTestCase
    from txconnpool.errors import ConnectionLostInFlight
    from txconnpool.testing import MemoryPool, finish

    async def visited(pool, name):                # what is to be tested
        if await pool.add(name, b"1"):
            return 1
        return await pool.increment(name)

    class VisitedTests(SynchronousTestCase):
        def setUp(self):
            self.pool = MemoryPool()
            self.addCleanup(finish, self.pool)    # fails the test if anything is left over

        def test_again(self):
            self.pool.result(self.pool.set("home", b"41"))
            self.assertEqual(self.pool.result(visited(self.pool, "home")), 42)

        def test_lost(self):
            self.pool.result(self.pool.version())  # now there is a connection
            self.pool.server.hold()               # what it says from now on does not arrive
            answer = Deferred.fromCoroutine(visited(self.pool, "home"))
            self.pool.flush()                     # all that can happen without time passing
            self.pool.server.reset()
            self.pool.flush()
            self.failureResultOf(answer, ConnectionLostInFlight)

For a pool of clients of another protocol there is L{FakeServer}, to be given to L{txconnpool.pool.library.Pool} as the
address of a server::

    reactor = MemoryReactorClock()
    server = FakeServer(reactor, Factory.forProtocol(GreetingServer))
    pool = Pool(server, reactor=reactor, clientFactory=Factory.forProtocol(GreetingClient))
    greeting = pool.performRequest("greet", "world")
    reactor.advance(0)

The reactors are L{MemoryReactorClock<twisted.internet.testing.MemoryReactorClock>}: their C{advance} lets time pass.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from txconnpool.memcache.memory import MemcachedFactory
from txconnpool.memcache.pool import MemCachePool
from txconnpool.memcache.store import Store
from txconnpool.net.inprocess import InProcessEndpoint
from txconnpool.pool.engine import PoolEngine

__all__ = ["FakeConnection", "FakeServer", "MemoryPool", "finish"]

T = TypeVar("T")


def finish(pool: PoolEngine) -> None:
    """
    Close a pool at the end of a test: C{self.addCleanup(finish, pool)}.

    @param pool: any pool on a reactor that is a clock.

    @raise AssertionError: something is left: requests in flight, clients that were not given back, timers.
    """
    closed = pool.close()
    pool.reactor.advance(0)
    left = repr(pool)
    if not closed.called:
        pool.abort()
        pool.reactor.advance(0)
        raise AssertionError(f"not everything has ended: {left}")
    calls = pool.reactor.getDelayedCalls()
    assert not calls, f"timers are left: {calls}"


class FakeConnection(Protocol):
    """
    The server's end of one connection. It stands between the transport and the protocol of the server, and is to each
    of them the other.

    @ivar received: all that has come from the client.
    @ivar connected: whether the connection is still there.
    """

    transport: Any

    def __init__(self, server: FakeServer, protocol: IProtocol) -> None:
        self.received = b""
        self._server = server
        self._protocol = protocol
        self._held: bytes | None = b"" if server.holding else None

    # -- For the test

    def hold(self) -> None:
        """
        Keep back what the server says from now on.
        """
        if self._held is None:
            self._held = b""

    def release(self, size: int | None = None) -> None:
        """
        Let what was kept back go to the client.

        @param size: only so many bytes of it, and go on keeping back. C{None}: all, and from now on what comes.
        """
        held = self._held or b""
        if size is None:
            size = len(held)
            self._held = None
        else:
            self._held = held[size:]
        self.transport.write(held[:size])

    def say(self, data: bytes) -> None:
        """
        Send the client something, asked for or not.
        """
        self.transport.write(data)

    def close(self) -> None:
        """
        Close the connection in order: the client learns C{ConnectionDone}.
        """
        self.transport.loseConnection()

    def reset(self) -> None:
        """
        Break the connection: what is on its way is lost, the client learns C{ConnectionLost}.
        """
        self.transport.abortConnection()

    # -- For the transport

    def connectionMade(self) -> None:
        """
        Be the transport of the server's protocol.
        """
        self._server.connections.append(self)
        self._protocol.makeConnection(self)  # type: ignore[arg-type]  # the rest is what __getattr__ passes on

    def dataReceived(self, data: bytes) -> None:
        """
        The client says something.
        """
        self.received += data
        self._protocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        It is over.
        """
        self._server.connections.remove(self)
        self._protocol.connectionLost(reason)

    # -- For the server's protocol

    def write(self, data: bytes) -> None:
        """
        The server says something.
        """
        if self._held is None:
            self.transport.write(data)
        else:
            self._held += data

    def writeSequence(self, data: list[bytes]) -> None:
        """
        The server says something.
        """
        self.write(b"".join(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


class FakeServer(InProcessEndpoint):
    """
    A server inside the process, as an endpoint: one that accepts and answers, until it is told otherwise.

    @ivar connections: the connections that there are, oldest first.
    @ivar dials: how many were asked for.
    @ivar holding: whether what it says is kept back. The pool of a memcached uses no connection on which the server has
        not said its version, so have one first.
    @ivar store: what the memcached knows, if it is one.
    """

    def __init__(self, reactor: IReactorTime, factory: IProtocolFactory | None = None) -> None:
        """
        @param factory: makes the server's protocols. If not given, the server is a memcached.
        """
        self.store = Store()
        super().__init__(reactor, factory or MemcachedFactory(reactor, self.store))
        self.connections: list[FakeConnection] = []
        self.dials = 0
        self.holding = False
        self._refusal: Exception | None = None
        self._hanging = False
        self._hung: list[tuple[IProtocolFactory, Deferred[IProtocol]]] = []

    # -- Whether there is a connection

    def accept(self) -> None:
        """
        Accept connections, also those that hang.
        """
        self._refusal, self._hanging = None, False
        self._settle()

    def refuse(self, reason: Exception | None = None) -> None:
        """
        Refuse connections, also those that hang. The connections that there are stay.

        @param reason: how; L{ConnectionRefusedError} if not given.
        """
        self._refusal, self._hanging = reason or ConnectionRefusedError(), False
        self._settle()

    def hang(self) -> None:
        """
        Neither accept nor refuse connections.
        """
        self._hanging = True

    def _settle(self) -> None:
        hung, self._hung = self._hung, []
        for factory, connected in hung:
            self.establish(factory, connected)

    # -- What becomes of all connections

    def hold(self) -> None:
        """
        Keep back what is said from now on, on new connections too.
        """
        self.holding = True
        for connection in self.connections:
            connection.hold()

    def release(self, size: int | None = None) -> None:
        """
        Let what was kept back go to the clients.

        @param size: so many bytes on each connection, and go on keeping back. C{None}: all, and from now on what comes.
        """
        self.holding = size is not None
        for connection in self.connections:
            connection.release(size)

    def close(self) -> None:
        """
        Close all connections in order.
        """
        for connection in self.connections:
            connection.close()

    def reset(self) -> None:
        """
        Break all connections.
        """
        for connection in self.connections:
            connection.reset()

    # -- For the endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect, or not.

        @return: fires with the protocol; may be cancelled.
        """
        self.dials += 1
        return super().connect(protocolFactory)

    def establish(self, factory: IProtocolFactory, connected: Deferred[IProtocol]) -> None:
        """
        Do with a dial as was said.
        """
        if connected.called:  # it was cancelled while it hung
            factory.doStop()
        elif self._hanging:
            self._hung.append((factory, connected))
        elif self._refusal is not None:
            factory.doStop()
            connected.errback(self._refusal)
        else:
            super().establish(factory, connected)

    def serve(self) -> IProtocol:
        """
        @return: the far end of a new connection.
        """
        return FakeConnection(self, super().serve())


class MemoryPool(MemCachePool):
    """
    A memcached client with a memcached of its own. It connects at once; each step that it takes needs L{flush}.

    @ivar server: the memcached.
    @ivar clock: the time of both, and their reactor.
    """

    def __init__(self, **settings: Any) -> None:
        """
        @param settings: as for L{MemCachePool}.
        """
        self.clock = MemoryReactorClock()
        self.server = FakeServer(self.clock)
        super().__init__(self.server, reactor=self.clock, **settings)

    def flush(self) -> None:
        """
        Let everything happen that can happen without time passing.
        """
        self.clock.advance(0)

    def result(self, answer: Deferred[T] | Coroutine[Any, Any, T]) -> T:
        """
        Let everything happen that can, and see what comes of C{answer}.

        @return: its result.

        @raise Exception: whatever it fails with; an C{AssertionError} if it needs more time.
        """
        results: list[T | Failure] = []
        ensureDeferred(answer).addBoth(results.append)
        self.flush()
        assert results, f"there is no result without time passing: {self!r}"
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]
