# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.console.service}.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import ILoggingContext
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.bugs import covers
from tests.operate.consoles import Running, Terminal
from txconnpool.operate.console.commands import Target
from txconnpool.operate.console.service import ConsoleService, withMode
from txconnpool.operate.events import Events


class ConsoleServiceTests(SynchronousTestCase):
    """
    Tests for L{ConsoleService}.
    """

    def service(self, endpoint: str) -> tuple[ConsoleService, MemoryReactorClock]:
        reactor = MemoryReactorClock()
        running = Running()
        target = Target(running, running.perform, running.reload, running.shutdown, Events())
        return ConsoleService(endpoint, target, reactor), reactor

    @covers("28")
    def test_withMode(self) -> None:
        """
        A UNIX socket has the mode 600 unless the string has another.
        """
        for endpoint, expected in (
            ("unix:/x", "unix:/x:mode=600"),
            ("unix:/x:mode=660", "unix:/x:mode=660"),
            ("unix:/x:lockfile=0", "unix:/x:lockfile=0:mode=600"),
            ("tcp:1", "tcp:1"),
        ):
            self.assertEqual(withMode(endpoint), expected)

    def test_life(self) -> None:
        """
        The service listens once, when it starts. A stop closes the port and the consoles.
        """
        service, reactor = self.service("unix:/tmp/admin")
        verifyObject(IService, service)
        self.assertFalse(service.listening)
        service.privilegedStartService()
        service.startService()
        self.assertTrue(service.listening)
        Logger(namespace="txconnpool.test").info("heard")
        ((address, factory, _, mode, _),) = reactor.unixServers
        self.assertEqual((address, mode, ILoggingContext(factory).logPrefix()), ("/tmp/admin", 0o600, "console"))
        terminal = Terminal(factory.buildProtocol(None))
        stopped = service.stopService()
        Logger(namespace="txconnpool.test").info("not heard")
        self.assertEqual([event["text"] for event in service.events.recent], ["heard"])
        self.assertTrue(terminal.disconnecting)
        self.assertFalse(service.listening)
        self.assertNoResult(stopped)
        terminal.hangUp()
        self.successResultOf(stopped)
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_notStarted(self) -> None:
        """
        A service that has not started can be stopped.
        """
        service, _ = self.service("unix:/tmp/admin")
        self.successResultOf(service.stopService())

    def test_cannotListen(self) -> None:
        """
        The error of an address that is taken is raised by the start.
        """
        service, reactor = self.service("tcp:1")

        def listenTCP(*args: Any, **kwargs: Any) -> Any:
            raise CannotListenError("", 1, OSError("taken"))

        self.patch(reactor, "listenTCP", listenTCP)
        self.assertRaises(CannotListenError, service.privilegedStartService)
