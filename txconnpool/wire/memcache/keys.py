# -*- test-case-name: tests.wire.memcache.test_keys -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The keys of requests, and what the replies to retrievals have for each key. All bytes were checked before.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

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

_FIRST: Final = re.compile(rb"VALUE ([^ ]+) [0-9]+ ([0-9]{1,9})(?: [0-9]+)?\r\n").match
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


def requestFor(request: bytes, keys: list[bytes]) -> bytes:
    """
    @param request: a C{get}, C{gets}, C{gat} or C{gats}.

    @return: the same request for other keys.
    """
    if request.startswith(b"get "):
        return b"get " + b" ".join(keys) + b"\r\n"
    match = _BEFORE_KEYS(request)
    assert match is not None
    words = [word for word in match[0].split(b" ") if word]
    return b" ".join([*words, *keys]) + b"\r\n"


def layoutOf(request: bytes) -> tuple[int, bool]:
    """
    @param request: a C{get}, C{gets}, C{gat} or C{gats}.

    @return: the position of its first key, and whether the values have a cas unique.
    """
    match = _BEFORE_KEYS(request)
    assert match is not None
    return match.end(), match.lastindex is not None


def collectReply(reply: bytes, found: dict[bytes, bytes]) -> bool:
    """
    Collect the values of a complete reply, each with the line before it.

    @param found: gets the values by key.

    @return: whether the reply is not an error.
    """
    pos = 0
    while match := _FIRST(reply, pos):
        end = match.end() + int(match[2]) + 2
        found[match[1]] = reply[pos:end]
        pos = end
    return reply[pos:] == _END
