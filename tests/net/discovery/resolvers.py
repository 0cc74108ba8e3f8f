# Copyright txconnpool contributors. See LICENSE.
"""
A resolver without DNS, for tests.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.names import dns

#: What a fake resolver knows: records, an exception to fail with, or C{None} for an answer that never comes.
Known = list[Any] | Exception | None


def record(name: str, payload: Any, ttl: int = 300, cls: int = dns.IN) -> dns.RRHeader:
    """
    @return: a record of a DNS answer.
    """
    return dns.RRHeader(name.encode(), payload.TYPE, cls, ttl, payload)


def addresses(name: str, *ips: str, ttl: int = 300) -> list[dns.RRHeader]:
    """
    @return: the A and AAAA records of a name.
    """
    return [record(name, dns.Record_AAAA(ip) if ":" in ip else dns.Record_A(ip), ttl) for ip in ips]


class FakeResolver:
    """
    A resolver that answers from a dictionary.

    @ivar known: what it knows, by name and type. Anything else is an empty answer.
    @ivar asked: the questions so far.
    @ivar pending: the answers that do not come.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[str, int], Known] = {}
        self.asked: list[tuple[str, int]] = []
        self.pending: list[Deferred[Any]] = []

    def learn(self, name: str, *ips: str, ttl: int = 300) -> None:
        """
        Replace the addresses of a name.
        """
        self.known[name, dns.A] = addresses(name, *(ip for ip in ips if ":" not in ip), ttl=ttl)
        self.known[name, dns.AAAA] = addresses(name, *(ip for ip in ips if ":" in ip), ttl=ttl)

    def lookupAddress(self, name: bytes) -> Deferred[Any]:
        return self._answer(name, dns.A)

    def lookupIPV6Address(self, name: bytes) -> Deferred[Any]:
        return self._answer(name, dns.AAAA)

    def lookupService(self, name: bytes) -> Deferred[Any]:
        return self._answer(name, dns.SRV)

    def _answer(self, name: bytes, kind: int) -> Deferred[Any]:
        self.asked.append((name.decode(), kind))
        known = self.known.get((name.decode(), kind), [])
        if known is None:
            pending: Deferred[Any] = Deferred()
            self.pending.append(pending)
            return pending
        return fail(known) if isinstance(known, Exception) else succeed((known, [], []))
