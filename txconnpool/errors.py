# -*- test-case-name: tests.test_errors -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The exceptions of txconnpool. All errors that a pool raises for a request derive from L{PoolError}, so that one
C{except PoolError} is enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from txconnpool.nosuchcommand import NoSuchCommand

__all__ = [
    "ClientNotOwned", "ConnectionLostInFlight", "LoginFailed", "NoSuchCommand", "PoolClosed", "PoolError", "PoolFull",
    "PoolTimeout", "ServerUnavailable",
]  # fmt: skip


class PoolError(Exception):
    """
    A request could not be served by the pool.

    C{str} of the exception is a text for logs and users: the event, the server, and the state of the pool where that
    explains the error.

    @ivar kind: a fixed word for this kind of error, used as the C{reason} label of statistics.
    @ivar isStale: whether the connection that carried the request is to blame and not its server, so that a read may be
        sent once more on another connection.
    @ivar server: the name of the server that had the request; empty: none had, or it is not known.
    """

    kind = "other"
    isStale = False
    server = ""


class PoolTimeout(PoolError, TimeoutError):
    """
    One of the three timeouts of a pool expired.

    @ivar phase: the timeout that expired: C{"wait"} (waiting for a connection), C{"connect"} (connecting to a server)
        or C{"request"} (waiting for the reply).
    @ivar stats: the L{txconnpool.metrics.PoolStats} at the time of the error, or C{None}.
    """

    def __init__(self, text: str, phase: str, stats: Any = None) -> None:
        super().__init__(text)
        self.phase = phase
        self.stats = stats
        self.kind = f"{phase}_timeout"


class PoolFull(PoolError):
    """
    All connections are busy and the queue of waiting requests is full.

    @ivar stats: the L{txconnpool.metrics.PoolStats} at the time of the error, or C{None}.
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

    C{__cause__} is the error of the last dial.

    @ivar stats: the L{txconnpool.metrics.PoolStats} at the time of the error, or C{None}.
    """

    kind = "unavailable"

    def __init__(self, text: str, stats: Any = None) -> None:
        super().__init__(text)
        self.stats = stats


class LoginFailed(PoolError):
    """
    A server requires a user and password, and the configured ones are missing or wrong.
    """


class LoginRefused(LoginFailed):
    """
    A server does not accept the login of a client, or not any more. The text is what it says.
    """

    kind = "login_refused"


class TooManyConnections(PoolError):
    """
    A server accepts no more connections, because it has as many as its limit allows.
    """

    def __init__(self) -> None:
        super().__init__("too many connections")


class ConnectionLostInFlight(PoolError):
    """
    The connection that carried the request was lost before the reply was complete.

    @ivar sent: whether bytes of the request may have reached the server. C{False} means that the server did not
        execute the request.
    """

    isStale = True

    def __init__(self, text: str, sent: bool = True, kind: str = "lost") -> None:
        super().__init__(text)
        self.sent = sent
        self.kind = kind


class ClientNotOwned(PoolError, ValueError):
    """
    A client was released that is not leased from this pool, or whose lease has ended already.
    """


class WireError(Exception):
    """
    Received bytes violate the protocol. Nothing that follows them on the connection can be interpreted.

    The text is logged. It says what was expected, and the length and the kind of what was received, but has none of the
    received bytes: they may be values, keys or passwords.
    """


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # Imported when it is used, because it is one of Twisted's exceptions too.
        if name == "NoSuchCommand":
            from txconnpool.nosuchcommand import NoSuchCommand

            return NoSuchCommand
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return __all__
