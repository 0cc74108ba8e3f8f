# -*- test-case-name: tests.wire.memcache.test_dialect -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The dialect of memcached: its classic and meta text protocols.

L{Memcache.requests} is on everybody's way, so it is two parsers in one. One regular expression knows the commonest
requests in their commonest spelling, a run of single C{get}s as one frame. Everything else, and everything that is
wrong, goes to the full check of the line (L{txconnpool.wire.memcache.classic}, L{txconnpool.wire.memcache.meta}). What
the first accepts the second accepts equally.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from txconnpool.wire import (
    ANSWER,
    CLOSE,
    EVERYTHING,
    EVERYWHERE,
    INSTEAD,
    MORE,
    PARTS,
    REPLY_LINE_MAX,
    STATISTICS,
    Command,
    Frame,
    matchReplies,
)
from txconnpool.wire.memcache import classic, meta, replies
from txconnpool.wire.memcache.auth import Gate
from txconnpool.wire.memcache.classic import ERROR, KEY_MAX, PART_KEYS
from txconnpool.wire.memcache.replies import COMMANDS, GET, GETS, MG, SET, SEVERAL, SILENT, STATS, VERSION
from txconnpool.wire.memcache.runs import matchRun

__all__ = [
    "ANSWER",
    "CLOSE",
    "COMMANDS",
    "EVERYWHERE",
    "MORE",
    "REPLY_LINE_MAX",
    "REQUEST_LINE_MAX",
    "RETRIEVAL_LINE_MAX",
    "STATISTICS",
    "Command",
    "Memcache",
]

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

#: What a server tells about itself that any of our clients may know.
_HARMLESS: Final = frozenset(b"items slabs sizes settings conns extstore".split())

_UNPRINTABLE: Final = re.compile(r"[^ -~]+")

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


class Memcache:
    """
    memcached's text and meta protocols, as spoken on one pool.

    @ivar probe: a request to see whether a server is alive, and the command of its reply.
    @ivar commands: the command of each command, by its index.
    @cvar gate: makes what reads the requests of clients who must log in.
    @ivar noStatistics: the reply to C{stats} of a group that does not exist.
    @ivar tooManyClients: the last words to a client for which there is no room, those of memcached.
    """

    probe: tuple[bytes, Command] = (b"version\r\n", VERSION)
    tooManyClients = b"ERROR Too many open connections\r\n"
    noStatistics = ERROR
    commands = COMMANDS
    gate = Gate
    replies = staticmethod(matchReplies)
    run = staticmethod(matchRun)

    def __init__(
        self,
        maxItemSize: int = 1 << 20,
        denied: frozenset[bytes] = frozenset(),
        allowed: frozenset[bytes] | None = None,
    ) -> None:
        """
        See L{limit}.
        """
        self.limit(maxItemSize, denied, allowed)

    def limit(self, maxItemSize: int, denied: frozenset[bytes], allowed: frozenset[bytes] | None) -> None:
        """
        Say what is let through, from now on.

        @param maxItemSize: bytes of a value, at most.
        @param denied: commands that are refused with C{CLIENT_ERROR ... not allowed}.
        @param allowed: the only commands that are not refused; C{None} for all.
        """
        self._maxItemSize = maxItemSize
        self._denied = denied if allowed is None else denied | (COMMAND_NAMES - allowed)
        self._common = _COMMON.match if self._denied.isdisjoint(_COMMON_WORDS) else re.compile(b"(?!)").match

    def requests(self, data: bytes, pos: int, most: int) -> Frame:
        """
        Look at a client's bytes from C{pos}.

        @param most: requests that may be taken in one frame, at least 1.

        @return: C{(command, end, count, payload)}: C{data[pos:end]} is C{count} requests which are owed one reply of
            C{command} each, to be sent as they are or as C{payload}; or a L{Directive} if C{count} is 0.
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
            return _run(data[pos + 4 : end - 2].split(b"\r\nget ", most)[:most], pos)
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

    def split(self, run: bytes, count: int) -> tuple[bytes, bytes]:
        """
        Make two runs of one, the first of which has C{count} requests.
        """
        keys = run[4:-2].split(b" ")
        return b"get %b\r\n" % b" ".join(keys[:count]), b"get %b\r\n" % b" ".join(keys[count:])

    def merge(self, replies: list[bytes]) -> bytes:
        """
        One reply to a request that every server has answered: an error if there is one.
        """
        return next((reply for reply in replies if b"ERROR" in reply.split(b" ", 1)[0]), replies[0])

    def error(self, text: str) -> bytes:
        """
        The line that tells a client that its request failed here.
        """
        return b"SERVER_ERROR " + _UNPRINTABLE.sub(" ", text)[:200].encode() + b"\r\n"

    def statistics(self, items: Iterable[tuple[str, object]]) -> bytes:
        """
        The reply to C{stats}.
        """
        lines = [f"STAT {name} {_UNPRINTABLE.sub(' ', str(value))}\r\n" for name, value in items]
        return "".join(lines).encode() + b"END\r\n"

    def statisticsOfServer(self, words: tuple[bytes, ...]) -> tuple[bytes, Command] | None:
        """
        The request by which a server is asked for its own statistics, and the command of its reply; C{None} if it would
        change something there, or tell what others have stored.
        """
        if len(words) > 1 or not _HARMLESS.issuperset(words):
            return None
        return b" ".join((b"stats", *words)) + b"\r\n", STATS

    def together(self, replies: list[bytes]) -> bytes:
        """
        One reply of those that several servers gave to that: the names begin with the number of the server.
        """
        if len(replies) == 1:
            return replies[0]
        lines = []
        for number, reply in enumerate(replies, 1):
            for line in reply.split(b"\r\n"):
                if line.startswith(b"STAT "):
                    lines.append(b"STAT %d:%s\r\n" % (number, line[5:]))
                elif line not in (b"", b"END"):
                    lines.append(b"STAT %d:error %s\r\n" % (number, line))
        return b"".join(lines) + b"END\r\n"

    def about(self, request: bytes) -> tuple[str, list[bytes]]:
        """
        What a request is about, for logs.

        @param request: a request or its beginning.

        @return: the command and the keys.
        """
        words = request.split(b"\n", 1)[0].split()
        command = words[0] if words else b""
        if command in (b"get", b"gets"):
            keys = words[1:]
        elif command in (b"gat", b"gats"):
            keys = words[2:]
        else:
            keys = words[1:2]
        return command.decode("ascii", "replace"), keys


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
    if isinstance(command, Command):
        silent = command.hidden is EVERYTHING
    elif command is EVERYWHERE:
        silent = payload[2]
    elif command is STATISTICS or command is PARTS:
        silent = False
    elif command is INSTEAD:
        silent = not payload[2]
    else:
        return frame
    return ANSWER, end, 0, b"" if silent else b"CLIENT_ERROR " + word + b" not allowed\r\n"
