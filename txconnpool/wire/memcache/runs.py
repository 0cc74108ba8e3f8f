# -*- test-case-name: tests.wire.memcache.test_runs -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Runs: several C{get}s for one key each that a client sent at once, and that are sent to the server as one C{get}.

memcached sends the reply to each C{get} with a system call of its own, even if it has read many requests
(C{proto_text.c}, C{process_get_command}), but the reply to a C{get} of several keys with one. Most of the cost of a run
is in these many small pieces, for the server, the network and the proxy. The reply to the merged request is split into
the replies to the single requests: C{END} after each value, and an C{END} for each key without a value.

A key without a value is known to be missing at the end of the server's reply: the values may come in another order.
From such a key on, L{HeldReplies<txconnpool.wire.memcache.reordering.HeldReplies>} holds the replies until then.

A run does not contain a key twice. If another client stored the key between the two requests, a single value could not
be attributed to one of them.
"""

from __future__ import annotations

from txconnpool.errors import WireError
from txconnpool.wire import ReplyCounters
from txconnpool.wire.memcache.matching import MemcacheCommand, checkIncomplete, received


def matchRun(
    data: bytes,
    pos: int,
    command: MemcacheCommand,
    count: int,
    due: int,
    asked: list[bytes],
    tally: ReplyCounters,
    fresh: bool,
) -> tuple[int, int, int, bytes, list[bytes] | None]:
    """
    Match received bytes against the reply to a run, like L{txconnpool.wire.memcache.matching.matchReplies} for other
    requests.

    @param command: the command of the single requests.
    @param count: the number of replies that are still due to the client.
    @param asked: the keys of these requests, the next one last, without that of a value that has begun.
    @param fresh: whether nothing of the reply has been received, so that it may be an error.

    @return: the new C{pos}, C{count} and C{due}, the bytes for the client, and C{None}. If a key was skipped and the
        reply has not ended, the last item is a list instead: the values that have arrived for the keys of the replies
        that are due, the first of these keys first, empty for a skipped key. The bytes from C{pos} are then left to
        L{HeldReplies<txconnpool.wire.memcache.reordering.HeldReplies>}.

    @raise WireError: the bytes are not such a reply.
    """
    ending = command.ending
    size = len(data)
    begin = pos  # the position of the reply that is not in `whole` yet
    whole: list[bytes] = []  # complete replies without their end, which is always the same
    hole = -1  # the position in `whole` of the first key that was skipped; its value may still come
    missed = 0
    while count or hole >= 0:
        if due < 0:
            begin = pos
            match = command.first(data, pos)
            if match is None:
                match = command.errors(data, pos) if fresh else None
                if match is None:
                    checkIncomplete(data, pos, pos, command)
                    break
                tally.failed[command.index] += count
                return match.end(), 0, -1, match[0] * count, None
            pos = match.end()
            key, length = match.group(1, 2)
            if length is None:
                whole += [b""] * count
                missed += count
                count = 0
                hole = -1
                break
            skipped = _skipTo(key, asked)
            if skipped:
                if skipped < 0:
                    if hole < 0:
                        raise WireError(f"a value in reply to {command.name} that was not requested")
                    pos = begin
                    break
                if hole < 0:
                    hole = len(whole)
                whole += [b""] * skipped
                missed += skipped
                count -= skipped
            due = int(length)
            words = data[match.end(1) : pos]
            # The lines of consecutive values often differ only in the key. Comparing bytes takes half the time of
            # parsing.
            while asked and data.startswith(line := command.valueSeparator + asked[-1] + words, pos + due):
                pos += due
                whole.append(data[begin : pos + 2])
                begin = pos + 2
                pos += len(line)
                del asked[-1]
                count -= 1
        pos += due
        if pos >= size:
            due = pos - size
            pos = size
            break
        expected = b"\r\n" if asked else ending
        follows = data[pos : pos + len(expected)]
        if follows == expected:
            if not asked:
                hole = -1  # this is the end of the server's reply
        elif hole >= 0 and follows[:2] == b"\r\n":
            expected = b"\r\n"  # the value of a key that was skipped may follow
        else:
            if not expected.startswith(follows):
                raise WireError(f"expected the end of a value in reply to {command.name}, {received(data, pos)}")
            due = 0
            break
        whole.append(data[begin : pos + 2])
        pos += len(expected)
        count -= 1
        due = -1
        fresh = False
    if hole >= 0:
        rest = whole[hole:]
        whole[hole:] = [b""]
        return pos if due < 0 else begin, count + len(rest), -1, ending[2:].join(whole), rest
    tally.missed += missed
    whole.append(data[begin:pos] if due >= 0 else b"")
    return pos, count, due, ending[2:].join(whole), None


def _skipTo(key: bytes, asked: list[bytes]) -> int:
    """
    Remove requested keys up to the key of a value.

    @return: the number of removed keys before it; -1 if it is none of these keys, and all are removed.
    """
    before = len(asked)
    while asked:
        if asked.pop() == key:
            return before - len(asked) - 1
    return -1
