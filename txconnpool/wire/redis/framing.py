# -*- test-case-name: tests.wire.redis.test_framing -*-
# Copyright txconnpool contributors. See LICENSE.
"""
How requests of Redis are written: an array of bulk strings, or an I{inline} request, which is a line of text.

Redis 7.0 accepts some requests that other versions reject: it does not look at the bytes after an argument, nor at the
byte after a CR. Such a request would be answered differently by each server, so it is rejected here, with the error
that Valkey 9 sends. All other errors are those of C{processMultibulkBuffer} and C{processInlineBuffer} in Redis 7.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from txconnpool import native
from txconnpool.wire import Frame
from txconnpool.wire.shares import Shares, divideEach

#: The longest line without an end: an inline request, or the header of an array or of an argument.
LINE_MAX: Final = 1 << 16

#: The greatest number of arguments of a request, as in Redis 6.2.
ARGUMENTS_MAX: Final = 1 << 20

#: The same before a login, and the greatest number of bytes of an argument then.
STRANGER_ARGUMENTS: Final = 10
STRANGER_BULK: Final = 16384

#: The greatest number of bytes of a request.
REQUEST_MAX: Final = 1 << 26

#: The number of bytes from which on an incomplete request is large.
LARGE: Final = 1 << 16

_HEAD: Final = re.compile(rb"\*([1-9][0-9]{0,5})\r\n\$([1-9][0-9]{0,2})\r\n").match
_SHORT: Final = re.compile(rb"(\*[23]\r\n\$[1-9][0-9]?\r\n[^\r\n]{1,99}\r\n)\$(0|[1-9][0-9]{0,8})\r\n").match
_ARRAY: Final = re.compile(rb"\*([1-9][0-9]{0,5})\r\n").match
_BULK: Final = re.compile(rb"\$(0|[1-9][0-9]{0,8})\r\n").match

#: The lines before words, by the number of bytes in these.
_HEADS: Final = [b"$%d" % size for size in range(1000)].__getitem__

#: If there are more strings than this, they are found all at once in so many bytes.
FEW: Final = 3
SPLIT_MAX: Final = 1 << 14

#: How many beginnings of requests are known.
HEADS_MAX: Final = 256

_NUMBER: Final = re.compile(rb"0|-?[1-9][0-9]{0,9}").fullmatch

_ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
_HEX: Final = re.compile(rb"\\x([0-9a-fA-F]{2})").match
_SPACE: Final = b" \t\n\v\f\r"


#: A command, and the least and the greatest number of words of its requests.
Usual = tuple[Any, int, int]

#: No request has so many words.
_UNUSUAL: Final[Usual] = (None, 1, 0)


class BrokenRequest(Exception):
    """
    Bytes that are no request. The client gets the text of the exception as an error, and is closed.
    """


def bulks(words: list[bytes]) -> bytes:
    """
    @return: the words as in a request, without its header.
    """
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def encodeWords(words: list[bytes]) -> bytes:
    """
    @return: the request with these words.
    """
    return b"*%d\r\n%b" % (len(words), bulks(words))


#: L{encodeWords}, or its equal in the extension.
encode: Final = native.choose(encodeWords)


def wordsOf(data: bytes, pos: int) -> list[bytes]:
    """
    @param data: bytes that contain a complete and valid request at C{pos}.

    @return: its words.
    """
    words = chosenWords(data, pos)
    if words is not None:
        return words
    end = data.index(b"\n", pos)
    if data[pos] != 42:
        return splitLine(data[pos:end].removesuffix(b"\r"))
    words = []
    count, pos = int(data[pos + 1 : end]), end + 1
    for _ in range(count):
        end = data.index(b"\n", pos)
        size, pos = int(data[pos + 1 : end]), end + 1
        words.append(data[pos : pos + size])
        pos += size + 2
    return words


def usualWords(data: bytes, pos: int) -> list[bytes] | None:
    """
    @return: the words of a usual request: a complete array of bulk strings; C{None} if it is no such request.
    """
    head = _ARRAY(data, pos)
    if head is None:
        return None
    count, end, bulk = int(head[1]), head.end(), _BULK
    if count > FEW and (found := splitStrings(data, end, count)) is not None:
        return found[0]
    words = []
    for _ in range(count):
        match = bulk(data, end)
        if match is None:
            return None
        start = match.end()
        end = start + int(match[1]) + 2
        if data[end - 2 : end] != b"\r\n":
            return None
        words.append(data[start : end - 2])
    return words


chosenWords: Final = native.choose(usualWords)


def splitStrings(data: bytes, pos: int, count: int) -> tuple[list[bytes], int] | None:
    """
    Find bulk strings all at once, which costs much less than one by one.

    @param pos: the position of the first one.
    @param count: how many there are.

    @return: the strings, and the position after them; C{None} if they must be looked at one by one: one has a line end
        in it or is long, or is no string, or some are missing.
    """
    text = data[pos : pos + SPLIT_MAX]
    *lines, rest = text.split(b"\r\n", 2 * count)
    words = lines[1::2]
    try:
        heads = list(map(_HEADS, map(len, words)))
    except IndexError:
        return None
    return (words, pos + len(text) - len(rest)) if len(words) == count and lines[::2] == heads else None


def splitLine(line: bytes) -> list[bytes]:
    """
    Split an inline request into words, as C{sdssplitargs} does: at white space, except in quotes, which may begin
    within a word. In double quotes there are escape sequences.

    @raise BrokenRequest: a quote is not closed, or the closing quote is not followed by white space.
    """
    words: list[bytes] = []
    pos, size = 0, len(line)
    while True:
        while pos < size and line[pos] in _SPACE:
            pos += 1
        if pos == size:
            return words
        word = bytearray()
        while pos < size and line[pos] not in _SPACE:
            if line[pos] in b"\"'":
                pos = _quoted(line, pos, word)
            else:
                word.append(line[pos])
                pos += 1
        words.append(bytes(word))


def _quoted(line: bytes, pos: int, word: bytearray) -> int:
    """
    Add a quoted text to a word.

    @param pos: the position of the opening quote.

    @return: the position after the closing one.
    """
    quote, size = line[pos], len(line)
    pos += 1
    while pos < size:
        byte = line[pos]
        if byte == quote:
            if pos + 1 < size and line[pos + 1] not in _SPACE:
                break
            return pos + 1
        if byte == 92 and quote == 34 and pos + 1 < size:
            hexadecimal = _HEX(line, pos)
            if hexadecimal is not None:
                word.append(int(hexadecimal[1], 16))
                pos += 4
                continue
            escaped = line[pos + 1 : pos + 2]
            word += _ESCAPES.get(escaped, escaped)
            pos += 2
        elif byte == 92 and quote == 39 and line[pos + 1 : pos + 2] == b"'":
            word.append(39)
            pos += 2
        else:
            word.append(byte)
            pos += 1
    raise BrokenRequest("Protocol error: unbalanced quotes in request")


def findCommand(data: bytes, pos: int, itemMax: int) -> tuple[int, int, bytes] | None:
    """
    Find a usual request: a complete array of bulk strings.

    @param itemMax: the greatest number of bytes of a word.

    @return: the end of the request, the number of its words, and the first one; C{None} if the request must be scanned
        completely.
    """
    head = _HEAD(data, pos)
    if head is None:
        return None
    count, start, bulk = int(head[1]), head.end(), _BULK
    end = start + int(head[2]) + 2
    name = data[start : end - 2]
    if data[end - 2 : end] != b"\r\n":
        return None
    if count > FEW and (found := splitStrings(data, end, count - 1)) is not None:
        words, end = found
        return (end, count, name) if max(map(len, words)) <= itemMax else None
    for _ in range(count - 1):
        match = bulk(data, end)
        if match is None:
            return None
        size = int(match[1])
        end = match.end() + size + 2
        if data[end - 2 : end] != b"\r\n" or size > itemMax:
            return None
    return end, count, name


def _findShort(data: bytes, pos: int, itemMax: int) -> tuple[int, int, bytes] | None:
    """
    Find a request with one argument, or with two, as L{findCommand} does. All up to the first argument is often the
    same as in earlier requests.
    """
    match = _SHORT(data, pos)
    if match is None:
        return None
    head, size = match.groups()
    count, name = _headOf(head)
    length, end = int(size), match.end()
    if length > itemMax or data[end + length : end + length + 2] != b"\r\n":
        return None
    end += length + 2
    if count == 3:
        match = _BULK(data, end)
        if match is None:
            return None
        length, end = int(match[1]), match.end()
        if length > itemMax or data[end + length : end + length + 2] != b"\r\n":
            return None
        end += length + 2
    return (end, count, name) if count else None


@lru_cache(HEADS_MAX)
def _headOf(head: bytes) -> tuple[int, bytes]:
    """
    @param head: the header of an array, and its first word, as C{_SHORT} finds them.

    @return: the number of words, and the first one; 0 if that has another length than it should.
    """
    count, size, name, _ = head.split(b"\r\n")
    return int(count[1:]) if int(size[1:]) == len(name) else 0, name


def findUsual(data: bytes, pos: int, itemMax: int, usual: Mapping[bytes, Usual]) -> Frame | None:
    """
    Find a usual request of a command that is forwarded without a further look.

    @param itemMax: the greatest number of bytes of a word.
    @param usual: these commands, by name.

    @return: the frame of the request; C{None} if it must be looked at.
    """
    found = _findShort(data, pos, itemMax) or findCommand(data, pos, itemMax)
    if found is None:
        return None
    end, count, name = found
    command, least, most = usual.get(name, _UNUSUAL)
    return (command, end, 1, None) if least <= count <= most else None


#: These functions, or their equals in the extension.
chosenFind: Final = native.choose(findCommand)
chosenUsual: Final = native.choose(findUsual)


def divideWords(requests: list[bytes], name: bytes, indexes: Any, most: int) -> Shares | None:
    """
    Divide usual requests, see L{usualWords}, into shares, each of which is for one server. All words after the first
    one are keys.

    @param name: the first word of the results, as L{bulks} has it.
    @param indexes: C{indexes[key]} is the index of the server of a key.
    @param most: the maximum number of keys in a share, at least 1. A server may get several.

    @return: for each request a list with the number of the share of each key; and the shares, each with its index, the
        request for its keys in their order, and their number; C{None} if one is another request.
    """
    keys: list[list[bytes]] = []
    for request in requests:
        words = usualWords(request, 0)
        if words is None:
            return None
        keys.append(words[1:])
    orders, shares = divideEach(keys, indexes, most)
    return orders, [(index, b"*%d\r\n%b%b" % (len(its) + 1, name, bulks(its)), len(its)) for index, its in shares]


#: L{divideWords}, or its equal in the extension.
chosenDivide: Final = native.choose(divideWords)


class Scanner:
    """
    Finds the end of a request, also of one that arrives in many pieces: what was scanned is not scanned again.

    @ivar count: the number of words of the request that was found last; 0 or less if it has no answer.
    @ivar needed: after a request that is incomplete, the number of its bytes with which to look at it again, not more
        than it has; 0 if that is not known before its next line end.
    @ivar active: whether a request is incomplete.
    @ivar bulkMax: the greatest number of bytes of a word.
    @ivar stranger: whether the client has not logged in, so that lower limits apply.
    """

    __slots__ = ("_at", "_left", "active", "bulkMax", "count", "needed", "stranger")

    def __init__(self, bulkMax: int, stranger: bool = False) -> None:
        self.bulkMax = bulkMax
        self.stranger = stranger
        self.active = False
        self.count = self.needed = self._at = self._left = 0

    def scan(self, data: bytes, pos: int) -> int:
        """
        @param pos: the position of a request that begins with C{*}.

        @return: the end of the request; 0 if it is incomplete. The method is then called again with more bytes.

        @raise BrokenRequest: the bytes are no request.
        """
        if not self.active:
            end = self._line(data, pos, "mbulk count")
            if not end:
                return 0
            self.count = self._number(data[pos + 1 : end - 2], ARGUMENTS_MAX, STRANGER_ARGUMENTS, "multibulk length")
            self._at, self._left = end - pos, max(0, self.count)
        self.active = True
        at, left = pos + self._at, self._left
        while left:
            start = self._line(data, at, "bulk count")
            if not start:
                self._pause(at - pos, left)
                self._wait(len(data) - pos, len(data) - pos + 1, at - pos + 6 * left)
                return 0
            if data[at] != 36:
                self._fail(f"expected '$', got '{chr(data[at])}'")
            size = self._number(data[at + 1 : start - 2], self.bulkMax, STRANGER_BULK, "bulk length")
            if size < 0:
                self._fail("invalid bulk length")
            end = start + size + 2
            if end - pos > REQUEST_MAX:
                self._fail("invalid bulk length")
            if end > len(data):
                self._pause(at - pos, left)
                self._wait(len(data) - pos, end - pos, end - pos + 6 * (left - 1))
                return 0
            if data[end - 2 : end] != b"\r\n":
                self._fail("invalid CRLF in request")
            at, left = end, left - 1
        self.active = False
        return at

    def _pause(self, at: int, left: int) -> None:
        self._at, self._left = at, left

    def _wait(self, size: int, least: int, complete: int) -> None:
        """
        Decide when to look at an incomplete request again: when an error in it may have arrived, so that a client that
        waits for the reply gets it. A large request is looked at again only when it has become an eighth larger,
        because each time all its bytes are put together again.

        @param size: the number of bytes that have arrived.
        @param least: the number of bytes with which more of it can be read.
        @param complete: the least number of bytes of the whole request.
        """
        self.needed = least if size < LARGE else max(least, min(complete, size + size // 8))

    def _line(self, data: bytes, pos: int, what: str) -> int:
        """
        @return: the end of the line at C{pos}; 0 if it is incomplete.
        """
        end = data.find(b"\r", pos, pos + LINE_MAX + 1)
        self.needed = 0
        if end < 0:
            if len(data) - pos > LINE_MAX:
                self._fail(f"too big {what} string")
            return 0
        if end + 1 == len(data):
            return 0
        if data[end + 1] != 10:
            self._fail("invalid CRLF in request")
        return end + 2

    def _number(self, digits: bytes, most: int, mostOfStranger: int, what: str) -> int:
        if _NUMBER(digits) is None or int(digits) > most:
            self._fail(f"invalid {what}")
        if self.stranger and int(digits) > mostOfStranger:
            self._fail(f"unauthenticated {what}")
        return int(digits)

    def _fail(self, text: str) -> None:
        self.active = False
        raise BrokenRequest(f"Protocol error: {text}")
