# -*- test-case-name: tests.operate.test_http -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The service that serves statistics over HTTP.

Everything here is read-only: it serves snapshots (L{txconnpool.operate.statistics.snapshot}) for GET and HEAD. While
the service runs, one timer takes the samples for the graphs of the status page.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request

from txconnpool.net.listening import Listener
from txconnpool.operate.events import Events
from txconnpool.operate.http.server import IDLE, Connections, FunctionResource, QuietSite, Response
from txconnpool.operate.listening import ListeningService
from txconnpool.operate.statistics.history import INTERVAL, History
from txconnpool.operate.statistics.prometheus import exposition
from txconnpool.operate.statistics.snapshot import Snapshot

_log = Logger("txconnpool.http")

#: Returns a L{Snapshot}, or a Deferred that fires with one.
Source = Callable[[], Any]

_JSON: Final = b"application/json"
_HTML: Final = b"text/html; charset=utf-8"
_PROMETHEUS: Final = b"text/plain; version=0.0.4; charset=utf-8"


def _toJSON(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _statusPage() -> tuple[bytes, bytes]:
    """
    @return: the status page, and a Content-Security-Policy that lets browsers run only the scripts in the page and send
        requests only to this server.
    """
    page = files("txconnpool.operate").joinpath("status.html").read_bytes()
    hashes = {}
    for element in (b"script", b"style"):
        (content,) = re.findall(b"<%s>(.*?)</%s>" % (element, element), page, re.DOTALL)
        hashes[element] = base64.b64encode(hashlib.sha256(content).digest())
    policy = (
        b"default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'; script-src 'sha256-%s'; style-src 'sha256-%s'"
    ) % (hashes[b"script"], hashes[b"style"])
    return page, policy


def health(snapshot: Snapshot, pool: str | None = None) -> tuple[int, dict[str, Any]]:
    """
    Decide whether clients should connect to this proxy.

    @param pool: the name of the only pool that counts; C{None}: it is enough that one of the pools is ready.

    @return: an HTTP status code, and the body as plain data.
    """
    states = {each["name"]: each["state"] for each in snapshot["pools"] if pool is None or each["name"] == pool}
    if not states and pool is not None:
        return 404, {"status": "unknown", "pools": {}}
    # A paused pool keeps requests for a moment, then answers them.
    for status in ("ready", "paused", "draining"):
        if status in states.values():
            return 503 if status == "draining" else 200, {"status": status, "pools": states}
    return 503, {"status": "down", "pools": states}


class StatisticsService(ListeningService):
    """
    Serves statistics over HTTP.

    @ivar source: returns the snapshots that are served.
    @ivar history: the samples of the last minutes.
    @ivar lag: how late the last sample was, in seconds; C{None} before the first one.
    """

    def __init__(self, description: str, source: Source, reactor: Any) -> None:
        """
        @param description: the address to listen on, a server endpoint string.
        """
        super().__init__(Events())
        self.source = source
        self.history = History()
        self.lag: float | None = None
        self._endpoint = Listener(reactor, description)
        self._reactor = reactor
        self._timer: IDelayedCall | None = None
        self._due = 0.0
        self._connections = Connections(QuietSite(self.resource(), reactor=reactor, timeout=IDLE))
        self.setName("statistics")

    # -- Life cycle

    def open(self) -> Deferred[IListeningPort]:
        """
        Open the listening port.
        """
        return self._endpoint.listen(self._connections)

    def startService(self) -> None:
        """
        Listen, unless C{privilegedStartService} has done that, and begin to collect samples and events.
        """
        super().startService()
        self._due = self._reactor.seconds()
        self._sample()

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, and close all connections.

        @return: fires when no socket and no timer is left.
        """
        stopped = super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return stopped.addCallback(lambda _: self._connections.close())

    def _sample(self) -> None:
        now = self._reactor.seconds()
        self.lag = max(0.0, now - self._due)
        self._due = now + INTERVAL
        self._timer = self._reactor.callLater(INTERVAL, self._sample)
        maybeDeferred(self.source).addCallbacks(self.history.add, self._noSample)

    def _noSample(self, failure: Failure) -> None:
        if self.running:
            _log.failure("no statistics", failure)

    # -- Resources

    def resource(self) -> Resource:
        """
        @return: the root resource, which an application may also put into a site of its own.
        """
        headers = {b"server": b"txconnpool", b"cache-control": b"no-store", b"x-content-type-options": b"nosniff"}
        page, policy = _statusPage()
        root = Resource()
        root.putChild(
            b"",
            FunctionResource(
                lambda request: (200, _HTML, page),
                {**headers, b"content-security-policy": policy, b"referrer-policy": b"no-referrer"},
            ),
        )
        for name, respond in (
            (b"metrics", self._prometheus),
            (b"stats.json", self._json),
            (b"healthz", self._health),
        ):
            root.putChild(name, FunctionResource(self._withSnapshot(respond), headers))
        return root

    def _withSnapshot(self, respond: Callable[[Snapshot, Request], Response]) -> Callable[[Request], Any]:
        return lambda request: maybeDeferred(self.source).addCallback(respond, request)

    def _prometheus(self, snapshot: Snapshot, request: Request) -> Response:
        return 200, _PROMETHEUS, exposition(snapshot).encode()

    def _json(self, snapshot: Snapshot, request: Request) -> Response:
        pools = [{**pool, "history": self.history.of(pool["name"])} for pool in snapshot["pools"]]
        cpu, events = self.history.cpu(), list(self.events.recent)
        return 200, _JSON, _toJSON({**snapshot, "cpu_history": cpu, "pools": pools, "events": events})

    def _health(self, snapshot: Snapshot, request: Request) -> Response:
        pool = request.args.get(b"pool", [b""])[0].decode(errors="replace") or None
        code, body = health(snapshot, pool)
        return code, _JSON, _toJSON(body) + b"\n"
