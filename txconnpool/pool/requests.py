# -*- test-case-name: tests.pool.test_library -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The requests of L{txconnpool.pool.library.RequestPool}: method calls on a connection that has capacity.
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
    A call of a method of a connection, and the Deferred of its result. Very many requests may wait, so each is one
    small object: it is also the canceller of its Deferred.

    @ivar answer: a Deferred that fires with the result; C{None} when it has fired or was cancelled.
    @ivar record: the record of the connection, once the method was called.
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
        Fail without having been sent.
        """
        self._end(Failure(error))

    def abort(self, error: PoolError) -> None:
        """
        Fail, because of an unexpected exception.
        """
        self._end(Failure(error))

    def fail(self, error: PoolError) -> None:
        """
        Fail after having been sent. Its connection is about to end, so the load of the record does not matter.
        """
        failure = Failure(error)
        self._leave(failure)
        self._end(failure)

    def _replied(self, result: Any) -> None:
        """
        Release the connection first, so that a waiting request is sent before the callbacks of this one run.
        """
        record = self.record
        pool = self._pool
        if result.__class__ is not Failure:
            record.served = True
        self._leave(result)
        if pool._quieting is None or not pool._quieting.waits(record, record.weight, pool.leaseEnded):
            record.load -= record.weight
            pool.hasCapacity(record)
        self._end(result)

    def _leave(self, result: Any) -> None:
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
        Cancel: the canceller of C{answer}.
        """
        self.answer = None
        if self.record is None:
            self._pool.forget(self.ticket)
        else:
            self._pool._cancelled(self)
