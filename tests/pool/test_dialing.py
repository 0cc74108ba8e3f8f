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
    Listens on when the server says no more.
    """

    ended = False

    def readConnectionLost(self) -> None:
        """
        Note it.
        """
        self.ended = True

    def writeConnectionLost(self) -> None:
        """
        Ignore it.
        """


class ConnectionWrapperTests(SynchronousTestCase):
    """
    Tests for L{ConnectionWrapper}.
    """

    def test_interfaces(self) -> None:
        """
        It provides what its client provides.
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

    def test_passesOn(self) -> None:
        """
        What comes is passed on, but for the end, which is for somebody else to pass on.
        """
        ended: list[Failure] = []
        client = Client()
        wrapper = ConnectionWrapper(client, ended.append)
        transport = Pipe(Reactor())
        wrapper.makeConnection(transport)
        self.assertIs(client.transport, transport)
        answer: Deferred[str] = Deferred()
        client._waiting.append(answer)
        wrapper.dataReceived(b"yes\r\n")
        self.assertEqual(self.successResultOf(answer), "yes")
        wrapper.connectionLost(connectionDone)
        self.assertEqual((ended, client.lost), ([connectionDone], None))


class News:
    """
    Writes down what becomes of dials.

    @ivar said: what was said.
    """

    def __init__(self) -> None:
        self.said: list[Any] = []

    def connectionMade(self, record: Any, connection: Any) -> None:
        """
        Check that the client has no connection yet.
        """
        assert connection.transport is None
        self.said.append("made")

    def connectionReady(self, record: Any, connection: Any) -> None:
        """
        Check that the client has a connection.
        """
        assert connection.transport.connected
        self.said.append("ready")

    def dialFailed(self, record: Any, reason: BaseException) -> None:
        """
        Keep the reason.
        """
        self.said.append(reason)

    def connectionEnded(self, record: Any, connection: Any, reason: Failure) -> None:
        """
        Check that the client does not know.
        """
        assert connection.lost is None
        self.said.append("ended")


class AttemptTests(SynchronousTestCase):
    """
    Tests for L{Attempt}.
    """

    def setUp(self) -> None:
        """
        There is a server.
        """
        self.reactor = Reactor()
        self.server = Server(self.reactor)
        self.news = News()
        self.factory: Any = Factory.forProtocol(HalfClosed)

    def attempt(self, handshake: Any = None, announces: bool = False, timeout: float | None = 5.0) -> Attempt:
        """
        @return: a dial that has begun.
        """
        record = SimpleNamespace(server=SimpleNamespace(address=self.server))
        attempt = Attempt(record, self.news, lambda record: self.factory, self.reactor, timeout, handshake, announces)
        attempt.start()
        self.reactor.turns()
        self.addCleanup(lambda: self.assertEqual(self.reactor.getDelayedCalls(), []))
        return attempt

    def assertFailed(self, kind: type[BaseException]) -> BaseException:
        """
        Assert that the dial has failed once, and that no connection is left.
        """
        self.reactor.turns()
        self.assertIsInstance(self.news.said[-1], kind)
        self.assertEqual(len([each for each in self.news.said if isinstance(each, BaseException)]), 1)
        self.assertEqual(self.server.open, [])
        reason: BaseException = self.news.said[-1]
        return reason

    def test_connected(self) -> None:
        """
        A client is ready when it is connected, and its end is told before it knows itself.
        """
        attempt = self.attempt()
        self.assertEqual((self.news.said, attempt.isReady), (["made", "ready"], True))
        self.server.lines[0].lose()
        self.assertEqual(self.news.said, ["made", "ready", "ended"])

    def test_notNow(self) -> None:
        """
        The dial begins in the next turn, not within the request that needs it.
        """
        record = SimpleNamespace(server=SimpleNamespace(address=self.server))
        attempt = Attempt(record, self.news, lambda record: self.factory, self.reactor, None, None, False)
        attempt.start()
        self.assertEqual(self.server.dials, 0)
        attempt.fail(ValueError("not wanted any more"))
        self.reactor.turns()
        self.assertEqual(self.server.dials, 0)
        self.assertFailed(ValueError)

    def test_refused(self) -> None:
        """
        The reason of a failure is told.
        """
        self.server.mode = "refuse"
        self.attempt()
        self.assertFailed(error.ConnectionRefusedError)

    @covers("18")
    def test_mistakes(self) -> None:
        """
        An endpoint that raises, a factory that has no client, cannot make one or will not: a failed dial each.
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
            self.news.said.clear()
            self.factory = factory
            self.attempt()
            self.assertFailed(kind)

    def test_noConnection(self) -> None:
        """
        A dial without an answer is given up when its time is over.
        """
        self.server.mode = "hang"
        self.attempt()
        self.reactor.advance(4.9)
        self.assertEqual(self.news.said, [])
        self.reactor.advance(0.2)
        reason = self.assertFailed(PoolTimeout)
        self.assertEqual(str(reason), "connect timed out: no connection within 5 s")
        self.assertEqual(self.server.cancelled, 1)

    def test_unlimited(self) -> None:
        """
        Without a time there is no timer.
        """
        self.server.mode = "hang"
        attempt = self.attempt(timeout=None)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        attempt.fail(ValueError())

    def test_givenUpTooLate(self) -> None:
        """
        A dial that was given up and succeeds nevertheless makes no client.
        """
        self.server.mode = "hang"
        attempt = self.attempt()
        (factory, _) = self.server.hanging[0]
        attempt.fail(ValueError("enough"))
        self.assertIsNone(factory.buildProtocol(None))
        self.assertFailed(ValueError)

    def test_failOnce(self) -> None:
        """
        To give up twice, or when the client is ready, changes nothing.
        """
        attempt = self.attempt()
        attempt.fail(ValueError())
        self.assertEqual((self.news.said, len(self.server.open)), (["made", "ready"], 1))
        self.server.lines[0].lose()
        self.server.mode = "refuse"
        attempt = self.attempt()
        attempt.fail(ValueError())
        self.assertFailed(error.ConnectionRefusedError)

    def test_factoryStarted(self) -> None:
        """
        The factory is told when it is used by an endpoint, and when not any more.
        """
        attempt = self.attempt()
        for f, ports in ((attempt.doStart, 1), (attempt.doStop, 0)):
            f()
            self.assertEqual(self.factory.numPorts, ports)

    # -- The handshake

    def test_handshake(self) -> None:
        """
        A client is ready when its handshake is done, whether that gives nothing, a Deferred or a coroutine.
        """

        async def wait(client: Client) -> None:
            await client.ask("ready?")

        for handshake in (lambda client: None, lambda client: client.ask("ready?"), wait):
            self.news.said.clear()
            self.attempt(handshake)
            (line,) = self.server.open
            line.answer(*line.asked)
            self.assertEqual(self.news.said, ["made", "ready"])
            line.lose()

    @covers("30")
    def test_handshakeAwaited(self) -> None:
        """
        While the handshake lasts the client is not ready.
        """
        done: Deferred[None] = Deferred()
        self.attempt(lambda client: done)
        self.assertEqual(self.news.said, ["made"])
        done.callback(None)
        self.assertEqual(self.news.said, ["made", "ready"])
        self.server.open[0].lose()

    def test_handshakeFails(self) -> None:
        """
        A handshake that fails is a failed dial, and its connection is closed.
        """
        for handshake in (lambda client: 1 / 0, lambda client: succeed(0).addCallback(lambda zero: 1 / zero)):
            self.news.said.clear()
            self.attempt(handshake)
            self.assertFailed(ZeroDivisionError)

    @covers("17")
    def test_handshakeHangs(self) -> None:
        """
        A handshake that takes too long is cancelled, and its connection is closed.
        """
        cancelled: list[Deferred[None]] = []
        done: Deferred[None] = Deferred(cancelled.append)
        self.attempt(lambda client: done)
        self.reactor.advance(5)
        reason = self.assertFailed(PoolTimeout)
        self.assertEqual(str(reason), "connect timed out: the client was not configured within 5 s")
        self.assertEqual(cancelled, [done])

    def test_handshakeIgnoresCancel(self) -> None:
        """
        A handshake that ends well although it was cancelled comes too late.
        """
        done: Deferred[None] = Deferred(lambda done: done.callback(None))
        self.attempt(lambda client: done)
        self.reactor.advance(5)
        self.assertFailed(PoolTimeout)
        self.assertNotIn("ready", self.news.said)

    def test_lostInHandshake(self) -> None:
        """
        A connection that is lost during the handshake is a failed dial, of which the client hears too.
        """
        done: Deferred[None] = Deferred()
        attempt = self.attempt(lambda client: done)
        self.server.lines[0].lose(error.ConnectionDone())
        self.assertFailed(error.ConnectionDone)
        self.assertIsNotNone(attempt.connection.lost)

    def test_lostAndTold(self) -> None:
        """
        Why a connection was lost during the handshake is told by the connection, not by what the handshake makes of it;
        unless it was us who closed it, for what went wrong in the handshake.
        """
        for reason, told in ((error.ConnectionDone(), error.ConnectionDone), (error.ConnectionAborted(), KeyError)):
            self.news.said.clear()
            done: Deferred[None] = Deferred()
            attempt = self.attempt(lambda client, done=done: done)
            attempt.connection.connectionLost = lambda reason, done=done: done.errback(KeyError("the handshake failed"))
            self.server.lines[-1].lose(reason)
            self.assertFailed(told)

    def test_clientFailsToHear(self) -> None:
        """
        It is a failed dial as well if the client fails when it hears of it.
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
        A client that is to announce itself is ready when it is connected and has done so, whichever comes last.
        """
        attempt = self.attempt(announces=True)
        self.assertEqual(self.news.said, ["made"])
        for _ in range(2):
            attempt.announced()
        self.assertEqual(self.news.said, ["made", "ready"])
        self.server.open[0].lose()

    def test_announcedEarly(self) -> None:
        """
        One that does so while its connection is being made is ready after that, and its handshake begins then.
        """

        class Announcing(Client):
            def connectionMade(self) -> None:
                attempt.announced()
                assert news.said == ["made"]

        self.factory = Factory.forProtocol(Announcing)
        news = self.news
        record = SimpleNamespace(server=SimpleNamespace(address=self.server))
        shaken: list[Any] = []
        attempt = Attempt(record, news, lambda record: self.factory, self.reactor, 5.0, shaken.append, True)
        attempt.start()
        self.reactor.turns()
        self.assertEqual((news.said, shaken), (["made", "ready"], [attempt.connection]))

    def test_neverAnnounced(self) -> None:
        """
        One that never does is given up, with words that say what is missing.
        """
        self.attempt(announces=True)
        self.reactor.advance(5)
        reason = self.assertFailed(PoolTimeout)
        expected = "connect timed out: the client called neither clientFree nor its factory's deferred within 5 s"
        self.assertEqual(str(reason), expected)

    # -- The end

    def test_close(self) -> None:
        """
        A connection can be closed, gently or not.
        """
        attempt = self.attempt()
        attempt.close()
        self.assertEqual((self.server.open[0].closing, self.server.open[0].aborted), (True, False))
        attempt.abort()
        self.assertTrue(self.server.open[0].aborted)
        self.reactor.turns()
        self.assertEqual(self.news.said, ["made", "ready", "ended"])
