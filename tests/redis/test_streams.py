# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.redis.streams}, C{geo} and C{combining}: the words of each method, and the results of RESP2 and
RESP3. C{tests/real/test_redis_pool.py} compares them with redis-py.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.redis.cases import RedisTestCase
from tests.redis.test_commands import Recorder
from txconnpool.redis import InvalidArgument


class WordTests(SynchronousTestCase):
    """
    Tests for the words of requests.
    """

    def test_words(self) -> None:
        """
        The options of the methods are those of the commands.
        """
        recorder = Recorder(b"*0\r\n")
        for name, positional, options, words in (
            ("xadd", ("x", {"a": 1}), {}, "XADD x * a 1"),
            ("xadd", ("x", {"a": 1}), {"id": "5-*", "maxlen": 10, "limit": 5, "nomkstream": True},
             "XADD x NOMKSTREAM MAXLEN ~ 10 LIMIT 5 5-* a 1"),
            ("xtrim", ("x",), {"minid": "5-0", "approximate": False}, "XTRIM x MINID 5-0"),
            ("xrange", ("x",), {"count": 2}, "XRANGE x - + COUNT 2"),
            ("xrevrange", ("x", "9", "1"), {}, "XREVRANGE x 9 1"),
            ("xread", ({"x": "0", "y": "$"},), {"count": 5}, "XREAD COUNT 5 STREAMS x y 0 $"),
            ("xreadgroup", ("g", "c", {"x": ">"}), {"noack": True}, "XREADGROUP GROUP g c NOACK STREAMS x >"),
            ("xgroup_create", ("x", "g"), {"mkstream": True, "entries_read": 5},
             "XGROUP CREATE x g $ MKSTREAM ENTRIESREAD 5"),
            ("xgroup_setid", ("x", "g", "5"), {}, "XGROUP SETID x g 5"),
            ("xgroup_createconsumer", ("x", "g", "c"), {}, "XGROUP CREATECONSUMER x g c"),
            ("xgroup_delconsumer", ("x", "g", "c"), {}, "XGROUP DELCONSUMER x g c"),
            ("xpending_range", ("x", "g", "-", "+", 5), {"consumername": "c", "idle": 7},
             "XPENDING x g IDLE 7 - + 5 c"),
            ("xclaim", ("x", "g", "c", 5, ["1", "2"]),
             {"idle": 1, "time": 2, "retrycount": 3, "force": True, "justid": True},
             "XCLAIM x g c 5 1 2 IDLE 1 TIME 2 RETRYCOUNT 3 FORCE JUSTID"),
            ("xdel", ("x", "1", "2"), {}, "XDEL x 1 2"),
            ("geoadd", ("G", (1.5, 2.5, "P")), {"nx": True, "ch": True}, "GEOADD G NX CH 1.5 2.5 P"),
            ("geodist", ("G", "P", "Q", "km"), {}, "GEODIST G P Q km"),
            ("geosearch", ("G", "P"), {"radius": 5, "sort": "ASC", "count": 2, "any": True, "withhash": True},
             "GEOSEARCH G FROMMEMBER P BYRADIUS 5 m ASC COUNT 2 ANY WITHHASH"),
            ("geosearchstore", ("D", "G"), {"longitude": 1, "latitude": 2, "width": 3, "height": 4, "storedist": True},
             "GEOSEARCHSTORE D G FROMLONLAT 1 2 BYBOX 3 4 m STOREDIST"),
            ("zunion", ({"a": 2, "b": 3},), {"aggregate": "MAX", "withscores": True},
             "ZUNION 2 a b WEIGHTS 2 3 AGGREGATE MAX WITHSCORES"),
            ("zrangestore", ("d", "z", "0", "1"), {"byscore": True, "desc": True, "offset": 1},
             "ZRANGESTORE d z 0 1 BYSCORE REV LIMIT 1 -1"),
            ("bzmpop", (5, 1, ["z"]), {"max": True, "count": 2}, "BZMPOP 5 1 z MAX COUNT 2"),
            ("zrangebylex", ("z", "-", "+"), {"num": 5}, "ZRANGEBYLEX z - + LIMIT 0 5"),
            ("zrevrangebyscore", ("z", 5, 1), {"start": 1, "num": 2, "withscores": True},
             "ZREVRANGEBYSCORE z 5 1 WITHSCORES LIMIT 1 2"),
            ("bitpos", ("k", 1), {"start": 0, "end": 5, "mode": "BIT"}, "BITPOS k 1 0 5 BIT"),
            ("bitcount", ("k", 0, 5, "BIT"), {}, "BITCOUNT k 0 5 BIT"),
            ("bitop", ("AND", "d", "a", "b"), {}, "BITOP AND d a b"),
            ("bitfield", ("k", "SET", "u8", 0, 255), {}, "BITFIELD k SET u8 0 255"),
            ("lpos", ("l", "x"), {"rank": -1, "count": 0, "maxlen": 9}, "LPOS l x RANK -1 COUNT 0 MAXLEN 9"),
            ("sintercard", (2, ["a", "b"]), {"limit": 3}, "SINTERCARD 2 a b LIMIT 3"),
            ("pfmerge", ("d", "a", "b"), {}, "PFMERGE d a b"),
        ):  # fmt: skip
            getattr(recorder, name)(*positional, **options).addErrback(lambda _: None)
            self.assertEqual(recorder.words, words.encode().split(), name)

    def test_invalid(self) -> None:
        """
        Arguments that no server accepts are errors, and nothing is sent.
        """
        recorder = Recorder()
        for answer in (
            recorder.xadd("x", {"a": 1}, maxlen=1, minid="1"),
            recorder.xtrim("x", maxlen=1, minid="1"),
            recorder.geosearch("G", radius=5),
            recorder.geosearch("G", "P", longitude=1, latitude=2, radius=5),
            recorder.geosearch("G", "P", radius=5, width=5, height=5),
            recorder.geosearchstore("D", "G", "P", width=5),
            recorder.geosearch("G", "P", radius=5, any=True),
            recorder.zmpop(1, ["z"]),
            recorder.bzmpop(0, 1, ["z"], min=True, max=True),
            recorder.zrandmember("z", withscores=True),
            recorder.hrandfield("h", withvalues=True),
            recorder.bitpos("k", 1, end=5),
        ):
            self.failureResultOf(answer, InvalidArgument)
        self.assertEqual(recorder.words, [])


class ResultTests(SynchronousTestCase):
    """
    Tests for results.
    """

    def test_versions(self) -> None:
        """
        The results of RESP2 and RESP3 are the same.
        """
        entry = b"*2\r\n+1-0\r\n*2\r\n+a\r\n+1\r\n"
        calls: tuple[tuple[str, tuple[Any, ...], tuple[bytes, ...], Any], ...] = (
            ("xrange", ("x",), (b"*2\r\n" + entry + b"*2\r\n+2-0\r\n*-1\r\n",),
             [(b"1-0", {b"a": b"1"}), (b"2-0", None)]),
            ("xread", ({"x": 0},), (b"*1\r\n*2\r\n+x\r\n*1\r\n" + entry, b"%1\r\n+x\r\n*1\r\n" + entry),
             {b"x": [(b"1-0", {b"a": b"1"})]}),
            ("xread", ({"x": 0},), (b"*-1\r\n", b"_\r\n"), {}),
            ("xpending", ("x", "g"), (b"*4\r\n:1\r\n+1-0\r\n+2-0\r\n*1\r\n*2\r\n+c\r\n+1\r\n",),
             {"pending": 1, "min": b"1-0", "max": b"2-0", "consumers": [{"name": b"c", "pending": 1}]}),
            ("xpending", ("x", "g"), (b"*4\r\n:0\r\n$-1\r\n$-1\r\n*-1\r\n",),
             {"pending": 0, "min": None, "max": None, "consumers": []}),
            ("xautoclaim", ("x", "g", "c", 0), (b"*3\r\n+0-0\r\n*2\r\n" + entry + b"*-1\r\n*0\r\n",),
             [b"0-0", [(b"1-0", {b"a": b"1"}), None], []]),
            ("xinfo_groups", ("x",), (b"*1\r\n*2\r\n+name\r\n+g\r\n", b"*1\r\n%1\r\n+name\r\n+g\r\n"),
             [{"name": b"g"}]),
            ("xinfo_stream", ("x",), (b"*4\r\n+length\r\n:1\r\n+first-entry\r\n" + entry,),
             {"length": 1, "first-entry": (b"1-0", {b"a": b"1"})}),
            ("geosearch", ("G", "P", None, None, "m", 5),
             (b"*1\r\n*4\r\n+P\r\n+1.5\r\n:7\r\n*2\r\n+1\r\n+2\r\n",
              b"*1\r\n*4\r\n+P\r\n,1.5\r\n:7\r\n*2\r\n,1\r\n,2\r\n"),
             [[b"P", 1.5, 7, (1.0, 2.0)]]),
            ("geopos", ("G", "P", "x"), (b"*2\r\n*2\r\n+1\r\n+2\r\n*-1\r\n", b"*2\r\n*2\r\n,1\r\n,2\r\n_\r\n"),
             [(1.0, 2.0), None]),
            ("zmpop", (1, ["z"], True),
             (b"*2\r\n+z\r\n*1\r\n*2\r\n+a\r\n+1\r\n", b"*2\r\n+z\r\n*1\r\n*2\r\n+a\r\n,1\r\n"),
             (b"z", [(b"a", 1.0)])),
            ("hrandfield", ("h", 1, True), (b"*2\r\n+a\r\n+1\r\n", b"*1\r\n*2\r\n+a\r\n+1\r\n"), [(b"a", b"1")]),
        )  # fmt: skip
        for name, arguments, replies, result in calls:
            for reply in replies:
                answer = getattr(Recorder(reply), name)(*arguments)
                self.assertEqual(self.successResultOf(answer), result, (name, reply))


class MemoryTests(RedisTestCase):
    """
    Tests with the Redis in memory.
    """

    settings = {"namespace": "n:"}

    def result(self, answer: Deferred[Any]) -> Any:
        self.flush()
        return self.successResultOf(answer)

    def test_combined(self) -> None:
        """
        Sorted sets are combined and stored.
        """
        pool, result = self.pool, self.result
        result(pool.zadd("a", {"x": 1, "y": 2}))
        result(pool.zadd("b", {"y": 3, "z": 4}))
        self.assertEqual(result(pool.zunion(["a", "b"], withscores=True)), [(b"x", 1.0), (b"z", 4.0), (b"y", 5.0)])
        self.assertEqual(result(pool.zinter({"a": 2, "b": 1}, withscores=True)), [(b"y", 7.0)])
        self.assertEqual(result(pool.zdiff(["a", "b"])), [b"x"])
        self.assertEqual(result(pool.zunionstore("c", ["a", "b"], "MIN")), 3)
        self.assertEqual(result(pool.zinterstore("c", ["a", "b"])), 1)
        self.assertEqual(result(pool.zdiffstore("c", ["a", "b"])), 1)
        self.assertEqual(result(pool.zrangestore("c", "a", 0, -1)), 2)
        self.assertEqual(result(pool.zadd("a", {"x": 5}, incr=True)), 6.0)
        self.assertIsNone(result(pool.zadd("a", {"x": 1}, incr=True, nx=True)))
        self.assertEqual(result(pool.zmpop(2, ["none", "a"], max=True)), (b"a", [(b"x", 6.0)]))
        self.assertIsNone(result(pool.zmpop(1, ["none"], min=True)))
        self.assertEqual(result(pool.zrandmember("a", 5, withscores=True)), [(b"y", 2.0)])
        result(pool.zadd("l", dict.fromkeys("abcd", 0)))
        self.assertEqual(result(pool.zrangebylex("l", "[b", "(d")), [b"b", b"c"])
        self.assertEqual(result(pool.zrevrangebylex("l", "+", "-", num=1)), [b"d"])
        self.assertEqual([result(pool.zlexcount("l", "-", "[b")), result(pool.zremrangebylex("l", "-", "[b"))], [2, 2])
        self.assertEqual(result(pool.zrevrangebyscore("b", "+inf", 4, withscores=True)), [(b"z", 4.0)])

    def test_waiting(self) -> None:
        """
        The commands that remove several elements wait for them, and give the keys without the namespace.
        """
        waiting: list[Deferred[Any]] = [
            self.pool.blmpop(0, 2, "l", "m", direction="LEFT", count=5),
            self.pool.bzmpop(0, 1, ["z"], min=True),
            self.pool.brpoplpush("s", "d"),
        ]
        self.flush()
        for answer in waiting:
            self.assertNoResult(answer)
        self.result(self.pool.rpush("m", "1", "2"))
        self.result(self.pool.zadd("z", {"a": 1}))
        self.result(self.pool.rpush("s", "x"))
        self.assertEqual([self.result(each) for each in waiting], [(b"m", [b"1", b"2"]), (b"z", [(b"a", 1.0)]), b"x"])

    def test_others(self) -> None:
        """
        The other commands for lists, sets, hashes and keys.
        """
        pool, result = self.pool, self.result
        result(pool.rpush("l", "a", "b", "a"))
        self.assertEqual([result(pool.lpos("l", "a", rank=-1)), result(pool.lpos("l", "a", count=0))], [2, [0, 2]])
        self.assertEqual(result(pool.lmpop(1, "l", direction="RIGHT")), (b"l", [b"a"]))
        result(pool.sadd("s", "a", "b"))
        self.assertEqual(result(pool.sintercard(2, ["s", "s"])), 2)
        self.assertTrue(result(pool.hmset("h", {"a": 1})))
        self.assertEqual(result(pool.hrandfield("h")), b"a")
        self.assertEqual(result(pool.hrandfield("h", 3, withvalues=True)), [(b"a", b"1")])
        result(pool.set("k", 1, exat=4102444800))
        self.assertEqual(result(pool.expiretime("k")), 4102444800)
        self.assertEqual(result(pool.pexpiretime("k")), 4102444800000)
        self.assertIn("RANDOMKEY", str(self.failureResultOf(pool.randomkey(), InvalidArgument).value).upper())
