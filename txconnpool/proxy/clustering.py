# -*- test-case-name: tests.proxy.test_clustering -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A client of a proxy in front of a cluster, whose nodes report which of them has which keys.

A node that does not have a key says which one does, or that the key cannot be served now. It has not executed the
request then, so that this is sent again, each request alone, and its reply takes its place in the order. A request on a
connection of the client's own is not sent again, because what was sent there before it would be missing, unless it is
the only reason for the connection.

Requests for one key are executed in order although it may move from node to node. When a slot has another node, the
session sends nothing more until it has no requests in flight. Requests that were redirected are sent in their order,
and all others wait for their replies.
Only a request for several keys of a slot that is being moved, of which one node has some and another one the rest, may
be executed after those that the client has sent behind it without waiting for its reply.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IRedirectedSink
from txconnpool.proxy.reading import ReadingSession
from txconnpool.proxy.redirects import (
    BlockedRequest,
    PrimariesReply,
    RedirectedRequest,
    SlotPart,
    SlotReply,
    Trail,
)
from txconnpool.proxy.replies import Entry, QueuedRequest
from txconnpool.proxy.scatter import ScatteredReply
from txconnpool.routing.courses import PRELUDE
from txconnpool.wire.topology import Redirect


@implementer(IRedirectedSink)
class ClusterSession(ReadingSession):
    """
    The session of one client.

    @ivar trails: those of requests that were redirected, and are in flight again.
    """

    scattered = SlotReply
    merges = False  # a request has keys of one slot

    __slots__ = ("_version", "trails")

    spread = PrimariesReply

    def __init__(self, factory: Any, host: str | None = None) -> None:
        super().__init__(factory, host)
        self.trails: frozenset[Trail] = frozenset()
        self._version = -1  # that of the slots for which requests are in flight

    # -- Requests

    def _forward(self, command: Any, request: bytes, data: bytes, pos: int, errors: dict[Any, PoolError]) -> bool:
        if (self.trails or self.router.cluster.version != self._version) and self._isBehind():
            return False
        return super()._forward(command, request, data, pos, errors)

    def _isBehind(self) -> bool:
        """
        @return: whether further requests could overtake those in flight: these were redirected, or slots have got
            another node since they were sent.
        """
        if self.trails:
            return True
        version = self.router.cluster.version
        if version != self._version:
            if self._inFlight and self._pin is None:
                return True
            self._version = version
        return False

    def _sinkOf(self, pool: Any) -> Any:
        """
        @return: the sink of the next request: an entry for it alone, so that it can be sent again alone, unless nothing
            is in flight.
        """
        if self._sink is None and not self._inFlight:
            return self
        queue = self._needQueue()
        sink = queue.extend() if queue.last.left else queue.last
        self._sink = sink
        sink.left = 1
        return sink

    def together(self, keys: list[bytes]) -> bool:
        """
        @return: whether one request may have all the keys, as far as it is known here. The node of a connection of the
            client's own decides that itself, if it has the keys.
        """
        router = self.factory.flavours.leases
        # The slot of a request may have got another node while it has waited for the connection. The node says so then.
        if self._pin is None or not (self._pin.needed and self._pin.used):
            return bool(router.together(keys))
        try:
            return all(router.choose(key) is self._pin.pool for key in keys)
        except PoolError:
            return False

    def _sendParts(self, entry: ScatteredReply) -> bool:
        parts, command = entry.parts, entry.command
        if self._pin is not None:
            return False
        while parts:
            part = parts[0]
            trail = part.trail
            if trail is None and self._isBehind():
                return False
            try:
                if trail is not None and trail.waits:
                    return False
                if isinstance(part, SlotPart):  # its slot may have got another node since the request was divided
                    part.pool = self._choosePart(part, command)
                elif isinstance(entry, PrimariesReply):
                    entry.place(part)
                if self._overtakes(trail, part.pool):
                    return False
                self._select(part.pool)
                room = self._take()
            except PoolError as error:
                if trail is not None or not self._reads(command):
                    self._refuse(entry, error)
                elif not self._avoidsNode(part, command):
                    entry.refuse(error)
                    self.advance()
                continue
            if room <= 0:
                return False
            entry.sent()
            self._sendTo(part, command.part, part.request, trail)
        return True

    def _choosePart(self, part: SlotPart, command: Any) -> Any:
        """
        @return: the pool for a part. A replica gets no part that was redirected.
        """
        if part.trail is not None:
            return part.trail.pool or self.router.choose(part.key)
        return self._readersOf(part, command).choose(part.key)

    def _sendQueued(self, entry: QueuedRequest) -> bool:
        if not isinstance(entry, RedirectedRequest):
            return super()._sendQueued(entry)
        if isinstance(entry, BlockedRequest):
            return self._sendBlocked(entry)
        try:
            pool = self._poolOf(entry)
            if self._overtakes(entry.trail, pool):
                return False
            self._select(pool)
            room = self._take()
        except PoolError as error:
            self._refuse(entry, error)
            return True
        if room <= 0:
            return False
        command, _, request = entry.next(1)
        self._sendTo(entry, command, request, entry.trail)
        return True

    def _sendBlocked(self, entry: BlockedRequest) -> bool:
        """
        Send a request on a connection of the client's own.

        @return: whether it was sent or refused; if not, the session is called again later.
        """
        if self._pin is None:
            try:
                self._pool = self._poolOf(entry)
                if not self._lease(self._pool):
                    return False
            except PoolError as error:
                self._refuse(entry, error)
                return True
        pin: Any = self._pin
        self._connection = pin.connection
        command, _, request = entry.next(1)
        pin.forwarded(command)
        self._sendTo(entry, command, request, entry.trail)
        return True

    def _overtakes(self, trail: Trail | None, pool: Any) -> bool:
        """
        @return: whether an earlier request for the same slot is in flight to another node, since it was redirected.
        """
        return trail is not None and any(each.slot == trail.slot and each.at is not pool for each in self.trails)

    def _sendTo(self, sink: Any, command: Any, request: bytes, trail: Trail | None) -> None:
        """
        Send a request on the current connection. If a node is to execute it although it does not have the slot yet,
        another request goes ahead of it.
        """
        if trail is not None:
            if trail.pool is not None:
                self._connection.send(PRELUDE, *self.factory.dialect.asking)
            trail.sent(self._pool)
        self._inFlight += 1
        self._connection.send(sink, command, 1, request)

    def _poolOf(self, entry: Any) -> Any:
        trail = _trailOf(entry)
        if trail is not None and trail.pool is not None:
            return trail.pool
        if isinstance(entry, BlockedRequest):
            return entry.trail.router.choose(entry.command.key(entry.request, 0))
        return super()._poolOf(entry)

    def _refuse(self, entry: Any, error: PoolError) -> None:
        trail = _trailOf(entry)
        if trail is not None and trail.pool is not None:
            trail.pool = None  # the node that has the slot can say again which one is to execute the request
        elif isinstance(entry, BlockedRequest):
            entry.refuse(error)
            self.advance()
        else:
            super()._refuse(entry, error)

    # -- Redirects

    def redirected(self, redirect: Redirect, server: Any) -> None:
        """
        A node has not executed the request that was sent while nothing else was in flight.
        """
        self._needQueue().ahead = 0
        self.redirect(None, redirect, server)

    def redirect(self, entry: Entry | None, redirect: Redirect, server: Any) -> None:
        """
        Send a request again, or pass on the reply.

        @param entry: the queue entry of the request; C{None} if it comes before the queue.
        """
        if entry is not None:
            entry.left -= 1
        if not self.gone:
            trail = Trail(self, None if self._pin is None else self._flavours.leases)
            reply = trail.follow(redirect, server)
            if self._pin is None or self._isBlocked(redirect):
                kind = RedirectedRequest if self._pin is None else BlockedRequest
                queue = self._needQueue()
                again = kind(self, redirect, trail) if reply is None else _answer(self, reply)
                queue.insert(entry, [again])
                self._sink = queue.last
            else:
                trail.end()
                assert entry is not None
                entry.take(redirect.command.visible(redirect))
        self.redirectFollowed()

    def _isBlocked(self, redirect: Redirect) -> bool:
        """
        @return: whether the client has a connection of its own only for the request, because the node may wait before
            it replies.
        """
        assert self._pin is not None
        return self._inFlight == 1 and not self._pin.needed and redirect.command.patience(redirect.request) > 0.0

    def redirectFollowed(self, done: int = 1) -> None:
        """
        Go on after a redirect.

        @param done: the number of requests that are no longer in flight.
        """
        self.collect()
        self.answered(done)


class ReplicatedSession(ClusterSession):
    """
    The session of one client of a master that has all keys, and of replicas that may read.
    """

    __slots__ = ()

    def _place(self, reader: Any) -> None:
        """
        Do nothing: the reader need not know which keys are on one server.
        """

    def _sinkOf(self, pool: Any) -> Any:
        """
        @return: the sink of the next request, see L{PlacedSession}: no request is redirected alone.
        """
        return super(ClusterSession, self)._sinkOf(pool)


def _answer(session: Any, reply: bytes) -> Entry:
    entry = Entry(session)
    entry.take(reply)
    return entry


def _trailOf(entry: Any) -> Trail | None:
    if isinstance(entry, RedirectedRequest):
        return entry.trail
    trail: Trail | None = entry.parts[0].trail if isinstance(entry, ScatteredReply) else None
    return trail
