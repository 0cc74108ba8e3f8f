# -*- test-case-name: tests.pool.test_library -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The pool that programs use::

    pool = Pool(("127.0.0.1", 7), clientFactory=Factory.forProtocol(EchoClient))
    answer = await pool.performRequest("echo", b"hello")

Requests and leases share a bounded set of connections, first come first served. Importing this module and making a
L{Pool} do nothing: it connects when it is first asked, or started.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from dataclasses import replace
from functools import partial
from traceback import StackSummary
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IProtocolFactory,
    IPullProducer,
    IPushProducer,
)
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.protocols.basic import IntNStringReceiver, LineOnlyReceiver, LineReceiver, NetstringReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import (
    ClientNotOwned,
    ConnectionLostInFlight,
    NoSuchCommand,
    PoolClosed,
    PoolError,
    PoolTimeout,
    ServerUnavailable,
)
from txconnpool.interfaces import IPoolObserver
from txconnpool.net.deadlines import Deadlines
from txconnpool.pool.engine import PoolEngine
from txconnpool.pool.leases import C, LeakWatch, Lease, Lending, Request, whereabouts
from txconnpool.pool.limits import Backoff, Limits, Reuse
from txconnpool.pool.records import DIALING, GONE, OPEN, Record

_log = Logger("txconnpool.pool")

__all__ = ["Backoff", "NoSuchCommand", "Pool", "PoolObserver", "PooledClientFactory"]

P = ParamSpec("P")
T = TypeVar("T")

_ROLES: tuple[Any, ...] = (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IPullProducer,
    IPushProducer,
)

#: What Twisted calls on a protocol, or a protocol on itself: no commands, whoever names them.
_INTERNAL = frozenset[str]().union(
    *map(dir, (LineReceiver, LineOnlyReceiver, IntNStringReceiver, NetstringReceiver, TimeoutMixin)), *_ROLES
) - {"sendLine", "sendString"}


class PooledClientFactory(ClientFactory):
    """
    Makes one client that tells the pool when it is ready: by C{self.factory.connectionPool.clientFree(self)}, or by
    firing C{self.factory.deferred} with itself, or both. The pool makes one such factory for each connection.

    A factory of any other class makes clients that are ready as soon as they are connected.

    @ivar protocol: the class of the client, see L{Factory<twisted.internet.protocol.Factory>}.
    @ivar connectionPool: the pool.
    @ivar deferred: fires when the client is ready, or fails if it never will be.
    """

    noisy = False
    connectionPool: Any = None
    deferred: Deferred[Any] | None = None

    def __init__(self) -> None:
        self.deferred = Deferred()


@implementer(IPoolObserver)
class PoolObserver:
    """
    An observer that ignores everything: to be subclassed.
    """

    def dialing(self, server: str) -> None:
        """
        A dial begins.
        """

    def dialFailed(self, server: str, reason: BaseException) -> None:
        """
        A dial failed.
        """

    def connected(self, server: str, client: Any) -> None:
        """
        A client is ready.
        """

    def disconnected(self, server: str, client: Any, reason: str) -> None:
        """
        A connection has ended.
        """

    def refused(self, error: PoolError) -> None:
        """
        Somebody waited in vain.
        """

    def answered(self, method: str, seconds: float, result: Any) -> None:
        """
        A request has ended.
        """

    def lent(self, client: Any) -> None:
        """
        A client was borrowed.
        """

    def returned(self, client: Any) -> None:
        """
        A client was given back.
        """

    def leaked(self, client: Any, seconds: float, where: str) -> None:
        """
        A client has been borrowed for long.
        """


class Pool(PoolEngine, Generic[C]):
    """
    A bounded set of connections to one server, or to several equal ones, among which new connections go round.

    @cvar clientFactory: a subclass of L{PooledClientFactory}, or any
        L{IProtocolFactory<twisted.internet.interfaces.IProtocolFactory>}.
    """

    clientFactory: Any = None

    def __init__(
        self,
        serverAddresses: Any,
        maxClients: int = 5,
        reactor: Any = None,
        forceShutdown: bool = False,
        *,
        clientFactory: Any = None,
        name: str | None = None,
        minClients: int = 0,
        pipelineDepth: int = 1,
        maxWaiting: int | None = 100_000,
        waitTimeout: float | None = 30.0,
        connectTimeout: float | None = 30.0,
        requestTimeout: float | None = 60.0,
        cancelGrace: float | None = 5.0,
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
        allowedCommands: Container[str] | None = None,
        leakThreshold: float | None = None,
        observer: Any = None,
    ) -> None:
        """
        Times are in seconds. C{configure}, C{check} and C{reset} are called with a client and may return a Deferred or
        an awaitable; if that fails, or takes longer than C{connectTimeout}, the connection is closed.

        @param serverAddresses: an address or a list of addresses, see L{txconnpool.pool.dialing.endpointOf}.
        @param maxClients: most connections, dials in progress included.
        @param reactor: where to run; the global reactor if not given.
        @param forceShutdown: whether the pool, when the reactor stops, waits for nothing.
        @param clientFactory: overrides the attribute of that name.
        @param name: for logs; the name of the class if not given.
        @param minClients: connections that are kept open.
        @param pipelineDepth: most requests in flight on one connection. 1, unless the client keeps its replies apart.
        @param maxWaiting: most requests and leases that wait for a connection; C{None}: no bound.
        @param waitTimeout: how long these wait; C{None}: for ever.
        @param connectTimeout: from a dial until its client is ready; C{None}: no limit.
        @param requestTimeout: from the sending of a request to its reply; then its connection is closed. C{None}: no
            limit.
        @param cancelGrace: how long the connection of a cancelled request waits for its reply before it is closed;
            C{None}: no limit. A connection that is shared (C{pipelineDepth}) is not closed for it.
        @param idleTimeout: connections beyond C{minClients} are closed when unused for so long; C{None}: never.
        @param maxLifetime: connections are replaced when so old; C{None}: never.
        @param lifetimeJitter: the share by which each lifetime is shortened at random, at most.
        @param reuse: which idle connection is taken; see L{Limits}.
        @param whenDown: after how many failed dials in a row, with no connection left, requests fail at once instead of
            waiting; C{None}: they wait.
        @param backoff: the pauses between failed dials.
        @param configure: makes a new connection ready, by a login for example.
        @param check: finds out whether a connection that was unused lives. It may also give C{False} if not.
        @param checkIfIdleFor: a connection unused for so long is checked before it is used, if there is a C{check}.
        @param keepAlive: an idle connection is checked that often; C{None}: never.
        @param reset: makes a connection that was borrowed fit for others when it is given back.
        @param allowedCommands: which methods L{performRequest} may call; C{None}: all but those with an underscore and
            those that are for transports to call, as C{connectionLost} is.
        @param leakThreshold: a connection borrowed for longer is reported, with the place where; C{None}: it is not.
        @param observer: is told what happens: an L{IPoolObserver}.

        @raise ValueError: an address, or a bound, makes no sense.
        @raise TypeError: there is nothing to make clients with.
        """
        if reactor is None:
            from twisted.internet import reactor
        if clientFactory is None:
            clientFactory = self.clientFactory
        self._announcing = isinstance(clientFactory, type) and issubclass(clientFactory, PooledClientFactory)
        shared = IProtocolFactory.providedBy(clientFactory) and not isinstance(clientFactory, PooledClientFactory)
        if not (self._announcing or shared):
            raise TypeError(f"expected a subclass of PooledClientFactory or another factory, not {clientFactory!r}")
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
            clientFactory,
            limits,
            reactor,
            name=name or type(self).__name__,
            connectTimeout=connectTimeout,
            handshake=configure,
            announces=self._announcing,
            check=check,
            observer=observer,
        )
        self._checks = check is not None
        self._reset = reset
        self._allowed = allowedCommands
        self._forceShutdown = forceShutdown
        # By the id of the client, so that clients need not be hashable.
        self._records: dict[int, Record] = {}
        self._selfBusy: dict[int, int] = {}  # what clients that said they were busy put on their connection
        self._awaited: dict[Deferred[None], int] = {}
        self._trigger: Any = None
        self._sent = Deadlines(reactor, requestTimeout, self._unanswered)
        self._graces = Deadlines(reactor, cancelGrace, self._overstayed)
        self._watched = leakThreshold is not None or observer is not None
        self._leaks = None if leakThreshold is None else LeakWatch(reactor, leakThreshold, self._leaked)

    # -- Requests

    def performRequest(self, method: str, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """
        Call a method of a client that has room, now or as soon as there is one.

        @param method: its name.

        @return: fires with what the method gives. Fails with L{NoSuchCommand}, with a
            L{PoolError<txconnpool.errors.PoolError>}, or as the method fails. To cancel it frees the caller at once:
            what was not sent never is, and the reply to what was is dropped.
        """
        if method[:1] == "_" or method in _INTERNAL or (self._allowed is not None and method not in self._allowed):
            return fail(NoSuchCommand(f"{method!r} is no command"))
        if self._checks:
            self._state.doubt(self._seconds())
        request = Request(self, method, args, kwargs or None)
        answer: Any = request.answer
        try:
            record = self.take(request)
        except PoolError as error:
            return fail(error)
        if record is not None:
            request.granted(record)
        return answer  # type: ignore[no-any-return]

    def _unanswered(self, request: Request) -> None:
        """
        The reply to C{request} is late.
        """
        record: Record = request.record
        self.counters.requestTimeouts += 1
        text = f"no answer within {self._sent.timeout:g} s ({record.server.name})"
        self.retire(record, "no answer in time")  # before the caller of the request has its say, who may send the next
        request.fail(PoolTimeout(text, "request", self._state.stats()))
        self._abort(record)

    def _abandoned(self, request: Request) -> None:
        """
        Nobody waits for C{request} any more, which was sent.
        """
        if self._state.limits.depth == 1:
            self._graces.add(request)

    def _overstayed(self, request: Request) -> None:
        record: Record = request.record
        self.retire(record, "no answer to a cancelled request")
        self._abort(record)

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

    def _newFactory(self, record: Record) -> Any:
        """
        One factory for all clients, or one for each if they announce themselves.
        """
        if not self._announcing:
            return super()._newFactory(record)
        factory = self._factory()
        factory.noisy = False
        factory.connectionPool = self
        if factory.deferred is None:
            factory.deferred = Deferred()
        factory.deferred.addCallbacks(self.clientFree, self._unannounced, errbackArgs=(record,))
        return factory

    def _unannounced(self, failure: Failure, record: Record) -> None:
        """
        The client of C{record} says that it will never be ready.
        """
        if record in self._attempts:
            self._attempts[record].fail(failure.value or PoolError("the client will never be ready"))

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
        for request in [each for each in self._sent.since if each.record is record]:
            request.fail(ConnectionLostInFlight(f"the connection was lost ({record.server.name})"))

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
        failed = self._state.lastFailed
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
        self._sent.stop()
        self._graces.stop()
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
        self.limit(replace(self._state.limits, minimum=minClients, maximum=maxClients))

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
            self._state.engage(record)
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
        self.eject(serverAddress, ServerUnavailable("taken out of rotation"))


def _listed(addresses: Any) -> list[Any]:
    """
    One address, or many; C{(host, port)} is one.

    @raise ValueError: there is none.
    """
    several = isinstance(addresses, list | tuple) and not (len(addresses) == 2 and isinstance(addresses[1], int))
    if several and not addresses:
        raise ValueError("a pool needs the address of at least one server")
    return list(addresses) if several else [addresses]
