# Copyright txconnpool contributors. See LICENSE.
"""
A console and a terminal for tests.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.settings import PoolSettings, Settings
from txconnpool.operate.console.commands import Target
from txconnpool.operate.console.protocol import ConsoleFactory
from txconnpool.operate.events import Events

A = PoolSettings(name="a")


class Running:
    """
    A proxy for the commands of a console.

    @ivar orders: the operations that were performed, with their arguments.
    @ivar answers: the results of operations by their names: a value, a Deferred, or an exception that is raised.
    @ivar reloaded: the result of a reload.
    """

    def __init__(self) -> None:
        self.settings = Settings(pools=(A,))
        self.orders: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {"rows": []}
        self.reloaded: Deferred[list[str]] = succeed([])

    def change(self, make: Any) -> Deferred[list[str]]:
        try:
            self.settings = make(self.settings)
        except Exception:
            return fail()
        return succeed(["one", "two"])

    def perform(self, *order: Any) -> Any:
        self.orders.append(order)
        answer = self.answers.get(order[0], "done")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def shutdown(self, now: bool) -> None:
        self.orders.append(("shutdown", now))

    def reload(self) -> Deferred[list[str]]:
        return self.reloaded


class Terminal(StringTransport):
    """
    The transport of a console, and the person at its other end.
    """

    def __init__(self, console: Any, host: str = "10.0.0.1") -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, 1))
        self.console = console
        self.closed = False
        console.makeConnection(self)
        self.greeting = self.value().decode()
        self.clear()

    def enter(self, *lines: str) -> str:
        """
        Type lines.

        @return: the replies that come at once.
        """
        self.clear()
        self.console.dataReceived("".join(f"{line}\n" for line in lines).encode())
        return self.turn()

    def turn(self) -> str:
        """
        Run the events that are due.

        @return: the replies since the last lines were typed.
        """
        for _ in range(10):
            self.console.factory.reactor.advance(0)
        text: str = self.value().decode()
        return text

    def hangUp(self) -> None:
        self.closed = True
        self.console.connectionLost(Failure(ConnectionDone()))


class ConsoleTestCase(SynchronousTestCase):
    """
    A console factory and its proxy.
    """

    password: bytes | None = None

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.running = Running()
        self.events = Events()
        target = Target(self.running, self.running.perform, self.running.reload, self.running.shutdown, self.events)
        self.factory = ConsoleFactory(target, self.reactor, self.password)
        self.terminals: list[Terminal] = []
        self.addCleanup(self._leave)

    def _leave(self) -> None:
        for terminal in self.terminals:
            if not terminal.closed:
                terminal.hangUp()
        self.factory.wrongPasswords.stop()
        self.assertEqual((self.reactor.getDelayedCalls(), self.factory.connections), ([], {}))

    def open(self, host: str = "10.0.0.1") -> Terminal:
        self.terminals.append(Terminal(self.factory.buildProtocol(None), host))
        return self.terminals[-1]

    def enter(self, *lines: str) -> str:
        """
        Type lines at a new console.

        @return: the replies.
        """
        return self.open().enter(*lines)
