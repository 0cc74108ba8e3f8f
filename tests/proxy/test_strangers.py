# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.strangers}: clients that speak another protocol.
"""

from __future__ import annotations

from twisted.logger import capturedLogs

from tests.clients import SessionTestCase, get
from txconnpool.proxy.strangers import PERIOD


class StrangerTests(SessionTestCase):
    """
    Tests for L{Strangers}.
    """

    def test_closed(self) -> None:
        """
        A client that speaks another protocol is closed, counted by protocol, and logged with its address. A client with
        TLS gets bytes that are no TLS, as from memcached, so that its error names the reason.
        """
        stage = self.stage()
        for first, protocol, last in (
            (b"\x16\x03\x01\x02\x00\x01\x00", "tls", b"ERROR\r\n"),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "http", b""),
            (b"*1\r\n$4\r\nPING\r\n", "redis", b"ERROR\r\n"),
        ):
            client = stage.client()
            with capturedLogs() as logs:
                client.send(first)
                stage.serve()
            self.assertEqual((client.take(), client.connected), (last, False))
            self.assertEqual(stage.sessions.strangers.counts.pop(protocol), 1)
            (event,) = [each for each in logs if "address" in each]
            self.assertEqual(event["log_level"].name, "warn")

    def test_limited(self) -> None:
        """
        The log has one line for each protocol in a minute, with the number of the others.
        """
        stage = self.stage()

        def lines(count: int) -> list[str]:
            with capturedLogs() as logs:
                for _ in range(count):
                    stage.client().send(b"\x16\x03\x01")
                    stage.serve()
            return [each["more"] for each in logs if "address" in each]

        self.assertEqual(lines(5), [""])
        stage.clock.advance(PERIOD)
        self.assertEqual(lines(2), ["; 4 others did since the last such line"])
        self.assertEqual(stage.sessions.strangers.counts, {"tls": 7})

    def test_own(self) -> None:
        """
        Other clients are not concerned, even if they send such bytes later.
        """
        stage = self.stage()
        client = stage.client()
        self.assertEqual(stage.ask(client, b"get a\r\n\x16\x03\r\nget b\r\n"), get(b"a") + b"ERROR\r\n" + get(b"b"))
        self.assertEqual(stage.sessions.strangers.counts, {})
