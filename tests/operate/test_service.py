# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.operate.service}.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.bugs import covers
from tests.certificates import Certificate, missingTLS, quoted
from tests.pipes import Pipe
from txconnpool.config.changes import CannotChange
from txconnpool.config.settings import ConfigError, PoolSettings, Settings
from txconnpool.operate.service import ProxyService
from txconnpool.proxy.flow import SessionLimits
from txconnpool.proxy.listener import ClientListener
from txconnpool.proxy.proxy import PoolProxy

A = PoolSettings(name="a", upstream=("memory:",), listen=("tcp:1",))
B = PoolSettings(name="b", upstream=("memory:",), listen=("tcp:2", "tcp:3"))


class Port:
    """
    Something that listens.
    """

    def __init__(self, description: str, listener: ClientListener) -> None:
        self.description = description
        self.listener = listener
        self.open = True

    def stopListening(self) -> None:
        """
        Listen no more.
        """
        assert self.open
        self.open = False


class Street:
    """
    A proxy, and what is outside of it.

    @ivar ports: all that has ever listened.
    @ivar taken: where nobody can listen, with the exception that tells it.
    """

    def __init__(self, *pools: PoolSettings, **settings: Any) -> None:
        self.clock = MemoryReactorClock()
        self.ports: list[Port] = []
        self.taken: dict[str, Exception] = {}
        self.later: dict[str, Deferred[Any]] = {}
        self.settings = Settings(pools=pools, **settings)
        self.service = ProxyService(self.settings, self.clock, self.listen)

    def listen(self, description: str, factory: Any) -> Deferred[Any]:
        """
        Listen, or do not.
        """
        if description in self.taken:
            return fail(self.taken[description])
        if description in self.later:
            return self.later[description]
        port = Port(description, factory)
        self.ports.append(port)
        return succeed(port)

    def start(self) -> Street:
        """
        Start, and connect.
        """
        self.service.privilegedStartService()
        self.service.startService()
        self.turns()
        return self

    def turns(self) -> None:
        """
        Let happen what happens by itself.
        """
        for _ in range(10):
            self.clock.advance(0)

    @property
    def open(self) -> list[str]:
        """
        Where it listens.
        """
        return sorted(port.description for port in self.ports if port.open)

    def client(self, description: str) -> Pipe:
        """
        A client who comes in there.
        """
        (listener,) = [port.listener for port in self.ports if port.open and port.description == description]
        return Pipe(self.clock).connect(listener.buildProtocol(None))

    def ask(self, client: Pipe, request: bytes) -> bytes:
        """
        @return: what a client is answered.
        """
        client.send(request)
        self.turns()
        return client.take()

    def change(self, *pools: PoolSettings, **settings: Any) -> Deferred[list[str]]:
        """
        Put other settings in force.
        """
        changed = self.service.change(lambda old: Settings(pools=pools, **settings))
        self.turns()
        return changed

    def proxy(self, name: str) -> PoolProxy:
        """
        @return: a pool of it.
        """
        (proxy,) = [proxy for proxy in self.service.proxies if proxy.name == name]
        return proxy


class ProxyServiceTests(SynchronousTestCase):
    """
    Tests for the life of L{ProxyService}.
    """

    def test_interface(self) -> None:
        """
        It is a service, and so is each of its pools, by its name.
        """
        service = Street(A, B).service
        verifyObject(IService, service)
        self.assertEqual([service.getServiceNamed(name).name for name in "ab"], ["a", "b"])

    def test_nothingYet(self) -> None:
        """
        To make it opens and schedules nothing.
        """
        street = Street(A, B)
        self.assertEqual((street.ports, street.clock.getDelayedCalls()), ([], []))

    def test_life(self) -> None:
        """
        It listens and connects when it starts, serves, and leaves nothing behind when it has stopped; it may start
        again.
        """
        street = Street(A, B)
        for _ in range(2):
            street.start()
            self.assertEqual(street.open, ["tcp:1", "tcp:2", "tcp:3"])
            client = street.client("tcp:3")
            self.assertEqual(street.ask(client, b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")
            stopped = street.service.stopService()
            street.turns()
            self.successResultOf(stopped)
            self.assertEqual((street.open, client.connected, street.clock.getDelayedCalls()), ([], False, []))

    def test_listensBefore(self) -> None:
        """
        What needs rights is done before they are given up, and once.
        """
        street = Street(A)
        street.service.privilegedStartService()
        self.assertEqual(street.open, ["tcp:1"])
        street.service.startService()
        self.assertEqual(len(street.ports), 1)

    def test_cannotListen(self) -> None:
        """
        That an address is taken is raised where it starts.
        """
        street = Street(A)
        street.taken["tcp:1"] = CannotListenError("", 1, OSError("taken"))
        self.assertRaises(CannotListenError, street.service.privilegedStartService)

    def test_cannotListenLater(self) -> None:
        """
        An endpoint that fails later is told in the log.
        """
        street = Street(A)
        later: Deferred[Any] = Deferred()
        street.later["tcp:1"] = later
        street.service.privilegedStartService()
        later.errback(CannotListenError("", 1, OSError("taken")))
        self.assertEqual(len(self.flushLoggedErrors(CannotListenError)), 1)

    def test_drain(self) -> None:
        """
        A stop answers what was read, for as long as may be; then it closes what is left.
        """
        street = Street(A, drainTimeout=3.0).start()
        client = street.client("tcp:1")
        street.proxy("a").pool.pause()
        client.send(b"get a\r\n")
        stopped = street.service.stopService()
        street.turns()
        self.assertEqual(street.open, [])
        street.clock.advance(2.9)
        self.assertNoResult(stopped)
        self.assertTrue(client.connected)
        with capturedLogs() as logs:
            street.clock.advance(0.2)
            street.turns()
        self.successResultOf(stopped)
        self.assertFalse(client.connected)
        self.assertEqual([event["count"] for event in logs if "did not end in time" in event["log_format"]], [1])
        self.assertEqual(street.clock.getDelayedCalls(), [])

    def test_lastLook(self) -> None:
        """
        What had come when the stop began is answered, though it was not read by then.
        """
        street = Street(A).start()
        client = street.client("tcp:1")
        stopped = street.service.stopService()
        client.send(b"get a\r\n")
        street.turns()
        self.successResultOf(stopped)
        self.assertEqual((client.take(), client.connected), (b"END\r\n", False))

    def test_status(self) -> None:
        """
        How things are is one line, in which a server with a connection is up, whatever became of the last dial.
        """
        street = Street(A, B).start()
        street.client("tcp:2")
        street.proxy("a").pool.markDown("memory:", ConnectionRefusedError())
        self.assertEqual(street.service.status(), "clients: 1, connections: 2, servers up: 2 of 2")

    def test_abort(self) -> None:
        """
        A stop that takes its time can be told to end at once.
        """
        street = Street(A, B, drainTimeout=100.0).start()
        clients = [street.client("tcp:1"), street.client("tcp:2")]
        for proxy in street.service.proxies:
            proxy.pool.pause()
        for client in clients:
            client.send(b"get a\r\n")
        stopped = street.service.stopService()
        street.turns()
        self.assertNoResult(stopped)
        street.service.abort()
        street.turns()
        self.successResultOf(stopped)
        self.assertEqual([client.aborted for client in clients], [True, True])
        self.assertEqual(street.clock.getDelayedCalls(), [])


class EndTests(SynchronousTestCase):
    """
    Tests for stops that come at an awkward moment: nothing stays behind then, either.
    """

    #: A server of which nothing is heard.
    SILENT = PoolSettings(name="silent", upstream=("tcp:192.0.2.1:1",), listen=("tcp:9",))

    def assertEnds(self, street: Street) -> None:
        """
        Assert that a stop ends, and leaves nothing behind.
        """
        stopped = street.service.stopService()
        street.turns()
        self.successResultOf(stopped)
        self.assertEqual((street.open, street.clock.getDelayedCalls()), ([], []))

    def test_neverStarted(self) -> None:
        """
        What was not started ends at once.
        """
        self.assertEnds(Street(A, B))

    def test_atOnce(self) -> None:
        """
        What is stopped in the turn in which it was started has not dialed.
        """
        street = Street(A, self.SILENT)
        street.service.privilegedStartService()
        street.service.startService()
        self.assertEnds(street)
        self.assertEqual(street.clock.tcpClients, [])

    def test_dialing(self) -> None:
        """
        A dial is given up.
        """
        street = Street(self.SILENT).start()
        self.assertEqual(len(street.clock.tcpClients), 1)
        self.assertEnds(street)

    def test_waiting(self) -> None:
        """
        A request that waits for the first connection is answered when that fails, and the session ends then.
        """
        street = Street(self.SILENT, drainTimeout=3.0).start()
        client = street.client("tcp:9")
        client.send(b"get a\r\n")
        stopped = street.service.stopService()
        street.clock.advance(0.9)
        self.assertNoResult(stopped)
        street.clock.advance(0.1)
        street.turns()
        self.successResultOf(stopped)
        self.assertTrue(client.received.startswith(b"SERVER_ERROR upstream unavailable: connect timed out: "))
        self.assertEqual((client.connected, street.clock.getDelayedCalls()), (False, []))

    def test_partlyListening(self) -> None:
        """
        When one of several addresses is taken, a stop closes those that were not.
        """
        street = Street(A, B)
        street.taken["tcp:3"] = CannotListenError("", 3, OSError("taken"))
        self.assertRaises(CannotListenError, street.service.privilegedStartService)
        self.assertEqual(street.open, ["tcp:1", "tcp:2"])
        self.assertEnds(street)

    def test_oneSlow(self) -> None:
        """
        Pools end by themselves: one that waits for its server does not hold up the sessions of another.
        """
        street = Street(A, B, drainTimeout=3.0).start()
        slow, idle = street.client("tcp:1"), street.client("tcp:2")
        street.proxy("a").pool.pause()
        slow.send(b"get a\r\n")
        stopped = street.service.stopService()
        street.turns()
        self.assertEqual((slow.connected, idle.connected), (True, False))
        street.proxy("a").pool.resume()
        street.turns()
        self.successResultOf(stopped)
        self.assertEqual((slow.received, street.clock.getDelayedCalls()), (b"END\r\n", []))


class ChangeTests(SynchronousTestCase):
    """
    Tests for L{ProxyService.change}.
    """

    def changed(self, street: Street, *pools: PoolSettings, **settings: Any) -> list[str]:
        """
        Change the settings.

        @return: what is told.
        """
        return self.successResultOf(street.change(*pools, **settings))

    def test_values(self) -> None:
        """
        Bounds and times are in force at once, for what there is too, and each change is told in the result and the log.
        """
        street = Street(A).start()
        client = street.client("tcp:1")
        street.ask(client, b"get a\r\n")
        new = replace(
            A, poolSize=8, minPoolSize=2, pipelineDepth=5, idleTimeout=50.0, maxLifetime=60.0, connectTimeout=3.0,
            waitTimeout=4.0, requestTimeout=6.0, maxClients=7, maxWaiting=9, maxItemSize=2048, maxInFlight=11,
            sessionBacklog=2048, sessionUnreadSoft=1024, denyCommands=("touch",),
        )  # fmt: skip
        with capturedLogs() as logs:
            told = self.changed(street, new, drainTimeout=2.0, maxUnreadBytes=1 << 20)
        self.assertEqual(
            told,
            [
                "drain-timeout 5 -> 2",
                "max-unread-bytes 256m -> 1m",
                "pool a: deny-commands none -> touch",
                "pool a: pool-size 4 -> 8",
                "pool a: min-pool-size 1 -> 2",
                "pool a: pipeline-depth 1024 -> 5",
                "pool a: idle-timeout 600 -> 50",
                "pool a: max-lifetime 3600 -> 60",
                "pool a: connect-timeout 1 -> 3",
                "pool a: wait-timeout 1 -> 4",
                "pool a: request-timeout 2 -> 6",
                "pool a: max-clients 10000 -> 7",
                "pool a: max-waiting 10000 -> 9",
                "pool a: max-item-size 1m -> 2k",
                "pool a: max-in-flight 256 -> 11",
                "pool a: session-backlog 64k -> 2k",
                "pool a: session-unread-soft 256k -> 1k",
            ],
        )
        self.assertEqual([event["line"] for event in logs if "line" in event], told)
        proxy = street.proxy("a")
        limits, sessions = proxy.pool.state.limits, proxy.sessions.limits
        self.assertEqual(
            (limits.maximum, limits.minimum, limits.depth, limits.maxWaiting, limits.waitTimeout, limits.idleTimeout,
             limits.maxLifetime),
            (8, 2, 5, 9, 4.0, 50.0, 60.0),
        )  # fmt: skip
        self.assertEqual(sessions, SessionLimits(7, 11, 2048, 1024, A.sessionUnreadHard))
        self.assertEqual(proxy.connectionFactory.requestTimeout, 6.0)
        self.assertEqual((street.service.buffered.limit, proxy.drainTimeout), (1 << 20, 2.0))
        self.assertIn(b"too large", street.ask(client, b"set a 0 0 3000\r\n" + bytes(3000) + b"\r\n"))
        self.assertEqual(street.ask(client, b"touch a 0\r\n"), b"CLIENT_ERROR touch not allowed\r\n")
        self.assertEqual(street.service.settings.pools, (new,))

    def test_connectTimeout(self) -> None:
        """
        The next dial has the new connect timeout.
        """
        silent = PoolSettings(name="silent", upstream=("tcp:192.0.2.1:1",), listen=("tcp:9",))
        street = Street(silent).start()
        self.changed(street, replace(silent, connectTimeout=3.0))
        street.clock.advance(1.0)
        stats = street.proxy("silent").pool.stats
        self.assertEqual((stats.dials, stats.dialFailures, stats.dialing), (1, 1, 0))
        while not street.proxy("silent").pool.stats.dialing:
            street.clock.advance(0.1)
        street.clock.advance(2.8)
        self.assertEqual(street.proxy("silent").pool.stats.dialFailures, 1)
        street.clock.advance(0.3)
        self.assertEqual(street.proxy("silent").pool.stats.dialFailures, 2)

    def test_nothing(self) -> None:
        """
        When nothing is different nothing is told.
        """
        street = Street(A).start()
        self.assertEqual(self.changed(street, A), [])
        self.assertEqual(len(street.ports), 1)

    def test_fixed(self) -> None:
        """
        What cannot change while it runs is told, and the rest is done.
        """
        street = Street(A).start()
        pool = replace(A, upstream=("tcp:127.0.0.1:1",), poolSize=8)
        told = self.changed(street, pool, workers=2, admin="unix:/x", maxUnreadBytes=2 << 20)
        self.assertEqual(told[-2:], ["workers 1 -> 2: needs a restart", "admin none -> unix:/x: needs a restart"])
        settings = street.service.settings
        self.assertEqual((settings.workers, settings.admin, settings.pools[0].poolSize), (1, None, 8))

    def test_listeners(self) -> None:
        """
        Listeners are added and removed; who came in stays.
        """
        street = Street(B).start()
        client = street.client("tcp:2")
        told = self.changed(street, replace(B, listen=("tcp:3", "tcp:4")))
        self.assertEqual(told, ["pool b: listen + tcp:4", "pool b: listen - tcp:2"])
        self.assertEqual((street.open, len(street.ports)), (["tcp:3", "tcp:4"], 3))
        for each in (client, street.client("tcp:3"), street.client("tcp:4")):
            self.assertEqual(street.ask(each, b"get a\r\n"), b"END\r\n")

    @covers("23")
    def test_allOrNothing(self) -> None:
        """
        When one of the new listeners cannot be, nothing has changed.
        """
        street = Street(A, B).start()
        for problem, told in (
            (CannotListenError("127.0.0.1", 5, OSError(98, "Address already in use")), "127.0.0.1:5: Address already"),
            (FileNotFoundError(2, "No such file", "1", None, "/x.lock"), "/x.lock: No such file"),
        ):
            street.taken["tcp:5"] = problem
            change = street.change(replace(A, poolSize=9, listen=("tcp:4",)), replace(B, listen=("tcp:5",)))
            self.assertIn(f"cannot listen on {told}", str(self.failureResultOf(change, CannotChange).value))
            self.assertEqual(street.open, ["tcp:1", "tcp:2", "tcp:3"])
            self.assertEqual((street.service.settings, street.proxy("a").settings), (street.settings, A))

    def test_defect(self) -> None:
        """
        An exception that nobody expected changes nothing either, and is not hidden.
        """
        street = Street(A).start()
        street.taken["tcp:5"] = ZeroDivisionError()
        change = street.change(replace(A, listen=("tcp:4", "tcp:5")))
        self.failureResultOf(change, ZeroDivisionError)
        self.assertEqual(street.open, ["tcp:1"])

    def test_wrongSettings(self) -> None:
        """
        Settings that cannot be made change nothing.
        """
        street = Street(A).start()
        change = street.service.change(lambda old: Settings(pools=()))
        self.failureResultOf(change, ConfigError)
        self.assertEqual(street.service.settings, street.settings)

    def test_servers(self) -> None:
        """
        Servers are added and removed: requests go to those that are there, without a gap.
        """
        street = Street(A).start()
        client = street.client("tcp:1")
        street.ask(client, b"set a 0 0 1\r\nx\r\n")
        self.assertEqual(self.changed(street, replace(A, upstream=("memory:size=1m",))), [
            "pool a: upstream + memory:size=1m", "pool a: upstream - memory:",
        ])  # fmt: skip
        self.assertEqual(street.ask(client, b"get a\r\n"), b"END\r\n")
        self.assertEqual([server.name for server in street.proxy("a").pool.servers], ["memory:size=1m"])

    def test_pools(self) -> None:
        """
        Pools are added and removed. What a removed one has read is answered; then its clients are closed.
        """
        street = Street(A, B).start()
        first, second = street.client("tcp:1"), street.client("tcp:2")
        removed = street.proxy("b").pool
        removed.pause()
        second.send(b"get a\r\n")
        other = replace(B, name="c", listen=("tcp:5",))
        self.assertEqual(self.changed(street, A, other), ["pool c: added", "pool b: removed"])
        self.assertEqual((street.open, second.connected), (["tcp:1", "tcp:5"], True))
        self.assertEqual(street.ask(street.client("tcp:5"), b"get a\r\n"), b"END\r\n")
        removed.resume()
        street.turns()
        self.assertEqual((second.take(), second.connected), (b"END\r\n", False))
        self.assertEqual(street.ask(first, b"get a\r\n"), b"END\r\n")
        self.assertEqual([each.name for each in street.service], ["a", "c"])

    def test_movedListener(self) -> None:
        """
        A listener may become another pool's: it is never closed.
        """
        street = Street(A, B).start()
        before = street.client("tcp:2")
        renamed = replace(B, name="c", listen=("tcp:2",))
        self.changed(street, replace(A, listen=("tcp:1", "tcp:3")), renamed)
        self.assertEqual((street.open, len(street.ports)), (["tcp:1", "tcp:2", "tcp:3"], 3))
        self.assertFalse(before.connected)
        for description, name in (("tcp:2", "c"), ("tcp:3", "a")):
            street.client(description)
            self.assertEqual(len(street.proxy(name).sessions.sessions), 1)
        stopped = street.service.stopService()
        street.turns()
        self.successResultOf(stopped)
        self.assertEqual(street.open, [])

    def test_stopWaits(self) -> None:
        """
        A stop waits for pools that were removed and still have clients, and can end these at once, too.
        """
        street = Street(A, B, drainTimeout=100.0).start()
        client = street.client("tcp:2")
        street.proxy("b").pool.pause()
        client.send(b"get a\r\n")
        self.changed(street, A, drainTimeout=100.0)
        stopped = street.service.stopService()
        street.turns()
        self.assertNoResult(stopped)
        street.service.abort()
        street.turns()
        self.successResultOf(stopped)
        self.assertEqual(street.clock.getDelayedCalls(), [])

    def test_notRunning(self) -> None:
        """
        Before the start and during a stop settings do not change.
        """
        street = Street(A)
        self.failureResultOf(street.change(A), CannotChange)
        street.start()
        street.service.stopService()
        self.failureResultOf(street.change(A), CannotChange)

    def test_stopMeanwhile(self) -> None:
        """
        A change that a stop overtakes while it waits for an endpoint leaves no listener behind.
        """
        street = Street(A).start()
        later: Deferred[Any] = Deferred()
        street.later["tcp:9"] = later
        change = street.change(replace(A, listen=("tcp:1", "tcp:9")))
        stopped = street.service.stopService()
        port = Port("tcp:9", street.ports[0].listener)
        later.callback(port)
        street.turns()
        self.assertIn("stopping", str(self.failureResultOf(change, CannotChange).value))
        self.successResultOf(stopped)
        self.assertFalse(port.open)

    @covers("23")
    def test_oneAtATime(self) -> None:
        """
        A change waits for the one before it, and begins with what that has left.
        """
        street = Street(A).start()
        later: Deferred[Any] = Deferred()
        street.later["tcp:9"] = later
        first = street.change(replace(A, listen=("tcp:1", "tcp:9")))
        seen: list[Settings] = []
        second = street.service.change(lambda old: seen.append(old) or old)  # type: ignore[func-returns-value]
        self.assertEqual(seen, [])
        later.callback(Port("tcp:9", street.ports[0].listener))
        street.turns()
        self.assertEqual(self.successResultOf(first), ["pool a: listen + tcp:9"])
        self.assertEqual(self.successResultOf(second), [])
        self.assertEqual(seen[0].pools[0].listen, ("tcp:1", "tcp:9"))

    def test_logins(self) -> None:
        """
        Files of users and passwords are read again, also when no setting is different.
        """
        path = Path(self.mktemp()).absolute()
        path.write_text("ann:one\n", "utf-8")
        pool = replace(A, listenAuth=f"file:{path}")
        street = Street(pool).start()
        login = b"set x 0 0 7\r\nann two\r\n"
        self.assertEqual(street.ask(street.client("tcp:1"), login), b"CLIENT_ERROR authentication failure\r\n")
        path.write_text("ann:two\n", "utf-8")
        self.changed(street, pool)
        self.assertEqual(street.ask(street.client("tcp:1"), login), b"STORED\r\n")


class ListenTests(SynchronousTestCase):
    """
    Tests for the addresses on which a proxy listens.
    """

    def test_reactor(self) -> None:
        """
        Without a stand-in the endpoints of the settings listen on the reactor, with a long queue.
        """
        reactor = MemoryReactorClock()
        service = ProxyService(Settings(pools=(replace(A, listen=("tcp:12345:interface=127.0.0.1",)),)), reactor)
        service.privilegedStartService()
        self.assertEqual([(port, *rest) for port, _, *rest in reactor.tcpServers], [(12345, 1024, "127.0.0.1")])


class RereadTests(SynchronousTestCase):
    """
    Tests for what settings name and is read again: users, passwords, keys and certificates.
    """

    LOGIN = b"set x 0 0 5\r\njoe a\r\n"
    FAILURE = b"CLIENT_ERROR authentication failure\r\n"

    def setUp(self) -> None:
        """
        Make a directory.
        """
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def users(self, content: str, name: str = "users") -> str:
        """
        @return: where users are.
        """
        (self.directory / name).write_text(content, "ascii")
        return f"file:{self.directory / name}"

    def change(self, street: Street, **settings: Any) -> Deferred[list[str]]:
        """
        Put settings in force that are the same for the most part, or all of them.
        """
        pools = [replace(pool, **settings) for pool in street.service.settings.pools]
        return street.change(*pools)

    def test_users(self) -> None:
        """
        Who comes after a change needs one of the users that there are by then; who is there stays.
        """
        street = Street(replace(A, listenAuth=self.users("joe:a"))).start()
        first = street.client("tcp:1")
        self.assertEqual(street.ask(first, self.LOGIN), b"STORED\r\n")
        self.users("joe:b")
        self.assertEqual(street.ask(street.client("tcp:1"), self.LOGIN), b"STORED\r\n")
        told = ["pool a: users and passwords of listen-auth: new"]
        self.assertEqual(self.successResultOf(self.change(street)), told)
        self.assertEqual(self.successResultOf(self.change(street)), [])
        self.assertEqual(street.ask(first, b"get a\r\n"), b"END\r\n")
        self.assertEqual(street.ask(street.client("tcp:1"), self.LOGIN), self.FAILURE)

    def test_usersOrNot(self) -> None:
        """
        That clients have to log in may change too, for those who come then.
        """
        street = Street(A).start()
        client = street.client("tcp:1")
        self.successResultOf(self.change(street, listenAuth=self.users("joe:a")))
        self.assertEqual(street.ask(street.client("tcp:1"), b"get a\r\n"), b"CLIENT_ERROR unauthenticated\r\n")
        self.assertEqual(street.ask(client, b"get a\r\n"), b"END\r\n")
        self.successResultOf(self.change(street, listenAuth=None))
        self.assertEqual(street.ask(street.client("tcp:1"), b"get a\r\n"), b"END\r\n")

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
        When one thing cannot be read, nothing changes, and that is told without a traceback.
        """
        one, other = self.users("joe:a", "one"), self.users("joe:a", "other")
        street = Street(replace(A, listenAuth=one), replace(B, upstreamAuth=other)).start()
        self.users("joe:b", "one")
        (self.directory / "other").unlink()
        told = self.failureResultOf(street.service.change(lambda old: old), CannotChange)
        self.assertIn("/other cannot be read: No such file or directory", str(told.value))
        self.assertEqual(street.ask(street.client("tcp:1"), self.LOGIN), b"STORED\r\n")

    def test_certificates(self) -> None:
        """
        Listeners and servers with TLS use other keys and certificates after a change, and stay as they are if these
        cannot be read. What is about to go away need not be read.
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
        told = [f"pool a: keys and certificates of {each}: new" for each in ("ssl:1", "tls:host:2")]
        self.assertEqual(self.successResultOf(service.change(lambda old: old)), told)
        after = seen()
        self.assertEqual([new is old for new, old in zip(after, before, strict=True)], [False, False])
        host.key.unlink()
        self.failureResultOf(service.change(lambda old: old), CannotChange)
        self.assertEqual(seen(), after)
        self.assertEqual(len(clock.tcpServers), 2)
        bare = Settings(pools=(replace(A, listen=("tcp:7",), upstream=("memory:",)),))
        lines = self.successResultOf(service.change(lambda old: bare))
        self.assertEqual(len(lines), 3)
