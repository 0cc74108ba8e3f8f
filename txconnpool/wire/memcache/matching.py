# -*- test-case-name: tests.wire.memcache.test_dialect -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Finds the replies of memcached in the bytes of a server.

L{MemcacheCommand} describes the replies to a command. L{matchReplies} compares received bytes with this description.
L{ReplyReader<txconnpool.wire.memcache.replyreader.ReplyReader>} does so for one connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice
from re import Match
from typing import Any, ClassVar, Final, Protocol, TypeAlias

from txconnpool import native
from txconnpool.errors import WireError
from txconnpool.wire import Command
from txconnpool.wire.joining import Gathered
from txconnpool.wire.joining import chosenJoin as joinEach
from txconnpool.wire.memcache.expiry import expiring
from txconnpool.wire.memcache.keys import collectReply, keyOf, requestFor
from txconnpool.wire.memcache.lines import chosenDivide as divideLines
from txconnpool.wire.memcache.lines import chosenKey as plainKey
from txconnpool.wire.memcache.values import chosenSeparate as separateReplies
from txconnpool.wire.shares import Shares

#: The method C{match} of a compiled regular expression, called with bytes and a position.
Matcher: TypeAlias = Callable[[bytes, int], Match[bytes] | None]

#: Matches any reply.
EVERYTHING: Final[Matcher] = re.compile(b"").match

#: The maximum length of a line from a server, in bytes. memcached builds lines of at most 1024 bytes
#: (C{WRITE_BUFFER_SIZE}) and accepts lines of 2048. Longer ones are a sign of a stream that is out of step.
REPLY_LINE_MAX: Final = 2048


#: Matches the first word of any reply.
_WORD: Final = re.compile(
    rb"(?:VALUE|END|(?:NOT_)?STORED|EXISTS|NOT_FOUND|DELETED|TOUCHED|OK|RESET|VERSION|STAT|ITEM|PREFIX"
    rb"|(?:CLIENT_|SERVER_)?ERROR|HD|VA|EN|NS|EX|NF|MN|ME)(?=[ \r\n])"
).match


def received(data: bytes, pos: int) -> str:
    """
    Describe unexpected bytes for an error. The bytes may be a value, a key or a password, so they are not in the text.

    @return: the length and the kind of the line at C{pos}, as the end of a sentence.
    """
    size = (data.find(b"\n", pos) + 1 or len(data)) - pos
    word = _WORD(data, pos)
    return f"received {size} bytes " + ("of another kind" if word is None else f"that begin with {word[0].decode()}")


def _wholeMatcher(first: Matcher, ending: bytes, keyAt: int, isLookup: bool) -> Callable[[bytes, int, Any, Any], int]:
    """
    Create the function C{matchWhole} of a L{MemcacheCommand}. The parameters are its attributes of the same names.
    """
    size = len(ending)

    def matchWhole(data: bytes, pos: int, request: Any, counters: Any) -> int:
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


#: The commands whose requests have the key after the name.
_PLAIN: Final = frozenset(
    ("get", "gets", "set", "add", "replace", "append", "prepend", "cas", "incr", "decr", "delete", "touch")
)


class MemcacheCommand(Command):
    """
    A command of memcached, and a description of its replies.

    @ivar first: matches the first line of a reply. Its two groups are the key in the line, if it has one, and the
        length of the body that follows. If the second group does not take part in the match, the reply is complete; if
        it is empty, the length is 0.
    @ivar after: matches the bytes that may follow a body, which begin with a line end. Its groups are those of
        C{first}.
    @ivar ending: the bytes that follow a body at the end of a reply. C{after} matches them too.
    @ivar errors: matches errors that are a complete reply to a request.
    @ivar keysOf: lists the keys of a request, the last one first; C{None} if the replies do not name keys.
    @ivar hidden: matches the replies that the client must not get, because its request was silent; C{None} if it gets
        all of them.
    @ivar keyAt: the position of the key in a request with one key, which ends at the line end; 0 if replies do not name
        keys.
    @ivar word: the bytes before the key in a reply.
    @ivar valueSeparator: the bytes between the body of a value and the key of the next one.
    @ivar gathers: whether the values are put in the order of other keys later. So they are found one by one when the
        reply is read. If the reply comes in several pieces, or not in the order of the keys, they are found when it is
        complete.
    @cvar lineEnd: the end of each line of a reply that has several, at least.
    @cvar matchTranslated: as C{matchWhole}, for replies that are translated; C{None} if all of them are read in parts.
    """

    continues: ClassVar[bool] = True
    lineEnd: ClassVar[bytes] = b"\r\n"
    matchTranslated: ClassVar[Any] = None

    __slots__ = (
        "_before", "_isPlain", "after", "ending", "errors", "first", "gathers", "hidden", "keyAt", "keysOf",
        "valueSeparator", "word",
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
        effects: frozenset[bytes] = frozenset(),
    ) -> None:
        # Hidden replies are always left to the reader. Those to requests with several keys have another matcher, see
        # L{severalMatcher<txconnpool.wire.memcache.values.severalMatcher>}.
        plain = hidden is None and not multiKey
        super().__init__(
            name,
            index,
            idempotent=idempotent,
            keepsRequest=keysOf is not None,
            isLookup=isLookup,
            multiKey=multiKey,
            matchWhole=_wholeMatcher(first, ending, keyAt, isLookup) if plain else None,
            effects=effects,
        )
        self.first = first
        self.after = after
        self.ending = ending
        self.errors = errors
        self.hidden = hidden
        self.keysOf = keysOf
        self.keyAt = keyAt
        self.word = word
        self.valueSeparator = b"\r\n" + word
        self.gathers = False
        self._before = name.encode() + b" "
        # Only the function in C is faster than keyOf.
        self._isPlain = native.extension is not None and name in _PLAIN

    def variant(
        self,
        *,
        idempotent: bool | None = None,
        hidden: Matcher | None = None,
        multiKey: bool = False,
        effects: frozenset[bytes] | None = None,
        errors: Matcher | None = None,
    ) -> MemcacheCommand:
        """
        @return: the same command with other properties. It has the same index, so both are counted together.
        """
        return MemcacheCommand(
            self.name,
            self.index,
            self.idempotent if idempotent is None else idempotent,
            self.first,
            self.after,
            self.ending,
            self.errors if errors is None else errors,
            self.hidden if hidden is None else hidden,
            self.keysOf,
            self.isLookup,
            self.multiKey or multiKey,
            self.keyAt,
            self.word,
            self.effects if effects is None else effects,
        )

    def silent(self) -> MemcacheCommand:
        """
        @return: the same command for requests with C{noreply}, whose replies are all hidden.
        """
        return self.variant(hidden=EVERYTHING)

    def visible(self, reply: bytes) -> bytes:
        """
        @return: the bytes that the client gets of a complete reply.
        """
        return b"" if self.hidden is not None and self.hidden(reply, 0) else reply

    def translate(self, data: bytes, pos: int, end: int, due: int, done: int) -> bytes | None:
        """
        Translate bytes of a reply, if the command C{translates}.

        @param data: C{data[pos:end]} are verified bytes: from the start of the reply, or from where the last call
            ended.
        @param due: the number of bytes of a body that were not received before C{pos}; -1 at the start of the reply.
        @param done: whether the reply is complete: 0 or 1.

        @return: the bytes for the client; C{None} if the whole reply is needed. The method is then called again with
            the same bytes and more.
        """
        raise NotImplementedError(f"{self.name} is never translated")

    def key(self, data: bytes, pos: int) -> bytes | None:
        """
        @return: the key of a request with one key.
        """
        key = plainKey(data, pos, self._before) if self._isPlain else None
        return keyOf(data, pos) if key is None else key

    def expiring(self, request: bytes, seconds: int) -> bytes:
        """
        @return: the request, with an expiry time of at most C{seconds}.
        """
        return expiring(request, seconds)

    def keys(self, request: bytes) -> list[bytes]:
        """
        @return: the keys of a retrieval.
        """
        assert self.keysOf is not None
        keys = self.keysOf(request)
        keys.reverse()
        return [key for key in keys if key] if b"  " in request or request.endswith(b" \r\n") else keys

    def shares(self, requests: list[bytes], indexes: Any, most: int) -> Shares:
        """
        @return: the shares of retrievals, see L{Command.shares}.
        """
        divided = divideLines(requests, self._before, indexes, most) if self.part.merges else None
        return divided or super().shares(requests, indexes, most)

    def united(self, requests: Sequence[bytes]) -> bytes:
        """
        @return: one retrieval in place of several.
        """
        if self.part.merges and all(request.startswith(b"get") for request in requests):
            return b"".join([self._before[:-1], *[request[len(self.name) : -2] for request in requests], b"\r\n"])
        return super().united(requests)

    def subset(self, request: bytes, keys: list[bytes]) -> bytes:
        """
        @return: a retrieval of these keys.
        """
        return requestFor(request, keys)

    def values(self, keys: list[bytes], reply: bytes) -> list[bytes] | None:
        """
        @return: the value of each key in a reply, with the line before it; C{None} for an error.
        """
        found: dict[bytes, bytes] = {}
        return [found.get(key, b"") for key in keys] if collectReply(reply, found) else None

    def gather(self, order: list[int], values: list[list[bytes]], merged: bool) -> bytes:
        """
        @return: the values in the order of the keys, and C{END} after them, or after each.
        """
        ((_, reply),), _ = self.gatherEach([order], values, order[0], merged)
        return reply

    def gatherEach(self, orders: list[list[int]], values: list[Any], arrived: int, merged: bool) -> Gathered:
        """
        @return: the replies that are complete, see L{Command.gatherEach}.
        """
        return joinEach(orders, values, arrived, b"", b"END\r\n" if merged else b"", b"END\r\n")

    def separated(self, requests: list[bytes], reply: bytes) -> list[bytes] | None:
        """
        @return: the replies to retrievals, each with its values in the order of its keys; C{None} for an error.
        """
        # They begin with the name and one space: all others were put into this form.
        replies = separateReplies(reply, requests, len(self._before), self.name == "gets")
        if replies is not None:
            return replies
        keys = [self.keys(request) for request in requests]
        values = self.values([key for its in keys for key in its], reply)
        if values is None:
            return None
        following = iter(values)
        return [b"".join(islice(following, len(its))) + b"END\r\n" for its in keys]

    def divide(self, request: bytes, count: int) -> tuple[bytes, bytes]:
        """
        @return: two requests in place of one into which several C{get}s were merged.
        """
        keys = request[4:-2].split(b" ")
        return b"get %b\r\n" % b" ".join(keys[:count]), b"get %b\r\n" % b" ".join(keys[count:])

    def join(self, replies: Sequence[bytes]) -> bytes:
        """
        @return: one reply in place of those of several servers: the first that is not C{OK}, if there is one.
        """
        return self.visible(next((reply for reply in replies if reply != b"OK\r\n"), replies[0]))

    def withoutEnd(self, data: bytes) -> bytes | None:
        """
        @return: the values at the end of a reply, without C{END}.
        """
        return data[:-5] if data == b"END\r\n" or data.endswith(b"\r\nEND\r\n") else None

    def __repr__(self) -> str:
        return f"<MemcacheCommand {self.name}{' quiet' if self.hidden else ''}>"


class DumpCommand(MemcacheCommand):
    """
    A command whose reply has a line for each key of a server.
    """

    __slots__ = ()

    lineEnd: ClassVar[bytes] = b"\n"

    def withoutEnd(self, data: bytes) -> bytes | None:
        """
        @return: the lines at the end of a reply, without C{END} or, of C{mgdump}, C{EN}.
        """
        for end in (b"END\r\n", b"EN\r\n"):
            if data == end or data.endswith(b"\n" + end):
                return data[: -len(end)]
        return None


class Tally(Protocol):
    """
    Counts what L{matchReplies} finds in replies, except replies with exactly one value.

    @ivar missed: replies to reads without a value.
    @ivar more: values beyond the first in a reply to a request with several keys; -1 if the reply is an error.
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
    skipped: list[bytes] | None = None,
) -> tuple[int, int, int]:
    """
    Match received bytes against the replies to one or more requests with one command.

    @param data: the received bytes. Those before C{pos} are processed already.
    @param command: the command of the requests.
    @param count: the number of replies that are due, including one that has begun.
    @param due: -1 at the start of a reply; else the number of bytes of a body that have not been received.
        C{command.after} matches the bytes after the body.
    @param asked: the keys that may still occur in the replies, the next one last. The keys of values are removed, and
        those that were skipped. C{None} if keys are not compared.
    @param tally: where to count; C{None}: nothing is counted.
    @param skipped: the keys that were skipped, in the reply to a request with several keys. They may still occur. Keys
        are added and removed.

    @return: the new C{pos}, C{count} and C{due}. The bytes before C{pos} are verified and may be forwarded. If replies
        are due and bytes are left after C{pos}, these bytes are an incomplete line.

    @raise WireError: the bytes are not such replies.
    """
    first = command.first
    ending = command.ending
    size = len(data)
    bare = more = failed = 0
    guess = -1  # how many values _skipAlike has skipped; after 0 it is not called again
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
                if key != (following := asked.pop() if asked else b""):
                    _skipTo(key, following, asked, skipped, command)
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
            lineEnd = command.lineEnd
            if not lineEnd.startswith(data[pos : pos + len(lineEnd)]):
                raise WireError(f"expected the end of a value in reply to {command.name}, {received(data, pos)}")
            checkIncomplete(data, pos, pos + len(lineEnd), command)
            due = 0
            break
        pos = match.end()
        key, length = match.group(1, 2)
        if length is None:
            count -= 1
            due = -1
        else:
            if asked is not None and key != (following := asked.pop() if asked else b""):
                _skipTo(key, following, asked, skipped, command)
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


def _skipAlike(data: bytes, pos: int, body: int, words: bytes, valueSeparator: bytes, asked: list[bytes]) -> int:
    """
    Skip consecutive values whose lines differ only in the key. Comparing bytes with the expected line takes half the
    time of parsing it.

    @param pos: the position of a body.
    @param body: the length of this body, and of the next ones.
    @param words: the bytes between the key and the body in a line.
    @param valueSeparator: the bytes between a body and the next key.
    @param asked: the keys of the values that may follow. The keys of skipped values are removed.

    @return: the position of the body of the last of these values.
    """
    found = 0
    for key in reversed(asked):
        line = valueSeparator + key + words
        if not (key and data.startswith(line, pos + body)):
            break
        pos += body + len(line)
        found += 1
    if found:
        del asked[-found:]
    return pos


def _skipTo(
    key: bytes, following: bytes, asked: list[bytes], skipped: list[bytes] | None, command: MemcacheCommand
) -> None:
    """
    Skip requested keys up to the key of a value, or find it among those that were skipped.

    There are at most a thousand keys.

    @param following: the key that was expected, which is removed from C{asked} already; empty if there is none.

    @raise WireError: the key was not requested, or all its values have come.
    """
    if command.multiKey and skipped is not None:
        if following:
            skipped.append(following)
        while asked:
            other = asked.pop()
            if other == key:
                return
            skipped.append(other)
        if key in skipped:
            skipped.remove(key)
            return
    raise WireError(f"a value in reply to {command.name} that was not requested")


def checkIncomplete(data: bytes, pos: int, line: int, command: MemcacheCommand) -> None:
    """
    Check that bytes that match no reply are the beginning of a line that may still match.

    @raise WireError: they are a complete line, or too long.
    """
    if data.find(b"\n", line) >= 0:
        raise WireError(f"expected a reply to {command.name}, {received(data, pos)}")
    if len(data) - pos > REPLY_LINE_MAX:
        raise WireError(
            f"expected a line of up to {REPLY_LINE_MAX} bytes in reply to {command.name}, {received(data, pos)}"
        )
