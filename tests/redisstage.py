# -*- test-case-name: tests.proxy -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The data path of the proxy in memory with several servers of Redis.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.redisserver import RedisServer
from tests.stage import ByNumber, Stage, assertClosed, assertTidy
from txconnpool.pool.connection import ConnectionFactory
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.engine import PoolEngine
from txconnpool.pool.handshake import Handshake
from txconnpool.routing.distribution import ServerSpec
from txconnpool.routing.flavours import FlavouredPool, FlavouredShards, SingleFlavours
from txconnpool.routing.maps import Ejection, Shard
from txconnpool.routing.shards import ShardedPool
from txconnpool.routing.single import SinglePool
from txconnpool.wire.redis.dialect import Redis
from txconnpool.wire.redis.framing import encode


def requests(*texts: str) -> bytes:
    """
    @param texts: requests, each with words that are separated by spaces.

    @return: their bytes.
    """
    return b"".join(encode(text.encode().split(b" ")) for text in texts)


class FlavouredStage(Stage):
    """
    Base class of stages whose clients have flavours. Subclasses make the pool, and the routers of its flavours.
    """

    flavours: Any

    def __init__(self, servers: int, **options: Any) -> None:
        super().__init__(servers, start=False, **options)
        self.sessions.dialect = self.dialect
        self.sessions.flavours = self.flavours
        self.sessions.reset = self._greeting.reset
        self.pool.start()
        self.serve()

    def _router(self) -> Any:
        self.dialect: Any = Redis()
        self._greeting = Handshake("pool", self.dialect)
        self._make(self.pool.limits)
        return self.flavours.base

    def _make(self, limits: Limits) -> None:
        """
        Set C{pool} and C{flavours}.
        """
        raise NotImplementedError

    def flavoured(self, server: RedisServer, limits: Limits, maxPinned: int, **options: Any) -> FlavouredPool:
        """
        @return: the pool of one server.
        """

        def newPool(flavour: Any, limits: Limits, **options: Any) -> PoolEngine:
            factory = ConnectionFactory(self.dialect, self.clock, self.factory.requestTimeout)
            handshake = self._greeting if flavour is None else self._greeting.flavoured(flavour)
            return PoolEngine([server], factory, limits, self.clock, connectTimeout=1.0, handshake=handshake, **options)

        return FlavouredPool("pool", self.clock, newPool, limits, self.dialect.base, maxPinned, **options)

    def asked(self, server: RedisServer) -> list[bytes]:
        """
        @return: what a server was asked since the last call, without handshakes.
        """
        found = []
        for line in server.lines:
            found += [each for each in line.asked if each not in (b"PING", b"INFO server", b"RESET")]
            line.asked = []
        return found


def assertNodesClosed(case: SynchronousTestCase, stage: FlavouredStage) -> None:
    """
    Assert that no connection to a node carries anything. Close the pool, and assert that no connection and no timer is
    left.
    """
    for pool in stage.pool.pools:
        for each in pool.pools:
            assertTidy(case, each)
    assertClosed(case, stage)


class SingleRedisStage(FlavouredStage):
    """
    A stage with one Redis.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(1, **options)

    def _make(self, limits: Limits) -> None:
        server = RedisServer(self.clock, self.servers[0].name)
        self.servers: Any = [server]
        self.pool = self.flavoured(server, limits, 1)
        self.flavours = SingleFlavours(self.pool, self.dialect.base, self.dialect.owner)

    def _router(self) -> Any:
        super()._router()
        return SinglePool(self.flavours.base)


class ShardedRedisStage(FlavouredStage):
    """
    A stage with several servers of Redis: the digits at the end of a key are the number of its server.
    """

    def __init__(self, servers: int = 3, maxPinned: int = 1, **options: Any) -> None:
        self._maxPinned = maxPinned
        super().__init__(servers, **options)

    def _make(self, limits: Limits) -> None:
        self.servers: Any = [RedisServer(self.clock, server.name) for server in self.servers]

        def newPool(server: RedisServer, limits: Limits, **options: Any) -> FlavouredPool:
            return self.flavoured(server, limits, self._maxPinned, **options)

        shards = [Shard(server, ServerSpec(server.name, 1)) for server in self.servers]
        self.pool = ShardedPool("pool", self.clock, newPool, shards, ByNumber(), limits, Ejection())
        self.flavours = FlavouredShards(self.pool, self.dialect.base, self.dialect.owner)

    def change(self, numbers: list[int]) -> None:
        """
        Have these servers only.
        """
        shards = [Shard(self.servers[each], ServerSpec(self.servers[each].name, 1)) for each in numbers]
        self.pool.change(shards, ByNumber(), self.pool.limits, Ejection())
        self.serve()
