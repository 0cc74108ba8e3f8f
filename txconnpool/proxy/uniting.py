# -*- test-case-name: tests.proxy.test_uniting -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Reads of several clients that a server gets as one request, which costs the server, the network and the proxy less.

They are those that come in one turn of the reactor from clients with nothing else in flight. When the reply is complete
it is separated into those to each. If anything unusual happens, each read goes on as if it had been sent alone. So that
this is possible, a client sends the server nothing more until it has its reply.

Pipelines, and reads of several keys if there are several servers by key, are sent together in another way, see
L{txconnpool.proxy.merging}.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IReplySink
from txconnpool.pool.containment import DROPPED, contain

#: The largest number of bytes of the requests that are sent as one.
LONG: Final = 2048

#: So many requests are sent as one at first. The number is doubled while the replies are small.
FEW: Final = 8

#: If a reply has more bytes for each client, or for all of them, the requests of the next L{APART} clients are sent
#: alone: sending them as one would save little, and let clients wait for each other.
LARGE: Final = 4096
WHOLE: Final = 1 << 16
APART: Final = 1024

#: The record of a connection without capacity, and of one that carries nothing.
_BUSY: Final = SimpleNamespace(depth=1, load=1)
_FREE: Final = SimpleNamespace(depth=1, load=0)


class Uniting:
    """
    The reads of the clients of one proxy that are sent as one at the end of this turn of the reactor.

    @ivar seconds: the clock.
    @ivar most: the largest number of requests that are sent as one now.
    """

    def __init__(self, moreInTurn: Callable[[], Any], seconds: Callable[[], float]) -> None:
        """
        @param moreInTurn: returns the L{Turn<txconnpool.net.turn.Turn>} if there may be requests of others in it, see
            L{moreInTurn<txconnpool.net.turn.moreInTurn>}; else C{None}.
        @param seconds: the clock.
        """
        self.seconds = seconds
        self.most = FEW
        self._moreInTurn = moreInTurn
        self._open: dict[Any, UnitedRequest] = {}
        self._apart = 0  # how many clients send their requests alone

    def add(self, session: Any, pool: Any, command: Any, request: bytes) -> UnitedRequest | None:
        """
        Let a client's read be sent together with those of others.

        @param session: the session of the client, which has nothing in flight.
        @param pool: the pool of the server.
        @param command: the command, which C{unites}.
        @param request: the request.

        @return: that which contains it, in place of the connection; C{None} if the request must be sent alone.
        """
        size = len(request)
        united = self._open.get(pool)
        if united is None or united.room < size or len(united.clients) >= self.most:
            moreInTurn = self._moreInTurn
            turn = moreInTurn()
            united = None if turn is None else self._begin(turn, pool, command.several, size)
            if united is None:
                return None
        elif united.command is not command.several:
            return None
        united.room -= size
        united.clients.append((session, command, request))
        return united

    def _begin(self, turn: Any, pool: Any, command: Any, size: int) -> UnitedRequest | None:
        """
        @param size: the number of bytes of the first client's request.

        @return: a request without clients; C{None} if the client's request must be sent alone.
        """
        if self._apart:
            self._apart -= 1
            return None
        record = pool.pick() if size <= LONG else None
        if record is None:
            return None
        record.load += 1
        record.connection.outlet.announce()
        united = self._open[pool] = UnitedRequest(self, pool, record, command)
        turn.atEnd(united.flush)
        return united

    def ended(self, united: UnitedRequest) -> None:
        """
        A request gets no further clients.
        """
        if self._open.get(united.pool) is united:
            del self._open[united.pool]

    def setApart(self) -> None:
        """
        Let requests be sent alone for a while, and only a few as one after it.
        """
        self._apart = APART
        self.most = FEW

    def adapt(self, size: int, count: int) -> None:
        """
        Adapt the number of requests that are sent as one.

        @param size: the number of bytes of a reply.
        @param count: the number of requests that it is for.
        """
        if size > min(LARGE * count, WHOLE):
            self.setApart()
        elif 2 * size > WHOLE:
            self.most = max(FEW, count // 2)
        elif count >= self.most:
            self.most *= 2


@implementer(IReplySink)
class UnitedRequest:
    """
    One request to a server in place of those of several clients, and the sink of its reply.

    The sessions of the clients use this object in place of a L{Connection<txconnpool.pool.connection.Connection>}. It
    has the attributes C{record}, C{send} and C{receiving} of one. It has no capacity, so the sessions send nothing more
    to the server until they have their replies. If there is only one client, its request is sent as it is, and these
    attributes become those of the connection on which it was sent.

    @ivar record: the record that the sessions see: one without capacity; that of the server's connection, if only one
        client's request was sent; one that carries nothing, after the reply.
    @ivar send: the method of the server's connection, if only one client's request was sent. Before that there is no
        capacity for further requests, and the method is missing.
    @ivar pool: the pool of the server.
    @ivar command: the command of the request.
    @ivar room: how many more bytes of requests it can get.
    @ivar clients: the session, the command and the request of each client.
    """

    joins = False

    __slots__ = (
        "_held", "_pieces", "_record", "_since", "_size", "_uniting", "clients", "command", "pool", "record", "room",
        "send",
    )  # fmt: skip

    def __init__(self, uniting: Uniting, pool: Any, record: Any, command: Any) -> None:
        self._uniting = uniting
        self.pool = pool
        self.record: Any = _BUSY
        self._record = record
        self.command = command
        self.room = LONG
        self.clients: list[tuple[Any, Any, bytes]] = []
        self._since = 0.0  # when it was sent
        self._pieces: list[bytes] = []  # of the reply
        self._size = 0  # the number of their bytes
        self._held = 0  # how many of them are counted for each client

    def flush(self) -> None:
        """
        Send the request.
        """
        self._uniting.ended(self)
        self._record.load -= 1  # sending counts it
        try:
            self._send(self._record.connection, len(self.clients))
        except Exception:
            contain(self)

    def _send(self, connection: Any, count: int) -> None:
        self._since = self._uniting.seconds()
        self.pool.counters.acquired += count - 1
        if connection.ended:
            self._sendApart()
        elif count > 1:
            connection.send(self, self.command, 1, self.command.united(self._requests))
        else:
            ((session, command, request),) = self.clients
            connection.send(session, command, 1, request)
            self._end()
            self.record, self.send = self._record, connection.send

    @property
    def receiving(self) -> bool:
        """
        Whether a client has got a part of its reply. If there are several, each gets the whole reply at once.
        """
        return self.record is self._record and bool(self.record.connection.receiving)

    @property
    def sessions(self) -> list[Any]:
        """
        The sessions of the clients.
        """
        return [session for session, _, _ in self.clients]

    @property
    def _requests(self) -> list[bytes]:
        return [request for _, _, request in self.clients]

    def _end(self) -> list[tuple[Any, Any, bytes]]:
        """
        Forget the clients, which may still refer to this object.

        @return: what was forgotten.
        """
        clients, self.clients = self.clients, []
        self.record = _FREE
        return clients

    # -- IReplySink

    def replied(self, data: bytes, done: int) -> None:
        """
        Pass on the reply to each client, if that to the request is complete.
        """
        if not done:
            self._keep(data)
            return
        if self._pieces:
            data = b"".join([*self._pieces, data])
            self._drop()
        count = len(self.clients)
        self._uniting.adapt(len(data), count)
        replies = self.command.separated(self._requests, data)
        if replies is None:  # it is an error, perhaps for one of the requests
            self._uniting.setApart()
            self._sendApart()
            return
        self._count(count - 1)
        for (session, _, _), reply in zip(self._end(), replies, strict=True):
            try:
                session.replied(reply, 1)
            except Exception:
                contain(session)

    def _count(self, more: int) -> None:
        """
        Count so many more requests of the clients.
        """
        traffic = self._record.server.traffic
        traffic.requests[self.command.index] += more
        traffic.moreKeys -= more
        traffic.latency.observe(max(0.0, self._uniting.seconds() - self._since), more)

    def _keep(self, data: bytes) -> None:
        """
        Keep a part of the reply. It is not known for which clients it is, so its bytes are counted in equal shares for
        all of them. If these are too many, each request is sent again, alone.
        """
        present = [session for session in self.sessions if not session.gone]
        share = len(data) // max(1, len(present))
        self._pieces.append(data)
        self._size += len(data)
        if not present or self._size > WHOLE or any(session.isCrowdedBy(share) for session in present):
            self._record.connection.reassign(self, DROPPED)
            self._uniting.setApart()
            self._drop()
            self._sendApart()
            return
        self._held += share
        for session in present:
            session.hold(share)

    def _drop(self) -> None:
        """
        Drop the parts of the reply.
        """
        self._pieces = []
        held, self._held = self._held, 0
        if held:
            for session in self.sessions:
                if not session.gone:
                    session.heldBack(-held)

    def _sendApart(self) -> None:
        """
        Let each client send its request alone.
        """
        for session, command, request in self._end():
            try:
                session.sendAlone(command, request)
            except Exception:
                contain(session)

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Let each client handle the loss of its request. It has received nothing of the reply.
        """
        ((_, _, _, since, _),) = requests
        self._drop()
        for session, command, request in self.clients:
            try:
                session.requestsLost([(session, command, 1, since, request)], False, error)
            except Exception:
                contain(session)

    def afterLoss(self, error: PoolError) -> None:
        """
        Let each client go on.
        """
        for session, _, _ in self._end():
            try:
                session.afterLoss(error)
            except Exception:
                contain(session)

    def abort(self, error: PoolError) -> None:
        """
        Close the clients, because of an unexpected exception.
        """
        self._drop()
        for session, _, _ in self._end():
            session.abort(error)
