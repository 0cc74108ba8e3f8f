# -*- test-case-name: tests.operate.console.test_service -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The listener of the console.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort

from txconnpool.config.credentials import SecretFile
from txconnpool.net.listening import Listener
from txconnpool.operate.console.commands import Target
from txconnpool.operate.console.protocol import ConsoleFactory
from txconnpool.operate.listening import ListeningService


class ConsoleService(ListeningService):
    """
    Listens for consoles.
    """

    def __init__(self, endpoint: str, target: Target, reactor: Any, passwordFile: str | None = None) -> None:
        """
        @param endpoint: a server endpoint string.
        @param passwordFile: the path of a file whose first line is the password that a console must be given first, or
            C{None}.
        """
        super().__init__(target.events)
        self._endpoint = withMode(endpoint)
        self._reactor = reactor
        self._factory = ConsoleFactory(target, reactor)
        self._passwordFile = passwordFile

    def open(self) -> Deferred[IListeningPort]:
        """
        Read the password, and open the listening port.
        """
        if self._passwordFile is not None:
            self._factory.demand(SecretFile.read(self._passwordFile))
        return Listener(self._reactor, self._endpoint).listen(self._factory)

    @property
    def listening(self) -> bool:
        """
        Whether the port is open.
        """
        return self.port is not None

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, and close the consoles.

        @return: fires when no socket and no timer is left.
        """
        stopped = super().stopService()
        closed = self._factory.close()
        self._factory.wrongPasswords.stop()
        return stopped.addCallback(lambda _: closed)


def withMode(endpoint: str) -> str:
    """
    Add C{mode=600} to the endpoint string of a UNIX socket that has no mode. Twisted's default lets every user connect.
    """
    if endpoint.startswith("unix:") and not re.search(":mode=[0-7]", endpoint):
        endpoint += ":mode=600"
    return endpoint
