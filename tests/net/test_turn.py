# -*- test-case-name: tests.net.test_turn -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.turn}.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import sys
import weakref

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from tests.bugs import covers
from tests.net.sockets import BIG, HalfCloser, Puller, Sockets
from tests.pipes import Pusher
from txconnpool.net import turn as turnModule
from txconnpool.net.transport import HIGH_WATER, adopt
from txconnpool.net.turn import ROUNDS, turns


class TurnTests(Sockets):
    """
    Tests for the behaviour that only direct transports have.
    """

    #: Whether transports that are written to outside a turn are settled by a delayed call.
    delayed = True

    def test_oneSend(self) -> None:
        """
        All bytes written in one turn are sent at its end, with one call.
        """
        recorder, peer = self.messages()

        def answer(data: bytes) -> None:
            recorder.transport.write(b"a")
            recorder.transport.writeSequence([b"b", b"c"])
            self.assertRaises(BlockingIOError, peer.recv, 100)
            self.assertEqual((recorder.transport.unsent, recorder.transport.queued), (3, True))

        recorder.onData = answer
        peer.send(b"x")
        self.iterate()
        self.assertEqual(recorder.data, b"x")
        self.assertEqual(peer.recv(100), b"abc")
        self.assertRaises(BlockingIOError, peer.recv, 100)
        self.assertEqual((recorder.transport.unsent, recorder.transport.queued), (0, False))

    def test_oneSendOutsideOfTurns(self) -> None:
        """
        Bytes written outside a turn are sent with one call for each transport, by one delayed call for all transports,
        or by the reactor.
        """
        pairs = [self.messages() for _ in range(3)]
        for recorder, _ in pairs:
            recorder.transport.write(b"a")
            recorder.transport.write(b"b")
        self.assertEqual(len(self.reactor.getDelayedCalls()), int(self.delayed))
        self.iterate()
        for _, peer in pairs:
            self.assertEqual(peer.recv(100), b"ab")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_noCallLeft(self) -> None:
        """
        When the last transport is removed, the delayed call that was to settle it is cancelled.
        """
        recorder, _ = self.messages()
        recorder.transport.write(b"a")
        recorder.transport.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_largePiecesNotJoined(self) -> None:
        """
        A large piece and others are sent with one call, without being joined.
        """
        recorder, peer = self.messages()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        recorder.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        recorder.transport.writeSequence([b"VALUE\r\n", b"x" * 80000, b"\r\n"])
        self.iterate()
        self.assertEqual(peer.recv(1 << 20), b"VALUE\r\n" + b"x" * 80000 + b"\r\n")

    def test_unsent(self) -> None:
        """
        C{unsent} is correct at any time, and 0 after the connection is lost.
        """
        server, client = self.pair()
        server.transport.pauseProducing()
        self.assertEqual(client.transport.unsent, 0)
        client.transport.write(b"x" * BIG)
        self.assertEqual(client.transport.unsent, BIG)
        self.iterate()
        before = client.transport.unsent
        self.assertTrue(0 < before < BIG, before)
        server.transport.resumeProducing()
        self.until(lambda: client.transport.unsent < before)
        server.transport.pauseProducing()
        client.transport.write(b"x" * BIG)
        client.transport.abortConnection()
        self.assertEqual(client.transport.unsent, 0)

    def test_smallPiecesOfAFullSocket(self) -> None:
        """
        Small pieces that are written while the peer does not read use no more memory than their bytes.
        """
        server, client = self.pair()
        server.transport.pauseProducing()
        client.transport.write(b"x" * BIG)
        self.iterate()
        for number in range(10000):
            client.transport.write(b"%04d " % number)
        self.assertLess(client.transport.pieces, 30)
        server.transport.resumeProducing()
        self.until(lambda: client.transport.unsent == 0 and len(server.data) == BIG + 50000)
        self.assertEqual(server.data[BIG:], b"".join(b"%04d " % number for number in range(10000)))

    def test_copyOfSocket(self) -> None:
        """
        A closed socket is not watched, even if a child process has a copy of it.
        """
        recorder, peer = self.messages()
        another, _ = self.messages()
        copy = recorder.transport.getHandle().dup()
        self.addCleanup(copy.close)
        recorder.transport.loseConnection()
        self.iterate()
        self.assertEqual(len(recorder.reasons), 1)
        copy.setblocking(False)
        peer.close()
        self.assertEqual(select.select([turns[self.reactor]], [], [], 0), ([], [], []))
        self.assertEqual(another.reasons, [])

    @covers("26")
    def test_nothingKept(self) -> None:
        """
        A transport whose connection is lost keeps no reference to the protocol or to unsent bytes.
        """
        recorder, _ = self.messages()
        transport = recorder.transport
        data = bytes(BIG)
        before = sys.getrefcount(data)
        transport.write(data)
        transport.abortConnection()
        self.assertEqual(sys.getrefcount(data), before)
        self.untilLost(recorder)
        self.made.clear()
        kept = weakref.ref(recorder)
        self.addCleanup(gc.enable)
        gc.disable()
        del recorder
        self.assertIsNone(kept())

    def test_failingEnds(self) -> None:
        """
        A protocol that raises an exception when the reactor ends, or when the peer resets, affects no other connection.
        """
        pairs = [self.pair() for _ in range(2)]
        for server, client in pairs:
            server.onLost = client.onLost = lambda: 1 // 0
        pairs[0][0].transport.abortConnection()
        self.untilLost(*pairs[0])
        for reader in self.reactor.removeAll():
            reader.connectionLost(Failure(ConnectionLost()))
        self.untilLost(*pairs[1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)

    def test_kernelTakesAll(self) -> None:
        """
        A push producer is not paused for bytes that the kernel takes at once.
        """
        server, client = self.pair()
        producer = Pusher()
        client.transport.registerProducer(producer, True)
        for handle, option in ((client, socket.SO_SNDBUF), (server, socket.SO_RCVBUF)):
            handle.transport.getHandle().setsockopt(socket.SOL_SOCKET, option, 1 << 18)
        client.transport.write(b"x" * (HIGH_WATER + 1))
        self.assertEqual(producer.calls, [])
        client.transport.unregisterProducer()

    def test_brokenWhileCrowded(self) -> None:
        """
        If a connection is found to be broken while a producer is paused, the protocol is notified later and not then.
        """
        server, client = self.pair()
        client.transport.registerProducer(Pusher(), True)
        client.transport.pauseProducing()
        server.transport.abortConnection()
        self.untilLost(server)
        client.transport.write(b"x" * BIG)
        self.assertEqual(client.reasons, [])
        self.untilLost(client)
        self.assertIsInstance(client.reasons[0], ConnectionLost)

    def test_resumedAfterEnd(self) -> None:
        """
        A protocol is not notified a second time that the peer has closed its side if it resumes reading.
        """
        server, client = self.pair(HalfCloser, HalfCloser)
        client.transport.loseWriteConnection()
        self.until(lambda: server.notes)
        server.transport.pauseProducing()
        server.transport.resumeProducing()
        self.iterate()
        self.assertEqual(server.notes, ["read"])

    def test_otherSocketSameNumber(self) -> None:
        """
        An event of a socket that was closed earlier in the turn does not affect a new socket with the same descriptor.
        """
        first, firstPeer = self.messages()
        second, secondPeer = self.messages()
        number = second.transport.getHandle().fileno()
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)

        def replace(data: bytes) -> None:
            second.transport.close(Failure(ConnectionDone()))
            third = self.connect(ours)
            self.assertEqual(third.transport.getHandle().fileno(), number)

        first.onData = replace
        firstPeer.send(b"1")
        secondPeer.send(b"2")
        self.iterate()
        third = self.made[-1]
        self.assertEqual((second.data, third.data, third.reasons), (b"", b"", []))
        theirs.send(b"3")
        self.iterate()
        self.assertEqual(third.data, b"3")

    @covers("20")
    def test_fairness(self) -> None:
        """
        Two transports that always have work for each other do not block the rest of the application.
        """
        server, client = self.pair()
        counts = []

        def answer(data: bytes) -> None:
            counts.append(data)
            server.transport.write(data)

        server.onData = answer
        client.onData = client.transport.write
        client.transport.write(b"x")
        self.iterate(1)
        for _ in range(10):
            before = len(counts)
            self.iterate(1)
            self.assertLessEqual(len(counts) - before, 2 * ROUNDS)
        self.assertGreater(len(counts), 5)

    def test_fairnessInATurn(self) -> None:
        """
        Connections that always have bytes to read do not block the others.
        """
        self.patch(turnModule, "READ_MAX", 0)
        pairs = [self.messages() for _ in range(10)]
        for recorder, peer in pairs:
            recorder.onData = peer.send
            peer.send(b"x")
            peer.send(b"x")
        self.iterate(10 * ROUNDS)
        sizes = [len(recorder.data) for recorder, _ in pairs]
        self.assertGreater(min(sizes), 1)
        self.assertLessEqual(max(sizes) - min(sizes), 1)

    def test_endlessProducer(self) -> None:
        """
        A pull producer whose bytes the kernel always accepts does not block the rest of the application.
        """
        recorder, peer = self.messages()
        producer = Puller(recorder.transport, 1000)
        recorder.onData = lambda data: recorder.transport.registerProducer(producer, False)
        peer.send(b"x")
        self.iterate(1)
        self.assertGreaterEqual(producer.count, 1000 - 2 * ROUNDS)
        self.assertLess(producer.count, 1000)

    def test_turnInTurn(self) -> None:
        """
        A protocol may run the reactor while it receives data: other connections get their bytes in order.
        """
        first, firstPeer = self.messages()
        second, secondPeer = self.messages()

        def step(data: bytes) -> None:
            first.transport.write(b"1")
            secondPeer.send(b"z")
            self.step()
            first.transport.write(b"2")

        first.onData = step
        second.onData = second.transport.write
        firstPeer.send(b"x")
        secondPeer.send(b"y")
        self.iterate()
        self.assertEqual(firstPeer.recv(100) + firstPeer.recv(100), b"12")
        self.assertEqual(secondPeer.recv(100), b"yz")

    def test_allGoneInTurnInTurn(self) -> None:
        """
        All connections may be lost in such a nested turn.
        """
        recorder, peer = self.messages()

        def step(data: bytes) -> None:
            recorder.transport.loseConnection()
            self.step()

        recorder.onData = step
        peer.send(b"x")
        peer.send(b"y")
        self.iterate()
        self.assertIsInstance(recorder.reasons[0], ConnectionDone)

    def test_reactorEnds(self) -> None:
        """
        When the reactor ends all connections are lost.
        """
        server, client = self.pair()
        self.ports.pop().stopListening()
        self.iterate()
        for reader in self.reactor.removeAll():
            reader.connectionLost(Failure(ConnectionLost()))
        for recorder in (server, client):
            self.assertIsInstance(recorder.reasons[0], ConnectionLost)

    def test_reactorEmptied(self) -> None:
        """
        If all readers were removed from a reactor, the next connection adds the turn again.
        """
        recorder, peer = self.messages()
        self.reactor.removeAll()
        later, laterPeer = self.messages()
        peer.send(b"1")
        laterPeer.send(b"2")
        self.iterate()
        self.assertEqual((recorder.data, later.data), (b"1", b"2"))

    def test_closedUnderneath(self) -> None:
        """
        A connection that is closed through its connector is removed.
        """
        server, client = self.pair()
        self.connector.disconnect()
        self.untilLost(server, client)
        self.assertIsInstance(client.reasons[0], ConnectionDone)
        client.transport.write(b"x")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_startedUnderneath(self) -> None:
        """
        If the underlying transport is resumed, the protocol still gets the bytes.
        """
        server, client = self.pair()
        server.transport.pauseProducing()
        server.original.resumeProducing()
        client.transport.write(b"x")
        self.until(lambda: server.data == b"x")

    def test_lostTogether(self) -> None:
        """
        A turn is removed from the reactor with its last connection, and the next connection adds it again.
        """
        for _ in range(2):
            server, client = self.pair()
            turn = turns[self.reactor]
            client.transport.loseConnection()
            self.untilLost(server, client)
            self.assertNotIn(self.reactor, turns)
            self.assertRaises(OSError, os.fstat, turn.fileno())

    def test_alreadyTaken(self) -> None:
        """
        A direct transport is not taken over again.
        """
        recorder, _ = self.messages()
        self.assertIs(adopt(recorder, self.reactor), recorder.transport)
