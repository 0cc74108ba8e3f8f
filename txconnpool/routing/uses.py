# -*- test-case-name: tests.routing.test_uses -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Which clients use the connections of which flavour. The connections of a flavour end some time after its last client.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

from txconnpool.errors import PoolFull
from txconnpool.net.deadlines import Deadlines

#: The greatest number of flavours of a pool: 16 databases with two versions of the protocol.
FLAVOURS_MAX: Final = 32

#: The seconds for which a flavour stays without clients, so that those that connect again find its connections.
IDLE: Final = 60.0


class FlavourUses:
    """
    The connections of each flavour that clients use. Subclasses make and end them.

    The flavour of new clients always has connections. Those of another one end L{IDLE} seconds after its last client
    has left, or earlier if there are L{FLAVOURS_MAX} flavours and a client needs one more.

    @ivar base: the pool of the flavour that new clients have, or its router if there are several servers by key.
    @ivar leases: that of the connections that clients have for themselves.
    """

    def __init__(self, pool: Any, flavour: Hashable, base: Any, leases: Any) -> None:
        """
        @param pool: the pool of all connections, a L{PoolGroup<txconnpool.routing.group.PoolGroup>}.
        @param flavour: the flavour of new clients.
        """
        self.base = base
        self.leases = leases
        self._pool = pool
        self._flavour = flavour
        self._routers: dict[Hashable, Any] = {flavour: base}
        self._flavourOf: dict[Any, Hashable] = {}  # that of each client which has not the one of new clients
        self._counts: dict[Hashable, int] = {}  # the numbers of these clients
        self._unused = Deadlines(pool.reactor, IDLE, self._end)
        pool.ended = self._unused.stop

    def use(self, client: Any, flavour: Hashable) -> Any:
        """
        Let a client use the connections of a flavour from now on, and no others. Call L{leave} when it is gone.

        @return: their pool, or its router.

        @raise PoolFull: clients use too many flavours. The client keeps the one that it has.
        """
        used = self._flavourOf.get(client, self._flavour)
        if flavour == used:
            return self._routers[flavour]
        self.leave(client)
        try:
            router = self._of(flavour)
        except PoolFull:
            self._count(client, used)
            raise
        self._count(client, flavour)
        return router

    def leave(self, client: Any) -> None:
        """
        A client uses no connections any more.
        """
        flavour = self._flavourOf.pop(client, None)
        if flavour is None:
            return
        self._counts[flavour] -= 1
        if not self._counts[flavour]:
            del self._counts[flavour]
            if self._pool.running:
                self._unused.add(flavour)
            else:
                self._end(flavour)

    def _count(self, client: Any, flavour: Hashable) -> None:
        if flavour != self._flavour:
            self._flavourOf[client] = flavour
            self._counts[flavour] = self._counts.get(flavour, 0) + 1
            self._unused.discard(flavour)

    def _of(self, flavour: Hashable) -> Any:
        """
        @return: the pool of a flavour, or its router.

        @raise PoolFull: clients use too many flavours.
        """
        router = self._routers.get(flavour)
        if router is None:
            if len(self._routers) >= FLAVOURS_MAX:
                self._makeRoom()
            router = self._routers[flavour] = self._begin(flavour)
        return router

    def _makeRoom(self) -> None:
        """
        End the flavour that has been without clients for the longest time.

        @raise PoolFull: all have clients.
        """
        flavour = next(iter(self._unused.since), None)
        if flavour is None:
            raise PoolFull(f"clients use {FLAVOURS_MAX} databases and versions of the protocol already")
        self._unused.discard(flavour)
        self._end(flavour)

    def _end(self, flavour: Hashable) -> None:
        del self._routers[flavour]
        self._close(flavour)

    def _begin(self, flavour: Hashable) -> Any:
        """
        @return: the pool of a flavour, or its router.
        """
        raise NotImplementedError

    def _close(self, flavour: Hashable) -> None:
        """
        Close the connections of a flavour, each when it carries nothing any more.
        """
        raise NotImplementedError
