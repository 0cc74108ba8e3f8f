# -*- test-case-name: tests.operate.test_http -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Statistics over HTTP: for Prometheus, as JSON, for health checks, and as a page for people.

Everything here reads snapshots (L{txconnpool.operate.statistics}) and changes nothing; there is nothing to send here
but GET and HEAD. The pasts that the page draws are kept by one timer, which runs only where there is such a server.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from txconnpool.net.endpoints import Listener, raised
from txconnpool.operate import statistics as report
from txconnpool.operate.events import Events

_log = Logger("txconnpool.http")

#: Seconds between two samples, and how many of them are kept: five minutes.
INTERVAL: Final = 2.0
SAMPLES: Final = 150

#: HTTP connections, at most: people and scrapers are few.
CONNECTIONS: Final = 50

#: Seconds after which an HTTP connection without a request is closed.
IDLE: Final = 30.0

#: Gives a snapshot, now or later.
Source = Callable[[], Any]


def estimate(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """
    Estimate a quantile from a histogram, as if the values in a bucket were spread evenly.

    @param share: from 0 to 1.
    @return: C{None} when nothing was counted, the highest bound when it lies above that.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    seen = 0
    for low, high, count in zip((0.0, *bounds), bounds, counts, strict=False):
        if count and seen + count >= rank:
            return low + (high - low) * (rank - seen) / count
        seen += count
    return bounds[-1]


class History:
    """
    The last minutes of each pool, as the page draws them.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float, dict[str, dict[str, Any]]] | None = None
        self._cpu: deque[float] = deque(maxlen=SAMPLES)
        self._points: deque[dict[str, dict[str, Any]]] = deque(maxlen=SAMPLES)

    def add(self, told: dict[str, Any]) -> None:
        """
        Keep what has happened between the last snapshot and this one, as far as it is drawn.
        """
        time, used = told["time"], told["cpu_seconds"]
        pools = {pool["name"]: _drawn(pool) for pool in told["pools"]}
        last, self._last = self._last, (time, used, pools)
        if last is None:
            return
        since, before, known = last
        span = max(time - since, 0.001)
        self._cpu.append(round(max(0.0, used - before) / span, 4))
        at = round(time, 1)
        self._points.append({
            name: {"time": at, **_point(known[name], pool, span)} for name, pool in pools.items() if name in known
        })  # fmt: skip

    def of(self, pool: str) -> dict[str, list[Any]]:
        """
        The past of a pool: for each C{time} when a sample ended, C{requests} and C{errors} in a second, seconds that
        half of the requests took at most (C{p50}) and 99 of 100 (C{p99}), how many were C{in_flight} and C{waiting} on
        average, and how many C{sessions} there were.
        """
        points = [each[pool] for each in self._points if pool in each]
        return {name: [point[name] for point in points] for name in _DRAWN}

    def cpu(self) -> list[float]:
        """
        Shares of a processor that were used, for each sample.
        """
        return list(self._cpu)


_DRAWN: Final = ("time", "requests", "errors", "p50", "p99", "in_flight", "waiting", "sessions")


def _drawn(pool: dict[str, Any]) -> dict[str, Any]:
    return {
        "requests": sum(pool["requests"].values()),
        "errors": sum(pool["request_errors"].values()) + sum(pool["failed_requests"].values()),
        "latency": pool["latency_seconds"],
        "waits": pool["wait_seconds"]["sum"],
        "sessions": pool["sessions"],
    }


def _point(before: dict[str, Any], after: dict[str, Any], span: float) -> dict[str, Any]:
    """
    What happened between two samples. A worker that was replaced has begun to count anew.
    """
    latency = after["latency"]
    counts = [max(0, new - old) for new, old in zip(latency["counts"], before["latency"]["counts"], strict=True)]
    p50, p99 = (estimate(latency["bounds"], counts, share) for share in (0.5, 0.99))
    return {
        "requests": round(max(0, after["requests"] - before["requests"]) / span, 1),
        "p50": None if p50 is None else round(p50, 7),
        "p99": None if p99 is None else round(p99, 7),
        "errors": round(max(0, after["errors"] - before["errors"]) / span, 2),
        # Little's law: what all of them took together, in a second, is how many there were at once, on average.
        "in_flight": round(max(0.0, latency["sum"] - before["latency"]["sum"]) / span, 4),
        "waiting": round(max(0.0, after["waits"] - before["waits"]) / span, 4),
        "sessions": after["sessions"],
    }


# -- HTTP

#: What is answered: a code, a type and a body.
Answer = tuple[int, bytes, bytes]

_TEXT: Final = b"text/plain; charset=utf-8"
_JSON: Final = b"application/json"
_HTML: Final = b"text/html; charset=utf-8"
_PROMETHEUS: Final = b"text/plain; version=0.0.4; charset=utf-8"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _page() -> tuple[bytes, bytes]:
    """
    @return: the page, and a policy by which browsers run nothing but what is in it and ask nobody but us.
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


class _Request(Request):
    """
    Nobody has anything to send here.
    """

    def handleContentChunk(self, data: bytes) -> None:
        """
        Forget it.
        """


class Answering(Resource):
    """
    A resource that answers GET and HEAD with what a function gives, now or later.
    """

    def __init__(self, answer: Callable[[Request], Any], headers: dict[bytes, bytes]) -> None:
        super().__init__()
        self._answer = answer
        self._headers = headers

    def render_GET(self, request: Request) -> int:
        """
        Answer.
        """
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)

        def write(answer: Answer) -> None:
            if gone:
                return
            code, kind, body = answer
            request.setResponseCode(code)
            for name, value in {b"content-type": kind, b"content-length": b"%d" % len(body), **self._headers}.items():
                request.setHeader(name, value)
            if request.method != b"HEAD":
                request.write(body)
            request.finish()

        def failed(failure: Failure) -> Answer:
            _log.failure("no statistics", failure)
            return 503, _TEXT, b"no statistics at the moment: the log tells why\n"

        maybeDeferred(self._answer, request).addErrback(failed).addCallback(write)
        return NOT_DONE_YET


class _Site(Site):
    """
    Without an access log, and the clock it needs: a page that is left open would fill it.
    """

    requestFactory = _Request
    noisy = False

    def startFactory(self) -> None:
        """
        There is nothing to start.
        """

    def stopFactory(self) -> None:
        """
        There is nothing to stop.
        """

    def log(self, request: Any) -> None:
        """
        Say nothing.
        """


class _Connections(WrappingFactory):
    """
    Knows the HTTP connections, to bound and to close them.
    """

    noisy = False

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._empty: list[Deferred[None]] = []

    def buildProtocol(self, addr: Any) -> Any:
        """
        @return: a new connection; C{None}, which closes it, if there are too many.
        """
        return super().buildProtocol(addr) if len(self.protocols) < CONNECTIONS else None

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        """
        A connection has ended.
        """
        super().unregisterProtocol(p)
        if not self.protocols:
            waiting, self._empty = self._empty, []
            for empty in waiting:
                empty.callback(None)

    def close(self) -> Deferred[None]:
        """
        Close them all.

        @return: fires when there is none.
        """
        if not self.protocols:
            return succeed(None)
        empty: Deferred[None] = Deferred()
        self._empty.append(empty)
        for connection in list(self.protocols):
            connection.transport.abortConnection()
        return empty


def health(told: dict[str, Any], pool: str | None = None) -> tuple[int, dict[str, Any]]:
    """
    Say whether clients should be sent here.

    @param told: a snapshot.
    @param pool: the only pool that counts; C{None}: any that is ready will do.

    @return: an HTTP status code, and what to say.
    """
    states = {each["name"]: each["state"] for each in told["pools"] if pool is None or each["name"] == pool}
    if not states and pool is not None:
        return 404, {"status": "unknown", "pools": {}}
    # A paused pool holds requests for a moment, and answers them.
    for status in ("ready", "paused", "draining"):
        if status in states.values():
            return 503 if status == "draining" else 200, {"status": status, "pools": states}
    return 503, {"status": "down", "pools": states}


class StatisticsService(Service):
    """
    Serves statistics over HTTP.

    @ivar port: what listens, once something does.
    @ivar history: the past.
    @ivar events: what was logged.
    @ivar lag: how late the last sample was, in seconds.
    """

    def __init__(self, description: str, source: Source, reactor: Any) -> None:
        """
        @param description: where to listen, a server endpoint string.
        @param source: gives a snapshot, or a Deferred that fires with one.
        """
        self._endpoint = Listener(reactor, description)
        self._source = source
        self._reactor = reactor
        self.port: IListeningPort | None = None
        self.history = History()
        self.events = Events()
        self.lag: float | None = None
        self._timer: IDelayedCall | None = None
        self._due = 0.0
        self._connections = _Connections(_Site(self.resource(), reactor=reactor, timeout=IDLE))
        self.setName("statistics")

    # -- Life

    def privilegedStartService(self) -> None:
        """
        Listen.

        @raise CannotListenError: the address is taken or not ours.
        """
        super().privilegedStartService()
        self._listen()

    def _listen(self) -> None:
        if self.port is None:
            raised(self._endpoint.listen(self._connections)).addCallback(self._listening)

    def _listening(self, port: IListeningPort) -> None:
        self.port = port

    def startService(self) -> None:
        """
        Begin to keep what happens.
        """
        super().startService()
        self._listen()
        self.events.begin()
        self._due = self._reactor.seconds()
        self._sample()

    def stopService(self) -> Deferred[None]:
        """
        Close.

        @return: fires when no socket or timer is left.
        """
        super().stopService()
        self.events.end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        port: Any
        port, self.port = self.port, None
        stopped: Deferred[None] = maybeDeferred(port.stopListening) if port is not None else succeed(None)
        return stopped.addCallback(lambda _: self._connections.close())

    def _sample(self) -> None:
        now = self._reactor.seconds()
        self.lag = max(0.0, now - self._due)
        self._due = now + INTERVAL
        self._timer = self._reactor.callLater(INTERVAL, self._sample)
        maybeDeferred(self._source).addCallbacks(self.history.add, self._noSample)

    def _noSample(self, failure: Failure) -> None:
        if self.running:
            _log.failure("no statistics", failure)

    # -- What there is

    def resource(self) -> Resource:
        """
        @return: all of it, as a resource that may also stand in another site.
        """
        headers = {b"server": b"txconnpool", b"cache-control": b"no-store", b"x-content-type-options": b"nosniff"}
        page, policy = _page()
        root = Resource()
        root.putChild(
            b"",
            Answering(
                lambda request: (200, _HTML, page),
                {**headers, b"content-security-policy": policy, b"referrer-policy": b"no-referrer"},
            ),
        )
        for name, answer in (
            (b"metrics", self._metrics),
            (b"stats.json", self._everything),
            (b"healthz", self._health),
        ):
            root.putChild(name, Answering(self._reading(answer), headers))
        return root

    def _reading(self, answer: Callable[[dict[str, Any], Request], Answer]) -> Callable[[Request], Deferred[Answer]]:
        return lambda request: maybeDeferred(self._source).addCallback(answer, request)

    def _metrics(self, told: dict[str, Any], request: Request) -> Answer:
        return 200, _PROMETHEUS, report.prometheus(told).encode()

    def _everything(self, told: dict[str, Any], request: Request) -> Answer:
        pools = [{**pool, "history": self.history.of(pool["name"])} for pool in told["pools"]]
        whole = {**told, "cpu_history": self.history.cpu(), "pools": pools, "events": list(self.events.recent)}
        return 200, _JSON, _json(whole)

    def _health(self, told: dict[str, Any], request: Request) -> Answer:
        pool = request.args.get(b"pool", [b""])[0].decode(errors="replace") or None
        code, said = health(told, pool)
        return code, _JSON, _json(said) + b"\n"
