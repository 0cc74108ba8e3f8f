# Copyright txconnpool contributors. See LICENSE.
"""
Tests for commands of L{RedisPool} that one server declines: it has not executed them.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.redis.cluster import ClusterTestCase
from txconnpool.redis import Loading, ReadOnly, RedisPool
from txconnpool.testing import finish

READ_ONLY = "READONLY You can't write against a read only replica."
LOADING = "LOADING Redis is loading the dataset in memory"


class DeclinedTests(ClusterTestCase):
    """
    Tests with one server, which is no cluster for the client.
    """

    primaries = 1

    def setUp(self) -> None:
        super().setUp()
        (self.server,) = self.cluster.primaries
        self.pool = RedisPool(self.server, reactor=self.clock)
        self.addCleanup(finish, self.pool)
        self.result(self.pool.ping())

    def later(self, answer: Any) -> Any:
        """
        @return: the result that comes when the server is asked again.
        """
        answer = Deferred.fromCoroutine(answer)
        self.clock.advance(2)
        return self.result(answer)

    async def pipe(self) -> list[Any]:
        async with self.pool.pipeline() as pipe:
            pipe.set("a", "1")
            pipe.incr("a")
            pipe.get("a")
        return pipe.results

    async def block(self) -> list[Any]:
        async with self.pool.transaction() as block:
            block.set("a", "1")
            block.incr("a")
        return block.results

    def test_pipeline(self) -> None:
        """
        Commands of a pipeline are sent once more if the server has declined all from some command on.
        """
        for error in (READ_ONLY, LOADING):
            self.server.errors = [error] * 3
            self.assertEqual(self.later(self.pipe()), [True, 2, b"2"])
        self.assertEqual(self.pool.stats.retries, 6)

    def test_pipelineOrder(self) -> None:
        """
        A command is not sent again if the server has executed a later one.
        """
        self.server.errors = [READ_ONLY]
        self.fails(self.pipe(), ReadOnly)
        self.assertEqual(self.result(self.pool.get("a")), b"1")

    def test_pipelineReads(self) -> None:
        """
        Commands that only read have no order among themselves.
        """
        self.result(self.pool.set("a", "1"))
        self.server.errors = [LOADING]

        async def read() -> list[Any]:
            async with self.pool.pipeline() as pipe:
                pipe.get("a")
                pipe.exists("a")
            return pipe.results

        self.assertEqual(self.later(read()), [b"1", 1])

    def test_pipelineTwice(self) -> None:
        """
        They are sent again only once.
        """
        self.server.errors = [READ_ONLY] * 6
        answer = Deferred.fromCoroutine(self.pipe())
        self.clock.advance(2)
        self.fails(answer, ReadOnly)
        self.assertEqual(len(self.server.keyed(b"SET")), 2)

    def test_transaction(self) -> None:
        """
        A transaction of which nothing was executed is sent once more.
        """
        for error in (READ_ONLY, LOADING):
            self.server.errors = [error]
            self.assertEqual(self.later(self.block()), [True, 2])
        self.assertEqual(len(self.server.keyed(b"EXEC")), 4)

    def test_transactionTwice(self) -> None:
        """
        It is sent again only once.
        """
        self.server.errors = [LOADING] * 4
        answer = Deferred.fromCoroutine(self.block())
        self.clock.advance(2)
        self.failureResultOf(answer).trap(Exception)
        self.assertEqual(len(self.server.keyed(b"EXEC")), 2)
        self.assertEqual(self.server.data.items, {})

    def test_blocking(self) -> None:
        """
        A blocking command is sent once more, on another connection.
        """
        self.result(self.pool.rpush("l", "x", "y"))
        for error, value in ((READ_ONLY, b"x"), (LOADING, b"y")):
            self.server.errors = [error]
            answer = self.pool.blpop(["l"], timeout=60)
            self.clock.advance(2)
            self.assertEqual(self.result(answer), (b"l", value))
        self.server.errors = [LOADING] * 2
        answer = self.pool.blpop(["l"], timeout=60)
        self.clock.advance(2)
        self.fails(answer, Loading)

    def test_watch(self) -> None:
        """
        A command in a block that watches keys is not sent again.
        """

        async def run() -> None:
            async with self.pool.transaction("a") as block:
                self.server.errors = [READ_ONLY]
                await block.set("a", "1")

        self.fails(run(), ReadOnly)
