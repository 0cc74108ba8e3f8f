# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
C{python -m tests.bench profile}: which functions and lines of the proxy use the processor time.
"""

from __future__ import annotations

import argparse
import io
import json
import linecache
import os
import pstats
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench import report, sampler
from tests.bench.contenders import proxy
from tests.bench.contest import Arena
from tests.bench.proxy import chosen
from tests.bench.sampler import Spot
from tests.bench.workloads import TABLE, Workload
from tests.real.servers import SOURCE, Proxy, Twistd, until


class Sampled(Twistd):
    """
    A C{twistd} process that L{sampler} samples.
    """

    @property
    def samples(self) -> Path:
        """
        The file of the samples.
        """
        return self.directory / "samples"

    def command(self) -> list[str]:
        """
        Run the sampler, which then runs C{twistd}.
        """
        python, _, _, *rest = super().command()
        return [python, "-m", "tests.bench.sampler", str(self.samples), *rest]

    def environment(self) -> dict[str, str]:
        """
        Import the sampler from this source tree, even if the proxy is from another one.
        """
        path = os.pathsep.join(dict.fromkeys([str(self.source), str(SOURCE)]))
        return {**super().environment(), "PYTHONPATH": path}


class SampledProxy(Sampled, Proxy):
    """
    A proxy that L{sampler} samples.
    """


Stacks = Sequence[tuple[list[Spot], int]]


def read(file: Path) -> Stacks:
    """
    Read the samples that the sampler has written.
    """
    stacks = json.loads(file.read_text("utf-8"))["stacks"]
    return [([(file, function, line) for file, function, line in spots], count) for spots, count in stacks]


def sampled(
    arena: Arena, workload: Workload, source: Path, options: Sequence[str], python: str
) -> tuple[float, Stacks]:
    """
    Sample the proxy under one workload.

    @return: microseconds of processor time per request, and the samples.
    """

    contender = proxy(source=source, options=options, python=python, protocol=workload.protocol, process=SampledProxy)
    with ExitStack() as stack:
        upstream = arena.upstream(stack, workload)
        party = arena.admit(stack, contender, workload, upstream)
        server = party.server
        assert isinstance(server, SampledProxy)
        server.signal(sampler.BEGIN)
        sample = party.round(arena.seconds)
        server.signal(sampler.END)
        until(server.samples.exists, what="the samples")
        return sample.cpu, read(server.samples)


def places(stacks: Stacks, cpu: float, source: Path, most: int) -> str:
    """
    Format the samples as two tables: by function (own time, and time including the functions that it calls), and by
    line.

    @param cpu: the microseconds of processor time per request, which are attributed to the samples.
    @param source: the source tree; paths in it are printed relative to it.
    @param most: the maximum number of rows in each table.
    """
    total = sum(count for _, count in stacks) or 1
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for stack, count in stacks:
        named = [f"{_short(file, source)} {function}" for file, function, _ in stack]
        own[named[0]] += count
        lines[f"{_short(stack[0][0], source)}:{stack[0][2]} {_text(stack[0])}"] += count
        for name in set(named):
            within[name] += count

    def row(name: str, *counts: int) -> list[str]:
        return [name, *(cell for n in counts for cell in (f"{n / total:.1%}", f"{cpu * n / total:.2f}"))]

    functions = [row(name, count, within[name]) for name, count in own.most_common(most)]
    by_line = [row(name, count) for name, count in lines.most_common(most)]
    return (
        report.table(["function", "own", "µs", "with calls", "µs"], functions)
        + "\n"
        + report.table(["line", "own", "µs"], by_line)
        + f"\n{total} samples\n"
    )


def _short(file: str, source: Path) -> str:
    path = Path(file)
    if path.is_relative_to(source):
        return str(path.relative_to(source))
    return "/".join(path.parts[-2:])


def _text(spot: Spot) -> str:
    return linecache.getline(spot[0], spot[2]).strip()[:70].replace("|", "¦")


def called(arena: Arena, workload: Workload, source: Path, options: Sequence[str], python: str, most: int) -> str:
    """
    Count the calls in the proxy under one workload with C{cProfile}, including the start and the end of the process.

    @return: C{cProfile}'s table.
    """
    with ExitStack() as stack:
        upstream = arena.upstream(stack, workload)
        general = ["--profile=calls", "--profiler=cprofile", "--savestats"]
        contender = proxy(source=source, options=options, general=general, python=python, protocol=workload.protocol)
        party = arena.admit(stack, contender, workload, upstream)
        sample = party.round(arena.seconds)
        server = party.server
        server.signal(signal.SIGTERM)
        calls = server.directory / "calls"
        until(lambda: not server.running(), what="the end of the proxy")
        text = io.StringIO()
        statistics = pstats.Stats(str(calls), stream=text)
        statistics.strip_dirs().sort_stats("tottime").print_stats(most)
    return f"{sample.requests} requests, and those of the warm-up\n{text.getvalue()}"


def main(arguments: Sequence[str]) -> int:
    """
    Show which functions and lines of the proxy use the processor time.

    @return: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.bench profile", description=main.__doc__)
    names = ", ".join(workload.name for workload in TABLE)
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="WORKLOAD", help=f"one of {names} (repeatable)")
    add("--seconds", type=float, default=10.0, help="seconds of load (%(default)s)")
    add("--source", type=Path, default=SOURCE, help="the source tree of the proxy")
    add("--proxy-option", action="append", default=[], metavar="OPTION", help="an option of the proxy (repeatable)")
    add("--python", default=sys.executable, help="the interpreter that runs the proxy")
    add(
        "--calls",
        action="store_true",
        help="count calls with cProfile instead of sampling: exact counts, distorted times",
    )
    add("--top", type=int, default=30, help="rows in each table (%(default)s)")
    add("--no-pin", action="store_true", help="do not give the proxy a processor of its own")
    options = parser.parse_args(arguments)
    try:
        workloads = chosen(options.only)
    except ValueError as e:
        parser.error(str(e))
    arena = Arena(1, options.seconds, 1, not options.no_pin)
    source = options.source.resolve()
    for text in _profiles(arena, workloads, source, options):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    return 0


def _profiles(arena: Arena, workloads: Iterable[Workload], source: Path, options: argparse.Namespace) -> Iterable[str]:
    for workload in workloads:
        if options.calls:
            text = called(arena, workload, source, options.proxy_option, options.python, options.top)
            yield f"### {workload.title}\n\n{text}"
        else:
            cpu, stacks = sampled(arena, workload, source, options.proxy_option, options.python)
            text = places(stacks, cpu, source, options.top)
            yield f"### {workload.title}: {cpu:.1f} µs of processor time per request while sampled\n\n{text}"
