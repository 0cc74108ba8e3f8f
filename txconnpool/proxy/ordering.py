# -*- test-case-name: tests.proxy.test_ordering -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Writes the replies to one client in the order of its requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IMergedReplySink, IResendingSink
from txconnpool.metrics import tally
from txconnpool.pool.connection import isRetryable
from txconnpool.proxy.flow import ClientConnection, SessionLimits
from txconnpool.proxy.pinning import Pin
from txconnpool.proxy.replies import Entry, QueuedRequest, ReplyQueue, RetriedRequest
from txconnpool.proxy.resending import DeclinedRequests

#: The maximum number of requests that a new session may have in flight. All of them may be for values of the maximum
#: size, and there may be very many clients, whose replies would delay those of all others.
FIRST_WINDOW = 2

#: The number of bytes of replies that the requests in flight of a session should not exceed.
BATCH = 1 << 20

#: An empty deque that sessions without unsent entries share: a deque of its own would need more memory than the rest of
#: a session.
NOTHING: deque[Any] = deque(maxlen=0)


@implementer(IMergedReplySink, IResendingSink)
class OrderedReplies(ClientConnection):
    """
    A client with requests in flight. It is the sink of replies that arrive in the order of its requests, and writes
    them at once. If a reply must wait for an earlier one, it uses a L{ReplyQueue}.

    @ivar batch: the number of bytes of replies since nothing was in flight.
    """

    joins = True

    # CPython 3.11 finds a slot faster than an attribute of the class. These are read for each reply.
    __slots__ = ("_pin", "_queue")

    _reader: Any
    _queue: ReplyQueue | None
    _pin: Pin | None
    _flavours: Any = None  # those of the factory when the client came

    def __init__(self, factory: Any) -> None:
        super().__init__(factory)
        self._queue = self._pin = None
        pools = factory.router.pools
        if factory.flavours is not None:
            self._flavours = factory.flavours
        self._pool: Any = pools[0] if pools else None  # perhaps no server is known yet
        # The maximum number of requests in flight now. It grows while the client reads its replies, and shrinks when it
        # does not, or when they are large. Without it, a few kilobytes of requests for large values would make servers
        # send all these values at once.
        self._window = min(FIRST_WINDOW, factory.limits.maxInFlight)
        self._inFlight = 0
        self.batch = 0
        self._connection: Any = None  # the connection of the requests in flight
        self._sink: Any = None  # the queue entry that is the sink of the next request; None: the session itself is
        self._unsent: deque[Any] = NOTHING  # the queue entries for which later requests wait
        self._size = 0  # the number of bytes of requests that could not be forwarded yet

    @property
    def inFlight(self) -> int:
        """
        The number of requests in flight.
        """
        return self._inFlight

    @property
    def room(self) -> int:
        """
        How many more requests may be in flight now.
        """
        room: int = self._window - self._inFlight
        return room

    # -- Replies that arrive in order

    def replied(self, data: bytes, done: int) -> None:
        """
        Write bytes of replies from a server.
        """
        if data:
            size, write = len(data), self._write
            self._counters.sent += size
            self.batch += size
            write(data)
            if self._full:
                self._pile(size)
        if done:
            self._inFlight = left = self._inFlight - done
            if not left:
                self._connection = None
                if self._window < self._limits.maxInFlight or self.batch > BATCH or self._pin is not None:
                    self._drained()
                self.batch = 0
            if self._queue is not None:
                self._queue.ahead -= done
                self.advance()
                self.proceed()
            elif self._size or self._ending or self._unsent:
                self.proceed()

    def heldBack(self, change: int) -> bool:
        """
        Count bytes of replies that wait for an earlier one on their connection, and apply the limits.
        """
        if change > 0:
            self.hold(change)
        else:
            self.release(-change)
            if not self._reading:
                self.proceed()
        return not self.gone

    def resumeProducing(self) -> None:
        """
        Continue, because the client has read all written bytes.
        """
        super().resumeProducing()
        if self._queue is not None:
            self._queue.drained()

    def _drained(self) -> None:
        """
        Adapt the window when nothing is in flight, and release a leased connection.
        """
        if self.batch > BATCH:
            self._window = max(1, self._window // 2)
        elif self._window < self._limits.maxInFlight and not self._full:
            self._window = min(2 * self._window, self._limits.maxInFlight)
        if self._pin is not None:
            self._unpin()

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Let reads be sent again, and answer all other requests with the error.
        """
        self.lost(None, requests, begun, error)

    def afterLoss(self, error: PoolError) -> None:
        """
        Write the replies whose turn it is, and send the next requests.
        """
        self.answered(0)

    def declined(self, connection: Any, sent: Any, reply: bytes) -> bool:
        """
        Send a request again.
        """
        return self.resend(None, connection, sent, reply)

    # -- Replies that wait for an earlier one

    def answer(self, data: bytes) -> None:
        """
        Write a reply of the proxy itself, in its place in the order.
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
        Add an entry for a reply that comes later, in its place in the order.
        """
        queue = self._needQueue()
        queue.append(entry)
        self._sink = queue.last
        self.advance()
        if entry.unsent:
            if self._unsent:
                self._unsent.append(entry)
            else:
                self._unsent = deque((entry,))

    def _needQueue(self) -> ReplyQueue:
        if self._queue is None:
            self._queue = ReplyQueue(self, self._inFlight)
            self._sink = self._queue.last
        return self._queue

    def advance(self) -> None:
        """
        Write the replies of queue entries whose turn it is. Drop the queue if all its entries are complete.
        """
        queue = self._queue
        if queue is not None and queue.advance() and self._queue is queue:
            self._queue = None
            self._sink = None

    def answered(self, done: int) -> None:
        """
        Called by a queue entry when C{done} of its requests were answered.
        """
        if done:
            self.settle(done)
        if self._queue is not None:
            self.advance()
        crowded = self.unread > self._limits.unreadSoft
        if self._size or self._unsent or self._ending or crowded or not self._reading:
            self.proceed()

    def settle(self, done: int) -> None:
        """
        Count C{done} requests as no longer in flight.
        """
        self._inFlight -= done
        if not self._inFlight:
            self._connection = None
            self._drained()
            self.batch = 0

    def lost(self, entry: Entry | None, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Handle a lost connection: let reads be sent once more, and answer all other requests with the error. If the
        client has received a part of a reply, it can only be closed.

        @param entry: the queue entry of the requests; C{None} if they come before the queue.
        """
        if begun and not self.gone:
            self.breakOff()
        elif not self.gone:
            queue = self._needQueue()
            if entry is None:
                queue.ahead = 0
            entries = list(self._replacing(requests, error))
            if not self.gone:  # the errors may be more than is held for a client
                self.replace(entry, entries)
        self.settle(sum(count for _, _, count, _, _ in requests))

    def sendAlone(self, command: Any, request: bytes) -> None:
        """
        Send the oldest request in flight alone. It was to be sent together with those of other clients, but was not
        sent, or there is no usable reply.
        """
        if not self.gone:
            self._needQueue().ahead = 0
            self.replace(None, [QueuedRequest(self, command, 1, request)])
        self.answered(1)

    def resend(self, entry: Entry | None, connection: Any, sent: Any, reply: bytes) -> bool:
        """
        Send a request once more that a server has declined, see L{DeclinedRequests}. On a connection of the client's
        own this is not possible, because its state is not on another one.

        @param entry: the queue entry of the request; C{None} if it comes before the queue.
        @param sent: the request, an L{InFlight<txconnpool.pool.connection.InFlight>}.

        @return: whether this is done; if not, the client gets the reply.
        """
        _, command, _, _, request = sent
        sink = self if entry is None else entry
        if self.gone or self._pin is not None or not request or connection.carries(self, sink):
            return False
        queue = self._needQueue()
        declined = DeclinedRequests(self, command, request)
        declined.left = 1 + connection.reassign(sink, declined)
        if entry is None:
            queue.ahead = 0
        else:
            entry.left -= declined.left
        self.replace(entry, [declined])
        return declined.declined(connection, sent, reply)

    def replace(self, entry: Entry | None, entries: list[Any]) -> None:
        """
        Add queue entries after one whose replies are no longer due.

        @param entry: the entry; C{None}: add them at the beginning of the queue.
        """
        queue = self._needQueue()
        queue.insert(entry, entries)
        self._sink = queue.last
        self.collect()

    def collect(self) -> None:
        """
        Collect the queue entries with requests that must be sent before all later requests.
        """
        unsent = self._queue.unsent if self._queue is not None else None
        self._unsent = deque(unsent) if unsent else NOTHING

    def _replacing(self, requests: list[Any], error: PoolError) -> Iterator[Entry]:
        for _, command, count, _, request in requests:
            again = self._repeated(command, count, request, error) if self._pin is None else None
            if again is not None:
                yield again
            else:
                refused = Entry(self)
                refused.take(self.refusal(command, count, error))
                yield refused

    def _repeated(self, command: Any, count: int, request: bytes, error: PoolError) -> RetriedRequest | None:
        """
        @return: the queue entry that sends requests once more; C{None} if they must not be.
        """
        return RetriedRequest(self, command, count, request) if isRetryable(command, error) else None

    def refusal(self, command: Any, count: int, error: PoolError) -> bytes:
        """
        @return: the bytes for the client in place of C{count} replies, after an error, which is counted.
        """
        self.countErrors(count, error)
        return self.errorFor(command, error) * count

    def errorFor(self, command: Any, error: PoolError) -> bytes:
        """
        @return: the bytes for the client in place of a reply.
        """
        visible: bytes = command.visible(self.factory.dialect.error(error.kind, str(error)))
        return visible

    def countErrors(self, count: int, error: PoolError) -> None:
        """
        Count requests to which the client gets an error instead of a server's reply.
        """
        tally(self._counters.errors, error.kind, count)

    def retried(self, count: int) -> None:
        """
        Count requests that are sent a second time.
        """
        self._pool.counters.retries += count

    def slowDown(self) -> None:
        """
        Halve the window.
        """
        self._window = max(1, self._window // 2)

    def limit(self, limits: SessionLimits) -> None:
        """
        Apply other limits.
        """
        self._window = min(self._window, limits.maxInFlight)
        super().limit(limits)

    def forget(self) -> None:
        """
        Drop all replies, because the client is gone or is being closed.
        """
        self._unsent = NOTHING
        if self._queue is not None:
            self._queue.discard()
            self._queue = None
        self._sink = None
        super().forget()

    # -- A connection for this client alone

    def _unpin(self) -> None:
        """
        Release the leased connection, if no request needs it any more.
        """
        if self._pin is not None and not self._pin.needed:
            pin, self._pin = self._pin, None
            problem = None
            if self._flavours is not None:  # the flavour may have changed meanwhile
                try:
                    self._use(self._flavours.use(self, self._reader.flavour))
                except PoolError as error:
                    problem = error
            pin.release()
            if problem is not None:
                self._stateLost(problem)

    def _stateLost(self, error: PoolError) -> None:
        """
        Close the client, because there are no connections with the state that its own one had.
        """
        raise NotImplementedError

    def _use(self, pool: Any) -> None:
        """
        Use another pool from now on.
        """
        self._pool = pool

    def pushed(self, data: bytes) -> None:
        """
        Write a frame from the server of the leased connection that is no reply, in its place among the replies.
        """
        if self._queue is None:
            self.put(data)
        else:
            self._queue.next.take(data)

    # -- Frames that no request asked for

    def interject(self, data: bytes) -> None:
        """
        Write a frame from a connection that is not that of the client's requests. If a reply is written in parts now,
        or earlier frames wait, it is written after the replies that are due.
        """
        if self._ending:
            return
        isBusy = self._inFlight or self._queue is not None
        if isBusy and (self.held or any(each is not None and each.receiving for each in self._used)):
            self.answer(data)
        else:
            self.put(data)

    @property
    def _used(self) -> Iterable[Any]:
        """
        The connections of requests in flight.
        """
        return (self._connection,)
