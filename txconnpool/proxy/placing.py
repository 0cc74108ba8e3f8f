# -*- test-case-name: tests.proxy.test_placing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A client of a proxy whose keys are on several servers, and whose protocol has connections with a state.

A connection of the client's own is one to the server of the first key. While the client has it, all its requests must
be for this server.
"""

from __future__ import annotations

from typing import Any

from txconnpool.errors import PoolError
from txconnpool.proxy.replies import QueuedRequest
from txconnpool.proxy.scatter import ScatteredReply
from txconnpool.proxy.sharding import ShardedSession
from txconnpool.wire import SPREAD


class SpreadReply(ScatteredReply):
    """
    The reply to a request that is sent to every server, or to one that is not chosen by a key.
    """

    __slots__ = ("_index",)

    #: No part may get another server.
    key = None

    def __init__(self, session: Any, command: Any, request: bytes, index: int | None) -> None:
        """
        @param index: the index of the only server; C{None}: all of them.
        """
        self._index = index
        super().__init__(session, command, (request,))

    def _divide(self) -> None:
        request, pools = self._requests[0], self.session.router.pools
        if self._index is not None:
            pools = pools[self._index : self._index + 1]
        self._divided = [self.kind(self, pool, request, 0) for pool in pools or (None,)]
        self._queue(self._divided)

    def _write(self) -> int:
        reply = self.command.visible(self.command.join([part.values[0] for part in self._divided]))
        self.session.batch += len(reply)
        self.take(reply)
        return len(reply)


class PlacedSession(ShardedSession):
    """
    The session of one client. The request reader asks it which keys are on one server (C{places}).

    @cvar spread: the class of replies to requests that every server gets.
    """

    __slots__ = ()

    spread: type[SpreadReply] = SpreadReply

    def __init__(self, factory: Any, host: str | None = None) -> None:
        super().__init__(factory, host)
        self._place(self._reader)

    def _place(self, reader: Any) -> None:
        """
        Let a reader ask this session which keys are on one server.
        """
        reader.place(self)

    def admitted(self, reply: bytes, data: bytes, reader: Any) -> None:
        """
        The client has logged in.
        """
        self._place(reader)
        super().admitted(reply, data, reader)

    # -- What the reader asks

    @property
    def servers(self) -> int:
        """
        The number of servers.
        """
        return len(self.router.pools)

    def together(self, keys: list[bytes]) -> bool:
        """
        @return: whether one server has all the keys: that of the connection of the client's own, if it has one. If it
            is not known at the moment, the request fails for that reason.
        """
        router = self._flavours.leases
        pool = self._pin.pool if self._pin is not None and self._pin.needed else None
        try:
            first = router.choose(keys[0]) if pool is None else pool
            return all(router.choose(key) is first for key in keys)
        except PoolError:
            return pool is None

    # -- Flavours

    def _use(self, pool: Any) -> None:
        """
        Use another router from now on.
        """
        self.router = pool

    # -- A connection for this client alone

    def _pinFor(self, payload: Any, errors: dict[Any, PoolError]) -> bool:
        if self._inFlight or self._queue is not None:
            return False
        command, request = payload
        router = self._flavours.leases
        try:
            key = command.key(request, 0)
            pool = router.anyOf() if key is None else router.choose(key)
            if pool in errors:
                raise errors[pool]
            if self._lease(pool):
                return True
        except PoolError:
            self._reader.refused()
            raise
        self._pool = pool  # an error of this pool is for this request
        return False

    def _forward(self, command: Any, request: bytes, data: bytes, pos: int, errors: dict[Any, PoolError]) -> bool:
        if self._pin is None:
            return super()._forward(command, request, data, pos, errors)
        if self._ownRoom() <= 0:
            return False
        self._inFlight += 1
        self._sink.left += 1
        self._pin.forwarded(command)
        self._connection.send(self._sink, command, 1, request)
        return True

    def _sendQueued(self, entry: QueuedRequest) -> bool:
        if self._pin is None:
            return super()._sendQueued(entry)
        return super(ShardedSession, self)._sendEntry(entry)

    def _sendParts(self, entry: ScatteredReply) -> bool:
        return self._pin is None and super()._sendParts(entry)

    def granted(self, record: Any) -> None:
        """
        Continue with a connection of the pool for which the session has waited.
        """
        if self.ticket.exclusive:
            super(ShardedSession, self).granted(record)
        else:
            super().granted(record)

    # -- Requests for every server

    def _follow(self, action: Any, payload: Any, missing: int) -> bool:
        if action is not SPREAD:
            return super()._follow(action, payload, missing)
        if self._isQueueFull:
            return False
        self._distribute(self.spread(self, *payload))
        return True

    # -- The end

    def forget(self) -> None:
        """
        Let the reader go too.
        """
        super().forget()
        self._reader.place(None)
