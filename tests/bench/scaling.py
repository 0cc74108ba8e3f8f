# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
C{python -m tests.bench scaling}: cost by number of clients, size of values, and depth of pipelines.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.contest import Result
from tests.bench.proxy import arena, contenders, contestOptions, failed, notes
from tests.bench.workloads import SERIES

PLOT = report.RESULTS.with_name("scaling.svg")


def grown(title: str, unit: str, results: Mapping[int, Result]) -> str:
    """
    Format one series: the processor time per request of each contender, and its ratio to the cheaper yardstick.
    """
    names = list(dict.fromkeys(name for result in results.values() for name in result.samples))
    head = [unit, *names]
    rows = []
    for number, result in results.items():
        summary = result.summary()
        rows.append([f"{number:,}", *(_cell(summary.get(name)) for name in names)])
    failures = [
        f"{unit} {number:,}: {name} FAILED: {why}\n"
        for number, result in results.items()
        for name, why in result.failures.items()
    ]
    text = f"### Growing {title}\n\nµs of processor time per request (ratio to the cheaper nutcracker; requests/s)\n\n"
    return text + report.table(head, rows) + "".join(["\n", *failures] if failures else [])


def _cell(measured: Mapping[str, float] | None) -> str:
    if measured is None:
        return "failed"
    ratio = f"{measured['cpu-ratio']:.2f}; " if "cpu-ratio" in measured else ""
    return f"{report.microseconds(measured['cpu'])} ({ratio}{measured['rate']:,.0f})"


def plot(series: Mapping[str, Mapping[int, Result]], path: Path) -> None:
    """
    Plot all series to an SVG file.

    @raise ImportError: matplotlib is not installed.
    """
    # No import statement: matplotlib is optional, and mypy's result would depend on whether it is installed.
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    # Keep text as text, and write identical files for identical results.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "scaling"})
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, panels = pyplot.subplots(1, len(series), figsize=(5 * len(series), 4), squeeze=False)
    for panel, (name, results) in zip(panels[0], series.items(), strict=True):
        contenders = dict.fromkeys(one for result in results.values() for one in result.samples)
        for contender in contenders:
            points = [
                (number, result.median(contender, "cpu"))
                for number, result in results.items()
                if result.samples.get(contender)
            ]
            panel.plot(*zip(*points, strict=True), marker="o", label=contender)
        panel.set(
            xscale="log", yscale="log", xlabel=SERIES[name][0], ylabel="CPU µs per request", title=f"growing {name}"
        )
        panel.grid(True, which="both", alpha=0.3)
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})


def main(arguments: Sequence[str]) -> int:
    """
    Measure the cost of a request by number of clients, size of values and depth of pipelines.

    @return: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.bench scaling", description=main.__doc__)
    add = parser.add_argument
    add("--only", action="append", default=[], choices=list(SERIES), help="measure only this series (repeatable)")
    add("--plot", type=Path, metavar="FILE", help=f"plot to this file; {PLOT.name} with --results (needs matplotlib)")
    contestOptions(parser, rounds=3, seconds=1.0)
    options = parser.parse_args(arguments)
    try:
        taking = contenders(options)
    except ValueError as e:
        parser.error(str(e))
    head = report.described(report.invocation("scaling", arguments), [SERIES["clients"][1][0][1]]) + notes(
        options, taking
    )
    sys.stdout.write(head + "\n")
    series: dict[str, dict[int, Result]] = {}
    texts = []
    for name in options.only or SERIES:
        unit, workloads = SERIES[name]
        series[name] = {number: arena(options).hold(workload, taking) for number, workload in workloads}
        texts.append(grown(name, unit, series[name]))
        sys.stdout.write(texts[-1] + "\n")
        sys.stdout.flush()
    results = [result for one in series.values() for result in one.values()]
    if options.json:
        report.save(options.json, report.record(results, {name: str(value) for name, value in vars(options).items()}))
    drawn = options.plot or (PLOT if options.results else None)
    if drawn is not None and not tryPlot(series, drawn):
        drawn = None
    if options.results:
        picture = [f"![How cost grows]({drawn.name})\n"] if drawn is not None else []
        report.section("How cost grows", "\n".join([head, *picture, *texts]))
    return failed(results)


def tryPlot(series: Mapping[str, Mapping[int, Result]], path: Path) -> bool:
    """
    Plot all series if matplotlib is installed; else write the reason to the standard error output.

    @return: whether the file was written.
    """
    try:
        plot(series, path)
    except ImportError as e:
        sys.stderr.write(f"no plot: {e}\n")
        return False
    return True
