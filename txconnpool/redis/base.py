# -*- test-case-name: tests.redis.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What all groups of commands have in common: the words of requests, and what replies mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Generic

from twisted.internet.defer import Deferred, fail

from txconnpool.redis.arguments import Key, checkStateless, commandOf, encodeWords, listOf
from txconnpool.redis.errors import InvalidArgument, ResponseError, UndecodableReply, errorOf
from txconnpool.wire.redis.commands import BY_NAME, RedisCommand
from txconnpool.wire.redis.values import ReplyParser

# The class of values: bytes, unless the pool decodes them.
if TYPE_CHECKING:
    from typing_extensions import TypeVar

    V = TypeVar("V", default=bytes)
else:
    from typing import TypeVar

    V = TypeVar("V")

#: Makes a result of the value of a reply. These are functions of modules, never closures: L{Meanings} keeps them.
Convert = Callable[[Any], Any] | None

#: The commands with the words that name them.
VERBS: Final[dict[str, tuple[RedisCommand, tuple[bytes, ...]]]] = {
    name: (command, tuple(name.upper().encode().split(b"|"))) for name, command in BY_NAME.items()
}


class Meanings:
    """
    Makes results of replies.
    """

    __slots__ = ("_encoding", "_made", "parser")

    def __init__(self, encoding: str | None) -> None:
        """
        @param encoding: the encoding of strings that become C{str}; C{None}: they are C{bytes}.
        """
        self.parser = ReplyParser(errorOf, encoding)
        self._encoding = encoding
        self._made: dict[Any, Callable[[bytes], Any]] = {None: self.value} if encoding is None else {}

    def value(self, reply: bytes) -> Any:
        """
        @return: the value of a reply.

        @raise ResponseError: the reply is an error.
        """
        value = self.parser.parse(reply)
        if isinstance(value, ResponseError):
            raise value
        return value

    def of(self, convert: Convert, command: RedisCommand) -> Callable[[bytes], Any]:
        """
        @param command: the command of the request.

        @return: a function that makes the result of a reply.
        """
        key = convert if self._encoding is None else (convert, command)
        meaning = self._made.get(key)
        if meaning is None:
            meaning = self._made[key] = self._make(convert, command)
        return meaning

    def _make(self, convert: Convert, command: RedisCommand) -> Callable[[bytes], Any]:
        value, encoding = self.value, self._encoding
        made = convert or _same
        if encoding is None:
            return lambda reply: made(value(reply))

        def meaning(reply: bytes) -> Any:
            try:
                return made(value(reply))
            except UnicodeDecodeError as error:
                name = command.name.replace("|", " ").upper()
                raise UndecodableReply(f"the reply to {name} is not valid in {encoding}: {error.reason}") from error

        return meaning


def _same(value: Any) -> Any:
    return value


class BaseCommands(Generic[V]):
    """
    Commands of Redis. A subclass sends the requests.

    Each method returns a Deferred. An invalid argument fails it with an L{InvalidArgument}, and nothing is sent.
    """

    #: The text before all keys.
    _namespace: bytes = b""

    def _send(self, command: RedisCommand, words: list[bytes], convert: Convert) -> Deferred[Any]:
        """
        Send a request.

        @param words: its words, without the namespace. The list may be changed.
        """
        raise NotImplementedError

    def _do(self, name: str, convert: Convert, *arguments: Any) -> Deferred[Any]:
        command, verb = VERBS[name]
        try:
            words = [*verb, *encodeWords(arguments)]
            if not command.accepts(len(words)):
                raise InvalidArgument(f"wrong number of arguments for {name.replace('|', ' ')!r}")
        except InvalidArgument as error:
            return fail(error)
        return self._send(command, words, convert)

    def execute(self, *args: str | bytes | int | float) -> Deferred[Any]:
        """
        Execute any command, also one that the pool does not know: C{pool.execute("SET", "key", b"value")}.

        @param args: the words of the request; a subcommand is a word of its own. The keys of commands of Redis 7.0 are
            found, for the C{namespace} and the choice of the server.

        @return: fires with the value of the reply. Strings and status replies are C{bytes} (or C{str}, see the option
            C{decode}), numbers are C{int} or C{float}, null is C{None}; arrays are lists, maps are dictionaries and
            sets are sets. An error within an array is a L{ResponseError} in the list. Keys in the reply have the
            namespace.
        """
        try:
            words = encodeWords(args)
            command = commandOf(words)
            checkStateless(words, command)
        except InvalidArgument as error:
            return fail(error)
        return self._send(command, words, None)

    def _bare(self, key: Any) -> Any:
        """
        @return: a key of a reply without the namespace.
        """
        size = len(self._namespace)
        if not size or key is None:
            return key
        return key[len(self._namespace.decode("utf-8", "surrogateescape")) if isinstance(key, str) else size :]

    def _bareFirst(self, value: Any) -> Any:
        return value and (self._bare(value[0]), *value[1:])

    def _bareAll(self, keys: Iterable[Any]) -> list[Any]:
        return [self._bare(key) for key in keys]


def okay(value: Any) -> bool:
    """
    @return: whether a command was executed; it was not if the value is null.
    """
    return value is not None


def number(value: Any) -> float | None:
    """
    @return: the number in a string of RESP2, or the number of RESP3.
    """
    return None if value is None else float(value)


def booleans(value: Any) -> list[bool]:
    """
    @return: the numbers of an array, as booleans.
    """
    return list(map(bool, value))


def mapping(value: Any) -> Any:
    """
    @return: the dictionary of a map of RESP3 or of an array of RESP2.
    """
    return dict(zip(value[::2], value[1::2], strict=True)) if isinstance(value, list) else value


def pairs(value: Any) -> list[tuple[Any, Any]]:
    """
    @return: the pairs of an array: of arrays of two in RESP3, flat in RESP2.
    """
    if value and isinstance(value[0], list):
        return [(first, second) for first, second in value]
    return list(zip(value[::2], value[1::2], strict=True))


def scored(value: Any) -> list[tuple[Any, float]]:
    """
    @return: members with their scores.
    """
    return [(member, float(score)) for member, score in pairs(value)]


def flat(items: Iterable[Iterable[Any]]) -> list[Any]:
    """
    @return: the elements of all items.
    """
    return [each for item in items for each in item]


def scanned(value: Any) -> tuple[int, Any]:
    """
    @return: the next cursor of a scan, and what it has found.
    """
    return int(value[0]), value[1]


def keysOf(keys: Key | Iterable[Key], more: Iterable[Key] = ()) -> list[Key]:
    """
    @return: keys that are given as one, as a list, as several arguments, or as both.
    """
    return [*([keys] if isinstance(keys, str | bytes) else listOf("keys", keys)), *more]
