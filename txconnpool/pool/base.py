# -*- test-case-name: tests.pool.test_library -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What all pools for programs have in common, whatever their requests are: options, leases, waiting for connections, the
life cycle, and the method names of txconnpool 0.1.2.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from traceback import StackSummary
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypedDict, TypeVar, overload

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.errors import ClientNotOwned, PoolClosed, PoolError, PoolTimeout, ServerUnavailable
from txconnpool.pool.decisions.limits import Backoff, Limits, Reuse
from txconnpool.pool.decisions.records import DIALING, GONE, OPEN, Record
from txconnpool.pool.engine import PoolEngine
from txconnpool.pool.leases import C, LeakWatch, Lease, Lending, whereabouts

_log = Logger("txconnpool.pool")

P = ParamSpec("P")
T = TypeVar("T")


class PoolOptions(TypedDict, Generic[C], total=False):
    """
    The options that every pool accepts as keywords. L{BasePool.__init__} describes them.
    """

    name: str | None
    minClients: int
    pipelineDepth: int
    maxWaiting: int | None
    waitTimeout: float | None
    connectTimeout: float | None
    idleTimeout: float | None
    maxLifetime: float | None
    lifetimeJitter: float
    reuse: Reuse
    whenDown: int | None
    backoff: Backoff | None
    configure: Callable[[C], object] | None
    check: Callable[[C], object] | None
    checkIfIdleFor: float
    keepAlive: float | None
    reset: Callable[[C], object] | None
    leakThreshold: float | None
    observer: Any


class BasePool(PoolEngine, Generic[C]):
    """
    A bounded set of connections to one server, or to several equal ones. New connections are distributed evenly among
    the servers.

    Subclasses add the requests. A I{client} in the names of this class is the protocol instance of a connection, as in
    txconnpool 0.1.2.
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
        commands: int = 0,
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
    ) -> None:
        """
        All times are in seconds. C{configure}, C{check} and C{reset} are called with a client and may return a
        Deferred or an awaitable. If it fails, or takes longer than C{connectTimeout}, the connection is closed.

        @param serverAddresses: an address or a list of addresses, see L{txconnpool.pool.dialing.endpointOf}.
        @param maxClients: the maximum number of connections, dials in progress included.
        @param reactor: the reactor of all connections and timers.
        @param forceShutdown: whether the pool closes its connections at once when the reactor stops, without waiting
            for requests in flight.
        @param factory: the protocol factory of the clients.
        @param announces: whether clients call C{clientFree} when they are connected.
        @param commands: the number of commands whose replies are counted separately.
        @param name: for logs; the name of the class if not given.
        @param minClients: the number of connections that are kept open.
        @param pipelineDepth: the maximum number of requests in flight on one connection. Leave it at 1 unless the
            client matches pipelined replies to requests.
        @param maxWaiting: the maximum number of requests and leases that wait for a connection; C{None}: no limit.
        @param waitTimeout: how long a request or lease waits for a connection; C{None}: no limit.
        @param connectTimeout: the time from the start of a dial until the client is ready; C{None}: no limit.
        @param idleTimeout: connections above C{minClients} are closed when they were unused for this time; C{None}:
            never.
        @param maxLifetime: a connection is replaced when it is this old; C{None}: never.
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

        @raise ValueError: an address or a limit is invalid.
        """
        if keepAlive is not None and check is None:
            raise ValueError("keepAlive needs a check to do")
        limits = Limits(
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
            _listed(serverAddresses),
            factory,
            limits,
            reactor,
            name=name or type(self).__name__,
            connectTimeout=connectTimeout,
            handshake=configure,
            announces=announces,
            check=check,
            observer=observer,
            commands=commands,
        )
        self._checks = check is not None
        self._reset = reset
        self._forceShutdown = forceShutdown
        # By the id of the client, so that clients need not be hashable.
        self._records: dict[int, Record] = {}
        self._selfBusy: dict[int, int] = {}  # the load that clients put on their own connection by clientBusy
        self._awaited: dict[Deferred[None], int] = {}
        self._trigger: Any = None
        self._watched = leakThreshold is not None or observer is not None
        self._leaks = None if leakThreshold is None else LeakWatch(reactor, leakThreshold, self._leaked)

    # -- Leases

    def acquire(self) -> Deferred[C]:
        """
        Borrow a client: it is the caller's alone until it is given to L{release}.

        @return: fires with the client. Fails with a L{PoolError<txconnpool.errors.PoolError>}.
        """
        client = self.acquireNow()
        if client is not None:
            return succeed(client)
        lease = Lease(self, None if self._leaks is None else whereabouts())
        wanted: Any = lease.client
        try:
            self.take(lease, True)
        except PoolError as error:
            return fail(error)
        return wanted  # type: ignore[no-any-return]

    def acquireNow(self) -> C | None:
        """
        Borrow a client if one is idle and nobody waits: L{acquire} without the cost of a L{Deferred}.

        @return: C{None} if there is none now.
        """
        state = self._state
        if self._checks:
            state.doubt(self._seconds())
        if self.waiters.count:
            return None
        record = state.pick(True)
        if record is None:
            return None
        state.counters.acquired += 1
        record.load = record.lent = record.depth  # there is no room for others
        client: C = record.connection
        if self._watched:
            self._lent(client)
        return client

    def _lent(self, client: C, where: StackSummary | None = None) -> None:
        """
        C{client} is somebody's alone from now on.

        @param where: the stack of who asked, if it is known.
        """
        self._tell("lent", client)
        if self._leaks is not None:
            self._leaks.lent(id(client), where or whereabouts())

    def release(self, client: C, discard: bool = False) -> None:
        """
        Give a borrowed client back. One whose connection was lost is to be given back as well.

        @param discard: whether to close its connection, because it is in no state to be used by others.

        @raise ClientNotOwned: it is not borrowed, or not any more.
        """
        try:
            record = self._records[id(client)]
            load = record.lent
        except KeyError:
            load = 0
        if not load:
            raise ClientNotOwned(f"not borrowed from {self.name}: {client!r}")
        record.lent = 0
        if self._watched:
            self._tell("returned", client)
            if self._leaks is not None:
                self._leaks.returned(id(client))
        if discard:
            self.retire(record, "given back to be closed")
        if record.phase is GONE:
            del self._records[id(client)]
        elif self._reset is not None and record.phase is OPEN:
            self._errand(record, self._reset, partial(self._wasReset, record, load))
            return
        record.load -= load
        self.hasCapacity(record)

    def _wasReset(self, record: Record, load: int, fault: str) -> None:
        if fault:
            _log.debug("{pool}: a client of {server} could not be reset: {fault}", pool=self.name,
                       server=record.server.name, fault=fault)  # fmt: skip
            self.retire(record, "the reset failed")
        record.load -= load
        self.hasCapacity(record)

    def connection(self) -> Lending[C]:
        """
        Borrow a client for a block: C{async with pool.connection() as client:}. If the block raises, the connection is
        closed.
        """
        return Lending(self)

    @overload
    def withConnection(
        self, f: Callable[Concatenate[C, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...

    @overload
    def withConnection(self, f: Callable[Concatenate[C, P], T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...

    def withConnection(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """
        Borrow a client for the time of a call, of C{f(client, *args, **kwargs)}, until what that returns has fired. If
        it fails, the connection is closed.

        @return: fires as C{f} does.
        """

        async def call() -> Any:
            async with self.connection() as client:
                return await maybeDeferred(f, client, *args, **kwargs)

        return Deferred.fromCoroutine(call())

    def _leaked(self, key: int, seconds: float, where: str) -> None:
        """
        The client of that key was borrowed long ago.
        """
        client = self._records[key].connection
        _log.warn("{pool}: {client} was borrowed and not given back for {seconds:g} s, at\n{where}",
                  pool=self.name, client=client, seconds=seconds, where=where)  # fmt: skip
        self._tell("leaked", client, seconds, where)

    # -- Connections

    def clientMade(self, record: Record, client: Any) -> None:
        """
        There is a client for C{record}, about to be connected.
        """
        super().clientMade(record, client)
        self._records[id(client)] = record

    def clientReady(self, record: Record, client: Any) -> None:
        """
        The client of C{record} may be used.
        """
        super().clientReady(record, client)
        for wanted, count in list(self._awaited.items()):
            if self._state.connected >= count and wanted in self._awaited:
                del self._awaited[wanted]
                wanted.callback(None)
        self._seek()

    def dialFailed(self, record: Record, reason: BaseException) -> None:
        """
        The dial of C{record} failed.
        """
        self._records.pop(id(self._attempts[record].client), None)
        super().dialFailed(record, reason)

    def _forsaken(self, record: Record) -> None:
        """
        The connection of C{record} is gone, and its client knows. What is still in flight will not be answered.
        """
        super()._forsaken(record)
        key = id(record.connection)
        self._selfBusy.pop(key, None)
        if not record.lent:  # else it is still to be given back
            self._records.pop(key, None)

    def ready(self, count: int | None = None, timeout: float | None = 30.0) -> Deferred[None]:
        """
        Have connections established.

        @param count: how many; C{minClients}, and at least one, if not given.
        @param timeout: seconds to wait for them; C{None}: no limit.

        @return: fires when there are so many. Fails with a L{PoolError<txconnpool.errors.PoolError>}.
        """
        limits = self._state.limits
        count = max(1, limits.minimum) if count is None else count
        if count > limits.maximum:
            return fail(ValueError(f"{count} connections are more than there may be, {limits.maximum}"))
        if self._wasClosed:
            return fail(PoolClosed("the pool is closed"))
        if not self._state.running:
            self.start()
        if self._state.connected >= count:
            return succeed(None)
        wanted: Deferred[None] = Deferred(self._unwanted)
        self._awaited[wanted] = count
        if timeout is not None:
            wanted.addTimeout(timeout, self.reactor, self._notReady)
        self._seek()
        return wanted

    def _seek(self) -> None:
        now = self._seconds()
        self._state.wanted = max(self._awaited.values(), default=0)
        self._do(self._state.grow(now), now)

    def _unwanted(self, wanted: Deferred[None]) -> None:
        del self._awaited[wanted]
        self._seek()

    def _notReady(self, result: object, timeout: float) -> Failure:
        """
        Say why there are not enough connections yet.
        """
        stats = self._state.stats()
        failed = self._state.health.lastFailed
        reason = f"{failed.reason} ({failed.name})" if failed else str(stats)
        error = PoolTimeout(f"not ready within {timeout:g} s: {reason}", "connect", stats)
        error.__cause__ = failed.cause if failed else None
        return Failure(error)

    # -- Life cycle

    def start(self) -> None:
        """
        Begin to connect, and close when the reactor stops. A pool that was not started starts with its first request.
        """
        if self._trigger is None:
            self._trigger = self.reactor.addSystemEventTrigger("before", "shutdown", self._shutDown)
        super().start()

    def _shutDown(self) -> Deferred[None]:
        self._trigger = None
        return self.abort() if self._forceShutdown else self.close()

    def close(self, timeout: float | None = 5.0) -> Deferred[None]:
        """
        Take no more requests, refuse those that wait, let those in flight and leases end, and close all connections.

        @param timeout: seconds until what is still in flight is given up; C{None}: no limit.

        @return: fires when no connection, dial or timer is left.
        """
        self._wasClosed = True
        awaited, self._awaited = self._awaited, {}
        for wanted in awaited:
            wanted.errback(PoolClosed("the pool was closed"))
        return super().close(timeout)

    def _finished(self) -> None:
        """
        Nothing is left.
        """
        super()._finished()
        if self._leaks is not None:
            self._leaks.deadlines.stop()
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
        Put other bounds on the number of connections in force. Those above it are closed when they carry nothing.
        """
        self.setLimits(replace(self._state.limits, minimum=minClients, maximum=maxClients))

    # -- The names of 0.1.2

    def suggestMaxClients(self, maxClients: int) -> None:
        """
        Put another bound on the number of connections in force: L{resize}.
        """
        self.resize(min(self._state.limits.minimum, maxClients), maxClients)

    def clientFree(self, client: Any) -> None:
        """
        A client says that it is connected, or that it is busy no more. To say more than that changes nothing.
        """
        key = id(client)
        record = self._records.get(key)
        if record is None:
            return
        if key in self._selfBusy:
            record.load -= self._selfBusy.pop(key)
            self.hasCapacity(record)
        elif record.phase is DIALING:
            self._attempts[record].announced()

    def clientBusy(self, client: Any) -> None:
        """
        A client that carries nothing says that it is busy, until it says that it is free.
        """
        record = self._records.get(id(client))
        if record is not None and record.idle:
            self._state.connections.engage(record)
            self._selfBusy[id(client)] = record.depth
            record.load += record.depth

    def clientGone(self, client: Any) -> None:
        """
        A client is not to be used any more: it is closed when it carries nothing.
        """
        record = self._records.get(id(client))
        if record is not None:
            self.retire(record, "the client is gone")

    def clientFailed(self, client: Any, connector: Any) -> None:
        """
        A client could not connect: its server is not dialed for a while.

        @param connector: an L{IConnector<twisted.internet.interfaces.IConnector>}.
        """
        self.removeServerFromRotation(connector.getDestination())
        self.clientGone(client)

    def removeServerFromRotation(self, serverAddress: Any) -> None:
        """
        Do not dial a server for a while, as if a dial had failed. Its connections stay.

        @raise ValueError: it is no server of this pool.
        """
        self.markDown(serverAddress, ServerUnavailable("taken out of rotation"))


def _listed(addresses: Any) -> list[Any]:
    """
    One address, or many; C{(host, port)} is one.

    @raise ValueError: there is none.
    """
    several = isinstance(addresses, list | tuple) and not (len(addresses) == 2 and isinstance(addresses[1], int))
    if several and not addresses:
        raise ValueError("a pool needs the address of at least one server")
    return list(addresses) if several else [addresses]
