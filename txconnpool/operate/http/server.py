# -*- test-case-name: tests.operate.test_http -*-
# Copyright txconnpool contributors. See LICENSE.
"""
An HTTP server for GET and HEAD, with a bound on its connections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

_log = Logger("txconnpool.http")

#: Seconds without a request after which an HTTP connection is closed.
IDLE: Final = 30.0

#: The most HTTP connections: there are few people and few scrapers.
CONNECTIONS: Final = 50

#: A response: the status code, the content type and the body.
Response = tuple[int, bytes, bytes]

_TEXT: Final = b"text/plain; charset=utf-8"


class _Request(Request):
    """
    A request whose body is dropped.
    """

    def handleContentChunk(self, data: bytes) -> None:
        """
        Drop a part of the body.
        """


class FunctionResource(Resource):
    """
    A resource that answers GET and HEAD with the result of a function.
    """

    def __init__(self, respond: Callable[[Request], Any], headers: dict[bytes, bytes]) -> None:
        """
        @param respond: returns a L{Response}, or a Deferred that fires with one.
        @param headers: headers of all responses.
        """
        super().__init__()
        self._respond = respond
        self._headers = headers

    def render_GET(self, request: Request) -> int:
        """
        Respond to a request, with status 503 if the function fails.
        """
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)

        def write(response: Response) -> None:
            if gone:
                return
            code, kind, body = response
            request.setResponseCode(code)
            for name, value in {b"content-type": kind, b"content-length": b"%d" % len(body), **self._headers}.items():
                request.setHeader(name, value)
            if request.method != b"HEAD":
                request.write(body)
            request.finish()

        def failed(failure: Failure) -> Response:
            _log.failure("no statistics", failure)
            return 503, _TEXT, b"no statistics at the moment; the log has the reason\n"

        maybeDeferred(self._respond, request).addErrback(failed).addCallback(write)
        return NOT_DONE_YET


class QuietSite(Site):
    """
    A site without an access log, which an open status page would fill, and without the log's timer.
    """

    requestFactory = _Request
    noisy = False

    def startFactory(self) -> None:
        """
        Do nothing. L{Site} opens its log here.
        """

    def stopFactory(self) -> None:
        """
        Do nothing. L{Site} closes its log here.
        """

    def log(self, request: Any) -> None:
        """
        Do not log the request.
        """


class Connections(WrappingFactory):
    """
    Bounds the number of HTTP connections, and closes them.
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
        Forget a connection that has ended.
        """
        super().unregisterProtocol(p)
        if not self.protocols:
            waiting, self._empty = self._empty, []
            for empty in waiting:
                empty.callback(None)

    def close(self) -> Deferred[None]:
        """
        Close all connections.

        @return: fires when there are none.
        """
        if not self.protocols:
            return succeed(None)
        empty: Deferred[None] = Deferred()
        self._empty.append(empty)
        for connection in list(self.protocols):
            connection.transport.abortConnection()
        return empty
