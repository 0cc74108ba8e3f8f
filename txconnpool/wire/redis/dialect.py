# -*- test-case-name: tests.wire.redis.test_dialect -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The dialect of Redis and Valkey.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Final

from txconnpool.errors import LoginFailed, LoginRefused, PoolError, ServerUnavailable, TooManyConnections
from txconnpool.wire import Command, Login
from txconnpool.wire.effects import Effects, Permissions
from txconnpool.wire.redis import answers
from txconnpool.wire.redis.announced import Place
from txconnpool.wire.redis.clientstate import DEFAULT_USER
from txconnpool.wire.redis.commands import BY_NAME, COMMANDS, LOOKUP, Use
from txconnpool.wire.redis.framing import BrokenRequest, encode, splitLine, wordsOf
from txconnpool.wire.redis.learning import OTHER
from txconnpool.wire.redis.replyreader import ReplyReader
from txconnpool.wire.redis.requestreader import RequestReader
from txconnpool.wire.redis.rules import BASE, FORBIDDEN, Flavour, Rules
from txconnpool.wire.redis.subscriptions import endedOf, groupOf, keyOf, requestFor, topicOf
from txconnpool.wire.redis.topology import ClusterReplyReader, askTopology
from txconnpool.wire.topics import Hub, Topic
from txconnpool.wire.topology import Shard

_UNPRINTABLE: Final = re.compile(r"[^ -~]+")

#: The effects that each command that is not refused has.
ORDINARY: Final[Mapping[bytes, Effects]] = {
    command.name.encode(): command.effects for command in COMMANDS if command.use is not Use.REFUSED
}

#: The commands that only close the connection of their client.
CLOSING: Final = frozenset((b"quit",))

REFUSED: Final = frozenset(command.name.encode() for command in COMMANDS if command.use is Use.REFUSED)

_VERSION: Final = re.compile(rb"(?m)^redis_version:([0-9a-z.]{1,30})\r?$").search

_AUTH, _PING, _HELLO, _SELECT, _RESET, _INFO, _ROLE = (
    BY_NAME[name] for name in ("auth", "ping", "hello", "select", "reset", "info", "role")
)


class Redis:
    """
    The dialect of one pool: an L{IDialect<txconnpool.wire.IDialect>}.
    """

    commands = (*COMMANDS, OTHER)
    stateful = True
    mergesReads = False
    opaque = False
    tooManyClients = b"-ERR max number of clients reached\r\n"
    probe: tuple[Command, bytes] = (_PING, encode([b"PING"]))
    primary: tuple[Command, bytes, bytes] = (_ROLE, encode([b"ROLE"]), b"*3\r\n$6\r\nmaster\r\n")
    #: The request that lets a node of a cluster execute the next one although its slot is still being moved there.
    asking: tuple[Command, int, bytes] = (BY_NAME["asking"], 1, encode([b"ASKING"]))

    def __init__(
        self,
        maxItemSize: int = 1 << 20,
        denied: frozenset[bytes] = frozenset(),
        allowed: frozenset[bytes] | None = None,
    ) -> None:
        """
        The parameters are those of L{limit}.
        """
        self._rules = Rules()
        self.limit(maxItemSize, denied, allowed)

    def limit(self, maxItemSize: int, denied: frozenset[bytes], allowed: frozenset[bytes] | None) -> None:
        """
        Set which requests are forwarded from now on, for existing clients too.

        @param maxItemSize: the maximum size of an argument, in bytes.
        @param denied: names of commands, and words for effects, that are refused, see
            L{txconnpool.wire.effects.Permissions}.
        @param allowed: the only ones that are not refused; C{None} for all.
        """
        self._rules.limit(maxItemSize, Permissions(ORDINARY, denied, allowed))

    @property
    def base(self) -> Flavour:
        """
        The flavour of a new client.
        """
        return self._rules.base

    def begin(self, database: int) -> None:
        """
        @param database: the database of new clients from now on.
        """
        self._rules.base = (BASE[0], database)

    def announce(self, places: Sequence[Place] | None) -> None:
        """
        Answer clients of a cluster, which see one node at each place, or at the address that they have connected to.
        """
        self._rules.announced = places

    def requestReader(self) -> RequestReader:
        """
        @return: a reader for a new client.
        """
        return RequestReader(self._rules)

    def loginReader(self, check: Callable[[Login | None], bool]) -> RequestReader:
        """
        @return: the reader for a client that must log in. It stays the reader of the client after that.
        """
        return RequestReader(self._rules, check)

    def replyReader(self) -> ReplyReader:
        """
        @return: the reader for a new connection.
        """
        return ClusterReplyReader() if self._rules.cluster else ReplyReader()

    def passLogins(self, used: bool) -> None:
        """
        @param used: whether the servers check the users and passwords of clients from now on. A server that asks for a
            login can then be used without one.
        """
        self._rules.passes = used

    def cluster(self, used: bool) -> None:
        """
        @param used: whether the servers are the nodes of a cluster from now on.
        """
        self._rules.cluster = used

    def topology(self, secure: bool) -> Generator[tuple[Command, bytes], bytes, list[Shard]]:
        """
        Ask a node for its cluster, see L{askTopology}.
        """
        return askTopology(secure)

    def handshake(self, login: Login | None, server: str) -> Generator[tuple[Command, bytes], bytes, str | None]:
        """
        Log in if there is a login, and ask whether the server can be used: it is not while it loads its data.

        @raise LoginFailed: the server rejects the user and password, or requires them and C{login} is C{None}.
        @raise TooManyConnections: the server has as many connections as it accepts.
        @raise ServerUnavailable: it answers with another error.
        """
        warning = None
        if login is not None:
            reply = yield _AUTH, encode([b"AUTH", *(word for word in login if word)])
            if reply.startswith(b"-ERR AUTH <password> called without any password configured"):
                warning = "asks for no password: upstream-auth is not used"
            elif reply != answers.OK:
                raise LoginFailed(_text(reply))
        reply = yield self.probe
        if reply.startswith(self.tooManyClients):
            raise TooManyConnections
        if self._rules.passes:
            self._rules.guarded = reply.startswith(b"-NOAUTH")
            if reply.startswith(FORBIDDEN):
                return warning
        if reply.startswith(b"-NOAUTH"):
            raise LoginFailed("the server asks for a password, and upstream-auth is not set")
        if reply != b"+PONG\r\n":
            raise ServerUnavailable(_text(reply))
        version = _VERSION((yield _INFO, encode([b"INFO", b"server"])))
        self._rules.use(version and version[1])  # an ACL may not allow the command
        return warning

    def prelude(self, flavour: Flavour) -> Sequence[tuple[Command, bytes, bytes]]:
        """
        @return: requests that make a new connection one of a flavour, with the first byte of their replies.
        """
        version, database, *others = flavour
        steps: list[tuple[Command, bytes, bytes]] = []
        if others and others != [1]:
            steps.append((_AUTH, encode([b"AUTH", *others[0]]), b"+"))
        if version != BASE[0]:
            steps.append((_HELLO, encode([b"HELLO", b"%d" % version]), b"%"))
        if database != BASE[1]:
            steps.append((_SELECT, encode([b"SELECT", b"%d" % database]), b"+"))
        if others == [1]:
            steps.append((BY_NAME["readonly"], encode([b"READONLY"]), b"+"))
        return steps

    def owner(self, flavour: Flavour) -> bytes | None:
        """
        @return: the user of the clients of a flavour, if the servers check logins; C{None} for those without one.
        """
        _, _, *login = flavour
        if not login or login == [1]:
            return None
        user: bytes = login[0][0] if len(login[0]) > 1 else DEFAULT_USER
        return user

    def unprepared(self, command: Command, reply: bytes) -> PoolError:
        """
        @return: the error for requests of clients whose flavour a server refuses to a connection. If it depends on the
            login of the clients, they get the reply of the server.
        """
        if self._rules.passes and (command is _AUTH or reply.startswith(FORBIDDEN)):
            # The server may have refused HELLO, and says so at length.
            return LoginRefused(_text(answers.NO_AUTH if reply.startswith(b"-NOAUTH") else reply))
        return ServerUnavailable(f"{command.name} failed: {_text(reply)}")

    def reading(self, flavour: Flavour) -> Flavour:
        """
        @return: the flavour of connections to replicas. Servers of which replicas read do not check logins.
        """
        return (*flavour[:2], 1)

    def hub(self) -> Hub:
        """
        @return: the channels and patterns of a new connection.
        """
        return Hub(self.isError, topicOf, groupOf, endedOf)

    def topicKey(self, topic: Topic) -> bytes | None:
        """
        @return: the channel, or C{None} if its messages come from all servers.
        """
        return keyOf(topic, self._rules.cluster)

    def topicRequest(self, adds: bool, topics: Sequence[Topic]) -> tuple[Command, bytes]:
        """
        @return: the command and the request that subscribes to channels or patterns of one kind, or ends this.
        """
        return requestFor(adds, topics)

    def reset(self, login: Login | None, server: str) -> Generator[tuple[Command, bytes], bytes, str | None]:
        """
        Make a connection that a client had for itself as good as new.

        @raise ServerUnavailable: the server does not do it. It is older than Redis 6.2.
        """
        reply = yield _RESET, encode([b"RESET"])
        if reply != b"+RESET\r\n":
            raise ServerUnavailable(_text(reply))
        yield from self.handshake(login, server)
        return None

    def closed(self, server: str, command: Command) -> None:
        """
        Do nothing: a server answers commands that it does not know with an error.
        """

    def keep(self, servers: Iterable[str]) -> None:
        """
        Do nothing: nothing is known of single servers.
        """

    def standIn(self, used: bool) -> None:
        """
        Do nothing: requests are checked with the same rules for all servers.
        """

    def error(self, kind: str, text: str) -> bytes:
        """
        @return: the error for a request that failed in the proxy.
        """
        prefix = b"-" if kind == LoginRefused.kind else b"-ERR "
        return prefix + _UNPRINTABLE.sub(" ", text)[:200].encode() + b"\r\n"

    def isError(self, reply: bytes) -> bool:
        """
        @return: whether a reply is an error.
        """
        return answers.isError(reply)

    def statistics(self, items: Iterable[tuple[str, object]]) -> bytes:
        """
        @return: names and values, as a bulk string of lines.
        """
        lines = [f"{name}:{_UNPRINTABLE.sub(' ', str(value))}\r\n" for name, value in items]
        return answers.bulk("".join(lines).encode())

    def unknownStatistics(self) -> bytes:
        """
        @return: an empty bulk string.
        """
        return answers.bulk(b"")

    def serverStatistics(self, words: tuple[bytes, ...], addresses: bool) -> bytes:
        """
        @return: an empty bulk string: clients have C{INFO}, which is forwarded.
        """
        return self.unknownStatistics()

    def mergeStatistics(self, replies: list[bytes]) -> None:
        """
        Not called: there is no request for the statistics of servers.
        """

    def describe(self, request: bytes) -> tuple[str, list[bytes]]:
        """
        Describe a request for logs.

        @param request: a request or its beginning.

        @return: the command and the keys.
        """
        try:
            words = wordsOf(request, 0) if request[:1] == b"*" else splitLine(request.split(b"\n", 1)[0].rstrip(b"\r"))
        except (BrokenRequest, ValueError, IndexError):
            words = []
        name = words[0].lower() if words else b""
        command = LOOKUP.get(name) or self._rules.learned.get(name)
        if command is not None and command.subcommands and len(words) > 1:
            command = command.subcommands.get(words[1].lower())
        if command is None or not command.accepts(len(words)):
            return "a request", []
        return command.name, command.keysOf(words)


def _text(reply: bytes) -> str:
    return _UNPRINTABLE.sub(" ", reply[:200].decode("ascii", "replace")).strip().lstrip("-")
