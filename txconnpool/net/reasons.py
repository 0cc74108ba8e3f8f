# -*- test-case-name: tests.net.test_reasons -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Short texts for the exceptions with which connections fail or end: for logs and errors, and for statistics.
"""

from __future__ import annotations

import os
import re

from twisted.internet import error

from txconnpool.errors import LoginFailed, PoolTimeout, TooManyConnections, WireError
from txconnpool.net.tls import tlsProblem


def describe(reason: BaseException | None) -> str:
    """
    Describe why a connection failed or ended.

    @return: a text of a few words, without addresses of objects and the like.
    """
    if reason is None:
        return "connection lost"
    if isinstance(reason, error.ConnectError) and reason.osError is not None:
        number = reason.osError
        return (os.strerror(number) if isinstance(number, int) else str(number)).lower()
    if isinstance(reason, error.ConnectionRefusedError):
        return "connection refused"
    if isinstance(reason, error.ConnectionDone):
        return "connection closed by the server"
    if isinstance(reason, error.ConnectionLost):
        return "connection lost"
    return tlsProblem(reason) or str(reason) or type(reason).__name__


def kindOf(reason: BaseException | None) -> str:
    """
    Classify why a connection failed or ended.

    @return: one of a small number of words of small letters and underscores, for the label C{reason} of statistics.
    """
    if isinstance(reason, error.ConnectError) and isinstance(reason.osError, int):
        return re.sub("[^a-z0-9]+", "_", os.strerror(reason.osError).lower()).strip("_")
    for kinds, word in _KINDS:
        if isinstance(reason, kinds):
            return word
    return "other" if reason is None or tlsProblem(reason) is None else "tls"


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((PoolTimeout, error.TimeoutError), "timeout"),
    (error.ConnectionRefusedError, "connection_refused"),
    (error.DNSLookupError, "no_such_host"),
    (error.ConnectionDone, "closed_by_server"),
    (error.ConnectionAborted, "aborted"),
    ((error.ConnectionLost, type(None)), "connection_lost"),
    (LoginFailed, "login_failed"),
    (TooManyConnections, "too_many_connections"),
    (WireError, "protocol_error"),
)
