# -*- test-case-name: tests.redis.memory.test_data -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The data of an embedded Redis, the values of its replies, and the table of its commands.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha1
from random import Random
from typing import Any, Final

from txconnpool.wire.redis.answers import error

#: The commands by name, such as C{"get"} and C{"script|load"}: functions of the database and the arguments.
COMMANDS: Final[dict[str, Callable[..., Any]]] = {}

_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}").fullmatch
_FLOAT: Final = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*(?:e[+-]?[0-9]+)?|\.[0-9]+(?:e[+-]?[0-9]+)?|inf(?:inity)?)", re.I)
_INT64: Final = range(-(1 << 63), 1 << 63)


class ReplyError(Exception):
    """
    An error reply. Its text begins with a word such as C{ERR}.
    """


NOT_INTEGER: Final = "ERR value is not an integer or out of range"
NOT_FLOAT: Final = "ERR value is not a valid float"
SYNTAX: Final = "ERR syntax error"
WRONG_TYPE: Final = "WRONGTYPE Operation against a key holding the wrong kind of value"


class Status(bytes):
    """
    A status reply.
    """


class Pairs(list[Any]):
    """
    A list of pairs, which RESP2 has as a flat array.
    """


class Members(list[bytes]):
    """
    A set of RESP3. RESP2 has it as an array.
    """


class SortedSet(dict[bytes, float]):
    """
    The scores of the members of a sorted set.
    """

    def ordered(self) -> list[tuple[float, bytes]]:
        """
        @return: scores and members, in their order.
        """
        return sorted((score, member) for member, score in self.items())


OK: Final = Status(b"OK")

#: A null that RESP2 has as a null array.
NO_ARRAY: Final[Any] = type("NoArray", (), {})()

#: The result of an attempt of a L{Wait}: there is nothing yet.
NOTHING: Final[Any] = type("Nothing", (), {})()


@dataclass
class Wait:
    """
    What a blocking command returns if its client has to wait.

    @ivar attempt: tries to execute the command. It returns L{NOTHING} if the client has to wait on.
    @ivar timeout: the seconds to wait; 0: no limit.
    @ivar nothing: the reply after the timeout.
    """

    attempt: Callable[[], Any]
    timeout: float
    nothing: Any


def encoded(value: Any, version: int) -> bytes:
    """
    @param version: that of RESP.

    @return: the reply with a value.
    """
    if value is None or value is NO_ARRAY:
        return b"_\r\n" if version == 3 else b"$-1\r\n" if value is None else b"*-1\r\n"
    if isinstance(value, Status):
        return b"+%b\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, float):
        return b",%b\r\n" % decimal(value) if version == 3 else encoded(decimal(value), 2)
    if isinstance(value, dict):
        head = b"%%%d\r\n" % len(value) if version == 3 else b"*%d\r\n" % (2 * len(value))
        return head + b"".join([encoded(each, version) for pair in value.items() for each in pair])
    if isinstance(value, ReplyError):
        return error(str(value).encode("utf-8", "surrogateescape"))
    if isinstance(value, Pairs) and version == 2:
        value = [each for pair in value for each in pair]
    kind = b"~" if isinstance(value, Members) and version == 3 else b"*"
    return b"%b%d\r\n%b" % (kind, len(value), b"".join([encoded(each, version) for each in value]))


def command(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """
    Make a function a command.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        COMMANDS[name] = function
        return function

    return register


def integer(word: bytes, error: str = NOT_INTEGER) -> int:
    """
    @return: the number of a word.

    @raise ReplyError: it is none, or is too large.
    """
    if _INTEGER(word) is None or (number := int(word)) not in _INT64:
        raise ReplyError(error)
    return number


def natural(word: bytes, error: str = "ERR value is out of range, must be positive") -> int:
    """
    @return: the number of a word, which is not negative.
    """
    number = integer(word, error)
    if number < 0:
        raise ReplyError(error)
    return number


def floating(word: bytes, error: str = NOT_FLOAT) -> float:
    """
    @return: the number of a word, which may have a fraction.
    """
    if _FLOAT.fullmatch(word) is None:
        raise ReplyError(error)
    return float(word)


def decimal(number: float) -> bytes:
    """
    @return: the text of a score.
    """
    return b"%.17g" % number


def options(words: tuple[bytes, ...], flags: str = "", values: str = "") -> dict[str, Any]:
    """
    Read the options after the arguments of a command.

    @param flags: the names of those without a value.
    @param values: the names of those with a value.

    @return: their values, by name; C{True} for one without.

    @raise ReplyError: a word is no option.
    """
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        name = rest.pop(0).upper().decode("latin-1")
        if name in flags.split():
            found[name] = True
        elif name in values.split() and rest:
            found[name] = rest.pop(0)
        else:
            raise ReplyError(SYNTAX)
    return found


def pattern(glob: bytes) -> re.Pattern[bytes]:
    """
    @return: what matches the same as a glob-style pattern of Redis.
    """
    text, at = b"", 0
    while at < len(glob):
        found = re.compile(rb"\*+|\?|\\(.)|\[(\^?)((?:\\.|[^\]])*)\]", re.DOTALL).match(glob, at)
        if found is None:
            text += re.escape(glob[at : at + 1])
            at += 1
            continue
        at = found.end()
        if found[1] is not None:
            text += re.escape(found[1])
        elif found[3] is not None:
            text += b"[%b%b]" % (found[2], found[3].replace(b"[", rb"\[")) if found[3] else rb"(?!)"
        else:
            text += b"." if found[0] == b"?" else b".*"
    return re.compile(text, re.DOTALL)


class Database:
    """
    One database.

    @ivar items: the values by key: C{bytes} of a string, C{list}, C{dict} of a hash, C{set}, L{SortedSet}.
    @ivar ends: when keys expire, in milliseconds.
    @ivar versions: how often each key was changed.
    """

    def __init__(self, data: Data) -> None:
        self.data = data
        self.items: dict[bytes, Any] = {}
        self.ends: dict[bytes, int] = {}
        self.versions: defaultdict[bytes, int] = defaultdict(int)

    def look(self, key: bytes) -> Any:
        """
        @return: the value of a key of any type; C{None} if there is none, or if it has expired.
        """
        end = self.ends.get(key)
        # A real server removes it a millisecond later. So a test that lets just the time of a key pass finds it gone.
        if end is not None and end <= self.data.now():
            self.delete(key)
        return self.items.get(key)

    def find(self, key: bytes, kind: type) -> Any:
        """
        @return: the value of a key; C{None} if there is none.

        @raise ReplyError: it has another type.
        """
        value = self.look(key)
        if value is not None and type(value) is not kind:
            raise ReplyError(WRONG_TYPE)
        return value

    def make(self, key: bytes, kind: type) -> Any:
        """
        @return: the value of a key, which is created if there is none. L{changed} has to follow.
        """
        value = self.find(key, kind)
        return self.items.setdefault(key, kind()) if value is None else value

    def changed(self, key: bytes) -> None:
        """
        A value was changed. An empty one is removed, unless it is a string.
        """
        self.versions[key] += 1
        if not self.items[key] and type(self.items[key]) is not bytes:
            self._remove(key)

    def put(self, key: bytes, value: Any, keep: bool = False) -> None:
        """
        Set a value of any type.

        @param keep: whether the key keeps the time at which it expires.
        """
        self.items[key] = value
        if not keep:
            self.ends.pop(key, None)
        self.changed(key)

    def store(self, key: bytes, value: Any) -> int:
        """
        Set the value of a command that stores its result. An empty one deletes the key.

        @return: the number of its elements.
        """
        if value:
            self.put(key, value)
        elif self.look(key) is not None:
            self.delete(key)
        return len(value)

    def delete(self, key: bytes) -> bool:
        """
        @return: whether there was such a key.
        """
        if key not in self.items:
            return False
        self.versions[key] += 1
        self._remove(key)
        return True

    def _remove(self, key: bytes) -> None:
        del self.items[key]
        self.ends.pop(key, None)

    def live(self) -> list[bytes]:
        """
        @return: all keys.
        """
        return [key for key in list(self.items) if self.look(key) is not None]


class Data:
    """
    The data of a server::

        pool.server.data.items[b"greeting"] = b"hello"
        pool.server.data.addScript("return redis.call('GET', KEYS[1])", lambda call, keys, args: call("GET", keys[0]))

    @ivar seconds: returns the time of the server.
    @ivar databases: the databases, by number.
    @ivar passwords: the passwords by user. If there are any, clients have to log in. The user of C{requirepass} is
        C{default}.
    @ivar connections: the connections of clients.
    @ivar blocked: those whose clients wait, in the order in which they began to.
    @ivar known: the SHA-1 of the scripts that were loaded or executed.
    @ivar random: chooses what C{RANDOMKEY}, C{SPOP} and C{SRANDMEMBER} return; the same in each test.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        self.databases: defaultdict[int, Database] = defaultdict(lambda: Database(self))
        self.passwords: dict[str, str] = {}
        self.connections: list[Any] = []
        self.blocked: list[Any] = []
        self.scripts: dict[bytes, Callable[..., Any]] = {}
        self.known: set[bytes] = set()
        self.random = Random(0)

    @property
    def items(self) -> dict[bytes, Any]:
        """
        The values of database 0, by key, see L{Database.items}. Those that have expired may still be there.
        """
        return self.databases[0].items

    def now(self) -> int:
        """
        @return: the time in milliseconds.
        """
        return round(self.seconds() * 1000)

    def addScript(self, text: str | bytes, function: Callable[..., Any]) -> None:
        """
        Let a function stand for a script. Scripts are not executed.

        @param text: the text of the script.
        @param function: is called with a function that executes a command (C{call("GET", key)}), with the keys and with
            the arguments, which are lists of C{bytes}. It returns the result of the script.
        """
        data = text.encode() if isinstance(text, str) else text
        self.scripts[sha1(data, usedforsecurity=False).hexdigest().encode()] = function

    def serve(self) -> None:
        """
        Serve the clients that wait, as far as possible.
        """
        for connection in list(self.blocked):
            if connection in self.blocked:
                connection.attempt()
