# -*- test-case-name: tests.routing.distribution.test_keys -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Which part of a key is hashed. The whole key is sent to the server in any case.
"""

from __future__ import annotations

from collections.abc import Callable

#: A function that takes a key and returns what of it is hashed.
Cut = Callable[[bytes], bytes]


def skipper(prefix: bytes) -> Cut:
    """
    Leave out a prefix. A key without the prefix is hashed whole.
    """
    return lambda key: key.removeprefix(prefix)


def tagger(tag: bytes, emptyTags: bool = False) -> Cut:
    """
    Hash only what is between the first of two characters and the next of the second one, as twemproxy does
    (C{server_pool_idx} in C{nc_server.c}). If one of them is missing, the whole key is hashed.

    @param tag: two characters, which may be equal.
    @param emptyTags: whether nothing is hashed if there is nothing between them. Otherwise the whole key is.
    """
    opening, closing = tag[:1], tag[1:]
    shortest = 0 if emptyTags else 1

    def cut(key: bytes) -> bytes:
        begin = key.find(opening) + 1
        if begin:
            end = key.find(closing, begin)
            if end >= begin + shortest:
                return key[begin:end]
        return key

    return cut


def stopper(stop: bytes) -> Cut:
    """
    Hash only what is before the first occurrence of a text, as mcrouter does with C{|#|}.
    """
    return lambda key: key.partition(stop)[0]


def withoutRoute(key: bytes) -> bytes:
    """
    Leave out a routing prefix of mcrouter, C{/region/cluster/}.
    """
    parts = key.split(b"/", 3)
    return parts[3] if len(parts) == 4 and not parts[0] else key


def salter(salt: bytes) -> Cut:
    """
    Append a text, as mcrouter does with its C{salt}.
    """
    return lambda key: key + salt


def inOrder(cuts: list[Cut]) -> Cut | None:
    """
    Combine several of them.

    @return: C{None} if the whole key is hashed.
    """
    if not cuts:
        return None
    if len(cuts) == 1:
        return cuts[0]

    def cut(key: bytes) -> bytes:
        for each in cuts:
            key = each(key)
        return key

    return cut
