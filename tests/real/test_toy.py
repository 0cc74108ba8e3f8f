# -*- test-case-name: tests.real.test_toy -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The toy dialect in the real proxy: on sockets of the loopback interface, with a reload.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.protocols.basic import NetstringReceiver
from twisted.trial.unittest import TestCase

from tests.toy import Toy, ToyServerFactory, netstring
from txconnpool.config.settings import PoolSettings
from txconnpool.proxy.listener import listenOn
from txconnpool.proxy.memory import BufferedBytes
from txconnpool.proxy.proxy import PoolProxy


class Client(NetstringReceiver):
    """
    A client that sends requests and collects as many frames as it expects.
    """

    transport: Any

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self._expected = 0
        self._arrived: Deferred[list[bytes]] | None = None

    def ask(self, *payloads: bytes, expected: int | None = None) -> Deferred[list[bytes]]:
        """
        @return: fires with the next frames, one for each request if no other number is expected.
        """
        self._expected = len(payloads) if expected is None else expected
        self._arrived = Deferred()
        self.transport.write(b"".join(map(netstring, payloads)))
        arrived = self._arrived
        self._check()
        return arrived

    def stringReceived(self, string: bytes) -> None:
        """
        Collect a frame.
        """
        self.frames.append(string)
        self._check()

    def _check(self) -> None:
        if self._arrived is not None and len(self.frames) >= self._expected:
            arrived, self._arrived = self._arrived, None
            frames, self.frames = self.frames[: self._expected], self.frames[self._expected :]
            arrived.callback(frames)


class ToyProxyTests(TestCase):
    """
    Tests for L{PoolProxy} with a dialect that no module of the package knows.
    """

    timeout = 20

    def setUp(self) -> None:
        """
        Start a server and the proxy before it.
        """
        from twisted.internet import reactor as installed

        self.reactor: Any = installed
        self.server = ToyServerFactory()
        self.dialect = Toy()
        listenTCP: Any = self.reactor.listenTCP
        upstream = listenTCP(0, self.server, interface="127.0.0.1")
        self.addCleanup(upstream.stopListening)
        self.settings = PoolSettings(
            upstream=(f"tcp:127.0.0.1:{upstream.getHost().port}",), listen=("tcp:0:interface=127.0.0.1",), poolSize=3
        )
        self.proxy = PoolProxy(
            self.settings,
            self.dialect,
            BufferedBytes(),
            itertools.count(1),
            5.0,
            self.reactor,
            listenOn(self.reactor),
            lambda *_: [],
        )  # fmt: skip
        self.proxy.startService()
        self.addCleanup(self.proxy.stopService)

    def connect(self) -> Deferred[Client]:
        """
        @return: fires with a new client of the proxy.
        """
        (listener,) = self.proxy.listeners.values()
        port: Any = listener.port
        client = Client()
        self.addCleanup(lambda: client.transport.abortConnection())
        connected: Deferred[Client] = connectProtocol(
            TCP4ClientEndpoint(self.reactor, "127.0.0.1", port.getHost().port), client
        )
        return connected

    async def test_everything(self) -> None:
        """
        Requests, a connection of its own, frames that no request asked for, and a reload.
        """
        client, other = await self.connect(), await self.connect()
        self.assertEqual(await client.ask(b"add a 1", b"nonsense", b"get a"), [b"1", b"-unknown command", b"1"])
        self.assertEqual(await client.ask(b"lock", b"add a 1"), [b"ok", b"2"])
        self.assertEqual(await other.ask(b"add a 1", b"get b"), [b"3", b"0"])
        self.assertEqual([each.locked for each in self.server.connections].count(True), 1)
        self.assertEqual(await client.ask(b"unlock", b"watch a"), [b"ok", b"ok"])
        self.assertEqual(await other.ask(b"add a 1"), [b"4"])
        self.assertEqual(await client.ask(b"unwatch", expected=2), [b"!a 4", b"ok"])
        self.dialect.limit(1 << 20, frozenset((b"add",)), None)
        self.assertEqual(await other.ask(b"add a 1", b"get a"), [b"-not allowed", b"4"])
        self.proxy.adjust(replace(self.settings, requestTimeout=1.0, poolSize=2), 5.0)
        self.assertEqual(await other.ask(b"add a 1", b"get a"), [b"5", b"5"])
