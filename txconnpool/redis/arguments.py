# -*- test-case-name: tests.redis.test_arguments -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The words of requests: from Python values to bytes, with the namespace before the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from txconnpool.redis.errors import InvalidArgument
from txconnpool.wire.redis.commands import BY_NAME, COMMANDS, LOOKUP, RedisCommand, blockingTime

#: A key: bytes, or text, which is encoded as UTF-8.
Key = str | bytes

#: A value. Numbers are sent as their decimal text.
Argument = str | bytes | int | float

#: Stands for commands that the table does not have: those of modules and of later servers. They are never sent twice.
OTHER: Final = RedisCommand("other", len(COMMANDS), -1, frozenset(), "?")

#: Commands that change the state of their connection, with what to use in their place.
STATEFUL: Final = {
    **dict.fromkeys(("multi", "exec", "discard", "watch", "unwatch"), "use transaction()"),
    **dict.fromkeys(
        ("subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe"), "use subscribe()"
    ),
    **dict.fromkeys(("auth", "hello"), "use the option login"),
    "select": "use the option database",
    **dict.fromkeys(("quit", "reset"), "use close()"),
    **dict.fromkeys(
        (
            *("asking", "readonly", "readwrite", "monitor", "sync", "psync", "replconf", "script|debug", "wait"),
            *("client|reply", "client|setname", "client|tracking", "client|caching", "client|no-evict"),
            *("client|no-touch", "client|setinfo"),
        ),
        "lease a connection with connection()",
    ),
}

#: Commands that the namespace cannot be applied to, because their keys or patterns are not known.
_UNNAMED: Final = frozenset(("randomkey", "swapdb"))


def encodeWord(value: Any) -> bytes:
    """
    @return: the bytes of an argument.

    @raise InvalidArgument: it is neither text nor a number.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, InvalidArgument):  # found by listOf or mappingOf, before the words were known
        raise value
    if isinstance(value, bool) or not isinstance(value, int | float | bytearray | memoryview):
        raise InvalidArgument(f"an argument must be bytes, str, int or float, not {type(value).__name__}")
    return repr(value).encode() if isinstance(value, int | float) else bytes(value)


def encodeWords(values: Iterable[Any]) -> list[bytes]:
    """
    @return: the bytes of arguments.
    """
    return [each if type(each) is bytes else encodeWord(each) for each in values]


def listOf(name: str, values: Any) -> list[Any]:
    """
    Check an argument that is a list.

    @param name: the name of the argument, for the error.

    @return: the list. If it is a text, or no list at all, its only element is the error, which L{encodeWord} raises.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        return [InvalidArgument(f"{name} must be a list, not {values!r}")]
    return list(values)


def mappingOf(name: str, values: Any) -> Mapping[Any, Any]:
    """
    Check an argument that is a mapping.

    @param name: the name of the argument, for the error.

    @return: the mapping. If it is none, the only key and value are the error, which L{encodeWord} raises.
    """
    if isinstance(values, Mapping):
        return values
    error = InvalidArgument(f"{name} must be a mapping, such as a dict, not {values!r}")
    return {error: error}


def commandOf(words: list[bytes]) -> RedisCommand:
    """
    Find the command of a request.

    @raise InvalidArgument: there is none, or the number of words is wrong.
    """
    if not words or not words[0]:
        raise InvalidArgument("a request needs the name of a command")
    command = LOOKUP.get(words[0]) or LOOKUP.get(words[0].lower())
    if command is None:
        return OTHER
    if command.subcommands and len(words) > 1:
        command = command.subcommands.get(words[1].lower(), command)
    if not command.accepts(len(words)):
        raise InvalidArgument(f"wrong number of arguments for {command.name.replace('|', ' ')!r}: {len(words) - 1}")
    return command


def checkStateless(words: list[bytes], command: RedisCommand) -> None:
    """
    Check that a request may be sent on a shared connection.

    @raise InvalidArgument: it would change the state of the connection.
    """
    name = command.name
    if command is OTHER or "|" not in name:
        sub = words[1].lower().decode("ascii", "replace") if len(words) > 1 else ""
        name = f"{words[0].lower().decode('ascii', 'replace')}|{sub}"
        if name not in STATEFUL:
            name = name.partition("|")[0]
    instead = STATEFUL.get(name)
    if instead is not None:
        raise InvalidArgument(f"{name.replace('|', ' ').upper()} concerns a whole connection: {instead}")


def mayBlock(words: list[bytes], command: RedisCommand) -> bool:
    """
    @return: whether the server may keep the client waiting.
    """
    return command.mayBlock and blockingTime(command.name, words) is not None


def applyNamespace(words: list[bytes], command: RedisCommand, namespace: bytes) -> None:
    """
    Put a text before the keys of a request.

    @param words: is changed.

    @raise InvalidArgument: it is not known which words are keys.
    """
    name = command.name
    if "?" in command.keySpecs or name in _UNNAMED:
        raise InvalidArgument(f"{words[0].decode('ascii', 'replace')} cannot be used with a namespace")
    if name == "keys":
        words[1] = escapePattern(namespace) + words[1]
    elif name == "scan":
        at = next((at for at in range(2, len(words) - 1, 2) if words[at].upper() == b"MATCH"), 0)
        if at:
            words[at + 1] = escapePattern(namespace) + words[at + 1]
        else:
            words += [b"MATCH", escapePattern(namespace) + b"*"]
    elif name != "spublish":  # its channel is only for the choice of the node what keys are
        for at in command.keyPositions(words):
            words[at] = namespace + words[at]


def escapePattern(text: bytes) -> bytes:
    """
    @return: a glob-style pattern that matches only C{text}.
    """
    return b"".join(
        b"\\" + text[at : at + 1] if text[at] in b"*?[]\\^" else text[at : at + 1] for at in range(len(text))
    )


def named(name: str) -> RedisCommand:
    """
    @return: the command or subcommand with a name such as C{script|load}.
    """
    return BY_NAME[name]
