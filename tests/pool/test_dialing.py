# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.dialing}.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.bugs import covers
from tests.pipes import Pipe
from tests.pools import Client, Reactor, Server
from txconnpool.errors import PoolTimeout
from txconnpool.pool.dialing import Attempt, ConnectionWrapper


@implementer(IHalfCloseableProtocol)
class HalfClosed(Client):
    """
    A client that keeps the connection when the server half-closes it.
    """

    ended = False

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self) -> None:
        pass


class ConnectionWrapperTests(SynchronousTestCase):
    """
    Tests for L{ConnectionWrapper}.
    """

    def test_interfaces(self) -> None:
        """
        The wrapper provides the interfaces that the protocol instance provides.
        """
        plain, half = (
            ConnectionWrapper(Client(), lambda reason: None),
            ConnectionWrapper(HalfClosed(), lambda reason: None),
        )
        self.assertTrue(verifyObject(IProtocol, plain))
        self.assertFalse(IHalfCloseableProtocol.providedBy(plain))
        self.assertTrue(verifyObject(IHalfCloseableProtocol, half))
        half.readConnectionLost()
        self.assertTrue(half.connection.ended)

    def test_delegates(self) -> None:
        """
        All calls of the transport are passed to the protocol instance, except for C{connectionLost}.
        """
        ended: list[Failure] = []
        client = Client()
        wrapper = ConnectionWrapper(client, ended.append)
        transport = Pipe(Reactor())
        wrapper.makeConnection(transport)
        self.assertIs(client.transport, transport)
        answer: Deferred[str] = Deferred()
        client.waiting.append(answer)
        wrapper.dataReceived(b"yes\r\n")
        self.assertEqual(self.successResultOf(answer), "yes")
        wrapper.connectionLost(connectionDone)
        self.assertEqual((ended, client.lost), ([connectionDone], None))


class Listener:
    """
    A listener that records the events of an attempt.

    @ivar events: the events.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []

    def connectionMade(self, record: Any, connection: Any) -> None:
        assert connection.transport is None
        self.events.append("made")

    def connectionReady(self, record: Any, connection: Any) -> None:
        assert connection.transport.connected
        self.events.append("ready")

    def dialFailed(self, record: Any, reason: BaseException) -> None:
        self.events.append(reason)

    def connectionEnded(self, record: Any, connection: Any, reason: Failure) -> None:
        assert connection.lost is None
        self.events.append("ended")


class AttemptTests(SynchronousTestCase):
    """
    Tests for L{Attempt}.
    """

    def setUp(self) -> None:
        """
        Make a server, a listener and a factory.
        """
        self.reactor = Reactor()
        self.server = Server(self.reactor)
        self.listener = Listener()
        self.factory: Any = Factory.forProtocol(HalfClosed)

    def attempt(self, handshake: Any = None, announces: bool = False, timeout: float | None = 5.0) -> Attempt:
        """
        @return: an attempt that was started.
        """
        record = SimpleNamespace(server=SimpleNamespace(address=self.server))
        attempt = Attempt(
            record, self.listener, lambda record: self.factory, self.reactor, timeout, handshake, announces
        )
        attempt.start()
        self.reactor.turns()
        self.addCleanup(lambda: self.assertEqual(self.reactor.getDelayedCalls(), []))
        return attempt

    def assertFailed(self, kind: type[BaseException]) -> BaseException:
        """
        Assert that the dial has failed once, and that no connection is left.
        """
        self.reactor.turns()
        self.assertIsInstance(self.listener.events[-1], kind)
        self.assertEqual(len([each for each in self.listener.events if isinstance(each, BaseException)]), 1)
        self.assertEqual(self.server.open, [])
        reason: BaseException = self.listener.events[-1]
        return reason

    def test_connected(self) -> None:
        """
        A connection is ready when it is established. The listener is notified of its end before the protocol instance.
        """
        attempt = self.attempt()
        self.assertEqual((self.listener.events, attempt.isReady), (["made", "ready"], True))
        self.server.lines[0].lose()
        self.assertEqual(self.listener.events, ["made", "ready", "ended"])

    def test_notNow(self) -> None:
        """
        The dial begins in the next reactor turn, not within the call that needs it.
        """
        record = SimpleNamespace(server=SimpleNamespace(address=self.server))
        attempt = Attempt(record, self.listener, lambda record: self.factory, self.reactor, None, None, False)
        attempt.start()
        self.assertEqual(self.server.dials, 0)
        attempt.fail(ValueError("not wanted any more"))
        self.reactor.turns()
        self.assertEqual(self.server.dials, 0)
        self.assertFailed(ValueError)

    def test_refused(self) -> None:
        """
        A refused connection fails the dial, with the reason.
        """
        self.server.mode = "refuse"
        self.attempt()
        self.assertFailed(error.ConnectionRefusedError)

    @covers("18")
    def test_mistakes(self) -> None:
        """
        The dial fails if the endpoint raises, or if the factory has no protocol, raises, or returns none.
        """
        self.server.mode = "raise"
        self.attempt()
        self.assertFailed(RuntimeError)
        self.server.mode = "accept"
        unwilling: Any = Factory()
        unwilling.buildProtocol = lambda addr: None
        broken: Any = Factory()
        broken.protocol = lambda: 1 / 0
        for factory, kind in (
            (Factory(), AssertionError),
            (unwilling, error.NoProtocol),
            (broken, ZeroDivisionError),
        ):
            self.listener.events.clear()
            self.factory = factory
            self.attempt()
            self.assertFailed(kind)

    def test_noConnection(self) -> None:
        """
        A dial without a result is cancelled and fails when its time is over.
        """
        self.server.mode = "hang"
        self.attempt()
        self.reactor.advance(4.9)
        self.assertEqual(self.listener.events, [])
        self.reactor.advance(0.2)
        reason = self.assertFailed(PoolTimeout)
        self.assertEqual(str(reason), "connect timed out: no connection within 5 s")
        self.assertEqual(self.server.cancelled, 1)

    def test_unlimited(self) -> None:
        """
        Without a timeout there is no timer.
        """
        self.server.mode = "hang"
        attempt = self.attempt(timeout=None)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        attempt.fail(ValueError())

    def test_cancelledTooLate(self) -> None:
        """
        A dial that succeeds although it was cancelled makes no protocol instance.
        """
        self.server.mode = "hang"
        attempt = self.attempt()
        (factory, _) = self.server.hanging[0]
        attempt.fail(ValueError("enough"))
        self.assertIsNone(factory.buildProtocol(None))
        self.assertFailed(ValueError)

    def test_failOnce(self) -> None:
        """
        Failing an attempt that has failed, or is ready, has no effect.
        """
        attempt = self.attempt()
        attempt.fail(ValueError())
        self.assertEqual((self.listener.events, len(self.server.open)), (["made", "ready"], 1))
        self.server.lines[0].lose()
        self.server.mode = "refuse"
        attempt = self.attempt()
        attempt.fail(ValueError())
        self.assertFailed(error.ConnectionRefusedError)

    def test_factoryStarted(self) -> None:
        """
        The factory is notified when an endpoint begins and ends to use it.
        """
        attempt = self.attempt()
        for f, ports in ((attempt.doStart, 1), (attempt.doStop, 0)):
            f()
            self.assertEqual(self.factory.numPorts, ports)

    # -- The handshake

    def test_handshake(self) -> None:
        """
        A connection is ready when its handshake has succeeded. The handshake returns C{None}, a Deferred or a
        coroutine.
        """

        async def wait(client: Client) -> None:
            await client.ask("ready?")

        for handshake in (lambda client: None, lambda client: client.ask("ready?"), wait):
            self.listener.events.clear()
            self.attempt(handshake)
            (line,) = self.server.open
            line.answer(*line.asked)
            self.assertEqual(self.listener.events, ["made", "ready"])
            line.lose()

    @covers("30")
    def test_handshakeAwaited(self) -> None:
        """
        A connection is not ready during the handshake.
        """
        done: Deferred[None] = Deferred()
        self.attempt(lambda client: done)
        self.assertEqual(self.listener.events, ["made"])
        done.callback(None)
        self.assertEqual(self.listener.events, ["made", "ready"])
        self.server.open[0].lose()

    def test_handshakeFails(self) -> None:
        """
        When the handshake fails, the dial fails and the connection is closed.
        """
        for handshake in (lambda client: 1 / 0, lambda client: succeed(0).addCallback(lambda zero: 1 / zero)):
            self.listener.events.clear()
            self.attempt(handshake)
            self.assertFailed(ZeroDivisionError)

    @covers("17", "R21")
    def test_handshakeHangs(self) -> None:
        """
        When the handshake takes too long, it is cancelled, the dial fails, and the connection is closed.
        """
        cancelled: list[Deferred[None]] = []
        done: Deferred[None] = Deferred(cancelled.append)
        self.attempt(lambda client: done)
        self.reactor.advance(5)
        reason = self.assertFailed(PoolTimeout)
        self.assertEqual(str(reason), "connect timed out: connected, but no answer to the handshake within 5 s")
        self.assertEqual(cancelled, [done])

    def test_handshakeIgnoresCancel(self) -> None:
        """
        A handshake that succeeds because it was cancelled does not make the connection ready.
        """
        done: Deferred[None] = Deferred(lambda done: done.callback(None))
        self.attempt(lambda client: done)
        self.reactor.advance(5)
        self.assertFailed(PoolTimeout)
        self.assertNotIn("ready", self.listener.events)

    def test_lostInHandshake(self) -> None:
        """
        When the connection is lost during the handshake, the dial fails, and the protocol instance is notified.
        """
        done: Deferred[None] = Deferred()
        attempt = self.attempt(lambda client: done)
        self.server.lines[0].lose(error.ConnectionDone())
        self.assertFailed(error.ConnectionDone)
        self.assertIsNotNone(attempt.connection.lost)

    def test_reasonOfLoss(self) -> None:
        """
        When the connection is lost during the handshake, the dial fails with the reason of the loss, not with the error
        of the handshake. If the connection was aborted because of an error in the handshake, the dial fails with that
        error.
        """
        for reason, expected in ((error.ConnectionDone(), error.ConnectionDone), (error.ConnectionAborted(), KeyError)):
            self.listener.events.clear()
            done: Deferred[None] = Deferred()
            attempt = self.attempt(lambda client, done=done: done)
            attempt.connection.connectionLost = lambda reason, done=done: done.errback(KeyError("the handshake failed"))
            self.server.lines[-1].lose(reason)
            self.assertFailed(expected)

    def test_connectionLostRaises(self) -> None:
        """
        The dial fails as well if C{connectionLost} of the protocol instance raises.
        """
        done: Deferred[None] = Deferred()
        attempt = self.attempt(lambda client: done)

        def connectionLost(reason: Failure) -> None:
            raise ZeroDivisionError

        attempt.connection.connectionLost = connectionLost
        self.assertRaises(ZeroDivisionError, self.server.lines[0].lose)
        self.assertFailed(error.ConnectionLost)

    # -- Announcements

    def test_announced(self) -> None:
        """
        A protocol instance that is to announce itself is ready when it is connected and has announced itself.
        """
        attempt = self.attempt(announces=True)
        self.assertEqual(self.listener.events, ["made"])
        for _ in range(2):
            attempt.announced()
        self.assertEqual(self.listener.events, ["made", "ready"])
        self.server.open[0].lose()

    def test_announcedEarly(self) -> None:
        """
        A protocol instance may announce itself while its connection is made. The handshake begins after that.
        """

        class Announcing(Client):
            def connectionMade(self) -> None:
                attempt.announced()
                assert listener.events == ["made"]

        self.factory = Factory.forProtocol(Announcing)
        listener = self.listener
        record = SimpleNamespace(server=SimpleNamespace(address=self.server))
        shaken: list[Any] = []
        attempt = Attempt(record, listener, lambda record: self.factory, self.reactor, 5.0, shaken.append, True)
        attempt.start()
        self.reactor.turns()
        self.assertEqual((listener.events, shaken), (["made", "ready"], [attempt.connection]))

    def test_neverAnnounced(self) -> None:
        """
        A protocol instance that never announces itself fails the dial, and the error says what was missing.
        """
        self.attempt(announces=True)
        self.reactor.advance(5)
        reason = self.assertFailed(PoolTimeout)
        expected = "connect timed out: the client called neither clientFree nor its factory's deferred within 5 s"
        self.assertEqual(str(reason), expected)

    # -- The end

    def test_close(self) -> None:
        """
        A connection is closed, at once or when pending writes are sent.
        """
        attempt = self.attempt()
        attempt.close()
        self.assertEqual((self.server.open[0].closing, self.server.open[0].aborted), (True, False))
        attempt.abort()
        self.assertTrue(self.server.open[0].aborted)
        self.reactor.turns()
        self.assertEqual(self.listener.events, ["made", "ready", "ended"])
