# -*- test-case-name: tests.test_native -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Joins what several servers have for the keys of a request.
"""

from __future__ import annotations

from typing import Final

from txconnpool import native


def joinValues(order: list[int], values: list[list[bytes]], between: bytes, end: bytes) -> bytes:
    """
    Join values in the order of the keys of a request.

    @param order: for each key the number of the list that has its value. In each list, the values are in this order.
    @param values: the lists.
    @param between: the bytes between two values.
    @param end: the bytes after the last one.

    @return: the values, and these bytes.

    @raise ValueError: a list has fewer values than keys.
    """
    following = [iter(each) for each in values]
    found = list(map(next, map(following.__getitem__, order)))
    if len(found) < len(order):
        raise ValueError("joinValues: expected a value for each key")
    return between.join(found) + end


#: L{joinValues}, or its equal in the extension.
chosenJoin: Final = native.choose(joinValues)
