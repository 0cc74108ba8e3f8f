# -*- test-case-name: tests.pool.test_engine -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A pool of interchangeable connections: what sessions, connections and the pools for programs call.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from txconnpool.errors import PoolClosed, ServerUnavailable
from txconnpool.interfaces import IConnections, IPoolControl
from txconnpool.metrics import Histogram, PoolStats, Traffic
from txconnpool.net.addresses import endpointOf
from txconnpool.net.endpoints import nameOf
from txconnpool.net.reasons import describe
from txconnpool.pool.decisions.administration import Administration
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.records import RETIRING, Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.pool.decisions.waiting import Ticket
from txconnpool.pool.executor import Executor
from txconnpool.pool.forks import FORKED, watch
from txconnpool.pool.lifecycle import CLOSED, NEW, LifeCycle
from txconnpool.wire import Decline

_log = Logger("txconnpool.pool")

#: When a server declines a request because it is a replica, its connections of this age are replaced, in seconds: the
#: name of the server may have another address than at the time of the dial. So clients that write to replicas do not
#: cause a dial for each request.
LOOK = 1.0


@implementer(IConnections, IPoolControl)
class PoolEngine(Executor):
    """
    A bounded set of connections to equal servers, any of which can serve any request.

    The proxy uses it as it is; L{txconnpool.pool.base.BasePool} makes it a pool for programs. Methods that concern a
    server take its address as it was given to the pool, or its name. They raise C{ValueError} if there is no such
    server.

    @ivar servers: the L{servers<Server>} that were not removed, those that are down or drained included.
    @ivar waiters: the queue of waiters.
    @ivar counters: L{counters<txconnpool.metrics.Counters>} of all events.
    """

    #: See L{IPoolControl<txconnpool.interfaces.IPoolControl>}.
    cluster = None
    replicas = None

    __slots__ = ("_administration", "_commands", "_lifeCycle", "counters", "servers", "waiters")

    def __init__(self, servers: Any, factory: Any, limits: Limits, reactor: Any, **options: Any) -> None:
        """
        @param servers: addresses, see L{endpointOf}.
        @param factory: see L{Executor.__init__}, as for C{options}. If its clients have commands that are counted
            separately, its attribute C{commands} lists these.

        @raise ValueError: an address is invalid.
        """
        super().__init__(factory, limits, reactor, **options)
        self._commands = len(getattr(factory, "commands", ()))
        self._administration = Administration(self.state)
        self._lifeCycle = LifeCycle(
            reactor, begin=self._begin, end=self._end, isOver=lambda: not self._attempts, finished=self._finished,
            start=self.start, abort=self._abortLate,
        )  # fmt: skip
        self.servers = self.state.servers
        self.waiters = self.state.waiters
        self.counters = self.state.counters
        for address in servers:
            self.servers.append(self._server(address))

    def _server(self, address: Any) -> Server:
        name, endpoint = endpointOf(address, self.reactor)
        return Server(name, endpoint, Traffic(self._commands))

    # -- What there is

    @property
    def queues(self) -> tuple[Any, ...]:
        """
        The queues of waiters: one.
        """
        return (self.waiters,)

    @property
    def connections(self) -> list[Any]:
        """
        The protocol instances of all established connections.
        """
        return [attempt.connection for attempt in self._attempts.values() if attempt.isReady]

    @property
    def records(self) -> list[Record]:
        """
        The records of all connections and dials in progress.
        """
        return self.state.records

    @property
    def former(self) -> list[Server]:
        """
        The servers that were removed; their counters are a part of the pool's.
        """
        return self.state.balance.former

    @property
    def limits(self) -> Limits:
        """
        The limits in force.
        """
        return self.state.limits

    @property
    def paused(self) -> bool:
        """
        Whether all requests wait.
        """
        return self.state.paused

    @property
    def down(self) -> bool:
        """
        Whether requests are refused because no server can be reached.
        """
        return self.state.down

    @property
    def waiting(self) -> int:
        """
        The number of waiters.
        """
        return self.waiters.count

    @property
    def waits(self) -> Histogram:
        """
        The times that waiters have waited before they were served.
        """
        return self.waiters.waits

    @property
    def longestWait(self) -> float:
        """
        How long the first waiter has waited, in seconds; 0 if there is none.
        """
        since = self.waiters.since
        return 0.0 if since is None else max(0.0, self._seconds() - since)

    @property
    def stats(self) -> PoolStats:
        """
        The gauges and counters of this moment.
        """
        return self.state.stats()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.stats}>"

    # -- The data path

    def take(self, waiter: Any, exclusive: bool = False) -> Record | None:
        """
        Find a connection that has capacity, or let C{waiter} wait for one. The caller must add load to the returned
        record at once.

        @param waiter: an L{txconnpool.interfaces.IWaiter}.
        @param exclusive: whether the connection must carry nothing else.

        @return: C{None} if C{waiter} waits.

        @raise PoolError: there is no connection, and waiting for one is in vain or not allowed.
        """
        state = self.state
        if not self.waiters.count:  # as in pick, which would be another call for each request
            record = state.connections.pick(exclusive)
            if record is not None:
                self.counters.acquired += 1
                if record.load and state.canGrow and not state.idle:
                    self._grow()
                return record
        if not state.running and self._lifeCycle.phase is NEW:
            self.start()
        seconds = self._seconds  # see hasCapacity
        now = seconds()
        waiter.ticket = state.enqueue(waiter, now, exclusive)
        if state.canGrow:
            self._do(state.grow(now), now)
        elif self.waiters.count == 1 and (self._timer is None or self.waiters.due < self._due):
            self._schedule(now)
        return None

    def pick(self) -> Record | None:
        """
        Find a connection that has capacity. The caller must add load to the returned record at once, or pass it to
        L{putBack}.

        @return: C{None} if there is none, or others wait for one.
        """
        state = self.state
        record = None if self.waiters.count else state.connections.pick()
        if record is not None:
            self.counters.acquired += 1
            if record.load and state.canGrow and not state.idle:
                self._grow()
        return record

    def _grow(self) -> None:
        now = self._seconds()
        self._do(self.state.grow(now, 1), now)

    def putBack(self, record: Record) -> None:
        """
        A connection that was picked is not used.
        """
        self.counters.acquired -= 1
        self.hasCapacity(record)

    def forget(self, ticket: Ticket) -> None:
        """
        A waiter gives up. If it wanted a connection that carries nothing else, those behind it may not have to wait.
        """
        self.waiters.leave(ticket)
        if self.waiters.count:
            self.waiters.serve(self._seconds())

    def hasCapacity(self, record: Record) -> None:
        """
        A connection carries less than before, or nothing any more.
        """
        seconds = self._seconds  # as a local name it is not looked up as a method, which costs more
        now = seconds()
        if not record.load:
            actions = self.state.connections.hasCapacity(record, now)
            if actions:
                self._do(actions, now)
        if self.waiters.count:
            self.waiters.serve(now)

    def leaseEnded(self, record: Record, load: int) -> None:
        """
        A connection that was leased is free for others, or is replaced if it has become too old meanwhile.

        @param load: what the lease added to the load of the connection.
        """
        record.load -= load
        self.hasCapacity(record)
        if self.state.ageing.overdue:
            now = self._seconds()
            self._do(self.state.grow(now), now)

    def each(self) -> list[Record]:
        """
        Choose one connection of every server, for a request that concerns all of them. The caller must add load to
        them at once.

        @raise ServerUnavailable: a server has none.
        """
        return self.state.each()

    def eachServer(self) -> list[tuple[Server, Record | ServerUnavailable]]:
        """
        Choose one connection of every server that has one, for a request that is of use even if some servers do not get
        it. The caller must add load to them at once.

        @return: all servers, each with a connection, or with the reason why it has none.
        """
        return self.state.eachServer()

    def hold(self, record: Record) -> None:
        """
        The server does not read: give this connection no new requests.
        """
        self.state.connections.hold(record)

    def unhold(self, record: Record) -> None:
        """
        The server reads again.
        """
        now = self._seconds()
        self.state.connections.unhold(record, now)
        self._settle((), now)

    def suspect(self, record: Record, since: float) -> None:
        """
        A server has not replied on a connection: close its other connections that carry nothing and have received
        nothing meanwhile. A server that is frozen accepts connections and requests; without this, a request would be
        lost for each of them. New connections are used only after their handshake.

        @param record: the connection on which a reply is late.
        @param since: the time at which the request was sent.
        """
        now = self._seconds()
        self._do(self.state.suspect(record, since, now), now)

    def declined(self, record: Record, why: Decline, reply: bytes) -> None:
        """
        A server has not executed a request, as its reply says: do not use its connections any more that exist now. One
        that is not ready is dialed again as after a failed dial; the handshake then finds out whether it is. One that
        is a replica may have another role now, or its name another address: it is dialed anew, see L{LOOK}.

        @param record: the connection.
        @param reply: the reply.
        """
        if record.phase is RETIRING or record.connection is None:
            return  # it is known, or found out by the handshake
        now = self._seconds()
        if why is Decline.NOT_READY:
            text = reply.decode("ascii", "replace").strip().lstrip("-")
            server, up = record.server, record.server.up
            actions = self._administration.notReady(server, ServerUnavailable(text), text, now)
            self._logDown(server, up)
            self._do(actions, now)
        elif now - record.born >= LOOK:
            self._do(self._administration.outdated(record.server, now), now)
            self._doubt()

    # -- Life cycle

    def start(self) -> None:
        """
        Begin to connect. A pool that was not started starts when it is first used, unless it was closed. One that is
        closing starts again when it is closed.

        @raise PoolClosed: it was started in the parent of this process.
        """
        if self.state.whyClosed == FORKED:
            raise PoolClosed(FORKED)
        self._lifeCycle.start()

    def close(self, timeout: float | None = None) -> Deferred[None]:
        """
        Accept no more requests, refuse the waiters, let requests in flight end, and close all connections.

        @param timeout: seconds until connections with requests in flight are closed too; C{None}: no limit.

        @return: a Deferred that fires when no connection, dial or timer is left.
        """
        return self._lifeCycle.close(timeout)

    def abort(self) -> Deferred[None]:
        """
        Close all connections at once.

        @return: as L{close}.
        """
        closed = self.close()
        self._abortAll()
        return closed

    def forked(self) -> None:
        """
        Called in a child process after C{os.fork}: forget all connections and waiters, which are those of the parent,
        without closing or notifying any of them. The use of the pool is an error from then on.
        """
        self._attempts.clear()
        self._leaving.since.clear()
        self.state.abandon(FORKED)
        self._lifeCycle.phase = CLOSED

    def _begin(self) -> None:
        watch(self)
        now = self._seconds()
        self._do(self.state.start(now), now)

    def _end(self) -> None:
        self._do(self.state.stop(), self._seconds())
        for attempt in list(self._attempts.values()):
            attempt.fail(PoolClosed("the pool was closed"))

    def _checkClosed(self) -> None:
        self._lifeCycle.check()

    def _abortAll(self) -> None:
        for attempt in list(self._attempts.values()):
            attempt.abort()

    def _abortLate(self) -> None:
        _log.warn("{pool}: {count} connections did not end in time", pool=self.name, count=len(self._attempts))
        self._abortAll()

    def _finished(self) -> None:
        """
        The pool is closed: no connection is left. Subclasses stop their timers.
        """
        self._leaving.stop()

    # -- Changes

    def _find(self, address: Any) -> Server:
        for server in self.servers:
            if server.address is address:
                return server
        name = nameOf(address) if isinstance(address, str) else endpointOf(address, self.reactor)[0]
        for server in self.servers:
            if server.name == name:
                return server
        names = ", ".join(server.name for server in self.servers)
        raise ValueError(f"no server {name!r}; there are: {names or 'none'}")

    def addServer(self, address: Any) -> None:
        """
        Add a server.

        @raise ValueError: C{address} is invalid, see L{endpointOf}.
        """
        now = self._seconds()
        self._do(self._administration.addServer(self._server(address), now), now)

    def removeServer(self, address: Any) -> None:
        """
        Remove a server for good. Its connections are closed when they carry nothing.
        """
        now = self._seconds()
        self._do(self._administration.removeServer(self._find(address), now), now)

    def markDown(self, address: Any, cause: BaseException) -> None:
        """
        Do not dial a server for a while, as after a failed dial. Its connections stay.
        """
        now = self._seconds()
        self._do(self._administration.markDown(self._find(address), cause, describe(cause), now), now)

    def drain(self, address: Any, abort: bool = False) -> None:
        """
        Take a server out of service until it is restored: it is given no new requests, its connections are closed when
        they carry nothing, and it is not dialed.

        @param abort: whether to close its connections at once, with requests in flight.
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
        Put a drained server back into service. If it is down, it is dialed without delay.
        """
        now = self._seconds()
        self._settle(self._administration.restore(self._find(address), now), now)

    def pause(self) -> None:
        """
        Let all requests wait from now on, without limit. Requests in flight continue.
        """
        now = self._seconds()
        self._administration.pause(now)
        self._schedule(now)

    def resume(self) -> None:
        """
        End a pause.
        """
        now = self._seconds()
        self._settle(self._administration.resume(now), now)

    def setLimits(self, limits: Limits) -> None:
        """
        Apply other limits, to existing connections and waiters too.
        """
        now = self._seconds()
        self._settle(self._administration.setLimits(limits, now), now)

    def setConnectTimeout(self, timeout: float | None) -> None:
        """
        Apply another C{connectTimeout}. Dials in progress keep theirs.
        """
        self._connectTimeout = self._errands.timeout = timeout
        self._leaving.retime(timeout)

    def expire(self) -> None:
        """
        Replace all existing connections one after another. Each stays in use until its successor is established, and
        is closed when it carries nothing.
        """
        now = self._seconds()
        self._do(self._administration.expire(now), now)

    def selfCheck(self) -> None:
        """
        Check all invariants that hold between events. For tests.

        @raise AssertionError: one is broken. The text names it.
        """
        super().selfCheck()
        self._lifeCycle.selfCheck()
        if self._lifeCycle.phase in (NEW, CLOSED):
            assert not self._attempts, f"connections of a pool that is {self._lifeCycle.phase}: {self._attempts}"
            assert self._timer is None, f"a timer of a pool that is {self._lifeCycle.phase}"
