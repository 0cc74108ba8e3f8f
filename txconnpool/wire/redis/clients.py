# -*- test-case-name: tests.wire.redis.test_clients -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The requests of a client about itself and about the other clients of the pool: C{CLIENT} and its subcommands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from txconnpool.wire import ANSWER, CLIENTS, MORE, ClientFacts, Frame
from txconnpool.wire.redis import answers
from txconnpool.wire.redis.clientstate import ClientState
from txconnpool.wire.redis.commands import RedisCommand

BAD_NAME: Final = answers.error("ERR Client names cannot contain spaces, newlines or special characters.")

#: Whether a client may have a name.
validName: Final = re.compile(rb"[!-~]*").fullmatch

_NUMBER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}").fullmatch

#: The greatest signed number of 64 bits.
_NUMBER_MAX: Final = (1 << 63) - 1

#: The types of clients that a request may ask for. The proxy has none of the others.
_TYPES: Final = (b"normal", b"pubsub", b"master", b"replica", b"slave")

_BAD_ID: Final = answers.error("ERR client-id should be greater than 0")
_NO_CLIENT: Final = answers.error("ERR No such client")


def _clientSetName(
    client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    if not validName(words[2]):
        return client.answer(end, BAD_NAME)
    client.name = words[2]
    return client.answer(end, answers.OK)


def _clientGetName(
    client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    return client.answer(end, answers.bulk(client.name) if client.name else answers.null(client.flavour[0]))


def _clientId(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    return client.answer(end, b":%d\r\n" % client.id)


def _clientReply(
    client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    mode = words[2].lower()
    if mode == b"skip":
        return _skipReply(client, data, pos, end)
    if mode not in (b"on", b"off"):
        return client.answer(end, answers.SYNTAX)
    client.silent = mode == b"off"
    client.skips = False
    client.settle()
    return client.answer(end, answers.OK)


def _skipReply(client: ClientState, data: bytes, start: int, pos: int) -> Frame:
    """
    Read the request after a C{CLIENT REPLY SKIP} together with it, so that there is no state between the two.

    @param start: the position of the first of the two.
    @param pos: that of the second.
    """
    if client.skips:
        client.skipsAgain = True
        return ANSWER, pos, 0, b""
    if pos >= len(data):
        return MORE, pos, 0, 0
    client.skips, client.skipsAgain = True, False
    client.settle()
    what, end, count, payload = client.read(data, pos, 1)
    client.skips = False
    client.settle()
    if client.skipsAgain:
        return ANSWER, pos, 0, b""  # the second one is as good as both
    if what is MORE:
        client.forgetScan()
        return MORE, pos, 0, 0
    if not count and end == pos:  # it is read again, and so is this one
        return what, start, 0, payload
    return what, end, count, data[pos:end] if count and payload is None else payload


def _clientGetRedir(
    client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    return client.forward(command, end) if client.tracks else client.answer(end, b":-1\r\n")


def _clientTracking(
    client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    def after() -> None:
        client.tracks = words[2].lower() == b"on"

    return client.own(command, data, pos, end, after)


def _clientCaching(
    client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    return client.forward(command, end)


# -- All clients


def describe(facts: ClientFacts, asking: bool) -> bytes:
    """
    Describe a client in one line, as Redis 7.0 does (C{catClientInfoString} of its C{networking.c}), without what the
    proxy does not know (C{cmd}) or has not (C{fd}, C{events}). Client libraries fail without the other numbers: those
    that the proxy does not count (C{idle}, the sizes of other buffers) are 0.

    @param asking: whether it is the one that gets the line.
    """
    client: ClientState = facts.reader
    channels = client.channels or {}
    peer, here = (facts.peer, facts.here) if asking or facts.visible else ("", "")
    fields = (
        ("id", client.id),
        ("addr", peer),
        ("laddr", here),
        ("name", client.name.decode()),
        ("age", int(facts.age)),
        ("idle", 0),
        ("flags", "".join(_flags(facts)) or "N"),
        ("db", client.flavour[1]),
        ("sub", len(channels.get("subscribe", ()))),
        ("psub", len(channels.get("psubscribe", ()))),
        ("ssub", len(channels.get("ssubscribe", ()))),
        ("multi", client.queued if client.inTransaction else -1),
        ("qbuf", facts.kept),
        *((name, 0) for name in ("qbuf-free", "argv-mem", "obl", "oll")),
        ("omem", facts.unread),
        ("tot-mem", facts.kept + facts.unread),
        ("user", client.user.decode("utf-8", "surrogateescape")),
        ("redir", 0 if client.tracks else -1),
        ("resp", client.flavour[0]),
    )
    line = " ".join(f"{name}={value}" for name, value in fields) + "\n"
    return line.encode("utf-8", "surrogateescape")


def _flags(facts: ClientFacts) -> Iterator[str]:
    """
    @return: the letters of a client, in the order of Redis.
    """
    client: ClientState = facts.reader
    if client.channels is not None:
        yield "P"
    if client.inTransaction:
        yield "x"
    if facts.blocked:
        yield "b"
    if client.tracks:
        yield "t"
    if facts.ending:
        yield "c"
    if facts.peer == facts.here:
        yield "U"


def _isOf(facts: ClientFacts, kind: bytes) -> bool:
    """
    @return: whether a client is of a type.
    """
    return kind == (b"normal" if facts.reader.channels is None else b"pubsub")


def _isKnown(facts: ClientFacts, mine: ClientFacts) -> bool:
    """
    @return: whether a client may ask about another one, and close it: all may, unless the servers check the logins of
        clients. The proxy does not know the rights of their users, so these must have the same login.
    """
    login = mine.reader.login
    return facts is mine or not mine.reader.rules.passes or bool(login and login == facts.reader.login)


def _ask(
    client: ClientState,
    end: int,
    answer: Callable[[ClientFacts, Sequence[ClientFacts]], tuple[bytes, Sequence[ClientFacts]]],
) -> Frame:
    isSilent = client.silent or client.skips

    def reply(mine: ClientFacts, every: Sequence[ClientFacts]) -> tuple[bytes, Sequence[ClientFacts]]:
        data, closed = answer(mine, [each for each in every if _isKnown(each, mine)])
        return b"" if isSilent else data, closed

    return CLIENTS, end, 0, reply


def _clientInfo(
    client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    version = client.flavour[0]
    return _ask(client, end, lambda mine, every: (answers.verbatim(version, describe(mine, True)), ()))


def _clientList(
    client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    kind, ids = None, None
    option = words[2].lower() if len(words) > 2 else b""
    if option == b"type" and len(words) == 4:
        kind = words[3].lower()
        if kind not in _TYPES:
            return client.answer(end, _unknownType(words[3]))
    elif option == b"id" and len(words) > 3:
        if not all(map(_isNumber, words[3:])):
            return client.answer(end, answers.error("ERR Invalid client ID"))
        ids = list(map(int, words[3:]))
    elif len(words) > 2:
        return client.answer(end, answers.SYNTAX)
    version = client.flavour[0]

    def answer(mine: ClientFacts, every: Sequence[ClientFacts]) -> tuple[bytes, Sequence[ClientFacts]]:
        known = {facts.reader.id: facts for facts in every}
        shown = [known[each] for each in (sorted(known) if ids is None else ids) if each in known]
        lines = [describe(each, each is mine) for each in shown if kind is None or _isOf(each, kind)]
        return answers.verbatim(version, b"".join(lines)), ()

    return _ask(client, end, answer)


def _isNumber(word: bytes) -> bool:
    return _NUMBER(word) is not None and -_NUMBER_MAX <= int(word) <= _NUMBER_MAX


def _unknownType(word: bytes) -> bytes:
    return answers.error(b"ERR Unknown client type '%b'" % word.partition(b"\0")[0])


class _Filter:
    """
    The clients that a C{CLIENT KILL} closes, as C{clientKillCommand} of Redis 7.0 finds them; C{MAXAGE} is of 7.4.

    @ivar error: the reply if the request is invalid, or empty.
    """

    def __init__(self, client: ClientState, words: list[bytes]) -> None:
        """
        @param words: options, each with its value.
        """
        self.error = b""
        self._skipMe = True
        self._tests: list[Callable[[ClientFacts], bool]] = []
        for option, value in zip(words[::2], words[1::2], strict=False):
            self.error = self._add(client, option.lower(), value)
            if self.error:
                return
        if len(words) % 2:
            self.error = answers.SYNTAX

    def _add(self, client: ClientState, option: bytes, value: bytes) -> bytes:
        """
        @return: the error of the option, or nothing.
        """
        tests, text = self._tests, value.decode("utf-8", "backslashreplace")
        if option == b"id":
            if not _isNumber(value) or int(value) <= 0:
                return _BAD_ID
            tests.append(lambda facts: facts.reader.id == int(value))
        elif option == b"addr":
            tests.append(lambda facts: facts.peer == text)
        elif option == b"laddr":
            tests.append(lambda facts: facts.here == text)
        elif option == b"type":
            kind = value.lower()
            if kind not in _TYPES:
                return _unknownType(value)
            tests.append(lambda facts: _isOf(facts, kind))
        elif option == b"user":
            if client.check is None and not client.rules.passes and value != b"default":
                return answers.error(b"ERR No such user '%b'" % value.partition(b"\0")[0])
            tests.append(lambda facts: facts.reader.user == value)
        elif option == b"maxage":
            if not _isNumber(value):
                return answers.error("ERR maxage is not an integer or out of range")
            if int(value) <= 0:
                return answers.error("ERR maxage should be greater than 0")
            tests.append(lambda facts: facts.age >= int(value))
        elif option == b"skipme" and value.lower() in (b"yes", b"no"):
            self._skipMe = value.lower() == b"yes"
        else:
            return answers.SYNTAX
        return b""

    def chosen(self, mine: ClientFacts, every: Sequence[ClientFacts]) -> list[ClientFacts]:
        """
        @return: the clients to close.
        """
        return [
            each
            for each in every
            if not (self._skipMe and each is mine) and all(matches(each) for matches in self._tests)
        ]


def _clientKill(
    client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    isOld = len(words) == 3  # CLIENT KILL ADDRESS, which may be that of the client itself
    chosen = _Filter(client, [b"addr", words[2], b"skipme", b"no"] if isOld else words[2:])
    if chosen.error:
        return client.answer(end, chosen.error)

    def answer(mine: ClientFacts, every: Sequence[ClientFacts]) -> tuple[bytes, Sequence[ClientFacts]]:
        closed = chosen.chosen(mine, every)
        if isOld:
            return answers.OK if closed else _NO_CLIENT, closed
        return b":%d\r\n" % len(closed), closed

    return _ask(client, end, answer)


#: What is done for a request, as in L{txconnpool.wire.redis.special.SPECIAL}.
OF_CLIENTS: Final[Mapping[str, Callable[[ClientState, RedisCommand, list[bytes], bytes, int, int], Frame]]] = {
    "client|setname": _clientSetName,
    "client|getname": _clientGetName,
    "client|id": _clientId,
    "client|info": _clientInfo,
    "client|list": _clientList,
    "client|kill": _clientKill,
    "client|reply": _clientReply,
    "client|getredir": _clientGetRedir,
    "client|tracking": _clientTracking,
    "client|caching": _clientCaching,
}
