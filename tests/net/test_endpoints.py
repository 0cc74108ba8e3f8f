# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.endpoints}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.certificates import quoted
from tests.net.tlscase import Named, TLSTestCase
from txconnpool.net.endpoints import TLSClientEndpoint, clientEndpoint, nameOf
from txconnpool.net.tls import CannotUse


class NameTests(SynchronousTestCase):
    """
    Tests for L{nameOf}.
    """

    def test_name(self) -> None:
        """
        The name of a server is its endpoint string without the arguments for certificates and timeouts.
        """
        for description, name in (
            ("tcp:h:1", "tcp:h:1"),
            ("memory:size=64m", "memory:size=64m"),
            (r"tls:h:1:trustRoots=/etc\:x/y:certificate=/a.pem:privateKey=/a.key:timeout=3", "tls:h:1"),
            (r"tls:h:1:trustRoots=/x:endpoint=unix\:/run/y", r"tls:h:1:endpoint=unix\:/run/y"),
            ("ssl:host=h:port=1:caCertsDir=/x:certKey=/y", "ssl:host=h:port=1"),
        ):
            self.assertEqual((nameOf(description), nameOf(name)), (name, name))


class TLSClientEndpointTests(TLSTestCase):
    """
    Tests for L{TLSClientEndpoint} and L{clientEndpoint}.
    """

    def setUp(self) -> None:
        """
        Create an endpoint that trusts an authority.
        """
        super().setUp()
        self.reactor = MemoryReactorClock()
        self.trusted = self.made("trusted")
        self.file = self.trusted / "authority.pem"
        # With endpoint= no name is resolved, which takes a different number of turns in different versions of Twisted.
        inner = r"tcp\:127.0.0.1\:11211"
        trusted = quoted(self.trusted)
        self.endpoint = clientEndpoint(self.reactor, f"tls:127.0.0.1:11211:trustRoots={trusted}:endpoint={inner}")

    def test_plain(self) -> None:
        """
        Only endpoint strings with TLS become a L{TLSClientEndpoint}.
        """
        verifyObject(IStreamClientEndpoint, self.endpoint)
        self.assertIsInstance(self.endpoint, TLSClientEndpoint)
        self.assertNotIsInstance(clientEndpoint(self.reactor, "tcp:127.0.0.1:11211"), TLSClientEndpoint)

    def test_readToConnect(self) -> None:
        """
        Certificates are read when the endpoint connects. If they cannot be read, C{connect} fails, and the next call
        reads them again.
        """
        failure = self.failureResultOf(self.endpoint.connect(Named()), CannotUse)
        self.assertEqual(str(failure.value), f"no certificate in the .pem files of {self.trusted}")
        self.file.write_bytes(self.authority.certificate.read_bytes())
        for connections in (1, 2):
            self.assertNoResult(self.endpoint.connect(Named()))
            self.assertEqual(len(self.reactor.tcpClients), connections)
            self.file.unlink(missing_ok=True)

    def test_read(self) -> None:
        """
        Certificates that were read before C{connect} are used.
        """
        endpoint: Any = self.endpoint
        self.file.write_bytes(self.authority.certificate.read_bytes())
        endpoint.read()
        self.file.unlink()
        self.assertNoResult(endpoint.connect(Named()))
        self.assertRaises(CannotUse, endpoint.read)

    def test_wrong(self) -> None:
        """
        An invalid string is an error of the constructor.
        """
        self.assertRaises(ValueError, clientEndpoint, self.reactor, "tls:h")

    def test_suggested(self) -> None:
        """
        The error for a server that has no C{tcp:} says what to write.
        """
        for text, right in (("11211", "tcp:127.0.0.1:11211"), ("10.0.0.1:6379", "tcp:10.0.0.1:6379")):
            error = self.assertRaises(ValueError, clientEndpoint, self.reactor, text)
            self.assertTrue(str(error).endswith(f"; did you mean {right}?"), error)
        error = self.assertRaises(ValueError, clientEndpoint, self.reactor, "smtp:x")
        self.assertNotIn(";", str(error))
