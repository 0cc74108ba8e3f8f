# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{RedisPool} with a real sentinel.
"""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.real.resp import Client
from tests.real.servers import Redis, clientEndpoint, missing
from tests.real.watched import Watched
from txconnpool.errors import PoolError
from txconnpool.redis import RedisPool

CALLERS = 4


class SentinelTests(Watched, TestCase):
    """
    A master and its replica, which a sentinel makes the master when that one has failed.
    """

    timeout = 170
    skip = missing("redis-server")

    def setUp(self) -> None:
        """
        Start the servers, the sentinel and a pool, which knows another sentinel too that does not exist.
        """
        line = self.watch()
        self.pool: RedisPool[str] = RedisPool(
            line, decode="utf-8", requestTimeout=20, waitTimeout=20, connectTimeout=20
        )
        self.addCleanup(self.pool.close)
        self.ended = False
        self.rounds = [0] * CALLERS
        self.errors: list[str] = []
        self.wrong: list[str] = []

    async def work(self, number: int) -> None:
        """
        Write new keys, because a failover loses the last writes, and read them.
        """
        while not self.ended:
            token = f"<{number}.{self.rounds[number]}>"
            try:
                async with self.pool.pipeline() as pipe:
                    pipe.set(token, token)
                    pipe.get(token)
                async with self.pool.transaction() as block:
                    block.append(token, "x")
                    block.get(token)
                value = await self.pool.get(token)
            except PoolError as error:
                self.errors.append(str(error))
                await deferLater(reactor, 0.01)
            else:
                if pipe.results != [True, token] or block.results[1] not in (f"{token}x", "x"):
                    self.wrong.append(f"{token}: {pipe.results}, {block.results}")
                if value not in (f"{token}x", "x", None):
                    self.wrong.append(f"{token} is {value}")
            self.rounds[number] += 1

    async def goOn(self, least: int) -> None:
        """
        Wait until each caller has got further.
        """
        wanted = [count + least for count in self.rounds]
        for _ in range(1200):
            if all(count >= most for count, most in zip(self.rounds, wanted, strict=True)):
                return
            await deferLater(reactor, 0.05)
        self.fail("a caller is stuck")

    async def writes(self) -> None:
        """
        Wait until the pool can write.
        """
        for _ in range(1200):
            try:
                await self.pool.set("name", "value")
                return
            except PoolError:
                await deferLater(reactor, 0.05)
        self.fail("no master was found")

    async def test_failover(self) -> None:
        """
        When the master is killed, the pool finds the new one. Until then calls fail. No result is wrong, and when there
        is a master, no call fails.
        """
        working = [Deferred.fromCoroutine(self.work(number)) for number in range(CALLERS)]

        async def end() -> None:
            self.ended = True
            await gatherResults(working)

        self.addCleanup(lambda: Deferred.fromCoroutine(end()))
        await self.goOn(20)
        self.assertEqual(self.errors, [])
        self.failAfter(500)
        self.master.kill()
        await self.writes()
        await self.goOn(1)
        self.errors.clear()
        await self.goOn(20)
        self.assertEqual(self.errors, [])
        self.assertEqual([server.name for server in self.pool.servers], [clientEndpoint(self.replica.address)])
        await end()
        self.assertEqual(self.wrong, [])


class ReplicaTests(Watched, TestCase):
    """
    A master and its replica, which reads.
    """

    timeout = 170
    skip = missing("redis-server")

    async def test_reads(self) -> None:
        """
        The replica reads. When it is killed, no read fails, and the master reads; when it is back, it reads again.
        """
        line = self.watch()
        pool: RedisPool[str] = RedisPool(
            line, decode="utf-8", requestTimeout=20, waitTimeout=20, connectTimeout=20, readFrom="prefer-replica"
        )
        self.addCleanup(pool.close)
        keys = [f"k{number}" for number in range(20)]
        for key in keys:
            await pool.set(key, key)
        await self.reaches(self.replica, pool, keys)
        reading = [Deferred.fromCoroutine(self.read(pool, keys)) for _ in range(CALLERS)]
        await deferLater(reactor, 0)
        self.replica.kill()
        await gatherResults(reading)
        await self.reaches(self.master, pool, keys)
        self.replica.start()
        await self.reaches(self.replica, pool, keys)

    async def read(self, pool: RedisPool[str], keys: list[str]) -> None:
        """
        Read keys, which may not have reached a replica yet.
        """
        for key in keys * 10:
            self.assertIn(await pool.get(key), (key, None))

    async def reaches(self, server: Redis, pool: RedisPool[str], keys: list[str]) -> None:
        """
        Read until a server gets it.
        """
        for _ in range(1200):
            await self.read(pool, keys[:1])
            with Client(server.address) as direct:
                if b"cmdstat_get:" in direct.ask("INFO", "commandstats"):
                    return
            await deferLater(reactor, 0.05)
        self.fail("a server is not read from")
