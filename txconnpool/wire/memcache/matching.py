# -*- test-case-name: tests.wire.memcache.test_matching -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The replies of memcached found in the bytes of a server.

L{MemcacheCommand} is a command with what its replies look like; L{matchReplies} compares bytes with that, and
L{ReplyReader} does so for one connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from re import Match
from typing import Any, Final, Protocol, TypeAlias

from txconnpool.errors import WireError
from txconnpool.wire import Command

#: The C{match} of a compiled regular expression: it takes bytes and a position.
Matcher: TypeAlias = Callable[[bytes, int], Match[bytes] | None]

#: Matches any reply.
EVERYTHING: Final[Matcher] = re.compile(b"").match

#: Bytes of one line of a server, at most. memcached builds lines in 1024 bytes (C{WRITE_BUFFER_SIZE}) and takes lines
#: of 2048; what is longer is not a line but a stream that lost its frames.
REPLY_LINE_MAX: Final = 2048


def _wholeMatcher(first: Matcher, ending: bytes, keyAt: int, isLookup: bool) -> Callable[[bytes, int, Any], int]:
    """
    Make C{matchWhole} of a L{MemcacheCommand}. The parameters are its attributes of the same names.
    """
    size = len(ending)

    def matchWhole(data: bytes, pos: int, request: Any) -> int:
        match = first(data, pos)
        if match is None:
            return 0
        key, length = match.group(1, 2)
        if length is None:
            return 0 if isLookup else match.end()
        if keyAt and request and key != request[keyAt:-2]:
            return 0
        pos = match.end() + int(length or 0)
        return pos + size if data[pos : pos + size] == ending else 0

    return matchWhole


class MemcacheCommand(Command):
    """
    A command of memcached, with what its replies look like.

    @ivar first: matches the first line of a reply. Its groups are the key that it names, if it does, and the length of
        the body that follows; if this is not part of the match the reply is complete. An empty one stands for 0.
    @ivar after: matches what may stand after a body, always a line end first; its groups as those of C{first}.
    @ivar ending: what stands most often after the only body and ends the reply; C{after} matches it too.
    @ivar errors: matches the errors that are one complete reply to a request.
    @ivar keysOf: lists the keys of requests, the last one first; C{None} if replies do not name their key.
    @ivar hidden: matches the replies that the client asked not to see; C{None} if it sees all.
    @ivar multiKey: whether a request may ask for several keys.
    @ivar keyAt: where the key begins in a request for one, which goes on to the line end; 0 if replies do not name it.
    @ivar word: what stands before the key that a reply names.
    @ivar valueSeparator: what stands between the body of one value and the key of the next one.
    @ivar substitute: what the client gets in place of any reply, if not C{None}.
    """

    __slots__ = (
        "after", "ending", "errors", "first", "hidden", "keyAt", "keysOf", "multiKey", "substitute", "valueSeparator",
        "word",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        index: int,
        idempotent: bool,
        first: Matcher,
        after: Matcher,
        ending: bytes,
        errors: Matcher,
        hidden: Matcher | None = None,
        keysOf: Callable[[bytes], list[bytes]] | None = None,
        isLookup: bool = False,
        multiKey: bool = False,
        keyAt: int = 0,
        word: bytes = b"",
        substitute: bytes | None = None,
    ) -> None:
        # A reply needs a second look where there are several keys or something is hidden.
        plain = hidden is None and not multiKey
        super().__init__(
            name,
            index,
            idempotent=idempotent,
            keepsRequest=keysOf is not None,
            isLookup=isLookup,
            matchWhole=_wholeMatcher(first, ending, keyAt, isLookup) if plain else None,
        )
        self.first = first
        self.after = after
        self.ending = ending
        self.errors = errors
        self.hidden = hidden
        self.keysOf = keysOf
        self.multiKey = multiKey
        self.keyAt = keyAt
        self.word = word
        self.valueSeparator = b"\r\n" + word
        self.substitute = substitute

    def variant(
        self,
        *,
        idempotent: bool | None = None,
        hidden: Matcher | None = None,
        multiKey: bool = False,
        substitute: bytes | None = None,
    ) -> MemcacheCommand:
        """
        @return: the same command with other properties. It is counted with this one.
        """
        return MemcacheCommand(
            self.name,
            self.index,
            self.idempotent if idempotent is None else idempotent,
            self.first,
            self.after,
            self.ending,
            self.errors,
            self.hidden if hidden is None else hidden,
            self.keysOf,
            self.isLookup,
            self.multiKey or multiKey,
            self.keyAt,
            self.word,
            substitute,
        )

    def silent(self) -> MemcacheCommand:
        """
        @return: the same command for requests whose client wants to see no reply.
        """
        return self.variant(hidden=EVERYTHING)

    def visible(self, reply: bytes) -> bytes:
        """
        @return: what a client sees of a complete reply.
        """
        if self.substitute is not None:
            return self.substitute
        return b"" if self.hidden is not None and self.hidden(reply, 0) else reply

    def divide(self, request: bytes, count: int) -> tuple[bytes, bytes]:
        """
        @return: two requests in place of one that several C{get}s were merged into.
        """
        keys = request[4:-2].split(b" ")
        return b"get %b\r\n" % b" ".join(keys[:count]), b"get %b\r\n" % b" ".join(keys[count:])

    def join(self, replies: Sequence[bytes]) -> bytes:
        """
        @return: one reply in place of those of several servers: an error if there is one.
        """
        return self.visible(next((reply for reply in replies if b"ERROR" in reply.split(b" ", 1)[0]), replies[0]))

    def withoutEnd(self, data: bytes) -> bytes | None:
        """
        @return: the values that end with these bytes, without the C{END} behind them.
        """
        return data[:-5] if data == b"END\r\n" or data.endswith(b"\r\nEND\r\n") else None

    def __repr__(self) -> str:
        return f"<MemcacheCommand {self.name}{' quiet' if self.hidden else ''}>"


class Tally(Protocol):
    """
    Where L{matchReplies} counts what replies hold, as far as it is not one value each.

    @ivar missed: replies in which nothing was found of what was to be read.
    @ivar more: values beyond the first of a reply to a request for several keys; -1 if it is an error.
    @ivar failed: replies that are errors, by the index of their command.
    """

    missed: int
    more: int
    failed: list[int]


def matchReplies(
    data: bytes,
    pos: int,
    command: MemcacheCommand,
    count: int,
    due: int,
    asked: list[bytes] | None = None,
    tally: Tally | None = None,
) -> tuple[int, int, int]:
    """
    Match a server's bytes against the replies it owes.

    @param data: the bytes, of which those before C{pos} are done with.
    @param command: what is owed.
    @param count: how many replies of that command are owed, the one begun included.
    @param due: -1 at the start of a reply; else so many bytes of a body are still to come, which C{command.after}
        follows.
    @param asked: the keys that the replies may still be about, the next one last; those that have had their turn are
        taken away. C{None} if that is not to be looked at.
    @param tally: where to count what they hold.

    @return: C{pos}, C{count} and C{due} after as many bytes as are verified: these belong to the replies and may be
        passed on at once. If replies are still owed and bytes are left, these are an incomplete line.

    @raise WireError: the bytes are not what is owed.
    """
    first = command.first
    ending = command.ending
    size = len(data)
    later = asked if asked and command.multiKey else []  # the keys that a value may be about instead of the next one
    bare = more = failed = 0
    guess = -1  # how many of the values that followed were like the last one; no more guesses after a wrong one
    while count and pos < size:
        if due < 0:
            match = first(data, pos)
            if match is None:
                match = command.errors(data, pos)
                if match is None:
                    checkIncomplete(data, pos, pos, command)
                    break
                pos = match.end()
                count -= 1
                failed += 1
                if asked:
                    asked.pop()
                continue
            pos = match.end()
            key, length = match.group(1, 2)
            if length is None:
                count -= 1
                bare += 1
                continue
            body = int(length or 0)
            if asked is not None:
                if not (asked and key == asked.pop()):
                    skipTo(key, later, command)
                if asked and guess and command.multiKey:
                    left = len(asked)
                    pos = _skipAlike(data, pos, body, data[match.end(1) : pos], command.valueSeparator, asked)
                    guess = left - len(asked)
                    more += guess
            pos += body
            if data[pos : pos + len(ending)] == ending:
                pos += len(ending)
                count -= 1
                continue
        else:
            pos += due
        if pos >= size:
            due = pos - size
            pos = size
            break
        match = command.after(data, pos)
        if match is None:
            if not b"\r\n".startswith(data[pos : pos + 2]):
                raise WireError(f"a body of a reply to {command.name} is followed by {data[pos : pos + 40]!r}")
            checkIncomplete(data, pos, pos + 2, command)
            due = 0
            break
        pos = match.end()
        key, length = match.group(1, 2)
        if length is None:
            count -= 1
            due = -1
        else:
            if asked is not None and not (asked and key == asked.pop()):
                skipTo(key, later, command)
            due = int(length or 0)
            more += 1
    if (bare or more or failed) and tally is not None:
        if command.isLookup:
            tally.missed += bare
            if command.multiKey:
                tally.more += more
        if failed:
            tally.failed[command.index] += failed
            if command.multiKey:
                tally.more = -1
    return pos, count, due


def _skipAlike(data: bytes, pos: int, body: int, words: bytes, joint: bytes, asked: list[bytes]) -> int:
    """
    Values that follow one another are often told of in the same words but for the key. It costs half to look for these
    than to look what they are.

    @param pos: where a body begins, whose length is C{body}.
    @param words: what stands between its key and the body.
    @param joint: what stands between a body and the next key.
    @param asked: the keys of the values that may follow; those found are taken away.

    @return: where the body of the last of them begins.
    """
    found = 0
    for key in reversed(asked):
        told = joint + key + words
        if not (key and data.startswith(told, pos + body)):
            break
        pos += body + len(told)
        found += 1
    if found:
        del asked[-found:]
    return pos


def skipTo(key: bytes, asked: list[bytes], command: MemcacheCommand) -> int:
    """
    Take away the keys that were asked for up to that of a value. The server has none for those before it.

    @return: how many there were before it.

    @raise WireError: it was not asked for, or its turn is over.
    """
    before = len(asked)
    while asked:
        if asked.pop() == key:
            return before - len(asked) - 1
    raise WireError(f"a value in reply to {command.name} that was not asked for")


def checkIncomplete(data: bytes, pos: int, line: int, command: MemcacheCommand) -> None:
    """
    What did not match must be a line that lacks its end.
    """
    if data.find(b"\n", line) >= 0:
        raise WireError(f"not a reply to {command.name}: {data[pos : pos + 80]!r}")
    if len(data) - pos > REPLY_LINE_MAX:
        raise WireError(f"a line of over {REPLY_LINE_MAX} bytes in reply to {command.name}: {data[pos : pos + 80]!r}")
