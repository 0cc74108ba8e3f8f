# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.decisions.state}: the decisions, with nothing but a number for the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from txconnpool.errors import PoolClosed, PoolError, PoolFull, PoolTimeout, ServerUnavailable
from txconnpool.pool.decisions.actions import Action, Check, Close, Dial
from txconnpool.pool.decisions.administration import Administration
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.picking import TOGETHER
from txconnpool.pool.decisions.records import CHECKING, DIALING, DOUBTFUL, GONE, HELD, OPEN, RETIRING, Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.pool.decisions.state import PoolState

REFUSED = ConnectionRefusedError("refused")


class Waiter:
    """
    Who asks for a connection.

    @ivar record: what it was given.
    @ivar error: or why not.
    @ivar load: what it puts on its connection.
    """

    def __init__(self, exclusive: bool = False) -> None:
        self.exclusive = exclusive
        self.ticket: Any = None
        self.record: Record | None = None
        self.error: PoolError | None = None
        self.load = 0

    def granted(self, record: Record) -> None:
        """
        Put load on it at once.
        """
        assert self.record is None and self.error is None
        self.record = record
        self.load = record.depth if self.exclusive else 1
        record.load += self.load


class Line:
    """
    A client that keeps its load itself.
    """

    sending = False


class World:
    """
    What is around a L{PoolState}: its decisions are carried out by writing them down.

    @ivar dials: the records being dialed.
    @ivar checks: those being checked.
    @ivar closes: those being closed.
    """

    def __init__(self, servers: int = 1, **limits: Any) -> None:
        defaults = {"maximum": 3, "idleTimeout": 0, "maxLifetime": 0, "waitTimeout": 10.0, "whenDown": None}
        self.state = PoolState(Limits(**{**defaults, **limits}), lambda low, high: (low + high) / 2)
        self.admin = Administration(self.state)
        self.state.servers += [Server(f"server{number}", None) for number in range(servers)]
        self.now = 1000.0
        self.dials: list[Record] = []
        self.checks: list[Record] = []
        self.closes: list[Record] = []

    def do(self, actions: Sequence[Action]) -> None:
        """
        Carry out decisions, and serve who waits.
        """
        for action in actions:
            if isinstance(action, Dial):
                self.dials.append(action.record)
            elif isinstance(action, Check):
                self.checks.append(action.record)
            elif isinstance(action, Close):
                if action.record not in self.closes:
                    self.closes.append(action.record)
            else:
                assert action.waiter.record is None and action.waiter.error is None
                action.waiter.error = action.error
        self.state.waiters.serve(self.now)

    def ask(self, exclusive: bool = False) -> Waiter:
        """
        Ask for a connection, as L{txconnpool.pool.engine.PoolEngine.take} does.
        """
        state = self.state
        waiter = Waiter(exclusive)
        record = None if state.waiters.count else state.pick(exclusive)
        if record is None:
            try:
                waiter.ticket = state.enqueue(waiter, self.now, exclusive)
            except PoolError as error:
                waiter.error = error
            else:
                self.do(state.grow(self.now) if state.canGrow else [])
        else:
            state.counters.acquired += 1
            waiter.granted(record)
            self.do(state.grow(self.now, 1) if record.load > waiter.load and state.canGrow and not state.idle else [])
        return waiter

    def end(self, waiter: Waiter) -> None:
        """
        C{waiter} needs its connection no more.
        """
        record = waiter.record
        assert record is not None
        record.load -= waiter.load
        self.do([] if record.load else self.state.hasCapacity(record, self.now))

    def start(self) -> World:
        """
        Begin.
        """
        self.do(self.state.start(self.now))
        return self

    def accept(self, record: Record | None = None) -> Record:
        """
        A dial succeeds: the oldest, if not told which.
        """
        record = record or self.dials[0]
        self.dials.remove(record)
        record.weight = 0
        self.do(self.state.dialed(record, Line(), self.now))
        return record

    def refuse(self, record: Record | None = None) -> None:
        """
        A dial fails: the oldest, if not told which.
        """
        record = record or self.dials[0]
        self.dials.remove(record)
        self.do(self.state.dialFailed(record, REFUSED, "connection refused", self.now))

    def lose(self, record: Record) -> None:
        """
        A connection ends.
        """
        if record in self.closes:
            self.closes.remove(record)
        self.do(self.state.lost(record, REFUSED, "connection lost", self.now))

    def advance(self, seconds: float) -> None:
        """
        Let time pass, and be called whenever that was asked for.
        """
        end = self.now + seconds
        while (due := self.state.due(self.now)) is not None and due <= end:
            self.now = max(due, self.now)
            self.do(self.state.tick(self.now))
            after = self.state.due(self.now)
            assert after is None or after > self.now, "time would stand still"
        self.now = end

    def established(self, count: int = 1) -> list[Record]:
        """
        Start, and have so many connections.
        """
        self.state.wanted = count
        self.start()
        while self.state.connections.connected < count:
            self.accept()
        self.state.wanted = 0
        return self.state.records

    @property
    def phases(self) -> list[str]:
        """
        The phases of all connections.
        """
        return [record.phase for record in self.state.records]


class GrowTests(SynchronousTestCase):
    """
    Tests for when dials begin.
    """

    def test_notStarted(self) -> None:
        """
        Before it is started a pool dials nothing, and wants to be called at no time.
        """
        world = World(minimum=2, idleTimeout=5, maxLifetime=5)
        self.assertIsInstance(world.ask().error, PoolClosed)
        world.do(world.admin.setLimits(Limits(minimum=3), world.now))
        self.assertEqual((world.dials, world.state.due(world.now)), ([], None))

    def test_minimum(self) -> None:
        """
        As many connections as are to be kept open are dialed without being asked for, one after the other.
        """
        world = World(minimum=2).start()
        self.assertEqual(len(world.dials), 1)
        world.accept()
        self.assertEqual(len(world.dials), 1)
        world.accept()
        self.assertEqual((world.dials, world.phases), ([], [OPEN, OPEN]))

    @covers("24")
    def test_demand(self) -> None:
        """
        Whoever waits is worth a dial, up to the bound on connections, and each server is dialed once at a time.
        """
        world = World(maximum=3).start()
        waiters = [world.ask() for _ in range(5)]
        dials = []
        while world.dials:
            dials.append(len(world.dials))
            world.accept()
        self.assertEqual(dials, [1, 1, 1])
        self.assertEqual([waiter.record is None for waiter in waiters], [False, False, False, True, True])

    def test_noMoreThanNeeded(self) -> None:
        """
        When the one who waits is served by a dial that succeeds, no further dial begins.
        """
        world = World().start()
        waiter = world.ask()
        record = world.accept()
        self.assertIs(waiter.record, record)
        self.assertEqual(world.dials, [])

    def test_servedMeanwhile(self) -> None:
        """
        A connection that becomes free serves the waiter first; the dial begun for it goes on and becomes idle.
        """
        world = World()
        (record,) = world.established()
        first, second = world.ask(), world.ask()
        self.assertEqual(len(world.dials), 1)
        world.end(first)
        self.assertIs(second.record, record)
        world.accept()
        self.assertEqual((world.dials, world.state.stats().idle), ([], 1))

    @covers("24")
    def test_shared(self) -> None:
        """
        With room for several requests on a connection one more is dialed when the idle ones are used up.
        """
        world = World(depth=8)
        (record,) = world.established()
        world.ask()
        self.assertEqual(world.dials, [])
        self.assertIs(world.ask().record, record)
        self.assertEqual(len(world.dials), 1)

    def test_lost(self) -> None:
        """
        A connection that is lost while idle is replaced only if the pool has fewer then than it keeps open.
        """
        world = World(minimum=1)
        first, second = world.established(2)
        world.advance(5)
        world.lose(first)
        self.assertEqual(world.dials, [])
        world.lose(second)
        self.assertEqual(len(world.dials), 1)

    def test_wanted(self) -> None:
        """
        Connections are dialed for somebody who only wants them to be there.
        """
        world = World().start()
        world.state.wanted = 2
        world.do(world.state.grow(world.now))
        world.accept()
        world.accept()
        self.assertEqual((world.state.connections.connected, world.dials), (2, []))

    @covers("19")
    def test_retiringCount(self) -> None:
        """
        A connection that is to be closed counts against the bound until it is gone.
        """
        world = World(maximum=1)
        (record,) = world.established()
        first = world.ask()
        world.do(world.admin.expire(world.now))
        world.ask()
        self.assertEqual((world.dials, world.phases), ([], [RETIRING]))
        world.end(first)
        self.assertEqual(world.closes, [record])
        self.assertEqual(world.dials, [])
        world.lose(record)
        self.assertEqual(len(world.dials), 1)


class ServersTests(SynchronousTestCase):
    """
    Tests for the choice among several servers.
    """

    def test_turns(self) -> None:
        """
        Connections go to the server that has the fewest, in turn among equals, and all are dialed side by side.
        """
        world = World(3, maximum=6, minimum=6).start()
        self.assertEqual([record.server.name for record in world.dials], ["server0", "server1", "server2"])
        world.accept(world.dials[1])
        self.assertEqual([record.server.name for record in world.dials], ["server0", "server2", "server1"])

    def test_failedLeavesRotation(self) -> None:
        """
        The dial that follows a failed one is to another server.
        """
        world = World(2, maximum=2).start()
        waiter = world.ask()
        self.assertEqual(world.dials[0].server.name, "server0")
        world.refuse()
        self.assertEqual([record.server.name for record in world.dials], ["server1"])
        world.accept()
        assert waiter.record is not None
        self.assertEqual(waiter.record.server.name, "server1")

    def test_share(self) -> None:
        """
        The share of a server that is down is not used by the others, so that it is found when it is up again.
        """
        world = World(2, maximum=4, minimum=4).start()
        down = world.dials[0]
        world.refuse(down)
        for _ in range(2):
            world.accept()
        self.assertEqual((world.dials, world.state.connections.connected), ([], 2))
        world.advance(1)
        self.assertEqual([record.server for record in world.dials], [down.server])

    @covers("20")
    def test_probe(self) -> None:
        """
        A server without connections that is down is dialed again and again although nobody asks, and left in peace when
        it is found up.
        """
        world = World(2).start()
        world.ask()
        world.refuse()
        world.accept()
        for _ in range(5):
            world.advance(1.5)
            self.assertEqual([record.server.name for record in world.dials], ["server0"])
            world.refuse()
        world.advance(1.5)
        record = world.accept()
        world.advance(5)
        world.lose(record)
        world.advance(60)
        self.assertEqual(world.dials, [])

    def test_add(self) -> None:
        """
        A server that is added is dialed for those who wait.
        """
        world = World(1, maximum=2).start()
        world.ask()
        world.do(world.admin.addServer(Server("new", None), world.now))
        world.refuse()
        self.assertEqual([record.server.name for record in world.dials], ["new"])

    def test_remove(self) -> None:
        """
        When a server is removed its connections are closed as they become free, and those of the others stay.
        """
        world = World(2, maximum=4)
        records = world.established(4)
        gone = world.state.servers[0]
        waiters = [world.ask() for _ in range(4)]
        world.do(world.admin.removeServer(gone, world.now))
        self.assertEqual(
            [record.phase for record in records], [RETIRING if record.server is gone else OPEN for record in records]
        )
        self.assertEqual(world.closes, [])
        for waiter in waiters:
            world.end(waiter)
        self.assertEqual([record.server for record in world.closes], [gone, gone])

    def test_removeWhileDialing(self) -> None:
        """
        A dial to a server that is removed meanwhile ends with the connection being closed; those of others stay.
        """
        world = World(2, maximum=4)
        world.established(2)
        gone, stays = world.state.servers
        world.state.wanted = 4
        world.do(world.state.grow(world.now))
        (dial,) = (record for record in world.dials if record.server is gone)
        world.do(world.admin.removeServer(gone, world.now))
        world.accept(dial)
        self.assertEqual(dial.phase, RETIRING)
        self.assertIn(OPEN, [record.phase for record in world.state.records if record.server is stays])

    def test_removeLast(self) -> None:
        """
        Without servers everybody is refused at once, those who wait already too.
        """
        world = World(whenDown=1).start()
        early = world.ask()
        world.do(world.admin.removeServer(world.state.servers[0], world.now))
        late = world.ask()
        for waiter in (early, late):
            self.assertIsInstance(waiter.error, ServerUnavailable)
            self.assertEqual(str(waiter.error), "the pool has no servers")

    def test_markDown(self) -> None:
        """
        A server that is known to be down is not dialed for a while.
        """
        world = World(2).start()
        world.do(world.admin.markDown(world.state.servers[0], REFUSED, "known", world.now))
        world.ask()
        self.assertEqual([record.server.name for record in world.dials], ["server1"])

    def test_each(self) -> None:
        """
        One connection of each server, the least loaded, may be had for what concerns all; if one has none, none are.
        """
        world = World(2, maximum=4, depth=4)
        records = world.established(4)
        busy = world.ask().record
        chosen = world.state.each()
        self.assertEqual({record.server for record in chosen}, set(world.state.servers))
        self.assertNotIn(busy, chosen)
        self.assertNotIn(world.ask(True).record, [*chosen, busy])  # none of them is idle any more
        for record in records:
            if record.server is world.state.servers[0]:
                world.lose(record)
        self.assertRaises(ServerUnavailable, world.state.each)


class FailureTests(SynchronousTestCase):
    """
    Tests for dials that fail and connections that are lost.
    """

    @covers("24")
    def test_backsOff(self) -> None:
        """
        The time between failed dials grows to its most, and is short again after a success.
        """
        world = World().start()
        world.ask()

        def pause() -> float:
            world.refuse()
            due = world.state.due(world.now)
            assert due is not None
            pause = due - world.now
            world.advance(pause)
            return round(pause, 6)

        self.assertEqual([pause() for _ in range(6)], [0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
        record = world.accept()
        world.advance(5)
        world.lose(record)
        world.ask()
        self.assertEqual(pause(), 0.1)

    @covers("24")
    def test_noHotLoop(self) -> None:
        """
        A server that accepts and hangs up at once is dialed as slowly as one that refuses.
        """
        world = World(minimum=1).start()
        for _ in range(10):
            world.advance(2)
            world.lose(world.accept())
            self.assertEqual(world.dials, [])
        world.advance(10)
        self.assertEqual(world.state.counters.dials, 11)

    @covers("22")
    def test_livedForAWhile(self) -> None:
        """
        The loss of a connection that has lasted is no reason to wait with the next dial.
        """
        world = World(minimum=1)
        (record,) = world.established()
        world.advance(1.5)
        world.lose(record)
        self.assertEqual(len(world.dials), 1)
        self.assertEqual(world.state.counters.outages, 0)

    def test_failFast(self) -> None:
        """
        After so many failed dials without a connection left, those who wait are refused with the reason, and newcomers
        at once, until a dial succeeds.
        """
        world = World(whenDown=2).start()
        waiter = world.ask()
        world.refuse()
        self.assertIsNone(waiter.error)
        world.advance(1)
        world.refuse()
        newcomer = world.ask()
        for refused in (waiter, newcomer):
            self.assertIsInstance(refused.error, ServerUnavailable)
            self.assertEqual(str(refused.error), "upstream unavailable: connection refused (server0)")
            assert isinstance(refused.error, ServerUnavailable)
            self.assertIs(refused.error.__cause__, REFUSED)
            self.assertEqual(refused.error.stats.dialFailures, 2)
        self.assertEqual(world.state.counters.unavailable, 2)
        world.advance(1)
        world.accept()
        self.assertIsNotNone(world.ask().record)

    def test_connectionLeft(self) -> None:
        """
        While there is a connection, those who wait go on waiting, however many dials fail.
        """
        world = World(whenDown=1)
        world.established()
        world.ask()
        waiter = world.ask()
        for _ in range(5):
            world.refuse()
            world.advance(1.5)
        self.assertIsNone(waiter.error)

    def test_allServersDown(self) -> None:
        """
        Requests are refused when all servers are down, not when one is.
        """
        world = World(2, whenDown=1).start()
        waiter = world.ask()
        world.refuse()
        self.assertIsNone(waiter.error)
        world.refuse()
        self.assertIsInstance(waiter.error, ServerUnavailable)

    def test_clockJumps(self) -> None:
        """
        A clock that is put back or forward breaks nothing that time does not concern.
        """
        world = World(minimum=1, idleTimeout=60, maxLifetime=600)
        (record,) = world.established()
        first, second = world.ask(), world.ask()
        world.now -= 3600
        world.end(first)
        self.assertIs(second.record, record)
        self.assertGreaterEqual(world.state.stats().waitTime, 0)
        world.end(second)
        world.now += 10 * 3600
        world.advance(0)
        self.assertEqual(world.closes, [record])
        world.lose(record)
        world.accept()
        self.assertIsNotNone(world.ask().record)


class PickTests(SynchronousTestCase):
    """
    Tests for which connection is taken.
    """

    def reused(self, reuse: str) -> list[int]:
        """
        Use three connections four times, one after the other, after they were given back in their order.
        """
        world = World(reuse=reuse)
        records = world.established(3)
        waiters = {waiter.record: waiter for waiter in [world.ask() for _ in range(3)]}
        for record in records:
            world.end(waiters[record])
        used = []
        for _ in range(4):
            waiter = world.ask()
            assert waiter.record is not None
            used.append(records.index(waiter.record))
            world.end(waiter)
        return used

    def test_lifo(self) -> None:
        """
        By default the one that became free last is taken, so that the others may age.
        """
        self.assertEqual(self.reused("lifo"), [2, 2, 2, 2])

    def test_even(self) -> None:
        """
        With the other two ways all are used in turn.
        """
        for reuse in ("fifo", "least-loaded"):
            self.assertEqual(self.reused(reuse), [0, 1, 2, 0])

    def test_leastLoaded(self) -> None:
        """
        When none is idle the least loaded one with room is taken, and none when all are full.
        """
        world = World(maximum=2, depth=2)
        first, second = world.established(2)
        taken = [world.ask().record for _ in range(3)]
        self.assertEqual(sorted([first.load, second.load]), [1, 2])
        taken.append(world.ask().record)
        self.assertEqual([taken.count(first), taken.count(second)], [2, 2])
        self.assertIsNone(world.state.pick())

    def test_together(self) -> None:
        """
        A connection that has yet to send what it was given is given more, within bounds, though others are idle. What
        comes later goes elsewhere.
        """
        world = World(maximum=2, depth=100)
        first, second = world.established(2)
        chosen = world.ask().record
        assert chosen is not None
        other = second if chosen is first else first
        chosen.connection.sending = True
        self.assertEqual({world.ask().record for _ in range(TOGETHER - 1)}, {chosen})
        self.assertIs(world.ask().record, other)
        other.connection.sending = True
        self.assertIs(world.ask().record, other)
        other.connection.sending = False
        other.load += TOGETHER
        self.assertIs(world.ask().record, chosen)

    def test_togetherInVain(self) -> None:
        """
        That is not for somebody who wants a connection alone, nor where there is no room, nor for one that is idle
        again, or gone.
        """
        world = World(maximum=2, depth=2)
        first, second = world.established(2)
        request = world.ask()
        chosen = request.record
        assert chosen is not None
        other = second if chosen is first else first
        chosen.connection.sending = True
        lease = world.ask(True)
        self.assertIs(lease.record, other)
        world.end(lease)
        self.assertEqual([world.ask().record for _ in range(2)], [chosen, other])
        chosen.load = 0
        world.do(world.state.hasCapacity(chosen, world.now))
        self.assertIs(world.ask().record, chosen)
        other.load = 0
        world.do(world.admin.setLimits(replace(world.state.limits, depth=1), world.now))
        self.assertIs(world.state.pick(), None)
        world.do(world.state.hasCapacity(other, world.now))
        world.lose(chosen)
        self.assertIs(world.ask().record, other)

    def test_exclusive(self) -> None:
        """
        A connection for one alone is an idle one, and has room for nobody else.
        """
        world = World(maximum=1, depth=4)
        world.established()
        request = world.ask()
        lease = world.ask(True)
        self.assertIsNone(lease.record)
        world.end(request)
        self.assertIsNotNone(lease.record)
        self.assertIsNone(world.ask().record)
        self.assertEqual(world.state.stats().inFlight, 4)

    def test_easedTwice(self) -> None:
        """
        To say twice that a connection carries nothing does not make it two.
        """
        world = World()
        (record,) = world.established()
        world.do(world.state.hasCapacity(record, world.now))
        self.assertIs(world.ask().record, record)
        self.assertIsNone(world.state.pick())


class WaitTests(SynchronousTestCase):
    """
    Tests for waiters.
    """

    def test_order(self) -> None:
        """
        Waiters are served in the order in which they came, and no newcomer before them.
        """
        world = World(maximum=1)
        world.established()
        waiters = [world.ask() for _ in range(4)]
        for waiter, following in pairwise(waiters):
            self.assertIsNone(following.record)
            world.end(waiter)
            self.assertIsNotNone(following.record)
            self.assertIsNone(world.ask().record)

    def test_exhausted(self) -> None:
        """
        Who waits for too long is told that all connections are busy.
        """
        world = World(maximum=1, waitTimeout=2.0)
        world.established()
        world.ask()
        waiter = world.ask()
        world.advance(1.9)
        self.assertIsNone(waiter.error)
        world.advance(0.2)
        assert isinstance(waiter.error, PoolTimeout)
        self.assertEqual(waiter.error.phase, "wait")
        self.assertEqual(waiter.error.stats.waiting, 1)
        self.assertIsNone(waiter.error.__cause__)
        expected = "timed out waiting for a connection (1 of 1 connections busy, 0 idle, 0 dialing, 1 waiting)"
        self.assertEqual(str(waiter.error), expected)
        self.assertEqual(world.state.counters.timedOut, 1)

    def test_serverDown(self) -> None:
        """
        Who waits for too long is told of the server that is down, with the failure as the cause.
        """
        world = World(waitTimeout=0.05).start()
        waiter = world.ask()
        world.refuse()
        world.advance(0.06)
        self.assertEqual(str(waiter.error), "timed out waiting for a connection (server0: connection refused)")
        assert waiter.error is not None
        self.assertIs(waiter.error.__cause__, REFUSED)

    def test_forEver(self) -> None:
        """
        Without a time for it, waiters wait.
        """
        world = World(maximum=1, waitTimeout=None)
        world.established()
        world.ask()
        waiter = world.ask()
        self.assertIsNone(world.state.due(world.now))
        world.advance(1e9)
        self.assertIsNone(waiter.error)

    def test_full(self) -> None:
        """
        No more than so many may wait.
        """
        world = World(maximum=1, maxWaiting=2)
        world.established()
        waiters = [world.ask() for _ in range(4)]
        self.assertEqual([type(waiter.error) for waiter in waiters], [type(None)] * 3 + [PoolFull])
        self.assertEqual(world.state.counters.rejected, 1)
        self.assertEqual(world.state.waiters.count, 2)


class EndTests(SynchronousTestCase):
    """
    Tests for stopping, and starting again.
    """

    def test_stop(self) -> None:
        """
        Who waits is refused, idle connections are closed, busy ones when they carry nothing, and nobody is served.
        """
        world = World(maximum=2, idleTimeout=9, maxLifetime=9)
        records = world.established(2)
        busy = world.ask(), world.ask()
        world.end(busy[0])
        waiters = world.ask(), world.ask()
        world.do(world.state.stop())
        self.assertIsNone(waiters[0].error)  # it was served
        self.assertEqual((type(waiters[1].error), str(waiters[1].error)), (PoolClosed, "the pool was closed"))
        self.assertIsInstance(world.ask().error, PoolClosed)
        world.end(waiters[0])
        world.end(busy[1])
        self.assertEqual(set(world.closes), set(records))
        self.assertIsNone(world.state.due(world.now))

    def test_dialsGivenUp(self) -> None:
        """
        A dial given up because the pool closes says nothing about the server, and brings no other.
        """
        world = World(2, minimum=2, maximum=2).start()
        world.do(world.state.stop())
        world.refuse()
        world.refuse()
        self.assertEqual((world.dials, world.state.records), ([], []))
        self.assertTrue(all(server.up for server in world.state.servers))
        self.assertEqual(world.state.counters.dialFailures, 0)

    def test_again(self) -> None:
        """
        A pool that was stopped can be started again.
        """
        world = World(minimum=1)
        (record,) = world.established()
        world.do(world.state.stop())
        world.lose(record)
        world.start()
        world.accept()
        self.assertIsNotNone(world.ask().record)


class ChangeTests(SynchronousTestCase):
    """
    Tests for other bounds, and for replacing all connections.
    """

    def test_smaller(self) -> None:
        """
        Connections above a smaller bound are closed, idle ones first and busy ones when they carry nothing.
        """
        world = World(maximum=4)
        records = world.established(4)
        waiters = [world.ask() for _ in range(3)]
        world.do(world.admin.setLimits(Limits(maximum=2, idleTimeout=0, maxLifetime=0), world.now))
        self.assertEqual([record.load for record in world.closes], [0])
        self.assertEqual(sorted(world.phases), [OPEN, OPEN, RETIRING, RETIRING])
        for waiter in waiters:
            world.end(waiter)
        self.assertEqual(len(world.closes), 2)
        for record in list(world.closes):
            self.assertIn(record, records)
            world.lose(record)
        self.assertEqual((world.phases, world.dials), ([OPEN, OPEN], []))

    def test_smallerThanDialed(self) -> None:
        """
        Dials in progress that are above a smaller bound end with their connection being closed.
        """
        world = World(3, maximum=6)
        world.established(3)
        for _ in range(6):
            world.ask()
        self.assertEqual(len(world.dials), 3)
        world.do(world.admin.setLimits(Limits(maximum=3, idleTimeout=0, maxLifetime=0), world.now))
        while world.dials:
            world.accept()
        for record in list(world.closes):
            world.lose(record)
        self.assertEqual((world.phases, world.dials), ([OPEN] * 3, []))

    def test_larger(self) -> None:
        """
        A larger bound lets those who wait have dials.
        """
        world = World(maximum=1)
        world.established()
        world.ask()
        waiter = world.ask()
        self.assertEqual(world.dials, [])
        world.do(world.admin.setLimits(Limits(maximum=2), world.now))
        world.accept()
        self.assertIsNotNone(waiter.record)

    def test_depth(self) -> None:
        """
        Another depth is in force on the connections there are, and on those held back when they come again.
        """
        world = World(maximum=2)
        first, second = world.established(2)
        world.state.connections.hold(second)
        world.do(world.admin.setLimits(Limits(maximum=2, depth=5), world.now))
        world.state.connections.unhold(second, world.now)
        self.assertEqual([first.depth, second.depth], [5, 5])

    def test_expire(self) -> None:
        """
        All connections are replaced, dials in progress too.
        """
        world = World(minimum=2, maximum=2).start()
        first = world.accept()
        (dial,) = world.dials
        world.do(world.admin.expire(world.now))
        self.assertEqual(world.closes, [first])
        world.accept(dial)
        self.assertEqual(world.closes, [first, dial])
        world.lose(first)
        world.lose(dial)
        world.accept()
        world.accept()
        self.assertEqual((world.phases, world.state.counters.closed), ([OPEN, OPEN], 2))


class HoldTests(SynchronousTestCase):
    """
    Tests for connections whose server does not read.
    """

    def test_hold(self) -> None:
        """
        A connection that is held back gets nothing more, and serves who waits when it is not any more.
        """
        world = World(maximum=1, depth=4)
        (record,) = world.established()
        first = world.ask()
        world.state.connections.hold(record)
        waiter = world.ask()
        self.assertEqual((waiter.record, record.phase), (None, HELD))
        world.end(first)
        self.assertIsNone(waiter.record)
        world.state.connections.unhold(record, world.now)
        world.do([])
        self.assertIs(waiter.record, record)

    def test_idleAgain(self) -> None:
        """
        One that carries nothing when it is not held any more is idle, and ages as others do.
        """
        world = World(idleTimeout=10)
        (record,) = world.established()
        waiter = world.ask()
        world.state.connections.hold(record)
        world.end(waiter)
        world.advance(60)
        world.state.connections.unhold(record, world.now)
        world.advance(9)
        self.assertEqual(world.closes, [])
        world.advance(2)
        self.assertEqual(world.closes, [record])

    def test_lostOrRetired(self) -> None:
        """
        Once a connection is lost or to be closed, it is not to be had by being held no more.
        """
        world = World()
        first, second = world.established(2)
        for record in (first, second):
            world.state.connections.hold(record)
        world.lose(first)
        world.do(world.state.connections.discard(second, "enough"))
        for record in (first, second):
            world.state.connections.unhold(record, world.now)
        self.assertEqual((first.phase, second.phase, world.state.pick()), (GONE, RETIRING, None))


class CheckTests(SynchronousTestCase):
    """
    Tests for checking connections.
    """

    def doubtful(self, count: int = 1, **limits: Any) -> tuple[World, list[Record]]:
        """
        Have connections that were idle for too long to be trusted.
        """
        world = World(checkIfIdleFor=1.0, **limits)
        records = world.established(count)
        world.advance(2)
        world.state.doubt(world.now)
        return world, records

    def test_fresh(self) -> None:
        """
        A connection that was used a moment ago is used without a check.
        """
        world = World(checkIfIdleFor=1.0)
        world.established()
        world.advance(0.9)
        world.state.doubt(world.now)
        self.assertIsNotNone(world.ask().record)
        self.assertEqual(world.checks, [])

    def test_lives(self) -> None:
        """
        One that was not is checked first, and used when it lives.
        """
        world, (record,) = self.doubtful()
        waiter = world.ask()
        self.assertEqual((waiter.record, world.checks, world.dials), (None, [record], []))
        world.state.connections.checked(record, world.now)
        world.do([])
        self.assertIs(waiter.record, record)

    def test_dead(self) -> None:
        """
        If it does not live it is closed, and the next one is checked, or one is dialed.
        """
        world, records = self.doubtful(2)
        waiter = world.ask()
        for count in (1, 2):
            record = world.checks[-1]
            world.do(world.state.connections.discard(record, "dead") + world.state.grow(world.now))
            self.assertEqual(len(world.closes), count)
        self.assertEqual(set(world.checks), set(records))
        world.accept()
        self.assertIsNotNone(waiter.record)

    def test_oneEach(self) -> None:
        """
        As many are checked as there are requests for them, not all; no dial begins meanwhile.
        """
        world, _ = self.doubtful(3)
        first = world.ask()
        self.assertEqual(len(world.checks), 1)
        second = world.ask()
        self.assertEqual((len(world.checks), world.dials), (2, []))
        for record in world.checks:
            world.state.connections.checked(record, world.now)
        world.do([])
        self.assertTrue(first.record and second.record)
        self.assertEqual(world.state.stats().idle, 1)

    def test_lost(self) -> None:
        """
        A connection that is lost while it is checked, or in doubt, is gone.
        """
        world, (first, second) = self.doubtful(2)
        world.ask()
        (checked,) = world.checks
        (doubted,) = {first, second} - {checked}
        self.assertEqual((checked.phase, doubted.phase), (CHECKING, DOUBTFUL))
        world.lose(checked)
        world.state.connections.checked(checked, world.now)
        self.assertEqual(world.checks[-1], doubted)
        world.lose(doubted)
        self.assertEqual((checked.phase, doubted.phase), (GONE, GONE))
        self.assertEqual(len(world.dials), 1)

    def test_idle(self) -> None:
        """
        A check is no use: connections in doubt are closed when they were idle for long, no fewer than are kept.
        """
        world, _ = self.doubtful(3, minimum=1, idleTimeout=10)
        world.advance(9)
        self.assertEqual(len(world.closes), 2)

    def test_keepAlive(self) -> None:
        """
        An idle connection is checked that often, and used meanwhile only if there is need.
        """
        world = World(keepAlive=10)
        (record,) = world.established()
        for _ in range(3):
            world.advance(9)
            self.assertEqual(world.checks, [])
            world.advance(1)
            self.assertEqual(world.checks, [record])
            world.checks.clear()
            world.state.connections.checked(record, world.now)

    def test_keepAliveBusy(self) -> None:
        """
        A connection in use needs no check, nor one that was used meanwhile.
        """
        world = World(keepAlive=10)
        world.established()
        waiter = world.ask()
        world.advance(25)
        world.end(waiter)
        world.advance(9)
        self.assertEqual(world.checks, [])
        world.advance(11)
        self.assertEqual(len(world.checks), 1)

    def test_keptAliveAges(self) -> None:
        """
        What is kept alive is closed all the same when it was not used for long.
        """
        world = World(keepAlive=10, idleTimeout=35)
        (record,) = world.established()
        for _ in range(3):
            world.advance(10)
            world.state.connections.checked(world.checks.pop(), world.now)
        world.advance(5)
        self.assertEqual(world.closes, [record])


class AgeTests(SynchronousTestCase):
    """
    Tests for connections that are idle for long or old.
    """

    def test_idle(self) -> None:
        """
        What is idle for long is closed, the longest first, down to what is kept open.
        """
        world = World(maximum=3, minimum=1, idleTimeout=10)
        records = world.established(3)
        last = world.ask()
        world.advance(8)
        world.end(last)
        world.advance(3)
        self.assertEqual(set(world.closes), set(records) - {last.record})
        world.advance(100)
        self.assertEqual(len(world.closes), 2)

    def test_idleLater(self) -> None:
        """
        One that was busy when the others were looked at is looked at in its turn.
        """
        world = World(maximum=2, idleTimeout=10)
        world.established(2)
        waiter = world.ask()
        world.advance(12)
        self.assertEqual(len(world.closes), 1)
        world.end(waiter)
        world.advance(25)
        self.assertEqual(len(world.closes), 2)

    def test_old(self) -> None:
        """
        An old connection is replaced, and one in use is never cut.
        """
        world = World(maximum=2, minimum=2, maxLifetime=100)
        world.established(2)
        waiter = world.ask()
        world.advance(101)
        (closed,) = world.closes
        self.assertIsNot(closed, waiter.record)
        world.advance(100)
        self.assertEqual(world.closes, [closed])
        world.end(waiter)
        self.assertEqual(world.closes, [closed, waiter.record])

    def test_spread(self) -> None:
        """
        Connections made in one moment do not end in one.
        """
        state = PoolState(Limits(maximum=100, minimum=100, idleTimeout=0, maxLifetime=3600))
        state.servers += [Server("server", None)]
        (dial,) = state.start(0)
        for _ in range(100):
            assert isinstance(dial, Dial)
            (dial, *_) = [*state.dialed(dial.record, None, 0), None]
        ends = sorted(record.expires for record in state.records)
        self.assertGreaterEqual(ends[0], 3600 * 0.95)
        self.assertLessEqual(ends[-1], 3600)
        crowd = max(sum(1 for end in ends if start <= end < start + 1) for start in ends)
        self.assertLess(crowd, 20)

    def test_both(self) -> None:
        """
        A pool at work with every kind of ageing is always called at a time to come.
        """
        world = World(maximum=3, minimum=1, idleTimeout=7, maxLifetime=11, keepAlive=3, checkIfIdleFor=1)
        world.established(3)
        for step in range(60):
            world.state.doubt(world.now)
            waiter = world.ask()
            world.advance(0.7 * (step % 7))
            for record in list(world.checks):
                world.checks.remove(record)
                world.state.connections.checked(record, world.now)
            world.do([])
            while world.dials:
                world.accept()
            if waiter.record is not None:
                world.end(waiter)
            for record in list(world.closes):
                world.lose(record)
            self.assertLessEqual(len(world.state.records), 3)
        self.assertGreater(world.state.counters.closed, 5)


class Machine(RuleBasedStateMachine):
    """
    Whatever happens to a pool in whatever order: what must always hold does.

    @ivar queue: who waits, in order.
    @ivar flight: who has a connection.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            2, maximum=4, minimum=1, depth=2, maxWaiting=5, waitTimeout=4.0, idleTimeout=6.0, maxLifetime=20.0,
            whenDown=2, checkIfIdleFor=2.0, keepAlive=5.0,
        )  # fmt: skip
        self.state = self.world.start().state
        self.queue: list[Waiter] = []
        self.flight: list[Waiter] = []
        self.asked = 0
        self.closedOut = 0
        self.dialed = self.state.counters.dials

    def pick(self, things: list[Any], index: int) -> Any:
        """
        @return: one of them.
        """
        return things[index % len(things)]

    def settle(self) -> None:
        """
        See what has become of those who waited: the served ones must have stood before the others.
        """
        served = [waiter for waiter in self.queue if waiter.record is not None]
        waiting = [waiter for waiter in self.queue if waiter.record is None and waiter.error is None]
        if served and waiting:
            assert self.queue.index(served[-1]) < self.queue.index(waiting[0]), "overtaken"
        self.closedOut += sum(1 for waiter in self.queue if isinstance(waiter.error, PoolClosed))
        self.queue = waiting
        self.flight += served

    # -- Those who ask

    @rule(exclusive=st.booleans())
    def request(self, exclusive: bool) -> None:
        """
        Somebody asks, for room or for a connection alone.
        """
        self.asked += 1
        self.state.doubt(self.world.now)
        waiter = self.world.ask(exclusive)
        self.queue.append(waiter)
        assert waiter.record is None or len(self.queue) == 1, "a newcomer overtook"

    @precondition(lambda self: self.flight)
    @rule(index=st.integers(0, 99))
    def end(self, index: int) -> None:
        """
        A reply comes, or a failure, or a lease is given back.
        """
        waiter = self.pick(self.flight, index)
        self.flight.remove(waiter)
        self.world.end(waiter)

    @precondition(lambda self: self.queue)
    @rule(index=st.integers(0, 99))
    def cancel(self, index: int) -> None:
        """
        Somebody gives up.
        """
        waiter = self.pick(self.queue, index)
        self.queue.remove(waiter)
        self.state.waiters.leave(waiter.ticket)
        self.world.do([])

    # -- Servers and connections

    @precondition(lambda self: self.world.dials)
    @rule(index=st.integers(0, 99), good=st.booleans())
    def dialEnds(self, index: int, good: bool) -> None:
        """
        A dial succeeds or fails.
        """
        record = self.pick(self.world.dials, index)
        if good:
            self.world.accept(record)
        else:
            self.world.refuse(record)

    @precondition(lambda self: self.state.connections.connected)
    @rule(index=st.integers(0, 99))
    def lose(self, index: int) -> None:
        """
        A connection is lost, with what it carries.
        """
        record = self.pick([record for record in self.state.records if record.phase is not DIALING], index)
        self.flight = [waiter for waiter in self.flight if waiter.record is not record]
        if record in self.world.checks:
            self.world.checks.remove(record)
        self.world.lose(record)

    @precondition(lambda self: self.world.checks)
    @rule(index=st.integers(0, 99), good=st.booleans())
    def checkEnds(self, index: int, good: bool) -> None:
        """
        A connection lives, or does not.
        """
        record = self.pick(self.world.checks, index)
        self.world.checks.remove(record)
        if good:
            self.state.connections.checked(record, self.world.now)
        discarded = [] if good else self.state.connections.discard(record, "dead")
        self.world.do(discarded + self.state.grow(self.world.now))

    @precondition(lambda self: self.state.connections.connected)
    @rule(index=st.integers(0, 99), sending=st.booleans())
    def sends(self, index: int, sending: bool) -> None:
        """
        A connection has something to send, or has sent it.
        """
        record = self.pick([record for record in self.state.records if record.phase is not DIALING], index)
        record.connection.sending = sending

    @precondition(lambda self: self.state.connections.connected)
    @rule(index=st.integers(0, 99), hold=st.booleans())
    def reads(self, index: int, hold: bool) -> None:
        """
        A server stops to read, or reads again.
        """
        record = self.pick(self.state.records, index)
        if hold:
            self.state.connections.hold(record)
        else:
            self.state.connections.unhold(record, self.world.now)
        self.world.do([])

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.3, 1.5, 3.0, 7.0, 30.0]))
    def advance(self, seconds: float) -> None:
        """
        Time passes.
        """
        self.world.advance(seconds)

    # -- Those who run the pool

    @rule(minimum=st.integers(0, 2), more=st.integers(1, 4), depth=st.integers(1, 3))
    def resize(self, minimum: int, more: int, depth: int) -> None:
        """
        Other bounds are put in force.
        """
        limits = {**vars(self.state.limits), "minimum": minimum, "maximum": minimum + more, "depth": depth}
        self.world.do(self.world.admin.setLimits(Limits(**limits), self.world.now))

    @rule()
    def expire(self) -> None:
        """
        All connections are to be replaced.
        """
        self.world.do(self.world.admin.expire(self.world.now))

    @precondition(lambda self: len(self.state.servers) < 3)
    @rule()
    def addServer(self) -> None:
        """
        A server is added.
        """
        self.world.do(self.world.admin.addServer(Server("another", None), self.world.now))

    @precondition(lambda self: self.state.servers)
    @rule(index=st.integers(0, 99))
    def removeServer(self, index: int) -> None:
        """
        A server is removed.
        """
        self.world.do(self.world.admin.removeServer(self.pick(self.state.servers, index), self.world.now))

    @precondition(lambda self: self.state.servers)
    @rule(index=st.integers(0, 99), drain=st.booleans())
    def drain(self, index: int, drain: bool) -> None:
        """
        A server is drained, or restored.
        """
        server = self.pick(self.state.servers, index)
        self.world.do((self.world.admin.drain if drain else self.world.admin.restore)(server, self.world.now))

    @rule(pause=st.booleans())
    def pause(self, pause: bool) -> None:
        """
        The pool is paused, or goes on.
        """
        if pause:
            self.world.admin.pause(self.world.now)
        else:
            self.world.do(self.world.admin.resume(self.world.now))

    @precondition(lambda self: self.state.running)
    @rule()
    def close(self) -> None:
        """
        The pool closes: dials are given up, what carries nothing is closed.
        """
        self.world.do(self.state.stop())
        while self.world.dials:
            self.world.refuse()

    @precondition(lambda self: not self.state.running)
    @rule()
    def open(self) -> None:
        """
        It begins again.
        """
        self.world.start()

    # -- What must hold

    @invariant()
    def bounded(self) -> None:
        """
        No dial begins beyond the limit on connections.
        """
        self.settle()
        records = self.state.records
        if self.state.counters.dials > self.dialed:
            assert len(records) <= self.state.limits.maximum
        self.dialed = self.state.counters.dials

    @invariant()
    def oneState(self) -> None:
        """
        The collections and numbers of the pool agree with its records and with the actions carried out.
        """
        self.state.selfCheck(self.world.now)
        records = self.state.records
        assert sorted(self.world.dials, key=id) == sorted(
            (record for record in records if record.phase is DIALING), key=id
        )
        closing = [record for record in records if record.phase is RETIRING and not record.load]
        assert sorted(self.world.closes, key=id) == sorted(closing, key=id)

    @invariant()
    def loads(self) -> None:
        """
        A connection carries what was put on it; a lease carries nothing beside.
        """
        for record in self.state.records:
            mine = [waiter for waiter in self.flight if waiter.record is record]
            assert record.load == sum(waiter.load for waiter in mine)
            assert len(mine) <= 3

    @invariant()
    def noLostWakeUp(self) -> None:
        """
        The pool knows all waiters, and their deadlines.
        """
        state = self.state
        assert state.waiters.count == len(self.queue)
        assert state.waiters.exclusive == bool(self.queue and self.queue[0].exclusive)
        if self.queue and not state.paused:
            due = state.due(self.world.now)
            assert due is not None and due <= self.world.now + 4.0

    @invariant()
    def counted(self) -> None:
        """
        Whoever asked has got a connection, or an answer, or waits.
        """
        each = self.state.counters
        known = each.acquired + each.timedOut + each.cancelled + each.rejected + each.unavailable
        assert known + self.state.waiters.count + self.closedOut == self.asked

    def teardown(self) -> None:
        """
        At the end nothing is left.
        """
        if self.state.running:
            self.close()
        self.settle()
        assert not self.queue
        for waiter in self.flight:
            self.world.end(waiter)
        for record in list(self.world.closes):
            self.world.lose(record)
        for record in [record for record in self.state.records if record.phase is HELD]:
            self.world.lose(record)
        state = self.state
        assert (state.records, state.waiters.count) == ([], 0)
        state.selfCheck(self.world.now)
        assert state.due(self.world.now) is None and not self.world.dials


class SelfCheckTests(SynchronousTestCase):
    """
    Tests for L{PoolState.selfCheck}.
    """

    def assertBroken(self, text: str, breakIt: Callable[[World, Record], object]) -> None:
        """
        Assert that a check fails with a text when a sound pool is changed.
        """
        world = World(depth=2)
        (record,) = world.established()
        world.state.selfCheck(world.now)
        breakIt(world, record)
        self.assertIn(text, str(self.assertRaises(AssertionError, world.state.selfCheck, world.now)))

    def test_broken(self) -> None:
        """
        The error names the broken invariant.
        """

        def setLoad(world: World, record: Record) -> None:
            record.load = 1

        def setCount(world: World, record: Record) -> None:
            record.server.count = 2

        def setPhase(world: World, record: Record) -> None:
            record.phase = CHECKING

        def forgetDial(world: World, record: Record) -> None:
            world.state.connections.add(record.server)
            world.state.connections.dialing = 0

        def wait(world: World, record: Record) -> None:
            world.state.enqueue(Waiter(), world.now)

        for text, breakIt in (
            ("are listed as idle", setLoad),
            ("has ['open']", setCount),
            ("counted as checking", setPhase),
            ("counted as dialing", forgetDial),
            ("waiters, but idle connections", wait),
        ):
            self.assertBroken(text, breakIt)


class MachineTests(SynchronousTestCase):
    """
    Runs L{Machine}.
    """

    def test_anything(self) -> None:
        """
        The invariants hold after every step of many random histories.
        """
        run_state_machine_as_test(Machine, settings=settings(max_examples=150, stateful_step_count=60, deadline=None))
