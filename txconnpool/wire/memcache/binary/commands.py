# -*- test-case-name: tests.wire.memcache.binary -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The commands of binary requests, which translate the text replies of servers to packets.

There is one command object for each request: it knows the opcode and the opaque that the reply repeats. Otherwise it is
the command of the text request into which the request was translated, with the same counters and the same description
of the replies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, ClassVar, Final, TypeVar, cast

from txconnpool.wire import Command
from txconnpool.wire.memcache import replies
from txconnpool.wire.memcache.binary import packets
from txconnpool.wire.memcache.binary.packets import (
    EXISTS,
    INTERNAL_ERROR,
    INVALID,
    NO_MEMORY,
    NOT_FOUND,
    NOT_NUMERIC,
    NOT_STORED,
    RESPONSE,
    TOO_LARGE,
    UNKNOWN_COMMAND,
    failure,
    found,
    missing,
    packet,
)
from txconnpool.wire.memcache.keys import keyOf
from txconnpool.wire.memcache.matching import MemcacheCommand

_VALUE: Final = re.compile(rb"VALUE ([^ ]+) ([0-9]+) ([0-9]+) ([0-9]+)\r\n").match
_META_VALUE: Final = re.compile(rb"VA ([0-9]+) c([0-9]+) f([0-9]+)[^\n]*\n").match
_META_HIT: Final = re.compile(rb"HD c([0-9]+) f([0-9]+)").match
_CAS: Final = re.compile(rb"HD c([0-9]+)").match
_NUMBER: Final = re.compile(rb"VA [0-9]+ c([0-9]+)[^\n]*\n([0-9]+) *\r\n").match
_STATISTIC: Final = re.compile(rb"STAT ([^ \r\n]*) ?([^\r\n]*)\r\n").match
_OUT_OF_MEMORY: Final = re.compile(rb"out of memory", re.IGNORECASE).match

#: The statuses of errors of servers that have one of their own in the binary protocol.
_ERRORS: Final = {
    replies.TOO_LARGE: TOO_LARGE,
    b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n": NOT_NUMERIC,
    b"ERROR\r\n": UNKNOWN_COMMAND,
}

C = TypeVar("C", bound=type["BinaryCommand"])


class BinaryCommand(MemcacheCommand):
    """
    The command of one binary request.

    @ivar opcode: the opcode of the request.
    @ivar opaque: the opaque of the request.
    @ivar quiet: whether the client gets no reply if the request succeeds.
    """

    __slots__ = ("_key", "opaque", "opcode", "quiet")

    continues: ClassVar[bool] = False
    translates: ClassVar[bool] = True

    def __init__(self, opcode: int, opaque: bytes, quiet: bool, key: bytes | None) -> None:
        # The attributes of a command are those of the class, see _like. So a request costs the time of four.
        self.opcode = opcode
        self.opaque = opaque
        self.quiet = quiet
        self._key = key

    def key(self, data: bytes, pos: int) -> bytes | None:
        """
        @return: the key of the request.
        """
        return self._key

    def translate(self, data: bytes, pos: int, end: int, due: int, done: int) -> bytes | None:
        """
        Translate a complete reply of a server.
        """
        return self.visible(data[pos:end]) if done else None

    def visible(self, reply: bytes) -> bytes:
        """
        @return: the packets that the client gets for a complete reply of a server, or for an error of the proxy.
        """
        packet = self._success(reply)
        return self._failure(reply) if packet is None else packet

    def join(self, replies: Sequence[bytes]) -> bytes:
        """
        @return: one reply in place of those of several servers, which are translated already unless the request has
            failed in the proxy: the first error, if there is one.
        """
        translated = [reply if not reply or reply[0] == RESPONSE else self.visible(reply) for reply in replies]
        return next((reply for reply in translated if any(reply[6:8])), translated[0])

    def _success(self, reply: bytes) -> bytes | None:
        """
        @return: the packets for a reply that is not an error; C{None} for an error.
        """
        raise NotImplementedError

    def _done(self, value: bytes = b"", cas: int = 0) -> bytes:
        return b"" if self.quiet else packet(self.opcode, self.opaque, value, b"", cas)

    def _fail(self, status: int, text: bytes | None = None) -> bytes:
        return failure(self.opcode, self.opaque, status, text)

    def _failure(self, line: bytes) -> bytes:
        """
        @return: the packets for an error line.
        """
        return self._fail(*_statusOf(line))


def _statusOf(line: bytes) -> tuple[int, bytes | None]:
    """
    @return: the status and the text of an error line; C{None}: memcached's text for this status.
    """
    status = _ERRORS.get(line)
    if status is not None:
        return status, None
    word, _, text = line.removesuffix(b"\r\n").partition(b" ")
    if word == b"CLIENT_ERROR":
        return INVALID, text
    return NO_MEMORY if _OUT_OF_MEMORY(text) else INTERNAL_ERROR, text


def _like(command: MemcacheCommand) -> Callable[[C], C]:
    """
    Give a class the attributes of a text command, except those that are only for replies to text clients.
    """
    others = {"matchWhole": None, "unites": False}

    def decorate(cls: C) -> C:
        for name in (*Command.__slots__, *MemcacheCommand.__slots__):
            value: Any = others[name] if name in others else getattr(command, name)
            if name not in vars(cls):
                setattr(cls, name, staticmethod(value) if isinstance(value, FunctionType) else value)
        return cls

    return decorate


# -- Retrievals


class _Retrieval(BinaryCommand):
    """
    A request for one value. A large value is passed on as it arrives.

    @ivar named: whether the reply has the key.
    """

    __slots__ = ("named",)

    def __init__(self, opcode: int, opaque: bytes, quiet: bool, key: bytes, named: bool) -> None:
        self.opcode = opcode
        self.opaque = opaque
        self.quiet = quiet
        self._key = key
        self.named = named

    def translate(self, data: bytes, pos: int, end: int, due: int, done: int) -> bytes:
        """
        Translate a part of a reply of a server.
        """
        if due >= 0:
            return data[pos : min(pos + due, end)]
        match = self._head(data, pos)
        if match is None:
            return self.visible(data[pos:end])
        start = match.end()
        length, flags, cas = self._facts(match)
        key = self._key if self.named else b""
        assert key is not None
        return found(self.opcode, self.opaque, flags, key, length, cas) + data[start : min(start + length, end)]

    def visible(self, reply: bytes) -> bytes:
        """
        @return: the packet for a complete reply of a server, or for an error of the proxy.
        """
        if self._head(reply, 0):
            return self.translate(reply, 0, len(reply), -1, 1)
        if reply[:2] != b"EN":
            return self._failure(reply)
        if self.quiet:
            return b""
        if self.named and self._key is not None:
            return missing(self.opcode, self.opaque, self._key)
        return self._fail(NOT_FOUND)

    def _head(self, data: bytes, pos: int) -> re.Match[bytes] | None:
        return _VALUE(data, pos)

    def _facts(self, match: re.Match[bytes]) -> tuple[int, int, int]:
        """
        @return: the length, the flags and the cas of a value.
        """
        _, flags, length, cas = match.groups()
        return int(length), int(flags), int(cas)


@_like(replies.GETS)
class Get(_Retrieval):
    """
    A get that is sent as C{gets}.
    """

    __slots__ = ()

    matchTranslated: ClassVar[Any] = staticmethod(cast(Any, replies.GETS.matchWhole))


@_like(replies.GATS)
class GetAndTouch(_Retrieval):
    """
    A get and touch that is sent as C{gats}.
    """

    __slots__ = ()


class _MetaRetrieval(_Retrieval):
    """
    A request for one value, which is sent as C{mg} because its key must be in base64.
    """

    __slots__ = ()

    def _head(self, data: bytes, pos: int) -> re.Match[bytes] | None:
        return _META_VALUE(data, pos)

    def _facts(self, match: re.Match[bytes]) -> tuple[int, int, int]:
        length, cas, flags = match.groups()
        return int(length), int(flags), int(cas)


@_like(replies.MG[True, False])
class MetaGet(_MetaRetrieval):
    """
    A get that is sent as C{mg}.
    """

    __slots__ = ()


@_like(replies.MG[True, True])
class MetaGetAndTouch(_MetaRetrieval):
    """
    A get and touch that is sent as C{mg}.
    """

    __slots__ = ()


@_like(replies.SEVERAL[replies.GETS])
class GetSeveral(BinaryCommand):
    """
    Consecutive quiet gets, and perhaps a no-operation after them, which are sent as one C{gets}.
    """

    __slots__ = ("_end", "_wanted")

    matchTranslated: ClassVar[Any] = staticmethod(cast(Any, replies.SEVERAL[replies.GETS].matchWhole))

    def __init__(self, wanted: dict[bytes, tuple[int, bytes]], end: bytes) -> None:
        """
        @param wanted: the opcode and the opaque of the request for each key.
        @param end: the reply to the no-operation, or C{b""}.
        """
        self._wanted = wanted
        self._end = end

    @property
    def several(self) -> GetSeveral:  # type: ignore[override]
        """
        This command.
        """
        return self

    def key(self, data: bytes, pos: int) -> bytes | None:
        """
        @return: the first key of the C{gets}.
        """
        return keyOf(data, pos)

    def translate(self, data: bytes, pos: int, end: int, due: int, done: int) -> bytes:
        """
        Translate a part of a reply of a server.
        """
        parts = []
        if due >= 0:
            parts.append(data[pos : min(pos + due, end)])
            pos += due + 2
        wanted, add, make, named = self._wanted, parts.append, found, packets.GETKQ
        while pos < end and (match := _VALUE(data, pos)):
            key, flags, size, cas = match.groups()
            opcode, opaque = wanted[key]
            start = match.end()
            length = int(size)
            add(make(opcode, opaque, int(flags), key if opcode == named else b"", length, int(cas)))
            pos = start + length
            add(data[start : pos if pos < end else end])
            pos += 2
        if pos < end:
            add(self._end if data.startswith(b"END\r\n", pos) else self._failure(data[pos:end]))
        return b"".join(parts)

    def visible(self, reply: bytes) -> bytes:
        """
        @return: the packets for a complete reply of a server, or for an error of the proxy: one for each get.
        """
        return self.translate(reply, 0, len(reply), -1, 1)

    def gather(self, order: list[int], values: list[list[bytes]], merged: bool) -> bytes:
        """
        @return: the packets for the values in the order of the keys.
        """
        return self.visible(super().gather(order, values, False))

    def _failure(self, line: bytes) -> bytes:
        status = _statusOf(line)
        return b"".join(failure(*each, *status) for each in self._wanted.values()) + self._end


# -- Changes


class _Change(BinaryCommand):
    """
    A request that changes one item.

    @cvar statuses: the status for each text reply that is not a success.
    """

    __slots__ = ()

    statuses: ClassVar[dict[bytes, int]] = {b"NF": NOT_FOUND, b"EX": EXISTS, b"NS": NOT_STORED}

    def _success(self, reply: bytes) -> bytes | None:
        status = self.statuses.get(reply[:2])
        if status is not None:
            return self._fail(status)
        return self._changed(reply)

    def _changed(self, reply: bytes) -> bytes | None:
        raise NotImplementedError


@_like(replies.MS)
class Store(_Change):
    """
    A set, append or prepend, which is sent as C{ms}.
    """

    __slots__ = ()

    def _changed(self, reply: bytes) -> bytes | None:
        match = _CAS(reply)
        return None if match is None else self._done(b"", int(match[1]))


@_like(replies.MS)
class Add(Store):
    """
    An add, which is sent as C{ms}.
    """

    __slots__ = ()

    statuses: ClassVar[dict[bytes, int]] = {**Store.statuses, b"NS": EXISTS}


@_like(replies.MS)
class Replace(Store):
    """
    A replace, which is sent as C{ms}.
    """

    __slots__ = ()

    statuses: ClassVar[dict[bytes, int]] = {**Store.statuses, b"NS": NOT_FOUND}


@_like(replies.MA[True])
class Count(_Change):
    """
    An increment or decrement, which is sent as C{ma}.
    """

    __slots__ = ()

    def _changed(self, reply: bytes) -> bytes | None:
        match = _NUMBER(reply)
        if match is None:
            return None
        return b"" if self.quiet else packets.counted(self.opcode, self.opaque, int(match[2]), int(match[1]))


@_like(replies.MD)
class Delete(_Change):
    """
    A delete, which is sent as C{md}.
    """

    __slots__ = ()

    def _changed(self, reply: bytes) -> bytes | None:
        return self._done() if reply[:2] == b"HD" else None


@_like(replies.MG[False, True])
class Touch(_Change):
    """
    A touch, which is sent as C{mg}: its reply has the flags and the cas.
    """

    __slots__ = ()

    statuses: ClassVar[dict[bytes, int]] = {b"EN": NOT_FOUND}

    def _changed(self, reply: bytes) -> bytes | None:
        match = _META_HIT(reply)
        return None if match is None else found(self.opcode, self.opaque, int(match[2]), b"", 0, int(match[1]))


# -- Requests without a key


@_like(replies.VERSION)
class Version(BinaryCommand):
    """
    A request for the version.
    """

    __slots__ = ()

    def _success(self, reply: bytes) -> bytes | None:
        return self._done(reply[8:-2]) if reply.startswith(b"VERSION ") else None


class _Administration(BinaryCommand):
    """
    A request that concerns every server.
    """

    __slots__ = ()

    def _success(self, reply: bytes) -> bytes | None:
        return self._done() if reply == b"OK\r\n" else None


@_like(replies.FLUSH_ALL)
class Flush(_Administration):
    """
    A request to delete all items.
    """

    __slots__ = ()


@_like(replies.VERBOSITY)
class Verbosity(_Administration):
    """
    A request to log more or less.
    """

    __slots__ = ()


@_like(replies.STATS)
class Statistics(BinaryCommand):
    """
    A request for statistics. Each of them is a packet, and one without a key follows them.
    """

    __slots__ = ()

    def _success(self, reply: bytes) -> bytes | None:
        parts = []
        pos = 0
        while match := _STATISTIC(reply, pos):
            parts.append(packet(self.opcode, self.opaque, match[2], match[1]))
            pos = match.end()
        if reply[pos:] not in (b"END\r\n", b"RESET\r\n", b"OK\r\n"):
            return self._fail(NOT_FOUND) if reply == b"ERROR\r\n" else None
        return b"".join([*parts, packet(self.opcode, self.opaque)])


#: The command with which the old value of a key is deleted if the new one is too large. Its reply is hidden.
DISCARD: Final = replies.MD.silent()
