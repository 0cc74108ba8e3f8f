# -*- test-case-name: tests.memcache.test_requests -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The requests of a client on pipelined connections: each waits for a connection with capacity, is sent, and passes its
reply to its callers.

A request that was sent gets its reply even if its callers were cancelled. The reply is then dropped, and reaches no
other caller.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IResendingSink, IWaiter
from txconnpool.pool.base import BasePool
from txconnpool.pool.connection import Connection, ConnectionFactory, InFlight, isRetryable
from txconnpool.pool.decisions.records import Record
from txconnpool.wire import Command


@implementer(IWaiter, IResendingSink)
class Request:
    """
    One request to a server.

    @ivar command: the command of the request.
    @ivar ticket: the ticket of the pool while the request waits for a connection, or C{None}.
    """

    __slots__ = ("_parts", "_pool", "_retried", "command", "ticket")

    joins = False

    def __init__(self, pool: Any, command: Command) -> None:
        self._pool = pool
        self.command = command
        self.ticket: Any = None
        self._parts: list[bytes] | None = None
        self._retried = False

    def encode(self) -> bytes:
        """
        @return: the bytes to send; empty if all callers were cancelled.
        """
        raise NotImplementedError

    def answer(self, reply: bytes) -> None:
        """
        Pass a complete reply to the callers.
        """
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """
        Pass an error to the callers.
        """
        raise NotImplementedError

    def granted(self, record: Record) -> None:
        """
        Send the request on a connection with capacity.
        """
        data = self.encode()
        if data:
            record.connection.send(self, self.command, 1, data, False)
        else:
            self._pool.hasCapacity(record)

    def refused(self, error: PoolError) -> None:
        """
        Fail, because there is no connection.
        """
        self.fail(error)

    def abort(self, error: PoolError) -> None:
        """
        Fail, because of an unexpected exception.
        """
        self.fail(error)

    def forget(self) -> None:
        """
        Stop waiting for a connection, because all callers were cancelled. If the request was sent already, its reply is
        dropped when it arrives.
        """
        if self.ticket is not None:
            self._pool.forget(self.ticket)

    def replied(self, data: bytes, done: int) -> None:
        """
        Collect the parts of the reply until it is complete.
        """
        if done and not self._parts:
            self.answer(data)
            return
        if self._parts is None:
            self._parts = []
        self._parts.append(data)
        if done:
            self.answer(b"".join(self._parts))

    def declined(self, connection: Any, sent: InFlight, reply: bytes) -> bool:
        """
        Send the request once more: the server has not executed it. Calls that do not wait for one another have no
        order.
        """
        if self._retried:
            return False
        self._sendAgain()
        return True

    def requestsLost(self, requests: list[InFlight], begun: bool, error: PoolError) -> None:
        """
        Drop what has arrived of the reply.
        """
        self._parts = None

    def afterLoss(self, error: PoolError) -> None:
        """
        The connection was lost: send a read once more, or fail.
        """
        if isRetryable(self.command, error) and not self._retried:
            self._sendAgain()
        else:
            self.fail(error)

    def _sendAgain(self) -> None:
        self._retried = True
        self._pool.counters.retries += 1
        self._pool.send(self)


class SingleRequest(Request):
    """
    A request with one caller. It is the canceller of its own C{result}.

    @ivar result: fires with the meaning of the reply.
    """

    __slots__ = ("_data", "_meaning", "result")

    def __init__(self, pool: Any, command: Command, data: bytes, meaning: Callable[[bytes], Any]) -> None:
        super().__init__(pool, command)
        self._data = data
        self._meaning = meaning
        self.result: Deferred[Any] = Deferred(self)

    def __call__(self, result: Deferred[Any]) -> None:
        """
        The caller has cancelled C{result}.
        """
        self.forget()

    def encode(self) -> bytes:
        """
        @return: the bytes of the request; empty if its caller was cancelled.
        """
        return b"" if self.result.called else self._data

    def answer(self, reply: bytes) -> None:
        """
        Fire C{result} with the meaning of a reply.
        """
        if not self.result.called:
            try:
                meaning = self._meaning(reply)
            except Exception:
                self.result.errback(Failure())
            else:
                self.result.callback(meaning)

    def fail(self, error: Exception) -> None:
        """
        Fail C{result}, unless it was cancelled.
        """
        if not self.result.called:
            self.result.errback(error)


class CallingPool(BasePool[Connection]):
    """
    A pool of pipelined connections that sends the requests of a client.
    """

    def __init__(
        self,
        serverAddresses: Any,
        maxClients: int,
        reactor: Any,
        forceShutdown: bool,
        dialect: Any,
        *,
        requestTimeout: float | None,
        replyTimeout: float | None,
        **options: Any,
    ) -> None:
        """
        @param dialect: the protocol, an L{IDialect<txconnpool.wire.IDialect>}.
        @param requestTimeout: the seconds that a server may be silent while requests are in flight; C{None}: no limit.
        @param replyTimeout: the seconds that the server may take for one reply whose bytes keep coming; C{None}: no
            limit.
        @param options: see L{BasePool.__init__}, as for the other parameters.
        """
        factory = ConnectionFactory(
            dialect,
            reactor,
            inf if requestTimeout is None else requestTimeout,
            replyTimeout=inf if replyTimeout is None else replyTimeout,
        )
        super().__init__(serverAddresses, maxClients, reactor, forceShutdown, factory, **options)

    def send(self, request: Any) -> None:
        """
        Send a request on a connection with capacity, at once or when there is one.

        @param request: a L{Request}, or another L{IWaiter} with its method C{fail}.
        """
        if self._checks:
            self.state.doubt(self._seconds())
        try:
            record = self.take(request)
        except PoolError as error:
            request.fail(error)
        else:
            if record is not None:
                request.granted(record)
