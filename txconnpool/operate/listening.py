# -*- test-case-name: tests.operate.console.test_service,tests.operate.test_http -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Services for operators, which listen on one address.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort

from txconnpool.net.listening import raiseIfFailed
from txconnpool.operate.events import Events


class ListeningService(Service):
    """
    Listens while it runs, and collects recent events meanwhile.

    @ivar port: the listening port while it is open, or C{None}.
    @ivar events: the recent events of the log.
    """

    port: IListeningPort | None = None

    def __init__(self, events: Events) -> None:
        self.events = events

    def open(self) -> Deferred[IListeningPort]:
        """
        Open the listening port.

        @return: fires with the port.
        """
        raise NotImplementedError

    def privilegedStartService(self) -> None:
        """
        Listen.

        @raise CannotListenError: the address is taken, or is not one of this machine.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """
        Listen, unless L{privilegedStartService} has done that, and begin to collect events.
        """
        super().startService()
        self._listen()
        self.events.begin()

    def _listen(self) -> None:
        if self.port is None:
            raiseIfFailed(self.open()).addCallback(self._opened)

    def _opened(self, port: IListeningPort) -> None:
        self.port = port

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, and stop collecting events.

        @return: fires when the port is closed.
        """
        if self.running:
            self.events.end()
        super().stopService()
        port: Any
        port, self.port = self.port, None
        return maybeDeferred(port.stopListening) if port is not None else succeed(None)
