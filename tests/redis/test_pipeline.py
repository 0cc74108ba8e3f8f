# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.redis.pipeline}.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults

from tests.redis.cases import RedisTestCase
from txconnpool import Server
from txconnpool.errors import ConnectionLostInFlight, PoolTimeout
from txconnpool.redis import ExecAborted, InvalidArgument, RedisPool, ResponseError, WatchError, WrongType
from txconnpool.testing import FakeRedis


class QueueTestCase(RedisTestCase):
    """
    Base of these test cases.
    """

    def run_(self, call: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        answer = Deferred.fromCoroutine(call)
        self.flush()
        return answer

    def received(self) -> bytes:
        return b"".join(connection.received for connection in self.server.connections)


class PipelineTests(QueueTestCase):
    """
    Tests for L{Pipeline<txconnpool.redis.Pipeline>}.
    """

    def test_large(self) -> None:
        """
        Replies that arrive in many parts are whole.
        """
        value = bytes(range(256)) * 1024
        self.data.items[b"large"] = value
        self.flush()

        async def call() -> list[Any]:
            async with self.pool.pipeline() as pipe:
                pipe.get("large")
                pipe.strlen("large")
                pipe.get("large")
            return pipe.results

        self.pool.ping()
        self.flush()
        self.server.hold()
        answer = self.run_(call())
        for _ in range(40):
            self.server.release(20000)
            self.flush()
        self.assertEqual(self.successResultOf(answer), [value, len(value), value])

    def test_again(self) -> None:
        """
        A pipeline whose block has failed sends nothing, and can be used again.
        """
        pipe = self.pool.pipeline()

        async def call(fails: bool) -> list[Any]:
            async with pipe:
                pipe.incr("n")
                if fails:
                    raise KeyError("n")
            return pipe.results

        self.failureResultOf(self.run_(call(True)), KeyError)
        self.assertEqual(self.successResultOf(self.run_(call(False))), [1])

    def test_full(self) -> None:
        """
        A pipeline that gets no connection fails with all its commands.
        """
        pool = self.makePool(waitTimeout=1, whenDown=None)
        self.server.hang()

        async def call() -> None:
            async with pool.pipeline() as pipe:
                pipe.incr("n")
                pipe.incr("n")

        answer = self.run_(call())
        self.clock.advance(1)
        self.failureResultOf(answer, PoolTimeout)
        self.assertEqual(self.data.items, {})
        self.server.accept()
        self.clock.advance(1)

    def test_results(self) -> None:
        """
        The commands are sent together at the end of the block, and the results are in their order.
        """

        async def call() -> list[Any]:
            async with self.pool.pipeline() as pipe:
                first = pipe.incr("n")
                pipe.hset("h", "a", 1)
                pipe.hgetall("h")
                self.assertEqual(len(pipe), 3)
                self.assertNotIn(b"INCRBY", self.received())
            self.assertEqual(await first, 1)
            return pipe.results

        self.assertEqual(self.successResultOf(self.run_(call())), [1, 1, {b"a": b"1"}])

    def test_error(self) -> None:
        """
        The first error is raised when all commands have their results.
        """

        async def call() -> None:
            async with self.pool.pipeline() as pipe:
                pipe.rpush("l", 1)
                pipe.get("l")
                pipe.set("k", 1)

        self.failureResultOf(self.run_(call()), WrongType)
        self.assertEqual(self.data.items[b"k"], b"1")

    def test_raises(self) -> None:
        """
        If the block raises, nothing is sent.
        """

        async def call() -> None:
            async with self.pool.pipeline() as pipe:
                pipe.set("k", 1)
                raise KeyError

        self.failureResultOf(self.run_(call()), KeyError)
        self.assertEqual(self.server.connections, [])

    def test_blocking(self) -> None:
        """
        A command that may block is refused.
        """
        self.failureResultOf(self.pool.pipeline().blpop("l"), InvalidArgument)

    def test_lost(self) -> None:
        """
        If the connection is lost, no command is sent again, also if it only reads.
        """
        self.successResultOf(self.run_(self.pool.pipeline().send()))
        self.pool.ping()
        self.flush()
        self.server.hold()

        async def call() -> None:
            async with self.pool.pipeline() as pipe:
                pipe.get("k")
                pipe.incr("k")

        answer = self.run_(call())
        self.lose()
        self.failureResultOf(answer, ConnectionLostInFlight)
        self.server.release()
        self.clock.advance(2)
        self.assertNotIn(b"GET", self.received())


class AwaitingTests(QueueTestCase):
    """
    Tests for awaiting the results of queued commands.
    """

    def assertNotSent(self, call: Coroutine[Any, Any, Any]) -> None:
        error = self.failureResultOf(self.run_(call), InvalidArgument)
        self.assertIn("after it", str(error.value))
        self.assertEqual(self.data.items, {})

    def test_early(self) -> None:
        """
        Awaiting a command before it was sent fails at once instead of waiting forever, and nothing is sent.
        """

        async def inPipeline() -> None:
            async with self.pool.pipeline() as pipe:
                await pipe.set("a", 1)

        async def inTransaction() -> None:
            async with self.pool.transaction() as block:
                await block.set("a", 1)

        async def afterMulti() -> None:
            async with self.pool.transaction("a") as block:
                self.assertIsNone(await block.get("a"))
                block.multi()
                await block.set("a", 1)

        async def withoutBlock() -> None:
            await self.pool.pipeline().set("a", 1)

        for call in (inPipeline, inTransaction, afterMulti, withoutBlock):
            self.assertNotSent(call())

    def test_delegated(self) -> None:
        """
        C{yield from} is refused too.
        """

        def generate(pipe: Any) -> Any:
            yield from pipe.get("a")

        self.assertRaises(InvalidArgument, next, generate(self.pool.pipeline()))

    def test_failedBlock(self) -> None:
        """
        If a block fails, its commands are never sent. To await one of them is an error.
        """

        async def call() -> None:
            try:
                async with self.pool.pipeline() as pipe:
                    answer = pipe.set("a", 1)
                    raise KeyError("a")
            except KeyError:
                await answer

        self.assertNotSent(call())

    def test_after(self) -> None:
        """
        After the block, and while C{send} waits, results can be awaited, each with its error.
        """

        async def call(queue: Any) -> list[Any]:
            async with queue as pipe:
                pipe.delete("n")
                answers = [pipe.incr("n"), pipe.incr("n")]
                together = gatherResults(answers)
                answers[0].addCallback(lambda number: number * 10)
            return [await answers[0], await answers[1], await together]

        for queue in (self.pool.pipeline(), self.pool.transaction()):
            self.assertEqual(self.successResultOf(self.run_(call(queue))), [10, 2, [1, 2]])

        pipe = self.pool.pipeline()
        answer = pipe.get("n")
        sending = Deferred.fromCoroutine(pipe.send())
        self.assertEqual(self.successResultOf(self.run_(_awaiting(answer))), b"2")
        self.successResultOf(sending)

    def test_divided(self) -> None:
        """
        The same holds for a command that is divided among several servers, which may be cancelled.
        """
        servers = [Server(FakeRedis(self.clock), label=label) for label in ("a", "b")]
        pool: Any = RedisPool(servers, reactor=self.clock)
        self.pools.append(pool)
        keys = [f"key{number}" for number in range(20)]

        async def early() -> None:
            async with pool.pipeline() as pipe:
                await pipe.mset(dict.fromkeys(keys, "v"))

        async def late() -> Any:
            async with pool.pipeline() as pipe:
                answer = pipe.mset(dict.fromkeys(keys, "v"))
            return await answer

        self.assertNotSent(early())
        self.assertIs(self.successResultOf(self.run_(late())), True)
        answer = pool.pipeline().mget(keys)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)


async def _awaiting(answer: Deferred[Any]) -> Any:
    return await answer


class TransactionTests(QueueTestCase):
    """
    Tests for L{Transaction<txconnpool.redis.Transaction>}.
    """

    def test_together(self) -> None:
        """
        Without keys to watch, all is sent at once between MULTI and EXEC, on a shared connection.
        """

        async def call() -> list[Any]:
            async with self.pool.transaction() as block:
                block.set("k", 1)
                block.incr("k")
                block.hgetall("h")
            return block.results

        self.assertEqual(self.successResultOf(self.run_(call())), [True, 2, {}])
        self.assertEqual(len(self.server.connections), 1)
        self.assertIn(b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET", self.received())

    def test_error(self) -> None:
        """
        An error of one command is raised; the others were executed.
        """

        async def call() -> None:
            async with self.pool.transaction() as block:
                block.rpush("l", 1)
                block.get("l")
                block.set("k", 1)

        self.failureResultOf(self.run_(call()), WrongType)
        self.assertEqual(self.data.items[b"k"], b"1")

    def test_watch(self) -> None:
        """
        Commands before C{multi} are executed at once, on the connection that watches. It is used again afterwards.
        """

        async def call() -> list[Any]:
            async with self.pool.transaction("n") as block:
                number = int(await block.get("n") or 5)
                block.multi()
                block.set("n", number + 1)
            return block.results

        self.assertEqual(self.successResultOf(self.run_(call())), [True])
        self.assertEqual((self.data.items, self.pool.stats.busy), ({b"n": b"6"}, 0))
        self.assertEqual(len(self.server.connections), 1)

    def test_changed(self) -> None:
        """
        If a watched key was changed, nothing is executed.
        """

        async def call() -> None:
            async with self.pool.transaction("n") as block:
                await self.pool.set("n", 1)
                block.multi()
                block.set("n", 2)

        self.failureResultOf(self.run_(call()), WatchError)
        self.assertEqual((self.data.items, self.pool.stats.busy), ({b"n": b"1"}, 0))

    def test_nothing(self) -> None:
        """
        A transaction without commands ends the watch.
        """

        async def call() -> None:
            async with self.pool.transaction("n") as block:
                await block.get("n")

        self.successResultOf(self.run_(call()))
        self.assertIn(b"UNWATCH", self.received())
        self.assertEqual(self.pool.stats.busy, 0)

    def test_raises(self) -> None:
        """
        If the block raises, nothing is executed, and the connection that watches is closed.
        """

        async def call() -> None:
            async with self.pool.transaction("n") as block:
                block.multi()
                block.set("n", 2)
                raise KeyError

        self.failureResultOf(self.run_(call()), KeyError)
        self.flush()
        self.assertEqual((self.data.items, self.server.connections), ({}, []))

    def test_lost(self) -> None:
        """
        If the connection that watches is lost, the block fails.
        """

        lost: Deferred[None] = Deferred()

        async def call() -> None:
            async with self.pool.transaction("n") as block:
                await lost
                await block.get("n")

        answer = self.run_(call())
        self.lose()
        lost.callback(None)
        self.failureResultOf(answer, ConnectionLostInFlight)

    def test_cancelled(self) -> None:
        """
        If the block is cancelled while it waits for EXEC, the connection that watches is closed.
        """

        async def call() -> None:
            async with self.pool.transaction("n") as block:
                await block.get("n")
                self.server.hold()
                block.multi()
                block.set("n", 2)

        answer = self.run_(call())
        answer.cancel()
        self.flush()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual((self.server.connections, self.pool.stats.busy), ([], 0))

    def test_rejected(self) -> None:
        """
        If the server rejects a command, none is executed, and the error has that of the command as its cause.
        """
        self.pool.ping()
        self.flush()

        async def call() -> None:
            async with self.pool.transaction() as block:
                block.incr("n")

        self.server.hold()
        answer = self.run_(call())
        (connection,) = self.server.connections[:1]
        connection.send(b"+OK\r\n-ERR no\r\n-EXECABORT Transaction discarded because of previous errors.\r\n")
        self.flush()
        error = self.failureResultOf(answer, ExecAborted).value
        self.assertIsInstance(error.__cause__, ResponseError)
        connection._held = b""
        self.server.release()
