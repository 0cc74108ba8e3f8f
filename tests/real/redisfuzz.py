# -*- test-case-name: tests.real.test_redis -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Random streams of requests, valid and broken, for the comparison of a Redis server and the proxy before it.
"""

from __future__ import annotations

import random
import re
import socket
import time

from tests.real.resp import request
from tests.real.servers import PATIENCE, Address, connect

_KEYS = [b"k%d" % number for number in range(6)] + [b"", b"{t}a", b"k\r\nx", b"\x00\xff"]
_VALUES = [b"", b"v", b"1", b"-7", b"x" * 3000, b"\r\n$-1\r\n", b"*3\r\n", b"12.5", bytes(range(256)), b"y" * 40000]

_FORMS = """
get K|set K V|set K V ex 7700000|set K V nx get|getset K V|getdel K|getex K|append K V|strlen K|setrange K 2 V
getrange K 0 4|incr K|incrby K V|incrbyfloat K V|decr K|mget K K K|mset K V K V|msetnx K V K V|del K|del K K
unlink K K|exists K K K|touch K K|type K|ttl K|pttl K|persist K|expire K 7700000|rename K K|renamenx K K|copy K K|dump K
object encoding K|lpush K V V|rpush K V|lpop K|lpop K 2|rpop K|llen K|lrange K 0 -1|lindex K 0|lset K 0 V
linsert K before V V|lmove K K left right|rpoplpush K K|lmpop 1 K left|lpos K V|ltrim K 0 3|hset K V V
hset K V V V V|hget K V|hmget K V V|hgetall K|hdel K V|hkeys K|hincrby K V 3|sadd K V V|srem K V|smembers K
sismember K V|smismember K V V|scard K|sinter K K|sunion K K|sdiffstore K K K|spop K 100|zadd K 1 V|zadd K 1.5 V 2 V
zscore K V|zmscore K V V|zrange K 0 -1|zrange K 0 -1 withscores|zpopmin K|zrank K V|zcount K -inf +inf
zunionstore K 2 K K|zunion 1 K withscores|zmpop 1 K min|setbit K 7 1|getbit K 7|bitcount K|bitop or K K K|pfadd K V
pfcount K K|geoadd K 13.3 38.1 V|geopos K V V|geodist K V V|eval V 0|eval return{1,'a',{3}} 0
eval return_redis.call('get',KEYS[1]) 1 K|eval return_redis.error_reply('MOVED_1_1.2.3.4:5') 0|evalsha abc 0
script exists abc|xadd K 1-1 V V|xlen K|xrange K - +|xread count 1 streams K 0|ping|ping V|echo V|ping V V|get|set K
foo|foo V V|client getname|client setname name|client setname V|client foo|client|select 0|select V|select 3
select 99|select -1|auth V|auth V V|auth default V|auth a b c|hello|hello 2|hello 3|hello 4|hello V
hello 3 setname x|hello 3 foo|hello 2 auth a b|reset|multi|exec|discard|watch K|unwatch|unsubscribe|unsubscribe V
punsubscribe|subscribe c1|subscribe c1 c1|psubscribe c*|ssubscribe s1|sunsubscribe|publish c1 V|publish nobody V
client reply on|client reply skip|client reply off|readonly|asking|blpop K 0.01|brpop K K 0.01
blmove K K left right 0.01|bzpopmin K 0.01|xread block 1 streams K $|blpop K foo|cluster info|cluster foo|object foo
flushdb|dbsize|exists K|time V|sort K|sort K by nosort|lcs K K|getdel K|config|memory usage absent|client id V
client tracking off|client list foo|client list type V|client list id foo|client kill foo|client kill foo bar
client kill id V|client kill type V|client kill user nobody|client kill addr 1.1.1.1:1|client kill id 999 skipme V
client list type master
""".strip()
FORMS = [form.split(" ") for line in _FORMS.splitlines() for form in line.split("|")]

_BROKEN = [
    b"*0\r\n", b"*-1\r\n", b"*-5\r\n", b"\r\n", b"\n", b"*abc\r\n", b"*\r\n", b"*+1\r\n", b"*01\r\n",
    b"*2147483648\r\n",
    b"*1\r\n$abc\r\n", b"*1\r\n$-1\r\n", b"*1\r\n$01\r\n", b"*1\r\n$ 1\r\n", b"*1\r\n$536870913\r\n", b"*1\r\n:1\r\n",
    b"*1\r\nPING\r\n", b"*1\r\n\n\r\n", b"get 'a'b\r\n", b'get "a\r\n', b'set k0 "a\\x41\\n"\r\n', b"get   k0  \r\n",
    b"ping\n", b"set ab\"c d\" 'x y'\r\n", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n", b"*1\r\n$5\r\nHost:\r\n",
    b"*1\r\n$0\r\n\r\n", b"quit\r\n", b"*1\r\n$4\r\nQUIT\r\n", b"*2\r\n$4\r\nquit\r\n$1\r\nx\r\n", b"*12\r\n",
]  # fmt: skip


def stream(chance: random.Random, length: int = 12) -> bytes:
    """
    @return: some requests.
    """
    parts = []
    inTransaction = isSilent = skips = isSubscribed = False
    for _ in range(chance.randint(1, length)):
        if chance.random() < 0.04 and not (isSilent or skips):
            parts.append(chance.choice(_BROKEN))
            continue
        form = chance.choice(FORMS)
        if inTransaction and (form[0] in _NOT_IN_TRANSACTIONS or form[0].endswith("subscribe")):
            continue
        if isSubscribed and (form[0] == "hello" or form[:2] == ["publish", "c1"]):
            continue
        isSubscribed = form[0] in _SUBSCRIBING or (isSubscribed and form[0] != "reset")
        # Then neither QUIT nor a request that is broken ends the connection, in Redis 7.0: always, or once.
        isSilent = isSilent or form == ["client", "reply", "off"]
        skips = form == ["client", "reply", "skip"]
        inTransaction = form[0] == "multi" or (inTransaction and form[0] not in ("exec", "discard", "reset"))
        words = [_word(chance, word) for word in form]
        if chance.random() < 0.3:
            words[0] = words[0].upper()
        # Whether the server accepts longer lines depends on how their bytes arrive.
        simple = sum(map(len, words)) < 1 << 15 and all(re.fullmatch(rb"[0-9A-Za-z.:{}()-]+", word) for word in words)
        parts.append(b" ".join(words) + b"\r\n" if simple and chance.random() < 0.1 else request(*words))
    return b"".join(parts)


#: Requests that the proxy refuses in a transaction: see the table of differences.
_NOT_IN_TRANSACTIONS = ("select", "hello", "auth", "client", "readonly", "asking", "cluster")


#: After these a client keeps the version of the protocol, and its own messages may come before or after the replies to
#: the requests that have sent them: see the table of differences.
_SUBSCRIBING = ("subscribe", "psubscribe", "ssubscribe")


def _word(chance: random.Random, word: str) -> bytes:
    if word == "K":
        return chance.choice(_KEYS)
    if word == "V":
        return chance.choice(_VALUES)
    return word.replace("_", " ").encode() if "_" in word and "redis" in word else word.encode()


def exchange(address: Address, data: bytes, chance: random.Random, timeout: float = PATIENCE) -> tuple[bytes, bool]:
    """
    Send a stream in pieces, then a request whose reply is the last one.

    @return: what was received, and whether the connection was closed.
    """
    end = request("ECHO", "*the end*")
    received, closed = b"", False
    with connect(address, timeout) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces(data, chance):
                client.sendall(piece)
            client.sendall(b"\r\n" + request("DISCARD") + request("RESET") + end)
        except OSError:
            closed = True
        deadline = time.monotonic() + timeout
        while not received.endswith(b"$9\r\n*the end*\r\n"):
            try:
                more = client.recv(1 << 16)
            except ConnectionResetError:
                more = b""
            except TimeoutError:
                raise TimeoutError(repr((address, data, received))) from None
            if not more:
                closed = True
                break
            received += more
            if time.monotonic() > deadline:
                raise TimeoutError(repr((data, received)))
    return received, closed


def pieces(data: bytes, chance: random.Random) -> list[bytes]:
    """
    @return: the data, split at up to three places.
    """
    places = sorted(chance.randint(0, len(data)) for _ in range(chance.randint(0, 3)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


#: The number of a client, and times to live in seconds and milliseconds, see L{_FORMS}.
_ID = re.compile(rb"(\$2\r\nid\r\n):\d+")
_LEFT = re.compile(rb":7[67]\d{5}(?:\d{3})?\r\n")


def normal(reply: bytes) -> bytes:
    """
    @return: a reply without what differs between two connections, or when time passes.
    """
    return _LEFT.sub(b":0\r\n", _ID.sub(rb"\1:0", reply))


def difference(data: bytes, server: tuple[bytes, bool], proxy: tuple[bytes, bool]) -> str:
    """
    @param data: what was sent.
    @param server: what L{exchange} has returned for the server.
    @param proxy: the same for the proxy.

    @return: how they differ, or an empty text.
    """
    mine, its = normal(proxy[0]), normal(server[0])
    if re.search(rb"(?i)(^|\n)(post|host:)[ \r]", data) and server[1] and proxy[1] and mine.startswith(its):
        return ""  # the server drops replies that it has not sent
    at = next((at for at, (a, b) in enumerate(zip(its, mine, strict=False)) if a != b), min(len(its), len(mine)))
    if mine == its and proxy[1] == server[1]:
        return ""
    start = max(0, at - 80)
    return f"server {its[start : at + 80]!r} closed {server[1]}, proxy {mine[start : at + 80]!r} closed {proxy[1]}"
