# -*- test-case-name: tests.routing.test_clusters -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.clusters}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.bugs import covers
from tests.pipes import Endpoint
from tests.redisserver import RedisLine, RedisServer
from txconnpool.errors import PoolError, ServerUnavailable
from txconnpool.interfaces import IPoolControl, IRouter, IWaiter
from txconnpool.pool.connection import ConnectionFactory
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.engine import PoolEngine
from txconnpool.pool.handshake import Handshake
from txconnpool.routing.cluster.refreshing import PERIOD, Refreshing
from txconnpool.routing.clusterrouters import ClusterRouters
from txconnpool.routing.clusters import ClusterPool
from txconnpool.routing.flavours import FlavouredPool
from txconnpool.wire.memcache.replies import GET, SEVERAL
from txconnpool.wire.redis.dialect import Redis
from txconnpool.wire.topology import SLOTS, Node, Redirect, Shard, slotOf

A, B, C, D = (Node(name, 6379) for name in "abcd")
WHOLE = ((0, SLOTS - 1),)


@implementer(IWaiter)
class Waiter:
    """
    Waits for a connection.

    @ivar found: the names of the servers of slot 0 when it was refused.
    """

    ticket: Any = None

    def __init__(self, pool: ClusterPool) -> None:
        self._pool = pool
        self.found: list[str] = []

    def granted(self, record: Any) -> None:
        """
        Not called: there is no connection.
        """
        raise AssertionError(record)

    def refused(self, error: PoolError) -> None:
        """
        Look which server has the slot now.
        """
        self.found += [server.name for server in self._pool.slots[0].servers]

    def abort(self, error: PoolError) -> None:
        """
        Not called: no method raises an exception.
        """
        raise error


class ClusterPoolCase(SynchronousTestCase):
    """
    Base class of these tests.

    @ivar servers: the servers of the nodes that have a pool, or had one.
    @ivar questions: the nodes that were asked, with the Deferreds of the answers.
    @ivar looked: when the pool wanted other seeds.
    """

    def setUp(self) -> None:
        """
        Make a pool.
        """
        self.clock = Clock()
        self.dialect = Redis()
        self.servers: dict[Node, Endpoint[RedisLine]] = {}
        self.questions: list[tuple[Node, Deferred[Sequence[Shard]]]] = []
        self.looked: list[float] = []
        self.pool = self.make()
        self.addCleanup(self.assertClosed)

    def make(self, **options: Any) -> ClusterPool:
        """
        @return: a pool whose seed is node A.
        """
        greeting = Handshake("pool", self.dialect)

        def newPool(node: Node, limits: Limits, maxPinned: int, **options: Any) -> FlavouredPool:
            server = self.servers.setdefault(node, RedisServer(self.clock, node.host))

            def make(flavour: Any, limits: Limits, **options: Any) -> PoolEngine:
                return PoolEngine([server], ConnectionFactory(self.dialect, self.clock, 2.0), limits, self.clock,
                                  connectTimeout=1.0, handshake=greeting.flavoured(flavour), **options)  # fmt: skip

            return FlavouredPool("pool", self.clock, make, limits, self.dialect.base, maxPinned, **options)

        def ask(node: Node) -> Deferred[Sequence[Shard]]:
            answer: Deferred[Sequence[Shard]] = Deferred()
            self.questions.append((node, answer))
            return answer

        limits = Limits(maximum=6, depth=8, idleTimeout=0.0, maxLifetime=0.0, whenDown=1)

        def refreshing(seeds: Any) -> Refreshing:
            middle: Callable[[float, float], float] = lambda low, high: (low + high) / 2  # noqa: E731
            return Refreshing(seeds, uniform=middle, shuffle=lambda nodes: None)

        options = {"seeds": [A], "lookAgain": lambda: self.looked.append(self.clock.seconds()), **options}
        return ClusterPool("pool", self.clock, newPool, ask, limits=limits, addresses={}, maxPinned=7,
                           refreshing=refreshing, **options)  # fmt: skip

    def assertClosed(self) -> None:
        """
        Assert that nothing is left after the end.
        """
        closed = self.pool.close()
        self.turns()
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def turns(self, seconds: float = 0.0) -> None:
        """
        Let time pass, and let servers reply.
        """
        self.clock.advance(seconds)
        for _ in range(10):
            self.clock.advance(0)
            for server in self.servers.values():
                for line in server.open:
                    line.deliver()

    def answer(self, *shards: Shard) -> None:
        """
        Answer the last question.
        """
        self.questions[-1][1].callback(shards)
        self.turns()

    def start(self, *shards: Shard) -> None:
        """
        Start the pool, and answer its first question.
        """
        self.pool.start()
        self.turns()
        self.answer(*shards)

    def names(self, pools: Any) -> list[str]:
        """
        @return: the names of the servers of pools.
        """
        return [pool.servers[0].name for pool in pools]


class ClusterPoolTests(ClusterPoolCase):
    """
    Tests for L{ClusterPool}.
    """

    def test_start(self) -> None:
        """
        The seed is asked first. Then each primary has a pool, and no replica.
        """
        verifyObject(IPoolControl, self.pool)
        known = self.pool.known(1.0)
        self.pool.start()
        self.turns()
        self.assertEqual([node for node, _ in self.questions], [A])
        self.assertNoResult(known)
        self.answer(Shard(((0, 99),), B, (D,)), Shard(((100, SLOTS - 1),), C))
        self.successResultOf(known)
        self.assertEqual(self.names(self.pool.pools), ["b", "c"])
        self.assertEqual(self.names(self.pool.primaries), ["b", "c"])
        self.assertEqual([pool.limits.maximum for pool in self.pool.pools], [3, 3])
        self.assertEqual(self.pool.map.covered, SLOTS)
        self.assertEqual([share.share for share in self.pool.keyShares()], [100 / SLOTS, 1 - 100 / SLOTS])
        self.turns(PERIOD)
        self.assertEqual([node for node, _ in self.questions], [A, B])

    def test_noAnswer(self) -> None:
        """
        Clients do not wait longer than they should for the first answer.
        """
        known = self.pool.known(1.0)
        self.pool.start()
        self.turns(1.0)
        self.successResultOf(known)

    def test_failed(self) -> None:
        """
        If no node answers, all are asked again later, and the map stays.
        """
        self.start(Shard(WHOLE, B))
        self.pool.wrong()
        self.turns(PERIOD)
        for _ in range(2):
            self.questions[-1][1].errback(Failure(ServerUnavailable("no")))
            self.turns()
        self.assertEqual([node for node, _ in self.questions], [A, B, A])
        self.assertEqual(self.names(self.pool.primaries), ["b"])
        self.turns(2.0)
        self.answer(Shard(WHOLE, C))
        self.assertEqual(self.names(self.pool.primaries), ["c"])

    def test_seeds(self) -> None:
        """
        Nothing is asked before there is a seed. When no node answers any more, others are wanted, and asked.
        """
        self.pool = self.make(seeds=[])
        known = self.pool.known(9.0)
        self.pool.start()
        self.turns(5.0)
        self.assertEqual(self.questions, [])
        self.pool.change(self.pool.limits, [A], {}, 7, "primary")
        self.turns()
        self.assertNoResult(known)
        self.answer(Shard(WHOLE, B))
        self.successResultOf(known)
        self.pool.wrong()
        self.turns(PERIOD)
        for _ in range(2):
            self.assertEqual(self.looked, [])
            self.questions[-1][1].errback(Failure(ServerUnavailable("no")))
        self.assertEqual(self.looked, [5.0 + PERIOD])
        self.pool.change(self.pool.limits, [C], {}, 7, "primary")
        self.turns(2.0)
        self.questions[-1][1].errback(Failure(ServerUnavailable("no")))
        self.answer(Shard(WHOLE, C))
        self.assertEqual([node for node, _ in self.questions], [A, B, A, B, C])
        self.assertEqual(self.names(self.pool.primaries), ["c"])

    @covers("R40")
    def test_noSlots(self) -> None:
        """
        A node that was removed from the cluster knows no slots: another one is asked.
        """
        self.start(Shard(WHOLE, B))
        self.pool.wrong()
        self.turns(PERIOD)
        self.answer(Shard((), B))
        self.assertEqual([node for node, _ in self.questions], [A, B, A])
        self.assertEqual(self.names(self.pool.primaries), ["b"])

    @covers("R25")
    def test_changes(self) -> None:
        """
        Nodes that stay keep their pools. Those of nodes that have left are closed.
        """
        self.start(Shard(((0, 99),), A), Shard(((100, SLOTS - 1),), B))
        first, second = self.pool.pools
        version = self.pool.version
        self.pool.wrong()
        self.turns(PERIOD)
        self.answer(Shard(((0, 99),), C), Shard(((100, SLOTS - 1),), B))
        self.assertEqual(self.names(self.pool.pools), ["c", "b"])
        self.assertIs(self.pool.pools[1], second)
        self.assertNotEqual(self.pool.version, version)
        self.assertEqual(self.servers[A].open, [])
        self.assertEqual([server.name for server in self.pool.former], ["a"])
        self.assertNotIn(first, self.pool.pools)
        version = self.pool.version
        self.turns(2 * PERIOD)
        self.answer(Shard(((0, 99),), C), Shard(((100, SLOTS - 1),), B))
        self.assertEqual(self.pool.version, version)

    def test_waiting(self) -> None:
        """
        When the pool of a node that has left refuses its waiters, it is known already which pool has their keys.
        """
        self.start(Shard(WHOLE, A))
        pool = self.pool
        pool.pause()
        waiter = Waiter(pool)
        self.assertIsNone(pool.slots[0].base.take(waiter))
        pool.wrong()
        self.turns(PERIOD)
        self.answer(Shard(WHOLE, B))
        self.assertEqual(waiter.found, ["b"])

    def test_down(self) -> None:
        """
        A node that is down leads to a question, and to others until it is up or replaced. It is not asked first.
        """
        self.start(Shard(((0, 99),), A), Shard(((100, SLOTS - 1),), B))
        self.servers[A].mode = "refuse"
        for line in self.servers[A].open:
            line.lose()
        self.turns()
        self.turns(1.5)
        self.assertEqual([node for node, _ in self.questions], [A, B])
        self.answer(Shard(((0, 99),), A), Shard(((100, SLOTS - 1),), B))
        self.turns(2.0)
        self.assertEqual(len(self.questions), 3)
        self.answer(Shard(((0, 99),), C), Shard(((100, SLOTS - 1),), B))
        self.turns(2.0)
        self.assertEqual(len(self.questions), 4)  # a dial has failed while the node was asked
        self.answer(Shard(((0, 99),), C), Shard(((100, SLOTS - 1),), B))
        self.turns(5.0)
        self.assertEqual(len(self.questions), 4)

    def test_closedWhileAsking(self) -> None:
        """
        The end cancels a question.
        """
        self.pool.start()
        self.turns()
        closed = self.pool.close()
        self.turns()
        self.successResultOf(closed)
        self.assertEqual(len(self.questions), 1)

    def test_operators(self) -> None:
        """
        Servers are drained and restored by name. No keys can be given to others.
        """
        self.start(Shard(((0, 99),), A), Shard(((100, SLOTS - 1),), B))
        self.pool.drain("a")
        self.assertEqual([server.state for server in self.pool.servers], ["drained", "up"])
        self.assertEqual(self.names([self.pool.anyOf()]), ["b"])
        self.pool.restore("a")
        self.turns()
        self.assertEqual([server.state for server in self.pool.servers], ["up", "up"])
        self.assertRaisesRegex(ValueError, "CLUSTER FAILOVER", self.pool.eject, "a")
        self.assertEqual(self.pool.ejected, frozenset())

    def test_limits(self) -> None:
        """
        Other limits are divided anew.
        """
        self.start(Shard(((0, 99),), A), Shard(((100, SLOTS - 1),), B))
        self.pool.setLimits(Limits(maximum=5, depth=8, idleTimeout=0.0, maxLifetime=0.0))
        self.assertEqual([pool.limits.maximum for pool in self.pool.pools], [3, 2])
        self.assertEqual([pool.leases.limits.maximum for pool in self.pool.pools], [3, 3])
        self.pool.wrong()
        self.turns(PERIOD)
        self.answer(Shard(((0, 99),), A), Shard(((100, 199),), C), Shard(((200, SLOTS - 1),), B))
        self.assertEqual([pool.leases.limits.maximum for pool in self.pool.pools], [2, 2, 2])


class RouterTests(ClusterPoolCase):
    """
    Tests for L{ClusterRouter<txconnpool.routing.clusters.ClusterRouter>}.
    """

    def routers(self) -> ClusterRouters:
        """
        @return: the routers of the pool.
        """
        return ClusterRouters(self.pool, self.dialect.base, self.dialect.reading)

    def test_choose(self) -> None:
        """
        Each key has the pool of its slot.
        """
        routers = self.routers()
        router = routers.base
        verifyObject(IRouter, router)
        self.assertRaisesRegex(ServerUnavailable, "has reported yet", router.choose, b"a")
        self.assertRaises(ServerUnavailable, router.anyOf)
        slot = slotOf(b"a")
        self.start(Shard(((slot, slot),), A), Shard(((slotOf(b"b"), slotOf(b"b")),), B))
        self.assertIs(router.choose(b"a"), self.pool.pools[self.names(self.pool.pools).index("a")].base)
        self.assertIs(router.choose(b"{a}x"), router.choose(b"a"))
        self.assertRaisesRegex(ServerUnavailable, "has the slot", router.choose, b"c")
        self.assertIs(routers.leases.choose(b"a"), self.pool.slots[slot].leases)
        self.assertIs(routers.use(self, (3, 0)).choose(b"a"), self.pool.slots[slot].of((3, 0)))
        self.assertIs(routers.use(self, (3, 0)), routers.use(self, (3, 0)))
        self.assertEqual(len(router.pools), 2)

    def test_divide(self) -> None:
        """
        Keys are divided by slot, and grouped by node.
        """
        router = self.routers().base
        slots = sorted((slotOf(key), key) for key in (b"a", b"b", b"c"))
        (first, one), (_, two), (last, three) = slots
        self.start(Shard(((0, first), (last, last)), A), Shard(((first + 1, last - 1),), B))
        (order,), found = router.divide(SEVERAL[GET], [b"get %b %b %b {%b}x\r\n" % (one, two, three, one)], 9)
        pools = {each.servers[0].name: each for each in router.pools}
        self.assertEqual(
            found,
            [
                (pools["a"], b"get %b {%b}x\r\n" % (one, one), 2),
                (pools["a"], b"get %b\r\n" % three, 1),
                (pools["b"], b"get %b\r\n" % two, 1),
            ],
        )
        self.assertEqual(order, [0, 2, 1, 0])
        self.assertTrue(router.together([one, b"{%b}x" % one]))
        self.assertFalse(router.together([one, three]))

    def redirect(self, node: Node, key: bytes, once: bool = False, slot: int | None = None) -> Redirect:
        """
        @return: a redirect for a key.
        """
        return Redirect(b"-MOVED\r\n", None, b"", node, slotOf(key) if slot is None else slot, once)

    def test_redirected(self) -> None:
        """
        A slot moves to another node that the cluster has reported, also if that is a replica, or has no host. Other
        nodes and slots do not count.
        """
        router = self.routers().base
        self.start(Shard(WHOLE, A, (B,)), Shard((), C))
        server = self.pool.servers[0]
        self.assertIsNone(router.redirected(self.redirect(D, b"a"), b"a", server))
        self.assertRaises(ServerUnavailable, router.redirected, self.redirect(B, b"a", slot=1), b"a", server)
        self.assertEqual(self.pool.moved, 0)
        for node in (B, C, Node("", 6379)):
            pool = router.redirected(self.redirect(node, b"a"), b"a", server)
            self.assertEqual(pool.servers[0].name, node.host or "a")
            self.assertIs(router.choose(b"a"), pool)
        self.assertEqual(self.pool.moved, 3)
        other = router.redirected(self.redirect(B, b"a", once=True), b"a", server)
        self.assertEqual(other.servers[0].name, "b")
        self.assertEqual(router.choose(b"a").servers[0].name, "a")

    def test_storm(self) -> None:
        """
        Any number of redirects leads to one question.
        """
        router = self.routers().base
        self.start(Shard(WHOLE, A), Shard((), B))
        server = self.pool.servers[0]
        for number in range(10000):
            key = b"%d" % number
            router.redirected(self.redirect(B, key), key, server)
        self.turns(2.0)
        self.assertEqual(len(self.questions), 2)


class ReaderTests(ClusterPoolCase):
    """
    Tests for L{ClusterReader<txconnpool.routing.clusters.ClusterReader>}.
    """

    def test_reads(self) -> None:
        """
        The slots of a primary are read from its replicas in turn; from the next one if one is down, and then from the
        primary, unless only replicas may read.
        """
        for readFrom in ("prefer-replica", "replica"):
            self.servers.clear()
            self.questions.clear()
            self.pool = self.make(readFrom=readFrom)
            router = ClusterRouters(self.pool, self.dialect.base, self.dialect.reading).base
            self.start(Shard(WHOLE, A, (B, C)))
            reads = router.reads
            assert reads is not None
            keys = sorted((b"%d" % number for number in range(50)), key=lambda key: slotOf(key) % 2)
            for key in (keys[0], keys[-1]):
                pools = [reads.choose(key) for _ in range(3)]
                self.assertEqual(len(set(pools)), 1)
                self.assertIn(pools[0].servers[0].name, ("b", "c"))
                self.assertIs(router.choose(key), self.pool.pools[0].base)
            self.assertNotEqual(reads.choose(keys[0]), reads.choose(keys[-1]))
            first = reads.choose(keys[0])
            self.lose(first.servers[0].name)
            self.assertNotEqual(reads.choose(keys[0]).servers[0].name, first.servers[0].name)
            self.lose("b" if first.servers[0].name == "c" else "c")
            if readFrom == "replica":
                self.assertRaisesRegex(ServerUnavailable, "no replica", reads.choose, keys[0])
            else:
                self.assertEqual(reads.choose(keys[0]).servers[0].name, "a")
            if readFrom == "prefer-replica":
                self.assertClosed()

    def lose(self, name: str) -> None:
        """
        Let the connections of a node fail, and all dials to it.
        """
        server = next(each for each in self.servers.values() if each.name == name)
        server.mode = "refuse"
        for pool in self.pool.pools:
            if pool.servers[0].name == name:
                for each in pool.pools:
                    each.take(_Nobody()) if not each.connections else None
        for line in server.open:
            line.lose()
        self.turns()
        self.turns(0.5)


class _Nobody:
    """
    Waits for a connection that it does not get.
    """

    ticket: Any = None

    def granted(self, record: Any) -> None:
        raise AssertionError(record)

    def refused(self, error: Exception) -> None:
        pass
