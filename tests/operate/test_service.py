# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.service}.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.bugs import covers
from tests.certificates import Certificate, missingTLS, quoted
from tests.operate.harness import A, B, Port, ProxyHarness
from tests.pipes import Pipe
from txconnpool.config.changes import CannotChange
from txconnpool.config.settings import ConfigError, PoolSettings, Settings
from txconnpool.operate.service import ProxyService
from txconnpool.pool.connection import Connection
from txconnpool.proxy.flow import SessionLimits


class ProxyServiceTests(SynchronousTestCase):
    """
    Tests for the life cycle of L{ProxyService}.
    """

    def test_interface(self) -> None:
        """
        It is a service, and the parent of a service for each pool, with the pool's name.
        """
        service = ProxyHarness(A, B).service
        verifyObject(IService, service)
        self.assertEqual([service.getServiceNamed(name).name for name in "ab"], ["a", "b"])

    def test_nothingYet(self) -> None:
        """
        Its construction opens no port and starts no timer.
        """
        harness = ProxyHarness(A, B)
        self.assertEqual((harness.ports, harness.clock.getDelayedCalls()), ([], []))

    def test_life(self) -> None:
        """
        It listens and connects when it starts, serves clients, and leaves no port, connection or timer when it has
        stopped. It can start again.
        """
        harness = ProxyHarness(A, B)
        for _ in range(2):
            harness.start()
            self.assertEqual(harness.open, ["tcp:1", "tcp:2", "tcp:3"])
            client = harness.client("tcp:3")
            self.assertEqual(harness.ask(client, b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")
            stopped = harness.service.stopService()
            harness.turns()
            self.successResultOf(stopped)
            self.assertEqual((harness.open, client.connected, harness.clock.getDelayedCalls()), ([], False, []))

    def test_listensBefore(self) -> None:
        """
        It listens in C{privilegedStartService}, once.
        """
        harness = ProxyHarness(A)
        harness.service.privilegedStartService()
        self.assertEqual(harness.open, ["tcp:1"])
        harness.service.startService()
        self.assertEqual(len(harness.ports), 1)

    def test_cannotListen(self) -> None:
        """
        The error of an address that is taken is raised by the start.
        """
        harness = ProxyHarness(A)
        harness.taken["tcp:1"] = CannotListenError("", 1, OSError("taken"))
        self.assertRaises(CannotListenError, harness.service.privilegedStartService)

    def test_cannotListenLater(self) -> None:
        """
        An error of an endpoint that comes later is logged.
        """
        harness = ProxyHarness(A)
        later: Deferred[Any] = Deferred()
        harness.later["tcp:1"] = later
        harness.service.privilegedStartService()
        later.errback(CannotListenError("", 1, OSError("taken")))
        self.assertEqual(len(self.flushLoggedErrors(CannotListenError)), 1)

    def test_drain(self) -> None:
        """
        A stop answers the requests that were read, up to C{drainTimeout}. Then it closes the sessions that are left.
        """
        harness = ProxyHarness(A, drainTimeout=3.0).start()
        client = harness.client("tcp:1")
        harness.proxy("a").pool.pause()
        client.send(b"get a\r\n")
        stopped = harness.service.stopService()
        harness.turns()
        self.assertEqual(harness.open, [])
        harness.clock.advance(2.9)
        self.assertNoResult(stopped)
        self.assertTrue(client.connected)
        with capturedLogs() as logs:
            harness.clock.advance(0.2)
            harness.turns()
        self.successResultOf(stopped)
        self.assertFalse(client.connected)
        self.assertEqual([event["count"] for event in logs if "did not end in time" in event["log_format"]], [1])
        self.assertEqual(harness.clock.getDelayedCalls(), [])

    def test_lastLook(self) -> None:
        """
        A request that has arrived when the stop begins, and is not read yet, is answered.
        """
        harness = ProxyHarness(A).start()
        client = harness.client("tcp:1")
        stopped = harness.service.stopService()
        client.send(b"get a\r\n")
        harness.turns()
        self.successResultOf(stopped)
        self.assertEqual((client.take(), client.connected), (b"END\r\n", False))

    def test_status(self) -> None:
        """
        The status is one line. A server with a connection counts as up, also after a failed dial.
        """
        harness = ProxyHarness(A, B).start()
        harness.client("tcp:2")
        harness.proxy("a").pool.markDown("memory:", ConnectionRefusedError())
        self.assertEqual(harness.service.status(), "clients: 1, connections: 2, servers up: 2 of 2")

    def test_abort(self) -> None:
        """
        C{abort} ends a stop at once.
        """
        harness = ProxyHarness(A, B, drainTimeout=100.0).start()
        clients = [harness.client("tcp:1"), harness.client("tcp:2")]
        for proxy in harness.service.proxies:
            proxy.pool.pause()
        for client in clients:
            client.send(b"get a\r\n")
        stopped = harness.service.stopService()
        harness.turns()
        self.assertNoResult(stopped)
        harness.service.abort()
        harness.turns()
        self.successResultOf(stopped)
        self.assertEqual([client.aborted for client in clients], [True, True])
        self.assertEqual(harness.clock.getDelayedCalls(), [])


class EndTests(SynchronousTestCase):
    """
    Tests for stops at unusual moments, which leave no port and no timer either.
    """

    #: A server of which nothing is heard.
    SILENT = PoolSettings(name="silent", upstream=("tcp:192.0.2.1:1",), listen=("tcp:9",))

    def assertEnds(self, harness: ProxyHarness) -> None:
        """
        Assert that a stop ends, and leaves no port and no timer.
        """
        stopped = harness.service.stopService()
        harness.turns()
        self.successResultOf(stopped)
        self.assertEqual((harness.open, harness.clock.getDelayedCalls()), ([], []))

    def test_neverStarted(self) -> None:
        """
        A service that was not started stops at once.
        """
        self.assertEnds(ProxyHarness(A, B))

    def test_atOnce(self) -> None:
        """
        A service that is stopped in the turn in which it was started has not dialed.
        """
        harness = ProxyHarness(A, self.SILENT)
        harness.service.privilegedStartService()
        harness.service.startService()
        self.assertEnds(harness)
        self.assertEqual(harness.clock.tcpClients, [])

    def test_dialing(self) -> None:
        """
        A dial in progress is cancelled.
        """
        harness = ProxyHarness(self.SILENT).start()
        self.assertEqual(len(harness.clock.tcpClients), 1)
        self.assertEnds(harness)

    def test_waiting(self) -> None:
        """
        A request that waits for the first connection is answered when the dial fails. Then its session ends.
        """
        harness = ProxyHarness(self.SILENT, drainTimeout=3.0).start()
        client = harness.client("tcp:9")
        client.send(b"get a\r\n")
        stopped = harness.service.stopService()
        harness.clock.advance(0.9)
        self.assertNoResult(stopped)
        harness.clock.advance(0.1)
        harness.turns()
        self.successResultOf(stopped)
        self.assertTrue(client.received.startswith(b"SERVER_ERROR upstream unavailable: connect timed out: "))
        self.assertEqual((client.connected, harness.clock.getDelayedCalls()), (False, []))

    def test_partlyListening(self) -> None:
        """
        When one of several addresses is taken, a stop closes the others.
        """
        harness = ProxyHarness(A, B)
        harness.taken["tcp:3"] = CannotListenError("", 3, OSError("taken"))
        self.assertRaises(CannotListenError, harness.service.privilegedStartService)
        self.assertEqual(harness.open, ["tcp:1", "tcp:2"])
        self.assertEnds(harness)

    def test_oneSlow(self) -> None:
        """
        Pools stop independently: the sessions of one do not wait for the requests of another.
        """
        harness = ProxyHarness(A, B, drainTimeout=3.0).start()
        slow, idle = harness.client("tcp:1"), harness.client("tcp:2")
        harness.proxy("a").pool.pause()
        slow.send(b"get a\r\n")
        stopped = harness.service.stopService()
        harness.turns()
        self.assertEqual((slow.connected, idle.connected), (True, False))
        harness.proxy("a").pool.resume()
        harness.turns()
        self.successResultOf(stopped)
        self.assertEqual((slow.received, harness.clock.getDelayedCalls()), (b"END\r\n", []))


class ChangeTests(SynchronousTestCase):
    """
    Tests for L{ProxyService.change}.
    """

    def changed(self, harness: ProxyHarness, *pools: PoolSettings, **settings: Any) -> list[str]:
        """
        Change the settings.

        @return: the result.
        """
        return self.successResultOf(harness.change(*pools, **settings))

    def test_keepAlive(self) -> None:
        """
        With C{keep-alive}, idle connections get a request at this interval, also those of before the change.
        """
        harness = ProxyHarness(A).start()
        harness.ask(harness.client("tcp:1"), b"get a\r\n")
        (server,) = harness.proxy("a").pool.servers
        probed: list[bytes] = []
        probe = Connection.probe

        def recorded(connection: Connection, command: Any, request: bytes) -> Any:
            probed.append(request)
            return probe(connection, command, request)

        self.patch(Connection, "probe", recorded)

        def probes(seconds: int) -> int:
            before = len(probed)
            for _ in range(seconds):
                harness.clock.advance(1)
            return len(probed) - before

        self.assertEqual(probes(100), 0)
        self.changed(harness, replace(A, keepAlive=20.0))
        self.assertEqual((probes(85), server.state, server.count), (4, "up", 1))
        self.changed(harness, A)
        self.assertEqual(probes(100), 0)

    def test_values(self) -> None:
        """
        Bounds and times hold at once, also for existing sessions and connections. Each change is in the result and the
        log.
        """
        harness = ProxyHarness(A).start()
        client = harness.client("tcp:1")
        harness.ask(client, b"get a\r\n")
        new = replace(
            A, poolSize=8, minPoolSize=2, pipelineDepth=5, idleTimeout=50.0, maxLifetime=60.0, keepAlive=20.0,
            connectTimeout=3.0, waitTimeout=4.0, requestTimeout=6.0, replyTimeout=0.0, maxClients=7,
            maxClientsPerAddress=2, loginTimeout=5.0, clientIdleTimeout=30.0, statsAddresses="yes", maxWaiting=9,
            maxItemSize=2048, maxInFlight=11, sessionBacklog=2048, sessionUnreadSoft=1024, denyCommands=("touch",),
        )  # fmt: skip
        with capturedLogs() as logs:
            lines = self.changed(harness, new, drainTimeout=2.0, maxUnreadBytes=1 << 20)
        self.assertEqual(
            lines,
            [
                "drain-timeout 5 -> 2",
                "max-unread-bytes 256m -> 1m",
                "pool a: deny-commands none -> touch",
                "pool a: pool-size 4 -> 8",
                "pool a: min-pool-size 1 -> 2",
                "pool a: pipeline-depth 1024 -> 5",
                "pool a: idle-timeout 600 -> 50",
                "pool a: max-lifetime 3600 -> 60",
                "pool a: keep-alive 0 -> 20",
                "pool a: connect-timeout 1 -> 3",
                "pool a: wait-timeout 1 -> 4",
                "pool a: request-timeout 2 -> 6",
                "pool a: reply-timeout 60 -> 0",
                "pool a: login-timeout 10 -> 5",
                "pool a: client-idle-timeout 0 -> 30",
                "pool a: max-clients 10000 -> 7",
                "pool a: max-clients-per-address 0 -> 2",
                "pool a: stats-addresses no -> yes",
                "pool a: max-waiting 10000 -> 9",
                "pool a: max-item-size 1m -> 2k",
                "pool a: max-in-flight 256 -> 11",
                "pool a: session-backlog 64k -> 2k",
                "pool a: session-unread-soft 256k -> 1k",
            ],
        )
        self.assertEqual([event["line"] for event in logs if "line" in event], lines)
        proxy = harness.proxy("a")
        limits, sessions = proxy.pool.state.limits, proxy.sessions.limits
        self.assertEqual(
            (limits.maximum, limits.minimum, limits.depth, limits.maxWaiting, limits.waitTimeout, limits.idleTimeout,
             limits.maxLifetime, limits.keepAlive),
            (8, 2, 5, 9, 4.0, 50.0, 60.0, 20.0),
        )  # fmt: skip
        self.assertEqual(sessions, SessionLimits(7, 2, 5.0, True, False, 11, 2048, 1024, A.sessionUnreadHard, 30.0))
        times = {(each.factory.requestTimeout, each.factory.replyTimeout) for each in proxy.pool.connections}
        self.assertEqual(times, {(6.0, inf)})
        self.assertEqual((harness.service.buffered.limit, proxy.drainTimeout), (1 << 20, 2.0))
        self.assertIn(b"too large", harness.ask(client, b"set a 0 0 3000\r\n" + bytes(3000) + b"\r\n"))
        self.assertEqual(harness.ask(client, b"touch a 0\r\n"), b"CLIENT_ERROR touch not allowed\r\n")
        self.assertEqual(harness.service.settings.pools, (new,))

    def test_connectTimeout(self) -> None:
        """
        The next dial has the new connect timeout.
        """
        silent = PoolSettings(name="silent", upstream=("tcp:192.0.2.1:1",), listen=("tcp:9",))
        harness = ProxyHarness(silent).start()
        self.changed(harness, replace(silent, connectTimeout=3.0))
        harness.clock.advance(1.0)
        stats = harness.proxy("silent").pool.stats
        self.assertEqual((stats.dials, stats.dialFailures, stats.dialing), (1, 1, 0))
        while not harness.proxy("silent").pool.stats.dialing:
            harness.clock.advance(0.1)
        harness.clock.advance(2.8)
        self.assertEqual(harness.proxy("silent").pool.stats.dialFailures, 1)
        harness.clock.advance(0.3)
        self.assertEqual(harness.proxy("silent").pool.stats.dialFailures, 2)

    def test_nothing(self) -> None:
        """
        Equal settings have no changes in the result.
        """
        harness = ProxyHarness(A).start()
        self.assertEqual(self.changed(harness, A), [])
        self.assertEqual(len(harness.ports), 1)

    def test_fixed(self) -> None:
        """
        Settings that need a restart are in the result, and the others change.
        """
        harness = ProxyHarness(A).start()
        pool = replace(A, upstream=("tcp:127.0.0.1:9",), poolSize=8)
        lines = self.changed(harness, pool, workers=2, admin="unix:/x", maxUnreadBytes=2 << 20)
        self.assertEqual(lines[-2:], ["workers 1 -> 2: needs a restart", "admin none -> unix:/x: needs a restart"])
        settings = harness.service.settings
        self.assertEqual((settings.workers, settings.admin, settings.pools[0].poolSize), (1, None, 8))

    def test_listeners(self) -> None:
        """
        Addresses are added and removed. Sessions stay.
        """
        harness = ProxyHarness(B).start()
        client = harness.client("tcp:2")
        lines = self.changed(harness, replace(B, listen=("tcp:3", "tcp:4")))
        self.assertEqual(lines, ["pool b: listen + tcp:4", "pool b: listen - tcp:2"])
        self.assertEqual((harness.open, len(harness.ports)), (["tcp:3", "tcp:4"], 3))
        for each in (client, harness.client("tcp:3"), harness.client("tcp:4")):
            self.assertEqual(harness.ask(each, b"get a\r\n"), b"END\r\n")

    @covers("23")
    def test_allOrNothing(self) -> None:
        """
        When one of the new addresses cannot be listened on, nothing changes.
        """
        harness = ProxyHarness(A, B).start()
        for problem, text in (
            (CannotListenError("127.0.0.1", 5, OSError(98, "Address already in use")), "127.0.0.1:5: Address already"),
            (CannotListenError(None, b"/x", OSError(2, "No such file")), "/x: No such file"),
        ):
            harness.taken["tcp:5"] = problem
            change = harness.change(replace(A, poolSize=9, listen=("tcp:4",)), replace(B, listen=("tcp:5",)))
            self.assertIn(f"cannot listen on {text}", str(self.failureResultOf(change, CannotChange).value))
            self.assertEqual(harness.open, ["tcp:1", "tcp:2", "tcp:3"])
            self.assertEqual((harness.service.settings, harness.proxy("a").settings), (harness.settings, A))

    def test_defect(self) -> None:
        """
        An unexpected exception changes nothing, and is the result.
        """
        harness = ProxyHarness(A).start()
        harness.taken["tcp:5"] = ZeroDivisionError()
        change = harness.change(replace(A, listen=("tcp:4", "tcp:5")))
        self.failureResultOf(change, ZeroDivisionError)
        self.assertEqual(harness.open, ["tcp:1"])

    def test_wrongSettings(self) -> None:
        """
        Settings that are wrong change nothing.
        """
        harness = ProxyHarness(A).start()
        change = harness.service.change(lambda old: Settings(pools=()))
        self.failureResultOf(change, ConfigError)
        self.assertEqual(harness.service.settings, harness.settings)

    def test_servers(self) -> None:
        """
        Servers are added and removed, and clients get replies throughout.
        """
        harness = ProxyHarness(A).start()
        client = harness.client("tcp:1")
        harness.ask(client, b"set a 0 0 1\r\nx\r\n")
        self.assertEqual(self.changed(harness, replace(A, upstream=("memory:size=1m",))), [
            "pool a: upstream + memory:size=1m", "pool a: upstream - memory:",
        ])  # fmt: skip
        self.assertEqual(harness.ask(client, b"get a\r\n"), b"END\r\n")
        self.assertEqual([server.name for server in harness.proxy("a").pool.servers], ["memory:size=1m"])

    def test_pools(self) -> None:
        """
        Pools are added and removed. The requests that a removed pool has read are answered; then its clients are
        closed.
        """
        harness = ProxyHarness(A, B).start()
        first, second = harness.client("tcp:1"), harness.client("tcp:2")
        removed = harness.proxy("b").pool
        removed.pause()
        second.send(b"get a\r\n")
        other = replace(B, name="c", listen=("tcp:5",))
        self.assertEqual(self.changed(harness, A, other), ["pool c: added", "pool b: removed"])
        self.assertEqual((harness.open, second.connected), (["tcp:1", "tcp:5"], True))
        self.assertEqual(harness.ask(harness.client("tcp:5"), b"get a\r\n"), b"END\r\n")
        removed.resume()
        harness.turns()
        self.assertEqual((second.take(), second.connected), (b"END\r\n", False))
        self.assertEqual(harness.ask(first, b"get a\r\n"), b"END\r\n")
        self.assertEqual([each.name for each in harness.service], ["a", "c"])

    def test_movedListener(self) -> None:
        """
        An address can be moved to another pool. Its port stays open.
        """
        harness = ProxyHarness(A, B).start()
        before = harness.client("tcp:2")
        renamed = replace(B, name="c", listen=("tcp:2",))
        self.changed(harness, replace(A, listen=("tcp:1", "tcp:3")), renamed)
        self.assertEqual((harness.open, len(harness.ports)), (["tcp:1", "tcp:2", "tcp:3"], 3))
        self.assertFalse(before.connected)
        for description, name in (("tcp:2", "c"), ("tcp:3", "a")):
            harness.client(description)
            self.assertEqual(len(harness.proxy(name).sessions.sessions), 1)
        stopped = harness.service.stopService()
        harness.turns()
        self.successResultOf(stopped)
        self.assertEqual(harness.open, [])

    def test_stopWaits(self) -> None:
        """
        A stop waits for removed pools with requests in flight, and C{abort} ends these too.
        """
        harness = ProxyHarness(A, B, drainTimeout=100.0).start()
        client = harness.client("tcp:2")
        harness.proxy("b").pool.pause()
        client.send(b"get a\r\n")
        self.changed(harness, A, drainTimeout=100.0)
        stopped = harness.service.stopService()
        harness.turns()
        self.assertNoResult(stopped)
        harness.service.abort()
        harness.turns()
        self.successResultOf(stopped)
        self.assertEqual(harness.clock.getDelayedCalls(), [])

    def test_notRunning(self) -> None:
        """
        Settings do not change before the start and during a stop.
        """
        harness = ProxyHarness(A)
        self.failureResultOf(harness.change(A), CannotChange)
        harness.start()
        harness.service.stopService()
        self.failureResultOf(harness.change(A), CannotChange)

    def test_stopMeanwhile(self) -> None:
        """
        A change that waits for an endpoint fails when the proxy stops meanwhile, and leaves no port.
        """
        harness = ProxyHarness(A).start()
        later: Deferred[Any] = Deferred()
        harness.later["tcp:9"] = later
        change = harness.change(replace(A, listen=("tcp:1", "tcp:9")))
        stopped = harness.service.stopService()
        port = Port("tcp:9", harness.ports[0].listener)
        later.callback(port)
        harness.turns()
        self.assertIn("stopping", str(self.failureResultOf(change, CannotChange).value))
        self.successResultOf(stopped)
        self.assertFalse(port.open)

    @covers("23")
    def test_oneAtATime(self) -> None:
        """
        A change waits for the one before it, and begins with its settings.
        """
        harness = ProxyHarness(A).start()
        later: Deferred[Any] = Deferred()
        harness.later["tcp:9"] = later
        first = harness.change(replace(A, listen=("tcp:1", "tcp:9")))
        seen: list[Settings] = []
        second = harness.service.change(lambda old: seen.append(old) or old)  # type: ignore[func-returns-value]
        self.assertEqual(seen, [])
        later.callback(Port("tcp:9", harness.ports[0].listener))
        harness.turns()
        self.assertEqual(self.successResultOf(first), ["pool a: listen + tcp:9"])
        self.assertEqual(self.successResultOf(second), [])
        self.assertEqual(seen[0].pools[0].listen, ("tcp:1", "tcp:9"))

    def test_logins(self) -> None:
        """
        The files of users are read again, also when no setting differs.
        """
        path = Path(self.mktemp()).absolute()
        path.write_text("ann:one\n", "utf-8")
        pool = replace(A, listenAuth=f"file:{path}")
        harness = ProxyHarness(pool).start()
        login = b"set x 0 0 7\r\nann two\r\n"
        self.assertEqual(harness.ask(harness.client("tcp:1"), login), b"CLIENT_ERROR authentication failure\r\n")
        path.write_text("ann:two\n", "utf-8")
        self.changed(harness, pool)
        self.assertEqual(harness.ask(harness.client("tcp:1"), login), b"STORED\r\n")


class ListenTests(SynchronousTestCase):
    """
    Tests for the addresses on which a proxy listens.
    """

    def test_reactor(self) -> None:
        """
        By default the endpoints of the settings listen on the reactor, with a long queue.
        """
        reactor = MemoryReactorClock()
        service = ProxyService(Settings(pools=(replace(A, listen=("tcp:12345:interface=127.0.0.1",)),)), reactor)
        service.privilegedStartService()
        self.assertEqual([(port, *rest) for port, _, *rest in reactor.tcpServers], [(12345, 1024, "127.0.0.1")])


class CommandTests(SynchronousTestCase):
    """
    Tests for settings that are those of the command, not of the proxy.
    """

    def test_refused(self) -> None:
        """
        In an application, they are refused, with the place where they belong.
        """
        pool = replace(A, upstream=("tcp:127.0.0.1:11211",))
        settings = Settings(
            pools=(pool,), workers=2, admin="unix:console", adminPasswordFile="password", logFormat="json"
        )
        error = self.assertRaises(ConfigError, ProxyService, settings, MemoryReactorClock())
        lines = str(error).split("\n")
        for line, name in zip(lines, ("workers", "logFormat", "admin", "adminPasswordFile"), strict=True):
            self.assertIn(f"{name} = ", line)
            self.assertIn("is a setting of the command `twistd connpool`, not of a ProxyService: ", line)
        ProxyService(Settings(pools=(A,), stats="unix:stats"), MemoryReactorClock())

    def test_noSettings(self) -> None:
        """
        The settings of a pool are no settings of a process.
        """
        self.assertIn("settings must be a Settings", str(self.assertRaises(TypeError, ProxyService, A)))
        error = self.assertRaises(ConfigError, Settings, pools=A)
        self.assertIn("expected a tuple of PoolSettings, such as (PoolSettings(),)", str(error))


class RereadTests(SynchronousTestCase):
    """
    Tests for the files that settings name: users, passwords, keys and certificates.
    """

    LOGIN = b"set x 0 0 5\r\njoe a\r\n"
    FAILURE = b"CLIENT_ERROR authentication failure\r\n"

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def users(self, content: str, name: str = "users") -> str:
        """
        Write a file of users.

        @return: the setting that names it.
        """
        (self.directory / name).write_text(content, "ascii")
        return f"file:{self.directory / name}"

    def change(self, harness: ProxyHarness, **settings: Any) -> Deferred[list[str]]:
        """
        Change some settings of all pools, or none.
        """
        pools = [replace(pool, **settings) for pool in harness.service.settings.pools]
        return harness.change(*pools)

    def test_users(self) -> None:
        """
        Clients that connect after a change must be among the new users. Clients that have logged in stay.
        """
        harness = ProxyHarness(replace(A, listenAuth=self.users("joe:a"))).start()
        first = harness.client("tcp:1")
        self.assertEqual(harness.ask(first, self.LOGIN), b"STORED\r\n")
        self.users("joe:b")
        self.assertEqual(harness.ask(harness.client("tcp:1"), self.LOGIN), b"STORED\r\n")
        lines = ["pool a: users and passwords of listen-auth: new"]
        self.assertEqual(self.successResultOf(self.change(harness)), lines)
        self.assertEqual(self.successResultOf(self.change(harness)), [])
        self.assertEqual(harness.ask(first, b"get a\r\n"), b"END\r\n")
        self.assertEqual(harness.ask(harness.client("tcp:1"), self.LOGIN), self.FAILURE)

    def test_usersOrNot(self) -> None:
        """
        A change can begin and end to require logins, for clients that connect later.
        """
        harness = ProxyHarness(A).start()
        client = harness.client("tcp:1")
        self.successResultOf(self.change(harness, listenAuth=self.users("joe:a")))
        self.assertEqual(harness.ask(harness.client("tcp:1"), b"get a\r\n"), b"CLIENT_ERROR unauthenticated\r\n")
        self.assertEqual(harness.ask(client, b"get a\r\n"), b"END\r\n")
        self.successResultOf(self.change(harness, listenAuth=None))
        self.assertEqual(harness.ask(harness.client("tcp:1"), b"get a\r\n"), b"END\r\n")

    def test_atStart(self) -> None:
        """
        Files are read when the service starts, each time: a service is constructed without them.
        """
        users = self.directory / "users"
        clock: Any = MemoryReactorClock()
        service = ProxyService(Settings(pools=(replace(A, listenAuth=f"file:{users}"),)), clock)
        error = self.assertRaises(ConfigError, service.startService)
        self.assertIn("/users cannot be read: No such file or directory", str(error))
        self.assertEqual((clock.tcpServers, service.running), ([], 0))
        for password in (b"a", b"b"):
            self.users(f"joe:{password.decode()}")
            service.privilegedStartService()
            users.unlink()
            service.startService()
            client = Pipe(clock).connect(clock.tcpServers[-1][1].buildProtocol(None))
            client.send(self.LOGIN.replace(b"joe a", b"joe " + password))
            for _ in range(10):
                clock.advance(0)
            self.assertEqual(client.take(), b"STORED\r\n")
            client.lose()
            service.stopService()
            for _ in range(10):
                clock.advance(0)

    def test_allOrNothing(self) -> None:
        """
        When one file cannot be read, nothing changes, and the error has no traceback.
        """
        one, other = self.users("joe:a", "one"), self.users("joe:a", "other")
        harness = ProxyHarness(replace(A, listenAuth=one), replace(B, upstreamAuth=other)).start()
        self.users("joe:b", "one")
        (self.directory / "other").unlink()
        failure = self.failureResultOf(harness.service.change(lambda old: old), CannotChange)
        self.assertIn("/other cannot be read: No such file or directory", str(failure.value))
        self.assertEqual(harness.ask(harness.client("tcp:1"), self.LOGIN), b"STORED\r\n")

    def test_certificates(self) -> None:
        """
        Listeners and servers with TLS use other keys and certificates after a change. They keep the old ones if the new
        ones cannot be read. Files of addresses that are to be closed are not read.
        """
        if missingTLS:
            self.skipTest(missingTLS)
        host = Certificate(self.directory, "host")
        files = f"privateKey={quoted(host.key)}:certKey={quoted(host.certificate)}"
        listen, upstream = f"ssl:1:{files}", f"tls:host:2:trustRoots={quoted(self.directory)}"
        clock: Any = MemoryReactorClock()
        settings = Settings(pools=(replace(A, listen=("tcp:7", listen), upstream=(upstream,)),))
        service = ProxyService(settings, clock)
        service.startService()
        port, door = clock.tcpServers[1][:2]
        (server,) = service.proxies[0].pool.servers

        def seen() -> tuple[Any, Any]:
            return door.buildProtocol(None).factory, server.address

        before = seen()
        self.assertEqual((port, seen()), (1, before))
        self.assertEqual(self.successResultOf(service.change(lambda old: old)), [])
        host = Certificate(self.directory, "host")
        lines = [f"pool a: keys and certificates of {each}: new" for each in ("ssl:1", "tls:host:2")]
        self.assertEqual(self.successResultOf(service.change(lambda old: old)), lines)
        host = Certificate(self.directory, "host", days=(-2, -1))
        with capturedLogs() as logs:
            self.assertEqual(self.successResultOf(service.change(lambda old: old)), lines)
            self.successResultOf(service.change(lambda old: old))
        cautions = [event["caution"] for event in logs if "caution" in event]
        self.assertEqual(len(cautions), 1)
        self.assertIn(f"the certificate {host.certificate} has expired", cautions[0])
        after = seen()
        self.assertEqual([new is old for new, old in zip(after, before, strict=True)], [False, False])
        host.key.unlink()
        self.failureResultOf(service.change(lambda old: old), CannotChange)
        self.assertEqual(seen(), after)
        self.assertEqual(len(clock.tcpServers), 2)
        bare = Settings(pools=(replace(A, listen=("tcp:7",), upstream=("memory:",)),))
        lines = self.successResultOf(service.change(lambda old: bare))
        self.assertEqual(len(lines), 3)
