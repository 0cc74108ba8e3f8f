# -*- test-case-name: tests.wire.memcache.test_dialect -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The meta commands of memcached: requests are checked with the rules of memcached 1.6, flag by flag, see
L{Rules<txconnpool.wire.memcache.rules.Rules>}.

A quiet request is sent without the flag C{q}, so that every request has a reply. The command hides the replies that
C{q} suppresses: C{EN} for C{mg}, C{HD} for C{ms} and C{md}, C{HD} and C{VA} for C{ma}. Errors are never hidden, nor are
misses of C{md} and C{ma}. There is one difference to memcached: the reply to C{ma k q N0} is the same whether the
command created the item or found it, so it is hidden in both cases.
"""

from __future__ import annotations

import binascii
from functools import partial
from typing import Final

from txconnpool.wire import Frame
from txconnpool.wire.memcache import replies
from txconnpool.wire.memcache.classic import (
    Check,
    answer,
    blockLength,
    forward,
    forwardBlock,
    joined,
)
from txconnpool.wire.memcache.integers import Integer, known, plain, signed32, unsigned32, unsigned64
from txconnpool.wire.memcache.matching import MemcacheCommand
from txconnpool.wire.memcache.rules import BAD_LINE, Rules

#: The maximum length of an opaque token, including its C{O} (C{proto_text.c}, C{MFLAG_MAX_OPAQUE_LENGTH}).
OPAQUE_MAX: Final = 32

DUPLICATE_FLAG: Final = b"CLIENT_ERROR duplicate flag\r\n"
INVALID_FLAG: Final = b"CLIENT_ERROR invalid flag\r\n"
BAD_FLAGS: Final = b"CLIENT_ERROR invalid or duplicate flag\r\n"
BAD_TOKEN: Final = b"CLIENT_ERROR bad token in command line format\r\n"
BAD_BASE64: Final = b"CLIENT_ERROR error decoding key\r\n"
BAD_MODE_TOKEN: Final = b"CLIENT_ERROR incorrect length for M token\r\n"
BAD_MS_MODE: Final = b"CLIENT_ERROR invalid mode for ms M token\r\n"
BAD_MA_MODE: Final = b"CLIENT_ERROR invalid mode for ma M token\r\n"
BAD_OPAQUE: Final = b"CLIENT_ERROR opaque token too long\r\n"
GET_TOO_LONG: Final = b"CLIENT_ERROR options flags are too long\r\n"
TOO_LONG: Final = b"CLIENT_ERROR options flags too long\r\n"

_b, _M, _N, _O, _q, _R, _T, _v = b"bMNOqRTv"

#: The bytes that may be a flag since 1.6.40: digits, and what is from A to z in ASCII. With any other the line is bad,
#: and not only a flag unknown.
_LETTERS: Final = frozenset(b"0123456789" + bytes(range(ord("A"), ord("z") + 1)))

#: The flags whose token is a number: what reads it, and memcached's error for an invalid one. C{F} has no error of its
#: own.
_NUMBERS: Final[dict[int, tuple[Integer, bytes]]] = {
    _N: (signed32, BAD_TOKEN),
    _T: (signed32, BAD_TOKEN),
    _R: (signed32, BAD_TOKEN),
    ord("C"): (unsigned64, BAD_TOKEN),
    ord("E"): (unsigned64, BAD_TOKEN),
    ord("F"): (unsigned32, b""),
    ord("J"): (unsigned64, b"CLIENT_ERROR invalid numeric initial value\r\n"),
    ord("D"): (unsigned64, b"CLIENT_ERROR invalid numeric delta value\r\n"),
}

#: The flags without a checked token, including x, which is newer than 1.6.18 (as is E above): a server that does not
#: know a flag sends one error line.
_PLAIN: Final = frozenset(b"lOPLkstcfvhuqxI")

#: The flags with which C{mg} may change an item.
_WRITING: Final = frozenset((_N, _R, _T))


def _notBase64(key: bytes) -> bool:
    """
    @return: whether C{key} decodes to nothing as base64. As in memcached, characters outside of base64 are skipped.
    """
    try:
        return not binascii.a2b_base64(key)
    except binascii.Error:
        return True


def _check(rules: Rules, key: bytes, flags: list[bytes]) -> tuple[set[int], bytes]:
    """
    Check the flags of a command.

    @return: their letters, and memcached's error, C{b""} if there is none. The error is about the last invalid token
        before the first flag that is unknown or repeated.
    """
    letters: set[int] = set()
    bad = False
    error = BAD_LINE
    modern = rules.modern
    for flag in flags:
        letter = flag[0]
        if letter in letters or letter >= 127:
            return letters, DUPLICATE_FLAG
        letters.add(letter)
        if 0 in flag and letter not in _NUMBERS and not modern:  # memcached would interpret NUL as the end of the line
            return letters, INVALID_FLAG
        if letter in _PLAIN:
            continue
        if letter in _NUMBERS:
            integer, complaint = _NUMBERS[letter]
            if integer(flag[1:]) is None:
                bad, error = True, complaint or error
        elif letter == _b:
            if _notBase64(key):
                bad, error = True, BAD_BASE64
        elif letter == _M:
            if len(flag) != 2 and not modern:
                bad, error = True, BAD_MODE_TOKEN
        else:
            return letters, INVALID_FLAG
    return letters, error if bad else b""


def _garbled(rules: Rules, flags: list[bytes]) -> bool:
    """
    @return: whether something that cannot be a flag makes the whole line invalid.
    """
    return rules.modern and not all(flag[0] in _LETTERS for flag in flags)


def _token(flags: list[bytes], letter: int) -> bytes:
    """
    @return: the token of the flag C{letter}, which must be one of the flags.
    """
    return next(flag[1:] for flag in flags if flag[0] == letter)


def _plain(flag: bytes) -> bytes:
    """
    @return: a valid flag whose token, if it is a number, is one that every version reads in the same way.
    """
    if flag[0] not in _NUMBERS:
        return flag
    token = flag[1:]
    return flag[:1] + plain(token, known(_NUMBERS[flag[0]][0], token))


def _tooLong(letters: set[int], flags: list[bytes]) -> bytes:
    """
    @return: the error for an opaque token that is too long, or C{b""}.
    """
    return BAD_OPAQUE if _O in letters and len(_token(flags, _O)) >= OPAQUE_MAX else b""


def _badMode(letters: set[int], flags: list[bytes], modes: bytes, error: bytes) -> bytes:
    """
    @return: the error for a mode that the command does not have, or C{b""}.
    """
    return error if _M in letters and (_token(flags, _M)[:1] or b"?") not in modes else b""


def _wanted(command: MemcacheCommand, letters: set[int], words: list[bytes]) -> tuple[MemcacheCommand, list[bytes]]:
    """
    @return: the command and the words of a request without C{q}.
    """
    if _q not in letters:
        return command, words
    return replies.QUIET[command], words[:2] + [word for word in words[2:] if word[0] != _q]


def _get(rules: Rules, words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
    if len(words) < 2:
        return answer(stop, rules.incomplete)
    flags = words[2:]
    if rules.badKey(words[1]) or _garbled(rules, flags):
        return answer(stop, BAD_LINE)
    if len(words) > rules.flagsMax:
        return answer(stop, GET_TOO_LONG)
    letters, error = _check(rules, words[1], flags)
    error = error or _tooLong(letters, flags)
    if error:
        return answer(stop, error)
    command, line = _wanted(replies.MG[_v in letters, not letters.isdisjoint(_WRITING)], letters, words)
    return forward(command, joined(line), data, pos, stop)


def _set(rules: Rules, words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
    if len(words) < 2:
        return answer(stop, rules.incomplete)
    length = blockLength(words[2]) if len(words) > 2 else None
    if length is None:
        return answer(stop, BAD_LINE)
    flags = words[3:]
    letters, error = _check(rules, words[1], flags)
    if rules.badKey(words[1]) or _garbled(rules, flags):
        error = BAD_LINE
    elif len(words) > rules.flagsMax:
        error = GET_TOO_LONG if rules.modern else TOO_LONG
    elif not error:
        error = _badMode(letters, flags, b"EAPRS", BAD_MS_MODE) or _tooLong(letters, flags)
    if not error:
        flags = list(map(_plain, flags))
    command, line = _wanted(replies.MS, letters, [*words[:2], b"%d" % length, *flags])
    # In every mode memcached deletes the old value of a key whose new value is too large. But it looks for the key as
    # it was sent, and so does not find a key in base64.
    return forwardBlock(command, line, length, error, data, pos, stop, limit, _b not in letters)


def _change(rules: Rules, words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
    """
    Check C{md} and C{ma}.
    """
    if len(words) < 2:
        return answer(stop, rules.incomplete)
    flags = words[2:]
    arithmetic = words[0] == b"ma"
    if _garbled(rules, flags):
        return answer(stop, BAD_LINE)
    if rules.badKey(words[1]):
        return answer(stop, BAD_FLAGS if arithmetic and rules.modern else BAD_LINE)
    letters, error = _check(rules, words[1], flags)
    if error and (arithmetic or not rules.modern):
        error = BAD_FLAGS
    if len(words) > rules.flagsMax:
        error = (BAD_FLAGS if arithmetic else GET_TOO_LONG) if rules.modern else TOO_LONG
    if error:
        return answer(stop, error)
    command = replies.MD
    if arithmetic:
        command = replies.MA[_v in letters]
        error = _badMode(letters, flags, b"I+D-", BAD_MA_MODE)
    error = error or _tooLong(letters, flags)
    if error:
        return answer(stop, error)
    command, line = _wanted(command, letters, words)
    return forward(command, joined(line), data, pos, stop)


def _noOperation(words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
    return forward(replies.MN, b"mn\r\n", data, pos, stop)


def _debug(rules: Rules, words: list[bytes], data: bytes, pos: int, stop: int, limit: int) -> Frame:
    if len(words) < 2 or rules.badKey(words[1]):
        return answer(stop, BAD_LINE)
    if rules.modern:
        line = words
        bad = _garbled(rules, words[2:])
    else:
        binary = words[2:3] == [b"b"]
        line = words[: 3 if binary else 2]
        bad = binary and _notBase64(words[1])
    return answer(stop, BAD_LINE) if bad else forward(replies.ME, joined(line), data, pos, stop)


def checks(rules: Rules) -> dict[bytes, Check]:
    """
    @return: the check of each meta command.
    """
    return {
        b"mg": partial(_get, rules),
        b"ms": partial(_set, rules),
        b"md": partial(_change, rules),
        b"ma": partial(_change, rules),
        b"mn": _noOperation,
        b"me": partial(_debug, rules),
    }
