# -*- test-case-name: tests.wire.redis.test_requestreader -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Transactions, watched keys and subscriptions: the requests that begin and end them. Their clients have connections of
their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from txconnpool.wire import ANSWER, REPLACE, Frame
from txconnpool.wire.redis import answers
from txconnpool.wire.redis.commands import BY_NAME, RedisCommand
from txconnpool.wire.redis.framing import encode

if TYPE_CHECKING:
    from txconnpool.wire.redis.requestreader import RequestReader

#: The greatest number of channels and patterns that a client may subscribe to.
CHANNELS_MAX: Final = 10000

_DISCARD: Final = BY_NAME["discard"].silenced
_DISCARD_REQUEST: Final = encode([b"DISCARD"])

#: The command that subscribes, by the one that ends the subscription.
_OPPOSITE: Final = {"unsubscribe": "subscribe", "punsubscribe": "psubscribe", "sunsubscribe": "ssubscribe"}


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

    def after() -> None:
        if reader.channels is None:
            reader.channels = {}
        reader.channels.setdefault(command.name, {}).update(dict.fromkeys(words[1:]))

    return reader.own(command, data, pos, end, after)


def _unsubscribe(
    reader: RequestReader, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    kind = _OPPOSITE[command.name]
    its = (reader.channels or {}).get(kind, {})
    channels = words[1:] or list(its)
    if reader.channels is None or not channels:
        return ANSWER, end, 0, _unsubscribed(reader, command.name, channels)

    def after() -> None:
        for channel in channels:
            its.pop(channel, None)
        if not any((reader.channels or {}).values()):
            reader.channels = None

    payload = None if len(words) > 1 else encode([command.name.encode(), *channels])
    return reader.own(command, data, pos, end, after, payload)


def _unsubscribed(reader: RequestReader, name: str, channels: list[bytes]) -> bytes:
    """
    @return: the reply to a request that ends no subscription.
    """
    subscribed = reader.channels or {}
    kinds = ("ssubscribe",) if name == "sunsubscribe" else ("subscribe", "psubscribe")
    left = sum(len(subscribed.get(kind, ())) for kind in kinds)
    version = reader.flavour[0]
    mark = b">" if version == 3 else b"*"
    shown = [answers.bulk(channel) for channel in channels] or [answers.null(version)]
    return b"".join(b"%b3\r\n%b%b:%d\r\n" % (mark, answers.bulk(name.encode()), each, left) for each in shown)


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
