# -*- test-case-name: tests.real.test_discovery -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.discovery} with DNS servers and memcacheds with auto discovery, at the loopback interface.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol
from twisted.names import dns
from twisted.trial.unittest import TestCase

from tests.real.nameserver import AutoDiscovery, Zone, serveZone
from tests.real.servers import HOST
from txconnpool.net.discovery import Discovered, Discovery, DiscoveryFailed

reactor: Any = _reactor

#: Seconds that are enough for an answer.
SOON = 10.0


class Mute(DatagramProtocol):
    """
    A DNS server that hangs, or answers garbage.

    @ivar garbage: what it answers after the identifier of the question; C{None}: nothing.
    """

    noisy = False

    def __init__(self, garbage: bytes | None = None) -> None:
        self.garbage = garbage
        self.asked = 0

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.asked += 1
        if self.garbage is not None:
            transport: Any = self.transport
            transport.write(datagram[:2] + self.garbage, addr)


class DiscoveryCase(TestCase):
    """
    Tests that find servers with the real reactor.
    """

    def discover(self, line: str, **options: Any) -> Discovery:
        """
        Create a discovery, which is stopped at the end of the test.
        """
        discovery = Discovery(line, reactor, **{"timeLimit": SOON, **options})
        self.addCleanup(discovery.stop)
        return discovery

    async def find(self, line: str) -> list[str]:
        """
        Look servers up.

        @return: their server lines.
        """
        return [str(server) for server in await self.discover(line).lookUp()]

    def listen(self, port: IListeningPort) -> int:
        """
        Close a port at the end of the test.

        @return: its number.
        """
        self.addCleanup(port.stopListening)
        address: Any = port.getHost()
        number: int = address.port
        return number

    def opened(self) -> list[Any]:
        """
        @return: the open sockets for questions to DNS servers.
        """
        return [reader for reader in reactor.getReaders() if reader.logPrefix() == "DNS"]

    def changes(self, discovery: Discovery, count: int) -> Deferred[list[tuple[Discovered, ...]]]:
        """
        Start a discovery.

        @return: fires with its first changes.
        """
        seen: list[tuple[Discovered, ...]] = []
        enough: Deferred[list[tuple[Discovered, ...]]] = Deferred()

        def changed(servers: tuple[Discovered, ...]) -> None:
            seen.append(servers)
            if len(seen) == count:
                enough.callback(seen)

        discovery.start(changed)
        return enough.addTimeout(SOON, reactor)

    async def failing(self, discovery: Discovery) -> str:
        """
        Look servers up.

        @return: the text of the failure.
        """
        looking: Deferred[Any] = discovery.lookUp()
        return str(await self.assertFailure(looking, DiscoveryFailed))

    def until(self, condition: Any) -> Deferred[None]:
        """
        Wait until a condition is true.
        """
        waiting: Deferred[None] = Deferred()

        def check() -> None:
            if waiting.called:
                return
            if condition():
                waiting.callback(None)
            else:
                reactor.callLater(0.01, check)

        check()
        return waiting.addTimeout(SOON, reactor)


class DNSTests(DiscoveryCase):
    """
    Tests for C{dns:} and C{srv:}.
    """

    def setUp(self) -> None:
        """
        Start a DNS server.
        """
        self.zone = Zone()
        self.port = self.serve(self.zone)
        self.resolver = f"resolver={HOST}:{self.port}"

    def serve(self, zone: Zone) -> int:
        """
        Serve a zone until the end of the test.

        @return: the number of the port.
        """
        tcp, udp = serveZone(zone, reactor)
        self.listen(udp)
        return self.listen(tcp)

    async def test_addresses(self) -> None:
        """
        All addresses of both families are found.
        """
        self.zone.learn("cache.example", "10.0.0.2", "::1", "10.0.0.1")
        self.assertEqual(
            await self.find(f"dns:Cache.Example:11211 {self.resolver}"),
            ["tcp:10.0.0.1:11211 label=10.0.0.1", "tcp:10.0.0.2:11211 label=10.0.0.2", r"tcp:\:\:1:11211 label=::1"],
        )
        self.assertEqual(self.opened(), [])

    async def test_aliases(self) -> None:
        """
        A chain of CNAME records is followed.
        """
        self.zone.learn("c.example", "10.0.0.1", "::1")
        self.zone.records[b"a.example"] = [dns.Record_CNAME("b.example", 0)]
        self.zone.records[b"b.example"] = [dns.Record_CNAME("c.example", 0)]
        self.assertEqual(
            await self.find(f"dns:a.example:1 label=x-{{ip}} {self.resolver}"),
            ["tcp:10.0.0.1:1 label=x-10.0.0.1", r"tcp:\:\:1:1 label=x-::1"],
        )

    async def test_many(self) -> None:
        """
        An answer that does not fit into a datagram comes by TCP.
        """
        ips = [f"10.0.{number}.7" for number in range(250)]
        self.zone.learn("cache.example", *ips)
        found = await self.discover(f"dns:cache.example:1 {self.resolver}").lookUp()
        self.assertEqual([server.label for server in found], ips)

    async def test_services(self) -> None:
        """
        The SRV records with the best priority are found, with their weights.
        """
        self.zone.records[b"_m._tcp.example"] = [
            dns.Record_SRV(10, 30, 11211, "b.example", 0),
            dns.Record_SRV(10, 60, 11212, "a.example", 0),
            dns.Record_SRV(20, 60, 11211, "c.example", 0),
        ]
        self.assertEqual(
            await self.find(f"srv:_m._tcp.example {self.resolver}"),
            ["tcp:a.example:11212 weight=60", "tcp:b.example:11211 weight=30"],
        )

    async def test_changes(self) -> None:
        """
        With a TTL of 0 a change is noticed after a second, once.
        """
        self.zone.learn("cache.example", "10.0.0.1", "10.0.0.2")
        discovery = self.discover(f"dns:cache.example:1 {self.resolver}", interval=30)
        changes = self.changes(discovery, 2)
        await self.until(lambda: discovery.servers)
        self.zone.learn("cache.example", "10.0.0.3", "10.0.0.1")
        self.assertEqual(
            [[server.label for server in servers] for servers in await changes],
            [["10.0.0.1", "10.0.0.2"], ["10.0.0.1", "10.0.0.3"]],
        )

    async def test_noSuchName(self) -> None:
        """
        Servers stay when their name, or all of its addresses, disappear.
        """
        self.zone.learn("cache.example", "10.0.0.1")
        discovery = self.discover(f"dns:cache.example:1 {self.resolver}")
        await discovery.lookUp()
        for records in ({}, {b"cache.example": [dns.Record_TXT(b"x", ttl=0)]}):
            self.zone.records = records
            text = await self.failing(discovery)
            self.assertIn("the name has no address", text)
        self.assertEqual([server.label for server in discovery.servers], ["10.0.0.1"])

    async def test_brokenServers(self) -> None:
        """
        Servers that refuse, answer garbage or hang are left out.
        """
        self.zone.learn("cache.example", "10.0.0.1")
        garbage, mute = Mute(b"\x81\x80" + bytes([0xFF]) * 40), Mute()
        ports = [self.listen(reactor.listenUDP(0, each, interface=HOST)) for each in (garbage, mute)]
        closed = reactor.listenUDP(0, DatagramProtocol(), interface=HOST)
        ports.insert(0, closed.getHost().port)
        await closed.stopListening()
        resolver = ",".join(f"{HOST}:{port}" for port in (*ports, self.port))
        self.assertEqual(await self.find(f"dns:cache.example:1 resolver={resolver}"), ["tcp:10.0.0.1:1 label=10.0.0.1"])
        self.assertTrue(garbage.asked and mute.asked)

    async def test_hang(self) -> None:
        """
        A server that hangs makes a lookup fail in time. The next lookup asks again.
        """
        mute = Mute()
        port = self.listen(reactor.listenUDP(0, mute, interface=HOST))
        discovery = self.discover(f"dns:cache.example:1 resolver={HOST}:{port}", timeLimit=0.2)
        for _ in range(2):
            text = await self.failing(discovery)
            self.assertIn("no answer in time", text)
        self.assertEqual(self.opened(), [])
        await self.until(lambda: mute.asked == 4)

    async def test_stop(self) -> None:
        """
        A discovery that stops during a lookup leaves no socket and no timer.
        """
        port = self.listen(reactor.listenUDP(0, Mute(), interface=HOST))
        discovery = self.discover(f"dns:cache.example:1 resolver={HOST}:{port}")
        discovery.start(self.fail)
        looking: Deferred[Any] = discovery.lookUp()
        self.assertEqual(len(self.opened()), 2)
        discovery.stop()
        await self.assertFailure(looking, CancelledError)
        self.assertEqual(self.opened(), [])


class AutoDiscoveryTests(DiscoveryCase):
    """
    Tests for C{elasticache:}.
    """

    def setUp(self) -> None:
        """
        Start a memcached with auto discovery.
        """
        self.server = AutoDiscovery()
        self.server.nodes = ["b.example|10.0.0.2|11211", "a.example||11211"]
        self.line = f"elasticache:{HOST}:{self.listen(reactor.listenTCP(0, self.server, interface=HOST))}"

    async def test_nodes(self) -> None:
        """
        The nodes are found. The connection is closed.
        """
        self.assertEqual(
            await self.find(self.line), ["tcp:a.example:11211 label=a.example", "tcp:10.0.0.2:11211 label=b.example"]
        )
        await self.until(lambda: not self.server.connections)

    async def test_changes(self) -> None:
        """
        A change is noticed in the next interval.
        """
        discovery = self.discover(self.line, interval=0.05)
        changes = self.changes(discovery, 2)
        await self.until(lambda: discovery.servers)
        self.server.nodes.append("c.example|10.0.0.3|11212")
        self.assertEqual((await changes)[1][2], Discovered("tcp:10.0.0.3:11212", "c.example"))

    async def test_failures(self) -> None:
        """
        Nodes stay while the server answers something else, closes the connection or hangs. Then it is asked again.
        """
        discovery = self.discover(self.line, timeLimit=1.5)
        servers = await discovery.lookUp()
        for reply, text in (
            (b"ERROR\r\n", "has no list of a cluster"),
            (b"\0\xff\r\n" * 99, "not a reply of memcached"),
            (b"CONFIG cluster 0 3\r\n7\n\n\r\nEND\r\n", "is empty"),
            (b"", "closed the connection"),
            (b"CONFIG cluster 0 90\r\n7\na.exam", "no answer in time"),
        ):
            self.server.reply = reply
            self.assertIn(text, await self.failing(discovery))
        self.server.hangs = True
        self.assertIn("no answer in time", await self.failing(discovery))
        self.assertEqual(discovery.servers, servers)
        self.server.hangs, self.server.reply = False, None
        self.assertEqual(await discovery.lookUp(), servers)
        await self.until(lambda: not self.server.connections)

    async def test_stop(self) -> None:
        """
        A discovery that stops during a lookup closes the connection.
        """
        self.server.hangs = True
        discovery = self.discover(self.line)
        discovery.start(self.fail)
        looking: Deferred[Any] = discovery.lookUp()
        await self.until(lambda: self.server.connections)
        discovery.stop()
        await self.assertFailure(looking, CancelledError)
        await self.until(lambda: not self.server.connections)
