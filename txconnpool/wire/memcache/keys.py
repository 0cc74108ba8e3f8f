# -*- test-case-name: tests.wire.memcache.test_keys -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The keys of requests, and what the replies to retrievals have for each key. All of this is used only if there are
several servers by key, and on bytes that were checked before.
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


class GatheringRequest(bytes):
    """
    A retrieval of several keys. The values that a server sends are put in the order of other keys later, so they are
    found one by one when the reply is read. If the reply comes in several pieces, or not in the order of the keys, they
    are found when it is complete.

    @ivar layout: the position of the first key, and whether the values have a cas unique.
    """

    layout = (4, False)  # that of a get

    @classmethod
    def of(cls, request: bytes, keys: list[bytes]) -> GatheringRequest:
        """
        @param request: a C{get}, C{gets}, C{gat} or C{gats}.

        @return: the same request for other keys.
        """
        if request.startswith(b"get "):
            return cls(b"get " + b" ".join(keys) + b"\r\n")
        match = _BEFORE_KEYS(request)
        assert match is not None
        made = cls(b"%b%b\r\n" % (match[0], b" ".join(keys)))
        made.layout = (match.end(), match.lastindex is not None)
        return made


def collectReply(reply: bytes, found: dict[bytes, bytes]) -> int:
    """
    Collect the values of a complete reply, each with the line before it.

    @param found: gets the values by key.

    @return: the number of bytes of the reply; 0 if it is an error.
    """
    pos = 0
    while match := _FIRST(reply, pos):
        end = match.end() + int(match[2]) + 2
        found[match[1]] = reply[pos:end]
        pos = end
    return len(reply) if reply[pos:] == _END else 0
