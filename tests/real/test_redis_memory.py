# Copyright txconnpool contributors. See LICENSE.
"""
Compares the Redis of L{txconnpool.testing} with a real one: the same requests have the same replies.
"""

from __future__ import annotations

import socket
import time
from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.real.servers import Redis, connect, missing
from tests.redis.memory.requests import REQUESTS
from txconnpool.redis.memory.data import Data
from txconnpool.redis.memory.server import RedisConnection, RedisFactory
from txconnpool.wire.redis.framing import encode

#: Commands whose replies have no order, or whose maps have none.
UNORDERED = ("smembers", "sunion", "sinter", "sdiff", "sscan", "keys", "scan", "hgetall", "hkeys", "hvals", "hscan")

#: Requests: K is a key of any type, the keys s l h S z y have mostly one type; V is a value, F a field or member,
#: I an integer, N a number with a fraction, R a bound of scores, X one of members. Words in brackets may be left out.
TEMPLATES = """
get s; set s V; set s V [NX] [GET] [KEEPTTL]; set s V XX; set s V EXAT 4102444800 [GET]; set K V NX XX; setnx s V
getset s V; getdel s; getex s; getex s [PERSIST]; getex s EXAT 4102444800; mget s s K; mset s V s V; msetnx s V s V
append s V; strlen s; getrange s I I; setrange s P V; incr s; decr s; incrby s I; decrby s I; incrbyfloat s N; set s I
getbit s P; setbit s P 1; bitcount s; bitcount s I I [BIT]; set s N; get K; set K V FOO
del K; unlink K K; exists K K; touch K; type K; expireat K 4102444800 [NX] [XX]; expireat K 4102444900 [GT]
expireat K 4102444000 [LT]; expireat K 1; pexpireat K 4102444800123; expiretime K; pexpiretime K; persist K
rename K K; renamenx K K; copy K K [REPLACE]; keys *; keys [sl]*; keys ?; keys [^s]1; dbsize; ttl missing; pttl missing
randomkey extra; flushdb foo; echo V; scan 0 COUNT 1000; scan foo
hset h F V; hset h F V F V; hset h F; hmset h F V; hsetnx h F V; hget h F; hmget h F F; hgetall h; hdel h F F
hexists h F; hlen h; hkeys h; hvals h; hstrlen h F; hincrby h F I; hincrbyfloat h F N; hset h F I; hset h F N
hscan h 0; hscan h 0 MATCH a*; hrandfield missing 2; hrandfield missing; hget K F; hset K F V
lpush l V V; rpush l V; lpushx l V; rpushx l V; lpop l; rpop l; lpop l P; rpop l P; lpop l I; llen l; lrange l I I
lindex l I; lset l I V; lrem l I V; ltrim l I I; linsert l BEFORE V V; linsert l after V V; linsert l FOO V V
lpos l V; lpos l V RANK I; lpos l V COUNT P; lpos l V RANK -1 COUNT 0 MAXLEN 3; lmove l l LEFT RIGHT
lmove l K left left
rpoplpush l l; rpoplpush K l; lmpop 2 l l LEFT; lmpop 1 l RIGHT COUNT 2; lmpop 0 l LEFT; rpush K V; lrange K 0 -1
sadd S F F; srem S F; smembers S; scard S; sismember S F; smismember S F F; smove S S F; sunion S S; sinter S S
sdiff S S; sunionstore S S S; sinterstore S S S; sdiffstore S S S; sintercard 2 S S; sintercard 2 S S LIMIT 1
sscan S 0; spop missing; spop missing 2; srandmember missing -2; sadd K F; smembers K; sinter S K; smove S K F
zadd z N F; zadd z N F N F; zadd z [NX] [CH] N F; zadd z XX [CH] N F; zadd z GT [CH] N F; zadd z LT [INCR] N F
zadd z NX XX N F; zadd z GT LT N F; zadd z INCR N F; zadd z N; zincrby z N F; zrem z F F; zscore z F; zmscore z F F
zcard z; zcount z R R; zrank z F; zrevrank z F; zrange z I I; zrange z I I REV WITHSCORES; zrevrange z I I WITHSCORES
zrange z R R BYSCORE; zrange z R R BYSCORE REV LIMIT 1 2; zrange y X X BYLEX; zrange z I I LIMIT 1 2
zrangebyscore z R R [WITHSCORES]; zrangebyscore z R R LIMIT I I; zrevrangebyscore z R R WITHSCORES; zrangebylex y X X
zrevrangebylex y X X; zlexcount y X X; zremrangebyrank z I I; zremrangebyscore z R R; zpopmin z; zpopmax z P
zremrangebylex y X X
zadd y 0 F 0 F; zadd y 0 F
zmpop 2 z z MIN; zmpop 1 z MAX COUNT 2; zunion 2 z z [WITHSCORES]; zinter 2 z S WITHSCORES; zdiff 2 z S [WITHSCORES]
zunionstore z 2 z S WEIGHTS N N; zinterstore z 2 z z AGGREGATE MAX; zdiffstore z 2 z z; zrangestore z z I I
zscan z 0; zrandmember missing; zrandmember missing 2 WITHSCORES; zadd K N F; zrange K 0 -1
multi; exec; multi; exec; discard; watch K; unwatch; get; foo bar; select 99; client id x; blpop l; publish c V
""".replace("\n", ";").split(";")  # fmt: skip

#: Requests that a single table has, because they concern the connection.
SCRIPTED = [
    *("ping", "ping x", "echo x", "select 1", "dbsize", "select 0", "select x", "client setname a", "client getname"),
    *("hello 4", "hello 3 foo", "auth x", "auth default x", "exec", "discard", "multi", "multi", "get", "exec"),
    *("subscribe a b", "psubscribe p*", "get s", "ping", "unsubscribe a", "unsubscribe", "punsubscribe p*", "get s"),
    *("multi", "blpop none 0", "bzpopmin none 0", "blmove none none2 LEFT LEFT 0", "exec", "client foo", "eval"),
    *("evalsha x 0", "script exists x", "script load return", "watch s", "set s 1", "multi", "get s", "exec", "reset"),
    *("set s 10", "set s 1 EX 0", "set s 1 EX x", "setex s 0 1", "blpop s 0", "blpop none x", "blpop none -1"),
    *("set s 9223372036854775807", "incr s", "incrby s 1", "decrby s -9223372036854775808"),
    *("setex s 9223372036854775807 a", "brpoplpush L M 0"),
    *("bzpopmax z x", "rpush L a b", "blpop none L 0", "brpop L 1", "zadd Z 1 a 2 b", "bzpopmin none Z 0"),
    *("bzpopmax Z 0", "rpush L a b c", "blmpop 0 1 L LEFT COUNT 2", "zadd Z 1 a", "bzmpop 0 1 Z MIN"),
]  # fmt: skip


def parse(data: bytes, pos: int) -> tuple[Any, int]:
    """
    @return: a reply as a tree, and its end.
    """
    end = data.index(b"\r\n", pos)
    kind, line, pos = data[pos : pos + 1], data[pos + 1 : end], end + 2
    if kind in b"$=" and line != b"-1":
        return (kind, data[pos : pos + int(line)]), pos + int(line) + 2
    if kind in b"*~>%" and line != b"-1":
        items = []
        for _ in range(int(line) * (2 if kind == b"%" else 1)):
            item, pos = parse(data, pos)
            items.append(item)
        return (kind, items), pos
    return (kind, line), pos


def compared(words: list[bytes], reply: Any) -> Any:
    """
    @return: a reply in a form that does not depend on the order of sets.
    """
    kind, value = reply
    if isinstance(value, list) and words[0] == b"exec":
        return kind, [compared([b"keys"], each) for each in value]
    if isinstance(value, list) and words[0].decode() in UNORDERED:
        value = sorted(map(repr, [compared(words, each) for each in value]))
    return kind, value


class Fake:
    """
    A client of the Redis in memory.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = time.time()
        data = Data(self.clock.seconds)
        self.server: RedisConnection = RedisFactory(data, self.clock).buildProtocol(None)
        self.transport = StringTransport()
        self.server.makeConnection(self.transport)

    def ask(self, words: list[bytes]) -> bytes:
        """
        @return: all that the server sends.
        """
        self.transport.clear()
        self.server.dataReceived(encode(words))
        received: bytes = self.transport.value()
        return received


class RealClient:
    """
    A client of a real server.
    """

    def __init__(self, client: socket.socket) -> None:
        self.client = client

    def ask(self, requests: list[list[bytes]]) -> list[Any]:
        """
        @return: the reply to each of some requests.
        """
        self.client.sendall(b"".join(map(encode, requests)))
        return self.replies(len(requests))

    def replies(self, count: int) -> list[Any]:
        """
        @return: the next replies.
        """
        replies: list[Any] = []
        data, pos = b"", 0
        while len(replies) < count:
            try:
                reply, pos = parse(data, pos)
            except ValueError:
                data += self.client.recv(1 << 20)
            else:
                if len(data) < pos:
                    data += self.client.recv(1 << 20)
                replies.append(reply)
        return replies


class MemoryTests(SynchronousTestCase):
    """
    Tests with a real server.
    """

    skip = missing("redis-server")

    def setUp(self) -> None:
        """
        Start the server.
        """
        self.server = Redis().start()
        self.addCleanup(self.server.stop)

    def connect(self) -> socket.socket:
        """
        @return: a client of the real server.
        """
        client = connect(self.server.address, 30.0)
        self.addCleanup(client.close)
        return client

    def request(self, random: Random) -> list[bytes]:
        """
        @return: the words of a random request.
        """
        choices = {
            "s": ["s1", "s2", "s3"],
            "l": ["l1", "l2"],
            "h": ["h1", "h2"],
            "S": ["S1", "S2"],
            "z": ["z1", "z2"],
            "y": ["y1"],
            "K": ["s1", "s2", "l1", "h1", "S1", "z1", "k", "none"],
            "V": ["a", "b", "c", "10", "-3", "1.5", "", "x" * 70],
            "F": ["a", "b", "c", "d", "ab"],
            "I": ["0", "1", "2", "-1", "-2", "-5", "7", "x", "01"],
            "P": ["0", "1", "2", "3", "9"],
            "N": ["1", "2.5", "-1", "3e2", "0.25", "x", "inf", "-inf", "1.5"],
            "R": ["-inf", "+inf", "1", "(1", "2.5", "(300", "0", "x"],
            "X": ["-", "+", "[a", "(b", "[c", "x"],
        }
        words = []
        for word in random.choice(TEMPLATES).split():
            if word[0] == "[":
                if random.random() < 0.5:
                    words.append(word[1:-1])
            else:
                words.append(random.choice(choices.get(word, [word])))
        return [word.encode() for word in words]

    def compare(self, version: int, requests: list[list[bytes]]) -> None:
        """
        Send requests to both servers.
        """
        client, fake = self.connect(), Fake()
        real = RealClient(client)
        if version == 3:
            real.ask([[b"hello", b"3"]])
            fake.ask([b"hello", b"3"])
        replies = real.ask(requests)
        for at, (words, reply) in enumerate(zip(requests, replies, strict=True)):
            data = fake.ask(words)
            found, end = parse(data, 0)
            self.assertEqual(
                (end, compared(words, found)), (len(data), compared(words, reply)), requests[: at + 1][-9:]
            )

    def test_random(self) -> None:
        """
        Random requests have the same replies, in both versions of the protocol.
        """
        for version, seed in ((2, 0), (2, 1), (3, 0), (3, 2)):
            random = Random(seed)
            requests = [self.request(random) for _ in range(1500)]
            self.compare(version, [[b"flushall"], *[each for each in requests if each]])

    def test_table(self) -> None:
        """
        The requests of the unit tests have the same replies.
        """
        for version in (2, 3):
            for requests in REQUESTS.values():
                self.compare(version, [[b"flushall"], *[text.encode().split() for text, _ in requests]])

    def test_connections(self) -> None:
        """
        Requests that concern the connection have the same replies, several of them if the server sends several.
        """
        client, fake = self.connect(), Fake()
        real = RealClient(client)
        for text in SCRIPTED:
            words = text.encode().split()
            data = fake.ask(words)
            expected, pos = [], 0
            while pos < len(data):
                reply, pos = parse(data, pos)
                expected.append(reply)
            client.sendall(encode(words))
            self.assertEqual(real.replies(len(expected)), expected, text)
