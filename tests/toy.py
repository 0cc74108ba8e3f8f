# Copyright txconnpool contributors. See LICENSE.
"""
A dialect for a toy protocol, and its server: the example in C{txconnpool/README.rst}.

Requests and replies are netstrings. The reply to C{get KEY} and to C{add KEY NUMBER} is a number. From C{lock} to
C{unlock} the client needs a connection of its own. After C{watch KEY} the server sends C{!KEY NUMBER} whenever the
number changes, without a request. This needs a connection of its own too, until C{unwatch}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from typing import Any

from twisted.internet.protocol import Factory
from twisted.protocols.basic import NetstringReceiver

from txconnpool.errors import WireError
from txconnpool.wire import ANSWER, BROADCAST, CLOSE, MORE, PIN, Command, Frame, Login
from txconnpool.wire.effects import ADMINISTERS, DELETES, HARMLESS, READS, WRITES, Permissions

_HEAD = re.compile(rb"(0|[1-9][0-9]{0,5}):").match


def netstring(payload: bytes) -> bytes:
    """
    @return: the frame of a payload.
    """
    return b"%d:%b," % (len(payload), payload)


def unframe(data: bytes, pos: int) -> tuple[int, bytes]:
    """
    @return: the end of the frame at C{pos}, and its payload; 0 if the frame is incomplete.

    @raise WireError: the bytes are not a frame.
    """
    head = _HEAD(data, pos)
    if head is None:
        if data[pos:].isdigit() and len(data) - pos <= 6:
            return 0, b""
        raise WireError("not a netstring")
    end = head.end() + int(head[1]) + 1
    if end > len(data):
        return 0, b""
    if data[end - 1 : end] != b",":
        raise WireError("a netstring without its end")
    return end, data[head.end() : end - 1]


class ToyCommand(Command):
    """
    A command of the toy protocol.
    """

    def key(self, data: bytes, pos: int) -> bytes | None:
        """
        @return: the second word, if there is one.
        """
        words = unframe(data, pos)[1].split(b" ")
        return words[1] if len(words) > 1 else None

    def join(self, replies: Any) -> bytes:
        """
        @return: the first reply.
        """
        first: bytes = replies[0]
        return first


_EFFECTS = {
    "get": READS,
    "add": WRITES,
    "reset": DELETES | ADMINISTERS,
    "lock": HARMLESS,
    "unlock": HARMLESS,
    "watch": READS,
    "unwatch": HARMLESS,
}
COMMANDS = tuple(
    ToyCommand(name, index, idempotent=name == "get", effects=effects)
    for index, (name, effects) in enumerate(_EFFECTS.items())
)
GET, ADD, RESET, LOCK, UNLOCK, WATCH, UNWATCH = COMMANDS
_BY_NAME = {command.name.encode(): command for command in COMMANDS}


class ToyRequestReader:
    """
    Finds the requests of one client. Its state is whether the client has a connection of its own, and why.
    """

    pinned = listens = False

    def __init__(self, refused: set[Command]) -> None:
        self._refused = refused
        self._needs: set[Command] = set()  # the commands because of which it has one

    def read(self, data: bytes, pos: int, room: int) -> Frame:
        """
        Find the next request.
        """
        try:
            end, payload = unframe(data, pos)
        except WireError as error:
            return CLOSE, len(data), 0, netstring(b"-" + str(error).encode())
        if not end:
            return MORE, pos, 0, len(data) - pos + 1
        command = _BY_NAME.get(payload.split(b" ", 1)[0])
        if command is None:
            return ANSWER, end, 0, netstring(b"-unknown command")
        if command in self._refused:
            return ANSWER, end, 0, netstring(b"-not allowed")
        if command is RESET:
            return BROADCAST, end, 0, (command, data[pos:end])
        if command in (LOCK, WATCH) and not self.pinned:
            return PIN, end, 0, (command, data[pos:end])
        return command, end, 1, None

    def forwarded(self, command: Command) -> None:
        """
        Unset C{pinned} after the C{unlock} or C{unwatch} that ends the last C{lock} or C{watch}.
        """
        if command in (LOCK, WATCH):
            self._needs.add(command)
        elif command in (UNLOCK, UNWATCH):
            self._needs.discard(LOCK if command is UNLOCK else WATCH)
        self.pinned = bool(self._needs)


class ToyReplyReader:
    """
    Finds the replies on one connection. Each is passed on when it is complete.
    """

    left = held = 0
    begun = False
    pushes = b"0123456789"

    def read(
        self, data: bytes, pos: int, command: Command, count: int, request: Any, counters: Any
    ) -> tuple[int, int, bytes | None]:
        """
        Find the next reply.
        """
        end, payload = unframe(data, pos)
        self.left = 0 if end else count
        counters.failed[command.index] += payload.startswith(b"-")
        return end or pos, 1 if end else 0, None

    def discard(self) -> None:
        """
        Not called: no reply is held back.
        """

    def push(self, data: bytes, pos: int, command: Any, request: Any) -> int:
        """
        Find a frame that begins with an exclamation mark.
        """
        end, payload = unframe(data, pos)
        if not end:
            return -1
        return end if payload.startswith(b"!") else 0


class Toy:
    """
    The dialect of the toy protocol.
    """

    commands = COMMANDS
    stateful = False
    mergesReads = False
    opaque = False
    tooManyClients = netstring(b"-too many clients")
    probe = GET, netstring(b"get alive")

    def __init__(
        self,
        maxItemSize: int = 1 << 20,
        denied: frozenset[bytes] = frozenset(),
        allowed: frozenset[bytes] | None = None,
    ) -> None:
        self.refused: set[Command] = set()
        self.limit(maxItemSize, denied, allowed)

    def limit(self, maxItemSize: int, denied: frozenset[bytes], allowed: frozenset[bytes] | None) -> None:
        """
        Refuse the commands that are denied, or not allowed. Frames have at most 999,999 bytes anyway.
        """
        permissions = Permissions({name: command.effects for name, command in _BY_NAME.items()}, denied, allowed)
        self.refused.clear()
        self.refused.update(
            command for name, command in _BY_NAME.items() if not permissions.permits(name, command.effects)
        )

    def requestReader(self) -> ToyRequestReader:
        """
        @return: a new reader, since it has the state of a client.
        """
        return ToyRequestReader(self.refused)

    def loginReader(self, check: Callable[[Login | None], bool]) -> ToyRequestReader:
        """
        Not called: the toy protocol has no login.
        """
        raise NotImplementedError("the toy protocol has no login")

    def replyReader(self) -> ToyReplyReader:
        """
        @return: a reader for a new connection.
        """
        return ToyReplyReader()

    def handshake(self, login: Login | None, server: str) -> Generator[tuple[Command, bytes], bytes, str | None]:
        """
        Check that the server answers.
        """
        yield self.probe
        return None

    def closed(self, server: str, command: Command) -> None:
        """
        Do nothing.
        """

    def keep(self, servers: Iterable[str]) -> None:
        """
        Do nothing.
        """

    def standIn(self, used: bool) -> None:
        """
        Do nothing.
        """

    def error(self, kind: str, text: str) -> bytes:
        """
        @return: an error, which begins with a minus sign.
        """
        return netstring(b"-" + text.encode())

    def isError(self, reply: bytes) -> bool:
        """
        @return: whether a reply begins with a minus sign.
        """
        return reply.partition(b":")[2].startswith(b"-")

    def describe(self, request: bytes) -> tuple[str, list[bytes]]:
        """
        @return: the name and the key.
        """
        name, *words = request.partition(b":")[2].rstrip(b",").split(b" ")
        return name.decode("ascii", "replace"), words[:1]

    def statistics(self, items: Iterable[tuple[str, object]]) -> bytes:
        """
        Not called: the toy protocol has no statistics.
        """
        return netstring(repr(dict(items)).encode())

    def unknownStatistics(self) -> bytes:
        """
        Not called: the toy protocol has no statistics.
        """
        return netstring(b"-no statistics")

    def serverStatistics(self, words: tuple[bytes, ...], addresses: bool) -> bytes:
        """
        Not called: the toy protocol has no statistics.
        """
        return self.unknownStatistics()

    def mergeStatistics(self, replies: list[bytes]) -> None:
        """
        Not called: the toy protocol has no statistics.
        """


class ToyServer(NetstringReceiver):
    """
    The server's end of one connection.
    """

    factory: ToyServerFactory

    def __init__(self) -> None:
        self.locked = False
        self.watched: set[bytes] = set()

    def connectionMade(self) -> None:
        """
        Add this connection to those of the server.
        """
        self.factory.connections.append(self)

    def connectionLost(self, reason: Any = None) -> None:
        """
        Remove this connection from those of the server.
        """
        self.factory.connections.remove(self)

    def stringReceived(self, string: bytes) -> None:
        """
        Execute a request.
        """
        name, *words = string.split(b" ")
        self.factory.executed.append(string)
        numbers = self.factory.numbers
        reply = b"ok"
        if name == b"get":
            reply = b"%d" % numbers.get(words[0], 0)
        elif name == b"add":
            numbers[words[0]] = numbers.get(words[0], 0) + int(words[1])
            reply = b"%d" % numbers[words[0]]
        elif name == b"reset":
            numbers.clear()
        elif name in (b"lock", b"unlock"):
            self.locked = name == b"lock"
        elif name == b"watch":
            self.watched.add(words[0])
        elif name == b"unwatch":
            self.watched.clear()
        self.sendString(reply)
        if name == b"add":
            for each in self.factory.connections:
                if words[0] in each.watched:
                    each.sendString(b"!%b %d" % (words[0], numbers[words[0]]))


class ToyServerFactory(Factory):
    """
    A server.

    @ivar numbers: the stored numbers.
    @ivar executed: the requests that were executed.
    """

    protocol = ToyServer  # type: ignore[assignment]  # Factory's is of any protocol
    noisy = False

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}
        self.executed: list[bytes] = []
        self.connections: list[ToyServer] = []
