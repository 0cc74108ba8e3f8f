# -*- test-case-name: tests.net.test_transport -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.transport.DirectTransport}.

L{TransportTests} run on Twisted's own transports as well, so that they do not demand more than Twisted does.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    IReadDescriptor,
    ISystemHandle,
    ITCPTransport,
)
from twisted.internet.pollreactor import PollReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.bugs import covers
from tests.net.sockets import BIG, FailingHalf, Greeter, HalfCloser, Made, Puller, Recorder, Refuser, Sockets
from tests.pipes import Pipe, Pusher
from txconnpool.net.transport import HIGH_WATER, DirectTransport, endWriting, networkOf, redirect, wasClosed
from txconnpool.net.turn import Turn, atEndOfTurn, turns


class NetworkTests(SynchronousTestCase):
    """
    Tests for L{networkOf}.
    """

    def test_network(self) -> None:
        """
        An IPv6 address is known by its first half, others as a whole.
        """
        for host, expected in (
            ("2001:db8::1", "2001:0db8:0000:0000"),
            ("2001:db8::2:0:0:1", "2001:0db8:0000:0000"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("fe80::1%eth0", "fe80:0000:0000:0000"),
            ("10.0.0.1", "10.0.0.1"),
            ("a name", "a name"),
            ("a:name", "a:name"),
            (None, None),
        ):
            self.assertEqual(networkOf(host), expected)


class TransportTests:
    """
    Tests for the behaviour that all transports have.
    """

    def test_inOrder(self: Any) -> None:
        """
        Bytes written in several pieces arrive complete and in order.
        """
        server, client = self.pair()
        client.transport.write(b"one ")
        client.transport.writeSequence([b"two ", b"three "])
        client.transport.write(b"")
        self.until(lambda: server.data == b"one two three ")
        client.transport.write(b"four")
        self.until(lambda: server.data == b"one two three four")

    def test_answer(self: Any) -> None:
        """
        Bytes written while data is received are sent.
        """
        server, client = self.pair()
        server.onData = lambda data: server.transport.write(data.upper())
        for _ in range(3):
            client.data.clear()
            client.transport.write(b"hello")
            self.until(lambda: client.data == b"HELLO")

    def test_fromTimer(self: Any) -> None:
        """
        Bytes written by a timer are sent.
        """
        server, client = self.pair()
        self.reactor.callLater(0, server.transport.write, b"tick")
        self.until(lambda: client.data == b"tick")

    def test_whenMade(self: Any) -> None:
        """
        Bytes written in C{connectionMade} are sent.
        """
        server, client = self.pair(Greeter, Greeter)
        self.until(lambda: server.data == client.data == b"welcome")

    @covers("5", "13")
    def test_mixedSizes(self: Any) -> None:
        """
        Pieces of all sizes arrive unchanged at a peer that reads only now and then.
        """
        server, client = self.pair()
        server.transport.pauseProducing()
        sizes = [1, 70000, 3, 5, 300000, 20, 4096, 2, 65536, 65537, 1 << 20, 1]
        pieces = [bytes([65 + n % 26]) * size for n, size in enumerate(sizes * 4 + [100] * 3000 + [200000] * 5)]
        for n, piece in enumerate(pieces):
            client.transport.write(piece)
            if n % 20 == 0:
                server.transport.resumeProducing()
                self.iterate(1)
                server.transport.pauseProducing()
        server.transport.resumeProducing()
        self.until(lambda: len(server.data) >= sum(map(len, pieces)))
        self.assertTrue(server.data == b"".join(pieces))

    def test_manyPieces(self: Any) -> None:
        """
        Any number of pieces can be written in one turn, small ones and large ones.
        """
        server, client = self.pair()
        for size in (10, 5000):
            server.data.clear()
            pieces = [b"%d " % n + b"x" * size for n in range(1500)]
            client.transport.writeSequence(pieces)
            self.until(lambda pieces=pieces: len(server.data) >= sum(map(len, pieces)))
            self.assertTrue(server.data == b"".join(pieces))

    @covers("13")
    def test_big(self: Any) -> None:
        """
        A write far larger than the kernel accepts at once arrives complete, while the other direction works too.
        """
        server, client = self.pair()
        data = bytes(range(256)) * (BIG // 256)
        client.transport.write(data)
        client.transport.write(b"end")
        server.transport.write(b"meanwhile")
        self.until(lambda: len(server.data) == BIG + 3 and client.data)
        self.assertTrue(server.data == data + b"end")
        self.assertEqual(client.data, b"meanwhile")

    def test_onlyBytes(self: Any) -> None:
        """
        Only bytes can be written.
        """
        server, client = self.pair()
        for wrong in ("text", bytearray(b"x"), memoryview(b"x"), None):
            self.assertRaises(TypeError, client.transport.write, wrong)
        client.transport.write(b"right")
        self.until(lambda: server.data == b"right")

    def test_options(self: Any) -> None:
        """
        Addresses, options and the socket are those of the connection.
        """
        server, client = self.pair()
        self.assertEqual(server.transport.getHost(), self.ports[0].getHost())
        self.assertEqual(client.transport.getPeer(), server.transport.getHost())
        client.transport.setTcpKeepAlive(True)
        self.assertTrue(client.transport.getTcpKeepAlive())
        if self.domain == "TCP":
            self.assertEqual(server.transport.getPeer(), client.transport.getHost())
            for enabled in (True, False):
                server.transport.setTcpNoDelay(enabled)
                self.assertEqual(server.transport.getTcpNoDelay(), enabled)
        self.assertIsInstance(client.transport.getHandle(), socket.socket)
        self.assertEqual(client.transport.getHandle().getpeername(), server.transport.getHandle().getsockname())

    def test_interfaces(self: Any) -> None:
        """
        The transport provides the interfaces that it declares.
        """
        _, client = self.pair()
        for interface in (ITCPTransport, IConsumer, IPushProducer, ISystemHandle):
            verifyObject(interface, client.transport)

    # Closing

    def test_loseConnection(self: Any) -> None:
        """
        Closing first sends unsent bytes; both sides are notified once that the connection is done.
        """
        server, client = self.pair()
        client.transport.write(b"x" * BIG)
        client.transport.loseConnection()
        client.transport.loseConnection()
        self.assertTrue(client.transport.disconnecting)
        self.assertEqual(client.reasons, [])
        self.untilLost(server, client)
        self.assertEqual(len(server.data), BIG)
        self.assertIsInstance(client.reasons[0], ConnectionDone)
        self.assertIsInstance(server.reasons[0], ConnectionDone)

    def test_writeAfterLoseConnection(self: Any) -> None:
        """
        Bytes written before the connection is closed are sent.
        """
        server, client = self.pair()
        client.transport.write(b"x" * BIG)
        client.transport.loseConnection()
        client.transport.write(b"last words")
        self.untilLost(server)
        self.assertEqual(bytes(server.data[BIG:]), b"last words")

    def test_closingReadsNothing(self: Any) -> None:
        """
        A connection that is closing reads nothing, even if it is resumed.
        """
        server, client = self.pair()
        client.transport.write(b"x" * BIG)
        client.transport.loseConnection()
        client.transport.resumeProducing()
        server.transport.pauseProducing()
        server.transport.write(b"late")
        self.iterate()
        self.assertEqual((client.data, client.reasons), (b"", []))

    def test_stopProducing(self: Any) -> None:
        """
        C{stopProducing} closes a transport.
        """
        server, client = self.pair()
        client.transport.write(b"bye")
        client.transport.stopProducing()
        self.untilLost(server, client)
        self.assertEqual(server.data, b"bye")
        self.assertIsInstance(client.reasons[0], ConnectionDone)

    def test_loseWhenMade(self: Any) -> None:
        """
        A connection can be closed in C{connectionMade}.
        """
        servers, clients = Made(Refuser, self), Made(Recorder, self)
        port = self.reactor.listenTCP(0, servers, interface="127.0.0.1")
        self.ports.append(port)
        self.reactor.connectTCP("127.0.0.1", port.getHost().port, clients)
        self.until(lambda: servers.made and servers.made[0].reasons and clients.made and clients.made[0].reasons)
        self.assertEqual(clients.made[0].data, b"no")
        self.assertIsInstance(clients.made[0].reasons[0], ConnectionDone)

    def test_abort(self: Any) -> None:
        """
        Aborting drops unsent bytes. The reason is C{ConnectionAborted} on this side, and C{ConnectionLost} on the
        other.
        """
        server, client = self.pair()
        server.transport.pauseProducing()
        client.transport.write(b"x" * BIG)
        self.iterate()
        client.transport.pauseProducing()
        client.transport.abortConnection()
        client.transport.abortConnection()
        server.transport.resumeProducing()
        client.transport.write(b"too late")
        client.transport.loseConnection()
        self.assertEqual(client.reasons, [])
        self.untilLost(server, client)
        self.assertIsInstance(client.reasons[0], ConnectionAborted)
        self.assertLess(len(server.data), BIG)
        if self.domain == "TCP":
            self.assertIsInstance(server.reasons[0], ConnectionLost)

    def test_abortWhileReceiving(self: Any) -> None:
        """
        A protocol may abort its own connection while it receives data, and then receives nothing more.
        """
        server, client = self.pair()
        server.onData = lambda data: server.transport.abortConnection()
        client.transport.write(b"x")
        self.untilLost(client)
        self.assertIsInstance(server.reasons[0], ConnectionAborted)
        self.assertEqual(server.data, b"x")

    def test_abortHalf(self: Any) -> None:
        """
        An aborted connection gets no half-close notifications.
        """
        _, client = self.pair(HalfCloser, HalfCloser)
        client.transport.write(b"x")
        client.transport.abortConnection()
        client.transport.loseWriteConnection()
        self.untilLost(client)
        self.assertEqual(client.notes, [])
        self.assertIsInstance(client.reasons[0], ConnectionAborted)

    def test_reset(self: Any) -> None:
        """
        A connection that the peer resets is lost.
        """
        if self.domain != "TCP":
            return
        server, client = self.pair()
        client.transport.abortConnection()
        self.untilLost(server)
        self.assertIsInstance(server.reasons[0], ConnectionLost)

    def test_resetWhileBlocked(self: Any) -> None:
        """
        A lost connection is detected while it only writes.
        """
        server, client = self.pair()
        server.transport.pauseProducing()
        client.transport.pauseProducing()
        client.transport.write(b"x" * BIG)
        self.iterate()
        server.transport.abortConnection()
        self.untilLost(client)
        self.assertIsInstance(client.reasons[0], ConnectionLost)

    def test_writeAfterwards(self: Any) -> None:
        """
        No call on a transport whose connection is lost has an effect.
        """
        server, client = self.pair()
        client.transport.loseConnection()
        self.untilLost(server, client)
        for transport in (server.transport, client.transport):
            transport.write(b"x")
            transport.writeSequence([b"x"])
            transport.loseConnection()
            transport.abortConnection()
            transport.resumeProducing()
            transport.unregisterProducer()
        self.iterate()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_closeWhileLost(self: Any) -> None:
        """
        A protocol may use its transport in C{connectionLost}.
        """
        server, client = self.pair()
        server.onLost = lambda: (server.transport.write(b"x"), server.transport.loseConnection())
        client.transport.loseConnection()
        self.untilLost(server, client)

    # Half a connection

    def test_peerEnds(self: Any) -> None:
        """
        A protocol that supports half-closed connections is notified once that the peer has closed its side, and may
        still write.
        """
        server, client = self.pair(HalfCloser, HalfCloser)
        client.transport.write(b"request")
        client.transport.loseWriteConnection()
        self.until(lambda: server.notes)
        self.assertEqual((server.data, server.notes, client.notes), (b"request", ["read"], ["write"]))
        client.transport.write(b"ignored")
        server.transport.write(b"reply" * (BIG // 4))
        server.transport.loseConnection()
        self.until(lambda: server.reasons and client.notes == ["write", "read"])
        self.assertEqual(len(client.data), 5 * BIG // 4)
        self.assertEqual(server.notes, ["read"])
        self.assertIsInstance(server.reasons[0], ConnectionDone)
        self.assertEqual(client.reasons, [])
        client.transport.loseConnection()
        self.untilLost(client)
        self.assertIsInstance(client.reasons[0], ConnectionDone)
        self.assertEqual(server.data, b"request")

    def test_endTwice(self: Any) -> None:
        """
        C{loseWriteConnection} may be called twice.
        """
        server, client = self.pair(HalfCloser, HalfCloser)
        client.transport.loseWriteConnection()
        client.transport.loseWriteConnection()
        self.until(lambda: server.notes)
        self.iterate()
        self.assertEqual(client.notes, ["write"])

    def test_endAfterUnsent(self: Any) -> None:
        """
        The end of the stream comes after all bytes that were written before it was sent, including those written after
        the call.
        """
        server, client = self.pair(HalfCloser, HalfCloser)
        client.transport.write(b"x" * BIG)
        client.transport.loseWriteConnection()
        client.transport.write(b"last")
        self.assertEqual(client.notes, [])
        self.until(lambda: server.notes)
        self.assertEqual(len(server.data), BIG + 4)

    def test_endOfWholeConnection(self: Any) -> None:
        """
        A protocol that does not support half-closed connections loses its connection when the peer closes its side.
        """
        server, client = self.pair(Recorder, HalfCloser)
        client.transport.loseWriteConnection()
        self.untilLost(server)
        self.assertIsInstance(server.reasons[0], ConnectionDone)

    def test_endWithoutBeingTold(self: Any) -> None:
        """
        A protocol that does not support half-closed connections may still close its own side.
        """
        server, client = self.pair(HalfCloser, Recorder)
        client.transport.loseWriteConnection()
        self.until(lambda: server.notes)
        server.transport.write(b"reply")
        self.until(lambda: client.data == b"reply")

    def test_failingHalves(self: Any) -> None:
        """
        If a protocol raises an exception in a half-close notification, its connection is closed.
        """
        server, client = self.pair(FailingHalf, FailingHalf)
        client.transport.loseWriteConnection()
        self.untilLost(server, client)
        self.assertIsInstance(server.reasons[0], ZeroDivisionError)
        self.assertIsInstance(client.reasons[0], ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    # Producers

    def test_pushProducer(self: Any) -> None:
        """
        A push producer is paused when the peer does not read, and resumed when all bytes are sent.
        """
        server, client = self.pair()
        server.transport.pauseProducing()
        producer = Pusher()
        client.transport.registerProducer(producer, True)
        client.transport.write(b"x" * HIGH_WATER)
        self.assertEqual(producer.calls, [])
        client.transport.write(b"x" * BIG)
        self.assertEqual(producer.calls, ["pause"])
        self.iterate()
        self.assertEqual(producer.calls, ["pause"])
        server.transport.resumeProducing()
        self.until(lambda: len(producer.calls) > 1)
        self.assertEqual(producer.calls, ["pause", "resume"])
        client.transport.write(b"x" * BIG)
        self.assertEqual(producer.calls, ["pause", "resume", "pause"])
        self.until(lambda: len(producer.calls) == 4 and len(server.data) == HIGH_WATER + 2 * BIG)
        client.transport.unregisterProducer()
        client.transport.write(b"x" * BIG)
        self.assertEqual(producer.calls, ["pause", "resume", "pause", "resume"])

    def test_nextProducer(self: Any) -> None:
        """
        Only one producer can be registered. After it was unregistered, in any state, another one is paused in the same
        way.
        """
        server, client = self.pair()
        server.transport.pauseProducing()
        first, second = Pusher(), Pusher()
        client.transport.registerProducer(first, True)
        self.assertRaises(RuntimeError, client.transport.registerProducer, second, True)
        client.transport.write(b"x" * BIG)
        client.transport.unregisterProducer()
        client.transport.registerProducer(second, True)
        client.transport.write(b"x" * BIG)
        self.assertEqual((first.calls, second.calls), (["pause"], ["pause"]))
        client.transport.unregisterProducer()

    def test_pullProducer(self: Any) -> None:
        """
        A pull producer is asked for bytes whenever all bytes are sent, until it is unregistered.
        """
        server, client = self.pair()
        producer = Puller(client.transport, 50)
        client.transport.registerProducer(producer, False)
        self.untilLost(server)
        self.assertEqual(server.data, producer.made)
        self.assertEqual(producer.count, 0)
        self.assertEqual(producer.calls, [])

    def test_briefPullProducer(self: Any) -> None:
        """
        A pull producer without bytes may unregister itself at once.
        """
        server, client = self.pair()
        client.transport.registerProducer(Puller(client.transport, 0), False)
        self.untilLost(server, client)

    def test_stoppedProducer(self: Any) -> None:
        """
        A producer is stopped once when the connection is lost. One that is registered later is stopped at once.
        """
        server, client = self.pair()
        first, second = Pusher(), Pusher()
        client.transport.registerProducer(first, True)
        server.transport.loseConnection()
        self.untilLost(client)
        client.transport.registerProducer(second, True)
        self.assertEqual((first.calls, second.calls), (["stop"], ["stop"]))

    def test_closeAfterProducer(self: Any) -> None:
        """
        A producer that is paused when the connection is closed is resumed before that, to write its remaining bytes.
        """
        server, client = self.pair()
        producer = Pusher()
        producer.onResume = lambda: (client.transport.write(b"rest"), client.transport.unregisterProducer())
        client.transport.registerProducer(producer, True)
        client.transport.write(b"x" * BIG)
        client.transport.loseConnection()
        self.untilLost(server)
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.assertEqual(bytes(server.data[BIG:]), b"rest")

    def test_closeWithoutRest(self: Any) -> None:
        """
        If such a producer has no bytes, unregistering it closes the connection.
        """
        server, client = self.pair()
        producer = Pusher()
        client.transport.registerProducer(producer, True)
        client.transport.write(b"x" * BIG)
        client.transport.loseConnection()
        self.until(lambda: "resume" in producer.calls)
        self.iterate()
        self.assertEqual(client.reasons, [])
        client.transport.unregisterProducer()
        self.untilLost(server, client)
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_closeWithProducer(self: Any) -> None:
        """
        A push producer that is not paused does not delay the close, even if it was paused before.
        """
        server, client = self.pair()
        producer = Pusher()
        client.transport.registerProducer(producer, True)
        client.transport.write(b"x" * BIG)
        self.until(lambda: producer.calls == ["pause", "resume"])
        client.transport.write(b"bye")
        client.transport.loseConnection()
        self.untilLost(server, client)
        self.assertEqual(producer.calls, ["pause", "resume", "stop"])
        self.assertTrue(server.data.endswith(b"bye"))

    def test_failingProducer(self: Any) -> None:
        """
        A producer that raises an exception when it is resumed loses its connection.
        """
        server, client = self.pair()
        producer = Pusher()
        producer.onResume = lambda: 1 // 0
        client.transport.registerProducer(producer, True)
        client.transport.write(b"x" * BIG)
        self.untilLost(server, client)
        self.assertIsInstance(client.reasons[0], ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_pauseReading(self: Any) -> None:
        """
        Nothing is read while reading is paused, and nothing is lost.
        """
        server, client = self.pair()
        server.transport.pauseProducing()
        server.transport.pauseProducing()
        client.transport.write(b"x" * 1000)
        self.iterate()
        self.assertEqual(server.data, b"")
        server.transport.resumeProducing()
        server.transport.resumeProducing()
        self.until(lambda: server.data == b"x" * 1000)

    def test_pauseWhileReceiving(self: Any) -> None:
        """
        A protocol that pauses while it receives data receives nothing until it resumes, and may write.
        """
        server, client = self.pair()
        server.onData = lambda data: (server.transport.pauseProducing(), server.transport.write(data))
        client.transport.write(b"1")
        self.until(lambda: client.data == b"1")
        client.transport.write(b"2")
        self.iterate()
        self.assertEqual(server.data, b"1")
        server.transport.resumeProducing()
        self.until(lambda: client.data == b"12")

    def test_pausedEnd(self: Any) -> None:
        """
        A peer that closes is detected when reading is resumed, after its last bytes.
        """
        server, client = self.pair()
        server.transport.pauseProducing()
        client.transport.write(b"last")
        client.transport.loseConnection()
        self.untilLost(client)
        self.iterate()
        self.assertEqual((server.data, server.reasons), (b"", []))
        server.transport.resumeProducing()
        self.untilLost(server)
        self.assertEqual(server.data, b"last")
        self.assertIsInstance(server.reasons[0], ConnectionDone)

    # Failures and neighbors

    def test_failure(self: Any) -> None:
        """
        An exception of a protocol is logged once, and closes its own connection and no other.
        """
        pairs = [self.pair() for _ in range(3)]
        pairs[1][0].onData = lambda data: 1 // 0
        for _, client in pairs:
            client.transport.write(b"x")
        self.untilLost(*pairs[1])
        self.assertIsInstance(pairs[1][0].reasons[0], ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        for server, client in (pairs[0], pairs[2]):
            client.transport.write(b"y")
            self.until(lambda server=server: server.data == b"xy")

    def test_failureAfterAbort(self: Any) -> None:
        """
        A protocol that aborts and then raises an exception is notified of the end once.
        """
        server, client = self.pair()
        server.onData = lambda data: (server.transport.abortConnection(), 1 // 0)
        client.transport.write(b"x")
        self.untilLost(server, client)
        self.iterate()
        self.assertEqual(len(server.reasons), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failingEnd(self: Any) -> None:
        """
        An exception in C{connectionLost} is logged once, and other connections go on.
        """
        pairs = [self.pair() for _ in range(2)]
        pairs[0][0].onLost = lambda: 1 // 0
        pairs[0][1].transport.loseConnection()
        pairs[1][1].transport.write(b"x")
        self.until(lambda: pairs[0][0].reasons and pairs[1][0].data)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failingAlways(self: Any) -> None:
        """
        A protocol that also raises an exception in C{connectionLost} affects no other connection.
        """
        pairs = [self.pair() for _ in range(2)]
        pairs[0][0].onData = pairs[0][0].onLost = lambda *args: 1 // 0
        for _, client in pairs:
            client.transport.write(b"x")
        self.untilLost(*pairs[0])
        self.until(lambda: pairs[1][0].data)
        pairs[1][1].transport.write(b"y")
        self.until(lambda: pairs[1][0].data == b"xy")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_neighborsClosed(self: Any) -> None:
        """
        A protocol may close other connections that have events in the same turn.
        """
        pairs = [self.pair() for _ in range(6)]

        def closeOthers(data: bytes) -> None:
            for n, (server, _) in enumerate(pairs):
                if not server.data:
                    server.transport.abortConnection() if n % 2 else server.transport.loseConnection()

        for server, client in pairs:
            server.onData = closeOthers
            client.transport.write(b"x")
        self.until(lambda: sum(bool(server.reasons) for server, _ in pairs) == 5)
        [survivor] = [server for server, _ in pairs if not server.reasons]
        self.assertEqual(survivor.data, b"x")

    def test_neighborPaused(self: Any) -> None:
        """
        A protocol may pause another one that has data in the same turn. Bytes that were read already may still be
        delivered; later ones are delivered when it is resumed.
        """
        pairs = [self.pair() for _ in range(2)]
        (first, firstClient), (second, secondClient) = pairs
        first.onData = lambda data: second.transport.pauseProducing()
        second.onData = lambda data: first.transport.pauseProducing()
        firstClient.transport.write(b"x")
        secondClient.transport.write(b"x")
        self.until(lambda: first.data or second.data)
        self.iterate()
        paused = second if first.data else first
        came = paused.data
        for _, client in pairs:
            client.transport.write(b"y")
        self.iterate()
        self.assertEqual(paused.data, came)
        for server, _ in pairs:
            server.onData = len
            server.transport.resumeProducing()
        self.until(lambda: first.data == second.data == b"xy")

    def test_crowd(self: Any) -> None:
        """
        Many connections answer at the same time.
        """
        pairs = [self.pair() for _ in range(20)]
        for server, _ in pairs:
            server.onData = server.transport.write
        for n, (_, client) in enumerate(pairs):
            client.transport.write(b"%d" % n)
        self.until(lambda: all(client.data == b"%d" % n for n, (_, client) in enumerate(pairs)))


class TwistedTests(TransportTests, Sockets):
    """
    The tests with Twisted's own transports.
    """

    direct = False

    def test_notAdopted(self) -> None:
        """
        These tests run on Twisted's transports.
        """
        server, client = self.pair()
        self.assertNotIsInstance(server.transport, DirectTransport)
        self.assertNotIsInstance(client.transport, DirectTransport)


class TwistedUNIXTests(TwistedTests):
    """
    The tests with Twisted's own transports on UNIX sockets.
    """

    domain = "UNIX"


class DirectTests(TransportTests, Sockets):
    """
    The tests with direct transports.
    """

    def test_adopted(self) -> None:
        """
        These tests use direct transports, and the reactor watches only the one turn.
        """
        server, client = self.pair()
        self.assertIsInstance(server.transport, DirectTransport)
        self.assertIsInstance(client.transport, DirectTransport)
        self.ports[0].stopListening()
        self.iterate()
        [turn] = [reader for reader in self.reactor.getReaders() if reader not in self.wakers]
        verifyObject(IReadDescriptor, turn)
        self.assertIsInstance(turn, Turn)
        self.assertIn("DirectTransport", repr(turn))

    def test_atEndOfTurn(self) -> None:
        """
        A function that is called at the end of a turn may write, and its bytes are sent in the same turn. It is also
        called if no turn is running.
        """
        server, client = self.pair()
        transport = client.transport
        self.assertTrue(atEndOfTurn(self.reactor, lambda: transport.write(b"first")))
        self.until(lambda: server.data == b"first")
        calls: list[bytes] = []
        received = server.dataReceived

        def receive(data: bytes) -> None:
            received(data)
            server.transport.write(b"echo")
            atEndOfTurn(self.reactor, lambda: calls.append(bytes(client.data)))

        redirect(server.transport, server, receive)
        transport.write(b" second")
        self.until(lambda: client.data == b"echo")
        self.assertEqual((server.data, calls), (b"first second", [b""]))
        self.assertFalse(atEndOfTurn(object(), self.fail))

    def test_atEndOfLastTurn(self) -> None:
        """
        The function is also called if the last transport was closed before, outside a turn.
        """
        server, client = self.pair()
        calls: list[int] = []
        self.assertTrue(atEndOfTurn(self.reactor, lambda: calls.append(1)))
        for protocol in (server, client):
            protocol.transport.abortConnection()
        self.until(lambda: calls == [1])
        self.iterate()
        self.assertNotIn(self.reactor, turns)


class DirectUNIXTests(DirectTests):
    """
    The tests with direct transports on UNIX sockets.
    """

    domain = "UNIX"


class DirectPollTests(DirectTests):
    """
    The tests with direct transports on the poll reactor.
    """

    def makeReactor(self) -> Any:
        """
        @return: a poll reactor.
        """
        return PollReactor()


class DirectSelectTests(DirectTests):
    """
    The tests with direct transports on the select reactor.
    """

    def makeReactor(self) -> Any:
        """
        @return: a select reactor.
        """
        return SelectReactor()


class DirectAsyncioTests(DirectTests):
    """
    The tests with direct transports on the asyncio reactor.
    """

    def makeReactor(self) -> Any:
        """
        @return: a reactor on an event loop of its own.
        """
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)
        return AsyncioSelectorReactor(self.loop)

    def step(self, delay: float = 0) -> None:
        """
        Run one iteration of the event loop, without the pause of the reactor's C{iterate}.
        """
        if delay:
            self.loop.call_later(delay, self.loop.stop)
        else:
            self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()


class EndTests(SynchronousTestCase):
    """
    Tests for L{endWriting} and L{wasClosed}.
    """

    def test_plain(self) -> None:
        """
        A plain connection is closed in one direction. It was closed if the reason says so.
        """
        pipe = Pipe(Clock())
        endWriting(pipe)
        self.assertEqual((pipe.halfClosed, pipe.closing), (True, False))
        reasons = (ConnectionDone(), ConnectionLost())
        self.assertEqual([wasClosed(pipe, Failure(each)) for each in reasons], [True, False])

    def test_wrapped(self) -> None:
        """
        Of a connection over another transport, as with TLS, the direction below is never closed. Its loss is no reset:
        many peers do not announce their end.
        """
        pipe = Pipe(Clock())
        pipe.transport = Pipe(Clock())  # type: ignore[attr-defined]
        endWriting(pipe)
        self.assertEqual((pipe.halfClosed, pipe.closing), (False, True))
        self.assertTrue(wasClosed(pipe, Failure(ConnectionLost())))
