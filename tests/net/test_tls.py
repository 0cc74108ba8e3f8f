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
        Strings that begin with C{ssl:} or C{tls:}, in any case, may name certificates.
        """
        found = [each for each in ("ssl:1", "TLS:x", "tcp:1", "unix:/ssl:x", "tlsx:1", "memory:") if usesTLS(each)]
        self.assertEqual(found, ["ssl:1", "TLS:x"])


class WordsTests(TLSTestCase):
    """
    Tests for the errors about keys and certificates.
    """

    def assertError(self, description: str, text: str, server: bool = True) -> None:
        """
        Assert that an endpoint string is refused with a text, and without examples of other strings.
        """
        kind = SERVER if server else CLIENT
        kind.checkValue(description)
        error = self.assertRaises(ValueError, kind.checkFiles, description)
        self.assertEqual(str(error), text)

    def test_right(self) -> None:
        """
        Existing and matching files are accepted.
        """
        trusted = f"trustRoots={quoted(self.directory)}"
        ours = f"certificate={quoted(self.host.certificate)}:privateKey={quoted(self.host.key)}"
        CLIENT.checkFiles(f"tls:cache.example:11211:{trusted}:{ours}")
        SERVER.checkFiles(self.server(f"extraCertChain={quoted(self.authority.certificate)}"))

    def test_absent(self) -> None:
        """
        The error for a missing file or directory names its path.
        """
        absent = "No such file or directory"
        self.assertError("ssl:1:privateKey=/nonexistent/key", f"/nonexistent/key: {absent}")
        self.assertError(self.server("caCertsDir=/nonexistent/x"), f"/nonexistent/x: {absent}")
        self.assertError("tls:x:1:trustRoots=/nonexistent/x", f"/nonexistent/x: {absent}", server=False)
        self.assertError("tls:x:1:certificate=/nonexistent/x", f"/nonexistent/x: {absent}", server=False)

    def test_noAuthorities(self) -> None:
        """
        A directory without authorities is an error, because no peer could be verified.
        """
        empty = self.made("empty")
        (empty / "key.pem").write_bytes(self.host.key.read_bytes())
        text = f"no certificate in the .pem files of {empty}"
        self.assertError(self.server(f"caCertsDir={quoted(empty)}"), text)
        self.assertError(f"tls:x:1:trustRoots={quoted(empty)}", text, server=False)

    def test_broken(self) -> None:
        """
        The error for an invalid key or certificate, or for two that do not match, is the text of OpenSSL.
        """
        broken = quoted(self.made("broken", "not a key"))
        for description, server in ((f"ssl:1:privateKey={broken}", True), (f"tls:x:1:certificate={broken}", False)):
            kind = SERVER if server else CLIENT
            error = self.assertRaises(CannotUse, kind.checkFiles, description)
            self.assertRegex(str(error), "^certificate or key: [a-z ]+$")
        other = Certificate(self.directory, "other", self.authority)
        pair = f"privateKey={quoted(other.key)}:certKey={quoted(self.host.certificate)}"
        text = "Certificate public and private keys do not match; expected something else"
        self.assertError(f"ssl:1:{pair}", text)

    def test_noExtra(self) -> None:
        """
        Without the packages for TLS the error names the command to install them, and plain endpoints work.
        """
        with mock.patch.dict(sys.modules, {"OpenSSL": None}):
            text = "TLS needs packages that are not installed: pip install 'twisted[tls]'"
            self.assertError(self.server(), text)
            self.assertError("tls:x:1", text, server=False)
            SERVER.checkFiles("tcp:1")

    def test_reason(self) -> None:
        """
        The text of an OpenSSL error is its last reason; that of another exception is its text or the name of its class.
        """
        self.assertEqual(opensslReason(Exception([("a", "b", "first"), ("a", "b", "last")])), "last")
        self.assertEqual([opensslReason(error) for error in (Exception("x"), Exception([]), KeyError())],
                         ["x", "[]", "KeyError"])  # fmt: skip
