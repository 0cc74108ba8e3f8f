# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.observer} and the events of which an observer is notified.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.pools import PoolCase
from txconnpool.errors import (
    ServerUnavailable,
)
from txconnpool.interfaces import IPoolObserver
from txconnpool.pool import PoolObserver
from txconnpool.pool.library import RequestPool


@implementer(IPoolObserver)
class Watching(PoolObserver):
    """
    An observer that records all events.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __getattribute__(self, name: str) -> Any:
        if name in IPoolObserver:
            return lambda *args: self.events.append((name, *args))
        return super().__getattribute__(name)


class ObserverTests(PoolCase):
    """
    Tests for the events of which an observer is notified.
    """

    def test_interface(self) -> None:
        """
        L{PoolObserver} has all methods of the interface, and they do nothing.
        """
        verifyObject(IPoolObserver, PoolObserver())
        pool = self.pool(observer=PoolObserver(), leakThreshold=1.0, maxClients=1)
        pool.performRequest("add", 1)
        lent = pool.acquire()
        self.reactor.turns()
        self.reactor.advance(2)
        pool.release(self.successResultOf(lent))
        self.server.mode = "refuse"
        pool.expire()
        self.ask(pool)
        for _ in range(10):
            self.reactor.advance(0.5)

    def watched(self, **options: Any) -> tuple[RequestPool[Any], list[Any]]:
        """
        @return: a pool and the list of its events.
        """
        observer = Watching()
        return self.pool(observer=observer, **options), observer.events

    def test_life(self) -> None:
        """
        An observer is notified of the dial, the requests, the leases and the end of a connection.
        """
        pool, events = self.watched(maxClients=1)
        pool.performRequest("add", 1)
        pool.performRequest("ask", "x")
        self.reactor.turns()
        (line,) = self.server.open
        client = line.protocol.connection
        self.reactor.advance(2)
        line.answer("a")
        lent = self.successResultOf(pool.acquire())
        pool.release(lent)
        pool.expire()
        self.reactor.turns()
        self.assertEqual(
            events,
            [
                ("dialing", "server"),
                ("connected", "server", client),
                ("answered", "add", 0.0, 1),
                ("answered", "ask", 2.0, "a"),
                ("lent", client),
                ("returned", client),
                ("dialing", "server"),
                ("connected", "server", self.server.open[0].protocol.connection),
                ("disconnected", "server", client, "expired"),
            ],
        )

    def test_trouble(self) -> None:
        """
        An observer is notified of failures.
        """
        pool, events = self.watched(whenDown=1, leakThreshold=3.0, requestTimeout=2.0)
        self.server.mode = "refuse"
        self.errors(self.asked(pool))
        (dialing, failed, refused) = events
        self.assertEqual((dialing, failed[:2]), (("dialing", "server"), ("dialFailed", "server")))
        self.assertEqual((refused[0], type(refused[1])), ("refused", ServerUnavailable))
        self.server.mode = "accept"
        self.reactor.advance(1)
        events.clear()
        asked = self.asked(pool)
        client = self.server.open[0].protocol.connection
        self.reactor.advance(2)
        self.reactor.turns()
        self.errors(asked)
        (answered, disconnected) = events
        self.assertEqual((answered[:3], type(answered[3])), (("answered", "ask", 2.0), Failure))
        self.assertEqual(disconnected, ("disconnected", "server", client, "no answer in time"))
        lent = pool.acquire()
        self.reactor.turns()
        self.reactor.advance(3)
        self.assertEqual(events[-1][:3], ("leaked", self.successResultOf(lent), 3.0))

    def asked(self, pool: RequestPool[Any]) -> Deferred[Any]:
        """
        @return: a request that was made.
        """
        asked = pool.performRequest("ask", "x")
        self.reactor.turns()
        return asked

    def test_raises(self) -> None:
        """
        Exceptions of an observer are logged and have no other effect.
        """

        class Failing(PoolObserver):
            def dialing(self, server: str) -> None:
                raise ZeroDivisionError

            def answered(self, method: str, seconds: float, result: Any) -> None:
                raise ZeroDivisionError

        pool = self.pool(observer=Failing())
        answer = pool.performRequest("add", 1)
        self.reactor.turns()
        self.assertEqual(self.successResultOf(answer), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
