# Copyright txconnpool contributors. See LICENSE.
"""
Attacks on the HTTP server of statistics.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

from tests.certificates import Certificate, missingTLS, quoted
from tests.real.attacks import ATTACKERS, Attacker, SecurityTestCase
from tests.real.processes import cpu
from tests.real.servers import HOST, PATIENCE, connect, everything, freePort, missing, until
from txconnpool.operate.http.server import CONNECTIONS

#: The most processor time of the proxy until a health check is answered, in seconds. Its client may wait no longer.
LATENCY = 1.0

METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


class HTTPTestCase(SecurityTestCase):
    """
    Base class of tests with a proxy that serves statistics.
    """

    def arguments(self) -> list[str]:
        self.port = freePort()
        return ["--stats", f"tcp:{self.port}:interface={HOST}", "--stats-hosts", "ours.example"]

    def connection(self) -> http.client.HTTPConnection:
        """
        @return: a connection of an operator.
        """
        return http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)

    def healthy(self) -> None:
        """
        Assert that a health check is answered in time. The proxy may have worked for others after its answer, until
        this process was run: it is unlikely that this happens several times in a row.
        """
        self.assertTrue(any(self._check() < LATENCY for _ in range(4)), self.proxy.log)

    def _check(self) -> float:
        """
        @return: the processor time of the proxy until a health check was answered.
        """
        began = cpu(self.proxy.pid)
        connection = self.connection()
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        self.assertEqual((response.status, json.loads(response.read())["status"]), (200, "ready"))
        connection.close()
        return cpu(self.proxy.pid) - began

    def attackers(self, data: bytes = b"", end: bytes = b"", count: int = ATTACKERS) -> list[Attacker]:
        return [Attacker((HOST, self.port), data, end) for _ in range(count)]


class HTTPAttackTests(HTTPTestCase):
    """
    Tests without TLS.
    """

    def test_pipelined(self) -> None:
        """
        Attackers pipeline requests for all statistics, and read nothing.
        """
        self.healthy()
        self.attack(*self.attackers(METRICS * 600, METRICS * 600), meanwhile=self.healthy)

    def test_everything(self) -> None:
        """
        Attackers request all statistics, one at a time, as fast as they are answered.
        """
        paths = (b"metrics", b"stats.json", b"healthz?pool=none", b"")
        attackers = [Attacker((HOST, self.port), METRICS.replace(b"metrics", path), reads=True) for path in paths * 5]
        self.healthy()
        self.attack(*attackers, meanwhile=self.healthy)
        self.assertGreater(sum(each.lost for each in attackers), len(attackers))

    def test_bodies(self) -> None:
        """
        Attackers send bodies and headers without an end, and bytes that are no request.
        """
        starts = (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET / HTTP/1.1\r\n",
            b"",
        )
        attackers = [each for start in starts for each in self.attackers(start, b"a: b\r\n" * 1000, ATTACKERS // 3)]
        self.healthy()
        self.attack(*attackers, meanwhile=self.healthy)

    def test_silent(self) -> None:
        """
        More connections than are allowed send nothing, or a byte from time to time. None is refused a health check, and
        the proxy keeps only so many of them.
        """
        before = self.descriptors()
        attackers = self.attackers(b"GET /", b"x", 3 * CONNECTIONS)
        self.attack(*attackers, meanwhile=self.healthy)
        until(lambda: self.descriptors() <= before + CONNECTIONS + 2, what="the end of the connections")

    def test_unread(self) -> None:
        """
        An attacker who reads nothing for a while still gets his whole response.
        """
        with connect((HOST, self.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 10)
            client.sendall(METRICS)
            time.sleep(0.3)
            head, _, body = everything(client).partition(b"\r\n\r\n")
        self.assertIn(b"Content-Length: %d\r\n" % len(body), head)

    def raw(self, request: bytes) -> str:
        """
        @return: all that is received after a request.
        """
        with connect((HOST, self.port)) as client:
            client.sendall(request)
            return everything(client).decode()

    def test_rebinding(self) -> None:
        """
        A page whose name points at the proxy cannot read statistics. Addresses and names of the proxy can be used.
        """
        for host, code in (
            *((b"evil.example", 421), (b"localhost.evil.example:%d" % self.port, 421), (b"", 421)),
            *((b"localhost", 200), (b"ours.example:80", 200), (b"127.0.0.1", 200), (b"[::1]:80", 200)),
        ):
            for version in (b"1.0", b"1.1"):
                answer = self.raw(b"GET /stats.json HTTP/%b\r\nHost: %b\r\n\r\n" % (version, host))
                self.assertTrue(answer.startswith(f"HTTP/1.1 {code} "), answer)
                self.assertEqual("pools" in answer, code == 200)
        self.assertTrue(self.raw(b"GET /healthz HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 200 "))

    def test_errors(self) -> None:
        """
        Errors have the same headers as statistics, and neither a version nor a traceback nor anything of the request.
        """
        host = b"\r\nHost: localhost\r\n\r\n"
        for request, code in (
            (b"GET /<script>alert()</script> HTTP/1.1" + host, 404),
            (b"<script> HTTP/1.1" + host, 400),
            (b"DELETE /<script> HTTP/1.1" + host, 405),
            (b"GET / HTTP/1.1\r\nHost: <script>\r\n\r\n", 421),
            (b"GET /" + b"<script>" * 3000 + b" HTTP/1.1" + host, 431),
            (b"GET / HTTP/9.9" + host, 505),
        ):
            answer = self.raw(request)
            self.assertTrue(answer.startswith(f"HTTP/1.1 {code} "), answer)
            for header in (
                "X-Content-Type-Options: nosniff",
                "Cache-Control: no-store",
                "Content-Security-Policy: default-src 'none'",
                "Content-Type: text/plain; charset=utf-8",
                "Connection: close",
            ):
                self.assertIn(header, answer)
            self.assertNotRegex(answer, re.compile("twisted|traceback|python|<script|TwistedWeb", re.IGNORECASE))

    def test_log(self) -> None:
        """
        A peer cannot forge lines of the log, nor fill it.
        """
        for number in range(100):
            self.raw(b"GET / HTTP/1.1\r\nHost: {log_time}\x1b[2J\x85%d\r\n\r\n" % number)
            self.raw(b"{log_time}\x1b]0;forged\x07 \x85\r\n\r\n")
        lines = [line for line in self.proxy.log.splitlines() if "log_time" in line or "forged" in line]
        self.assertEqual(len(lines), 1)
        self.assertIn(r"'{log_time}\x1b[2J\x850'", lines[0])

    def test_keepAlive(self) -> None:
        """
        A client that would keep its connection opens another for each request.
        """
        connection = self.connection()
        for path in ("/metrics", "/", "/none", "/stats.json") * 3:
            connection.request("GET", path)
            response = connection.getresponse()
            self.assertEqual(response.status, 404 if path == "/none" else 200)
            self.assertGreater(len(response.read()), 10)
        connection.close()

    def test_curl(self) -> None:
        """
        C{curl} gets several pages in one call.
        """
        url = f"http://localhost:{self.port}"
        done = subprocess.run(
            ["curl", "-sSf", "-4", f"{url}/healthz", f"{url}/metrics", f"{url}/stats.json"],
            capture_output=True,
            timeout=PATIENCE,
        )
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertIn(b"connpool_build_info", done.stdout)

    test_curl.skip = missing("curl")  # type: ignore[attr-defined]


class TLSAttackTests(HTTPTestCase):
    """
    Tests with TLS.
    """

    skip = missingTLS or HTTPTestCase.skip

    def arguments(self) -> list[str]:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        host = Certificate(Path(directory.name), HOST)
        self.port = freePort()
        self.context = ssl.create_default_context(cafile=str(host.certificate))
        self.careless = ssl._create_unverified_context()
        files = f"privateKey={quoted(host.key)}:certKey={quoted(host.certificate)}"
        return ["--stats", f"ssl:{self.port}:interface={HOST}:{files}"]

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPSConnection(HOST, self.port, timeout=PATIENCE, context=self.context)

    def test_pipelined(self) -> None:
        """
        Attackers pipeline requests for all statistics, and read nothing.
        """
        attackers = [
            Attacker((HOST, self.port), METRICS * 600, METRICS * 600, tls=self.careless) for _ in range(ATTACKERS)
        ]
        self.healthy()
        self.attack(*attackers, meanwhile=self.healthy)

    def test_silent(self) -> None:
        """
        More connections than are allowed do not shake hands. The oldest are closed, without a traceback.
        """
        before = self.descriptors()
        self.attack(*self.attackers(count=3 * CONNECTIONS), meanwhile=self.healthy)
        until(lambda: self.descriptors() <= before + CONNECTIONS + 2, what="the end of the connections")
        self.assertNotIn("Traceback", self.proxy.log)
