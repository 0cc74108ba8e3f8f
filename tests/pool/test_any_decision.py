# Copyright txconnpool contributors. See LICENSE.
"""
A state machine test of the decisions: random histories of events, and the invariants after each.
"""

from __future__ import annotations

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

from tests.pool.world import Waiter, World
from txconnpool.errors import PoolClosed
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.reasons import CHECK_FAILED
from txconnpool.pool.decisions.records import DIALING, HELD, RETIRING
from txconnpool.pool.decisions.servers import Server


class Machine(RuleBasedStateMachine):
    """
    Random events in random order. The invariants are checked after each.

    @ivar queue: the waiters, in order.
    @ivar flight: the callers that have a connection.
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
        @return: one of C{things}.
        """
        return things[index % len(things)]

    def settle(self) -> None:
        """
        Sort out waiters that have a result. The served ones must have been before those that still wait.
        """
        served = [waiter for waiter in self.queue if waiter.record is not None]
        waiting = [waiter for waiter in self.queue if waiter.record is None and waiter.error is None]
        if served and waiting:
            assert self.queue.index(served[-1]) < self.queue.index(waiting[0]), "overtaken"
        self.closedOut += sum(1 for waiter in self.queue if isinstance(waiter.error, PoolClosed))
        self.queue = waiting
        self.flight += served

    # -- Callers

    @rule(exclusive=st.booleans())
    def request(self, exclusive: bool) -> None:
        """
        A caller asks for a connection, exclusive or not.
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
        A request or lease ends.
        """
        waiter = self.pick(self.flight, index)
        self.flight.remove(waiter)
        self.world.end(waiter)

    @precondition(lambda self: self.queue)
    @rule(index=st.integers(0, 99))
    def cancel(self, index: int) -> None:
        """
        A waiter gives up.
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
        A connection is lost, with its requests.
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
        A check succeeds or fails.
        """
        record = self.pick(self.world.checks, index)
        self.world.checks.remove(record)
        if good:
            self.state.connections.checked(record, self.world.now)
        discarded = [] if good else self.state.connections.discard(record, CHECK_FAILED)
        self.world.do(discarded + self.state.grow(self.world.now))

    @precondition(lambda self: self.state.connections.connected)
    @rule(index=st.integers(0, 99), sending=st.booleans())
    def sends(self, index: int, sending: bool) -> None:
        """
        A connection has pending writes, or has none any more.
        """
        record = self.pick([record for record in self.state.records if record.phase is not DIALING], index)
        record.connection.outlet.queued = sending

    @precondition(lambda self: self.state.connections.connected)
    @rule(index=st.integers(0, 99), hold=st.booleans())
    def reads(self, index: int, hold: bool) -> None:
        """
        A server stops reading, or reads again.
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

    # -- Operators

    @rule(minimum=st.integers(0, 2), more=st.integers(1, 4), depth=st.integers(1, 3))
    def resize(self, minimum: int, more: int, depth: int) -> None:
        """
        Other limits are applied.
        """
        limits = {**vars(self.state.limits), "minimum": minimum, "maximum": minimum + more, "depth": depth}
        self.world.do(self.world.admin.setLimits(Limits(**limits), self.world.now))

    @rule()
    def expire(self) -> None:
        """
        All connections are replaced.
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
        A server is drained or restored.
        """
        server = self.pick(self.state.servers, index)
        self.world.do((self.world.admin.drain if drain else self.world.admin.restore)(server, self.world.now))

    @rule(pause=st.booleans())
    def pause(self, pause: bool) -> None:
        """
        The pool is paused or resumed.
        """
        if pause:
            self.world.admin.pause(self.world.now)
        else:
            self.world.do(self.world.admin.resume(self.world.now))

    @precondition(lambda self: self.state.running)
    @rule()
    def close(self) -> None:
        """
        The pool is closed: its dials are cancelled.
        """
        self.world.do(self.state.stop())
        while self.world.dials:
            self.world.refuse()

    @precondition(lambda self: not self.state.running)
    @rule()
    def open(self) -> None:
        """
        The pool is started again.
        """
        self.world.start()

    # -- Invariants

    @invariant()
    def bounded(self) -> None:
        """
        No dial begins beyond the limit on connections.
        """
        self.settle()
        records = self.state.records
        if self.state.counters.dials > self.dialed:
            assert len(records) <= self.state.limits.maximum + 1  # one that is replaced and its successor
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
        The load of a connection is that of its callers; a lease shares its connection with no request.
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
        Each caller is counted once: as one that got a connection, or an error, or waits.
        """
        each = self.state.counters
        known = each.acquired + each.timedOut + each.cancelled + each.rejected + each.unavailable
        assert known + self.state.waiters.count + self.closedOut == self.asked

    def teardown(self) -> None:
        """
        After the end nothing is left.
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


class MachineTests(SynchronousTestCase):
    """
    Runs L{Machine}.
    """

    def test_anything(self) -> None:
        """
        The invariants hold after every step of many random histories.
        """
        run_state_machine_as_test(Machine, settings=settings(max_examples=150, stateful_step_count=60, deadline=None))
