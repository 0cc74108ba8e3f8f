# -*- test-case-name: tests.proxy -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The data path of the proxy in memory: clients, sessions, a pool, its connections and servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.memcached import Line, Upstream
from tests.pipes import Pipe
from txconnpool.pool.connection import Connection, ConnectionFactory
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.records import Record
from txconnpool.pool.engine import PoolEngine
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.merging import Merging
from txconnpool.proxy.separate import SeparateConnections
from txconnpool.proxy.sessions import SessionFactory
from txconnpool.proxy.statistics import NoStatistics
from txconnpool.proxy.uniting import Uniting
from txconnpool.routing.distribution import Distribution, KeyMap, ServerSpec
from txconnpool.routing.maps import Ejection, Shard
from txconnpool.routing.shards import ShardedPool
from txconnpool.routing.single import SinglePool
from txconnpool.wire.memcache.dialect import Memcache


class Stage:
    """
    A pool with its sessions and servers. The pool is started and has its minimum of connections.

    @ivar servers: the servers.
    @ivar factory: the factory of the connections.
    @ivar clients: the clients of the proxy.
    """

    def __init__(
        self,
        servers: int = 1,
        *,
        sessionLimits: SessionLimits | None = None,
        maxItemSize: int = 1 << 20,
        maxUnread: int = 1 << 28,
        requestTimeout: float = 2.0,
        start: bool = True,
        line: type[Line] | None = None,
        merges: bool = False,
        unites: bool = False,
        **limits: Any,
    ) -> None:
        """
        @param servers: the number of servers.
        @param line: the class of the connections, if it is another one.
        @param merges: whether requests of several clients are sent together in the next turn.
        @param unites: whether reads of several clients are sent as one in the next turn.
        @param limits: limits of the pool that differ from the default, see L{Limits}.
        """
        self.clock = clock = Clock()
        self.servers = [Upstream(clock, f"server{number}") for number in range(servers)]
        if line is not None:
            for server in self.servers:
                server.kind = line
        self.dialect = Memcache(maxItemSize)
        # Ageing is off: with it a pool always has a timer.
        defaults = {
            "maximum": servers, "minimum": servers, "depth": 128, "maxWaiting": 10000, "waitTimeout": 1.0,
            "idleTimeout": 0.0, "maxLifetime": 0.0, "whenDown": 1,
        }  # fmt: skip
        self.factory = ConnectionFactory(self.dialect, clock, requestTimeout)
        self.pool: Any = self._pool(self.servers, self.factory, Limits(**{**defaults, **limits}))
        self.unread = BufferedBytes(maxUnread)
        self.clients: list[Pipe] = []
        self.sessions = SessionFactory(
            "pool",
            self._router(),
            self.dialect,
            sessionLimits or SessionLimits(),
            self.unread,
            clock,
            self._report,
        )
        if merges:
            self.sessions.merging = Merging(self.atEnd)
        if unites:
            self.sessions.uniting = Uniting(lambda: self, clock.seconds)
        self.sessions.separate = SeparateConnections(self._separate)
        if start:
            self.pool.start()
            self.turns()

    def atEnd(self, call: Callable[[], object]) -> bool:
        """
        Call a function in the next turn.
        """
        self.clock.callLater(0, call)
        return True

    def _pool(self, servers: Any, factory: ConnectionFactory, limits: Limits, **options: Any) -> PoolEngine:
        return PoolEngine(
            servers, factory, limits, self.clock, connectTimeout=1.0, handshake=self._handshake, **options
        )

    def _router(self) -> Any:
        return SinglePool(self.pool)

    def _separate(self) -> list[Callable[[], PoolEngine]]:
        factory = ConnectionFactory(self.dialect, self.clock, 60.0)
        limits = Limits(maximum=1, waitTimeout=2.0, whenDown=1, idleTimeout=0.0, maxLifetime=0.0)
        return [partial(self._pool, [server], factory, limits) for server in self.servers]

    def _handshake(self, connection: Connection) -> Deferred[bytes]:
        return connection.ask(*self.dialect.probe)

    def _report(self, words: tuple[bytes, ...]) -> list[tuple[str, object]]:
        if words not in ((), (b"summary",)):
            raise NoStatistics("no such statistics: " + b" ".join(words).decode())
        return [("answer", 42)]

    @property
    def lines(self) -> list[Line]:
        """
        All connections so far.
        """
        return [line for server in self.servers for line in server.lines]

    @property
    def line(self) -> Line:
        """
        The only open connection.
        """
        (line,) = (line for line in self.lines if line.connected)
        return line

    def client(self) -> Pipe:
        """
        Connect a client to the proxy.
        """
        client = Pipe(self.clock).connect(self.sessions.buildProtocol(None))
        self.clients.append(client)
        return client

    def turns(self, count: int = 10) -> None:
        """
        Run the events that are due without time passing.
        """
        for _ in range(count):
            self.clock.advance(0)

    def serve(self) -> None:
        """
        Let the servers send all replies, until nothing happens any more.
        """
        self.turns()
        while sum(line.deliver() for line in self.lines):
            self.turns()

    def ask(self, client: Pipe, request: bytes) -> bytes:
        """
        Send a request of a client and let the servers reply.

        @return: the reply that the client receives.
        """
        client.take()
        client.send(request)
        self.serve()
        return client.take()


def owed(record: Record) -> int:
    """
    Count the requests in flight on a connection.
    """
    connection: Connection = record.connection
    return connection.unanswered


def assertTidy(case: SynchronousTestCase, pool: PoolEngine, quiet: bool = True, unites: bool = False) -> None:
    """
    Assert that the invariants of a pool hold, and that its records agree with its connections.

    @param quiet: whether to assert that no request is in flight and none waits.
    @param unites: whether a connection may be reserved for reads that are sent as one at the end of this turn.
    """
    pool.selfCheck()
    for record in pool.state.records:
        if record.connection is None:
            continue
        case.assertGreaterEqual(record.load, owed(record), record)
        if not unites:
            case.assertEqual(record.load, owed(record), record)
        if quiet:
            case.assertEqual((record.load, record.connection.unanswered), (0, 0), record)
    if quiet:
        case.assertEqual(pool.waiters.count, 0)


def assertClosed(case: SynchronousTestCase, stage: Stage, close: Callable[[], Deferred[None]] | None = None) -> None:
    """
    Close a pool, and assert that no connection and no timer is left.
    """
    done = (close or stage.pool.close)()
    stage.turns()
    case.successResultOf(done)
    case.assertEqual([line for line in stage.lines if line.connected], [])
    case.assertEqual(stage.clock.getDelayedCalls(), [])


class ShardedStage(Stage):
    """
    A stage with several servers, each of which has a part of the keys: the digits at the end of a key are the number of
    its server, modulo the number of servers.
    """

    def __init__(self, servers: int = 3, *, ejection: Ejection | None = None, **options: Any) -> None:
        self._ejection = ejection or Ejection()
        super().__init__(servers, **options)

    def _router(self) -> Any:
        limits, factory = self.pool.limits, self.factory

        def newPool(server: Upstream, limits: Limits, **options: Any) -> PoolEngine:
            own = ConnectionFactory(self.dialect, self.clock, factory.requestTimeout)
            own.everyServer = lambda: self.pool.servers
            return self._pool([server], own, limits, **options)

        shards = [Shard(server, ServerSpec(server.name, 1)) for server in self.servers]
        self.pool = ShardedPool("pool", self.clock, newPool, shards, ByNumber(), limits, self._ejection)
        return self.pool

    def remove(self, number: int) -> None:
        """
        Remove a server of the pool.
        """
        shards = [
            Shard(server, ServerSpec(server.name, 1)) for index, server in enumerate(self.servers) if index != number
        ]
        self.pool.change(shards, ByNumber(), self.pool.limits, self._ejection)
        self.turns()


class ByNumber(Distribution):
    """
    The distribution of a L{ShardedStage}. Keys of a server that is down go to the next one.
    """

    def build(self, servers: Sequence[ServerSpec], down: Iterable[int] = (), cachedKeys: int = 100) -> KeyMap:
        """
        @return: the map.
        """
        return KeyMap(servers, frozenset(down), NumberLocator(len(servers), frozenset(down)), None, cachedKeys)


class NumberLocator:
    """
    Finds the server of a key by the number at its end.
    """

    def __init__(self, count: int, down: frozenset[int]) -> None:
        self.count = count
        self.down = down

    def locate(self, key: bytes) -> int:
        """
        @return: the index of the server.
        """
        number = int(re.findall(rb"[0-9]*$", key)[0] or 0) % self.count
        return next(((number + each) % self.count for each in range(self.count)
                     if (number + each) % self.count not in self.down), -1)  # fmt: skip

    def shares(self) -> None:
        """
        @return: C{None}: they are not known.
        """
