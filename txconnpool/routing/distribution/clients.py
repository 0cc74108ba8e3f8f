# -*- test-case-name: tests.routing.distribution.test_vectors -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The distributions of clients.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from txconnpool.routing.distribution.locators import BackwardRing, Locator, Ring, Slots
from txconnpool.routing.distribution.rendezvous import Pymemcache
from txconnpool.routing.distribution.rings import (
    POINTS,
    dalliPoints,
    equalPoints,
    flooredPoints,
    hashedPoints,
    multipliedPoints,
    weightedPoints,
)
from txconnpool.routing.distribution.scheme import (
    KETAMA,
    Scheme,
    Weights,
    WhenDown,
    ketama,
    retrying,
    ringOf,
    slotsOf,
)
from txconnpool.routing.distribution.servers import HOST_AND_PORT, LIBMEMCACHED, SHORT, XMEMCACHED, Member, Members
from txconnpool.routing.hashing import HASHES, LIBMEMCACHED_HASHES, crc32, crc32a, javaHash

_MASK = 0xFFFFFFFF

_md5 = HASHES["md5"]


def _consistent(members: Members, name: str) -> Locator:
    # libmemcached changes to the weighted ring when a server with a greater weight is added, and stays there.
    if any(member.weight > 1 for member in members.everyone):
        return ketama(members, name)
    return ringOf(partial(hashedPoints, hashFunction=HASHES[name]), members, name)


def _rendezvous(members: Members, name: str) -> Locator:
    return Pymemcache(members.live)


def _buckets(members: Members, name: str) -> Locator:
    hashFunction = HASHES[name]

    def tries(key: bytes) -> Iterator[int]:
        value = hashFunction(key)
        yield value
        for number in range(9):
            value = hashFunction(b"%d%d" % (value, number))
            yield value

    return retrying(Slots(members.everyone, hashFunction), tries, members)


def _dalli(members: Members, name: str) -> Locator:
    def tries(key: bytes) -> Iterator[int]:
        yield crc32a(key)
        for number in range(19):
            yield crc32a(b"%d%b" % (number, key))

    return retrying(BackwardRing(dalliPoints(members.everyone), crc32a), tries, members)


def _spymemcached(members: Members, name: str) -> Locator:
    def tries(key: bytes) -> Iterator[int]:
        value = _md5(key)
        yield value
        for number in range(6):
            value = value + _md5(b"%d%b" % (number, key)) & _MASK
            yield value

    points = weightedPoints if members.weighted else equalPoints
    return retrying(Ring(points(members.everyone), _md5), tries, members)


def _gomemcache(members: Members, name: str) -> Locator:
    # gomemcache hashes the first 256 bytes only, but no key is longer.
    return Slots(members.live, crc32a)


def _perlBuckets(members: Members, name: str) -> Locator:
    def tries(key: bytes) -> Iterator[int]:
        value = crc32(key)
        yield value
        for number in range(1, 20):
            value += crc32(b"%d%b" % (number, key))
            yield value

    return retrying(Slots(members.everyone, crc32), tries, members)


def _java(members: Members, name: str) -> Locator:
    def tries(key: bytes) -> Iterator[int]:
        value = javaHash(key)
        yield from range(value, value + int(sum(member.weight for member in members.everyone)))

    return retrying(Slots(members.everyone, javaHash), tries, members)


def _memjs(members: Members, name: str) -> Locator:
    def absolute(key: bytes) -> int:
        value = javaHash(key)
        return min(value, (1 << 32) - value)

    return Slots(members.live, absolute)


def _pecl(members: Members, name: str) -> Locator:
    counts = ((member, POINTS * int(member.weight)) for member in members.live)
    points = [point for member, count in counts for point in hashedPoints([member], HASHES[name], count)]
    ring = Ring(points, HASHES[name])
    # Only 1024 positions of the ring are used.
    step = 0xFFFFFFFF // 1024
    return Slots([Member(ring.owner(slot * step), b"", 1) for slot in range(1024)], HASHES[name])


#: The distributions by their names.
CLIENTS = {
    "libmemcached": Scheme(
        "%(hash)s of the key modulo the number of servers",
        slotsOf,
        hash="one_at_a_time",
        hashes=LIBMEMCACHED_HASHES,
        weights=Weights.IGNORED,
        whenDown=WhenDown.KEPT,
    ),
    "libmemcached-consistent": Scheme(
        "a ring of 100 points per server from %(hash)s of LABEL-0, LABEL-1 ..., or if a weight is greater than 1, of"
        " 160 points per server of average weight from MD5; keys by %(hash)s",
        _consistent,
        hash="one_at_a_time",
        hashes=LIBMEMCACHED_HASHES,
        label=LIBMEMCACHED,
        ring=True,
    ),
    "libmemcached-weighted": Scheme(
        KETAMA,
        ketama,
        hash="md5",
        hashes=LIBMEMCACHED_HASHES,
        label=LIBMEMCACHED,
        ring=True,
    ),
    "pymemcache": Scheme(
        "the server with the highest MurmurHash3 of LABEL-KEY",
        _rendezvous,
        label=HOST_AND_PORT,
        weights=Weights.REFUSED,
    ),
    "python-memcached": Scheme(
        "%(hash)s of the key modulo the sum of the weights",
        _buckets,
        hash="crc32",
        hashes=("crc32", "crc32a"),
        whenDown=WhenDown.RETRIED,
    ),
    "dalli": Scheme(
        "a ring of 160 points per server of average weight from the SHA-1 of LABEL:0, LABEL:1 ...; keys by crc32a",
        _dalli,
        label=HOST_AND_PORT,
        ring=True,
        whenDown=WhenDown.RETRIED,
    ),
    "spymemcached": Scheme(
        "a ring of 160 points per server, or of average weight if weights are given, from the MD5 of LABEL-0, LABEL-1"
        " ...; keys by md5",
        _spymemcached,
        label=HOST_AND_PORT,
        ring=True,
        whenDown=WhenDown.RETRIED,
    ),
    "gomemcache": Scheme(
        "crc32a of the key modulo the sum of the weights",
        _gomemcache,
        whenDown=WhenDown.KEPT,
    ),
    "cache-memcached": Scheme(
        "crc32 of the key modulo the sum of the weights",
        _perlBuckets,
        whenDown=WhenDown.RETRIED,
    ),
    "java-modulo": Scheme(
        "the hash of the key as a Java string, modulo the sum of the weights",
        _java,
        whenDown=WhenDown.RETRIED,
    ),
    "memjs": Scheme(
        "the absolute hash of the key as a Java string, modulo the number of servers",
        _memjs,
        weights=Weights.REFUSED,
        whenDown=WhenDown.KEPT,
    ),
    "node-memcached": Scheme(
        KETAMA,
        partial(ringOf, flooredPoints),
        hash="md5",
        label=SHORT,
        ring=True,
    ),
    "node-hashring": Scheme(
        KETAMA,
        partial(ringOf, flooredPoints),
        hash="md5",
        label=HOST_AND_PORT,
        ring=True,
    ),
    "xmemcached": Scheme(
        "a ring of 160 points per unit of weight from the MD5 of LABEL-0, LABEL-1 ...; keys by %(hash)s",
        partial(ringOf, multipliedPoints),
        hash="md5",
        label=XMEMCACHED,
        ring=True,
        weights=Weights.SMALL_INTEGERS,
        whenDown=WhenDown.KEPT,
    ),
    "pecl-memcache": Scheme(
        "a ring of 160 points per unit of weight from %(hash)s of LABEL-0, LABEL-1 ..., read at 1024 places; keys by"
        " %(hash)s",
        _pecl,
        hash="crc32a",
        hashes=("crc32a", "fnv1a_32"),
        label=HOST_AND_PORT,
        ring=True,
        weights=Weights.SMALL_INTEGERS,
        whenDown=WhenDown.KEPT,
    ),
}
