# -*- test-case-name: tests.operate.statistics.test_snapshot -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Snapshots of all statistics as plain data, which JSON can carry, and their merging for several processes.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from operator import add
from typing import Any, Final

from txconnpool import __version__
from txconnpool.metrics import Traffic
from txconnpool.native import IMPLEMENTATION
from txconnpool.operate.reactor import reactorName
from txconnpool.operate.statistics.sources import PoolSource, ProcessSource, ServerSource
from txconnpool.operate.statistics.table import (
    POOL,
    POOL_OWN,
    PROCESS,
    SERVER,
    SUMMED,
    Scope,
    Statistic,
    Value,
)
from txconnpool.pool.decisions.servers import Server

#: Statistics by their names, C{pools} and other data of a process.
Snapshot = dict[str, Any]


def takeSnapshot(process: ProcessSource, pools: Iterable[PoolSource]) -> Snapshot:
    """
    Read all statistics of a process.

    @return: the numbers of the process, its C{pid}, C{version}, C{implementation}, C{reactor} and C{time}, and
        C{pools}, each with its C{name}, C{state}, numbers and C{servers}.
    """
    return {
        "pid": os.getpid(),
        "version": __version__,
        "implementation": IMPLEMENTATION,
        "reactor": reactorName(),
        "time": time.time(),
        **_read(PROCESS.statistics, process),
        "pools": [_poolSnapshot(pool) for pool in pools],
    }


def _read(statistics: Iterable[Statistic], source: object) -> dict[str, Value]:
    values = ((each.name, each.read(source)) for each in statistics)
    return {name: value for name, value in values if value is not None}


def _poolSnapshot(source: PoolSource) -> dict[str, Any]:
    pool = source.pool
    records, now = pool.records, pool.reactor.seconds()
    commands = source.sessions.dialect.commands
    ejected = pool.ejected if source.sessions.router.keyed else frozenset()
    nodes = {} if pool.cluster is None else pool.cluster.nodes()
    names = {view.node: name for name, view in nodes.items()}
    replicasOf = Counter(view.primary for view in nodes.values())
    replicas = pool.replicas
    servers = [
        ServerSource(
            server, records, commands, now, ejected, nodes.get(server.name),
            None if replicas is None else server.name in replicas,
        )
        for server in pool.servers
    ]  # fmt: skip
    current = [_read(SERVER.statistics, each) for each in servers]
    # A pool whose servers are not known yet has the numbers of one that has done nothing.
    others = pool.former or ([] if servers else [Server("", None, Traffic(len(commands)))])
    former = [_read(SUMMED, ServerSource(server, records, commands, now)) for server in others]
    return {
        "name": pool.name,
        "state": source.state,
        **_read(POOL_OWN, source),
        **reduce(partial(_mergeValues, SUMMED), [*current, *former], {}),
        "servers": [
            {
                "name": each.server.name,
                "state": each.server.state,
                "reason": each.server.reason if each.server.failures else "",
                **_shardOf(each.node, names, replicasOf),
                **numbers,
            }
            for each, numbers in zip(servers, current, strict=True)
        ],
    }


def _shardOf(view: Any, names: Mapping[Any, str], replicasOf: Counter[Any]) -> dict[str, Any]:
    """
    @param view: a L{NodeView<txconnpool.routing.cluster.nodes.NodeView>}, or C{None}.
    @param names: the names of the nodes of a cluster.
    @param replicasOf: the number of replicas of each node.

    @return: the primary of a replica, or the slots of a primary and the number of its replicas; empty for other
        servers.
    """
    if view is None:
        return {}
    if view.primary is not None:
        return {"primary": names.get(view.primary, "")}
    return {"ranges": view.rangesText, "replicas": replicasOf[view.node]} if view.ranges else {}


# -- Merging


def _mergeValues(statistics: Iterable[Statistic], one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    merged = {}
    for each in statistics:
        values = [values[each.name] for values in (one, other) if each.name in values]
        if values:
            merged[each.name] = reduce(partial(_mergeValue, each), values)
    return merged


def _mergeValue(statistic: Statistic, one: Value, other: Value) -> Value:
    if statistic.kind == "histogram":
        return {
            "bounds": one["bounds"],
            "counts": list(map(add, one["counts"], other["counts"])),
            "sum": one["sum"] + other["sum"],
        }
    if statistic.label:
        merged = dict(one)
        for part, value in other.items():
            merged[part] = statistic.merge(merged[part], value) if part in merged else value
        return merged
    return statistic.merge(one, other)


#: States of a pool or server, by precedence: that of several processes is the first one that any of them has.
_PRECEDENCE: Final = ("draining", "drained", "paused", "ready", "up", "down")


def mergeSnapshots(one: Snapshot, other: Snapshot) -> Snapshot:
    """
    Merge the snapshots of two processes with the same pools. C{pid}, C{version}, C{implementation}, C{reactor} and
    C{time} are those of the first.

    @param other: a snapshot, or the L{countersOf} one.
    """
    return {
        **one,
        **_mergeValues(PROCESS.statistics, one, other),
        "pools": _mergeNamed(one["pools"], other["pools"], _mergePools),
    }


def _mergePools(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    servers = _mergeNamed(one["servers"], other["servers"], _mergeServers)
    merged = {**_mergeScope(POOL, one, other), "servers": servers}
    if "servers_up" in merged:
        merged["servers_up"] = sum(server.get("up", 0) for server in servers)
        if merged["state"] == "ready" and not merged["servers_up"]:
            merged["state"] = "down"
    return merged


def _mergeServers(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """
    Merge what two processes know of a server. One that has no connection to it does not know whether it is up, so it is
    down if the other process says so.
    """
    merged = _mergeScope(SERVER, one, other)
    for down in (one, other):
        if down.get("state") == "down" and merged["state"] == "up":
            established = sum(count for state, count in merged["connections"].items() if state != "dialing")
            if not established:
                merged |= {"state": "down", "reason": down["reason"], "up": 0}
    return merged


def _mergeScope(scope: Scope, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    def precedence(each: dict[str, Any]) -> int:
        return _PRECEDENCE.index(each["state"]) if "state" in each else len(_PRECEDENCE)

    first: dict[str, Any] = min(one, other, key=precedence)
    return {**first, **_mergeValues(scope.statistics, one, other)}


def _mergeNamed(
    one: list[dict[str, Any]], other: list[dict[str, Any]], merge: Callable[[Any, Any], dict[str, Any]]
) -> list[dict[str, Any]]:
    named = {each["name"]: each for each in one}
    for each in other:
        name = each["name"]
        if name in named:
            named[name] = merge(named[name], each)
        elif "state" in each:
            named[name] = each
    return list(named.values())


def countersOf(snapshot: Snapshot) -> Snapshot:
    """
    Reduce a snapshot to its counters, which stay when the process ends. Without them the sums over all processes would
    decrease, which monitoring takes for a restart.
    """
    return {
        **_counters(PROCESS, snapshot),
        "pools": [
            {
                "name": pool["name"],
                **_counters(POOL, pool),
                "servers": [{"name": each["name"], **_counters(SERVER, each)} for each in pool["servers"]],
            }
            for pool in snapshot["pools"]
        ],
    }


def _counters(scope: Scope, values: dict[str, Any]) -> dict[str, Any]:
    return {each.name: values[each.name] for each in scope.statistics if each.kind != "gauge" and each.name in values}
