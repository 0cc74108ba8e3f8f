# -*- test-case-name: tests.real.test_discovery -*-
# Copyright txconnpool contributors. See LICENSE.
"""
DNS servers, and memcacheds with auto discovery, at the loopback interface.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.names import dns
from twisted.names.authority import FileAuthority
from twisted.names.server import DNSServerFactory

from tests.real.servers import HOST


class Zone(FileAuthority):
    """
    An authority for names of C{example}.

    @ivar records: the records by name. A test may change them.
    """

    soa: Any
    records: Any

    def __init__(self) -> None:
        super().__init__("")

    def loadFile(self, filename: str) -> None:
        """
        There is no file.
        """
        self.soa = (b"example", dns.Record_SOA(b"example", b"example", ttl=0))
        self.records = {}

    def learn(self, name: str, *ips: str, ttl: int = 0) -> None:
        """
        Replace the addresses of a name.
        """
        self.records[name.encode()] = [dns.Record_AAAA(ip, ttl) if ":" in ip else dns.Record_A(ip, ttl) for ip in ips]


def serveZone(zone: Zone, reactor: Any) -> tuple[Any, Any]:
    """
    Serve a zone by TCP and UDP at the same port.

    @return: both ports.
    """
    factory = DNSServerFactory(authorities=[zone])
    factory.noisy = False
    while True:
        tcp = reactor.listenTCP(0, factory, interface=HOST)
        try:
            return tcp, reactor.listenUDP(tcp.getHost().port, dns.DNSDatagramProtocol(factory), interface=HOST)
        except CannotListenError:
            tcp.stopListening()


class AutoDiscovery(Factory):
    """
    A memcached with auto discovery.

    @ivar nodes: what it lists.
    @ivar reply: what it answers instead of the list; an empty one closes the connection.
    @ivar hangs: whether it answers nothing.
    @ivar connections: the open connections.
    """

    noisy = False

    def __init__(self) -> None:
        self.nodes: list[str] = []
        self.reply: bytes | None = None
        self.hangs = False
        self.connections: set[_Listing] = set()

    def buildProtocol(self, addr: Any) -> Protocol:
        return _Listing(self)


class _Listing(Protocol):
    transport: Any

    def __init__(self, server: AutoDiscovery) -> None:
        self._server = server
        self._data = b""

    def connectionMade(self) -> None:
        self._server.connections.add(self)

    def connectionLost(self, reason: Any = None) -> None:
        self._server.connections.remove(self)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if self._data != b"config get cluster\r\n" or self._server.hangs:
            return
        config = b"7\n%s\n" % " ".join(self._server.nodes).encode()
        reply = self._server.reply
        if reply is None:
            reply = b"CONFIG cluster 0 %d\r\n%s\r\nEND\r\n" % (len(config), config)
        if reply:
            self.transport.write(reply)
        else:
            self.transport.loseConnection()
