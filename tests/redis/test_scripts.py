# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.redis.scripts}.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred

from tests.redis.cases import RedisTestCase
from txconnpool.redis import LockError


class ScriptsTestCase(RedisTestCase):
    """
    Base of these test cases.
    """

    def call(self, call: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        answer = Deferred.fromCoroutine(call)
        self.flush()
        return answer


class ScriptTests(ScriptsTestCase):
    """
    Tests for L{Script<txconnpool.redis.Script>}.
    """

    def test_unknown(self) -> None:
        """
        A script that the server does not know is sent, and is known from then on.
        """
        script = self.pool.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
        self.data.addScript(script.text, lambda call, keys, args: call("INCRBY", keys[0], args[0]))
        self.assertEqual(self.successResultOf(self.call(script(["k"], [2]))), 2)
        (connection,) = self.server.connections
        connection.received = b""
        self.assertEqual(self.successResultOf(self.call(script(["k"], [3]))), 5)
        self.assertNotIn(b"$4\r\nEVAL\r\n", connection.received)


class LockTests(ScriptsTestCase):
    """
    Tests for L{Lock<txconnpool.redis.Lock>}.
    """

    def test_exclusive(self) -> None:
        """
        A lock is held by one at a time. Others wait until it is released.
        """
        first, second = self.pool.lock("l"), self.pool.lock("l")
        self.assertTrue(self.successResultOf(self.call(first.acquire())))
        self.assertFalse(self.successResultOf(self.call(second.acquire(blocking=False))))
        waiting = self.call(second.acquire())
        self.clock.advance(5)
        self.assertNoResult(waiting)
        self.successResultOf(self.call(first.release()))
        self.clock.advance(0.1)
        self.assertTrue(self.successResultOf(waiting))
        self.successResultOf(self.call(second.release()))
        self.assertEqual(self.data.items, {})

    def test_ended(self) -> None:
        """
        A lock ends by itself. Its former holder cannot release the lock of another.
        """
        first, second = self.pool.lock("l", timeout=3), self.pool.lock("l")
        self.successResultOf(self.call(first.acquire()))
        self.clock.advance(4)
        self.assertTrue(self.successResultOf(self.call(second.acquire())))
        self.failureResultOf(self.call(first.release()), LockError)
        self.failureResultOf(self.call(first.release()), LockError)
        self.assertIn(b"l", self.data.items)

    def test_timeout(self) -> None:
        """
        There is a limit for the time to wait.
        """
        self.successResultOf(self.call(self.pool.lock("l").acquire()))

        async def hold() -> None:
            async with self.pool.lock("l", blocking_timeout=1):
                pass

        answer = self.call(hold())
        self.clock.advance(2)
        self.failureResultOf(answer, LockError)

    def test_block(self) -> None:
        """
        A lock is released when its block ends, also by an error.
        """

        async def hold() -> None:
            async with self.pool.lock("l"):
                raise KeyError

        self.failureResultOf(self.call(hold()), KeyError)
        self.assertEqual(self.data.items, {})

    def test_extended(self) -> None:
        """
        A lock that is extended ends later. One that has ended cannot be extended.
        """
        lock = self.pool.lock("l", timeout=5)
        self.assertIsInstance(self.failureResultOf(self.call(lock.extend(5))).value, LockError)
        self.successResultOf(self.call(lock.acquire()))
        self.clock.advance(4)
        self.successResultOf(self.call(lock.extend(10)))
        self.clock.advance(9)
        self.assertIn(b"l", self.data.items)
        self.clock.advance(1)
        self.failureResultOf(self.call(lock.extend(10)), LockError)
        self.failureResultOf(self.call(lock.release()), LockError)

    def test_failedBlock(self) -> None:
        """
        A block that fails releases the lock; if that has ended meanwhile, the error is that of the block.
        """

        async def work(seconds: float) -> None:
            async with self.pool.lock("l", timeout=5):
                self.clock.rightNow += seconds
                raise KeyError("l")

        for seconds in (0, 5):
            self.failureResultOf(self.call(work(seconds)), KeyError)
        self.assertIsNone(self.data.databases[0].look(b"l"))

    def test_late(self) -> None:
        """
        A block is not entered if the lock cannot be acquired in time.
        """
        self.successResultOf(self.call(self.pool.lock("l").acquire()))

        async def enter() -> None:
            async with self.pool.lock("l", blocking_timeout=1):
                raise AssertionError("entered")

        answer = self.call(enter())
        self.clock.advance(1)
        self.failureResultOf(answer, LockError)
