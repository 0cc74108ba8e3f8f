# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
C{python -m tests.bench memory}: the memory and the processor time of idle sessions and connections.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tests.bench import report
from tests.bench.contenders import Contender, fill, proxy
from tests.bench.contest import Arena
from tests.bench.measure import Cost, machine, pinned, processors, residentSize
from tests.bench.proxy import contenderOptions, contenders, judgeable
from tests.bench.workloads import Workload
from tests.real.servers import Server, connect, until

#: The limit for the memory of ten thousand idle sessions, in bytes.
REACH = 40 << 20

#: The number of connections to memcached to measure, beyond the first one.
CONNECTIONS = 500

WORKLOAD = Workload("idle", "idle sessions")


@dataclass(frozen=True)
class Footprint:
    """
    The memory of a contender.

    @ivar sizes: resident bytes, by number of sessions. Each session has had one request and its reply.
    @ivar left: resident bytes after all sessions were closed.
    @ivar cpu: the share of one processor that was used while all sessions were idle.
    """

    sizes: dict[int, int]
    left: int
    cpu: float

    @property
    def each(self) -> float:
        """
        The bytes per session.
        """
        most = max(self.sizes)
        return (self.sizes[most] - self.sizes[0]) / most


def footprint(arena: Arena, contender: Contender, numbers: Sequence[int], seconds: float) -> Footprint:
    """
    Measure a contender.

    @param numbers: the numbers of sessions to measure with.
    @param seconds: how long the sessions are idle while C{cpu} is measured.
    """
    request, reply, _ = WORKLOAD.plan()[0]
    own, _ = processors(arena.pin)
    sizes = {}
    with ExitStack() as stack:
        (upstream,) = arena.upstream(stack, WORKLOAD)
        with pinned(own):
            server = stack.enter_context(contender.make([upstream.address]))
        if contender.name == "direct":
            fill(server.address, WORKLOAD)
        # The first sessions cause allocations that happen only once. Those are not part of the cost of a session.
        for _ in range(100):
            _exchange(server, request, reply).close()
        with ExitStack() as sessions:
            count = 0
            for number in sorted({0, *numbers}):
                for _ in range(number - count):
                    sessions.enter_context(_exchange(server, request, reply))
                count = number
                sizes[number] = _settled(server)
            before = Cost.of(server.pid)
            time.sleep(seconds)
            cpu = (Cost.of(server.pid) - before).total / seconds
        return Footprint(sizes, _settled(server), cpu)


def connectionSize(arena: Arena, options: Sequence[str], python: str) -> float:
    """
    Measure the proxy with one and with many idle connections to memcached.

    @return: the bytes per connection.
    """
    sizes = []
    for number in (1, CONNECTIONS + 1):
        with ExitStack() as stack:
            upstream: Any
            (upstream,) = arena.upstream(stack, WORKLOAD)
            others = int(upstream.stats()["curr_connections"])
            pool = ["--min-pool-size", str(number), "--pool-size", str(number)]
            server = stack.enter_context(proxy(options=[*options, *pool], python=python).make([upstream.address]))
            until(lambda: int(upstream.stats()["curr_connections"]) >= others + number, 30.0, "all connections")  # noqa: B023
            sizes.append(_settled(server))
    return (sizes[1] - sizes[0]) / CONNECTIONS


def _exchange(server: Server, request: bytes, reply: bytes) -> socket.socket:
    client = connect(server.address)
    client.sendall(request)
    answer = client.recv(len(reply), socket.MSG_WAITALL)
    if answer != reply:
        raise ConnectionError(f"expected {reply!r}, received {answer!r}")
    return client


def _settled(server: Server) -> int:
    """
    Wait until the size of the process is stable.

    @return: its resident bytes.
    """
    size = -1
    while size != (size := residentSize(server.pid)):
        time.sleep(0.3)
    return size


def main(arguments: Sequence[str]) -> int:
    """
    Measure the memory of idle sessions and connections.

    @return: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.bench memory", description=main.__doc__)
    add = parser.add_argument
    add(
        "--sessions",
        type=int,
        action="append",
        default=[],
        help="number of sessions, instead of 1,000 and 10,000 (repeatable)",
    )
    add("--seconds", type=float, default=5.0, help="seconds to measure processor time while idle (%(default)s)")
    contenderOptions(parser)
    options = parser.parse_args(arguments)
    try:
        taking = contenders(options)
    except ValueError as e:
        parser.error(str(e))
    arena = Arena(pin=not options.no_pin)
    numbers = options.sessions or [1000, 10_000]
    prints = {one.name: footprint(arena, one, numbers, options.seconds) for one in taking}
    each = connectionSize(arena, options.proxy_option, options.python) if judgeable(taking) else None
    text = report.described(report.invocation("memory", arguments)) + "\n" + summary(prints, each)
    sys.stdout.write(text)
    if options.json:
        content = {
            "machine": machine(),
            "sessions": {name: vars(one) for name, one in prints.items()},
            "connection": each,
        }
        report.save(options.json, content)
    if options.results:
        report.section("Memory", text)
    return 0


def summary(prints: dict[str, Footprint], each: float | None) -> str:
    """
    Format the result.

    @param each: the bytes per connection to memcached, or C{None} if that was not measured.
    """
    numbers = sorted(next(iter(prints.values())).sizes)
    head = ["contender", *(f"{number:,} sessions" for number in numbers), "each", "all gone", "CPU while idle"]
    rows = [
        [
            name,
            *(_megabytes(one.sizes[number]) for number in numbers),
            f"{one.each / 1000:.1f} kB",
            _megabytes(one.left),
            f"{one.cpu:.2%}",
        ]
        for name, one in prints.items()
    ]
    text = [
        report.table(head, rows),
        "\nResident memory of the process, without the kernel's memory for each socket.\n",
    ]
    if each is not None:
        text.append(f"An idle connection to memcached takes {each / 1000:.1f} kB in the proxy.\n")
    for name, one in prints.items():
        if 10_000 in one.sizes:
            more = one.sizes[10_000] - one.sizes[0]
            judged = "reached" if more <= REACH else "too much"
            text.append(
                f"10,000 sessions of {name}: {_megabytes(more)} more ({_megabytes(REACH)} at most: {judged}).\n"
            )
    return "".join(text)


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MB"
