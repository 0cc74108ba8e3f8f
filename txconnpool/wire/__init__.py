# -*- test-case-name: tests.wire -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Bytes to frames and back, without any input or output: what the proxy and the pool need to know of a protocol.

A I{dialect} is one protocol. Its L{IRequestReader} finds the requests in the bytes of a client: for each it names the
L{Command}, whose bytes are forwarded as they came, or a L{LocalAction} to take instead. Its L{IReplyReader} finds the
replies in the bytes of a server. Sessions, pools and connections see nothing else of a protocol.

C{txconnpool/README.rst} tells step by step how to add a dialect; L{txconnpool.wire.memcache} is one.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Final, Protocol, TypeAlias


class LocalAction(enum.Enum):
    """
    What to do with a request that is not simply forwarded. The comment of each says what its payload is.
    """

    #: The request is not complete. Payload: how many bytes are missing at least; 0 if that is not known before the end
    #: of the line.
    MORE = "wait for more bytes"
    #: Payload: the reply, which is written in its place in the order. The request may end behind the bytes that have
    #: come: the rest is dropped as it comes, and then the reply is written.
    ANSWER = "answer it here"
    #: Payload: the last bytes for the client.
    CLOSE = "close the connection of the client when all replies before are written"
    #: Payload: C{(command, request)}, which is sent when the rest of the bytes has come.
    SWALLOW = "drop the rest of it as it comes, and send something else"
    #: Payload: C{(command, request)}. C{command.join} makes one reply of those of the servers.
    BROADCAST = "send it to every server, and give one reply"
    #: Payload: C{(command, requests)}. C{command.withoutEnd} makes what each reply contributes to the one.
    SPLIT = "send it as several requests, one after the other, and give one reply"
    #: Payload: the words that say which statistics.
    STATISTICS = "answer it with statistics"
    #: Payload: the reply. Only from the reader of clients that have not logged in.
    ADMIT = "the client has logged in: read its requests from now on"
    #: Payload: C{(command, request)}. Only from a reader that is not C{pinned}; one that is gives the command itself.
    PIN = "give the client a connection of its own, and read again"


MORE: Final = LocalAction.MORE
ANSWER: Final = LocalAction.ANSWER
CLOSE: Final = LocalAction.CLOSE
SWALLOW: Final = LocalAction.SWALLOW
BROADCAST: Final = LocalAction.BROADCAST
SPLIT: Final = LocalAction.SPLIT
STATISTICS: Final = LocalAction.STATISTICS
ADMIT: Final = LocalAction.ADMIT
PIN: Final = LocalAction.PIN


class Command:
    """
    One kind of request, with what its replies look like. Commands are made when a dialect is imported, and shared.

    Several commands may have one name and index, for example one for each form of the reply: they are counted
    together.

    @ivar name: the name, for statistics and logs.
    @ivar index: a dense number, for lists of counters.
    @ivar idempotent: whether the request may be sent a second time after its connection was lost.
    @ivar keepsRequest: whether the connection keeps the request until its reply is complete: because it may be sent
        again, or because the reply is compared with it.
    @ivar isLookup: whether the request reads keys, so that its replies count as hits and misses.
    @ivar matchWhole: the short way for the commonest reply: called with bytes, a position and the request (or
        C{None}), it returns where the complete reply to a single request ends, or 0 for "ask the
        L{IReplyReader}". C{None} if there is no such way.
    """

    __slots__ = ("idempotent", "index", "isLookup", "keepsRequest", "matchWhole", "name")

    def __init__(
        self,
        name: str,
        index: int,
        *,
        idempotent: bool = False,
        keepsRequest: bool = False,
        isLookup: bool = False,
        matchWhole: Callable[[bytes, int, Any], int] | None = None,
    ) -> None:
        self.name = name
        self.index = index
        self.idempotent = idempotent
        self.keepsRequest = keepsRequest or idempotent
        self.isLookup = isLookup
        self.matchWhole = matchWhole

    def key(self, request: bytes) -> bytes:
        """
        @return: the key of a request, by which a router chooses its shard. Only asked where there are shards.
        """
        raise NotImplementedError(f"{self.name} has no key")

    def visible(self, reply: bytes) -> bytes:
        """
        @param reply: a complete reply of a server, or an error of ours in its place.

        @return: what the client sees of it: nothing, if it asked for silence.
        """
        return reply

    def divide(self, request: bytes, count: int) -> tuple[bytes, bytes]:
        """
        @return: two requests in place of one that several were merged into, the first of C{count} requests.
        """
        raise NotImplementedError(f"{self.name} is never merged")

    def join(self, replies: Sequence[bytes]) -> bytes:
        """
        @param replies: the replies to a request that was broadcast, one of each server.

        @return: one reply.
        """
        raise NotImplementedError(f"{self.name} is never broadcast")

    def withoutEnd(self, data: bytes) -> bytes | None:
        """
        @param data: the last bytes of the reply to one of the requests into which one was split.

        @return: what these bytes contribute to the joined reply when another part follows; C{None} if the reply is an
            error.
        """
        raise NotImplementedError(f"{self.name} is never split")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


#: One step of a request reader: C{(what, end, count, payload)}. With a L{Command}: C{data[pos:end]} is C{count}
#: requests, each of which is owed one reply; C{payload}, if it is not C{None}, is sent in their stead. Several requests
#: are sent as one (they were merged) and their replies are told apart by the reply reader. With a L{LocalAction},
#: C{count} is 0 and the payload is that of the action; for C{ANSWER} and C{SWALLOW} the request may end behind the
#: bytes.
Frame: TypeAlias = tuple[Command | LocalAction, int, int, Any]

#: A user and a password.
Login: TypeAlias = tuple[bytes, bytes]


class ReplyCounters(Protocol):
    """
    Where a reply reader counts what replies hold, see L{txconnpool.metrics.Traffic}.
    """

    missed: int
    more: int
    moreKeys: int
    moreMissed: int
    failed: list[int]


class IRequestReader(Protocol):
    """
    Finds the requests in the bytes of a client. There is one for each client, or one for all if it has no state.
    """

    #: Whether the client has a connection of its own because its requests need one. Set when it has got it; unset by
    #: C{forwarded}.
    pinned: bool

    def read(self, data: bytes, pos: int, room: int) -> Frame:
        """
        Look at the bytes of a client from C{pos}.

        @param room: the most requests to take as one frame, at least 1. It may be called again at the same position
            with less room.
        """

    def forwarded(self, command: Command) -> None:
        """
        A request was sent on the client's own connection. After the last one that needs it, this sets C{pinned} to
        C{False}. Only called while C{pinned}.
        """


class IReplyReader(Protocol):
    """
    Finds the replies in the bytes of a server. There is one for each connection.
    """

    #: How many replies of the oldest request are still due, if some of its bytes have been looked at; else 0.
    left: int

    @property
    def begun(self) -> bool:
        """
        Whether bytes of a reply that is not complete have been passed on.
        """

    def read(
        self, data: bytes, pos: int, command: Any, count: int, request: Any, counters: Any
    ) -> tuple[int, int, bytes | None]:
        """
        Look at the bytes of a server from C{pos}, where those begin that have not been read.

        @param command: the L{Command} of the oldest request in flight, one of this dialect's.
        @param count: how many replies that request is owed in all; more than one if several requests were merged.
        @param request: the request, if C{command.keepsRequest}; else something false.
        @param counters: where to count what the replies hold, a L{ReplyCounters}.

        @return: C{(end, done, reply)}: C{data[pos:end]} belongs to the request and completes C{done} of its replies.
            C{reply} is what the client gets of them; C{None}: these bytes. When it stops before C{left} is 0, it has
            read all it can, and is called again with the rest and more.

        @raise WireError: the bytes are no such reply.
        """

    def push(self, data: bytes, pos: int) -> int:
        """
        Look for a frame that is no reply. Only called if the dialect has C{pushes}, and never within a reply.

        @return: where such a frame ends; 0 if there is none at C{pos}; -1 if it is not complete.
        """


class IDialect(Protocol):
    """
    One protocol.
    """

    @property
    def commands(self) -> Sequence[Command]:
        """
        One command of each index, in the order of the indices.
        """

    @property
    def pushes(self) -> bool:
        """
        Whether servers send frames that are no replies.
        """

    @property
    def tooManyClients(self) -> bytes:
        """
        The last bytes for a client that is refused because there are too many.
        """

    def requestReader(self) -> IRequestReader:
        """
        @return: the reader for a new client.
        """

    def loginReader(self, check: Callable[[Login | None], bool]) -> IRequestReader:
        """
        @param check: called with the user and password of each attempt, or C{None} if they could not be read; returns
            whether the client is let in.

        @return: the reader for a client that has to log in. When it has, the reader gives L{ADMIT}.
        """

    def replyReader(self) -> IReplyReader:
        """
        @return: the reader for a new connection.
        """

    def handshake(self, login: Login | None) -> Generator[tuple[Command, bytes], bytes, str | None]:
        """
        The first exchanges on a new connection: is the server alive, and does it accept us?

        @param login: the user and password for servers that want one.

        @return: yields a command and its request, and is sent the reply. Returns a warning for the log, which
            goes on behind the name of the server, or C{None}.

        @raise LoginFailed: the server does not accept us.
        """

    def error(self, kind: str, text: str) -> bytes:
        """
        @param kind: see L{txconnpool.errors.PoolError.kind}.

        @return: the reply to a request that failed on its way.
        """

    def describe(self, request: bytes) -> tuple[str, list[bytes]]:
        """
        @param request: a request or its beginning.

        @return: the name of its command and its keys, for logs.
        """

    def statistics(self, items: Iterable[tuple[str, object]]) -> bytes:
        """
        @return: the reply that holds names and values.
        """

    def unknownStatistics(self) -> bytes:
        """
        @return: the reply to a client that asks for statistics which do not exist.
        """

    def serverStatistics(self, words: tuple[bytes, ...]) -> tuple[Command, bytes] | None:
        """
        @return: the request that asks a server for its own statistics, with its command; C{None} for words that clients
            may not ask with.
        """

    def joinStatistics(self, replies: list[bytes]) -> bytes:
        """
        @param replies: those of the servers to the request of L{serverStatistics}, in their order.

        @return: one reply.
        """
