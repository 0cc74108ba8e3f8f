# -*- test-case-name: tests.wire.redis.test_subscriptions -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Channels and patterns as topics that many clients share: what a client subscribes to, what a server is asked for, and
what the client is answered, with its own number of subscriptions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from txconnpool.wire import Command
from txconnpool.wire.redis import answers
from txconnpool.wire.redis.clientstate import ClientState
from txconnpool.wire.redis.commands import BY_NAME
from txconnpool.wire.redis.framing import encode
from txconnpool.wire.topics import Topic

#: The command that subscribes, by the one that ends the subscription.
OPPOSITE: Final = {"unsubscribe": "subscribe", "punsubscribe": "psubscribe", "sunsubscribe": "ssubscribe"}

_ENDING: Final = {subscribing: ending for ending, subscribing in OPPOSITE.items()}

#: The kinds of topics, by the beginning of the names of their messages.
_KINDS: Final = {b"": "subscribe", b"p": "psubscribe", b"s": "ssubscribe"}

#: A message, with the length of its channel, or of the pattern.
_MESSAGE: Final = re.compile(rb"[*>][34]\r\n\$\d+\r\n([ps]?)message\r\n\$(\d+)\r\n").match

#: The end of a subscription that no request asked for, with the length of the channel.
_ENDED: Final = re.compile(rb"[*>]3\r\n\$12\r\nsunsubscribe\r\n\$(\d+)\r\n").match

#: The beginning of the channels of the events of keys, which each server sends about its own keys.
_EVENTS: Final = b"__key"


def topicOf(frame: bytes) -> Topic | None:
    """
    @return: the channel or pattern of a message; C{None} if the frame is something else.
    """
    match = _MESSAGE(frame)
    if match is None:
        return None
    start = match.end()
    return Topic(_KINDS[match[1]], frame[start : start + int(match[2])])


def endedOf(frame: bytes) -> Topic | None:
    """
    @return: the sharded channel whose messages a node sends no more, because its slot has got another node; C{None} if
        the frame is something else.
    """
    match = _ENDED(frame)
    if match is None:
        return None
    start = match.end()
    return Topic("ssubscribe", frame[start : start + int(match[1])])


def groupOf(topic: Topic) -> tuple[str, bytes]:
    """
    @return: the same for channels or patterns whose subscriptions one request may end. Sharded channels may be in
        several slots, and a node may end each of them itself at the same time.
    """
    kind, name = topic
    return kind, name if kind == "ssubscribe" else b""


def keyOf(topic: Topic, cluster: bool) -> bytes | None:
    """
    @param cluster: whether the servers pass on messages to each other, so that one of them has all of a pattern.

    @return: the channel, or the pattern; C{None} if messages come from all servers, as the events of keys do.
    """
    kind, name = topic
    isEvents = kind != "ssubscribe" and name.startswith(_EVENTS)
    return None if isEvents or (kind == "psubscribe" and not cluster) else name


def requestFor(adds: bool, topics: Sequence[Topic]) -> tuple[Command, bytes]:
    """
    @param adds: whether to subscribe.
    @param topics: channels or patterns of one kind.

    @return: the command and the request.
    """
    kind = topics[0].kind
    name = kind if adds else _ENDING[kind]
    return BY_NAME[name], encode([name.upper().encode(), *[topic.name for topic in topics]])


class _Request:
    """
    A request of a client, as an L{ITopicRequest<txconnpool.wire.topics.ITopicRequest>}.
    """

    adds = False

    def __init__(self, client: ClientState, topics: Sequence[Topic]) -> None:
        self._client = client
        self._isSilent = client.silent or client.skips
        self.topics = topics
        # The database does not matter: a message reaches the subscribers in all of them.
        self.flavour = (client.flavour[0], 0, *client.flavour[2:])

    def refused(self, reply: bytes) -> bytes:
        """
        @return: the error, if the client gets replies.
        """
        return b"" if self._isSilent else reply


class Subscribing(_Request):
    """
    C{SUBSCRIBE}, C{PSUBSCRIBE} or C{SSUBSCRIBE}.
    """

    adds = True

    def confirmed(self) -> bytes:
        """
        @return: the confirmation of each channel.
        """
        client = self._client
        channels = client.channels = client.channels or {}
        replies = []
        for kind, name in self.topics:
            channels.setdefault(kind, {})[name] = None
            replies.append(confirmation(client, kind, name))
        client.settle()
        return b"".join(replies)


class Unsubscribing(_Request):
    """
    C{UNSUBSCRIBE}, C{PUNSUBSCRIBE} or C{SUNSUBSCRIBE}.
    """

    def __init__(self, client: ClientState, command: str, names: Sequence[bytes]) -> None:
        """
        @param names: the channels of the request.
        """
        self._kind = OPPOSITE[command]
        self._names = names
        super().__init__(client, [Topic(self._kind, name) for name in names])

    def confirmed(self) -> bytes:
        """
        @return: the confirmation of each channel.
        """
        client, kind = self._client, self._kind
        its = (client.channels or {}).get(kind, {})
        replies = []
        for name in self._names:
            its.pop(name, None)
            replies.append(confirmation(client, _ENDING[kind], name))
        if not any((client.channels or {}).values()):
            client.channels = None
        client.settle()
        return b"".join(replies)


class Leaving(_Request):
    """
    The end of all subscriptions, which C{RESET} does not report.
    """

    def __init__(self, client: ClientState) -> None:
        channels = client.channels or {}
        super().__init__(client, [Topic(kind, name) for kind, its in channels.items() for name in its])

    def confirmed(self) -> bytes:
        """
        @return: nothing.
        """
        self._client.channels = None
        self._client.settle()
        return b""


def confirmation(client: ClientState, name: str, channel: bytes | None) -> bytes:
    """
    @param name: the name of the command.
    @param channel: the channel or pattern; C{None}: there is none.

    @return: the frame about one channel, with the number of subscriptions that the client has. Those to sharded
        channels are counted separately.
    """
    version, subscribed = client.flavour[0], client.channels or {}
    kinds = ("ssubscribe",) if name in ("ssubscribe", "sunsubscribe") else ("subscribe", "psubscribe")
    count = sum(len(subscribed.get(each, ())) for each in kinds)
    mark = b">" if version == 3 else b"*"
    shown = answers.null(version) if channel is None else answers.bulk(channel)
    return b"%b3\r\n%b%b:%d\r\n" % (mark, answers.bulk(name.encode()), shown, count)
