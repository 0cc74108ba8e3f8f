# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.statistics.history}.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.operate.statistics.history import CELL, SAMPLES, History, estimateQuantile


class HistoryTests(SynchronousTestCase):
    """
    Tests for L{History} and L{estimateQuantile}.
    """

    def snapshot(self, time: float, **numbers: Any) -> dict[str, Any]:
        """
        @return: the part of a snapshot that L{History} uses.
        """
        pool = {
            "name": "a",
            "requests": {"get": 0},
            "request_errors": {"lost": 0},
            "failed_requests": {"get": 0},
            "latency_seconds": {"bounds": (0.001, 0.01, 0.1), "counts": [0, 0, 0, 0], "sum": 0.0},
            "wait_seconds": {"bounds": (1.0,), "counts": [0, 0], "sum": 0.0},
            "sessions": 0,
            "in_flight": 0,
            "waiting": 0,
            "servers": [],
            **numbers,
        }
        return {"time": time, "cpu_seconds": time / 4, "pools": [pool]}

    def test_rates(self) -> None:
        """
        A sample has the rates per second between two snapshots.
        """
        history = History()
        self.assertEqual(history.of("a")["requests"], [])
        history.add(self.snapshot(100))
        latency = {"bounds": (0.001, 0.01, 0.1), "counts": [5, 5, 0, 0], "sum": 0.5}
        history.add(
            self.snapshot(102, requests={"get": 8, "set": 2}, request_errors={"lost": 1}, failed_requests={"get": 2},
                      latency_seconds=latency, wait_seconds={"counts": [1, 0], "sum": 0.8}, sessions=7)
        )  # fmt: skip
        history.add(self.snapshot(104, requests={"get": 8, "set": 2}, latency_seconds=latency))
        past = history.of("a")
        self.assertEqual((past["time"], past["requests"], past["errors"]), ([102, 104], [5.0, 0.0], [1.5, 0.0]))
        self.assertEqual((past["p50"], past["p99"]), ([0.001, None], [0.00982, None]))
        self.assertEqual((past["in_flight"], past["waiting"], past["sessions"]), ([0.25, 0.0], [0.4, 0.0], [7, 0]))
        self.assertEqual(history.cpu(), [0.25, 0.25])
        self.assertEqual(history.of("other")["requests"], [])

    def test_newPool(self) -> None:
        """
        The first interval of a new pool has what it did since its start. One that was missing for a while has no sample
        of the time before.
        """
        history = History()
        history.add({**self.snapshot(100), "pools": []})
        latency = {"bounds": (0.001, 0.01, 0.1), "counts": [10, 0, 0, 0], "sum": 0.005}
        server = self.server("one", requests={"get": 10})
        busy = {"requests": {"get": 10}, "request_errors": {"lost": 2}, "latency_seconds": latency, "servers": [server]}
        history.add(self.snapshot(102, **busy))
        self.assertEqual([history.of("a")[name] for name in ("time", "requests", "errors")], [[102], [5.0], [1.0]])
        self.assertEqual(history.ofServers("a")["one"]["requests"], [5.0])
        history.add({**self.snapshot(104), "pools": []})
        history.add(self.snapshot(106, **busy))
        history.add(self.snapshot(108, **busy))
        self.assertEqual([history.of("a")[name] for name in ("time", "requests")], [[102, 108], [5.0, 0.0]])

    def test_back(self) -> None:
        """
        Where counters decrease, as when a worker was replaced, rates are 0.
        """
        history = History()
        latency = {"bounds": (0.001, 0.01, 0.1), "counts": [5, 5, 0, 0], "sum": 0.5}
        history.add(self.snapshot(100, requests={"get": 100}, request_errors={"lost": 3}, latency_seconds=latency))
        history.add(self.snapshot(100))
        past = history.of("a")
        self.assertEqual([past[name] for name in ("requests", "errors", "p50", "in_flight")], [[0], [0], [None], [0]])

    def test_stall(self) -> None:
        """
        While no server replies, those in flight and waiting are counted although none of them has ended. When they end,
        the time before the interval does not make them more than they were.
        """
        history = History()
        history.add(self.snapshot(100))
        history.add(self.snapshot(102, in_flight=3, waiting=5))
        history.add(self.snapshot(104, in_flight=3, waiting=6))
        latency = {"bounds": (0.001, 0.01, 0.1), "counts": [0, 0, 0, 9], "sum": 30.0}
        history.add(self.snapshot(106, latency_seconds=latency, wait_seconds={"counts": [0, 6], "sum": 24.0}))
        past = history.of("a")
        self.assertEqual((past["in_flight"], past["waiting"]), ([3, 3, 9], [5, 6, 6]))

    def server(self, name: str, **numbers: Any) -> dict[str, Any]:
        return {"name": name, "state": "up", "requests": {"get": 0}, "connections_lost": {"closed": 0},
                "dial_failures": {"timeout": 0}, **numbers}  # fmt: skip

    def test_servers(self) -> None:
        """
        A server has a cell for each L{CELL} samples: its rate, and the worst that happened in it.
        """
        history = History()
        self.assertEqual(history.ofServers("a"), {})
        for number in range(2 * CELL + 1):
            lost, state = {"closed": int(number > CELL)}, "down" if number == 2 else "up"
            one = self.server("one", requests={"get": 20 * number}, state=state)
            history.add(self.snapshot(100 + 2 * number, servers=[one, self.server("two", connections_lost=lost)]))
        history.add(self.snapshot(200, servers=[self.server("new")]))
        history.add(self.snapshot(202, servers=[self.server("new", state="drained")]))
        past = history.ofServers("a")
        self.assertEqual(past["one"], {"requests": [10.0, 10.0, None], "trouble": [2, 0, None]})
        self.assertEqual(past["two"], {"requests": [0.0, 0.0, None], "trouble": [0, 1, None]})
        self.assertEqual(past["new"], {"requests": [None, None, 0.0], "trouble": [None, None, 0]})

    def test_manyCells(self) -> None:
        """
        Cells are kept as long as samples.
        """
        history = History()
        for time in range(SAMPLES * 2):
            history.add(self.snapshot(time, servers=[self.server("one")]))
        self.assertEqual(len(history.ofServers("a")["one"]["requests"]), SAMPLES // CELL)

    def test_bound(self) -> None:
        """
        L{SAMPLES} samples are kept.
        """
        history = History()
        for time in range(SAMPLES * 2):
            history.add(self.snapshot(time))
        self.assertEqual(len(history.of("a")["time"]), SAMPLES)
        self.assertEqual(history.of("a")["time"][-1], SAMPLES * 2 - 1)

    def test_estimateQuantile(self) -> None:
        """
        Values in a bucket are taken to be spread evenly. Above the last bound, the bound is the estimate.
        """
        bounds = (1.0, 2.0, 4.0)
        self.assertIsNone(estimateQuantile(bounds, [0, 0, 0, 0], 0.5))
        self.assertEqual(estimateQuantile(bounds, [10, 0, 0, 0], 0.5), 0.5)
        self.assertEqual(estimateQuantile(bounds, [0, 0, 10, 0], 0.25), 2.5)
        self.assertEqual(estimateQuantile(bounds, [5, 0, 5, 0], 0.5), 1.0)
        self.assertEqual(estimateQuantile(bounds, [5, 0, 5, 0], 1.0), 4.0)
        self.assertEqual(estimateQuantile(bounds, [0, 0, 0, 3], 0.99), 4.0)
