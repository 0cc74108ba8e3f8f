# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.memcache.recipes}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.memcache.cases import EmbeddedTestCase, ScriptedTestCase
from txconnpool.memcache import ClientError, InvalidArgument, ServerError


class RecipeTests(EmbeddedTestCase):
    """
    Tests for calls of several requests.
    """

    def test_setMultiple(self) -> None:
        """
        C{setMultiple} stores all values, and C{deleteMultiple} deletes all keys.
        """
        values: dict[str | bytes, bytes] = {"a": b"1", b"b": b"2"}
        stored = self.pool.result(self.pool.setMultiple(values, 5, 60))
        self.assertEqual(stored, {"a": True, b"b": True})
        self.assertEqual(self.pool.result(self.pool.getMultiple([*"ab"])), {"a": (5, b"1"), "b": (5, b"2")})
        self.assertEqual(self.pool.result(self.pool.deleteMultiple([*"abc"])), {"a": True, "b": True, "c": False})
        self.pool.result(self.pool.setMultiple({"a": b"1"}, expireTime=60))
        self.pool.clock.advance(61)
        self.assertEqual(self.pool.result(self.pool.get("a")), (0, None))
        self.assertEqual(self.pool.result(self.pool.setMultiple({})), {})

    def test_someFail(self) -> None:
        """
        If one fails, the others are stored before the call fails.
        """
        self.assertRaises(InvalidArgument, self.pool.result, self.pool.setMultiple({"a b": b"", "c": b"3"}))
        self.assertEqual(self.pool.result(self.pool.get("c")), (0, b"3"))

    def test_initial(self) -> None:
        """
        With an initial number, C{increment} and C{decrement} create the key.
        """
        self.assertEqual(self.pool.result(self.pool.increment("n", 5, initial=100, expireTime=60)), 100)
        self.assertEqual(self.pool.result(self.pool.increment("n", 5, initial=100)), 105)
        self.assertEqual(self.pool.result(self.pool.decrement("n", 5, initial=7)), 100)
        self.assertEqual(self.pool.result(self.pool.decrement("m", 5, initial=7)), 7)
        self.pool.clock.advance(61)
        self.assertIs(self.pool.result(self.pool.increment("n")), False)
        self.failureResultOf(self.pool.increment("n", 1, initial=-1), InvalidArgument)
        self.pool.result(self.pool.set("t", b"text"))
        self.assertRaises(ClientError, self.pool.result, self.pool.increment("t", initial=1))

    def test_flushLater(self) -> None:
        """
        C{flushAll} with a delay deletes all keys later.
        """
        self.store(a=b"1")
        self.assertTrue(self.pool.result(self.pool.flushAll(10)))
        self.assertEqual(self.pool.result(self.pool.get("a")), (0, b"1"))
        self.pool.clock.advance(11)
        self.assertEqual(self.pool.result(self.pool.get("a")), (0, None))
        self.failureResultOf(self.pool.flushAll(-1), InvalidArgument)

    def test_update(self) -> None:
        """
        C{update} stores what it computes of the old value.
        """
        self.assertEqual(self.pool.result(self.pool.update("k", lambda old: (old or b"") + b"x")), b"x")

        async def later(old: bytes | None) -> bytes:
            assert old is not None
            return old * 2

        self.assertEqual(self.pool.result(self.pool.update("k", later)), b"xx")
        self.assertEqual(self.pool.result(self.pool.get("k")), (0, b"xx"))

    def test_updateAgain(self) -> None:
        """
        It tries again if the value was changed meanwhile, but not for ever.
        """
        self.store(k=b"1")
        olds: list[Any] = []

        async def meanwhile(old: bytes | None) -> bytes:
            olds.append(old)
            if len(olds) < 3:
                await self.pool.set("k", b"%d" % (len(olds) + 1))
            return b"new"

        self.assertEqual(self.pool.result(self.pool.update("k", meanwhile)), b"new")
        self.assertEqual(olds, [b"1", b"2", b"3"])
        del olds[:]
        self.assertIsNone(self.pool.result(self.pool.update("k", meanwhile, attempts=2)))

    def test_invalidate(self) -> None:
        """
        A stale value is computed anew.
        """
        self.store(k=b"old")
        self.assertTrue(self.pool.result(self.pool.invalidate("k")))
        self.assertIs(self.pool.result(self.pool.invalidate("x")), False)
        self.assertEqual(self.pool.result(self.pool.getOrCompute("k", lambda: b"new")), b"new")
        self.failureResultOf(self.pool.invalidate("a b"), InvalidArgument)


class ScriptedRecipeTests(ScriptedTestCase):
    """
    Tests for errors of the server.
    """

    def test_cancel(self) -> None:
        """
        To cancel a call for several keys cancels all its requests.
        """
        answer = self.pool.setMultiple({"a": b"1", "b": b"2"})
        answer.cancel()
        self.failureResultOf(answer, CancelledError)

    def test_errors(self) -> None:
        """
        Error lines fail the calls.
        """
        for call in (
            lambda: self.pool.invalidate("k"),
            lambda: self.pool.increment("k", initial=1),
        ):
            answer: Deferred[Any] = call()
            self.reply(b"SERVER_ERROR out of memory\r\n")
            self.failureResultOf(answer, ServerError)
