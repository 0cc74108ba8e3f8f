# -*- test-case-name: tests.pool.test_engine -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The decisions of L{txconnpool.pool.decisions.state} carried out: dials, timers and closing, on a reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.errors import PoolClosed
from txconnpool.interfaces import IPipelined
from txconnpool.metrics import Counters, PoolStats, Traffic, tally
from txconnpool.net.deadlines import Deadlines
from txconnpool.net.endpoints import nameOf
from txconnpool.pool.decisions.actions import Action, Check, Close, Dial, Refuse
from txconnpool.pool.decisions.administration import Administration
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.records import RETIRING, Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.pool.decisions.state import PoolState
from txconnpool.pool.decisions.waiting import Ticket
from txconnpool.pool.dialing import Attempt, describe, endpointOf, kindOf

_log = Logger("txconnpool.pool")


class PoolEngine:
    """
    A bounded set of connections to equal servers, shared by whoever asks.

    L{txconnpool.pool.library.Pool} is what programs use. This is what it, the sessions and the connections stand on.

    @ivar name: for logs.
    @ivar reactor: of all connections.
    @ivar waiters: those who wait for a connection.
    @ivar observer: an L{txconnpool.interfaces.IPoolObserver} who is told what happens, or C{None}.
    """

    # An object with more than thirty attributes of its own pays for each use of one. Subclasses may have thirty more.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_administration",
        "_again",
        "_announces",
        "_attempts",
        "_checkClient",
        "_closing",
        "_commands",
        "_connectTimeout",
        "_deadline",
        "_due",
        "_errands",
        "_factory",
        "_handshake",
        "_leaving",
        "_seconds",
        "_state",
        "_timer",
        "_wasClosed",
        "name",
        "observer",
        "reactor",
        "waiters",
    )  # fmt: skip

    def __init__(
        self,
        servers: Any,
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
        commands: int = 0,
    ) -> None:
        """
        @param servers: addresses, see L{txconnpool.pool.dialing.endpointOf}.
        @param factory: makes the clients, see L{_newFactory}.
        @param connectTimeout: seconds until a client must be ready, from its dial; also, to pass a check, and to go
            when it is closed. C{None}: no limit.
        @param handshake: called with each client that is connected; may return a Deferred or an awaitable.
        @param announces: whether clients say themselves that they are connected.
        @param check: called with a client that is to be checked, see L{Limits}; it lives unless this fails or gives
            C{False}. May return a Deferred or an awaitable.
        @param commands: how many commands of replies are to be counted apart.
        """
        self.name = name
        self.reactor = reactor
        self._factory = factory
        self._connectTimeout = connectTimeout
        self._handshake = handshake
        self._announces = announces
        self._checkClient = check
        self._commands = commands
        self.observer = observer
        self._state = PoolState(limits)
        self._administration = Administration(self._state)
        self.waiters = self._state.waiters
        self._seconds = reactor.seconds
        self._attempts: dict[Record, Attempt] = {}
        self._errands: dict[Record, Deferred[Any]] = {}
        self._leaving = Deadlines(reactor, connectTimeout, self._abort)
        self._timer: IDelayedCall | None = None
        self._due = 0.0
        self._closing: list[Deferred[None]] = []
        self._deadline: IDelayedCall | None = None
        self._wasClosed = False
        self._again = False
        for address in servers:
            self._state.servers.append(self._server(address))

    def _server(self, address: Any) -> Server:
        name, endpoint = endpointOf(address, self.reactor)
        return Server(name, endpoint, Traffic(self._commands))

    # -- What there is

    @property
    def servers(self) -> Sequence[Server]:
        """
        The servers in rotation, those that are down included.
        """
        return self._state.servers

    @property
    def clients(self) -> list[Any]:
        """
        The clients of all connections that are established.
        """
        return [attempt.client for attempt in self._attempts.values() if attempt.isReady]

    @property
    def waiting(self) -> int:
        """
        How many waiters there are.
        """
        return self.waiters.count

    @property
    def counters(self) -> Counters:
        """
        What has happened.
        """
        return self._state.counters

    @property
    def state(self) -> PoolState:
        """
        What there is to decide about, for statistics.
        """
        return self._state

    @property
    def stats(self) -> PoolStats:
        """
        A snapshot of gauges and counters.
        """
        return self._state.stats()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.stats}>"

    # -- The data path

    def take(self, waiter: Any, exclusive: bool = False) -> Record | None:
        """
        Find a connection with room, whoever asks puts load on its record at once; or wait for one.

        @param waiter: the L{txconnpool.interfaces.IWaiter} who asks, and waits if need be.
        @param exclusive: whether the connection must carry nothing else.

        @return: C{None} if it waits.

        @raise PoolError: there is none and will be none.
        """
        state = self._state
        if not self.waiters.count:
            record = state.pick(exclusive)
            if record is not None:
                state.counters.acquired += 1
                if record.load and state.canGrow and not state.idle:
                    now = self._seconds()
                    self._do(state.grow(now, 1), now)
                return record
        if not state.running and not self._wasClosed:
            self.start()
        seconds = self._seconds  # see hasCapacity
        now = seconds()
        waiter.ticket = state.enqueue(waiter, now, exclusive)
        if state.canGrow:
            self._do(state.grow(now), now)
        elif self.waiters.count == 1 and (self._timer is None or self.waiters.due < self._due):
            self._schedule(now)
        return None

    def forget(self, ticket: Ticket) -> None:
        """
        A waiter gives up. One that wanted a connection alone may have stood before others who do not.
        """
        self.waiters.leave(ticket)
        if self.waiters.count:
            self.waiters.serve(self._seconds())

    def hasCapacity(self, record: Record) -> None:
        """
        A connection has room again, or carries nothing any more.
        """
        seconds = self._seconds  # by itself: as a method it would be looked for in the class
        now = seconds()
        if not record.load:
            actions = self._state.hasCapacity(record, now)
            if actions:
                self._do(actions, now)
        if self.waiters.count:
            self.waiters.serve(now)

    def each(self) -> list[Record]:
        """
        One connection of every server, for what concerns all of them.

        @raise ServerUnavailable: a server has none.
        """
        return self._state.each()

    def hold(self, record: Record) -> None:
        """
        The server does not read: put nothing more on this connection.
        """
        self._state.connections.hold(record)

    def unhold(self, record: Record) -> None:
        """
        The server reads again.
        """
        now = self._seconds()
        self._state.connections.unhold(record, now)
        self._settle([], now)

    # -- Carrying out

    def _settle(self, actions: list[Action], now: float) -> None:
        """
        Carry out decisions, and hand out the connections that there may be since.
        """
        self._do(actions, now)
        if self.waiters.count:
            self.waiters.serve(now)

    def _do(self, actions: Sequence[Action], now: float) -> None:
        """
        Carry out decisions. Refusing and closing run code of others, who may close the pool: dials are known before.
        """
        for action in actions:
            if isinstance(action, Dial):
                self._dial(action.record)
        for action in actions:
            if isinstance(action, Close):
                self._close(action.record)
            elif isinstance(action, Check):
                self._check(action.record)
            elif isinstance(action, Refuse):
                self._tell("refused", action.error)
                action.waiter.refused(action.error)
        self._schedule(now)

    def _schedule(self, now: float) -> None:
        """
        Be called when time has something to say. A timer that goes off too early does no harm.
        """
        due = self._state.due(now)
        timer = self._timer
        if timer is not None and (due is None or due < self._due):
            timer.cancel()
            timer = self._timer = None
        if timer is None and due is not None:
            self._due = due
            self._timer = self.reactor.callLater(max(0.0, due - now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        # Not before the time that was waited for, which rounding may have put a hair beyond that of the timer.
        now = max(self._due, self._seconds())
        self._settle(self._state.tick(now), now)

    def _close(self, record: Record) -> None:
        if record not in self._attempts or record in self._leaving.since:
            return
        _log.debug("{pool}: closing a connection to {server}: {reason}", pool=self.name,
                   server=record.server.name, reason=record.reason)  # fmt: skip
        self._leaving.add(record)
        self._attempts[record].close()

    def _abort(self, record: Record) -> None:
        """
        Close a connection at once, unless it is gone already.
        """
        if record in self._attempts:
            self._attempts[record].abort()

    def _check(self, record: Record) -> None:
        assert self._checkClient is not None, "the limits ask for checks, and there is none"
        self._errand(record, self._checkClient, lambda fault: self._checked(record, fault))

    def _checked(self, record: Record, fault: str) -> None:
        now = self._seconds()
        if fault:
            _log.debug("{pool}: a connection to {server} does not live: {fault}", pool=self.name,
                       server=record.server.name, fault=fault)  # fmt: skip
            self.retire(record, "the check failed")
        else:
            self._state.connections.checked(record, now)
        self._settle(self._state.grow(now), now)

    def _errand(self, record: Record, f: Callable[[Any], Any], done: Callable[[str], None]) -> None:
        """
        Have something done to a client that belongs to nobody at the time, while its connection lasts.

        @param f: called with the client; may return a Deferred or an awaitable. It fails by giving C{False}, too.
        @param done: called with what went wrong, or nothing.
        """
        pending = maybeDeferred(f, record.connection)
        self._errands[record] = pending
        if self._connectTimeout is not None:
            pending.addTimeout(self._connectTimeout, self.reactor)

        def ended(result: Any) -> None:
            self._errands.pop(record, None)
            if isinstance(result, Failure):
                done(describe(result.value))
            else:
                done("it gave False" if result is False else "")

        pending.addBoth(ended)

    def _tell(self, event: str, *args: Any) -> None:
        """
        Tell the observer, if there is one.

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
        self._tell("dialing", record.server.name)

    def _newFactory(self, record: Record) -> Any:
        """
        @return: what makes the client of C{record}. Its C{connectionPool} is this pool.
        """
        self._factory.connectionPool = self
        return self._factory

    def clientMade(self, record: Record, client: Any) -> None:
        """
        There is a client for C{record}.
        """
        if IPipelined.providedBy(client):
            client.record = record
            record.weight = 0

    def clientReady(self, record: Record, client: Any) -> None:
        """
        The client of C{record} may be used.
        """
        server = record.server
        now = self._seconds()
        if not server.up:
            _log.info("{pool}: {server} is up again after {seconds:.1f} s", pool=self.name,
                      server=server.name, seconds=now - server.since)  # fmt: skip
        self._tell("connected", server.name, client)
        self._settle(self._state.dialed(record, client, now), now)

    def dialFailed(self, record: Record, reason: BaseException) -> None:
        """
        The dial of C{record} failed.
        """
        server = record.server
        words = describe(reason)
        if self._state.running:
            tally(server.traffic.dialFailures, kindOf(reason))
            self._tell("dialFailed", server.name, reason)
        del self._attempts[record]
        now = self._seconds()
        up = server.up
        actions = self._state.dialFailed(record, reason, words, now)
        self._logDown(server, up)
        self._do(actions, now)
        self._checkClosed()

    def _logDown(self, server: Server, up: bool) -> None:
        """
        Log that a server has gone down, if it has.

        @param up: whether it was up before.
        """
        if up and not server.up and self._state.running:
            _log.warn("{pool}: {server} is down: {reason}", pool=self.name, server=server.name, reason=server.reason)

    def clientEnded(self, record: Record, client: Any, reason: Failure) -> None:
        """
        The connection of C{record} is gone.
        """
        why = reason.value
        traffic = record.server.traffic
        if record.phase is RETIRING:
            words = record.reason
            tally(traffic.closed, words)
        else:
            words = describe(why)
            tally(traffic.lost, kindOf(why))
        now = self._seconds()
        up = record.server.up
        actions = self._state.lost(record, why, words, now)
        self._logDown(record.server, up)
        del self._attempts[record]
        self._leaving.discard(record)
        try:
            client.connectionLost(reason)
        finally:
            self._forsaken(record)
            self._tell("disconnected", record.server.name, client, words)
            self._do(actions, now)
            self._checkClosed()

    def _forsaken(self, record: Record) -> None:
        """
        The connection of C{record} is gone, and its client knows.
        """
        errand = self._errands.get(record)
        if errand is not None:
            errand.cancel()

    def retire(self, record: Record, reason: str) -> None:
        """
        Put nothing more on a connection, and close it as soon as it carries nothing.
        """
        self._do(self._state.connections.discard(record, reason), self._seconds())

    # -- Life cycle

    def start(self) -> None:
        """
        Begin to connect. A pool that was not started starts with its first request, unless it was closed. One that is
        closing starts again when that is done.
        """
        if self._closing:
            self._again = True
            return
        self._wasClosed = False
        now = self._seconds()
        self._do(self._state.start(now), now)

    def close(self, timeout: float | None = None) -> Deferred[None]:
        """
        Take no more requests, refuse those that wait, let those in flight end, and close all connections.

        @param timeout: seconds until what is still in flight is given up; C{None}: no limit.

        @return: fires when no connection, dial or timer is left.
        """
        self._wasClosed = True
        self._again = False
        done: Deferred[None] = Deferred()
        self._closing.append(done)
        self._do(self._state.stop(), self._seconds())
        for attempt in list(self._attempts.values()):
            attempt.fail(PoolClosed("the pool was closed"))
        if timeout is not None and self._attempts and self._deadline is None:
            self._deadline = self.reactor.callLater(timeout, self._tooLate)
        self._checkClosed()
        return done

    def abort(self) -> Deferred[None]:
        """
        Close as L{close} does, and wait for nothing.
        """
        done = self.close()
        self._abortAll()
        return done

    def _abortAll(self) -> None:
        for attempt in list(self._attempts.values()):
            attempt.abort()

    def _tooLate(self) -> None:
        self._deadline = None
        _log.warn("{pool}: {count} connections did not end in time", pool=self.name, count=len(self._attempts))
        self._abortAll()

    def _checkClosed(self) -> None:
        if not self._closing or self._attempts:
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._finished()
        closing, self._closing = self._closing, []
        for done in closing:
            done.callback(None)
        if self._again and not self._closing:
            self._again = False
            self.start()

    def _finished(self) -> None:
        """
        Nothing is left.
        """
        self._leaving.stop()

    # -- Changes while it runs

    def addServer(self, address: Any) -> None:
        """
        Take a server into rotation.

        @raise ValueError: C{address} is no address of a server, see L{txconnpool.pool.dialing.endpointOf}.
        """
        now = self._seconds()
        self._do(self._administration.addServer(self._server(address), now), now)

    def removeServer(self, address: Any) -> None:
        """
        Take a server out for good; its connections end when they carry nothing.

        @param address: as it was given, or the server's name.

        @raise ValueError: there is no such server.
        """
        now = self._seconds()
        self._do(self._administration.removeServer(self._find(address), now), now)

    def markDown(self, address: Any, cause: BaseException) -> None:
        """
        Do not dial a server for a while. Its connections stay.

        @param address: as it was given, or the server's name.
        @param cause: why.

        @raise ValueError: there is no such server.
        """
        now = self._seconds()
        self._do(self._administration.markDown(self._find(address), cause, describe(cause), now), now)

    def _find(self, address: Any) -> Server:
        servers = self._state.servers
        for server in servers:
            if server.address is address:
                return server
        name = nameOf(address) if isinstance(address, str) else endpointOf(address, self.reactor)[0]
        for server in servers:
            if server.name == name:
                return server
        names = ", ".join(server.name for server in servers)
        raise ValueError(f"no server {name!r}; there are: {names or 'none'}")

    def drain(self, address: Any, abort: bool = False) -> None:
        """
        Take a server out of rotation until it is restored: it is given no more requests, its connections end when they
        carry nothing, and it is not dialed.

        @param address: as it was given, or the server's name.
        @param abort: whether to end its connections now, whatever they carry.

        @raise ValueError: there is no such server.
        """
        server = self._find(address)
        now = self._seconds()
        self._do(self._administration.drain(server, now), now)
        if abort:
            for record, attempt in list(self._attempts.items()):
                if record.server is server and attempt.isReady:
                    attempt.abort()

    def restore(self, address: Any) -> None:
        """
        Take a drained server into rotation again, and dial it without delay if it was down.

        @param address: as it was given, or the server's name.

        @raise ValueError: there is no such server.
        """
        now = self._seconds()
        self._settle(self._administration.restore(self._find(address), now), now)

    def pause(self) -> None:
        """
        Let all requests wait from now on, however long. What is in flight ends.
        """
        now = self._seconds()
        self._administration.pause(now)
        self._schedule(now)

    def resume(self) -> None:
        """
        Let requests go on.
        """
        now = self._seconds()
        self._settle(self._administration.resume(now), now)

    @property
    def paused(self) -> bool:
        """
        Whether all requests wait.
        """
        return self._state.paused

    def setLimits(self, limits: Limits) -> None:
        """
        Put other bounds and times in force.
        """
        now = self._seconds()
        self._settle(self._administration.setLimits(limits, now), now)

    def setConnectTimeout(self, timeout: float | None) -> None:
        """
        Give connecting another time, see L{__init__}. Dials in progress keep theirs.
        """
        self._connectTimeout = timeout
        self._leaving.retime(timeout)

    def expire(self) -> None:
        """
        Replace every connection there is now, each when it carries nothing.
        """
        now = self._seconds()
        self._do(self._administration.expire(now), now)
