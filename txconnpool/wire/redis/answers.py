# -*- test-case-name: tests.wire.redis.test_requestreader -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Replies of the proxy itself, in the bytes of Redis 7.0.
"""

from __future__ import annotations

import re
from typing import Final

OK: Final = b"+OK\r\n"
NOT_INTEGER: Final = b"-ERR value is not an integer or out of range\r\n"
NO_CLUSTER: Final = b"-ERR This instance has cluster support disabled\r\n"
EXEC_ABORT: Final = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
NO_AUTH: Final = b"-NOAUTH Authentication required.\r\n"
SYNTAX: Final = b"-ERR syntax error\r\n"

_LINE_END: Final = re.compile(rb"[\r\n]")


def error(text: str | bytes) -> bytes:
    """
    @return: an error reply. Line ends in it become spaces.
    """
    data = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    return b"-" + _LINE_END.sub(b" ", data) + b"\r\n"


def isError(reply: bytes) -> bool:
    """
    @return: whether a reply is an error.
    """
    return reply[:1] == b"-"


def bulk(data: bytes) -> bytes:
    """
    @return: a bulk string.
    """
    return b"$%d\r\n%b\r\n" % (len(data), data)


def verbatim(version: int, text: bytes) -> bytes:
    """
    @return: a text for people.
    """
    return b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text) if version == 3 else bulk(text)


def null(version: int) -> bytes:
    """
    @return: the null of a bulk string.
    """
    return b"_\r\n" if version == 3 else b"$-1\r\n"


def mapping(version: int, *items: bytes) -> bytes:
    """
    @param items: keys and values, encoded.
    """
    head = b"%%%d\r\n" % (len(items) // 2) if version == 3 else b"*%d\r\n" % len(items)
    return head + b"".join(items)


def unknownCommand(words: list[bytes]) -> bytes:
    """
    @return: the reply to a request whose command does not exist (C{commandCheckExistence}).
    """
    name = words[0].partition(b"\0")[0][:128]
    arguments = b""
    for word in words[1:]:
        if len(arguments) >= 128:
            break
        arguments += b"'%b' " % word.partition(b"\0")[0][: 128 - len(arguments)]
    return error(b"ERR unknown command '%b', with args beginning with: %b" % (name, arguments))


def unknownSubcommand(words: list[bytes]) -> bytes:
    """
    @return: the reply to a request whose subcommand does not exist.
    """
    name = words[0].partition(b"\0")[0].upper()
    sub = words[1].partition(b"\0")[0][:128]
    return error(b"ERR unknown subcommand '%b'. Try %b HELP." % (sub, name))


def wrongArity(name: str) -> bytes:
    """
    @param name: the name of a command or subcommand.
    """
    return error(f"ERR wrong number of arguments for '{name}' command")


def refused(name: str, why: str) -> bytes:
    """
    @return: the reply to a command that is not forwarded. It begins as that to an unknown one, so that clients that can
        do without the command do.
    """
    return error(f"ERR unknown command '{name}': {why}")


def notInSubscription(name: str) -> bytes:
    """
    @return: the reply to a command that a subscriber must not use in RESP2.
    """
    return error(
        f"ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this "
        "context"
    )
