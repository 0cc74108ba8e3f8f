# -*- test-case-name: tests.wire.memcache.test_expiry -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The expiry times of requests that store values or change how long they are kept.
"""

from __future__ import annotations

import re
from typing import Final

from txconnpool.wire.memcache.integers import known, signed32

#: Expiry times above this number of seconds are dates (C{memcached.h}, C{REALTIME_MAXDELTA}).
RELATIVE_MAX: Final = 60 * 60 * 24 * 30

# A number ends before the white space that memcached ignores after it.
_TIME: Final = rb"()([^ \n]*[^ \r\n])"
_STORE: Final = re.compile(rb" *(?:set|add|replace|append|prepend|cas) +[^ ]+ +[^ ]+ +" + _TIME).match
_TOUCH: Final = re.compile(rb" *(?:touch +[^ ]+|gats?) +" + _TIME).match
_META: Final = re.compile(rb" *(m[gsa]) +[^ \n]+([^\n]*?)(?=\r?\n)").match
_TTL: Final = re.compile(rb" ([TN])([^ ]+)").sub


def _limited(text: bytes, seconds: int) -> bytes:
    """
    @return: an expiry time, or the limit if it is later, never, or a date.
    """
    time = known(signed32, text)
    return text if time < 0 or 0 < time <= seconds else b"%d" % seconds


def expiring(request: bytes, seconds: int) -> bytes:
    """
    Limit how long a value is kept.

    @param request: any request that was checked.
    @param seconds: the limit, up to L{RELATIVE_MAX}.

    @return: the request, with a new expiry time if its own is later, a date, or none. A request that neither stores nor
        touches is not changed.
    """
    match = _STORE(request) or _TOUCH(request)
    if match is not None:
        start, end = match.span(2)
        return request[:start] + _limited(match[2], seconds) + request[end:]
    match = _META(request)
    if match is None:
        return request
    flags = _TTL(lambda found: b" " + found[1] + _limited(found[2], seconds), match[2])
    if match[1] == b"ms" and not re.search(rb" T", flags):
        flags += b" T%d" % seconds
    start, end = match.span(2)
    return request[:start] + flags + request[end:]
