# -*- test-case-name: tests.proxy.test_pinning -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Connections that are lent for a time: to one client whose requests depend on the state of the connection, or to all
clients that share what a server sends without being asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IReplySink
from txconnpool.metrics import Reason
from txconnpool.pool.decisions.reasons import LEFT_IN_USE, RESET_FAILED


@implementer(IReplySink)
class _Step:
    """
    Checks the reply to a request that gives a connection its flavour. If it fails, the connection is closed.
    """

    __slots__ = ("_command", "_expected", "_lent", "_reply")

    joins = False

    def __init__(self, lent: LentConnection, command: Any, expected: bytes) -> None:
        self._lent = lent
        self._command = command
        self._expected = expected
        self._reply = b""

    def replied(self, data: bytes, done: int) -> None:
        self._reply = self._reply or data
        if not done:
            return
        if self._reply.startswith(self._expected):
            self._lent.stepped()
        else:
            self._lent.unprepared(self._command, self._reply)

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        pass

    def afterLoss(self, error: PoolError) -> None:
        pass

    def abort(self, error: PoolError) -> None:
        self._lent.abort(error)


class LentConnection:
    """
    An idle connection of a pool that others do not get until it is released.

    The server could execute requests in another database, or as another user, if it refuses one of the first requests,
    which give the connection its flavour. So others are sent only when it has accepted all of these.
    """

    __slots__ = ("_factory", "_lost", "_pool", "_record", "_refusal", "_steps")

    def __init__(self, factory: Any, pool: Any, record: Any) -> None:
        """
        @param factory: the L{SessionFactory<txconnpool.proxy.sessions.SessionFactory>}.
        @param pool: the pool.
        @param record: the record of an idle connection.
        """
        self._factory = factory
        self._pool = pool
        self._record = record
        self._lost = False
        self._steps = 0  # the number of first requests that the server has not accepted yet
        self._refusal: PoolError | None = None  # why it has not
        record.lent = record.depth
        record.load += record.lent
        record.connection.lease = self

    def _prepare(self, steps: Iterable[tuple[Any, bytes, bytes]]) -> None:
        """
        Send the first requests.

        @param steps: their commands, their bytes, and the beginnings of their replies.
        """
        connection = self._record.connection
        for command, request, expected in steps:
            self._steps += 1
            connection.send(_Step(self, command, expected), command, 1, request)

    @property
    def ready(self) -> bool:
        """
        Whether further requests can be sent.
        """
        return not self._steps

    def unprepared(self, command: Any, reply: bytes) -> None:
        """
        The server refuses one of the first requests. Close the connection.
        """
        if self._refusal is None:
            self._refusal = self._factory.dialect.unprepared(command, reply)
            self._record.connection.abort()

    def stepped(self) -> None:
        """
        The server has accepted one of the first requests.
        """
        self._steps -= 1
        if self.ready and self._record.connection.lease is self:
            self.prepared()

    def prepared(self) -> None:
        """
        Called when further requests can be sent, if this was not possible at first.
        """
        raise NotImplementedError

    @property
    def pool(self) -> Any:
        """
        The pool of the connection.
        """
        return self._pool

    @property
    def connection(self) -> Any:
        """
        The L{Connection<txconnpool.pool.connection.Connection>}.
        """
        return self._record.connection

    def pushed(self, data: bytes) -> None:
        """
        Take a frame that the server sent without a request.
        """
        raise NotImplementedError

    def connectionLost(self, error: PoolError) -> None:
        """
        Handle the loss of the connection, before its requests are answered with the error.
        """
        self._lost = True

    def abort(self, error: PoolError) -> None:
        """
        End everything that waits for the connection, because of an unexpected exception.
        """
        raise NotImplementedError

    def release(self) -> None:
        """
        Return the connection, which is idle, to the pool. If clients can change the state of connections, it is reset
        before.
        """
        self._record.connection.lease = None
        reset = self._factory.reset
        if reset is None or self._lost:
            self._return()
        else:
            Deferred.fromCoroutine(reset(self._record.connection)).addCallbacks(self._wasReset, self._notReset)

    def _return(self) -> None:
        self._pool.leaseEnded(self._record, self._unlend())

    def _wasReset(self, _: None) -> None:
        self._return()

    def _notReset(self, failure: Failure) -> None:
        failure.trap(PoolError)
        self._close(RESET_FAILED)

    def abandon(self) -> None:
        """
        Close the connection, because its state belongs to a client that is gone.
        """
        self._close(LEFT_IN_USE)

    def _close(self, why: Reason) -> None:
        self._pool.retire(self._record, why)
        connection = self._record.connection
        self._record.load -= self._unlend()
        connection.abort()

    def _unlend(self) -> int:
        """
        @return: what the lease has added to the load of the connection.
        """
        self._record.connection.lease = None
        load, self._record.lent = self._record.lent, 0
        return int(load)


class Pin(LentConnection):
    """
    The lease of a connection by a session. It lasts from a request that needs it until the request reader reports that
    no state is left and all requests are answered. The connection then returns to the pool. If the client leaves before
    that, the connection is closed.

    @ivar used: whether a request was sent on it.
    """

    __slots__ = ("_reader", "_session", "used")

    def __init__(self, session: Any, pool: Any, record: Any, reader: Any) -> None:
        """
        @param session: the session.
        @param pool: the pool.
        @param record: the record of an idle connection.
        @param reader: the request reader of the session.
        """
        super().__init__(session.factory, pool, record)
        self._session = session
        self._reader = reader
        self.used = False
        dialect = session.factory.dialect
        if dialect.stateful:
            self._prepare((*dialect.prelude(reader.flavour), *reader.opening()))
        reader.pinned = True

    def prepared(self) -> None:
        """
        Let the session go on.
        """
        self._session.pinReady()

    @property
    def needed(self) -> bool:
        """
        Whether requests of the client still need the connection.
        """
        return bool(self._reader.pinned)

    @property
    def blocks(self) -> bool:
        """
        Whether the server waits for something before it replies.
        """
        return bool(self._record.connection.patient)

    @property
    def held(self) -> bool:
        """
        Whether the server does not read.
        """
        return bool(self._record.held)

    def forwarded(self, command: Any) -> None:
        """
        A request was sent on the connection.
        """
        self.used = True
        self._reader.forwarded(command)

    def pushed(self, data: bytes) -> None:
        """
        Write a frame that the server sent without a request.
        """
        self._session.pushed(data)

    def connectionLost(self, error: PoolError) -> None:
        """
        Handle the loss of the connection, before its requests are answered with the error.
        """
        super().connectionLost(error)
        if self.needed:
            self._reader.pinned = False
            self._session.pinLost(self._refusal or error)

    def abort(self, error: PoolError) -> None:
        """
        Close the client, and with it the connection.
        """
        self._session.abort(error)
