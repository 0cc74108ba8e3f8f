# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.redis.commands} and the groups of commands: the words of each method, and the results of RESP2
and RESP3. C{tests/real/test_redis_pool.py} compares them with redis-py.
"""

from __future__ import annotations

import inspect
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.redis import InvalidArgument
from txconnpool.redis.base import Convert, Meanings
from txconnpool.redis.commands import RedisCommands
from txconnpool.redis.scripts import Script
from txconnpool.wire.redis.commands import RedisCommand


class Recorder(RedisCommands[bytes]):
    """
    Records requests, and gives the same reply to all.
    """

    def __init__(self, reply: bytes = b"+OK\r\n", encoding: str | None = None) -> None:
        self.words: list[bytes] = []
        self._reply = reply
        self._meanings = Meanings(encoding)

    def _send(self, command: RedisCommand, words: list[bytes], convert: Convert) -> Deferred[Any]:
        self.words = words
        return succeed(self._reply).addCallback(self._meanings.of(convert, command))


class CommandTests(SynchronousTestCase):
    """
    Tests for the methods.
    """

    def test_words(self) -> None:
        """
        The options of the methods are those of the commands.
        """
        recorder = Recorder(b"$-1\r\n")
        for name, positional, options, words in (
            ("set", ("k", 1), {"ex": 5, "nx": True, "get": True}, "SET k 1 EX 5 NX GET"),
            ("set", ("k", 1), {"ex": 0.5}, "SET k 1 PX 500"),
            ("set", ("k", 1), {"pxat": 7, "xx": True}, "SET k 1 PXAT 7 XX"),
            ("set", ("k", 1), {"keepttl": True}, "SET k 1 KEEPTTL"),
            ("getex", ("k",), {"exat": 9}, "GETEX k EXAT 9"),
            ("expire", ("k", 5), {"nx": True}, "EXPIRE k 5 NX"),
            ("pexpireat", ("k", 5), {"lt": True}, "PEXPIREAT k 5 LT"),
            ("copy", ("a", "b"), {"replace": True}, "COPY a b REPLACE"),
            ("restore", ("k", 0, b"x"), {"replace": True}, "RESTORE k 0 x REPLACE"),
            ("mget", (["a", "b"], "c"), {}, "MGET a b c"),
            ("flushdb", (), {"asynchronous": True}, "FLUSHDB ASYNC"),
            ("hset", ("h", "a", 1), {"mapping": {"b": 2}}, "HSET h a 1 b 2"),
            ("lpop", ("l", 3), {}, "LPOP l 3"),
            ("zadd", ("z", {"a": 1.5}), {"gt": True, "ch": True}, "ZADD z GT CH 1.5 a"),
            ("zrange", ("z", "(1", "5"), {"byscore": True, "desc": True, "offset": 1, "num": 2},
             "ZRANGE z (1 5 BYSCORE REV LIMIT 1 2"),
            ("zrangebyscore", ("z", 1, 5), {"start": 1}, "ZRANGEBYSCORE z 1 5 LIMIT 1 -1"),
            ("eval", ("return 1", 1, "k", "v"), {}, "EVAL|return 1|1|k|v"),
            ("script_exists", ("a", "b"), {}, "SCRIPT EXISTS a b"),
        ):  # fmt: skip
            getattr(recorder, name)(*positional, **options).addErrback(lambda _: None)
            self.assertEqual(recorder.words, words.encode().split(b"|" if "|" in words else b" "), name)

    def test_invalid(self) -> None:
        """
        Arguments that no server accepts are errors, and nothing is sent.
        """
        recorder = Recorder()
        for answer in (
            recorder.set("k", 1, ex=5, px=5),
            recorder.set("k", None),  # type: ignore[arg-type]
            recorder.getex("k", ex=1, persist=True),
            recorder.delete(),
            recorder.mget([]),
            recorder.hset("h"),
            recorder.hset("h", "a"),
            recorder.bitcount("k", 1),
        ):
            self.failureResultOf(answer, InvalidArgument)
        self.assertEqual(recorder.words, [])

    def test_listsAndMappings(self) -> None:
        """
        A text is no list, and what is no mapping is refused by the name of the argument; nothing is sent.
        """
        recorder: Any = Recorder()
        for answer, name in (
            (recorder.zadd("z", 1, "a"), "mapping"),
            (recorder.hset("h", mapping=[("a", 1)]), "mapping"),
            (recorder.hmset("h", "a"), "mapping"),
            (recorder.mset("a"), "mapping"),
            (recorder.msetnx(["a", 1]), "mapping"),
            (recorder.xadd("s", "a"), "fields"),
            (recorder.xread("s"), "streams"),
            (recorder.xreadgroup("g", "c", ["s"]), "streams"),
            (recorder.xclaim("s", "g", "c", 0, b"1-1"), "message_ids"),
            (recorder.zmscore("z", "abc"), "members"),
            (recorder.geoadd("g", "abc"), "values"),
            (recorder.mget(5), "keys"),
            (recorder.zunion(5), "keys"),
            (Deferred.fromCoroutine(Script(recorder, "return 1")("abc")), "keys"),
            (Deferred.fromCoroutine(Script(recorder, "return 1")(args=b"abc")), "args"),
        ):
            self.assertIn(f"{name} must be a", str(self.failureResultOf(answer, InvalidArgument).value))
        self.assertEqual(recorder.words, [])

    def test_versions(self) -> None:
        """
        The results of RESP2 and RESP3 are the same.
        """
        for name, arguments, replies, result in (
            ("hgetall", ("h",), (b"*2\r\n+a\r\n+1\r\n", b"%1\r\n+a\r\n+1\r\n"), {b"a": b"1"}),
            ("smembers", ("s",), (b"*1\r\n+a\r\n", b"~1\r\n+a\r\n"), {b"a"}),
            ("zscore", ("z", "a"), (b"$3\r\n1.5\r\n", b",1.5\r\n"), 1.5),
            ("zscore", ("z", "a"), (b"$-1\r\n", b"_\r\n"), None),
            ("zpopmin", ("z",), (b"*2\r\n+a\r\n+1\r\n", b"*1\r\n*2\r\n+a\r\n,1\r\n"), [(b"a", 1.0)]),
            ("zpopmin", ("z",), (b"*0\r\n", b"*0\r\n"), []),
            ("bzpopmin", ("z",), (b"*3\r\n+z\r\n+a\r\n+1\r\n", b"*3\r\n+z\r\n+a\r\n,1\r\n"), (b"z", b"a", 1.0)),
            ("blpop", ("l",), (b"*-1\r\n", b"_\r\n"), None),
            ("set", ("k", "v"), (b"$-1\r\n", b"_\r\n"), False),
            ("expire", ("k", 1), (b":1\r\n", b"#t\r\n"), True),
            ("hscan", ("h",), (b"*2\r\n+0\r\n*2\r\n+a\r\n+1\r\n",), (0, {b"a": b"1"})),
            ("zscan", ("z",), (b"*2\r\n+7\r\n*2\r\n+a\r\n+1\r\n",), (7, [(b"a", 1.0)])),
            ("info", (), (b"$19\r\n# A\r\na:1\r\nb:2:3\r\n\r\n\r\n", b"=23\r\ntxt:# A\r\na:1\r\nb:2:3\r\n\r\n\r\n"),
             {"a": "1", "b": "2:3"}),
            ("time", (), (b"*2\r\n+5\r\n+6\r\n",), (5, 6)),
        ):  # fmt: skip
            for reply in replies:
                answer = getattr(Recorder(reply), name)(*arguments)
                self.assertEqual(self.successResultOf(answer), result, (name, reply))

    def test_decoded(self) -> None:
        """
        Numbers and names are found in text too.
        """
        self.assertEqual(self.successResultOf(Recorder(b"$3\r\n1.5\r\n", "utf-8").zscore("z", "a")), 1.5)
        self.assertEqual(self.successResultOf(Recorder(b"+abc\r\n", "utf-8").script_load("x")), "abc")
        self.assertEqual(self.successResultOf(Recorder(b"$3\r\na:1\r\n", "utf-8").info()), {"a": "1"})

    def test_conversions(self) -> None:
        """
        The functions that make results are kept, so no method may make new ones for each call.
        """
        recorder = Recorder(b"*0\r\n")
        for _ in range(3):
            for name, method in inspect.getmembers(RedisCommands, inspect.isfunction):
                if not name.startswith("_") and not name.endswith("_iter"):
                    needed = [
                        each
                        for each in list(inspect.signature(method).parameters.values())[1:]
                        if each.default is each.empty and each.kind is not each.VAR_POSITIONAL
                    ]
                    values: list[Any] = [{"a": 1} if "Mapping[" in str(each.annotation) else "1" for each in needed]
                    given = list(zip(needed, values, strict=True))
                    arguments = [value for each, value in given if each.kind is not each.KEYWORD_ONLY]
                    options = {each.name: value for each, value in given if each.kind is each.KEYWORD_ONLY}
                    getattr(recorder, name)(*arguments, **options).addErrback(lambda _: None)
        self.assertLess(len(recorder._meanings._made), 30)
