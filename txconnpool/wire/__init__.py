# -*- test-case-name: tests.wire -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The interfaces of a protocol: how requests and replies are found in bytes, without any I/O.

A I{dialect} is one protocol. Its L{IRequestReader} finds the requests in the bytes of a client. For each request it
returns the L{Command}, if the request is forwarded, or a L{LocalAction} to carry out instead. Its L{IReplyReader} finds
the replies in the bytes of a server. Sessions, pools and connections use no other knowledge of a protocol.

C{txconnpool/README.rst} describes how to add a dialect. L{txconnpool.wire.memcache} is one.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, TypeAlias

from txconnpool.wire.joining import Gathered
from txconnpool.wire.shares import Shares, divideEach

if TYPE_CHECKING:
    from txconnpool.errors import PoolError
    from txconnpool.wire.topics import Hub, Topic
    from txconnpool.wire.topology import Shard


class LocalAction(enum.Enum):
    """
    An action for a request that is not simply forwarded. The comment of each action describes its payload.
    """

    #: The request is incomplete. Payload: the minimum number of bytes of the request, received ones included; 0 if it
    #: is not known before the end of the line.
    MORE = "wait for more bytes"
    #: Payload: the reply, which is written in its place in the order. The end of the request may be after the bytes
    #: that have been received. The missing bytes are then dropped when they arrive, and after them the reply is
    #: written.
    ANSWER = "answer the request"
    #: Payload: a function that returns the reply. It is called with the IP address and the port that the client has
    #: connected to; with C{None} if it uses no TCP.
    ADDRESSED = "answer the request with a reply that has the address of this proxy"
    #: Payload: a function that returns the reply, and the clients to close: only after the reply if that is the client
    #: itself. It is called, when all earlier requests are answered, with the L{ClientFacts} of the client, and of all
    #: clients of the pool in this process.
    CLIENTS = "answer the request with a reply about the clients of the pool"
    #: Payload: the last bytes for the client; a L{Foreign} if it speaks another protocol.
    CLOSE = "close the connection of the client after all earlier replies"
    #: Payload: C{(command, request, reply)}. The request is sent at once; the client sees of its reply what the command
    #: says. The reply of the payload is written after it, as for C{ANSWER}.
    REPLACE = "send another request, and answer the request"
    #: Payload: C{(command, request)}. C{command.join} makes one reply of those of the servers.
    BROADCAST = "send the request to every server, and return one reply"
    #: Payload: C{(command, request, index)}. Only if servers share the keys: every server gets the request, or only
    #: that with the index, as for requests with keys. C{command.values} returns C{None} for a reply that is an error,
    #: which is then that to the request. Otherwise C{command.join} makes one reply of all.
    SPREAD = "send the request to every server by key, and return one reply"
    #: Payload: C{(command, request, refusal, closes)}. Every server gets the request, one after another, each on a
    #: connection of its own: the reply may be of any length. C{command.withoutEnd} removes the end of each reply but
    #: the last, and returns C{None} for an error, which ends the reply. If the settings allow no dumps, C{refusal} is
    #: the reply, after which the client is closed if C{closes}.
    DUMP = "stream a reply of every server, as one"
    #: Payload: C{(command, requests)}. C{command.withoutEnd} removes the end of each reply but the last.
    SPLIT = "send several requests, and return one reply"
    #: Payload: C{(command, arguments)}. The arguments select the statistics. The client gets of the reply what
    #: C{command.visible} returns.
    STATISTICS = "answer the request with statistics"
    #: Payload: C{(command, request, join)}. One server gets the request; none if it is C{None}. C{join} makes the reply
    #: of that of the server (C{None} if it was not asked) and the names and values of the proxy's most important
    #: statistics.
    REPORT = "answer the request with the reply of a server and statistics of the proxy"
    #: Payload: the reply. Returned only by the reader of a client that had not logged in.
    ADMIT = "accept requests from now on, because the client has logged in"
    #: Payload: C{(command, request)}. Returned only by a reader that is not C{pinned}, which then returns the command.
    PIN = "lease a connection for this client alone, and read the request again"
    #: Payload: the other reader. No bytes were read.
    SWITCH = "use another reader for this client from now on"
    #: Payload: C{(command, request, learn, failed)}. One server gets the request. C{learn} is called with its reply, or
    #: C{failed} with the error if there is none. No bytes were read.
    LEARN = "ask a server, and read the request again"
    #: Payload: an L{ITopicRequest<txconnpool.wire.topics.ITopicRequest>}. Later requests wait until servers have
    #: confirmed it. If no bytes were read, the request is read again then.
    TOPICS = "send the client what servers send about some topics from now on, or no more"
    #: Payload: C{((command, request, expected), flavour, conclude)}. A server gets the request, when all earlier
    #: requests are answered. If its reply begins with C{expected}, the client uses connections of the flavour from now
    #: on. C{conclude} is called with the error, or with no bytes if there is none. It returns the reply for the client.
    LOGIN = "ask a server whether the client may log in"
    #: Payload: C{(flavour, reply)}. The reader is called with the flavour (C{switched}), and the request is answered,
    #: when all earlier requests are answered.
    FLAVOUR = "use connections of another flavour from now on"


MORE: Final = LocalAction.MORE
ANSWER: Final = LocalAction.ANSWER
ADDRESSED: Final = LocalAction.ADDRESSED
CLIENTS: Final = LocalAction.CLIENTS
CLOSE: Final = LocalAction.CLOSE
REPLACE: Final = LocalAction.REPLACE
BROADCAST: Final = LocalAction.BROADCAST
SPREAD: Final = LocalAction.SPREAD
DUMP: Final = LocalAction.DUMP
SPLIT: Final = LocalAction.SPLIT
STATISTICS: Final = LocalAction.STATISTICS
REPORT: Final = LocalAction.REPORT
ADMIT: Final = LocalAction.ADMIT
PIN: Final = LocalAction.PIN
LEARN: Final = LocalAction.LEARN
TOPICS: Final = LocalAction.TOPICS
LOGIN: Final = LocalAction.LOGIN
FLAVOUR: Final = LocalAction.FLAVOUR
SWITCH: Final = LocalAction.SWITCH


@dataclass(frozen=True, eq=False, slots=True)
class ClientFacts:
    """
    What the proxy knows of one client, beyond what its request reader does.

    @ivar reader: its L{IRequestReader}.
    @ivar peer: the address of the client: C{host:port}, C{[host]:port} for IPv6, or C{path:0} for a UNIX socket.
    @ivar here: the address that it has connected to, in the same form.
    @ivar visible: whether other clients may see these addresses.
    @ivar age: the seconds since its session began.
    @ivar kept: the number of bytes of its requests that could not be forwarded yet.
    @ivar unread: the number of bytes of replies that it has not read.
    @ivar blocked: whether a server waits for something on its behalf.
    @ivar ending: whether it is closed when its requests are answered.
    """

    reader: Any
    peer: str
    here: str
    visible: bool
    age: float
    kept: int
    unread: int
    blocked: bool
    ending: bool


class Foreign(bytes):
    """
    The payload of C{CLOSE} for a client that speaks another protocol.

    @ivar protocol: the name of that protocol.
    """

    protocol: str

    def __new__(cls, protocol: str, last: bytes = b"") -> Foreign:
        """
        @param protocol: see L{protocol}.
        @param last: the last bytes for the client.
        """
        self = super().__new__(cls, last)
        self.protocol = protocol
        return self


class Command:
    """
    One kind of request, with the properties of its replies. Commands are created when a dialect is imported, and shared
    by all sessions and connections.

    Several commands may have the same name and index, for example one for each form of the reply. They are counted
    together.

    @ivar name: the name, for statistics and logs.
    @ivar index: the index in lists of counters. Indexes are consecutive numbers from 0.
    @ivar idempotent: whether the request may be sent a second time if its connection was lost.
    @ivar keepsRequest: whether the connection keeps the request until its reply is complete, because the request may be
        sent again, also if the server L{has declined it<Declined>}, or because the reply is compared with it.
    @ivar isLookup: whether the request reads keys, so that its replies count as hits and misses.
    @ivar multiKey: whether a request may have several keys, so that it is divided among several servers.
    @ivar several: the command of a request for several keys, into which requests of this kind may be merged; C{None}:
        they are never merged.
    @ivar whole: the command of a request for several keys that one server has, which is then forwarded as it is;
        C{None}: such a request is no exception.
    @ivar part: the command of the result of L{subset}, whose reply is for L{values}.
    @ivar merges: whether requests of several clients may be merged into one, see L{shares}.
    @ivar unites: whether requests of several clients may be sent as one request of the command C{several}, see
        L{united} and L{separated}.
    @ivar group: what requests of this kind are counted as, together with others: C{"get"}, C{"set"}; empty: nothing.
    @ivar effects: what every request of this kind does, see L{txconnpool.wire.effects}. A request may do more.
    @ivar matchWhole: a fast path for the most common reply, or C{None}. It is called with bytes, a position, the
        request (or C{None}), and the L{ReplyCounters} to increment. It returns the end of a complete reply to a single
        request, or 0 if the L{IReplyReader} must read the reply.
    """

    #: Whether the reply to a request for several keys may lack those of servers that have failed. If not, the client
    #: gets an error.
    partial = True

    #: Whether the reply to a request for several keys can be written for some of them after others, see L{withoutEnd}.
    continues: ClassVar[bool] = False

    #: Whether clients get replies in other bytes, in those of another protocol. Such requests are never sent together
    #: with those of other clients.
    translates: ClassVar[bool] = False

    #: Whether an error which says that the server has not executed the request is true, so that another server may get
    #: the request. A script may return any error, also when it has changed data.
    redirectable = False

    __slots__ = (
        "effects", "group", "idempotent", "index", "isLookup", "keepsRequest", "matchWhole", "merges", "multiKey",
        "name", "part", "several", "unites", "whole",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        index: int,
        *,
        idempotent: bool = False,
        keepsRequest: bool = False,
        isLookup: bool = False,
        multiKey: bool = False,
        matchWhole: Callable[[bytes, int, Any, Any], int] | None = None,
        effects: frozenset[bytes] = frozenset(),
    ) -> None:
        self.name = name
        self.index = index
        self.idempotent = idempotent
        self.keepsRequest = keepsRequest or idempotent
        self.isLookup = isLookup
        self.multiKey = multiKey
        self.several: Command | None = self if multiKey else None
        self.whole: Command | None = None
        self.unites = False
        self.part: Any = self
        self.merges = False
        self.matchWhole = matchWhole
        self.effects = effects
        self.group = ""

    def key(self, data: bytes, pos: int) -> bytes | None:
        """
        Find the key by which a router chooses the server. Called only if there are several servers by key.

        @param data: bytes that contain a request that begins at C{pos} and was checked.

        @return: the key; C{None} if any server may get the request.
        """
        return None

    def keys(self, request: bytes) -> list[bytes]:
        """
        @param request: a request of a C{multiKey} command, or one into which several single requests were merged.

        @return: its keys, in order.
        """
        raise NotImplementedError(f"{self.name} has no keys")

    def subset(self, request: bytes, keys: list[bytes]) -> bytes:
        """
        @param keys: some of the keys of the request.

        @return: the same request for these keys only, as a request of C{part}.
        """
        raise NotImplementedError(f"{self.name} is never divided")

    def subsets(self, request: bytes, shares: Sequence[list[bytes]]) -> list[bytes]:
        """
        @param shares: the keys of each request.

        @return: the results of L{subset}.
        """
        return [self.subset(request, keys) for keys in shares]

    def shares(self, requests: list[bytes], indexes: Any, most: int) -> Shares:
        """
        Divide requests into shares, each of which is for one server.

        @param requests: a request; or several that differ in their keys only, if the command C{merges}.
        @param indexes: C{indexes[key]} is the index of the server of a key.
        @param most: the maximum number of keys in a share, at least 1. A server may get several.

        @return: for each request a list with the number of the share of each key; and the shares, each with its index,
            the request for its keys as L{subset} returns it, and their number.
        """
        orders, shares = divideEach([self.keys(request) for request in requests], indexes, most)
        subsets = self.subsets(requests[0], [keys for _, keys in shares])
        return orders, [(index, own, len(keys)) for (index, keys), own in zip(shares, subsets, strict=True)]

    def united(self, requests: Sequence[bytes]) -> bytes:
        """
        @param requests: requests that differ in their keys only.

        @return: one request for all keys.
        """
        if len(requests) == 1:
            return requests[0]
        return self.subset(requests[0], [key for request in requests for key in self.keys(request)])

    def separated(self, requests: list[bytes], reply: bytes) -> list[bytes] | None:
        """
        @param requests: the requests that were sent as one, see L{united}. Their command C{unites}.
        @param reply: the complete reply to it.

        @return: the reply to each of the requests; C{None} for an error.
        """
        raise NotImplementedError(f"{self.name} is never united")

    def values(self, keys: list[bytes], reply: bytes) -> list[bytes] | None:
        """
        Find what a complete reply to the result of L{subset} has. This is called if the L{IReplyReader} has not passed
        on a list in place of the reply.

        @param keys: the keys of that request.

        @return: the part of the reply for each key, empty if it has none, or only one if the reply is about all of
            them; C{None} for an error.
        """
        raise NotImplementedError(f"{self.name} is never divided")

    def gather(self, order: list[int], values: list[list[bytes]], merged: bool) -> bytes:
        """
        Make a reply of those to parts of a request.

        @param order: for each key of the request, in order, the number of its part.
        @param values: what L{values} has found for each part.
        @param merged: whether the request was merged from single ones: then there is a reply for each key.
        """
        raise NotImplementedError(f"{self.name} is never divided")

    def gatherEach(self, orders: list[list[int]], values: list[Any], arrived: int, merged: bool) -> Gathered:
        """
        Make the replies to requests that were divided together, if the command C{merges}: of those of which a part has
        arrived, and all other parts were there already.

        @param orders: for each request what L{gather} gets as C{order}.
        @param values: what L{values} has found for each part; C{None} for those that have not arrived.
        @param arrived: the number of the part that has arrived.
        @param merged: as for L{gather}.

        @return: the numbers of these requests, with their replies; and the number of bytes of the part that others of
            the requests may wait with, 0 if none does.
        """
        raise NotImplementedError(f"{self.name} is never merged")

    def expiring(self, request: bytes, seconds: int) -> bytes:
        """
        Limit how long a value is kept. This is called for requests to servers that stand in for others.

        @param request: a request that was checked.
        @param seconds: the longest time that a value may be kept.

        @return: the request; another one if it stores a value that would be kept longer.
        """
        return request

    def visible(self, reply: bytes) -> bytes:
        """
        @param reply: a complete reply of a server, or an error of the proxy in its place.

        @return: the bytes that the client gets; empty if its request was silent.
        """
        return reply

    def patience(self, request: Any) -> float:
        """
        @param request: the request, if it was kept.

        @return: the seconds for which the server may wait for something else before it replies.
        """
        return 0.0

    def shortened(self, request: bytes, seconds: float) -> bytes:
        """
        @param request: a request with L{patience}.

        @return: the request, with so many seconds less for which the server may wait, but not none.
        """
        return request

    def divide(self, request: bytes, count: int) -> tuple[bytes, bytes]:
        """
        Divide a request into which several were merged.

        @param count: the number of requests in the first part.

        @return: the two parts.
        """
        raise NotImplementedError(f"{self.name} is never merged")

    def join(self, replies: Sequence[bytes]) -> bytes:
        """
        @param replies: the replies to a request that was sent to every server, one from each.

        @return: one reply.
        """
        raise NotImplementedError(f"{self.name} is never broadcast")

    def withoutEnd(self, data: bytes) -> bytes | None:
        """
        @param data: the last bytes of the reply to one of the requests into which a request was split.

        @return: the bytes of them that are passed on if another part follows; C{None} if the reply is an error.
        """
        raise NotImplementedError(f"{self.name} is never split")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


#: A result of a request reader: C{(what, end, count, payload)}. If C{what} is a L{Command}, C{data[pos:end]} contains
#: C{count} requests with one reply each. If C{payload} is not C{None}, it is sent in their place. Several requests are
#: merged into one, and the reply reader finds the reply to each. If C{what} is a L{LocalAction}, C{count} is 0 and
#: C{payload} is that of the action. For C{ANSWER} and C{REPLACE}, C{end} may be after the received bytes.
Frame: TypeAlias = tuple[Command | LocalAction, int, int, Any]

#: A user and a password.
Login: TypeAlias = tuple[bytes, bytes]


class Decline(enum.Enum):
    """
    Why a server has not executed a request.
    """

    #: It loads its data, or waits for those of another server.
    NOT_READY = "the server cannot execute requests now"
    #: It executes no request that writes, because it is a replica.
    READ_ONLY = "the server is a replica"


class Declined(Exception):
    """
    The reply to a request is an error that says that the server has not executed it, and that a server may do so that
    is found now.

    @ivar end: the position of the end of the reply.
    @ivar why: the reason.
    """

    def __init__(self, end: int, why: Decline) -> None:
        super().__init__(why.value)
        self.end = end
        self.why = why


class ReplyCounters(Protocol):
    """
    The counters that a reply reader increments, see L{txconnpool.metrics.Traffic}.
    """

    missed: int
    more: int
    moreKeys: int
    moreMissed: int
    failed: list[int]
    touches: Any


class IRequestReader(Protocol):
    """
    Finds the requests in the bytes of a client. Each client has one, unless it has no state; then all clients share
    one. The first reader of a client may choose another one, with C{SWITCH}. A reader for clients that never need a
    connection of their own may be a subclass that has only C{read}.
    """

    #: Whether the client has a connection of its own because its requests need one. The session sets it when it has
    #: leased the connection; C{forwarded} unsets it.
    pinned: bool = False

    @property
    def listens(self) -> bool:
        """
        Whether the client waits for what servers send without being asked, so that it need not send anything.
        """
        return False

    def read(self, data: bytes, pos: int, room: int) -> Frame:
        """
        Find the next requests of a client, from C{pos}.

        @param room: the maximum number of requests in the frame, at least 1. The method may be called again for the
            same position with less room.
        """

    def forwarded(self, command: Command) -> None:
        """
        Called after a request was sent on the client's own connection, and only while C{pinned} is set. After the last
        request that needs this connection, it sets C{pinned} to C{False}.
        """
        return


class IStatefulRequestReader(IRequestReader, Protocol):
    """
    The request reader of an L{IStatefulDialect}. Each client has one, which knows what the client has changed.
    """

    #: The flavour of the connections that the client's requests need.
    flavour: Any

    def switched(self, flavour: Any) -> None:
        """
        Called when the client uses connections of another flavour from now on, and has none of its own.

        @param flavour: the flavour, which is that of a L{FLAVOUR} or L{LOGIN}, or C{self.flavour}.
        """

    def opening(self) -> Sequence[tuple[Command, bytes, bytes]]:
        """
        Called when the client gets a connection of its own, of its flavour.

        @return: the requests to send first on it, with the beginnings of their replies.
        """

    def place(self, places: Any) -> None:
        """
        Called if servers share the keys.

        @param places: an object with the attribute C{servers}, their number, and the method C{together}, which returns
            whether all keys of a list are on one server; C{None} when the client is gone.
        """

    def refused(self) -> None:
        """
        Called if servers share the keys, and the client gets no connection of its own (L{PIN}) for the request that was
        read last.
        """


class IReplyReader(Protocol):
    """
    Finds the replies in the bytes of a server. Each connection has one.
    """

    #: The number of replies to the oldest request that are still due, if some of its bytes were read; else 0.
    left: int

    #: The bytes with which frames that are not replies may begin now. Empty: the server sends no such frames.
    pushes: bytes

    @property
    def begun(self) -> bool:
        """
        Whether bytes of an incomplete reply have been passed on.
        """

    @property
    def held(self) -> int:
        """
        The number of bytes of replies that have been read and are held back until the replies before them are known. It
        is not 0 only while C{left} is not 0.
        """

    def discard(self) -> None:
        """
        Drop the bytes that are held back, because nobody waits for these replies any more.
        """

    def read(
        self, data: bytes, pos: int, command: Any, count: int, request: Any, counters: Any
    ) -> tuple[int, int, Any]:
        """
        Read the bytes of a server from C{pos}, which is the position of the first bytes that were not read.

        @param command: the L{Command} of the oldest request in flight.
        @param count: the number of replies that are due to this request in all. It is more than one if several requests
            were merged.
        @param request: the request, if C{command.keepsRequest}; else a false value.
        @param counters: the L{ReplyCounters} to increment.

        @return: C{(end, done, reply)}: C{data[pos:end]} belongs to the request and completes C{done} of its replies.
            C{reply} has the bytes for the client; C{None}: the same bytes. For a request of L{Command.subset} it may be
            what was found in the whole reply, for L{Command.gather}. If C{left} is not 0 afterwards, all that can be
            read was read, and the method is called again with the remaining bytes and more.

        @raise WireError: the bytes are not such replies.
        @raise Declined: the reply, which is complete, says that the request was not executed. It never is for merged
            requests, and the reader must be sure of it: the text of an error may come from a client's script.
        """

    def push(self, data: bytes, pos: int, command: Any, request: Any) -> int:
        """
        Find a frame that is not a reply. Called only if the byte at C{pos} is one of C{pushes}, and never within a
        reply.

        @param command: the L{Command} of the oldest request in flight, or C{None}.
        @param request: this request, as for C{read}, or C{None}.

        @return: the end of the frame; 0 if there is none at C{pos}; -1 if it is incomplete.
        """


class ServerStatistics(NamedTuple):
    """
    A request for the servers' own statistics.

    @ivar command: the command.
    @ivar request: the bytes of the request.
    @ivar words: the arguments in the request.
    @ivar shared: whether the replies may be used for other clients too, for a moment: the request changes nothing.
    @ivar join: makes one reply of the names of the servers and their replies, in the same order.
    """

    command: Command
    request: bytes
    words: tuple[bytes, ...]
    shared: bool
    join: Callable[[list[str], list[bytes]], bytes]


class IDialect(Protocol):
    """
    One protocol.
    """

    @property
    def commands(self) -> Sequence[Command]:
        """
        One command of each index, in the order of the indexes.
        """

    @property
    def stateful(self) -> bool:
        """
        Whether it is an L{IStatefulDialect}.
        """

    @property
    def mergesReads(self) -> bool:
        """
        Whether the reader merges requests of a client for one key each into one for several keys.
        """

    @property
    def opaque(self) -> bool:
        """
        Whether the protocol is not known, so that bytes are passed on without being read.
        """

    @property
    def tooManyClients(self) -> bytes:
        """
        The bytes for a client that is refused because there are too many.
        """

    @property
    def probe(self) -> tuple[Command, bytes]:
        """
        The command and the bytes of a request that every running server answers, on a connection whose handshake is
        complete. It changes nothing.
        """

    def requestReader(self) -> IRequestReader:
        """
        @return: the reader for a new client.
        """

    def loginReader(self, check: Callable[[Login | None], bool]) -> IRequestReader:
        """
        @param check: called with the user and password of each attempt, or C{None} if they could not be read. Returns
            whether they are valid.

        @return: the reader for a client that must log in. It returns L{ADMIT} when the client has logged in.
        """

    def replyReader(self) -> IReplyReader:
        """
        @return: the reader for a new connection.
        """

    def handshake(self, login: Login | None, server: str) -> Generator[tuple[Command, bytes], bytes, str | None]:
        """
        The first requests on a new connection, which find out whether the server answers, and log in.

        @param login: the user and password, for servers that require them.
        @param server: the name of the server.

        @return: a generator that yields commands and requests, and is sent their replies. It returns a warning for the
            log, which is written after the name of the server, or C{None}.

        @raise LoginFailed: the server rejects the login, or requires one and C{login} is C{None}.
        @raise TooManyConnections: the server has as many connections as it accepts.
        """

    def closed(self, server: str, command: Command) -> None:
        """
        A server has closed a connection instead of replying to the oldest request. No server has ever replied to a
        request of this kind, so it may not know it. The dialect may answer such requests itself from then on.

        @param server: the name of the server.
        @param command: the kind of the request.
        """

    def keep(self, servers: Iterable[str]) -> None:
        """
        Forget what is known of servers that are no longer used.

        @param servers: the names of those that are.
        """

    def standIn(self, used: bool) -> None:
        """
        @param used: whether requests may be sent to servers of another pool too, about which the dialect knows nothing.
        """

    def limit(self, maxItemSize: int, denied: frozenset[bytes], allowed: frozenset[bytes] | None) -> None:
        """
        Set which requests are accepted from now on, from existing clients too.

        @param maxItemSize: the largest value, in bytes.
        @param denied: names of commands, and words for effects, that are refused, see
            L{txconnpool.wire.effects.Permissions}.
        @param allowed: the only ones that are accepted; C{None}: all.
        """

    def error(self, kind: str, text: str) -> bytes:
        """
        @param kind: see L{txconnpool.errors.PoolError.kind}.
        @param text: the text of the error.

        @return: the reply to a request that failed in the proxy.
        """

    def isError(self, reply: bytes) -> bool:
        """
        @param reply: a reply of the proxy itself, which may be empty.

        @return: whether it is an error.
        """

    def describe(self, request: bytes) -> tuple[str, list[bytes]]:
        """
        @param request: a request or its beginning.

        @return: the name of its command and its keys, for logs.
        """

    def statistics(self, items: Iterable[tuple[str, object]]) -> bytes:
        """
        @return: a reply with names and values.
        """

    def unknownStatistics(self) -> bytes:
        """
        @return: the reply to a request for statistics that do not exist.
        """

    def serverStatistics(self, words: tuple[bytes, ...], addresses: bool) -> ServerStatistics | bytes:
        """
        @param words: the arguments of a client's request.
        @param addresses: whether clients may see the addresses of other clients.

        @return: the request for the servers' own statistics; or the reply, if clients may not use these arguments.
        """

    def mergeStatistics(self, replies: list[bytes]) -> list[tuple[str, object]] | None:
        """
        @param replies: the replies of the servers to the request of L{serverStatistics} without arguments.

        @return: names and values for all servers together; C{None} if no server has answered.
        """


class IStatefulDialect(IDialect, Protocol):
    """
    A protocol whose connections have a state that clients may change. The state that many clients have in common is the
    I{flavour} of a connection: requests of a client are sent on connections of its flavour. For other states a client
    gets a connection of its own (L{PIN}), which is reset before others use it.

    If the servers are the nodes of a cluster, which report which of them has which keys, C{cluster} is called. A node
    may end a topic, because a slot has got another node, at the moment in which it is asked to: then its frame counts
    as the reply, and the error that follows is no reply. So C{probe} is sent after a C{redirectable} request that ends
    topics, and C{push} finds the error before the reply to that.
    """

    def requestReader(self) -> IStatefulRequestReader:
        """
        @return: the reader for a new client.
        """

    def loginReader(self, check: Callable[[Login | None], bool]) -> IStatefulRequestReader:
        """
        @return: the reader for a client that must log in, see L{IDialect.loginReader}.
        """

    @property
    def base(self) -> Any:
        """
        The flavour of a new client. Flavours are hashable.
        """

    def begin(self, database: int) -> None:
        """
        @param database: the database that new clients have from now on, as a part of their flavour.
        """

    def announce(self, places: Sequence[tuple[str, int]] | None) -> None:
        """
        Set what is reported to clients of a cluster from now on.

        @param places: the addresses of all proxies, which are the nodes that clients see; empty: the one address that
            a client has connected to; C{None}: there is no cluster.
        """

    @property
    def primary(self) -> tuple[Command, bytes, bytes]:
        """
        A request, and the beginning of the reply of a server that is no replica.
        """

    def prelude(self, flavour: Any) -> Sequence[tuple[Command, bytes, bytes]]:
        """
        @return: requests that make a new connection one of this flavour, with the beginnings of their replies.
        """

    def owner(self, flavour: Any) -> Any:
        """
        @return: whose flavour it is, if several users have flavours of their own; C{None}: nobody's.
        """

    def unprepared(self, command: Command, reply: bytes) -> PoolError:
        """
        @return: the error of requests for which there is no connection, because a server refused one of C{prelude}.
        """

    def passLogins(self, used: bool) -> None:
        """
        @param used: whether the servers check the users and passwords of clients from now on. If they do, readers
            return C{LOGIN} for a login.
        """

    def cluster(self, used: bool) -> None:
        """
        @param used: whether the servers are the nodes of a cluster from now on. If they are, the readers of replies
            return a L{Redirect<txconnpool.wire.topology.Redirect>} for an error that says that a request was not
            executed.
        """

    def reading(self, flavour: Any) -> Any:
        """
        @return: the flavour of connections on which the replicas of a cluster execute requests that read.
        """

    @property
    def asking(self) -> tuple[Command, int, bytes]:
        """
        The command of a request, the number of its replies, and its bytes: it lets a node of a cluster execute the next
        request although its slot is still being moved there.
        """

    def topology(self, secure: bool) -> Generator[tuple[Command, bytes], bytes, Sequence[Shard]]:
        """
        The requests that ask a node for its cluster, as in C{handshake}.

        @param secure: whether its addresses for TLS are wanted.

        @return: a generator that returns what the node says.

        @raise WireError: it knows no cluster.
        """

    def hub(self) -> Hub:
        """
        @return: the topics of a new connection, which clients share that use L{TOPICS}.
        """

    def topicKey(self, topic: Topic) -> bytes | None:
        """
        @return: the key whose server sends the frames of a topic, if servers share the keys; C{None}: each of them
            sends some.
        """

    def topicRequest(self, adds: bool, topics: Sequence[Topic]) -> tuple[Command, bytes]:
        """
        @param adds: whether the server is to send frames about the topics, or to send no more.
        @param topics: topics of one kind.

        @return: the command and the request. Its reply is complete when the server has done it.
        """

    def reset(self, login: Login | None, server: str) -> Generator[tuple[Command, bytes], bytes, str | None]:
        """
        The requests that make a connection as good as new, as in C{handshake}.

        @raise PoolError: the server does not do it. The connection is then closed.
        """
