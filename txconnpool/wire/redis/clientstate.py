# -*- test-case-name: tests.wire.redis.test_requestreader -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What Redis keeps for a connection: the version of the protocol, the database, the name and the user of a client, and
whether it is in a transaction or has subscriptions. And how its requests are answered or forwarded in that state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from txconnpool.wire import ANSWER, PIN, REPLACE, Command, Frame, Login
from txconnpool.wire.redis import answers
from txconnpool.wire.redis.commands import BY_NAME, RedisCommand
from txconnpool.wire.redis.framing import Usual, encode
from txconnpool.wire.redis.rules import Flavour, Rules

#: The user of clients that have not logged in as another one.
DEFAULT_USER: Final = b"default"

_MULTI: Final = BY_NAME["multi"]
_MULTI_REQUEST: Final = encode([b"MULTI"])

_DISCARD: Final = BY_NAME["discard"].silenced
_DISCARD_REQUEST: Final = encode([b"DISCARD"])

#: C{_usual} of a client with a state: no command is forwarded without a further look.
_NONE: Final[dict[bytes, Usual]] = {}


class ClientState:
    """
    The state of one client, which its requests change.

    @ivar pinned: whether the client has a connection of its own because its requests need one.
    @ivar flavour: the version of the protocol, and the database.
    @ivar check: whether a user and password are valid; C{None}: clients need not log in.
    @ivar stranger: whether the client has to log in, or to log in again.
    @ivar limited: whether its requests must be small, because it has not logged in.
    @ivar pending: whether it has no session, because it has never logged in.
    @ivar name: the name that the client has given itself.
    @ivar user: the user as which it has logged in.
    @ivar inTransaction: whether it has sent C{MULTI}, and neither C{EXEC} nor C{DISCARD}.
    @ivar deferred: whether C{MULTI} is still to be sent, because the first key decides to which server.
    @ivar places: knows which keys are on one server, see
        L{IStatefulRequestReader.place<txconnpool.wire.IStatefulRequestReader.place>}; C{None} if there is one server.
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
        "_usual",
        "after",
        "channels",
        "check",
        "deferred",
        "dirty",
        "flavour",
        "id",
        "inTransaction",
        "limited",
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
        self.id = next(rules.ids)
        self.flavour = rules.base
        self.name = b""
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

    def read(self, data: bytes, pos: int, room: int) -> Frame:
        """
        Find the next request, see L{IRequestReader.read<txconnpool.wire.IRequestReader.read>}.
        """
        raise NotImplementedError

    def forgetScan(self) -> None:
        """
        Scan an incomplete request from its beginning the next time, because it is not the first one then.
        """
        raise NotImplementedError

    # -- Answers

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

    def reject(self, end: int, reply: bytes, command: RedisCommand | None = None) -> Frame:
        """
        Answer a request with an error. A transaction fails because of it.
        """
        if command is not None and command.name == "exec":
            return self.abort(end, b"-EXECABORT Transaction discarded because of: " + reply.removeprefix(b"-ERR "))
        if self.inTransaction:
            self.dirty = True
        return self.answer(end, reply)

    # -- Requests to servers

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

    def refused(self) -> None:
        """
        The client gets no connection of its own for the request that was read last.
        """
        self.dirty = self.inTransaction

    def place(self, places: Any) -> None:
        """
        @param places: see C{places}.
        """
        self.places = places
        self.settle()

    @property
    def login(self) -> tuple[Any, ...]:
        """
        The login that the servers have accepted, if they check logins; else nothing.
        """
        return self.flavour[2:]

    def settle(self) -> None:
        """
        The state has changed: find out whether plain commands need a further look.
        """
        rules = self.rules
        self.limited = self.stranger or (rules.passes and rules.guarded and not self.login)
        if (
            self.limited
            or self.inTransaction
            or self.silent
            or self.skips
            or (self.channels is not None and self.flavour[0] == 2)
        ):
            self._usual = _NONE
        elif self.places is None:
            self._usual = self.rules.usual(1)
        else:  # keys of a client with a connection of its own have to be those of its server
            self._usual = _NONE if self.watches or self.tracks else self.rules.usual(2)

    def _settlePin(self) -> None:
        """
        The state has changed: find out whether the client needs a connection of its own.
        """
        self.settle()
        self.pinned = self.inTransaction or self.watches or self.tracks

    def switched(self, flavour: Flavour) -> None:
        """
        The client uses connections of another flavour from now on, and has none of its own.
        """
        self.flavour = flavour
        self.inTransaction = self.deferred = self.dirty = self.watches = self.tracks = False
        self.settle()
        self.pinned = False

    # -- Transactions

    def opening(self) -> Sequence[tuple[Command, bytes, bytes]]:
        """
        @return: the requests to send first on a connection of the client's own, with the beginnings of their replies.
        """
        if not self.deferred:
            return ()
        self.deferred = False
        return ((_MULTI, _MULTI_REQUEST, answers.OK),)

    def endTransaction(self) -> None:
        """
        The transaction has ended, and no keys are watched any more.
        """
        self.inTransaction = self.deferred = self.dirty = self.watches = False

    def endUnsent(self, end: int, reply: bytes) -> Frame:
        """
        Answer the end of a transaction of which no server knows.
        """
        self.endTransaction()
        self.settle()
        return self.answer(end, reply)

    def abort(self, end: int, reply: bytes) -> Frame:
        """
        Answer C{EXEC} with an error. If there is a transaction, it is discarded.
        """
        if not self.inTransaction:
            return self.answer(end, reply)
        if self.deferred:
            return self.endUnsent(end, reply)
        self.after = self.endTransaction
        return REPLACE, end, 0, (_DISCARD, _DISCARD_REQUEST, self.mine(reply))

    # -- Subscriptions

    @property
    def listens(self) -> bool:
        """
        Whether the client is subscribed to anything.
        """
        return self.channels is not None
