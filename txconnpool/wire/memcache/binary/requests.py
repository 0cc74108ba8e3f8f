# -*- test-case-name: tests.wire.memcache.binary -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Finds the requests of memcached's binary protocol in the bytes of a client, checks them, and translates them to text
requests.

The checks are those of memcached (C{proto_bin.c}, C{dispatch_bin_command}): a request with other lengths than its
opcode has gets an error, and its client is closed.

A key that text cannot carry is sent in base64, with a meta command. Gets are sent as C{gets}, which unlike C{mg} does
not take part in the election of the client that renews a stale item; so do the binary gets of memcached.
"""

from __future__ import annotations

import re
import time
from binascii import b2a_base64
from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple, Protocol, TypeAlias

from txconnpool.wire import ANSWER, BROADCAST, CLOSE, MORE, STATISTICS, Frame, IRequestReader
from txconnpool.wire import REPLACE as REPLACE_REQUEST
from txconnpool.wire.effects import DELETES, HARMLESS, WRITES, Effects, Permissions
from txconnpool.wire.memcache.binary import packets
from txconnpool.wire.memcache.binary.commands import (
    DISCARD,
    Add,
    BinaryCommand,
    Count,
    Delete,
    Flush,
    Get,
    GetAndTouch,
    GetSeveral,
    MetaGet,
    MetaGetAndTouch,
    Replace,
    Statistics,
    Store,
    Touch,
    Verbosity,
    Version,
)
from txconnpool.wire.memcache.binary.packets import (
    HEADER,
    INVALID,
    NOT_SUPPORTED,
    REQUEST,
    TOO_LARGE,
    UNKNOWN_COMMAND,
    failure,
    packet,
    readHeader,
)
from txconnpool.wire.memcache.classic import PART_KEYS
from txconnpool.wire.memcache.effects import ORDINARY
from txconnpool.wire.memcache.expiry import RELATIVE_MAX
from txconnpool.wire.memcache.rules import KEY_MAX

#: The maximum length of a packet without its header (C{memcached.h}, C{ITEM_SIZE_MAX_UPPER_LIMIT}).
BODY_MAX: Final = 1 << 30

#: The expiry time of an increment that does not create an item.
NEVER_CREATE: Final = 0xFFFFFFFF

#: The latest time that a text request can carry, in January 2038.
_LATEST: Final = (1 << 31) - 1

_asText: Final = re.compile(rb"[!-\xff]{1,%d}" % KEY_MAX).fullmatch

_storing: Final = Struct("!II").unpack_from
_counting: Final = Struct("!QQI").unpack_from
_number: Final = Struct("!I").unpack_from


class Limits(Protocol):
    """
    The limits of the requests of a pool, which are the same for text and binary clients.
    """

    @property
    def maxItemSize(self) -> int:
        """
        The maximum length of a value.
        """

    @property
    def permissions(self) -> Permissions:
        """
        Which requests are accepted.
        """


class Request(NamedTuple):
    """
    A request whose lengths were checked.

    @ivar data: bytes that contain it.
    @ivar start: the position of its extras.
    @ivar stop: the position of its value.
    @ivar end: its end, which may be after the received bytes.
    """

    opcode: int
    quiet: bool
    opaque: bytes
    cas: int
    key: bytes
    data: bytes
    start: int
    stop: int
    end: int


Translation: TypeAlias = Callable[["BinaryReader", "Kind", Request], Frame]


class Kind(NamedTuple):
    """
    What requests with an opcode have in common.

    @ivar name: the text command that does the same. It says whether the request is permitted.
    @ivar quiet: whether a success has no reply.
    @ivar extras: the possible lengths of the extras.
    @ivar hasKey: whether there is a key. C{None}: there may be one.
    @ivar hasValue: whether there is a value. C{None}: bytes after the key begin the next request.
    @ivar translate: translates a request.
    """

    name: bytes
    quiet: bool
    extras: tuple[int, ...]
    hasKey: bool | None
    hasValue: bool | None
    translate: Translation


class BinaryReader(IRequestReader):
    """
    An L{IRequestReader<txconnpool.wire.IRequestReader>} for clients that use the binary protocol. It has no state of a
    client, so all of them share one.

    @ivar refusal: if the servers cannot execute what binary requests are translated to, the reason; else C{b""}.
    """

    def __init__(self, limits: Limits, now: Callable[[], float] = time.time) -> None:
        """
        @param now: returns the time in seconds since the epoch. An expiry time before it is a deletion.
        """
        self.refusal = b""
        self._limits = limits
        self._now = now

    def read(self, data: bytes, pos: int, room: int) -> Frame:
        """
        Find the next requests of a client, see L{IRequestReader.read<txconnpool.wire.IRequestReader.read>}.
        """
        if len(data) - pos < HEADER:
            return MORE, pos, 0, HEADER
        if data[pos] != REQUEST:
            return CLOSE, len(data), 0, b""
        opcode, keyLength, extras, body, opaque, cas = readHeader(data, pos + 1)
        start = pos + HEADER
        stop = start + extras + keyLength
        if stop > len(data):
            return MORE, pos, 0, stop - pos
        if self.refusal:
            return CLOSE, len(data), 0, failure(opcode, opaque, NOT_SUPPORTED, self.refusal)
        end = start + body
        if opcode == packets.GET and stop == end and not extras and not self._limits.permissions.restricted:
            key = data[start:stop]
            if _asText(key):  # the most common request
                return Get(opcode, opaque, False, key, False), end, 1, b"gets %b\r\n" % key
        if stop > end:
            return CLOSE, len(data), 0, failure(opcode, opaque, UNKNOWN_COMMAND)
        kind = KINDS.get(opcode)
        if (
            body > BODY_MAX
            or keyLength > KEY_MAX
            or (kind is not None and _isMalformed(kind, extras, keyLength, stop < end))
        ):
            return CLOSE, len(data), 0, failure(opcode, opaque, INVALID)
        if kind is None:
            return ANSWER, end, 0, failure(opcode, opaque, UNKNOWN_COMMAND)
        if kind.hasValue is None:
            end = stop
        key = data[start + extras : stop]
        return kind.translate(self, kind, Request(opcode, kind.quiet, opaque, cas, key, data, start, stop, end))

    # -- Permissions

    def refused(self, kind: Kind, request: Request, effects: Effects = HARMLESS, expiry: int = 0) -> Frame | None:
        """
        @param effects: the effects of the request, beside those that it has always.
        @param expiry: the expiry time that the request sets; 0: none.

        @return: the frame of a request that is not permitted, else C{None}.
        """
        permissions = self._limits.permissions
        if not permissions.restricted:
            return None
        if RELATIVE_MAX < expiry <= self._now():
            effects |= DELETES
        name = b"cas" if request.cas and kind.name in (b"set", b"add", b"replace") else kind.name
        if permissions.permits(name, ORDINARY[name] | effects):
            return None
        text = name + b" not allowed"
        return ANSWER, request.end, 0, failure(request.opcode, request.opaque, NOT_SUPPORTED, text)

    def permits(self, name: bytes, effects: Effects) -> bool:
        """
        @return: whether a request is permitted.
        """
        return self._limits.permissions.permits(name, effects)

    @property
    def maxItemSize(self) -> int:
        """
        The maximum length of a value.
        """
        return self._limits.maxItemSize


def _isMalformed(kind: Kind, extras: int, keyLength: int, hasValue: bool) -> bool:
    return (
        extras not in kind.extras
        or (kind.hasKey is not None and kind.hasKey is not (keyLength > 0))
        or (kind.hasValue is False and hasValue)
    )


# -- Translations


def _word(key: bytes) -> tuple[bytes, bytes]:
    """
    @return: a key as a word of a text request, and the flag that says how it is written.
    """
    return (key, b"") if _asText(key) else (b2a_base64(key, newline=False), b" b")


def _keyTooLong(request: Request, word: bytes) -> Frame | None:
    """
    @return: the frame of a request whose key in base64 is longer than a server accepts; else C{None}.
    """
    if len(word) <= KEY_MAX:
        return None
    text = b"Key too long: more than 186 bytes, with bytes that servers accept in base64 only"
    return ANSWER, request.end, 0, failure(request.opcode, request.opaque, INVALID, text)


def _expiry(seconds: int) -> int:
    """
    @return: an expiry time that text can carry. A date after January 2038 becomes never.
    """
    return seconds if seconds <= _LATEST else 0


def _get(reader: BinaryReader, kind: Kind, request: Request) -> Frame:
    refused = reader.refused(kind, request)
    if refused is not None:
        return refused
    opcode, quiet, opaque, _, key, _, _, _, end = request
    if quiet and (several := _severalGets(reader, request)) is not None:
        return several
    named = opcode in _NAMED
    if _asText(key):
        return Get(opcode, opaque, quiet, key, named), end, 1, b"gets %b\r\n" % key
    word = b2a_base64(key, newline=False)
    line = b"mg %b b c f v\r\n" % word
    return _keyTooLong(request, word) or (MetaGet(opcode, opaque, quiet, key, named), end, 1, line)


def _severalGets(reader: BinaryReader, request: Request) -> Frame | None:
    """
    @return: the frame of consecutive quiet gets with a no-operation after them; C{None} if there is only one get.
    """
    opcode, _, opaque, _, key, data, _, _, stop = request
    size = len(data)
    wanted: dict[bytes, tuple[int, bytes]] = {}
    trailer = b""
    isText, header, quiet = _asText, readHeader, _QUIET_GETS
    last = size - HEADER  # the last position of a header
    while isText(key) and key not in wanted:
        wanted[key] = opcode, opaque
        end = stop
        if end > last or data[end] != REQUEST or len(wanted) == PART_KEYS:
            break
        opcode, keyLength, extras, body, opaque, _ = header(data, end + 1)
        start = end + HEADER
        stop = start + body
        if opcode not in quiet or extras or body != keyLength or stop > size:
            if opcode == packets.NOOP and not (keyLength or extras or body) and reader.permits(b"mn", HARMLESS):
                trailer = packet(opcode, opaque)
                end = start
            break
        key = data[start:stop]
    if not trailer and len(wanted) < 2:
        return None
    return GetSeveral(wanted, trailer), end, 1, b"gets %b\r\n" % b" ".join(wanted)


def _getAndTouch(reader: BinaryReader, kind: Kind, request: Request) -> Frame:
    opcode, quiet, opaque, _, key, data, start, _, end = request
    (expiry,) = _number(data, start)
    refused = reader.refused(kind, request, expiry=expiry)
    if refused is not None:
        return refused
    expiry = _expiry(expiry)
    named = opcode in _NAMED
    if _asText(key):
        return GetAndTouch(opcode, opaque, quiet, key, named), end, 1, b"gats %d %b\r\n" % (expiry, key)
    word = b2a_base64(key, newline=False)
    line = b"mg %b b T%d c f v\r\n" % (word, expiry)
    return _keyTooLong(request, word) or (MetaGetAndTouch(opcode, opaque, quiet, key, named), end, 1, line)


def _touch(reader: BinaryReader, kind: Kind, request: Request) -> Frame:
    (expiry,) = _number(request.data, request.start)
    refused = reader.refused(kind, request, expiry=expiry)
    if refused is not None:
        return refused
    word, flag = _word(request.key)
    line = b"mg %b%b T%d c f\r\n" % (word, flag, _expiry(expiry))
    return _keyTooLong(request, word) or _frame(Touch, request, line)


#: The flag for the mode of C{ms}.
_MODES: Final = {
    b"set": b"", b"add": b" ME", b"replace": b" MR", b"append": b" MA", b"prepend": b" MP",
}  # fmt: skip
_STORES: Final[dict[bytes, type[Store]]] = {
    b"set": Store, b"add": Add, b"replace": Replace, b"append": Store, b"prepend": Store,
}  # fmt: skip


def _store(reader: BinaryReader, kind: Kind, request: Request) -> Frame:
    _, _, _, cas, key, data, start, stop, end = request
    name, made = kind.name, _STORES[kind.name]
    options = _MODES[name]
    expiry = 0
    if kind.extras != (0,):
        flags, expiry = _storing(data, start)
        if cas:
            options, made = b"", Store  # memcached treats each of them as a cas
        if flags:
            options += b" F%d" % flags
        if time := _expiry(expiry):
            options += b" T%d" % time
    if cas:
        options += b" C%d" % cas
    refused = reader.refused(kind, request, expiry=expiry)
    if refused is not None:
        return refused
    word, flag = _word(key)
    tooLong = _keyTooLong(request, word)
    if tooLong is not None:
        return tooLong
    if end - stop > reader.maxItemSize:
        return _tooLarge(reader, name, request, b"md %b%b\r\n" % (word, flag))
    if end > len(data):
        return MORE, start - HEADER, 0, end - start + HEADER
    return _frame(made, request, b"ms %b %d%b%b c\r\n%b\r\n" % (word, end - stop, flag, options, data[stop:end]))


def _tooLarge(reader: BinaryReader, name: bytes, request: Request, discard: bytes) -> Frame:
    """
    @return: the frame of a request whose value is too large. A set deletes the old value, as in memcached, but not for
        a client that may not delete.
    """
    error = failure(request.opcode, request.opaque, TOO_LARGE)
    if name == b"set" and reader.permits(name, WRITES | DELETES):
        return REPLACE_REQUEST, request.end, 0, (DISCARD, discard, error)
    return ANSWER, request.end, 0, error


def _delete(reader: BinaryReader, kind: Kind, request: Request) -> Frame:
    refused = reader.refused(kind, request)
    if refused is not None:
        return refused
    word, flag = _word(request.key)
    unique = b" C%d" % request.cas if request.cas else b""
    return _keyTooLong(request, word) or _frame(Delete, request, b"md %b%b%b\r\n" % (word, flag, unique))


def _count(reader: BinaryReader, kind: Kind, request: Request) -> Frame:
    delta, initial, expiry = _counting(request.data, request.start)
    options = b" MD" if kind.name == b"decr" else b""
    if expiry != NEVER_CREATE:
        options += b" N%d J%d" % (_expiry(expiry), initial)
    else:
        expiry = 0
    if request.cas:
        options += b" C%d" % request.cas
    refused = reader.refused(kind, request, expiry=expiry)
    if refused is not None:
        return refused
    word, flag = _word(request.key)
    return _keyTooLong(request, word) or _frame(Count, request, b"ma %b%b D%d%b c v\r\n" % (word, flag, delta, options))


def _flush(reader: BinaryReader, kind: Kind, request: Request) -> Frame:
    line = b"flush_all\r\n"
    if request.start < request.stop:
        (delay,) = _number(request.data, request.start)
        line = b"flush_all %d\r\n" % min(delay, _LATEST)
    return reader.refused(kind, request) or _everywhere(Flush, request, line)


def _verbosity(reader: BinaryReader, kind: Kind, request: Request) -> Frame:
    (level,) = _number(request.data, request.start)
    line = b"verbosity %d\r\n" % level
    return reader.refused(kind, request) or _everywhere(Verbosity, request, line)


def _version(reader: BinaryReader, kind: Kind, request: Request) -> Frame:
    return reader.refused(kind, request) or _frame(Version, request, b"version\r\n")


def _statistics(reader: BinaryReader, kind: Kind, request: Request) -> Frame:
    command = Statistics(request.opcode, request.opaque, False, None)
    words = tuple(request.key.split())
    return reader.refused(kind, request) or (STATISTICS, request.end, 0, (command, words))


def _noOperation(reader: BinaryReader, kind: Kind, request: Request) -> Frame:
    return reader.refused(kind, request) or (ANSWER, request.end, 0, packet(request.opcode, request.opaque))


def _quit(reader: BinaryReader, kind: Kind, request: Request) -> Frame:
    return CLOSE, request.end, 0, b"" if kind.quiet else packet(request.opcode, request.opaque)


def _login(reader: BinaryReader, kind: Kind, request: Request) -> Frame:
    """
    Refuse a login, as memcached does if it was started without logins: a client that has to log in has done so.
    """
    return ANSWER, request.end, 0, failure(request.opcode, request.opaque, UNKNOWN_COMMAND)


def _frame(made: type[BinaryCommand], request: Request, line: bytes) -> Frame:
    return made(request.opcode, request.opaque, request.quiet, request.key or None), request.end, 1, line


def _everywhere(made: type[BinaryCommand], request: Request, line: bytes) -> Frame:
    command, end, _, _ = _frame(made, request, line)
    return BROADCAST, end, 0, (command, line)


_QUIET_GETS: Final = frozenset((packets.GETQ, packets.GETKQ))
#: The opcodes whose replies have the key.
_NAMED: Final = frozenset((packets.GETK, packets.GETKQ, packets.GATK, packets.GATKQ))


def _both(
    loud: int, quiet: int, name: bytes, extras: tuple[int, ...], hasKey: bool, hasValue: bool | None, each: Translation
) -> dict[int, Kind]:
    """
    @return: the kinds of the opcode C{loud}, and of its quiet form.
    """
    return {opcode: Kind(name, opcode == quiet, extras, hasKey, hasValue, each) for opcode in (loud, quiet)}


#: The kinds of requests that are known, by opcode. The others get an error.
KINDS: Final[dict[int, Kind]] = {
    **_both(packets.GET, packets.GETQ, b"get", (0,), True, False, _get),
    **_both(packets.GETK, packets.GETKQ, b"get", (0,), True, False, _get),
    **_both(packets.GAT, packets.GATQ, b"gat", (4,), True, None, _getAndTouch),
    **_both(packets.GATK, packets.GATKQ, b"gat", (4,), True, None, _getAndTouch),
    packets.TOUCH: Kind(b"touch", False, (4,), True, None, _touch),
    **_both(packets.SET, packets.SETQ, b"set", (8,), True, True, _store),
    **_both(packets.ADD, packets.ADDQ, b"add", (8,), True, True, _store),
    **_both(packets.REPLACE, packets.REPLACEQ, b"replace", (8,), True, True, _store),
    **_both(packets.APPEND, packets.APPENDQ, b"append", (0,), True, True, _store),
    **_both(packets.PREPEND, packets.PREPENDQ, b"prepend", (0,), True, True, _store),
    **_both(packets.DELETE, packets.DELETEQ, b"delete", (0,), True, False, _delete),
    **_both(packets.INCR, packets.INCRQ, b"incr", (20,), True, False, _count),
    **_both(packets.DECR, packets.DECRQ, b"decr", (20,), True, False, _count),
    **_both(packets.FLUSH, packets.FLUSHQ, b"flush_all", (0, 4), False, False, _flush),
    packets.NOOP: Kind(b"mn", False, (0,), False, False, _noOperation),
    packets.VERSION: Kind(b"version", False, (0,), False, False, _version),
    packets.VERBOSITY: Kind(b"verbosity", False, (4,), False, False, _verbosity),
    packets.STAT: Kind(b"stats", False, (0,), None, None, _statistics),
    **_both(packets.QUIT, packets.QUITQ, b"quit", (0,), False, False, _quit),
    packets.SASL_LIST: Kind(b"auth", False, (0,), False, False, _login),
    packets.SASL_AUTH: Kind(b"auth", False, (0,), True, True, _login),
    packets.SASL_STEP: Kind(b"auth", False, (0,), True, True, _login),
}
