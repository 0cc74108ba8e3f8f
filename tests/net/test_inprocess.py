# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.inprocess}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    NoProtocol,
)
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProtocol,
    IPushProducer,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.pipes import Pusher, Recorder
from txconnpool.net.inprocess import InProcessAddress, InProcessEndpoint
from txconnpool.net.transport import HIGH_WATER


class Building(Factory):
    """
    A factory that builds one protocol.

    @ivar built: the protocol, or C{None}, or an exception to raise.
    @ivar notes: when it was started and stopped.
    """

    noisy = False

    def __init__(self, built: Any) -> None:
        self.built = built
        self.notes: list[str] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        assert addr == InProcessAddress("near")
        if isinstance(self.built, Exception):
            raise self.built
        return self.built

    def startFactory(self) -> None:
        self.notes.append("start")

    def stopFactory(self) -> None:
        self.notes.append("stop")


class Pair(SynchronousTestCase):
    """
    A connection between two protocols.

    @ivar near: the transport of C{client}.
    @ivar far: the transport of C{server}.
    """

    def setUp(self) -> None:
        """
        Connect.
        """
        self.clock = Clock()
        self.client, self.server = Recorder(), Recorder()
        connected = connectProtocol(InProcessEndpoint(self.clock, Building(self.server), "near"), self.client)
        self.clock.advance(0)
        self.assertIs(self.successResultOf(connected), self.client)
        self.near, self.far = self.client.transport, self.server.transport

    def assertClosed(self, protocol: Recorder, reason: type[Exception] = ConnectionDone) -> None:
        """
        Assert that the connection of a protocol was lost, for a reason, and that no timer is left.
        """
        assert protocol.lost is not None
        protocol.lost.trap(reason)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TransportTests(Pair):
    """
    The transports behave as TCP transports do.
    """

    def test_interfaces(self) -> None:
        """
        They are transports, consumers and producers, between addresses.
        """
        for interface in (ITransport, IConsumer, IPushProducer):
            verifyObject(interface, self.near)
        self.assertEqual(self.near.getHost(), InProcessAddress("near"))
        self.assertEqual(self.near.getPeer(), InProcessAddress("near"))
        verifyObject(IAddress, self.near.getPeer())

    def test_nextTurn(self) -> None:
        """
        What is written arrives in the next turn in one piece, with one call to the reactor.
        """
        self.near.write(b"a")
        self.near.writeSequence([b"b", b"", b"c"])
        self.assertEqual(self.server.data, b"")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"abc")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_notWithin(self) -> None:
        """
        A protocol that writes when it receives is not called from its own call.
        """
        depth = []

        def echo(data: bytes) -> None:
            depth.append("in")
            self.far.write(data)
            self.assertEqual(self.client.data, b"")
            depth.append("out")

        self.server.dataReceived = echo  # type: ignore[method-assign]
        self.near.write(b"a")
        self.clock.advance(0)
        self.assertEqual((depth, self.client.data), (["in", "out"], b"a"))

    def test_copied(self) -> None:
        """
        A buffer that is changed after it was written does not change what arrives.
        """
        buffer = bytearray(b"a")
        self.near.write(buffer)
        buffer[:] = b"b"
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"a")

    def test_notBytes(self) -> None:
        """
        Text is no bytes.
        """
        self.assertRaises(TypeError, self.near.write, "text")

    def test_nothing(self) -> None:
        """
        Writing nothing does nothing.
        """
        self.near.write(b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_paused(self) -> None:
        """
        A paused end receives nothing until it is resumed, and the reactor is left alone meanwhile.
        """
        self.far.pauseProducing()
        self.near.write(b"a")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.far.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"a")
        self.near.write(b"b")
        self.far.pauseProducing()
        self.clock.advance(0)
        self.assertEqual((self.server.data, self.clock.getDelayedCalls()), (b"a", []))

    def test_close(self) -> None:
        """
        What was written before the close arrives, then both ends are told.
        """
        self.near.write(b"a")
        self.near.loseConnection()
        self.assertEqual((self.near.disconnecting, self.near.connected, self.client.lost), (True, True, None))
        self.clock.advance(0)
        self.assertEqual((self.server.data, self.near.connected, self.far.connected), (b"a", False, False))
        self.assertClosed(self.client)
        self.assertClosed(self.server)

    def test_closeWhilePaused(self) -> None:
        """
        The close waits for what the other end has not read.
        """
        self.far.pauseProducing()
        self.near.write(b"a")
        self.near.loseConnection()
        self.clock.advance(0)
        self.assertIsNone(self.client.lost)
        self.far.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"a")
        self.assertClosed(self.client)

    def test_closeBoth(self) -> None:
        """
        An end that is closing receives nothing more, so two that close need not wait for each other.
        """
        self.far.pauseProducing()
        for end in (self.near, self.far):
            end.write(b"a")
            end.loseConnection()
        self.clock.advance(0)
        self.assertEqual(self.client.data + self.server.data, b"")
        self.assertClosed(self.client)
        self.assertClosed(self.server)

    def test_closeAtOnce(self) -> None:
        """
        Two ends that close in the same turn are told once each.
        """
        self.near.loseConnection()
        self.far.loseConnection()
        self.clock.advance(0)
        self.assertClosed(self.client)
        self.assertClosed(self.server)

    def test_stop(self) -> None:
        """
        To stop a transport as a producer is to close it.
        """
        self.near.stopProducing()
        self.clock.advance(0)
        self.assertClosed(self.server)

    def test_abort(self) -> None:
        """
        An abort drops what is on its way, and both ends are told how it ended.
        """
        self.far.pauseProducing()
        self.near.write(b"a")
        self.far.write(b"b")
        self.near.abortConnection()
        self.assertIsNone(self.client.lost)
        self.clock.advance(0)
        self.assertEqual(self.client.data + self.server.data, b"")
        self.assertClosed(self.client, ConnectionAborted)
        self.assertClosed(self.server, ConnectionLost)

    def test_writeAfterAbort(self) -> None:
        """
        Bytes written after an abort are not delivered, though the connection is closed in the next turn only.
        """
        self.near.abortConnection()
        self.near.write(b"a")
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"")
        self.assertClosed(self.client, ConnectionAborted)

    def test_closed(self) -> None:
        """
        A closed transport takes everything without a sign.
        """
        self.near.loseConnection()
        self.clock.advance(0)
        for end in (self.near, self.far):
            end.write(b"a")
            end.loseConnection()
            end.abortConnection()
            end.pauseProducing()
            end.resumeProducing()
        self.assertClosed(self.client)

    def test_error(self) -> None:
        """
        An exception in a protocol is logged and closes its connection.
        """

        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        self.server.dataReceived = fail  # type: ignore[method-assign]
        self.near.write(b"a")
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertClosed(self.server, ConnectionAborted)
        self.assertClosed(self.client, ConnectionLost)

    def test_errorAtClose(self) -> None:
        """
        An exception when one end is told of the close does not keep the other from being told.
        """

        def fail(reason: Failure) -> None:
            raise ZeroDivisionError

        self.client.connectionLost = fail  # type: ignore[method-assign, assignment]
        self.near.loseConnection()
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertClosed(self.server)


class ProducerTests(Pair):
    """
    The transports as consumers.
    """

    def setUp(self) -> None:
        """
        Make a producer.
        """
        super().setUp()
        self.producer = Pusher()

    def test_push(self) -> None:
        """
        A push producer is paused once above the mark and resumed when all has arrived.
        """
        self.near.registerProducer(self.producer, True)
        self.near.write(b"x" * HIGH_WATER)
        self.assertEqual(self.producer.calls, [])
        self.near.write(b"x")
        self.near.write(b"x")
        self.assertEqual(self.producer.calls, ["pause"])
        self.clock.advance(0)
        self.assertEqual(self.producer.calls, ["pause", "resume"])
        self.near.write(b"x" * (HIGH_WATER + 1))
        self.clock.advance(0)
        self.assertEqual(self.producer.calls, ["pause", "resume"] * 2)

    def test_next(self) -> None:
        """
        A producer that follows a paused one is paused and resumed itself.
        """
        self.near.registerProducer(Pusher(), True)
        self.near.write(b"x" * (HIGH_WATER + 1))
        self.near.unregisterProducer()
        self.near.registerProducer(self.producer, True)
        self.near.write(b"x")
        self.clock.advance(0)
        self.assertEqual(self.producer.calls, ["pause", "resume"])

    def test_pull(self) -> None:
        """
        A pull producer is asked for more when it is registered and whenever all has arrived.
        """
        self.near.registerProducer(self.producer, False)
        self.near.write(b"x" * (HIGH_WATER + 1))
        self.assertEqual(self.producer.calls, ["resume"])
        self.clock.advance(0)
        self.assertEqual(self.producer.calls, ["resume", "resume"])

    def test_one(self) -> None:
        """
        There is one producer at a time.
        """
        self.near.registerProducer(self.producer, True)
        self.assertRaises(RuntimeError, self.near.registerProducer, Pusher(), True)
        self.near.unregisterProducer()
        self.near.registerProducer(Pusher(), True)

    def test_unregistered(self) -> None:
        """
        A producer that has finished is told nothing more.
        """
        self.near.registerProducer(self.producer, True)
        self.near.unregisterProducer()
        self.near.write(b"x" * (HIGH_WATER + 1))
        self.near.loseConnection()
        self.clock.advance(0)
        self.assertEqual(self.producer.calls, [])

    def test_close(self) -> None:
        """
        A producer is stopped when the connection closes, and one that comes later at once.
        """
        self.near.registerProducer(self.producer, True)
        self.far.loseConnection()
        self.clock.advance(0)
        self.assertEqual(self.producer.calls, ["stop"])
        late = Pusher()
        self.far.registerProducer(late, True)
        self.assertEqual(late.calls, ["stop"])


class EndpointTests(SynchronousTestCase):
    """
    Tests for L{InProcessEndpoint}.
    """

    def setUp(self) -> None:
        """
        Make an endpoint.
        """
        self.clock = Clock()
        self.server = Recorder()
        self.endpoint = InProcessEndpoint(self.clock, Building(self.server), "near")

    def connect(self, built: Any) -> tuple[Deferred[IProtocol], Building]:
        """
        Begin to connect.
        """
        factory = Building(built)
        return self.endpoint.connect(factory), factory

    def test_interface(self) -> None:
        """
        It is an endpoint.
        """
        verifyObject(IStreamClientEndpoint, self.endpoint)

    def test_connect(self) -> None:
        """
        The connection is made in the reactor's next turn. The factory is started before and stopped after it.
        """
        client = Recorder()
        connected, factory = self.connect(client)
        self.assertNoResult(connected)
        self.assertEqual(factory.notes, ["start"])
        self.clock.advance(0)
        self.assertIs(self.successResultOf(connected), client)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(self.server.transport.connected)
        client.transport.loseConnection()
        self.clock.advance(0)
        self.assertEqual(factory.notes, ["start", "stop"])
        self.assertIsNotNone(self.server.lost)

    def test_noProtocol(self) -> None:
        """
        A factory that builds nothing makes the connection fail.
        """
        connected, factory = self.connect(None)
        self.clock.advance(0)
        self.failureResultOf(connected, NoProtocol)
        self.assertEqual((factory.notes, self.server.transport), (["start", "stop"], None))

    def test_brokenFactory(self) -> None:
        """
        So does one that raises an exception, with that exception.
        """
        connected, factory = self.connect(ZeroDivisionError())
        self.clock.advance(0)
        self.failureResultOf(connected, ZeroDivisionError)
        self.assertEqual(factory.notes, ["start", "stop"])

    def test_cancel(self) -> None:
        """
        A connection that is being made can be cancelled; nothing is left of it.
        """
        connected, factory = self.connect(Recorder())
        connected.cancel()
        self.failureResultOf(connected, ConnectingCancelledError)
        self.assertEqual((factory.notes, self.clock.getDelayedCalls()), (["start", "stop"], []))

    def test_cancelWithin(self) -> None:
        """
        A protocol may have its own connection cancelled while it is being made; it is then closed.
        """
        client = Recorder()
        connected, factory = self.connect(client)
        client.connectionMade = connected.cancel  # type: ignore[method-assign]
        self.clock.advance(0)
        self.failureResultOf(connected, ConnectingCancelledError)
        assert client.lost is not None
        client.lost.trap(ConnectionAborted)
        self.assertEqual((factory.notes, self.clock.getDelayedCalls()), (["start", "stop"], []))

    def test_firstWords(self) -> None:
        """
        A protocol may write as soon as it is connected.
        """
        client = Recorder()
        client.connectionMade = lambda: client.transport.write(b"hello")  # type: ignore[method-assign]
        self.connect(client)
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"hello")
