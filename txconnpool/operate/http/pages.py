# -*- test-case-name: tests.operate.http.test_pages -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The responses to all requests: a status page, Prometheus' text, JSON and two health checks.

The statistics are read, and each response is made, at most once in L{FRESH} seconds, however many requests there are.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txconnpool.operate.events import Events
from txconnpool.operate.http.messages import JSON, Request, Response, failure
from txconnpool.operate.statistics.history import History
from txconnpool.operate.statistics.prometheus import exposition
from txconnpool.operate.statistics.snapshot import Snapshot

_log = Logger("txconnpool.http")

#: Seconds for which a snapshot, and the responses that were made from it, are used again.
FRESH: Final = 1.0

#: The most fields of a query.
FIELDS: Final = 10

#: Returns a L{Snapshot}, or a Deferred that fires with one.
Source = Callable[[], Any]

_HTML: Final = "text/html; charset=utf-8"
_PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
_UNAVAILABLE: Final = failure(
    HTTPStatus.SERVICE_UNAVAILABLE, "no statistics at the moment; the log has the reason"
)  # fmt: skip
_NOT_FOUND: Final = failure(
    HTTPStatus.NOT_FOUND, "expected /, /metrics, /stats.json, /healthz, /healthz/POOL or /livez"
)  # fmt: skip

#: The response for a check that is to find a process that hangs, whatever its servers do: it needs no statistics.
_ALIVE: Final = Response(200, JSON, b'{"status":"alive"}\n')


def statusPage() -> Response:
    """
    @return: the status page, with a Content-Security-Policy that lets browsers run only the scripts in the page and
        send requests only to this server.
    """
    page = files("txconnpool.operate").joinpath("status.html").read_bytes()
    hashes = {}
    for element in ("script", "style"):
        (content,) = re.findall(f"<{element}>(.*?)</{element}>".encode(), page, re.DOTALL)
        hashes[element] = base64.b64encode(hashlib.sha256(content).digest()).decode()
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'"
    )
    return Response(200, _HTML, page, policy)


def health(snapshot: Snapshot, pool: str | None = None, stopping: bool = False) -> tuple[int, dict[str, Any]]:
    """
    Decide whether clients should connect to this proxy.

    @param pool: the name of the only pool that counts; C{None}: it is enough that one of the pools is ready.
    @param stopping: whether the proxy stops, whatever the snapshot says, which may be older.

    @return: an HTTP status code, and the body as plain data.
    """
    code, body = _poolHealth(snapshot, pool, stopping)
    workers = snapshot.get("workers")
    if workers is not None and code != 404:
        body["workers"] = workers
        # The statistics of a pool are those that its workers have sent last.
        if code == 200 and not workers["ready"]:
            code, body["status"] = 503, "down"
    return code, body


def _poolHealth(snapshot: Snapshot, pool: str | None, stopping: bool) -> tuple[int, dict[str, Any]]:
    pools = [each for each in snapshot["pools"] if pool is None or each["name"] == pool]
    states = {each["name"]: "draining" if stopping else each["state"] for each in pools}
    if not states and pool is not None:
        return 404, {"status": "unknown", "pools": {}}
    # A paused pool keeps requests for a moment, then answers them.
    for status in ("ready", "paused", "draining"):
        if status in states.values():
            return 503 if status == "draining" else 200, {"status": status, "pools": states}
    return 503, {"status": "down", "pools": states}


class Fresh:
    """
    The result of a function, which is called at most once in L{FRESH} seconds, however many ask for it.
    """

    def __init__(self, make: Callable[[], Deferred[Any]], reactor: Any) -> None:
        """
        @param make: the function. Its Deferred does not fail.
        """
        self._make = make
        self._reactor = reactor
        self._until = 0.0
        self._result: Any = None
        self._waiting: list[Deferred[Any]] = []
        self._making = False

    def get(self) -> Deferred[Any]:
        """
        @return: fires with a result that is no older than L{FRESH} seconds. It may be cancelled.
        """
        # The reactor of an application may have a clock that can be set back.
        if not self._making and 0 < self._until - self._reactor.seconds() <= FRESH:
            return succeed(self._result)
        asked: Deferred[Any] = Deferred(self._waiting.remove)
        self._waiting.append(asked)
        if not self._making:
            self._making = True
            self._make().addCallback(self._made)
        return asked

    def drop(self) -> None:
        """
        Call the function again when the next one asks.
        """
        self._until = 0.0

    def _made(self, result: Any) -> None:
        self._making = False
        self._result = result
        self._until = self._reactor.seconds() + FRESH
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            asked.callback(result)


class Pages:
    """
    Makes the responses.

    @ivar source: returns the snapshots that are served.
    """

    def __init__(self, source: Source, history: History, events: Events, reactor: Any) -> None:
        """
        @param history: the samples of the last minutes.
        @param events: the recent events.
        """
        self.source = source
        self._history = history
        self._events = events
        self._page = statusPage()
        self._makers = {"/metrics": self._prometheus, "/stats.json": self._json, "/healthz": self._health}
        self._snapshot = Fresh(self._read, reactor)
        self._stopping = False

    def setStopping(self, stopping: bool) -> None:
        """
        Let C{/healthz} say from now on whether the proxy stops.
        """
        self._stopping = stopping
        self._snapshot.drop()

    def respond(self, request: Request) -> Deferred[Response]:
        """
        @return: fires with the response. It may be cancelled.
        """
        path, pool = request.path, None
        if path == "/":
            return succeed(self._page)
        if path == "/livez":
            return succeed(_ALIVE)
        if path.startswith("/healthz/"):
            path, pool = "/healthz", unquote(path.removeprefix("/healthz/")) or None
        if path not in self._makers:
            return succeed(_NOT_FOUND)
        try:
            # Without a bound on the fields, the longest query would take 5 ms.
            fields = parse_qs(request.query, errors="replace", max_num_fields=FIELDS)
        except ValueError:
            return succeed(failure(HTTPStatus.BAD_REQUEST, f"expected a query of {FIELDS} fields at most"))
        if path == "/healthz" and pool is None:
            pool = fields.get("pool", [""])[0] or None
        return self._snapshot.get().addCallback(self._choose, path, pool)

    def _read(self) -> Deferred[tuple[Snapshot, dict[Any, Response]] | None]:
        """
        @return: fires with a snapshot, and the responses that were made from it so far, none yet; with C{None} if there
            is no snapshot.
        """
        reading: Deferred[Snapshot] = maybeDeferred(self.source)
        return reading.addCallbacks(lambda snapshot: (snapshot, {}), self._noStatistics)

    def _noStatistics(self, failure: Failure) -> None:
        _log.failure("no statistics", failure)

    def _choose(self, found: tuple[Snapshot, dict[Any, Response]] | None, path: str, pool: str | None) -> Response:
        if found is None:
            return _UNAVAILABLE
        snapshot, made = found
        if (path, pool) not in made:
            response = self._make(snapshot, path, pool)
            if response.code == 404:
                return response  # anybody may ask for any number of pools that do not exist
            made[path, pool] = response
        return made[path, pool]

    def _make(self, snapshot: Snapshot, path: str, pool: str | None) -> Response:
        try:
            return self._makers[path](snapshot, pool)
        except Exception:
            _log.failure("no statistics")
            return _UNAVAILABLE

    def _prometheus(self, snapshot: Snapshot, _: str | None) -> Response:
        return Response(200, _PROMETHEUS, exposition(snapshot).encode())

    def _json(self, snapshot: Snapshot, _: str | None) -> Response:
        pools = [self._withHistory(pool) for pool in snapshot["pools"]]
        cpu, events = self._history.cpu(), list(self._events.recent)
        return Response(200, JSON, _toJSON({**snapshot, "cpu_history": cpu, "pools": pools, "events": events}))

    def _withHistory(self, pool: dict[str, Any]) -> dict[str, Any]:
        past = self._history.ofServers(pool["name"])
        servers = [
            {**each, "history": past[each["name"]]} if each["name"] in past else each for each in pool["servers"]
        ]
        return {**pool, "servers": servers, "history": self._history.of(pool["name"])}

    def _health(self, snapshot: Snapshot, pool: str | None) -> Response:
        code, body = health(snapshot, pool, self._stopping)
        return Response(code, JSON, _toJSON(body) + b"\n")


def _toJSON(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
