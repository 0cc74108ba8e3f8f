# -*- test-case-name: tests.test_transport -*-
# Copyright txconnpool contributors. See LICENSE.

"""
Tests of L{txconnpool.transport} that need no socket.
"""

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.transport import adopt


class AdoptTests(SynchronousTestCase):
    """
    What is not taken over.
    """

    def test_inMemory(self) -> None:
        """
        A protocol on a transport without a socket keeps that transport.
        """
        transport = StringTransport()
        protocol = Protocol()
        protocol.makeConnection(transport)
        self.assertIs(adopt(protocol, Clock()), transport)
