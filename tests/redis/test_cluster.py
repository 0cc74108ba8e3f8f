# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.redis.clustering}, L{txconnpool.redis.clusterrequests}, L{txconnpool.redis.clusterunits} and
L{txconnpool.routing.clientcluster}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.redis.cluster import ClusterTestCase, FakeNode, FakeSource
from txconnpool.errors import PoolClosed, PoolError, ServerUnavailable
from txconnpool.net.discovery import Discovered, DiscoveryFailed
from txconnpool.redis import Ask, ClusterDown, CrossSlot, InvalidArgument, Moved, ReadOnly, RedisPool
from txconnpool.redis.clusterrequests import ClusterRequest
from txconnpool.redis.memory.data import ReplyError
from txconnpool.routing.courses import DELAY, Course
from txconnpool.routing.lookups import Lookups
from txconnpool.testing import finish
from txconnpool.wire.topology import Node, slotOf


class RequestTests(ClusterTestCase):
    """
    Tests for single requests.
    """

    def test_byKey(self) -> None:
        """
        Each request is sent to the node of its key, also before it is known where the keys are.
        """
        one, two = (self.cluster.keyOf(number) for number in range(2))
        answers = [self.pool.set(one, "1"), self.pool.set(two, "2")]
        self.assertEqual([self.result(answer) for answer in answers], [True, True])
        self.assertEqual([node.keyed(b"SET") for node in self.cluster.primaries],
                         [[b"SET %b 1" % one.encode()], [b"SET %b 2" % two.encode()]])  # fmt: skip
        self.assertEqual(self.result(self.pool.get(two)), b"2")
        self.assertEqual(self.pool.stats.retries, 0)

    def test_moved(self) -> None:
        """
        A request that is redirected goes to the node of the slot, and so do the next ones.
        """
        key = self.cluster.keyOf(0)
        self.result(self.pool.set(key, "1"))
        self.cluster.move(key, 1)
        self.assertEqual(self.result(self.pool.incr(key)), 2)
        self.assertEqual(self.result(self.pool.incr(key)), 3)
        self.assertEqual([len(node.keyed(b"INCRBY")) for node in self.cluster.primaries], [1, 2])

    def test_ask(self) -> None:
        """
        A key that has been moved already is asked for at the other node, this time only.
        """
        key = self.cluster.keyOf(0)
        self.result(self.pool.ping())
        self.cluster.moving[slotOf(key.encode())] = self.cluster.primaries[1]
        self.assertEqual([self.result(self.pool.incr(key)) for _ in range(2)], [1, 2])
        name = key.encode()
        self.assertEqual(self.cluster.primaries[1].asked[-4:], [b"ASKING", b"INCRBY %b 1" % name] * 2)
        self.assertEqual(len(self.cluster.primaries[0].keyed(b"INCRBY")), 2)

    def test_later(self) -> None:
        """
        A request that cannot be served now is sent again, until its time is over. Then it fails as the node says.
        """
        key = self.cluster.keyOf(0)
        self.result(self.pool.ping())
        node = self.cluster.primaries[0]
        for word in ("TRYAGAIN", "CLUSTERDOWN", "LOADING"):
            node.errors = [f"{word} now"] * 2
            answer = self.pool.set(key, word)
            self.clock.advance(0)
            self.assertNoResult(answer)
            self.clock.advance(3 * DELAY)
            self.assertEqual(self.result(answer), True)
        node.errors = ["CLUSTERDOWN for ever"] * 1000
        answer = self.pool.get(key)
        self.clock.advance(10)
        self.assertEqual(self.fails(answer, ClusterDown), "CLUSTERDOWN for ever")

    def test_exception(self) -> None:
        """
        A call whose redirect raises an unexpected exception fails with it, also after a while.
        """
        key = self.cluster.keyOf(0)
        self.result(self.pool.ping())
        self.cluster.move(key, 1)
        patch = self.patch(Course, "follow", lambda *_: 1 // 0)
        answer = self.pool.get(key)
        self.assertEqual(
            self.fails(answer, PoolError), "internal error: ZeroDivisionError('integer division or modulo by zero')"
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        patch.restore()
        self.cluster.primaries[1].errors = ["TRYAGAIN now"]
        answer = self.pool.get(key)
        self.clock.advance(0)
        patch = self.patch(ClusterRequest, "_choose", lambda *_: 1 // 0)
        self.clock.advance(3 * DELAY)
        self.failureResultOf(answer, ZeroDivisionError)
        patch.restore()

    def test_loop(self) -> None:
        """
        Redirects that do not end are an error.
        """
        key = self.cluster.keyOf(0)
        self.result(self.pool.ping())
        slot = slotOf(key.encode())
        for number, node in enumerate(self.cluster.primaries):
            node.errors = [f"MOVED {slot} p{1 - number}:7000"] * 1000
        answer = self.pool.get(key)
        self.clock.advance(10)
        self.assertIn(f"no node of the cluster serves slot {slot}", self.fails(answer, ServerUnavailable))

    def test_forged(self) -> None:
        """
        An error of a script is that of the call, whatever it says: the script may have changed data.
        """
        key = self.cluster.keyOf(0)
        self.result(self.pool.ping())
        self.cluster.primaries[0].errors = [f"MOVED {slotOf(key.encode())} p1:7000"]
        self.assertIn("MOVED", self.fails(self.pool.eval("x", 1, key), Moved))
        self.assertEqual(self.cluster.primaries[1].keyed(b"EVAL"), [])

    def test_cancelled(self) -> None:
        """
        A request that is cancelled while it waits to be sent again never is.
        """
        key = self.cluster.keyOf(0)
        self.result(self.pool.ping())
        node = self.cluster.primaries[0]
        node.errors = ["TRYAGAIN x"]
        answer = self.pool.incr(key)
        self.clock.advance(0)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.clock.advance(1)
        self.assertEqual(len(node.keyed(b"INCRBY")), 1)
        self.assertEqual(self.result(self.pool.get(key)), None)

    def test_closed(self) -> None:
        """
        The end of the pool fails requests that wait to be sent again, and all later ones. Nothing is left.
        """
        key = self.cluster.keyOf(0)
        self.result(self.pool.ping())
        self.cluster.primaries[0].errors = ["TRYAGAIN x"]
        answer = self.pool.incr(key)
        self.clock.advance(0)
        closed = self.pool.close()
        self.fails(answer, PoolClosed)
        self.result(closed)
        self.fails(self.pool.get(key), PoolClosed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closedUnused(self) -> None:
        """
        A pool that was closed before it was used does not start.
        """
        self.result(self.pool.close())
        self.fails(self.pool.get("x"), PoolClosed)
        self.fails(self.pool.ping(), PoolClosed)

    def test_noSeed(self) -> None:
        """
        If no seed answers, requests fail with that reason.
        """
        self.cluster.primaries[0].refuse()
        answer = self.pool.get("x")
        self.clock.advance(1)
        self.assertIn("no node of the cluster has reported yet", self.fails(answer, ServerUnavailable))

    def test_ready(self) -> None:
        """
        C{ready} waits until each primary has a connection.
        """
        self.result(self.pool.ready())
        self.assertEqual(self.pool.stats.connections, 2)

    def test_servers(self) -> None:
        """
        Nodes can be drained, but the cluster decides which there are.
        """
        self.result(self.pool.ready())
        names = [server.name for server in self.pool.servers]
        self.pool.drain(names[0])
        self.assertEqual([server.state for server in self.pool.servers], ["drained", "up"])
        self.pool.restore(names[0])
        for change in (self.pool.addServer, self.pool.removeServer):
            self.assertRaisesRegex(ValueError, "CLUSTER", change, names[0])
        self.pool.resize(0, 3)
        self.assertEqual(self.pool.limits.maximum, 3)

    def test_lease(self) -> None:
        """
        A connection is leased for a key, also before it is known where the keys are.
        """
        key = self.cluster.keyOf(1)

        async def lease() -> str:
            async with self.pool.forKey(key).connection() as connection:
                return str(connection.record.server.name)

        self.assertEqual(self.result(lease()), "p1:7000")
        name = self.result(self.pool.forKey(key).withConnection(lambda connection: connection.record.server.name))
        self.assertEqual(name, "p1:7000")
        self.assertRaises(TypeError, self.pool.connection)

    def test_leaseMoved(self) -> None:
        """
        The end of a lease is accepted when its node has left the cluster.
        """
        client = self.result(self.pool.forKey(self.cluster.keyOf(0)).acquire())
        self.cluster.owners[:] = self.cluster.primaries[1:] * len(self.cluster.owners)
        del self.cluster.primaries[0]
        control: Any = self.pool._control
        control.wrong()
        self.clock.advance(3)
        self.assertEqual([server.name for server in self.pool.servers], ["p1:7000"])
        self.pool.release(client)

    def test_map(self) -> None:
        """
        Nodes are reached at the addresses that the line has for them.
        """
        outer = Node("outside", 1)
        self.cluster.nodes[outer] = self.cluster.nodes.pop(Node("p1", 7000))
        pool: RedisPool[bytes] = RedisPool("cluster:p0:7000 map=p1:7000>outside:1", reactor=self.clock)
        key = self.cluster.keyOf(1)
        self.assertIs(self.result(pool.set(key, "1")), True)
        self.cluster.move(key, 0)
        self.assertEqual(self.result(pool.incr(key)), 2)
        self.cluster.move(key, 1)
        self.assertEqual(self.result(pool.incr(key)), 3)
        self.result(pool.close())

    def test_options(self) -> None:
        """
        Options that a cluster cannot have are refused, and others without a cluster.
        """
        for settings in ({"distribution": "ketama"}, {"database": 1}, {"readFrom": "near"}):
            self.assertRaises(ValueError, RedisPool, "cluster:p0:7000", reactor=self.clock, **settings)
        self.assertRaises(ValueError, RedisPool, ["cluster:p0:7000", "tcp:p1:7000"], reactor=self.clock)
        self.assertRaises(ValueError, RedisPool, "cluster:p0", reactor=self.clock)
        self.assertRaisesRegex(ValueError, "expected dns:HOST:PORT", RedisPool, "cluster:dns:p", reactor=self.clock)
        self.assertRaisesRegex(
            ValueError, "is for clusters", RedisPool, "tcp:p0:7000", reactor=self.clock, readFrom="replica"
        )


class SeedTests(ClusterTestCase):
    """
    Tests for seeds that are looked up.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(Lookups, "makeSource", FakeSource)
        self.cluster.nodes[Node("localhost", 6379)] = self.cluster.primaries[0]  # stands for a node that is not known
        self.found: RedisPool[bytes] = RedisPool("cluster:dns:redis.example:7000", reactor=self.clock)
        self.addCleanup(finish, self.found)

    @property
    def source(self) -> FakeSource:
        assert self.found.cluster is not None
        assert self.found.cluster.lookups is not None
        source: FakeSource = self.found.cluster.lookups.source
        return source

    def test_found(self) -> None:
        """
        Requests wait until seeds are found, and these have named all nodes.
        """
        self.assertEqual(self.source.line, "dns:redis.example:7000")
        keys = [self.cluster.keyOf(number) for number in range(2)]
        answers: list[Deferred[Any]] = [self.found.set(key, "1") for key in keys]
        answers.append(self.found.ready())
        self.clock.advance(1)
        self.assertEqual([each.called for each in answers], [False] * 3)
        self.source.answer([Discovered("tcp:p1:7000")])
        self.assertEqual([self.result(each) for each in answers], [True, True, None])
        self.assertEqual(len(self.found.servers), 2)

    def test_others(self) -> None:
        """
        If no node answers, other seeds are looked up.
        """
        self.clock.advance(0)
        answer = self.found.set("a", "1")
        self.cluster.primaries[0].refuse()
        self.source.answer([Discovered("tcp:p0:7000")])
        self.clock.advance(1)
        self.assertIn("no node of the cluster has reported", self.fails(answer, ServerUnavailable))
        self.assertGreater(self.source.hurried, 0)
        self.source.answer([Discovered("tcp:p1:7000")])
        self.cluster.primaries[0].accept()
        self.clock.advance(5)
        self.assertIs(self.result(self.found.set("a", "1")), True)

    def test_unknown(self) -> None:
        """
        If none are found, requests fail with that reason, until some are.
        """
        answer = self.found.get("a")
        self.clock.advance(0)
        self.source.answer(DiscoveryFailed("there is no such name"))
        for each in (answer, self.found.get("a")):
            self.assertIn("there is no such name", self.fails(each, ServerUnavailable))
        self.source.answer([Discovered("tcp:p0:7000")])
        self.clock.advance(1)
        self.assertIsNone(self.result(self.found.get("a")))

    def test_closed(self) -> None:
        """
        The end fails requests that wait, and no timer is left.
        """
        answer = self.found.get("a")
        self.clock.advance(0)
        self.result(self.found.close())
        self.fails(answer, PoolClosed)
        self.result(self.pool.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SeveralTests(ClusterTestCase):
    """
    Tests for requests with several keys, and for those that concern all nodes.
    """

    settings = {"namespace": "n:"}

    def names(self) -> list[str]:
        return [f"k{number}" for number in range(20)]

    def test_divided(self) -> None:
        """
        Keys are divided by slot. The results are in the order of the keys, also if a slot has moved.
        """
        names = self.names()
        self.assertTrue(self.result(self.pool.mset(dict(zip(names, names, strict=True)))))
        self.cluster.move("n:k3", self.cluster.primaries.index(self.cluster.owners[slotOf(b"n:k4")]))
        self.cluster.move("n:k5", 1)
        self.cluster.move("n:k6", 0)
        found = self.result(self.pool.mget([*names, "none", "k1"]))
        self.assertEqual(found, [*[name.encode() for name in names], None, b"k1"])
        self.assertEqual(self.result(self.pool.exists(*names, "k1")), 21)
        self.assertEqual(self.result(self.pool.delete(*names)), 20)

    def test_crossSlot(self) -> None:
        """
        The keys of other requests must be in one slot.
        """
        self.fails(self.pool.msetnx(dict.fromkeys(self.names(), 1)), CrossSlot)
        self.fails(self.pool.sunion(self.names()), CrossSlot)
        self.assertEqual(self.result(self.pool.msetnx({"{a}1": 1, "{a}2": 2})), True)

    def test_everywhere(self) -> None:
        """
        Commands that concern all keys are sent to all primaries.
        """
        names = self.names()
        self.result(self.pool.mset(dict.fromkeys(names, 1)))
        self.assertEqual(self.result(self.pool.dbsize()), 20)
        self.assertEqual(sorted(self.result(self.pool.keys())), sorted(name.encode() for name in names))
        sha = self.result(self.pool.script_load("return 1"))
        self.assertEqual(self.result(self.pool.script_exists(sha)), [True])
        self.assertTrue(self.result(self.pool.flushdb()))
        self.assertEqual(self.result(self.pool.dbsize()), 0)

    def test_everywhereMoved(self) -> None:
        """
        If a primary has become a replica, the one in its place gets the command as soon as the cluster reports it.
        """
        self.result(self.pool.mset(dict.fromkeys(self.names(), 1)))
        old, other = self.cluster.primaries
        new = FakeNode(self.cluster, Node("p2", 7000))
        self.cluster.nodes[new.node] = new
        old.readOnly = True
        answer = Deferred.fromCoroutine(self.flush())
        self.clock.advance(0)
        self.assertNoResult(answer)
        self.cluster.primaries[0] = new
        self.cluster.owners = [new if each is old else each for each in self.cluster.owners]
        self.clock.advance(1.5)
        self.assertTrue(self.successResultOf(answer))
        self.assertEqual([len(node.keyed(b"FLUSHDB")) for node in (other, new)], [1, 1])
        new.readOnly = True
        answer = Deferred.fromCoroutine(self.flush())
        self.clock.advance(0)
        self.clock.advance(60)
        self.failureResultOf(answer, ReadOnly)

    async def flush(self) -> bool:
        """
        @return: whether all keys were removed.
        """
        return bool(await self.pool.flushdb())

    def test_scan(self) -> None:
        """
        A scan finds the keys of all primaries. It ends with an error if there are other primaries.
        """
        names = self.names()
        self.result(self.pool.mset(dict.fromkeys(names, 1)))

        async def scan() -> list[bytes]:
            return [key async for key in self.pool.scan_iter(count=3)]

        self.assertEqual(sorted(self.result(scan())), sorted(name.encode() for name in names))
        cursor, _ = self.result(self.pool.scan(0, count=3))
        self.assertNotEqual(cursor, 0)
        self.cluster.owners = [self.cluster.primaries[0]] * len(self.cluster.owners)
        control: Any = self.pool._control
        control.wrong()
        self.clock.advance(5)
        self.assertIn("other primaries", self.fails(self.pool.scan(cursor), InvalidArgument))

    def test_keyless(self) -> None:
        """
        Other requests without keys are sent to any primary; in a pipeline, those that concern all nodes are refused.
        """
        self.assertEqual(self.result(self.pool.execute("ECHO", "x")), b"x")
        self.fails(self.pool.pipeline().dbsize(), InvalidArgument)


class TogetherTests(ClusterTestCase):
    """
    Tests for pipelines and transactions.
    """

    def setUp(self) -> None:
        super().setUp()
        self.one, self.two = (self.cluster.keyOf(number) for number in range(2))
        self.slot = slotOf(self.one.encode())

    async def pipe(self) -> list[Any]:
        async with self.pool.pipeline() as pipe:
            pipe.set(self.one, "a")
            pipe.set(self.two, "b")
            pipe.append(self.one, "c")
            pipe.mget(self.one, self.two)
            pipe.get(self.one)
        return pipe.results

    def test_pipeline(self) -> None:
        """
        Each command is sent to its node, and the results are in the order of the commands.
        """
        expected = [True, True, 2, [b"ac", b"b"], b"ac"]
        self.assertEqual(self.result(self.pipe()), expected)
        self.cluster.move(self.one, 1)
        self.assertEqual(self.result(self.pipe()), expected)
        self.assertEqual(self.result(self.pipe()), expected)
        node = self.cluster.primaries[1]
        self.assertEqual(len([each for each in node.keyed(b"SET") if self.one.encode() in each]), 2)

    def test_pipelineAsk(self) -> None:
        """
        Commands for a key that has been moved already are sent to the other node in their order.
        """
        self.result(self.pool.ping())
        self.cluster.moving[self.slot] = self.cluster.primaries[1]
        self.assertEqual(self.result(self.pipe()), [True, True, 2, [b"ac", b"b"], b"ac"])
        self.assertNotIn(self.one.encode(), self.cluster.primaries[0].data.items)

    def test_pipelineLater(self) -> None:
        """
        Commands that are declined wait, and keep their order.
        """
        self.result(self.pool.ping())
        self.cluster.primaries[0].errors = ["CLUSTERDOWN x"] * 4
        answer = Deferred.fromCoroutine(self.pipe())
        self.clock.advance(0)
        self.assertNoResult(answer)
        self.clock.advance(DELAY)
        self.assertEqual(self.result(answer), [True, True, 2, [b"ac", b"b"], b"ac"])

    def test_pipelineException(self) -> None:
        """
        If the redirect of a command raises an unexpected exception, the pipeline fails, and the other commands of the
        connection have results.
        """
        self.result(self.pipe())
        self.cluster.move(self.one, 1)
        other = self.pool.get(self.two)
        patch = self.patch(Course, "follow", lambda *_: 1 // 0)
        self.fails(self.pipe(), PoolError)
        patch.restore()
        self.assertEqual(self.result(other), b"b")
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
        self.assertEqual(self.result(self.pipe())[0], True)

    def test_pipelineScript(self) -> None:
        """
        The error of a script in a pipeline is not followed.
        """
        self.result(self.pool.ping())
        self.cluster.primaries[0].errors = [f"MOVED {self.slot} p1:7000"]

        async def run() -> None:
            async with self.pool.pipeline() as pipe:
                pipe.eval("x", 1, self.one)

        self.fails(run(), Moved)
        self.assertEqual(self.cluster.primaries[1].keyed(b"EVAL"), [])
        self.assertEqual(self.asked(), 1)
        self.clock.advance(3)
        self.assertEqual(self.asked(), 2)

    def asked(self) -> int:
        """
        @return: how often the cluster was asked where the keys are.
        """
        return sum(len(node.keyed(b"CLUSTER")) for node in self.cluster.primaries)

    def test_pipelineOrder(self) -> None:
        """
        A command is not executed after a later one for its key: it fails with the error of the node.
        """
        self.result(self.pool.ping())
        self.cluster.primaries[0].errors = ["CLUSTERDOWN x"]
        self.assertEqual(self.fails(self.pipe(), ClusterDown), "CLUSTERDOWN x")
        self.assertEqual(self.result(self.pool.mget(self.one, self.two)), [b"c", b"b"])

    def test_transaction(self) -> None:
        """
        A transaction is executed at the node of its keys, wherever that is. Without watched keys it is sent again, if
        nothing was executed.
        """

        async def run() -> list[Any]:
            async with self.pool.transaction() as block:
                block.incr(self.one)
                block.incr(self.one)
            return block.results

        self.assertEqual(self.result(run()), [1, 2])
        self.cluster.move(self.one, 1)
        self.assertEqual(self.result(run()), [3, 4])
        self.cluster.move(self.one, 0)
        self.result(self.pool.delete(self.one))
        self.cluster.moving[self.slot] = self.cluster.primaries[1]
        self.assertEqual(self.result(run()), [1, 2])
        self.cluster.moving.clear()
        self.cluster.primaries[0].errors = ["TRYAGAIN x"]
        answer = Deferred.fromCoroutine(run())
        self.clock.advance(0)
        self.assertNoResult(answer)
        self.clock.advance(DELAY)
        self.assertEqual(self.result(answer), [1, 2])

    def test_transactionHalf(self) -> None:
        """
        A transaction with keys of which some have moved already is not sent to the other node.
        """
        first, second = f"{{{self.one}}}1", f"{{{self.one}}}2"
        self.result(self.pool.set(first, "1"))
        self.cluster.moving[self.slot] = self.cluster.primaries[1]

        async def run() -> list[Any]:
            async with self.pool.transaction() as block:
                block.incr(first)
                block.incr(second)
            return block.results

        answer = Deferred.fromCoroutine(run())
        self.clock.advance(0)
        self.assertNoResult(answer)
        self.assertEqual(self.cluster.primaries[1].keyed(b"MULTI"), [])
        self.cluster.move(first, 1)
        self.clock.advance(DELAY)
        self.assertEqual(self.result(answer), [2, 1])

    def test_transactionLoop(self) -> None:
        """
        A transaction that no node executes fails with all its commands.
        """
        self.result(self.pool.ping())
        for number, node in enumerate(self.cluster.primaries):
            node.errors = [f"MOVED {self.slot} p{1 - number}:7000"] * 1000
        failures: list[Failure] = []

        async def run() -> None:
            async with self.pool.transaction() as block:
                block.incr(self.one).addErrback(failures.append)

        answer = Deferred.fromCoroutine(run())
        self.clock.advance(10)
        self.fails(answer, ServerUnavailable)
        self.assertIsInstance(failures[0].value, ServerUnavailable)

    def test_transactionCrossSlot(self) -> None:
        """
        All keys of a transaction are in one slot.
        """

        async def run() -> None:
            async with self.pool.transaction() as block:
                block.incr(self.one)
                block.incr(self.two)

        self.fails(run(), CrossSlot)

    def test_watch(self) -> None:
        """
        Watched keys are watched at their node. A transaction that is redirected later fails, and nothing is executed.
        """

        async def run(moves: bool) -> list[Any]:
            async with self.pool.transaction(self.one) as block:
                value = int(await block.get(self.one) or 0)
                if moves:
                    self.cluster.move(self.one, 0)
                block.multi()
                block.set(self.one, value + 1)
            return block.results

        self.assertEqual(self.result(run(False)), [True])
        self.cluster.move(self.one, 1)
        self.assertEqual(self.result(run(False)), [True])
        self.fails(run(True), Exception)
        self.assertEqual(self.result(self.pool.get(self.one)), b"2")

    def test_watchAsk(self) -> None:
        """
        A command that is redirected in a block that watches is an error of its own.
        """
        self.result(self.pool.ping())
        self.cluster.moving[self.slot] = self.cluster.primaries[1]

        async def run() -> None:
            async with self.pool.transaction(self.one) as block:
                await block.get(self.one)

        # The other node executes only the WATCH, which was asked for.
        self.fails(run(), Moved)
        self.assertTrue(issubclass(Ask, Exception))

    def test_blocking(self) -> None:
        """
        A blocking command waits at the node of its key.
        """
        answer = self.pool.blpop([self.one], timeout=10)
        self.clock.advance(0)
        self.assertNoResult(answer)
        self.result(self.pool.rpush(self.one, "x"))
        self.assertEqual(self.result(answer), (self.one.encode(), b"x"))
        self.cluster.move(self.one, 1)
        self.result(self.pool.rpush(self.one, "y"))
        self.assertEqual(self.result(self.pool.blpop([self.one], timeout=10)), (self.one.encode(), b"y"))

    def test_lock(self) -> None:
        """
        A lock is extended and released where its key is, although that needs a script.
        """
        lock = self.pool.lock(self.one, timeout=30)
        self.assertTrue(self.result(lock.acquire()))
        self.cluster.move(self.one, 1)
        self.result(lock.extend(60))
        self.cluster.move(self.one, 0)
        self.result(lock.release())
        self.assertEqual(self.result(self.pool.exists(self.one)), 0)

    def test_nodeLeaves(self) -> None:
        """
        Requests that wait for a connection to a node that leaves the cluster are sent to the other ones.
        """
        self.result(self.pool.get(self.two))
        gone, stays = self.cluster.primaries
        gone.hang()
        name = f"{{{self.one}}}list"
        answers: list[Deferred[Any]] = [self.pool.set(name, "a"), Deferred.fromCoroutine(self.pipe())]
        popped = self.pool.blpop([f"{name}2"], 60)

        async def block() -> list[Any]:
            async with self.pool.transaction() as block:
                block.set(f"{name}3", "a")
            return block.results

        answers.append(Deferred.fromCoroutine(block()))
        self.cluster.owners[:] = [stays] * len(self.cluster.owners)
        self.cluster.primaries.remove(gone)
        control: Any = self.pool._control
        control.refreshing._shuffle = lambda nodes: nodes.sort(reverse=True)  # the node that hangs is asked last
        control.wrong()
        self.clock.advance(2)
        self.assertEqual(self.result(answers[0]), True)
        self.assertEqual(self.result(answers[1]), [True, True, 2, [b"ac", b"b"], b"ac"])
        self.assertEqual(self.result(answers[2]), [True])
        self.result(self.pool.rpush(f"{name}2", "x"))
        self.assertEqual(self.result(popped), (f"{name}2".encode(), b"x"))

    def test_askedNodeLeaves(self) -> None:
        """
        A blocking command that was to be executed once by a node, and waits for a connection to it, is sent to the node
        that has the slot when that one leaves the cluster.
        """
        stays, gone = self.cluster.primaries
        gone.hang()
        self.cluster.moving[self.slot] = gone
        popped = self.pool.blpop([self.one], 60)
        self.clock.advance(0)
        self.cluster.moving.clear()
        self.cluster.owners[:] = [stays] * len(self.cluster.owners)
        self.cluster.primaries.remove(gone)
        control: Any = self.pool._control
        control.refreshing._shuffle = lambda nodes: nodes.sort()  # the node that hangs is asked last
        control.wrong()
        self.clock.advance(2)
        self.result(self.pool.rpush(self.one, "x"))
        self.assertEqual(self.result(popped), (self.one.encode(), b"x"))

    def test_blockingMoved(self) -> None:
        """
        A blocking command whose slot gets another node waits there for the rest of its time.
        """
        answer = self.pool.blpop([self.one], timeout=10)
        self.clock.advance(4)
        node = self.cluster.primaries[0]
        self.cluster.move(self.one, 1)
        for each in node.data.blocked[:]:
            each._unblock(ReplyError(f"MOVED {self.slot} p1:7000"))
        self.clock.advance(0)
        self.assertNoResult(answer)
        self.assertEqual(self.cluster.primaries[1].keyed(b"BLPOP"), [b"BLPOP %b 6.000" % self.one.encode()])
        self.result(self.pool.rpush(self.one, "x"))
        self.assertEqual(self.result(answer), (self.one.encode(), b"x"))

    def test_subscribe(self) -> None:
        """
        Channels are subscribed at the node of the first one, and again if its connection is lost.
        """

        async def receive() -> Any:
            async with self.pool.subscribe(self.one, patterns=["no*"]) as messages:
                await self.pool.publish(self.one, "x")
                return (await messages.__anext__()).data

        self.assertEqual(self.result(receive()), b"x")


class ReplicaTests(ClusterTestCase):
    """
    Tests for C{readFrom}.
    """

    settings = {"readFrom": "prefer-replica"}
    primaries = 1
    replicas = 1

    def test_reads(self) -> None:
        """
        Commands that read are sent to a replica, others to the primary. If no replica is up, the primary gets all.
        """
        (primary,), (replica,) = self.cluster.primaries, self.cluster.replicas
        self.result(self.pool.set("k", "1"))
        self.assertEqual(self.result(self.pool.get("k")), b"1")
        self.assertEqual((len(primary.keyed(b"GET")), len(replica.keyed(b"GET"))), (0, 1))
        replica.errors = ["LOADING x"]
        self.assertEqual(self.result(self.pool.get("k")), b"1")
        self.assertEqual((len(primary.keyed(b"GET")), len(replica.keyed(b"GET"))), (1, 2))
        replica.refuse()
        self.clock.advance(10)
        replica.reset()
        answers = []
        for _ in range(3):
            answers.append(self.pool.get("k"))
            self.clock.advance(1)
        self.assertEqual([self.result(answer) for answer in answers], [b"1"] * 3)

    def test_frozen(self) -> None:
        """
        What a replica has not answered in time is sent to the primary, and so is what waits for a connection.
        """
        (primary,), (replica,) = self.cluster.primaries, self.cluster.replicas
        self.result(self.pool.set("k", "1"))
        self.assertEqual(self.result(self.pool.get("k")), b"1")
        replica.freeze()
        answers = [self.pool.get("k"), self.pool.mget("k")]
        self.clock.advance(4.9)
        for answer in answers:
            self.assertNoResult(answer)
        self.clock.advance(0.2)
        self.assertEqual([self.result(answer) for answer in answers], [b"1", [b"1"]])
        waiting = self.pool.get("k")
        self.clock.advance(20)
        self.assertEqual(self.result(waiting), b"1")
        self.assertEqual(len(primary.keyed(b"GET")), 2)
