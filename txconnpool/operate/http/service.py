# -*- test-case-name: tests.operate.test_http -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The service that serves statistics over HTTP.

Everything here is read-only: it serves snapshots (L{txconnpool.operate.statistics.snapshot}) for GET and HEAD. While
the service runs, one timer takes the samples for the graphs of the status page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.net.listening import Listener
from txconnpool.operate.events import Events
from txconnpool.operate.http.pages import Pages, Source
from txconnpool.operate.http.server import HTTPFactory
from txconnpool.operate.listening import ListeningService
from txconnpool.operate.statistics.history import INTERVAL, History

_log = Logger("txconnpool.http")


class StatisticsService(ListeningService):
    """
    Serves statistics over HTTP.

    @ivar pages: makes the responses.
    @ivar history: the samples of the last minutes.
    @ivar lag: how late the last sample was, in seconds; C{None} before the first one.
    """

    def __init__(self, description: str, source: Source, reactor: Any, hosts: Sequence[str] = ()) -> None:
        """
        @param description: the address to listen on, a server endpoint string.
        @param source: returns the snapshots that are served.
        @param hosts: the names of this host.
        """
        super().__init__(Events())
        self.history = History()
        self.pages = Pages(source, self.history, self.events, reactor)
        self.lag: float | None = None
        self._endpoint = Listener(reactor, description)
        self._reactor = reactor
        self._timer: IDelayedCall | None = None
        self._due = 0.0
        self._factory = HTTPFactory(self.pages.respond, reactor, hosts)
        self.setName("statistics")

    def open(self) -> Deferred[IListeningPort]:
        """
        Open the listening port.
        """
        return self._endpoint.listen(self._factory)

    def startService(self) -> None:
        """
        Listen, unless C{privilegedStartService} has done that, and begin to collect samples and events.
        """
        super().startService()
        self.pages.setStopping(False)
        self._due = self._reactor.seconds()
        self._sample()

    def announceStop(self) -> None:
        """
        Let C{/healthz} say from now on that the proxy stops, so that balancers send it no more clients. Statistics are
        served until L{stopService}.
        """
        self.pages.setStopping(True)

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, and close all connections.

        @return: fires when no socket and no timer is left.
        """
        stopped = super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._factory.otherHosts.stop()
        return stopped.addCallback(lambda _: self._factory.close())

    def _sample(self) -> None:
        now = self._reactor.seconds()
        self.lag = max(0.0, now - self._due)
        self._due = now + INTERVAL
        self._timer = self._reactor.callLater(INTERVAL, self._sample)
        maybeDeferred(self.pages.source).addCallbacks(self.history.add, self._noSample)

    def _noSample(self, failure: Failure) -> None:
        if self.running:
            _log.failure("no statistics", failure)
