# -*- test-case-name: tests.proxy.test_session -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The connections of a pool for the requests of one client: found, waited for, and leased where the client needs one of
its own.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IWaiter
from txconnpool.proxy.ordering import NOTHING, OrderedReplies
from txconnpool.proxy.pinning import Pin


@implementer(IWaiter)
class RequestSender(OrderedReplies):
    """
    A client with requests to send. While it has requests in flight it stays on their connection.

    @ivar ticket: its place among the waiters of the pool, while it waits.
    @ivar waited: where slow requests are looked for: how many seconds it last waited for a connection, and from when to
        when it sent the requests that had waited.
    """

    ticket: Any = None
    waited = (0.0, 0.0, 0.0)

    def __init__(self, factory: Any) -> None:
        super().__init__(factory)
        self._reader = factory.newReader()
        self._blocked = False  # it waits for a connection, or will never send anything again
        self._refusable = 0  # how many bytes of the requests that are kept have waited as long as it waits

    @property
    def oldest(self) -> bytes:
        """
        Bytes that begin with the request that is sent next.
        """
        raise NotImplementedError

    def _take(self) -> int:
        """
        Find a connection.

        @return: how many requests it takes now. If none, this session is called again: because it waits for a
            connection, or because it has requests in flight.

        @raise PoolError: there is none and will be none.
        """
        connection = self._connection
        if connection is None:
            if self._pin is not None:
                return 0
            record = self._pool.take(self)
            if record is None:
                self._blocked = True
                self._refusable = self._size
                return 0
            self._connection = record.connection
        elif self._inFlight and self._pool.waiters.count:
            return 0  # others have their turn first; ours comes when all we have in flight is answered
        else:
            record = connection.record
        room: int = record.depth - record.load
        return room

    def granted(self, record: Any) -> None:
        """
        The pool has a connection.
        """
        slow, seconds = self.factory.slow, self.factory.reactor.seconds
        if slow is not None:
            start = seconds()
            waited = start - self.ticket.since
            if waited > slow.threshold:
                slow.waited(self.oldest, waited)
        pins = self.ticket.exclusive
        self.ticket = None
        self._blocked = False
        if pins:
            self._pin = Pin(self, self._pool, record, self._reader)
        else:
            self._connection = record.connection
        self.proceed()
        if slow is not None:
            self.waited = waited, start, seconds()
        if not (self._inFlight or pins):
            self._connection = None
            self._pool.hasCapacity(record)

    def refused(self, error: PoolError) -> None:
        """
        There is no connection for the requests that have waited.
        """
        self.ticket = None
        self._blocked = False
        for entry in list(self._unsent):
            entry.refuse(error)
        self.advance()
        self.proceed(error)

    @property
    def waiting(self) -> bool:
        """
        Whether the session waits for a connection.
        """
        return self.ticket is not None

    # -- Requests that go before those kept

    def _sendUnsent(self) -> None:
        """
        Send the requests of the queue that go before those kept, as far as they may go now.
        """
        while self._unsent:
            entry = self._unsent[0]
            if entry.unsent:
                if not entry.ready:
                    return
                try:
                    room = self._take()
                except PoolError as error:
                    entry.refuse(error)
                    self.advance()
                    continue
                if room <= 0 and (room := self._ownRoom()) <= 0:
                    return
                command, count, data = entry.next(room)
                self._inFlight += count
                self._connection.send(entry, command, count, data)
            if not entry.unsent and self._unsent and self._unsent[0] is entry:
                self._unsent.popleft()
        self._unsent = NOTHING
        if self.kept and self._size <= self._limits.backlog:
            self.factory.buffered.free(self)

    # -- A connection of its own

    def _wantPin(self) -> bool:
        """
        Ask for a connection that no other client uses, when all requests before are answered.

        @return: whether the session has one now; if not, it is called again.

        @raise PoolError: there is none and will be none.
        """
        if self._inFlight or self._queue is not None:
            return False
        record = self._pool.take(self, True)
        if record is None:
            self._blocked = True
        else:
            self._pin = Pin(self, self._pool, record, self._reader)
        return record is not None

    def _ownRoom(self) -> int:
        """
        @return: how many requests may be sent on the session's own connection; 0 if it has none, or if the next request
            does not need it.
        """
        if self._pin is None or not self._pin.needed:
            return 0
        self._connection = self._pin.connection
        self._needQueue()
        room: int = self._window - self._inFlight
        return room

    # -- The end

    def forget(self) -> None:
        """
        The client is gone or given up: wait for nothing, and close a connection of its own.
        """
        if self.ticket is not None:
            self._pool.forget(self.ticket)
            self.ticket = None
        if self._pin is not None:
            pin, self._pin = self._pin, None
            pin.abandon()
        self._blocked = True
        super().forget()
