# -*- test-case-name: tests.redis.memory.test_server -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The connections of an embedded Redis: logins, transactions, subscriptions, scripts, and clients that wait.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha1
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

# The modules of the commands put them into the table.
from txconnpool.redis.memory import hashes, keys, lists, sets, sortedsets, strings  # noqa: F401
from txconnpool.redis.memory.data import (
    COMMANDS,
    NO_ARRAY,
    NOTHING,
    OK,
    Data,
    Database,
    ReplyError,
    Status,
    Wait,
    encoded,
    integer,
    pattern,
)
from txconnpool.redis.memory.scripting import addLocks, run
from txconnpool.wire.redis import answers
from txconnpool.wire.redis.commands import LOOKUP, RedisCommand
from txconnpool.wire.redis.framing import BrokenRequest, Scanner, splitLine, wordsOf

#: The greatest length of a request.
_REQUEST_MAX: Final = 1 << 26

#: What a client that has subscribed may send in RESP2.
_OF_SUBSCRIBERS: Final = frozenset(
    ("ping", "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe", "quit", "reset")
)


class RedisConnection(Protocol):
    """
    The server's end of one connection.

    @ivar version: the version of RESP.
    @ivar channels: the channels that the client has subscribed to; C{patterns} are their patterns.
    """

    transport: Any

    def __init__(self, data: Data, reactor: IReactorTime) -> None:
        self.data = data
        self.reactor = reactor
        self._buffer = b""
        self._scanner = Scanner(_REQUEST_MAX)
        self._wait: Wait | None = None
        self._timer: IDelayedCall | None = None
        self._clear()

    def _clear(self) -> None:
        self.version = 2
        self.database = 0
        self.name = b""
        self.authenticated = not self.data.passwords
        self.channels: dict[bytes, None] = {}
        self.patterns: dict[bytes, None] = {}
        self._queue: list[tuple[RedisCommand, list[bytes]]] | None = None
        self._rejected = False
        self._watched: dict[tuple[int, bytes], int] = {}

    @property
    def db(self) -> Database:
        """
        The database that the client uses.
        """
        return self.data.databases[self.database]

    # -- The connection

    def connectionMade(self) -> None:
        """
        Count the client.
        """
        self.data.connections.append(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Forget the client, also if it waits.
        """
        self._stopWaiting()
        self._buffer = b""
        self.data.connections.remove(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Execute requests, unless the client waits for one.
        """
        self._buffer += data
        self._read()

    def _read(self) -> None:
        while self._buffer and self._wait is None:
            try:
                words = self._next()
            except BrokenRequest as error:
                self.transport.write(answers.error(f"ERR {error}"))
                self.transport.loseConnection()
                self._buffer = b""
                return
            if words is None:
                return
            if words:
                self._handle(words)

    def _next(self) -> list[bytes] | None:
        """
        @return: the words of the next request; C{None} if it is incomplete.
        """
        data = self._buffer
        if data[:1] == b"*":
            end = self._scanner.scan(data, 0)
            words = wordsOf(data, 0) if end else []
        else:
            end = data.find(b"\n") + 1
            words = splitLine(data[:end].rstrip(b"\r\n"))
        self._buffer = data[end:]
        return words if end else None

    def _handle(self, words: list[bytes]) -> None:
        value = self._answer(words)
        if isinstance(value, Wait):
            self._wait = value
            self.data.blocked.append(self)
            if value.timeout:
                self._timer = self.reactor.callLater(value.timeout, self._unblock, value.nothing)
        elif value is not NOTHING:
            self._write(value)
        self.data.serve()

    def _write(self, value: Any) -> None:
        self.transport.write(value.data if isinstance(value, _Encoded) else encoded(value, self.version))

    # -- Waiting

    def attempt(self) -> None:
        """
        Try again to execute the request that the client waits for.
        """
        assert self._wait is not None
        try:
            value = self._wait.attempt()
        except ReplyError:
            return  # a key has another type now
        if value is not NOTHING:
            self._unblock(value)

    def _unblock(self, value: Any) -> None:
        self._stopWaiting()
        self._write(value)
        self._read()

    def _stopWaiting(self) -> None:
        if self._wait is not None:
            self._wait = None
            self.data.blocked.remove(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    # -- Requests

    def _answer(self, words: list[bytes]) -> Any:
        try:
            command = self._find(words)
        except ReplyError as error:
            self._rejected = self._queue is not None
            return error
        try:
            return self._execute(command, words)
        except ReplyError as error:
            return error

    def _find(self, words: list[bytes]) -> RedisCommand:
        """
        @raise ReplyError: there is no such command, or the request has the wrong number of words.
        """
        command: RedisCommand | None = LOOKUP.get(words[0].lower())
        if command is None:
            raise _said(answers.unknownCommand(words))
        if command.subcommands and len(words) > 1:
            command = command.subcommands.get(words[1].lower())
            if command is None:
                raise _said(answers.unknownSubcommand(words))
        if not command.accepts(len(words)):
            raise _said(answers.wrongArity(command.name))
        if not self.authenticated and command.name not in ("auth", "hello", "quit", "reset"):
            raise _said(answers.NO_AUTH)
        if command.name not in COMMANDS and command.name not in CONNECTION:
            raise _said(answers.refused(command.name, "the fake Redis does not have it"))
        return command

    def _execute(self, command: RedisCommand, words: list[bytes]) -> Any:
        name = command.name
        if self._queue is not None and name not in ("exec", "discard", "watch", "multi", "quit", "reset"):
            self._queue.append((command, words))
            return Status(b"QUEUED")
        if self.version == 2 and (self.channels or self.patterns) and name not in _OF_SUBSCRIBERS:
            raise _said(answers.notInSubscription(name))
        own = CONNECTION.get(name)
        arguments = words[2 if "|" in name else 1 :]
        return COMMANDS[name](self.db, *arguments) if own is None else own(self, *arguments)

    # -- Subscriptions

    def publish(self, channel: bytes, message: bytes) -> int:
        """
        Send a message, if the client has subscribed to its channel.

        @return: how often it was sent.
        """
        frames = [[b"message", channel, message]] if channel in self.channels else []
        frames += [[b"pmessage", each, channel, message] for each in self.patterns if pattern(each).fullmatch(channel)]
        for frame in frames:
            self.push(frame)
        return len(frames)

    def push(self, frame: list[Any]) -> None:
        """
        Send a frame that no request asked for.
        """
        data = encoded(frame, self.version)
        self.transport.write(b">" + data[1:] if self.version == 3 else data)


class _Encoded:
    """
    A reply in bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data


def _said(reply: bytes) -> ReplyError:
    """
    @return: the error of an error reply.
    """
    return ReplyError(reply[1:-2].decode("utf-8", "surrogateescape"))


#: The commands that concern a connection: functions of it and of the arguments.
CONNECTION: Final[dict[str, Callable[..., Any]]] = {}


def _command(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        CONNECTION.update(dict.fromkeys(names, function))
        return function

    return register


@_command("ping")
def _ping(self: RedisConnection, *words: bytes) -> Any:
    if len(words) > 1:
        raise _said(answers.wrongArity("ping"))
    if self.version == 2 and (self.channels or self.patterns):
        return [b"pong", *(words or [b""])]
    return words[0] if words else Status(b"PONG")


@_command("quit")
def _quit(self: RedisConnection, *words: bytes) -> Any:
    self.transport.write(encoded(OK, self.version))
    self.transport.loseConnection()
    return NOTHING


@_command("reset")
def _reset(self: RedisConnection) -> Any:
    self._clear()
    return Status(b"RESET")


@_command("select")
def _select(self: RedisConnection, number: bytes) -> Any:
    database = integer(number)
    if not 0 <= database < 16:
        raise ReplyError("ERR DB index is out of range")
    self.database = database
    return OK


def _login(self: RedisConnection, user: bytes, password: bytes) -> None:
    known = self.data.passwords.get(user.decode("utf-8", "replace"))
    if self.data.passwords and (known is None or known.encode() != password):
        raise ReplyError("WRONGPASS invalid username-password pair or user is disabled.")
    self.authenticated = True


@_command("auth")
def _auth(self: RedisConnection, *words: bytes) -> Any:
    if len(words) > 2:
        raise _said(answers.SYNTAX)
    if len(words) == 1 and not self.data.passwords:
        raise ReplyError(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your "
            "configuration is correct?"
        )
    _login(self, *(words if len(words) == 2 else (b"default", *words)))
    return OK


@_command("hello")
def _hello(self: RedisConnection, *words: bytes) -> Any:
    rest = list(words)
    version = self.version
    if rest:
        version = integer(rest.pop(0), "ERR Protocol version is not an integer or out of range")
        if version not in (2, 3):
            raise ReplyError("NOPROTO unsupported protocol version")
    name = None
    while rest:
        option = rest.pop(0).upper()
        if option == b"AUTH" and len(rest) >= 2:
            _login(self, rest.pop(0), rest.pop(0))
        elif option == b"SETNAME" and rest:
            name = rest.pop(0)
        else:
            raise ReplyError(f"ERR Syntax error in HELLO option '{option.decode('latin-1').lower()}'")
    if not self.authenticated:
        raise ReplyError(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH "
            "<user> <pass> option can be used to authenticate the client and select the RESP protocol version at the "
            "same time"
        )
    self.version = version
    self.name = self.name if name is None else name
    return {b"server": b"redis", b"version": b"7.0.15", b"proto": version, b"id": _id(self), b"mode": b"standalone",
            b"role": b"master", b"modules": []}  # fmt: skip


@_command("client|id")
def _id(self: RedisConnection) -> Any:
    return self.data.connections.index(self) + 1


@_command("client|setname")
def _setname(self: RedisConnection, name: bytes) -> Any:
    self.name = name
    return OK


@_command("client|getname")
def _getname(self: RedisConnection) -> Any:
    return self.name or None


# -- Transactions


@_command("multi")
def _multi(self: RedisConnection) -> Any:
    if self._queue is not None:
        raise ReplyError("ERR MULTI calls can not be nested")
    self._queue, self._rejected = [], False
    return OK


@_command("discard")
def _discard(self: RedisConnection) -> Any:
    if self._queue is None:
        raise ReplyError("ERR DISCARD without MULTI")
    self._queue, self._rejected, self._watched = None, False, {}
    return OK


@_command("exec")
def _exec(self: RedisConnection) -> Any:
    queue = self._queue
    if queue is None:
        raise ReplyError("ERR EXEC without MULTI")
    rejected, watched = self._rejected, self._watched
    self._queue, self._rejected, self._watched = None, False, {}
    if rejected:
        raise _said(answers.EXEC_ABORT)
    for (database, key), version in watched.items():
        db = self.data.databases[database]
        db.look(key)
        if db.versions[key] != version:
            return NO_ARRAY
    replies = []
    for command, words in queue:
        try:
            value = self._execute(command, words)
        except ReplyError as error:
            value = error
        value = value.nothing if isinstance(value, Wait) else value
        replies.append(value.data if isinstance(value, _Encoded) else encoded(value, self.version))
    return _Encoded(b"*%d\r\n%b" % (len(replies), b"".join(replies)))


@_command("watch")
def _watch(self: RedisConnection, *names: bytes) -> Any:
    if self._queue is not None:
        raise ReplyError("ERR WATCH inside MULTI is not allowed")
    for key in names:
        self.db.look(key)
        self._watched.setdefault((self.database, key), self.db.versions[key])
    return OK


@_command("unwatch")
def _unwatch(self: RedisConnection) -> Any:
    self._watched = {}
    return OK


# -- Subscriptions


def _confirmed(self: RedisConnection, kind: bytes, names: list[Any], known: dict[bytes, None], add: bool) -> Any:
    for name in names:
        if add:
            known[name] = None
        else:
            known.pop(name, None)
        self.push([kind, name, len(self.channels) + len(self.patterns)])
    return NOTHING


@_command("subscribe")
def _subscribe(self: RedisConnection, *names: bytes) -> Any:
    return _confirmed(self, b"subscribe", list(names), self.channels, True)


@_command("psubscribe")
def _psubscribe(self: RedisConnection, *names: bytes) -> Any:
    return _confirmed(self, b"psubscribe", list(names), self.patterns, True)


@_command("unsubscribe")
def _unsubscribe(self: RedisConnection, *names: bytes) -> Any:
    return _confirmed(self, b"unsubscribe", list(names) or list(self.channels) or [None], self.channels, False)


@_command("punsubscribe")
def _punsubscribe(self: RedisConnection, *names: bytes) -> Any:
    return _confirmed(self, b"punsubscribe", list(names) or list(self.patterns) or [None], self.patterns, False)


# -- Scripts


@_command("eval", "eval_ro")
def _eval(self: RedisConnection, text: bytes, *words: bytes) -> Any:
    return run(self.db, _load(self, text), words)


@_command("evalsha", "evalsha_ro")
def _evalsha(self: RedisConnection, sha: bytes, *words: bytes) -> Any:
    if sha.lower() not in self.data.known:
        raise ReplyError("NOSCRIPT No matching script. Please use EVAL.")
    return run(self.db, sha.lower(), words)


@_command("script|load")
def _load(self: RedisConnection, text: bytes) -> Any:
    sha = sha1(text, usedforsecurity=False).hexdigest().encode()
    self.data.known.add(sha)
    return sha


@_command("script|exists")
def _scriptExists(self: RedisConnection, *shas: bytes) -> Any:
    return [int(sha.lower() in self.data.known) for sha in shas]


@_command("script|flush")
def _scriptFlush(self: RedisConnection, *words: bytes) -> Any:
    self.data.known.clear()
    return OK


class RedisFactory(Factory):
    """
    Builds the server's ends of connections.
    """

    noisy = False

    def __init__(self, data: Data, reactor: IReactorTime) -> None:
        """
        @param reactor: ends the waiting of clients.
        """
        self._data = data
        self._reactor = reactor
        addLocks(data)

    def buildProtocol(self, addr: object) -> RedisConnection:
        """
        @return: a new connection.
        """
        return RedisConnection(self._data, self._reactor)
