# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.library} and L{txconnpool.pool.leases}.
"""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.bugs import covers
from tests.pools import Careless, Client, PoolCase
from txconnpool.errors import (
    ClientNotOwned,
    ConnectionLostInFlight,
    PoolClosed,
    PoolError,
    PoolFull,
    PoolTimeout,
    ServerUnavailable,
)
from txconnpool.interfaces import IPipelined, IPoolObserver
from txconnpool.pool import Backoff, NoSuchCommand, Pool, PooledClientFactory, PoolObserver


class RequestTests(PoolCase):
    """
    Tests for L{Pool.performRequest}.
    """

    def test_answer(self) -> None:
        """
        A request fires with what the method of a client fires with.
        """
        pool = self.pool()
        answer = pool.performRequest("ask", "what?")
        self.assertNoResult(answer)
        self.reactor.turns()
        (line,) = self.server.open
        self.assertEqual(line.asked, ["what?"])
        line.answer("that")
        self.assertEqual(self.successResultOf(answer), "that")
        self.assertEqual(pool.stats.idle, 1)

    def test_results(self) -> None:
        """
        A method may answer at once, with keywords or without, raise, or be a coroutine.
        """
        pool = self.pool()
        answers = [
            pool.performRequest("add", 1, 2, start=4),
            pool.performRequest("fault"),
            pool.performRequest("later", "x"),
        ]
        self.reactor.turns()
        self.server.open[0].answer("a", "b")
        self.assertEqual(self.successResultOf(answers[0]), 7)
        self.assertEqual(self.errors(answers[1]), [LookupError])
        self.assertEqual(self.successResultOf(answers[2]), "ab")
        pool.selfCheck()

    @covers("19")
    def test_failureFrees(self) -> None:
        """
        A request that fails, however it does, gives its connection back (scenario 10).
        """
        pool = self.pool(maxClients=1)
        asked = [pool.performRequest("ask", "x"), pool.performRequest("fault"), pool.performRequest("nosuch")]
        last = pool.performRequest("add", 1)
        self.reactor.turns()
        self.server.open[0].answer("!wrong")
        self.assertEqual(self.errors(*asked), [LookupError, LookupError, NoSuchCommand])
        self.assertEqual(self.successResultOf(last), 1)
        self.assertEqual((pool.stats.idle, self.server.dials), (1, 1))

    def test_noCommands(self) -> None:
        """
        What a client does not have, or has not for asking, is no command, takes no connection and never raises.
        """
        pool = self.pool()
        for name in ("_waiting", "__init__", "connectionLost", "dataReceived", "makeConnection", "lineReceived",
                     "setTimeout", "stringReceived", "readConnectionLost", "stopProducing", "logPrefix"):  # fmt: skip
            self.assertEqual(self.errors(pool.performRequest(name)), [NoSuchCommand], name)
        self.assertEqual(pool.stats.acquired, 0)
        missing = [pool.performRequest(name) for name in ("nosuch", "notCallable", "transport", "")]
        self.reactor.turns()
        self.assertEqual(self.errors(*missing), [NoSuchCommand] * 4)
        self.assertEqual(self.server.open[0].asked, [])

    def test_allowedCommands(self) -> None:
        """
        If some methods are allowed no others are.
        """
        pool = self.pool(allowedCommands={"add"})
        added, asked = pool.performRequest("add", 1), pool.performRequest("ask", "x")
        self.reactor.turns()
        self.assertEqual(self.successResultOf(added), 1)
        self.assertEqual(self.errors(asked), [NoSuchCommand])

    def test_inTurn(self) -> None:
        """
        Requests share the connections first come first served, one at a time on each.
        """
        pool = self.pool(maxClients=2)
        answers = [pool.performRequest("ask", str(number)) for number in range(6)]
        self.reactor.turns()
        for asked in (["0", "1"], ["0", "1", "2", "3"], ["0", "1", "2", "3", "4", "5"]):
            self.assertEqual(sorted(word for line in self.server.open for word in line.asked), asked)
            pool.selfCheck()
            for line in self.server.open:
                line.answer("yes")
        self.assertEqual([self.successResultOf(answer) for answer in answers], ["yes"] * 6)

    def test_pipelined(self) -> None:
        """
        A client whose replies keep apart may have several requests in flight, and no more than agreed.
        """
        pool = self.pool(maxClients=1, pipelineDepth=3)
        answers = [pool.performRequest("ask", str(number)) for number in range(5)]
        self.reactor.turns()
        (line,) = self.server.open
        self.assertEqual(line.asked, ["0", "1", "2"])
        line.answer("a")
        self.assertEqual(line.asked, ["0", "1", "2", "3"])
        line.answer(*"bcde")
        self.assertEqual([self.successResultOf(answer) for answer in answers], [*"abcde"])

    def test_ownLoad(self) -> None:
        """
        A client that keeps the load of its connection itself is asked as long as it has room.
        """

        @implementer(IPipelined)
        class Pipelined(Client):
            record: Any = None
            sending = False

            def ask(self, word: str) -> Deferred[str]:
                """
                Count what is asked.
                """
                self.record.load += 1
                return super().ask(word).addBoth(self._answered)

            def _answered(self, answer: Any) -> Any:
                self.record.load -= 1
                return answer

            def loseConnection(self) -> None:
                """
                Close.
                """
                self.transport.loseConnection()

        pool = self.pool(client=Pipelined, maxClients=1, pipelineDepth=2)
        added = pool.performRequest("add", 1)
        answers = [pool.performRequest("ask", str(number)) for number in range(4)]
        self.reactor.turns()
        (line,) = self.server.open
        self.assertEqual((self.successResultOf(added), line.asked), (1, ["0", "1"]))
        line.answer(*"ab")
        self.assertEqual(line.asked, ["0", "1", "2", "3"])
        line.answer(*"cd")
        self.assertEqual([self.successResultOf(answer) for answer in answers], [*"abcd"])
        self.assertEqual((pool.stats.idle, pool.stats.inFlight), (1, 0))

    def test_reentrant(self) -> None:
        """
        Whoever gets an answer may ask again, resize or close the pool there and then (scenario 21).
        """
        pool = self.pool(maxClients=1)
        more: list[Deferred[Any]] = []

        def again(answer: object) -> None:
            more.append(pool.performRequest("ask", "more"))
            pool.resize(0, 3)
            more.append(pool.performRequest("ask", "yet more"))

        pool.performRequest("ask", "x").addCallback(again)
        self.reactor.turns()
        self.server.open[0].answer("a")
        self.reactor.turns()
        self.assertEqual([line.asked for line in self.server.open], [["x", "more"], ["yet more"]])
        more[0].addCallback(lambda _: pool.close())
        self.server.open[0].answer("b")
        self.assertNoResult(more[0])
        self.server.open[1].answer("c")
        self.reactor.turns()
        self.successResultOf(more[0])

    def test_freeFirst(self) -> None:
        """
        Who waits is sent before the one who gets an answer asks again.
        """
        pool = self.pool(maxClients=1)
        self.ask(pool, "1").addCallback(lambda _: self.ask(pool, "3"))
        self.ask(pool, "2")
        self.reactor.turns()
        (line,) = self.server.open
        line.answer("a", "b")
        self.assertEqual(line.asked, ["1", "2", "3"])

    def test_noRecursion(self) -> None:
        """
        A hundred thousand requests that wait for a connection and are answered at once are, in their order, and leave
        nothing behind (scenario 20).
        """
        pool = self.pool(maxClients=1, maxWaiting=None)
        total: list[int] = []
        for number in range(100_000):
            pool.performRequest("add", number).addCallback(total.append)
        self.reactor.turns()
        self.assertEqual(total, list(range(100_000)))
        self.assertEqual((pool.stats.inFlight, pool.stats.waiting), (0, 0))
        pool.selfCheck()

    def test_full(self) -> None:
        """
        When as many wait as may, the next one is refused with the numbers of the moment.
        """
        pool = self.pool(maxClients=1, maxWaiting=2)
        for _ in range(3):
            self.ask(pool)
            self.reactor.turns()
        error = self.error(pool.performRequest("ask", "x"))
        assert isinstance(error, PoolFull)
        self.assertEqual((error.stats.waiting, error.stats.busy), (2, 1))


class TimeTests(PoolCase):
    """
    Tests for the three times.
    """

    def test_acquire(self) -> None:
        """
        A request that waits for too long for a connection fails, and is never sent.
        """
        pool = self.pool(maxClients=1, waitTimeout=2.0)
        pool.performRequest("ask", "x")
        waiting = pool.performRequest("ask", "late")
        self.reactor.turns()
        self.reactor.advance(2.1)
        error = self.error(waiting)
        assert isinstance(error, PoolTimeout)
        self.assertEqual(error.phase, "wait")
        (line,) = self.server.open
        line.answer("a")
        self.assertEqual(line.asked, ["x"])

    def test_connect(self) -> None:
        """
        A dial or a handshake that takes too long is given up and its record is free again (scenario 17).
        """
        pool = self.pool(maxClients=1, connectTimeout=2.0, configure=lambda client: client.ask("hello"))
        asked = pool.performRequest("ask", "x")
        self.reactor.turns()
        self.reactor.advance(2.1)
        self.assertEqual((pool.stats.dialFailures, pool.stats.connections), (1, 0))
        self.reactor.advance(0.2)
        (line,) = self.server.open
        line.answer("hello")
        line.answer("a")
        self.assertEqual(self.successResultOf(asked), "a")

    def test_request(self) -> None:
        """
        A reply that is late fails its request and closes the connection, on which nothing more is asked.
        """
        pool = self.pool(maxClients=1, requestTimeout=2.0)
        late, following = pool.performRequest("ask", "x"), pool.performRequest("ask", "y")
        self.reactor.turns()
        self.reactor.advance(2)
        error = self.error(late)
        assert isinstance(error, PoolTimeout)
        self.assertEqual((error.phase, str(error)), ("request", "no answer within 2 s (server)"))
        self.assertEqual(pool.stats.requestTimeouts, 1)
        self.reactor.turns()
        self.assertEqual([line.asked for line in self.server.lines], [["x"], ["y"]])
        self.server.open[0].answer("b")
        self.assertEqual(self.successResultOf(following), "b")

    def test_requestTogether(self) -> None:
        """
        Others that are in flight on the connection with a late reply are lost with it; nobody is given it meanwhile.
        """
        pool = self.pool(maxClients=1, pipelineDepth=4, requestTimeout=2.0)
        again: list[Deferred[Any]] = []
        late = pool.performRequest("ask", "x")
        late.addErrback(lambda failure: again.append(self.ask(pool, "z")))
        self.reactor.turns()
        self.reactor.advance(1)
        other = pool.performRequest("ask", "y")
        self.reactor.advance(1)
        self.reactor.turns()
        self.assertEqual(self.errors(other), [ConnectionAborted])
        self.assertEqual([line.asked for line in self.server.lines], [["x", "y"], ["z"]])

    def test_abortedWhenLate(self) -> None:
        """
        Whoever hears that his reply is late may close the pool by force.
        """
        pool = self.pool(requestTimeout=2.0)
        closed: list[Deferred[Any]] = []
        self.ask(pool).addErrback(lambda failure: closed.append(pool.abort()))
        self.reactor.turns()
        (line,) = self.server.open
        self.patch(line, "abortConnection", line.lose)
        self.reactor.advance(2)
        self.successResultOf(closed[0])

    def test_requestInTime(self) -> None:
        """
        Thousands of requests that are answered in time have one timer.
        """
        pool = self.pool(requestTimeout=2.0, idleTimeout=None, maxLifetime=None)
        for _ in range(1000):
            answer = pool.performRequest("add", 1)
            self.reactor.advance(0.01)
            self.successResultOf(answer)
            self.assertLessEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_sameMoment(self) -> None:
        """
        When a reply comes in the very moment in which it is late, one of both happens (scenario 15).
        """
        for answerFirst in (True, False):
            pool = self.pool(requestTimeout=2.0)
            asked = pool.performRequest("ask", "x")
            self.reactor.turns()
            (line,) = self.server.open
            timer = min(self.reactor.getDelayedCalls(), key=lambda call: call.getTime()).getTime()
            if answerFirst:
                self.reactor.callLater(timer - self.reactor.seconds() - 1e-9, line.answer, "a")
                self.reactor.advance(2)
                self.assertEqual(self.successResultOf(asked), "a")
            else:
                self.reactor.callLater(timer - self.reactor.seconds() + 1e-9, line.answer, "a")
                self.reactor.advance(2.1)
                self.assertEqual(self.errors(asked), [PoolTimeout])
            self.finish(pool)

    def test_unlimited(self) -> None:
        """
        All times may be without limit.
        """
        pool = self.pool(waitTimeout=None, connectTimeout=None, requestTimeout=None, idleTimeout=None,
                         maxLifetime=None, cancelGrace=None, maxClients=1)  # fmt: skip
        asked = [self.ask(pool) for _ in range(3)]
        self.reactor.turns()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        asked[0].cancel()
        self.assertEqual(self.errors(asked[0]), [CancelledError])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


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


class LossTests(PoolCase):
    """
    Tests for connections that are lost, and servers that are down.
    """

    def test_inFlight(self) -> None:
        """
        What is in flight on a lost connection fails as the client makes it fail; who waits gets another (scenario 18).
        """
        pool = self.pool(maxClients=1, pipelineDepth=2)
        answers = [self.ask(pool, str(number)) for number in range(4)]
        self.reactor.turns()
        self.reactor.advance(2)
        self.server.open[0].lose(ConnectionDone())
        self.assertEqual(self.errors(*answers[:2]), [ConnectionDone] * 2)
        self.reactor.turns()
        self.assertEqual(self.server.open[0].asked, ["2", "3"])

    def test_careless(self) -> None:
        """
        If the client does not tell those who wait for it, the pool does (scenario 27).
        """
        pool = self.pool(client=Careless, maxClients=1, pipelineDepth=2)
        answers = [self.ask(pool, str(number)) for number in range(3)]
        self.reactor.turns()
        self.server.open[0].lose()
        errors = [self.error(answer) for answer in answers[:2]]
        self.assertEqual([type(error) for error in errors], [ConnectionLostInFlight] * 2)
        self.assertTrue(all(error.sent for error in errors if isinstance(error, ConnectionLostInFlight)))
        self.assertEqual(str(errors[0]), "the connection was lost (server)")
        self.reactor.advance(1)
        self.assertEqual(self.server.open[0].asked, ["2"])

    def test_afterTheEnd(self) -> None:
        """
        A client that answers after its end is not heard.
        """
        pool = self.pool(client=Careless)
        asked = pool.performRequest("ask", "x")
        self.reactor.turns()
        client = self.server.open[0].protocol.connection
        self.server.open[0].lose()
        self.assertEqual(self.errors(asked), [ConnectionLostInFlight])
        client._waiting[0].callback("too late")
        self.assertEqual(pool.stats.connections, 0)

    @covers("24")
    def test_idle(self) -> None:
        """
        The loss of an idle connection is nobody's error, and brings no dial beyond what is kept open (scenario 19).
        """
        pool = self.pool()
        self.successResultOf(self.answered(pool))
        self.reactor.advance(2)
        self.server.open[0].lose()
        self.reactor.advance(5)
        self.assertEqual((self.server.dials, pool.stats.lost), (1, 1))

    def answered(self, pool: Pool[Any]) -> Deferred[Any]:
        """
        @return: a request that was answered.
        """
        answer = pool.performRequest("add", 1)
        self.reactor.turns()
        return answer

    def test_down(self) -> None:
        """
        When the server refuses, all who wait fail after so many dials, with the reason; newcomers fail at once; all is
        well again with the first dial that succeeds, and the next outage begins with the shortest pause (scenario 16).
        """
        pool = self.pool(whenDown=3, backoff=Backoff(0.1, 2.0, 10.0, 0.0))
        self.server.mode = "refuse"
        for _ in range(2):
            waiting = [pool.performRequest("ask", "x"), pool.acquire()]
            self.reactor.turns()
            self.reactor.advance(0.1)
            self.assertNoResult(waiting[0])
            self.reactor.advance(0.2)
            newcomer = pool.performRequest("ask", "x")
            for result in (*waiting, newcomer):
                error = self.error(result)
                assert isinstance(error, ServerUnavailable)
                self.assertIn("connection refused", str(error))
                self.assertIsNotNone(error.__cause__)
                self.assertGreaterEqual(error.stats.dialFailures, 3)
            self.server.mode = "accept"
            self.reactor.advance(0.4)
            self.successResultOf(self.answered(pool))
            self.reactor.advance(5)
            self.server.mode = "refuse"
            self.server.open[0].lose()

    def test_waitWhenDown(self) -> None:
        """
        If that is wanted requests wait while the server is down.
        """
        self.server.mode = "refuse"
        pool = self.pool(whenDown=None, waitTimeout=60.0)
        asked = pool.performRequest("add", 1)
        for _ in range(100):
            self.reactor.advance(0.25)
        self.assertNoResult(asked)
        self.server.mode = "accept"
        for _ in range(8):
            self.reactor.advance(0.25)
        self.assertEqual(self.successResultOf(asked), 1)

    def test_anotherServer(self) -> None:
        """
        Requests go to the servers that are up.
        """
        other = self.another("other")
        self.server.mode = "refuse"
        pool = self.pool(self.server, other, maxClients=4)
        answers = [pool.performRequest("add", number) for number in range(4)]
        self.reactor.turns()
        self.assertEqual([self.successResultOf(answer) for answer in answers], [0, 1, 2, 3])

    @covers("19")
    def test_bounded(self) -> None:
        """
        After a hundred outages there are as many connections as before.
        """
        pool = self.pool(maxClients=2, minClients=2)
        pool.start()
        for _ in range(100):
            self.server.mode = "refuse"
            for line in self.server.open:
                line.lose()
            pool.performRequest("add", 1).addErrback(lambda failure: failure.trap(PoolError))
            self.reactor.advance(0.7)
            self.server.mode = "accept"
            for _ in range(4):
                self.reactor.advance(1.3)
            self.assertEqual((len(self.server.open), pool.stats.connections), (2, 2))
            pool.selfCheck()


class LeaseTests(PoolCase):
    """
    Tests for borrowing clients.
    """

    def borrow(self, pool: Pool[Any]) -> Any:
        """
        @return: a borrowed client.
        """
        client = pool.acquire()
        self.reactor.turns()
        return self.successResultOf(client)

    def test_alone(self) -> None:
        """
        A borrowed client is its borrower's alone, whatever room its connection has.
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

    def test_now(self) -> None:
        """
        An idle client may be had without a Deferred, unless somebody waits.
        """
        pool = self.pool(maxClients=1)
        self.assertIsNone(pool.acquireNow())
        self.assertEqual(self.server.dials, 0)
        client = self.borrow(pool)
        pool.release(client)
        self.assertIs(pool.acquireNow(), client)
        self.assertEqual(pool.stats.busy, 1)

    def test_notOwned(self) -> None:
        """
        What is given back twice, was never borrowed or never was of this pool is refused (scenario 26).
        """
        pool, other = self.pool(), self.pool(self.another("other"))
        client, foreign = self.borrow(pool), self.borrow(other)
        for wrong in (foreign, object(), None):
            self.assertRaises(ClientNotOwned, pool.release, wrong)
        pool.release(client)
        self.assertIn("not borrowed from Pool", str(self.assertRaises(ClientNotOwned, pool.release, client)))
        asked = pool.performRequest("ask", "x")
        self.assertRaises(ClientNotOwned, pool.release, client)
        self.server.lines[0].answer("a")
        self.successResultOf(asked)
        pool.selfCheck()

    def test_lost(self) -> None:
        """
        A client whose connection was lost is given back as others are, once.
        """
        pool = self.pool(maxClients=1)
        client = self.borrow(pool)
        self.server.open[0].lose()
        self.assertEqual((pool.stats.connections, pool.stats.busy), (0, 0))
        pool.release(client)
        self.assertRaises(ClientNotOwned, pool.release, client)
        self.assertIsNot(self.borrowLater(pool), client)

    def borrowLater(self, pool: Pool[Any]) -> Any:
        """
        @return: a borrowed client, after a pause.
        """
        self.reactor.advance(1)
        return self.borrow(pool)

    def test_discard(self) -> None:
        """
        A client that is in no state to be used is closed when it is given back so, what it wrote last being sent.
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
        A client is reset when it is given back, and belongs to nobody meanwhile.
        """
        pool = self.pool(maxClients=1, reset=lambda client: client.ask("reset"))
        client = self.borrow(pool)
        pool.release(client)
        self.assertRaises(ClientNotOwned, pool.release, client)
        waiting = pool.acquire()
        self.assertNoResult(waiting)
        self.server.open[0].answer("ok")
        self.assertIs(self.successResultOf(waiting), client)

    @covers("29")
    def test_resetFails(self) -> None:
        """
        A client that cannot be reset, in time, is closed.
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
        A client that is closed anyway is not reset before.
        """
        resets: list[Any] = []
        pool = self.pool(maxClients=2, reset=resets.append)
        discarded, expired = self.borrow(pool), self.borrow(pool)
        pool.release(discarded, discard=True)
        pool.expire()
        pool.release(expired)
        self.assertEqual(resets, [])

    def test_checked(self) -> None:
        """
        A client that was unused for long is checked before it is lent or asked.
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
        To keep connections alive something must be there to do it.
        """
        self.assertRaises(ValueError, self.pool, keepAlive=10.0)

    def test_connection(self) -> None:
        """
        A client may be borrowed for a block.
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
        If the block raises the connection is closed, and the error is the block's.
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
        A client may be borrowed for the time of a call, however that answers.
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
        If the call fails, or is cancelled, the connection is closed.
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
        Clients need be neither hashable nor different from each other.
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
        A client that is borrowed for too long is reported, with the place where.
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
        self.assertIn('test_library.py", line', message)
        self.assertIn("in borrow\n    client = pool.acquire()", message)
        self.assertNotIn("txconnpool/", message)
        pool.release(forgotten)

    def test_leakOfAWaiter(self) -> None:
        """
        The place is where it was asked for, not where the wait ended.
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
        @return: what will be logged there.
        """
        messages: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event["log_namespace"] == namespace:
                messages.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return messages


class LifeTests(PoolCase):
    """
    Tests for the beginning and the end of a pool.
    """

    def test_nothing(self) -> None:
        """
        To make a pool does nothing.
        """
        self.pool(minClients=2)
        self.assertEqual((self.reactor.getDelayedCalls(), self.reactor.triggers, self.server.dials), ([], [], 0))

    def test_shutdown(self) -> None:
        """
        When the reactor stops, what is in flight ends, who waits is refused, and the pool is closed (scenario 25).
        """
        pool = self.pool(maxClients=1)
        asked, waiting = pool.performRequest("ask", "x"), pool.performRequest("ask", "y")
        self.reactor.turns()
        (closed,) = self.reactor.stop()
        self.assertEqual(self.errors(waiting, pool.performRequest("ask", "z")), [PoolClosed] * 2)
        self.assertNoResult(closed)
        self.server.open[0].answer("a")
        self.reactor.turns()
        self.assertEqual(self.successResultOf(asked), "a")
        self.successResultOf(closed)

    def test_shutdownInTime(self) -> None:
        """
        A reply that never comes does not keep the reactor from stopping for long.
        """
        pool = self.pool(client=Careless)
        asked = pool.performRequest("ask", "x")
        self.reactor.turns()
        (closed,) = self.reactor.stop()
        self.reactor.advance(5)
        self.reactor.turns()
        self.successResultOf(closed)
        self.assertEqual(self.errors(asked), [ConnectionLostInFlight])

    def test_forceShutdown(self) -> None:
        """
        If nothing is to be waited for, nothing is.
        """
        pool = self.pool(client=Careless, forceShutdown=True, maxClients=1)
        asked, waiting = pool.performRequest("ask", "x"), pool.performRequest("ask", "y")
        self.reactor.turns()
        (closed,) = self.reactor.stop()
        self.reactor.turns()
        self.successResultOf(closed)
        self.assertEqual(self.errors(asked, waiting), [ConnectionLostInFlight, PoolClosed])

    def test_trigger(self) -> None:
        """
        The reactor knows the pool while it works, once, and forgets it when it is closed.
        """
        pool = self.pool()
        for _ in range(3):
            pool.start()
            self.assertEqual(len(self.reactor.triggers), 1)
            pool.start()
            self.assertEqual(len(self.reactor.triggers), 1)
            pool.close()
            self.assertEqual(self.reactor.triggers, [])

    def test_closedWhileTheReactorStops(self) -> None:
        """
        That somebody else closes the pool when the reactor stops does no harm.
        """
        pool = self.pool()
        self.reactor.addSystemEventTrigger("before", "shutdown", lambda: pool.close())
        pool.start()
        self.reactor.addSystemEventTrigger("before", "shutdown", lambda: pool.close())
        self.assertEqual(len(self.reactor.stop()), 2)

    @covers("26")
    def test_collected(self) -> None:
        """
        Of a closed pool nothing keeps anything alive: not the reactor, nor the clients, nor those who asked.
        """
        factory = Factory.forProtocol(Client)
        pool: Pool[Client] = Pool(self.server, reactor=self.reactor, clientFactory=factory, maxClients=1)
        answers = [pool.performRequest("ask", "x") for _ in range(3)]
        lent = pool.acquire()
        self.reactor.turns()
        self.server.open[0].answer("a", "b", "c")
        client = self.successResultOf(lent)
        refs = [weakref.ref(each) for each in (pool, client, lent, *answers)]
        pool.release(client)
        pool.close()
        self.reactor.turns()
        self.server.lines.clear()
        del pool, answers, lent, client, factory
        gc.collect()
        self.assertEqual([ref() for ref in refs], [None] * len(refs))

    def test_leaseAtTheEnd(self) -> None:
        """
        A borrowed client is waited for; when the pool is closed by force it may still be given back.
        """
        pool = self.pool()
        lent = pool.acquire()
        self.reactor.turns()
        done = pool.close(5.0)
        self.reactor.advance(4)
        self.assertNoResult(done)
        self.reactor.advance(2)
        self.reactor.turns()
        self.successResultOf(done)
        pool.release(self.successResultOf(lent))
        pool.selfCheck()

    def test_asyncWith(self) -> None:
        """
        A pool may live as long as a block.
        """

        async def live() -> str:
            one: Pool[Client] = Pool(self.server, reactor=self.reactor, clientFactory=Factory.forProtocol(Client))
            async with one as pool:
                answer: str = await pool.performRequest("ask", "x")
                return answer

        answer = Deferred.fromCoroutine(live())
        self.reactor.turns()
        self.server.open[0].answer("a")
        self.reactor.turns()
        self.assertEqual(self.successResultOf(answer), "a")
        self.assertEqual((self.server.open, self.reactor.triggers), ([], []))

    def test_again(self) -> None:
        """
        A pool that was closed works again when it is started.
        """
        pool = self.pool()
        pool.close()
        self.assertEqual(self.errors(pool.performRequest("add", 1), pool.acquire(), pool.ready()), [PoolClosed] * 3)
        pool.start()
        answer = pool.performRequest("add", 1)
        self.reactor.turns()
        self.assertEqual(self.successResultOf(answer), 1)


class ReadyTests(PoolCase):
    """
    Tests for L{Pool.ready}.
    """

    def test_ready(self) -> None:
        """
        It starts the pool and fires when so many connections are established: those that are kept, and at least one.
        """
        for minimum, count, expected in ((0, None, 1), (2, None, 2), (1, 3, 3)):
            pool = self.pool(minClients=minimum)
            ready = pool.ready(count)
            self.assertNoResult(ready)
            self.reactor.turns()
            self.successResultOf(ready)
            self.assertEqual(pool.stats.connections, expected)
            self.successResultOf(pool.ready(expected))
            self.finish(pool)

    def test_noneTooMany(self) -> None:
        """
        More connections than there may be are never ready, and those wanted once are not kept.
        """
        pool = self.pool(maxClients=3, idleTimeout=10.0)
        self.failureResultOf(pool.ready(4), ValueError)
        self.successResultOf(self.turned(pool.ready(3)))
        self.reactor.advance(11)
        self.reactor.turns()
        self.assertEqual(pool.stats.connections, 0)

    def turned(self, result: Deferred[Any]) -> Deferred[Any]:
        """
        Let happen what can.
        """
        self.reactor.turns()
        return result

    def test_late(self) -> None:
        """
        It fails with what is wrong when it takes too long.
        """
        self.server.mode = "refuse"
        pool = self.pool()
        error = self.late(pool)
        self.assertEqual(str(error), "not ready within 5 s: connection refused (server)")
        self.assertIsNotNone(error.__cause__)
        self.server.mode = "hang"
        error = self.late(self.pool())
        self.assertIn("not ready within 5 s: 0 of 5 connections busy, 0 idle, 1 dialing", str(error))

    def late(self, pool: Pool[Any]) -> PoolTimeout:
        """
        Wait in vain.
        """
        ready = pool.ready(2, timeout=5.0)
        for _ in range(51):
            self.reactor.advance(0.1)
        error = self.error(ready)
        assert isinstance(error, PoolTimeout)
        self.assertEqual(error.phase, "connect")
        return error

    def test_cancel(self) -> None:
        """
        Who gives up wants no more connections.
        """
        pool = self.pool()
        ready = pool.ready(5)
        ready.cancel()
        self.assertEqual(self.errors(ready), [CancelledError])
        self.reactor.turns()
        self.assertEqual(self.server.dials, 1)

    def test_closed(self) -> None:
        """
        When the pool closes they will never be ready.
        """
        self.server.mode = "hang"
        pool = self.pool()
        ready = pool.ready()
        timers: list[Any] = []
        pool.close().addCallback(lambda _: timers.extend(self.reactor.getDelayedCalls()))
        self.assertEqual((self.errors(ready), timers), ([PoolClosed], []))

    def test_closedOnHearing(self) -> None:
        """
        Whoever hears that they are not may close the pool, or ask again.
        """
        self.server.mode = "hang"
        pool = self.pool()
        again: list[Deferred[Any]] = []
        pool.ready().addErrback(lambda failure: again.extend([pool.ready(), pool.close()]))
        closed = pool.close()
        self.assertEqual(self.errors(again[0]), [PoolClosed])
        self.successResultOf(closed)
        self.successResultOf(again[1])


class ChangeTests(PoolCase):
    """
    Tests for changes while the pool works.
    """

    def test_resize(self) -> None:
        """
        A smaller pool closes busy connections when they are given back; a larger one serves who waits (scenario 22).
        """
        pool = self.pool(maxClients=3)
        clients = [pool.acquire() for _ in range(3)]
        self.reactor.turns()
        pool.resize(0, 1)
        self.reactor.turns()
        self.assertEqual(len(self.server.open), 3)
        for client in clients:
            pool.release(self.successResultOf(client))
        self.reactor.turns()
        self.assertEqual(len(self.server.open), 1)
        clients = [pool.acquire(), pool.acquire()]
        self.assertNoResult(clients[1])
        pool.suggestMaxClients(2)
        self.reactor.turns()
        self.successResultOf(clients[1])

    def test_suggestMaxClients(self) -> None:
        """
        A bound below the connections that are kept keeps fewer; one that makes no sense is refused.
        """
        pool = self.pool(minClients=3, maxClients=5)
        pool.suggestMaxClients(2)
        self.assertEqual((pool.state.limits.minimum, pool.state.limits.maximum), (2, 2))
        self.assertRaises(ValueError, pool.suggestMaxClients, 0)

    def test_lifetimes(self) -> None:
        """
        Connections are replaced when they are old, at different times, and never while in use (scenario 23).
        """
        pool = self.pool(minClients=100, maxClients=100, maxLifetime=3600.0, idleTimeout=None)
        pool.start()
        self.reactor.turns(400)
        lent = pool.acquireNow()
        closed = [0]
        for _ in range(200):
            self.reactor.advance(1)
            self.reactor.turns(1)
        self.reactor.advance(3600 * 0.95 - 201)
        for _ in range(200):
            self.reactor.advance(1)
            closed.append(pool.stats.closed)
        self.assertLess(max(after - before for before, after in pairwise(closed)), 20)
        self.assertEqual(closed[-1], 99)
        self.assertIn(lent, pool.connections)
        pool.release(lent)
        self.assertEqual(pool.stats.connections, 100)

    def test_clockJumps(self) -> None:
        """
        A clock that is put back or forward leaves a pool that works (scenario 24).
        """
        pool = self.pool(maxClients=1)
        for jump in (-3600.0, +7200.0, -1.0):
            asked = pool.performRequest("ask", "x")
            self.reactor.turns()
            self.reactor.rightNow += jump
            self.reactor.turns()
            if asked.called:
                self.assertEqual(self.errors(asked), [PoolTimeout])
            else:
                self.server.open[0].answer("a")
                self.assertEqual(self.successResultOf(asked), "a")
            self.reactor.advance(2)

    def test_servers(self) -> None:
        """
        Servers can be added and removed.
        """
        other = self.another("other")
        pool = self.pool()
        pool.addServer(other)
        pool.removeServer(self.server)
        answer = pool.performRequest("add", 1)
        self.reactor.turns()
        self.assertEqual((self.successResultOf(answer), self.server.dials, other.dials), (1, 0, 1))


class ClientFactoryTests(PoolCase):
    """
    Tests for who makes the clients.
    """

    def test_none(self) -> None:
        """
        Without anything to make clients with, or with the wrong thing, there is no pool.
        """
        for wrong in (None, Client, Protocol, PooledClientFactory(), object()):
            text = str(self.assertRaises(TypeError, self.pool, clientFactory=wrong))
            self.assertIn(repr(wrong), text)

    def test_attribute(self) -> None:
        """
        A subclass may say it once and for all.
        """

        class EchoPool(Pool[Client]):
            clientFactory = Factory.forProtocol(Client)

        pool = EchoPool(self.server, reactor=self.reactor)
        self.addCleanup(self.finish, pool)
        answer = pool.performRequest("add", 1)
        self.reactor.turns()
        self.assertEqual((self.successResultOf(answer), pool.name), (1, "EchoPool"))

    def test_announcing(self) -> None:
        """
        A client made by a L{PooledClientFactory} is used when it has announced itself, by each of the two ways.
        """
        for each in (("free",), ("deferred",), ("free", "deferred"), ("deferred", "free")):

            class Announcing(Client):
                ways: tuple[str, ...] = each
                factory: Any

                def connectionMade(self) -> None:
                    """
                    Say so.
                    """
                    for way in self.ways:
                        if way == "free":
                            self.factory.connectionPool.clientFree(self)
                        else:
                            self.factory.deferred.callback(self)

            class AnnouncingFactory(PooledClientFactory):
                protocol = Announcing

            pool = self.pool(clientFactory=AnnouncingFactory, maxClients=1)
            answers = [pool.performRequest("ask", word) for word in "ab"]
            self.reactor.turns()
            (line,) = self.server.open
            self.assertEqual(line.asked, ["a"])
            line.answer("A", "B")
            self.assertEqual([self.successResultOf(answer) for answer in answers], ["A", "B"])
            self.finish(pool)

    def silent(self, **options: Any) -> Pool[Any]:
        """
        @return: a pool whose clients do not announce themselves.
        """

        class SilentFactory(PooledClientFactory):
            protocol = Client

        return self.pool(clientFactory=SilentFactory, maxClients=1, **options)

    def test_neverAnnounced(self) -> None:
        """
        A client that never announces itself is given up, and it is said why.
        """
        pool = self.silent(connectTimeout=3.0, whenDown=1)
        asked = pool.performRequest("ask", "x")
        self.reactor.turns()
        self.assertNoResult(asked)
        self.reactor.advance(3)
        self.assertIn("the client called neither clientFree nor its factory's deferred", str(self.error(asked)))

    def test_deferredFails(self) -> None:
        """
        A client may say that it will never be ready.
        """
        pool = self.silent(whenDown=1)
        asked = pool.performRequest("ask", "x")
        self.reactor.turns()
        self.server.open[0].protocol.connection.factory.deferred.errback(LookupError("no such user"))
        self.assertIn("no such user", str(self.error(asked)))
        self.reactor.advance(1)
        factory = self.server.open[0].protocol.connection.factory
        pool.close()
        factory.deferred.errback(LookupError("too late"))

    def test_configured(self) -> None:
        """
        A new client is made ready before it is used.
        """

        async def login(client: Client) -> None:
            if await client.ask("login") != "welcome":
                raise LookupError("no such user")

        pool = self.pool(configure=login, maxClients=1, whenDown=1)
        asked = pool.performRequest("ask", "x")
        self.reactor.turns()
        self.server.open[0].answer("go away")
        self.assertIn("no such user", str(self.error(asked)))
        self.reactor.advance(1)
        self.server.open[0].answer("welcome")
        self.ask(pool)
        self.assertEqual(self.server.open[0].asked, ["login", "x"])

    def test_spurious(self) -> None:
        """
        Whatever clients say, and however often, nobody is given what another one has (scenario 28).
        """
        pool = self.silent()
        asked = pool.performRequest("ask", "a")
        waiting = pool.performRequest("ask", "b")
        self.reactor.turns()
        (line,) = self.server.open
        client = line.protocol.connection
        for _ in range(3):
            pool.clientFree(client)
            pool.clientFree(object())
            pool.clientBusy(object())
            pool.clientBusy(client)
            pool.clientGone(object())
        self.assertEqual(line.asked, ["a"])
        line.answer("A", "B")
        self.assertEqual([self.successResultOf(each) for each in (asked, waiting)], ["A", "B"])
        lent = self.successResultOf(pool.acquire())
        for f in (pool.clientFree, pool.clientBusy, pool.clientFree):
            f(lent)
        self.assertIsNone(pool.acquireNow())
        pool.release(lent)
        line.lose()
        for f in (pool.clientFree, pool.clientBusy, pool.clientGone, pool.clientGone):
            f(client)
        self.assertEqual(pool.state.records, [])
        pool.selfCheck()

    def test_busy(self) -> None:
        """
        An idle client may say that it is busy, and is left alone until it says that it is free.
        """
        pool = self.pool(maxClients=1)
        lent = pool.acquire()
        self.reactor.turns()
        client = self.successResultOf(lent)
        pool.release(client)
        for _ in range(2):
            pool.clientBusy(client)
        waiting = pool.performRequest("add", 1)
        self.assertNoResult(waiting)
        self.assertRaises(ClientNotOwned, pool.release, client)
        pool.clientFree(client)
        self.assertEqual(self.successResultOf(waiting), 1)
        pool.clientBusy(client)
        self.server.open[0].lose()
        self.assertEqual(pool.state.records, [])
        pool.selfCheck()

    def test_failed(self) -> None:
        """
        A client may say that it could not connect: its server is not dialed for a while, and it is not used any more.
        """
        other = self.another("other")
        pool = self.pool(self.server, other)
        acquired = pool.acquire()
        self.reactor.turns()
        client = self.successResultOf(acquired)
        connector = SimpleNamespace(getDestination=lambda: self.server)
        pool.clientFailed(None, connector)
        self.assertEqual([server.failures for server in pool.servers], [1, 0])
        pool.clientFailed(client, connector)
        pool.release(client)
        self.reactor.turns()
        self.assertEqual(self.server.open, [])
        self.ask(pool)
        self.reactor.turns()
        self.assertEqual((self.server.dials, other.dials), (1, 1))
        self.assertRaises(ValueError, pool.removeServerFromRotation, ("elsewhere", 1))

    def test_gone(self) -> None:
        """
        A client that is said to be gone is not used any more, and closed when its request is answered.
        """
        pool = self.pool(maxClients=1)
        asked, waiting = pool.performRequest("ask", "a"), pool.performRequest("ask", "b")
        self.reactor.turns()
        pool.clientGone(self.server.open[0].protocol.connection)
        self.server.open[0].answer("A")
        self.reactor.turns()
        self.assertEqual([line.asked for line in self.server.lines], [["a"], ["b"]])
        self.server.open[0].answer("B")
        self.assertEqual([self.successResultOf(each) for each in (asked, waiting)], ["A", "B"])


class AddressTests(PoolCase):
    """
    Tests for the addresses of servers.
    """

    def names(self, addresses: Any) -> list[str]:
        """
        @return: what the servers are called.
        """
        pool = self.pool()
        pool = Pool(addresses, reactor=MemoryReactorClock(), clientFactory=Factory.forProtocol(Client))
        return [server.name for server in pool.servers]

    def test_oneOrMany(self) -> None:
        """
        One address, or a list or tuple of them; a host and a port are one.
        """
        one = IPv4Address("TCP", "127.0.0.1", 1)
        for addresses in (one, [one], (one,), ("127.0.0.1", 1), [("127.0.0.1", 1)], "tcp:127.0.0.1:1"):
            self.assertEqual(self.names(addresses), ["tcp:127.0.0.1:1"])
        self.assertEqual(len(self.names((one, one))), 2)
        self.assertEqual(len(self.names([("a", 1), ("b", 2)])), 2)

    def test_none(self) -> None:
        """
        No address, or something else, is refused.
        """
        for wrong in ([], (), None, [None], 11211):
            self.assertRaises(ValueError, self.names, wrong)


@implementer(IPoolObserver)
class Watching(PoolObserver):
    """
    Writes down what it is told.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __getattribute__(self, name: str) -> Any:
        if name in IPoolObserver:
            return lambda *args: self.events.append((name, *args))
        return super().__getattribute__(name)


class ObserverTests(PoolCase):
    """
    Tests for who is told what happens.
    """

    def test_interface(self) -> None:
        """
        The class to be subclassed has all of it, and does nothing.
        """
        verifyObject(IPoolObserver, PoolObserver())
        pool = self.pool(observer=PoolObserver(), leakThreshold=1.0, maxClients=1)
        pool.performRequest("add", 1)
        lent = pool.acquire()
        self.reactor.turns()
        self.reactor.advance(2)
        pool.release(self.successResultOf(lent))
        self.server.mode = "refuse"
        pool.expire()
        self.ask(pool)
        for _ in range(10):
            self.reactor.advance(0.5)

    def watched(self, **options: Any) -> tuple[Pool[Any], list[Any]]:
        """
        @return: a pool and what happens in it.
        """
        observer = Watching()
        return self.pool(observer=observer, **options), observer.events

    def test_life(self) -> None:
        """
        Of a connection it is told how it begins, is used and ends.
        """
        pool, events = self.watched(maxClients=1)
        pool.performRequest("add", 1)
        pool.performRequest("ask", "x")
        self.reactor.turns()
        (line,) = self.server.open
        client = line.protocol.connection
        self.reactor.advance(2)
        line.answer("a")
        lent = self.successResultOf(pool.acquire())
        pool.release(lent)
        pool.expire()
        self.reactor.turns()
        self.assertEqual(
            events,
            [
                ("dialing", "server"),
                ("connected", "server", client),
                ("answered", "add", 0.0, 1),
                ("answered", "ask", 2.0, "a"),
                ("lent", client),
                ("returned", client),
                ("disconnected", "server", client, "expired"),
            ],
        )

    def test_trouble(self) -> None:
        """
        It is told what fails.
        """
        pool, events = self.watched(whenDown=1, leakThreshold=3.0, requestTimeout=2.0)
        self.server.mode = "refuse"
        self.errors(self.asked(pool))
        (dialing, failed, refused) = events
        self.assertEqual((dialing, failed[:2]), (("dialing", "server"), ("dialFailed", "server")))
        self.assertEqual((refused[0], type(refused[1])), ("refused", ServerUnavailable))
        self.server.mode = "accept"
        self.reactor.advance(1)
        events.clear()
        asked = self.asked(pool)
        client = self.server.open[0].protocol.connection
        self.reactor.advance(2)
        self.reactor.turns()
        self.errors(asked)
        (answered, disconnected) = events
        self.assertEqual((answered[:3], type(answered[3])), (("answered", "ask", 2.0), Failure))
        self.assertEqual(disconnected, ("disconnected", "server", client, "no answer in time"))
        lent = pool.acquire()
        self.reactor.turns()
        self.reactor.advance(3)
        self.assertEqual(events[-1][:3], ("leaked", self.successResultOf(lent), 3.0))

    def asked(self, pool: Pool[Any]) -> Deferred[Any]:
        """
        @return: a request that was made.
        """
        asked = pool.performRequest("ask", "x")
        self.reactor.turns()
        return asked

    def test_raises(self) -> None:
        """
        An observer that raises does not disturb the pool, and is logged.
        """

        class Failing(PoolObserver):
            def dialing(self, server: str) -> None:
                raise ZeroDivisionError

            def answered(self, method: str, seconds: float, result: Any) -> None:
                raise ZeroDivisionError

        pool = self.pool(observer=Failing())
        answer = pool.performRequest("add", 1)
        self.reactor.turns()
        self.assertEqual(self.successResultOf(answer), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class ImportTests(PoolCase):
    """
    Tests for what is not there.
    """

    def test_reactor(self) -> None:
        """
        To import the pool installs no reactor.
        """
        import subprocess
        import sys

        code = "import sys, txconnpool.pool.library; sys.exit('twisted.internet.reactor' in sys.modules)"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], check=False).returncode, 0)
