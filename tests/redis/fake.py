# Copyright txconnpool contributors. See LICENSE.
"""
A small Redis in memory, and test cases with a client of it.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from hashlib import sha1
from math import inf
from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txconnpool.pool.decisions.health import FLAP
from txconnpool.redis import RedisPool
from txconnpool.testing import FakeServer, SteppingClock, finish
from txconnpool.wire.redis.framing import Scanner, wordsOf

WRONG_TYPE = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
NOT_INTEGER = b"-ERR value is not an integer or out of range\r\n"
OK = b"+OK\r\n"


class Refusal(Exception):
    """
    An error reply.
    """


def encoded(value: Any) -> bytes:
    """
    @return: the reply with a value.
    """
    if isinstance(value, int):
        return b":%d\r\n" % value
    if value is None:
        return b"_\r\n"
    if isinstance(value, dict):
        return b"%%%d\r\n" % len(value) + b"".join(map(encoded, [each for pair in value.items() for each in pair]))
    if isinstance(value, list | tuple):
        return b"*%d\r\n" % len(value) + b"".join(map(encoded, value))
    if isinstance(value, set):
        return b"~%d\r\n" % len(value) + b"".join(map(encoded, sorted(value)))
    return b"$%d\r\n%b\r\n" % (len(value), value)


class Data:
    """
    The data of a server, and its subscribers.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        self.items: dict[bytes, Any] = {}
        self.ends: dict[bytes, float] = {}
        self.versions: dict[bytes, int] = {}
        self.scripts: dict[bytes, Callable[..., Any]] = {}
        self.clients: list[FakeRedis] = []
        self.blocked: list[tuple[FakeRedis, list[bytes], float]] = []

    def find(self, key: bytes, kind: type, make: bool = False) -> Any:
        """
        @return: the value of a key, or an empty one.
        """
        if self.ends.get(key, inf) <= self.seconds():
            self.items.pop(key, None)
            del self.ends[key]
        value = self.items.get(key)
        if value is None:
            value = kind()
            if make:
                self.items[key] = value
        if not isinstance(value, kind):
            raise Refusal(WRONG_TYPE)
        if make:
            self.versions[key] = self.versions.get(key, 0) + 1
        return value


class FakeRedis(Protocol):
    """
    The server's end of one connection.
    """

    transport: Any

    def __init__(self, data: Data) -> None:
        self.data = data
        self.buffer = b""
        self.queue: list[list[bytes]] | None = None
        self.watched: dict[bytes, int] = {}
        self.channels: set[bytes] = set()
        self.patterns: set[bytes] = set()

    def connectionMade(self) -> None:
        self.data.clients.append(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.data.clients.remove(self)
        self.data.blocked = [each for each in self.data.blocked if each[0] is not self]

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        while self.buffer and (end := Scanner(1 << 26).scan(self.buffer, 0)):
            words = wordsOf(self.buffer, 0)
            self.buffer = self.buffer[end:]
            self.transport.write(self.execute(words))
            self.serveBlocked()

    def execute(self, words: list[bytes]) -> bytes:
        name = words[0].lower().decode()
        method = getattr(self, f"do_{name}", None)
        if self.queue is not None and name not in ("exec", "discard"):
            self.queue.append(words)
            return b"+QUEUED\r\n"
        if method is None:
            return b"-ERR unknown command '%b'\r\n" % words[0]
        try:
            reply = method(*words[1:])
        except Refusal as error:
            return error.args[0]  # type: ignore[no-any-return]
        return reply.data if isinstance(reply, Raw) else encoded(reply)

    def serveBlocked(self) -> None:
        for each in list(self.data.blocked):
            client, keys, _ = each
            for key in keys:
                items = self.data.find(key, list)
                if items:
                    self.data.blocked.remove(each)
                    client.transport.write(encoded([key, items.pop(0)]))
                    break

    # -- Connections

    def do_ping(self) -> Any:
        return Raw(b"+PONG\r\n")

    def do_info(self, *sections: bytes) -> Any:
        return b"# Server\r\nredis_version:7.0.15\r\n"

    def do_hello(self, version: bytes) -> Any:
        return {b"proto": int(version)}

    def do_multi(self) -> Any:
        self.queue = []
        return Raw(OK)

    def do_exec(self) -> Any:
        queue, self.queue = self.queue or [], None
        watched, self.watched = self.watched, {}
        if any(self.data.versions.get(key, 0) != version for key, version in watched.items()):
            return None
        return Raw(b"*%d\r\n" % len(queue) + b"".join(map(self.execute, queue)))

    def do_watch(self, *keys: bytes) -> Any:
        self.watched.update((key, self.data.versions.get(key, 0)) for key in keys)
        return Raw(OK)

    def do_unwatch(self) -> Any:
        self.watched = {}
        return Raw(OK)

    def confirm(self, kind: bytes, names: tuple[bytes, ...], known: set[bytes]) -> Any:
        data = b""
        for name in names:
            known.add(name)
            data += b">3\r\n" + b"".join(map(encoded, [kind, name, len(self.channels) + len(self.patterns)]))
        return Raw(data)

    def do_subscribe(self, *names: bytes) -> Any:
        return self.confirm(b"subscribe", names, self.channels)

    def do_psubscribe(self, *names: bytes) -> Any:
        return self.confirm(b"psubscribe", names, self.patterns)

    def do_publish(self, channel: bytes, message: bytes) -> Any:
        count = 0
        for client in self.data.clients:
            sent = [[b"message", channel, message]] if channel in client.channels else []
            sent += [
                [b"pmessage", each, channel, message]
                for each in client.patterns
                if fnmatchcase(channel.decode(), each.decode())
            ]
            for frame in sent:
                client.transport.write(b">" + encoded(frame)[1:])
            count += len(sent)
        return count

    # -- Data

    def do_get(self, key: bytes) -> Any:
        return self.data.find(key, bytes) or None

    def do_mget(self, *keys: bytes) -> Any:
        return [self.do_get(key) for key in keys]

    def do_set(self, key: bytes, value: bytes, *options: bytes) -> Any:
        if b"NX" in options and self.data.find(key, object) and key in self.data.items:
            return None
        self.data.find(key, object, True)
        self.data.items[key] = value
        for word, unit in ((b"EX", 1.0), (b"PX", 0.001)):
            if word in options:
                self.data.ends[key] = self.data.seconds() + int(options[options.index(word) + 1]) * unit
        return Raw(OK)

    def do_incrby(self, key: bytes, amount: bytes) -> Any:
        text = self.data.find(key, bytes, True) or b"0"
        if not text.lstrip(b"-").isdigit():
            raise Refusal(NOT_INTEGER)
        self.data.items[key] = b"%d" % (int(text) + int(amount))
        return int(self.data.items[key])

    def do_del(self, *keys: bytes) -> Any:
        return sum(self.data.items.pop(key, None) is not None for key in keys)

    def do_pttl(self, key: bytes) -> Any:
        self.data.find(key, object)
        return round((self.data.ends[key] - self.data.seconds()) * 1000) if key in self.data.ends else -1

    def do_hset(self, key: bytes, *words: bytes) -> Any:
        fields = self.data.find(key, dict, True)
        before = len(fields)
        fields.update(zip(words[::2], words[1::2], strict=True))
        return len(fields) - before

    def do_hgetall(self, key: bytes) -> Any:
        return self.data.find(key, dict)

    def do_rpush(self, key: bytes, *values: bytes) -> Any:
        items = self.data.find(key, list, True)
        items.extend(values)
        return len(items)

    def do_lrange(self, key: bytes, start: bytes, end: bytes) -> Any:
        items = self.data.find(key, list)
        return items[int(start) : (int(end) + 1) or len(items)]

    def do_blpop(self, *words: bytes) -> Any:
        self.data.blocked.append((self, list(words[:-1]), float(words[-1])))
        return Raw(b"")

    def do_sadd(self, key: bytes, *values: bytes) -> Any:
        members = self.data.find(key, set, True)
        before = len(members)
        members.update(values)
        return len(members) - before

    def do_smembers(self, key: bytes) -> Any:
        return self.data.find(key, set)

    def do_scan(self, at: bytes, *options: bytes) -> Any:
        pattern = options[options.index(b"MATCH") + 1].decode() if b"MATCH" in options else "*"
        keys = sorted(key for key in self.data.items if fnmatchcase(key.decode(), pattern))
        first = int(at)
        return [b"%d" % (first + 2 if first + 2 < len(keys) else 0), keys[first : first + 2]]

    # -- Scripts, which are functions of the test

    def run(self, script: Callable[..., Any], count: bytes, words: tuple[bytes, ...]) -> Any:
        size = int(count)
        return script(self.data, words[:size], words[size:])

    def do_eval(self, text: bytes, count: bytes, *words: bytes) -> Any:
        sha = sha1(text).hexdigest().encode()
        self.data.scripts.setdefault(sha, _compareAndDelete)
        return self.run(self.data.scripts[sha], count, words)

    def do_evalsha(self, sha: bytes, count: bytes, *words: bytes) -> Any:
        if sha not in self.data.scripts:
            raise Refusal(b"-NOSCRIPT No matching script. Please use EVAL.\r\n")
        return self.run(self.data.scripts[sha], count, words)


def _compareAndDelete(data: Data, keys: tuple[bytes, ...], arguments: tuple[bytes, ...]) -> int:
    if data.find(keys[0], bytes) != arguments[0]:
        return 0
    del data.items[keys[0]]
    return 1


class Raw:
    """
    A reply in bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data


class RedisFactory(Factory):
    """
    Builds the server's ends of connections.
    """

    noisy = False

    def __init__(self, data: Data) -> None:
        self._data = data

    def buildProtocol(self, addr: object) -> FakeRedis:
        return FakeRedis(self._data)


class RedisTestCase(SynchronousTestCase):
    """
    A pool whose server is a small Redis in memory.
    """

    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        self.clock = SteppingClock()
        self.data = Data(self.clock.seconds)
        self.server = FakeServer(self.clock, RedisFactory(self.data))
        self.pools: list[RedisPool[Any]] = []
        self.pool: RedisPool[bytes] = self.makePool(**self.settings)
        self.addCleanup(self.finish)

    def finish(self) -> None:
        """
        Close all pools.
        """
        for pool in self.pools[1:]:
            pool.close()
        finish(self.pool)

    def makePool(self, **settings: Any) -> RedisPool[Any]:
        pool: RedisPool[Any] = RedisPool(self.server, reactor=self.clock, **settings)
        self.pools.append(pool)
        return pool

    def flush(self) -> None:
        """
        Run all events that are due.
        """
        self.clock.advance(0)

    def lose(self) -> None:
        """
        Lose all connections after they have lived long enough for it not to count as a failed dial.
        """
        self.clock.advance(FLAP)
        self.server.reset()
        self.flush()
