# -*- test-case-name: tests.bench.test_library -*-
# Copyright txconnpool contributors. See LICENSE.
"""
C{python -m tests.bench library}: the cost of a call in a program that embeds the pool.

The result has three tables. The first compares memcached clients (of txconnpool and others). Each runs in a process of
its own, and they query one memcached in alternating rounds. In the second one they get many keys at once from several
memcacheds. The third one measures the pool without any I/O: the time that it adds to the call of a client's method.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.memcache import MemCacheProtocol

from tests.bench import report
from tests.bench.contenders import fill, storage
from tests.bench.measure import machine, pinned, processors, residentSize
from tests.bench.workloads import Workload
from tests.real.servers import HOST, SOURCE
from txconnpool.memcache.pool import MemCachePool
from txconnpool.routing.requests import Pool
from txconnpool.testing import FakeServer, finish

WORKLOAD = Workload("library", "calls of a program")

#: The stored items: pairs of key and value.
ITEMS: list[tuple[bytes, bytes]] = []
for _request in WORKLOAD.preload():
    _line, _value, _ = _request.split(b"\r\n")
    ITEMS.append((_line.split()[1], _value))

#: The position of each key.
INDEX = {key: number for number, (key, _) in enumerate(ITEMS)}

#: The number of keys of one call in the second table, and the number of servers that share them.
TOGETHER = 100
SHARING = 5

Ask = Callable[[bytes, bytes], Awaitable[Any]]
Servers = list[tuple[str, int]]


class WrongAnswer(Exception):
    """
    A client returned something other than the stored value.
    """


# -- Memcached clients: each of these functions runs in a process of its own


async def caller(ask: Ask, first: int, count: int) -> None:
    """
    Make C{count} calls, each after the result of the one before.

    @param first: the index of the first item to use.
    @raise WrongAnswer: a result is wrong.
    """
    for number in range(first, first + count):
        key, value = ITEMS[number % len(ITEMS)]
        answer = await ask(key, value)
        if answer is not True and answer[-1] != value:
            raise WrongAnswer(f"{key!r}: {answer!r}")


@dataclass(frozen=True)
class Client:
    """
    A memcached client to measure.

    @ivar about: its configuration, for the report.
    @ivar ask: creates the function that gets or stores one item.
    @ivar needs: the package that it needs.
    """

    name: str
    about: str
    ask: Callable[[Servers], Any]
    needs: str = "twisted"

    def serve(self, servers: Servers, callers: int) -> None:
        """
        Read numbers of calls from the standard input, one per line. Make so many calls, and write their cost to the
        standard output as one line of JSON.
        """
        if self.needs == "twisted":
            react(lambda reactor: Deferred.fromCoroutine(self._serveTwisted(servers, callers)))
        else:
            asyncio.run(self._serveAsyncio(servers, callers))

    async def _serveTwisted(self, servers: Servers, callers: int) -> None:
        ask = self.ask(servers)
        for line in sys.stdin:
            each = int(line) // callers
            before = time.process_time(), time.perf_counter()
            await gatherResults([Deferred.fromCoroutine(caller(ask, number * 37, each)) for number in range(callers)])
            _writeCost(before, each * callers)

    async def _serveAsyncio(self, servers: Servers, callers: int) -> None:
        ask = await self.ask(servers)
        for line in sys.stdin:
            each = int(line) // callers
            before = time.process_time(), time.perf_counter()
            await asyncio.gather(*(caller(ask, number * 37, each) for number in range(callers)))
            _writeCost(before, each * callers)


def _writeCost(before: tuple[float, float], calls: int) -> None:
    cpu, wall = time.process_time() - before[0], time.perf_counter() - before[1]
    sys.stdout.write(json.dumps({"cpu": cpu / calls * 1e6, "rate": calls / wall}) + "\n")
    sys.stdout.flush()


def _get(servers: Servers, **settings: Any) -> Ask:
    get = MemCachePool(servers, **settings).get
    return lambda key, value: get(key)


def _set(servers: Servers) -> Ask:
    return MemCachePool(servers).set


def _getMultiple(servers: Servers) -> Ask:
    pool = MemCachePool(servers)

    async def get(key: bytes, value: bytes) -> tuple[bytes]:
        items = together(key)
        found = await pool.getMultiple(list(items))
        return (value if {key: found[key][1] for key in found} == items else b"",)

    return get


def _protocol(servers: Servers, connections: int, depth: int) -> Ask:
    pool: Pool[MemCacheProtocol] = Pool(
        servers, connections, pipelineDepth=depth, clientFactory=Factory.forProtocol(MemCacheProtocol)
    )
    return lambda key, value: pool.performRequest("get", key)


async def _emcache(servers: Servers, verb: str = "get", **settings: Any) -> Ask:
    emcache: Any = importlib.import_module("emcache")
    # emcache serves the newest waiter first, so that others may wait longer than its default timeout of one second.
    client = await emcache.create_client(
        [emcache.MemcachedHostAddress(*server) for server in servers], timeout=60.0, **settings
    )

    async def get(key: bytes, value: bytes) -> tuple[bytes]:
        item = await client.get(key)
        return (item.value,)

    async def getMany(key: bytes, value: bytes) -> tuple[bytes]:
        items = together(key)
        found = await client.get_many(list(items))
        return (value if {key: item.value for key, item in found.items()} == items else b"",)

    async def store(key: bytes, value: bytes) -> bool:
        await client.set(key, value)
        return True

    return {"get": get, "get_many": getMany, "set": store}[verb]


async def _hashClient(servers: Servers) -> Ask:
    client: Any = importlib.import_module("pymemcache").HashClient(servers)

    async def get(key: bytes, value: bytes) -> tuple[bytes]:
        items = together(key)
        return (value if client.get_many(list(items)) == items else b"",)

    return get


def together(key: bytes) -> dict[bytes, bytes]:
    """
    @return: the items of one call, of which the first one has C{key}.
    """
    first = INDEX[key]
    return dict([*ITEMS, *ITEMS][first : first + TOGETHER])


CLIENTS = {
    client.name: client
    for client in (
        Client("get", "MemCachePool.get", _get),
        Client("get, alone", "MemCachePool.get with batchSize=1", partial(_get, batchSize=1)),
        Client("set", "MemCachePool.set", _set),
        Client(
            "protocol, 20",
            "MemCacheProtocol.get behind a Pool of 20 connections",
            partial(_protocol, connections=20, depth=1),
        ),
        Client(
            "protocol, pipelined",
            "MemCacheProtocol.get behind a Pool of 4 connections with pipelineDepth=16",
            partial(_protocol, connections=4, depth=16),
        ),
        Client("emcache get", "emcache", _emcache, "emcache"),
        Client("emcache get, batched", "emcache with autobatching", partial(_emcache, autobatching=True), "emcache"),
        Client("emcache set", "emcache, set", partial(_emcache, verb="set"), "emcache"),
    )
}


#: The clients that get many keys at once.
RETRIEVALS = {
    client.name: client
    for client in (
        Client("getMultiple", "MemCachePool.getMultiple", _getMultiple),
        Client("emcache get_many", "emcache, get_many", partial(_emcache, verb="get_many"), "emcache"),
        Client("HashClient", "pymemcache, HashClient.get_many (blocking)", _hashClient, "pymemcache"),
    )
}

#: What the clients of each table need: the number of servers that share the keys, and how many calls are worth one.
TABLES = ((CLIENTS, 1, 1), (RETRIEVALS, SHARING, 20))


class Contestant:
    """
    The parent's handle of a child process that runs a L{Client}.
    """

    def __init__(self, client: Client, ports: Sequence[int], callers: int) -> None:
        self._errors = TemporaryFile("w+")  # noqa: SIM115  # close() closes it
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.library", client.name, str(callers), *map(str, ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=SOURCE,
            text=True,
        )

    def round(self, calls: int) -> dict[str, float]:
        """
        Have the client make so many calls.

        @return: C{cpu}, microseconds of processor time per call, and C{rate}, calls per second.
        @raise WrongAnswer: the client failed.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{calls}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise WrongAnswer(self._errors.read())
        cost: dict[str, float] = json.loads(line)
        return cost

    def close(self) -> None:
        """
        Kill the process.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            file.close()


def contest(
    clients: Sequence[Client], callers: int, rounds: int, calls: int, pin: bool, servers: int = 1
) -> dict[str, list[Any]]:
    """
    Measure clients in alternating rounds.

    @param callers: the number of concurrent callers of each client.
    @param rounds: the number of rounds for each client.
    @param calls: the number of calls in each round.
    @param pin: whether the clients get a processor of their own.
    @param servers: the number of servers. All of them have all items.

    @return: the results of L{Contestant.round} for all rounds, by client.
    """
    own, others = processors(pin)
    costs: dict[str, list[Any]] = {client.name: [] for client in clients}
    with ExitStack() as stack:
        with pinned(others):
            running = [stack.enter_context(storage(threads=len(others))) for _ in range(servers)]
        for server in running:
            fill(server.address, WORKLOAD)
        ports = [int(server.address[1]) for server in running]
        contestants = {}
        with pinned(own):
            for client in clients:
                contestants[client.name] = Contestant(client, ports, callers)
                stack.callback(contestants[client.name].close)
        for contestant in contestants.values():
            contestant.round(calls // 10)
        for _ in range(rounds):
            for name, contestant in contestants.items():
                costs[name].append(contestant.round(calls))
    return costs


# -- The pool alone


class Bare(Protocol):
    """
    A client without I/O: each call waits until the benchmark fires its Deferred.

    @cvar calls: the Deferreds of all calls that have not been answered.
    """

    calls: list[Deferred[None]] = []

    def call(self) -> Deferred[None]:
        """
        Make a call.
        """
        answer: Deferred[None] = Deferred()
        self.calls.append(answer)
        return answer


def _pool(connections: int) -> Pool[Bare]:
    """
    Create a pool with all its connections established, on a clock that does not advance.
    """
    reactor = MemoryReactorClock()
    server = FakeServer(reactor, Factory.forProtocol(Protocol))
    pool: Pool[Bare] = Pool(
        server, connections, reactor, minClients=connections, clientFactory=Factory.forProtocol(Bare), maxWaiting=None
    )
    pool.start()
    reactor.advance(0)
    return pool


def _timed(run: Callable[[], object], calls: int) -> float:
    """
    Measure the processor time of C{run} per call, in microseconds. The garbage collector is off: the number of its runs
    depends on the rest of the program.
    """
    gc.collect()
    gc.disable()
    try:
        before = time.process_time()
        run()
        return (time.process_time() - before) / calls * 1e6
    finally:
        gc.enable()


def bare(calls: int) -> float:
    """
    Measure calls of the client's method without a pool.
    """
    client = Bare()

    def run() -> None:
        for _ in range(calls):
            client.call()
            client.calls.pop().callback(None)

    return _timed(run, calls)


def idle(calls: int) -> float:
    """
    Measure C{performRequest} while connections are idle.
    """
    pool = _pool(4)

    def run() -> None:
        for _ in range(calls):
            pool.performRequest("call")
            Bare.calls.pop().callback(None)

    taken = _timed(run, calls)
    finish(pool)
    return taken


def queued(calls: int, waiting: int) -> float:
    """
    Measure C{performRequest} while C{waiting} requests wait: each reply frees a connection for the next one.
    """
    pool = _pool(4)
    waiting = min(waiting, calls)
    turns = calls // waiting

    def run() -> None:
        for _ in range(turns):
            for _ in range(waiting):
                pool.performRequest("call")
            while Bare.calls:
                Bare.calls.pop(0).callback(None)

    taken = _timed(run, turns * waiting)
    finish(pool)
    return taken


def borrowed(calls: int) -> float:
    """
    Measure C{acquire} and C{release}.
    """
    pool = _pool(4)

    def take(client: Bare) -> None:
        pool.release(client)

    def run() -> None:
        for _ in range(calls):
            pool.acquire().addCallback(take)

    taken = _timed(run, calls)
    finish(pool)
    return taken


def borrowedNow(calls: int) -> float:
    """
    Measure C{acquireNow} and C{release}.
    """
    pool = _pool(4)

    def run() -> None:
        for _ in range(calls):
            client = pool.acquireNow()
            assert client is not None
            pool.release(client)

    taken = _timed(run, calls)
    finish(pool)
    return taken


#: The maximum number of requests that wait at once.
QUEUE = 100_000

#: The measurements, by name: a function that takes a number of calls, and the limit for the microseconds per call, less
#: those of the bare call.
OVERHEADS: dict[str, tuple[Callable[[int], float], float | None]] = {
    "the bare call": (bare, None),
    "acquireNow + release": (borrowedNow, 0.5),
    "acquire + release": (borrowed, None),
    "performRequest, idle": (idle, 4.0),
    "performRequest, 100 waiting": (partial(queued, waiting=100), 6.0),
    "performRequest, 10,000 waiting": (partial(queued, waiting=10_000), 6.0),
    "performRequest, 100,000 waiting": (partial(queued, waiting=QUEUE), 6.0),
}


def overheads(rounds: int, calls: int) -> dict[str, list[float]]:
    """
    Take all measurements of L{OVERHEADS} in alternating rounds.

    @return: microseconds per call in each round, by name.
    """
    taken: dict[str, list[float]] = {name: [] for name in OVERHEADS}
    for _ in range(rounds):
        for name, (measure, _) in OVERHEADS.items():
            taken[name].append(measure(calls))
    return taken


def flood(pool: Pool[Bare], requests: int) -> int:
    """
    Make requests that wait, then answer all of them.

    @return: the resident memory of this process, in bytes, while all of them waited.
    """
    for _ in range(requests):
        pool.performRequest("call")
    size = residentSize(os.getpid())
    while Bare.calls:
        Bare.calls.pop(0).callback(None)
    gc.collect()
    return size


def growth(requests: int) -> tuple[int, int]:
    """
    Measure the memory of waiting requests.

    @return: the bytes by which this process grows while so many requests wait, and the bytes by which it is still
        larger after they were answered. Both are measured over several repetitions.
    """
    pool = _pool(4)
    flood(pool, 100)
    before = residentSize(os.getpid())
    most = max(flood(pool, requests) for _ in range(3))
    after = residentSize(os.getpid())
    finish(pool)
    return most - before, after - before


# -- The command


def main(arguments: Sequence[str]) -> int:
    """
    Measure the cost of a call in a program that embeds the pool.

    @return: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.bench library", description=main.__doc__)
    add = parser.add_argument
    add("--callers", type=int, default=50, help="number of concurrent callers (%(default)s)")
    add("--rounds", type=int, default=7, help="number of rounds for each client (%(default)s)")
    add("--calls", type=int, default=20_000, help="number of calls in each round (%(default)s)")
    add(
        "--client",
        action="append",
        default=[],
        choices=[*CLIENTS, *RETRIEVALS],
        help="measure only this client (repeatable)",
    )
    add("--no-pin", action="store_true", help="do not give the client a processor of its own")
    add("--json", type=Path, metavar="FILE", help="write all samples to this file")
    add("--results", action="store_true", help=f"write the tables to {report.RESULTS.name}")
    options = parser.parse_args(arguments)
    wanted = [client for table, *_ in TABLES for name, client in table.items() if name in (options.client or table)]
    absent = {client.needs for client in wanted if importlib.util.find_spec(client.needs) is None}
    text = report.described(report.invocation("library", arguments))
    costs: dict[str, list[Any]] = {}
    for table, servers, worth in TABLES:
        taking = [client for client in table.values() if client in wanted and client.needs not in absent]
        if taking:
            costs |= contest(
                taking, options.callers, options.rounds, options.calls // worth, not options.no_pin, servers
            )
            text += "\n" + clientTable(taking, costs, options.callers)
            if servers > 1:
                text += f"\nEach call gets {TOGETHER} keys from {servers} servers.\n"
    for name in sorted(absent):
        text += f"{name} is not installed, and was not measured.\n"
    pool = {} if options.client else overheads(options.rounds, QUEUE)
    if pool:
        most, left = growth(QUEUE)
        text += "\n" + overheadTable(pool) + "\nThe garbage collector is off.\n"
        text += f"{QUEUE:,} waiting requests take {most >> 20} MB; after they are answered, {left >> 20} MB remain.\n"
    sys.stdout.write(text)
    if options.json:
        report.save(options.json, {"machine": machine(), "clients": costs, "pool": pool})
    if options.results:
        report.section("Library", text)
    return 0


def clientTable(clients: Sequence[Client], costs: dict[str, list[Any]], callers: int) -> str:
    """
    Format the table of clients.
    """
    rows = [
        [
            client.about,
            report.microseconds(median(cost["cpu"] for cost in costs[client.name])),
            report.microseconds(min(cost["cpu"] for cost in costs[client.name])),
            f"{median(cost['rate'] for cost in costs[client.name]):,.0f}",
        ]
        for client in clients
    ]
    head = [f"{callers} concurrent callers", "CPU µs/call", "best round", "calls/s"]
    return report.table(head, rows)


def overheadTable(taken: dict[str, list[float]]) -> str:
    """
    Format the table of the pool's overhead.
    """
    rows = []
    call = median(taken["the bare call"])
    for name, (measure, reach) in OVERHEADS.items():
        each = median(taken[name])
        over = each if measure in (bare, borrowed, borrowedNow) else each - call
        judged = "" if reach is None else f"{reach:g}: {'reached' if over <= reach else 'missed'}"
        rows.append([name, f"{each:.2f}", f"{over:.2f}", judged])
    return report.table(["the pool alone", "CPU µs/call", "of the pool", "reach"], rows)


if __name__ == "__main__":
    _name, _callers, *_ports = sys.argv[1:]
    {**CLIENTS, **RETRIEVALS}[_name].serve([(HOST, int(port)) for port in _ports], int(_callers))
