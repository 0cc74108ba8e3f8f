# -*- test-case-name: tests.wire.memcache.test_dialect -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Finds the requests of memcached's text protocol in the bytes of a client, and checks them.

Every request passes through L{RequestReader.read}, so there are two parsers. L{txconnpool.wire.memcache.common} finds
the most common requests in their most common form, and several consecutive single C{get}s as one frame. All other
requests, and all invalid ones, go to the full check of the line (L{txconnpool.wire.memcache.classic},
L{txconnpool.wire.memcache.meta}). The full check accepts each request that the other parser finds, with the same
result.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

from txconnpool.wire import ANSWER, CLOSE, MORE, Foreign, Frame, IRequestReader
from txconnpool.wire.effects import Permissions
from txconnpool.wire.memcache import classic, meta
from txconnpool.wire.memcache.classic import Check
from txconnpool.wire.memcache.common import acceptedCommands
from txconnpool.wire.memcache.common import chosenScan as scanRequest
from txconnpool.wire.memcache.effects import NAMED, ORDINARY, permitted, refused
from txconnpool.wire.memcache.rules import BAD_LINE, EARLIER, ERROR, MODERN, Rules
from txconnpool.wire.memcache.unsupported import Unsupported

#: The maximum length of a request line without its end, in bytes, except for get and gets. memcached closes a
#: connection on which it has received more without a line end (C{proto_text.c}, C{try_read_command_ascii}).
REQUEST_LINE_MAX: Final = 2048

#: The same for get and gets, which memcached does not limit. So a session buffers no more for the line of a retrieval
#: than for a value of the default maximum size. 4000 keys of the maximum length fit.
RETRIEVAL_LINE_MAX: Final = 1 << 20

#: The maximum number of words in such a line, repeated spaces counted: the time to read it grows with them.
RETRIEVAL_WORDS_MAX: Final = 1 << 15

_LONG_RETRIEVAL: Final = re.compile(rb" {0,100}gets? ").match

#: Commands of memcached that act on a connection or a server and not on data. Both are shared here, so that one client
#: could stop, slow down or spy on all others.
REFUSED: Final = frozenset(b"watch shutdown debugtime slabs lru misbehave refresh_certs extstore".split())

_LINE_TOO_LONG: Final = b"CLIENT_ERROR line too long\r\n"

_CHECKS: Final[dict[Rules, dict[bytes, Check]]] = {
    rules: classic.checks(rules) | meta.checks(rules) for rules in (EARLIER, MODERN)
}

#: The maximum number of words of a line that 1.6.40 looks at. The last of them may be C{noreply}. With the end of the
#: line they are C{MCMC_PARSER_MAX_TOKENS} (C{mcmc.h}).
TOKENS_MAX: Final = 23

#: The commands that may have spaces before them since 1.6.40, as all had before.
_AFTER_SPACES: Final = frozenset((b"flush_all", b"verbosity"))


class RequestReader(IRequestReader):
    """
    An L{IRequestReader<txconnpool.wire.IRequestReader>}. It has no state of a client, so all clients of a pool share
    one.

    @ivar maxItemSize: the maximum length of a value, in bytes.
    @ivar permissions: which requests are accepted.
    @ivar unsupported: the commands that servers do not support.
    """

    def __init__(
        self,
        maxItemSize: int = 1 << 20,
        denied: frozenset[bytes] = frozenset(),
        allowed: frozenset[bytes] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        The other parameters are those of L{Memcache.limit<txconnpool.wire.memcache.dialect.Memcache.limit>}.

        @param now: returns the time in seconds since the epoch. An expiry time before it is a deletion.
        """
        self._now = now
        self.follow(EARLIER)
        self._refused: frozenset[bytes] = frozenset()
        self.unsupported = Unsupported(self._refuse, now)
        self.limit(maxItemSize, denied, allowed)

    def follow(self, rules: Rules) -> None:
        """
        Use the rules of some versions from now on.
        """
        self._rules = rules
        self._checks = _CHECKS[rules]

    def limit(self, maxItemSize: int, denied: frozenset[bytes], allowed: frozenset[bytes] | None) -> None:
        """
        Set which requests are forwarded, see L{Memcache.limit<txconnpool.wire.memcache.dialect.Memcache.limit>}.
        """
        self.maxItemSize = maxItemSize
        self.permissions = Permissions(ORDINARY, denied, allowed)
        self._accepted = acceptedCommands(self.permissions, self._refused)

    def _refuse(self, names: frozenset[bytes]) -> None:
        if names != self._refused:
            self._refused = names
            self._accepted = acceptedCommands(self.permissions, names)

    def read(self, data: bytes, pos: int, room: int) -> Frame:
        """
        Find the next requests of a client, from C{pos}.

        @param room: the maximum number of requests in the frame, at least 1.

        @return: C{(command, end, count, payload)}: C{data[pos:end]} contains C{count} requests with one reply of
            C{command} each, to be sent unchanged or as C{payload}. If C{count} is 0, C{command} is a
            L{LocalAction<txconnpool.wire.LocalAction>}.
        """
        frame = scanRequest(data, pos, room, self.maxItemSize, self._accepted)
        return self._check(data, pos) if frame is None else frame

    def _check(self, data: bytes, pos: int) -> Frame:
        """
        Check one request completely.
        """
        newline = data.find(b"\n", pos)
        size = (len(data) if newline < 0 else newline) - pos
        if size > REQUEST_LINE_MAX:
            if not _LONG_RETRIEVAL(data, pos):
                return CLOSE, len(data), 0, b""
            if size > RETRIEVAL_LINE_MAX or data.count(b" ", pos, pos + size) > RETRIEVAL_WORDS_MAX:
                return CLOSE, len(data), 0, _LINE_TOO_LONG
        if newline < 0:
            return MORE, pos, 0, 0
        words = data[pos:newline].removesuffix(b"\r").split(b" ")
        if b"" in words:
            words = [word for word in words if word]
        stop = newline + 1
        modern = self._rules.modern
        if modern and stop - pos < 4:
            return ANSWER, stop, 0, BAD_LINE
        check = self._checks.get(words[0]) if words else None
        if check is None:
            return _refuse(words, stop, modern)
        frame = check(words, data, pos, stop, self.maxItemSize)
        if modern and data[pos] == 32 and words[0] not in _AFTER_SPACES:
            return _unknown(frame, words, pos, stop)
        if words[0] in self._refused and (line := self.unsupported.refusal(words[0])) is not None:
            return refused(frame, line)
        if self.permissions.restricted or words[0] in NAMED:
            return permitted(words, frame, self.permissions, self._now())
        return frame


def _refuse(words: list[bytes], stop: int, modern: bool) -> Frame:
    """
    @param modern: whether the rules of 1.6.40 are used.

    @return: the frame of a line that begins with no known command.
    """
    if not words:
        return ANSWER, stop, 0, ERROR
    if words[0] in REFUSED:
        return ANSWER, stop, 0, b"CLIENT_ERROR " + words[0] + b" not allowed on a shared connection\r\n"
    if words[-1].startswith(b"HTTP/") and (len(words) > 1 or not modern):
        return CLOSE, stop, 0, Foreign("http")
    return ANSWER, stop, 0, _unknownReply(words) if modern else ERROR


def _unknown(frame: Frame, words: list[bytes], pos: int, stop: int) -> Frame:
    """
    @param frame: the frame that a request would have without the spaces before it.

    @return: the frame of an unknown command in its place. A data block is discarded.
    """
    what, end, _, payload = frame
    return ANSWER, max(stop, end if what is not MORE else pos + payload), 0, _unknownReply(words)


def _unknownReply(words: list[bytes]) -> bytes:
    return b"" if words[:TOKENS_MAX][-1] == b"noreply" else ERROR
