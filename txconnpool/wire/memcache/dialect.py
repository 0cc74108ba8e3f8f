# -*- test-case-name: tests.wire.memcache.test_dialect -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The dialect of memcached. Servers get its text protocol, classic and meta commands. Clients use this or the binary
protocol.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from typing import Final

from txconnpool.errors import LoginFailed, TooManyConnections
from txconnpool.wire import Command, IRequestReader, Login, ServerStatistics
from txconnpool.wire.memcache import statistics
from txconnpool.wire.memcache.auth import BAD_TOKEN, FAILURE, STORED, UNAUTHENTICATED, LoginReader, loginRequest
from txconnpool.wire.memcache.binary.logins import BinaryLoginReader, ProtocolChooser
from txconnpool.wire.memcache.binary.packets import RESPONSE
from txconnpool.wire.memcache.binary.requests import BinaryReader
from txconnpool.wire.memcache.effects import ORDINARY
from txconnpool.wire.memcache.matching import REPLY_LINE_MAX, received
from txconnpool.wire.memcache.replies import COMMANDS, GREETING, TOO_MANY, VERSION
from txconnpool.wire.memcache.replyreader import ReplyReader
from txconnpool.wire.memcache.requestreader import (
    REFUSED,
    REQUEST_LINE_MAX,
    RETRIEVAL_LINE_MAX,
    RequestReader,
)
from txconnpool.wire.memcache.rules import EARLIER, ERROR, rulesOf

__all__ = [
    "COMMANDS",
    "REFUSED",
    "REPLY_LINE_MAX",
    "REQUEST_LINE_MAX",
    "RETRIEVAL_LINE_MAX",
    "Memcache",
]

_UNPRINTABLE: Final = re.compile(r"[^ -~]+")

_ERRORS: Final = (b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")
_PACKET: Final = bytes([RESPONSE])


def checkGreeting(reply: bytes) -> bytes:
    """
    @param reply: the reply to the first request on a connection.

    @return: the reply.

    @raise TooManyConnections: it is that of a server with as many connections as it accepts.
    """
    if reply == TOO_MANY:
        raise TooManyConnections
    return reply


class Memcache:
    """
    The dialect of one pool: an L{IDialect<txconnpool.wire.IDialect>}.

    @cvar greeting: the command and the bytes of the first request on a connection.
    """

    commands = COMMANDS
    stateful = False
    mergesReads = True
    opaque = False
    probe: tuple[Command, bytes] = (VERSION, b"version\r\n")
    greeting: tuple[Command, bytes] = (GREETING, b"version\r\n")
    tooManyClients = TOO_MANY

    def __init__(
        self,
        maxItemSize: int = 1 << 20,
        denied: frozenset[bytes] = frozenset(),
        allowed: frozenset[bytes] | None = None,
    ) -> None:
        """
        The parameters are those of L{limit}.
        """
        self._text = RequestReader(maxItemSize, denied, allowed)
        self._binary = BinaryReader(self._text)
        self._chooser = ProtocolChooser(self._text, self._binary)
        self._versions: dict[str, bytes] = {}
        self._hasStandIn = False

    def limit(self, maxItemSize: int, denied: frozenset[bytes], allowed: frozenset[bytes] | None) -> None:
        """
        Set which requests are forwarded from now on, for existing clients too.

        @param maxItemSize: the maximum size of a value, in bytes.
        @param denied: names of commands, and words for effects, that are refused with C{CLIENT_ERROR ... not allowed},
            see L{txconnpool.wire.effects.Permissions}.
        @param allowed: the only ones that are not refused; C{None} for all.
        """
        self._text.limit(maxItemSize, denied, allowed)

    def requestReader(self) -> IRequestReader:
        """
        @return: the reader that chooses the protocol of a client. It has no state, and is the same for all clients.
        """
        return self._chooser

    def loginReader(self, check: Callable[[Login | None], bool]) -> IRequestReader:
        """
        @return: the reader that chooses the protocol of a client that must log in.
        """
        return ProtocolChooser(LoginReader(check), BinaryLoginReader(check))

    def replyReader(self) -> ReplyReader:
        """
        @return: the reader for a new connection.
        """
        return ReplyReader()

    def handshake(self, login: Login | None, server: str) -> Generator[tuple[Command, bytes], bytes, str | None]:
        """
        Request the version, and log in if the server requires it. From then on, commands that this version does not
        know are answered here.

        The password is sent only to servers that require a login: for a server without C{-Y} a login is a C{set}, and
        every client could read the password.

        @raise LoginFailed: the server rejects the user and password, or requires them and C{login} is C{None}.
        @raise TooManyConnections: the server has as many connections as it accepts.
        """
        reply = checkGreeting((yield self.greeting))
        if reply != UNAUTHENTICATED:
            warning = self._greeted(server, reply)
            return warning if login is None else "asks for no password: upstream-auth is not used"
        if login is None:
            raise LoginFailed("authentication failure: the server asks for a password, and upstream-auth is not set")
        reply = yield loginRequest(login)
        if reply != STORED:
            # A server may repeat the request with the password, and the text is logged. Only known errors are quoted.
            known = reply in (UNAUTHENTICATED, FAILURE, BAD_TOKEN)
            text = reply.decode().strip() if known else f"login failed: {received(reply, 0)}"
            raise LoginFailed(text.removeprefix("CLIENT_ERROR "))
        return self._greeted(server, (yield self.probe))

    def _greeted(self, server: str, reply: bytes) -> str | None:
        """
        Refuse requests that a server is too old to execute.

        @param reply: the server's reply to the request for its version.

        @return: a warning for the log, or C{None}.
        """
        version = self._text.unsupported.greeted(server, reply)
        self._refuseBinary()
        self._versions[server] = reply.removeprefix(b"VERSION ").strip()
        self._followVersions()
        return (
            f"is memcached {version}: meta commands and binary clients are refused, they need 1.6 or newer"
            if version
            else None
        )

    def standIn(self, used: bool) -> None:
        """
        Use rules that servers of all versions follow while requests may be sent to servers of another pool too.
        """
        self._hasStandIn = used
        self._followVersions()

    def _followVersions(self) -> None:
        """
        Check requests with the rules of the servers.
        """
        self._text.follow(EARLIER if self._hasStandIn else rulesOf(self._versions.values()))

    def _refuseBinary(self) -> None:
        old = self._text.unsupported.oldest
        refusal = b"" if old is None else b"a server is memcached %b, and binary clients need 1.6 or newer" % old
        self._binary.refusal = refusal

    def closed(self, server: str, command: Command) -> None:
        """
        A server has closed a connection instead of replying to a command, and no server has ever replied to it. If this
        happens again, the command is answered here for a while.
        """
        self._text.unsupported.closed(server, command)

    def keep(self, servers: Iterable[str]) -> None:
        """
        Forget what is known of servers that are no longer used.

        @param servers: the names of those that are.
        """
        names = set(servers)
        self._text.unsupported.keep(names)
        self._refuseBinary()
        self._versions = {name: version for name, version in self._versions.items() if name in names}
        self._followVersions()

    def error(self, kind: str, text: str) -> bytes:
        """
        @return: the error line for a request that failed in the proxy.
        """
        return b"SERVER_ERROR " + _UNPRINTABLE.sub(" ", text)[:200].encode() + b"\r\n"

    def isError(self, reply: bytes) -> bool:
        """
        @return: whether a reply is one of memcached's three error lines, or a packet with a status other than success.
        """
        return reply.startswith(_ERRORS) or (reply[:1] == _PACKET and reply[6:8] != b"\0\0")

    def statistics(self, items: Iterable[tuple[str, object]]) -> bytes:
        """
        @return: the reply to C{stats}.
        """
        lines = [f"STAT {name} {_UNPRINTABLE.sub(' ', str(value))}\r\n" for name, value in items]
        return "".join(lines).encode() + b"END\r\n"

    def unknownStatistics(self) -> bytes:
        """
        @return: memcached's reply to C{stats} with an unknown group.
        """
        return ERROR

    def serverStatistics(self, words: tuple[bytes, ...], addresses: bool) -> ServerStatistics | bytes:
        """
        @return: the request for the servers' own statistics, or the reply that refuses it, see
            L{txconnpool.wire.memcache.statistics.serverStatistics}.
        """
        return statistics.serverStatistics(words, addresses)

    def mergeStatistics(self, replies: list[bytes]) -> list[tuple[str, object]] | None:
        """
        @return: the totals of several servers, see L{txconnpool.wire.memcache.statistics.totals}.
        """
        return statistics.totals(replies)

    def describe(self, request: bytes) -> tuple[str, list[bytes]]:
        """
        Describe a request for logs.

        @param request: a request or its beginning.

        @return: the command and the keys.
        """
        words = request.split(b"\n", 1)[0].split()
        command = words[0] if words else b""
        if command not in ORDINARY:
            return "a request", []
        if command in (b"get", b"gets"):
            keys = words[1:]
        elif command in (b"gat", b"gats"):
            keys = words[2:]
        else:
            keys = words[1:2]
        return command.decode("ascii", "replace"), keys
