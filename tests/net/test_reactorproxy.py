# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.reactorproxy}.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.net.reactorproxy import OpenPort, ReactorProxy


class ReactorProxyTests(SynchronousTestCase):
    """
    Tests for L{ReactorProxy}.
    """

    def test_ports(self) -> None:
        """
        All calls that open ports are intercepted, and may get another factory.
        """
        reactor, other = MemoryReactorClock(), Factory()
        factories: list[Any] = []

        def intercept(factory: Any, openPort: OpenPort) -> Any:
            factories.append(factory)
            return openPort(other)

        proxy = ReactorProxy(reactor, intercept)
        ours = [Factory(), Factory(), Factory()]
        proxy.listenTCP(1, ours[0], backlog=5, interface="127.0.0.1")
        proxy.listenUNIX("/run/x", ours[1], mode=0o600)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = proxy.adoptStreamPort(server.fileno(), socket.AF_INET, ours[2])
        self.assertEqual(factories, ours)
        self.assertEqual(reactor.tcpServers, [(1, other, 5, "127.0.0.1")])
        self.assertEqual([(each[0], each[1], each[3]) for each in reactor.unixServers], [("/run/x", other, 0o600)])
        self.assertIsNotNone(port)

    def test_notOpened(self) -> None:
        """
        The interceptor need not open a port.
        """
        reactor = MemoryReactorClock()
        endpoint = serverFromString(ReactorProxy(reactor, lambda factory, openPort: "no port"), "tcp:1")
        self.assertEqual(self.successResultOf(endpoint.listen(Factory())), "no port")
        self.assertEqual(reactor.tcpServers, [])

    def test_forwarded(self) -> None:
        """
        All other calls are forwarded to the reactor.
        """
        reactor = MemoryReactorClock()
        proxy = ReactorProxy(reactor)
        proxy.callLater(5, list)
        self.assertEqual(len(reactor.getDelayedCalls()), 1)
        proxy.listenTCP(1, Factory())
        self.assertEqual(len(reactor.tcpServers), 1)
