# -*- test-case-name: tests.proxy.test_strangers -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Clients that speak a protocol which the listening address does not: most have a wrong port or a wrong option.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger

from txconnpool.metrics import tally
from txconnpool.net.loglimit import LogLimit
from txconnpool.net.transport import peerOf

_log = Logger("txconnpool.proxy")

#: Seconds after which the log says again that clients speak a protocol.
PERIOD: Final = 60.0

#: What the log says about the clients of each protocol.
_TEXTS: Final = {
    "tls": "speaks TLS, and this address does not",
    "no_tls": "has failed in its TLS handshake: it may not speak TLS, or trust other certificates",
    "http": "speaks HTTP",
    "redis": "speaks the protocol of Redis",
}


class Strangers:
    """
    The clients of one pool that speak another protocol.

    @ivar counts: their number, by protocol.
    """

    def __init__(self, pool: str, seconds: Callable[[], float]) -> None:
        """
        @param pool: the name of the pool, for the log.
        @param seconds: returns the time.
        """
        self.counts: dict[str, int] = {}
        self._pool = pool
        self._seconds = seconds
        self._limits: dict[str, LogLimit] = {}  # by protocol

    def add(self, protocol: str, transport: Any) -> None:
        """
        Count a client, and log it unless others were logged a short time ago.
        """
        tally(self.counts, protocol)
        limit = self._limits.get(protocol)
        if limit is None:
            limit = self._limits[protocol] = LogLimit(self._seconds, PERIOD)
        count = limit.add()
        if count:
            more = f"; {count - 1} others did since the last such line" if count > 1 else ""
            what = _TEXTS.get(protocol, f"speaks {protocol}")
            _log.warn("{pool}: the client at {address} {what}, and is closed{more}", pool=self._pool,
                      address=peerOf(transport), what=what, more=more)  # fmt: skip
