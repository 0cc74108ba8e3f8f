# -*- test-case-name: tests.operate.statistics.test_prometheus -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Prometheus' text format, version 0.0.4.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final

import twisted

from txconnpool import __version__
from txconnpool.native import IMPLEMENTATION
from txconnpool.operate.statistics.snapshot import Snapshot
from txconnpool.operate.statistics.table import POOL, PROCESS, SERVER, Scope, Statistic, Value

#: The labels of C{connpool_build_info} that are the same in each process.
BUILD: Final = {
    "version": __version__,
    "python": platform.python_version(),
    "twisted": twisted.__version__,
    "implementation": IMPLEMENTATION,
}


def exposition(snapshot: Snapshot) -> str:
    """
    @return: a snapshot in the text format.
    """
    pools = snapshot["pools"]
    lines = [
        "# HELP connpool_build_info the versions that run here",
        "# TYPE connpool_build_info gauge",
        f"connpool_build_info{_labels(**BUILD, reactor=snapshot['reactor'])} 1",
    ]
    lines += _scopeLines(PROCESS, [((), snapshot)])
    lines += _scopeLines(POOL, [((pool["name"],), pool) for pool in pools])
    lines += _scopeLines(SERVER, [((pool["name"], each["name"]), each) for pool in pools for each in pool["servers"]])
    return "\n".join(lines) + "\n"


def _scopeLines(scope: Scope, subjects: list[tuple[tuple[str, ...], dict[str, Any]]]) -> Iterator[str]:
    """
    @param subjects: values of the labels of C{scope}, and the numbers that they identify.
    """
    for each in scope.statistics:
        name = metricName(scope, each)
        yield f"# HELP {name} {each.meaning}"
        yield f"# TYPE {name} {each.kind}"
        for names, values in subjects:
            if each.name in values:
                labels = dict(zip(scope.labels, names, strict=True))
                yield from _samples(each, name, labels, values[each.name])


def metricName(scope: Scope, statistic: Statistic) -> str:
    """
    @return: the name of a statistic for Prometheus.
    """
    return f"{scope.prefix}{statistic.name}{'_total' if statistic.kind == 'counter' else ''}"


def _samples(statistic: Statistic, name: str, labels: dict[str, str], value: Value) -> Iterator[str]:
    if statistic.kind == "histogram":
        for bound, count in zip((*value["bounds"], "+Inf"), accumulate(value["counts"]), strict=True):
            yield f"{name}_bucket{_labels(**labels, le=str(bound))} {count}"
        yield f"{name}_sum{_labels(**labels)} {value['sum']!r}"
        yield f"{name}_count{_labels(**labels)} {sum(value['counts'])}"
    elif statistic.label:
        for part, number in value.items():
            yield f"{name}{_labels(**labels, **{statistic.label: part})} {number!r}"
    else:
        yield f"{name}{_labels(**labels)} {value!r}"


def _labels(**labels: str) -> str:
    parts = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{','.join(parts)}}}" if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
