# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.migrate.endpoints}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.migrate.endpoints import Offset, escaped, port, seconds, serverLine
from txconnpool.net.syntax import checkClient
from txconnpool.routing.distribution import ServerSpec


class EndpointTests(SynchronousTestCase):
    """
    Tests for endpoint strings.
    """

    def test_servers(self) -> None:
        """
        A line has the address, and the words that are needed.
        """
        for server, expected in (
            (ServerSpec("10.0.0.1", 11211), "tcp:10.0.0.1:11211"),
            (ServerSpec("::1", 1, weight=2, label="a"), r"tcp:\:\:1:1 weight=2 label=a"),
            (ServerSpec(path="/a b:c=d\\"), r"unix:/a\ b\:c\=d\\"),
            (ServerSpec("a", 1, weight=0.25), "tcp:a:1 weight=0.25"),
            (ServerSpec("a", 1, weight=0), "tcp:a:1 weight=0"),
            (ServerSpec("a", 1, weight=1.0), "tcp:a:1 weight=1"),
        ):
            line = serverLine(server)
            self.assertEqual(line, expected)
            checkClient(line.split(" weight")[0])
        self.assertEqual(serverLine(ServerSpec("a", 1), "tls"), "tls:a:1")

    def test_escaped(self) -> None:
        """
        Characters with a meaning in endpoint strings are escaped.
        """
        self.assertEqual(escaped(r"a:b=c\d e"), r"a\:b\=c\\d\ e")

    def test_ports(self) -> None:
        """
        Ports are from 1 to 65535.
        """
        self.assertEqual((port("1"), port("00080"), port("65535")), (1, 80, 65535))
        for text in ("", "0", "65536", "-1", "x", "1" * 10):
            self.assertRaises(ValueError, port, text)

    def test_offset(self) -> None:
        """
        Listeners are moved, but not out of the range of ports.
        """
        self.assertEqual((Offset().port(80), Offset().path("/a")), (80, "/a"))
        self.assertEqual((Offset(-10).port(80), Offset(1000).path("/a")), (70, "/a.new"))
        self.assertRaises(ValueError, Offset(65500).port, 80)
        self.assertRaises(ValueError, Offset(-80).port, 80)

    def test_seconds(self) -> None:
        """
        Times are written without rounding, and are at most a day.
        """
        self.assertEqual([seconds(each) for each in (1, 400, 1000, 10**9)], ["1ms", "400ms", "1", "86400"])
