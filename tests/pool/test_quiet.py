# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.quiet}, with the pool that uses it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.pools import Client, PoolCase
from txconnpool.errors import ConnectionLostInFlight
from txconnpool.interfaces import IQuiet
from txconnpool.pool.library import RequestPool


@implementer(IQuiet)
class Streaming(Client):
    """
    A client whose replies have a body, which ends with the line C{.}.

    @ivar ended: fires at the end of the body.
    @ivar fault: what L{whenQuiet} raises.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ended: Deferred[str] | None = None
        self.broken = False

    def ask(self, word: str) -> Deferred[str]:
        answer = super().ask(word)
        if word != "short":
            self.ended = Deferred()
            self.waiting.append(self.ended)
        return answer

    def whenQuiet(self) -> Deferred[str] | None:
        if self.broken:
            raise LookupError("a defect")
        ended, self.ended = self.ended, None
        return ended


class Forgetful(Streaming):
    """
    A client that fails no request when its connection is lost.
    """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Deaf(Forgetful):
    """
    A client that goes on as if the body had ended when the pool cancels its wait for the end.
    """

    def ask(self, word: str) -> Deferred[str]:
        answer = Client.ask(self, word)
        self.ended = Deferred(lambda ended: ended.callback("the end"))
        return answer


class QuietTests(PoolCase):
    """
    Tests for clients that are not free when a request has its result.
    """

    def begun(self, **options: Any) -> RequestPool[Any]:
        """
        @return: a pool whose client has a result, but is not free.
        """
        options.setdefault("client", Streaming)
        pool = self.pool(maxClients=1, **options)
        answer = pool.performRequest("ask", "one")
        self.reactor.turns()
        self.line = self.server.open[0]
        self.line.answer("head")
        self.assertEqual(self.successResultOf(answer), "head")
        pool.selfCheck()
        return pool

    def test_waits(self) -> None:
        """
        The next request is sent when the client is free.
        """
        pool = self.begun()
        self.assertEqual((pool.stats.busy, pool.stats.idle), (1, 0))
        second = self.ask(pool, "two")
        lease = pool.acquire()
        self.reactor.turns()
        self.assertEqual(self.line.asked, ["one"])
        self.line.answer(".")
        self.assertEqual(self.line.asked, ["one", "two"])
        self.line.answer("head", ".")
        self.assertEqual(self.successResultOf(second), "head")
        pool.release(self.successResultOf(lease))
        self.assertEqual(pool.stats.idle, 1)
        pool.selfCheck()

    def test_free(self) -> None:
        """
        A client that is free, or whose Deferred has fired, is used at once.
        """
        pool = self.pool(client=Streaming, maxClients=1)
        first, second = self.ask(pool, "short"), self.ask(pool, "two")
        self.reactor.turns()
        line = self.server.open[0]
        line.answer("head")
        self.assertEqual((self.successResultOf(first), line.asked), ("head", ["short", "two"]))
        pool.connections[0].ended = succeed("x")
        line.answer("head")
        self.assertEqual((self.successResultOf(second), pool.stats.idle), ("head", 1))
        line.answer(".")

    def test_lease(self) -> None:
        """
        After a lease the pool waits too, before the connection is reset and used again. It cannot be released twice.
        """
        resets: list[Any] = []
        pool = self.begun(reset=resets.append)
        self.line.answer(".")
        client = self.successResultOf(pool.acquire())
        ended: Deferred[str] = Deferred()
        client.ended = ended
        pool.release(client)
        self.assertRaises(ValueError, pool.release, client)
        waiting = pool.acquire()
        self.assertNoResult(waiting)
        self.assertEqual(resets, [])
        pool.selfCheck()
        ended.callback("")
        self.assertIs(self.successResultOf(waiting), client)
        self.assertEqual(resets, [client])
        client.ended = Deferred()
        pool.release(client, discard=True)
        self.reactor.turns()
        self.assertEqual(self.server.open, [])

    def test_late(self) -> None:
        """
        The connection of a client that is not free within C{requestTimeout} is closed.
        """
        pool = self.begun(requestTimeout=5)
        self.reactor.advance(5)
        self.reactor.turns()
        self.assertEqual((self.server.open, pool.records), ([], []))
        pool.selfCheck()

    def test_lost(self) -> None:
        """
        Nothing is left if the connection is lost meanwhile, or if the pool is closed.
        """
        pool = self.begun()
        (client,) = pool.connections
        self.line.lose()
        self.reactor.turns()
        self.assertIsNotNone(client.lost)
        self.assertEqual(pool.records, [])
        pool.selfCheck()
        self.begun(requestTimeout=5)

    def test_failed(self) -> None:
        """
        If the Deferred or C{whenQuiet} fails, the connection is closed.
        """
        pool = self.begun()
        self.line.answer("!broken")
        self.reactor.turns()
        self.assertEqual((self.server.open, pool.records), ([], []))
        self.begun()
        pool.selfCheck()
        pool = self.pool(client=Streaming, maxClients=1)
        answer = pool.performRequest("ask", "short")
        self.reactor.turns()
        pool.connections[0].broken = True
        self.server.open[-1].answer("head")
        self.assertEqual(self.successResultOf(answer), "head")
        self.reactor.turns()
        self.assertEqual(pool.records, [])
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    def test_cancelled(self) -> None:
        """
        The body of a request that was cancelled is waited for too.
        """
        pool = self.pool(client=Streaming, maxClients=1)
        answer = pool.performRequest("ask", "one")
        self.reactor.turns()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        second = self.ask(pool, "two")
        self.server.open[0].answer("head")
        self.assertEqual(self.server.open[0].asked, ["one"])
        self.server.open[0].answer(".")
        self.assertEqual(self.server.open[0].asked, ["one", "two"])
        self.server.open[0].answer("head", ".")
        self.assertEqual(self.successResultOf(second), "head")
        pool.selfCheck()

    def test_careless(self) -> None:
        """
        If the client does not fail its Deferreds when the connection is lost, the pool cancels the one of the body, and
        a result that comes later is ignored.
        """
        pool = self.begun(client=Forgetful)
        client = self.line.protocol.connection
        self.reactor.advance(2)
        self.line.lose()
        self.assertTrue(client.waiting[0].called)
        self.assertEqual(pool.records, [])
        asked = pool.performRequest("ask", "two")
        self.reactor.turns()
        client = self.server.open[0].protocol.connection
        self.server.open[0].lose()
        self.failureResultOf(asked, ConnectionLostInFlight)
        client.waiting[0].callback("too late")
        pool.selfCheck()

    def test_deaf(self) -> None:
        """
        A Deferred that has a result although it was cancelled changes nothing: the connection is closed.
        """
        pool = self.begun(client=Deaf, requestTimeout=5)
        self.reactor.advance(5)
        self.reactor.turns()
        self.assertEqual((self.server.open, pool.records, pool.stats.closed), ([], [], 1))
        pool.selfCheck()
