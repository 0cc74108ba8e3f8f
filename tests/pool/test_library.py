# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.library}: requests, their times and their connections.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from zope.interface import implementer

from tests.bugs import covers
from tests.pools import Careless, Client, PoolCase
from txconnpool.errors import (
    ConnectionLostInFlight,
    PoolError,
    PoolFull,
    PoolTimeout,
    ServerUnavailable,
)
from txconnpool.interfaces import IPipelined
from txconnpool.pool import Backoff, NoSuchCommand
from txconnpool.pool.library import RequestPool


class RequestTests(PoolCase):
    """
    Tests for L{Pool.performRequest}.
    """

    def test_answer(self) -> None:
        """
        A request has the result of the method of a client.
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
        A method may return a value, take keywords, raise, or be a coroutine.
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
        A request that fails releases its connection, whichever way it fails (scenario 10).
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
        A name that is no method of the client, or that is internal, is no command. The request takes no connection, and
        the error comes by the Deferred.
        """
        pool = self.pool()
        for name in ("_line", "__init__", "connectionLost", "dataReceived", "makeConnection", "lineReceived",
                     "setTimeout", "stringReceived", "readConnectionLost", "stopProducing", "logPrefix"):  # fmt: skip
            self.assertEqual(self.errors(pool.performRequest(name)), [NoSuchCommand], name)
        self.assertEqual(pool.stats.acquired, 0)
        missing = [pool.performRequest(name) for name in ("nosuch", "notCallable", "transport", "")]
        self.reactor.turns()
        self.assertEqual(self.errors(*missing), [NoSuchCommand] * 4)
        self.assertEqual(self.server.open[0].asked, [])

    def test_allowedCommands(self) -> None:
        """
        With C{allowedCommands}, other methods are no commands.
        """
        pool = self.pool(allowedCommands={"add"})
        added, asked = pool.performRequest("add", 1), pool.performRequest("ask", "x")
        self.reactor.turns()
        self.assertEqual(self.successResultOf(added), 1)
        self.assertEqual(self.errors(asked), [NoSuchCommand])

    def test_inTurn(self) -> None:
        """
        Requests are sent in the order in which they were made, one at a time on each connection.
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
        With C{pipelineDepth}, that many requests are in flight on one connection, and no more.
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

    def test_grows(self) -> None:
        """
        While all connections are busy, requests are sent on them at once, and the pool connects again up to
        C{maxClients}.
        """
        pool = self.pool(maxClients=3, pipelineDepth=100)
        for _ in range(10):
            self.ask(pool)
            self.reactor.turns()
        self.assertEqual((pool.stats.busy, pool.stats.idle, pool.stats.waiting), (3, 0, 0))

    def test_ownLoad(self) -> None:
        """
        A client that keeps the load of its connection itself gets requests as long as it has capacity.
        """

        @implementer(IPipelined)
        class Pipelined(Client):
            record: Any = None
            outlet = SimpleNamespace(queued=False)
            served = False

            def ask(self, word: str) -> Deferred[str]:
                self.record.load += 1
                return super().ask(word).addBoth(self._answered)

            def _answered(self, answer: Any) -> Any:
                self.record.load -= 1
                return answer

            def established(self) -> None:
                pass

            def loseConnection(self) -> None:
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
        A callback of a request may make requests, resize the pool or close it (scenario 21).
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
        A waiting request is sent before a callback of the finished request makes another one.
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
        Many waiting requests with immediate results are sent in their order, without recursion, and leave nothing
        behind (scenario 20).
        """
        pool = self.pool(maxClients=1, maxWaiting=None)
        total: list[int] = []
        for number in range(20_000):
            pool.performRequest("add", number).addCallback(total.append)
        self.reactor.turns()
        self.assertEqual(total, list(range(20_000)))
        self.assertEqual((pool.stats.inFlight, pool.stats.waiting), (0, 0))
        pool.selfCheck()

    def test_full(self) -> None:
        """
        When C{maxWaiting} requests wait, the next one fails with the numbers of the pool.
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
    Tests for the timeouts of waiting, connecting and requests.
    """

    def test_acquire(self) -> None:
        """
        A request that waits too long for a connection fails and is never sent.
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
        A dial or handshake that takes too long is cancelled, and another connection may be dialed (scenario 17).
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
        A request whose reply is late fails. Its connection is closed and gets no more requests.
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
        The other requests in flight on a connection with a late reply are lost with it. The connection gets no more
        requests meanwhile.
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
        A callback of a request whose reply is late may close the pool at once.
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
        Thousands of requests that are answered in time share one timer.
        """
        pool = self.pool(requestTimeout=2.0, idleTimeout=None, maxLifetime=None)
        for _ in range(1000):
            answer = pool.performRequest("add", 1)
            self.reactor.advance(0.01)
            self.successResultOf(answer)
            self.assertLessEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_sameMoment(self) -> None:
        """
        If a reply arrives at the moment at which it is late, the request has one result (scenario 15).
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
        All timeouts may be C{None}.
        """
        pool = self.pool(waitTimeout=None, connectTimeout=None, requestTimeout=None, idleTimeout=None,
                         maxLifetime=None, cancelGrace=None, maxClients=1)  # fmt: skip
        asked = [self.ask(pool) for _ in range(3)]
        self.reactor.turns()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        asked[0].cancel()
        self.assertEqual(self.errors(asked[0]), [CancelledError])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class LossTests(PoolCase):
    """
    Tests for connections that are lost, and for servers that are down.
    """

    def test_inFlight(self) -> None:
        """
        Requests in flight on a lost connection fail with the error of the client. A waiting request gets another
        connection (scenario 18).
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
        If the client does not fail its requests when the connection is lost, the pool fails them (scenario 27).
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
        A result that a client delivers after the end of its connection is ignored.
        """
        pool = self.pool(client=Careless)
        asked = pool.performRequest("ask", "x")
        self.reactor.turns()
        client = self.server.open[0].protocol.connection
        self.server.open[0].lose()
        self.assertEqual(self.errors(asked), [ConnectionLostInFlight])
        client.waiting[0].callback("too late")
        self.assertEqual(pool.stats.connections, 0)

    @covers("24")
    def test_idle(self) -> None:
        """
        The loss of an idle connection fails no request, and causes no dial beyond the minimum (scenario 19).
        """
        pool = self.pool()
        self.successResultOf(self.answered(pool))
        self.reactor.advance(2)
        self.server.open[0].lose()
        self.reactor.advance(5)
        self.assertEqual((self.server.dials, pool.stats.lost), (1, 1))

    def answered(self, pool: RequestPool[Any]) -> Deferred[Any]:
        """
        @return: a request that has a result.
        """
        answer = pool.performRequest("add", 1)
        self.reactor.turns()
        return answer

    def test_down(self) -> None:
        """
        When the server refuses connections, all waiting requests fail with the reason after C{whenDown} dials, and
        later ones at once. After a successful dial requests are served, and the next outage begins with the shortest
        delay (scenario 16).
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

    def test_servedIsNotDown(self) -> None:
        """
        A server that has answered requests on a connection, and then closed it, is dialed before it is called down. One
        that closes a connection at once is down after C{whenDown} times.
        """
        pool = self.pool(whenDown=1, backoff=Backoff(60.0, 2.0, 60.0, 0.0))
        self.successResultOf(self.answered(pool))
        self.server.open[0].lose()
        self.assertEqual(self.successResultOf(self.answered(pool)), 1)
        self.assertEqual(self.server.dials, 2)
        self.server.open[0].lose()
        lease = pool.acquire()
        self.reactor.turns()
        self.successResultOf(lease)
        self.server.open[0].lose()
        self.assertEqual(self.errors(pool.performRequest("add", 1)), [ServerUnavailable])

    def test_waitWhenDown(self) -> None:
        """
        With C{whenDown=None} requests wait while the server is down.
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
        After a hundred outages the maximum number of connections still holds.
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
