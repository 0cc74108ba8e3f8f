# -*- test-case-name: tests.pool.test_library -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The requests of L{txconnpool.pool.library.Pool}: method calls on a connection that has capacity.
"""

from __future__ import annotations

from inspect import iscoroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import NoSuchCommand, PoolError
from txconnpool.interfaces import IWaiter
from txconnpool.pool.decisions.records import Record


@implementer(IWaiter)
class Request:
    """
    A method to be called on a connection, and who waits for its result. It is the canceller of its own answer: as very
    many may wait, each is made of as little as possible.

    @ivar answer: fires with the result; C{None} when it has fired or nobody waits any more.
    @ivar record: the L{Record} of the connection, once the method was called.
    """

    __slots__ = ("_args", "_kwargs", "_method", "_pool", "_since", "answer", "record", "ticket")

    def __init__(self, pool: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> None:
        self._pool = pool
        self._method = method
        self._args = args
        self._kwargs = kwargs
        self.answer: Deferred[Any] | None = Deferred(self)
        self.record: Any = None
        self.ticket: Any = None

    def granted(self, record: Record) -> None:
        """
        Call the method.
        """
        self.record = record
        record.load += record.weight
        self._since = self._pool._sent.add(self)
        method = getattr(record.connection, self._method, None)
        try:
            if not callable(method):
                raise NoSuchCommand(f"{type(record.connection).__name__} has no method {self._method!r}")
            result = method(*self._args, **self._kwargs) if self._kwargs else method(*self._args)
        except Exception:
            result = Failure()
        if isinstance(result, Deferred):
            result.addBoth(self._replied)
        elif iscoroutine(result):
            Deferred.fromCoroutine(result).addBoth(self._replied)
        else:
            self._replied(result)

    def refused(self, error: PoolError) -> None:
        """
        It was not sent.
        """
        self._end(Failure(error))

    def fail(self, error: PoolError) -> None:
        """
        It was sent, and there will be no reply. Its connection is at its end, so the load stays where it is.
        """
        failure = Failure(error)
        self._leave(failure)
        self._end(failure)

    def _replied(self, result: Any) -> None:
        """
        The connection is free first: whoever waits is sent before the caller of this request has its say.
        """
        record = self.record
        self._leave(result)
        record.load -= record.weight
        self._pool.hasCapacity(record)
        self._end(result)

    def _leave(self, result: Any) -> None:
        """
        It is in flight no more.
        """
        pool = self._pool
        pool._sent.discard(self)
        if self.answer is None:
            pool._graces.discard(self)
        elif pool.observer is not None:
            pool._notify("answered", self._method, pool._seconds() - self._since, result)

    def _end(self, result: Any) -> None:
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.callback(result)

    def __call__(self, answer: Deferred[Any]) -> None:
        """
        Nobody waits any more.
        """
        self.answer = None
        if self.record is None:
            self._pool.forget(self.ticket)
        else:
            self._pool._cancelled(self)
