# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.engine} and the modules below it: executor, errands and life cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer
from zope.interface.verify import verifyClass

from tests.bugs import covers
from tests.pools import Client, PoolCase, Server
from txconnpool.errors import PoolClosed, PoolError, PoolTimeout, ServerUnavailable
from txconnpool.interfaces import IPipelined, IWaiter
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.reasons import GIVEN_BACK, TOO_OLD
from txconnpool.pool.decisions.records import DIALING, OPEN, RETIRING, Record
from txconnpool.pool.engine import PoolEngine


@implementer(IWaiter)
class Taker:
    """
    A caller that takes a connection and keeps it.

    @ivar record: the record of the connection, or C{None}.
    @ivar error: the error with which it was refused, or C{None}.
    """

    ticket: Any = None

    def __init__(self, pool: PoolEngine, then: Callable[[], object] = lambda: None, exclusive: bool = False) -> None:
        """
        @param then: called when it is served or refused.
        """
        self.pool = pool
        self.then = then
        self.record: Record | None = None
        self.error: PoolError | None = None
        try:
            record = pool.take(self, exclusive)
        except PoolError as error:
            self.error = error
        else:
            if record is not None:
                self.granted(record)

    def granted(self, record: Record) -> None:
        record.load += 1
        self.record = record
        self.then()

    def refused(self, error: PoolError) -> None:
        self.error = error
        self.then()

    abort = refused

    def release(self) -> None:
        """
        Release the connection.
        """
        assert self.record is not None
        self.record.load -= 1
        self.pool.hasCapacity(self.record)


class EngineCase(PoolCase):
    """
    A test case for pools that are no pools for programs.
    """

    def engine(self, *servers: Server, client: Any = Client, start: bool = True, **options: Any) -> PoolEngine:
        """
        @return: a new pool without a minimum and without ageing, unless C{options} say otherwise.
        """
        names = {"connectTimeout", "handshake", "announces", "check", "observer"} & set(options)
        named = {name: options.pop(name) for name in names}
        limits = Limits(**{"idleTimeout": 0, "maxLifetime": 0, **options})
        pool = PoolEngine(list(servers) or [self.server], Factory.forProtocol(client), limits, self.reactor, **named)
        self.addCleanup(self.finish, pool)
        if start:
            pool.start()
            self.reactor.turns()
        return pool


class StartTests(EngineCase):
    """
    Tests for how a pool starts.
    """

    def test_nothing(self) -> None:
        """
        Constructing a pool has no effect.
        """
        self.engine(start=False, minimum=3)
        self.assertEqual((self.server.dials, self.reactor.getDelayedCalls()), (0, []))

    def test_firstRequest(self) -> None:
        """
        A pool that was not started starts with its first request.
        """
        pool = self.engine(start=False, minimum=2)
        taker = Taker(pool)
        self.assertEqual(self.server.dials, 0)
        self.reactor.turns()
        self.assertIsNotNone(taker.record)
        self.assertEqual(pool.stats.connections, 2)

    def test_factory(self) -> None:
        """
        The factory gets the attribute C{connectionPool} when it is first used.
        """
        factory: Any = Factory.forProtocol(Client)
        pool = PoolEngine([self.server], factory, Limits(idleTimeout=0, maxLifetime=0), self.reactor)
        self.addCleanup(self.finish, pool)
        self.assertFalse(hasattr(factory, "connectionPool"))
        pool.start()
        Taker(pool)
        self.reactor.turns()
        self.assertIs(factory.connectionPool, pool)

    def test_pipelined(self) -> None:
        """
        A connection that provides L{IPipelined} is given its record.
        """

        @implementer(IPipelined)
        class Pipelined(Client):
            record: Any = None
            outlet = SimpleNamespace(queued=False)
            served = False

            def established(self) -> None:
                assert self.record.phase is DIALING

            def loseConnection(self) -> None:
                self.transport.loseConnection()

        verifyClass(IPipelined, Pipelined)
        pool = self.engine(client=Pipelined, minimum=1)
        (record,) = pool.state.records
        self.assertIs(record.connection.record, record)
        self.assertEqual(record.weight, 0)

    @covers("25")
    def test_repr(self) -> None:
        """
        C{repr} of a pool shows its name and its numbers.
        """
        pool = self.engine(minimum=1, maximum=7)
        self.assertEqual(repr(pool), "<PoolEngine pool: 0 of 7 connections busy, 1 idle, 0 dialing, 0 waiting>")


class ServeTests(EngineCase):
    """
    Tests for granting connections.
    """

    def test_inTurn(self) -> None:
        """
        Ten thousand waiters that release their connection at once are served in their order, without recursion.
        """
        pool = self.engine(maximum=1)
        served: list[int] = []
        holder = Taker(pool)
        self.reactor.turns()

        def asked(number: int) -> None:
            def served_() -> None:
                served.append(number)
                taker.release()

            taker = Taker(pool, served_)

        for number in range(10_000):
            asked(number)
        holder.release()
        self.assertEqual(served, list(range(10_000)))

    def test_behindALease(self) -> None:
        """
        When the first waiter is exclusive and gives up, the waiters behind it are served.
        """
        pool = self.engine(maximum=1, depth=2, minimum=1)
        Taker(pool)
        alone = Taker(pool, exclusive=True)
        other = Taker(pool)
        self.assertEqual((alone.record, other.record), (None, None))
        pool.forget(alone.ticket)
        self.assertIsNotNone(other.record)

    def test_late(self) -> None:
        """
        One timer refuses all waiters whose time is over.
        """
        pool = self.engine(maximum=1, minimum=1, waitTimeout=2.0)
        Taker(pool)
        waiters = [Taker(pool) for _ in range(100)]
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.reactor.advance(2)
        self.assertEqual({type(waiter.error) for waiter in waiters}, {PoolTimeout})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_timer(self) -> None:
        """
        A timer that expires early enough for a new waiter is kept. Otherwise it is replaced.
        """
        pool = self.engine(maximum=1, minimum=1, waitTimeout=2.0)
        Taker(pool)
        pool.forget(Taker(pool).ticket)
        timers = self.reactor.getDelayedCalls()
        self.assertEqual([timer.getTime() for timer in timers], [2.0])
        self.reactor.advance(1.5)
        waiter = Taker(pool)
        self.assertEqual(self.reactor.getDelayedCalls(), timers)
        self.reactor.advance(1.9)
        self.assertIsNone(waiter.error)
        self.assertEqual([timer.getTime() for timer in self.reactor.getDelayedCalls()], [3.5])
        self.reactor.advance(0.1)
        self.assertIsInstance(waiter.error, PoolTimeout)
        pool.setLimits(replace(pool.state.limits, maxLifetime=100.0))
        self.reactor.advance(0)
        (aged,) = self.reactor.getDelayedCalls()
        waiter = Taker(pool)
        self.assertFalse(aged.active())
        self.reactor.advance(2)
        self.assertIsInstance(waiter.error, PoolTimeout)

    def test_roundedTimes(self) -> None:
        """
        Waiters are refused in time although sums of times are rounded.
        """
        pool = self.engine(maximum=1, minimum=1, waitTimeout=0.7)
        Taker(pool)
        for start in range(300):
            self.reactor.rightNow = 1.7e9 + start * 0.1
            waiter = Taker(pool)
            self.reactor.advance(0.7)
            self.assertIsInstance(waiter.error, PoolTimeout)

    def test_refusedOnesAskAgain(self) -> None:
        """
        Waiters that ask again when they are refused are refused again, once each.
        """
        pool = self.engine(whenDown=1)
        self.server.mode = "refuse"
        errors: list[Any] = []

        def again() -> None:
            errors.append(Taker(pool).error)

        waiters = [Taker(pool, again) for _ in range(3)]
        self.reactor.turns()
        self.assertEqual({type(waiter.error) for waiter in waiters}, {ServerUnavailable})
        self.assertEqual([type(error) for error in errors], [ServerUnavailable] * 3)

    def test_closedByTheRefused(self) -> None:
        """
        When a waiter that is refused closes the pool, a dial that was decided together with the refusal is cancelled
        too.
        """
        other = Server(self.reactor, "other")
        pool = self.engine(self.server, other, maximum=2, minimum=2, waitTimeout=0.05)
        self.server.mode = other.mode = "hang"
        for line in (*self.server.open, *other.open):
            line.lose()
        self.reactor.turns()
        closed: list[Any] = []
        Taker(pool, lambda: closed.append(pool.close()))
        self.reactor.advance(0.05)
        self.reactor.turns()
        self.successResultOf(closed[0])
        self.assertEqual((self.server.hanging, other.hanging, pool.state.records), ([], [], []))
        pool.selfCheck()

    def test_room(self) -> None:
        """
        When all connections are in use and the maximum is not reached, another one is dialed.
        """
        pool = self.engine(maximum=2, depth=8, minimum=1)
        first, second = Taker(pool), Taker(pool)
        self.assertIs(first.record, second.record)
        self.reactor.turns()
        self.assertEqual(pool.stats.connections, 2)

    def test_hold(self) -> None:
        """
        A connection whose server does not read is not used. When the server reads again, it serves a waiter.
        """
        pool = self.engine(maximum=1, depth=8, minimum=1)
        first = Taker(pool)
        assert first.record is not None
        pool.hold(first.record)
        waiter = Taker(pool)
        self.assertIsNone(waiter.record)
        pool.unhold(first.record)
        self.assertIsNotNone(waiter.record)

    def test_each(self) -> None:
        """
        C{each} returns a connection of every server.
        """
        other = Server(self.reactor, "other")
        pool = self.engine(self.server, other, maximum=4, minimum=4)
        self.assertEqual({record.server.name for record in pool.each()}, {"server", "other"})


class EndTests(EngineCase):
    """
    Tests for closing, and starting again.
    """

    def test_unstarted(self) -> None:
        """
        A pool that was never started closes at once. A later request does not start it.
        """
        pool = self.engine(start=False)
        self.successResultOf(pool.close())
        self.assertIsInstance(Taker(pool).error, PoolClosed)

    def test_whileDialing(self) -> None:
        """
        A dial in progress is cancelled, causes no other dial, and leaves no timer.
        """
        other = Server(self.reactor, "other")
        self.server.mode = other.mode = "hang"
        pool = self.engine(self.server, other, minimum=1)
        self.assertEqual(len(self.server.hanging), 1)
        self.successResultOf(pool.close())
        self.reactor.turns()
        self.assertEqual((self.server.cancelled, other.dials), (1, 0))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_beforeTheDial(self) -> None:
        """
        A dial that was to begin in the next reactor turn does not begin.
        """
        pool = self.engine(start=False, minimum=1)
        pool.start()
        self.successResultOf(pool.close())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.server.dials, 0)

    def test_drains(self) -> None:
        """
        Requests in flight end. Connections are closed when they carry nothing, and then the pool is closed.
        """
        pool = self.engine(maximum=2, minimum=2)
        taker = Taker(pool)
        done = pool.close(5.0)
        self.reactor.turns()
        self.assertNoResult(done)
        self.assertEqual(len(self.server.open), 1)
        self.assertIsInstance(Taker(pool).error, PoolClosed)
        taker.release()
        self.reactor.turns()
        self.successResultOf(done)

    def test_deadline(self) -> None:
        """
        Connections that carry requests when the timeout is over are closed at once.
        """
        pool = self.engine(minimum=1)
        Taker(pool)
        done = pool.close(5.0)
        self.reactor.advance(4.9)
        self.assertNoResult(done)
        self.reactor.advance(0.2)
        self.reactor.turns()
        self.successResultOf(done)

    def test_impatient(self) -> None:
        """
        When a pool is closed twice, the second call may set a timeout or close it at once. Both Deferreds fire
        together.
        """
        for hurry in (lambda pool: pool.close(1.0), lambda pool: pool.abort()):
            pool = self.engine(minimum=1)
            Taker(pool)
            first = pool.close()
            second = hurry(pool)
            self.reactor.advance(1)
            self.reactor.turns()
            self.successResultOf(first)
            self.successResultOf(second)

    def test_twice(self) -> None:
        """
        Closing a closed pool has no effect.
        """
        pool = self.engine(minimum=1)
        pool.close()
        self.reactor.turns()
        self.successResultOf(pool.close())

    def test_waitersFirst(self) -> None:
        """
        Waiters are refused before the Deferred of C{close} fires.
        """
        events: list[str] = []
        self.server.mode = "hang"
        pool = self.engine(minimum=1)
        Taker(pool, lambda: events.append("refused"))
        pool.close().addCallback(lambda _: events.append("closed"))
        self.assertEqual(events, ["refused", "closed"])

    def test_again(self) -> None:
        """
        A closed pool that is started works again.
        """
        pool = self.engine(minimum=1)
        pool.close()
        self.reactor.turns()
        pool.start()
        self.reactor.turns()
        self.assertIsNotNone(Taker(pool).record)

    def test_againWhileClosing(self) -> None:
        """
        A pool that is started while it is closing is closed first, and then starts.
        """
        pool = self.engine(minimum=1)
        taker = Taker(pool)
        done = pool.close()
        pool.start()
        self.assertIsInstance(Taker(pool).error, PoolClosed)
        self.assertNoResult(done)
        taker.release()
        self.reactor.turns()
        self.successResultOf(done)
        self.assertIsNotNone(Taker(pool).record)

    def test_closedAgainWhileClosing(self) -> None:
        """
        The last call counts: a pool that was closed, started and closed again stays closed.
        """
        pool = self.engine(minimum=1)
        taker = Taker(pool)
        done = [pool.close()]
        pool.start()
        done.append(pool.close())
        taker.release()
        self.reactor.turns()
        for each in done:
            self.successResultOf(each)
        self.assertIsInstance(Taker(pool).error, PoolClosed)

    def test_startedByTheEnd(self) -> None:
        """
        A callback of the Deferred of C{close} may start the pool.
        """
        pool = self.engine(minimum=1)
        pool.close().addCallback(lambda _: pool.start())
        self.reactor.turns()
        self.assertEqual(pool.stats.connections, 1)

    def test_doesNotGo(self) -> None:
        """
        A connection whose server does not read, so that pending writes cannot be sent, is closed at once after a while.
        """
        pool = self.engine(minimum=1, connectTimeout=3.0)
        taker = Taker(pool)
        assert taker.record is not None
        (line,) = self.server.open
        line.reads = False
        line.write(b"unread")
        pool.retire(taker.record, GIVEN_BACK)
        taker.release()
        self.reactor.advance(2.9)
        self.assertTrue(line.connected)
        self.reactor.advance(0.2)
        self.reactor.turns()
        self.assertFalse(line.connected)


class LossTests(EngineCase):
    """
    Tests for connections that end.
    """

    def test_clientRaises(self) -> None:
        """
        When C{connectionLost} of a client raises, the pool dials all the same.
        """

        class Failing(Client):
            def connectionLost(self, reason: Any = None) -> None:
                raise ZeroDivisionError

        pool = self.engine(client=Failing, minimum=1)
        self.reactor.advance(2)
        (line,) = self.server.open
        self.assertRaises(ZeroDivisionError, line.lose)
        self.reactor.turns()
        self.assertEqual((pool.stats.connections, len(self.server.open)), (1, 1))
        self.server.open[0].protocol.connection.connectionLost = lambda reason: None

    @covers("22")
    def test_askedInConnectionLost(self) -> None:
        """
        The pool knows that a connection has ended before its client is notified: a request that the client makes then
        gets another connection.
        """
        taken: list[Taker] = []

        class Asking(Client):
            def connectionLost(self, reason: Any = None) -> None:
                taken.append(Taker(pool))

        pool = self.engine(client=Asking, minimum=2)
        first = self.server.lines[0]
        (gone,) = (record for record in pool.state.records if record.connection is first.protocol.connection)
        first.lose()
        self.reactor.turns()
        self.assertIsNotNone(taken[0].record)
        self.assertIsNot(taken[0].record, gone)

    def logged(self) -> list[str]:
        """
        @return: a list to which the messages that pools log from now on are added.
        """
        messages: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event["log_namespace"] == "txconnpool.pool":
                messages.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return messages

    def test_log(self) -> None:
        """
        The pool logs once that a server is down, and once that it is up again.
        """
        self.engine(minimum=1)
        messages = self.logged()
        self.reactor.advance(5)
        self.server.mode = "refuse"
        self.server.open[0].lose()
        for _ in range(50):
            self.reactor.advance(0.1)
        self.server.mode = "accept"
        self.reactor.advance(1.5)
        self.assertEqual(len(messages), 2, messages)
        self.assertEqual(messages[0], "pool: server is down: connection refused")
        self.assertRegex(messages[1], r"^pool: server is up again after [456]\.\d s$")

    def test_logYoung(self) -> None:
        """
        It does so too when the lost connections were established a moment ago.
        """
        self.engine(minimum=2)
        self.reactor.advance(0.1)
        self.reactor.turns()
        messages = self.logged()
        self.server.mode = "refuse"
        for line in list(self.server.open):
            line.lose()
        for _ in range(20):
            self.reactor.advance(0.1)
        self.server.mode = "accept"
        self.reactor.advance(1.5)
        self.assertEqual(len(messages), 2, messages)
        self.assertRegex(messages[0], "^pool: server is down: connection ")
        self.assertRegex(messages[1], "^pool: server is up again after ")

    def test_logSome(self) -> None:
        """
        A server that has a connection is not down, even if others are lost and dials fail.
        """
        self.engine(minimum=2)
        self.reactor.advance(0.1)
        self.reactor.turns()
        messages = self.logged()
        self.reactor.advance(5)
        self.server.mode = "refuse"
        first, second = self.server.open
        first.lose()
        for _ in range(20):
            self.reactor.advance(0.1)
        self.assertEqual(messages, [])
        second.lose()
        self.assertEqual(messages, ["pool: server is down: connection refused"])

    def test_logClosing(self) -> None:
        """
        The reason why a connection is closed is logged, but not that of all connections when the pool is closed.
        """
        pool = self.engine(minimum=2)
        messages = self.logged()
        pool.retire(next(iter(pool.state.records)), TOO_OLD)
        self.assertEqual(messages, ["pool: closing a connection to server: too old"])
        pool.close()
        self.reactor.turns()
        self.assertEqual(len(messages), 1)


class CheckTests(EngineCase):
    """
    Tests for checks.
    """

    def checked(self, check: Callable[[Client], Any]) -> tuple[PoolEngine, Taker]:
        """
        @return: a pool, and a caller that waits for a connection that is being checked.
        """
        pool = self.engine(check=check, checkIfIdleFor=1.0, minimum=1, maximum=1, connectTimeout=3.0)
        self.reactor.advance(2)
        pool.state.doubt(self.reactor.seconds())
        return pool, Taker(pool)

    def test_lives(self) -> None:
        """
        A connection whose check succeeds is used. The check returns C{None}, a value, a Deferred or a coroutine.
        """

        async def ask(client: Client) -> None:
            await client.ask("alive?")

        for check in (lambda client: None, lambda client: True, lambda client: client.ask("alive?"), ask):
            pool, taker = self.checked(check)
            for line in self.server.open:
                line.answer(*line.asked)
            assert taker.record is not None
            self.assertEqual((taker.record.phase, self.server.dials), (OPEN, 1))
            self.finish(pool)
            self.server.dials = 0

    def test_dead(self) -> None:
        """
        When the check fails, the connection is closed and another one is dialed.
        """

        def fault(client: Client) -> None:
            client.fault()

        for check in (fault, lambda client: False):
            pool, taker = self.checked(check)
            self.assertIsNone(taker.record)
            self.reactor.turns()
            self.assertIsNotNone(taker.record)
            self.assertEqual((self.server.dials, pool.stats.closed, pool.stats.lost), (2, 1, 0))
            self.finish(pool)
            self.server.dials = 0

    def test_hangs(self) -> None:
        """
        A check that takes too long fails.
        """
        _, taker = self.checked(lambda client: client.ask("alive?"))
        self.reactor.advance(3)
        self.reactor.turns()
        self.assertIsNotNone(taker.record)
        self.assertEqual(self.server.dials, 2)

    def test_lost(self) -> None:
        """
        When the connection is lost, its check is cancelled and leaves no timer.
        """
        cancelled: list[Any] = []
        pool, taker = self.checked(lambda client: Deferred(cancelled.append))
        self.server.open[0].lose()
        self.reactor.turns()
        self.assertEqual(len(cancelled), 1)
        pool.selfCheck()
        self.assertIsNotNone(taker.record)

    def test_closing(self) -> None:
        """
        A pool that closes does not wait for a check.
        """
        pool, taker = self.checked(lambda client: Deferred())
        done = pool.close()
        self.reactor.turns()
        self.successResultOf(done)
        self.assertIsInstance(taker.error, PoolClosed)

    def test_retired(self) -> None:
        """
        When a connection is retired while it is checked for a waiter, another one is dialed, even if the first one does
        not end.
        """
        pool = self.engine(check=lambda client: Deferred(), checkIfIdleFor=1.0, minimum=1, maximum=2)
        self.reactor.advance(2)
        pool.state.doubt(self.reactor.seconds())
        taker = Taker(pool)
        (line,) = self.server.open
        line.reads = False
        line.write(b"unread")
        pool.retire(pool.state.records[0], GIVEN_BACK)
        self.reactor.turns()
        self.assertIsNotNone(taker.record)
        self.assertTrue(line.connected)

    def test_keepAlive(self) -> None:
        """
        Idle connections are checked at the interval C{keepAlive}.
        """
        checks: list[Any] = []
        self.engine(check=checks.append, keepAlive=10.0, minimum=2)
        self.reactor.advance(9)
        self.assertEqual(checks, [])
        self.reactor.advance(1.5)
        self.assertEqual(len(checks), 2)


class ChangeTests(EngineCase):
    """
    Tests for changes to a running pool.
    """

    def test_servers(self) -> None:
        """
        Servers are added, removed and marked down, by address or by name.
        """
        pool = self.engine()
        address = IPv4Address("TCP", "127.0.0.1", 11211)
        other = Server(self.reactor, "other")
        for one in (address, other, "tcp:127.0.0.1:11212"):
            pool.addServer(one)
        names = [server.name for server in pool.servers]
        self.assertEqual(names, ["server", "tcp:127.0.0.1:11211", "other", "tcp:127.0.0.1:11212"])
        pool.removeServer(address)
        pool.removeServer(other)
        pool.removeServer("tcp:127.0.0.1:11212")
        self.assertEqual([server.name for server in pool.servers], ["server"])
        pool.markDown(self.server, ConnectionError("known to be down"))
        self.assertEqual((pool.servers[0].up, pool.servers[0].reason), (False, "known to be down"))

    def test_sameName(self) -> None:
        """
        Of two endpoints with the same name, the given one is removed.
        """
        other = Server(self.reactor, "server")
        pool = self.engine(self.server, other)
        pool.removeServer(other)
        self.assertIs(pool.servers[0].address, self.server)

    def test_unknown(self) -> None:
        """
        An unknown server is an error that shows the names of all servers.
        """
        pool = self.engine()
        text = str(self.assertRaises(ValueError, pool.removeServer, "nosuch"))
        self.assertEqual(text, "no server 'nosuch'; there are: server")
        self.assertRaises(ValueError, pool.addServer, 11211)

    def test_larger(self) -> None:
        """
        With a larger maximum, waiters are served.
        """
        pool = self.engine(maximum=1)
        Taker(pool)
        waiter = Taker(pool)
        self.reactor.turns()
        self.assertIsNone(waiter.record)
        pool.setLimits(Limits(maximum=2, idleTimeout=0, maxLifetime=0))
        self.reactor.turns()
        self.assertIsNotNone(waiter.record)

    def test_unstarted(self) -> None:
        """
        Changes to a pool that is not started begin no dial.
        """
        pool = self.engine(start=False)
        pool.setLimits(Limits(maximum=2, minimum=2))
        pool.expire()
        pool.addServer(Server(self.reactor, "other"))
        self.assertEqual((self.reactor.getDelayedCalls(), self.server.dials), ([], 0))

    def test_expire(self) -> None:
        """
        All connections are replaced, busy ones are closed when they carry nothing.
        """
        pool = self.engine(maximum=2, minimum=2)
        taker = Taker(pool)
        old = pool.state.records
        pool.expire()
        self.reactor.turns()
        assert taker.record is not None
        self.assertEqual((taker.record.phase, len(self.server.open)), (RETIRING, 3))
        taker.release()
        self.reactor.turns()
        self.assertEqual((len(pool.state.records), len({*pool.state.records, *old})), (2, 4))
