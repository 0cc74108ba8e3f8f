# -*- test-case-name: tests.test_pool -*-
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
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IPullProducer,
    IPushProducer,
)
from twisted.internet.protocol import ClientFactory
from twisted.protocols.basic import IntNStringReceiver, LineOnlyReceiver, LineReceiver, NetstringReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from txconnpool.core import Core
from txconnpool.dial import endpointOf
from txconnpool.errors import ClientNotOwned, ConnectionLostInFlight, NoSuchCommand, PoolError, PoolTimeout
from txconnpool.interfaces import IPipelined
from txconnpool.lease import C, Deadlines, Lease, Lending, Request
from txconnpool.state import GONE, OPEN, Backoff, Limits, Reuse, Slot

__all__ = ["Backoff", "NoSuchCommand", "Pool", "PooledClientFactory"]

P = ParamSpec("P")
T = TypeVar("T")

#: What Twisted calls on a protocol, or a protocol on itself: no commands, whoever names them.
_INTERNAL = frozenset(
    name
    for part in (
        *(LineReceiver, LineOnlyReceiver, IntNStringReceiver, NetstringReceiver, TimeoutMixin),
        *(IFileDescriptorReceiver, IHalfCloseableProtocol, IHandshakeListener, ILoggingContext),
        *(IPullProducer, IPushProducer),
    )
    for name in dir(part)
) - {"sendLine", "sendString"}


class PooledClientFactory(ClientFactory):
    """
    Makes one client that tells the pool when it is ready: by C{self.factory.connectionPool.clientFree(self)}, or by
    firing C{self.factory.deferred} with itself, or both. The pool makes one such factory for each connection.

    A factory of any other class makes clients that are ready as soon as they are connected.

    @ivar protocol: the class of the client.
    @ivar connectionPool: the pool.
    @ivar deferred: fires when the client is ready, or fails if it never will be.
    """

    noisy = False
    connectionPool: Any = None
    deferred: Deferred[Any] | None = None

    def __init__(self) -> None:
        self.deferred = Deferred()


class Pool(Core, Generic[C]):
    """
    A bounded set of connections to one server, or to several equal ones.

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
        maxWaiting: int | None = 100_000,
        acquireTimeout: float | None = 30.0,
        connectTimeout: float | None = 30.0,
        requestTimeout: float | None = 60.0,
        idleTimeout: float = 600.0,
        maxLifetime: float = 3600.0,
        lifetimeJitter: float = 0.05,
        pipelineDepth: int = 1,
        reuse: Reuse = "lifo",
        whenDown: int | None = 3,
        backoff: Backoff | None = None,
        configure: Callable[[C], object] | None = None,
        reset: Callable[[C], object] | None = None,
        cancelGrace: float | None = 5.0,
        allowedCommands: Container[str] | None = None,
    ) -> None:
        """
        @param serverAddresses: an address or a list of addresses, see L{txconnpool.dial.endpointOf}.
        @param maxClients: most connections, dials in progress included.
        @param reactor: where to run; the global reactor if not given.
        @param forceShutdown: whether the pool, when the reactor stops, does not wait for requests in flight.
        @param clientFactory: overrides the attribute of that name.
        """
        if reactor is None:
            from twisted.internet import reactor
        if clientFactory is None:
            clientFactory = self.clientFactory
        self._perClient = isinstance(clientFactory, type)
        limits = Limits(
            maximum=maxClients,
            minimum=minClients,
            depth=pipelineDepth,
            maxWaiting=maxWaiting,
            waitTimeout=acquireTimeout,
            idleTimeout=idleTimeout,
            maxLifetime=maxLifetime,
            lifetimeJitter=lifetimeJitter,
            reuse=reuse,
            whenDown=whenDown,
            backoff=backoff or Backoff(),
        )
        super().__init__(
            _listed(serverAddresses),
            clientFactory,
            limits,
            reactor,
            name=name or type(self).__name__,
            connectTimeout=connectTimeout,
            handshake=configure,
            announces=self._perClient,
        )
        self._allowed = allowedCommands
        self._reset = reset
        self._forceShutdown = forceShutdown
        self._requestTimeout = requestTimeout
        self._slots: dict[int, Slot] = {}  # by the id of the client, so that clients need not be hashable
        self._lent: dict[int, int] = {}  # the load of a lease, by the same
        self._trigger: Any = None
        self.inFlight = Deadlines(reactor, requestTimeout, self._late)
        self._abandoned = Deadlines(reactor, cancelGrace, self._overstayed)

    # -- Requests

    def performRequest(self, method: str, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """
        Call a method of a client that has room.

        @return: fires with what the method returns or fires with.
        """
        if method[:1] == "_" or method in _INTERNAL or (self._allowed is not None and method not in self._allowed):
            return fail(NoSuchCommand(f"{method!r} is no command"))
        request = Request(self, method, args, kwargs)
        answer = request.answer
        try:
            slot = self.take(request)
        except PoolError as error:
            return fail(error)
        if slot is not None:
            request.granted(slot)
        return answer  # type: ignore[return-value]  # it has one when it is made

    def _late(self, request: Request) -> None:
        slot = request.slot
        assert slot is not None
        self.counters.requestTimeouts += 1
        text = f"no answer within {self._requestTimeout:g} s ({slot.server.name})"
        request.fail(PoolTimeout(text, "request", self.stats))
        self._abort(slot, text)

    def abandoned(self, request: Request) -> None:
        """
        A request in flight was cancelled: its reply is awaited for a while, so that its connection can be used again.
        """
        if self._state.limits.depth == 1:
            self._abandoned.add(request)

    def _overstayed(self, request: Request) -> None:
        slot = request.slot
        if slot is not None and request in self.inFlight.since:
            self._abort(slot, "the reply to a cancelled request did not come")

    def _abort(self, slot: Slot, reason: str) -> None:
        self.discard(slot, reason)
        slot.client.transport.abortConnection()

    # -- Leases

    def acquire(self) -> Deferred[C]:
        """
        Borrow a client. It must be given back with L{release}.

        @return: fires with the client, which is the caller's alone.
        """
        client = self.acquireNow()
        if client is not None:
            return succeed(client)
        lease = Lease(self)
        wanted = lease.client
        try:
            self.take(lease, True)
        except PoolError as error:
            return fail(error)
        return wanted  # type: ignore[return-value]  # it has one when it is made

    def acquireNow(self) -> C | None:
        """
        Borrow a client if one is idle and nobody waits: L{acquire} without the cost of a L{Deferred}.
        """
        state = self._state
        if state.waiting:
            return None
        slot = state.pick(True)
        if slot is None:
            return None
        state.counters.acquired += 1
        return self.lend(slot)

    def lend(self, slot: Slot) -> C:
        """
        Let the client of C{slot} be somebody's alone.
        """
        client: C = slot.client
        load = slot.depth
        slot.load += load
        self._lent[id(client)] = load
        return client

    def release(self, client: C, discard: bool = False) -> None:
        """
        Give a borrowed client back. One whose connection is lost is given back all the same.

        @param discard: whether to close its connection: it is in no state to be used by others.

        @raise ClientNotOwned: it is not borrowed, or not any more.
        """
        key = id(client)
        load = self._lent.pop(key, None)
        if load is None:
            raise ClientNotOwned(f"not borrowed from {self.name}: {client!r}")
        slot = self._slots[key]
        if discard:
            self._abort(slot, "given back to be closed")
        if slot.phase is GONE:
            del self._slots[key]
        elif self._reset is not None and not discard:
            maybeDeferred(self._reset, client).addCallbacks(
                self._wasReset, self._notReset, callbackArgs=(slot, load), errbackArgs=(slot, load)
            )
        else:
            slot.load -= load
            self.eased(slot)

    def _wasReset(self, result: object, slot: Slot, load: int) -> None:
        slot.load -= load
        self.eased(slot)

    def _notReset(self, failure: Failure, slot: Slot, load: int) -> None:
        self._abort(slot, f"reset failed: {failure.getErrorMessage()}")

    def connection(self) -> Lending[C]:
        """
        Borrow a client for a block: C{async with pool.connection() as client:}.
        """
        return Lending(self)

    def withConnection(
        self, f: Callable[Concatenate[C, P], Awaitable[T] | T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """
        Borrow a client for the time of a call: of C{f(client, *args, **kwargs)}, until what it returns has fired.
        """

        async def call() -> Any:
            async with self.connection() as client:
                return await maybeDeferred(f, client, *args, **kwargs)

        return Deferred.fromCoroutine(call())

    # -- Connections

    def newFactory(self) -> Any:
        """
        @return: what makes the next client.
        """
        if not self._perClient:
            return self._factory
        factory = self._factory()
        factory.noisy = False
        factory.connectionPool = self
        return factory

    def made(self, slot: Slot, client: Any) -> None:
        """
        There is a client for C{slot}, about to be connected.
        """
        super().made(slot, client)
        if IPipelined.providedBy(client):
            slot.weight = 0
        self._slots[id(client)] = slot
        announcement = getattr(client.factory, "deferred", None) if self._perClient else None
        if announcement is not None:
            announcement.addCallbacks(self.clientFree, lambda failure: self._attempts[slot].fail(failure.value))

    def failed(self, slot: Slot, reason: BaseException) -> None:
        """
        The dial of C{slot} failed.
        """
        self._slots.pop(id(self._attempts[slot].client), None)
        super().failed(slot, reason)

    def forsaken(self, slot: Slot) -> None:
        """
        The connection of C{slot} is gone, and its client knows. What is still in flight will not be answered.
        """
        if id(slot.client) not in self._lent:
            del self._slots[id(slot.client)]
        for request in [each for each in self.inFlight.since if each.slot is slot]:
            request.fail(ConnectionLostInFlight(f"the connection was lost ({slot.server.name})"))

    # -- Life cycle

    def start(self) -> None:
        """
        Begin to connect, and close when the reactor stops.
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
        return super().close(timeout)

    def finished(self) -> None:
        """
        Nothing is left.
        """
        self.inFlight.stop()
        self._abandoned.stop()
        if self._trigger is not None:
            self.reactor.removeSystemEventTrigger(self._trigger)
            self._trigger = None

    async def __aenter__(self) -> Pool[C]:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def resize(self, minClients: int, maxClients: int) -> None:
        """
        Put other bounds on the number of connections in force.
        """
        self.limit(replace(self._state.limits, minimum=minClients, maximum=maxClients))

    # -- The names of 0.1.2

    def suggestMaxClients(self, maxClients: int) -> None:
        """
        Put another bound on the number of connections in force.
        """
        self.resize(min(self._state.limits.minimum, maxClients), maxClients)

    def clientFree(self, client: Any) -> None:
        """
        A client says that it is connected, or free again after it said it was busy.
        """
        slot = self._slots.get(id(client))
        if slot is not None and slot in self._attempts:
            self._attempts[slot].announced()

    def clientBusy(self, client: Any) -> None:
        """
        An idle client says that it is busy, until it says that it is free.
        """

    def clientGone(self, client: Any) -> None:
        """
        A client is not to be used any more.
        """
        slot = self._slots.get(id(client))
        if slot is not None and slot.phase is OPEN:
            self.discard(slot, "the client is gone")

    def clientFailed(self, client: Any, connector: Any) -> None:
        """
        A client could not connect: its server is not dialed for a while.
        """
        self.removeServerFromRotation(connector.getDestination())
        self.clientGone(client)

    def removeServerFromRotation(self, serverAddress: Any) -> None:
        """
        Do not dial a server for a while. Its connections stay.
        """
        name, _ = endpointOf(serverAddress, self.reactor)
        self.eject(name)


def _listed(addresses: Any) -> list[Any]:
    return addresses if isinstance(addresses, list) else [addresses]
