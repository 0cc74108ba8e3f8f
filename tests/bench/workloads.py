# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The requests of a benchmark, and the exact bytes of the expected replies.

A workload is a list of I{exchanges}: request bytes, reply bytes, and the number of requests in them. Each key always
has the same value, which is derived from the key; a C{set} stores that value again. So each reply is known in advance,
and a comparison of bytes detects a reply that belongs to another request.

The same workload can be spelled in memcached's text protocol or in that of Redis.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

#: Request bytes, reply bytes, number of requests.
Exchange = tuple[bytes, bytes, int]

#: The maximum memory of the distinct exchanges of one workload in each generator, in bytes.
PLAN_BYTES = 64 << 20

#: The maximum numbers of distinct exchanges and of requests in them. More would take longer to generate, and would not
#: change the results.
PLAN_LENGTH = 2000
PLAN_REQUESTS = 20_000


class Spelling(Protocol):
    """
    The requests and replies of a protocol.

    @ivar quiet: the request after which a client gets no replies. It is sent before many requests that store values.
    @ivar loud: the request after these, after which the client gets replies again.
    @ivar heard: the first bytes of the reply to C{loud}.
    """

    quiet: bytes
    loud: bytes
    heard: bytes

    def get(self, items: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
        """
        @param items: keys and their values.

        @return: a request for all keys, and its reply.
        """

    def set(self, key: bytes, value: bytes) -> tuple[bytes, bytes]:
        """
        @return: a request that stores a value, and its reply.
        """

    def quietSet(self, key: bytes, value: bytes) -> bytes:
        """
        @return: a request that stores a value, without a reply after L{quiet}.
        """


class _Memcached:
    quiet = b""
    loud = b"version\r\n"
    heard = b"VERSION "

    def get(self, items: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
        reply = b"".join(b"VALUE %b 0 %d\r\n%b\r\n" % (key, len(value), value) for key, value in items)
        return b"get %b\r\n" % b" ".join(key for key, _ in items), reply + b"END\r\n"

    def set(self, key: bytes, value: bytes) -> tuple[bytes, bytes]:
        return b"set %b 0 0 %d\r\n%b\r\n" % (key, len(value), value), b"STORED\r\n"

    def quietSet(self, key: bytes, value: bytes) -> bytes:
        return b"set %b 0 0 %d noreply\r\n%b\r\n" % (key, len(value), value)


class _Redis:
    quiet = b"CLIENT REPLY OFF\r\n"
    loud = b"CLIENT REPLY ON\r\n"
    heard = b"+OK\r\n"

    def get(self, items: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
        if len(items) == 1:
            ((key, value),) = items
            return self._array(b"GET", key), self._bulk(value)
        keys, values = zip(*items, strict=True)
        return self._array(b"MGET", *keys), b"*%d\r\n" % len(values) + b"".join(map(self._bulk, values))

    def set(self, key: bytes, value: bytes) -> tuple[bytes, bytes]:
        return self.quietSet(key, value), b"+OK\r\n"

    def quietSet(self, key: bytes, value: bytes) -> bytes:
        return self._array(b"SET", key, value)

    def _array(self, *words: bytes) -> bytes:
        return b"*%d\r\n" % len(words) + b"".join(map(self._bulk, words))

    def _bulk(self, data: bytes) -> bytes:
        return b"$%d\r\n%b\r\n" % (len(data), data)


#: The protocols, by name.
SPELLINGS: dict[str, Spelling] = {"memcached": _Memcached(), "redis": _Redis()}


@dataclass(frozen=True)
class Workload:
    """
    The parameters of a load.

    @ivar name: the name on the command line.
    @ivar title: the title in reports.
    @ivar clients: the number of clients. Each sends the next request as soon as it got the reply to the last one.
    @ivar depth: the number of requests that a client sends at once; it sends again when all of them are answered.
    @ivar keys: the number of keys in each C{get}.
    @ivar size: the size of each value, in bytes.
    @ivar variety: the greatest number of different keys.
    @ivar reads: the share of C{get} among the requests; all others are C{set}.
    @ivar servers: the number of servers, among which the keys are distributed.
    @ivar rate: the number of times a second that one of the clients sends; 0: each sends as soon as it can.
    @ivar seed: the seed for the random order of keys and commands.
    @ivar protocol: a key of L{SPELLINGS}.
    @ivar native: whether the clients' loop is in C, if there is a compiler, so that the contender is the bottleneck.
    """

    name: str
    title: str
    clients: int = 50
    depth: int = 1
    keys: int = 1
    size: int = 100
    variety: int = 1000
    reads: float = 0.9
    seed: int = 1
    servers: int = 1
    rate: int = 0
    protocol: str = "memcached"
    native: bool = False

    @property
    def spelling(self) -> Spelling:
        """
        The requests and replies of the protocol.
        """
        return SPELLINGS[self.protocol]

    @property
    def items(self) -> int:
        """
        The number of different keys: C{variety}, or fewer if the values are large.
        """
        return max(self.keys, min(self.variety, PLAN_BYTES // 4 // self.size))

    def key(self, number: int) -> bytes:
        """
        @return: the key with this number.
        """
        return b"bench:%07d:%06d" % (self.size, number)

    def value(self, number: int) -> bytes:
        """
        @return: the value of the key with this number.
        """
        unit = b"<%d.%d>" % (number, self.size)
        return (unit * (self.size // len(unit) + 1))[: self.size]

    def preload(self) -> Iterator[bytes]:
        """
        Generate requests that store all keys, without replies after C{spelling.quiet}.
        """
        for number in range(self.items):
            yield self.spelling.quietSet(self.key(number), self.value(number))

    def plan(self) -> list[Exchange]:
        """
        Generate the exchanges, in an order that is random but always the same for the same C{seed}.
        """
        chance = random.Random(self.seed)
        volume = self.depth * self.keys * (self.size + 50)
        # With a great variety of keys, nearly as many are in the plan.
        requests = max(PLAN_REQUESTS, self.variety // self.keys)
        most = max(PLAN_LENGTH, self.variety // self.keys // self.depth)
        length = max(2, min(most, requests // self.depth, PLAN_BYTES // volume))
        count = length * self.depth
        # Not random for each request: a plan of a few dozen requests must have exactly this share of reads too.
        kinds = [number < round(count * self.reads) for number in range(count)]
        chance.shuffle(kinds)
        single = [self._get(chance) if read else self._set(chance) for read in kinds]
        return [_join(single[start : start + self.depth]) for start in range(0, count, self.depth)]

    def _get(self, chance: random.Random) -> Exchange:
        numbers = chance.sample(range(self.items), self.keys)
        request, reply = self.spelling.get([(self.key(number), self.value(number)) for number in numbers])
        return request, reply, 1

    def _set(self, chance: random.Random) -> Exchange:
        number = chance.randrange(self.items)
        request, reply = self.spelling.set(self.key(number), self.value(number))
        return request, reply, 1


def _join(exchanges: Iterable[Exchange]) -> Exchange:
    requests, replies, counts = zip(*exchanges, strict=True)
    return b"".join(requests), b"".join(replies), sum(counts)


@dataclass(frozen=True)
class Aim:
    """
    The aim for a ratio to the yardstick.

    @ivar what: the measure.
    @ivar reach: the ratio that is required at most, also without the extension.
    @ivar goal: the ratio that is wanted, with the extension.
    """

    what: str
    reach: float
    goal: float


#: The workloads of C{python -m tests.bench proxy}, with the aims for the proxy.
TABLE: dict[Workload, Aim] = {
    Workload("c50", "50 clients, one request each in flight"): Aim("cpu", 1.05, 0.95),
    Workload("c500", "500 clients", clients=500): Aim("cpu", 1.05, 0.9),
    Workload("c3000", "3,000 clients", clients=3000): Aim("cpu", 0.95, 0.85),
    Workload("pipeline", "50 clients, 16-deep pipelines", depth=16): Aim("cpu", 0.7, 0.45),
    Workload("multiget", "50 clients, 20-key gets", keys=20): Aim("cpu", 1.1, 0.9),
    Workload("large", "50 clients, 10 kB values", size=10_000): Aim("cpu", 1.05, 1.0),
    Workload("saturated", "200 clients in C", clients=200, native=True): Aim("p50", 1.05, 0.9),
    Workload("single", "1 client", clients=1): Aim("p50", 1.25, 1.15),
    Workload("calm", "50 clients, 1,000 requests a second", rate=1000): Aim("cpu", 1.8, 1.5),
    Workload("s5", "5 servers, 50 clients", servers=5): Aim("cpu", 1.15, 1.0),
    Workload("s5-pipeline", "5 servers, 16-deep pipelines", servers=5, depth=16): Aim("cpu", 0.7, 0.6),
    Workload("s5-multiget", "5 servers, 20-key gets", servers=5, keys=20): Aim("cpu", 0.9, 0.7),
    Workload("s5-multiget100", "5 servers, 100-key gets", servers=5, keys=100): Aim("cpu", 0.9, 0.8),
    Workload("s5-keys", "5 servers, 100,000 keys", servers=5, variety=100_000): Aim("cpu", 1.15, 1.0),
    Workload("s5-multikeys", "5 servers, 20-key gets, 100,000 keys", servers=5, keys=20, variety=100_000): Aim(
        "cpu", 0.9, 0.8
    ),
    Workload("s100", "100 servers, 50 clients", servers=100): Aim("cpu", 1.15, 1.0),
    Workload("r50", "Redis, 50 clients", protocol="redis"): Aim("cpu", 1.2, 1.0),
    Workload("r500", "Redis, 500 clients", clients=500, protocol="redis"): Aim("cpu", 1.2, 1.0),
    Workload("r-pipeline", "Redis, 16-deep pipelines", depth=16, protocol="redis"): Aim("cpu", 0.9, 0.7),
    Workload("r-mget", "Redis, MGET of 20 keys", keys=20, protocol="redis"): Aim("cpu", 1.2, 1.0),
    Workload("r5-mget", "Redis, 5 servers, MGET of 20", servers=5, keys=20, protocol="redis"): Aim("cpu", 0.9, 0.8),
    Workload("r-large", "Redis, 10 kB values", size=10_000, protocol="redis"): Aim("cpu", 1.2, 1.0),
}

#: The series of C{python -m tests.bench scaling}, by name: the unit, and the workloads by value. Each series changes
#: one parameter of the first workload of L{TABLE}.
_BASE = Workload("", "")
SERIES: dict[str, tuple[str, list[tuple[int, Workload]]]] = {
    "clients": (
        "clients",
        [
            (n, replace(_BASE, name=f"c{n}", title=f"{n:,} clients", clients=n))
            for n in (10, 50, 200, 1000, 3000, 10_000)
        ],
    ),
    "values": (
        "bytes a value",
        [
            (n, replace(_BASE, name=f"v{n}", title=f"values of {n:,} bytes", size=n))
            for n in (10, 100, 1000, 10_000, 100_000, 1_000_000)
        ],
    ),
    "pipelines": (
        "requests sent at once",
        [(n, replace(_BASE, name=f"p{n}", title=f"{n}-deep pipelines", depth=n)) for n in (1, 4, 16, 64, 256)],
    ),
}
