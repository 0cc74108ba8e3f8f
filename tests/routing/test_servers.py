# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.servers}.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.net.syntax import checkClient
from txconnpool.routing.distribution import ServerSpec
from txconnpool.routing.servers import Server, readServer


class ServerTests(SynchronousTestCase):
    """
    Tests for L{readServer} and L{Server}.
    """

    def test_words(self) -> None:
        """
        Weight and label follow the endpoint string, in any order.
        """
        for line, *expected in (
            ("tcp:a:1", "tcp:a:1", None, None),
            ("tcp:a:1 weight=2", "tcp:a:1", 2.0, None),
            ("  tcp:a:1\tlabel=cache-1  weight=0.5 ", "tcp:a:1", 0.5, "cache-1"),
            ("memory: label=10.0.0.1:11211", "memory:", None, "10.0.0.1:11211"),
            ("tcp:a:1 label=a=b", "tcp:a:1", None, "a=b"),
            (r"unix:/a\ b\\ weight=3", r"unix:/a\ b\\", 3.0, None),
        ):
            self.assertEqual(readServer(line), Server(*expected), line)

    def test_line(self) -> None:
        """
        A server is written as a line.
        """
        for line in ("tcp:a:1", "tcp:a:1 weight=2", "tcp:a:1 label=x", "tcp:a:1 weight=0.25 label=x"):
            self.assertEqual(str(readServer(line)), line)

    def test_wrong(self) -> None:
        """
        Each mistake is one line, which has the wrong word.
        """
        for line, text in (
            ("tcp:a:1 wait=2", "unknown word 'wait=2': after the endpoint there may be weight=NUMBER and label=TEXT"),
            ("tcp:a:1 cache-1", "unknown word 'cache-1'"),
            ("unix:/a b", "a space in an endpoint has a backslash before it"),
            ("tcp:a:1 weight=2 weight=2", "weight is given twice"),
            ("tcp:a:1 label=a label=b", "label is given twice"),
            ("tcp:a:1 label=", "label= is empty"),
        ):
            self.assertIn(text, str(self.assertRaises(ValueError, readServer, line)))

    def test_weight(self) -> None:
        """
        A weight is a decimal number that is not negative.
        """
        self.assertEqual(readServer("tcp:a:1 weight=0").weight, 0)
        for weight in ("", "-1", "two", "nan", "inf", "1e3", ".5", "1_0"):
            error = self.assertRaises(ValueError, readServer, f"tcp:a:1 weight={weight}")
            self.assertEqual(str(error), f"weight={weight}: expected a number, such as 2 or 0.5")

    def test_name(self) -> None:
        """
        The name has only the address.
        """
        self.assertEqual(readServer("tls:h:1:trustRoots=/x weight=2").name, "tls:h:1")

    def test_spec(self) -> None:
        """
        Host, port and path are those of the endpoint string, as they are written there.
        """
        for endpoint, expected in (
            ("tcp:Cache.Example:11211", ServerSpec(host="Cache.Example", port=11211)),
            ("TCP:10.0.0.1:1:timeout=3", ServerSpec(host="10.0.0.1", port=1)),
            ("tcp:host=a:port=1", ServerSpec(host="a", port=1)),
            ("tcp:port=1:host=a", ServerSpec(host="a", port=1)),
            ("tcp:a:port=1", ServerSpec(host="a", port=1)),
            ("tcp:1:host=a", ServerSpec(host="a", port=1)),
            (r"tcp:\:\:1:1", ServerSpec(host="::1", port=1)),
            ("tls:a:1:trustRoots=/x", ServerSpec(host="a", port=1)),
            ("tls:host=a:port=1", ServerSpec(host="a", port=1)),
            ("unix:/run/a.sock:timeout=3", ServerSpec(path="/run/a.sock")),
            (r"unix:path=/run/a\:b", ServerSpec(path="/run/a:b")),
            (r"unix:/a\ b", ServerSpec(path="/a b")),
            ("memory:", ServerSpec(path="memory:")),
            ("memory:name=x", ServerSpec(path="memory:name=x")),
        ):
            checkClient(endpoint)
            self.assertEqual(readServer(endpoint).spec(), expected, endpoint)
        self.assertEqual(
            readServer("tcp:a:1 weight=2 label=x").spec(), ServerSpec(host="a", port=1, weight=2.0, label="x")
        )

    def test_addresses(self) -> None:
        """
        A program may give addresses that are not strings. An endpoint has no host and port that are known.
        """
        endpoint = HostnameEndpoint(MemoryReactorClock(), "a", 1)
        for address, expected in (
            (("Cache.Example", 11211), ServerSpec(host="Cache.Example", port=11211)),
            (IPv4Address("TCP", "10.0.0.1", 1), ServerSpec(host="10.0.0.1", port=1)),
            (IPv6Address("TCP", "::1", 1), ServerSpec(host="::1", port=1)),
            (UNIXAddress(b"/run/a.sock"), ServerSpec(path="/run/a.sock")),
            (endpoint, ServerSpec()),
        ):
            self.assertEqual(Server(address).spec(), expected)
        self.assertEqual(Server(endpoint, 2, "x").spec(), ServerSpec(weight=2, label="x"))
