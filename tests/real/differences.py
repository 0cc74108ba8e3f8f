# -*- test-case-name: tests.real.test_fuzz -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The complete list of intended differences between the proxy and memcached 1.6.18, with reasons: L{DIFFERENCES}.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.real.streams import LIMIT, STORES, Request, lengthOf
from tests.wire.memcache.safestrto import safeStrtol, safeStrtoul, safeStrtoull
from txconnpool.wire.memcache.integers import plain


@dataclass(frozen=True)
class Difference:
    """
    An intended difference between the proxy and memcached.

    @ivar name: a word for the counts of the fuzzer.
    @ivar reason: why the proxy differs.
    @ivar example: requests that show the difference.
    @ivar instead: takes a request, and returns the request to send to memcached in its place, so that memcached's reply
        is the one expected from the proxy. Returns the same L{Request} if the difference does not concern it, and
        C{None} if no such request exists; then the request is sent to neither of them.
    """

    name: str
    reason: str
    example: bytes
    instead: Callable[[Request], Request | None]


#: A request that memcached answers with C{CLIENT_ERROR bad command line format}.
BAD_LINE: Final = Request(b"touch " + b"k" * 251 + b" 0", b"\r\n")

#: A request that memcached does not answer, and that has no effect.
NOTHING: Final = Request(b"touch a x noreply", b"\r\n")

REFUSED: Final = frozenset(
    b"watch shutdown debugtime slabs lru lru_crawler cache_memlimit misbehave refresh_certs extstore stats bget".split()
)

#: The maximum number of words of a meta command.
META_WORDS: Final = 19

#: What reads the numbers of the flags of ms.
FLAG_NUMBERS: Final[dict[bytes, Callable[[bytes], int | None]]] = {
    **dict.fromkeys((b"N", b"T", b"R"), safeStrtol),
    **dict.fromkeys((b"C", b"E", b"J", b"D"), safeStrtoull),
    b"F": safeStrtoul,
}

COMMAND_NAMES: Final = STORES | frozenset(
    b"get gets gat gats incr decr touch delete flush_all verbosity version mn mg ms md ma me".split()
)


def _numbers(words: list[bytes]) -> dict[int, Callable[[bytes], int | None]]:
    """
    @return: the positions of the numbers in the line of a storage command, and what reads each.
    """
    numbers: dict[int, Callable[[bytes], int | None]] = {2: safeStrtoul, 3: safeStrtol, 4: lengthOf}
    if words[0] == b"cas":
        numbers[5] = safeStrtoull
    return numbers


def _flagsFrom(words: list[bytes]) -> int:
    """
    @return: the position of the first flag of a meta command, or the number of words for other commands.
    """
    return {b"mg": 2, b"ms": 3, b"md": 2, b"ma": 2}.get(words[0], len(words)) if words else 0


def _rewritten(request: Request, words: list[bytes]) -> Request:
    return request._replace(line=b" ".join(words), end=b"\r\n")


def closes(request: Request) -> bool:
    """
    @return: whether the server closes the connection after this request.
    """
    words = request.words
    if not words or words[0] == b"quit":
        return bool(words)
    return words[-1].startswith(b"HTTP/") and words[0] not in COMMAND_NAMES


def _silent(words: list[bytes]) -> bool:
    return words[-1] == b"noreply"


def _isBad(words: list[bytes]) -> bool:
    """
    @return: whether the line of a storage command is invalid.
    """
    return len(words[1]) > 250 or any(
        place >= len(words) or integer(words[place]) is None for place, integer in _numbers(words).items()
    )


def _counted(request: Request) -> Request:
    words = request.words
    if words[:1] == [b"ms"] and len(words) > META_WORDS and lengthOf(words[2]) is None:
        return BAD_LINE
    return request


def _forgetful(request: Request) -> Request:
    words = request.words
    first = {b"get": 1, b"gets": 1, b"gat": 2, b"gats": 2}.get(words[0], 0) if words else 0
    if not first or all(len(word) <= 250 for word in words[first:]):
        return request
    return request._replace(line=b"gat x a") if first == 2 and safeStrtol(words[1]) is None else BAD_LINE


def _short(request: Request) -> Request:
    words = request.words
    return BAD_LINE if words and words[0] in STORES and len(words) < 5 else request


def _long(request: Request) -> Request:
    words = request.words
    wanted = 6 if words[:1] == [b"cas"] else 5
    if not words or words[0] not in STORES or len(words) <= wanted + 1:
        return request
    return _rewritten(request, words[:wanted] + [b"noreply"] * _silent(words))


def _swallowed(request: Request) -> Request:
    words = request.words
    if words[:1] == [b"ms"] and len(words) > 1 and (len(words[1]) > 250 or len(words) > META_WORDS):
        return request._replace(block=b"")
    if len(words) < 5 or words[0] not in STORES or not _isBad(words):
        return request
    return NOTHING if _silent(words) else BAD_LINE


def _zero(request: Request) -> Request | None:
    words = request.words
    if b"\0" not in request.line:
        return request
    if words[0] in (b"get", b"gets"):
        return BAD_LINE
    return None


def _hasty(request: Request) -> Request | None:
    if len(request.words) > 22 and b"HTTP/" in request.line and request.words[0] not in COMMAND_NAMES:
        return None  # memcached checks the last of the first 23 words for HTTP/
    return request._replace(line=b"quit") if closes(request) else request


def _endless(request: Request) -> Request | None:
    retrieval = re.match(rb" {0,100}gets? ", request.line)
    return None if len(request.line) > 2000 and not retrieval else request


def _nearly(request: Request) -> Request | None:
    bad = len(request.block) > LIMIT - 1000 and not request.block.endswith(b"\r\n")
    return None if bad else request


def _later(request: Request) -> Request | None:
    words = request.words
    return None if any(word[:1] in (b"E", b"x") for word in words[_flagsFrom(words) :]) else request


def _vivid(request: Request) -> Request | None:
    words = request.words
    letters = {word[:1] for word in words[2:]}
    return None if words[:1] == [b"ma"] and {b"q", b"N"} <= letters else request


def _executed(request: Request) -> Request | None:
    words = request.words
    flags = words[2:] if words[:1] in ([b"mg"], [b"md"], [b"ma"]) else []
    return None if any(len(flag) > 31 and flag[:1] == b"O" for flag in flags) else request


def _refused(request: Request) -> Request | None:
    words = request.words
    return None if words and words[0] in REFUSED else request


_LONG: Final = b"k" * 251

#: All intended differences. They are applied to a request one after another.
DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "refused",
        "commands that act on a connection or a server are rejected, because both are shared; stats are the proxy's",
        b"cache_memlimit 64\r\n",
        _refused,
    ),
    Difference(
        "endless",
        "a line that is too long closes the connection; in memcached this depends on the TCP segments of the line",
        b"x" * 3000 + b"\r\n",
        _endless,
    ),
    Difference(
        "nearly",
        "memcached allocates memory for a value and its header before it checks the end of the data block",
        b"set a 0 0 %d\r\n%b\n\n" % (LIMIT, bytes(LIMIT)),
        _nearly,
    ),
    Difference("zero", "1.6.18 ends a line at a NUL; the proxy rejects a key with a NUL", b"get a\0b\r\n", _zero),
    Difference(
        "counted",
        "if ms has a bad length and too many flags, the error is about the length",
        b"ms a x" + b" k" * 20 + b"\r\n",
        _counted,
    ),
    Difference(
        "forgetful",
        "memcached discards the replies that it has not sent when a get has a key that is too long",
        b"bogus\r\nget " + _LONG + b"\r\n",
        _forgetful,
    ),
    Difference("short", "since 1.6.40 a line with too few words is a bad command line", b"set a\r\n", _short),
    Difference(
        "swallowed",
        "since 1.6.40 the data block that follows a bad line is discarded",
        b"set a x 0 3\r\nabc\r\n",
        _swallowed,
    ),
    Difference("long", "since 1.6.40 excess words are ignored", b"set a 0 0 1 x y\r\nz\r\n", _long),
    Difference(
        "hasty",
        "memcached discards the replies that it has not sent when it closes because of a line of HTTP",
        b"bogus\r\nGET / HTTP/1.1\r\n",
        _hasty,
    ),
    Difference("later", "1.6.18 does not know the flags E and x", b"mg a E5 E5\r\n", _later),
    Difference(
        "executed",
        "memcached executes a command before it rejects the command because its opaque token is too long",
        b"ma n N0 O" + _LONG[:32] + b"\r\nget n\r\n",
        _executed,
    ),
    Difference(
        "vivid",
        "the reply to ma with q and N is suppressed even if the command created the item",
        b"ma n N0 q\r\n",
        _vivid,
    ),
)


def _lenient(request: Request) -> Request:
    """
    @return: the request with each number in the form that the proxy writes.
    """
    words = list(request.words)
    if request.line[:1] == b" ":
        return request
    if words[:1] == [b"ms"] and len(words) > 2:
        numbers: dict[int, Callable[[bytes], int | None]] = {2: lengthOf}
        for place, word in enumerate(words[3:], 3):
            integer = FLAG_NUMBERS.get(word[:1])
            if integer is not None and (value := integer(word[1:])) is not None:
                words[place] = word[:1] + plain(word[1:], value)
    elif words[:1] and words[0] in STORES and len(words) >= 5:
        numbers = _numbers(words)
    else:
        return request
    for place, integer in numbers.items():
        if place < len(words) and (value := integer(words[place])) is not None:
            words[place] = plain(words[place], value)
    return request if words == request.words else request._replace(line=b" ".join(words))


def _spaced(request: Request) -> Request:
    words = request.words
    return request._replace(block=b"") if request.line[:1] == b" " and words else request


def _garbled(request: Request) -> Request:
    words = request.words
    if words[:1] == [b"ms"] and not all(word[0] in FLAG_BYTES for word in words[3:]):
        return request._replace(block=b"")
    return request


def _odd(request: Request) -> Request | None:
    words = request.words
    signs = any(word == b"-" for word in words[1:]) or any(word in (b"N-", b"R-", b"T-") for word in words[2:])
    numbers = words[2:] if words[:1] and words[0] in STORES else words[2:3] if words[:1] == [b"ms"] else []
    blank = any(not word.strip() or 0 in word for word in numbers)
    return None if signs or blank else request


def _crowded(request: Request) -> Request | None:
    words = request.words
    crowded = len(words) > 23 and b"noreply" in (words[22], words[-1]) and words[0] in COMMAND_NAMES
    return None if crowded else request


def _which(request: Request) -> Request | None:
    words = request.words
    if words[:1] not in ([b"mg"], [b"ms"], [b"md"], [b"ma"]):
        return request
    flags = [word for word in words[2:] if word[:1] in FLAG_NUMBERS]
    odd = [
        word
        for word in flags
        if not re.fullmatch(rb"-?[0-9]{1,20}", word[1:]) or FLAG_NUMBERS[word[:1]](word[1:]) != int(word[1:])
    ]
    return None if odd and len(words) > 3 else request


def _unknownQuit(request: Request) -> bool:
    return request.line[:1] == b" " and request.words[:1] == [b"quit"]


def closesNewest(request: Request) -> bool:
    """
    @return: whether 1.6.45 closes the connection after this request.
    """
    return closes(request) and not _unknownQuit(request)


#: The bytes that may be a flag for 1.6.45.
FLAG_BYTES: Final = frozenset(b"0123456789") | frozenset(range(ord("A"), ord("z") + 1))

#: The intended differences to 1.6.45. Those to 1.6.18 that it has too are the same.
NEWEST_DIFFERENCES: tuple[Difference, ...] = (
    *(each for each in DIFFERENCES if each.name in ("refused", "binary", "endless", "nearly", "executed")),
    Difference(
        "hasty",
        "memcached discards the replies that it has not sent when it closes because of a line of HTTP",
        b"bogus\r\nGET / HTTP/1.1\r\n",
        lambda request: request if _unknownQuit(request) else _hasty(request),
    ),
    Difference(
        "forgetful",
        "if a key of a get is too long, memcached discards the replies that it has not sent, and sends an empty line "
        "after the error",
        b"get " + _LONG + b"\r\n",
        lambda request: request if request.line[:1] == b" " else _forgetful(request),
    ),
    Difference(
        "odd",
        "1.6.45 takes a minus sign alone for 0, and reads a number up to a NUL; the proxy rejects both as no numbers",
        b"touch a -\r\n",
        _odd,
    ),
    Difference(
        "crowded",
        "1.6.45 looks for noreply among the first 23 words only",
        b"set a 0 0 1" + b" x" * 30 + b" noreply\r\nx\r\n",
        _crowded,
    ),
    Difference(
        "which",
        "if a request has several errors, and one is a number that only earlier versions read, another is reported",
        b"mg Zm9 b T+5\r\n",
        _which,
    ),
    Difference(
        "spaced",
        "a command with spaces before it is unknown, but its data block is discarded and not interpreted as commands",
        b" set a 0 0 1\r\nx\r\n",
        _spaced,
    ),
    Difference(
        "garbled",
        "the data block of an ms with something that cannot be a flag is discarded, and not interpreted as commands",
        b"ms a 1 ?\r\nx\r\n",
        _garbled,
    ),
    Difference(
        "lenient",
        "1.6.45 reads fewer forms of numbers; in a line with a data block the proxy writes each in the one that all "
        "versions read",
        b"set a 0 0 +1\r\nx\r\n",
        _lenient,
    ),
)
