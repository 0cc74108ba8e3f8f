# -*- test-case-name: tests.test_errors -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The exceptions of txconnpool: one small tree, so that one C{except PoolError} is enough.
"""

from __future__ import annotations

from typing import Any


class PoolError(Exception):
    """
    A request could not be served by the pool.

    The text of each one is a sentence for people: what happened, to which server, with the numbers of the moment.

    @ivar kind: what happened, in a word, for statistics.
    """

    kind = "other"


class PoolTimeout(PoolError, TimeoutError):
    """
    One of the three times ran out.

    @ivar phase: which: C{"wait"} (waiting for a connection), C{"connect"} (dialing one) or C{"request"} (waiting
        for the answer).
    @ivar stats: the L{txconnpool.metrics.PoolStats} of the moment, or C{None}.
    """

    def __init__(self, text: str, phase: str, stats: Any = None) -> None:
        super().__init__(text)
        self.phase = phase
        self.stats = stats
        self.kind = f"{'wait' if phase == 'acquire' else phase}_timeout"


class PoolFull(PoolError):
    """
    Every connection is busy and as many requests are waiting as may wait.

    @ivar stats: the L{txconnpool.metrics.PoolStats} of the moment, or C{None}.
    """

    kind = "too_many_waiting"

    def __init__(self, text: str, stats: Any = None) -> None:
        super().__init__(text)
        self.stats = stats


class PoolClosed(PoolError):
    """
    The pool is closing or closed.
    """

    kind = "closed"


class ServerUnavailable(PoolError):
    """
    No server can be reached: the last dials failed and no connection is left.

    The failure of the last dial is the C{__cause__}.

    @ivar stats: the L{txconnpool.metrics.PoolStats} of the moment, or C{None}.
    """

    kind = "unavailable"

    def __init__(self, text: str, stats: Any = None) -> None:
        super().__init__(text)
        self.stats = stats


class LoginFailed(PoolError):
    """
    A server wants a user and password, and has not been given the right ones.
    """


class ConnectionLostInFlight(PoolError):
    """
    The connection that carried the request was lost before the reply was complete.

    @ivar sent: whether bytes of the request may have reached the server: if C{False}, it was not executed.
    """

    def __init__(self, text: str, sent: bool = True, kind: str = "lost") -> None:
        super().__init__(text)
        self.sent = sent
        self.kind = kind


class ClientNotOwned(PoolError, ValueError):
    """
    A client was given back that this pool has not lent, or has lent no more.
    """


class NoSuchCommand(Exception):
    """
    A command was asked for that the client does not have, or that is not for asking: a mistake in the program.
    """


class WireError(Exception):
    """
    Bytes came that the protocol does not allow at this place; nothing that follows them can be understood.
    """
