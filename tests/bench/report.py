# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Formatting of results: tables and sections of C{RESULTS.md} for readers, JSON for programs.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.contest import Result
from tests.bench.measure import machine
from tests.bench.workloads import TABLE, Aim, Workload

RESULTS = Path(__file__).with_name("RESULTS.md")

_TITLE = """\
# Measured

Each section was written by the command that it names, on the machine and day that it names. Most comparisons use
processor time and not elapsed time, because processor time depends less on other work on the machine.
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    Format a Markdown table that is also aligned for the terminal: the first column left, all others right.
    """
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join([first.lstrip().ljust(widths[0]), *others])} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, rows)]) + "\n"


def microseconds(value: float) -> str:
    """
    Format microseconds: one decimal below 100, none above.
    """
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


CONTEST_HEAD = [
    "contender",
    "CPU µs/request",
    "user",
    "system",
    "ratio",
    "requests/s",
    "ratio",
    "p50 µs",
    "p99 µs",
    "ratio",
    "load",
    "server µs",
]


def contest(result: Result) -> str:
    """
    Format the result of a contest: a heading, a table, and the failures.
    """
    yardstick = result.yardstick
    rows = []
    for name, measured in result.summary().items():
        rows.append(
            [
                name + (" = 1" if name == yardstick else ""),
                microseconds(measured["cpu"]),
                microseconds(measured["user"]),
                microseconds(measured["system"]),
                _ratio(measured.get("cpu-ratio")),
                f"{measured['rate']:,.0f}",
                _ratio(measured.get("rate-ratio")),
                microseconds(measured["p50"]),
                microseconds(measured["p99"]),
                _ratio(measured.get("p99-ratio")),
                f"{measured['load']:.2f}",
                microseconds(measured["server"]),
            ]
        )
    failures = [f"{name} FAILED: {why}\n" for name, why in result.failures.items()]
    return (
        f"### {result.workload.title}\n\n" + table(CONTEST_HEAD, rows) + "".join(["\n", *failures] if failures else [])
    )


def verdict(results: Sequence[Result], contender: str) -> str:
    """
    Format a table that compares a contender's ratios with the aims of each workload.

    @return: an empty string if no workload has an aim.
    """
    rows = []
    for result in results:
        aim = TABLE.get(result.workload)
        measured = result.summary().get(contender)
        if aim is None or measured is None or result.yardstick is None:
            continue
        ratio = measured[f"{aim.what}-ratio"]
        rows.append(
            [
                result.workload.title,
                result.yardstick,
                aim.what,
                f"{ratio:.2f}",
                f"{aim.reach}",
                f"{aim.goal}",
                judged(ratio, aim),
                f"{measured['rate-ratio']:.2f}",
                f"{measured['p99-ratio']:.2f}",
            ]
        )
    if not rows:
        return ""
    head = ["workload", "yardstick", "measure", contender, "reach", "goal", "", "requests/s", "p99"]
    return table(head, rows)


def judged(ratio: float, aim: Aim) -> str:
    """
    Compare a ratio with its aim.

    @return: C{"goal"}, C{"reached"}, or by how much the required ratio is exceeded.
    """
    if ratio <= aim.goal:
        return "goal"
    return "reached" if ratio <= aim.reach else f"{(ratio / aim.reach - 1) * 100:.0f} % over"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def record(results: Sequence[Result], settings: Mapping[str, Any]) -> dict[str, Any]:
    """
    Collect all measurements and settings as values for JSON.
    """
    return {
        "machine": machine(),
        "settings": dict(settings),
        "workloads": [
            {
                "workload": asdict(result.workload),
                "yardstick": result.yardstick,
                "summary": result.summary(),
                "samples": {name: [asdict(sample) for sample in samples] for name, samples in result.samples.items()},
                "failures": result.failures,
            }
            for result in results
        ],
    }


def save(path: Path, content: Mapping[str, Any]) -> None:
    """
    Write C{content} to a file as JSON.
    """
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def section(name: str, text: str, path: Path = RESULTS) -> None:
    """
    Write a section to the file of results. It replaces an older section of the same name.
    """
    document = path.read_text("utf-8") if path.exists() else _TITLE
    start, *sections = document.split("\n## ")
    kept = [other for other in sections if other.partition("\n")[0] != name]
    made = f"{name}\n\n{text.strip()}\n"
    position = next((i for i, other in enumerate(sections) if other.partition("\n")[0] == name), len(kept))
    kept.insert(position, made)
    path.write_text("\n## ".join([start.rstrip("\n") + "\n", *(other.rstrip("\n") + "\n" for other in kept)]), "utf-8")


def invocation(command: str, arguments: Sequence[str]) -> str:
    """
    @return: the command that repeats a measurement, without the options that only name output files.
    """
    kept = []
    left = iter(arguments)
    for argument in left:
        if argument in ("--json", "--plot"):
            next(left)
        elif not argument.startswith(("--json=", "--plot=", "--results")):
            kept.append(argument)
    return shlex.join([command, *kept])


def described(command: str, workloads: Sequence[Workload] = ()) -> str:
    """
    Describe the origin of results: the command, the date and the machine.
    """
    facts = machine()
    lines = [
        f"`python -m tests.bench {command}`, {facts['date']}: {facts['processor']}, {facts['processors']} processors, "
        f"{facts['system']}, {facts['python']}, Twisted {facts['twisted']}."
    ]
    if workloads:
        lines.append(f"Values of {workloads[0].size} bytes and {workloads[0].reads:.0%} get unless noted otherwise.")
    return "\n".join(lines) + "\n"
