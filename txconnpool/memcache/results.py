# -*- test-case-name: tests.memcache.test_commands -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The results of memcached commands: what a complete reply means to the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from txconnpool.errors import NoSuchCommand
from txconnpool.memcache.errors import ClientError, ServerError

#: A key: bytes, or text, which is encoded as UTF-8.
Key = str | bytes

# The class of values: bytes, unless the pool has a serializer.
if TYPE_CHECKING:
    from typing_extensions import TypeVar

    V = TypeVar("V", default=bytes)
else:
    from typing import TypeVar

    V = TypeVar("V")

#: The result of C{get} and similar commands: flags and value, which is C{None} if there is no such key.
Value = tuple[int, V | None]

#: The same with the identifier for C{checkAndSet}.
Identified = tuple[int, bytes, V | None]

#: One of both.
AnyValue = tuple[Any, ...]

_OUTCOMES: Final = {
    **dict.fromkeys((b"STORED\r\n", b"DELETED\r\n", b"TOUCHED\r\n", b"OK\r\n"), True),
    **dict.fromkeys((b"NOT_STORED\r\n", b"EXISTS\r\n", b"NOT_FOUND\r\n"), False),
}


def refusal(reply: bytes) -> Exception:
    """
    @return: the exception for an error line.
    """
    word, _, text = reply.decode("utf-8", "backslashreplace").rstrip().partition(" ")
    kind = {"SERVER_ERROR": ServerError, "CLIENT_ERROR": ClientError}.get(word, NoSuchCommand)
    return kind(text or "the server does not know the command")


def outcome(reply: bytes) -> bool:
    """
    Interpret the reply to a command that succeeds or not.

    @return: whether the command was done.

    @raise Exception: the exception for an error line.
    """
    done = _OUTCOMES.get(reply)
    if done is None:
        raise refusal(reply)
    return done


@dataclass(frozen=True, slots=True)
class Found:
    """
    The result of C{mg}.

    @ivar data: the bytes of the value.
    @ivar flags: its flags.
    @ivar cas: its number for C{cas}.
    @ivar won: whether this client is to compute the value (C{W}).
    @ivar pending: whether another client has been asked to (C{Z}).
    """

    data: bytes
    flags: int
    cas: int
    won: bool
    pending: bool


def metaFound(reply: bytes) -> Found:
    """
    Interpret the reply to C{mg KEY v f c}, which always finds an item, because it has the flag C{N}.

    @raise Exception: the exception for an error line.
    """
    line, _, rest = reply.partition(b"\r\n")
    word, *tokens = line.split(b" ")
    if word != b"VA":
        raise refusal(reply)
    values = {token[:1]: token[1:] for token in tokens[1:]}
    return Found(rest[:-2], int(values[b"f"]), int(values[b"c"]), b"W" in values, b"Z" in values)


def metaDone(reply: bytes) -> bool:
    """
    Interpret the reply to C{ms} or C{md}.

    @return: whether the command was done.

    @raise Exception: the exception for an error line.
    """
    word = reply[:2]
    if word not in (b"HD", b"NS", b"EX", b"NF"):
        raise refusal(reply)
    return word == b"HD"


def metaCounted(reply: bytes) -> int:
    """
    Interpret the reply to C{ma} with the flags C{v} and C{N}.

    @return: the number.

    @raise Exception: the exception for an error line.
    """
    line, _, rest = reply.partition(b"\r\n")
    if line[:2] != b"VA":
        raise refusal(reply)
    return int(rest)


def counted(reply: bytes) -> int:
    """
    Interpret the reply to an increment or decrement.

    @return: the number, or C{False} if the key does not exist.
    """
    return int(reply) if reply[:1].isdigit() else outcome(reply)


def version(reply: bytes) -> bytes:
    """
    Interpret the reply to C{version}.

    @return: the version.
    """
    word, _, version = reply.rstrip().partition(b" ")
    if word != b"VERSION":
        raise refusal(reply)
    return version


def statistics(reply: bytes) -> dict[bytes, bytes]:
    """
    Interpret the reply to C{stats}.

    @return: the values by their names.
    """
    lines = reply.split(b"\r\n")[:-1]
    last = lines.pop()
    if last not in (b"END", b"RESET", b"OK"):
        raise refusal(reply)
    return {words[1]: b" ".join(words[2:]) for words in (line.split(b" ", 2) for line in lines)}
