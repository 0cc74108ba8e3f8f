# -*- test-case-name: tests.wire.memcache.test_keys -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Matches complete replies to retrievals of several keys, whose values come in the order of the keys. That is how
memcached sends them; all other replies are left to L{txconnpool.wire.memcache.matching}.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import Final

from txconnpool import native
from txconnpool.wire import ReplyCounters

_VALUE: Final = rb"VALUE ([^ ]{1,250}) [0-9]{1,20} ([0-9]{1,9})"
_END: Final = b"END\r\n"
_LAST: Final = b"\r\n" + _END  # after the last value

#: Match the first and each further line of a value, without and with a cas unique.
_LINES: Final = [
    (re.compile(_VALUE + rest).match, re.compile(rb"\r\n" + _VALUE + rest).match)
    for rest in (rb"\r\n", rb" [0-9]{1,20}\r\n")
]


def findValues(
    data: bytes, pos: int, request: bytes, keyAt: int, isUnique: bool
) -> tuple[int, int, list[bytes]] | None:
    """
    Find the values in a reply.

    @param data: the received bytes.
    @param pos: the position of the reply.
    @param request: the request, which was checked.
    @param keyAt: the position of its first key. After the keys there is CR LF only.
    @param isUnique: whether the values have a cas unique.

    @return: the end of the reply, the number of values, and for each key its value with the line before it, empty if it
        has none; C{None} if the reply is incomplete, an error, or another one.
    """
    keys = request[keyAt:-2].split(b" ")
    if b"" in keys:
        keys = [key for key in keys if key]
    values: list[bytes] = []
    first, following = _LINES[isUnique]
    wanted, at, missing, end = len(keys), 0, 0, pos
    match = first(data, pos)
    while match is not None:
        key, length = match.group(1, 2)
        while at < wanted and keys[at] != key:
            values.append(b"")
            missing += 1
            at += 1
        if at == wanted:
            return None
        at += 1
        body = int(length)
        start, end = match.start(1) - 6, match.end() + body  # the body, without its line end
        values.append(data[start : end + 2])
        # The lines of consecutive values often differ only in the key. Comparing bytes costs less than parsing.
        words = data[match.end(1) : match.end()]
        while at < wanted:
            line = b"\r\nVALUE " + keys[at] + words
            if not data.startswith(line, end):
                break
            start = end + 2
            end += len(line) + body
            values.append(data[start : end + 2])
            at += 1
        if data.startswith(_LAST, end):
            return end + len(_LAST), at - missing, values + [b""] * (wanted - at)
        match = following(data, end)
    if at or not data.startswith(_END, end):
        return None
    return end + len(_END), 0, [b""] * wanted


def countValues(data: bytes, pos: int, request: bytes, keyAt: int, isUnique: bool) -> tuple[int, int, int] | None:
    """
    Count the values in a reply. The parameters are those of L{findValues}.

    @return: the end of the reply, the number of values, and the number of keys; C{None} if the reply is incomplete, an
        error, or another one.
    """
    whole = findValues(data, pos, request, keyAt, isUnique)
    return None if whole is None else (whole[0], whole[1], len(whole[2]))


def separateReplies(reply: bytes, requests: list[bytes], keyAt: int, isUnique: bool) -> list[bytes] | None:
    """
    Separate the reply to a request that was sent in place of several.

    @param reply: the reply, which was checked.
    @param requests: these requests. The request that was sent has their keys, one after another.
    @param keyAt: the position of the first key in each of them. After the keys there is CR LF only.
    @param isUnique: whether the values have a cas unique.

    @return: the reply to each of the requests; C{None} if the values do not have the order of the keys, or if the reply
        is an error.
    """
    keys = [[key for key in request[keyAt:-2].split(b" ") if key] for request in requests]
    whole = findValues(reply, 0, b" ".join([key for its in keys for key in its]) + b"\r\n", 0, isUnique)
    if whole is None or whole[0] < len(reply):
        return None
    values = iter(whole[2])
    return [b"".join(islice(values, len(its))) + _END for its in keys]


#: L{findValues}, or its equal in the extension.
chosenFind: Final = native.choose(findValues)

#: L{separateReplies}, or its equal in the extension.
chosenSeparate: Final = native.choose(separateReplies)

#: L{countValues}, or its equal in the extension.
chosenCount: Final = native.choose(countValues)


def countKeys(wanted: int, found: int, counters: ReplyCounters) -> None:
    """
    Count the hits and misses of a request.

    @param wanted: the number of its keys.
    @param found: the number of values in the reply.
    """
    counters.moreKeys += wanted - 1
    if found < wanted:
        counters.missed += not found
        counters.moreMissed += wanted - (found or 1)


def severalMatcher(keyAt: int, isUnique: bool) -> Callable[[bytes, int, bytes | None, ReplyCounters], int]:
    """
    Create the function C{matchWhole} of a L{Command<txconnpool.wire.Command>} for requests with several keys. The
    parameters are those of L{findValues}.
    """

    def matchWhole(data: bytes, pos: int, request: bytes | None, counters: ReplyCounters) -> int:
        counted = chosenCount(data, pos, request, keyAt, isUnique) if request else None
        if counted is None:
            return 0
        end, found, wanted = counted
        countKeys(wanted, found, counters)
        return end

    return matchWhole
