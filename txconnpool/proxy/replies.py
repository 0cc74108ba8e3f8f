# -*- test-case-name: tests.proxy.test_replies -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The replies of a session in the order of its requests, where they do not simply come in this order.

While all requests in flight of a session are on one connection, their replies come in order and the session writes them
as they come: it has no queue. A queue is made when something must wait for an earlier reply: a reply of our own behind
requests in flight, a request that is sent again, a request that is answered by several servers. Its first entry writes
through, the others hold what they get. When all entries are complete the queue is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IReplySink


class Entry:
    """
    The next replies of a session, behind those of the entries before.

    Some entries have requests to send (C{unsent}), or must be complete before later requests are sent: the session
    sends nothing else before they are done. These have the methods C{ready}, C{request}, C{next} and C{refuse}.

    @ivar session: the L{Session<txconnpool.proxy.session.Session>}.
    @ivar left: how many replies are still due; the entry is complete when there are none.
    @ivar first: whether all replies before are written, so that this entry writes through.
    """

    __slots__ = ("_pieces", "first", "left", "session")

    def __init__(self, session: Any, left: int = 0) -> None:
        self.session = session
        self.left = left
        self.first = False
        self._pieces: list[bytes] = []  # held until this entry is the first

    @property
    def unsent(self) -> bool:
        """
        Whether later requests of the session have to wait for this entry.
        """
        return False

    @property
    def size(self) -> int:
        """
        How many bytes of requests the entry holds.
        """
        return 0

    def take(self, data: bytes) -> None:
        """
        Write the next bytes, or hold them.
        """
        if not data:
            return
        if self.first:
            self.session.put(data)
        else:
            self._pieces.append(data)
            self.session.hold(len(data))

    def begin(self) -> None:
        """
        All replies before are written: write what is held.
        """
        self.first = True
        self._flush(self.session.put)

    def discard(self) -> None:
        """
        The client is gone.
        """
        self.first = True
        self._pieces = []

    def _flush(self, write: Callable[[bytes], object]) -> None:
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            self.session.release(len(piece))
            write(piece)


@implementer(IReplySink)
class ForwardedReplies(Entry):
    """
    The replies to consecutive requests on one connection. Replies of our own that come when none of these is due stand
    here, too.
    """

    __slots__ = ()

    def replied(self, data: bytes, done: int) -> None:
        """
        Take the next bytes that the server sent.
        """
        self.take(data)
        if done:
            self.left -= done
            self.session.answered(done)

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Have the requests sent again, or answer them with the error.
        """
        self.left -= sum(request[2] for request in requests)
        self.session.lost(self, requests, begun, error)


class QueuedRequest(ForwardedReplies):
    """
    A request, or several that were merged, with the replies. It is sent when the session has a connection for it, and
    later requests wait for that.
    """

    __slots__ = ("_count", "command", "request")

    #: It waits for nothing but a connection.
    ready = True

    def __init__(self, session: Any, command: Any, count: int, request: bytes) -> None:
        super().__init__(session, count)
        self.command = command
        self.request = request
        self._count = count  # how many requests are unsent

    @property
    def unsent(self) -> bool:
        """
        Whether there is something to send.
        """
        return self._count > 0

    @property
    def size(self) -> int:
        """
        The bytes of the request.
        """
        return len(self.request)

    def next(self, room: int) -> tuple[Any, int, bytes]:
        """
        @param room: how many requests the connection takes.

        @return: the command, the number of replies, and the bytes to send next.
        """
        count, request, self.request = self._count, self.request, b""
        if count > room:
            request, self.request = self.command.divide(request, room)
            count = room
        self._count -= count
        return self.command, count, request

    def refuse(self, error: PoolError) -> None:
        """
        The pool has no connection for the requests that are unsent.
        """
        count, self._count = self._count, 0
        self.left -= count
        self.take(self.session.refusal(self.command, count, error))

    def discard(self) -> None:
        """
        The client is gone.
        """
        super().discard()
        self._count = 0


class RetriedRequest(QueuedRequest):
    """
    A request that is sent a second time, because its connection was lost.
    """

    __slots__ = ()

    def next(self, room: int) -> tuple[Any, int, bytes]:
        """
        @return: the command, the number of replies, and the bytes to send next.
        """
        command, count, request = super().next(room)
        self.session.retried(count)
        return command, count, request

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Answer the requests with the error: nothing is sent a third time.
        """
        lost = sum(request[2] for request in requests)
        self.left -= lost
        if begun:
            self.session.breakOff()
        else:
            self.take(self.session.refusal(self.command, lost, error))
        self.session.answered(lost)


class LaterReply(Entry):
    """
    One reply that is asked for elsewhere when all replies before are written: statistics, or the reply to a request
    that every server gets.
    """

    __slots__ = ("_ask", "_barrier", "_late")

    #: It is never sent by the session.
    ready = False
    request = b""

    def __init__(self, session: Any, ask: Callable[[], Deferred[bytes]], barrier: bool) -> None:
        """
        @param ask: called when all replies before are written; the reply is what it fires with.
        @param barrier: whether later requests of the session wait for the reply, because they must be executed later.
        """
        super().__init__(session, 1)
        self._ask: Callable[[], Deferred[bytes]] | None = ask
        self._barrier = barrier
        self._late = False  # the reply has not come at once

    @property
    def unsent(self) -> bool:
        """
        Whether later requests wait for the reply.
        """
        return self._barrier and self.left > 0

    def begin(self) -> None:
        """
        Ask for the reply.
        """
        super().begin()
        ask, self._ask = self._ask, None
        if ask is not None:
            ask().addCallback(self._finish)
            self._late = True

    def _finish(self, reply: bytes) -> None:
        if self.left:
            self.left = 0
            self.take(reply)
            if self._late:  # else the queue is advancing
                self.session.answered(0)

    def refuse(self, error: PoolError) -> None:
        """
        The session got no connection: this entry wants none.
        """

    def discard(self) -> None:
        """
        The client is gone.
        """
        super().discard()
        self.left = 0
        self._ask = None


class ReplyQueue:
    """
    The entries of a session, in the order of its requests. The last one always takes more.

    @ivar ahead: replies that are due before the first entry: to requests whose replies the session writes itself.
    """

    __slots__ = ("_entries", "_session", "ahead", "last")

    def __init__(self, session: Any, ahead: int) -> None:
        self._session = session
        self._entries: deque[Entry] = deque()
        self.ahead = ahead
        self.extend()

    def __len__(self) -> int:
        return len(self._entries)

    def extend(self) -> ForwardedReplies:
        """
        Let what comes be a new entry.

        @return: the entry.
        """
        self.last = ForwardedReplies(self._session)
        self._entries.append(self.last)
        return self.last

    def append(self, entry: Entry) -> None:
        """
        Add an entry behind all that there are.
        """
        self._entries.append(entry)
        self.extend()

    def insert(self, old: Entry | None, new: Sequence[Entry]) -> None:
        """
        Add entries behind an entry of which no reply is due any more.

        @param old: the entry; C{None}: what was ahead of the queue.
        """
        at = 0 if old is None else self._entries.index(old) + 1
        for entry in reversed(new):
            self._entries.insert(at, entry)
        if self._entries[-1] is not self.last:
            self.extend()

    @property
    def unsent(self) -> list[Any]:
        """
        The entries for which later requests wait, in their order.
        """
        return [entry for entry in self._entries if entry.unsent]

    def advance(self) -> bool:
        """
        Write what has its turn now.

        @return: whether all entries are complete.
        """
        entries = self._entries
        while entries and not self.ahead:
            entry = entries[0]
            if not entry.first:
                entry.begin()
            if entry.left:
                return False
            if entries and entries[0] is entry:  # writing may have ended the session
                entries.popleft()
        return not entries

    def discard(self) -> None:
        """
        The client is gone.
        """
        entries, self._entries = self._entries, deque()
        for entry in entries:
            entry.discard()
