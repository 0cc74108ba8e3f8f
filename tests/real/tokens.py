# -*- test-case-name: tests.real.test_load -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Clients that know every correct reply to their requests, without I/O. L{tests.real.load} runs a thousand of them.

Each client has keys of its own, and each value is a unique token: it contains the client, the key and the number of the
value. A client keeps the set of values that each of its keys may hold. So it detects a reply that belongs to another
request, is duplicated, missing or mixed from two, or is older than a confirmed one. Such errors are not caused by the
server but by the proxy; they are counted as I{wrong}, and the first ones are described. Failures that may happen when
servers die are counted separately: a C{SERVER_ERROR} line for a request, or a lost connection.

What a client knows about a key::

    set answered STORED           it holds this value
    set answered SERVER_ERROR,    it holds this value or the one before, and a server that was suspended may still
    or the connection was lost    store this value much later
    set with noreply              the same; the next get on the connection shows whether it was executed
    a miss                        it holds nothing: wrong if a value was confirmed, unless the load allows misses
                                  (C{misses}), since servers lose values
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.real.servers import Address

#: The default shares of the kinds of requests.
KINDS = {"get": 50, "gets": 5, "many": 15, "set": 20, "quiet": 5, "delete": 5}

#: The same with memcached's meta commands, whose replies contain an opaque token.
META_KINDS = {**KINDS, "mg": 10, "ms": 5}


@dataclass(frozen=True)
class Settings:
    """
    The settings of a load.

    @ivar address: the address of the proxy.
    @ivar clients: the number of clients, each with one connection.
    @ivar seconds: the time after which clients send no more requests.
    @ivar requests: the maximum number of requests of each client; 0 for no maximum.
    @ivar depth: the maximum number of requests that a client sends at once; the number of each batch is random.
    @ivar sizes: the lengths of values to choose from. A token needs about thirty bytes, so a value may be longer.
    @ivar keys: the number of keys of each client.
    @ivar kinds: the shares of the kinds of requests: get, gets, many (get of several keys), set, quiet (set with
        noreply, followed by a get), delete, mg, ms.
    @ivar timeout: seconds after which a client whose request has no reply is stuck.
    @ivar pause: seconds between the replies to a batch and the next batch.
    @ivar misses: whether misses are always allowed, because servers are restarted or evict items.
    @ivar stale: whether confirmed values from before may appear again, because keys move to other servers and back.
    @ivar anyOrder: whether the values of one reply may come in any order, as twemproxy sends them.
    @ivar reconnect: whether clients connect again after their connection was closed or refused.
    @ivar watched: the process id of a proxy whose processor time is measured, see C{Report.busiest}; 0 for none.
    @ivar seed: the seed of all random choices.
    @ivar mark: a number in all keys and values. It differs between loads, so that no key exists when a load begins.
    """

    address: Address
    clients: int = 1000
    seconds: float = 5.0
    requests: int = 0
    depth: int = 4
    sizes: tuple[int, ...] = (10, 100, 1000, 8000)
    keys: int = 4
    kinds: dict[str, int] = field(default_factory=lambda: dict(KINDS))
    timeout: float = 60.0
    pause: float = 0.0
    misses: bool = False
    stale: bool = False
    anyOrder: bool = False
    reconnect: bool = True
    watched: int = 0
    seed: int = 1
    mark: int = field(default_factory=lambda: random.getrandbits(30))

    def __post_init__(self) -> None:
        if unknown := set(self.kinds) - set(META_KINDS):
            raise ValueError(f"unknown kind of request: {', '.join(sorted(unknown))}")


class Wrong(Exception):
    """
    A reply that cannot be correct.
    """


def token(mark: int, client: int, key: int, number: int, size: int) -> bytes:
    """
    @return: a value of at least C{size} bytes, all of which depend on all arguments.
    """
    unit = b"<%d.%d.%d.%d.%d>" % (mark, client, key, number, size)
    return (unit * (size // len(unit) + 1))[: max(size, len(unit))]


@dataclass
class Request:
    """
    A request in flight.

    @ivar keys: the numbers of the client's keys that it names, in this order.
    @ivar number: the number of the value that it stores; 0 for a delete; -1 for a read.
    @ivar tag: the opaque token that the reply to a meta command must contain.
    @ivar sent: the time when it was sent.
    @ivar early: whether its value was read by an earlier request. This is correct only if this request fails: a read
        whose connection was lost is sent again on another connection, and there sees writes that were sent after it.
    """

    kind: str
    keys: list[int]
    number: int = -1
    tag: bytes = b""
    sent: float = 0.0
    early: bool = False


class Memory:
    """
    The values that one key of one client may hold, as numbers of values; 0 for no value.

    @ivar certain: the confirmed values; several if it is not known which of them.
    @ivar doubtful: values whose requests were never confirmed, and with C{Settings.stale} all values from before: the
        key may hold them at any later time.
    """

    def __init__(self) -> None:
        self.certain = {0}
        self.doubtful: set[int] = set()

    def may(self, number: int) -> bool:
        """
        @return: whether the key may hold this value.
        """
        return number in self.certain or number in self.doubtful


class Client:
    """
    One client: it generates requests and checks the replies, without I/O.

    @ivar number: the number of the client.
    @ivar due: the requests in flight, in order.
    @ivar made: the number of requests so far.
    @ivar missed: the number of misses so far.
    @ivar ignored: the number of C{noreply} requests so far that were not executed.
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

    # Requests

    def batch(self, most: int, now: float) -> bytes:
        """
        Generate a batch of requests.

        @param most: the maximum number of requests.
        @param now: the current time.
        @return: the bytes to send.
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
                # This shows whether the set was executed.
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

    # Replies

    def received(self, data: bytes) -> list[tuple[Request, str]]:
        """
        Handle received bytes.

        @return: the requests that they answer, each with the text of its C{SERVER_ERROR}, or an empty string if the
            request was executed.
        @raise Wrong: they cannot be correct. The connection must be closed, and L{lost} be called.
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
            raise Wrong(f"unexpected bytes: {_shortened(self._buffer)}")
        return answered

    def lost(self) -> tuple[list[Request], bool]:
        """
        Handle the end of the connection.

        @return: the requests that will not be answered, and whether a part of the reply to the first one was received.
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
        Find the reply to a request in the buffer.

        @return: the position of its end, its last line, and the number of the value of each key; C{None} while it is
            incomplete.
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
            if key in hits:
                raise self._wrong(request, line, "comes twice")
            last = next(reversed(hits), key)
            if not self._settings.anyOrder and request.keys.index(key) < request.keys.index(last):
                raise self._wrong(request, line, "not in the order of the requested keys")
            hits[key] = number
            start = end + size + 2
            if request.kind == "mg":
                return start, line, hits

    def _size(self, request: Request, line: bytes) -> int | None:
        """
        Check a line of a reply.

        @return: the length of the value that follows, or C{None} if this line is the end of the reply.
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
            # Whether a miss returns the flags depends on memcached's version.
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
        Check a value.

        @return: the number of its key, and its own number.
        """
        match = _TOKEN.match(body)
        if match is None or not body.endswith(b"\r\n"):
            raise self._wrong(request, line + b"\r\n" + body, "not a token")
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
            raise self._wrong(request, line, "its effect was read by an earlier request")
        memory = self._memory[request.keys[0]]
        if request.kind in ("set", "ms"):
            self._confirm(memory, request.number)
        elif line == b"NOT_FOUND":
            self._saw(request, request.keys[0], 0)
        elif line == b"DELETED":
            if memory.certain | memory.doubtful == {0}:
                raise self._wrong(request, line, "the key held no value")
            self._confirm(memory, 0)
        else:
            for key in request.keys:
                self._saw(request, key, hits.get(key, 0))

    def _saw(self, request: Request, key: int, number: int) -> None:
        """
        Record the value that a key was found to hold.
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
            self._confirm(memory, number)
            return
        for later in self.due:
            if later.number == number and key in later.keys:
                later.early = True
                return
        held = ", ".join(map(str, sorted(memory.certain)))
        what = f"value {number}" if number else "a miss"
        raise self._wrong(request, b"", f"{what} for key {key}, whose confirmed value is {held}")

    def _confirm(self, memory: Memory, number: int) -> None:
        if self._settings.stale:
            memory.doubtful |= memory.certain
        memory.certain = {number}

    def _failed(self, request: Request) -> None:
        """
        Record that it is not known whether a request was executed.
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
