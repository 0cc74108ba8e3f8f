# -*- test-case-name: tests.operate.statistics.test_table -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The table of statistics: each number of a process, its pools and their servers is one entry, with a name, a kind, a
meaning and a function that reads it.

Everything else is derived from the table: snapshots, the reply to C{stats}, the JSON, Prometheus' text, and the list
in C{conf/metrics.rst}. Counters are never reset: readers take the difference between two snapshots.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import add
from typing import Any, Final

from txconnpool.metrics import Histogram
from txconnpool.operate.statistics.sources import PoolSource

#: The value of a statistic: a number, several by a label, or a histogram (see L{_histogram}).
Value = Any

#: Reasons for which the proxy answers a request with an error: L{txconnpool.errors.PoolError.kind}.
ERRORS: Final = (
    "unavailable", "too_many_waiting", "wait_timeout", "request_timeout", "lost", "protocol", "closed",
    "login_refused", "other",
)  # fmt: skip


@dataclass(frozen=True)
class Statistic:
    """
    An entry of the table.

    @ivar name: the name, which ends in the unit if there is one. Prometheus' text puts L{Scope.prefix} before it and,
        for a counter, C{_total} behind.
    @ivar kind: C{"counter"}, which only grows, C{"gauge"} or C{"histogram"}.
    @ivar meaning: what the number means, as a phrase.
    @ivar read: returns the value, given a source; C{None} where there is none.
    @ivar label: the label of the parts, if the value has several.
    @ivar alias: memcached's name for a number of the same meaning, for tools that read memcached's C{stats}.
    @ivar merge: combines the values of two servers or of two processes.
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
    The part of the table for one kind of source.

    @ivar prefix: the prefix of the names for Prometheus.
    @ivar labels: the labels that identify a source for Prometheus.
    @ivar statistics: the entries.
    """

    prefix: str
    labels: tuple[str, ...]
    statistics: tuple[Statistic, ...]


def _residentBytes() -> int | None:
    """
    @return: the memory of this process in bytes, or C{None} where there is no Linux C{/proc}.
    """
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _histogram(of: Histogram) -> dict[str, Any]:
    """
    @return: the upper bounds in seconds, the counts of the buckets (the last one: above all bounds), and the sum.
    """
    return {"bounds": of.bounds, "counts": list(of.counts), "sum": of.total}


def _waitsFailed(source: PoolSource) -> dict[str, int]:
    counters = source.pool.counters
    return {
        "timeout": counters.timedOut,
        "cancelled": counters.cancelled,
        "rejected": counters.rejected,
        "unavailable": counters.unavailable,
    }


def _subscribers(source: PoolSource, name: str) -> int | None:
    sessions = source.sessions
    return sessions.subscribers.counts[name] if sessions.dialect.stateful else None


PROCESS: Final = Scope(
    "connpool_process_",
    (),
    (
        Statistic("uptime_seconds", "gauge", "since the process started", lambda of: time.time() - of.started,
                  alias="uptime", merge=max),
        Statistic("cpu_seconds", "counter", "processor time that the process has used", lambda of: time.process_time()),
        Statistic("resident_bytes", "gauge", "memory of the process", lambda of: _residentBytes()),
        Statistic("held_bytes", "gauge", "held for all clients: replies that they have not read, requests that cannot "
                  "be sent yet", lambda of: of.buffered.total),
        Statistic("held_max_bytes", "gauge", "maximum of held_bytes (`max-unread-bytes`)",
                  lambda of: of.buffered.limit),
        Statistic("sessions_dropped", "counter", "clients closed because too much was held for them",
                  lambda of: of.buffered.dropped),
        Statistic("loop_lag_seconds", "gauge", "how late the last regular timer was: high when the process is "
                  "overloaded", lambda of: of.lag, merge=max),
        Statistic("workers", "gauge", "worker processes by state; silent: it does not answer its parent, gets no "
                  "clients, and is replaced if that lasts", lambda of: of.workers, "state"),
    ),
)  # fmt: skip

#: The numbers of a pool whose servers are the nodes of a cluster. Others do not have them.
CLUSTER: Final = (
    Statistic("redirects", "counter", "requests that a node of a cluster has not executed: another one has the slot "
              "(moved), or gets it (ask); the slot cannot be served now (later)",
              lambda of: of.pool.cluster and dict(of.pool.cluster.redirects), "kind"),
    Statistic("slots_covered", "gauge", "slots of a cluster that a node has; 16384 if all is well",
              lambda of: of.pool.cluster and of.pool.cluster.map.covered, merge=min),
    Statistic("slots_moved", "counter", "slots that have got another node because of a redirect",
              lambda of: of.pool.cluster and of.pool.cluster.moved),
    Statistic("map_refreshes", "counter", "times that a cluster has reported which node has which slots",
              lambda of: of.pool.cluster and of.pool.cluster.refreshing.count),
    Statistic("map_failures", "gauge", "times in a row that no node of it has reported that",
              lambda of: of.pool.cluster and of.pool.cluster.refreshing.failures, merge=max),
    Statistic("map_age_seconds", "gauge", "since the last report", lambda of: of.mapAge, merge=max),
)  # fmt: skip

#: The numbers of a pool whose clients may subscribe to channels. Others do not have them.
SUBSCRIPTIONS: Final = (
    Statistic("subscribers", "gauge", "clients that are subscribed to channels or patterns; they share connections",
              lambda of: _subscribers(of, "clients")),
    Statistic("subscriptions", "gauge", "channels and patterns to which the proxy is subscribed for them",
              lambda of: _subscribers(of, "topics")),
    Statistic("subscription_connections", "gauge", "connections on which their messages come",
              lambda of: _subscribers(of, "connections")),
    Statistic("subscribers_dropped", "counter", "subscribers closed because they did not read their messages",
              lambda of: _subscribers(of, "dropped")),
)  # fmt: skip

#: The numbers of a pool that are not sums of its servers'.
POOL_OWN: Final = (
    Statistic("sessions", "gauge", "clients connected", lambda of: len(of.sessions.sessions),
              alias="curr_connections"),
    Statistic("sessions_max", "gauge", "maximum of clients (`max-clients`)", lambda of: of.sessions.limits.maxClients,
              alias="max_connections", merge=max),
    Statistic("sessions_accepted", "counter", "clients that have connected", lambda of: of.sessions.accepted,
              alias="total_connections"),
    Statistic("sessions_refused", "counter", "clients refused because there were too many",
              lambda of: of.sessions.refused, alias="rejected_connections"),
    Statistic("sessions_pending", "gauge", "clients that have not completed their TLS handshake or login",
              lambda of: len(of.sessions.admission.clients)),
    Statistic("sessions_expired", "counter", "clients closed because they took longer than `login-timeout` for that, "
              "or were too many", lambda of: of.sessions.admission.expired),
    Statistic("sessions_idle", "counter", "clients closed because they had sent nothing for `client-idle-timeout`",
              lambda of: of.sessions.idle.closed, alias="idle_kicks"),
    Statistic("sessions_foreign", "counter", "clients closed because they speak another protocol than the address; "
              "no_tls: their TLS handshake failed", lambda of: dict(of.sessions.strangers.counts), "protocol"),
    Statistic("logins", "counter", "attempts of clients to log in (`listen-auth`, `auth = pass`)",
              lambda of: of.sessions.gate.attempts, alias="auth_cmds"),
    Statistic("login_failures", "counter", "attempts that failed", lambda of: of.sessions.gate.failures,
              alias="auth_errors"),
    Statistic("client_received_bytes", "counter", "read from clients", lambda of: of.sessions.counters.received,
              alias="bytes_read"),
    Statistic("client_sent_bytes", "counter", "written to clients", lambda of: of.sessions.counters.sent,
              alias="bytes_written"),
    Statistic("session_pauses", "counter", "times that reading from a client was suspended; unread: it did not read "
              "its replies (`session-unread-soft`); backlog: it sent more than could be forwarded (`session-backlog`)",
              lambda of: dict(of.sessions.counters.pauses), "reason"),
    Statistic("client_requests", "counter", "requests of clients, each once, also those that the proxy answered itself",
              lambda of: of.sessions.counters.requests),
    Statistic("requests_refused", "counter", "requests to which the proxy itself replied with an error: malformed, or "
              "not allowed; also logins that failed (`listen-auth`)",
              lambda of: of.sessions.counters.refused),
    Statistic("request_errors", "counter",
              "requests that got an error of the proxy instead of a server's reply; unavailable: no server could be "
              "reached; too_many_waiting: `max-waiting`; wait_timeout, request_timeout: the settings of these names; "
              "lost: the connection was lost; protocol: the server sent unexpected bytes; closed: the pool was closed; "
              "login_refused: the server does not accept the login of the client (`auth = pass`)",
              lambda of: {**dict.fromkeys(ERRORS, 0), **of.sessions.counters.errors}, "reason"),
    Statistic("retries", "counter", "requests sent once more: reads that were lost, and what a server declined",
              lambda of: of.pool.counters.retries),
    Statistic("partial_gets", "counter", "gets of several keys of which some servers have failed (`partial-gets`)",
              lambda of: of.sessions.counters.partial),
    Statistic("failovers", "counter", "requests that the pool of `failover` got for servers that were down",
              lambda of: getattr(of.sessions.router.standIn, "count", 0)),
    Statistic("slow_requests", "counter", "requests that took longer than `slow-request`", lambda of: of.slow),
    Statistic("waiting", "gauge", "clients that wait for a connection with capacity", lambda of: of.pool.waiting),
    Statistic("waiting_max", "gauge", "maximum of waiting (`max-waiting`)",
              lambda of: of.pool.limits.maxWaiting or 0),
    Statistic("longest_wait_seconds", "gauge", "how long the first of them has waited",
              lambda of: of.pool.longestWait, merge=max),
    Statistic("wait_seconds", "histogram", "how long clients waited that got a connection after waiting",
              lambda of: _histogram(of.pool.waits)),
    Statistic("waits_failed", "counter", "waits that ended without a connection", _waitsFailed, "reason"),
    Statistic("connections_max", "gauge", "maximum of connections (`pool-size`)",
              lambda of: of.pool.limits.maximum),
    Statistic("servers_up", "gauge", "servers that are up", lambda of: sum(each.up for each in of.pool.servers),
              merge=max),
    *SUBSCRIPTIONS,
    *CLUSTER,
)  # fmt: skip

#: The numbers of a server that a pool has the sums of.
SUMMED: Final = (
    Statistic("requests", "counter", "requests that a server answered; if requests of clients were divided among "
              "servers, or sent together, their number is not that of `client_requests`",
              lambda of: of.byCommand(of.traffic.requests), "command"),
    Statistic("operations", "counter", "what servers did: keys read by get, gets and mg; requests to store; keys "
              "touched by touch, gat and gats; flush_all; me", lambda of: of.operations, "operation", alias="cmd"),
    Statistic("failed_requests", "counter", "requests that a server answered with an error",
              lambda of: of.byCommand(of.traffic.failed), "command"),
    Statistic("hits", "counter", "keys found by get, gets and mg", lambda of: of.hits, alias="get_hits"),
    Statistic("misses", "counter", "keys not found by these commands",
              lambda of: of.misses, alias="get_misses"),
    Statistic("sent_bytes", "counter", "written to servers", lambda of: of.traffic.sent),
    Statistic("received_bytes", "counter", "read from servers", lambda of: of.traffic.received),
    Statistic("latency_seconds", "histogram", "from the sending of a request to the end of its reply; gets sent as one "
              "request have the time of the last", lambda of: _histogram(of.traffic.latency)),
    Statistic("in_flight", "gauge", "requests in flight", lambda of: sum(record.load for record in of.records)),
    Statistic("connections", "gauge", "connections by state; held: the server does not read, or the pool is paused",
              lambda of: of.states, "state"),
    Statistic("dials", "counter", "attempts to connect", lambda of: of.traffic.dials),
    Statistic("dial_failures", "counter", "attempts that failed", lambda of: dict(of.traffic.dialFailures), "reason"),
    Statistic("connections_lost", "counter", "connections that ended although the pool did not close them; aborted: "
              "after a timeout or a protocol error", lambda of: dict(of.traffic.lost), "reason"),
    Statistic("connections_closed", "counter", "connections that the pool closed", lambda of: dict(of.traffic.closed),
              "reason"),
    Statistic("ejections", "counter", "times that its keys were given to other servers (`on-failure = rehash`, or "
              "`eject`)", lambda of: of.traffic.ejections),
    Statistic("outages", "counter", "times that a server went down", lambda of: of.traffic.outages),
    Statistic("request_timeouts", "counter", "connections closed because a reply was late",
              lambda of: of.traffic.timeouts),
    Statistic("protocol_errors", "counter", "connections closed because what was received was no reply",
              lambda of: of.traffic.violations),
)  # fmt: skip

#: A pool: its own numbers, and the sums of those of its servers, removed ones included.
POOL: Final = Scope("connpool_", ("pool",), POOL_OWN + SUMMED)

SERVER: Final = Scope(
    "connpool_server_",
    ("pool", "server"),
    (
        Statistic("up", "gauge", "1 if it is up, 0 if not", lambda of: int(of.server.up), merge=max),
        Statistic("since_seconds", "gauge", "since it went up or down; 0 if it never did", lambda of: of.since,
                  merge=max),
        Statistic("drained", "gauge", "1 if it is drained with the console, 0 if not",
                  lambda of: int(of.server.drained), merge=max),
        Statistic("ejected", "gauge", "1 if other servers have its keys, 0 if not", lambda of: int(of.ejected),
                  merge=max),
        Statistic("slots", "gauge", "slots of a cluster that it has", lambda of: of.node and of.node.slots, merge=max),
        Statistic("replica", "gauge", "1 if it is a replica in a cluster or of a master, 0 if not",
                  lambda of: None if of.replica is None else int(of.replica), merge=max),
        Statistic("failed_dials", "gauge", "attempts to connect that failed in a row", lambda of: of.server.failures,
                  merge=max),
        *SUMMED,
    ),
)  # fmt: skip
