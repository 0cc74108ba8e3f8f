# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.tlswords}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txconnpool.net.syntax import checkClient
from txconnpool.net.tlswords import TLSWords, readTLS


class TLSWordsTests(SynchronousTestCase):
    """
    Tests for L{TLSWords} and L{readTLS}.
    """

    def test_read(self) -> None:
        """
        Each of the words means TLS. They are parts of the endpoint strings.
        """
        for text, endpoint in (
            ("", r"tcp:a:1"),
            ("tls=yes", "tls:a:1"),
            ("trustRoots=/a:b", r"tls:a:1:trustRoots=/a\:b"),
            ("certificate=c privateKey=k", "tls:a:1:certificate=c:privateKey=k"),
            ("tls=yes trustRoots=/t", "tls:a:1:trustRoots=/t"),
        ):
            words, others = readTLS(text.split())
            self.assertEqual((words.endpoint("a", 1), others), (endpoint, []))
            self.assertEqual(readTLS(words.words), (words, []))
            checkClient(words.endpoint("2001:db8::1", 1))

    def test_others(self) -> None:
        """
        Other words, and those that are there twice, are left.
        """
        others = ["tls=no", "tls=yes", "trustRoots=b", "trustRoots=", "x"]
        words, left = readTLS(["tls=yes", "trustRoots=a", *others])
        self.assertEqual((words, left), (TLSWords(True, (("trustRoots", "a"),)), others))
        self.assertRaises(ValueError, readTLS, ["certificate=a"])

    def test_located(self) -> None:
        """
        Paths become absolute.
        """
        words, _ = readTLS(["trustRoots=a"])
        self.assertEqual(words.located("/etc").words, ["trustRoots=/etc/a"])
        self.assertEqual(words.located("/etc").located("/usr").words, ["trustRoots=/etc/a"])
