# -*- test-case-name: tests.real.test_found -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for a proxy whose servers are looked up, and change while clients are connected.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.real.nameserver import AutoDiscovery, Zone, serveZone
from tests.real.operated import rows
from tests.real.servers import (
    HOST,
    PATIENT_OPTIONS,
    Memcached,
    Twistd,
    ask,
    connect,
    exchange,
    freePort,
    missing,
    serverEndpoint,
    until,
)

reactor: Any = _reactor

KEYS = [f"key:{number}" for number in range(200)]


class FoundTests(TestCase):
    """
    Tests for C{dns:} and C{elasticache:} in C{upstream}. The servers that answer to lookups run in the reactor, and the
    tests in a thread.
    """

    skip = missing("memcached")
    timeout = 120

    def setUp(self) -> None:
        """
        Start a DNS server, and choose a port for all memcacheds.
        """
        self.zone = Zone()
        tcp, udp = serveZone(self.zone, reactor)
        self.addCleanup(tcp.stopListening)
        self.addCleanup(udp.stopListening)
        self.port = freePort()
        self.line = f"dns:cache.example:{self.port} resolver={HOST}:{tcp.getHost().port}"
        self.clients: list[socket.socket] = []

    def memcached(self, ip: str) -> None:
        server = Memcached("-t", "1", address=(ip, self.port))
        self.addCleanup(server.kill)
        server.start()

    def proxy(self, *upstream: str, workers: int = 1, interval: float = 30.0) -> Twistd:
        """
        Start a proxy.
        """
        address = (HOST, freePort())
        options = [option for line in upstream for option in ("--upstream", line)]
        options += [
            *PATIENT_OPTIONS,
            "--listen",
            serverEndpoint(address),
            "--workers",
            f"{workers}",
            "--discover-interval",
            f"{interval}",
        ]
        proxy = Twistd(*options, plugin="connpool", address=address)
        proxy.options = (*proxy.options, "--admin", f"unix:{proxy.directory}/admin.sock")
        self.addCleanup(proxy.stop)
        return proxy.start()

    def work(self, proxy: Twistd) -> None:
        """
        Let all clients, which stay connected, store and read values. None of their requests may fail.
        """
        for number, client in enumerate(self.clients):
            for key in KEYS[number :: len(self.clients)]:
                reply = exchange(client, f"set {key} 0 0 1\r\nx\r\nget {key} {key}:missing\r\n".encode(), b"END\r\n")
                self.assertEqual(reply, f"STORED\r\nVALUE {key} 0 1\r\nx\r\nEND\r\n".encode(), proxy.log)

    def assertSameKeys(self, proxy: Twistd, *ips: str) -> None:
        """
        Assert that the keys are where a proxy with a list of these servers looks for them.
        """
        listed = self.proxy(*(f"tcp:{ip}:{self.port} label={ip}" for ip in ips))
        with connect(listed.address) as client:
            for key in KEYS:
                value = exchange(client, f"get {key}\r\n".encode(), b"END\r\n")
                self.assertEqual(value, f"VALUE {key} 0 1\r\nx\r\nEND\r\n".encode())
        self.assertEqual(
            [row["server"] for row in rows(f"{proxy.directory}/admin.sock", "servers")],
            [f"tcp:{ip}:{self.port}" for ip in ips],
        )
        listed.stop()

    def change(self, proxy: Twistd, workers: int, line: str, *ips: str) -> None:
        """
        Change the addresses, and let the clients work until all workers have logged a line.
        """
        self.zone.learn("cache.example", *ips)
        before = proxy.log.count(line)

        def changed() -> bool:
            self.work(proxy)
            return proxy.log.count(line) >= before + workers

        until(changed, what=line)
        self.work(proxy)
        self.assertSameKeys(proxy, *ips)

    def _changes(self, workers: int) -> None:
        one, two, three = "127.0.0.1", "127.0.0.2", "127.0.0.3"
        for ip in (one, two, three):
            self.memcached(ip)
        self.zone.learn("cache.example", one, two)
        proxy = self.proxy(self.line, workers=workers)
        self.clients += [connect(proxy.address) for _ in range(8)]
        for client in self.clients:
            self.addCleanup(client.close)
        self.work(proxy)
        self.assertSameKeys(proxy, one, two)
        self.change(proxy, workers, f"pool default: upstream + tcp:{three}:{self.port} label={three}", one, two, three)
        self.change(proxy, workers, f"pool default: upstream - tcp:{one}:{self.port} label={one}", two, three)
        self.zone.records = {}
        until(lambda: proxy.log.count("the name has no address") >= workers, what="the failure")
        self.work(proxy)
        self.assertEqual(proxy.log.count("of the keys have another server now"), 2 * workers)

    def test_changes(self) -> Deferred[None]:
        """
        Servers are added and removed while clients are connected, and no request fails. All keys are where they are
        with a list of the same servers.
        """
        return deferToThread(self._changes, 1)

    def test_workers(self) -> Deferred[None]:
        """
        Each worker finds the servers itself.
        """
        return deferToThread(self._changes, 2)

    def _late(self) -> None:
        proxy = self.proxy(self.line)
        with connect(proxy.address) as client:
            self.assertEqual(exchange(client, b"get a\r\n", b"\r\n"), b"SERVER_ERROR the pool has no servers\r\n")
            self.memcached("127.0.0.2")
            self.zone.learn("cache.example", "127.0.0.2")
            until(lambda: "upstream + tcp:127.0.0.2" in proxy.log, what="the server")
            until(lambda: exchange(client, b"get a\r\n", b"\r\n") == b"END\r\n", what="an answer")

    def test_late(self) -> Deferred[None]:
        """
        A proxy starts without servers, and uses them when they are found. The client stays connected.
        """
        return deferToThread(self._late)

    def _cluster(self, cluster: AutoDiscovery, port: int) -> None:
        for ip in ("127.0.0.1", "127.0.0.2"):
            self.memcached(ip)
        cluster.nodes = [f"a.example|127.0.0.1|{self.port}"]
        proxy = self.proxy(f"elasticache:{HOST}:{port}", interval=0.2)
        admin = f"{proxy.directory}/admin.sock"
        self.assertEqual(ask(proxy.address, b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")
        self.assertEqual(len(rows(admin, "servers")), 1)
        cluster.nodes.append(f"b.example|127.0.0.2|{self.port}")
        until(lambda: len(rows(admin, "servers")) == 2, what="the other node")
        self.assertIn(f"upstream + tcp:127.0.0.2:{self.port} label=b.example", proxy.log)

    def test_cluster(self) -> Deferred[None]:
        """
        The nodes that a memcached lists are the servers.
        """
        cluster = AutoDiscovery()
        port = reactor.listenTCP(0, cluster, interface=HOST)
        self.addCleanup(port.stopListening)
        return deferToThread(self._cluster, cluster, port.getHost().port)
