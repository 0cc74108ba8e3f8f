# -*- test-case-name: tests.wire.memcache.test_runs -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Runs: requests for one key each that a client sent at once, and that travel as one request for several.

memcached answers each C{get} with a write of its own, however many of them it has read (C{proto_text.c},
C{process_get_command}), but a C{get} of several keys with one. So of what a run of C{get}s costs everybody, server,
network, and here, most goes into the many small pieces of its replies. What comes back is made into the replies that
the client is owed: an end behind each value, and one for each key of which there is none.

A run names no key twice: if somebody else sets it between the two, of one value nobody could tell which of them it
answers.
"""

from __future__ import annotations

from txconnpool.errors import WireError
from txconnpool.wire import ReplyCounters
from txconnpool.wire.memcache.matching import MemcacheCommand, checkIncomplete, skipTo


def matchRun(
    data: bytes,
    pos: int,
    command: MemcacheCommand,
    count: int,
    due: int,
    asked: list[bytes],
    tally: ReplyCounters,
    fresh: bool,
) -> tuple[int, int, int, bytes]:
    """
    Match a server's bytes against the reply it owes to a run, as L{txconnpool.wire.memcache.matching.matchReplies} does
    for others.

    @param command: the command of the reply to a request for one key.
    @param count: how many replies the client is still owed.
    @param asked: the keys of these, the next one last, without that of a value which has begun.
    @param fresh: whether nothing has come of the reply yet: it may be an error.

    @return: C{pos}, C{count} and C{due} after as many bytes as are verified, and what the client is to get of them.
    """
    ending = command.ending
    size = len(data)
    begin = pos  # of what is not in these yet
    whole: list[bytes] = []  # replies without their end, which is the same for all
    missed = 0
    while count:
        if due < 0:
            begin = pos
            match = command.first(data, pos)
            if match is None:
                match = command.errors(data, pos) if fresh else None
                if match is None:
                    checkIncomplete(data, pos, pos, command)
                    break
                tally.failed[command.index] += count
                return match.end(), 0, -1, match[0] * count
            pos = match.end()
            key, length = match.group(1, 2)
            if length is None:
                whole += [b""] * count
                missed += count
                count = 0
                break
            skipped = skipTo(key, asked, command)
            whole += [b""] * skipped
            missed += skipped
            count -= skipped
            due = int(length)
            words = data[match.end(1) : pos]
            # Neighbours are often told of in the same words but for the key. It costs half to look for these.
            while asked and data.startswith(told := command.valueSeparator + asked[-1] + words, pos + due):
                pos += due
                whole.append(data[begin : pos + 2])
                begin = pos + 2
                pos += len(told)
                del asked[-1]
                count -= 1
        pos += due
        if pos >= size:
            due = pos - size
            pos = size
            break
        expected = b"\r\n" if asked else ending
        follows = data[pos : pos + len(expected)]
        if follows != expected:
            if not expected.startswith(follows):
                raise WireError(f"a body of a reply to {command.name} is followed by {data[pos : pos + 40]!r}")
            due = 0
            break
        whole.append(data[begin : pos + 2])
        pos += len(expected)
        count -= 1
        due = -1
        fresh = False
    tally.missed += missed
    whole.append(data[begin:pos] if due >= 0 else b"")
    return pos, count, due, ending[2:].join(whole)
