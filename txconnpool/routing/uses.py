# -*- test-case-name: tests.routing.test_uses -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Which clients use the connections of which flavour. The connections of a flavour end some time after its last client.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final, TypeAlias

from txconnpool.errors import PoolFull
from txconnpool.net.deadlines import Deadlines

#: The greatest number of flavours of each user: 16 databases with two versions of the protocol.
FLAVOURS_MAX: Final = 32

#: The greatest number of users that have flavours.
USERS_MAX: Final = 256

#: The seconds for which a flavour stays without clients, so that those that connect again find its connections.
IDLE: Final = 60.0

#: Returns the user of a flavour, or C{None}.
Owner: TypeAlias = Callable[[Any], Hashable]


def nobody(flavour: Any) -> None:
    """
    The L{Owner} of flavours that are those of all users.
    """


class FlavourUses:
    """
    The connections of each flavour that clients use. Subclasses make and end them.

    The flavour of new clients always has connections. Those of another one end L{IDLE} seconds after its last client
    has left, or earlier if its user has L{FLAVOURS_MAX} flavours and a client needs one more, or if there are
    L{USERS_MAX} users and one more comes. So a user cannot take the flavours of others.

    @ivar base: the pool of the flavour that new clients have, or its router if there are several servers by key.
    @ivar leases: that of the connections that clients have for themselves.
    """

    def __init__(self, pool: Any, flavour: Hashable, base: Any, leases: Any, owner: Owner = nobody) -> None:
        """
        @param pool: the pool of all connections, a L{PoolGroup<txconnpool.routing.group.PoolGroup>}.
        @param flavour: the flavour of new clients, which is nobody's.
        @param owner: returns the user of a flavour; C{None}: it is that of all clients without a user.
        """
        self.base = base
        self.leases = leases
        self._pool = pool
        self._flavour = flavour
        self._owner = owner
        self._owned: dict[Hashable, dict[Hashable, None]] = {None: {flavour: None}}  # the flavours of each user
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
            user = self._owner(flavour)
            if user not in self._owned:
                if len(self._owned) > USERS_MAX:
                    self._makeRoomForUser()
            elif len(self._owned[user]) >= FLAVOURS_MAX:
                self._makeRoom(self._owned[user])
            router = self._routers[flavour] = self._begin(flavour)
            self._owned.setdefault(user, {})[flavour] = None
        return router

    def _makeRoom(self, flavours: dict[Hashable, None]) -> None:
        """
        End the flavour of a user that has been without clients for the longest time.

        @raise PoolFull: all have clients.
        """
        unused = self._unused.since
        flavour = min((each for each in flavours if each in unused), key=lambda each: unused[each], default=None)
        if flavour is None:
            raise PoolFull(f"clients use {FLAVOURS_MAX} databases and versions of the protocol already")
        self._endNow(flavour)

    def _makeRoomForUser(self) -> None:
        """
        End the flavours of a user without clients.

        @raise PoolFull: all have clients.
        """
        unused = self._unused.since
        for flavour in unused:
            user = self._owner(flavour)
            if user is not None and all(each in unused for each in self._owned[user]):
                for each in list(self._owned[user]):
                    self._endNow(each)
                return
        raise PoolFull(f"clients have logged in as {USERS_MAX} users already")

    def _endNow(self, flavour: Hashable) -> None:
        self._unused.discard(flavour)
        self._end(flavour)

    def _end(self, flavour: Hashable) -> None:
        user = self._owner(flavour)
        del self._routers[flavour], self._owned[user][flavour]
        if not self._owned[user]:
            del self._owned[user]
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
