# -*- test-case-name: tests.pool.test_base -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What all pools for programs have in common, whatever their requests are: options, leases, waiting for connections, the
life cycle, and the method names of txconnpool 0.1.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Generic, Self, TypedDict

from twisted.internet.defer import Deferred, fail, succeed

from txconnpool.errors import PoolClosed, ServerUnavailable
from txconnpool.pool.checks import (
    checkClients,
    checkOptions,
    checkReactor,
    checkSeconds,
    checkWhole,
    unknownParameter,
)
from txconnpool.pool.decisions.limits import Backoff, Limits, Reuse
from txconnpool.pool.decisions.reasons import CLIENT_GONE
from txconnpool.pool.decisions.records import DIALING, Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.pool.decisions.shared import Shared
from txconnpool.pool.leases import C
from txconnpool.pool.leasing import LeasingPool
from txconnpool.pool.lifecycle import CLOSED
from txconnpool.pool.readiness import Readiness


class CommonOptions(TypedDict, Generic[C], total=False):
    """
    The options that every pool accepts as keywords, with the same defaults. L{BasePool.__init__} describes them.
    """

    name: str | None
    minClients: int
    maxWaiting: int | None
    idleTimeout: float | None
    maxLifetime: float | None
    lifetimeJitter: float
    reuse: Reuse
    whenDown: int | None
    backoff: Backoff | None
    check: Callable[[C], object] | None
    checkIfIdleFor: float
    keepAlive: float | None
    reset: Callable[[C], object] | None
    leakThreshold: float | None
    observer: Any


class PoolOptions(CommonOptions[C], total=False):
    """
    All options that every pool accepts as keywords.
    """

    pipelineDepth: int
    waitTimeout: float | None
    connectTimeout: float | None
    configure: Callable[[C], object] | None


class BasePool(LeasingPool[C]):
    """
    A bounded set of connections to one server, or to several equal ones. New connections are distributed evenly among
    the servers.

    Subclasses add the requests. As in txconnpool 0.1.2, a I{client} is the protocol instance of a connection.
    """

    def __init__(
        self,
        serverAddresses: Any,
        maxClients: int,
        reactor: Any,
        forceShutdown: bool,
        factory: Any,
        *,
        announces: bool = False,
        name: str | None = None,
        minClients: int = 0,
        pipelineDepth: int = 1,
        maxWaiting: int | None = 100_000,
        waitTimeout: float | None = 30.0,
        connectTimeout: float | None = 30.0,
        idleTimeout: float | None = 600.0,
        maxLifetime: float | None = 3600.0,
        lifetimeJitter: float = 0.05,
        reuse: Reuse = "lifo",
        whenDown: int | None = 3,
        backoff: Backoff | None = None,
        configure: Callable[[C], object] | None = None,
        check: Callable[[C], object] | None = None,
        checkIfIdleFor: float = 1.0,
        keepAlive: float | None = None,
        reset: Callable[[C], object] | None = None,
        leakThreshold: float | None = None,
        observer: Any = None,
        limits: Limits | None = None,
        shared: Shared | None = None,
        healthChanged: Callable[[Server], object] | None = None,
        lookAgain: Callable[[], object] | None = None,
        **unknown: Any,
    ) -> None:
        """
        All times are in seconds. C{configure}, C{check} and C{reset} are called with a client and may return a
        Deferred or an awaitable. If it fails, or takes longer than C{connectTimeout}, the connection is closed.

        @param serverAddresses: an address or a list of addresses, see L{txconnpool.net.addresses.endpointOf}.
        @param maxClients: the maximum number of connections, dials in progress included. There is one more while one
            that is too old is replaced.
        @param reactor: the reactor of all connections and timers.
        @param forceShutdown: whether the pool closes its connections at once when the reactor stops, without waiting
            for requests in flight.
        @param factory: the protocol factory of the clients.
        @param announces: whether clients call C{clientFree} when they are connected.
        @param name: for logs; the name of the class if not given.
        @param minClients: the number of connections that are kept open.
        @param pipelineDepth: the maximum number of requests in flight on one connection. Leave it at 1 unless the
            client matches pipelined replies to requests.
        @param maxWaiting: the maximum number of requests and leases that wait for a connection; C{None}: no limit.
        @param waitTimeout: how long a request or lease waits for a connection; C{None}: no limit.
        @param connectTimeout: the time from the start of a dial until the client is ready; C{None}: no limit.
        @param idleTimeout: connections above C{minClients} are closed when they were unused for this time; C{None}:
            never.
        @param maxLifetime: a connection is replaced when it is this old; C{None}: never. It is used until another one
            is established.
        @param lifetimeJitter: the maximum fraction by which each lifetime is shortened at random.
        @param reuse: which idle connection is taken; see L{Limits}.
        @param whenDown: requests fail at once instead of waiting when no connection is left and this number of dials in
            a row has failed; C{None}: they wait.
        @param backoff: the delays between failed dials.
        @param configure: prepares a new connection before its first use, for example by a login.
        @param check: tests whether an idle connection is alive. The result C{False} means that it is not.
        @param checkIfIdleFor: with a C{check}, a connection that was unused for this time is checked before it is used.
        @param keepAlive: the interval at which idle connections are checked; C{None}: never.
        @param reset: cleans up a connection after each lease, before other callers use it.
        @param leakThreshold: a lease that lasts longer is logged, with the place in the program that took it; C{None}:
            none is.
        @param observer: an L{IPoolObserver<txconnpool.interfaces.IPoolObserver>} to notify of events.
        @param limits: the limits, if the pool is one of several; those above do not count then.
        @param shared: see L{Executor.__init__<txconnpool.pool.executor.Executor.__init__>}, as for C{healthChanged}
            and C{lookAgain}. With the last one, there may be no server yet.

        @raise ValueError: an address or a limit is invalid.
        @raise TypeError: a parameter has a wrong type, or there is no such parameter.
        """
        given = dict(locals())
        for parameter in unknown:
            raise unknownParameter(name or type(self).__name__, parameter, PoolOptions.__annotations__)
        checkReactor(reactor)
        checkOptions(given)
        limits = limits or Limits(
            maximum=maxClients,
            minimum=minClients,
            depth=pipelineDepth,
            maxWaiting=maxWaiting,
            waitTimeout=waitTimeout,
            idleTimeout=idleTimeout or 0.0,
            maxLifetime=maxLifetime or 0.0,
            lifetimeJitter=lifetimeJitter,
            reuse=reuse,
            whenDown=whenDown,
            backoff=backoff or Backoff(),
            checkIfIdleFor=None if check is None else checkIfIdleFor,
            keepAlive=keepAlive or 0.0,
        )
        super().__init__(
            listed(serverAddresses) if lookAgain is None else serverAddresses,
            factory,
            limits,
            reactor,
            name=name or type(self).__name__,
            connectTimeout=connectTimeout,
            handshake=configure,
            announces=announces,
            check=check,
            reset=reset,
            leakThreshold=leakThreshold,
            observer=observer,
            shared=shared,
            healthChanged=healthChanged,
            lookAgain=lookAgain,
        )
        self._forceShutdown = forceShutdown
        self._selfBusy: dict[int, int] = {}  # the load that clients put on their own connection, see clientBusy
        self._readiness = Readiness(self.state, reactor, self._dialWanted)
        self._trigger: Any = None

    def _dialWanted(self) -> None:
        now = self._seconds()
        self._do(self.state.grow(now), now)

    # -- Life cycle

    def start(self) -> None:
        """
        Begin to connect, and close when the reactor stops. A pool that was not started starts when it is first used.
        """
        if self._trigger is None:
            self._trigger = self.reactor.addSystemEventTrigger("before", "shutdown", self._shutDown)
        super().start()

    def _shutDown(self) -> Deferred[None]:
        self._trigger = None
        return self.abort() if self._forceShutdown else self.close()

    def ready(self, count: int | None = None, timeout: float | None = 30.0) -> Deferred[None]:
        """
        Start the pool, and wait until connections are established.

        @param count: the number of connections; C{minClients}, and at least one, if not given.
        @param timeout: seconds to wait; C{None}: no limit.

        @return: a Deferred that fires when the connections are established. It fails with a
            L{PoolError<txconnpool.errors.PoolError>}, or with a C{ValueError} if C{count} is above C{maxClients}.
        """
        checkWhole("count", count, 0, optional=True)
        checkSeconds("timeout", timeout)
        limits = self.state.limits
        count = max(1, limits.minimum) if count is None else count
        if count > limits.maximum:
            return fail(ValueError(f"{count} connections are more than maxClients, {limits.maximum}"))
        if self._lifeCycle.ended:
            return fail(PoolClosed(self.state.whyClosed))
        if not self.state.running:
            self.start()
        return succeed(None) if self.state.connections.connected >= count else self._readiness.wait(count, timeout)

    def close(self, timeout: float | None = 5.0) -> Deferred[None]:
        """
        Accept no more requests, refuse the waiters, let requests in flight and leases end, and close all connections.

        @param timeout: seconds until connections with requests in flight or leases are closed too; C{None}: no limit.

        @return: a Deferred that fires when no connection, dial or timer is left.
        """
        checkSeconds("timeout", timeout)
        return super().close(timeout)

    def _end(self) -> None:
        self._readiness.fail(lambda: PoolClosed("the pool was closed"))
        super()._end()

    def _finished(self) -> None:
        super()._finished()
        if self._trigger is not None:
            self.reactor.removeSystemEventTrigger(self._trigger)
            self._trigger = None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def resize(self, minClients: int, maxClients: int) -> None:
        """
        Apply other limits on the number of connections. Surplus connections are closed when they carry nothing.
        """
        checkClients(minClients, maxClients)
        self.setLimits(replace(self.state.limits, minimum=minClients, maximum=maxClients))

    # -- Events of connections

    def connectionReady(self, record: Record, connection: Any) -> None:
        """
        The dial of C{record} succeeded.
        """
        super().connectionReady(record, connection)
        self._readiness.established()

    def _failPending(self, record: Record) -> None:
        super()._failPending(record)
        self._selfBusy.pop(id(record.connection), None)

    def selfCheck(self) -> None:
        """
        Check all invariants that hold between events. For tests.

        @raise AssertionError: one is broken. The text names it.
        """
        super().selfCheck()
        assert set(self._selfBusy) <= set(self._byClient), "a client without a connection is busy"
        if self._lifeCycle.phase is CLOSED:
            assert self._trigger is None, "the closed pool still waits for the reactor to stop"

    # -- The names of 0.1.2

    def suggestMaxClients(self, maxClients: int) -> None:
        """
        Apply another limit on the number of connections, as L{resize} does.
        """
        self.resize(min(self.state.limits.minimum, maxClients), maxClients)

    def clientFree(self, client: Any) -> None:
        """
        A client reports that it is connected, or that it is not busy any more. Other calls have no effect.
        """
        key = id(client)
        record = self._byClient.get(key)
        if record is None:
            return
        if key in self._selfBusy:
            record.load -= self._selfBusy.pop(key)
            self.hasCapacity(record)
        elif record.phase is DIALING:
            self._attempts[record].announced()

    def clientBusy(self, client: Any) -> None:
        """
        A client that carries nothing reports that it is busy, until it calls L{clientFree}.
        """
        record = self._byClient.get(id(client))
        if record is not None and record.idle:
            self.state.connections.engage(record)
            self._selfBusy[id(client)] = record.depth
            record.load += record.depth

    def clientGone(self, client: Any) -> None:
        """
        A client must not be used any more: its connection is closed when it carries nothing.
        """
        record = self._byClient.get(id(client))
        if record is not None:
            self.retire(record, CLIENT_GONE)

    def clientFailed(self, client: Any, connector: Any) -> None:
        """
        A client could not connect: its server is not dialed for a while.

        @param connector: an L{IConnector<twisted.internet.interfaces.IConnector>}.
        """
        self.removeServerFromRotation(connector.getDestination())
        self.clientGone(client)

    def removeServerFromRotation(self, serverAddress: Any) -> None:
        """
        Do not dial a server for a while, as after a failed dial. Its connections stay.

        @raise ValueError: the pool has no such server.
        """
        self.markDown(serverAddress, ServerUnavailable("taken out of rotation"))


def listed(addresses: Any) -> list[Any]:
    """
    @param addresses: an address, which C{(host, port)} is too, or several.

    @return: a list of addresses.

    @raise ValueError: it would be empty.
    """
    if isinstance(addresses, tuple) and len(addresses) == 2:
        host, port = addresses
        if isinstance(port, int):
            return [addresses]
        if isinstance(port, str) and port.isdigit():
            raise ValueError(f"the port of an address is a number: ({host!r}, {int(port)}), not {addresses!r}")
    several = isinstance(addresses, list | tuple)
    if several and not addresses:
        raise ValueError("serverAddresses must have the address of at least one server")
    return list(addresses) if several else [addresses]
