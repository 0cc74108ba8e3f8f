# -*- test-case-name: tests.wire.memcache.test_dialect -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Finds the most common requests of memcached's text protocol in their most common form.

The full check (L{txconnpool.wire.memcache.requestreader}) accepts each request that is found here, with the same
result.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from txconnpool import native
from txconnpool.wire import Command, Frame
from txconnpool.wire.effects import DELETES, READS, WRITES, Effects, Permissions
from txconnpool.wire.memcache import replies
from txconnpool.wire.memcache.classic import PART_KEYS
from txconnpool.wire.memcache.replies import MG, SEVERAL, SILENT
from txconnpool.wire.memcache.rules import KEY_MAX

#: The maximum number of single gets that are merged: as many keys as a request has that is not sent in parts.
RUN_MAX: Final = PART_KEYS


class Accepted(NamedTuple):
    """
    The commands of the requests that are found; C{None} for those that are left to the full check.
    """

    get: Command | None
    getSeveral: Command | None
    gets: Command | None
    mg: Command | None
    mgValue: Command | None
    set: Command | None
    setSilent: Command | None
    delete: Command | None
    deleteSilent: Command | None
    incr: Command | None
    incrSilent: Command | None
    decr: Command | None
    decrSilent: Command | None
    touch: Command | None
    touchSilent: Command | None


# The commands, with all effects that they may have in these forms.
_COMMANDS: Final[tuple[tuple[bytes, Effects, tuple[Command, ...]], ...]] = (
    (b"get", READS, (replies.GET, SEVERAL[replies.GET])),
    (b"gets", READS, (replies.GETS,)),
    (b"mg", READS, (MG[False, False], MG[True, False])),
    *(
        (command.name.encode(), WRITES | DELETES, (command, SILENT[command]))
        for command in (replies.SET, replies.DELETE, replies.INCR, replies.DECR, replies.TOUCH)
    ),
)


def acceptedCommands(permissions: Permissions, unsupported: frozenset[bytes]) -> Accepted:
    """
    @return: the commands of requests that are never refused.
    """
    found: list[Command | None] = []
    for name, effects, commands in _COMMANDS:
        accepted = name not in unsupported and permissions.permits(name, effects)
        found += commands if accepted else [None] * len(commands)
    return Accepted(*found)


# A key is one range of bytes here, which is the fastest to match. Keys with control characters, which memcached allows,
# are left to the full check, and so are numbers with more digits than usual.
_COMMON: Final = re.compile(
    b"|".join(
        (
            rb"get KEY\r\n(?:(get )KEY\r\n(?:get KEY\r\n){0,MORE}|)|get ([^ \r\n][^\n]{2,2000})\r\n",
            rb"set KEY [0-9]{1,9} -?1?[0-9]{1,9} (0|[1-9][0-9]{0,8})(?:\r\n| (noreply)\r\n)",
            rb"(delete (?!noreply[\r ])KEY|(?:incr|decr|touch) KEY [0-9]{1,9})(?:\r\n| (noreply)\r\n)",
            rb"(gets) KEY\r\n",
            rb"mg KEY((?: [cfhklstuv])+)\r\n",
        )
    )
    .replace(b"KEY", rb"[!-\xff]{1,250}")
    .replace(b"MORE", b"%d" % (RUN_MAX - 2))
).match

# The numbers of the groups in this pattern. The last group of a match identifies the kind of request; a single get has
# none.
_RUN, _KEYS, _SET, _SET_NOREPLY, _LINE, _LINE_NOREPLY, _GETS, _MG = range(1, 9)

# The indexes of these commands in Accepted, by the first bytes of the request. The silent one follows.
_LINES: Final = {name[:4].encode(): Accepted._fields.index(name) for name in ("delete", "incr", "decr", "touch")}


def scanRequest(data: bytes, pos: int, room: int, maxItemSize: int, accepted: Accepted) -> Frame | None:
    """
    Find the next requests of a client, from C{pos}.

    @param room: the maximum number of requests in the frame, at least 1.
    @param maxItemSize: the maximum length of a value.
    @param accepted: the commands of the frames.

    @return: C{(command, end, count, payload)}, see L{txconnpool.wire.Frame}; C{None} if the request must be checked
        completely.
    """
    match = _COMMON(data, pos)
    if match is None:
        return None
    end = match.end()
    which = match.lastindex
    if which is None:
        return None if accepted.get is None else (accepted.get, end, 1, None)
    count, payload = 1, None
    if which == _RUN:
        command = accepted.get
        end, count, payload = _run(data[pos + 4 : end - 2].split(b"\r\nget ", room)[:room], pos)
    elif _SET <= which <= _SET_NOREPLY:
        length, stop = int(match[_SET]), end
        end += length + 2
        if length > maxItemSize or data[end - 2 : end] != b"\r\n":
            return None
        command = accepted.set
        if which == _SET_NOREPLY:
            command, payload = accepted.setSilent, data[pos : stop - 10] + data[stop - 2 : end]
    elif which == _KEYS:
        keys = match[_KEYS]
        spaces = keys.count(32)
        if spaces >= PART_KEYS or 0 in keys or (len(keys) > KEY_MAX and _hasLongKey(keys)):
            return None
        command = accepted.getSeveral if spaces else accepted.get
    elif which == _GETS:
        command = accepted.gets
    elif which == _MG:
        flags = match[_MG]
        if len(flags) + 2 != 2 * len(set(flags)):
            return None
        command = accepted.mgValue if b"v" in flags else accepted.mg
    else:
        index = _LINES[data[pos : pos + 4]]
        command = accepted[index]
        if which == _LINE_NOREPLY:
            command, payload = accepted[index + 1], match[_LINE] + b"\r\n"
    return None if command is None else (command, end, count, payload)


def _run(keys: list[bytes], pos: int) -> tuple[int, int, bytes | None]:
    """
    @return: the end, the number and the payload of consecutive single C{get}s that begin at C{pos}. They end before a
        key that occurs in them already.
    """
    if len(set(keys)) < len(keys):
        keys = keys[: next(number for number, key in enumerate(keys) if key in keys[:number])]
    count = len(keys)
    merged = b" ".join(keys)
    # Each request has six bytes besides its key. The merged keys have one byte between them.
    return pos + len(merged) + 5 * count + 1, count, None if count == 1 else b"get %b\r\n" % merged


def _hasLongKey(keys: bytes) -> bool:
    """
    @return: whether one of the keys is too long. Searching backwards from the maximum length skips short keys.
    """
    pos = 0
    while len(keys) - pos > KEY_MAX:
        pos = keys.rfind(b" ", pos, pos + KEY_MAX + 1) + 1
        if not pos:
            return True
    return False


#: L{scanRequest}, or its equal in the extension.
chosenScan: Final = native.choose(scanRequest)
