# -*- test-case-name: tests.test_native -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Finds the keys of requests that are lines, and divides these among servers.
"""

from __future__ import annotations

from typing import Any, Final

from txconnpool import native
from txconnpool.wire.shares import Shares, divideEach


def divideLines(requests: list[bytes], before: bytes, indexes: Any, most: int) -> Shares | None:
    """
    Divide requests that are lines into shares, each of which is for one server.

    @param requests: the requests, each of which ends with CR LF. Their keys are separated by spaces.
    @param before: the bytes of a request before its keys.
    @param indexes: C{indexes[key]} is the index of the server of a key.
    @param most: the maximum number of keys in a share, at least 1. A server may get several.

    @return: for each request a list with the number of the share of each key; and the shares, each with its index, the
        request for its keys in their order, and their number; C{None} if a request has other bytes before its keys.
    """
    if not all(request.startswith(before) for request in requests):
        return None
    keyAt = len(before)
    keys = [[key for key in request[keyAt:-2].split(b" ") if key] for request in requests]
    orders, shares = divideEach(keys, indexes, most)
    return orders, [(index, before + b" ".join(its) + b"\r\n", len(its)) for index, its in shares]


def plainKey(data: bytes, pos: int, before: bytes) -> bytes | None:
    """
    Find the key of a usual request, which has one space before the key.

    @param data: bytes that contain the request, which was checked.
    @param pos: the position of the request.
    @param before: the bytes of the request before its key.

    @return: the key; C{None} if it is another request.
    """
    if not data.startswith(before, pos):
        return None
    start = pos + len(before)
    end = data.find(b"\n", start)
    if end < 0:
        return None
    space = data.find(b" ", start, end)
    if space >= 0:
        end = space
    elif data.endswith(b"\r", start, end):
        end -= 1
    return data[start:end] or None


#: L{plainKey}, or its equal in the extension.
chosenKey: Final = native.choose(plainKey)

#: L{divideLines}, or its equal in the extension.
chosenDivide: Final = native.choose(divideLines)
