# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.records}.
"""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import missingTLS
from tests.net.tlscase import TLSTestCase
from txconnpool.net.listening import Listener

if not missingTLS:
    from txconnpool.net import records
    from txconnpool.net.records import RECORDS, RecordEnds


def record(size: int) -> bytes:
    """
    @return: a TLS record with C{size} bytes.
    """
    return b"\x17\x03\x03" + size.to_bytes(2, "big") + b"x" * size


class RecordEndsTests(SynchronousTestCase):
    """
    Tests for L{RecordEnds}.
    """

    skip = missingTLS

    def test_count(self) -> None:
        """
        The position after some records is found, wherever the bytes are divided.
        """
        data = record(1) + record(0) + record(300) + record(70)
        for count, expected in ((1, 6), (2, 11), (3, 316), (4, 391), (5, 391)):
            self.assertEqual(RecordEnds().find(data, 0, count), expected)
        for place in range(len(data)):
            ends = RecordEnds()
            self.assertEqual(ends.find(data[:place], 0, 100), place)
            for count, expected in enumerate((6, 11, 316, 391)):
                if expected > place:
                    before = sum(end <= place for end in (6, 11, 316))
                    self.assertEqual(ends.find(data, place, count + 1 - before), expected)
                    break

    def test_position(self) -> None:
        """
        Each call goes on where the one before has ended.
        """
        data = record(3) * 10
        ends, pos, found = RecordEnds(), 0, []
        while pos < len(data):
            pos = ends.find(data, pos, 4)
            found.append(pos)
        self.assertEqual(found, [32, 64, 80])


class Taking(Protocol):
    """
    Keeps what it receives.
    """

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.reason: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.reason = reason


class Transport(StringTransport):
    """
    A transport that can be paused in any state, as that of a socket.
    """

    reading = True

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True


class BoundedTLSTests(TLSTestCase):
    """
    Tests for L{txconnpool.net.records.BoundedTLS}.
    """

    def setUp(self) -> None:
        """
        Connect a client, and complete the handshake.
        """
        super().setUp()
        self.reactor = MemoryReactorClock()
        factory = Factory.forProtocol(Taking)
        self.successResultOf(Listener(self.reactor, self.server()).listen(factory))
        self.transport = Transport()
        door: Any = self.reactor.tcpServers[0][1]
        self.tls = door.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        self.tls.makeConnection(self.transport)
        self.protocol: Any = self.tls.wrappedProtocol
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self.incoming, self.outgoing, server_hostname="host")
        for _ in range(3):
            try:
                self.client.do_handshake()
            except ssl.SSLWantReadError:
                pass
            if data := self.outgoing.read():
                self.tls.dataReceived(data)
            self.incoming.write(self.transport.value())
            self.transport.clear()

    def records(self, count: int) -> bytes:
        """
        @return: records with one byte each.
        """
        for number in range(count):
            self.client.write(b"%d" % (number % 10))
        return self.outgoing.read()

    def test_turns(self) -> None:
        """
        Few records are taken in each turn, in their order, and nothing is read meanwhile.
        """
        count = 3 * RECORDS + 1
        self.tls.dataReceived(self.records(count))
        received = self.protocol.received
        for turn in range(1, 4):
            self.assertEqual((len(received), self.transport.reading), (turn * RECORDS, False))
            (call,) = self.reactor.calls
            self.reactor.calls.clear()
            call.func()
        self.assertEqual((len(received), self.transport.reading, self.reactor.calls), (count, True, []))
        self.assertEqual(b"".join(received), b"".join(b"%d" % (number % 10) for number in range(count)))

    def test_more(self) -> None:
        """
        What arrives meanwhile all the same is taken after that.
        """
        self.tls.dataReceived(self.records(RECORDS + 5))
        self.tls.dataReceived(self.records(3))
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.received), RECORDS + 8)

    def test_large(self) -> None:
        """
        Large records are taken at once, and the pieces of one.
        """
        self.client.write(b"x" * 100000)
        data = self.outgoing.read()
        for place in range(0, len(data), 999):
            self.tls.dataReceived(data[place : place + 999])
        self.assertEqual(b"".join(self.protocol.received), b"x" * 100000)
        self.assertEqual(self.reactor.calls, [])

    def test_paused(self) -> None:
        """
        A protocol that has paused reading stays paused, and one that resumes it gets what was kept first.
        """
        self.tls.dataReceived(self.records(RECORDS + 1))
        self.tls.pauseProducing()
        self.reactor.advance(0)
        self.assertFalse(self.transport.reading)
        self.tls.resumeProducing()
        self.assertTrue(self.transport.reading)
        self.tls.dataReceived(self.records(RECORDS + 1))
        self.tls.pauseProducing()
        self.tls.resumeProducing()
        self.assertFalse(self.transport.reading)
        self.reactor.advance(0)
        self.assertTrue(self.transport.reading)

    def test_lost(self) -> None:
        """
        What was kept is dropped when the connection is lost.
        """
        self.tls.dataReceived(self.records(RECORDS + 1))
        self.tls.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.reactor.calls, len(self.protocol.received)), ([], RECORDS))

    def test_aborted(self) -> None:
        """
        Nothing is taken after the protocol has aborted the connection.
        """
        self.tls.dataReceived(self.records(RECORDS + 1))
        self.tls.abortConnection()
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.received), RECORDS)
        self.assertTrue(self.transport.disconnected)

    def test_steps(self) -> None:
        """
        A connection with too many messages of TLS itself is closed.
        """
        self.assertLess(self.tls.steps, 30)
        self.patch(records, "STEPS_MAX", self.tls.steps)
        self.tls.dataReceived(self.records(1))
        self.assertFalse(self.transport.disconnected)
        self.tls.steps += 1
        self.tls.dataReceived(self.records(1))
        self.assertTrue(self.transport.disconnected)

    def test_unwanted(self) -> None:
        """
        A connection for which the wrapped factory makes no protocol is closed by the port.
        """
        factory = Factory()
        factory.buildProtocol = lambda addr: None  # type: ignore[method-assign]
        reactor = MemoryReactorClock()
        self.successResultOf(Listener(reactor, self.server()).listen(factory))
        door: Any = reactor.tcpServers[0][1]
        self.assertIsNone(door.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)))
