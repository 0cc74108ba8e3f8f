# Copyright txconnpool contributors. See LICENSE.
"""
Tests for cancelling the requests and leases of a pool.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.bugs import covers
from tests.pools import Careless, Client, PoolCase


class CancelTests(PoolCase):
    """
    Tests for requests and leases that are wanted no more.
    """

    def test_queued(self) -> None:
        """
        What is cancelled while it waits is never sent (scenario 11).
        """
        pool = self.pool(maxClients=1)
        first, second, third = (pool.performRequest("ask", word) for word in "abc")
        self.reactor.turns()
        second.cancel()
        self.assertEqual(self.errors(second), [CancelledError])
        (line,) = self.server.open
        line.answer("A", "C")
        self.assertEqual(line.asked, ["a", "c"])
        self.assertEqual([self.successResultOf(first), self.successResultOf(third)], ["A", "C"])
        self.assertEqual(pool.stats.cancelled, 1)

    def test_dialing(self) -> None:
        """
        A dial goes on when who asked for it gives up, and its connection becomes idle (scenario 12).
        """
        self.server.mode = "hang"
        pool = self.pool()
        asked = pool.performRequest("ask", "x")
        self.reactor.turns()
        asked.cancel()
        self.assertEqual(self.errors(asked), [CancelledError])
        self.server.accept()
        self.assertEqual((pool.stats.idle, self.server.open[0].asked), (1, []))

    @covers("4")
    def test_inFlight(self) -> None:
        """
        What is cancelled in flight frees its caller at once; its reply is dropped, and the next one gets its own
        (scenario 14).
        """
        pool = self.pool(maxClients=1)
        first, second = pool.performRequest("ask", "a"), pool.performRequest("ask", "b")
        self.reactor.turns()
        first.cancel()
        self.assertEqual(self.errors(first), [CancelledError])
        (line,) = self.server.open
        self.assertEqual(line.asked, ["a"])
        line.answer("A")
        self.assertEqual(line.asked, ["a", "b"])
        line.answer("B")
        self.assertEqual(self.successResultOf(second), "B")
        self.reactor.advance(10)
        self.assertEqual(self.server.open, [line])

    def test_grace(self) -> None:
        """
        When the reply to what was cancelled does not come in time the connection is closed, and others get another.
        """
        pool = self.pool(maxClients=1, cancelGrace=3.0)
        first, second = pool.performRequest("ask", "a"), self.ask(pool, "b")
        self.reactor.turns()
        first.cancel()
        self.errors(first)
        self.reactor.advance(2.9)
        self.assertNoResult(second)
        self.reactor.advance(0.2)
        self.reactor.turns()
        self.assertEqual([line.asked for line in self.server.lines], [["a"], ["b"]])
        self.assertEqual((pool.stats.closed, pool.stats.lost), (1, 0))

    @covers("6")
    def test_shared(self) -> None:
        """
        A connection that carries the requests of others too is not closed because one was cancelled.
        """
        pool = self.pool(maxClients=1, pipelineDepth=4, cancelGrace=3.0)
        first, second = pool.performRequest("ask", "a"), pool.performRequest("ask", "b")
        self.reactor.turns()
        first.cancel()
        self.errors(first)
        self.reactor.advance(10)
        self.server.open[0].answer("A", "B")
        self.assertEqual(self.successResultOf(second), "B")

    def test_cancelledAndLate(self) -> None:
        """
        What was cancelled and is late as well closes its connection once, and fails nobody.
        """
        pool = self.pool(maxClients=1, cancelGrace=None, requestTimeout=2.0)
        first = pool.performRequest("ask", "a")
        self.reactor.turns()
        first.cancel()
        self.errors(first)
        self.reactor.advance(2)
        self.reactor.turns()
        self.assertEqual(self.server.open, [])

    def test_cancelledAndLost(self) -> None:
        """
        When the connection of what was cancelled is lost nothing of it is left.
        """
        for client in (Client, Careless):
            pool = self.pool(client=client)
            first = pool.performRequest("ask", "a")
            self.reactor.turns()
            first.cancel()
            self.errors(first)
            self.server.open[0].lose()
            self.assertEqual(pool.stats.inFlight, 0)
            pool.selfCheck()
            self.finish(pool)

    @covers("29")
    def test_lease(self) -> None:
        """
        Who gives up waiting for a lease gets none, and leaves none behind.
        """
        pool = self.pool(maxClients=1)
        first, second, third = pool.acquire(), pool.acquire(), pool.acquire()
        self.reactor.turns()
        second.cancel()
        self.assertEqual(self.errors(second), [CancelledError])
        pool.release(self.successResultOf(first))
        pool.release(self.successResultOf(third))
        self.assertEqual(pool.stats.idle, 1)

    @covers("29")
    def test_atHandOver(self) -> None:
        """
        Who cancels in the very moment in which a connection is handed over gets either the connection or the
        cancellation, never neither (scenario 13).
        """
        pool = self.pool(maxClients=1)
        holder = pool.acquire()
        self.reactor.turns()
        entered: list[Any] = []

        async def borrow() -> None:
            async with pool.connection() as client:
                entered.append(client)
                await Deferred()

        borrower = Deferred.fromCoroutine(borrow())
        pool.release(self.successResultOf(holder))
        borrower.cancel()
        self.assertEqual(len(entered), 1)
        self.assertEqual(self.errors(borrower), [CancelledError])
        self.reactor.turns()
        self.assertEqual((pool.stats.busy, pool.state.records), (0, []))
        pool.selfCheck()

    def test_refusedTogether(self) -> None:
        """
        Of two that are refused together one may cancel the other: each has one answer.
        """
        self.server.mode = "refuse"
        pool = self.pool(whenDown=1)
        first, second = pool.performRequest("ask", "a"), pool.acquire()
        first.addErrback(lambda failure: second.cancel())
        self.reactor.turns()
        self.successResultOf(first)
        self.assertEqual(self.errors(second), [CancelledError])
