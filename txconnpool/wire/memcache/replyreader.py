# -*- test-case-name: tests.pool.test_connection -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Reads the replies of memcached on one connection: finds their ends, selects the bytes for the client, and counts hits
and misses.
"""

from __future__ import annotations

from typing import Any

from txconnpool.errors import WireError
from txconnpool.wire import ReplyCounters
from txconnpool.wire.memcache.matching import REPLY_LINE_MAX, MemcacheCommand, matchReplies
from txconnpool.wire.memcache.runs import matchRun


class ReplyReader:
    """
    An L{IReplyReader<txconnpool.wire.IReplyReader>}.

    @ivar left: the number of replies to the oldest request that are still due; 0 if none of its bytes were read.
    """

    __slots__ = ("_asked", "_due", "_found", "_wanted", "left")

    def __init__(self) -> None:
        self.left = 0
        self._due = -1  # bytes of a body that are not received yet; -1: at the start of a reply
        self._asked: list[bytes] | None = None  # the keys that may still occur in the reply, the next one last
        self._wanted = 0  # the number of keys of the request, if it may have several
        self._found = 0  # the number of values beyond the first so far

    @property
    def begun(self) -> bool:
        """
        Whether bytes of an incomplete reply have been passed on.
        """
        return self._due >= 0

    def read(
        self, data: bytes, pos: int, command: MemcacheCommand, count: int, request: Any, counters: ReplyCounters
    ) -> tuple[int, int, bytes | None]:
        """
        Read the bytes of a server from C{pos}.

        @return: the end of the bytes that belong to the request, the number of its replies that they complete, and the
            bytes for the client; C{None}: the same bytes.

        @raise WireError: the bytes are not such replies.
        """
        before = self.left
        if not before:
            before = count
            keysOf = command.keysOf
            self._asked = keysOf(request) if request and keysOf is not None else None
            if command.multiKey:
                self._wanted = len(self._asked) if self._asked else 0
        due, asked = self._due, self._asked
        if count > 1:
            assert asked is not None, "a merged request was not kept"
            end, self.left, self._due, reply = matchRun(
                data, pos, command, before, due, asked, counters, before == count
            )
            return end, before - self.left, reply
        end, self.left, dueThen = matchReplies(data, pos, command, before, due, asked, counters)
        done = before - self.left
        if command.multiKey:
            self._countKeys(command, request, done, counters)
        elif command.hidden is not None and due < 0 and command.hidden(data, pos):
            if done:
                return end, done, b""
            if dueThen > REPLY_LINE_MAX:
                raise WireError(f"{dueThen} bytes in a hidden reply to {command.name}")
            return pos, 0, b""  # a hidden reply is dropped as a whole, so it is read again from its start
        self._due = dueThen
        return end, done, None

    def push(self, data: bytes, pos: int) -> int:
        """
        @return: 0: memcached sends only replies.
        """
        return 0

    def _countKeys(self, command: MemcacheCommand, request: Any, done: int, counters: ReplyCounters) -> None:
        """
        Count the hits and misses of a request with several keys, when its reply is complete.
        """
        found = self._found + counters.more
        counters.more = 0
        if not done:
            self._found = found
            return
        self._found = 0
        if found >= 0:
            keys = found
            if request and self._wanted - 1 != found:
                assert command.keysOf is not None
                keys = sum(map(bool, command.keysOf(request))) - 1
                counters.moreMissed += keys - found
            counters.moreKeys += keys
