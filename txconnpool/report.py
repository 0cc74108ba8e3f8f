# -*- test-case-name: tests.test_report -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What is told about a pool, under which names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from txconnpool import __version__
from txconnpool.core import Core
from txconnpool.session import SessionFactory


def summary(pool: Core, sessions: SessionFactory, started: float, now: float) -> Iterator[tuple[str, object]]:
    """
    The numbers that C{stats} gives without arguments. Where memcached has a number of the same meaning, it has
    memcached's name, so that tools made for it understand us.

    @param started: when the service started, in seconds since the epoch.
    """
    stats = pool.stats
    yield "pid", os.getpid()
    yield "uptime", int(now - started)
    yield "time", int(now)
    yield "version", f"txconnpool-{__version__}"
    yield "pool", pool.name
    yield "curr_connections", len(sessions.sessions)
    yield "total_connections", sessions.accepted
    yield "rejected_connections", sessions.refused
    yield "max_connections", sessions.limits.maxClients
    yield "unread_bytes", sessions.unread.total
    yield "unread_dropped", sessions.unread.dropped
    yield from _requests(pool, sessions.wire.forms)
    yield "upstream_servers", len(pool.servers)
    yield "upstream_servers_up", sum(1 for server in pool.servers if not server.failures)
    yield "upstream_connections", stats.connections
    yield "upstream_max_connections", stats.maximum
    yield "upstream_idle", stats.idle
    yield "upstream_dialing", stats.dialing
    yield "upstream_in_flight", stats.inFlight
    yield "upstream_dials", stats.dials
    yield "upstream_dial_failures", stats.dialFailures
    yield "upstream_lost", stats.lost
    yield "upstream_closed", stats.closed
    yield "upstream_ejections", stats.ejections
    yield "upstream_violations", stats.violations
    yield "request_timeouts", stats.requestTimeouts
    yield "request_retries", stats.retries
    yield "waiting", stats.waiting
    yield "waited", stats.waited
    yield "wait_seconds", f"{stats.waitTime:.6f}"
    yield "wait_timeouts", stats.timedOut
    yield "wait_cancelled", stats.cancelled
    yield "wait_rejected", stats.rejected
    yield "unavailable", stats.unavailable


def _requests(pool: Core, forms: tuple[object, ...]) -> Iterator[tuple[str, object]]:
    traffic = [server.traffic for server in pool.servers]
    for index, form in enumerate(forms):
        yield f"cmd_{form.name}", sum(each.requests[index] for each in traffic)  # type: ignore[attr-defined]
    yield "bytes_read", sum(each.received for each in traffic)
    yield "bytes_written", sum(each.sent for each in traffic)
