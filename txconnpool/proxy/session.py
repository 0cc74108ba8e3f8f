# -*- test-case-name: tests.proxy.test_session -*-
# Copyright txconnpool contributors. See LICENSE.
"""
One downstream client: its requests in, and bounds on them.

While a session has requests in flight it stays on their connection, so what a client pipelines is executed in its order
and the replies come in this order: nothing is kept here for a request.
"""

from __future__ import annotations

from typing import Any

from txconnpool.errors import PoolError
from txconnpool.proxy.compound import SplitReply
from txconnpool.proxy.replies import LaterReply, QueuedRequest
from txconnpool.proxy.sending import RequestSender
from txconnpool.wire import ADMIT, ANSWER, BROADCAST, CLOSE, MORE, PIN, SPLIT, STATISTICS, SWALLOW

#: While a line has no end yet, it is looked at again when an end has come, or so many bytes more.
LOOK = 1 << 12


class Session(RequestSender):
    """
    A downstream client.

    @ivar number: tells the session from others, for people.
    """

    _swallow = 0  # bytes of a request that are dropped as they come;
    _late: Any = b""  # then this is answered, or sent: a command and its request

    def __init__(self, factory: Any) -> None:
        """
        @param factory: the L{SessionFactory<txconnpool.proxy.sessions.SessionFactory>}.
        """
        super().__init__(factory)
        self.number = next(factory.numbers)
        self._read = self._reader.read
        self._kept: list[bytes] = []  # bytes that were read and not dealt with
        self._need = 0  # how many bytes they must be before they are worth another look,
        self._line = False  # unless a line end has come

    # -- Requests

    def dataReceived(self, data: bytes) -> None:
        """
        Forward the requests that can be forwarded, and keep the rest.
        """
        self._counters.received += len(data)
        if self._swallow:
            data = self._swallowed(data)
        if self._size or self._blocked or self._unsent:
            if self._kept and len(self._kept[-1]) < LOOK:
                self._kept[-1] += data  # many small pieces would take many times their bytes in memory
            else:
                self._kept.append(data)
            self._size += len(data)
            if self._size > self._limits.backlog:
                self._count()
            if self._size >= self._need or (self._line and b"\n" in data):
                self._need = 0
                self.proceed()
        else:
            self._advance(data)

    def _advance(self, data: bytes, refusal: PoolError | None = None, refused: int = 0) -> None:
        """
        Deal with the requests that are complete in C{data}, as far as they may go now, and keep the rest.

        @param refusal: why the pool refuses the requests that begin in the first C{refused} bytes, if it does.
        """
        self._need = pos = 0
        self._line = False
        size = len(data)
        while pos < size:
            room = self._window - self._inFlight
            if room <= 0 or self._blocked or self.unread > self._limits.unreadSoft:
                break
            read = self._read
            what, end, count, payload = read(data, pos, room)
            if not count:
                if what is MORE:
                    self._line = not payload
                    self._need = payload or size - pos + LOOK
                    break
                if what is CLOSE:
                    self.answer(payload)
                    pos = size
                    self.end()
                    break
                if what is BROADCAST and self.factory.alone:
                    what, payload = payload  # there is one server: it is forwarded like any other request
                elif (what is SPLIT or what is PIN) and refusal is not None and pos < refused:
                    what, payload = payload
                elif what is PIN:
                    try:
                        if self._wantPin():
                            continue
                        break
                    except PoolError as error:
                        refusal, refused = error, size
                        continue
                elif self._follow(what, payload, end - size):
                    pos = end
                    if self._unsent:
                        break
                    continue
                else:
                    break
                count = 1
            if refusal is None or pos >= refused:
                try:
                    room = self._take()
                except PoolError as error:
                    refusal, refused = error, size  # nothing changes before this turn ends
                else:
                    if room <= 0 and (room := self._ownRoom()) <= 0:
                        break
                    if count > room:
                        what, end, count, payload = read(data, pos, room)
                    self._inFlight += count
                    sink = self._sink
                    if sink is not self:
                        sink.left += count
                        if self._pin is not None:
                            self._pin.forwarded(what)
                    self._connection.send(sink, what, count, data[pos:end] if payload is None else payload)
                    pos = end
                    continue
            self.answer(self.refusal(what, count, refusal))
            pos = end
        if pos < size:
            self._kept = [data[pos:]]
            self._size = size - pos
            if self._blocked:
                self._refusable = self._size

    def proceed(self, refusal: PoolError | None = None) -> None:
        """
        Something has changed: go on with what was kept, close if all is done, and read or do not.

        @param refusal: why the pool refuses the requests that have waited.
        """
        if self._unsent and not self._blocked:
            self._sendUnsent()
        if self._size and self._size >= self._need and not (self._unsent or self._blocked):
            data = self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)
            self._kept = []
            self._size = 0
            if self.kept:
                self.factory.buffered.free(self)
            self._advance(data, refusal, self._refusable)
        busy = self._inFlight or self._blocked or self._unsent or self._queue is not None
        self.regulate(not busy, self._size >= max(self._need, self._limits.backlog))

    def _count(self) -> None:
        """
        Count the bytes of requests that are kept, if they are many.
        """
        size = self._size + sum(entry.size for entry in self._unsent)
        if size > self._limits.backlog:
            self.factory.buffered.keep(self, size)

    # -- Requests that are not simply forwarded

    def _follow(self, action: Any, payload: Any, missing: int) -> bool:
        """
        Do what the reader says is to be done with a request instead of forwarding it.

        @param missing: how many of its bytes have not come yet.
        @return: whether it is done; if not, it is looked at again later.
        """
        factory = self.factory
        if action is ADMIT:
            self._reader = factory.dialect.requestReader()
            self._read = self._reader.read
            action = ANSWER
        if action is ANSWER:
            self._counters.answered += 1
        if missing > 0:
            assert action is ANSWER or action is SWALLOW, action
            self._swallow, self._late = missing, payload
            return True
        if action is ANSWER:
            self.answer(payload)
            return True
        if self._queue is not None and len(self._queue) > self._window:
            return False
        if action is SPLIT:
            self.enqueue(SplitReply(self, *payload))
            self._count()
            self._sendUnsent()
        elif action is BROADCAST:
            self.enqueue(LaterReply(self, lambda: factory.broadcast(*payload), True))
        else:
            assert action is STATISTICS, action
            self.enqueue(LaterReply(self, lambda: factory.statistics(payload), False))
        return True

    def _swallowed(self, data: bytes) -> bytes:
        """
        Drop the bytes of a request that was dealt with before it was complete.

        @return: the bytes behind it.
        """
        dropped = min(self._swallow, len(data))
        self._swallow -= dropped
        if not self._swallow:
            late, self._late = self._late, b""
            if isinstance(late, bytes):
                self.answer(late)
            else:
                command, request = late
                self.enqueue(QueuedRequest(self, command, 1, request))
                if not self._blocked:
                    self._sendUnsent()
        return data[dropped:]

    @property
    def oldest(self) -> bytes:
        """
        Bytes that begin with the request that is sent next.
        """
        request: bytes = self._unsent[0].request if self._unsent else self._kept[0]
        return request

    # -- The end

    def forget(self) -> None:
        """
        The client is gone or given up: drop all requests and replies.
        """
        self._kept = []
        self._size = 0
        super().forget()
