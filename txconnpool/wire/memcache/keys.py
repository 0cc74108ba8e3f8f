# -*- test-case-name: tests.wire.memcache.test_keys -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The keys of requests, and what the replies to retrievals have for each key. All of this is used only if there are
several servers by key, and on bytes that were checked before.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from re import Match
from typing import Final

from txconnpool.wire import ReplyCounters

_KEYED: Final = re.compile(
    rb" *(?:(m[gsdae])|gats? +[^ \n]+|(?:gets?|set|add|replace|append|prepend|cas|incr|decr|delete|touch))"
    rb" +([^ \r\n]*(?:\r(?!\n)[^ \r\n]*)*)"  # a key may contain CR, but not CR LF
).match

#: The flags of a meta command, if one of them says that the key is in base64. memcached looks at the first letter only,
#: except for C{me}.
_BASE64: Final = re.compile(rb"[^\n]* b").match
_BASE64_ME: Final = re.compile(rb" +b(?=[ \r\n])").match

#: The bytes before the keys of a retrieval. A group takes part in the match if the values have a cas unique.
_BEFORE_KEYS: Final = re.compile(rb" *(?:get(s)?|gat(s)? +[^ ]+) +").match

_VALUE: Final = rb"VALUE ([^ ]+) [0-9]+ ([0-9]{1,9})"
_FIRST: Final = re.compile(_VALUE + rb"(?: [0-9]+)?\r\n").match

#: Match the first and each further line of a value, without and with a cas unique.
_LINES: Final = [
    (re.compile(_VALUE + rest).match, re.compile(rb"\r\n" + _VALUE + rest).match)
    for rest in (rb"\r\n", rb" [0-9]+\r\n")
]
_END: Final = b"END\r\n"


def keyOf(data: bytes, pos: int) -> bytes | None:
    """
    @return: the key of the request at C{pos}, the first one if it has several; C{None} if the command has no key. A key
        in base64 is decoded, as memcached does before it looks it up.
    """
    match = _KEYED(data, pos)
    if match is None:
        return None
    meta, key = match.groups()
    if meta is not None and (_BASE64 if meta != b"me" else _BASE64_ME)(data, match.end()):
        try:
            return binascii.a2b_base64(key)
        except binascii.Error:
            return key  # the server replies with an error, whichever it is
    return key


class GatheringRequest(bytes):
    """
    A retrieval of several keys. The values that a server sends are put in the order of other keys later, so they are
    found one by one when the reply is read. If the reply comes in several pieces, they are found when it is complete.
    """

    _keys: list[bytes]
    _lines: tuple[Callable[[bytes, int], Match[bytes] | None], ...]
    _found: dict[bytes, bytes] | None
    _size: int  # the number of bytes of the reply with C{_found}

    @classmethod
    def of(cls, request: bytes, keys: list[bytes]) -> GatheringRequest:
        """
        @param request: a C{get}, C{gets}, C{gat} or C{gats}.

        @return: the same request for other keys.
        """
        match = _BEFORE_KEYS(request)
        assert match is not None
        made = cls(b"%b%b\r\n" % (match[0], b" ".join(keys)))
        made._keys = keys
        made._lines = _LINES[match.lastindex is not None]
        made._found = None
        return made

    def gather(self, data: bytes, pos: int, counters: ReplyCounters) -> int:
        """
        Find the values of a complete reply, and count them.

        @return: the end of the reply; 0 if it is incomplete, or not one that is expected.
        """
        found: dict[bytes, bytes] = {}
        keys = self._keys
        begin = pos
        first, following = self._lines
        size, wanted, match = len(data), len(keys), first(data, pos)
        at = count = 0
        while match is not None:
            key, length = match.group(1, 2)
            body = int(length)
            start, end = pos, match.end() + body
            if end >= size:
                return 0
            if at < wanted and key == keys[at]:
                at += 1
            elif key in keys:
                at = keys.index(key) + 1
            else:
                return 0
            found[key] = data[start : end + 2]
            pos = end
            before = at
            # The lines of consecutive values often differ only in the key. Comparing bytes costs less than parsing.
            words = data[match.end(1) : match.end()]
            while at < wanted:
                line = b"\r\nVALUE " + keys[at] + words
                if not data.startswith(line, pos):
                    break
                end = pos + len(line) + body
                found[keys[at]] = data[pos + 2 : end + 2]
                pos = end
                at += 1
            count += 1 + at - before
            match = following(data, pos)
            if match is not None:
                pos += 2
        if found:
            if data[pos : pos + 2] != b"\r\n":
                return 0
            pos += 2
        if data[pos : pos + 5] != _END or count != len(found):  # or a key has two values: were both requested?
            return 0
        self._found = found
        self._size = pos + 5 - begin
        counters.moreKeys += wanted - 1
        counters.moreMissed += wanted - (count or 1)
        counters.missed += not count
        return pos + 5

    def collect(self, reply: bytes, found: dict[bytes, bytes]) -> int:
        """
        Collect the values of a complete reply, each with the line before it.

        @param reply: the reply, unless L{gather} has found its end.
        @param found: gets the values by key.

        @return: the number of bytes of the reply; 0 if it is an error.
        """
        if self._found is not None:
            found.update(self._found)
            self._found = None
            return self._size
        pos = 0
        while match := _FIRST(reply, pos):
            end = match.end() + int(match[2]) + 2
            found[match[1]] = reply[pos:end]
            pos = end
        return len(reply) if reply[pos:] == _END else 0
