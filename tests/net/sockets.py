# Copyright txconnpool contributors. See LICENSE.
"""
Pairs of connected sockets on a reactor that a test drives by hand, for the tests of L{txconnpool.net.transport}.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IPullProducer,
)
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txconnpool.net.transport import adopt
from txconnpool.net.turn import turns

BIG = 8 << 20
"""
More bytes than the kernel takes for a peer that does not read.
"""


class Recorder(Protocol):
    """
    A protocol that records its events, and then calls functions of the test.

    @ivar data: all bytes received.
    @ivar original: the transport before it was adopted.
    @ivar reasons: the reasons of all calls of C{connectionLost}.
    @ivar notes: the half-close notifications.
    @ivar onData: called with the bytes received.
    @ivar onLost: called when the connection is lost.
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
        self.original = self.transport
        self.transport = adopt(self, self.case.reactor, direct=self.case.direct)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.onData(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert reason.value is not None
        self.reasons.append(reason.value)
        self.onLost()


@implementer(IHalfCloseableProtocol)
class HalfCloser(Recorder):
    """
    A recorder that supports half-closed connections.
    """

    def readConnectionLost(self) -> None:
        self.notes.append("read")

    def writeConnectionLost(self) -> None:
        self.notes.append("write")


class FailingHalf(HalfCloser):
    """
    A recorder that raises an exception when one side of the connection is closed.
    """

    def readConnectionLost(self) -> None:
        raise ZeroDivisionError()

    def writeConnectionLost(self) -> None:
        raise ZeroDivisionError()


class Greeter(Recorder):
    """
    A recorder that writes as soon as it is connected.
    """

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.write(b"welcome")


class Refuser(Recorder):
    """
    A recorder that closes the connection as soon as it is connected.
    """

    def connectionMade(self) -> None:
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
        Write one more piece, or finish.
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
        self.calls.append("stop")


class Sockets(SynchronousTestCase):
    """
    Base class of tests with connected pairs of L{Recorder}s on a reactor that is driven by hand.
    """

    direct = True
    domain = "TCP"
    reactor: Any

    def makeReactor(self) -> Any:
        """
        @return: a reactor for this test only.
        """
        return EPollReactor()

    def setUp(self) -> None:
        """
        Create the reactor, and a port that accepts connections of L{Recorder}s.
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
        self.assertNotIn(self.reactor, turns)
        for waker in self.wakers:
            self.reactor.removeReader(waker)
            waker.connectionLost(None)

    def step(self, delay: float = 0) -> None:
        """
        Run one iteration of the reactor.

        @param delay: the maximum number of seconds to wait for events.
        """
        self.reactor.iterate(delay)

    def iterate(self, count: int = 4) -> None:
        """
        Run iterations of the reactor without waiting.
        """
        for _ in range(count):
            self.step()

    def until(self, condition: Callable[[], object]) -> None:
        """
        Run the reactor until a condition is true.
        """
        for _ in range(5000):
            if condition():
                return
            self.step(0.001)
        self.fail("it does not happen")

    def untilLost(self, *recorders: Recorder) -> None:
        """
        Run the reactor until connections are lost.
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

    def messages(self) -> tuple[Recorder, socket.socket]:
        """
        Create a pair of sockets that preserve message boundaries.

        @return: a recorder that has taken one over, and the other one.
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
