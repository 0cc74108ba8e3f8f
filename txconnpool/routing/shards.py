# -*- test-case-name: tests.routing.test_shards -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Many servers, each of which holds a part of the keys: a pool for each server, and the map of keys to servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from zope.interface import implementer

from txconnpool.errors import ServerUnavailable
from txconnpool.interfaces import IPoolControl, IRouter
from txconnpool.metrics import Counters, PoolStats
from txconnpool.pool.decisions.health import NO_SERVERS
from txconnpool.pool.decisions.limits import Limits
from txconnpool.pool.decisions.servers import Server, keepFormer
from txconnpool.pool.decisions.shared import Shared
from txconnpool.routing.distribution import Distribution, KeyMap, ServerSpec, emptyMap, movedShare

_log = Logger("txconnpool.routing")

#: The error for a key that has no server.
NO_SERVER = "upstream unavailable: all servers that may have the key are down"

#: The number of maps that are kept for sets of servers that were down.
MAPS = 16


def unserved(pools: Sequence[Any]) -> ServerUnavailable:
    """
    @param pools: the pools of all servers.

    @return: the error for keys that have no server.
    """
    return ServerUnavailable(NO_SERVER if pools else NO_SERVERS)


@dataclass(frozen=True)
class Shard:
    """
    One server as it is configured.

    @ivar address: the address, see L{endpointOf<txconnpool.net.addresses.endpointOf>}.
    @ivar spec: what the distribution knows of it.
    """

    address: Any
    spec: ServerSpec


@dataclass(frozen=True)
class Ejection:
    """
    What happens to the keys of a server that is down.

    @ivar rehash: whether its keys go to other servers, as the distribution has it. If not, their requests fail.
    @ivar after: the number of failures in a row after which they do.
    @ivar minLive: the number of servers that keep their keys in any case.
    """

    rehash: bool = False
    after: int = 2
    minLive: int = 1


@dataclass(frozen=True)
class KeyShare:
    """
    What a server has to do with the keys.

    @ivar weight: its weight, or C{None} for the default of the distribution.
    @ivar label: the text that stands for it.
    @ivar share: the share of the keys that it has at the moment, from 0 to 1.
    """

    weight: float | None
    label: str
    share: float


class StandIn:
    """
    The pools of another pool of the proxy, which get the requests for servers that are down. What is stored there is
    kept for a short time only: when a server is back, changes that were made meanwhile are not known to it.

    @ivar seconds: the longest time that a value is kept there.
    @ivar count: the number of requests that went there.
    """

    def __init__(self, upstream: Any, seconds: float) -> None:
        """
        @param upstream: an object whose attribute C{router} is the L{IRouter} of the other pool.
        """
        self._upstream = upstream
        self.seconds = max(1, int(seconds))
        self.count = 0

    def choose(self, key: bytes) -> Any:
        """
        @return: the pool of a key.

        @raise ServerUnavailable: there is none.
        """
        self.count += 1
        return self._upstream.router.choose(key)

    def divide(self, keys: Sequence[bytes]) -> list[tuple[Any, list[bytes]]]:
        """
        Divide keys among the pools, see L{ShardedPool.divide}.
        """
        self.count += 1
        divided: list[tuple[Any, list[bytes]]] = self._upstream.router.divide(keys)
        return divided


class Maps:
    """
    The maps of keys to servers of one list of servers: one for each set of servers that are down.
    """

    def __init__(self, distribution: Distribution, shards: Sequence[Shard]) -> None:
        """
        @raise ValueError: the servers are not possible with this distribution.
        """
        self._distribution = distribution
        self._specs = [shard.spec for shard in shards]
        self._maps: dict[frozenset[int], KeyMap] = {}
        if not shards:
            self._maps[frozenset()] = emptyMap()
        self.whole = self.without(frozenset())

    def without(self, down: frozenset[int]) -> KeyMap:
        """
        @param down: the indexes of servers.

        @return: the map that gives no keys to these servers. It is built once.
        """
        found = self._maps.pop(down, None) or self._distribution.build(self._specs, down)
        if len(self._maps) >= MAPS:
            del self._maps[next(iter(self._maps))]
        self._maps[down] = found
        return found


@implementer(IRouter, IPoolControl)
class ShardedPool:
    """
    The pools of several servers, and the choice among them by key. Operators see it as one pool.

    The maximum of connections is divided among the servers, each has at least one. Its waiters count together.

    @ivar name: the name in logs.
    @ivar reactor: the reactor of all connections.
    @ivar pools: the pools, one for each address.
    @ivar limits: the limits of all pools together.
    @ivar former: the servers that were removed, with their counters.
    @ivar standIn: the pools that get the keys of servers that are down, or C{None}.
    """

    keyed = True
    standIn: StandIn | None = None

    #: The number of connections to each server that are kept open in any case.
    leastConnections = 1

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
        self.name = name
        self.reactor = reactor
        self.limits = limits
        self.former: list[Server] = []
        self._newPool = newPool
        self._shared = Shared()
        self._ejection = ejection
        self._pausedBy = False
        self._running = False
        self._leaving: dict[Any, Deferred[None]] = {}
        self._byAddress: dict[Any, Any] = {}
        self._ejectedByHand: set[Any] = set()  # pools
        self._shares: tuple[KeyMap, list[float]] | None = None
        self.pools: tuple[Any, ...] = ()
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

    def divide(self, keys: Sequence[bytes]) -> list[tuple[Any, list[bytes]]]:
        """
        Divide keys among the pools.

        @return: the pools, each with its keys in order; C{None} with the keys that have no pool at the moment.
        """
        cached = self._cached
        shares: dict[int, list[bytes]] = {}
        for key in keys:
            index = cached[key]
            if index in shares:
                shares[index].append(key)
            else:
                shares[index] = [key]
        pools = self._byIndex
        found = [(None if index < 0 else pools[index], share) for index, share in shares.items()]
        if self.standIn is not None and any(pool is not None and pool.down for pool, _ in found):
            found = [
                each
                for pool, share in found
                for each in (self.standIn.divide(share) if pool is not None and pool.down else [(pool, share)])
            ]
        return found

    def anyOf(self) -> Any:
        """
        @return: a pool whose server is up, or the first one if all are down.

        @raise ServerUnavailable: there is no server.
        """
        if not self.pools:
            raise unserved(self.pools)
        return next((pool for pool in self.pools if pool.servers[0].state == "up"), self.pools[0])

    def _use(self, shards: Sequence[Shard], distribution: Distribution) -> None:
        maps = Maps(distribution, shards)
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
        self._maps = maps
        self._map = maps.without(self._down())
        self._cached = self._map.cached

    def _divided(self, count: int) -> Iterator[Limits]:
        """
        @return: the limits of each of C{count} pools.
        """
        limits = self.limits
        for index in range(count):
            maximum = max(1, limits.maximum // count + (index < limits.maximum % count))
            minimum = min(
                maximum, max(self.leastConnections, limits.minimum // count + (index < limits.minimum % count))
            )
            yield replace(limits, maximum=maximum, minimum=minimum)

    # -- Servers that are down

    def _healthChanged(self, server: Server) -> None:
        """
        A dial to a server has succeeded or failed: give its keys to others, or back to it.
        """
        if self._ejection.rehash:
            self._remap()

    def _remap(self) -> None:
        down = self._down()
        if down != self._map.down:
            old, before = self._map, self._ejected()
            self._map = self._maps.without(down)
            self._cached = self._map.cached
            self._logEjected(before, old)

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
        failing = [index for index, each in enumerate(servers) if each.failures >= after and index not in byHand]
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

    @property
    def servers(self) -> list[Server]:
        """
        All servers.
        """
        return [server for pool in self.pools for server in pool.servers]

    @property
    def connections(self) -> list[Any]:
        """
        All established connections.
        """
        return [connection for pool in self.pools for connection in pool.connections]

    @property
    def records(self) -> list[Any]:
        """
        The records of all connections and dials in progress.
        """
        return [record for pool in self.pools for record in pool.records]

    @property
    def counters(self) -> Any:
        """
        The counters of all events.
        """
        return self._shared.counters

    @property
    def waits(self) -> Any:
        """
        The times that waiters have waited.
        """
        return self._shared.waits

    @property
    def waiting(self) -> int:
        """
        The number of waiters.
        """
        return self._shared.waiting

    @property
    def longestWait(self) -> float:
        """
        How long the first waiter has waited, in seconds; 0 if there is none.
        """
        longest: float = max((pool.longestWait for pool in self.pools), default=0.0)
        return longest

    @property
    def paused(self) -> bool:
        """
        Whether all requests wait.
        """
        return self._pausedBy

    @property
    def stats(self) -> PoolStats:
        """
        The gauges and counters of this moment. Counters are those of all pools already.
        """
        each: list[PoolStats] = [pool.stats for pool in self.pools]
        return PoolStats(
            maximum=self.limits.maximum,
            waited=sum(self.waits.counts),
            waitTime=self.waits.total,
            **{name: sum(getattr(stats, name) for stats in each) for name in _GAUGES},
            **{name: getattr(self.counters, name) for name in Counters.__slots__},
        )

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
                self._remove(pool)
        self._logEjected(ejected, before)
        if was[0] and shards and was != (self._shards, self._distribution):
            _log.info("{pool}: {moved:.0%} of the keys have another server now", pool=self.name,
                      moved=movedShare(before, self._map))  # fmt: skip

    def _join(self, pool: Any) -> None:
        if self._pausedBy:
            pool.pause()
        if self._running:
            pool.start()

    def _remove(self, pool: Any) -> None:
        self._ejectedByHand.discard(pool)
        self._shared.queues.remove(pool.waiters)
        for server in pool.servers:
            keepFormer(self.former, server)
        ending = self._leaving[pool] = pool.close()
        ending.addCallback(lambda _: self._leaving.pop(pool))

    def setLimits(self, limits: Limits) -> None:
        """
        Apply other limits, to existing connections and waiters too.
        """
        self.change(self._shards, self._distribution, limits, self._ejection)

    def setConnectTimeout(self, timeout: float | None) -> None:
        """
        Apply another timeout for connecting.
        """
        for pool in self.pools:
            pool.setConnectTimeout(timeout)

    def pause(self) -> None:
        """
        Let all requests wait from now on, without limit.
        """
        self._pausedBy = True
        for pool in self.pools:
            pool.pause()

    def resume(self) -> None:
        """
        End a pause.
        """
        self._pausedBy = False
        for pool in self.pools:
            pool.resume()

    def _poolOf(self, address: Any) -> Any:
        for pool in self.pools:
            if any(address in (server.name, server.address) for server in pool.servers):
                return pool
        names = ", ".join(server.name for server in self.servers)
        raise ValueError(f"no server {address!r}; there are: {names}")

    def drain(self, address: Any, abort: bool = False) -> None:
        """
        Take a server out of service. Its keys have no server until it is restored.

        @raise ValueError: there is no such server.
        """
        self._poolOf(address).drain(address, abort)

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
        self._running = True
        for pool in self.pools:
            pool.start()

    def close(self, timeout: float | None = None) -> Deferred[None]:
        """
        Close all pools.

        @return: fires when no connection, dial or timer is left.
        """
        self._running = False
        closing = [pool.close(timeout) for pool in self.pools]
        closing += [pool.close(timeout) for pool in list(self._leaving)]
        return DeferredList(closing).addCallback(lambda _: None)

    def abort(self) -> None:
        """
        Close all connections at once.
        """
        for pool in [*self.pools, *self._leaving]:
            pool.abort()

    def selfCheck(self) -> None:
        """
        Check all invariants that hold between events. For tests.

        @raise AssertionError: one is broken. The text names it.
        """
        for pool in self.pools:
            pool.selfCheck()


#: The fields of L{PoolStats} that are sums over the pools. The others are counted together.
_GAUGES = ("connections", "idle", "busy", "dialing", "inFlight", "waiting")
