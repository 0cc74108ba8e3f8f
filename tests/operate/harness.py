# Copyright txconnpool contributors. See LICENSE.
"""
A proxy in memory for tests.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import MemoryReactorClock

from tests.pipes import Pipe
from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.operate.service import ProxyService
from txconnpool.proxy.listener import ClientListener
from txconnpool.proxy.proxy import PoolProxy

A = PoolSettings(name="a", upstream=("memory:",), listen=("tcp:1",))
B = PoolSettings(name="b", upstream=("memory:",), listen=("tcp:2", "tcp:3"))


class Port:
    """
    A listening port.

    @ivar reading: whether it accepts clients.
    """

    def __init__(self, description: str, listener: ClientListener) -> None:
        self.description = description
        self.listener = listener
        self.open = True
        self.reading = True

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True

    def stopListening(self) -> None:
        assert self.open
        self.open = False


class ProxyHarness:
    """
    A proxy in memory, whose listening ports accept the clients of a test.

    @ivar ports: all ports that were opened so far.
    @ivar taken: addresses that cannot be listened on, with the exception for each.
    @ivar later: addresses with the Deferreds that listening on them returns.
    """

    def __init__(self, *pools: PoolSettings, **settings: Any) -> None:
        self.clock = MemoryReactorClock()
        self.ports: list[Port] = []
        self.taken: dict[str, Exception] = {}
        self.later: dict[str, Deferred[Any]] = {}
        self.settings = Settings(pools=pools, **settings)
        self.service = ProxyService(self.settings, self.clock, self.listen)

    def listen(self, description: str, factory: Any) -> Deferred[Any]:
        if description in self.taken:
            return fail(self.taken[description])
        if description in self.later:
            return self.later[description]
        port = Port(description, factory)
        self.ports.append(port)
        return succeed(port)

    def start(self) -> ProxyHarness:
        """
        Start the proxy, and connect it to its servers.
        """
        self.service.privilegedStartService()
        self.service.startService()
        self.turns()
        return self

    def turns(self) -> None:
        """
        Run the events that are due.
        """
        for _ in range(10):
            self.clock.advance(0)

    @property
    def open(self) -> list[str]:
        """
        The addresses that are listened on.
        """
        return sorted(port.description for port in self.ports if port.open)

    def client(self, description: str) -> Pipe:
        """
        Connect a client to an address.
        """
        (listener,) = [port.listener for port in self.ports if port.open and port.description == description]
        return Pipe(self.clock).connect(listener.buildProtocol(None))

    def ask(self, client: Pipe, request: bytes) -> bytes:
        """
        @return: the reply to a client's request.
        """
        client.send(request)
        self.turns()
        return client.take()

    def change(self, *pools: PoolSettings, **settings: Any) -> Deferred[list[str]]:
        """
        Put other settings in force.
        """
        changed = self.service.change(lambda old: Settings(pools=pools, **settings))
        self.turns()
        return changed

    def proxy(self, name: str) -> PoolProxy:
        """
        @return: the proxy of a pool.
        """
        (proxy,) = [proxy for proxy in self.service.proxies if proxy.name == name]
        return proxy
