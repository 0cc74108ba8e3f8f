# -*- test-case-name: tests.real.test_load -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Clients that know what every answer must be: what L{tests.real.load} runs a thousand of. No input or output here.

Each client has keys of its own, and each value it stores is a token that exists once: who wrote it, for which key, and
the number of the value. A client remembers what its keys may hold. So an answer that belongs to someone else, comes
twice, is missing, is mixed from two, or is older than what was confirmed, does not escape. These are no errors of the
server but of what stands between, and are counted as I{wrong}, with the first of them described. What may happen when
servers die is counted apart: one C{SERVER_ERROR} line for a request, or a connection that ends.

What a client can know::

    set answered STORED           the key holds this value
    set answered SERVER_ERROR,    it may hold this one or what it held before, and a server that was frozen may
    or the connection ended       still store it much later
    set with noreply              the same; whether it was done is seen by the get which follows it on the connection
    a miss                        the key holds nothing: wrong, if it was stored for certain; unless the load is told
                                  that servers lose what they have (C{misses})
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.real.servers import Address

#: Shares of the kinds of requests, unless told otherwise.
KINDS = {"get": 50, "gets": 5, "many": 15, "set": 20, "quiet": 5, "delete": 5}

#: With memcached's meta commands too, whose replies carry a token themselves.
META_KINDS = {**KINDS, "mg": 10, "ms": 5}


@dataclass(frozen=True)
class Settings:
    """
    What the load does.

    @ivar address: whom to ask.
    @ivar clients: connections.
    @ivar seconds: until no client asks any more.
    @ivar requests: of each client, after which it asks no more; 0 for no such limit.
    @ivar depth: most requests that a client sends at once; it draws a number for each batch.
    @ivar sizes: lengths of values to draw from; a token needs some thirty bytes, so it may be longer.
    @ivar keys: of each client.
    @ivar kinds: shares of the kinds of requests: get, gets, many (get of several keys), set, quiet (set with noreply,
        and a get behind it), delete, mg, ms.
    @ivar timeout: seconds after which a request without an answer makes its client stuck.
    @ivar pause: seconds between the answers to a batch and the next batch.
    @ivar misses: a miss is always explained: servers are restarted or evict.
    @ivar reconnect: clients whose connection ends, or is refused, come back.
    @ivar seed: of everything drawn.
    @ivar mark: in all keys and values, another one for each load, so that nothing is there when it begins.
    """

    address: Address
    clients: int = 1000
    seconds: float = 5.0
    requests: int = 0
    depth: int = 4
    sizes: tuple[int, ...] = (10, 100, 1000, 8000)
    keys: int = 4
    kinds: dict[str, int] = field(default_factory=lambda: dict(KINDS))
    timeout: float = 10.0
    pause: float = 0.0
    misses: bool = False
    reconnect: bool = True
    seed: int = 1
    mark: int = field(default_factory=lambda: random.getrandbits(30))

    def __post_init__(self) -> None:
        if unknown := set(self.kinds) - set(META_KINDS):
            raise ValueError(f"no such kind of request: {', '.join(sorted(unknown))}")


class Wrong(Exception):
    """
    An answer that cannot be right.
    """


def token(mark: int, client: int, key: int, number: int, size: int) -> bytes:
    """
    Make a value: at least C{size} bytes, all of which depend on all arguments.
    """
    unit = b"<%d.%d.%d.%d.%d>" % (mark, client, key, number, size)
    return (unit * (size // len(unit) + 1))[: max(size, len(unit))]


@dataclass
class Request:
    """
    One request that is on its way.

    @ivar keys: numbers of the client's keys that are asked for, in this order.
    @ivar number: of the value which is stored; 0 for a delete; -1 when nothing is changed.
    @ivar tag: what the answer to a meta command has to carry.
    @ivar sent: when it was.
    @ivar early: its value was read before it was answered, which is only right if it fails: a read that met a dead
        connection is tried again elsewhere, and there sees writes that came after it.
    """

    kind: str
    keys: list[int]
    number: int = -1
    tag: bytes = b""
    sent: float = 0.0
    early: bool = False


class Memory:
    """
    What one key of one client may hold: numbers of values, 0 for nothing.

    @ivar certain: what it holds as far as was confirmed; more than one while that is open.
    @ivar doubtful: what was asked for and never confirmed: it may show up at any time.
    """

    def __init__(self) -> None:
        self.certain = {0}
        self.doubtful: set[int] = set()

    def may(self, number: int) -> bool:
        """
        Can it hold this?
        """
        return number in self.certain or number in self.doubtful


class Client:
    """
    What one client asks and what it knows; no input or output here.

    @ivar due: requests on their way, in order.
    @ivar sizes: the lengths of the values, by their numbers.
    """

    def __init__(self, number: int, settings: Settings) -> None:
        self.number = number
        self.due: deque[Request] = deque()
        self.made = self.missed = self.ignored = 0
        self._settings = settings
        self._chance = random.Random(f"{settings.seed}/{number}")
        self._memory = [Memory() for _ in range(settings.keys)]
        self._kinds = list(settings.kinds)
        self._weights = list(settings.kinds.values())
        self.sizes: dict[int, int] = {}
        self._buffer = b""
        self._values = 0
        self._quiet: Request | None = None

    # Asking

    def batch(self, most: int, now: float) -> bytes:
        """
        Ask for something.

        @param most: requests, at most.
        @return: bytes to send.
        """
        asked = []
        for _ in range(self._chance.randint(1, most)):
            for request in self._draw():
                request.sent = now
                self.due.append(request)
                asked.append(self._spell(request))
                self.made += 1
        return b"".join(asked)

    def _draw(self) -> Iterator[Request]:
        (kind,) = self._chance.choices(self._kinds, self._weights)
        key = self._chance.randrange(self._settings.keys)
        if kind in ("set", "quiet", "ms"):
            yield self._change(kind, key)
            if kind == "quiet":
                # Something has to show whether it was done.
                yield Request("get", [key])
        elif kind == "delete":
            yield Request(kind, [key], number=0)
        elif kind == "many":
            keys = list(range(self._settings.keys))
            self._chance.shuffle(keys)
            yield Request(kind, keys[: self._chance.randint(1, len(keys))])
        else:
            yield Request(kind, [key], tag=self._tag() if kind == "mg" else b"")

    def _change(self, kind: str, key: int) -> Request:
        self._values += 1
        number = self._values
        self.sizes[number] = self._chance.choice(self._settings.sizes)
        return Request(kind, [key], number, self._tag() if kind == "ms" else b"")

    def _tag(self) -> bytes:
        self._values += 1
        return b"O%d.%d" % (self.number, self._values)

    def _key(self, key: int) -> bytes:
        return b"load:%d:%d:%d" % (self._settings.mark, self.number, key)

    def _value(self, key: int, number: int) -> bytes:
        return token(self._settings.mark, self.number, key, number, self.sizes[number])

    def _spell(self, request: Request) -> bytes:
        key = self._key(request.keys[0])
        if request.kind in ("get", "gets", "many"):
            word = b"gets" if request.kind == "gets" else b"get"
            return b"%b %b\r\n" % (word, b" ".join(map(self._key, request.keys)))
        if request.kind == "delete":
            return b"delete %b\r\n" % key
        if request.kind == "mg":
            return b"mg %b v k %b\r\n" % (key, request.tag)
        value = self._value(request.keys[0], request.number)
        if request.kind == "ms":
            return b"ms %b %d F%d k %b\r\n%b\r\n" % (key, len(value), request.number, request.tag, value)
        quiet = b" noreply" if request.kind == "quiet" else b""
        return b"set %b %d 0 %d%b\r\n%b\r\n" % (key, request.number, len(value), quiet, value)

    # Being answered

    def received(self, data: bytes) -> list[tuple[Request, str]]:
        """
        Take bytes that came.

        @return: the requests which they answer, each with the text of its C{SERVER_ERROR}, empty if it was done.
        @raise Wrong: when they cannot be right. The connection is of no use any more, L{lost} has to be called.
        """
        self._buffer += data
        answered = []
        position = 0
        while self.due:
            request = self.due[0]
            if request.kind == "quiet":
                self._quiet = self.due.popleft()
                continue
            answer = self._answer(request, position)
            if answer is None:
                break
            position, line, hits = answer
            self.due.popleft()
            error = ""
            if line.startswith(_ERROR):
                error = line.removeprefix(_ERROR).decode("ascii", "replace")
                self._failed(request)
            else:
                self._done(request, line, hits)
            self._quiet = None
            answered.append((request, error))
        self._buffer = self._buffer[position:]
        if self._buffer and not self.due:
            raise Wrong(f"not asked for: {_shortened(self._buffer)}")
        return answered

    def lost(self) -> tuple[list[Request], bool]:
        """
        The connection has ended.

        @return: the requests that will not be answered, and whether a part of the answer to the first had come.
        """
        halved = bool(self._buffer)
        self._buffer = b""
        unanswered = [request for request in self.due if request.kind != "quiet"]
        for request in self.due:
            self._failed(request)
        if self._quiet is not None:
            self._doubt(self._quiet)
            self._quiet = None
        self.due.clear()
        return unanswered, halved

    def _answer(self, request: Request, start: int) -> tuple[int, bytes, dict[int, int]] | None:
        """
        Find the answer to a request in the buffer.

        @return: where it ends, its last line, and the values which it has by key; C{None} while it is incomplete.
        """
        hits: dict[int, int] = {}
        while True:
            end = self._buffer.find(b"\r\n", start)
            if end < 0:
                if len(self._buffer) - start > 4096:
                    raise self._wrong(request, self._buffer[start:])
                return None
            line = self._buffer[start:end]
            end += 2
            size = None if line.startswith(_ERROR) else self._size(request, line)
            if size is None:
                return end, line, hits
            body = self._buffer[end : end + size + 2]
            if len(body) < size + 2:
                return None
            key, number = self._identify(request, line, body)
            if hits and request.keys.index(key) <= request.keys.index(next(reversed(hits))):
                raise self._wrong(request, line, "not in the order in which it was asked for")
            hits[key] = number
            start = end + size + 2
            if request.kind == "mg":
                return start, line, hits

    def _size(self, request: Request, line: bytes) -> int | None:
        """
        Check a line of an answer.

        @return: the length of the value that follows, C{None} if this is the end of the answer.
        """
        words = line.split(b" ")
        key = self._key(request.keys[0])
        kind = request.kind
        if kind in ("get", "gets", "many"):
            if line == b"END":
                return None
            if words[0] == b"VALUE" and len(words) == (5 if kind == "gets" else 4) and words[3].isdigit():
                return int(words[3])
        elif kind == "mg":
            # Whether a miss gives the flags back depends on the version.
            if line == b"EN" or words == [b"EN", b"k" + key, request.tag]:
                return None
            if words[0] == b"VA" and words[2:] == [b"k" + key, request.tag] and words[1].isdigit():
                return int(words[1])
        elif kind == "ms":
            if words == [b"HD", b"k" + key, request.tag]:
                return None
        elif line in {"set": (b"STORED",), "delete": (b"DELETED", b"NOT_FOUND")}[kind]:
            return None
        raise self._wrong(request, line)

    def _identify(self, request: Request, line: bytes, body: bytes) -> tuple[int, int]:
        """
        Tell which key a value belongs to and which of its values it is.
        """
        match = _TOKEN.match(body)
        if match is None or not body.endswith(b"\r\n"):
            raise self._wrong(request, line + b"\r\n" + body, "no value of ours")
        mark, client, key, number, size = map(int, match.groups())
        if (mark, client) != (self._settings.mark, self.number) or key not in request.keys:
            raise self._wrong(request, line + b"\r\n" + body, "belongs to another request")
        if body[:-2] != token(mark, client, key, number, size):
            raise self._wrong(request, line + b"\r\n" + body, "broken")
        if request.kind != "mg" and line.split(b" ")[1:3] != [self._key(key), b"%d" % number]:
            raise self._wrong(request, line + b"\r\n" + body, "line and value do not belong together")
        return key, number

    def _done(self, request: Request, line: bytes, hits: dict[int, int]) -> None:
        if request.early:
            raise self._wrong(request, line, "its effect was read before")
        memory = self._memory[request.keys[0]]
        if request.kind in ("set", "ms"):
            memory.certain = {request.number}
        elif line == b"NOT_FOUND":
            self._saw(request, request.keys[0], 0)
        elif line == b"DELETED":
            if memory.certain | memory.doubtful == {0}:
                raise self._wrong(request, line, "there was nothing")
            memory.certain = {0}
        else:
            for key in request.keys:
                self._saw(request, key, hits.get(key, 0))

    def _saw(self, request: Request, key: int, number: int) -> None:
        """
        A key was found to hold a value.
        """
        memory = self._memory[key]
        if self._quiet is not None and self._quiet.keys[0] == key:
            if number != self._quiet.number:
                self.ignored += 1
                self._doubt(self._quiet)
            else:
                memory.certain.add(number)
        self.missed += number == 0
        if memory.may(number) or (number == 0 and self._settings.misses):
            memory.certain = {number}
            return
        for later in self.due:
            if later.number == number and key in later.keys:
                later.early = True
                return
        held = ", ".join(map(str, sorted(memory.certain)))
        what = f"value {number}" if number else "a miss"
        raise self._wrong(request, b"", f"{what} for key {key}, which holds {held} for certain")

    def _failed(self, request: Request) -> None:
        """
        It is not known whether it was done.
        """
        self._doubt(request)
        if self._quiet is not None:
            self._doubt(self._quiet)

    def _doubt(self, request: Request) -> None:
        if request.number >= 0:
            self._memory[request.keys[0]].doubtful.add(request.number)

    def _wrong(self, request: Request, came: bytes, why: str = "") -> Wrong:
        asked = f"{request.kind} {', '.join(map(str, request.keys))}"
        if request.number > 0:
            asked += f" (value {request.number})"
        return Wrong(f"client {self.number}: {asked}: {_shortened(came) if came else ''} {why}".rstrip())


_ERROR = b"SERVER_ERROR "
_TOKEN = re.compile(rb"<(\d+)\.(\d+)\.(\d+)\.(\d+)\.(\d+)>")


def _shortened(data: bytes) -> str:
    return repr(data) if len(data) <= 200 else f"{data[:150]!r}...{data[-50:]!r} ({len(data)} bytes)"
