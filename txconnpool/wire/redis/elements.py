# -*- test-case-name: tests.wire.redis.test_replyreader -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Finds the elements of replies: strings, numbers, and aggregates with elements of their own.
"""

from __future__ import annotations

import re
from typing import Any, Final

from txconnpool import native
from txconnpool.wire.joining import Packed, Values
from txconnpool.wire.redis.framing import FEW, splitStrings

#: Match the line of an element: a string has its length, an aggregate the number of its elements.
LINE: Final = re.compile(
    rb"(?:[+\-:,(][^\r\n]*|_|#[tf])\r\n|([$=!])(-1|0|[1-9][0-9]{0,9})\r\n|([*~%|>])(-1|0|[1-9][0-9]{0,9})\r\n"
).match
_STRING: Final = re.compile(rb"\$(0|[1-9][0-9]{0,9})\r\n").match
_SEQUENCE: Final = re.compile(rb"([*~%])(0|[1-9][0-9]{0,9})\r\n").match
_SIMPLE: Final = re.compile(rb"(?:\$([0-9]{1,9})|[+:][^\r\n]*)\r\n").match


def matchSimple(data: bytes, pos: int, request: Any, counters: Any) -> int:
    """
    Match the most common replies, see L{txconnpool.wire.Command}.

    @return: the end of a complete status, integer or value at C{pos}, or of an array without nulls; 0 if there is
        anything else.
    """
    match = _SIMPLE(data, pos)
    if match is None:
        passed = passElements(data, pos, 1, False) if data.startswith(b"*", pos) else None
        return 0 if passed is None or passed[1] or passed[2] else passed[0]
    size = match[1]
    if size is None:
        return match.end()
    end = match.end() + int(size) + 2
    return end if end <= len(data) and data[end - 2 : end] == b"\r\n" else 0


#: L{matchSimple}, or its equal in the extension.
chosenMatch: Final = native.choose(matchSimple)


def passElements(data: bytes, pos: int, elements: int, pushes: bool) -> tuple[int, int, int] | None:
    """
    Pass over elements of replies, until there are no more of them or one is incomplete or invalid.

    @param elements: how many there are, at least 1.
    @param pushes: whether a push is an element.

    @return: the end of the last one, how many are still to come, and how many nulls were found; C{None} if the first
        one is incomplete or invalid.
    """
    start, nulls, line = pos, 0, LINE
    while elements:
        match = line(data, pos)
        if match is None:
            break
        end = match.end()
        string, length, aggregate, number = match.group(1, 2, 3, 4)
        if string is not None:
            if length == b"-1":
                nulls += 1
            else:
                end += int(length) + 2
                if data[end - 2 : end] != b"\r\n":
                    break
                if elements > 1 and data.startswith(match[0], end):
                    end, elements = _passAlike(data, end, match[0], int(length), elements)
            elements -= 1
        elif aggregate is None:
            nulls += data[pos] == 95
            elements -= 1
        elif number == b"-1":
            nulls += 1
            elements -= 1
        elif aggregate in b"*~" or (pushes and aggregate == b">"):
            count = int(number)
            if count > FEW and (strings := splitStrings(data, end, count)) is not None:
                end, count = strings[1], 0
            elements += count - 1
        elif aggregate == b"%":
            elements += 2 * int(number) - 1
        else:  # an attribute belongs to the next element, and a push to none
            elements += int(number) * (2 if aggregate == b"|" else 1)
        pos = end
    return None if pos == start else (pos, elements, nulls)


def _passAlike(data: bytes, pos: int, line: bytes, length: int, elements: int) -> tuple[int, int]:
    """
    Pass over strings of the same length, which follow each other often. Comparing bytes costs less than parsing.

    @param line: the line before each of them.
    @param elements: how many elements there are, with the one before C{pos}.

    @return: the end of the last string, and how many elements there are from the last string on.
    """
    size = len(line) + length + 2
    while elements > 1 and data.startswith(line, pos) and data[pos + size - 2 : pos + size] == b"\r\n":
        pos += size
        elements -= 1
    return pos, elements


#: L{passElements}, or its equal in the extension.
chosenPass: Final = native.choose(passElements)


def splitElements(data: bytes, pos: int, request: bytes | None) -> tuple[int, int, list[bytes]] | None:
    """
    Find the elements of an array, set or map at C{pos}, of which a map has two for each key.

    @param request: the request, if it has a key for each element, and no other words after the first.

    @return: the end of it, the number of nulls in it, and the elements; C{None} if there is anything else, another
        number of them, or an incomplete one.
    """
    head = _SEQUENCE(data, pos)
    if head is None:
        return None
    left = int(head[2]) * (2 if head[1] == b"%" else 1)
    if request is not None and not (head[1] == b"*" and request.startswith(b"*%d\r\n" % (left + 1))):
        return None
    found: list[bytes] = []
    pos, nulls, string = head.end(), 0, _STRING
    while left:
        match, start = string(data, pos), pos
        if match is None:
            elements = 1
            while elements:
                passed = passElements(data, pos, elements, False)
                if passed is None:
                    return None
                pos, elements, its = passed
                nulls += its
            found.append(data[start:pos])
            left -= 1
            continue
        # Consecutive strings often have the same length. Comparing bytes costs less than parsing.
        line = match[0]
        size = len(line) + int(match[1]) + 2
        while left and data.startswith(line, pos):
            start, pos = pos, pos + size
            if data[pos - 2 : pos] != b"\r\n":
                return None
            found.append(data[start:pos])
            left -= 1
    return pos, nulls, found


def packElements(data: bytes, pos: int, request: bytes | None) -> tuple[int, int, bytes, bytes] | None:
    """
    Find the same as L{splitElements}, but do not split them.

    @return: the end, the number of nulls, the elements, and their ends, as L{Packed} has them.
    """
    found = splitElements(data, pos, request)
    if found is None:
        return None
    end, nulls, elements = found
    return end, nulls, *Packed.of(elements)


#: L{splitElements}, or its equal in the extension.
chosenSplit: Final = native.choose(splitElements)

_pack: Final = None if native.extension is None else native.choose(packElements)


def findValues(data: bytes, pos: int, request: bytes | None) -> tuple[int, int, Values] | None:
    """
    Find the same as L{splitElements}, in the form that costs least: without the extension, splitting them does.
    """
    if _pack is None:
        return splitElements(data, pos, request)
    found = _pack(data, pos, request)
    if found is None:
        return None
    end, nulls, elements, ends = found
    return end, nulls, Packed(elements, ends)
