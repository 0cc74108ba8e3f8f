# Copyright txconnpool contributors. See LICENSE.
"""
Tests for unexpected exceptions of the library when it processes replies: the Deferreds of the calls fire, and other
calls on the same connection get their results.
"""

from __future__ import annotations

from typing import Any

from tests.memcache.cases import ScriptedTestCase
from txconnpool.errors import PoolError
from txconnpool.memcache.requests import Retrieval
from txconnpool.pool.calls import Request, SingleRequest


class Breaking:
    """
    A caller that raises an exception when it gets its value.
    """

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.called = False
        self.errback = answer.errback

    def callback(self, value: object) -> None:
        """
        Raise an exception.
        """
        raise ZeroDivisionError(value)


class RequestTests(ScriptedTestCase):
    """
    Tests for the requests of a pool.
    """

    def assertBroken(self, *answers: Any) -> None:
        """
        Assert that calls have failed with an exception that was logged once.
        """
        for answer in answers:
            error = self.failureResultOf(answer, PoolError).value
            self.assertIsInstance(error.__cause__, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_reply(self) -> None:
        """
        The exception may be raised for the reply to one call, or for the reply to a request with the keys of several
        calls.
        """
        first, second = self.pool.set("a", b"1"), self.pool.delete("b")
        patch = self.patch(SingleRequest, "answer", lambda *_: 1 // 0)
        self.reply(b"STORED\r\n")
        patch.restore()
        self.reply(b"DELETED\r\n")
        self.assertBroken(first)
        self.assertTrue(self.successResultOf(second))
        answers = [self.pool.get("a"), self.pool.get("b"), self.pool.get("a")]
        self.flush()
        later = self.pool.delete("b")
        patch = self.patch(Retrieval, "answer", lambda *_: 1 // 0)
        self.reply(b"END\r\n")
        patch.restore()
        self.reply(b"DELETED\r\n")
        self.assertBroken(*answers)
        self.assertTrue(self.successResultOf(later))

    def test_value(self) -> None:
        """
        One value may raise it. The calls for the values behind it fail, and those before have their results.
        """
        first, broken, last = self.pool.get("a"), self.pool.get("b"), self.pool.get("c")
        self.flush()
        (request,) = {sink for sink, *_ in self.pool.records[0].connection._inFlight}
        request.callers[b"b"] = Breaking(broken)
        self.reply(b"".join(b"VALUE %c 0 1\r\n1\r\n" % key for key in b"abc") + b"END\r\n")
        self.assertEqual(self.successResultOf(first), (0, b"1"))
        self.assertBroken(broken, last)

    def test_lost(self) -> None:
        """
        The loss of the connection may raise it.
        """
        for name in ("requestsLost", "afterLoss"):
            first, second = self.pool.set("a", b"1"), self.pool.delete("b")
            self.flush()
            patch = self.patch(Request, name, lambda *_: 1 // 0)
            self.lose()
            patch.restore()
            for answer in (first, second):
                self.assertIsInstance(self.failureResultOf(answer, PoolError).value.__cause__, ZeroDivisionError)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2, name)
