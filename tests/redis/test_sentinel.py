# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.following}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.redis.cluster import FakeCluster, FakeNode, FakeSource
from txconnpool.errors import PoolClosed, ServerUnavailable
from txconnpool.net.discovery import Discovered, DiscoveryFailed
from txconnpool.redis import RedisPool
from txconnpool.routing.lookups import Lookups
from txconnpool.testing import SteppingClock, finish

LINE = "sentinel:cache@127.0.0.1:26379"


class SentinelTests(SynchronousTestCase):
    """
    Tests with two servers, of which the sentinels name one.
    """

    def setUp(self) -> None:
        self.clock = SteppingClock()
        self.cluster = FakeCluster(self.clock, 2)
        self.first, self.second = self.cluster.primaries
        self.roles = {self.first: b"master", self.second: b"slave"}
        for node in self.cluster.primaries:
            node.role = lambda node=node: self.roles[node]  # type: ignore[misc]
        self.patch(Lookups, "makeSource", FakeSource)
        self.pool: RedisPool[bytes] = RedisPool(LINE, reactor=self.clock, sentinelLogin="secret")
        self.addCleanup(finish, self.pool)

    @property
    def source(self) -> FakeSource:
        source: FakeSource = self.pool._only.lookups.source
        return source

    def name(self, node: FakeNode) -> None:
        """
        Let the sentinels name a master.
        """
        self.cluster.owners[:] = [node] * len(self.cluster.owners)
        self.source.answer([Discovered(node)])  # type: ignore[arg-type]  # in the place of its endpoint string

    def result(self, answer: Any) -> Any:
        self.clock.advance(0)
        return self.successResultOf(answer)

    def test_waits(self) -> None:
        """
        Requests and leases wait until the sentinels have named the master.
        """
        self.assertEqual((self.source.line, self.source.login), (LINE, (b"default", b"secret")))
        answers: list[Deferred[Any]] = [self.pool.set("a", "1"), self.pool.ready()]
        lease = self.pool.acquire()
        self.clock.advance(1)
        self.assertEqual([each.called for each in answers], [False, False])
        self.name(self.first)
        self.assertIs(self.result(answers[0]), True)
        self.result(answers[1])
        self.pool.release(self.result(lease))
        self.assertEqual(self.first.data.items, {b"a": b"1"})

    def test_unknown(self) -> None:
        """
        If the sentinels name none, requests fail with that reason, and further ones at once. Later they succeed.
        """
        answer = self.pool.get("a")
        self.clock.advance(0)
        self.source.answer(DiscoveryFailed("no sentinel answers"))
        for each in (answer, self.pool.get("a"), self.pool.blpop(["l"])):
            self.clock.advance(0)
            self.assertIn("no sentinel answers", str(self.failureResultOf(each, ServerUnavailable).value))
        self.assertGreater(self.source.hurried, 0)
        self.name(self.first)
        self.assertEqual(self.result(self.pool.get("a")), None)

    def test_silent(self) -> None:
        """
        No request waits longer than C{waitTimeout}.
        """
        answer = self.pool.get("a")
        self.clock.advance(5)
        self.clock.advance(0)
        self.failureResultOf(answer, ServerUnavailable)

    def test_changes(self) -> None:
        """
        A command that the old master declines goes to the new one. The old one gets no further requests.
        """
        self.clock.advance(0)
        answer = self.pool.set("a", "1")
        self.clock.advance(0)
        self.name(self.first)
        self.result(answer)
        self.clock.advance(5)
        hurried = self.source.hurried
        self.first.errors = ["READONLY You can't write against a read only replica."] * 3
        self.roles = {self.first: b"slave", self.second: b"master"}

        async def write() -> list[Any]:
            async with self.pool.pipeline() as pipe:
                pipe.set("a", "2")
                pipe.incr("a")
            return pipe.results

        answers: list[Deferred[Any]] = [Deferred.fromCoroutine(write()), self.pool.incr("b")]
        self.clock.advance(0)
        self.assertGreater(self.source.hurried, hurried)
        self.assertEqual([each.called for each in answers], [False, False])
        self.name(self.second)
        self.clock.advance(2)
        self.assertEqual([self.result(each) for each in answers], [[True, 3], 1])
        self.assertEqual(self.second.data.items, {b"a": b"3", b"b": b"1"})
        self.assertEqual(self.first.data.items, {b"a": b"1"})
        self.assertEqual([server.name for server in self.pool.servers], [repr(self.second)])

    def test_closed(self) -> None:
        """
        The end of the pool fails requests that wait, and leaves no timer.
        """
        answer = self.pool.get("a")
        self.clock.advance(0)
        self.result(self.pool.close())
        self.failureResultOf(answer, PoolClosed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        answer = self.pool.get("a")
        self.failureResultOf(answer, PoolClosed)

    def test_options(self) -> None:
        """
        A wrong line, other servers beside it, and a login without sentinels are refused.
        """
        self.assertRaises(ValueError, RedisPool, [LINE, "tcp:a:1"], reactor=self.clock)
        self.assertRaises(ValueError, RedisPool, "tcp:a:1", reactor=self.clock, sentinelLogin="x")
        self.assertRaisesRegex(ValueError, "sentinelLogin", RedisPool, LINE, reactor=self.clock, sentinelLogin="")
        self.assertRaises(ValueError, self.pool.addServer, "tcp:a:1")
