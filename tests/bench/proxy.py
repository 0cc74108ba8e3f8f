# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
C{python -m tests.bench proxy}: compare the proxy with nutcracker.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench import report
from tests.bench.contenders import Contender, choose, direct, nutcracker, proxy, variant
from tests.bench.contest import Arena, Result
from tests.bench.measure import CLOCK
from tests.bench.workloads import TABLE, Workload
from tests.real.servers import missing


def contenderOptions(parser: argparse.ArgumentParser) -> None:
    """
    Add the options that select contenders and write the results.
    """
    add = parser.add_argument
    add("--contender", action="append", default=[], help="measure only this contender (repeatable)")
    add(
        "--variant",
        action="append",
        default=[],
        metavar="NAME=SOURCE [OPTION...]",
        help="add a contender: the proxy from another source tree (such as a git worktree), with these options; "
        "'deep=. --pipeline-depth 512' compares a setting (repeatable)",
    )
    add(
        "--proxy-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="an option of the proxy: --proxy-option=--pool-size=8 (repeatable)",
    )
    add("--python", default=sys.executable, help="the interpreter that runs the proxy")
    add("--no-pin", action="store_true", help="do not give the contender a processor of its own")
    add("--json", type=Path, metavar="FILE", help="write all samples to this file")
    add("--results", action="store_true", help=f"write the tables to {report.RESULTS.name}")


def contestOptions(parser: argparse.ArgumentParser, rounds: int, seconds: float) -> None:
    """
    Add the options of commands that run contests.

    @param rounds: the default of C{--rounds}.
    @param seconds: the default of C{--seconds}.
    """
    add = parser.add_argument
    add("--rounds", type=int, default=rounds, help="number of rounds for each contender and workload (%(default)s)")
    add("--seconds", type=float, default=seconds, help="seconds of load in each round (%(default)s)")
    add("--generators", type=int, default=1, help="number of processes that generate the load (%(default)s)")
    contenderOptions(parser)


def contenders(options: argparse.Namespace, protocol: str = "memcached") -> list[Contender]:
    """
    Create the contenders that the options select.

    @param protocol: the protocol of the workload.
    @raise ValueError: an option is invalid.
    """
    known = [nutcracker(1, protocol), nutcracker(4, protocol)] if missing("nutcracker") is None else []
    known += [proxy(options=options.proxy_option, python=options.python, protocol=protocol), direct(protocol)]
    known += [variant(text, options.python, protocol) for text in options.variant]
    return choose(known, options.contender)


def arena(options: argparse.Namespace) -> Arena:
    """
    Create the L{Arena} that the options describe.
    """
    return Arena(options.rounds, options.seconds, options.generators, not options.no_pin)


def chosen(names: Sequence[str]) -> list[Workload]:
    """
    Select workloads by name. Without names, select all.

    @raise ValueError: a name is unknown.
    """
    known = {workload.name: workload for workload in TABLE}
    for name in names:
        if name not in known:
            raise ValueError(f"unknown workload {name!r}; expected one of {', '.join(known)}")
    return [workload for name, workload in known.items() if name in names or not names]


def failed(results: Sequence[Result]) -> int:
    """
    @return: the exit status: 1 if a contender gave a wrong answer, else 0. Slow results are no failure.
    """
    return 1 if any(result.failures for result in results) else 0


def main(arguments: Sequence[str]) -> int:
    """
    Compare the proxy with nutcracker.

    @return: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.bench proxy", description=main.__doc__)
    names = ", ".join(workload.name for workload in TABLE)
    parser.add_argument("--only", action="append", default=[], metavar="WORKLOAD", help=f"one of {names} (repeatable)")
    contestOptions(parser, rounds=7, seconds=1.0)
    options = parser.parse_args(arguments)
    try:
        workloads = chosen(options.only)
        byProtocol = {each.protocol: contenders(options, each.protocol) for each in workloads}
    except ValueError as e:
        parser.error(str(e))
    if "redis" in byProtocol and (reason := missing("redis-server")):
        parser.error(reason)
    taking = [one for several in byProtocol.values() for one in several]
    write = sys.stdout.write
    head = report.described(report.invocation("proxy", arguments), workloads) + notes(options, taking)
    write(head + "\n")
    results = []
    for workload in workloads:
        results.append(arena(options).hold(workload, byProtocol[workload.protocol]))
        write(report.contest(results[-1]) + "\n")
        sys.stdout.flush()
    judged = "\n".join(filter(None, (report.verdict(results, name) for name in judgeable(taking))))
    write(judged)
    if options.json:
        report.save(options.json, report.record(results, {name: str(value) for name, value in vars(options).items()}))
    if options.results:
        report.section("The proxy against nutcracker", "\n".join([head, judged, *map(report.contest, results)]))
    return failed(results)


def judgeable(taking: Sequence[Contender]) -> list[str]:
    """
    @return: the names of the contenders that are compared with the aims: all variants of the proxy.
    """
    names = dict.fromkeys(one.name for one in taking)
    return [name for name in names if name != "direct" and not name.startswith("nutcracker")]


def notes(options: argparse.Namespace, taking: Sequence[Contender]) -> str:
    """
    Describe how the results were measured.
    """
    where = "on processors shared with everything else" if options.no_pin else "on a processor of its own"
    lines = [
        f"CPU is {CLOCK}, of the contender only, {where}, per request.",
        f"Medians of {options.rounds} alternating rounds of {options.seconds:g} s; "
        'ratios are medians of each round\'s ratio to the cheaper nutcracker ("= 1").',
        "Every reply was compared byte by byte.",
        *(f"- {one.name}: {one.about}" for one in taking),
    ]
    return "\n".join(lines) + "\n"
