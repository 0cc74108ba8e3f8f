# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.http.messages}.
"""

from __future__ import annotations

from http import HTTPStatus

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.operate.http.messages import JSON, OtherHost, Refused, Request, Response, failure, isOurs, readRequest

NAMES = ("proxy1.example.com",)


class RequestTests(SynchronousTestCase):
    """
    Tests for L{readRequest}.
    """

    def test_read(self) -> None:
        """
        A request has a method, a path and a query.
        """
        for head, expected in (
            (b"GET / HTTP/1.1\r\nHost: localhost", Request("GET", "/", "")),
            (b"HEAD /healthz?pool=a?b HTTP/1.1\r\nhost:127.0.0.1:80 ", Request("HEAD", "/healthz", "pool=a?b")),
            (b"GET /x HTTP/1.1\r\nA: \xff{}\r\nHOST: [::1]\r\nB:", Request("GET", "/x", "")),
            (b"GET http://localhost/x HTTP/1.1\r\nHost: localhost", Request("GET", "/x", "")),
            (b"GET http://localhost HTTP/1.1\r\nHost: localhost", Request("GET", "/", "")),
            (b"GET /metrics HTTP/1.0", Request("GET", "/metrics", "")),
        ):
            self.assertEqual(readRequest(head, NAMES), expected)

    def test_refused(self) -> None:
        """
        A request that is not valid, or not allowed, is answered with an error.
        """
        host = b"\r\nHost: localhost"
        for head, code in (
            (b"", 400),
            (b"hello", 400),
            (b"get a", 400),
            (b"GET / HTTP/1.1 " + host, 400),
            (b"GET  / HTTP/1.1" + host, 400),
            (b"GET /\xff HTTP/1.1" + host, 400),
            (b"GET / HTTP/1.1\nHost: localhost", 400),
            (b"GET / HTTP/1.1", 400),
            (b"GET / HTTP/1.1" + host + host, 400),
            (b"GET / HTTP/1.0" + host + host, 400),
            (b"GET / HTTP/1.1" + host + b"\r\n folded", 400),
            (b"GET / HTTP/1.1" + host + b"\r\nA : b", 400),
            (b"GET / HTTP/1.1" + host + b"\r\nA\nHost: x", 400),
            (b"GET / HTTP/2.0" + host, 505),
            (b"POST / HTTP/1.1" + host, 405),
            (b"BREW / HTTP/1.1" + host, 405),
            (b"POST / HTTP/1.1\r\nHost: evil.example", 421),
        ):
            refused = self.assertRaises(Refused, readRequest, head, NAMES)
            self.assertEqual(refused.response.code, code, head)

    def test_otherHost(self) -> None:
        """
        A name that is not of this host is refused, in the target too, and with HTTP/1.0.
        """
        for head in (
            b"GET / HTTP/1.1\r\nHost: evil.example",
            b"GET / HTTP/1.0\r\nHost: evil.example",
            b"GET / HTTP/1.1\r\nHost:",
            b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost",
            b"GET http:///x HTTP/1.1\r\nHost: localhost",
        ):
            self.assertRaises(OtherHost, readRequest, head, NAMES)

    def test_hosts(self) -> None:
        """
        IP addresses, C{localhost} and the names of this host are allowed, with any port.
        """
        for host in (
            *("localhost", "LOCALHOST:80", "localhost.", "127.0.0.1", "10.1.2.3:11213", "[::1]", "[fe80::1]:1"),
            *("proxy1.example.com", "Proxy1.Example.com.:11213"),
        ):
            self.assertTrue(isOurs(host, NAMES), host)
        for host in (
            *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "proxy1", "proxy1.example.com..", ""),
            *(":80", "::1", "[localhost]", "[127.0.0.1]", "localhost:x", "localhost@evil.example", "127.1", "1", "[]"),
            *("user@127.0.0.1", "127.0.0.1/evil", "[fe80::1%25eth0]"),
        ):
            self.assertFalse(isOurs(host, NAMES), host)

    @given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda rest: b"GET / HTTP/1.1\r\nHost: " + rest))
    @example(b"GET / HTTP/1.1\r\n\r\n")
    def test_any(self, head: bytes) -> None:
        """
        Any bytes are a request or are refused, and the answer has none of them.
        """
        try:
            readRequest(head, NAMES)
        except Refused as refused:
            self.assertIn(refused.response.code, (400, 405, 421, 505))
            self.assertNotIn(b"<", refused.response.body)


class ResponseTests(SynchronousTestCase):
    """
    Tests for L{Response}.
    """

    def test_head(self) -> None:
        """
        Every response has the headers that keep browsers from keeping it, guessing its type and running anything in it,
        and says that the connection ends.
        """
        for response in (Response(200, JSON, b"{}"), failure(HTTPStatus.BAD_REQUEST, "no")):
            first, *lines = response.head().decode().split("\r\n")
            self.assertEqual(lines[-2:], ["", ""])
            self.assertEqual(first, f"HTTP/1.1 {response.code} {'OK' if response.code == 200 else 'Bad Request'}")
            headers = dict(line.split(": ", 1) for line in lines[:-2])
            self.assertRegex(headers.pop("Date"), r"^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$")
            self.assertEqual(
                headers,
                {
                    "Server": "txconnpool",
                    "Content-Type": response.kind,
                    "Content-Length": str(len(response.body)),
                    "Connection": "close",
                    "Cache-Control": "no-store",
                    "X-Content-Type-Options": "nosniff",
                    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
                    "Referrer-Policy": "no-referrer",
                },
            )
