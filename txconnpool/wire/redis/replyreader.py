# -*- test-case-name: tests.wire.redis.test_replyreader -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Finds the ends of replies on one connection, of RESP2 and of RESP3.

A reply may be nested to any depth: the elements that are still to come are counted, so that no stack is needed. An
attribute belongs to the element after it, and adds only its own elements. A push may stand between the elements of a
reply, where it counts for nothing (Redis 6.2 and 7.0 send it there in a transaction).
"""

from __future__ import annotations

import re
from typing import Any, Final

from txconnpool.errors import WireError
from txconnpool.wire import Decline, Declined, ReplyCounters
from txconnpool.wire.redis.commands import RedisCommand
from txconnpool.wire.redis.elements import LINE, chosenPass, findValues
from txconnpool.wire.redis.framing import wordsOf

#: An incomplete reply is passed on in parts from this number of bytes on. Below it, the reply is read again when more
#: bytes have arrived: then a client whose reply was not begun gets an error if the connection is lost.
STREAM: Final = 1 << 14

#: The longest line of a reply, in bytes. Redis has no limit for errors, which a script may make.
LINE_MAX: Final = 1 << 20

_START: Final = frozenset(b"+-:,(_#$=!*~%|>")

#: Frames of a subscriber that are replies to its requests.
_CONFIRMATION: Final = re.compile(rb"[*>]3\r\n\$\d+\r\n([ps]?(?:un)?subscribe)\r\n").match
_CHANNEL: Final = re.compile(rb"\$(\d+)\r\n").match
_MESSAGE: Final = re.compile(rb"[*>][34]\r\n\$\d+\r\n[ps]?message\r\n").match
_SHARDED: Final = frozenset(("ssubscribe", "sunsubscribe"))
#: Errors that are made before a command is executed (C{processCommand} of Redis).
_DECLINED: Final = re.compile(rb"-(LOADING|MASTERDOWN|READONLY) ").match

_COUNT: Final = re.compile(rb":(0|[1-9][0-9]*)\r\n\Z").search

#: The longest beginning of a frame of a subscriber, by which its kind is known.
_KIND_MAX: Final = 40


class ReplyReader:
    """
    An L{IReplyReader<txconnpool.wire.IReplyReader>}.

    @ivar left: 1 if a reply was read in part, else 0.
    @ivar pushes: with what frames that are no replies may begin. Messages of RESP2 are arrays, and there are none
        without a subscription.
    """

    __slots__ = ("_begun", "_due", "_elements", "_subscribed", "left", "pushes")

    #: No replies are held back.
    held = 0

    def __init__(self) -> None:
        self.left = 0
        self.pushes = b">"
        self._begun = False  # whether a part of the reply was passed on
        self._elements = 0  # the number of elements that are still to come
        self._due = 0  # the number of bytes of a string that are still to come, with its line end
        # Whether this connection has subscriptions: 1 to channels or patterns, 2 to sharded channels, 3 both.
        self._subscribed = 0

    @property
    def begun(self) -> bool:
        """
        Whether bytes of an incomplete reply have been passed on.
        """
        return self._begun

    def discard(self) -> None:
        """
        Do nothing: no reply is held back.
        """

    def read(
        self, data: bytes, pos: int, command: RedisCommand, count: int, request: Any, counters: ReplyCounters
    ) -> tuple[int, int, Any]:
        """
        Read the bytes of a server from C{pos}, see L{IReplyReader.read<txconnpool.wire.IReplyReader.read>}. If the
        command C{gathers}, the result for a whole array has its elements in place of the bytes.
        """
        resumed = self._elements or self._due
        if resumed:
            elements = self._elements
        else:
            elements = 1
            if command.confirms and data[pos] in b"*>":
                return self._confirmed(data, pos, command, request)
            if command.gathers and (whole := findValues(data, pos, request)) is not None:
                end, missing, found = whole
                counters.missed += missing > 0
                self.left = 0
                return end, 1, found
        end, elements, due, nulls = scan(data, pos, elements, self._due)
        if elements or due:
            self.left = 1
            if not (self._begun or command.silent) and end - pos < STREAM:
                return pos, 0, None  # it is read again, from its beginning
            self._begun, self._elements, self._due = not command.silent, elements, due
            return end, 0, b"" if command.silent else None
        self._begun, self._elements, self._due, self.left = False, 0, 0, 0
        if not resumed and data[pos] == 45:
            counters.failed[command.index] += 1
            if count == 1 and not (command.silent or command.runsScript):
                _checkDeclined(data, pos, end)
        elif command.gathers and not resumed and data[pos] == 42:
            raise WireError("an array of another number of values than keys")
        elif command.isLookup and nulls:
            counters.missed += 1
        return end, 1, b"" if command.silent else None

    def _confirmed(self, data: bytes, pos: int, command: RedisCommand, request: bytes) -> tuple[int, int, bytes | None]:
        """
        Read the frames that confirm a request for channels, one for each.
        """
        end = pos
        for _ in range(len(wordsOf(request, 0)) - 1):
            if end < len(data) and data[end] not in b"*>":
                raise WireError("expected the confirmation of a subscription")
            # A push within a reply counts for nothing; a confirmation is one.
            start = end
            end, elements, _, _ = scan(data, start, 1, 0, True)
            if elements:
                self.left = 1
                return pos, 0, None
            if not _CONFIRMATION(data, start):
                raise WireError("expected the confirmation of a subscription")
        number = _COUNT(data[:end], max(pos, end - 24))
        kind = 2 if command.name in _SHARDED else 1  # they are counted separately
        self._subscribed &= ~kind
        if number is None or number[1] != b"0":
            self._subscribed |= kind
        self.pushes = b">*" if self._subscribed else b">"
        self.left = 0
        return end, 1, b"" if command.silent else None

    def push(self, data: bytes, pos: int, command: RedisCommand | None, request: Any) -> int:
        """
        Find a message, or another frame that no request asked for. One is C{sunsubscribe}, if the slot of a channel has
        got another node. If the client ends the subscription to this channel too, it counts as the reply to that.
        """
        first = data[pos]
        if first != 62 and not (first == 42 and self._subscribed):
            return 0
        confirmation = _CONFIRMATION(data, pos)
        if confirmation is not None:
            if confirmation[1] != b"sunsubscribe":
                return 0
            if command is not None and command.name == "sunsubscribe":
                channel = _CHANNEL(data, confirmation.end())
                if channel is None or len(data) < (end := channel.end() + int(channel[1])):
                    return -1
                if data[channel.end() : end] in wordsOf(request, 0)[1:]:
                    return 0
        elif first == 42 and not _MESSAGE(data, pos):
            return 0 if len(data) - pos > _KIND_MAX else self._perhaps(data, pos)
        end, elements, due, _ = scan(data, pos, 1, 0, True)
        return -1 if elements or due else end

    def _perhaps(self, data: bytes, pos: int) -> int:
        """
        @return: -1 if the bytes may be the beginning of a message; else 0.
        """
        _, elements, due, _ = scan(data, pos, 1, 0, True)
        return -1 if elements or due else 0


def _checkDeclined(data: bytes, pos: int, end: int) -> None:
    """
    @raise Declined: the error says that the server has not executed the request, and cannot do so now.
    """
    match = _DECLINED(data, pos)
    if match is not None:
        raise Declined(end, Decline.READ_ONLY if match[1] == b"READONLY" else Decline.NOT_READY)


def scan(data: bytes, pos: int, elements: int, due: int, pushes: bool = False) -> tuple[int, int, int, int]:
    """
    Find the end of elements of replies.

    @param elements: how many there are.
    @param due: the number of bytes of a string that come first.
    @param pushes: whether a push is an element.

    @return: the end of what was scanned, how many elements and bytes of a string are still to come, and how many nulls
        were found.

    @raise WireError: the bytes are no reply.
    """
    size, nulls = len(data), 0
    if due:
        end = min(pos + due, size)
        due -= end - pos
        if (
            due < 2
            and data[end - min(2 - due, end - pos) : end] != b"\r\n"[2 - due - min(2 - due, end - pos) : 2 - due]
        ):
            raise WireError("a string without its line end")
        if due:
            return end, elements, due, 0
        pos = end
    if elements and (passed := chosenPass(data, pos, elements, pushes)) is not None:
        pos, elements, nulls = passed
    if not elements:
        return pos, 0, 0, nulls
    match = LINE(data, pos)
    if match is None:
        _check(data, pos)
        return pos, elements, 0, nulls
    due = match.end() + int(match[2]) + 2 - size
    if due <= 0 or (due == 1 and data[-1] != 13):
        raise WireError("a string without its line end")
    return size, elements - 1, due, nulls


def _check(data: bytes, pos: int) -> None:
    """
    Check the beginning of an element whose line is incomplete.
    """
    if pos < len(data) and data[pos] not in _START:
        raise WireError(f"a reply that begins with the byte {data[pos]}")
    end = data.find(b"\n", pos)
    if end >= 0 or len(data) - pos > LINE_MAX:
        raise WireError("a reply with an invalid line")
