# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.redis.pool}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.bugs import covers
from tests.redis.cases import RedisTestCase
from txconnpool.errors import ConnectionLostInFlight, PoolError
from txconnpool.redis import InvalidArgument, Loading, RedisPool, ResponseError, UndecodableReply, WrongType
from txconnpool.testing import FakeConnection
from txconnpool.wire.redis.commands import BY_NAME
from txconnpool.wire.redis.framing import encode


class PoolTests(RedisTestCase):
    """
    Tests for L{RedisPool}.
    """

    def result(self, answer: Any) -> Any:
        self.flush()
        return self.successResultOf(answer)

    def fails(self, answer: Any, kind: type[Exception]) -> str:
        self.flush()
        return str(self.failureResultOf(answer, kind).value)

    @property
    def connection(self) -> FakeConnection:
        (connection,) = self.server.connections
        return connection

    def test_handshake(self) -> None:
        """
        A new connection is asked whether it is alive, and is made one of RESP3 and of the database.
        """
        self.result(self.pool.ping())
        self.assertIn(b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n", self.connection.received)

    def test_together(self) -> None:
        """
        Concurrent calls are written together, on one connection, and none waits for the reply to another.
        """
        self.result(self.pool.ping())
        self.connection.received = b""
        self.server.hold()
        answers = [self.pool.incr("n") for _ in range(3)]
        self.flush()
        request = b"*3\r\n$6\r\nINCRBY\r\n$1\r\nn\r\n$1\r\n1\r\n"
        self.assertEqual(self.server.connections[0].received, request * 3)
        self.server.release()
        self.assertEqual([self.result(answer) for answer in answers], [1, 2, 3])

    def test_errors(self) -> None:
        """
        An error reply is an exception, and concerns its own request only.
        """
        self.result(self.pool.rpush("l", "x"))
        answers = [self.pool.get("l"), self.pool.set("s", "x"), self.pool.incr("s"), self.pool.execute("NOSUCH")]
        self.assertIn("WRONGTYPE", self.fails(answers[0], WrongType))
        self.assertIs(self.result(answers[1]), True)
        error = self.failureResultOf(answers[2], ResponseError).value
        self.assertEqual((error.code, isinstance(error, PoolError)), ("ERR", True))
        self.failureResultOf(answers[3], ResponseError)

    def test_execute(self) -> None:
        """
        C{execute} sends any command; its words are text or numbers.
        """
        self.assertEqual(self.result(self.pool.execute("set", "k", 1.5)), b"OK")
        self.assertEqual(self.result(self.pool.execute(b"GET", "k")), b"1.5")
        for words in ((), ("GET",), ("GET", None), ("GET", True), ("GET", "a", "b")):
            self.fails(self.pool.execute(*words), InvalidArgument)

    def test_stateful(self) -> None:
        """
        Commands that change the state of a connection are not sent.
        """
        for words, instead in (
            (("MULTI",), "transaction"),
            (("subscribe", "c"), "subscribe"),
            (("SELECT", "1"), "database"),
            (("AUTH", "x"), "login"),
            (("CLIENT", "reply", "OFF"), "connection()"),
            (("CLIENT", "NO-TOUCH", "ON"), "connection()"),
            (("MONITOR",), "connection()"),
            (("QUIT",), "close"),
        ):
            self.assertIn(instead, self.fails(self.pool.execute(*words), InvalidArgument))
        self.assertEqual(self.server.connections, [])

    def test_decode(self) -> None:
        """
        With C{decode} strings are text.
        """
        pool = self.makePool(decode="utf-8")
        self.result(pool.hset("h", "\u00e9", "x"))
        self.assertEqual(self.result(pool.hgetall("h")), {"\u00e9": "x"})

    def test_undecodable(self) -> None:
        """
        A string that cannot be decoded is an error that names the command. The connection stays open.
        """
        self.result(self.pool.execute("SET", "k", b"abc"))
        pool = self.makePool(decode="utf-16")
        for answer in (pool.get("k"), pool.mget(["k"]), pool.getrange("k", 0, -1)):
            self.flush()
            error = self.failureResultOf(answer, UndecodableReply)
            self.assertRegex(str(error.value), "^the reply to (GET|MGET|GETRANGE) is not valid in utf-16: ")
        count = len(self.server.connections)
        self.assertEqual(self.result(pool.exists("k")), 1)
        self.assertEqual(len(self.server.connections), count)

    def test_undecodableMessage(self) -> None:
        """
        A message that cannot be decoded is an error of the iteration, which goes on.
        """
        pool = self.makePool(decode="utf-16")

        async def receive() -> int:
            async with pool.subscribe("c") as messages:
                for _ in range(2):
                    await self.pool.publish("c", b"abc")
                    with self.assertRaises(UndecodableReply):
                        await messages.__anext__()
                return await self.pool.publish("c", b"abc")

        self.assertEqual(self.result(Deferred.fromCoroutine(receive())), 1)

    def test_namespace(self) -> None:
        """
        The namespace is put before keys, and results do not have it. Where the keys are not known, nothing is sent.
        """
        pool = self.makePool(namespace="a*:")
        self.result(pool.set("k", "1"))
        self.result(self.pool.set("other", "2"))
        self.assertEqual(self.data.items, {b"a*:k": b"1", b"other": b"2"})
        self.assertEqual(self.result(pool.mget(["k", "other"])), [b"1", None])
        self.result(pool.delete("k"))
        for words in (("SORT", "k"), ("NOSUCH", "k"), ("RANDOMKEY",)):
            self.assertIn("namespace", self.fails(pool.execute(*words), InvalidArgument))

    def test_blocking(self) -> None:
        """
        A blocking command has a connection of its own, which is used again after it, and does not time out.
        """
        answer = self.pool.blpop("l")
        other = self.pool.set("k", "1")
        self.clock.advance(60)
        self.assertEqual(self.result(other), True)
        self.assertNoResult(answer)
        self.assertEqual(self.result(self.pool.rpush("l", "x")), 1)
        self.assertEqual(self.result(answer), (b"l", b"x"))
        self.assertEqual(self.pool.stats.busy, 0)

    @covers("R2")
    def test_blockingCancelled(self) -> None:
        """
        A cancelled blocking command closes its connection, so that it takes no element away.
        """
        answer = self.pool.blpop("l")
        self.flush()
        answer.cancel()
        self.flush()
        self.failureResultOf(answer)
        self.assertEqual(self.data.blocked, [])
        self.result(self.pool.rpush("l", "x"))
        self.assertEqual(self.result(self.pool.lrange("l", 0, -1)), [b"x"])

    @covers("R19")
    def test_lost(self) -> None:
        """
        If a connection is lost, reads are sent once more, and nothing else is.
        """
        self.result(self.pool.ping())
        self.server.hold()
        read, write = self.pool.get("k"), self.pool.incr("k")
        self.flush()
        self.server.holding = False
        self.lose()
        self.fails(write, ConnectionLostInFlight)
        self.clock.advance(2)
        self.assertEqual(self.result(read), b"1")

    def decline(self) -> None:
        """
        Let the server answer the next call with an error, as if it were loading its data.
        """
        self.result(self.pool.ping())
        self.server.connections[0].hold()

    def declined(self) -> None:
        """
        Send the error.
        """
        self.flush()
        self.server.connections[0].send(b"-LOADING Redis is loading the dataset in memory\r\n")
        self.clock.advance(2)

    def test_declined(self) -> None:
        """
        A call that the server has not executed is sent once more, when the server is ready. What it answers then is the
        result.
        """
        for name, words, result in (("set", ("k", "v"), True), ("get", ("k",), b"v")):
            self.decline()
            calling = getattr(self.pool, name)(*words)
            self.declined()
            self.assertEqual(self.result(calling), result)
        self.assertEqual(self.pool.stats.retries, 2)

    def test_declinedTwice(self) -> None:
        """
        It is not sent a third time: the error is the result.
        """
        self.decline()
        calling = self.pool.get("k")
        self.server.holding = True
        self.declined()
        while b"GET" not in self.server.connections[0].received:
            self.server.connections[0].release(1 << 20)
            self.flush()
        self.declined()
        self.fails(calling, Loading)

    def test_keepAlive(self) -> None:
        """
        With C{keepAlive}, idle connections are asked whether they are alive.
        """
        pool = self.makePool(keepAlive=10)
        self.result(pool.ping())
        self.connection.received = b""
        self.clock.advance(11)
        self.assertEqual(self.connection.received, b"*1\r\n$4\r\nPING\r\n")

    def test_options(self) -> None:
        """
        Invalid options are errors.
        """
        for settings in ({"protocol": 1}, {"decode": "no"}, {"database": -1}, {"login": ""}, {"requestTimeout": 0}):
            self.assertRaises(ValueError, RedisPool, "tcp:127.0.0.1:1", reactor=self.clock, **settings)
        self.assertRaises(TypeError, RedisPool, "tcp:127.0.0.1:1", reactor=self.clock, login=5)

    def test_poolNames(self) -> None:
        """
        C{expire} and C{restore} are commands, and those of the pool with the arguments of those.
        """
        self.result(self.pool.ping())
        self.assertIsNone(self.pool.expire())
        self.flush()
        self.assertRaises(ValueError, self.pool.restore, "tcp:127.0.0.1:1")
        self.fails(self.pool.expire("k"), InvalidArgument)  # type: ignore[call-overload]

    def test_scan(self) -> None:
        """
        A scan iterates over all keys of the namespace.
        """
        pool = self.makePool(namespace="n:")
        for key in ("a", "b", "c"):
            self.result(pool.set(key, "1"))
        self.result(self.pool.set("x", "1"))

        async def keys() -> list[bytes]:
            return [key async for key in pool.scan_iter()]

        self.assertEqual(sorted(self.result(Deferred.fromCoroutine(keys()))), [b"a", b"b", b"c"])

    def test_iterators(self) -> None:
        """
        The elements of a key are found one after the other.
        """
        self.result(self.pool.hset("h", mapping={"a": "1", "b": "2"}))
        self.result(self.pool.sadd("s", "a", "b"))
        self.result(self.pool.zadd("z", {"a": 1, "b": 2.5}))

        async def every() -> list[Any]:
            return [
                dict([each async for each in self.pool.hscan_iter("h")]),
                {each async for each in self.pool.sscan_iter("s", "a*")},
                [each async for each in self.pool.zscan_iter("z")],
            ]

        found = self.result(Deferred.fromCoroutine(every()))
        self.assertEqual(found, [{b"a": b"1", b"b": b"2"}, {b"a"}, [(b"a", 1.0), (b"b", 2.5)]])

    def test_blockingError(self) -> None:
        """
        An error of a blocking command leaves its connection in the pool.
        """
        self.result(self.pool.set("k", "1"))
        self.fails(self.pool.blpop("k"), WrongType)
        self.result(self.pool.execute("RPUSH", "l", b"abc"))
        pool = self.makePool(decode="utf-16")
        count = len(self.server.connections)
        answer = pool.blpop("l")
        self.flush()
        self.failureResultOf(answer, UndecodableReply)
        self.assertEqual((len(self.server.connections), pool.stats.busy), (count + 1, 0))

    def test_configure(self) -> None:
        """
        C{configure} prepares each connection after the handshake.
        """
        pool = self.makePool(
            configure=lambda connection: connection.probe(BY_NAME["set"], encode([b"SET", b"c", b"1"]))
        )
        self.assertEqual(self.result(pool.get("c")), b"1")

    def test_expires(self) -> None:
        """
        C{expire} and C{restore} with the arguments of commands are these.
        """
        self.result(self.pool.set("k", "1"))
        self.assertEqual(self.result(self.pool.expire("k", 5, gt=True)), False)
        self.assertEqual(self.result(self.pool.expire("k", 5)), True)
        self.clock.advance(5)
        self.assertEqual(self.result(self.pool.ttl("k")), -2)
        self.assertIn("unknown command 'restore'", self.fails(self.pool.restore("k", 0, b"x"), ResponseError))
        self.fails(self.pool.restore("k", 5), InvalidArgument)  # type: ignore[call-overload]
