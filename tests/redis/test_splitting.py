# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.redis.splitting}.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from txconnpool.redis import CrossSlot, InvalidArgument, NoPermission, RedisPool
from txconnpool.redis.splitting import WIDTHS, divide, join, requestFor
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

    def test_refused(self) -> None:
        """
        Other requests must have their keys on one server, and need one.
        """
        self.failureResultOf(self.pool.msetnx({f"k{number}": 1 for number in range(20)}), CrossSlot)
        self.failureResultOf(self.pool.dbsize(), InvalidArgument)
        odd = [word for number in range(20) for word in (f"k{number}", "1")][:-1]
        self.failureResultOf(self.pool.execute("MSET", *odd), CrossSlot)
        self.assertEqual([each.items for each in self.data], [{}, {}])
