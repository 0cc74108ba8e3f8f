# -*- test-case-name: tests.bench.test_instructions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
C{python -m tests.bench instructions}: how many instructions of the processor a request costs.

Processor time differs by a tenth from run to run, so it does not show a change of two percent. The number of
instructions is nearly the same in each run. It is counted by C{valgrind --tool=callgrind}, for clients, sessions, a
pool and its connections in memory: the cost of the reactor and of the system is not in it. Requests and replies come
in the same pieces in each run.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from tests.bench import report
from tests.real.servers import SOURCE, missing

#: The seconds until servers reply.
LATENCY = 0.0003

#: The number of turns whose instructions are counted. The same number is run before, and is not counted.
TURNS = 100


@dataclass(frozen=True)
class Exchange:
    """
    What all clients send in one turn of the reactor.

    @ivar request: the bytes that each client sends.
    @ivar count: the number of requests in them.
    @ivar clients: the number of clients.
    @ivar servers: the number of servers that share the keys.
    @ivar isRedis: whether the protocol is that of Redis, instead of memcached's.
    """

    request: bytes
    count: int = 1
    clients: int = 1
    servers: int = 1
    isRedis: bool = False

    def prepare(self) -> tuple[Callable[[], None], list[Any]]:
        """
        Create the clients, the proxy and the servers.

        @return: a function that lets each client send its requests and each server its replies, and the sessions.
        """
        from twisted.internet.address import IPv4Address

        from tests import memcached
        from tests import stage as stages
        from tests.pipes import Pipe

        stage: Any
        if self.isRedis:
            from tests.redisstage import ShardedRedisStage, SingleRedisStage

            stage = ShardedRedisStage(self.servers) if self.servers > 1 else SingleRedisStage()
            for server in stage.servers:
                server.data[b"0"] = {b"short%d" % number: b"x" * 100 for number in range(20)}
        else:
            # A source tree that is compared may not have the newer kind of connection.
            options: dict[str, Any] = {"line": memcached.QueuedLine} if hasattr(memcached, "QueuedLine") else {}
            stage = stages.ShardedStage(self.servers, **options) if self.servers > 1 else stages.Stage()
        ends: list[Callable[[], object]] = []  # what is called at the end of a turn
        if hasattr(stage.sessions, "merging"):
            stage.sessions.merging = type(stage.sessions.merging)(lambda call: ends.append(call) or True)  # type: ignore[func-returns-value]
        if hasattr(stage.sessions, "uniting") and self.clients > 1:
            ended = SimpleNamespace(atEnd=ends.append)
            stage.sessions.uniting = type(stage.sessions.uniting)(lambda: ended, stage.clock.seconds)
        address = IPv4Address("TCP", "127.0.0.1", 1)
        pipes = [Pipe(stage.clock).connect(stage.sessions.buildProtocol(address)) for _ in range(self.clients)]
        for pipe in pipes:
            for _ in range(10):  # until it may have many requests in flight
                pipe.send(b"get a0\r\n" if self.request[0] in _LETTERS else self.request)
                self._end(ends)
                stage.serve()
                pipe.take()
        receive = [pipe.protocol.dataReceived for pipe in pipes]
        request = self.request
        for each in receive:
            each(request)
        self._end(ends)
        stage.turns()
        replies = []
        for line in stage.lines:
            line.look()
            replies.append((line.protocol.dataReceived, line.owed))
            line.owed = b""
        taking = [pipe.take for pipe in (*pipes, *stage.lines)]

        def reply() -> None:
            for deliver, owed in replies:
                if owed:
                    deliver(owed)
            for take in taking:
                take()

        def turn() -> None:
            for each in receive:
                each(request)
            self._end(ends)
            stage.clock.rightNow += LATENCY
            for line in stage.lines:
                line.take()
            reply()

        reply()
        return turn, list(stage.sessions.sessions)

    def _end(self, ends: list[Callable[[], object]]) -> None:
        while ends:
            ends.pop()()


#: The first bytes of requests in memcached's text protocol.
_LETTERS = b"abcdefghijklmnopqrstuvwxyz"

#: The first byte of a request in memcached's binary protocol.
REQUEST = b"\x80"


def binary(opcode: int, key: bytes) -> bytes:
    """
    @return: a request in memcached's binary protocol, without extras and value.
    """
    return struct.pack("!BBHBBHLLQ", REQUEST[0], opcode, len(key), 0, 0, 0, len(key), 0, 0) + key


def redis(*words: bytes) -> bytes:
    """
    @return: a request of Redis.
    """
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


_SHORT = b" ".join(b"short%d" % number for number in range(20))
_LONG = b" ".join(b"short%d" % number for number in range(100))
_PIPELINE = b"".join(b"get short%d\r\n" % number for number in range(16))
_MIXED = b"".join(
    b"set a%d 0 0 1\r\nx\r\n" % number if number % 3 == 0 else b"mg short%d v\r\n" % number for number in range(16)
)
_REDIS_MIXED = b"".join(
    redis(b"SET", b"a%d" % number, b"x") if number % 3 == 0 else redis(b"GET", b"short%d" % number)
    for number in range(16)
)
_MGET = redis(b"MGET", *(b"short%d" % number for number in range(20)))

#: The workloads, by name.
EXCHANGES = {
    "one client": Exchange(b"get short1\r\n"),
    "50 clients": Exchange(b"get short1\r\n", clients=50),
    "50 clients, set": Exchange(b"set a1 0 0 10\r\n0123456789\r\n", clients=50),
    "pipelines of 16": Exchange(_PIPELINE, 16),
    "mixed pipelines of 16": Exchange(_MIXED, 16),
    "20-key gets": Exchange(b"get %b\r\n" % _SHORT),
    "20 kB values": Exchange(b"get large1\r\n"),
    "50 clients, binary": Exchange(binary(0x00, b"short1"), clients=50),
    "20-key gets, binary": Exchange(b"".join(binary(0x0D, b"short%d" % n) for n in range(20)) + binary(0x0A, b"")),
    "Redis, 50 clients": Exchange(redis(b"GET", b"short1"), clients=50, isRedis=True),
    "Redis, pipelines of 16": Exchange(_REDIS_MIXED, 16, isRedis=True),
    "Redis, MGET of 20 keys": Exchange(_MGET, isRedis=True),
    "Redis, 5 servers, MGET of 20 keys": Exchange(_MGET, servers=5, isRedis=True),
    "Redis, 5 servers, 10 clients, MGET of 20 keys": Exchange(_MGET, clients=10, servers=5, isRedis=True),
    "5 servers, 50 clients": Exchange(b"get short1\r\n", clients=50, servers=5),
    "5 servers, pipelines of 16": Exchange(_PIPELINE, 16, servers=5),
    "5 servers, mixed pipelines of 16": Exchange(_MIXED, 16, servers=5),
    "5 servers, 20-key gets": Exchange(b"get %b\r\n" % _SHORT, servers=5),
    "5 servers, 100-key gets": Exchange(b"get %b\r\n" % _LONG, servers=5),
    "5 servers, 10 clients, pipelines of 16": Exchange(_PIPELINE, 16, clients=10, servers=5),
    "5 servers, 10 clients, mixed pipelines of 16": Exchange(_MIXED, 16, clients=10, servers=5),
    "5 servers, 10 clients, 20-key gets": Exchange(b"get %b\r\n" % _SHORT, clients=10, servers=5),
    "5 servers, 10 clients, 100-key gets": Exchange(b"get %b\r\n" % _LONG, clients=10, servers=5),
}

#: The program that is measured. Only this file is not from the source tree that is measured.
_PROGRAM = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
source, file, turns, *names = sys.argv[1:]
sys.path.insert(0, source)
spec = spec_from_file_location("instructions", file)
sys.modules["instructions"] = module = module_from_spec(spec)
spec.loader.exec_module(module)
module.work(names, int(turns))
"""


def work(names: Sequence[str], turns: int) -> None:
    """
    Run each workload in two child processes, the second one with twice as many turns. The difference of their
    instructions is the cost of these turns. Write the ids of the two processes to the standard output, a line for each
    workload.
    """
    gc.disable()  # the number of its runs depends on what else is in memory
    for name in names:
        EXCHANGES[name].prepare()  # so that all modules are imported once, not by each child
        pids = []
        for repetitions in (turns, 2 * turns):
            pid = os.fork()
            if not pid:
                turn, _ = EXCHANGES[name].prepare()  # here, because a pool must not be used after a fork
                for _ in range(10 + repetitions):
                    turn()
                os._exit(0)
            os.waitpid(pid, 0)
            pids.append(pid)
        sys.stdout.write(f"{pids[0]} {pids[1]}\n")
        sys.stdout.flush()  # a child process would write it again


def count(source: Path, names: Sequence[str], turns: int = TURNS, python: str = sys.executable) -> dict[str, float]:
    """
    Count the instructions of the proxy in a source tree.

    @return: instructions per request, by workload.
    """
    with TemporaryDirectory() as directory:
        out = Path(directory) / "callgrind.%p"
        done = subprocess.run(
            [
                "valgrind", "--tool=callgrind", f"--callgrind-out-file={out}",
                python, "-c", _PROGRAM, str(source), __file__, str(turns), *names,
            ],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr)
        counted = {}
        for name, line in zip(names, done.stdout.splitlines(), strict=True):
            less, more = (_total(Path(directory) / f"callgrind.{pid}") for pid in line.split())
            exchange = EXCHANGES[name]
            counted[name] = (more - less) / (turns * exchange.count * exchange.clients)
        return counted


def _total(file: Path) -> int:
    (total,) = re.findall(r"^totals: ([0-9]+)$", file.read_text("utf-8", "replace"), re.MULTILINE)
    return int(total)


def table(names: Sequence[str], counted: dict[str, dict[str, float]]) -> str:
    """
    Format the instructions per request of source trees, and the ratio of each to the first one.
    """
    first, *others = counted
    head = ["instructions per request", *counted, *(f"{other} / {first}" for other in others)]
    rows = [
        [
            name,
            *(f"{each[name]:,.0f}" for each in counted.values()),
            *(f"{counted[other][name] / counted[first][name]:.3f}" for other in others),
        ]
        for name in names
    ]
    return report.table(head, rows)


def main(arguments: Sequence[str]) -> int:
    """
    Count the instructions that a request costs.

    @return: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.bench instructions", description=main.__doc__)
    add = parser.add_argument
    add("--only", action="append", default=[], choices=list(EXCHANGES), help="only this workload (repeatable)")
    add(
        "--variant", action="append", default=[], metavar="NAME=SOURCE",
        help="compare with the proxy of another source tree, such as a git worktree (repeatable)",
    )  # fmt: skip
    add("--turns", type=int, default=TURNS, help="turns of the reactor that are counted (%(default)s)")
    add("--python", default=sys.executable, help="the interpreter that runs the proxy")
    add("--results", action="store_true", help=f"write the table to {report.RESULTS.name}")
    options = parser.parse_args(arguments)
    if reason := missing("valgrind"):
        sys.stderr.write(f"{reason}\n")
        return 1
    sources = {"proxy": SOURCE}
    for variant in options.variant:
        name, _, source = variant.partition("=")
        if not (Path(source) / "txconnpool").is_dir():
            parser.error(f"--variant {variant}: expected NAME=DIRECTORY with the package txconnpool in it")
        sources[name] = Path(source).resolve()
    names = options.only or list(EXCHANGES)
    counted = {name: count(source, names, options.turns, options.python) for name, source in sources.items()}
    text = report.described(report.invocation("instructions", arguments)) + "\n" + table(names, counted)
    sys.stdout.write(text)
    if options.results:
        report.section("Instructions", text)
    return 0
