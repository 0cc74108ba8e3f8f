# -*- test-case-name: tests.redis.test_pipeline -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Requests that are sent on one connection, one directly after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import ConnectionLostInFlight, PoolError
from txconnpool.interfaces import IRedirectedSink, IResendingSink, IWaiter
from txconnpool.pool.calls import SingleRequest
from txconnpool.pool.connection import Connection, InFlight
from txconnpool.pool.decisions.records import GONE, Record
from txconnpool.pool.decisions.servers import Server
from txconnpool.redis.errors import ResponseError, errorOf
from txconnpool.routing.courses import PRELUDE
from txconnpool.wire.redis.commands import RedisCommand
from txconnpool.wire.redis.dialect import Redis
from txconnpool.wire.topology import Redirect


@implementer(IRedirectedSink)
class LeasedRequest(SingleRequest):
    """
    A request on a leased connection. It is never sent again: it may depend on the state of the connection.
    """

    __slots__ = ()

    def granted(self, record: Record) -> None:
        """
        Send the request, on the connection of the caller.
        """
        if record.phase is GONE:
            self.fail(ConnectionLostInFlight("the leased connection was lost", sent=False))
        else:
            record.connection.send(self, self.command, 1, self._data, True)

    def declined(self, connection: Any, sent: InFlight, reply: bytes) -> bool:
        """
        @return: C{False}: the reply is that to the request.
        """
        return False

    def redirected(self, redirect: Redirect, server: Server) -> None:
        """
        Fail with the error of the node.
        """
        self.fail(undone(redirect))

    def afterLoss(self, error: PoolError) -> None:
        """
        Fail: the connection was lost.
        """
        self.fail(error)


def undone(redirect: Redirect) -> ResponseError:
    """
    @return: the error for a request that a server has not executed. It has the redirect.
    """
    error = errorOf(redirect[1:-2].decode("utf-8", "backslashreplace"))
    error.redirect = redirect
    return error


def askLeased(
    connection: Connection, command: RedisCommand, data: bytes, meaning: Callable[[bytes], Any]
) -> Deferred[Any]:
    """
    Send a request on a leased connection.

    @return: fires with the meaning of the reply. If it is cancelled, the reply is still to come.
    """
    request = LeasedRequest(None, command, data, meaning)
    request.granted(connection.record)
    return request.result


def discard(pool: Any, connection: Connection) -> None:
    """
    End a lease and close its connection at once, also if it has a request in flight: a server that blocks it must not
    execute it later.
    """
    if connection.record.phase is not GONE:
        connection.abort()
    pool.release(connection, discard=True)


class Step:
    """
    One request of a L{Unit}.

    @ivar keys: its keys; a request without keys has no order in a cluster.
    @ivar result: fires with the meaning of the reply.
    """

    __slots__ = ("command", "data", "keys", "meaning", "result")

    def __init__(
        self,
        command: RedisCommand,
        data: bytes,
        meaning: Callable[[bytes], Any],
        keys: frozenset[bytes] = frozenset(),
        result: Deferred[Any] | None = None,
    ) -> None:
        self.command = command
        self.data = data
        self.meaning = meaning
        self.keys = keys
        self.result: Deferred[Any] = Deferred() if result is None else result

    def answer(self, reply: bytes) -> None:
        """
        Fire C{result} with the meaning of a reply.
        """
        if self.result.called:
            return
        try:
            meaning = self.meaning(reply)
        except Exception:
            self.result.errback(Failure())
        else:
            self.result.callback(meaning)

    def fail(self, error: Exception) -> None:
        """
        Fail C{result}.
        """
        if not self.result.called:
            self.result.errback(error)


class Undone(NamedTuple):
    """
    A step that a server has not executed.

    @ivar step: the step.
    @ivar redirect: what the server has replied.
    @ivar server: the server.
    """

    step: Step
    redirect: Redirect
    server: Server


def inOrder(first: Step, second: Step) -> bool:
    """
    @return: whether the second of two requests must not be executed before the first one: not if both only read.
    """
    return not (first.command.idempotent and second.command.idempotent)


def inOrderOfKeys(first: Step, second: Step) -> bool:
    """
    @return: the same, if only the order of requests for one key counts.
    """
    return inOrder(first, second) and not first.keys.isdisjoint(second.keys)


@implementer(IWaiter, IResendingSink, IRedirectedSink)
class Unit:
    """
    Requests that are sent on one connection, with nothing between them. What may have been executed is never sent
    again. What a server says that it has not executed may be, if no later request was executed before it that must not
    be; otherwise it fails with the error of the server.

    @ivar ticket: the ticket of the pool while they wait for a connection, or C{None}.
    """

    __slots__ = ("_again", "_asking", "_order", "_parts", "_pool", "_server", "_steps", "_undone", "ticket")

    joins = False

    def __init__(
        self,
        pool: Any,
        steps: list[Step],
        again: Callable[[list[Undone]], object] | None = None,
        order: Callable[[Step, Step], bool] = inOrder,
        asking: bool = False,
    ) -> None:
        """
        @param pool: a L{CallingPool<txconnpool.pool.calls.CallingPool>}.
        @param again: called with requests to send again, when all others have replies; C{None}: none is sent again.
        @param order: whether two requests must not change their order.
        @param asking: whether the node is to execute the requests although it does not have their slot yet.
        """
        self._pool = pool
        self._steps = deque(steps)
        self._again = again
        self._order = order
        self._asking = asking
        self._parts: list[bytes] = []
        self._undone: list[Undone] = []
        self._server: Any = None
        self.ticket: Any = None

    def send(self) -> None:
        """
        Send the requests, at once or when there is a connection with capacity.
        """
        self._pool.send(self)

    def granted(self, record: Record) -> None:
        """
        Send the requests.
        """
        self._server = record.server
        send = record.connection.send
        asks = self._asking
        for step in list(self._steps):
            if asks:
                send(PRELUDE, *Redis.asking)
                asks = step.command.name != "multi"  # a transaction has to be asked for only once
            send(self, step.command, 1, step.data, False)

    def refused(self, error: PoolError) -> None:
        """
        Fail, because there is no connection.
        """
        self.fail(error)

    def replied(self, data: bytes, done: int) -> None:
        """
        Pass a complete reply to the oldest request.
        """
        if self._parts or not done:
            self._parts.append(data)
            if not done:
                return
            data, self._parts = b"".join(self._parts), []
        step = self._steps.popleft()
        if not self._undone:
            step.answer(data)
            return
        self._keepOrder(step)
        step.answer(data)
        self._goOn()

    def declined(self, connection: Any, sent: InFlight, reply: bytes) -> bool:
        """
        The server has not executed the oldest request.
        """
        if self._again is not None:
            _, command, _, _, _ = sent
            self.redirected(Redirect(reply, command, b""), self._server)
            return True
        return False

    def redirected(self, redirect: Redirect, server: Server) -> None:
        """
        A node has not executed the oldest request. If that is a script, it may have been, unless it was only queued in
        a transaction.
        """
        if self._again is None:
            self._steps.popleft().fail(undone(redirect))
        elif not redirect.command.redirectable and redirect.node is not None:
            self.replied(redirect, 1)
        else:
            step = self._steps.popleft()
            self._undone.append(Undone(step, redirect, server))
            self._goOn()

    def _keepOrder(self, later: Step) -> None:
        """
        Fail the requests that cannot be executed any more after a later one was, or may have been.
        """
        waiting, self._undone = self._undone, []
        for each in waiting:
            if self._order(each.step, later):
                each.step.fail(undone(each.redirect))
            else:
                self._undone.append(each)

    def _goOn(self) -> None:
        if self._undone and not self._steps:
            assert self._again is not None
            self._again(self._undone)
            self._undone = []

    def requestsLost(self, requests: list[InFlight], begun: bool, error: PoolError) -> None:
        """
        Drop what has arrived of a reply.
        """
        self._parts = []

    def afterLoss(self, error: PoolError) -> None:
        """
        Fail: the connection was lost.
        """
        self.fail(error)

    def abort(self, error: PoolError) -> None:
        """
        Fail all requests, because of an unexpected exception.
        """
        steps = [*self._steps, *(each.step for each in self._undone)]
        self._steps.clear()
        self._undone = []
        for step in steps:
            step.fail(error)

    def fail(self, error: Exception) -> None:
        """
        Fail all requests that have no reply.
        """
        while self._steps:
            step = self._steps.popleft()
            self._keepOrder(step)
            step.fail(error)
        self._goOn()
