# -*- test-case-name: tests.wire.memcache.test_effects -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The effects of memcached's requests, and the refusal of those that are not permitted.

The commands have effects of their own (L{txconnpool.wire.memcache.replies}). C{mg} writes if it has a flag that does. A
request that makes a value expire at once deletes it: C{touch KEY -1} is a C{delete} under another name.

What memcached does at every read is no write: it moves the item to the front of its queue, and gives the first client
that reads a stale item the task to store it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from txconnpool.wire import ANSWER, BROADCAST, CLOSE, DUMP, REPLACE, SPLIT, STATISTICS, Frame
from txconnpool.wire.effects import DELETES, EXPLICIT, HARMLESS, WRITES, Effects, Permissions
from txconnpool.wire.memcache.expiry import RELATIVE_MAX
from txconnpool.wire.memcache.integers import known, signed32
from txconnpool.wire.memcache.matching import EVERYTHING, MemcacheCommand
from txconnpool.wire.memcache.replies import AUTH, COMMANDS

#: The position of the expiry time among the words of a request.
_EXPIRY: Final = {
    **dict.fromkeys((b"set", b"add", b"replace", b"append", b"prepend", b"cas"), 3),
    b"touch": 2,
    b"gat": 1,
    b"gats": 1,
}

#: The position of the first flag among the words of a request that may set an expiry time with the flag C{T}.
_FLAGS: Final = {b"mg": 2, b"ms": 3, b"ma": 2}

_T: Final = ord("T")

#: The effects of each command without flags, and with an expiry time in the future.
ORDINARY: Final[Mapping[bytes, Effects]] = {
    **{command.name.encode(): command.effects for command in COMMANDS if command is not AUTH},
    b"quit": HARMLESS,
}

#: The effects that each command can have.
POSSIBLE: Final[Mapping[bytes, Effects]] = {
    name: effects | (WRITES | DELETES if name in _EXPIRY or name in _FLAGS else HARMLESS)
    for name, effects in ORDINARY.items()
}

#: The names of the commands that are refused unless they are allowed by name.
NAMED: Final[frozenset[bytes]] = frozenset(name for name, effects in ORDINARY.items() if effects >= EXPLICIT)

#: The names of the commands that only close the connection of their client.
CLOSING: Final[frozenset[bytes]] = frozenset((b"quit",))


def _expiry(words: list[bytes]) -> int:
    """
    @param words: the words of a valid request.

    @return: the expiry time that the request sets; 0 if it sets none.
    """
    at = _EXPIRY.get(words[0])
    if at is not None:
        return known(signed32, words[at])
    first = _FLAGS.get(words[0])
    if first is not None:
        for flag in words[first:]:
            if flag[0] == _T:
                return known(signed32, flag[1:])
    return 0


def refused(frame: Frame, line: bytes) -> Frame:
    """
    Refuse a request.

    @param frame: the frame of the request.
    @param line: the reply, unless the request is silent.

    @return: the frame of the refusal; the frame itself if nothing is sent to a server for it.
    """
    what, end, _, payload = frame
    if what is BROADCAST or what is SPLIT:
        what = payload[0]
    if isinstance(what, MemcacheCommand):
        silent = what.hidden is EVERYTHING
    elif what is REPLACE:
        silent = not payload[2]
    elif what is DUMP:
        silent = False
    else:
        return frame
    return ANSWER, end, 0, b"" if silent else line


def permitted(words: list[bytes], frame: Frame, permissions: Permissions, now: float) -> Frame:
    """
    Refuse a request that is not permitted.

    A value that is too large is rejected in any case. Then memcached deletes the old value, and so does the frame, but
    not for a client that may not delete.

    @param words: the words of a request line.
    @param frame: the frame of the request.
    @param now: the time, in seconds since the epoch.

    @return: the frame, or that of a refusal.
    """
    what, end, _, payload = frame
    name = words[0]
    if what is BROADCAST or what is SPLIT:
        what = payload[0]
    if isinstance(what, MemcacheCommand):
        silent = what.hidden is EVERYTHING
        effects = what.effects
    elif what is DUMP:
        _, _, refusal, closes = payload
        if permissions.permits(name, ORDINARY[name]):
            return frame
        return CLOSE if closes else ANSWER, end, 0, refusal
    elif what is REPLACE or what is STATISTICS:
        silent = what is REPLACE and not payload[2]
        effects = ORDINARY[name]
    else:
        return frame  # an answer of the proxy, or an incomplete request
    expiry = _expiry(words)
    if expiry < 0 or RELATIVE_MAX < expiry <= now:
        effects |= DELETES
    if not permissions.permits(name, effects):
        return ANSWER, end, 0, b"" if silent else b"CLIENT_ERROR " + name + b" not allowed\r\n"
    if what is REPLACE and not permissions.permits(name, effects | DELETES):
        return ANSWER, end, 0, payload[2]
    return frame
