# -*- test-case-name: tests.wire.redis.test_requestreader -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Transactions, watched keys and subscriptions: the requests that begin and end them. The clients of the first two have
connections of their own, and so have subscribers of sharded channels in a cluster; other subscribers share one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from txconnpool.wire import ANSWER, REPLACE, TOPICS, Frame
from txconnpool.wire.redis import answers
from txconnpool.wire.redis.commands import BY_NAME, RedisCommand
from txconnpool.wire.redis.framing import encode
from txconnpool.wire.redis.subscriptions import OPPOSITE, Subscribing, Unsubscribing, confirmation
from txconnpool.wire.topics import Topic

if TYPE_CHECKING:
    from txconnpool.wire.redis.requestreader import RequestReader

#: The greatest number of channels and patterns that a client may subscribe to.
CHANNELS_MAX: Final = 10000

_DISCARD: Final = BY_NAME["discard"].silenced
_DISCARD_REQUEST: Final = encode([b"DISCARD"])


def _multi(reader: RequestReader, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    if reader.inTransaction:
        return reader.answer(end, answers.error("ERR MULTI calls can not be nested"))

    def after() -> None:
        reader.inTransaction = True
        reader.queued = 0

    if reader.places is not None and not reader.pinned:
        reader.inTransaction = reader.deferred = True
        reader.queued = 0
        reader.settle()
        return reader.answer(end, answers.OK)
    return reader.own(command, data, pos, end, after)


def _unsent(reader: RequestReader, end: int, reply: bytes) -> Frame:
    """
    Answer the end of a transaction of which no server knows.
    """
    _over(reader)()
    reader.settle()
    return reader.answer(end, reply)


def _over(reader: RequestReader) -> Callable[[], None]:
    def after() -> None:
        reader.inTransaction = reader.deferred = reader.dirty = reader.watches = False

    return after


def _exec(reader: RequestReader, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    if not reader.inTransaction:
        return reader.answer(end, answers.error("ERR EXEC without MULTI"))
    if not reader.dirty:
        if reader.deferred:
            return _unsent(reader, end, b"*0\r\n")
        return reader.own(command, data, pos, end, _over(reader))
    return abort(reader, end, answers.EXEC_ABORT)


def abort(reader: RequestReader, end: int, reply: bytes) -> Frame:
    """
    Answer C{EXEC} with an error. If there is a transaction, it is discarded.
    """
    if not reader.inTransaction:
        return reader.answer(end, reply)
    if reader.deferred:
        return _unsent(reader, end, reply)
    reader.after = _over(reader)
    return REPLACE, end, 0, (_DISCARD, _DISCARD_REQUEST, reader.mine(reply))


def _discard(
    reader: RequestReader, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    if not reader.inTransaction:
        return reader.answer(end, answers.error("ERR DISCARD without MULTI"))
    if reader.deferred:
        return _unsent(reader, end, answers.OK)
    return reader.own(command, data, pos, end, _over(reader))


def _watch(reader: RequestReader, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    if reader.inTransaction:
        return reader.answer(end, answers.error("ERR WATCH inside MULTI is not allowed"))

    def after() -> None:
        reader.watches = True

    return reader.own(command, data, pos, end, after)


def _unwatch(
    reader: RequestReader, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    if not reader.watches:
        return reader.answer(end, answers.OK)

    def after() -> None:
        reader.watches = False

    return reader.own(command, data, pos, end, after)


# -- Subscriptions


def _subscribe(
    reader: RequestReader, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    known = sum(map(len, reader.channels.values())) if reader.channels else 0
    if known + len(words) - 1 > CHANNELS_MAX:
        return reader.answer(end, answers.error(f"ERR more than {CHANNELS_MAX} channels and patterns of one client"))
    if reader.shares(command.name):
        return TOPICS, end, 0, Subscribing(reader, [Topic(command.name, name) for name in words[1:]])

    def after() -> None:
        if reader.channels is None:
            reader.channels = {}
        reader.channels.setdefault(command.name, {}).update(dict.fromkeys(words[1:]))

    return reader.own(command, data, pos, end, after)


def _unsubscribe(
    reader: RequestReader, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    kind = OPPOSITE[command.name]
    its = (reader.channels or {}).get(kind, {})
    channels = words[1:] or list(its)
    if not its:
        frames = [confirmation(reader, command.name, channel) for channel in channels or (None,)]
        return ANSWER, end, 0, b"".join(frames)
    if reader.shares(kind):
        return TOPICS, end, 0, Unsubscribing(reader, command.name, channels)

    def after() -> None:
        for channel in channels:
            its.pop(channel, None)
        if not any((reader.channels or {}).values()):
            reader.channels = None

    payload = None if len(words) > 1 else encode([command.name.encode(), *channels])
    return reader.own(command, data, pos, end, after, payload)


#: What is done for a request, as in L{txconnpool.wire.redis.special.SPECIAL}.
ENGAGING: Final[Mapping[str, Callable[[RequestReader, RedisCommand, list[bytes], bytes, int, int], Frame]]] = {
    "multi": _multi,
    "exec": _exec,
    "discard": _discard,
    "watch": _watch,
    "unwatch": _unwatch,
    **dict.fromkeys(("subscribe", "psubscribe", "ssubscribe"), _subscribe),
    **dict.fromkeys(("unsubscribe", "punsubscribe", "sunsubscribe"), _unsubscribe),
}
