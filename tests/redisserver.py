# -*- test-case-name: tests.proxy.test_placing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A fake Redis for tests of the proxy. It knows a few commands, and the test decides when the replies arrive.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from tests.memcached import QueuedLine
from tests.pipes import Endpoint
from txconnpool.wire.redis.framing import Scanner, wordsOf


def bulk(value: bytes | None) -> bytes:
    """
    @return: a string, or a null.
    """
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


class RedisLine(QueuedLine):
    """
    A connection.

    @ivar server: its server.
    @ivar transaction: the requests of its transaction, or C{None}.
    """

    server: RedisServer

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.transaction: list[list[bytes]] | None = None
        self._database = b"0"
        self._version = b"2"
        self._user = b"default"
        self._channels: dict[bytes, None] = {}

    def look(self) -> None:
        """
        Execute the received requests and prepare their replies.
        """
        self._unparsed += self.take()
        while self._unparsed:
            end = Scanner(1 << 20).scan(self._unparsed, 0)
            if not end:
                return
            words = wordsOf(self._unparsed, 0)
            self._unparsed = self._unparsed[end:]
            self.asked.append(b" ".join(words))
            self.owed += self._answer([words[0].upper(), *words[1:]])

    def _answer(self, words: list[bytes]) -> bytes:
        if self.transaction is not None and words[0] not in (b"EXEC", b"DISCARD"):
            self.transaction.append(words)
            return b"+QUEUED\r\n"
        return self._execute(words)

    def _execute(self, words: list[bytes]) -> bytes:
        name, *rest = words
        if self.server.guarded and self._user == b"default" and name not in (b"AUTH", b"RESET"):
            refused = "HELLO must be called with the client already authenticated" if name == b"HELLO" else ""
            return b"-NOAUTH %b\r\n" % (refused or "Authentication required.").encode()
        data = self.server.data.setdefault(self._database, {})
        if name in self.server.failing:
            return b"-OOM no memory\r\n"
        if self.server.declining and name in (b"SET", b"MSET", b"GET", b"MGET", b"DEL"):
            self.server.declining -= 1
            return self.server.declination
        if name == b"PING":
            return b"+PONG\r\n"
        if name in (b"WATCH", b"UNWATCH"):
            return b"+OK\r\n"
        if name == b"MULTI":
            self.transaction = []
        elif name == b"DISCARD":
            self.transaction = None
        elif name == b"EXEC":
            queued, self.transaction = self.transaction or [], None
            return b"*%d\r\n" % len(queued) + b"".join(map(self._execute, queued))
        elif name == b"SELECT":
            if int(rest[0]) >= self.server.databases:
                return b"-ERR DB index is out of range\r\n"
            self._database = rest[0]
        elif name == b"RESET":
            self._database, self.transaction, self._version, self._user = b"0", None, b"2", b"default"
            self._channels.clear()
            return b"+RESET\r\n"
        elif name in (b"SET", b"MSET"):
            data.update(zip(rest[::2], rest[1::2], strict=True))
        elif name == b"INFO":
            text = b"redis_version:7.0.15\r\n"
            return bulk(text) if self._version == b"2" else b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text)
        elif name == b"COMMAND":
            return self.server.descriptions.get(rest[1], b"*1\r\n*-1\r\n")
        elif name == b"AUTH":
            if tuple(rest) not in self.server.logins:
                return b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
            self._user = rest[0]
        elif name == b"GET" and rest == [b"user"]:
            return bulk(self._user)
        elif name in (b"GET", b"X.GET"):
            return bulk(data.get(rest[0]))
        elif name == b"MGET":
            return b"*%d\r\n" % len(rest) + b"".join(bulk(data.get(key)) for key in rest)
        elif name == b"DEL":
            return b":%d\r\n" % sum(data.pop(key, None) is not None for key in rest)
        elif name == b"DBSIZE":
            return b":%d\r\n" % len(data)
        elif name == b"SCAN":
            return b"*2\r\n$1\r\n0\r\n*%d\r\n" % len(data) + b"".join(map(bulk, sorted(data)))
        elif name == b"BLPOP":
            return b"*-1\r\n"
        elif name == b"HELLO":
            self._version = rest[0]
            return b"%0\r\n"
        elif name.endswith(b"SUBSCRIBE"):
            return self._changeChannels(name.lower(), rest)
        elif name == b"PUBLISH":
            return b":%d\r\n" % sum(line.sendMessage(rest[0], rest[1]) for line in self.server.open)
        else:
            raise AssertionError(words)
        return b"+OK\r\n"

    def _changeChannels(self, name: bytes, channels: list[bytes]) -> bytes:
        if not self.server.hidden.isdisjoint(channels):
            return b"-NOPERM no channels\r\n"
        replies = []
        for channel in channels:
            if name in (b"subscribe", b"psubscribe"):
                self._channels[channel] = None
            else:
                self._channels.pop(channel, None)
            replies.append(self._frame(name, channel) + b":%d\r\n" % len(self._channels))
        return b"".join(replies)

    def _frame(self, *words: bytes) -> bytes:
        """
        @return: a frame whose last element is still to come.
        """
        mark = b">" if self._version == b"3" else b"*"
        return mark + b"%d\r\n" % (len(words) + 1) + b"".join(map(bulk, words))

    def sendMessage(self, channel: bytes, message: bytes) -> bool:
        """
        Send a message to the subscriber of a channel. A pattern ends with C{"*"}.

        @return: whether it is one.
        """
        if channel in self._channels:
            self.owed += self._frame(b"message", channel) + bulk(message)
        patterns = [each for each in self._channels if each.endswith(b"*") and channel.startswith(each[:-1])]
        for pattern in patterns:
            self.owed += self._frame(b"pmessage", pattern, channel) + bulk(message)
        return channel in self._channels or bool(patterns)


class RedisServer(Endpoint[RedisLine]):
    """
    A Redis.

    @ivar data: the values of each database.
    @ivar failing: the commands that get an error.
    @ivar descriptions: what it says about commands, by their names.
    @ivar declining: how many of the next requests for keys are declined.
    @ivar declination: the reply to these.
    @ivar hidden: the channels to which nobody may subscribe.
    @ivar databases: the number of its databases.
    @ivar logins: the users and passwords. A C{GET user} returns the user.
    @ivar guarded: whether it does nothing for clients that have not logged in.
    """

    kind = RedisLine

    def __init__(self, clock: Clock, name: str = "server") -> None:
        super().__init__(clock, name)
        self.data: dict[bytes, dict[bytes, bytes]] = {}
        self.failing: set[bytes] = set()
        self.descriptions: dict[bytes, bytes] = {}
        self.hidden: set[bytes] = set()
        self.databases = 16
        self.logins: set[tuple[bytes, ...]] = set()
        self.guarded = False
        self.declining = 0
        self.declination = b"-LOADING Redis is loading the dataset in memory\r\n"

    def _connected(self, factory: Any) -> Any:
        protocol = super()._connected(factory)
        self.lines[-1].server = self
        return protocol
