# -*- test-case-name: tests.wire.test_shares -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Divides the keys of a request into shares, each of which is for one server.
"""

from __future__ import annotations

from typing import Any


def divideKeys(keys: list[bytes], indexes: Any, most: int) -> tuple[list[int], list[tuple[int, list[bytes]]]]:
    """
    Divide keys into shares, each of which is for one server.

    @param indexes: C{indexes[key]} is the index of the server of a key.
    @param most: the maximum number of keys in a share, at least 1. A server may get several.

    @return: for each key the number of its share; and the shares, each with its index, and its keys in their order.
    """
    order: list[int] = []
    shares: list[tuple[int, list[bytes]]] = []
    last: dict[int, int] = {}  # the last share of each index
    for key in keys:
        index = indexes[key]
        number = last.get(index, -1)
        if number < 0 or len(shares[number][1]) >= most:
            number = last[index] = len(shares)
            shares.append((index, []))
        shares[number][1].append(key)
        order.append(number)
    return order, shares
