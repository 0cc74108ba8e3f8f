# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.memcache.computing}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.memcache.cases import ScriptedTestCase
from txconnpool.errors import PoolClosed
from txconnpool.memcache import InvalidArgument, JSONSerializer, MemCachePool
from txconnpool.memcache.store import Item
from txconnpool.testing import MemoryPool, finish


class ComputeTests(SynchronousTestCase):
    """
    Tests for C{getOrCompute} of two processes with one memcached.
    """

    def setUp(self) -> None:
        self.first = MemoryPool()
        self.clock = self.first.clock
        self.second = MemCachePool(self.first.server, reactor=self.clock)
        self.addCleanup(finish, self.first)
        self.addCleanup(self.second.close)
        self.computed: list[Deferred[bytes]] = []

    def compute(self) -> Deferred[bytes]:
        """
        Compute a value for as long as the test says.
        """
        self.computed.append(Deferred())
        return self.computed[-1]

    def asks(self, *pools: Any, **options: Any) -> list[Deferred[bytes]]:
        """
        @return: the results of calls.
        """
        found = []
        for pool in pools:
            found.append(pool.getOrCompute("k", self.compute, **options))
            self.clock.advance(0)
        return found

    def value(self) -> bytes | None:
        return self.first.result(self.first.get("k"))[1]

    def test_hit(self) -> None:
        """
        A value that is there is not computed, an empty one neither.
        """
        for value in (b"v", b""):
            self.first.result(self.first.set("k", value))
            self.assertEqual(self.first.result(self.first.getOrCompute("k", self.compute)), value)
        self.assertEqual(self.computed, [])

    def test_miss(self) -> None:
        """
        A value that is not there is computed and stored, with its expiry time.
        """
        self.assertEqual(self.first.result(self.first.getOrCompute("k", lambda: b"v", 60)), b"v")
        self.assertEqual(self.value(), b"v")
        self.clock.advance(61)
        self.assertEqual(self.value(), None)

    def test_together(self) -> None:
        """
        Calls of one process share the computation; one that is cancelled leaves it.
        """
        one, two, three = self.asks(self.first, self.first, self.first)
        two.cancel()
        self.failureResultOf(two, CancelledError)
        self.assertEqual(len(self.computed), 1)
        self.computed[0].callback(b"v")
        self.clock.advance(0)
        self.assertEqual((self.successResultOf(one), self.successResultOf(three)), (b"v", b"v"))

    def test_processes(self) -> None:
        """
        Another process waits for the value, and asks again until it is there.
        """
        one, two = self.asks(self.first, self.second)
        self.clock.advance(3)
        self.assertNoResult(two)
        self.computed[0].callback(b"v")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(one), b"v")
        self.clock.advance(0.5)
        self.assertEqual(self.successResultOf(two), b"v")
        self.assertEqual(len(self.computed), 1)

    def test_fails(self) -> None:
        """
        If the computation fails, so do the calls of its process; another process tries.
        """
        one, same, two = self.asks(self.first, self.first, self.second)
        self.computed[0].errback(LookupError("no"))
        self.clock.advance(0)
        self.failureResultOf(one, LookupError)
        self.failureResultOf(same, LookupError)
        self.clock.advance(0.5)
        self.assertEqual(len(self.computed), 2)
        self.computed[1].callback(b"v")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(two), b"v")

    def test_cancelled(self) -> None:
        """
        If all calls are cancelled, so is the computation, and another process tries. One that waits just stops.
        """
        one, two = self.asks(self.first, self.second)
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.assertTrue(self.computed[0].called)
        self.clock.advance(0.5)
        self.assertEqual(len(self.computed), 2)
        (third,) = self.asks(self.first)
        third.cancel()
        self.failureResultOf(third, CancelledError)
        self.computed[1].callback(b"v")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(two), b"v")

    def test_cancelledEarly(self) -> None:
        """
        A call that is cancelled while the server is asked does not compute, and keeps no other process from it.
        """
        one = self.first.getOrCompute("k", self.compute)
        self.first.server.hold()
        self.clock.advance(0)
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.first.server.release()
        self.clock.advance(0)
        self.assertEqual(self.computed, [])
        (two,) = self.asks(self.second)
        self.assertEqual(len(self.computed), 1)
        self.computed[0].callback(b"v")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(two), b"v")

    def test_cancelledByAnother(self) -> None:
        """
        A caller may cancel the others when it gets the value.
        """
        one, two = self.asks(self.first, self.first)
        one.addCallback(lambda _: two.cancel())
        self.computed[0].callback(b"v")
        self.clock.advance(0)
        self.failureResultOf(two, CancelledError)

    def test_gone(self) -> None:
        """
        If the process that computes does not come back, another one does it after C{computeTime}. What the first one
        stores later does not replace that.
        """
        one, two = self.asks(self.first, self.second, computeTime=5)
        self.clock.advance(6)
        self.assertEqual(len(self.computed), 2)
        self.computed[1].callback(b"second")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(two), b"second")
        self.computed[0].callback(b"first")
        self.clock.advance(0)
        self.assertEqual((self.successResultOf(one), self.value()), (b"first", b"second"))

    def test_deleted(self) -> None:
        """
        A key that was deleted meanwhile is not stored again.
        """
        (one,) = self.asks(self.first)
        self.first.result(self.first.delete("k"))
        self.computed[0].callback(b"v")
        self.clock.advance(0)
        self.assertEqual((self.successResultOf(one), self.value()), (b"v", None))

    def test_refresh(self) -> None:
        """
        A value that expires soon is computed anew by one, and the others get the old one.
        """
        self.first.result(self.first.set("k", b"old", expireTime=20))
        one, two = self.asks(self.first, self.second, refreshBefore=30)
        self.assertEqual((self.successResultOf(two), len(self.computed)), (b"old", 1))
        self.computed[0].callback(b"new")
        self.clock.advance(0)
        self.assertEqual((self.successResultOf(one), self.value()), (b"new", b"new"))

    def test_staleFails(self) -> None:
        """
        If a stale value cannot be computed anew, the old one is used, and that is logged.
        """
        self.first.result(self.first.set("k", b"old"))
        self.first.result(self.first.invalidate("k"))
        one, two = self.asks(self.first, self.second)
        self.computed[0].errback(LookupError("no"))
        self.clock.advance(0)
        self.assertEqual((self.successResultOf(one), self.successResultOf(two)), (b"old", b"old"))
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    def test_closed(self) -> None:
        """
        A pool that is closed waits for no other process.
        """
        _, two = self.asks(self.first, self.second)
        self.second.close()
        self.failureResultOf(two, PoolClosed)
        self.computed[0].callback(b"v")
        self.clock.advance(0)
        self.failureResultOf(self.second.getOrCompute("k", self.compute), PoolClosed)

    def test_down(self) -> None:
        """
        If the cache cannot be reached, the value is computed.
        """
        self.first.server.refuse()
        self.assertEqual(self.first.result(self.first.getOrCompute("k", lambda: b"v")), b"v")

    def test_notStored(self) -> None:
        """
        If a computed value cannot be stored, because the cache has gone meanwhile, the callers get it all the same.
        """
        (answer,) = self.asks(self.first)
        self.assertEqual(len(self.computed), 1)
        self.first.server.stop()
        self.clock.advance(0)
        self.computed[0].callback(b"v")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(answer), b"v")

    def test_wrong(self) -> None:
        """
        Arguments are checked; a result that cannot be stored fails the call.
        """
        call: Any = self.first.getOrCompute
        for arguments, options in (
            (("a b", self.compute), {}),
            (("k", b"v"), {}),
            (("k", self.compute, "5"), {}),
            (("k", self.compute), {"computeTime": 0}),
            (("k", self.compute), {"refreshBefore": -1}),
        ):
            self.failureResultOf(call(*arguments, **options), InvalidArgument)
        self.assertRaises(InvalidArgument, self.first.result, call("k", lambda: 5))
        self.assertEqual(self.value(), None)

    def test_hooks(self) -> None:
        """
        Values are made by the serializer. One that is unreadable is computed anew.
        """
        pool = MemoryPool(serializer=JSONSerializer())
        self.addCleanup(finish, pool)
        call: Any = pool.getOrCompute
        self.assertEqual(pool.result(call("k", lambda: [1])), [1])
        self.assertEqual(pool.result(call("k", self.compute)), [1])
        pool.server.store.link(b"k", Item(b"{", flags=1))
        self.assertEqual(pool.result(call("k", lambda: [2])), [2])
        self.assertEqual(pool.result(pool.get("k")), (1, [2]))


class OldServerTests(ScriptedTestCase):
    """
    Tests for a server without meta commands.
    """

    def test_computed(self) -> None:
        """
        The value is got and stored with classic commands.
        """
        for stored, value in ((b"", b"new"), (b"VALUE k 0 3\r\nold\r\n", b"old")):
            answer = self.pool.getOrCompute("k", lambda: b"new", 60)
            self.assertEqual(self.received(), b"mg k v f c N30\r\n")
            self.reply(b"ERROR\r\n")
            self.assertEqual(self.received(), b"get k\r\n")
            self.reply(stored + b"END\r\n")
            self.assertEqual(self.successResultOf(answer), value)
            if not stored:
                self.assertEqual(self.received(), b"set k 0 60 3\r\nnew\r\n")
                self.reply(b"STORED\r\n")

    def test_notStored(self) -> None:
        """
        A value that could not be stored is returned all the same. One that the cache has, but the serializer cannot
        read, is computed anew.
        """
        pool = MemCachePool(self.server, 1, self.clock, configure=None, serializer=JSONSerializer())
        self.addCleanup(finish, pool)
        answer = pool.getOrCompute("k", lambda: [1], 60)
        self.assertEqual(self.received(), b"mg k v f c N30\r\n")
        self.reply(b"ERROR\r\n")
        self.assertEqual(self.received(), b"get k\r\n")
        self.reply(b"VALUE k 1 1\r\n{\r\nEND\r\n")
        self.assertEqual(self.successResultOf(answer), [1])
        self.assertTrue(self.received().startswith(b"set k 1 60 "))
        self.reply(b"SERVER_ERROR out of memory storing object\r\n")
        self.assertEqual(pool.stats.inFlight, 0)
