# -*- test-case-name: tests.wire.redis.test_values -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Python values of replies, of RESP2 and RESP3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from txconnpool.errors import WireError

_BOOLEANS: Final = {b"t": True, b"f": False}


def hashable(value: Any) -> Any:
    """
    @return: the same value as a key of a dictionary or an element of a set: lists become tuples, dictionaries become
        tuples of pairs, and sets are frozen.
    """
    if isinstance(value, list):
        return tuple(map(hashable, value))
    if isinstance(value, dict):
        return tuple((key, hashable(each)) for key, each in value.items())
    return frozenset(value) if isinstance(value, set) else value


class _Open:
    """
    An aggregate whose elements are not complete.
    """

    __slots__ = ("elements", "kind", "left")

    def __init__(self, kind: int, left: int) -> None:
        self.kind = kind
        self.left = left
        self.elements: list[Any] = []

    def value(self) -> Any:
        elements = self.elements
        if self.kind == 37:
            return {hashable(elements[at]): elements[at + 1] for at in range(0, len(elements), 2)}
        return set(map(hashable, elements)) if self.kind == 126 else elements


class ReplyParser:
    """
    Makes the Python value of a complete reply.

    Strings are C{bytes} or C{str}; numbers are C{int}, C{float} or C{bool}; nulls are C{None}; aggregates are lists,
    dictionaries and sets. Attributes are dropped, and so are pushes, which may stand within a reply. The depth of a
    reply has no limit, because there is no recursion.
    """

    __slots__ = ("_encoding", "_error")

    def __init__(self, error: Callable[[str], Any], encoding: str | None = None) -> None:
        """
        @param error: makes the value of an error from its text, for errors within a reply too.
        @param encoding: the encoding of strings that become C{str}, or C{None}. Bytes that are not valid in it become
            surrogates, as with the error handler C{surrogateescape}.
        """
        self._error = error
        self._encoding = encoding

    def string(self, data: bytes) -> Any:
        """
        @return: the value of a string.
        """
        return data if self._encoding is None else data.decode(self._encoding, "surrogateescape")

    def parse(self, data: bytes) -> Any:
        """
        @param data: exactly one complete reply.

        @return: its value.

        @raise WireError: the bytes are no reply, or more than one.
        @raise UnicodeDecodeError: a string cannot be decoded.
        """
        try:
            if data[:1] == b"$" and data[1:2] != b"-":  # most replies are plain strings
                start = data.index(b"\n") + 1
                value, end = self.string(data[start:-2]), start + int(data[1:start]) + 2
            else:
                value, end = self._parse(data)
        except UnicodeDecodeError:
            raise
        except (ValueError, IndexError, KeyError) as reason:
            raise WireError("a reply that has no value") from reason
        if end != len(data):
            raise WireError("not exactly one reply")
        return value

    def _parse(self, data: bytes) -> tuple[Any, int]:
        pos, open_ = 0, [_Open(42, 1)]
        while True:
            end = data.index(b"\r\n", pos)
            kind, line, pos = data[pos], data[pos + 1 : end], end + 2
            if kind in b"*~%>|":
                size = int(line)
                if size < 0:
                    self._add(open_[-1], None)
                else:
                    open_.append(_Open(kind, size * 2 if kind in b"%|" else size))
            elif kind in b"$=!":
                size = int(line)
                if size < 0:
                    self._add(open_[-1], None)
                else:
                    self._add(open_[-1], self._long(kind, data[pos : pos + size]))
                    pos += size + 2
            else:
                self._add(open_[-1], self._short(kind, line))
            while not open_[-1].left:
                closed = open_.pop()
                if not open_:
                    return closed.elements[0], pos
                if closed.kind not in b">|":
                    self._add(open_[-1], closed.value())

    @staticmethod
    def _add(aggregate: _Open, value: Any) -> None:
        aggregate.elements.append(value)
        aggregate.left -= 1

    def _long(self, kind: int, data: bytes) -> Any:
        if kind == 33:
            return self._error(data.decode("utf-8", "backslashreplace"))
        return self.string(data[4:] if kind == 61 else data)  # a verbatim string begins with its format

    def _short(self, kind: int, line: bytes) -> Any:
        if kind == 58 or kind == 40:
            return int(line)
        if kind == 43:
            return self.string(line)
        if kind == 45:
            return self._error(line.decode("utf-8", "backslashreplace"))
        if kind == 95:
            return None
        if kind == 44:
            return float(line)
        if kind == 35:
            return _BOOLEANS[line]
        raise ValueError(kind)
