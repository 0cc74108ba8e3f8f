# -*- test-case-name: tests.operate.statistics.test_history -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The history of the last minutes, for the graphs of the status page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from txconnpool.operate.statistics.snapshot import Snapshot

#: Seconds between two samples, and the number of samples that are kept: five minutes.
INTERVAL: Final = 2.0
SAMPLES: Final = 150

#: The number of samples in a cell of a server's history: ten seconds.
CELL: Final = 5

_GRAPHS: Final = ("time", "requests", "errors", "p50", "p99", "in_flight", "waiting", "sessions")


class History:
    """
    Samples of each pool, one for each interval between two snapshots.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float, dict[str, dict[str, Any]]] | None = None
        self._cpu: deque[float] = deque(maxlen=SAMPLES)
        self._samples: deque[dict[str, dict[str, Any]]] = deque(maxlen=SAMPLES)
        self._cells: deque[dict[str, dict[str, _Cell]]] = deque(maxlen=SAMPLES // CELL)
        self._count = 0
        self._seen: set[str] = set()  # the names of pools

    def add(self, snapshot: Snapshot) -> None:
        """
        Add a sample: the difference between the last snapshot and this one.
        """
        time, used = snapshot["time"], snapshot["cpu_seconds"]
        pools = {pool["name"]: _totals(pool) for pool in snapshot["pools"]}
        last, self._last = self._last, (time, used, pools)
        seen, self._seen = self._seen, self._seen | pools.keys()
        if last is None:
            return
        since, before, known = last
        # A new pool began at zero, so what it did in its first interval is drawn. One that is back may not be new.
        known = {**{name: _zero(pool) for name, pool in pools.items() if name not in seen}, **known}
        span = max(time - since, 0.001)
        self._cpu.append(round(max(0.0, used - before) / span, 4))
        at = round(time, 1)
        self._samples.append({
            name: {"time": at, **_sample(known[name], pool, span)} for name, pool in pools.items() if name in known
        })  # fmt: skip
        if not self._count % CELL:
            self._cells.append({})
        self._count += 1
        for name in known.keys() & pools.keys():
            _extend(self._cells[-1].setdefault(name, {}), known[name]["servers"], pools[name]["servers"], span)

    def of(self, pool: str) -> dict[str, list[Any]]:
        """
        @param pool: the name of a pool.

        @return: a list with a value for each sample, by name: C{time} of its end, C{requests} and C{errors} per second,
            the median (C{p50}) and the 99th percentile (C{p99}) of the latency in seconds (C{None}: no requests), the
            number of C{in_flight} and C{waiting} (the average, or how many there are at the end if that is more), and
            the number of C{sessions}.
        """
        samples = [each[pool] for each in self._samples if pool in each]
        return {name: [sample[name] for sample in samples] for name in _GRAPHS}

    def ofServers(self, pool: str) -> dict[str, dict[str, list[Any]]]:
        """
        @param pool: the name of a pool.

        @return: for each of its servers two lists with a value for each L{CELL} samples, by name: C{requests} per
            second, and C{trouble}: 2 if the server was down, 1 if it was up but a connection or dial failed, 0
            otherwise. A value is C{None} where the server was unknown.
        """
        cells = [each.get(pool, {}) for each in self._cells]
        servers = dict.fromkeys(name for cell in reversed(cells) for name in cell)
        return {
            name: {
                "requests": [cell[name].rate() if name in cell else None for cell in cells],
                "trouble": [cell[name].trouble if name in cell else None for cell in cells],
            }
            for name in servers
        }

    def cpu(self) -> list[float]:
        """
        @return: the share of a processor that was used, for each sample.
        """
        return list(self._cpu)


def _totals(pool: dict[str, Any]) -> dict[str, Any]:
    return {
        "requests": sum(pool["requests"].values()),
        "errors": sum(pool["request_errors"].values()) + sum(pool["failed_requests"].values()),
        "latency": pool["latency_seconds"],
        "waits": pool["wait_seconds"]["sum"],
        "waited": sum(pool["wait_seconds"]["counts"]),
        "sessions": pool["sessions"],
        "in_flight": pool["in_flight"],
        "waiting": pool["waiting"],
        "servers": {each["name"]: _serverTotals(each) for each in pool["servers"]},
    }


def _zero(totals: dict[str, Any]) -> dict[str, Any]:
    """
    @return: the totals of a pool before its first request.
    """
    latency = totals["latency"]
    counters = {"requests": 0, "errors": 0, "waits": 0.0, "waited": 0}
    return {
        **totals,
        **counters,
        "latency": {**latency, "counts": [0] * len(latency["counts"]), "sum": 0.0},
        "servers": dict.fromkeys(totals["servers"], (0, 0, False)),
    }


def _serverTotals(server: dict[str, Any]) -> tuple[int, int, bool]:
    """
    @return: the requests, the failures of connections and dials, and whether the server is down.
    """
    failures = sum(server["connections_lost"].values()) + sum(server["dial_failures"].values())
    return sum(server["requests"].values()), failures, server["state"] == "down"


@dataclass(slots=True)
class _Cell:
    """
    What happened to a server in L{CELL} samples.
    """

    requests: int = 0
    seconds: float = 0.0
    trouble: int = 0

    def rate(self) -> float:
        return round(self.requests / self.seconds, 1)


def _extend(
    cells: dict[str, _Cell],
    before: dict[str, tuple[int, int, bool]],
    after: dict[str, tuple[int, int, bool]],
    span: float,
) -> None:
    """
    Add an interval to the cells of the servers.
    """
    for name in after.keys() & before.keys():
        (requests, failures, _), (newRequests, newFailures, down) = before[name], after[name]
        cell = cells.setdefault(name, _Cell())
        cell.requests += max(0, newRequests - requests)
        cell.seconds += span
        cell.trouble = max(cell.trouble, 2 if down else int(newFailures > failures))


def _sample(before: dict[str, Any], after: dict[str, Any], span: float) -> dict[str, Any]:
    """
    Compute the rates between two snapshots. Counters can decrease when a worker is replaced.
    """
    latency = after["latency"]
    counts = [max(0, new - old) for new, old in zip(latency["counts"], before["latency"]["counts"], strict=True)]
    p50, p99 = (estimateQuantile(latency["bounds"], counts, share) for share in (0.5, 0.99))
    return {
        "requests": round(max(0, after["requests"] - before["requests"]) / span, 1),
        "p50": None if p50 is None else round(p50, 7),
        "p99": None if p99 is None else round(p99, 7),
        "errors": round(max(0, after["errors"] - before["errors"]) / span, 2),
        "in_flight": _present(latency["sum"] - before["latency"]["sum"], sum(counts), span, after["in_flight"]),
        "waiting": _present(
            after["waits"] - before["waits"], after["waited"] - before["waited"], span, after["waiting"]
        ),
        "sessions": after["sessions"],
    }


def _present(seconds: float, ended: int, span: float, now: int) -> float:
    """
    Compute how many requests or waiters were present in an interval.

    By Little's law the seconds that they took together, per second, are the average number of those that ended. After a
    stall they took longer than the interval, but there were never more of them than ended. Those that are still
    present, as during a stall, are counted by C{now}.
    """
    return max(now, round(min(max(0.0, seconds) / span, max(0, ended)), 4))


def estimateQuantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """
    Estimate a quantile from a histogram, as if the values in a bucket were spread evenly.

    @param bounds: the upper bounds of the buckets.
    @param counts: the counts of the buckets; the last one is for values above all bounds.
    @param share: from 0 to 1.

    @return: C{None} for an empty histogram; the highest bound for a quantile above it.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    seen = 0
    for low, high, count in zip((0.0, *bounds), bounds, counts, strict=False):
        if count and seen + count >= rank:
            return low + (high - low) * (rank - seen) / count
        seen += count
    return bounds[-1]
