# -*- test-case-name: tests.pool.test_connection -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Reads the replies of memcached on one connection: finds their ends, selects the bytes for the client, and counts hits
and misses.
"""

from __future__ import annotations

from typing import Any, Final

from txconnpool.errors import WireError
from txconnpool.wire import ReplyCounters
from txconnpool.wire.memcache.keys import layoutOf
from txconnpool.wire.memcache.matching import REPLY_LINE_MAX, MemcacheCommand, matchReplies
from txconnpool.wire.memcache.reordering import HeldReplies
from txconnpool.wire.memcache.replies import LAYOUTS, SEVERAL, TOUCHES
from txconnpool.wire.memcache.runs import matchRun
from txconnpool.wire.memcache.values import chosenFind as findValues
from txconnpool.wire.memcache.values import countKeys

#: The same as L{LAYOUTS}, by the command of a part of such a request.
_LAYOUTS_OF_PARTS: Final[dict[Any, tuple[int, bool]]] = {SEVERAL[each].part: at for each, at in LAYOUTS.items()}


class ReplyReader:
    """
    An L{IReplyReader<txconnpool.wire.IReplyReader>}.

    @ivar left: the number of replies to the oldest request that are still due; 0 if none of its bytes were read.
    """

    __slots__ = ("_asked", "_due", "_found", "_held", "_skipped", "_wanted", "left", "pushes")

    def __init__(self) -> None:
        self.left = 0
        self.pushes = b""  # memcached sends only replies
        self._due = -1  # bytes of a body that are not received yet; -1: at the start of a reply
        self._asked: list[bytes] | None = None  # the keys that may still occur in the reply, the next one last
        self._skipped: list[bytes] = []  # keys that may still occur although values of later keys have come
        self._held: HeldReplies | None = None  # the last replies to merged requests, if they are held back
        self._wanted = 0  # the number of keys of the request, if it may have several
        self._found = 0  # the number of values beyond the first so far

    @property
    def begun(self) -> bool:
        """
        Whether bytes of an incomplete reply have been passed on.
        """
        return self._due >= 0

    @property
    def held(self) -> int:
        """
        The number of bytes that belong to replies that are held back.
        """
        return 0 if self._held is None else self._held.size

    def discard(self) -> None:
        """
        Drop the bytes that are held back, because nobody waits for these replies any more.
        """
        if self._held is not None:
            self._held.discard()

    def read(
        self, data: bytes, pos: int, command: MemcacheCommand, count: int, request: Any, counters: ReplyCounters
    ) -> tuple[int, int, Any]:
        """
        Read the bytes of a server from C{pos}.

        @return: the end of the bytes that belong to the request, the number of its replies that they complete, and the
            bytes for the client; C{None}: the same bytes. If the command C{gathers}, for the usual whole reply: the
            value for each key in place of the bytes.

        @raise WireError: the bytes are not such replies.
        """
        before = self.left
        if not before and command.translates:
            whole = command.matchTranslated
            if whole is not None and (end := whole(data, pos, request, counters)):
                return end, 1, command.translate(data, pos, end, -1, 1)
        if command.index in TOUCHES:
            counters = counters.touches
        if not before:
            values: list[bytes] | None = None
            if command.gathers:
                keyAt, isUnique = _LAYOUTS_OF_PARTS.get(command) or layoutOf(request)
                gathered = findValues(data, pos, request, keyAt, isUnique)
                if gathered is not None:
                    end, found, values = gathered
                    countKeys(len(values), found, counters)
                    return end, 1, values
            elif count > 1:
                run = self._readRun(data, pos, count, request, counters)
                if run is not None:
                    return run
            before = count
            keysOf = command.keysOf
            self._asked = keysOf(request) if request and keysOf is not None else None
            if command.multiKey:
                self._wanted = len(self._asked) if self._asked else 0
                if self._skipped:
                    self._skipped = []
        due, asked = self._due, self._asked
        if count > 1:
            if self._held is not None:
                return self._readHeld(data, pos, command, self._held, b"", before, before, counters)
            assert asked is not None, "a merged request was not kept"
            end, left, due, reply, values = matchRun(data, pos, command, before, due, asked, counters, before == count)
            if values is not None:
                assert command.keysOf is not None
                held = HeldReplies(command.keysOf(request)[left - 1 :: -1], values)
                return self._readHeld(data, end, command, held, reply, before, left, counters)
            self.left, self._due = left, due
            return end, before - left, reply
        end, self.left, dueThen = matchReplies(data, pos, command, before, due, asked, counters, self._skipped)
        done = before - self.left
        if command.multiKey:
            self._countKeys(command, request, done, counters)
        elif command.hidden is not None and due < 0 and command.hidden(data, pos):
            if done:
                return end, done, b""
            if dueThen > REPLY_LINE_MAX:
                raise WireError(f"{dueThen} bytes in a hidden reply to {command.name}")
            return pos, 0, b""  # a hidden reply is dropped as a whole, so it is read again from its start
        translated = None
        if command.translates and end > pos:
            translated = command.translate(data, pos, end, due, done)
            if translated is None:  # like a hidden reply, it is read again
                if dueThen > REPLY_LINE_MAX:
                    raise WireError(f"{dueThen} bytes in a reply to {command.name}")
                return pos, 0, b""
        self._due = dueThen
        return end, done, translated

    def _readRun(
        self, data: bytes, pos: int, count: int, request: bytes, counters: ReplyCounters
    ) -> tuple[int, int, bytes] | None:
        """
        Read the whole reply to merged requests.

        @return: as for L{read}; C{None} if the reply must be read in parts.
        """
        whole = findValues(data, pos, request, 4, False)
        if whole is None:
            return None
        end, found, values = whole
        counters.missed += count - found
        values.append(b"")
        return end, count, b"END\r\n".join(values)

    def _readHeld(
        self,
        data: bytes,
        pos: int,
        command: MemcacheCommand,
        held: HeldReplies,
        reply: bytes,
        before: int,
        left: int,
        counters: ReplyCounters,
    ) -> tuple[int, int, bytes]:
        """
        Read bytes of replies that are held back, from C{pos}.

        @param reply: bytes for the client that were read before C{pos}.
        @param before: the number of replies that were due before these bytes.
        @param left: the number of replies that are due after them, which are those that are held back.

        @return: as for L{read}.
        """
        end, complete = held.match(data, pos, command)
        if complete:
            rest, missed = held.finish()
            counters.missed += missed
            reply += rest
            left = 0
        # Only now: after an error, nothing of these bytes is passed on.
        self._held = None if complete else held
        self.left, self._due = left, -1
        return end, before - left, reply

    def push(self, data: bytes, pos: int, command: Any, request: Any) -> int:
        """
        @return: 0.
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
