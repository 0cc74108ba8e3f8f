# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.forks}: the parent process goes on, and the child cannot use the parent's pool.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any
from unittest import skipUnless
from weakref import WeakSet

from tests.pools import PoolCase
from txconnpool.errors import PoolClosed
from txconnpool.pool import forks
from txconnpool.pool.forks import FORKED


@skipUnless(hasattr(os, "fork"), "there is no fork() here")
class ForkTests(PoolCase):
    """
    Tests for C{os.fork} with a started pool.
    """

    def inChild(self, check: Callable[[], object]) -> None:
        """
        Call a function in a child process.

        @raise AssertionError: it has raised an exception there.
        """
        pid = os.fork()
        if not pid:
            status = 1
            try:
                check()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        self.assertEqual(status, 0, "the child has failed")

    def assertForked(self, result: Any) -> None:
        """
        Assert that a result is the error of a child.
        """
        self.assertEqual(str(self.failureResultOf(result, PoolClosed).value), FORKED)

    def test_use(self) -> None:
        """
        In the child each use of the pool is an error, and closing it closes no connection. The parent goes on.
        """
        pool = self.pool(maxClients=2, maxWaiting=5)
        lent = pool.acquire()
        self.reactor.turns()
        client = self.successResultOf(lent)
        asked = [pool.performRequest("ask", "x") for _ in range(3)]
        self.reactor.turns()
        lines = list(self.server.open)

        def child() -> None:
            self.assertForked(pool.performRequest("ask", "y"))
            self.assertForked(pool.acquire())
            self.assertForked(pool.ready())
            self.assertIsNone(pool.acquireNow())
            self.assertRaises(PoolClosed, pool.start)
            self.successResultOf(pool.close())
            self.reactor.advance(1000)
            self.assertEqual([line.connected for line in lines], [True] * 2)
            self.assertEqual([each.called for each in asked], [False] * 3)
            self.assertEqual([*pool.stats.__dict__.values()][1:7], [0] * 6)
            mine = self.pool(maxClients=1)
            fresh = mine.acquire()
            self.reactor.turns()
            self.successResultOf(fresh)

        self.inChild(child)
        pool.release(client)
        for line in lines * 2:
            if line.protocol.connection.waiting:
                line.answer("a")
        self.assertEqual([self.successResultOf(each) for each in asked], ["a"] * 3)
        pool.selfCheck()

    def test_unstarted(self) -> None:
        """
        A pool that was not started before is the child's.
        """
        pool = self.pool(maxClients=1)

        def child() -> None:
            fresh = pool.acquire()
            self.reactor.turns()
            self.successResultOf(fresh)

        self.inChild(child)
        self.assertEqual(self.server.dials, 0)

    def test_once(self) -> None:
        """
        Each pool that was started is informed once in a child. Its own children have nothing to inform.
        """
        self.patch(forks, "_started", WeakSet())
        pool = self.pool()
        pool.start()
        pool.start()
        forks._inChild()
        self.assertForked(pool.acquire())
        self.assertEqual(list(forks._started), [])
        forks._inChild()
