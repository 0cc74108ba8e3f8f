# -*- test-case-name: tests.wire.test_shares -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Divides the keys of requests into shares, each of which is for one server.
"""

from __future__ import annotations

from typing import Any, TypeAlias

#: For each request a list with the number of the share of each key; and the shares, each with the index of its server,
#: the request for its keys, and their number.
Shares: TypeAlias = tuple[list[list[int]], list[tuple[int, bytes, int]]]


def divideEach(
    requests: list[list[bytes]], indexes: Any, most: int
) -> tuple[list[list[int]], list[tuple[int, list[bytes]]]]:
    """
    Divide the keys of several requests into shares, each of which is for one server.

    @param requests: the keys of each request.
    @param indexes: C{indexes[key]} is the index of the server of a key.
    @param most: the maximum number of keys in a share, at least 1. A server may get several.

    @return: for each request a list with the number of the share of each key; and the shares, each with its index, and
        its keys in their order.
    """
    orders: list[list[int]] = []
    shares: list[tuple[int, list[bytes]]] = []
    last: dict[int, int] = {}  # the last share of each index
    for keys in requests:
        order: list[int] = []
        for key in keys:
            index = indexes[key]
            number = last.get(index, -1)
            if number < 0 or len(shares[number][1]) >= most:
                number = last[index] = len(shares)
                shares.append((index, []))
            shares[number][1].append(key)
            order.append(number)
        orders.append(order)
    return orders, shares
