# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the proxy in front of a master and its replicas.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.operate.snapshots import snapshotOf
from tests.redisserver import RedisServer
from tests.redisstage import FlavouredStage, assertNodesClosed, requests
from txconnpool.errors import ServerUnavailable
from txconnpool.interfaces import IPoolControl, IRouter
from txconnpool.pool.decisions.limits import Limits
from txconnpool.proxy.clustering import ReplicatedSession
from txconnpool.routing.clusterrouters import ClusterRouters, ReplicatedRouter
from txconnpool.routing.flavours import FlavouredPool
from txconnpool.routing.replicas import ReplicatedPool


class ReplicatedStage(FlavouredStage):
    """
    A stage with a master and two replicas, which have its data.

    @ivar looked: how often the servers were looked for.
    """

    def __init__(self, readFrom: str) -> None:
        self._readFrom = readFrom
        self.looked = 0
        super().__init__(3)

    def _make(self, limits: Limits) -> None:
        self.servers: Any = [RedisServer(self.clock, server.name) for server in self.servers]
        for server in self.servers:
            server.data = self.servers[0].data
        byName = {server.name: server for server in self.servers}

        def newPool(name: str, limits: Limits, maxPinned: int, **options: Any) -> FlavouredPool:
            return self.flavoured(byName[name], limits, maxPinned, **options)

        def look() -> None:
            self.looked += 1

        self.pool = ReplicatedPool("pool", self.clock, newPool, limits, 6, self._readFrom, look)
        self.flavours = ClusterRouters(self.pool, self.dialect.base, lambda flavour: flavour, ReplicatedRouter)


class ReplicatedCase(SynchronousTestCase):
    """
    Base class of these tests.
    """

    readFrom = "prefer-replica"

    def setUp(self) -> None:
        """
        Make a stage with a client.
        """
        self.stage = ReplicatedStage(self.readFrom)
        self.master, *self.replicas = self.stage.servers
        self.addCleanup(self.assertClosed)
        self.follow(self.master, *self.replicas)
        self.client = self.stage.client()

    def follow(self, *servers: RedisServer) -> None:
        """
        Let the sentinels name a master and replicas.
        """
        master, *replicas = [server.name for server in servers]
        self.stage.pool.follow(master, replicas)
        self.stage.serve()

    def assertClosed(self) -> None:
        """
        Assert that nothing is left after the end.
        """
        assertNodesClosed(self, self.stage)

    def ask(self, *texts: str) -> bytes:
        """
        @return: the replies.
        """
        return self.stage.ask(self.client, requests(*texts))

    def asked(self) -> list[list[bytes]]:
        """
        @return: what each server was asked since the last call.
        """
        return [self.stage.asked(server) for server in self.stage.servers]

    def loseReader(self) -> RedisServer:
        """
        Let the server that reads a key fail while it has a request. Another one answers that.

        @return: the server.
        """
        self.ask("SET k v", "GET k")
        reader = self.reader()
        self.client.send(requests("GET k"))
        self.stage.turns()
        self.lose(reader)
        self.stage.serve()
        self.assertEqual(self.client.take(), b"$1\r\nv\r\n")
        return reader

    def reader(self) -> RedisServer:
        """
        @return: the replica that has got the last request.
        """
        _, one, other = self.asked()
        self.assertNotEqual(bool(one), bool(other))
        replica: RedisServer = self.replicas[0 if one else 1]
        return replica

    def lose(self, server: RedisServer) -> None:
        """
        Let a server fail.
        """
        server.mode = "refuse"
        for line in server.open:
            line.lose()


class ReplicatedTests(ReplicatedCase):
    """
    Tests for a pool that prefers replicas.
    """

    def test_interfaces(self) -> None:
        """
        Operators see one pool, which has no slots.
        """
        verifyObject(IPoolControl, self.stage.pool)
        verifyObject(IRouter, self.stage.flavours.base)
        self.assertIsNone(self.stage.pool.cluster)
        self.assertEqual(self.stage.pool.ejected, frozenset())
        self.assertRaisesRegex(ValueError, "SENTINEL FAILOVER", self.stage.pool.eject, "server0")
        self.assertIs(self.stage.sessions.kind, ReplicatedSession)

    def test_statistics(self) -> None:
        """
        Each server has its role in statistics, and no slots.
        """

        def roles() -> dict[str, Any]:
            (pool,) = snapshotOf(self.stage)["pools"]
            self.assertNotIn("slots_covered", pool)
            self.assertFalse(any("slots" in server for server in pool["servers"]))
            return {server["name"]: server["replica"] for server in pool["servers"]}

        one, other = self.replicas
        self.assertEqual(roles(), {self.master.name: 0, one.name: 1, other.name: 1})
        self.follow(one, other)
        self.assertEqual(roles(), {one.name: 0, other.name: 1})

    def test_reads(self) -> None:
        """
        Replicas get what reads, all reads of a key the same one, and the master gets all else, whatever the keys are.
        """
        keys = [f"k{number}" for number in range(20)]
        self.ask("MSET " + " ".join(f"{key} {key}" for key in keys))
        self.assertEqual(self.asked()[1:], [[], []])
        for _ in range(2):
            for key in keys:
                self.assertEqual(self.ask(f"GET {key}"), b"$%d\r\n%b\r\n" % (len(key), key.encode()))
        _, one, other = self.asked()
        self.assertEqual((len(one) + len(other), set(one) & set(other)), (2 * len(keys), set()))
        self.assertTrue(one and other)
        self.ask("MGET " + " ".join(keys))
        self.assertEqual(sorted(map(len, self.asked())), [0, 0, 1])
        self.ask("DEL k1 k2 k3", "DBSIZE", "SCAN 0", "MULTI", "GET k4", "SET k5 x", "EXEC", "BLPOP l m 0")
        self.assertEqual(self.asked()[1:], [[], []])

    def test_databases(self) -> None:
        """
        Replicas read in the database of the client.
        """
        self.ask("SELECT 3", "SET k v")
        self.asked()
        self.assertEqual(self.ask("GET k", "SELECT 0", "GET k"), b"$1\r\nv\r\n+OK\r\n$-1\r\n")
        master, one, other = self.asked()
        self.assertEqual((master, sorted(one + other)), ([], [b"GET k", b"GET k", b"SELECT 3"]))

    def test_order(self) -> None:
        """
        Replies are in the order of the requests.
        """
        self.assertEqual(
            self.ask("SET a 1", "GET a", "SET b 2", "MGET a b", "GET b"),
            b"+OK\r\n$1\r\n1\r\n+OK\r\n*2\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n2\r\n",
        )

    def test_down(self) -> None:
        """
        If a replica fails, what it has not answered is sent to the master, and further reads to the other replica. If
        none is up, the master gets them.
        """
        first = self.loseReader()
        self.stage.clock.advance(0.1)
        self.stage.serve()
        self.asked()
        (other,) = (server for server in self.replicas if server is not first)
        self.assertEqual(self.ask("GET k"), b"$1\r\nv\r\n")
        self.assertEqual(self.stage.asked(other), [b"GET k"])
        self.lose(other)
        for _ in range(3):
            self.stage.clock.advance(0.1)
            self.stage.serve()
            self.assertEqual(self.ask("GET k", "SET k v"), b"$1\r\nv\r\n+OK\r\n")

    def test_masterDown(self) -> None:
        """
        While the master is down, what a replica has not answered is sent to a replica.
        """
        self.stage.clock.advance(2)  # so that the loss of a connection does not count as a failed dial
        self.ask("SET k v", "GET k")
        first = self.reader()
        self.lose(self.master)
        self.stage.clock.advance(0.1)
        self.client.send(requests("GET k", "GET k"))
        self.stage.turns()
        for line in first.open:
            line.lose()
        self.stage.serve()
        self.assertEqual(self.client.take(), b"$1\r\nv\r\n" * 2)

    def test_declined(self) -> None:
        """
        What a replica declines is sent to the master. The replica is not used until it is ready.
        """
        self.ask("SET k v")
        for text in (b"-LOADING Redis is loading\r\n", b"-MASTERDOWN Link\r\n"):
            for server in self.replicas:
                server.declining, server.declination = 2, text
            self.assertEqual(self.ask("GET k", "GET k"), b"$1\r\nv\r\n" * 2)

    def test_failover(self) -> None:
        """
        Another master gets what writes, on the connections that it had as a replica. The old one is left.
        """
        one, other = self.replicas
        self.ask("SET k v", "GET k", "GET l")
        (line,) = one.open
        self.asked()
        self.follow(one, other)
        self.assertEqual(self.ask("SET k w", "GET k"), b"+OK\r\n$1\r\nw\r\n")
        self.assertEqual(self.asked(), [[], [b"SET k w"], [b"GET k"]])
        self.assertIn(line, one.open)
        self.assertEqual(self.master.open, [])
        self.follow(one)
        self.assertEqual(self.ask("GET k"), b"$1\r\nw\r\n")

    def test_waiting(self) -> None:
        """
        What waits for a connection to the old master is sent to the new one.
        """
        self.follow(*self.replicas)
        self.master.mode = "hang"
        self.follow(self.master, *self.replicas)
        self.client.send(requests("SET k w"))
        self.stage.serve()
        self.assertEqual(self.client.take(), b"")
        self.follow(*self.replicas)
        self.assertEqual(self.client.take(), b"+OK\r\n")

    def test_settings(self) -> None:
        """
        A reload may let other servers read.
        """
        pool = self.stage.pool
        pool.change(pool.limits, 6, "replica")
        for server in self.replicas:
            self.lose(server)
        self.stage.clock.advance(0.5)
        self.stage.serve()
        self.ask("GET k")
        self.assertIn(b"no replica of the master is up", self.ask("GET k"))
        pool.change(pool.limits, 6, "prefer-replica")
        self.assertEqual(self.ask("GET k"), b"$-1\r\n")


class ReplicaOnlyTests(ReplicatedCase):
    """
    Tests for a pool that reads from replicas only.
    """

    readFrom = "replica"

    def test_down(self) -> None:
        """
        If one replica fails, the other one gets the requests. If none is up, reads get an error, and the master gets
        none.
        """
        first = self.loseReader()
        self.assertEqual(self.stage.asked(self.master), [])
        (other,) = (server for server in self.replicas if server is not first)
        self.lose(other)
        self.stage.clock.advance(0.5)
        self.stage.serve()
        self.ask("GET k")
        error = b"-ERR upstream unavailable: no replica of the master is up\r\n"
        self.assertEqual(self.ask("GET k", "MGET k l", "SET k w"), error + error + b"+OK\r\n")
        self.assertEqual(self.stage.asked(self.master), [b"SET k w"])

    def test_lost(self) -> None:
        """
        What the last replica has not answered gets an error.
        """
        self.follow(self.master, self.replicas[0])
        self.ask("GET k")
        self.client.send(requests("GET k"))
        self.stage.turns()
        self.lose(self.replicas[0])
        self.stage.serve()
        self.assertIn(b"-ERR upstream unavailable: ", self.client.take())

    def test_unknown(self) -> None:
        """
        While no master is known, all requests get an error.
        """
        self.stage.pool.follow(None, [])
        error = b"-ERR upstream unavailable: no master has been found yet\r\n"
        self.assertEqual(self.ask("GET k", "SET k v", "PING"), error + error + b"+PONG\r\n")
        self.assertRaises(ServerUnavailable, self.stage.pool.anyOf)
