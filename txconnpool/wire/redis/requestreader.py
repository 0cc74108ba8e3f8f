# -*- test-case-name: tests.wire.redis.test_requestreader -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Finds the requests of one client, checks each as Redis does, and answers those that are not for a server.

Requests that change the state of the client are answered here, or need a connection of the client's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from txconnpool.wire import ANSWER, CLOSE, LEARN, MORE, PIN, SPREAD, Frame, Login
from txconnpool.wire.redis import answers
from txconnpool.wire.redis.clientstate import ClientState
from txconnpool.wire.redis.commands import (
    BY_NAME,
    LOOKUP,
    SUBSCRIBING,
    UNSUBSCRIBING,
    RedisCommand,
    Use,
    blockingTime,
)
from txconnpool.wire.redis.framing import (
    LINE_MAX,
    BrokenRequest,
    Scanner,
    encode,
    splitLine,
    wordsOf,
)
from txconnpool.wire.redis.framing import chosenFind as findCommand
from txconnpool.wire.redis.framing import chosenUsual as findUsual
from txconnpool.wire.redis.learning import NAME, LearnedCommand
from txconnpool.wire.redis.rules import Rules
from txconnpool.wire.redis.several import CROSS_SLOT, DIVIDED, SPREADS, scanned
from txconnpool.wire.redis.special import NOT_SHARED, SPECIAL
from txconnpool.wire.topology import slotOf

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

_SHARDED: Final = frozenset(("ssubscribe", "sunsubscribe"))

_COMMAND_INFO: Final = BY_NAME["command|info"]

APART: Final = "the keys are on several servers, and it would concern one of them"
NO_KEYS: Final = "the keys are on several servers, and the server does not say which words are keys"
DENIED: Final = "this proxy does not allow it"


class RequestReader(ClientState):
    """
    An L{IStatefulRequestReader<txconnpool.wire.IStatefulRequestReader>}.

    @ivar failure: why the server could not be asked for the command of the next request; empty: it was not asked.
    """

    __slots__ = ("_scanner", "failure")

    def __init__(self, rules: Rules, check: Callable[[Login | None], bool] | None = None) -> None:
        """
        @param check: whether a user and password are valid. With it, the client has to log in.
        """
        super().__init__(rules, check)
        self._scanner = Scanner(rules.itemMax, self.stranger)
        self.failure = b""

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
        found = None if scanner.active or self.limited else findCommand(data, pos, itemMax)
        if found is None:
            return self._carefully(data, pos)
        return self._request(data, pos, found[0], None)

    def _carefully(self, data: bytes, pos: int) -> Frame:
        """
        Find a request that is incomplete, inline, or invalid.
        """
        scanner = self._scanner
        scanner.bulkMax = self.rules.itemMax
        scanner.stranger = self.limited
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
        if self.limited and (command.mayBlock or command.use in (Use.PINNED, Use.SUBSCRIBING)):
            return self.reject(end, answers.NO_AUTH)  # strangers get no connections of their own
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
            if not rules.learn(name, reply):
                self.failure = reply

        def failed(reply: bytes) -> None:
            self.failure = reply

        return LEARN, pos, 0, (_COMMAND_INFO, encode([b"COMMAND", b"INFO", name]), learn, failed)

    # -- Several servers by key

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
        if self.rules.cluster and name in _SHARDED:  # all of them share connections to the nodes
            return self.reject(end, CROSS_SLOT) if len(set(map(slotOf, words[1:]))) > 1 else None
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
