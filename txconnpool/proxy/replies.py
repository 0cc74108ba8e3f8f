# -*- test-case-name: tests.proxy.test_replies -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The queue of replies of a session.

While all requests in flight of a session are on one connection, their replies arrive in order. The session writes them
as they arrive, and has no queue. It creates a queue when a reply must wait for an earlier one: a reply of the proxy
after requests in flight, the reply to a request that is sent again, or one reply made of those of several servers. The
first entry of the queue writes its replies at once, the others hold theirs back. When all entries are complete the
queue is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IMergedReplySink, IResendingSink
from txconnpool.pool.containment import contain


class Entry:
    """
    One or more consecutive replies of a session, after those of the entries before.

    Some entries have requests to send (C{unsent}), or must be complete before later requests are sent; the session
    sends no other requests before that. These entries have the methods C{ready}, C{request}, C{next} and C{refuse}.

    @ivar session: the L{Session<txconnpool.proxy.session.Session>}.
    @ivar left: the number of replies that are due. The entry is complete when it is 0.
    @ivar first: whether all earlier replies are written, so that this entry writes its replies at once.
    """

    __slots__ = ("_pieces", "_waits", "first", "left", "session")

    joins = False

    def __init__(self, session: Any, left: int = 0) -> None:
        self.session = session
        self.left = left
        self.first = False
        self._waits = True  # whether an earlier reply is due
        self._pieces: list[bytes] = []  # bytes that are held back until this entry is the first

    @property
    def unsent(self) -> bool:
        """
        Whether later requests of the session must wait for this entry.
        """
        return False

    @property
    def size(self) -> int:
        """
        The number of bytes of requests in this entry.
        """
        return 0

    @property
    def unused(self) -> bool:
        """
        Whether there was no reply in this entry so far, and none is due.
        """
        return not (self.left or self.first or self._pieces)

    def take(self, data: bytes) -> None:
        """
        Write bytes of replies, or hold them back.
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
        Write the bytes that were held back, because all earlier replies are written.
        """
        self._waits = False
        for piece in self._pieces:  # writing may add more
            self.session.release(len(piece))
            self.session.put(piece)
            if self.first:  # the client was closed
                return
        self.first = True
        self._pieces = []

    def drained(self) -> None:
        """
        Called for the first entry when the client has read all written bytes.
        """

    def conclude(self, reply: bytes, begun: bool) -> None:
        """
        Make an error the whole reply, in place of bytes that were held back. If some of them are written already, the
        client is closed instead.

        @param begun: whether a part of the reply was given to L{take}.
        """
        self.left = 0
        if begun and not self._waits:
            self.session.breakOff()
            return
        for piece in self._pieces:
            self.session.release(len(piece))
        self._pieces = []
        self.take(reply)

    def abort(self, error: PoolError) -> None:
        """
        Close the client, because of an unexpected exception.
        """
        self.session.abort(error)

    def discard(self) -> None:
        """
        Drop everything, because the client is gone.
        """
        self._waits = False
        self.first = True
        self._pieces = []


@implementer(IMergedReplySink, IResendingSink)
class ForwardedReplies(Entry):
    """
    The replies to consecutive requests on one connection. Replies of the proxy itself are added to them if none of
    these is due.
    """

    __slots__ = ()

    joins = True

    def replied(self, data: bytes, done: int) -> None:
        """
        Take bytes of replies from a server.
        """
        self.session.batch += len(data)
        self.take(data)
        if done:
            self.left -= done
            self.session.answered(done)

    def declined(self, connection: Any, sent: Any, reply: bytes) -> bool:
        """
        Send a request again.
        """
        return bool(self.session.resend(self, connection, sent, reply))

    def redirected(self, redirect: Any, server: Any) -> None:
        """
        Let the session send the request elsewhere. Only sessions of a cluster get such replies.
        """
        self.session.redirect(self, redirect, server)

    def heldBack(self, change: int) -> bool:
        """
        Count bytes of replies that wait for an earlier one on their connection.
        """
        return bool(self.session.heldBack(change))

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Let the requests be sent again, or answer them with the error.
        """
        self.left -= sum(count for _, _, count, _, _ in requests)
        self.session.lost(self, requests, begun, error)

    def afterLoss(self, error: PoolError) -> None:
        """
        Let the session go on.
        """
        self.session.answered(0)


class QueuedRequest(ForwardedReplies):
    """
    A request, or several that were merged, and the replies. It is sent when the session has a connection for it. Later
    requests wait until then.
    """

    __slots__ = ("_count", "command", "request")

    #: Whether the next request may be sent as soon as there is a connection.
    ready = True

    def __init__(self, session: Any, command: Any, count: int, request: bytes) -> None:
        super().__init__(session, count)
        self.command = command
        self.request = request
        self._count = count  # the number of unsent requests

    @property
    def unsent(self) -> bool:
        """
        Whether requests are left to be sent.
        """
        return self._count > 0

    @property
    def size(self) -> int:
        """
        The number of bytes of the requests that are left.
        """
        return len(self.request)

    def next(self, room: int) -> tuple[Any, int, bytes]:
        """
        @param room: how many requests the connection accepts.

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
        Answer the unsent requests with the pool's error.
        """
        count, self._count = self._count, 0
        self.left -= count
        self.take(self.session.refusal(self.command, count, error))

    def discard(self) -> None:
        """
        Drop everything, because the client is gone.
        """
        super().discard()
        self._count = 0


class RetriedRequest(QueuedRequest):
    """
    A request that is sent a second time, because its connection was lost.
    """

    __slots__ = ()

    def declined(self, connection: Any, sent: Any, reply: bytes) -> bool:
        """
        Let the client get the reply: no request is sent a third time.
        """
        return False

    def next(self, room: int) -> tuple[Any, int, bytes]:
        """
        @return: the command, the number of replies, and the bytes to send next.
        """
        command, count, request = super().next(room)
        self.session.retried(count)
        return command, count, request

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Answer the requests with the error: no request is sent a third time.
        """
        lost = sum(count for _, _, count, _, _ in requests)
        self.left -= lost
        self.session.settle(lost)
        if begun:
            self.session.breakOff()
        else:
            self.take(self.session.refusal(self.command, lost, error))


class LaterReply(Entry):
    """
    A reply that a function provides, when all earlier replies are written: statistics, or one reply to a request that
    is sent to every server.
    """

    __slots__ = ("_ask", "_barrier", "_late")

    #: The session never sends a request for this entry.
    ready = False
    request = b""

    def __init__(self, session: Any, ask: Callable[[], Deferred[bytes]], barrier: bool) -> None:
        """
        @param ask: called when all earlier replies are written. It returns a Deferred that fires with the reply.
        @param barrier: whether later requests of the session wait for the reply, because they must be executed later.
        """
        super().__init__(session, 1)
        self._ask = ask
        self._barrier = barrier
        self._late = False  # whether the Deferred has not fired within the call of the function

    @property
    def unsent(self) -> bool:
        """
        Whether later requests wait for the reply.
        """
        return self._barrier and self.left > 0

    def begin(self) -> None:
        """
        Call the function.
        """
        super().begin()
        self._ask().addCallback(self._finish).addErrback(lambda failure: contain(self, failure))
        self._late = True

    def _finish(self, reply: bytes) -> None:
        if self.left:
            self.left = 0
            self.take(reply)
            if self._late:  # otherwise the caller advances the queue
                self.session.answered(0)

    def refuse(self, error: PoolError) -> None:
        """
        Do nothing: this entry needs no connection of the session.
        """

    def discard(self) -> None:
        """
        Drop everything, because the client is gone.
        """
        super().discard()
        self.left = 0


class ReplyQueue:
    """
    The entries of a session, in the order of its requests. Further replies are added to the last entry.

    @ivar ahead: the number of replies that are due before the first entry. The session writes these itself.
    @ivar last: the last entry.
    """

    __slots__ = ("_advancing", "_entries", "_session", "ahead", "last")

    def __init__(self, session: Any, ahead: int) -> None:
        self._session = session
        self._entries: deque[Entry] = deque()
        self._advancing = False
        self.ahead = ahead
        self.extend()

    def __len__(self) -> int:
        return len(self._entries)

    def extend(self) -> ForwardedReplies:
        """
        Add an entry for further replies.

        @return: the entry.
        """
        self.last = ForwardedReplies(self._session)
        self._entries.append(self.last)
        return self.last

    def append(self, entry: Entry) -> None:
        """
        Add an entry after all replies so far.
        """
        entries, last = self._entries, self.last
        if last.unused:
            entries[-1] = entry
            entries.append(last)
        else:
            entries.append(entry)
            self.extend()

    def insert(self, old: Entry | None, new: Sequence[Entry]) -> None:
        """
        Add entries after an entry whose replies are no longer due.

        @param old: the entry; C{None}: add them at the beginning.
        """
        at = 0 if old is None else self._entries.index(old) + 1
        for entry in reversed(new):
            self._entries.insert(at, entry)
        if self._entries[-1] is not self.last:
            self.extend()

    @property
    def next(self) -> Entry:
        """
        The entry of the next reply from a server, if there is a single connection.
        """
        due = (entry for entry in self._entries if entry.left and isinstance(entry, ForwardedReplies))
        return next(due, self.last)

    @property
    def unsent(self) -> list[Any]:
        """
        The entries for which later requests wait, in order.
        """
        return [entry for entry in self._entries if entry.unsent]

    def drained(self) -> None:
        """
        The client has read all written bytes.
        """
        if self._entries:
            self._entries[0].drained()

    def advance(self) -> bool:
        """
        Write the replies of the entries whose turn it is. Writing may lead to another call: that one does nothing, so
        that no entry is written before the one ahead of it is.

        @return: whether all entries are complete.
        """
        if self._advancing:
            return False
        self._advancing = True
        entries = self._entries
        while entries and not self.ahead:
            entry = entries[0]
            if not entry.first:
                entry.begin()
            if entry.left:
                break
            if entries:  # otherwise writing has closed the client
                entries.popleft()
        self._advancing = False
        return not entries

    def discard(self) -> None:
        """
        Drop everything, because the client is gone.
        """
        for entry in self._entries:
            entry.discard()
        self._entries.clear()
