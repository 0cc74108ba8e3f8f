# -*- test-case-name: tests.test_native -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Joins what several servers have for the keys of a request.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, NamedTuple, TypeAlias

from txconnpool import native

#: The numbers of requests, with their replies; and the number of bytes that others of the requests may wait with.
Gathered: TypeAlias = tuple[list[tuple[int, bytes]], int]


class Packed(NamedTuple):
    """
    Values in one piece.

    @ivar data: the values, one after the other.
    @ivar ends: where each of them ends, as numbers of 32 bits in the order of bytes of the machine.
    """

    data: bytes
    ends: bytes

    @classmethod
    def of(cls, values: list[bytes]) -> Packed:
        """
        @return: these values.
        """
        return cls(b"".join(values), array("I", accumulate(map(len, values))).tobytes())

    def split(self) -> list[bytes]:
        """
        @return: the values.
        """
        data, start = self.data, 0
        values = []
        for end in memoryview(self.ends).cast("I"):
            values.append(data[start:end])
            start = end
        return values


#: The values that a server has for some keys.
Values: TypeAlias = list[bytes] | Packed


def listOf(values: Values) -> list[bytes]:
    """
    @return: the values in a list.
    """
    return values.split() if isinstance(values, Packed) else values


def joinEach(
    orders: list[list[int]], values: Sequence[Values | None], arrived: int, head: bytes, between: bytes, end: bytes
) -> Gathered:
    """
    Join values in the order of the keys of each of several requests, for those requests with a value in the list that
    has just arrived, all of whose other lists are there.

    @param orders: for each request, for each key the number of the list that has its value. In each list, the values
        are in the order of the requests.
    @param values: the lists; C{None} for those that have not arrived.
    @param arrived: the number of the list that has just arrived.
    @param head: the bytes at the start of a reply, with C{%d} in place of the number of its keys; or no bytes.
    @param between: the bytes between two values.
    @param end: the bytes after the last one.

    @return: the numbers of these requests, with their replies; and the number of bytes in the list that has arrived, 0
        if no other request needs it.

    @raise ValueError: a list has fewer values than keys.
    """
    values = [None if its is None else listOf(its) for its in values]
    missing = frozenset(number for number, its in enumerate(values) if its is None)
    needing = [number for number, order in enumerate(orders) if arrived in order]
    complete = {number for number in needing if missing.isdisjoint(orders[number])} if missing else set(needing)
    replies: list[tuple[int, bytes]] = []
    if complete:
        following = [iter(its or ()) for its in values]
        for number, order in enumerate(orders):
            mine = order if missing.isdisjoint(order) else [each for each in order if each not in missing]
            found = list(map(next, map(following.__getitem__, mine)))
            if len(found) < len(mine):
                raise ValueError("joinEach: expected a value for each key")
            if number in complete:
                start = head % len(found) if head else b""
                replies.append((number, start + between.join(found) + end))
    left = len(complete) < len(needing)
    return replies, sum(map(len, values[arrived] or ())) if left else 0


#: L{joinEach}, or its equal in the extension.
chosenJoin: Final = native.choose(joinEach)
