# -*- test-case-name: tests.wire.memcache.test_dialect -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The requests of memcached's text and meta protocols, found in the bytes of a client and checked.

Every request passes through L{RequestReader.read}, so it is two parsers in one. One regular expression knows the
commonest requests in their commonest spelling, several single C{get}s as one frame. Everything else, and everything
that is wrong, goes to the full check of the line (L{txconnpool.wire.memcache.classic},
L{txconnpool.wire.memcache.meta}). The second accepts everything that the first accepts, and equally.
"""

from __future__ import annotations

import re
from typing import Final

from txconnpool.wire import ANSWER, BROADCAST, CLOSE, MORE, SPLIT, STATISTICS, SWALLOW, Command, Frame
from txconnpool.wire.memcache import classic, meta, replies
from txconnpool.wire.memcache.classic import ERROR, KEY_MAX, PART_KEYS
from txconnpool.wire.memcache.matching import EVERYTHING, MemcacheCommand
from txconnpool.wire.memcache.replies import GET, GETS, MG, SET, SEVERAL, SILENT

#: Bytes of a request line without its end, at most, except those of get and gets: memcached closes a connection that
#: has sent more without an end (C{proto_text.c}, C{try_read_command_ascii}).
REQUEST_LINE_MAX: Final = 2048

#: The same for get and gets, which memcached does not limit. A session then holds no more for the line of a retrieval
#: than for a value of memcached's default size; it is 4000 of the longest keys.
RETRIEVAL_LINE_MAX: Final = 1 << 20

#: Requests that one frame holds at most: as many keys as a request for several that is not sent in parts.
RUN_MAX: Final = PART_KEYS

_LONG_RETRIEVAL: Final = re.compile(rb" {0,100}gets? ").match

#: Words of memcached that are about a connection or a server, not about data: here a connection is shared, and one
#: client would stop, slow or spy on all the others.
REFUSED: Final = frozenset(
    b"watch shutdown debugtime slabs lru lru_crawler cache_memlimit misbehave refresh_certs extstore".split()
)

_BINARY: Final = b"CLIENT_ERROR the binary protocol is not supported, use the text protocol\r\n"
_LINE_TOO_LONG: Final = b"CLIENT_ERROR line too long\r\n"

_CHECKS: Final = classic.CHECKS | meta.CHECKS

#: The words of all commands that are spoken here.
COMMAND_NAMES: Final = frozenset(_CHECKS)

# What the commonest requests look like. A key is one range of bytes here, which is the fastest to match; one with a
# control character in it, as memcached allows, is left to the full check, as are numbers of more digits than usual.
_COMMON: Final = re.compile(
    rb"get KEY\r\n(?:(get )KEY\r\n(?:get KEY\r\n){0,MORE}|)"
    rb"|get ([^ \r\n][^\n]{2,2000})\r\n"
    rb"|set KEY [0-9]{1,9} -?1?[0-9]{1,9} (0|[1-9][0-9]{0,8})(?:\r\n| (noreply)\r\n)"
    rb"|(delete KEY|(?:incr|decr|touch) KEY [0-9]{1,9})(?:\r\n| (noreply)\r\n)"
    rb"|(gets) KEY\r\n"
    rb"|mg KEY((?: [cfhklstuv])+)\r\n".replace(b"KEY", rb"[!-\xff]{1,250}").replace(b"MORE", b"%d" % (RUN_MAX - 2))
)

# The number of its last group tells which of them a request is; a single get has none.
_RUN, _KEYS, _SET, _SET_NOREPLY, _LINE, _LINE_NOREPLY, _GETS, _MG = range(1, 9)

_GET_SEVERAL: Final = SEVERAL[GET]
_LINES: Final = {
    command.name.encode()[:4]: command for command in (replies.DELETE, replies.INCR, replies.DECR, replies.TOUCH)
}
_COMMON_WORDS: Final = frozenset(b"get set delete incr decr touch gets mg".split())


class RequestReader:
    """
    An L{IRequestReader<txconnpool.wire.IRequestReader>}. It has no state of a client, so one serves all clients of a
    pool.
    """

    pinned = False

    def __init__(
        self,
        maxItemSize: int = 1 << 20,
        denied: frozenset[bytes] = frozenset(),
        allowed: frozenset[bytes] | None = None,
    ) -> None:
        """
        The parameters are those of L{limit}.
        """
        self.limit(maxItemSize, denied, allowed)

    def limit(self, maxItemSize: int, denied: frozenset[bytes], allowed: frozenset[bytes] | None) -> None:
        """
        Set what is forwarded from now on, for the clients that there are too.

        @param maxItemSize: bytes of a value, at most.
        @param denied: commands that are refused with C{CLIENT_ERROR ... not allowed}.
        @param allowed: the only commands that are not refused; C{None} for all.
        """
        self._maxItemSize = maxItemSize
        self._denied = denied if allowed is None else denied | (COMMAND_NAMES - allowed)
        self._common = _COMMON.match if self._denied.isdisjoint(_COMMON_WORDS) else re.compile(b"(?!)").match

    def read(self, data: bytes, pos: int, room: int) -> Frame:
        """
        Look at a client's bytes from C{pos}.

        @param room: the most requests to take as one frame, at least 1.

        @return: C{(command, end, count, payload)}: C{data[pos:end]} is C{count} requests which are owed one reply of
            C{command} each, to be sent as they are or as C{payload}; or a
            L{LocalAction<txconnpool.wire.LocalAction>} if C{count} is 0.
        """
        common = self._common
        match = common(data, pos)
        if match is None:
            return self._check(data, pos)
        end = match.end()
        which = match.lastindex
        if which is None:
            return GET, end, 1, None
        if which == _RUN:
            return _run(data[pos + 4 : end - 2].split(b"\r\nget ", room)[:room], pos)
        if _SET <= which <= _SET_NOREPLY:
            length = int(match[_SET])
            stop = end
            end += length + 2
            if length > self._maxItemSize:
                return self._check(data, pos)
            if end > len(data):
                return MORE, pos, 0, end - pos
            if data[end - 2] != 13 or data[end - 1] != 10:
                return self._check(data, pos)
            if which == _SET:
                return SET, end, 1, None
            return SILENT[SET], end, 1, data[pos : stop - 10] + data[stop - 2 : end]
        if which == _KEYS:
            keys = match[_KEYS]
            spaces = keys.count(32)
            if spaces >= PART_KEYS or 0 in keys or (len(keys) > KEY_MAX and _hasLongKey(keys)):
                return self._check(data, pos)
            return _GET_SEVERAL if spaces else GET, end, 1, None
        if which == _GETS:
            return GETS, end, 1, None
        if which == _MG:
            flags = match[_MG]
            if len(flags) + 2 != 2 * len(set(flags)):
                return self._check(data, pos)
            return MG[b"v" in flags, False], end, 1, None
        command = _LINES[data[pos : pos + 4]]
        if which == _LINE:
            return command, end, 1, None
        return SILENT[command], end, 1, match[_LINE] + b"\r\n"

    def forwarded(self, command: Command) -> None:
        """
        Never called: no command of memcached needs a connection of its own.
        """

    def _check(self, data: bytes, pos: int) -> Frame:
        """
        Look at one request thoroughly.
        """
        if data[pos : pos + 1] == b"\x80":
            return CLOSE, len(data), 0, _BINARY
        newline = data.find(b"\n", pos)
        size = (len(data) if newline < 0 else newline) - pos
        if size > REQUEST_LINE_MAX:
            if not _LONG_RETRIEVAL(data, pos):
                return CLOSE, len(data), 0, b""
            if size > RETRIEVAL_LINE_MAX:
                return CLOSE, len(data), 0, _LINE_TOO_LONG
        if newline < 0:
            return MORE, pos, 0, 0
        words = data[pos:newline].removesuffix(b"\r").split(b" ")
        if b"" in words:
            words = [word for word in words if word]
        stop = newline + 1
        check = _CHECKS.get(words[0]) if words else None
        if check is None:
            return _refuse(words, stop)
        frame = check(words, data, pos, stop, self._maxItemSize)
        if words[0] in self._denied:
            return _deny(words[0], frame)
        return frame


def _run(keys: list[bytes], pos: int) -> Frame:
    """
    The frame of C{get}s for one key each that begin at C{pos}. It ends before a key that is in it already.
    """
    if len(set(keys)) < len(keys):
        keys = keys[: next(number for number, key in enumerate(keys) if key in keys[:number])]
    count = len(keys)
    together = b" ".join(keys)
    # Beside its key each has six bytes; between two keys there is one now.
    end = pos + len(together) + 5 * count + 1
    return GET, end, count, None if count == 1 else b"get %b\r\n" % together


def _hasLongKey(keys: bytes) -> bool:
    """
    Whether one of the keys is too long. Looking backwards from where the longest would end skips the short ones.
    """
    pos = 0
    while len(keys) - pos > KEY_MAX:
        pos = keys.rfind(b" ", pos, pos + KEY_MAX + 1) + 1
        if not pos:
            return True
    return False


def _refuse(words: list[bytes], stop: int) -> Frame:
    """
    The frame of a line that begins with no word we speak.
    """
    if not words:
        return ANSWER, stop, 0, ERROR
    if words[0] in REFUSED:
        return ANSWER, stop, 0, b"CLIENT_ERROR " + words[0] + b" not allowed on a shared connection\r\n"
    if words[-1].startswith(b"HTTP/"):
        return CLOSE, stop, 0, b""
    return ANSWER, stop, 0, ERROR


def _deny(word: bytes, frame: Frame) -> Frame:
    """
    What becomes of a good request whose command is not allowed.
    """
    command, end, _, payload = frame
    if command is BROADCAST or command is SWALLOW:
        command = payload[0]
    if isinstance(command, MemcacheCommand):
        silent = command.substitute == b"" if command.substitute is not None else command.hidden is EVERYTHING
    elif command is STATISTICS or command is SPLIT:
        silent = False
    else:
        return frame
    return ANSWER, end, 0, b"" if silent else b"CLIENT_ERROR " + word + b" not allowed\r\n"
