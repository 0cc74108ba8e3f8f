# -*- test-case-name: tests.routing.distribution.test_vectors -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The distributions of proxies.
"""

from __future__ import annotations

from txconnpool.routing.distribution.jump import Jump
from txconnpool.routing.distribution.locators import Locator, Ring, Slots
from txconnpool.routing.distribution.mcrouter import Ch3, Rendezvous, WeightedCh3
from txconnpool.routing.distribution.rings import POINTS, chainedPoints, hashedPoints
from txconnpool.routing.distribution.scheme import KETAMA, Scheme, Weights, WhenDown, ketama
from txconnpool.routing.distribution.servers import HOST_AND_PORT, TWEMPROXY, Members
from txconnpool.routing.distribution.xxh3 import chosenXxh3 as xxh3
from txconnpool.routing.hashing import HASHES, TWEMPROXY_HASHES, crc32a


def _sortedSlots(members: Members, name: str) -> Locator:
    # string_compare() of twemproxy compares the lengths first.
    return Slots(sorted(members.live, key=lambda member: (len(member.label), member.label)), HASHES[name])


def _mcrouter(members: Members, name: str) -> Locator:
    if name == "crc32":
        return Slots(members.live, lambda key: crc32a(key) & 0x7FFFFFFF)
    return WeightedCh3(members.live) if members.weighted else Ch3(members.live)


def _rendezvous(members: Members, name: str) -> Locator:
    return Rendezvous(members.live, members.weighted)


def _nginx(members: Members, name: str) -> Locator:
    return Ring(chainedPoints(members.live), crc32a)


def _low32(data: bytes) -> int:
    return xxh3(data) & 0xFFFFFFFF


def _xxh3Ring(members: Members, name: str) -> Locator:
    return Ring(hashedPoints(members.live, _low32, POINTS), _low32)


def _jump(members: Members, name: str) -> Locator:
    return Jump(members.live)


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
    "mcrouter-rendezvous": Scheme(
        "the server with the highest rendezvous hash of LABEL and key, by weight if a server has a weight",
        _rendezvous,
        label=HOST_AND_PORT,
        weights=Weights.FRACTIONS,
        weight=0.5,
        whenDown=WhenDown.KEPT,
        stop=b"|#|",
        routes=True,
    ),
    "memcached-proxy": Scheme(
        "jump hash of the XXH3 of the key",
        _jump,
        weights=Weights.REFUSED,
        whenDown=WhenDown.KEPT,
        emptyTags=True,
    ),
    "memcached-proxy-ring": Scheme(
        "a ring of 160 points per server from the XXH3 of LABEL-0, LABEL-1 ...; keys by XXH3",
        _xxh3Ring,
        label=HOST_AND_PORT,
        ring=True,
        weights=Weights.REFUSED,
        whenDown=WhenDown.KEPT,
        emptyTags=True,
    ),
    "nginx": Scheme(
        "consistent of nginx: a ring of 160 points per unit of weight from the CRC-32 of LABEL; keys by crc32a",
        _nginx,
        label=HOST_AND_PORT,
        ring=True,
        weights=Weights.SMALL_INTEGERS,
        whenDown=WhenDown.KEPT,
    ),
}
