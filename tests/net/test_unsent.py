# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.unsent}.
"""

from __future__ import annotations

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.net.sockets import Sockets
from tests.pipes import Pipe
from txconnpool.net.unsent import unsentOf

SIZE = 4 << 20


class UnsentTests(Sockets):
    """
    Tests with direct transports.
    """

    def test_falls(self) -> None:
        """
        The bytes here and in the kernel are counted. Their number falls as the peer reads, until it is 0.
        """
        server, client = self.pair()
        self.assertEqual(unsentOf(client.transport), 0)
        server.transport.pauseProducing()
        client.transport.write(bytes(SIZE))
        self.iterate()
        before = unsentOf(client.transport)
        self.assertTrue(before > 0, before)
        server.transport.resumeProducing()
        self.until(lambda: len(server.data) > 0)
        self.until(lambda: unsentOf(client.transport) < before)
        self.until(lambda: len(server.data) == SIZE)
        self.until(lambda: unsentOf(client.transport) == 0)


class TwistedTests(UnsentTests):
    """
    Tests with Twisted's own transports.
    """

    direct = False


class UNIXTests(UnsentTests):
    """
    Tests with UNIX sockets.
    """

    domain = "UNIX"


class WrappedTests(SynchronousTestCase):
    """
    Tests for transports without a socket of their own.
    """

    def test_wrapped(self) -> None:
        """
        Those of the transport below a wrapper are counted.
        """

        class Wrapper:
            transport: Pipe

        pipe, wrapper = Pipe(None), Wrapper()  # type: ignore[arg-type]
        wrapper.transport = pipe
        pipe.reads = False
        pipe.write(b"abc")
        self.assertEqual((unsentOf(pipe), unsentOf(wrapper)), (3, 3))

    def test_unknown(self) -> None:
        """
        Of other transports nothing is known.
        """
        self.assertEqual(unsentOf(StringTransport()), 0)
