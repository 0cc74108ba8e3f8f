# -*- test-case-name: tests.real.test_page -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Situations for tests of the status page, and a server that serves the page with them. Each situation is a complete
C{/stats.json}, made of a real snapshot with other numbers.

C{python -m tests.real.statuspages DIRECTORY} saves a picture of each, for a desktop and for a phone, light and dark.
The picture in the manual, C{conf/status.png}, is C{oneDown-1280-light.png} with 240 colors.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any, Final, Self

from tests.operate.snapshots import snapshotOf
from tests.real.browser import Browser
from tests.real.servers import HOST
from tests.stage import Stage
from txconnpool.operate.http.pages import statusPage
from txconnpool.operate.statistics.history import CELL, INTERVAL, SAMPLES

Data = dict[str, Any]

#: The number of cells of a server.
CELLS: Final = SAMPLES // CELL


class PageServer:
    """
    An HTTP server for the status page.

    @ivar data: what it serves as C{/stats.json}; C{None} is an error.
    """

    def __init__(self, data: Data | None) -> None:
        self.data = data
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page.respond(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://{HOST}:{self._server.server_address[1]}/"

    def start(self) -> Self:
        """
        Serve from now on, in a thread.
        """
        self._thread.start()
        return self

    def stop(self) -> None:
        """
        End the thread, and close the port.
        """
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        """
        Write a response.
        """
        page = statusPage()
        isPage = handler.path == "/"
        body = page.body if isPage else json.dumps(self.data).encode()
        handler.send_response(200 if isPage or self.data is not None else 503)
        handler.send_header("Content-Type", page.kind if isPage else "application/json")
        handler.send_header("Content-Length", str(len(body)))
        if isPage:
            handler.send_header("Content-Security-Policy", page.policy)
        handler.end_headers()
        handler.wfile.write(body)


# -- Parts of situations


def server(name: str, rate: float = 0.0, **numbers: Any) -> Data:
    """
    @param rate: its requests per second.
    @param numbers: statistics that are not those of a new server that is up.

    @return: a server.
    """
    (new,) = deepcopy(snapshotOf(Stage(1))["pools"][0]["servers"])
    history = {
        "requests": [round(rate * (0.8 + 0.2 * math.sin(n / 3)), 1) for n in range(CELLS)],
        "trouble": [0] * CELLS,
    }
    new["requests"] = {**dict.fromkeys(new["requests"], 0), "get": int(rate * 4000)}
    new["connections"]["idle"] = 2
    new["latency_seconds"] = histogram(new["latency_seconds"]["bounds"], rate * 4000)
    return {**new, "name": name, "history": history, **numbers}


def down(name: str, seconds: float = 132.0, reason: str = "connection refused") -> Data:
    """
    @return: a server that has been down for some time.
    """
    cells = min(CELLS, math.ceil(seconds / CELL / INTERVAL))
    past = server(name, 200.0)["history"]["requests"]
    history = {
        "requests": [*past[: CELLS - cells], *[0.0] * cells],
        "trouble": [*[0] * (CELLS - cells), *[2] * cells],
    }
    failures = {"connection_refused": 29}
    return server(name, state="down", up=0, reason=reason, since_seconds=seconds, failed_dials=29, history=history,
                  dial_failures=failures, connections=dict.fromkeys(server(name)["connections"], 0))  # fmt: skip


def histogram(bounds: Any, count: float) -> Data:
    """
    @return: a histogram of times around 100 microseconds.
    """
    shares = [0.44, 0.36, 0.15, 0.023, 0.011, 0.007, 0.006, 0.003]
    counts = [round(count * share) for share in shares] + [0] * (len(bounds) + 1 - len(shares))
    return {"bounds": list(bounds), "counts": counts, "sum": count * 1e-4}


def past(now: float, count: int = SAMPLES, **graphs: Callable[[int], Any]) -> dict[str, list[Any]]:
    """
    @param graphs: functions that return the value of a sample, given how many samples ago it was.

    @return: the history of a pool.
    """
    ages = range(count - 1, -1, -1)
    values = {
        "requests": lambda ago: 0.0, "errors": lambda ago: 0.0, "p50": lambda ago: None, "p99": lambda ago: None,
        "in_flight": lambda ago: 0, "waiting": lambda ago: 0, "sessions": lambda ago: 0, **graphs,
    }  # fmt: skip
    return {"time": [round(now - INTERVAL * ago, 1) for ago in ages]} | {
        name: [value(ago) for ago in ages] for name, value in values.items()
    }


def busyPast(now: float, rate: float, **graphs: Callable[[int], Any]) -> dict[str, list[Any]]:
    """
    @return: the history of a pool with about C{rate} requests per second.
    """
    random = Random(f"{rate}")
    noise = [random.uniform(0.85, 1.15) for _ in range(SAMPLES)]
    load = [noise[ago] * (1 + 0.35 * math.sin(ago / 11)) for ago in range(SAMPLES)]
    usual: dict[str, Callable[[int], Any]] = {
        "requests": lambda ago: round(rate * load[ago], 1),
        "p50": lambda ago: round(70e-6 * noise[ago], 7),
        "p99": lambda ago: round(700e-6 * noise[ago] ** 8, 7),
        "in_flight": lambda ago: round(rate * load[ago] * 1e-3, 4),
        "sessions": lambda ago: 24,
    }
    return past(now, SAMPLES, **{**usual, **graphs})


def pool(name: str, servers: list[Data], history: dict[str, list[Any]], **numbers: Any) -> Data:
    """
    @return: a pool. Its totals fit its servers.
    """
    (new,) = deepcopy(snapshotOf(Stage(1))["pools"])
    total = sum(each["requests"]["get"] for each in servers)
    new["requests"].update({"version": 0, "get": total, "set": total // 7, "incr": total // 50, "delete": total // 60})
    sums = {
        "connections": {state: sum(each["connections"][state] for each in servers) for state in new["connections"]},
        "latency_seconds": histogram(new["latency_seconds"]["bounds"], total),
        "hits": int(total * 0.84),
        "misses": total - int(total * 0.84),
        "servers_up": sum(each["state"] == "up" for each in servers),
    }
    state = "ready" if sums["servers_up"] else "down"
    limits = {"connections_max": 4 * len(servers), "sessions": 24}
    return {**new, "name": name, "state": state, **sums, **limits, "servers": servers, "history": history, **numbers}


def snapshot(now: float, pools: list[Data], events: list[tuple[float, str, str]] = ()) -> Data:  # type: ignore[assignment]
    """
    @param events: seconds ago, level and text of each.

    @return: a situation.
    """
    listed = [{"time": now - ago, "level": level, "text": text} for ago, level, text in events]
    process = {
        "time": now, "pid": 10228, "uptime_seconds": 4 * 3600 + 780.0, "cpu_history": [0.074],
        "resident_bytes": 55 << 20, "loop_lag_seconds": 0.0004, "held_bytes": 18000,
    }  # fmt: skip
    return {**snapshotOf(Stage(1)), **process, "pools": pools, "events": listed}


# -- The situations


def address(number: int) -> str:
    """
    @return: the name of a server.
    """
    return f"tcp:10.0.0.{number}:11211"


def wellPools(now: float) -> list[Data]:
    """
    @return: two pools without any trouble.
    """
    return [
        pool("sessions", [server(address(20 + n), 400.0) for n in range(4)], busyPast(now, 1600.0), sessions=310),
        pool("fragments", [server(address(30), 90.0)], busyPast(now, 90.0), sessions=12),
    ]


def fresh(now: float) -> Data:
    """
    @return: a proxy that has just started.
    """
    names = [address(11), address(12)]
    history = past(now, 3)
    quiet = [server(name, history={"requests": [0.0], "trouble": [0]}) for name in names]
    event = (6.0, "info", "pages: tcp:11212 -> tcp:10.0.0.11:11211, tcp:10.0.0.12:11211, at most 8 connections")
    return {**snapshot(now, [pool("pages", quiet, history, sessions=0)], [event]), "uptime_seconds": 6.0}


def busy(now: float) -> Data:
    """
    @return: three pools under load.
    """
    pages = pool(
        "pages", [server(address(11), 2100.0), server(address(12), 1900.0)], busyPast(now, 4000.0), sessions=955
    )
    return snapshot(now, [pages, *wellPools(now)], [
        (4000.0, "warn", "pages: tcp:10.0.0.12:11211 is down: connection refused"),
        (3975.0, "info", "pages: tcp:10.0.0.12:11211 is up again after 25.2 s"),
    ])  # fmt: skip


def burst(now: float) -> Data:
    """
    @return: a pool that is idle but for one sample of requests, one of errors and one of waiters.
    """
    history = past(
        now,
        requests=lambda ago: 420.0 if ago == 60 else 0.0,
        errors=lambda ago: 0.5 if ago == 60 else 0.0,
        p50=lambda ago: 0.0001 if ago == 60 else None,
        p99=lambda ago: 0.004 if ago == 60 else None,
        in_flight=lambda ago: 0.034 if ago == 60 else 0,
        waiting=lambda ago: 12 if ago == 59 else 0,
    )
    cells = {"requests": [42.0 if n == 17 else 0.0 for n in range(CELLS)], "trouble": [0] * CELLS}
    return snapshot(now, [pool("pages", [server(address(11), 0.2, history=cells)], history)])


def stall(now: float) -> Data:
    """
    @return: a pool whose server has not answered for 12 seconds.
    """
    history = busyPast(now, 4000.0)
    for ago in range(1, 7):
        history["requests"][-ago] = 0.0
        history["p50"][-ago] = history["p99"][-ago] = None
        history["in_flight"][-ago] = 38
        history["waiting"][-ago] = 130 - 20 * ago
    frozen = server(address(11), 4000.0, in_flight=38)
    frozen["history"]["requests"][-1] = 0.0
    numbers = {"in_flight": 38, "waiting": 110, "longest_wait_seconds": 0.98, "sessions": 955}
    return snapshot(now, [pool("pages", [frozen], history, **numbers), *wellPools(now)])


def oneDown(now: float) -> Data:
    """
    @return: a pool of which one of three servers is down.
    """
    servers = [server(address(11), 2100.0), down(address(12)), server(address(13), 1700.0)]
    pages = pool("pages", servers, busyPast(now, 4000.0), sessions=955)
    event = (132.0, "warn", "pages: tcp:10.0.0.12:11211 is down: connection refused")
    return snapshot(now, [*wellPools(now), pages], [event])


def halfDown(now: float) -> Data:
    """
    @return: a pool of which one of two servers is down.
    """
    pages = pool("pages", [server(address(11), 2100.0), down(address(12))], busyPast(now, 2100.0), sessions=955)
    return snapshot(now, [*wellPools(now), pages])


def poolDown(now: float) -> Data:
    """
    @return: a pool of which no server can be reached, beside two that are well.
    """
    history = busyPast(now, 4000.0)
    for ago in range(1, 67):
        history["requests"][-ago] = 0.0
        history["p50"][-ago] = history["p99"][-ago] = None
        history["in_flight"][-ago] = 0
        history["errors"][-ago] = 900.0 + ago
    servers = [down(address(11), 140.0), down(address(12))]
    pages = pool("pages", servers, history, sessions=955)
    pages["request_errors"]["unavailable"] = 120000
    return snapshot(now, [*wellPools(now), pages], [
        (140.0, "warn", "pages: tcp:10.0.0.11:11211 is down: connection refused"),
        (132.0, "warn", "pages: tcp:10.0.0.12:11211 is down: connection refused"),
    ])  # fmt: skip


def hundred(now: float) -> Data:
    """
    @return: a pool of a hundred servers: three are down, one loses connections, one is drained and one has much more
        requests than the others.
    """
    random = Random(100)
    shards = [server(f"tcp:cache{n:03}.example.com:11211", random.uniform(60, 110)) for n in range(100)]
    for n in (17, 42, 43):
        shards[n] = down(shards[n]["name"], 40.0 * n, "connection timed out" if n == 42 else "connection refused")
    shards[60] = server(shards[60]["name"], 90.0, connections_lost={"connection_lost": 14})
    shards[60]["history"]["trouble"][-4:] = [1, 0, 1, 1]
    shards[71] = server(shards[71]["name"], state="drained", drained=1)
    shards[88] = server(shards[88]["name"], 700.0)
    return snapshot(now, [pool("shards", shards, busyPast(now, 9000.0), sessions=4100)])


def cluster(now: float) -> Data:
    """
    @return: a cluster of which some slots have no node.
    """
    numbers = {"slots_covered": 16284, "map_age_seconds": 12.0, "map_refreshes": 31,
               "redirects": {"moved": 7, "ask": 2, "later": 0}}  # fmt: skip
    nodes = [
        server(address(13), 300.0, slots=0, replica=1, primary=address(11)),
        server(address(14), 280.0, slots=0, replica=1, primary=address(12)),
        server(address(11), 900.0, slots=9000, replica=0, ranges="0-8999", replicas=1),
        server(address(12), 500.0, slots=7284, replica=0, ranges="9000-12000 12101-16383", replicas=2),
    ]
    return snapshot(now, [pool("redis", nodes, busyPast(now, 1700.0), **numbers), *wellPools(now)])


SITUATIONS: Final = {
    each.__name__: each for each in (fresh, busy, burst, stall, oneDown, halfDown, poolDown, hundred, cluster)
}  # fmt: skip


def main(directory: str, *names: str) -> None:
    """
    Save pictures of the page in all situations, or in those that are named.
    """
    Path(directory).mkdir(parents=True, exist_ok=True)
    page = PageServer(None).start()
    try:
        for width, dark in ((1280, False), (1280, True), (375, False), (375, True)):
            with Browser(width, 800, dark) as browser:
                for name in names or SITUATIONS:
                    page.data = SITUATIONS[name](time.time())
                    browser.open(page.url)
                    browser.until("document.querySelector('.summary') !== null")
                    if name in ("oneDown", "poolDown", "stall"):
                        browser.value("document.querySelector('.toggle').click()")
                    browser.screenshot(Path(directory) / f"{name}-{width}-{'dark' if dark else 'light'}.png")
                if browser.errors:
                    sys.exit("\n".join(browser.errors))
    finally:
        page.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
