# -*- test-case-name: tests.routing.distribution.test_rings -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The points of consistent hash rings. What is called "ketama" is several different maps.

All functions take the servers of the ring and return points for L{txconnpool.routing.distribution.locators.Ring}.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from hashlib import md5, sha1
from struct import Struct, pack, unpack
from zlib import crc32

from txconnpool.routing.distribution.locators import INDEX_BITS
from txconnpool.routing.distribution.servers import Member
from txconnpool.routing.hashing import HashFunction

#: The points of each server, if all weights are equal.
POINTS = 160

#: The points of each server in a ring of libmemcached without weights.
UNWEIGHTED_POINTS = 100

_words = Struct("<4I").unpack


def _single(value: float) -> float:
    """
    Round to a C{float} of C.
    """
    rounded: float = unpack("<f", pack("<f", value))[0]
    return rounded


def weightedCounts(members: Sequence[Member]) -> list[int]:
    """
    The numbers of MD5 digests for the servers of a weighted ring, each of which gives four points.

    twemproxy (C{ketama_update} in C{nc_ketama.c}) and libmemcached (C{update_continuum} in C{hosts.cc}) round every
    step to a C{float}. Because of that, equal servers get 39 digests each instead of 40 if there are 25, 47, 50, 100
    or certain other numbers of them. A server of very small weight gets none.
    """
    total = _single(sum(member.weight for member in members))
    counts = []
    for member in members:
        share = _single(_single(member.weight) / total)
        each = _single(_single(share * POINTS) / 4)
        counts.append(math.floor(_single(_single(each * len(members)) + 1e-10)))
    return counts


def md5Points(members: Iterable[Member], counts: Iterable[int]) -> list[int]:
    """
    The points of libketama: four little-endian words of the MD5 of each C{label-0}, C{label-1} and so on.

    @param counts: the numbers of digests of the servers.
    """
    points: list[int] = []
    suffixes = [b"-%d" % number for number in range(POINTS // 4)]
    for member, count in zip(members, counts, strict=True):
        if count > len(suffixes):
            suffixes += [b"-%d" % number for number in range(len(suffixes), count)]
        for suffix in suffixes[:count]:
            for word in _words(md5(member.label + suffix, usedforsecurity=False).digest()):
                points.append(word << INDEX_BITS | member.index)
    return points


def weightedPoints(members: Sequence[Member]) -> list[int]:
    """
    The points of a weighted ketama ring, as twemproxy and libmemcached have it.
    """
    return md5Points(members, weightedCounts(members))


def equalPoints(members: Sequence[Member]) -> list[int]:
    """
    The points of a ketama ring of equal servers, as spymemcached and libketama have it: always 160 each.
    """
    return md5Points(members, [POINTS // 4] * len(members))


def flooredPoints(members: Sequence[Member]) -> list[int]:
    """
    The points of a weighted ketama ring as clients for Node.js have it: with double precision.
    """
    total = sum(member.weight for member in members)
    return md5Points(members, [math.floor(member.weight / total * 40 * len(members)) for member in members])


def multipliedPoints(members: Sequence[Member]) -> list[int]:
    """
    The points of a weighted ketama ring as xmemcached has it: 160 times the weight.
    """
    return md5Points(members, [int(40 * member.weight) for member in members])


def chainedPoints(members: Sequence[Member]) -> list[int]:
    """
    The points of C{Cache::Memcached::Fast} and of C{consistent} in nginx: each is a CRC-32 of host, a null byte, port
    and the point before, 160 times the weight.
    """
    points = []
    for member in members:
        host, _, port = member.label.rpartition(b":") if b":" in member.label else (member.label, b"", b"")
        begin = crc32(host + b"\0" + port)
        point = 0
        for _ in range(int(POINTS * member.weight)):
            point = crc32(point.to_bytes(4, "little"), begin)
            points.append(point << INDEX_BITS | member.index)
    return points


def hashedPoints(members: Iterable[Member], hashFunction: HashFunction, count: int = UNWEIGHTED_POINTS) -> list[int]:
    """
    Points that are the hash values of C{label-0}, C{label-1} and so on, as libmemcached has them without weights.

    @param count: the number of points for each server.
    """
    suffixes = [b"-%d" % number for number in range(count)]
    return [
        hashFunction(member.label + suffix) << INDEX_BITS | member.index for member in members for suffix in suffixes
    ]


def dalliPoints(members: Sequence[Member]) -> list[int]:
    """
    The points of dalli: the first four bytes of the SHA-1 of C{label:0}, C{label:1} and so on, 160 each for equal
    servers.
    """
    total = sum(member.weight for member in members)
    points: list[int] = []
    for member in members:
        count = int(len(members) * POINTS * member.weight // total)
        begin = sha1(member.label + b":", usedforsecurity=False)
        for number in range(count):
            each = begin.copy()
            each.update(b"%d" % number)
            points.append(int.from_bytes(each.digest()[:4]) << INDEX_BITS | member.index)
    return points


#: A function that makes the points of a ring.
PointsFunction = Callable[[Sequence[Member]], list[int]]
