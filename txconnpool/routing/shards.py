# -*- test-case-name: tests.routing.test_shards -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Many servers, each of which holds a part of the keys: a pool for each server, and the map of keys to servers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from txconnpool.errors import ServerUnavailable
from txconnpool.interfaces import IPoolControl, IRouter
from txconnpool.pool.decisions.health import NO_SERVERS
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.servers import Server
from txconnpool.routing.distribution import Distribution, KeyMap, movedShare
from txconnpool.routing.group import PoolGroup
from txconnpool.routing.maps import Divided, Ejection, KeyShare, Maps, Shard
from txconnpool.routing.standin import StandIn

_log = Logger("txconnpool.routing")

T = TypeVar("T")

#: The error for a key that has no server.
NO_SERVER = "upstream unavailable: all servers that may have the key are down"


def unserved(pools: Sequence[Any]) -> ServerUnavailable:
    """
    @param pools: the pools of all servers.

    @return: the error for keys that have no server.
    """
    return ServerUnavailable(NO_SERVER if pools else NO_SERVERS)


def replaceShare(
    orders: list[list[int]], shares: list[T], number: int, itsOrder: list[int], its: list[T]
) -> tuple[list[list[int]], list[T]]:
    """
    Replace a share of keys by several, because they were divided again.

    @param orders: for each request the number of the share of each key.
    @param number: the number of the share that is replaced.
    @param itsOrder: the number of the new share of each of its keys.
    @param its: the new shares, at least one.

    @return: C{orders} and C{shares} with the new ones. The other shares keep their numbers.
    """
    numbers = [number, *range(len(shares), len(shares) + len(its) - 1)]
    following = iter(itsOrder)
    orders = [[numbers[next(following)] if each == number else each for each in order] for order in orders]
    return orders, [*shares[:number], its[0], *shares[number + 1 :], *its[1:]]


@implementer(IRouter, IPoolControl)
class ShardedPool(PoolGroup):
    """
    The pools of several servers, and the choice among them by key. Operators see it as one pool.

    @ivar standIn: the pools that get the keys of servers that are down, or C{None}.
    @ivar remapped: called when keys may have got another server, if it is not C{None}.
    """

    keyed = True
    standIn: StandIn | None = None
    remapped: Callable[[], object] | None = None

    def __init__(
        self,
        name: str,
        reactor: Any,
        newPool: Callable[..., Any],
        shards: Sequence[Shard],
        distribution: Distribution,
        limits: Limits,
        ejection: Ejection,
    ) -> None:
        """
        @param newPool: called with the address of a server, its limits, and the keywords C{shared} and
            C{healthChanged}, see L{txconnpool.pool.executor.Executor}. Returns its pool.
        @param shards: the servers. There may be none, as long as none is known.

        @raise ValueError: the servers are not possible with this distribution.
        """
        super().__init__(name, reactor, limits)
        self._newPool = newPool
        self._ejection = ejection
        self._byAddress: dict[Any, Any] = {}
        self._ejectedByHand: set[Any] = set()  # pools
        self._shares: tuple[KeyMap, list[float]] | None = None
        self._remapping: Any = None  # the delayed call of _remap, or None
        self._ended = False
        self._maps = Maps(distribution, shards)
        self._byIndex: tuple[Any, ...] = ()  # the pool of each shard; some have the same if an address is listed twice
        self._use(shards, distribution)

    # -- The choice of a pool

    def choose(self, key: bytes) -> Any:
        """
        @return: the pool of a key.

        @raise ServerUnavailable: the distribution has no server for the key, because too many are down.
        """
        index = self._cached[key]
        if index < 0:
            raise unserved(self.pools)
        pool = self._byIndex[index]
        if self.standIn is not None and pool.down:
            return self.standIn.choose(key)
        return pool

    def divide(self, command: Any, requests: list[bytes], most: int) -> Divided:
        """
        Divide requests among the pools, see L{IRouter.divide<txconnpool.interfaces.IRouter.divide>}.
        """
        orders, shares = command.shares(requests, self._cached, most)
        pools = self._byIndex
        found = [(None if index < 0 else pools[index], share, count) for index, share, count in shares]
        standIn = self.standIn
        if standIn is not None:
            for number, (pool, share, _) in enumerate(list(found)):
                if pool is not None and pool.down:
                    orders, found = replaceShare(orders, found, number, *standIn.divide(command, share, most))
        return orders, found

    def shares(
        self, command: Any, requests: list[bytes], most: int
    ) -> tuple[list[list[int]], list[tuple[int, bytes, int]], tuple[Any, ...]]:
        """
        Divide requests among the servers, as if none of them had a stand-in.

        @return: the results of L{Command.shares<txconnpool.wire.Command.shares>}, and the pool of each index that is
            not negative.
        """
        return (*command.shares(requests, self._cached, most), self._byIndex)

    def anyOf(self) -> Any:
        """
        @return: a pool whose server is up, or the first one if all are down.

        @raise ServerUnavailable: there is no server.
        """
        if not self.pools:
            raise unserved(self.pools)
        return next((pool for pool in self.pools if pool.servers[0].state == "up"), self.pools[0])

    def _use(self, shards: Sequence[Shard], distribution: Distribution) -> None:
        if not self._maps.isFor(distribution, shards):
            self._maps = Maps(distribution, shards)
        addresses = dict.fromkeys(shard.address for shard in shards)
        pools = {}
        for address, own in zip(addresses, self._divided(len(addresses)), strict=True):
            pool = self._byAddress.get(address)
            if pool is None:
                pool = self._newPool(address, own, shared=self._shared, healthChanged=self._healthChanged)
            elif own != pool.limits:
                pool.setLimits(own)
            pools[address] = pool
        self._shards = tuple(shards)
        self._distribution = distribution
        self._byAddress = pools
        self._byIndex = tuple(pools[shard.address] for shard in shards)
        self.pools = tuple(pools.values())
        self._map = self._maps.without(self._down())
        self._cached = self._map.cached

    # -- Servers that are down

    def _healthChanged(self, server: Server) -> None:
        """
        A dial to a server has succeeded or failed: give its keys to others, or back to it.

        This takes up to 50 ms for 100 servers, which often fail together, so it is done once in each turn of the
        reactor. If it were done for each server, the connections to others would time out meanwhile.
        """
        if self._ejection.rehash and self._remapping is None and not self._ended:
            self._remapping = self.reactor.callLater(0, self._remap)

    def _remap(self) -> None:
        self._forgetRemapping()
        down = self._down()
        if down != self._map.down:
            old, before = self._map, self._ejected()
            self._map = self._maps.without(down)
            self._cached = self._map.cached
            self._logEjected(before, old)
            if self.remapped is not None:
                self.remapped()

    def _forgetRemapping(self) -> None:
        remapping, self._remapping = self._remapping, None
        if remapping is not None and remapping.active():
            remapping.cancel()

    def _down(self) -> frozenset[int]:
        """
        @return: the indexes of the shards whose keys others get now.
        """
        if not self._distribution.redistributes:
            return frozenset()
        byHand = {index for index, pool in enumerate(self._byIndex) if pool in self._ejectedByHand}
        if not self._ejection.rehash:
            return frozenset(byHand)
        after, servers = self._ejection.after, [pool.servers[0] for pool in self._byIndex]
        failing = [
            index
            for index, each in enumerate(servers)
            if each.failures >= after and not each.up and index not in byHand
        ]
        # Those that went down first are ejected first, and the others keep their keys.
        failing.sort(key=lambda index: servers[index].since)
        return frozenset(byHand.union(failing[: max(0, len(servers) - self._ejection.minLive - len(byHand))]))

    def _ejected(self) -> dict[str, None]:
        """
        @return: the names of the servers whose keys others have.
        """
        return dict.fromkeys(self._byIndex[index].servers[0].name for index in sorted(self._map.down))

    def _logEjected(self, before: dict[str, None], old: KeyMap) -> None:
        """
        Log which servers are ejected now and were not before, or the other way round.
        """
        after, names = self._ejected(), {server.name for server in self.servers}
        changed = [name for name in (*after, *before) if (name in after) is not (name in before) and name in names]
        moved = movedShare(old, self._map) if changed else 0.0
        for server in self.servers:
            server.traffic.ejections += server.name in changed and server.name in after
        for name in changed:
            what = "is ejected" if name in after else "has its keys again"
            _log.warn(
                "{pool}: {server} {what}: {moved:.0%} of the keys have another server now; values stored there before "
                "may appear again",
                pool=self.name, server=name, what=what, moved=moved,
            )  # fmt: skip

    def eject(self, address: Any) -> None:
        """
        Give the keys of a server to others, as the distribution does it for one that is down, until it is restored.

        @raise ValueError: there is no such server, or its keys cannot have another one.
        """
        pool = self._poolOf(address)
        if not self._distribution.redistributes:
            raise ValueError(f"with the distribution {self._distribution.name}, no server gets the keys of another")
        if all(each in self._ejectedByHand for each in self.pools if each is not pool):
            raise ValueError("no other server is left for its keys")
        self._ejectedByHand.add(pool)
        self._remap()

    # -- What there is

    @property
    def ejected(self) -> frozenset[str]:
        """
        The names of the servers whose keys others have at the moment.
        """
        return frozenset(self._ejected())

    def keyShares(self) -> list[KeyShare]:
        """
        @return: a share for each of C{servers}.
        """
        if self._shares is None or self._shares[0] is not self._map:
            self._shares = self._map, self._map.shares()
        labels = self._distribution.labels([shard.spec for shard in self._shards])
        found: dict[Any, KeyShare] = {}
        for pool, shard, label, share in zip(self._byIndex, self._shards, labels, self._shares[1], strict=True):
            sofar = found.get(pool)
            found[pool] = KeyShare(shard.spec.weight, label, share) if sofar is None else (
                replace(sofar, share=sofar.share + share)
            )  # fmt: skip
        return [found[pool] for pool in self.pools]

    # -- Changes

    def change(self, shards: Sequence[Shard], distribution: Distribution, limits: Limits, ejection: Ejection) -> None:
        """
        Put other settings in force. Servers that stay keep their connections; those that are left out get no more
        requests, and their connections are closed when they carry nothing.

        @raise ValueError: the servers are not possible with this distribution. Nothing has changed.
        """
        old, was = self._byAddress, (self._shards, self._distribution)
        before, ejected = self._map, self._ejected()
        if shards:
            distribution.check([shard.spec for shard in shards])
        self.limits = limits
        self._ejection = ejection
        self._use(shards, distribution)
        for pool in self.pools:
            if pool not in old.values():
                self._join(pool)
        for address, pool in old.items():
            if address not in self._byAddress:
                self._ejectedByHand.discard(pool)
                self._remove(pool)
        self._logEjected(ejected, before)
        if was[0] and shards and was != (self._shards, self._distribution):
            _log.info("{pool}: {moved:.0%} of the keys have another server now", pool=self.name,
                      moved=movedShare(before, self._map))  # fmt: skip
        if self.remapped is not None and self._map is not before:
            self.remapped()

    def setLimits(self, limits: Limits) -> None:
        """
        Apply other limits, to existing connections and waiters too.
        """
        self.change(self._shards, self._distribution, limits, self._ejection)

    def restore(self, address: Any) -> None:
        """
        Put a drained or ejected server back into service.

        @raise ValueError: there is no such server.
        """
        pool = self._poolOf(address)
        pool.restore(address)
        self._ejectedByHand.discard(pool)
        self._remap()

    # -- Life cycle

    def start(self) -> None:
        """
        Begin to connect.
        """
        self._ended = False
        super().start()

    def close(self, timeout: float | None = None) -> Deferred[None]:
        """
        Close all pools.

        @return: fires when no connection, dial or timer is left.
        """
        self._end()
        return super().close(timeout)

    def abort(self) -> None:
        """
        Close all connections at once.
        """
        self._end()
        super().abort()

    def _end(self) -> None:
        self._ended = True
        self._forgetRemapping()
