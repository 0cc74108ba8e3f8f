# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{RedisPool} with a real cluster, which changes under load.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.certificates import Certificate, missingTLS
from tests.real.rediscluster import Cluster, Node, keyOf, slotOf
from tests.real.servers import missing, until
from tests.real.test_redis_cluster_addresses import SecureCluster
from txconnpool.errors import PoolError
from txconnpool.redis import CrossSlot, RedisPool

#: The number of callers of the load, and of keys of each.
CALLERS = 4
KEYS = 12


class ClusterCase(TestCase):
    """
    Base class of tests with a cluster.
    """

    timeout = 170
    skip = missing("redis-server")

    def setUp(self) -> None:
        """
        Start the cluster.
        """
        self.cluster = Cluster(3, 1, password="secret").start()
        self.addCleanup(self.cluster.stop)

    def makePool(self, **settings: Any) -> RedisPool[Any]:
        """
        Create a pool, which is closed at the end of the test. On a slow machine nothing may fail but what fails at
        once.
        """
        times: dict[str, Any] = {
            "login": "secret",
            "requestTimeout": 30.0,
            "waitTimeout": 30.0,
            "connectTimeout": 20.0,
            **settings,
        }
        pool: RedisPool[Any] = RedisPool(f"cluster:{self.cluster.seeds}", 12, decode="utf-8", **times)
        self.addCleanup(pool.close)
        return pool

    def owner(self, key: str) -> tuple[int, Node, Node]:
        """
        @return: the slot of a key, its owner, and another primary.
        """
        slot = slotOf(key.encode())
        source = self.cluster.owner(slot)
        return slot, source, next(node for node in self.cluster.primaries() if node is not source)


class CommandTests(ClusterCase):
    """
    Tests while nothing else happens.
    """

    async def test_steps(self) -> None:
        """
        Take all steps with one cluster: starting one takes seconds.
        """
        for step in (self.commands, self.moving, self.sharded, self.replicas):
            await step()

    async def commands(self) -> None:
        """
        Commands for keys of all nodes have the results that they have with one server.
        """
        pool = self.makePool(namespace="n:")
        names = [f"k{number}" for number in range(100)]
        await pool.mset(dict(zip(names, names, strict=True)))
        self.assertEqual(await pool.mget([*names, "none"]), [*names, None])
        self.assertEqual(await pool.exists(*names), 100)
        self.assertEqual(await pool.dbsize(), 100)
        self.assertEqual(sorted([key async for key in pool.scan_iter(count=10)]), sorted(names))
        async with pool.pipeline() as pipe:
            for name in names:
                pipe.append(name, "x")
                pipe.get(name)
        self.assertEqual(pipe.results, [each for name in names for each in (len(name) + 1, f"{name}x")])
        async with pool.transaction("{a}1") as block:
            self.assertEqual(await block.get("{a}1"), None)
            block.multi()
            block.set("{a}1", "1")
            block.incr("{a}2")
        self.assertEqual(block.results, [True, 1])
        with self.assertRaises(CrossSlot):
            await pool.msetnx({"k1": 1, "k2": 2})
        with self.assertRaises(CrossSlot):
            async with pool.transaction() as block:
                block.incr("k1")
                block.incr("k2")
        add = pool.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
        self.assertEqual([await add([name], [2]) for name in ("{a}2", "c1", "c2")], [3, 2, 2])
        async with pool.lock("lock", timeout=30):
            self.assertEqual(await pool.exists("lock"), 1)
        self.assertEqual(await pool.delete(*names, "{a}1", "{a}2", "c1", "c2"), 104)
        async with pool.subscribe("news", "other", patterns=["w*"]) as messages:
            await pool.publish("weather", "rain")
            self.assertEqual(await pool.publish("news", "x"), 1)
            found = sorted([str((await messages.__anext__()).data) for _ in range(2)])
        self.assertEqual(found, ["rain", "x"])
        self.assertTrue(await pool.flushdb())
        self.assertEqual(await pool.dbsize(), 0)

    async def moving(self) -> None:
        """
        While a slot is being moved, requests for keys that are here and there, pipelines and transactions are executed
        where the keys are.
        """
        pool = self.makePool()
        here, there = "{moving}here", "{moving}there"
        slot, source, target = self.owner(here)
        await pool.mset({here: "1", there: "1"})
        await deferToThread(self.cluster.beginMigration, [slot], target)
        await pool.delete(there)
        self.assertEqual(await pool.incr(there), 1)  # at the target
        async with pool.pipeline() as pipe:
            for _ in range(2):
                pipe.incr(there)
                pipe.incr(here)
            pipe.get(there)
        self.assertEqual(pipe.results, [2, 2, 3, 3, "3"])
        async with pool.transaction() as block:
            block.incr(there)
        self.assertEqual(block.results, [4])
        both = pool.mget(here, there)  # until all keys have moved, it is sent again

        async def run() -> list[Any]:
            async with pool.transaction() as block:
                block.incr(here)
                block.incr(there)
            return block.results

        changed = Deferred.fromCoroutine(run())
        waiting = pool.blpop(["{moving}list"], timeout=60)
        await deferLater(reactor, 0.1)
        self.assertFalse(changed.called)
        await deferToThread(self.cluster.finishMigration, [slot], source, target)
        self.assertEqual(await changed, [4, 5])
        self.assertIn(await both, (["3", "4"], ["4", "5"]))
        await pool.rpush("{moving}list", "x")
        self.assertEqual(await waiting, ("{moving}list", "x"))
        await deferToThread(self.cluster.migrate, [slot], source)
        self.assertEqual(await pool.mget(here, there), ["4", "5"])

    async def sharded(self) -> None:
        """
        Messages of sharded channels are received from the node of their slot, and from another one if it moves.
        """
        pool = self.makePool(namespace="n:")
        slot, source, target = self.owner("sharded")
        with self.assertRaises(CrossSlot):
            pool.subscribe("k1", "k2", sharded=True)
        async with pool.subscribe("sharded", sharded=True) as messages:
            for owner in (target, source):
                self.assertEqual(await pool.spublish("sharded", "x"), 1)
                message = await messages.__anext__()
                self.assertEqual((message.kind, message.channel, message.data), ("smessage", "sharded", "x"))
                await deferToThread(self.cluster.migrate, [slot], owner)
                self.assertEqual((await messages.__anext__()).kind, "reconnected")
        self.assertEqual(pool.stats.violations, 0)

    async def replicas(self) -> None:
        """
        Replicas get commands that read, and no others.
        """
        pool = self.makePool(readFrom="prefer-replica")
        key = keyOf(100, "replica")
        await pool.set(key, "1")
        primary = self.cluster.owner(100)
        await deferToThread(self.cluster.untilReplicated, primary)
        (replica,) = self.cluster.replicas(primary)
        before = replica.info("stats")
        for _ in range(5):
            self.assertEqual(await pool.get(key), "1")
        after = replica.info("stats")
        self.assertEqual(int(after["keyspace_hits"]) - int(before["keyspace_hits"]), 5)


class SecureTests(TestCase):
    """
    Tests with TLS.
    """

    timeout = 170
    skip = missing("redis-server") or missingTLS

    async def test_tls(self) -> None:
        """
        All nodes are reached with TLS, also those that redirects name.
        """
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        directory = Path(temporary.name)
        cluster = SecureCluster(2, Certificate(directory, "localhost", authority=True))
        self.addCleanup(cluster.stop)
        cluster.start()
        for name, value in (("announce-hostname", "localhost"), ("preferred-endpoint-type", "hostname")):
            for node in cluster.nodes:
                node.ask("CONFIG", "SET", f"cluster-{name}", value)

        def reported() -> bool:
            shards = [shard for node in cluster.nodes for shard in node.ask("CLUSTER", "SLOTS")]
            return all(server[0] == b"localhost" for shard in shards for server in shard[2:])

        await deferToThread(until, reported, 60.0, "the names of the nodes")
        roots = directory / "roots"
        roots.mkdir()
        (directory / "localhost.pem").rename(roots / "localhost.pem")
        pool: RedisPool[str] = RedisPool(
            f"cluster:{cluster.secureSeeds} trustRoots={roots}", decode="utf-8",
            requestTimeout=30, waitTimeout=30, connectTimeout=20,
        )  # fmt: skip
        self.addCleanup(pool.close)
        names = [f"k{number}" for number in range(20)]
        await pool.mset(dict.fromkeys(names, "x"))
        self.assertEqual(await pool.mget(names), ["x"] * 20)
        slot = slotOf(b"k0")
        target = next(node for node in cluster.primaries() if node is not cluster.owner(slot))
        source = await deferToThread(cluster.beginMigration, [slot], target)
        self.assertEqual(await pool.incr("{k0}new"), 1)
        self.assertEqual(target.ask("CLUSTER", "COUNTKEYSINSLOT", slot), 1)
        self.assertEqual(source.ask("CLUSTER", "COUNTKEYSINSLOT", slot), 1)
        self.assertEqual({server.name.partition(":")[0] for server in pool.servers}, {"tls"})


class Caller:
    """
    One caller of the load: keys of its own, with values that are never used again, and what each reply must be.

    @ivar rounds: how many rounds have ended.
    @ivar errors: the errors of calls.
    @ivar wrong: what was wrong.
    @ivar losing: whether the cluster may lose values that it has confirmed.
    """

    def __init__(self, pool: RedisPool[Any], number: int) -> None:
        self.rounds = 0
        self.errors: list[Exception] = []
        self.wrong: list[str] = []
        self.losing = False
        self.ended = False
        self._pool = pool
        self._number = number
        self._chance = random.Random(number)
        self._names = [f"{number}:{key}" for key in range(KEYS)]
        self._tagged = [f"{{{number}}}:{key}" for key in range(KEYS)]
        self._known: dict[str, list[str | None]] = {}  # the values that a key may have; the last one if it is certain
        self._token = 0
        self.done = Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        kinds = (self._single, self._several, self._pipeline, self._transaction, self._pop)
        while not self.ended:
            try:
                await self._chance.choice(kinds)()
            except PoolError as error:
                self.errors.append(error)
                await deferLater(reactor, 0.01)
            self.rounds += 1

    def _value(self) -> str:
        self._token += 1
        return f"<{self._number}.{self._token}>"

    async def _write(self, values: dict[str, str], call: Callable[[], Any]) -> Any:
        for name, value in values.items():
            self._known.setdefault(name, [None]).append(value)
        result = await call()
        for name, value in values.items():
            self._known[name] = [value]
        return result

    def _check(self, name: str, value: str | None) -> None:
        known = self._known.get(name, [None])
        if value in known:
            self._known[name] = [value]
        elif self.losing and (value is None or value.startswith(f"<{self._number}.")):
            self._known[name] = [value]  # what remains if a replica had not received the write
        else:
            self.wrong.append(f"{name} is {value}, and not {known[-3:]}")

    async def _single(self) -> None:
        name, value = self._chance.choice(self._names), self._value()
        await self._write({name: value}, lambda: self._pool.set(name, value))
        self._check(name, await self._pool.get(name))

    async def _several(self) -> None:
        values = {name: self._value() for name in self._chance.sample(self._names, 4)}
        await self._write(values, lambda: self._pool.mset(values))
        for name, value in zip(values, await self._pool.mget(list(values)), strict=True):
            self._check(name, value)

    async def _pipeline(self) -> None:
        names = self._chance.sample(self._names, 3)
        values = {name: self._value() for name in names}

        async def call() -> list[Any]:
            async with self._pool.pipeline() as pipe:
                for name, value in values.items():
                    pipe.set(name, self._value())
                    pipe.set(name, value)
                    pipe.get(name)
            return pipe.results

        for name in names:
            self._known.setdefault(name, [None]).append(f"<{self._number}.{self._token + 1 + names.index(name)}>")
        results = await self._write(values, call)
        if results[2::3] != list(values.values()) and not self.losing:
            self.wrong.append(f"pipeline: {results}")

    async def _transaction(self) -> None:
        one, two = self._chance.sample(self._tagged, 2)
        value = self._value()

        async def call() -> list[Any]:
            async with self._pool.transaction() as block:
                block.set(one, value)
                block.get(one)
                block.get(two)
            return block.results

        results = await self._write({one: value}, call)
        if results[:2] != [True, value]:
            self.wrong.append(f"transaction: {results}")
        self._check(two, results[2])

    async def _pop(self) -> None:
        name, value = f"list:{self._number}:{self._token}", self._value()
        await self._pool.rpush(name, value)
        found = await self._pool.blpop([name], timeout=20)
        if found != (name, value) and not (found is None and self.losing):
            self.wrong.append(f"blpop: {found}, and not {value}")


class LoadTests(ClusterCase):
    """
    Tests with calls under way.
    """

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """
        Wait for a condition.
        """
        for _ in range(1200):
            if condition():
                return
            await deferLater(reactor, 0.05)
        self.fail(f"timeout: {what}")

    async def progress(self, rounds: int = 10) -> None:
        """
        Wait until all callers have got further.
        """
        wanted = [(caller, caller.rounds + rounds) for caller in self.callers]
        await self.until(lambda: all(caller.rounds >= count for caller, count in wanted), "all calls")
        self.assertEqual([caller.wrong for caller in self.callers], [[]] * CALLERS)

    def errors(self) -> list[str]:
        """
        @return: the errors since the last call.
        """
        found = [f"{type(error).__name__}: {error}" for caller in self.callers for error in caller.errors]
        for caller in self.callers:
            caller.errors.clear()
        return found

    async def test_changes(self) -> None:
        """
        While slots move back and forth, every result is right, and there is no error. When a primary is killed, there
        are errors until its replica has taken over, and no wrong results but for what Redis itself loses.
        """
        pool = self.makePool()
        await pool.ready()
        self.callers = [Caller(pool, number) for number in range(CALLERS)]

        async def end() -> None:
            for caller in self.callers:
                caller.ended = True
            await gatherResults([caller.done for caller in self.callers])

        ending: Callable[[], Coroutine[Any, Any, None]] = end
        self.addCleanup(lambda: Deferred.fromCoroutine(ending()))
        await self.progress()
        slots = sorted({slotOf(name.encode()) for name in [*(f"0:{key}" for key in range(5)), "{0}", "{1}"]})
        for slot in slots:
            source = self.cluster.owner(slot)
            target = next(node for node in self.cluster.primaries() if node is not source)
            await deferToThread(self.cluster.migrate, [slot], target)
            await self.progress(2)
            await deferToThread(self.cluster.migrate, [slot], source)
        await self.progress()
        self.assertEqual(self.errors(), [])
        for caller in self.callers:
            caller.losing = True
        victim = self.cluster.owner(slots[0])
        (replica,) = self.cluster.replicas(victim)
        victim.kill()
        await self.progress(3)
        await deferToThread(self.cluster.failover, replica)

        async def served() -> bool:
            await self.progress(5)
            return not self.errors()

        for _ in range(50):
            if await served():
                break
        else:
            self.fail("there are still errors")
        await deferToThread(victim.start)
        await deferToThread(self.cluster.untilConsistent)
        await self.progress()
        await end()
        self.assertEqual([caller.wrong for caller in self.callers], [[]] * CALLERS)
