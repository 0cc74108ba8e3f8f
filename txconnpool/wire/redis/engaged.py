# -*- test-case-name: tests.wire.redis.test_requestreader -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Transactions, watched keys and subscriptions: the requests that begin and end them. The clients of the first two have
connections of their own; subscribers share one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from txconnpool.wire import ANSWER, TOPICS, Frame
from txconnpool.wire.redis import answers
from txconnpool.wire.redis.clientstate import ClientState
from txconnpool.wire.redis.commands import RedisCommand
from txconnpool.wire.redis.subscriptions import OPPOSITE, Subscribing, Unsubscribing, confirmation
from txconnpool.wire.topics import Topic

#: The greatest number of channels and patterns that a client may subscribe to.
CHANNELS_MAX: Final = 10000


def _multi(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    if client.inTransaction:
        return client.answer(end, answers.error("ERR MULTI calls can not be nested"))

    def after() -> None:
        client.inTransaction = True
        client.queued = 0

    if client.places is not None and not client.pinned:
        client.inTransaction = client.deferred = True
        client.queued = 0
        client.settle()
        return client.answer(end, answers.OK)
    return client.own(command, data, pos, end, after)


def _exec(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    if not client.inTransaction:
        return client.answer(end, answers.error("ERR EXEC without MULTI"))
    if not client.dirty:
        if client.deferred:
            return client.endUnsent(end, b"*0\r\n")
        return client.own(command, data, pos, end, client.endTransaction)
    return client.abort(end, answers.EXEC_ABORT)


def _discard(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    if not client.inTransaction:
        return client.answer(end, answers.error("ERR DISCARD without MULTI"))
    if client.deferred:
        return client.endUnsent(end, answers.OK)
    return client.own(command, data, pos, end, client.endTransaction)


def _watch(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    if client.inTransaction:
        return client.answer(end, answers.error("ERR WATCH inside MULTI is not allowed"))

    def after() -> None:
        client.watches = True

    return client.own(command, data, pos, end, after)


def _unwatch(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    if not client.watches:
        return client.answer(end, answers.OK)

    def after() -> None:
        client.watches = False

    return client.own(command, data, pos, end, after)


# -- Subscriptions


def _subscribe(
    client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    known = sum(map(len, client.channels.values())) if client.channels else 0
    if known + len(words) - 1 > CHANNELS_MAX:
        return client.answer(end, answers.error(f"ERR more than {CHANNELS_MAX} channels and patterns of one client"))
    return TOPICS, end, 0, Subscribing(client, [Topic(command.name, name) for name in words[1:]])


def _unsubscribe(
    client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    kind = OPPOSITE[command.name]
    its = (client.channels or {}).get(kind, {})
    channels = words[1:] or list(its)
    if not its:
        frames = [confirmation(client, command.name, channel) for channel in channels or (None,)]
        return ANSWER, end, 0, b"".join(frames)
    return TOPICS, end, 0, Unsubscribing(client, command.name, channels)


#: What is done for a request, as in L{txconnpool.wire.redis.special.SPECIAL}.
ENGAGING: Final[Mapping[str, Callable[[ClientState, RedisCommand, list[bytes], bytes, int, int], Frame]]] = {
    "multi": _multi,
    "exec": _exec,
    "discard": _discard,
    "watch": _watch,
    "unwatch": _unwatch,
    **dict.fromkeys(("subscribe", "psubscribe", "ssubscribe"), _subscribe),
    **dict.fromkeys(("unsubscribe", "punsubscribe", "sunsubscribe"), _unsubscribe),
}
