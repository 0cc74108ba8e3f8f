# -*- test-case-name: tests.test_native -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Divides the line of a retrieval among servers.
"""

from __future__ import annotations

from typing import Any, Final

from txconnpool import native
from txconnpool.wire.shares import divideKeys


def divideLine(request: bytes, keyAt: int, indexes: Any, most: int) -> tuple[list[int], list[tuple[int, bytes, int]]]:
    """
    Divide a request that is a line into shares, each of which is for one server.

    @param request: the request, which ends with CR LF.
    @param keyAt: the position of its first key. The keys are separated by spaces.
    @param indexes: C{indexes[key]} is the index of the server of a key.
    @param most: the maximum number of keys in a share, at least 1. A server may get several.

    @return: for each key the number of its share; and the shares, each with its index, the same request for its keys in
        their order, and their number.
    """
    order, shares = divideKeys([key for key in request[keyAt:-2].split(b" ") if key], indexes, most)
    before = request[:keyAt]
    return order, [(index, before + b" ".join(keys) + b"\r\n", len(keys)) for index, keys in shares]


#: L{divideLine}, or its equal in the extension.
chosenDivide: Final = native.choose(divideLine)
