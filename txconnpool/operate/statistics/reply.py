# -*- test-case-name: tests.operate.statistics.test_reply -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The items of the replies to a client's C{stats}, C{stats servers}, C{stats sessions} and C{stats settings}.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from txconnpool.config.credentials import Accounts, SecretFile
from txconnpool.config.settings import POOL_OPTIONS, PROCESS_OPTIONS, PoolSettings, Settings
from txconnpool.net.transport import peerOf
from txconnpool.operate.statistics.snapshot import Snapshot
from txconnpool.operate.statistics.table import POOL, PROCESS, SERVER, Scope
from txconnpool.proxy.session import Session
from txconnpool.proxy.statistics import NoStatistics

#: The most sessions that C{stats sessions} lists.
MOST_SESSIONS: Final = 20

#: The statistics of the proxy among those of the servers. They are few, because the whole reply must be shorter than
#: 4,096 bytes: collectd's plugin for memcached reads no more, and memcached 1.6 has up to 2,800 bytes of its own.
_SUMMARY: Final = frozenset(
    [
        "version",
        "uptime",
        "cpu_seconds",
        "resident_bytes",
        "pool",
        "pool_state",
        "curr_connections",
        "max_connections",
        "rejected_connections",
        "waiting",
        "longest_wait_seconds",
        "in_flight",
        "connections_max",
        "servers_up",
        "retries",
        "partial_gets",
        "get_hits",
        "get_misses",
        "failovers",
        "latency_seconds_count",
        "latency_seconds_sum",
        "request_timeouts",
    ]
)

#: Kinds of settings that clients cannot see.
_SECRET: Final = (Accounts, SecretFile)

#: An item of a reply: a name and a value.
Item = tuple[str, object]


def general(snapshot: Snapshot, pool: str) -> Iterator[Item]:
    """
    @param pool: the name of the pool whose client sent the request.

    @return: the items of C{stats}.

    @raise NoStatistics: the snapshot does not have the pool.
    """
    yield "pid", snapshot["pid"]
    yield "time", int(snapshot["time"])
    yield "version", f"txconnpool-{snapshot['version']}"
    yield "implementation", snapshot["implementation"]
    yield "reactor", snapshot["reactor"]
    yield from _items(PROCESS, snapshot)
    own = _named(snapshot["pools"], pool)
    yield "pool", pool
    yield "pool_state", own["state"]
    yield from _items(POOL, own)


def summary(snapshot: Snapshot, pool: str) -> Iterator[Item]:
    """
    @param pool: the name of the pool whose client sent the request.

    @return: the most important ones of the items of L{general}.

    @raise NoStatistics: the snapshot does not have the pool.
    """
    return (item for item in general(snapshot, pool) if item[0] in _SUMMARY)


def perServer(snapshot: Snapshot, pool: str) -> Iterator[Item]:
    """
    @param pool: the name of the pool whose client sent the request.

    @return: the items of C{stats servers}, each server with a number before its names, as in memcached's
        C{stats slabs}.

    @raise NoStatistics: the snapshot does not have the pool.
    """
    for number, server in enumerate(_named(snapshot["pools"], pool)["servers"], 1):
        for word in ("name", "state", "reason"):
            yield f"{number}:{word}", server[word]
        yield from ((f"{number}:{name}", value) for name, value in _items(SERVER, server))


def perSession(sessions: Iterable[Session]) -> Iterator[Item]:
    """
    @return: the items of C{stats sessions}, for the L{MOST_SESSIONS} with the most bytes held, then the most in flight.
    """
    for session in heapq.nlargest(MOST_SESSIONS, sessions, key=lambda each: (each.unread + each.kept, each.inFlight)):
        yield f"{session.number}:address", peerOf(session.transport)
        yield f"{session.number}:in_flight", session.inFlight
        yield f"{session.number}:waiting", int(session.waiting)
        yield f"{session.number}:unread_bytes", session.unread
        yield f"{session.number}:kept_bytes", session.kept


def settingsInForce(pool: PoolSettings, process: Settings) -> Iterator[Item]:
    """
    @return: the items of C{stats settings}, by the keys of the ini file, without the places of passwords.
    """
    yield "pool", pool.name
    for options, settings in ((POOL_OPTIONS, pool), (PROCESS_OPTIONS, process)):
        for each in options:
            if not isinstance(each.kind, _SECRET):
                yield each.name, each.show(getattr(settings, each.attribute)).replace("\n", ", ")


def _named(pools: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for each in pools:
        if each["name"] == name:
            return each
    raise NoStatistics(f"pool {name} is being removed")


def _items(scope: Scope, values: dict[str, Any]) -> Iterator[Item]:
    for each in scope.statistics:
        if each.name in values:
            name, value = each.alias or each.name, values[each.name]
            if each.kind == "histogram":
                yield f"{name}_count", sum(value["counts"])
                yield f"{name}_sum", _number(value["sum"])
            elif each.label:
                yield from ((f"{name}_{_word(part)}", _number(number)) for part, number in value.items())
            else:
                yield name, int(value) if each.alias else _number(value)


def _word(text: str) -> str:
    return re.sub("[^a-z0-9]+", "_", text.lower())


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6f}"
