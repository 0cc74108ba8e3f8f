# Copyright txconnpool contributors. See LICENSE.
"""
Tests for a proxy whose servers are looked up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs, formatEvent
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from tests.net.discovery.resolvers import FakeResolver, addresses
from tests.operate.harness import A, B, ProxyHarness
from txconnpool.config.changes import CannotChange
from txconnpool.config.settings import PoolSettings
from txconnpool.errors import ServerUnavailable
from txconnpool.net.discovery import REPLICA, Discovered, Discovery
from txconnpool.operate.operations import Operations
from txconnpool.proxy.finding import Finder

FOUND = replace(A, upstream=("dns:cache.example:11211",))
EMPTY = b"SERVER_ERROR the pool has no servers\r\n"


def finish(case: SynchronousTestCase, harness: ProxyHarness) -> None:
    """
    Stop a proxy, which must leave nothing.
    """
    if not harness.service.running:
        return
    stopped = harness.service.stopService()
    harness.turns()
    harness.clock.advance(10)
    harness.turns()
    case.successResultOf(stopped)
    case.assertEqual(harness.clock.getDelayedCalls(), [])


class FoundTests(SynchronousTestCase):
    """
    Tests for a L{ProxyService<txconnpool.operate.service.ProxyService>} whose servers are looked up.
    """

    def setUp(self) -> None:
        """
        Make a DNS server.
        """
        self.resolver = FakeResolver()
        self.patch(Finder, "makeSource", partial(Discovery, resolver=cast(Any, self.resolver)))
        self.learn("10.0.0.1", "10.0.0.2")

    def learn(self, *ips: str) -> None:
        self.resolver.learn("cache.example", *ips, ttl=5)

    def silence(self) -> None:
        """
        Let the DNS server not answer.
        """
        self.resolver.known["cache.example", dns.A] = None

    def answer(self, *ips: str) -> None:
        """
        Let the DNS server answer the last question.
        """
        self.learn(*ips)
        self.resolver.pending[-1].callback((addresses("cache.example", *ips, ttl=5), [], []))

    def harness(self, pool: PoolSettings = FOUND) -> ProxyHarness:
        harness = ProxyHarness(pool)
        self.addCleanup(finish, self, harness)
        return harness

    def servers(self, harness: ProxyHarness) -> list[str]:
        return [server.name for server in harness.proxy("a").pool.servers]

    def reading(self, harness: ProxyHarness) -> list[bool]:
        return [port.reading for port in harness.ports if port.open]

    def texts(self, logs: Any) -> list[str]:
        """
        @return: the lines of the log, except those about connections.
        """
        return [text for text in map(formatEvent, logs) if "keys" in text or "upstream" in text or "looking" in text]

    def test_start(self) -> None:
        """
        Servers that are found at once are there when the first clients come.
        """
        harness = self.harness().start()
        self.assertEqual(self.servers(harness), ["tcp:10.0.0.1:11211", "tcp:10.0.0.2:11211"])
        self.assertEqual(self.reading(harness), [True])
        pool = harness.proxy("a").pool
        explicit = PoolSettings(upstream=("tcp:10.0.0.1:11211", "tcp:10.0.0.2:11211"))
        assert explicit.distributionByKey is not None
        keys = explicit.distributionByKey.build([server.spec() for server in explicit.servers])
        for number in range(100):
            key = b"key%d" % number
            self.assertEqual(pool.choose(key).servers[0].name, explicit.servers[keys.locate(key)].name)

    def test_slow(self) -> None:
        """
        Clients wait until the servers are found, and after that time they get errors.
        """
        self.silence()
        harness = self.harness().start()
        self.assertEqual((self.reading(harness), self.servers(harness)), ([False], []))
        harness.clock.advance(0.5)
        self.assertEqual(self.reading(harness), [False])
        harness.clock.advance(0.5)
        self.assertEqual(self.reading(harness), [True])
        client = harness.client("tcp:1")
        for request in (b"get a\r\n", b"get a b\r\n", b"set a 0 0 1\r\nx\r\n", b"version\r\n", b"flush_all\r\n",
                        b"mg a v\r\n", b"stats upstream\r\n"):  # fmt: skip
            self.assertEqual(harness.ask(client, request), EMPTY, request)
        self.assertEqual(harness.ask(client, b"get a\r\nget b\r\nget c d\r\nset e 0 0 1 noreply\r\nx\r\n"), EMPTY * 3)
        self.assertIn(b"STAT servers_up 0\r\n", harness.ask(client, b"stats proxy\r\n"))
        self.assertEqual(harness.service.snapshot()["pools"][0]["state"], "down")
        self.assertEqual(Operations(harness.service).perform("rows", "servers", 9), [])
        self.assertEqual(Operations(harness.service).perform("rows", "pools", 9)[0]["servers"], "")
        self.answer("10.0.0.3")
        self.assertEqual(self.servers(harness), ["tcp:10.0.0.3:11211"])
        self.assertTrue(client.connected)

    def test_early(self) -> None:
        """
        As soon as the servers are found, clients are accepted.
        """
        self.silence()
        harness = self.harness().start()
        harness.clock.advance(0.5)
        self.answer("10.0.0.3")
        self.assertEqual((self.reading(harness), self.servers(harness)), ([True], ["tcp:10.0.0.3:11211"]))

    def test_moved(self) -> None:
        """
        An address whose clients wait for servers accepts them when another pool gets it.
        """
        self.silence()
        harness = self.harness().start()
        self.assertEqual(self.reading(harness), [False])
        self.successResultOf(harness.change(replace(FOUND, listen=("tcp:2",)), replace(B, listen=("tcp:1",))))
        self.assertEqual({port.description: port.reading for port in harness.ports}, {"tcp:1": True, "tcp:2": False})
        self.answer("10.0.0.1")
        self.assertEqual(self.reading(harness), [True, True])

    def test_equal(self) -> None:
        """
        Equal servers are found too.
        """
        self.silence()
        harness = self.harness(replace(FOUND, distribution="round-robin")).start()
        harness.clock.advance(1)
        client = harness.client("tcp:1")
        for request in (b"get a\r\n", b"get a b\r\n", b"flush_all\r\n", b"stats upstream\r\n"):
            self.assertEqual(harness.ask(client, request), EMPTY, request)
        self.answer(*(f"10.0.0.{number}" for number in range(1, 7)))
        self.assertEqual(len(self.servers(harness)), 6)
        self.assertEqual(harness.proxy("a").pool.limits.maximum, 6)
        self.learn("10.0.0.2")
        harness.clock.advance(5)
        self.assertEqual(self.servers(harness), ["tcp:10.0.0.2:11211"])
        self.assertTrue(client.connected)

    def test_change(self) -> None:
        """
        Servers that come and go are logged as by a reload, and no client is disconnected.
        """
        harness = self.harness().start()
        client = harness.client("tcp:1")
        self.learn("10.0.0.2", "10.0.0.3")
        with capturedLogs() as logs:
            harness.clock.advance(5)
        first, *lines = self.texts(logs)
        self.assertRegex(first, r"^a: [3-7]\d% of the keys have another server now$")
        self.assertEqual(
            lines,
            [
                "pool a: upstream + tcp:10.0.0.3:11211 label=10.0.0.3",
                "pool a: upstream - tcp:10.0.0.1:11211 label=10.0.0.1",
            ],
        )
        self.assertEqual(self.servers(harness), ["tcp:10.0.0.2:11211", "tcp:10.0.0.3:11211"])
        self.assertTrue(client.connected)

    def test_failure(self) -> None:
        """
        The servers stay while a lookup fails.
        """
        harness = self.harness().start()
        self.learn()
        with capturedLogs() as logs:
            harness.clock.advance(5)
        self.assertEqual(
            self.texts(logs),
            ["dns:cache.example:11211: looking up servers failed: the name has no address; the 2 servers known so far "
             "stay"],
        )  # fmt: skip
        self.assertEqual(len(self.servers(harness)), 2)

    def test_unusable(self) -> None:
        """
        Servers that contradict the settings are not used.
        """
        upstream = ("tcp:10.0.0.7:1 label=10.0.0.3", *FOUND.upstream)
        harness = self.harness(replace(FOUND, upstream=upstream)).start()
        self.learn("10.0.0.3")
        with capturedLogs() as logs:
            harness.clock.advance(5)
        self.assertEqual(
            [formatEvent(event) for event in logs if event["log_level"].name == "error"],
            ["a: the servers that were found cannot be used: 2 servers have the label '10.0.0.3': each must have its "
             "own"],
        )  # fmt: skip
        self.assertEqual(len(self.servers(harness)), 3)

    def test_reload(self) -> None:
        """
        A reload looks new servers up before it uses them. It changes nothing if that fails. Settings that change with
        servers that stay do not look them up again.
        """
        harness = self.harness(replace(A, upstream=("tcp:10.0.0.1:11211", "tcp:10.0.0.9:1"))).start()
        lines = self.successResultOf(harness.change(FOUND))
        self.assertEqual(lines[0], "pool a: upstream + dns:cache.example:11211")
        self.assertEqual(self.servers(harness), ["tcp:10.0.0.1:11211", "tcp:10.0.0.2:11211"])
        asked = len(self.resolver.asked)
        self.successResultOf(harness.change(replace(FOUND, requestTimeout=7.0, discoverInterval=2.0)))
        self.assertEqual((len(self.servers(harness)), len(self.resolver.asked)), (2, asked))
        wrong = replace(FOUND, upstream=("dns:nothing.example:1",))
        error = self.failureResultOf(harness.change(wrong), CannotChange).value
        self.assertEqual(str(error), "dns:nothing.example:1: the name has no address")
        self.assertEqual(len(self.servers(harness)), 2)
        self.successResultOf(harness.change(A))
        self.assertEqual(self.servers(harness), ["memory:"])
        harness.clock.advance(60)
        self.assertEqual(len(self.resolver.asked), asked + 2)

    def test_reconnect(self) -> None:
        """
        C{reconnect} of the console looks up the servers again. A failure is told, and the servers stay.
        """
        harness = self.harness().start()
        operations = Operations(harness.service)
        done = "pool a: connections are replaced, each when its successor is there"
        self.learn("10.0.0.7")
        self.assertEqual(self.successResultOf(operations.perform("reconnect", "a")), done)
        self.assertEqual(self.servers(harness), ["tcp:10.0.0.7:11211"])
        self.learn()
        self.assertEqual(
            self.successResultOf(operations.perform("reconnect", None)),
            f"dns:cache.example:11211: the name has no address; its servers stay\n{done}",
        )
        self.assertEqual(self.servers(harness), ["tcp:10.0.0.7:11211"])

    def test_restart(self) -> None:
        """
        A proxy that starts again still knows its servers.
        """
        harness = self.harness().start()
        finish(self, harness)
        self.silence()
        harness.start()
        self.assertEqual((self.reading(harness), len(self.servers(harness))), ([True], 2))

    def test_stopEarly(self) -> None:
        """
        A proxy can stop while its servers are looked up.
        """
        self.silence()
        harness = self.harness().start()
        finish(self, harness)
        self.assertEqual(harness.open, [])


class SentinelSource:
    """
    A stand-in for sentinels.

    @ivar hurried: how often they were to be asked soon.
    """

    def __init__(self, *args: object, **values: object) -> None:
        self.login: Any = None
        self.interval = 0.0
        self.replicas = False
        self.hurried = 0
        self.servers: tuple[Discovered, ...] = (Discovered("tcp:10.0.0.1:6379"),)

    def start(self, changed: Callable[[object], object]) -> None:
        self._changed = changed
        changed(self.servers)

    def lookUp(self) -> Deferred[tuple[Discovered, ...]]:
        return succeed(self.servers)

    def stop(self) -> None:
        pass

    def hurry(self) -> None:
        self.hurried += 1

    def become(self, endpoint: str, *replicas: str) -> None:
        """
        Name another master, and its replicas.
        """
        self.servers = (Discovered(endpoint), *(Discovered(each, REPLICA) for each in replicas))
        self._changed(self.servers)


class SentinelTests(SynchronousTestCase):
    """
    Tests for a proxy that follows the master of a Redis.
    """

    def test_master(self) -> None:
        """
        The server of the pool is the master, whoever it is at the moment. Failed dials are a reason to ask soon.
        """
        self.patch(Finder, "makeSource", SentinelSource)
        harness = ProxyHarness(replace(A, protocol="redis", upstream=("sentinel:cache@10.0.0.8",))).start()
        proxy = harness.proxy("a")
        (source,) = proxy.upstream.finder._sources.values()
        self.assertTrue(proxy.upstream.handshake.primary)
        for number in (1, 2, 1):
            source.become(f"tcp:10.0.0.{number}:6379")
            (row,) = Operations(harness.service).perform("rows", "servers", 9)
            self.assertEqual((row["server"], row["label"]), (f"tcp:10.0.0.{number}:6379", "master"))
            self.assertIn(row["server"], [each.server.name for each in proxy.pool.records if not each.doomed])
        before = source.hurried
        for record in proxy.pool.base.records:
            proxy.pool.base._attempts[record].fail(ServerUnavailable("it is a replica"))
        self.assertGreater(source.hurried, before)
        finish(self, harness)

    def test_replicas(self) -> None:
        """
        With C{read-from} the replicas are servers, too, and operators see the roles. A reload begins and ends that.
        """
        self.patch(Finder, "makeSource", SentinelSource)
        settings = replace(A, protocol="redis", upstream=("sentinel:cache@10.0.0.8",))
        harness = ProxyHarness(settings).start()
        proxy = harness.proxy("a")
        (source,) = proxy.upstream.finder._sources.values()
        one, two, three = (f"tcp:10.0.0.{number}:6379" for number in (1, 2, 3))

        def roles() -> dict[str, str]:
            rows = Operations(harness.service).perform("rows", "servers", 9)
            return {str(row["server"]): str(row["label"]) for row in rows}

        for readFrom in ("prefer-replica", "primary", "replica"):
            harness.change(replace(settings, readFrom=readFrom))
            reads = readFrom != "primary"
            self.assertEqual(source.replicas, reads)
            for master, other in ((one, two), (two, one)):
                source.become(master, *((other, three) if reads else ()))
                self.assertEqual(roles(), {master: "master", **({other: "replica", three: "replica"} if reads else {})})
                self.assertEqual(proxy.upstream.handshake.replicas, {other, three} if reads else set())
        finish(self, harness)
