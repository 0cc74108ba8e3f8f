# -*- test-case-name: tests.test_native -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A differential fuzzer: each function of the extension must have the same result as its twin in Python, for any bytes.

The inputs are valid requests and replies, some of them changed at random, and cut anywhere. To run the fuzzer, which
also ends at an interrupt::

    python -m tests.nativefuzz 10000000           # inputs
    python -m tests.nativefuzz 1000000 12345      # from this seed

To find errors of memory too, build the extension with AddressSanitizer, and let each object have memory of its own::

    CFLAGS='-fsanitize=address,undefined -fno-sanitize-recover' python setup.py build_ext --inplace --force
    PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD=$(gcc -print-file-name=libasan.so) \\
        python -m tests.nativefuzz 1000000
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from txconnpool import native
from txconnpool.routing import hashing
from txconnpool.routing.distribution import mcrouter, wide, xxh3
from txconnpool.routing.distribution.keymap import KeyCache
from txconnpool.routing.distribution.locators import INDEX_BITS, BackwardRing, Ring, Slots
from txconnpool.routing.distribution.servers import Member
from txconnpool.wire.effects import Permissions
from txconnpool.wire.joining import Packed, joinEach
from txconnpool.wire.memcache import common, replies, values
from txconnpool.wire.memcache.effects import ORDINARY
from txconnpool.wire.memcache.lines import divideLines, plainKey
from txconnpool.wire.memcache.matching import MemcacheCommand
from txconnpool.wire.redis import elements as redisElements
from txconnpool.wire.redis import framing

#: All commands are accepted, or all but some.
_ALL: Final = common.acceptedCommands(Permissions(ORDINARY, frozenset(), None), frozenset())
_SOME: Final = common.acceptedCommands(Permissions(ORDINARY, frozenset(), None), frozenset((b"get", b"incr", b"mg")))

_KEYS: Final = [b"a", b"b", b"key:1", b"key:2", b"noreply", b"x" * 249, b"x" * 250, b"y" * 250, b"\xff\x80", b"a\rb"]
_ODD_KEYS: Final = [b"x" * 251, b"", b"\x01", b"a\0b", b" ", b"a\nb", b"\r"]
_NUMBERS: Final = [b"0", b"1", b"7", b"10", b"4294967295", b"123456789", b"1234567890", b"2147483648", b"9" * 20]
_ODD_NUMBERS: Final = [b"-1", b"00", b"01", b"", b"x", b"-", b"99999999999", b"123456789012345678901", b"+1", b"1 2"]
_BODIES: Final = [b"", b"x", b"\r\n", b"END\r\n", b"VALUE a 0 1\r\nx", b"0123456789" * 3, b"\r\nEND\r\n", b"\0\xff"]
_ENDS: Final = [b"\r\n"] * 8 + [b"\n", b"\r", b"", b" \r\n", b"\r\n\r\n"]
_HASHED: Final = [0, 0, 0, 0, 20, 115, 225, 245, 500, 1010, 2040]  # lengths of what is hashed
_LINES: Final = [b"+OK", b":1", b":-5", b"-ERR x", b",1.5", b"(123", b"_", b"#t", b"#f"]
_ODD_LINES: Final = [b"#x", b"+a\nb", b"_x", b"\0"]
_CHANGES: Final = b"\r\n \0\xff0159-vVaAgGEN"


@dataclass(frozen=True)
class Subject:
    """
    A function of the extension.

    @ivar name: its name.
    @ivar twin: the function that defines its results.
    @ivar inputs: makes arguments, of which the first is bytes and the second a position in them.
    @ivar placed: whether the arguments are so; if not, they are other ones.
    """

    name: str
    twin: Callable[..., Any]
    inputs: Callable[[random.Random], tuple[Any, ...]]
    placed: bool = True

    def compare(self, arguments: tuple[Any, ...]) -> bool:
        """
        Call both functions.

        @return: whether they have found something.

        @raise AssertionError: their results differ.
        """
        function = getattr(native.extension, self.name)
        expected, found = self.twin(*arguments), function(*arguments)
        if found != expected:
            raise AssertionError(f"{self.name}{arguments!r} is {found!r}, and {expected!r} in Python")
        return bool(found)


def _pick(rng: random.Random, usual: Sequence[bytes], odd: Sequence[bytes]) -> bytes:
    return rng.choice(odd if rng.random() < 0.03 else usual)


def _key(rng: random.Random) -> bytes:
    return _pick(rng, _KEYS, _ODD_KEYS)


def _number(rng: random.Random) -> bytes:
    return _pick(rng, _NUMBERS, _ODD_NUMBERS)


def changed(rng: random.Random, data: bytes) -> bytes:
    """
    @return: the bytes, or with some probability a few bytes of them changed, or a part of them.
    """
    chance = rng.random()
    if chance < 0.5 or not data:
        return data
    if chance < 0.7:
        return data[: rng.randrange(len(data))]
    at = rng.randrange(len(data))
    if chance < 0.85:
        return data[:at] + bytes((rng.choice(_CHANGES),)) + data[at + 1 :]
    if chance < 0.93:
        return data[:at] + data[at + rng.randrange(1, 9) :]
    if chance < 0.97:
        return data[:at] + rng.randbytes(rng.randrange(1, 5)) + data[at:]
    return rng.randbytes(rng.randrange(60))


def placed(rng: random.Random, data: bytes) -> tuple[bytes, int]:
    """
    @return: bytes that contain these, and their position; sometimes another one.
    """
    before = rng.choice((b"", b"", b"", b"\r\n", b"get a\r\n", b"x" * 20))
    data = before + data
    return data, len(before) if rng.random() < 0.97 else rng.randrange(len(data) + 1)


def _request(rng: random.Random) -> bytes:
    word = rng.choice(b"get get get several gets mg set set delete incr decr touch".split())
    end = rng.choice((b"", b"", b" noreply")) + rng.choice(_ENDS)
    if word == b"several":
        count = rng.choice((2, 2, 3, 5, 20, 49, 50, 51, 60))
        return b"get " + b" ".join(rng.choice(_KEYS) for _ in range(count)) + end
    if word == b"mg":
        flags = b"".join(b" %c" % each for each in rng.choices(b"cfhklstuvcfhklstuvqN", k=rng.randrange(5)))
        return b"mg " + _key(rng) + flags + rng.choice(_ENDS)
    if word == b"set":
        body = rng.choice(_BODIES)
        length = b"%d" % len(body) if rng.random() < 0.95 else _number(rng)
        expiry = rng.choice((b"", b"", b"-")) + _number(rng)
        return b" ".join((b"set", _key(rng), _number(rng), expiry, length)) + end + body + rng.choice(_ENDS)
    number = b" " + _number(rng) if word in (b"incr", b"decr", b"touch") else b""
    return word + b" " + _key(rng) + number + (rng.choice(_ENDS) if word.startswith(b"get") else end)


def requests(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{scanRequest}: some requests.
    """
    if rng.random() < 0.3:
        keys = _KEYS if rng.random() < 0.5 else [b"k%d" % number for number in range(100)]
        data = b"".join(b"get %b\r\n" % rng.choice(keys) for _ in range(rng.choice((2, 3, 8, 49, 50, 51, 70))))
    else:
        data = b"".join(_request(rng) for _ in range(rng.choice((1, 1, 2))))
    room = rng.choice((1, 2, 3, 50, 256))
    return (*placed(rng, changed(rng, data)), room, rng.choice((0, 10, 1 << 20)), rng.choice((_ALL, _ALL, _ALL, _SOME)))


def _value(rng: random.Random, key: bytes, isUnique: bool) -> bytes:
    body = rng.choice(_BODIES)
    length = b"%d" % len(body) if rng.random() < 0.98 else _number(rng)
    unique = b" " + _number(rng) if isUnique is (rng.random() < 0.99) else b""
    return b"VALUE %b %b %b%b\r\n%b\r\n" % (key, _number(rng), length, unique, body)


def single(word: bytes, isUnique: bool) -> Callable[[random.Random], tuple[Any, ...]]:
    """
    @return: makes arguments of C{wholeValue}.
    """

    def inputs(rng: random.Random) -> tuple[Any, ...]:
        key = rng.choice(_KEYS)
        of = key if rng.random() < 0.95 else _key(rng)
        request = None if rng.random() < 0.1 else b"%b %b\r\n" % (word, key)
        data = (_value(rng, of, isUnique) if rng.random() < 0.95 else b"") + rng.choice((b"END\r\n", b"END\r\nEND\r\n"))
        return (*placed(rng, changed(rng, data)), request, None)

    return inputs


def several(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{findValues}.
    """
    isUnique = rng.random() < 0.3
    word = rng.choice((b"gets ", b"gats 10 ") if isUnique else (b"get ", b"  get  ", b"gat 10 "))
    keys = rng.choices(_KEYS, k=rng.choice((1, 2, 3, 5, 10, 50)))
    hits = [key for key in keys if rng.random() < 0.8]
    if rng.random() < 0.1:
        rng.shuffle(hits)
    alike = rng.random() < 0.5
    body = rng.choice(_BODIES)
    data = b"".join(
        b"VALUE %b 0 %d%b\r\n%b\r\n" % (key, len(body), b" 7" if isUnique else b"", body)
        if alike
        else _value(rng, key, isUnique)
        for key in hits
    )
    separator = b" " if rng.random() < 0.9 else b"  "
    data += rng.choice((b"END\r\n", b"END\r\n", b"END\r\nEND\r\n", b"SERVER_ERROR out of memory\r\n"))
    return (*placed(rng, changed(rng, data)), word + separator.join(keys) + b"\r\n", len(word), isUnique)


def unitedReplies(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{separateReplies}.
    """
    isUnique = rng.random() < 0.3
    word = b"gets " if isUnique else b"get "
    listed = [rng.choices(_KEYS, k=rng.choice((0, 1, 1, 1, 2, 5))) for _ in range(rng.choice((0, 1, 2, 3, 20)))]
    hits = [key for keys in listed for key in keys if rng.random() < 0.8]
    if rng.random() < 0.1:
        rng.shuffle(hits)
    data = b"".join(_value(rng, key, isUnique) for key in hits)
    data += rng.choice((b"END\r\n",) * 8 + (b"END\r\nEND\r\n", b"SERVER_ERROR out of memory\r\n"))
    separator = b" " if rng.random() < 0.9 else b"  "
    requests = [word + separator.join(keys) + b"\r\n" for keys in listed]
    return changed(rng, data) if rng.random() < 0.3 else data, requests, len(word), isUnique


def metaValues(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{wholeMetaValue}.
    """
    body = rng.choice(_BODIES)
    length = b"%d" % len(body) if rng.random() < 0.95 else _number(rng)
    flags = rng.choice((b"", b"", b" ", b" f0 kabc", b" O\r", b" O\rx"))
    data = b"VA " + length + flags + b"\r\n" + body + rng.choice(_ENDS)
    return (*placed(rng, changed(rng, rng.choice((data, data, data, b"EN\r\n", b"HD\r\n")))), b"mg a v\r\n", None)


def stored(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{wholeStored}.
    """
    data = rng.choice((b"STORED\r\n", b"NOT_STORED\r\n", b"EXISTS\r\n", b"SERVER_ERROR x\r\n"))
    return (*placed(rng, changed(rng, data)), None, None)


def commands(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{findCommand}: one request of Redis or two.
    """
    data = b""
    for _ in range(rng.choice((1, 1, 2))):
        words = [rng.choice((b"get", b"MGET", b"set", b"", b"x" * 999, b"x" * 1000))]
        words += [rng.choice((*_BODIES, *_KEYS)) for _ in range(rng.choice((0, 1, 1, 2, 5, 100)))]
        data += b"*%d\r\n" % len(words)
        for word in words:
            size = b"%d" % len(word) if rng.random() < 0.98 else _number(rng)
            data += b"$%b\r\n%b\r\n" % (size, word)
    return (*placed(rng, changed(rng, data)), rng.choice((0, 100, 1 << 20, 1 << 20)))


def words(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{usualWords}.
    """
    return commands(rng)[:2]


def usualCommands(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{findUsual}: the same, with the commands that are usual.
    """
    usual = {b"get": ("get", 2, 2), b"MGET": ("mget", 2, 1 << 20), b"set": ("set", 1, 6), b"x" * 999: ("x", 0, 200)}
    return *commands(rng), usual


def elements(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{matchSimple}: a reply of Redis.
    """
    body = rng.choice(_BODIES)
    length = b"%d" % len(body) if rng.random() < 0.95 else _number(rng)
    string = b"$" + length + b"\r\n" + body + rng.choice(_ENDS)
    line = rng.choice((b"+OK", b":1", b":-5", b"-ERR x", b"$-1", b"*1", b"+", b"+a\nb")) + rng.choice(_ENDS)
    array = b"*2\r\n" + _element(rng, 2) + _element(rng, 2)
    return (*placed(rng, changed(rng, rng.choice((string, line, array)))), None, None)


def _element(rng: random.Random, depth: int) -> bytes:
    kind = rng.choice((b"$", b"$", b"$", b"=", b"!", b"*", b"~", b"%", b"|", b">", b"line", b"line"))
    if kind == b"line":
        return _pick(rng, _LINES, _ODD_LINES) + rng.choice((b"\r\n",) * 20 + (b"\n", b""))
    if rng.random() < 0.05:
        return kind + rng.choice((b"-1", b"-2", b"00", b"9999999999", b"99999999999")) + b"\r\n"
    if kind in b"$=!":
        body = rng.choice(_BODIES)
        return b"%b%d\r\n%b\r\n" % (kind, len(body), body)
    number = rng.choice((0, 1, 2, 20)) if depth < 3 else 0
    inner = b"".join(_element(rng, depth + 1) for _ in range(number * (2 if kind in b"%|" else 1)))
    return b"%b%d\r\n%b" % (kind, number, inner)


def nested(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{passElements}: replies of Redis.
    """
    count = rng.choice((1, 1, 2, 5))
    data = b"".join(_element(rng, 0) for _ in range(count))
    return (*placed(rng, changed(rng, data)), count, rng.random() < 0.3)


def sequences(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{splitElements}: an array of Redis, or another reply, and the request.
    """
    count = rng.choice((0, 1, 1, 2, 3, 20))
    data = rng.choice((b"*", b"*", b"*", b"*", b"*", b"~", b"%", b">")) + b"%d\r\n" % count
    alike = rng.choice((b"$1\r\nx\r\n", b"$-1\r\n", b""))
    data += b"".join(alike or _element(rng, 2) for _ in range(count))
    request = None if rng.random() < 0.7 else b"*%d\r\n$4\r\nMGET\r\n" % (count + rng.choice((0, 1, 1, 1, 1)))
    return (*placed(rng, changed(rng, data)), request)


def wordLists(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: the argument of C{encodeWords}.
    """
    sizes = (0, 1, 9, 10, 11, 99, 100, 1000)
    return ([rng.randbytes(rng.choice(sizes)) for _ in range(rng.choice((0, 1, 2, 9, 10, 11, 100)))],)


@cache
def locators(servers: int, seed: int) -> Ring | BackwardRing | Slots:
    """
    @return: a locator that the extension can search, if it knows the hash function.
    """
    rng = random.Random(seed)
    hashFunction = rng.choice(list(hashing.HASHES.values()))
    points = [rng.choice((0, 1, (1 << 32) - 1, rng.getrandbits(32))) << INDEX_BITS for _ in range(2 * servers)]
    points = [point | rng.randrange(servers) for point in points]
    members = [Member(index, b"", rng.randrange(1, 4)) for index in range(servers)]
    rings = Ring(points, hashFunction), BackwardRing(points, hashFunction)
    return rng.choice((*rings, Slots(members, hashFunction)))


def divisions(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: the last arguments of C{divideLines} and C{divideWords}: the index of each key, and the most in a share.
    """
    servers, factor, limit = rng.choice((1, 2, 5, 130, 300)), rng.choice((1, 1, 1 << 70)), rng.choice((1, 10, 1000))
    keyMap = KeyCache(lambda key: (sum(key) % servers - 1) * factor, limit)
    if rng.random() < 0.6:
        locator = locators(servers, rng.randrange(20))
        keyMap = KeyCache(locator.locate, limit, locator.search())
    return keyMap, rng.choice((1, 2, 7, 50, sys.maxsize))


def keyLines(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{divideLines}.
    """
    before = rng.choice((b"get ", b"gets ", b"gat 12 ", b""))
    requests = []
    for _ in range(rng.choice((1, 1, 0, 2, 9))):
        keys = rng.choice((b" ", b" ", b"  ")).join(rng.choices(_KEYS, k=rng.choice((0, 1, 2, 20, 50))))
        requests.append(before + keys + rng.choice((b"\r\n", b" \r\n")))
    if rng.random() < 0.1:
        requests.append(changed(rng, b"get a b\r\n"))
    return (requests, before, *divisions(rng))


def plainKeys(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{plainKey}.
    """
    before = rng.choice((b"get ", b"set ", b""))
    key = rng.choice((rng.choice(_KEYS), b"", b"\r", b"a\rb"))
    end = rng.choice((b"\r\n", b"\n", b" \r\n", b" 0 0 1\r\nx\r\n", b""))
    request = changed(rng, before + rng.choice((b"", b"", b" ")) + key + end)
    pos = rng.choice((0, 0, 3))
    return bytes(pos) + request, pos, before


def keyWords(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{divideWords}.
    """
    requests = []
    for _ in range(rng.choice((1, 1, 0, 2, 9))):
        name = rng.choice((b"MGET", b"mget", b"", b"x" * 999))
        words = [name, *rng.choices(_KEYS + _BODIES, k=rng.choice((0, 1, 20)))]
        request = framing.encodeWords(words)
        requests.append(changed(rng, request) if rng.random() < 0.3 else request)
    return (requests, rng.choice((b"$4\r\nMGET\r\n", b"")), *divisions(rng))


def joints(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{joinEach}.
    """
    lists = rng.choice((1, 2, 5, 130))
    orders = [[rng.randrange(lists) for _ in range(rng.choice((0, 1, 2, 20)))] for _ in range(rng.choice((0, 1, 9)))]
    values: list[Any] = [
        [rng.choice(_BODIES) for order in orders for each in order if each == number] for number in range(lists)
    ]
    arrived = rng.randrange(lists)
    for number in range(lists):
        if number != arrived and rng.random() < rng.choice((0.0, 0.3)):
            values[number] = None
    if rng.random() < 0.5:
        values = [None if its is None else rng.choice((its, Packed.of(its))) for its in values]
    return (
        orders,
        values,
        arrived,
        rng.choice((b"", b"*%d\r\n")),
        rng.choice((b"", b"END\r\n")),
        rng.choice((b"", b"END\r\n")),
    )


def hashable(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: the argument of a hash function.
    """
    return (rng.choice(_KEYS) if rng.random() < 0.2 else rng.randbytes(rng.choice(_HASHED) + rng.randrange(20)),)


def seeded(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of a hash function with a seed.
    """
    return (*hashable(rng), rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 4193360111, 1 << 63)))


def choices(rng: random.Random) -> tuple[Any, ...]:
    """
    @return: arguments of C{furc}.
    """
    return (*hashable(rng), rng.choice((-1, 0, 1, 2, 3, 5, 64, 100, 1000, 1 << 20, (1 << 63) - 1)))


def _whole(command: MemcacheCommand) -> Callable[[bytes, int, Any, Any], int]:
    """
    @return: C{matchWhole} of a command in Python.
    """
    twin = command.variant().matchWhole
    assert twin is not None
    return twin


#: All functions of the extension.
SUBJECTS: Final = (
    Subject("scanRequest", common.scanRequest, requests),
    Subject("wholeValue", _whole(replies.GET), single(b"get", False)),
    Subject("wholeUniqueValue", _whole(replies.GETS), single(b"gets", True)),
    Subject("wholeMetaValue", _whole(replies.MG[True, False]), metaValues),
    Subject("wholeStored", _whole(replies.SET), stored),
    Subject("countValues", values.countValues, several),
    Subject("findValues", values.findValues, several),
    Subject("separateReplies", values.separateReplies, unitedReplies, False),
    Subject("findCommand", framing.findCommand, commands),
    Subject("findUsual", framing.findUsual, usualCommands),
    Subject("usualWords", framing.usualWords, words),
    Subject("matchSimple", redisElements.matchSimple, elements),
    Subject("passElements", redisElements.passElements, nested),
    Subject("splitElements", redisElements.splitElements, sequences),
    Subject("packElements", redisElements.packElements, sequences),
    Subject("encodeWords", framing.encodeWords, wordLists, False),
    Subject("divideWords", framing.divideWords, keyWords, False),
    Subject("plainKey", plainKey, plainKeys, False),
    Subject("divideLines", divideLines, keyLines, False),
    Subject("joinEach", joinEach, joints, False),
    *(
        Subject(twin.__name__, twin, hashable, False)
        for twin in (
            hashing.oneAtATime,
            hashing.fnv1x32,
            hashing.fnv1ax32,
            hashing.fnv1x64,
            hashing.fnv1ax64,
            hashing.hsieh,
            hashing.murmur,
            hashing.murmur3,
            hashing.jenkins,
            hashing.md5,
            xxh3.xxh3,
        )
    ),
    Subject("murmur3Seeded", hashing.murmur3Seeded, seeded, False),
    Subject("murmur64", wide.murmur64, seeded, False),
    Subject("furc", mcrouter.furc, choices, False),
)


#: The seconds between two lines about the progress.
PROGRESS: Final = 10.0

_DESCRIPTION = (
    "Compare each function of the extension in C with its twin in Python, for random inputs. It ends at the first "
    "difference, and with a summary at an interrupt."
)


def cuts(arguments: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """
    @return: the arguments, with the bytes cut at every position.
    """
    data, pos, *others = arguments
    for end in range(pos, len(data) + 1):
        yield (data[:end], pos, *others)


def main(arguments: Sequence[str]) -> int:
    """
    Compare the functions for a number of inputs, and write the number of those that were found.

    @param arguments: the number of inputs and the seed; both may be left out.

    @return: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.nativefuzz", description=_DESCRIPTION)
    parser.add_argument("count", type=int, nargs="?", default=1_000_000, help="the number of inputs (1,000,000)")
    parser.add_argument("seed", type=int, nargs="?", help="the seed of the random numbers, to repeat a run")
    options = parser.parse_args(arguments)
    count = options.count
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    if native.extension is None:
        sys.stderr.write(f"the extension is not used: {native.reason}\n")
        return 1
    rng = random.Random(seed)
    found, start = dict.fromkeys((each.name for each in SUBJECTS), 0), time.monotonic()
    shown = start
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    number = 0
    try:
        for number in range(1, count + 1):
            subject = SUBJECTS[number % len(SUBJECTS)]
            found[subject.name] += subject.compare(subject.inputs(rng))
            if time.monotonic() > shown + PROGRESS:
                shown = time.monotonic()
                left = (shown - start) * (count - number) / number
                sys.stdout.write(f"{number:,} of {count:,} inputs, about {left:,.0f} s left\n")
                sys.stdout.flush()
    except KeyboardInterrupt:
        count = number
    for name, each in found.items():
        sys.stdout.write(f"{name}: {each:,} of {count // len(SUBJECTS):,} inputs were found\n")
    sys.stdout.write(f"{count:,} inputs in {time.monotonic() - start:,.0f} s: all results are the same\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
