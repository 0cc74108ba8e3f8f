# -*- test-case-name: tests.real.test_fuzz -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Streams of valid and invalid requests for the fuzzer: their generation, and a parser that splits them into requests.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from tests.wire.memcache.safestrto import safeStrtol

#: The maximum size of a value in the servers and the proxies.
LIMIT: Final = 1 << 20


class Request(NamedTuple):
    """
    One valid or invalid request of a stream.

    @ivar line: the line without its end.
    @ivar end: the end of the line.
    @ivar block: the data block that belongs to the line.
    """

    line: bytes
    end: bytes
    block: bytes = b""

    @property
    def words(self) -> list[bytes]:
        """
        The words of the line, as memcached splits it.
        """
        return [word for word in self.line.split(b" ") if word]

    @property
    def complete(self) -> bool:
        """
        Whether the end of the line and the whole data block are there.
        """
        return bool(self.end) and len(self.block) == blockOf(self.words)

    @property
    def data(self) -> bytes:
        """
        The bytes of the request.
        """
        return self.line + self.end + self.block


STORES: Final = frozenset(b"set add replace append prepend cas".split())


def lengthOf(word: bytes) -> int | None:
    """
    @return: the length of a data block, or C{None} if memcached rejects it.
    """
    length = safeStrtol(word)
    return length if length is not None and 0 <= length <= 2**31 - 3 else None


def blockOf(words: list[bytes]) -> int:
    """
    @return: the size of the data block of a line. Like memcached since 1.6.40, this uses the length at its position
        even if the line is invalid otherwise.
    """
    place = 4 if words and words[0] in STORES else 2
    if len(words) <= place or words[0] not in STORES | {b"ms"}:
        return 0
    length = lengthOf(words[place])
    return 0 if length is None else length + 2


def requestsOf(stream: bytes) -> Iterator[Request]:
    """
    Split a stream into requests. An incomplete request at its end is one too.
    """
    pos = 0
    while pos < len(stream):
        newline = stream.find(b"\n", pos)
        if newline < 0:
            yield Request(stream[pos:], b"")
            return
        line = stream[pos:newline].removesuffix(b"\r")
        stop = newline + 1
        words = [word for word in line.split(b" ") if word]
        block = stream[stop : stop + blockOf(words)]
        yield Request(line, stream[pos + len(line) : stop], block)
        pos = stop + len(block)


KEYS: Final = (b"a", b"b", b"n", b"m", b"Zm9v", b"key:\xc3\xa9", b"noreply", b"k" * 250)
BAD_KEYS: Final = (b"k" * 251, b"k" * 1000, b"a\0b", b"", b"a\tb", b"a\rb", b"\x7f", b"Zm9")
# No value is white space only: memcached's incr would read beyond its end.
VALUES: Final = (
    *(b"", b"x", b"10", b"99", b"18446744073709551615", b"abc", b"5 "),
    *(b"\r\nx", b"END\r\n", b"get a\r\n", b"\0\xff"),
)
NUMBERS: Final = (
    *b"0 1 2 5 007 -1 -0 +5 x 1x 12345678901 2147483645 2147483646 2147483647 2147483648 -2147483648 -2147483649 "
    b"4294967295 4294967296 18446744073709551615 18446744073709551616 99999999999999999999999 1.5 0x10 1e3 - "
    b"4294967301 9999999999 9223372036854775807 9223372036854775808 -9223372036854775808 -9223372036854775809 "
    b"-18446744073709551615 -18446744073709551616 +-5 ++5 + 5- 5+ 05 -05 +0005 -4294967291".split(),
    *(b"\t5", b"\r\v\f5", b"5\t", b"5\r", b"5\tx", b"5\x0b-", b"\t", b"0" * 100 + b"5", b"9" * 100),
)
# Times to live that do not expire within a test; 2592001 is a date in 1970.
TIMES: Final = (
    *(b"0", b"0", b"0", b"-1", b"1000", b"2592000", b"2592001", b"2147483647"),
    *(b"4294967295", b"2147483648", b"9999999999", b"+1000", b"001000", b"\t1000", b"1000\tx"),
)
# Numbers as times to live, without those that may expire between two replies to a stream.
LASTING: Final = tuple(number for number in NUMBERS if number not in (b"1", b"2"))
FLAGS: Final = tuple(
    b"b c f h k l q s t u v x E5 F3 I J7 L O P T1000 N1000 R1000 ME MA MP MR MS MI MD M+ M- MX C$05 C$12 C9 D2 N0 T0 "
    b"T-1 T+1000 T4294967295 N9999999999 R01000 F+7 F4294967296 D+2 J007 C4294967296 Oab O1".split()
)
BAD_FLAGS: Final = (
    *b"? Tx T T9223372036854775808 T1e3 M Mxx \x7f \xc3\xa9 N F-1 Cx Dx Jx S5 vv kk".split(),
    b"O" + b"o" * 31,
    b"O" + b"o" * 32,
)
WORDS: Final = (
    *b"get gets gat gats set add replace append prepend cas incr decr delete touch flush_all verbosity version stats "
    b"mn mg ms md ma me quit watch noreply GET bogus END VALUE \x80 0 1 -1 q v k O1 HTTP/1.1".split(b" "),
)
BYTES: Final = b" \r\n\0\t\x800123456789-+qvkabOTMNe\xff"


class Author:
    """
    Generates streams of requests from a seed.
    """

    def __init__(self, seed: object) -> None:
        self._chance = random.Random(f"{seed}")

    def stream(self) -> list[bytes]:
        """
        @return: some requests, most of them valid.
        """
        chance = self._chance
        temper = chance.choice((0.0, 0.0, 0.1, 0.3, 0.6))
        kinds = chance.sample(self._KINDS, chance.randint(1, len(self._KINDS)))
        return [self._request(kinds, temper) for _ in range(int(chance.triangular(1, 40, 8)))]

    def pieces(self, data: bytes) -> list[bytes]:
        """
        Cut bytes into pieces at random positions; sometimes into single bytes, sometimes not at all.
        """
        chance = self._chance
        if len(data) < 200 and chance.random() < 0.2:
            return [data[place : place + 1] for place in range(len(data))]
        count = chance.choice((0, 0, 1, 2, 5, 20))
        places = sorted({0, len(data), *(chance.randrange(len(data) + 1) for _ in range(count))})
        return [data[start:stop] for start, stop in pairwise(places)]

    def _request(self, kinds: Sequence[Callable[[Author], bytes]], temper: float) -> bytes:
        data = self._chance.choice(kinds)(self)
        while self._chance.random() < temper:
            data = self._chance.choice(self._MUTATIONS)(self, data)
        return data

    # Valid requests

    def _key(self) -> bytes:
        return self._chance.choice(KEYS if self._chance.random() < 0.97 else BAD_KEYS)

    def _time(self) -> bytes:
        return self._chance.choice(TIMES if self._chance.random() < 0.95 else LASTING)

    def _number(self) -> bytes:
        return (
            b"%d" % self._chance.choice((0, 1, 2, 7, 100, 2**32, 2**64 - 1))
            if self._chance.random() < 0.9
            else self._chance.choice(NUMBERS)
        )

    def _value(self) -> bytes:
        chance = self._chance
        what = chance.random()
        if what < 0.7:
            return chance.choice(VALUES)
        if what < 0.995:
            return chance.randbytes(chance.choice((1, 7, 100, 1000, 5000)))
        return bytes(chance.choice((16000, 140000, LIMIT - 200, LIMIT - 100, LIMIT, LIMIT + 1, LIMIT + 200000)))

    def _length(self, value: bytes) -> bytes:
        """
        The length of a value as a number, which memcached reads in any of these forms.
        """
        if self._chance.random() < 0.95:
            return b"%d" % len(value)
        form = self._chance.choice((b"+%d", b"00%d", b"\t%d", b"%d\t", b"%d\tx"))
        return form % self._chance.choice((len(value), len(value) + 2**32))

    def _noreply(self) -> bytes:
        return b" noreply" if self._chance.random() < 0.15 else b""

    def _get(self) -> bytes:
        count = self._chance.choice((1, 1, 1, 2, 3, 10, 40))
        word = self._chance.choice((b"get", b"get", b"gets"))
        return b"%b %b\r\n" % (word, b" ".join(self._key() for _ in range(count)))

    def _run(self) -> bytes:
        return b"get %b\r\n" % self._chance.choice(KEYS) * self._chance.choice((2, 3, 10, 70))

    def _gat(self) -> bytes:
        count = self._chance.choice((1, 1, 2, 5))
        word = self._chance.choice((b"gat", b"gats"))
        return b"%b %b %b\r\n" % (word, self._time(), b" ".join(self._key() for _ in range(count)))

    def _store(self) -> bytes:
        word = self._chance.choice((b"set", b"set", b"set", b"add", b"replace", b"append", b"prepend", b"cas"))
        flags = b"0" if self._chance.random() < 0.7 else self._chance.choice(NUMBERS)
        unique = b" $%02d" % self._chance.randint(0, 40) if word == b"cas" else b""
        value = self._value()
        words = (word, self._key(), flags, self._time(), self._length(value))
        head = b" ".join(words) + unique + self._noreply() + b"\r\n"
        return head + value + b"\r\n"

    def _count(self) -> bytes:
        word = self._chance.choice((b"incr", b"decr"))
        return b"%b %b %b%b\r\n" % (word, self._key(), self._number(), self._noreply())

    def _touch(self) -> bytes:
        return b"touch %b %b%b\r\n" % (self._key(), self._time(), self._noreply())

    def _delete(self) -> bytes:
        return b"delete %b%b%b\r\n" % (self._key(), self._chance.choice((b"", b"", b" 0")), self._noreply())

    def _other(self) -> bytes:
        lines = (
            b"mn",
            b"version",
            b"flush_all",
            b"flush_all 0",
            b"flush_all noreply",
            b"verbosity 0",
            b"verbosity 1 noreply",
            b"",
            b"bogus",
            b"flush_all -1",
            b"version noreply",
        )
        return self._chance.choice(lines) + b"\r\n"

    def _flags(self, most: int = 5) -> bytes:
        chance = self._chance
        flags = chance.sample(FLAGS, chance.randint(0, most))
        if chance.random() < 0.07:
            flags.insert(chance.randint(0, len(flags)), chance.choice(BAD_FLAGS))
        if chance.random() < 0.03:
            flags = chance.choices(FLAGS, k=25)[: chance.randint(15, 25)]
        return b"".join(b" " + flag for flag in flags)

    def _metaGet(self) -> bytes:
        return b"mg %b%b\r\n" % (self._key(), self._flags())

    def _metaSet(self) -> bytes:
        value = self._value()
        return b"ms %b %b%b\r\n%b\r\n" % (self._key(), self._length(value), self._flags(3), value)

    def _metaChange(self) -> bytes:
        word = self._chance.choice((b"md", b"ma", b"ma"))
        return b"%b %b%b\r\n" % (word, self._key(), self._flags(4))

    def _debug(self) -> bytes:
        return b"me %b%b\r\n" % (self._key(), self._chance.choice((b"", b"", b" b", b" x")))

    _KINDS = (
        _get, _run, _gat, _store, _store, _store, _count, _touch, _delete, _other, _metaGet, _metaGet, _metaSet,
        _metaSet, _metaChange, _metaChange, _debug,
    )  # fmt: skip

    # Changes that make requests invalid

    def _words(self, data: bytes) -> bytes:
        """
        Remove, insert, replace, repeat or shuffle words of the line.
        """
        chance = self._chance
        line, newline, block = data.partition(b"\n")
        words = line.split(b" ")
        place = chance.randrange(len(words))
        what = chance.randrange(5)
        if what == 0:
            del words[place]
        elif what == 1:
            words.insert(place, chance.choice(WORDS + NUMBERS + FLAGS + KEYS + BAD_KEYS))
        elif what == 2:
            words[place] = chance.choice(WORDS + NUMBERS + BAD_KEYS + BAD_FLAGS)
        elif what == 3:
            words.insert(place, words[chance.randrange(len(words))])
        else:
            chance.shuffle(words)
        return b" ".join(words) + newline + block

    def _byte(self, data: bytes) -> bytes:
        """
        Remove, replace or insert a byte, usually in the line.
        """
        chance = self._chance
        size = len(data) if chance.random() < 0.3 else data.find(b"\n") + 2
        place = chance.randrange(max(1, size))
        byte = bytes([chance.choice(BYTES)])
        return data[:place] + chance.choice((b"", byte, byte + data[place : place + 1])) + data[place + 1 :]

    def _ends(self, data: bytes) -> bytes:
        """
        Replace the end of a line.
        """
        end = self._chance.choice(
            (b"\n", b"\r\r\n", b" \r\n", b"  \n", b"\r\n\r\n", b"", b"\r", b" noreply\r\n", b" q\r\n")
        )
        return end.join(data.split(b"\r\n", 1)) if self._chance.random() < 0.7 else data.removesuffix(b"\r\n") + end

    def _spaces(self, data: bytes) -> bytes:
        """
        Insert spaces.
        """
        place = self._chance.choice([0, *(match.start() for match in re.finditer(b" ", data.partition(b"\n")[0]))])
        return data[:place] + b" " * self._chance.choice((1, 1, 2, 60)) + data[place:]

    def _cut(self, data: bytes) -> bytes:
        """
        Remove some bytes.
        """
        start = self._chance.randrange(len(data) + 1)
        return data[:start] + data[start + self._chance.choice((1, 2, 5, len(data))) :]

    _MUTATIONS = (_words, _words, _words, _byte, _byte, _ends, _ends, _spaces, _cut)


_UNIQUE: Final = re.compile(rb"\$([0-9][0-9])")


def written(data: bytes, base: int) -> bytes:
    """
    Replace the placeholders of cas uniques: C{$07} becomes C{base + 7}.

    @param base: the last cas unique of the server.
    """
    return _UNIQUE.sub(lambda match: b"%d" % (base + int(match[1])), data)
