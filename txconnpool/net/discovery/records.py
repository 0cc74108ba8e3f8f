# -*- test-case-name: tests.net.discovery.test_records -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What the records of a DNS answer say. There is no I/O here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from twisted.names import dns


@dataclass(frozen=True, slots=True)
class Found:
    """
    The records for a name in an answer.

    @ivar name: the name at the end of the chain of CNAME records.
    @ivar payloads: its records, such as L{dns.Record_A}.
    @ivar ttl: for how many seconds all of this is valid; infinite if there is no record.
    """

    name: bytes
    payloads: tuple[Any, ...]
    ttl: float


def follow(name: bytes, kind: int, answers: Iterable[Any]) -> Found:
    """
    Find the records for a name, through CNAME records. Other records are ignored: servers add some, and whoever forges
    answers might too.

    @param name: the name that was looked up.
    @param kind: the type of the records, such as L{dns.A}.
    @param answers: the L{dns.RRHeader}s of the answer.
    """
    records = [record for record in answers if record.cls == dns.IN]
    ttl = float("inf")
    seen: set[bytes] = set()
    while True:
        seen.add(canonical(name))
        found = [record for record in records if record.type == kind and canonical(record.name.name) == canonical(name)]
        if found:
            ttl = min(ttl, *(_ttl(record) for record in found), float("inf"))
            return Found(name, tuple(record.payload for record in found), ttl)
        alias = _alias(name, records)
        if alias is None or canonical(alias.payload.name.name) in seen:
            return Found(name, (), ttl)
        ttl = min(ttl, _ttl(alias))
        name = alias.payload.name.name


def canonical(name: bytes) -> bytes:
    """
    @return: a form of a name that is the same for all spellings of it.
    """
    return name.lower().rstrip(b".")


def _alias(name: bytes, records: list[Any]) -> Any:
    for record in records:
        if record.type == dns.CNAME and canonical(record.name.name) == canonical(name):
            return record
    return None


def _ttl(record: Any) -> float:
    # RFC 2181, 8: a TTL with the most significant bit set means 0.
    return float(record.ttl) if record.ttl < 1 << 31 else 0.0
