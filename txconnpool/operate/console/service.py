# -*- test-case-name: tests.operate.console.test_service -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The listener of the console.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort

from txconnpool.config.credentials import SecretFile
from txconnpool.net.listening import Listener, raiseIfFailed
from txconnpool.operate.console.commands import Target
from txconnpool.operate.console.protocol import ConsoleFactory


class ConsoleService(Service):
    """
    Listens for consoles.

    @ivar events: the recent events, which are collected while this service runs.
    """

    def __init__(self, endpoint: str, target: Target, reactor: Any, passwordFile: str | None = None) -> None:
        """
        @param endpoint: a server endpoint string.
        @param passwordFile: the path of a file whose first line is the password that a console must be given first, or
            C{None}.
        """
        self.events = target.events
        self._endpoint = withMode(endpoint)
        self._reactor = reactor
        self._factory = ConsoleFactory(target, reactor)
        self._passwordFile = passwordFile
        self._port: Any = None

    def privilegedStartService(self) -> None:
        """
        Listen.

        @raise CannotListenError: the address is taken, or is not one of this machine.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """
        Listen, unless L{privilegedStartService} has done that.
        """
        super().startService()
        self._listen()
        self.events.begin()

    def _listen(self) -> None:
        if self._port is None:
            if self._passwordFile is not None:
                self._factory.password = SecretFile.read(self._passwordFile)
            raiseIfFailed(Listener(self._reactor, self._endpoint).listen(self._factory)).addCallback(self._opened)

    def _opened(self, port: IListeningPort) -> None:
        self._port = port

    @property
    def listening(self) -> bool:
        """
        Whether the port is open.
        """
        return self._port is not None

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, and close the consoles.

        @return: fires when the port is closed.
        """
        if self.running:
            self.events.end()
        super().stopService()
        port, self._port = self._port, None
        for console in list(self._factory.consoles):
            console.end()
        return maybeDeferred(port.stopListening) if port is not None else succeed(None)


def withMode(endpoint: str) -> str:
    """
    Add C{mode=600} to the endpoint string of a UNIX socket that has no mode. Twisted's default lets every user connect.
    """
    if endpoint.startswith("unix:") and not re.search(":mode=[0-7]", endpoint):
        endpoint += ":mode=600"
    return endpoint
