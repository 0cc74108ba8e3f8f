# -*- test-case-name: tests.operate.http.test_messages -*-
# Copyright txconnpool contributors. See LICENSE.
"""
HTTP requests and responses, as far as a server needs them that answers GET and HEAD, and closes each connection after
its first response (RFC 9112). There is no I/O here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

#: The most bytes before the body of a request. A browser may send many cookies, which all ports of a host share.
HEAD_MAX: Final = 16384

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"

_REQUEST_LINE: Final = re.compile(r"([!#-'*+.^-z|~0-9A-Z-]+) ([!-~]+) HTTP/([0-9])\.[0-9]")
_HEADER: Final = re.compile(r"([!#-'*+.^-z|~0-9A-Z-]+):[ \t]*(.*?)[ \t]*")
_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE)
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]{0,5})?")


@dataclass(frozen=True)
class Request:
    """
    A request.

    @ivar method: C{"GET"} or C{"HEAD"}.
    @ivar path: the path, not decoded.
    @ivar query: what follows the first question mark.
    """

    method: str
    path: str
    query: str


@dataclass(frozen=True)
class Response:
    """
    A response.

    @ivar code: the status code.
    @ivar kind: the content type.
    @ivar body: the body.
    @ivar policy: the Content-Security-Policy. The default lets a browser load and run nothing.
    """

    code: int
    kind: str
    body: bytes
    policy: str = "default-src 'none'; frame-ancestors 'none'"

    def head(self) -> bytes:
        """
        @return: what is sent before the body.
        """
        lines = [
            f"HTTP/1.1 {self.code} {HTTPStatus(self.code).phrase}",
            f"Date: {formatdate(usegmt=True)}",
            "Server: txconnpool",
            f"Content-Type: {self.kind}",
            f"Content-Length: {len(self.body)}",
            "Connection: close",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            f"Content-Security-Policy: {self.policy}",
            "Referrer-Policy: no-referrer",
        ]
        if self.code == HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append("Allow: GET, HEAD")
        return "\r\n".join([*lines, "\r\n"]).encode("ascii")


def failure(status: HTTPStatus, text: str) -> Response:
    """
    @return: a response with a line of text about what is wrong. The text has nothing of the request.
    """
    return Response(status.value, TEXT, f"{text}\n".encode())


class Refused(Exception):
    """
    A request that is answered with an error.

    @ivar response: the answer.
    """

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.response = failure(status, text)


class OtherHost(Refused):
    """
    A request for a host that is not this one.

    @ivar host: the host.
    """

    def __init__(self, host: str) -> None:
        super().__init__(
            HTTPStatus.MISDIRECTED_REQUEST,
            "this is not the host that was asked for; use an IP address, localhost, or a name in stats-hosts",
        )
        self.host = host


def readRequest(head: bytes, names: Collection[str]) -> Request:
    """
    Read a request.

    @param head: the request up to the end of its headers, without the empty line.
    @param names: the names of this host, in lower case.

    @raise Refused: it cannot be answered otherwise.
    """
    # Every byte is one character here, and those above ASCII match no expression but that for values of headers.
    first, *lines = head.decode("latin-1").split("\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise Refused(HTTPStatus.BAD_REQUEST, "this is not an HTTP request")
    method, target, version = match.groups()
    if version != "1":
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "expected HTTP/1.1")
    hosts = _hosts(lines)
    if len(hosts) > 1 or not (hosts or first.endswith("0")):
        raise Refused(HTTPStatus.BAD_REQUEST, "expected one Host")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        hosts.append(absolute[1])
        target = absolute[2]
    # A web page whose name its owner has pointed at this address ("DNS rebinding") could read everything here. The
    # browser then sends the name. No browser sends a request without a host.
    for host in hosts:
        if not isOurs(host, names):
            raise OtherHost(host)
    if method not in ("GET", "HEAD"):
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "expected GET or HEAD")
    path, _, query = target.partition("?")
    return Request(method, path or "/", query)


def _hosts(lines: list[str]) -> list[str]:
    """
    Find the values of the header C{Host}.

    @raise Refused: a line is not a header.
    """
    hosts = []
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise Refused(HTTPStatus.BAD_REQUEST, "a header is malformed")
        if match[1].lower() == "host":
            hosts.append(match[2])
    return hosts


def isOurs(host: str, names: Collection[str]) -> bool:
    """
    @param host: a host, and perhaps a port.
    @param names: the names of this host, in lower case.

    @return: whether it is an IP address, C{localhost}, or one of the names.
    """
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = (match[1] or match[2]).lower().removesuffix(".")
    if match[1] is None and (name == "localhost" or name in names):
        return True
    try:
        return ipaddress.ip_address(name).version == (4 if match[1] is None else 6)
    except ValueError:
        return False
