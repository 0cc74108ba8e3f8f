# Copyright txconnpool contributors. See LICENSE.
"""
A stand-in for everything around a L{PoolState}, for tests of decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from txconnpool.errors import PoolError
from txconnpool.pool.decisions.actions import Action, Check, Close, Dial
from txconnpool.pool.decisions.administration import Administration
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.records import Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.pool.decisions.state import PoolState

REFUSED = ConnectionRefusedError("refused")


class Waiter:
    """
    A caller that asks for a connection.

    @ivar record: the record of the connection that it was granted.
    @ivar error: the error with which it was refused.
    @ivar load: the load that it adds to its connection.
    """

    def __init__(self, exclusive: bool = False) -> None:
        self.exclusive = exclusive
        self.ticket: Any = None
        self.record: Record | None = None
        self.error: PoolError | None = None
        self.load = 0

    def granted(self, record: Record) -> None:
        """
        Add load at once.
        """
        assert self.record is None and self.error is None
        self.record = record
        self.load = record.depth if self.exclusive else 1
        record.load += self.load


class FakeConnection:
    """
    A connection that keeps its load itself.
    """

    def __init__(self) -> None:
        self.outlet = SimpleNamespace(queued=False)


class World:
    """
    A L{PoolState} and its surroundings. Actions are only collected; the test reports their results.

    @ivar admin: changes to the pool.
    @ivar now: the time.
    @ivar dials: the records with a dial in progress.
    @ivar checks: the records with a check in progress.
    @ivar closes: the records whose connections are being closed.
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
        Collect actions, and serve waiters.
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
        record = None if state.waiters.count else state.connections.pick(exclusive)
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
        C{waiter} releases its connection.
        """
        record = waiter.record
        assert record is not None
        record.load -= waiter.load
        self.do([] if record.load else self.state.connections.hasCapacity(record, self.now))

    def start(self) -> World:
        """
        Start the pool.
        """
        self.do(self.state.start(self.now))
        return self

    def accept(self, record: Record | None = None) -> Record:
        """
        A dial succeeds: the oldest one if not given.
        """
        record = record or self.dials[0]
        self.dials.remove(record)
        record.weight = 0
        self.do(self.state.dialed(record, FakeConnection(), self.now))
        return record

    def refuse(self, record: Record | None = None) -> None:
        """
        A dial fails: the oldest one if not given.
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
        Advance the time, and call L{PoolState.tick} when it is due.
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
        Start the pool with a number of established connections.
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
