# -*- test-case-name: tests.pool.test_containment -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What follows from an unexpected exception of code that gets a reply or a connection: it reaches only the requests of
that code. They are ended, so that nobody waits for ever, and all others on the connection go on.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txconnpool.errors import ConnectionLostInFlight, PoolError, WireError
from txconnpool.interfaces import IMergedReplySink, IRedirectedSink

_log = Logger("txconnpool.pool")


@implementer(IMergedReplySink, IRedirectedSink)
class _Dropped:
    """
    Drops replies that nobody waits for.
    """

    joins = False

    def replied(self, data: Any, done: int) -> None:
        pass

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        pass

    def afterLoss(self, error: PoolError) -> None:
        pass

    def redirected(self, redirect: Any, server: Any) -> None:
        pass

    def heldBack(self, change: int) -> bool:
        return False

    def abort(self, error: PoolError) -> None:
        pass


#: The sink of requests whose replies nobody waits for.
DROPPED: Final = _Dropped()


def contain(party: Any, failure: Failure | None = None) -> None:
    """
    Log an exception once, which C{party} has raised, and end everything that waits for C{party}.

    @param party: an L{IReplySink<txconnpool.interfaces.IReplySink>}, an L{IWaiter<txconnpool.interfaces.IWaiter>}, or
        another object with their method C{abort}.
    @param failure: has the exception; C{None}: it is the current one.
    """
    failure = failure or Failure()
    cause = failure.value
    if isinstance(cause, WireError):  # the caller closes the connection, and logs why
        error: PoolError = ConnectionLostInFlight(f"upstream protocol error: {cause}", kind="protocol")
    else:
        kind = type(party).__name__
        _log.failure("unexpected exception of a {kind}; only what waits for it is ended", failure, kind=kind)
        error = PoolError(f"internal error: {cause!r}")
    error.__cause__ = cause
    try:
        party.abort(error)
    except Exception:
        _log.failure("unexpected exception at the end of a {kind}", kind=type(party).__name__)
