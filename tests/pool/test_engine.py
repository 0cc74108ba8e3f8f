# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.engine}: the decisions carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyClass

from tests.bugs import covers
from tests.pools import Client, Reactor, Server
from txconnpool.errors import PoolClosed, PoolError, PoolTimeout, ServerUnavailable
from txconnpool.interfaces import IPipelined, IWaiter
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.records import OPEN, RETIRING, Record
from txconnpool.pool.engine import PoolEngine


@implementer(IWaiter)
class Taker:
    """
    Takes a connection, and keeps it until told otherwise.

    @ivar record: what it has.
    @ivar error: why it has not.
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
        """
        Keep it.
        """
        record.load += 1
        self.record = record
        self.then()

    def refused(self, error: PoolError) -> None:
        """
        Keep the reason.
        """
        self.error = error
        self.then()

    def give(self) -> None:
        """
        Give it back.
        """
        assert self.record is not None
        self.record.load -= 1
        self.pool.hasCapacity(self.record)


class CoreCase(SynchronousTestCase):
    """
    A test with servers in memory, of whose pools nothing may be left at its end.
    """

    def setUp(self) -> None:
        """
        There is a server.
        """
        self.reactor = Reactor()
        self.server = Server(self.reactor)

    def core(self, *servers: Server, client: Any = Client, start: bool = True, **options: Any) -> PoolEngine:
        """
        @return: a new pool that neither dials without need nor ages, where it is not told to.
        """
        names = {"connectTimeout", "handshake", "announces", "check", "observer"} & set(options)
        named = {name: options.pop(name) for name in names}
        limits = Limits(**{"idleTimeout": 0, "maxLifetime": 0, **options})
        core = PoolEngine(list(servers) or [self.server], Factory.forProtocol(client), limits, self.reactor, **named)
        self.addCleanup(self.finish, core)
        if start:
            core.start()
            self.reactor.turns()
        return core

    def finish(self, core: PoolEngine) -> None:
        """
        Assert that a pool closes without leaving anything behind.
        """
        done = core.abort()
        self.reactor.turns()
        self.successResultOf(done)
        core.selfCheck()
        self.assertEqual(core.state.records, [])
        self.assertEqual((self.server.open, self.reactor.getDelayedCalls()), ([], []))


class StartTests(CoreCase):
    """
    Tests for how a pool begins.
    """

    def test_nothing(self) -> None:
        """
        To make one does nothing.
        """
        self.core(start=False, minimum=3)
        self.assertEqual((self.server.dials, self.reactor.getDelayedCalls()), (0, []))

    def test_firstRequest(self) -> None:
        """
        A pool that was not started starts with its first request.
        """
        core = self.core(start=False, minimum=2)
        taker = Taker(core)
        self.assertEqual(self.server.dials, 0)
        self.reactor.turns()
        self.assertIsNotNone(taker.record)
        self.assertEqual(core.stats.connections, 2)

    def test_factory(self) -> None:
        """
        The factory of the clients knows the pool when it is first used, and not before.
        """
        factory: Any = Factory.forProtocol(Client)
        core = PoolEngine([self.server], factory, Limits(idleTimeout=0, maxLifetime=0), self.reactor)
        self.addCleanup(self.finish, core)
        self.assertFalse(hasattr(factory, "connectionPool"))
        core.start()
        Taker(core)
        self.reactor.turns()
        self.assertIs(factory.connectionPool, core)

    def test_pipelined(self) -> None:
        """
        A client that keeps the load of its connection itself is told its record.
        """

        @implementer(IPipelined)
        class Pipelined(Client):
            record: Any = None
            sending = False

            def loseConnection(self) -> None:
                """
                Close.
                """
                self.transport.loseConnection()

        verifyClass(IPipelined, Pipelined)
        core = self.core(client=Pipelined, minimum=1)
        (record,) = core.state.records
        self.assertIs(record.connection.record, record)
        self.assertEqual(record.weight, 0)

    @covers("25")
    def test_repr(self) -> None:
        """
        A pool shows what it is about.
        """
        core = self.core(minimum=1, maximum=7)
        self.assertEqual(repr(core), "<PoolEngine pool: 0 of 7 connections busy, 1 idle, 0 dialing, 0 waiting>")


class ServeTests(CoreCase):
    """
    Tests for handing out connections.
    """

    def test_inTurn(self) -> None:
        """
        Ten thousand waiters of which each gives back at once are served without recursion, in their order.
        """
        core = self.core(maximum=1)
        served: list[int] = []
        holder = Taker(core)
        self.reactor.turns()

        def asked(number: int) -> None:
            def served_() -> None:
                served.append(number)
                taker.give()

            taker = Taker(core, served_)

        for number in range(10_000):
            asked(number)
        holder.give()
        self.assertEqual(served, list(range(10_000)))

    def test_behindALease(self) -> None:
        """
        When the first waiter wants a connection alone and gives up, those behind it are served, who do not.
        """
        core = self.core(maximum=1, depth=2, minimum=1)
        Taker(core)
        alone = Taker(core, exclusive=True)
        other = Taker(core)
        self.assertEqual((alone.record, other.record), (None, None))
        core.forget(alone.ticket)
        self.assertIsNotNone(other.record)

    def test_late(self) -> None:
        """
        Who waits for too long is refused by a timer, of which there is one.
        """
        core = self.core(maximum=1, minimum=1, waitTimeout=2.0)
        Taker(core)
        waiters = [Taker(core) for _ in range(100)]
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.reactor.advance(2)
        self.assertEqual({type(waiter.error) for waiter in waiters}, {PoolTimeout})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_timer(self) -> None:
        """
        A timer that goes off early enough for who comes to wait is left alone, and one that does not is replaced.
        """
        core = self.core(maximum=1, minimum=1, waitTimeout=2.0)
        Taker(core)
        core.forget(Taker(core).ticket)
        timers = self.reactor.getDelayedCalls()
        self.assertEqual([timer.getTime() for timer in timers], [2.0])
        self.reactor.advance(1.5)
        waiter = Taker(core)
        self.assertEqual(self.reactor.getDelayedCalls(), timers)
        self.reactor.advance(1.9)
        self.assertIsNone(waiter.error)
        self.assertEqual([timer.getTime() for timer in self.reactor.getDelayedCalls()], [3.5])
        self.reactor.advance(0.1)
        self.assertIsInstance(waiter.error, PoolTimeout)
        core.setLimits(replace(core.state.limits, maxLifetime=100.0))
        self.reactor.advance(0)
        (aged,) = self.reactor.getDelayedCalls()
        waiter = Taker(core)
        self.assertFalse(aged.active())
        self.reactor.advance(2)
        self.assertIsInstance(waiter.error, PoolTimeout)

    def test_roundedTimes(self) -> None:
        """
        Where adding up times is not exact the timer comes to its end all the same.
        """
        core = self.core(maximum=1, minimum=1, waitTimeout=0.7)
        Taker(core)
        for start in range(300):
            self.reactor.rightNow = 1.7e9 + start * 0.1
            waiter = Taker(core)
            self.reactor.advance(0.7)
            self.assertIsInstance(waiter.error, PoolTimeout)

    def test_refusedOnesAskAgain(self) -> None:
        """
        Those who ask again when they are refused get their answer too, none of them twice.
        """
        core = self.core(whenDown=1)
        self.server.mode = "refuse"
        errors: list[Any] = []

        def again() -> None:
            errors.append(Taker(core).error)

        waiters = [Taker(core, again) for _ in range(3)]
        self.reactor.turns()
        self.assertEqual({type(waiter.error) for waiter in waiters}, {ServerUnavailable})
        self.assertEqual([type(error) for error in errors], [ServerUnavailable] * 3)

    def test_closedByTheRefused(self) -> None:
        """
        Of a decision to refuse and to dial, the dial is not forgotten when the refused one closes the pool.
        """
        other = Server(self.reactor, "other")
        core = self.core(self.server, other, maximum=2, minimum=2, waitTimeout=0.05)
        self.server.mode = other.mode = "hang"
        for line in (*self.server.open, *other.open):
            line.lose()
        self.reactor.turns()
        closed: list[Any] = []
        Taker(core, lambda: closed.append(core.close()))
        self.reactor.advance(0.05)
        self.reactor.turns()
        self.successResultOf(closed[0])
        self.assertEqual((self.server.hanging, other.hanging, core.state.records), ([], [], []))
        core.selfCheck()

    def test_room(self) -> None:
        """
        When connections are all in use and more may be, one more is dialed.
        """
        core = self.core(maximum=2, depth=8, minimum=1)
        first, second = Taker(core), Taker(core)
        self.assertIs(first.record, second.record)
        self.reactor.turns()
        self.assertEqual(core.stats.connections, 2)

    def test_hold(self) -> None:
        """
        A connection is not used while its server does not read, and serves who waits when it does.
        """
        core = self.core(maximum=1, depth=8, minimum=1)
        first = Taker(core)
        assert first.record is not None
        core.hold(first.record)
        waiter = Taker(core)
        self.assertIsNone(waiter.record)
        core.unhold(first.record)
        self.assertIsNotNone(waiter.record)

    def test_each(self) -> None:
        """
        One connection of every server may be had.
        """
        other = Server(self.reactor, "other")
        core = self.core(self.server, other, maximum=4, minimum=4)
        self.assertEqual({record.server.name for record in core.each()}, {"server", "other"})


class EndTests(CoreCase):
    """
    Tests for closing, and starting again.
    """

    def test_unstarted(self) -> None:
        """
        A pool that was never started closes at once, and does not start any more by being asked.
        """
        core = self.core(start=False)
        self.successResultOf(core.close())
        self.assertIsInstance(Taker(core).error, PoolClosed)

    def test_whileDialing(self) -> None:
        """
        A dial in progress is given up, brings no other, and leaves no timer.
        """
        other = Server(self.reactor, "other")
        self.server.mode = other.mode = "hang"
        core = self.core(self.server, other, minimum=1)
        self.assertEqual(len(self.server.hanging), 1)
        self.successResultOf(core.close())
        self.reactor.turns()
        self.assertEqual((self.server.cancelled, other.dials), (1, 0))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_beforeTheDial(self) -> None:
        """
        A dial that was to begin in the next turn never does.
        """
        core = self.core(start=False, minimum=1)
        core.start()
        self.successResultOf(core.close())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.server.dials, 0)

    def test_drains(self) -> None:
        """
        What is in flight ends; connections are closed when they carry nothing, and then all is done.
        """
        core = self.core(maximum=2, minimum=2)
        taker = Taker(core)
        done = core.close(5.0)
        self.reactor.turns()
        self.assertNoResult(done)
        self.assertEqual(len(self.server.open), 1)
        self.assertIsInstance(Taker(core).error, PoolClosed)
        taker.give()
        self.reactor.turns()
        self.successResultOf(done)

    def test_deadline(self) -> None:
        """
        What does not end in time is given up.
        """
        core = self.core(minimum=1)
        Taker(core)
        done = core.close(5.0)
        self.reactor.advance(4.9)
        self.assertNoResult(done)
        self.reactor.advance(0.2)
        self.reactor.turns()
        self.successResultOf(done)

    def test_impatient(self) -> None:
        """
        To close without a limit can be hurried by closing with one, or by force; all of them end together.
        """
        for hurry in (lambda core: core.close(1.0), lambda core: core.abort()):
            core = self.core(minimum=1)
            Taker(core)
            first = core.close()
            second = hurry(core)
            self.reactor.advance(1)
            self.reactor.turns()
            self.successResultOf(first)
            self.successResultOf(second)

    def test_twice(self) -> None:
        """
        To close a closed pool does nothing.
        """
        core = self.core(minimum=1)
        core.close()
        self.reactor.turns()
        self.successResultOf(core.close())

    def test_waitersFirst(self) -> None:
        """
        Who waits is refused before the end is told.
        """
        said: list[str] = []
        self.server.mode = "hang"
        core = self.core(minimum=1)
        Taker(core, lambda: said.append("refused"))
        core.close().addCallback(lambda _: said.append("closed"))
        self.assertEqual(said, ["refused", "closed"])

    def test_again(self) -> None:
        """
        A closed pool that is started works again, under the same name of its server.
        """
        core = self.core(minimum=1)
        core.close()
        self.reactor.turns()
        core.start()
        self.reactor.turns()
        self.assertIsNotNone(Taker(core).record)

    def test_againWhileClosing(self) -> None:
        """
        A pool that is started while it closes does so first, and tells.
        """
        core = self.core(minimum=1)
        taker = Taker(core)
        done = core.close()
        core.start()
        self.assertIsInstance(Taker(core).error, PoolClosed)
        self.assertNoResult(done)
        taker.give()
        self.reactor.turns()
        self.successResultOf(done)
        self.assertIsNotNone(Taker(core).record)

    def test_closedAgainWhileClosing(self) -> None:
        """
        The last word counts: closed, started and closed is closed.
        """
        core = self.core(minimum=1)
        taker = Taker(core)
        done = [core.close()]
        core.start()
        done.append(core.close())
        taker.give()
        self.reactor.turns()
        for each in done:
            self.successResultOf(each)
        self.assertIsInstance(Taker(core).error, PoolClosed)

    def test_startedByTheEnd(self) -> None:
        """
        Whoever is told of the end may start the pool.
        """
        core = self.core(minimum=1)
        core.close().addCallback(lambda _: core.start())
        self.reactor.turns()
        self.assertEqual(core.stats.connections, 1)

    def test_doesNotGo(self) -> None:
        """
        A connection that was closed gently and does not go, because its server reads nothing, is closed by force.
        """
        core = self.core(minimum=1, connectTimeout=3.0)
        taker = Taker(core)
        assert taker.record is not None
        (line,) = self.server.open
        line.reads = False
        line.write(b"unread")
        core.retire(taker.record, "test")
        taker.give()
        self.reactor.advance(2.9)
        self.assertTrue(line.connected)
        self.reactor.advance(0.2)
        self.reactor.turns()
        self.assertFalse(line.connected)


class LossTests(CoreCase):
    """
    Tests for connections that end.
    """

    def test_clientRaises(self) -> None:
        """
        A client that fails when it hears of its end does not keep the pool from dialing.
        """

        class Failing(Client):
            def connectionLost(self, reason: Any = None) -> None:
                """
                Fail.
                """
                raise ZeroDivisionError

        core = self.core(client=Failing, minimum=1)
        self.reactor.advance(2)
        (line,) = self.server.open
        self.assertRaises(ZeroDivisionError, line.lose)
        self.reactor.turns()
        self.assertEqual((core.stats.connections, len(self.server.open)), (1, 1))
        self.server.open[0].protocol.connection.connectionLost = lambda reason: None

    @covers("22")
    def test_askedInConnectionLost(self) -> None:
        """
        When a client hears of its end the pool knows already: who asks then gets another connection.
        """
        taken: list[Taker] = []

        class Asking(Client):
            def connectionLost(self, reason: Any = None) -> None:
                """
                Ask.
                """
                taken.append(Taker(core))

        core = self.core(client=Asking, minimum=2)
        first = self.server.lines[0]
        (gone,) = (record for record in core.state.records if record.connection is first.protocol.connection)
        first.lose()
        self.reactor.turns()
        self.assertIsNotNone(taken[0].record)
        self.assertIsNot(taken[0].record, gone)

    def logged(self) -> list[str]:
        """
        @return: what pools log from now on.
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
        That a server is down, and up again, is told once each.
        """
        self.core(minimum=1)
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
        It is told too when the connections that are lost had hardly begun.
        """
        self.core(minimum=2)
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
        As long as a server has a connection it is not down, whatever becomes of others.
        """
        self.core(minimum=2)
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


class CheckTests(CoreCase):
    """
    Tests for checks of connections that belong to nobody at the time.
    """

    def checked(self, check: Callable[[Client], Any]) -> tuple[PoolEngine, Taker]:
        """
        Ask for a connection that is to be checked first.
        """
        core = self.core(check=check, checkIfIdleFor=1.0, minimum=1, maximum=1, connectTimeout=3.0)
        self.reactor.advance(2)
        core.state.doubt(self.reactor.seconds())
        return core, Taker(core)

    def test_lives(self) -> None:
        """
        A connection that lives is used, whether the check says so now or later.
        """

        async def ask(client: Client) -> None:
            await client.ask("alive?")

        for check in (lambda client: None, lambda client: True, lambda client: client.ask("alive?"), ask):
            core, taker = self.checked(check)
            for line in self.server.open:
                line.answer(*line.asked)
            assert taker.record is not None
            self.assertEqual((taker.record.phase, self.server.dials), (OPEN, 1))
            self.finish(core)
            self.server.dials = 0

    def test_dead(self) -> None:
        """
        One that does not is closed, and another is dialed.
        """

        def fault(client: Client) -> None:
            client.fault()

        for check in (fault, lambda client: False):
            core, taker = self.checked(check)
            self.assertIsNone(taker.record)
            self.reactor.turns()
            self.assertIsNotNone(taker.record)
            self.assertEqual((self.server.dials, core.stats.closed, core.stats.lost), (2, 1, 0))
            self.finish(core)
            self.server.dials = 0

    def test_hangs(self) -> None:
        """
        A check that takes too long is one that failed.
        """
        _, taker = self.checked(lambda client: client.ask("alive?"))
        self.reactor.advance(3)
        self.reactor.turns()
        self.assertIsNotNone(taker.record)
        self.assertEqual(self.server.dials, 2)

    def test_lost(self) -> None:
        """
        When the connection is lost the check is cancelled, and leaves no timer.
        """
        cancelled: list[Any] = []
        core, taker = self.checked(lambda client: Deferred(cancelled.append))
        self.server.open[0].lose()
        self.reactor.turns()
        self.assertEqual(len(cancelled), 1)
        core.selfCheck()
        self.assertIsNotNone(taker.record)

    def test_closing(self) -> None:
        """
        A pool that closes does not wait for a check.
        """
        core, taker = self.checked(lambda client: Deferred())
        done = core.close()
        self.reactor.turns()
        self.successResultOf(done)
        self.assertIsInstance(taker.error, PoolClosed)

    def test_keepAlive(self) -> None:
        """
        Idle connections are checked from time to time.
        """
        checks: list[Any] = []
        self.core(check=checks.append, keepAlive=10.0, minimum=2)
        self.reactor.advance(9)
        self.assertEqual(checks, [])
        self.reactor.advance(1.5)
        self.assertEqual(len(checks), 2)


class ChangeTests(CoreCase):
    """
    Tests for changes while the pool works.
    """

    def test_servers(self) -> None:
        """
        Servers are added, removed and taken out of rotation, by address or by name.
        """
        core = self.core()
        address = IPv4Address("TCP", "127.0.0.1", 11211)
        other = Server(self.reactor, "other")
        for one in (address, other, "tcp:127.0.0.1:11212"):
            core.addServer(one)
        names = [server.name for server in core.servers]
        self.assertEqual(names, ["server", "tcp:127.0.0.1:11211", "other", "tcp:127.0.0.1:11212"])
        core.removeServer(address)
        core.removeServer(other)
        core.removeServer("tcp:127.0.0.1:11212")
        self.assertEqual([server.name for server in core.servers], ["server"])
        core.markDown(self.server, ConnectionError("known to be down"))
        self.assertEqual((core.servers[0].up, core.servers[0].reason), (False, "known to be down"))

    def test_sameName(self) -> None:
        """
        Of two endpoints with one name the one that is given is removed.
        """
        other = Server(self.reactor, "server")
        core = self.core(self.server, other)
        core.removeServer(other)
        self.assertIs(core.servers[0].address, self.server)

    def test_unknown(self) -> None:
        """
        A server that is not there is an error that names those that are.
        """
        core = self.core()
        text = str(self.assertRaises(ValueError, core.removeServer, "nosuch"))
        self.assertEqual(text, "no server 'nosuch'; there are: server")
        self.assertRaises(ValueError, core.addServer, 11211)

    def test_larger(self) -> None:
        """
        A larger bound serves those who wait.
        """
        core = self.core(maximum=1)
        Taker(core)
        waiter = Taker(core)
        self.reactor.turns()
        self.assertIsNone(waiter.record)
        core.setLimits(Limits(maximum=2, idleTimeout=0, maxLifetime=0))
        self.reactor.turns()
        self.assertIsNotNone(waiter.record)

    def test_unstarted(self) -> None:
        """
        A pool that is changed before it is started does nothing yet.
        """
        core = self.core(start=False)
        core.setLimits(Limits(maximum=2, minimum=2))
        core.expire()
        core.addServer(Server(self.reactor, "other"))
        self.assertEqual((self.reactor.getDelayedCalls(), self.server.dials), ([], 0))

    def test_expire(self) -> None:
        """
        All connections are replaced, those in use when they are free.
        """
        core = self.core(maximum=2, minimum=2)
        taker = Taker(core)
        old = core.state.records
        core.expire()
        self.reactor.turns()
        assert taker.record is not None
        self.assertEqual((taker.record.phase, len(self.server.open)), (RETIRING, 2))
        taker.give()
        self.reactor.turns()
        self.assertEqual((len(core.state.records), len({*core.state.records, *old})), (2, 4))
