# -*- test-case-name: tests.wire.redis.test_requestreader -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Finds the requests of one client, checks each as Redis does, and answers those that are not for a server.

The reader keeps what Redis keeps for a connection: the version of the protocol, the database, the name, and whether the
client is in a transaction or has subscriptions. Requests that change this are answered here, or need a connection of
the client's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count as counter
from typing import Any, Final

from txconnpool.wire import ANSWER, CLOSE, LEARN, MORE, PIN, SPREAD, Command, Frame, Login
from txconnpool.wire.effects import Permissions
from txconnpool.wire.redis import answers
from txconnpool.wire.redis.announced import Place
from txconnpool.wire.redis.commands import (
    BY_NAME,
    COMMANDS,
    CONTROLLED,
    LOOKUP,
    SUBSCRIBING,
    UNSUBSCRIBING,
    RedisCommand,
    Use,
    blockingTime,
)
from txconnpool.wire.redis.engaged import abort
from txconnpool.wire.redis.framing import (
    ARGUMENTS_MAX,
    LINE_MAX,
    BrokenRequest,
    Scanner,
    Usual,
    encode,
    splitLine,
    wordsOf,
)
from txconnpool.wire.redis.framing import chosenFind as findCommand
from txconnpool.wire.redis.framing import chosenUsual as findUsual
from txconnpool.wire.redis.learning import NAME, Learned, LearnedCommand, described
from txconnpool.wire.redis.several import CROSS_SLOT, DIVIDED, SPREADS, scanned
from txconnpool.wire.redis.special import DEFAULT_USER, NOT_SHARED, SPECIAL

#: The version of the protocol and the database of a connection, and 1 if a replica executes requests on it.
Flavour = tuple[int, ...]

BASE: Final[Flavour] = (2, 0)

#: What a browser sends when a page makes it speak to Redis: the client is closed without a reply.
_FORGED: Final = frozenset((b"post", b"host:"))

#: Commands of a transaction that are executed at once.
_AT_ONCE: Final = frozenset(("exec", "discard", "multi", "watch", "quit", "reset"))

#: Commands that a subscriber may use in RESP2.
_OF_SUBSCRIBERS: Final = SUBSCRIBING | UNSUBSCRIBING | {"ping", "quit", "reset"}

#: Commands that a client may use before it has logged in.
_OF_STRANGERS: Final = frozenset(("auth", "hello", "quit", "reset"))

#: Commands that change the state that the proxy keeps for a client, so that they cannot be a part of a transaction.
_OUTSIDE: Final = frozenset(
    ("hello", "auth", "select", "asking", "readonly", "readwrite", *SUBSCRIBING, *UNSUBSCRIBING)
)

#: Commands that would concern the keys of all servers, but can be sent to one only.
ONE_SERVER: Final = frozenset(("client|tracking", "client|caching"))

_COMMAND_INFO: Final = BY_NAME["command|info"]

_SHARDED: Final = BY_NAME["ssubscribe"]

#: The beginnings of frames that say that a node sends the messages of a channel no longer.
_ENDS: Final = (b"*3\r\n$12\r\nsunsubscribe\r\n", b">3\r\n$12\r\nsunsubscribe\r\n")

_MULTI: Final = BY_NAME["multi"]
_MULTI_REQUEST: Final = encode([b"MULTI"])

#: C{_usual} of a client with a state: no command is forwarded without a further look.
_NONE: Final[dict[bytes, Usual]] = {}

APART: Final = "the keys are on several servers, and it would concern one of them"
NO_KEYS: Final = "the keys are on several servers, and the server does not say which words are keys"
DENIED: Final = "this proxy does not allow it"


class Rules:
    """
    What the readers of all clients of a pool have in common.

    @ivar itemMax: the largest argument, in bytes.
    @ivar denied: the commands that are not allowed.
    @ivar ids: yields a number for each client.
    @ivar version: the version of the server, as far as it is known.
    @ivar databases: the number of databases that clients may select.
    @ivar base: the flavour of a new client.
    @ivar announced: the nodes that clients of a cluster see, see
        L{IStatefulDialect.announce<txconnpool.wire.IStatefulDialect.announce>}.
    @ivar cluster: whether the servers are the nodes of a cluster. A channel is then that of all nodes.
    @ivar learned: the commands that the servers have described.
    """

    def __init__(self) -> None:
        self.itemMax = 1 << 20
        self.denied: set[Command] = set()
        self._usual: dict[int, dict[bytes, Usual]] = {1: {}, 2: {}}
        self.ids = counter(1)
        self.version = b"7.0.0"
        self.databases = 16
        self.base = BASE
        self.announced: Sequence[Place] | None = None
        self.cluster = False
        self.learned = Learned()
        self._permissions = Permissions({}, frozenset(), None)

    def limit(self, itemMax: int, permissions: Permissions) -> None:
        """
        @param itemMax: the largest argument, in bytes.
        @param permissions: which commands are allowed.
        """
        self.itemMax = itemMax
        self._permissions = permissions
        self._find()

    def _find(self) -> None:
        """
        Find the commands that are not allowed.
        """
        permits = self._permissions.permits
        self.denied = {
            command
            for command in (*COMMANDS, *self.learned.commands())
            if (command.use in (Use.SHARED, Use.PINNED, Use.SUBSCRIBING) or command.name in CONTROLLED)
            and not permits(command.name.encode(), command.effects)
        }
        for plain, usual in self._usual.items():
            usual.clear()
            usual.update(
                (name, (command, abs(command.arity), command.arity if command.arity > 0 else ARGUMENTS_MAX))
                for name, command in LOOKUP.items()
                if command.plain >= plain and command not in self.denied
            )

    def usual(self, plain: int) -> dict[bytes, Usual]:
        """
        @return: the commands that are forwarded without a further look, by name: those whose C{plain} is so much or
            more. The dict follows all changes.
        """
        return self._usual[plain]

    def learn(self, name: bytes, reply: bytes) -> None:
        """
        @param reply: what a server says about a command that the table lacks.
        """
        self.learned.add(name, described(reply))
        self._find()

    def use(self, version: bytes | None) -> None:
        """
        A connection was made to a server.

        @param version: its version, if it is known.
        """
        if version is None or version == self.version:
            self.learned.forgetAbsent()
        else:
            self.version = version
            self.learned.clear()
            self._find()


class RequestReader:
    """
    An L{IRequestReader<txconnpool.wire.IRequestReader>}.

    @ivar pinned: whether the client has a connection of its own because its requests need one.
    @ivar flavour: the version of the protocol, and the database.
    @ivar failure: why the server could not be asked for the command of the next request; empty: it was not asked.
    @ivar check: whether a user and password are valid; C{None}: clients need not log in.
    @ivar stranger: whether the client has to log in, or to log in again.
    @ivar pending: whether it has no session, because it has never logged in.
    @ivar name: the name that the client has given itself.
    @ivar user: the user as which it has logged in.
    @ivar inTransaction: whether it has sent C{MULTI}, and neither C{EXEC} nor C{DISCARD}.
    @ivar deferred: whether C{MULTI} is still to be sent, because the first key decides to which server.
    @ivar places: knows which keys are on one server, see L{IStatefulDialect<txconnpool.wire.IStatefulDialect>};
        C{None} if there is one server.
    @ivar queued: the number of requests of the transaction so far.
    @ivar dirty: whether the transaction fails because of an error that was answered here.
    @ivar watches: whether it watches keys.
    @ivar tracks: whether the server sends it the keys that others change.
    @ivar channels: what it is subscribed to, by the command that subscribes; C{None}: nothing.
    @ivar silent: whether it has turned replies off.
    @ivar skips: whether it gets no reply to the request that is read now.
    @ivar skipsAgain: whether that was such a request for the next one.
    @ivar after: what to do when the request that was read last is forwarded.
    """

    __slots__ = (
        "_scanner",
        "_usual",
        "after",
        "channels",
        "check",
        "deferred",
        "dirty",
        "failure",
        "flavour",
        "id",
        "inTransaction",
        "name",
        "pending",
        "pinned",
        "places",
        "queued",
        "rules",
        "silent",
        "skips",
        "skipsAgain",
        "stranger",
        "tracks",
        "user",
        "watches",
    )  # fmt: skip

    def __init__(self, rules: Rules, check: Callable[[Login | None], bool] | None = None) -> None:
        """
        @param check: whether a user and password are valid. With it, the client has to log in.
        """
        self.rules = rules
        self.check = check
        self.stranger = self.pending = check is not None
        self._scanner = Scanner(rules.itemMax, self.stranger)
        self.id = next(rules.ids)
        self.flavour = rules.base
        self.name = self.failure = b""
        self.user = DEFAULT_USER
        self.pinned = False
        self.places: Any = None
        self.inTransaction = self.deferred = self.dirty = self.watches = self.tracks = False
        self.queued = 0
        self.channels: dict[str, dict[bytes, None]] | None = None
        self.silent = self.skips = self.skipsAgain = False
        self.after: Callable[[], None] | None = None
        self._usual = _NONE  # the commands that are forwarded without a further look
        self.settle()

    # -- Finding requests

    def read(self, data: bytes, pos: int, room: int) -> Frame:
        """
        Find the next request.
        """
        scanner, itemMax = self._scanner, self.rules.itemMax
        if self._usual and not scanner.active:
            frame = findUsual(data, pos, itemMax, self._usual)
            if frame is not None:
                return frame
        found = None if scanner.active or self.stranger else findCommand(data, pos, itemMax)
        if found is None:
            return self._carefully(data, pos)
        return self._request(data, pos, found[0], None)

    def _carefully(self, data: bytes, pos: int) -> Frame:
        """
        Find a request that is incomplete, inline, or invalid.
        """
        scanner = self._scanner
        scanner.bulkMax = self.rules.itemMax
        scanner.stranger = self.stranger
        try:
            if data[pos] != 42:
                return self._inline(data, pos)
            end = scanner.scan(data, pos)
        except BrokenRequest as error:
            return CLOSE, len(data), 0, self.mine(answers.error(f"ERR {error}"))
        if not end:
            return MORE, pos, 0, scanner.needed
        if scanner.count <= 0:
            return ANSWER, end, 0, b""
        return self._request(data, pos, end, None)

    def _inline(self, data: bytes, pos: int) -> Frame:
        end = data.find(b"\n", pos)
        if end < 0:
            if len(data) - pos > LINE_MAX:
                raise BrokenRequest("Protocol error: too big inline request")
            return MORE, pos, 0, 0
        words = splitLine(data[pos:end].removesuffix(b"\r"))
        if not words:
            return ANSWER, end + 1, 0, b""
        what, end, count, payload = self._request(data, pos, end + 1, words)
        if count and payload is None:
            payload = encode(words)
        return what, end, count, payload

    def forgetScan(self) -> None:
        """
        Scan an incomplete request from its beginning the next time, because it is not the first one then.
        """
        self._scanner.active = False

    # -- Checking requests

    def _request(self, data: bytes, pos: int, end: int, words: list[bytes] | None) -> Frame:
        """
        Check a complete request.
        """
        words = words or wordsOf(data, pos)
        name = words[0].lower()
        if name in _FORGED:
            return CLOSE, len(data), 0, b""
        command = LOOKUP.get(name) or self.rules.learned.get(name)
        if command is None:
            return self._unknown(pos, end, name, words)
        if command.subcommands and len(words) > 1:
            command = command.subcommands.get(words[1].lower())
            if command is None:
                return self.reject(end, answers.unknownSubcommand(words))
        if not command.accepts(len(words)):
            return self.reject(end, answers.wrongArity(command.name), command)
        if self.stranger and command.name not in _OF_STRANGERS:
            return self.reject(end, answers.NO_AUTH)
        if command in self.rules.denied:
            return self.reject(end, answers.refused(command.name, DENIED))
        if command.use is Use.REFUSED:
            return self.reject(end, answers.refused(command.name, NOT_SHARED))
        if self.flavour[0] == 2 and self.channels is not None and command.name not in _OF_SUBSCRIBERS:
            return self.reject(end, answers.notInSubscription(command.name), command)
        if self.places is not None:
            frame = self._place(command, words, end)
            if frame is not None:
                return frame
        if self.inTransaction and command.name not in _AT_ONCE:
            if command.name in _OUTSIDE or command.name.startswith(("client|", "cluster|")):
                why = "the proxy cannot make it a part of a transaction"
                return self.reject(end, answers.refused(command.name, why))
            if self.deferred and not self.pinned:
                return PIN, end, 0, (command, data[pos:end])
            return self.forward(command, end)
        special = SPECIAL.get(command.name)
        if special is not None:
            return special(self, command, words, data, pos, end)
        if command.mayBlock:
            if isinstance(command, LearnedCommand) or blockingTime(command.name, words) is not None:
                return self.own(command, data, pos, end)
            command = command.unblocked
        return self.forward(command, end)

    def _unknown(self, pos: int, end: int, name: bytes, words: list[bytes]) -> Frame:
        """
        Answer a request whose command is not known, or ask the server for it before.
        """
        rules = self.rules
        if self.failure:
            reply, self.failure = self.failure, b""
            return self.reject(end, reply)
        if self.stranger or not NAME(name) or name in rules.learned:
            return self.reject(end, answers.unknownCommand(words))

        def learn(reply: bytes) -> None:
            rules.learn(name, reply)

        def failed(reply: bytes) -> None:
            self.failure = reply

        return LEARN, pos, 0, (_COMMAND_INFO, encode([b"COMMAND", b"INFO", name]), learn, failed)

    # -- Several servers by key

    def place(self, places: Any) -> None:
        """
        @param places: see C{places}.
        """
        self.places = places
        self.settle()

    def _place(self, command: RedisCommand, words: list[bytes], end: int) -> Frame | None:
        """
        Find out whether one server can get a request.

        @return: C{None} if it can; else what is done instead.
        """
        name, hidden = command.name, self.silent or self.skips
        bound = self.pinned or self.inTransaction
        spread = SPREADS.get((name, hidden))
        if command.vague:
            return self.reject(end, answers.refused(name, NO_KEYS))
        if name in ONE_SERVER or (bound and (name == "scan" or spread is not None)):
            return self.reject(end, answers.refused(name, APART))
        self.after = None
        if name == "scan":
            frame = scanned(words, end, self.places.servers, hidden)
            return frame or self.answer(end, answers.error("ERR invalid cursor"))
        if spread is not None:
            return SPREAD, end, 0, (spread, encode(words), None)
        # The nodes of a cluster pass on messages to each other; other servers get those of their channels.
        keys = words[1:2] if name == "publish" and not self.rules.cluster else command.keysOf(words)
        if len(keys) < (1 if self.pinned else 2) or self.places.together(keys):
            return None
        divided = None if bound else DIVIDED.get((name, hidden))
        if divided is None:
            return self.reject(end, CROSS_SLOT)
        return (divided, end, 1, None) if divided.accepts(len(words)) else self.reject(end, answers.wrongArity(name))

    def opening(self) -> Sequence[tuple[Command, bytes, bytes]]:
        """
        @return: the requests to send first on a connection of the client's own, with the beginnings of their replies.
        """
        if not self.deferred:
            return ()
        self.deferred = False
        return ((_MULTI, _MULTI_REQUEST, answers.OK),)

    def refused(self) -> None:
        """
        The client gets no connection of its own for the request that was read last.
        """
        self.dirty = self.inTransaction

    def reject(self, end: int, reply: bytes, command: RedisCommand | None = None) -> Frame:
        """
        Answer a request with an error. A transaction fails because of it.
        """
        if command is not None and command.name == "exec":
            return abort(self, end, b"-EXECABORT Transaction discarded because of: " + reply.removeprefix(b"-ERR "))
        if self.inTransaction:
            self.dirty = True
        return self.answer(end, reply)

    def answer(self, end: int, reply: bytes) -> Frame:
        """
        Answer a request.
        """
        return ANSWER, end, 0, self.mine(reply)

    def mine(self, reply: bytes) -> bytes:
        """
        @return: the reply, or nothing if the client gets none.
        """
        return b"" if self.silent or self.skips else reply

    def forward(self, command: RedisCommand, end: int, payload: bytes | None = None) -> Frame:
        """
        Forward a request.

        @param payload: the request, if it is not the one that was read.
        """
        self.after = None
        isSilent = (self.silent or self.skips) and not command.confirms  # confirmations are pushes
        return command.silenced if isSilent else command, end, 1, payload

    def own(
        self,
        command: RedisCommand,
        data: bytes,
        pos: int,
        end: int,
        after: Callable[[], None] | None = None,
        payload: bytes | None = None,
    ) -> Frame:
        """
        Forward a request on a connection of the client's own.

        @param after: what to do when it was forwarded.
        """
        if not self.pinned:
            return PIN, end, 0, (command, data[pos:end])
        frame = self.forward(command, end, payload)
        self.after = after
        return frame

    def forwarded(self, command: Command) -> None:
        """
        Unset C{pinned} after the last request that needs the connection.
        """
        after, self.after = self.after, None
        if after is not None:
            after()
        elif self.inTransaction:
            self.queued += 1
        self._settlePin()

    def ends(self, frame: bytes) -> bool:
        """
        @return: whether a frame that no request asked for says that a node sends the messages of a channel no longer,
            because the slot of the channel has got another node.
        """
        return frame.startswith(_ENDS)

    def renewal(self) -> tuple[Command, bytes, bytes] | None:
        """
        @return: the request that subscribes to all channels again, and the beginning of its reply; C{None} if this
            cannot be done with one request, or the client needs its connection for anything else too.
        """
        channels = self._onlySharded()
        if not channels or not self.places.together(channels):
            return None
        return _SHARDED, encode([b"SSUBSCRIBE", *channels]), b"*" if self.flavour[0] == 2 else b">"

    def renews(self, command: Command, request: bytes) -> bool:
        """
        @return: whether the client needs its connection only for a request to subscribe, which was forwarded.
        """
        return command is _SHARDED and set(self._onlySharded()) == set(wordsOf(request, 0)[1:])

    def _onlySharded(self) -> list[bytes]:
        """
        @return: the sharded channels, if the client needs its connection for nothing else.
        """
        needed = self.inTransaction or self.watches or self.tracks
        return [] if needed else list((self.channels or {}).get(_SHARDED.name, ()))

    def disengage(self) -> Callable[[], None]:
        """
        The client is subscribed to no sharded channels any more.

        @return: called when it is subscribed again to those of before.
        """
        sharded = (self.channels or {}).get(_SHARDED.name, {})

        def engage(sharded: dict[bytes, None] = sharded) -> None:
            others = {kind: its for kind, its in (self.channels or {}).items() if its and kind != _SHARDED.name}
            self.channels = ({**others, _SHARDED.name: sharded} if sharded else others) or None
            self._settlePin()

        engage({})
        return engage

    def _settlePin(self) -> None:
        """
        The state has changed: find out whether the client needs a connection of its own.
        """
        self.settle()
        self.pinned = self.inTransaction or self.watches or self.tracks or self.subscribesAlone

    @property
    def listens(self) -> bool:
        """
        Whether the client is subscribed to anything.
        """
        return self.channels is not None

    @property
    def subscribesAlone(self) -> bool:
        """
        Whether the client needs a connection of its own for its subscriptions, because these follow a slot.
        """
        channels = self.channels
        return channels is not None and self.rules.cluster and bool(channels.get(_SHARDED.name))

    def shares(self, kind: str) -> bool:
        """
        @param kind: the command that subscribes to such channels.

        @return: whether subscribers of such channels share connections. Those of sharded channels in a cluster follow
            the slot of these, each by itself.
        """
        return kind != _SHARDED.name or not self.rules.cluster

    @property
    def shared(self) -> list[str]:
        """
        The kinds of subscriptions for which the client shares connections with others.
        """
        return [kind for kind, its in (self.channels or {}).items() if its and self.shares(kind)]

    def settle(self) -> None:
        """
        The state has changed: find out whether plain commands need a further look.
        """
        if (
            self.stranger
            or self.inTransaction
            or self.silent
            or self.skips
            or (self.channels is not None and self.flavour[0] == 2)
        ):
            self._usual = _NONE
        elif self.places is None:
            self._usual = self.rules.usual(1)
        else:  # keys of a client with a connection of its own have to be those of its server
            alone = self.watches or self.tracks or self.subscribesAlone
            self._usual = _NONE if alone else self.rules.usual(2)

    def switched(self, flavour: Flavour) -> None:
        """
        The client uses connections of another flavour from now on, and has none of its own.
        """
        self.flavour = flavour
        self.inTransaction = self.deferred = self.dirty = self.watches = self.tracks = False
        if self.rules.cluster:
            self.channels = None
        self.settle()
        self.pinned = False
