# -*- test-case-name: tests.wire.memcache.test_exchanges -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Bytes to frames, without any input or output: what a protocol looks like to the pool.

A I{dialect} (L{txconnpool.wire.memcache.dialect.Memcache} is the first) finds the requests in what a client sent and
says for each one what is to be done: forward it and expect a reply of one L{Command}, or follow a L{Directive}. The
replies of a server are then matched against the commands that are owed by L{matchReplies}, which is the same for every
protocol.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from re import Match
from typing import Any, Final, Protocol, TypeAlias

from txconnpool.errors import WireError

#: What a compiled regular expression's C{match} is to a command: bytes and a position.
Matcher: TypeAlias = Callable[[bytes, int], Match[bytes] | None]

#: Matches any reply.
EVERYTHING: Final[Matcher] = re.compile(b"").match

#: Bytes of one line of a server, at most. memcached builds lines in 1024 bytes (C{WRITE_BUFFER_SIZE}) and takes lines
#: of 2048; what is longer is not a line but a stream that lost its frames.
REPLY_LINE_MAX: Final = 2048


class Directive(enum.Enum):
    """
    What is to be done with a request that is not simply forwarded.
    """

    MORE = "wait for more bytes"
    ANSWER = "answer here, in its place in the order"
    INSTEAD = "send something else, whose reply nobody sees, and answer here"
    PARTS = "send it in parts, one by one, whose replies are one"
    CLOSE = "say the last words, then close"
    EVERYWHERE = "send to every server, give one reply"
    STATISTICS = "answer with our own statistics"


MORE: Final = Directive.MORE
ANSWER: Final = Directive.ANSWER
INSTEAD: Final = Directive.INSTEAD
PARTS: Final = Directive.PARTS
CLOSE: Final = Directive.CLOSE
EVERYWHERE: Final = Directive.EVERYWHERE
STATISTICS: Final = Directive.STATISTICS


class Admission(enum.Enum):
    """
    What may be done, besides, with a client who has to log in first.
    """

    ADMIT = "say so, and listen to the client from now on"


ADMIT: Final = Admission.ADMIT


def _wholeMatcher(first: Matcher, ending: bytes, keyAt: int, seeks: bool) -> Callable[[bytes, int, Any], int]:
    """
    Make what finds the commonest reply to a single request, which is there as a whole. The parameters are those of
    L{Command}.

    @return: called with bytes, a position and the request, if it is known. Gives where the reply ends; 0 if that is to
        be found out by L{matchReplies}.
    """
    size = len(ending)

    def whole(data: bytes, pos: int, request: Any) -> int:
        match = first(data, pos)
        if match is None:
            return 0
        key, length = match.group(1, 2)
        if length is None:
            return 0 if seeks else match.end()
        if keyAt and request and key != request[keyAt:-2]:
            return 0
        pos = match.end() + int(length or 0)
        return pos + size if data[pos : pos + size] == ending else 0

    return whole


class Command:
    """
    The command of the reply that a kind of request is owed.

    @ivar name: the command, for counters.
    @ivar index: a dense number for the command, for arrays of counters.
    @ivar idempotent: whether the request may be sent a second time when its connection was lost.
    @ivar first: matches the first line of a reply. Its groups are the key that it names, if it does, and the length of
        the body that follows; if this is not part of the match the reply is complete. An empty one stands for 0.
    @ivar after: matches what may stand after a body, always a line end first; its groups as those of C{first}.
    @ivar ending: what stands most often after the only body and ends the reply; C{after} matches it too.
    @ivar error: matches the errors that are one complete answer to a request.
    @ivar keysOf: lists the keys of requests, the last one first; C{None} if replies do not name their key.
    @ivar hidden: matches the replies that the client asked not to see; C{None} if it sees all.
    @ivar isLookup: whether a reply without a body says that nothing was found.
    @ivar multiKey: whether a request may ask for several keys.
    @ivar keyAt: where the key begins in a request for one, which goes on to the line end; 0 if replies do not name it.
    @ivar word: what stands before the key that a reply names.
    @ivar valueSeparator: what stands between the body of one value and the key of the next one.
    @ivar plain: whether a reply needs no second look: there is one key, and nothing is hidden.
    @ivar matchWhole: finds the end of the commonest reply to a single request, see L{_wholeMatcher}.
    """

    __slots__ = (
        "after",
        "ending",
        "error",
        "first",
        "hidden",
        "idempotent",
        "index",
        "isLookup",
        "keyAt",
        "keysOf",
        "matchWhole",
        "multiKey",
        "name",
        "plain",
        "valueSeparator",
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
        error: Matcher,
        hidden: Matcher | None = None,
        keysOf: Callable[[bytes], list[bytes]] | None = None,
        isLookup: bool = False,
        multiKey: bool = False,
        keyAt: int = 0,
        word: bytes = b"",
    ) -> None:
        self.name = name
        self.index = index
        self.idempotent = idempotent
        self.first = first
        self.after = after
        self.ending = ending
        self.error = error
        self.hidden = hidden
        self.keysOf = keysOf
        self.isLookup = isLookup
        self.multiKey = multiKey
        self.keyAt = keyAt
        self.word = word
        self.plain = hidden is None and not multiKey
        self.matchWhole = _wholeMatcher(first, ending, keyAt, isLookup)
        self.valueSeparator = b"\r\n" + word

    def but(
        self,
        *,
        idempotent: bool | None = None,
        hidden: Matcher | None = None,
        multiKey: bool = False,
    ) -> Command:
        """
        The same command, with something else.
        """
        return Command(
            self.name,
            self.index,
            self.idempotent if idempotent is None else idempotent,
            self.first,
            self.after,
            self.ending,
            self.error,
            self.hidden if hidden is None else hidden,
            self.keysOf,
            self.isLookup,
            self.multiKey or multiKey,
            self.keyAt,
            self.word,
        )

    def silent(self) -> Command:
        """
        The same command, with nothing of it to be seen.
        """
        return self.but(hidden=EVERYTHING)

    def __repr__(self) -> str:
        return f"<Command {self.name}{' quiet' if self.hidden else ''}>"


#: What a dialect says about the bytes at a position: C{(command or directive, end, count, payload)}.
Frame: TypeAlias = tuple[Command | Directive, int, int, Any]

#: The same about the bytes of a client who has not logged in: nothing is forwarded.
Verdict: TypeAlias = tuple[Directive | Admission, int, int, Any]


class Tally(Protocol):
    """
    Where it is counted what replies hold, as far as it is not one value each.

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
    command: Command,
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
                match = command.error(data, pos)
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


def skipTo(key: bytes, asked: list[bytes], command: Command) -> int:
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


def checkIncomplete(data: bytes, pos: int, line: int, command: Command) -> None:
    """
    What did not match must be a line that lacks its end.
    """
    if data.find(b"\n", line) >= 0:
        raise WireError(f"not a reply to {command.name}: {data[pos : pos + 80]!r}")
    if len(data) - pos > REPLY_LINE_MAX:
        raise WireError(f"a line of over {REPLY_LINE_MAX} bytes in reply to {command.name}: {data[pos : pos + 80]!r}")
