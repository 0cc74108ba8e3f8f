# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.addresses}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.pools import Reactor, Server
from txconnpool.net.addresses import endpointOf


class EndpointOfTests(SynchronousTestCase):
    """
    Tests for L{endpointOf}.
    """

    def check(self, address: Any, name: str, kind: type) -> MemoryReactorClock:
        """
        Assert the name and the class of the endpoint of an address, and connect it.

        @return: the reactor of the endpoint.
        """
        reactor = MemoryReactorClock()
        found, endpoint = endpointOf(address, reactor)
        self.assertEqual(found, name)
        self.assertIsInstance(endpoint, kind)
        endpoint.connect(Factory.forProtocol(Protocol))
        return reactor

    def test_addresses(self) -> None:
        """
        An address object becomes an endpoint that connects to it.
        """
        reactor = self.check(IPv4Address("TCP", "127.0.0.1", 11211), "tcp:127.0.0.1:11211", TCP4ClientEndpoint)
        self.assertEqual(reactor.tcpClients[0][:2], ("127.0.0.1", 11211))
        reactor = self.check(IPv6Address("TCP", "::1", 11211), "tcp6:[::1]:11211", TCP6ClientEndpoint)
        self.assertEqual(reactor.tcpClients[0][:2], ("::1", 11211))
        reactor = self.check(UNIXAddress("/run/x.sock"), "unix:/run/x.sock", UNIXClientEndpoint)
        self.assertEqual(reactor.unixClients[0][0], "/run/x.sock")

    def test_hostAndPort(self) -> None:
        """
        A host name and a port become an endpoint that connects to it.
        """
        reactor = self.check(("cache.example", 11211), "tcp:cache.example:11211", TCP4ClientEndpoint)
        self.assertEqual(reactor.tcpClients[0][:2], ("cache.example", 11211))

    def test_string(self) -> None:
        """
        An endpoint string is parsed as Twisted does.
        """
        reactor = self.check("unix:/run/y.sock", "unix:/run/y.sock", UNIXClientEndpoint)
        self.assertEqual(reactor.unixClients[0][0], "/run/y.sock")
        self.check("tcp:h:1:timeout=3", "tcp:h:1", TCP4ClientEndpoint)

    def test_endpoint(self) -> None:
        """
        An endpoint is used as it is. Its name is its C{repr}, or that of its class if C{repr} shows only an id.
        """
        server = Server(Reactor(), "mine")
        self.assertEqual(endpointOf(server, None), ("mine", server))
        endpoint = TCP4ClientEndpoint(MemoryReactorClock(), "h", 1)
        self.assertEqual(endpointOf(endpoint, None), ("TCP4ClientEndpoint", endpoint))

    def test_wrong(self) -> None:
        """
        Any other value is an error that shows the value and the forms that are accepted.
        """
        wrongs: tuple[Any, ...] = (None, 11211, ("host",), ("host", "11211"), ("host", 1, 2), UNIXAddress(None), [])
        for wrong in wrongs:
            text = str(self.assertRaises(ValueError, endpointOf, wrong, None))
            self.assertIn(repr(wrong), text)
            self.assertIn("(host, port)", text)

    def test_wrongString(self) -> None:
        """
        A string that is no endpoint string is a L{ValueError}, whichever exception Twisted raises.
        """
        for wrong in ("nosuch:1", "tcp:1:2:3:4:5:6", "unix"):
            self.assertRaises(ValueError, endpointOf, wrong, MemoryReactorClock())
