# Copyright txconnpool contributors. See LICENSE.
"""
Tests for statistics with their consumers: Prometheus' client library, memcached's tools, and a browser.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pymemcache.client.base import Client  # type: ignore[import-untyped]  # it has no annotations
from twisted.trial.unittest import SynchronousTestCase

from tests.real.browser import Browser, missingBrowser
from tests.real.servers import HOST, PATIENCE, Memcached, Proxy, ask, connect, freePort, missing, until, which
from txconnpool.operate.http.pages import FRESH


class StatisticsTestCase(SynchronousTestCase):
    """
    Base class of tests with two memcacheds behind a proxy that serves statistics.
    """

    skip = missing("memcached")
    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        """
        Start the servers and the proxy.
        """
        self.servers = [Memcached().start() for _ in range(2)]
        for server in self.servers:
            self.addCleanup(server.stop)
        self.port = freePort()
        self.proxy = Proxy(
            *("--distribution", "round-robin", "--stats", f"tcp:{self.port}:interface={HOST}", *self.options),
            upstream=[server.address for server in self.servers],
        ).start()
        self.addCleanup(self.proxy.stop)
        until(lambda: self.get("/healthz")[0] == 200, what="a server")

    def get(self, path: str) -> tuple[int, str]:
        """
        @return: the status code and the content of a path; 0 and nothing if the connection is refused.
        """
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except ConnectionError:
            return 0, ""
        finally:
            connection.close()

    def poolStatistics(self) -> dict[str, Any]:
        """
        @return: the statistics of the pool in C{/stats.json}.
        """
        pools = json.loads(self.get("/stats.json")[1])["pools"]
        pool: dict[str, Any] = pools[0]
        return pool

    def send(self, *requests: bytes) -> None:
        """
        Send requests to the proxy, each on a new connection, and wait until HTTP has their statistics.
        """
        for request in requests:
            ask(self.proxy.address, request, end=b"\r\n")
        time.sleep(FRESH)


class PrometheusTests(StatisticsTestCase):
    """
    Tests for C{/metrics}.
    """

    skip = missing("memcached") or (None if find_spec("prometheus_client") else "prometheus_client is not installed")

    def families(self) -> dict[str, Any]:
        """
        @return: the metric families that Prometheus' client library parses, by name.
        """
        from prometheus_client.parser import text_string_to_metric_families

        code, text = self.get("/metrics")
        self.assertEqual(code, 200)
        families = list(text_string_to_metric_families(text))
        self.assertEqual(len({family.name for family in families}), len(families))
        return {family.name: family for family in families}

    def value(self, families: dict[str, Any], name: str, **labels: str) -> float:
        """
        @return: the sum of the samples with a name and labels.
        """
        samples = [sample for family in families.values() for sample in family.samples if sample.name == name]
        chosen = [sample.value for sample in samples if labels.items() <= sample.labels.items()]
        self.assertNotEqual(chosen, [], name)
        return float(sum(chosen))

    def test_parsed(self) -> None:
        """
        The parser accepts the whole text, and finds types, descriptions and correct values.
        """
        self.send(b"set a 0 0 1\r\nx\r\n", b"get a\r\n", b"get b\r\n", b"get a b c\r\n", b"nonsense\r\n")
        families = self.families()
        for family in families.values():
            self.assertIn(family.type, ("counter", "gauge", "histogram"), family.name)
            self.assertTrue(family.documentation, family.name)
            self.assertTrue(family.name.startswith("connpool_"), family.name)
        pool = {"pool": "default"}
        self.assertEqual(self.value(families, "connpool_requests_total", command="get", **pool), 3)
        self.assertEqual(self.value(families, "connpool_server_requests_total", command="get"), 3)
        # The two servers do not hold the same items here, so every second get finds `a`.
        found = self.value(families, "connpool_hits_total", **pool)
        self.assertEqual(found + self.value(families, "connpool_misses_total", **pool), 5)
        self.assertEqual(self.value(families, "connpool_requests_refused_total", **pool), 1)
        self.assertGreaterEqual(self.value(families, "connpool_sessions_accepted_total", **pool), 5)
        self.assertEqual(self.value(families, "connpool_server_up"), 2)
        self.assertEqual(self.value(families, "connpool_build_info"), 1)

    def test_histogram(self) -> None:
        """
        Histograms are complete: cumulative buckets, a sum and a count.
        """
        self.send(*[b"get a\r\n"] * 20)
        samples = self.families()["connpool_latency_seconds"].samples
        buckets = [sample for sample in samples if sample.name.endswith("_bucket")]
        values = [sample.value for sample in buckets]
        self.assertEqual(values, sorted(values))
        self.assertEqual(buckets[-1].labels["le"], "+Inf")
        (count,) = [sample.value for sample in samples if sample.name.endswith("_count")]
        (total,) = [sample.value for sample in samples if sample.name.endswith("_sum")]
        self.assertEqual(values[-1], count)
        self.assertGreaterEqual(count, 20)
        self.assertTrue(0 < total < 60)

    def test_failures(self) -> None:
        """
        A server that goes down is visible, and so is the reason why it cannot be reached.
        """
        address = f"tcp:{HOST}:{self.servers[0].address[1]}"
        self.servers[0].kill()
        refused = (
            f'connpool_server_dial_failures_total{{pool="default",server="{address}",reason="connection_refused"}}'
        )
        until(lambda: refused in self.get("/metrics")[1], what="a dial that failed")
        families = self.families()
        self.assertEqual(self.value(families, "connpool_server_up", server=address), 0)
        self.assertEqual(self.value(families, "connpool_server_outages_total", server=address), 1)
        self.assertEqual(self.value(families, "connpool_servers_up"), 1)


class ToolTests(StatisticsTestCase):
    """
    Tests for C{stats}.
    """

    def test_memcstat(self) -> None:
        """
        The command C{memcstat} shows the statistics.
        """
        program = which("memcstat")
        if program is None:
            self.skipTest("memcstat is not installed")
        self.send(b"get a\r\n")
        assert isinstance(self.proxy.address, tuple)
        host, port = self.proxy.address
        shown = subprocess.run(
            [program, f"--servers={host}:{port}"], capture_output=True, text=True, check=True, timeout=PATIENCE
        ).stdout
        self.assertRegex(shown, r"cmd_get: 1\n")
        self.assertRegex(shown, r"curr_connections: \d+\n")

    def test_pymemcache(self) -> None:
        """
        A client library returns the statistics by name.
        """
        with closing(Client(self.proxy.address)) as client:
            client.set("a", "b")
            client.get("a")
            stats = client.stats()
            self.assertEqual((stats[b"cmd_get"], stats[b"cmd_set"]), (1, 1))
            self.assertEqual(stats[b"get_hits"] + stats[b"get_misses"], 1)
            self.assertEqual(client.stats("servers")[b"2:state"], b"up")
            self.assertEqual(client.stats("proxy", "settings")[b"pool-size"], 4)
            self.assertEqual(client.stats("settings")[b"item_size_max"], 1 << 20)
            self.assertEqual(stats[b"proxy_servers_up"], 2)
            upstream = client.stats("upstream")
            servers = [server.stats() for server in self.servers]
            for name in ("pid", "limit_maxbytes"):
                values = [int(upstream[f"{number}:{name}".encode()]) for number in (1, 2)]
                self.assertEqual(values, [int(server[name]) for server in servers])
            self.assertEqual(stats[b"limit_maxbytes"], sum(int(server["limit_maxbytes"]) for server in servers))
            self.assertEqual(stats[b"version"], client.version())

    def test_same(self) -> None:
        """
        C{stats}, C{/stats.json} and C{/metrics} have the same values.
        """
        self.send(*[b"get a\r\n"] * 7)
        with closing(Client(self.proxy.address)) as client:
            self.assertEqual(client.stats()[b"cmd_get"], 7)
        self.assertEqual(self.poolStatistics()["requests"]["get"], 7)
        self.assertIn('connpool_requests_total{pool="default",command="get"} 7\n', self.get("/metrics")[1])


class HealthTests(StatisticsTestCase):
    """
    Tests for C{/healthz} and C{/livez}.
    """

    options = ("--request-timeout", f"{2 * PATIENCE:g}", "--drain-timeout", f"{2 * PATIENCE:g}")

    def test_servers(self) -> None:
        """
        It is 503 while no server is up, and 200 when one is up again.
        """
        for server in self.servers:
            server.kill()
        until(lambda: self.get("/healthz")[0] == 503, what="that all is down")
        self.assertEqual(json.loads(self.get("/healthz")[1]), {"status": "down", "pools": {"default": "down"}})
        self.assertEqual(self.get("/livez")[0], 200)
        self.servers[0].restart()
        until(lambda: self.get("/healthz")[0] == 200, what="that one is up")

    def test_draining(self) -> None:
        """
        It is 503 while the proxy drains.
        """
        with connect(self.proxy.address) as line:
            self.servers[0].freeze()
            self.servers[1].freeze()
            line.sendall(b"get a\r\n")
            until(lambda: b"STAT in_flight 1\r\n" in ask(self.proxy.address, b"stats proxy\r\n", b"END\r\n"))
            self.proxy.signal(signal.SIGTERM)
            until(lambda: "draining" in self.get("/healthz")[1], what="draining")
            self.assertEqual([self.get(path)[0] for path in ("/healthz", "/livez")], [503, 200])
            for server in self.servers:
                server.thaw()
            self.assertEqual(line.recv(100), b"END\r\n")
        until(lambda: not self.proxy.running(), what="its end")
        self.assertEqual(self.get("/healthz")[0], 0)


class WorkersTests(StatisticsTestCase):
    """
    Tests for a proxy of two worker processes.
    """

    options = ("--workers", "2")

    def workers(self) -> list[int]:
        """
        @return: the process ids of the workers.
        """
        pid = self.proxy.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]

    def counts(self) -> tuple[int, int]:
        """
        @return: the number of gets, and the bytes received from clients.
        """
        statistics = self.poolStatistics()
        return statistics["requests"]["get"], statistics["client_received_bytes"]

    def test_sums(self) -> None:
        """
        HTTP and C{stats} return the sums of all workers. Counters of a worker that was killed are kept.
        """
        self.send(*[b"get a\r\n"] * 10)
        # The numbers of a worker that does not answer within a second are older ones.
        until(lambda: self.counts() == (10, 70), what="the sums")
        with closing(Client(self.proxy.address)) as one, closing(Client(self.proxy.address)) as other:
            until(lambda: [client.stats()[b"cmd_get"] for client in (one, other)] == [10, 10], what="the sums")
            self.assertEqual(one.stats()[b"pid"], other.stats()[b"pid"])
        before = self.counts()
        killed = self.workers()[0]
        os.kill(killed, signal.SIGKILL)
        until(lambda: killed not in self.workers() and len(self.workers()) == 2, what="another worker")
        until(lambda: self.get("/healthz")[0] == 200, what="a worker")
        self.assertGreaterEqual(self.counts(), before)

        def served() -> bool:
            self.send(b"get a\r\n")
            return self.counts()[0] > before[0]

        until(served, what="another get")


class HistoryTests(StatisticsTestCase):
    """
    Tests for the history in C{/stats.json}.
    """

    options = ("--request-timeout", f"{2 * PATIENCE:g}")

    def test_stall(self) -> None:
        """
        While no server answers, requests in flight are counted.
        """
        for server in self.servers:
            server.freeze()
        with connect(self.proxy.address) as line:
            line.sendall(b"get a\r\n")
            until(lambda: self.poolStatistics()["history"]["in_flight"][-1:] == [1], what="a sample of the stall")
            for server in self.servers:
                server.thaw()
            self.assertEqual(line.recv(100), b"END\r\n")
        past = self.poolStatistics()["servers"][0]["history"]
        self.assertEqual(past["trouble"], [0] * len(past["requests"]))


class PageTests(StatisticsTestCase):
    """
    Tests for the status page.
    """

    skip = missing("memcached") or missingBrowser()

    def page(self, width: int = 1280, height: int = 900, dark: bool = False) -> Browser:
        """
        @return: a browser that shows the page.
        """
        browser = Browser(width, height, dark).start()
        self.addCleanup(browser.stop)
        browser.open(f"http://{HOST}:{self.port}/")
        browser.until("document.querySelectorAll('.summary').length == 1")
        return browser

    def assertShown(self, browser: Browser, pattern: str, timeout: float = PATIENCE) -> None:
        """
        Assert that the page shows a text soon.
        """
        browser.until(f"new RegExp({json.dumps(pattern)}).test(document.body.innerText)", timeout)

    def test_renders(self) -> None:
        """
        It shows the verdict, the pool, its servers, commands and events, and has no errors.
        """
        self.send(b"set a 0 0 1\r\nx\r\n", b"get a\r\n")
        browser = self.page()
        self.assertShown(browser, r"All is well\s+1 pool, 2 servers up")
        self.assertShown(browser, r"default\s+all 2 up")
        for server in self.servers:
            self.assertShown(browser, rf"tcp:{HOST}:{server.address[1]}\s+up")
        self.assertShown(browser, r"Recent events[^]*default: .* -> tcp:")
        browser.until("document.querySelectorAll('svg path[d^=M]').length >= 1")
        self.assertEqual(browser.value("document.title"), "txconnpool")
        self.assertEqual(browser.errors, [])

    def test_updates(self) -> None:
        """
        It updates itself: new requests are shown soon, with their number.
        """
        browser = self.page()
        self.send(*[b"get a\r\n"] * 50)
        self.assertShown(browser, r"Hit rate[^]*of 50 keys")
        self.assertShown(browser, r"Commands\s+get\s")
        self.assertEqual(browser.errors, [])

    def test_downAndUp(self) -> None:
        """
        It shows a server that goes down and comes up again.
        """
        browser = self.page()
        name = rf"tcp:{HOST}:{self.servers[0].address[1]}"
        self.servers[0].kill()
        self.assertShown(browser, rf"default: 1 of 2 servers down\s+Since [^:]*:[^:]*: {name}: connection refused")
        self.assertShown(browser, r"Nothing listens there: start the server")
        self.assertShown(browser, rf"{name}\s+down [^:]*: connection refused")
        self.assertShown(browser, rf"Recent events[^]*warn\s+default: {name} is down")
        self.servers[0].restart()
        self.assertShown(browser, rf"{name}\s+up \d+ s")
        self.assertShown(browser, r"All is well")
        self.assertShown(browser, rf"Recent events\s+\S+\s+default: {name} is up again")
        self.servers[0].kill()
        self.servers[1].kill()
        self.assertShown(browser, r"default is down\s+Since ")
        browser.until("document.title.startsWith('(!) default is down')")
        self.assertEqual(browser.errors, [])

    def test_noAnswer(self) -> None:
        """
        While the proxy does not answer, it shows that its numbers are old.
        """
        browser = self.page()
        self.proxy.stop()
        self.assertShown(browser, r"The proxy does not answer\s+Since \d\d:\d\d")
        self.assertTrue(browser.value("document.body.classList.contains('stale')"))
        self.proxy.start()
        browser.until("!document.body.classList.contains('stale')")
        self.assertShown(browser, r"All is well")

    def brightness(self, browser: Browser, of: str) -> float:
        """
        @return: the brightness of a color of the page, from 0 to 255.
        """
        color = browser.value(f"getComputedStyle(document.body).{of}")
        parts = [float(part) for part in re.findall(r"[\d.]+", color)[:3]]
        return sum(parts) / 3

    def test_dark(self) -> None:
        """
        It is dark if the user prefers a dark color scheme.
        """
        for dark in (False, True):
            browser = self.page(dark=dark)
            back, text = (self.brightness(browser, of) for of in ("backgroundColor", "color"))
            self.assertTrue(back < 60 and text > 200 if dark else back > 200 and text < 60, (back, text))

    def test_names(self) -> None:
        """
        For screen readers, plots have descriptions, and parts have headings.
        """
        browser = self.page()
        browser.until("[...document.querySelectorAll('svg')].every((each) => each.getAttribute('aria-label'))")
        labels = browser.value("[...document.querySelectorAll('svg')].map((each) => each.getAttribute('aria-label'))")
        plots = ["Requests per second", "Latency", "Requests at the same time"]
        self.assertEqual([label.split(":")[0] for label in labels if ":" in label], plots)
        roles = browser.value("[...document.querySelectorAll('svg')].map((each) => each.getAttribute('role'))")
        self.assertEqual(set(roles), {"img"})
        headings = browser.value("[...document.querySelectorAll('h1, h2')].map((each) => each.textContent.trim())")
        self.assertEqual(headings, ["txconnpool", "Recent events"])
