# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.leasing} and L{txconnpool.pool.leases}.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.bugs import covers
from tests.pools import Client, PoolCase
from txconnpool.errors import (
    ClientNotOwned,
)
from txconnpool.pool.library import RequestPool


class LeaseTests(PoolCase):
    """
    Tests for leases.
    """

    def borrow(self, pool: RequestPool[Any]) -> Any:
        """
        @return: the client of a new lease.
        """
        client = pool.acquire()
        self.reactor.turns()
        return self.successResultOf(client)

    def test_alone(self) -> None:
        """
        A leased client is not used for others, even if its connection has capacity.
        """
        pool = self.pool(maxClients=1, pipelineDepth=8)
        client = self.borrow(pool)
        waiting = [pool.performRequest("ask", "x"), pool.acquire()]
        self.assertEqual((client.asked, pool.acquireNow()), ([], None))
        pool.release(client)
        self.assertEqual(client.asked, ["x"])
        self.assertNoResult(waiting[1])
        self.server.open[0].answer("a")
        self.assertIs(self.successResultOf(waiting[1]), client)

    def test_deeper(self) -> None:
        """
        It stays so if the depth of pipelines is changed meanwhile.
        """
        for depth in (2, 100):
            pool = self.pool(maxClients=1, pipelineDepth=8)
            client = self.borrow(pool)
            pool.setLimits(replace(pool.state.limits, depth=depth))
            pool.selfCheck()
            waiting = pool.performRequest("ask", "x")
            self.assertEqual(client.asked, [])
            pool.release(client)
            self.assertEqual(client.asked, ["x"])
            self.server.lines[-1].answer("a")
            self.assertEqual(self.successResultOf(waiting), "a")
            self.assertEqual(pool.stats.inFlight, 0)

    def test_now(self) -> None:
        """
        C{acquireNow} leases an idle connection without a Deferred, unless there are waiters.
        """
        pool = self.pool(maxClients=1)
        self.assertIsNone(pool.acquireNow())
        self.assertEqual(self.server.dials, 0)
        client = self.borrow(pool)
        pool.release(client)
        self.assertIs(pool.acquireNow(), client)
        self.assertEqual(pool.stats.busy, 1)

    def test_old(self) -> None:
        """
        A connection that is too old is replaced after its lease, when its successor is established.
        """
        pool = self.pool(maxClients=1, maxLifetime=100.0, idleTimeout=None, whenDown=1)
        client = self.borrow(pool)
        self.server.mode = "refuse"
        self.reactor.advance(101)
        self.reactor.turns()
        self.assertEqual(self.server.dials, 1)
        for _ in range(3):
            pool.release(client)
            self.reactor.turns()
            self.assertIs(self.borrow(pool), client)
            self.reactor.advance(2)
        self.assertGreater(self.server.dials, 1)
        self.server.mode = "accept"
        pool.release(client)
        self.reactor.turns()
        self.assertIsNot(self.borrow(pool), client)
        self.assertIsNotNone(client.lost)
        self.assertEqual(pool.stats.outages, 0)

    def test_alwaysLeased(self) -> None:
        """
        A connection that is too old and always leased is replaced all the same after a while.
        """
        pool = self.pool(maxClients=1, maxLifetime=100.0, idleTimeout=None)
        client = self.borrow(pool)
        self.reactor.advance(101)
        self.reactor.advance(60)
        waiting = pool.acquire()
        pool.release(client)
        self.reactor.turns()
        self.assertIsNot(self.successResultOf(waiting), client)

    def test_notOwned(self) -> None:
        """
        Releasing a client twice, or one that was never leased from this pool, is an error (scenario 26).
        """
        pool, other = self.pool(), self.pool(self.another("other"))
        client, foreign = self.borrow(pool), self.borrow(other)
        for wrong in (foreign, object(), None):
            self.assertRaises(ClientNotOwned, pool.release, wrong)
        pool.release(client)
        self.assertIn("not borrowed from RequestPool", str(self.assertRaises(ClientNotOwned, pool.release, client)))
        asked = pool.performRequest("ask", "x")
        self.assertRaises(ClientNotOwned, pool.release, client)
        self.server.lines[0].answer("a")
        self.successResultOf(asked)
        pool.selfCheck()

    def test_lost(self) -> None:
        """
        A client whose connection was lost is released once, as any other.
        """
        pool = self.pool(maxClients=1)
        client = self.borrow(pool)
        self.server.open[0].lose()
        self.assertEqual((pool.stats.connections, pool.stats.busy), (0, 0))
        pool.release(client)
        self.assertRaises(ClientNotOwned, pool.release, client)
        self.assertIsNot(self.borrowLater(pool), client)

    def borrowLater(self, pool: RequestPool[Any]) -> Any:
        """
        @return: the client of a new lease, after some reactor turns.
        """
        self.reactor.advance(1)
        return self.borrow(pool)

    def test_discard(self) -> None:
        """
        With C{discard}, the connection is closed when pending writes are sent.
        """
        pool = self.pool(maxClients=1)
        client = self.borrow(pool)
        waiting = pool.acquire()
        client.transport.write(b"bye\r\n")
        pool.release(client, discard=True)
        self.reactor.turns()
        self.assertEqual((self.server.lines[0].asked, self.server.lines[0].aborted), (["bye"], False))
        self.assertIsNot(self.successResultOf(waiting), client)
        self.assertEqual(pool.stats.closed, 1)

    def test_reset(self) -> None:
        """
        A client is reset when it is released, and not used meanwhile.
        """
        pool = self.pool(maxClients=1, reset=lambda client: client.ask("reset"))
        client = self.borrow(pool)
        pool.release(client)
        self.assertRaises(ClientNotOwned, pool.release, client)
        waiting = pool.acquire()
        self.assertNoResult(waiting)
        self.server.open[0].answer("ok")
        self.assertIs(self.successResultOf(waiting), client)

    def test_resetDeeper(self) -> None:
        """
        It is not used meanwhile even if the depth of pipelines is changed.
        """
        for depth in (2, 100):
            pool = self.pool(maxClients=1, pipelineDepth=8, reset=lambda client: client.ask("reset"))
            client = self.borrow(pool)
            pool.release(client)
            pool.setLimits(replace(pool.state.limits, depth=depth))
            pool.selfCheck()
            waiting = pool.performRequest("ask", "x")
            self.assertRaises(ClientNotOwned, pool.release, client)
            self.assertEqual(client.asked, ["reset"])
            self.server.lines[-1].answer("ok")
            self.assertEqual(client.asked, ["reset", "x"])
            self.server.lines[-1].answer("a")
            self.assertEqual(self.successResultOf(waiting), "a")
            self.assertEqual(pool.stats.inFlight, 0)

    @covers("29")
    def test_resetFails(self) -> None:
        """
        When the reset fails or takes too long, the connection is closed.
        """
        for reset, seconds in ((lambda client: client.fault(), 0), (lambda client: client.ask("reset"), 3)):
            pool = self.pool(maxClients=1, reset=reset, connectTimeout=3.0)
            client = self.borrow(pool)
            pool.release(client)
            self.reactor.advance(seconds)
            self.assertIsNot(self.borrow(pool), client)
            self.assertEqual(pool.stats.closed, 1)
            self.finish(pool)

    @covers("29")
    def test_lostInReset(self) -> None:
        """
        A connection that is lost while its client is reset is gone.
        """
        pool = self.pool(reset=lambda client: Deferred())
        pool.release(self.borrow(pool))
        self.server.open[0].lose()
        self.assertEqual(pool.state.records, [])
        pool.selfCheck()

    def test_noResetAtTheEnd(self) -> None:
        """
        A client whose connection is to be closed is not reset.
        """
        resets: list[Any] = []
        pool = self.pool(maxClients=2, reset=resets.append)
        discarded, drained = self.borrow(pool), self.borrow(pool)
        pool.release(discarded, discard=True)
        pool.drain("server")
        pool.release(drained)
        self.assertEqual(resets, [])

    def test_checked(self) -> None:
        """
        A connection that was idle for long is checked before it is leased or used for a request.
        """
        pool = self.pool(maxClients=1, check=lambda client: client.ask("alive?"), checkIfIdleFor=5.0)
        pool.release(self.borrow(pool))
        self.reactor.advance(4)
        pool.release(self.borrow(pool))
        self.reactor.advance(6)
        asked = pool.performRequest("ask", "x")
        (line,) = self.server.open
        self.assertEqual(line.asked, ["alive?"])
        line.answer("yes", "a")
        self.assertEqual(self.successResultOf(asked), "a")
        self.reactor.advance(6)
        self.assertIsNone(pool.acquireNow())
        lent = pool.acquire()
        line.answer("yes")
        self.successResultOf(lent)

    def test_keepAliveNeedsCheck(self) -> None:
        """
        C{keepAlive} without a C{check} is an error.
        """
        self.assertRaises(ValueError, self.pool, keepAlive=10.0)

    def test_connection(self) -> None:
        """
        C{async with pool.connection()} leases a connection for a block.
        """
        pool = self.pool(maxClients=1)

        async def borrow() -> str:
            async with pool.connection() as client:
                answer: str = await client.ask("x")
                return answer

        answer = Deferred.fromCoroutine(borrow())
        self.reactor.turns()
        self.server.open[0].answer("a")
        self.assertEqual(self.successResultOf(answer), "a")
        self.assertEqual((pool.stats.idle, self.server.dials), (1, 1))

    def test_connectionRaises(self) -> None:
        """
        If the block raises, the connection is closed, and the error is that of the block.
        """
        pool = self.pool(maxClients=1)

        async def borrow() -> None:
            async with pool.connection() as client:
                client.fault()

        failed = Deferred.fromCoroutine(borrow())
        self.reactor.turns()
        self.assertEqual(self.errors(failed), [LookupError])
        self.assertEqual((pool.stats.closed, self.server.open), (1, []))

    def test_withConnection(self) -> None:
        """
        C{withConnection} leases a connection for a call, which returns a value, a Deferred or a coroutine.
        """
        pool = self.pool(maxClients=1)

        async def later(client: Client, word: str) -> str:
            return await client.ask(word)

        calls = [
            pool.withConnection(lambda client, a, b: a + b, 1, b=2),
            pool.withConnection(lambda client: client.ask("x")),
            pool.withConnection(later, "y"),
        ]
        self.reactor.turns()
        self.server.open[0].answer("X", "Y")
        self.assertEqual([self.successResultOf(call) for call in calls], [3, "X", "Y"])
        self.assertEqual(pool.stats.idle, 1)

    @covers("4")
    def test_withConnectionFails(self) -> None:
        """
        If the call fails or is cancelled, the connection is closed.
        """
        pool = self.pool(maxClients=1)
        failed = pool.withConnection(lambda client: client.fault())
        self.reactor.turns()
        cancelled = pool.withConnection(lambda client: client.ask("x"))
        self.reactor.turns()
        cancelled.cancel()
        self.assertEqual(self.errors(failed, cancelled), [LookupError, CancelledError])
        self.reactor.turns()
        self.assertEqual((self.server.open, pool.state.records), ([], []))
        pool.selfCheck()

    def test_unhashable(self) -> None:
        """
        Clients need not be hashable, and may be equal to each other.
        """

        class Equal(Client):
            def __eq__(self, other: object) -> bool:
                return True

        pool = self.pool(client=Equal, maxClients=2)
        first, second = self.borrow(pool), self.borrow(pool)
        pool.release(first)
        self.assertRaises(ClientNotOwned, pool.release, first)
        pool.release(second)
        self.assertEqual(pool.stats.idle, 2)

    def test_leak(self) -> None:
        """
        A lease that lasts too long is logged with the place in the program that took it.
        """
        pool = self.pool(leakThreshold=10.0)
        messages = self.logged("txconnpool.pool")
        forgotten = self.borrow(pool)
        self.reactor.advance(5)
        for _ in range(2):
            client = pool.acquireNow() or self.borrow(pool)
            self.reactor.advance(4)
            pool.release(client)
        self.reactor.advance(20)
        (message,) = messages
        self.assertIn("was borrowed and not given back for 10 s, at\n", message)
        self.assertIn('test_leases.py", line', message)
        self.assertIn("in borrow\n    client = pool.acquire()", message)
        self.assertNotIn("txconnpool/", message)
        pool.release(forgotten)

    def test_leakOfAWaiter(self) -> None:
        """
        The place is that of the call of C{acquire}, not the one at which a connection was released.
        """
        pool = self.pool(leakThreshold=10.0, maxClients=1)
        messages = self.logged("txconnpool.pool")

        async def careless() -> None:
            await pool.acquire()

        Deferred.fromCoroutine(careless())
        self.reactor.turns()
        self.reactor.advance(10)
        self.assertIn("in careless", messages[0])

    def logged(self, namespace: str) -> list[str]:
        """
        @return: a list to which the messages that pools log from now on are added.
        """
        messages: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event["log_namespace"] == namespace:
                messages.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return messages
