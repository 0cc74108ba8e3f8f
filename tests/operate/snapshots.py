# Copyright txconnpool contributors. See LICENSE.
"""
Snapshots for tests.
"""

from __future__ import annotations

import time
from typing import Any

from tests.stage import Stage
from txconnpool.operate.statistics.snapshot import takeSnapshot
from txconnpool.operate.statistics.sources import PoolSource, ProcessSource
from txconnpool.operate.statistics.table import POOL, PROCESS, SERVER


def snapshotOf(stage: Stage, running: bool = True) -> dict[str, Any]:
    process = ProcessSource(time.time() - 60, stage.unread, 0.25)
    return takeSnapshot(process, [PoolSource(stage.pool, stage.sessions, running, 3)])


def pool(stage: Stage) -> dict[str, Any]:
    """
    @return: the snapshot of the pool.
    """
    (only,) = snapshotOf(stage)["pools"]
    assert isinstance(only, dict)
    return only


def counters(of: dict[str, Any], path: str = "") -> dict[str, float]:
    """
    @return: all counters in a snapshot, including those of histograms, by their places in it.
    """
    found = {}
    for scope in (PROCESS, POOL, SERVER):
        for each in scope.statistics:
            value = of.get(each.name)
            if value is None or each.kind == "gauge" or (scope is PROCESS) is bool(path):
                continue
            if each.kind == "histogram":
                found.update({f"{path}{each.name} {n}": count for n, count in enumerate(value["counts"])})
                found[f"{path}{each.name} sum"] = value["sum"]
            elif each.label:
                found.update({f"{path}{each.name} {part}": number for part, number in value.items()})
            else:
                found[path + each.name] = value
    for part in (*of.get("pools", ()), *of.get("servers", ())):
        found.update(counters(part, f"{path}{part['name']} "))
    return found
