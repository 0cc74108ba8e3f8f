# -*- test-case-name: tests.routing.test_flavours -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The pools of a protocol whose connections have a state: one for each flavour of connections, and one for the connections
that clients have for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from operator import attrgetter, methodcaller
from typing import Any

from zope.interface import implementer

from txconnpool.interfaces import IPoolControl, IRouter
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.shared import Shared
from txconnpool.routing.group import PoolGroup
from txconnpool.routing.maps import Divided
from txconnpool.routing.uses import FlavourUses, Owner, nobody


@implementer(IPoolControl)
class FlavouredPool(PoolGroup):
    """
    The pool of each flavour, made when it is first used, and the pool for connections of a client's own. All have the
    same servers, and operators see them as one pool. L{FlavourUses} bounds their number.

    @ivar limits: the limits of the pool of one flavour.
    @ivar base: the pool of the flavour that new clients have.
    @ivar leases: the pool of the connections that clients have for themselves.
    """

    def __init__(
        self,
        name: str,
        reactor: Any,
        newPool: Callable[..., Any],
        limits: Limits,
        flavour: Hashable,
        maxPinned: int,
        shared: Shared | None = None,
        **options: Any,
    ) -> None:
        """
        @param newPool: called with a flavour, or C{None} for connections as they are when they are new, limits, and the
            keyword C{shared}. Returns a pool.
        @param flavour: the flavour of new clients.
        @param maxPinned: the greatest number of connections that clients have for themselves.
        @param shared: what this pool shares with those of other servers, or C{None}.
        @param options: further keywords of C{newPool}, for the pool of new clients only.
        """
        super().__init__(name, reactor, limits, shared)
        self._newPool = newPool
        self._maxPinned = maxPinned
        self.base = newPool(flavour, limits, shared=self._shared, **options)
        self.leases = newPool(None, self._leaseLimits(), shared=self._shared)
        self.former = self.base.former
        self._flavours: dict[Hashable, Any] = {flavour: self.base}
        self.pools = self.base, self.leases
        self._count(self.leases)

    def of(self, flavour: Hashable) -> Any:
        """
        @return: the pool of a flavour.
        """
        pool = self._flavours.get(flavour)
        if pool is None:
            pool = self._newPool(flavour, replace(self.limits, minimum=0), shared=self._shared)
            self._count(pool)
            for server in self.base.servers:
                if server.drained:
                    pool.drain(server.name)
            self._flavours[flavour] = pool
            self.pools = *self.pools, pool
            self._join(pool)
        return pool

    def end(self, flavour: Hashable) -> None:
        """
        Close the pool of a flavour that no client uses any more, if it has one. Its requests in flight, of clients that
        are gone, end before.
        """
        pool = self._flavours.pop(flavour, None)
        if pool is not None:
            self.pools = tuple(each for each in self.pools if each is not pool)
            self._leave(pool)

    def _leaseLimits(self) -> Limits:
        return replace(self.limits, maximum=self._maxPinned, minimum=0)

    def _count(self, pool: Any) -> None:
        """
        Let the servers of a pool have the counters of those of the base.
        """
        traffic = {server.name: server.traffic for server in self.base.servers}
        for server in pool.servers:
            server.traffic = traffic[server.name]

    # -- What there is

    @property
    def _present(self) -> tuple[Any, ...]:
        return (*self.pools, *self._leaving)

    @property
    def queues(self) -> list[Any]:
        """
        The queues of waiters.
        """
        return [pool.waiters for pool in self.pools]

    @property
    def servers(self) -> list[Any]:
        """
        The servers, as the pool of new clients sees them.
        """
        servers: list[Any] = self.base.servers
        return servers

    @property
    def down(self) -> bool:
        """
        Whether requests of new clients are refused because no server can be reached.
        """
        down: bool = self.base.down
        return down

    # -- Changes

    def setLimits(self, limits: Limits, maxPinned: int | None = None) -> None:
        """
        Apply other limits.
        """
        self.limits = limits
        if maxPinned is not None:
            self._maxPinned = maxPinned
        for pool in self._flavours.values():
            pool.setLimits(limits if pool is self.base else replace(limits, minimum=0))
        self.leases.setLimits(self._leaseLimits())

    def addServer(self, address: Any) -> None:
        """
        Add a server.
        """
        for pool in self.pools:
            pool.addServer(address)
            self._count(pool)

    def removeServer(self, address: Any) -> None:
        """
        Remove a server for good.
        """
        for pool in self.pools:
            pool.removeServer(address)

    def drain(self, address: Any, abort: bool = False) -> None:
        """
        Take a server out of service until it is restored.
        """
        for pool in self.pools:
            pool.drain(address, abort)

    def restore(self, address: Any) -> None:
        """
        Put a drained server back into service.
        """
        for pool in self.pools:
            pool.restore(address)


@implementer(IRouter)
class FlavouredRouter:
    """
    The choice by key among the connections of one kind: those of one flavour, or those that clients have for
    themselves.
    """

    keyed = True
    standIn = None

    #: Whether servers pass on to each other what they send unasked, so that any of them may be asked for it.
    passesOn = False

    def __init__(self, shards: Any, pick: Callable[[Any], Any]) -> None:
        """
        @param shards: a L{ShardedPool<txconnpool.routing.shards.ShardedPool>} of L{FlavouredPool}s.
        @param pick: called with one of these. Returns its pool of the connections.
        """
        self._shards = shards
        self._pick = pick

    @property
    def pools(self) -> tuple[Any, ...]:
        """
        The pool of each server.
        """
        return tuple(map(self._pick, self._shards.pools))

    @property
    def serving(self) -> tuple[Any, ...]:
        """
        The pool of each server whose keys others do not have.
        """
        ejected = self._shards.ejected
        return tuple(self._pick(pool) for pool in self._shards.pools if pool.servers[0].name not in ejected)

    def choose(self, key: bytes) -> Any:
        """
        @return: the pool of a key.

        @raise PoolError: there is none at the moment.
        """
        return self._pick(self._shards.choose(key))

    def divide(self, command: Any, requests: list[bytes], most: int) -> Divided:
        """
        Divide requests among the pools, see L{IRouter.divide<txconnpool.interfaces.IRouter.divide>}.
        """
        pick = self._pick
        orders, shares, pools = self._shards.shares(command, requests, most)
        return orders, [(None if index < 0 else pick(pools[index]), own, count) for index, own, count in shares]

    def anyOf(self) -> Any:
        """
        @return: a pool for a request without a key.

        @raise PoolError: there is no server.
        """
        return self._pick(self._shards.anyOf())


class SingleFlavours(FlavourUses):
    """
    The flavours of a pool whose servers are interchangeable.
    """

    def __init__(self, pool: FlavouredPool, base: Hashable, owner: Owner = nobody) -> None:
        """
        @param base: the flavour of new clients.
        @param owner: see L{FlavourUses.__init__}.
        """
        super().__init__(pool, base, pool.base, pool.leases, owner)

    @property
    def questions(self) -> Any:
        """
        The pool of connections on which a server is asked something that is no request of a client.
        """
        return self._pool.of(None)

    def _begin(self, flavour: Hashable) -> Any:
        return self._pool.of(flavour)

    def _close(self, flavour: Hashable) -> None:
        self._pool.end(flavour)


class FlavouredShards(FlavourUses):
    """
    The flavours of a pool with several servers by key: each has a router.
    """

    def __init__(self, shards: Any, base: Hashable, owner: Owner = nobody) -> None:
        """
        @param shards: a L{ShardedPool<txconnpool.routing.shards.ShardedPool>} of L{FlavouredPool}s.
        @param base: the flavour of new clients.
        @param owner: see L{FlavourUses.__init__}.
        """
        self._shards = shards
        super().__init__(
            shards, base, self._router(attrgetter("base"), base), self._router(attrgetter("leases")), owner
        )

    @property
    def questions(self) -> Any:
        """
        As that of L{SingleFlavours}, of any server.

        @raise PoolError: there is none.
        """
        return self._shards.anyOf().of(None)

    def _router(self, pick: Callable[[Any], Any], flavour: Hashable = None) -> Any:
        """
        @param flavour: the flavour of the connections; C{None}: those that clients have for themselves.

        @return: the router among the connections that C{pick} finds.
        """
        return FlavouredRouter(self._shards, pick)

    def _begin(self, flavour: Hashable) -> Any:
        for pool in self._shards.pools:
            pool.of(flavour)
        return self._router(methodcaller("of", flavour), flavour)

    def _close(self, flavour: Hashable) -> None:
        for pool in self._shards.pools:
            pool.end(flavour)
