# -*- test-case-name: tests.pool.test_engine -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Carries out the decisions of a pool on a reactor: dials, timers, checks and the closing of connections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.errors import LoginRefused, TooManyConnections
from txconnpool.interfaces import IPipelined
from txconnpool.metrics import Reason, tally
from txconnpool.net.deadlines import Deadlines
from txconnpool.net.reasons import describe, kindOf
from txconnpool.pool.containment import contain
from txconnpool.pool.decisions.actions import Action, Check, Close, Dial, Refuse
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.reasons import CHECK_FAILED, CLOSED
from txconnpool.pool.decisions.records import RETIRING, Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.pool.decisions.shared import Shared
from txconnpool.pool.decisions.state import PoolState
from txconnpool.pool.dialing import Attempt
from txconnpool.pool.errands import Errands

_log = Logger("txconnpool.pool")


class Executor:
    """
    A L{PoolState} with a reactor: it carries out the actions, keeps one timer for all that is due, and reports the
    events of connections. L{txconnpool.pool.engine.PoolEngine} adds the methods for callers.

    @ivar name: the name of the pool in logs.
    @ivar reactor: the reactor of all connections and timers.
    @ivar state: the decisions, for reading: limits, records, servers, waiters.
    @ivar observer: an L{txconnpool.interfaces.IPoolObserver} that is notified of events, or C{None}.
    """

    # An object with more than thirty attributes in its __dict__ has slower ones. Subclasses may have that many.
    __slots__ = (
        "__dict__", "__weakref__", "_announces", "_attempts", "_check", "_connectTimeout", "_due", "_errands",
        "_factory", "_handshake", "_healthChanged", "_leaving", "_lookAgain", "_seconds", "_timer", "name", "observer",
        "reactor", "state",
    )  # fmt: skip

    def __init__(
        self,
        factory: Any,
        limits: Limits,
        reactor: Any,
        *,
        name: str = "pool",
        connectTimeout: float | None = 30.0,
        handshake: Callable[[Any], Any] | None = None,
        announces: bool = False,
        check: Callable[[Any], Any] | None = None,
        observer: Any = None,
        shared: Shared | None = None,
        healthChanged: Callable[[Server], object] | None = None,
        lookAgain: Callable[[], object] | None = None,
    ) -> None:
        """
        @param factory: makes the protocol instances, see L{_newFactory}.
        @param connectTimeout: seconds from the start of a dial until the connection must be ready; also the time for a
            check, and for a connection to end after it was closed. C{None}: no limit.
        @param handshake: called with each protocol instance when it is connected; may return a Deferred or an
            awaitable.
        @param announces: whether protocol instances report by themselves that they are connected.
        @param check: called with a protocol instance that is to be checked, see L{Limits}. The connection is alive
            unless this fails or returns C{False}. May return a Deferred or an awaitable.
        @param shared: what this pool shares with others, or C{None}.
        @param healthChanged: called when a dial to a server has succeeded or failed.
        @param lookAgain: called when the servers that are needed may be others now: a dial has failed, a connection was
            lost, or a server is a replica.
        """
        self.name = name
        self.reactor = reactor
        self.observer = observer
        self.state = PoolState(limits, shared=shared)
        self.state.waiters.failed = self._waiterFailed
        self._healthChanged = healthChanged
        self._lookAgain = lookAgain
        self._factory = factory
        self._connectTimeout = connectTimeout
        self._handshake = handshake
        self._announces = announces
        self._check = check
        self._seconds = reactor.seconds
        self._attempts: dict[Record, Attempt] = {}
        self._errands = Errands(reactor, connectTimeout)
        self._leaving = Deadlines(reactor, connectTimeout, self._abort)
        self._timer: IDelayedCall | None = None
        self._due = 0.0

    # -- Actions

    def _settle(self, actions: Sequence[Action], now: float) -> None:
        """
        Carry out actions, and serve waiters with the connections that may have capacity since.
        """
        self._do(actions, now)
        if self.state.waiters.count:
            self.state.waiters.serve(now)

    def _do(self, actions: Sequence[Action], now: float) -> None:
        """
        Carry out actions. Dials come first: refusing and closing call code of others, which may close the pool, and
        then all dials must be known.
        """
        for action in actions:
            if isinstance(action, Dial):
                self._dial(action.record)
        for action in actions:
            if isinstance(action, Close):
                self._close(action.record)
            elif isinstance(action, Check):
                assert self._check is not None, "the limits ask for checks, but there is none"
                self._errands.run(action.record, self._check, self._checked)
            elif isinstance(action, Refuse):
                self._notify("refused", action.error)
                try:
                    action.waiter.refused(action.error)
                except Exception:
                    contain(action.waiter)
        self._schedule(now)

    def _schedule(self, now: float) -> None:
        """
        Set the timer for the next time at which something is due. A timer that expires too early does no harm.
        """
        due = self.state.due(now)
        timer = self._timer
        if timer is not None and (due is None or due < self._due):
            timer.cancel()
            timer = self._timer = None
        if timer is None and due is not None:
            self._due = due
            self._timer = self.reactor.callLater(max(0.0, due - now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        # Not before the time that was scheduled: rounding may have put it slightly after that of the timer.
        now = max(self._due, self._seconds())
        self._settle(self.state.tick(now), now)

    def _waiterFailed(self, waiter: Any, record: Record) -> None:
        """
        End a waiter that has raised the current exception when it got a connection, which others use then.
        """
        contain(waiter)
        if not record.load:
            now = self._seconds()
            self._do(self.state.connections.hasCapacity(record, now), now)

    def _notify(self, event: str, *args: Any) -> None:
        """
        Notify the observer.

        @param event: a method of L{txconnpool.interfaces.IPoolObserver}.
        """
        if self.observer is not None:
            try:
                getattr(self.observer, event)(*args)
            except Exception:
                _log.failure("{pool}: the observer failed at {event}", pool=self.name, event=event)

    # -- Connections

    def _dial(self, record: Record) -> None:
        attempt = Attempt(record, self, self._newFactory, self.reactor, self._connectTimeout, self._handshake,
                          self._announces)  # fmt: skip
        self._attempts[record] = attempt
        attempt.start()
        record.server.traffic.dials += 1
        self._notify("dialing", record.server.name)

    def _newFactory(self, record: Record) -> Any:
        """
        @return: the factory that makes the protocol instance of C{record}. Its C{connectionPool} is this pool.
        """
        self._factory.connectionPool = self
        return self._factory

    def _close(self, record: Record) -> None:
        if record not in self._attempts or record in self._leaving.since:
            return
        if record.reason is not CLOSED:  # a cluster is asked with pools of their own, again and again
            _log.debug("{pool}: closing a connection to {server}: {reason}", pool=self.name,
                       server=record.server.name, reason=record.reason)  # fmt: skip
        self._leaving.add(record)
        self._attempts[record].close()

    def _abort(self, record: Record) -> None:
        if record in self._attempts:
            self._attempts[record].abort()

    def _checked(self, record: Record, fault: str) -> None:
        now = self._seconds()
        if fault:
            _log.debug("{pool}: a connection to {server} is not alive: {fault}", pool=self.name,
                       server=record.server.name, fault=fault)  # fmt: skip
            self.retire(record, CHECK_FAILED)
        else:
            self.state.connections.checked(record, now)
        self._settle(self.state.grow(now), now)

    def retire(self, record: Record, reason: Reason) -> None:
        """
        Give a connection no new requests, and close it as soon as it carries none.

        @param reason: for logs and statistics.
        """
        now = self._seconds()
        # A check that a waiter relies on may end by this, so another connection may be needed.
        self._do(self.state.connections.discard(record, reason) + self.state.grow(now), now)

    # -- Events of connections

    def connectionMade(self, record: Record, connection: Any) -> None:
        """
        The protocol instance of C{record} exists.
        """
        if IPipelined.providedBy(connection):
            connection.record = record
            record.weight = 0

    def connectionReady(self, record: Record, connection: Any) -> None:
        """
        The dial of C{record} succeeded.
        """
        server = record.server
        now = self._seconds()
        if not server.up and not server.refusesLogin:
            _log.info("{pool}: {server} is up again after {seconds:.1f} s", pool=self.name,
                      server=server.name, seconds=now - server.since)  # fmt: skip
        server.full = False
        if IPipelined.providedBy(connection):
            connection.established()
        self._notify("connected", server.name, connection)
        actions = self.state.dialed(record, connection, now)
        if self._healthChanged is not None:
            self._healthChanged(server)
        self._settle(actions, now)

    def dialFailed(self, record: Record, reason: BaseException) -> None:
        """
        The dial of C{record} failed.
        """
        server = record.server
        if self.state.running:
            if not isinstance(reason, LoginRefused):
                tally(server.traffic.dialFailures, kindOf(reason))
            self._notify("dialFailed", server.name, reason)
        del self._attempts[record]
        now = self._seconds()
        up = server.up
        actions = self.state.dialFailed(record, reason, describe(reason), now)
        self._logDown(server, up)
        self._logFull(server, reason)
        self._doubt()
        self._do(actions, now)
        self._checkClosed()

    def _logFull(self, server: Server, reason: BaseException) -> None:
        """
        Log that a server has as many connections as it accepts: once, until it accepts one again.
        """
        if isinstance(reason, TooManyConnections) and self.state.running and not server.full:
            server.full = True
            if server.up:
                _log.warn("{pool}: {server} accepts no more connections: too many connections; {count} are in use here",
                          pool=self.name, server=server.name, count=server.count)  # fmt: skip

    def connectionEnded(self, record: Record, connection: Any, reason: Failure) -> None:
        """
        The connection of C{record} has ended.
        """
        server = record.server
        if record.phase is RETIRING:
            text: str = record.reason
            tally(server.traffic.closed, record.reason.word)
        else:
            text = describe(reason.value)
            tally(server.traffic.lost, kindOf(reason.value))
            self._doubt()
        now = self._seconds()
        up = server.up
        served = connection.served if IPipelined.providedBy(connection) else record.served
        actions = self.state.lost(record, reason.value, text, now, served)
        self._logDown(server, up)
        del self._attempts[record]
        self._leaving.discard(record)
        try:
            connection.connectionLost(reason)
        finally:
            self._failPending(record)
            self._notify("disconnected", server.name, connection, text)
            self._do(actions, now)
            self._checkClosed()

    def _logDown(self, server: Server, wasUp: bool) -> None:
        if wasUp and not server.up and self.state.running and not server.refusesLogin:
            _log.warn("{pool}: {server} is down: {reason}", pool=self.name, server=server.name, reason=server.reason)
        if self._healthChanged is not None and server.failures:
            self._healthChanged(server)

    def _doubt(self) -> None:
        """
        The servers that are needed may be others now.
        """
        if self._lookAgain is not None and self.state.running:
            self._lookAgain()

    def _failPending(self, record: Record) -> None:
        """
        The connection of C{record} has ended, and its protocol instance was notified. Fail what still waits for it.
        """
        self._errands.cancel(record)

    def _checkClosed(self) -> None:
        """
        A connection or dial has ended. Subclasses look whether it was the last one of a pool that is closing.
        """

    # -- Tests

    def selfCheck(self) -> None:
        """
        Check all invariants that hold between events. For tests.

        @raise AssertionError: one is broken. The text names it.
        """
        now = self._seconds()
        self.state.selfCheck(now)
        records = set(self.state.records)
        assert set(self._attempts) == records, f"connections {set(self._attempts)}, but records {records}"
        assert self._errands.records <= records, f"checks or resets without a record: {self._errands.records}"
        for record in self._leaving.since:
            assert record in records and record.phase is RETIRING, f"is being closed: {record}"
        due = self.state.due(now)
        assert self._timer is None or self.state.running, "a timer of a pool that is not running"
        if due is not None:
            assert self._timer is not None, f"due at {due}, but no timer"
            assert self._timer.getTime() <= max(due, now) + 0.001, f"due at {due}, timer at {self._timer.getTime()}"
