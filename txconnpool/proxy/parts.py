# -*- test-case-name: tests.proxy.test_scatter -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Parts of requests for several keys that are on several servers, and the replies to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IResendingSink
from txconnpool.pool.containment import contain
from txconnpool.wire.joining import listOf

#: The values of a part without a reply.
NOTHING: list[bytes] = []


@implementer(IResendingSink)
class Part:
    """
    A request for those of the keys that one server has, and its reply.

    @ivar whole: the L{ScatteredReply<txconnpool.proxy.scatter.ScatteredReply>}.
    @ivar pool: the pool of the server.
    @ivar request: the request.
    @ivar count: the number of its keys.
    @ivar values: what the reply has for the keys, see L{Command.values<txconnpool.wire.Command.values>}.
    @ivar error: the reply that the client gets for the keys, because the part has failed; C{None}: it has not.
    @ivar reason: the error of which that reply is made; C{None} if it is that of a server. It is counted if the client
        gets it for the whole request.
    @ivar retried: whether it is sent for the second time.
    @ivar refusal: the reply of a server that has declined it; empty: none has.
    @ivar size: the number of bytes of the reply so far, if it comes in pieces or was dropped.
    @ivar dropped: whether the reply is dropped, because too much is held for the client.
    @ivar trail: what has happened to it, if it was redirected.
    """

    joins = False

    # Only parts of which one of these is something else have a __dict__.
    error: bytes | None = None
    reason: PoolError | None = None
    retried = False
    refusal = b""
    size = 0
    dropped = False
    trail: Any = None
    _pieces: list[bytes] | None = None  # of the reply

    __slots__ = ("__dict__", "count", "pool", "request", "values", "whole")

    def __init__(self, whole: Any, pool: Any, request: bytes, count: int) -> None:
        self.whole = whole
        self.pool = pool
        self.request = request
        self.count = count
        self.values = NOTHING

    @property
    def session(self) -> Any:
        """
        The session of the client.
        """
        return self.whole.session

    @property
    def key(self) -> bytes:
        """
        The first key.
        """
        key: bytes = self.whole.command.key(self.request, 0)
        return key

    @property
    def keys(self) -> list[bytes]:
        """
        The keys.
        """
        keys: list[bytes] = self.whole.command.keys(self.request) if self.count else []
        return keys

    def replied(self, data: Any, done: int) -> None:
        """
        Take bytes of the reply, or what the reader has found in the whole reply.
        """
        if data.__class__ is not bytes:
            self.values = listOf(data)
        elif not done:
            if not self.session.gone:
                self._keep(data)
            return
        elif not self.session.gone:  # else parts of the reply may be missing
            if self._pieces is not None:
                self._release()
                data = b"".join([*self._pieces, data])
            if self.dropped or self.whole.overflows(len(data)):
                self.size += len(data)
                self.whole.drop(self)
                return
            self.read(data)
        self.whole.answered(self)

    def _keep(self, data: bytes) -> None:
        """
        Hold a piece of the reply until all of it is there, unless too much is held already.
        """
        self.size += len(data)
        if not self.dropped and self.whole.overflows(len(data)):
            self.dropped = True
            if self._pieces is not None:
                self._release()
                self._pieces = None
        if not self.dropped:
            if self._pieces is None:
                self._pieces = []
            self._pieces.append(data)
            self.session.hold(len(data))

    def read(self, reply: bytes) -> None:
        """
        Find the values in the whole reply.
        """
        command = self.whole.command
        values = command.values(self.keys, reply)
        if values is None:
            self.whole.failed(self, command.visible(reply))
        else:
            self.values = values

    def declined(self, connection: Any, sent: Any, reply: bytes) -> bool:
        """
        Send the request once more, unless it was already, or the session has others in flight on the connection, which
        the server may execute before.
        """
        if self.retried or connection.carries(self.session, self):
            return False
        self.refusal = reply
        self.whole.declined(self)
        return True

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        The connection was lost.
        """
        if self._pieces is not None:
            self._release()
            self._pieces = None
        self.whole.lost(self, error)

    def afterLoss(self, error: PoolError) -> None:
        """
        Let the session go on.
        """
        self.session.answered(0)

    def abort(self, error: PoolError) -> None:
        """
        Close the client, because of an unexpected exception.
        """
        self.session.abort(error)

    def _release(self) -> None:
        assert self._pieces is not None
        self.session.release(sum(map(len, self._pieces)))


@implementer(IResendingSink)
class PartGroup:
    """
    Parts that were sent as one request, and the reply to it.

    If the reply is an error, each of the parts is sent once more alone, because the error may be about one of them. A
    client that has sent later requests to this server gets the error, because the server may execute these before.
    """

    joins = False

    __slots__ = ("_connection", "_count", "_held", "_parts", "_pieces")

    def __init__(self, parts: list[Part], connection: Any) -> None:
        """
        @param connection: the connection on which the request was sent.
        """
        self._parts = parts
        self._count = sum(part.count for part in parts)
        self._connection = connection
        self._pieces: list[bytes] | None = None  # of the reply
        self._held: list[int] = []  # how many bytes of them are counted by the session of each part

    @property
    def sessions(self) -> list[Any]:
        """
        The sessions of the clients.
        """
        return [part.session for part in self._parts]

    def replied(self, data: Any, done: int) -> None:
        """
        Take bytes of the reply, or what the reader has found in the whole reply.
        """
        if not done:
            self._hold(data)
            return
        parts, isList = self._parts, data.__class__ is not bytes
        values: list[bytes] | None = listOf(data) if isList else None
        if not isList:
            if self._pieces is not None:
                self._release()
                data = b"".join([*self._pieces, data])
            if not self._isWanted:
                self._forEach(lambda part: part.whole.drop(part))
                return
            values = parts[0].whole.command.values([key for part in parts for key in part.keys], data)
        if values is None:
            self._forEach(lambda part: self._sendApart(part, data))
            return
        at = 0
        for part in parts:
            end = at + part.count
            part.values = values[at:end]
            at = end
            try:
                if isList or not (part.dropped or self._overflows(part)):
                    part.whole.answered(part)
                else:
                    part.values = []
                    part.whole.drop(part)
            except Exception:
                contain(part)

    def _forEach(self, action: Callable[[Part], object]) -> None:
        """
        Do something for each part. An unexpected exception concerns only the client of that part.
        """
        for part in self._parts:
            try:
                action(part)
            except Exception:
                contain(part)

    def declined(self, connection: Any, sent: Any, reply: bytes) -> bool:
        """
        Send the parts once more, each alone.
        """
        for part in self._parts:
            part.refusal = reply
        self._forEach(lambda part: self._sendApart(part, reply))
        return True

    def _sendApart(self, part: Part, error: bytes) -> None:
        """
        Send a part once more alone, unless its session has others in flight on the connection, which the server may
        execute before. Then the client gets the error.
        """
        if self._connection.carries(part.session, self):
            part.whole.failed(part, part.whole.command.visible(error))
            part.whole.answered(part)
        else:
            part.whole.declined(part)

    def _overflows(self, part: Part) -> bool:
        """
        @return: whether the values of a part are too much to hold.
        """
        part.size = sum(map(len, part.values))
        return bool(part.size and part.whole.overflows(part.size))

    @property
    def _isWanted(self) -> bool:
        """
        Whether the reply is kept for any of the parts.
        """
        return not all(part.dropped or part.session.gone for part in self._parts)

    def _hold(self, data: bytes) -> None:
        """
        Keep bytes of the reply. Each client counts as many of them as it has of the keys, unless too much is held for
        it already.
        """
        if self._pieces is None:
            self._pieces = []
            self._held = [0] * len(self._parts)
        self._pieces.append(data)
        for number, part in enumerate(self._parts):
            share = len(data) * part.count // self._count
            part.size += share
            if not part.dropped and part.whole.overflows(share):
                part.dropped = True
                part.session.release(self._held[number])
                self._held[number] = 0
            if not part.dropped:
                self._held[number] += share
                part.session.hold(share)
        if not self._isWanted:
            self._pieces.clear()

    def _release(self) -> None:
        for part, share in zip(self._parts, self._held, strict=True):
            part.session.release(share)

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        The connection was lost.
        """
        if self._pieces is not None:
            self._release()
            self._pieces = None
        self._forEach(lambda part: part.requestsLost(requests, begun, error))

    def afterLoss(self, error: PoolError) -> None:
        """
        Let the sessions go on.
        """
        self._forEach(lambda part: part.afterLoss(error))

    def abort(self, error: PoolError) -> None:
        """
        Close the clients, because of an unexpected exception.
        """
        for part in self._parts:
            part.abort(error)
