# -*- test-case-name: tests.test_wire_memcache -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The dialect of memcached: its classic and meta text protocols.

L{Memcache.requests} is on everybody's way, so it is two parsers in one. One regular expression knows the commonest
requests in their commonest spelling, a run of single C{get}s as one frame. Everything else, and everything that is
wrong, goes to the full check of the line (L{txconnpool.wire.classic}, L{txconnpool.wire.meta}). What the first accepts
the second accepts equally.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from txconnpool.wire import (
    ANSWER,
    CLOSE,
    EVERYWHERE,
    MORE,
    REPLY_LINE_MAX,
    STATISTICS,
    Form,
    Frame,
    classic,
    matchReplies,
    meta,
    replies,
)
from txconnpool.wire.classic import ERROR, KEY_MAX
from txconnpool.wire.replies import FORMS, GET, VERSION

__all__ = [
    "ANSWER",
    "CLOSE",
    "EVERYWHERE",
    "FORMS",
    "MORE",
    "REPLY_LINE_MAX",
    "REQUEST_LINE_MAX",
    "RETRIEVAL_LINE_MAX",
    "STATISTICS",
    "Form",
    "Memcache",
]

#: Bytes of a request line without its end, at most, except those of get and gets: memcached closes a connection that
#: has sent more without an end (C{proto_text.c}, C{try_read_command_ascii}).
REQUEST_LINE_MAX: Final = 2048

#: The same for get and gets, which memcached does not limit. A session then holds no more for the line of a retrieval
#: than for a value of memcached's default size; it is 4000 of the longest keys.
RETRIEVAL_LINE_MAX: Final = 1 << 20

#: Requests that one frame holds at most. The search for the end of a run goes no further, so that the work for a frame
#: is bounded, whatever is asked for.
RUN_MAX: Final = 64

_LONG_RETRIEVAL: Final = re.compile(rb" {0,100}gets? ").match

#: Words of memcached that are about a connection or a server, not about data: here a connection is shared, and one
#: client would stop, slow or spy on all the others.
REFUSED: Final = frozenset(
    b"watch shutdown debugtime slabs lru lru_crawler cache_memlimit misbehave refresh_certs extstore".split()
)

_BINARY: Final = b"CLIENT_ERROR the binary protocol is not supported, use the text protocol\r\n"
_LINE_TOO_LONG: Final = b"CLIENT_ERROR line too long\r\n"

_SPOKEN: Final = re.compile(r"[^ -~]+")

_CHECKS: Final = classic.CHECKS | meta.CHECKS
_STORAGE: Final = {form.name.encode(): form for form in (replies.SET, replies.ADD, replies.REPLACE)}

# The number of the last group tells the alternative: none is the run. Control characters, which memcached takes in
# keys, and numbers of more digits than usual are left to the full check.
_COMMON: Final = re.compile(
    rb"(?:get KEY\r\n){1,%d}"
    rb"|get ([^\x00-\x20\x7f][^\x00-\x1f\x7f]{2,1999})\r\n"
    rb"|(set|add|replace) KEY [0-9]{1,9} -?[01]?[0-9]{1,9} (0|[1-9][0-9]{0,8})\r\n".replace(
        b"KEY", rb"[^\x00-\x20\x7f]{1,250}"
    )
    % RUN_MAX
)


class Memcache:
    """
    memcached's text and meta protocols, as spoken on one pool.

    @ivar probe: a request to see whether a server is alive, and the form of its reply.
    @ivar tooManyClients: the last words to a client for which there is no room, those of memcached.
    """

    probe: tuple[bytes, Form] = (b"version\r\n", VERSION)
    tooManyClients = b"ERROR Too many open connections\r\n"
    replies = staticmethod(matchReplies)

    def __init__(
        self,
        maxItemSize: int = 1 << 20,
        denied: frozenset[bytes] = frozenset(),
        allowed: frozenset[bytes] | None = None,
    ) -> None:
        """
        @param maxItemSize: bytes of a value, at most.
        @param denied: commands that are refused with C{CLIENT_ERROR ... not allowed}.
        @param allowed: the only commands that are not refused; C{None} for all.
        """
        self._maxItemSize = maxItemSize
        self._denied = denied if allowed is None else denied | (frozenset(_CHECKS) - allowed)
        self._common = _COMMON.match if self._denied.isdisjoint((b"get", *_STORAGE)) else re.compile(b"(?!)").match

    def requests(self, data: bytes, pos: int, most: int) -> Frame:
        """
        Look at a client's bytes from C{pos}.

        @param most: requests that may be taken in one frame, at least 1.

        @return: C{(form, end, count, payload)}: C{data[pos:end]} is C{count} requests which are owed one reply of
            C{form} each, to be sent as they are or as C{payload}; or a L{Directive} if C{count} is 0.
        """
        match = self._common(data, pos)
        if match is None:
            return self._check(data, pos)
        end = match.end()
        which = match.lastindex
        if which is None:
            count = data.count(b"\n", pos, end)
            if count > most:
                end -= len(data[pos:end].split(b"\n", most)[most])
                count = most
            return GET, end, count, None
        if which == 1:
            if end - pos > KEY_MAX + 6 and max(map(len, match[1].split(b" "))) > KEY_MAX:
                return self._check(data, pos)
            return GET, end, 1, None
        length = int(match[3])
        end += length + 2
        if length > self._maxItemSize:
            return self._check(data, pos)
        if end > len(data):
            return MORE, pos, 0, end - pos
        if data[end - 2] != 13 or data[end - 1] != 10:
            return self._check(data, pos)
        return _STORAGE[match[2]], end, 1, None

    def _check(self, data: bytes, pos: int) -> Frame:
        """
        Look at one request thoroughly.
        """
        newline = data.find(b"\n", pos)
        if data.startswith(b"\x80", pos):
            return CLOSE, len(data), 0, _BINARY
        size = (len(data) if newline < 0 else newline) - pos
        if size > REQUEST_LINE_MAX:
            if not _LONG_RETRIEVAL(data, pos):
                return CLOSE, len(data), 0, b""
            if size > RETRIEVAL_LINE_MAX:
                return CLOSE, len(data), 0, _LINE_TOO_LONG
        if newline < 0:
            return MORE, pos, 0, 0
        line = data[pos:newline]
        words = [word for word in line.removesuffix(b"\r").split(b" ") if word]
        stop = newline + 1
        check = _CHECKS.get(words[0]) if words else None
        if check is None:
            return _refuse(words, stop)
        frame = check(words, data, pos, stop, self._maxItemSize)
        if words[0] in self._denied:
            return _deny(words[0], frame)
        return frame

    def error(self, text: str) -> bytes:
        """
        The line that tells a client that its request failed here.
        """
        return b"SERVER_ERROR " + _SPOKEN.sub(" ", text)[:200].encode() + b"\r\n"

    def statistics(self, items: Iterable[tuple[str, object]]) -> bytes:
        """
        The reply to C{stats}.
        """
        lines = [f"STAT {name} {_SPOKEN.sub(' ', str(value))}\r\n" for name, value in items]
        return "".join(lines).encode() + b"END\r\n"


def _refuse(words: list[bytes], stop: int) -> Frame:
    """
    The frame of a line that begins with no word we speak.
    """
    if words and words[0] in REFUSED:
        return ANSWER, stop, 0, b"CLIENT_ERROR " + words[0] + b" not allowed on a shared connection\r\n"
    if words and words[-1].startswith(b"HTTP/"):
        return CLOSE, stop, 0, b""
    return ANSWER, stop, 0, ERROR


def _deny(word: bytes, frame: Frame) -> Frame:
    """
    What becomes of a good request whose command is not allowed.
    """
    form, end, _, payload = frame
    if isinstance(form, Form):
        silent = form.hidden is replies.EVERYTHING
    elif form is EVERYWHERE:
        silent = payload[2]
    elif form is STATISTICS:
        silent = False
    else:
        return frame
    return ANSWER, end, 0, b"" if silent else b"CLIENT_ERROR " + word + b" not allowed\r\n"
