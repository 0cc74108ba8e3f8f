# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.shards}: the pools of several servers, the choice among them, and changes of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pickle import dumps, loads
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.memcached import Upstream
from tests.stage import ByNumber, ShardedStage, assertTidy
from txconnpool.errors import PoolError, PoolFull, ServerUnavailable
from txconnpool.interfaces import IPoolControl, IRouter, IWaiter
from txconnpool.pool.decisions.records import Record
from txconnpool.routing.distribution import Distribution, KeyMap, ServerSpec
from txconnpool.routing.maps import MAPS, Ejection, Maps, Shard
from txconnpool.routing.shards import NO_SERVER, ShardedPool
from txconnpool.wire import Command
from txconnpool.wire.memcache import replies
from txconnpool.wire.memcache.replies import GET, SEVERAL

#: A key of each of six servers.
KEYS = [b"a%d" % number for number in range(6)]


class Listed(Command):
    """
    A command whose requests are pickled lists of keys.
    """

    def keys(self, request: bytes) -> list[bytes]:
        keys: list[bytes] = loads(request)
        return keys

    def subset(self, request: bytes, keys: list[bytes]) -> bytes:
        return dumps(keys)


@implementer(IWaiter)
class Caller:
    """
    Asks a pool for a connection.

    @ivar record: the record of the connection, or C{None}.
    @ivar error: why it was refused, or C{None}.
    """

    ticket: Any = None

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.record: Record | None = None
        self.error: PoolError | None = None
        try:
            self.record = pool.take(self)
        except PoolError as error:
            self.error = error
        if self.record is not None:
            self.record.load += 1

    def granted(self, record: Record) -> None:
        record.load += 1
        self.record = record

    def refused(self, error: PoolError) -> None:
        self.error = error

    abort = refused

    def release(self) -> None:
        """
        Release the connection.
        """
        assert self.record is not None
        self.record.load -= 1
        self.pool.hasCapacity(self.record)


class Kept(ByNumber):
    """
    A distribution that leaves the keys of a server with it in any case.
    """

    redistributes = False


def shards(servers: Iterable[Upstream], **weights: float) -> list[Shard]:
    """
    @return: the shards of servers.
    """
    return [Shard(server, ServerSpec(server.name, 1, weight=weights.get(server.name))) for server in servers]


class ShardsTestCase(SynchronousTestCase):
    """
    Base class of these tests.
    """

    def sharded(self, servers: int = 3, **options: Any) -> ShardedStage:
        """
        @return: a stage. At the end of the test the pool is closed, and must leave nothing.
        """
        stage = ShardedStage(servers, **options)
        stage.clock.advance(2)  # so that a lost connection is not taken for one that was bad from the beginning
        self.addCleanup(self.finish, stage)
        return stage

    def finish(self, stage: ShardedStage) -> None:
        """
        Close the pool, and assert that nothing is left of it.
        """
        stage.pool.selfCheck()
        ending = stage.pool.close(1.0)
        stage.serve()
        stage.clock.advance(2)
        stage.turns()
        self.successResultOf(ending)
        self.assertEqual([line for line in stage.lines if line.connected], [])
        self.assertEqual(stage.clock.getDelayedCalls(), [])
        self.assertEqual(stage.pool._leaving, {})

    def change(self, stage: ShardedStage, servers: Sequence[Upstream], distribution: Any = None, **limits: Any) -> None:
        """
        Use other servers.
        """
        pool = stage.pool
        pool.change(shards(servers), distribution or ByNumber(), replace(pool.limits, **limits), stage.pool._ejection)
        stage.turns()
        pool.selfCheck()

    def another(self, stage: ShardedStage) -> Upstream:
        """
        @return: one more server.
        """
        stage.servers.append(Upstream(stage.clock, f"server{len(stage.servers)}"))
        return stage.servers[-1]

    def found(self, pool: Any, keys: Iterable[bytes] = KEYS) -> list[str]:
        """
        @return: the servers of keys.
        """
        return [pool.choose(key).servers[0].name for key in keys]

    def lose(self, stage: ShardedStage, number: int) -> None:
        """
        Let the connections to a server be lost, and all dials fail.
        """
        stage.servers[number].mode = "refuse"
        for line in stage.servers[number].lines:
            line.lose()
        stage.turns()

    def ask(self, pool: Any) -> Deferred[bytes]:
        """
        Send a request on a connection of one of the pools.
        """
        record = pool.take(None)
        reply: Deferred[bytes] = record.connection.ask(replies.VERSION, b"version\r\n")
        return reply


class ChoiceTests(ShardsTestCase):
    """
    Tests for the choice of a pool.
    """

    def test_interfaces(self) -> None:
        """
        It is a router, and operators see one pool.
        """
        pool = self.sharded().pool
        verifyObject(IRouter, pool)
        verifyObject(IPoolControl, pool)
        verifyObject(IWaiter, Caller(pool.pools[0]))

    def test_choose(self) -> None:
        """
        A key has one pool, with one server.
        """
        pool = self.sharded().pool
        self.assertEqual(self.found(pool), ["server0", "server1", "server2"] * 2)
        self.assertIs(pool.choose(b"x4"), pool.pools[1])

    def test_divide(self) -> None:
        """
        Keys are divided in their order, with the pools in the order of their first keys.
        """
        pool = self.sharded().pool
        first, second, third = pool.pools
        request = b"get a2 a0 a5 a1 a2\r\n"
        self.assertEqual(
            pool.divide(SEVERAL[GET], [request], 3),
            (
                [[0, 1, 0, 2, 0]],
                [(third, b"get a2 a5 a2\r\n", 3), (first, b"get a0\r\n", 1), (second, b"get a1\r\n", 1)],
            ),
        )
        orders, shares = pool.divide(SEVERAL[GET], [request], 2)
        self.assertEqual((orders, shares[0]), ([[0, 1, 0, 2, 3]], (third, b"get a2 a5\r\n", 2)))
        self.assertEqual(shares[3], (third, b"get a2\r\n", 1))

    def test_divideSeveral(self) -> None:
        """
        Several requests are divided as if they were one.
        """
        pool = self.sharded().pool
        first, second, _ = pool.pools
        self.assertEqual(
            pool.divide(SEVERAL[GET], [b"get a0 a1\r\n", b"get  a3\r\n"], 9),
            ([[0, 1], [0]], [(first, b"get a0 a3\r\n", 2), (second, b"get a1\r\n", 1)]),
        )

    def test_anyOf(self) -> None:
        """
        A request without a key goes to a server that is up; to the first one if there is none.
        """
        stage = self.sharded()
        pool = stage.pool
        self.assertIs(pool.anyOf(), pool.pools[0])
        self.lose(stage, 0)
        self.assertIs(pool.anyOf(), pool.pools[1])
        pool.drain("server1")
        self.assertIs(pool.anyOf(), pool.pools[2])
        self.lose(stage, 2)
        self.assertIs(pool.anyOf(), pool.pools[0])

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.binary(min_size=1, max_size=8), max_size=80), st.sets(st.integers(0, 3)))
    def test_divideAsChoose(self, keys: list[bytes], down: set[int]) -> None:
        """
        C{divide} is the same as C{choose} of each key, whatever is down.
        """
        stage = ShardedStage(4, ejection=Ejection(True, 1, 0))
        pool = stage.pool
        for number in down:
            self.lose(stage, number)
        expected: dict[Any, list[bytes]] = {}
        for key in keys:
            try:
                expected.setdefault(pool.choose(key), []).append(key)
            except ServerUnavailable:
                expected.setdefault(None, []).append(key)
        command = Listed("listed", 0)
        (order,), shares = pool.divide(command, [dumps(keys)], 80)
        self.assertEqual(shares, [(pool, dumps(its), len(its)) for pool, its in expected.items()])
        following = [iter(command.keys(share)) for _, share, _ in shares]
        self.assertEqual([next(following[number]) for number in order], keys)
        self.assertEqual(None in expected, bool(keys) and len(down) == 4)


class EjectionTests(ShardsTestCase):
    """
    Tests for servers that are down.
    """

    def test_keep(self) -> None:
        """
        Without rehash a server that is down keeps its keys, for which requests fail at once.
        """
        stage = self.sharded()
        self.lose(stage, 1)
        stage.clock.advance(20)
        self.assertEqual(self.found(stage.pool), ["server0", "server1", "server2"] * 2)
        error = Caller(stage.pool.choose(b"a1")).error
        self.assertEqual(str(error), "upstream unavailable: connection refused (server1)")

    def test_rehash(self) -> None:
        """
        After some failures in a row others get the keys. A dial that succeeds gives them back. The log has both.
        """
        stage = self.sharded(ejection=Ejection(True, 3))
        server = stage.pool.pools[1].servers[0]
        with capturedLogs() as logs:
            self.lose(stage, 1)
            while server.failures < 2:
                stage.clock.advance(0.05)
            self.assertEqual(self.found(stage.pool, [b"a1"]), ["server1"])
            while server.failures < 3:
                stage.clock.advance(0.05)
            self.assertEqual(self.found(stage.pool), ["server0", "server2", "server2"] * 2)
            stage.clock.advance(5)
            self.assertGreater(server.failures, 3)
            stage.servers[1].mode = "accept"
            self.assertEqual(self.found(stage.pool, [b"a1"]), ["server2"])
            while not server.up:
                stage.clock.advance(0.05)
            stage.turns()
            self.assertEqual(self.found(stage.pool), ["server0", "server1", "server2"] * 2)
        texts = [str(formatEvent(event)) for event in logs]
        after = "33% of the keys have another server now; values stored there before may appear again"
        self.assertEqual(
            [text for text in texts if "of the keys" in text],
            [f"pool: server1 is ejected: {after}", f"pool: server1 has its keys again: {after}"],
        )

    def test_notBeforeGreeting(self) -> None:
        """
        A server that accepts connections but does not answer stays ejected.
        """
        stage = self.sharded(ejection=Ejection(True, 1))
        self.lose(stage, 1)
        self.assertEqual(self.found(stage.pool, [b"a1"]), ["server2"])
        stage.servers[1].mode = "accept"
        stage.servers[1].greets = False
        for _ in range(100):
            stage.clock.advance(0.3)
            self.assertEqual(self.found(stage.pool, [b"a1"]), ["server2"])
        stage.servers[1].greets = True
        stage.clock.advance(1)
        stage.clock.pump([0.3] * 200)
        self.assertEqual(self.found(stage.pool, [b"a1"]), ["server1"])

    def test_minLive(self) -> None:
        """
        Some servers keep their keys in any case: those that went down last.
        """
        stage = self.sharded(4, ejection=Ejection(True, 1, 2))
        for number in (2, 0, 3):
            self.lose(stage, number)
            stage.clock.advance(0.01)
        self.assertEqual(self.found(stage.pool, KEYS[:4]), ["server1", "server1", "server3", "server3"])
        stage.servers[2].mode = "accept"
        stage.clock.pump([0.3] * 100)
        # Another place is free now.
        self.assertEqual(self.found(stage.pool, KEYS[:4]), ["server1", "server1", "server2", "server1"])
        self.lose(stage, 1)
        self.assertEqual(self.found(stage.pool, KEYS[:4]), ["server1", "server1", "server2", "server1"])

    def test_all(self) -> None:
        """
        If all may be ejected, and are, keys have no server.
        """
        stage = self.sharded(2, ejection=Ejection(True, 1, 0))
        self.lose(stage, 0)
        self.lose(stage, 1)
        error = self.assertRaises(ServerUnavailable, stage.pool.choose, b"a0")
        self.assertEqual(str(error), NO_SERVER)
        request = b"get a0 a1\r\n"
        self.assertEqual(stage.pool.divide(SEVERAL[GET], [request], 9), ([[0, 0]], [(None, request, 2)]))

    def test_neverMoved(self) -> None:
        """
        If the distribution gives the keys to nobody else, nothing happens.
        """
        stage = self.sharded(ejection=Ejection(True, 1))
        self.change(stage, stage.servers, Kept())
        with capturedLogs() as logs:
            self.lose(stage, 1)
        self.assertEqual(self.found(stage.pool, [b"a1"]), ["server1"])
        self.assertEqual([event for event in logs if "ejected" in str(formatEvent(event))], [])

    def test_together(self) -> None:
        """
        If many servers fail at the same time, the map is recomputed once: with a hundred servers that takes some time,
        in which the connections to others would time out.
        """
        stage = self.sharded(20, ejection=Ejection(True, 1))
        built: list[frozenset[int]] = []

        def without(down: frozenset[int]) -> KeyMap:
            built.append(down)
            whole: KeyMap = stage.pool._maps.whole
            return whole

        self.patch(stage.pool._maps, "without", without)
        for server in stage.servers[:15]:
            server.mode = "refuse"
            server.lines[0].lose()
        self.assertEqual(built, [])
        stage.turns()
        self.assertEqual(built, [frozenset(range(15))])

    def test_closed(self) -> None:
        """
        When the pool is closed, it is not recomputed any more.
        """
        stage = self.sharded(ejection=Ejection(True, 1))
        stage.servers[1].mode = "refuse"
        stage.lines[1].lose()
        ending = stage.pool.close()
        for line in stage.lines[::2]:
            line.lose()
        self.successResultOf(ending)
        self.assertIsNone(stage.pool._remapping)

    def test_changed(self) -> None:
        """
        Other settings leave a server ejected, without another line in the log, until they say that it must not be.
        """
        stage = self.sharded(ejection=Ejection(True, 1))
        pool = stage.pool
        self.lose(stage, 1)
        with capturedLogs() as logs:
            pool.setLimits(replace(pool.limits, maximum=7))
            self.change(stage, stage.servers, depth=5)
        self.assertEqual([str(formatEvent(event)) for event in logs if "keys" in str(formatEvent(event))], [])
        self.assertEqual(self.found(pool, [b"a1"]), ["server2"])
        # It has another index, and is ejected still.
        self.change(stage, [stage.servers[number] for number in (1, 2, 0)])
        self.assertEqual(self.found(pool, KEYS[:3]), ["server2", "server2", "server0"])
        with capturedLogs() as logs:
            pool.change(pool._shards, ByNumber(), pool.limits, Ejection())
        self.assertEqual(self.found(pool, KEYS[:3]), ["server1", "server2", "server0"])
        self.assertEqual(len([event for event in logs if "has its keys again" in str(formatEvent(event))]), 1)
        pool.change(pool._shards, ByNumber(), pool.limits, Ejection(True, 1))
        self.assertEqual(self.found(pool, KEYS[:3]), ["server2", "server2", "server0"])

    def test_kept(self) -> None:
        """
        Other limits leave the map as it is, and what it has found of keys. Another server, or another distribution of
        the same servers, needs another map.
        """
        stage = self.sharded()
        pool = stage.pool
        kept = pool._map
        pool.setLimits(replace(pool.limits, maximum=7))
        self.change(stage, stage.servers, depth=5)
        self.assertIs(pool._map, kept)
        self.change(stage, stage.servers, ByNumber(hashTag=b"{}"))
        self.assertIsNot(pool._map, kept)
        kept = pool._map
        self.change(stage, [*stage.servers, self.another(stage)], ByNumber(hashTag=b"{}"))
        self.assertIsNot(pool._map, kept)
        self.assertEqual(self.found(pool, [b"a3"]), ["server3"])

    def test_maps(self) -> None:
        """
        The map without a server is built once. Some maps are kept.
        """
        built = []

        class Counting(ByNumber):
            def build(self, servers: Any, down: Iterable[int] = (), cachedKeys: int = 9) -> KeyMap:
                built.append(frozenset(down))
                return super().build(servers, down, cachedKeys)

        maps = Maps(Counting(), shards(Upstream(None, f"server{number}") for number in range(50)))  # type: ignore[arg-type]
        for _ in range(3):
            for number in range(5):
                maps.without(frozenset([number]))
        self.assertEqual(built, [frozenset(), *(frozenset([number]) for number in range(5))])
        for number in range(50):
            maps.without(frozenset([number]))
        self.assertLessEqual(len(maps._maps), MAPS)
        self.assertEqual(maps.without(frozenset([1])).cached[b"a1"], 2)


class LimitsTests(ShardsTestCase):
    """
    Tests for limits that the pools share.
    """

    def test_divided(self) -> None:
        """
        The maximum and the minimum are divided. The first servers get what is left.
        """
        stage = self.sharded(5, maximum=12, minimum=7)
        self.assertEqual([pool.limits.maximum for pool in stage.pool.pools], [3, 3, 2, 2, 2])
        self.assertEqual([pool.limits.minimum for pool in stage.pool.pools], [2, 2, 1, 1, 1])
        self.assertEqual([len(server.lines) for server in stage.servers], [2, 2, 1, 1, 1])
        self.assertEqual((stage.pool.limits.maximum, stage.pool.stats.maximum), (12, 12))

    def test_atLeastOne(self) -> None:
        """
        Each server has one connection at least.
        """
        stage = self.sharded(5, maximum=2, minimum=0)
        self.assertEqual([(pool.limits.minimum, pool.limits.maximum) for pool in stage.pool.pools], [(1, 1)] * 5)

    @given(st.integers(1, 200), st.integers(0, 200), st.integers(1, 30))
    def test_sums(self, maximum: int, minimum: int, count: int) -> None:
        """
        The limits of all pools are the limit together, unless there are more servers.
        """
        limits = replace(ShardedStage(1).pool.limits, maximum=maximum, minimum=min(minimum, maximum))
        pool = ShardedStage(1).pool
        pool.limits = limits
        each = list(pool._divided(count))
        self.assertEqual(sum(own.maximum for own in each), max(maximum, count))
        self.assertEqual(sum(own.minimum for own in each if own.minimum > 1 or limits.minimum >= count),
                         limits.minimum if limits.minimum >= count else 0)  # fmt: skip
        self.assertLessEqual(max(own.maximum for own in each) - min(own.maximum for own in each), 1)

    def test_setLimits(self) -> None:
        """
        Other limits are divided again.
        """
        stage = self.sharded(2, maximum=2)
        stage.pool.setLimits(replace(stage.pool.limits, maximum=5, minimum=5))
        stage.turns()
        self.assertEqual([len(server.open) for server in stage.servers], [3, 2])
        stage.pool.setLimits(replace(stage.pool.limits, maximum=2, minimum=2))
        stage.turns()
        self.assertEqual([len(server.open) for server in stage.servers], [1, 1])

    def test_waiters(self) -> None:
        """
        The waiters of all pools count together.
        """
        stage = self.sharded(depth=1, maxWaiting=4)
        busy = [Caller(pool) for pool in stage.pool.pools]
        self.assertNotIn(None, [each.record for each in busy])
        waiting = [Caller(stage.pool.choose(key)) for key in KEYS[:4]]
        stage.clock.advance(0.25)
        self.assertEqual((stage.pool.waiting, stage.pool.longestWait), (4, 0.25))
        self.assertIsInstance(Caller(stage.pool.pools[2]).error, PoolFull)
        self.assertEqual(stage.pool.counters.rejected, 1)
        # The waiters of a server that is removed do not wait any more.
        self.change(stage, stage.servers[1:], maximum=2, minimum=2)
        self.assertEqual(stage.pool.waiting, 2)
        self.assertEqual([waiter.error is None for waiter in waiting], [False, True, True, False])
        for caller in (*busy, *waiting[1:3]):
            caller.release()
        self.assertEqual((stage.pool.waiting, sum(stage.pool.waits.counts)), (0, 2))

    def test_stats(self) -> None:
        """
        Gauges are sums over the servers. Counters are counted together.
        """
        stage = self.sharded(depth=1)
        pool = stage.pool
        asked = [self.ask(each) for each in pool.pools[:2]]
        waiting = [Caller(pool.pools[0]), Caller(pool.pools[0]), Caller(pool.pools[0])]
        stats = pool.stats
        self.assertEqual(
            (stats.connections, stats.idle, stats.busy, stats.inFlight, stats.dialing, stats.waiting, stats.maximum),
            (3, 1, 2, 2, 0, 3, 3),
        )
        self.assertEqual((stats.acquired, stats.dials), (2, pool.counters.dials))
        stage.serve()
        self.assertEqual([self.successResultOf(reply) for reply in asked], [b"VERSION 1.6.18\r\n"] * 2)
        stats = pool.stats
        self.assertEqual((stats.waited, stats.acquired), (1, 3))
        self.assertEqual(len(pool.connections), len(pool.records))
        self.assertEqual([server.name for server in pool.servers], ["server0", "server1", "server2"])
        for caller in waiting:
            caller.release()


class ChangeTests(ShardsTestCase):
    """
    Tests for other servers.
    """

    def test_added(self) -> None:
        """
        A server that is added gets its keys; the others keep their connections. The log says how many keys have moved.
        """
        stage = self.sharded()
        before = stage.pool.pools
        with capturedLogs() as logs:
            self.change(stage, [*stage.servers, self.another(stage)])
        self.assertEqual(self.found(stage.pool, KEYS[:4]), ["server0", "server1", "server2", "server3"])
        self.assertEqual(stage.pool.pools[:3], before)
        self.assertEqual([len(server.lines) for server in stage.servers], [1, 1, 1, 1])
        (text,) = [str(formatEvent(event)) for event in logs if "keys" in str(formatEvent(event))]
        self.assertRegex(text, r"^pool: [0-9]+% of the keys have another server now$")

    def test_same(self) -> None:
        """
        The same servers again: nothing happens.
        """
        stage = self.sharded()
        before = stage.pool.pools
        with capturedLogs() as logs:
            self.change(stage, stage.servers)
        self.assertEqual(([], before), (list(logs), stage.pool.pools))

    def test_removed(self) -> None:
        """
        A server that is removed gets no more requests. Its connections are closed when they carry nothing.
        """
        stage = self.sharded()
        pool = stage.pool.pools[1]
        reply = self.ask(pool)
        self.change(stage, [stage.servers[0], stage.servers[2]])
        self.assertEqual(self.found(stage.pool), ["server0", "server2"] * 3)
        self.assertEqual([server.name for server in stage.pool.servers], ["server0", "server2"])
        self.assertTrue(stage.servers[1].lines[0].connected)
        stage.serve()
        self.assertEqual(self.successResultOf(reply), b"VERSION 1.6.18\r\n")
        self.assertFalse(stage.servers[1].lines[0].connected)
        self.assertEqual(stage.pool._leaving, {})
        assertTidy(self, pool)

    def test_removedAndBack(self) -> None:
        """
        A server may be back before its last request is answered.
        """
        stage = self.sharded()
        reply = self.ask(stage.pool.pools[1])
        self.change(stage, [stage.servers[0], stage.servers[2]])
        self.change(stage, stage.servers)
        self.assertEqual(self.found(stage.pool, KEYS[:3]), ["server0", "server1", "server2"])
        self.assertEqual(len(stage.servers[1].open), 2)
        other = self.ask(stage.pool.pools[1])
        stage.serve()
        self.assertEqual(self.successResultOf(reply), self.successResultOf(other))
        self.assertEqual(len(stage.servers[1].open), 1)

    def test_reordered(self) -> None:
        """
        If servers are listed in another order, each keeps its connections.
        """
        stage = self.sharded()
        before = list(stage.pool.pools)
        reply = self.ask(before[0])
        self.change(stage, stage.servers[::-1])
        self.assertEqual(list(stage.pool.pools), before[::-1])
        self.assertEqual(self.found(stage.pool, KEYS[:3]), ["server2", "server1", "server0"])
        stage.serve()
        self.successResultOf(reply)
        self.assertEqual([len(server.lines) for server in stage.servers], [1, 1, 1])

    def test_reweighted(self) -> None:
        """
        Other weights and labels move keys, but no connection.
        """
        stage = self.sharded()
        pool = stage.pool
        ketama = Distribution("ketama")
        self.change(stage, stage.servers, ketama)
        before = pool.pools
        with capturedLogs() as logs:
            pool.change(shards(stage.servers, server1=9), ketama, pool.limits, Ejection())
        self.assertEqual(pool.pools, before)
        self.assertEqual([len(server.lines) for server in stage.servers], [1, 1, 1])
        found = self.found(pool, [b"key%d" % number for number in range(300)])
        self.assertGreater(found.count("server1"), 200)
        self.assertEqual(len([event for event in logs if "of the keys have" in str(formatEvent(event))]), 1)

    def test_refused(self) -> None:
        """
        Servers that the distribution does not allow change nothing.
        """
        stage = self.sharded()
        pool = stage.pool
        before = pool.pools, pool.limits, pool._shards
        ejection = Ejection(True, 9)
        with self.assertRaises(ValueError):
            pool.change(shards(stage.servers, server1=0.5), Distribution(), replace(pool.limits, maximum=50), ejection)
        self.assertEqual((pool.pools, pool.limits, pool._shards), before)
        self.assertIsNot(pool._ejection, ejection)

    def test_twice(self) -> None:
        """
        With a distribution by position an address may be listed twice. The two have the same pool, also after a change.
        """
        stage = self.sharded(2)
        first, second = stage.servers
        self.change(stage, [first, second, first], ByNumber("libmemcached"))
        self.assertEqual(self.found(stage.pool, KEYS[:3]), ["server0", "server1", "server0"])
        self.change(stage, [first, first, second], ByNumber("libmemcached"))
        self.assertEqual(self.found(stage.pool, KEYS[:3]), ["server0", "server0", "server1"])
        self.change(stage, [first, second])
        self.assertEqual([len(server.open) for server in stage.servers], [1, 1])

    def test_twiceAtFirst(self) -> None:
        """
        The same from the beginning: no connection is left over, and no waiter counts twice.
        """
        stage = self.sharded(2)
        first, second = stage.servers
        limits, positional = replace(stage.pool.limits, maximum=6), ByNumber("libmemcached")
        pool = ShardedPool(
            "again", stage.clock, stage.pool._newPool, shards([first, second, first]), positional, limits, Ejection()
        )
        pool.start()
        stage.turns()
        self.assertIs(pool.choose(b"a0"), pool.choose(b"a2"))
        self.assertEqual([server.name for server in pool.servers], ["server0", "server1"])
        self.assertEqual(len(pool._shared.queues), 2)
        self.assertEqual(pool.stats.connections, len(pool.connections))
        pool.drain("server0")
        self.assertEqual([server.state for server in pool.servers], ["drained", "up"])
        pool.restore("server0")
        pool.change(shards([second]), ByNumber(), pool.limits, Ejection())
        stage.turns()
        self.assertEqual(len(first.open), 1)
        self.assertEqual(len(pool._shared.queues), 1)
        ending = pool.close()
        stage.turns()
        self.successResultOf(ending)

    def test_random(self) -> None:
        """
        Whatever changes while requests are in flight, each gets its reply, and nothing is left of a server that was
        removed.
        """
        for seed in range(40):
            rng = random.Random(seed)
            stage = self.sharded(4, maximum=8, depth=3, requestTimeout=1000.0, ejection=Ejection(rng.random() < 0.5, 1))
            pool = stage.pool
            servers = stage.servers
            asked: list[Deferred[bytes]] = []
            for _ in range(25):
                action = rng.randrange(6)
                if action == 0:
                    some = rng.sample(servers, rng.randint(1, 4))
                    pool.change(shards(some), ByNumber(), replace(pool.limits, maximum=rng.randint(1, 9), minimum=1),
                                Ejection(rng.random() < 0.5, rng.randint(1, 2)))  # fmt: skip
                    self.assertEqual([server.name for server in pool.servers], [server.name for server in some])
                elif action == 1:
                    rng.choice((pool.pause, pool.resume, pool.resume))()
                elif action == 2:
                    rng.choice((pool.drain, pool.restore, pool.restore))(rng.choice(pool.servers).name)
                elif action == 3:
                    stage.clock.advance(rng.choice((0.1, 1.5)))
                elif action == 4:
                    rng.choice(stage.lines).deliver()
                else:
                    caller = Caller(pool.choose(rng.choice(KEYS)))
                    if caller.record is not None:
                        caller.record.load -= 1
                        asked.append(caller.record.connection.ask(replies.VERSION, b"version\r\n"))
                    elif caller.ticket is not None:
                        caller.pool.forget(caller.ticket)
                stage.turns(2)
                pool.selfCheck()
            pool.resume()
            stage.serve()
            for reply in asked:
                self.assertEqual(self.successResultOf(reply), b"VERSION 1.6.18\r\n", seed)
            stage.turns()
            self.assertEqual(pool._leaving, {})
            live = {server.name for server in pool.servers}
            self.assertEqual([server.name for server in servers if server.open and server.name not in live], [])


class AdministrationTests(ShardsTestCase):
    """
    Tests for pausing, draining, and closing.
    """

    def test_pause(self) -> None:
        """
        In a pause all requests wait, also those for servers that are added then.
        """
        stage = self.sharded(1)
        stage.pool.pause()
        self.change(stage, [*stage.servers, self.another(stage)])
        self.assertTrue(stage.pool.paused)
        callers = [Caller(pool) for pool in stage.pool.pools]
        stage.clock.advance(20)
        self.assertEqual([(caller.record, caller.error) for caller in callers], [(None, None)] * 2)
        stage.pool.resume()
        stage.turns()
        self.assertFalse(stage.pool.paused)
        for caller in callers:
            caller.release()

    def test_drain(self) -> None:
        """
        A drained server gets no requests until it is restored, and its keys have no other.
        """
        stage = self.sharded(ejection=Ejection(True, 1))
        stage.pool.drain("server1")
        stage.turns()
        self.assertEqual([len(server.open) for server in stage.servers], [1, 0, 1])
        error = Caller(stage.pool.choose(b"a1")).error
        self.assertEqual(str(error), "upstream unavailable: drained (server1)")
        stage.pool.restore("server1")
        stage.turns()
        Caller(stage.pool.choose(b"a1")).release()
        for do in (stage.pool.drain, stage.pool.restore):
            error = self.assertRaises(ValueError, do, "server9")
            self.assertEqual(str(error), "no server 'server9'; there are: server0, server1, server2")

    def test_closeTwice(self) -> None:
        """
        While a server leaves, the pool may be closed, twice, with a deadline.
        """
        stage = self.sharded()
        lost = self.ask(stage.pool.pools[1])
        kept = self.ask(stage.pool.pools[0])
        self.change(stage, [stage.servers[0], stage.servers[2]])
        endings = [stage.pool.close(), stage.pool.close(3.0)]
        stage.servers[0].lines[0].deliver()
        self.successResultOf(kept)
        stage.clock.advance(2.9)
        # The request timeout has closed the connection before the deadline.
        self.failureResultOf(lost, PoolError)
        stage.turns()
        for ending in endings:
            self.successResultOf(ending)
        self.assertEqual(stage.clock.getDelayedCalls(), [])

    def test_closeLeaving(self) -> None:
        """
        The deadline is also that of servers that were removed before.
        """
        stage = self.sharded(requestTimeout=100.0)
        lost = [self.ask(pool) for pool in stage.pool.pools]
        self.change(stage, stage.servers[2:])
        ending = stage.pool.close(0.5)
        stage.clock.advance(0.5)
        stage.turns()
        self.successResultOf(ending)
        for each in lost:
            self.failureResultOf(each, PoolError)

    def test_closeNow(self) -> None:
        """
        A deadline of 0 is one too, for servers without a connection that leave as well.
        """
        stage = self.sharded(5)
        for server in stage.servers[:3]:
            server.mode = "hang"
        for line in stage.lines[:3]:
            line.lose()
        stage.clock.advance(1)
        lost = self.ask(stage.pool.pools[4])
        self.change(stage, stage.servers[2:4])
        ending = stage.pool.close(0.0)
        stage.turns()
        self.successResultOf(ending)
        self.failureResultOf(lost, PoolError)

    def test_abort(self) -> None:
        """
        An abort closes the connections to servers that were removed, too.
        """
        stage = self.sharded()
        lost = [self.ask(pool) for pool in stage.pool.pools]
        self.change(stage, stage.servers[2:])
        stage.pool.abort()
        stage.turns()
        for each in lost:
            self.failureResultOf(each, PoolError)
        self.assertEqual([line for line in stage.lines if line.connected], [])

    def test_connectTimeout(self) -> None:
        """
        Another timeout for connecting is that of all pools.
        """
        stage = self.sharded()
        stage.pool.setConnectTimeout(0.25)
        for number in range(3):
            stage.servers[number].mode = "hang"
            stage.lines[number].lose()
        stage.turns()
        stage.clock.advance(0.3)
        self.assertEqual([server.failures > 0 for server in stage.pool.servers], [True] * 3)
