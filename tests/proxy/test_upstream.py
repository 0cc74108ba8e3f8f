# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.upstream}.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.settings import PoolSettings
from txconnpool.errors import PoolError
from txconnpool.pool.slow import SlowLog
from txconnpool.proxy.upstream import Upstream
from txconnpool.routing.clusters import ClusterPool
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.redis.dialect import Redis
from txconnpool.wire.topology import Node


class _Waiter:
    """
    A client that waits for a connection.
    """

    ticket: Any = None

    def __init__(self) -> None:
        self.error: PoolError | None = None

    def granted(self, record: Any) -> None:
        raise AssertionError(record)

    def refused(self, error: PoolError) -> None:
        self.error = error


class ReplacedTests(SynchronousTestCase):
    """
    Tests for a reload that replaces one server by a cluster.
    """

    def setUp(self) -> None:
        """
        Make a pool with one server, to which nobody connects.
        """
        self.reactor: Any = MemoryReactorClock()
        self.settings = PoolSettings(protocol="redis", upstream=("tcp:10.0.0.1:6379",))
        dialect = Redis()
        slow = SlowLog("default", dialect, self.reactor.seconds)
        self.upstream = Upstream(self.settings, dialect, self.reactor, slow)
        self.addCleanup(self.end)
        self.upstream.start()

    def end(self) -> None:
        """
        Assert that nothing is left.
        """
        self.upstream.abort()
        self.successResultOf(self.upstream.close(0.0))
        self.upstream.finder.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def reload(self, line: str, **values: Any) -> bool:
        """
        @return: whether there is another pool.
        """
        self.settings = replace(self.settings, upstream=(line,), **values)
        return self.upstream.adjust(self.settings)

    def test_paused(self) -> None:
        """
        The pause goes on in the new pool. Nobody can end that of the old one, whose waiters are refused.
        """
        waiter, old = _Waiter(), self.upstream.pool
        old.pause()
        self.assertIsNone(old.base.take(waiter))
        self.assertTrue(self.reload("cluster:10.0.0.2:7001"))
        self.assertIsInstance(waiter.error, PoolError)
        self.assertIsInstance(self.upstream.pool, ClusterPool)
        self.assertEqual((self.upstream.pool.paused, old.connections), (True, []))
        self.upstream.pool.resume()
        self.assertFalse(self.upstream.pool.paused)
        self.upstream.closeReplaced()

    def test_notPaused(self) -> None:
        """
        Without a pause the waiters of the old pool wait on, until no client uses it.
        """
        waiter, old = _Waiter(), self.upstream.pool
        self.assertIsNone(old.base.take(waiter))
        self.assertTrue(self.reload("cluster:10.0.0.2:7001"))
        self.assertEqual((self.upstream.pool.paused, waiter.error), (False, None))
        old.base.forget(waiter.ticket)
        self.upstream.closeReplaced()
        self.assertEqual(old.connections, [])

    def test_same(self) -> None:
        """
        Other seeds, addresses and replicas do not make another pool; TLS does.
        """
        self.assertTrue(self.reload("cluster:10.0.0.2:7001"))
        pool = self.upstream.pool
        pool.pause()
        self.assertFalse(self.reload("cluster:10.0.0.3:7001 map=a:1>b:2", readFrom="prefer-replica"))
        self.assertIs(self.upstream.pool, pool)
        self.assertEqual((pool.paused, pool.refreshing.seeds), (True, (Node("10.0.0.3", 7001),)))
        self.assertEqual(pool.readFrom, "prefer-replica")
        self.assertTrue(self.reload("cluster:10.0.0.3:7001 tls=yes"))
        self.assertTrue(self.upstream.pool.paused)
        self.assertTrue(self.reload("tcp:10.0.0.1:6379", readFrom="primary"))
        self.assertTrue(self.upstream.pool.paused)

    def test_logins(self) -> None:
        """
        If the servers check the logins of clients from now on, or do no longer, all connections are other ones.
        """
        for auth in ("pass", "check"):
            old = self.upstream.pool
            self.assertTrue(self.reload("tcp:10.0.0.1:6379", auth=auth))
            self.assertIsNot(self.upstream.pool, old)
            self.upstream.closeReplaced()
            self.assertFalse(self.reload("tcp:10.0.0.1:6379", auth=auth, poolSize=7))


class SeparateTests(SynchronousTestCase):
    """
    Tests for connections besides those of the pool.
    """

    def setUp(self) -> None:
        """
        Make a pool with three servers, to which nobody connects.
        """
        self.reactor: Any = MemoryReactorClock()
        lines = tuple(f"tcp:10.0.0.{number}:11211 label=s{number}" for number in (1, 2, 3))
        dialect = Memcache()
        slow = SlowLog("default", dialect, self.reactor.seconds)
        self.upstream = Upstream(PoolSettings(upstream=lines), dialect, self.reactor, slow)

    def test_servers(self) -> None:
        """
        There is one for each server that is not drained. What it carries counts as traffic of the server.
        """
        self.upstream.pool.drain("tcp:10.0.0.2:11211")
        pools = list(self.upstream.separate.pools())
        shared = self.upstream.pool.servers
        for pool, server in zip(pools, (shared[0], shared[2]), strict=True):
            self.assertEqual([each.name for each in pool.servers], [server.name])
            self.assertIs(pool.servers[0].traffic, server.traffic)
            self.assertEqual(pool.limits.maximum, 1)
        self.successResultOf(self.upstream.close(0.0))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_closed(self) -> None:
        """
        The upstream is closed when they are.
        """
        (pool, *_) = self.upstream.separate.pools()
        waiter = _Waiter()
        self.assertIsNone(pool.take(waiter))
        self.assertEqual(len(pool.records), 1)
        self.upstream.abort()
        self.successResultOf(self.upstream.close(0.0))
        self.assertIsNotNone(waiter.error)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
