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
    Tests for cancelled requests and leases.
    """

    def test_queued(self) -> None:
        """
        A request that is cancelled while it waits is never sent (scenario 11).
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
        When the request that caused a dial is cancelled, the dial continues and its connection becomes idle (scenario
        12).
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
        Cancelling a request in flight has effect at once. Its reply is dropped, and the next request gets its own reply
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
        When the reply to a cancelled request does not arrive within C{cancelGrace}, the connection is closed, and other
        requests get another one.
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
        A connection that carries other requests too is not closed because one was cancelled.
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
        A cancelled request whose reply is late too closes its connection once, and fails no other request.
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
        When the connection of a cancelled request is lost, nothing of the request is left.
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
        A cancelled lease leaves the queue, and no connection stays leased.
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
        Cancelling at the moment at which a connection is granted yields either the connection or the cancellation
        (scenario 13).
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
        When two requests are refused together and the callback of one cancels the other, each has one result.
        """
        self.server.mode = "refuse"
        pool = self.pool(whenDown=1)
        first, second = pool.performRequest("ask", "a"), pool.acquire()
        first.addErrback(lambda failure: second.cancel())
        self.reactor.turns()
        self.successResultOf(first)
        self.assertEqual(self.errors(second), [CancelledError])
