# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.http}, and for the replies with statistics.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import Logger, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.pipes import Pipe
from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.operate.http.pages import health
from txconnpool.operate.http.service import StatisticsService
from txconnpool.operate.service import ProxyService
from txconnpool.operate.statistics.history import INTERVAL
from txconnpool.operate.workers.channel import ChannelError
from txconnpool.operate.workers.shares import shares
from txconnpool.operate.workers.supervisor import SupervisorService

STATS = "tcp:11213:interface=127.0.0.1"
POOL = PoolSettings(name="pages", upstream=("memory:",), listen=("tcp:1",))


class HTTPClient:
    """
    An HTTP client.

    @ivar transport: the transport of the last connection.
    @ivar protocol: the protocol of the last connection.
    """

    def __init__(self, reactor: MemoryReactorClock) -> None:
        self.factory: Any
        (self.factory,) = [factory for port, factory, *_ in reactor.tcpServers if port == 11213]
        self.connect()

    def connect(self) -> None:
        """
        Open another connection.
        """
        self.transport = transport = StringTransport()
        self.protocol: Any = self.factory.buildProtocol(None)
        self.protocol.makeConnection(transport)
        transport.abortConnection = transport.loseConnection = self.lose  # type: ignore[method-assign]

    def lose(self) -> None:
        self.transport.disconnecting = True
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def ask(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """
        Send a request, on a new connection unless the last one is open.

        @return: the code, the headers and the body of the response.
        """
        if self.transport.disconnecting:
            self.connect()
        self.protocol.dataReceived(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        return self.answer()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """
        @return: the response that has come.
        """
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(first.split(" ")[1]), headers, body


class ServiceTestCase(SynchronousTestCase):
    """
    A proxy with statistics, in memory.
    """

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.service = ProxyService(Settings(pools=(POOL,), stats=STATS), self.clock)

    def start(self) -> HTTPClient:
        """
        Start the proxy, and connect to its statistics.
        """
        self.service.privilegedStartService()
        self.service.startService()
        self.addCleanup(self.stop)
        self.turns()
        return HTTPClient(self.clock)

    def stop(self) -> None:
        """
        Stop the proxy if it runs, and assert that no timer is left.
        """
        if self.service.running:
            stopped = self.service.stopService()
            self.turns()
            self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def turns(self) -> None:
        """
        Run the events that are due.
        """
        for _ in range(10):
            self.clock.advance(0)

    def client(self) -> Pipe:
        """
        Connect a client of the pool.
        """
        factory: Any
        (factory,) = [factory for port, factory, *_ in self.clock.tcpServers if port == 1]
        return Pipe(self.clock).connect(factory.buildProtocol(None))

    def ask(self, client: Pipe, request: bytes) -> bytes:
        """
        @return: the reply to a client's request.
        """
        client.send(request)
        self.turns()
        return client.take()


class HTTPTests(ServiceTestCase):
    """
    Tests for the resources.
    """

    def test_metrics(self) -> None:
        """
        C{/metrics} is in Prometheus' text format.
        """
        http = self.start()
        self.ask(self.client(), b"set a 0 0 1\r\nx\r\nget a\r\nget b\r\n")
        code, headers, body = http.ask("/metrics")
        self.assertEqual((code, headers["content-type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
        self.assertIn(b'connpool_requests_total{pool="pages",command="get"} 2\n', body)
        self.assertIn(b'connpool_hits_total{pool="pages"} 1\n', body)
        self.assertIn(b'connpool_server_up{pool="pages",server="memory:"} 1\n', body)

    def test_json(self) -> None:
        """
        C{/stats.json} has all numbers, the history and the recent events.
        """
        http = self.start()
        self.ask(self.client(), b"get a\r\n")
        self.clock.advance(INTERVAL)
        code, headers, body = http.ask("/stats.json")
        self.assertEqual((code, headers["content-type"]), (200, "application/json"))
        snapshot = json.loads(body)
        (pool,) = snapshot["pools"]
        self.assertEqual((pool["name"], pool["state"], pool["requests"]["get"]), ("pages", "ready", 1))
        self.assertEqual([server["name"] for server in pool["servers"]], ["memory:"])
        self.assertEqual(len(pool["history"]["requests"]), 1)
        self.assertEqual([each["history"]["trouble"] for each in pool["servers"]], [[0]])
        self.assertEqual(len(snapshot["cpu_history"]), 1)
        self.assertIn("pages: tcp:1 -> memory:", snapshot["events"][0]["text"])

    def test_health(self) -> None:
        """
        The status of C{/healthz} is 200 if clients should connect: to any pool, or to the one that is named.
        """
        http = self.start()
        code, headers, body = http.ask("/healthz")
        self.assertEqual((code, headers["content-type"]), (200, "application/json"))
        self.assertEqual(json.loads(body), {"status": "ready", "pools": {"pages": "ready"}})
        self.assertEqual(http.ask("/healthz?pool=pages")[0], 200)
        self.assertEqual(http.ask("/healthz?pool=other")[0], 404)

    def test_draining(self) -> None:
        """
        While the proxy stops, C{/healthz} says so. Then the HTTP server stops too, and closes its connections.
        """
        http = self.start()
        self.assertEqual(http.ask("/healthz")[0], 200)
        client = self.client()
        client.send(b"get a\r\n")
        client.reads = False
        client.write(b"x" * 100000)
        stopped = self.service.stopService()
        self.turns()
        self.assertNoResult(stopped)
        code, _, body = http.ask("/healthz")
        self.assertEqual((code, json.loads(body)["status"]), (503, "draining"))
        client.read()
        self.turns()
        self.successResultOf(stopped)
        self.assertTrue(http.transport.disconnecting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_page(self) -> None:
        """
        C{/} is a page without external resources; its policy lets browsers load none.
        """
        code, headers, body = self.start().ask("/")
        self.assertEqual((code, headers["content-type"]), (200, "text/html; charset=utf-8"))
        self.assertEqual(int(headers["content-length"]), len(body))
        policy = headers["content-security-policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertEqual(re.findall(rb"""(?:src|href)=["'](?!data:)([^"'#]*:)?//""", body), [])
        self.assertNotIn(b"innerHTML", body)
        self.assertNotIn(b"style=", body)

    def test_headers(self) -> None:
        """
        Headers forbid caching and guessing of content types, and do not name the web server.
        """
        http = self.start()
        for path in ("/", "/metrics", "/stats.json", "/healthz"):
            headers = http.ask(path)[1]
            self.assertEqual(headers["cache-control"], "no-store")
            self.assertEqual(headers["x-content-type-options"], "nosniff")
            self.assertEqual(headers["server"], "txconnpool")

    def test_head(self) -> None:
        """
        HEAD gets the headers of GET without the body.
        """
        http = self.start()
        for path in ("/", "/metrics", "/stats.json", "/healthz"):
            code, headers, body = http.ask(path, "HEAD")
            self.assertEqual((code, body), (200, b""))
            self.assertGreater(int(headers["content-length"]), 10)

    def test_otherMethods(self) -> None:
        """
        Other methods get an error.
        """
        http = self.start()
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            code, headers, _ = http.ask("/metrics", method)
            self.assertEqual((code, headers["allow"]), (405, "GET, HEAD"))

    def test_otherPaths(self) -> None:
        """
        Other paths are not found.
        """
        http = self.start()
        for path in ("/other", "/metrics/", "/metrics/x", "/../etc/passwd"):
            self.assertEqual(http.ask(path)[0], 404, path)

    def test_escaped(self) -> None:
        """
        A path that is not found is not part of the response.
        """
        code, _, body = self.start().ask("/<script>alert(1)</script>")
        self.assertEqual(code, 404)
        self.assertNotIn(b"<script>", body)

    def test_gone(self) -> None:
        """
        A client may disconnect before its response is ready.
        """
        http = self.start()
        later: Deferred[Any] = Deferred()
        self.service.statistics.pages.source = lambda: later
        http.protocol.dataReceived(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        http.lose()
        self.assertNoResult(later)
        later.callback(self.service.snapshot())
        self.assertEqual(http.transport.value(), b"")

    def test_failed(self) -> None:
        """
        When there is no snapshot, the response is 503 and the reason is logged.
        """
        http = self.start()
        self.service.statistics.pages.source = lambda: fail(ChannelError("no worker"))
        for path in ("/metrics", "/stats.json", "/healthz"):
            code, _, body = http.ask(path)
            self.assertEqual(code, 503)
            self.assertIn(b"no statistics", body)
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.flushLoggedErrors(ChannelError)), 2)


class LifeTests(ServiceTestCase):
    """
    Tests for the life cycle of L{StatisticsService}.
    """

    def test_interface(self) -> None:
        """
        It is a service.
        """
        verifyObject(IService, self.service.statistics)

    def test_none(self) -> None:
        """
        Without C{stats} there is no service, and no timer for it.
        """
        self.service = ProxyService(Settings(pools=(POOL,)), self.clock)
        self.assertIsNone(self.service.statistics)
        self.service.startService()
        self.addCleanup(self.stop)
        self.assertEqual([port for port, *_ in self.clock.tcpServers], [1])
        self.turns()
        self.assertEqual([call for call in self.clock.getDelayedCalls() if "Statistics" in repr(call)], [])

    def test_nothingYet(self) -> None:
        """
        Its construction opens no port and starts no timer.
        """
        self.assertEqual((self.clock.tcpServers, self.clock.getDelayedCalls()), ([], []))

    def test_listens(self) -> None:
        """
        It listens in C{privilegedStartService}, once.
        """
        self.service.privilegedStartService()
        self.assertEqual(sorted(port for port, *_ in self.clock.tcpServers), [1, 11213])
        self.service.startService()
        self.addCleanup(self.stop)
        self.assertEqual(len(self.clock.tcpServers), 2)

    def test_cannotListen(self) -> None:
        """
        The error of an address that is taken is raised by the start.
        """
        error = CannotListenError("127.0.0.1", 11213, OSError("in use"))

        def listenTCP(*_: Any, **__: Any) -> None:
            raise error

        self.clock.listenTCP = listenTCP  # type: ignore[method-assign]
        self.assertIs(self.assertRaises(CannotListenError, self.service.privilegedStartService), error)
        self.assertIsNone(self.service.statistics.port)

    def test_restart(self) -> None:
        """
        It can be stopped and started again.
        """
        self.start()
        self.stop()
        self.clock.tcpServers.clear()
        self.assertEqual(self.start().ask("/healthz")[0], 200)

    def test_lag(self) -> None:
        """
        The delay of its timer is in the statistics.
        """
        http = self.start()
        self.assertEqual(json.loads(http.ask("/stats.json")[2])["loop_lag_seconds"], 0)
        self.clock.advance(INTERVAL + 0.5)
        self.assertEqual(json.loads(http.ask("/stats.json")[2])["loop_lag_seconds"], 0.5)

    def test_events(self) -> None:
        """
        It keeps events of the log from its start to its stop.
        """
        log = Logger(namespace="txconnpool.test")
        statistics = self.service.statistics
        log.warn("before")
        self.start()
        log.warn("while")
        self.stop()
        log.warn("after")
        texts = [event["text"] for event in statistics.events.recent]
        self.assertEqual((texts.count("before"), texts.count("while"), texts.count("after")), (0, 1, 0))

    def test_stoppedBeforeStart(self) -> None:
        """
        A stop between C{privilegedStartService} and C{startService} closes the port, and changes nothing else: events
        are kept when it starts later.
        """
        statistics = self.service.statistics
        statistics.privilegedStartService()
        self.successResultOf(statistics.stopService())
        self.assertIsNone(statistics.port)
        self.clock.tcpServers.clear()
        self.start()
        Logger(namespace="txconnpool.test").warn("while")
        self.assertIn("while", [event["text"] for event in statistics.events.recent])


class ReplyTests(ServiceTestCase):
    """
    Tests for the replies to C{stats} of a client.
    """

    def items(self, request: bytes) -> dict[bytes, bytes]:
        """
        @return: the names and values of a reply.
        """
        reply = self.ask(self.client(), request)
        self.assertTrue(reply.endswith(b"END\r\n"), reply)
        return dict(re.findall(rb"STAT (\S+) (.*)\r\n", reply))

    def test_general(self) -> None:
        """
        C{stats} has the statistics of the server, and those of the client's pool behind C{proxy_}.
        """
        self.start()
        self.ask(self.client(), b"get a\r\n")
        items = self.items(b"stats\r\n")
        self.assertEqual((items[b"cmd_get"], items[b"get_misses"], items[b"curr_items"]), (b"1", b"1", b"0"))
        self.assertEqual(items[b"proxy_pool"], b"pages")
        self.assertEqual(items[b"proxy_curr_connections"], b"2")
        self.assertEqual(b"VERSION " + items[b"version"] + b"\r\n", self.ask(self.client(), b"version\r\n"))
        own = self.items(b"stats proxy\r\n")
        self.assertEqual((own[b"pool"], own[b"cmd_get"]), (b"pages", b"1"))
        shown = {name.removeprefix(b"proxy_") for name in items if name.startswith(b"proxy_")}
        self.assertEqual(shown, set(self.items(b"stats proxy summary\r\n")))
        self.assertLess(shown, set(own))

    def test_parts(self) -> None:
        """
        C{stats proxy servers} and C{stats proxy settings} have their items. C{stats servers} is short for the former.
        """
        self.start()
        for request in (b"stats proxy servers\r\n", b"stats servers\r\n"):
            self.assertEqual(self.items(request)[b"1:name"], b"memory:")
        settings = self.items(b"stats proxy settings\r\n")
        self.assertEqual((settings[b"listen"], settings[b"stats"]), (b"tcp:1", STATS.encode()))

    def test_addresses(self) -> None:
        """
        The addresses of other clients are in the statistics only if the settings allow it.
        """
        self.start()
        client = self.client()
        words = b"SERVER_ERROR stats proxy sessions needs stats-addresses = yes\r\n"
        for request in (b"stats proxy sessions\r\n", b"stats sessions\r\n"):
            self.assertEqual(self.ask(client, request), words)
        refused = self.ask(client, b"stats conns\r\n")
        self.assertEqual(refused, b"CLIENT_ERROR stats conns needs stats-addresses = yes\r\n")
        allowed = replace(self.service.settings, pools=(replace(POOL, statsAddresses="yes"),))
        changed = self.service.change(lambda old: allowed)
        self.turns()
        self.successResultOf(changed)
        self.assertEqual(self.items(b"stats proxy sessions\r\n")[b"1:address"], b"192.0.2.1:4321")
        self.assertNotEqual(self.ask(client, b"stats conns\r\n"), refused)

    def test_upstream(self) -> None:
        """
        C{stats upstream} has the statistics of the server, and so have its groups.
        """
        self.start()
        items = self.items(b"stats upstream\r\n")
        self.assertIn(b"curr_items", items)
        self.assertEqual([name for name in items if name.startswith(b"proxy_")], [])
        self.assertEqual(self.items(b"stats settings\r\n")[b"maxbytes"], items[b"limit_maxbytes"])

    def test_none(self) -> None:
        """
        Unknown statistics get memcached's error. C{stats reset} resets the server's counters, and not the proxy's.
        """
        self.start()
        client = self.client()
        for words in (b"what", b"proxy what", b"proxy reset"):
            self.assertEqual(self.ask(client, b"stats %s\r\n" % words), b"ERROR\r\n")
        self.ask(client, b"get a\r\n")
        self.assertEqual(self.ask(client, b"stats reset\r\n"), b"RESET\r\n")
        self.assertEqual(self.items(b"stats\r\n")[b"cmd_get"], b"0")
        self.assertEqual(self.items(b"stats proxy\r\n")[b"cmd_get"], b"1")

    def test_removed(self) -> None:
        """
        A client of a pool that is being removed gets an error.
        """
        self.start()
        client = self.client()
        other = replace(POOL, name="other", listen=("tcp:2",))
        client.reads = False
        client.write(b"x" * 100000)
        client.send(b"get a\r\n" * 2 + b"stats proxy\r\n")
        changed = self.service.change(lambda old: replace(old, pools=(other,)))
        self.turns()
        self.successResultOf(changed)
        client.read()
        self.turns()
        self.assertIn(b"SERVER_ERROR pool pages is being removed\r\n", client.take()[-100:])

    def test_slow(self) -> None:
        """
        C{slow-request} can change while the proxy runs, and slow requests are counted.
        """
        http = self.start()
        proxy = self.service.proxies[0]
        self.assertIsNone(proxy.sessions.slow)
        slow = replace(POOL, slowRequest=0.25, logKeys="no")
        changed = self.service.change(lambda old: replace(old, pools=(slow,)))
        self.turns()
        self.successResultOf(changed)
        client = self.client()
        client.send(b"get a\r\n")
        self.clock.rightNow += 0.5
        with capturedLogs() as logs:
            self.turns()
        self.assertEqual([event["what"] for event in logs if "what" in event], ["get: 0.500 s at memory:"])
        self.assertIn(b'connpool_slow_requests_total{pool="pages"} 1\n', http.ask("/metrics")[2])
        changed = self.service.change(lambda old: replace(old, pools=(POOL,)))
        self.turns()
        self.assertIsNone(proxy.sessions.slow)


class HealthTests(SynchronousTestCase):
    """
    Tests for L{health}.
    """

    def test_workers(self) -> None:
        """
        The states of the workers are shown. If none is ready, the proxy is down, whatever the last statistics were.
        """
        for workers, code, status in (
            ({"ready": 1, "silent": 1}, 200, "ready"),
            ({"ready": 0, "silent": 2}, 503, "down"),
        ):
            snapshot = {"pools": [{"name": "a", "state": "ready"}], "workers": workers}
            for pool in (None, "a"):
                self.assertEqual(
                    health(snapshot, pool), (code, {"status": status, "pools": {"a": "ready"}, "workers": workers})
                )
            self.assertEqual(health(snapshot, "b")[0], 404)

    def check(self, pool: str | None = None, **states: str) -> tuple[int, str]:
        """
        @return: the code and the status.
        """
        snapshot = {"pools": [{"name": name, "state": state} for name, state in states.items()]}
        code, body = health(snapshot, pool)
        return code, body["status"]

    def test_any(self) -> None:
        """
        The proxy is ready while one of its pools is.
        """
        self.assertEqual(self.check(a="ready", b="down"), (200, "ready"))
        self.assertEqual(self.check(a="down", b="down"), (503, "down"))
        self.assertEqual(self.check(a="draining", b="draining"), (503, "draining"))
        self.assertEqual(self.check(a="draining", b="down"), (503, "draining"))
        self.assertEqual(self.check(a="paused", b="down"), (200, "paused"))
        self.assertEqual(self.check(), (503, "down"))

    def test_one(self) -> None:
        """
        If a pool is named, only this pool counts.
        """
        self.assertEqual(self.check("b", a="ready", b="down"), (503, "down"))
        self.assertEqual(self.check("a", a="ready", b="down"), (200, "ready"))
        self.assertEqual(self.check("c", a="ready"), (404, "unknown"))


class FakeWorker:
    """
    A worker that answers with a snapshot, or not yet.
    """

    def __init__(self, snapshot: Any) -> None:
        self.snapshot = snapshot
        self.channel = self
        self.ready = True
        self.asked = 0
        self.state = "ready"
        self.unreceived: list[Any] = []
        self.why = ""

    def call(self, name: str, *args: Any) -> Deferred[Any]:
        if name == "ask":
            self.asked += 1
            return succeed([["tcp:a:1", f"STAT asked {self.asked}\r\nEND\r\n"]])
        assert name == "statistics"
        return self.snapshot if isinstance(self.snapshot, Deferred) else succeed(self.snapshot)


class WorkersTests(SynchronousTestCase):
    """
    Tests for the statistics of several workers.
    """

    def setUp(self) -> None:
        """
        Make a parent, and the services of its workers.
        """
        self.clock = MemoryReactorClock()
        self.settings = Settings(pools=(replace(POOL, upstream=("tcp:a:1",)),), stats=STATS, workers=2)
        self.parent = SupervisorService(self.settings, self.clock)
        self.services = [ProxyService(share, self.clock) for share in shares(self.settings, 2)]
        for service, requests in zip(self.services, (3, 5), strict=True):
            server = service.proxies[0].pool.servers[0]
            server.traffic.requests[0] += requests

    def workers(self, *snapshots: Any) -> None:
        """
        Make workers with snapshots.
        """
        self.parent.workers.processes = {number: FakeWorker(each) for number, each in enumerate(snapshots, 1)}  # type: ignore[misc]

    def gets(self, snapshot: dict[str, Any]) -> int:
        """
        @return: the number of get requests.
        """
        (pool,) = snapshot["pools"]
        count = pool["requests"]["get"]
        assert isinstance(count, int)
        return count

    def test_shares(self) -> None:
        """
        Only the parent serves statistics.
        """
        self.assertEqual([service.statistics for service in self.services], [None, None])
        self.assertIsInstance(self.parent.statistics, StatisticsService)

    def test_sums(self) -> None:
        """
        The snapshots of the workers are added, with the use of processor and memory of the parent.
        """
        snapshots = [service.snapshot() for service in self.services]
        self.workers(*snapshots)
        whole = self.successResultOf(self.parent.snapshot())
        self.assertEqual(self.gets(whole), 8)
        self.assertGreater(whole["cpu_seconds"], sum(each["cpu_seconds"] for each in snapshots))
        self.assertEqual(self.successResultOf(self.parent.answer("statistics"))["pools"], whole["pools"])

    def test_asked(self) -> None:
        """
        The servers are asked for their statistics by one worker, once in a second for all workers.
        """
        self.assertRaises(ChannelError, self.parent.answer, "what")
        none = self.parent.answer("ask", "pages", [])
        self.assertEqual(self.failureResultOf(none, ChannelError).getErrorMessage(), "no worker runs at the moment")
        self.workers(None, None)
        for asked in (1, 1, 2):
            got = self.successResultOf(self.parent.answer("ask", "pages", ["slabs"]))
            self.assertIn(f"asked {asked}\r\n", got[0][0][1])
            self.clock.advance(0.6)

    def test_late(self) -> None:
        """
        For a worker that does not answer in time its latest snapshot is used.
        """
        one, other = (service.snapshot() for service in self.services)
        self.workers(one, other)
        self.successResultOf(self.parent.snapshot())
        self.workers(one, Deferred())
        asked = self.parent.snapshot()
        self.assertNoResult(asked)
        self.clock.advance(1)
        self.assertEqual(self.gets(self.successResultOf(asked)), 8)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ended(self) -> None:
        """
        The counters of workers that have ended are kept, their gauges are not.
        """
        one, other = (service.snapshot() for service in self.services)
        self.workers(one, other)
        self.successResultOf(self.parent.snapshot())
        for _ in range(2):
            ended = self.parent.workers.processes[2]
            ended.number, ended.since = 2, 0.0
            self.parent.workers.ended(ended, Failure(ConnectionDone()))
            self.workers(one, other)
            self.successResultOf(self.parent.snapshot())
        whole = self.successResultOf(self.parent.snapshot())
        self.assertEqual(self.gets(whole), 3 + 5 * 3)
        self.assertEqual(whole["pools"][0]["connections_max"], 4)
        for call in self.clock.getDelayedCalls():
            call.cancel()

    def test_none(self) -> None:
        """
        Before a worker has started the proxy is not healthy.
        """
        whole = self.successResultOf(self.parent.snapshot())
        self.assertEqual(health(whole)[0], 503)
