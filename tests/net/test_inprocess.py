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
    @ivar notes: records the calls of C{doStart} and C{doStop}.
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
        Connect two protocols.
        """
        self.clock = Clock()
        self.client, self.server = Recorder(), Recorder()
        connected = connectProtocol(InProcessEndpoint(self.clock, Building(self.server), "near"), self.client)
        self.clock.advance(0)
        self.assertIs(self.successResultOf(connected), self.client)
        self.near, self.far = self.client.transport, self.server.transport

    def assertClosed(self, protocol: Recorder, reason: type[Exception] = ConnectionDone) -> None:
        """
        Assert that the connection of a protocol was lost for a reason, and that no timer is left.
        """
        assert protocol.lost is not None
        protocol.lost.trap(reason)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TransportTests(Pair):
    """
    Tests that the transports behave like TCP transports.
    """

    def test_interfaces(self) -> None:
        """
        They provide the interfaces of transports, consumers and producers, and have addresses.
        """
        for interface in (ITransport, IConsumer, IPushProducer):
            verifyObject(interface, self.near)
        self.assertEqual(self.near.getHost(), InProcessAddress("near"))
        self.assertEqual(self.near.getPeer(), InProcessAddress("near"))
        verifyObject(IAddress, self.near.getPeer())

    def test_nextTurn(self) -> None:
        """
        Written bytes arrive in the next reactor turn in one piece, with one delayed call.
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
        A protocol that writes while it receives is not called recursively.
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
        A buffer that is changed after it was written does not change the received bytes.
        """
        buffer = bytearray(b"a")
        self.near.write(buffer)
        buffer[:] = b"b"
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"a")

    def test_notBytes(self) -> None:
        """
        Writing text is an error.
        """
        self.assertRaises(TypeError, self.near.write, "text")

    def test_nothing(self) -> None:
        """
        Writing no bytes has no effect.
        """
        self.near.write(b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_paused(self) -> None:
        """
        A paused end receives nothing until it is resumed, and no delayed call is pending meanwhile.
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
        Bytes that were written before the close arrive, then both ends are notified.
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
        The close waits for bytes that the other end has not read.
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
        An end that is closing receives nothing, so two ends that close do not wait for each other.
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
        Two ends that close in the same turn are notified once each.
        """
        self.near.loseConnection()
        self.far.loseConnection()
        self.clock.advance(0)
        self.assertClosed(self.client)
        self.assertClosed(self.server)

    def test_stop(self) -> None:
        """
        C{stopProducing} closes the transport.
        """
        self.near.stopProducing()
        self.clock.advance(0)
        self.assertClosed(self.server)

    def test_abort(self) -> None:
        """
        An abort drops bytes in transit, and both ends get the reason.
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
        Calls on a closed transport have no effect.
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
        An exception of a protocol is logged, and closes its connection.
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
        If one end raises an exception when it is notified of the close, the other end is still notified.
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
    Tests for the transports as consumers.
    """

    def setUp(self) -> None:
        """
        Create a producer.
        """
        super().setUp()
        self.producer = Pusher()

    def test_push(self) -> None:
        """
        A push producer is paused above the high-water mark, and resumed when all bytes have arrived.
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
        A producer that replaces a paused one is paused and resumed too.
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
        A pull producer is asked for bytes when it is registered, and whenever all bytes have arrived.
        """
        self.near.registerProducer(self.producer, False)
        self.near.write(b"x" * (HIGH_WATER + 1))
        self.assertEqual(self.producer.calls, ["resume"])
        self.clock.advance(0)
        self.assertEqual(self.producer.calls, ["resume", "resume"])

    def test_one(self) -> None:
        """
        Only one producer can be registered.
        """
        self.near.registerProducer(self.producer, True)
        self.assertRaises(RuntimeError, self.near.registerProducer, Pusher(), True)
        self.near.unregisterProducer()
        self.near.registerProducer(Pusher(), True)

    def test_unregistered(self) -> None:
        """
        A producer that was unregistered is not called any more.
        """
        self.near.registerProducer(self.producer, True)
        self.near.unregisterProducer()
        self.near.write(b"x" * (HIGH_WATER + 1))
        self.near.loseConnection()
        self.clock.advance(0)
        self.assertEqual(self.producer.calls, [])

    def test_close(self) -> None:
        """
        A producer is stopped when the connection closes. One that is registered later is stopped at once.
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
        Create an endpoint.
        """
        self.clock = Clock()
        self.server = Recorder()
        self.endpoint = InProcessEndpoint(self.clock, Building(self.server), "near")

    def connect(self, built: Any) -> tuple[Deferred[IProtocol], Building]:
        """
        Start to connect.
        """
        factory = Building(built)
        return self.endpoint.connect(factory), factory

    def test_interface(self) -> None:
        """
        It provides the interface of client endpoints.
        """
        verifyObject(IStreamClientEndpoint, self.endpoint)

    def test_connect(self) -> None:
        """
        The connection is made in the next reactor turn. The factory is started before and stopped after it.
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
        If the factory builds no protocol, the connection fails.
        """
        connected, factory = self.connect(None)
        self.clock.advance(0)
        self.failureResultOf(connected, NoProtocol)
        self.assertEqual((factory.notes, self.server.transport), (["start", "stop"], None))

    def test_brokenFactory(self) -> None:
        """
        If the factory raises an exception, the connection fails with it.
        """
        connected, factory = self.connect(ZeroDivisionError())
        self.clock.advance(0)
        self.failureResultOf(connected, ZeroDivisionError)
        self.assertEqual(factory.notes, ["start", "stop"])

    def test_cancel(self) -> None:
        """
        A connection in progress can be cancelled, and nothing is left of it.
        """
        connected, factory = self.connect(Recorder())
        connected.cancel()
        self.failureResultOf(connected, ConnectingCancelledError)
        self.assertEqual((factory.notes, self.clock.getDelayedCalls()), (["start", "stop"], []))

    def test_cancelWithin(self) -> None:
        """
        A protocol may cancel its own connection in C{connectionMade}; the connection is then closed.
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
        A protocol may write in C{connectionMade}.
        """
        client = Recorder()
        client.connectionMade = lambda: client.transport.write(b"hello")  # type: ignore[method-assign]
        self.connect(client)
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"hello")
