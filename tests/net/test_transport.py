# -*- test-case-name: tests.net.test_transport -*-
# Copyright txconnpool contributors. See LICENSE.

"""
Tests of L{txconnpool.net.transport}.

The module is about sockets, so most tests use them, on the loopback interface and on a reactor of their own that they
drive by hand. L{TransportTests} says what every transport has to do; it is run for Twisted's own transports as well,
which keeps it honest.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import socket
import sys
import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IPullProducer,
    IPushProducer,
    IReadDescriptor,
    ISystemHandle,
    ITCPTransport,
    ITransport,
    IUNIXTransport,
)
from twisted.internet.pollreactor import PollReactor
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.internet.tcp import Server
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides, implementer
from zope.interface.verify import verifyObject

from tests.bugs import covers
from tests.pipes import Pusher
from txconnpool.net import transport as module
from txconnpool.net.transport import HIGH_WATER, ROUNDS, DirectTransport, Turn, adopt, closeAfterFlush, peerOf, tune

BIG = 8 << 20
"""
More bytes than the kernel takes for a peer that does not read.
"""


class Recorder(Protocol):
    """
    A protocol that notes what happens to it, and does then what a test asks for.

    @ivar data: all bytes received.
    @ivar reasons: the reasons of all calls of C{connectionLost}.
    @ivar notes: the half-close notifications.
    @ivar onData: called with the bytes received.
    @ivar onLost: called when the connection is gone.
    """

    transport: Any

    def __init__(self, case: Sockets) -> None:
        self.case = case
        self.data = bytearray()
        self.reasons: list[BaseException] = []
        self.notes: list[str] = []
        self.onData: Callable[[bytes], object] = len
        self.onLost: Callable[[], object] = list

    def connectionMade(self) -> None:
        """
        Adopt the transport.
        """
        self.transport = adopt(self, self.case.reactor, direct=self.case.direct)

    def dataReceived(self, data: bytes) -> None:
        """
        Note the bytes.
        """
        self.data += data
        self.onData(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Note the reason.
        """
        assert reason.value is not None
        self.reasons.append(reason.value)
        self.onLost()


@implementer(IHalfCloseableProtocol)
class HalfCloser(Recorder):
    """
    A recorder that can do with half a connection.
    """

    def readConnectionLost(self) -> None:
        """
        Note that the peer has ended.
        """
        self.notes.append("read")

    def writeConnectionLost(self) -> None:
        """
        Note that this side has ended.
        """
        self.notes.append("write")


class FailingHalf(HalfCloser):
    """
    A recorder that fails when it is told of half a connection.
    """

    def readConnectionLost(self) -> None:
        """
        Fail.
        """
        raise ZeroDivisionError()

    def writeConnectionLost(self) -> None:
        """
        Fail.
        """
        raise ZeroDivisionError()


class Greeter(Recorder):
    """
    A recorder that speaks first.
    """

    def connectionMade(self) -> None:
        """
        Say something.
        """
        super().connectionMade()
        self.transport.write(b"welcome")


class Refuser(Recorder):
    """
    A recorder that ends the connection at once.
    """

    def connectionMade(self) -> None:
        """
        Say something and close.
        """
        super().connectionMade()
        self.transport.write(b"no")
        self.transport.loseConnection()


class Made(ClientFactory):
    """
    A factory of recorders.

    @ivar made: the recorders it has made.
    """

    noisy = False

    def __init__(self, kind: type[Recorder], case: Sockets) -> None:
        self.kind = kind
        self.case = case
        self.made: list[Recorder] = []

    def buildProtocol(self, addr: object) -> Recorder:
        """
        @return: a new recorder, which the test will clean up.
        """
        recorder = self.kind(self.case)
        self.made.append(recorder)
        self.case.made.append(recorder)
        return recorder


@implementer(IPullProducer)
class Puller:
    """
    A pull producer of numbered pieces.
    """

    def __init__(self, transport: Any, count: int) -> None:
        self.transport = transport
        self.count = count
        self.made = b""
        self.calls: list[str] = []

    def resumeProducing(self) -> None:
        """
        Write one more piece, or end.
        """
        if self.count == 0:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            return
        self.count -= 1
        piece = b"%d " % self.count
        self.made += piece
        self.transport.write(piece)

    def stopProducing(self) -> None:
        """
        Note it.
        """
        self.calls.append("stop")


class Sockets(SynchronousTestCase):
    """
    Connected pairs of L{Recorder}s on a reactor that is driven by hand.
    """

    direct = True
    domain = "TCP"
    reactor: Any

    def makeReactor(self) -> Any:
        """
        @return: a reactor that nothing else uses.
        """
        return EPollReactor()

    def setUp(self) -> None:
        """
        Make the reactor, and a port that accepts connections of L{Recorder}s.
        """
        self.reactor = self.makeReactor()
        self.wakers = self.reactor.getReaders()
        self.made: list[Recorder] = []
        self.ports: list[Any] = []
        self.addCleanup(self.leaveNothing)

    def leaveNothing(self) -> None:
        """
        Close everything, and check that nothing is left in the reactor.
        """
        for recorder in self.made:
            if not recorder.reasons:
                recorder.transport.abortConnection()
        for port in self.ports:
            port.stopListening()
        self.untilLost(*self.made)
        self.iterate()
        self.assertEqual([len(recorder.reasons) for recorder in self.made], [1] * len(self.made))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.reactor.getReaders(), self.wakers)
        self.assertEqual(self.reactor.getWriters(), [])
        self.assertNotIn(self.reactor, module._turns)
        for waker in self.wakers:
            self.reactor.removeReader(waker)
            waker.connectionLost(None)

    def step(self, delay: float = 0) -> None:
        """
        Let the reactor take one turn.

        @param delay: how long it may wait for something to do.
        """
        self.reactor.iterate(delay)

    def iterate(self, count: int = 4) -> None:
        """
        Let the reactor do what it can do now.
        """
        for _ in range(count):
            self.step()

    def until(self, condition: Callable[[], object]) -> None:
        """
        Let the reactor work until something has happened.
        """
        for _ in range(5000):
            if condition():
                return
            self.step(0.001)
        self.fail("it does not happen")

    def untilLost(self, *recorders: Recorder) -> None:
        """
        Let the reactor work until connections are gone.
        """
        self.until(lambda: all(recorder.reasons for recorder in recorders))

    def pair(self, server: type[Recorder] = Recorder, client: type[Recorder] = Recorder) -> tuple[Any, Any]:
        """
        Connect two protocols.

        @return: the accepting one and the connecting one.
        """
        servers, clients = Made(server, self), Made(client, self)
        if self.domain == "TCP":
            port = self.reactor.listenTCP(0, servers, interface="127.0.0.1")
            self.connector = self.reactor.connectTCP("127.0.0.1", port.getHost().port, clients)
        else:
            path = os.path.relpath(self.mktemp())
            port = self.reactor.listenUNIX(path, servers)
            self.connector = self.reactor.connectUNIX(path, clients)
        self.ports.append(port)
        self.until(lambda: servers.made and clients.made)
        self.until(lambda: servers.made[0].connected and clients.made[0].connected)
        return servers.made[0], clients.made[0]


class TransportTests:
    """
    What a transport does, whoever moves the bytes.
    """

    def test_inOrder(self: Any) -> None:
        """
        What is written in several pieces arrives complete and in order.
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
        What is written while data is received is sent.
        """
        server, client = self.pair()
        server.onData = lambda data: server.transport.write(data.upper())
        for _ in range(3):
            client.data.clear()
            client.transport.write(b"hello")
            self.until(lambda: client.data == b"HELLO")

    def test_fromTimer(self: Any) -> None:
        """
        What is written from a timer is sent.
        """
        server, client = self.pair()
        self.reactor.callLater(0, server.transport.write, b"tick")
        self.until(lambda: client.data == b"tick")

    def test_whenMade(self: Any) -> None:
        """
        What is written as soon as the connection is made is sent.
        """
        server, client = self.pair(Greeter, Greeter)
        self.until(lambda: server.data == client.data == b"welcome")

    @covers("5", "13")
    def test_mixedSizes(self: Any) -> None:
        """
        Pieces of all sizes arrive unchanged at a peer that reads now and then.
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
        A write far larger than what the kernel takes at once arrives complete, while the other direction works too.
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
        The transport provides what it claims.
        """
        _, client = self.pair()
        for interface in (ITCPTransport, IConsumer, IPushProducer, ISystemHandle):
            verifyObject(interface, client.transport)

    # Closing

    def test_loseConnection(self: Any) -> None:
        """
        Closing sends first what is unsent; both sides are told once that the connection is done.
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
        What is written before the connection is really closed is sent.
        """
        server, client = self.pair()
        client.transport.write(b"x" * BIG)
        client.transport.loseConnection()
        client.transport.write(b"last words")
        self.untilLost(server)
        self.assertEqual(bytes(server.data[BIG:]), b"last words")

    def test_closingReadsNothing(self: Any) -> None:
        """
        A connection being closed reads nothing more, even if it is asked to.
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
        A transport that is told to stop producing closes.
        """
        server, client = self.pair()
        client.transport.write(b"bye")
        client.transport.stopProducing()
        self.untilLost(server, client)
        self.assertEqual(server.data, b"bye")
        self.assertIsInstance(client.reasons[0], ConnectionDone)

    def test_loseWhenMade(self: Any) -> None:
        """
        A connection can be closed as soon as it is made.
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
        Aborting drops what is unsent; this side is told that it aborted, the other that the connection is lost.
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
        A protocol may abort its own connection while it receives data, and gets nothing more.
        """
        server, client = self.pair()
        server.onData = lambda data: server.transport.abortConnection()
        client.transport.write(b"x")
        self.untilLost(client)
        self.assertIsInstance(server.reasons[0], ConnectionAborted)
        self.assertEqual(server.data, b"x")

    def test_abortHalf(self: Any) -> None:
        """
        A connection that was aborted has no halves.
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
        A connection that is lost while it only writes is noticed.
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
        Nothing that is done to a transport whose connection is gone has an effect.
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
        A protocol may use its transport while it is told that the connection is gone.
        """
        server, client = self.pair()
        server.onLost = lambda: (server.transport.write(b"x"), server.transport.loseConnection())
        client.transport.loseConnection()
        self.untilLost(server, client)

    # Half a connection

    def test_peerEnds(self: Any) -> None:
        """
        A protocol that can do with half a connection is told once that the peer has ended, and goes on writing.
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
        Ending twice is ending once.
        """
        server, client = self.pair(HalfCloser, HalfCloser)
        client.transport.loseWriteConnection()
        client.transport.loseWriteConnection()
        self.until(lambda: server.notes)
        self.iterate()
        self.assertEqual(client.notes, ["write"])

    def test_endAfterUnsent(self: Any) -> None:
        """
        The end comes after all that was written before, also what was written between asking for it and the end.
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
        A protocol that cannot do with half a connection loses it when the peer ends.
        """
        server, client = self.pair(Recorder, HalfCloser)
        client.transport.loseWriteConnection()
        self.untilLost(server)
        self.assertIsInstance(server.reasons[0], ConnectionDone)

    def test_endWithoutBeingTold(self: Any) -> None:
        """
        A protocol need not be able to do with half a connection to ask for it.
        """
        server, client = self.pair(HalfCloser, Recorder)
        client.transport.loseWriteConnection()
        self.until(lambda: server.notes)
        server.transport.write(b"reply")
        self.until(lambda: client.data == b"reply")

    def test_failingHalves(self: Any) -> None:
        """
        A protocol that fails when it is told of half a connection loses the other half.
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
        A push producer is paused when the peer does not read, and resumed when all is sent.
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
        Only one producer can be registered; after it is unregistered, in whatever state, another is paused as it was.
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
        A pull producer is asked for more whenever all is sent, until it is unregistered.
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
        A pull producer that has nothing to say may unregister itself at once.
        """
        server, client = self.pair()
        client.transport.registerProducer(Puller(client.transport, 0), False)
        self.untilLost(server, client)

    def test_stoppedProducer(self: Any) -> None:
        """
        A producer is stopped once when the connection is gone, or if it was gone before.
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
        A producer that is paused when the connection is closed is asked for the rest before that.
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
        When a producer that was asked for the rest has none, unregistering it closes the connection.
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
        A push producer that is not paused, though it was once, does not keep the connection from closing.
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
        A producer that fails when it is resumed costs its connection.
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
        A protocol that pauses while it receives data gets nothing until it resumes, though it may write.
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
        A peer that closes is noticed when reading is resumed, after its last bytes.
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
        An exception that a protocol lets out is logged once and costs its own connection, no other.
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
        A protocol that aborts and then fails is told of the end once.
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
        An exception that a protocol lets out when it is told of the end is logged once, and others go on.
        """
        pairs = [self.pair() for _ in range(2)]
        pairs[0][0].onLost = lambda: 1 // 0
        pairs[0][1].transport.loseConnection()
        pairs[1][1].transport.write(b"x")
        self.until(lambda: pairs[0][0].reasons and pairs[1][0].data)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failingAlways(self: Any) -> None:
        """
        A protocol that fails again when it is told of the end costs no other connection.
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
        A protocol may pause another that has data in the same turn. What was read by then may still come, and what
        comes later is there when it is resumed.
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
    Twisted's own transports.
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
    Twisted's own transports, on UNIX sockets.
    """

    domain = "UNIX"


class DirectTests(TransportTests, Sockets):
    """
    Sockets that were taken over.
    """

    def test_adopted(self) -> None:
        """
        These tests run on sockets that were taken over, and the reactor watches nothing but the one turn.
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


class DirectUNIXTests(DirectTests):
    """
    UNIX sockets that were taken over.
    """

    domain = "UNIX"


class DirectPollTests(DirectTests):
    """
    Sockets that were taken over, on the poll reactor.
    """

    def makeReactor(self) -> Any:
        """
        @return: a poll reactor.
        """
        return PollReactor()


class DirectSelectTests(DirectTests):
    """
    Sockets that were taken over, on the select reactor.
    """

    def makeReactor(self) -> Any:
        """
        @return: a select reactor.
        """
        return SelectReactor()


class DirectAsyncioTests(DirectTests):
    """
    Sockets that were taken over, on the asyncio reactor.
    """

    def makeReactor(self) -> Any:
        """
        @return: a reactor on a loop of its own.
        """
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)
        return AsyncioSelectorReactor(self.loop)

    def step(self, delay: float = 0) -> None:
        """
        Let the loop take one turn, without the pause that the reactor's own C{iterate} makes.
        """
        if delay:
            self.loop.call_later(delay, self.loop.stop)
        else:
            self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()


class TurnTests(Sockets):
    """
    What is particular to sockets that were taken over.
    """

    def messages(self) -> tuple[Recorder, socket.socket]:
        """
        Make a pair of sockets that keep the boundaries of what is sent.

        @return: a recorder that has taken one over, and the other.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        self.addCleanup(theirs.close)
        return self.connect(ours), theirs

    def connect(self, ours: socket.socket) -> Recorder:
        """
        @return: a recorder that has taken over a copy of a socket.
        """
        factory = Made(Recorder, self)
        self.reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
        ours.close()
        return factory.made[0]

    def test_oneSend(self) -> None:
        """
        All that is written in one turn is sent at its end, at once.
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
        All that is written outside of a turn is sent at once, with one call to come for all transports.
        """
        pairs = [self.messages() for _ in range(3)]
        for recorder, _ in pairs:
            recorder.transport.write(b"a")
            recorder.transport.write(b"b")
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.iterate()
        for _, peer in pairs:
            self.assertEqual(peer.recv(100), b"ab")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_noCallLeft(self) -> None:
        """
        When the last transport goes, the call that was to settle it goes too.
        """
        recorder, _ = self.messages()
        recorder.transport.write(b"a")
        recorder.transport.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_largePiecesNotJoined(self) -> None:
        """
        What goes with a large piece is sent in one call with it.
        """
        recorder, peer = self.messages()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        recorder.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        recorder.transport.writeSequence([b"VALUE\r\n", b"x" * 80000, b"\r\n"])
        self.iterate()
        self.assertEqual(peer.recv(1 << 20), b"VALUE\r\n" + b"x" * 80000 + b"\r\n")

    def test_unsent(self) -> None:
        """
        The number of unsent bytes can be read at any time, and is none when the connection is gone.
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
        What is written in small pieces while the peer does not read takes no more memory than its bytes do.
        """
        server, client = self.pair()
        server.transport.pauseProducing()
        client.transport.write(b"x" * BIG)
        self.iterate()
        for number in range(10000):
            client.transport.write(b"%04d " % number)
        self.assertLess(len(client.transport._pending), 30)
        server.transport.resumeProducing()
        self.until(lambda: client.transport.unsent == 0 and len(server.data) == BIG + 50000)
        self.assertEqual(server.data[BIG:], b"".join(b"%04d " % number for number in range(10000)))

    def test_copyOfSocket(self) -> None:
        """
        A socket of which somebody else has a copy, a child process for one, is not watched once it is closed.
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
        self.assertEqual(select.select([module._turns[self.reactor]], [], [], 0), ([], [], []))
        self.assertEqual(another.reasons, [])

    @covers("26")
    def test_nothingKept(self) -> None:
        """
        A transport whose connection is gone keeps neither the protocol nor what was unsent.
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
        Protocols that fail when they are told that the reactor ends, or that the peer has reset, cost no other.
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
        That a connection is broken, found when a producer is to be paused, is told not then but later.
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
        A protocol is not told a second time that the peer has ended, though it resumes reading.
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
        An event of a socket that was closed earlier in the turn does no harm to a new one that got its number.
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
        Two transports with endless work in between do not keep the reactor from the rest of the application.
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
        Those who always have something to read do not keep the others from being read.
        """
        self.patch(module, "READ_MAX", 0)
        pairs = [self.messages() for _ in range(10)]
        for recorder, peer in pairs:
            recorder.onData = peer.send
            peer.send(b"x")
            peer.send(b"x")
        for _ in range(10):
            self.iterate(1)
        sizes = [len(recorder.data) for recorder, _ in pairs]
        self.assertGreater(min(sizes), 1)
        self.assertLessEqual(max(sizes) - min(sizes), 1)

    def test_endlessProducer(self) -> None:
        """
        A pull producer whose bytes the kernel always takes does not keep the reactor from the rest of the application.
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
        A protocol that lets the reactor run while it receives data breaks nothing: what others were sent before and
        meanwhile comes in this order.
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
        So does one that loses all connections meanwhile.
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
        A reactor from which everything was removed gets the turn again with the next connection.
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
        A connection that is closed by way of its connector is left.
        """
        server, client = self.pair()
        self.connector.disconnect()
        self.untilLost(server, client)
        self.assertIsInstance(client.reasons[0], ConnectionDone)
        client.transport.write(b"x")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_startedUnderneath(self) -> None:
        """
        Should the transport underneath be made to read, the protocol gets the bytes all the same.
        """
        server, client = self.pair()
        server.transport.pauseProducing()
        server.transport._under.resumeProducing()
        client.transport.write(b"x")
        self.until(lambda: server.data == b"x")

    def test_lostTogether(self) -> None:
        """
        With its last connection a turn leaves the reactor, and the next connection starts another.
        """
        for _ in range(2):
            server, client = self.pair()
            turn = module._turns[self.reactor]
            client.transport.loseConnection()
            self.untilLost(server, client)
            self.assertNotIn(self.reactor, module._turns)
            self.assertRaises(OSError, os.fstat, turn.fileno())

    def test_alreadyTaken(self) -> None:
        """
        A transport that was taken over already is kept.
        """
        recorder, _ = self.messages()
        self.assertIs(adopt(recorder, self.reactor), recorder.transport)


class AdoptTests(Sockets):
    """
    What is not taken over.
    """

    def assertKept(self, transport: Any, reactor: object = None, direct: bool = True) -> None:
        """
        A protocol keeps the transport it has.
        """
        protocol = Protocol()
        protocol.transport = transport
        self.assertIs(adopt(protocol, reactor or self.reactor, direct), transport)

    def server(self, kind: Any = Server) -> Any:
        """
        @return: a transport that could be taken over.
        """
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        transport = kind(ours, Protocol(), ("", 0), None, 0, self.reactor)
        self.addCleanup(transport.connectionLost, Failure(ConnectionDone()))
        return transport

    def leaveNothing(self) -> None:
        """
        The transports close after this; only the waker is left to do here.
        """
        for waker in self.wakers:
            self.reactor.removeReader(waker)
            waker.connectionLost(None)

    def test_inMemory(self) -> None:
        """
        A transport without a socket is kept.
        """
        self.assertKept(StringTransport())

    def test_otherReactors(self) -> None:
        """
        Where the reactor watches no descriptors the transport is kept.
        """
        self.assertKept(self.server(), Clock())

    def test_unwanted(self) -> None:
        """
        Where nobody wants it the transport is kept: in one call, or everywhere.
        """
        transport = self.server()
        self.assertKept(transport, direct=False)
        self.patch(module, "DIRECT", False)
        self.assertKept(transport)

    def test_encrypted(self) -> None:
        """
        A transport that encrypts is kept.
        """
        transport = self.server()
        transport.TLS = True
        self.assertKept(transport)

    def test_otherClasses(self) -> None:
        """
        A transport of a class that is not known is kept, as it may read and write in its own way.
        """

        class Counting(Server):
            pass

        self.assertKept(self.server(Counting))

    def test_alreadyWritten(self) -> None:
        """
        A transport that has bytes to send already is kept.
        """
        transport = self.server()
        transport.write(b"x")
        self.assertKept(transport)


class TuneTests(SynchronousTestCase):
    """
    Tests for L{tune}.
    """

    def test_tuned(self) -> None:
        """
        A transport of TCP is tuned, others are not: not even one of UNIX that says it is of TCP.
        """
        for interfaces, tuned in (((ITCPTransport,), 2), ((ITCPTransport, IUNIXTransport), 0), ((ITransport,), 0)):
            calls: list[bool] = []
            transport: Any = StringTransport()
            transport.setTcpNoDelay = transport.setTcpKeepAlive = calls.append
            directlyProvides(transport, *interfaces)
            tune(transport)
            self.assertEqual(calls, [True] * tuned)


class PeerTests(SynchronousTestCase):
    """
    Tests for L{peerOf}.
    """

    def test_written(self) -> None:
        """
        An address is written as in a URL; who comes by a UNIX socket has none.
        """
        for address, written in (
            (IPv4Address("TCP", "127.0.0.1", 7), "127.0.0.1:7"),
            (IPv6Address("TCP", "::1", 7), "[::1]:7"),
            (UNIXAddress(None), "unix"),
        ):
            self.assertEqual(peerOf(StringTransport(peerAddress=address)), written)


class PartTests(SynchronousTestCase):
    """
    Tests for L{part}.
    """

    def test_plain(self) -> None:
        """
        A transport without another one under it is asked to close, and no more.
        """
        transport = StringTransport()
        closeAfterFlush(transport)
        self.assertTrue(transport.disconnecting)

    def test_wrapping(self) -> None:
        """
        Of a transport that stands on another one, as TLS does, the producer is forgotten, and the one under it closes
        too, after it had its last words.
        """
        calls = []

        class Wrapping:
            transport = StringTransport()

            def unregisterProducer(self) -> None:
                calls.append("unregistered")

            def loseConnection(self) -> None:
                calls.append("closed")
                self.transport.write(b"goodbye")

        wrapping = Wrapping()
        closeAfterFlush(wrapping)
        self.assertEqual(calls, ["unregistered", "closed"])
        self.assertEqual((wrapping.transport.value(), wrapping.transport.disconnecting), (b"goodbye", True))
