# -*- test-case-name: tests.routing.distribution.test_vectors -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The distributions of proxies.
"""

from __future__ import annotations

from txconnpool.routing.distribution.locators import Locator, Slots
from txconnpool.routing.distribution.mcrouter import Ch3, WeightedCh3
from txconnpool.routing.distribution.scheme import KETAMA, Scheme, Weights, WhenDown, ketama
from txconnpool.routing.distribution.servers import TWEMPROXY, Members
from txconnpool.routing.hashing import HASHES, TWEMPROXY_HASHES, crc32a


def _sortedSlots(members: Members, name: str) -> Locator:
    # string_compare() of twemproxy compares the lengths first.
    return Slots(sorted(members.live, key=lambda member: (len(member.label), member.label)), HASHES[name])


def _mcrouter(members: Members, name: str) -> Locator:
    if name == "crc32":
        return Slots(members.live, lambda key: crc32a(key) & 0x7FFFFFFF)
    return WeightedCh3(members.live) if members.weighted else Ch3(members.live)


#: The distributions by their names.
PROXIES = {
    "twemproxy": Scheme(
        KETAMA,
        ketama,
        hash="fnv1a_64",
        hashes=TWEMPROXY_HASHES,
        label=TWEMPROXY,
        ring=True,
    ),
    "twemproxy-modula": Scheme(
        "%(hash)s of the key modulo the sum of the weights; servers sorted by the length of their labels, then by them",
        _sortedSlots,
        hash="fnv1a_64",
        hashes=TWEMPROXY_HASHES,
        label=TWEMPROXY,
    ),
    "mcrouter": Scheme(
        "%(hash)s of the key and the number of servers (ch3 is WeightedCh3 if a server has a weight)",
        _mcrouter,
        hash="ch3",
        hashes=("ch3", "crc32"),
        weights=Weights.FRACTIONS,
        weight=0.5,
        whenDown=WhenDown.KEPT,
        stop=b"|#|",
        routes=True,
    ),
}
