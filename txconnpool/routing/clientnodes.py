# -*- test-case-name: tests.redis.test_cluster -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What the pools of nodes have in common in a program, which uses them without starting them, and waits until they are
known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from txconnpool.errors import PoolClosed, PoolError
from txconnpool.pool.decisions.limits import Limits
from txconnpool.routing.lookups import Lookups
from txconnpool.routing.nodes import NodePools
from txconnpool.routing.waits import Waits


def same(pool: Any) -> Any:
    """
    @return: the pool of a node. Its connections have one state.
    """
    return pool


class ClientNodes(NodePools):
    """
    The pools of nodes for a program. A connection is opened when there is work for it, and one may be leased.

    @ivar router: chooses among the nodes.
    @ivar lookups: looks up the nodes, or those that are asked for them; C{None}: none are to be found.
    """

    leastConnections = 0
    router: Any
    lookups: Lookups | None = None

    def _prepare(self, make: Callable[..., Any], reactor: Any) -> None:
        """
        @param make: makes the pool of a node, see L{MakePool<txconnpool.routing.library.MakePool>}.
        """
        self._make = make
        self._waits = Waits(reactor)  # for some time
        self._trigger: Any = None
        self._used = False

    def _connectionsOf(self, pool: Any) -> Any:
        return pool

    def _limit(self, pool: Any, limits: Limits, maxPinned: int) -> None:
        if limits != pool.limits:
            pool.setLimits(limits)

    @property
    def unserved(self) -> PoolError:
        """
        The error for a key that no node has.
        """
        return PoolClosed("the pool was closed") if self._used and not self._running else super().unserved

    # -- Servers

    def _poolOf(self, address: Any) -> Any:
        name = address if isinstance(address, str) else ":".join(map(str, address))
        return super()._poolOf(name)

    def markDown(self, address: Any, cause: BaseException) -> None:
        """
        Do not dial a node for a while, as after a failed dial. Its connections stay.
        """
        self._poolOf(address).markDown(address, cause)

    @property
    def everyPool(self) -> tuple[Any, ...]:
        """
        The pools of all nodes, and of those that have left while their connections are leased.
        """
        return (*self.pools, *self._leaving)

    def leaves(self, pool: Any) -> bool:
        """
        @return: whether a pool is closed because its node has left, while others stay.
        """
        return self._running and pool not in self.pools

    # -- Time

    @property
    def isKnown(self) -> bool:
        """
        Whether requests need not wait: somebody was asked for the nodes, and they may find out themselves which there
        are.
        """
        return self._used and (self._hasTried or not self._running)

    @property
    def _hasTried(self) -> bool:
        """
        Whether an attempt to find the nodes has ended.
        """
        raise NotImplementedError

    def whenKnown(self) -> Deferred[None]:
        """
        Start, if nothing was started yet, and wait for the nodes.

        @return: fires when somebody has named them, or nobody can, or C{waitTimeout} is over; fails with L{PoolClosed}
            if the pool is closed. It may be cancelled.
        """
        if not self._used:
            self.start()
        return self._unknown.add(self.limits.waitTimeout)

    def wait(self, seconds: float) -> Deferred[None]:
        """
        @return: fires after some seconds; fails with L{PoolClosed} if the pool is closed before. It may be cancelled.
        """
        return self._waits.add(seconds)

    # -- Life cycle

    def start(self) -> None:
        """
        Begin to connect, and close when the reactor stops.
        """
        self._used = True
        if not self._running:
            if self._trigger is None:
                self._trigger = self.reactor.addSystemEventTrigger("before", "shutdown", self._shutDown)
            super().start()
            if self.lookups is not None:
                self.lookups.start()

    def _shutDown(self) -> Deferred[None]:
        self._trigger = None
        return self.close(5.0)

    def _end(self) -> Deferred[Any] | None:
        if self.lookups is not None:
            self.lookups.stop()
        if not self._used:
            self._used = True
            return None
        asking = super()._end()
        for waits in (self._unknown, self._waits):
            waits.fail(PoolClosed("the pool was closed"))
        if self._trigger is not None:
            self.reactor.removeSystemEventTrigger(self._trigger)
            self._trigger = None
        return asking
