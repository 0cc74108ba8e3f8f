# -*- test-case-name: tests.wire.memcache.test_dialect -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The classic commands of memcached: requests are checked with the rules of memcached 1.6.

Each check is a function of the words of a line and the position of the line, and returns a L{Frame}. A request that
memcached would reject is answered with the same bytes (C{proto_text.c} of 1.6.18, C{proto_parser.c} of 1.6.45), with
the same precedence of errors, and without a reply to C{noreply} where memcached sends none. L{Rules} are what differs
between versions. For data blocks the checks follow 1.6.40: a request has one error, and its data block is discarded if
its length could be read. Earlier versions interpret the data block as commands.

Numbers are read as memcached reads them, see L{txconnpool.wire.memcache.integers}. They are forwarded as they came,
except in requests with a data block: there each is written in the form that all versions accept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

from txconnpool.wire import ANSWER, BROADCAST, CLOSE, DUMP, MORE, REPLACE, SPLIT, STATISTICS, Frame
from txconnpool.wire.memcache import replies
from txconnpool.wire.memcache.integers import Integer, plain, signed32, unsigned32, unsigned64
from txconnpool.wire.memcache.matching import EVERYTHING, MemcacheCommand
from txconnpool.wire.memcache.replies import SEVERAL, SILENT, TOO_LARGE
from txconnpool.wire.memcache.rules import BAD_LINE, ERROR, KEY_MAX, Rules

#: The maximum number of keys in a request to a server. A request with more keys is sent in parts: each value may have
#: the maximum size, and a reply cannot be stopped after its request was sent.
PART_KEYS: Final = 50

#: The maximum length of a data block that memcached accepts to read (C{INT_MAX - 2}).
LENGTH_MAX: Final = (1 << 31) - 3

# The numbers that memcached keeps as they are: it takes others for one of these.
INT32: Final = (-(1 << 31), (1 << 31) - 1)
UINT32: Final = (0, (1 << 32) - 1)
UINT64: Final = (0, (1 << 64) - 1)

BAD_CHUNK: Final = b"CLIENT_ERROR bad data chunk\r\n"
BAD_EXPTIME: Final = b"CLIENT_ERROR invalid exptime argument\r\n"
BAD_DELTA: Final = b"CLIENT_ERROR invalid numeric delta argument\r\n"
BAD_DELETE: Final = b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"

_GOOD_KEY: Final = re.compile(rb"[^\x00-\x20\x7f]{1,%d}" % KEY_MAX).fullmatch

#: The requests for all keys of a server, with the errors of memcached if it was started with C{-X}.
_KEY_DUMPS: Final = ([b"metadump"], [b"mgdump"])

#: A check, called with C{(words, data, pos, stop, maxItemSize)}. C{data[pos:stop]} is the line including its end.
Check: TypeAlias = Callable[[list[bytes], bytes, int, int, int], Frame]


def blockLength(word: bytes) -> int | None:
    """
    @return: the length of a data block, or C{None} if memcached rejects it.
    """
    length = signed32(word)
    return length if length is not None and 0 <= length <= LENGTH_MAX else None


def deletion(key: bytes) -> bytes:
    """
    Since 1.6.40 a C{delete} has no reply if its last word is C{noreply}, also if that is the key. A delay of 0, which
    all versions accept, makes another word the last one.

    @return: a request that deletes a key, and has a reply.
    """
    return b"delete noreply 0\r\n" if key == b"noreply" else b"delete %b\r\n" % key


def checkKey(key: bytes) -> bytes:
    """
    Check a key before it becomes part of a request: memcached would interpret a space as the end of the key.

    @return: the key.

    @raise ValueError: it is empty, too long, or contains a space or a control character.
    """
    if not _GOOD_KEY(key):
        raise ValueError(f"not a key of 1 to {KEY_MAX} bytes without spaces and control characters: {key!r}")
    return key


def answer(stop: int, line: bytes, silent: bool = False) -> Frame:
    """
    @return: the frame of a request that is answered here; with an empty reply if the request is silent.
    """
    return ANSWER, stop, 0, b"" if silent else line


def forward(command: MemcacheCommand, line: bytes, data: bytes, pos: int, stop: int) -> Frame:
    """
    @return: the frame of a request without a data block, which is sent as C{line}.
    """
    return command, stop, 1, None if data[pos:stop] == line else line


def joined(words: list[bytes]) -> bytes:
    """
    @return: a line of these words.
    """
    return b" ".join(words) + b"\r\n"


def inParts(command: MemcacheCommand, head: list[bytes], keys: list[bytes], stop: int) -> Frame:
    """
    @return: the frame of a retrieval with many keys, which is sent as several requests with C{PART_KEYS} keys each.
    """
    starts = range(0, len(keys), PART_KEYS)
    parts = [joined([*head, *keys[start : start + PART_KEYS]]) for start in starts]
    return SPLIT, stop, 0, (SEVERAL[command], parts)


def forwardBlock(
    command: MemcacheCommand, words: list[bytes], length: int, error: bytes, data: bytes, pos: int, stop: int,
    limit: int, replaces: bool,
) -> Frame:  # fmt: skip
    """
    Create the frame of a request with a data block, which is sent as a line of C{words} and the block.

    @param error: the error of the line, which is the reply after the data block was discarded; C{b""} if there is none.
    @param replaces: whether the request would replace an existing value unconditionally. If the new value is too large,
        memcached deletes the old one, so that a client that gets no error does not read the old value later
        (C{proto_text.c}, C{process_update_command}).
    """
    silent = command.hidden is EVERYTHING
    end = stop + length + 2
    if length > limit and not error:
        if replaces:
            return REPLACE, end, 0, (SILENT[replies.DELETE], deletion(words[1]), b"" if silent else TOO_LARGE)
        error = TOO_LARGE
    if error:
        return answer(end, error, silent)
    if end > len(data):
        return MORE, pos, 0, end - pos
    if data[end - 2 : end] != b"\r\n":
        return answer(end, BAD_CHUNK, silent)
    line = joined(words)
    return command, end, 1, None if data[pos:stop] == line else line + data[stop:end]


def _retrieval(command: MemcacheCommand, rules: Rules) -> Check:
    def check(words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
        if len(words) < 2:
            return answer(stop, rules.incomplete)
        if max(map(len, words)) > KEY_MAX or (data.find(b"\0", pos, stop) >= 0 and not rules.modern):
            return answer(stop, BAD_LINE)
        if len(words) > PART_KEYS + 1:
            return inParts(command, words[:1], words[1:], stop)
        wanted = SEVERAL[command] if data.count(32, pos, stop) > 1 else command
        # 1.6.40 does not accept spaces before the command any more. The keys are later found by their positions, so the
        # line must end with CR LF.
        return wanted, stop, 1, joined(words) if data[pos] == 32 or data[stop - 2] != 13 else None

    return check


def _retrievalAndTouch(command: MemcacheCommand, rules: Rules) -> Check:
    def check(words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
        if len(words) < (3 if rules.modern else 2):
            return answer(stop, rules.incomplete)
        if signed32(words[1]) is None:
            return answer(stop, BAD_EXPTIME)
        if any(map(rules.badKey, words[2:])):
            return answer(stop, BAD_LINE)
        if len(words) == 2:
            return answer(stop, b"END\r\n")
        if len(words) > PART_KEYS + 2:
            return inParts(command, words[:2], words[2:], stop)
        return forward(command if len(words) == 3 else SEVERAL[command], joined(words), data, pos, stop)

    return check


def _storage(command: MemcacheCommand, rules: Rules, count: int = 5) -> Check:
    def check(words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
        if len(words) < 5:
            return answer(stop, BAD_LINE)
        silent = words[-1] == b"noreply"
        length = blockLength(words[4])
        if length is None:
            return answer(stop, BAD_LINE, silent and not rules.modern)
        numbers = [(words[2], unsigned32(words[2])), (words[3], signed32(words[3])), (b"", length)]
        if count == 6:
            unique = words[5] if len(words) > 5 else b""
            numbers.append((unique, unsigned64(unique)))
        bad = rules.badKey(words[1])
        line = words[:2]
        for word, value in numbers:
            if value is None:
                bad = True
            else:
                line.append(plain(word, value))
        wanted = SILENT[command] if silent else command
        error = BAD_LINE if bad else b""
        return forwardBlock(wanted, line, length, error, data, pos, stop, limit, command is replies.SET)

    return check


def _arithmetic(command: MemcacheCommand, rules: Rules, integer: Integer, complaint: bytes) -> Check:
    def check(words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
        if len(words) < 3 or (len(words) > 4 and not rules.modern):
            return answer(stop, rules.incomplete)
        silent = words[-1] == b"noreply"
        if rules.badKey(words[1]):
            return answer(stop, BAD_LINE, silent)
        if integer(words[2]) is None:
            return answer(stop, complaint, silent)
        return forward(SILENT[command] if silent else command, joined(words[:3]), data, pos, stop)

    return check


def _delete(rules: Rules) -> Check:
    def check(words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
        if len(words) < 2 or (len(words) > 4 and not rules.modern):
            return answer(stop, rules.incomplete)
        silent = len(words) > (1 if rules.modern else 2) and words[-1] == b"noreply"
        # The number is a delay, which memcached does not support any more. It accepts 0, which some clients still send.
        if not rules.modern and words[2:] not in ([], [b"0"], [b"noreply"], [b"0", b"noreply"]):
            return answer(stop, BAD_DELETE, silent)
        if rules.badKey(words[1]):
            return answer(stop, BAD_LINE, silent)
        command = replies.DELETE
        return forward(SILENT[command] if silent else command, deletion(words[1]), data, pos, stop)

    return check


def _flushAll(rules: Rules) -> Check:
    def check(words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
        if len(words) > 3 and not rules.modern:
            return answer(stop, ERROR)
        silent = words[-1] == b"noreply"
        line = words[:1]
        if len(words) > (2 if silent else 1):
            if signed32(words[1]) is None:
                return answer(stop, BAD_EXPTIME, silent)
            line = words[:2]
        return BROADCAST, stop, 0, (SILENT[replies.FLUSH_ALL] if silent else replies.FLUSH_ALL, joined(line))

    return check


def _verbosity(rules: Rules) -> Check:
    def check(words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
        if len(words) < 2 or (len(words) > 3 and not rules.modern):
            return answer(stop, rules.incomplete)
        silent = words[-1] == b"noreply"
        if unsigned32(words[1]) is None:
            return answer(stop, BAD_LINE, silent)
        return BROADCAST, stop, 0, (SILENT[replies.VERBOSITY] if silent else replies.VERBOSITY, joined(words[:2]))

    return check


def _cacheMemlimit(words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
    if not 2 <= len(words) <= 3 or unsigned32(words[1]) is None:
        return answer(stop, ERROR, words[-1] == b"noreply")
    command = replies.CACHE_MEMLIMIT
    return BROADCAST, stop, 0, (SILENT[command] if words[-1] == b"noreply" else command, joined(words[:2]))


def _lruCrawler(words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
    if words[1:2] not in _KEY_DUMPS:
        return answer(stop, b"CLIENT_ERROR lru_crawler not allowed on a shared connection\r\n")
    if len(words) != 3:
        return answer(stop, ERROR)
    # memcached-tool waits for END, so the client is closed after the error.
    return DUMP, stop, 0, (replies.LRU_CRAWLER, joined(words), b"ERROR " + words[1] + b" not allowed\r\n", True)


def _version(words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
    return forward(replies.VERSION, b"version\r\n", data, pos, stop)


def _stats(words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
    asked = words[2:] if words[1:2] == [b"upstream"] else words[1:]
    if asked[:1] == [b"cachedump"]:
        refusal = b"CLIENT_ERROR stats cachedump not allowed\r\n"
        return DUMP, stop, 0, (replies.STATS, joined([b"stats", *asked]), refusal, False)
    return STATISTICS, stop, 0, (replies.STATS, tuple(words[1:]))


def _quit(words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
    return CLOSE, stop, 0, b""


def checks(rules: Rules) -> dict[bytes, Check]:
    """
    @return: the check of each classic command.
    """
    return {
        b"get": _retrieval(replies.GET, rules),
        b"gets": _retrieval(replies.GETS, rules),
        b"gat": _retrievalAndTouch(replies.GAT, rules),
        b"gats": _retrievalAndTouch(replies.GATS, rules),
        b"set": _storage(replies.SET, rules),
        b"add": _storage(replies.ADD, rules),
        b"replace": _storage(replies.REPLACE, rules),
        b"append": _storage(replies.APPEND, rules),
        b"prepend": _storage(replies.PREPEND, rules),
        b"cas": _storage(replies.CAS, rules, 6),
        b"incr": _arithmetic(replies.INCR, rules, unsigned64, BAD_DELTA),
        b"decr": _arithmetic(replies.DECR, rules, unsigned64, BAD_DELTA),
        b"touch": _arithmetic(replies.TOUCH, rules, signed32, BAD_EXPTIME),
        b"delete": _delete(rules),
        b"flush_all": _flushAll(rules),
        b"verbosity": _verbosity(rules),
        b"cache_memlimit": _cacheMemlimit,
        b"lru_crawler": _lruCrawler,
        b"version": _version,
        b"stats": _stats,
        b"quit": _quit,
    }
