# -*- test-case-name: tests.wire.redis.test_requestreader -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The requests that the proxy answers, and those that change the state of a client.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from txconnpool.wire import ADDRESSED, ADMIT, ANSWER, CLOSE, FLAVOUR, LOGIN, REPLACE, REPORT, TOPICS, Frame, Login
from txconnpool.wire.redis import answers
from txconnpool.wire.redis.announced import REPLIES, Nodes, Place
from txconnpool.wire.redis.clients import BAD_NAME, OF_CLIENTS, validName
from txconnpool.wire.redis.clientstate import DEFAULT_USER, ClientState
from txconnpool.wire.redis.commands import BY_NAME, RedisCommand
from txconnpool.wire.redis.engaged import ENGAGING
from txconnpool.wire.redis.framing import STRANGER_BULK, encode
from txconnpool.wire.redis.rules import Flavour
from txconnpool.wire.redis.subscriptions import Leaving

_SUBSCRIBER: Final = "the proxy cannot change the version of the protocol of a subscriber"

NOT_SHARED: Final = "the proxy does not forward it"

_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}").fullmatch

_AUTH: Final = BY_NAME["auth"]
_HELLO: Final = BY_NAME["hello"].silenced
_SELECT: Final = BY_NAME["select"].silenced

_NO_PASSWORD: Final = answers.error(
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration "
    "is correct?"
)
_NO_HELLO: Final = answers.error(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option "
    "can be used to authenticate the client and select the RESP protocol version at the same time"
)
_WRONG: Final = answers.error("WRONGPASS invalid username-password pair or user is disabled.")

_LOGIN_APART: Final = "the proxy cannot change the user of a client with a transaction, watched keys or subscriptions"


def _ping(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    if len(words) > 2:
        return client.answer(end, answers.wrongArity("ping"))
    if client.channels is not None and client.flavour[0] == 2:
        return client.answer(end, b"*2\r\n$4\r\npong\r\n" + answers.bulk(words[1] if len(words) > 1 else b""))
    return client.answer(end, answers.bulk(words[1]) if len(words) > 1 else b"+PONG\r\n")


def _echo(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    return client.answer(end, answers.bulk(words[1]))


def _quit(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    return CLOSE, len(data), 0, client.mine(answers.OK)


def _reset(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    if client.listens:
        return TOPICS, pos, 0, Leaving(client)
    client.name, client.user = b"", DEFAULT_USER
    client.silent = False
    client.stranger = client.check is not None
    reply = b"" if client.skips else b"+RESET\r\n"
    if client.pending:
        return ANSWER, end, 0, reply
    return FLAVOUR, end, 0, (client.rules.base, reply)


def _hello(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    version = client.flavour[0]
    if len(words) > 1:
        if not _INTEGER(words[1]):
            return client.answer(end, answers.error("ERR Protocol version is not an integer or out of range"))
        version = int(words[1])
        if version not in (2, 3):
            return client.answer(end, answers.error("NOPROTO unsupported protocol version"))
    at, name, login = 2, None, None
    while at < len(words):
        option, more = words[at].lower(), len(words) - 1 - at
        if option == b"auth" and more >= 2:
            login = words[at + 1], words[at + 2]
            at += 3
        elif option == b"setname" and more >= 1:
            name = words[at + 1]
            if not validName(name):
                return client.answer(end, BAD_NAME)
            at += 2
        else:
            return client.answer(end, answers.error(b"ERR Syntax error in HELLO option '%b'" % words[at]))
    if login is not None and client.rules.passes:

        def greet() -> bytes:
            client.name = client.name if name is None else name
            return _greeting(client, version)

        return _passLogin(client, command, end, version, login, greet)
    if login is not None and not _isValid(client, login):
        return client.answer(end, _WRONG)
    if client.stranger and login is None:
        return client.answer(end, _NO_HELLO)
    if version != client.flavour[0] and client.listens:
        return client.answer(end, answers.refused("hello", _SUBSCRIBER))
    if login is not None:
        client.stranger, client.user = False, login[0]
    if name is not None:
        client.name = name
    reply = _greeting(client, version)
    flavour = version, *client.flavour[1:]
    if client.pending:
        client.flavour = flavour
        return _admit(client, end, reply)
    client.settle()
    if version == client.flavour[0]:
        return client.answer(end, reply)
    return _change(client, end, flavour, (_HELLO, encode([b"HELLO", b"%d" % version])), reply)


def _change(
    client: ClientState, end: int, flavour: Flavour, request: tuple[RedisCommand, bytes], reply: bytes
) -> Frame:
    """
    Let the client use connections of another flavour, or give its own connection that flavour.

    @param request: the request that does this for a connection.
    """
    if not client.pinned:
        return FLAVOUR, end, 0, (flavour, client.mine(reply))

    def after() -> None:
        client.flavour = flavour

    client.after = after
    return REPLACE, end, 0, (*request, client.mine(reply))


def _isValid(client: ClientState, login: Login) -> bool:
    """
    @return: whether a client may log in so. If clients need not, Redis accepts any password of its user C{default}.
    """
    return login[0] == DEFAULT_USER if client.check is None else client.check(login)


def _passLogin(
    client: ClientState, command: RedisCommand, end: int, version: int, login: tuple[bytes, ...],
    greet: Callable[[], bytes],
) -> Frame:  # fmt: skip
    """
    Let the server decide whether the client may log in so. It then uses connections that have logged in so.

    @param version: the version of the protocol from then on.
    @param login: the password, or the user and the password.
    @param greet: called when the server has accepted the login. Returns the reply.
    """
    if client.pinned or client.inTransaction or client.channels is not None:
        return client.reject(end, answers.refused(command.name, _LOGIN_APART))
    if any(len(word) > STRANGER_BULK for word in login):
        return client.answer(end, _WRONG)  # the server would close the connection on which it is asked
    hidden = not client.mine(answers.OK)

    def conclude(error: bytes) -> bytes:
        if not error:
            client.user = login[0] if len(login) > 1 else DEFAULT_USER
        reply = error or greet()
        return b"" if hidden else reply

    request = encode([b"AUTH", *login])
    return LOGIN, end, 0, ((_AUTH, request, answers.OK), (version, client.flavour[1], login), conclude)


def _admit(client: ClientState, end: int, reply: bytes) -> Frame:
    """
    @return: the frame of the login with which a client gets a session.
    """
    client.pending = False
    client.settle()
    return ADMIT, end, 0, reply


def _greeting(client: ClientState, version: int) -> bytes:
    bulk = answers.bulk
    return answers.mapping(
        version,
        bulk(b"server"), bulk(b"redis"),
        bulk(b"version"), bulk(client.rules.version),
        bulk(b"proto"), b":%d\r\n" % version,
        bulk(b"id"), b":%d\r\n" % client.id,
        bulk(b"mode"), bulk(b"standalone" if client.rules.announced is None else b"cluster"),
        bulk(b"role"), bulk(b"master"),
        bulk(b"modules"), b"*0\r\n",
    )  # fmt: skip


def _auth(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    if len(words) > 3:
        return client.answer(end, answers.SYNTAX)
    if client.rules.passes:
        return _passLogin(client, command, end, client.flavour[0], tuple(words[1:]), lambda: answers.OK)
    if len(words) == 2 and client.check is None:
        return client.answer(end, _NO_PASSWORD)
    login = (DEFAULT_USER, words[1]) if len(words) == 2 else (words[1], words[2])
    if not _isValid(client, login):
        return client.answer(end, _WRONG)
    client.stranger, client.user = False, login[0]
    if client.pending:
        return _admit(client, end, answers.OK)
    client.settle()
    return client.answer(end, answers.OK)


def _select(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    if not _INTEGER(words[1]) or not -(1 << 31) <= int(words[1]) < 1 << 31:
        return client.answer(end, answers.NOT_INTEGER)
    version, database, *others = client.flavour
    if client.rules.cluster and int(words[1]) != 0:
        return client.answer(end, answers.error("ERR SELECT is not allowed in cluster mode"))
    if not 0 <= int(words[1]) < client.rules.databases:
        return client.answer(end, answers.error("ERR DB index is out of range"))
    if int(words[1]) == database:
        return client.answer(end, answers.OK)
    request = _SELECT, encode([b"SELECT", b"%d" % int(words[1])])
    return _change(client, end, (version, int(words[1]), *others), request, answers.OK)


#: The sections of C{INFO} that have those of the proxy too, and the proxy's own one.
_OWN: Final = frozenset((b"all", b"default", b"everything", b"proxy"))

#: The sections that say whether the server is the node of a cluster, and their lines. Clients that know of a cluster
#: by these ask for its nodes, and some refuse requests for several keys. So they say what C{HELLO} and C{CLUSTER} do.
_MODES: Final = frozenset((b"server", b"cluster"))
_MODE: Final = re.compile(rb"(?m)^((?:redis|server)_mode:)(?:standalone|cluster)\b|^(cluster_enabled:)[01]")


def _info(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    sections = [word.lower() for word in words[1:]]
    hasOwn = not sections or not _OWN.isdisjoint(sections)
    if client.limited or (not hasOwn and _MODES.isdisjoint(sections)):
        return client.forward(command, end)  # strangers get what the server says
    if not client.mine(answers.OK):
        return ANSWER, end, 0, b""
    others = [section for section in sections if section != b"proxy"]
    version, isCluster = client.flavour[0], client.rules.announced is not None

    def shown(line: re.Match[bytes]) -> bytes:
        if line[1]:
            return line[1] + (b"cluster" if isCluster else b"standalone")
        return line[2] + (b"1" if isCluster else b"0")

    def join(reply: bytes | None, items: list[tuple[str, object]]) -> bytes:
        if reply is not None and reply[:1] not in (b"$", b"="):
            return reply
        own = ["# Proxy", *(f"proxy_{name}:{value}" for name, value in items), ""]
        text = "\r\n".join(own).encode()
        if reply is not None:
            its = _MODE.sub(shown, reply[reply.index(b"\n") + 1 : -2].removeprefix(b"txt:"))
            if not hasOwn:
                text = its
            elif its:
                text = its + b"\r\n" + text
        return answers.verbatim(version, text)

    return REPORT, end, 0, (command, encode([b"INFO", *others]) if others or not sections else None, join)


# -- Clusters


def _cluster(client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int) -> Frame:
    places, reply = client.rules.announced, REPLIES.get(command.name)
    if places is None:
        return client.answer(end, answers.NO_CLUSTER)
    if reply is None:
        return client.reject(end, answers.refused(command.name, NOT_SHARED), command)
    version = client.flavour[0]

    def answer(here: Place | None) -> bytes:
        if here is None and not places:
            return answers.NO_CLUSTER  # a UNIX socket has no address to announce
        return reply(Nodes(places, here), version, words)

    return (ADDRESSED, end, 0, answer) if client.mine(answers.OK) else (ANSWER, end, 0, b"")


def _nodeState(
    client: ClientState, command: RedisCommand, words: list[bytes], data: bytes, pos: int, end: int
) -> Frame:
    return client.answer(end, answers.NO_CLUSTER if client.rules.announced is None else answers.OK)


#: What is done for a request, by the name of its command: called with the client, the command, its words, and bytes
#: that contain the request, with its position and end.
SPECIAL: Final[Mapping[str, Callable[[ClientState, RedisCommand, list[bytes], bytes, int, int], Frame]]] = {
    "ping": _ping,
    "echo": _echo,
    "quit": _quit,
    "reset": _reset,
    "hello": _hello,
    "auth": _auth,
    "select": _select,
    "info": _info,
    **OF_CLIENTS,
    **{name: _cluster for name in BY_NAME if name.startswith("cluster|") and name != "cluster|help"},
    **dict.fromkeys(("asking", "readonly", "readwrite"), _nodeState),
    **ENGAGING,
}
