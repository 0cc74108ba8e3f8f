# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.config.servers}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.config.servers import ServerLine
from txconnpool.net.endpoints import checkClientFiles
from txconnpool.net.suggestions import suggestClient
from txconnpool.net.syntax import checkClient

LINE = ServerLine(checkClient, checkClientFiles, "tcp:HOST:PORT", suggestClient)


class ServerLineTests(SynchronousTestCase):
    """
    Tests for L{ServerLine}.
    """

    def assertWrong(self, value: object, text: str) -> None:
        """
        Assert that a value is refused with an error that contains a text.
        """
        self.assertIn(text, str(self.assertRaises(ValueError, LINE.checkValue, value)))

    def test_right(self) -> None:
        """
        A line has an endpoint string and perhaps words, or is a source of servers.
        """
        for line in (
            "dns:a:1 label=x-{ip}",
            "srv:_memcache._tcp.example",
            "elasticache:a:1",
            "tcp:a:1",
            "tcp:a:1 weight=2 label=x",
            r"unix:/a\ b",
        ):
            LINE.checkValue(line)
            LINE.checkFiles(line)

    def test_wrong(self) -> None:
        """
        The endpoint string and the words are both checked.
        """
        self.assertWrong("dns:a", "expected dns:HOST:PORT")
        self.assertWrong("a:1 weight=2", "did you mean tcp:a:1?")
        self.assertWrong("10.0.0.1:1:2 one", "did you mean tcp:10.0.0.1:1 weight=2 label=one?")
        self.assertWrong("tcp:a:99999 weight=2", "port 99999 is more than 65535")
        self.assertWrong("tcp:a:1 weight=x", "weight=x: expected a number")
        self.assertWrong("", "expected tcp:HOST:PORT")
        self.assertWrong("\\", "expected tcp:HOST:PORT")
        self.assertWrong(None, "expected tcp:HOST:PORT")

    def test_files(self) -> None:
        """
        The files that the endpoint string names are read.
        """
        line = "tls:a:1:trustRoots=/nonexistent weight=2"
        LINE.checkValue(line)
        self.assertIn("/nonexistent", str(self.assertRaises(ValueError, LINE.checkFiles, line)))
