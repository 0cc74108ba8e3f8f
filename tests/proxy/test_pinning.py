# -*- test-case-name: tests.proxy.test_pinning -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.proxy.pinning}: clients that have a connection for themselves, beyond those of L{tests.test_toy}.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from tests.bugs import covers
from tests.pipes import Pipe
from tests.test_toy import ToyCase
from tests.toy import ADD, COMMANDS, Toy, ToyRequestReader, netstring
from txconnpool.pool.decisions.limits import Limits
from txconnpool.wire import REPLACE, STATISTICS, Frame

#: A request that is too large.
LARGE = netstring(b"x" * 1000)

#: The error of a request whose connection was lost.
LOST = netstring(b"-upstream connection lost (FakeServer)")


class MoreReader(ToyRequestReader):
    """
    Finds requests for statistics too, and replaces large ones by an C{add}.
    """

    def read(self, data: bytes, pos: int, room: int) -> Frame:
        if data.startswith(netstring(b"stats"), pos):
            return STATISTICS, pos + len(netstring(b"stats")), 0, (COMMANDS[0], (b"proxy",))
        if data.startswith(b"1000:", pos):
            end = pos + len(LARGE)
            if end <= len(data):
                return ADD, end, 1, netstring(b"add large 1")
            return REPLACE, end, 0, (ADD, netstring(b"add large 1"), b"")
        return super().read(data, pos, room)


class MoreToy(Toy):
    """
    The dialect of L{MoreReader}.
    """

    def requestReader(self) -> ToyRequestReader:
        return MoreReader(set())


class PinCase(ToyCase):
    """
    Base class of tests with a client that has locked a connection.

    @ivar locking: the client.
    """

    def setUp(self) -> None:
        """
        Lock a connection.
        """
        super().setUp()
        self.sessions.dialect = MoreToy()
        self.locking = self.client()
        self.assertEqual(self.ask(self.locking, b"lock"), b"2:ok,")

    def locked(self) -> Any:
        """
        @return: the server's end of the locked connection.
        """
        (connection,) = (each for each in self.factories[0].connections if each.locked)
        return connection

    def send(self, client: Pipe, *payloads: bytes) -> None:
        """
        Send requests of a client while the server holds back its replies.
        """
        self.upstream[0].hold()
        client.send(b"".join(map(netstring, payloads)))
        self.turns()

    def lose(self) -> None:
        """
        Lose all connections.
        """
        self.upstream[0].reset()
        self.turns()
        self.upstream[0].release()
        self.turns()


class LossTests(PinCase):
    """
    Tests for a leased connection that is lost.
    """

    @covers("18", "29")
    def test_more(self) -> None:
        """
        Requests in flight fail. Those that were not sent yet are never executed, because they depend on the lost state.
        The client is closed.
        """
        self.send(self.locking, *[b"add a 1"] * 10)
        sent = self.executed.count(b"add a 1")
        self.assertLess(sent, 10)
        self.lose()
        self.assertEqual((self.locking.take(), self.locking.connected), (LOST * sent, False))
        self.assertEqual(self.executed.count(b"add a 1"), sent)

    def test_unlocked(self) -> None:
        """
        If nothing depends on the state any more, the client goes on.
        """
        self.send(self.locking, b"add a 1", b"unlock", b"get b", b"lock", b"add c 1")
        self.assertEqual(self.executed[-1], b"unlock")
        self.lose()
        self.assertEqual((self.locking.take(), self.locking.connected), (LOST * 2 + b"1:0,2:ok,1:1,", True))

    def test_unsent(self) -> None:
        """
        A request in the queue that was not sent yet fails too.
        """
        self.send(self.locking, *[b"add a 1"] * 2)
        self.locking.send(LARGE[:500])
        self.pool.connections[0].pauseProducing()
        self.locking.send(LARGE[500:])
        self.lose()
        self.assertEqual((self.locking.take(), self.locking.connected), (LOST * 3, False))
        self.assertNotIn(b"add large 1", self.executed)

    def test_shared(self) -> None:
        """
        Other clients are not affected.
        """
        other = self.client()
        self.ask(other, b"add a 1")
        self.send(other, b"get a")
        self.upstream[0].release()
        self.locked().transport.abortConnection()
        self.turns()
        self.assertEqual((self.locking.connected, other.take()), (False, b"1:1,"))


class OrderTests(PinCase):
    """
    Tests for the order of requests and replies on a leased connection.
    """

    def test_large(self) -> None:
        """
        A request that is sent in place of a large one is sent on it.
        """
        locked = self.locked()
        self.send(self.locking, b"add a 1")
        self.locking.send(LARGE[:500])
        self.locking.send(LARGE[500:] + netstring(b"get large") + netstring(b"unlock"))
        self.upstream[0].release()
        self.turns()
        self.assertEqual(self.locking.take(), b"1:1,1:1,1:1,2:ok,")
        self.assertFalse(locked.locked)
        self.assertEqual(len(self.factories[0].connections), 1)

    def test_broadcast(self) -> None:
        """
        With one server, a request for all servers is sent on it too.
        """
        other = self.client()
        self.ask(other, b"add a 1")
        self.assertEqual(len(self.factories[0].connections), 2)
        locked = self.locked()
        received: list[bytes] = []
        self.patch(locked, "stringReceived", received.append)
        self.ask(self.locking, b"reset")
        self.assertEqual(received, [b"reset"])
        locked.sendString(b"ok")
        self.turns()
        self.assertEqual(self.locking.take(), b"2:ok,")

    @covers("R6")
    def test_pushed(self) -> None:
        """
        A frame that the server sends without a request does not overtake replies that are held back, and is not
        overtaken by later ones.
        """
        later: Deferred[list[tuple[str, int]]] = Deferred()
        self.sessions.report = lambda words: later
        other = self.client()
        self.ask(self.locking, b"watch a")
        self.assertEqual(self.ask(self.locking, b"stats", b"add a 1", b"nonsense", b"get a"), b"")
        self.ask(other, b"add a 1")
        self.ask(self.locking, b"get b")
        later.callback([("answer", 42)])
        self.turns()
        statistics = netstring(repr({"answer": 42}).encode())
        replies = b"1:1,16:-unknown command,4:!a 1,1:1,4:!a 2,1:0,"
        self.assertEqual(self.locking.take(), statistics + replies)

    def test_pushedBetween(self) -> None:
        """
        It stands between the replies as the server has sent them.
        """
        later: Deferred[list[tuple[str, int]]] = Deferred()
        self.sessions.report = lambda words: later
        self.send(self.locking, b"stats", b"get a", b"nonsense", b"get b")
        connection = self.locked().transport
        connection.release(4)
        connection.send(netstring(b"!a 1"))
        connection.release()
        self.turns()
        later.callback([])
        self.turns()
        self.assertEqual(self.locking.take(), b"2:{},1:0,16:-unknown command,4:!a 1,1:0,")


class PoolTests(PinCase):
    """
    Tests for the place of a leased connection in the pool.
    """

    def test_serverDoesNotRead(self) -> None:
        """
        While the server does not read, no more requests are sent if some are in flight.
        """
        (connection,) = self.pool.connections
        connection.pauseProducing()
        self.send(self.locking, *[b"add a 1"] * 5)
        self.assertEqual(self.executed.count(b"add a 1"), 1)
        connection.resumeProducing()
        self.upstream[0].release()
        self.turns()
        self.assertEqual(self.locking.take(), b"1:1,1:2,1:3,1:4,1:5,")

    def test_deeper(self) -> None:
        """
        No other client gets it when the limit on requests in flight is raised.
        """
        connection = self.locked().transport
        received = connection.received
        limits: Limits = self.pool.state.limits
        self.pool.setLimits(replace(limits, depth=100))
        self.pool.selfCheck()
        self.assertEqual(self.ask(self.client(), b"add a 1"), b"1:1,")
        self.assertEqual(connection.received, received)
        self.assertEqual(self.ask(self.locking, b"unlock"), b"2:ok,")
        self.pool.selfCheck()
        self.assertEqual(self.pool.stats.inFlight, 0)

    def test_expired(self) -> None:
        """
        A connection that is to be replaced stays until the client does not need it any more.
        """
        locked = self.locked()
        self.pool.expire()
        self.assertEqual(self.ask(self.locking, b"add a 1"), b"1:1,")
        self.assertIn(locked, self.factories[0].connections)
        self.assertEqual(self.ask(self.locking, b"unlock"), b"2:ok,")
        self.turns()
        self.assertNotIn(locked, self.factories[0].connections)
        self.assertEqual(self.ask(self.locking, b"add a 1"), b"1:2,")

    @covers("R29")
    def test_unavailable(self) -> None:
        """
        If no server can be reached, a request that needs a connection of its own gets an error.
        """
        other = self.client()
        self.upstream[0].refuse()
        self.upstream[0].reset()
        self.turns()
        self.assertFalse(self.locking.connected)
        for requests in ((b"lock",), (b"lock", b"nonsense", b"lock")):
            replies = self.ask(other, *requests)
            self.assertEqual(replies.count(b"upstream unavailable: connection refused"), requests.count(b"lock"))
        self.upstream[0].accept()
        self.reactor.advance(1)
        self.turns()
        self.assertEqual(self.ask(other, b"lock", b"unlock"), b"2:ok,2:ok,")

    def test_waitingVanished(self) -> None:
        """
        A client that disconnects while it waits for one leaves the queue.
        """
        second, third, fourth = (self.client() for _ in range(3))
        self.ask(second, b"lock")
        self.ask(third, b"lock")
        self.ask(fourth, b"add a 1")
        third.lose()
        self.assertEqual(self.pool.waiters.count, 1)
        self.ask(second, b"unlock")
        self.assertEqual((fourth.take(), self.pool.waiters.count), (b"1:1,", 0))

    def test_idle(self) -> None:
        """
        A session that waits for a reply to an earlier request asks for none yet.
        """
        other = self.client()
        self.ask(other, b"add a 1")
        self.send(other, b"add a 1", b"lock")
        self.assertEqual((self.pool.waiters.count, other.protocol.inFlight), (0, 1))
        self.upstream[0].release()
        self.turns()
        self.assertEqual(other.take(), b"1:2,2:ok,")
