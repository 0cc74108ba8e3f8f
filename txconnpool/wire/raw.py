# -*- test-case-name: tests.wire.test_raw -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A protocol that is not known: bytes are passed on as they come. No request and no reply is found in them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from txconnpool.wire import Command

#: What is counted in place of requests: the time for which a client had a connection.
SESSION: Final = Command("session", 0)


class Raw:
    """
    The dialect of a pool whose bytes are never read. It has only what is used of an
    L{IDialect<txconnpool.wire.IDialect>} without requests and replies.
    """

    commands = (SESSION,)
    stateful = False
    mergesReads = False
    opaque = True
    tooManyClients = b""

    def __init__(
        self, maxItemSize: int = 0, denied: frozenset[bytes] = frozenset(), allowed: frozenset[bytes] | None = None
    ) -> None:
        """
        The parameters are those of all dialects. None has a meaning here.
        """

    def limit(self, maxItemSize: int, denied: frozenset[bytes], allowed: frozenset[bytes] | None) -> None:
        """
        Do nothing: there are no requests that could be refused.
        """

    def keep(self, servers: Iterable[str]) -> None:
        """
        Do nothing: nothing is known of any server.
        """
