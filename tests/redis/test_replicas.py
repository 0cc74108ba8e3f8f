# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.routing.clientreplicas}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.redis.cluster import FakeSource
from tests.redis.test_sentinel import LINE
from txconnpool.errors import PoolClosed, ServerUnavailable
from txconnpool.net.discovery import REPLICA, Discovered, DiscoveryFailed
from txconnpool.redis import RedisPool
from txconnpool.redis.memory.server import RedisConnection, RedisFactory
from txconnpool.routing.clientcluster import ReadFrom
from txconnpool.routing.clientreplicas import ClientReplicas
from txconnpool.routing.lookups import Lookups
from txconnpool.testing import FakeRedis, FakeServer, SteppingClock, finish


class Connection(RedisConnection):
    """
    A connection to a server that has a role.
    """

    server: Member

    def _answer(self, words: list[bytes]) -> Any:
        self.server.asked.append(words[0].upper())
        if words[0].upper() == b"ROLE":
            return [self.server.role, 0, []]
        return super()._answer(words)


class Member(FakeRedis):
    """
    A master, or a replica, which has the data of the master.
    """

    def __init__(self, clock: SteppingClock, name: str, role: bytes, data: Any = None) -> None:
        super().__init__(clock)
        self.name = name
        self.role = role
        self.data = data or self.data
        self.asked: list[bytes] = []
        factory = RedisFactory(self.data, clock)

        def build(addr: Any) -> Any:
            connection = Connection(self.data, clock)
            connection.server = self
            return connection

        factory.buildProtocol = build  # type: ignore[method-assign]
        FakeServer.__init__(self, clock, factory)

    def __repr__(self) -> str:
        return self.name


class ReplicaTests(SynchronousTestCase):
    """
    Tests with a master and two replicas.
    """

    readFrom: ReadFrom = "prefer-replica"

    def setUp(self) -> None:
        self.clock = SteppingClock()
        self.master = Member(self.clock, "a", b"master")
        self.replicas = [Member(self.clock, name, b"slave", self.master.data) for name in "bc"]
        self.patch(Lookups, "makeSource", FakeSource)
        self.pool: RedisPool[bytes] = RedisPool(
            LINE,
            reactor=self.clock,
            sentinelLogin="secret",
            database=1,
            readFrom=self.readFrom,
        )
        self.addCleanup(finish, self.pool)

    @property
    def source(self) -> Any:
        assert isinstance(self.pool.nodes, ClientReplicas)
        return self.pool.nodes.lookups.source

    def name(self, master: Member, *replicas: Member) -> None:
        """
        Let the sentinels name the servers.
        """
        names = [Discovered(master), *(Discovered(each, REPLICA) for each in replicas)]  # type: ignore[arg-type]
        self.source.answer(names)
        self.clock.advance(0)

    def result(self, answer: Any) -> Any:
        answer = answer if isinstance(answer, Deferred) else Deferred.fromCoroutine(answer)
        self.clock.advance(0)
        return self.successResultOf(answer)

    def fails(self, answer: Deferred[Any]) -> str:
        self.clock.advance(0)
        return str(self.failureResultOf(answer, ServerUnavailable).value)

    def reads(self) -> list[int]:
        """
        @return: how many GETs and MGETs each server has got since the last call.
        """
        servers = [self.master, *self.replicas]
        counts = [sum(name in (b"GET", b"MGET") for name in each.asked) for each in servers]
        for each in servers:
            each.asked.clear()
        return counts

    def begin(self) -> None:
        """
        Name all servers, and store something.
        """
        answer = self.pool.set("k", "1")
        self.clock.advance(0)
        self.name(self.master, *self.replicas)
        self.assertIs(self.result(answer), True)
        self.reads()

    def test_waits(self) -> None:
        """
        Requests and leases wait until the sentinels have named the servers.
        """
        self.assertEqual((self.source.login, self.source.replicas), ((b"default", b"secret"), True))
        answers: list[Deferred[Any]] = [self.pool.set("k", "1"), self.pool.get("k"), self.pool.ready()]
        lease = self.pool.acquire()
        self.assertIsNone(self.pool.acquireNow())
        self.clock.advance(1)
        self.assertEqual([each.called for each in answers], [False] * 3)
        self.name(self.master, *self.replicas)
        self.assertIs(self.result(answers[0]), True)
        self.result(answers[1])
        self.result(answers[2])
        connection = self.result(lease)
        self.assertIs(connection.record.server.address, self.master)
        self.pool.release(connection)
        again = self.pool.acquireNow()
        self.assertIs(again, connection)
        self.pool.release(connection)

    def test_reads(self) -> None:
        """
        Replicas get what only reads, and the master all else, whatever the keys are.
        """
        self.begin()
        for _ in range(2):
            for number in range(10):
                self.result(self.pool.get(f"k{number}"))
        master, *replicas = self.reads()
        self.assertEqual((master, sum(replicas)), (0, 20))
        self.assertTrue(all(replicas))
        self.result(self.pool.mset({"a": "1", "b": "2", "c": "3"}))
        self.assertEqual(self.result(self.pool.mget(["a", "b", "c"])), [b"1", b"2", b"3"])
        self.assertEqual(sum(self.reads()), 1)

        async def together() -> list[Any]:
            async with self.pool.pipeline() as pipe:
                pipe.get("a")
                pipe.dbsize()
            async with self.pool.transaction() as block:
                block.get("b")
                block.incr("c")
            return [*pipe.results, *block.results]

        self.assertEqual(self.result(together()), [b"1", 4, b"2", 4])
        self.assertEqual(self.result(self.pool.delete("a", "b")), 2)
        self.assertEqual(self.result(self.pool.dbsize()), 2)
        self.assertEqual(sorted(self.result(self.pool.scan())[1]), [b"c", b"k"])
        self.assertEqual(self.reads()[1:], [0, 0])

    def test_down(self) -> None:
        """
        If no replica is up, the master gets what reads, unless only replicas may: then it fails.
        """
        self.begin()
        for each in self.replicas:
            each.refuse()
            each.reset()
        self.clock.advance(0)
        for _ in range(2):
            answers = [self.pool.get(f"k{number}") for number in range(4)]
            self.clock.advance(1)
            for answer in answers:
                answer.addErrback(lambda failure: failure.trap(ServerUnavailable) and None)
        self.reads()
        if self.readFrom == "replica":
            self.assertIn("no replica of the master is up", self.fails(self.pool.get("k")))
        else:
            self.assertEqual(self.result(self.pool.get("k")), b"1")
        self.assertEqual(self.reads()[0], int(self.readFrom != "replica"))

    def test_failover(self) -> None:
        """
        Another master gets all that writes, and is not read from any more while there is a replica.
        """
        self.begin()
        one, other = self.replicas
        one.role, self.master.role = b"master", b"slave"
        self.name(one, other)
        self.assertIs(self.result(self.pool.set("k", "2")), True)
        self.assertEqual(self.result(self.pool.get("k")), b"2")
        self.assertEqual(self.reads(), [0, 0, 1])
        self.assertEqual([server.name for server in self.pool.servers], ["b", "c"])

    def test_unknown(self) -> None:
        """
        If the sentinels name none, requests fail with that reason. Later they succeed.
        """
        answer = self.pool.get("k")
        self.clock.advance(0)
        self.source.answer(DiscoveryFailed("no sentinel answers"))
        for each in (answer, self.pool.get("k"), self.pool.blpop(["l"]), self.pool.acquire()):
            self.assertIn("no sentinel answers", self.fails(each))
        self.name(self.master)
        self.result(self.pool.set("k", "1"))

    def test_closed(self) -> None:
        """
        The end of the pool fails requests that wait, and leaves no timer.
        """
        answer = self.pool.get("k")
        self.clock.advance(0)
        self.result(self.pool.close())
        for each in (answer, self.pool.get("k")):
            self.failureResultOf(each, PoolClosed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_options(self) -> None:
        """
        Servers cannot be added, and only a known word says who reads.
        """
        self.assertRaises(ValueError, self.pool.addServer, "tcp:a:1")
        self.assertRaises(ValueError, self.pool.removeServer, "tcp:a:1")
        self.assertRaises(ValueError, RedisPool, LINE, reactor=self.clock, readFrom="anywhere")
        self.assertIsNone(self.pool.cluster)


class ReplicaOnlyTests(ReplicaTests):
    """
    The same if only replicas may read.
    """

    readFrom = "replica"
