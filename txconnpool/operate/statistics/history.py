# -*- test-case-name: tests.operate.statistics.test_history -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The history of the last minutes, for the graphs of the status page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from txconnpool.operate.statistics.snapshot import Snapshot

#: Seconds between two samples, and the number of samples that are kept: five minutes.
INTERVAL: Final = 2.0
SAMPLES: Final = 150

_GRAPHS: Final = ("time", "requests", "errors", "p50", "p99", "in_flight", "waiting", "sessions")


class History:
    """
    Samples of each pool, one for each interval between two snapshots.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float, dict[str, dict[str, Any]]] | None = None
        self._cpu: deque[float] = deque(maxlen=SAMPLES)
        self._samples: deque[dict[str, dict[str, Any]]] = deque(maxlen=SAMPLES)

    def add(self, snapshot: Snapshot) -> None:
        """
        Add a sample: the difference between the last snapshot and this one.
        """
        time, used = snapshot["time"], snapshot["cpu_seconds"]
        pools = {pool["name"]: _totals(pool) for pool in snapshot["pools"]}
        last, self._last = self._last, (time, used, pools)
        if last is None:
            return
        since, before, known = last
        span = max(time - since, 0.001)
        self._cpu.append(round(max(0.0, used - before) / span, 4))
        at = round(time, 1)
        self._samples.append({
            name: {"time": at, **_sample(known[name], pool, span)} for name, pool in pools.items() if name in known
        })  # fmt: skip

    def of(self, pool: str) -> dict[str, list[Any]]:
        """
        @param pool: the name of a pool.

        @return: a list with a value for each sample, by name: C{time} of its end, C{requests} and C{errors} per second,
            the median (C{p50}) and the 99th percentile (C{p99}) of the latency in seconds (C{None}: no requests), the
            average of C{in_flight} and C{waiting}, and the number of C{sessions}.
        """
        samples = [each[pool] for each in self._samples if pool in each]
        return {name: [sample[name] for sample in samples] for name in _GRAPHS}

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
        "sessions": pool["sessions"],
    }


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
        # Little's law: the seconds that all requests took together, per second, are the average number in flight.
        "in_flight": round(max(0.0, latency["sum"] - before["latency"]["sum"]) / span, 4),
        "waiting": round(max(0.0, after["waits"] - before["waits"]) / span, 4),
        "sessions": after["sessions"],
    }


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
