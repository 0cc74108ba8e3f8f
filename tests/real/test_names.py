# -*- test-case-name: tests.real.test_names -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the lookup of names with the real reactor and its threads.
"""

from __future__ import annotations

import socket
from threading import Event
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from tests.net.test_names import info
from txconnpool.net import names
from txconnpool.net.endpoints import clientEndpoint
from txconnpool.net.names import Names

reactor: Any = _reactor


class NamedTests(TestCase):
    """
    Tests for endpoints with names, some of which hang.
    """

    def setUp(self) -> None:
        """
        Replace C{getaddrinfo}: names that begin with C{hangs} hang until the end of the test.
        """
        self.known = {"both.example": ("::1", "127.0.0.1"), "six.example": ("::1",), "four.example": ("127.0.0.1",)}
        self.over = Event()
        self.addCleanup(self.over.set)
        self.patch(names, "_names", {reactor: Names(reactor, 5, self.getaddrinfo)})

    def getaddrinfo(self, host: str, *others: Any) -> list[Any]:
        if host.startswith("hangs"):
            self.over.wait(30)
        if host not in self.known:
            raise socket.gaierror(-2, "Name or service not known")
        return info(*self.known[host])

    def listen(self, interface: str) -> int:
        """
        Listen at a port that is free in the other family too, and hold it there, so that no other program listens.
        """
        family, address = (socket.AF_INET, "127.0.0.1") if ":" in interface else (socket.AF_INET6, "::1")
        while True:
            port = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface=interface)
            self.addCleanup(port.stopListening)
            number: int = port.getHost().port
            held = socket.socket(family)
            self.addCleanup(held.close)
            try:
                held.bind((address, number))
            except OSError:
                continue
            return number

    def connect(self, host: str, port: int) -> Deferred[Any]:
        connecting: Deferred[Any] = clientEndpoint(reactor, f"tcp:{host}:{port}").connect(Factory.forProtocol(Protocol))
        return connecting

    async def peer(self, host: str, port: int) -> str:
        """
        Connect, and close the connection.

        @return: the address of the server.
        """
        protocol = await self.connect(host, port)
        address: str = protocol.transport.getPeer().host
        protocol.transport.abortConnection()
        return address

    async def test_families(self) -> None:
        """
        Names with addresses of one family or both are connected to, whichever the server has.
        """
        four, six = self.listen("127.0.0.1"), self.listen("::1")
        self.assertEqual(await self.peer("four.example", four), "127.0.0.1")
        self.assertEqual(await self.peer("six.example", six), "::1")
        self.assertEqual(await self.peer("both.example", six), "::1")
        self.assertEqual(await self.peer("both.example", four), "127.0.0.1")

    async def test_noSuchName(self) -> None:
        """
        A name that does not exist is a failure.
        """
        error = await self.assertFailure(self.connect("nowhere.example", 1), DNSLookupError)
        self.assertIn("nowhere.example: Name or service not known", str(error))

    async def test_hang(self) -> None:
        """
        Thirty names that hang do not keep others from being found. Cancelling leaves no timer.
        """
        port = self.listen("127.0.0.1")
        hanging = [self.connect(f"hangs-{number}.example", port) for number in range(30) for _ in range(2)]
        self.assertEqual(await self.peer("four.example", port), "127.0.0.1")
        for each in hanging:
            self.assertFalse(each.called)
            each.cancel()
            await self.assertFailure(each, CancelledError)
