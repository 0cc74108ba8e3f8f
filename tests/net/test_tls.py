# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.tls}, and for the errors of L{txconnpool.net.endpoints} and L{txconnpool.net.listening}.
"""

from __future__ import annotations

import sys
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Certificate, quoted
from tests.net.tlscase import TLSTestCase
from txconnpool.config.kinds import Endpoint
from txconnpool.net.endpoints import checkClientFiles
from txconnpool.net.listening import checkServerFiles
from txconnpool.net.syntax import checkClient, checkServer
from txconnpool.net.tls import CannotUse, opensslReason, usesTLS

CLIENT = Endpoint(checkClient, checkClientFiles, "something else")
SERVER = Endpoint(checkServer, checkServerFiles, "something else")


class UsesTLSTests(SynchronousTestCase):
    """
    Tests for L{usesTLS}.
    """

    def test_usesTLS(self) -> None:
        """
        Strings that begin with ssl: or tls:, in any letters, may name certificates.
        """
        found = [each for each in ("ssl:1", "TLS:x", "tcp:1", "unix:/ssl:x", "tlsx:1", "memory:") if usesTLS(each)]
        self.assertEqual(found, ["ssl:1", "TLS:x"])


class WordsTests(TLSTestCase):
    """
    Tests for what people are told about keys and certificates.
    """

    def assertTold(self, description: str, told: str, server: bool = True) -> None:
        """
        Assert that an endpoint string is refused, with some words and without examples of a better one.
        """
        kind = SERVER if server else CLIENT
        kind.checkValue(description)
        error = self.assertRaises(ValueError, kind.checkFiles, description)
        self.assertEqual(str(error), told)

    def test_right(self) -> None:
        """
        What is there and fits is taken.
        """
        trusted = f"trustRoots={quoted(self.directory)}"
        ours = f"certificate={quoted(self.host.certificate)}:privateKey={quoted(self.host.key)}"
        CLIENT.checkFiles(f"tls:cache.example:11211:{trusted}:{ours}")
        SERVER.checkFiles(self.server(f"extraCertChain={quoted(self.authority.certificate)}"))

    def test_absent(self) -> None:
        """
        A file or directory that is not there is told by its path.
        """
        absent = "No such file or directory"
        self.assertTold("ssl:1:privateKey=/nonexistent/key", f"/nonexistent/key: {absent}")
        self.assertTold(self.server("caCertsDir=/nonexistent/x"), f"/nonexistent/x: {absent}")
        self.assertTold("tls:x:1:trustRoots=/nonexistent/x", f"/nonexistent/x: {absent}", server=False)
        self.assertTold("tls:x:1:certificate=/nonexistent/x", f"/nonexistent/x: {absent}", server=False)

    def test_nobody(self) -> None:
        """
        A directory without authorities, with which nobody would be trusted, is told.
        """
        empty = self.made("empty")
        (empty / "key.pem").write_bytes(self.host.key.read_bytes())
        told = f"no certificate in the .pem files of {empty}"
        self.assertTold(self.server(f"caCertsDir={quoted(empty)}"), told)
        self.assertTold(f"tls:x:1:trustRoots={quoted(empty)}", told, server=False)
        self.assertTold(f"ssl:x:1:caCertsDir={quoted(empty)}", told, server=False)

    def test_broken(self) -> None:
        """
        What is no key or certificate, or does not belong to the other, is told in OpenSSL's words.
        """
        broken = quoted(self.made("broken", "not a key"))
        for description, server in ((f"ssl:1:privateKey={broken}", True), (f"tls:x:1:certificate={broken}", False)):
            kind = SERVER if server else CLIENT
            error = self.assertRaises(CannotUse, kind.checkFiles, description)
            self.assertRegex(str(error), "^certificate or key: [a-z ]+$")
        other = Certificate(self.directory, "other", self.authority)
        pair = f"privateKey={quoted(other.key)}:certKey={quoted(self.host.certificate)}"
        told = "Certificate public and private keys do not match; expected something else"
        self.assertTold(f"ssl:1:{pair}", told)

    def test_noExtra(self) -> None:
        """
        Without the packages for TLS it is told how to get them, and plain endpoints work.
        """
        with mock.patch.dict(sys.modules, {"OpenSSL": None}):
            told = "TLS needs packages that are not installed: pip install 'txconnpool[tls]'"
            self.assertTold(self.server(), told)
            self.assertTold("tls:x:1", told, server=False)
            SERVER.checkFiles("tcp:1")

    def test_reason(self) -> None:
        """
        Of what OpenSSL says, the last reason is told; of other exceptions, the text or the name.
        """
        self.assertEqual(opensslReason(Exception([("a", "b", "first"), ("a", "b", "last")])), "last")
        self.assertEqual([opensslReason(error) for error in (Exception("x"), Exception([]), KeyError())],
                         ["x", "[]", "KeyError"])  # fmt: skip
