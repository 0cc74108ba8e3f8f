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
    rb" *(?:(m[gsdae])|gats? +[^ \r\n]+|(?:gets?|set|add|replace|append|prepend|cas|incr|decr|delete|touch))"
    rb" +([^ \r\n]+)"
).match

#: The flags of a meta command, if one of them says that the key is in base64.
_BASE64: Final = re.compile(rb"[^\n]* b(?=[ \r\n])").match

_BEFORE_KEYS: Final = re.compile(rb" *(?:gets?|gats? +[^ ]+) +").match

_VALUE: Final = re.compile(rb"VALUE ([^ ]+) [0-9]+ ([0-9]+)[^\n]*\n").match

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
    if meta is not None and _BASE64(data, match.end()):
        try:
            return binascii.a2b_base64(key)
        except binascii.Error:
            return key  # the server replies with an error, whichever it is
    return key


def retrieval(request: bytes, keys: list[bytes]) -> bytes:
    """
    @param request: a C{get}, C{gets}, C{gat} or C{gats}.

    @return: the same request for other keys.
    """
    match = _BEFORE_KEYS(request)
    assert match is not None
    return b"%b%b\r\n" % (match[0], b" ".join(keys))


def collect(reply: bytes, found: dict[bytes, bytes]) -> bool:
    """
    Collect the values of a complete reply to a retrieval, each with the line before it.

    @param found: gets them by key.

    @return: C{False} if the reply is an error.
    """
    pos = 0
    while match := _VALUE(reply, pos):
        end = match.end() + int(match[2]) + 2
        found[match[1]] = reply[pos:end]
        pos = end
    return reply[pos:] == _END
