# -*- test-case-name: tests.wire.memcache.test_statistics -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The statistics of memcached servers: which of them clients may ask for, and one reply in place of those of several
servers.

C{stats} without arguments has totals under memcached's names: most statistics are counters or sizes, and are added.
The other groups are about the memory, the connections or the settings of one server. Their names get a prefix,
C{server:2:slabs:}, which tools for memcached skip: it has too many colons for one of their own names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Final

from txconnpool.wire import ServerStatistics
from txconnpool.wire.memcache.replies import STATS
from txconnpool.wire.memcache.rules import ERROR, versionOf

#: The groups that show the state of a server. Several clients may get the same reply.
_SHOWN: Final = frozenset(b"items slabs sizes settings conns extstore".split())

#: The requests that change a server, or that show what such a change has led to (C{proto_text.c}, C{process_stat}).
_CHANGING: Final = frozenset(((b"reset",), (b"detail", b"on"), (b"detail", b"off"), (b"detail", b"dump")))

#: The names of all groups.
_GROUPS: Final = {(each,) for each in _SHOWN} | {words[:1] for words in _CHANGING}

_DETAIL_USAGE: Final = b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"

_NO_ADDRESSES: Final = b"CLIENT_ERROR stats conns needs stats-addresses = yes\r\n"

_STATISTIC: Final = re.compile(rb"STAT ([^ \r\n]+) ?([^\r\n]*)\r\n").match

#: Statistics of which the largest is meant if there are several servers. Flags are among them: 1 if any server has 1.
_LARGEST: Final = frozenset(
    b"uptime time hash_power_level hash_is_expanding slab_reassign_running lru_crawler_running "
    b"time_since_server_cert_refresh".split()
)

#: Statistics of which the smallest is meant: 1 if all servers have 1.
_SMALLEST: Final = frozenset((b"accepting_conns",))

#: Numbers that are not added, because they identify a server or describe its machine. The first server's is used.
_FIRST: Final = frozenset(b"pid pointer_size libevent".split())

_WHOLE: Final = re.compile(rb"[0-9]{1,20}").fullmatch

#: Matches seconds and microseconds.
_SECONDS: Final = re.compile(rb"([0-9]{1,20})\.([0-9]{6})").fullmatch


def serverStatistics(words: tuple[bytes, ...], addresses: bool) -> ServerStatistics | bytes:
    """
    @param words: the arguments of a client's C{stats}. After C{upstream} they are for the servers, and there are no
        totals.
    @param addresses: whether clients may see the addresses of other clients.

    @return: the request to send to the servers; or the reply, if clients may not use these arguments: they are unknown,
        or would show the addresses of other clients.
    """
    join: Callable[[list[str], list[bytes]], bytes] = numbered
    if words[:1] == (b"upstream",):
        words = words[1:]
    elif words:
        join = partial(labelled, words[0])
    words = words[: 2 if words[:1] == (b"detail",) else 1] if words[:1] in _GROUPS else words  # it ignores the others
    if words == (b"conns",) and not addresses:
        return _NO_ADDRESSES
    shared = not words or (len(words) == 1 and words[0] in _SHOWN)
    if not shared and words not in _CHANGING:
        return _DETAIL_USAGE if words[:1] == (b"detail",) else ERROR
    return ServerStatistics(STATS, b" ".join((b"stats", *words)) + b"\r\n", words, shared, join)


def isStatistics(reply: bytes) -> bool:
    """
    @return: whether a reply has names and values, or none; and is not an error or a word such as C{RESET}.
    """
    return reply.endswith(b"END\r\n")


def parsed(reply: bytes) -> dict[bytes, bytes]:
    """
    @return: the values of a reply to C{stats}, by name; none of an error.
    """
    found = {}
    pos = 0
    while match := _STATISTIC(reply, pos):
        found[match[1]] = match[2]
        pos = match.end()
    return found


def totals(replies: list[bytes]) -> list[tuple[str, object]] | None:
    """
    Merge the replies of several servers to C{stats} without arguments.

    @param replies: the replies. Errors are left out.

    @return: names and values; C{None} if all replies are errors. Of one reply the values are those of the server.
    """
    servers = [parsed(reply) for reply in replies if isStatistics(reply)]
    if not servers:
        return None
    names = dict.fromkeys(name for server in servers for name in server)
    return [
        (name.decode("ascii", "replace"), _merged(name, values).decode("ascii", "replace"))
        for name in names
        if (values := [server[name] for server in servers if name in server])
    ]


def _merged(name: bytes, values: list[bytes]) -> bytes:
    """
    @return: the total of the values of several servers.
    """
    if len(values) == 1 or name in _FIRST:
        return values[0]
    if name == b"version":
        return min(values, key=versionOf)
    if all(map(_WHOLE, values)):
        numbers = list(map(int, values))
        return b"%d" % (max(numbers) if name in _LARGEST else min(numbers) if name in _SMALLEST else sum(numbers))
    times = [match for value in values if (match := _SECONDS(value))]
    if len(times) == len(values):
        total = sum(int(match[1]) * 1000000 + int(match[2]) for match in times)
        return b"%d.%06d" % divmod(total, 1000000)
    return values[0]


def numbered(servers: list[str], replies: list[bytes]) -> bytes:
    """
    Join the replies of several servers. The number of the server is put before each name: C{1:curr_items}.

    @param servers: the names of the servers.
    @param replies: their replies.

    @return: one reply; the same one if there is one server.
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


def labelled(group: bytes, servers: list[str], replies: list[bytes]) -> bytes:
    """
    Join the replies of several servers, as blocks. A block begins with the name of the server, and each name in it
    begins with the number of the server and the group: C{server:1:slabs:5:chunk_size}. If all servers gave the same
    word, such as C{RESET}, it is the reply. Settings that all servers which
    have answered have in common come first, under their own names.

    @param group: the first argument of the request.
    @param servers: the names of the servers.
    @param replies: their replies.

    @return: one reply; the same one if there is one server.
    """
    if len(replies) == 1 or (len(set(replies)) == 1 and not isStatistics(replies[0])):
        return replies[0]
    lines = _common(replies) if group == b"settings" else []
    for number, (server, reply) in enumerate(zip(servers, replies, strict=True), 1):
        prefix = b"server:%d:%s:" % (number, group)
        lines.append(b"STAT %sname %s\r\n" % (prefix, server.encode()))
        for line in reply.split(b"\r\n"):
            kind, _, rest = line.partition(b" ")
            if kind in (b"STAT", b"PREFIX"):
                lines.append(b"%s %s%s\r\n" % (kind, prefix, rest))
            elif line not in (b"", b"END"):
                lines.append(b"STAT %s%s %s\r\n" % (prefix, b"reply" if line in (b"OK", b"RESET") else b"error", line))
    return b"".join(lines) + b"END\r\n"


def _common(replies: list[bytes]) -> list[bytes]:
    """
    @return: the statistics that all servers which have answered have with the same value, as lines.
    """
    servers = [parsed(reply) for reply in replies if isStatistics(reply)]
    return [
        b"STAT %s %s\r\n" % (name, value)
        for name, value in (servers[0] if servers else {}).items()
        if all(server.get(name) == value for server in servers)
    ]
