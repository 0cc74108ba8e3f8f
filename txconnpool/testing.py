# -*- test-case-name: tests.test_testing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
For tests of programs that use a pool: servers and a clock that the test controls, without sockets and real time.

L{MemoryPool} is a memcached client with its own memcached in the process::

    from twisted.internet.defer import Deferred
    from twisted.trial.unittest import SynchronousTestCase
    from txconnpool.errors import ConnectionLostInFlight, PoolTimeout, ServerUnavailable
    from txconnpool.testing import MemoryPool, finish

    async def visited(pool, name):                # the function to test
        if await pool.add(name, b"1"):
            return 1
        return await pool.increment(name)

    class VisitedTests(SynchronousTestCase):
        def setUp(self):
            self.pool = MemoryPool()
            self.addCleanup(finish, self.pool)    # fails the test if requests, leases or timers are left

        def test_again(self):
            self.pool.result(self.pool.set("home", b"41"))
            self.assertEqual(self.pool.result(visited(self.pool, "home")), 42)

        def test_down(self):
            self.pool.server.refuse()             # refuse new connections from now on
            self.assertRaises(ServerUnavailable, self.pool.result, visited(self.pool, "home"))

        def test_hanging(self):
            self.pool.server.hang()               # new connections hang
            answer = Deferred.fromCoroutine(visited(self.pool, "home"))
            self.pool.clock.advance(5)
            self.failureResultOf(answer, PoolTimeout)

        def test_lost(self):
            self.pool.result(self.pool.version())  # make a connection
            self.pool.server.hold()               # hold back all replies from now on
            answer = Deferred.fromCoroutine(visited(self.pool, "home"))
            self.pool.flush()                     # run all events that are due now
            self.pool.server.reset()
            self.pool.flush()
            self.failureResultOf(answer, ConnectionLostInFlight)

L{MemoryRedisPool} is the same for Redis: a L{RedisPool<txconnpool.redis.RedisPool>} with its own L{FakeRedis}.

For a pool of clients of another protocol, pass a L{FakeServer} to L{txconnpool.routing.requests.Pool} as the address of
a server::

    reactor = SteppingClock()
    server = FakeServer(reactor, Factory.forProtocol(GreetingServer))
    pool = Pool(server, reactor=reactor, clientFactory=Factory.forProtocol(GreetingClient))
    greeting = reactor.result(pool.performRequest("greet", "world"))

Time passes with C{advance} of the reactor, a L{SteppingClock}. Any other
L{MemoryReactorClock<twisted.internet.testing.MemoryReactorClock>} can be used too.
"""

from __future__ import annotations

from collections.abc import Coroutine
from math import inf
from typing import Any, TypeVar, Unpack, overload

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from txconnpool.memcache.memory import MemcachedFactory
from txconnpool.memcache.pool import MemCacheOptions, MemCachePool
from txconnpool.memcache.results import V
from txconnpool.memcache.store import Store
from txconnpool.net.inprocess import InProcessEndpoint
from txconnpool.pool.engine import PoolEngine
from txconnpool.redis.base import V as W
from txconnpool.redis.memory.data import Data
from txconnpool.redis.memory.server import RedisFactory
from txconnpool.redis.pool import RedisOptions, RedisPool
from txconnpool.routing.library import PoolFace

__all__ = ["FakeConnection", "FakeRedis", "FakeServer", "MemoryPool", "MemoryRedisPool", "SteppingClock", "finish"]

T = TypeVar("T")


def finish(*pools: PoolEngine | PoolFace[Any]) -> None:
    """
    Close pools at the end of a test: C{self.addCleanup(finish, pool)}.

    @param pools: any pools on one reactor that is a clock.

    @raise AssertionError: requests in flight or waiting, leases or timers are left.
    """
    for pool in pools:
        pool.reactor.advance(0)
    left = []
    for pool in pools:
        waiting, text = pool.waiting, repr(pool)
        closed = pool.close()
        pool.reactor.advance(0)
        if waiting or not closed.called:
            left.append(text)
            pool.abort()
            pool.reactor.advance(0)
    if left:
        raise AssertionError(f"requests or leases are left: {', '.join(left)}")
    for pool in pools:
        calls = pool.reactor.getDelayedCalls()
        assert not calls, f"timers are left: {calls}"


class SteppingClock(MemoryReactorClock):
    """
    A reactor in memory on which time passes from event to event, as on a real one::

        clock = SteppingClock()
        pool = MemCachePool(FakeServer(clock), reactor=clock)
        answer = pool.get("key")        # is sent at the end of this turn of the reactor
        clock.advance(5)                # sends it first, then lets time pass

    The C{advance} of Twisted's C{Clock} sets the time before it runs what is due, so that a request of this turn would
    be sent five seconds late.
    """

    def advance(self, amount: float) -> None:
        """
        Let time pass, and run all events that are due meanwhile, each at its time.

        @param amount: the seconds; 0 runs what is due now.
        """
        end = self.seconds() + amount
        while (due := min((call.getTime() for call in self.getDelayedCalls()), default=inf)) <= end:
            self.rightNow = max(self.rightNow, due)  # not a sum, which may be rounded to a time before it
            super().advance(0)
        self.rightNow = end

    def result(self, answer: Deferred[T] | Coroutine[Any, Any, T]) -> T:
        """
        Run all events that are due now, and get the result of C{answer}. A coroutine begins after them, and those that
        follow from it are run too.

        @return: its result.

        @raise Exception: the exception that it fails with; C{AssertionError} if there is no result yet.
        """
        return _resultOf(self, answer, self)


def _resultOf(clock: SteppingClock, answer: Deferred[T] | Coroutine[Any, Any, T], subject: object) -> T:
    results: list[T | Failure] = []
    if not isinstance(answer, Deferred):
        clock.advance(0)  # it begins after what the test has done to the server
    ensureDeferred(answer).addBoth(results.append)
    clock.advance(0)
    assert results, f"there is no result without time passing: {subject!r}"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


class FakeConnection(Protocol):
    """
    The server's end of one connection::

        server = FakeServer(reactor)
        server.connections[0].send(b"SERVER_ERROR out of memory")
        server.connections[0].reset()

    It stands between the transport and the protocol of the server: it is the protocol of the transport, and the
    transport of the server's protocol.

    @ivar received: all bytes received from the client.
    @ivar connected: whether the connection is open.
    """

    transport: Any

    def __init__(self, server: FakeServer, protocol: IProtocol) -> None:
        """
        @param server: the server that accepted the connection.
        @param protocol: the protocol that answers the client.
        """
        self.received = b""
        self._server = server
        self._protocol = protocol
        self._held: bytes | None = b"" if server.holding else None

    # -- For the test

    def hold(self) -> None:
        """
        Hold back all bytes that the server's protocol writes from now on.
        """
        if self._held is None:
            self._held = b""

    def release(self, size: int | None = None) -> None:
        """
        Send held-back bytes to the client.

        @param size: how many bytes; all others are still held back. C{None}: send all, and stop holding back.
        """
        held = self._held or b""
        if size is None:
            size = len(held)
            self._held = None
        else:
            self._held = held[size:]
        self.transport.write(held[:size])

    def send(self, data: bytes) -> None:
        """
        Send bytes to the client, ahead of those that are held back.
        """
        self.transport.write(data)

    def close(self) -> None:
        """
        Close the connection cleanly: the client sees C{ConnectionDone}.
        """
        self.transport.loseConnection()

    def reset(self) -> None:
        """
        Reset the connection: bytes not delivered yet are lost, and the client sees C{ConnectionLost}.
        """
        self.transport.abortConnection()

    # -- For the transport

    def connectionMade(self) -> None:
        """
        Connect the server's protocol.
        """
        self._server.connections.append(self)
        self._protocol.makeConnection(self)  # type: ignore[arg-type]  # the rest is what __getattr__ passes on

    def dataReceived(self, data: bytes) -> None:
        """
        Record bytes from the client and pass them to the server's protocol.
        """
        self.received += data
        self._protocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Pass the end of the connection to the server's protocol.
        """
        self._server.connections.remove(self)
        self._protocol.connectionLost(reason)

    # -- For the server's protocol

    def write(self, data: bytes) -> None:
        """
        Send bytes of the server's protocol to the client, unless they are held back.
        """
        if self._held is None:
            self.transport.write(data)
        else:
            self._held += data

    def writeSequence(self, data: list[bytes]) -> None:
        """
        Send several pieces, see L{write}.
        """
        self.write(b"".join(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


class FakeServer(InProcessEndpoint):
    """
    A server in the process, as an endpoint. It accepts all connections until L{refuse} or L{hang} is called::

        server = FakeServer(reactor)                # a memcached
        pool = MemCachePool(server, reactor=reactor)
        server.refuse()

    @ivar connections: the open connections, oldest first.
    @ivar dials: the number of connections that clients have tried to make.
    @ivar holding: whether new connections hold back all that the server writes. A memcached pool uses a connection only
        after the server has replied to C{version}, so make a connection before setting this.
    @ivar store: the items of the memcached, if the server is one.
    """

    # The classes beside the interfaces are for mypy without mypy-zope, which does not know what they implement.
    def __init__(self, reactor: Clock | IReactorTime, factory: Factory | IProtocolFactory | None = None) -> None:
        """
        @param reactor: the clock of the server.
        @param factory: builds the server's protocols. If not given, the server is a memcached.
        """
        self.store = Store()
        self._seconds = reactor.seconds
        super().__init__(reactor, factory or MemcachedFactory(reactor, self.store))
        self.connections: list[FakeConnection] = []
        self.dials = 0
        self.holding = False
        self._refusal: Exception | None = None
        self._hanging = False
        self._hung: list[tuple[IProtocolFactory, Deferred[IProtocol]]] = []

    @property
    def items(self) -> dict[bytes, bytes]:
        """
        The values of the memcached by key, without those that have expired. It is a copy.
        """
        self.store.advance(self._seconds())
        return {key: item.value for key, item in self.store.items()}

    # -- Dials

    def accept(self) -> None:
        """
        Accept new connections and those that hang.
        """
        self._refusal, self._hanging = None, False
        self._settle()

    def refuse(self, reason: Exception | None = None) -> None:
        """
        Refuse new connections and those that hang. Open connections stay open.

        @param reason: the error of the client; L{ConnectionRefusedError} if not given.
        """
        self._refusal, self._hanging = reason or ConnectionRefusedError(), False
        self._settle()

    def hang(self) -> None:
        """
        Let new connections hang: neither accept nor refuse them.
        """
        self._hanging = True

    def stop(self) -> None:
        """
        Stop the server: reset all connections, and refuse new ones.
        """
        self.refuse()
        self.reset()

    def freeze(self) -> None:
        """
        Freeze the server: it answers nothing more, and new connections hang. L{accept} and L{release} end this.
        """
        self.hang()
        self.hold()

    def _settle(self) -> None:
        hung, self._hung = self._hung, []
        for factory, connected in hung:
            self.establish(factory, connected)

    # -- All connections

    def hold(self) -> None:
        """
        Hold back all bytes that the server writes from now on, on new connections too.
        """
        self.holding = True
        for connection in self.connections:
            connection.hold()

    def release(self, size: int | None = None) -> None:
        """
        Send held-back bytes to the clients.

        @param size: how many bytes on each connection; all others are still held back. C{None}: send all, and stop
            holding back.
        """
        self.holding = size is not None
        for connection in self.connections:
            connection.release(size)

    def close(self) -> None:
        """
        Close all connections cleanly.
        """
        for connection in self.connections:
            connection.close()

    def reset(self) -> None:
        """
        Reset all connections.
        """
        for connection in list(self.connections):
            connection.reset()

    # -- For the endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Try to connect.

        @return: fires with the protocol when the server accepts. It may be cancelled.
        """
        self.dials += 1
        return super().connect(protocolFactory)

    def establish(self, factory: IProtocolFactory, connected: Deferred[IProtocol]) -> None:
        """
        Accept, refuse or keep a dial.
        """
        if connected.called:  # cancelled while it hung
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
        @return: a L{FakeConnection}.
        """
        return FakeConnection(self, super().serve())


class FakeRedis(FakeServer):
    """
    A Redis in the process, as an endpoint::

        server = FakeRedis(reactor)
        pool = RedisPool(server, reactor=reactor)
        server.refuse()

    It has the commands for strings, hashes, lists, sets, sorted sets and keys of any type, with expiry times by the
    clock of the test; transactions, subscriptions, blocking commands, logins and databases. It answers as Redis 7.0
    does. It executes no Lua: C{data.addScript} makes a function stand for a script.

    @ivar data: its L{Data<txconnpool.redis.memory.data.Data>}: C{data.items} are the values of database 0 by key,
        C{data.passwords} the users that may log in.
    """

    def __init__(self, reactor: Clock | IReactorTime) -> None:
        """
        @param reactor: the clock of the server.
        """
        self.data = Data(reactor.seconds)
        super().__init__(reactor, RedisFactory(self.data, reactor))

    @property
    def items(self) -> dict[bytes, Any]:
        """
        The values of database 0 by key, without those that have expired. It is a copy.
        """
        database = self.data.databases[0]
        return {key: database.items[key] for key in database.live()}


class _Stepping:
    """
    What pools have whose clock the test controls.

    @ivar clock: the clock of the pool and of its server, which is also their reactor.
    """

    clock: SteppingClock

    def flush(self) -> None:
        """
        Run all events that are due now, and those that follow from them.
        """
        self.clock.advance(0)

    def result(self, answer: Deferred[T] | Coroutine[Any, Any, T]) -> T:
        """
        Run all events that are due now, and get the result of C{answer}, see L{SteppingClock.result}.
        """
        return _resultOf(self.clock, answer, self)


class MemoryPool(MemCachePool[V], _Stepping):
    """
    A memcached client with its own memcached. Requests and replies are delivered by L{flush}::

        pool = MemoryPool()
        pool.result(pool.set("key", b"value"))
        pool.server.hang()

    Requests fail at once when the server has refused one connection (C{whenDown=1}), so that a test need not let time
    pass for that.

    @ivar server: the memcached.
    @ivar clock: the clock of both, which is also their reactor.
    """

    def __init__(self, *, reactor: SteppingClock | None = None, **settings: Unpack[MemCacheOptions[V]]) -> None:
        """
        @param reactor: the clock, which several pools may share; a new one if not given.
        @param settings: as for L{MemCachePool}.
        """
        self.clock = SteppingClock() if reactor is None else reactor
        self.server = FakeServer(self.clock)
        settings.setdefault("whenDown", 1)
        super().__init__(self.server, reactor=self.clock, **settings)


class MemoryRedisPool(RedisPool[W], _Stepping):
    """
    A Redis client with its own Redis. Requests and replies are delivered by L{flush}::

        pool = MemoryRedisPool()
        pool.result(pool.set("key", "value", ex=60))
        pool.clock.advance(60)
        pool.server.hang()

    Requests fail at once when the server has refused one connection, as with L{MemoryPool}.

    @ivar server: the L{FakeRedis}.
    @ivar clock: the clock of both, which is also their reactor.
    """

    @overload
    def __init__(
        self: MemoryRedisPool[bytes],
        *,
        reactor: SteppingClock | None = None,
        decode: None = None,
        **settings: Unpack[RedisOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: MemoryRedisPool[str],
        *,
        reactor: SteppingClock | None = None,
        decode: str,
        **settings: Unpack[RedisOptions],
    ) -> None: ...

    def __init__(
        self, *, reactor: SteppingClock | None = None, decode: Any = None, **settings: Unpack[RedisOptions]
    ) -> None:
        """
        @param reactor: the clock, which several pools may share; a new one if not given.
        @param decode: as for L{RedisPool}, as the other settings.
        """
        self.clock = SteppingClock() if reactor is None else reactor
        self.server = FakeRedis(self.clock)
        settings.setdefault("whenDown", 1)
        super().__init__(self.server, reactor=self.clock, decode=decode, **settings)  # type: ignore[misc]


def __dir__() -> list[str]:
    return __all__
