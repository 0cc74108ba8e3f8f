# -*- test-case-name: tests.wire.redis.test_several -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Requests that concern several servers, if these share the keys: those that are divided by their keys, and those that are
sent to every server. One reply is made of theirs.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from txconnpool.wire import SPREAD, Frame
from txconnpool.wire.joining import Gathered
from txconnpool.wire.joining import chosenJoin as joinEach
from txconnpool.wire.redis import answers
from txconnpool.wire.redis.commands import BY_NAME, RedisCommand
from txconnpool.wire.redis.elements import chosenSplit
from txconnpool.wire.redis.framing import chosenDivide as divideWords
from txconnpool.wire.redis.framing import encode, wordsOf
from txconnpool.wire.shares import Shares

CROSS_SLOT: Final = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"

#: The index of the server is in the low bits of a cursor of C{SCAN}.
INDEX_BITS: Final = 10

#: The greatest cursor of a server for which that of the client has 63 bits.
CURSOR_MAX: Final = 1 << 53

_CURSOR: Final = re.compile(rb"[0-9]{1,19}").fullmatch
_TOO_LARGE: Final = answers.error("ERR the proxy cannot pass on the cursor of this server, because it is too large")


def elements(reply: bytes) -> list[bytes]:
    """
    @param reply: a complete array, set or map.

    @return: its elements. A map has two for each key.
    """
    whole = chosenSplit(reply, 0, None)
    return [] if whole is None else whole[2]


def _number(reply: bytes) -> int:
    return int(reply[1:-2])


class _Compound(RedisCommand):
    """
    A command whose reply is made of those of several servers.

    @ivar hidden: whether the client gets no reply. Servers reply in any case.
    """

    __slots__ = ("hidden",)

    def __init__(self, command: RedisCommand, hidden: bool) -> None:
        super().__init__(command.name, command.index, command.arity, command.flags, command.keySpecs)
        self.hidden = hidden

    def visible(self, reply: bytes) -> bytes:
        """
        @return: nothing if the client gets no replies.
        """
        return b"" if self.hidden else reply

    def values(self, keys: list[bytes], reply: bytes) -> list[bytes] | None:
        """
        @return: the reply, which is about all keys; C{None} for an error.
        """
        return None if answers.isError(reply) else [reply]


class DividedCommand(_Compound):
    """
    A request for keys on several servers. Each of them gets one for its keys. All words after the first are keys.
    """

    __slots__ = ("_name", "_word")

    def __init__(self, command: RedisCommand, hidden: bool = False) -> None:
        super().__init__(command, hidden)
        self.multiKey = True
        self.several = self
        self.whole = command.silenced if hidden else command
        self._word = command.name.upper().encode()
        self._name = answers.bulk(self._word)

    def keys(self, request: bytes) -> list[bytes]:
        """
        @return: the keys, in order.
        """
        return wordsOf(request, 0)[1:]

    def subset(self, request: bytes, keys: list[bytes]) -> bytes:
        """
        @return: the request for these keys only.
        """
        return encode([self._word, *keys])

    def shares(self, requests: list[bytes], indexes: Any, most: int) -> Shares:
        """
        @return: the shares of requests, see L{Command.shares<txconnpool.wire.Command.shares>}.
        """
        return divideWords(requests, self._name, indexes, most) or super().shares(requests, indexes, most)


class _Get(DividedCommand):
    """
    C{MGET}: the values are those of the keys in their order. Requests of several clients can be merged: a key without
    a value of the right type has a null, so no reply depends on other keys.
    """

    __slots__ = ()

    def __init__(self, command: RedisCommand, hidden: bool = False) -> None:
        super().__init__(command, hidden)
        self.gathers = self.merges = True
        self.matchWhole = None

    def values(self, keys: list[bytes], reply: bytes) -> list[bytes] | None:
        """
        @return: the values of the keys; C{None} for an error.
        """
        if answers.isError(reply):
            return None
        return [value for _, value in zip(keys, elements(reply), strict=True)]

    def gather(self, order: list[int], values: list[list[bytes]], merged: bool) -> bytes:
        """
        @return: the values in an array.
        """
        ((_, reply),), _ = self.gatherEach([order], values, order[0], merged)
        return reply

    def gatherEach(self, orders: list[list[int]], values: list[Any], arrived: int, merged: bool) -> Gathered:
        """
        @return: the replies that are complete, see L{Command.gatherEach<txconnpool.wire.Command.gatherEach>}.
        """
        replies, size = joinEach(orders, values, arrived, b"*%d\r\n", b"", b"")
        return [(number, b"") for number, _ in replies] if self.hidden else replies, size


class _Count(DividedCommand):
    """
    A command whose reply is a number of keys: the numbers of the servers are added.
    """

    __slots__ = ()

    def gather(self, order: list[int], values: list[list[bytes]], merged: bool) -> bytes:
        """
        @return: the sum.
        """
        return self.visible(b":%d\r\n" % sum(_number(reply) for each in values for reply in each))


class _Set(_Count):
    """
    C{MSET}: it has succeeded when all servers have done their part. Each key is followed by its value.
    """

    __slots__ = ()

    def keys(self, request: bytes) -> list[bytes]:
        """
        @return: the keys, each once, because its last value counts.
        """
        return list(dict.fromkeys(wordsOf(request, 0)[1::2]))

    def accepts(self, count: int) -> bool:
        """
        @return: whether each key has a value.
        """
        return count % 2 == 1

    shares = _Compound.shares

    def subset(self, request: bytes, keys: list[bytes]) -> bytes:
        """
        @return: the request for these keys only. The last value of a key counts.
        """
        return self.subsets(request, [keys])[0]

    def subsets(self, request: bytes, shares: Sequence[list[bytes]]) -> list[bytes]:
        """
        @return: a request for each share of the keys. The words are split only once.
        """
        words = wordsOf(request, 0)
        values = dict(zip(words[1::2], words[2::2], strict=True))
        return [
            encode([self._word, *(word for key in dict.fromkeys(keys) for word in (key, values[key]))])
            for keys in shares
        ]

    def gather(self, order: list[int], values: list[list[bytes]], merged: bool) -> bytes:
        """
        @return: the reply of all servers.
        """
        return self.visible(answers.OK)


# -- Requests for every server


def _first(replies: Sequence[bytes]) -> bytes:
    return replies[0]


def _sum(replies: Sequence[bytes]) -> bytes:
    return b":%d\r\n" % sum(map(_number, replies))


def _concatenated(replies: Sequence[bytes]) -> bytes:
    """
    @return: all elements in one array, or in one set.
    """
    found = dict.fromkeys(element for reply in replies for element in elements(reply))
    return b"%b%d\r\n%b" % (replies[0][:1], len(found), b"".join(found))


def _everywhere(replies: Sequence[bytes]) -> bytes:
    """
    @return: an array of the numbers, each of which is 1 if it is 1 in all replies.
    """
    rows = [elements(reply) for reply in replies]
    return b"*%d\r\n%b" % (len(rows[0]), b"".join(map(min, zip(*rows, strict=True))))


def _sums(replies: Sequence[bytes]) -> bytes:
    """
    @return: names and numbers, which are added.
    """
    rows = [elements(reply) for reply in replies]
    names = rows[0][::2]
    sums = [_sum(numbers) for numbers in zip(*(row[1::2] for row in rows), strict=True)]
    head = replies[0][: replies[0].index(b"\n") + 1]
    return head + b"".join(name + number for name, number in zip(names, sums, strict=True))


def _any(replies: Sequence[bytes]) -> bytes:
    """
    @return: one of the values, or a null if there is none.
    """
    return random.choice([reply for reply in replies if reply[:3] not in (b"$-1", b"_\r\n")] or [replies[0]])


_JOINS: Final[dict[str, Callable[[Sequence[bytes]], bytes]]] = {
    **dict.fromkeys(
        ("flushall", "flushdb", "swapdb", "script|load", "script|flush", "function|load", "function|delete",
         "function|flush", "function|restore"),
        _first,
    ),
    **dict.fromkeys(("dbsize", "pubsub|numpat"), _sum),
    **dict.fromkeys(("keys", "pubsub|channels", "pubsub|shardchannels"), _concatenated),
    **dict.fromkeys(("pubsub|numsub", "pubsub|shardnumsub"), _sums),
    "script|exists": _everywhere,
    "randomkey": _any,
}  # fmt: skip


class SpreadCommand(_Compound):
    """
    A request that every server gets.
    """

    __slots__ = ("_join",)

    def __init__(self, command: RedisCommand, join: Callable[[Sequence[bytes]], bytes], hidden: bool = False) -> None:
        super().__init__(command, hidden)
        self._join = join

    def join(self, replies: Sequence[bytes]) -> bytes:
        """
        @param replies: the replies of the servers. None is an error.

        @return: one reply.
        """
        return self._join(replies)


def _cursorOf(index: int, last: bool) -> Callable[[Sequence[bytes]], bytes]:
    """
    @param index: the index of a server.
    @param last: whether there is no other after it.

    @return: a function that makes the cursor in a reply of the server one for clients: it has the index, and goes on
        with the next server after the end of this one.
    """

    def join(replies: Sequence[bytes]) -> bytes:
        cursor, keys = elements(replies[0])
        number = int(cursor.split(b"\r\n")[1])
        if number >= CURSOR_MAX:
            return _TOO_LARGE
        if number:
            number = number << INDEX_BITS | index
        elif not last:
            number = index + 1
        return b"*2\r\n" + answers.bulk(b"%d" % number) + keys

    return join


def scanned(words: list[bytes], end: int, servers: int, hidden: bool) -> Frame | None:
    """
    @param words: those of a C{SCAN}.
    @param servers: the number of servers.

    @return: the frame for the server that its cursor has; C{None} if the cursor is invalid.
    """
    if not _CURSOR(words[1]):
        return None
    cursor = int(words[1])
    index = cursor & ((1 << INDEX_BITS) - 1)
    if index >= max(1, servers) or cursor >= 1 << 63:
        return None
    command = SpreadCommand(BY_NAME["scan"], _cursorOf(index, index + 1 >= servers), hidden)
    return SPREAD, end, 0, (command, encode([b"SCAN", b"%d" % (cursor >> INDEX_BITS), *words[2:]]), index)


_KINDS: Final = {
    "mget": _Get, "mset": _Set, "del": _Count, "unlink": _Count, "exists": _Count, "touch": _Count
}  # fmt: skip

#: The commands whose requests are divided, by name, and whether the client gets no reply.
DIVIDED: Final = {
    (name, hidden): kind(BY_NAME[name], hidden) for name, kind in _KINDS.items() for hidden in (False, True)
}

#: The commands that every server gets, in the same way.
SPREADS: Final = {
    (name, hidden): SpreadCommand(BY_NAME[name], join, hidden)
    for name, join in _JOINS.items()
    for hidden in (False, True)
}
