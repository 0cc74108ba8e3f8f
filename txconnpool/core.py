# -*- test-case-name: tests.test_core -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The decisions of L{txconnpool.state} carried out: dials, timers and closing, on a reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.dial import Attempt, describe, endpointOf
from txconnpool.errors import PoolClosed
from txconnpool.interfaces import IPipelined
from txconnpool.metrics import Counters, PoolStats, Traffic
from txconnpool.state import Action, Close, Dial, Limits, PoolState, Server, Slot, Ticket


class Core:
    """
    A bounded set of connections to equal servers, shared by whoever asks.

    L{txconnpool.pool.Pool} is what programs use. This is what it, the sessions and the connections stand on.

    @ivar name: for logs.
    @ivar reactor: of all connections.
    """

    _log = Logger()

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
        forms: int = 0,
    ) -> None:
        """
        @param servers: addresses, see L{txconnpool.dial.endpointOf}.
        @param factory: makes the clients; its C{connectionPool} is set to this pool.
        @param connectTimeout: seconds until a client must be ready, from its dial; C{None}: no limit.
        @param handshake: called with each client that is connected; may return a Deferred or an awaitable.
        @param announces: whether clients say themselves that they are connected.
        @param forms: how many forms of replies are to be counted apart.
        """
        self.name = name
        self.reactor = reactor
        self._factory = factory
        self._connectTimeout = connectTimeout
        self._handshake = handshake
        self._announces = announces
        self._forms = forms
        self._state = PoolState(limits)
        self._seconds = reactor.seconds
        self._attempts: dict[Slot, Attempt] = {}
        self._timer: IDelayedCall | None = None
        self._serving = False
        self._closing: list[Deferred[None]] = []
        self._deadline: IDelayedCall | None = None
        self._wasClosed = False
        if not isinstance(factory, type):
            factory.connectionPool = self
        for address in servers:
            self._state.servers.append(self._server(address))

    def _server(self, address: Any) -> Server:
        name, endpoint = endpointOf(address, self.reactor)
        return Server(name, endpoint, Traffic(self._forms))

    # -- What there is

    @property
    def servers(self) -> Sequence[Server]:
        """
        The servers in rotation, those that are down included.
        """
        return self._state.servers

    @property
    def waiting(self) -> int:
        """
        How many waiters there are.
        """
        return self._state.waiting

    @property
    def counters(self) -> Counters:
        """
        What has happened.
        """
        return self._state.counters

    @property
    def stats(self) -> PoolStats:
        """
        A snapshot of gauges and counters.
        """
        return self._state.stats()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.stats}>"

    # -- The data path

    def take(self, waiter: Any, exclusive: bool = False) -> Slot | None:
        """
        Find a connection with room, whoever asks puts load on its slot at once; or wait for one.

        @param waiter: the L{txconnpool.interfaces.IWaiter} who asks, and waits if need be.
        @param exclusive: whether the connection must carry nothing else.

        @return: C{None} if it waits.

        @raise PoolError: there is none and will be none.
        """
        state = self._state
        if not state.waiting:
            slot = state.pick(exclusive)
            if slot is not None:
                state.counters.acquired += 1
                if slot.load and state.canGrow:
                    self._do(state.grow(self._seconds(), 1))
                return slot
        if not state.running and not self._wasClosed:
            self.start()
        now = self._seconds()
        waiter.ticket = state.enqueue(waiter, now, exclusive)
        if state.canGrow:
            self._do(state.grow(now))
        elif state.waiting == 1:
            self._schedule(now)
        return None

    def forget(self, ticket: Ticket) -> None:
        """
        A waiter gives up.
        """
        self._state.cancel(ticket)

    def eased(self, slot: Slot) -> None:
        """
        A connection has room again, or carries nothing any more.
        """
        state = self._state
        now = self._seconds()
        if not slot.load:
            actions = state.eased(slot, now)
            if actions:
                self._do(actions)
        if state.waiting:
            self._serve(now)

    def _serve(self, now: float) -> None:
        """
        Hand out what there is. A waiter that gives back at once is served by the loop, not by recursion.
        """
        if self._serving:
            return
        self._serving = True
        try:
            for waiter, slot in self._state.grants(now):
                waiter.granted(slot)
        finally:
            self._serving = False

    def each(self) -> list[Slot]:
        """
        One connection of every server, for what concerns all of them.

        @raise ServerUnavailable: a server has none.
        """
        return self._state.each()

    def hold(self, slot: Slot) -> None:
        """
        The server does not read: put nothing more on this connection.
        """
        self._state.hold(slot)

    def unhold(self, slot: Slot) -> None:
        """
        The server reads again.
        """
        self._state.unhold(slot, self._seconds())
        if self._state.waiting:
            self._serve(self._seconds())

    # -- Carrying out

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Dial):
                self._dial(action.slot)
            elif isinstance(action, Close):
                self._log.debug("{pool}: closing a connection to {server}: {reason}", pool=self.name,
                                server=action.slot.server.name, reason=action.reason)  # fmt: skip
                action.slot.client.transport.loseConnection()
            else:
                action.waiter.refused(action.error)
        self._schedule(self._seconds())

    def _schedule(self, now: float) -> None:
        """
        Be called when time has something to say. A timer that goes off too early does no harm.
        """
        due = self._state.due(now)
        timer = self._timer
        if timer is not None and (due is None or due < timer.getTime()):
            timer.cancel()
            timer = self._timer = None
        if timer is None and due is not None:
            self._timer = self.reactor.callLater(max(0.0, due - now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._do(self._state.tick(self._seconds()))

    # -- Connections

    def _dial(self, slot: Slot) -> None:
        attempt = Attempt(slot, self, self.newFactory(), self.reactor, self._connectTimeout, self._handshake,
                          self._announces)  # fmt: skip
        self._attempts[slot] = attempt
        # Not now: an endpoint may have its answer at once, and whoever asked for a connection is still asking.
        self.reactor.callLater(0, attempt.start)

    def newFactory(self) -> Any:
        """
        @return: what makes the next client.
        """
        return self._factory

    def made(self, slot: Slot, client: Any) -> None:
        """
        There is a client for C{slot}.
        """
        if IPipelined.providedBy(client):
            client.slot = slot

    def ready(self, slot: Slot, client: Any) -> None:
        """
        The client of C{slot} may be used.
        """
        server = slot.server
        now = self._seconds()
        if server.failures:
            self._log.info("{pool}: {server} is up again after {time:.1f} s", pool=self.name, server=server.name,
                           time=now - server.since)  # fmt: skip
        self._do(self._state.dialed(slot, client, now))
        if self._state.waiting:
            self._serve(now)

    def failed(self, slot: Slot, reason: BaseException) -> None:
        """
        The dial of C{slot} failed.
        """
        server = slot.server
        words = describe(reason)
        if not server.failures and self._state.running:
            self._log.warn("{pool}: {server} is down: {reason}", pool=self.name, server=server.name, reason=words)
        self._attempts.pop(slot)
        self._do(self._state.dialFailed(slot, reason, words, self._seconds()))
        self._checkClosed()

    def ended(self, slot: Slot, client: Any, reason: Failure) -> None:
        """
        The connection of C{slot} is gone.
        """
        why = reason.value or ConnectionDone()
        actions = self._state.lost(slot, why, describe(why), self._seconds())
        self._attempts.pop(slot)
        client.connectionLost(reason)
        self.forsaken(slot)
        self._do(actions)
        self._checkClosed()

    def forsaken(self, slot: Slot) -> None:
        """
        The connection of C{slot} is gone, and its client knows.
        """

    def discard(self, slot: Slot, reason: str) -> None:
        """
        Put nothing more on a connection, and close it as soon as it carries nothing.
        """
        self._do(self._state.discard(slot, reason))

    # -- Life cycle

    def start(self) -> None:
        """
        Begin to connect. A pool that was not started starts with its first request.
        """
        self._wasClosed = False
        self._do(self._state.start(self._seconds()))

    def close(self, timeout: float | None = None) -> Deferred[None]:
        """
        Take no more requests, refuse those that wait, let those in flight end, and close all connections.

        @param timeout: seconds until what is still in flight is given up; C{None}: no limit.

        @return: fires when no connection, dial or timer is left.
        """
        self._wasClosed = True
        done: Deferred[None] = Deferred()
        self._closing.append(done)
        for attempt in list(self._attempts.values()):
            attempt.fail(PoolClosed("the pool was closed"))
        self._do(self._state.stop())
        if timeout is not None and self._attempts and self._deadline is None:
            self._deadline = self.reactor.callLater(timeout, self._tooLate)
        self._checkClosed()
        return done

    def abort(self) -> Deferred[None]:
        """
        Close as L{close} does, and wait for nothing.
        """
        done = self.close()
        for attempt in list(self._attempts.values()):
            attempt.client.transport.abortConnection()
        return done

    def _tooLate(self) -> None:
        self._deadline = None
        self._log.warn("{pool}: {count} connections did not end in time", pool=self.name, count=len(self._attempts))
        self.abort()

    def _checkClosed(self) -> None:
        if not self._wasClosed or self._attempts:
            return
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
        self._timer = self._deadline = None
        self.finished()
        waiting, self._closing = self._closing, []
        for done in waiting:
            done.callback(None)

    def finished(self) -> None:
        """
        Nothing is left.
        """

    # -- Changes while it runs

    def eject(self, name: str) -> None:
        """
        Do not dial a server for a while.

        @raise ValueError: there is no server of this name.
        """
        self._do(self._state.eject(self._named(name), self._seconds()))

    def addServer(self, address: Any) -> None:
        """
        Take a server into rotation.

        @raise ValueError: C{address} is no address of a server, see L{txconnpool.dial.endpointOf}.
        """
        self._do(self._state.addServer(self._server(address), self._seconds()))

    def removeServer(self, name: str) -> None:
        """
        Take a server out for good; its connections end when they carry nothing.

        @raise ValueError: there is no server of this name.
        """
        self._do(self._state.removeServer(self._named(name), self._seconds()))

    def _named(self, name: str) -> Server:
        for server in self._state.servers:
            if server.name == name:
                return server
        names = ", ".join(server.name for server in self._state.servers)
        raise ValueError(f"no server {name!r}; there are: {names or 'none'}")

    def limit(self, limits: Limits) -> None:
        """
        Put other bounds and times in force.
        """
        now = self._seconds()
        self._do(self._state.resize(limits, now))
        if self._state.waiting:
            self._serve(now)

    def expire(self) -> None:
        """
        Replace every connection there is now, each when it carries nothing.
        """
        self._do(self._state.expire(self._seconds()))
