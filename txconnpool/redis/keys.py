# -*- test-case-name: tests.redis.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands for keys of any type, for strings, and for the server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail

from txconnpool.redis.arguments import Argument, Key, mappingOf
from txconnpool.redis.base import BaseCommands, V, flat, keysOf, number, okay, scanned
from txconnpool.redis.errors import InvalidArgument


def expiry(
    ex: float | None = None,
    px: int | None = None,
    exat: int | None = None,
    pxat: int | None = None,
    keepttl: bool = False,
    persist: bool = False,
) -> list[Any]:
    """
    @return: the words of an expiry time.

    @raise InvalidArgument: there are several.
    """
    given = [
        [word, value] for word, value in (("EX", ex), ("PX", px), ("EXAT", exat), ("PXAT", pxat)) if value is not None
    ]
    if isinstance(ex, float):
        given = [["PX", round(ex * 1000)], *given[1:]]
    given += [[word] for word, wanted in (("KEEPTTL", keepttl), ("PERSIST", persist)) if wanted]
    if len(given) > 1:
        raise InvalidArgument(f"only one of {', '.join(str(each[0]) for each in given)} can be given")
    return given[0] if given else []


class KeyCommands(BaseCommands[V]):
    """
    Commands for keys of any type.
    """

    def delete(self, *names: Key) -> Deferred[int]:
        """
        Delete keys.

        @return: fires with the number of those that existed.
        """
        return self._do("del", None, *names)

    def unlink(self, *names: Key) -> Deferred[int]:
        """
        Delete keys. The server frees their memory in the background.

        @return: fires with the number of those that existed.
        """
        return self._do("unlink", None, *names)

    def exists(self, *names: Key) -> Deferred[int]:
        """
        @return: fires with the number of keys that exist.
        """
        return self._do("exists", None, *names)

    def touch(self, *names: Key) -> Deferred[int]:
        """
        Note that keys are used.

        @return: fires with the number of those that exist.
        """
        return self._do("touch", None, *names)

    def type(self, name: Key) -> Deferred[V]:
        """
        @return: fires with the type of a key, such as C{b"string"}, or C{b"none"}.
        """
        return self._do("type", None, name)

    def expire(
        self, name: Key, time: int, nx: bool = False, xx: bool = False, gt: bool = False, lt: bool = False
    ) -> Deferred[bool]:
        """
        Let a key expire.

        @param time: in seconds from now.
        @param nx: only if it has no expiry time.
        @param xx: only if it has one.
        @param gt: only if it would expire later than before.
        @param lt: only if it would expire earlier than before.

        @return: fires with whether the expiry time was set.
        """
        return self._do("expire", bool, name, time, *_conditions(nx, xx, gt, lt))

    def pexpire(
        self, name: Key, time: int, nx: bool = False, xx: bool = False, gt: bool = False, lt: bool = False
    ) -> Deferred[bool]:
        """
        As L{expire}, in milliseconds.
        """
        return self._do("pexpire", bool, name, time, *_conditions(nx, xx, gt, lt))

    def expireat(
        self, name: Key, when: int, nx: bool = False, xx: bool = False, gt: bool = False, lt: bool = False
    ) -> Deferred[bool]:
        """
        As L{expire}, at a time in seconds since 1970.
        """
        return self._do("expireat", bool, name, when, *_conditions(nx, xx, gt, lt))

    def pexpireat(
        self, name: Key, when: int, nx: bool = False, xx: bool = False, gt: bool = False, lt: bool = False
    ) -> Deferred[bool]:
        """
        As L{expire}, at a time in milliseconds since 1970.
        """
        return self._do("pexpireat", bool, name, when, *_conditions(nx, xx, gt, lt))

    def persist(self, name: Key) -> Deferred[bool]:
        """
        Remove the expiry time of a key.

        @return: fires with whether it had one.
        """
        return self._do("persist", bool, name)

    def ttl(self, name: Key) -> Deferred[int]:
        """
        @return: fires with the seconds until a key expires; -1 if it does not; -2 if there is no such key.
        """
        return self._do("ttl", None, name)

    def pttl(self, name: Key) -> Deferred[int]:
        """
        As L{ttl}, in milliseconds.
        """
        return self._do("pttl", None, name)

    def expiretime(self, key: Key) -> Deferred[int]:
        """
        @return: fires with when a key expires, in seconds since 1970; -1 if it does not; -2 if there is no such key.
        """
        return self._do("expiretime", None, key)

    def pexpiretime(self, key: Key) -> Deferred[int]:
        """
        As L{expiretime}, in milliseconds.
        """
        return self._do("pexpiretime", None, key)

    def randomkey(self) -> Deferred[V | None]:
        """
        @return: fires with a random key; C{None} if there is none.
        """
        return self._do("randomkey", None)

    def rename(self, src: Key, dst: Key) -> Deferred[bool]:
        """
        Rename a key. Another one of that name is deleted.

        @return: fires with C{True}; fails with a L{ResponseError<txconnpool.redis.ResponseError>} if there is no such
            key.
        """
        return self._do("rename", okay, src, dst)

    def renamenx(self, src: Key, dst: Key) -> Deferred[bool]:
        """
        Rename a key, unless there is one of that name.

        @return: fires with whether it was renamed.
        """
        return self._do("renamenx", bool, src, dst)

    def copy(self, source: Key, destination: Key, replace: bool = False) -> Deferred[bool]:
        """
        Copy a key.

        @param replace: whether to delete another one of that name before.

        @return: fires with whether it was copied.
        """
        return self._do("copy", bool, source, destination, *(["REPLACE"] if replace else []))

    def dump(self, name: Key) -> Deferred[bytes | None]:
        """
        @return: fires with the serialized value of a key. This needs a pool without C{decode}.
        """
        return self._do("dump", None, name)

    def restore(self, name: Key, ttl: int, value: bytes, replace: bool = False) -> Deferred[bool]:
        """
        Create a key from a value of L{dump}.

        @param ttl: its expiry time in milliseconds from now; 0: none.
        """
        return self._do("restore", okay, name, ttl, value, *(["REPLACE"] if replace else []))

    def keys(self, pattern: Key = "*") -> Deferred[list[V]]:
        """
        Find keys. This stops the server while it looks at all of them: prefer L{scan_iter}.

        @param pattern: a glob-style pattern.
        """
        return self._do("keys", None, pattern).addCallback(self._bareAll)

    def scan(
        self, cursor: int = 0, match: Key | None = None, count: int | None = None, _type: str | None = None
    ) -> Deferred[tuple[int, list[V]]]:
        """
        Find keys, some at a time.

        @param cursor: 0, then what the last call has returned.
        @param match: a glob-style pattern.
        @param count: about how many keys to look at.
        @param _type: only keys of this type.

        @return: fires with the next cursor, which is 0 at the end, and with keys. A key may be found twice.
        """
        words = [*scanWords(match, count), *([] if _type is None else ["TYPE", _type])]
        found = self._do("scan", scanned, cursor, *words)
        return found.addCallback(lambda value: (value[0], self._bareAll(value[1])))

    async def scan_iter(
        self, match: Key | None = None, count: int | None = None, _type: str | None = None
    ) -> AsyncIterator[V]:
        """
        Iterate over keys, see L{scan}. A key may be found twice.
        """
        at = 0
        while True:
            at, keys = await self.scan(at, match, count, _type)
            for key in keys:
                yield key
            if not at:
                return


class StringCommands(BaseCommands[V]):
    """
    Commands for strings.
    """

    def get(self, name: Key) -> Deferred[V | None]:
        """
        @return: fires with the value of a key; C{None} if there is none.
        """
        return self._do("get", None, name)

    def set(
        self,
        name: Key,
        value: Argument,
        ex: float | None = None,
        px: int | None = None,
        nx: bool = False,
        xx: bool = False,
        keepttl: bool = False,
        get: bool = False,
        exat: int | None = None,
        pxat: int | None = None,
    ) -> Deferred[Any]:
        """
        Set a value.

        @param ex: the seconds until it expires.
        @param px: the milliseconds until it expires.
        @param nx: only if there is no such key.
        @param xx: only if there is one.
        @param keepttl: whether the key keeps its expiry time.
        @param get: whether to return the value before.
        @param exat: when it expires, in seconds since 1970.
        @param pxat: when it expires, in milliseconds since 1970.

        @return: fires with whether it was set; with C{get}, with the value before, or C{None}.
        """
        try:
            words = expiry(ex, px, exat, pxat, keepttl)
        except InvalidArgument as error:
            return fail(error)
        words += [word for word, wanted in (("NX", nx), ("XX", xx), ("GET", get)) if wanted]
        return self._do("set", None if get else okay, name, value, *words)

    def setex(self, name: Key, time: int, value: Argument) -> Deferred[bool]:
        """
        Set a value that expires after C{time} seconds.
        """
        return self._do("setex", okay, name, time, value)

    def psetex(self, name: Key, time_ms: int, value: Argument) -> Deferred[bool]:
        """
        Set a value that expires after C{time_ms} milliseconds.
        """
        return self._do("psetex", okay, name, time_ms, value)

    def setnx(self, name: Key, value: Argument) -> Deferred[bool]:
        """
        Set a value, unless there is one.

        @return: fires with whether it was set.
        """
        return self._do("setnx", bool, name, value)

    def getset(self, name: Key, value: Argument) -> Deferred[V | None]:
        """
        Set a value.

        @return: fires with the value before.
        """
        return self._do("getset", None, name, value)

    def getdel(self, name: Key) -> Deferred[V | None]:
        """
        Delete a value.

        @return: fires with the value.
        """
        return self._do("getdel", None, name)

    def getex(
        self,
        name: Key,
        ex: float | None = None,
        px: int | None = None,
        exat: int | None = None,
        pxat: int | None = None,
        persist: bool = False,
    ) -> Deferred[V | None]:
        """
        Get a value, and set its expiry time, see L{set}.

        @param persist: whether to remove its expiry time.
        """
        try:
            words = expiry(ex, px, exat, pxat, persist=persist)
        except InvalidArgument as error:
            return fail(error)
        return self._do("getex", None, name, *words)

    def mget(self, keys: Key | Iterable[Key], *args: Key) -> Deferred[list[V | None]]:
        """
        @return: fires with the values of keys, in their order.
        """
        return self._do("mget", None, *keysOf(keys, args))

    def mset(self, mapping: Mapping[Any, Argument]) -> Deferred[bool]:
        """
        Set several values.
        """
        return self._do("mset", okay, *flat(mappingOf("mapping", mapping).items()))

    def msetnx(self, mapping: Mapping[Any, Argument]) -> Deferred[bool]:
        """
        Set several values, unless one of the keys exists.

        @return: fires with whether they were set.
        """
        return self._do("msetnx", bool, *flat(mappingOf("mapping", mapping).items()))

    def append(self, key: Key, value: Argument) -> Deferred[int]:
        """
        Append to a value.

        @return: fires with its length.
        """
        return self._do("append", None, key, value)

    def strlen(self, name: Key) -> Deferred[int]:
        """
        @return: fires with the length of a value.
        """
        return self._do("strlen", None, name)

    def getrange(self, key: Key, start: int, end: int) -> Deferred[V]:
        """
        @return: fires with a part of a value, the byte at C{end} included.
        """
        return self._do("getrange", None, key, start, end)

    def setrange(self, name: Key, offset: int, value: Argument) -> Deferred[int]:
        """
        Overwrite a part of a value.

        @return: fires with the length of the value.
        """
        return self._do("setrange", None, name, offset, value)

    def incr(self, name: Key, amount: int = 1) -> Deferred[int]:
        """
        Add to a number.

        @return: fires with the sum.
        """
        return self._do("incrby", None, name, amount)

    def incrby(self, name: Key, amount: int = 1) -> Deferred[int]:
        """
        As L{incr}.
        """
        return self._do("incrby", None, name, amount)

    def decr(self, name: Key, amount: int = 1) -> Deferred[int]:
        """
        Subtract from a number.

        @return: fires with the difference.
        """
        return self._do("decrby", None, name, amount)

    def decrby(self, name: Key, amount: int = 1) -> Deferred[int]:
        """
        As L{decr}.
        """
        return self._do("decrby", None, name, amount)

    def incrbyfloat(self, name: Key, amount: float = 1.0) -> Deferred[float]:
        """
        Add to a number that may have a fraction.

        @return: fires with the sum.
        """
        return self._do("incrbyfloat", number, name, amount)

    def getbit(self, name: Key, offset: int) -> Deferred[int]:
        """
        @return: fires with a bit of a value.
        """
        return self._do("getbit", None, name, offset)

    def setbit(self, name: Key, offset: int, value: int) -> Deferred[int]:
        """
        Set a bit of a value.

        @return: fires with the bit before.
        """
        return self._do("setbit", None, name, offset, value)

    def bitcount(
        self, key: Key, start: int | None = None, end: int | None = None, mode: str | None = None
    ) -> Deferred[int]:
        """
        @param mode: C{"BIT"}: C{start} and C{end} are the numbers of bits, not bytes (Redis 7.0).

        @return: fires with the number of bits of a value, or of its bytes from C{start} to C{end}, that are 1.
        """
        if (start is None) != (end is None):
            return fail(InvalidArgument("start and end must be given together"))
        words = [] if start is None else [start, end, *([mode] if mode else [])]
        return self._do("bitcount", None, key, *words)

    def bitpos(
        self, key: Key, bit: int, start: int | None = None, end: int | None = None, mode: str | None = None
    ) -> Deferred[int]:
        """
        Find the first bit that is C{bit}.

        @param start: the first byte to look at.
        @param end: the last one.
        @param mode: C{"BIT"}: they are the numbers of bits (Redis 7.0).

        @return: fires with its position; -1 if there is none.
        """
        if start is None and end is not None:
            return fail(InvalidArgument("end needs a start"))
        words = [each for each in (start, end, mode) if each is not None]
        return self._do("bitpos", None, key, bit, *words)

    def bitop(self, operation: str, dest: Key, *keys: Key) -> Deferred[int]:
        """
        Store the C{"AND"}, C{"OR"}, C{"XOR"} or C{"NOT"} of values.

        @return: fires with the length of the result.
        """
        return self._do("bitop", None, operation, dest, *keys)

    def bitfield(self, key: Key, *words: Argument) -> Deferred[list[int | None]]:
        """
        Read and change integers of any width in a value.

        @param words: the words of the command: C{"SET", "u8", 0, 255, "INCRBY", "i5", 100, 1}.

        @return: fires with a result for each operation.
        """
        return self._do("bitfield", None, key, *words)


class ServerCommands(BaseCommands[V]):
    """
    Commands for a server, and for its channels.
    """

    def ping(self) -> Deferred[bool]:
        """
        @return: fires with C{True} if the server replies.
        """
        return self._do("ping", okay)

    def echo(self, value: Argument) -> Deferred[V]:
        """
        @return: fires with C{value}.
        """
        return self._do("echo", None, value)

    def publish(self, channel: Key, message: Argument) -> Deferred[int]:
        """
        Send a message to the subscribers of a channel. The C{namespace} is not put before channels.

        @return: fires with the number of those that were sent the message.
        """
        return self._do("publish", None, channel, message)

    def spublish(self, shard_channel: Key, message: Argument) -> Deferred[int]:
        """
        Send a message to the subscribers of a sharded channel (Redis 7.0). The C{namespace} is not put before channels.

        @return: fires with the number of those that were sent the message.
        """
        return self._do("spublish", None, shard_channel, message)

    def dbsize(self) -> Deferred[int]:
        """
        @return: fires with the number of keys.
        """
        return self._do("dbsize", None)

    def flushdb(self, asynchronous: bool = False) -> Deferred[bool]:
        """
        Delete all keys of the database, those without the C{namespace} too.

        @param asynchronous: whether the server frees their memory in the background.
        """
        return self._do("flushdb", okay, *(["ASYNC"] if asynchronous else []))

    def info(self, *sections: str) -> Deferred[dict[str, str]]:
        """
        @return: fires with what the server reports about itself, by name.
        """
        return self._do("info", _info, *sections)

    def time(self) -> Deferred[tuple[int, int]]:
        """
        @return: fires with the time of the server, in seconds since 1970 and microseconds.
        """
        return self._do("time", _time)


def scanWords(match: Key | None, count: int | None) -> list[Any]:
    """
    @return: the words of the options of a scan.
    """
    return [*([] if match is None else ["MATCH", match]), *([] if count is None else ["COUNT", count])]


def _conditions(nx: bool, xx: bool, gt: bool, lt: bool) -> list[str]:
    return [word for word, wanted in (("NX", nx), ("XX", xx), ("GT", gt), ("LT", lt)) if wanted]


def _info(value: Any) -> dict[str, str]:
    text = value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: rest for name, colon, rest in lines if colon}


def _time(value: Any) -> tuple[int, int]:
    return int(value[0]), int(value[1])
