# -*- test-case-name: tests.memcache.test_servers -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Pools for programs with one server, several equal ones, or several that share the keys.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.logger import Logger
from zope.interface import implementer

from txconnpool.errors import ClientNotOwned, PoolError
from txconnpool.interfaces import IPoolControl
from txconnpool.pool.base import BasePool
from txconnpool.pool.checks import checkSeconds, checkWhole
from txconnpool.pool.leases import C, Lending
from txconnpool.pool.leasing import callWith
from txconnpool.routing.clientcluster import ClientCluster, ClusterServers
from txconnpool.routing.clientnodes import ClientNodes
from txconnpool.routing.clientreplicas import ClientReplicas, ReplicatedServers
from txconnpool.routing.control import ClientShards, PoolControls
from txconnpool.routing.options import Servers, encoded
from txconnpool.routing.single import SinglePool

_log = Logger("txconnpool.routing")

P = ParamSpec("P")
T = TypeVar("T")


class MakePool(Protocol):
    """
    Makes a pool of interchangeable connections.
    """

    def __call__(self, addresses: list[Any], /, **options: Any) -> BasePool[Any]:
        """
        @param addresses: equal servers.
        @param options: if the pool is one of several, C{limits}, C{shared} and C{healthChanged}, see
            L{BasePool.__init__} and L{Executor<txconnpool.pool.executor.Executor.__init__>}.
        """


@implementer(IPoolControl)
class PoolFace(PoolControls[C]):
    """
    What all pools for programs have in common, whatever their requests are, and however many servers they have.

    As in txconnpool 0.1.2, a I{client} is the protocol instance of a connection.

    @ivar name: the name in logs.
    @ivar reactor: the reactor of all connections and timers.
    """

    #: The pools of the nodes of a cluster, or of a master and its replicas; C{None}: the servers are of another kind.
    nodes: ClientCluster | ClientReplicas | None = None

    # The only pool, or None if there are several.
    _only: Any = None

    # Chooses the pool of a key.
    _router: Any

    def __init__(self, servers: Servers | ClusterServers | ReplicatedServers, make: MakePool) -> None:
        """
        @param servers: the servers.
        @param make: makes the pool of equal servers, or of each server.

        @raise ValueError: the servers are not possible with the distribution.
        """
        pool = make(servers.addresses)  # with several servers it is not used, but it has checked all options
        self.name: str = pool.name
        self.reactor: Any = pool.reactor
        self._equal = servers.equal
        if isinstance(servers, ClusterServers):
            self.nodes = ClientCluster(pool, make, servers)
        elif isinstance(servers, ReplicatedServers):
            self.nodes = ClientReplicas(pool, make, servers)
        if self.nodes is not None:
            self._control, self._router = self.nodes, self.nodes.router
            return
        assert isinstance(servers, Servers)
        if servers.distribution is None:
            self._only = self._control = pool
            self._router = SinglePool(pool)
            return
        self._control = self._router = ClientShards(
            pool.name, pool.reactor, lambda address, limits, **sharing: make([address], limits=limits, **sharing),
            servers.shards(), servers.distribution, pool.limits, servers.ejection,
        )  # fmt: skip
        _log.info("{pool}: the keys are distributed among {count} servers by {distribution}", pool=self.name,
                  count=len(self.servers), distribution=servers.distribution.name)  # fmt: skip
        for warning in servers.distribution.warnings([shard.spec for shard in servers.shards()]):
            _log.warn("{pool}: {warning}", pool=self.name, warning=warning)

    @property
    def _pools(self) -> tuple[BasePool[C], ...]:
        pools: tuple[BasePool[C], ...] = self._router.pools if self.nodes is None else self.nodes.everyPool
        return pools

    def _anyPool(self) -> BasePool[C]:
        pool: BasePool[C] = self._router.anyOf()
        return pool

    def _poolOf(self, key: bytes) -> BasePool[C]:
        """
        @raise ServerUnavailable: the servers that may have the key are down.
        """
        pool: BasePool[C] = self._router.choose(key)
        return pool

    @property
    def cluster(self) -> ClientCluster | None:
        """
        See L{IPoolControl<txconnpool.interfaces.IPoolControl>}.
        """
        cluster: ClientCluster | None = self._control.cluster
        return cluster

    def _theOnly(self) -> BasePool[C] | ForKeyOfNodes[C]:
        """
        @return: has the methods for leases: the only pool, or that of the only server that has the keys.
        """
        if self.nodes is not None and not self.nodes.router.divides:
            return ForKeyOfNodes(self, self.nodes, b"")
        if self._only is None:
            raise TypeError(f"the servers of {self.name} share the keys: use forKey(key)")
        pool: BasePool[C] = self._only
        return pool

    def forKey(self, key: str | bytes) -> ForKey[C]:
        """
        Choose the server of a key. Nothing is kept: the result may be dropped, or used again.

        @param key: text is encoded as UTF-8.

        @return: has the methods for leases of this pool; they concern the server of the key.
        """
        if self.nodes is not None:
            return ForKeyOfNodes(self, self.nodes, key)
        return ForKey(self._poolOf, key)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.stats}>"

    # -- Leases

    def acquire(self) -> Deferred[C]:
        """
        Lease a connection: the client is the caller's alone until it is given to L{release}.

        @return: a Deferred that fires with the client. It fails with a L{PoolError}.

        @raise TypeError: the servers share the keys: use L{forKey}. So do the other methods for leases.
        """
        return self._theOnly().acquire()

    def acquireNow(self) -> C | None:
        """
        Lease a connection if one is idle and there are no waiters. This is L{acquire} without the cost of a
        L{Deferred<twisted.internet.defer.Deferred>}.

        @return: the client, or C{None}.
        """
        return self._theOnly().acquireNow()

    def release(self, client: C, discard: bool = False) -> None:
        """
        End a lease. This is also necessary if the connection was lost.

        @param discard: whether to close the connection, because it is not in a state in which others can use it.

        @raise ClientNotOwned: C{client} is not leased, or not any more.
        """
        for pool in self._pools:
            if pool.isMine(client):
                pool.release(client, discard)
                return
        raise ClientNotOwned(f"not borrowed from {self.name}: {client!r}")

    def connection(self) -> Lending[C]:
        """
        Lease a connection for a block: C{async with pool.connection() as client:}. If the block raises,
        the connection is closed.
        """
        return self._theOnly().connection()

    @overload
    def withConnection(
        self, f: Callable[Concatenate[C, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...

    @overload
    def withConnection(
        self, f: Callable[Concatenate[C, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...

    def withConnection(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """
        Lease a connection for a call, C{f(client, *args, **kwargs)}. If C{f} returns a Deferred or an
        awaitable, the lease ends when that has a result. If the call fails, the connection is closed.

        @return: a Deferred that fires with the result of C{f}, or fails as C{f} does.

        @raise TypeError: C{f} cannot be called, or the servers share the keys: use L{forKey}.
        """
        return self._theOnly().withConnection(f, *args, **kwargs)

    # -- The names of 0.1.2

    def clientFree(self, client: C) -> None:
        """
        A client reports that it is connected, or that it is not busy any more. Other calls have no effect.
        """
        for pool in self._pools:
            pool.clientFree(client)

    def clientBusy(self, client: C) -> None:
        """
        A client that carries nothing reports that it is busy, until it calls L{clientFree}.
        """
        for pool in self._pools:
            pool.clientBusy(client)

    def clientGone(self, client: C) -> None:
        """
        A client must not be used any more: its connection is closed when it carries nothing.
        """
        for pool in self._pools:
            pool.clientGone(client)

    def clientFailed(self, client: C, connector: Any) -> None:
        """
        A client could not connect: its server is not dialed for a while.

        @param connector: an L{IConnector<twisted.internet.interfaces.IConnector>}.
        """
        self.removeServerFromRotation(connector.getDestination())
        self.clientGone(client)

    # -- Life cycle

    def start(self) -> None:
        """
        Begin to connect, and close when the reactor stops. A pool that was not started starts when it is first used.
        """
        self._control.start()

    def ready(self, count: int | None = None, timeout: float | None = 30.0) -> Deferred[None]:
        """
        Start the pool, and wait until connections are established. With several servers that share the keys, each must
        have one.

        @param count: the number of connections; C{minClients}, and at least one, if not given.
        @param timeout: seconds to wait; C{None}: no limit.

        @return: a Deferred that fires when the connections are established. It fails with a L{PoolError}, or with a
            C{ValueError} if C{count} is above C{maxClients}.
        """
        checkWhole("count", count, 0, optional=True)
        checkSeconds("timeout", timeout)
        if self._only is not None:
            ready: Deferred[None] = self._only.ready(count, timeout)
            return ready
        if self.nodes is None:
            return self._eachReady(count, timeout)
        return Deferred.fromCoroutine(self._nodesReady(self.nodes, count, timeout))

    async def _nodesReady(self, nodes: ClientNodes, count: int | None, timeout: float | None) -> None:
        nodes.start()
        if not nodes.isKnown:
            await nodes.whenKnown()
        if not nodes.primaries:
            raise nodes.unserved
        await self._eachReady(count, timeout)

    def _eachReady(self, count: int | None, timeout: float | None) -> Deferred[None]:
        pools = self._router.pools
        if count is not None and count > max(self.limits.maximum, len(pools)):
            return fail(ValueError(f"{count} connections are more than maxClients, {self.limits.maximum}"))
        counts = [None if count is None else max(1, (count + index) // len(pools)) for index in range(len(pools))]
        counts.reverse()  # the first servers have those that are left over, as in the limits
        return together(pool.ready(each, timeout) for pool, each in zip(pools, counts, strict=True))

    def close(self, timeout: float | None = 5.0) -> Deferred[None]:
        """
        Accept no more requests, refuse the waiters, let requests in flight and leases end, and close all connections.

        @param timeout: seconds until connections with requests in flight or leases are closed too; C{None}: no limit.

        @return: a Deferred that fires when no connection, dial or timer is left.
        """
        checkSeconds("timeout", timeout)
        closed: Deferred[None] = self._control.close(timeout)
        return closed

    def abort(self) -> Deferred[None]:
        """
        Close all connections at once.

        @return: as L{close}.
        """
        closed = self.close(None)
        self._control.abort()
        return closed

    def expire(self) -> None:
        """
        Replace all existing connections one after another. Each stays in use until its successor is established, and
        is closed when it carries nothing.
        """
        for pool in self._pools:
            pool.expire()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class ForKey(Generic[C]):
    """
    The server of a key, as a caller of a pool sees it. Which one it is, is found with each call.
    """

    __slots__ = ("_choose", "_key")

    def __init__(self, choose: Callable[[bytes], BasePool[C]], key: str | bytes) -> None:
        self._choose = choose
        self._key = encoded(key)

    def acquire(self) -> Deferred[C]:
        """
        Lease a connection to the server, see L{PoolFace.acquire}.
        """
        try:
            return self._choose(self._key).acquire()
        except PoolError as error:
            return fail(error)

    def connection(self) -> Lending[C]:
        """
        Lease a connection to the server for a block, see L{PoolFace.connection}.

        @raise ServerUnavailable: the servers that may have the key are down.
        """
        return Lending(self._lender())

    @overload
    def withConnection(
        self, f: Callable[Concatenate[C, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...

    @overload
    def withConnection(
        self, f: Callable[Concatenate[C, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...

    def withConnection(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """
        Lease a connection to the server for a call, see L{PoolFace.withConnection}.

        @raise ServerUnavailable: the servers that may have the key are down.
        """
        return callWith(self._lender(), f, *args, **kwargs)

    def _lender(self) -> Any:
        """
        @return: what has the methods C{acquire} and C{release} for leases.
        """
        return self._choose(self._key)


class ForKeyOfNodes(ForKey[C]):
    """
    The node that has a key. Leases wait until it is known which one it is.
    """

    __slots__ = ("_nodes", "_release")

    def __init__(self, face: PoolFace[C], nodes: ClientNodes, key: str | bytes) -> None:
        super().__init__(nodes.router.choose, key)
        self._nodes = nodes
        self._release = face.release

    def acquire(self) -> Deferred[C]:
        """
        Lease a connection to the node, see L{PoolFace.acquire}.
        """
        if self._nodes.isKnown:
            return super().acquire()
        return self._nodes.whenKnown().addCallback(lambda _: ForKey.acquire(self))

    def acquireNow(self) -> C | None:
        """
        Lease a connection to the node if one is idle, see L{PoolFace.acquireNow}.
        """
        return self._choose(self._key).acquireNow() if self._nodes.primaries else None

    def release(self, client: C, discard: bool = False) -> None:
        """
        End a lease, see L{PoolFace.release}.
        """
        self._release(client, discard)

    def _lender(self) -> Any:
        return self


def together(results: Iterable[Deferred[Any]]) -> Deferred[None]:
    """
    Wait for several results.

    @return: fires when all have come; fails as the first one that fails. The others are cancelled then.
    """
    waiting = list(results)

    def failed(failure: Any) -> Any:
        for each in waiting:
            each.cancel()
        return failure.value.subFailure

    done: Deferred[Any] = gatherResults(waiting, consumeErrors=True)
    return done.addCallbacks(lambda _: None, failed)
