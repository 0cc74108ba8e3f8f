# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.redis.splitting}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from txconnpool.redis import CrossSlot, InvalidArgument, NoPermission, RedisPool
from txconnpool.redis.splitting import WIDTHS, divide, join, nextCursor, requestFor, serverOfCursor
from txconnpool.routing.servers import Server
from txconnpool.testing import FakeRedis, SteppingClock, finish
from txconnpool.wire.redis.commands import BY_NAME
from txconnpool.wire.redis.framing import encode


class DivideTests(SynchronousTestCase):
    """
    Tests for the functions.
    """

    def test_widths(self) -> None:
        """
        The keys of the commands that are split are where the table of commands has them.
        """
        for name, width in WIDTHS.items():
            words = [name.encode()] + [b"%d" % at for at in range(1, 5)]
            self.assertEqual(BY_NAME[name].keyPositions(words), list(range(1, 5, width)))

    def test_cursors(self) -> None:
        """
        A cursor has the number of its server. The scan of one server is followed by that of the next one.
        """
        self.assertEqual(serverOfCursor(b"0", 3), (0, b"0"))
        most = b"18446744073709551615"
        self.assertEqual(serverOfCursor(b"%d" % nextCursor(most, 2, 3), 3), (2, most))
        self.assertEqual([nextCursor("0", number, 3) for number in range(3)], [1, 2, 0])
        self.assertRaises(InvalidArgument, serverOfCursor, b"-1", 3)

    def test_divide(self) -> None:
        """
        Each server gets its keys, and the replies are joined in the order of the request.
        """
        words = b"MSET a 1 b 2 a3 3".split()
        divided = divide(BY_NAME["mset"], words, lambda key: key[:1])
        self.assertEqual(divided, {b"a": [1, 5], b"b": [3]})
        self.assertEqual(requestFor(BY_NAME["mset"], words, [1, 5]), encode(b"MSET a 1 a3 3".split()))
        self.assertEqual(join(BY_NAME["mget"], [[1, 3], [2]], [["x", None], ["y"]]), ["x", "y", None])
        self.assertEqual(join(BY_NAME["del"], [[1], [2]], [1, 1]), 2)


class ShardTests(SynchronousTestCase):
    """
    Tests with two servers that share the keys.
    """

    def setUp(self) -> None:
        self.clock = SteppingClock()
        self.servers = [FakeRedis(self.clock) for _ in range(2)]
        self.data = [server.data for server in self.servers]
        named = [Server(server, label=name) for server, name in zip(self.servers, "ab", strict=True)]
        self.pool: RedisPool[bytes] = RedisPool(named, reactor=self.clock, namespace="n:")
        self.addCleanup(finish, self.pool)

    def result(self, answer: Any) -> Any:
        self.clock.advance(0)
        return self.successResultOf(answer)

    def test_divided(self) -> None:
        """
        Keys of several servers are set, found and deleted by one call.
        """
        names = [f"k{number}" for number in range(20)]
        for name in names:
            self.result(self.pool.set(name, name))
        self.assertEqual([bool(each.items) for each in self.data], [True, True])
        self.assertEqual(self.result(self.pool.mget([*names, "none"])), [*[name.encode() for name in names], None])
        self.assertEqual(self.result(self.pool.delete(*names)), 20)
        self.assertEqual([each.items for each in self.data], [{}, {}])

    @covers("R11", "R12")
    def test_error(self) -> None:
        """
        An error of one server is that of the call.
        """
        names = [f"k{number}" for number in range(20)]
        self.result(self.pool.mget(names))
        self.servers[0].hold()
        answer = self.pool.mget(names)
        self.clock.advance(0)
        self.servers[0].connections[0].send(b"-NOPERM no permission\r\n")
        self.clock.advance(0)
        self.failureResultOf(answer, NoPermission)

    def test_pipeline(self) -> None:
        """
        The commands of a pipeline that concern several servers are divided, and have one result each.
        """

        async def run() -> list[Any]:
            async with self.pool.pipeline() as pipe:
                pipe.mset({f"k{number}": number for number in range(10)})
                pipe.set("k3", "x")
                pipe.mget([f"k{number}" for number in range(5)])
                pipe.exists("k1", "k2", "none")
                pipe.incr("k4")
            return pipe.results

        answer = Deferred.fromCoroutine(run())
        self.assertEqual(self.result(answer), [True, True, [b"0", b"1", b"2", b"x", b"4"], 2, 5])
        self.assertEqual([bool(each.items) for each in self.data], [True, True])

    def test_everywhere(self) -> None:
        """
        Commands that concern all keys are sent to all servers.
        """
        names = [f"k{number}" for number in range(20)]
        self.result(self.pool.mset(dict.fromkeys(names, 1)))
        self.assertEqual(self.result(self.pool.dbsize()), 20)
        found = self.result(self.pool.keys("k1*"))
        self.assertEqual(sorted(found), sorted(name.encode() for name in names if "k1" in name))
        self.assertTrue(self.result(self.pool.ping()))
        sha = self.result(self.pool.script_load("return 1"))
        self.assertEqual(self.result(self.pool.script_exists(sha, "other")), [True, False])
        self.servers[0].data.known.clear()
        self.assertEqual(self.result(self.pool.script_exists(sha)), [False])
        self.assertTrue(self.result(self.pool.flushdb()))
        self.assertEqual([each.items for each in self.data], [{}, {}])

    def test_scan(self) -> None:
        """
        A scan finds the keys of all servers.
        """
        names = {f"k{number}".encode() for number in range(50)}
        self.result(self.pool.mset(dict.fromkeys(names, 1)))

        async def scan(**options: Any) -> list[bytes]:
            return [key async for key in self.pool.scan_iter(**options)]

        found = self.result(Deferred.fromCoroutine(scan(count=7)))
        self.assertEqual((len(found), set(found)), (50, names))
        found = self.result(Deferred.fromCoroutine(scan(match="k1?")))
        self.assertEqual(set(found), {name for name in names if name[1:2] == b"1" and len(name) == 3})
        self.clock.advance(0)
        self.failureResultOf(self.pool.execute("SCAN", "x"), InvalidArgument)

    def test_channels(self) -> None:
        """
        A subscription has one connection, so its channels must be those of one server.
        """
        channels = [f"c{number}" for number in range(20)]
        self.assertRaises(InvalidArgument, self.pool.subscribe, *channels)
        self.assertRaises(InvalidArgument, self.pool.subscribe, patterns=["c*"])

        async def receive(channel: str) -> Any:
            async with self.pool.subscribe(channel) as messages:
                count = await self.pool.publish(channel, "x")
                return count, (await messages.__anext__()).data

        for channel in channels[:4]:
            self.assertEqual(self.result(Deferred.fromCoroutine(receive(channel))), (1, b"x"))

    def test_refused(self) -> None:
        """
        Other requests must have their keys on one server, and need one.
        """
        self.failureResultOf(self.pool.msetnx({f"k{number}": 1 for number in range(20)}), CrossSlot)
        self.failureResultOf(self.pool.info(), InvalidArgument)
        odd = [word for number in range(20) for word in (f"k{number}", "1")][:-1]
        self.failureResultOf(self.pool.execute("MSET", *odd), CrossSlot)
        self.assertEqual([each.items for each in self.data], [{}, {}])
