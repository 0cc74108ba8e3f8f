# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{RedisPool} with a real Redis and the real reactor.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.real.servers import PATIENT, Redis, missing
from txconnpool.errors import PoolError, ServerUnavailable
from txconnpool.redis import CrossSlot, InvalidArgument, RedisPool, ResponseError, WatchError, WrongType

redis: Any = import_module("redis") if find_spec("redis") else None

#: Calls of methods that redis-py has too, by the same names and with the same results.
CALLS: list[tuple[Any, ...]] = [
    *(("set", "s", b"1"), ("set", "s", b"2", {"nx": True}), ("set", "t", b"3", {"ex": 100, "xx": True})),
    *(("set", "s", b"4", {"px": 100000}), ("get", "s"), ("get", "none"), ("getset", "s", b"5")),
    *(("mget", ["s", "none"]), ("mget", "s", "t")),
    *(("mset", {"m1": "a", "m2": "b"}), ("msetnx", {"m1": "c", "m3": "d"}), ("append", "m1", "xyz"), ("strlen", "m1")),
    *(("getrange", "m1", 1, 2), ("setrange", "m1", 1, "Q"), ("incr", "i"), ("incrby", "i", 5), ("decr", "i", 2)),
    *(("incrbyfloat", "f", 1.5), ("setbit", "b", 7, 1), ("getbit", "b", 7), ("bitcount", "b"), ("bitcount", "b", 0, 0)),
    *(("setnx", "i", 1), ("setex", "e", 100, "v"), ("psetex", "e", 100000, "v"), ("getex", "e", {"persist": True})),
    *(("ttl", "e"), ("pttl", "none"), ("expire", "e", 100), ("expire", "e", 50, {"gt": True})),
    *(("pexpire", "e", 100000), ("persist", "e"), ("expireat", "e", 4102444800), ("pexpireat", "e", 4102444800000)),
    *(("exists", "e", "none", "s"), ("touch", "e", "none"), ("type", "e"), ("type", "none"), ("rename", "e", "e2")),
    *(("renamenx", "e2", "s"), ("copy", "s", "s2"), ("delete", "s2", "none"), ("unlink", "e2"), ("getdel", "m2")),
    *(("hset", "h", "a", "1"), ("hset", "h", {"mapping": {"b": "2", "c": "3"}}), ("hget", "h", "a")),
    *(("hget", "h", "x"), ("smismember", "none", ["a"])),
    *(("hsetnx", "h", "a", "9"), ("hmget", "h", ["a", "x"]), ("hgetall", "h"), ("hdel", "h", "c", "x"), ("hlen", "h")),
    *(("hexists", "h", "a"), ("hkeys", "h"), ("hvals", "h"), ("hstrlen", "h", "a"), ("hincrby", "h", "a", 4)),
    *(("hincrbyfloat", "h", "a", 0.5), ("hscan", "h"), ("hgetall", "none")),
    *(("rpush", "l", "a", "b", "c"), ("lpush", "l", "z"), ("lpushx", "none", "z"), ("rpushx", "l", "y"), ("llen", "l")),
    *(("lrange", "l", 0, -1), ("lindex", "l", 1), ("lset", "l", 0, "Z"), ("linsert", "l", "BEFORE", "b", "B")),
    *(("lrem", "l", 0, "B"), ("lmove", "l", "l2"), ("rpoplpush", "l", "l2"), ("lpop", "l"), ("rpop", "l", 5)),
    *(("lpop", "none"), ("ltrim", "l2", 0, 0), ("blmove", "l2", "l", 1), ("lrange", "l", 0, -1)),
    *(("sadd", "S", "a", "b"), ("sadd", "S2", "b", "c"), ("smembers", "S"), ("scard", "S"), ("sismember", "S", "a")),
    *(("sunion", ["S", "S2"]), ("sinter", "S", "S2"), ("sdiff", "S", "S2"), ("sunionstore", "S3", "S", "S2")),
    *(("sinterstore", "S3", "S", "S2"), ("sdiffstore", "S3", "S", "S2"), ("smove", "S", "S2", "a"), ("srem", "S", "x")),
    *(("spop", "S"), ("spop", "S"), ("srandmember", "S"), ("srandmember", "S3", 2), ("smembers", "none")),
    *(("zadd", "z", {"a": 1, "b": 2.5}), ("zadd", "z", {"a": 3}, {"ch": True, "gt": True}), ("zscore", "z", "a")),
    *(("zscore", "z", "none"), ("zmscore", "z", ["a", "none"]), ("zincrby", "z", 1.5, "b"), ("zcard", "z")),
    *(("zcount", "z", "-inf", "+inf"), ("zrank", "z", "a"), ("zrevrank", "z", "a"), ("zrank", "z", "none")),
    *(("zrange", "z", 0, -1), ("zrange", "z", 0, -1, {"withscores": True}), ("zrevrange", "z", 0, -1)),
    *(("zrevrange", "z", 0, 0, {"withscores": True}), ("zrangebyscore", "z", "-inf", 3)),
    *(("zrangebyscore", "z", 0, 9, {"start": 1, "num": 1, "withscores": True}), ("zscan", "z"), ("zpopmin", "z")),
    *(("zpopmax", "z"), ("zpopmax", "z"), ("zremrangebyrank", "z", 0, -1), ("zremrangebyscore", "z", 0, 1)),
    *(("eval", "return {KEYS[1], ARGV[1], 3}", 1, "k", "v"), ("script_load", "return 1"), ("dbsize",), ("echo", "x")),
    *(("script_exists", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"), ("keys", "h*"), ("publish", "c", "m")),
    *(("ping",), ("flushdb",), ("keys",), ("scan",)),
]  # fmt: skip

#: More such calls. redis-py has their results in the form of RESP3 only if it uses that.
MORE_CALLS: list[tuple[Any, ...]] = [
    *(("xadd", "x", {"a": 1}, {"id": "1-1"}), ("xadd", "x", {"b": 2, "c": 3}, {"id": "2-1", "maxlen": 10})),
    *(("xlen", "x"), ("xrange", "x"), ("xrevrange", "x", {"count": 1}), ("xread", {"x": "0", "none": "0"}, {})),
    *(("xread", {"x": "$"}, {"block": 1}), ("xgroup_create", "x", "g", "0"), ("xreadgroup", "g", "c", {"x": ">"}, {})),
    *(("xpending", "x", "g"), ("xack", "x", "g", "2-1"), ("xclaim", "x", "g", "d", 0, ["1-1"])),
    *(("xclaim", "x", "g", "d", 0, ["1-1"], {"justid": True}), ("xautoclaim", "x", "g", "c", 0)),
    *(("xautoclaim", "x", "g", "c", 0, {"justid": True}), ("xinfo_stream", "x"), ("xinfo_groups", "x")),
    *(("xgroup_createconsumer", "x", "g", "e"), ("xgroup_delconsumer", "x", "g", "e"), ("xgroup_setid", "x", "g", "0")),
    *(("xgroup_destroy", "x", "g"), ("xdel", "x", "1-1"), ("xtrim", "x", {"maxlen": 0, "approximate": False})),
    *(("geoadd", "G", (13.361389, 38.115556, "P", 15.087269, 37.502669, "C")), ("geodist", "G", "P", "C", "km")),
    *(("geodist", "G", "P", "none"), ("geopos", "G", "P", "none"), ("geohash", "G", "P", "none")),
    ("geosearch", "G", {"member": "P", "radius": 200, "unit": "km", "sort": "ASC"}),
    ("geosearch", "G", {"longitude": 15, "latitude": 37, "width": 400, "height": 400, "unit": "km", "sort": "ASC",
                        "withcoord": True, "withdist": True, "withhash": True}),
    ("geosearchstore", "G2", "G", {"member": "P", "radius": 200, "unit": "km"}),
    *(("pfadd", "p", "a", "b"), ("pfadd", "p", "a"), ("pfcount", "p"), ("pfmerge", "q", "p"), ("pfcount", "q", "p")),
    *(("set", "b1", "abc"), ("set", "b2", "abd"), ("bitop", "XOR", "b3", "b1", "b2"), ("bitpos", "b1", 1)),
    *(("bitpos", "b1", 0, 1), ("bitcount", "b1", 0, 9, "BIT"), ("zadd", "z1", {"a": 1, "b": 2}, {})),
    *(("zadd", "z2", {"b": 3, "c": 4}, {}), ("zadd", "z1", {"a": 1.5}, {"incr": True}), ("zunion", ["z1", "z2"])),
    *(("zunion", ["z1", "z2"], {"withscores": True}), ("zinter", ["z1", "z2"], {"withscores": True})),
    *(("zdiff", ["z1", "z2"], {"withscores": True}), ("zdiff", ["z1", "z2"]), ("zunionstore", "z3", ["z1", "z2"])),
    *(("zinterstore", "z3", {"z1": 2, "z2": 3}, {}), ("zdiffstore", "z3", ["z1", "z2"])),
    ("zintercard", 2, ["z1", "z2"]),
    *(("zrangestore", "z3", "z1", 0, 0), ("zmpop", 2, ["none", "z1"], {"min": True})),
    ("zmpop", 1, ["none"], {"max": True}),
    *(("bzmpop", 1, 1, ["z2"], {"max": True}), ("zadd", "y", {"a": 0, "b": 0, "c": 0}, {})),
    ("zlexcount", "y", "-", "[b"),
    *(("zrangebylex", "y", "(a", "+"), ("zrevrangebylex", "y", "+", "-"), ("zremrangebylex", "y", "-", "(c")),
    *(("zrandmember", "y", 2, {"withscores": True}), ("zrevrangebyscore", "y", 1, 0, {"withscores": True})),
    *(("hset", "h", "a", 1), ("hrandfield", "h"), ("hrandfield", "h", 2), ("hrandfield", "h", 1, {"withvalues": True})),
    *(("rpush", "l", "a", "b", "a"), ("lpos", "l", "a", {"rank": 2}), ("lpos", "l", "a", {"count": 0})),
    ("lpos", "l", "x"),
    *(("lmpop", 2, "none", "l", {"direction": "LEFT"}), ("lmpop", 1, "none", {"direction": "LEFT"})),
    *(("blmpop", 1, 1, "l", {"direction": "RIGHT"}), ("rpush", "l", "a"), ("brpoplpush", "l", "m", 1)),
    *(("sadd", "s", "a", "b"), ("sintercard", 1, ["s"]), ("set", "e", "1", {"exat": 4102444800}), ("expiretime", "e")),
    ("pexpiretime", "e"),
]  # fmt: skip

#: Methods whose results differ from redis-py's, and what makes them equal: C{False}, not C{None}; C{bool}, not C{int}.
DIFFERENT: dict[str, Any] = {"set": bool, "smismember": lambda value: list(map(bool, value))}


def compared(name: str, value: Any) -> Any:
    """
    @return: a result in a form in which those of both clients are equal.
    """
    if name in DIFFERENT:
        return DIFFERENT[name](value)
    if isinstance(value, list):
        return [tuple(each) if isinstance(each, list) else each for each in value]
    if isinstance(value, tuple):
        return tuple(compared("", each) for each in value)
    return value


def nested(value: Any) -> Any:
    """
    @return: a result with tuples in place of all lists.
    """
    if isinstance(value, list | tuple):
        return tuple(map(nested, value))
    return {key: nested(each) for key, each in value.items()} if isinstance(value, dict) else value


class RedisPoolCase(TestCase):
    """
    Base class of tests with a server.
    """

    skip = missing("redis-server")
    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        """
        Start the server.
        """
        self.server = Redis(*self.options).start()
        self.addCleanup(self.server.stop)

    def makePool(self, *more: Redis, **settings: Any) -> RedisPool[Any]:
        """
        Create a pool, which is closed at the end of the test.
        """
        pool: RedisPool[Any] = RedisPool([each.endpoint for each in (self.server, *more)], **{**PATIENT, **settings})
        self.addCleanup(pool.close)
        return pool


class CommandTests(RedisPoolCase):
    """
    Tests for the methods.
    """

    async def compare(self, protocol: int, decode: str | None = None, namespace: str = "") -> None:
        """
        Compare the results of all methods with those of redis-py, on another server.
        """
        if redis is None:
            self.skipTest("redis-py is not installed")
        other = Redis().start()
        self.addCleanup(other.stop)
        host, port = other.address[0], int(other.address[1])
        client = redis.Redis(host, port, decode_responses=decode is not None)
        self.addCleanup(client.close)
        pool = self.makePool(protocol=protocol, decode=decode, namespace=namespace)
        for name, *given in CALLS:
            options = given.pop() if given and isinstance(given[-1], dict) and name not in ("mset", "msetnx") else {}
            if name == "zadd" and not given[1:]:
                given, options = [*given, options], {}
            if name in ("spop", "srandmember"):
                getattr(client, name)(*given, **options)
                await getattr(pool, name)(*given, **options)
                continue
            expected = getattr(client, name)(*given, **options)
            found = await getattr(pool, name)(*given, **options)
            if name == "eval" and namespace:
                continue
            self.assertEqual(compared(name, found), compared(name, expected), (name, given, options))

    async def compareMore(self, protocol: int, **settings: Any) -> None:
        """
        Compare the results of more methods with those of redis-py in RESP3.
        """
        if redis is None:
            self.skipTest("redis-py is not installed")
        other = Redis().start()
        self.addCleanup(other.stop)
        host, port = other.address[0], int(other.address[1])
        client = redis.Redis(host, port, protocol=3, decode_responses="decode" in settings)
        self.addCleanup(client.close)
        pool = self.makePool(protocol=protocol, **settings)
        for name, *given in MORE_CALLS:
            isMapping = name in ("xadd", "zadd", "xread", "xreadgroup", "zinterstore") and isinstance(given[-2], str)
            options = given.pop() if isinstance(given[-1], dict) and not isMapping else {}
            expected = getattr(client, name)(*given, **options)
            if name in ("xread", "xreadgroup"):  # redis-py has the entries in a list of one list
                expected = {stream: entries for stream, (entries,) in expected.items()}
            elif name == "geohash":  # redis-py has bytes in RESP3, and text in RESP2
                expected = [each.decode() if isinstance(each, bytes) else each for each in expected]
            found = await getattr(pool, name)(*given, **options)
            self.assertEqual(nested(found), nested(expected), (name, given, options))

    async def test_more(self) -> None:
        """
        The results of streams, places, HyperLogLog and others are those of redis-py in RESP3, in RESP2 too.
        """
        await self.compareMore(3)
        await self.compareMore(2, namespace="n:")
        await self.compareMore(3, decode="utf-8", database=1)

    async def test_resp3(self) -> None:
        """
        The results are those of redis-py.
        """
        await self.compare(3)

    async def test_resp2(self) -> None:
        """
        The results are the same in RESP2.
        """
        await self.compare(2)

    async def test_decoded(self) -> None:
        """
        The results are the same in text, and with a namespace.
        """
        await self.compare(3, "utf-8", "n:")

    async def test_blocking(self) -> None:
        """
        Blocking commands wait on connections of their own, and time out.
        """
        for protocol in (2, 3):
            pool = self.makePool(protocol=protocol)
            waiting: list[Deferred[Any]] = [pool.blpop(["a", "b"], 10), pool.bzpopmin("z", 10)]
            await pool.ping()
            await deferLater(reactor, 0.1, lambda: None)
            await pool.rpush("b", "x")
            await pool.zadd("z", {"m": 1.5})
            self.assertEqual(await gatherResults(waiting), [(b"b", b"x"), (b"z", b"m", 1.5)])
            self.assertIsNone(await pool.brpop("a", 0.1))
            cancelled = pool.blpop("a")
            await deferLater(reactor, 0.1, lambda: None)
            cancelled.addErrback(lambda _: None).cancel()
            await deferLater(reactor, 0.1, lambda: None)
            self.assertEqual((await pool.rpush("a", "x"), await pool.lpop("a")), (1, b"x"))

    async def test_large(self) -> None:
        """
        Values that arrive in many parts are whole.
        """
        pool = self.makePool()
        value = bytes(range(256)) * 40000
        await pool.execute("SET", "k", value)
        self.assertEqual(
            await gatherResults([pool.get("k"), pool.strlen("k"), pool.get("k")]), [value, len(value), value]
        )

    async def test_modules(self) -> None:
        """
        A command that the table lacks is sent, and the server's error comes back.
        """
        pool = self.makePool()
        with self.assertRaises(ResponseError) as caught:
            await pool.execute("BF.ADD", "k", "v")
        self.assertIn("unknown command", str(caught.exception))
        self.assertEqual(await pool.execute("CONFIG", "GET", "maxmemory"), {b"maxmemory": b"0"})


class TogetherTests(RedisPoolCase):
    """
    Tests for pipelines, transactions, subscriptions, scripts and locks.
    """

    async def test_transactions(self) -> None:
        """
        Many programs that change one number with C{transaction} lose no change.
        """
        pool = self.makePool()

        async def add(times: int) -> None:
            while times:
                try:
                    async with pool.transaction("n") as block:
                        value = int(await block.get("n") or 0)
                        block.multi()
                        block.set("n", value + 1)
                    times -= 1
                except WatchError:
                    pass

        await gatherResults([Deferred.fromCoroutine(add(20)) for _ in range(5)])
        self.assertEqual(await pool.get("n"), b"100")
        self.assertEqual(pool.stats.busy, 0)

    async def test_wrongType(self) -> None:
        """
        An error within a transaction or pipeline is that of its command.
        """
        pool = self.makePool()
        for make in (pool.transaction, pool.pipeline):
            await pool.flushdb()
            with self.assertRaises(WrongType):
                async with make() as block:
                    block.set("k", 1)
                    block.lpush("k", 1)
                    block.incr("k")
            self.assertEqual(await pool.get("k"), b"2")

    async def test_subscription(self) -> None:
        """
        A subscription goes on when its connection was killed, and says so.
        """
        for protocol in (2, 3):
            pool = self.makePool(protocol=protocol, decode="utf-8")
            async with pool.subscribe("c", patterns=["p*"]) as messages:
                await pool.publish("c", "1")
                await pool.publish("pq", "2")
                found = [await messages.__anext__(), await messages.__anext__()]
                self.assertEqual([(each.kind, each.channel, each.data) for each in found],
                                 [("message", "c", "1"), ("pmessage", "pq", "2")])  # fmt: skip
                await pool.execute("CLIENT", "KILL", "TYPE", "pubsub")
                self.assertEqual((await messages.__anext__()).kind, "reconnected")
                await pool.publish("c", "3")
                self.assertEqual((await messages.__anext__()).data, "3")
            self.assertEqual(pool.stats.busy, 0)

    async def test_slowSubscriber(self) -> None:
        """
        A subscriber that reads late gets all messages, in order.
        """
        pool, publisher = self.makePool(), self.makePool(maxClients=1)
        async with pool.subscribe("c") as messages:
            for start in range(0, 4000, 500):
                await gatherResults([publisher.publish("c", start + number) for number in range(500)])
            self.assertLess(len(messages._messages), 4000)
            for number in range(4000):
                self.assertEqual((await messages.__anext__()).data, b"%d" % number)

    async def test_scripts(self) -> None:
        """
        A script is sent again after the server has forgotten it; an error text of a script is no redirection.
        """
        pool = self.makePool()
        script = pool.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
        self.assertEqual([await script(["n"], [2]), await script(["n"], [3])], [2, 5])
        await pool.execute("SCRIPT", "FLUSH")
        self.assertEqual(await script(["n"], [1]), 6)
        with self.assertRaises(ResponseError) as caught:
            await pool.eval("return redis.error_reply('MOVED somewhere')", 0)
        self.assertIn("MOVED somewhere", str(caught.exception))

    async def test_locks(self) -> None:
        """
        A lock is held by one at a time.
        """
        pool = self.makePool()
        inside: list[int] = []

        async def work() -> None:
            async with pool.lock("l", sleep=0.01):
                inside.append(1)
                await deferLater(reactor, 0.01, lambda: None)
                self.assertEqual(inside.pop(), 1)
                self.assertEqual(inside, [])

        await gatherResults([Deferred.fromCoroutine(work()) for _ in range(5)])
        lock = pool.lock("l")
        await lock.acquire()
        await lock.extend(100)
        self.assertGreater(await pool.ttl("l"), 50)
        await lock.release()
        self.assertEqual(await pool.exists("l"), 0)

    async def test_scan(self) -> None:
        """
        A scan finds all keys.
        """
        pool = self.makePool(namespace="n[1]:", decode="utf-8")
        await pool.mset({f"k{number}": number for number in range(500)})
        await self.makePool().set("other", 1)
        self.assertEqual({key async for key in pool.scan_iter()}, {f"k{number}" for number in range(500)})
        self.assertEqual({key async for key in pool.scan_iter("k1?")}, {f"k1{number}" for number in range(10)})


class ServerTests(RedisPoolCase):
    """
    Tests for logins, databases and several servers.
    """

    options = ("--requirepass", "secret")

    async def test_login(self) -> None:
        """
        With a password the pool logs in; without one, or with a wrong one, requests fail with the reason.
        """
        login: Any
        for login in ("secret", ("default", "secret")):
            self.assertTrue(await self.makePool(login=login).ping())
        for login in (None, "wrong"):
            with self.assertRaises(PoolError) as caught:
                await self.makePool(login=login, whenDown=1).ping()
            self.assertIsInstance(caught.exception, ServerUnavailable)

    async def test_database(self) -> None:
        """
        Each pool has its database.
        """
        first, second = self.makePool(login="secret"), self.makePool(login="secret", database=3)
        await second.set("k", "3")
        self.assertEqual((await first.get("k"), await second.get("k")), (None, b"3"))

    async def test_shards(self) -> None:
        """
        Several servers share the keys. The keys of one request must be on one server, as those with one tag are.
        """
        other = Redis(*self.options).start()
        self.addCleanup(other.stop)
        pool = self.makePool(other, login="secret")
        for number in range(50):
            await pool.set(f"k{number}", number)
        self.assertEqual([await pool.get(f"k{number}") for number in range(50)], [b"%d" % n for n in range(50)])
        names = [f"k{number}" for number in range(50)]
        self.assertEqual(await pool.mget(names), [b"%d" % number for number in range(50)])
        self.assertEqual(await pool.exists(*names, "none"), 50)
        self.assertEqual(await pool.delete(*names[40:], "none"), 10)
        self.assertTrue(await pool.mset(dict.fromkeys(names[40:], "x")))
        self.assertEqual(await pool.mget(names[39:41]), [b"39", b"x"])
        self.assertTrue(await pool.mset({name: number for number, name in enumerate(names)}))
        with self.assertRaises(CrossSlot):
            await pool.msetnx(dict.fromkeys(names, "x"))
        await pool.set("k7", "x")
        await pool.delete("k7")
        await pool.rpush("k7", "7")
        self.assertIsNone((await pool.mget(names))[7])
        await pool.set("k7", "7")
        self.assertTrue(await pool.msetnx({"{t}a": 1, "{t}b": 2}))
        self.assertEqual(await pool.dbsize(), 52)
        self.assertLessEqual({name.encode() for name in names}, {key async for key in pool.scan_iter(count=7)})
        with self.assertRaises(InvalidArgument):
            await pool.info()
        async with pool.pipeline() as pipe:
            for number in range(50):
                pipe.get(f"k{number}")
            pipe.mget(names[:3])
        self.assertEqual(pipe.results[:50], [b"%d" % number for number in range(50)])
        self.assertEqual(pipe.results[50], [b"0", b"1", b"2"])
        self.assertTrue(await pool.flushdb())
        self.assertEqual(await pool.keys(), [])
