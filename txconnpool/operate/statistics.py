# -*- test-case-name: tests.operate.test_statistics -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What is told about a process, its pools and their servers, and under which names.

Each number is one line of a table: its name, its kind, what it means and how to read it. L{snapshot} reads them all
into plain data, and the reply to C{stats}, the JSON, the text for Prometheus and the table of the README follow from
the same lines. Counters are never reset: whoever wants to know what happened in a while takes the difference.
"""

from __future__ import annotations

import heapq
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from itertools import accumulate
from operator import add
from typing import Any, Final

from txconnpool import __version__
from txconnpool.config.credentials import Accounts
from txconnpool.config.kinds import SecretFile
from txconnpool.config.settings import POOL_OPTIONS, PROCESS_OPTIONS, PoolSettings, Settings
from txconnpool.metrics import Histogram
from txconnpool.net.transport import peerOf
from txconnpool.pool.engine import PoolEngine
from txconnpool.pool.records import CHECKING, DIALING, RETIRING, Record, Server
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.session import Session
from txconnpool.proxy.sessions import NoStatistics, SessionFactory
from txconnpool.wire import Command

#: Kinds of settings that are not for everybody.
_SECRET: Final = (Accounts, SecretFile)

#: A statistic's value: a number, several by a label, or a histogram (see L{_histogram}).
Value = Any

#: The sessions that C{stats sessions} tells of, at most.
MOST_SESSIONS: Final = 20

#: Why a request is answered an error here: L{txconnpool.errors.PoolError.kind}.
ERRORS: Final = (
    "unavailable", "too_many_waiting", "wait_timeout", "request_timeout", "lost", "protocol", "closed", "other",
)  # fmt: skip

#: What a connection does.
STATES: Final = ("dialing", "idle", "busy", "held", "checking", "retiring")


# -- What is read


@dataclass(frozen=True)
class Process:
    """
    A process, to be read.

    @ivar started: when, in seconds since the epoch.
    @ivar unread: what is held for its clients.
    @ivar lag: how late its last regular timer was, in seconds; C{None} if there is none.
    """

    started: float
    unread: BufferedBytes
    lag: float | None = None


@dataclass(frozen=True)
class Proxied:
    """
    A pool, to be read.

    @ivar running: whether it takes new clients.
    @ivar slow: how many requests took long.
    """

    pool: PoolEngine
    sessions: SessionFactory
    running: bool
    slow: int = 0

    @property
    def state(self) -> str:
        """
        C{ready}, or why it is not.
        """
        if not self.running:
            return "draining"
        if self.pool.paused:
            return "paused"
        return "ready" if any(server.state == "up" for server in self.pool.servers) else "down"


class _Upstream:
    """
    A server, to be read.
    """

    def __init__(self, server: Server, records: list[Record], commands: tuple[Command, ...], now: float) -> None:
        self.server = server
        self.traffic = server.traffic
        self.records = [record for record in records if record.server is server]
        self.commands = commands
        self.now = now

    def byCommand(self, counts: list[int]) -> dict[str, int]:
        """
        Counts by the names of commands.
        """
        return {command.name: counts[command.index] for command in self.commands}

    @property
    def states(self) -> dict[str, int]:
        """
        Connections by what they do.
        """
        states = dict.fromkeys(STATES, 0)
        for record in self.records:
            states[_does(record)] += 1
        return states

    @property
    def hits(self) -> int:
        """
        Keys that were found.
        """
        traffic = self.traffic
        read = sum(
            traffic.requests[command.index] - traffic.failed[command.index]
            for command in self.commands
            if command.isLookup
        )
        return read - traffic.missed + traffic.moreKeys - traffic.moreMissed

    @property
    def since(self) -> float:
        """
        Seconds that it has been up or down.
        """
        return max(0.0, self.now - self.server.since) if self.server.since else 0.0


def _does(record: Record) -> str:
    if record.phase in (DIALING, CHECKING, RETIRING):
        return record.phase
    if record.held:
        return "held"
    return "busy" if record.load else "idle"


# -- The table


@dataclass(frozen=True)
class Statistic:
    """
    A line of the table.

    @ivar name: what it is called, with its unit last if it has one. Prometheus' text puts L{Scope.prefix} before it
        and, for a counter, C{_total} behind.
    @ivar kind: C{"counter"}, which only grows, C{"gauge"} or C{"histogram"}.
    @ivar meaning: what it tells, as a phrase.
    @ivar read: gets the value; C{None} where there is none.
    @ivar label: what its parts are called if it has several.
    @ivar alias: what memcached calls a number of the same meaning, so that tools made for it find ours.
    @ivar merge: makes one value of two, of two servers or of two processes.
    """

    name: str
    kind: str
    meaning: str
    read: Callable[[Any], Value]
    label: str = ""
    alias: str = ""
    merge: Callable[[Any, Any], Any] = add


@dataclass(frozen=True)
class Scope:
    """
    A table.

    @ivar prefix: what precedes the names for Prometheus.
    @ivar labels: what tells those apart that the numbers are about.
    """

    prefix: str
    labels: tuple[str, ...]
    statistics: tuple[Statistic, ...]


def _resident() -> int | None:
    """
    Bytes of memory of this process, where Linux tells.
    """
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _histogram(of: Histogram) -> dict[str, Any]:
    """
    @return: upper bounds in seconds, how many fell between two of them (the last: above all), and their sum.
    """
    return {"bounds": of.bounds, "counts": list(of.counts), "sum": of.total}


def _waitsFailed(view: Proxied) -> dict[str, int]:
    counters = view.pool.counters
    return {
        "timeout": counters.timedOut,
        "cancelled": counters.cancelled,
        "rejected": counters.rejected,
        "unavailable": counters.unavailable,
    }


def _longestWait(view: Proxied) -> float:
    since = view.pool.state.waiters.since
    return 0.0 if since is None else max(0.0, view.pool.reactor.seconds() - since)


PROCESS: Final = Scope(
    "connpool_process_",
    (),
    (
        Statistic("uptime_seconds", "gauge", "since the process started", lambda of: time.time() - of.started,
                  alias="uptime", merge=max),
        Statistic("cpu_seconds", "counter", "processor time that the process has used", lambda of: time.process_time()),
        Statistic("resident_bytes", "gauge", "memory of the process", lambda of: _resident()),
        Statistic("held_bytes", "gauge", "held for all clients: replies that they have not read, requests that cannot "
                  "be sent on yet", lambda of: of.unread.total),
        Statistic("held_max_bytes", "gauge", "most that may be held (`max-unread-bytes`)", lambda of: of.unread.limit),
        Statistic("sessions_dropped", "counter", "clients closed because too much was held for them",
                  lambda of: of.unread.dropped),
        Statistic("loop_lag_seconds", "gauge", "how late the last regular timer was: high when the process is "
                  "overloaded", lambda of: of.lag, merge=max),
    ),
)  # fmt: skip

_OWN: Final = (
    Statistic("sessions", "gauge", "clients connected", lambda of: len(of.sessions.sessions),
              alias="curr_connections"),
    Statistic("sessions_max", "gauge", "most clients (`max-clients`)", lambda of: of.sessions.limits.maxClients,
              alias="max_connections", merge=max),
    Statistic("sessions_accepted", "counter", "clients that have connected", lambda of: of.sessions.accepted,
              alias="total_connections"),
    Statistic("sessions_refused", "counter", "clients refused because there were too many",
              lambda of: of.sessions.refused, alias="rejected_connections"),
    Statistic("logins", "counter", "attempts of clients to log in (`listen-auth`)", lambda of: of.sessions.gate.logins,
              alias="auth_cmds"),
    Statistic("login_failures", "counter", "attempts that failed", lambda of: of.sessions.gate.failures,
              alias="auth_errors"),
    Statistic("client_received_bytes", "counter", "read from clients", lambda of: of.sessions.counters.received,
              alias="bytes_read"),
    Statistic("client_sent_bytes", "counter", "written to clients", lambda of: of.sessions.counters.sent,
              alias="bytes_written"),
    Statistic("session_pauses", "counter", "times that a client was not read from for a while; unread: it did not read "
              "itself (`session-unread-soft`); backlog: it sent more than could go on (`session-backlog`)",
              lambda of: dict(of.sessions.counters.pauses), "reason"),
    Statistic("requests_refused", "counter", "requests answered here: mistakes, and what is not allowed",
              lambda of: of.sessions.counters.answered),
    Statistic("request_errors", "counter", "requests that got an error of the proxy instead of an answer",
              lambda of: {**dict.fromkeys(ERRORS, 0), **of.sessions.counters.errors}, "reason"),
    Statistic("retries", "counter", "reads sent a second time because their connection was lost",
              lambda of: of.pool.counters.retries),
    Statistic("slow_requests", "counter", "requests that took longer than `slow-request`", lambda of: of.slow),
    Statistic("waiting", "gauge", "clients that wait for room on a connection", lambda of: of.pool.waiting),
    Statistic("waiting_max", "gauge", "most that may wait (`max-waiting`)",
              lambda of: of.pool.state.limits.maxWaiting or 0),
    Statistic("longest_wait_seconds", "gauge", "how long the first of them has waited", _longestWait, merge=max),
    Statistic("wait_seconds", "histogram", "how long those waited who had to and got a connection",
              lambda of: _histogram(of.pool.state.waiters.waits)),
    Statistic("waits_failed", "counter", "waits that ended without a connection", _waitsFailed, "reason"),
    Statistic("connections_max", "gauge", "most connections (`pool-size`)", lambda of: of.pool.state.limits.maximum),
    Statistic("servers_up", "gauge", "servers that are up", lambda of: sum(each.up for each in of.pool.servers),
              merge=max),
)  # fmt: skip

_SUMMED: Final = (
    Statistic("requests", "counter", "requests that were answered by a server",
              lambda of: of.byCommand(of.traffic.requests), "command", alias="cmd"),
    Statistic("failed_requests", "counter", "requests that a server answered with an error",
              lambda of: of.byCommand(of.traffic.failed), "command"),
    Statistic("hits", "counter", "keys found by get, gets, gat, gats and mg", lambda of: of.hits, alias="get_hits"),
    Statistic("misses", "counter", "keys that were not found by these",
              lambda of: of.traffic.missed + of.traffic.moreMissed, alias="get_misses"),
    Statistic("sent_bytes", "counter", "written to servers", lambda of: of.traffic.sent),
    Statistic("received_bytes", "counter", "read from servers", lambda of: of.traffic.received),
    Statistic("latency_seconds", "histogram", "from the sending of a request to the end of its reply; a run of gets "
              "has the time of its last", lambda of: _histogram(of.traffic.latency)),
    Statistic("in_flight", "gauge", "requests that are being answered",
              lambda of: sum(record.load for record in of.records)),
    Statistic("connections", "gauge", "connections by what they do; held: the server does not read, or the pool is "
              "paused", lambda of: of.states, "state"),
    Statistic("dials", "counter", "attempts to connect", lambda of: of.traffic.dials),
    Statistic("dial_failures", "counter", "attempts that failed", lambda of: dict(of.traffic.dialFailures), "reason"),
    Statistic("connections_lost", "counter", "connections that ended without our wish; aborted: after a timeout or a "
              "protocol error", lambda of: dict(of.traffic.lost), "reason"),
    Statistic("connections_closed", "counter", "connections that the pool closed", lambda of: dict(of.traffic.closed),
              "reason"),
    Statistic("ejections", "counter", "times that a server went down", lambda of: of.traffic.ejections),
    Statistic("request_timeouts", "counter", "connections aborted because an answer was late",
              lambda of: of.traffic.timeouts),
    Statistic("protocol_errors", "counter", "connections aborted because what came was no answer",
              lambda of: of.traffic.violations),
)  # fmt: skip

#: Of a pool: its own numbers, and the sums of those of its servers, of removed ones too.
POOL: Final = Scope("connpool_", ("pool",), _OWN + _SUMMED)

SERVER: Final = Scope(
    "connpool_server_",
    ("pool", "server"),
    (
        Statistic("up", "gauge", "1 if it is up, 0 if not", lambda of: int(of.server.up), merge=max),
        Statistic("since_seconds", "gauge", "since it went up or down; 0 if it never did", lambda of: of.since,
                  merge=max),
        Statistic("failed_dials", "gauge", "attempts to connect that failed in a row", lambda of: of.server.failures,
                  merge=max),
        *_SUMMED,
    ),
)  # fmt: skip


# -- Plain data


def snapshot(process: Process, pools: Iterable[Proxied]) -> dict[str, Any]:
    """
    Read everything.

    @return: plain data: the process's numbers, and C{pools}, each with its C{name}, C{state}, numbers and C{servers}.
    """
    return {
        "pid": os.getpid(),
        "version": __version__,
        "time": time.time(),
        **_read(PROCESS.statistics, process),
        "pools": [_poolSnapshot(pool) for pool in pools],
    }


def _read(statistics: Iterable[Statistic], of: object) -> dict[str, Value]:
    values = ((each.name, each.read(of)) for each in statistics)
    return {name: value for name, value in values if value is not None}


def _poolSnapshot(view: Proxied) -> dict[str, Any]:
    pool = view.pool
    records, now = pool.state.records, pool.reactor.seconds()
    commands = view.sessions.dialect.commands
    servers = [_Upstream(server, records, commands, now) for server in pool.servers]
    told = [_read(SERVER.statistics, of) for of in servers]
    former = [_read(_SUMMED, _Upstream(server, records, commands, now)) for server in pool.state.former]
    return {
        "name": pool.name,
        "state": view.state,
        **_read(_OWN, view),
        **reduce(partial(_mergeValues, _SUMMED), [*told, *former], {}),
        "servers": [
            {
                "name": of.server.name,
                "state": of.server.state,
                "reason": of.server.reason if of.server.failures else "",
                **numbers,
            }
            for of, numbers in zip(servers, told, strict=True)
        ],
    }


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


#: States of a pool or server, the one that counts first: that of several processes is the first that any of them has.
_RANKS: Final = ("draining", "drained", "paused", "ready", "up", "down")


def merge(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """
    Make one snapshot of those of two processes with the same pools. Who they are is told of the first.

    @param other: a snapshot, or the L{past} of one.
    """
    return {
        **one,
        **_mergeValues(PROCESS.statistics, one, other),
        "pools": _mergeNamed(one["pools"], other["pools"], _mergePools),
    }


def _mergePools(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    servers = _mergeNamed(one["servers"], other["servers"], lambda a, b: _mergeParts(SERVER, a, b))
    return {**_mergeParts(POOL, one, other), "servers": servers}


def _mergeParts(scope: Scope, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    first = min(one, other, key=lambda each: _RANKS.index(each["state"]) if "state" in each else len(_RANKS))
    return {**first, **_mergeValues(scope.statistics, one, other)}


def _mergeNamed(
    one: list[dict[str, Any]], other: list[dict[str, Any]], join: Callable[[Any, Any], dict[str, Any]]
) -> list[dict[str, Any]]:
    named = {each["name"]: each for each in one}
    for each in other:
        name = each["name"]
        if name in named:
            named[name] = join(named[name], each)
        elif "state" in each:
            named[name] = each
    return list(named.values())


def past(told: dict[str, Any]) -> dict[str, Any]:
    """
    What stays of a process that has ended: the counters of its last snapshot. Without them the sums of all processes
    would go back.
    """
    return {
        **_counted(PROCESS, told),
        "pools": [
            {
                "name": pool["name"],
                **_counted(POOL, pool),
                "servers": [{"name": each["name"], **_counted(SERVER, each)} for each in pool["servers"]],
            }
            for pool in told["pools"]
        ],
    }


def _counted(scope: Scope, values: dict[str, Any]) -> dict[str, Any]:
    return {each.name: values[each.name] for each in scope.statistics if each.kind != "gauge" and each.name in values}


# -- The reply to stats

#: An item of the reply to C{stats}: a name and a value.
Item = tuple[str, object]


def general(told: dict[str, Any], pool: str) -> Iterator[Item]:
    """
    What C{stats} tells.

    @param told: a snapshot.
    @param pool: the name of the pool that was asked.
    """
    yield "pid", told["pid"]
    yield "time", int(told["time"])
    yield "version", f"txconnpool-{told['version']}"
    yield from _items(PROCESS, told)
    own = _named(told["pools"], pool)
    yield "pool", pool
    yield "pool_state", own["state"]
    yield from _items(POOL, own)


def perServer(told: dict[str, Any], pool: str) -> Iterator[Item]:
    """
    What C{stats servers} tells: numbered, as memcached's C{stats slabs}.
    """
    for number, server in enumerate(_named(told["pools"], pool)["servers"], 1):
        for word in ("name", "state", "reason"):
            yield f"{number}:{word}", server[word]
        yield from ((f"{number}:{name}", value) for name, value in _items(SERVER, server))


def perSession(sessions: Iterable[Session]) -> Iterator[Item]:
    """
    What C{stats sessions} tells, of those for whom most is held or in flight.
    """
    for session in heapq.nlargest(MOST_SESSIONS, sessions, key=lambda each: (each.unread + each.kept, each.inFlight)):
        yield f"{session.number}:address", peerOf(session.transport)
        yield f"{session.number}:in_flight", session.inFlight
        yield f"{session.number}:waiting", int(session.waiting)
        yield f"{session.number}:unread_bytes", session.unread
        yield f"{session.number}:kept_bytes", session.kept


def inForce(pool: PoolSettings, process: Settings) -> Iterator[Item]:
    """
    What C{stats settings} tells: the keys of the ini. Where passwords are is for administrators only.
    """
    yield "pool", pool.name
    for options, settings in ((POOL_OPTIONS, pool), (PROCESS_OPTIONS, process)):
        for each in options:
            if not isinstance(each.kind, _SECRET):
                yield each.name, each.show(getattr(settings, each.attribute)).replace("\n", ", ")


def _named(parts: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for each in parts:
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


# -- The text for Prometheus


def prometheus(told: dict[str, Any]) -> str:
    """
    Write a snapshot in the text format of Prometheus, version 0.0.4.
    """
    pools = told["pools"]
    lines = [
        "# HELP connpool_info what runs here",
        "# TYPE connpool_info gauge",
        f"connpool_info{_labels(version=told['version'])} 1",
    ]
    lines += _exposed(PROCESS, [((), told)])
    lines += _exposed(POOL, [((pool["name"],), pool) for pool in pools])
    lines += _exposed(SERVER, [((pool["name"], each["name"]), each) for pool in pools for each in pool["servers"]])
    return "\n".join(lines) + "\n"


def _exposed(scope: Scope, subjects: list[tuple[tuple[str, ...], dict[str, Any]]]) -> Iterator[str]:
    for each in scope.statistics:
        name = exposedName(scope, each)
        yield f"# HELP {name} {each.meaning}"
        yield f"# TYPE {name} {each.kind}"
        for names, values in subjects:
            if each.name in values:
                labels = dict(zip(scope.labels, names, strict=True))
                yield from _samples(each, name, labels, values[each.name])


def exposedName(scope: Scope, statistic: Statistic) -> str:
    """
    What Prometheus calls a statistic.
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
