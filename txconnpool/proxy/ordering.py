# -*- test-case-name: tests.proxy.test_ordering -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The replies of one client, written in the order of its requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IReplySink
from txconnpool.metrics import tally
from txconnpool.pool.connection import isRetryable
from txconnpool.proxy.flow import ClientConnection, SessionLimits
from txconnpool.proxy.pinning import Pin
from txconnpool.proxy.replies import Entry, ReplyQueue, RetriedRequest

#: Requests that a session may have in flight at first. They may all be for the largest values, and the client may be
#: one of very many: the replies stand before those of everybody else.
FIRST_WINDOW = 2

#: Bytes of replies that a session should have on their way at once, at most.
BATCH = 1 << 20

#: What most sessions have unsent. It stays empty: a deque of its own would take more memory than all else.
NOTHING: deque[Any] = deque(maxlen=0)


@implementer(IReplySink)
class OrderedReplies(ClientConnection):
    """
    A client with requests in flight. It is itself the sink of the replies that come in the order of its requests, and
    writes them as they come; where a reply must wait for an earlier one, it has a queue.
    """

    _queue: ReplyQueue | None = None
    _pin: Pin | None = None

    def __init__(self, factory: Any) -> None:
        super().__init__(factory)
        (self._pool,) = factory.router.pools
        # Opens while the client reads what it asked for and closes when it does not, or when that is large: without
        # it, a few kilobytes of requests for large values would bring all these values here at once.
        self._window = min(FIRST_WINDOW, factory.limits.maxInFlight)
        self._inFlight = 0
        self._batch = 0  # bytes of replies since there was nothing in flight
        self._connection: Any = None  # where the requests in flight are
        self._sink: Any = self  # of the next request
        self._unsent: deque[Any] = NOTHING  # the entries of the queue for which later requests wait
        self._size = 0  # bytes of requests that are kept

    @property
    def inFlight(self) -> int:
        """
        How many requests are in flight.
        """
        return self._inFlight

    # -- Replies that come in order

    def replied(self, data: bytes, done: int) -> None:
        """
        Write the next bytes that the server sent.
        """
        if data:
            self._counters.sent += len(data)
            self._batch += len(data)
            write = self._write
            write(data)
            if self._full:
                self._pile(len(data))
        if done:
            self._inFlight -= done
            if not self._inFlight:
                self._connection = None
                if self._window < self._limits.maxInFlight or self._batch > BATCH or self._pin is not None:
                    self._drained()
                self._batch = 0
            if self._queue is not None:
                self._queue.ahead -= done
                self.advance()
            if self._size or self._ending or self._unsent:
                self.proceed()

    def _drained(self) -> None:
        """
        Nothing is in flight: fit the window to what the client read, and give back a connection of its own.
        """
        if self._batch > BATCH:
            self._window = max(1, self._window // 2)
        elif self._window < self._limits.maxInFlight and not self._full:
            self._window = min(2 * self._window, self._limits.maxInFlight)
        if self._pin is not None:
            self._unpin()

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Send again what may be sent again, and answer the other requests with the error.
        """
        self.lost(None, requests, begun, error)

    # -- Replies that wait for an earlier one

    def answer(self, data: bytes) -> None:
        """
        Give the client a reply of our own, in its place in the order.
        """
        if not data:
            return
        if self._queue is None and not self._inFlight:
            self.put(data)
            return
        queue = self._needQueue()
        if queue.last.left:
            self._sink = queue.extend()
        queue.last.take(data)

    def enqueue(self, entry: Entry) -> None:
        """
        Put a reply that comes later in its place in the order.
        """
        queue = self._needQueue()
        queue.append(entry)
        self._sink = queue.last
        self.advance()
        self.collect()

    def _needQueue(self) -> ReplyQueue:
        if self._queue is None:
            self._queue = ReplyQueue(self, self._inFlight)
            self._sink = self._queue.last
        return self._queue

    def advance(self) -> None:
        """
        Write the replies of the queue that have their turn, and drop the queue when it is done.
        """
        queue = self._queue
        if queue is not None and queue.advance() and self._queue is queue:
            self._queue = None
            self._sink = self

    def answered(self, done: int) -> None:
        """
        Called by an entry of the queue when replies to C{done} requests have come, or never will.
        """
        self._inFlight -= done
        if done and not self._inFlight:
            self._connection = None
            self._drained()
            self._batch = 0
        self.advance()
        self.proceed()

    def lost(self, entry: Entry | None, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        A connection was lost: send reads once more, and answer all other requests with the error. A client that has
        part of a reply can only be closed.

        @param entry: the entry of the queue that the requests belong to; C{None}: they come before the queue.
        """
        count = sum(request[2] for request in requests)
        if not self.gone:
            if begun:
                self.breakOff()
            else:
                queue = self._needQueue()
                if entry is None:
                    queue.ahead = 0
                queue.insert(entry, list(self._afterLoss(requests, error)))
                self._sink = queue.last
                self.collect()
        self.answered(count)

    def collect(self) -> None:
        """
        Send what the entries of the queue have to send before all later requests.
        """
        unsent = self._queue.unsent if self._queue is not None else None
        self._unsent = deque(unsent) if unsent else NOTHING

    def _afterLoss(self, requests: list[Any], error: PoolError) -> Iterator[Entry]:
        for _, command, count, _, request in requests:
            if isRetryable(command, error) and self._pin is None:
                yield RetriedRequest(self, command, count, request)
            else:
                refused = Entry(self)
                refused.take(self.refusal(command, count, error))
                yield refused

    def refusal(self, command: Any, count: int, error: PoolError) -> bytes:
        """
        @return: what the client gets in place of C{count} replies that will not come.
        """
        tally(self._counters.errors, error.kind, count)
        line = self.factory.dialect.error(error.kind, str(error))
        visible: bytes = command.visible(line)
        return visible * count

    def retried(self, count: int) -> None:
        """
        Count requests that are sent a second time.
        """
        self._pool.counters.retries += count

    def slowDown(self) -> None:
        """
        Have fewer requests in flight from now on.
        """
        self._window = max(1, self._window // 2)

    def limit(self, limits: SessionLimits) -> None:
        """
        Apply other bounds from now on.
        """
        self._window = min(self._window, limits.maxInFlight)
        super().limit(limits)

    def forget(self) -> None:
        """
        The client is gone or given up: drop all replies.
        """
        self._unsent = NOTHING
        if self._queue is not None:
            self._queue.discard()
            self._queue = None
        self._sink = self
        super().forget()

    # -- A connection of its own

    def _unpin(self) -> None:
        """
        Give back the connection of its own, if no request needs it any more.
        """
        if self._pin is not None and not self._pin.needed:
            pin, self._pin = self._pin, None
            pin.release()

    def pinLost(self) -> None:
        """
        The connection of its own was lost, and the state on it: all that is left is to close the client.
        """
        self._pin = None
        self.end()
