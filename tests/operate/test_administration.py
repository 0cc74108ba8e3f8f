# Copyright txconnpool contributors. See LICENSE.
"""
Tests for what an operator can do to a pool: pause it, drain servers, change bounds and times.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.clients import SessionTestCase, get, gets, keys, put
from tests.memcached import Upstream
from tests.stage import Stage
from txconnpool.pool.decisions.limits import Limits
from txconnpool.proxy.flow import SessionLimits


def drained(*names: bytes) -> bytes:
    """
    @return: the reply to a client while all servers are drained.
    """
    return b"SERVER_ERROR upstream unavailable: drained (%s)\r\n" % b", ".join(names)


def limit(stage: Stage, **changes: Any) -> None:
    """
    Change some limits of a pool.
    """
    stage.pool.setLimits(replace(stage.pool.state.limits, **changes))
    stage.turns()


def open_(stage: Stage) -> list[int]:
    """
    @return: the number of open connections to each server.
    """
    return [len(server.open) for server in stage.servers]


class PauseTests(SessionTestCase):
    """
    Tests for L{txconnpool.pool.engine.PoolEngine.pause} and C{resume}.
    """

    def test_waits(self) -> None:
        """
        While a pool is paused, requests in flight are answered and all others wait, also those of the same session.
        """
        stage = self.stage(depth=2)
        client, other = stage.client(), stage.client()
        client.send(b"get a\r\n")
        stage.pool.pause()
        self.assertTrue(stage.pool.state.paused)
        client.send(b"get b\r\n")
        other.send(b"get c\r\n")
        stage.serve()
        self.assertEqual((client.take(), other.take(), stage.line.asked), (get(b"a"), b"", [b"get a\r\n"]))
        stage.pool.resume()
        self.assertFalse(stage.pool.state.paused)
        stage.serve()
        self.assertEqual((client.take(), other.take()), (get(b"b"), get(b"c")))

    def test_time(self) -> None:
        """
        The wait timeout does not run during a pause. Afterwards the time that is left for a request is the same as when
        the pause began, or as when the request came.
        """
        stage = self.stage(depth=1, waitTimeout=1.0, requestTimeout=1000.0)
        busy, before, during = (stage.client() for _ in range(3))
        busy.send(b"get a\r\n")
        before.send(b"get b\r\n")
        stage.clock.advance(0.75)
        stage.pool.pause()
        stage.clock.advance(100)
        during.send(b"get c\r\n")
        stage.clock.advance(1.5)
        stage.pool.resume()
        stage.clock.advance(0.2)
        self.assertEqual((before.take(), during.take()), (b"", b""))
        stage.clock.advance(0.1)
        self.assertIn(b"timed out waiting", before.take())
        stage.clock.advance(0.6)
        self.assertEqual(during.take(), b"")
        stage.clock.advance(0.2)
        self.assertIn(b"timed out waiting", during.take())

    def test_bounded(self) -> None:
        """
        The maximum of waiters holds during a pause.
        """
        stage = self.stage(maxWaiting=1)
        stage.pool.pause()
        clients = [stage.client(), stage.client()]
        for client in clients:
            client.send(b"get a\r\n")
        stage.serve()
        self.assertEqual([client.take() for client in clients], [b"", b"SERVER_ERROR too many waiting requests\r\n"])
        stage.pool.resume()

    @covers("20")
    def test_restartedServer(self) -> None:
        """
        A server may go down and come back during a pause without an effect on clients.
        """
        stage = self.stage()
        (server,) = stage.servers
        client = stage.client()
        stage.pool.pause()
        server.mode = "refuse"
        stage.line.lose()
        client.send(b"get a\r\n")
        stage.clock.advance(30)
        stage.turns()
        self.assertEqual((client.take(), open_(stage)), (b"", [0]))
        server.mode = "accept"
        stage.clock.advance(2)
        stage.turns()
        self.assertEqual((client.take(), open_(stage)), (b"", [1]))
        stage.pool.resume()
        stage.serve()
        self.assertEqual(client.take(), get(b"a"))

    def test_stillDown(self) -> None:
        """
        If no server can be reached when a pause ends, waiting requests fail at once.
        """
        stage = self.stage()
        (server,) = stage.servers
        client = stage.client()
        stage.pool.pause()
        server.mode = "refuse"
        stage.line.lose()
        client.send(b"get a\r\n")
        stage.clock.advance(30)
        stage.pool.resume()
        self.assertIn(b"SERVER_ERROR upstream unavailable: connection refused", client.take())

    def test_noDials(self) -> None:
        """
        Waiters start no dials during a pause.
        """
        stage = self.stage(maximum=4, minimum=1, depth=1)
        stage.pool.pause()
        for _ in range(5):
            stage.client().send(b"get a\r\n")
        stage.turns()
        self.assertEqual(open_(stage), [1])
        stage.pool.resume()
        stage.turns()
        self.assertEqual(open_(stage), [4])

    def test_twice(self) -> None:
        """
        A second C{pause}, and a C{resume} without a pause, have no effect.
        """
        stage = self.stage(waitTimeout=1.0)
        stage.pool.resume()
        client = stage.client()
        stage.pool.pause()
        client.send(b"get a\r\n")
        stage.clock.advance(10)
        stage.pool.pause()
        stage.pool.resume()
        self.assertEqual(stage.pool.waiters.count, 0)
        stage.serve()
        self.assertEqual(client.take(), get(b"a"))

    def test_everywhere(self) -> None:
        """
        A request that goes to every server fails during a pause, with the reason.
        """
        stage = self.stage(2)
        stage.pool.pause()
        line = b"SERVER_ERROR upstream unavailable: the pool is paused (server0)\r\n"
        self.assertEqual(stage.ask(stage.client(), b"flush_all\r\n"), line)
        stage.pool.resume()

    def test_serverDoesNotRead(self) -> None:
        """
        A connection whose server does not read stays held when the pause ends, until the server reads.
        """
        stage = self.stage(maximum=2, minimum=2)
        slow, quick = stage.lines
        slow.protocol.pauseProducing()
        stage.pool.pause()
        slow.protocol.resumeProducing()
        slow.protocol.pauseProducing()
        stage.pool.resume()
        self.assertEqual((slow.protocol.record.phase, quick.protocol.record.phase), ("held", "open"))
        slow.protocol.resumeProducing()
        self.assertEqual(slow.protocol.record.phase, "open")

    def test_resumedDuringPause(self) -> None:
        """
        A connection whose server reads again during a pause gets requests only after the pause.
        """
        stage = self.stage()
        stage.line.protocol.pauseProducing()
        stage.pool.pause()
        stage.line.protocol.resumeProducing()
        client = stage.client()
        client.send(b"get a\r\n")
        stage.serve()
        self.assertEqual(stage.line.asked, [])
        stage.pool.resume()
        stage.serve()
        self.assertEqual(client.take(), get(b"a"))

    def test_closed(self) -> None:
        """
        A paused pool can be closed.
        """
        stage = self.stage()
        stage.pool.pause()
        client = stage.client()
        client.send(b"get a\r\n")
        closing = stage.pool.close(1.0)
        stage.turns()
        self.successResultOf(closing)
        self.assertEqual(client.take(), b"SERVER_ERROR the pool was closed\r\n")
        stage.pool.resume()


class DrainTests(SessionTestCase):
    """
    Tests for L{txconnpool.pool.engine.PoolEngine.drain} and C{restore}.
    """

    def test_drain(self) -> None:
        """
        A drained server answers its requests in flight and gets no others; its connections are closed, and it is not
        dialed until it is restored.
        """
        stage = self.stage(2, maximum=4, minimum=4)
        first, second = stage.servers
        client = stage.client()
        client.send(b"get a\r\n")
        (busy,) = [line for line in stage.lines if line.protocol.record.load]
        name, other = ("server0", second) if busy in first.lines else ("server1", first)
        stage.pool.drain(name)
        stage.turns()
        client.send(b"get b\r\n")
        self.assertTrue(busy.connected)
        stage.serve()
        self.assertEqual((client.take(), busy.asked, busy.connected), (get(b"a", b"b"), [b"get a\r\n"], False))
        stage.clock.advance(100)
        stage.turns()
        self.assertEqual(sum(open_(stage)), len(other.open))
        self.assertEqual(len(other.open), 4)
        stage.pool.restore(name)
        stage.turns(30)
        self.assertEqual(open_(stage), [2, 2])

    def test_only(self) -> None:
        """
        While the only server is drained, requests fail at once with the reason, waiting ones too. They succeed when it
        is restored.
        """
        stage = self.stage(depth=1)
        busy, waiting = stage.client(), stage.client()
        busy.send(b"get a\r\n")
        waiting.send(b"get b\r\n")
        stage.pool.drain("server0")
        self.assertEqual(waiting.take(), b"")
        stage.serve()
        self.assertEqual((busy.take(), waiting.take()), (get(b"a"), drained(b"server0")))
        self.assertEqual(stage.ask(waiting, b"get b\r\n"), drained(b"server0"))
        stage.pool.restore("server0")
        stage.turns()
        self.assertEqual(stage.ask(waiting, b"get b\r\n"), get(b"b"))

    def test_dialing(self) -> None:
        """
        A connection whose dial succeeds after its server was drained is closed at once.
        """
        stage = self.stage()
        limit(stage, maximum=2, minimum=2)
        stage.pool.drain("server0")
        stage.turns()
        self.assertEqual(open_(stage), [0])

    def test_drainAtOnce(self) -> None:
        """
        With C{abort} the connections are closed at once. Reads in flight are sent to another server, other requests
        fail.
        """
        stage = self.stage(2, depth=1)
        clients = [stage.client() for _ in range(2)]
        for client in clients:
            client.send(b"get a\r\n")
        stage.pool.drain("server0", abort=True)
        stage.turns()
        self.assertEqual(open_(stage)[0], 0)
        stage.serve()
        self.assertEqual([client.take() for client in clients], [get(b"a")] * 2)
        stage.pool.restore("server0")
        stage.turns(30)
        self.assertEqual(open_(stage), [1, 1])

    def test_everywhere(self) -> None:
        """
        A request that goes to every server fails while one of them is drained.
        """
        stage = self.stage(2)
        stage.pool.drain("server1")
        line = b"SERVER_ERROR upstream unavailable: drained (server1)\r\n"
        self.assertEqual(stage.ask(stage.client(), b"flush_all\r\n"), line)

    def test_down(self) -> None:
        """
        A server that is down is dialed without delay when it is restored, drained or not.
        """
        stage = self.stage(start=False)
        (server,) = stage.servers
        server.mode = "refuse"
        stage.pool.start()
        for _ in range(20):
            stage.clock.advance(1)
        server.mode = "accept"
        stage.pool.restore("server0")
        stage.turns()
        self.assertEqual(open_(stage), [1])
        stage.clock.advance(2)

    def test_othersDown(self) -> None:
        """
        When the other servers are down, the error does not name the drained one.
        """
        stage = self.stage(2)
        stage.servers[1].mode = "refuse"
        for line in stage.servers[1].open:
            line.lose()
        stage.pool.drain("server0")
        stage.clock.advance(1)
        stage.turns()
        answer = stage.ask(stage.client(), b"get a\r\n")
        self.assertEqual(answer, b"SERVER_ERROR upstream unavailable: connection refused (server1)\r\n")
        stage.pool.restore("server0")

    def test_unknown(self) -> None:
        """
        The error for an unknown server names the servers there are.
        """
        stage = self.stage(2)
        for change in (stage.pool.drain, stage.pool.restore):
            error = self.assertRaises(ValueError, change, "server9")
            self.assertEqual(str(error), "no server 'server9'; there are: server0, server1")

    def test_repr(self) -> None:
        """
        The C{repr} of a drained server says so.
        """
        stage = self.stage()
        stage.pool.drain("server0")
        stage.turns()
        self.assertEqual(repr(stage.pool.servers[0]), "<Server server0: drained, 0 connections>")


class LimitTests(SessionTestCase):
    """
    Tests for other bounds and times, which also hold for what exists.
    """

    def test_newServer(self) -> None:
        """
        A server that is added gets its share of the connections at once.
        """
        stage = self.stage(maximum=4, minimum=4)
        stage.servers.append(Upstream(stage.clock, "another"))
        stage.pool.addServer(stage.servers[1])
        stage.turns(30)
        self.assertEqual(open_(stage), [2, 2])

    def test_smaller(self) -> None:
        """
        When the pool is made smaller, servers keep equal shares, and connections are closed when they are idle.
        """
        stage = self.stage(2, maximum=6, minimum=6)
        clients = [stage.client() for _ in range(6)]
        for client in clients:
            client.send(b"get a\r\n")
        limit(stage, maximum=2, minimum=2)
        self.assertEqual(open_(stage), [3, 3])
        stage.serve()
        self.assertEqual(([client.take() for client in clients], open_(stage)), ([get(b"a")] * 6, [1, 1]))

    def test_waitTimeout(self) -> None:
        """
        Another wait timeout also holds for requests that wait already.
        """
        stage = self.stage(depth=1, waitTimeout=None)
        clients = [stage.client() for _ in range(3)]
        for client in clients:
            client.send(b"get a\r\n")
        limit(stage, waitTimeout=0.5)
        stage.clock.advance(0.5)
        for client in clients[1:]:
            self.assertIn(b"timed out waiting", client.take())

    def test_maxLifetime(self) -> None:
        """
        Another lifetime also holds for existing connections, counted from their establishment.
        """
        stage = self.stage()
        first = stage.line
        stage.clock.advance(100)
        limit(stage, maxLifetime=200.0)
        stage.turns()
        self.assertTrue(first.connected)
        stage.clock.advance(100)
        stage.turns()
        self.assertFalse(first.connected)
        second = stage.line
        limit(stage, maxLifetime=0.0)
        stage.clock.advance(1000)
        stage.turns()
        self.assertTrue(second.connected)

    def test_lifetimeOfDial(self) -> None:
        """
        A dial in progress has no lifetime.
        """
        stage = self.stage(maximum=2, minimum=1)
        stage.clock.advance(1000)
        limit(stage, maximum=2, minimum=2, maxLifetime=0.0)
        stage.pool.setLimits(replace(stage.pool.state.limits, maximum=2, minimum=2, maxLifetime=5000.0))
        stage.turns()
        self.assertEqual(open_(stage), [2])
        limit(stage, maxLifetime=0.0)

    def test_requestTimeout(self) -> None:
        """
        Another request timeout, shorter or longer, also holds for requests in flight.
        """
        for timeout, early, late in ((0.5, 0.4, 0.1), (10.0, 9.9, 0.2)):
            stage = self.stage(requestTimeout=2.0)
            client = stage.client()
            client.send(b"get a\r\n")
            stage.factory.requestTimeout = timeout
            for connection in stage.pool.connections:
                connection.retime()
            stage.clock.advance(early)
            self.assertEqual(client.take(), b"")
            stage.clock.advance(late)
            stage.turns()
            self.assertIn(b"no answer within", client.take())
            self.flushLoggedErrors()

    def test_requestTimeoutIdle(self) -> None:
        """
        Without requests in flight there is no timer.
        """
        stage = self.stage()
        stage.line.protocol.retime()
        self.assertEqual(stage.clock.getDelayedCalls(), [])

    def test_connectTimeout(self) -> None:
        """
        Another connect timeout holds for the next dial.
        """
        stage = self.stage(maximum=2, minimum=1)
        (server,) = stage.servers
        server.mode = "hang"
        stage.pool.setConnectTimeout(5.0)
        limit(stage, minimum=2)
        stage.clock.advance(4.9)
        self.assertEqual(stage.pool.stats.dialing, 1)
        stage.clock.advance(0.2)
        self.assertEqual(stage.pool.counters.dialFailures, 1)

    def test_maxItemSize(self) -> None:
        """
        Another size holds for the next value.
        """
        stage = self.stage(maxItemSize=2000)
        client = stage.client()
        self.assertIn(b"SERVER_ERROR object too large", stage.ask(client, put(b"big", 3000)))
        stage.dialect.limit(3000, frozenset(), None)
        self.assertEqual(stage.ask(client, put(b"big", 3000)), b"STORED\r\n")

    def test_maxClients(self) -> None:
        """
        With a smaller maximum, clients that are connected stay, and new ones are refused.
        """
        stage = self.stage()
        clients = [stage.client() for _ in range(3)]
        stage.sessions.limit(SessionLimits(maxClients=2))
        self.assertEqual(stage.ask(clients[2], b"get a\r\n"), get(b"a"))
        self.assertEqual(stage.client().take(), stage.dialect.tooManyClients)

    def test_full(self) -> None:
        """
        C{full} refuses the next client, whatever the maximum.
        """
        stage = self.stage()
        stage.sessions.full = True
        self.assertEqual(stage.client().take(), stage.dialect.tooManyClients)
        self.assertEqual(stage.sessions.refused, 1)
        stage.sessions.full = False

    def test_maxInFlight(self) -> None:
        """
        Another maximum of requests in flight, smaller or larger, holds at once.
        """
        stage = self.stage()
        client = stage.client()
        stage.sessions.limit(SessionLimits(maxInFlight=2))
        client.send(gets(keys(10)))
        (session,) = stage.sessions.sessions
        self.assertEqual(session.inFlight, 2)
        stage.sessions.limit(SessionLimits(maxInFlight=4))
        stage.line.deliver()
        self.assertEqual(session.inFlight, 4)
        stage.serve()
        self.assertEqual(client.take(), get(*keys(10)))

    def test_unreadSoft(self) -> None:
        """
        With a smaller soft bound, reading from a client that exceeds it is suspended; with a larger one it goes on.
        """
        stage = self.stage()
        client = stage.client()
        client.reads = False
        client.send(b"".join(b"get large%d\r\n" % number for number in range(10)))
        stage.serve()
        self.assertTrue(client.reading)
        stage.sessions.limit(SessionLimits(unreadSoft=1000))
        self.assertFalse(client.reading)
        stage.sessions.limit(SessionLimits())
        self.assertTrue(client.reading)

    def test_unreadHard(self) -> None:
        """
        With a smaller hard bound, a client that exceeds it is closed.
        """
        stage = self.stage()
        client = stage.client()
        client.reads = False
        client.send(b"".join(b"get large%d\r\n" % number for number in range(10)))
        stage.serve()
        stage.sessions.limit(SessionLimits(unreadHard=1000))
        self.assertTrue(client.aborted)

    def test_unreadAll(self) -> None:
        """
        With a smaller bound for all clients, those with the most unread bytes are closed.
        """
        stage = self.stage()
        clients = [stage.client(), stage.client()]
        for client, count in zip(clients, (10, 20), strict=True):
            client.reads = False
            client.send(b"".join(b"get large%d\r\n" % number for number in range(count)))
        stage.serve()
        stage.unread.limit = stage.unread.total - 1
        stage.unread.enforce()
        self.assertEqual([client.aborted for client in clients], [False, True])

    def test_connectionsBeforeTheirTime(self) -> None:
        """
        Idle connections are closed first when the pool is made smaller.
        """
        stage = self.stage(maximum=3, minimum=3, depth=5)
        client = stage.client()
        client.send(b"get a\r\n")
        limit(stage, maximum=1, minimum=1)
        self.assertEqual([line.protocol.record.load for line in stage.lines if line.connected], [1])


class RebalanceTests(SynchronousTestCase):
    """
    Tests for the connections that are closed when the shares of servers change.
    """

    def test_notBelow(self) -> None:
        """
        The rounded shares add up to the maximum, and servers differ by at most one connection.
        """
        for maximum in range(3, 9):
            stage = Stage(3, maximum=12, minimum=12)
            stage.turns(30)
            stage.pool.setLimits(Limits(maximum=maximum, minimum=maximum, idleTimeout=0, maxLifetime=0))
            stage.turns(30)
            counts = open_(stage)
            self.assertEqual((sum(counts), max(counts) - min(counts) <= 1), (maximum, True))
