# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.pool.base} and L{txconnpool.pool.readiness}.
"""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock

from tests.bugs import covers
from tests.pools import Careless, Client, PoolCase
from txconnpool.errors import (
    ConnectionLostInFlight,
    PoolClosed,
    PoolTimeout,
)
from txconnpool.pool.library import RequestPool


class LifeTests(PoolCase):
    """
    Tests for starting and closing a pool.
    """

    def test_nothing(self) -> None:
        """
        Constructing a pool has no effect.
        """
        self.pool(minClients=2)
        self.assertEqual((self.reactor.getDelayedCalls(), self.reactor.triggers, self.server.dials), ([], [], 0))

    def test_shutdown(self) -> None:
        """
        When the reactor stops, requests in flight end, waiting ones are refused, and the pool is closed (scenario 25).
        """
        pool = self.pool(maxClients=1)
        asked, waiting = pool.performRequest("ask", "x"), pool.performRequest("ask", "y")
        self.reactor.turns()
        (closed,) = self.reactor.stop()
        self.assertEqual(self.errors(waiting, pool.performRequest("ask", "z")), [PoolClosed] * 2)
        self.assertNoResult(closed)
        self.server.open[0].answer("a")
        self.reactor.turns()
        self.assertEqual(self.successResultOf(asked), "a")
        self.successResultOf(closed)

    def test_shutdownInTime(self) -> None:
        """
        A request without a reply delays the shutdown of the reactor for a limited time only.
        """
        pool = self.pool(client=Careless)
        asked = pool.performRequest("ask", "x")
        self.reactor.turns()
        (closed,) = self.reactor.stop()
        self.reactor.advance(5)
        self.reactor.turns()
        self.successResultOf(closed)
        self.assertEqual(self.errors(asked), [ConnectionLostInFlight])

    def test_forceShutdown(self) -> None:
        """
        With C{forceShutdown}, the pool closes its connections at once when the reactor stops.
        """
        pool = self.pool(client=Careless, forceShutdown=True, maxClients=1)
        asked, waiting = pool.performRequest("ask", "x"), pool.performRequest("ask", "y")
        self.reactor.turns()
        (closed,) = self.reactor.stop()
        self.reactor.turns()
        self.successResultOf(closed)
        self.assertEqual(self.errors(asked, waiting), [ConnectionLostInFlight, PoolClosed])

    def test_trigger(self) -> None:
        """
        A running pool has one shutdown trigger, and a closed pool none.
        """
        pool = self.pool()
        for _ in range(3):
            pool.start()
            self.assertEqual(len(self.reactor.triggers), 1)
            pool.start()
            self.assertEqual(len(self.reactor.triggers), 1)
            pool.close()
            self.assertEqual(self.reactor.triggers, [])

    def test_closedWhileTheReactorStops(self) -> None:
        """
        Closing the pool while the reactor stops has no further effect.
        """
        pool = self.pool()
        self.reactor.addSystemEventTrigger("before", "shutdown", lambda: pool.close())
        pool.start()
        self.reactor.addSystemEventTrigger("before", "shutdown", lambda: pool.close())
        self.assertEqual(len(self.reactor.stop()), 2)

    @covers("26")
    def test_collected(self) -> None:
        """
        A closed pool, its clients and its callers are garbage-collected: the reactor keeps no reference.
        """
        factory = Factory.forProtocol(Client)
        pool: RequestPool[Client] = RequestPool(self.server, reactor=self.reactor, clientFactory=factory, maxClients=1)
        answers = [pool.performRequest("ask", "x") for _ in range(3)]
        lent = pool.acquire()
        self.reactor.turns()
        self.server.open[0].answer("a", "b", "c")
        client = self.successResultOf(lent)
        refs = [weakref.ref(each) for each in (pool, client, lent, *answers)]
        pool.release(client)
        pool.close()
        self.reactor.turns()
        self.server.lines.clear()
        del pool, answers, lent, client, factory
        gc.collect()
        self.assertEqual([ref() for ref in refs], [None] * len(refs))

    def test_leaseAtTheEnd(self) -> None:
        """
        Closing waits for leases. After a timeout the connections are closed, and leases can still be released.
        """
        pool = self.pool()
        lent = pool.acquire()
        self.reactor.turns()
        done = pool.close(5.0)
        self.reactor.advance(4)
        self.assertNoResult(done)
        self.reactor.advance(2)
        self.reactor.turns()
        self.successResultOf(done)
        pool.release(self.successResultOf(lent))
        pool.selfCheck()

    def test_asyncWith(self) -> None:
        """
        C{async with pool} starts the pool and closes it.
        """

        async def live() -> str:
            one: RequestPool[Client] = RequestPool(
                self.server, reactor=self.reactor, clientFactory=Factory.forProtocol(Client)
            )
            async with one as pool:
                answer: str = await pool.performRequest("ask", "x")
                return answer

        answer = Deferred.fromCoroutine(live())
        self.reactor.turns()
        self.server.open[0].answer("a")
        self.reactor.turns()
        self.assertEqual(self.successResultOf(answer), "a")
        self.assertEqual((self.server.open, self.reactor.triggers), ([], []))

    def test_again(self) -> None:
        """
        A closed pool that is started works again.
        """
        pool = self.pool()
        pool.close()
        self.assertEqual(self.errors(pool.performRequest("add", 1), pool.acquire(), pool.ready()), [PoolClosed] * 3)
        pool.start()
        answer = pool.performRequest("add", 1)
        self.reactor.turns()
        self.assertEqual(self.successResultOf(answer), 1)


class ReadyTests(PoolCase):
    """
    Tests for L{Pool.ready}.
    """

    def test_ready(self) -> None:
        """
        C{ready} starts the pool and fires when the given number of connections is established; by default the minimum,
        and at least one.
        """
        for minimum, count, expected in ((0, None, 1), (2, None, 2), (1, 3, 3)):
            pool = self.pool(minClients=minimum)
            ready = pool.ready(count)
            self.assertNoResult(ready)
            self.reactor.turns()
            self.successResultOf(ready)
            self.assertEqual(pool.stats.connections, expected)
            self.successResultOf(pool.ready(expected))
            self.finish(pool)

    def test_noneTooMany(self) -> None:
        """
        A number above the maximum is an error, and connections that C{ready} had dialed are not kept open.
        """
        pool = self.pool(maxClients=3, idleTimeout=10.0)
        self.failureResultOf(pool.ready(4), ValueError)
        self.successResultOf(self.turned(pool.ready(3)))
        self.reactor.advance(11)
        self.reactor.turns()
        self.assertEqual(pool.stats.connections, 0)

    def turned(self, result: Deferred[Any]) -> Deferred[Any]:
        """
        @return: the Deferred, after some reactor turns.
        """
        self.reactor.turns()
        return result

    def test_late(self) -> None:
        """
        After the timeout C{ready} fails with the reason.
        """
        self.server.mode = "refuse"
        pool = self.pool()
        error = self.late(pool)
        self.assertEqual(str(error), "not ready within 5 s: connection refused (server)")
        self.assertIsNotNone(error.__cause__)
        self.server.mode = "hang"
        error = self.late(self.pool())
        self.assertIn("not ready within 5 s: 0 of 5 connections busy, 0 idle, 1 dialing", str(error))

    def late(self, pool: RequestPool[Any]) -> PoolTimeout:
        """
        @return: the error of C{ready} after its timeout.
        """
        ready = pool.ready(2, timeout=5.0)
        for _ in range(51):
            self.reactor.advance(0.1)
        error = self.error(ready)
        assert isinstance(error, PoolTimeout)
        self.assertEqual(error.phase, "connect")
        return error

    def test_cancel(self) -> None:
        """
        When C{ready} is cancelled, no more connections are dialed for it.
        """
        pool = self.pool()
        ready = pool.ready(5)
        ready.cancel()
        self.assertEqual(self.errors(ready), [CancelledError])
        self.reactor.turns()
        self.assertEqual(self.server.dials, 1)

    def test_closed(self) -> None:
        """
        When the pool is closed, C{ready} fails.
        """
        self.server.mode = "hang"
        pool = self.pool()
        ready = pool.ready()
        timers: list[Any] = []
        pool.close().addCallback(lambda _: timers.extend(self.reactor.getDelayedCalls()))
        self.assertEqual((self.errors(ready), timers), ([PoolClosed], []))

    def test_closedOnHearing(self) -> None:
        """
        A callback of C{ready} that fails may close the pool or call C{ready} again.
        """
        self.server.mode = "hang"
        pool = self.pool()
        again: list[Deferred[Any]] = []
        pool.ready().addErrback(lambda failure: again.extend([pool.ready(), pool.close()]))
        closed = pool.close()
        self.assertEqual(self.errors(again[0]), [PoolClosed])
        self.successResultOf(closed)
        self.successResultOf(again[1])


class ChangeTests(PoolCase):
    """
    Tests for changes to a running pool.
    """

    def test_resize(self) -> None:
        """
        With a smaller maximum, busy connections are closed when they are released. With a larger one, waiting requests
        are served (scenario 22).
        """
        pool = self.pool(maxClients=3)
        clients = [pool.acquire() for _ in range(3)]
        self.reactor.turns()
        pool.resize(0, 1)
        self.reactor.turns()
        self.assertEqual(len(self.server.open), 3)
        for client in clients:
            pool.release(self.successResultOf(client))
        self.reactor.turns()
        self.assertEqual(len(self.server.open), 1)
        clients = [pool.acquire(), pool.acquire()]
        self.assertNoResult(clients[1])
        pool.suggestMaxClients(2)
        self.reactor.turns()
        self.successResultOf(clients[1])

    def test_suggestMaxClients(self) -> None:
        """
        C{suggestMaxClients} lowers the minimum too if necessary. An invalid maximum is an error.
        """
        pool = self.pool(minClients=3, maxClients=5)
        pool.suggestMaxClients(2)
        self.assertEqual((pool.state.limits.minimum, pool.state.limits.maximum), (2, 2))
        self.assertRaises(ValueError, pool.suggestMaxClients, 0)

    def test_lifetimes(self) -> None:
        """
        Old connections are replaced, at different times, but not while they are in use (scenario 23).
        """
        pool = self.pool(minClients=100, maxClients=100, maxLifetime=3600.0, idleTimeout=None)
        pool.start()
        self.reactor.turns(400)
        lent = pool.acquireNow()
        closed = [0]
        for _ in range(200):
            self.reactor.advance(1)
            self.reactor.turns(1)
        self.reactor.advance(3600 * 0.95 - 201)
        for _ in range(200):
            self.reactor.advance(1)
            self.reactor.turns(4)
            closed.append(pool.stats.closed)
        self.assertLess(max(after - before for before, after in pairwise(closed)), 20)
        self.assertEqual(closed[-1], 99)
        self.assertIn(lent, pool.connections)
        pool.release(lent)
        self.assertEqual(pool.stats.connections, 100)

    def test_clockJumps(self) -> None:
        """
        A pool works after its clock was set back or forward (scenario 24).
        """
        pool = self.pool(maxClients=1)
        for jump in (-3600.0, +7200.0, -1.0):
            asked = pool.performRequest("ask", "x")
            self.reactor.turns()
            self.reactor.rightNow += jump
            self.reactor.turns()
            if asked.called:
                self.assertEqual(self.errors(asked), [PoolTimeout])
            else:
                self.server.open[0].answer("a")
                self.assertEqual(self.successResultOf(asked), "a")
            self.reactor.advance(2)

    def test_servers(self) -> None:
        """
        Servers can be added and removed.
        """
        other = self.another("other")
        pool = self.pool()
        pool.addServer(other)
        pool.removeServer(self.server)
        answer = pool.performRequest("add", 1)
        self.reactor.turns()
        self.assertEqual((self.successResultOf(answer), self.server.dials, other.dials), (1, 0, 1))


class ParameterTests(PoolCase):
    """
    Tests for parameters that do not exist.
    """

    def test_unknown(self) -> None:
        """
        The error names the parameter, and the one that was probably meant.
        """
        for options, text in (
            ({"acquireTimeout": 1}, "RequestPool has no parameter 'acquireTimeout'; its name is 'waitTimeout'"),
            ({"waitTimeuot": 1}, "RequestPool has no parameter 'waitTimeuot'; is it 'waitTimeout'?"),
            ({"xyz": 1}, "RequestPool has no parameter 'xyz'"),
        ):
            error = self.assertRaises(TypeError, RequestPool, ("host", 1), clientFactory=Factory(), **options)
            self.assertEqual(str(error), text)


class AddressTests(PoolCase):
    """
    Tests for the addresses of servers.
    """

    def names(self, addresses: Any) -> list[str]:
        """
        @return: the names of the servers of a pool.
        """
        pool = self.pool()
        pool = RequestPool(addresses, reactor=MemoryReactorClock(), clientFactory=Factory.forProtocol(Client))
        return [server.name for server in pool.servers]

    def test_oneOrMany(self) -> None:
        """
        C{serverAddresses} is one address, or a list or tuple of addresses. A host and a port are one address.
        """
        one = IPv4Address("TCP", "127.0.0.1", 1)
        for addresses in (one, [one], (one,), ("127.0.0.1", 1), [("127.0.0.1", 1)], "tcp:127.0.0.1:1"):
            self.assertEqual(self.names(addresses), ["tcp:127.0.0.1:1"])
        self.assertEqual(len(self.names((one, one))), 2)
        self.assertEqual(len(self.names([("a", 1), ("b", 2)])), 2)

    def test_none(self) -> None:
        """
        No address, or an invalid one, is an error.
        """
        for wrong in ([], (), None, [None], 11211):
            self.assertRaises(ValueError, self.names, wrong)


class ImportTests(PoolCase):
    """
    Tests for importing the pool.
    """

    def test_reactor(self) -> None:
        """
        Importing the pool installs no reactor.
        """
        import subprocess
        import sys

        code = "import sys, txconnpool.pool.library; sys.exit('twisted.internet.reactor' in sys.modules)"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], check=False).returncode, 0)
