# -*- test-case-name: tests.net.test_reactor -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.net.reactor}, and the tests of transports and turns with this reactor.
"""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionLost

from tests.net import test_transport, test_turn
from tests.net.sockets import Sockets
from txconnpool.net.reactor import TurnReactor
from txconnpool.net.turn import turns


class OurReactor:
    """
    Mixed into tests that drive a reactor.
    """

    def makeReactor(self) -> Any:
        """
        @return: a reactor for this test only.
        """
        return TurnReactor()


class TurnTests(OurReactor, test_turn.TurnTests):
    """
    The tests of a turn that waits for all events.
    """

    delayed = False

    def test_removedWhileQueued(self) -> None:
        """
        If all readers are removed from the reactor, what was written before is still sent.
        """
        recorder, peer = self.messages()
        recorder.transport.write(b"x")
        self.reactor.removeAll()
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.step()
        self.assertEqual(peer.recv(10), b"x")


class DirectTests(OurReactor, test_transport.DirectTests):
    """
    The tests of direct transports.
    """


class DirectUNIXTests(OurReactor, test_transport.DirectUNIXTests):
    """
    The tests of direct transports on UNIX sockets.
    """


class TwistedTests(OurReactor, test_transport.TwistedTests):
    """
    The tests of Twisted's own transports, without a turn.
    """


class Poller:
    """
    Stands for a reactor's poll of a kind that is not known.
    """

    def __init__(self, epoll: Any) -> None:
        self._epoll = epoll

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)


class ReactorTests(OurReactor, Sockets):
    """
    Tests for the main loop of L{TurnReactor}.
    """

    def loop(self) -> None:
        """
        Run the main loop, which the test stops.
        """
        guard = self.reactor.callLater(20, self.reactor.stop)
        self.reactor.run(installSignalHandlers=False)
        self.assertTrue(guard.active(), "the test did not stop the reactor")
        guard.cancel()

    def twisted(self) -> tuple[Any, Any]:
        """
        @return: two connected protocols with transports of Twisted.
        """
        self.direct = False
        pair = self.pair()
        self.direct = True
        return pair

    def test_onePoll(self) -> None:
        """
        The reactor's own poll is not asked for the events of direct transports.
        """
        server, client = self.pair()
        self.iterate()
        calls: list[object] = []
        self.patch(self.reactor, "doPoll", calls.append)
        server.onData = server.transport.write
        client.onData = lambda data: len(client.data) < 3 and client.transport.write(b"x")
        client.transport.write(b"x")
        self.until(lambda: client.data == b"xxx")
        self.assertEqual(calls, [])

    def test_delayedCalls(self) -> None:
        """
        A delayed call is called in time while the turn waits for events, and so is one that a protocol makes.
        """
        server, client = self.pair()
        server.onData = lambda data: self.reactor.callLater(0.001, self.reactor.stop)
        self.reactor.callLater(0.001, client.transport.write, b"x")
        self.loop()
        self.assertEqual(server.data, b"x")

    def test_callFromThread(self) -> None:
        """
        A call from another thread wakes the reactor while the turn waits.
        """
        self.pair()
        thread = threading.Thread(target=self.reactor.callFromThread, args=(self.reactor.stop,))
        self.reactor.callWhenRunning(thread.start)
        self.loop()
        thread.join()

    def test_stop(self) -> None:
        """
        A protocol can stop the reactor, which closes all connections.
        """
        server, client = self.pair()
        server.onData = lambda data: self.reactor.stop()
        client.transport.write(b"x")
        self.loop()
        self.assertEqual([type(each.reasons[0]) for each in (server, client)], [ConnectionLost] * 2)

    def test_stopWhileSettling(self) -> None:
        """
        A protocol can stop the reactor also when its connection, which was to be closed before this turn, is closed.
        """
        recorder, _ = self.messages()
        recorder.onLost = self.reactor.stop
        self.reactor.callLater(0, recorder.transport.loseConnection)
        self.loop()
        self.assertEqual(len(recorder.reasons), 1)

    def test_delayedWhileSettling(self) -> None:
        """
        A delayed call that a protocol makes at that moment is called in time.
        """
        recorder, _ = self.messages()
        self.messages()
        recorder.onLost = lambda: self.reactor.callLater(0.001, self.reactor.stop)
        self.reactor.callLater(0, recorder.transport.loseConnection)
        self.loop()

    def test_others(self) -> None:
        """
        Direct transports that always have work for each other do not block transports of Twisted, nor these them.
        """
        pairs = [self.pair(), self.twisted()]
        for server, client in pairs:
            server.onData = server.transport.write
            client.onData = client.transport.write
            client.transport.write(b"x")
        self.iterate(100)
        for server, client in pairs:
            self.assertGreater(len(server.data), 10)
            self.assertGreater(len(client.data), 10)

    def test_writeForOthers(self) -> None:
        """
        What is written to a direct transport because of an event of another descriptor is sent.
        """
        server, client = self.pair()
        other, otherClient = self.twisted()
        other.onData = client.transport.write
        otherClient.transport.write(b"x")
        self.until(lambda: server.data == b"x")

    def test_unknownPoll(self) -> None:
        """
        If the reactor of Twisted has no poll that a turn can watch, it waits itself.
        """
        self.reactor._poller = Poller(self.reactor._poller)
        server, client = self.pair()
        self.assertIn(turns[self.reactor], EPollReactor.getReaders(self.reactor))
        server.onData = server.transport.write
        client.transport.write(b"x")
        self.until(lambda: client.data)
